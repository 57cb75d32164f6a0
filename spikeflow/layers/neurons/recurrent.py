"""Neurons whose own spikes come back to them one step later, through a weight each, a matrix, or a convolution.

Through a weight each, the loop over time is that of every neuron (``Model.feedback``). Through a matrix or a convolution it has
to stop at each step for a product, which is the engine's own; this file is that loop. With z[t] the spikes, i[t] the current,

    i[t] = x[t] + W z[t-1] + b        dW = sum_t di[t] z[t-1]^T,   db = sum_t di[t],   dz[t] += W^T di[t+1]
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...initializers import fan_in_uniform
from ...ops.neurons.model import Trajectory
from ...ops.surrogate import Surrogate
from ..base import positive_int
from .base import Kept, Neuron

__all__ = ["RLeaky", "RSynaptic"]


class Recurrent(Neuron):
    """Base of the recurrent neurons.

    Parameters
    ----------
    V : float or array
        The weight of a neuron's own spike, where each neuron hears itself alone.
    all_to_all : bool
        True: through a matrix (``linear_features``) or a convolution (``conv2d_channels`` and ``kernel_size``), with bias, named
        and initialised as PyTorch's ``recurrent``. False: through ``V``.
    linear_features : int, optional
        F of samples ``(F,)``.
    conv2d_channels, kernel_size : int, optional
        C of samples ``(C, H, W)``, and an odd kernel size; padded so that images keep their size.
    learn_recurrent : bool
        Train ``V``, or weight and bias.
    threshold, spike_grad, reset_mechanism, **common
        As for every ``Neuron``.
    """

    snntorch_aliases = {"recurrent.V": "V"}

    def __init__(
        self, V=1.0, all_to_all: bool = True, linear_features: int | None = None, conv2d_channels: int | None = None,
        kernel_size: int | None = None, threshold=1.0, spike_grad: Surrogate | None = None, reset_mechanism: str = "subtract",
        learn_recurrent: bool = True, **common,
    ):  # fmt: skip
        super().__init__(threshold, spike_grad, reset_mechanism, **common)
        given = {"linear_features": linear_features, "conv2d_channels": conv2d_channels, "kernel_size": kernel_size}
        for name, value in given.items():
            setattr(self, name, value if value is None else positive_int(name, value))
        self.all_to_all, self.learn_recurrent = bool(all_to_all), bool(learn_recurrent)
        self._check_kind(set(name for name, value in given.items() if value is not None))
        self._numbers("V", V, self.learn_recurrent and not self.all_to_all)
        del self.learn_V

    def _check_kind(self, given: set[str]) -> None:
        if not self.all_to_all and given:
            raise ValueError(f"all_to_all=False uses V alone; leave out {', '.join(sorted(given))}")
        if self.all_to_all and given not in ({"linear_features"}, {"conv2d_channels", "kernel_size"}):
            raise ValueError(
                "all_to_all=True needs either linear_features, or conv2d_channels and kernel_size; "
                f"got {', '.join(sorted(given)) or 'none of them'}"
            )
        if self.kernel_size is not None and self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that images keep their size, got {self.kernel_size}")

    def number_names(self):
        return [*super().number_names(), *([] if self.all_to_all else ["V"])]

    def trains(self, key):
        return self.learn_recurrent or not key.startswith("recurrent.")

    def initial_values(self, dtype, seed):
        values = super().initial_values(dtype, seed)
        if self.all_to_all:
            N, K = self.linear_features or self.conv2d_channels, self.kernel_size
            shape = (N, N) if K is None else (N, N, K, K)
            for key, size in (("recurrent.weight", shape), ("recurrent.bias", (N,))):
                values[key] = fan_in_uniform(size, int(np.prod(shape[1:])), dtype, seed, f"{self.name}.{key}")
        return values

    def output_shape(self, shape):
        if self.linear_features is not None and shape != (self.linear_features,):
            raise self.refuse(f"rows of {self.linear_features} features", shape)
        if self.conv2d_channels is not None and (len(shape) != 3 or shape[0] != self.conv2d_channels):
            raise self.refuse(f"images of shape ({self.conv2d_channels}, H, W)", shape)
        return super().output_shape(shape)

    @property
    def model(self):
        return replace(super().model, feedback=not self.all_to_all)

    @property
    def state_rows(self):
        return len(self.model.states) + self.all_to_all

    @property
    def simple(self):
        return super().simple and not self.all_to_all

    def recurrent_macs(self, shape):
        if not self.all_to_all:
            return 0
        return int(np.prod(shape)) * (self.linear_features or self.conv2d_channels * self.kernel_size**2)

    def prepare(self, ops, shape, dtype, numbers=None):
        prepared = super().prepare(ops, shape, dtype, numbers)
        if not self.all_to_all:
            return prepared
        weight, bias = (self.params[f"recurrent.{key}"].array for key in ("weight", "bias"))
        packed = ops.linear_pack(weight) if self.kernel_size is None else ops.conv2d_pack(weight)
        return replace(prepared, recurrence=(packed, bias))

    # ---------------------------------------------------------------------------------------------- through W

    def _product(self, ops, packed, bias, z):
        """z (N, ...) -> W z + b."""
        if self.kernel_size is None:
            return ops.linear_forward(z, packed, bias)
        return ops.conv2d_forward(z, packed, bias, 1, self.kernel_size // 2)

    def _product_backward(self, ops, packed, dy, z, dweight, dbias, input_grad):
        """dy, z (N, ...) -> dz or None; adds into dweight and dbias unless they are None."""
        if self.kernel_size is None:
            return ops.linear_backward(dy, z, packed, dweight, dbias, input_grad)
        return ops.conv2d_backward(dy, z, packed, 1, self.kernel_size // 2, dweight, dbias, input_grad)

    def forward(self, ops, prepared, x, run):
        if not self.all_to_all:
            return super().forward(ops, prepared, x, run)
        packed, bias = prepared.recurrence
        T, shape = run.num_steps, tuple(x.shape[1:])
        S, M = len(prepared.model.states), int(np.prod(shape))
        state = run.states.get(self.name)  # the neuron's own, and the spikes
        own = ops.rows_zeros((S, M), x.dtype) if state is None else state[:S]
        z = ops.rows_zeros(shape, x.dtype) if state is None else state[S].reshape(shape)
        frozen, spikes, steps = run.frozen(self), [z.reshape(1, *shape)], []
        for t in range(T):
            current = ops.rows_add(x[min(t, x.shape[0] - 1)], self._product(ops, packed, bias, z))
            held = {key: values[t : t + 1] for key, values in frozen.items()}
            row, trajectory = ops.neuron_forward(
                prepared.model, current.reshape(1, M), 1, prepared.params, own, run.smooth, keep_states=self.learns_own, **held
            )  # fmt: skip
            z = row.reshape(shape)
            spikes.append(row.reshape(1, *shape))
            steps.append(trajectory)
        z = ops.rows_join(spikes)
        if state is not None:
            ops.rows_copy(z[T], state[S])
        kept = Kept(_joined(ops, steps), x.shape, prepared.params, z, run.smooth, run.truncate)
        return z[1:], kept

    def backward_numbers(self, ops, prepared, dy, kept, grads, dmembrane=None):
        if not self.all_to_all:
            return super().backward_numbers(ops, prepared, dy, kept, grads, dmembrane)
        di, dparams = self._back_in_time(ops, prepared, dy, kept, dmembrane)
        if self.learn_recurrent:
            z, T = kept.x, len(di)
            gradients = (grads["recurrent.weight"], grads["recurrent.bias"])
            merged = (values.reshape(T * z.shape[1], *z.shape[2:]) for values in (di, z[:T]))
            self._product_backward(ops, prepared.recurrence[0], *merged, *gradients, False)
        return (ops.rows_sum(di) if kept.shape[0] == 1 and len(di) > 1 else di), dparams

    def _back_in_time(self, ops, prepared, dy, kept, dmembrane):
        """-> di (T, B, ...), and the gradients (P, 1 or F) of ``params``, or None."""
        z, model, packed = kept.x, prepared.model, prepared.recurrence[0]
        T, shape, M = z.shape[0] - 1, tuple(z.shape[1:]), kept.membrane.shape[1]
        carry, back = ops.rows_zeros((len(model.states), M), z.dtype), None
        di, total, wanted = [], None, self.wanted(model)
        for t in reversed(range(T)):
            if kept.truncate is not None and t + 1 < T and (t + 1) % kept.truncate == 0:
                carry, back = ops.rows_zeros(carry.shape, z.dtype), None
            dz = _sum(ops, [None if dy is None else dy[t], back], shape, z.dtype).reshape(1, M)
            outer = None if dmembrane is None else dmembrane[t].reshape(1, M)
            row, dparams = ops.neuron_backward(
                model, dz, outer, _step(kept.trajectory, t), 1, prepared.params, None, wanted, carry=carry, smooth=kept.smooth
            )
            di.append(row.reshape(1, *shape))
            total = dparams if total is None or dparams is None else ops.rows_add(total, dparams)
            if t:
                back = self._product_backward(ops, packed, di[-1][0], z[t], None, None, True)
        return ops.rows_join(di[::-1]), total


def _sum(ops, gradients: list, shape, dtype):
    """-> the sum of those of two gradients that are not None, zeros if there is none."""
    given = [gradient for gradient in gradients if gradient is not None]
    if len(given) == 2:
        return ops.rows_add(*given)
    return given[0] if given else ops.rows_zeros(shape, dtype)


def _joined(ops, steps: list[Trajectory]) -> Trajectory:
    """Trajectories of one step each, each going on from the one before -> that of all steps; states (T, S - 1, 2, M)."""
    first = steps[0]
    membrane = ops.rows_join([first.membrane, *(step.membrane[1:] for step in steps[1:])])
    before = None if first.before is None else ops.rows_join([step.before for step in steps])
    states = None
    if first.states is not None:
        states = ops.rows_join([step.states.reshape(1, *step.states.shape) for step in steps])
    return Trajectory(membrane, before, states, first.spikes)


def _step(whole: Trajectory, t: int) -> Trajectory:
    """-> the trajectory of step t alone."""
    before = None if whole.before is None else whole.before[t : t + 1]
    states = None if whole.states is None else whole.states[t]
    return Trajectory(whole.membrane[t : t + 2], before, states, whole.spikes)


class RLeaky(Recurrent):
    """Leaky neuron that hears its layer's spikes of the step before, snnTorch's ``RLeaky``; see ``spikeflow.ops.neurons.rleaky``.

    Parameters
    ----------
    beta : float or array
        Decay of the membrane per time step, clamped to [0, 1] in forward.
    V, all_to_all, linear_features, conv2d_channels, kernel_size, learn_recurrent
        As for every ``Recurrent`` neuron.
    threshold, spike_grad, reset_mechanism, **common
        As for every ``Neuron``.
    learn_beta : bool
    reset_delay : bool
        A spike resets the membrane one step later (True), or in its own step.
    """

    neuron, own_names, decays = "rleaky", ("beta",), ("beta",)

    def __init__(self, beta, V=1.0, all_to_all: bool = True, learn_beta: bool = False, reset_delay: bool = True, **common):
        super().__init__(V, all_to_all, **common)
        self._numbers("beta", beta, learn_beta, 0, 1)
        self.reset_delay = bool(reset_delay)


class RSynaptic(Recurrent):
    """Synaptic neuron that hears its layer's spikes of the step before; see ``spikeflow.ops.neurons.rsynaptic``.

    snnTorch's ``RSynaptic``.

    Parameters
    ----------
    alpha, beta : float or array
        Decay of the synaptic current, and of the membrane, per time step; clamped to [0, 1] in forward.
    V, all_to_all, linear_features, conv2d_channels, kernel_size, learn_recurrent
        As for every ``Recurrent`` neuron.
    threshold, spike_grad, reset_mechanism, **common
        As for every ``Neuron``.
    learn_alpha, learn_beta : bool
    reset_delay : bool
        A spike resets the membrane one step later (True), or in its own step.
    """

    neuron, own_names, decays = "rsynaptic", ("alpha", "beta"), ("alpha", "beta")

    def __init__(
        self, alpha, beta, V=1.0, all_to_all: bool = True, learn_alpha: bool = False, learn_beta: bool = False,
        reset_delay: bool = True, **common,
    ):  # fmt: skip
        super().__init__(V, all_to_all, **common)
        self._numbers("alpha", alpha, learn_alpha, 0, 1)
        self._numbers("beta", beta, learn_beta, 0, 1)
        self.reset_delay = bool(reset_delay)
