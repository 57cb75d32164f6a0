"""The CUDA backend without a card: its tests, run in Numba's simulator by a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def gpu_tests(*arguments, **environment):
    """-> the process that ran them."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "COLUMNS": "400", **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.ci
def test_the_cuda_backend_in_the_simulator(record_property):
    """The simulator is chosen before Numba is imported, hence the process; conftest.py prints how many tests it ran."""
    result = gpu_tests("tests/cuda", "--numprocesses=2", "-rfE", NUMBA_ENABLE_CUDASIM="1")
    summary = result.stdout.strip().splitlines()[-1] if result.stdout.strip() else result.stderr
    record_property("CUDA simulator", summary)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", summary)[1]) >= 100
    assert "skipped" not in summary, "in the simulator nothing is missing"


def test_without_a_card_the_gpu_tests_say_what_they_need():
    from spikeflow.kernels.cuda import gpu

    try:
        gpu.require()
    except RuntimeError as error:
        reason = str(error)
    else:
        pytest.skip("there is a card")
    result = gpu_tests("tests/cuda/test_cuda_sums.py", "-n", "0", "-rs")
    assert result.returncode == 0 and "passed" not in result.stdout
    assert "backend='cuda' needs" in reason and reason[:60] in result.stdout
