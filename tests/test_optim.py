from __future__ import annotations

import math

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import optim
from spikeflow.ops.adam import PART

STEPS = 20
OPTIMIZERS = {
    "sgd": (optim.SGD, {"lr": 0.1}),
    "momentum": (optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "adam": (optim.Adam, {"lr": 1e-2}),
    "adam-options": (optim.Adam, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3}),
    "decay": (optim.SGD, {"lr": 0.1, "weight_decay": 0.3}),
    "nesterov": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "dampening": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.4}),
    "nesterov-decay": (optim.SGD, {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.2, "nesterov": True}),
    "dampening-decay": (optim.SGD, {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.2, "dampening": 0.5}),
    "adam-decay": (optim.Adam, {"lr": 0.05, "weight_decay": 0.3}),
    "adamw": (optim.AdamW, {"lr": 0.05}),
    "adamw-options": (optim.AdamW, {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.4}),
}
# torch.optim 2.13, float64: parameter linspace(-1, 1, 5), gradient sin(i k + 1/2) (i + 1) / 3 at entry i, step k.
TORCH = {
    "sgd": [-1.3196170257361342, -0.5756482831000964, -0.05116998633423571, 0.5728260301057035, 1.136038575966143],
    "momentum": [-2.9327545008750873, -0.8099786013855739, -0.07636744058834005, 0.7677832609670913, 1.6692581196481717],
    "adam": [-1.1999999874850238, -0.5264714803266375, -0.008348011456709417, 0.5222084540298584, 1.018638520643734],
    "adam-options": [-1.9937814237432807, -0.6030225278133036, -0.03985525307966131, 0.5942385743698329, 1.0766029627871703],
}
TORCH_FIVE_STEPS = {
    "decay": [-0.9339857099391389, -0.3923995480625804, 0.026509912285429937, 0.43507182780860365, 0.8408418619041568],
    "nesterov": [-1.268952773093059, -0.6285786036080964, -0.0033387279139202187, 0.607810313335986, 1.262243907134555],
    "dampening": [-1.1522096180811907, -0.7141098056055067, -0.11660105855685161, 0.642204801063994, 1.446110349248267],
    "nesterov-decay": [-0.9470426758843178, -0.39673894703103807, 0.015528863729785744, 0.42922684778058096, 0.8640092131549625],
    "dampening-decay": [-0.9708646431279012, -0.5887252535502597, -0.10549087568426646, 0.5429597870307273, 1.2243732621324437],
    "adam-decay": [-0.754437803101214, -0.5622711565436883, -0.03666069680758611, 0.48760333672944656, 1.022052741678591],
    "adamw": [-1.2472526080909798, -0.6086897535349202, -0.03880672107872833, 0.5844473204374432, 1.066327339253918],
    "adamw-options": [-1.14262511517054, -0.5372176325420042, -0.03283100918522144, 0.5227985107264825, 0.9610112570408457],
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def make_parameter(dtype, name="0.weight"):
    return sf.Parameter(name, np.linspace(-1, 1, 5).astype(dtype))


def gradient(k: int) -> np.ndarray:
    i = np.arange(5)
    return np.sin(i * k + 0.5) * (i + 1) / 3


def run(name, dtype, steps=STEPS) -> np.ndarray:
    make, options = OPTIMIZERS[name]
    parameter = make_parameter(dtype)
    optimizer = make([parameter], **options)
    for k in range(1, steps + 1):
        parameter.grad[...] = gradient(k)
        optimizer.step()
    return parameter.value


def by_formula(name) -> list[float]:
    """The formulas of torch's documentation, one scalar after the other."""
    make, options = OPTIMIZERS[name]
    results = []
    for entry in range(5):
        p, velocity, m, v = -1 + 0.5 * entry, 0.0, 0.0, 0.0
        for k in range(1, STEPS + 1):
            g = float(gradient(k)[entry])
            if make is optim.SGD:
                g += options.get("weight_decay", 0.0) * p
                momentum, damping = options.get("momentum", 0.0), 0.0 if k == 1 else options.get("dampening", 0.0)
                velocity = momentum * velocity + (1 - damping) * g
                p -= options["lr"] * (g + momentum * velocity if options.get("nesterov") else velocity)
            else:
                decay = options.get("weight_decay", 0.01 if make is optim.AdamW else 0.0)
                if make is optim.AdamW:
                    p *= 1 - options["lr"] * decay
                else:
                    g += decay * p
                b1, b2 = options.get("betas", (0.9, 0.999))
                m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
                p -= options["lr"] * (m / (1 - b1**k)) / (math.sqrt(v / (1 - b2**k)) + options.get("eps", 1e-8))
        results.append(p)
    return results


@every_optimizer
def test_twenty_steps_of_the_formulas(name):
    np.testing.assert_allclose(run(name, np.float64), by_formula(name), rtol=1e-11)


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("dtype, rtol", [(np.float64, 1e-11), (np.float32, 1e-4)])
def test_twenty_steps_of_torch(name, dtype, rtol):
    value = run(name, dtype)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, TORCH[name], rtol=rtol)


