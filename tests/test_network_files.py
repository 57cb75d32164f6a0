"""Networks from TOML files: what they may say, and what is said of a mistake."""

import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import cli, network_files, presets

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / "spikeflow" / "networks").glob("*.toml"), *(ROOT / "examples" / "networks").glob("*.toml")])
EXAMPLE = textwrap.dedent(network_files.__doc__.partition("\n\n")[2].rpartition("\n\n")[0])
SMALL = """
[network]
input = [1, 28, 28]

[choices]
neuron = "leaky"
surrogate = "atan:3"
beta = 0.75
hidden = 6
copies = 2

[defaults.Linear]
bias = false

[[layers]]
type = "Flatten"

[[layers]]
type = "Linear"
in_features = 784
out_features = "$hidden * copies"

[[layers]]
type = "$neuron"
reset_mechanism = "none"

[[layers]]
type = "Linear"
in_features = "$hidden * copies"
out_features = 10
bias = true

[[layers]]
type = "IFNode"
v_reset = "none"
surrogate_function = {name = "Sigmoid", alpha = 2}

[training]
num_steps = 3
optimizer = "sgd"
momentum = 0.25
lr_scheduler = "step"
gamma = 0.5
"""


@pytest.fixture
def read(tmp_path):
    """Writes a text to a file -> the preset that is read from it."""

    def write_and_read(text, name="my-net.toml"):
        (tmp_path / name).write_text(text)
        return presets.read(tmp_path / name)

    return write_and_read


def chosen(preset, **choices):
    return [layer.config() for layer in presets.make_layers(preset, {**preset.defaults, **choices})]


def test_a_file_is_the_network_that_it_describes(read):
    preset = read(SMALL)
    surrogate = sf.surrogate.atan(3)
    expected = [
        sf.Flatten(),
        sf.Linear(784, 12, bias=False),
        sf.Leaky(0.75, spike_grad=surrogate, reset_mechanism="none"),
        sf.Linear(12, 10),
        sf.IFNode(v_reset=None, surrogate_function=sf.surrogate.Sigmoid(2)),
    ]
    assert chosen(preset) == [layer.config() for layer in expected]
    assert (preset.name, preset.input_shape, preset.num_steps) == ("my-net", (1, 28, 28), 3)
    assert (preset.batch_size, preset.epochs, preset.eval_every, preset.lr) == (128, 1, None, None)
    assert (preset.defaults["dataset"], preset.defaults["loss"]) == ("mnist", "ce_rate_loss")


def test_choices_change_what_refers_to_them(read):
    preset = read(SMALL)
    layers = chosen(preset, hidden=5, neuron="synaptic", beta=0.5, learn_beta=True, surrogate="fast_sigmoid")
    assert (layers[1]["out_features"], layers[3]["in_features"]) == (10, 10)
    expected = sf.Synaptic(0.75, 0.5, spike_grad=sf.surrogate.fast_sigmoid(), reset_mechanism="none", learn_beta=True)
    assert layers[2] == expected.config()
    assert layers[4] == chosen(preset)[4]  # a neuron that the file names stays
    with pytest.raises(ValueError, match=r"channels: .*my-net\.toml has no such entry in \[choices\]; leave it out"):
        chosen(preset, channels=3)


def test_a_value_on_its_own_comes_before_a_choice_and_a_choice_before_a_default(read):
    text = SMALL.replace("[defaults.Linear]", "[defaults.Leaky]\nbeta = 0.1\nthreshold = 2.0\n\n[defaults.Linear]")
    leaky = chosen(read(text))[2]
    assert (leaky["beta"], leaky["threshold"]) == (0.75, 2.0)
    leaky = chosen(read(text.replace('type = "$neuron"', 'type = "$neuron"\nbeta = 0.2\nthreshold = 3')))[2]
    assert (leaky["beta"], leaky["threshold"]) == (0.2, 3)
    assert chosen(read(SMALL.replace("v_reset =", 'v_threshold = "$beta"\nv_reset =')))[4]["v_threshold"] == 0.75


