"""Compare all neurons and losses of spikeflow with snnTorch's, number by number.

    python benchmarks/parity_neurons.py                                      this Python can import both
    python benchmarks/parity_neurons.py --peer-python ~/peers/bin/python     snnTorch in its own environment

neurons    One layer of neurons, T = 12 steps of random currents for B = 4 samples of 10 neurons (images of 2 x 5 x 4 where the
           recurrence is a convolution), float32, and random gradients from outside for spikes and membranes. Each neuron, reset
           and delay; constants given, learned, and learned for each neuron; every surrogate that snnTorch computes rightly.
networks   Linear(8, 12) - neuron - Linear(12, 6) - Leaky, for each neuron and each loss: five steps of SGD on one batch, in which
           neurons' constants, one for each, are learned too. Losses of all five steps and weights after them are compared, which
           holds the optimizer's step and all gradients to account. The surrogate is atan: the derivative of fast_sigmoid(25)
           changes up to 50 times as much as a membrane does, and training would multiply what rounding left.
truncated  The same networks and ce_rate_loss, through which gradients flow back K steps at most: ``truncate=K`` here, detached
           states in snnTorch.
faults     What snnTorch gets wrong, run on it, beside what spikeflow gives. Shown and not judged.

Currents are drawn anew, from the next seed, until all layers fire at 10 to 70 % of all steps and no membrane lies within 1e-5 of
where its neuron would do something else: its threshold; under inhibition the winner's lead; for SFS the edge of its derivative.
A spike is then not a matter of rounding, so none may differ. Other limits are 1e-5:

membrane, states   the largest difference, relative to the largest number
dx, dparameters    |a - b| / |b| in the Euclidean norm, of each parameter; 1e-4 for a number that all neurons share: its
                   gradient is a sum of hundreds of terms of both signs, which may cancel where their rounding errors do not
loss               relative
weights            |a - b| / |b|, the worst of all parameters

Alpha's learned alpha is compared as well, although its constructor fails in snnTorch: the parameter is put in afterwards.
The exit status is 1 if any number exceeds its limit.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import harness  # before numpy
import numpy as np
from parity import EXACT, ROUNDING, WORKER, Check, Peer, differing, relative

import spikeflow as sf

T, B, F, IMAGE = 12, 4, 10, (2, 5, 4)
MARGIN, RATES, MOST_SEEDS = 1e-5, (0.1, 0.7), 50
INPUTS, HIDDEN, CLASSES = 8, 12, 6
SGD_STEPS, LR, SUM_LR = 5, 0.01, 0.001  # the smaller one for losses that are sums
TRUNCATE = (1, 3, 5)
SHARED = 1e-4  # limit for the gradient of a number that all neurons share
RESETS = ("subtract", "zero", "none")
COLUMNS = ("spikes", "membrane", "states", "dx", "dparameters", "loss", "weights")

# ---------------------------------------------------------------------------------------------------- cases


@dataclass(frozen=True)
class Case:
    """A neuron layer with its options.

    Attributes
    ----------
    row : str
        Of the table; cases in one row are told apart by ``what``.
    neuron : str
        A class of spikeflow.
    options : dict
        Of its constructor, but for numbers and surrogate.
    numbers : dict
        beta, threshold, ...: a number, or one for each neuron.
    spike_grad : dict
        ``name`` of the surrogate, and its parameters.
    currents : (float, float)
        Least and most.
    """

    row: str
    what: str
    neuron: str
    options: dict = field(default_factory=dict)
    numbers: dict = field(default_factory=dict)
    spike_grad: dict = field(default_factory=lambda: {"name": "atan"})
    shape: tuple[int, ...] = (F,)
    currents: tuple[float, float] = (-0.5, 1.5)

    def description(self) -> dict:
        """What the peer needs to make it, arrays aside."""
        return {"neuron": self.neuron, "options": self.options, "spike_grad": self.spike_grad}

    def layer(self):
        """-> spikeflow's."""
        numbers = {name: np.asarray(value, np.float32) for name, value in self.numbers.items()}
        options = self.options | {name: value if value.ndim else value.item() for name, value in numbers.items()}
        if self.neuron != "LeakyIntegrator":
            options["spike_grad"] = surrogate(self.spike_grad)
        return getattr(sf, self.neuron)(**options)


def surrogate(spec: dict):
    """{"name": ..., its parameters} -> spikeflow's."""
    return getattr(sf.surrogate, spec["name"])(**{key: value for key, value in spec.items() if key != "name"})


