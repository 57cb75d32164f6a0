"""What the CUDA kernels of a training step are made of. No card is needed, and nothing here is a measured time.

    python benchmarks/cuda_static.py                                both networks, compiled for sm_80
    python benchmarks/cuda_static.py --arch 75 80 90 100            for several generations of cards
    python benchmarks/cuda_static.py --network csnn-mnist --json static.json
    python benchmarks/cuda_static.py --all-kernels                  every neuron, surrogate, pool, loss and optimizer, too

A training step is taken with backend="cuda" while launches are written down instead of being run. Each distinct kernel, that
is, each with its types of arguments, is then compiled as it would be on a card: by Numba to NVIDIA's intermediate code, and by
nvJitLink to machine code. The wheels of the extra ``cuda13`` do both.

    regs, shared, spill    registers of a thread; bytes of shared memory of a block; bytes that ptxas spills, of a thread
    f64, local             instructions in double precision; loads from and stores to local memory: both should be none
    FFMA, LDS              fused multiply-adds; numbers of four bytes that are loaded from shared memory: one load of 128 bits
                           carries four
    ratio                  FFMA for one LDS, in the straight run of instructions that has the most FFMA: of a matrix product it is
                           the inner loop
    KB, MFLOP, us          of all launches of a step: the arrays they were given, each counted once a launch; operations, as each
                           launch states them; and the roofline, max(bytes / 3.35 TB/s, FLOPs / 67 TFLOP/s) a launch, at the
                           rates of an H100 SXM's data sheet, as if every array went to memory and back and nothing else took
                           time. It says what a kernel is bound by; it is neither a measurement nor a prediction.

Instructions are those of the program text, each once however often a loop runs it: of the machine code (SASS) where NVIDIA's
nvdisasm is found (``pip install nvidia-cuda-nvdisasm``, or --nvdisasm PATH), else of the PTX from which ptxas makes it.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import multiprocessing
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

BANDWIDTH, PEAK = 3.35e12, 67e12  # bytes and float32 operations a second: NVIDIA's data sheet of the H100 SXM
NETWORKS = {"csnn-mnist": (128, 50), "csnn-fashion": (128, 4)}  # samples and time steps
ARCHITECTURES = {75: (7, 5), 80: (8, 0), 90: (9, 0), 100: (10, 0)}
TEXTS = ("ptx", "sass")  # of a ``Code``, left out of JSON
DOUBLE = ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX")


# ---------------------------------------------------------------------------------------------- machine code


@dataclass(frozen=True)
class Code:
    """What a kernel was compiled to.

    Attributes
    ----------
    registers, shared, spill_bytes : int
        Of a thread, of a block, and of a thread (stores and loads).
    f64, local, ffma, lds, divisions : int
        Instructions: in double precision; to and from local memory; fused multiply-adds; numbers that are loaded from shared
        memory; 64-bit integer divisions (of the PTX: in machine code they are calls and loops).
    ratio : float or None
        FFMA for one LDS in the straight run of instructions with the most FFMA; None without both.
    fusable : int
        Of the PTX: fused multiply-adds, and products that ptxas may fuse into a sum, as it may unless they are ``mul.rn``.
    counted : str
        Whose instructions: "SASS" or "PTX".
    ptx, sass : str
    """

    registers: int
    shared: int
    spill_bytes: int
    f64: int
    local: int
    ffma: int
    lds: int
    ratio: float | None
    divisions: int
    fusable: int
    counted: str
    ptx: str
    sass: str


def missing() -> str | None:
    """-> what is missing to compile here, and what to install; None if nothing is."""
    from spikeflow.kernels.cuda import gpu

    wheels = "install the extra cuda13, whose wheels compile without a card"
    if gpu.SIMULATED:
        return "the simulator (NUMBA_ENABLE_CUDASIM) compiles nothing: unset it"
    if getattr(gpu.cuda, "implementation", None) != "NVIDIA":
        return f"the package numba-cuda is not here: {wheels}"
    try:
        from cuda.bindings import nvjitlink, nvvm

        nvvm.version(), nvjitlink.version()
    except Exception as error:  # ImportError, DynamicLibNotFoundError, and whatever a damaged library raises
        return f"NVVM and nvJitLink cannot both be loaded ({type(error).__name__}): {wheels}"
    return None


def machine_code(launch, cc: tuple[int, int] = (8, 0), nvdisasm: str | None = None) -> Code:
    """Compile a launch's kernel for its types of arguments, as Numba would on a card of compute capability ``cc``.

    Raises
    ------
    CompileError
        With the kernel's name.
    """
    try:
        return _machine_code(launch, cc, nvdisasm)
    except Exception as error:  # Numba, NVVM and nvJitLink each have theirs
        raise CompileError(f"{launch.kernel.name} {signature(launch)} does not compile for {cc}: {error}") from error


class CompileError(Exception):
    """A kernel that would fail at its first launch."""


def _machine_code(launch, cc: tuple[int, int], nvdisasm: str | None) -> Code:
    from cuda.core import Linker, LinkerOptions, ObjectCode

    arch = f"sm_{cc[0]}{cc[1]}"
    intermediate = ObjectCode.from_ltoir(_intermediate_code(launch, cc))
    options = dict(arch=arch, link_time_optimization=True)
    ptx = bytes(Linker(intermediate, options=LinkerOptions(ptx=True, **options)).link("ptx").code).decode().strip("\0")
    linker = Linker(intermediate, options=LinkerOptions(ptxas_options=["-v"], verbose=True, **options))
    binary = bytes(linker.link("cubin").code)
    sass = "" if nvdisasm is None else _disassemble(binary, nvdisasm)
    resources = _resources(linker.get_info_log(), launch.kernel.name)
    counts = _of_sass(sass) if sass else _of_ptx(ptx)
    return Code(**resources, **counts, divisions=_count(r"\b(?:div|rem)\.[su]64", ptx), fusable=_fusable(ptx), ptx=ptx, sass=sass)


def _intermediate_code(launch, cc) -> bytes:
    """Numba compiles a kernel for the device that it finds; here it is told that there is one."""
    from numba import typeof

    from spikeflow.kernels.cuda.gpu import cuda

    device = SimpleNamespace(compute_capability=cc)
    with mock.patch("numba.cuda.dispatcher.get_current_device", lambda: device):
        code, _ = cuda.compile(
            launch.kernel.function, tuple(typeof(argument) for argument in launch.args), device=False, abi="numba", cc=cc,
            launch_bounds=launch.kernel.threads, output="ltoir",
        )  # fmt: skip
    return bytes(code)


def _resources(log: str, name: str) -> dict[str, int]:
    """What ``ptxas -v`` says of a kernel; RuntimeError if it says nothing that we know."""
    used = re.search(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?", log)
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    if used is None or not spills:
        raise RuntimeError(f"{name}: ptxas -v no longer says how many registers there are, and how many are spilled:\n{log}")
    return {"registers": int(used[1]), "shared": int(used[2] or 0), "spill_bytes": sum(int(n) for pair in spills for n in pair)}


def _count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text))


def _fusable(ptx: str) -> int:
    return _count(r"\bfma\.r\w\.(?:ftz\.)?f32|\bmul\.(?:ftz\.)?f32", ptx)


def _of_ptx(ptx: str) -> dict[str, Any]:
    runs = [(_fused(run), _loads(run)) for run in re.split(r"(?m)^\$\w+:|\bbra\b", ptx)]
    return {
        "f64": _count(r"(?m)^\s+(?:@!?%p\d+\s+)?[a-z][\w.]*\.f64\b", ptx),
        "local": _count(r"\b(?:ld|st)\.local\b", ptx),
        **_sums(runs),
        "counted": "PTX",
    }


def _fused(ptx: str) -> int:
    return sum(2 if pair else 1 for pair in re.findall(r"\bfma\.rn\.(?:ftz\.)?f32(x2)?\b", ptx))


def _loads(ptx: str) -> int:
    loads = re.findall(r"\bld(?:\.volatile)?\.shared(?:\.v([24]))?\.[bfsu](\d+)\b", ptx)
    return sum(int(numbers or 1) * max(int(bits) // 32, 1) for numbers, bits in loads)


def _of_sass(sass: str) -> dict[str, Any]:
    runs = [_operations(run) for run in re.split(r"(?m)^\s*\.L_\w+:|\bBRA\b", sass)]
    parts = [part for run in runs for part in run]
    counts = [(sum({"FFMA": 1, "FFMA2": 2}.get(part[0], 0) for part in run), sum(map(_words, run))) for run in runs]
    return {
        "f64": sum(part[0] in DOUBLE or any("64" in more and more[0] in "FR" for more in part[1:]) for part in parts),
        "local": sum(part[0] in ("LDL", "STL") for part in parts),
        **_sums(counts),
        "counted": "SASS",
    }


def _operations(sass: str) -> list[list[str]]:
    found = re.findall(r"(?m)^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", sass)
    return [operation.split(".") for operation in found]


def _words(operation: list[str]) -> int:
    """-> numbers that an instruction loads from shared memory."""
    return max({"64": 2, "128": 4}.get(part, 1) for part in operation) if operation[0] == "LDS" else 0


def _sums(runs: list[tuple[int, int]]) -> dict[str, Any]:
    """FFMA and LDS of each straight run of instructions -> both of all, and the ratio of the run that has the most FFMA."""
    fused, loads = max(runs)
    ratio = fused / loads if fused and loads else None
    return {"ffma": sum(run[0] for run in runs), "lds": sum(run[1] for run in runs), "ratio": ratio}


def _disassemble(binary: bytes, nvdisasm: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        return subprocess.run([nvdisasm, "-c", file.name], check=True, capture_output=True, text=True).stdout


def find_nvdisasm() -> str | None:
    """-> NVIDIA's disassembler, on the path or from its wheel; None if there is none."""
    found = shutil.which("nvdisasm")
    if found is None and importlib.util.find_spec("nvidia") is not None:
        for folder in importlib.util.find_spec("nvidia").submodule_search_locations or ():
            found = found or next((str(path) for path in Path(folder).glob("*/bin/nvdisasm*")), None)
    return found


