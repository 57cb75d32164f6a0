"""All neurons on the device against the reference: spikes and membranes bit by bit, gradients to rounding."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest

from spikeflow import backends, surrogate
from spikeflow.kernels.cuda import gpu
from spikeflow.ops.events import SpikeWords
from spikeflow.ops.neurons import cpu, cuda
from spikeflow.ops.neurons.model import Model

sys.path.append(str(Path(__file__).parents[1] / "ops"))
neuron_cases = importlib.import_module("neuron_cases")
LEARNS, T, unlike = neuron_cases.LEARNS, neuron_cases.T, neuron_cases.unlike

REFERENCE = backends.load("reference")
ATAN = surrogate.atan()
MODELS = {
    "leaky": (Model("leaky", "subtract", ATAN), [0.8, 1, 1, 0.7]),
    "rsynaptic": (Model("rsynaptic", "zero", ATAN, reset_delay=False, feedback=True), [0.8, 1, 0.4, 0.6, 0.7]),
    "parametric": (Model("parametric_lif_node", "hard", ATAN), [0.8, 1, 1, -0.2, 0.6]),
    "integrator": (Model("leaky_integrator", "none", ATAN, fires=False), [0.8, 1, 1, 0.7]),
}
every_model = pytest.mark.parametrize("model, row", MODELS.values(), ids=MODELS)

CASES = neuron_cases.cases()
PLAIN = [case for case in CASES if not case.model.inhibition][::2]
INHIBITED = [case for case in CASES if case.model.inhibition and case.vector][::6]  # each takes the simulator a second
SURROGATES = [case for case in CASES if case.model.surrogate.name != neuron_cases.RATIONAL.name]


def device(array):
    return None if array is None else gpu.to_device(array)


def host(array):
    return None if array is None else gpu.to_host(array)


def forward(model, x, num_steps, params, state=None, **options):
    """As the operation, but of the host's arrays and with the host's spikes."""
    carried = device(state)
    spikes, trajectory = cuda.neuron_forward(model, device(x), num_steps, params, carried, **options)
    if state is not None:
        gpu.to_host(carried, state)
    return host(spikes), trajectory


def backward(model, dspikes, dmembrane, trajectory, input_steps, params, x=None, *others, carry=None, **options):
    """As the operation, but of the host's arrays."""
    carried, given = device(carry), (device(dspikes), device(dmembrane), trajectory)
    dx, dparams = cuda.neuron_backward(model, *given, input_steps, params, device(x), *others, carry=carried, **options)
    if carry is not None:
        gpu.to_host(carried, carry)
    return host(dx), host(dparams)


def draw(M, num_steps, seed=0):
    """-> currents, dspikes, dmembrane (T, M)."""
    return np.random.default_rng(seed).normal(0.4, 0.7, (3, num_steps, M)).astype(np.float32)


def column(row):
    return np.array(row, np.float32)[:, None]


def both(case, smooth=False):
    """-> spikes, membrane, dx, dparams of a case, here and by the reference."""
    x, dspikes, dmembrane = (array.astype(np.float32) for array in case.draw())
    params = case.params.astype(np.float32)
    spikes, trajectory = forward(case.model, x, T, params, smooth=smooth, keep_states=True)
    others = len(x), params, x, LEARNS[: len(params)], case.truncate
    gradients = backward(case.model, dspikes, dmembrane, trajectory, *others, smooth=smooth)
    return [spikes, host(trajectory.membrane), *gradients], neuron_cases.run(REFERENCE, case, smooth, np.float32)


@pytest.fixture
def quick_sums(monkeypatch):
    """The simulator takes a third of a second for each sum over neurons, which has tests of its own."""
    monkeypatch.setattr(cuda, "column_sums", lambda x: gpu.to_device(gpu.to_host(x).sum(0)))


@pytest.mark.parametrize("name", ["neuron_forward", "neuron_backward", "leaky_backward_static"])
def test_arguments_are_those_of_the_cpu(name):
    assert inspect.signature(getattr(cuda, name)) == inspect.signature(getattr(cpu, name))


def check(found, expected):
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)
    assert unlike(found[2:], expected[2:]) <= 1e-5


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_equals_the_reference(case, quick_sums):
    check(*both(case))


def test_every_neuron_and_reset_is_among_the_cases():
    assert {(m.neuron, m.reset) for m in neuron_cases.models()} == {(case.model.neuron, case.model.reset) for case in PLAIN}


@pytest.mark.parametrize("case", [*INHIBITED, PLAIN[0], PLAIN[1]], ids=str)
def test_elections_and_sums_over_neurons_equal_the_reference(case):
    check(*both(case))


@pytest.mark.parametrize("case", [*SURROGATES, *PLAIN[::7]], ids=str)
def test_the_smooth_twin_equals_the_reference(case, quick_sums):
    found, expected = both(case, smooth=True)
    assert unlike(found, expected) <= 1e-5


@every_model
@pytest.mark.parametrize("num_steps, M", [(1, 3), (3, 19), (65, 9)])
def test_words_and_what_is_kept(model, row, num_steps, M):
    x, params = draw(M, num_steps)[0], column(row)
    expected, trajectory = REFERENCE.neuron_forward(model, x, num_steps, params)
    for words, keep in ((False, False), (True, True), (True, False)) if model.fires else ((False, False),):
        spikes, kept = forward(model, x, num_steps, params, words=words, keep=keep)
        np.testing.assert_array_equal(spikes, SpikeWords.pack(expected).words if words else expected, strict=True)
        assert (kept is not None) == keep
        if keep:
            np.testing.assert_array_equal(host(kept.membrane), trajectory.membrane, strict=True)
            assert kept.states is None and (kept.before is None) == (not cpu.resets_at_once(model.key))


