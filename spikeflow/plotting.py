"""Pictures, as Matplotlib figures: nothing here touches pyplot's global state."""

from __future__ import annotations

from matplotlib.figure import Figure

__all__ = ["training_curves"]

BLUE, ORANGE = "#0072b2", "#d55e00"  # of Okabe and Ito's palette, told apart by colour-blind readers too


def training_curves(rows: list[dict]) -> Figure:
    """Training loss and test accuracy over iterations.

    Parameters
    ----------
    rows : list of dict
        The lines of a run's ``metrics.jsonl``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    steps = [(row["iteration"], row["train_loss"]) for row in rows if "train_loss" in row]
    evaluations = [(row["iteration"], 100 * row["test_accuracy"]) for row in rows if "test_accuracy" in row]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    if steps:
        left.plot(*zip(*steps, strict=True), color=BLUE, linewidth=0.8)
    left.set(xlabel="iteration", ylabel="training loss (nats)", title="Loss of each batch")
    if evaluations:
        right.plot(*zip(*evaluations, strict=True), color=ORANGE, marker="o", markersize=4)
    final = f": {evaluations[-1][1]:.2f} %" if evaluations else ""
    right.set(xlabel="iteration", ylabel="test accuracy (%)", title=f"Accuracy on the whole test set{final}", ylim=(0, 101))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
