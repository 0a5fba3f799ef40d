"""An allotment: so many of something and no more, each taken against one movement of money. `allotment/<tenant>/<id>`.

Tickets, or the two hundred pairs of a flash sale (a unit's till gets the price), and rewards (a wallet gets the amount from outside). A *take* is reserved here first, then money is
held in the ledger of its wallet, then the take is committed here, the hold posted there, and the take done: a saga, carried by `actors.allotment_courier`. Owns how many are
left, who has how many, and what became of each take: the first word about a take counts, whoever brings it. Moves no money.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import msgspec
import numpy as np

from actors.behaviour import Context, Decision, not_understood
from actors.events import TAKE_DONE, AllotmentOpened, EventBody, TakesBegun, TakesDecided
from actors.messages import (
    TAKE_CODES,
    AllotmentState,
    Command,
    Decided,
    DecideTakes,
    Done,
    GetAllotment,
    GetOpenTakes,
    OpenAllotment,
    OpenTakes,
    Rejected,
    Remind,
    Taken,
    Takes,
)
from actors.reminders import DropReminder, while_under_way
from esplanade.core.errors import Fault
from esplanade.core.ids import Address

MAX_LIMIT: Final = 1_000_000
"""Units of an allotment: the key of each take is kept as long as the allotment."""
MAX_OPEN: Final = 16_384
"""Takes of an allotment that may be under way."""
MAX_ROWS: Final = 4_096
"""Rows of a command, and open takes told at once."""

REFUSED: Final = 0
OPEN: Final = 1
COMMITTED: Final = 2
DONE: Final = 3

COMMIT: Final = 1
FINISH: Final = TAKE_DONE
REFUSE: Final = 3
LAPSE: Final = 4

TAKES: Final = "takes"
"""Reminder that stands while takes are under way: it brings the allotment into memory after a takeover, where a courier finds it."""

_SOLD_OUT: Final = TAKE_CODES.index("sold_out") + 1
_CLOSED: Final = TAKE_CODES.index("closed") + 1
_EACH: Final = TAKE_CODES.index("exceeds_each") + 1
_OTHER_SUBJECT: Final = TAKE_CODES.index("exists_with_different_subject") + 1
_OTHER_COUNT: Final = TAKE_CODES.index("exists_with_different_count") + 1
_COUNT: Final = TAKE_CODES.index("count_must_be_positive") + 1
_BUSY: Final = TAKE_CODES.index("too_many_under_way") + 1


class Take(msgspec.Struct, array_like=True):
    """One take: `state` is OPEN (reserved), COMMITTED (money is held for it) or DONE."""

    subject: int
    count: int
    begun_ms: int
    state: int = OPEN


class Terms(msgspec.Struct, frozen=True, array_like=True):
    """What each unit costs (`unit`: whose till gets it), or brings where `venue` is "". `each`: of one subject, 0 for no limit. `closes_ms`: 0 for never."""

    venue: str
    unit: int
    currency: str
    amount: int
    limit: int
    each: int
    closes_ms: int


@dataclass(slots=True)
class AllotmentBook:
    terms: Terms | None = None
    takes: dict[bytes, Take] = field(default_factory=dict)
    taken: int = 0
    of: dict[int, int] = field(default_factory=dict)  # units of each subject
    open: dict[bytes, Take] = field(default_factory=dict)  # those that are not done, oldest first


class _Saved(msgspec.Struct, array_like=True):
    terms: Terms | None
    takes: dict[bytes, Take]


class Allotment:
    """Behaviour of an allotment."""

    def initial(self) -> AllotmentBook:
        return AllotmentBook()

    def venue_of(self, address: Address, command: Command) -> str | None:
        return command.venue or None if isinstance(command, OpenAllotment) else None

    def decide(self, state: AllotmentBook, command: Command, context: Context) -> Decision | Rejected:
        if isinstance(command, OpenAllotment):
            return _decide_open(state, command, context)
        if isinstance(command, Remind) and command.name == TAKES:
            return Decision((), Done(), reminders=() if state.open else (DropReminder(TAKES),))
        if state.terms is None:
            return Rejected(code="allotment_not_found", message=f"{context.address}: there is none of this name; open it first")
        match command:
            case Takes():
                return _decide_takes(state, state.terms, command)
            case DecideTakes():
                return _decide_decisions(state, command)
            case GetOpenTakes():
                return Decision((), _open_takes(state, state.terms, command))
            case GetAllotment():
                t = state.terms
                told = AllotmentState(
                    venue=t.venue, unit=t.unit, currency=t.currency, amount=t.amount, limit=t.limit, each=t.each, closes_ms=t.closes_ms,
                    left=t.limit - state.taken, under_way=sum(take.count for take in state.open.values()),
                )  # fmt: skip
                return Decision((), told)
            case _:
                return not_understood(command, context)

    def apply(self, state: AllotmentBook, event: EventBody) -> AllotmentBook:
        match event:
            case AllotmentOpened():
                state.terms = Terms(event.venue, event.unit, event.currency, event.amount, event.limit, event.each, event.closes_ms)
            case TakesBegun():
                subjects, counts = np.frombuffer(event.subject, "<u4").tolist(), np.frombuffer(event.count, "<u2").tolist()
                for key, subject, count in zip(_keys(event.key), subjects, counts, strict=True):
                    _enter(state, key, Take(subject, count, event.now_ms))
            case TakesDecided():
                for key, what in zip(_keys(event.key), event.what, strict=True):
                    _settle(state, key, what)
            case _:
                raise Fault(f"an allotment has no event {type(event).__name__}; the journal mixes entities")
        return state

    def save(self, state: AllotmentBook) -> bytes:
        return msgspec.msgpack.encode(_Saved(state.terms, state.takes))

    def load(self, data: bytes) -> AllotmentBook:
        saved = msgspec.msgpack.decode(data, type=_Saved)
        state = AllotmentBook(saved.terms)
        for key, take in saved.takes.items():
            _enter(state, key, take)
        return state


def _enter(state: AllotmentBook, key: bytes, take: Take) -> None:
    state.takes[key] = take
    state.taken += take.count
    state.of[take.subject] = state.of.get(take.subject, 0) + take.count
    if take.state != DONE:
        state.open[key] = take


def _settle(state: AllotmentBook, key: bytes, what: int) -> None:
    take = state.takes[key]
    if what == COMMIT:
        take.state = COMMITTED
        return
    del state.open[key]
    if what == FINISH:
        take.state = DONE
        return
    del state.takes[key]
    state.taken -= take.count
    state.of[take.subject] -= take.count
    if not state.of[take.subject]:
        del state.of[take.subject]


def _keys(column: bytes) -> list[bytes]:
    return [column[i : i + 16] for i in range(0, len(column), 16)]


def _decide_open(state: AllotmentBook, command: OpenAllotment, context: Context) -> Decision | Rejected:
    unit = 0
    if command.venue:
        if context.venue is None:
            raise Fault(f"{context.address}: a sale without the document of {command.venue}; the shard loads it before the turn")
        found = context.venue.unit_index.get(command.unit)
        if found is None or not context.venue.has_till[found]:
            return Rejected(
                code="unit_not_found" if found is None else "unit_has_no_till",
                message=f"unit {command.unit!r}: {command.venue} has {'no such unit' if found is None else 'no till there'}; name the unit that sells",
            )
        unit = found
    elif command.unit:
        return Rejected(code="invalid", message=f"unit {command.unit!r} without a venue; a sale names both, a reward neither")
    terms = Terms(command.venue, unit, command.currency, command.amount, command.limit, command.each, command.closes_ms)
    held = state.terms
    if held == terms:
        return Decision((), Done())
    if held is not None and (held.venue, held.unit, held.currency, held.amount) != (terms.venue, terms.unit, terms.currency, terms.amount):
        return Rejected(
            code="exists_with_different_terms",
            message=f"{context.address} moves {held.amount} {held.currency} a unit {'to a till' if held.venue else 'to a wallet'}; only limit, each and closing time change, "
            "open another allotment",
        )  # fmt: skip
    if terms.limit < state.taken:
        return Rejected(code="limit_below_taken", message=f"limit {terms.limit}: {state.taken} units are taken already; at least that many")
    event = AllotmentOpened(terms.venue, terms.unit, terms.currency, terms.amount, terms.limit, terms.each, terms.closes_ms)
    return Decision((event,), Done())


def _decide_takes(state: AllotmentBook, terms: Terms, command: Takes) -> Decision | Rejected:
    n = len(command.subject) // 4
    if len(command.key) != 16 * n or len(command.subject) != 4 * n or len(command.count) != 2 * n:
        return Rejected(
            code="invalid",
            message=f"takes with key {len(command.key)} B, subject {len(command.subject)} B, count {len(command.count)} B; n rows need 16n, 4n, 2n bytes",
        )
    if command.reward == bool(terms.venue):
        is_a = "sold, not given away; buy it" if command.reward else "a reward and not for sale; operators grant it"
        return Rejected(code="not_a_reward" if command.reward else "not_for_sale", message=f"this allotment is {is_a}")
    if n > MAX_ROWS:
        return Rejected(code="too_many_rows", message=f"{n} takes; at most {MAX_ROWS}, send several")
    subjects, counts = np.frombuffer(command.subject, "<u4").tolist(), np.frombuffer(command.count, "<u2").tolist()
    keys = _keys(command.key)
    left, room = terms.limit - state.taken, MAX_OPEN - len(state.open)
    closed = 0 < terms.closes_ms <= command.now_ms
    begun: dict[bytes, int] = {}
    taken_here: dict[int, int] = {}
    states, results = bytearray(n), bytearray(n)
    for row, (key, subject, count) in enumerate(zip(keys, subjects, counts, strict=True)):
        known = state.takes.get(key)
        at = begun.get(key)
        if known is not None or at is not None:
            of, has, now = (known.subject, known.count, known.state) if known is not None else (subjects[at or 0], counts[at or 0], OPEN)
            if of != subject or has != count:
                results[row] = _OTHER_SUBJECT if of != subject else _OTHER_COUNT
            else:
                states[row] = now
            continue
        have = state.of.get(subject, 0) + taken_here.get(subject, 0)
        if count < 1:
            results[row] = _COUNT
        elif closed:
            results[row] = _CLOSED
        elif count > left:
            results[row] = _SOLD_OUT
        elif terms.each and have + count > terms.each:
            results[row] = _EACH
        elif room < 1:
            results[row] = _BUSY
        else:
            states[row] = OPEN
            begun[key] = row
            taken_here[subject] = taken_here.get(subject, 0) + count
            left, room = left - count, room - 1
    reply = Taken(state=bytes(states), result=bytes(results), codes=TAKE_CODES)
    if not begun:
        return Decision((), reply)
    rows = list(begun.values())
    event = TakesBegun(
        command.now_ms, b"".join(begun), np.array([subjects[i] for i in rows], "<u4").tobytes(), np.array([counts[i] for i in rows], "<u2").tobytes()
    )
    return Decision((event,), reply, reminders=(while_under_way(TAKES),))


def _decide_decisions(state: AllotmentBook, command: DecideTakes) -> Decision | Rejected:
    if len(command.key) != 16 * len(command.what) or not all(COMMIT <= what <= LAPSE for what in command.what):
        return Rejected(
            code="invalid",
            message=f"decisions with key {len(command.key)} B, what {len(command.what)} B; n rows need 16n bytes and n of {COMMIT} to {LAPSE}",
        )
    told: dict[bytes, int] = {}  # what this command makes of a take
    key_of, what_of = bytearray(), bytearray()
    states = bytearray()
    for key, what in zip(_keys(command.key), command.what, strict=True):
        take = state.takes.get(key)
        now = told.get(key, REFUSED if take is None else take.state)
        after = now
        if now == OPEN and what in (COMMIT, REFUSE):
            after = COMMITTED if what == COMMIT else REFUSED
        elif now == COMMITTED and what in (FINISH, LAPSE):
            after = DONE if what == FINISH else REFUSED
        if after != now:
            key_of += key
            what_of.append(what)
            told[key] = after
        states.append(after)
    reply = Decided(state=bytes(states))
    return Decision((TakesDecided(bytes(key_of), bytes(what_of)),) if what_of else (), reply)


def _open_takes(state: AllotmentBook, terms: Terms, command: GetOpenTakes) -> OpenTakes:
    """Those asked for by key and known, whatever their state; or the oldest that are under way."""
    if command.key:
        chosen = [(key, state.takes[key]) for key in _keys(command.key) if key in state.takes]
    else:
        chosen = list(islice(state.open.items(), MAX_ROWS))
    return OpenTakes(
        venue=terms.venue, unit=terms.unit, currency=terms.currency, amount=terms.amount,
        key=b"".join(key for key, _ in chosen),
        subject=np.array([take.subject for _, take in chosen], "<u4").tobytes(),
        count=np.array([take.count for _, take in chosen], "<u2").tobytes(),
        begun_ms=np.array([take.begun_ms for _, take in chosen], "<i8").tobytes(),
        state=bytes(take.state for _, take in chosen),
    )  # fmt: skip
