"""Compiled kernels of the ledger: two open-addressing tables (accounts by code, rows by 128-bit key), the reading of a batch, and its settling.

Owns no state and no policy of growth: `actors.ledger_tables` gives arrays with room for the batch, so no probe can run round a full table. Every change goes
through a log of swaps, so that a chain, or a whole batch, can be taken back and done again. Tables have a power of two of slots. An account's slot holds its row
or -1. A key's slot holds 31 bits of its hash and its row + 1, or 0: strange keys are told apart, and forgotten ones taken out, without a look at the rows, which lie
far from the processor. Rows of keys are a ring: the row of the n-th key is n modulo its length, a power of two.

Dimensions: n rows of a batch, as int64 words (n, R); accounts (a, A); settled rows by key (k, K); log (l, L).
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

from actors import ledger_codes as c

U1 = npt.NDArray[np.uint8]
U2 = npt.NDArray[np.uint16]
U4 = npt.NDArray[np.uint32]
U8 = npt.NDArray[np.uint64]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]

# Words of a row of a batch.
OP, HIGH, LOW, DEBIT, CREDIT, AMOUNT, REF_HIGH, REF_LOW, EXPIRES = range(9)
ROW_WORDS: Final = 9

# Words of an account. FLAGS: 1 frozen. A cap of 0 is none. SPENT: debited or held on DAY.
A_CODE, A_BALANCE, A_HELD, A_FLAGS, A_MOVE_CAP, A_DAY_CAP, A_DAY, A_SPENT = range(8)
ACCOUNT_WORDS: Final = 8
FROZEN: Final = 1

# Words of a settled row. SIDES: debit row | credit row << 32. META: operation | status << 8 | time-ordered << 12 | clock << 16 | day << 32.
# REST: what can still be refunded, or is still held. TOLD: the balance it was answered with. EXPIRES stands in K_REF_HIGH of a hold.
K_HIGH, K_LOW, K_SIDES, K_META, K_AMOUNT, K_REST, K_TOLD, K_REF_HIGH, K_REF_LOW = range(9)
KEY_WORDS: Final = 9
S_OPEN: Final = 1
S_POSTED: Final = 2
S_VOID: Final = 3
S_EXPIRED: Final = 4
ORDERED: Final = 1 << 12

# Words of the log: what was changed, where, and the words that were there (after taking back: that will be there).
L_ACCOUNT, L_KEY, L_NEW_ACCOUNT, L_NEW_KEY = range(4)
LOG_WORDS: Final = 6
LOG_A_ROW: Final = 6
"""Entries that one row may write: two accounts made, two changed, one key made, one changed."""

# Counts that a batch changes.
# KEYS: settled so far; FIRST of them is remembered, and all after it.
N_ACCOUNTS, N_KEYS, N_LOG, N_HOLDS, N_FIRST = range(5)

AHEAD: Final = 64
"""Rows whose slots are touched before they are worked on, so that the memory answers many at once."""

_SUB: Final = np.int64(0xFFFFFFFF)
_CURRENCY_BITS: Final = np.int64(0xFFF << 48)
_VENUE_BITS: Final = np.int64(0xFFFF << 32)


@numba.njit(cache=True)
def _mix(word: Any) -> Any:
    """Finaliser of SplitMix64 (Steele et al. 2014)."""
    x = np.uint64(word)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@numba.njit(cache=True)
def _find_account(slots: I4, accounts: I8, code: Any) -> Any:
    """Slot that holds the account, or the empty slot where it belongs."""
    mask = np.uint64(len(slots) - 1)
    at = _mix(code) & mask
    while slots[at] >= 0 and accounts[slots[at], A_CODE] != code:
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@numba.njit(cache=True, inline="always")
def _tag(high: Any, low: Any) -> Any:
    """31 bits of hash; the lowest say where a key belongs."""
    return np.int64(_mix(np.uint64(high) ^ _mix(low)) >> np.uint64(33))


@numba.njit(cache=True)
def _find_key(slots: I8, keys: I8, high: Any, low: Any) -> Any:
    """Slot that holds the key, or the empty slot where it belongs."""
    mask = len(slots) - 1
    tag = _tag(high, low)
    at = tag & mask
    while slots[at] != 0:
        if slots[at] >> 32 == tag:
            row = (slots[at] & _SUB) - 1
            if keys[row, K_HIGH] == high and keys[row, K_LOW] == low:
                break
        at = (at + 1) & mask
    return at


@numba.njit(cache=True, inline="always")
def _key_row(slots: I8, at: Any) -> Any:
    """Row in a slot, or -1."""
    return (slots[at] & _SUB) - 1


@numba.njit(cache=True)
def rehash_accounts(slots: I4, accounts: I8, count: int) -> None:
    """Fill `slots` anew with accounts 0..count-1."""
    slots[:] = -1
    for i in range(count):
        slots[_find_account(slots, accounts, accounts[i, A_CODE])] = i


@numba.njit(cache=True)
def rehash_keys(slots: I8, keys: I8, counts: I8) -> None:
    slots[:] = 0
    for n in range(counts[N_FIRST], counts[N_KEYS]):
        row = n & (len(keys) - 1)
        slots[_find_key(slots, keys, keys[row, K_HIGH], keys[row, K_LOW])] = (_tag(keys[row, K_HIGH], keys[row, K_LOW]) << 32) | (row + 1)


@numba.njit(cache=True)
def move_slots(old: I8, new: I8, first: Any, ring: int) -> None:
    """Fill `new`, empty and no smaller, with what `old` holds, in its order: neighbours stay near each other, so the memory is walked through and not jumped about in, and no key is
    looked at. Row r is from now on (r - first) modulo `ring`, the number of rows there were."""
    mask = len(new) - 1
    for i in range(len(old)):
        entry = old[i]
        if entry != 0:
            at = (entry >> 32) & mask
            while new[at] != 0:
                at = (at + 1) & mask
            new[at] = (entry & ~_SUB) | ((((entry & _SUB) - 1 - first) & (ring - 1)) + 1)


@numba.njit(cache=True)
def account_of(slots: I4, accounts: I8, code: int) -> Any:
    """Row of an account, or -1."""
    return slots[_find_account(slots, accounts, code)]


@numba.njit(cache=True)
def key_of(slots: I8, keys: I8, high: int, low: int) -> Any:
    """Row of a key, or -1."""
    return _key_row(slots, _find_key(slots, keys, high, low))


@numba.njit(cache=True)
def spendable(slots: I4, accounts: I8, codes: I8, balance: I8, held: I8) -> None:
    """What can be spent of the accounts with these codes (n,), and what is held of them; -1 in `held` where there is no account."""
    for i in range(len(codes)):
        row = slots[_find_account(slots, accounts, codes[i])]
        held[i] = accounts[row, A_HELD] if row >= 0 else -1
        balance[i] = accounts[row, A_BALANCE] - held[i] if row >= 0 else 0


# --- reading of batches -----------------------------------------------------------------------------------------------


@numba.njit(cache=True)
def read_simple(
    rows: I8, result: U1, key: I8, subject: U4, unit: U2, amount: U4, has_till: Any,
    paying: bool, check: bool, ledger: int, ledgers: int, currency: int, venue: int,
) -> None:  # fmt: skip
    """Payments (wallet to till of `unit`) or top-ups (outside to wallet) as rows; `check`: result gets what these columns alone refuse."""
    base = np.int64(currency) << 48
    outside = (np.int64(c.OUTSIDE) << 60) | base
    wallets = (np.int64(c.WALLET) << 60) | base
    tills = (np.int64(c.TILL) << 60) | base | (np.int64(venue) << 32)
    for i in range(len(subject)):
        wallet = wallets | np.int64(subject[i])
        other = (tills | np.int64(unit[i])) if paying else outside
        rows[i, OP] = c.OP_MOVE
        rows[i, HIGH] = key[2 * i]
        rows[i, LOW] = key[2 * i + 1]
        rows[i, DEBIT] = wallet if paying else other
        rows[i, CREDIT] = other if paying else wallet
        rows[i, AMOUNT] = amount[i]
        rows[i, REF_HIGH] = 0
        rows[i, REF_LOW] = 0
        rows[i, EXPIRES] = 0
        result[i] = 0
        if check:
            if amount[i] == 0:
                result[i] = c.AMOUNT_MUST_BE_POSITIVE
            elif np.int64(subject[i]) % ledgers != ledger:
                result[i] = c.WRONG_LEDGER
            elif paying and unit[i] >= len(has_till):
                result[i] = c.UNIT_NOT_FOUND
            elif paying and not has_till[unit[i]]:
                result[i] = c.UNIT_HAS_NO_TILL


@numba.njit(cache=True)
def _account_code(code: int, has_till: Any, ledger: int, ledgers: int) -> int:
    kind = code >> 60
    number = code & _SUB
    if kind < c.WALLET or kind > c.OUTSIDE or (code & ~(np.int64(7) << 60)) != number or (kind == c.OUTSIDE and number != 0):
        return c.ACCOUNT_UNKNOWN
    if kind == c.WALLET and number % ledgers != ledger:
        return c.WRONG_LEDGER
    if kind == c.TILL and number >= len(has_till):
        return c.UNIT_NOT_FOUND
    if kind == c.TILL and not has_till[number]:
        return c.UNIT_HAS_NO_TILL
    return 0


@numba.njit(cache=True)
def _shape_code(row: Any, has_till: Any, ledger: int, ledgers: int, now: int, linked_ok: bool) -> int:
    """What the columns of a row alone refuse, in the order of the codes."""
    op = row[OP] & ~np.int64(c.LINKED)
    if op > c.OP_REFUND or not linked_ok:
        return c.OPERATION_UNKNOWN
    refers = op == c.OP_POST or op == c.OP_VOID or op == c.OP_REFUND
    if op == c.OP_VOID and row[AMOUNT] != 0:
        return c.AMOUNT_MUST_BE_ZERO
    if row[AMOUNT] < 0 or (row[AMOUNT] == 0 and op != c.OP_POST and op != c.OP_VOID):
        return c.AMOUNT_MUST_BE_POSITIVE
    if row[AMOUNT] > c.MAX_AMOUNT:
        return c.AMOUNT_TOO_LARGE
    debit = 0
    credit = 0
    if not refers:
        debit = _account_code(row[DEBIT], has_till, ledger, ledgers)
        credit = _account_code(row[CREDIT], has_till, ledger, ledgers)
        if debit == c.ACCOUNT_UNKNOWN or credit == c.ACCOUNT_UNKNOWN:
            return c.ACCOUNT_UNKNOWN
        if row[DEBIT] == row[CREDIT]:
            return c.ACCOUNTS_MUST_DIFFER
    elif row[DEBIT] != 0 or row[CREDIT] != 0:
        return c.ACCOUNT_MUST_BE_ZERO
    if not refers and (row[REF_HIGH] != 0 or row[REF_LOW] != 0):
        return c.REFERENCE_MUST_BE_ZERO
    if refers and row[REF_HIGH] == row[HIGH] and row[REF_LOW] == row[LOW]:
        return c.REFERENCE_MUST_DIFFER
    if op != c.OP_HOLD and row[EXPIRES] != 0:
        return c.EXPIRY_MUST_BE_ZERO
    lower = min(debit, credit)
    if debit != 0 and credit != 0:
        return lower
    if debit != 0 or credit != 0:
        return max(debit, credit)
    if row[EXPIRES] < 0 or (row[EXPIRES] != 0 and row[EXPIRES] <= now):
        return c.EXPIRY_MUST_BE_LATER
    return 0


@numba.njit(cache=True)
def read_transfers(
    rows: I8, result: U1, op: U1, key: I8, debit: I8, credit: I8, amount: I8, reference: I8, expires: I8, has_till: Any,
    check: bool, ledger: int, ledgers: int, currency: int, venue: int, now: int,
) -> None:  # fmt: skip
    """Columns as rows; `op`, `reference` and `expires` may be empty (all 0). `check`: result gets what the columns alone refuse."""
    base = np.int64(currency) << 48
    for i in range(len(debit)):
        rows[i, OP] = op[i] if len(op) > 0 else 0
        rows[i, HIGH] = key[2 * i]
        rows[i, LOW] = key[2 * i + 1]
        rows[i, DEBIT] = debit[i]
        rows[i, CREDIT] = credit[i]
        rows[i, AMOUNT] = amount[i]
        rows[i, REF_HIGH] = reference[2 * i] if len(reference) > 0 else 0
        rows[i, REF_LOW] = reference[2 * i + 1] if len(reference) > 0 else 0
        rows[i, EXPIRES] = expires[i] if len(expires) > 0 else 0
        result[i] = _shape_code(rows[i], has_till, ledger, ledgers, now, True) if check else 0
        for side in (DEBIT, CREDIT):
            code = rows[i, side]
            if code != 0:
                rows[i, side] = code | base | ((np.int64(venue) << 32) if code >> 60 == c.TILL else np.int64(0))


@numba.njit(cache=True)
def read_sends(
    rows: I8, result: U1, key: I8, subject: U4, to: U4, amount: I8, check: bool, ledger: int, ledgers: int, currency: int,
) -> None:  # fmt: skip
    """Sends: wallet to wallet here, or wallet to the transit account of the ledger where the receiver's wallet is (REF_LOW: the receiver)."""
    base = np.int64(currency) << 48
    wallets = (np.int64(c.WALLET) << 60) | base
    for i in range(len(subject)):
        peer = np.int64(to[i]) % ledgers
        rows[i, HIGH] = key[2 * i]
        rows[i, LOW] = key[2 * i + 1]
        rows[i, DEBIT] = wallets | np.int64(subject[i])
        rows[i, AMOUNT] = amount[i]
        rows[i, REF_HIGH] = 0
        rows[i, EXPIRES] = 0
        if peer == ledger:
            rows[i, OP] = c.OP_MOVE
            rows[i, CREDIT] = wallets | np.int64(to[i])
            rows[i, REF_LOW] = 0
        else:
            rows[i, OP] = c.OP_SEND
            rows[i, CREDIT] = (np.int64(c.TRANSIT) << 60) | base | peer
            rows[i, REF_LOW] = to[i]
        result[i] = 0
        if check:
            if amount[i] <= 0:
                result[i] = c.AMOUNT_MUST_BE_POSITIVE
            elif amount[i] > c.MAX_AMOUNT:
                result[i] = c.AMOUNT_TOO_LARGE
            elif subject[i] == to[i]:
                result[i] = c.ACCOUNTS_MUST_DIFFER
            elif np.int64(subject[i]) % ledgers != ledger:
                result[i] = c.WRONG_LEDGER