# ---------------------------------------------------------------------------------------------- launches


def launches_of(layers: Sequence, loss_fn, optimizer: Callable, images: tuple[int, ...], num_steps: int | None, **step) -> list:
    """-> the launches of a training step with backend="cuda", without a card: of the second one, which allocates nothing.

    ``images`` is the shape of a batch, ``optimizer`` makes one of parameters, ``step`` are options of ``loss_and_grad``.
    """
    import spikeflow as sf
    from spikeflow.kernels.cuda import gpu

    with gpu.dry() as launches:
        net = sf.Sequential(*layers, backend="cuda")
        update, x = optimizer(net.parameters()), np.zeros(images, np.float32)
        labels = np.zeros(images[0] if num_steps is not None else images[1], np.int64)
        for _ in range(2):
            launches.clear()
            net.zero_grad()
            net.loss_and_grad(x, labels, loss_fn, num_steps, **step)
            update.step()
        return list(launches)


def launches_of_network(name: str, batch_size: int | None = None, num_steps: int | None = None) -> list:
    """-> those of a preset, as it is trained."""
    from spikeflow import presets

    preset = presets.find(name)
    choices = {**dict.fromkeys(("momentum", "step_size", "gamma", "T_max")), **preset.defaults, **preset.options, "lr": preset.lr}
    presets.fill_training(preset, choices)
    layers, loss_fn = presets.make_layers(preset, choices), presets.make_loss(choices["loss"])
    optimizer = functools.partial(presets.make_optimizer, choices)
    batch, steps = NETWORKS[name]
    return launches_of(layers, loss_fn, optimizer, (batch_size or batch, *preset.input_shape), num_steps or steps)


