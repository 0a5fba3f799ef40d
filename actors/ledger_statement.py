"""Statements: the movements of one account with its running balance, read from the journal. Owns the fold of one account; asks no ledger and changes nothing.

A statement is answered from segments, in pages: a page ends with a cursor, which holds the balance, so that the next begins where it ended without reading again. A
statement of a day begins at the close of the day before, where the journal carries every balance forward. Each close met on the way is compared with the fold.
Holds, voids and expiries move no money and are no lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from actors import ledger_codes as c
from actors.events import DayClosed, EventBody, Paid, ToppedUp, Transferred, TransfersFinished, TransfersReceived, TransfersSent, decode_event
from actors.ledger_transit import MAX_BATCH
from actors.messages import LEDGERS
from esplanade.core.errors import Fault, InvalidInput
from esplanade.core.ids import Address, partition_of
from esplanade.storage.journal import SegmentReader

MAX_LINES: Final = MAX_BATCH

_WHAT: Final = {c.OP_MOVE: "move", c.OP_POST: "post", c.OP_REFUND: "refund"}


class Line(msgspec.Struct, frozen=True):
    """One movement: `amount` is positive where the account was credited; `balance` after it; `other`: the other account (kind << 60 | number).

    `version`: of the ledger; `row`: within the event. what: payment, top_up, move, post, refund, send, receive, came_back.
    """

    version: int
    row: int
    what: str
    key: bytes
    other: int
    amount: int
    balance: int


class Cursor(msgspec.Struct, frozen=True):
    """After row `row` of the event at `version`, in the segment after `position`: the balance there."""

    position: int = 0
    version: int = 0
    row: int = -1
    balance: int = 0


class Statement(msgspec.Struct, frozen=True):
    """`opening` and `closing` belong to this page. `next`: None where nothing follows (or the day is over)."""

    opening: int
    closing: int
    lines: tuple[Line, ...]
    next: Cursor | None


class _Movement(NamedTuple):
    row: int
    what: str
    key: bytes
    other: int
    amount: int


async def statement(
    journal: SegmentReader, ledger: Address, account: int, currency: str, *, venue: str = "", day: int | None = None, after: Cursor | None = None, limit: int = 1000
) -> Statement:  # fmt: skip
    """A page of at most `limit` lines of an account (`actors.ledger_codes`; tills of `venue`), of everything or of one day, after a cursor.

    Raises InvalidInput for a limit out of range, NotFound where older movements are archived (give `esplanade.storage.archive.WithArchive` to read them), Fault where a day's carried balance is not what its movements say.
    """
    if not 1 <= limit <= MAX_LINES:
        raise InvalidInput(f"limit {limit}: a page has 1 to {MAX_LINES} lines; ask for several pages")
    fold = _Fold(account, currency, venue)
    at = after or Cursor()
    balance, known = at.balance, after is not None or day is None
    opening: int | None = balance if known else None
    inside = known
    open_day = position = 0
    lines: list[Line] = []
    name = str(ledger)
    async for segment in journal.read(ledger.tenant, partition_of(ledger), after=at.position):
        for event in segment.events:
            if event.entity != name or event.version < at.version:
                continue
            body = decode_event(event.type, event.body)
            if isinstance(body, DayClosed):
                carried = fold.carried(body)
                if (inside or day is None) and carried != balance:
                    raise Fault(
                        f"{name}: day {body.day} closes {account:#x} with {carried} {currency}, its movements give {balance}; the journal is damaged"
                    )
                balance, open_day = carried, body.next_day
                if day is not None and body.day == day and inside:
                    return Statement(balance if opening is None else opening, balance, tuple(lines), None)
                if day is not None and body.next_day == day:
                    inside, opening = True, balance
                continue
            if day is not None and not inside and day == open_day:
                inside, opening = True, balance
            for movement in fold.movements(body):
                if event.version == at.version and movement.row <= at.row:
                    continue
                if inside and len(lines) == limit:
                    return Statement(opening or 0, balance, tuple(lines), Cursor(position, lines[-1].version, lines[-1].row, balance))
                balance += movement.amount
                if inside:
                    lines.append(Line(event.version, movement.row, movement.what, movement.key, movement.other, movement.amount, balance))
                    position = segment.position - 1
    return Statement(opening if opening is not None else balance, balance, tuple(lines), None)


class _Fold:
    """What events mean to one account."""

    def __init__(self, account: int, currency: str, venue: str) -> None:
        self._account, self._currency, self._venue = account, currency, venue
        self._kind, self._number = account >> 60, account & 0xFFFFFFFF

    def carried(self, body: DayClosed) -> int:
        """The balance that a close carries forward."""
        if self._currency not in body.currencies or (self._kind == c.TILL and self._venue not in body.venues):
            return 0
        venue = body.venues.index(self._venue) if self._kind == c.TILL else 0
        code = self._kind << 60 | body.currencies.index(self._currency) << 48 | venue << 32 | self._number
        found = np.flatnonzero(np.frombuffer(body.code, "<i8") == code)
        return int(np.frombuffer(body.balance, "<i8")[found[0]]) if len(found) else 0

    def movements(self, body: EventBody) -> Iterator[_Movement]:
        if getattr(body, "currency", None) != self._currency:
            return
        match body:
            case Paid() if self._kind in (c.WALLET, c.TILL):
                yield from self._paid(body)
            case ToppedUp() if self._kind in (c.WALLET, c.OUTSIDE):
                yield from self._topped_up(body)
            case Transferred():
                yield from self._transferred(body)
            case TransfersSent():
                yield from self._sent(body)
            case TransfersReceived():
                yield from self._received(body)
            case TransfersFinished():
                yield from self._finished(body)
            case _:
                return

    def _paid(self, body: Paid) -> Iterator[_Movement]:
        subject, unit, amount = _u4(body.subject), np.frombuffer(body.unit, "<u2"), _u4(body.amount)
        wallet = self._kind == c.WALLET
        if not wallet and body.venue != self._venue:
            return
        for row in np.flatnonzero((subject if wallet else unit) == self._number).tolist():
            other = c.TILL << 60 | int(unit[row]) if wallet else c.WALLET << 60 | int(subject[row])
            yield _Movement(row, "payment", _key(body.key, row), other, -int(amount[row]) if wallet else int(amount[row]))

    def _topped_up(self, body: ToppedUp) -> Iterator[_Movement]:
        subject, amount = _u4(body.subject), _u4(body.amount)
        wallet = self._kind == c.WALLET
        for row in (np.flatnonzero(subject == self._number) if wallet else np.arange(len(subject))).tolist():
            other = c.OUTSIDE << 60 if wallet else c.WALLET << 60 | int(subject[row])
            yield _Movement(row, "top_up", _key(body.key, row), other, int(amount[row]) if wallet else -int(amount[row]))

    def _transferred(self, body: Transferred) -> Iterator[_Movement]:
        if self._kind == c.TILL and body.venue != self._venue:
            return
        debit, credit, amount = _i8(body.debit), _i8(body.credit), _i8(body.amount)
        op = np.frombuffer(body.op, np.uint8) if body.op else np.zeros(len(debit), np.uint8)
        for row in np.flatnonzero(((debit == self._account) | (credit == self._account)) & np.isin(op, list(_WHAT))).tolist():
            out = debit[row] == self._account
            # A refund's accounts are as it moved: the original's credit is its debit.
            yield _Movement(
                row, _WHAT[int(op[row])], _key(body.key, row), int(credit[row] if out else debit[row]), -int(amount[row]) if out else int(amount[row])
            )  # fmt: skip

    def _sent(self, body: TransfersSent) -> Iterator[_Movement]:
        subject, to, amount = _u4(body.subject), _u4(body.to), _i8(body.amount)
        for row in range(len(subject)):
            home = to[row] % LEDGERS == subject[row] % LEDGERS
            receiver = c.WALLET << 60 | int(to[row])
            credit = receiver if home else c.TRANSIT << 60 | int(to[row] % LEDGERS)
            what = "move" if home else "send"
            if self._account == c.WALLET << 60 | int(subject[row]):
                yield _Movement(row, what, _key(body.key, row), receiver, -int(amount[row]))
            elif self._account == credit:
                yield _Movement(row, what, _key(body.key, row), c.WALLET << 60 | int(subject[row]), int(amount[row]))

    def _received(self, body: TransfersReceived) -> Iterator[_Movement]:
        subject, to, amount = _u4(body.subject), _u4(body.to), _i8(body.amount)
        for row in range(len(subject)):
            if body.outcome[row]:
                continue
            if self._account == c.WALLET << 60 | int(to[row]):
                yield _Movement(row, "receive", _key(body.key, row), c.WALLET << 60 | int(subject[row]), int(amount[row]))
            elif self._account == c.TRANSIT << 60 | body.source:
                yield _Movement(row, "receive", _key(body.key, row), c.WALLET << 60 | int(to[row]), -int(amount[row]))

    def _finished(self, body: TransfersFinished) -> Iterator[_Movement]:
        subject, amount = _u4(body.subject), _i8(body.amount)
        for row in range(len(subject)):
            wallet = c.WALLET << 60 | int(subject[row])
            if body.outcome[row] and self._account == wallet:
                yield _Movement(row, "came_back", _key(body.key, row), c.TRANSIT << 60 | body.peer, int(amount[row]))
            elif body.outcome[row] and self._account == c.TRANSIT << 60 | body.peer:
                yield _Movement(row, "came_back", _key(body.key, row), wallet, -int(amount[row]))


def _key(column: bytes, row: int) -> bytes:
    return column[16 * row : 16 * row + 16]


def _u4(column: bytes) -> npt.NDArray[np.uint32]:
    return np.frombuffer(column, "<u4")


def _i8(column: bytes) -> npt.NDArray[np.int64]:
    return np.frombuffer(column, "<i8")