@numba.njit(cache=True)
def read_arrivals(
    rows: I8, result: U1, key: I8, subject: U4, to: U4, amount: I8, source: int, ledger: int, ledgers: int, currency: int,
) -> None:  # fmt: skip
    """What another ledger sent: from its transit account to a wallet here (REF_LOW: the sender)."""
    base = np.int64(currency) << 48
    for i in range(len(subject)):
        rows[i, OP] = c.OP_RECEIVE
        rows[i, HIGH] = key[2 * i]
        rows[i, LOW] = key[2 * i + 1]
        rows[i, DEBIT] = (np.int64(c.TRANSIT) << 60) | base | source
        rows[i, CREDIT] = (np.int64(c.WALLET) << 60) | base | np.int64(to[i])
        rows[i, AMOUNT] = amount[i]
        rows[i, REF_HIGH] = 0
        rows[i, REF_LOW] = subject[i]
        rows[i, EXPIRES] = 0
        result[i] = 0
        if amount[i] <= 0:
            result[i] = c.AMOUNT_MUST_BE_POSITIVE
        elif amount[i] > c.MAX_AMOUNT:
            result[i] = c.AMOUNT_TOO_LARGE
        elif np.int64(to[i]) % ledgers != ledger:
            result[i] = c.WRONG_LEDGER


