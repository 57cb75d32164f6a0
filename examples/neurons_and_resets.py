"""The same current into eight neurons: Leaky with its three resets, one step later and at once, Synaptic, and Alpha.

    python examples/neurons_and_resets.py [--out FOLDER]

Draws their membranes (neurons.png) and prints the recurrences that one of them runs, forward and backward, in numbers.
"""

import argparse
from pathlib import Path

import numpy as np

import spikeflow as sf
from spikeflow import plotting

T, THRESHOLD = 50, 1.0
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path(), help="folder of the picture")
out = parser.parse_args().out
out.mkdir(parents=True, exist_ok=True)

neurons = {
    f"Leaky, {reset}, {'a step later' if delay else 'at once'}": sf.Leaky(0.8, reset_mechanism=reset, reset_delay=delay)
    for reset in ("subtract", "zero", "none")
    for delay in (True, False)
}
neurons["Synaptic, subtract, a step later"] = sf.Synaptic(alpha=0.5, beta=0.8)
neurons["Alpha, zero, a step later"] = sf.Alpha(alpha=0.85, beta=0.7)

current = np.zeros((T, 1, 1), np.float32)  # of one sample with one feature
current[5:35] = 0.3

columns = []
print("neuron                             spikes   first at   highest membrane")
for name, neuron in neurons.items():
    spikes, membrane = (array[:, 0, 0] for array in sf.Sequential(neuron).forward(current))
    columns.append((spikes, membrane))
    print(f"{name:<34}{int(spikes.sum()):7d}{spikes.argmax():11d}{membrane.max():19.3f}")
spikes, membranes = (np.stack(column, axis=1) for column in zip(*columns, strict=True))

figure = plotting.traces(membranes, spikes, THRESHOLD, dim=(4, 2))
for ax, name in zip(figure.axes, neurons, strict=True):
    ax.set_title(name, fontsize=9)
    ax.axvspan(5, 34, color="0.93", zorder=0)  # while the current flows
figure.set_size_inches(9, 8)
figure.savefig(out / "neurons.png", dpi=110)
print(f"{out / 'neurons.png'}\n")

print(sf.explain(neurons["Synaptic, subtract, a step later"], current[5:15, 0, 0]))
