"""A house under proof: the real `esplanade serve` on a folder, payers of both ways with their logs, things to kill, and the bank checker at the end.

Owns the processes that it starts; leaving the context ends them. Belongs to one thread.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import IO, Final, Self

import msgspec
import psutil

from actors.ray_leftovers import FOLDERS, OWNER, PREFIX
from esplanade.ports import free_port
from tests.proof.bank import Acked, Sent, Verdict, read_log
from tests.proof.payers import TENANT, VENUE_FILE
from tests.services.stack import Esplanade, environment, eventually

BACK_S: Final = 90.0
"""A limit that only a service that stays broken reaches."""
LEASE_S: Final = 3.0
RAY: Final = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "7" * 64}


class Payers:
    """A process of payers; begun again on the same log, it goes on."""

    def __init__(self, way: str, log: Path, seed: int, count: int) -> None:
        self.way, self.log, self._seed, self._count = way, log, seed, count
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] = log.with_suffix(".out").open("ab")

    def start(self, options: Mapping[str, str], env: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "tests.proof.payers", self.way, str(self.log), str(self._seed), str(self._count)]
        for name, value in options.items():
            command += [f"--{name}", value]
        self._process = subprocess.Popen(command, env=environment(env), stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def finish(self) -> None:
        """Let what is under way be answered, then end."""
        assert self._process is not None
        assert self.alive, f"the payers ended before their time; they said:\n{self.said}"
        self._process.terminate()
        assert self._process.wait(BACK_S) == 0, f"the payers broke; they said:\n{self.said}"

    @property
    def said(self) -> str:
        return self.log.with_suffix(".out").read_text()[-4000:]

    def acked(self) -> int:
        return sum(isinstance(record, Acked) for record in read_log(self.log))

    def close(self) -> None:
        self.kill()
        self._output.close()


class House:
    """`ways`: (way, wallets) of each process of payers."""

    def __init__(self, folder: Path, seed: int, *, ways: tuple[tuple[str, int], ...] = (("gateway", 12), ("system", 12))) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.payers = [Payers(way, folder / f"{way}-{i}.log", seed, count) for i, (way, count) in enumerate(ways)]
        self.data = folder / "data"
        self._gateway_port, self._api_port = free_port("127.0.0.1"), free_port("127.0.0.1")
        self.stack = self.serve()

    def serve(self) -> Esplanade:
        return Esplanade(
            self.data, "serve", "--tenant", TENANT, "--venue", str(VENUE_FILE),
            "--gateway-port", str(self._gateway_port), "--api-port", str(self._api_port),
            env=RAY | {"ESPLANADE_LEASE_TTL_S": str(LEASE_S)} | self.settings(),
        )  # fmt: skip

    def settings(self) -> dict[str, str]:
        """More of the service's environment."""
        return {}

    def __enter__(self) -> Self:
        self.stack.ready()
        self.operator = self.stack.token("operator", TENANT)
        return self

    def __exit__(self, *_: object) -> None:
        for payers in self.payers:
            payers.close()
        self.stack.__exit__()

    # --- addresses ---

    @property
    def postgres_url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.data}/postgres"

    @property
    def redis_url(self) -> str:
        return f"unix://{self.data}/redis/redis.sock"

    def ray_address(self) -> str:
        for owner in FOLDERS.glob(f"{PREFIX}*/{OWNER}"):
            with contextlib.suppress(OSError, StopIteration):
                if owner.read_text().split()[0] == str(self.stack.pid):
                    return "127.0.0.1:" + next(owner.parent.glob("r/session_latest/gcs_server_port_*")).read_text().strip()
        raise LookupError(f"no Ray node of process {self.stack.pid} under {FOLDERS}")

    # --- load ---

    def pay(self) -> None:
        """Begin to pay, or go on after a kill, wherever nobody pays now; returns when each way has been answered."""
        for payers in self.payers:
            if not payers.alive:
                self._start(payers)
        for payers in self.payers:
            before = payers.acked()
            assert eventually(lambda: payers.acked() > before + 5, BACK_S), f"{payers.way}: nothing is acknowledged; it said:\n{payers.said}"  # noqa: B023

    def _start(self, payers: Payers) -> None:
        options = {"api": self.stack.api, "ws": self.stack.ws, "operator": self.operator}
        if payers.way == "system":
            options |= {"ray": self.ray_address(), "postgres": self.postgres_url, "redis": self.redis_url}
        payers.start(options, RAY)

    def silence_s(self, since: float, until: float) -> float:
        """The longest time that any wallet went without an answer."""
        longest = 0.0
        for payers in self.payers:
            owner: dict[bytes, int] = {}
            at: dict[int, list[float]] = {}
            for record in read_log(payers.log):
                if isinstance(record, Sent):
                    owner[record.key] = record.subject
                elif isinstance(record, Acked) and since <= record.at_s <= until:
                    at.setdefault(owner[record.key], []).append(record.at_s)
            for times in at.values():
                longest = max(longest, *(b - a for a, b in pairwise([since, *times, until])))
        return longest

    # --- kills ---

    def shards(self) -> list[psutil.Process]:
        """Processes of shards that run now, spares too."""
        doors = [self.stack.listener(address).pid for address in (self.stack.ws, self.stack.api)]
        return [process for process in self.stack.family() if _is_host(process) and process.pid not in doors]

    def victim(self, what: str) -> psutil.Process:
        """The process to kill, once there is one."""
        find: dict[str, Callable[[], psutil.Process]] = {
            "gateway": lambda: self.stack.listener(self.stack.ws),
            "api": lambda: self.stack.listener(self.stack.api),
            "PostgreSQL": lambda: self.stack.named("postgres"),
            "Redis": lambda: self.stack.named("redis-server"),
            "raylet": lambda: self.stack.named("raylet"),
            "shard": lambda: self.chance.choice(self.shards()),
            "esplanade": lambda: psutil.Process(self.stack.pid),
        }
        found: list[psutil.Process] = []

        def there() -> bool:
            with contextlib.suppress(StopIteration, ValueError, IndexError, psutil.Error):
                found.append(find[what]())
            return bool(found)

        assert eventually(there, BACK_S), f"there is no {what}; it said:\n{self.stack.text}"
        return found[0]

    def kill(self, what: str, how: signal.Signals = signal.SIGKILL) -> int:
        victim = self.victim(what)
        victim.send_signal(how)
        return int(victim.pid)

    def ended(self) -> float:
        """Wait for the end of a service that cannot go on; returns when (Unix time)."""
        self.stack.wait()
        at_s = time.time()
        assert eventually(lambda: not self.stack.family(), BACK_S), f"processes live on; it said:\n{self.stack.text}"
        return at_s

    def again(self) -> None:
        """Start the service anew on the same directory; a Ray driver of another node cannot go on, so the payers behind it are killed too."""
        self.stack.__exit__()
        for payers in self.payers:
            if payers.way == "system":
                payers.kill()
        self.stack = self.serve()
        self.stack.ready()

    def whole(self) -> bool:
        return self.stack.reads("readyz") == 200

    # --- the end ---

    def audit(self) -> Verdict:
        """Let the payers finish, then have the checker compare."""
        assert eventually(self.whole, BACK_S), f"it does not become whole; it said:\n{self.stack.text}"
        self.pay()
        for payers in self.payers:
            payers.finish()
        logs = [str(payers.log) for payers in self.payers]
        command = [
            sys.executable,
            "-m",
            "tests.proof.bank",
            *logs,
            "--ws",
            self.stack.ws,
            "--operator",
            self.operator,
            "--postgres",
            self.postgres_url,
        ]
        checker = subprocess.run(command, env=environment(), capture_output=True, timeout=300, check=False)
        assert checker.stdout, checker.stderr.decode()
        return msgspec.json.decode(checker.stdout.splitlines()[-1], type=Verdict)


def _is_host(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.name().startswith("ray::_Host"))
    return False


def summary(verdict: Verdict) -> dict[str, object]:
    """For a line of JSON."""
    return {**msgspec.to_builtins(verdict), "findings": [f"{finding.kind}: {finding.what}" for finding in verdict.findings[:20]]}


@contextlib.contextmanager
def journal_rows(postgres_url: str) -> Iterator[Callable[[str], list[tuple[object, ...]]]]:
    """Queries on the journal as it lies in the database."""
    import psycopg

    with psycopg.connect(postgres_url, options="-c search_path=esplanade") as connection:
        yield lambda query: list(connection.execute(query.encode()).fetchall())


TWO_WRITERS: Final = """
SELECT tenant, partition, position, epoch, before FROM (
    SELECT tenant, partition, position, epoch, lag(epoch) OVER log AS before, lag(position) OVER log AS last FROM segment
    WINDOW log AS (PARTITION BY tenant, partition ORDER BY position)
) AS s WHERE epoch < before OR position <> coalesce(last, 0) + 1
"""
"""Segments that a former owner appended after its successor, and gaps: there must be none."""


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)
