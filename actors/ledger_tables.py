"""The two tables of a ledger, as arrays that grow: accounts by code, settled rows by key. Owns room, forgetting and their bytes; never what a row means."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from actors import ledger_kernels as kernels

I8 = npt.NDArray[np.int64]

MAX_KEYS: Final = 1_000_000
"""Settled rows remembered by one ledger; beyond, the older half is forgotten. Open holds are always kept."""


def _grown(table: I8, rows: int) -> I8:
    bigger = np.empty((1 << (rows - 1).bit_length(), table.shape[1]), np.int64)
    bigger[: len(table)] = table
    return bigger


class Tables:
    """`accounts` (a, ACCOUNT_WORDS) and `keys` (k, KEY_WORDS), of which the first counts[...] rows are in use; `log`: of the last batch."""

    def __init__(self) -> None:
        self.accounts: I8 = np.empty((64, kernels.ACCOUNT_WORDS), np.int64)
        self.account_slots = np.full(256, -1, np.int32)
        self.keys: I8 = np.empty((64, kernels.KEY_WORDS), np.int64)
        self.key_slots = np.full(256, -1, np.int32)
        self.counts: I8 = np.zeros(4, np.int64)
        self.log: I8 = np.empty((64, kernels.LOG_WORDS), np.int64)
        self.forgotten_ms = -1

    @property
    def account_count(self) -> int:
        return int(self.counts[kernels.N_ACCOUNTS])

    @property
    def key_count(self) -> int:
        return int(self.counts[kernels.N_KEYS])

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
        if keys > len(self.keys):
            self.keys = _grown(self.keys, keys)
        if keys * 2 > len(self.key_slots):
            self.key_slots = np.full(1 << (keys * 2 - 1).bit_length(), -1, np.int32)
            kernels.rehash_keys(self.key_slots, self.keys, self.key_count)
        if rows * kernels.LOG_A_ROW > len(self.log):
            self.log = np.empty((1 << (rows * kernels.LOG_A_ROW - 1).bit_length(), kernels.LOG_WORDS), np.int64)

    def forget_old(self, most: int = MAX_KEYS) -> None:
        """Above `most` rows: keep the later half of the time-ordered keys (by their time) and of the others (by arrival), and every open hold."""
        count = self.key_count
        if count <= most:
            return
        times = kernels.id_times_ms(self.keys, count)
        until_ms = int(np.partition(times, len(times) // 2)[len(times) // 2]) if len(times) else -1
        kept = int(kernels.forget(self.keys, count, (count - len(times)) // 2, until_ms))
        self.forgotten_ms = max(self.forgotten_ms, until_ms)
        self.counts[kernels.N_KEYS] = kept
        kernels.rehash_keys(self.key_slots, self.keys, kept)

    def place(self, code: int) -> int:
        """Row of an account, made where there is none; not to be taken back."""
        self.room(1)
        found = int(kernels.place_account(self.accounts, self.account_slots, self.counts, code))
        return found

    def find(self, code: int) -> int:
        """Row of an account, or -1."""
        return int(kernels.account_of(self.account_slots, self.accounts, code))

    def find_key(self, high: int, low: int) -> int:
        """Row of a key (two words, as stored), or -1."""
        return int(kernels.key_of(self.key_slots, self.keys, high, low))

    def held_rows(self) -> I8:
        """Rows of `keys` that are open holds."""
        meta = self.keys[: self.key_count, kernels.K_META]
        return np.flatnonzero((meta >> 8) & 7 == kernels.S_OPEN)

    def save(self) -> tuple[bytes, bytes, int]:
        return self.accounts[: self.account_count].tobytes(), self.keys[: self.key_count].tobytes(), self.forgotten_ms

    def load(self, accounts: bytes, keys: bytes, forgotten_ms: int) -> None:
        read_accounts = np.frombuffer(accounts, "<i8").reshape(-1, kernels.ACCOUNT_WORDS)
        read_keys = np.frombuffer(keys, "<i8").reshape(-1, kernels.KEY_WORDS)
        self.room(max(len(read_accounts), len(read_keys), 1))
        self.accounts[: len(read_accounts)] = read_accounts
        self.keys[: len(read_keys)] = read_keys
        self.counts[:] = (len(read_accounts), len(read_keys), 0, 0)
        self.forgotten_ms = forgotten_ms
        kernels.rehash_accounts(self.account_slots, self.accounts, len(read_accounts))
        kernels.rehash_keys(self.key_slots, self.keys, len(read_keys))
        self.counts[kernels.N_HOLDS] = len(self.held_rows())
