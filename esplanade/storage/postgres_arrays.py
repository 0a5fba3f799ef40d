"""Arrays as PostgreSQL's binary format has them, built in one pass: psycopg's own dumper takes microseconds an element, which the index of a segment cannot afford.

Format: dimensions, has-nulls flag, element's type, length, lower bound, then each element as its length and its bytes; all big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEADING: Final = struct.Struct("!iiIii")
_EMPTY: Final = struct.Struct("!iiI").pack
_BIGINT: Final = 20
_ELEMENT: Final = np.dtype([("length", ">i4"), ("value", ">i8")])


class _BigintArray(bytes):
    """Binary bigint[]."""


def bigint_array(values: Sequence[int]) -> _BigintArray:
    """One-dimensional, without nulls. Raises OverflowError beyond 64 bits."""
    if not values:
        return _BigintArray(_EMPTY(0, 0, _BIGINT))
    elements = np.empty(len(values), _ELEMENT)
    elements["length"] = 8
    elements["value"] = values
    return _BigintArray(_HEADING.pack(1, 0, _BIGINT, len(values), 1) + elements.tobytes())


class _BigintArrayDumper(Dumper):
    format = Format.BINARY
    oid = 1016

    def dump(self, obj: _BigintArray) -> bytes:
        return bytes(obj)


psycopg.adapters.register_dumper(_BigintArray, _BigintArrayDumper)
