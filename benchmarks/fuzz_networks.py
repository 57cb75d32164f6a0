"""Random networks: every way to run one must give the same numbers.

    python benchmarks/fuzz_networks.py --count 400
    python benchmarks/fuzz_networks.py --count 20000 --first 1000000
    python benchmarks/fuzz_networks.py --only 1234          one network, with what it is

A network is drawn from a grammar over all layers: convolutions, pools, linear layers, batch normalisation, dropout, and neurons
of every family with some of their options; residual blocks and parallel branches, nested too; images shown at every step,
sequences of numbers and of spikes; up to 70 steps, so that spike trains cross a 64-bit word; batches of one to three blocks;
training and evaluation. Compared are

* the cpu beside the reference, and the engine's rules on beside off: no spike differs but where a membrane of the same sample
  came within 1e-5 of its threshold by then, and where none differs, gradients are within 1e-5 of their norm (or of a hundredth of
  the network's largest, a tenth for biases and learned numbers: what is smaller may be nothing but rounding);
  A fast sigmoid of slope 25 changes by up to 50 times a membrane's rounding, as a share of itself:
  networks with one are held to three times that bound.
  Batch normalisation divides by what it has rounded, perhaps by next to nothing, and steep surrogates multiply what comes of
  it: networks with one are held to a hundredth of their largest gradient, and to the bounds above step by step, as
  ``SPIKEFLOW_CHECK=1`` does;
* ``loss_and_grad`` beside ``forward`` and ``backward``: the same spikes, gradients within the same bound;
* a sequence in two pieces beside the whole, and three threads beside one: equal to the bit.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time

import numpy as np

import spikeflow as sf
from spikeflow.layers import Neuron
from spikeflow.layers.containers import leaves

BOUND, STEEP = 1e-5, 3e-5
TIES = 0.02  # of the windows behind a batch normalisation, whose winner may differ
CLOSE = 1e-5  # of a membrane to its threshold, in units of the larger of the two


class Draw:
    """A network and its input, drawn from a seed."""

    def __init__(self, seed: int):
        self.seed, self.rng = seed, np.random.default_rng(seed)
        self.front = self.pick("static", "static", "numbers", "bits")
        self.num_steps = self.pick(1, 2, 3, 5, 8, 8, 12, 63, 64, 65, 70)
        self.batch = self.pick(1, 2, 3, 5, 9, 17, 33) if self.num_steps < 30 else self.pick(1, 2, 5)
        self.training = self.pick(True, True, False)
        self.shape = self.pick((1, 9, 9), (2, 8, 10), (3, 7, 7), (12,), (30,))
        self.dyadic = self.pick(True, False)
        self.layers = self._layers()

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def _layers(self) -> list:
        shape, found = self.shape, []
        self.found = found
        for _ in range(self.rng.integers(1, 9)):
            layer = self._image_layer(shape) if len(shape) == 3 else self._row_layer(shape)
            try:
                shape = layer.output_shape(shape)
            except ValueError:
                continue
            found.append(layer)
        last = self.pick("neuron", "linear", "linear", "integrator")
        if last != "neuron" and len(shape) == 3:
            found.append(sf.Flatten())
            shape = (int(np.prod(shape)),)
        if last != "neuron":
            found.append(sf.Linear(shape[0], self.pick(3, 18)))
            shape = (found[-1].out_features,)
        found.append(sf.LeakyIntegrator(0.75) if last == "integrator" else self._neuron(shape))
        return found

    def _image_layer(self, shape):
        C, kind = (
            shape[0],
            self.pick("conv", "conv", "conv", "pool", "pool", "average", "norm", "drop", "flat", "neuron", "neuron", "branch"),
        )
        if kind == "branch":
            return self._branches(shape)
        if kind == "conv":
            K = self.pick(1, 2, 3)
            options = {"stride": self.pick(1, 1, 2), "padding": self.pick(0, 0, 1), "bias": self.pick(True, False)}
            return sf.Conv2d(C, self.pick(2, 5, 18), K, **options)
        if kind == "pool":
            return sf.MaxPool2d(*self.pick((2,), (2,), (2, 1), (2, 3), (3,)))
        if kind == "average":
            return sf.AvgPool2d(2)
        if kind == "flat":
            return sf.Flatten()
        if kind == "norm":
            return sf.BatchNorm2d(C, affine=self.pick(True, True, False))
        return sf.Dropout(0.5) if kind == "drop" else self._neuron(shape)

    def _row_layer(self, shape):
        kind = self.pick("linear", "linear", "neuron", "neuron", "norm", "drop", "branch")
        if kind == "branch":
            return self._branches(shape)
        if kind == "linear":
            return sf.Linear(shape[0], self.pick(4, 17, 20), bias=self.pick(True, False))
        if kind == "norm":
            return sf.BatchNorm1d(shape[0])
        return sf.Dropout(0.5) if kind == "drop" else self._neuron(shape)

    def _branches(self, shape, nested: bool = False):
        """-> a container: branches that keep the shape, or channels that are put together."""
        branches = [self._branch(shape, nested) for _ in range(2)]
        if self.pick(True, False):
            return sf.Parallel(*map(one, branches), merge=self.pick("add", "concat"))
        spikes = len(self.found) > 0 and isinstance(self.found[-1], Neuron) and self.found[-1].binary
        fires = all(isinstance(branch[-1], Neuron) and branch[-1].binary for branch in branches)
        connect = (
            self.pick("add", "and", "iand", "concat") if fires and (spikes or nested is False) else self.pick("add", "concat")
        )
        shortcut = one(branches[1]) if self.pick(True, False) or (connect in ("and", "iand") and not spikes) else None
        return sf.Residual(*branches[0], shortcut=shortcut, connect=connect)

    def _branch(self, shape, nested: bool) -> list:
        """-> layers that keep the shape."""
        C, layers = shape[0], []
        for kind in [self.pick("weight", "neuron", "norm", "nest") for _ in range(self.rng.integers(1, 4))]:
            if kind == "weight":
                layers.append(sf.Conv2d(C, C, 3, padding=1) if len(shape) == 3 else sf.Linear(C, C))
            elif kind == "norm":
                layers.append((sf.BatchNorm2d if len(shape) == 3 else sf.BatchNorm1d)(C))
            elif kind == "nest" and not nested:
                layers.append(sf.Residual(*self._branch(shape, True), connect="add"))
            else:
                layers.append(self._neuron(shape))
        return layers

    def _neuron(self, shape):
        images = len(shape) == 3
        atan, fast = sf.surrogate.atan(2), sf.surrogate.fast_sigmoid(25)
        recurrent = {"conv2d_channels": shape[0], "kernel_size": 3} if images else {"linear_features": shape[0]}
        per_neuron = np.linspace(0.25, 0.75, shape[0]).reshape(-1, 1, 1) if images else np.linspace(0.25, 0.75, shape[0])
        palette = [
            lambda: sf.Leaky(0.5, 0.5, atan),
            lambda: sf.Leaky(0.5, 0.5, atan),
            lambda: sf.Leaky(0.75, 0.5, fast, reset_mechanism="zero"),
            lambda: sf.Leaky(0.5, 0.5, atan, learn_beta=True, learn_threshold=True),
            lambda: sf.Leaky(0.5, 0.5, atan, reset_delay=False),
            lambda: sf.Leaky(per_neuron, 0.5, atan),
            lambda: sf.Leaky(0.5, 0.5, atan, graded_spikes_factor=2.0),
            lambda: sf.Lapicque(0.5, threshold=0.25, spike_grad=atan),
            lambda: sf.Synaptic(0.5, 0.75, 0.5, atan, learn_alpha=True),
            lambda: sf.Alpha(0.75, 0.5, 0.25, atan),
            lambda: sf.RLeaky(0.5, 0.5, all_to_all=False, threshold=0.5, spike_grad=atan),
            lambda: sf.RLeaky(0.5, threshold=0.5, spike_grad=atan, **recurrent),
            lambda: sf.IFNode(0.5, surrogate_function=atan),
            lambda: sf.LIFNode(2.0, v_threshold=0.5, v_reset=None, surrogate_function=atan),
            lambda: sf.ParametricLIFNode(2.0, v_threshold=0.5, surrogate_function=atan, detach_reset=True),
        ]
        if not images:
            palette.append(lambda: sf.Leaky(0.5, 0.25, atan, inhibition=True))
        return self.pick(*palette)()

    def network(self, **options):
        """-> the network, anew."""
        net = sf.Sequential(*(layer.unused_copy() for layer in self.layers), seed=self.seed % 2**31, **options)
        rng = np.random.default_rng(self.seed)
        for layer in leaves(net.layers):
            for key in ("weight", "bias", "recurrent.weight", "recurrent.bias"):
                if key in layer.params and not isinstance(layer, (sf.BatchNorm1d, sf.BatchNorm2d)):
                    value = layer.params[key].value
                    drawn = rng.choice([-0.25, 0, 0.25, 0.25, 0.5], value.shape) if self.dyadic else 2 * value
                    layer.params[key].value = drawn
        return net.train(self.training)

    def input(self) -> tuple[np.ndarray, int | None]:
        """-> images or a sequence, and num_steps."""
        rng, lead = np.random.default_rng(self.seed + 1), (self.batch,)
        if self.front != "static":
            lead = (self.num_steps, self.batch)
        x = (
            rng.integers(0, 7, (*lead, *self.shape)).astype(np.float32) / 4
            if self.dyadic
            else rng.random((*lead, *self.shape), np.float32)
        )
        x = rng.random(x.shape) < self.pick(0.1, 0.5) if self.front == "bits" else x
        return x, self.num_steps if self.front == "static" else None

    def __str__(self) -> str:
        mode = f"{'training' if self.training else 'evaluation'}{', dyadic' if self.dyadic else ''}"
        head = f"network {self.seed}: {self.front}, {self.num_steps} steps, batch {self.batch}, {mode}, {self.shape}"
        return "\n".join([head, *(f"    {layer!r}" for layer in self.layers)])


class Passes:
    """What one way of running a network gave."""

    def __init__(self, net, x, num_steps, at_once: bool = False):
        self.net, self.x, self.num_steps = net, x, num_steps
        net.zero_grad()
        loss = sf.losses.mse_membrane_loss() if not net.layers[-1].model.fires else sf.losses.mse_count_loss(0.75, 0.25)
        features = int(np.prod(net.program(x, num_steps).heads[0].shape))
        labels = np.arange(x.shape[0 if num_steps else 1]) % features
        images = len(net.program(x, num_steps).heads[0].shape) == 3
        if images:
            self.spikes, self.membrane = net.forward(x, num_steps)
            self.input = net.backward(self.spikes - 0.5, self.membrane, input_grad=True)
        elif at_once:
            _, self.spikes = net.loss_and_grad(x, labels, loss, num_steps)
            self.input = self.membrane = None
        else:
            self.spikes, self.membrane = net.forward(x, num_steps)
            record = self.membrane if loss.inputs == "membrane" else self.spikes
            _, gradient = loss(record, labels)
            pair = (None, gradient) if loss.inputs == "membrane" else (gradient, None)
            self.input = net.backward(*pair, input_grad=True)
        self.winners = None if at_once and not images else winners(net)
        self.gradients = {parameter.name: parameter.grad.copy() for parameter in net.parameters()}

    def compare(self, other: Passes, what: str) -> tuple[list[str], bool]:
        """-> what is beyond its bound, in words; and has a spike been flipped?"""
        if not np.array_equal(self.spikes, other.spikes) or self._hidden_differs(other):
            found = self._unexcused(other)
            return ([f"{what}: {found}"] if found else []), True
        if normalises(self.net.layers) and self._other_winners(other):
            return [], True  # numbers that were equal before a division round differently behind it
        pairs = {"input": (self.input, other.input)} if self.input is not None and other.input is not None else {}
        pairs |= {name: (gradient, other.gradients[name]) for name, gradient in self.gradients.items()}
        size = max((np.linalg.norm(theirs) for _, theirs in pairs.values()), default=0)
        found, (bound, share) = [], (1e-2, 1) if normalises(self.net.layers) else (BOUND, 1e-2)
        bound = max(bound, STEEP if steep(self.net.layers) else 0)
        for name, (ours, theirs) in pairs.items():
            error, norm = np.linalg.norm(ours.astype(np.float64) - theirs), np.linalg.norm(theirs)
            least = share if theirs.ndim > 1 else 10 * share  # a bias adds up thousands of numbers that may cancel
            if not error <= bound * max(norm, least * size):
                found.append(f"{what}: the gradient of {name} differs by {error / max(norm, 1e-300):.2g} of its norm")
        return found, False

    def _other_winners(self, other) -> bool:
        if self.winners is None or other.winners is None:
            return False
        both = set(self.winners) & set(other.winners)
        differing = sum(int((self.winners[name] != other.winners[name]).sum()) for name in both)
        return 0 < differing <= TIES * sum(self.winners[name].size for name in both) + 4

    def records(self) -> dict:
        """-> what all neurons did in a pass like this one, with the network's statistics and masks of before."""
        if not hasattr(self, "_records"):
            self._records = self.net.record(self.x, self.num_steps)
        return self._records

    def _hidden_differs(self, other) -> bool:
        ours, theirs = self.records(), other.records()
        return any(not np.array_equal(ours[name]["spikes"], theirs[name]["spikes"]) for name in ours)

    def _unexcused(self, other) -> str | None:
        """-> the first layer whose spikes differ without a membrane beside its threshold; None if there is none."""
        ours, theirs = self.records(), other.records()
        for layer in (layer for layer in leaves(self.net.layers) if isinstance(layer, Neuron)):
            a, b = ours[layer.name], theirs[layer.name]
            T, B = a["spikes"].shape[:2]
            wrong = (a["spikes"] != b["spikes"]).reshape(T, B, -1).any(2)
            if not wrong.any():
                continue
            threshold = np.broadcast_to(
                layer.current("threshold" if "threshold" in layer.number_names() else "v_threshold"), a["spikes"].shape[2:]
            )
            close = np.zeros((T, B), bool)
            for record in (a["membrane"], b["membrane"]):
                above = abs(record - threshold) <= CLOSE * np.maximum(abs(record), abs(threshold))
                close |= above.reshape(T, B, -1).any(2)
                if getattr(layer, "inhibition", False):  # the winner is the one that is furthest above: a tie is as good
                    first, second = np.sort(record - threshold, axis=-1)[..., :-3:-1].transpose(2, 0, 1)
                    close |= first - second <= CLOSE * np.maximum(abs(first), abs(threshold).max())
            if (wrong & ~np.logical_or.accumulate(close)).any():
                return f"spikes of layer {layer.name} differ at {np.count_nonzero(a['spikes'] != b['spikes'])} places"
            return None
        return None if normalises(self.net.layers) else "spikes differ in training"


