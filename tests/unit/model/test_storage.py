"""Durable files on file systems that cannot do everything."""

import errno
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from stat import S_ISDIR

import pytest

from model import storage
from model.storage import fsync_directory, fsync_file, write_durably


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bool], None]:
    """Makes fsync of directories, or of files, fail with an error."""
    original = os.fsync

    def fail(number: int, directories: bool) -> None:
        def fsync(descriptor: int) -> None:
            if S_ISDIR(os.fstat(descriptor).st_mode) == directories:
                raise OSError(number, os.strerror(number))
            original(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(storage, "_told", set())

    return fail


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES])
def test_where_directories_cannot_be_synced_work_goes_on_and_the_log_says_so_once(
    tmp_path: Path, failing: Callable[[int, bool], None], caplog: pytest.LogCaptureFixture, number: int
) -> None:
    failing(number, True)
    for content in (b"one", b"two"):
        write_durably(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == b"two"
    (told,) = caplog.records
    assert told.levelno == logging.WARNING
    assert told.getMessage() == (
        f"The file system of {tmp_path} cannot sync directories ({os.strerror(number)}): a power cut may undo what was "
        "just written; then run the same command again."
    )


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_any_other_error_of_a_directory_is_raised_with_its_path(
    tmp_path: Path, failing: Callable[[int, bool], None], number: int
) -> None:
    failing(number, True)
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as raised:
        fsync_directory(tmp_path)
    assert (raised.value.errno, raised.value.filename) == (number, str(tmp_path))


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.EACCES])
def test_no_error_of_a_file_is_passed_over(tmp_path: Path, failing: Callable[[int, bool], None], number: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    failing(number, False)
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as raised:
        fsync_file(path)
    assert (raised.value.errno, raised.value.filename) == (number, str(path))
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
