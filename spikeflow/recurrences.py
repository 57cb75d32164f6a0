"""A neuron layer's recurrences in words and numbers: what one of its neurons computes, forward and backward."""

from __future__ import annotations

import numpy as np

from .layers import Neuron
from .ops.neurons.model import COMMON, Model
from .ops.neurons.reference import neuron_backward, neuron_forward

__all__ = ["explain"]

# A neuron's own step without its reset, and that step backward: {name} stands for a number.
OWN = {
    "leaky": (["b[t] = {beta} m[t-1] + i[t]"], ["di[t] = db[t]", "to m[t-1]: {beta} db[t]"]),
    "lapicque": (["b[t] = {beta} m[t-1] + {gain} i[t]"], ["di[t] = {gain} db[t]", "to m[t-1]: {beta} db[t]"]),
    "synaptic": (
        ["syn[t] = {alpha} syn[t-1] + i[t]", "b[t] = {beta} m[t-1] + syn[t]"],
        ["di[t] = db[t] + {alpha} di[t+1]", "to m[t-1]: {beta} db[t]"],
    ),
    "alpha": (
        ["e[t] = {alpha} e[t-1] + i[t]", "h[t] = {beta} h[t-1] - i[t]", "b[t] = {tau} (e[t] + h[t])"],
        ["de[t] = {tau} db[t] + {alpha} de[t+1]", "dh[t] = {tau} db[t] + {beta} dh[t+1]", "di[t] = de[t] - dh[t]"],
    ),
}
OWN |= {"rleaky": OWN["leaky"], "rsynaptic": OWN["synaptic"], "leaky_integrator": OWN["leaky"]}
# The same of a node, with and without the leak's share of the input.
NODES = {
    ("if_node", True): (["u[t] = m[t-1] + x[t]"], ["dx[t] = du[t]", "to m[t-1]: du[t]"]),
    ("lif_node", True): (
        ["u[t] = m[t-1] + (x[t] - (m[t-1] - {v_reset})) / {tau}"],
        ["dx[t] = du[t] / {tau}", "to m[t-1]: du[t] - du[t] / {tau}"],
    ),
    ("lif_node", False): (
        ["u[t] = m[t-1] - (m[t-1] - {v_reset}) / {tau} + x[t]"],
        ["dx[t] = du[t]", "to m[t-1]: du[t] - du[t] / {tau}"],
    ),
    ("parametric_lif_node", True): (
        ["u[t] = m[t-1] + (x[t] - (m[t-1] - {v_reset})) {q}"],
        ["dx[t] = {q} du[t]", "to m[t-1]: du[t] - {q} du[t]", "dq += (x[t] - (m[t-1] - {v_reset})) du[t]"],
    ),
    ("parametric_lif_node", False): (
        ["u[t] = m[t-1] - (m[t-1] - {v_reset}) {q} + x[t]"],
        ["dx[t] = du[t]", "to m[t-1]: du[t] - {q} du[t]", "dq += -(m[t-1] - {v_reset}) du[t]"],
    ),
}
RESET = {
    "subtract": ("u[t] = b[t] - {threshold} r[t]", "db[t] = du[t]"),
    "zero": ("u[t] = (1 - r[t]) b[t]", "db[t] = (1 - r[t]) du[t]"),
    "none": ("u[t] = b[t]", "db[t] = du[t]"),
}
SPECIAL = {  # resets of a neuron's own, in place of those
    ("leaky", "zero"): ("u[t] = b[t] with (1 - r[t]) m[t-1] in place of m[t-1]", "db[t] = du[t], and (1 - r[t]) of it to m[t-1]"),
    ("alpha", "subtract"): (
        "u[t] = b[t] + h[t-1] r[t]; then e[t] loses {threshold} r[t], h[t] becomes 0 where r[t] = 1",
        "db[t] = du[t]; h[t-1] gets r[t] du[t], dh[t] only (1 - r[t]) of what is carried",
    ),
    ("alpha", "zero"): ("u[t] = (1 - r[t]) b[t], and e[t], h[t] likewise", "db[t] = (1 - r[t]) du[t], carried e and h likewise"),
}
AT_ONCE = {
    "subtract": ("m[t] = u[t] - {threshold} (s[t] - r[t])", "du[t] = dm[t] + P'(u[t] - {threshold}) (ds[t] - {threshold} dm[t])"),
    "zero": ("m[t] = (1 - s[t] + r[t]) u[t]", "du[t] = (1 - s[t] + r[t]) dm[t] + P'(u[t] - {threshold}) (ds[t] - u[t] dm[t])"),
}
NODE_RESET = {  # a node's reset, and its backward without and with a detached spike
    "hard": (
        "m[t] = {v_reset} s[t] + (1 - s[t]) u[t]",
        "du[t] = (1 - s[t]) dm[t] + P'(u[t] - {threshold}) (ds[t] + ({v_reset} - u[t]) dm[t])",
        "du[t] = (1 - s[t]) dm[t] + P'(u[t] - {threshold}) ds[t]",
    ),
    "soft": (
        "m[t] = u[t] - {threshold} s[t]",
        "du[t] = dm[t] + P'(u[t] - {threshold}) (ds[t] - {threshold} dm[t])",
        "du[t] = dm[t] + P'(u[t] - {threshold}) ds[t]",
    ),
}
CURRENT = [0.6, 0.9, 0.3, 0.8, 0.7, 0.5]