@pytest.mark.parametrize("name", TORCH_FIVE_STEPS)
@pytest.mark.parametrize("dtype, rtol", [(np.float64, 1e-11), (np.float32, 2e-4)])
def test_five_steps_of_torch(name, dtype, rtol):
    value = run(name, dtype, steps=5)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, TORCH_FIVE_STEPS[name], rtol=rtol)


def test_adam_with_parts_for_several_threads():
    entries = np.arange(2**17 + 3)
    parameter = sf.Parameter("p", np.cos(entries))
    optimizer = optim.AdamW([parameter], lr=0.1, weight_decay=0.5)
    parameter.grad[...] = np.sin(entries + 0.5)
    optimizer.step()
    np.testing.assert_allclose(parameter.value, 0.95 * np.cos(entries) - 0.1 * np.sign(parameter.grad), rtol=0, atol=1e-3)


def by_arrays(value, grad, state, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False) -> None:
    """A step of SGD in NumPy's arithmetic, in place."""
    if weight_decay != 0:
        grad = grad + weight_decay * value
    if momentum != 0:
        if "velocity" not in state:
            state["velocity"] = np.array(grad)
        else:
            state["velocity"] *= momentum
            state["velocity"] += grad if dampening == 0 else (1 - dampening) * grad
        grad = grad + momentum * state["velocity"] if nesterov else state["velocity"]
    value -= lr * grad


@pytest.mark.parametrize("name", [name for name, (make, _) in OPTIMIZERS.items() if make is optim.SGD])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sgd_has_the_bits_of_array_arithmetic_in_parts_for_several_threads(name, dtype):
    rng = np.random.default_rng(3)
    size = 2 * PART + 77
    parameter = sf.Parameter("p", rng.normal(size=size).astype(dtype))
    expected, state = parameter.value.copy(), {}
    optimizer = optim.SGD([parameter], **OPTIMIZERS[name][1])
    for _ in range(4):
        parameter.grad[...] = rng.normal(size=size) * 10.0 ** rng.integers(-8, 3, size)
        parameter.grad[::7], parameter.grad[::14] = 0, -0.0
        optimizer.step()
        by_arrays(expected, parameter.grad, state, **OPTIMIZERS[name][1])
        assert parameter.value.tobytes() == expected.tobytes()
        assert {key: array.tobytes() for key, array in optimizer.state[0].items()} == {
            key: array.tobytes() for key, array in state.items()
        }


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
def test_the_first_step_goes_downhill_by_about_the_learning_rate(make):
    parameter = sf.Parameter("p", np.zeros(2))
    parameter.grad[...] = 1, -1
    make([parameter], lr=0.25).step()
    np.testing.assert_allclose(parameter.value, [-0.25, 0.25], rtol=1e-7)


