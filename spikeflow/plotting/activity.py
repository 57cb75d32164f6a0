"""What neurons do: spikes, membranes, firing rates."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from .style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    SMALL,
    VERMILLION,
    count,
    dress,
    figure_of,
    numbers,
    one_axes,
    one_figure,
    settle,
    some_axes,
)

__all__ = ["firing_rates", "raster", "traces"]


def raster(spikes: np.ndarray, ax: Axes | None = None, *, color=BLUE, size: float | None = None) -> Axes:
    """A mark for every spike: time steps from left to right, neurons from bottom to top.

    Parameters
    ----------
    spikes : (T, N), or (T, ...) of one sample, flattened
        Anything but 0 is a spike.
    ax : Axes, optional
    color : Matplotlib colour
    size : float, optional
        Height of a mark in points; by default what the number of neurons leaves room for.

    Returns
    -------
    Axes
    """
    spikes = numbers("spikes", spikes, "(T, N) or (T, ...)", *range(2, 9))
    steps = len(spikes)
    spikes = spikes.reshape(steps, -1)
    neurons = spikes.shape[1]
    ax = one_axes(ax, 8, 3.6)
    box = ax.get_window_extent()
    points = 72 / ax.figure.dpi
    if size is None:
        size = np.clip(0.7 * box.height * points / neurons, 1.5, 12)
    width = np.clip(0.4 * box.width * points / steps, 0.5, 1.5)
    ax.scatter(*np.nonzero(spikes), s=size**2, marker="|", linewidths=width, color=color, rasterized=spikes.size > 100_000)
    dress(ax, xlabel="time step", ylabel="neuron", xlim=(-0.5, steps - 0.5), ylim=(-0.5, neurons - 0.5), grid=False)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return ax


def traces(
    membrane: np.ndarray,
    spikes: np.ndarray | None = None,
    threshold: float | np.ndarray | None = None,
    dim: tuple[int, int] = (3, 3),
    fig: FigureBase | None = None,
) -> FigureBase:
    """Membranes of the first neurons, a panel for each, with the threshold as a line and a mark above for every spike.

    Parameters
    ----------
    membrane : (T, N)
    spikes : (T, N), optional
        Anything but 0 is a spike.
    threshold : float or (N,), optional
    dim : (rows, columns)
        Of panels; fewer are drawn where there are fewer neurons.
    fig : Figure or SubFigure, optional
        To add the panels to; made with ``layout="constrained"``, it has room for the legend above them.

    Returns
    -------
    Figure, or ``fig``
    """
    membrane = numbers("membrane", membrane, "(T, N)", 2).astype(np.float64)
    steps, neurons = membrane.shape
    if spikes is not None:
        spikes = numbers("spikes", spikes, "(T, N)", 2)
        if spikes.shape != membrane.shape:
            raise ValueError(f"spikes must have the membrane's shape {membrane.shape}, got {spikes.shape}")
    if threshold is not None:
        threshold = numbers("threshold", threshold, "a number or (N,)", 0, 1).astype(np.float64)
        if threshold.shape not in ((), (neurons,)):
            raise ValueError(f"threshold must be a number or of shape ({neurons},), got {threshold.shape}")
        threshold = np.broadcast_to(threshold, neurons)
    if np.shape(dim) != (2,):
        raise ValueError(f"dim must be (rows, columns), got {dim!r}")
    rows, columns = (count("dim", number) for number in dim)
    shown = min(neurons, rows * columns)
    columns = min(columns, shown)
    rows = -(-shown // columns)

    given, fig = fig, one_figure(fig, 3 * columns + 0.4, 1.6 * rows + 0.7)
    grid = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    values = [membrane[:, :shown].ravel()] + ([] if threshold is None else [threshold[:shown]])
    low, high = np.min(np.concatenate(values)), np.max(np.concatenate(values))
    span = float(high - low) or 1.0
    for neuron, ax in enumerate(grid.ravel()):
        if neuron >= shown:
            ax.remove()
            continue
        (line,) = ax.plot(membrane[:, neuron], color=BLUE, linewidth=1.2)
        legend = {"membrane": line}
        if threshold is not None:
            legend["threshold"] = ax.axhline(threshold[neuron], color=BLACK, linestyle="--", linewidth=0.9)
        if spikes is not None:
            when = np.flatnonzero(spikes[:, neuron])
            marks = {"color": VERMILLION, "markersize": 7, "markeredgewidth": 1.3}
            (legend["spike"],) = ax.plot(when, np.full(len(when), high + 0.14 * span), "|", **marks)
        last_row, first_of_row = neuron // columns == rows - 1, neuron % columns == 0
        dress(
            ax,
            title=f"neuron {neuron}",
            xlabel="time step" if last_row else "",
            ylabel="membrane" if first_of_row else "",
            xlim=(-0.5, steps - 0.5),
            ylim=(low - 0.08 * span, high + 0.26 * span),
        )
        ax.title.set_fontsize(10)
        ax.tick_params(labelbottom=last_row, labelleft=first_of_row)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    fig.legend(legend.values(), legend, loc="outside upper center", ncols=3, frameon=False)
    above_nothing = range(shown - columns, (rows - 1) * columns)  # panels without one below: their labels go into its room,
    if above_nothing and given is None:  # which a layout that knew of them would not allow
        settle(fig)
    for neuron in above_nothing:
        grid.flat[neuron].tick_params(labelbottom=True)
        grid.flat[neuron].set_xlabel("time step")
    return fig


def firing_rates(record: dict, axes=None, *, bins: int = 20) -> FigureBase:
    """Histogram of the neurons' firing rates, a panel for each layer.

    Neurons that never fire (dead) and neurons that fire at every step (saturated) hardly learn: each of these two kinds has a bar
    of its own, beside the others', and its number in the title.

    Parameters
    ----------
    record : dict
        What ``Sequential.record`` returned, ``{layer: {"spikes": (T, B, ...), ...}}``: rates are over steps and samples; or
        ``{layer: (N,)}``, rates from 0 to 1.
    axes : sequence of Axes, optional
        One for each layer.
    bins : int

    Returns
    -------
    Figure
        That of the axes.
    """
    bins = count("bins", bins)
    if not isinstance(record, dict) or not record:
        raise ValueError(f"record must be a dict with a layer or more, got {record!r:.80}")
    rates = {name: _rates(name, layer) for name, layer in record.items()}
    axes = some_axes(axes, len(rates), 4, 3.2, 2.9)
    moderate = {name: of_layer[(of_layer > 0) & (of_layer < 1)] for name, of_layer in rates.items()}
    top = max([of_layer.max(initial=0.0) for of_layer in moderate.values()]) or 1.0
    if any((of_layer == 1).any() for of_layer in rates.values()):
        top = 1.0
    width = top / bins
    for ax, (name, of_layer) in zip(axes, rates.items(), strict=True):
        dead, saturated = int((of_layer == 0).sum()), int((of_layer == 1).sum())
        ax.hist(moderate[name], bins=np.linspace(0, top, bins + 1), color=BLUE, label="others")
        ax.bar(-1.5 * width, dead, 1.6 * width, color=GREY, hatch="//", edgecolor="white", linewidth=0, label="never fires")
        if top == 1:
            ax.bar(1 + 1.5 * width, saturated, 1.6 * width, color=ORANGE, label="always fires")
        title = f"layer {name}: {of_layer.size} neurons\n{dead} never fire, {saturated} always"
        dress(ax, title=title, xlabel="firing rate (spikes per step)", xlim=(-3 * width, top + (3 if top == 1 else 1) * width))
        ax.title.set_fontsize(10)
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes[0].set_ylabel("neurons")
    axes[-1].legend(fontsize=SMALL)
    return figure_of(axes[0])


def _rates(name, layer) -> np.ndarray:
    """-> the rates (N,) of one layer of ``firing_rates``'s record."""
    if isinstance(layer, dict):
        if "spikes" not in layer:
            raise ValueError(f'record[{name!r}] must hold "spikes", got {sorted(layer)}')
        spikes = numbers(f"record[{name!r}]['spikes']", layer["spikes"], "(T, B, ...)", *range(3, 9))
        return (spikes != 0).mean(axis=(0, 1)).ravel()
    rates = numbers(f"record[{name!r}]", layer, "rates (N,)", 1)
    if rates.min() < 0 or rates.max() > 1:
        raise ValueError(f"record[{name!r}] must hold rates from 0 to 1, got {rates.min()} to {rates.max()}")
    return rates
