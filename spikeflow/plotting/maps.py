"""Grids of small images: kernels, feature maps, and what a network's encoder makes of an image."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from .style import BLUE, DIVERGING, SEQUENTIAL, count, new_figure, numbers, one_axes, some_of

__all__ = ["encoder", "feature_maps", "filters"]


def filters(weight: np.ndarray, ax: Axes | None = None, *, columns: int | None = None) -> Axes:
    """The kernels of a convolution, in colours symmetric about 0: white is no weight.

    Parameters
    ----------
    weight : (O, C, K, L)
        An output channel is a column and an input channel a row; kernels of one input channel are set row by row.
    ax : Axes, optional
        The colour bar takes its room from them.
    columns : int, optional
        Of kernels, for one input channel; as near to a square as can be by default.

    Returns
    -------
    Axes
    """
    weight = numbers("weight", weight, "(O, C, K, L)", 4).astype(np.float64)
    outputs, channels = weight.shape[:2]
    wrapped = channels == 1
    if not wrapped and columns is not None:
        raise ValueError(f"columns is for weights with one input channel, got shape {weight.shape}")
    tiles = weight[:, 0] if wrapped else weight.swapaxes(0, 1).reshape(-1, *weight.shape[2:])
    columns = _columns(outputs, columns) if wrapped else outputs
    limit = float(np.abs(weight).max()) or 1.0
    ax, image = _mosaic(ax, tiles, columns, "output channel" if wrapped else None, cmap=DIVERGING, vmin=-limit, vmax=limit)
    if not wrapped:
        _number(ax.xaxis, outputs, weight.shape[3] + 1, 24)
        _number(ax.yaxis, channels, weight.shape[2] + 1, 12)
        ax.set(xlabel="output channel", ylabel="input channel")
    ax.figure.colorbar(image, ax=ax, label="weight")
    return ax


def feature_maps(images: np.ndarray, ax: Axes | None = None, *, columns: int | None = None) -> Axes:
    """Images side by side, each in the colours from its own smallest value to its largest.

    Parameters
    ----------
    images : (C, H, W) or (N, H, W)
        A map of equal values gets the darkest colour.
    ax : Axes, optional
        The colour bar takes its room from them.
    columns : int, optional
        As near to a square as can be by default.

    Returns
    -------
    Axes
    """
    images = numbers("images", images, "(N, H, W)", 3).astype(np.float64)
    low = images.min(axis=(1, 2), keepdims=True)
    span = images.max(axis=(1, 2), keepdims=True) - low
    tiles = (images - low) / np.where(span > 0, span, 1)
    ax, image = _mosaic(ax, tiles, _columns(len(images), columns), "map", cmap=SEQUENTIAL, vmin=0, vmax=1)
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_ticks([0, 1], labels=["smallest\nof the map", "largest\nof the map"])
    return ax


def encoder(image: np.ndarray, spikes: np.ndarray, *, columns: int | None = None) -> FigureBase:
    """An image, and what the first neurons have made of it after the first and after the last step: the sums of their spikes.

    The layers up to the first neurons turn an image into spikes: they are an encoder, which is learned.

    Parameters
    ----------
    image : (H, W)
    spikes : (T, C, H, W)
        A map for each channel, drawn from its own smallest sum in black to its largest in white. One of equal sums is black
        where nothing fired, else white.
    columns : int, optional
        Of maps; as near to a square as can be by default.

    Returns
    -------
    Figure
    """
    image = numbers("image", image, "(H, W)", 2)
    spikes = numbers("spikes", spikes, "(T, C, H, W)", 4)
    steps, channels, height, width = spikes.shape
    columns = _columns(channels, columns)
    rows = -(-channels // columns)
    inches = min(0.055, 10 / (columns * (width + 1)), 5 / (rows * (height + 1)))  # of a pixel
    inches = max(inches, 1.5 / (columns * (width + 1)))  # the titles need some room
    sums = np.cumsum(spikes, axis=0, dtype=np.float64)
    shown = {t: _normalised(sums[t]) for t in sorted({0, steps - 1})}

    across, down = inches * columns * (width + 1), inches * rows * (height + 1) + 0.53
    figure = new_figure(across + 2.4, max(len(shown) * down, 2.4) + 0.3, images=True)
    left, right = figure.subfigures(1, 2, width_ratios=(2.2, across + 0.2))
    ax = left.subplots()
    ax.imshow(image, cmap="gray", interpolation="nearest")
    ax.set(xticks=[], yticks=[], title="Input image")
    gray = matplotlib.colormaps["gray"].with_extremes(bad=BLUE)
    for ax, (t, maps) in zip(right.subplots(len(shown), 1, squeeze=False)[:, 0], shown.items(), strict=True):
        _mosaic(ax, maps, columns, None, cmap=gray, vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.set_title(rf"$\sum_t S_t$ at $t = {t}$", pad=12)  # the sum's index hangs low
    return figure


def _normalised(maps: np.ndarray) -> np.ndarray:
    """maps (C, H, W) -> each scaled to [0, 1]; those of one value as they are, but at most 1."""
    low, high = (extreme(axis=(1, 2), keepdims=True) for extreme in (maps.min, maps.max))
    return np.where(high > low, (maps - low) / np.where(high > low, high - low, 1), np.minimum(maps, 1))


def _columns(amount: int, columns: int | None) -> int:
    """-> the given number of columns, or one that fills all rows, and if there is none such near a square, the square's."""
    if columns is not None:
        return min(count("columns", columns), amount)
    square = math.ceil(math.sqrt(amount))
    return next((number for number in range(square, 2 * square) if amount % number == 0), square)


def _mosaic(ax: Axes | None, tiles: np.ndarray, columns: int, name: str | None, **options):
    """Draw tiles (N, H, W) as one image, with a gap of one pixel: hundreds of axes would take minutes. -> axes, image.

    With a name, each row is labelled with the indices of its tiles.
    """
    amount, height, width = tiles.shape
    rows = -(-amount // columns)
    picture = np.full((rows, height + 1, columns, width + 1), np.nan)
    for index, tile in enumerate(tiles):
        picture[index // columns, :height, index % columns, :width] = tile
    picture = picture.reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]
    inches = min(0.9 / width, 0.9 / height, 9 / picture.shape[1], 7 / picture.shape[0])
    inches = min(max(inches, 0.04), 20 / max(picture.shape))  # a pixel's: a kernel's weights can be told apart, in a page's size
    ax = one_axes(ax, max(3.5, inches * picture.shape[1] + 1.9), max(2, inches * picture.shape[0] + 0.7), images=True)
    image = ax.imshow(picture, interpolation="nearest", **options)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    if name:
        ax.set(xticks=[], ylabel=name)
        ranges = [(row * columns, min(amount, (row + 1) * columns) - 1) for row in range(rows)]
        _number(ax.yaxis, rows, height + 1, 24, [f"{first}–{last}" if last > first else str(first) for first, last in ranges])
    return ax, image


def _number(axis, amount: int, step: int, most: int, labels: list[str] | None = None) -> None:
    """Label the tiles along an axis, every n-th where all would touch each other."""
    shown = some_of(amount, most)
    axis.set_ticks([index * step + (step - 2) / 2 for index in shown], [labels[i] if labels else str(i) for i in shown])
