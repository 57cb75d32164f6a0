"""The engine and the layers stay readable: short files, simple functions."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOMS = [Path(__file__).parents[2] / "spikeflow" / room for room in ("engine", "layers")]
FILES = [path for room in ROOMS for path in sorted(room.rglob("*.py"))]
LINES, COMPLEXITY = 400, 15


def test_no_file_is_long():
    assert len(FILES) > 30
    assert not {str(path): n for path in FILES if (n := len(path.read_text().splitlines())) > LINES}


@pytest.mark.ci
def test_no_function_is_complex():
    visitors = pytest.importorskip("radon.complexity", reason="radon is not installed: pip install 'spikeflow[ci]'")
    blocks = [(path, block) for path in FILES for block in visitors.cc_visit(path.read_text())]
    assert not [f"{path}: {block.name} {block.complexity}" for path, block in blocks if block.complexity > COMPLEXITY]
