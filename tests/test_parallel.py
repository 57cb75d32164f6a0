from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest

import spikeflow as sf
from spikeflow.kernels.cpu import parallel


@pytest.fixture(autouse=True)
def restore_threads():
    before = parallel.get_num_threads()
    yield
    parallel.set_num_threads(before)


@pytest.mark.parametrize("number", [0, -1, 1.0, "2", None, True], ids=repr)
def test_bad_number_of_threads(number):
    before = sf.get_num_threads()
    with pytest.raises(ValueError, match="number of threads must be an integer of at least 1, got"):
        sf.set_num_threads(number)
    assert sf.get_num_threads() == before


@pytest.mark.parametrize("number", [1, 2, 5])
def test_number_of_threads(number):
    sf.set_num_threads(number)
    assert sf.get_num_threads() == number


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_by_default_as_many_threads_as_cores_are_allowed():
    core = min(os.sched_getaffinity(0))
    script = f"import os; os.sched_setaffinity(0, {{{core}}}); import spikeflow; print(spikeflow.get_num_threads())"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_results_lie_in_the_order_of_the_tasks(threads, count):
    parallel.set_num_threads(threads)
    last = threading.Event()

    def task(i):
        if threads > 1 and count > 1 and i == 0:
            last.wait(60)  # the first task ends after the second
        if i == 1:
            last.set()
        return i * i

    assert parallel.run(task, count) == [i * i for i in range(count)]


@pytest.mark.parametrize("threads", [2, 3])
def test_tasks_run_side_by_side(threads):
    parallel.set_num_threads(threads)
    meeting = threading.Barrier(threads, timeout=60)  # passed only if all are in flight at once; or else no hang
    names = parallel.run(lambda i: (meeting.wait(), threading.current_thread().name)[1], threads)
    pool = [name for name in names if name != threading.current_thread().name]
    assert len(set(names)) == threads and len(pool) == threads - 1 and all(name.startswith("spikeflow") for name in pool)


@pytest.mark.parametrize("count", [1, 5])
def test_one_thread_is_the_callers_own(count):
    parallel.set_num_threads(1)
    assert set(parallel.run(lambda i: threading.current_thread(), count)) == {threading.current_thread()}


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_an_exception_reaches_the_caller_and_the_pool_lives_on(threads):
    parallel.set_num_threads(threads)

    def task(i):
        if i in (3, 5):
            raise KeyError(i)
        return i

    with pytest.raises(KeyError) as caught:
        parallel.run(task, 8)
    assert caught.value.args == (3,)
    assert parallel.run(lambda i: i, 8) == list(range(8))


def test_another_number_of_threads_takes_effect_at_once():
    for number in (4, 2):
        parallel.set_num_threads(number)
        meeting = threading.Barrier(number, timeout=60)
        parallel.run(lambda i: meeting.wait(), number)  # noqa: B023 - run waits for its tasks
        names = parallel.run(lambda i: threading.current_thread().name, 100)
        assert len(set(names)) <= number


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_makes_a_pool_of_its_own():
    parallel.set_num_threads(2)
    parallel.run(lambda i: i, 4)  # the parent's pool exists
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: fork beside threads
        child = os.fork()
    if child == 0:
        signal.alarm(60)  # a child that waits for its parent's threads ends too
        status = 1
        try:
            status = 0 if parallel.run(lambda i: i * i, 4) == [0, 1, 4, 9] else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert parallel.run(lambda i: i, 4) == list(range(4))


# ---------------------------------------------------------------------------------------------- cores

affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")


class Cores:
    """In place of the system: every thread may use ``allowed``, and finds itself on core ``where``."""

    def __init__(self, allowed, where=0):
        self.allowed, self.where = frozenset(allowed), where
        self.bound = {}  # thread -> cores
        self.found = []  # what a thread may use when a task comes to it

    def get(self, pid):
        cores = set(self.bound.get(threading.get_ident(), self.allowed))
        self.found.append(cores)
        return cores

    def set(self, pid, cores):
        self.bound[threading.get_ident()] = set(cores)

    def mine(self):
        return self.bound[threading.get_ident()]


@pytest.fixture
def cores(monkeypatch):
    def install(allowed):
        system = Cores(allowed)
        monkeypatch.setattr(os, "sched_getaffinity", system.get)
        monkeypatch.setattr(os, "sched_setaffinity", system.set)
        monkeypatch.setattr(parallel, "_current_core", lambda: system.where)
        return system

    return install


