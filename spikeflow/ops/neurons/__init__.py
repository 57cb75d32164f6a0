"""Spiking neurons: the operations in which time lives.

A neuron is a folder: the derivation of its backward pass in ``__init__.py``, one step and its backward as scalar functions in
``scalar.py`` (for every backend that compiles), and a plain ``reference.py`` that shares no line with them, so that it can
disagree. The loop over time, forward and backward, exists once, in ``cpu.py``.
"""
