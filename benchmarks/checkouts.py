"""Training steps of two checkouts of spikeflow, in turn: is the newer one slower anywhere?

    git worktree add ../before COMMIT
    python benchmarks/checkouts.py --other ../before                     five networks, all threads
    python benchmarks/checkouts.py --other ../before --only tutorial6 --threads 1
    python benchmarks/checkouts.py --other ../before --only tiny --threads 1 --batch-sizes 128 512    Python's own time
    python benchmarks/checkouts.py --other ../before --first-step        fresh processes, the cache of kernels empty and filled

Each checkout lives in a process of its own. Losses must be equal; what is compared are medians of rounds. ``tiny`` are Tutorial
6's layers, so small that kernels cost next to nothing: what is left is Python's own time, by two batch sizes that of a block and
that of a step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import harness
import tutorial6

WORKER = Path(__file__).with_name("checkout_worker.py")
NETWORKS = ("tutorial6", "mlp", "csnn-fashion", "stack", "pool-after")
BLOCK = 16  # samples


def main(argv: list[str] | None = None) -> int:
    """Compare -> exit status: 1 if a loss differs, 2 if a network is slower than allowed."""
    args = parse(argv)
    checkouts = {"this": Path(__file__).resolve().parents[1], "other": args.other.resolve()}
    print(harness.describe(harness.environment(args.threads)) + "\n")
    if args.first_step:
        return first_steps(checkouts, args)
    with tempfile.TemporaryDirectory() as folder:
        workers = {name: worker(path, Path(folder) / name) for name, path in checkouts.items()}
        try:
            rows = [row for name in args.only for row in compare(name, workers, args)]
        finally:
            for each in workers.values():
                each.__exit__(None, None, None)
    print(
        harness.table(
            ["network", "batch", "this, ms", "other, ms", "this / other", "quartiles", "loss"], [row[0] for row in rows]
        )
    )
    if "tiny" in args.only and len(args.batch_sizes) == 2:
        print(own_time([row for row in rows if row[0][0] == "tiny"], args.batch_sizes))
    if any(row[0][-1] == "DIFFERS" for row in rows):
        return 1
    return 2 if args.most and any(row[1] > args.most for row in rows) else 0


def parse(argv) -> argparse.Namespace:
    """-> the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--other", type=Path, required=True, metavar="FOLDER", help="a checkout of another commit")
    add("--only", nargs="+", choices=(*NETWORKS, "tiny"), default=NETWORKS)
    add("--rounds", type=int, default=15)
    add("--repeats", type=int, default=3, help="steps of a turn")
    add("--batch-sizes", type=int, nargs="+", default=[tutorial6.BATCH_SIZE])
    add("--warmup-iterations", type=int, default=60, metavar="N", help="train the weights for N iterations first")
    add("--threads", type=int, default=harness.available_cores())
    add("--most", type=float, metavar="RATIO", help="exit status 2 if a network takes more than so many times the other's time")
    add("--first-step", action="store_true", help="from the start of a process to the end of its first step")
    return parser.parse_args(argv)


def worker(path: Path, cache: Path) -> harness.Worker:
    """-> a process that imports the checkout in the folder."""
    variables = {"PYTHONPATH": str(path), "SPIKEFLOW_CACHE_DIR": str(cache)}
    return harness.Worker(sys.executable, WORKER, variables)


def compare(network: str, workers: dict, args) -> list[tuple[list[str], float]]:
    """-> rows of the table, each with the ratio of the medians."""
    rows = []
    for batch_size in args.batch_sizes:
        losses = {}
        for name, each in workers.items():
            each.ask("make", network=network, batch_size=batch_size, warmup=args.warmup_iterations, threads=args.threads)
            losses[name] = each.ask("run", network=network, repeats=2)["loss"]
        steps = {
            name: lambda each=each: each.ask("run", network=network, repeats=args.repeats)["seconds"]
            for name, each in workers.items()
        }
        seconds = harness.alternate(steps, args.rounds, steps=1)
        ratios = [a / b for a, b in zip(seconds["this"], seconds["other"], strict=True)]
        middle = {name: 1e3 * statistics.median(times) for name, times in seconds.items()}
        low, ratio, high = statistics.quantiles(ratios, n=4)
        cells = [
            network,
            str(batch_size),
            f"{middle['this']:.2f}",
            f"{middle['other']:.2f}",
            f"{ratio:.3f}",
            f"{low:.3f}-{high:.3f}",
        ]
        rows.append(([*cells, "equal" if losses["this"] == losses["other"] else "DIFFERS"], ratio))
    return rows


def own_time(rows, batch_sizes: list[int]) -> str:
    """-> the time of a block and of a step around its blocks, of both checkouts."""
    small, large = (batch // BLOCK for batch in batch_sizes)
    lines = []
    for name, column in (("this", 2), ("other", 3)):
        times = [float(row[0][column]) for row in rows]
        block = (times[1] - times[0]) / (large - small)
        lines.append(f"{name}: {times[0] - small * block:.3f} ms a step and {block:.3f} ms a block of {BLOCK}")
    return "\n".join(["", *lines])


def first_steps(checkouts: dict[str, Path], args) -> int:
    """Time fresh processes from their start to the end of their first Tutorial-6 step -> exit status."""
    rows = []
    for name, path in checkouts.items():
        with tempfile.TemporaryDirectory() as folder:
            for state in ("empty", "filled"):
                found = [first_step(path, Path(folder) / "kernels", args) for _ in range(1 if state == "empty" else args.rounds)]
                seconds, memory = (statistics.median(values) for values in zip(*found, strict=True))
                rows.append([name, state, f"{seconds:.2f}", f"{memory:.0f}"])
    print(harness.table(["checkout", "cache", "s", "peak MB"], rows))
    return 0


def first_step(path: Path, cache: Path, args) -> tuple[float, float]:
    """-> seconds and peak memory, in MB, of a fresh process that takes one step."""
    start = time.perf_counter()
    with worker(path, cache) as each:
        each.ask("make", network="tutorial6", batch_size=args.batch_sizes[0], warmup=0, threads=args.threads)
        each.ask("run", network="tutorial6", repeats=1)
        return time.perf_counter() - start, each.ask("peak_rss")


if __name__ == "__main__":
    sys.exit(main())
