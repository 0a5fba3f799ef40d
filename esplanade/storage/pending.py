"""What a subscription holds between arrival and reading: bounded, and lost as a whole at the limit, because a reader so far behind must refill anyway."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from esplanade.core.errors import Unavailable
from esplanade.storage.broker import MAX_PENDING_BYTES, MAX_PENDING_MESSAGES


class PendingMessages:
    """One writer, one reader, one event loop."""

    def __init__(self) -> None:
        self._messages: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._lost: str | None = None
        self._closed = False

    def offer(self, channel: str, message: bytes) -> bool:
        """Keep a message; False, and lost from now on, where the limit is reached."""
        if self._lost is not None or self._closed:
            return False
        if len(self._messages) >= MAX_PENDING_MESSAGES or self._bytes + len(message) > MAX_PENDING_BYTES:
            self.lose(f"{len(self._messages)} messages ({self._bytes} bytes) waited unread")
            return False
        self._messages.append((channel, message))
        self._bytes += len(message)
        self._changed.set()
        return True

    def lose(self, why: str) -> None:
        """The connection is gone or the limit reached: what waits unread is dropped, the reader is told."""
        if self._lost is None and not self._closed:
            self._lost = why
            self._messages.clear()
            self._bytes = 0
            self._changed.set()

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    def check(self) -> None:
        """Raises Unavailable once lost or closed."""
        if self._lost is not None:
            raise Unavailable(f"subscription lost: {self._lost}; subscribe anew and refill from the journal")
        if self._closed:
            raise Unavailable("the subscription is closed; subscribe anew")

    async def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        while True:
            while self._messages:
                channel, message = self._messages.popleft()
                self._bytes -= len(message)
                yield channel, message
            if self._closed:
                return
            self.check()
            self._changed.clear()
            await self._changed.wait()
