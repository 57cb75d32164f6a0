"""Spiking neurons: the operations in which time lives.

A neuron is a folder: its derivation in ``__init__.py``, forward and backward, with a trace of ten steps and what differs from
snnTorch, or for the nodes from SpikingJelly; one step and its backward as scalar functions in ``scalar.py``, for every backend
that compiles; and a plain ``reference.py`` that shares no line with them, so that it can disagree. What all neurons share exists
once: firing, inhibition, grading and feedback in ``step.py``, the resets in ``resets.py``, the loop over time, forward and
backward, in ``cpu.py`` and ``cuda.py``, and all of it again, to disagree, in ``reference.py``.
"""
