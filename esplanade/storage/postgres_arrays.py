"""Arrays as PostgreSQL's binary format has them, built in one pass: psycopg's own dumper takes microseconds an element, which the index of a segment cannot afford, and as long for each array,
of which a flush has a dozen that are most often empty.

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
_LENGTH: Final = struct.Struct("!i").pack
_BIGINT: Final = 20
_INTEGER: Final = 23
_TEXT: Final = 25
_BYTEA: Final = 17
_BIGINT_ELEMENT: Final = np.dtype([("length", ">i4"), ("value", ">i8")])
_INTEGER_ELEMENT: Final = np.dtype([("length", ">i4"), ("value", ">i4")])


class _Binary:
    """An array in the binary format. No kind of `bytes`, which would be a copy more of the bodies of a flush."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _BigintArray(_Binary):
    """bigint[]."""


class _IntegerArray(_Binary):
    """integer[]."""


class _TextArray(_Binary):
    """text[]."""


class _ByteaArray(_Binary):
    """bytea[]."""


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


def text_array(values: Sequence[str]) -> _TextArray:
    """One-dimensional, without nulls."""
    return _TextArray(_strings([value.encode() for value in values], _TEXT))


def bytea_array(values: Sequence[bytes]) -> _ByteaArray:
    """One-dimensional, without nulls."""
    return _ByteaArray(_strings(values, _BYTEA))


def _strings(values: Sequence[bytes], oid: int) -> bytes:
    if not values:
        return _EMPTY(0, 0, oid)
    parts = [_HEADING.pack(1, 0, oid, len(values), 1)]
    for value in values:
        parts += (_LENGTH(len(value)), value)
    return b"".join(parts)


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Binary) -> bytes:
        return obj.data


class _BigintArrayDumper(_ArrayDumper):
    oid = 1016


class _IntegerArrayDumper(_ArrayDumper):
    oid = 1007


class _TextArrayDumper(_ArrayDumper):
    oid = 1009


class _ByteaArrayDumper(_ArrayDumper):
    oid = 1001


psycopg.adapters.register_dumper(_IntegerArray, _IntegerArrayDumper)
psycopg.adapters.register_dumper(_BigintArray, _BigintArrayDumper)
psycopg.adapters.register_dumper(_TextArray, _TextArrayDumper)
psycopg.adapters.register_dumper(_ByteaArray, _ByteaArrayDumper)
