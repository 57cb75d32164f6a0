"""``spikeflow plot``: every kind of picture of small finished runs, and what it refuses."""

import functools
import gc
import io
import os
import re
import shutil
import stat
import warnings

import numpy as np
import pytest
from matplotlib.animation import FFMpegWriter
from PIL import Image

import spikeflow as sf
from spikeflow import checkpoint, cli, pictures, plotting, training

pytestmark = pytest.mark.filterwarnings("always")  # the command line prints them
STEPS = 5
FCN_KINDS = ["curves", "raster", "traces", "spike-count", "rates", "confusion", "gradient-flow", "surrogates"]
SPIKES_KINDS = [kind for kind in pictures.KINDS if kind != "encoder"]  # of a convolutional network that is fed with spikes
SETTINGS = {"num_steps": STEPS, "batch_size": 8, "max_iterations": 2, "backend": "reference", "threads": 1}
TRAINED = {
    "config.json", "metrics.jsonl", "metrics-steps.csv", "metrics-evaluations.csv", "checkpoint-latest.npz",
    "checkpoint-best.npz", "training.png",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def mnist_is_unpacked_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sf.datasets, "mnist", functools.cache(sf.datasets.mnist))
        yield


@pytest.fixture(autouse=True)
def reference(request, monkeypatch):
    """Nothing is compiled, except for a test that asks for ``compiled``."""
    if "compiled" not in request.fixturenames:
        monkeypatch.setattr(pictures, "load_with_info", functools.partial(checkpoint.load_with_info, backend="reference"))


@pytest.fixture
def compiled():
    """The backend that ``spikeflow plot`` runs on."""


