"""Compare spikeflow with snnTorch, number by number.

    python benchmarks/parity.py                                      this Python can import both
    python benchmarks/parity.py --peer-python ~/peers/bin/python     snnTorch in its own environment

The network is Tutorial 6's (see train_step.py), with spikeflow's weights on both sides. parity_neurons.py compares all neurons
and losses. Three comparisons:

dyadic      Weights and images are multiples of 1/256, so that every sum of a convolution is exact in any order. Spikes
            and membranes of all neurons must then be identical, loss and gradients agree to rounding.
layer       Ordinary weights, initial and trained. Here sums round differently, a membrane may cross its threshold a
            step later, and one such spike changes everything after it. So each layer is compared alone, on what
            snnTorch's layer received: its input, and the gradient of its output.
end to end  The same weights through the whole network: how many output spikes differ, and what it does to the loss.
            Gradients are shown and not judged, for the reason above.

Errors are |a - b| / |b| in the Euclidean norm, or counts of entries that differ. The exit status is 1 if any exceeds
its limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import harness  # before numpy
import numpy as np
import tutorial6

import spikeflow as sf

WORKER = Path(__file__).with_name("snntorch_record.py")
NUM_STEPS, SMALL_BATCH = 50, 16
NEURONS = (2, 5, 8)
EXACT, ROUNDING = 0, 1e-5
DYADIC_SCALES = {"0": 4.0, "3": 4.0, "7": 4.0}  # so that all three layers of neurons fire


@dataclass(frozen=True)
class Check:
    """One compared number; a limit of None means that it is shown only."""

    case: str
    quantity: str
    value: float
    limit: float | None

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return "not judged"
        return "OK" if self.value <= self.limit else "FAIL"  # NaN fails

    def row(self) -> list[str]:
        """-> its cells in the table."""
        shown = f"{self.value}" if isinstance(self.value, int) else f"{self.value:.1e}"
        return [self.case, self.quantity, shown, "" if self.limit is None else f"{self.limit:g}", self.verdict]


class Peer:
    """snnTorch in its child process; arrays go to and fro in files."""

    def __init__(self, worker: harness.Worker, folder: str):
        self.worker = worker
        self.source, self.target = (str(Path(folder) / name) for name in ("source.npz", "target.npz"))

    def ask(self, request: str, arrays: dict[str, np.ndarray], **arguments) -> dict[str, np.ndarray]:
        """Send arrays and arguments -> the arrays that come back."""
        return self.exchange(request, arrays, **arguments)[0]

    def exchange(self, request: str, arrays: dict[str, np.ndarray], **arguments) -> tuple[dict[str, np.ndarray], Any]:
        """Send arrays and arguments -> the arrays that come back, and what the request returned."""
        np.savez(self.source, **arrays)
        answer = self.worker.ask(request, source=self.source, target=self.target, **arguments)
        with np.load(self.target, allow_pickle=False) as file:
            return dict(file), answer

    def network(self, weights, images, labels, only: list[str] | None = None) -> dict[str, np.ndarray]:
        """Run the network: see ``snntorch_record.run`` for what comes back."""
        arrays = {**weights, "images": images, "labels": labels}
        return self.ask("record", arrays, num_steps=NUM_STEPS, beta=tutorial6.BETA, only=only)


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
        checks = check_dyadic(peer)
        for name, weights in (("initial", tutorial6.network().state_dict()), ("trained", trained(args.iterations))):
            checks += check_layers(peer, name, weights)
            checks += check_end_to_end(peer, name, weights)
    print("\n" + harness.table(["case", "quantity", "value", "limit", "verdict"], [check.row() for check in checks]))
    failed = [check for check in checks if check.verdict == "FAIL"]
    judged = [check for check in checks if check.limit is not None]
    print(f"\n{len(judged)} numbers judged, {len(failed)} failed")
    results = [{**asdict(check), "verdict": check.verdict} for check in checks]
    harness.write_json(args.json, {"environment": environment, "checks": results})
    return 1 if failed else 0


def parse(argv) -> argparse.Namespace:
    """-> the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, cores = parser.add_argument, harness.available_cores()
    add("--peer-python", default=sys.executable, metavar="PATH", help="interpreter that can import snnTorch")
    add("--threads", type=int, default=cores, help="for both; default: all cores")
    add("--iterations", type=int, default=100, help="of the training that makes the trained weights")
    add("--json", type=Path, metavar="PATH", help="write all numbers to this file")
    return parser.parse_args(argv)


