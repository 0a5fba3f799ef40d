"""Sales and rewards, carried to their end: a saga of an allotment and a ledger whose every step is journalled where it happens and has one effect however often it is taken.

    allotment    TakesBegun          units reserved                                  (`actors.allotment`)
    ledger       hold                price held: wallet to till, or outside to wallet; expires HOLD_MS after the take began
    allotment    TakesDecided        committed; where the ledger refused: refused, the units are back
    ledger       post                the money moves; where the hold is gone (nobody came for so long): nothing moves
    allotment    TakesDecided        done; or lapsed, the units are back

A refusal of a ledger is not remembered there (the key may be tried again), so what two couriers hear may differ: the allotment's first word counts. A courier that holds money for a take
that was refused meanwhile voids it, and where it dies before that, the hold expires. Any number of couriers may carry the same takes, die at any point and come back late.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import Final

import msgspec
import numpy as np

from actors import ledger_codes as c
from actors.allotment import COMMIT, COMMITTED, DONE, FINISH, LAPSE, OPEN, REFUSE
from actors.messages import LEDGERS, Command, Decided, DecideTakes, GetOpenTakes, OpenTakes, Rejected, Reply, Settled, Taken, Takes, Transfers
from actors.saga import Courier
from actors.system import System
from esplanade.core.clock import SystemClock
from esplanade.core.errors import Fault
from esplanade.core.ids import Address

HOLD_MS: Final = 15 * 60_000
"""From the beginning of a take: by then a courier has come, or the take is given up."""

_GONE: Final = frozenset({"hold_not_found", "hold_is_void", "hold_is_expired"})


class Outcome(msgspec.Struct, frozen=True):
    """`done`: the units are the subject's and the money has moved; `balance`: what the wallet can spend then. Otherwise `code` says why not; `pending`: not known yet."""

    done: bool
    balance: int = 0
    code: str = ""
    pending: bool = False


PENDING: Final = Outcome(False, code="pending", pending=True)


class _Take(msgspec.Struct):
    key: bytes
    subject: int
    amount: int
    expires_ms: int
    state: int


class AllotmentCourier(Courier[tuple[str, str]]):
    """Carries the takes of a system's allotments. A place is a (tenant, allotment)."""

    def __init__(self, system: System, clock: SystemClock, *, deadline_s: float = 5.0) -> None:
        super().__init__(system, deadline_s=deadline_s)
        self._clock = clock

    async def visit(self, place: tuple[str, str]) -> int:
        return sum(outcome.done for outcome in (await self.carry(*place)).values())

    async def take(self, tenant: str, name: str, key: bytes, subject: int, count: int = 1, *, reward: bool = False) -> Outcome:
        """Begin one take and carry it; safe to repeat with the same key. Raises what `System.ask` raises: then a courier goes on with it, and asking again tells the outcome."""
        begun = await self.request(
            Address("allotment", tenant, name),
            Takes(
                now_ms=self._clock.unix_ms(), key=key, subject=np.array([subject], "<u4").tobytes(), count=np.array([count], "<u2").tobytes(), reward=reward
            ),
        )  # fmt: skip
        if isinstance(begun, Rejected):
            return Outcome(False, code=begun.code)
        if not isinstance(begun, Taken):
            raise Fault(f"allotment/{tenant}/{name} answered {type(begun).__name__} to a take")
        if begun.result[0]:
            return Outcome(False, code=begun.codes[begun.result[0] - 1])
        return (await self.carry(tenant, name, key)).get(key, PENDING)

    async def carry(self, tenant: str, name: str, key: bytes = b"") -> dict[bytes, Outcome]:
        """Take these takes (by default the oldest under way) to their end; what became of each. Raises what `System.ask` raises."""
        under_way = await self.request(Address("allotment", tenant, name), GetOpenTakes(key=key))
        if isinstance(under_way, Rejected):
            return {}
        if not isinstance(under_way, OpenTakes):
            raise Fault(f"allotment/{tenant}/{name} answered {type(under_way).__name__} to what is under way")
        by_ledger: dict[int, list[_Take]] = {}
        for take in _takes(under_way):
            by_ledger.setdefault(take.subject % LEDGERS, []).append(take)
        outcomes: dict[bytes, Outcome] = {}
        for found in await asyncio.gather(*(_Carrying(self, tenant, name, under_way, ledger).run(takes) for ledger, takes in by_ledger.items())):
            outcomes |= found
        return outcomes

    async def request(self, address: Address, command: Command) -> Reply:
        return await self._system.ask(address, command, deadline_s=self._deadline_s)

    def unix_ms(self) -> int:
        return self._clock.unix_ms()


def _takes(under_way: OpenTakes) -> list[_Take]:
    subjects, counts = np.frombuffer(under_way.subject, "<u4").tolist(), np.frombuffer(under_way.count, "<u2").tolist()
    begun_ms = np.frombuffer(under_way.begun_ms, "<i8").tolist()
    return [
        _Take(under_way.key[16 * i : 16 * i + 16], subjects[i], counts[i] * under_way.amount, begun_ms[i] + HOLD_MS, under_way.state[i])
        for i in range(len(subjects))
    ]


