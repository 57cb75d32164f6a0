"""A run that dies and is resumed ends with the bits of one that did not."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from spikeflow import checkpoint, cli, training
from spikeflow.training import Settings, resume, train

NETWORK = {
    "preset": "csnn-fashion",
    "dataset": "mnist",
    "channels": 2,
    "subset": 300,
    "batch_size": 32,
    "num_steps": 3,
    "epochs": 2,
}
CASES = {
    "sgd cosine": {},
    "adam step": {"optimizer": "adam", "lr_scheduler": "step", "step_size": 1, "gamma": 0.5},
    "sgd plain": {"momentum": 0.0, "lr_scheduler": "none", "eval_every": 4},
}


pytestmark = [  # so small a network is silent at first
    pytest.mark.filterwarnings("ignore:the output layer did not spike"),
    pytest.mark.filterwarnings("ignore:no neuron of layer"),
]


class Died(Exception):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """-> of each case what a run ends with that nobody interrupts."""
    folder, ends = tmp_path_factory.mktemp("whole"), {}

    def end(case):
        if case not in ends:
            train(Settings(**NETWORK, **CASES[case], out_dir=str(folder / case)))
            ends[case] = outcome(folder / case)
        return ends[case]

    return end


def outcome(folder):
    """-> bits of all arrays, counts without times, and rows without times."""
    found = checkpoint.load_training(folder / "checkpoint-latest.npz")
    arrays = {name: value.tobytes() for name, value in {**found.weights, **found.arrays}.items()}
    state = {key: value for key, value in found.info["training"].items() if key != "seconds"}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return arrays, state, [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def die_at(monkeypatch, iteration, where):
    """Make training raise once, after ``where`` of the given iteration."""
    original, alive = getattr(training._Run, where), [True]

    def fatal(self, *arguments, **options):
        result = original(self, *arguments, **options)
        if alive and self.iteration == iteration:
            alive.clear()
            raise Died
        return result

    monkeypatch.setattr(training._Run, where, fatal)


@pytest.mark.parametrize(
    "case, iteration, where, every",
    [
        ("sgd cosine", 3, "_step", "1"),  # in the middle of an epoch, after a step and before its checkpoint
        ("sgd cosine", 6, "_evaluate", "2"),  # at the end of an epoch, its evaluation done and not yet in a checkpoint
        ("sgd cosine", 6, "_settle", None),  # behind all that
        ("adam step", 8, "_step", "3"),
        ("sgd plain", 9, "_row", "4"),
        ("sgd plain", 1, "_step", None),  # nothing but the first evaluation is in the checkpoint
    ],
)
def test_resumed_runs_end_with_the_same_bits(tmp_path, monkeypatch, whole, case, iteration, where, every):
    expected = whole(case)
    die_at(monkeypatch, iteration, where)
    with pytest.raises(Died):
        train(Settings(**NETWORK, **CASES[case], out_dir=str(tmp_path / "run"), checkpoint_every=every, threads=1))
    resume(tmp_path / "run", threads=3)
    assert outcome(tmp_path / "run") == expected


def test_more_epochs_may_be_asked_for_later(tmp_path, whole):
    short = {**NETWORK, "epochs": 1}
    train(Settings(**short, out_dir=str(tmp_path / "run")))
    with pytest.raises(ValueError, match=r"is finished, after 6 iterations; to go on, raise --epochs"):
        resume(tmp_path / "run")
    resume(tmp_path / "run", epochs=2)
    assert outcome(tmp_path / "run") == whole("sgd cosine")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_sigkill(tmp_path, whole):
    run = tmp_path / "run"
    options = [text for key, value in {**NETWORK, **CASES["sgd plain"]}.items() if key != "preset"
               for text in (f"--{key.replace('_', '-')}", str(value))]  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "spikeflow",
        "train",
        "csnn-fashion",
        *options,
        "--checkpoint-every",
        "2",
        "--out-dir",
        str(run),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (
        (run / "metrics.jsonl").exists() and '"iteration": 5,' in (run / "metrics.jsonl").read_text()
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resume(run)
    assert outcome(run) == whole("sgd plain")


def test_what_cannot_be_resumed(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"holds no run: there is no config.json"):
        resume(tmp_path)
    die_at(monkeypatch, 2, "_step")
    run, other = tmp_path / "run", tmp_path / "other"
    with pytest.raises(Died):
        train(Settings(**NETWORK, out_dir=str(run)))
    with pytest.raises(ValueError, match=r"resumed with the settings it began with: leave out lr, seed"):
        resume(run, lr=0.1, seed=1)
    train(Settings(**{**NETWORK, "epochs": 1}, seed=5, max_iterations=1, out_dir=str(other)))
    latest = run / "checkpoint-latest.npz"
    kept = latest.read_bytes()
    latest.write_bytes((other / "checkpoint-latest.npz").read_bytes())
    with pytest.raises(ValueError, match=r"is the checkpoint of another run"):
        resume(run)
    latest.write_bytes(kept[:-1000])
    with pytest.raises(checkpoint.CheckpointError):
        resume(run)
    latest.unlink()
    with pytest.raises(ValueError, match=r"holds no checkpoint-latest.npz"):
        resume(run)


def test_the_command_line_resumes(tmp_path, capsys):
    run = str(tmp_path / "run")
    options = ["--dataset", "mnist", "--channels", "2", "--subset", "300", "--batch-size", "32", "--T", "2", "--epochs", "3"]
    assert cli.main(["train", "csnn-fashion", *options, "--max-iterations", "2", "--out-dir", run]) == 0
    assert cli.main(["train", "--resume", run, "--lr", "0.5"]) == 2
    assert "leave out lr" in capsys.readouterr().err
    assert cli.main(["train", "--resume", run, "--max-iterations", "7"]) == 0
    assert re.search(r"epoch +0 .*\n(.*\n)*epoch +1 ", capsys.readouterr().out)
    assert cli.main(["train"]) == 2
    assert "--resume RUN" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-3", "2.5", "often", "5 hours", ""])
def test_the_interval_of_checkpoints_is_checked(text):
    with pytest.raises(ValueError, match="checkpoint_every must be a number of iterations"):
        training._interval(text)


def test_the_interval_of_checkpoints():
    assert training._interval("200")[0] == 200
    assert training._interval("1.5min")[1] == training._interval("1.5m")[1] == 90
    assert np.isinf(training._interval(None)).all()
