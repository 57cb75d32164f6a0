"""The command line: ``spikeflow train | evaluate | plot | summary | gradcheck | parity | doctor``.

Heavy imports happen inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from ._version import __version__

__all__ = ["main"]

CHECKED_CHANNELS = 4  # finite differences of 13 million weights would say no more
DATA_DIR = (
    "folder with the data set's four IDX files (default: MNIST's are embedded, Fashion-MNIST's are looked for and downloaded)"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; -> exit status: 0, 1 (a check failed), 2 (bad input), 130 (interrupted)."""
    arguments = _parser().parse_args(argv)
    warnings.showwarning = _show_warning
    try:
        return arguments.command(arguments)
    except (ValueError, TypeError, OSError, ArithmeticError, RuntimeError, MemoryError) as error:
        print(f"spikeflow: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("spikeflow: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="spikeflow", description="Train convolutional spiking neural networks.")
    parser.add_argument("--version", action="version", version=f"spikeflow {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    train = commands.add_parser("train", help="train a network on its data set and write a run folder")
    train.set_defaults(command=_train)
    train.add_argument(
        "preset",
        nargs="?",
        help="what to train: csnn-mnist (snnTorch's Tutorial 6), fcn-mnist (its Tutorial 5), "
        "csnn-fashion (SpikingJelly's Fashion-MNIST example)",
    )
    train.add_argument("--network", metavar="FILE", help="a network of your own, described in a TOML file, instead of a preset")
    train.add_argument("--epochs", type=int, help="passes over the training set")
    train.add_argument("--batch-size", type=int, help="samples per step")
    train.add_argument("--num-steps", "--T", type=int, help="time steps that an image is shown")
    train.add_argument("--max-iterations", type=int, help="stop after so many steps")
    train.add_argument(
        "--eval-every", type=int, help="steps between evaluations (default 50; csnn-fashion is evaluated after each epoch)"
    )
    train.add_argument("--seed", type=int, help="key of initial weights and shuffles (default 0)")
    train.add_argument("--threads", type=int, help="threads to use (default: all cores); results do not depend on it")
    train.add_argument("--backend", help="cpu (default), reference or cuda")
    train.add_argument("--data-dir", help=DATA_DIR)
    train.add_argument("--out-dir", help="the run folder (default: runs/<network>-<time>)")
    train.add_argument("--resume", metavar="RUN", type=Path, help="go on with the run in this folder, from its latest checkpoint")
    train.add_argument(
        "--checkpoint-every", metavar="N|Nmin", help="write checkpoint-latest.npz every N iterations, or N minutes, too"
    )

    training = train.add_argument_group("training (each defaults to the preset's)")
    training.add_argument("--optimizer", help="sgd, adam or adamw")
    training.add_argument(
        "--lr", type=float, help="learning rate (default for another optimizer than the preset's: sgd 0.1, adam 0.001)"
    )
    training.add_argument("--momentum", type=float, help="of sgd (default 0.9)")
    training.add_argument(
        "--lr-scheduler", help="how the learning rate changes: step, cosine or exponential after each epoch, one-cycle, or none"
    )
    training.add_argument("--step-size", type=int, help="of step: epochs between two changes (default 32)")
    training.add_argument("--gamma", type=float, help="of step and exponential: factor of each change (default 0.1, and 0.95)")
    training.add_argument("--T-max", type=int, help="of cosine: epochs down to 0 (default 64)")
    training.add_argument("--amp", action="store_true", help="keep what the backward pass needs in half precision")
    training.add_argument("--warmup", type=int, metavar="N", help="epochs over which the learning rate rises from a third")
    training.add_argument("--clip-norm", type=float, metavar="X", help="scale gradients down to this norm, of all together")
    training.add_argument(
        "--augment", metavar="LIST", help="random changes of the training images, such as shift=2,flip,rotate=10,cutout=8"
    )
    training.add_argument("--max-bytes", metavar="N", help="memory of a training step, such as 500MB: smaller blocks, if need be")
    training.add_argument("--tensorboard", action="store_true", help="write TensorBoard's event files, too")

    variant = train.add_argument_group("variants of the network and its data (each defaults to the tutorial's)")
    variant.add_argument("--dataset", help="mnist (embedded) or fashion-mnist")
    variant.add_argument("--channels", type=int, help="channels of csnn-fashion's convolutions (default 128)")
    variant.add_argument(
        "--loss", help="a loss of spikeflow.losses by name, such as ce_rate_loss, mse_count_loss, ce_temporal_loss"
    )
    variant.add_argument("--encoding", help="direct (the image at every step), rate or latency")
    variant.add_argument("--neuron", help="leaky, lapicque, synaptic, alpha, rleaky or rsynaptic (each hears itself alone)")
    variant.add_argument("--surrogate", help="a surrogate by name, such as atan, with its first parameter if need be: atan:2")
    variant.add_argument("--beta", type=float, help="decay of the membrane per time step")
    variant.add_argument("--learn-beta", action="store_true", default=None, help="train the decay, too")
    variant.add_argument("--learn-threshold", action="store_true", default=None, help="train the threshold, too")
    variant.add_argument("--hidden", type=int, help="neurons of fcn-mnist's hidden layer")
    variant.add_argument("--subset", type=int, help="use every n-th image of the data set only (default 1)")

    evaluate = commands.add_parser("evaluate", help="test accuracy of a run's checkpoint")
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument("run", type=Path, help="run folder, or a checkpoint file")
    evaluate.add_argument("--checkpoint", choices=("latest", "best"), default="latest", help="which of a folder (default latest)")
    evaluate.add_argument("--backend", default="cpu", help="cpu (default), reference or cuda")
    evaluate.add_argument("--threads", type=int, help="threads to use (default: all cores)")
    evaluate.add_argument("--data-dir", help=DATA_DIR)

    plot = commands.add_parser("plot", help="pictures of a finished run")
    plot.set_defaults(command=_plot)
    plot.add_argument("run", type=Path, help="run folder")
    plot.add_argument(
        "--kind", default="all",
        help="curves, raster, traces, spike-count, input, encoder, rates, filters, confusion, gradient-flow, surrogates, "
        "or all (default)",
    )  # fmt: skip
    plot.add_argument("--out", type=Path, help="file to write (default: RUN/KIND.png, or .gif); its ending says the format")
    plot.add_argument("--sample", type=int, default=0, help="which test image, where one is shown (default 0)")
    plot.add_argument("--checkpoint", choices=("latest", "best"), default="latest", help="default latest")
    plot.add_argument("--data-dir", help=DATA_DIR)

    summary = commands.add_parser("summary", help="layers, shapes, parameters, memory and multiply-adds of a network")
    summary.set_defaults(command=_summary)
    summary.add_argument("network", help="a preset's name, a network file, a run folder, or a checkpoint")
    summary.add_argument("--batch-size", type=int, default=128, help="samples that wait for the backward pass (default 128)")
    summary.add_argument("--num-steps", "--T", type=int, help="time steps (default: as it is trained)")
    summary.add_argument(
        "--samples", type=int, default=16, help="test images on which spikes are counted (default 16; 0 for none)"
    )
    summary.add_argument("--data-dir", help=DATA_DIR)

    gradcheck = commands.add_parser("gradcheck", help="compare a network's gradients with finite differences")
    gradcheck.set_defaults(command=_gradcheck)
    gradcheck.add_argument("preset", nargs="?", help="which network: csnn-mnist, fcn-mnist or csnn-fashion")
    gradcheck.add_argument("--network", metavar="FILE", help="a network described in a TOML file, instead of a preset")
    gradcheck.add_argument("--channels", type=int, help="channels of csnn-fashion's convolutions (default 4)")
    gradcheck.add_argument("--batch-size", type=int, default=4, help="samples (default 4)")
    gradcheck.add_argument("--num-steps", type=int, default=5, help="time steps (default 5)")
    gradcheck.add_argument("--entries", type=int, default=12, help="entries compared per parameter (default 12)")
    gradcheck.add_argument("--directions", type=int, default=3, help="directions compared per parameter (default 3)")
    gradcheck.add_argument("--seed", type=int, default=0, help="of weights, entries and directions (default 0)")
    gradcheck.add_argument("--backend", default="cpu", help="whose gradients: cpu (default) or reference")

    parity = commands.add_parser("parity", help="compare the backends with the reference, layer by layer")
    parity.set_defaults(command=_parity)
    parity.add_argument("network", help="a preset's name, a network file, a run folder, or a checkpoint")
    parity.add_argument("--batch-size", type=int, default=2, help="random samples (default 2)")
    parity.add_argument("--num-steps", "--T", type=int, help="time steps (default: as it is trained)")
    parity.add_argument("--channels", type=int, help="channels of csnn-fashion's convolutions (default 128)")
    parity.add_argument("--seed", type=int, default=0, help="of initial weights and samples (default 0)")
    parity.add_argument("--backend", action="append", help="which to compare (may be repeated; default: all that run here)")
    parity.add_argument(
        "--dyadic", action="store_true", help="round weights and samples to multiples of 1/64: forward must be equal to the bit"
    )
    parity.add_argument("--json", action="store_true", help="print one JSON object instead")

    doctor = commands.add_parser("doctor", help="what is installed here, and what of it spikeflow can use")
    doctor.set_defaults(command=_doctor)
    doctor.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


def _train(arguments: argparse.Namespace) -> int:
    from .training import Settings, resume, train

    options = {key: value for key, value in vars(arguments).items() if key not in ("command", "resume")}
    given = {key: value for key, value in options.items() if value is not None and value is not False}
    if arguments.resume is not None:
        return 130 if resume(arguments.resume, **given)["interrupted"] else 0
    if arguments.preset is None and arguments.network is None:
        raise ValueError(
            "say what to train, such as csnn-mnist, or give a network with --network FILE, or a run to go on with by --resume RUN"
        )
    return 130 if train(Settings(**given))["interrupted"] else 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from . import datasets, training
    from .checkpoint import CheckpointError, load_with_info
    from .kernels.cpu import parallel

    if arguments.threads is not None:
        parallel.set_num_threads(arguments.threads)
    path = arguments.run
    if path.is_dir():
        path = path / f"checkpoint-{arguments.checkpoint}.npz"
    net, info = load_with_info(path, backend=arguments.backend)
    if "num_steps" not in info:
        raise CheckpointError(f"{path} was not written by `spikeflow train`: it does not say how many steps to run")
    test = datasets.load(info.get("dataset", "mnist"), "test", data_dir=arguments.data_dir)
    images, labels = (array[:: info.get("subset", 1)] for array in test)
    accuracy = training.evaluate(net, images, labels, info["num_steps"], info.get("encoding", "direct"), info.get("seed", 0))
    correct = round(accuracy * len(labels))
    print(f"{path}: test accuracy {100 * accuracy:.2f} % ({correct} of {len(labels)}), iteration {info['iteration']}")
    return 0


def _plot(arguments: argparse.Namespace) -> int:
    from . import pictures

    run = pictures.Run(arguments.run, arguments.checkpoint, arguments.sample, arguments.data_dir)
    if arguments.kind == "all" and arguments.out is not None:
        raise ValueError("out names one file: choose a kind with --kind, or leave --out away")
    for kind in pictures.kinds_of(run) if arguments.kind == "all" else [arguments.kind]:
        print(pictures.plot(run, kind, arguments.out))
    return 0


def _summary(arguments: argparse.Namespace) -> int:
    import numpy as np

    from . import datasets

    found = _find(arguments.network)
    dataset, shape = found.dataset, found.shape
    num_steps = found.num_steps if arguments.num_steps is None else arguments.num_steps
    images = None
    if dataset is not None and arguments.samples > 0:
        try:
            images = datasets.load(dataset, "test", data_dir=arguments.data_dir)[0][: arguments.samples, None]
            images = images.astype(np.float32) / np.float32(255)
        except datasets.DatasetError as error:
            print(f"no spikes are counted: {error}", file=sys.stderr)
    print(found.net.summary(shape, num_steps or 1, arguments.batch_size, images))
    return 0


def _find(name: str, seed: int = 0, channels: int | None = None) -> SimpleNamespace:
    """-> the network of a preset, a network file, a run folder or a checkpoint; with its data set, steps, loss and sample shape,
    each None where nothing says it."""
    from . import presets
    from .checkpoint import load_with_info
    from .layers.base import positive_int
    from .network import Sequential

    path = Path(name)
    if path.is_dir() or path.suffix == ".npz":
        if channels is not None:
            raise ValueError(f"channels: those of {name} are fixed; leave it out")
        net, info = load_with_info(path / "checkpoint-latest.npz" if path.is_dir() else path)
        loss = (info.get("settings") or {}).get("loss")
        return SimpleNamespace(
            net=net, dataset=info.get("dataset"), num_steps=info.get("num_steps"), loss=loss, shape=None, trained=True
        )
    preset = presets.read(path) if path.suffix == ".toml" else presets.find(name)
    choices = dict(preset.defaults)
    if channels is not None:
        choices["channels"] = positive_int("channels", channels)
    net = Sequential(*presets.make_layers(preset, choices), seed=seed)
    return SimpleNamespace(
        net=net, dataset=choices["dataset"], num_steps=preset.num_steps, loss=choices["loss"], shape=preset.input_shape,
        trained=False,
    )  # fmt: skip


def _parity(arguments: argparse.Namespace) -> int:
    import numpy as np

    from . import memory, presets, random
    from .layers.base import positive_int
    from .parity import parity

    found = _find(arguments.network, arguments.seed, arguments.channels)
    shape = found.shape or ((1, 28, 28) if found.dataset else memory.smallest_input(found.net.layers))
    images = random.uniform(
        (positive_int("batch_size", arguments.batch_size), *shape), 0, 1, arguments.seed, "parity/images"
    ).astype(found.net.dtype)  # fmt: skip
    num_steps = found.num_steps if arguments.num_steps is None else arguments.num_steps
    for layer in found.net.layers:
        shape = layer.output_shape(shape)
    labels = np.arange(len(images)) % shape[0]
    report = parity(
        found.net, images, labels, presets.make_loss(found.loss or "ce_rate_loss"), num_steps or 5,
        backends=arguments.backend, dyadic=arguments.dyadic, rescale=not found.trained,
    )  # fmt: skip
    print(json.dumps(report.facts(), indent=2) if arguments.json else report)
    return 0 if report.passed else 1


def _gradcheck(arguments: argparse.Namespace) -> int:
    import numpy as np

    from . import datasets, presets
    from .finite_differences import gradcheck
    from .layers.base import positive_int
    from .network import Sequential

    preset = presets.choose(arguments.preset, arguments.network)
    choices = dict(preset.defaults)
    if arguments.channels is not None:
        choices["channels"] = positive_int("channels", arguments.channels)
    elif choices["channels"] is not None:
        choices["channels"] = CHECKED_CHANNELS
    net = Sequential(*presets.make_layers(preset, choices), seed=arguments.seed, backend=arguments.backend)
    images, labels = datasets.mnist("test")
    count = positive_int("batch_size", arguments.batch_size)
    report = gradcheck(
        net, images[:count, None] / np.float64(255), labels[:count], presets.make_loss(choices["loss"]),
        num_steps=arguments.num_steps, entries=arguments.entries, directions=arguments.directions, seed=arguments.seed,
    )  # fmt: skip
    print(f"{preset.name}, backend {arguments.backend}: hand-derived gradients against finite differences")
    print(report)
    return 0 if report.passed else 1


def _doctor(arguments: argparse.Namespace) -> int:
    from .doctor import examine

    found = examine()
    print(json.dumps(found.facts(), indent=2) if arguments.json else found)
    return 0


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Warnings as one line for a person, without the place in our source."""
    from tqdm import tqdm

    tqdm.write(f"spikeflow: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