def _derived(key: bytes, step: bytes) -> bytes:
    """The key of a later step of the take with this key."""
    return blake2b(key, digest_size=16, person=step).digest()


class _Carrying:
    """The takes of one allotment whose wallets are in one ledger."""

    def __init__(self, courier: AllotmentCourier, tenant: str, name: str, terms: OpenTakes, ledger: int) -> None:
        self._courier = courier
        self._allotment = Address("allotment", tenant, name)
        self._ledger = Address("ledger", tenant, str(ledger))
        self._terms = terms

    async def run(self, takes: list[_Take]) -> dict[bytes, Outcome]:
        outcomes: dict[bytes, Outcome] = {}
        await self._hold([take for take in takes if take.state == OPEN], outcomes)
        await self._post([take for take in takes if take.state in (COMMITTED, DONE)], outcomes)
        return outcomes

    async def _hold(self, takes: list[_Take], outcomes: dict[bytes, Outcome]) -> None:
        """Hold the money of reserved takes, and have the allotment decide; those that are committed then have that state."""
        if not takes:
            return
        settled = await self._transfer(c.OP_HOLD, takes)
        if settled is None:
            return
        codes = _codes(settled)
        states = await self._decide(takes, [REFUSE if code else COMMIT for code in codes])
        held_for_nothing = []
        for take, code, state in zip(takes, codes, states, strict=True):
            take.state = state
            if state not in (COMMITTED, DONE):
                outcomes[take.key] = Outcome(False, code=code or "refused")
                if not code:
                    held_for_nothing.append(take)
        if held_for_nothing:
            await self._transfer(c.OP_VOID, held_for_nothing)

    async def _post(self, takes: list[_Take], outcomes: dict[bytes, Outcome]) -> None:
        """Move the money of committed takes. A frozen account keeps its hold: it is tried again until that expires."""
        if not takes:
            return
        settled = await self._transfer(c.OP_POST, takes)
        if settled is None:
            return
        balances = np.frombuffer(settled.balance, "<i8").tolist()
        ended, what = [], []
        for take, code, balance in zip(takes, _codes(settled), balances, strict=True):
            if not code:
                outcomes[take.key] = Outcome(True, balance)
            elif code in _GONE and take.state == COMMITTED:
                outcomes[take.key] = Outcome(False, code="lapsed")
            else:
                outcomes[take.key] = Outcome(take.state == DONE, code=code, pending=take.state != DONE)
                continue
            if take.state == COMMITTED:
                ended.append(take)
                what.append(LAPSE if code else FINISH)
        if ended:
            states = await self._decide(ended, what)
            self._courier.finished += sum(state == DONE for state in states)

    async def _decide(self, takes: list[_Take], what: list[int]) -> bytes:
        decided = await self._courier.request(self._allotment, DecideTakes(key=b"".join(take.key for take in takes), what=bytes(what)))
        if not isinstance(decided, Decided):
            raise Fault(f"{self._allotment} answered {decided} to decisions")
        return decided.state

    async def _transfer(self, op: int, takes: list[_Take]) -> Settled | None:
        """One row a take. None where the ledger refuses the batch as a whole (it is full): later."""
        n, terms = len(takes), self._terms
        keys = [take.key for take in takes]
        wallets = np.array([c.WALLET << 60 | take.subject for take in takes], "<i8").tobytes()
        other = np.full(n, c.TILL << 60 | terms.unit if terms.venue else c.OUTSIDE << 60, "<i8").tobytes()
        nothing = bytes(8 * n)
        holds = op == c.OP_HOLD
        debit, credit = (wallets, other) if terms.venue else (other, wallets)
        reply = await self._courier.request(
            self._ledger,
            Transfers(
                now=self._courier.unix_ms(), venue=terms.venue, currency=terms.currency, op=bytes([op]) * n,
                key=b"".join(keys) if holds else b"".join(_derived(key, b"post" if op == c.OP_POST else b"void") for key in keys),
                debit=debit if holds else nothing,
                credit=credit if holds else nothing,
                amount=np.array([take.amount for take in takes], "<i8").tobytes() if holds else nothing,
                reference=b"" if holds else b"".join(keys),
                expires=np.array([take.expires_ms for take in takes], "<i8").tobytes() if holds else b"",
            ),
        )  # fmt: skip
        if isinstance(reply, Rejected):
            self._courier.failures += 1
            return None
        if not isinstance(reply, Settled) or len(reply.result) != n:
            raise Fault(f"{self._ledger} answered {type(reply).__name__} to {n} rows")
        return reply


def _codes(settled: Settled) -> list[str]:
    return [settled.codes[code - 1] if code else "" for code in settled.result]
