from __future__ import annotations

import json
import math

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import optim
from spikeflow.ops.adam.cpu import PART
from spikeflow.schedulers import StepLR

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


# ------------------------------------------------------------------------------------------------ groups


def grouped(which, dtype=np.float64):
    """Three parameters in two groups, whose gradients are one step apart."""
    first, second, third = (make_parameter(dtype, f"{i}.weight") for i in range(3))
    if which == "sgd":
        groups = [{"params": first, "lr": 0.2, "momentum": 0.5}, {"params": [second, third], "weight_decay": 0.3}]
        return optim.SGD(groups, lr=0.1, momentum=0.9)
    groups = [{"params": [first], "betas": [0.8, 0.95]}, {"params": (second, third), "lr": 0.02, "weight_decay": 0, "eps": 1e-3}]
    return optim.AdamW(groups, lr=0.05, weight_decay=0.4)


def steps(optimizer, first, last):
    for k in range(first, last + 1):
        for j, parameter in enumerate(optimizer.parameters):
            parameter.grad[...] = gradient(k + j)
        optimizer.step()


# torch.optim 2.13, float64, five steps.
TORCH_GROUPS = {
    "sgd": [
        [-1.2576912269997593, -0.5358767541620535, -0.00423313933932028, 0.5802192935683081, 1.194570935482189],
        [-0.8284507248193933, -0.1428894464569327, 0.2471005036533017, 0.26223090731948684, 0.2852751378636642],
        [-0.8284507248193933, 0.007251719250085312, -0.1833870564504594, 0.3315644869665174, 0.8392473430222115],
    ],
    "adamw": [
        [-1.144118789769637, -0.5373628909022129, -0.032892395408333455, 0.5229760581823691, 0.9610493888171832],
        [-1.0993781423743276, -0.4950909656712071, 0.03796723239840109, 0.46417442685737575, 0.9609532078005893],
        [-1.0993781423743276, -0.4265943406522571, -0.04366782877972349, 0.538136021554352, 1.0394764859317716],
    ],
}
every_grouping = pytest.mark.parametrize("which", TORCH_GROUPS)


@every_grouping
def test_five_steps_of_groups_are_torchs(which):
    optimizer = grouped(which)
    steps(optimizer, 1, 5)
    assert [parameter.name for parameter in optimizer.parameters] == ["0.weight", "1.weight", "2.weight"]
    for parameter, expected in zip(optimizer.parameters, TORCH_GROUPS[which], strict=True):
        np.testing.assert_allclose(parameter.value, expected, rtol=1e-11)


@every_optimizer
def test_one_group_has_the_bits_of_a_list(name):
    make, options = OPTIMIZERS[name]
    parameter = make_parameter(np.float32)
    optimizer = make([{"params": [parameter], **options}], lr=99.0)
    steps(optimizer, 1, STEPS)
    assert parameter.value.tobytes() == run(name, np.float32).tobytes()


def test_what_is_written_to_a_group_holds_from_the_next_step():
    optimizer = optim.SGD([{"params": [make_parameter(np.float64)]}, {"params": [make_parameter(np.float64)]}], lr=1.0)
    optimizer.param_groups[1]["lr"] = 0.25
    for parameter in optimizer.parameters:
        parameter.grad[...] = 1
    optimizer.step()
    assert [parameter.value[0] for parameter in optimizer.parameters] == [-2, -1.25]


def test_options_are_attributes():
    optimizer = grouped("sgd")
    assert optimizer.dampening == 0 and optimizer.nesterov is False
    with pytest.raises(ValueError, match=r"lr differs between the groups: \[0.2, 0.1\]; see param_groups"):
        optimizer.lr  # noqa: B018
    optimizer.lr = 0.5
    assert optimizer.lr == 0.5 and [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]
    with pytest.raises(ValueError, match="momentum must be a number at least 0, got -1"):
        optimizer.momentum = -1
    assert [group["momentum"] for group in optimizer.param_groups] == [0.5, 0.9]
    adam = grouped("adamw")
    assert [group["betas"] for group in adam.param_groups] == [(0.8, 0.95), (0.9, 0.999)]
    adam.betas = 0.5, 0.6
    assert adam.betas == (0.5, 0.6)
    assert not hasattr(adam, "momentum")