def winners(net) -> dict[str, np.ndarray]:
    """-> by max-pool, which number won each window in the latest ``forward``; those that looked at numbers."""
    call, found = net._last, {}
    for k, step in enumerate(call.steps if call else ()):
        pools = [layer for layer in step.layers if isinstance(layer, sf.MaxPool2d)]
        for pool in pools if not step.joint else ():
            parts = [step.winners(kept[k]) for kept in call.kept]
            if parts[0] is None and len(step.layers) == 1 and isinstance(call.kept[0][k], tuple):
                parts = [kept[k][0] for kept in call.kept]
            if isinstance(parts[0], np.ndarray):
                found[pool.name] = np.concatenate([part.reshape(-1) for part in parts])
    return found


def normalises(layers) -> bool:
    """Is there a batch normalisation among the layers?"""
    return any(isinstance(layer, (sf.BatchNorm1d, sf.BatchNorm2d)) for layer in leaves(layers))


def steep(layers) -> bool:
    """Is there a surrogate of slope 25 among the layers?"""
    return any(isinstance(layer, Neuron) and layer.spike_grad.params.get("slope", 0) >= 25 for layer in leaves(layers))


def one(branch: list):
    """-> a branch as one layer."""
    return branch[0] if len(branch) == 1 else sf.Sequential(*branch)


