"""The package as its users meet it: imports, names, examples, the JIT cache."""

import inspect
import os
import runpy
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import spikeflow as sf
from spikeflow import backends
from spikeflow.plotting import training_curves

ROOT = Path(__file__).parent.parent
STEP = """
import sys, numpy as np, spikeflow as sf
net = sf.Sequential(sf.Linear(3, 2), sf.Leaky(0.5), seed=1)
x = np.linspace(0, 4, 6, dtype=np.float32).reshape(2, 3)
loss, spikes = net.loss_and_grad(x, np.array([0, 1]), sf.losses.ce_rate_loss(), num_steps=3)
print(repr(loss), [p.grad.tobytes().hex() for p in net.parameters()])
"""
KERNELS = """
import numpy as np
from spikeflow.ops.pool2d.cpu import max_pool2d_backward, max_pool2d_forward
y, winner = max_pool2d_forward(np.linspace(0, 4, 32, dtype=np.float32).reshape(1, 4, 4, 2), 2, 2)
print(y.tobytes().hex(), max_pool2d_backward(y, winner, (1, 4, 4, 2), 2, 2).tobytes().hex())
"""  # a few that are quickly compiled, for what does not depend on which


def python(code, **environment):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment})
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_and_help_load_neither_numba_nor_matplotlib():
    code = """
import sys, spikeflow, spikeflow.cli
spikeflow.__version__
try: spikeflow.cli.main(["--help"])
except SystemExit: pass
print(sorted({"numba", "matplotlib", "scipy", "numba_cuda"} & set(sys.modules)))
"""
    assert python(code).splitlines()[-1] == "[]"


def test_every_public_name_exists():
    for name in sf.__all__:
        assert getattr(sf, name) is not None
    assert set(sf.__all__) <= set(dir(sf))
    with pytest.raises(AttributeError, match="no attribute 'Lealy'"):
        sf.Lealy  # noqa: B018


def test_gradcheck_stays_a_function_whatever_is_imported_first():
    assert python("import spikeflow.finite_differences, spikeflow as sf; print(callable(sf.gradcheck))") == "True\n"


def tables():
    from spikeflow.kernels.cuda import gpu

    with gpu.dry():  # as if there were a card
        return {name: vars(backends.load(name)) for name in backends.BACKENDS}


def test_backends_have_the_same_operations():
    for name, table in tables().items():
        assert set(table) == {*backends.OPERATIONS, *backends.EXTRAS.get(name, ()), "device"}
    with pytest.raises(ValueError, match="backend must be one of reference, cpu, cuda, got 'cude'"):
        backends.load("cude")


@pytest.mark.parametrize("operation", backends.OPERATIONS)
def test_operations_take_the_same_arguments_in_every_backend(operation):
    """The reference takes some choices to obey besides, behind the others."""
    arguments = {name: list(inspect.signature(table[operation]).parameters) for name, table in tables().items()}
    assert arguments["cuda"] == arguments["cpu"] == arguments["reference"][: len(arguments["cpu"])]


@pytest.mark.parametrize("entry", sorted(set(backends.EXTRAS["cpu"]) & set(backends.EXTRAS["cuda"])))
def test_fused_entries_of_one_name_take_the_same_arguments(entry):
    cpu, cuda = (list(inspect.signature(tables()[name][entry]).parameters) for name in ("cpu", "cuda"))
    assert cpu == cuda


def cache_files(folder):
    return {path.name: path for path in folder.iterdir()} if folder.exists() else {}


def test_a_second_process_finds_every_kernel_in_the_cache(tmp_path):
    folder = tmp_path / "jit"
    first = python(STEP, SPIKEFLOW_CACHE_DIR=str(folder))
    files = {name: path.stat().st_mtime_ns for name, path in cache_files(folder).items()}
    assert files and python(STEP, SPIKEFLOW_CACHE_DIR=str(folder)) == first
    assert {name: path.stat().st_mtime_ns for name, path in cache_files(folder).items()} == files


WIDTHS = """
import numpy as np, spikeflow as sf
for outputs in {outputs}:
    results = []
    for backend in ("cpu", "reference"):
        net = sf.Sequential(sf.Linear(6, outputs), sf.Leaky(0.5), sf.Linear(outputs, 3), sf.Leaky(0.5), backend=backend)
        for p in net.parameters(): p.value *= 3
        net.forward(np.ones((5, 6), np.float32), 4)
        results.append(net.backward(np.ones((4, 5, 3), np.float32), input_grad=True))
    assert np.allclose(*results, rtol=1e-4, atol=1e-6), outputs
"""