def neurons() -> dict[str, Callable]:
    """-> {name: function that makes the layer}: every neuron, with every reset that it has."""
    import spikeflow as sf

    decays = {
        "Leaky": {"beta": 0.5}, "Lapicque": {"beta": 0.5}, "Synaptic": {"alpha": 0.8, "beta": 0.5},
        "Alpha": {"alpha": 0.8, "beta": 0.5}, "RLeaky": {"beta": 0.5, "all_to_all": False},
        "RSynaptic": {"alpha": 0.8, "beta": 0.5, "all_to_all": False},
    }  # fmt: skip
    made = {
        f"{name} {reset}": functools.partial(getattr(sf, name), **options, reset_mechanism=reset)
        for name, options in decays.items()
        for reset in ("subtract", "zero", "none")
    }
    for name in ("IFNode", "LIFNode", "ParametricLIFNode"):
        for reset, value in (("hard", 0.0), ("soft", None)):
            made[f"{name} {reset}"] = functools.partial(getattr(sf, name), v_reset=value)
    return made


def surrogates() -> dict[str, Any]:
    """-> {name: surrogate}, but for the user's own."""
    from spikeflow import surrogate

    makers = (getattr(surrogate, name) for name in surrogate.__all__ if name not in ("Surrogate", "custom"))
    made = [make() for make in makers]
    return {found.name: found for found in made}


