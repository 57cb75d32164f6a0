from __future__ import annotations

import pytest

from spikeflow import backends


@pytest.fixture(params=["reference", "cpu"])
def backend(request) -> str:
    """The name of a backend that must work on every machine."""
    return request.param


@pytest.fixture
def ops(backend):
    """The operations of that backend."""
    return backends.load(backend)
