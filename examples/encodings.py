"""One MNIST digit as spikes, in three codes: rate, latency, and delta, which needs something that moves.

    python examples/encodings.py [--out FOLDER]

Draws the rasters side by side (encodings.png) and the rate-coded digit as an animation (rate_code.gif).
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import spikeflow as sf
from spikeflow import encoding, plotting

T = 24
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path(), help="folder of the pictures")
out = parser.parse_args().out
out.mkdir(parents=True, exist_ok=True)

images, labels = sf.datasets.mnist("test")
digit = images[0].T.astype(np.float32) / 255  # (28, 28), columns first: a raster then shows motion as a slope
moving = np.stack([np.roll(digit, t - T // 2, axis=0) for t in range(T)])  # a pixel to the right at each step

codes = {
    "rate: p = grey level": encoding.rate(digit, T, seed=0),
    "latency: bright pixels first": encoding.latency(digit, T, tau=T - 1, linear=True, clip=True),
    "delta: what moves (blue on, red off)": encoding.delta(moving, threshold=0.3, padding=True, off_spike=True),
}
figure = Figure((13, 6.5), layout="constrained")
print(f"a {labels[0]} of 784 pixels, {np.count_nonzero(digit)} of them with ink, in {T} steps")
for ax, (name, spikes) in zip(figure.subplots(1, 3, sharey=True), codes.items(), strict=True):
    plotting.raster(spikes > 0, ax, size=2.5)
    if (spikes < 0).any():
        plotting.raster(spikes < 0, ax, size=2.5, color="#D55E00")
    ax.set(title=name, ylabel="pixel, column by column")
    ax.label_outer()
    fired = np.abs(spikes)
    pixels = np.count_nonzero(fired.any(0))
    print(f"{name:<38}{np.count_nonzero(fired):5d} spikes of {pixels:3d} pixels, {fired.sum() / max(pixels, 1):5.1f} each")
figure.savefig(out / "encodings.png", dpi=120)
print(out / "encodings.png")

movie = plotting.animator(codes["rate: p = grey level"].swapaxes(1, 2))
plotting.save_animation(movie, out / "rate_code.gif", fps=8, dpi=60)
print(out / "rate_code.gif")
