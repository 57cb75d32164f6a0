"""Animations, and their files."""

from __future__ import annotations

import html
import math
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
from matplotlib import animation as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ..files import atomic_write
from .style import BLUE, SKY, VERMILLION, count, dress, figure_of, numbers, one_axes, settle, some_axes, some_of

__all__ = ["animator", "save_animation", "spike_count"]

FORMATS = (".gif", ".html", ".mp4")
# The player's buttons are pictures from a server, which a file that is opened offline has not got: characters instead.
ICONS = {
    "minus": "&minus;", "plus": "+", "pause": "||", "play": "&#9654;", "play fa-flip-horizontal": "&#9664;",
    "fast-backward": "&laquo;", "step-backward": "&lsaquo;", "step-forward": "&rsaquo;", "fast-forward": "&raquo;",
}  # fmt: skip


def spike_count(
    spikes: np.ndarray,
    labels: list[str] | None = None,
    interpolate: int = 5,
    ax: Axes | None = None,
    *,
    interval: float = 40,
) -> mpl.FuncAnimation:
    """Bars that grow with each output neuron's spikes; the leading one is highlighted, of equals the first.

    Parameters
    ----------
    spikes : (T, C)
        Of one sample.
    labels : sequence of C str, optional
        Names of the classes, their indices by default.
    interpolate : int
        Frames for each time step, in which the bars grow evenly: T * interpolate frames, and one before the first step.
    ax : Axes, optional
    interval : float
        Milliseconds between frames when shown in a window.

    Returns
    -------
    matplotlib.animation.FuncAnimation
        Keep it until it is shown or saved.
    """
    spikes = numbers("spikes", spikes, "(T, C)", 2)
    interpolate = count("interpolate", interpolate)
    steps, classes = spikes.shape
    labels = [str(index) for index in range(classes)] if labels is None else [str(label) for label in labels]
    if len(labels) != classes:
        raise ValueError(f"labels must be {classes} names, got {len(labels)}")
    counts = np.concatenate([np.zeros((1, classes)), np.cumsum(spikes, axis=0, dtype=np.float64)])

    given, ax = ax, one_axes(ax, 7, min(max(0.28 * classes + 1.2, 2.5), 12))
    bars = ax.barh(np.arange(classes), np.zeros(classes), color=SKY)
    numerals = [ax.text(0, index, "", va="center") for index in range(classes)]
    right = max(counts.max(), 1)
    dress(ax, xlabel="spikes so far", ylabel="class", xlim=(0, 1.1 * right), ylim=(-0.6, classes - 0.4))
    shown = some_of(classes, 36)
    ax.set_yticks(shown, [labels[index] for index in shown])
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.grid(False, axis="y")

    def draw(frame):
        step, part = divmod(frame, interpolate)
        now = counts[step] + part / interpolate * (counts[min(step + 1, steps)] - counts[step])
        leader = now.argmax() if now.any() else None
        for index, (bar, numeral) in enumerate(zip(bars, numerals, strict=True)):
            bar.set_width(now[index])
            bar.set_color(VERMILLION if index == leader else SKY)
            numeral.set_position((now[index] + 0.012 * right, index))
            numeral.set_text(f"{counts[step, index]:g}" if index in shown else "")
            numeral.set_fontweight("bold" if index == leader else "normal")
        ax.set_title(f"step {step} of {steps}")
        return [*bars, *numerals, ax.title]

    return _animation(ax, given is None, draw, steps * interpolate + 1, interval)