ATAN, FAST = {"name": "atan"}, {"name": "fast_sigmoid", "slope": 25}
SURROGATES = {
    "straight_through_estimator": {},
    "heaviside": {},
    "sigmoid": {"slope": 25},
    "spike_rate_escape": {"beta": 1, "slope": 25},
    "SFS": {"slope": 25, "B": 0.125},
}  # besides atan and fast_sigmoid
DELAYS = {"": True, ", at once": False}


def spread(low: float, high: float, shape=(F,)) -> np.ndarray:
    """-> numbers from low to high, one for each neuron, or for each channel of images."""
    return np.linspace(low, high, shape[0], dtype=np.float32).reshape(shape[0], *[1] * (len(shape) - 1))


def learning(*names: str) -> dict:
    """-> the options by which these are learned."""
    return {f"learn_{name}": True for name in names}


def neuron_cases() -> list[Case]:
    """All comparisons of single layers."""
    return [*leaky_cases(), *integrator_cases(), *lapicque_cases(), *synaptic_cases(), *alpha_cases(), *recurrent_cases()]


def leaky_cases() -> list[Case]:
    cases = []
    for reset, (suffix, delay) in itertools.product(RESETS, DELAYS.items()):
        row, options = f"Leaky, {reset}{suffix}", {"reset_mechanism": reset, "reset_delay": delay}
        given, each = {"beta": 0.7, "threshold": 0.8}, {"beta": spread(0.3, 0.9), "threshold": spread(0.6, 1.2)}
        common = {"currents": {"subtract": (-0.5, 1.5), "zero": (-0.5, 1.5), "none": (-0.75, 1.0)}[reset]}
        for grad in (ATAN, FAST):
            cases += [
                Case(row, f"{grad['name']}", "Leaky", options, given, grad, **common),
                Case(row, f"{grad['name']}, learned", "Leaky", options | learning("beta", "threshold"), given, grad, **common),
                Case(
                    row, f"{grad['name']}, each learned", "Leaky", options | learning("beta", "threshold"), each, grad, **common
                ),
            ]
        learned = options | learning("beta", "threshold")
        graded = learned | learning("graded_spikes_factor")
        cases += [
            Case(row, "graded, learned", "Leaky", graded, given | {"graded_spikes_factor": 1.5}, **common),
            Case(row, "graded, each learned", "Leaky", graded, each | {"graded_spikes_factor": spread(0.5, 2)}, **common),
            Case(row, "inhibition", "Leaky", learned | {"inhibition": True}, {"beta": 0.7, "threshold": 0.25}, **common),
            Case(row, "images", "Leaky", learned, {"beta": spread(0.5, 0.8, IMAGE), "threshold": 0.8}, shape=IMAGE, **common),
        ]
        cases += [
            Case(row, name, "Leaky", learned, given, {"name": name, **constants}, **common)
            for name, constants in SURROGATES.items()
        ]
    return cases


def integrator_cases() -> list[Case]:
    row = "LeakyIntegrator"
    return [
        Case(row, "given", row, {}, {"beta": 0.7}),
        Case(row, "learned", row, learning("beta"), {"beta": 0.7}),
        Case(row, "each learned", row, learning("beta"), {"beta": spread(0, 1)}),
    ]


def lapicque_cases() -> list[Case]:
    cases, circuit = [], {"R": 2.0, "C": 1.5}
    for reset in RESETS:
        row, options, learned = f"Lapicque, {reset}", {"reset_mechanism": reset}, learning("threshold")
        common = {"currents": (-1.0, 1.5) if reset == "none" else (-0.5, 1.5)}
        cases += [
            Case(row, "given", "Lapicque", options, circuit | {"threshold": 0.8}, **common),
            Case(row, "learned", "Lapicque", options | learned, circuit | {"threshold": 0.8}, FAST, **common),
            Case(row, "each learned", "Lapicque", options | learned, circuit | {"threshold": spread(0.4, 1.2)}, **common),
            Case(row, "time step", "Lapicque", options | learned, circuit | {"threshold": 0.4, "time_step": 0.75}, **common),
            Case(row, "inhibition", "Lapicque", options | {"inhibition": True}, circuit | {"threshold": 0.25}, **common),
        ]
    return cases


