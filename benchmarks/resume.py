"""Kill trainings with SIGKILL at random iterations, resume them, and compare what they end with to runs that nobody killed.

    python benchmarks/resume.py                  20 kill points, with optimizers, schedules and threads drawn at random
    python benchmarks/resume.py --points 5 --seed 3

Every run trains a small csnn-fashion network on a part of the embedded MNIST for two epochs, with all that a run has:
batch normalisation, checkpoints every few iterations, evaluations. Compared are the bits of all arrays of the last checkpoint
(parameters, running statistics, moments), its counts, and the rows of metrics without their times: one hash for each pair.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OPTIMIZERS = {
    "sgd": ["--optimizer", "sgd", "--lr", "0.1", "--momentum", "0.9"],
    "sgd without momentum": ["--optimizer", "sgd", "--lr", "0.1", "--momentum", "0"],
    "adam": ["--optimizer", "adam", "--lr", "0.01"],
}
SCHEDULES = {
    "none": ["--lr-scheduler", "none"],
    "step": ["--lr-scheduler", "step", "--step-size", "1", "--gamma", "0.5"],
    "cosine": ["--lr-scheduler", "cosine", "--T-max", "3"],
}
NETWORK = ["--channels", "4", "--dataset", "mnist", "--subset", "50", "--batch-size", "32", "--epochs", "2"]
TIMES = ("seconds",)  # of a row of metrics
STATE_TIMES = ("seconds",)  # of a checkpoint's training state


def main(argv: list[str] | None = None) -> int:
    """Run all pairs -> exit status: 1 if one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20, help="kill points (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    args = parser.parse_args(argv)
    draw, failed, whole = random.Random(args.seed), 0, {}
    print(f"{'optimizer':<22}{'schedule':<10}{'threads':>8}{'killed at':>11}  hash")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.points):
            optimizer, schedule, threads = draws(number, draw)
            options = [*NETWORK, *OPTIMIZERS[optimizer], *SCHEDULES[schedule]]
            key = optimizer, schedule
            if key not in whole:
                whole[key] = finish(start(Path(folder) / f"whole-{len(whole)}", options, draw.choice((1, 2))))
            expected, total = whole[key]
            at = draw.randrange(1, total)
            process = start(
                Path(folder) / f"killed-{number}", [*options, "--checkpoint-every", str(draw.choice((1, 3, 10)))], threads
            )
            kill(process, at)
            found, _ = finish(resume(process[0], draw.choice((1, 2, 3))))
            failed += found != expected
            verdict = "" if found == expected else f"  DIFFERS from {expected}"
            print(f"{optimizer:<22}{schedule:<10}{threads:>8}{at:>11}  {found}{verdict}", flush=True)
    print(f"{args.points} pairs, {failed} differ")
    return 1 if failed else 0


def draws(number: int, draw: random.Random) -> tuple[str, str, int]:
    """-> optimizer, schedule, threads: each once before any is drawn at random."""
    names = list(OPTIMIZERS), list(SCHEDULES), [1, 2, 3]
    return tuple(options[number] if number < len(options) else draw.choice(options) for options in names)


def start(folder: Path, options: list[str], threads: int) -> tuple[Path, subprocess.Popen]:
    """-> the run folder and the process that trains there."""
    command = [sys.executable, "-m", "spikeflow", "train", "csnn-fashion", *options, "--out-dir", str(folder)]
    return folder, spawn([*command, "--threads", str(threads)])


def resume(folder: Path, threads: int) -> tuple[Path, subprocess.Popen]:
    """-> the same of a run that goes on."""
    return folder, spawn([sys.executable, "-m", "spikeflow", "train", "--resume", str(folder), "--threads", str(threads)])


def spawn(command: list[str]) -> subprocess.Popen:
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def kill(run: tuple[Path, subprocess.Popen], at: int) -> None:
    """SIGKILL once the metrics have a row of iteration ``at`` (and wherever the process is by then)."""
    folder, process = run
    metrics = folder / "metrics.jsonl"
    while process.poll() is None:
        if metrics.exists() and f'"iteration": {at},' in metrics.read_text("utf-8"):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait()
    process.stderr.close()


def finish(run: tuple[Path, subprocess.Popen]) -> tuple[str, int]:
    """-> the hash of what a run ends with, and its iterations."""
    import numpy as np

    folder, process = run
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"training ended with {process.returncode}: {errors[-2000:]}")
    digest = hashlib.sha256()
    with np.load(folder / "checkpoint-latest.npz") as archive:
        for name in sorted(archive.files):
            if name != "spikeflow":
                digest.update(name.encode() + archive[name].tobytes())
        info = json.loads(archive["spikeflow"].tobytes())["info"]
    state = {key: value for key, value in info["training"].items() if key not in STATE_TIMES}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
    digest.update(json.dumps([state, rows], sort_keys=True).encode())
    return digest.hexdigest()[:16], info["iteration"]


if __name__ == "__main__":
    sys.exit(main())
