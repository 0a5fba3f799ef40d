"""Compiled reading of many scene operations at once, into columns. It validates nothing beyond what it must to stay within its bytes: `ar.scene_ops` says what an operation is,
and reads everything that is not plain once more, slowly, to say what is wrong with it.

Letters: n operations.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit

I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]

COLUMNS: Final = 12
KIND, CLIENT, SEQ, STAMP, CONTEXT_AT, NODE_CLIENT, NODE_SEQ, PARENT_CLIENT, PARENT_SEQ, KEY, AT, SIZE = range(COLUMNS)
"""Rows of the table: `CLIENT`, `NODE_CLIENT`, `PARENT_CLIENT`, `KEY` are numbers in the head's tables; `CONTEXT_AT` is the byte where a grown context stands, else 0;
`AT`, `SIZE` are where the value or the order key stands; `SIZE` -1: `AT` is the value itself."""
PLAIN: Final = 1 << 62


@njit(cache=True)
def _number(data: U1, at: int) -> tuple[int, int]:
    """A number and the byte after it; -1 for the byte where the bytes end or the number is beyond 63 bits."""
    value, shift = 0, 0
    while at < len(data) and shift <= 56:
        byte = int(data[at])
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    return 0, -1


@njit(cache=True)
def _is_one_value(data: U1, at: int, size: int) -> bool:
    """Whether the bytes are one MessagePack value that is no list, map or extension, by its first byte and length."""
    if size < 1:
        return False
    first, whole = int(data[at]), 0
    if first < 0x80 or first >= 0xE0 or first in (0xC0, 0xC2, 0xC3):
        whole = 1
    elif 0xA0 <= first < 0xC0:
        whole = 1 + (first & 31)
    elif first in (0xC4, 0xD9) and size >= 2:
        whole = 2 + int(data[at + 1])
    elif first in (0xC5, 0xDA) and size >= 3:
        whole = 3 + (int(data[at + 1]) << 8 | int(data[at + 2]))
    elif first in (0xCC, 0xD0):
        whole = 2
    elif first in (0xCD, 0xD1):
        whole = 3
    elif first in (0xCA, 0xCE, 0xD2):
        whole = 5
    elif first in (0xCB, 0xCF, 0xD3):
        whole = 9
    return whole == size


@njit(cache=True)
def read_columns(data: U1, at: int, names: int, keys: int, most_value: int, most_order: int, out: I8, gathered: U1) -> tuple[int, int]:
    """Fill `out` (COLUMNS, n) with the n operations from byte `at` to the end, and `gathered` with the bytes of their values but the one-byte ones.

    Returns (bytes gathered, values that are not simple); (-1, 0) for anything that is not plain: cut off, beyond a table or limit, of no client, of the kind COLLECT,
    a move of the root, a name of no bytes. `names` and `keys` are the sizes of the head's tables, of which the first name must be the empty one.
    """
    n = out.shape[1]
    size_all = len(data)
    client, seq, stamp, node_client, node_seq, parent_client, parent_seq = 0, 0, 0, 0, 0, 0, 0
    filled, odd = 0, 0
    for i in range(n):
        if at >= size_all:
            return -1, 0
        flags = int(data[at])
        kind = flags & 3
        at += 1
        if flags & 16:
            seq += 1
        else:
            client, at = _number(data, at)
            if at < 0:
                return -1, 0
            seq, at = _number(data, at)
            if at < 0:
                return -1, 0
        out[CONTEXT_AT, i] = 0
        if not flags & 32:
            out[CONTEXT_AT, i] = at
            number, at = _number(data, at)
            if at < 0 or number > names:
                return -1, 0
            for _ in range(2 * number):
                _, at = _number(data, at)
                if at < 0:
                    return -1, 0
        if flags & 8:
            stamp += 1
        else:
            step, at = _number(data, at)
            if at < 0:
                return -1, 0
            stamp += -(step >> 1) if step & 1 else step >> 1
        if client < 1 or client >= names or seq < 1 or not 0 < stamp < PLAIN or kind == 3:
            return -1, 0
        if kind == 0:
            node_client, node_seq = client, seq
        elif not flags & 4:
            node_client, at = _number(data, at)
            if at < 0:
                return -1, 0
            node_seq, at = _number(data, at)
            if at < 0 or node_client >= names:
                return -1, 0
        size = 0
        if kind == 2:
            key, at = _number(data, at)
            if at < 0 or key >= keys:
                return -1, 0
            out[KEY, i] = key
            parent_client, parent_seq = 0, 0
            if flags & 128:
                if at >= size_all:
                    return -1, 0
                out[AT, i] = int(data[at])
                out[SIZE, i] = -1
                at += 1
            else:
                size, at = _number(data, at)
                if at < 0 or size > most_value or at + size > size_all:
                    return -1, 0
                if not _is_one_value(data, at, size):
                    odd += 1
                gathered[filled : filled + size] = data[at : at + size]
                filled += size
                out[AT, i] = at
                out[SIZE, i] = size
                at += size
        else:
            if not flags & 64:
                parent_client, at = _number(data, at)
                if at < 0:
                    return -1, 0
                parent_seq, at = _number(data, at)
                if at < 0 or parent_client >= names:
                    return -1, 0
            size, at = _number(data, at)
            if at < 0 or size > most_order or at + size > size_all:
                return -1, 0
            if (node_client == 0 and node_seq <= 1) or (node_client == parent_client and node_seq == parent_seq):
                return -1, 0
            out[KEY, i] = 0
            out[AT, i] = at
            out[SIZE, i] = size
            at += size
        out[KIND, i] = kind
        out[CLIENT, i] = client
        out[SEQ, i] = seq
        out[STAMP, i] = stamp
        out[NODE_CLIENT, i] = node_client
        out[NODE_SEQ, i] = node_seq
        out[PARENT_CLIENT, i] = parent_client
        out[PARENT_SEQ, i] = parent_seq
    return (filled, odd) if at == size_all else (-1, 0)
