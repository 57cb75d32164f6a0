"""One step of the recurrent synaptic neuron in NumPy, line by line as in ``__init__.py``; shares nothing with ``scalar.py``."""

from __future__ import annotations

from ..synaptic.reference import step, step_backward

__all__ = ["step", "step_backward"]
