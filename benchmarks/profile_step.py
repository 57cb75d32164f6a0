"""Where one training step of the Tutorial-6 network spends its time, and how far each layer is from what a core can do.

    python benchmarks/profile_step.py                       weights after 100 iterations, batch 128, 50 time steps
    python benchmarks/profile_step.py --no-events           the zeros of spikes and pooled gradients computed too
    python benchmarks/profile_step.py --no-first-step       without the fresh processes, one of which compiles everything
    python benchmarks/profile_step.py --json profile.json

On one thread, so that the stages add up to the step. Clocks are put around methods and operations from outside; the same
step without them takes turns with it and shows what they cost. A step takes a batch from the data loader, always the same,
clears the gradients, runs forward, the loss and backward, and lets Adam change the weights, which are restored before the next.

First table: medians over the rounds, the steps of the engine's program first, and indented below each what it calls of its
backend. Their milliseconds are part of the step's. The rest is Python between the stages.

Second table: multiply-accumulates of one step. "As written" counts every product of the equations. "Remaining" leaves out those
with a silent neuron, by the spikes of this very batch, and in the input gradient through a max-pool those with a position that
did not win. What lies before the first neuron is counted once and not at every time step, the first layer has no input gradient.
The floor is the time that the remaining ones would take at the speed of the fastest dense kernel measured here.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import candidates
import harness
import numpy as np
import tutorial6

WORKER = Path(__file__).with_name("step_worker.py")
BLOCKS = ("forward", "backward")  # the stages in which a block of samples passes through the layers
BEFORE = "before the blocks: checks, copies, packing"
OUTER = ("data loader", "loss", "zero_grad", "optimizer")  # neither forward nor backward


def main(argv: list[str] | None = None) -> int:
    """Profile the step, print both tables -> exit status."""
    args = parse(argv)
    environment = harness.environment(1)
    print(f"{harness.describe(environment)}\n")
    task, loader = make_task(args)
    plain, probed = (make_candidate(task, args) for _ in range(2))
    plain_seconds, samples = measure(plain, probed, loader, args.rounds)
    memory = harness.peak_rss()
    stages, step = summarize(samples)
    print(f"{title(args)}\n\n{stage_table(probed.net, stages, step)}\n")
    share = sum(stages[name,].seconds for name in OUTER) / step
    print(f"data, loss and optimizer: {100 * share:.1f} % of the step")
    print(f"step without the clocks: {1e3 * plain_seconds:.2f} ms")
    print(f"peak RSS: {memory:.0f} MB, data set and training before it included\n")
    peak = fastest_dense()
    rows = layer_rows(probed.net, count(plain.net, task.images, args.num_steps), stages, peak)
    print(f"fastest dense kernel measured here: {peak / 1e9:.1f} GFLOP/s\n\n{work_table(rows, step)}\n")
    first = {} if args.no_first_step else first_steps(task)
    for cache, facts in first.items():
        print(f"first step of a fresh process, {cache} kernel cache: {facts['seconds']:.2f} s, {facts['peak_rss_mb']:.0f} MB")
    options = {key: value for key, value in vars(args).items() if key != "json"}
    result = {"options": options, "environment": environment, "step_s": step, "plain_step_s": plain_seconds}
    result |= {"stages": [{"path": path, **asdict(stage)} for path, stage in stages.items()], "outer_share": share}
    result |= {"peak_flops": peak, "layers": rows, "peak_rss_mb": memory, "first_step": first}
    harness.write_json(args.json, result)
    return 0


def parse(argv) -> argparse.Namespace:
    """-> the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rounds", type=int, default=9)
    add("--batch-size", type=int, default=tutorial6.BATCH_SIZE)
    add("--num-steps", type=int, default=tutorial6.NUM_STEPS)
    add("--warmup-iterations", type=int, default=100, metavar="N", help="train the weights for N iterations first")
    add("--events", action=argparse.BooleanOptionalAction, default=True, help="leave out zeros, as by default")
    add("--no-first-step", action="store_true", help="skip the processes that start afresh; --events only")
    add("--json", type=Path, metavar="PATH", help="write everything to this file")
    args = parser.parse_args(argv)
    args.no_first_step |= not args.events
    return args


def title(args) -> str:
    """-> what is profiled."""
    return (
        f"training step, batch {args.batch_size}, {args.num_steps} time steps, 1 thread, {args.rounds} rounds, "
        f"{'events' if args.events else 'dense'}, weights after {args.warmup_iterations} iterations"
    )


