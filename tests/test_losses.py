from __future__ import annotations

import math

import numpy as np
import pytest

from spikeflow import losses

T, B, C = 4, 5, 6
W3, W6 = [1, 0.5, 2], [1, 0.5, 2, 0, 3, 1.5]
GROUPS = {"population_code": True, "num_classes": 3}
COUNT = [losses.ce_rate_loss, losses.ce_count_loss, losses.mse_count_loss, losses.mse_rate_loss]
BY_LABELS = [*COUNT, losses.ce_membrane_loss, losses.ce_max_membrane_loss, losses.mse_membrane_loss, losses.tet_loss]
CROSS_ENTROPIES = [losses.ce_rate_loss, losses.ce_count_loss, losses.ce_membrane_loss, losses.ce_max_membrane_loss]
CROSS_ENTROPIES += [losses.tet_loss]
TEMPORAL = [losses.ce_temporal_loss, losses.mse_temporal_loss]

PLAIN = [losses.ce_rate_loss(), losses.ce_count_loss(), losses.ce_membrane_loss()]
SMOOTH = [
    *(make(**options) for make in BY_LABELS for options in ({}, {"weight": W6}, {"reduction": "sum", "weight": W6})),
    *(make(**GROUPS, **options) for make in COUNT for options in ({}, {"weight": W3}, {"reduction": "sum"})),
    *(make(label_smoothing=e, **options) for make in CROSS_ENTROPIES for e, options in ((0.1, {}), (0.7, {"weight": W6}))),
    losses.ce_count_loss(label_smoothing=0.2, reduction="sum", weight=W3, **GROUPS),
    losses.tet_loss(0.3, phi=0.4, weight=W6),
    losses.tet_loss(0.3, inputs="spikes", reduction="sum", label_smoothing=0.1),
    losses.tet_loss(1),
    losses.mse_count_loss(correct_rate=0.75, incorrect_rate=0.3),
    losses.mse_rate_loss(correct_rate=0.75, incorrect_rate=0.3),
    losses.mse_membrane_loss(on_target=0.9, off_target=-0.5),
    losses.mse_membrane_loss(time_var_targets=True),
    losses.mse_membrane_loss(time_var_targets=True, reduction="sum"),
    losses.l1_rate_sparsity(0.3),
    losses.ce_rate_loss(weight=W6) + 0.25 * losses.l1_rate_sparsity(0.3),
    losses.ce_rate_loss(weight=W6) + 2 * losses.ce_max_membrane_loss() + losses.l1_rate_sparsity(0.3),
    losses.mse_rate_loss(weight=W6) + 0.5 * losses.tet_loss(0.2, label_smoothing=0.1),
]
SPIKE_TIMES = [
    *(make(**options) for make in TEMPORAL for options in ({}, {"weight": W6}, {"reduction": "sum", "weight": W6})),
    losses.ce_temporal_loss(inverse="reciprocal"),
    losses.ce_temporal_loss(weight=W6, label_smoothing=0.2),
    losses.mse_temporal_loss(on_target=1, off_target=3, tolerance=1.5),
    losses.mse_temporal_loss(target_is_time=True),
    losses.mse_temporal_loss(target_is_time=True, multi_spike=True, reduction="sum"),
    losses.mse_temporal_loss(on_target=[0, 1, 2], off_target=[2, -2, -1], multi_spike=True, weight=W6),
]
every_loss = pytest.mark.parametrize("loss_fn", PLAIN, ids=repr)
any_loss = pytest.mark.parametrize("loss_fn", SMOOTH + SPIKE_TIMES, ids=repr)


def draw(T=4, B=5, C=3, dtype=np.float64):
    rng = np.random.default_rng(0)
    return rng.normal(size=(T, B, C)).astype(dtype), rng.integers(0, C, B)