# --- the log of swaps -------------------------------------------------------------------------------------------------


@numba.njit(cache=True, inline="always")
def _keep_account(log: I8, counts: I8, accounts: I8, row: Any) -> None:
    at = counts[N_LOG]
    log[at, 0] = L_ACCOUNT
    log[at, 1] = row
    log[at, 2] = accounts[row, A_BALANCE]
    log[at, 3] = accounts[row, A_HELD]
    log[at, 4] = accounts[row, A_DAY]
    log[at, 5] = accounts[row, A_SPENT]
    counts[N_LOG] = at + 1


@numba.njit(cache=True, inline="always")
def _keep_key(log: I8, counts: I8, keys: I8, row: Any) -> None:
    at = counts[N_LOG]
    log[at, 0] = L_KEY
    log[at, 1] = row
    log[at, 2] = keys[row, K_META]
    log[at, 3] = keys[row, K_REST]
    counts[N_LOG] = at + 1


@numba.njit(cache=True, inline="always")
def _swap(log: I8, at: Any, accounts: I8, keys: I8) -> None:
    row = log[at, 1]
    if log[at, 0] == L_ACCOUNT:
        balance, held, day, spent = accounts[row, A_BALANCE], accounts[row, A_HELD], accounts[row, A_DAY], accounts[row, A_SPENT]
        accounts[row, A_BALANCE], accounts[row, A_HELD] = log[at, 2], log[at, 3]
        accounts[row, A_DAY], accounts[row, A_SPENT] = log[at, 4], log[at, 5]
        log[at, 2], log[at, 3], log[at, 4], log[at, 5] = balance, held, day, spent
    else:
        meta, rest = keys[row, K_META], keys[row, K_REST]
        keys[row, K_META], keys[row, K_REST] = log[at, 2], log[at, 3]
        log[at, 2], log[at, 3] = meta, rest


