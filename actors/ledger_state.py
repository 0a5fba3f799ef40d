"""The state of a ledger entity: its tables, names, open holds by expiry, transit and day; its bytes, and what can be read from it. Decides nothing."""

from __future__ import annotations

import hashlib
from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from actors import ledger_codes as c
from actors import ledger_kernels as kernels
from actors.events import EventBody
from actors.ledger_tables import Tables
from actors.ledger_transit import SavedTransit, Transit
from actors.messages import AccountState, Balance, Books, DayClosing

I8 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Plan:
    """What `decide` found and took back: `apply` of this very event does the log's entries again."""

    event: EventBody
    entries: int


@dataclass(slots=True)
class LedgerState:
    """`refused` counts since this owner took over; it is told, not kept. `due`: by clock, (expires, high, low) of holds in order, some of them closed already."""

    tables: Tables = field(default_factory=Tables)
    currencies: list[str] = field(default_factory=list)
    venues: list[str] = field(default_factory=list)
    clocks: list[str] = field(default_factory=list)
    due: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    transit: Transit = field(default_factory=Transit)
    payments: int = 0
    top_ups: int = 0
    rows: int = 0
    day: int = 0
    closing: DayClosing | None = None
    refused: int = 0
    volume: dict[str, int] = field(default_factory=dict)
    plan: Plan | None = None

    def due_now(self, clock: str, now: int) -> list[tuple[int, int, int]]:
        """Open holds of a clock that expire at `now` or earlier."""
        waiting = self.due.get(clock)
        if not waiting or waiting[0][0] > now:
            return []
        end = bisect_right(waiting, now, key=lambda entry: entry[0])
        found = [entry for entry in waiting[:end] if self._is_open(*entry[1:])]
        waiting[:end] = found  # what was posted or voided is dropped: it will never be due
        return found

    def next_expiry(self, clock: str, *, after: int) -> int | None:
        """When the first hold of a clock expires after a time; perhaps one that was posted or voided meanwhile. None where none does."""
        waiting = self.due.get(clock, [])
        place = bisect_right(waiting, after, key=lambda entry: entry[0])
        return waiting[place][0] if place < len(waiting) else None

    def _is_open(self, high: int, low: int) -> bool:
        row = self.tables.find_key(high, low)
        return row >= 0 and (int(self.tables.keys[row, kernels.K_META]) >> 8) & 7 == kernels.S_OPEN

    def await_expiry(self, clock: str, expires: int, high: int, low: int) -> None:
        insort(self.due.setdefault(clock, []), (expires, high, low))


class _Saved(msgspec.Struct, array_like=True):
    format: int
    accounts: bytes
    keys: bytes
    forgotten_ms: int
    currencies: list[str]
    venues: list[str]
    clocks: list[str]
    transit: SavedTransit
    payments: int
    top_ups: int
    rows: int
    day: int
    closing: DayClosing | None
    volume: dict[str, int]


class _Saved1(msgspec.Struct, array_like=True):
    """As it was before transfers: no holds, no limits, no days."""

    code: bytes
    balance: bytes
    keys: tuple[bytes, bytes, bytes, bytes, bytes, bytes]  # high, low, other, subject, amount, balance
    currencies: list[str]
    venues: list[str]
    payments: int
    top_ups: int
    volume: dict[str, int]


FORMAT: Final = 3
FORMAT_2: Final = 2
"""All words of accounts and keys as they are. Read, no longer written."""


def save(state: LedgerState) -> bytes:
    accounts, keys, forgotten_ms = state.tables.save()
    return msgspec.msgpack.encode(
        _Saved(
            FORMAT, accounts, keys, forgotten_ms, state.currencies, state.venues, state.clocks, state.transit.save(), state.payments, state.top_ups,
            state.rows, state.day, state.closing, state.volume,
        )
    )  # fmt: skip


def load(data: bytes, tables: Tables) -> LedgerState:
    """Read into fresh tables."""
    # An array of fewer than 16 elements is one byte, then its first element: a number since format 2, bytes before.
    if data[1:2] not in (bytes((FORMAT,)), bytes((FORMAT_2,))):
        return _load_1(msgspec.msgpack.decode(data, type=_Saved1), tables)
    saved = msgspec.msgpack.decode(data, type=_Saved)
    state = LedgerState(
        tables=tables, currencies=saved.currencies, venues=saved.venues, clocks=saved.clocks, transit=Transit.load(saved.transit), payments=saved.payments,
        top_ups=saved.top_ups, rows=saved.rows, day=saved.day, closing=saved.closing, volume=saved.volume,
    )  # fmt: skip
    load = state.tables.load if saved.format == FORMAT else state.tables.load_words
    load(saved.accounts, saved.keys, saved.forgotten_ms)
    for row in state.tables.held_rows().tolist() if state.tables.open_holds else ():
        if row[kernels.K_REF_HIGH]:
            clock = state.clocks[(row[kernels.K_META] >> 16) & 0xFFFF]
            state.await_expiry(clock, row[kernels.K_REF_HIGH], row[kernels.K_HIGH], row[kernels.K_LOW])
    return state