def draw_for(loss_fn, dtype=np.float64):
    """-> spikes, membrane (T, B, C), targets; spikes of 0 and 1 for the losses of spike times."""
    rng = np.random.default_rng(1)
    spikes, membrane = rng.normal(size=(2, T, B, C))
    if loss_fn in SPIKE_TIMES:
        spikes = (rng.random((T, B, C)) < 0.4).astype(float)
    targets = {
        None: lambda: None,
        "labels": lambda: rng.integers(0, loss_fn.classes((C,)), B),
        "membranes": lambda: rng.normal(size=(T, B, C)),
        "spike times": lambda: rng.integers(-T, T, (3, B, C) if loss_fn.multi_spike else (B, C)),
    }[loss_fn.target_kind]()
    return spikes.astype(dtype), membrane.astype(dtype), targets


def cross_entropy(logits, label) -> float:
    return -math.log(math.exp(logits[label]) / sum(math.exp(z) for z in logits))


def by_formula(loss_fn, record, labels) -> float:
    """The cross-entropies without options, once more, in scalars."""
    T, B, _ = record.shape
    if isinstance(loss_fn, losses.ce_count_loss):
        return sum(cross_entropy(record[:, b].sum(0), labels[b]) for b in range(B)) / B
    total = sum(cross_entropy(record[t, b], labels[b]) for t in range(T) for b in range(B))
    return total / (T * B) if isinstance(loss_fn, losses.ce_rate_loss) else total / B


def central_differences(value, array, h=1e-5) -> np.ndarray:
    """d value / d array, entry by entry."""
    numeric = np.zeros(array.shape)
    for index in np.ndindex(*array.shape):
        values = []
        for step in (h, -h):
            moved = array.copy()
            moved[index] += step
            values.append(value(moved))
        numeric[index] = (values[0] - values[1]) / (2 * h)
    return numeric


@every_loss
def test_value_of_the_formula(loss_fn):
    record, labels = draw()
    assert loss_fn(record, labels)[0] == pytest.approx(by_formula(loss_fn, record, labels), rel=1e-13)


@pytest.mark.parametrize("loss_fn", SMOOTH, ids=repr)
def test_gradients_are_the_derivatives_of_the_value(loss_fn):
    spikes, membrane, targets = draw_for(loss_fn)
    _, dspikes, dmembrane = loss_fn.evaluate(spikes, membrane, targets)
    assert (dspikes is not None, dmembrane is not None) == (loss_fn.inputs != "membrane", loss_fn.inputs != "spikes")
    for gradient, value, record in (
        (dspikes, lambda moved: loss_fn.evaluate(moved, membrane, targets)[0], spikes),
        (dmembrane, lambda moved: loss_fn.evaluate(spikes, moved, targets)[0], membrane),
    ):
        if gradient is not None:
            numeric = central_differences(value, record)
            assert gradient.any() and np.linalg.norm(numeric - gradient) <= 1e-8 * np.linalg.norm(gradient)


def times_of(train, number) -> list[int]:
    """The steps of the first spikes of one neuron, T - 1 for missing ones."""
    found = [t for t in range(len(train)) if train[t] != 0][:number]
    return found + [len(train) - 1] * (number - len(found))


def wanted_times(loss_fn, targets, b, c, f) -> float:
    if loss_fn.target_is_time:
        time = targets[f, b, c] if loss_fn.multi_spike else targets[b, c]
    else:
        time = np.ravel(loss_fn.on_target if targets[b] == c else loss_fn.off_target)[f]
    return time + T if time < 0 else time


def loss_of_times(loss_fn, times, targets) -> float:
    """A temporal loss of the times (F, B, C), in scalars; a time within the tolerance costs nothing."""
    F = len(times)
    weights = [1.0 if loss_fn.weight is None else loss_fn.weight[targets[b]] for b in range(B)]
    count = 1.0 if loss_fn.reduction == "sum" else sum(weights)
    if isinstance(loss_fn, losses.ce_temporal_loss):
        inverse = {"negate": lambda t: -t, "reciprocal": lambda t: 1 / (t + 1)}[loss_fn.inverse]
        total, e = 0.0, loss_fn.label_smoothing
        for b, k in np.ndindex(B, C):
            part = (1 - e) * (k == targets[b]) + e / C
            weight = 1.0 if loss_fn.weight is None else loss_fn.weight[k]
            total += part * weight * cross_entropy([inverse(t) for t in times[0, b]], k)
        return total / count
    total = 0.0
    for f, b, c in np.ndindex(F, B, C):
        error = times[f, b, c] - wanted_times(loss_fn, targets, b, c, f)
        total += weights[b] * (error / T) ** 2 * (abs(error) >= loss_fn.tolerance)
    return total / (count if loss_fn.reduction == "sum" else count * F * C)