@numba.njit(cache=True)
def take_back(log: I8, down_to: Any, counts: I8, accounts: I8, a_slots: I4, keys: I8, k_slots: I8) -> None:
    """Undo the entries from the last to `down_to`; the log then holds what `do_again` needs."""
    for at in range(counts[N_LOG] - 1, down_to - 1, -1):
        what = log[at, 0]
        if what == L_NEW_ACCOUNT:
            a_slots[log[at, 2]] = -1
            counts[N_ACCOUNTS] -= 1
        elif what == L_NEW_KEY:
            k_slots[log[at, 2]] = 0
            counts[N_KEYS] -= 1
            counts[N_HOLDS] -= log[at, 3]
        else:
            if what == L_KEY and (log[at, 2] >> 8) & 7 == S_OPEN and (keys[log[at, 1], K_META] >> 8) & 7 != S_OPEN:
                counts[N_HOLDS] += 1
            _swap(log, at, accounts, keys)
    counts[N_LOG] = down_to


@numba.njit(cache=True)
def do_again(log: I8, entries: int, counts: I8, accounts: I8, a_slots: I4, keys: I8, k_slots: I8) -> None:
    """Redo what `take_back` undid, without looking at anything."""
    for at in range(entries):
        what = log[at, 0]
        if what == L_NEW_ACCOUNT:
            a_slots[log[at, 2]] = log[at, 1]
            counts[N_ACCOUNTS] += 1
        elif what == L_NEW_KEY:
            k_slots[log[at, 2]] = log[at, 4]
            counts[N_KEYS] += 1
            counts[N_HOLDS] += log[at, 3]
        else:
            if what == L_KEY and (log[at, 2] >> 8) & 7 != S_OPEN and (keys[log[at, 1], K_META] >> 8) & 7 == S_OPEN:
                counts[N_HOLDS] -= 1
            _swap(log, at, accounts, keys)
    counts[N_LOG] = entries


# --- settling ---------------------------------------------------------------------------------------------------------


@numba.njit(cache=True)
def _place(log: I8, counts: I8, accounts: I8, a_slots: I4, code: Any) -> Any:
    """Row of an account, made where there is none."""
    slot = _find_account(a_slots, accounts, code)
    row = np.int64(a_slots[slot])
    if row >= 0:
        return row
    row = counts[N_ACCOUNTS]
    accounts[row, :] = 0
    accounts[row, A_CODE] = code
    a_slots[slot] = row
    counts[N_ACCOUNTS] = row + 1
    at = counts[N_LOG]
    log[at, 0] = L_NEW_ACCOUNT
    log[at, 1] = row
    log[at, 2] = slot
    counts[N_LOG] = at + 1
    return row