def synaptic_cases() -> list[Case]:
    cases = []
    for reset, (suffix, delay) in itertools.product(RESETS, DELAYS.items()):
        row, options = f"Synaptic, {reset}{suffix}", {"reset_mechanism": reset, "reset_delay": delay}
        learned = options | learning("alpha", "beta", "threshold")
        given = {"alpha": 0.6, "beta": 0.5, "threshold": 0.8}
        each = {"alpha": spread(0.2, 0.7), "beta": spread(0.7, 0.3), "threshold": spread(0.6, 1.2)}
        common = {"currents": (-0.75, 0.75) if reset == "none" else (-0.5, 1.0)}
        cases += [
            Case(row, "given", "Synaptic", options, given, FAST, **common),
            Case(row, "learned", "Synaptic", learned, given, **common),
            Case(row, "each learned", "Synaptic", learned, each, **common),
            Case(row, "inhibition", "Synaptic", options | {"inhibition": True}, given | {"threshold": 0.25}, **common),
        ]
    return cases


def alpha_cases() -> list[Case]:
    cases = []
    for reset in RESETS:
        row, options = f"Alpha, {reset}", {"reset_mechanism": reset}
        given = {"alpha": 0.8, "beta": 0.5, "threshold": 0.5}
        each = {"alpha": spread(0.7, 0.95), "beta": spread(0.5, 0.2), "threshold": spread(0.3, 0.6)}
        common = {"currents": (-0.5, 1.0)}
        cases += [
            Case(row, "given", "Alpha", options, given, FAST, **common),
            Case(row, "beta learned", "Alpha", options | learning("beta", "threshold"), given, **common),
            Case(row, "each beta learned", "Alpha", options | learning("beta", "threshold"), each, **common),
            Case(row, "alpha learned", "Alpha", options | learning("alpha", "beta", "threshold"), given, **common),
            Case(row, "each alpha learned", "Alpha", options | learning("alpha", "beta", "threshold"), each, **common),
        ]
    return cases


def recurrent_cases() -> list[Case]:
    """RSynaptic has no reset in its own step: snnTorch fails there."""
    cases = []
    kinds = {
        "linear": ({"linear_features": F}, {}, (F,)),
        "V": ({"all_to_all": False}, {"V": -0.4}, (F,)),
        "each V": ({"all_to_all": False}, {"V": spread(-0.6, 0.6)}, (F,)),
        "conv2d": ({"conv2d_channels": IMAGE[0], "kernel_size": 3}, {}, IMAGE),
        "linear, not learned": ({"linear_features": F, "learn_recurrent": False}, {}, (F,)),
    }
    for neuron, reset, (suffix, delay) in itertools.product(("RLeaky", "RSynaptic"), RESETS, DELAYS.items()):
        if neuron == "RSynaptic" and not delay:
            continue
        decays = {"RLeaky": {"beta": 0.6}, "RSynaptic": {"alpha": 0.5, "beta": 0.4}}[neuron]
        options = {"reset_mechanism": reset, "reset_delay": delay} | learning(*decays, "threshold")
        currents = (-0.75, 1.0) if reset == "none" else (-0.5, 1.5)
        for what, (kind, numbers, shape) in kinds.items():
            constants = decays | {"threshold": 0.8} | numbers
            cases.append(
                Case(f"{neuron}, {reset}{suffix}", what, neuron, options | kind, constants, shape=shape, currents=currents)
            )
    return cases


# ---------------------------------------------------------------------------------------------------- one layer


def check_neurons(peer: Peer, backend: str) -> list[Check]:
    """All cases -> their checks."""
    checks = []
    for case in neuron_cases():
        checks += check_neuron(peer, case, backend)
    return checks


def check_neuron(peer: Peer, case: Case, backend: str) -> list[Check]:
    """One layer, forward and backward."""
    arrays, theirs = draw(f"{case.row}, {case.what}", lambda seed: ask_neuron(peer, case, seed), fires(case))
    net = sf.Sequential(case.layer(), backend=backend)
    net.load_state_dict({f"0.{name}": value for name, value in part(arrays, "weight").items()}, strict=False)
    spikes, membrane = net.forward(arrays["x"])
    dx = net.backward(arrays["dspikes"], arrays["dmembrane"], input_grad=True)
    state = net.stream(arrays["x"])[2]["0"]
    gradients = {f"grad/{p.name.partition('.')[2]}": p.grad for p in net.parameters()}
    wanted = {key for key in theirs if key.startswith("grad/")} - {"grad/x"}
    if set(gradients) != wanted:
        raise ValueError(f"{case}: gradients {sorted(gradients)} against {sorted(wanted)}")
    place = theirs["states"].shape[1] - (2 if case.neuron.startswith("R") else 1)  # of the membrane; fed back spikes follow it
    quantities = {
        "spikes": (differing(spikes, theirs["spikes"]), EXACT),
        "membrane": (largest(membrane, theirs["states"][:, place]), ROUNDING),
        "states": (max(largest(a, b) for a, b in zip(state, theirs["states"][-1], strict=True)), ROUNDING),
        "dx": (relative(dx, theirs["grad/x"]), ROUNDING),
    }
    quantities |= {f"d{key.partition('/')[2]}": (relative(g, theirs[key]), limit_of(g)) for key, g in gradients.items()}
    return [Check(f"{case.row} | {case.what}", quantity, *pair) for quantity, pair in quantities.items()]