@pytest.mark.parametrize("loss_fn", SPIKE_TIMES, ids=repr)
def test_losses_of_spike_times(loss_fn):
    spikes, _, targets = draw_for(loss_fn)
    spikes[:, 0, 1] = 0, 0, 0, 0
    spikes[:, 1, 2] = 0, 0.5, 0, 2
    F = 3 if getattr(loss_fn, "multi_spike", False) else 1
    times = np.zeros((F, B, C))
    for b, c in np.ndindex(B, C):
        times[:, b, c] = times_of(spikes[:, b, c], F)
    dtimes = central_differences(lambda moved: loss_of_times(loss_fn, moved, targets), times)
    expected = np.zeros_like(spikes)
    for f, b, c in np.ndindex(*times.shape):
        expected[int(times[f, b, c]), b, c] -= dtimes[f, b, c]
    loss, gradient = loss_fn(spikes, targets)
    assert loss == pytest.approx(loss_of_times(loss_fn, times, targets), rel=1e-12)
    assert gradient.any()
    np.testing.assert_allclose(gradient, expected, rtol=1e-8, atol=1e-9)


def test_missing_spikes_each_count_at_the_last_step():
    spikes = np.zeros((4, 1, 2))
    spikes[1, 0, 0] = 1
    loss_fn = losses.mse_temporal_loss(target_is_time=True, multi_spike=True, reduction="sum")
    loss, gradient = loss_fn(spikes, np.array([[[0, 0]], [[0, 1]], [[0, 2]]]))
    assert loss == pytest.approx((1 + 9 + 9 + 9 + 4 + 1) / 16)
    assert gradient[:, 0, 0].tolist() == [0, -2 * 1 / 16, 0, -2 * (3 + 3) / 16]
    assert gradient[:, 0, 1].tolist() == [0, 0, 0, -2 * (3 + 2 + 1) / 16]


def test_more_spikes_wanted_than_there_are_steps():
    spikes = np.ones((2, 1, 1))
    loss_fn = losses.mse_temporal_loss(on_target=[0, 0, 0], off_target=[0, 0, 0], multi_spike=True, reduction="sum")
    loss, gradient = loss_fn(spikes, [0])
    assert loss == pytest.approx((0 + 1 + 1) / 4)
    assert gradient[:, 0, 0].tolist() == [0, -2 * (1 + 1) / 4]


def test_the_tolerance_is_open():
    spikes = np.zeros((5, 1, 1))
    spikes[3] = 1
    for tolerance, loss in ((1.9, 4 / 25), (2, 4 / 25), (2.1, 0)):
        result, gradient = losses.mse_temporal_loss(on_target=1, tolerance=tolerance)(spikes, [0])
        assert result == pytest.approx(loss) and gradient.any() == (loss > 0)


def test_negative_targets_count_from_the_end():
    spikes = (np.random.default_rng(0).random((T, B, C)) < 0.3).astype(float)
    labels = np.arange(B)
    for negative, positive in (((0, -1), (0, 3)), ((-4, -2), (0, 2))):
        results = [losses.mse_temporal_loss(False, *times)(spikes, labels) for times in (negative, positive)]
        assert results[0][0] == results[1][0] > 0
        np.testing.assert_array_equal(results[0][1], results[1][1])


def test_of_equal_membranes_the_first_step_gets_the_gradient():
    membrane = np.array([0.0, 2, 2, 1])[:, None, None] * np.ones((1, 1, 2))
    gradient = losses.ce_max_membrane_loss()(membrane, [0])[1]
    assert gradient[:, 0].tolist() == [[0, 0], [-0.5, 0.5], [0, 0], [0, 0]]


