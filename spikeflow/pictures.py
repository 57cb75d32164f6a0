"""Pictures of a finished run: what ``spikeflow plot RUN --kind ...`` makes.

Each kind is a function of a run that returns a Matplotlib figure or animation. Where a kind shows one sample, it is image
``sample`` of the test set; where it needs many, the first SAMPLES of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np

from . import datasets, logs, presets, training
from .checkpoint import CheckpointError, load_with_info
from .files import atomic_write
from .layers import Conv2d, Neuron
from .layers.containers import leaves

__all__ = ["KINDS", "Run", "kinds_of", "plot"]

SAMPLES = 64


class Run:
    """A run folder, opened for its pictures."""

    def __init__(self, folder: str | os.PathLike, which: str = "latest", sample: int = 0, data_dir: str | None = None):
        self.folder, self.sample, self.data_dir = Path(folder), sample, data_dir
        self.net, self.info = load_with_info(self.folder / f"checkpoint-{which}.npz")
        if "num_steps" not in self.info:
            raise CheckpointError(f"{self.folder} was not written by `spikeflow train`: it does not say how many steps to run")
        if not 0 <= sample < len(self.test[0]):
            raise ValueError(f"sample must be in [0, {len(self.test[0])}), the images of the test set, got {sample}")

    @property
    def dataset(self) -> str:
        return self.info.get("dataset", "mnist")

    @property
    def classes(self) -> tuple[str, ...]:
        """What the labels mean."""
        return datasets.CLASSES[self.dataset]

    @cached_property
    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """Test images uint8 (N, H, W), and labels."""
        test = datasets.load(self.dataset, "test", data_dir=self.data_dir)
        return tuple(array[:: self.info.get("subset", 1)] for array in test)

    def encoded(self, first: int, count: int) -> tuple[np.ndarray, int | None]:
        """Some test images as the network was trained to take them; whole batches of an evaluation as it takes them."""
        x = self.test[0][first : first + count, None].astype(np.float32) / np.float32(255)
        options = self.info.get("encoding", "direct"), self.info["num_steps"], self.info.get("seed", 0)
        return training.encode(x, *options, training.EVALUATION + first // training.EVALUATION_BATCH)

    @cached_property
    def one(self) -> dict[str, dict[str, np.ndarray]]:
        """What every neuron does for the sample."""
        return self.net.record(*self.encoded(self.sample, 1))

    def read(self, name: str, parse: Callable):
        """-> what ``parse`` makes of a file of the run; ValueError, naming it, if it cannot."""
        path = self.folder / name
        try:
            return parse(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error

    @property
    def title(self) -> str:
        name = self.classes[self.test[1][self.sample]]
        return f"test image {self.sample}, {'an' if name[0] in 'a8' else 'a'} {name}"


def _curves(run):
    from . import plotting

    return plotting.training_curves(run.read("metrics.jsonl", lambda text: logs.read_rows(run.folder / "metrics.jsonl")))


def _raster(run):
    from matplotlib.figure import Figure

    from . import plotting

    layers = {name: layer["spikes"][:, 0].reshape(len(layer["spikes"]), -1) for name, layer in run.one.items()}
    figure = Figure(figsize=(7, 2.2 * len(layers) + 0.6), layout="constrained")
    for ax, (name, spikes) in zip(figure.subplots(len(layers), squeeze=False)[:, 0], layers.items(), strict=True):
        plotting.raster(spikes, ax)
        ax.set_title(f"layer {name}: {100 * spikes.mean():.1f} % of {spikes.shape[1]} neurons a step", fontsize=9)
    figure.suptitle(run.title, fontsize=10)
    return figure


def _traces(run):
    from . import plotting

    name, layer = list(run.one.items())[-1]
    threshold = next(layer for layer in leaves(run.net.layers) if layer.name == name).current("threshold")
    count = layer["spikes"].shape[-1]
    threshold = np.broadcast_to(threshold, (count,))
    return plotting.traces(layer["membrane"][:, 0], layer["spikes"][:, 0], threshold, dim=(-(-count // 5), min(count, 5)))


def _spike_count(run):
    from . import plotting

    spikes = list(run.one.values())[-1]["spikes"][:, 0]
    return plotting.spike_count(spikes, labels=run.classes)


def _input(run):
    from . import plotting

    x, _ = run.encoded(run.sample, 1)
    return plotting.animator(x[:, 0].astype(np.float32), interval=80)


def _encoder(run):
    from . import plotting

    image = run.test[0][run.sample]
    figure = plotting.encoder(image, next(iter(run.one.values()))["spikes"][:, 0])
    figure.suptitle(run.title, fontsize=10)
    return figure


def _rates(run):
    from . import plotting

    return plotting.firing_rates(run.net.record(*run.encoded(0, SAMPLES)))


def _filters(run):
    from . import plotting

    conv = next(layer for layer in leaves(run.net.layers) if isinstance(layer, Conv2d))
    return plotting.filters(conv.params["weight"].value).figure


def _confusion(run):
    from . import plotting

    images, labels = run.test
    counts = []
    for first in range(0, len(images), training.EVALUATION_BATCH):
        counts.append(training.first_head(run.net.predict(*run.encoded(first, training.EVALUATION_BATCH), counts=True)))
    return plotting.confusion_matrix(labels, np.concatenate(counts).argmax(1), classes=run.classes).figure


def _gradient_flow(run):
    from . import plotting

    loss_fn = presets.make_loss(run.read("config.json", json.loads).get("loss") or "ce_rate_loss")
    x, num_steps = run.encoded(0, SAMPLES)
    record = run.net.record(x, num_steps, backward=True, labels=run.test[1][:SAMPLES].astype(int), loss_fn=loss_fn)
    return plotting.gradient_flow(record)


def _surrogates(run):
    from . import plotting

    return plotting.surrogates(next(layer for layer in leaves(run.net.layers) if isinstance(layer, Neuron)).spike_grad)


KINDS: dict[str, tuple[Callable, str]] = {  # the kind, who makes it, and as what
    "curves": (_curves, ".png"),
    "raster": (_raster, ".png"),
    "traces": (_traces, ".png"),
    "spike-count": (_spike_count, ".gif"),
    "input": (_input, ".gif"),
    "encoder": (_encoder, ".png"),
    "rates": (_rates, ".png"),
    "filters": (_filters, ".png"),
    "confusion": (_confusion, ".png"),
    "gradient-flow": (_gradient_flow, ".png"),
    "surrogates": (_surrogates, ".png"),
}


def kinds_of(run: Run) -> list[str]:
    """-> the kinds of pictures that a run can make."""
    missing = set()
    if run.info.get("encoding", "direct") == "direct":
        missing.add("input")  # nothing moves
    else:
        missing.add("encoder")  # what comes in is spikes already
    if not any(isinstance(layer, Conv2d) for layer in leaves(run.net.layers)):
        missing.add("filters")
    if not isinstance(run.net.layers[0], Conv2d):
        missing.add("encoder")
    return [kind for kind in KINDS if kind not in missing]


def plot(run: Run, kind: str, out: str | os.PathLike | None = None) -> Path:
    """Make a picture and write it, atomically -> its path.

    Parameters
    ----------
    run : Run
    kind : str
        One of ``kinds_of(run)``.
    out : path, optional
        ``RUN/<kind>.png``, or ``.gif`` for what moves, by default; the ending says the format.

    Raises
    ------
    ValueError
        A kind that this run cannot make, or an unknown format.
    OSError
        The file cannot be written.
    """
    from . import plotting

    if kind not in kinds_of(run):
        raise ValueError(f"kind must be one of {', '.join(kinds_of(run))} for this run, got {kind!r}")
    make, suffix = KINDS[kind]
    path = Path(out) if out is not None else run.folder / f"{kind}{suffix}"
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} of the picture does not exist")
    if suffix == ".gif":
        plotting.movies.check_format(path)  # before the animation is made
        plotting.save_animation(make(run), path)
        return path
    picture, form = make(run), path.suffix.lower().removeprefix(".")
    known = picture.canvas.get_supported_filetypes()
    if form not in known:
        raise ValueError(f"out must end in one of {', '.join('.' + name for name in known)}, got {str(path)!r}")
    with atomic_write(path) as file:
        picture.savefig(file, format=form, dpi=120)
    return path
