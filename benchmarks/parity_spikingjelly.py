"""Compare spikeflow with SpikingJelly on its Fashion-MNIST network, number by number.

    python benchmarks/parity_spikingjelly.py                                      this Python can import both
    python benchmarks/parity_spikingjelly.py --peer-python ~/peers/bin/python     SpikingJelly in its own environment

The network is that of fashion_step.py, with spikeflow's weights on both sides, initial and trained, in training and in evaluation
mode. Images are those of Fashion-MNIST, or MNIST's digits where it is not found.

layer       Each layer alone, on what SpikingJelly's layer received: its input, and the gradient of its output. Neurons, pools and
            Flatten must be identical, all else agrees to rounding. ``static``: the input of one step, which does not change, is
            given once, and gradients are summed over time. ``bits``: spikes are given as such.
part        Layers that spikeflow runs together: a neuron, its pool, and the layer that reads the spikes. A single wrong spike
            among millions would show in that layer's output. With the normalisation before the neuron, whose sums round
            differently, a few spikes may differ: 2e-3.
end to end  The same weights and batch through the whole network, and one step of SGD. Sums round differently, so that a membrane
            may cross its threshold a step later, which a later layer multiplies; of 5,120 output spikes 5 may differ, and of the
            spikes of each layer before ("hidden") 1 in 10,000. An output spike changes the loss by 3 / (T B 10) at most, T steps
            of B images. Gradients, and the parameters after the step, are judged only if no spike of any layer differs: one of
            them moves gradients by more than rounding does.
float64     The same in double precision, in which nothing crosses a threshold by rounding, with fewer channels and three steps of
            SGD, for each class of neurons: spikes are identical, losses, gradients, running estimates and parameters agree
            to 1e-9.
dyadic      Evaluation mode, float32. Weights, images and statistics are multiples of 1/256 and the normalisations divide by
            powers of 2, so that every sum is exact in any order. Spikes and membranes of all neurons must be identical.
SGD         spikeflow's optimizer on SpikingJelly's gradients of three steps: the parameters after them.
neurons     Few channels, for IFNode, LIFNode and ParametricLIFNode, with decayed input or without, with every reset, detached
            or not: layer, part and end to end, in training mode.

A row of the table holds the worst of its cases. Errors are |a - b| / |b| in the Euclidean norm, or counts of entries that differ;
numbers in parentheses are not judged. Rounding is 1e-5, for losses and running estimates 1e-6, but for two gradients 1e-4, whose
terms cancel where their rounding errors do not: that of ParametricLIFNode's w, one number for a whole layer, and those of
convolutions, sums over all steps, images and pixels. PyTorch rounds these more than spikeflow does, so that spikeflow's are
compared with a sum in float64, too: 1e-6. End to end the w of all layers are compared as one vector, but in float64 each by
itself. The exit status is 1 if anything exceeds its limit.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import fashion
import harness  # before numpy
import numpy as np
from parity import EXACT, ROUNDING, Check, Peer, differing, dyadic, is_binary, relative

import spikeflow as sf
from spikeflow.layers import Neuron

WORKER = Path(__file__).with_name("spikingjelly_record.py")
T = fashion.NUM_STEPS
LAYER_BATCH, SMALL_BATCH, FEW_CHANNELS = 32, 16, 8
DOUBLE, FINE, SUMMED, HIDDEN, FLIPPED = 1e-9, 1e-6, 1e-4, 1e-4, 2e-3
LEAST_RATE, MOST_RATE = 0.02, 0.8
TIME_CONSTANTS = {"IFNode": {}, "LIFNode": {"tau": 1.75}, "ParametricLIFNode": {"init_tau": 1.75}}  # of the small networks
SGD_STEPS = 3
NORMALISATIONS = ("1", "5")
# So that all layers fire: factors of initial weights, and from where the normalisations' numbers are drawn.
GAINS = {"9.weight": 6.0, "11.weight": 12.0}
SPREADS = {"weight": (0.5, 2), "bias": (-0.2, 0.8), "running_mean": (-0.2, 0.2), "running_var": (0.5, 2)}
COLUMNS = ("spikes", "hidden", "membrane", "y", "dx", "dparameters", "statistics", "loss", "parameters")
WHOLE_PARTS = ((2, 5), (6, 10), (10, 12))  # a neuron, its pool, and the layer that reads the spikes
NORMALISED_PARTS = ((1, 5), (5, 10))  # the same with the normalisation before it
FIRST_NEURON = 2  # up to which a constant input stays constant

# ---------------------------------------------------------------------------------------------------- what is compared


@dataclass(frozen=True)
class Neurons:
    """The neurons of a network: a class of both libraries, and its options."""

    name: str = "IFNode"
    options: dict = field(default_factory=dict)

    def layer(self) -> Neuron:
        """-> spikeflow's."""
        return getattr(sf, self.name)(surrogate_function=sf.surrogate.ATan(), **self.options)


