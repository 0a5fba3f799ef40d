"""Ends what is left of a Ray node whose driver stopped or died: its processes, then its folder.

Owns no node and starts nothing. Three callers: a node that is stopped, the keeper of a node whose driver was killed (it runs this file as a program), and the next
start in the same place. The folder is the mark: every process of a node names it in its command line or holds a file below it (Ray's agents and workers overwrite
their own command line and environment, so those alone do not tell).

    python -I ray_leftovers.py FOLDER
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Final

import psutil

PASSES: Final = 5
"""A process that is being born while the others are ended is found by the next pass."""
END_S: Final = 3.0
"""How long processes may take to end after a signal."""


def of_node(folder: Path) -> list[psutil.Process]:
    """Live processes of the node in `folder`, as far as this user may see; never the caller itself."""
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _belongs(process, f"{folder}{os.sep}")]


def end_node(folder: Path, *, gently: bool) -> list[int]:
    """End the processes of the node in `folder` and remove it. Returns the pids that could not be ended (then the folder stays). Blocks for some seconds at most.

    gently: ask first (SIGTERM), for a node that was stopped in order; else SIGKILL at once.
    """
    for number in range(PASSES):
        found = of_node(folder)
        if not found:
            shutil.rmtree(folder, ignore_errors=True)
            return []
        _signal(found, signal.SIGTERM if gently and number == 0 else signal.SIGKILL)
    return [process.pid for process in of_node(folder)]


def alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _belongs(process: psutil.Process, below: str) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return any(below in part for part in process.cmdline()) or any(file.path.startswith(below) for file in process.open_files())
    return False


def _signal(processes: list[psutil.Process], how: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(how)
    # Orphans may stay as zombies where nobody reaps them, so asking whether they live is better than waiting for them.
    limit = time.monotonic() + END_S
    while any(alive(process) for process in processes) and time.monotonic() < limit:
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(1 if end_node(Path(sys.argv[1]), gently=False) else 0)