TWO = make_parameter(np.float32, "a"), make_parameter(np.float32, "b")


@pytest.mark.parametrize(
    "parameters, error, message",
    [
        ([{"params": [TWO[0]]}, {"params": [TWO[0]]}], ValueError, "parameters must hold each Parameter once"),
        ([TWO[0], TWO[0]], ValueError, "parameters must hold each Parameter once"),
        ([{"params": []}], ValueError, r"parameters\[0\] must hold at least one Parameter; got none"),
        ([{"params": [TWO[0]]}, TWO[1]], TypeError, r'parameters\[1\] must be a dict with "params", as other groups are'),
        ([{"lr": 0.1}], TypeError, r'parameters\[0\] must be a dict with "params"'),
        ([TWO[0].value], TypeError, r"parameters must hold Parameters, got array"),
        ([{"params": [TWO[0], "b"]}], TypeError, r"parameters\[0\] must hold Parameters, got 'b'"),
        ([{"params": [TWO[0]], "lr": -1}], ValueError, r"parameters\[0\]: lr must be a number at least 0, got -1"),
        (
            [{"params": [TWO[0]], "weight_deacy": 0.1}],
            ValueError,
            r"parameters\[0\]: 'weight_deacy' is no option of SGD; it has lr, momentum, dampening, weight_decay, nesterov",
        ),
        ([{"params": [TWO[0]], "nesterov": True}], ValueError, r"parameters\[0\]: nesterov needs a momentum above 0"),
        ([sf.Parameter("t", np.zeros((2, 3)).T)], ValueError, "the value of 't' must be C-contiguous"),
    ],
    ids=["two groups", "twice", "empty", "mixed", "no params", "array", "text", "lr", "misspelt", "nesterov", "transposed"],
)
def test_bad_groups(parameters, error, message):
    with pytest.raises(error, match=message):
        optim.SGD(parameters, lr=0.1)


@pytest.mark.parametrize("betas", [0.9, (0.9,), "ab", None])
def test_bad_betas(betas):
    with pytest.raises(ValueError, match="^betas"):
        optim.Adam([make_parameter(np.float32)], betas=betas)


# ------------------------------------------------------------------------------------------------ going on


def through_json(state):
    return json.loads(json.dumps(state))


def values(optimizer):
    return [parameter.value.tobytes() for parameter in optimizer.parameters]


@every_optimizer
@pytest.mark.parametrize("stop", [0, 1, 7])
def test_a_state_goes_on_to_the_bit(name, stop):
    make, options = OPTIMIZERS[name]
    straight, resumed = (make([make_parameter(np.float32)], **options) for _ in range(2))
    steps(straight, 1, stop)
    state, arrays = straight.state_dict()
    before = {key: array.tobytes() for key, array in arrays.items()}
    resumed.parameters[0].value[...] = straight.parameters[0].value
    resumed.lr = 77.0
    resumed.load_state_dict(through_json(state), arrays)
    assert resumed.state_dict()[0] == state
    for optimizer in (straight, resumed):
        steps(optimizer, stop + 1, STEPS)
    assert values(straight) == values(resumed) == [run(name, np.float32).tobytes()]
    assert {key: array.tobytes() for key, array in arrays.items()} == before  # neither optimizer holds on to them


@every_grouping
def test_a_state_of_groups_goes_on_to_the_bit(which):
    straight, resumed = grouped(which, np.float32), grouped(which, np.float32)
    StepLR(straight, 1)  # which leaves the first learning rates in the groups
    straight.param_groups[1]["lr"] = 1 / 3
    steps(straight, 1, 6)
    for old, new in zip(straight.parameters, resumed.parameters, strict=True):
        new.value[...] = old.value
    state, arrays = straight.state_dict()
    resumed.load_state_dict(through_json(state), arrays)
    assert resumed.param_groups[1]["lr"] == 1 / 3 and resumed.param_groups[0]["initial_lr"] in (0.2, 0.05)
    for optimizer in (straight, resumed):
        steps(optimizer, 7, 12)
    assert values(straight) == values(resumed)


