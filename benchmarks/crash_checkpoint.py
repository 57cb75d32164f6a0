"""Checkpoint files under attack: killed writers, failing disks, damaged files, archive bombs.

    python benchmarks/crash_checkpoint.py                                              kills 200, faults 20, bits 3000, cuts 500
    python benchmarks/crash_checkpoint.py --kills 20 --bits 500

Kills: a child saves in a loop and is killed at random times; each time the file must be absent or hold, whole, a state no older
than the last that the child reported. (A killed process, not a power cut: what it wrote is in the system's hands.)
Faults: one save each in which the disk fills up after a random number of bytes, or a call of the system fails, or an exception
comes from elsewhere; the old file must stay to the bit, and nothing beside it. One in ten has two writers and a reader at once.
Bits, cuts: one file with one bit changed, or cut off somewhere; each must be refused with CheckpointError.
Bombs: files that claim or unfold to much more than they are, with the right digest. A child must refuse each with CheckpointError
within twice the bound that ``spikeflow.archive`` states, the file's size and OVERHEAD.

The children import neither Numba nor the engine.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import io
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import harness  # before numpy
import numpy as np

from spikeflow import archive, files
from spikeflow.archive import CheckpointError, read_arrays, write_arrays

NAME = "checkpoint-latest.npz"
FRESH = 10  # kills in one folder, of which the first finds it empty
WINDOW = 0.1  # seconds, within which the child is killed
SAVES = 40  # of each of two writers at once
MEMBERS = 10**6
JSON = 2**22 - 100  # bytes of a manifest just below the limit


def main() -> int:
    """Attack, print what held -> exit status."""
    options = parse()
    if options.save:
        return save_forever(Path(options.save))
    if options.read:
        return read_and_report(Path(options.read))
    rng = random.Random(options.seed)
    attacks = {
        "kills": lambda folder: kills(folder, options.kills, rng),
        "faults": lambda folder: faults(folder, options.faults, rng),
        "bits": lambda folder: bits(folder, options.bits, rng),
        "cuts": lambda folder: cuts(folder, options.cuts, rng),
        "bombs": bombs,
    }
    rows, failures = [], []
    for name, attack in attacks.items():
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            cases, failed, note = attack(Path(folder))
        failures += [f"{name}: {failure}" for failure in failed]
        rows.append([name, str(cases), str(cases - len(failed)), f"{time.perf_counter() - begin:.0f}", note])
    print(harness.table(["attack", "cases", "held", "seconds", ""], rows))
    print("\n".join(["", *failures[:20], "FAILED" if failures else "all held"]))
    return 1 if failures else 0


def parse() -> argparse.Namespace:
    """-> the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--kills", type=int, default=200)
    add("--faults", type=int, default=20)
    add("--bits", type=int, default=3000)
    add("--cuts", type=int, default=500)
    add("--seed", type=int, default=0)
    add("--folder", type=Path, help="where the files go; default: the system's folder for temporary files")
    add("--save", help=argparse.SUPPRESS)
    add("--read", help=argparse.SUPPRESS)
    return parser.parse_args()