@numba.njit(cache=True)
def place_account(accounts: I8, slots: I4, counts: I8, code: int) -> Any:
    """Row of an account, made where there is none, for good."""
    log = np.empty((1, LOG_WORDS), np.int64)
    before = counts[N_LOG]
    counts[N_LOG] = 0
    row = _place(log, counts, accounts, slots, code)
    counts[N_LOG] = before
    return row


@numba.njit(cache=True, inline="always")
def _spend(accounts: I8, row: Any, day: Any, amount: Any) -> None:
    if accounts[row, A_DAY] != day:
        accounts[row, A_DAY] = day
        accounts[row, A_SPENT] = 0
    accounts[row, A_SPENT] += amount


@numba.njit(cache=True, inline="always")
def _main_is_credit(debit: Any, credit: Any) -> Any:
    """The balance told with a row is the wallet's: of the debit, unless only the credit is a wallet, or the debit is outside or in transit."""
    return debit >> 60 > c.TILL or (debit >> 60 != c.WALLET and credit >> 60 == c.WALLET)


@numba.njit(cache=True)
def _limits_code(accounts: I8, d: Any, debit: Any, amount: Any, day: Any, capped: bool) -> int:
    """What the debited account itself refuses; d is -1 where it does not exist."""
    if debit >> 60 > c.TILL:
        return 0
    if d < 0:
        return c.EXCEEDS_BALANCE
    if capped:
        if accounts[d, A_MOVE_CAP] > 0 and amount > accounts[d, A_MOVE_CAP]:
            return c.EXCEEDS_TRANSACTION_CAP
        spent = accounts[d, A_SPENT] if accounts[d, A_DAY] == day else np.int64(0)
        if accounts[d, A_DAY_CAP] > 0 and spent + amount > accounts[d, A_DAY_CAP]:
            return c.EXCEEDS_DAILY_CAP
    if accounts[d, A_BALANCE] - accounts[d, A_HELD] < amount:
        return c.EXCEEDS_BALANCE
    return 0


@numba.njit(cache=True, inline="always")
def _too_much(accounts: I8, d: Any, cr: Any, amount: Any) -> Any:
    full = cr >= 0 and accounts[cr, A_BALANCE] + amount > c.MAX_BALANCE
    return full or (d >= 0 and accounts[d, A_BALANCE] - amount < -c.MAX_BALANCE)


@numba.njit(cache=True)
def _known_code(row: Any, op: Any, known: Any, keys: I8, k_slots: I8, accounts: I8) -> int:
    """Whether a row with a known key is the same row."""
    k_op = keys[known, K_META] & 0xFF
    if k_op != op:
        return c.EXISTS_OPERATION
    if op == c.OP_POST or op == c.OP_VOID or op == c.OP_REFUND:
        if keys[known, K_REF_HIGH] != row[REF_HIGH] or keys[known, K_REF_LOW] != row[REF_LOW]:
            return c.EXISTS_REFERENCE
        amount = row[AMOUNT]
        if op == c.OP_POST and amount == 0:
            hold = _key_row(k_slots, _find_key(k_slots, keys, row[REF_HIGH], row[REF_LOW]))
            amount = keys[hold, K_AMOUNT] if hold >= 0 else keys[known, K_AMOUNT]
        return c.EXISTS_AMOUNT if op != c.OP_VOID and keys[known, K_AMOUNT] != amount else 0
    debit = accounts[keys[known, K_SIDES] & _SUB, A_CODE]
    credit = accounts[keys[known, K_SIDES] >> 32, A_CODE]
    main = row[CREDIT] if _main_is_credit(row[DEBIT], row[CREDIT]) else row[DEBIT]
    k_main = credit if _main_is_credit(debit, credit) else debit
    if main != k_main:
        return c.EXISTS_SUBJECT
    if debit != row[DEBIT] or credit != row[CREDIT]:
        return c.EXISTS_ACCOUNT
    if op != c.OP_HOLD and (keys[known, K_REF_HIGH] != row[REF_HIGH] or keys[known, K_REF_LOW] != row[REF_LOW]):
        return c.EXISTS_ACCOUNT if op == c.OP_SEND else c.EXISTS_REFERENCE
    if keys[known, K_AMOUNT] != row[AMOUNT]:
        return c.EXISTS_AMOUNT
    if op == c.OP_HOLD and keys[known, K_REF_HIGH] != row[EXPIRES]:
        return c.EXISTS_EXPIRY
    if op == c.OP_RECEIVE:
        return c.EXISTS
    return c.CAME_BACK if op == c.OP_SEND and (keys[known, K_META] >> 8) & 7 == S_VOID else 0


