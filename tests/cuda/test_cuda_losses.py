"""Every loss on the device against its own class in float64."""

import inspect

import numpy as np
import pytest

import spikeflow.losses as sl
from spikeflow.kernels.cuda import gpu
from spikeflow.losses import cuda as device
from spikeflow.ops.cross_entropy import cpu, reference

T, B, K, GROUP = 4, 5, 3, 2
W = [0.5, 0.0, 2.0]
OF_LABELS = [
    sl.ce_rate_loss(),
    sl.ce_rate_loss(weight=W, label_smoothing=0.2),
    sl.ce_rate_loss(reduction="sum"),
    sl.ce_count_loss(),
    sl.ce_count_loss(weight=W, reduction="sum", label_smoothing=0.1),
    sl.mse_count_loss(correct_rate=0.8, incorrect_rate=0.2),
    sl.mse_count_loss(weight=W, reduction="sum"),
    sl.mse_rate_loss(),
    sl.mse_rate_loss(correct_rate=0.9, incorrect_rate=0.1, weight=W),
    sl.ce_membrane_loss(),
    sl.ce_membrane_loss(weight=W, label_smoothing=0.3),
    sl.ce_max_membrane_loss(label_smoothing=0.1),
    sl.mse_membrane_loss(on_target=1.2, off_target=-0.3),
    sl.mse_membrane_loss(weight=W, reduction="sum"),
    sl.tet_loss(),
    sl.tet_loss(lambda_=0.3, phi=0.8, inputs="spikes", weight=W, label_smoothing=0.1),
    sl.tet_loss(lambda_=0.05, reduction="sum"),
    sl.ce_temporal_loss(),
    sl.ce_temporal_loss(inverse="reciprocal", weight=W, label_smoothing=0.1),
    sl.mse_temporal_loss(),
    sl.mse_temporal_loss(on_target=1, off_target=-2, tolerance=1.5, weight=W, reduction="sum"),
    sl.mse_temporal_loss(on_target=1, off_target=2, tolerance=1),
    sl.mse_temporal_loss(on_target=[0, 2, 3], off_target=[-1, -1, -1], multi_spike=True),
    sl.mse_temporal_loss(on_target=[0, 1, 2, 3, 3, 3], off_target=[1] * 6, multi_spike=True),
    sl.l1_rate_sparsity(0.01),
    sl.ce_rate_loss() + 0.5 * sl.l1_rate_sparsity(0.1),
    2 * sl.ce_rate_loss() + -0.25 * sl.ce_membrane_loss(),
    sl.ce_max_membrane_loss() + sl.tet_loss(lambda_=0.1) + -0.5 * sl.ce_membrane_loss(),
    sl.l1_rate_sparsity(0.1) + sl.ce_temporal_loss(),
    sl.mse_count_loss() + sl.mse_temporal_loss(on_target=[0, 1], off_target=[2, 3], multi_spike=True) + 3 * sl.mse_rate_loss(),
]
POPULATION = {"population_code": True, "num_classes": K}
OF_POPULATIONS = [
    sl.ce_rate_loss(**POPULATION),
    sl.ce_count_loss(weight=W, **POPULATION),
    sl.mse_count_loss(correct_rate=0.7, **POPULATION),
    sl.mse_rate_loss(**POPULATION) + sl.l1_rate_sparsity(),
]


def records(C, steps=T, batch=B):
    rng = np.random.default_rng(C + steps)
    return (rng.random((steps, batch, C)) < 0.4).astype(np.float32), rng.normal(size=(steps, batch, C)).astype(np.float32)