@dataclass(frozen=True)
class Setup:
    """A network with its weights, and a batch."""

    weights: dict[str, np.ndarray]
    images: np.ndarray  # (B, 1, 28, 28)
    labels: np.ndarray  # (B,)
    training: bool = True
    neurons: Neurons = Neurons()
    eps: float = 1e-5

    def layers(self) -> list:
        """-> spikeflow's, new ones."""
        layers = fashion.layers(len(self.weights["0.weight"]), self.neurons.layer)
        for layer in layers:
            if isinstance(layer, sf.BatchNorm2d):
                layer.eps = self.eps
        return layers

    def part(self, lo: int, hi: int) -> sf.Sequential:
        """-> layers lo ... hi - 1 with their weights.

        A network ends with a neuron. Where the part does not, one follows that only passes on: with beta 0 and a threshold out of
        reach its membrane is the part's output, and the membrane's gradient the output's.
        """
        layers = self.layers()[lo:hi]
        reader = [] if isinstance(layers[-1], Neuron) else [sf.Leaky(beta=0.0, threshold=1e30, reset_mechanism="none")]
        net = sf.Sequential(*layers, *reader, dtype=self.images.dtype)
        for i, layer in enumerate(layers, lo):
            for key, parameter in layer.params.items():
                parameter.value = self.weights[f"{i}.{key}"]
        return net.train(self.training)

    def whole(self) -> sf.Sequential:
        """-> the network."""
        return self.part(0, len(self.layers()))

    def neuron_positions(self) -> list[int]:
        """-> where the layers of neurons are."""
        return [i for i, layer in enumerate(self.layers()) if isinstance(layer, Neuron)]

    def ask(self, peer: Peer, **options) -> dict[str, np.ndarray]:
        """-> what SpikingJelly makes of it: see ``spikingjelly_record.record``."""
        return peer.ask(
            "record", self.weights | {"images": self.images, "labels": self.labels}, num_steps=T, training=self.training,
            neurons={"name": self.neurons.name, "options": self.neurons.options}, eps=self.eps,
            lr=fashion.LEARNING_RATE, momentum=fashion.MOMENTUM, **options,
        )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- layer by layer


def check_layers(peer: Peer, setup: Setup, name: str) -> list[Check]:
    """Each layer alone, and each part, given what the peer's was given, forward and backward."""
    theirs, layers, checks = setup.ask(peer, watched=True), setup.layers(), []
    for i, layer in enumerate(layers):
        row = f"layer {i} {type(layer).__name__}"
        checks += check_part(f"{row} | {name}", setup, theirs, i, i + 1)
        if i <= FIRST_NEURON:
            checks += check_part(f"{row}, static | {name}", setup, theirs, i, i + 1, static=True)
        if isinstance(layer, sf.Conv2d):
            checks += check_convolution(f"{row} | {name}", setup, theirs, i)
    for lo, hi in ((4, 5), (8, 10)):
        checks += check_part(f"{title(layers[lo:hi], lo)}, bits | {name}", setup, theirs, lo, hi, bits=True)
    for lo, hi in (*WHOLE_PARTS, *NORMALISED_PARTS):
        row, limit = title(layers[lo:hi], lo), ROUNDING if (lo, hi) in WHOLE_PARTS else FLIPPED
        checks += check_part(f"{row} | {name}", setup, theirs, lo, hi, limit)
        if lo <= FIRST_NEURON:
            checks += check_part(f"{row}, static | {name}", setup, theirs, lo, hi, limit, static=True)
    return checks


def title(layers: list, lo: int) -> str:
    """-> a part's name in the table."""
    names = " ".join(type(layer).__name__ for layer in layers)
    return f"part {lo} {names}" if len(layers) > 1 else f"layer {lo} {names}"