def finished(folder, preset, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trained so little, a network may be silent
        training.train(training.Settings(preset, out_dir=str(folder), **{**SETTINGS, **settings}))
    return folder


@pytest.fixture(scope="module")
def fcn_run(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("runs") / "fcn", "fcn-mnist", hidden=12, subset=300)


@pytest.fixture(scope="module")
def csnn_run(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("runs") / "csnn", "csnn-mnist", encoding="rate", subset=1500)


@pytest.fixture
def fcn(fcn_run, tmp_path):
    return shutil.copytree(fcn_run, tmp_path / "fcn")


@pytest.fixture
def csnn(csnn_run, tmp_path):
    return shutil.copytree(csnn_run, tmp_path / "csnn")


@pytest.fixture
def plot(capsys):
    """Runs ``spikeflow plot`` -> exit status, stdout, stderr."""

    def run(*argv):
        status = cli.main(["plot", *(str(word) for word in argv)])
        if status:
            gc.collect()  # now is when what is left of a picture may complain
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refused(plot):
    """Runs a ``spikeflow plot`` that must fail as bad input does -> its message."""

    def run(*argv):
        status, out, err = plot(*argv)
        assert status == 2 and out == "" and err.startswith("spikeflow: error: ") and err.count("\n") == 1, err
        return err

    return run


def check_picture(path, frames=None):
    """A whole PNG, or GIF with so many frames at least, in which not everything has one colour."""
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        assert picture.format == ("PNG" if frames is None else "GIF")
        picture.load()
        assert frames is None or picture.n_frames >= frames
        assert np.ptp(np.asarray(picture.convert("L"))) > 100 and min(picture.size) > 100


def test_all_makes_every_picture_of_a_run_of_images_and_nothing_else(plot, fcn, compiled):
    status, out, err = plot(fcn)
    assert (status, err) == (0, "")
    files = [f"{kind}.gif" if kind == "spike-count" else f"{kind}.png" for kind in FCN_KINDS]
    assert out.split("\n") == [*(str(fcn / name) for name in files), ""]
    assert {path.name for path in fcn.iterdir()} == {*files, *TRAINED}
    for name in files:
        check_picture(fcn / name, STEPS if name.endswith("gif") else None)


@pytest.mark.parametrize("kind", SPIKES_KINDS)
def test_a_convolutional_run_of_spikes_makes_every_kind(plot, csnn, kind):
    status, out, err = plot(csnn, "--kind", kind, "--sample", 3)
    suffix = ".gif" if kind in ("input", "spike-count") else ".png"
    assert (status, out, err) == (0, f"{csnn / kind}{suffix}\n", "")
    check_picture(csnn / f"{kind}{suffix}", STEPS if suffix == ".gif" else None)
    assert {path.name for path in csnn.iterdir()} == {kind + suffix, *TRAINED}


@pytest.mark.parametrize("preset, maps", [("csnn-mnist", 12), ("csnn-fashion", 3)])
def test_the_encoder_of_a_run_of_images(plot, tmp_path, monkeypatch, preset, maps):
    channels = maps if preset == "csnn-fashion" else None
    run = finished(tmp_path / "run", preset, dataset="mnist", subset=1500, channels=channels)
    seen = []
    monkeypatch.setattr(plotting, "encoder", lambda *args, encoder=plotting.encoder: (seen.append(args), encoder(*args))[1])
    status, out, err = plot(run, "--kind", "encoder", "--sample", 2)
    assert (status, err) == (0, "") and out.endswith(f"{run / 'encoder.png'}\n")
    check_picture(run / "encoder.png")
    ((image, spikes),) = seen
    np.testing.assert_array_equal(image, sf.datasets.mnist("test")[0][3000])
    side = 12 if preset == "csnn-mnist" else 28
    assert spikes.shape == (STEPS, maps, side, side) and set(np.unique(spikes)) == {0, 1}
    assert pictures.kinds_of(pictures.Run(run)) == [kind for kind in pictures.KINDS if kind != "input"]


@pytest.mark.parametrize(
    "variant",
    [
        {"neuron": "synaptic", "loss": "mse_temporal_loss", "encoding": "latency", "learn_threshold": True},
        {"neuron": "rsynaptic", "loss": "ce_max_membrane_loss", "learn_beta": True, "surrogate": "sigmoid"},
        {"neuron": "alpha", "loss": "ce_temporal_loss", "encoding": "rate", "surrogate": "triangular"},
    ],
    ids=lambda variant: variant["neuron"],
)
def test_runs_of_other_neurons_and_losses_have_their_pictures(plot, tmp_path, variant):
    run = finished(tmp_path / "run", "fcn-mnist", hidden=12, subset=500, **variant)
    for kind in ("raster", "traces", "rates", "gradient-flow", "surrogates"):
        status, _, err = plot(run, "--kind", kind, "--checkpoint", "best")
        assert (status, err) == (0, "")
        check_picture(run / f"{kind}.png")


def test_another_sample_is_another_picture_and_the_same_one_the_same(plot, fcn, tmp_path):
    found = []
    for sample in (0, 1, 33, 0):
        assert plot(fcn, "--kind", "traces", "--sample", sample, "--out", tmp_path / "a.png")[0] == 0
        found.append((tmp_path / "a.png").read_bytes())
    assert len(set(found)) == 3 and found[0] == found[3]


@pytest.mark.parametrize(
    ("kind", "name", "start"),
    [("curves", "a.svg", b"<?xml"), ("rates", "b.PDF", b"%PDF"), ("surrogates", "c.jpg", b"\xff\xd8"),
     ("spike-count", "d.html", b"<"), ("spike-count", "e.GIF", b"GIF89a")],
)  # fmt: skip
def test_the_ending_of_out_says_the_format(plot, fcn, tmp_path, kind, name, start):
    status, out, err = plot(fcn, "--kind", kind, "--out", tmp_path / name)
    assert (status, out, err) == (0, f"{tmp_path / name}\n", "")
    assert (tmp_path / name).read_bytes().startswith(start) and (tmp_path / name).stat().st_size > 1000
    assert {path.name for path in tmp_path.iterdir()} == {name, "fcn"}


def test_a_picture_replaces_the_one_of_its_name(plot, fcn):
    (fcn / "curves.png").write_bytes(b"old")
    assert plot(fcn, "--kind", "curves")[0] == 0
    check_picture(fcn / "curves.png")


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
@pytest.mark.parametrize("kind", ["surrogates.png", "spike-count.gif"])
def test_a_picture_may_be_read_by_whom_the_umask_lets(plot, fcn, kind):
    before = os.umask(0o022)
    try:
        assert plot(fcn, "--kind", kind.partition(".")[0])[0] == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((fcn / kind).stat().st_mode) == 0o644


def test_the_confusion_matrix_is_that_of_the_evaluation_with_spikes_drawn_for_many_batches(tmp_path, monkeypatch):
    run = finished(tmp_path / "run", "fcn-mnist", hidden=40, subset=10, encoding="rate", lr=0.01, max_iterations=20)
    seen = []
    confusion_matrix = plotting.confusion_matrix
    monkeypatch.setattr(
        plotting, "confusion_matrix", lambda *args, **more: (seen.append(args), confusion_matrix(*args, **more))[1]
    )
    opened = pictures.Run(run)
    pictures.plot(opened, "confusion")
    ((labels, predictions),) = seen
    assert len(labels) == 1000 and (labels == predictions).mean() == opened.info["test_accuracy"]


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("kind", ["input", "encoder", "filters", "nonsense", "Curves", ""])
def test_a_kind_that_the_run_cannot_make_is_refused_with_those_that_it_can(refused, fcn, kind):
    err = refused(fcn, "--kind", kind)
    assert f"kind must be one of {', '.join(FCN_KINDS)} for this run, got {kind!r}" in err
    assert {path.name for path in fcn.iterdir()} == TRAINED


def test_the_kinds_of_a_convolutional_run_of_spikes_are_all_but_the_encoder(refused, csnn):
    assert f"kind must be one of {', '.join(SPIKES_KINDS)} for this run, got 'encoder'" in refused(csnn, "--kind", "encoder")


@pytest.mark.parametrize("kind", ["curves", "spike-count"])
def test_out_in_a_folder_that_does_not_exist_is_refused(refused, fcn, tmp_path, kind):
    err = refused(fcn, "--kind", kind, "--out", tmp_path / "no" / "a.gif")
    assert f"the folder {tmp_path / 'no'} of the picture does not exist" in err and not (tmp_path / "no").exists()


@pytest.mark.parametrize("kind", ["curves", "spike-count"])
def test_out_that_is_a_folder_is_refused(refused, fcn, tmp_path, kind):
    folder = tmp_path / "folder.gif" if kind == "spike-count" else tmp_path / "folder.png"
    folder.mkdir()
    assert folder.name in refused(fcn, "--kind", kind, "--out", folder)
    assert list(folder.iterdir()) == [] and {path.name for path in tmp_path.iterdir()} == {"fcn", folder.name}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("name", ["curves.png", "spike-count.gif"])
def test_out_in_a_folder_that_is_read_only_is_refused(refused, fcn, tmp_path, name):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert str(tmp_path / "locked") in refused(fcn, "--kind", name.partition(".")[0], "--out", tmp_path / "locked" / name)


@pytest.mark.parametrize("sample", ["-1", "34", "1000000"])
def test_a_sample_that_the_test_set_does_not_have_is_refused(refused, fcn, sample):
    assert f"sample must be in [0, 34), the images of the test set, got {sample}" in refused(fcn, f"--sample={sample}")


def test_out_with_all_kinds_is_refused(refused, fcn, tmp_path):
    for kind in ([], ["--kind", "all"]):
        assert "choose a kind with --kind, or leave --out away" in refused(fcn, *kind, "--out", tmp_path / "a.png")


@pytest.mark.parametrize(
    ("kind", "name", "known"),
    [("curves", "a.xyz", "png"), ("curves", "a", "png"),
     ("spike-count", "a.xyz", ".gif"), ("spike-count", "a", ".gif"), ("spike-count", "a.png", ".gif")],
)  # fmt: skip
def test_an_unknown_ending_is_refused_with_the_known_ones_and_leaves_no_file(refused, fcn, tmp_path, kind, name, known):
    try:
        assert known in refused(fcn, "--kind", kind, "--out", tmp_path / name)
    finally:
        assert {path.name for path in tmp_path.iterdir()} == {"fcn"}


def test_mp4_without_ffmpeg_is_refused(refused, fcn, tmp_path, monkeypatch):
    monkeypatch.setattr(FFMpegWriter, "isAvailable", classmethod(lambda cls: False))
    escaped = None
    try:
        assert "ffmpeg" in refused(fcn, "--kind", "spike-count", "--out", tmp_path / "a.mp4")
    except RuntimeError as error:
        escaped = repr(error)  # without the traceback, which keeps the animation alive
    gc.collect()
    assert escaped is None and not (tmp_path / "a.mp4").exists()


def test_what_is_no_run_is_refused(refused, fcn, tmp_path):
    assert "checkpoint-latest.npz" in refused(tmp_path)
    assert str(tmp_path / "nowhere") in refused(tmp_path / "nowhere")
    assert "config.json" in refused(fcn / "config.json")
    sf.Sequential(sf.Linear(2, 2), sf.Leaky(0.5)).save(tmp_path / "checkpoint-latest.npz")
    assert "was not written by `spikeflow train`" in refused(tmp_path)
    (tmp_path / "checkpoint-latest.npz").write_bytes(b"damaged")
    assert "is not a sound spikeflow checkpoint" in refused(tmp_path)


@pytest.mark.parametrize(("kind", "file"), [("curves", "metrics.jsonl"), ("gradient-flow", "config.json")])
@pytest.mark.parametrize("content", [None, "not json\n"])
def test_a_run_whose_file_is_lost_or_damaged_says_which(refused, fcn, kind, file, content):
    (fcn / file).unlink()
    if content is not None:
        (fcn / file).write_text(content)
    assert re.search(re.escape(file), refused(fcn, "--kind", kind))
    assert not (fcn / f"{kind}.png").exists()
