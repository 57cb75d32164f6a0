"""Tests of the CUDA backend: on a card, ``pytest -m gpu``; without one, in Numba's simulator, which ``test_simulator.py`` starts.

In the simulator a kernel's threads are Python's, some 10,000 a second: shapes are tiny, with blocks smaller than a warp and grids
of several blocks all the same.
"""

from __future__ import annotations

import sys

import pytest


def pytest_collection_modifyitems(items):
    here = [item for item in items if "/tests/cuda/" in item.path.as_posix()]
    for item in here:
        item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True, scope="session")
def device():
    """Skip, saying what is missing, unless kernels can run."""
    from spikeflow.kernels.cuda import gpu

    try:
        gpu.require()
    except RuntimeError as error:
        pytest.skip(str(error))
    if gpu.SIMULATED:
        sys.setswitchinterval(1e-4)  # the simulator polls its threads, and would keep them waiting for 5 ms each time