def check_part(
    case: str, setup: Setup, theirs: dict, lo: int, hi: int, limit: float = ROUNDING, static: bool = False, bits: bool = False
) -> list[Check]:
    """Layers lo ... hi - 1, given the input of the peer's layer lo and the gradient of its layer hi - 1's output.

    ``static``: the input of one step, shown at every step; its gradient is summed over time. ``bits``: the input as bool.
    """
    net = setup.part(lo, hi)
    x, y, dx, dy = (theirs[f"{what}/{i}"] for what in ("activation", "gradient") for i in (lo, hi))
    if bits and not is_binary(x):
        raise ValueError(f"{case}: the input must be spikes")
    given = x[0] if static else x.astype(bool) if bits else x
    spikes, membrane = net.forward(given, num_steps=T if static else None)
    fires = hi - lo == len(net.layers)  # it ends with a neuron of its own
    found = net.backward(**{"dspikes" if fires else "dmembrane": dy}, input_grad=True)
    pairs = {"dx": (found, dx.sum(0) if static else dx)}
    pairs |= {"spikes": (spikes, y), "membrane": (membrane, theirs[f"membrane/{hi - 1}"])} if fires else {"y": (membrane, y)}
    moves = hi - lo == 1 and not fires and not net.layers[0].params
    exact = [key for key in pairs if moves or key in ("spikes", "membrane")]
    checks = [
        Check(case, key, differing(*pair), EXACT) if key in exact else Check(case, key, relative(*pair), limit)
        for key, pair in pairs.items()
    ]
    return checks + compare_gradients(case, gradients(net, lo), theirs, limit) + compare_statistics(case, net, theirs, lo)


def gradients(net: sf.Sequential, lo: int = 0) -> dict[str, np.ndarray]:
    """-> {name in the whole network: gradient} of the parameters of a part that begins at layer lo."""
    return {name: parameter.grad.copy() for name, parameter in named(net, lo).items() if parameter.trainable}


def named(net: sf.Sequential, lo: int) -> dict[str, sf.layers.Parameter]:
    """-> {name in the whole network: parameter}, running estimates among them, of a part that begins at layer lo."""
    return {f"{i}.{key}": parameter for i, layer in enumerate(net.layers, lo) for key, parameter in layer.params.items()}


def compare_gradients(case: str, ours: dict[str, np.ndarray], theirs: dict, limit: float | None) -> list[Check]:
    """The gradients of parameters beside those of the peer's first step; in single precision all the w together."""
    pairs = {name: (gradient, theirs[f"grad/{name}"][0]) for name, gradient in ours.items()}
    numbers = [name for name, gradient in ours.items() if gradient.ndim == 0]
    if len(numbers) > 1 and limit != DOUBLE:
        pairs["w"] = np.array([pairs.pop(name) for name in numbers]).T
    checks = []
    for name, pair in pairs.items():
        summed = limit == ROUNDING and np.ndim(pair[0]) in (0, 4)
        checks.append(Check(case, f"d{name}", relative(*pair), SUMMED if summed else limit))
    return checks


def compare_statistics(case: str, net: sf.Sequential, theirs: dict, lo: int = 0, limit: float = FINE) -> list[Check]:
    """The running estimates of the normalisations of a part that begins at layer lo, after the peer's last step."""
    return [
        Check(case, "statistics", relative(parameter.value, theirs[f"after/{name}"]), limit)
        for name, parameter in named(net, lo).items()
        if not parameter.trainable
    ]


def check_convolution(case: str, setup: Setup, theirs: dict, i: int) -> list[Check]:
    """The weight's gradient of a convolution beside the one that is computed in float64 from the same numbers."""
    x, dy = theirs[f"activation/{i}"], theirs[f"gradient/{i + 1}"]
    net, exact = setup.part(i, i + 1), exact_dweight(x, dy)
    net.forward(x)
    net.backward(dmembrane=dy)
    ours, peers = (relative(gradient, exact) for gradient in (net.parameters()[0].grad, theirs[f"grad/{i}.weight"][0]))
    print(f"{case}: weight's gradient beside float64: spikeflow {ours:.1e}, SpikingJelly {peers:.1e}")
    return [Check(case, f"d{i}.weight beside float64", ours, FINE)]


