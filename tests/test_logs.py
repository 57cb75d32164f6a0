"""The log of a run: rows, tables, TensorBoard's files, and what a kill does to them."""

import csv
import json
import os
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from spikeflow import logs
from spikeflow.logs import MetricsLog, read_rows


def step(iteration):
    return {"iteration": iteration, "epoch": iteration // 4, "train_loss": 1 / (iteration + 1), "seconds": 0.25}


def evaluation(iteration):
    return {"iteration": iteration, "epoch": iteration // 4, "test_accuracy": iteration / 100}


def a_run(first, last):
    """The rows of a training: an evaluation at the beginning, and after every fourth step."""
    rows = [evaluation(0)] if first == 0 else []
    for iteration in range(max(first, 1), last + 1):
        rows += [step(iteration)] + ([evaluation(iteration)] if iteration % 4 == 0 else [])
    return rows


def write(log, rows):
    for row in rows:
        log.write(**row)


def contents(folder, pattern="metrics*"):
    return {path.name: path.read_bytes() for path in sorted(folder.glob(pattern))}


def table(folder, kind):
    with open(folder / f"metrics-{kind}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_come_back(tmp_path):
    with MetricsLog(tmp_path) as log:
        write(log, a_run(0, 8))
        assert log.count == len(a_run(0, 8)) == 11
        assert log.rows() == a_run(0, 8)
    assert read_rows(tmp_path / "metrics.jsonl") == a_run(0, 8)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == [json.dumps(row) for row in a_run(0, 8)]


def test_tables_hold_every_number_exactly(tmp_path):
    with MetricsLog(tmp_path) as log:
        write(log, a_run(0, 8))
    for kind, key in (("steps", "train_loss"), ("evaluations", "test_accuracy")):
        expected = [row for row in a_run(0, 8) if key in row]
        found = table(tmp_path, kind)
        assert list(found[0]) == list(expected[0])
        assert [{name: float(text) for name, text in row.items()} for row in found] == expected


def test_a_table_gets_a_column_for_a_new_key_and_leaves_gaps(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(iteration=1, train_loss=0.5)
        log.write(iteration=2, train_loss=0.25, grad_norm=None)
        log.write(iteration=3, grad_norm=2.0, note='says "a, b"')
    assert (tmp_path / "metrics-steps.csv").read_text() == (
        'iteration,train_loss,grad_norm,note\n1,0.5,,\n2,0.25,,\n3,,2.0,"says ""a, b"""\n'
    )
    assert not (tmp_path / "metrics-evaluations.csv").exists()


def test_a_row_can_be_read_while_the_log_is_open(tmp_path):
    with MetricsLog(tmp_path) as log:
        for iteration in range(1, 4):
            log.write(**step(iteration))
            assert read_rows(tmp_path / "metrics.jsonl")[-1] == step(iteration)
            assert table(tmp_path, "steps")[-1]["iteration"] == str(iteration)


def test_numbers_of_numpy(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(iteration=np.int64(3), train_loss=np.float32(0.1), accuracy=np.float64(0.1), done=np.True_)
    assert log.rows() == [{"iteration": 3, "train_loss": float(np.float32(0.1)), "accuracy": 0.1, "done": True}]


def test_a_new_log_removes_the_rows_of_another(tmp_path):
    with MetricsLog(tmp_path) as log:
        write(log, a_run(0, 8))
    with MetricsLog(tmp_path) as log:
        assert log.count == 0 and contents(tmp_path) == {"metrics.jsonl": b""}
        log.write(**step(1))
    assert read_rows(tmp_path / "metrics.jsonl") == [step(1)]


def test_without_tables(tmp_path):
    with MetricsLog(tmp_path, csv=False) as log:
        write(log, a_run(0, 4))
    assert list(contents(tmp_path)) == ["metrics.jsonl"]
    with MetricsLog(tmp_path, resume=True) as log:
        write(log, a_run(5, 8))
    assert [int(row["iteration"]) for row in table(tmp_path, "steps")] == list(range(1, 9))


@pytest.mark.parametrize("iteration", [0, 3, 4, 7, 10])
def test_a_log_that_was_rewound_ends_as_one_that_was_not(tmp_path, iteration):
    for name in ("straight", "resumed"):
        (tmp_path / name).mkdir()
    with MetricsLog(tmp_path / "straight") as log:
        write(log, a_run(0, 12))
    with MetricsLog(tmp_path / "resumed") as log:
        write(log, a_run(0, 10))
    with MetricsLog(tmp_path / "resumed", resume=True) as log:
        log.rewind(iteration)
        assert log.rows() == a_run(0, iteration) and log.count == len(a_run(0, iteration))
        write(log, a_run(iteration + 1, 12))
        assert log.count == len(a_run(0, 12))
    assert contents(tmp_path / "resumed") == contents(tmp_path / "straight")
    assert len(contents(tmp_path / "resumed")) == 3


def test_rewinding_to_a_number_of_rows_tells_the_evaluation_from_the_step(tmp_path):
    rows = a_run(0, 12)
    with MetricsLog(tmp_path) as log:
        write(log, rows)
        for count in (len(rows), 6, 5, 1, 0):
            log.rewind(count=count)
            assert log.rows() == rows[:count] and log.count == count
            evaluations = sum("test_accuracy" in row for row in rows[:count])
            for kind, expected in (("evaluations", evaluations), ("steps", count - evaluations)):
                assert (tmp_path / f"metrics-{kind}.csv").exists() == (expected > 0)
                assert expected == 0 or len(table(tmp_path, kind)) == expected
        write(log, rows)
    assert log.rows() == rows


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_torn_last_line_is_no_row(tmp_path, cut):
    with MetricsLog(tmp_path) as log:
        write(log, a_run(0, 4))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-cut])
    assert read_rows(tmp_path / "metrics.jsonl") == a_run(0, 4)[:-1]
    with MetricsLog(tmp_path, resume=True) as log:
        assert log.rows() == a_run(0, 4)[:-1]
        assert table(tmp_path, "evaluations") == [{"iteration": "0", "epoch": "0", "test_accuracy": "0.0"}]
        log.write(**evaluation(4))
    assert log.rows() == a_run(0, 4)


def test_zeros_at_the_end_are_a_torn_line(tmp_path):
    with MetricsLog(tmp_path) as log:
        write(log, a_run(0, 3))
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(bytes(100))
    with MetricsLog(tmp_path, resume=True) as log:
        log.write(**step(4))
    assert log.rows() == a_run(0, 3) + [step(4)]


@pytest.mark.parametrize(
    "line, message",
    [
        (b"{iteration: 3}", "line 2: not JSON"),
        (b"\xff\xfe", "line 2: not JSON"),
        (b"", "line 2: not JSON"),
        (b"[1]", "line 2: a row must be an object with an integer iteration, got .1"),
        (b'{"train_loss": 1.0}', "line 2: a row must be an object with an integer iteration"),
        (b'{"iteration": true}', "line 2: a row must be"),
    ],
    ids=["not json", "not utf-8", "empty", "no object", "no iteration", "bool"],
)
def test_other_damage_is_named_and_nothing_is_changed(tmp_path, line, message):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"iteration": 1}\n' + line + b'\n{"iteration": 2}\n')
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        read_rows(path)
    with pytest.raises(ValueError, match=f"metrics.jsonl, {message}"):
        MetricsLog(tmp_path, resume=True)
    assert path.read_bytes() == before


def test_there_may_be_nothing_to_resume(tmp_path):
    with MetricsLog(tmp_path, resume=True) as log:
        log.rewind(5)
        assert log.rows() == [] and log.count == 0
    with pytest.raises(FileNotFoundError):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(FileNotFoundError):
        MetricsLog(tmp_path / "none")


@pytest.mark.parametrize(
    "row, error, message",
    [
        ({"train_loss": 1.0}, TypeError, "iteration must be an integer, got None"),
        ({"iteration": 2.0}, TypeError, "iteration must be an integer, got 2.0"),
        ({"iteration": True}, TypeError, "iteration must be an integer, got True"),
        ({"iteration": 1}, ValueError, "iteration must be at least that of the row before, 2, got 1"),
        ({"iteration": 3, "spikes": np.zeros(3)}, TypeError, "not JSON serializable"),
    ],
    ids=["missing", "float", "bool", "earlier", "array"],
)
def test_a_bad_row_is_refused_whole(tmp_path, row, error, message):
    with MetricsLog(tmp_path) as log:
        log.write(**step(2))
        before = contents(tmp_path)
        with pytest.raises(error, match=message):
            log.write(**row)
        assert contents(tmp_path) == before and log.count == 1


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({}, TypeError, "rewind takes an iteration or a count"),
        ({"iteration": 1, "count": 1}, TypeError, "rewind takes an iteration or a count"),
        ({"iteration": 1.0}, TypeError, "rewind takes an iteration or a count"),
        ({"count": 4}, ValueError, "must hold the first 4 rows of this run, found 3 rows"),
        ({"count": -1}, ValueError, "must hold the first -1 rows"),
    ],
    ids=["none", "both", "float", "too many", "negative"],
)
def test_a_bad_place_to_rewind_to(tmp_path, arguments, error, message):
    with MetricsLog(tmp_path) as log:
        write(log, [step(1), step(2), step(3)])
        with pytest.raises(error, match=message):
            log.rewind(**arguments)
        assert log.count == len(log.rows()) == 3


