"""A spiking network as the last step of a scikit-learn pipeline, so that its tools for scaling and selection apply to it.

    pip install scikit-learn
    python examples/sklearn_pipeline.py [--out FOLDER]

Cross-validates on scikit-learn's 8 x 8 digits, and draws the confusion matrix of a held-out part (sklearn_confusion.png).
"""

import argparse
from pathlib import Path

import numpy as np

import spikeflow as sf
from spikeflow import plotting, surrogate

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.datasets import load_digits
    from sklearn.model_selection import cross_val_score, train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler
except ImportError:
    print("this example needs scikit-learn: pip install scikit-learn")
    raise SystemExit(0) from None


class SpikingClassifier(ClassifierMixin, BaseEstimator):
    """Features in, through one hidden layer, and the class whose neuron fires most often out."""

    def __init__(self, hidden=100, num_steps=20, beta=0.9, epochs=10, batch_size=64, lr=3e-3, seed=0):
        self.hidden, self.num_steps, self.beta = hidden, num_steps, beta
        self.epochs, self.batch_size, self.lr, self.seed = epochs, batch_size, lr, seed

    def fit(self, X, y):
        X = np.asarray(X, np.float32)
        self.classes_, codes = np.unique(y, return_inverse=True)
        lif = dict(beta=self.beta, spike_grad=surrogate.fast_sigmoid(slope=25))
        first, last = sf.Linear(X.shape[1], self.hidden), sf.Linear(self.hidden, len(self.classes_))
        self.net_ = sf.Sequential(first, sf.Leaky(**lif), last, sf.Leaky(**lif), seed=self.seed)
        optimizer, loss_fn = sf.optim.Adam(self.net_.parameters(), lr=self.lr), sf.losses.ce_rate_loss()
        rng = np.random.default_rng(self.seed)
        for _ in range(self.epochs):
            order = rng.permutation(len(X))
            for batch in np.split(order, range(self.batch_size, len(X), self.batch_size)):
                self.net_.zero_grad()
                self.net_.loss_and_grad(X[batch], codes[batch], loss_fn, num_steps=self.num_steps)
                optimizer.step()
        return self

    def predict(self, X):
        counts = self.net_.predict(np.asarray(X, np.float32), num_steps=self.num_steps, counts=True)
        return self.classes_[counts.argmax(1)]


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path(), help="folder of the picture")
out = parser.parse_args().out
out.mkdir(parents=True, exist_ok=True)

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)
pipeline = make_pipeline(MinMaxScaler(), SpikingClassifier())
scores = cross_val_score(pipeline, X_train, y_train, cv=3)
print(f"3-fold cross-validation: accuracies {', '.join(f'{100 * score:.1f} %' for score in scores)}")
pipeline.fit(X_train, y_train)
print(f"held-out accuracy {100 * pipeline.score(X_test, y_test):.2f} %")
plotting.confusion_matrix(y_test, pipeline.predict(X_test)).figure.savefig(out / "sklearn_confusion.png", dpi=110)
print(out / "sklearn_confusion.png")