@any_loss
@pytest.mark.parametrize("cuts", [[], [1], [2, 3], [1, 2, 3, 4]], ids=str)
def test_shares_of_blocks_add_up(loss_fn, cuts):
    spikes, membrane, targets = draw_for(loss_fn)
    checked = loss_fn.check(targets, T, B, (C,))
    assert len(checked) == B
    normaliser = loss_fn.normaliser(checked)
    blocks = zip(np.split(spikes, cuts, 1), np.split(membrane, cuts, 1), np.split(checked, cuts), strict=True)
    shares = [loss_fn.gradients(*block, normaliser) for block in blocks]
    loss, *gradients = loss_fn.evaluate(spikes, membrane, targets)
    assert sum(share for share, _, _ in shares) == pytest.approx(loss, rel=1e-14)
    for i, gradient in enumerate(gradients, start=1):
        parts = [share[i] for share in shares]
        if gradient is None:
            assert parts == [None] * len(parts)
        else:
            np.testing.assert_array_equal(np.concatenate(parts, axis=1), gradient)


@any_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types(loss_fn, dtype):
    spikes, membrane, targets = draw_for(loss_fn, dtype)
    loss, *gradients = loss_fn.evaluate(spikes, membrane, targets)
    assert type(loss) is float and any(gradient is not None for gradient in gradients)
    for gradient in gradients:
        if gradient is not None:
            assert gradient.dtype == dtype and gradient.shape == (T, B, C)
            assert gradient.flags.c_contiguous and gradient.flags.writeable


@any_loss
def test_computes_in_float64(loss_fn):
    spikes, membrane, targets = draw_for(loss_fn, np.float32)
    loss, *gradients = loss_fn.evaluate(spikes, membrane, targets)
    exact, *exact_gradients = loss_fn.evaluate(spikes.astype(np.float64), membrane.astype(np.float64), targets)
    assert loss == exact
    for gradient, other in zip(gradients, exact_gradients, strict=True):
        if gradient is not None:
            tolerance = 2e-7 if isinstance(loss_fn, losses.LossSum) else 0  # its parts are rounded before they are added
            np.testing.assert_allclose(gradient, other.astype(np.float32), rtol=tolerance)


@any_loss
def test_arguments_stay_as_they_are(loss_fn):
    arguments = draw_for(loss_fn)
    copies = [None if argument is None else argument.copy() for argument in arguments]
    loss_fn.evaluate(*arguments)
    for argument, copy in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(argument, copy)


@pytest.mark.parametrize("make", [*BY_LABELS, *TEMPORAL], ids=lambda make: make.__name__)
def test_a_weight_repeats_samples(make):
    """Whole weights mean the same as so many copies of a sample."""
    spikes, membrane, _ = draw_for(make())
    record, labels = (spikes if make().inputs == "spikes" else membrane), np.array([0, 1, 2, 2, 0])
    weight, copies = [1, 3, 0, 1, 1, 1], [0, 1, 1, 1, 4]
    for reduction in ("mean", "sum"):
        weighted = make(weight=weight, reduction=reduction)(record, labels)
        repeated = make(reduction=reduction)(record[:, copies], labels[copies])
        assert weighted[0] == pytest.approx(repeated[0], rel=1e-13)
        np.testing.assert_allclose(weighted[1][:, [0, 4]], repeated[1][:, [0, 4]], rtol=1e-13)
        np.testing.assert_allclose(weighted[1][:, 1], 3 * repeated[1][:, 1], rtol=1e-13)
        assert not weighted[1][:, [2, 3]].any()