def make_task(args):
    """-> trained weights with the first batch, and the loader that it comes from."""
    net = tutorial6.network()
    if args.warmup_iterations:
        loss = tutorial6.train(net, args.warmup_iterations, args.batch_size, args.num_steps)
        print(f"weights after {args.warmup_iterations} iterations, loss {loss:.4f}\n")
    loader = tutorial6.batches(args.batch_size)
    return candidates.Task(net.state_dict(), *next(iter(loader)), args.num_steps, threads=1), loader


def make_candidate(task: candidates.Task, args):
    """-> spikeflow's step in the mode that is asked for."""
    return candidates.make("spikeflow", task, net=tutorial6.network(events=args.events))


# ---------------------------------------------------------------------------------------------------- measuring


@dataclass
class Stage:
    """What was spent inside one stage."""

    seconds: float = 0.0
    calls: int = 0


Stages = dict[tuple[str, ...], Stage]  # by path: the names of the stages around it, and its own


class Probe:
    """Clocks around functions that call each other."""

    def __init__(self):
        self.path: tuple[str, ...] = ()
        self.stages: Stages = {}

    def wrap(self, name: str, function: Callable) -> Callable:
        """-> the function with a clock around it."""

        def probed(*args, **kwargs):
            outer = self.path
            self.path = path = (*outer, name)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                elapsed = time.perf_counter() - start
                self.path = outer
                stage = self.stages.setdefault(path, Stage())
                stage.seconds += elapsed
                stage.calls += 1

        return probed

    def take(self) -> Stages:
        """-> everything since the last ``take``."""
        stages, self.stages = self.stages, {}
        return stages

    def attach(self, candidate) -> None:
        """Put clocks around the stages of this candidate's step, as attributes of its objects; classes stay as they are."""
        net = candidate.net
        table = {name: self.wrap(name, op) if callable(op) else op for name, op in vars(net._ops).items()}
        net._ops = SimpleNamespace(**table)
        make_call, watched = self.wrap(BEFORE, net._call), set()

        def watched_call(*arguments, **options):
            call = make_call(*arguments, **options)
            for step in call.steps if id(call.program) not in watched else ():
                step.forward = self.wrap(f"{step.name} forward", step.forward)
                step.backward = self.wrap(f"{step.name} backward", step.backward)
            watched.add(id(call.program))
            call.forward_block = self.wrap("forward", call.forward_block)
            call.backward_block = self.wrap("backward", call.backward_block)
            return call

        net._call = watched_call
        net.zero_grad = self.wrap("zero_grad", net.zero_grad)
        candidate.loss_fn.gradients = self.wrap("loss", candidate.loss_fn.gradients)
        candidate.optimizer.step = self.wrap("optimizer", candidate.optimizer.step)


def measure(plain, probed, loader, rounds: int) -> tuple[float, list[tuple[float, Stages]]]:
    """-> median seconds of the step without clocks, and (seconds, stages) of every round with them."""
    probe, samples = Probe(), []
    probe.attach(probed)

    def with_clocks() -> float:
        seconds = take_step(probed, loader, lambda fetch: probe.wrap("data loader", fetch))
        samples.append((seconds, probe.take()))
        return seconds

    seconds = harness.alternate({"plain": lambda: take_step(plain, loader), "clocks": with_clocks}, rounds, steps=1)
    return statistics.median(seconds["plain"]), samples[1:]  # the first one warms up


def take_step(candidate, loader, wrap: Callable = lambda fetch: fetch) -> float:
    """Restore the weights, fetch the loader's first batch and train on it -> seconds of the latter two."""
    candidate.restore()
    loader.set_epoch(0)
    batches = iter(loader)
    fetch = wrap(lambda: next(batches))
    start = time.perf_counter()
    candidate.task.images, candidate.task.labels = fetch()
    candidate.train()
    return time.perf_counter() - start


def summarize(samples: list[tuple[float, Stages]]) -> tuple[Stages, float]:
    """-> the median of every stage, among them what lies between the others as a stage of its own, and of the step."""
    for seconds, stages in samples:
        stages["rest",] = Stage(seconds - sum(stage.seconds for path, stage in stages.items() if len(path) == 1))
        for block in BLOCKS:
            inside = sum(stage.seconds for path, stage in stages.items() if len(path) == 2 and path[0] == block)
            stages[block, "between"] = Stage(stages[block,].seconds - inside)
    medians = {
        path: Stage(statistics.median(stages[path].seconds for _, stages in samples), stage.calls)
        for path, stage in samples[0][1].items()
    }
    return medians, statistics.median(seconds for seconds, _ in samples)