@every_optimizer
def test_values_change_in_place_and_gradients_stay(name):
    make, options = OPTIMIZERS[name]
    parameter = make_parameter(np.float32)
    value, grad = parameter.value, parameter.grad
    grad[...] = gradient(1)
    before = value.copy()
    optimizer = make([parameter], **options)
    optimizer.step()
    assert parameter.value is value and parameter.grad is grad
    assert (value != before).all()
    np.testing.assert_array_equal(grad, gradient(1).astype(np.float32))
    optimizer.zero_grad()
    assert not grad.any()


@every_optimizer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scalars_are_parameters_too(name, dtype):
    make, options = OPTIMIZERS[name]
    scalar, vector = sf.Parameter("s", np.array(0.5, dtype)), sf.Parameter("v", np.array([0.5], dtype))
    optimizer = make([scalar, vector], **options)
    for k in range(3):
        scalar.grad[...] = vector.grad[...] = math.cos(k)
        optimizer.step()
    assert scalar.value.shape == () and scalar.value.dtype == dtype
    np.testing.assert_allclose(scalar.value, vector.value[0], rtol=1e-6)


def test_parameters_have_states_of_their_own():
    together = [make_parameter(np.float64, "a"), make_parameter(np.float64, "b")]
    optimizer = optim.Adam(together, lr=1e-2)
    for k in range(1, STEPS + 1):
        together[0].grad[...], together[1].grad[...] = gradient(k), -gradient(STEPS - k)
        optimizer.step()
    np.testing.assert_array_equal(together[0].value, run("adam", np.float64))


def test_parameters_of_two_networks_have_states_of_their_own():
    pair = [make_parameter(np.float64), make_parameter(np.float64)]
    optimizer = optim.Adam(pair, lr=1e-2)
    for k in range(1, STEPS + 1):
        pair[0].grad[...], pair[1].grad[...] = gradient(k), -gradient(STEPS - k)
        optimizer.step()
    np.testing.assert_array_equal(pair[0].value, run("adam", np.float64))


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
@pytest.mark.parametrize("lr", [-1e-3, math.nan, math.inf, "0.1", None])
def test_bad_learning_rate(make, lr):
    with pytest.raises(ValueError, match="^lr must be a number at least 0"):
        make([make_parameter(np.float32)], lr=lr)


@pytest.mark.parametrize(
    "make, options, message",
    [
        (optim.SGD, {"momentum": -0.1}, "momentum must be"),
        (optim.SGD, {"momentum": math.nan}, "momentum must be"),
        (optim.Adam, {"betas": (1.0, 0.999)}, r"betas\[0\] must be a number in \[0, 1\)"),
        (optim.Adam, {"betas": (0.9, -0.1)}, r"betas\[1\] must be a number in \[0, 1\)"),
        (optim.Adam, {"eps": -1e-8}, "eps must be"),
        (optim.SGD, {"weight_decay": -0.1}, "weight_decay must be a number at least 0, got -0.1"),
        (optim.SGD, {"momentum": 0.9, "dampening": -0.1}, "dampening must be"),
        (optim.SGD, {"nesterov": True}, "nesterov needs a momentum above 0 and a dampening of 0, got momentum 0 and"),
        (optim.SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.5}, "nesterov needs .* and dampening 0.5"),
        (optim.Adam, {"weight_decay": -0.1}, "weight_decay must be"),
        (optim.AdamW, {"weight_decay": math.inf}, "weight_decay must be"),
        (optim.AdamW, {"lr": -1}, "lr must be"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_option(make, options, message):
    with pytest.raises(ValueError, match=message):
        make([make_parameter(np.float32)], **options)


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
def test_nothing_to_optimize(make):
    with pytest.raises(ValueError, match="parameters must hold at least one Parameter"):
        make(sf.Sequential(sf.Leaky(0.5)).parameters())


def test_update_must_be_defined():
    with pytest.raises(NotImplementedError, match="an optimizer must define update"):
        optim.Optimizer([make_parameter(np.float32)], 0.1).step()