@pytest.mark.parametrize("make", COUNT, ids=lambda make: make.__name__)
def test_a_population_code_adds_neighbours(make):
    spikes, labels = draw(C=6)
    sums = np.stack([spikes[..., 0] + spikes[..., 1], spikes[..., 2] + spikes[..., 3], spikes[..., 4] + spikes[..., 5]], -1)
    options = {"correct_rate": 0.5} if make is losses.mse_count_loss else {}
    loss, gradient = make(**GROUPS, **options)(spikes, labels % 3)
    if options:  # two neurons at half the rate
        options = {"correct_rate": 1}
    scale = 0.5 if make is losses.mse_rate_loss else 1  # a rate is of one neuron
    expected, expected_gradient = make(**options)(scale * sums, labels % 3)
    assert loss == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(gradient, np.repeat(scale * expected_gradient, 2, -1), rtol=1e-13)


def test_target_counts_are_whole():
    spikes = np.zeros((5, 1, 2))
    spikes[:3, 0, 0] = 1  # int(5 0.75) = 3 for the label
    spikes[:1, 0, 1] = 1  # int(5 0.3) = 1 for the other
    loss, gradient = losses.mse_count_loss(correct_rate=0.75, incorrect_rate=0.3)(spikes, [0])
    assert loss == 0 and not gradient.any()


def test_rates_of_one_record():
    spikes = np.zeros((4, 2, 3))
    spikes[0, 0] = 1  # rates 1/4, 1/4, 1/4
    spikes[:, 1, 2] = 1  # 0, 0, 1
    loss, gradient = losses.mse_rate_loss()(spikes, [1, 2])
    assert loss == pytest.approx((2 * 0.25**2 + 0.75**2) / 6)
    np.testing.assert_allclose(gradient[:, 0], 4 * [[0.5 / 24, -1.5 / 24, 0.5 / 24]])
    assert not gradient[:, 1].any()


@pytest.mark.parametrize("make", [*CROSS_ENTROPIES, losses.ce_temporal_loss], ids=lambda make: make.__name__)
def test_a_smoothed_label_is_a_mixture_of_all(make):
    record, labels = draw()
    if make is losses.ce_temporal_loss:
        record = (record > 0).astype(float)
    loss, gradient = make(label_smoothing=0.3)(record, labels)
    (plain, dplain), *others = (make()(record, wanted) for wanted in (labels, *(np.full(5, k) for k in range(3))))
    assert loss == pytest.approx(0.7 * plain + 0.1 * sum(other for other, _ in others), rel=1e-13)
    np.testing.assert_allclose(gradient, 0.7 * dplain + 0.1 * sum(dother for _, dother in others), atol=1e-15)


def test_tet_of_spikes_is_the_cross_entropy_of_rates():
    record, labels = draw()
    results = [loss_fn(record, labels) for loss_fn in (losses.tet_loss(inputs="spikes"), losses.ce_rate_loss())]
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_sums_of_losses():
    spikes, membrane, labels = *draw_for(SMOOTH[0])[:2], np.array([0, 1, 2, 4, 5])
    rate, count, top = losses.ce_rate_loss(weight=W6), losses.ce_count_loss(), losses.ce_max_membrane_loss()
    total = (rate + count * 2 + top) * 0.5 + losses.l1_rate_sparsity(0.25)
    assert total.inputs == "both" and (rate + count).inputs == "spikes" and (top + top).inputs == "membrane"
    loss, dspikes, dmembrane = total.evaluate(spikes, membrane, labels)
    by_rate, by_count, by_top = rate(spikes, labels), count(spikes, labels), top(membrane, labels)
    assert loss == pytest.approx(0.5 * by_rate[0] + by_count[0] + 0.5 * by_top[0] + 0.25 * spikes.sum(), rel=1e-13)
    np.testing.assert_allclose(dspikes, 0.5 * by_rate[1] + by_count[1] + 0.25, rtol=1e-13)
    np.testing.assert_allclose(dmembrane, 0.5 * by_top[1], rtol=1e-13)
    assert total.normaliser(labels) == (1 + 0.5 + 2 + 3 + 1.5, 5.0, 5.0, 5.0)


def test_a_sum_that_reads_one_record_is_called_like_any_loss():
    record, labels = draw()
    loss, gradient = (np.float64(3) * losses.ce_membrane_loss())(record, labels)
    plain, plain_gradient = losses.ce_membrane_loss()(record, labels)
    assert loss == pytest.approx(3 * plain, rel=1e-14)
    np.testing.assert_allclose(gradient, 3 * plain_gradient, rtol=1e-14)


