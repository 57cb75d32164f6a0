"""Training, evaluating and the command line, on a small data set in the user's own IDX files."""

import json
import signal
import struct
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import checkpoint, cli, training
from spikeflow.training import NonFiniteError, Settings, evaluate, train

BATCH = 8


def untrained(test):
    """Marks a test whose network is trained too little to spike."""
    for message in ("the output layer did not spike", "no neuron of layer"):
        test = pytest.mark.filterwarnings(f"ignore:{message}")(test)
    return test


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """160 training and 40 test images of MNIST, as four IDX files."""
    folder = tmp_path_factory.mktemp("data")
    for split, name, count in (("train", "train", 160), ("test", "t10k", 40)):
        images, labels = sf.datasets.mnist(split)
        header = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images[:count].tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, count) + labels[:count].tobytes())
    return str(folder)


@pytest.fixture
def options(data_dir, tmp_path):
    return {
        "preset": "csnn-mnist", "batch_size": BATCH, "num_steps": 4, "max_iterations": 6, "eval_every": 4,
        "data_dir": data_dir, "out_dir": str(tmp_path / "run"),
    }  # fmt: skip


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@untrained
def test_a_run_folder_holds_config_metrics_checkpoints_and_a_picture(options, tmp_path, capsys):
    summary = train(Settings(**options))
    run = tmp_path / "run"
    assert summary["run"] == str(run) and summary["iteration"] == 6 and not summary["interrupted"]
    steps = [row for row in rows_of(run) if "train_loss" in row]
    evaluations = [row for row in rows_of(run) if "test_accuracy" in row]
    assert [row["iteration"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert [(row["iteration"], row["epoch"]) for row in evaluations] == [(0, 0), (4, 0), (6, 0)]
    assert all(0 <= row["test_accuracy"] <= 1 for row in evaluations)
    assert steps[0]["train_loss"] == pytest.approx(np.log(10), abs=0.01)
    config = json.loads((run / "config.json").read_text())
    assert config["batch_size"] == BATCH and config["lr"] == 1e-2 and config["versions"]["spikeflow"] == sf.__version__
    assert (run / "training.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert (
        "iteration     0  test accuracy" in out and "images/s" in out and "rate   never   always" in out and "peak memory" in out
    )
    latest, info = checkpoint.load_with_info(run / "checkpoint-latest.npz")
    assert info["iteration"] == 6 and info["test_accuracy"] == summary["test_accuracy"]
    images, labels = sf.datasets.mnist("test", data_dir=options["data_dir"])
    assert evaluate(latest, images, labels, 4) == summary["test_accuracy"]
    best = checkpoint.load_with_info(run / "checkpoint-best.npz")[1]["test_accuracy"]
    assert best == max(row["test_accuracy"] for row in evaluations)


@untrained
def test_the_same_seed_gives_the_same_run_on_any_number_of_threads(options, tmp_path):
    losses = []
    for threads in (1, 3):
        train(Settings(**{**options, "threads": threads, "out_dir": str(tmp_path / f"{threads}")}))
        losses.append([row.get("train_loss") for row in rows_of(tmp_path / f"{threads}")])
    assert losses[0] == losses[1]


def test_a_folder_with_a_run_is_not_overwritten(options, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="out_dir .* already holds a run"):
        train(Settings(**options))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "cnn"}, "preset must be one of csnn-mnist, fcn-mnist, csnn-fashion, got 'cnn'"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"eval_every": -1}, "eval_every must be at least 1"),
        ({"max_iterations": 0}, "max_iterations must be at least 1"),
        ({"lr": -1.0}, "lr must be"),
        ({"threads": 0}, "threads must be"),
        ({"backend": "tpu"}, "backend must be one of"),
        ({"batch_size": 161}, "batch_size"),
        ({"subset": 0}, "subset must be at least 1"),
        ({"subset": 23}, "batch_size"),  # 7 of 160 images are left
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"hidden": 12}, "hidden: this network has no hidden layer"),
        ({"beta": 1.5}, "beta must be in"),
        ({"loss": "l2"}, "loss must be one of ce_count_loss, .* got 'l2'"),
        ({"encoding": "morse"}, "encoding must be one of direct, rate, latency, got 'morse'"),
        ({"neuron": "izhikevich"}, "neuron must be one of leaky, .* got 'izhikevich'"),
        ({"surrogate": "relu"}, "surrogate must be one of atan, .* got 'relu'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(options, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        train(Settings(**{**options, **change}))
    assert not (tmp_path / "run").exists()


@untrained
@pytest.mark.parametrize(("what", "kind"), [("grad", "gradient of"), ("value", "updated")])
def test_a_non_finite_number_stops_training_and_leaves_the_last_good_checkpoint(options, tmp_path, monkeypatch, what, kind):
    step = sf.optim.Adam.step
    backward = sf.Sequential.loss_and_grad

    def poison(parameters, count=[0]):  # noqa: B006 - counts across calls
        count[0] += 1
        if count[0] == 3:
            getattr(parameters[3], what).reshape(-1)[0] = np.nan

    def poisoned_step(self):
        step(self)
        poison(self.parameters)

    def poisoned_backward(self, *args, **kwargs):
        result = backward(self, *args, **kwargs)
        poison(self.parameters())
        return result

    if what == "grad":
        monkeypatch.setattr(sf.Sequential, "loss_and_grad", poisoned_backward)
    else:
        monkeypatch.setattr(sf.optim.Adam, "step", poisoned_step)
    with pytest.raises(NonFiniteError, match=rf"iteration 3: the {kind} 3.bias of layer 3 \(Conv2d\(12, 64, 5\)\)"):
        train(Settings(**options))
    net, info = checkpoint.load_with_info(tmp_path / "run" / "checkpoint-latest.npz")
    assert info["iteration"] == 0 and all(np.isfinite(p.value).all() for p in net.parameters())


def test_a_non_finite_loss_stops_training(options, monkeypatch):
    monkeypatch.setattr(sf.Sequential, "loss_and_grad", lambda self, x, *_, **__: (np.inf, np.ones((1, len(x), 10))))
    with pytest.raises(NonFiniteError, match="iteration 1: the loss of layer 8 .* is inf"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(Settings(**options))


def test_an_output_that_stays_silent_is_reported(options, monkeypatch):
    monkeypatch.setattr(training, "SILENT_ITERATIONS", 3)
    # Without a gradient nothing ever leaves the initial weights, whose output is silent.
    monkeypatch.setattr(sf.optim.Adam, "update", lambda *_: None)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        train(Settings(**options))
    messages = [str(warning.message) for warning in seen]
    assert sum("iteration 3: the output layer has not spiked in the last 3 iterations" in m for m in messages) == 1
    assert sum("did not spike once in this evaluation" in m for m in messages) == 2  # at 4 and 6, not untrained


@untrained
def test_evaluate_prints_the_accuracy_of_the_run(options, tmp_path, capsys):
    summary = train(Settings(**options))
    capsys.readouterr()
    assert cli.main(["evaluate", str(tmp_path / "run"), "--data-dir", options["data_dir"]]) == 0
    assert f"test accuracy {100 * summary['test_accuracy']:.2f} %" in capsys.readouterr().out


@untrained
@pytest.mark.parametrize("change", [{"encoding": "rate"}, {"encoding": "latency", "subset": 3}, {"subset": 2}], ids=str)
def test_evaluate_shows_a_checkpoint_what_its_training_showed_it(options, tmp_path, monkeypatch, capsys, change):
    predict, seen = sf.Sequential.predict, []

    def watched(self, x, *args, **kwargs):
        seen.append(x)
        return predict(self, x, *args, **kwargs)

    monkeypatch.setattr(sf.Sequential, "predict", watched)
    summary = train(Settings(**{**options, **change, "seed": 7, "max_iterations": 2}))
    last = seen[-1]
    capsys.readouterr()
    assert cli.main(["evaluate", str(tmp_path / "run"), "--data-dir", options["data_dir"]]) == 0
    assert np.array_equal(seen[-1], last)
    count = -(-40 // change.get("subset", 1))
    out = capsys.readouterr().out
    assert f"test accuracy {100 * summary['test_accuracy']:.2f} % (" in out and f" of {count}), iteration 2" in out


@untrained
def test_each_training_step_draws_its_own_spikes_again_in_a_second_run(options, tmp_path, monkeypatch):
    backward, seen = sf.Sequential.loss_and_grad, []

    def watched(self, x, *args, **kwargs):
        seen.append(np.array(x))
        return backward(self, x, *args, **kwargs)

    monkeypatch.setattr(sf.Sequential, "loss_and_grad", watched)
    for folder, seed in (("one", 1), ("again", 1), ("other", 2)):
        change = {"encoding": "rate", "seed": seed, "max_iterations": 2, "out_dir": str(tmp_path / folder)}
        train(Settings(**{**options, **change}))
    one, again, other = seen[:2], seen[2:4], seen[4:]
    assert one[0].shape == (4, BATCH, 1, 28, 28) and one[0].dtype == bool
    assert np.array_equal(one, again)
    assert not np.array_equal(one[0], one[1]) and not np.array_equal(one[0], other[0])


def test_evaluate_refuses_what_is_no_training_checkpoint(tmp_path, capsys):
    sf.Sequential(sf.Linear(2, 2), sf.Leaky(0.5)).save(tmp_path / "net.npz")
    assert cli.main(["evaluate", str(tmp_path / "net.npz")]) == 2
    assert "does not say how many steps" in capsys.readouterr().err
    assert cli.main(["evaluate", str(tmp_path)]) == 2
    assert "checkpoint-latest.npz" in capsys.readouterr().err


def test_errors_are_one_line_and_exit_status_2(capsys):
    assert cli.main(["train", "nonsense"]) == 2
    captured = capsys.readouterr()
    assert (
        captured.err == "spikeflow: error: preset must be one of csnn-mnist, fcn-mnist, csnn-fashion, got 'nonsense'\n"
        and captured.out == ""
    )


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_leaves_a_loadable_checkpoint_and_says_where(data_dir, tmp_path):
    command = [
        sys.executable,
        "-m",
        "spikeflow",
        "train",
        "csnn-mnist",
        "--data-dir",
        data_dir,
        "--out-dir",
        str(tmp_path / "run"),
    ]
    command += ["--num-steps", "4", "--batch-size", str(BATCH), "--epochs", "100000", "--eval-every", "1000000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("train_loss") > 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    latest = tmp_path / "run" / "checkpoint-latest.npz"
    assert f"checkpoint in {latest}" in out and "interrupted" in err and "Traceback" not in err
    assert checkpoint.load_with_info(latest)[1]["iteration"] > 2


def test_gradcheck_prints_a_table_and_passes(capsys):
    assert cli.main(["gradcheck", "csnn-mnist", "--batch-size", "2", "--num-steps", "4", "--entries", "4"]) == 0
    out = capsys.readouterr().out
    assert "7.weight" in out and "floor" in out and "FAILED" not in out and "undecidable" not in out
