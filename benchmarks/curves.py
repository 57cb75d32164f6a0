"""How the cost of a training step grows: with time steps, batch, threads, and with the density of spikes.

    python benchmarks/curves.py                                     prints tables and writes curves.png
    python benchmarks/curves.py --png growth.png --json growth.json
    python benchmarks/curves.py --time-steps 25 50 --rounds 3       fewer points

Time steps, batch, threads: a training step of the Tutorial-6 network as train_step.py takes it, weights after 100 iterations
restored before every step outside the timing. Time steps and batch grow from the point of --num-steps and --batch-size, which
is measured in each curve anew; the deviation is that of the time for one step or one image from the time at that point. A step
has costs that do not grow with either, so small points cost more than their share. Threads: events, and the dense mode that
computes the zeros too.

Density: one layer alone, Conv2d(12, 64, 5) on 12 x 12 spikes with MaxPool2d(2) behind it, on one thread, in blocks of samples as
the network runs them; called as the network calls it, forward and backward apart. Three ways: events with random spikes, drawn
anew at each step and place; events with the spikes of a static image, of neurons with beta 0.5 and threshold 1 under constant
currents, normally distributed with a mean that gives the density: few neurons fire, and they fire often; and dense, on the
random spikes.

The points of a curve take turns; what is reported is the median over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import candidates
import harness
import numpy as np
import tutorial6

CHANNELS, OUTPUTS, KERNEL, SIDE, POOL = 12, 64, 5, 12, 2  # of the layer alone
DIRECTIONS = ("forward", "backward")
GREY, BLUE, ORANGE, GREEN = "#666666", "#0072b2", "#d55e00", "#009e73"  # but grey of Okabe and Ito's palette
COLOURS = {"events": BLUE, "random spikes": BLUE, "static image": GREEN, "dense": ORANGE}
GUIDES = {1: "proportional", -1: "evenly shared"}


def main(argv: list[str] | None = None) -> int:
    """Measure the four curves, print and draw them -> exit status."""
    args = parse(argv)
    environment = harness.environment(args.threads)
    print(f"{harness.describe(environment)}\n")
    weights = trained_weights(args)
    curves = [time_curve(weights, args), batch_curve(weights, args), thread_curve(weights, args), density_curve(args)]
    for curve in curves:
        print(f"{curve.title}, {curve.conditions}, median milliseconds of {args.rounds} rounds\n\n{curve_table(curve)}\n")
    draw(curves).savefig(args.png, dpi=150)
    options = {key: value for key, value in vars(args).items() if key not in ("png", "json")}
    harness.write_json(
        args.json, {"options": options, "environment": environment, "curves": [as_json(curve) for curve in curves]}
    )
    return 0


def parse(argv) -> argparse.Namespace:
    """-> the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, cores = parser.add_argument, harness.available_cores()
    add("--rounds", type=int, default=5)
    add("--threads", type=int, default=cores, help="of the curves over time steps and batch; default: all cores")
    add("--batch-size", type=int, default=tutorial6.BATCH_SIZE, help="where the batch does not vary")
    add("--num-steps", type=int, default=tutorial6.NUM_STEPS, help="where the time steps do not vary")
    add("--time-steps", type=int, nargs="+", default=[25, 50, 100, 200], metavar="T")
    add("--batch-sizes", type=int, nargs="+", default=[32, 64, 128, 256, 512], metavar="B")
    add("--thread-counts", type=int, nargs="+", default=list(range(1, cores + 1)), metavar="N", help="default: 1 to all cores")
    add("--densities", type=float, nargs="+", default=[0.02, 0.05, 0.1, 0.2, 0.35, 0.5], metavar="D")
    add("--warmup-iterations", type=int, default=100, metavar="N", help="train the weights for N iterations first")
    add("--png", type=Path, default=Path("curves.png"), metavar="PATH", help="where the picture goes; default: curves.png")
    add("--json", type=Path, metavar="PATH", help="write everything to this file")
    args = parser.parse_args(argv)
    args.time_steps = sorted({*args.time_steps, args.num_steps})
    args.batch_sizes = sorted({*args.batch_sizes, args.batch_size})
    return args


def trained_weights(args) -> dict[str, np.ndarray]:
    """-> the Tutorial-6 network's weights after the training that is asked for."""
    net = tutorial6.network()
    if args.warmup_iterations:
        loss = tutorial6.train(net, args.warmup_iterations, args.batch_size, args.num_steps)
        print(f"weights after {args.warmup_iterations} iterations, loss {loss:.4f}\n")
    return net.state_dict()