def small_networks() -> dict[str, dict[str, Any]]:
    """-> {name: arguments of ``launches_of``}: small networks that have every kernel between them."""
    import spikeflow as sf

    def network(*layers, loss=None, optimizer=sf.optim.SGD, images=(3, 12), num_steps=5, lr=0.1, **options):
        loss_fn = loss or sf.losses.ce_rate_loss()
        make = functools.partial(optimizer, lr=lr, **{key: options.pop(key) for key in ("momentum",) if key in options})
        return dict(layers=layers, loss_fn=loss_fn, optimizer=make, images=images, num_steps=num_steps, **options)

    def between(make, **options):  # constant input, spikes as input, and at the end
        return network(sf.Linear(12, 8), make(), sf.Linear(8, 8), make(), sf.Linear(8, 4), sf.Leaky(0.5), **options)

    found = {name: between(make) for name, make in neurons().items()}
    for name, pair in surrogates().items():
        found[f"surrogate {name}"] = between(functools.partial(sf.Leaky, 0.5, spike_grad=pair))
    options = {
        "learn_beta": True, "learn_threshold": True, "inhibition": True, "graded_spikes_factor": 2.0, "reset_delay": False,
        "threshold": np.linspace(0.5, 1, 8),
    }  # fmt: skip
    for key, value in options.items():
        found[f"Leaky {key}"] = between(functools.partial(sf.Leaky, 0.5, **{key: value}))
    found["Lapicque learn_beta"] = between(functools.partial(sf.Lapicque, 0.5, learn_beta=True))
    found["truncated"] = between(functools.partial(sf.Leaky, 0.5), truncate=2)
    found["LeakyIntegrator"] = network(
        sf.Linear(12, 4), sf.LeakyIntegrator(0.5), loss=sf.losses.ce_membrane_loss(), images=(5, 3, 12), num_steps=None
    )
    for name in ("MaxPool2d", "AvgPool2d"):
        pool = getattr(sf, name)
        after = sf.Conv2d(1, 4, 3, stride=2, padding=1), pool(2), sf.Leaky(0.5), sf.Conv2d(4, 4, 3), pool(2), sf.Leaky(0.5)
        before = sf.Conv2d(1, 4, 3, padding=1), sf.IFNode(), pool(2), sf.Conv2d(4, 4, 3), sf.IFNode(), pool(2)
        end = lambda: (sf.Flatten(), sf.Linear(4, 4), sf.Leaky(0.5))  # noqa: E731
        found[f"{name} before"] = network(*after, *end(), images=(3, 1, 20, 20))
        found[f"{name} behind"] = network(*before, *end(), images=(3, 1, 8, 8))
    found["BatchNorm"] = network(
        sf.Conv2d(1, 4, 3, bias=False), sf.BatchNorm2d(4), sf.IFNode(), sf.Dropout(0.5), sf.Flatten(), sf.Linear(144, 4),
        sf.BatchNorm1d(4), sf.IFNode(), images=(3, 1, 8, 8),
    )  # fmt: skip
    for name in (name for name in sf.losses.__all__ if name.endswith("_loss")):
        found[name] = network(sf.Linear(12, 4), sf.Leaky(0.5), loss=getattr(sf.losses, name)())
    for name, more in (("SGD", {"momentum": 0.9}), ("Adam", {}), ("AdamW", {})):
        found[name] = network(sf.Linear(12, 4), sf.Leaky(0.5), optimizer=getattr(sf.optim, name), **more)
    return found


