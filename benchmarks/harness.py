"""What all benchmarks share: a clean environment, taking turns, child processes, tables, JSON.

Import this module before anything that loads NumPy. OpenBLAS reads its variables when the library is loaded, and a
CORETYPE or L2_SIZE that somebody exported for other reasons would slow down whoever multiplies matrices with it.
Importing this module removes them, for this process and for its children, and refuses if NumPy came first.

Timings that are compared take turns (A B C A B C ...), so that a slow minute of the machine hits all of them alike. A
library that should not share a process with spikeflow runs in a ``Worker``: a child of another interpreter that stays
alive and is told over a pipe what to do next.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Collection, Hashable, Sequence
from pathlib import Path
from typing import Any

if "numpy" in sys.modules:
    raise ImportError("import harness before numpy: OpenBLAS reads its environment variables when it is loaded")

OPENBLAS = {name: os.environ.pop(name, None) for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
PACKAGES = (
    "spikeflow", "numpy", "numba", "llvmlite", "scipy", "torch", "snntorch", "spikingjelly", "jax", "jaxlib",
)  # fmt: skip
PAUSE = 0.25  # seconds between two turns: OpenMP's threads may spin for a while after their last loop
MEGABYTE = 2**20
LOSS_TOLERANCE = 1e-3

# ---------------------------------------------------------------------------------------------------- environment


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(threads: int) -> dict[str, Any]:
    """What a reader needs to know about where the numbers come from."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": available_cores(),
        "threads": threads,
        "load": "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg()),
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := package_version(name))},
        "openblas": {k: "not set" if v is None else f"unset for this run (was {v})" for k, v in OPENBLAS.items()},
    }


def package_version(name: str) -> str | None:
    """The installed version, without importing the package; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def peak_rss() -> float:
    """The most memory that this process has held so far, in MB.

    VmHWM where there is one: ru_maxrss survives exec, so that a child would report its parent's peak.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / MEGABYTE


# ---------------------------------------------------------------------------------------------------- taking turns


def alternate(candidates: dict[Hashable, Callable], rounds: int, steps: int = 3) -> dict[Hashable, list[float]]:
    """Run the candidates in turn, ``rounds`` times after one warm-up each -> {name: seconds of every round}.

    A turn is ``steps`` runs, of which the median counts: training takes one step after the other, and the first one after
    somebody else's turn would pay for the caches that the other has emptied.

    A candidate may return the seconds it took, if it knows better than a clock around the call: a worker leaves out the
    pipe, and whatever restores weights leaves that out. Anything that is not a float is ignored.
    """
    for run in candidates.values():
        run()
    seconds = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            time.sleep(PAUSE)
            seconds[name].append(statistics.median(_seconds(run) for _ in range(steps)))
    return seconds


def _seconds(run: Callable) -> float:
    start = time.perf_counter()
    measured = run()
    elapsed = time.perf_counter() - start
    return measured if isinstance(measured, float) else elapsed


def timed(function: Callable, *args) -> tuple[float, Any]:
    """-> the seconds that ``function(*args)`` took, and what it returned."""
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


# ---------------------------------------------------------------------------------------------------- child processes


class Worker:
    """A child process: ``python`` runs ``script``, which calls ``serve`` and answers one request at a time.

    ``variables`` are added to its environment.
    """

    def __init__(self, python: str, script: Path, variables: dict[str, str] | None = None):
        self._name, self._answered = f"{script.name} with {python}", False
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process = subprocess.Popen([python, str(script)], env=os.environ | (variables or {}), **pipes)

    def ask(self, request: str, **arguments) -> Any:
        """Call the worker's function ``request`` -> what it returned; RuntimeError with its traceback if it raised."""
        with contextlib.suppress(BrokenPipeError):  # it has ended already: there will be no answer
            self._process.stdin.write(json.dumps([request, arguments]) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line and not self._answered:
            self._process.wait()
            raise SystemExit(f"{self._name} cannot run there, see above: name another interpreter with --peer-python")
        if not line:
            raise RuntimeError(f"the worker ended during {request!r}, exit status {self._process.wait()}")
        self._answered, reply = True, json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"the worker failed at {request!r}:\n{reply['error']}")
        return reply["result"]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()  # the end of its input ends the worker
        self._process.stdout.close()
        self._process.wait()


def serve(*functions: Callable) -> None:
    """Answer a ``Worker``'s requests by calling the functions of those names, until its pipe closes."""
    known = {function.__name__: function for function in functions}
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr, not among the replies
    for line in sys.stdin:
        request, arguments = json.loads(line)
        try:
            reply = {"result": known[request](**arguments)}
        except Exception:
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=replies, flush=True)


# ---------------------------------------------------------------------------------------------------- results


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """-> the rows in aligned columns, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, ["-" * width for width in widths], *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def agree(losses: dict[str, float], baseline: str = "spikeflow", not_judged: Collection[str] = ()) -> bool:
    """Print every candidate's loss -> do all that are judged agree with the baseline's? Losses above 1 relative to it."""
    expected, verdicts = losses[baseline], {}
    for name, loss in losses.items():
        close = abs(loss - expected) <= LOSS_TOLERANCE * max(1, abs(expected))
        verdicts[name] = "not judged: another neuron" if name in not_judged else "OK" if close else "FAIL"
    rows = [[name, f"{loss:.7f}", f"{loss - expected:+.1e}", verdicts[name]] for name, loss in losses.items()]
    print("\nloss of the first step, which must agree within", LOSS_TOLERANCE)
    print(table(["candidate", "loss", "difference", "verdict"], rows))
    return "FAIL" not in verdicts.values()


def timing_table(seconds: dict[str, list[float]], memory: dict[str, float], baseline: str = "spikeflow") -> str:
    """-> one row a candidate: median, minimum, the median's ratio to the baseline's, and peak memory where known."""
    reference = statistics.median(seconds[baseline])
    rows = []
    for name, values in seconds.items():
        median = statistics.median(values)
        peak = f"{memory[name]:.0f} MB" if name in memory else "-"
        rows.append([name, f"{median:.4f}", f"{min(values):.4f}", f"{median / reference:.2f}", peak])
    return table(["candidate", "median s", "min s", f"/ {baseline}", "peak RSS"], rows)


def describe(environment: dict[str, Any]) -> str:
    """-> the environment as a few lines of text."""
    lines = []
    for key, value in environment.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        lines.append(f"{key:>9}: {shown}")
    return "\n".join(lines)


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Write ``result`` to ``path``, unless that is None."""
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")
