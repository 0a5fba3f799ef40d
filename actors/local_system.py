"""The system in one process: shards as plain objects. For tests, the world's simulation, and tools; no Ray, no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from actors.directory import shard_of
from actors.lane import RequestSystem
from actors.requests import Answer, Request, log_of
from actors.shard import Shard
from esplanade.core.errors import Unavailable


class LocalSystem(RequestSystem):
    """`System` over shard i of n at `shards[i]`; put another object there to play a restart. The caller starts and stops the shards."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = list(shards)

    async def request(self, request: Request, *, deadline_s: float) -> Answer:
        shard = self.shards[shard_of(log_of(request)[1], len(self.shards))]
        try:
            async with asyncio.timeout(deadline_s):
                return (await shard.answer([request]))[0]
        except TimeoutError:
            raise Unavailable(f"{type(request).__name__}: {shard.name} did not answer within {deadline_s} s; ask again with the same key") from None

    async def profile(self) -> list[dict[str, object]]:
        return [shard.profile().as_dict() for shard in self.shards]