def fastest_dense(runs: int = 10) -> float:
    """-> floating-point operations a second of the dense convolution, on one thread, at its best of some runs."""
    from spikeflow import backends

    ops = backends.load("cpu")
    (N, H, W, C), outputs, K = (64, 24, 24, 64), 64, 5
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, H, W, C), np.float32)
    packed = ops.conv2d_pack(rng.standard_normal((outputs, C, K, K), np.float32))
    bias = np.zeros(outputs, np.float32)
    best = min(harness.timed(ops.conv2d_forward, x, packed, bias, 1, 0)[0] for _ in range(runs))
    return 2 * N * (H - K + 1) * (W - K + 1) * outputs * C * K * K / best


def first_steps(task: candidates.Task) -> dict[str, dict[str, float]]:
    """-> {state of the cache: seconds from a process's start to the end of its first step, and its peak memory}."""
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "task.npz", Path(folder) / "kernels"
        task.save(path)
        return {state: first_step(path, cache) for state in ("empty", "filled")}


def first_step(path: Path, cache: Path) -> dict[str, float]:
    """Take one step in a fresh process that keeps its kernels in ``cache``."""
    start = time.perf_counter()
    with harness.Worker(sys.executable, WORKER, {"SPIKEFLOW_CACHE_DIR": str(cache)}) as worker:
        missing = worker.ask("make", name="spikeflow", task=str(path))
        if missing:
            raise RuntimeError(f"the fresh process cannot import spikeflow: {missing}")
        worker.ask("run", name="spikeflow", inference=False)
        return {"seconds": time.perf_counter() - start, "peak_rss_mb": worker.ask("peak_rss")}


# ---------------------------------------------------------------------------------------------------- counting


@dataclass
class Work:
    """Multiply-accumulates of one step in one layer."""

    layer: str
    part: str  # "forward", "weight gradient" or "input gradient"
    written: float
    remaining: float


def count(net, images: np.ndarray, num_steps: int) -> list[Work]:
    """-> the work of every layer with weights."""
    from spikeflow.layers import Conv2d, Flatten, Linear, Neuron

    rates, works = tutorial6.firing_rates(net, images, num_steps), []
    shape, inputs, samples = images.shape[1:], None, len(images)
    for position, layer in enumerate(net.layers):
        output = layer.output_shape(shape)
        if isinstance(layer, Neuron):
            samples = num_steps * len(images)
            inputs = rates[layer.name] * samples  # spikes of each neuron
        elif isinstance(layer, Flatten) and inputs is not None:
            inputs = inputs.reshape(-1)
        elif isinstance(layer, (Conv2d, Linear)):
            reach = conv_reach(layer, shape, output) if isinstance(layer, Conv2d) else np.full(shape, output[0])
            works += layer_work(net.layers, position, reach, samples, inputs)
            inputs = None
        elif not isinstance(layer, Flatten):
            inputs = None  # maxima of spikes: counted as if none were zero
        shape = output
    return works


def layer_work(layers, position: int, reach: np.ndarray, samples: int, inputs: np.ndarray | None) -> list[Work]:
    """reach: outputs that each number of an input sample enters; inputs: spikes of each neuron, None if they are none."""
    layer, written = layers[position], float(samples * reach.sum())
    driven = written if inputs is None else float((inputs * reach).sum())
    works = [Work(layer.name, part, written, driven) for part in ("forward", "weight gradient")]
    if any(earlier.params for earlier in layers[:position]):
        works.append(Work(layer.name, "input gradient", written, written / pool_area(layers[position + 1])))
    return works


def conv_reach(conv, shape: tuple[int, ...], output: tuple[int, ...]) -> np.ndarray:
    """(C, H, W) of the input and (O, H', W') of the output -> how many outputs each input enters, (C, H, W)."""
    axes = []
    for size, places in zip(shape[1:], output[1:], strict=True):
        offset = np.arange(size)[:, None] + conv.padding - np.arange(places) * conv.stride
        axes.append(((offset >= 0) & (offset < conv.kernel_size)).sum(1))
    return np.broadcast_to(output[0] * axes[0][:, None] * axes[1], shape)


