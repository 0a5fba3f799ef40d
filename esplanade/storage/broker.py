"""The broker carries publications between processes: at most once, unordered across channels, ordered within one publisher and channel.

Losing it delays and never loses what is durable: (epoch, offset) come from the journal and gaps are refilled there. Also keeps small expiring values.
Implementations: `redis` (real), `memory` (tests of logic); one contract suite for both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol


class Subscription(Protocol):
    async def add(self, channels: Sequence[str]) -> None:
        """Returns when the subscription is in force."""
        ...

    async def remove(self, channels: Sequence[str]) -> None: ...

    def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        """(channel, message); raises Unavailable when the connection is lost: subscribe anew, refill from the journal."""
        ...

    async def close(self) -> None: ...


class Broker(Protocol):
    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Hand over (channel, message) pairs, pipelined. Raises Unavailable."""
        ...

    async def subscribe(self) -> Subscription: ...

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None: ...

    async def get(self, key: str) -> bytes | None: ...

    async def keys(self, prefix: str) -> list[str]: ...

    async def close(self) -> None: ...