@numba.njit(cache=True, inline="always")
def _enter(
    row: Any, slot: Any, op: Any, d: Any, cr: Any, amount: Any, rest: Any, status: int, told: Any, meta: Any, high: Any, low: Any,
    keys: I8, k_slots: I8, counts: I8, log: I8,
) -> None:  # fmt: skip
    k = counts[N_KEYS] & (len(keys) - 1)
    keys[k, K_HIGH] = row[HIGH]
    keys[k, K_LOW] = row[LOW]
    keys[k, K_SIDES] = d | (cr << 32)
    keys[k, K_META] = meta | op | (status << 8)
    keys[k, K_AMOUNT] = amount
    keys[k, K_REST] = rest
    keys[k, K_TOLD] = told
    keys[k, K_REF_HIGH] = high
    keys[k, K_REF_LOW] = low
    entry = (_tag(row[HIGH], row[LOW]) << 32) | (k + 1)
    k_slots[slot] = entry
    counts[N_KEYS] += 1
    at = counts[N_LOG]
    log[at, 0] = L_NEW_KEY
    log[at, 1] = k
    log[at, 2] = slot
    log[at, 3] = 1 if status == S_OPEN else 0
    log[at, 4] = entry
    counts[N_LOG] = at + 1
    if status == S_OPEN:
        counts[N_HOLDS] += 1


@numba.njit(cache=True, inline="always")
def _available(accounts: I8, row: Any) -> Any:
    return accounts[row, A_BALANCE] - accounts[row, A_HELD]


@numba.njit(cache=True)
def _move(
    row: Any, slot: Any, op: Any, day: Any, meta: Any, max_holds: int,
    accounts: I8, a_slots: I4, keys: I8, k_slots: I8, counts: I8, log: I8,
) -> Any:  # fmt: skip
    """A move, hold, send or receive whose key is new: (code, balance to tell)."""
    debit, credit, amount = row[DEBIT], row[CREDIT], row[AMOUNT]
    d = np.int64(a_slots[_find_account(a_slots, accounts, debit)])
    cr = np.int64(a_slots[_find_account(a_slots, accounts, credit)])
    code = 0
    if d < 0 and debit >> 60 == c.WALLET:
        code = c.WALLET_NOT_FOUND
    elif (d >= 0 and accounts[d, A_FLAGS] & FROZEN) or (cr >= 0 and accounts[cr, A_FLAGS] & FROZEN):
        code = c.ACCOUNT_FROZEN
    else:
        code = _limits_code(accounts, d, debit, amount, day, True)
        if code == 0 and _too_much(accounts, d, cr, amount):
            code = c.EXCEEDS_MAXIMUM
        if code == 0 and op == c.OP_HOLD and counts[N_HOLDS] >= max_holds:
            code = c.TOO_MANY_HOLDS
    if code != 0:
        main = cr if _main_is_credit(debit, credit) else d
        return code, (_available(accounts, main) if main >= 0 else 0)
    if d < 0:
        d = _place(log, counts, accounts, a_slots, debit)
    if cr < 0:
        cr = _place(log, counts, accounts, a_slots, credit)
    _keep_account(log, counts, accounts, d)
    if debit >> 60 <= c.TILL:
        _spend(accounts, d, day, amount)
    if op == c.OP_HOLD:
        accounts[d, A_HELD] += amount
    else:
        _keep_account(log, counts, accounts, cr)
        accounts[d, A_BALANCE] -= amount
        accounts[cr, A_BALANCE] += amount
    told = _available(accounts, cr if _main_is_credit(debit, credit) else d)
    high = row[EXPIRES] if op == c.OP_HOLD else row[REF_HIGH]
    status = S_OPEN if op == c.OP_HOLD else 0
    _enter(row, slot, op, d, cr, amount, amount, status, told, meta, high, row[REF_LOW], keys, k_slots, counts, log)
    return 0, told


