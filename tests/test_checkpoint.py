"""Networks on disk: round trips, and files that are refused."""

import json

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import checkpoint, surrogate
from spikeflow.checkpoint import CheckpointError
from spikeflow.files import atomic_write


@pytest.fixture
def net():
    return sf.Sequential(
        sf.Conv2d(2, 3, 3, stride=2, padding=1, bias=False), sf.MaxPool2d(2, 1),
        sf.Leaky(0.8, threshold=0.7, spike_grad=surrogate.sigmoid(5), reset_mechanism="zero", learn_beta=True),
        sf.Flatten(), sf.Linear(3 * 3 * 3, 4), sf.Leaky(0.9, learn_threshold=True), seed=3, dtype=np.float64,
    )  # fmt: skip


def test_a_network_comes_back_with_its_description_weights_and_output(net, tmp_path):
    net.parameters()[1].value[...] = 0.6
    net.save(tmp_path / "net.npz")
    again = sf.load(tmp_path / "net.npz")
    assert again.config() == net.config() and repr(again) == repr(net)
    for name, value in net.state_dict().items():
        assert np.array_equal(again.state_dict()[name], value) and again.state_dict()[name].dtype == np.float64
    x = np.random.default_rng(0).random((2, 2, 8, 8))
    for ours, theirs in zip(net.forward(x, 5), again.forward(x, 5), strict=True):
        assert np.array_equal(ours, theirs)


def test_info_travels_with_the_network(net, tmp_path):
    checkpoint.save(tmp_path / "net.npz", net, {"iteration": 7})
    assert checkpoint.load_with_info(tmp_path / "net.npz")[1] == {"iteration": 7}


def test_the_file_holds_no_pickle(net, tmp_path):
    net.save(tmp_path / "net.npz")
    with np.load(tmp_path / "net.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype != object for name in archive.files)


def test_truncated_and_overwritten_files_are_refused(net, tmp_path):
    path = tmp_path / "net.npz"
    net.save(path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="net.npz"):
            sf.load(path)
    path.write_bytes(b"not a zip file at all")
    with pytest.raises(CheckpointError, match="net.npz"):
        sf.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.update(format=99), "format 99"),
        (lambda header: header.pop("network"), "network"),
        (lambda header: header["network"]["layers"].pop(), "last layer must be a neuron"),
        (lambda header: header["network"]["layers"][0].update(type="Conv9d"), "unknown layer 'Conv9d'"),
        (lambda header: header["network"]["layers"][4].update(out_features=5), "4.weight must have shape"),
        (lambda header: header["network"]["layers"][4].update(colour=5), "Linear"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(net, tmp_path, change, message):
    path = tmp_path / "net.npz"
    net.save(path)
    with np.load(path) as archive:
        entries = {name: archive[name] for name in archive.files}
    header = json.loads(entries["spikeflow"].tobytes())
    change(header)
    entries["spikeflow"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **entries)
    with pytest.raises(CheckpointError, match=message):
        sf.load(path)


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        sf.load(tmp_path / "none.npz")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="in the middle"), atomic_write(path) as file:
        file.write(b"new")
        raise RuntimeError("in the middle")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]