def exact_dweight(x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """x (T, B, C, H, W), dy (T, B, O, H, W) -> the weight's gradient (O, C, 3, 3) of a convolution with padding 1, in float64."""
    x, dy = (array.reshape(-1, *array.shape[2:]).astype(np.float64) for array in (x, dy))
    H, W = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    shifts = itertools.product(range(3), repeat=2)
    parts = [np.tensordot(dy, padded[:, :, i : i + H, j : j + W], ((0, 2, 3), (0, 2, 3))) for i, j in shifts]
    return np.stack(parts, -1).reshape(*parts[0].shape, 3, 3)


# ---------------------------------------------------------------------------------------------------- end to end


def check_end_to_end(
    peer: Peer, setup: Setup, case: str, limit: float = ROUNDING, most: int = 0, steps: int = 1
) -> tuple[list[Check], dict[str, float]]:
    """The whole network, and steps of SGD -> checks, and how often each layer of the peer's fires.

    ``most`` output spikes may differ. Of spikes and gradients those of the first step count.
    """
    theirs, net = setup.ask(peer, steps=steps), setup.whole()
    fired = theirs[f"fired/{setup.neuron_positions()[-1]}"]
    losses, spikes, first = descend(net, setup, steps)
    wrong, hidden = differing(spikes != 0, fired), hidden_spikes(setup, theirs)
    judged = limit if wrong == 0 and not any(hidden) else None
    checks = [Check(case, "spikes", wrong, most), *compare_gradients(case, first, theirs, judged)]
    checks += [Check(case, "hidden", share, HIDDEN if most else EXACT) for share in hidden]
    far = min(limit, FINE) + wrong * 3 / spikes.size
    checks += [Check(case, "loss", abs(a - b), far) for a, b in zip(losses, theirs["losses"], strict=True)]
    if setup.training:
        checks += compare_statistics(case, net, theirs, limit=min(limit, FINE))
        checks += [Check(case, "parameters", value, judged) for value in parameter_errors(net, theirs)]
    else:
        predicted = setup.whole().predict(setup.images, num_steps=T)
        checks.append(Check(case, "spikes", differing(predicted != 0, fired), most))
    return checks, rates(theirs)


def descend(net: sf.Sequential, setup: Setup, steps: int) -> tuple[list[float], np.ndarray, dict[str, np.ndarray]]:
    """Steps of SGD on one batch -> all losses; output spikes and gradients of the first step."""
    sgd, loss_fn, losses = fashion.optimizer(net), sf.losses.mse_rate_loss(), []
    for step in range(steps):
        net.zero_grad()
        loss, spikes = net.loss_and_grad(setup.images, setup.labels, loss_fn, num_steps=T)
        losses.append(loss)
        if step == 0:
            first = spikes, gradients(net)
        sgd.step()
    return losses, *first


def parameter_errors(net: sf.Sequential, theirs: dict) -> list[float]:
    """-> how far each parameter is from the peer's after its last step."""
    return [relative(parameter.value, theirs[f"after/{parameter.name}"]) for parameter in net.parameters()]


def hidden_spikes(setup: Setup, theirs: dict) -> list[float]:
    """-> of each layer of neurons but the last, the share of its spikes that differ."""
    shares = []
    for i in setup.neuron_positions()[:-1]:
        spikes, _ = setup.part(0, i + 1).forward(setup.images, num_steps=T)
        shares.append(differing(spikes != 0, theirs[f"fired/{i}"]) / spikes.size)
    return shares


def check_dyadic(peer: Peer, setup: Setup) -> list[Check]:
    """Evaluation mode, every sum exact."""
    rng = np.random.default_rng(0)
    weights = {name: dyadic(value) for name, value in lively(setup.weights).items()}
    for i in NORMALISATIONS:
        C = len(weights[f"{i}.weight"])
        weights[f"{i}.weight"] = rng.choice(np.float32([0.5, 1, 2]), C)
        weights[f"{i}.bias"] = dyadic(rng.uniform(-0.25, 0.5, C))
        weights[f"{i}.running_mean"] = dyadic(rng.uniform(-0.25, 0.25, C))
        weights[f"{i}.running_var"] = rng.choice(np.float32([0.25, 1]), C)
    setup = replace(setup, weights=weights, images=dyadic(setup.images), training=False, eps=0.0)
    checks, fired = check_end_to_end(peer, setup, "dyadic")
    print_rates("dyadic", fired)
    refuse_idle("dyadic", fired)
    theirs, ours = setup.ask(peer, watched=True), setup.whole().record(setup.images, num_steps=T)
    for i in setup.neuron_positions():
        pairs = {"spikes": f"activation/{i + 1}", "membrane": f"membrane/{i}"}
        checks += [Check("dyadic", what, differing(ours[str(i)][what], theirs[key]), EXACT) for what, key in pairs.items()]
    return checks


def check_sgd(theirs: dict, setup: Setup) -> list[Check]:
    """spikeflow's optimizer on the peer's gradients, whose parameters it must then reach."""
    net = setup.whole()
    sgd = fashion.optimizer(net)
    for step in range(len(theirs["losses"])):
        for parameter in net.parameters():
            parameter.grad = theirs[f"grad/{parameter.name}"][step]
        sgd.step()
    return [Check("SGD", "parameters", value, 1e-7) for value in parameter_errors(net, theirs)]


# ---------------------------------------------------------------------------------------------------- neurons


def neuron_cases() -> dict[str, list[Neurons]]:
    """-> the neurons to compare, by row."""
    resets = {"hard": {}, "hard to -1/4": {"v_reset": -0.25, "v_threshold": 0.875}, "soft": {"v_reset": None}}
    cases: dict[str, list[Neurons]] = {}
    for (name, constant), (reset, numbers), decay, detach in itertools.product(
        TIME_CONSTANTS.items(), resets.items(), (True, False), (False, True)
    ):
        if name == "IFNode" and not decay:
            continue
        row = f"{name}, {reset}" + ("" if decay else ", input not decayed")
        options = constant | numbers | {"detach_reset": detach} | ({} if name == "IFNode" else {"decay_input": decay})
        cases.setdefault(row, []).append(Neurons(name, options))
    return cases


def check_neurons(peer: Peer, images: np.ndarray, labels: np.ndarray) -> list[Check]:
    """All neurons in a small network: alone, in parts, end to end."""
    checks = []
    for row, cases in neuron_cases().items():
        for neurons in cases:
            setup = small(images, labels, neurons)
            name = f"{row} | {'detached' if neurons.options['detach_reset'] else 'not detached'}"
            theirs = setup.ask(peer, watched=True)
            checks += check_part(f"{name}, static", setup, theirs, FIRST_NEURON, FIRST_NEURON + 1, static=True)
            for i in setup.neuron_positions():
                checks += check_part(f"{name}, layer {i}", setup, theirs, i, i + 1)
            for lo, hi in WHOLE_PARTS:
                checks += check_part(f"{name}, part {lo}", setup, theirs, lo, hi)
            more, fired = check_end_to_end(peer, setup, f"{name}, end to end")
            refuse_idle(name, fired)
            checks += more
        print_rates(row, fired)
    return checks


def small(images: np.ndarray, labels: np.ndarray, neurons: Neurons, channels: int = FEW_CHANNELS, dtype=np.float32) -> Setup:
    """-> a network of few channels, with weights and statistics at which all its layers fire, and a small batch."""
    rng = np.random.default_rng(1)
    net = fashion.network(channels, neurons.layer)
    weights = lively(net.state_dict())
    for name, value in weights.items():
        position, _, key = name.partition(".")
        if position in NORMALISATIONS and key in SPREADS:
            weights[name] = rng.uniform(*SPREADS[key], value.shape)
        if value.dtype == np.float32:
            weights[name] = weights[name].astype(dtype)
    return Setup(weights, images[:SMALL_BATCH].astype(dtype), labels[:SMALL_BATCH], neurons=neurons)


def lively(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """-> weights at which all layers fire."""
    return {name: value * GAINS[name] if name in GAINS else value for name, value in weights.items()}


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
        checks = compare_all(Peer(worker, folder), args)
    print("\n" + harness.table(["case", "cases", *COLUMNS, "verdict"], rows(checks)))
    failed = [check for check in checks if check.verdict == "FAIL"]
    for check in failed:
        print(f"FAIL {check.case}, {check.quantity}: {check.value:.1e} above {check.limit:.1e}")
    judged = [check for check in checks if check.limit is not None]
    print(f"\n{len({check.case for check in checks})} cases, {len(judged)} numbers judged, {len(failed)} failed")
    results = [{**asdict(check), "verdict": check.verdict} for check in checks]
    harness.write_json(args.json, {"environment": environment, "channels": args.channels, "checks": results})
    return 1 if failed else 0


def compare_all(peer: Peer, args) -> list[Check]:
    """-> all checks."""
    dataset, loader = fashion.batches(args.data_dir)
    images, labels = next(iter(loader))
    net = fashion.network(args.channels)
    initial = net.state_dict()
    loss = fashion.train(net, loader, args.iterations)
    print(f"{dataset}; {args.channels} channels; trained for {args.iterations} iterations: loss {loss:.4f}")
    checks = []
    for (name, weights), training in itertools.product({"initial": initial, "trained": net.state_dict()}.items(), (True, False)):
        setup = Setup(weights, images, labels, training)
        mode = f"{name}, {'training' if training else 'evaluation'}"
        part = replace(setup, images=images[:LAYER_BATCH], labels=labels[:LAYER_BATCH])
        checks += check_layers(peer, part, mode)
        most = T * len(labels) * fashion.CLASSES // 1024  # 5 of 5,120
        more, fired = check_end_to_end(peer, setup, f"end to end, {mode}", most=most)
        print_rates(mode, fired)
        checks += more
    checks += check_dyadic(peer, Setup(initial, images[:SMALL_BATCH], labels[:SMALL_BATCH]))
    for name, constant in TIME_CONSTANTS.items():
        double = small(images, labels, Neurons(name, constant), 2 * FEW_CHANNELS, np.float64)
        more, fired = check_end_to_end(peer, double, f"float64 | {name}", DOUBLE, steps=SGD_STEPS)
        refuse_idle(f"float64, {name}", fired)
        checks += more
    setup = small(images, labels, Neurons())
    checks += check_sgd(setup.ask(peer, steps=SGD_STEPS), setup)
    return checks + check_neurons(peer, images, labels)


def parse(argv) -> argparse.Namespace:
    """-> the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, cores = parser.add_argument, harness.available_cores()
    add("--peer-python", default=sys.executable, metavar="PATH", help="interpreter that can import SpikingJelly")
    add("--threads", type=int, default=cores, help="for both; default: all cores")
    add("--channels", type=int, default=fashion.CHANNELS, help="of the large network")
    add("--iterations", type=int, default=30, help="of the training that makes the trained weights")
    add("--data-dir", type=Path, metavar="FOLDER", help="of Fashion-MNIST's files; MNIST's digits where they are not found")
    add("--json", type=Path, metavar="PATH", help="write all numbers to this file")
    return parser.parse_args(argv)


def rows(checks: list[Check]) -> list[list[str]]:
    """-> the table's rows: the worst of the cases that share a row, by column."""
    groups: dict[str, list[Check]] = {}
    for check in checks:
        groups.setdefault(check.case.partition(" | ")[0], []).append(check)
    table = []
    for row, members in groups.items():
        columns: dict[str, list[Check]] = {}
        for check in members:
            columns.setdefault(check.quantity if check.quantity in COLUMNS else "dparameters", []).append(check)
        cells = [worst(columns[name]) if name in columns else "" for name in COLUMNS]
        verdict = "FAIL" if any(check.verdict == "FAIL" for check in members) else "OK"
        table.append([row, str(len({check.case for check in members})), *cells, verdict])
    return table


def worst(checks: list[Check]) -> str:
    """-> the largest value, in parentheses if none of them is judged."""
    value = max(check.value for check in checks)
    shown = f"{value}" if isinstance(value, int) else f"{value:.1e}"
    return shown if any(check.limit is not None for check in checks) else f"({shown})"


def rates(theirs: dict) -> dict[str, float]:
    """-> how often the neurons of each layer fire, in spikes a neuron and step."""
    return {key.partition("/")[2]: float(fired.mean()) for key, fired in theirs.items() if key.startswith("fired/")}


def print_rates(name: str, fired: dict[str, float]) -> None:
    """Print how often the neurons of each layer fire."""
    print(f"{name}: spikes a neuron and step: " + ", ".join(f"layer {i} {rate:.4f}" for i, rate in fired.items()))


def refuse_idle(name: str, fired: dict[str, float]) -> None:
    """ValueError if a layer hardly ever or nearly always fires: to compare it would say little."""
    if not all(LEAST_RATE <= rate <= MOST_RATE for rate in fired.values()):
        raise ValueError(f"{name}: all layers must fire at {LEAST_RATE} to {MOST_RATE} of all steps, got {fired}")


if __name__ == "__main__":
    sys.exit(main())
