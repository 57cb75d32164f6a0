from __future__ import annotations

import gzip
import io
import lzma
import random
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from spikeflow.datasets import DatasetError, read_idx
from spikeflow.datasets.idx import parse_idx, read_bounded

CORPUS = Path(__file__).parent / "corpus"
FUZZ = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz_idx.py"
CODES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def idx_bytes(code: int, shape: tuple[int, ...], payload: bytes) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape) + payload


def compress_gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def compress_xz(data: bytes) -> bytes:
    # The smallest preset: its decoder needs little memory, and thousands of them are made here.
    return lzma.compress(data, preset=0)


PACKINGS = {"plain": bytes, "gz": compress_gz, "xz": compress_xz}
PIXELS = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
SMALL = idx_bytes(0x08, (3, 4, 5), PIXELS.tobytes())


@pytest.fixture
def read(tmp_path):
    """-> read_idx of bytes, through a file whose name says nothing about its content."""
    path = tmp_path / "sample.bin"

    def from_bytes(data: bytes, **options) -> np.ndarray:
        path.unlink(missing_ok=True)  # some file systems flush what is truncated and written again
        path.write_bytes(data)
        return read_idx(path, **options)

    return from_bytes


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("code", CODES)
def test_reads_every_type(read, packing, code):
    stored = np.array([[0, 1, 2], [3, 100, 7]], CODES[code])
    if code != 0x08:
        stored[0, 0] = -5
    array = read(PACKINGS[packing](idx_bytes(code, stored.shape, stored.tobytes())))
    np.testing.assert_array_equal(array, stored)
    assert array.dtype == stored.dtype.newbyteorder("=") and array.dtype.isnative
    assert array.flags.writeable and array.flags.c_contiguous


@pytest.mark.parametrize("shape", [(1,), (7,), (0,), (0, 28, 28), (2, 3), (1, 2, 1, 2, 1, 2, 1, 2)])
def test_reads_every_rank(shape):
    payload = bytes(range(int(np.prod(shape))))
    array = parse_idx(idx_bytes(0x08, shape, payload), "sample")
    assert array.shape == shape and array.tobytes() == payload


def test_name_does_not_decide_the_compression(tmp_path):
    for suffix in (".gz", ".xz", ""):
        for pack in PACKINGS.values():
            path = tmp_path / f"sample{suffix}"
            path.write_bytes(pack(SMALL))
            np.testing.assert_array_equal(read_idx(str(path)), PIXELS)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "absent")


def test_dataset_error_is_a_value_error():
    assert issubclass(DatasetError, ValueError)


