"""SpikingJelly's neurons as layers. At every time step they charge, fire and are reset, in this order.

They are derived in ``spikeflow.ops.neurons``: ``if_node``, ``lif_node``, ``parametric_lif_node``. A layer always takes a whole
sequence, SpikingJelly's ``step_mode="m"``; the membrane that it gives out is the one after the reset, its ``v_seq``.
"""

from __future__ import annotations

import math

import numpy as np

from ...ops.neurons.model import Model
from ...ops.surrogate import Sigmoid, Surrogate
from ..base import Layer
from .base import Neuron, a_surrogate, finite

__all__ = ["IFNode", "LIFNode", "Node", "ParametricLIFNode"]


class Node(Neuron):
    """Base of SpikingJelly's neurons.

    Parameters
    ----------
    v_threshold : float or array
        A neuron fires when its membrane reaches it.
    v_reset : float or array, or None
        What a spike sets the membrane to (hard reset), and where the membrane starts and leaks to. None: a spike takes
        ``v_threshold`` off the membrane (soft reset), which starts at 0 and leaks to 0.
    surrogate_function : Surrogate, optional
        From ``spikeflow.surrogate``; ``Sigmoid(alpha=4)`` by default.
    detach_reset : bool
        No gradient flows through the spike that resets.

    Raises
    ------
    TypeError
        A surrogate function that is none of ours.
    ValueError
        A number that is not finite, or ``v_reset`` at or above ``v_threshold``.
    """

    # What snnTorch's neurons choose and these have not.
    reset_delay, inhibition, graded = False, False, False
    decay_input = True

    def __init__(
        self, v_threshold=1.0, v_reset=0.0, surrogate_function: Surrogate | None = None, detach_reset: bool = False
    ):  # fmt: skip
        Layer.__init__(self)  # Neuron's own would take snnTorch's options
        self.learned: list[str] = []
        self.v_threshold = finite("v_threshold", v_threshold)
        self.v_reset = None if v_reset is None else finite("v_reset", v_reset)
        self._check_reset()
        self.surrogate_function = a_surrogate("surrogate_function", surrogate_function, Sigmoid)
        self.detach_reset = bool(detach_reset)

    def _check_reset(self) -> None:
        if self.v_reset is None:
            return
        try:
            below = np.less(self.v_reset, self.v_threshold).all()
        except ValueError:
            shapes = np.shape(self.v_reset), np.shape(self.v_threshold)
            raise ValueError("v_reset and v_threshold must fit together, got shapes {} and {}".format(*shapes)) from None
        if not below:
            raise ValueError(
                f"v_reset must be below v_threshold, or the neuron would go on firing without input; got v_reset={self.v_reset}"
                f", v_threshold={self.v_threshold}"
            )

    @property
    def threshold(self):
        return self.v_threshold

    @property
    def spike_grad(self) -> Surrogate:
        return self.surrogate_function

    @property
    def initial_state(self):
        return 0.0 if self.v_reset is None else self.v_reset

    @property
    def model(self):
        reset = "soft" if self.v_reset is None else "hard"
        return Model(
            self.neuron, reset, self.surrogate_function, reset_delay=False, detach=self.detach_reset, decay_input=self.decay_input
        )

    def number_names(self):
        return ["v_threshold", *([] if self.v_reset is None else ["v_reset"]), *self.own_names]

    def common(self, values):
        return [values["v_threshold"], 1.0, 1.0]

    def own(self, values):
        return [values.get("v_reset", 0.0), *super().own(values)]

    def snntorch_constants(self):
        return {}

    def choices(self, kept):
        if not self.detach_reset:
            return {}  # the smooth twin's reset is smooth
        u = kept.trajectory.before
        return {"flags": u >= np.tile(kept.params[0], u.shape[1] // kept.params.shape[1])}


class IFNode(Node):
    """Integrate-and-fire neuron, SpikingJelly's ``IFNode``: a membrane that sums its input and does not leak.

    Parameters
    ----------
    v_threshold, v_reset, surrogate_function, detach_reset
        As for every ``Node``.
    """

    neuron = "if_node"


class LIFNode(Node):
    """Leaky integrate-and-fire neuron, SpikingJelly's ``LIFNode``.

    Parameters
    ----------
    tau : float or array
        Time constant of the membrane in time steps, greater than 1.
    decay_input : bool
        The input is divided by ``tau`` too.
    v_threshold, v_reset, surrogate_function, detach_reset
        As for every ``Node``.
    """

    neuron, own_names = "lif_node", ("tau",)

    def __init__(
        self, tau=2.0, decay_input: bool = True, v_threshold=1.0, v_reset=0.0, surrogate_function: Surrogate | None = None,
        detach_reset: bool = False,
    ):  # fmt: skip
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset)
        self.tau = finite("tau", tau)
        if not np.all(np.greater(self.tau, 1)):
            raise ValueError(f"tau must be greater than 1, got {self.tau}")
        self.decay_input = bool(decay_input)


class ParametricLIFNode(Node):
    """Leaky integrate-and-fire neuron that learns its time constant, SpikingJelly's ``ParametricLIFNode``.

    All neurons of the layer share it, as the parameter ``w`` of which 1 / tau is the sigmoid.

    Parameters
    ----------
    init_tau : float
        Time constant of the membrane in time steps at first, greater than 1.
    decay_input : bool
        The input is divided by tau too.
    v_threshold, v_reset, surrogate_function, detach_reset
        As for every ``Node``.
    """

    neuron, own_names = "parametric_lif_node", ("w",)

    def __init__(
        self, init_tau: float = 2.0, decay_input: bool = True, v_threshold=1.0, v_reset=0.0,
        surrogate_function: Surrogate | None = None, detach_reset: bool = False,
    ):  # fmt: skip
        super().__init__(v_threshold, v_reset, surrogate_function, detach_reset)
        self.init_tau = finite("init_tau", init_tau)
        if np.ndim(self.init_tau) or not self.init_tau > 1:
            raise ValueError(f"init_tau must be one number greater than 1, got {init_tau!r}")
        self.decay_input = bool(decay_input)
        self.w = -math.log(self.init_tau - 1)  # (8) of parametric_lif_node, at first
        self.learned.append("w")

    @property
    def tau(self) -> float:
        """The time constant now, in time steps."""
        return float(1 / _sigmoid(self.current("w")))

    @property
    def reads_input(self):
        return self.decay_input

    def own(self, values):
        v_reset, w = super().own(values)
        return [v_reset, _sigmoid(w)]

    def own_backward(self, values, down):
        q = _sigmoid(values["w"])
        return {"w": down[1] * q * (1 - q)}  # (8)

    def learned_rows(self):
        return {"q": ("sigmoid", "w")}


def _sigmoid(w: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-w)), without overflow."""
    return (1 + np.tanh(w / 2)) / 2
