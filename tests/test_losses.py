from __future__ import annotations

import math

import numpy as np
import pytest

from spikeflow import losses

LOSSES = [losses.ce_rate_loss(), losses.ce_count_loss(), losses.ce_membrane_loss()]
TORCH = 2.052627718816367, 3.4963023746057504, 4.105255437632734  # torch.nn.functional.cross_entropy 2.13, float64
every_loss = pytest.mark.parametrize("loss_fn", LOSSES, ids=repr)


def draw(T=4, B=5, C=3, dtype=np.float64):
    rng = np.random.default_rng(0)
    return rng.normal(size=(T, B, C)).astype(dtype), rng.integers(0, C, B)


def cross_entropy(logits, label) -> float:
    return -math.log(math.exp(logits[label]) / sum(math.exp(z) for z in logits))


def by_formula(loss_fn, record, labels) -> float:
    """The three losses, once more, in scalars."""
    T, B, _ = record.shape
    if isinstance(loss_fn, losses.ce_count_loss):
        return sum(cross_entropy(record[:, b].sum(0), labels[b]) for b in range(B)) / B
    total = sum(cross_entropy(record[t, b], labels[b]) for t in range(T) for b in range(B))
    return total / (T * B) if isinstance(loss_fn, losses.ce_rate_loss) else total / B


@every_loss
def test_value_of_the_formula(loss_fn):
    record, labels = draw()
    assert loss_fn(record, labels)[0] == pytest.approx(by_formula(loss_fn, record, labels), rel=1e-13)


@pytest.mark.parametrize("loss_fn, value", list(zip(LOSSES, TORCH, strict=True)), ids=repr)
def test_value_of_torch(loss_fn, value):
    record = np.array([[[2.0, -1, 0.5], [0, 0, 3]], [[1, 1, 1], [-2, 0.25, 4]]])
    assert loss_fn(record, [0, 1])[0] == pytest.approx(value, rel=1e-14)


@every_loss
def test_gradient_is_the_derivative_of_the_value(loss_fn):
    record, labels = draw()
    gradient, h = loss_fn(record, labels)[1], 1e-5
    numeric = np.zeros_like(record)
    for index in np.ndindex(*record.shape):
        values = []
        for step in (h, -h):
            moved = record.copy()
            moved[index] += step
            values.append(loss_fn(moved, labels)[0])
        numeric[index] = (values[0] - values[1]) / (2 * h)
    assert np.linalg.norm(numeric - gradient) <= 1e-8 * np.linalg.norm(gradient)


@every_loss
@pytest.mark.parametrize("cuts", [[], [1], [2, 3], [1, 2, 3, 4]], ids=str)
def test_partial_shares_add_up(loss_fn, cuts):
    record, labels = draw()
    normaliser = loss_fn.normaliser(labels)
    parts = zip(np.split(record, cuts, axis=1), np.split(labels, cuts), strict=True)
    shares = [loss_fn.partial(part, names, normaliser) for part, names in parts]
    loss, gradient = loss_fn(record, labels)
    assert sum(share for share, _ in shares) == pytest.approx(loss, rel=1e-14)
    np.testing.assert_array_equal(np.concatenate([part for _, part in shares], axis=1), gradient)


@every_loss
@pytest.mark.parametrize("size", [1e3, 1e30])
def test_finite_for_huge_logits(loss_fn, size):
    record = np.array([[[size, -size, 0]], [[size, size, size]]])
    for label in range(3):
        loss, gradient = loss_fn(record, [label])
        assert math.isfinite(loss) and loss >= 0 and np.isfinite(gradient).all()


@every_loss
def test_the_right_answer_costs_nothing(loss_fn):
    record = np.zeros((2, 1, 3))
    record[:, :, 1] = 1e3
    assert loss_fn(record, [1])[0] == 0
    assert loss_fn(record, [0])[0] > 500


@every_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types(loss_fn, dtype):
    record, labels = draw(dtype=dtype)
    loss, gradient = loss_fn(record, labels)
    assert type(loss) is float and gradient.dtype == dtype and gradient.shape == record.shape
    assert gradient.flags.c_contiguous and gradient.flags.writeable


@every_loss
def test_computes_in_float64(loss_fn):
    record, labels = draw(T=50, dtype=np.float32)
    loss, gradient = loss_fn(record, labels)
    exact, exact_gradient = loss_fn(record.astype(np.float64), labels)
    assert loss == exact
    np.testing.assert_array_equal(gradient, exact_gradient.astype(np.float32))


@every_loss
def test_arguments_stay_as_they_are(loss_fn):
    record, labels = draw()
    copies = record.copy(), labels.copy()
    loss_fn(record, labels)
    np.testing.assert_array_equal(record, copies[0])
    np.testing.assert_array_equal(labels, copies[1])


@every_loss
@pytest.mark.parametrize(
    "labels, error, message",
    [
        ([0, 1, 3], ValueError, r"labels must be in \[0, 3\), got values from 0 to 3"),
        ([0, -1, 2], ValueError, r"labels must be in \[0, 3\), got values from -1 to 2"),
        ([0, 1], ValueError, r"labels must have shape \(3,\), one for each sample, got \(2,\)"),
        ([[0, 1, 2]], ValueError, r"labels must have shape \(3,\)"),
        (1, ValueError, r"labels must have shape \(3,\)"),
        ([0.0, 1.0, 2.0], TypeError, "labels must be integers, got float64"),
        ([True, False, True], TypeError, "labels must be integers, got bool"),
        (["0", "1", "2"], TypeError, "labels must be integers"),
        (np.eye(3), TypeError, "labels must be integers"),
    ],
    ids=["too-large", "negative", "too-few", "two-axes", "scalar", "float", "bool", "text", "one-hot"],
)
def test_bad_labels(loss_fn, labels, error, message):
    with pytest.raises(error, match=message):
        loss_fn(np.zeros((2, 3, 3)), labels)


@every_loss
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64])
def test_labels_of_any_integer_type(loss_fn, dtype):
    record, labels = draw()
    assert loss_fn(record, labels.astype(dtype))[0] == loss_fn(record, labels.tolist())[0]


@every_loss
@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3, 1), (0, 4, 3), (2, 0, 3), (2, 4, 0)], ids=str)
def test_bad_shape(loss_fn, shape):
    with pytest.raises(ValueError, match=rf"^{loss_fn.inputs} must be a float array \(T, B, C\)"):
        loss_fn(np.zeros(shape), np.zeros(4, int))


@every_loss
def test_integer_records_are_refused(loss_fn):
    with pytest.raises(ValueError, match=rf"^{loss_fn.inputs} must be a float array \(T, B, C\), got int64"):
        loss_fn(np.zeros((2, 4, 3), np.int64), np.zeros(4, int))


@every_loss
def test_outputs_that_are_images_are_refused(loss_fn):
    with pytest.raises(ValueError, match=r"needs outputs of shape \(C,\) per sample, got \(2, 3, 4\)"):
        loss_fn.classes((2, 3, 4))


def test_what_the_losses_read():
    assert [loss_fn.inputs for loss_fn in LOSSES] == ["spikes", "spikes", "membrane"]


def test_a_loss_must_define_partial():
    with pytest.raises(NotImplementedError, match="a loss must define partial"):
        losses.Loss()(*draw())
