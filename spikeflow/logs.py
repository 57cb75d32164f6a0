"""Logs of a training run: a row for each step and each evaluation, as JSON, as tables, and for TensorBoard.

``metrics.jsonl`` holds all rows, one JSON object a line. Everything else follows from it: ``metrics-steps.csv`` and
``metrics-evaluations.csv``, a row being an evaluation if it has a ``test_accuracy``, and TensorBoard's event files.

A row is on its way to the disk when ``write`` returns, so that a killed process leaves all of its rows, the last of them torn at
worst; a torn row is left out wherever rows are read. A run that goes on from a checkpoint first drops the rows behind it:

    log = MetricsLog(folder, resume=True)
    log.rewind(iteration)

Neither Numba nor any other module of the engine is needed here.
"""

from __future__ import annotations

import csv as tables
import io
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from .files import atomic_write

__all__ = ["ROWS", "MetricsLog", "read_rows"]

ROWS = "metrics.jsonl"
EVALUATION = "test_accuracy"  # what makes a row an evaluation
KINDS = ("steps", "evaluations")
FLUSH = 5.0  # seconds after which TensorBoard sees a step


class MetricsLog:
    """The log of one run, in its folder.

    Parameters
    ----------
    folder : str or path-like
        Must exist.
    csv : bool
        Write the two tables as well. Without it, tables of an earlier log are left as they are.
    tensorboard : bool
        Write TensorBoard's event files as well, into the same folder; values are called ``step/KEY`` and ``evaluation/KEY``.
    resume : bool
        Go on behind the rows that the folder holds; otherwise they are removed.

    Attributes
    ----------
    count : int
        Number of rows.

    Raises
    ------
    RuntimeError
        ``tensorboard`` without tensorboardX.
    ValueError
        ``resume``, and ``metrics.jsonl`` is damaged otherwise than by a torn last line.
    OSError
        A file cannot be opened.
    """

    def __init__(self, folder: str | os.PathLike, csv: bool = True, tensorboard: bool = False, resume: bool = False):
        self.folder = Path(folder)
        self._events = _Events(self.folder) if tensorboard else None
        self._tables = {kind: _Table(self.folder / f"metrics-{kind}.csv") for kind in KINDS} if csv else {}
        found = _read(self.folder / ROWS) if resume and (self.folder / ROWS).exists() else []
        self._file = open(self.folder / ROWS, "ab", buffering=0)
        self._begin(found)

    def write(self, **row: Any) -> None:
        """Add a row.

        Parameters
        ----------
        **row
            ``iteration``, an integer no less than that of the row before, and whatever else JSON can hold.

        Raises
        ------
        TypeError, ValueError
            There is no such iteration, or JSON cannot hold a value; nothing is written.
        OSError
            The disk is full, for instance; the row is not in ``metrics.jsonl``, or it is whole.
        """
        row = {key: value.item() if isinstance(value, np.generic) else value for key, value in row.items()}
        if not _is_whole(row.get("iteration")):
            raise TypeError(f"iteration must be an integer, got {row.get('iteration')!r}")
        if row["iteration"] < self._iteration:
            raise ValueError(f"iteration must be at least that of the row before, {self._iteration}, got {row['iteration']}")
        _append(self._file, (json.dumps(row) + "\n").encode())
        self.count, self._iteration = self.count + 1, row["iteration"]
        table = self._tables.get(_kind(row))
        if table is not None and not table.add(row):
            table.rewrite([other for other in self.rows() if _kind(other) == _kind(row)])
        if self._events is not None:
            self._events.write(row)

    def rows(self) -> list[dict[str, Any]]:
        """-> all rows, in order."""
        return read_rows(self.folder / ROWS)

    def rewind(self, iteration: int | None = None, *, count: int | None = None) -> None:
        """Drop the rows behind an iteration, or all but the first ``count``.

        ``count`` tells apart what the iteration does not: whether its evaluation had been written.

        Raises
        ------
        TypeError
            Neither or both are given, or no integer.
        ValueError
            There are not so many rows.
        """
        given = [value for value in (iteration, count) if value is not None]
        if len(given) != 1 or not _is_whole(given[0]):
            raise TypeError(f"rewind takes an iteration or a count, an integer; got {iteration!r} and {count!r}")
        found = _read(self.folder / ROWS)
        if count is None:
            count = sum(row["iteration"] <= iteration for row, _ in found)
        if not 0 <= count <= len(found):
            raise ValueError(f"{self.folder / ROWS} must hold the first {count} rows of this run, found {len(found)} rows")
        self._begin(found[:count])

    def sync(self) -> None:
        """Have all rows on the disk when this returns: a checkpoint that is saved next never lacks rows before it."""
        os.fsync(self._file.fileno())
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Close all files; a closed log cannot be written to."""
        for part in (self._file, *self._tables.values(), self._events):
            if part is not None:
                part.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _begin(self, found: list[tuple[dict[str, Any], int]]) -> None:
        """Leave these rows, which end where they say, and go on behind them."""
        self._file.truncate(found[-1][1] if found else 0)
        self.count = len(found)
        self._iteration = found[-1][0]["iteration"] if found else 0
        for kind, table in self._tables.items():
            table.rewrite([row for row, _ in found if _kind(row) == kind])
        if self._events is not None:
            self._events.begin(self._iteration + 1 if found else 0)


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Read a ``metrics.jsonl``, but for a last line that a killed process has left torn.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        A line is not a row; the file and the line are named.
    """
    return [row for row, _ in _read(Path(path))]


