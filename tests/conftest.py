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


def pytest_collection_modifyitems(items):
    """The simulator first: it takes longest, and no worker is to wait for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_simulator.py")


def pytest_terminal_summary(terminalreporter):
    """Say what tests have noted down about processes of their own."""
    for report in terminalreporter.stats.get("passed", []):
        for name, text in getattr(report, "user_properties", []):
            terminalreporter.write_line(f"{name}: {text}")
