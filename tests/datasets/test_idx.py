from __future__ import annotations

import gzip
import lzma
import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from spikeflow.datasets import DatasetError, read_idx
from spikeflow.datasets.idx import parse_idx

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
    for size in range(end - 64, end):
        member = gzip.compress(noise[:size], compresslevel=0, mtime=0)
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


def mutate(data: bytes, rng: random.Random) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(mutated) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            del mutated[start : start + rng.randint(1, 8)]
        elif kind == 1:
            mutated[start:start] = rng.randbytes(rng.randint(1, 8))
        elif kind == 2:
            mutated[start : start + 4] = struct.pack(">I", rng.choice([0, 1, 2**31 - 1, 2**32 - 1]))
        elif kind == 3:
            # Headers are short: aim at them.
            mutated[: min(start, 16)] = rng.randbytes(min(start, 16))
        elif start < len(mutated):
            mutated[start] ^= 1 << rng.randrange(8)
    return bytes(mutated)


@pytest.mark.parametrize("packing", PACKINGS)
def test_random_mutations(read, packing):
    """An array or DatasetError, and no other exception; also for compressed files whose content was mutated."""
    rng = random.Random(20)
    pack = PACKINGS[packing]
    samples = [idx_bytes(code, (2, 3), np.arange(6).astype(dtype).tobytes()) for code, dtype in CODES.items()]
    samples += [SMALL, idx_bytes(0x08, (0, 5), b"")]
    outcomes = {"array": 0, "refused": 0}
    for _ in range(1500):
        sample = rng.choice(samples)
        for data in (mutate(pack(sample), rng), pack(mutate(sample, rng))):
            try:
                assert isinstance(read(data, max_bytes=2**20), np.ndarray)
                outcomes["array"] += 1
            except DatasetError as error:
                assert "sample.bin" in str(error)
                outcomes["refused"] += 1
    assert outcomes["array"] > 20 and outcomes["refused"] > 1000


@pytest.mark.parametrize("packing", PACKINGS)
def test_max_bytes(read, packing):
    packed = PACKINGS[packing](SMALL)
    np.testing.assert_array_equal(read(packed, max_bytes=len(SMALL)), PIXELS)
    with pytest.raises(DatasetError, match=f"sample.bin: more than the accepted {len(SMALL) - 1} bytes"):
        read(packed, max_bytes=len(SMALL) - 1)


@pytest.mark.parametrize("packing", PACKINGS)
def test_bomb(tmp_path, packing):
    size, cap = 2**26, 2**22
    path = tmp_path / "bomb"
    path.write_bytes(PACKINGS[packing](idx_bytes(0x08, (size,), bytes(size))))
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match="bomb: more than the accepted"):
            read_idx(path, max_bytes=cap)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * cap


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
