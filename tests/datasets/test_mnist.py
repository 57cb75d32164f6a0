from __future__ import annotations

import gzip
import hashlib
import importlib
import json
import lzma
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spikeflow.datasets import DatasetError, mnist, read_idx

# `spikeflow.datasets.mnist` is the function; this is the module of the same name.
module = importlib.import_module("spikeflow.datasets.mnist")
DATA = Path(module.__file__).parent / "data"

# Of the decompressed files.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
HISTOGRAMS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


@pytest.fixture(scope="module")
def splits():
    return {split: mnist(split) for split in ("train", "test")}


@pytest.mark.parametrize(("split", "count"), [("train", 60000), ("test", 10000)])
def test_shapes_and_types(splits, split, count):
    images, labels = splits[split]
    assert images.shape == (count, 28, 28) and images.dtype == np.uint8
    assert labels.shape == (count,) and labels.dtype == np.uint8


@pytest.mark.parametrize("split", ["train", "test"])
def test_label_histogram(splits, split):
    assert np.bincount(splits[split][1]).tolist() == HISTOGRAMS[split]


def test_known_content(splits):
    assert splits["train"][1][:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert splits["test"][1][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # The mean and deviation by which MNIST is commonly normalized.
    scaled = splits["train"][0] / np.float32(255)
    assert round(float(scaled.mean(dtype=np.float64)), 4) == 0.1307
    assert round(float(scaled.std(dtype=np.float64)), 4) == 0.3081


def test_train_is_the_default():
    assert mnist.__defaults__ == ("train", None)


@pytest.mark.parametrize("name", MD5)
def test_embedded_files_are_the_canonical_ones(name):
    content = lzma.decompress((DATA / f"{name}.xz").read_bytes(), format=lzma.FORMAT_XZ)
    assert hashlib.md5(content, usedforsecurity=False).hexdigest() == MD5[name]
    digest = hashlib.sha256(content).hexdigest()
    assert digest == module._SHA256[name]
    assert digest in (DATA / "README.md").read_text(encoding="utf-8")


def test_embedded_size():
    assert sorted(path.name for path in DATA.iterdir()) == sorted([*(f"{name}.xz" for name in MD5), "README.md"])
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 9_300_000


def test_embedded_checksum_is_checked(monkeypatch):
    wrong = {**module._SHA256, "t10k-labels-idx1-ubyte": "0" * 64}
    monkeypatch.setattr(module, "_SHA256", wrong)
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1-ubyte\.xz: the SHA-256"):
        mnist("test")


@pytest.mark.parametrize("split", ["Test", "t10k", "", None, 0, ["train"]])
def test_unknown_split(split):
    with pytest.raises(ValueError, match="split must be 'train' or 'test'"):
        mnist(split)


def test_only_the_split_asked_for_is_opened():
    # A process of its own, since an audit hook cannot be taken away.
    script = """
import json, os, sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from spikeflow.datasets import mnist
mnist("test")
print(json.dumps(sorted(os.path.basename(path) for path in opened if path.endswith(".xz"))))
"""
    root = Path(module.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment, cwd=root)
    assert json.loads(result.stdout) == ["t10k-images-idx3-ubyte.xz", "t10k-labels-idx1-ubyte.xz"]


def idx_bytes(array: np.ndarray) -> bytes:
    code = {"uint8": 0x08, "int8": 0x09}[array.dtype.name]
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape) + array.tobytes()


IMAGES = (np.arange(5 * 28 * 28) % 251).astype(np.uint8).reshape(5, 28, 28)
LABELS = np.array([3, 0, 9, 1, 4], np.uint8)


def write(folder: Path, images: np.ndarray, labels: np.ndarray, prefix: str = "train") -> Path:
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder


@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_data_dir(tmp_path, split, prefix):
    """Only the files of the split are there: the other ones need not be."""
    write(tmp_path, IMAGES, LABELS, prefix)
    for folder in (tmp_path, str(tmp_path)):
        images, labels = mnist(split, folder)
        np.testing.assert_array_equal(images, IMAGES)
        np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_data_dir_compressed(tmp_path, suffix, compress):
    write(tmp_path, IMAGES, LABELS)
    for path in list(tmp_path.iterdir()):
        path.with_name(path.name + suffix).write_bytes(compress(path.read_bytes()))
        path.unlink()
    images, labels = mnist("train", tmp_path)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


def test_data_dir_prefers_the_plain_file(tmp_path):
    write(tmp_path, IMAGES, LABELS)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"not read")
    np.testing.assert_array_equal(mnist("train", tmp_path)[1], LABELS)


def test_data_dir_with_the_embedded_files(splits):
    """The embedded folder is itself a folder of the usual names."""
    np.testing.assert_array_equal(mnist("test", DATA)[0], splits["test"][0])
    np.testing.assert_array_equal(read_idx(DATA / "t10k-labels-idx1-ubyte.xz"), splits["test"][1])


def test_data_dir_lacks_a_file(tmp_path):
    write(tmp_path, IMAGES, LABELS)
    with pytest.raises(FileNotFoundError, match="t10k-images-idx3-ubyte.gz"):
        mnist("test", tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="train-labels-idx1-ubyte.xz"):
        mnist("train", tmp_path)


UNFIT = {
    "count": (IMAGES, LABELS[:4], "5 images but 4 labels"),
    "label 10": (IMAGES, LABELS + np.uint8(1), "the largest label is 10"),
    "label 255": (IMAGES, np.full(5, 255, np.uint8), "the largest label is 255"),
    "image size": (IMAGES[:, :27], LABELS, r"images are uint8 \(5, 27, 28\)"),
    "image rank": (IMAGES.reshape(5, 784), LABELS, r"images are uint8 \(5, 784\)"),
    "image type": (IMAGES.view(np.int8), LABELS, "images are int8"),
    "label rank": (IMAGES, LABELS[:, np.newaxis], r"labels are uint8 \(5, 1\)"),
    "label type": (IMAGES, LABELS.view(np.int8), "labels are int8"),
    "exchanged": (LABELS, IMAGES, r"images are uint8 \(5,\)"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_data_dir_with_unfit_files(tmp_path, case):
    images, labels, message = UNFIT[case]
    with pytest.raises(DatasetError, match=message) as caught:
        mnist("train", write(tmp_path, images, labels))
    assert str(tmp_path) in str(caught.value)


def test_data_dir_with_a_corrupt_file(tmp_path):
    write(tmp_path, IMAGES, LABELS)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="train-images-idx3-ubyte: 3935 bytes"):
        mnist("train", tmp_path)