def ask_neuron(peer: Peer, case: Case, seed: int) -> tuple[dict, dict, list[float], float]:
    """-> the arrays of this seed, what snnTorch made of them, its rates and its margin."""
    rng = np.random.default_rng([seed, *f"{case.row}, {case.what}".encode()])
    arrays = {"x": rng.uniform(*case.currents, (T, B, *case.shape))}
    arrays["dspikes"], arrays["dmembrane"] = rng.standard_normal((2, T, B, *case.shape))
    arrays |= {f"number/{name}": value for name, value in case.numbers.items()}
    arrays |= {f"weight/{name}": rng.uniform(-0.3, 0.3, shape) for name, shape in recurrent_shapes(case).items()}
    arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    theirs, facts = peer.exchange("neuron", arrays, case=case.description())
    return arrays, theirs, [facts["rate"]], facts["margin"]


def limit_of(gradient: np.ndarray) -> float:
    """-> the limit for a parameter's gradient."""
    return ROUNDING if gradient.size > 1 else SHARED


def recurrent_shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """-> the shapes of the weights through which a case's spikes come back."""
    layer = case.layer()
    return {key: values.shape for key, values in layer.initial_values(np.float32, 0).items() if key.startswith("recurrent.")}


def fires(case: Case) -> bool:
    return case.neuron != "LeakyIntegrator"


def draw(name: str, ask: Callable, judged: bool = True):
    """Ask with seeds 0, 1, ... until rates and margin are fit -> the arrays and what snnTorch made of them."""
    for seed in range(MOST_SEEDS):
        arrays, theirs, rates, margin = ask(seed)
        fit = not judged or (RATES[0] <= min(rates) and max(rates) <= RATES[1])
        if fit and margin >= MARGIN:
            if seed:
                print(f"{name}: seed {seed}")
            return arrays, theirs
    raise ValueError(f"{name}: no seed below {MOST_SEEDS} is fit; the last has rates {rates}, margin {margin:.1e}")


# ---------------------------------------------------------------------------------------------------- small networks


CE_RATE = {"name": "ce_rate_loss", "options": {}}
LOSSES = {
    "ce_rate_loss": [CE_RATE],
    "ce_rate_loss, sum": [{"name": "ce_rate_loss", "options": {"reduction": "sum"}}],
    "ce_count_loss": [{"name": "ce_count_loss", "options": {}}],
    "ce_count_loss, population": [{"name": "ce_count_loss", "options": {"population_code": True, "num_classes": 3}}],
    "mse_count_loss": [{"name": "mse_count_loss", "options": {"correct_rate": 0.8, "incorrect_rate": 0.2}}],
    "mse_count_loss, population": [
        {"name": "mse_count_loss", "options": {"correct_rate": 0.8, "population_code": True, "num_classes": 3}}
    ],
    "ce_max_membrane_loss": [{"name": "ce_max_membrane_loss", "options": {}}],
    "ce_membrane_loss": [{"name": "ce_membrane_loss", "options": {}}],
    "mse_membrane_loss": [{"name": "mse_membrane_loss", "options": {"on_target": 1.5, "off_target": 0.25}}],
    "mse_membrane_loss, sum": [{"name": "mse_membrane_loss", "options": {"reduction": "sum"}}],
    "mse_temporal_loss": [{"name": "mse_temporal_loss", "options": {"on_target": 1, "off_target": T - 1}}],
    "mse_temporal_loss, tolerance": [
        {"name": "mse_temporal_loss", "options": {"on_target": 1, "off_target": T - 1, "tolerance": 2}}
    ],
    "mse_temporal_loss, times": [{"name": "mse_temporal_loss", "options": {"target_is_time": True}}],
    "ce_temporal_loss": [{"name": "ce_temporal_loss", "options": {}}],
    "ce_temporal_loss, reciprocal": [{"name": "ce_temporal_loss", "options": {"inverse": "reciprocal"}}],
    "ce_rate_loss + l1_rate_sparsity": [CE_RATE, {"name": "l1_rate_sparsity", "options": {"Lambda": 1e-3}}],
}
OUTPUT = Case(
    "",
    "",
    "Leaky",
    learning("beta", "threshold"),
    {"beta": spread(0.6, 0.9, (CLASSES,)), "threshold": spread(0.8, 1.2, (CLASSES,))},
)
READOUT = Case("", "", "LeakyIntegrator", learning("beta"), {"beta": spread(0.6, 0.9, (CLASSES,))})