# ---------------------------------------------------------------------------------------------------- comparisons


def check_dyadic(peer: Peer) -> list[Check]:
    """Whole network, every sum exact."""
    net = tutorial6.network()
    weights = {name: dyadic(value * DYADIC_SCALES[name[0]]) for name, value in net.state_dict().items()}
    images, labels = tutorial6.batch(SMALL_BATCH)
    images = dyadic(images)
    theirs = peer.network(weights, images, labels)
    print_rates("dyadic", theirs)
    net.load_state_dict(weights)
    ours, checks = net.record(images, num_steps=NUM_STEPS), []
    for i in NEURONS:
        spikes, membrane = theirs[f"activation/{i + 1}"], theirs[f"membrane/{i}"]
        silent = int(not spikes.any())
        checks += [
            Check("dyadic", f"layer {i} is silent", silent, EXACT),
            Check("dyadic", f"spikes {i}, differing", differing(ours[str(i)]["spikes"], spikes), EXACT),
            Check("dyadic", f"membrane {i}, differing", differing(ours[str(i)]["membrane"], membrane), EXACT),
        ]
    loss, gradients, _ = loss_and_gradients(net, images, labels)
    checks.append(Check("dyadic", "loss", relative(loss, theirs["loss"]), 1e-6))
    return checks + compare_gradients("dyadic", gradients, theirs, ROUNDING)


def check_layers(peer: Peer, name: str, weights: dict[str, np.ndarray]) -> list[Check]:
    """Each layer alone, given what the peer's layer was given, forward and backward."""
    case, checks = f"layer, {name}", []
    theirs = peer.network(weights, *tutorial6.batch(SMALL_BATCH))
    print_rates(name, theirs)
    for i in range(len(tutorial6.layers())):
        if i in NEURONS:
            checks += check_neuron(case, i, theirs)
            continue
        checks += check_layer(case, i, weights, theirs, spikes=False)
        if i > NEURONS[0] and is_binary(theirs[f"activation/{i}"]):
            checks += check_layer(case, i, weights, theirs, spikes=True)
    return checks


def check_neuron(case: str, i: int, theirs: dict[str, np.ndarray]) -> list[Check]:
    """A neuron layer: identical spikes and membranes, and the input's gradient."""
    net = sf.Sequential(tutorial6.layers()[i])
    spikes, membrane = net.forward(theirs[f"activation/{i}"])
    dx = net.backward(theirs[f"gradient/{i + 1}"], input_grad=True)
    return [
        Check(case, f"{i} Leaky spikes, differing", differing(spikes, theirs[f"activation/{i + 1}"]), EXACT),
        Check(case, f"{i} Leaky membrane, differing", differing(membrane, theirs[f"membrane/{i}"]), EXACT),
        Check(case, f"{i} Leaky dx", relative(dx, theirs[f"gradient/{i}"]), ROUNDING),
    ]


