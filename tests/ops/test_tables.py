"""Convolution and linear layers by tables of partial sums, against the kernels for events and the dense ones.

Forward the sums are of whole numbers, so equality means equal bits for weights of any kind. Gradients are compared on dyadic
numbers, whose sums are exact in any order, and by their norm on others.
"""

import functools

import numpy as np
import pytest
from spikes import draw_spikes, dyadic, merge, pack
from test_registers import LANES, refusal
from test_registers import pytestmark as reads_machine_code

from spikeflow.ops.conv2d import tables
from spikeflow.ops.conv2d.cpu import Packed, conv2d_backward, conv2d_pack, whole_numbers
from spikeflow.ops.conv2d.events import conv2d_forward_events
from spikeflow.ops.events import SpikeWords

# T, B, H, W, C, O, K, stride, padding: few shapes of tiles, since each is compiled
CASES = [
    (4, 3, 6, 5, 7, 9, 3, 1, 1),
    (5, 7, 9, 7, 8, 20, 3, 2, 1),
    (70, 2, 5, 5, 6, 70, 5, 1, 0),
    (64, 1, 4, 6, 40, 16, 2, 3, 2),
    (1, 64, 3, 18, 39, 3, 1, 1, 1),
    (3, 20, 4, 9, 33, 5, 4, 1, 3),
    (129, 1, 3, 3, 5, 4, 3, 1, 1),
]


class Case:
    """Spikes, weights that are no dyadic numbers, and a bias."""

    def __init__(self, T, B, H, W, C, O, K, stride, padding, dtype=np.float32):
        self.rng = np.random.default_rng(T + C)
        self.spikes = draw_spikes(self.rng, (T, B, H, W, C), 0.4)
        self.weight = self.rng.normal(size=(O, C, K, K)).astype(dtype)
        self.packed, self.bias = conv2d_pack(self.weight), self.rng.normal(size=O).astype(dtype)
        self.geometry = self.packed, stride, padding
        height, width = (H + 2 * padding - K) // stride + 1, (W + 2 * padding - K) // stride + 1
        self.shape = T, B, height, width, O

    def forward(self, operation=tables.conv2d_forward_tables, spikes=None, bias=None):
        return operation(pack(self.spikes) if spikes is None else spikes, self.packed, bias, *self.geometry[1:])

    def dweight(self, dy, spikes=None):
        """-> the gradient, added to ones."""
        gradient = np.ones_like(self.weight)
        tables.conv2d_dweight_tables(dy, pack(self.spikes) if spikes is None else spikes, *self.geometry, gradient)
        return gradient

    def dense_dweight(self, dy):
        """-> the gradient in the type of dy, added to ones."""
        gradient, spikes = np.ones(self.weight.shape, dy.dtype), self.spikes.astype(dy.dtype)
        packed = Packed(self.weight.astype(dy.dtype))
        conv2d_backward(merge(dy), merge(spikes), packed, *self.geometry[1:], gradient, None, False)
        return gradient


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, case)))
def case(request):
    return Case(*request.param)


@pytest.mark.parametrize("biased", [True, False])
def test_forward_gives_the_bits_of_events(case, biased):
    bias = case.bias if biased else None
    assert case.packed.units[0].dtype == np.int32
    y = case.forward(bias=bias)
    np.testing.assert_array_equal(y, case.forward(conv2d_forward_events, bias=bias), strict=True)
    assert y.shape == case.shape and y.any()


def test_weight_gradient_of_dyadic_numbers_is_the_dense_one(case):
    dy = dyadic(case.rng, *case.shape)
    np.testing.assert_array_equal(case.dweight(dy), case.dense_dweight(dy), strict=True)


def test_weight_gradient_of_any_numbers(case):
    dy = case.rng.normal(size=case.shape)
    exact = case.dense_dweight(dy) - 1
    assert np.linalg.norm(case.dweight(dy.astype(np.float32)) - 1 - exact) <= 2e-6 * np.linalg.norm(exact)


def test_a_kernel_that_is_no_square():
    case = Case(*CASES[0])
    case.weight = np.ascontiguousarray(case.weight[:, :, :2])
    case.packed = conv2d_pack(case.weight)
    case.geometry, case.shape = (case.packed, 1, 1), (4, 3, 7, 5, 9)
    np.testing.assert_array_equal(case.forward(), case.forward(conv2d_forward_events), strict=True)
    dy = dyadic(case.rng, *case.shape)
    np.testing.assert_array_equal(case.dweight(dy), case.dense_dweight(dy))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_words_of_any_width(dtype):
    case = Case(*CASES[1])
    words = SpikeWords(pack(case.spikes).words.astype(dtype), len(case.spikes))
    dy = dyadic(case.rng, *case.shape)
    np.testing.assert_array_equal(case.forward(spikes=words), case.forward())
    np.testing.assert_array_equal(case.dweight(dy, words), case.dweight(dy))


