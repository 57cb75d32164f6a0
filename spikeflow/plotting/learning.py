"""What training does, and what it makes of the classes: curves, gradients, confusions."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from .. import logs
from ..ops.surrogate import MAKERS, Surrogate
from .style import (
    BLUE,
    CYCLE,
    SEQUENTIAL,
    SHADES,
    SMALL,
    VERMILLION,
    dress,
    figure_of,
    new_figure,
    numbers,
    one_axes,
    some_axes,
    some_of,
)

__all__ = ["confusion_matrix", "gradient_flow", "surrogates", "training_curves"]

MOST = 30  # classes whose cells have room for numbers
RANGE = 1e-10  # of the largest gradient: what is smaller has the lowest colour


def training_curves(metrics: list[dict] | str | os.PathLike, ax=None) -> FigureBase:
    """Training loss and test accuracy over iterations; and the test loss and training accuracy of epochs, where rows have them.

    Parameters
    ----------
    metrics : list of dict, or path
        The rows of a run's ``metrics.jsonl``; or that file, or the run's folder.
    ax : Axes or two of them, optional
        The loss goes into the first and the accuracy into the second; in a single one, the accuracy has a scale of its own at
        the right.

    Returns
    -------
    Figure
        That of the axes.
    """
    rows = _rows(metrics)
    evaluations = [row for row in rows if "test_accuracy" in row]
    steps = [row for row in rows if "train_loss" in row and "test_accuracy" not in row]
    shared = isinstance(ax, Axes)
    left, right = (ax, ax.twinx()) if shared else some_axes(ax, 2, 2, 4.5, 3.6)
    by_epoch = not shared and any("test_loss" in row for row in evaluations)
    _line(left, steps, "train_loss", color=BLUE, linewidth=0.8, label="each batch", alpha=0.5 if by_epoch else None)
    test = {"color": VERMILLION, "marker": "o", "markersize": 4, "label": "test set"}
    if by_epoch:
        _line(left, evaluations, "test_loss", **test)
        _line(right, evaluations, "train_accuracy", 100, color=BLUE, marker=".", label="training batches")
    _line(right, evaluations, "test_accuracy", 100, **test)
    final = f": {100 * evaluations[-1]['test_accuracy']:.2f} %" if evaluations else ""
    loss = {"ylabel": "loss", "title": "Loss"} if by_epoch else {"ylabel": "training loss", "title": "Loss of each batch"}
    dress(left, xlabel="iteration", **loss | ({"title": ""} if shared else {}))
    accuracy = "accuracy (%)" if by_epoch else "test accuracy (%)"
    dress(right, grid=not shared, ylabel=accuracy, title=f"Accuracy on the whole test set{final}", ylim=(0, 101))
    if by_epoch:
        left.legend(fontsize=SMALL, loc="upper right")
        right.legend(fontsize=SMALL, loc="lower right")
        right.set_xlim(left=0)
    if shared:
        left.yaxis.label.set_color(BLUE)
        right.yaxis.label.set_color(VERMILLION)
        right.spines["right"].set_visible(True)
    else:
        right.set_xlabel("iteration")
    return figure_of(left)


def _line(ax: Axes, rows: list[dict], key: str, factor: float = 1, **options) -> None:
    """Draw what the rows that have it say of ``key`` over the iterations."""
    points = [(row["iteration"], factor * row[key]) for row in rows if key in row]
    if points:
        ax.plot(*zip(*points, strict=True), **options)


def _rows(metrics) -> list[dict]:
    if isinstance(metrics, (str, os.PathLike)):
        path = Path(metrics)
        try:
            metrics = logs.read_rows(path / logs.ROWS if path.is_dir() else path)
        except ValueError as error:
            raise ValueError(f"metrics: {error}") from None
    if not isinstance(metrics, (list, tuple)) or not all(isinstance(row, dict) and "iteration" in row for row in metrics):
        raise ValueError(f'metrics must be a list of dicts with an "iteration", or a run folder, got {metrics!r:.80}')
    return metrics


def surrogates(functions: list[Surrogate] | Surrogate | None = None, axes=None, *, normalize: bool = True) -> FigureBase:
    """Surrogates over the distance from the threshold, from -2 to 2: derivatives at the left, primitives at the right.

    Parameters
    ----------
    functions : list of Surrogate, optional
        All of ``spikeflow.surrogate`` with their default constants by default.
    axes : two Axes, optional
    normalize : bool
        Divide both functions by the derivative's maximum, which the legend tells where it is not 1: the steepest would flatten
        all others.

    Returns
    -------
    Figure
        That of the axes.
    """
    functions = [make() for make in MAKERS] if functions is None else functions
    functions = [functions] if isinstance(functions, Surrogate) else list(functions)
    if not functions or not all(isinstance(function, Surrogate) for function in functions):
        raise ValueError(f"functions must be surrogates, got {functions!r:.80}")
    left, right = some_axes(axes, 2, 2, 6, 3.8)
    x = np.linspace(-2, 2, 2001)
    for index, function in enumerate(functions):
        derivative = function.of_array(function.derivative, x)
        peak = derivative.max() if normalize and derivative.max() > 0 else 1.0
        label = f"{function.name}({', '.join(f'{key}={value:g}' for key, value in function.params.items())})"
        label += "" if abs(peak - 1) < 1e-3 else f", peak {peak:.3g}"
        style = {"color": CYCLE[index % len(CYCLE)], "linestyle": ("-", "--", "-.", ":")[index % 4], "linewidth": 1.5}
        left.plot(x, derivative / peak, label=label, **style)
        if function.has_primitive:
            right.plot(x, function.of_array(function.primitive, x) / peak, **style)
    share = " / its peak" if normalize else ""
    for ax, title, symbol in ((left, "Derivative", "P'(x)"), (right, "Primitive", "P(x)")):
        ylabel = symbol + (share if ax is left else share.replace("its", "the derivative's"))
        dress(ax, title=title, xlabel="x = membrane − threshold", ylabel=ylabel, xlim=(-2, 2), xticks=range(-2, 3))
    handles, labels = left.get_legend_handles_labels()
    right.legend(handles, labels, fontsize=SMALL, loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0, handlelength=3)
    return figure_of(left)


def confusion_matrix(
    labels: np.ndarray, predictions: np.ndarray, classes=None, ax: Axes | None = None, normalize: bool = True
) -> Axes:
    """How often each class was taken for each.

    Parameters
    ----------
    labels, predictions : (N,) integers
    classes : int or sequence of str, optional
        Number or names of the classes; by default as many as occur.
    ax : Axes, optional
        The colour bar takes its room from them.
    normalize : bool
        Per cent of the label's samples instead of numbers.

    Returns
    -------
    Axes
        With a number in each cell, up to 30 classes.
    """
    pair = []
    for name, value in (("labels", labels), ("predictions", predictions)):
        pair.append(numbers(name, value, "(N,) integers", 1))
        if pair[-1].dtype.kind not in "ui" or pair[-1].min() < 0:
            raise ValueError(f"{name} must be integers from 0, got {pair[-1].dtype} from {pair[-1].min()}")
    labels, predictions = pair
    if labels.shape != predictions.shape:
        raise ValueError(f"predictions must have the labels' shape {labels.shape}, got {predictions.shape}")
    used = int(max(labels.max(), predictions.max())) + 1
    names = range(used) if classes is None else range(classes) if isinstance(classes, (int, np.integer)) else classes
    names = [str(name) for name in names]
    if len(names) < used:
        raise ValueError(f"classes must be at least {used}, the largest label or prediction being {used - 1}, got {len(names)}")

    size = len(names)
    counts = np.zeros((size, size), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    totals = counts.sum(axis=1, keepdims=True)
    values = 100 * counts / np.maximum(totals, 1) if normalize else counts
    side = max(0.46 * size, 2) if size <= MOST else 7
    ax = one_axes(ax, side + 1.9, side + 1.2, images=True)
    image = ax.imshow(values, cmap=SHADES, vmin=0, vmax=100 if normalize else max(counts.max(), 1), interpolation="nearest")
    if size <= MOST:
        for (label, prediction), value in np.ndenumerate(values):
            text = f"{value:.1f}" if normalize and 0 < value < 99.95 else f"{value:.0f}"
            color = _readable_on(image.cmap(image.norm(value)))
            ax.text(prediction, label, text, ha="center", va="center", color=color, fontsize=SMALL)
    shown = some_of(size, MOST)
    shown_names = [names[index] for index in shown]
    ax.set_yticks(shown, shown_names)
    upright = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, shown_names)) > 3 else {}
    ax.set_xticks(shown, shown_names, **upright)
    ax.set(xlabel="predicted class", ylabel="true class", title=f"accuracy {100 * np.mean(labels == predictions):.2f} %")
    ax.figure.colorbar(image, ax=ax, label="share of the true class (%)" if normalize else "samples")
    return ax


def _luminance(color) -> float:
    """Relative luminance of an RGB colour, as defined for the contrast of texts by WCAG 2."""
    channels = np.asarray(matplotlib.colors.to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _readable_on(background) -> str:
    """Black or white, whichever has the larger contrast."""
    luminance = _luminance(background)
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"


def gradient_flow(record: dict, axes=None) -> FigureBase:
    """Norms of the gradients, over time and depth: do they vanish, do they explode?

    Parameters
    ----------
    record : dict
        ``{layer: {"dspikes": (T, B, ...), "dmembrane": (T, B, ...)}}``, the layers in order. One kind of gradient
        may be missing, from all layers.
    axes : sequence of Axes, optional
        One for each kind of gradient, then one for each layer.

    Returns
    -------
    Figure
        That of the axes: for each kind of gradient a heat map, in which zero is grey, and for each layer a panel with a line for
        each kind, in which zero is a gap. What is below 1e-10 of the largest norm has the lowest colour.
    """
    norms = _gradient_norms(record)
    names, kinds = list(record), list(norms)
    found = np.stack(list(norms.values()))
    steps = found.shape[2]
    high = found.max() or 1.0
    smallest = found[found > 0].min(initial=high)
    low = min(max(smallest, RANGE * high), high / 100)  # less than two decades would have labels crowded between powers of ten
    if axes is None:
        axes = _gradient_axes(len(kinds), len(names))
    else:
        axes = some_axes(axes, len(kinds) + len(names), 1, 1, 1)
    maps, panels = axes[: len(kinds)], axes[len(kinds) :]

    cmap = matplotlib.colormaps[SEQUENTIAL].with_extremes(bad="0.8")
    shown = some_of(len(names), 12)
    for ax, kind in zip(maps, kinds, strict=True):
        image = ax.imshow(
            np.ma.masked_equal(norms[kind], 0), aspect="auto", interpolation="nearest", cmap=cmap, norm=LogNorm(low, high),
            extent=(-0.5, steps - 0.5, len(names) - 0.5, -0.5),
        )  # fmt: skip
        ax.set_yticks(shown, [names[index] for index in shown])
        ax.set(xlabel="time step", ylabel="layer" if ax is maps[0] else "", title=_name(kind))
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    maps[-1].figure.colorbar(image, ax=list(maps), label="norm (grey: 0)", extend="min" if smallest < low else "neither")

    for index, (ax, name) in enumerate(zip(panels, names, strict=True)):
        for kind, color, style in zip(kinds, (BLUE, VERMILLION), ("-", "--"), strict=False):
            line = norms[kind][index]
            ax.plot(np.where(line > 0, line, np.nan), style, color=color, marker=".", markersize=4, label=_name(kind))
        silent = not any(norms[kind][index].any() for kind in kinds)
        dress(
            ax, title=f"layer {name}" + (": all zero" if silent else ""), xlabel="time step", ylabel="norm" if index == 0 else ""
        )
        ax.title.set_fontsize(10)
        ax.set(yscale="log", xlim=(-0.5, steps - 0.5), ylim=(low / 2, high * 2))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panels[0].legend(fontsize=SMALL)
    return figure_of(maps[0])


def _name(kind: str) -> str:
    return f"dL/d{kind[1:]}"


def _gradient_norms(record) -> dict[str, np.ndarray]:
    """-> {kind: (layers, T)}: the Euclidean norm over all but time."""
    if not isinstance(record, dict) or not record or not all(isinstance(layer, dict) for layer in record.values()):
        raise ValueError(f"record must be a dict of dicts, with a layer or more, got {record!r:.80}")
    kinds = [kind for kind in ("dspikes", "dmembrane") if any(kind in layer for layer in record.values())]
    if not kinds:
        raise ValueError('record must hold "dspikes" or "dmembrane" for each layer')
    norms = {kind: [] for kind in kinds}
    for name, layer in record.items():
        for kind in kinds:
            if kind not in layer:
                raise ValueError(f'record[{name!r}] must hold "{kind}" as another layer does, got {sorted(layer)}')
            gradient = numbers(f"record[{name!r}][{kind!r}]", layer[kind], "(T, B, ...)", *range(2, 9))
            gradient = np.abs(gradient.reshape(len(gradient), -1).astype(np.float64))
            scale = gradient.max(axis=1)  # the squares of tiny numbers would be zero, of huge ones infinite
            norms[kind].append(scale * np.linalg.norm(gradient / np.where(scale > 0, scale, 1)[:, None], axis=1))
    steps = {len(norm) for of_kind in norms.values() for norm in of_kind}
    if len(steps) > 1:
        raise ValueError(f"record must have the same number of time steps everywhere, got {sorted(steps)}")
    return {kind: np.stack(of_kind) for kind, of_kind in norms.items()}


def _gradient_axes(kinds: int, layers: int) -> list[Axes]:
    """-> axes of a new figure: the heat maps above, four panels in a row below."""
    columns = min(layers, 4)
    rows = -(-layers // columns)
    top = 0.25 * min(max(layers, 3), 12) + 1.2
    upper, lower = new_figure(max(2.6 * columns, 4.2 * kinds), top + 2.1 * rows).subfigures(2, 1, height_ratios=(top, 2.1 * rows))
    maps = upper.subplots(1, kinds, sharey=True, squeeze=False).ravel()
    panels = lower.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for spare in panels[layers:]:
        spare.remove()
    for index, ax in enumerate(panels[:layers]):
        ax.tick_params(labelbottom=True, labelleft=index % columns == 0)
    return [*maps, *panels[:layers]]
