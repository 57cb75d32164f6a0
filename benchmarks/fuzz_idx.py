"""Damaged IDX files: each gives an array, and the very one that its bytes mean, or a DatasetError; nothing else, and no memory.

    python benchmarks/fuzz_idx.py --count 1000000                   prints how many cases ended how
    python benchmarks/fuzz_idx.py --count 20000 --seed 7

A case is a small valid file of --corpus (plain, gzip, xz) with some bytes changed, removed, inserted or joined with those of
another; or its content changed so and then compressed; or a header that declares one size before data of another; or random
bytes, most behind the first bytes of a real file. The same seed gives the same cases. They are read from disk by ``read_idx``
with a limit of 1 MiB for the content; what it returns is compared with what Python's own gzip and lzma make of the file. Once
begun, the process may map no more than 512 MiB (on Linux), and warnings are errors.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import lzma
import math
import random
import re
import resource
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import harness  # before numpy
import numpy as np

from spikeflow.datasets.idx import DatasetError, read_idx

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "datasets" / "corpus"
CODES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
SIZES = (0, 1, 2, 28, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1)  # that a damaged header may declare
STARTS = (b"\0\0", b"\0\0\x08\1", b"\0\0\x0d\2", b"\x1f\x8b\x08\0", b"\xfd7zXZ\0", b"\xfd7zXZ\0\0\1")
MAX_BYTES = 2**20
MEMORY = 2**29


def main() -> int:
    """Read all cases, print the classes of outcomes -> exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="of cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder of valid files")
    options = parser.parse_args()
    limit_memory()
    warnings.simplefilter("error")
    begin = time.perf_counter()
    outcomes, failures = run(options.corpus, options.seed, options.count)
    print(harness.table(["outcome", "cases"], [[name, str(count)] for name, count in sorted(outcomes.items())]))
    print(f"\n{options.count} cases in {time.perf_counter() - begin:.0f} s, {len(failures)} failures")
    for failure in failures[:10]:
        print(failure)
    return 1 if failures else 0


def limit_memory() -> None:
    """Let this process map MEMORY more than now, where the system says what that is."""
    with contextlib.suppress(FileNotFoundError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))


def run(corpus: Path, seed: int, count: int) -> tuple[Counter, list[str]]:
    """-> number of cases by outcome, and what went wrong."""
    outcomes, failures = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case"
        for number, data in enumerate(cases(corpus, seed, count)):
            path.unlink(missing_ok=True)  # some file systems flush what is truncated and written again
            path.write_bytes(data)
            try:
                array = read_idx(path, MAX_BYTES)
                outcome = "array"
                if encode(array) != unpacked(data):
                    failures.append(f"case {number}: another array than the bytes mean: {data.hex()}")
            except DatasetError as error:
                outcome = kind(str(error).removeprefix(f"{path}: "))
                if outcome.startswith("not enough memory"):
                    failures.append(f"case {number}: {error}: {data.hex()}")
            except BaseException as error:  # an interrupt aside, these are what must not be
                if isinstance(error, KeyboardInterrupt):
                    raise
                outcome = type(error).__name__
                failures.append(f"case {number}: {error!r}: {data.hex()}")
            outcomes[outcome] += 1
    return outcomes, failures


def cases(corpus: Path, seed: int, count: int) -> Iterator[bytes]:
    """-> the bytes of so many files."""
    rng = random.Random(seed)
    files = [path.read_bytes() for path in sorted(corpus.iterdir())]
    ways = (_damaged, _damaged, _damaged, _damaged_inside, _spliced, _misdeclared, _random)
    for _ in range(count):
        yield rng.choice(ways)(files, rng)


def _damaged(files, rng) -> bytes:
    return mutate(rng.choice(files), rng)


def _damaged_inside(files, rng) -> bytes:
    content = mutate(unpacked(rng.choice(files)), rng)
    way = rng.randrange(8)
    return packed(content, "xz" if way == 0 else "gz" if way < 6 else "plain")


def _spliced(files, rng) -> bytes:
    one, other = rng.choice(files), rng.choice(files)
    return one[: rng.randrange(len(one) + 1)] + other[rng.randrange(len(other) + 1) :]


def _misdeclared(files, rng) -> bytes:
    shape = [rng.choice(SIZES) if rng.random() < 0.3 else rng.randrange(4) for _ in range(rng.randint(0, 9))]
    code = rng.choice([*CODES, rng.randrange(256)])
    declared = math.prod(shape) * np.dtype(CODES.get(code, "u1")).itemsize
    size = declared + rng.choice([0, 0, 0, -1, 1]) if declared < 2**10 else rng.randrange(64)
    content = struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape) + rng.randbytes(max(size, 0))
    return packed(content, rng.choice(["plain", "plain", "gz"]))


def _random(files, rng) -> bytes:
    return (rng.choice(STARTS) if rng.random() < 0.9 else b"") + rng.randbytes(rng.choice([0, 1, 3, 8, 40, 300]))


def mutate(data: bytes, rng: random.Random) -> bytes:
    """-> data with one to four changes."""
    mutated = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(mutated) + 1)
        if rng.random() < 0.5:  # headers are short: aim at them
            start = min(start, rng.randrange(24))
        way = rng.randrange(5)
        if way == 0:
            del mutated[start : start + rng.randint(1, 8)]
        elif way == 1:
            mutated[start:start] = rng.randbytes(rng.randint(1, 8))
        elif way == 2:
            mutated[start : start + 4] = struct.pack(">I", rng.choice(SIZES))
        elif way == 3:
            del mutated[start:]
        elif start < len(mutated):
            mutated[start] ^= 1 << rng.randrange(8)
    return bytes(mutated)


def packed(content: bytes, packing: str) -> bytes:
    """-> the bytes of a file with this content."""
    if packing == "gz":
        return gzip.compress(content, mtime=0)
    # The smallest preset: its coders need little memory, and many of them are made here.
    return lzma.compress(content, preset=0) if packing == "xz" else content


def unpacked(data: bytes) -> bytes:
    """-> the content of a file, as Python's own modules read it."""
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    return lzma.decompress(data) if data[:6] == b"\xfd7zXZ\0" else data


def encode(array: np.ndarray) -> bytes:
    """-> the content of an IDX file that holds this array, in native byte order."""
    stored = array.dtype.newbyteorder(">")
    code = next(code for code, dtype in CODES.items() if np.dtype(dtype) == stored)
    return struct.pack(f">4B{array.ndim}I", 0, 0, code, array.ndim, *array.shape) + array.astype(stored).tobytes()


def kind(message: str) -> str:
    """A message without its numbers."""
    message = re.sub(r"0x[0-9a-f]{2}\b|\b[0-9a-f]{2} [0-9a-f]{2}\b|\([\d, ]*\)|\d+", "N", message)
    return re.sub(r", known are.*", "", message)


if __name__ == "__main__":
    sys.exit(main())
