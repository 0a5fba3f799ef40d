"""One process owns a data directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from esplanade.core.errors import Conflict, InvalidInput
from esplanade.storage.data_directory import LOCK_NAME, DataDirectory, FileLock

HOLDER = """
import sys
from pathlib import Path
from esplanade.storage.data_directory import DataDirectory
with DataDirectory.open(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_start_is_refused_and_names_pid_and_directory(tmp_path: Path) -> None:
    with DataDirectory.open(tmp_path / "data") as data:
        assert data.path == (tmp_path / "data").resolve()
        assert (data.path / LOCK_NAME).read_text() == f"{os.getpid()}\n"
        with pytest.raises(Conflict, match=f"{data.path} is in use by process {os.getpid()}"):
            DataDirectory.open(tmp_path / "data")
    assert list(data.path.iterdir()) == []
    DataDirectory.open(tmp_path / "data").close()


def test_a_lock_outlives_no_process_however_it_ends(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Conflict, match=f"process {holder.pid}"):
            DataDirectory.open(tmp_path)
        holder.kill()
        holder.wait()
    assert (tmp_path / LOCK_NAME).exists()
    with DataDirectory.open(tmp_path):
        assert (tmp_path / LOCK_NAME).read_text() == f"{os.getpid()}\n"
    assert not (tmp_path / LOCK_NAME).exists()


def test_releasing_twice_does_not_free_the_next_holders_lock(tmp_path: Path) -> None:
    first = FileLock(tmp_path / "lock", what="It")
    first.release()
    second = FileLock(tmp_path / "lock", what="It")
    first.release()
    with pytest.raises(Conflict):
        FileLock(tmp_path / "lock", what="It")
    second.release()


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidInput, match="file"):
            DataDirectory.open(path)


def test_permissions_of_a_directory_that_was_there_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o750)
    with DataDirectory.open(tmp_path / "mine"):
        assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o750


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / LOCK_NAME).symlink_to(tmp_path / "victim")
    with pytest.raises(InvalidInput):
        DataDirectory.open(tmp_path)
    assert (tmp_path / "victim").read_text() == "kept"