def _load_1(saved: _Saved1, tables: Tables) -> LedgerState:
    state = LedgerState(
        tables=tables, currencies=saved.currencies, venues=saved.venues, payments=saved.payments, top_ups=saved.top_ups, volume=saved.volume
    )  # fmt: skip
    code, balance = np.frombuffer(saved.code, "<i8"), np.frombuffer(saved.balance, "<i8")
    accounts = np.zeros((len(code), kernels.ACCOUNT_WORDS), "<i8")
    accounts[:, kernels.A_CODE], accounts[:, kernels.A_BALANCE] = code, balance
    high, low, other, subject, amount, told = (
        np.frombuffer(column, kind).astype(np.int64) for column, kind in zip(saved.keys, ("<i8", "<i8", "<i8", "<u4", "<u4", "<i8"), strict=True)
    )
    place = {value: row for row, value in enumerate(code.tolist())}
    currency = other & (0xFFF << 48)
    wallet_row = np.array([place[value] for value in ((c.WALLET << 60) | currency | subject).tolist()], np.int64)
    other_row = np.array([place[value] for value in other.tolist()], np.int64)
    paying = other >> 60 == c.TILL
    keys = np.zeros((len(high), kernels.KEY_WORDS), "<i8")
    keys[:, kernels.K_HIGH], keys[:, kernels.K_LOW] = high, low
    keys[:, kernels.K_SIDES] = np.where(paying, wallet_row | other_row << 32, other_row | wallet_row << 32)
    keys[:, kernels.K_META] = c.OP_MOVE
    keys[:, kernels.K_AMOUNT] = keys[:, kernels.K_REST] = amount
    keys[:, kernels.K_TOLD] = told
    state.tables.load_words(accounts.tobytes(), keys.tobytes(), -1)
    return state


# --- reading ----------------------------------------------------------------------------------------------------------


def code_of(kind: int, currency: int, number: int, venue: int = 0) -> int:
    """The ledger's own word for an account."""
    return kind << 60 | currency << 48 | venue << 32 | number


def _row_by_currency(state: LedgerState, account: int, venue: str) -> dict[str, int]:
    kind, number = account >> 60, account & 0xFFFFFFFF
    if kind == c.TILL and venue not in state.venues:
        return {}
    place = state.venues.index(venue) if kind == c.TILL else 0
    rows = {name: state.tables.find(code_of(kind, i, number, place)) for i, name in enumerate(state.currencies)}
    return {name: row for name, row in rows.items() if row >= 0}


def balance_of(state: LedgerState, subject: int) -> Balance:
    """What a wallet can spend, and what is held of it (without zeros), by currency; empty where there is none."""
    # The read that is asked most, one by one: no rows by name in between.
    tables, wallet = state.tables, c.WALLET << 60 | subject
    slots, accounts = tables.account_slots, tables.accounts
    words, find = accounts.item, kernels.account_of
    balances, held = {}, {}
    for i, name in enumerate(state.currencies):
        row = find(slots, accounts, wallet | i << 48)
        if row >= 0:
            kept = words(row, kernels.A_HELD)
            balances[name] = words(row, kernels.A_BALANCE) - kept
            if kept:
                held[name] = kept
    return Balance(balances=balances, held=held)


def balances_of_many(state: LedgerState, subjects: Sequence[int]) -> list[Balance]:
    """`balance_of` each."""
    tables, wallets = state.tables, np.array(subjects, np.int64) | c.WALLET << 60
    balance, held = np.empty(len(wallets), np.int64), np.empty(len(wallets), np.int64)
    found = [Balance(balances={}) for _ in subjects]
    for i, name in enumerate(state.currencies):
        kernels.spendable(tables.account_slots, tables.accounts, wallets | i << 48, balance, held)
        for told, free, kept in zip(found, balance.tolist(), held.tolist(), strict=True):
            if kept >= 0:
                told.balances[name] = free
                if kept:
                    told.held[name] = kept
    return found


def balances_of(state: LedgerState, subject: int) -> dict[str, int]:
    """What a wallet can spend, by currency; empty where there is none."""
    return balance_of(state, subject).balances


def account_states(state: LedgerState, account: int, venue: str) -> dict[str, AccountState]:
    found = {}
    for name, row in _row_by_currency(state, account, venue).items():
        words: list[int] = state.tables.accounts[row].tolist()
        found[name] = AccountState(
            balance=words[kernels.A_BALANCE], held=words[kernels.A_HELD], frozen=bool(words[kernels.A_FLAGS] & kernels.FROZEN),
            move_cap=words[kernels.A_MOVE_CAP], day_cap=words[kernels.A_DAY_CAP],
            spent=words[kernels.A_SPENT] if words[kernels.A_DAY] == state.day else 0,
        )  # fmt: skip
    return found


def sums_of(state: LedgerState) -> dict[str, dict[str, int]]:
    """Balances over all accounts by kind ('total', 'wallets', 'tills', 'outside', 'transit', 'held') and currency."""
    words = state.tables.accounts[: state.tables.account_count]
    code = words[:, kernels.A_CODE]
    kind, currency = code >> 60, (code >> 48) & 0xFFF

    def sums(column: int, of: int | None) -> dict[str, int]:
        return {
            name: int(words[(currency == i) if of is None else (currency == i) & (kind == of), column].sum())
            for i, name in enumerate(state.currencies)
        }

    named: Mapping[str, int] = {"wallets": c.WALLET, "tills": c.TILL, "outside": c.OUTSIDE, "transit": c.TRANSIT}
    return {
        "total": sums(kernels.A_BALANCE, None),
        **{name: sums(kernels.A_BALANCE, of) for name, of in named.items()},
        "held": sums(kernels.A_HELD, None),
    }


def books_of(state: LedgerState) -> Books:
    """Sums over all accounts of the entity."""
    sums: dict[str, Any] = sums_of(state)
    return Books(accounts=state.tables.account_count, payments=state.payments, top_ups=state.top_ups, day=state.day, **sums)


def digest_of(state: LedgerState) -> bytes:
    """BLAKE2b-128 of every account's code and balance."""
    words = state.tables.accounts[: state.tables.account_count, : kernels.A_BALANCE + 1]
    return hashlib.blake2b(np.ascontiguousarray(words).tobytes(), digest_size=16).digest()
