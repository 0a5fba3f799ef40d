"""The system in one process: shards as plain objects. For tests, the world's simulation, and tools; no Ray, no sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from actors.directory import shard_of
from actors.lane import RequestSystem
from actors.messages import Command, Reply
from actors.requests import Answer, Ask, Replied, Request, expect, log_of
from actors.shard import Shard
from actors.system import Then
from esplanade.core import tracing
from esplanade.core.errors import EsplanadeError, Fault, Unavailable
from esplanade.core.ids import Address

_log = logging.getLogger("esplanade.actors.local_system")


class LocalSystem(RequestSystem):
    """`System` over shard i of n at `shards[i]`; put another object there to play a restart. The caller starts and stops the shards."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = list(shards)
        self._soon: dict[tuple[Shard, float], list[tuple[Ask, Then]]] = {}  # asked in this turn of the loop, by shard and deadline
        self._frames: set[asyncio.Task[None]] = set()

    def _shard_of(self, request: Request) -> Shard:
        return self.shards[shard_of(log_of(request)[1], len(self.shards))]

    def ask_soon(self, address: Address, command: Command, then: Then, *, deadline_s: float = 5.0) -> None:
        """What is asked in one turn of the loop goes to its shard in one frame, as between processes."""
        if tracing.on():
            super().ask_soon(address, command, then, deadline_s=deadline_s)  # a span needs a task
            return
        if not self._soon:
            asyncio.get_running_loop().call_soon(self._send)
        ask = Ask(address, command, None, round(deadline_s * 1000))
        self._soon.setdefault((self._shard_of(ask), deadline_s), []).append((ask, then))

    def _send(self) -> None:
        soon, self._soon = self._soon, {}
        for (shard, deadline_s), asked in soon.items():
            task = asyncio.ensure_future(self._carry(shard, asked, deadline_s))
            self._frames.add(task)
            task.add_done_callback(self._frames.discard)

    async def _carry(self, shard: Shard, asked: list[tuple[Ask, Then]], deadline_s: float) -> None:
        outcomes: Sequence[Reply | EsplanadeError]
        try:
            async with asyncio.timeout(deadline_s):
                outcomes = [_outcome(answer) for answer in await shard.answer([ask for ask, _ in asked])]
        except TimeoutError:
            outcomes = [Unavailable(f"{shard.name} did not answer within {deadline_s} s; ask again with the same key")] * len(asked)
        except Exception as error:
            outcomes = [error if isinstance(error, EsplanadeError) else Fault(f"{type(error).__name__}: {error}")] * len(asked)
        for (_, then), outcome in zip(asked, outcomes, strict=True):
            try:
                then(outcome)
            except Exception:  # stops nobody else's answer
                _log.exception("then_failed")

    async def request(self, request: Request, *, deadline_s: float) -> Answer:
        shard = self._shard_of(request)
        try:
            async with asyncio.timeout(deadline_s):
                return (await shard.answer([request]))[0]
        except TimeoutError:
            raise Unavailable(f"{type(request).__name__}: {shard.name} did not answer within {deadline_s} s; ask again with the same key") from None

    async def profile(self) -> list[dict[str, object]]:
        return [shard.profile().as_dict() for shard in self.shards]


def _outcome(answer: Answer) -> Reply | EsplanadeError:
    try:
        return expect(answer, Replied).reply
    except EsplanadeError as error:
        return error
