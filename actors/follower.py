"""Keeps a directory up to date: news from the broker at once, the lease table whenever somebody doubts and every POLL_S anyway.

Owns the two tasks that do so. Losing the broker delays news by a poll; losing both leaves the directory as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import msgspec

from actors.directory import DIRECTORY_CHANNEL, Directory, decode_leases
from esplanade.core.errors import EsplanadeError
from esplanade.storage.broker import Broker
from esplanade.storage.journal import Journal

POLL_S: Final = 1.0
DOUBT_S: Final = 0.05
"""The table is read at most so often, however many doubt."""


class Follower:
    def __init__(self, directory: Directory, journal: Journal, broker: Broker) -> None:
        self._directory = directory
        self._journal = journal
        self._broker = broker
        self._doubt = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the table, then follow. Raises Unavailable where it cannot be read."""
        self._directory.adopt(await self._journal.leases())
        self._tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._listen())]

    def doubt(self) -> None:
        """Somebody was refused by an owner, or found it dead: read the table soon."""
        self._doubt.set()

    async def _poll(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._doubt.wait()
            self._doubt.clear()
            with contextlib.suppress(EsplanadeError):
                self._directory.adopt(await self._journal.leases())
            await asyncio.sleep(DOUBT_S)

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(EsplanadeError):
                subscription = await self._broker.subscribe()
                try:
                    await subscription.add([DIRECTORY_CHANNEL])
                    self.doubt()  # for what was said before
                    async for _, message in subscription:
                        with contextlib.suppress(msgspec.DecodeError):
                            self._directory.adopt(decode_leases(message))
                finally:
                    with contextlib.suppress(EsplanadeError):
                        await subscription.close()
            await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
