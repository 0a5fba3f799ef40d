"""Frames about money beyond paying: transfers between wallets, statements, refunds, holds, tills. Each into one command to one ledger, and its outcome into the answer.

Owns these translations and no rule of money: what is refused, and in which order, is the ledger's (docs/money.md). The row's own key makes every one of them safe to repeat. Statements
are read from the journal; a few at a time, since each reads a log from its beginning.
"""

from __future__ import annotations

import asyncio
from typing import Final, assert_never

import numpy as np

from actors import ledger_codes as c
from actors import messages as m
from actors.ledger_statement import Cursor, statement
from actors.system import System
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, Fault, Forbidden, InvalidInput, LimitExceeded, NotFound
from esplanade.core.ids import Address
from esplanade.storage.journal import Journal
from gateway import frames as f
from gateway.auth import Identity
from gateway.permissions import holds
from gateway.venues import VenueCache

MAX_STATEMENTS: Final = 4
"""Statements that one gateway process reads at once; of one person, one."""

MoneyFrame = f.Transfer | f.GetStatement | f.Refund | f.Hold | f.Post | f.Void | f.GetTill


class MoneyDesk:
    def __init__(self, *, system: System, venues: VenueCache, journal: Journal, clock: SystemClock) -> None:
        self._system = system
        self._venues = venues
        self._journal = journal
        self._clock = clock
        self._reading: set[tuple[str, int]] = set()

    async def answer(self, identity: Identity, frame: MoneyFrame) -> f.ServerFrame:
        """The answer to a frame that `identity` may send. Raises what the System and the journal raise."""
        tenant = identity.tenant
        match frame:
            case f.Transfer():
                send = m.SendTransfers(
                    currency=frame.currency, key=frame.key, subject=_u4(identity.subject), to=_u4(frame.to), amount=_i8(frame.amount)
                )  # fmt: skip
                return await self._row(tenant, identity.subject, frame, send, f"transfer of {frame.amount} {frame.currency} to {frame.to}")
            case f.Hold():
                unit = await self._till(tenant, frame.venue, frame.unit)
                debit, credit = c.WALLET << 60 | frame.subject, c.TILL << 60 | unit
                hold = self._transfers(frame, c.OP_HOLD, frame.amount, venue=frame.venue, debit=debit, credit=credit, expires_ms=frame.expires_ms)
                return await self._row(tenant, frame.subject, frame, hold, f"hold of {frame.amount} {frame.currency} of {frame.subject}")
            case f.Post():
                await self._venues.get(tenant, frame.venue)
                post = self._transfers(frame, c.OP_POST, frame.amount, venue=frame.venue, reference=frame.hold)
                return await self._row(tenant, frame.subject, frame, post, f"post of hold {frame.hold.hex()}")
            case f.Void():
                await self._venues.get(tenant, frame.venue)
                void = self._transfers(frame, c.OP_VOID, 0, venue=frame.venue, reference=frame.hold)
                return await self._row(tenant, frame.subject, frame, void, f"void of hold {frame.hold.hex()}")
            case f.Refund():
                if frame.venue is not None:
                    await self._venues.get(tenant, frame.venue)
                refund = self._transfers(frame, c.OP_REFUND, frame.amount, venue=frame.venue or "", reference=frame.original)
                return await self._row(tenant, frame.subject, frame, refund, f"refund of {frame.amount} {frame.currency} of {frame.original.hex()}")
            case f.GetStatement():
                return await self._statement(identity, frame)
            case f.GetTill():
                return await self._till_state(tenant, frame)
            case _:
                assert_never(frame)

    def _transfers(
        self,
        frame: f.Hold | f.Post | f.Void | f.Refund,
        op: int,
        amount: int,
        *,
        venue: str = "",
        debit: int = 0,
        credit: int = 0,
        reference: bytes = b"",
        expires_ms: int = 0,
    ) -> m.Transfers:
        """One row; holds that have expired by now are released before it."""
        return m.Transfers(
            now=self._clock.unix_ms(), venue=venue, currency=frame.currency, op=bytes([op]), key=frame.key, debit=_i8(debit), credit=_i8(credit),
            amount=_i8(amount), reference=reference, expires=_i8(expires_ms) if expires_ms else b"",
        )  # fmt: skip

    async def _row(
        self, tenant: str, subject: int, frame: f.Transfer | f.Hold | f.Post | f.Void | f.Refund, command: m.Command, what: str
    ) -> f.ServerFrame:
        """Settle one row in the ledger of a wallet: Paid with what the wallet can spend, or the refusal."""
        ledger = Address("ledger", tenant, str(subject % m.LEDGERS))
        reply = await self._system.ask(ledger, command)
        if isinstance(reply, m.Rejected):
            return f.Error(code=reply.code, message=f"{what} refused: {reply.message}", seq=frame.seq)
        if not isinstance(reply, m.Settled) or len(reply.result) != 1:
            raise Fault(f"{ledger} answered {type(reply).__name__} to one row")
        if reply.result[0]:
            code = reply.codes[reply.result[0] - 1]
            return f.Error(code=code, message=f"{what} refused: {code}; nothing was moved (docs/money.md says when)", seq=frame.seq)
        return f.Paid(seq=frame.seq, key=frame.key, balance=int(np.frombuffer(reply.balance, "<i8")[0]))

    async def _till(self, tenant: str, venue: str, unit: str) -> int:
        """Index of a unit that has a till. Raises NotFound, InvalidInput."""
        found = (await self._venues.get(tenant, venue)).units.get(unit)
        if found is None:
            raise NotFound(f"unit {unit!r}: venue {venue} has none of this id")
        if not found[1]:
            raise InvalidInput(f"unit {unit!r} has no till: name one that has")
        return found[0]

    async def _till_state(self, tenant: str, frame: f.GetTill) -> f.ServerFrame:
        """A till's sub-accounts of all ledgers, merged."""
        account = c.TILL << 60 | await self._till(tenant, frame.venue, frame.unit)
        read = m.GetAccount(account=account, venue=frame.venue)
        parts = await asyncio.gather(*(self._system.ask(Address("ledger", tenant, str(i)), read) for i in range(m.LEDGERS)))
        balances: dict[str, int] = {}
        for i, part in enumerate(parts):
            if not isinstance(part, m.Accounts):
                raise Fault(f"ledger/{tenant}/{i} answered {type(part).__name__} to a read of a till")
            for currency, state in part.accounts.items():
                balances[currency] = balances.get(currency, 0) + state.balance
        return f.Till(seq=frame.seq, venue=frame.venue, unit=frame.unit, balances=dict(sorted(balances.items())))

    async def _statement(self, identity: Identity, frame: f.GetStatement) -> f.ServerFrame:
        subject = identity.subject if frame.subject is None else frame.subject
        if subject != identity.subject and not holds(identity.role, "wallets.read"):
            raise Forbidden(f"statement of {subject}: a {identity.role} reads their own; leave `subject` out")
        reader = (identity.tenant, identity.subject)
        if reader in self._reading or len(self._reading) >= MAX_STATEMENTS:
            raise LimitExceeded(
                f"{len(self._reading)} statements are being read; one a person and {MAX_STATEMENTS} in all, ask again when it has come"
            )
        self._reading.add(reader)
        at = frame.after
        try:
            page = await statement(
                self._journal, Address("ledger", identity.tenant, str(subject % m.LEDGERS)), c.WALLET << 60 | subject, frame.currency,
                after=None if at is None else Cursor(at.position, at.version, at.row, at.balance), limit=frame.limit,
            )  # fmt: skip
        except EsplanadeError as error:
            if at is not None and isinstance(error, Fault):
                raise InvalidInput(f"statement after {at}: its balance is not what the journal says; pass `next` of a page as it came") from error
            raise
        finally:
            self._reading.discard(reader)
        return f.Statement(
            seq=frame.seq, subject=subject, currency=frame.currency, opening=page.opening, closing=page.closing,
            lines=tuple(f.StatementLine(line.what, line.key, line.amount, line.balance, *_other(line.other)) for line in page.lines),
            next=None if page.next is None else f.StatementPlace(page.next.position, page.next.version, page.next.row, page.next.balance),
        )  # fmt: skip


_KINDS: Final = {c.WALLET: "wallet", c.TILL: "till", c.OUTSIDE: "outside", c.TRANSIT: "transit"}


def _other(account: int) -> tuple[str, int]:
    return _KINDS[account >> 60], account & 0xFFFFFFFF


def _u4(value: int) -> bytes:
    return np.array([value], "<u4").tobytes()


def _i8(value: int) -> bytes:
    return np.array([value], "<i8").tobytes()