def test_the_example_of_the_documentation(read):
    preset = read(EXAMPLE)
    node = dict(tau=2.0, surrogate_function=sf.surrogate.ATan(2.0))
    expected = [
        sf.Conv2d(1, 8, 3), sf.LIFNode(**node), sf.Flatten(), sf.Linear(8 * 26 * 26, 10), sf.LIFNode(**node, v_reset=None)
    ]  # fmt: skip
    assert chosen(preset) == [layer.config() for layer in expected]
    assert (preset.name, preset.num_steps) == ("small", 8)


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_file_of_ours_is_a_network_that_learns(path):
    preset = presets.read(path)
    assert preset.name == path.stem
    small = {key: 4 for key in presets.SIZES if preset.defaults[key] is not None}
    net = sf.Sequential(*presets.make_layers(preset, {**preset.defaults, **small}), backend="reference")
    images, labels = sf.datasets.mnist("test")
    net.loss_and_grad(images[:4, None] / np.float32(255), labels[:4], presets.make_loss(preset.defaults["loss"]), num_steps=2)
    assert any(parameter.grad.any() for parameter in net.parameters())


def test_our_files_are_the_presets():
    assert {path.stem for path in FILES if path.parents[1].name == "spikeflow"} == set(presets.PRESETS)


def test_a_description_outlives_its_file(read, tmp_path):
    preset = read(SMALL)
    description = json.loads(json.dumps(preset.config()))
    (tmp_path / "my-net.toml").unlink()
    again = presets.from_config(description)
    assert (again.name, chosen(again, hidden=3)) == ("my-net", chosen(preset, hidden=3))
    assert (again.defaults, again.options, again.num_steps) == (preset.defaults, preset.options, 3)
    assert chosen(presets.choose(None, description)) == chosen(preset)


def test_options_of_the_files_optimizer_and_schedule_are_theirs_alone(read):
    preset = read(SMALL)

    def filled(**choices):
        unset = dict.fromkeys([*presets._options_of_training(), "lr"])
        choices = {**preset.defaults, **unset, **choices}
        presets.fill_training(preset, choices)
        return choices

    own = filled()
    assert (own["lr"], own["momentum"], own["gamma"], own["step_size"]) == (presets.RATES["sgd"], 0.25, 0.5, 32)
    other = filled(optimizer="adam", lr_scheduler="cosine", momentum=None)
    assert (other["lr"], other["momentum"], other["gamma"]) == (presets.RATES["adam"], None, None)
    assert filled(momentum=0.5)["momentum"] == 0.5
    assert read(SMALL.replace("num_steps = 3", "num_steps = 3\nlr = 1")).lr == 1