def test_a_state_says_what_it_holds():
    optimizer = grouped("sgd", np.float32)
    assert optimizer.state_dict()[1] == {}
    steps(optimizer, 1, 2)
    state, arrays = optimizer.state_dict()
    common = {"dampening": 0, "nesterov": False}
    names = ["0.weight/velocity", "1.weight/velocity", "2.weight/velocity"]
    assert state == {
        "type": "SGD",
        "steps": 2,
        "param_groups": [
            {"params": ["0.weight"], "lr": 0.2, "momentum": 0.5, "weight_decay": 0, **common},
            {"params": ["1.weight", "2.weight"], "lr": 0.1, "momentum": 0.9, "weight_decay": 0.3, **common},
        ],
        "arrays": names,
    }
    assert list(arrays) == names and all(array.dtype == np.float32 and array.shape == (5,) for array in arrays.values())
    adam = optim.Adam([make_parameter(np.float64)])
    steps(adam, 1, 1)
    assert list(adam.state_dict()[1]) == ["0.weight/mean", "0.weight/square"]


def test_scalars_have_a_state_too():
    optimizers = [optim.Adam([sf.Parameter("beta", np.array(0.5, np.float32))], lr=0.1) for _ in range(2)]
    for k in range(4):
        optimizers[0].parameters[0].grad[...] = math.cos(k)
        optimizers[0].step()
    optimizers[1].load_state_dict(*optimizers[0].state_dict())
    assert optimizers[1].state[0]["mean"].shape == () and optimizers[1].steps == 4
    assert optimizers[1].state[0]["mean"] == optimizers[0].state[0]["mean"] != 0


def changed(state, arrays, **changes):
    return {**state, **changes}, arrays


def changed_group(state, arrays, **changes):
    first, *others = state["param_groups"]
    return {**state, "param_groups": [{**first, **changes}, *others]}, arrays


def with_array(state, arrays, name, array):
    arrays = {**arrays, name: array}
    return {**state, "arrays": list(arrays)}, arrays


def without_array(state, arrays, name, told=True):
    arrays = {key: array for key, array in arrays.items() if key != name}
    return {**state, "arrays": list(arrays)} if told else state, arrays


