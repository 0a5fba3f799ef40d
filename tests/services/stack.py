"""The real command `esplanade` as a subprocess, and what is left when it has ended."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from actors.ray_leftovers import FOLDERS, OWNER, PREFIX
from tests.services_fixtures import open_folder

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-c", "from esplanade.cli.main import app; app()"]
READY = "Ctrl-C stops it."
END_S = 150.0
"""A limit that only a hang reaches."""


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """A data directory under /var/tmp that PostgreSQL's user may pass through; removed afterwards."""
    folder = open_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of Esplanade or Ray, so that a developer's own do not reach the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ESPLANADE_", "RAY_"))}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"} | dict(extra or {})


class Esplanade:
    """`esplanade ARGUMENTS` on a data directory. Use as a context: whatever lives at its end is killed."""

    def __init__(self, data: Path, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.data = data
        self.output: list[str] = []
        self.api = self.ws = ""
        self._code: int | None = None
        self._ended = threading.Event()
        self._read = threading.Event()
        self._lines = threading.Condition()
        read, write = os.pipe()
        warden = [sys.executable, str(Path(__file__).parent / "warden.py"), str(write)]
        self._warden = subprocess.Popen(
            [*warden, *COMMAND, *arguments, "--data-dir", str(data)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd or ROOT, env=environment(env), pass_fds=[write],
        )  # fmt: skip
        os.close(write)
        self._status = os.fdopen(read)
        self.pid = int(self._status.readline().split()[1])
        for follow in (self._follow_status, self._follow_output):
            threading.Thread(target=follow, daemon=True).start()

    def _follow_status(self) -> None:
        for line in self._status:
            self._code = int(line.split()[1])
            self._ended.set()

    def _follow_output(self) -> None:
        assert self._warden.stdout is not None
        for line in self._warden.stdout:
            with self._lines:
                self.output.append(line.rstrip())
                self._lines.notify_all()
        self._read.set()
        with self._lines:
            self._lines.notify_all()

    def __enter__(self) -> Esplanade:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._warden.stdin is not None
        self._warden.stdin.close()
        self._warden.wait(END_S)

    @property
    def text(self) -> str:
        return "\n".join(self.output)

    def says(self, text: str) -> str:
        """Wait for a line with `text`; returns it."""
        with self._lines:
            self._lines.wait_for(lambda: any(text in line for line in self.output) or self._read.is_set(), END_S)
        found = next((line for line in self.output if text in line), None)
        assert found is not None, f"it did not say {text!r} but:\n{self.text}"
        return found

    def ready(self) -> Esplanade:
        """Wait until it serves."""
        self.says(READY)
        self.api = self.says("console ").split()[-1]
        self.ws = self.says("gateway ").split()[-1]
        return self

    def family(self) -> list[psutil.Process]:
        """Every live process that came of the command, itself among them, orphans too."""
        found = []
        for process in psutil.Process(self._warden.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def listener(self, address: str) -> psutil.Process:
        """The process that listens at an address of this service. Raises StopIteration while there is none."""
        port = int(address.rstrip("/").rsplit(":", 1)[1])
        return next(
            process
            for process in self.family()
            for connection in connections(process)
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        )

    def named(self, name: str) -> psutil.Process:
        """The oldest process of a name: PostgreSQL's postmaster is the parent of its namesakes. Raises ValueError while there is none."""
        return min((process for process in self.family() if named(process, name)), key=lambda process: process.create_time())

    def files(self) -> list[str]:
        """What only a running service may have on disk: sockets, locks, pid files, folders for sockets under /tmp."""
        data = self.data.resolve()
        inside = [path for path in data.rglob("*") if path.is_socket() or path.suffix in (".lock", ".pid")]
        short = [f"esplanade-{hashlib.sha256(os.fsencode(data / name)).hexdigest()[:16]}" for name in ("postgres", "redis")]
        outside = [path for path in (Path(tempfile.gettempdir()) / name for name in short) if path.exists()]
        for owner in FOLDERS.glob(f"{PREFIX}*/{OWNER}"):
            with contextlib.suppress(FileNotFoundError):
                if owner.read_text().split()[0] == str(self.pid):
                    outside.append(owner.parent)
        return [str(path) for path in (*inside, *outside)]

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def ctrl_c(self) -> None:
        """What a terminal does: SIGINT to the whole foreground group."""
        os.killpg(self.pid, signal.SIGINT)

    def wait(self) -> int:
        """Exit code of the command; below zero the signal that killed it. Its output is whole then: the end of a process is heard before its last lines are read."""
        assert self._ended.wait(END_S), f"still running after {END_S:.0f} s:\n{self.text}"
        self._read.wait(END_S if self._code is not None and self._code >= 0 else 0)  # a killed command's orphans may hold its output open
        assert self._code is not None
        return self._code

    # --- asking it ---

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET on the API."""
        return fetch(self.api + path)

    def reads(self, path: str) -> int:
        """The status of a GET on the API; 0 while nobody answers."""
        try:
            return self.get(path)[0]
        except OSError:
            return 0

    def metric(self, shard: str, counter: str) -> float:
        """A shard's counter, from /metrics; raises LookupError while the shard does not answer."""
        for line in self.get("metrics")[1].decode().splitlines():
            if line.startswith("esplanade_shard{") and f'"{shard}"' in line and f'counter="{counter}"' in line:
                return float(line.rsplit(" ", 1)[1])
        raise LookupError(f"{shard} {counter}")

    def token(self, role: str, tenant: str = "demo") -> str:
        """A token by local sign-in."""
        body = json.dumps({"role": role, "tenant": tenant}).encode()
        request = urllib.request.Request(f"{self.api}v1/local/token", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as reply:
            return str(json.load(reply)["token"])


def named(process: psutil.Process, name: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.name() == name)
    return False


def connections(process: psutil.Process) -> list[Any]:
    with contextlib.suppress(psutil.Error):
        return list(process.net_connections("inet"))
    return []


def fetch(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=20) as reply:
            return int(reply.status), bytes(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def eventually(holds: Callable[[], bool], within_s: float) -> bool:
    """Whether something comes true in time."""
    limit = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def assert_nothing_left(stack: Esplanade, *, within_s: float = 0.5) -> None:
    """No process, no socket, no lock, no folder under /tmp."""
    eventually(lambda: not stack.family(), within_s)
    left = [(process.pid, process.name(), process.cmdline()[:2]) for process in stack.family()]
    assert not left, f"{left} live on; it said:\n{stack.text}"
    assert not stack.files()