def test_a_sum_takes_the_targets_of_the_parts_that_have_any():
    spikes, membrane, targets = draw_for(losses.mse_membrane_loss(time_var_targets=True))
    for total in (
        losses.l1_rate_sparsity(1) + losses.mse_membrane_loss(time_var_targets=True),
        losses.mse_membrane_loss(time_var_targets=True) + losses.l1_rate_sparsity(1),
    ):
        loss = total.evaluate(spikes, membrane, targets)[0]
        assert loss == pytest.approx(np.mean((membrane - targets) ** 2) + spikes.sum(), rel=1e-13)


def test_what_does_not_add_up():
    with pytest.raises(ValueError, match="different targets do not add up, got labels, membranes"):
        losses.ce_rate_loss() + losses.mse_membrane_loss(time_var_targets=True)
    with pytest.raises(TypeError, match="unsupported operand"):
        losses.ce_rate_loss() + 1
    with pytest.raises(TypeError, match="unsupported operand"):
        losses.ce_rate_loss() * losses.ce_rate_loss()
    with pytest.raises(ValueError, match="factor must be a finite number, got nan"):
        math.nan * losses.ce_rate_loss()
    with pytest.raises(TypeError, match=r"reads spikes and membranes: call evaluate\(spikes, membrane, targets\)"):
        (losses.ce_rate_loss() + losses.ce_membrane_loss())(*draw())
    with pytest.raises(ValueError, match=r"must have one shape, got \(4, 5, 3\) and \(3, 5, 3\)"):
        (losses.ce_rate_loss() + losses.ce_membrane_loss()).evaluate(draw()[0], *draw(T=3))


def test_sparsity_needs_no_targets_and_no_row():
    spikes = np.ones((2, 3, 4, 5), np.float32)
    loss, gradient = losses.l1_rate_sparsity(0.5)(spikes)
    assert loss == 60 and gradient.shape == spikes.shape and (gradient == 0.5).all()


@pytest.mark.parametrize(
    "loss_fn, text",
    [
        (losses.ce_rate_loss(), "ce_rate_loss()"),
        (
            losses.ce_count_loss(True, 3, "sum", [1, 2, 3]),
            "ce_count_loss(population_code=True, num_classes=3, reduction='sum', weight=[1.0, 2.0, 3.0])",
        ),
        (losses.mse_temporal_loss(on_target=1, tolerance=2), "mse_temporal_loss(on_target=1, tolerance=2)"),
        (losses.mse_membrane_loss(off_target=0.25), "mse_membrane_loss(off_target=0.25)"),
        (losses.mse_rate_loss(0.9, reduction="sum"), "mse_rate_loss(correct_rate=0.9, reduction='sum')"),
        (losses.ce_rate_loss(label_smoothing=0.1), "ce_rate_loss(label_smoothing=0.1)"),
        (losses.tet_loss(), "tet_loss()"),
        (losses.tet_loss(0.05, inputs="spikes"), "tet_loss(lambda_=0.05, inputs='spikes')"),
        (losses.l1_rate_sparsity(1e-3), "l1_rate_sparsity(Lambda=0.001)"),
        (0.5 * (losses.ce_rate_loss() + 2 * losses.l1_rate_sparsity()), "0.5 * ce_rate_loss() + l1_rate_sparsity()"),
    ],
    ids=str,
)
def test_repr(loss_fn, text):
    assert repr(loss_fn) == text


