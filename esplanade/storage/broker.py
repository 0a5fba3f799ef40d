"""The broker carries publications between processes: at most once, unordered across channels, ordered within one publisher and channel.

Losing it delays and never loses what is durable: (epoch, offset) come from the journal and gaps are refilled there. Also keeps small expiring values.
Implementations: `redis` (real), `memory` (tests of logic); one contract suite for both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from esplanade.core.errors import InvalidInput

MAX_PENDING_MESSAGES: Final = 65_536
MAX_PENDING_BYTES: Final = 64 * 2**20
"""What a subscription holds unread; at the limit it is lost (Unavailable), because a reader so far behind must refill from the journal anyway."""

MAX_VALUE_BYTES: Final = 2**20
"""A value of `put`: presence and quota, never documents."""

MAX_TTL_S: Final = 86_400.0


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


def check_put(key: str, value: bytes, ttl_s: float) -> None:
    """What every broker demands of a value. Raises InvalidInput."""
    if not 0 < ttl_s <= MAX_TTL_S:
        raise InvalidInput(f"value {key!r} with ttl_s {ttl_s}: must be above 0 and at most {MAX_TTL_S:.0f}; the broker keeps nothing for good")
    if len(value) > MAX_VALUE_BYTES:
        raise InvalidInput(f"value {key!r} has {len(value)} bytes; at most {MAX_VALUE_BYTES}: keep documents in the catalogue")
