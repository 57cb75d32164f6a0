"""What is installed here, and what of it spikeflow can use: ``spikeflow doctor``.

Every question is asked by itself, and a broken installation is an answer: nothing here raises.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._version import __version__

__all__ = ["Diagnosis", "Finding", "examine"]

PACKAGES = ("numpy", "numba", "llvmlite", "numba-cuda", "scipy", "matplotlib", "tqdm", "tensorboardX")
# What compiles and links kernels for a card, and the wheels that bring it.
LIBRARIES = {
    "nvvm": ("NVVM", ("nvidia-nvvm", "nvidia-cuda-nvcc-cu12")),
    "nvJitLink": ("nvJitLink", ("nvidia-nvjitlink", "nvidia-nvjitlink-cu12")),
}
KERNEL_MODULE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Finding:
    """One answer.

    Attributes
    ----------
    name : str
    text : str
        A line for a person.
    facts : dict
        The same for a program, as JSON can hold it; ``"error"`` where the question could not be answered.
    """

    name: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """All answers; prints as a table."""

    findings: list[Finding]

    def __getitem__(self, name: str) -> Finding:
        return next(finding for finding in self.findings if finding.name == name)

    def facts(self) -> dict[str, dict[str, Any]]:
        """-> {name: {"text": ..., and its facts}}."""
        return {finding.name: {"text": finding.text, **finding.facts} for finding in self.findings}

    def __str__(self) -> str:
        return "\n".join(f"{finding.name:<15} {finding.text}" for finding in self.findings)


def examine() -> Diagnosis:
    """Ask everything -> the answers, a verdict last; never raises because something is broken."""
    findings = [_ask(name, question) for name, question in QUESTIONS.items()]
    return Diagnosis([*findings, _verdict(Diagnosis(findings))])


def _ask(name: str, question: Callable[[], tuple[str, dict[str, Any]]]) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Finding(name, *question())
    except Exception as error:  # loaders of half-installed libraries raise whatever they like
        text = f"{type(error).__name__}: {_first_line(error)}"
        return Finding(name, f"cannot be told: {text}", {"error": text})


def _first_line(error: Exception) -> str:
    """-> of the message, or what kind of error it is where there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


# ---------------------------------------------------------------------------------------------- Python, processor, files


def _python() -> tuple[str, dict]:
    facts = {"version": platform.python_version(), "implementation": platform.python_implementation()}
    facts["platform"] = platform.platform()
    return f"{facts['version']} ({facts['implementation']}), {facts['platform']}", facts


def _packages() -> tuple[str, dict]:
    """Versions by what pip wrote down: none is imported, since one may be broken."""
    versions = {"spikeflow": __version__, **{name: installed(name) for name in PACKAGES}}
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    missing = ", ".join(name for name, version in versions.items() if not version)
    return found + (f"; not installed: {missing}" if missing else ""), {"versions": versions}


