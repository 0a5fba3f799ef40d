"""Tables of 64-bit words as bytes, without those bytes of a row that are the same in every row.

Most words are far smaller than their room: of a payment's 72 bytes in the table of a busy ledger some 25 differ, 16 of them its key. Exact, and the same bytes for the same table.
Owns this layout: rows and words a row (two u4), the first row, a byte for each byte of a row (1: differs), the differing bytes row by row. Little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from actors import squeeze_kernels as kernels
from esplanade.core.errors import Fault

I8 = npt.NDArray[np.int64]

_SIZE: Final = struct.Struct("<II")


def squeeze(tables: Sequence[I8]) -> bytes:
    """Tables (n, w) of one width, one below the other."""
    rows, words = sum(len(table) for table in tables), tables[0].shape[1]
    base = next((table[0].copy() for table in tables if len(table)), np.zeros(words, np.int64))
    bits = np.zeros(words, np.int64)
    for table in tables:
        kernels.differing(table, base, bits)
    which = bits.view(np.uint8) != 0
    at = np.flatnonzero(which)
    packed = np.empty(rows * len(at), np.uint8)
    done = 0
    for table in tables:
        kernels.squeeze(table.view(np.uint8), at, packed[done : done + len(table) * len(at)])
        done += len(table) * len(at)
    return b"".join((_SIZE.pack(rows, words), base.tobytes(), which.tobytes(), packed.data))


def rows_of(data: bytes) -> int:
    """How many rows `widen` gives."""
    rows: int = _SIZE.unpack_from(data)[0]
    return rows


def byte_of_all(data: bytes, word: int, byte: int) -> int | None:
    """A byte of a word, where it is the same in all rows (0 where there are none); None where it differs."""
    words = _SIZE.unpack_from(data)[1]
    at = _SIZE.size + 8 * word + byte
    return None if data[at + 8 * words] else data[at]


def widen(data: bytes, table: I8) -> None:
    """What `squeeze` was given, into the first rows of `table`. Raises Fault where the bytes are no such table, or one of another width."""
    rows, words = _SIZE.unpack_from(data)
    head = _SIZE.size + 16 * words
    base = np.frombuffer(data, "<i8", words, _SIZE.size)
    at = np.flatnonzero(np.frombuffer(data, np.uint8, 8 * words, head - 8 * words))
    if words != table.shape[1] or len(data) != head + rows * len(at):
        raise Fault(
            f"table of {rows} rows of {words} words in {len(data)} bytes: must be {head + rows * len(at)} bytes and {table.shape[1]} words a row; "
            "restore the snapshot from a backup"
        )
    kernels.widen(np.frombuffer(data, np.uint8, offset=head), at, base, table[:rows], table[:rows].view(np.uint8))