@dataclass
class Curve:
    """Seconds of every round at the points of some lines."""

    title: str
    x: str  # the axis' name
    conditions: str  # what does not vary
    seconds: dict[str, dict[float, list[float]]]  # line -> x -> seconds
    reference: float | None = None  # where the guide touches the first line
    exponent: int = 0  # of the guide: 1 for time in proportion to x, -1 for work shared evenly

    def medians(self, line: str) -> dict[float, float]:
        """-> {x: median seconds}."""
        return {x: statistics.median(seconds) for x, seconds in self.seconds[line].items()}

    def guide(self) -> dict[float, float]:
        """-> {x: seconds}, as the first line would go from the reference; empty if there is none."""
        if self.reference is None:
            return {}
        first = self.medians(next(iter(self.seconds)))
        return {x: first[self.reference] * (x / self.reference) ** self.exponent for x in first}

    def deviations(self) -> dict[float, float]:
        """-> {x: by what fraction the first line lies above its guide}."""
        first, guide = self.medians(next(iter(self.seconds))), self.guide()
        return {x: first[x] / seconds - 1 for x, seconds in guide.items()}


def threads_text(threads: int) -> str:
    """-> "1 thread", "2 threads"."""
    return f"{threads} thread" + ("s" if threads > 1 else "")


def measure(points: dict[tuple[str, float], Callable[[], float]], rounds: int) -> dict[str, dict[float, list[float]]]:
    """{(line, x): function that returns its seconds} -> {line: {x: seconds of every round}}."""
    lines = {}
    for (line, x), seconds in harness.alternate(points, rounds).items():
        lines.setdefault(line, {})[x] = seconds
    return lines


# ---------------------------------------------------------------------------------------------------- whole steps


def time_curve(weights, args) -> Curve:
    """A training step at different numbers of time steps."""
    batch = tutorial6.batch(args.batch_size)
    points = {("events", T): step(candidates.Task(weights, *batch, T, args.threads)) for T in args.time_steps}
    conditions = f"batch {args.batch_size}, {threads_text(args.threads)}"
    return Curve("Time steps", "time steps", conditions, measure(points, args.rounds), args.num_steps, 1)


def batch_curve(weights, args) -> Curve:
    """A training step at different batch sizes."""
    points = {}
    for size in args.batch_sizes:
        points["events", size] = step(candidates.Task(weights, *tutorial6.batch(size), args.num_steps, args.threads))
    conditions = f"{args.num_steps} time steps, {threads_text(args.threads)}"
    return Curve("Batch", "images a batch", conditions, measure(points, args.rounds), args.batch_size, 1)


def thread_curve(weights, args) -> Curve:
    """A training step on different numbers of threads, with events and dense."""
    batch, points = tutorial6.batch(args.batch_size), {}
    for threads in args.thread_counts:
        task = candidates.Task(weights, *batch, args.num_steps, threads)
        for line, events in (("events", True), ("dense", False)):
            points[line, threads] = step(task, events)
    conditions = f"batch {args.batch_size}, {args.num_steps} time steps"
    return Curve("Threads", "threads", conditions, measure(points, args.rounds), min(args.thread_counts), -1)


def step(task: candidates.Task, events: bool = True) -> Callable[[], float]:
    """-> a function that takes one training step and returns its seconds."""
    import spikeflow as sf

    candidate = candidates.make("spikeflow", task, net=tutorial6.network(events=events))

    def run() -> float:
        if sf.get_num_threads() != task.threads:
            sf.set_num_threads(task.threads)
            candidates.run(candidate, task, inference=False)  # the new threads touch their memory for the first time
        return candidates.run(candidate, task, inference=False)["seconds"]

    return run


# ---------------------------------------------------------------------------------------------------- one layer


def density_curve(args) -> Curve:
    """Convolution and max-pool at different densities of spikes."""
    import spikeflow as sf

    sf.set_num_threads(1)
    points = {}
    for density in args.densities:
        spikes = random_spikes(density, args.num_steps, args.batch_size)
        sources = {
            "random spikes": (spikes, True),
            "static image": (static_spikes(density, args.num_steps, args.batch_size), True),
            "dense": (spikes, False),
        }
        for line, (source, events) in sources.items():
            layer = LayerAlone(source, events)
            for direction in DIRECTIONS:
                points[f"{line}, {direction}", density] = lambda layer=layer, direction=direction: layer.seconds()[direction]
    layers = f"Conv2d({CHANNELS}, {OUTPUTS}, {KERNEL}) + MaxPool2d({POOL})"
    conditions = f"{layers}, batch {args.batch_size}, {args.num_steps} time steps, 1 thread"
    return Curve("Density", "spikes a neuron and step", conditions, measure(points, args.rounds))