def hidden_cases() -> list[Case]:
    """The second layer of the networks."""
    shape = (HIDDEN,)
    theta, low, high = (spread(*ends, shape) for ends in ((0.6, 1.0), (0.4, 0.7), (0.7, 0.9)))
    one, two = learning("beta", "threshold"), learning("alpha", "beta", "threshold")
    leaky, synaptic = {"beta": high, "threshold": theta}, {"alpha": low, "beta": low[::-1], "threshold": theta}
    variants = {
        "Leaky": ("Leaky", one, leaky),
        "Leaky, at once": ("Leaky", one | {"reset_delay": False}, leaky),
        "Leaky, zero, graded": ("Leaky", one | {"reset_mechanism": "zero"}, leaky | {"graded_spikes_factor": 1.5}),
        "Lapicque": ("Lapicque", learning("threshold"), {"R": 2.0, "C": 1.5, "threshold": theta}),
        "Synaptic": ("Synaptic", two, synaptic),
        "Alpha": ("Alpha", two, {"alpha": high, "beta": low - spread(0.1, 0.1, shape), "threshold": spread(0.3, 0.6, shape)}),
        "RLeaky": ("RLeaky", one | {"linear_features": HIDDEN}, leaky),
        "RLeaky, V": ("RLeaky", one | {"all_to_all": False}, leaky | {"V": spread(-0.6, 0.2, shape)}),
        "RSynaptic": ("RSynaptic", two | {"linear_features": HIDDEN}, synaptic),
    }
    return [Case("", what, *variant, shape=shape) for what, variant in variants.items()]


def check_networks(peer: Peer, backend: str) -> list[Check]:
    """Every loss with every neuron -> checks; and truncated backpropagation."""
    checks = []
    for name, specs in LOSSES.items():
        for hidden in hidden_cases():
            checks += check_network(peer, backend, f"{name} | {hidden.what}", (hidden, OUTPUT), specs, steps=SGD_STEPS)
    for name in ("ce_membrane_loss", "mse_membrane_loss", "ce_max_membrane_loss"):
        case = f"{name} | LeakyIntegrator as readout"
        checks += check_network(peer, backend, case, (hidden_cases()[0], READOUT), LOSSES[name], steps=SGD_STEPS)
    for truncate, hidden in itertools.product(TRUNCATE, hidden_cases()):
        case = f"truncated, K = {truncate} | {hidden.what}"
        checks += check_network(peer, backend, case, (hidden, OUTPUT), [CE_RATE], steps=1, truncate=truncate)
    return checks


def check_network(
    peer: Peer, backend: str, name: str, cases: tuple[Case, Case], specs: list[dict], steps: int, truncate: int | None = None
) -> list[Check]:
    """A small network: its first step's spikes and gradients, the losses of all SGD steps, and the weights after them."""
    loss_fn = our_loss(specs)
    sums = specs[0]["name"] == "ce_membrane_loss" or specs[0]["options"].get("reduction") == "sum"
    lr = SUM_LR if sums else LR
    layers = [case.description() | {"numbers": {k: np.asarray(v).tolist() for k, v in case.numbers.items()}} for case in cases]

    def ask(seed):
        rng = np.random.default_rng([seed, *name.encode()])
        net = make_network(cases, backend, rng)
        arrays = {"x": rng.uniform(0, 1, (T, B, INPUTS)).astype(np.float32), "targets": make_targets(loss_fn, rng)}
        arrays |= {f"weight/{key}": value for key, value in net.state_dict().items()}
        theirs, facts = peer.exchange("network", arrays, layers=layers, loss=specs, steps=steps, lr=lr, truncate=truncate)
        rates = facts["rates"][: 2 if cases[1] is OUTPUT else 1]
        return (net, arrays), theirs, rates, facts["margin"]

    (net, arrays), theirs = draw(name, ask)
    optimizer, losses = sf.optim.SGD(net.parameters(), lr=lr), []
    for step in range(steps):
        net.zero_grad()
        loss, spikes = net.loss_and_grad(arrays["x"], arrays["targets"], loss_fn, truncate=truncate)
        losses.append(loss)
        if step == 0:
            first, gradients = spikes, {p.name: p.grad.copy() for p in net.parameters()}
        optimizer.step()
    quantities = {"spikes": (differing(first, theirs["spikes"]), EXACT)}
    quantities |= {f"d{key}": (relative(g, theirs[f"grad/{key}"]), ROUNDING) for key, g in gradients.items()}
    quantities["loss"] = max(relative(*pair) for pair in zip(losses, theirs["losses"], strict=True)), ROUNDING
    if steps > 1:
        worst = max(relative(p.value, theirs[f"weight/{p.name}"]) for p in net.parameters())
        quantities["weights"] = worst, ROUNDING
    return [Check(name, quantity, *pair) for quantity, pair in quantities.items()]


