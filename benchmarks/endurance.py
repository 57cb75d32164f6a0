"""Thousands of training steps in one process: do memory, open files or temporary files grow?

    python benchmarks/endurance.py               2,000 steps of a small csnn-fashion, a checkpoint every 50
    python benchmarks/endurance.py --steps 500

After a tenth of the steps all buffers have their size. From there on resident memory may grow by 2 % at most (the allocator's
play), and the number of open files and of files beside the checkpoint not at all.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

import spikeflow as sf
from spikeflow import checkpoint, presets

GROWTH = 0.02


def main(argv: list[str] | None = None) -> int:
    """Train and look -> exit status: 1 if something grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="training steps (default 2000)")
    args = parser.parse_args(argv)
    preset = presets.find("csnn-fashion")
    net = sf.Sequential(*presets.make_layers(preset, {**preset.defaults, "channels": 8}))
    optimizer, loss = sf.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), sf.losses.mse_rate_loss()
    images, labels = sf.datasets.mnist("train")
    loader = sf.datasets.DataLoader(images[:6400], labels[:6400], batch_size=32)
    rows, step, look = [], 0, max(args.steps // 10, 1)
    print(f"{'step':>6}{'memory MB':>11}{'open files':>12}{'files':>7}")
    with tempfile.TemporaryDirectory() as folder:
        while step < args.steps:
            for x, y in loader:
                step += 1
                optimizer.zero_grad()
                net.loss_and_grad(x, y, loss, num_steps=4)
                optimizer.step()
                if step % min(50, look) == 0:
                    state, arrays = optimizer.state_dict()
                    checkpoint.save(Path(folder) / "checkpoint.npz", net, {"optimizer": state}, arrays)
                if step % look == 0:
                    rows.append((step, memory(), len(os.listdir("/proc/self/fd")), len(os.listdir(folder))))
                    print("{:>6}{:>11.1f}{:>12}{:>7}".format(*rows[-1]), flush=True)
                if step == args.steps:
                    break
    grown = rows[-1][1] / rows[0][1] - 1
    steady = len({row[2:] for row in rows}) == 1
    print(f"memory {100 * grown:+.2f} %, files {'steady' if steady else 'GROW'}")
    return 0 if grown <= GROWTH and steady else 1


def memory() -> float:
    """-> resident megabytes of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    sys.exit(main())
