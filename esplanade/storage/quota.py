"""What several processes may do together in a window of time: each takes a share of what is left. Implementations: Redis and memory; losing it forgets what was taken.

Owns the counting. What a quota is of, and what happens while it is away, is for the caller.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import redis.asyncio

from esplanade.core.clock import SystemClock
from esplanade.core.errors import InvalidInput, Unavailable
from esplanade.storage.redis import TIMEOUT_S, translated

MAX_WINDOW_S: Final = 86_400.0

_TAKE: Final = """
local taken = tonumber(redis.call('GET', KEYS[1]) or '0')
local granted = math.max(0, math.min(tonumber(ARGV[1]), tonumber(ARGV[2]) - taken))
if granted > 0 then
    redis.call('INCRBY', KEYS[1], granted)
    if taken == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
end
return granted
"""


class Quota(Protocol):
    async def take(self, key: str, wanted: int, *, limit: int, window_s: float) -> int:
        """Take up to `wanted` of the `limit` that all may have within the window that begins with the first take; returns how many there were. Raises Unavailable."""
        ...

    async def close(self) -> None: ...


class RedisQuota:
    """At `redis://host:port/db`. One round trip a take, counted by a script, so that two never get the same share."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._take: Any = client.register_script(_TAKE)

    @classmethod
    async def open(cls, url: str) -> RedisQuota:
        """Connects at the first use. Raises InvalidInput for a URL that is none."""
        try:
            return cls(redis.asyncio.Redis.from_url(url, protocol=2, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S))
        except ValueError as error:
            raise InvalidInput(f"Redis URL {url!r}: {error}") from error

    async def take(self, key: str, wanted: int, *, limit: int, window_s: float) -> int:
        _check(key, wanted, limit, window_s)
        with translated():
            return int(await self._take(keys=[f"quota:{key}"], args=[wanted, limit, max(1, round(window_s * 1000))]))

    async def close(self) -> None:
        await self._client.aclose()


class MemoryQuota:
    """Shared by those that hold the same object; `available` set to False makes every call raise Unavailable."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._taken: dict[str, tuple[int, int]] = {}  # key -> (taken, window ends, Unix ms)
        self.available = True

    async def take(self, key: str, wanted: int, *, limit: int, window_s: float) -> int:
        _check(key, wanted, limit, window_s)
        if not self.available:
            raise Unavailable("the quota is away; ask again")
        now = self._clock.unix_ms()
        taken, ends = self._taken.get(key, (0, 0))
        if ends <= now:
            taken, ends = 0, now + max(1, round(window_s * 1000))
        granted = max(0, min(wanted, limit - taken))
        self._taken[key] = (taken + granted, ends)
        return granted

    async def close(self) -> None: ...


def _check(key: str, wanted: int, limit: int, window_s: float) -> None:
    if wanted < 1 or limit < 1 or not 0 < window_s <= MAX_WINDOW_S:
        raise InvalidInput(f"quota {key!r}: {wanted} of {limit} in {window_s} s; wants at least 1 of 1, in at most {MAX_WINDOW_S:.0f} s")
