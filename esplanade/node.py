"""What runs on one machine beside Ray: the data directory with its lock, PostgreSQL and Redis, embedded or given by URL.

Owns starting them at once, starting an embedded one again when it dies, and stopping them in every case. Knows nothing of shards or gateways.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from esplanade.core.clock import SystemClock
from esplanade.core.errors import Unavailable
from esplanade.settings import Settings
from esplanade.storage.data_directory import DataDirectory
from esplanade.storage.embedded import EmbeddedServer, start_postgres, start_redis
from esplanade.storage.postgres_migrate import migrate
from esplanade.storage.redis import RedisBroker

RESTARTS: Final = 5
RESTARTS_WITHIN_S: Final = 60.0
"""A server that dies more often than this is not started again."""

Start = Callable[[Path], EmbeddedServer]
STARTS: Final[dict[str, Start]] = {"PostgreSQL": start_postgres, "Redis": start_redis}


class Node:
    """The stores of this machine. `start` either leaves all of them running or none."""

    def __init__(self, settings: Settings, clock: SystemClock) -> None:
        self._settings = settings
        self._clock = clock
        self._directory: DataDirectory | None = None
        self._servers: dict[str, EmbeddedServer] = {}
        self._restarts: deque[float] = deque()
        self.postgres_url = settings.postgres_url or ""
        self.redis_url = settings.redis_url or ""

    async def open(self) -> None:
        """Take the data directory's lock. Raises Conflict when another process holds it, InvalidInput where it cannot be used."""
        self._directory = await asyncio.to_thread(DataDirectory.open, self._settings.data_dir)

    async def start(self) -> None:
        """Start what is embedded, ask what is not whether it is there, migrate the database. The lock is held (`open`)."""
        try:
            results = await asyncio.gather(self._postgres(), self._redis(), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
        except BaseException:
            await asyncio.shield(self.stop())
            raise

    async def _postgres(self) -> None:
        if self._settings.postgres_url is None:
            self.postgres_url = await self._embedded("PostgreSQL")
        await asyncio.to_thread(migrate, self.postgres_url)

    async def _redis(self) -> None:
        if self._settings.redis_url is None:
            self.redis_url = await self._embedded("Redis")
            return
        try:
            await (await RedisBroker.open(self.redis_url)).close()
        except Unavailable as error:
            raise Unavailable(f"{error.message} Start it, or mend ESPLANADE_REDIS_URL") from error

    async def _embedded(self, name: str) -> str:
        server = self._servers[name] = await _finished(STARTS[name], self._settings.data_dir)
        return server.url

    async def mend(self, say: Callable[[str], None]) -> None:
        """Start again what has died of the embedded servers; the others of the service find them at the same address. Raises Unavailable where it dies too often."""
        for name, server in list(self._servers.items()):
            if server.alive:
                continue
            now = self._clock.monotonic_s()
            while self._restarts and self._restarts[0] < now - RESTARTS_WITHIN_S:
                self._restarts.popleft()
            if len(self._restarts) >= RESTARTS:
                raise Unavailable(
                    f"{name} died again after {RESTARTS} restarts within {RESTARTS_WITHIN_S:.0f} s; {self._settings.data_dir}/*.log say why"
                )
            self._restarts.append(now)
            say(f"{name} (process {server.server_pid}) died; starting it again")
            await asyncio.to_thread(server.stop)
            await self._embedded(name)
            say(f"{name} is back after {self._clock.monotonic_s() - now:.1f} s")

    def pids(self) -> list[int]:
        return [pid for server in self._servers.values() for pid in server.pids]

    async def stop(self) -> None:
        """End the servers. Idempotent. Raises Unavailable, after all were asked, where one cannot be ended."""
        servers, self._servers = self._servers, {}
        results = await asyncio.gather(*(asyncio.to_thread(server.stop) for server in servers.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def close(self) -> None:
        """Release the lock: the last thing of all, since the next start takes what it finds for leftovers. Idempotent."""
        if self._directory is not None:
            self._directory.close()
            self._directory = None


async def _finished(start: Start, data_dir: Path) -> EmbeddedServer:
    """Run a blocking start to its end even if we are cancelled meanwhile: a server that came up must be known to be stopped."""
    task = asyncio.ensure_future(asyncio.to_thread(start, data_dir))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.to_thread((await task).stop)
        raise