def explain(layer: Neuron, current=None, neuron: int = 0) -> str:
    """The recurrences that a neuron layer runs, with one neuron's numbers put in, and some steps of it.

    Parameters
    ----------
    layer : Neuron
        In a network or not; learned numbers are those of now.
    current : (T,) array, optional
        The input of the steps that are shown. The loss of the backward pass is the number of spikes, or, where the neuron never
        fires, the sum of its membranes.
    neuron : int
        Which one, where they have numbers of their own.

    Returns
    -------
    str
        Print it.

    Raises
    ------
    TypeError
        ``layer`` is no neuron layer.
    ValueError
        ``current`` is not one finite number for each step, or there is no such neuron.
    """
    if not isinstance(layer, Neuron):
        raise TypeError(f"layer must be a neuron layer such as Leaky, got {layer!r}")
    x = np.asarray(CURRENT if current is None else current, np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"current must be (T,) finite numbers, got shape {x.shape}")
    model, params = layer.model, _params(layer, neuron)
    names = dict(zip(model.params, (f"{number:.4g}" for number in params[:, 0]), strict=True))
    forward, backward = (_fill(lines, names) for lines in _recurrences(layer, model))
    lines = [
        repr(layer),
        "",
        f"forward, from {'m[-1] = ' + names['v_reset'] if model.key.node else 'zeros'}",
        *forward,
        "",
        "backward, from the last step to the first, from zeros",
        *backward,
    ]
    if model.fires:
        pair = layer.spike_grad
        lines += [
            "",
            f"H(x) = 1 if x {'>=' if model.key.node else '>'} 0 else 0;  P'(x) = the derivative of {_shown(pair)}; "
            + _held(model),
        ]
    return "\n".join([*lines, "", *_table(model, params, x)])


def _params(layer: Neuron, neuron: int) -> np.ndarray:
    """-> (P, 1), the numbers of one neuron."""
    shapes = [np.shape(layer.current(name)) for name in layer.number_names()]
    shape = np.broadcast_shapes(*shapes)
    prepared = Neuron.prepare(layer, None, shape or (1,), np.dtype(np.float64))
    if not 0 <= neuron < prepared.params.shape[1] and neuron != 0:
        raise ValueError(f"neuron must be in [0, {prepared.params.shape[1]}), got {neuron}")
    return prepared.params[:, neuron : neuron + 1]