UNFIT = {
    "no dict": (lambda s, a: ([], a), "state must hold type, steps, param_groups and arrays"),
    "no steps": (lambda s, a: ({k: v for k, v in s.items() if k != "steps"}, a), "state must hold type, steps"),
    "another kind": (lambda s, a: changed(s, a, type="SGD"), "state is that of 'SGD', this optimizer is AdamW"),
    "negative steps": (lambda s, a: changed(s, a, steps=-1), "steps must be at least 0, got -1"),
    "fewer groups": (lambda s, a: changed(s, a, param_groups=s["param_groups"][:1]), "state must have the groups of parameters"),
    "no groups": (lambda s, a: changed(s, a, param_groups=None), "state must have the groups of parameters"),
    "odd groups": (lambda s, a: changed(s, a, param_groups=[1, 2]), "state must have the groups of parameters"),
    "other names": (lambda s, a: changed_group(s, a, params=["7.weight"]), "must have the groups of parameters .*'0.weight'"),
    "option range": (lambda s, a: changed_group(s, a, lr=-1.0), "lr must be a number at least 0"),
    "first rate": (lambda s, a: changed_group(s, a, initial_lr=math.nan), "initial_lr must be a number"),
    "unknown option": (lambda s, a: changed_group(s, a, colour=1), "state must have the options lr, betas, eps, weight_decay in"),
    "array lost": (lambda s, a: without_array(s, a, "0.weight/mean", told=False), "arrays must be those that state names"),
    "half a state": (lambda s, a: without_array(s, a, "0.weight/mean"), "must hold mean and square of '0.weight', got square"),
    "unknown array": (lambda s, a: with_array(s, a, "9.weight/mean", np.zeros(5)), "'9.weight/mean' is no moment"),
    "unknown moment": (lambda s, a: with_array(s, a, "0.weight/velocity", np.zeros(5)), "'0.weight/velocity' is no moment"),
    "shape": (lambda s, a: with_array(s, a, "0.weight/mean", np.zeros(6)), r"must be float64 of shape \(5,\), got .* \(6,\)"),
    "type": (lambda s, a: with_array(s, a, "0.weight/mean", np.zeros(5, np.float32)), r"must be float64 .*, got float32 of"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_a_state_that_does_not_fit_changes_nothing(case):
    change, message = UNFIT[case]
    source, optimizer = grouped("adamw"), grouped("adamw")
    steps(source, 1, 3)
    steps(optimizer, 1, 2)
    before, arrays_before = optimizer.state_dict()
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(*change(*source.state_dict()))
    after, arrays_after = optimizer.state_dict()
    assert after == before
    assert all(arrays_after[name].tobytes() == array.tobytes() for name, array in arrays_before.items())


def test_parameters_of_one_name_cannot_be_saved():
    optimizer = optim.SGD([make_parameter(np.float32), make_parameter(np.float32)], lr=0.1)
    with pytest.raises(ValueError, match="parameters must have different names to be saved by, two are called '0.weight'"):
        optimizer.state_dict()


# ------------------------------------------------------------------------------------------------ clipping

# torch.nn.utils.clip_grad_norm_ 2.13, float64, of gradients 1 and 4, max_norm 0.75.
TORCH_NORMS = {
    2.0: (2.490380280687676, [
        [0.04812772469039538, 0.2002695318864213, 0.18023509554891293, -0.14085522984366355, -0.49065283961015044],
        [0.04812772469039538, -0.19626113584406016, 0.24047134433256392, -0.026631222241152983, -0.35726725255327957]]),
    1.0: (6.404925618754477, [
        [0.018713155011034054, 0.07786935323218666, 0.07007950829033122, -0.05476772000204966, -0.1907769939945055],
        [0.018713155011034054, -0.0763107975978022, 0.09350073312535079, -0.01035482548027972, -0.1389136411580659]]),
    math.inf: (1.6292168627751618, [
        [0.0735668245417411, 0.3061269488246805, 0.2755028153898353, -0.2153077471739145, -0.74999953965641],
        [0.0735668245417411, -0.29999981586256397, 0.36757842407124613, -0.04070781377159094, -0.5461096998076495]]),
    3.0: (1.9486513273399468, [
        [0.06150732122372157, 0.2559448323872397, 0.2303407856704157, -0.18001324441926725, -0.6270552370670306],
        [0.06150732122372157, -0.2508220948268122, 0.3073228230944166, -0.03403475131027346, -0.45658820995326177]]),
}  # fmt: skip


def with_gradients(*grads):
    parameters = [sf.Parameter(f"{i}.weight", np.zeros_like(grad)) for i, grad in enumerate(grads)]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad[...] = grad
    return parameters


@pytest.mark.parametrize("norm_type", TORCH_NORMS)
@pytest.mark.parametrize("dtype, rtol", [(np.float64, 1e-12), (np.float32, 1e-6)])
def test_clipped_norms_are_torchs(norm_type, dtype, rtol):
    parameters = with_gradients(gradient(1).astype(dtype), gradient(4).astype(dtype))
    norm, clipped = TORCH_NORMS[norm_type]
    found = optim.clip_grad_norm_(parameters, 0.75, norm_type)
    assert type(found) is float and found == pytest.approx(norm, rel=rtol)
    for parameter, expected in zip(parameters, clipped, strict=True):
        assert parameter.grad.dtype == dtype
        np.testing.assert_allclose(parameter.grad, expected, rtol=rtol)


def test_gradients_within_the_norm_keep_their_bits():
    parameters = with_gradients(gradient(1), gradient(4))
    assert optim.clip_grad_norm_((parameter for parameter in parameters), 100) == pytest.approx(2.490380280687676, rel=1e-12)
    assert [parameter.grad.tobytes() for parameter in parameters] == [gradient(1).tobytes(), gradient(4).tobytes()]
    assert optim.clip_grad_norm_([], 1.0) == 0


def large_gradients(dtype):
    rng = np.random.default_rng(5)
    return [(rng.normal(size=size) * 10.0 ** rng.integers(-6, 3, size)).astype(dtype) for size in (3 * PART + 77, 16, 1, PART)]


@pytest.mark.parametrize("norm_type", [2.0, 1, math.inf, 2.5])
def test_large_norms_are_exact_and_have_the_same_bits_on_any_number_of_threads(norm_type):
    grads, before, results = large_gradients(np.float32), sf.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            sf.set_num_threads(threads)
            parameters = with_gradients(*grads)
            norm = optim.clip_grad_norm_(parameters, 1.0, norm_type)
            results.append((norm, *(parameter.grad.tobytes() for parameter in parameters)))
    finally:
        sf.set_num_threads(before)
    assert results[0] == results[1] == results[2]
    everything = np.concatenate(grads).astype(np.float64)
    assert norm == pytest.approx(np.linalg.norm(everything, norm_type), rel=1e-13)
    share = np.float32(1 / (norm + 1e-6))
    for parameter, grad in zip(parameters, grads, strict=True):
        np.testing.assert_array_equal(parameter.grad, grad * share)


def test_scalars_are_clipped_too():
    scalar = sf.Parameter("beta", np.array(0.5, np.float32))
    scalar.grad[...] = -4
    assert optim.clip_grad_norm_(scalar, 1.0) == 4
    assert scalar.grad == np.float32(-4) * np.float32(1 / (4 + 1e-6))


@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf])
def test_gradients_that_are_not_finite(norm_type):
    def clipped(value):
        parameters = with_gradients(np.array([1.0, value, 2.0]), np.ones(2))
        norm = optim.clip_grad_norm_(parameters, 1.0, norm_type)
        return norm, [parameter.grad for parameter in parameters]

    norm, grads = clipped(math.nan)
    assert math.isnan(norm) and all(np.isnan(grad).all() for grad in grads)
    norm, grads = clipped(-math.inf)
    assert norm == math.inf and grads[1].tolist() == [0, 0] and np.isnan(grads[0]).tolist() == [False, True, False]
    for value in (math.nan, math.inf):
        parameters = with_gradients(np.array([1.0, value]))
        with pytest.raises(ArithmeticError, match=f"the norm of the gradients of parameters is {value}"):
            optim.clip_grad_norm_(parameters, 1.0, norm_type, error_if_nonfinite=True)
        assert parameters[0].grad[0] == 1


