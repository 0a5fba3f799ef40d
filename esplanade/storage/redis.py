"""The broker on Redis or Valkey: publications pipelined over one connection at a time, a connection for each subscription.

A lost connection is never mended silently, because what was published meanwhile would be missing: the reader gets Unavailable and starts over.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final, Self

import redis.asyncio
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from esplanade.core.errors import Fault, InvalidInput, LimitExceeded, Unavailable
from esplanade.storage.broker import check_put
from esplanade.storage.pending import PendingMessages

TIMEOUT_S: Final = 5.0
"""For a connection and for each answer."""

SILENCE_S: Final = 10.0
"""A subscription that hears nothing for so long asks for a sign of life; after the same again without one it is lost."""

MAX_PUBLISHING_BYTES: Final = 64 * 2**20
"""Publications handed over and not yet taken by Redis; beyond that `publish` raises Unavailable at once."""

CHUNK_MESSAGES: Final = 1_000
MAX_CONNECTIONS: Final = 16
MAX_KEYS: Final = 100_000
"""`keys` is for presence; a prefix that finds more is a mistake."""


class RedisSubscription:
    """A subscription on a connection of its own; a task reads it, so that `add` returns whether or not somebody iterates."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub
        self._pending = PendingMessages()
        self._confirmations: dict[tuple[str, str], list[asyncio.Future[None]]] = {}
        self._reader = asyncio.create_task(self._read(), name="redis subscription")

    async def add(self, channels: Sequence[str]) -> None:
        await self._change("subscribe", channels)

    async def remove(self, channels: Sequence[str]) -> None:
        await self._change("unsubscribe", channels)

    async def _change(self, what: str, channels: Sequence[str]) -> None:
        self._pending.check()
        if not channels:
            return
        loop = asyncio.get_running_loop()
        confirmed: list[asyncio.Future[None]] = []
        for channel in dict.fromkeys(channels):
            future: asyncio.Future[None] = loop.create_future()
            self._confirmations.setdefault((what, channel), []).append(future)
            confirmed.append(future)
        with translated():
            await (self._pubsub.subscribe(*channels) if what == "subscribe" else self._pubsub.unsubscribe(*channels))
        _, late = await asyncio.wait(confirmed, timeout=TIMEOUT_S)
        if late:
            self._lose(f"{what} of {len(late)} channels was not confirmed within {TIMEOUT_S:.0f} s")
        self._pending.check()

    async def _read(self) -> None:
        silent = 0
        try:
            while True:
                message = await self._pubsub.get_message(timeout=SILENCE_S)
                if message is None:
                    silent += 1
                    if silent > 1:
                        self._lose(f"Redis was silent for {2 * SILENCE_S:.0f} s")
                        return
                    await self._pubsub.ping()
                    continue
                silent = 0
                kind = message["type"]
                if kind == "message":
                    if not self._pending.offer(message["channel"].decode(), message["data"]):
                        self._lose("over the limit")
                        return
                elif kind in ("subscribe", "unsubscribe"):
                    waiting = self._confirmations.pop((kind, message["channel"].decode()), [])
                    for future in waiting:
                        if not future.done():
                            future.set_result(None)
        except (RedisError, OSError) as error:
            self._lose(str(error) or type(error).__name__)

    def _lose(self, why: str) -> None:
        self._pending.lose(why)
        for waiting in self._confirmations.values():
            for future in waiting:
                if not future.done():
                    future.set_result(None)
        self._confirmations.clear()

    def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        return aiter(self._pending)

    async def close(self) -> None:
        self._pending.close()
        self._lose("closed")
        self._reader.cancel()
        await asyncio.wait([self._reader])
        with contextlib.suppress(RedisError, OSError):
            await self._pubsub.aclose()  # type: ignore[no-untyped-call]


class RedisBroker:
    """A broker at `redis://host:port/db`, `rediss://` or `unix:///path`. Open with `await RedisBroker.open(url)` in the event loop that will use it."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._turn = asyncio.Lock()  # one pipeline at a time keeps the order of one publisher
        self._publishing_bytes = 0

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect. Raises InvalidInput for a URL that is none, Unavailable where Redis does not answer."""
        try:
            pool = redis.asyncio.BlockingConnectionPool.from_url(
                url, protocol=2, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0), max_connections=MAX_CONNECTIONS,
                timeout=TIMEOUT_S,
            )  # fmt: skip
        except ValueError as error:
            raise InvalidInput(f"Redis URL {url!r}: {error}") from error
        client = redis.asyncio.Redis.from_pool(pool)
        try:
            with translated():
                await client.ping()
        except BaseException:
            await client.aclose()
            raise
        return cls(client)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        size = sum(len(message) for _, message in messages)
        if self._publishing_bytes and self._publishing_bytes + size > MAX_PUBLISHING_BYTES:
            raise Unavailable(
                f"{self._publishing_bytes} bytes wait to be published already (at most {MAX_PUBLISHING_BYTES}); Redis is too slow or away"
            )
        self._publishing_bytes += size
        try:
            async with self._turn:
                for start in range(0, len(messages), CHUNK_MESSAGES):
                    with translated():
                        async with self._client.pipeline(transaction=False) as pipeline:
                            for channel, message in messages[start : start + CHUNK_MESSAGES]:
                                pipeline.publish(channel, message)
                            await pipeline.execute()
        finally:
            self._publishing_bytes -= size

    async def subscribe(self) -> RedisSubscription:
        pubsub = self._client.pubsub()
        with translated():
            await pubsub.connect()  # type: ignore[no-untyped-call]
        return RedisSubscription(pubsub)

    async def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        check_put(key, value, ttl_s)
        with translated():
            await self._client.set(key, value, px=max(1, round(ttl_s * 1000)))

    async def get(self, key: str) -> bytes | None:
        with translated():
            held = await self._client.get(key)
        return held.encode() if isinstance(held, str) else held

    async def keys(self, prefix: str) -> list[str]:
        found: set[str] = set()
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
        with translated():
            async for key in self._client.scan_iter(match=pattern, count=1000):
                found.add(key.decode())
                if len(found) > MAX_KEYS:
                    raise LimitExceeded(f"more than {MAX_KEYS} keys begin with {prefix!r}; ask for a longer prefix")
        return sorted(found)

    async def close(self) -> None:
        await self._client.aclose()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into ours."""
    try:
        yield
    except OutOfMemoryError as error:
        raise LimitExceeded(f"Redis is at its memory limit: {error}; ask again once values have expired") from error
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        raise Unavailable(f"Redis does not answer: {error}") from error
    except RedisError as error:
        raise Fault(f"Redis: {error}") from error
