"""The example scripts run, say what they found, and leave their pictures."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SKLEARN = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn")
SIGNATURES = {".png": b"\x89PNG", ".gif": b"GIF8"}


def run(*arguments) -> str:
    """-> what Python printed; fails unless its exit status is 0."""
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "script, pictures, line",
    [
        (
            "encodings",
            ["encodings.png", "rate_code.gif"],
            r"^latency: bright pixels first +115 spikes of 115 pixels, +1\.0 each$",
        ),
        ("neurons_and_resets", ["neurons.png"], r"^    syn\[t\] = 0\.5 syn\[t-1\] \+ i\[t\]$"),
        (
            "surrogates_and_dead_neurons",
            ["surrogates.png"],
            r"(?s)dead layers \['1', '3'\].*dead layers \[\].*narrow.*dead layers \['1', '3'\].*dead layers \['1', '3'\]",
        ),
        ("backward_pass", ["gradient_flow.png"], r"^  25 +1\.000  100\.0 % +1\.000  100\.0 % +1\.000  100\.0 %$"),
        ("spike_counter", ["spike_counter.gif"], r"^test accuracy (8|9)\d\.\d\d %$"),
        pytest.param("sklearn_pipeline", ["sklearn_confusion.png"], r"^held-out accuracy 9\d\.\d\d %$", marks=SKLEARN),
    ],
)
def test_an_example_runs_and_leaves_its_pictures(script, pictures, line, tmp_path):
    output = run(EXAMPLES / f"{script}.py", "--out", tmp_path / "new")
    assert re.search(line, output, re.MULTILINE), output
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == pictures
    for name in pictures:
        path = tmp_path / "new" / name
        assert str(path) in output.splitlines()
        assert path.stat().st_size > 5000 and path.read_bytes().startswith(SIGNATURES[path.suffix])


def test_without_sklearn_the_example_says_how_to_get_it(tmp_path):
    script = str(EXAMPLES / "sklearn_pipeline.py")
    hidden = f"import runpy, sys; sys.modules['sklearn'] = None; sys.argv[1:] = ['--out', {str(tmp_path)!r}]; "
    output = run("-c", f"{hidden}runpy.run_path({script!r}, run_name='__main__')")
    assert output == "this example needs scikit-learn: pip install scikit-learn\n"
    assert not list(tmp_path.iterdir())