@numba.njit(cache=True)
def _refer(
    row: Any, slot: Any, op: Any, day: Any, meta: Any, currency: Any, venue: Any,
    accounts: I8, a_slots: I4, keys: I8, k_slots: I8, counts: I8, log: I8,
) -> Any:  # fmt: skip
    """A post, void, refund or expiry whose key is new: (code, balance to tell). Its accounts and, where 0, its amount are written into `row`."""
    r = _key_row(k_slots, _find_key(k_slots, keys, row[REF_HIGH], row[REF_LOW]))
    was = keys[r, K_META] & 0xFF if r >= 0 else -1
    if op == c.OP_REFUND:
        if r < 0:
            return c.ORIGINAL_NOT_FOUND, 0
        if was != c.OP_MOVE and was != c.OP_POST:
            return c.ORIGINAL_NOT_REFUNDABLE, 0
    elif was != c.OP_HOLD:
        return c.HOLD_NOT_FOUND, 0
    d, cr = keys[r, K_SIDES] & _SUB, keys[r, K_SIDES] >> 32
    if op == c.OP_REFUND:
        d, cr = cr, d
    debit, credit = accounts[d, A_CODE], accounts[cr, A_CODE]
    main = cr if _main_is_credit(debit, credit) else d
    told = _available(accounts, main)
    if op != c.OP_EXPIRE:
        for code in (debit, credit):
            if (code & _CURRENCY_BITS) >> 48 != currency or (code >> 60 == c.TILL and (code & _VENUE_BITS) >> 32 != venue):
                return c.REFERENCE_DIFFERS, 0
    amount = row[AMOUNT]
    if op != c.OP_REFUND:
        status = (keys[r, K_META] >> 8) & 7
        if status == S_POSTED:
            return c.HOLD_IS_POSTED, told
        if status == S_VOID:
            return c.HOLD_IS_VOID, told
        if status == S_EXPIRED:
            return c.HOLD_IS_EXPIRED, told
        if op == c.OP_POST and amount == 0:
            amount = keys[r, K_AMOUNT]
    if op == c.OP_POST or op == c.OP_REFUND:
        if accounts[d, A_FLAGS] & FROZEN or accounts[cr, A_FLAGS] & FROZEN:
            return c.ACCOUNT_FROZEN, told
        if amount > keys[r, K_REST]:
            return (c.EXCEEDS_HOLD if op == c.OP_POST else c.EXCEEDS_ORIGINAL), told
        if op == c.OP_REFUND and debit >> 60 <= c.TILL and _available(accounts, d) < amount:
            return c.EXCEEDS_BALANCE, told
        if _too_much(accounts, d, cr, amount):
            return c.EXCEEDS_MAXIMUM, told
    _keep_key(log, counts, keys, r)
    _keep_account(log, counts, accounts, d)
    if op == c.OP_REFUND:
        keys[r, K_REST] -= amount
    else:
        held = keys[r, K_REST]
        moved = amount if op == c.OP_POST else np.int64(0)
        accounts[d, A_HELD] -= held
        if debit >> 60 <= c.TILL and accounts[d, A_DAY] == day and keys[r, K_META] >> 32 == day:
            accounts[d, A_SPENT] -= held - moved
        status = S_POSTED if op == c.OP_POST else S_VOID if op == c.OP_VOID else S_EXPIRED
        keys[r, K_META] = (keys[r, K_META] & ~np.int64(0x700)) | (status << 8)
        keys[r, K_REST] = 0
        counts[N_HOLDS] -= 1
        amount = moved
    if amount > 0:
        _keep_account(log, counts, accounts, cr)
        accounts[d, A_BALANCE] -= amount
        accounts[cr, A_BALANCE] += amount
    row[DEBIT], row[CREDIT], row[AMOUNT] = debit, credit, amount
    told = _available(accounts, main)
    if op != c.OP_EXPIRE:
        rest = np.int64(0) if op == c.OP_REFUND else amount
        _enter(row, slot, op, d, cr, amount, rest, 0, told, meta, row[REF_HIGH], row[REF_LOW], keys, k_slots, counts, log)
    return 0, told


@numba.njit(cache=True)
def _balance_now(row: Any, accounts: I8, a_slots: I4) -> int:
    code = row[CREDIT] if _main_is_credit(row[DEBIT], row[CREDIT]) else row[DEBIT]
    at = np.int64(a_slots[_find_account(a_slots, accounts, code)])
    return _available(accounts, at) if at >= 0 else 0


@numba.njit(cache=True)
def settle(
    rows: I8, result: U1, balance: I8, fresh: U1,
    accounts: I8, a_slots: I4, keys: I8, k_slots: I8, counts: I8, log: I8,
    currency: Any, venue: Any, clock: Any, day: Any, ordered_ms: int, forgotten_ms: int, max_holds: int,
) -> Any:  # fmt: skip
    """Settle or refuse n rows in order. `result` comes with what the columns alone refuse, and leaves with the codes; `balance`: told with each row.

    fresh: 1 where the row took effect; a key that is known with the same parameters answers as the first time and is not fresh. The order of the checks is
    the order of the codes. `take_back` down to 0 leaves everything but result, balance, fresh and rows as before. Returns a number without meaning.
    """
    n = len(rows)
    touched: Any = np.int64(0)
    ordered = ordered_ms > 0
    meta = (np.int64(ORDERED) if ordered else np.int64(0)) | (np.int64(clock) << 16) | (np.int64(day) << 32)
    counts[N_LOG] = 0
    start: Any = np.int64(-1)
    mark: Any = np.int64(0)
    chain_known = np.int64(0)
    broken = False
    for i in range(n):
        if i % AHEAD == 0:
            for j in range(i, min(i + AHEAD, n)):
                touched ^= k_slots[_tag(rows[j, HIGH], rows[j, LOW]) & (len(k_slots) - 1)]
        row = rows[i]
        linked = row[OP] & c.LINKED != 0
        op = row[OP] & ~np.int64(c.LINKED)
        code: Any = np.int64(result[i])
        told: Any = np.int64(0)
        effect = False
        first = start < 0
        if first and linked:
            start, mark, broken = i, counts[N_LOG], False
        if start >= 0 and broken:
            code = c.LINKED_ROW_FAILED
        elif linked and i == n - 1:
            code = c.LINKED_CHAIN_OPEN
        elif code == 0 and op == c.OP_EXPIRE:
            code, told = _refer(row, 0, op, day, meta, currency, venue, accounts, a_slots, keys, k_slots, counts, log)
            effect = code == 0
        elif code == 0:
            slot = _find_key(k_slots, keys, row[HIGH], row[LOW])
            known = _key_row(k_slots, slot)
            is_known = np.int64(1 if known >= 0 else 0)
            if ordered and ((row[HIGH] >> 52) & 0xF != 7 or (row[LOW] >> 6) & 3 != 2):
                code = c.ID_NOT_TIME_ORDERED
            elif ordered and id_time_ms(row[HIGH]) > ordered_ms + c.MAX_AHEAD_MS:
                code = c.ID_TOO_NEW
            elif known >= 0:
                code = _known_code(row, op, known, keys, k_slots, accounts)
                told = keys[known, K_TOLD]
            if code == 0 and start >= 0 and i > start and is_known != chain_known:
                code = c.LINKED_CHAIN_PARTLY_KNOWN
            chain_known = is_known
            if code == 0 and known < 0:
                if ordered and id_time_ms(row[HIGH]) <= forgotten_ms:
                    code = c.ID_TOO_OLD
                elif op == c.OP_POST or op == c.OP_VOID or op == c.OP_REFUND:
                    code, told = _refer(row, slot, op, day, meta, currency, venue, accounts, a_slots, keys, k_slots, counts, log)
                else:
                    code, told = _move(row, slot, op, day, meta, max_holds, accounts, a_slots, keys, k_slots, counts, log)
                effect = code == 0
        if code != 0:
            if told == 0 and row[DEBIT] > 0 and row[CREDIT] > 0:
                told = _balance_now(row, accounts, a_slots)
            if start >= 0 and not broken:
                broken = True
                take_back(log, mark, counts, accounts, a_slots, keys, k_slots)
                for j in range(start, i):
                    result[j] = c.LINKED_ROW_FAILED
                    fresh[j] = 0
                    balance[j] = _balance_now(rows[j], accounts, a_slots) if rows[j, DEBIT] > 0 else 0
        result[i] = code
        balance[i] = told
        fresh[i] = 1 if effect else 0
        if not linked:
            start = np.int64(-1)
            broken = False
    return touched


