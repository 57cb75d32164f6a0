"""Initial parameter values."""

from __future__ import annotations

import math

import numpy as np

from . import random

__all__ = ["fan_in_uniform"]


def fan_in_uniform(shape: tuple[int, ...], fan_in: int, dtype, seed: int, stream: str) -> np.ndarray:
    """Uniform in +- 1 / sqrt(fan_in): PyTorch's default for Conv2d and Linear, weight and bias alike.

    (PyTorch writes it as ``kaiming_uniform_(a=sqrt(5))``.) ``stream`` names the parameter: numbers depend on both alone.
    """
    bound = 1 / math.sqrt(fan_in)
    return random.uniform(shape, -bound, bound, seed, f"init/{stream}").astype(dtype)
