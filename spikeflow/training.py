"""Training a preset: the loop, its guards, and the run folder.

A run folder holds ``config.json`` (every setting, and versions), ``metrics.jsonl`` (one JSON object a line: a row for each step
with ``iteration``, ``epoch`` and ``train_loss``; a row for each evaluation with ``iteration``, ``epoch`` and ``test_accuracy`` in
[0, 1], and if it ends an epoch, with ``test_loss``, the epoch's ``lr`` and its mean ``train_loss`` and ``train_accuracy``),
``checkpoint-latest.npz``, ``checkpoint-best.npz`` (best on the test set, as the tutorials choose it: an optimistic number) and
``training.png``. Results go to stdout, progress and warnings to stderr.

``checkpoint-latest.npz`` holds all that the rest of the run depends on: parameters, running statistics, the moments,
the schedule, the number of dropout masks drawn, where in which epoch the run is, and how many rows of metrics belong to it.
Everything random is a function of the seed and these counts. So a run that was killed and resumed, as often as you like, ends
with the bits of one that was not, times aside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import json
import math
import os
import platform
import re
import signal
import sys
import threading
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from . import checkpoint, datasets, logs, losses, memory, metrics, optim, presets
from . import encoding as encodings
from ._version import __version__
from .files import atomic_write
from .kernels.cpu import parallel
from .layers.base import positive_int
from .layers.containers import leaves
from .network import Sequential
from .ops.finite import all_finite

__all__ = ["NonFiniteError", "Settings", "evaluate", "resume", "score", "train"]

EVALUATION_BATCH = 256
EVALUATION = 2**32  # first step of the draws for evaluations: behind all training steps
PARTS = ("train", "test")
SILENT_ITERATIONS = 50  # training steps without an output spike before the warning
CONFIG, METRICS, LATEST, BEST = "config.json", "metrics.jsonl", "checkpoint-latest.npz", "checkpoint-best.npz"
OPTIMIZER = "optimizer/"  # of arrays in a checkpoint
COUNTS = ("iteration", "silent", "best", "accuracy", "evaluated", "seconds", "settled")  # attributes of a run


class NonFiniteError(ArithmeticError):
    """A loss, gradient or parameter that is NaN or infinite."""


@dataclass
class Settings:
    """What ``train`` is asked to do; None stands for the network's own value.

    One of ``preset``, a name, and ``network``, the path of a file, says which network that is.
    """

    preset: str | None = None
    network: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    num_steps: int | None = None
    max_iterations: int | None = None
    eval_every: int | None = None
    seed: int = 0
    threads: int | None = None
    backend: str = "cpu"
    data_dir: str | None = None
    out_dir: str | None = None
    loss: str | None = None
    encoding: str | None = None
    neuron: str | None = None
    surrogate: str | None = None
    beta: float | None = None
    learn_beta: bool | None = None
    learn_threshold: bool | None = None
    hidden: int | None = None
    subset: int = 1
    dataset: str | None = None
    channels: int | None = None
    optimizer: str | None = None
    momentum: float | None = None
    lr_scheduler: str | None = None
    step_size: int | None = None
    gamma: float | None = None
    T_max: int | None = None
    amp: bool = False
    checkpoint_every: str | None = None
    max_bytes: int | str | None = None
    clip_norm: float | None = None
    warmup: int | None = None
    augment: str | None = None
    tensorboard: bool = False

    def resolved(self, preset: presets.Preset | None = None) -> Settings:
        """-> a copy with the values of the preset, by default the one it names, and the defaults filled in; numbers checked."""
        preset = presets.choose(self.preset, self.network) if preset is None else preset
        values = {**asdict(self)}
        for key in ("epochs", "batch_size", "num_steps", "eval_every"):
            if values[key] is None:
                values[key] = getattr(preset, key)
        for key, default in preset.defaults.items():
            if values[key] is None:
                values[key] = default
        presets.fill_training(preset, values)
        for key in ("epochs", "batch_size", "num_steps", "subset"):
            values[key] = positive_int(key, values[key])
        for key in ("hidden", "channels", "max_iterations", "eval_every", "warmup"):
            if values[key] is not None:
                values[key] = positive_int(key, values[key])
        if values["max_bytes"] is not None:
            values["max_bytes"] = memory.parse_bytes(values["max_bytes"])
        if values["clip_norm"] is not None:
            values["clip_norm"] = optim.checked("clip_norm", values["clip_norm"], 0, math.inf)
        _interval(values["checkpoint_every"])
        _augmentation(values["augment"])
        if values["threads"] is None:
            values["threads"] = parallel.get_num_threads()
        if values["out_dir"] is None:
            values["out_dir"] = str(Path("runs") / f"{preset.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        return Settings(**values)


def train(settings: Settings) -> dict[str, Any]:
    """Train a preset and write its run folder.

    Returns
    -------
    dict
        ``run`` (the folder), ``iteration``, ``test_accuracy``, ``interrupted``, and the rest of the printed summary.

    Raises
    ------
    ValueError
        An unknown preset or a setting out of range, or a run folder that already holds a run.
    NonFiniteError
        A loss, gradient or parameter is NaN or infinite; the last good checkpoint stays.
    """
    preset = presets.choose(settings.preset, settings.network)
    run = _Run(settings.resolved(preset), preset)
    run.create()
    return _carry_out(run)


CHANGEABLE = ("epochs", "max_iterations", "threads", "data_dir", "checkpoint_every", "tensorboard")  # of a run that is resumed


def resume(folder: str | os.PathLike, **changes) -> dict[str, Any]:
    """Go on with a run that was interrupted or killed, from its latest checkpoint; returns and raises as ``train``.

    Parameters
    ----------
    folder : str or path-like
        The run folder.
    **changes
        New values of ``epochs``, ``max_iterations``, ``threads``, ``data_dir``, ``checkpoint_every`` or ``tensorboard``; None
        keeps the old one.

    Raises
    ------
    ValueError
        A folder that holds no run, or no checkpoint of it yet; a checkpoint of another run; a run that is finished.
    """
    if unknown := set(changes) - set(CHANGEABLE):
        raise ValueError(f"a run is resumed with the settings it began with: leave out {', '.join(sorted(unknown))}")
    settings, preset = _read_config(Path(folder))
    given = {key: value for key, value in changes.items() if value is not None}
    settings = dataclasses.replace(settings, **given).resolved(preset)
    path = Path(folder) / LATEST
    if not path.exists():
        raise ValueError(f"{folder} holds no {LATEST}: the run ended before its first; start it anew")
    found = checkpoint.load_training(path)
    run = _Run(settings, preset)
    run.restore(found, path)
    return _carry_out(run)


def _make_network(settings: Settings, preset: presets.Preset) -> Sequential:
    parallel.set_num_threads(settings.threads)
    layers = presets.make_layers(preset, vars(settings))
    options = {"amp": settings.amp, "max_bytes": settings.max_bytes}
    return Sequential(*layers, seed=settings.seed, backend=settings.backend, **options)


def _augmentation(text: str | None) -> datasets.Augment | None:
    """``"shift=2,flip,rotate=10,cutout=8"`` -> the augmentation; ValueError, with the known names, for anything else."""
    if text is None:
        return None
    known = {field.name for field in dataclasses.fields(datasets.Augment)}
    options = {}
    for part in str(text).split(","):
        name, given, number = part.strip().partition("=")
        if name not in known:
            raise ValueError(f"augment must be a list of {', '.join(sorted(known))}, such as shift=2,flip; got {part.strip()!r}")
        try:
            options[name] = (int(number) if number.isdecimal() else float(number)) if given else True
        except ValueError:
            raise ValueError(f"augment: {name} must be a number, got {number!r}") from None
    return datasets.Augment(**options)


def _carry_out(run: _Run) -> dict[str, Any]:
    try:
        with _interruptible() as interrupted:
            run.loop(interrupted)
        return run.finish(interrupted())
    finally:
        run.close()


def _interval(text: str | None) -> tuple[float, float]:
    """``"200"`` iterations or ``"5min"`` -> the two limits, iterations and seconds; ValueError for anything else."""
    if text is None:
        return math.inf, math.inf
    match = re.fullmatch(r"([0-9]+(?:[.][0-9]+)?)\s*(min|minutes?|m)?", str(text).strip())
    number = float(match[1]) if match else 0.0
    if number <= 0 or (not match[2] and number != int(number)):
        raise ValueError(
            f"checkpoint_every must be a number of iterations, such as 200, or of minutes, such as 5min; got {text!r}"
        )
    return (math.inf, 60 * number) if match[2] else (number, math.inf)


def encode(x: np.ndarray, encoding: str, num_steps: int, seed: int, step: int) -> tuple[np.ndarray, int | None]:
    """Images (B, ...) in [0, 1] -> what ``Sequential`` takes for them: images and num_steps, or spikes (T, B, ...) and None.

    ``step`` tells batches apart whose spikes are drawn from the same ``seed``.
    """
    if encoding == "rate":
        return encodings.rate(x, num_steps, seed=seed, step=step), None
    if encoding == "latency":
        return encodings.latency(x, num_steps, tau=5, normalize=True, clip=True), None
    return x, num_steps


def evaluate(
    net: Sequential, images: np.ndarray, labels: np.ndarray, num_steps: int, encoding: str = "direct", seed: int = 0,
    batch_size: int = EVALUATION_BATCH,
) -> float:  # fmt: skip
    """-> accuracy_rate of ``net`` over uint8 images (N, H, W); warns if not a single output spike was seen.

    Spikes that an encoding draws are the same in every evaluation of a seed.
    """
    return score(net, images, labels, num_steps, encoding, seed, batch_size)[0]


def score(
    net: Sequential, images: np.ndarray, labels: np.ndarray, num_steps: int, encoding: str = "direct", seed: int = 0,
    batch_size: int = EVALUATION_BATCH, loss_fn: losses.Loss | None = None,
) -> tuple[float, float | None]:  # fmt: skip
    """As ``evaluate`` -> accuracy_rate, and the mean of ``loss_fn`` over the samples, if there is one."""
    correct = spikes = 0
    loss = 0.0
    for number, (x, y) in enumerate(datasets.DataLoader(images, labels, batch_size=batch_size, shuffle=False, drop_last=False)):
        x, steps = encode(x, encoding, num_steps, seed, EVALUATION + number)
        if loss_fn is None:
            counts = first_head(net.predict(x, steps, batch_size=batch_size, counts=True))
        else:
            counts, batch_loss = _counts_and_loss(net, x, steps, y, loss_fn)
            loss += batch_loss * len(y)
        correct += round(metrics.accuracy_rate(counts, y) * len(y))
        spikes += int(counts.sum())
    if spikes == 0:
        warnings.warn("the output layer did not spike once in this evaluation", stacklevel=3)
    return correct / len(labels), None if loss_fn is None else loss / len(labels)


def _counts_and_loss(net, x, num_steps, labels, loss_fn) -> tuple[np.ndarray, float]:
    """One batch -> output spikes (B, C), summed over time, and its loss."""
    if loss_fn.inputs == "spikes":
        heads = net.predict(x, num_steps, batch_size=len(labels))
        pairs = [(spikes, None) for spikes in (heads if isinstance(heads, tuple) else (heads,))]
    else:
        *pair, _ = net.stream(x, num_steps=num_steps)
        pairs = list(zip(*pair, strict=True)) if isinstance(pair[1], tuple) else [tuple(pair)]
    spikes, membrane = pairs[0]
    first = membrane if spikes is None else spikes
    return first.sum(0), sum(loss_fn.evaluate(*pair, labels)[0] for pair in pairs)


def first_head(outputs):
    """What the heads of a network give, or its only one -> that of the first, whose accuracy counts."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


