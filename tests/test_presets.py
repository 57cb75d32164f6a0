"""What the command line can train and choose: networks, losses, encodings, neurons, surrogates."""

import functools
import json
import re

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import checkpoint, cli, presets, training
from spikeflow.ops.surrogate import SURROGATES

pytestmark = pytest.mark.filterwarnings("always")  # the command line prints them
SMALL = "--hidden 12 --num-steps 5 --batch-size 16 --max-iterations 2 --subset 300 --backend reference".split()


@pytest.fixture(scope="module", autouse=True)
def mnist_is_unpacked_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sf.datasets, "mnist", functools.cache(sf.datasets.mnist))
        yield


@pytest.fixture
def spikeflow(capsys):
    """Runs a command -> exit status, stdout, stderr."""

    def run(*argv):
        status = cli.main([str(word) for word in argv])
        return status, *capsys.readouterr()

    return run


def read(run):
    """-> config, rows of metrics without times, network, info."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    return json.loads((run / "config.json").read_text()), rows, *checkpoint.load_with_info(run / "checkpoint-latest.npz")


def printed_accuracy(text):
    return re.search(r"test accuracy (\d+\.\d\d %) [(o]", text).group(1)


def test_fcn_mnist_without_choices_is_tutorial_5(spikeflow, tmp_path):
    status, out, err = spikeflow("train", "fcn-mnist", "--subset", 300, "--backend", "reference", "--out-dir", tmp_path / "run")
    assert status == 0, err
    config, rows, net, info = read(tmp_path / "run")
    expected = {
        "preset": "fcn-mnist", "epochs": 1, "batch_size": 128, "lr": 5e-4, "num_steps": 25, "max_iterations": None,
        "eval_every": 50, "seed": 0, "backend": "reference", "data_dir": None, "out_dir": str(tmp_path / "run"),
        "loss": "ce_membrane_loss", "encoding": "direct", "neuron": "leaky", "surrogate": "atan:2", "beta": 0.95,
        "learn_beta": False, "learn_threshold": False, "hidden": 1000, "subset": 300, "dataset": "mnist", "channels": None,
        "optimizer": "adam", "momentum": None, "lr_scheduler": "none", "step_size": None, "gamma": None, "T_max": None,
        "amp": False, "network": None, "checkpoint_every": None, "max_bytes": None, "clip_norm": None, "warmup": None,
        "augment": None, "tensorboard": False,
    }  # fmt: skip
    assert config.keys() == {*expected, "threads", "description", "versions"} and expected.items() <= config.items()
    assert [row["iteration"] for row in rows if "train_loss" in row] == [1]
    assert rows[1]["train_loss"] > np.log(10) * 25 / 2  # the membranes' loss is a sum over the steps
    flatten, first, neuron, last, output = net.layers
    assert isinstance(flatten, sf.Flatten)
    assert [first.params["weight"].value.shape, last.params["weight"].value.shape] == [(1000, 784), (10, 1000)]
    for leaky in (neuron, output):
        assert type(leaky) is sf.Leaky and (leaky.beta, leaky.threshold, leaky.learned) == (0.95, 1.0, [])
        assert leaky.spike_grad == sf.surrogate.atan(2) and leaky.reset_mechanism == "subtract"
    assert (info["num_steps"], info["encoding"], info["subset"]) == (25, "direct", 300)


def test_csnn_mnist_without_choices_is_tutorial_6():
    settings = training.Settings("csnn-mnist").resolved()
    chosen = (settings.loss, settings.encoding, settings.neuron, settings.surrogate, settings.beta, settings.hidden)
    assert chosen == ("ce_rate_loss", "direct", "leaky", "fast_sigmoid:25", 0.5, None)
    assert (settings.num_steps, settings.batch_size, settings.lr, settings.epochs) == (50, 128, 1e-2, 1)
    layers = presets.make_layers(presets.find("csnn-mnist"), vars(settings))
    assert [type(layer).__name__ for layer in layers] == (
        "Conv2d MaxPool2d Leaky Conv2d MaxPool2d Leaky Flatten Linear Leaky".split()
    )
    assert layers[-1].beta == 0.5 and layers[-1].spike_grad == sf.surrogate.fast_sigmoid(25)


VARIANTS = [  # neuron, loss, encoding, surrogate, beta, what is learned
    ("leaky", "ce_membrane_loss", "direct", "atan:3", 0.9, ["beta", "threshold"]),
    ("lapicque", "ce_rate_loss", "rate", "fast_sigmoid:10", 0.8, ["threshold"]),
    ("synaptic", "ce_count_loss", "latency", "sigmoid", 0.7, ["beta"]),
    ("alpha", "ce_max_membrane_loss", "rate", "straight_through_estimator", 0.5, ["beta"]),
    ("rleaky", "ce_temporal_loss", "direct", "triangular", 0.9, []),
    ("rsynaptic", "mse_count_loss", "latency", "heaviside", 0.6, ["beta", "threshold"]),
    ("leaky", "mse_membrane_loss", "direct", "spike_rate_escape", 1.0, []),
    ("leaky", "mse_temporal_loss", "rate", "LSO:0.2", 0.0, ["beta"]),
    ("synaptic", "ce_rate_loss", "direct", "SFS", 0.95, ["threshold"]),
    ("leaky", "mse_rate_loss", "direct", "ATan", 0.9, []),
    ("lapicque", "tet_loss", "rate", "Sigmoid:2", 0.8, []),
    ("leaky", "ce_rate_loss", "direct", "SoftSign", 0.5, []),
    ("leaky", "ce_rate_loss", "direct", "SuperSpike:2", 0.5, ["beta"]),
    ("leaky", "ce_rate_loss", "direct", "PiecewiseQuadratic", 0.9, []),
    ("leaky", "ce_rate_loss", "direct", "PiecewiseExp", 0.9, []),
    ("leaky", "ce_rate_loss", "direct", "Erf", 0.9, []),
    ("leaky", "ce_rate_loss", "direct", "LeakyKReLU:0.1", 0.9, []),
    ("leaky", "ce_rate_loss", "direct", "Rect", 0.9, []),
]


def test_the_variants_below_are_all_that_there_is():
    neurons, losses, encodings, surrogates, *_ = (set(column) for column in list(zip(*VARIANTS, strict=True))[:4])
    assert neurons == set(presets.NEURONS) and losses == set(presets.LOSSES) and encodings == set(presets.ENCODINGS)
    assert {name.partition(":")[0] for name in surrogates} == set(SURROGATES)


@pytest.mark.parametrize(("neuron", "loss", "encoding", "surrogate", "beta", "learned"), VARIANTS)
def test_a_variant_trains_as_chosen_and_evaluates_to_the_printed_accuracy(
    spikeflow, tmp_path, neuron, loss, encoding, surrogate, beta, learned
):
    run = tmp_path / "run"
    chosen = {"neuron": neuron, "loss": loss, "encoding": encoding, "surrogate": surrogate, "beta": beta, "seed": 3}
    options = [word for key, value in chosen.items() for word in (f"--{key}", value)]
    options += [f"--learn-{name}" for name in learned]
    status, out, err = spikeflow("train", "fcn-mnist", *SMALL, *options, "--out-dir", run)
    assert status == 0, err
    config, rows, net, info = read(run)
    assert {**chosen, "hidden": 12, "subset": 300, "num_steps": 5}.items() <= config.items()
    assert (config["learn_beta"], config["learn_threshold"]) == ("beta" in learned, "threshold" in learned)
    assert all(np.isfinite(row["train_loss"]) for row in rows if "train_loss" in row)
    assert net.layers[1].params["weight"].value.shape == (12, 784)
    name, _, number = surrogate.partition(":")
    for layer in (net.layers[2], net.layers[4]):
        assert type(layer).__name__.lower() == neuron and layer.beta == pytest.approx(beta)
        assert layer.spike_grad == SURROGATES[name](*([float(number)] if number else []))
        recurrent = {"V"} if neuron.startswith("r") else set()
        assert set(layer.learned) == set(layer.params) == set(learned) | recurrent
    moved = [p.name for p in net.parameters() if not np.array_equal(p.value, initial(config)[p.name])]
    assert moved, "nothing was learned"
    assert (info["encoding"], info["seed"], info["subset"], info["num_steps"]) == (encoding, 3, 300, 5)
    status, evaluated, _ = spikeflow("evaluate", run, "--backend", "reference")
    assert status == 0 and printed_accuracy(evaluated) == printed_accuracy(out) and "of 34)" in evaluated


def initial(config):
    """-> the weights that a run began with, by name."""
    net = sf.Sequential(*presets.make_layers(presets.find(config["preset"]), config), seed=config["seed"], backend="reference")
    net.predict(np.zeros((1, 1, 28, 28), np.float32), num_steps=1)
    return {parameter.name: parameter.value for parameter in net.parameters()}


def test_with_rate_encoding_a_seed_gives_the_same_metrics_and_evaluation_every_time(spikeflow, tmp_path):
    found, accuracies = {}, {}
    for folder, seed in (("one", 5), ("again", 5), ("other", 6)):
        options = [*SMALL, "--subset", 100, "--encoding", "rate", "--seed", seed, "--lr", "0.01", "--max-iterations", 8]
        status, out, err = spikeflow("train", "fcn-mnist", *options, "--hidden", 40, "--out-dir", tmp_path / folder)
        assert status == 0, err
        found[folder], accuracies[folder] = read(tmp_path / folder)[1], printed_accuracy(out)
    assert found["one"] == found["again"] != found["other"]
    for folder, accuracy in accuracies.items():
        for _ in range(2):
            assert printed_accuracy(spikeflow("evaluate", tmp_path / folder, "--backend", "reference")[1]) == accuracy


def test_rate_spikes_depend_on_seed_and_step_and_latency_spikes_on_neither():
    x = np.random.default_rng(0).random((4, 1, 28, 28), np.float32)
    spikes, none = training.encode(x, "rate", 5, 0, 1)
    assert spikes.shape == (5, 4, 1, 28, 28) and none is None
    assert np.array_equal(spikes, training.encode(x, "rate", 5, 0, 1)[0])
    for seed, step in ((1, 1), (0, 2), (0, training.EVALUATION)):
        assert (spikes != training.encode(x, "rate", 5, seed, step)[0]).mean() > 0.2
    assert np.array_equal(*(training.encode(x, "latency", 5, seed, step)[0] for seed, step in ((0, 1), (3, 4))))
    assert training.encode(x, "direct", 5, 0, 1) == (x, 5)


def test_health_is_printed_and_a_healthy_network_gets_no_warning(spikeflow, tmp_path):
    options = [*SMALL, "--num-steps", 25, "--hidden", 100, "--max-iterations", 8, "--subset", 200, "--lr", "0.005"]
    status, out, err = spikeflow("train", "fcn-mnist", *options, "--out-dir", tmp_path / "run")
    assert status == 0 and "warning" not in err
    table = out[out.index("layer                 rate   never") :].splitlines()
    assert table[1].startswith("2 Leaky") and table[2].startswith("4 Leaky") and "%" in table[2]


def test_a_dead_layer_is_warned_of_by_name(spikeflow, tmp_path, monkeypatch):
    monkeypatch.setitem(presets.NEURONS, "leaky", lambda beta: {"type": "Leaky", "beta": beta, "threshold": 1e6})
    status, out, err = spikeflow("train", "fcn-mnist", *SMALL, "--out-dir", tmp_path / "run")
    assert status == 0 and "layer                 rate   never" in out
    assert "spikeflow: warning: no neuron of layer 2, 4 fires" in err


BAD = [
    ("fcn-mnist --loss nope", ["loss must be one of", *presets.LOSSES, "'nope'"]),
    ("fcn-mnist --loss Loss", ["loss must be one of", *presets.LOSSES]),
    ("fcn-mnist --encoding delta", ["encoding must be one of direct, rate, latency", "'delta'"]),
    ("fcn-mnist --neuron Leaky", ["neuron must be one of", *presets.NEURONS, "'Leaky'"]),
    ("fcn-mnist --surrogate relu", ["surrogate must be one of", *SURROGATES, "'relu'"]),
    ("fcn-mnist --surrogate atan:much", ["surrogate 'atan:much'", "float"]),
    ("fcn-mnist --surrogate atan:0", ["surrogate 'atan:0'", "alpha"]),
    ("fcn-mnist --surrogate atan:nan", ["surrogate 'atan:nan'", "alpha"]),
    ("fcn-mnist --surrogate straight_through_estimator:2", ["surrogate 'straight_through_estimator:2'"]),
    ("fcn-mnist --hidden 0", ["hidden must be at least 1, got 0"]),
    ("fcn-mnist --hidden -5", ["hidden must be at least 1, got -5"]),
    ("csnn-mnist --hidden 12", ["hidden", "no hidden layer"]),
    ("fcn-mnist --channels 4", ["channels: the channels of this network are fixed; leave it out"]),
    ("csnn-fashion --channels 0", ["channels must be at least 1, got 0"]),
    ("csnn-fashion --hidden 12", ["hidden", "no hidden layer"]),
    ("csnn-fashion --neuron leaky", ["neuron: the neurons of this network are IFNode; leave it out"]),
    ("csnn-fashion --beta 0.5", ["beta: the neurons of this network do not decay; leave it out"]),
    ("csnn-fashion --beta 0", ["beta: the neurons of this network do not decay; leave it out"]),
    ("csnn-fashion --learn-beta", ["learn_beta: the neurons of this network do not decay"]),
    ("csnn-fashion --learn-threshold", ["learn_threshold: the neurons of this network have a fixed threshold"]),
    ("csnn-fashion --dataset cifar", ["dataset must be one of mnist, fashion-mnist, got 'cifar'"]),
    ("csnn-fashion --optimizer lion", ["optimizer must be one of sgd, adam, adamw, got 'lion'"]),
    ("csnn-fashion --lr-scheduler linear", ["lr_scheduler must be one of step, cosine, exponential, one-cycle, none, got"]),
    ("csnn-fashion --optimizer adam --momentum 0.5", ["momentum: nothing that the optimizer adam has; leave it out"]),
    ("fcn-mnist --momentum 0.5", ["momentum: nothing that the optimizer adam has; leave it out"]),
    ("csnn-fashion --step-size 3", ["step_size: nothing that the lr_scheduler cosine has; leave it out"]),
    ("csnn-fashion --gamma 0.5", ["gamma: nothing that the lr_scheduler cosine has; leave it out"]),
    ("csnn-fashion --lr-scheduler step --T-max 3", ["T_max: nothing that the lr_scheduler step has; leave it out"]),
    ("fcn-mnist --T-max 3", ["T_max: nothing that the lr_scheduler none has; leave it out"]),
    ("fcn-mnist --lr-scheduler cosine --T-max 0", ["T_max must be at least 1, got 0"]),
    ("fcn-mnist --lr-scheduler step --step-size 0", ["step_size must be at least 1, got 0"]),
    ("fcn-mnist --lr-scheduler step --gamma -1", ["gamma must be a number at least 0, got -1.0"]),
    ("fcn-mnist --optimizer sgd --momentum -1", ["momentum must be a number at least 0, got -1.0"]),
    ("fcn-mnist --subset 0", ["subset must be at least 1, got 0"]),
    ("fcn-mnist --subset -2", ["subset must be at least 1, got -2"]),
    ("fcn-mnist --subset 1000", ["batch_size"]),
    ("cnn-mnist", ["preset must be one of csnn-mnist, fcn-mnist, csnn-fashion, got 'cnn-mnist'"]),
    *(
        (f"fcn-mnist --beta {beta} --neuron {neuron}", ["beta must be", beta])
        for neuron, beta in [("leaky", "nan"), *((neuron, beta) for neuron in presets.NEURONS for beta in ("1.5", "-0.1"))]
    ),
]  # fmt: skip


@pytest.mark.parametrize(("command", "messages"), BAD, ids=[command for command, _ in BAD])
def test_bad_choices_are_one_line_and_exit_status_2_and_leave_nothing(spikeflow, tmp_path, command, messages):
    status, out, err = spikeflow("train", *command.split(), "--backend", "reference", "--out-dir", tmp_path / "run")
    assert status == 2 and out == "" and not (tmp_path / "run").exists()
    assert err.startswith("spikeflow: error: ") and err.count("\n") == 1
    assert all(message in err for message in messages), err


@pytest.mark.parametrize("option", ["--beta=much", "--hidden=many", "--subset=1.5"])
def test_what_is_no_number_exits_with_2(capsys, option):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "fcn-mnist", option])
    assert stop.value.code == 2 and option.partition("=")[0] in capsys.readouterr().err
