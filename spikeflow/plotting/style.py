"""What all pictures share: colours, new figures, checked arguments."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

# Okabe and Ito's palette, told apart by colour-blind readers too; its yellow is too pale for lines on white.
BLACK, ORANGE, SKY, GREEN, YELLOW = "#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442"
BLUE, VERMILLION, PURPLE, GREY = "#0072b2", "#d55e00", "#cc79a7", "#999999"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
SEQUENTIAL, DIVERGING, SHADES = "viridis", "RdBu_r", "Blues"  # colour maps: of values, of signed values, behind numbers
SMALL = 8  # points; nothing is smaller


def numbers(name: str, value, form: str, *ranks: int) -> np.ndarray:
    """-> value as an array of finite numbers with one of these numbers of axes, none empty; ValueError with its name if not.

    ``form`` says in the message what the axes should have been.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be {form}: {error}") from None
    if array.dtype.kind not in "buif":
        raise ValueError(f"{name} must be {form} of real numbers, got {array.dtype}")
    if array.ndim not in ranks or 0 in array.shape:
        raise ValueError(f"{name} must be {form} and not empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity")
    return array


def count(name: str, value) -> int:
    """-> value, an integer above 0; ValueError if it is none."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer above 0, got {value!r}")
    return int(value)


def new_figure(width: float, height: float, images: bool = False) -> Figure:
    """``images`` says that the axes' shapes are given by what is in them, so that they do not fill their room."""
    return Figure(figsize=(width, height), layout="compressed" if images else "constrained")


def one_axes(ax: Axes | None, width: float, height: float, images: bool = False) -> Axes:
    """-> ax, or the axes of a new figure of this size in inches."""
    if ax is None:
        return new_figure(width, height, images).subplots()
    if not isinstance(ax, Axes):
        raise ValueError(f"ax must be Matplotlib axes, got {ax!r}")
    return ax


def some_axes(axes, amount: int, columns: int, width: float, height: float, images: bool = False) -> list[Axes]:
    """-> ``axes`` as a list of this amount, or those of a new figure, each of this size in inches, row by row."""
    if axes is None:
        columns = min(columns, amount)
        rows = math.ceil(amount / columns)
        grid = new_figure(width * columns, height * rows, images).subplots(rows, columns, squeeze=False).ravel()
        for spare in grid[amount:]:
            spare.remove()
        return list(grid[:amount])
    found = list(np.ravel(np.asarray(axes, object)))
    if len(found) != amount or not all(isinstance(ax, Axes) for ax in found):
        kinds = sorted({type(ax).__name__ for ax in found})
        raise ValueError(f"axes must be {amount} Matplotlib axes, got {len(found)} of type {', '.join(kinds)}")
    return found


def figure_of(ax: Axes) -> Figure:
    """-> the whole figure that holds them, also if they are in a part of it."""
    return ax.figure.canvas.figure


def settle(figure: Figure) -> None:
    """Lay a figure out now, and not again when it is drawn."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def one_figure(fig: FigureBase | None, width: float, height: float) -> FigureBase:
    """-> fig, or a new figure of this size in inches."""
    if fig is not None and not isinstance(fig, FigureBase):
        raise ValueError(f"fig must be a Matplotlib figure, got {fig!r}")
    return new_figure(width, height) if fig is None else fig


def dress(ax: Axes, grid: bool = True, **properties) -> None:
    """Labels and limits of axes, and what all line pictures look like."""
    ax.set(**properties)
    if grid:
        ax.grid(alpha=0.3)
        ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def some_of(amount: int, most: int) -> range:
    """At most so many of the indices below ``amount``, evenly spaced: where ticks go without touching each other."""
    return range(0, amount, math.ceil(amount / most))
