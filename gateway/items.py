"""Frames about items of which there are only so many: tickets, a flash sale's stock, rewards. Each into a take of an allotment, carried to its end here and now.

Owns these translations and no rule: who may have how many is the allotment's, whether the money is there the ledger's, and what follows from a gateway's death the couriers'
(`actors.allotment_courier`). The take's own key makes every frame safe to repeat.
"""

from __future__ import annotations

from typing import assert_never

from actors import messages as m
from actors.allotment_courier import AllotmentCourier
from actors.system import System
from esplanade.core.clock import SystemClock
from esplanade.core.errors import Fault, InvalidInput
from esplanade.core.ids import Address
from gateway import frames as f
from gateway.auth import Identity
from gateway.venues import VenueCache

ItemFrame = f.PutItem | f.GetItem | f.Buy | f.Grant


class ItemDesk:
    def __init__(self, *, system: System, venues: VenueCache, clock: SystemClock) -> None:
        self._system = system
        self._venues = venues
        self._courier = AllotmentCourier(system, clock)

    async def answer(self, identity: Identity, frame: ItemFrame) -> f.ServerFrame:
        """The answer to a frame that `identity` may send. Raises what the System raises."""
        match frame:
            case f.PutItem():
                return await self._put(identity.tenant, frame)
            case f.GetItem():
                return await self._get(identity.tenant, frame)
            case f.Buy():
                return await self._take(identity.tenant, frame, identity.subject, frame.count, reward=False)
            case f.Grant():
                return await self._take(identity.tenant, frame, frame.subject, 1, reward=True)
            case _:
                assert_never(frame)

    async def _put(self, tenant: str, frame: f.PutItem) -> f.ServerFrame:
        if (frame.venue is None) != (frame.unit is None):
            raise InvalidInput(f"item {frame.item!r} with venue {frame.venue!r} and unit {frame.unit!r}: a sale names both, a reward neither")
        if frame.venue is not None:
            await self._venues.get(tenant, frame.venue)
        command = m.OpenAllotment(
            venue=frame.venue or "", unit=frame.unit or "", currency=frame.currency, amount=frame.amount, limit=frame.limit, each=frame.each, closes_ms=frame.closes_ms
        )  # fmt: skip
        reply = await self._system.ask(Address("allotment", tenant, frame.item), command)
        if isinstance(reply, m.Rejected):
            return f.Error(code=reply.code, message=f"item {frame.item}: {reply.message}", seq=frame.seq)
        return f.Done(seq=frame.seq)

    async def _get(self, tenant: str, frame: f.GetItem) -> f.ServerFrame:
        reply = await self._system.ask(Address("allotment", tenant, frame.item), m.GetAllotment())
        if isinstance(reply, m.Rejected):
            return _not_found(frame)
        if not isinstance(reply, m.AllotmentState):
            raise Fault(f"allotment/{tenant}/{frame.item} answered {type(reply).__name__}")
        return f.Item(
            seq=frame.seq, item=frame.item, amount=reply.amount, currency=reply.currency, limit=reply.limit, left=reply.left, under_way=reply.under_way,
            each=reply.each, closes_ms=reply.closes_ms, venue=reply.venue or None, unit=reply.unit if reply.venue else None,
        )  # fmt: skip

    async def _take(self, tenant: str, frame: f.Buy | f.Grant, subject: int, count: int, *, reward: bool) -> f.ServerFrame:
        outcome = await self._courier.take(tenant, frame.item, frame.key, subject, count, reward=reward)
        if outcome.done:
            return f.Bought(seq=frame.seq, item=frame.item, key=frame.key, count=count, balance=outcome.balance)
        if outcome.code == "allotment_not_found":
            return _not_found(frame)
        if outcome.pending:
            message = f"{count} of {frame.item}: under way ({outcome.code}); ask again with the same key for what became of it"
            return f.Error(code=outcome.code, message=message, retryable=True, seq=frame.seq)
        return f.Error(
            code=outcome.code, message=f"{count} of {frame.item} refused: {outcome.code}; nothing was moved (docs/money.md says when)", seq=frame.seq
        )  # fmt: skip


def _not_found(frame: f.GetItem | f.Buy | f.Grant) -> f.Error:
    return f.Error(code="not_found", message=f"item {frame.item!r}: there is none of this name; an operator puts it up with put_item", seq=frame.seq)