MALFORMED = {
    "empty": (b"", "0 bytes, too few"),
    "three bytes": (b"\0\0\x08", "3 bytes, too few"),
    "text": (b"label,pixel\n", "not an IDX file"),
    "first byte": (b"\x01" + SMALL[1:], "not an IDX file"),
    "second byte": (b"\0\x01" + SMALL[2:], "not an IDX file"),
    "type code": (idx_bytes(0x0A, (3, 4, 5), PIXELS.tobytes()), "type code 0x0a"),
    "no dimensions": (b"\0\0\x08\0", "0 dimensions"),
    "nine dimensions": (idx_bytes(0x08, (1,) * 9, b"x"), "9 dimensions"),
    "255 dimensions": (idx_bytes(0x08, (1,) * 255, b"x"), "255 dimensions"),
    "short header": (SMALL[:15], "header of 3 dimensions"),
    "header alone": (SMALL[:16], "thus 76 bytes"),
    "one byte short": (SMALL[:-1], "75 bytes"),
    "one byte over": (SMALL + b"\0", "77 bytes"),
    "short of 4-byte elements": (idx_bytes(0x0C, (3,), bytes(11)), "thus 20 bytes"),
    # The product is 0 in 64-bit arithmetic.
    "product overflow": (idx_bytes(0x08, (2**31, 2**31, 4), b""), "thus 18446744073709551632 bytes"),
    "product overflow by element size": (idx_bytes(0x0E, (2**31, 2**30), b""), "declares shape"),
    "largest dimensions": (idx_bytes(0x0E, (2**32 - 1,) * 8, b"x"), "declares shape"),
    "empty but too large": (idx_bytes(0x08, (0, 2**32 - 1, 2**32 - 1), b""), "too large"),
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(read, packing, case):
    data, message = MALFORMED[case]
    with pytest.raises(DatasetError, match=message) as caught:
        read(PACKINGS[packing](data))
    assert "sample.bin" in str(caught.value)


@pytest.mark.parametrize("packing", ["gz", "xz"])
@pytest.mark.parametrize("trailing", [b"\0", b"\0\0\0\0", b"garbage", SMALL, bytes(2**17)])
def test_bytes_after_the_stream(read, packing, trailing):
    with pytest.raises(DatasetError, match="sample.bin: bytes follow"):
        read(PACKINGS[packing](SMALL) + trailing)


@pytest.mark.parametrize("packing", ["gz", "xz"])
def test_second_stream(read, packing):
    pack = PACKINGS[packing]
    with pytest.raises(DatasetError, match="sample.bin: bytes follow"):
        read(pack(SMALL[:40]) + pack(SMALL[40:]))


@pytest.mark.parametrize("end", [2**16, 2**16 + 1])
def test_bytes_after_a_stream_that_ends_with_a_read(read, end):
    # Stored blocks, so that the length of the gzip member can be set to the byte.
    noise = random.Random(4).randbytes(end)
    for size in range(end - 96, end):
        member = gzip.compress(idx_bytes(0x08, (size,), noise[:size]), compresslevel=0, mtime=0)
        if len(member) == end:
            break
    else:
        pytest.fail("no member of this length")
    with pytest.raises(DatasetError, match="bytes follow"):
        read(member + b"\0")


@pytest.mark.parametrize("packing", PACKINGS)
def test_truncated_at_every_length(read, packing):
    packed = PACKINGS[packing](SMALL)
    for length in range(len(packed)):
        with pytest.raises(DatasetError, match="sample.bin"):
            read(packed[:length])
    np.testing.assert_array_equal(read(packed), PIXELS)


@pytest.mark.parametrize("packing", ["gz", "xz"])
def test_large_stream_truncated(read, packing):
    """Cuts around the blocks in which a file is read."""
    noise = random.Random(5).randbytes(200_000)
    packed = PACKINGS[packing](idx_bytes(0x08, (200_000,), noise))
    assert read(packed).tobytes() == noise
    for length in (2**16 - 1, 2**16, 2**16 + 1, 2**17, len(packed) - 8, len(packed) - 1):
        with pytest.raises(DatasetError, match="truncated"):
            read(packed[:length])


@pytest.mark.parametrize("packing", ["gz", "xz"])
def test_every_bit_of_a_compressed_file_flipped(read, packing):
    """The checksums of the formats leave two outcomes: the very content, or an error."""
    packed = PACKINGS[packing](SMALL)
    refused = 0
    for position in range(8 * len(packed)):
        flipped = bytearray(packed)
        flipped[position // 8] ^= 1 << position % 8
        try:
            array = read(flipped)
        except DatasetError:
            refused += 1
        else:
            np.testing.assert_array_equal(array, PIXELS)
    # A gzip header has some bits without meaning (time, system); nothing else may pass.
    assert refused >= 8 * (len(packed) - 8)


def test_the_corpus_is_valid_and_has_every_type():
    found = {(array.dtype.str.lstrip("<|=>"), path.suffix) for path in CORPUS.iterdir() for array in [read_idx(path)]}
    assert {dtype for dtype, _ in found} == {code.lstrip(">") for code in CODES.values()}
    assert {suffix for _, suffix in found} == {".idx", ".gz", ".xz"}


def test_damaged_files_give_arrays_or_errors_and_no_surprise():
    """Some thousands of the cases of ``benchmarks/fuzz_idx.py``, which also compares the arrays with their bytes."""
    done = subprocess.run([sys.executable, FUZZ, "--count", "6000", "--seed", "20"], capture_output=True, text=True)
    outcomes = dict(re.findall(r"^(.*?) {2,}(\d+)$", done.stdout, re.MULTILINE))
    assert done.returncode == 0 and ", 0 failures" in done.stdout, done.stdout + done.stderr
    assert sum(map(int, outcomes.values())) == 6000 and int(outcomes["array"]) > 300 and len(outcomes) > 15


def test_fuzzing_is_repeatable(tmp_path):
    runs = [subprocess.run([sys.executable, FUZZ, "--count", "300"], capture_output=True, text=True) for _ in range(2)]
    tables = [run.stdout.split("\n300 cases")[0] for run in runs]
    assert tables[0] == tables[1] and "array" in tables[0]


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is set as Linux counts it")
@pytest.mark.parametrize("packing", PACKINGS)
def test_content_that_does_not_fit_into_memory(tmp_path, packing):
    path = tmp_path / "large"
    path.write_bytes(PACKINGS[packing](idx_bytes(0x08, (2**26,), bytes(2**26))))
    code = (
        "import resource, sys; from spikeflow.datasets import read_idx\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**25, resource.RLIM_INFINITY))\n"
        "try: read_idx(sys.argv[1])\n"
        "except ValueError as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.stdout == f"DatasetError {path}: not enough memory for its content\n", done.stderr


@pytest.mark.parametrize("packing", PACKINGS)
def test_max_bytes(read, packing):
    packed = PACKINGS[packing](SMALL)
    np.testing.assert_array_equal(read(packed, max_bytes=len(SMALL)), PIXELS)
    with pytest.raises(DatasetError, match=f"sample.bin: the header declares .* more than the accepted {len(SMALL) - 1}"):
        read(packed, max_bytes=len(SMALL) - 1)
    with pytest.raises(DatasetError, match=f"sample.bin: more than the accepted {len(SMALL) - 1} bytes"):
        read_bounded(io.BytesIO(packed), "sample.bin", len(SMALL) - 1)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    ("declared", "message"),
    [(2**26, "more than the accepted 4194304"), (100, "but the header declares"), (2**32 - 1, "accepted")],
)
def test_bomb(tmp_path, packing, declared, message):
    """No more is decompressed than the header declares, and nothing if that is too much."""
    size, cap = 2**26, 2**22
    path = tmp_path / "bomb"
    path.write_bytes(PACKINGS[packing](idx_bytes(0x08, (declared,), bytes(size))))
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=f"bomb: .*{message}"):
            read_idx(path, max_bytes=cap)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def xz_with_dictionary(code: int) -> bytearray:
    """-> SMALL as an xz file that declares the dictionary size of `code`, the property byte of LZMA2."""
    packed = bytearray(compress_xz(SMALL))
    # The block header follows the stream header of 12 bytes; its first byte gives its size, CRC32 included.
    end = 12 + 4 * (packed[12] + 1)
    assert packed[14:16] == b"\x21\x01", "the LZMA2 filter with its one byte of properties"
    packed[16] = code
    packed[end - 4 : end] = struct.pack("<I", zlib.crc32(packed[12 : end - 4]))
    return packed


def test_xz_dictionary_size(read):
    sixty_four_mib, four_gib = 28, 40
    np.testing.assert_array_equal(read(xz_with_dictionary(sixty_four_mib)), PIXELS)
    with pytest.raises(DatasetError, match="[Mm]emory"):
        read(xz_with_dictionary(four_gib))


def test_xz_of_the_highest_preset(read):
    np.testing.assert_array_equal(read(lzma.compress(SMALL, preset=9 | lzma.PRESET_EXTREME)), PIXELS)


def test_result_is_apart_from_the_data():
    data = bytearray(SMALL)
    array = parse_idx(data, "sample")
    data[16] = 99
    np.testing.assert_array_equal(array, PIXELS)


def test_directory_is_not_a_dataset_error(tmp_path):
    with pytest.raises(IsADirectoryError):
        read_idx(Path(tmp_path))
