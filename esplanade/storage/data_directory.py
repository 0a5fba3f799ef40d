"""Locks by which one process owns a directory: `flock` with the holder's pid in the file, so that a crash frees it and a second start can name the first.

The lock file is removed when the lock is given back. Never waits.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from esplanade.core.errors import Conflict, InvalidInput

LOCK_NAME: Final = "esplanade.lock"


class FileLock:
    """A held lock. The file holds the pid and a newline; the kernel drops the lock when the process ends, however it ends."""

    def __init__(self, path: Path, *, what: str) -> None:
        """Take the lock. Raises Conflict naming the holder's pid and the directory, InvalidInput where the file cannot be made."""
        self.path: Final = path
        while True:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            except OSError as error:
                raise InvalidInput(f"{path}: cannot make the lock file ({error.strerror}); name a directory that you may write to") from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(fd)
                raise Conflict(f"{what} in {path.parent} is in use by process {holder}; stop that process, or name another data directory") from None
            if self._still_names(fd):
                break
            os.close(fd)  # the former holder removed the file between our open and our lock: lock the new one
        self._fd: int | None = fd
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def _still_names(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Remove the file and give the lock back. Idempotent."""
        if self._fd is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = None


class DataDirectory:
    """The data directory of one running Esplanade: `with DataDirectory.open(path) as data: ...`."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path: Final = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> Self:
        """Make the directory where it is missing and lock it. Raises Conflict on a second start, InvalidInput where it cannot be used."""
        path = path.expanduser().resolve()
        make_directory(path)
        return cls(path, FileLock(path / LOCK_NAME, what="Esplanade"))

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def make_directory(path: Path) -> None:
    """Make `path` and its missing parents. As root they are open to be passed through (755), since PostgreSQL runs as another user; else private (700).

    Permissions of directories that were there are left alone. Raises InvalidInput.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        for folder in reversed(missing):
            folder.mkdir(mode=0o700)
            if os.geteuid() == 0:
                folder.chmod(0o755)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot make the data directory ({error.strerror}); name one that you may write to") from error
    if not path.is_dir():
        raise InvalidInput(f"{path}: is no directory; name a directory for the data")
