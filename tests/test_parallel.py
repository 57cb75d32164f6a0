from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest

import spikeflow as sf
from spikeflow import parallel


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
    assert len(set(names)) == threads and all(name.startswith("spikeflow") for name in names)


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