def test_kernels_of_several_processes_live_together(tmp_path):
    # Each process compiles the same factories' kernels, in the same order, for another width.
    folder = str(tmp_path / "jit")
    for outputs in (5, 20, 70):
        python(WIDTHS.format(outputs=[outputs]), SPIKEFLOW_CACHE_DIR=folder)
    before = set(cache_files(tmp_path / "jit"))
    for order in ([5, 20, 70], [70, 20, 5]):
        python(WIDTHS.format(outputs=order), SPIKEFLOW_CACHE_DIR=folder)
    assert set(cache_files(tmp_path / "jit")) == before


def test_damaged_entries_are_compiled_again(tmp_path):
    folder = tmp_path / "jit"
    first = python(KERNELS, SPIKEFLOW_CACHE_DIR=str(folder))
    for i, path in enumerate(cache_files(folder).values()):
        whole = path.read_bytes()
        damaged = bytes([whole[-1] ^ 1])
        path.write_bytes(whole[: len(whole) // 2] if i % 2 else whole[:-1] + damaged)
    assert python(KERNELS, SPIKEFLOW_CACHE_DIR=str(folder)) == first
    sound = cache_files(folder)
    assert python(KERNELS, SPIKEFLOW_CACHE_DIR=str(folder)) == first and cache_files(folder).keys() == sound.keys()


def test_a_cache_folder_that_cannot_be_made_costs_only_the_cache(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert python(KERNELS, SPIKEFLOW_CACHE_DIR=str(tmp_path / "file" / "jit"))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_cache_folder_that_others_can_write_is_not_used(tmp_path):
    folder = tmp_path / "jit"
    folder.mkdir()
    folder.chmod(0o777)
    python(KERNELS, SPIKEFLOW_CACHE_DIR=str(folder))
    assert not cache_files(folder)
    folder.chmod(0o700)
    python(KERNELS, SPIKEFLOW_CACHE_DIR=str(folder))
    files = cache_files(folder)
    assert files and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files.values())


def test_bounds_checks_are_part_of_the_cache_key(tmp_path):
    folder = tmp_path / "jit"
    python(KERNELS, SPIKEFLOW_CACHE_DIR=str(folder), NUMBA_BOUNDSCHECK="0")  # whatever the suite itself runs with
    without = set(cache_files(folder))
    python(KERNELS, SPIKEFLOW_CACHE_DIR=str(folder), NUMBA_BOUNDSCHECK="1")
    assert len(cache_files(folder)) == 2 * len(without)


def test_the_step_runs_for_a_generic_processor(tmp_path):
    assert python(STEP, SPIKEFLOW_CACHE_DIR=str(tmp_path / "jit"), NUMBA_CPU_NAME="generic").split()[0][:6] == python(STEP)[:6]


def test_training_curves_need_no_evaluation_and_no_step():
    for rows in ([], [{"iteration": 1, "train_loss": 2.0}], [{"iteration": 0, "epoch": 0, "test_accuracy": 0.5}]):
        assert len(training_curves(rows).axes) == 2


def test_bptt_by_hand_agrees_with_finite_differences(capsys):
    runpy.run_path(str(ROOT / "examples" / "bptt_by_hand.py"))
    lines = capsys.readouterr().out.splitlines()
    rows = lines[lines.index(next(line for line in lines if line.startswith("gradient"))) + 1 :]
    assert len(rows) == 10 and all(float(row.split()[-1]) < 1e-8 for row in rows)


def test_train_mnist_csnn_learns(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_mnist_csnn.py", "30"])
    images, labels = sf.datasets.mnist("test")
    monkeypatch.setattr(
        sf.datasets, "mnist", lambda split: (images[:500], labels[:500]) if split == "test" else (images[500:], labels[500:])
    )
    runpy.run_path(str(ROOT / "examples" / "train_mnist_csnn.py"))
    final = capsys.readouterr().out.splitlines()[-1]
    assert final.startswith("test accuracy") and float(final.split()[2]) > 50