def make_network(cases: tuple[Case, Case], backend: str, rng: np.random.Generator) -> sf.Sequential:
    """-> the network, with weights at which all of its layers fire."""
    hidden, output = (case.layer() for case in cases)
    net = sf.Sequential(sf.Linear(INPUTS, HIDDEN), hidden, sf.Linear(HIDDEN, CLASSES), output, backend=backend)
    weights = {}
    for name, value in net.state_dict().items():
        if name in ("0.weight", "2.weight"):
            weights[name] = rng.uniform(-0.3, 0.5, value.shape)
        elif name.endswith((".bias", "recurrent.weight")):
            weights[name] = rng.uniform(-0.2, 0.2, value.shape)
    net.load_state_dict(weights, strict=False)
    return net


def make_targets(loss_fn, rng: np.random.Generator) -> np.ndarray:
    """-> labels (B,), or spike times (B, C) where the loss reads those."""
    if loss_fn.target_kind == "spike times":
        return rng.integers(0, T, (B, CLASSES)).astype(np.float32)
    return rng.integers(0, 3, B)  # classes of the population codes; the others have them, too


def our_loss(specs: list[dict]):
    """[{"name", "options"}, ...] -> the sum of these losses of spikeflow."""
    first, *others = (getattr(sf.losses, spec["name"])(**spec["options"]) for spec in specs)
    for other in others:
        first = first + other
    return first


# ---------------------------------------------------------------------------------------------------- faults


def our_answers() -> dict[str, str]:
    """-> what spikeflow gives where snnTorch is wrong: {name of snntorch_record.FAULTS: answer}."""
    return {name: given(function) for name, function in ANSWERS.items()}


def given(function: Callable[[], str]) -> str:
    """-> what the function returns, or its error."""
    try:
        return function()
    except (TypeError, ValueError) as error:
        text = str(error)
        return f"{type(error).__name__}: {text if len(text) <= 50 else text[:47] + '...'}"


def layer_run(layer, x, **options):
    """A layer alone, x (T, B, ...) -> its network, spikes, membrane; both (T, B, ...)."""
    net = sf.Sequential(layer, backend="reference", **options)
    return net, *net.forward(np.asarray(x, net.dtype))


def decay(layer) -> str:
    _, _, membrane = layer_run(layer, [[[1.0]], [[0.0]]])
    return f"decays by {membrane[1, 0, 0] / membrane[0, 0, 0]:.4f}"


def moved() -> str:
    net = sf.Sequential(sf.Lapicque(beta=0.5, learn_beta=True, threshold=9.0), backend="reference")
    net.load_state_dict({"0.beta": np.float32(0.75)})
    _, membrane = net.forward(np.float32([[[1.0]], [[0.0]]]))
    return f"decays by {membrane[1, 0, 0] / membrane[0, 0, 0]:.4f}"


def two_backwards() -> str:
    net, _, membrane = layer_run(sf.Lapicque(beta=0.5, learn_beta=True, threshold=9.0), [[[1.0]]])
    for _ in range(2):
        net.backward(dmembrane=np.ones_like(membrane))
    return "no error"


def learned_alpha() -> str:
    net, _, membrane = layer_run(sf.Alpha(alpha=0.8, beta=0.5, learn_alpha=True), np.ones((3, 1, 1)))
    net.backward(dmembrane=np.ones_like(membrane))
    return f"it learns: dalpha = {net.parameters()[0].grad:.4f}"