def test_a_constant_current_in_words():
    model, row = MODELS["leaky"]
    x = draw(13, 1)[0]
    expected, _ = REFERENCE.neuron_forward(model, x, 130, column(row))
    spikes, _ = forward(model, x, 130, column(row), words=True)
    np.testing.assert_array_equal(spikes, SpikeWords.pack(expected).words, strict=True)
    assert 0.1 < expected.mean() < 0.9


@every_model
@pytest.mark.parametrize("static", [False, True], ids=["", "static"])
def test_states_and_gradients_are_handed_on(model, row, static, quick_sums):
    M, params, learns = 10, column(row), LEARNS[: len(row)]
    x, dspikes, dmembrane = draw(M, 7)
    x = x[:1] if static else x
    pieces = [slice(0, 3), slice(3, 7)]
    results = []
    for run_forward, run_backward in ((forward, backward), (REFERENCE.neuron_forward, REFERENCE.neuron_backward)):
        state = np.tile(model.initial_state(params), M) + np.float32(0.25)
        carry, done = np.full_like(state, 0.5), []
        for piece in pieces:
            steps = x if static else x[piece]
            done.append((run_forward(model, steps, piece.stop - piece.start, params, state, keep_states=True), steps))
        found = [spikes for (spikes, _), _ in done] + [state.copy()]
        for piece, ((_, trajectory), steps) in reversed(list(zip(pieces, done, strict=True))):
            given = dspikes[piece], dmembrane[piece], trajectory, len(steps), params, steps, learns
            found += [*run_backward(model, *given, carry=carry), carry.copy()]
        results.append(found)
    for ours, theirs in zip(results[0][:3], results[1][:3], strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)
    assert unlike(results[0][3:], results[1][3:]) <= 1e-5


@every_model
def test_fed_back_spikes_and_gradients_that_are_missing(model, row, quick_sums):
    params, x, some = column(row), draw(6, 4)[0], (False, *LEARNS[1 : len(row)])
    dspikes, dmembrane = draw(6, 4, seed=1)[1:]
    state = np.full((len(model.states), 6), 0.5, np.float32)
    _, ours = forward(model, x, 4, params, state.copy(), keep_states=True)
    _, theirs = REFERENCE.neuron_forward(model, x, 4, params, state.copy())
    for given, learns in (((dspikes, None), some), ((None, dmembrane), some), ((dspikes, dmembrane), ())):
        found = backward(model, *given, ours, 4, params, x, learns)
        expected = REFERENCE.neuron_backward(model, *given, theirs, 4, params, x, learns)
        assert (found[1] is None) == (not learns)
        pairs = zip(found, expected, strict=True) if learns else [(found[0], expected[0])]
        for pair in pairs:
            assert unlike(*([array] for array in pair)) <= 1e-5


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_the_backward_pass_of_a_constant_current(reset):
    model, x, dspikes = Model("leaky", reset, surrogate.fast_sigmoid(5)), draw(11, 1)[0], draw(11, 9)[1]
    params = column([0.9, 1, 1, 0.8])
    _, trajectory = REFERENCE.neuron_forward(model, x, 9, params)
    expected, _ = REFERENCE.neuron_backward(model, dspikes, None, trajectory, 1, params)
    dx = cuda.leaky_backward_static(device(dspikes), device(x), 0.8, 0.9, reset, model.surrogate)
    assert unlike([host(dx)], [expected]) <= 1e-5


def test_of_equals_the_first_wins():
    model, F = Model("leaky", "none", ATAN, inhibition=True), 5
    x = np.array([[1, 2, 2, 1, 2, 0, 0, 0, 0, 3]], np.float32)
    spikes, _ = forward(model, x, 1, np.tile(column([0.5, 1, 1, 0.5]), F))
    np.testing.assert_array_equal(spikes, [[0, 1, 0, 0, 0, 0, 0, 0, 0, 1]])


def test_inhibition_needs_a_thread_for_each_feature():
    model = Model("leaky", "none", ATAN, inhibition=True)
    with pytest.raises(ValueError, match="at most 1024 features with backend='cuda', got 1025"):
        cuda.neuron_forward(model, gpu.empty((1, 1025)), 1, np.ones((4, 1025), np.float32))


@pytest.mark.parametrize("constants", [(), (2.0,)])
def test_a_custom_surrogate(constants, quick_sums):
    half = np.float32(0.5)
    mine = surrogate.custom(lambda x, p: half / (half + abs(x)) if x > half else half, constants=constants)
    model, (x, dspikes, _) = Model("leaky", "subtract", mine), draw(7, 3)
    params = column([0.8, 1, 1, 0.7])
    (_, ours), (_, theirs) = forward(model, x, 3, params), REFERENCE.neuron_forward(model, x, 3, params)
    found, expected = (
        run(model, dspikes, None, kept, 3, params, x, LEARNS[:4])
        for run, kept in ((backward, ours), (REFERENCE.neuron_backward, theirs))
    )
    assert unlike(found, expected) <= 1e-5


def test_one_launch_each_way():
    model, row = MODELS["parametric"]
    x, dspikes, _ = (device(array) for array in draw(5, 2))
    with gpu.launches() as launches:
        _, trajectory = cuda.neuron_forward(model, x, 2, column(row), words=True)
        cuda.neuron_backward(model, dspikes, None, trajectory, 2, column(row))
    assert [launch.kernel.name.split("-")[0] for launch in launches] == ["neuron_forward", "neuron_backward"]