def test_steps_in_several_narrow_words():
    case = Case(*CASES[2])
    steps = np.pad(case.spikes, [(0, 2), *[(0, 0)] * 4]).astype(bool).reshape(9, 8, *case.spikes.shape[1:])
    words = SpikeWords(np.packbits(steps, axis=1, bitorder="little")[:, 0], 70)
    dy = dyadic(case.rng, *case.shape)
    np.testing.assert_array_equal(case.forward(spikes=words), case.forward())
    np.testing.assert_array_equal(case.dweight(dy, words), case.dweight(dy))


def test_double_precision():
    case = Case(*CASES[0], dtype=np.float64)
    dy = case.rng.normal(size=case.shape)
    np.testing.assert_array_equal(case.forward(), case.forward(conv2d_forward_events), strict=True)
    np.testing.assert_allclose(case.dweight(dy), case.dense_dweight(dy), rtol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30], ids=str)
def test_weights_that_are_no_numbers_or_huge(value):
    case = Case(*CASES[0])
    case.packed.weight[3, 2, 1, 1] = value
    y = case.forward()
    np.testing.assert_array_equal(y, case.forward(conv2d_forward_events), strict=True)
    assert np.isfinite(np.delete(y, 3, -1)).all() and np.isfinite(y[..., 3]).all() == np.isfinite(value)


def test_a_gradient_that_is_no_number_reaches_who_spiked_then():
    case = Case(*CASES[0])
    dy = np.zeros(case.shape, np.float32)
    dy[2, 1, 3, 2, 4] = np.nan
    window = case.spikes[2, 1, 2:5, 1:4].transpose(2, 0, 1)
    expected = np.ones_like(case.weight)
    expected[4][window == 1] = np.nan
    np.testing.assert_array_equal(case.dweight(dy), expected)


# ---------------------------------------------------------------------------------------------- linear layers


class Rows:
    """Spikes behind a Flatten, and a linear layer's weight, whose features are (C, H, W)."""

    def __init__(self, T, B, image, O, dtype=np.float32):
        self.rng = np.random.default_rng(T + O)
        H, W, C = image
        self.spikes = draw_spikes(self.rng, (T, B, *image), 0.4)
        self.flat = merge(self.spikes.transpose(0, 1, 4, 2, 3)).reshape(T * B, -1)
        self.weight = self.rng.normal(size=(O, C * H * W)).astype(dtype)
        self.bias, self.image = self.rng.normal(size=O).astype(dtype), (C, H, W)
        self.rows = tables.spike_rows(pack(self.spikes))

    def forward(self, size):
        """-> y of slices of ``size`` outputs."""
        parts = [slice(first, first + size) for first in range(0, len(self.weight), size)]
        weight, bias = self.weight, self.bias
        return np.concatenate([tables.linear_forward_tables(self.rows, weight[some], bias[some]) for some in parts], -1)

    def events(self):
        packed = conv2d_pack(self.weight.reshape(-1, *self.image))
        return conv2d_forward_events(pack(self.spikes), packed, self.bias, 1, 0)[:, :, 0, 0]


@pytest.fixture(params=[(4, 5, (3, 2, 16), 24), (5, 3, (3, 3, 7), 9)], ids=["whole vectors", "padded"])
def linear(request):
    return Rows(*request.param)


@pytest.mark.parametrize("size", [24, 8, 5])
def test_linear_forward_gives_the_bits_of_events_whatever_the_slices(linear, size):
    np.testing.assert_array_equal(linear.forward(size), linear.events(), strict=True)


@pytest.mark.parametrize("value", [1e30, np.inf], ids=str)
def test_one_output_of_another_kind_does_not_change_the_bits_of_others(linear, value):
    before = linear.forward(8)
    linear.weight[6, 3] = value
    y = linear.forward(8)
    np.testing.assert_array_equal(y, linear.events(), strict=True)
    np.testing.assert_array_equal(np.delete(y, 6, -1), np.delete(before, 6, -1))