def _recurrences(layer: Neuron, model: Model) -> tuple[list[str], list[str]]:
    """-> lines of the forward and of the backward recurrence; {name} stands for a number."""
    if model.key.node:
        return _node_recurrences(model)
    own, own_backward = OWN.get(model.neuron, _elsewhere(model))
    heard = {"i[t] = x[t] + {V} z[t-1]": model.feedback, "i[t] = x[t] + W z[t-1] + bias": layer.state_rows > len(model.states)}
    current = next((line for line, holds in heard.items() if holds), "i[t] = x[t]")
    if not model.fires:
        return [current, own[0], "m[t] = b[t]"], ["db[t] = dm[t] + what m[t] is carried from t + 1", *own_backward]
    reset, reset_backward = SPECIAL.get((model.neuron, model.reset), RESET[model.reset])
    settle = AT_ONCE.get(model.reset) if not model.reset_delay else None
    settle, settle_backward = settle or ("m[t] = u[t]", "du[t] = dm[t] + P'(u[t] - {threshold}) ds[t]")
    wins = ", 0 unless u[t] - threshold is the sample's largest" if model.inhibition else ""
    out = "z[t] = {graded_spikes_factor} s[t]" if model.graded else "z[t] = s[t]"
    out_backward = "ds[t] = {graded_spikes_factor} dz[t]" if model.graded else "ds[t] = dz[t]"
    if current != "i[t] = x[t]":
        out_backward += " with {V} di[t+1] in dz[t]" if model.feedback else " with W' di[t+1] in dz[t]"
    forward = [current, "r[t] = H(m[t-1] - {threshold})", *own, reset, "s[t] = H(u[t] - {threshold})" + wins, out, settle]
    carried = "dm[t] = from outside + what m[t] is carried from t + 1"
    return forward, [out_backward, carried, settle_backward, reset_backward, *own_backward, "dx[t] = di[t]"]


def _node_recurrences(model: Model) -> tuple[list[str], list[str]]:
    own, own_backward = NODES.get((model.neuron, model.decay_input), _elsewhere(model))
    reset, *reset_backward = NODE_RESET[model.reset]
    carried = "dm[t] = from outside + what m[t] is carried from t + 1"
    forward = [*own, "s[t] = H(u[t] - {threshold})", "z[t] = s[t]", reset]
    return forward, ["ds[t] = dz[t]", carried, reset_backward[model.detach], *own_backward]


def _elsewhere(model: Model) -> tuple[list[str], list[str]]:
    """-> lines in place of a neuron's own step, where nobody has put it into words."""
    line = f"(its own step, with {', '.join(model.scalar.PARAMS)}: see {model.scalar.__package__})"
    return [line], [line]


def _held(model: Model) -> str:
    """-> what is a constant for the derivative."""
    if not model.key.node:
        return "r and H are constants for the derivative"
    return "the s of the reset is a constant for the derivative" if model.detach else "the s of the reset is differentiated too"


def _fill(lines: list[str], names: dict[str, str]) -> list[str]:
    return ["    " + line.format(**names) for line in lines]


def _shown(pair) -> str:
    options = ", ".join(f"{key}={value:g}" for key, value in pair.params.items())
    return f"{pair.name}({options})"


def _table(model: Model, params: np.ndarray, x: np.ndarray) -> list[str]:
    """-> the steps of one neuron, forward and backward, as lines of numbers."""
    T = len(x)
    spikes, trajectory = neuron_forward(model, x[:, None], T, params)
    ones, trace = np.ones((T, 1)), np.empty((T, 1))
    given = (ones, None) if model.fires else (None, ones)
    learns = (True,) * len(model.params)
    dx, dparams = neuron_backward(model, *given, trajectory, T, params, x[:, None], learns, trace=trace)
    states = [name for name in model.scalar.STATES[:-1]]
    columns = {"x": x, **{name: rows[1:, 0] for name, rows in zip(states, trajectory.states, strict=True)}}
    columns |= {"u": trajectory.before[:, 0], "z": spikes[:, 0], "m": trajectory.membrane[1:, 0]}
    if model.fires:
        above = columns["u"] - params[0, 0]
        columns["P'"] = model.surrogate.of_array(model.surrogate.derivative, above)
    columns |= {"du": trace[:, 0], "dx": dx[:, 0]}
    what = "z" if model.fires else "m"
    lines = [
        f"{T} steps, L = sum of {what}[t]"
        + (", without what a matrix feeds back" if model.neuron[0] == "r" and not model.feedback else "")
    ]
    lines += ["  t" + "".join(f"{name:>9}" for name in columns)]
    lines += [f"{t:3d}" + "".join(f"{column[t]:9.4f}" for column in columns.values()) for t in range(T)]
    used = [name for name in model.params if name not in model.fixed and (name not in COMMON or _in_use(model, name))]
    gradients = ", ".join(f"dL/d{name} {dparams[model.params.index(name), 0]:.4f}" for name in used)
    return [*lines, gradients]


def _in_use(model: Model, name: str) -> bool:
    return {"threshold": model.fires, "graded_spikes_factor": model.graded, "V": model.feedback}[name]
