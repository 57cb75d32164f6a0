"""Files that are written whole or not at all: what is left after failures, killed writers, and several at once."""

import errno
import os
import stat

import pytest

from spikeflow import files
from spikeflow.files import atomic_write

POSIX = pytest.mark.skipif(os.name != "posix", reason="permissions, locks and flushed folders are POSIX's")
STALE = ".file-0123456789abcdef.tmp"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def write(path, content=b"new"):
    with atomic_write(path) as file:
        file.write(content)


def names(path) -> list[str]:
    return sorted(os.listdir(path.parent))


def fail(monkeypatch, call: str, code: int, after: int = 0) -> None:
    """``os.<call>`` fails, after so many calls that do not."""
    genuine, count = getattr(os, call), iter(range(after))

    def failing(*arguments, **options):
        if next(count, None) is None:
            raise OSError(code, os.strerror(code))
        return genuine(*arguments, **options)

    monkeypatch.setattr(files.os, call, failing)


def test_a_file_is_replaced_whole(path):
    with atomic_write(str(path)) as file:
        file.write(b"n")
        assert path.read_bytes() == b"old"
        file.write(b"ew")
    assert path.read_bytes() == b"new" and names(path) == ["file"]


def test_a_new_file_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("fresh")
    assert (tmp_path / "fresh").read_bytes() == b"new" and os.listdir(tmp_path) == ["fresh"]


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt(), OSError(errno.EINVAL, "stop")], ids=repr)
def test_an_exception_leaves_the_old_file_and_nothing_else(path, error):
    with pytest.raises(type(error)) as caught, atomic_write(path) as file:
        file.write(b"new")
        raise error
    assert caught.value is error and path.read_bytes() == b"old" and names(path) == ["file"]


@POSIX
@pytest.mark.parametrize("call, after", [("open", 0), ("open", 1), ("dup", 0), ("fsync", 0), ("replace", 0)])
def test_a_failing_call_leaves_the_old_file_and_nothing_else(path, monkeypatch, call, after):
    fail(monkeypatch, call, errno.EIO, after)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write(path)
    assert path.read_bytes() == b"old" and names(path) == ["file"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        write(tmp_path / "absent" / "file")


@POSIX
def test_content_then_name_then_folder_reach_the_disk(path, monkeypatch):
    order = []
    for call in ("fsync", "replace"):
        genuine = getattr(os, call)

        def noted(*arguments, call=call, genuine=genuine):
            folder = call == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            order.append("folder" if folder else call)
            if order == ["fsync"]:
                assert os.fstat(arguments[0]).st_size == len(b"new")
            return genuine(*arguments)

        monkeypatch.setattr(files.os, call, noted)
    write(path)
    assert order == ["fsync", "replace", "folder"]


@POSIX
def test_a_folder_that_cannot_be_flushed(path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(OSError, match=os.strerror(errno.EIO)):
        fail(patch, "fsync", errno.EIO, after=1)
        write(path)
    assert path.read_bytes() == b"new" and names(path) == ["file"]
    fail(monkeypatch, "fsync", errno.EINVAL, after=1)  # as some file systems answer, always
    write(path, b"newer")
    assert path.read_bytes() == b"newer" and names(path) == ["file"]


@POSIX
@pytest.mark.parametrize(
    "mask, old, new", [(0o022, None, 0o644), (0o077, None, 0o600), (0o022, 0o600, 0o600), (0o027, 0o664, 0o640)]
)
def test_permissions(tmp_path, mask, old, new):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(b"old")
        path.chmod(old)
    before = os.umask(mask)
    try:
        write(path)
        assert stat.S_IMODE(path.stat().st_mode) == new and os.umask(mask) == mask
    finally:
        os.umask(before)


def test_the_last_of_two_writers_wins(path):
    with atomic_write(path) as slow:
        slow.write(b"slow")
        write(path, b"quick")
        assert path.read_bytes() == b"quick"
    assert path.read_bytes() == b"slow" and names(path) == ["file"]


@POSIX
def test_a_dead_writers_file_is_removed_and_no_other(path):
    others = [".file-0123456789abcdef", "file-0123456789abcdef.tmp", ".file-0123456789abcdeg.tmp", ".other-0123456789abcdef.tmp"]
    for name in (STALE, *others):
        path.with_name(name).write_bytes(b"part")
    write(path)
    assert names(path) == sorted(["file", *others])


@POSIX
def test_a_file_that_is_not_ours_to_remove_is_no_error(path):
    path.with_name(STALE).mkdir()
    write(path)
    assert path.read_bytes() == b"new" and names(path) == [STALE, "file"]


@POSIX
def test_a_failed_write_removes_no_dead_writers_file(path):
    path.with_name(STALE).write_bytes(b"part")
    with pytest.raises(RuntimeError), atomic_write(path):
        raise RuntimeError("stop")
    assert names(path) == [STALE, "file"]


@POSIX
def test_a_writer_that_is_taken_for_dead_begins_again(path, monkeypatch):
    """Another writer may come between the making of a file and its lock."""
    genuine, taken = files.fcntl.flock, []

    def flock(descriptor, operation):
        if not taken:
            taken.extend(name for name in names(path) if name != "file")
            for name in taken:
                path.with_name(name).unlink()
        return genuine(descriptor, operation)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    write(path)
    assert len(taken) == 1 and path.read_bytes() == b"new" and names(path) == ["file"]


@POSIX
def test_a_file_system_without_locks(path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(files.fcntl, "flock", flock)
    path.with_name(STALE).write_bytes(b"of a living writer, perhaps")
    write(path)
    assert path.read_bytes() == b"new" and names(path) == [STALE, "file"]


def test_a_system_without_locks(path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    path.with_name(STALE).write_bytes(b"of a living writer, perhaps")
    write(path)
    assert path.read_bytes() == b"new" and names(path) == [STALE, "file"]