def animator(
    frames: np.ndarray, axes=None, *, polarities: tuple[str, str] | None = None, cmap: str = "gray", interval: float = 40
) -> mpl.FuncAnimation:
    """A sequence of images, such as the spikes that an image was encoded as, or events.

    Parameters
    ----------
    frames : (T, H, W) or (T, C, H, W)
        Channels are shown side by side, in the same colours.
    axes : Axes or a sequence of them, optional
        One for each channel; one in all with ``polarities``.
    polarities : pair of str, optional
        Names of two channels, drawn in one picture: the first in vermillion, the second in blue, where both are it is dark.
    cmap : str
        Colour map, from the smallest value of all frames, if that is below 0, else 0, to the largest.
    interval : float
        Milliseconds between frames when shown in a window.

    Returns
    -------
    matplotlib.animation.FuncAnimation
        Keep it until it is shown or saved.
    """
    frames = numbers("frames", frames, "(T, H, W) or (T, C, H, W)", 3, 4)
    if frames.ndim == 3:
        frames = frames[:, None]
    steps, channels, height, width = frames.shape
    low, high = min(frames.min(), 0), frames.max()
    if polarities is not None:
        if np.shape(polarities) != (2,) or channels != 2:
            raise ValueError(f"polarities must be two names for frames (T, 2, H, W), got {polarities!r} for {frames.shape}")
        if low < 0:
            raise ValueError(f"frames must not be negative to be drawn with polarities, got {low}")
        ink = 1 - np.array([to_rgb(VERMILLION), to_rgb(BLUE)])
        scaled = frames / (high or 1)
        channels = 1

    inches = min(max(11 / channels, 1.6), 3.2)
    above = 0.45 if channels > 1 or polarities is not None else 0.1
    given, axes = axes, some_axes(axes, channels, channels, inches, inches * height / width + above + 0.25, images=True)
    caption = axes[0].figure.supxlabel("", fontsize="medium") if given is None else axes[0].xaxis.label

    def picture(step, channel):
        if polarities is None:
            return frames[step, channel]
        return np.clip(1 - np.einsum("phw,pc->hwc", scaled[step], ink), 0, 1)

    images = []
    for channel, ax in enumerate(axes):
        images.append(ax.imshow(picture(0, channel), cmap=cmap, vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest"))
        ax.set(xticks=[], yticks=[], title=f"channel {channel}" if channels > 1 else "")
    if polarities is not None:
        patches = [Patch(color=color, label=name) for color, name in zip((VERMILLION, BLUE), polarities, strict=True)]
        axes[0].legend(handles=patches, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)

    def draw(step):
        for channel, image in enumerate(images):
            image.set_data(picture(step, channel))
        caption.set_text(f"step {step + 1} of {steps}")
        return [*images, caption]

    return _animation(axes[0], given is None, draw, steps, interval)


def _animation(ax: Axes, own: bool, draw, frames: int, interval: float) -> mpl.FuncAnimation:
    figure = figure_of(ax)
    draw(frames - 1)  # where texts are longest
    if own:
        settle(figure)  # laid out for every frame, the axes would tremble as texts change
    return mpl.FuncAnimation(figure, draw, frames, interval=interval, cache_frame_data=False)


def check_format(path: str | os.PathLike) -> str:
    """-> the suffix of an animation's file; ValueError if there is no such format, RuntimeError for .mp4 without ffmpeg."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"path must end in one of {', '.join(FORMATS)}, got {str(path)!r}")
    if suffix == ".mp4" and not mpl.FFMpegWriter.isAvailable():
        raise RuntimeError(f"{str(path)!r} needs the program ffmpeg, which was not found: save to a .gif or .html file instead")
    return suffix


def save_animation(animation: mpl.Animation, path: str | os.PathLike, fps: float = 25, dpi: float = 100) -> None:
    """Write an animation to a file, whole or not at all.

    Parameters
    ----------
    animation : matplotlib.animation.Animation
    path : path
        Its suffix is the format: ``.gif``; ``.html``, a page with a player that needs no other file and no network; ``.mp4``,
        for which the program ffmpeg must be installed.
    fps : float
        Frames per second.
    dpi : float
        Pixels per inch of the figure.

    Raises
    ------
    ValueError
        Another suffix.
    RuntimeError
        ``.mp4`` without ffmpeg.
    """
    path = Path(path)
    suffix = check_format(path)
    if not isinstance(animation, mpl.Animation):
        raise ValueError(f"animation must be a Matplotlib animation, got {animation!r}")
    for name, value in (("fps", fps), ("dpi", dpi)):
        if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a number above 0, got {value!r}")
    writer = {
        ".gif": lambda: mpl.PillowWriter(fps),
        ".html": lambda: mpl.HTMLWriter(fps, embed_frames=True, embed_limit=math.inf),
        ".mp4": lambda: mpl.FFMpegWriter(fps),
    }[suffix]()
    with tempfile.TemporaryDirectory() as folder:  # the writers need a name with the suffix, and some leave files when they fail
        rendered = Path(folder) / f"animation{suffix}"
        animation.save(rendered, writer=writer, dpi=dpi)
        if suffix == ".html":
            rendered.write_text(_page(rendered.read_text("utf-8"), path.stem), "utf-8")
        with atomic_write(path) as file, open(rendered, "rb") as source:
            shutil.copyfileobj(source, file)


def _page(player: str, title: str) -> str:
    """-> Matplotlib's player as a whole page that fetches nothing."""
    player = re.sub(r"<link[^>]*>", "", player)
    player = re.sub(r'<i class="fa fa-([\w -]+)"></i>', lambda match: ICONS.get(match[1], match[1]), player)
    head = f'<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n</head>\n'
    return f"{head}<body>\n{player}\n</body>\n</html>\n"
