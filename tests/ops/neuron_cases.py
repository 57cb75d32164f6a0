"""Every neuron with every option, small, for the tests of the neurons; as a script, the CPU's loops beside the reference.

    NUMBA_DISABLE_JIT=1 python tests/ops/neuron_cases.py

runs the very functions that the CPU backend compiles in plain Python, in all combinations: compiling each would take an hour.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, replace

import numpy as np

from spikeflow import backends, surrogate
from spikeflow.ops.neurons.model import COMMON, Model, scalar
from spikeflow.ops.surrogate import SURROGATES

NUMBERS = {  # of a neuron's own parameters; two sets, for the two kinds of features
    "leaky": {"beta": (0.7, 0.9)},
    "lapicque": {"beta": (0.8, 0.6), "gain": (0.7, 1.1)},
    "synaptic": {"alpha": (0.6, 0.8), "beta": (0.7, 0.5)},
    "alpha": {"alpha": (0.85, 0.7), "beta": (0.6, 0.5), "tau": (1.9, 1.4)},
    "rleaky": {"beta": (0.7, 0.9)},
    "rsynaptic": {"alpha": (0.6, 0.8), "beta": (0.7, 0.5)},
    "leaky_integrator": {"beta": (0.7, 0.9)},
    "if_node": {"v_reset": (-0.2, 0.1)},
    "lif_node": {"v_reset": (-0.2, 0.1), "tau": (1.6, 1.3)},
    "parametric_lif_node": {"v_reset": (-0.2, 0.1), "q": (0.6, 0.8)},
}
NODES = tuple(neuron for neuron in NUMBERS if neuron.endswith("_node"))
SHARED = {"threshold": (0.8, 0.6), "graded_spikes_factor": (1.5, 0.5), "V": (0.4, -0.6)}
T, SAMPLES, FEATURES = 7, 3, 4
LEARNS = (True,) * 6  # all of params
RATIONAL = surrogate.fast_sigmoid(slope=4)


@dataclass(frozen=True)
class Case:
    """A model, and how it is run."""

    model: Model
    vector: bool = False  # params for each feature
    static: bool = False
    truncate: int | None = None

    def __str__(self) -> str:
        m = self.model
        flags = {
            "at_once": not (m.reset_delay or m.key.node), "inhibition": m.inhibition, "feedback": m.feedback, "graded": m.graded,
            "vector": self.vector, "static": self.static, f"truncate{self.truncate}": self.truncate,
            "detached": m.detach, "undecayed": not m.decay_input,
        }  # fmt: skip
        return "-".join([m.neuron, m.reset, m.surrogate.name, *(name for name, on in flags.items() if on)])

    @property
    def params(self) -> np.ndarray:
        """(P, 1), or (P, FEATURES): float64."""
        own = NUMBERS[self.model.neuron] | ({"v_reset": (0, 0)} if self.model.reset == "soft" else {})
        rows = [(SHARED | own)[name] for name in COMMON + scalar(self.model.neuron).PARAMS]
        return np.array([[first, second] * (FEATURES // 2) for first, second in rows])[:, : FEATURES if self.vector else 1]

    def draw(self):
        """-> x (T or 1, M), dspikes, dmembrane (T, M), all float64."""
        rng = np.random.default_rng(list(str(replace(self, truncate=None)).encode()))
        x = rng.normal(0.35, 0.6, (1 if self.static else T, SAMPLES * FEATURES))
        if self.model.key.node:
            x *= 2  # the leak takes its share of the input too
        return x, *rng.normal(size=(2, T, SAMPLES * FEATURES))


def models() -> list[Model]:
    """-> every neuron with every reset, delayed and at once, detached and not, where it has both."""
    found = []
    for neuron in [name for name in NUMBERS if name not in NODES]:
        for reset, delay in itertools.product(scalar(neuron).RESETS, (True, False)):
            if delay or (reset != "none" and neuron not in ("lapicque", "alpha", "leaky_integrator")):
                fires = neuron != "leaky_integrator"
                found.append(Model(neuron, reset, RATIONAL, delay, feedback=neuron.startswith("r"), fires=fires))
    for neuron, reset, detach, decay in itertools.product(NODES, ("hard", "soft"), (False, True), (True, False)):
        if decay or neuron != "if_node":
            found.append(Model(neuron, reset, RATIONAL, detach=detach, decay_input=decay))
    return found


def cases() -> list[Case]:
    """-> every model plain and with all else that it can do, in turn."""
    found = []
    for number, model in enumerate(models()):
        found += [Case(model), Case(model, vector=True, truncate=3)]
        if model.key.node:
            found.append(Case(model, vector=number % 2 == 0, static=True))
            continue
        graded, inhibited = (replace(model, **{name: model.fires}) for name in ("graded", "inhibition"))
        found += [
            Case(graded, vector=number % 2 == 0, static=True),
            Case(inhibited, vector=number % 2 == 1, static=number % 3 == 0),
        ]
    for make in SURROGATES.values():
        found.append(Case(Model("leaky", "subtract", make(), False)))
    return list({str(case): case for case in found}.values())


def run(ops, case: Case, smooth: bool = False, dtype=np.float64):
    """-> spikes, membrane, dx, dparams of one forward and backward pass."""
    x, dspikes, dmembrane = (array.astype(dtype) for array in case.draw())
    params = case.params.astype(dtype)
    spikes, trajectory = ops.neuron_forward(case.model, x, T, params, smooth=smooth, keep_states=True)
    results = [spikes, trajectory.membrane]
    results += ops.neuron_backward(
        case.model, dspikes, dmembrane, trajectory, len(x), params, x, LEARNS[: len(params)], case.truncate, smooth=smooth
    )  # fmt: skip
    return results


def in_pieces(ops, case: Case, length: int, detached: bool):
    """As ``run``, ``length`` steps at a time: the state is handed on, and the gradient is handed back unless ``detached``."""
    x, dspikes, dmembrane = case.draw()
    model, params, M = case.model, case.params, x.shape[1]
    state = np.tile(model.initial_state(params), M // params.shape[1])
    carry, forward = np.zeros_like(state), []
    pieces = [slice(t, min(t + length, T)) for t in range(0, T, length)]
    steps = [x if case.static else x[piece] for piece in pieces]
    for piece, step in zip(pieces, steps, strict=True):
        forward.append(ops.neuron_forward(model, step, piece.stop - piece.start, params, state, keep_states=True))
    dx, dparams = np.zeros_like(x), np.zeros_like(params)
    for piece, step, (_, trajectory) in reversed(list(zip(pieces, steps, forward, strict=True))):
        given, learns = (dspikes[piece], dmembrane[piece]), LEARNS[: len(params)]
        carried = None if detached else carry
        di, down = ops.neuron_backward(model, *given, trajectory, len(step), params, step, learns, carry=carried)
        dx[slice(None) if case.static else piece] += di
        dparams += down
    spikes = np.concatenate([spikes for spikes, _ in forward])
    membrane = np.concatenate([forward[0][1].membrane[:1], *(trajectory.membrane[1:] for _, trajectory in forward)])
    return [spikes, membrane, dx, dparams]


def unlike(actual, expected) -> float:
    """-> the largest difference of two lists of arrays, relative to each array's largest number."""
    return max(abs(a - e).max() / (abs(e).max() or 1.0) for a, e in zip(actual, expected, strict=True))


def main() -> int:
    """Compare the backends, print the worst case -> exit status."""
    cpu, reference = backends.load("cpu"), backends.load("reference")
    errors = {}
    for case in cases():
        for smooth in (False, True):
            errors[f"{case}{' smooth' if smooth else ''}"] = unlike(run(cpu, case, smooth), run(reference, case, smooth))
    worst = max(errors, key=errors.get)
    print(f"{len(errors)} runs, largest difference {errors[worst]:.1e}: {worst}")
    return not errors[worst] <= 1e-12


if __name__ == "__main__":
    sys.exit(main())
