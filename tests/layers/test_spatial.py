from __future__ import annotations

import re

import numpy as np
import pytest

import spikeflow as sf

POSITIVE = [
    (lambda value: sf.Conv2d(value, 2, 3), "in_channels"),
    (lambda value: sf.Conv2d(2, value, 3), "out_channels"),
    (lambda value: sf.Conv2d(2, 2, value), "kernel_size"),
    (lambda value: sf.Conv2d(2, 2, 3, stride=value), "stride"),
    (lambda value: sf.Linear(value, 3), "in_features"),
    (lambda value: sf.Linear(3, value), "out_features"),
    (lambda value: sf.MaxPool2d(value), "kernel_size"),
    (lambda value: sf.MaxPool2d(2, stride=value), "stride"),
]


@pytest.mark.parametrize("make, name", POSITIVE, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize(
    "value, error",
    [(0, ValueError), (-1, ValueError), (2.0, TypeError), ("3", TypeError), (True, TypeError), ((2, 2), TypeError)],
    ids=repr,
)
def test_sizes_are_positive_integers(make, name, value, error):
    with pytest.raises(error, match=f"^{name} must be .* {re.escape(repr(value))}"):
        make(value)


@pytest.mark.parametrize("value, error", [(-1, ValueError), (0.5, TypeError), ("same", TypeError)])
def test_padding_is_a_natural_number(value, error):
    with pytest.raises(error, match="^padding must be"):
        sf.Conv2d(2, 2, 3, padding=value)


@pytest.mark.parametrize("name", ["dilation", "groups"])
@pytest.mark.parametrize("value", [2, 0, (1, 1), None])
def test_unsupported_options_of_torch(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be 1"):
        sf.Conv2d(2, 2, 3, **{name: value})
    sf.Conv2d(2, 2, 3, **{name: 1})


def test_largest_pooling_window():
    assert sf.MaxPool2d(15).kernel_size == 15
    with pytest.raises(ValueError, match="kernel_size must be at most 15, got 16"):
        sf.MaxPool2d(16)


def test_numpy_integers_are_integers():
    config = sf.Conv2d(np.int64(1), np.uint8(2), np.int32(3)).config()
    assert [type(config[key]) for key in ("in_channels", "out_channels", "kernel_size")] == [int] * 3


@pytest.mark.parametrize(
    "layer, shape, expected",
    [
        (sf.Conv2d(1, 12, 5), (1, 28, 28), (12, 24, 24)),
        (sf.Conv2d(2, 3, 3, stride=2), (2, 8, 9), (3, 3, 4)),
        (sf.Conv2d(2, 3, 3, padding=1), (2, 8, 9), (3, 8, 9)),
        (sf.Conv2d(2, 3, 5, padding=2), (2, 1, 1), (3, 1, 1)),
        (sf.MaxPool2d(2), (3, 5, 6), (3, 2, 3)),
        (sf.MaxPool2d(3, stride=2), (3, 7, 8), (3, 3, 3)),
        (sf.MaxPool2d(2, stride=3), (3, 7, 8), (3, 2, 3)),
        (sf.Flatten(), (64, 4, 4), (1024,)),
        (sf.Flatten(), (7,), (7,)),
        (sf.Linear(7, 2), (7,), (2,)),
    ],
    ids=lambda value: repr(value) if isinstance(value, sf.layers.Layer) else "x".join(map(str, value)),
)
def test_output_shape(layer, shape, expected):
    assert layer.output_shape(shape) == expected


BAD_SHAPES = [
    (lambda: sf.Conv2d(3, 4, 5), (1, 8, 8), "images of shape (3, H, W)"),
    (lambda: sf.Conv2d(3, 4, 5), (3, 4, 8), "padded images of at least 5 x 5"),
    (lambda: sf.Conv2d(3, 4, 5, padding=1), (3, 8, 2), "padded images of at least 5 x 5"),
    (lambda: sf.MaxPool2d(3), (1, 2, 8), "images of at least 3 x 3"),
    (lambda: sf.Linear(12, 4), (3, 2, 2), "rows of 12 features (a Flatten before it makes rows of images)"),
]


@pytest.mark.parametrize("make, shape, expected", BAD_SHAPES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_shape_error_names_the_layer_and_what_it_expects(backend, make, shape, expected):
    layer = make()
    net = sf.Sequential(sf.Leaky(0.5), layer, sf.Leaky(0.5), backend=backend)
    message = f"layer 1 ({layer!r}) expects {expected}, got an input of shape {shape} per sample"
    with pytest.raises(ValueError, match=re.escape(message)):
        net.forward(np.zeros((2, *shape), np.float32), num_steps=2)


def test_wrong_number_of_features_names_the_layer(backend):
    net = sf.Sequential(sf.Linear(4, 5), sf.Linear(6, 3), sf.Leaky(0.5), backend=backend)
    with pytest.raises(ValueError, match=r"layer 1 \(Linear\(6, 3\)\) expects rows of 6 features, got .* \(5,\)"):
        net.forward(np.zeros((2, 4), np.float32), num_steps=2)
    net = sf.Sequential(sf.Linear(4, 5), sf.MaxPool2d(2), sf.Leaky(0.5), backend=backend)
    with pytest.raises(ValueError, match=r"layer 1 \(MaxPool2d\(2.*\)\) expects images of at least 2 x 2, got .* \(5,\)"):
        net.forward(np.zeros((2, 4), np.float32), num_steps=2)