def agree(loss, spikes, membrane, targets, most):
    """-> after comparison of the loss and its gradients, in no more launches than that."""
    expected = loss.evaluate(spikes, membrane, targets)
    record = membrane if spikes is None else spikes
    checked = loss.check(targets, *record.shape[:2], record.shape[2:])
    on_device = [gpu.to_device(record) for record in (spikes, membrane)]
    with gpu.launches() as launches:
        found = device.gradients(loss, *on_device, device.device_targets(loss, checked), loss.normaliser(checked))
    assert len(launches) <= most
    assert found[0].shape == (1,) and found[0].dtype == np.float32
    np.testing.assert_allclose(gpu.to_host(found[0])[0], expected[0], rtol=1e-5)
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(gpu.to_host(one), other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", OF_LABELS, ids=repr)
def test_labels(loss):
    agree(loss, *records(K), np.array([2, 0, 1, 0, 2]), most=1 + sum(1 + (type(part) is sl.tet_loss) for _, part in loss.terms()))


@pytest.mark.parametrize("loss", OF_POPULATIONS, ids=repr)
def test_population_codes(loss):
    agree(loss, *records(K * GROUP), np.array([2, 0, 1, 0, 2]), most=3)


@pytest.mark.parametrize("steps, batch, outputs", [(1, 1, 1), (2, 9, 5), (7, 2, 1)])
def test_other_shapes(steps, batch, outputs):
    labels = np.arange(batch) % outputs
    loss = sl.ce_rate_loss() + sl.mse_rate_loss() + sl.ce_max_membrane_loss() + sl.mse_temporal_loss()
    agree(loss, *records(outputs, steps, batch), labels, most=5)


def test_membranes_as_targets():
    targets = np.random.default_rng(0).normal(size=(T, B, K))
    for reduction in ("mean", "sum"):
        agree(sl.mse_membrane_loss(time_var_targets=True, reduction=reduction), *records(K), targets, most=2)


@pytest.mark.parametrize("multi", [True, False])
def test_times_as_targets(multi):
    times = np.random.default_rng(0).integers(-T, T, (2, B, K) if multi else (B, K))
    agree(sl.mse_temporal_loss(target_is_time=True, multi_spike=multi), *records(K), times, most=2)


def test_the_sparsity_of_images():
    spikes = (np.random.default_rng(0).random((2, 3, 4, 4, 2)) < 0.3).astype(np.float32)
    found = device.gradients(sl.l1_rate_sparsity(0.5), gpu.to_device(spikes), None, None, 3.0)
    assert gpu.to_host(found[0])[0] == pytest.approx(0.5 * spikes.sum()) and found[2] is None
    np.testing.assert_array_equal(gpu.to_host(found[1]), np.full_like(spikes, 0.5))


def test_extreme_logits_and_nan():
    membrane = np.array([[[500.0, -500, 3], [-1e30, 1e30, 0], [0, 0, 0], [80, 80, -80], [1, 2, 3]]], np.float32)
    loss, labels = sl.ce_membrane_loss(), np.array([0, 1, 2, 2, 1])
    agree(loss, np.zeros_like(membrane), membrane, labels, most=2)
    membrane[0, 1], membrane[0, 3, 1] = 0, np.nan
    for loss in (sl.ce_membrane_loss(), sl.ce_max_membrane_loss(), sl.mse_membrane_loss()):
        found = device.gradients(loss, None, gpu.to_device(membrane), device.device_targets(loss, labels), 5.0)
        assert np.isnan(gpu.to_host(found[0])) and np.isnan(gpu.to_host(found[2])[0, 3]).any()


def test_of_equal_maxima_the_first_counts():
    membrane = np.array([[0, 1, 2], [2, 1, 2], [2, 0, 1]], np.float32)[:, None].repeat(2, 1)
    agree(sl.ce_max_membrane_loss(), np.zeros_like(membrane), membrane, np.array([0, 1]), most=2)


@pytest.mark.parametrize("t", [0, 1, 2])
def test_the_maximum_with_a_nan_is_nan(t):
    membrane = records(K, 3, 2)[1]
    membrane[t, 1, 2] = np.nan
    loss, labels = sl.ce_max_membrane_loss(), np.array([0, 1])
    found = device.gradients(loss, None, gpu.to_device(membrane), device.device_targets(loss, labels), 2.0)
    assert np.isnan(gpu.to_host(found[0])) and np.isnan(gpu.to_host(found[2])[t, 1, 2])


def test_a_loss_of_ones_own_is_left_to_the_host():
    class Mine(sl.ce_rate_loss):
        pass

    spikes = gpu.to_device(records(K)[0])
    targets = device.device_targets(Mine(), np.zeros(B, np.intp))
    assert device.gradients(Mine(), spikes, None, targets, 5.0) is NotImplemented
    both = Mine() + sl.ce_rate_loss()
    assert device.gradients(both, spikes, None, targets, (5.0, 5.0)) is NotImplemented


def test_every_loss_has_its_terms():
    classes = {getattr(sl, name) for name in sl.__all__ if inspect.isclass(getattr(sl, name))}
    assert set(device.TERMS) == classes - {sl.Loss, sl.LossSum}


@pytest.mark.parametrize("smooths", [True, False])
def test_the_reference_of_the_cross_entropy(smooths):
    rng = np.random.default_rng(0)
    arguments = rng.normal(0, 5, (T, B, K)), rng.integers(0, K, B), rng.random(B), rng.random(K) if smooths else None
    for one, other in zip(cpu.cross_entropy(*arguments), reference.cross_entropy(*arguments), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)
