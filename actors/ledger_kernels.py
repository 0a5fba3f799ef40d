"""Compiled kernels of the ledger: two open-addressing tables (accounts by code, keys by 128 bits) and the settling of a batch.

Owns no state and no policy of growth: `actors.ledger` gives arrays with room for the batch, so no probe can run round a full table.
Letters: a accounts, k keys, n rows of a batch; tables have a power of two of slots, -1 is an empty one.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

U1 = npt.NDArray[np.uint8]
U4 = npt.NDArray[np.uint32]
U8 = npt.NDArray[np.uint64]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]

SETTLED: Final = 0
AMOUNT_ZERO: Final = 1
WRONG_LEDGER: Final = 2
UNIT_NOT_FOUND: Final = 3
UNIT_WITHOUT_TILL: Final = 4
OTHER_SUBJECT: Final = 5
OTHER_ACCOUNT: Final = 6
OTHER_AMOUNT: Final = 7
NO_WALLET: Final = 8
EXCEEDS_BALANCE: Final = 9


@numba.njit(cache=True)
def _mix(word: Any) -> Any:
    """Finaliser of SplitMix64 (Steele et al. 2014)."""
    x = np.uint64(word)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@numba.njit(cache=True)
def _find_account(slots: I4, code: U8, wanted: Any) -> Any:
    """Slot that holds the account, or the empty slot where it belongs."""
    mask = np.uint64(len(slots) - 1)
    at = _mix(wanted) & mask
    while slots[at] >= 0 and code[slots[at]] != wanted:
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@numba.njit(cache=True)
def _find_key(slots: I4, high: U8, low: U8, wanted_high: Any, wanted_low: Any) -> Any:
    mask = np.uint64(len(slots) - 1)
    at = _mix(np.uint64(wanted_high) ^ _mix(wanted_low)) & mask
    while slots[at] >= 0 and (high[slots[at]] != wanted_high or low[slots[at]] != wanted_low):
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@numba.njit(cache=True)
def rehash_accounts(slots: I4, code: U8, count: int) -> None:
    """Fill `slots` anew with accounts 0..count-1."""
    slots[:] = -1
    for i in range(count):
        slots[_find_account(slots, code, code[i])] = i


@numba.njit(cache=True)
def rehash_keys(slots: I4, high: U8, low: U8, count: int) -> None:
    slots[:] = -1
    for i in range(count):
        slots[_find_key(slots, high, low, high[i], low[i])] = i


@numba.njit(cache=True)
def account_of(slots: I4, code: U8, wanted: Any) -> Any:
    """Row of an account, or -1."""
    return slots[_find_account(slots, code, wanted)]


@numba.njit(cache=True)
def settle(
    high: U8, low: U8, subject: U4, wallet: U8, other: U8, amount: U4, refused: U1, paying: bool, keep: bool,
    a_slots: I4, a_code: U8, a_balance: I8, a_count: int,
    k_slots: I4, k_high: U8, k_low: U8, k_subject: U4, k_other: U8, k_amount: U4, k_balance: I8, k_count: int,
    result: U1, balance: I8, fresh: U1,
) -> tuple[int, int]:  # fmt: skip
    """Settle or refuse n rows in order; returns the counts of accounts and keys afterwards.

    wallet, other: (n,) account codes; paying: wallet to other, else other to wallet. refused: (n,) a code found by the caller, or 0.
    result: (n,) codes; balance: (n,) of the wallet after the row; fresh: (n,) 1 where money moved. With `keep` False, everything but these three is as before.
    The order of the checks is the order of the codes; a key that is known with the same parameters answers as the first time.
    """
    n = len(amount)
    first_account, first_key = a_count, k_count
    made_account = np.empty(2 * n, np.int64)
    made_key = np.empty(n, np.int64)
    moved_wallet = np.empty(n, np.int64)
    moved_other = np.empty(n, np.int64)
    for i in range(n):
        fresh[i] = 0
        wallet_slot = _find_account(a_slots, a_code, wallet[i])
        row: Any = a_slots[wallet_slot]
        balance[i] = a_balance[row] if row >= 0 else 0
        code: Any = np.int64(refused[i])
        if amount[i] == 0:
            code = AMOUNT_ZERO
        if code == SETTLED:
            key_slot = _find_key(k_slots, k_high, k_low, high[i], low[i])
            known = k_slots[key_slot]
            if known >= 0:
                if k_subject[known] != subject[i]:
                    code = OTHER_SUBJECT
                elif k_other[known] != other[i]:
                    code = OTHER_ACCOUNT
                elif k_amount[known] != amount[i]:
                    code = OTHER_AMOUNT
                else:
                    balance[i] = k_balance[known]
                result[i] = code
                continue
            if paying and row < 0:
                code = NO_WALLET
            elif paying and a_balance[row] < np.int64(amount[i]):
                code = EXCEEDS_BALANCE
        result[i] = code
        if code != SETTLED:
            continue
        if row < 0:
            row = a_count
            a_slots[wallet_slot] = row
            a_code[row] = wallet[i]
            a_balance[row] = 0
            made_account[a_count - first_account] = wallet_slot
            a_count += 1
        other_slot = _find_account(a_slots, a_code, other[i])
        other_row: Any = a_slots[other_slot]
        if other_row < 0:
            other_row = a_count
            a_slots[other_slot] = other_row
            a_code[other_row] = other[i]
            a_balance[other_row] = 0
            made_account[a_count - first_account] = other_slot
            a_count += 1
        moved = -np.int64(amount[i]) if paying else np.int64(amount[i])
        a_balance[row] += moved
        a_balance[other_row] -= moved
        balance[i] = a_balance[row]
        fresh[i] = 1
        k_slots[key_slot] = k_count
        k_high[k_count] = high[i]
        k_low[k_count] = low[i]
        k_subject[k_count] = subject[i]
        k_other[k_count] = other[i]
        k_amount[k_count] = amount[i]
        k_balance[k_count] = balance[i]
        made_key[k_count - first_key] = key_slot
        moved_wallet[k_count - first_key] = row
        moved_other[k_count - first_key] = other_row
        k_count += 1
    if not keep:
        for k in range(k_count - first_key - 1, -1, -1):
            moved = np.int64(k_amount[first_key + k]) if paying else -np.int64(k_amount[first_key + k])
            a_balance[moved_wallet[k]] += moved
            a_balance[moved_other[k]] -= moved
            k_slots[made_key[k]] = -1
        for a in range(a_count - first_account - 1, -1, -1):
            a_slots[made_account[a]] = -1
        return first_account, first_key
    return a_count, k_count
