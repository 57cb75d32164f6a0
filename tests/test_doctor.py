"""What ``spikeflow doctor`` says of this installation, and of broken ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from spikeflow import cli, doctor
from spikeflow.kernels.cuda import gpu


def of(name):
    """-> the answer to one question."""
    return doctor._ask(name, doctor.QUESTIONS[name])


def python(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def card(monkeypatch):
    """A machine with a driver, the toolkit and a GPU, as far as one can be made up."""
    from numba.cuda.cudadrv.driver import driver

    monkeypatch.setattr(gpu.cuda, "implementation", "NVIDIA", raising=False)
    monkeypatch.setattr(gpu, "driver_problem", lambda: None)
    monkeypatch.setattr(gpu, "toolkit_problem", lambda: None)
    monkeypatch.setattr(type(driver), "get_version", lambda self: (13, 0))
    device = SimpleNamespace(name="NVIDIA H100", compute_capability=(9, 0), id=0)
    monkeypatch.setattr(gpu.cuda, "list_devices", lambda: [device])


def test_every_question_is_answered_here():
    found = doctor.examine()
    assert [finding.name for finding in found.findings] == [*doctor.QUESTIONS, "verdict"]
    assert not [finding for finding in found.findings if "error" in finding.facts]
    assert found["backend cpu"].facts["works"] and found["verdict"].text.startswith("all is well")
    assert str(found).splitlines()[-1].startswith("verdict") and len(str(found).splitlines()) == len(found.findings)


def test_the_command_prints_lines_or_json_and_ends_well(capsys):
    assert cli.main(["doctor"]) == 0
    assert "backend cpu     works" in capsys.readouterr().out
    assert cli.main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["threads"]["threads"] >= 1 and facts["data sets"]["mnist"] and facts["packages"]["versions"]["numba"]


def test_importing_it_is_light():
    loaded = "import sys, spikeflow.doctor; print(sorted({'numba', 'numpy', 'matplotlib', 'scipy'} & set(sys.modules)))"
    assert python(loaded).strip() == "[]"


def test_without_numba_it_says_so_and_goes_on():
    code = """
import sys
sys.modules.update(dict.fromkeys(("numba", "llvmlite")))
from spikeflow.doctor import examine
print(examine())
"""
    lines = dict(line.split(None, 1) for line in python(code).splitlines() if line.startswith(("packages", "verdict", "Python")))
    assert "numpy" in lines["packages"] and 'backend "cpu" does not work' in lines["verdict"]


@pytest.mark.parametrize(
    "error", [RuntimeError("broken\nin two lines"), OSError(), KeyError("x")], ids=lambda e: type(e).__name__
)
def test_a_question_that_raises_is_an_answer(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(doctor, "QUESTIONS", dict.fromkeys(doctor.QUESTIONS, fail))
    found = doctor.examine()
    assert all(finding.facts["error"].startswith(type(error).__name__) for finding in found.findings[:-1])
    assert "\n" not in found["Python"].text and 'backend "cpu" does not work' in found["verdict"].text


def test_without_numba_cuda(monkeypatch):
    monkeypatch.setattr(gpu.cuda, "implementation", "Built-in", raising=False)
    monkeypatch.setattr(doctor, "installed", lambda package: None)
    assert "deprecated target answers; the package numba-cuda is not installed" in of("CUDA target").text
    cuda = of("backend cuda")
    with pytest.raises(RuntimeError) as needed:
        gpu.require()
    assert cuda.facts == {"works": False, "problem": str(needed.value)} and "needs the package numba-cuda" in cuda.text


def test_without_a_driver(monkeypatch, card):
    monkeypatch.setattr(gpu, "driver_problem", lambda: "the driver lists no GPU")
    assert of("CUDA driver").text == "the driver lists no GPU" and of("CUDA devices").facts == {"devices": []}
    assert "needs an NVIDIA driver and a GPU: the driver lists no GPU" in of("backend cuda").text


def test_without_the_toolkit(monkeypatch, card):
    monkeypatch.setattr(gpu, "toolkit_problem", lambda: "libnvvm is not here")
    assert of("CUDA toolkit").text == f"libnvvm is not here: {gpu.OPTIONAL}"
    assert "needs the CUDA toolkit's wheels: libnvvm is not here: pip install" in of("backend cuda").text


def test_a_library_that_cannot_be_loaded_is_named(monkeypatch, card):
    pathfinder = pytest.importorskip("cuda.pathfinder")

    def fail(name):
        raise OSError(f"{name}: invalid ELF header")

    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", fail)
    toolkit = of("CUDA toolkit")
    assert toolkit.facts["nvvm"]["problem"] == "nvvm: invalid ELF header" and "nvJitLink not found" in toolkit.text


def test_a_card_is_described(card):
    devices = of("CUDA devices")
    assert devices.text.startswith("NVIDIA H100, compute capability 9.0")
    assert devices.facts["devices"][0]["name"] == "NVIDIA H100" and of("CUDA driver").facts["version"] == [13, 0]
    assert of("backend cuda").facts["works"] and 'backend="cuda"' in doctor.examine()["verdict"].text


def test_a_cache_is_measured_or_off(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEFLOW_CACHE_DIR", str(tmp_path / "jit"))
    (tmp_path / "jit").mkdir(mode=0o700)
    (tmp_path / "jit" / "kernel").write_bytes(bytes(1500))
    assert of("kernels on disk").text == f"{tmp_path / 'jit'}: writable, 1 kernels, 1.5 kB"
    monkeypatch.setenv("SPIKEFLOW_CACHE_DIR", str(tmp_path / "jit" / "kernel" / "below"))
    assert of("kernels on disk").text.startswith("off, kernels are compiled in every process: ")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX permissions")
def test_a_cache_that_others_can_write_is_off(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEFLOW_CACHE_DIR", str(tmp_path))
    tmp_path.chmod(0o777)
    facts = of("kernels on disk").facts
    tmp_path.chmod(0o700)
    assert "writable by nobody else" in facts["problem"] and facts["entries"] == 0


def test_a_cache_that_cannot_be_written_is_off(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEFLOW_CACHE_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert of("kernels on disk").facts["problem"] == f"{tmp_path} cannot be written"
