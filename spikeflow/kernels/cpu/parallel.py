"""The only place that knows about threads.

Kernels are serial and release the GIL; the caller and a pool of plain Python threads run them side by side, each on its own
samples. What a task computes never depends on how many threads there are, so neither does a result. The pool is made at its first
use, and again in a forked child, where the parent's threads do not exist.

Linux wakes a pool's threads where they slept, and may leave two of them on one core for tens of milliseconds, as long as a whole
training step. So a thread is bound to one core for as long as a task of some milliseconds takes, and one that finds itself on the
core of another takes a core that none of the pool is on. Moving it without binding it does not help: a thread that has waited for
the interpreter's lock is woken on the core of whoever released it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["at_most", "executed_by", "get_num_threads", "run", "set_num_threads"]


def _available() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_num_threads = _available()
_pool: ThreadPoolExecutor | None = None
_lock = threading.Lock()


class _Inside(threading.local):
    """What ``run`` knows of a thread."""

    def __init__(self):
        self.task = False  # does it work on tasks: one of the pool, or a caller that takes part?
        self.most: int | None = None  # threads that its runs use at most
        self.execute: Callable | None = None  # what takes the place of ``run``


_inside = _Inside()


def set_num_threads(number: int) -> None:
    """Use ``number`` threads from now on, by default as many as this process may use cores. Results do not depend on it."""
    global _num_threads, _pool
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"number of threads must be an integer of at least 1, got {number!r}")
    with _lock:
        if number != _num_threads and _pool is not None:
            _pool.shutdown(wait=False)
            _pool = None
        _num_threads = number


def get_num_threads() -> int:
    """The number of threads in use."""
    return _num_threads


def run(task: Callable[[int], object], count: int) -> list:
    """-> [task(0), ..., task(count - 1)], computed in any order; the first exception, if any, is raised.

    A task that calls ``run`` itself computes its part alone: the other threads may all be waiting already.
    """
    global _pool
    if _inside.execute is not None:
        return _inside.execute(task, count)
    threads = min(_num_threads, count, _inside.most or count)
    if threads <= 1 or _inside.task:
        return [task(i) for i in range(count)]
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_num_threads - 1, thread_name_prefix="spikeflow", initializer=_mark)
        queue = _Queue(task, count)
        work = _Places().spread(lambda _: queue.work())
        # Handed over under the lock: the pool may be replaced afterwards.
        others = _pool.map(work, range(threads - 1))
    _inside.task = True
    try:
        work(None)  # at once: the others have to be woken up
    finally:
        _inside.task = False
    list(others)
    return queue.finish()


@contextlib.contextmanager
def at_most(number: int | None):
    """Within, a ``run`` of this thread uses no more threads than that; None sets no limit."""
    outer, _inside.most = _inside.most, number
    try:
        yield
    finally:
        _inside.most = outer


@contextlib.contextmanager
def executed_by(execute: Callable[[Callable[[int], object], int], list]):
    """Within, ``execute(task, count)`` takes the place of ``run`` on this thread."""
    outer, _inside.execute = _inside.execute, execute
    try:
        yield
    finally:
        _inside.execute = outer


class _Queue:
    """Tasks that threads take one after the other: to hand each over by itself costs as much as a small task takes."""

    def __init__(self, task: Callable[[int], object], count: int):
        self.task, self.results, self.failures = task, [None] * count, {}
        self.waiting, self.lock = iter(range(count)), threading.Lock()

    def work(self) -> None:
        """Take tasks until there are none, or one has failed."""
        while not self.failures:
            with self.lock:
                i = next(self.waiting, None)
            if i is None:
                return
            try:
                self.results[i] = self.task(i)
            except BaseException as error:
                self.failures[i] = error

    def finish(self) -> list:
        """-> the results in order; the first failure is raised."""
        if self.failures:
            raise self.failures[min(self.failures)]
        return self.results


def _mark() -> None:
    _inside.task = True


class _Places:
    """On which core each thread of a ``run`` works."""

    def __init__(self):
        self.cores = {}  # thread -> core
        self.lock = threading.Lock()

    def spread(self, task: Callable[[int], object]) -> Callable[[int], object]:
        """-> ``task`` bound to a core of its own, where the system tells cores and there are enough of them."""
        if _current_core is None:
            return task

        def on_own_core(i):
            allowed = os.sched_getaffinity(0)  # of this thread alone
            with contextlib.suppress(OSError):  # a sandbox may forbid it: then the system decides
                os.sched_setaffinity(0, {self._choose(allowed)})
            try:
                return task(i)
            finally:
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(0, allowed)

        return on_own_core

    def _choose(self, allowed: set[int]) -> int:
        me, core = threading.get_ident(), _current_core()
        with self.lock:
            others = {place for thread, place in self.cores.items() if thread != me}
            if core in others:
                core = next(iter(allowed - others), core)
            self.cores[me] = core
        return core


def _find_current_core() -> Callable[[], int] | None:
    """-> the C library's sched_getcpu, or None where there is none."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    return getattr(ctypes.CDLL(None), "sched_getcpu", None)


_current_core = _find_current_core()


def _after_fork() -> None:
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
