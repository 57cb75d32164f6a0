"""The hot kernels keep their accumulators in vector registers: their machine code says so.

A loop whose sums live in memory computes the same numbers several times slower, which no other test would notice.
"""

from __future__ import annotations

import functools
import platform
import re

import numba
import numpy as np
import pytest
from numba.core import config
from spikes import draw_spikes, pack

from spikeflow.kernels.cpu.simd import stack_array, tile_shape, vector_lanes, vector_operations
from spikeflow.kernels.jit import OPTIONS
from spikeflow.ops.conv2d import cpu, events
from spikeflow.ops.events import Routed

FLOAT = np.dtype(np.float32)
LANES = vector_lanes(4)

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64")
    or config.CPU_NAME == "generic"
    or LANES < 8
    or bool(config.BOUNDSCHECK),
    reason="reads the machine code of an x86-64 processor with AVX2 or AVX-512, without bounds checks",
)


def innermost_loops(assembly: str) -> list[list[str]]:
    """-> the instructions of each loop without another label inside, in AT&T syntax: ``operation operands, target``."""
    lines = [line.split("#")[0].strip() for line in assembly.splitlines()]
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\S+:", line)}
    loops = []
    for end, line in enumerate(lines):
        jump = re.fullmatch(r"j\w+\s+(\S+)", line)
        first = labels.get(jump[1], end) if jump else end
        body = lines[first + 1 : end + 1]
        if first < end and not any(label.endswith(":") for label in body):
            loops.append(body)
    return loops


def stores(instruction: str) -> bool:
    """Is the target, in AT&T syntax the last operand, in memory?"""
    operation, _, operands = instruction.partition("\t")
    return operands.endswith(")") and not re.match(r"cmp|test|bt\b|prefetch|v?u?comis|call|jmp", operation)


def refusal(assembly: str, operation: str, accumulators: int, besides: str = "") -> str | None:
    """-> why no innermost loop sums in registers by ``operation``, or None; its loop also holds the pattern ``besides``."""
    register = {16: "zmm", 8: "ymm"}[LANES]
    loops = [[line for line in loop if line] for loop in innermost_loops(assembly)]
    loops = [loop for loop in loops if any(line.startswith(operation) for line in loop) and re.search(besides, "\n".join(loop))]
    if not loops:
        return f"no innermost loop with {operation}"
    loop = max(loops, key=lambda loop: sum(line.startswith(operation) for line in loop))
    targets = {line.rsplit("%")[-1] for line in loop if line.startswith(operation)}
    shown = "\n" + "\n".join(loop)
    if len([target for target in targets if target.startswith(register)]) < accumulators:
        return f"fewer than {accumulators} accumulators in {register} registers" + shown
    if any(stores(line) for line in loop):
        return "stores in the innermost loop" + shown
    if "(%rsp" in shown:
        return "a place on the stack in the innermost loop" + shown
    return None


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """-> a function of a module, a factory's name and its arguments -> the assembly of its kernel, compiled in this test.

    A kernel from disk has none, so the factories are made anew and the folder is empty.
    """
    monkeypatch.setenv("SPIKEFLOW_CACHE_DIR", str(tmp_path / "jit"))
    for module, names in ((cpu, ("make_forward", "make_dweight", "make_dx")), (events, ("make_dweight", "make_dx_routed"))):
        for name in names:
            monkeypatch.setattr(module, name, functools.cache(getattr(module, name).__wrapped__))

    def assembly(module, name, *arguments):
        texts = list(getattr(module, name)(*arguments).inspect_asm().values())
        assert len(texts) == 1  # one signature: the call that has just been made
        return texts[0]

    return assembly


def second_layer():
    """The second convolution of Tutorial 6, and a place for its weight's gradient."""
    weight = np.random.default_rng(0).normal(size=(64, 12, 5, 5)).astype(FLOAT)
    return cpu.conv2d_pack(weight), np.zeros_like(weight)


def vectors(shape):
    rows, columns = shape
    return rows * columns // LANES


def test_the_dense_convolution_sums_in_registers(compiled):
    packed, _ = second_layer()
    cpu.conv2d_forward(np.ones((2, 12, 12, 12), FLOAT), packed, None, 1, 0)
    tile = tile_shape(FLOAT, 64)
    assert refusal(compiled(cpu, "make_forward", FLOAT, *tile), "vfmadd231ps", vectors(tile)) is None