def check_layer(case: str, i: int, weights, theirs: dict[str, np.ndarray], spikes: bool) -> list[Check]:
    """A layer without time: its output, and the gradients of its input and its parameters.

    A network ends with a neuron, so one follows that only passes on: with beta 0 and a threshold out of reach its
    membrane is the layer's output, and the membrane's gradient the output's. With ``spikes`` another one goes before,
    so that the layer is fed by a neuron: with beta 0 and threshold 1/2 it spikes where its input is 1, and
    fast_sigmoid(2) gives every gradient the factor P'(1/2) = P'(-1/2) = 1/4.

    Pooling and flattening move numbers and compute none, so they must be identical.
    """
    layer = tutorial6.layers()[i]
    gate = sf.Leaky(beta=0.0, threshold=0.5, reset_mechanism="none", spike_grad=sf.surrogate.fast_sigmoid(slope=2))
    reader = sf.Leaky(beta=0.0, threshold=1e30, reset_mechanism="none")
    net = sf.Sequential(*([gate, layer, reader] if spikes else [layer, reader]))
    for key, parameter in layer.params.items():
        parameter.value[...] = weights[f"{i}.{key}"]
    _, y = net.forward(theirs[f"activation/{i}"])
    dx = net.backward(dmembrane=theirs[f"gradient/{i + 1}"], input_grad=True) * np.float32(4 if spikes else 1)
    what = f"{i} {type(layer).__name__}{' of spikes' if spikes else ''}"
    pairs = {"y": (y, theirs[f"activation/{i + 1}"]), "dx": (dx, theirs[f"gradient/{i}"])}
    if not layer.params:
        return [Check(case, f"{what} {key}, differing", differing(*pair), EXACT) for key, pair in pairs.items()]
    pairs |= {f"d{key}": (parameter.grad, theirs[f"grad/{i}.{key}"]) for key, parameter in layer.params.items()}
    return [Check(case, f"{what} {key}", relative(*pair), ROUNDING) for key, pair in pairs.items()]


def check_end_to_end(peer: Peer, name: str, weights: dict[str, np.ndarray]) -> list[Check]:
    """The whole network and a whole batch, ordinary weights."""
    case, net = f"end to end, {name}", tutorial6.network()
    net.load_state_dict(weights)
    images, labels = tutorial6.batch()
    theirs = peer.network(weights, images, labels, only=["loss", "grad", "activation"])
    loss, gradients, spikes = loss_and_gradients(net, images, labels)
    wrong, total = differing(spikes, theirs["activation/9"]), spikes.size
    print(f"{case}: loss {loss:.7f}, snnTorch {theirs['loss']:.7f}; {wrong} of {total} output spikes differ")
    return [
        Check(case, "share of output spikes that differ", wrong / total, 1e-4),
        Check(case, "loss, absolute difference", abs(loss - float(theirs["loss"])), 1e-4),
        *compare_gradients(case, gradients, theirs, None),
    ]


# ---------------------------------------------------------------------------------------------------- helpers


def trained(iterations: int) -> dict[str, np.ndarray]:
    """-> weights after some training."""
    net = tutorial6.network()
    loss = tutorial6.train(net, iterations)
    print(f"trained for {iterations} iterations: loss {loss:.4f}")
    return net.state_dict()


def loss_and_gradients(net, images, labels) -> tuple[float, dict[str, np.ndarray], np.ndarray]:
    """-> loss, {parameter's name: gradient}, output spikes."""
    net.zero_grad()
    loss, spikes = net.loss_and_grad(images, labels, sf.losses.ce_rate_loss(), num_steps=NUM_STEPS)
    return loss, {parameter.name: parameter.grad for parameter in net.parameters()}, spikes


def compare_gradients(case: str, ours: dict[str, np.ndarray], theirs, limit: float | None) -> list[Check]:
    """Every parameter's gradient."""
    return [Check(case, f"gradient of {name}", relative(g, theirs[f"grad/{name}"]), limit) for name, g in ours.items()]


def print_rates(name: str, theirs: dict[str, np.ndarray]) -> None:
    """Print how often the neurons of each layer fire."""
    rates = ", ".join(f"{i}: {theirs[f'activation/{i + 1}'].mean():.4f}" for i in NEURONS)
    print(f"{name}: spikes a neuron and step, by layer: {rates}")


def dyadic(a: np.ndarray) -> np.ndarray:
    """-> the nearest multiples of 1/256."""
    return np.round(a * 256).astype(np.float32) / np.float32(256)


def differing(a: np.ndarray, b: np.ndarray) -> int:
    """-> how many entries are not equal."""
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} differ")
    return int(np.count_nonzero(a != b))


def relative(a, b) -> float:
    """-> |a - b| / |b|; 0 if both are zero."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} differ")
    error, scale = float(np.linalg.norm(a - b)), float(np.linalg.norm(b))
    return 0.0 if error == 0 else error / scale if scale else float("inf")


def is_binary(x: np.ndarray) -> bool:
    """-> are all entries 0 or 1?"""
    return bool(np.isin(x, (0, 1)).all())


if __name__ == "__main__":
    sys.exit(main())