class _Tally:
    """What the training steps since the last evaluation did."""

    def __init__(self):
        self.begin = time.perf_counter()
        self.steps = self.samples = self.correct = 0
        self.timed = 0  # of the steps, those that this process took
        self.loss = self.seconds = 0.0

    def state(self) -> list:
        """-> what ``restore`` takes; times aside."""
        return [self.steps, self.samples, self.correct, self.loss]

    def restore(self, state: list) -> None:
        self.steps, self.samples, self.correct, self.loss = state

    def add(self, loss: float, spikes: np.ndarray, labels: np.ndarray, seconds: float) -> None:
        """One step: output spikes (T, B, C)."""
        self.steps += 1
        self.timed += 1
        self.samples += len(labels)
        self.correct += round(metrics.accuracy_rate(spikes, labels) * len(labels))
        self.loss += loss
        self.seconds += seconds


class _Run:
    """One training run: the data, the network, its optimizer, and the folder they report to."""

    def __init__(self, settings: Settings, preset: presets.Preset):
        self.settings, self.preset, self.net = settings, preset, _make_network(settings, preset)
        train, self.test = (
            tuple(array[:: settings.subset] for array in datasets.load(settings.dataset, part, data_dir=settings.data_dir))
            for part in PARTS
        )
        self.loader = datasets.DataLoader(
            *train,
            batch_size=settings.batch_size, shuffle=True, drop_last=True, seed=settings.seed,
            augment=_augmentation(settings.augment),
        )  # fmt: skip
        self.loss_fn = presets.make_loss(settings.loss)
        self.optimizer = presets.make_optimizer(vars(settings), self.net.parameters())
        self.total = min(settings.epochs * len(self.loader), settings.max_iterations or math.inf)
        self.scheduler = presets.make_scheduler(vars(settings), self.optimizer, settings.epochs * len(self.loader))
        self.iteration = self.silent = 0
        self.best = self.accuracy = -1.0
        self.evaluated = -1  # iteration of the latest evaluation
        self.seconds = 0.0  # in training steps alone
        self.tally = _Tally()
        self.settled = True  # has all been done that follows the latest step?
        self.folder = Path(settings.out_dir)
        self.log: logs.MetricsLog | None = None
        self.every = _interval(settings.checkpoint_every)
        self.saved = 0, time.monotonic()  # the latest checkpoint: iteration and time

    def create(self) -> None:
        """Fix the blocks, if memory has a limit, and make the run folder."""
        if self.settings.max_bytes is not None:
            sequence = None if self.settings.encoding == "direct" else bool
            self.net.fix_plan(self.settings.batch_size, self.settings.num_steps, self.preset.input_shape, sequence)
        _new_folder(self.settings, self.preset)
        self.log = logs.MetricsLog(self.folder, tensorboard=self.settings.tensorboard)

    def restore(self, found: checkpoint.Checkpoint, path: Path) -> None:
        """Take over the state of a checkpoint of this run; nothing changes unless everything fits."""
        state = found.info.get("training")
        self.net.block_size = found.network.get("block_size")
        described = self.net.config()
        if not isinstance(state, dict) or found.info.get("settings") != _identity(self.settings) or found.network != described:
            raise ValueError(f"{path} is the checkpoint of another run than {self.folder / CONFIG} describes")
        if state["iteration"] >= self.total:
            raise ValueError(
                f"{self.folder} is finished, after {state['iteration']} iterations; to go on, raise --epochs or --max-iterations"
            )
        try:
            self.net.load_state_dict(found.weights)
            self.optimizer.load_state_dict(state["optimizer"], _unprefixed(found.arrays, OPTIMIZER))
            if self.scheduler is not None:
                self.scheduler.load_state_dict(state["scheduler"])
            for key in COUNTS:
                setattr(self, key, state[key])
            self.net.draws = state["draws"]
            self.tally.restore(state["tally"])
        except (KeyError, TypeError) as error:
            raise checkpoint.CheckpointError(f"{path} holds no sound training state: {error!r}") from error
        self.saved = self.iteration, time.monotonic()
        self.log = logs.MetricsLog(self.folder, tensorboard=self.settings.tensorboard, resume=True)
        self.log.rewind(count=state["rows"])

    def _state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """-> all that ``restore`` needs besides the network: what JSON can hold, and arrays."""
        optimizer, arrays = self.optimizer.state_dict()
        state = {
            **{key: getattr(self, key) for key in COUNTS},
            "draws": self.net.draws,
            "rows": self.log.count,
            "optimizer": optimizer,
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "tally": self.tally.state(),
        }
        return state, {OPTIMIZER + name: array for name, array in arrays.items()}

    @property
    def by_epoch(self) -> bool:
        """Do evaluations end the epochs, and report on them?"""
        return self.settings.eval_every is None

    # -------------------------------------------------------------------------------------------- the loop

    def loop(self, interrupted) -> None:
        """All epochs, or until the limit of iterations, or until interrupted (between two steps)."""
        if self.iteration == 0:
            if not self.by_epoch and self.evaluated < 0 and self._evaluate(0, trained=False):
                self._save(BEST)
            self._save(LATEST)
        if not self.settled:
            self._settle((self.iteration - 1) // len(self.loader))
        left = {"initial": self.iteration, "total": self.total}
        with tqdm(**left, unit="it", file=sys.stderr, disable=None, dynamic_ncols=True) as bar:
            for epoch, images, labels in itertools.islice(self._batches(), self.total - self.iteration):
                if interrupted():
                    return
                loss = self._step(epoch, images, labels)
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()
                if not interrupted():
                    self._settle(epoch)

    def _batches(self):
        """The batches to come, in the order that (seed, epoch) gives."""
        for epoch in range(self.iteration // len(self.loader), self.settings.epochs):
            self.loader.set_epoch(epoch)
            for images, labels in self.loader.batches(start=self.iteration % len(self.loader)):
                yield epoch, images, labels

    def _settle(self, epoch: int) -> None:
        """What follows a step: an evaluation and the schedule, where it is time, and checkpoints, the latest of them last."""
        improved = due = self._is_due()
        if due:
            improved = self._evaluate(epoch)
        if self.scheduler is not None and (self.scheduler.by_iteration or self.iteration % len(self.loader) == 0):
            self.scheduler.step()
        self.settled = True
        if improved:
            self._save(BEST)
        iteration, moment = self.saved
        if due or self.iteration - iteration >= self.every[0] or time.monotonic() - moment >= self.every[1]:
            self._save(LATEST)

    def _is_due(self) -> bool:
        """Is it time for an evaluation?"""
        return self.iteration % (self.settings.eval_every or len(self.loader)) == 0 or self.iteration == self.total

    def _step(self, epoch: int, images, labels) -> float:
        """One iteration: gradients, update, guards, and a row."""
        begin = time.perf_counter()
        self.iteration += 1
        self.settled = False
        self.optimizer.zero_grad()
        x, num_steps = self._encode(images, self.iteration)
        loss, outputs = self.net.loss_and_grad(x, labels, self.loss_fn, num_steps=num_steps)
        spikes = first_head(outputs)
        self._check_finite(loss, "grad")
        if self.settings.clip_norm is not None:
            optim.clip_grad_norm_(self.net.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self._check_finite(loss, "value")
        self._watch_silence(spikes)
        seconds = time.perf_counter() - begin
        self.seconds += seconds
        self.tally.add(loss, spikes, labels, seconds)
        self._row(iteration=self.iteration, epoch=epoch, train_loss=loss, seconds=round(seconds, 6))
        return loss

    def _check_finite(self, loss: float, what: str) -> None:
        """Raise on the first NaN or infinity; a network of NaNs emits no spikes and would look healthy."""
        if not self.net.on_host and np.isfinite(loss) and (what == "grad" or self.net.all_finite()):
            return  # on the device both are looked at once, after the update
        for parameter in self.net.parameters():
            if not all_finite(getattr(parameter, what)):
                layer = next(layer for layer in leaves(self.net.layers) if parameter in layer.params.values())
                kind = "gradient of" if what == "grad" else "updated"
                raise NonFiniteError(
                    f"iteration {self.iteration}: the {kind} {parameter.name} of layer {layer.name} "
                    f"({layer!r}) is not finite; the last good checkpoint is "
                    f"{self.folder / LATEST}"
                )
        if not np.isfinite(loss):
            last = self.net.layers[-1]
            raise NonFiniteError(f"iteration {self.iteration}: the loss of layer {last.name} ({last!r}) is {loss}")

    def _encode(self, images, step: int):
        return encode(images, self.settings.encoding, self.settings.num_steps, self.settings.seed, step)

    def _watch_silence(self, spikes) -> None:
        self.silent = 0 if spikes.any() else self.silent + 1
        if self.silent == SILENT_ITERATIONS:
            warnings.warn(
                f"iteration {self.iteration}: the output layer has not spiked in the last {SILENT_ITERATIONS} iterations; "
                "no spike, no learning signal: try larger weights, a lower threshold or a higher beta",
                stacklevel=2,
            )

    def _evaluate(self, epoch: int, trained: bool = True) -> bool:
        """Accuracy on the whole test set, a line, and a row; -> is it the best so far?"""
        settings = self.settings
        with warnings.catch_warnings():
            if not trained:
                warnings.simplefilter("ignore")  # untrained, this network is silent
            self.accuracy, loss = score(
                self.net, *self.test, settings.num_steps, settings.encoding, settings.seed,
                loss_fn=self.loss_fn if self.by_epoch else None,
            )  # fmt: skip
        self.evaluated = self.iteration
        improved, self.best = self.accuracy > self.best, max(self.accuracy, self.best)
        row = {"iteration": self.iteration, "epoch": epoch, "test_accuracy": self.accuracy}
        line = f"iteration {self.iteration:5d}  test accuracy {100 * self.accuracy:6.2f} %"
        if self.by_epoch:
            row |= {"test_loss": loss, **self._epoch_means(), "lr": self.optimizer.lr}
            line = self._epoch_line(row)
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
        self._row(**row)
        self.tally = _Tally()
        return improved

    def _epoch_means(self) -> dict[str, float]:
        """Of the epoch that ends, over its batches as each was when its turn came."""
        return {"train_loss": self.tally.loss / self.tally.steps, "train_accuracy": self.tally.correct / self.tally.samples}

    def _epoch_line(self, row: dict[str, Any]) -> str:
        train, test = (f"loss {row[f'{part}_loss']:.5f}, accuracy {100 * row[f'{part}_accuracy']:5.2f} %" for part in PARTS)
        elapsed = time.perf_counter() - self.tally.begin
        left = datetime.timedelta(seconds=round((self.total - self.iteration) * elapsed / max(self.tally.timed, 1)))
        speed = self.tally.timed * self.settings.batch_size / (self.tally.seconds or math.inf)
        return (
            f"epoch {row['epoch']:3d}  train {train}  test {test}  best {100 * self.best:5.2f} %  "
            f"{speed:5.0f} images/s  ETA {left}"
        )

    # -------------------------------------------------------------------------------------------- the run folder

    def _save(self, name: str) -> None:
        self.log.sync()
        state, arrays = self._state()
        info = {
            "settings": _identity(self.settings),
            "training": state,
            "preset": self.preset.name,
            "dataset": self.settings.dataset,
            "num_steps": self.settings.num_steps,
            "encoding": self.settings.encoding,
            "seed": self.settings.seed,
            "subset": self.settings.subset,
            "iteration": self.iteration,
            "test_accuracy": self.accuracy if self.evaluated == self.iteration else None,
        }
        checkpoint.save(self.folder / name, self.net, info, arrays)
        if name == LATEST:
            self.saved = self.iteration, time.monotonic()

    def _row(self, **values) -> None:
        self.log.write(**values)

    def finish(self, interrupted: bool) -> dict[str, Any]:
        """Write what a finished or interrupted run leaves, and print its summary."""
        from . import plotting

        self._save(LATEST)
        plotting.training_curves(self.log.rows()).savefig(self.folder / "training.png", dpi=120)
        if interrupted:
            print(f"interrupted after iteration {self.iteration}: checkpoint in {self.folder / LATEST}")
            print(f"to go on: spikeflow train --resume {self.folder}")
        images_per_second = self.iteration * self.settings.batch_size / self.seconds if self.seconds else 0.0
        summary = {
            "run": str(self.folder),
            "iteration": self.iteration,
            "test_accuracy": self.accuracy if self.evaluated >= 0 else None,
            "best": self.best if self.evaluated >= 0 else None,
            "evaluated_at": self.evaluated,
            "test_set": "the whole test set" if self.settings.subset == 1 else f"{len(self.test[1])} test images",
            "interrupted": interrupted,
            "images_per_second": images_per_second,
            "health": self._health(),
            "peak_memory_mb": _peak_memory_mb(),
        }
        _print_summary(summary)
        return summary

    def _health(self, samples: int = 16):
        """The neurons' health over a few test images; warns of layers in which no neuron fires."""
        images = self.test[0][:samples, None].astype(np.float32) / np.float32(255)
        health = self.net.health(*self._encode(images, 0))
        if health.dead:
            warnings.warn(
                f"no neuron of layer {', '.join(health.dead)} fires: nothing is learned through it. Try larger weights, a lower "
                "threshold, a higher beta, or a surrogate with a wider derivative",
                stacklevel=2,
            )
        return health

    def close(self) -> None:
        if self.log is not None:
            self.log.close()


def _new_folder(settings: Settings, preset: presets.Preset) -> Path:
    """Make the run folder, with its config.json; ValueError if it already holds a run."""
    folder = Path(settings.out_dir)
    if (folder / CONFIG).exists():
        raise ValueError(f"out_dir {folder} already holds a run; choose another folder or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    versions = {"spikeflow": __version__, "python": platform.python_version(), "numpy": np.__version__}
    config = json.dumps({**asdict(settings), "description": preset.config(), "versions": versions}, indent=2)
    with atomic_write(folder / CONFIG) as file:
        file.write(f"{config}\n".encode())
    return folder


def _read_config(folder: Path) -> tuple[Settings, presets.Preset]:
    """-> the settings and the network of the run in a folder; ValueError if there is none."""
    try:
        values = json.loads((folder / CONFIG).read_text("utf-8"))
        known = {key: values[key] for key in Settings.__dataclass_fields__ if key in values}
        return Settings(**known | {"out_dir": str(folder)}), presets.from_config(values["description"])
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no run: there is no {CONFIG}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{folder / CONFIG} does not describe a run: {error}") from error


def _identity(settings: Settings) -> dict[str, Any]:
    """-> the settings that a run keeps for good."""
    return {key: value for key, value in asdict(settings).items() if key not in (*CHANGEABLE, "out_dir", "network")}


def _unprefixed(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _print_summary(summary: dict[str, Any]) -> None:
    at = f"on {summary['test_set']}, at iteration {summary['evaluated_at']}"
    if summary["test_accuracy"] is None:
        print("no test accuracy: training ended before the first evaluation")
    else:
        print(f"test accuracy {100 * summary['test_accuracy']:.2f} % {at}")
    print(f"{summary['images_per_second']:.0f} images/s in training steps, peak memory {summary['peak_memory_mb']:.0f} MB")
    print(summary["health"])
    print(f"run folder: {summary['run']}")


def _peak_memory_mb() -> float:
    """Peak resident memory of this process; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@contextlib.contextmanager
def _interruptible():
    """Yields a function that tells whether Ctrl-C was pressed: the loop ends between two steps, never within an update.

    A second Ctrl-C raises KeyboardInterrupt at once. Outside the main thread signals cannot be caught, and nothing changes.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def remember(number, frame):
        signal.signal(signal.SIGINT, previous)
        print("\ninterrupted: finishing this step (Ctrl-C again to stop at once)", file=sys.stderr)
        pressed.set()

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
