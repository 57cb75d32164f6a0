from __future__ import annotations

import numpy as np
import pytest
from layer_passes import assert_same_bits, passes

import spikeflow as sf

X = np.array([1.5, 1, 0, 3, 1]).reshape(5, 1, 1)
KINDS = {  # each neuron through a weight each, a matrix, a convolution
    "one to one": {"all_to_all": False},
    "matrix": {"linear_features": 6},
    "convolution": {"conv2d_channels": 2, "kernel_size": 3},
}
NEURONS = {
    "RLeaky": lambda **options: sf.RLeaky(**{"beta": 0.5, **options}),
    "RSynaptic": lambda **options: sf.RSynaptic(**{"alpha": 0.5, "beta": 0.5, **options}),
}
DECAYS = {"RLeaky": ("beta",), "RSynaptic": ("alpha", "beta")}
every_neuron = pytest.mark.parametrize("name", NEURONS)
every_kind = pytest.mark.parametrize("kind", KINDS)
through_weights = pytest.mark.parametrize("kind", ["matrix", "convolution"])


def sample(kind):
    """-> the shape of one sample."""
    return (2, 4, 3) if kind == "convolution" else (6,)


def alone(neuron, backend="reference", dtype=np.float64):
    return sf.Sequential(neuron, backend=backend, dtype=dtype)


def draw(*shape, dtype=np.float64):
    return (2 * np.random.default_rng(0).random(shape)).astype(dtype)


def named(net):
    """-> {name within the first layer: parameter}, those that are not trained too."""
    return {name.partition(".")[2]: parameter for name, parameter in zip(net.state_dict(), net._all_parameters(), strict=True)}


# ---------------------------------------------------------------------------------------------- options


