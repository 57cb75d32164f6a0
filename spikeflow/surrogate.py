"""Surrogate gradients: ``spike_grad=surrogate.fast_sigmoid(slope=25)``. Formulas in ``spikeflow.ops.surrogate``."""

from .ops.surrogate import Surrogate, atan, fast_sigmoid, sigmoid

__all__ = ["Surrogate", "atan", "fast_sigmoid", "sigmoid"]