LAST = 'type = "IFNode"\nv_reset = "none"\nsurrogate_function = {name = "Sigmoid", alpha = 2}'
LINEAR = 'type = "Linear"\nin_features = 784'
BAD = [  # what is replaced in SMALL, by what, and what is said
    (
        "a layer", 'type = "IFNode"', 'type = "IfNod"',
        "layer 4: unknown layer 'IfNod' (did you mean 'IFNode'?); known are AvgPool2d",
    ),
    ("no layer's type", 'type = "Flatten"', "kind = 1", "layer 0 must be a table with a type"),
    (
        "an option", LINEAR, LINEAR + "\nbais = true",
        "layer 1 (Linear): there is no option 'bais' (did you mean 'bias'?)",
    ),
    (
        "a foreign option", LINEAR, LINEAR + "\nx = 1",
        "layer 1 (Linear): there is no option 'x'; its options are in_features, out_f",
    ),
    (
        "no options", 'type = "Flatten"', 'type = "Flatten"\nx = 1',
        "layer 0 (Flatten): there is no option 'x'; it has none",
    ),
    ("nothing given", LINEAR, 'type = "Linear"', "layer 1 (Linear): in_features must be given"),
    (
        "a text", LINEAR, 'type = "Linear"\nin_features = "784"',
        "layer 1 (Linear): in_features must be an integer, got '784'",
    ),
    (
        "a fraction", LINEAR, 'type = "Linear"\nin_features = 784.0',
        "layer 1 (Linear): in_features must be an integer, got 784.0",
    ),
    (
        "a date", LINEAR, 'type = "Linear"\nin_features = 2020-01-01',
        "layer 1 (Linear): in_features must be an integer, got datet",
    ),
    (
        "a number too small", LINEAR, 'type = "Linear"\nin_features = 0',
        "layer 1 (Linear): in_features must be at least 1, got 0",
    ),
    ("no boolean", "bias = true", 'bias = "false"', "layer 3 (Linear): bias must be true or false, got 'false'"),
    (
        "a reset", '"none"\n\n[[', '"nothing"\n\n[[',
        "layer 2 (Leaky): reset_mechanism must be one of subtract, zero, none, got 'nothi",
    ),
    (
        "a surrogate", '"Sigmoid"', '"Sigmod"',
        "layer 4 (IFNode): unknown surrogate 'Sigmod' (did you mean 'Sigmoid'?); known are atan",
    ),
    (
        "its option", "alpha = 2", "slope = 2",
        "layer 4 (IFNode): surrogate Sigmoid: there is no option 'slope'; its options are alpha",
    ),
    ("its number", "alpha = 2", 'alpha = "2"', "layer 4 (IFNode): surrogate Sigmoid: alpha must be a number, got '2'"),
    (
        "its range", "alpha = 2", "alpha = -2",
        "layer 4 (IFNode): Sigmoid: alpha must be a positive finite number, got -2.0",
    ),
    (
        "no table", '{name = "Sigmoid", alpha = 2}', '"Sigmoid"',
        'layer 4 (IFNode): surrogate_function must be a description such as {"',
    ),
    (
        "a shape", "784", "783",
        "layer 1 (Linear(783, 12, bias=False)) expects rows of 783 features, got an input of shape (784,) per sample",
    ),
    (
        "a shape of images", "[1, 28, 28]", "[2, 28, 28]",
        "layer 1 (Linear(784, 12, bias=False)) expects rows of 784 features, got an input of shape (1568,) per sample",
    ),
    (
        "a neuron that never fires",
        'type = "$neuron"\nreset_mechanism = "none"', 'type = "LeakyIntegrator"\nbeta = "$beta"\n[[layers]]\ntype = "$neuron"',
        "layer 2 (LeakyIntegrator(0.75)) never fires, so that it must be the last layer",
    ),
    (
        "a choice", '"$neuron"', '"$neuro"',
        "[choices] neuron: no layer refers to it (did you mean 'neuro'?); leave it out",
    ),
    (
        "an unknown factor", "$hidden * copies", "$hidden * copys",
        "[choices] copies: no layer refers to it (did you mean 'copys'?)",
    ),
    (
        "a second factor", "copies = 2\n", "",
        "layer 1 (Linear): '$hidden * copies' refers to an unknown choice 'copies'; known are neu",
    ),
    (
        "a factor that is no number", "$hidden * copies", "$hidden * beta * copies",
        "layer 1 (Linear): beta must be an integer, got 0.75",
    ),
    ("a choice of another kind", "beta = 0.75", 'beta = "0.75"', "[choices] beta must be a number, got '0.75'"),
    ("a size of another kind", "hidden = 6", "hidden = 6.5", "[choices] hidden must be a whole number, got 6.5"),
    ("a choice out of range", "beta = 0.75", "beta = 1.75", "beta must be in [0, 1], got 1.75"),
    (
        "a chosen neuron", '"leaky"', '"leeky"',
        "neuron must be one of leaky, lapicque, synaptic, alpha, rleaky, rsynaptic, got 'leeky'",
    ),
    ("a chosen surrogate", '"atan:3"', '"atan:x"', "surrogate 'atan:x': could not convert"),
    ("what $neuron needs", "beta = 0.75\n", "", 'a layer is of type "$neuron": [choices] must give beta, too'),
    (
        "a section", "[choices]", "[choice]",
        "a network file has no 'choice' (did you mean 'choices'?); it has network, choices, ",
    ),
    ("no network", "[network]\ninput = [1, 28, 28]", "", "there is no [network]"),
    (
        "a network's entry", "input = [1", "imput = [1",
        "[network] has no 'imput' (did you mean 'input'?); it has name, input",
    ),
    (
        "no shape", "input = [1, 28, 28]", "",
        "[network] input must be the shape of a sample, such as [1, 28, 28] or [784], got None",
    ),
    (
        "half a shape", "[1, 28, 28]", "[28, 28]",
        "[network] input must be the shape of a sample, such as [1, 28, 28] or [784], got [28",
    ),
    ("a shape of fractions", "[1, 28, 28]", "[1, 28, 28.0]", "[network] input must be an integer, got 28.0"),
    (
        "a name", "input = [1", 'name = "../x"\ninput = [1',
        "[network] name must be letters, digits, '.', '_' and '-', got '../x'",
    ),
    (
        "defaults", "[defaults.Linear]", "[defaults.Linar]",
        "[defaults.Linar]: unknown layer 'Linar' (did you mean 'Linear'?); known are",
    ),
    (
        "a default", "bias = false", "biass = false",
        "[defaults.Linear]: there is no option 'biass' (did you mean 'bias'?)",
    ),
    (
        "training", "num_steps", "num_step",
        "[training] has no 'num_step' (did you mean 'num_steps'?); it has dataset, encoding, ",
    ),
    ("no steps", "num_steps = 3\n", "", "[training] must give num_steps, the time steps that a sample is shown"),
    ("steps", "num_steps = 3", "num_steps = 0", "[training] num_steps must be at least 1, got 0"),
    (
        "a number of training", "num_steps = 3", "num_steps = 3.5",
        "[training] num_steps must be a whole number, got 3.5",
    ),
    ("a boolean", "num_steps = 3", "num_steps = true", "[training] num_steps must be a whole number, got True"),
    ("an optimizer", '"sgd"', '"sdg"', "optimizer must be one of sgd, adam, adamw, got 'sdg' (did you mean 'sgd'?)"),
    ("another's option", '"sgd"', '"adam"', "momentum: nothing that the optimizer adam has; leave it out"),
    ("a schedule's option", '"step"', '"cosine"', "gamma: nothing that the lr_scheduler cosine has; leave it out"),
    ("a momentum", "momentum = 0.25", "momentum = -1", "momentum must be a number at least 0, got -1"),
    ("a loss", "num_steps", 'loss = "ce_rate_los"\nnum_steps', "loss must be one of ce_count_loss, "),
    (
        "an encoding", "num_steps", 'encoding = "rates"\nnum_steps',
        "encoding must be one of direct, rate, latency, got 'rates' (did",
    ),
    (
        "a data set", "num_steps", 'dataset = "minst"\nnum_steps',
        "dataset must be one of mnist, fashion-mnist, got 'minst' (did you mean ",
    ),
    ("no TOML", "bias = false", "bias = False", "is not TOML: Invalid value (at line 13, column 8)"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_mistake_is_named_before_anything_is_built(read, old, new, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sf.layers.Layer, "initialize", None)  # no weights are made
    assert old in SMALL and (old in LINEAR or SMALL.count(old) <= 2)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        read(SMALL.replace(old, new))
    assert str(raised.value).startswith(str(tmp_path / "my-net.toml")) and "\n" not in str(raised.value)


def test_what_does_not_fit_the_data_or_the_loss(read):
    large = SMALL.replace("[1, 28, 28]", "[3, 32, 32]").replace("784", "3072")
    with pytest.raises(ValueError, match=r"input is \(3, 32, 32\), but the images of mnist are \(1, 28, 28\)"):
        chosen(read(large))
    with pytest.raises(ValueError, match=r"outputs must be at least 10 features, one for each class of mnist, got \(9,\)"):
        chosen(read(SMALL.replace("out_features = 10", "out_features = 9")))
    silent = read(SMALL.replace(LAST, 'type = "LeakyIntegrator"\nbeta = 1'))
    with pytest.raises(ValueError, match=r"ce_rate_loss\(.*\) reads spikes, but the last layer \(Leaky.*\) never fires"):
        chosen(silent)
    assert chosen(silent, loss="ce_membrane_loss")[4]["type"] == "LeakyIntegrator"


def test_what_is_no_file_of_text(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "binary.toml").write_bytes(bytes(range(256)))
    (tmp_path / "deep.toml").write_text("a = " + 100_000 * "[")
    (tmp_path / "long.toml").write_text("a = " + 10_000 * "9")
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(FileNotFoundError, match=r"there is no network file .*none\.toml"):
        presets.read(tmp_path / "none.toml")
    for name, message in {
        "folder": "is a folder, not a network file", "binary": "is not TOML", "deep": "is not TOML", "long": "is not TOML",
        "empty": r"there is no \[network\]",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=message):
            presets.read(tmp_path / f"{name}.toml")


def test_a_damaged_file_raises_nothing_but_ValueError(tmp_path):
    rng, path, refused = np.random.default_rng(0), tmp_path / "net.toml", 0
    for _ in range(400):
        text = bytearray(SMALL.encode())
        for _ in range(rng.integers(1, 4)):
            lo = int(rng.integers(len(text)))
            text[lo : lo + int(rng.integers(0, 12))] = bytes(
                rng.choice(list(b'"[]={}$.#\n19-x, '), int(rng.integers(0, 4))).tolist()
            )
        path.write_bytes(text)
        try:
            presets.read(path)
        except ValueError as error:
            assert str(error).startswith(str(path))
            refused += 1
    assert refused > 300


def test_exactly_one_network_is_chosen(tmp_path):
    assert presets.choose("fcn-mnist", None).name == "fcn-mnist"
    for given in [(None, None), ("fcn-mnist", tmp_path / "net.toml")]:
        with pytest.raises(
            ValueError, match="give a preset, one of csnn-mnist, fcn-mnist, csnn-fashion, or a network file, and not both"
        ):
            presets.choose(*given)


def test_the_command_line_takes_a_file(read, tmp_path, capsys):
    read(SMALL)
    options = ["--batch-size", "2", "--num-steps", "3", "--entries", "2", "--directions", "1", "--backend", "reference"]
    assert cli.main(["gradcheck", "--network", str(tmp_path / "my-net.toml"), *options]) == 0
    assert "my-net, backend reference" in capsys.readouterr().out
    (tmp_path / "my-net.toml").write_text(SMALL.replace("784", "783"))
    assert cli.main(["gradcheck", "--network", str(tmp_path / "my-net.toml"), *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"spikeflow: error: {tmp_path}") and err.count("\n") == 1 and "expects rows of 783 features" in err


@pytest.mark.filterwarnings("ignore:no neuron of layer")
def test_a_network_of_ones_own_is_trained_and_evaluated_without_its_file(read, tmp_path, capsys):
    read(SMALL)
    path, run = tmp_path / "my-net.toml", tmp_path / "run"
    options = "--hidden 5 --batch-size 16 --max-iterations 3 --subset 300 --backend reference".split()
    assert cli.main(["train", "--network", str(path), *options, "--out-dir", str(run)]) == 0
    path.unlink()
    config = json.loads((run / "config.json").read_text())
    assert (
        chosen(presets.from_config(config["description"]), hidden=5) == sf.load(run / "checkpoint-latest.npz").config()["layers"]
    )
    assert cli.main(["evaluate", str(run), "--backend", "reference"]) == 0
    assert "of 34), iteration 3" in capsys.readouterr().out