class FullDisk:
    """A file that takes some bytes and then no more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        if self.room == 0:
            raise OSError(28, "No space left on device")
        written = self.file.write(bytes(data[: self.room]))
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 1, 40])
def test_a_full_disk_leaves_no_part_of_a_row(tmp_path, room):
    with MetricsLog(tmp_path, csv=False) as log:
        log.write(**step(1))
        file, log._file = log._file, FullDisk(log._file, room)
        with pytest.raises(OSError, match="No space left"):
            log.write(**step(2))
        log._file = file
        assert contents(tmp_path)["metrics.jsonl"].endswith(b"}\n") and log.rows() == [step(1)]
        log.write(**step(3))
    assert log.rows() == [step(1), step(3)]


def test_a_row_that_is_written_in_pieces_is_whole(tmp_path):
    class Slow(FullDisk):
        def write(self, data):
            return self.file.write(bytes(data[:5]))

    with MetricsLog(tmp_path) as log:
        log._file = Slow(log._file, 0)
        write(log, a_run(0, 5))
    assert log.rows() == a_run(0, 5)


WRITER = """
import itertools, sys
from spikeflow.logs import MetricsLog
assert "numba" not in sys.modules
log = MetricsLog(sys.argv[1])
for iteration in itertools.count(1):
    log.write(iteration=iteration, epoch=0, train_loss=1 / iteration)
