"""The machine code of the CUDA kernels, compiled without a card for compute capability 8.0."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from spikeflow.kernels.cuda import gpu
from spikeflow.kernels.cuda.gpu import cuda
from spikeflow.ops.neurons import learned_cuda

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import cuda_static

missing = cuda_static.missing()
compiles = pytest.mark.skipif(missing is not None, reason=f"CUDA kernels cannot be compiled: {missing}")

# Registers of a thread that a kernel may have at most, by how its name begins. A multiprocessor has 65,536: with 64 a thread,
# four blocks of 256 threads run side by side and wait for memory in turns; with 128, which the tiles of products need, two.
REGISTERS = {"conv2d_product": 128, "conv2d_dweight": 128, "conv2d_dx": 128, "": 64}
SHARED = 48 * 1024  # bytes of a block, without asking for more
FORWARD = ("neuron_forward", "neuron_pool_forward")


def faults(name: str, code: cuda_static.Code) -> list[str]:
    """-> what a kernel's machine code should not be."""
    budget = next(most for start, most in REGISTERS.items() if name.startswith(start))
    limits = {
        "spilled bytes": (code.spill_bytes, 0), "double precision": (code.f64, 0), "local memory": (code.local, 0),
        "registers": (code.registers, budget), "shared bytes": (code.shared, SHARED),
    }  # fmt: skip
    if name.startswith(FORWARD):
        limits["fused multiply-adds"] = code.fusable, 0
    return [f"{name}: {what} {found}, at most {most}" for what, (found, most) in limits.items() if found > most]


def place(network: str, name: str) -> tuple[str, str] | None:
    """-> where a kernel of a small network is compiled: in which part, and once for what; None for nowhere."""
    kind, *words = name.split("-")
    if kind.startswith("conv2d"):
        return None  # the two networks have them, in the shapes that matter
    if not kind.startswith(("neuron_", "leaky_")):
        return "all else", kind if kind.startswith("avg_pool2d") else name
    if network.startswith("surrogate"):
        return ("surrogates", name) if kind == "neuron_backward" else None
    if network in (*RESETS, "LeakyIntegrator"):
        return "neurons", f"{'-'.join(words[:2])} {kind}"
    return ("options", network) if words[0] == "leaky" and kind == "neuron_backward" else None


RESETS = [name for name in cuda_static.neurons() if name.startswith(("Leaky", "IFNode")) or name.endswith(("subtract", "hard"))]
PARTS = (*cuda_static.NETWORKS, "neurons", "surrogates", "options", "all else")
STARTS = {  # of the names of kernels that must be among those of a part
    "csnn-mnist": ("conv2d_product-words", "conv2d_dweight-words", "conv2d_dx", "leaky_backward_static", "cross_entropy", "adam"),
    "csnn-fashion": ("neuron_pool_forward", "neuron_pool_backward", "batch_norm", "square_error", "momentum"),
    "neurons": tuple(
        f"neuron_{way}-{neuron}-"
        for way in ("forward", "backward")
        for neuron in (
            "leaky", "lapicque", "synaptic", "alpha", "rleaky", "rsynaptic", "leaky_integrator", "if_node", "lif_node",
            "parametric_lif_node",
        )
    ),
    "surrogates": ("neuron_backward-leaky",),
    "options": ("neuron_backward-leaky-subtract-inhibition", "neuron_backward-leaky-subtract-graded"),
    "all else": (
        "avg_pool2d_forward", "avg_pool2d_backward", "spread_dparams", "batch_norm_forward", "sgd", "spike_times",
        *(f"learned_{what}-{how}" for what in ("row", "gradient") for how in learned_cuda.MAPS),
    ),
}  # fmt: skip


