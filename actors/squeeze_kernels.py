"""Compiled kernels of `actors.squeezed_words`. Dimensions: n rows of w words; b the bytes of a row that differ between rows, at `at` (b,) within it."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

U1 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int64]


@numba.njit(cache=True)
def differing(table: I8, base: I8, bits: I8) -> None:
    """Add to `bits` (w,) those in which a row of `table` (n, w) differs from `base` (w,)."""
    for i in range(len(table)):
        for j in range(len(base)):
            bits[j] |= table[i, j] ^ base[j]


@numba.njit(cache=True)
def squeeze(table: U1, at: I8, packed: U1) -> None:
    """The bytes `at` of each row of `table` (n, 8w), row by row, into `packed` (n b,)."""
    to = 0
    for i in range(len(table)):
        for j in range(len(at)):
            packed[to] = table[i, at[j]]
            to += 1


@numba.njit(cache=True)
def widen(packed: U1, at: I8, base: I8, words: I8, table: U1) -> None:
    """What `squeeze` was given, into `words` (n, w), whose bytes `table` (n, 8w) is."""
    read = 0
    for i in range(len(words)):
        for j in range(len(base)):
            words[i, j] = base[j]
        for j in range(len(at)):
            table[i, at[j]] = packed[read]
            read += 1