class LayerAlone:
    """A convolution of spikes, a max-pool behind it, and gradients from outside."""

    def __init__(self, spikes: np.ndarray, events: bool):
        """spikes (T, B, H, W, C), numbers."""
        import spikeflow as sf
        from spikeflow import backends
        from spikeflow.engine.forms import BITS
        from spikeflow.engine.host import block_size
        from spikeflow.engine.rules.conv_pool import ConvPool
        from spikeflow.engine.steps import Kind, Plain
        from spikeflow.layers.base import Run

        self.ops, self.run, self.events = backends.load("cpu"), Run(len(spikes)), events
        layers = sf.Conv2d(CHANNELS, OUTPUTS, KERNEL), sf.MaxPool2d(POOL)
        shapes = [(CHANNELS, SIDE, SIDE)]
        for name, layer in enumerate(layers):
            layer.initialize(str(name), np.dtype(np.float32), seed=0)
            shapes.append(layer.output_shape(shapes[-1]))
        kind = Kind("cpu", shapes[0], np.dtype(np.float32), static=False, binary=events)
        if events:
            self.steps = [ConvPool(layers, shapes, kind, self.ops, BITS)]
        else:
            self.steps = [Plain((layer,), shapes[k : k + 2], kind) for k, layer in enumerate(layers)]
        self.packed = [step.pack(self.ops, None) for step in self.steps]
        size = block_size(spikes.shape[1])
        blocks = [np.ascontiguousarray(spikes[:, lo : lo + size]) for lo in range(0, spikes.shape[1], size)]
        self.blocks = [words(block) for block in blocks] if events else blocks
        side = (SIDE - KERNEL + 1) // POOL
        shape = len(spikes), size, side, side, OUTPUTS
        self.gradient = np.random.default_rng(0).standard_normal(shape, np.float32)
        self.grads = self.steps[0].gradients()

    def seconds(self) -> dict[str, float]:
        """Take all blocks forward and back -> the seconds that each direction took."""
        from spikeflow.kernels.cpu.simd import scratch

        totals = dict.fromkeys(DIRECTIONS, 0.0)
        for block in self.blocks:
            block, gradient = block.copy(), self.gradient[:, : block.shape[1]].copy()  # in cache, as a layer before leaves them
            with scratch():
                start = time.perf_counter()
                kept = self.forward(block)
                middle = time.perf_counter()
                self.backward(gradient, kept)
                totals["forward"] += middle - start
                totals["backward"] += time.perf_counter() - middle
        return totals

    def forward(self, x) -> list:
        """-> what each step keeps."""
        from spikeflow.ops.events import SpikeWords

        # Made anew for each block, as in the network: what a SpikeWords works out about its words lives no longer.
        x, kept = SpikeWords(x, self.run.num_steps) if self.events else x, []
        for step, packed in zip(self.steps, self.packed, strict=True):
            x, keep = step.forward(self.ops, packed, x, self.run)
            kept.append(keep)
        return kept

    def backward(self, dy, kept) -> None:
        """All gradients, the input's too."""
        for step, packed, keep in reversed(list(zip(self.steps, self.packed, kept, strict=True))):
            dy = step.backward(self.ops, packed, dy, keep, self.grads, True)


def random_spikes(density: float, T: int, B: int) -> np.ndarray:
    """-> spikes (T, B, H, W, C), each drawn for itself."""
    return (np.random.default_rng(0).random((T, B, SIDE, SIDE, CHANNELS), np.float32) < density).astype(np.float32)


def static_spikes(density: float, T: int, B: int) -> np.ndarray:
    """-> spikes (T, B, H, W, C) of neurons under constant currents, whose mean is found by bisection."""
    noise = np.random.default_rng(1).standard_normal((B, SIDE, SIDE, CHANNELS), np.float32)
    low, high = np.float32(-6), np.float32(6)
    for _ in range(20):
        mean = (low + high) / 2
        spikes = neurons(mean + noise, T)
        low, high = (mean, high) if spikes.mean() < density else (low, mean)
    return spikes