def installed(package: str) -> str | None:
    """-> the version of a package that is installed; None if it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> tuple[str, dict]:
    import llvmlite.binding
    from numba.core import config

    from .kernels.cpu.simd import vector_lanes

    features = llvmlite.binding.get_host_cpu_features()
    facts = {"name": _processor_name(), "code_for": config.CPU_NAME or llvmlite.binding.get_host_cpu_name()}
    facts |= {"avx2": bool(features.get("avx2")), "avx512": bool(features.get("avx512f")), "vector_bytes": vector_lanes(1)}
    has = ", ".join(f"{label} {'yes' if facts[key] else 'no'}" for key, label in (("avx2", "AVX2"), ("avx512", "AVX-512")))
    return f"{facts['name']}: {has}; code for {facts['code_for']}, vectors of {facts['vector_bytes']} bytes", facts


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _threads() -> tuple[str, dict]:
    from .kernels.cpu.parallel import get_num_threads

    cores, mine = os.cpu_count() or 1, get_num_threads()
    return f"{mine} used, of {cores} cores in the machine", {"threads": mine, "cores": cores}


def _cache() -> tuple[str, dict]:
    from .kernels import jit
    from .memory import format_bytes

    facts: dict[str, Any] = {"folder": None, "problem": None, "entries": 0, "bytes": 0}
    try:
        facts["folder"] = str(jit.cache_folder())
        facts["problem"] = _cache_problem(jit)
    except OSError as error:
        facts["problem"] = _first_line(error)
    sizes = [] if facts["problem"] else [entry.stat().st_size for entry in os.scandir(facts["folder"]) if entry.is_file()]
    facts |= {"entries": len(sizes), "bytes": sum(sizes)}
    if facts["problem"]:
        return f"off, kernels are compiled in every process: {facts['problem']}", facts
    return f"{facts['folder']}: writable, {len(sizes)} kernels, {format_bytes(sum(sizes))}", facts


def _cache_problem(jit) -> str | None:
    """-> why no kernel is stored, or None; OSError if the folder is none that may hold code."""
    folder = jit._checked_folder()
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} cannot be written"
    return None if jit._symbols_are_unique else "this Numba's kernels cannot be told apart on disk"


def _data() -> tuple[str, dict]:
    from importlib.resources import files

    from .datasets.splits import file_names

    names = [name for split in ("train", "test") for name in file_names(split)]
    embedded = files("spikeflow.datasets") / "data"
    missing = [name for name in names if not (embedded / f"{name}.xz").is_file()]
    facts: dict[str, Any] = {"mnist": not missing, "fashion-mnist": _fashion_folder(names)}
    mnist = f"mnist lacks {', '.join(missing)}: install spikeflow again" if missing else "mnist embedded"
    other = facts["fashion-mnist"]
    return f"{mnist}; fashion-mnist {f'in {other}' if other else 'not here: it is downloaded when it is asked for'}", facts


def _fashion_folder(names: list[str]) -> str | None:
    """-> where all files of the data set lie, of the places that are searched."""
    fashion = importlib.import_module(".datasets.fashion_mnist", __package__)  # whose name is also its function's
    named = os.environ.get("SPIKEFLOW_DATA")
    folders = [Path(named)] if named else []
    folders += [folder for folder in (fashion._cache(), fashion.DEBIAN) if folder is not None]
    homes = (fashion._home(folder, names) for folder in folders)
    whole = (home for home in homes if home is not None and all(fashion.find_file(home, name) for name in names))
    return next((str(home) for home in whole), None)


# ---------------------------------------------------------------------------------------------- backends


def _cpu() -> tuple[str, dict]:
    """Compile a kernel, and see what it says; nothing is stored."""
    import numpy as np

    from . import backends
    from .kernels import jit

    backends.load("cpu")

    @jit.kernel(jit.UNKNOWN)
    def add_up(x):
        total = 0.0
        for i in range(x.size):
            total += x[i]
        return total

    answer = float(add_up(np.arange(5.0)))
    if answer != 10:
        raise RuntimeError(f"a kernel that adds 0 to 4 says {answer}: Numba is broken here")
    return "works: a kernel was compiled, and its answer is right", {"works": True}


def _cuda_target() -> tuple[str, dict]:
    from .kernels.cuda import gpu

    implementation, version = getattr(gpu.cuda, "implementation", None), installed("numba-cuda")
    facts = {"implementation": implementation, "simulated": gpu.SIMULATED, "numba-cuda": version}
    if gpu.SIMULATED:
        return "Numba's simulator, on the processor (NUMBA_ENABLE_CUDASIM is set): for tests, far too slow to train", facts
    if implementation == "NVIDIA":
        return f"numba-cuda {version} answers", facts
    what = "Numba's own, deprecated target answers" if implementation else "nothing answers"
    return f"{what}; the package numba-cuda is {'installed, but broken' if version else 'not installed'}", facts


def _cuda_driver() -> tuple[str, dict]:
    from .kernels.cuda import gpu

    if gpu.SIMULATED:
        return "not asked: the simulator needs none", {"version": None, "problem": None}
    module = _kernel_module()
    if (problem := gpu.driver_problem()) is not None:
        return problem, {"version": None, "kernel_module": module, "problem": problem}
    from numba.cuda.cudadrv.driver import driver

    version = list(driver.get_version())
    text = f"found, for CUDA {'.'.join(map(str, version))} and older" + (f"; {module}" if module else "")
    return text, {"version": version, "kernel_module": module, "problem": None}


def _kernel_module() -> str | None:
    try:
        return " ".join(KERNEL_MODULE.read_text().splitlines()[0].split())
    except (OSError, IndexError):
        return None


def _cuda_toolkit() -> tuple[str, dict]:
    from .kernels.cuda import gpu

    if gpu.SIMULATED:
        return "not asked: the simulator needs none", {"problem": None}
    facts: dict[str, Any] = {name: _library(name) for name in LIBRARIES}
    facts["problem"] = gpu.toolkit_problem()
    if facts["problem"]:
        return f"{facts['problem']}: {gpu.OPTIONAL}", facts
    return "; ".join(_describe(label, facts[name]) for name, (label, _) in LIBRARIES.items()), facts


def _library(name: str) -> dict[str, Any]:
    """-> where a library of the toolkit lies and what versions it and its wheel have, or its problem."""
    facts: dict[str, Any] = {"path": None, "version": None, "wheel": None, "problem": None}
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        facts["path"] = load_nvidia_dynamic_lib(name).abs_path
        binding = importlib.import_module(f"cuda.bindings.{name.lower()}")
        facts["version"] = ".".join(map(str, binding.version()))
    except Exception as error:  # DynamicLibNotFoundError, ImportError, and whatever a damaged library raises
        facts["problem"] = _first_line(error)
    if facts["path"] and "site-packages" in Path(facts["path"]).parts:
        wheels = (f"{wheel} {installed(wheel)}" for wheel in LIBRARIES[name][1] if installed(wheel))
        facts["wheel"] = next(wheels, None)
    return facts


def _describe(label: str, library: dict[str, Any]) -> str:
    if library["path"] is None:
        return f"{label} not found, the driver will do instead if it can"
    version = " ".join(part for part in (library["version"], f"({library['wheel']})" if library["wheel"] else "") if part)
    return f"{label} {version} in {library['path']}"


def _cuda_devices() -> tuple[str, dict]:
    from .kernels.cuda import gpu

    if gpu.SIMULATED or gpu.driver_problem() is not None:
        return "none", {"devices": []}
    devices = [_device(device) for device in gpu.cuda.list_devices()]
    lines = [f"{d['name']}, compute capability {d['compute_capability']}{_memory(d)}" for d in devices]
    return "; ".join(lines), {"devices": devices}


def _device(device) -> dict[str, Any]:
    name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
    facts = {"name": name, "compute_capability": ".".join(map(str, device.compute_capability)), "bytes": None}
    try:
        from numba.cuda.cudadrv.driver import driver

        facts["bytes"] = int(driver.cuDeviceTotalMem(device.id))
    except Exception:  # a name and no memory is more than nothing
        pass
    return facts


def _memory(device: dict[str, Any]) -> str:
    from .memory import format_bytes

    return "" if device["bytes"] is None else f", {format_bytes(device['bytes'])}"


def _cuda() -> tuple[str, dict]:
    from . import backends
    from .kernels.cuda import gpu

    try:
        gpu.require()
        backends.load("cuda")
    except (RuntimeError, ValueError) as error:
        return f"does not work: {_first_line(error)}", {"works": False, "problem": _first_line(error)}
    how = "works, in the simulator" if gpu.SIMULATED else "everything it needs is here"
    return how, {"works": True, "problem": None}


QUESTIONS: dict[str, Callable[[], tuple[str, dict]]] = {
    "Python": _python,
    "packages": _packages,
    "processor": _processor,
    "threads": _threads,
    "kernels on disk": _cache,
    "data sets": _data,
    "CUDA target": _cuda_target,
    "CUDA driver": _cuda_driver,
    "CUDA toolkit": _cuda_toolkit,
    "CUDA devices": _cuda_devices,
    "backend cpu": _cpu,
    "backend cuda": _cuda,
}


def _verdict(diagnosis: Diagnosis) -> Finding:
    works = {name: bool(diagnosis[f"backend {name}"].facts.get("works")) for name in ("cpu", "cuda")}
    if not works["cpu"]:
        text = 'backend "cpu" does not work, and spikeflow with it: see the line "backend cpu"'
    elif works["cuda"]:
        text = 'all is well: networks can run with backend="cpu" and with backend="cuda"'
    else:
        text = 'all is well on the processor: backend="cpu", the default, works; backend="cuda" does not, see its line'
    return Finding("verdict", text, works)
