"""``csnn-fashion`` on the command line, with few channels and images: epochs, schedules, what is printed and what is kept."""

import contextlib
import functools
import json
import re
import struct
import warnings

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import checkpoint, cli, presets, training
from spikeflow.training import Settings

pytestmark = pytest.mark.filterwarnings("always")  # the command line prints them
PER_CENT = r"([ \d]\d\.\d\d|100\.00) %"
LINE = re.compile(
    rf"epoch +(\d+)  train loss (\d\.\d{{5}}), accuracy {PER_CENT}  test loss (\d\.\d{{5}}), accuracy {PER_CENT}"
    rf"  best {PER_CENT}  +(\d+) images/s  ETA (\d+:\d\d:\d\d)"
)
TRAIN, TEST = 64, 300  # images; so that an epoch has 4 batches of 16, and an evaluation 2 of 256 and 44
SMALL = "--channels 2 --batch-size 16 --epochs 3 --backend reference --threads 1".split()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A few images of MNIST that stand for Fashion-MNIST, as four IDX files."""
    folder = tmp_path_factory.mktemp("data")
    for split, prefix, count in (("train", "train", TRAIN), ("test", "t10k", TEST)):
        images, labels = sf.datasets.mnist(split)
        header = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images[:count].tobytes())
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, count) + labels[:count].tobytes())
    return folder


@pytest.fixture
def spikeflow(capsys, data_dir, tmp_path):
    """Trains ``csnn-fashion`` into ``tmp_path / "run"`` -> status, stdout, stderr, rows of steps, rows of evaluations."""

    def run(*argv, out="run"):
        words = ["train", "csnn-fashion", *SMALL, "--data-dir", data_dir, "--out-dir", tmp_path / out, *argv]
        status = cli.main([str(word) for word in words])
        rows = []
        if (tmp_path / out / "metrics.jsonl").exists():
            rows = [json.loads(line) for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()]
        steps = [row for row in rows if "test_accuracy" not in row]
        return status, *capsys.readouterr(), steps, [row for row in rows if "test_accuracy" in row]

    return run


def test_without_choices_it_is_spikingjellys_example():
    settings = Settings("csnn-fashion").resolved()
    assert (settings.num_steps, settings.batch_size, settings.epochs, settings.eval_every) == (4, 128, 64, None)
    assert (settings.optimizer, settings.lr, settings.momentum) == ("sgd", 0.1, 0.9)
    assert (settings.lr_scheduler, settings.T_max, settings.step_size, settings.gamma) == ("cosine", 64, None, None)
    assert (settings.dataset, settings.loss, settings.encoding, settings.amp) == (
        "fashion-mnist",
        "mse_rate_loss",
        "direct",
        False,
    )
    layers = presets.make_layers(presets.find("csnn-fashion"), vars(settings))
    assert [type(layer).__name__ for layer in layers] == (
        "Conv2d BatchNorm2d IFNode MaxPool2d Conv2d BatchNorm2d IFNode MaxPool2d Flatten Linear IFNode Linear IFNode".split()
    )
    for position, (inputs, outputs) in {0: (1, 128), 4: (128, 128)}.items():
        conv = layers[position]
        assert (conv.in_channels, conv.out_channels, conv.kernel_size, conv.padding, conv.bias) == (inputs, outputs, 3, 1, False)
    for position, (inputs, outputs) in {9: (6272, 2048), 11: (2048, 10)}.items():
        assert (layers[position].in_features, layers[position].out_features, layers[position].bias) == (inputs, outputs, False)
    for node in (layer for layer in layers if isinstance(layer, sf.IFNode)):
        assert (node.v_threshold, node.v_reset, node.detach_reset) == (1, 0, False)
        assert node.surrogate_function == sf.surrogate.ATan(2)


def test_an_epoch_is_a_line_and_a_row(spikeflow, tmp_path):
    status, out, err, steps, evaluations = spikeflow()
    assert status == 0, err
    lines = [LINE.fullmatch(line) for line in out.splitlines()]
    assert all(lines[:3]) and not any(lines[3:])
    for epoch, (line, row) in enumerate(zip(lines[:3], evaluations, strict=True)):
        batches = [step["train_loss"] for step in steps if step["epoch"] == epoch]
        assert len(batches) == 4 and row["train_loss"] == pytest.approx(np.mean(batches), rel=1e-12)
        assert row.keys() == {"iteration", "epoch", "test_accuracy", "test_loss", "train_accuracy", "train_loss", "lr"}
        assert (row["epoch"], row["iteration"]) == (epoch, 4 * (epoch + 1))
        assert row["train_accuracy"] * TRAIN == round(row["train_accuracy"] * TRAIN)
        best = max(other["test_accuracy"] for other in evaluations[: epoch + 1])
        expected = [
            epoch,
            row["train_loss"],
            100 * row["train_accuracy"],
            row["test_loss"],
            100 * row["test_accuracy"],
            100 * best,
        ]
        half = [0, 5e-6, 5e-3, 5e-6, 5e-3, 5e-3]  # of the last digit that is printed
        for i, (number, rounded) in enumerate(zip(expected, half, strict=True), 1):
            assert float(line[i]) == pytest.approx(number, rel=1e-9, abs=1.01 * rounded)
    assert lines[2][8] == "0:00:00"
    rates = [row["lr"] for row in evaluations]
    np.testing.assert_allclose(rates, [0.1, 0.09993977281025862, 0.09975923633360985], rtol=1e-12)
    net, info = checkpoint.load_with_info(tmp_path / "run" / "checkpoint-latest.npz")
    assert info["dataset"] == "fashion-mnist" and info["preset"] == "csnn-fashion" and info["iteration"] == 12
    assert int(net.state_dict()["1.num_batches_tracked"]) == 12  # evaluations do not count
    best = checkpoint.load_with_info(tmp_path / "run" / "checkpoint-best.npz")[1]
    assert best["test_accuracy"] == max(row["test_accuracy"] for row in evaluations)
    assert (tmp_path / "run" / "training.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("loss", ["mse_rate_loss", "ce_membrane_loss"])
def test_the_test_loss_is_the_mean_over_all_test_images(spikeflow, tmp_path, data_dir, loss):
    status, _, err, _, evaluations = spikeflow("--loss", loss, "--epochs", 1)
    assert status == 0, err
    net = checkpoint.load(tmp_path / "run" / "checkpoint-latest.npz", backend="reference").eval()
    images, labels = sf.datasets.fashion_mnist("test", data_dir)
    spikes, membrane = net.forward(images[:, None] / np.float32(255), num_steps=4)
    expected = presets.make_loss(loss).evaluate(spikes, membrane, labels)[0]
    assert evaluations[0]["test_loss"] == pytest.approx(expected, rel=1e-6)
    assert evaluations[0]["test_accuracy"] == sf.metrics.accuracy_rate(spikes, labels)


def test_a_run_is_evaluated_on_its_own_data_set(spikeflow, tmp_path, data_dir, capsys, monkeypatch):
    monkeypatch.setattr(sf.datasets, "mnist", functools.cache(sf.datasets.mnist))
    for dataset, options, count in (("fashion-mnist", [], TEST), ("mnist", ["--subset", 250], 40)):
        folder = ["--data-dir", data_dir] if dataset == "fashion-mnist" else []
        words = ["train", "csnn-fashion", *SMALL, "--epochs", 1, "--dataset", dataset, *options, *folder]
        assert cli.main([str(word) for word in [*words, "--out-dir", tmp_path / dataset]]) == 0
        printed = re.search(r"test accuracy (\S+ %) on", capsys.readouterr().out).group(1)
        words = ["evaluate", tmp_path / dataset, "--backend", "reference", *folder]
        assert cli.main([str(word) for word in words]) == 0
        out = capsys.readouterr().out
        assert f"test accuracy {printed} (" in out and f" of {count}), iteration" in out
        assert json.loads((tmp_path / dataset / "config.json").read_text())["dataset"] == dataset


def test_an_epoch_that_the_limit_cuts_short_is_reported_as_far_as_it_went(spikeflow):
    status, out, err, steps, evaluations = spikeflow("--max-iterations", 6)
    assert status == 0, err
    assert [row["iteration"] for row in evaluations] == [4, 6] and len(steps) == 6
    assert evaluations[1]["train_loss"] == pytest.approx(np.mean([step["train_loss"] for step in steps[4:]]))
    assert evaluations[1]["train_accuracy"] * 32 == round(evaluations[1]["train_accuracy"] * 32)
    assert sum(bool(LINE.fullmatch(line)) for line in out.splitlines()) == 2


def test_evaluations_every_few_iterations_are_those_of_the_other_networks(spikeflow):
    status, out, err, _, evaluations = spikeflow("--eval-every", 3, "--max-iterations", 7)
    assert status == 0, err
    assert [row["iteration"] for row in evaluations] == [0, 3, 6, 7]
    assert all(row.keys() == {"iteration", "epoch", "test_accuracy"} for row in evaluations)
    assert out.splitlines()[1].startswith("iteration     3  test accuracy ")


@pytest.mark.parametrize(
    ("options", "optimizer", "rates"),
    [
        ("--lr-scheduler step --step-size 1 --gamma 0.5 --lr 0.2", "SGD(0.9)", [0.2, 0.1, 0.05]),
        ("--lr-scheduler none --momentum 0", "SGD(0.0)", [0.1, 0.1, 0.1]),
        ("--T-max 2", "SGD(0.9)", [0.1, 0.05, 0]),
        ("--optimizer adam --lr-scheduler none", "Adam", [1e-3, 1e-3, 1e-3]),
    ],
)
def test_optimizers_and_schedules(spikeflow, monkeypatch, options, optimizer, rates):
    steps = []

    def watch(self):
        steps.append((f"{type(self).__name__}" + (f"({self.momentum})" if hasattr(self, "momentum") else ""), self.lr))

    monkeypatch.setattr(sf.optim.Optimizer, "step", watch)
    status, _, err, _, evaluations = spikeflow(*options.split())
    assert status == 0, err
    np.testing.assert_allclose([lr for _, lr in steps], np.repeat(rates, 4), atol=1e-17)
    assert {name for name, _ in steps} == {optimizer}
    np.testing.assert_allclose([row["lr"] for row in evaluations], rates, atol=1e-17)


def test_other_networks_take_an_optimizer_and_a_schedule(data_dir, tmp_path, monkeypatch):
    rates = []
    step = sf.optim.SGD.step
    monkeypatch.setattr(sf.optim.SGD, "step", lambda self: (rates.append(self.lr), step(self))[1])
    chosen = {"optimizer": "sgd", "lr_scheduler": "step", "step_size": 1, "dataset": "fashion-mnist", "data_dir": str(data_dir)}
    settings = Settings(
        "fcn-mnist", hidden=8, batch_size=32, epochs=2, num_steps=3, backend="reference", out_dir=str(tmp_path / "run"), **chosen
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        training.train(settings)
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01], rtol=1e-12)


def test_mixed_precision_is_asked_of_the_network_only_where_it_is_wanted(data_dir, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def sequential(*layers, **options):
        seen.append(options)
        raise Stop

    seen = []
    monkeypatch.setattr(training, "Sequential", sequential)
    for amp in (False, True):
        with pytest.raises(Stop):
            training.train(Settings("csnn-fashion", channels=2, amp=amp, data_dir=str(data_dir), out_dir=str(tmp_path / "run")))
    assert [options["amp"] for options in seen] == [False, True]


def test_an_interruption_before_the_first_evaluation_leaves_a_checkpoint(spikeflow, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def interrupted():
        yield lambda: True

    monkeypatch.setattr(training, "_interruptible", interrupted)
    status, out, _, steps, evaluations = spikeflow()
    assert status == 130 and steps == evaluations == []
    assert "interrupted after iteration 0" in out and "no test accuracy: training ended before the first evaluation" in out
    assert checkpoint.load_with_info(tmp_path / "run" / "checkpoint-latest.npz")[1]["test_accuracy"] is None


def test_without_the_data_nothing_is_written(spikeflow, tmp_path):
    (tmp_path / "empty").mkdir()
    status, out, err, *_ = spikeflow("--data-dir", tmp_path / "empty")
    assert (status, out) == (2, "") and f"data_dir {tmp_path / 'empty'}" in err and not (tmp_path / "run").exists()


def test_the_compiled_backend_trains_alike(spikeflow, tmp_path):
    losses = []
    for backend in ("reference", "cpu"):
        status, _, err, steps, evaluations = spikeflow("--epochs", 1, "--backend", backend, "--T", 2, out=backend)
        assert status == 0, err
        losses.append([step["train_loss"] for step in steps])
        assert json.loads((tmp_path / backend / "config.json").read_text())["num_steps"] == 2
    np.testing.assert_allclose(*losses, rtol=0.02)


def test_gradcheck_has_few_channels_by_default(capsys):
    words = "gradcheck csnn-fashion --backend reference --batch-size 2 --num-steps 3 --entries 3 --directions 1".split()
    for channels, options in ((4, []), (2, ["--channels", "2"])):
        assert cli.main([*words, *options]) == 0
        out = capsys.readouterr().out
        assert "csnn-fashion, backend reference" in out and "FAILED" not in out and "undecidable" not in out
        assert f"1.weight              {min(channels, 3) + 1}  " in out and "11.weight" in out
    assert cli.main([*words, "--channels", "0"]) == 2
    assert "channels must be at least 1, got 0" in capsys.readouterr().err
    assert cli.main(["gradcheck", "fcn-mnist", "--channels", "2"]) == 2
    assert "channels: the channels of this network are fixed" in capsys.readouterr().err
