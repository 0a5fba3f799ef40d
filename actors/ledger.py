"""A ledger entity: thousands of accounts as columns, settled a batch at a time. `ledger/<tenant>/<0..LEDGERS-1>`.

Owns wallets (of the subjects with `subject % LEDGERS` = its number), a till sub-account for each unit that was paid here, and by currency one outside account, from
which top-ups come, and a transit account for each other ledger. Double entry: every row debits one account and credits another, so the sum over all accounts of a
currency is zero at every version. No wallet and no till falls below zero. Nothing here knows people, venues' plans or sockets. The rules, and the order in
which they are checked: docs/money.md.

Rows are remembered by their 128-bit key: the newest MAX_KEYS settled rows of the entity, and every open hold. A refused row leaves no trace, so its
key may be tried again. Time-ordered keys older than what is remembered are refused, so that none can ever take effect twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from actors import ledger_codes as c
from actors import ledger_kernels as kernels
from actors import ledger_state
from actors.behaviour import Context, Decision, not_understood
from actors.events import (
    AccountsSet,
    DayClosed,
    EventBody,
    HoldsExpired,
    Paid,
    ToppedUp,
    Transferred,
    TransfersFinished,
    TransfersReceived,
    TransfersSent,
)
from actors.ledger_codes import CODES
from actors.ledger_state import LedgerState, Plan, account_states, balance_of, balances_of, balances_of_many, books_of, code_of, digest_of, sums_of
from actors.ledger_tables import MAX_KEYS, Tables
from actors.ledger_transit import MAX_BATCH, MAX_UNDER_WAY, Inbound, Leg, Outbound
from actors.messages import (
    LEDGERS,
    Accounts,
    Balance,
    CloseDay,
    Command,
    DayClosing,
    Done,
    FinishTransfers,
    GetAccount,
    GetBalance,
    GetBooks,
    GetUnderWay,
    Payments,
    Received,
    ReceiveTransfers,
    Rejected,
    Remind,
    SendTransfers,
    SetAccounts,
    Settled,
    TopUps,
    Transfers,
)
from actors.reminders import DropReminder, Reminder, while_under_way
from actors.venue_book import VenueBook
from esplanade.core.errors import Fault
from esplanade.core.ids import Address

__all__ = ["CODES", "MAX_BATCH", "MAX_KEYS", "MAX_ROWS", "Ledger", "LedgerState", "balances_of", "books_of"]

MAX_ROWS: Final = 65_536
"""Rows of one batch of payments or top-ups; of transfers: MAX_BATCH."""
MAX_ACCOUNTS: Final = 4_000_000
MAX_NAMES: Final = 4_096
"""Currencies, venues and clocks of one ledger, of each."""
MAX_HOLDS: Final = 262_144
"""Open holds of one ledger."""

REPLAYED: Final = 2**62
"""The time at which every time-ordered key of the journal has been."""

_NO_UNITS: Final = np.frombuffer(b"", "<u2")  # as those of a batch are, so that no kernel is compiled for two kinds of array
_NO_TILLS: Final = np.zeros(0, np.bool_)

_I8: Final = np.dtype("<i8")
_U4: Final = np.dtype("<u4")
_U2: Final = np.dtype("<u2")

Rows = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]


class Ledger:
    """Behaviour of a ledger entity that remembers the newest `max_keys` rows."""

    NUMBERS: Final = frozenset(str(i) for i in range(LEDGERS))
    """Ids that a tenant's ledgers have."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys

    def initial(self) -> LedgerState:
        return LedgerState(Tables(self._max_keys))

    def venue_of(self, address: Address, command: Command) -> str | None:
        match command:
            case Payments():
                return command.venue
            case Transfers():
                return command.venue or None
            case _:
                return None

    def decide(self, state: LedgerState, command: Command, context: Context) -> Decision | Rejected:
        number = context.address.id
        if number not in self.NUMBERS:
            return Rejected(code="ledger_not_found", message=f"{context.address}: a tenant's ledgers are numbered 0 to {LEDGERS - 1}")
        state.plan = None
        match command:
            case GetBalance():  # first: asked for one by one, the others come in batches
                return Decision((), balance_of(state, command.subject))
            case TopUps() | Payments():
                return _settle_simple(state, command, int(number), context)
            case Transfers():
                return _settle_transfers(state, command, int(number), context)
            case SendTransfers():
                return _send(state, command, int(number))
            case ReceiveTransfers():
                return _receive(state, command, int(number))
            case FinishTransfers():
                return _finish(state, command)
            case SetAccounts():
                return _set_accounts(state, command, int(number))
            case CloseDay():
                return _close_day(state, command)
            case Remind() if command.name == HOLDS:
                return _expire(state, command)
            case Remind() if command.name == TRANSFERS:
                return Decision((), Done(), reminders=() if state.transit.open else (DropReminder(TRANSFERS),))
            case GetAccount():
                return Decision((), Accounts(accounts=account_states(state, command.account, command.venue)))
            case GetUnderWay():
                return Decision((), state.transit.under_way())
            case GetBooks():
                return Decision((), books_of(state))
            case _:
                return not_understood(command, context)

    def balances(self, state: LedgerState, subjects: Sequence[int]) -> list[Balance]:
        """The replies to GetBalance of each."""
        return balances_of_many(state, subjects)

    def apply(self, state: LedgerState, event: EventBody) -> LedgerState:
        plan, state.plan = state.plan, None
        if plan is not None and plan.event is event:
            tables = state.tables
            kernels.do_again(tables.log, plan.entries, tables.counts, tables.accounts, tables.account_slots, tables.keys, tables.key_slots)
            done = True
        else:
            done = False
        match event:
            case ToppedUp() | Paid():
                _apply_simple(state, event, done)
            case Transferred():
                _apply_transfers(state, event, done)
            case HoldsExpired():
                _apply_expiry(state, event)
            case TransfersSent():
                _apply_sent(state, event, done)
            case TransfersReceived():
                _apply_received(state, event)
            case TransfersFinished():
                _apply_finished(state, event)
            case AccountsSet():
                _apply_accounts(state, event)
            case DayClosed():
                _apply_day(state, event)
            case _:
                raise Fault(f"a ledger has no event {type(event).__name__}; the journal mixes entities")
        state.tables.forget_old()
        return state

    def save(self, state: LedgerState) -> bytes:
        return ledger_state.save(state)

    def load(self, data: bytes) -> LedgerState:
        return ledger_state.load(data, Tables(self._max_keys))


