"""Surrogate gradients: ``spike_grad=surrogate.fast_sigmoid(slope=25)``. Formulas in ``spikeflow.ops.surrogate``."""

from .ops.surrogate import (
    LSO,
    SFS,
    Surrogate,
    atan,
    custom,
    fast_sigmoid,
    heaviside,
    sigmoid,
    spike_rate_escape,
    straight_through_estimator,
    triangular,
)

__all__ = [
    "LSO",
    "SFS",
    "Surrogate",
    "atan",
    "custom",
    "fast_sigmoid",
    "heaviside",
    "sigmoid",
    "spike_rate_escape",
    "straight_through_estimator",
    "triangular",
]
