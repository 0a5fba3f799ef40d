"""A ledger entity: thousands of accounts as columns, settled a batch at a time. `ledger/<tenant>/<0..LEDGERS-1>`.

Owns wallets (of the subjects with `subject % LEDGERS` = its number), a till sub-account for each unit that was paid here, and one outside account a
currency, from which top-ups come. Double entry: every settled row debits one account and credits another, so the sum over all accounts of a
currency is zero at every version. No wallet falls below zero. Nothing here knows people, venues' plans or sockets.

Rows are remembered by their 128-bit key: the newest MAX_KEYS / 2 to MAX_KEYS settled rows of the entity. A refused row leaves no trace, so its key may be tried again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from actors import ledger_kernels as kernels
from actors.behaviour import Context, Decision, not_understood
from actors.events import EventBody, Paid, ToppedUp
from actors.messages import LEDGERS, Balance, Books, Command, GetBalance, GetBooks, Payments, Rejected, Settled, TopUps
from esplanade.core.errors import Fault
from esplanade.core.ids import Address

CODES: Final = (
    "amount_must_be_positive",
    "wrong_ledger",
    "unit_not_found",
    "unit_has_no_till",
    "exists_with_different_subject",
    "exists_with_different_account",
    "exists_with_different_amount",
    "wallet_not_found",
    "exceeds_balance",
)
"""What `Settled.result` may say: i means CODES[i - 1], in the order in which they are checked; 0 is settled."""

MAX_ROWS: Final = 65_536
"""Rows of one batch."""
MAX_ACCOUNTS: Final = 4_000_000
MAX_KEYS: Final = 2_000_000
MAX_NAMES: Final = 4_096
"""Currencies, and venues, of one ledger."""

_WALLET: Final = 1
_TILL: Final = 2
_OUTSIDE: Final = 3


class _Accounts:
    """Accounts by code: kind << 60 | currency << 48 | venue << 32 | subject or unit."""

    def __init__(self) -> None:
        self.count = 0
        self.code = np.zeros(64, np.uint64)
        self.balance = np.zeros(64, np.int64)
        self.slots = np.full(256, -1, np.int32)

    def room(self, rows: int) -> None:
        needed = self.count + rows
        if needed > len(self.code):
            size = 1 << (needed - 1).bit_length()
            self.code = np.concatenate([self.code, np.zeros(size - len(self.code), np.uint64)])
            self.balance = np.concatenate([self.balance, np.zeros(size - len(self.balance), np.int64)])
        if needed * 2 > len(self.slots):
            self.slots = np.full(1 << (needed * 4 - 1).bit_length(), -1, np.int32)
            kernels.rehash_accounts(self.slots, self.code, self.count)


class _Keys:
    """Settled rows in the order in which they were settled, by key."""

    def __init__(self) -> None:
        self.count = 0
        self.high, self.low, self.other = (np.zeros(64, np.uint64) for _ in range(3))
        self.subject, self.amount = (np.zeros(64, np.uint32) for _ in range(2))
        self.balance = np.zeros(64, np.int64)
        self.slots = np.full(256, -1, np.int32)

    def room(self, rows: int) -> None:
        needed = self.count + rows
        if needed > len(self.high):
            grown = (1 << (needed - 1).bit_length()) - len(self.high)
            self.high, self.low, self.other = (np.concatenate([a, np.zeros(grown, np.uint64)]) for a in (self.high, self.low, self.other))
            self.subject, self.amount = (np.concatenate([a, np.zeros(grown, np.uint32)]) for a in (self.subject, self.amount))
            self.balance = np.concatenate([self.balance, np.zeros(grown, np.int64)])
        if needed * 2 > len(self.slots):
            self.slots = np.full(1 << (needed * 4 - 1).bit_length(), -1, np.int32)
            kernels.rehash_keys(self.slots, self.high, self.low, self.count)

    def forget_oldest(self, keep: int) -> None:
        first = self.count - keep
        for column in (self.high, self.low, self.other, self.subject, self.amount, self.balance):
            column[:keep] = column[first : self.count]
        self.count = keep
        kernels.rehash_keys(self.slots, self.high, self.low, keep)


@dataclass(slots=True)
class LedgerState:
    """`refused` counts since this owner took over; it is told, not kept."""

    accounts: _Accounts = field(default_factory=_Accounts)
    keys: _Keys = field(default_factory=_Keys)
    currencies: list[str] = field(default_factory=list)
    venues: list[str] = field(default_factory=list)
    payments: int = 0
    top_ups: int = 0
    refused: int = 0
    volume: dict[str, int] = field(default_factory=dict)


class _Saved(msgspec.Struct, array_like=True):
    code: bytes
    balance: bytes
    keys: tuple[bytes, bytes, bytes, bytes, bytes, bytes]  # high, low, other, subject, amount, balance
    currencies: list[str]
    venues: list[str]
    payments: int
    top_ups: int
    volume: dict[str, int]


class _Batch(NamedTuple):
    """Columns of a command or an event, as the kernel takes them; `refused`: codes found before it."""

    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]
    subject: npt.NDArray[np.uint32]
    wallet: npt.NDArray[np.uint64]
    other: npt.NDArray[np.uint64]
    amount: npt.NDArray[np.uint32]
    refused: npt.NDArray[np.uint8]


class Ledger:
    """Behaviour of a ledger entity."""

    def initial(self) -> LedgerState:
        return LedgerState()

    def venue_of(self, address: Address, command: Command) -> str | None:
        return command.venue if isinstance(command, Payments) else None

    def decide(self, state: LedgerState, command: Command, context: Context) -> Decision | Rejected:
        number = context.address.id
        if number not in _NUMBERS:
            return Rejected(code="ledger_not_found", message=f"{context.address}: a tenant's ledgers are numbered 0 to {LEDGERS - 1}")
        match command:
            case TopUps() | Payments():
                return self._settle(state, command, context)
            case GetBalance():
                return Decision((), Balance(balances=balances_of(state, command.subject)))
            case GetBooks():
                return Decision((), books_of(state))
            case _:
                return not_understood(command, context)

    def _settle(self, state: LedgerState, command: TopUps | Payments, context: Context) -> Decision | Rejected:
        n, rest = divmod(len(command.subject), 4)
        unit_bytes = len(command.unit) if isinstance(command, Payments) else 2 * n
        if rest or len(command.amount) != 4 * n or len(command.key) != 16 * n or unit_bytes != 2 * n:
            return Rejected(
                code="invalid",
                message=f"batch with key {len(command.key)} B, subject {len(command.subject)} B, amount {len(command.amount)} B, unit {unit_bytes} B; "
                "n rows need 16n, 4n, 4n and 2n bytes",
            )
        if n > MAX_ROWS:
            return Rejected(code="too_many_rows", message=f"batch of {n} rows; at most {MAX_ROWS}, send several")
        full = self._full(state, command, n)
        if full is not None:
            return full
        subject = np.frombuffer(command.subject, "<u4")
        refused = np.where(subject % LEDGERS == int(context.address.id), kernels.SETTLED, kernels.WRONG_LEDGER).astype(np.uint8)
        if isinstance(command, Payments):
            book = context.venue
            if book is None:
                raise Fault(f"{context.address}: payments without the document of {command.venue}; the shard loads it before the turn")
            unit = np.frombuffer(command.unit, "<u2")
            found = unit < len(book.has_till)
            till = np.zeros(n, np.bool_)
            till[found] = book.has_till[unit[found]]
            where = np.where(found, np.where(till, kernels.SETTLED, kernels.UNIT_WITHOUT_TILL), kernels.UNIT_NOT_FOUND).astype(np.uint8)
            refused = np.where(refused == kernels.SETTLED, where, refused)
        currency = _place(state.currencies, command.currency)
        venue = _place(state.venues, command.venue) if isinstance(command, Payments) else 0
        result, balance, moves = _run(state, _columns(command, currency, venue, refused), paying=isinstance(command, Payments), keep=False)
        state.refused += int(np.count_nonzero(result))
        reply = Settled(result=result.tobytes(), codes=CODES, balance=balance.astype("<i8").tobytes())
        if not moves.any():
            return Decision((), reply)
        key = np.frombuffer(command.key, np.uint8).reshape(n, 16)[moves].tobytes()
        amount = np.frombuffer(command.amount, "<u4")[moves].tobytes()
        who = subject[moves].tobytes()
        if isinstance(command, TopUps):
            return Decision((ToppedUp(command.tick, command.currency, key, who, amount),), reply)
        units = np.frombuffer(command.unit, "<u2")[moves].tobytes()
        return Decision((Paid(command.tick, command.venue, command.currency, key, who, units, amount),), reply)

    def _full(self, state: LedgerState, command: TopUps | Payments, n: int) -> Rejected | None:
        if state.accounts.count + 2 * n > MAX_ACCOUNTS:
            return Rejected(code="ledger_full", message=f"{state.accounts.count} accounts and {n} rows; at most {MAX_ACCOUNTS} accounts in a ledger")
        if command.currency not in state.currencies and len(state.currencies) >= MAX_NAMES:
            return Rejected(code="ledger_full", message=f"currency {command.currency}: the ledger has {MAX_NAMES} already")
        if isinstance(command, Payments) and command.venue not in state.venues and len(state.venues) >= MAX_NAMES:
            return Rejected(code="ledger_full", message=f"venue {command.venue}: the ledger has {MAX_NAMES} already")
        return None

    def apply(self, state: LedgerState, event: EventBody) -> LedgerState:
        if not isinstance(event, ToppedUp | Paid):
            raise Fault(f"a ledger has no event {type(event).__name__}; the journal mixes entities")
        paying = isinstance(event, Paid)
        currency = _enter(state.currencies, event.currency)
        venue = _enter(state.venues, event.venue) if isinstance(event, Paid) else 0
        n = len(event.amount) // 4
        result, _, _ = _run(state, _columns(event, currency, venue, np.zeros(n, np.uint8)), paying=paying, keep=True)
        if result.any():
            row = int(np.flatnonzero(result)[0])
            raise Fault(
                f"row {row} of a settled batch is now refused with {CODES[int(result[row]) - 1]}; the journal is damaged or rules have changed"
            )
        if paying:
            state.payments += n
            state.volume[event.currency] = state.volume.get(event.currency, 0) + int(np.frombuffer(event.amount, "<u4").sum(dtype=np.int64))
        else:
            state.top_ups += n
        if state.keys.count > MAX_KEYS:
            state.keys.forget_oldest(MAX_KEYS // 2)
        return state

    def save(self, state: LedgerState) -> bytes:
        accounts, keys = state.accounts, state.keys
        columns = (keys.high, keys.low, keys.other, keys.subject, keys.amount, keys.balance)
        high, low, other, subject, amount, balance = (column[: keys.count].tobytes() for column in columns)
        return msgspec.msgpack.encode(
            _Saved(
                accounts.code[: accounts.count].tobytes(),
                accounts.balance[: accounts.count].tobytes(),
                (high, low, other, subject, amount, balance),
                state.currencies,
                state.venues,
                state.payments,
                state.top_ups,
                state.volume,
            )
        )

    def load(self, data: bytes) -> LedgerState:
        saved = msgspec.msgpack.decode(data, type=_Saved)
        state = LedgerState(
            currencies=saved.currencies, venues=saved.venues, payments=saved.payments, top_ups=saved.top_ups, volume=saved.volume
        )  # fmt: skip
        accounts, keys = state.accounts, state.keys
        code, balance = np.frombuffer(saved.code, "<u8"), np.frombuffer(saved.balance, "<i8")
        accounts.room(len(code))
        accounts.code[: len(code)], accounts.balance[: len(code)], accounts.count = code, balance, len(code)
        kernels.rehash_accounts(accounts.slots, accounts.code, accounts.count)
        count = len(saved.keys[0]) // 8
        keys.room(count)
        targets: tuple[npt.NDArray[Any], ...] = (keys.high, keys.low, keys.other, keys.subject, keys.amount, keys.balance)
        for column, data_of, kind in zip(targets, saved.keys, ("<u8", "<u8", "<u8", "<u4", "<u4", "<i8"), strict=True):
            column[:count] = np.frombuffer(data_of, kind)
        keys.count = count
        kernels.rehash_keys(keys.slots, keys.high, keys.low, count)
        return state


_NUMBERS: Final = frozenset(str(i) for i in range(LEDGERS))


def _place(names: list[str], name: str) -> int:
    """Index of a name, or the one it would get."""
    return names.index(name) if name in names else len(names)


def _enter(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)


def _columns(batch: TopUps | Payments | ToppedUp | Paid, currency: int, venue: int, refused: npt.NDArray[np.uint8]) -> _Batch:
    key = np.frombuffer(batch.key, "<u8").reshape(-1, 2)
    subject = np.frombuffer(batch.subject, "<u4")
    wallet = subject.astype(np.uint64) | np.uint64(_WALLET << 60 | currency << 48)
    if isinstance(batch, Payments | Paid):
        other = np.frombuffer(batch.unit, "<u2").astype(np.uint64) | np.uint64(_TILL << 60 | currency << 48 | venue << 32)
    else:
        other = np.full(len(subject), _OUTSIDE << 60 | currency << 48, np.uint64)
    return _Batch(
        np.ascontiguousarray(key[:, 0]), np.ascontiguousarray(key[:, 1]), subject, wallet, other, np.frombuffer(batch.amount, "<u4"), refused
    )  # fmt: skip


def _run(
    state: LedgerState, batch: _Batch, *, paying: bool, keep: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Codes and balances by row, and which rows move money (a repeated key answers again and moves none). Without `keep` the state is observably as before."""
    n = len(batch.amount)
    accounts, keys = state.accounts, state.keys
    accounts.room(2 * n)
    keys.room(n)
    result, balance, fresh = np.zeros(n, np.uint8), np.zeros(n, np.int64), np.zeros(n, np.uint8)
    accounts.count, keys.count = kernels.settle(
        *batch, paying, keep,
        accounts.slots, accounts.code, accounts.balance, accounts.count,
        keys.slots, keys.high, keys.low, keys.subject, keys.other, keys.amount, keys.balance, keys.count,
        result, balance, fresh,
    )  # fmt: skip
    return result, balance, fresh.astype(np.bool_)