def at_once() -> str:
    _, spikes, membrane = layer_run(sf.RSynaptic(0.5, 0.5, V=0.5, all_to_all=False, reset_delay=False), [[[1.25]]])
    return f"spike {spikes[0, 0, 0]:g}, membrane {membrane[0, 0, 0]:g}"


def new_stream() -> str:
    net = sf.Sequential(sf.RSynaptic(0.5, 0.5, V=0.5, all_to_all=False), backend="reference")
    x = np.full((1, 1, 1), 1.25, np.float32)
    net.stream(x)
    same = np.array_equal(net.stream(np.zeros_like(x))[1], [[[0]]])
    return "no state hides in a layer" if same else "spikes left"


def own_names() -> str:
    return ", ".join(sf.Sequential(sf.RLeaky(beta=0.5, V=0.5, all_to_all=False)).state_dict())


def other_shape() -> str:
    net = sf.Sequential(sf.Leaky(beta=0.5), backend="reference")
    state = net.stream(np.full((1, 2, 1), 0.5, np.float32))[2]
    net.stream(np.zeros((1, 3, 1), np.float32), state)
    return "no error"


def in_float64() -> str:
    _, spikes, membrane = layer_run(sf.Leaky(beta=0.5), np.ones((1, 1, 1)), dtype=np.float64)
    return f"membrane {membrane.dtype}, spikes {spikes.dtype}"


def graded_winner() -> str:
    _, spikes, _ = layer_run(sf.Leaky(beta=0.5, inhibition=True, graded_spikes_factor=3), np.full((1, 1, 2), 2.0))
    return f"the winner's spike is {spikes.max():g}"


def image_winner() -> str:
    try:
        layer_run(sf.Leaky(beta=0.5, inhibition=True), np.ones((1, 2, 3, 2, 2)))
    except ValueError:
        return "refused: ValueError"
    return "no error"


def factors(function, *numbers: float) -> str:
    return ", ".join(f"{factor:g}" for factor in function.of_array(function.derivative, np.float32(numbers)))


RECORD, LABELS, WEIGHT = np.float32([[[1, 0], [1, 0], [0, 1]]] * 4), np.array([0, 1, 1]), [1, 3]


def loss_of(loss_fn) -> str:
    return f"{loss_fn(RECORD, LABELS)[0]:.6f}"


def off_target() -> str:
    loss, _ = sf.losses.mse_membrane_loss(on_target=1, off_target=-0.5)(np.float32([[[1, -0.5]]]), [0])
    return f"{loss:g} at the target itself"


def late_target() -> str:
    loss, _ = sf.losses.mse_temporal_loss()(np.float32([[[1, 0]], [[0, 0]], [[0, 1]]]), [0])
    return f"{loss:g} at the target itself"


def time_var_targets() -> str:
    loss_fn = sf.losses.mse_membrane_loss(time_var_targets=True)
    return f"{loss_fn(np.ones((4, 3, 2), np.float32), np.zeros((4, 3, 2)))[0]:g}"


def target_kept() -> str:
    targets = np.array([[-1.0, 0.0]])
    sf.losses.mse_temporal_loss(target_is_time=True)(np.ones((4, 1, 2), np.float32), targets)
    return f"times [-1, 0] are {targets[0].tolist()} after the call"


def multi_spike() -> str:
    record = np.float32([[[1, 0]], [[0, 0]], [[1, 1]], [[0, 0]], [[0, 0]]])
    return f"second spike at {sf.losses.temporal.spike_times(record, 2)[1, 0, 0]}"


