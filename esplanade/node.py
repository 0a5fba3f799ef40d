"""What runs on one machine beside Ray: the data directory with its lock, PostgreSQL and Redis, embedded or given by URL.

Owns starting them at once and stopping them in every case. Knows nothing of shards or gateways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from esplanade.settings import Settings
from esplanade.storage.data_directory import DataDirectory
from esplanade.storage.embedded import EmbeddedServer, start_postgres, start_redis
from esplanade.storage.postgres_migrate import migrate


class Node:
    """The stores of this machine. `start` either leaves all of them running or none."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directory: DataDirectory | None = None
        self._servers: list[EmbeddedServer] = []
        self.postgres_url = settings.postgres_url or ""
        self.redis_url = settings.redis_url or ""

    async def open(self) -> Path:
        """Take the data directory's lock; returns the directory. Raises Conflict when another process holds it, InvalidInput where it cannot be used."""
        self._directory = await asyncio.to_thread(DataDirectory.open, self._settings.data_dir)
        return self._directory.path

    async def start(self) -> None:
        """Start what is embedded, migrate the database. The lock is held (`open`)."""
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
            server = await _finished(start_postgres, self._settings)
            self._servers.append(server)
            self.postgres_url = server.url
        await asyncio.to_thread(migrate, self.postgres_url)

    async def _redis(self) -> None:
        if self._settings.redis_url is None:
            server = await _finished(start_redis, self._settings)
            self._servers.append(server)
            self.redis_url = server.url

    def pids(self) -> list[int]:
        return [pid for server in self._servers for pid in server.pids]

    async def stop(self) -> None:
        """End the servers. Idempotent. Raises Unavailable, after all were asked, where one cannot be ended."""
        servers, self._servers = self._servers, []
        results = await asyncio.gather(*(asyncio.to_thread(server.stop) for server in servers), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def close(self) -> None:
        """Release the lock: the last thing of all, since the next start takes what it finds for leftovers. Idempotent."""
        if self._directory is not None:
            self._directory.close()
            self._directory = None


async def _finished(start: Callable[[Path], EmbeddedServer], settings: Settings) -> EmbeddedServer:
    """Run a blocking start to its end even if we are cancelled meanwhile: a server that came up must be known to be stopped."""
    task = asyncio.ensure_future(asyncio.to_thread(start, settings.data_dir))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.to_thread((await task).stop)
        raise