def _code(kind: int, currency: int, number: int) -> int:
    return kind << 60 | currency << 48 | number


def balances_of(state: LedgerState, subject: int) -> dict[str, int]:
    """A wallet's balances by currency; empty where there is none."""
    found = {}
    for i, currency in enumerate(state.currencies):
        row = kernels.account_of(state.accounts.slots, state.accounts.code, np.uint64(_code(_WALLET, i, subject)))
        if row >= 0:
            found[currency] = int(state.accounts.balance[row])
    return found


def books_of(state: LedgerState) -> Books:
    """Sums over all accounts of the entity."""
    count = state.accounts.count
    code, balance = state.accounts.code[:count], state.accounts.balance[:count]
    kind = (code >> np.uint64(60)).astype(np.int64)
    currency = (code >> np.uint64(48)).astype(np.int64) & 0xFFF

    def sums(of: int | None) -> dict[str, int]:
        chosen = np.ones(count, np.bool_) if of is None else kind == of
        return {name: int(balance[chosen & (currency == i)].sum()) for i, name in enumerate(state.currencies)}

    return Books(
        accounts=count, total=sums(None), wallets=sums(_WALLET), tills=sums(_TILL), outside=sums(_OUTSIDE),
        payments=state.payments, top_ups=state.top_ups,
    )  # fmt: skip
