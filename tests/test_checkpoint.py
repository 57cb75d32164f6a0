"""Networks on disk: round trips, files that are refused, and files under attack."""

import hashlib
import io
import json
import re
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

import spikeflow as sf
from spikeflow import archive, checkpoint, layers, surrogate
from spikeflow.archive import read_arrays, write_arrays
from spikeflow.checkpoint import CheckpointError

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
ARRAYS = {
    "weights/0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "Gewöhnlich/重み": np.float64([np.nan, -0.0, np.inf]),
    "0-d": np.array(-(2**63), np.int64),
    "0-d bool": np.array(True),
    "fortran": np.asfortranarray(np.arange(60.0).reshape(3, 4, 5)),
    "fortran half": np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
    "largest": np.array([2**64 - 1], np.uint64),
    "bools": np.array([[True, False]]),
    "empty": np.empty((0, 5), np.int8),
    "empty fortran": np.empty((3, 0, 2), order="F"),
    "big-endian": np.array([1, -2], ">i4"),
    "complex": np.array([1 + 2j], np.complex64),
    "strided": np.arange(20)[::3],
    "a.npy": np.arange(3),
}


@pytest.fixture
def net():
    return sf.Sequential(
        sf.Conv2d(2, 3, 3, stride=2, padding=1, bias=False), sf.MaxPool2d(2, 1),
        sf.Leaky(0.8, threshold=0.7, spike_grad=surrogate.sigmoid(5), reset_mechanism="zero", learn_beta=True),
        sf.Flatten(), sf.Linear(3 * 3 * 3, 4), sf.Leaky(0.9, learn_threshold=True), seed=3, dtype=np.float64,
        backend="reference",
    )  # fmt: skip


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal to the bit, and of the same dtype, shape and memory order?"""
    orders = [(array.flags.c_contiguous, array.flags.f_contiguous) for array in (one, other)]
    return one.dtype.str == other.dtype.str and one.shape == other.shape and orders[0] == orders[1] and (
        one.tobytes() == other.tobytes()
    )  # fmt: skip


def write_format_1(path, net, info, change=lambda header: None) -> None:
    """As ``np.savez`` wrote a network, before files had a digest."""
    header = {"format": 1, "network": net.config(), "info": info}
    change(header)
    entries = {"spikeflow": np.frombuffer(json.dumps(header).encode(), np.uint8)}
    np.savez(path, **entries, **{f"weights/{name}": value for name, value in net.state_dict().items()})


def refused(path, data: bytes, message: str = "") -> bool:
    """A file of these bytes raises CheckpointError, which names it?"""
    path.unlink(missing_ok=True)  # some file systems flush what is truncated and written again
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{re.escape(str(path))} .*{message}"):
        read_arrays(path)
    return True


def signed(data: bytes) -> bytes:
    """-> a file with the digest that fits its content."""
    content = data[: -archive.DIGEST]
    return content + hashlib.sha256(content).hexdigest().encode()


# ---------------------------------------------------------------------------------------------------- networks


def test_a_network_comes_back_with_its_description_weights_and_output(net, tmp_path):
    net.parameters()[1].value[...] = 0.6
    net.save(tmp_path / "net.npz")
    again = sf.load(tmp_path / "net.npz", backend="reference")
    assert again.config() == net.config() and repr(again) == repr(net)
    for name, value in net.state_dict().items():
        assert np.array_equal(again.state_dict()[name], value) and again.state_dict()[name].dtype == np.float64
    x = np.random.default_rng(0).random((2, 2, 8, 8))
    for ours, theirs in zip(net.forward(x, 5), again.forward(x, 5), strict=True):
        assert np.array_equal(ours, theirs)


def test_info_and_arrays_travel_with_the_network(net, tmp_path):
    path = tmp_path / "net.npz"
    checkpoint.save(path, net, {"iteration": 7}, {name: array for name, array in ARRAYS.items() if "weights/" not in name})
    assert checkpoint.load_with_info(path, "reference")[1] == {"iteration": 7}
    network, info, weights, arrays = checkpoint.load_training(path)
    assert network == net.config() and info == {"iteration": 7} and list(weights) == list(net.state_dict())
    assert all(same(value, weights[name]) for name, value in net.state_dict().items())
    assert len(arrays) == len(ARRAYS) - 1
    assert all(np.array_equal(array, ARRAYS[name], equal_nan=array.dtype.kind == "f") for name, array in arrays.items())


def test_a_file_of_format_1_is_read(net, tmp_path):
    path = tmp_path / "net.npz"
    write_format_1(path, net, {"iteration": 7})
    again, info = checkpoint.load_with_info(path, "reference")
    assert again.config() == net.config() and info == {"iteration": 7}
    assert all(np.array_equal(value, again.state_dict()[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("form", [1, 2])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.pop("network"), "network"),
        (lambda header: header.update(info=[1]), "info"),
        (lambda header: header["network"].pop("layers"), "layers"),
        (lambda header: header["network"]["layers"].clear(), "no layer at all"),
        (lambda header: header["network"]["layers"][0].update(type="Conv9d"), "unknown layer 'Conv9d'"),
        (lambda header: header["network"]["layers"][4].update(out_features=5), "4.weight must have shape"),
        (lambda header: header["network"]["layers"][4].update(colour=5), "Linear"),
        (lambda header: header["network"]["layers"][5].update(learn_beta=True), "missing .'5.beta'"),
        (lambda header: header["network"].update(layers=1001 * [{"type": "Flatten"}]), "1000 layers"),
    ],
    ids=["network", "info", "layers", "readout", "layer", "shape", "option", "parameter", "depth"],
)
def test_a_description_that_does_not_fit_is_refused(net, tmp_path, form, change, message):
    path = tmp_path / "net.npz"
    if form == 1:
        write_format_1(path, net, {}, change)
    else:
        net.save(path)
        manifest, arrays = read_arrays(path)
        change(manifest)
        write_arrays(path, manifest, arrays)
    with pytest.raises(CheckpointError, match=f"net.npz .*{message}"):
        sf.load(path, backend="reference")


@pytest.mark.parametrize(
    "layer, weight",
    [
        ({"type": "Linear", "in_features": 10**9, "out_features": 10**9}, "0.weight"),
        ({"type": "Conv2d", "in_channels": 10**6, "out_channels": 10**6, "kernel_size": 1}, "0.weight"),
        ({"type": "BatchNorm1d", "num_features": 10**14}, "0.running_mean"),
        ({"type": "RLeaky", "beta": 0.5, "linear_features": 10**9}, "0.recurrent.weight"),
        ({"type": "RSynaptic", "alpha": 0.5, "beta": 0.5, "conv2d_channels": 10, "kernel_size": 10**7 + 1}, "0.recurrent.weight"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("stored", [{}, {"weight": np.zeros(10**4)}], ids=["nothing", "vector"])
def test_a_vast_network_is_refused_before_it_is_built(tmp_path, layer, weight, stored):
    path = tmp_path / "net.npz"
    network = {"layers": [layer, {"type": "Leaky", "beta": 0.5}], "seed": 0, "dtype": "float32", "events": True}
    write_arrays(path, {"network": network, "info": {}}, {f"weights/{weight}": array for array in stored.values()})
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=f"{re.escape(weight)} must have shape"):
            sf.load(path, backend="reference")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


EXAMPLES = {
    "AvgPool2d": (2,), "BatchNorm1d": (7,), "BatchNorm2d": (7,), "Conv2d": (2, 3, 5), "Dropout": (), "Flatten": (),
    "Linear": (6, 7), "MaxPool2d": (2,), "Alpha": (0.9, 0.8), "IFNode": (), "LIFNode": (), "Lapicque": (0.9,), "Leaky": (0.9,),
    "LeakyIntegrator": (0.9,), "ParametricLIFNode": (), "RLeaky": (0.9, 1.0, True, False, True), "RSynaptic": (0.9, 0.8),
    "Synaptic": (0.9, 0.8),
}  # fmt: skip


@pytest.mark.parametrize("name", layers.LAYERS)
@pytest.mark.parametrize(
    "recurrent", [{"linear_features": 9}, {"conv2d_channels": 3, "kernel_size": 5}], ids=["matrix", "kernel"]
)
def test_no_layer_makes_an_array_larger_than_is_checked(name, recurrent):
    layer = layers.LAYERS[name](*EXAMPLES[name], **(recurrent if name in ("RLeaky", "RSynaptic") else {}))
    values = layer.initial_values(np.dtype(np.float32), 0)
    checked = checkpoint._large_shapes(layer)
    assert all(values[key].shape == shape for key, shape in checked.items())
    most = max((int(np.prod(shape)) for shape in checked.values()), default=1)
    assert all(value.size <= most for value in values.values())


def test_an_unknown_backend_is_not_the_files_fault(net, tmp_path):
    net.save(tmp_path / "net.npz")
    with pytest.raises(ValueError, match="backend") as caught:
        sf.load(tmp_path / "net.npz", backend="gpu")
    assert not isinstance(caught.value, CheckpointError)


def test_what_cannot_be_opened_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        sf.load(tmp_path / "none.npz")
    with pytest.raises(IsADirectoryError):
        sf.load(tmp_path)


# ---------------------------------------------------------------------------------------------------- arrays


def test_arrays_and_manifest_come_back_to_the_bit(tmp_path):
    manifest = {"network": {"ü": [1, 2.5, None, "\ud800", {}]}, "info": {}}
    write_arrays(tmp_path / "a.npz", manifest, ARRAYS)
    found, arrays = read_arrays(tmp_path / "a.npz")
    assert found == manifest and list(arrays) == list(ARRAYS)
    for name, array in arrays.items():
        assert same(array, np.asarray(ARRAYS[name], order="A" if ARRAYS[name].flags.forc else "C")), name
        assert array.flags.writeable and array.flags.aligned


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_arrays(tmp_path / name, {}, ARRAYS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numpy_and_zip_read_the_file_without_pickle(tmp_path):
    path = tmp_path / "a.npz"
    write_arrays(path, {"info": 1}, ARRAYS)
    with np.load(path, allow_pickle=False) as file:
        assert json.loads(file["spikeflow"].tobytes())["info"] == 1
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(file[name], array)
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None and [info.filename for info in file.infolist()] == [
            f"{name}.npy" for name in ("spikeflow", *ARRAYS)
        ]
        content = path.read_bytes()[: -len(file.comment)]
        assert file.comment.decode() == hashlib.sha256(content).hexdigest()


def test_the_manifest_tells_of_each_array(tmp_path):
    write_arrays(tmp_path / "a.npz", {}, {"x": np.asfortranarray(np.ones((2, 3), np.float32))})
    with np.load(tmp_path / "a.npz") as file:
        manifest = json.loads(file["spikeflow"].tobytes())
    sha256 = hashlib.sha256(np.ones(6, np.float32)).hexdigest()
    entry = {"name": "x", "dtype": "<f4", "shape": [2, 3], "fortran_order": True, "nbytes": 24, "sha256": sha256}
    assert manifest == {"format": 2, "arrays": [entry]}


@pytest.mark.parametrize(
    ("manifest", "arrays", "error", "message"),
    [
        ({}, {"x": np.array([{}])}, TypeError, "'x'.* must hold booleans or numbers .* got object"),
        ({}, {"x": np.array(["text"])}, TypeError, "'x'.* got <U4"),
        ({}, {"x": np.zeros(2, "f4,f4")}, TypeError, "'x'"),
        ({}, {"": np.ones(1)}, ValueError, "a name must be text"),
        ({}, {1: np.ones(1)}, ValueError, "a name must be text"),
        ({}, {"a\0b": np.ones(1)}, ValueError, "a name must be text"),
        ({}, {"\ud800": np.ones(1)}, ValueError, "a name must be text"),
        ({}, {65532 * "a": np.ones(1)}, ValueError, "a name must be text"),
        ({}, {"spikeflow": np.ones(1)}, ValueError, "a name must be text"),
        ({"format": 2}, {}, ValueError, "'format'"),
        ({"arrays": []}, {}, ValueError, "'arrays'"),
        ({"x": object()}, {}, TypeError, "JSON"),
        ({"x": "a" * 2**22}, {}, ValueError, "the limits are"),
        ({"x": 10**5 * [[]]}, {}, ValueError, "the limits are"),
    ],
    ids=["objects", "text", "records", "no name", "number", "NUL", "surrogate", "long", "reserved", "format", "arrays", "object",
         "large", "nested"],
)  # fmt: skip
def test_what_a_file_cannot_hold_is_refused_at_save(tmp_path, manifest, arrays, error, message):
    path = tmp_path / "a.npz"
    write_arrays(path, {}, {})
    whole = path.read_bytes()
    with pytest.raises(error, match=message):
        write_arrays(path, manifest, arrays)
    assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]


def test_as_many_dimensions_as_every_numpy_has(tmp_path, monkeypatch):
    write_arrays(tmp_path / "a.npz", {}, {"x": np.ones(32 * (1,))})
    assert read_arrays(tmp_path / "a.npz")[1]["x"].ndim == 32
    monkeypatch.setattr(archive, "MAX_DIMENSIONS", 31)
    with pytest.raises(ValueError, match="'x'.* must have at most 31 dimensions, got 32"):
        write_arrays(tmp_path / "a.npz", {}, {"x": np.ones(32 * (1,))})


def test_networks_that_a_file_cannot_hold(net, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="'weights/'"):
        checkpoint.save(tmp_path / "a.npz", net, arrays={"weights/mine": np.ones(1)})
    monkeypatch.setattr(checkpoint, "MAX_LAYERS", 5)
    with pytest.raises(ValueError, match="can hold 5 layers, the network has 6"):
        net.save(tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """The bytes of a small file."""
    path = tmp_path_factory.mktemp("whole") / "a.npz"
    write_arrays(path, {"info": {"iteration": 7}}, {"weights/0": np.arange(3.0), "ü": np.asfortranarray(np.ones((2, 2)))})
    return path.read_bytes()


@pytest.mark.parametrize("remade", [False, True], ids=["digest as it was", "digest made to fit"])
def test_flipped_bits_are_refused(whole, tmp_path, remade):
    """The digest sees every change; and without it, so do the headers, which follow from the manifest and the data."""
    size = len(whole) - (archive.DIGEST if remade else 0)
    for byte in range(size):
        changed = bytearray(whole)
        changed[byte] ^= 1 << (5 * byte + remade) % 8
        assert refused(tmp_path / "a.npz", signed(changed) if remade else changed)


def test_truncated_and_extended_files_are_refused(whole, tmp_path):
    for size in range(0, len(whole), 7):
        assert refused(tmp_path / "a.npz", whole[:size])
    for more in (b"\0", b"0", whole):
        assert refused(tmp_path / "a.npz", whole + more)


@pytest.mark.parametrize(
    "data", [b"", b"not a zip file at all", bytes(1000), b"PK\5\6" + bytes(18)], ids=["empty", "text", "zeros", "zip"]
)
def test_other_files_are_refused(tmp_path, data):
    assert refused(tmp_path / "a.npz", data, "sound spikeflow checkpoint")


def remade(manifest: object) -> bytes:
    """-> a file with this manifest and no array, everything else in order."""
    text = json.dumps(manifest).encode()
    header = archive._npy_header("|u1", (len(text),), False)
    member = archive._member("spikeflow", header, text)
    return signed(archive._local_header(member) + header + text + archive._directory([member]) + bytes(archive.DIGEST))


ENTRY = {"name": "x", "dtype": "<f4", "shape": [0], "fortran_order": False, "nbytes": 0, "sha256": ""}


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ([], "no JSON object"),
        ({}, "format None"),
        ({"format": 3, "arrays": []}, "format 3, this version reads formats 1 to 2"),
        ({"format": "2", "arrays": []}, "format '2'"),
        ({"format": 1, "arrays": []}, "says format 1, but is built as format 2"),
        ({"format": 2}, "arrays"),
        ({"format": 2, "arrays": 3}, "not iterable"),
        ({"format": 2, "arrays": [3]}, "lists an array as 3"),
        ({"format": 2, "arrays": [{**ENTRY, "more": 1}]}, "lists an array"),
        ({"format": 2, "arrays": [{**ENTRY, "name": "spikeflow"}]}, "a name must be"),
        ({"format": 2, "arrays": [{**ENTRY, "shape": 3}]}, "lists an array"),
        ({"format": 2, "arrays": [{**ENTRY, "shape": [-1]}]}, "lists an array"),
        ({"format": 2, "arrays": [{**ENTRY, "shape": [True]}]}, "lists an array"),
        ({"format": 2, "arrays": [{**ENTRY, "shape": [0, 2**64]}]}, "lists an array"),
        ({"format": 2, "arrays": [{**ENTRY, "shape": 33 * [0]}]}, "lists an array"),
        ({"format": 2, "arrays": [{**ENTRY, "nbytes": 2.0}]}, "lists an array"),
        ({"format": 2, "arrays": [{**ENTRY, "dtype": None}]}, "lists an array"),
        ({"format": 2, "arrays": [ENTRY, ENTRY]}, "an array twice"),
        ({"format": 2, "arrays": [{**ENTRY, "shape": [2**40], "nbytes": 2**42}]}, "manifest declares"),
    ],
    ids=str,
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path, manifest, message):
    assert refused(tmp_path / "a.npz", remade(manifest), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "|O"}, "an array of type"),
        ({"dtype": "<f4"}, "24 bytes, but of shape"),
        ({"shape": [2, 2]}, "24 bytes, but of shape"),
        ({"sha256": 64 * "0"}, "not those that were written"),
        ({"fortran_order": 1}, "lists an array"),
        ({"name": "y"}, "headers do not fit"),
        ({"dtype": ">f8"}, "headers do not fit"),
    ],
    ids=str,
)
def test_an_entry_that_does_not_fit_its_array_is_refused(tmp_path, change, message):
    """The file is as the writer would write it, but for one word about its only array."""
    path = tmp_path / "a.npz"
    write_arrays(path, {}, {"x": np.arange(3.0)})
    data = path.read_bytes()
    old = data[data.index(b'{"format"') : data.index(b"]}", data.index(b'"sha256"')) + 2]
    manifest = json.loads(old)
    manifest["arrays"][0].update(change)
    new = json.dumps(manifest, separators=(",", ":")).encode().ljust(len(old))
    assert len(new) == len(old)
    header = archive._npy_header("|u1", (len(new),), False)
    first = archive._member("spikeflow", header, new)
    body = data[data.index(b"PK\3\4", 4) : data.index(b"PK\1\2")]
    name = f"{manifest['arrays'][0]['name']}.npy".encode()
    crc, size = struct.unpack_from("<I", body, 14)[0], struct.unpack_from("<Q", body, 30 + len(b"x.npy") + 4)[0]
    directory = archive._directory([first, archive.Member(name, crc, size)])
    assert refused(path, signed(archive._local_header(first) + header + new + body + directory + bytes(archive.DIGEST)), message)


def test_an_empty_array_that_numpy_cannot_make_is_refused():
    with pytest.raises(ValueError, match="too large"):
        archive._allocate("<f8", (0, 2**62, 2**62), False, 0)


def savez(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_damaged_files_of_format_1_are_refused(net, tmp_path):
    path = tmp_path / "a.npz"
    write_format_1(path, net, {})
    data, plain = path.read_bytes(), savez(x=np.ones(2))
    for size in range(0, len(data), 97):
        assert refused(path, data[:size])
    middle = data.index(b"PK\3\4", 4) + 200  # in the data of the first weight
    assert refused(path, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :], "checksum")
    assert refused(path, plain, "no member 'spikeflow'")
    assert refused(path, plain.replace(b"'<f8'", b"'|O8'"), "an array of type '.O8'|no array of np.savez")
    assert refused(path, plain.replace(b"(2,)", b"(9,)"), "of 16 bytes, but of shape")
    assert refused(path, plain[: plain.index(b"PK\1\2")] + plain, "has not written its member 'x'")
    header = archive._npy_header("<f8", (2**47,), False)
    vast = archive._local_header(archive.Member(b"x.npy", 0, len(header) + 2**50)) + header
    assert refused(path, vast + plain[plain.index(b"PK\1\2") :], "has not written its member 'x'")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, spikeflow=np.zeros(10**5))
    assert refused(path, buffer.getvalue(), "has not written its member 'spikeflow'")
    for form, message in ((2, "says format 2, but is built as format 1"), (99, "format 99, this version reads formats 1 to 2")):
        header = np.frombuffer(json.dumps({"format": form}).encode(), np.uint8)
        assert refused(path, savez(spikeflow=header), message)


# ---------------------------------------------------------------------------------------------------- attacks


def test_files_survive_attacks(tmp_path):
    """Killed writers, failing disks and archive bombs, as ``benchmarks/crash_checkpoint.py`` runs them, fewer."""
    script = BENCHMARKS / "crash_checkpoint.py"
    options = "--kills 6 --faults 10 --bits 100 --cuts 50 --folder".split()
    done = subprocess.run([sys.executable, script, *options, tmp_path], capture_output=True, text=True)
    rows = re.findall(r"^(\w+) +(\d+) +(\d+) ", done.stdout, re.MULTILINE)
    assert done.returncode == 0 and "all held" in done.stdout, done.stdout + done.stderr
    assert [name for name, *_ in rows] == ["kills", "faults", "bits", "cuts", "bombs"]
    assert all(cases == held and int(cases) >= 6 for _, cases, held in rows) and list(tmp_path.iterdir()) == []
