"""The two tables of a ledger, as arrays that grow: accounts by code, settled rows by key. Owns room, forgetting and their bytes; never what a row means."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from actors import ledger_kernels as kernels
from actors.squeezed_words import byte_of_all, rows_of, squeeze, widen

I8 = npt.NDArray[np.int64]

MAX_KEYS: Final = 950_000
"""Settled rows remembered by one ledger; beyond, the oldest are forgotten, except open holds."""

ROWS_AHEAD: Final = 4
"""Room for keys that is made when there is too little, in the number that is needed."""


def _grown(table: I8, rows: int) -> I8:
    bigger = np.empty((_power(rows), table.shape[1]), np.int64)
    bigger[: len(table)] = table
    return bigger


def _power(rows: int) -> int:
    return 1 << max(rows - 1, 1).bit_length()


class Tables:
    """`accounts` (a, ACCOUNT_WORDS), of which the first `account_count` are in use; `keys` (k, KEY_WORDS), a ring; `log`: of the last batch.

    forgotten_ms: no time-ordered key up to this time is taken any more, since one of that time has been forgotten.
    """

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self.accounts: I8 = np.empty((64, kernels.ACCOUNT_WORDS), np.int64)
        self.account_slots = np.full(256, -1, np.int32)
        self._keys: I8 = np.empty((64, kernels.KEY_WORDS), np.int64)
        self._key_slots: I8 = np.zeros(256, np.int64)
        self._kept_keys: bytes | None = None  # as `load` got them, until one is asked for: reading balances needs none
        self.counts: I8 = np.zeros(5, np.int64)
        self.log: I8 = np.empty((64, kernels.LOG_WORDS), np.int64)
        self.forgotten_ms = -1
        self._max_keys = max_keys

    @property
    def keys(self) -> I8:
        self._unpack()
        return self._keys

    @property
    def key_slots(self) -> I8:
        self._unpack()
        return self._key_slots

    def _unpack(self) -> None:
        if self._kept_keys is not None:
            kept, self._kept_keys = self._kept_keys, None
            self._keys = np.empty((max(_power(rows_of(kept)), len(self._keys)), kernels.KEY_WORDS), np.int64)
            widen(kept, self._keys)
            self._rehash_keys(rows_of(kept))

    @property
    def account_count(self) -> int:
        return int(self.counts[kernels.N_ACCOUNTS])

    @property
    def key_count(self) -> int:
        """Keys remembered."""
        return int(self.counts[kernels.N_KEYS] - self.counts[kernels.N_FIRST])

    @property
    def open_holds(self) -> int:
        return int(self.counts[kernels.N_HOLDS])

    def room(self, rows: int) -> None:
        """For a batch of `rows`."""
        accounts, keys = self.account_count + 2 * rows, self.key_count + rows
        if accounts > len(self.accounts):
            self.accounts = _grown(self.accounts, accounts)
        if accounts * 2 > len(self.account_slots):
            self.account_slots = np.full(1 << (accounts * 4 - 1).bit_length(), -1, np.int32)
            kernels.rehash_accounts(self.account_slots, self.accounts, self.account_count)
        if keys > len(self.keys) or keys * 2 > len(self.key_slots):
            self._grow_keys(keys)
        if rows * kernels.LOG_A_ROW > len(self.log):
            self.log = np.empty((1 << (rows * kernels.LOG_A_ROW - 1).bit_length(), kernels.LOG_WORDS), np.int64)

    def _key_parts(self) -> list[I8]:
        """The keys remembered, oldest first, in one or two parts of the ring."""
        first, last = int(self.counts[kernels.N_FIRST]), int(self.counts[kernels.N_KEYS])
        size = len(self.keys)
        start, end = first % size, last % size
        if start + (last - first) <= size:
            return [self.keys[start : start + last - first]]
        return [self.keys[start:], self.keys[:end]]

    def _grow_keys(self, keys: int) -> None:
        """Room for so many. Rows come in numbers: those that nobody has touched take no memory. Slots, touched all over, are as few as may be."""
        ring, first, count = len(self._keys), 0, self.key_count
        if keys > ring:
            parts, first = self._key_parts(), int(self.counts[kernels.N_FIRST])
            self._keys = np.empty((max(_power(keys), min(ROWS_AHEAD * _power(keys), _power(self._max_keys))), kernels.KEY_WORDS), np.int64)
            np.concatenate(parts, out=self._keys[:count])
            self.counts[kernels.N_FIRST], self.counts[kernels.N_KEYS] = 0, count
        slots = np.zeros(2 * _power(keys), np.int64)
        kernels.move_slots(self._key_slots, slots, first, ring)
        self._key_slots = slots

    def _rehash_keys(self, count: int) -> None:
        """The first rows of `keys` are what is remembered."""
        self._key_slots = np.zeros(2 * len(self._keys), np.int64)
        self.counts[kernels.N_FIRST], self.counts[kernels.N_KEYS] = 0, count
        kernels.rehash_keys(self._key_slots, self._keys, self.counts)

    def forget_old(self) -> None:
        """The oldest keys above the limit. The cost follows the batch: as many are forgotten as came."""
        if self.key_count > self._max_keys:
            self.room(0)
            latest_ms, _ = kernels.forget(self.keys, self.key_slots, self.counts, self._max_keys)
            self.forgotten_ms = max(self.forgotten_ms, int(latest_ms))

    def place(self, code: int) -> int:
        """Row of an account, made where there is none; not to be taken back."""
        self.room(1)
        return int(kernels.place_account(self.accounts, self.account_slots, self.counts, code))

    def find(self, code: int) -> int:
        """Row of an account, or -1."""
        return int(kernels.account_of(self.account_slots, self.accounts, code))

    def find_key(self, high: int, low: int) -> int:
        """Row of a key (two words, as stored), or -1."""
        return int(kernels.key_of(self.key_slots, self.keys, high, low))

    def held_rows(self) -> I8:
        """Words of the open holds, (h, KEY_WORDS), oldest first."""
        held: I8 = np.concatenate([part[(part[:, kernels.K_META] >> 8) & 7 == kernels.S_OPEN] for part in self._key_parts()])
        return held

    def save(self) -> tuple[bytes, bytes, int]:
        """Accounts, keys (`squeezed_words`), and forgotten_ms."""
        keys = squeeze(self._key_parts()) if self._kept_keys is None else self._kept_keys
        return squeeze([self.accounts[: self.account_count]]), keys, self.forgotten_ms

    def load(self, accounts: bytes, keys: bytes, forgotten_ms: int) -> None:
        """What `save` gave, into fresh tables."""
        self._make_accounts(rows_of(accounts))
        widen(accounts, self.accounts)
        kernels.rehash_accounts(self.account_slots, self.accounts, self.account_count)
        self.counts[kernels.N_FIRST], self.counts[kernels.N_KEYS] = 0, rows_of(keys)
        self._kept_keys, self.forgotten_ms = keys, forgotten_ms
        status = byte_of_all(keys, kernels.K_META, 1)
        self.counts[kernels.N_HOLDS] = len(self.held_rows()) if status is None or status & 7 == kernels.S_OPEN else 0

    def load_words(self, accounts: bytes, keys: bytes, forgotten_ms: int) -> None:
        """The same of all words as they are, as they were kept until format 2."""
        read_accounts = np.frombuffer(accounts, "<i8").reshape(-1, kernels.ACCOUNT_WORDS)
        read_keys = np.frombuffer(keys, "<i8").reshape(-1, kernels.KEY_WORDS)
        self.load(squeeze([read_accounts]), squeeze([read_keys]), forgotten_ms)

    def _make_accounts(self, count: int) -> None:
        self.accounts = np.empty((max(_power(count), 64), kernels.ACCOUNT_WORDS), np.int64)
        self.account_slots = np.empty(max(1 << (4 * count).bit_length(), 256), np.int32)
        self.counts[kernels.N_ACCOUNTS] = count
