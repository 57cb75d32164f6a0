"""snnTorch's Tutorial 5 in both libraries: the first losses, the accuracy after an epoch, and the time of a training step.

    python benchmarks/tutorial5.py --peer-python PYTHON

784-1000-10 leaky neurons, beta 0.95, atan, 25 steps, batch 128, Adam 5e-4, membrane cross-entropy summed over time, one epoch of
MNIST. For each seed both libraries start from spikeflow's initial weights and see its batches, in turn. Accuracy is that of the
most spikes, over the whole test set. Steps are timed alone, without the loading of data.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import harness  # before numpy
import numpy as np

import spikeflow as sf
from spikeflow import presets, training

WORKER = Path(__file__).with_name("snntorch_tutorial5.py")
PRESET = presets.find("fcn-mnist")
COMPARED = 10  # losses


def main() -> int:
    """Run both for each seed, print the table -> exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=sys.executable, metavar="PATH", help="interpreter that can import snnTorch")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=468, help="of the epoch's 468")
    parser.add_argument("--threads", type=int, default=harness.available_cores())
    parser.add_argument("--json", type=Path, metavar="PATH")
    args = parser.parse_args()
    sf.set_num_threads(args.threads)
    rows, results = [], []
    with tempfile.TemporaryDirectory() as folder, harness.Worker(args.peer_python, WORKER) as worker:
        for seed in range(args.seeds):
            ours, theirs = run(seed, args, folder, worker)
            difference = max(abs(a - b) / b for a, b in zip(ours["losses"][:COMPARED], theirs["losses"], strict=False))
            results.append({"spikeflow": ours, "snntorch": theirs, "difference": difference})
            cells = [f"{100 * side['accuracy']:.2f} %" for side in (ours, theirs)]
            times = [f"{side['milliseconds']:.2f}" for side in (ours, theirs)]
            rows.append([str(seed), *cells, *times, f"{theirs['milliseconds'] / ours['milliseconds']:.1f}", f"{difference:.1e}"])
            print(f"seed {seed}: {rows[-1][1:]}", file=sys.stderr)
    heads = ["seed", "spikeflow", "snnTorch", "ms a step", "snnTorch's", "times", f"first {COMPARED} losses, relative difference"]
    print(harness.table(heads, rows))
    harness.write_json(args.json, {"environment": harness.environment(args.threads), "results": results})
    return summarize(results)


def run(seed: int, args, folder: str, worker) -> tuple[dict, dict]:
    """Train both with this seed -> losses, accuracy and milliseconds of each."""
    net = sf.Sequential(*presets.make_layers(PRESET, PRESET.defaults), seed=seed)
    images, labels = sf.datasets.mnist("train")
    test = sf.datasets.mnist("test")
    loader = sf.datasets.DataLoader(images, labels, batch_size=128, shuffle=True, drop_last=True, seed=seed)
    source = str(Path(folder) / "source.npz")
    flat = {"images": images.reshape(len(images), -1), "test_images": test[0].reshape(len(test[0]), -1)}
    np.savez(source, **net.state_dict(), **flat, labels=labels, test_labels=test[1], order=loader.order(0))
    options = dict(iterations=args.iterations, lr=PRESET.lr, threads=args.threads)
    theirs = worker.ask("train", source=source, target="", **options)
    optimizer, loss_fn = sf.optim.Adam(net.parameters(), lr=PRESET.lr), sf.losses.ce_membrane_loss()
    losses, seconds = [], []
    for number, (x, y) in enumerate(loader):
        if number == args.iterations:
            break
        begin = time.perf_counter()
        net.zero_grad()
        losses.append(net.loss_and_grad(x, y, loss_fn, num_steps=PRESET.num_steps)[0])
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
    accuracy = training.evaluate(net, *test, PRESET.num_steps)
    return {"losses": losses, "accuracy": accuracy, "milliseconds": 1e3 * statistics.median(seconds)}, theirs


def summarize(results: list[dict]) -> int:
    """Print the means -> exit status: 1 if losses differ, or accuracy is more than two standard errors below the peer's."""
    ours, theirs = ([100 * result[side]["accuracy"] for result in results] for side in ("spikeflow", "snntorch"))
    ratio = statistics.median(r["snntorch"]["milliseconds"] / r["spikeflow"]["milliseconds"] for r in results)
    print(f"\nmean accuracy {statistics.mean(ours):.2f} % and {statistics.mean(theirs):.2f} %, a step {ratio:.1f} times faster")
    low = False
    if len(results) > 1:
        error = ((statistics.variance(ours) + statistics.variance(theirs)) / len(results)) ** 0.5
        print(f"standard error of the difference {error:.2f} points")
        low = statistics.mean(ours) < statistics.mean(theirs) - 2 * error
    return int(low or max(result["difference"] for result in results) > 1e-3)


if __name__ == "__main__":
    sys.exit(main())
