"""Where a Ray node of ours lives on disk, and the end of what is left of one whose driver stopped or died: its processes, then its folder.

Owns no running node and starts nothing. Three callers: a node that is stopped; the keeper of a node whose driver was killed, which runs this file as a program;
the next start of any node by the same user, for the case that the keeper was killed too.

    python -I ray_leftovers.py FOLDER
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

FOLDERS: Final = Path("/tmp")
"""Sockets lie in a node's folder and their paths may have 107 bytes, so it is short whatever TMPDIR says."""
PREFIX: Final = "esp-"
OWNER: Final = "owner"
"""File of the driver's pid and time of creation, so that a folder whose driver is dead is known."""
PASSES: Final = 5
"""A process that is being born while the others are ended is found by the next pass."""
END_S: Final = 3.0
"""How long processes may take to end after a signal."""


def make_folder() -> Path:
    """A private directory for a node of this process."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=FOLDERS))
    me = psutil.Process()
    (folder / OWNER).write_text(f"{me.pid} {me.create_time()}")
    return folder


def reclaim() -> list[Path]:
    """End what nodes of killed drivers left behind, and remove their folders; returns these. Those of this user alone."""
    gone = []
    for folder in FOLDERS.glob(PREFIX + "*"):
        with contextlib.suppress(OSError, ValueError):
            pid, created_s = (folder / OWNER).read_text().split()
            if folder.lstat().st_uid == os.geteuid() and not _is_running(int(pid), float(created_s)) and not end_node(folder, gently=False):
                gone.append(folder)
    return gone


def of_node(folder: Path) -> list[psutil.Process]:
    """Live processes of the node in `folder`, as far as this user may see; never the caller itself.

    Every process of a node names the folder in its command line or holds a file below it: Ray's agents and workers overwrite their command line and environment.
    """
    below = f"{folder}{os.sep}"
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _is_ray(process) and _uses(process, below)]


def end_node(folder: Path, *, gently: bool) -> list[int]:
    """End the processes of the node in `folder` and remove it. Returns the pids that could not be ended (then the folder stays). Blocks for some seconds at most.

    gently: ask first (SIGTERM), for a node that was stopped in order; else SIGKILL at once.
    """
    for number in range(PASSES):
        found = of_node(folder)
        if not found:
            shutil.rmtree(folder, ignore_errors=True)
            return []
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGTERM if gently and number == 0 else signal.SIGKILL)
        # Orphans may stay as zombies where nobody reaps them, so whether they live is asked, not waited for.
        limit = time.monotonic() + END_S
        while any(is_alive(process) for process in found) and time.monotonic() < limit:
            time.sleep(0.02)
    return [process.pid for process in of_node(folder)]


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _is_running(pid: int, created_s: float) -> bool:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return is_alive(process) and bool(abs(process.create_time() - created_s) < 1.0)
    return False


def _is_ray(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        name = process.name()
        named = name in ("raylet", "gcs_server") or name.startswith("ray::") or any("/ray/" in part for part in process.cmdline()[:3])
        return bool(named and is_alive(process))
    return False


def _uses(process: psutil.Process, below: str) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return any(below in part for part in process.cmdline()) or any(file.path.startswith(below) for file in process.open_files())
    return False


if __name__ == "__main__":
    sys.exit(1 if end_node(Path(sys.argv[1]), gently=False) else 0)