def check(seed: int) -> tuple[list[str], int]:
    """-> what is beyond its bound in the network of this seed, and how many comparisons met a flipped spike."""
    draw = Draw(seed)
    x, num_steps = draw.input()
    if draw.training and normalises(draw.layers) and draw.batch < 3:
        return [], 0  # a batch of one cannot be normalised, and one of two has no gradient but rounding
    try:
        return _check(draw, x, num_steps)
    except Exception as error:  # whatever it is, it is to be seen
        return [f"{type(error).__name__}: {error}"], 0


@contextlib.contextmanager
def checked():
    """Within, every step that a rule made is compared with the layers that it covers."""
    os.environ["SPIKEFLOW_CHECK"] = "1"
    try:
        yield
    finally:
        del os.environ["SPIKEFLOW_CHECK"]


def _check(draw: Draw, x, num_steps) -> tuple[list[str], int]:
    found, flips = [], 0
    sf.set_num_threads(1)
    ours = Passes(draw.network(), x, num_steps)
    for what, options in {"reference": {"backend": "reference"}, "rules off": {"events": False}}.items():
        texts, flipped = ours.compare(Passes(draw.network(**options), x, num_steps), what)
        found, flips = found + texts, flips + flipped
    if normalises(draw.layers):
        with checked():
            Passes(draw.network(), x, num_steps)
    at_once = Passes(draw.network(), x, num_steps, at_once=True)
    if not np.array_equal(at_once.spikes, ours.spikes):
        found.append("loss_and_grad: other spikes than forward")
    found += at_once.compare(ours, "loss_and_grad")[0]
    sf.set_num_threads(3)
    threads = Passes(draw.network(), x, num_steps, at_once=True)
    sf.set_num_threads(1)
    for name, gradient in at_once.gradients.items():
        if not np.array_equal(gradient, threads.gradients[name], equal_nan=True):
            found.append(f"three threads: other bits in the gradient of {name}")
    if draw.num_steps > 1:
        net, cut = draw.network().eval(), draw.num_steps // 2
        whole = net.forward(x, num_steps)
        parts = ((x[:cut], None), (x[cut:], None)) if num_steps is None else ((x, cut), (x, draw.num_steps - cut))
        first = net.stream(parts[0][0], None, parts[0][1])
        second = net.stream(parts[1][0], first[2], parts[1][1])
        for name, one, other, entire in zip(("spikes", "membrane"), first, second, whole, strict=False):
            if not np.array_equal(np.concatenate([one, other]), entire):
                found.append(f"pieces: other {name} than the whole")
    return found, flips


def main(argv: list[str] | None = None) -> int:
    """Check networks -> exit status: 1 if something is beyond its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--only", type=int, metavar="SEED")
    args = parser.parse_args(argv)
    if args.only is not None:
        print(Draw(args.only))
    seeds = range(args.first, args.first + args.count) if args.only is None else [args.only]
    start, failed, flipped = time.perf_counter(), 0, 0
    for seed in seeds:
        found, flips = check(seed)
        failed, flipped = failed + bool(found), flipped + bool(flips)
        for text in found:
            print(f"{seed}: {text}", flush=True)
    seconds = time.perf_counter() - start
    print(f"{len(seeds)} networks, {failed} beyond a bound, {flipped} with a spike beside its threshold, {seconds:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