def test_linear_forward_in_double_precision():
    linear = Rows(4, 5, (3, 2, 16), 24, np.float64)
    np.testing.assert_array_equal(linear.forward(8), linear.events(), strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_linear_weight_gradient(linear, dtype):
    T, B = linear.spikes.shape[:2]
    dy = dyadic(linear.rng, T, B, len(linear.weight)).astype(dtype)
    gradient = np.ones(linear.weight.shape, dtype)
    for some in (slice(0, 8), slice(8, None)):
        tables.linear_dweight_tables(dy[..., some], linear.rows, gradient[some])
    np.testing.assert_array_equal(gradient, 1 + merge(dy).T @ linear.flat)


def test_rows_without_an_image():
    linear = Rows(4, 5, (1, 1, 40), 8)
    rows = tables.spike_rows(pack(linear.spikes.reshape(4, 5, 40)), backward=False)
    assert rows.steps is None
    y = tables.linear_forward_tables(rows, linear.weight, None)
    np.testing.assert_array_equal(y, tables.linear_forward_tables(linear.rows, linear.weight, None))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("O", [5, 300])
def test_input_gradient_of_a_wide_linear_layer(dtype, O):
    rng = np.random.default_rng(O)
    T, B, H, W, C = image = 2, 7, 3, 2, 20
    dy, weight = dyadic(rng, T, B, O).astype(dtype), dyadic(rng, O, C * H * W).astype(dtype)
    panels, expected = tables.dx_panels(dy), dy @ weight
    rows, images = np.full((T, B, C * H * W), np.nan, dtype), np.full(image, np.nan, dtype)
    for some in (slice(0, 60), slice(60, None)):
        tables.linear_dx_wide(panels, weight, some, rows)
    for some in (slice(0, 10), slice(10, 20)):
        tables.linear_dx_wide(panels, weight, some, images)
    np.testing.assert_array_equal(rows, expected, strict=True)
    np.testing.assert_array_equal(images.transpose(0, 1, 4, 2, 3).reshape(rows.shape), expected, strict=True)


# ---------------------------------------------------------------------------------------------- whole numbers


@pytest.mark.parametrize("n", [1, 63, 1152, 6272])
def test_whole_numbers_fit_and_stay_close(n):
    weight = np.random.default_rng(n).uniform(-1, 1, (9, n)).astype(np.float32)
    weight[0], weight[1] = 1, 0
    units, scale = whole_numbers(weight)
    assert units.dtype == np.int32 and abs(units.astype(np.int64)).sum(1).max() < 2**31
    assert (np.frexp(scale)[0] == 0.5).all()
    error = abs(units * scale[:, None].astype(np.float64) - weight)
    assert (error <= scale[:, None] / 2).all()
    assert (scale <= 2.0**-30 * abs(weight).sum(1, dtype=np.float64) * (1 + 1e-5))[weight.any(1)].all()


def test_whole_numbers_of_a_part_are_those_of_the_whole():
    weight = np.random.default_rng(0).normal(size=(9, 200)).astype(np.float32)
    weight[4, 7] = 1e8
    units, scale = whole_numbers(weight)
    assert units.dtype == np.float64
    for o in range(9):
        part, of_part = whole_numbers(weight[o : o + 1])
        assert part.dtype == (np.float64 if o == 4 else np.int32)
        np.testing.assert_array_equal(part[0], units[o])
        assert of_part == scale[o]


def test_whole_numbers_err_as_little_as_sums_in_single_precision():
    """Of a third of 1152 inputs: the error of a sum is at most that of float32 additions, one after the other."""
    rng = np.random.default_rng(0)
    weight = rng.uniform(-1, 1, (400, 1152)).astype(np.float32)
    chosen = rng.random(1152) < 1 / 3
    units, scale = whole_numbers(weight)
    exact = weight[:, chosen].sum(1, dtype=np.float64)
    ours = units[:, chosen].sum(1, dtype=np.int64) * scale.astype(np.float64) - exact
    plain = np.cumsum(weight[:, chosen], axis=1)[:, -1] - exact
    assert np.linalg.norm(ours) <= np.linalg.norm(plain)


# ---------------------------------------------------------------------------------------------- machine code


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """-> a function of a factory's name and its arguments -> the assembly of its kernel, compiled in this test."""
    monkeypatch.setenv("SPIKEFLOW_CACHE_DIR", str(tmp_path / "jit"))
    for name in ("make_forward", "make_dweight"):
        monkeypatch.setattr(tables, name, functools.cache(getattr(tables, name).__wrapped__))

    def assembly(name, *arguments):
        (text,) = getattr(tables, name)(*arguments).inspect_asm().values()
        return text

    return assembly


@reads_machine_code
@pytest.mark.skipif(LANES != 16, reason="fewer than 32 registers")
def test_look_ups_and_sums_stay_in_registers(compiled):
    T, B, O, R = 4, tables.TILE * LANES // 4, 8, tables.TILE
    C = tables.TILE * LANES
    spikes = pack(draw_spikes(np.random.default_rng(0), (T, B, 3, 3, C), 0.3))
    packed = conv2d_pack(dyadic(np.random.default_rng(0), O, C, 3, 3))
    tables.conv2d_forward_tables(spikes, packed, None, 1, 1)
    tables.conv2d_dweight_tables(np.ones((T, B, 3, 3, O), np.float32), spikes, packed, 1, 1, packed.weight.copy())
    look_up, sums = r"vperm(d|ps)\s", R * tables.Q
    assert refusal(compiled("make_forward", R), "vpaddd", sums, besides=look_up) is None
    assert refusal(compiled("make_dweight", R), "vaddps", sums // 2, besides=look_up) is None
    assert refusal(compiled("make_dweight", R), "vfmadd", sums // 2, besides=look_up) is None