def test_the_dense_weight_gradient_sums_in_registers(compiled):
    packed, dweight = second_layer()
    cpu.conv2d_backward(np.ones((2, 8, 8, 64), FLOAT), np.ones((2, 12, 12, 12), FLOAT), packed, 1, 0, dweight, None, False)
    tile = tile_shape(FLOAT, 64)
    assert refusal(compiled(cpu, "make_dweight", FLOAT, *tile), "vfmadd231ps", vectors(tile)) is None


def test_the_dense_input_gradient_sums_in_registers(compiled):
    packed, _ = second_layer()
    cpu.conv2d_dx(np.ones((2, 8, 8, 64), FLOAT), (2, 12, 12, 12), packed, 1, 0)
    tile = tile_shape(FLOAT, 5 * 12)
    assert refusal(compiled(cpu, "make_dx", FLOAT, *tile), "vfmadd231ps", vectors(tile)) is None


def routed(T=4):
    shape = T, 2, 4, 4, 64
    return Routed(np.ones(shape, FLOAT), np.zeros(shape, np.uint8), (T, 2, 8, 8, 64), 2, 2)


def test_the_input_gradient_through_a_pool_sums_in_registers(compiled):
    packed, _ = second_layer()
    events.conv2d_dx_routed(routed(), (4, 2, 12, 12, 12), packed, 1, 0)
    tile = packed.patches.shape[3:]
    assert refusal(compiled(events, "make_dx_routed", FLOAT, *tile), "vfmadd231ps", vectors(tile)) is None


def test_the_weight_gradient_of_spikes_sums_in_registers(compiled):
    packed, dweight = second_layer()
    spikes = pack(draw_spikes(np.random.default_rng(0), (4, 2, 12, 12, 12), 0.2))
    events.conv2d_backward_events(routed(), spikes, packed, 1, 0, dweight, None, False)
    columns = tile_shape(FLOAT, 64)[1]
    # The loop over the steps at which a train fires, told by its count of trailing zeros.
    assembly = compiled(events, "make_dweight", FLOAT, columns, True)
    assert refusal(assembly, "vaddps", columns // LANES, besides=r"\b(tzcnt|bsf)") is None


def product(size, accumulators):
    """-> the assembly of a product of ``size`` vectors of accumulators, made by ``accumulators`` inside the kernel."""
    operations = vector_operations(FLOAT)
    clear, add_scaled, copy = operations.clear, operations.add_scaled, operations.copy
    columns, U = size * LANES, np.uintp

    @numba.njit(**OPTIONS)
    def kernel(x, b, y):
        acc = accumulators()
        for j in range(0, columns, LANES):
            clear(acc, U(j))
        for i in range(len(x)):
            for j in range(0, columns, LANES):
                add_scaled(acc, U(j), x[i], b, U(i) * U(columns) + U(j))
        for j in range(0, columns, LANES):
            copy(y, U(j), acc, U(j))

    x = np.ones(3, FLOAT)
    kernel(x, np.ones(3 * columns, FLOAT), y := np.zeros(columns, FLOAT))
    assert (y == 3).all()
    (assembly,) = kernel.inspect_asm().values()
    return assembly


def test_a_product_in_a_stack_array_is_accepted():
    assert refusal(product(8, stack_array(FLOAT, 8 * LANES)), "vfmadd231ps", 8) is None


def test_a_product_in_an_array_on_the_heap_is_refused():
    heap = numba.njit(**OPTIONS)(lambda: np.empty(8 * LANES, np.float32))
    assert refusal(product(8, heap), "vfmadd231ps", 8)


def test_a_product_with_more_accumulators_than_registers_is_refused():
    assert refusal(product(40, stack_array(FLOAT, 40 * LANES)), "vfmadd231ps", 40)


def test_narrow_vectors_stores_and_the_stack_are_refused():
    register = {16: "zmm", 8: "ymm"}[LANES]
    good = f".L1:\n\tvfmadd231ps\t(%rax), %{register}1, %{register}0\n\tincq\t%rax\n\tjne\t.L1\n"
    assert refusal(good, "vfmadd231ps", 1) is None
    assert "fewer than 2" in refusal(good, "vfmadd231ps", 2)
    assert "fewer than 1" in refusal(good.replace(register, "xmm"), "vfmadd231ps", 1)
    assert "stores" in refusal(good.replace("incq\t%rax", "vmovups\t%zmm0, (%rdx)"), "vfmadd231ps", 1)
    assert "stack" in refusal(good.replace("(%rax)", "64(%rsp)"), "vfmadd231ps", 1)
    assert "no innermost loop" in refusal(good.replace("jne\t.L1", "jne\t.L2\n.L2:"), "vfmadd231ps", 1)