# --- what all batches share -------------------------------------------------------------------------------------------


def _place(names: list[str], name: str) -> int:
    """Index of a name, or the one it would get."""
    return names.index(name) if name in names else len(names)


def _enter(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)


def _run(
    state: LedgerState, rows: Rows, result: Codes, *, currency: int = 0, venue: int = 0, clock: int = 0, ordered_ms: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Settle; the balances told and which rows took effect. The state is changed: take it back, or keep it."""
    tables = state.tables
    tables.room(len(rows))
    balance, fresh = np.empty(len(rows), np.int64), np.empty(len(rows), np.uint8)
    kernels.settle(
        rows, result, balance, fresh, tables.accounts, tables.account_slots, tables.keys, tables.key_slots, tables.counts, tables.log,
        currency, venue, clock, state.day, ordered_ms, tables.forgotten_ms, MAX_HOLDS,
    )  # fmt: skip
    return balance, fresh


def _take_back(state: LedgerState) -> int:
    """Undo the batch just settled; returns how many entries do it again."""
    tables = state.tables
    entries = int(tables.counts[kernels.N_LOG])
    kernels.take_back(tables.log, 0, tables.counts, tables.accounts, tables.account_slots, tables.keys, tables.key_slots)
    return entries


def _keep(state: LedgerState, rows: Rows, result: Codes, *, currency: int = 0, venue: int = 0, clock: int = 0, ordered: bool = False) -> None:
    """Settle rows that were settled before: on replay, all of them must take effect."""
    _, fresh = _run(state, rows, result, currency=currency, venue=venue, clock=clock, ordered_ms=REPLAYED if ordered else 0)
    if not fresh.all():
        row = int(np.flatnonzero(fresh == 0)[0])
        why = CODES[int(result[row]) - 1] if result[row] else "known already"
        raise Fault(f"row {row} of a settled batch is now refused ({why}); the journal is damaged or rules have changed")


def _settled(state: LedgerState, result: Codes, balance: npt.NDArray[np.int64]) -> Settled:
    state.refused += int(np.count_nonzero(result))
    return Settled(result=result.tobytes(), codes=CODES, balance=balance.tobytes())


def _lengths(n: int, limit: int, **columns: tuple[bytes, int]) -> Rejected | None:
    """Refuse columns that do not have n rows of their width, or too many."""
    for column, column_width in columns.values():
        if len(column) != column_width * n:
            told = ", ".join(f"{name} {len(data)} B" for name, (data, _) in columns.items())
            rule = ", ".join(f"{width}n" for _, width in columns.values())
            return Rejected(code="invalid", message=f"batch with {told}; n rows need {rule} bytes")
    if n > limit:
        return Rejected(code="too_many_rows", message=f"batch of {n} rows; at most {limit}, send several")
    return None


def _full(state: LedgerState, n: int, currency: str, venue: str = "", clock: str = "") -> Rejected | None:
    if state.tables.account_count + 2 * n > MAX_ACCOUNTS:
        return Rejected(
            code="ledger_full", message=f"{state.tables.account_count} accounts and {n} rows; at most {MAX_ACCOUNTS} accounts in a ledger"
        )
    for what, names, name in (("currency", state.currencies, currency), ("venue", state.venues, venue), ("clock", state.clocks, clock)):
        if len(names) >= MAX_NAMES and name not in names:
            return Rejected(code="ledger_full", message=f"{what} {name!r}: the ledger has {MAX_NAMES} already")
    return None


def _book(context: Context, venue: str) -> VenueBook:
    if context.venue is None:
        raise Fault(f"{context.address}: a batch without the document of {venue}; the shard loads it before the turn")
    return context.venue


def _expiring(state: LedgerState, clock: str, now: int) -> bytes:
    """Keys of the holds to release before a batch."""
    due = state.due_now(clock, now)
    return np.array([(high, low) for _, high, low in due], "<i8").tobytes() if due else b""


HOLDS: Final = "holds"
"""The reminder for the next hold that expires on the clock of milliseconds since 1970."""


TRANSFERS: Final = "transfers"
"""The reminder that stands while transfers are under way, so that the ledger is in memory, where the courier sees them, after every takeover."""


def _expire(state: LedgerState, command: Remind) -> Decision:
    """Release what has expired by now, and be woken for the next."""
    expired = _expiring(state, "", command.now_ms)
    return Decision(
        (HoldsExpired("", command.now_ms, expired),) if expired else (), Done(), reminders=_wake(state.next_expiry("", after=command.now_ms))
    )  # fmt: skip


def _wake(due_ms: int | None) -> tuple[Reminder, ...]:
    return () if due_ms is None else (Reminder(HOLDS, due_ms),)


def _expiry_rows(rows: Rows, key: bytes) -> None:
    rows[:] = 0
    rows[:, kernels.OP] = c.OP_EXPIRE
    rows[:, kernels.REF_HIGH : kernels.REF_LOW + 1] = np.frombuffer(key, "<i8").reshape(-1, 2)


def _apply_expiry(state: LedgerState, event: HoldsExpired) -> None:
    rows, result = np.empty((len(event.key) // 16, kernels.ROW_WORDS), np.int64), np.zeros(len(event.key) // 16, np.uint8)
    _expiry_rows(rows, event.key)
    _keep(state, rows, result)


# --- payments and top-ups ---------------------------------------------------------------------------------------------


def _settle_simple(state: LedgerState, command: TopUps | Payments, ledger: int, context: Context) -> Decision | Rejected:
    paying = isinstance(command, Payments)
    venue = command.venue if isinstance(command, Payments) else ""
    n = len(command.subject) // 4
    refused = _lengths(
        n, MAX_ROWS, key=(command.key, 16), subject=(command.subject, 4), amount=(command.amount, 4),
        **({"unit": (command.unit, 2)} if isinstance(command, Payments) else {}),
    )  # fmt: skip
    refused = refused or _full(state, n, command.currency, venue, venue)
    if refused is not None:
        return refused
    expired = _expiring(state, venue, command.tick) if paying else b""
    e = len(expired) // 16
    rows, result = np.empty((e + n, kernels.ROW_WORDS), np.int64), np.zeros(e + n, np.uint8)
    balance, fresh = np.empty(e + n, np.int64), np.empty(e + n, np.uint8)
    if e:
        _expiry_rows(rows[:e], expired)
    tables = state.tables
    tables.room(e + n)
    entries, moved, not_moved = kernels.settle_simple(
        rows, result, balance, fresh, e, np.frombuffer(command.key, _I8), np.frombuffer(command.subject, _U4),
        np.frombuffer(command.unit, _U2) if isinstance(command, Payments) else _NO_UNITS, np.frombuffer(command.amount, _U4),
        _book(context, venue).has_till if paying else _NO_TILLS, paying, ledger, LEDGERS,
        tables.accounts, tables.account_slots, tables.keys, tables.key_slots, tables.counts, tables.log,
        _place(state.currencies, command.currency), _place(state.venues, venue) if paying else 0, state.day, command.ordered_ms, tables.forgotten_ms, MAX_HOLDS,
    )  # fmt: skip
    state.refused += not_moved
    reply = Settled(result=result[e:].tobytes(), codes=CODES, balance=balance[e:].tobytes())
    events: tuple[EventBody, ...] = (HoldsExpired(venue, command.tick, expired),) if e else ()
    if moved:
        moves = None if moved == n else fresh[e:].astype(np.bool_)
        key, who, amount = _chosen(command.key, 16, moves), _chosen(command.subject, 4, moves), _chosen(command.amount, 4, moves)
        event: EventBody
        if isinstance(command, Payments):
            event = Paid(command.tick, venue, command.currency, key, who, _chosen(command.unit, 2, moves), amount, command.ordered_ms > 0)
        else:
            event = ToppedUp(command.tick, command.currency, key, who, amount, command.ordered_ms > 0)
        if not e:
            state.plan = Plan(event, entries)
        events = (*events, event)
    return Decision(events, reply)


def _chosen(column: bytes, width: int, rows: npt.NDArray[np.bool_] | None) -> bytes:
    return column if rows is None else np.frombuffer(column, np.uint8).reshape(-1, width)[rows].tobytes()


def _apply_simple(state: LedgerState, event: ToppedUp | Paid, done: bool) -> None:
    n = len(event.amount) // 4
    currency = _enter(state.currencies, event.currency)
    venue = _enter(state.venues, event.venue) if isinstance(event, Paid) else 0
    if not done:
        rows, result = np.empty((n, kernels.ROW_WORDS), np.int64), np.zeros(n, np.uint8)
        kernels.read_simple(
            rows, result, np.frombuffer(event.key, _I8), np.frombuffer(event.subject, _U4),
            np.frombuffer(event.unit, _U2) if isinstance(event, Paid) else _NO_UNITS, np.frombuffer(event.amount, _U4), _NO_TILLS, isinstance(event, Paid), False,
            0, LEDGERS, currency, venue,
        )  # fmt: skip
        _keep(state, rows, result, currency=currency, venue=venue, ordered=event.ordered)
    if isinstance(event, Paid):
        state.payments += n
        state.volume[event.currency] = state.volume.get(event.currency, 0) + int(np.frombuffer(event.amount, "<u4").sum(dtype=np.int64))
    else:
        state.top_ups += n
    state.rows += n


# --- transfers --------------------------------------------------------------------------------------------------------


def _read_transfers(
    batch: Transfers | Transferred, rows: Rows, result: Codes, ledger: int, currency: int, venue: int, tills: npt.NDArray[np.bool_]
) -> None:
    kernels.read_transfers(
        rows, result, np.frombuffer(batch.op, np.uint8), np.frombuffer(batch.key, "<i8"), np.frombuffer(batch.debit, "<i8"),
        np.frombuffer(batch.credit, "<i8"), np.frombuffer(batch.amount, "<i8"), np.frombuffer(batch.reference, "<i8"),
        np.frombuffer(batch.expires, "<i8"), tills, isinstance(batch, Transfers), ledger, LEDGERS, currency, venue, batch.now,
    )  # fmt: skip


def _settle_transfers(state: LedgerState, command: Transfers, ledger: int, context: Context) -> Decision | Rejected:
    n = len(command.debit) // 8
    given = {"op": (command.op, 1), "reference": (command.reference, 16), "expires": (command.expires, 8)}
    refused = _lengths(
        n, MAX_BATCH, key=(command.key, 16), debit=(command.debit, 8), credit=(command.credit, 8), amount=(command.amount, 8),
        **{name: column for name, column in given.items() if column[0]},
    )  # fmt: skip
    refused = refused or _full(state, n, command.currency, command.venue, command.clock)
    if refused is not None:
        return refused
    expired = _expiring(state, command.clock, command.now)
    e = len(expired) // 16
    rows, result = np.empty((e + n, kernels.ROW_WORDS), np.int64), np.zeros(e + n, np.uint8)
    _expiry_rows(rows[:e], expired)
    currency, venue, clock = _place(state.currencies, command.currency), _place(state.venues, command.venue), _place(state.clocks, command.clock)
    tills = _book(context, command.venue).has_till if command.venue else _NO_TILLS
    _read_transfers(command, rows[e:], result[e:], ledger, currency, venue, tills)
    balance, fresh = _run(state, rows, result, currency=currency, venue=venue, clock=clock, ordered_ms=command.ordered_ms)
    entries = _take_back(state)
    reply = _settled(state, result[e:], balance[e:])
    events: tuple[EventBody, ...] = (HoldsExpired(command.clock, command.now, expired),) if e else ()
    if fresh[e:].any():
        event = _transferred(command, rows[e:][fresh[e:].astype(np.bool_)])
        if not e:
            state.plan = Plan(event, entries)
        events = (*events, event)
        if event.expires and not command.clock:
            made = np.frombuffer(event.expires, "<i8")
            waiting = state.next_expiry("", after=command.now)
            first = int(made[made > 0].min())
            return Decision(events, reply, reminders=_wake(first if waiting is None else min(first, waiting)))
    return Decision(events, reply)


_WIRE: Final = ~np.int64((1 << 60) - 1) | np.int64(0xFFFFFFFF)
"""The bits of an account's word that travel."""


def _transferred(command: Transfers, rows: Rows) -> Transferred:
    """The event of the rows that took effect, as the kernel has completed them."""
    op = (rows[:, kernels.OP] & ~np.int64(c.LINKED)).astype(np.uint8)
    refers = rows[:, kernels.REF_HIGH : kernels.REF_LOW + 1]
    expires = rows[:, kernels.EXPIRES]
    return Transferred(
        command.clock, command.now, command.venue, command.currency,
        op.tobytes() if op.any() else b"", rows[:, kernels.HIGH : kernels.LOW + 1].tobytes(),
        (rows[:, kernels.DEBIT] & _WIRE).tobytes(), (rows[:, kernels.CREDIT] & _WIRE).tobytes(), rows[:, kernels.AMOUNT].tobytes(),
        refers.tobytes() if refers.any() else b"", expires.tobytes() if expires.any() else b"", command.ordered_ms > 0,
    )  # fmt: skip


def _apply_transfers(state: LedgerState, event: Transferred, done: bool) -> None:
    n = len(event.debit) // 8
    currency, venue, clock = _enter(state.currencies, event.currency), _enter(state.venues, event.venue), _enter(state.clocks, event.clock)
    if not done:
        rows, result = np.empty((n, kernels.ROW_WORDS), np.int64), np.zeros(n, np.uint8)
        _read_transfers(event, rows, result, 0, currency, venue, _NO_TILLS)
        _keep(state, rows, result, currency=currency, venue=venue, clock=clock, ordered=event.ordered)
    if event.expires:
        expires, keys = np.frombuffer(event.expires, "<i8"), np.frombuffer(event.key, "<i8").reshape(-1, 2)
        for row in np.flatnonzero(expires).tolist():
            state.await_expiry(event.clock, int(expires[row]), *keys[row].tolist())
    state.rows += n


# --- between ledgers --------------------------------------------------------------------------------------------------


def _send(state: LedgerState, command: SendTransfers, ledger: int) -> Decision | Rejected:
    n = len(command.subject) // 4
    refused = _lengths(n, MAX_BATCH, key=(command.key, 16), subject=(command.subject, 4), to=(command.to, 4), amount=(command.amount, 8))
    refused = refused or _full(state, n, command.currency)
    if refused is not None:
        return refused
    if state.transit.open + n > MAX_UNDER_WAY:
        return Rejected(
            code="too_many_under_way",
            message=f"{state.transit.open} transfers are under way from ledger {ledger}; at most {MAX_UNDER_WAY}, send later",
        )
    rows, result = np.empty((n, kernels.ROW_WORDS), np.int64), np.zeros(n, np.uint8)
    currency = _place(state.currencies, command.currency)
    _read_sends(command, rows, result, ledger, currency)
    balance, fresh = _run(state, rows, result, currency=currency, ordered_ms=command.ordered_ms)
    entries = _take_back(state)
    reply = _settled(state, result, balance)
    if not fresh.any():
        return Decision((), reply)
    moves = fresh.astype(np.bool_)
    event = TransfersSent(
        command.currency, _chosen(command.key, 16, moves), _chosen(command.subject, 4, moves), _chosen(command.to, 4, moves),
        _chosen(command.amount, 8, moves), command.ordered_ms > 0,
    )  # fmt: skip
    state.plan = Plan(event, entries)
    leaves = bool((np.frombuffer(event.to, "<u4") % LEDGERS != ledger).any())
    return Decision((event,), reply, reminders=(while_under_way(TRANSFERS),) if leaves else ())


def _read_sends(batch: SendTransfers | TransfersSent, rows: Rows, result: Codes, ledger: int, currency: int) -> None:
    kernels.read_sends(
        rows, result, np.frombuffer(batch.key, "<i8"), np.frombuffer(batch.subject, "<u4"), np.frombuffer(batch.to, "<u4"),
        np.frombuffer(batch.amount, "<i8"), isinstance(batch, SendTransfers), ledger, LEDGERS, currency,
    )  # fmt: skip


def _apply_sent(state: LedgerState, event: TransfersSent, done: bool) -> None:
    n = len(event.subject) // 4
    currency = _enter(state.currencies, event.currency)
    subject, to, amount = (
        np.frombuffer(event.subject, "<u4").tolist(),
        np.frombuffer(event.to, "<u4").tolist(),
        np.frombuffer(event.amount, "<i8").tolist(),
    )
    ledger = subject[0] % LEDGERS
    if not done:
        rows, result = np.empty((n, kernels.ROW_WORDS), np.int64), np.zeros(n, np.uint8)
        _read_sends(event, rows, result, ledger, currency)
        _keep(state, rows, result, currency=currency, ordered=event.ordered)
    for i in range(n):
        peer = to[i] % LEDGERS
        if peer != ledger:
            outbound = state.transit.outbound.setdefault(peer, Outbound())
            outbound.open[outbound.next] = Leg(event.key[16 * i : 16 * i + 16], subject[i], to[i], amount[i], event.currency)
            outbound.next += 1
    state.rows += n


def _receive(state: LedgerState, command: ReceiveTransfers, ledger: int) -> Decision | Rejected:
    n = len(command.sequence) // 8
    refused = _lengths(
        n, MAX_BATCH, sequence=(command.sequence, 8), key=(command.key, 16), subject=(command.subject, 4), to=(command.to, 4), amount=(command.amount, 8)
    )  # fmt: skip
    refused = refused or _full(state, n, command.currency)
    if refused is not None:
        return refused
    sequences = np.frombuffer(command.sequence, "<u8").astype(np.int64)
    if not 0 <= command.source < LEDGERS or command.source == ledger or (np.diff(sequences) <= 0).any() or (n and sequences[0] <= command.through):
        return Rejected(
            code="invalid",
            message=f"transfers from ledger {command.source} to {ledger}, through {command.through}: the source is another ledger of 0 to {LEDGERS - 1}, "
            "sequences rise and lie above `through`",
        )
    known = [state.transit.inbound.get(command.source, Inbound()).outcome(sequence) for sequence in sequences.tolist()]
    outcome = np.array([0 if code is None else code for code in known], np.uint8)
    new = np.array([code is None for code in known], np.bool_)
    if not new.any():
        return Decision((), Received(outcome=outcome.tobytes(), codes=CODES))
    columns = [
        _chosen(column, width, new)
        for column, width in ((command.sequence, 8), (command.key, 16), (command.subject, 4), (command.to, 4), (command.amount, 8))
    ]
    currency = _place(state.currencies, command.currency)
    rows, result = _arrivals(columns, command.source, ledger, currency)
    _run(state, rows, result, currency=currency)
    _take_back(state)
    outcome[new] = result
    sequence, key, subject, to, amount = columns
    event = TransfersReceived(command.source, command.through, command.currency, sequence, key, subject, to, amount, result.tobytes())
    return Decision((event,), Received(outcome=outcome.tobytes(), codes=CODES))


def _arrivals(columns: list[bytes], source: int, ledger: int, currency: int) -> tuple[Rows, Codes]:
    _, key, subject, to, amount = columns
    n = len(subject) // 4
    rows, result = np.empty((n, kernels.ROW_WORDS), np.int64), np.zeros(n, np.uint8)
    kernels.read_arrivals(
        rows, result, np.frombuffer(key, "<i8"), np.frombuffer(subject, "<u4"), np.frombuffer(to, "<u4"), np.frombuffer(amount, "<i8"),
        source, ledger, LEDGERS, currency,
    )  # fmt: skip
    return rows, result


def _apply_received(state: LedgerState, event: TransfersReceived) -> None:
    currency = _enter(state.currencies, event.currency)
    outcome = np.frombuffer(event.outcome, np.uint8)
    columns = [event.sequence, event.key, event.subject, event.to, event.amount]
    arrived = outcome == 0
    if arrived.any():
        chosen = [_chosen(column, width, arrived) for column, width in zip(columns, (8, 16, 4, 4, 8), strict=True)]
        ledger = int(np.frombuffer(chosen[3], "<u4")[0]) % LEDGERS
        _keep(state, *_arrivals(chosen, event.source, ledger, currency), currency=currency)
    inbound = state.transit.inbound.setdefault(event.source, Inbound())
    inbound.outcomes.update(zip(np.frombuffer(event.sequence, "<u8").tolist(), outcome.tolist(), strict=True))
    inbound.raise_to(event.through)
    state.rows += int(arrived.sum())


def _finish(state: LedgerState, command: FinishTransfers) -> Decision | Rejected:
    n = len(command.outcome)
    refused = _lengths(n, MAX_BATCH, sequence=(command.sequence, 8), outcome=(command.outcome, 1))
    if refused is not None:
        return refused
    outbound = state.transit.outbound.get(command.peer, Outbound())
    sequences = np.frombuffer(command.sequence, "<u8").tolist()
    finished: dict[int, int] = {}
    for sequence, outcome in zip(sequences, command.outcome, strict=True):
        leg = outbound.open.get(sequence)
        if leg is not None and leg.currency == command.currency and outcome <= len(CODES):
            finished.setdefault(sequence, outcome)
    if not finished:
        return Decision((), Done())
    legs = [outbound.open[sequence] for sequence in finished]
    event = TransfersFinished(
        command.peer, command.currency, np.array(list(finished), "<u8").tobytes(), bytes(finished.values()), b"".join(leg.key for leg in legs),
        np.array([leg.subject for leg in legs], "<u4").tobytes(), np.array([leg.amount for leg in legs], "<i8").tobytes(),
    )  # fmt: skip
    return Decision((event,), Done())


def _apply_finished(state: LedgerState, event: TransfersFinished) -> None:
    tables, legs = state.tables, state.transit.outbound[event.peer].open
    for sequence, outcome in zip(np.frombuffer(event.sequence, "<u8").tolist(), event.outcome, strict=True):
        leg = legs.pop(sequence)
        if outcome == 0:
            continue
        currency = state.currencies.index(leg.currency)
        wallet, transit = (tables.find(code_of(kind, currency, number)) for kind, number in ((c.WALLET, leg.subject), (c.TRANSIT, event.peer)))
        tables.accounts[wallet, kernels.A_BALANCE] += leg.amount
        tables.accounts[transit, kernels.A_BALANCE] -= leg.amount
        row = tables.find_key(*np.frombuffer(leg.key, "<i8").tolist())
        if row >= 0:
            tables.keys[row, kernels.K_META] |= kernels.S_VOID << 8
        state.rows += 1


# --- rules of accounts, and the day -----------------------------------------------------------------------------------


def _set_accounts(state: LedgerState, command: SetAccounts, ledger: int) -> Decision | Rejected:
    n = len(command.account) // 8
    refused = _lengths(
        n, MAX_BATCH, account=(command.account, 8), frozen=(command.frozen, 1), move_cap=(command.move_cap, 8), day_cap=(command.day_cap, 8)
    )  # fmt: skip
    refused = refused or _full(state, n, command.currency, command.venue)
    if refused is not None:
        return refused
    account = np.frombuffer(command.account, "<i8")
    kind, number = account >> 60, account & 0xFFFFFFFF
    here = np.where(kind == c.WALLET, number % LEDGERS == ledger, (kind == c.TILL) & (number < 2**16) & bool(command.venue))
    caps = np.concatenate([np.frombuffer(command.move_cap, "<i8"), np.frombuffer(command.day_cap, "<i8")])
    if not (here & (account & ~_WIRE == 0)).all() or (caps < 0).any() or max(command.frozen, default=0) > 1:
        return Rejected(
            code="invalid",
            message=f"rules of {n} accounts: each is a wallet of ledger {ledger} or a till of `venue`, frozen 0 or 1, caps not below 0",
        )
    if not n:
        return Decision((), Done())
    return Decision(
        (AccountsSet(command.venue, command.currency, command.account, command.frozen, command.move_cap, command.day_cap),), Done()
    )  # fmt: skip


def _apply_accounts(state: LedgerState, event: AccountsSet) -> None:
    currency, venue, tables = _enter(state.currencies, event.currency), _enter(state.venues, event.venue), state.tables
    columns = (
        np.frombuffer(event.account, "<i8"),
        np.frombuffer(event.frozen, np.uint8),
        np.frombuffer(event.move_cap, "<i8"),
        np.frombuffer(event.day_cap, "<i8"),
    )
    for account, frozen, move_cap, day_cap in zip(*(column.tolist() for column in columns), strict=True):
        kind = account >> 60
        row = tables.place(code_of(kind, currency, account & 0xFFFFFFFF, venue if kind == c.TILL else 0))
        tables.accounts[row, kernels.A_FLAGS] = kernels.FROZEN if frozen else 0
        tables.accounts[row, kernels.A_MOVE_CAP] = move_cap
        tables.accounts[row, kernels.A_DAY_CAP] = day_cap


def _close_day(state: LedgerState, command: CloseDay) -> Decision | Rejected:
    last = state.closing
    if last is not None and command.day == last.day:
        return Decision((), last)
    if command.day != state.day:
        return Rejected(code="day_not_open", message=f"day {command.day}: the open day is {state.day}; close that one")
    if command.next_day <= state.day:
        return Rejected(code="invalid", message=f"next day {command.next_day} after {state.day}: days rise")
    words = state.tables.accounts[: state.tables.account_count]
    event = DayClosed(
        state.day, command.next_day, tuple(state.currencies), tuple(state.venues),
        words[:, kernels.A_CODE].tobytes(), words[:, kernels.A_BALANCE].tobytes(),
    )  # fmt: skip
    return Decision((event,), _closing(state, command.next_day))


def _closing(state: LedgerState, next_day: int) -> DayClosing:
    sums = sums_of(state)
    del sums["total"]
    return DayClosing(day=state.day, next_day=next_day, rows=state.rows, balances=sums, digest=digest_of(state))


def _apply_day(state: LedgerState, event: DayClosed) -> None:
    state.closing = _closing(state, event.next_day)
    state.day = event.next_day
    state.rows = 0