def state(iteration: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """-> manifest and arrays of a save, about 1 MB, every byte a function of its iteration."""
    values = np.random.default_rng(iteration).random(2**17)
    return {"iteration": iteration}, {
        "weights/0.weight": values.reshape(256, 512),
        "weights/0.bias": values[:512].astype(np.float32),
        "optimizer/steps": np.array(iteration, np.int64),
    }


def same(one, other) -> bool:
    """Are two states equal, arrays to the bit?"""
    (manifest, arrays), (expected, others) = one, other
    return manifest == expected and {name: a.tobytes() for name, a in arrays.items()} == {
        name: a.tobytes() for name, a in others.items()
    }


# ---------------------------------------------------------------------------------------------------- kills


def save_forever(path: Path) -> int:
    """The child: save one state after the other, and tell of each."""
    assert "numba" not in sys.modules, "the child must be light"
    iteration = read_arrays(path)[0]["iteration"] + 1 if path.exists() else 0
    print("ready", flush=True)
    while True:
        write_arrays(path, *state(iteration))
        print(iteration, flush=True)
        iteration += 1


def kills(root: Path, count: int, rng: random.Random) -> tuple[int, list[str], str]:
    """-> cases, failures, a note."""
    failures, absent, within, last = [], 0, 0, -1
    for number in range(count):
        folder = root / str(number // FRESH)
        if number % FRESH == 0:
            folder.mkdir()
            last = -1
        last = max(last, kill_at(folder / NAME, rng.uniform(0, WINDOW)))
        if failure := damage(folder / NAME, last):
            failures.append(f"kill {number}: {failure}")
            (folder / NAME).unlink(missing_ok=True)
            last = -1
        absent += not (folder / NAME).exists()
        within += any(path.name != NAME for path in folder.iterdir())
    for folder in root.iterdir():
        write_arrays(folder / NAME, *state(0))
        if [path.name for path in folder.iterdir()] != [NAME]:
            failures.append(f"a later save left {sorted(path.name for path in folder.iterdir())}")
    return count, failures, f"{within} within a save, {absent} before the first; no stale file after the next save"


def damage(path: Path, last: int) -> str | None:
    """-> what is wrong with a file whose writer reported iteration ``last`` before it was killed (-1 for none), or None."""
    try:
        found = read_arrays(path)
    except FileNotFoundError:
        return None if last == -1 else f"no file after iteration {last}"
    except CheckpointError as error:
        return str(error)
    iteration = found[0]["iteration"]
    return None if iteration >= last and same(found, state(iteration)) else f"iteration {iteration} after {last}, or a mixture"


def kill_at(path: Path, seconds: float) -> int:
    """Kill a child that saves, so long after it began -> the last iteration that it reported, or -1."""
    command = [sys.executable, __file__, "--save", str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "ready\n", "the child did not start"
        time.sleep(seconds)
    finally:
        child.send_signal(signal.SIGKILL)
        lines = child.communicate()[0].split("\n")
    return max([-1, *map(int, lines[:-1])])  # what follows the last line's end is a part of a line


# ---------------------------------------------------------------------------------------------------- faults


class FullDisk(io.FileIO):
    """A file on a disk with room for so many bytes."""

    def __init__(self, descriptor: int, room: int):
        super().__init__(descriptor, "w")
        self.room = room

    def write(self, data) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = super().write(memoryview(data).cast("B")[: self.room])
        self.room -= written
        return written


def full_disk(room: int):
    """-> a patch: the next file is on a full disk."""

    def opened(name, mode, opener):
        return io.BufferedWriter(FullDisk(opener(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), room))

    return mock.patch.object(files, "open", opened, create=True)


def failing(call: str, code: int, after: int = 0):
    """-> a patch: ``os.<call>`` fails, after so many calls that do not."""
    genuine, count = getattr(os, call), iter(range(after))

    def fails(*arguments, **options):
        if next(count, None) is None:
            raise OSError(code, os.strerror(code))
        return genuine(*arguments, **options)

    return mock.patch.object(files.os, call, fails)


def interrupted():
    """-> a patch: Ctrl-C while the file is flushed."""
    return mock.patch.object(files.os, "fsync", mock.Mock(side_effect=KeyboardInterrupt))


def faults(folder: Path, count: int, rng: random.Random) -> tuple[int, list[str], str]:
    """-> cases, failures, a note."""
    path, failures = folder / NAME, []
    write_arrays(path, *state(0))
    size = path.stat().st_size
    kinds = [
        *[("disk full", lambda: full_disk(rng.randrange(size)))] * 4,
        ("file not flushed", lambda: failing("fsync", errno.EIO)),
        ("not renamed", lambda: failing("replace", errno.EACCES)),
        ("folder closed to us", lambda: failing("open", errno.EACCES)),
        ("no new file", lambda: failing("open", errno.EROFS, after=1)),  # the first opens the folder
        ("interrupted", interrupted),
        ("two writers", None),
    ]
    for number in range(count):
        name, make = kinds[number % len(kinds)]
        if make is None:
            failures += [f"fault {number}: {failure}" for failure in two_writers(path)]
            write_arrays(path, *state(0))
            continue
        raised = False
        with contextlib.suppress(OSError, KeyboardInterrupt), make():
            raised = True
            write_arrays(path, *state(1))
            raised = False
        if not raised:
            failures.append(f"fault {number}, {name}: the save went through")
        if [entry.name for entry in folder.iterdir()] != [NAME] or not same(read_arrays(path), state(0)):
            failures.append(f"fault {number}, {name}: the old file or the folder changed")
            write_arrays(path, *state(0))
    return count, failures, ", ".join(dict.fromkeys(name for name, _ in kinds))


def two_writers(path: Path) -> list[str]:
    """-> what went wrong while two threads saved and one read."""
    failures, done = [], threading.Event()

    def write(first: int):
        try:
            for iteration in range(first, first + SAVES):
                write_arrays(path, *state(iteration))
        except Exception as error:
            failures.append(f"a writer: {error!r}")

    def read():
        while not done.is_set():
            try:
                found = read_arrays(path)
                if not same(found, state(found[0]["iteration"])):
                    failures.append("a mixture was read")
            except Exception as error:
                failures.append(f"the reader: {error!r}")

    writers = [threading.Thread(target=write, args=(first,)) for first in (1, 1 + SAVES)]
    reader = threading.Thread(target=read)
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    if read_arrays(path)[0]["iteration"] not in (SAVES, 2 * SAVES):
        failures.append("the last of neither writer stands")
    if [entry.name for entry in path.parent.iterdir()] != [path.name]:
        failures.append("a temporary file was left")
    return failures[:1]


# ---------------------------------------------------------------------------------------------------- damage


def small_file(path: Path) -> bytes:
    """-> the bytes of a checkpoint of a few kilobytes."""
    rng = np.random.default_rng(0)
    arrays = {
        "weights/0.weight": rng.random((8, 5)).astype(np.float32),
        "weights/gewöhnlich": np.asfortranarray(rng.random((4, 3))),
        "optimizer/steps": np.array(7),
        "empty": np.empty((0, 3), bool),
    }
    write_arrays(path, {"network": {"layers": []}, "info": {"iteration": 7}}, arrays)
    return path.read_bytes()


def refused(path: Path, data: bytes) -> str | None:
    """-> what happened to a file of these bytes instead of a CheckpointError, or None."""
    path.unlink(missing_ok=True)  # some file systems flush what is truncated and written again
    path.write_bytes(data)
    try:
        read_arrays(path)
    except CheckpointError:
        return None
    except Exception as error:
        return repr(error)
    return "it was read"


def bits(folder: Path, count: int, rng: random.Random) -> tuple[int, list[str], str]:
    """-> cases, failures, a note. Every second file gets the digest that fits its changed bytes."""
    whole, failures = small_file(folder / NAME), []
    end = len(whole) - archive.DIGEST
    for number in range(count):
        position = rng.randrange(8 * (len(whole) if number % 2 else end))
        data = bytearray(whole)
        data[position // 8] ^= 1 << position % 8
        if number % 2 == 0:
            data[end:] = hashlib.sha256(data[:end]).hexdigest().encode()
        if outcome := refused(folder / NAME, data):
            failures.append(f"bit {position}: {outcome}")
    return count, failures, f"of {8 * len(whole)}; half of the files with a digest made to fit"


def cuts(folder: Path, count: int, rng: random.Random) -> tuple[int, list[str], str]:
    """-> cases, failures, a note."""
    whole, failures = small_file(folder / NAME), []
    for _ in range(count):
        length = rng.randrange(len(whole))
        if outcome := refused(folder / NAME, whole[:length]):
            failures.append(f"cut at {length}: {outcome}")
    return count, failures, f"of {len(whole)} bytes"


# ---------------------------------------------------------------------------------------------------- bombs


def bombs(folder: Path) -> tuple[int, list[str], str]:
    """-> cases, failures, a note."""
    path, failures, peaks = folder / NAME, [], []
    for name, make in BOMBS.items():
        with open(path, "wb") as file:
            make(file)
        bound = 2 * (path.stat().st_size + archive.OVERHEAD)
        report = json.loads(subprocess.run([sys.executable, __file__, "--read", path], capture_output=True, check=True).stdout)
        peaks.append(report["peak"])
        if not report["refused"] or report["peak"] > bound:
            failures.append(f"{name}: {report['outcome']}, {report['peak'] >> 20} MiB, the bound is {bound >> 20} MiB")
        path.unlink()
    return len(BOMBS), failures, f"peak memory of the process {min(peaks) >> 20} to {max(peaks) >> 20} MiB"


def read_and_report(path: Path) -> int:
    """The child: read a file, and tell what came of it and at which peak memory."""
    outcome, is_refused = "it was read", False
    try:
        read_arrays(path)
    except CheckpointError as error:
        outcome, is_refused = str(error), True
    except Exception as error:
        outcome = repr(error)
    print(json.dumps({"refused": is_refused, "outcome": outcome, "peak": peak_memory()}))
    return 0


def peak_memory() -> int:
    """Peak resident memory of this process, in bytes."""
    with contextlib.suppress(OSError):  # Linux: ru_maxrss would count the process that started this one, too
        return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def signed(make: Callable) -> Callable:
    """-> the same, with the comment and the digest of format 2 behind what was written."""

    def written(file):
        buffer = io.BytesIO()
        make(buffer)
        data = buffer.getvalue()
        data = data[:-2] + struct.pack("<H", archive.DIGEST)
        file.write(data + hashlib.sha256(data).hexdigest().encode())

    return written


def deflated(file) -> None:
    """512 MiB of zeros in 0.5 MB."""
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb,
        bomb.open("spikeflow.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(512):
            member.write(bytes(2**20))


def crowded(file) -> None:
    """A directory of a million members, all of them the same few bytes."""
    start = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, 1, 0) + b"a"
    record = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    file.write(start + MEMBERS * record)
    file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, MEMBERS * len(record), len(start), 0))


def claimed(file) -> None:
    """Format 1 with an array of 1 PiB in a file of a few hundred bytes."""
    header = archive._npy_header("<f8", (2**47,), False)
    member = archive.Member(b"weights/0.weight.npy", 0, len(header) + 2**50)
    file.write(archive._local_header(member) + header + bytes(100))
    file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 0, 0, 0))