@every_neuron
@pytest.mark.parametrize(
    "options, error, message",
    [
        ({}, ValueError, "needs either linear_features, or conv2d_channels and kernel_size; got none of them"),
        ({"conv2d_channels": 2}, ValueError, "needs either .* got conv2d_channels"),
        ({"kernel_size": 3}, ValueError, "needs either .* got kernel_size"),
        ({"linear_features": 2, "kernel_size": 3}, ValueError, "needs either .* got kernel_size, linear_features"),
        ({"linear_features": 2, "conv2d_channels": 2, "kernel_size": 3}, ValueError, "needs either .* got conv2d_channels, "),
        ({"all_to_all": False, "linear_features": 2}, ValueError, "all_to_all=False uses V alone; leave out linear_features"),
        (
            {"all_to_all": False, "conv2d_channels": 2, "kernel_size": 3},
            ValueError, "all_to_all=False uses V alone; leave out conv2d_channels, kernel_size",
        ),
        ({"conv2d_channels": 2, "kernel_size": 2}, ValueError, "kernel_size must be odd, .* got 2"),
        ({"conv2d_channels": 2, "kernel_size": 0}, ValueError, "kernel_size must be at least 1, got 0"),
        ({"conv2d_channels": 2, "kernel_size": (3, 3)}, TypeError, r"kernel_size must be an integer, got \(3, 3\)"),
        ({"conv2d_channels": -1, "kernel_size": 3}, ValueError, "conv2d_channels must be at least 1"),
        ({"linear_features": 0}, ValueError, "linear_features must be at least 1"),
        ({"linear_features": 2.0}, TypeError, "linear_features must be an integer, got 2.0"),
        ({"linear_features": True}, TypeError, "linear_features must be an integer, got True"),
        ({"all_to_all": False, "V": "1"}, ValueError, "V must be a finite number or an array of them, got '1'"),
        ({"all_to_all": False, "V": [1, np.nan]}, ValueError, "V must be a finite number or an array of them"),
        ({"linear_features": 2, "learn_V": True}, TypeError, "learn_V"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)  # fmt: skip
def test_a_bad_option_is_refused_by_name(name, options, error, message):
    with pytest.raises(error, match=message):
        NEURONS[name](**options)


@every_neuron
@pytest.mark.parametrize(
    "options, shape, message",
    [
        ({"linear_features": 4}, (5,), r"expects rows of 4 features, got an input of shape \(5,\) per sample"),
        ({"linear_features": 4}, (4, 1, 1), "expects rows of 4 features"),
        ({"conv2d_channels": 3, "kernel_size": 3}, (2, 4, 4), r"expects images of shape \(3, H, W\)"),
        ({"conv2d_channels": 3, "kernel_size": 3}, (3,), r"expects images of shape \(3, H, W\)"),
        ({"all_to_all": False, "V": np.ones(4)}, (5,), r"V of shape \(4,\) does not fit samples of shape \(5,\)"),
        ({"linear_features": 5, "threshold": np.ones(4)}, (5,), r"threshold of shape \(4,\) does not fit"),
        ({"conv2d_channels": 2, "kernel_size": 1, "inhibition": True}, (2, 3, 3), r"expects samples of shape \(F,\), since"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_samples_that_do_not_fit_are_refused(name, options, shape, message):
    with pytest.raises(ValueError, match=rf"layer 0 \({name}\(.*{message}"):
        alone(NEURONS[name](**options)).forward(np.zeros((2, 3, *shape)))


# ---------------------------------------------------------------------------------------------- through one weight, any way


@every_neuron
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("delay", [True, False], ids=["delayed", "at-once"])
def test_one_neuron_hears_itself_alike_through_a_weight_a_matrix_and_a_convolution(name, reset, delay):
    """The sequence that is worked out by hand for the weight in test_neurons.py."""
    options, results = {"reset_mechanism": reset, "reset_delay": delay, "learn_beta": True, "learn_threshold": True}, []
    kinds = {"all_to_all": False, "V": -0.5}, {"linear_features": 1}, {"conv2d_channels": 1, "kernel_size": 1}
    for kind in kinds:
        net = alone(NEURONS[name](**kind, **options))
        for key, parameter in named(net).items():
            if key.startswith("recurrent."):
                parameter.value[...] = -0.5 * (key == "recurrent.weight")
        shape = (5, 1, 1, 1, 1) if "kernel_size" in kind else (5, 1, 1)
        *outputs, gradients = passes(net, X.reshape(shape))
        results.append([array.ravel() for array in outputs] + [gradients.get("0.V", gradients.get("0.recurrent.weight")).ravel()])
        results[-1] += [gradients[f"0.{key}"] for key in ("beta", "threshold")]
    assert results[0][0].any() and results[0][2].any()
    for other in results[1:]:
        assert_same_bits(other[:2], results[0][:2])
        for actual, expected in zip(other[2:], results[0][2:], strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reset, delay", [("subtract", True), ("none", True), ("subtract", False), ("zero", False)])
@every_kind
def test_an_rleaky_that_hears_nothing_is_leaky(kind, reset, delay):
    options = {"reset_mechanism": reset, "reset_delay": delay, "learn_beta": True, "learn_threshold": True}
    net, plain = alone(sf.RLeaky(0.5, V=0, **KINDS[kind], **options)), alone(sf.Leaky(0.5, **options))
    for key, parameter in named(net).items():
        if key.startswith("recurrent."):
            parameter.value[...] = 0
    x = draw(7, 5, *sample(kind))
    actual, expected = passes(net, x), passes(plain, x)
    assert 0 < expected[0].mean() < 1
    assert_same_bits(actual[:3], expected[:3])
    for key in ("0.beta", "0.threshold"):
        np.testing.assert_allclose(actual[3][key], expected[3][key], rtol=1e-12)
    assert all(gradient.any() for gradient in actual[3].values())  # V, or weight and bias, learn all the same


@pytest.mark.parametrize("delay", [True, False], ids=["delayed", "at-once"])
def test_reset_to_zero_drops_the_input_where_leaky_keeps_it_and_so_does_synaptic(delay):
    options = {"reset_mechanism": "zero", "reset_delay": delay}
    x = draw(7, 5, 6)
    silent = alone(sf.RLeaky(0.5, V=0, all_to_all=False, **options)).forward(x)
    assert_same_bits(silent, alone(sf.Synaptic(0, 0.5, **options)).forward(x))
    assert np.array_equal(silent[1], alone(sf.Leaky(0.5, **options)).forward(x)[1]) == (not delay)


@every_kind
def test_an_rsynaptic_that_hears_nothing_is_synaptic(kind):
    options = {"alpha": 0.5, "beta": 0.75, "learn_alpha": True, "learn_beta": True}
    net, plain = alone(sf.RSynaptic(V=0, **KINDS[kind], **options)), alone(sf.Synaptic(**options))
    for key, parameter in named(net).items():
        if key.startswith("recurrent."):
            parameter.value[...] = 0
    x = draw(7, 5, *sample(kind))
    actual, expected = passes(net, x), passes(plain, x)
    assert_same_bits(actual[:3], expected[:3])
    for key in ("0.alpha", "0.beta"):
        np.testing.assert_allclose(actual[3][key], expected[3][key], rtol=1e-12)


@every_neuron
def test_an_rsynaptic_without_a_synaptic_current_is_rleaky(name):
    options = {"linear_features": 6} if name == "RLeaky" else {"all_to_all": False, "V": -0.7}
    nets = [alone(sf.RLeaky(0.5, **options)), alone(sf.RSynaptic(0, 0.5, **options))]
    actual, expected = (passes(net, draw(7, 5, 6)) for net in nets)
    assert_same_bits(actual[:2], expected[:2])
    for ours, theirs in zip((actual[2], *actual[3].values()), (expected[2], *expected[3].values()), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@every_neuron
@through_weights
def test_the_graded_factor_is_in_the_spikes_that_are_heard(name, kind):
    """Half the spike through twice the weight; the reset is the whole threshold either way."""
    nets = [alone(NEURONS[name](**KINDS[kind], graded_spikes_factor=factor)) for factor in (1, 0.5)]
    nets[1].load_state_dict(nets[0].state_dict())
    named(nets[1])["recurrent.weight"].value *= 2
    (spikes, membrane), (half, same) = (net.forward(draw(6, 5, *sample(kind))) for net in nets)
    assert spikes.any()
    np.testing.assert_array_equal(half, spikes / 2)
    np.testing.assert_array_equal(same, membrane)


def test_a_matrix_hears_across_neurons_and_a_sample_hears_itself_alone():
    net = alone(sf.RLeaky(0, linear_features=2))
    named(net)["recurrent.weight"].value[...] = [[0, 0], [3, 0]]  # the first neuron's spike to the second
    named(net)["recurrent.bias"].value[...] = [0, 0.25]
    x = np.zeros((3, 2, 2))
    x[0, 0, 0] = 2
    _, membrane = net.forward(x)
    np.testing.assert_array_equal(membrane[:, 0], [[2, 0.25], [-1, 3.25], [0, -0.75]])
    np.testing.assert_array_equal(membrane[:, 1], [[0, 0.25]] * 3)


def test_a_convolution_hears_its_neighbourhood():
    net = alone(sf.RLeaky(0, conv2d_channels=1, kernel_size=3))
    named(net)["recurrent.weight"].value[...] = np.arange(9).reshape(1, 1, 3, 3) / 16
    named(net)["recurrent.bias"].value[...] = 0
    x = np.zeros((2, 1, 1, 4, 4))
    x[0, 0, 0, 0, 1] = 2  # at the upper edge
    _, membrane = net.forward(x)
    expected = np.zeros((4, 4))
    expected[:2, :3] = np.array([[5, 4, 3], [2, 1, 0]]) / 16  # a correlation, as PyTorch's
    expected[0, 1] -= 1
    np.testing.assert_array_equal(membrane[1, 0, 0], expected)


# ---------------------------------------------------------------------------------------------- backends


@pytest.mark.parametrize("truncate", [None, 2])
def test_a_recurrent_convolution_agrees_on_both_backends(truncate):
    """Weights and pixels are multiples of 1/16, betas of 1/4, so that all sums are exact."""
    betas = np.array([0.25, 0.5, 0.75]).reshape(3, 1, 1)
    x, results = np.round(draw(5, 6, 3, 6, 5, dtype=np.float32) * 16) / 16, []
    for backend in ("cpu", "reference"):
        neuron = sf.RLeaky(betas, conv2d_channels=3, kernel_size=3, learn_beta=True)
        net = alone(neuron, backend, np.float32)
        for key in ("recurrent.weight", "recurrent.bias"):
            value = named(net)[key].value
            value[...] = np.round(value * 32) / 16
        results.append(passes(net, x))
        outer = np.random.default_rng(1).normal(size=(2, 5, 6, 3, 6, 5)).astype(np.float32)
        net.zero_grad()
        net.loss_and_grad(x, None, lambda spikes, membrane, labels, outer=outer: (0, *outer), truncate=truncate)
        results[-1][3].update({f"{p.name}, truncated": p.grad.copy() for p in net.parameters()})
    assert 0.05 < results[1][0].mean() < 0.95
    assert_same_bits(results[0][:2], results[1][:2])
    for key, expected in {"dx": results[1][2], **results[1][3]}.items():
        actual = {"dx": results[0][2], **results[0][3]}[key]
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * abs(expected).max(), err_msg=key)


@pytest.mark.parametrize("batch", [1, 3, 17, 37])
def test_a_recurrent_matrix_takes_batches_of_any_size_on_both_backends(batch):
    """37 samples are two blocks of 16 and one of 5."""
    x, labels, results = np.round(draw(4, batch, 6, dtype=np.float32) * 16) / 16, np.arange(batch) % 6, []
    for backend in ("cpu", "reference"):
        net = alone(sf.RLeaky(0.5, linear_features=6), backend, np.float32)
        for parameter in net.parameters():
            parameter.value[...] = np.round(parameter.value * 32) / 16
        loss, spikes = net.loss_and_grad(x, labels, sf.losses.ce_rate_loss())
        outputs = [spikes, *net.forward(x), net.predict(x, batch_size=5)]
        results.append((loss, outputs, [parameter.grad for parameter in net.parameters()]))
    assert results[1][1][0].any()
    assert_same_bits(results[0][1], results[1][1])
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    for actual, expected in zip(results[0][2], results[1][2], strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * abs(expected).max())


@every_neuron
@through_weights
def test_a_static_input_equals_its_repetition(name, kind):
    learned = {f"learn_{decay}": True for decay in DECAYS[name]}
    net = alone(NEURONS[name](**KINDS[kind], **learned, learn_threshold=True))
    x = draw(5, *sample(kind))
    static, repeated = passes(net, x, 6), passes(net, np.array([x] * 6))
    assert static[0].any()
    assert_same_bits(static[:2], repeated[:2])
    np.testing.assert_allclose(static[2], repeated[2].sum(0), rtol=1e-6, atol=1e-12)
    for key, gradient in static[3].items():
        np.testing.assert_allclose(gradient, repeated[3][key], rtol=1e-6, atol=1e-12, err_msg=key)


@every_neuron
@through_weights
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def test_arrays_filled_with_one_number_are_that_number(name, kind, dtype):
    wide = (2, 1, 1) if kind == "convolution" else (6,)
    learned = {f"learn_{number}": True for number in (*DECAYS[name], "threshold", "graded_spikes_factor")}
    numbers = dict.fromkeys((*DECAYS[name], "threshold"), 0.5) | {"graded_spikes_factor": 1.5}
    arrays = {key: np.full(wide, value) for key, value in numbers.items()}
    x = draw(6, 7, *sample(kind), dtype=dtype)
    actual, expected = (passes(alone(NEURONS[name](**KINDS[kind], **o, **learned), dtype=dtype), x) for o in (arrays, numbers))
    assert_same_bits(actual[:3], expected[:3])
    for key, gradient in expected[3].items():
        summed = actual[3][key] if "recurrent" in key else actual[3][key].sum()
        assert gradient.shape == summed.shape and gradient.any() and gradient.dtype == dtype
        assert "recurrent" in key or actual[3][key].shape == wide
        np.testing.assert_allclose(summed, gradient, rtol=1e-4 if dtype == np.float32 else 1e-10, err_msg=key)


@every_neuron
def test_under_inhibition_one_neuron_fires_and_is_heard_by_all(name):
    net = alone(NEURONS[name](linear_features=6, inhibition=True, threshold=0.5))
    spikes, membrane = net.forward(draw(8, 7, 6))
    winners = np.arange(6) == membrane.argmax(-1)[..., None]
    np.testing.assert_array_equal(spikes, winners & (membrane > 0.5))
    assert spikes.sum(-1).max() == 1


# ---------------------------------------------------------------------------------------------- training, or not


@every_neuron
@through_weights
def test_weights_that_are_not_learned_stay_bit_for_bit_and_in_the_state(name, kind):
    flatten = [sf.Flatten(), sf.Linear(24, 3)] if kind == "convolution" else [sf.Linear(6, 3)]
    neuron = NEURONS[name](**KINDS[kind], learn_recurrent=False, learn_beta=True, threshold=0.5)
    net = sf.Sequential(sf.Leaky(0.5, learn_beta=True), neuron, *flatten, sf.Leaky(0.5, 0.1), backend="reference")
    frozen, before = ["1.recurrent.weight", "1.recurrent.bias"], net.state_dict()
    assert set(frozen) <= set(before) and not set(frozen) & {parameter.name for parameter in net.parameters()}
    optimizer = sf.optim.AdamW(net.parameters(), lr=0.05, weight_decay=0.5)
    x, labels = draw(5, 9, *sample(kind), dtype=np.float32), np.arange(9) % 3
    for _ in range(3):
        optimizer.zero_grad()
        net.loss_and_grad(x, labels, sf.losses.ce_count_loss())
        assert not any(parameter.grad.any() for parameter in net._all_parameters() if parameter.name in frozen)
        optimizer.step()
    after = net.state_dict()
    assert {key for key in before if np.array_equal(before[key], after[key])} == set(frozen)


@every_neuron
@through_weights
def test_the_other_gradients_do_not_depend_on_whether_the_weights_are_learned(name, kind):
    x, results = draw(6, 5, *sample(kind)), []
    for learns in (True, False):
        results.append(passes(alone(NEURONS[name](**KINDS[kind], learn_recurrent=learns, learn_beta=True)), x))
    assert_same_bits(results[0][:3], results[1][:3])
    assert set(results[0][3]) - set(results[1][3]) == {"0.recurrent.weight", "0.recurrent.bias"}
    np.testing.assert_array_equal(results[0][3]["0.beta"], results[1][3]["0.beta"])


@every_neuron
def test_a_v_that_is_not_learned_is_a_constant(name):
    net = alone(NEURONS[name](V=[0.3, -0.2], all_to_all=False, learn_recurrent=False))
    assert net.parameters() == [] and net.state_dict() == {}
    net.load_state_dict({"0.V": np.array([0.3, -0.2], np.float32)})
    with pytest.raises(ValueError, match=r"0\.V is .*, but layer 0"):
        net.load_state_dict({"0.V": np.array([0.3, 0.2])})


def test_a_layer_whose_weights_alone_are_learned_passes_the_gradient_through_earlier_layers():
    net = sf.Sequential(sf.RLeaky(0.5, linear_features=6), sf.Linear(6, 3), sf.Leaky(0.5, 0.1), backend="reference")
    net.loss_and_grad(draw(5, 4, 6, dtype=np.float32), np.arange(4) % 3, sf.losses.ce_count_loss())
    assert [parameter.name for parameter in net.parameters()][:2] == ["0.recurrent.weight", "0.recurrent.bias"]
    assert all(parameter.grad.any() for parameter in net.parameters())


@every_neuron
@through_weights
def test_initial_weights_fill_pytorchs_interval(name, kind):
    kinds = {"matrix": {"linear_features": 64}, "convolution": {"conv2d_channels": 16, "kernel_size": 3}}
    net = alone(NEURONS[name](**kinds[kind]))
    bound = 1 / np.sqrt({"matrix": 64, "convolution": 16 * 9}[kind])
    weight, bias = (named(net)[f"recurrent.{key}"].value for key in ("weight", "bias"))
    assert 0.95 * bound < abs(weight).max() <= bound and 0.7 * bound < abs(bias).max() <= bound


# ---------------------------------------------------------------------------------------------- snnTorch's state dicts


def stored(name, **entries):
    """-> what snnTorch 1.0's state dict holds for such a neuron behind a layer, in float32, ``entries`` besides."""
    decays = {"RLeaky": {"beta": 0.9}, "RSynaptic": {"alpha": 0.8, "beta": 0.9}}[name]
    constants = {"threshold": 1.0, "graded_spikes_factor": 1.0, **decays, **entries}
    return {f"1.{key}": np.asarray(value, np.float32) for key, value in constants.items()} | {
        "1.reset_mechanism_val": np.array(0, np.int64)
    }


def behind_linear(name, **options):
    decays = {"RLeaky": {"beta": 0.9}, "RSynaptic": {"alpha": 0.8, "beta": 0.9}}[name]
    return sf.Sequential(sf.Linear(2, 6, bias=False), NEURONS[name](**decays, **options), backend="reference")


@every_neuron
@pytest.mark.parametrize("learns", [True, False])
def test_a_state_of_snntorch_with_a_matrix_loads(name, learns):
    net = behind_linear(name, linear_features=6, learn_recurrent=learns)
    weight, bias = draw(6, 6, dtype=np.float32), draw(6, dtype=np.float32)
    state = {"0.weight": np.zeros((6, 2))} | stored(name, **{"recurrent.weight": weight, "recurrent.bias": bias})
    net.load_state_dict(state)
    assert_same_bits([named(net)["recurrent.weight"].value, net.state_dict()["1.recurrent.bias"]], [weight, bias])


@every_neuron
@pytest.mark.parametrize("V", [0.3, np.linspace(-1, 1, 6)], ids=["one", "each its own"])
def test_a_state_of_snntorch_in_which_v_is_there_twice_loads(name, V):
    """snnTorch 1.0 stores one parameter under two names, since the module that multiplies by it holds it too."""
    net = behind_linear(name, V=np.zeros(np.shape(V)), all_to_all=False)
    state = {"0.weight": np.zeros((6, 2))} | stored(name, V=V, **{"recurrent.V": V})
    net.load_state_dict(state)
    np.testing.assert_array_equal(net.state_dict()["1.V"], np.float32(V))
    with pytest.raises(ValueError, match=r"1\.recurrent\.V"):
        net.load_state_dict(state | {"1.recurrent.V": np.asarray(V) + 1})


@every_neuron
def test_another_decay_in_a_state_of_snntorch_is_refused(name):
    net = behind_linear(name, all_to_all=False)
    for key in DECAYS[name]:
        state = {"0.weight": np.zeros((6, 2))} | stored(name, V=1) | {f"1.{key}": np.array(0.5)}
        with pytest.raises(ValueError, match=rf"1\.{key} is 0.5, but layer 1"):
            net.load_state_dict(state)
