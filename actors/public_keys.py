"""Commands under a public 128-bit key: done once, and answered the same for KEPT_MS, whoever repeats them over whichever connection.

The reply stands in the journal, recorded in the same flush as the turn's events (`StoredReply`), beside a digest of address and command: the same key with other parameters is a
Conflict. A command that changed nothing (a read, a rejection) records nothing and is simply done again. Ledgers keep the keys of their rows themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from actors.messages import Reply
from actors.requests import PublicAsk
from esplanade.core.errors import Conflict
from esplanade.storage.journal import Journal, StoredReply

KEPT_MS: Final = 24 * 3600 * 1000

_encode: Final = msgspec.msgpack.Encoder().encode
_REPLY: Final[msgspec.msgpack.Decoder[Reply]] = msgspec.msgpack.Decoder(Reply)


def digest_of(ask: PublicAsk) -> bytes:
    return hashlib.blake2b(_encode((ask.address, ask.command)), digest_size=16).digest()


def stored_reply(ask: PublicAsk, reply: Reply, now_ms: int) -> StoredReply:
    """What to record with the events of its turn."""
    return StoredReply(ask.address.tenant, ask.public, digest_of(ask), _encode(reply), now_ms + KEPT_MS)


class PublicKeys:
    """Of one shard. Two commands under one key run one after the other here; between shards the journal refuses the second's flush, and its repetition finds the reply."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._held: dict[tuple[str, bytes], tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def alone(self, ask: PublicAsk) -> AsyncIterator[None]:
        """Nobody else of this shard handles the key meanwhile."""
        key = (ask.address.tenant, ask.public)
        lock, users = self._held.get(key, (asyncio.Lock(), 0))
        self._held[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._held[key]
            if users == 1:
                del self._held[key]
            else:
                self._held[key] = lock, users - 1

    async def find(self, ask: PublicAsk) -> Reply | None:
        """The reply that the key has got; None for a key never used (or longer than KEPT_MS ago). Raises Conflict for other parameters."""
        stored = await self._journal.reply_of(ask.address.tenant, ask.public)
        if stored is None:
            return None
        if stored.digest != digest_of(ask):
            raise Conflict(f"key {ask.public.hex()} was used for another command or with other parameters; use a new key for a new command")
        return _REPLY.decode(stored.reply)