ANSWERS = {
    "Lapicque(beta=0.5)": lambda: decay(sf.Lapicque(beta=0.5, threshold=9.0)),
    "Lapicque(learn_beta=True), beta moved to 0.75": moved,
    "Lapicque(learn_beta=True), 2nd backward": two_backwards,
    "Alpha(learn_alpha=True)": learned_alpha,
    "RSynaptic(reset_delay=False)": at_once,
    "RSynaptic.reset_hidden()": new_stream,
    "RLeaky's V in the state dict": own_names,
    "RLeaky(kernel_size=2)": lambda: str(sf.RLeaky(beta=0.5, conv2d_channels=1, kernel_size=2)),
    "Leaky, a state of 2 samples for 3": other_shape,
    "Leaky in float64": in_float64,
    "Leaky, inhibition, graded_spikes_factor=3": graded_winner,
    "Leaky, inhibition of images": image_winner,
    "triangular() at -1/2, 1/2": lambda: factors(sf.surrogate.triangular(), -0.5, 0.5),
    "LSO() at -1/2, 1/2": lambda: factors(sf.surrogate.LSO(), -0.5, 0.5),
    "sigmoid() at -3.5, -4": lambda: factors(sf.surrogate.sigmoid(), -3.5, -4),
    "ce_rate_loss, population code": lambda: loss_of(sf.losses.ce_rate_loss(population_code=True, num_classes=2)),
    "ce_count_loss, class weights": lambda: loss_of(sf.losses.ce_count_loss(weight=WEIGHT)),
    "ce_count_loss, class weights, sum": lambda: loss_of(sf.losses.ce_count_loss(weight=WEIGHT, reduction="sum")),
    "mse_count_loss, class weights": lambda: loss_of(sf.losses.mse_count_loss(weight=WEIGHT)),
    "mse_membrane_loss(off_target=-0.5)": off_target,
    "mse_membrane_loss(time_var_targets=True)": time_var_targets,
    "mse_temporal_loss(), off_target -1": late_target,
    "mse_temporal_loss(target_is_time=True)": target_kept,
    "mse_temporal_loss(multi_spike=True)": multi_spike,
}


# ---------------------------------------------------------------------------------------------------- report


def main(argv: list[str] | None = None) -> int:
    """Run all comparisons -> exit status."""
    args = parse(argv)
    sf.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder, harness.Worker(args.peer_python, WORKER) as worker:
        ours, theirs = harness.environment(args.threads), worker.ask("start", threads=args.threads)
        environment = {"spikeflow": ours, "peer": theirs}
        for side, facts in environment.items():
            print(f"{side}\n{harness.describe(facts)}\n")
        peer = Peer(worker, folder)
        checks = check_neurons(peer, args.backend) + check_networks(peer, args.backend)
        theirs = worker.ask("faults")
    ours = our_answers()
    print("\n" + harness.table(["case", "cases", *COLUMNS, "verdict"], rows(checks)))
    faults = [[name, theirs[name], ours[name]] for name in theirs]
    print("\nwhere snnTorch is wrong, not judged")
    print(harness.table(["case", "snnTorch", "spikeflow"], faults))
    failed = [check for check in checks if check.verdict == "FAIL"]
    for check in failed:
        print(f"FAIL {check.case}, {check.quantity}: {check.value:.1e}")
    count = len({check.case for check in checks})
    print(f"\n{count} cases, {len(checks)} numbers judged, {len(failed)} failed; {len(faults)} faults of snnTorch shown")
    results = [{**asdict(check), "verdict": check.verdict} for check in checks]
    harness.write_json(args.json, {"environment": environment, "checks": results, "faults": faults})
    return 1 if failed else 0


def parse(argv) -> argparse.Namespace:
    """-> the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peer-python", default=sys.executable, metavar="PATH", help="interpreter that can import snnTorch")
    add("--threads", type=int, default=1, help="for both; default: 1, the arrays are small")
    add("--backend", choices=("cpu", "reference"), default="cpu", help="spikeflow's; default: cpu")
    add("--json", type=Path, metavar="PATH", help="write all numbers to this file")
    return parser.parse_args(argv)


def rows(checks: list[Check]) -> list[list[str]]:
    """-> the table's rows: the worst of the cases that share a row, by column."""
    groups: dict[str, list[Check]] = {}
    for check in checks:
        groups.setdefault(check.case.partition(" | ")[0], []).append(check)
    table = []
    for row, members in groups.items():
        worst: dict[str, list] = {}
        for check in members:
            worst.setdefault(check.quantity if check.quantity in COLUMNS else "dparameters", []).append(check.value)
        cells = ["" if name not in worst else shown(max(worst[name])) for name in COLUMNS]
        verdict = "FAIL" if any(check.verdict == "FAIL" for check in members) else "OK"
        table.append([row, str(len({check.case for check in members})), *cells, verdict])
    return table


def shown(value: float) -> str:
    return f"{value}" if isinstance(value, int) else f"{value:.1e}"


def largest(a: np.ndarray, b: np.ndarray) -> float:
    """-> the largest difference, relative to the largest number of b; 0 if there is none."""
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} differ")
    error, scale = float(np.abs(a - b).max()), float(np.abs(b).max())
    return 0.0 if error == 0 else error / scale if scale else float("inf")


def part(arrays: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """-> the entries "kind/NAME" by NAME."""
    return {key.partition("/")[2]: value for key, value in arrays.items() if key.startswith(f"{kind}/")}


if __name__ == "__main__":
    sys.exit(main())
