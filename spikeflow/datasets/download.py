"""Download of one file of known content."""

from __future__ import annotations

import hashlib
import http.client
import io
import time
import urllib.request
from pathlib import Path

from spikeflow.datasets.idx import DatasetError, read_bounded
from spikeflow.files import atomic_write

__all__ = ["download"]

TIMEOUT = 30.0  # seconds without a byte
DEADLINE = 900.0  # seconds for a whole file: a server must not keep us waiting one byte at a time

_BLOCK = 2**16
_OVERHEAD = 2**16  # bytes that compression may add to what it cannot compress


def download(urls: list[str], path: Path, sha256: str, size: int) -> None:
    """Fetch a file from the first of ``urls`` that has it, and write it to ``path``, whole or not at all.

    Parameters
    ----------
    urls : list of str
    path : Path
        In a folder that exists; the file stays compressed as it came.
    sha256 : str
    size : int
        Hash and number of the decompressed bytes. Nothing larger is read, neither before decompression nor after it.

    Raises
    ------
    DatasetError
        No address has the file; with the reason of each.
    OSError
        ``path`` cannot be written.
    """
    reasons = []
    for url in urls:
        try:
            data = _fetch(url, size)
            _check(data, url, sha256, size)
        except (OSError, http.client.HTTPException, DatasetError) as error:
            reasons.append(str(error) if url in str(error) else f"{url}: {error or type(error).__name__}")
            continue
        with atomic_write(path) as file:
            file.write(data)
        return
    raise DatasetError("; ".join(reasons))


def _fetch(url: str, size: int) -> bytes:
    end = time.monotonic() + DEADLINE
    content = bytearray()
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
        while block := response.read1(_BLOCK):  # what there is: read would wait for a whole block
            content += block
            if len(content) > size + _OVERHEAD:
                raise DatasetError(f"{url}: more bytes than the whole file has, {size}")
            if time.monotonic() > end:
                raise TimeoutError(f"not finished after {DEADLINE:g} seconds")
    return bytes(content)


def _check(data: bytes, url: str, sha256: str, size: int) -> None:
    digest = hashlib.sha256(read_bounded(io.BytesIO(data), url, size)).hexdigest()
    if digest != sha256:
        raise DatasetError(f"{url}: the SHA-256 of the content is {digest}, it should be {sha256}")
