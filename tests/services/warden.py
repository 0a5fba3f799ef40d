"""Runs a command and never loses a descendant of it: `python warden.py STATUS_FD COMMAND...`.

Whatever the command's processes leave behind becomes this process's child (Linux: PR_SET_CHILD_SUBREAPER), so that "nothing is left" can be read off the process tree,
daemons included. Writes `pid N` and, once the command has ended, `exit N` to STATUS_FD (N below zero: killed by that signal). Lives until its standard input
closes; then it kills what is left, so that a failed test leaves nothing on the machine either.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading

import psutil

PR_SET_CHILD_SUBREAPER = 36


def main(status: int, command: list[str]) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    pid = os.fork()
    if pid == 0:
        os.close(status)
        os.setsid()  # a group of its own, as a shell gives it: Ctrl-C is a signal to the group
        os.execvp(command[0], command)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    os.write(status, f"pid {pid}\n".encode())
    threading.Thread(target=end_all, daemon=True).start()
    while True:
        try:
            ended, code = os.wait()
        except ChildProcessError:
            threading.Event().wait(0.02)  # no child now; a daemon may still become one of ours
            continue
        if ended == pid:
            os.write(status, f"exit {os.waitstatus_to_exitcode(code)}\n".encode())


def end_all() -> None:
    while os.read(0, 1024):
        pass
    for _ in range(5):
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.kill()
        threading.Event().wait(0.05)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
