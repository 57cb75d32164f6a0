"""Time a training step and a test step of SpikingJelly's Fashion-MNIST network, in turn with SpikingJelly.

    python benchmarks/fashion_step.py --peer-python ~/peers/bin/python      SpikingJelly in its own environment
    python benchmarks/fashion_step.py --warmup-iterations 0                 with the initial weights, which hardly fire

{Conv2d(3 x 3, padding 1, no bias) - BatchNorm2d - IFNode - MaxPool2d(2)} twice, Flatten, Linear(6272, 2048, no bias), IFNode,
Linear(2048, 10, no bias), IFNode, with 128 channels and ATan, on a batch of 128 images, the same at each of 4 time steps. A
training step clears the gradients, runs forward, the square error of the firing rates and backward, and lets SGD (lr 0.1,
momentum 0.9) change the weights. A test step is the forward pass in evaluation mode, with nothing kept. The weights are those
that spikeflow has trained for ``--warmup-iterations``, so that neurons fire as they do in training; they are restored before
every step, outside the timing.

First the losses of both steps must agree: nothing is timed that computes something else. Each side runs in a process of its own,
and they take turns. Peak memory is measured apart: a fresh process for each takes two steps and does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import candidates
import fashion
import harness
import tutorial6
from train_step import WORKER, peak_memory, python_of

STEPS = {"training step": False, "test step": True}  # name -> is it the forward pass alone?


def main(argv: list[str] | None = None) -> int:
    """Run the comparison -> exit status: 1 if a loss disagrees, or without SpikingJelly."""
    args = parse(argv)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = Path(folder) / "task.npz"
        workers = {name: stack.enter_context(harness.Worker(python_of(name, args), WORKER)) for name in candidates.FASHION}
        environment = {name: worker.ask("environment", threads=args.threads) for name, worker in workers.items()}
        environment["spikeflow"] = harness.environment(args.threads)  # which knows what was removed from the others'
        for name, facts in environment.items():
            print(f"{name}\n{harness.describe(facts)}\n")
        facts = make_task(args, path)
        for name, worker in workers.items():
            missing = worker.ask("make", name=name, task=str(path), network="fashion")
            if missing is not None:
                print(f"{name}: not importable ({missing}): name another interpreter with --peer-python")
                return 1
        results = {step: compare(step, workers, path, args) for step in STEPS}
    options = {key: value for key, value in vars(args).items() if key not in ("peer_python", "data_dir", "json")}
    harness.write_json(args.json, {"options": options, "environment": environment, **facts, "steps": results})
    return 0 if all("seconds" in result for result in results.values()) else 1


def parse(argv) -> argparse.Namespace:
    """-> the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, cores = parser.add_argument, harness.available_cores()
    add("--peer-python", default=sys.executable, metavar="PATH", help="interpreter that can import SpikingJelly")
    add("--rounds", type=int, default=5, help="of three steps each, whose median counts")
    add("--threads", type=int, default=cores, help="for both; default: all cores")
    add("--batch-size", type=int, default=fashion.BATCH_SIZE)
    add("--num-steps", type=int, default=fashion.NUM_STEPS)
    add("--channels", type=int, default=fashion.CHANNELS)
    add("--warmup-iterations", type=int, default=30, metavar="N", help="train the weights for N iterations first")
    add("--data-dir", type=Path, metavar="FOLDER", help="of Fashion-MNIST's files; MNIST's digits where they are not found")
    add("--no-memory", action="store_true", help="skip the processes that measure peak memory")
    add("--json", type=Path, metavar="PATH", help="write everything to this file")
    return parser.parse_args(argv)


def make_task(args, path: Path) -> dict[str, Any]:
    """Train the weights and write them with one batch to ``path`` -> the data set and how often each layer fires."""
    import spikeflow as sf

    sf.set_num_threads(args.threads)
    net = fashion.network(args.channels)
    dataset, loader = fashion.batches(args.data_dir, args.batch_size)
    loss = fashion.train(net, loader, args.warmup_iterations, args.num_steps)
    images, labels = next(iter(loader))
    candidates.Task(net.state_dict(), images, labels, args.num_steps, args.threads).save(path)
    rates = tutorial6.firing_rates(net, images, args.num_steps)
    densities = {layer: float(rate.mean()) for layer, rate in rates.items()}
    trained = f"weights after {args.warmup_iterations} iterations" + (f", loss {loss:.4f}" if args.warmup_iterations else "")
    print(f"{dataset}, {trained}")
    shown = ", ".join(f"layer {layer} {100 * d:.1f} %" for layer, d in densities.items())
    print(f"spikes a neuron and step, in evaluation mode: {shown}")
    return {"dataset": dataset, "loss": loss, "densities": densities}


def compare(step: str, workers: dict[str, harness.Worker], path: Path, args) -> dict[str, Any]:
    """Compare the losses and the times of a step -> all numbers; no "seconds" if the losses disagree."""
    inference = STEPS[step]
    runs = {name: lambda w=worker, name=name: w.ask("run", name=name, inference=inference) for name, worker in workers.items()}
    print(f"\n{step}, batch {args.batch_size}, {args.num_steps} time steps, {args.channels} channels, {args.threads} threads")
    losses = {name: run()["loss"] for name, run in runs.items()}
    if not harness.agree(losses):
        return {"losses": losses}
    seconds = harness.alternate({name: candidates.seconds_of(run) for name, run in runs.items()}, args.rounds)
    measured = [] if args.no_memory else list(workers)
    memory = {name: peak_memory(name, path, args, inference, "fashion") for name in measured}
    print(f"\n{args.rounds} rounds\n\n{harness.timing_table(seconds, memory)}")
    return {"losses": losses, "seconds": seconds, "peak_rss_mb": memory}


if __name__ == "__main__":
    sys.exit(main())