def neurons(current: np.ndarray, T: int) -> np.ndarray:
    """current (...) -> spikes (T, ...) of leaky neurons with beta 0.5, threshold 1, reset by subtraction one step later."""
    membrane, spike, spikes = np.zeros_like(current), np.zeros_like(current), []
    for _ in range(T):
        membrane = np.float32(0.5) * membrane + current - spike
        spike = (membrane > 1).astype(current.dtype)
        spikes.append(spike)
    return np.stack(spikes)


def words(spikes: np.ndarray) -> np.ndarray:
    """spikes (T, ...) -> (T / 64, ...) uint64: bit t mod 64 of word t / 64 is the spike at step t."""
    from spikeflow.ops.events import WORD

    packed = np.zeros((-(-len(spikes) // WORD), *spikes.shape[1:]), np.uint64)
    for t, step in enumerate(spikes):
        packed[t // WORD] |= step.astype(np.uint64) << np.uint64(t % WORD)
    return packed


# ---------------------------------------------------------------------------------------------------- results


def curve_table(curve: Curve) -> str:
    """-> one row a point, one column a line, in milliseconds; and how far the first line lies above its guide."""
    lines = list(curve.seconds)
    header, columns = [curve.x, *lines], [curve.medians(line) for line in lines]
    rows = [[f"{x:g}", *(f"{1e3 * column[x]:.2f}" for column in columns)] for x in columns[0]]
    if curve.reference is not None:
        header.append(f"{lines[0]}: deviation from {GUIDES[curve.exponent]} to {curve.reference:g}")
        for row, deviation in zip(rows, curve.deviations().values(), strict=True):
            row.append(f"{100 * deviation:+.1f} %")
    return harness.table(header, rows)


def as_json(curve: Curve) -> dict[str, Any]:
    """-> the curve as JSON can hold it: every round, and the medians."""
    points = [
        {"line": line, "x": x, "median": curve.medians(line)[x], "seconds": seconds}
        for line, by_x in curve.seconds.items()
        for x, seconds in by_x.items()
    ]
    deviations = [{"x": x, "deviation": deviation} for x, deviation in curve.deviations().items()]
    return {"title": curve.title, "x": curve.x, "conditions": curve.conditions, "points": points, "deviations": deviations}


def draw(curves: list[Curve]):
    """-> a Matplotlib figure with a panel for each curve."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.15)
    for axes, curve in zip(figure.subplots(2, 2).flat, curves, strict=True):
        draw_curve(axes, curve)
    return figure


def draw_curve(axes, curve: Curve) -> None:
    """One panel: the guide, and the lines."""
    if curve.reference is not None:
        xs, seconds = zip(*curve.guide().items(), strict=True)
        axes.plot(xs, [1e3 * s for s in seconds], color=GREY, linestyle=(0, (5, 4)), linewidth=1, label=GUIDES[curve.exponent])
    for line in curve.seconds:
        xs, seconds = zip(*curve.medians(line).items(), strict=True)
        axes.plot(xs, [1e3 * s for s in seconds], label=line, **line_style(line))
    scale_axes(axes, curve)
    axes.set(xlabel=curve.x, ylabel="milliseconds")
    axes.set_title(f"{curve.title}\n", fontsize=11)
    axes.text(0.5, 1.02, curve.conditions, transform=axes.transAxes, ha="center", fontsize=8.5)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left", ncols=1 if len(curve.seconds) <= 3 else 3, columnspacing=1.2)


def line_style(line: str) -> dict[str, Any]:
    """-> colour by what is computed, open markers and dots for the backward direction."""
    name, _, direction = line.rpartition(", ") if line.endswith(DIRECTIONS) else (line, "", "forward")
    backward = direction == "backward"
    shape = {"linestyle": ":", "markerfacecolor": "white"} if backward else {"linestyle": "-"}
    return {"color": COLOURS[name], "marker": "s" if backward else "o", "markersize": 4.5, "linewidth": 1.4, **shape}


def scale_axes(axes, curve: Curve) -> None:
    """Logarithmic where time should grow in proportion, from zero elsewhere; a tick for each point where they are few."""
    xs = list(next(iter(curve.seconds.values())))
    if curve.exponent == 1:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # the legend lies above all lines
    if curve.exponent:
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
        axes.minorticks_off()


if __name__ == "__main__":
    sys.exit(main())