def chosen(part: str) -> list:
    """-> a launch of each kernel of a part."""
    if part in cuda_static.NETWORKS:
        return [group[0] for group in cuda_static.distinct(cuda_static.launches_of_network(part)).values()]
    found = {}
    for network, options in cuda_static.small_networks().items():
        for launch in cuda_static.launches_of(**options):
            where, what = place(network, launch.kernel.name) or (None, None)
            if where == part:
                found[what] = launch  # the last one: backward that is the first layer, which has what the network is named after
    return list(found.values())


@compiles
@pytest.mark.parametrize("part", [pytest.param(part, marks=pytest.mark.slow) if part == "options" else part for part in PARTS])
def test_the_machine_code_is_as_it_should_be(part):
    launches = chosen(part)
    names = [launch.kernel.name for launch in launches]
    assert not [start for start in STARTS[part] if not any(name.startswith(start) for name in names)]
    codes = cuda_static.compile_all(launches, (8, 0))
    assert not [code for code in codes if isinstance(code, str)]
    assert all(code.registers > 0 for code in codes)
    assert not [fault for name, code in zip(names, codes, strict=True) for fault in faults(name, code)]


def test_every_derivative_is_among_them():
    names = [launch.kernel.name for launch in chosen("surrogates")]
    derivatives = {pair.derivative.__name__ for pair in cuda_static.surrogates().values()}
    assert len(derivatives) > 10 and not [one for one in derivatives if not any(f"/{one}-" in name for name in names)]


# ---------------------------------------------------------------------------------------------- kernels that are wrong


def code_of(function, *arrays, threads=256, name="neuron_forward"):
    """Compile a kernel -> its name and code."""
    kernel = gpu.kernel(threads=threads)(function)
    kernel.name = name
    return name, cuda_static.machine_code(gpu.Launch(kernel, (1,), (threads,), arrays, 0))


def numbers(count=64):
    return np.zeros(count, np.float32)


@compiles
def test_double_precision_is_found():
    def thirds(x):
        i = cuda.grid(1)
        if i < x.size:
            x[i] = x[i] / 3.0 + 0.1

    assert any("double precision" in fault for fault in faults(*code_of(thirds, numbers())))


@compiles
def test_a_product_that_is_fused_into_a_sum_is_found():
    def leaks(x, y):
        i = cuda.grid(1)
        if i < x.size:
            x[i] = x[i] * y[i] + y[i]

    name, code = code_of(leaks, numbers(), numbers())
    assert faults(name, code) == ["neuron_forward: fused multiply-adds 1, at most 0"] and code.ffma == 1
    assert faults("neuron_backward", code) == []


@compiles
def test_a_product_by_times_is_not():
    from spikeflow.kernels.rounding import times

    def leaks(x, y):
        i = cuda.grid(1)
        if i < x.size:
            x[i] = times(x[i], y[i]) + y[i]

    assert faults(*code_of(leaks, numbers(), numbers())) == []


@compiles
def test_spills_and_registers_are_found():
    # 128 numbers that are alive throughout a loop: with 1024 threads a block there are 64 registers for each.
    start = [f"a{i} = x[{i}]" for i in range(128)]
    step = [f"a{i} = a{i} * y[k] + a{(i + 1) % 128}" for i in range(128)]
    end = [f"x[{i}] = a{i}" for i in range(128)]
    lines = [*start, "for k in range(y.size):", *("    " + line for line in step), *end]
    space: dict = {}
    exec("def crowd(x, y):\n" + "\n".join("    " + line for line in lines), space)
    wide, narrow = (faults(*code_of(space["crowd"], numbers(128), numbers(), threads=threads)) for threads in (256, 1024))
    assert any("registers" in fault for fault in wide) and not any("spilled" in fault for fault in wide)
    assert any("spilled bytes" in fault for fault in narrow)


@compiles
def test_local_memory_is_found():
    def wanders(x, order):
        some = cuda.local.array(32, np.float32)
        for i in range(32):
            some[order[i]] = x[i]
        for i in range(32):
            x[i] = some[order[x.size - i]]

    found = faults(*code_of(wanders, numbers(), np.zeros(64, np.int32)))
    assert any("local memory" in fault for fault in found)


