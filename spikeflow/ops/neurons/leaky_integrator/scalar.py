"""One time step of one integrator: a leaky neuron's that never fires and so never resets; see ``__init__.py``."""

from __future__ import annotations

from ..leaky.scalar import PARAMS, READS_INPUT, STATES
from ..leaky.scalar import RESETS as LEAKY

__all__ = ["PARAMS", "READS_INPUT", "RESETS", "STATES"]

RESETS = {"none": LEAKY["none"]}
