"""Where Fashion-MNIST is looked for, and its download; no test reaches the network."""

import gzip
import hashlib
import http.server
import importlib
import lzma
import struct
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import spikeflow as sf
from spikeflow.datasets import DatasetError, fashion_mnist

# `spikeflow.datasets.fashion_mnist` is the function; this is the module of the same name.
module = importlib.import_module("spikeflow.datasets.fashion_mnist")
downloads = importlib.import_module("spikeflow.datasets.download")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PREFIX = {"train": "train", "test": "t10k"}
HINT = "install Debian's package dataset-fashion-mnist, or put the four files into a folder and name it by --data-dir"


def split_bytes(count: int, shift: int = 0, prefix: str = "train") -> dict[str, bytes]:
    """-> the two IDX files of a small data set, by name."""
    pixels = ((np.arange(count * 784) + shift) % 251).astype(np.uint8)
    labels = ((np.arange(count) + shift) % 10).astype(np.uint8)
    return {
        f"{prefix}-images-idx3-ubyte": struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28) + pixels.tobytes(),
        f"{prefix}-labels-idx1-ubyte": struct.pack(">4BI", 0, 0, 8, 1, count) + labels.tobytes(),
    }


def content_of(files: dict[str, bytes]) -> dict[str, tuple[str, int]]:
    """-> what the module would know of such files."""
    return {name: (hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}


ORIGINAL = {**split_bytes(5), **split_bytes(3, 7, "t10k")}  # stands for the original files
IMAGES, LABELS = list(ORIGINAL)[:2]


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """A machine without Fashion-MNIST and without a network, on which ``ORIGINAL`` would be the right content."""
    monkeypatch.delenv("SPIKEFLOW_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(module, "CONTENT", content_of(ORIGINAL))

    def refuse(url, timeout):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "spikeflow" / "fashion-mnist"


def write(folder: Path, files: dict[str, bytes], suffix: str = "", compress=bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / (name + suffix)).write_bytes(compress(data))
    return folder


def first_pixel(split="train", **options) -> int:
    """Tells the small data sets apart: it is their ``shift``."""
    images, labels = fashion_mnist(split, **options)
    assert images.shape == (len(labels), 28, 28) and images.dtype == labels.dtype == np.uint8
    return int(images[0, 0, 0])


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_original(monkeypatch, split):
    monkeypatch.undo()
    monkeypatch.delenv("SPIKEFLOW_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(DEBIAN / "none"))
    images, labels = fashion_mnist(split)
    count = {"train": 60000, "test": 10000}[split]
    assert images.shape == (count, 28, 28) and images.dtype == np.uint8 and images.flags.writeable
    assert labels.shape == (count,) and labels.dtype == np.uint8
    assert np.bincount(labels).tolist() == [count // 10] * 10
    assert labels[:10].tolist() == {"train": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5], "test": [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]}[split]
    mean = {"train": 0.2860406, "test": 0.2868493}[split]
    assert images.mean(dtype=np.float64) / 255 == pytest.approx(mean, abs=1e-7)


def test_a_data_set_by_its_name(tmp_path):
    write(tmp_path, ORIGINAL)
    images, labels = sf.datasets.load("fashion-mnist", "test", tmp_path)
    np.testing.assert_array_equal(images, fashion_mnist("test", tmp_path)[0])
    assert labels.tolist() == [7, 8, 9] and sf.datasets.CLASSES["fashion-mnist"][9] == "ankle boot"
    assert len(sf.datasets.load("mnist", "test")[1]) == 10000
    with pytest.raises(ValueError, match="dataset must be one of mnist, fashion-mnist, got 'kmnist'"):
        sf.datasets.load("kmnist")


@pytest.mark.parametrize("split", ["Test", "t10k", None])
def test_unknown_split(split):
    with pytest.raises(ValueError, match="split must be 'train' or 'test'"):
        fashion_mnist(split)


# ------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("inside", ["", "fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize(
    ("suffix", "compress"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)], ids=["plain", "gz", "xz"]
)
def test_data_dir(tmp_path, inside, suffix, compress):
    write(tmp_path / "mine" / inside, ORIGINAL, suffix, compress)
    for folder in (tmp_path / "mine", str(tmp_path / "mine")):
        images, labels = fashion_mnist("train", folder)
        assert images.tobytes() == ORIGINAL[IMAGES][16:] and labels.tobytes() == ORIGINAL[LABELS][8:]
        assert first_pixel("test", data_dir=folder) == 7


def test_a_folder_of_mnist_may_have_a_sub_folder_of_fashion_mnist(tmp_path):
    write(tmp_path, split_bytes(4, 1))
    write(tmp_path / "fashion-mnist", split_bytes(4, 2))
    assert first_pixel(data_dir=tmp_path) == 2


@pytest.mark.parametrize("files", [{}, {IMAGES: ORIGINAL[IMAGES]}, {LABELS: ORIGINAL[LABELS]}], ids=["none", "images", "labels"])
def test_a_file_that_data_dir_lacks_is_not_looked_for_elsewhere(tmp_path, monkeypatch, cache, files):
    write(cache, ORIGINAL)
    write(tmp_path / "debian" / "fashion-mnist", ORIGINAL)
    write(tmp_path / "env", ORIGINAL)
    monkeypatch.setenv("SPIKEFLOW_DATA", str(tmp_path / "env"))
    write(tmp_path / "mine", files)
    missing = LABELS if IMAGES in files else IMAGES
    with pytest.raises(FileNotFoundError, match=f"^data_dir {tmp_path / 'mine'} .*has none of {missing}, {missing}.gz, "):
        fashion_mnist("train", tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="data_dir .*no"):
        fashion_mnist("train", tmp_path / "no")


def test_the_order_of_places(tmp_path, monkeypatch, cache):
    write(tmp_path / "debian" / "fashion-mnist", ORIGINAL, ".gz", gzip.compress)
    assert first_pixel("test") == 7
    write(cache, split_bytes(3, 8, "t10k"))
    monkeypatch.setattr(module, "CONTENT", content_of(split_bytes(3, 8, "t10k")))
    assert first_pixel("test") == 8
    write(tmp_path / "env" / "fashion-mnist", split_bytes(3, 9, "t10k"))
    monkeypatch.setenv("SPIKEFLOW_DATA", str(tmp_path / "env"))
    assert first_pixel("test") == 9
    write(tmp_path / "mine", split_bytes(3, 10, "t10k"))
    assert first_pixel("test", data_dir=tmp_path / "mine") == 10


def test_a_folder_of_the_environment_that_has_no_fashion_mnist_is_passed_by(tmp_path, monkeypatch, cache):
    write(cache, ORIGINAL)
    (tmp_path / "env").mkdir()
    for value in (str(tmp_path / "env"), ""):
        monkeypatch.setenv("SPIKEFLOW_DATA", value)
        assert first_pixel("test") == 7


def test_a_folder_of_the_environment_must_exist_and_have_both_files(tmp_path, monkeypatch, cache):
    write(cache, ORIGINAL)
    monkeypatch.setenv("SPIKEFLOW_DATA", str(tmp_path / "env"))
    with pytest.raises(FileNotFoundError, match="SPIKEFLOW_DATA names .*env, which is no folder"):
        fashion_mnist()
    write(tmp_path / "env" / "fashion-mnist", {IMAGES: ORIGINAL[IMAGES]})
    with pytest.raises(FileNotFoundError, match=f"SPIKEFLOW_DATA, .*fashion-mnist has none of {LABELS}"):
        fashion_mnist()


def test_without_xdg_the_cache_is_where_the_system_has_its_caches(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    expected = {"linux": ".cache/spikeflow", "darwin": "Library/Caches/spikeflow", "win32": "local/spikeflow/Cache"}
    for platform, folder in expected.items():
        monkeypatch.setattr(module.sys, "platform", platform)
        assert module._cache() == tmp_path / folder

    def homeless():
        raise RuntimeError("no home")

    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(DatasetError, match=f"there is no folder to download it into; .*{HINT}"):
        fashion_mnist()


# ------------------------------------------------------------------------------------------------- wrong content


@pytest.mark.parametrize("place", ["cache/spikeflow/fashion-mnist", "debian/fashion-mnist"])
def test_the_content_of_files_that_the_user_did_not_name_must_be_the_original(tmp_path, place):
    write(tmp_path / place, {**ORIGINAL, LABELS: split_bytes(5, 1)[LABELS]})
    with pytest.raises(DatasetError, match=f"{LABELS}: the SHA-256 of the content is .*; remove the file"):
        fashion_mnist()
    assert first_pixel("test") == 7


def test_a_bomb_in_the_cache_is_not_unpacked_beyond_the_size_of_the_file(cache):
    write(cache, {IMAGES: gzip.compress(split_bytes(5000)[IMAGES]), LABELS: ORIGINAL[LABELS]})
    with pytest.raises(DatasetError, match=f"more than the accepted {len(ORIGINAL[IMAGES])}"):
        fashion_mnist()


def test_counts_that_differ(tmp_path):
    write(tmp_path, {IMAGES: ORIGINAL[IMAGES], LABELS: split_bytes(4)[LABELS]})
    with pytest.raises(DatasetError, match=f"{tmp_path}, split 'train': 5 images but 4 labels"):
        fashion_mnist("train", tmp_path)


def test_a_truncated_file(tmp_path):
    write(tmp_path, {**ORIGINAL, IMAGES: ORIGINAL[IMAGES][:-1]})
    with pytest.raises(DatasetError, match=f"{IMAGES}: 3935 bytes"):
        fashion_mnist("train", tmp_path)


def test_the_digits_under_the_same_names_are_refused():
    digits = Path(module.__file__).parent / "data"
    with pytest.raises(DatasetError, match="t10k-images-idx3-ubyte.xz is of the MNIST digits, not of Fashion-MNIST"):
        fashion_mnist("test", digits)


# ------------------------------------------------------------------------------------------------- download


@pytest.fixture
def server(monkeypatch):
    """A server on this machine whose answers are in its ``files``, by path; URLS are its addresses /one/ and /two/."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            answer = self.server.files.get(self.path)
            if callable(answer):
                answer(self)
            elif answer is None:
                self.send_error(404)
            else:
                self.reply(answer, len(answer))

        def reply(self, body, length):
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.files, server.asked = {}, []
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    monkeypatch.setattr(urllib.request, "urlopen", opener.open)
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(module, "URLS", (f"{address}/one/", f"{address}/two/"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def serve(server, mirror: str, **changes) -> None:
    for name, data in ORIGINAL.items():
        server.files[f"/{mirror}/{name}.gz"] = changes.get(name.replace("-", "_"), gzip.compress(data))


def test_a_download_is_kept_in_the_cache(server, cache, capsys):
    serve(server, "one")
    assert first_pixel("test") == 7
    assert server.asked == ["/one/t10k-images-idx3-ubyte.gz", "/one/t10k-labels-idx1-ubyte.gz"]
    captured = capsys.readouterr()
    assert captured.out == "" and f"downloading t10k-images-idx3-ubyte.gz of Fashion-MNIST into {cache}" in captured.err
    assert first_pixel("test") == 7 and len(server.asked) == 2 and capsys.readouterr().err == ""
    assert sorted(path.name for path in cache.iterdir()) == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]
    assert first_pixel("train") == 0 and len(server.asked) == 4


def test_what_the_cache_has_of_a_split_is_not_fetched_again(server, cache):
    serve(server, "one")
    write(cache, {IMAGES: ORIGINAL[IMAGES]})
    assert first_pixel() == 0 and server.asked == [f"/one/{LABELS}.gz"]


def truncated(handler):
    handler.reply(gzip.compress(ORIGINAL[IMAGES])[:-20], len(gzip.compress(ORIGINAL[IMAGES])))


def chunked_and_broken_off(handler):
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"400\r\nabc")
    handler.close_connection = True


def silent(handler):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.flush()
    handler.server.release.wait(10)


def dripping(handler):
    handler.send_response(200)
    handler.end_headers()
    for byte in gzip.compress(ORIGINAL[IMAGES]):
        if handler.server.release.wait(0.02):
            return
        handler.wfile.write(bytes([byte]))


BOMB = gzip.compress(bytes(2**22), 9)
SIZE = len(ORIGINAL[IMAGES])
ANSWERS = {
    "missing": (None, "HTTP Error 404"),
    "another content": (gzip.compress(split_bytes(5, 1)[IMAGES]), "the SHA-256 of the content is"),
    "no gzip": (b"<html>moved</html>", "the SHA-256 of the content is"),
    "corrupt": (gzip.compress(ORIGINAL[IMAGES])[:20] + b"\xff" * 40, "corrupt compressed data|truncated"),
    "truncated": (truncated, "gzip stream is truncated|IncompleteRead"),
    "chunks broken off": (chunked_and_broken_off, "IncompleteRead|truncated"),
    "too long": (bytes(2**17), f"more bytes than the whole file has, {SIZE}"),
    "gzip bomb": (BOMB, f"more than the accepted {SIZE} bytes"),
    "silent": (silent, "timed out"),
    "dripping": (dripping, "not finished after 0.3 seconds"),
    "empty": (b"", "the SHA-256 of the content is"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_a_bad_answer_is_not_kept_and_the_next_address_is_asked(server, cache, monkeypatch, case):
    answer, message = ANSWERS[case]
    server.release = threading.Event()
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    monkeypatch.setattr(downloads, "DEADLINE", 0.3)
    serve(server, "one", train_images_idx3_ubyte=answer)
    try:
        with pytest.raises(DatasetError, match=message) as caught:
            fashion_mnist()
        assert HINT in str(caught.value) and f"/one/{IMAGES}.gz" in str(caught.value) and "/two/" in str(caught.value)
        assert list(cache.iterdir()) == []
        serve(server, "two")
        assert first_pixel() == 0
    finally:
        server.release.set()
    assert server.asked[-3:] == [f"/one/{IMAGES}.gz", f"/two/{IMAGES}.gz", f"/one/{LABELS}.gz"]


def test_a_bomb_is_not_unpacked_beyond_the_size_of_the_file(monkeypatch):
    unpacked = []
    check = downloads.read_bounded

    def watched(stream, name, size):
        unpacked.append(size)
        return check(stream, name, size)

    monkeypatch.setattr(downloads, "read_bounded", watched)
    with pytest.raises(DatasetError, match="more than the accepted 5000 bytes"):
        downloads._check(BOMB, "here", "0" * 64, 5000)
    assert unpacked == [5000] and len(BOMB) < 5000


def test_offline_says_what_to_do(cache):
    with pytest.raises(DatasetError, match="no network in tests") as caught:
        fashion_mnist()
    assert HINT in str(caught.value) and all(url in str(caught.value) for url in module.URLS)
    assert all(url.startswith("https://") for url in module.URLS)


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path, server):
    serve(server, "one")
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    with pytest.raises(DatasetError, match=f"could not be downloaded .*{HINT}"):
        fashion_mnist()
    assert server.asked == []