"""


def test_a_killed_writer_leaves_whole_rows(tmp_path):
    for trial in range(3):
        folder = tmp_path / str(trial)
        folder.mkdir()
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)])
        deadline = time.monotonic() + 60
        while not (folder / "metrics-steps.csv").exists() or (folder / "metrics.jsonl").stat().st_size < 10_000:
            assert writer.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        writer.kill()
        writer.wait()
        with MetricsLog(folder, resume=True) as log:
            rows = log.rows()
            assert rows == [{"iteration": k, "epoch": 0, "train_loss": 1 / k} for k in range(1, len(rows) + 1)]
            assert len(table(folder, "steps")) == len(rows) > 100


def test_sync_flushes_the_rows_to_disk(tmp_path, monkeypatch):
    flushed = []
    with MetricsLog(tmp_path) as log:
        monkeypatch.setattr(logs.os, "fsync", lambda descriptor: flushed.append(descriptor))
        log.sync()
        assert flushed == [log._file.fileno()]


def test_two_thousand_rows_leave_nothing_open(tmp_path):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not list open files")
    with MetricsLog(tmp_path) as log:
        log.write(**step(0))
        before = len(os.listdir("/proc/self/fd"))
        for iteration in range(1, 2001):
            log.write(**step(iteration))
        assert len(os.listdir("/proc/self/fd")) == before
        assert len(os.listdir(tmp_path)) == 2
    assert log.count == 2001


# ------------------------------------------------------------------------------------------------ TensorBoard


def records(path):
    """The events of a file, read as TensorBoard does: length, its checksum, data, its checksum."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    data, events = path.read_bytes(), []
    while data:
        (length,), (header_sum,) = struct.unpack("<Q", data[:8]), struct.unpack("<I", data[8:12])
        body, (body_sum,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
        assert header_sum == masked_crc32c(data[:8]) and body_sum == masked_crc32c(body)
        events.append(Event.FromString(body))
        data = data[16 + length :]
    return events


def scalars(folder):
    """-> {tag: {step: value}}, a later session taking the place of what an earlier one said from its first step on."""
    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        events = records(path)
        assert events[0].file_version == "brain.Event:2" and events[1].session_log.status == 1
        for event in events[1:]:
            if event.HasField("session_log"):
                found = {tag: {k: v for k, v in values.items() if k < event.step} for tag, values in found.items()}
            for value in event.summary.value:
                assert value.WhichOneof("value") == "simple_value"
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def expected_scalars(last):
    rows = a_run(0, last)
    tags = {"step/train_loss": "train_loss", "step/seconds": "seconds", "evaluation/test_accuracy": "test_accuracy"}
    return {tag: {row["iteration"]: np.float32(row[key]) for row in rows if key in row} for tag, key in tags.items()}


def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboardX")
    with MetricsLog(tmp_path, tensorboard=True) as log:
        write(log, a_run(0, 9))
    assert scalars(tmp_path) == expected_scalars(9)
    assert log.rows() == a_run(0, 9)


def test_tensorboard_has_all_steps_that_were_synced(tmp_path):
    pytest.importorskip("tensorboardX")
    with MetricsLog(tmp_path, tensorboard=True) as log:
        write(log, a_run(0, 7))
        log.sync()
        assert scalars(tmp_path) == expected_scalars(7)


def test_tensorboard_forgets_what_a_resumed_run_takes_back(tmp_path):
    pytest.importorskip("tensorboardX")
    with MetricsLog(tmp_path, tensorboard=True) as log:
        write(log, a_run(0, 6))
        for iteration in (7, 8):
            log.write(iteration=iteration, train_loss=-1.0, taken_back=1.0)
    with MetricsLog(tmp_path, tensorboard=True, resume=True) as log:
        log.rewind(6)
        write(log, a_run(7, 12))
    assert len(list(tmp_path.glob("events*"))) == 2
    assert scalars(tmp_path) == {"step/taken_back": {}, **expected_scalars(12)}


def test_without_tensorboardx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(RuntimeError, match=r"need tensorboardX: pip install 'spikeflow\[tensorboard\]'"):
        MetricsLog(tmp_path, tensorboard=True)
    assert list(tmp_path.iterdir()) == []
