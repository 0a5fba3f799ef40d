"""Transfers between ledgers, carried to their end: a saga whose every step is journalled where it happens and has one effect however often it is taken.

    source       TransfersSent       wallet -> transit(target), numbered           (the answer to who sent it)
    target       TransfersReceived   transit(source) -> wallet, or refused for good
    source       TransfersFinished   forgets it; what was refused: transit(target) -> wallet, the compensation

Each shard process runs a courier for the ledgers that it owns. The courier keeps nothing: what is under way stands in the sources' journals. Any number of couriers may carry the same transfers, in any order, die at any
point and come back late; each step asks one ledger and waits until its answer is durable. Between the first step and the last the money is in transit: the sum over a
ledger's accounts is zero at every version, and the transit accounts of all ledgers sum to what is under way.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from actors.messages import (
    RECEIVED_BEFORE,
    Batch,
    Command,
    FinishTransfers,
    GetUnderWay,
    Received,
    ReceiveTransfers,
    Rejected,
    Reply,
    UnderWay,
)
from actors.system import System
from esplanade.core.errors import EsplanadeError, Fault
from esplanade.core.ids import Address

LOOK_S: Final = 0.05
REST_S: Final = 1.0
"""How long a courier rests when a place did not answer."""
MAX_AT_ONCE: Final = 64
"""Places visited at the same time."""


_log = logging.getLogger("esplanade.actors.courier")

Place = TypeVar("Place", bound=tuple[Any, ...])


class Courier(ABC, Generic[Place]):
    """Goes from place to place and takes what is under way there to its end. `finished` counts that, `failures` rounds that a place did not answer; they are taken up again."""

    def __init__(self, system: System, *, deadline_s: float = 5.0) -> None:
        self.finished = 0
        self.failures = 0
        self._system = system
        self._deadline_s = deadline_s

    @abstractmethod
    async def visit(self, place: Place) -> int:
        """Carry what is under way from one place; returns how much was finished. Raises what `System.ask` raises."""

    async def sweep(self, places: Sequence[Place]) -> int:
        """Visit all of these; those that do not answer are counted and left for later. Returns how much was finished."""
        finished = 0
        for start in range(0, len(places), MAX_AT_ONCE):
            found = await asyncio.gather(*(self.visit(place) for place in places[start : start + MAX_AT_ONCE]), return_exceptions=True)
            for outcome in found:
                if isinstance(outcome, int):
                    finished += outcome
                elif isinstance(outcome, EsplanadeError):
                    self.failures += 1
                else:
                    raise outcome
        return finished

    async def attend(self, under_way: Callable[[], Sequence[Place]]) -> None:
        """Visit until cancelled what `under_way` names: looked for every LOOK_S, after a failure every REST_S."""
        while True:
            places, failures = under_way(), self.failures
            try:
                await self.sweep(places)
            except Exception:  # a fault of ours: the next round may meet other places, and nobody else would carry these
                self.failures += 1
                _log.exception("courier_round_failed")
            await asyncio.sleep(LOOK_S if failures == self.failures else REST_S)


class TransferCourier(Courier[tuple[str, int]]):
    """Carries the transfers of a system's ledgers. A place is a (tenant, ledger)."""

    async def visit(self, place: tuple[str, int]) -> int:
        return await self.carry(*place)

    async def carry(self, tenant: str, ledger: int) -> int:
        """Take what is under way from one ledger to its end; returns how many transfers were finished. Raises what `System.ask` raises."""
        under_way = await self._ask(tenant, ledger, GetUnderWay())
        if not isinstance(under_way, UnderWay):
            raise Fault(f"ledger/{tenant}/{ledger} answered {type(under_way).__name__} to what is under way")
        finished = 0
        for batch in under_way.batches:
            finished += await self._carry_batch(tenant, ledger, batch)
        self.finished += finished
        return finished

    async def _carry_batch(self, tenant: str, source: int, batch: Batch) -> int:
        received = await self._ask(
            tenant,
            batch.peer,
            ReceiveTransfers(
                source=source, through=batch.through, currency=batch.currency,
                sequence=batch.sequence, key=batch.key, subject=batch.subject, to=batch.to, amount=batch.amount,
            ),
        )  # fmt: skip
        if not isinstance(received, Received):
            raise Fault(f"ledger/{tenant}/{batch.peer} answered {received} to transfers from ledger {source}")
        # RECEIVED_BEFORE: another courier has finished it since; the source ignores it, as it ignores every sequence that is not open.
        await self._ask(
            tenant, source, FinishTransfers(peer=batch.peer, currency=batch.currency, sequence=batch.sequence, outcome=received.outcome)
        )  # fmt: skip
        return sum(outcome != RECEIVED_BEFORE for outcome in received.outcome)

    async def _ask(self, tenant: str, ledger: int, command: Command) -> Reply:
        reply = await self._system.ask(Address("ledger", tenant, str(ledger)), command, deadline_s=self._deadline_s)
        if isinstance(reply, Rejected):
            raise Fault(f"ledger/{tenant}/{ledger}: {type(command).__name__}: {reply.code}: {reply.message}")
        return reply