def test_values_are_clipped_each_by_itself():
    grads = [*large_gradients(np.float64), np.array([0.5, -0.5, math.inf, -math.inf, math.nan, 0.25])]
    parameters = with_gradients(*grads)
    optim.clip_grad_value_(parameters, 0.5)
    for parameter, grad in zip(parameters, grads, strict=True):
        np.testing.assert_array_equal(parameter.grad, np.clip(grad, -0.5, 0.5))
    assert parameters[-1].grad.tolist()[:4] == [0.5, -0.5, 0.5, -0.5] and np.isnan(parameters[-1].grad[4])


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda p: optim.clip_grad_norm_(p, -1.0), ValueError, "max_norm must be a number at least 0, got -1.0"),
        (lambda p: optim.clip_grad_norm_(p, math.nan), ValueError, "max_norm must be a number"),
        (lambda p: optim.clip_grad_norm_(p, 1.0, 0), ValueError, "norm_type must be a number above 0, got 0"),
        (lambda p: optim.clip_grad_norm_(p, 1.0, -math.inf), ValueError, "norm_type must be a number above 0"),
        (lambda p: optim.clip_grad_norm_(p, 1.0, "inf"), ValueError, "norm_type must be a number above 0, got 'inf'"),
        (lambda p: optim.clip_grad_norm_([p.grad], 1.0), TypeError, "parameters must hold Parameters, got array"),
        (lambda p: optim.clip_grad_value_(p, -0.1), ValueError, "clip_value must be a number at least 0, got -0.1"),
        (lambda p: optim.clip_grad_value_(p, "1"), ValueError, "clip_value must be a number"),
    ],
    ids=["negative", "nan", "zero", "minus infinity", "text", "array", "value", "value text"],
)
def test_bad_clipping_changes_nothing(call, error, message):
    (parameter,) = with_gradients(gradient(1))
    with pytest.raises(error, match=message):
        call(parameter)
    assert parameter.grad.tobytes() == gradient(1).tobytes()


# ------------------------------------------------------------------------------------------------ bad options


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
