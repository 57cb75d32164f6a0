"""Every benchmark of the README's table runs, in its smallest form; those that need a peer say so where it is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABSENT = "cannot run there, see above: name another interpreter with --peer-python"
SMALL = "--batch-size 16 --num-steps 3 --warmup-iterations 0"

# Script -> arguments, exit status, and what the output must hold; {out} is a folder for what it writes.
RUNS = {
    "train_step.py": (f"{SMALL} --rounds 1 --threads 1", 0, "spikeflow"),
    "cuda_static.py": ("--network csnn-mnist --jobs 1", 0, "regs"),
    "networks.py": ("--rounds 1 --warmup-iterations 0", 1, "has no PyTorch: name another with --peer-python"),
    "profile_step.py": (f"{SMALL} --rounds 2 --no-first-step", 0, "2 to 5"),
    "curves.py": (
        f"{SMALL} --rounds 1 --time-steps 2 3 --batch-sizes 4 8 --thread-counts 1 --densities 0.1 0.2 --png {{out}}/curves.png",
        0, "Density",
    ),
    "neurons.py": ("--rounds 1 --only Lapicque", 0, "Lapicque"),
    "neuron_gradients.py": ("", 0, "RSynaptic"),
    "tutorial5.py": ("--seeds 1 --iterations 1", 1, ABSENT),
    "parity.py": ("--iterations 1", 1, ABSENT),
    "parity_neurons.py": ("", 1, ABSENT),
    "fashion_step.py": (f"{SMALL} --channels 4 --rounds 1 --no-memory --threads 1", 1, "not importable"),
    "parity_spikingjelly.py": ("--channels 4 --iterations 1", 1, ABSENT),
    "resume.py": ("--points 1", 0, "0 differ"),
    "endurance.py": ("--steps 60", 0, "files steady"),
    "crash_checkpoint.py": ("--kills 2 --faults 2 --bits 20 --cuts 10", 0, "held"),
    "fuzz_idx.py": ("--count 300", 0, "0 failures"),
    "enumerate_rules.py": ("--length 1", 0, "36 chains, 0 differences"),
    "fuzz_networks.py": ("--count 2", 0, "2 networks, 0 beyond a bound"),
    "checkouts.py": (f"--other {ROOT} --only tiny --rounds 2 --threads 1 --batch-sizes 32 64", 0, "ms a block"),
}  # fmt: skip


def run(script: str, arguments: str, folder: Path) -> subprocess.CompletedProcess:
    """-> the benchmark's process, run elsewhere than in the checkout."""
    words = arguments.replace("{out}", str(folder)).split()
    command = [sys.executable, str(ROOT / "benchmarks" / script), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.ci
@pytest.mark.parametrize("script", RUNS)
def test_a_benchmark_runs_in_its_smallest_form(script, tmp_path):
    arguments, status, text = RUNS[script]
    result = run(script, arguments, tmp_path)
    output = result.stdout + result.stderr
    if "install the extra cuda13" in output:
        pytest.skip("the toolkit's wheels are not installed: pip install 'spikeflow[cuda13]'")
    assert result.returncode == status, output[-3000:]
    assert text.lower() in output.lower(), output[-3000:]


def test_the_readmes_table_names_what_runs_here():
    named = set(re.findall(r"^\| `python benchmarks/(\w+\.py)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named <= set(RUNS), f"without a smallest form: {sorted(named - set(RUNS))}"
    assert all((ROOT / "benchmarks" / script).exists() for script in RUNS)
