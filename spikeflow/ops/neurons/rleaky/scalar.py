"""One time step of one recurrent leaky neuron: a leaky neuron's whose current includes the recurrent one; see ``__init__.py``.

Only reset "zero" differs from ``leaky``: it drops the whole new membrane, (R2), where a leaky neuron keeps the input.
"""

from __future__ import annotations

from ..leaky.scalar import PARAMS, READS_INPUT, STATES, step, step_backward
from ..resets import delayed

__all__ = ["PARAMS", "READS_INPUT", "RESETS", "STATES"]

RESETS = delayed(step, step_backward)
