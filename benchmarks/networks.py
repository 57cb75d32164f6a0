"""Time one training step of three other networks, in turn with PyTorch.

    python benchmarks/networks.py                                      this Python can import both
    python benchmarks/networks.py --peer-python ~/peers/bin/python     PyTorch in its own environment
    python benchmarks/networks.py --only mlp --json networks.json

stack        three 3 x 3 convolutions with padding, two max-pools: 25 time steps
mlp          784 - 1000 - 10, beta 0.95, atan, the cross-entropy of the membranes summed over time: 25 time steps
pool-after   Tutorial 6's layers with the max-pools behind the neurons: 50 time steps

stack and pool-after with beta 0.5, fast sigmoid of slope 25 and the rate cross-entropy; zoo.py holds the details. PyTorch runs
each in several ways, step by step and on all steps at once, see candidates/pytorch_network.py; the fastest is "PyTorch's best".

Both sides have weights that spikeflow has trained, restored before every step outside the timing, and the same batch of MNIST.
A step clears the gradients, runs forward, the loss and backward, and lets Adam change the weights. First all losses must
agree: nothing is timed that computes something else.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import candidates
import harness
import tutorial6
import zoo

WORKER = Path(__file__).with_name("network_worker.py")


def main(argv: list[str] | None = None) -> int:
    """Run the comparisons -> exit status: 1 if a loss disagrees, or without PyTorch."""
    args = parse(argv)
    with harness.Worker(args.peer_python, WORKER) as worker:
        environment = {"spikeflow": harness.environment(args.threads)}
        environment["peers"] = worker.ask("environment", threads=args.threads)
        for side, facts in environment.items():
            print(f"{side}\n{harness.describe(facts)}\n")
        if "torch" not in environment["peers"]["packages"]:
            print(f"{args.peer_python} has no PyTorch: name another with --peer-python")
            return 1
        results = {name: compare(name, worker, args) for name in args.only}
    compared = {name: result for name, result in results.items() if "seconds" in result}
    if compared:
        print(f"\nmedian of {args.rounds} rounds, batch {args.batch_size}, threads: {args.threads}\n\n{summary(compared)}")
    options = {key: value for key, value in vars(args).items() if key not in ("peer_python", "json")}
    harness.write_json(args.json, {"options": options, "environment": environment, "networks": results})
    return 0 if len(compared) == len(results) else 1


def parse(argv) -> argparse.Namespace:
    """-> the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, cores, names = parser.add_argument, harness.available_cores(), list(zoo.NETWORKS)
    add("--peer-python", default=sys.executable, metavar="PATH", help="interpreter that has PyTorch")
    add("--only", nargs="+", choices=names, default=names, metavar="NETWORK", help=f"of {', '.join(names)}; default: all")
    add("--rounds", type=int, default=5)
    add("--threads", type=int, default=cores, help="for both; default: all cores")
    add("--batch-size", type=int, default=tutorial6.BATCH_SIZE)
    add("--num-steps", type=int, metavar="T", help="default: each network's own")
    add("--warmup-iterations", type=int, default=100, metavar="N", help="train the weights for N iterations first")
    add("--json", type=Path, metavar="PATH", help="write everything to this file")
    return parser.parse_args(argv)


def compare(name: str, worker: harness.Worker, args) -> dict[str, Any]:
    """Train one network, compare the losses and the times of a step -> all numbers; no "seconds" if a loss disagrees."""
    import spikeflow as sf

    description = zoo.NETWORKS[name]
    num_steps = args.num_steps or description.num_steps
    sf.set_num_threads(args.threads)
    net, loss_fn = zoo.network(description), zoo.loss_fn(description)
    print(f"\n{name}, {num_steps} time steps")
    if args.warmup_iterations:
        loss = tutorial6.train(net, args.warmup_iterations, args.batch_size, num_steps, loss_fn, description.lr)
        print(f"weights after {args.warmup_iterations} iterations, loss {loss:.4f}")
    task = candidates.Task(net.state_dict(), *tutorial6.batch(args.batch_size), num_steps, args.threads)
    rates = tutorial6.firing_rates(net, task.images, num_steps)
    densities = {layer: float(rate.mean()) for layer, rate in rates.items()}
    print("spikes a neuron and step: " + ", ".join(f"layer {layer} {100 * d:.1f} %" for layer, d in densities.items()))
    if min(densities.values()) == 0:
        print("warning: a layer is silent: what follows is not the cost of a network that works")
    candidate = candidates.make("spikeflow", task, net=net, loss_fn=loss_fn, lr=description.lr)
    steps = {"spikeflow": lambda: candidates.run(candidate, task, inference=False)} | peer_steps(name, task, worker)
    result = {"num_steps": num_steps, "densities": densities, "losses": {way: step()["loss"] for way, step in steps.items()}}
    if not harness.agree(result["losses"]):
        return result
    seconds = harness.alternate({way: candidates.seconds_of(step) for way, step in steps.items()}, args.rounds)
    print(f"\n{harness.timing_table(seconds, {})}")
    return result | {"seconds": seconds, "best_peer": best_peer(seconds)}


def peer_steps(name: str, task: candidates.Task, worker: harness.Worker) -> dict[str, Callable[[], dict]]:
    """-> {way to run it: function that takes the step in the worker}."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.npz"
        task.save(path)
        variants = worker.ask("make", network=name, task=str(path))
    return {f"PyTorch, {v}": lambda v=v: worker.ask("run", name=v, inference=False) for v in variants}


def best_peer(seconds: dict[str, list[float]]) -> str:
    """-> PyTorch's way with the smallest median."""
    return min((way for way in seconds if way != "spikeflow"), key=lambda way: statistics.median(seconds[way]))


def summary(results: dict[str, dict[str, Any]]) -> str:
    """-> spikeflow beside PyTorch's best, one row a network."""
    rows = []
    for name, result in results.items():
        ours, theirs = result["seconds"]["spikeflow"], result["seconds"][result["best_peer"]]
        medians = statistics.median(ours), statistics.median(theirs)
        cells = [f"{medians[0]:.4f}", f"{min(ours):.4f}", f"{medians[1]:.4f}", f"{min(theirs):.4f}"]
        densities = " / ".join(f"{100 * density:.1f}" for density in result["densities"].values())
        way = result["best_peer"].removeprefix("PyTorch, ")
        rows.append([name, *cells, f"{medians[1] / medians[0]:.2f}", way, densities])
    header = ["network", "spikeflow s", "min s", "PyTorch's best s", "min s", "ratio", "which", "spikes of each layer, %"]
    return harness.table(header, rows)


if __name__ == "__main__":
    sys.exit(main())
