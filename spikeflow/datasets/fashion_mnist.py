"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): articles of clothing in MNIST's form; copyright Zalando SE, MIT licence."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from spikeflow.datasets.idx import MAX_BYTES, DatasetError
from spikeflow.datasets.mnist import _SHA256 as DIGITS
from spikeflow.datasets.splits import SUFFIXES, check_split, file_names, find_file, read_file

__all__ = ["fashion_mnist"]

DEBIAN = Path("/usr/share/datasets")  # where the package dataset-fashion-mnist has its folder
FOLDERS = ("fashion-mnist", "FashionMNIST/raw", ".")  # in the folder that is searched: ours and Debian's, torchvision's
URLS = (
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)
# Of the decompressed IDX bytes: SHA-256, number.
CONTENT = {
    "train-images-idx3-ubyte": ("c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", 47040016),
    "train-labels-idx1-ubyte": ("bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", 60008),
    "t10k-images-idx3-ubyte": ("5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", 7840016),
    "t10k-labels-idx1-ubyte": ("0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", 10008),
}
OFFLINE = (
    "without a network, install Debian's package dataset-fashion-mnist, or put the four files into a folder and name it by "
    "--data-dir (data_dir) or $SPIKEFLOW_DATA"
)


def fashion_mnist(split: str = "train", data_dir: str | os.PathLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Load one split of Fashion-MNIST.

    Parameters
    ----------
    split : str
        "train" (60000 images) or "test" (10000 images).
    data_dir : str or path-like, optional
        Folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
        ``t10k-labels-idx1-ubyte``, each plain or with ``.gz`` or ``.xz`` appended, in a sub-folder ``fashion-mnist`` or
        ``FashionMNIST/raw`` or directly. By default the first that has files of the split: the folder that the environment
        variable ``SPIKEFLOW_DATA`` names; the user's cache (``$XDG_CACHE_HOME/spikeflow``, else the system's place for
        caches); ``/usr/share/datasets``, where Debian's package dataset-fashion-mnist puts them. If there is none, they are
        downloaded into the cache.

    Returns
    -------
    images : (N, 28, 28) uint8, grey levels 0 to 255, the background 0
    labels : (N,) uint8, 0 to 9: T-shirt/top, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot

    Raises
    ------
    ValueError
        If `split` is unknown.
    DatasetError
        If a file is malformed, has another shape or type, or holds the MNIST digits; if images and labels do not belong
        together; for files that the user did not name also if a checksum differs; or if the files are nowhere and cannot
        be downloaded.
    FileNotFoundError
        If `data_dir` or the folder of ``SPIKEFLOW_DATA`` does not exist, or lacks a file.
    """
    names = file_names(split)
    paths, genuine = _search(names) if data_dir is None else (_named(Path(data_dir), names, "data_dir"), False)
    arrays = []
    for path, name in zip(paths, names, strict=True):
        expected, size = CONTENT[name]
        array, digest = read_file(path, size if genuine else MAX_BYTES)
        if genuine and digest != expected:
            raise DatasetError(f"{path}: the SHA-256 of the content is {digest}, it should be {expected}; remove the file")
        if digest == DIGITS[name]:
            raise DatasetError(f"{path} is of the MNIST digits, not of Fashion-MNIST")
        arrays.append(array)
    images, labels = arrays
    check_split(images, labels, f"{paths[0].parent}, split {split!r}")
    return images, labels


def _search(names: list[str]) -> tuple[list[Path], bool]:
    """-> the files of a split, and whether their content must be the original."""
    named = os.environ.get("SPIKEFLOW_DATA")
    if named:
        if not Path(named).is_dir():
            raise FileNotFoundError(f"the environment variable SPIKEFLOW_DATA names {named}, which is no folder")
        if _home(Path(named), names):
            return _named(Path(named), names, "the folder of SPIKEFLOW_DATA,"), False
    cache = _cache()
    for folder in (cache, DEBIAN):
        home = None if folder is None else _home(folder, names)
        paths = [] if home is None else [path for name in names if (path := find_file(home, name))]
        if len(paths) == len(names):
            return paths, True
    return _download(cache, names), True


def _home(folder: Path, names: list[str]) -> Path | None:
    """-> the folder itself or its sub-folder in which there is a file of the split; None if there is none."""
    homes = (folder / inside for inside in FOLDERS)
    return next((home for home in homes if any(find_file(home, name) for name in names)), None)


def _named(folder: Path, names: list[str], what: str) -> list[Path]:
    """-> the files of a split in a folder that the user named; FileNotFoundError if one is missing."""
    home = _home(folder, names) or folder
    paths = [find_file(home, name) for name in names]
    if None in paths:
        missing = names[paths.index(None)]
        choices = ", ".join(missing + suffix for suffix in SUFFIXES)
        where = f" or its sub-folders {' and '.join(FOLDERS[:-1])}" if home == folder else ""
        raise FileNotFoundError(f"{what} {home}{where} has none of {choices}")
    return paths


def _cache() -> Path | None:
    """-> the folder of what spikeflow keeps for this user, which need not exist; None where no such place is known."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "spikeflow"
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "spikeflow" / "Cache"
    try:
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "spikeflow"
    except RuntimeError:  # a user without a home
        return None


def _download(cache: Path | None, names: list[str]) -> list[Path]:
    """Fetch what the cache lacks of a split -> its files; DatasetError, with what to do, if that fails."""
    from spikeflow.datasets.download import download

    if cache is None:
        raise DatasetError(f"Fashion-MNIST was not found, and there is no folder to download it into; {OFFLINE}")
    folder = cache / FOLDERS[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            if find_file(folder, name) is None:
                print(f"spikeflow: downloading {name}.gz of Fashion-MNIST into {folder}", file=sys.stderr)
                download([f"{url}{name}.gz" for url in URLS], folder / f"{name}.gz", *CONTENT[name])
    except (DatasetError, OSError) as error:
        raise DatasetError(f"Fashion-MNIST was not found, and could not be downloaded ({error}); {OFFLINE}") from error
    return [find_file(folder, name) for name in names]