@numba.njit(cache=True)
def settle_simple(
    rows: I8, result: U1, balance: I8, fresh: U1, expiring: int,
    key: I8, subject: U4, unit: U2, amount: U4, has_till: Any, paying: bool, ledger: int, ledgers: int,
    accounts: I8, a_slots: I4, keys: I8, k_slots: I8, counts: I8, log: I8,
    currency: Any, venue: Any, day: Any, ordered_ms: int, forgotten_ms: int, max_holds: int,
) -> Any:  # fmt: skip
    """`read_simple` into the rows after the first `expiring`, `settle` of all and `take_back`, in one call: of a batch of few rows, the calls are what costs.

    Returns how many entries do it again, how many of the rows that were read took effect, and how many were refused.
    """
    read_simple(rows[expiring:], result[expiring:], key, subject, unit, amount, has_till, paying, True, ledger, ledgers, currency, venue)
    settle(rows, result, balance, fresh, accounts, a_slots, keys, k_slots, counts, log, currency, venue, 0, day, ordered_ms, forgotten_ms, max_holds)
    entries = counts[N_LOG]
    take_back(log, 0, counts, accounts, a_slots, keys, k_slots)
    moved = 0
    refused = 0
    for i in range(expiring, len(rows)):
        moved += 1 if fresh[i] else 0
        refused += 1 if result[i] else 0
    return entries, moved, refused


@numba.njit(cache=True, inline="always")
def id_time_ms(high: Any) -> Any:
    """Milliseconds in a UUIDv7 (RFC 9562, 5.7): its first 48 bits, big-endian; `high`: its first eight bytes read little-endian."""
    h = np.uint64(high)
    ms = np.uint64(0)
    for _ in range(6):
        ms = (ms << np.uint64(8)) | (h & np.uint64(0xFF))
        h = h >> np.uint64(8)
    return np.int64(ms)


@numba.njit(cache=True)
def forget(keys: I8, slots: I8, counts: I8, most: int) -> Any:
    """Forget the oldest keys until `most` are left; open holds are taken along instead. Returns the latest time of a forgotten time-ordered key, or -1, and nothing."""
    mask, ring = len(slots) - 1, len(keys) - 1
    latest: Any = np.int64(-1)
    touched: Any = np.int64(0)
    done = np.int64(0)
    while counts[N_KEYS] - counts[N_FIRST] > most:
        if done % AHEAD == 0:
            for n in range(counts[N_FIRST], min(counts[N_FIRST] + AHEAD, counts[N_KEYS])):
                touched ^= slots[_tag(keys[n & ring, K_HIGH], keys[n & ring, K_LOW]) & mask]
        done += 1
        row = counts[N_FIRST] & ring
        at = _find_key(slots, keys, keys[row, K_HIGH], keys[row, K_LOW])
        counts[N_FIRST] += 1
        if (keys[row, K_META] >> 8) & 7 == S_OPEN:
            head = counts[N_KEYS] & ring
            keys[head, :] = keys[row, :]
            slots[at] = (slots[at] & ~_SUB) | (head + 1)
            counts[N_KEYS] += 1
            continue
        if keys[row, K_META] & ORDERED:
            latest = max(latest, id_time_ms(keys[row, K_HIGH]))
        # Close the gap: move back what was pushed past it (Knuth, 6.4, algorithm R).
        gap, seen = at, at
        while True:
            seen = (seen + 1) & mask
            if slots[seen] == 0:
                break
            home = (slots[seen] >> 32) & mask
            if (seen - home) & mask >= (seen - gap) & mask:
                slots[gap] = slots[seen]
                gap = seen
        slots[gap] = 0
    return latest, touched