def meet(threads, task):
    """``task()`` on each of that many threads, all in flight at once."""
    meeting = threading.Barrier(threads, timeout=60)
    return parallel.run(lambda i: (meeting.wait(), task())[1], threads)


@affinity
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_that_start_on_one_core_work_on_cores_of_their_own(cores, threads):
    system = cores({0, 1, 5})
    parallel.set_num_threads(threads)
    for _ in range(3):
        places = meet(threads, system.mine)
        assert all(len(place) == 1 for place in places) and len(set.union(*places)) == threads
    assert set.union(*places) <= {0, 1, 5} and {0} in places


@affinity
def test_a_thread_alone_on_its_core_stays_there(cores, monkeypatch):
    system = cores({0, 1})
    parallel.set_num_threads(2)
    turns = iter([0, 1])
    monkeypatch.setattr(parallel, "_current_core", lambda: next(turns))
    assert sorted(map(min, meet(2, system.mine))) == [0, 1]


@affinity
def test_a_thread_keeps_its_core_from_task_to_task(cores, monkeypatch):
    system, places = cores({0, 1, 5}), {}
    monkeypatch.setattr(parallel, "_current_core", lambda: min(places.get(threading.get_ident(), {0})))
    parallel.set_num_threads(2)
    meeting = threading.Barrier(2, timeout=60)

    def task(i):
        meeting.wait()
        return places.setdefault(threading.get_ident(), set(system.mine())) == system.mine()

    assert parallel.run(task, 8) == [True] * 8
    assert len(places) == len(set.union(*places.values())) == 2


@affinity
def test_with_fewer_cores_than_threads_all_work(cores):
    system = cores({0})
    parallel.set_num_threads(3)
    assert meet(3, system.mine) == [{0}] * 3


@affinity
@pytest.mark.parametrize("raises", [False, True], ids=["returns", "raises"])
def test_a_thread_is_free_again_after_its_task(cores, raises):
    system = cores({0, 1})
    parallel.set_num_threads(2)

    def task():
        if raises:
            raise KeyError
        return system.mine()

    if raises:
        with pytest.raises(KeyError):
            meet(2, task)
    else:
        assert sorted(map(min, meet(2, task))) == [0, 1]
    meet(2, system.mine)
    assert system.found == [{0, 1}] * 4


@affinity
def test_where_the_system_does_not_tell_cores_no_thread_is_bound(cores, monkeypatch):
    system = cores({0, 1})
    monkeypatch.setattr(parallel, "_current_core", None)
    parallel.set_num_threads(2)
    assert meet(2, lambda: 7) == [7, 7] and not system.bound and not system.found


@pytest.mark.skipif(parallel._current_core is None, reason="this system does not tell cores")
def test_a_thread_is_bound_to_the_core_it_runs_on():
    parallel.set_num_threads(2)
    allowed = os.sched_getaffinity(0)
    places = meet(2, lambda: (os.sched_getaffinity(0), parallel._current_core()))
    assert all(bound == {core} and bound <= allowed for bound, core in places)
    assert len(set.union(*(bound for bound, _ in places))) == min(2, len(allowed))
    assert parallel._pool.submit(os.sched_getaffinity, 0).result() == allowed == os.sched_getaffinity(0)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not let a thread choose its core")
def test_where_binding_is_forbidden_tasks_run_all_the_same(monkeypatch):
    def refuse(thread, cores):
        raise PermissionError("not here")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    assert parallel._Places().spread(lambda i: i + 1)(1) == 2


@pytest.mark.parametrize(("most", "expected"), [(1, 1), (2, 2), (None, 4)])
def test_no_more_threads_than_asked_for(most, expected):
    parallel.set_num_threads(4)
    together, threads = threading.Barrier(expected, timeout=20), []

    def task(i):
        together.wait()  # passes when so many threads are at work
        threads.append(threading.get_ident())
        return i

    with parallel.at_most(most):
        assert parallel.run(task, 8) == list(range(8))
    assert len(set(threads)) == expected


def test_another_way_to_execute_tasks_is_this_threads_alone():
    parallel.set_num_threads(3)
    with parallel.executed_by(lambda task, count: [-task(i) for i in range(count)]):
        assert parallel.run(lambda i: i, 3) == [0, -1, -2]
        elsewhere = []
        thread = threading.Thread(target=lambda: elsewhere.extend(parallel.run(lambda i: i, 3)))
        thread.start()
        thread.join()
    assert elsewhere == parallel.run(lambda i: i, 3) == [0, 1, 2]