@pytest.mark.parametrize(
    "make, options, error, message",
    [
        ("ce_rate_loss", {"reduction": "none"}, ValueError, "reduction must be 'mean' or 'sum', got 'none'"),
        ("ce_rate_loss", {"population_code": True}, ValueError, "num_classes must be an integer of at least 1"),
        ("ce_count_loss", {"population_code": True, "num_classes": 0}, ValueError, "num_classes must be an integer"),
        ("mse_count_loss", {"population_code": True, "num_classes": 2.0}, ValueError, "num_classes must be an integer"),
        ("ce_count_loss", {"weight": [1, -1]}, ValueError, r"weight must have one number of at least 0 for each class, got \[1"),
        ("ce_count_loss", {"weight": [1, math.inf]}, ValueError, "weight must be finite"),
        ("ce_count_loss", {"weight": 2.0}, ValueError, "weight must have one number of at least 0 for each class"),
        ("ce_count_loss", {"weight": "heavy"}, TypeError, "weight must be real numbers"),
        ("mse_count_loss", {"correct_rate": 1.5}, ValueError, r"correct_rate must be a finite number in \[0, 1\], got 1.5"),
        ("mse_count_loss", {"incorrect_rate": -0.1}, ValueError, "incorrect_rate must be"),
        ("mse_rate_loss", {"correct_rate": 2}, ValueError, r"correct_rate must be a finite number in \[0, 1\], got 2"),
        ("ce_rate_loss", {"label_smoothing": 1}, ValueError, r"label_smoothing must be a number in \[0, 1\), got 1"),
        ("ce_count_loss", {"label_smoothing": -0.1}, ValueError, r"label_smoothing must be a number in \[0, 1\), got -0.1"),
        ("ce_temporal_loss", {"label_smoothing": math.nan}, ValueError, "label_smoothing must be a number"),
        ("ce_membrane_loss", {"label_smoothing": "0.1"}, ValueError, "label_smoothing must be a number"),
        ("mse_rate_loss", {"label_smoothing": 0.1}, TypeError, "unexpected keyword argument 'label_smoothing'"),
        ("tet_loss", {"lambda_": 1.1}, ValueError, r"lambda_ must be a finite number in \[0, 1\], got 1.1"),
        ("tet_loss", {"phi": math.inf}, ValueError, "phi must be a finite number, got inf"),
        ("tet_loss", {"inputs": "both"}, ValueError, "inputs must be 'membrane' or 'spikes', got 'both'"),
        ("mse_membrane_loss", {"on_target": math.nan}, ValueError, "on_target must be a finite number, got nan"),
        ("mse_membrane_loss", {"off_target": "0"}, ValueError, "off_target must be a finite number"),
        ("mse_membrane_loss", {"time_var_targets": True, "weight": [1]}, ValueError, "weight needs labels: time_var_targets"),
        ("ce_temporal_loss", {"inverse": "log"}, ValueError, "inverse must be 'negate' or 'reciprocal', got 'log'"),
        ("mse_temporal_loss", {"target_is_time": True, "weight": [1]}, ValueError, "weight needs labels: target_is_time"),
        ("mse_temporal_loss", {"tolerance": -1}, ValueError, "tolerance must be a finite number of at least 0, got -1"),
        ("mse_temporal_loss", {"multi_spike": True}, ValueError, "on_target must be a list of spike times with multi_spike=True"),
        ("mse_temporal_loss", {"on_target": [0]}, ValueError, "on_target must be one spike time without multi_spike=True"),
        (
            "mse_temporal_loss",
            {"on_target": [0, 1], "off_target": [3], "multi_spike": True},
            ValueError,
            "the same length, got 2 and 1",
        ),
        ("mse_temporal_loss", {"on_target": [], "off_target": [], "multi_spike": True}, ValueError, "on_target must be a list"),
        ("mse_temporal_loss", {"on_target": math.nan}, ValueError, "on_target must be finite"),
        ("mse_temporal_loss", {"off_target": None}, TypeError, "off_target must be real numbers"),
        ("l1_rate_sparsity", {"Lambda": -1e-5}, ValueError, "Lambda must be a finite number of at least 0"),
    ],
    ids=str,
)
def test_bad_options(make, options, error, message):
    with pytest.raises(error, match=message):
        getattr(losses, make)(**options)


LABELS = np.array([0, 1, 2, 2, 0])
TIMES = np.zeros((B, C))