# ---------------------------------------------------------------------------------------------- tables


def signature(launch) -> tuple[str, ...]:
    """-> the types of its arguments, for which its kernel is compiled."""
    from numba import typeof

    return tuple(str(typeof(argument)) for argument in launch.args)


def distinct(launches: Sequence) -> dict[tuple, list]:
    """-> the launches, by what has to be compiled: the kernel and its types of arguments."""
    groups: dict[tuple, list] = {}
    for launch in launches:
        groups.setdefault((id(launch.kernel), signature(launch)), []).append(launch)
    return groups


def roofline(launch) -> float:
    """-> seconds of a launch at an H100's rates: to move its arrays once, or to compute what it states."""
    return max(launch.bytes / BANDWIDTH, launch.flops / PEAK)


def compile_all(launches: Sequence, cc: tuple[int, int], jobs: int = 1, nvdisasm: str | None = None) -> list[Code | str]:
    """-> the machine code of each launch, or why it does not compile; in ``jobs`` processes."""
    _shared[:] = launches, cc, nvdisasm  # kernels are closures: children get them by being forked
    if jobs == 1 or len(launches) < 2:
        return [_compile(i) for i in range(len(launches))]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        return pool.map(_compile, range(len(launches)), chunksize=1)


_shared: list = []


def _compile(i: int) -> Code | str:
    launches, cc, nvdisasm = _shared
    try:
        return machine_code(launches[i], cc, nvdisasm)
    except CompileError as error:
        return str(error)


@dataclass(frozen=True)
class Row:
    """A kernel of a step: what it was compiled to, and all its launches together."""

    kernel: str
    signature: tuple[str, ...]
    threads: int
    launches: int
    bytes: int
    flops: float
    seconds: float  # by the roofline
    code: Code | str  # or why there is none


def rows_of(launches: Sequence, cc: tuple[int, int], jobs: int = 1, nvdisasm: str | None = None) -> list[Row]:
    """-> a row for each distinct kernel, in the order of their first launches."""
    groups = list(distinct(launches).values())
    codes = compile_all([group[0] for group in groups], cc, jobs, nvdisasm)
    return [
        Row(
            group[0].kernel.name, signature(group[0]), int(np.prod(group[0].threads)), len(group),
            sum(launch.bytes for launch in group), sum(launch.flops for launch in group),
            sum(roofline(launch) for launch in group), code,
        )
        for group, code in zip(groups, codes, strict=True)
    ]  # fmt: skip


HEAD = ("kernel", "regs", "shared", "spill", "f64", "local", "FFMA", "LDS", "ratio", "launches", "KB", "MFLOP", "us")


