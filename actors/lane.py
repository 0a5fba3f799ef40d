"""The calls of `System` in terms of requests: what the in-process and the Ray system share.

Owns the translation between calls and requests; how a request reaches its shard is the subclass's business.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Final

from actors.messages import Command, Reply
from actors.requests import (
    Answer,
    Ask,
    Clocked,
    CloseSource,
    GetClock,
    LocatedRows,
    OpenSource,
    PublicAsk,
    Replied,
    Request,
    TracedAsk,
    Watch,
    Watermark,
    answers_of,
    expect,
    observe_of,
    take_of,
)
from actors.system import Key, Then, ThenEach, VenueClock
from esplanade.core import tracing
from esplanade.core.errors import EsplanadeError, Fault, InvalidInput, Unavailable
from esplanade.core.ids import Address
from spatial.columns import PositionColumns
from spatial.positioning.observed import Answers, Observed

POSITION_DEADLINE_S = 10.0

_ASKING: Final[set[asyncio.Task[Reply]]] = set()
"""Tasks of `ask_soon`: each is here until it is done."""


def _answered(then: Then, asking: asyncio.Task[Reply]) -> None:
    _ASKING.discard(asking)
    then(outcome_of(asking))


def _at_place(then: ThenEach, place: int, outcome: Reply | EsplanadeError) -> None:
    then((place,), (outcome,))


def outcome_of(asked: asyncio.Future[Reply]) -> Reply | EsplanadeError:
    """What a finished future holds, as `Then` takes it."""
    if asked.cancelled():
        return Unavailable("the request was given up; ask again with the same key")
    error = asked.exception()
    if error is None:
        return asked.result()
    return error if isinstance(error, EsplanadeError) else Fault(f"{type(error).__name__}: {error}")


class RequestSystem:
    """`System` over one abstract method."""

    @abstractmethod
    async def request(self, request: Request, *, deadline_s: float) -> Answer:
        """Deliver a request to its shard and return the answer. Raises Unavailable past the deadline, LimitExceeded where a queue is full."""

    async def request_many(self, requests: Sequence[Request], *, deadline_s: float) -> list[Answer]:
        """Deliver many requests at once; answers in their order. Each is delivered as by `request`; what is refused is an answer, not raised."""
        return list(await asyncio.gather(*(self.request(request, deadline_s=deadline_s) for request in requests)))

    async def ask(
        self, address: Address, command: Command, *, key: Key | None = None, public: bytes | None = None, deadline_s: float = 5.0
    ) -> Reply:  # fmt: skip
        within_ms = round(deadline_s * 1000)
        if public is not None:
            if len(public) != 16 or key is not None:
                raise InvalidInput(f"public key of {len(public)} bytes, key {key}: a public key has 16 bytes and stands alone")
            return expect(await self.request(PublicAsk(address, command, None, within_ms, public), deadline_s=deadline_s), Replied).reply
        if tracing.on():
            with tracing.span(f"ask {type(command).__name__}", address=str(address)):
                trace = tracing.outgoing()
                request = TracedAsk(address, command, key, within_ms, trace) if trace else Ask(address, command, key, within_ms)
                return expect(await self.request(request, deadline_s=deadline_s), Replied).reply
        return expect(await self.request(Ask(address, command, key, within_ms), deadline_s=deadline_s), Replied).reply

    def ask_soon(self, address: Address, command: Command, then: Then, *, deadline_s: float = 5.0) -> None:
        """Here by a task; a system with many to ask at once has its own way."""
        asking = asyncio.ensure_future(self.ask(address, command, deadline_s=deadline_s))
        _ASKING.add(asking)
        asking.add_done_callback(partial(_answered, then))

    def ask_each_soon(self, asks: Sequence[tuple[Address, Command]], then: ThenEach, *, deadline_s: float = 5.0) -> None:
        """Here one by one."""
        for place, (address, command) in enumerate(asks):
            self.ask_soon(address, command, partial(_at_place, then, place), deadline_s=deadline_s)

    async def open_source(self, tenant: str, venue: str, source: str, *, first_tick: int) -> VenueClock:
        return await self._clocked(OpenSource(tenant, venue, source, first_tick))

    async def close_source(self, tenant: str, venue: str, source: str) -> VenueClock:
        return await self._clocked(CloseSource(tenant, venue, source))

    async def take(self, tenant: str, venue: str, columns: PositionColumns, *, source: str | None, tick: int | None) -> None:
        await self._clocked(take_of(tenant, venue, columns, source, tick))

    async def locate(self, tenant: str, venue: str, observed: Observed) -> tuple[Answers, int]:
        [answer] = await self.request_many(
            [observe_of(tenant, venue, observed)], deadline_s=POSITION_DEADLINE_S
        )  # a call of its own: it takes longer than a turn
        rows = expect(answer, LocatedRows)
        return answers_of(rows), rows.version

    async def watermark(self, tenant: str, venue: str, source: str, *, tick: int, rows: int) -> None:
        await self._clocked(Watermark(tenant, venue, source, tick, rows))

    async def clock(self, tenant: str, venue: str) -> VenueClock:
        return await self._clocked(GetClock(tenant, venue))

    async def watch(self, tenant: str, venue: str, topics: dict[str, float]) -> None:
        await self._clocked(Watch(tenant, venue, topics))

    async def _clocked(self, request: Request) -> VenueClock:
        return expect(await self.request(request, deadline_s=POSITION_DEADLINE_S), Clocked).clock
