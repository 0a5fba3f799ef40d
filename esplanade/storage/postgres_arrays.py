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
_INTEGER: Final = 23
_BIGINT_ELEMENT: Final = np.dtype([("length", ">i4"), ("value", ">i8")])
_INTEGER_ELEMENT: Final = np.dtype([("length", ">i4"), ("value", ">i4")])


class _BigintArray(bytes):
    """Binary bigint[]."""


class _IntegerArray(bytes):
    """Binary integer[]."""


def bigint_array(values: Sequence[int]) -> _BigintArray:
    """One-dimensional, without nulls. Raises OverflowError beyond 64 bits."""
    return _BigintArray(_numbers(values, _BIGINT, _BIGINT_ELEMENT))


def integer_array(values: Sequence[int]) -> _IntegerArray:
    """One-dimensional, without nulls. Raises OverflowError beyond 32 bits."""
    return _IntegerArray(_numbers(values, _INTEGER, _INTEGER_ELEMENT))


def _numbers(values: Sequence[int], oid: int, element: np.dtype[np.void]) -> bytes:
    if not values:
        return _EMPTY(0, 0, oid)
    elements = np.empty(len(values), element)
    elements["length"] = element["value"].itemsize
    elements["value"] = values
    return _HEADING.pack(1, 0, oid, len(values), 1) + elements.tobytes()


class _BigintArrayDumper(Dumper):
    format = Format.BINARY
    oid = 1016

    def dump(self, obj: _BigintArray) -> bytes:
        return bytes(obj)


class _IntegerArrayDumper(Dumper):
    format = Format.BINARY
    oid = 1007

    def dump(self, obj: _IntegerArray) -> bytes:
        return bytes(obj)


psycopg.adapters.register_dumper(_IntegerArray, _IntegerArrayDumper)
psycopg.adapters.register_dumper(_BigintArray, _BigintArrayDumper)