def _read(path: Path) -> list[tuple[dict[str, Any], int]]:
    """-> each row, and where its line ends."""
    found, end = [], 0
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):  # what follows the last line's end is torn, or empty
        end += len(line) + 1
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict) or not _is_whole(row.get("iteration")):
            raise ValueError(f"{path}, line {number}: a row must be an object with an integer iteration, got {row!r:.80}")
        found.append((row, end))
    return found


def _kind(row: dict[str, Any]) -> str:
    return KINDS[EVALUATION in row]


def _is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _append(file: io.FileIO, data: bytes) -> None:
    """Write all of ``data`` or, if that fails, nothing: a part of a line would spoil the next."""
    end = file.seek(0, os.SEEK_END)
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except BaseException:
        file.truncate(end)
        raise


class _Table:
    """Rows as a CSV file, whose columns are the keys in the order in which rows brought them."""

    def __init__(self, path: Path):
        self.path, self.columns = path, ()
        self.file: io.FileIO | None = None

    def add(self, row: dict[str, Any]) -> bool:
        """Write one row; -> False if it does not fit the columns."""
        if self.file is None or not set(row) <= set(self.columns):
            return False
        _append(self.file, self._text([row]))
        return True

    def rewrite(self, rows: list[dict[str, Any]]) -> None:
        """Write the whole file anew, with a column for each key; no file if there are no rows."""
        self.close()
        self.columns = tuple(dict.fromkeys(itertools.chain.from_iterable(rows)))
        if not rows:
            self.path.unlink(missing_ok=True)
            return
        with atomic_write(self.path) as file:
            file.write(self._text([dict(zip(self.columns, self.columns, strict=True)), *rows]))
        self.file = open(self.path, "ab", buffering=0)

    def _text(self, rows: list[dict[str, Any]]) -> bytes:
        text = io.StringIO()
        tables.DictWriter(text, self.columns, lineterminator="\n").writerows(rows)
        return text.getvalue().encode()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


class _Events:
    """Event files for TensorBoard. Its ``SummaryWriter`` writes from a thread, which a kill leaves behind; this does not."""

    def __init__(self, folder: Path):
        try:
            from tensorboardX import event_file_writer, proto, summary
            from tensorboardX.proto import event_pb2  # noqa: F401  makes it an attribute of proto
        except ImportError as error:
            raise RuntimeError("TensorBoard's files need tensorboardX: pip install 'spikeflow[tensorboard]'") from error
        self.make_writer, self.proto, self.scalar = event_file_writer.EventsWriter, proto.event_pb2, summary.scalar
        self.folder, self.writer, self.step, self.flushed = folder, None, 0, 0.0

    def begin(self, step: int) -> None:
        """Go on in a new file, after which TensorBoard forgets what older ones in the folder say of ``step`` and later."""
        self.close()
        self.step = step

    def write(self, row: dict[str, Any]) -> None:
        """Add the numbers of a row."""
        if self.writer is None:
            self._open()
        event = self.proto.Event(wall_time=time.time(), step=row["iteration"])
        for key, value in row.items():
            if key not in ("iteration", "epoch") and isinstance(value, (int, float)):
                event.summary.value.extend(self.scalar(f"{_kind(row)[:-1]}/{key}", value).value)
        self.writer.write_event(event)
        if EVALUATION in row or time.monotonic() - self.flushed >= FLUSH:
            self.flush()

    def _open(self) -> None:
        # tensorboardX's part of the name has whole seconds alone, and it overwrites an older file of the same name.
        self.writer = self.make_writer(str(self.folder / "events"), f".{time.time_ns()}")
        start = self.proto.SessionLog(status=self.proto.SessionLog.START)
        self.writer.write_event(self.proto.Event(wall_time=time.time(), step=self.step, session_log=start))

    def flush(self) -> None:
        if self.writer is not None:
            self.writer.flush()
            self.flushed = time.monotonic()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