def table(rows: Sequence[Row]) -> str:
    """-> the rows, and their totals."""
    lines = [HEAD]
    for row in rows:
        lines.append((_short(row.kernel), *_counts(row.code), *_amounts(row.launches, row.bytes, row.flops, row.seconds)))
    sums = (sum(getattr(row, name) for row in rows) for name in ("launches", "bytes", "flops", "seconds"))
    lines.append((f"{len(rows)} kernels", *[""] * 8, *_amounts(*sums)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    widths[0] = -widths[0]
    return "\n".join("  ".join(_padded(cell, width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _short(name: str) -> str:
    """A kernel's name with its flags as letters, y or n."""
    flags = re.sub(r"\bTrue\b", "y", re.sub(r"\bFalse\b", "n", name))
    return re.sub(r"(?<=\b[yn])(?:(?:-|, )[yn]\b)+", lambda found: found[0].replace("-", "").replace(", ", ""), flags)


def _padded(cell: str, width: int) -> str:
    return cell.ljust(-width) if width < 0 else cell.rjust(width)


def _counts(code: Code | str) -> tuple[str, ...]:
    if isinstance(code, str):
        return ("failed", *[""] * 7)
    ratio = "-" if code.ratio is None else f"{code.ratio:.1f}"
    return *map(str, (code.registers, code.shared, code.spill_bytes, code.f64, code.local, code.ffma, code.lds)), ratio


def _amounts(launches: int, size: int, flops: float, seconds: float) -> tuple[str, ...]:
    return str(launches), f"{size / 1e3:,.1f}", f"{flops / 1e6:,.1f}", f"{seconds * 1e6:.2f}"


def main(argv: list[str] | None = None) -> int:
    """Print the tables -> exit status: 1 if a kernel does not compile, 3 if none can be compiled here."""
    args = parse(argv)
    if (problem := missing()) is not None:
        print(f"cuda_static: {problem}", file=sys.stderr)
        return 3
    nvdisasm = args.nvdisasm or find_nvdisasm()
    result: dict[str, Any] = {"bandwidth": BANDWIDTH, "peak": PEAK, "measured": False, "tables": []}
    failures = []
    for what, launches in wanted(args).items():
        for arch in args.arch:
            rows = rows_of(launches, ARCHITECTURES[arch], args.jobs, nvdisasm)
            text = "SASS" if nvdisasm else "PTX"
            print(f"\n{what}, sm_{arch}: instructions of the {text}; us by the roofline of an H100, nothing is measured\n")
            print(table(rows), flush=True)
            result["tables"].append({"what": what, "arch": arch, "rows": [facts(row) for row in rows]})
            failures += [row.code for row in rows if isinstance(row.code, str)]
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    return 1 if failures else 0


def facts(row: Row) -> dict[str, Any]:
    """-> a row as JSON can hold it, without the texts."""
    found = asdict(row)
    if not isinstance(row.code, str):
        found["code"] = {key: value for key, value in found["code"].items() if key not in TEXTS}
    return found


def wanted(args) -> dict[str, list]:
    """-> {title: launches}."""
    found = {}
    for name in args.network:
        batch, steps = NETWORKS[name]
        batch, steps = args.batch_size or batch, args.num_steps or steps
        found[f"{name}: a training step, batch {batch}, {steps} time steps"] = launches_of_network(name, batch, steps)
    if args.all_kernels:
        small = [launch for arguments in small_networks().values() for launch in launches_of(**arguments)]
        known = set(distinct([launch for launches in found.values() for launch in launches]))
        rest = [launch for key, group in distinct(small).items() if key not in known for launch in group]
        found["all other kernels, of small networks"] = rest
    return found


def parse(argv) -> argparse.Namespace:
    """-> the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--network", nargs="*", choices=NETWORKS, default=list(NETWORKS), help="whose step (default: both)")
    add("--arch", nargs="+", type=int, choices=ARCHITECTURES, default=[80], help="compute capabilities (default 80)")
    add("--all-kernels", action="store_true", help="and every other kernel that there is")
    add("--batch-size", type=int, help="samples (default: as the network is trained)")
    add("--num-steps", type=int, help="time steps (default: the same)")
    add("--jobs", type=int, default=2, help="processes that compile (default 2)")
    add("--nvdisasm", metavar="PATH", help="NVIDIA's disassembler (default: the one on the path or in this Python's wheels)")
    add("--json", type=Path, metavar="PATH", help="write everything to this file, too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