@pytest.mark.parametrize(
    "loss_fn, targets, error, message",
    [
        (losses.ce_rate_loss(True, 4), LABELS, ValueError, "num_classes must divide the number of outputs, got 4 for 6 outputs"),
        (losses.ce_rate_loss(True, 3), LABELS + 1, ValueError, r"labels must be in \[0, 3\), got values from 1 to 3"),
        (losses.ce_rate_loss(weight=W3), LABELS, ValueError, "weight must have one number for each of 6 classes, got 3"),
        (losses.ce_rate_loss(True, 3, weight=W6), LABELS, ValueError, "weight must have one number for each of 3 classes, got 6"),
        (
            losses.ce_rate_loss(weight=[0, 0, 0, 1, 1, 1]),
            LABELS,
            ValueError,
            "weight must not be 0 for the labels of every sample",
        ),
        (losses.mse_membrane_loss(time_var_targets=True), LABELS, ValueError, r"targets must have the shape \(4, 5, 6\)"),
        (losses.mse_membrane_loss(time_var_targets=True), np.full((T, B, C), np.nan), ValueError, "targets must be finite"),
        (losses.mse_membrane_loss(time_var_targets=True), None, TypeError, "targets must be real numbers, got object"),
        (losses.mse_temporal_loss(on_target=4), LABELS, ValueError, r"on_target must be spike times in \[-4, 3\], got .* 4 to 4"),
        (losses.mse_temporal_loss(off_target=-5), LABELS, ValueError, r"off_target must be spike times in \[-4, 3\]"),
        (losses.mse_temporal_loss(off_target=-0.5), LABELS, ValueError, r"off_target must be spike times in \[-4, 3\]"),
        (losses.mse_temporal_loss(target_is_time=True), TIMES + 3.5, ValueError, r"targets must be spike times in \[-4, 3\]"),
        (losses.mse_temporal_loss(target_is_time=True), TIMES[:, 1:], ValueError, r"of shape \(5, 6\), got \(5, 5\)"),
        (losses.mse_temporal_loss(target_is_time=True), TIMES > 0, TypeError, "targets must be real numbers, got bool"),
        (losses.mse_temporal_loss(True, multi_spike=True), TIMES, ValueError, r"of shape \(F, 5, 6\), got \(5, 6\)"),
        (losses.mse_temporal_loss(True, multi_spike=True), np.zeros((0, B, C)), ValueError, r"of shape \(F, 5, 6\)"),
    ],
    ids=str,
)
def test_targets_that_do_not_fit(loss_fn, targets, error, message):
    record = np.ones((T, B, C))
    with pytest.raises(error, match=message):
        loss_fn.evaluate(record, record, targets)


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
@pytest.mark.parametrize("shape", [(4, 3), (0, 4, 3), (2, 0, 3), (2, 4, 0)], ids=str)
def test_bad_shape(loss_fn, shape):
    with pytest.raises(ValueError, match=rf"^{loss_fn.inputs} must be a float array \(T, B, C\)"):
        loss_fn(np.zeros(shape), np.zeros(4, int))


@every_loss
def test_integer_records_are_refused(loss_fn):
    with pytest.raises(ValueError, match=rf"^{loss_fn.inputs} must be a float array \(T, B, C\), got int64"):
        loss_fn(np.zeros((2, 4, 3), np.int64), np.zeros(4, int))


@every_loss
def test_outputs_that_are_images_are_refused(loss_fn):
    with pytest.raises(ValueError, match=r"needs outputs of shape \(C,\) per sample, got \(3, 4\)"):
        loss_fn(np.zeros((2, 3, 3, 4)), np.zeros(3, int))


def test_a_loss_must_define_partial():
    with pytest.raises(NotImplementedError, match="a loss must define partial"):
        losses.Loss()(*draw())


def test_a_gradient_must_fit_the_record():
    class Short(losses.Loss):
        def partial(self, record, targets, normaliser):
            return 0.0, record[:1]

    with pytest.raises(ValueError, match=r"Short\(\) must return a gradient of shape \(4, 5, 3\), got \(1, 5, 3\)"):
        (Short() + losses.ce_rate_loss())(*draw())