def nested(file) -> None:
    """A header of 64 KiB of brackets for Python's parser."""
    content = b"\x93NUMPY\1\0\xff\xff" + 0xFFFF * b"["
    with zipfile.ZipFile(file, "w") as bomb, bomb.open("weights/0.npy", "w", force_zip64=True) as member:
        member.write(content)


def manifested(make_text: Callable[[], bytes]) -> Callable:
    """-> a maker of format 2 with this manifest, everything else as it should be."""

    def make(file):
        text = make_text()
        header = archive._npy_header("|u1", (len(text),), False)
        member = archive._member(archive.MANIFEST, header, text)
        data = archive._local_header(member) + header + text + archive._directory([member])
        file.write(data + hashlib.sha256(data).hexdigest().encode())

    return make


def vast() -> bytes:
    """Arrays of 8 TiB, and an empty one that is too large all the same."""
    common = {"dtype": "<f8", "fortran_order": False, "sha256": 64 * "0"}
    shapes = [("a", [2**20, 2**20], 2**43), ("b", [0, 2**62, 2**62], 0)]
    entries = [{"name": name, "shape": shape, "nbytes": nbytes, **common} for name, shape, nbytes in shapes]
    return json.dumps({"format": 2, "arrays": entries}).encode()


def listed(start: bytes, item: bytes, end: bytes, most: int = JSON) -> Callable[[], bytes]:
    """-> a maker of JSON with as many items as the limits allow."""
    return lambda: start + b",".join(min(most, JSON // (len(item) + 1)) * [item]) + end


ENTRY = b'{"name": "a", "dtype": "<f8", "shape": [0], "fortran_order": false, "nbytes": 0, "sha256": ""}'
BOMBS = {
    "compressed": deflated,
    "compressed, with digest": signed(deflated),
    "a million members": crowded,
    "a million members, with digest": signed(crowded),
    "1 PiB claimed": claimed,
    "1 PiB claimed, with digest": signed(claimed),
    "a header of brackets": nested,
    "a manifest of vast shapes": manifested(vast),
    "a manifest of brackets": manifested(lambda: JSON * b"["),
    "a manifest of nested lists": manifested(lambda: 90_000 * b"[" + 90_000 * b"]"),
    "a manifest of objects": manifested(listed(b"[", b'{"":0}', b"]", archive.MAX_NESTED - 2)),
    "a manifest of strings": manifested(listed(b"[", b'"ab"', b"]")),
    "a manifest of numbers": manifested(listed(b"[", b"1e9", b"]")),
    "a manifest of arrays": manifested(listed(b'{"format": 2, "arrays": [', ENTRY, b"]}")),
}


if __name__ == "__main__":
    sys.exit(main())