def pool_area(after) -> int:
    """-> how many positions compete in a window of the max-pool that follows; 1 if none does."""
    from spikeflow.layers import MaxPool2d

    return after.kernel_size**2 if isinstance(after, MaxPool2d) and after.stride >= after.kernel_size else 1


# ---------------------------------------------------------------------------------------------------- tables


def stage_table(net, stages: Stages, step: float) -> str:
    """-> the first table."""
    rows = []
    parts = steps_of(net)
    for direction in BLOCKS:
        for part in parts if direction == "forward" else reversed(parts):
            described = ", ".join(describe(layer) if direction == "forward" else type(layer).__name__ for layer in part.layers)
            rows += stage_rows(stages, (direction, f"{part.name} {direction}"), f"{part.name} {described} {direction}", step)
        rows += stage_rows(stages, (direction, "between"), f"{direction}: Python between the steps", step)
    for name in (BEFORE, *OUTER):
        rows += stage_rows(stages, (name,), name, step)
    rows += stage_rows(stages, ("rest",), "rest (Python between the stages)", step)
    return harness.table(["stage", "ms", "calls", "share"], [*rows, ["step", f"{1e3 * step:.2f}", "1", "100.0 %"]])


def stage_rows(stages: Stages, path: tuple[str, ...], label: str, step: float) -> list[list[str]]:
    """-> the stage's row, and one for each operation that it calls."""
    if path not in stages:
        return []
    chosen = [(label, stages[path])]
    chosen += [(f"    {inner[-1]}", stage) for inner, stage in stages.items() if inner[:-1] == path]
    return [
        [text, f"{1e3 * stage.seconds:.2f}", str(stage.calls or ""), f"{100 * stage.seconds / step:.1f} %"]
        for text, stage in chosen
    ]


def describe(layer) -> str:
    """-> the layer with its options, unless they are long."""
    return repr(layer) if len(repr(layer)) <= 24 else type(layer).__name__


def steps_of(net) -> list:
    """-> the steps of the program of a training step, conversions aside."""
    (program,) = (program for _, program in net._programs.values() if program.kind.training)
    return [step for step in program.steps if step.layers]


def layer_rows(net, works: list[Work], stages: Stages, peak: float) -> list[dict]:
    """-> forward and backward of every step with weights: work, floor and time, and the parts of which it consists."""
    rows = []
    for direction in BLOCKS:
        for step in steps_of(net):
            names = {layer.name for layer in step.layers}
            parts = [work for work in works if work.layer in names and (work.part == "forward") == (direction == "forward")]
            if not parts:
                continue
            remaining = sum(work.remaining for work in parts)
            layers = ", ".join(type(layer).__name__ for layer in step.layers)
            row = {"layer": f"{step.name} {layers} {direction}", "remaining": remaining}
            row |= {"written": sum(work.written for work in parts), "floor_s": 2 * remaining / peak}
            row["seconds"] = stages[direction, f"{step.name} {direction}"].seconds
            rows.append(row | {"parts": [asdict(work) for work in parts]})
    return rows


def work_table(rows: list[dict], step: float) -> str:
    """-> the second table."""
    header = ["layer", "as written, M", "remaining, M", "floor, ms", "time, ms", "distance from the floor"]
    cells = []
    for row in rows:
        times = [f"{1e3 * row['floor_s']:.3f}", f"{1e3 * row['seconds']:.2f}", distance(row["seconds"], row["floor_s"])]
        cells.append([row["layer"], *millions(row), *times])
        cells += [[f"    {part['part']}", *millions(part), "", "", ""] for part in row["parts"] if len(row["parts"]) > 1]
    total = {key: sum(row[key] for row in rows) for key in ("written", "remaining", "floor_s")}
    times = [f"{1e3 * total['floor_s']:.3f}", f"{1e3 * step:.2f}", distance(step, total["floor_s"])]
    cells.append(["all, beside the whole step", *millions(total), *times])
    return f"multiply-accumulates of one step, in millions\n\n{harness.table(header, cells)}"


def millions(row: dict) -> list[str]:
    """-> cells of the work, as written and remaining."""
    return [f"{row[key] / 1e6:.2f}" for key in ("written", "remaining")]


def distance(seconds: float, floor: float) -> str:
    """-> how many times the floor it takes; nothing remains to be done if no neuron fires."""
    return f"{seconds / floor:.1f}" if floor else "-"


if __name__ == "__main__":
    sys.exit(main())