@compiles
def test_a_kernel_that_does_not_compile_is_named():
    def confused(x):
        x[0] = x.no_such_thing

    with pytest.raises(cuda_static.CompileError, match="^wrong .* does not compile for"):
        code_of(confused, numbers(), name="wrong")


# ---------------------------------------------------------------------------------------------- tables


def test_counts_of_ptx():
    ptx = """
	ld.shared.v4.f32 	{%f1, %f2, %f3, %f4}, [%r1];
	ld.shared.f32 	%f1, [%r1];
	fma.rn.f32 	%f1, %f2, %f3, %f4;
$L__BB0_1:
	ld.shared.u64 	%rd1, [%r1];
	@%p1 st.local.f32 	[%rd1], %f1;
	cvt.f64.f32 	%fd1, %f1;
	fma.rn.f32x2 	%rd1, %rd2, %rd3, %rd4;
	fma.rn.f32 	%f1, %f2, %f3, %f4;
	mul.f32 	%f1, %f2, %f3;
	mul.rn.f32 	%f1, %f2, %f3;
	@%p1 bra 	$L__BB0_1;
"""
    assert cuda_static._of_ptx(ptx) == {"f64": 1, "local": 1, "ffma": 4, "lds": 7, "ratio": 1.5, "counted": "PTX"}
    assert cuda_static._fusable(ptx) == 4


def test_counts_of_sass():
    sass = """
        /*0000*/                   LDS.128 R4, [R1] ;
        /*0010*/              @!P0 LDS R4, [R1] ;
        /*0030*/              @P1  STL [R1], R2 ;
.L_x_1:
        /*0020*/                   LDS.U.64 R4, [R1] ;
        /*0040*/                   F2F.F64.F32 R2, R4 ;
        /*0050*/                   DFMA R2, R4, R6, R8 ;
        /*0060*/                   MUFU.RCP64H R3, R5 ;
        /*0070*/                   FFMA2 R2, R4, R6, R8 ;
        /*0080*/                   IMAD.WIDE R4, R5, c[0x0][0x0], R2 ;
        /*0090*/               @P0 BRA `(.L_x_1) ;
"""
    assert cuda_static._of_sass(sass) == {"f64": 3, "local": 1, "ffma": 2, "lds": 7, "ratio": 1.0, "counted": "SASS"}


@compiles
def test_the_tables(tmp_path, capsys):
    path = tmp_path / "static.json"
    words = ["--network", "csnn-mnist", "--batch-size", "2", "--num-steps", "3", "--jobs", "1", "--json", str(path)]
    options = cuda_static.parse(words)
    (launches,) = cuda_static.wanted(options).values()
    few = [launch for launch in launches if launch.kernel.name.startswith(("fill", "adam", "column_sums"))]
    rows = cuda_static.rows_of(few, (8, 0))
    assert sum(row.launches for row in rows) == len(few) and sum(row.bytes for row in rows) == sum(x.bytes for x in few)
    lines = cuda_static.table(rows).splitlines()
    assert lines[0].split()[:2] == ["kernel", "regs"] and lines[-1].startswith(f"{len(rows)} kernels")
    assert json.loads(json.dumps([cuda_static.facts(row) for row in rows]))[0]["code"]["registers"] == rows[0].code.registers


def test_the_roofline_is_of_memory_or_of_arithmetic():
    x = np.zeros(1000, np.float32)
    kernel = gpu.Kernel(lambda x: None, (), 256)
    assert cuda_static.roofline(gpu.Launch(kernel, (1,), (1,), (x, x), 0)) == 4000 / cuda_static.BANDWIDTH
    assert cuda_static.roofline(gpu.Launch(kernel, (1,), (1,), (x,), 1e9)) == 1e9 / cuda_static.PEAK
