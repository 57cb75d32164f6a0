"""Vectors, memory and threads of the processor."""
