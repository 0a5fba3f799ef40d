"""What many phones sensed, and what became of it, as columns: between gateways, shards and the live filter.

Owns the layout of a batch of observations and of its answers in memory and on the wire, and the 64 bit keys that stand for transmitters there. Light: no model, no filter.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput
from spatial.columns import LEFT, PositionColumns, radius_dm_of

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]
U1 = npt.NDArray[np.uint8]
U4 = npt.NDArray[np.uint32]
U8 = npt.NDArray[np.uint64]

MAX_ROWS: Final = 4_096
"""Observations of one batch."""
MAX_READINGS: Final = 256
"""Readings of one observation."""
MAX_FIXES: Final = 16
BLUETOOTH: Final = 1 << 63
_ACCESS_POINT: Final = re.compile("w:([0-9a-f]{2}:){4}[0-9a-f]")


class State(IntEnum):
    """What became of an observation. LOCATED: there is a dot. SETTLING: not sure enough to show one. SILENT: nothing of the map was ever heard, and no fix came. OUTSIDE: what the phone hears is not
    of this venue. LATE: older than one that was taken. REPEATED: taken before, the answer is the newest. FULL: no room for another subject."""

    LOCATED = 0
    SETTLING = 1
    SILENT = 2
    OUTSIDE = 3
    LATE = 4
    REPEATED = 5
    FULL = 6


FAST: Final = 1
"""Flag: faster than anybody walks since the last dot."""
LEVEL: Final = 2
"""Flag: another level, and no way between levels near."""
GONE: Final = 4
"""Flag: had a dot, and is OUTSIDE from now on."""


def transmitter_key(name: str) -> int:
    """64 bits that stand for a transmitter's name (`scans.transmitter_of`): of Wi-Fi the address itself, of all else a hash; top bit set for the latter."""
    if _ACCESS_POINT.fullmatch(name):
        return int(name[2:].replace(":", ""), 16)
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") | BLUETOOTH


def wifi_keys(bssid: U8) -> U8:
    """Keys of 48 bit Wi-Fi addresses: networks of one access point (first byte and last hexadecimal digit) are one transmitter."""
    keys: U8 = (bssid & np.uint64(0xFFFFFFFFFF)) >> np.uint64(4)
    return keys


@dataclass(frozen=True, slots=True)
class Observed:
    """n observations, as phones send them.

    subject: (n,) u4. at_s: (n,) f8, the phone's own clock. east_m, north_m: (n,) f4, path walked since the phone's last observation (magnetic); steady: (n,) u1, 0 where there is no heading.
    Readings of observation i are the rows first[i]:first[i + 1] of key (u8, `transmitter_key`) and rssi_dbm (f4). Fixes of observation i are the rows fix_first[i]:fix_first[i + 1] of fix
    (m, 5) f8: x, y (venue metres), range (0: a point, else the distance to it), sd (m), level index (-1: any).
    """

    subject: U4
    at_s: F8
    east_m: F4
    north_m: F4
    steady: U1
    first: I4
    key: U8
    rssi_dbm: F4
    fix_first: I4
    fix: F8

    def __len__(self) -> int:
        return len(self.subject)

    def pack(self) -> tuple[bytes, ...]:
        """Little-endian buffers in the order of the fields."""
        kinds = ("<u4", "<f8", "<f4", "<f4", "u1", "<i4", "<u8", "<f4", "<i4", "<f8")
        return tuple(np.ascontiguousarray(getattr(self, name), kind).tobytes() for name, kind in zip(self.__slots__, kinds, strict=True))

    @classmethod
    def unpack(cls, *columns: bytes) -> Self:
        """From the buffers of `pack`. Raises InvalidInput where lengths disagree, a number is not finite, or a limit is passed."""
        subject, at, east, north, steady, first, key, rssi, fix_first, fix = columns
        n = len(steady)
        widths = {"subject": (subject, 4), "at": (at, 8), "east": (east, 4), "north": (north, 4)}
        for name, (data, width) in widths.items():
            if len(data) != width * n:
                raise InvalidInput(f"observations: {name} has {len(data)} bytes for {n} rows; must be {width} a row")
        if n > MAX_ROWS:
            raise InvalidInput(f"observations: {n} rows; at most {MAX_ROWS} a batch, send several")
        if len(first) != 4 * (n + 1) or len(fix_first) != 4 * (n + 1) or len(key) % 8 or len(fix) % 40 or len(rssi) * 2 != len(key):
            raise InvalidInput(
                f"observations: {len(first)}, {len(key)}, {len(rssi)}, {len(fix_first)}, {len(fix)} bytes of readings and fixes for {n} rows; see Observed"
            )
        made = cls(
            np.frombuffer(subject, "<u4"), np.frombuffer(at, "<f8"), np.frombuffer(east, "<f4"), np.frombuffer(north, "<f4"), np.frombuffer(steady, np.uint8),
            np.frombuffer(first, "<i4"), np.frombuffer(key, "<u8"), np.frombuffer(rssi, "<f4"), np.frombuffer(fix_first, "<i4"), np.frombuffer(fix, "<f8").reshape(-1, 5),
        )  # fmt: skip
        for name, starts, rows, most in (("readings", made.first, len(made.key), MAX_READINGS), ("fixes", made.fix_first, len(made.fix), MAX_FIXES)):
            count = np.diff(starts)
            if starts[0] != 0 or starts[-1] != rows or (count < 0).any() or (count > most).any():
                raise InvalidInput(
                    f"observations: {name} begin at {starts[0]} and end at {starts[-1]} of {rows}; must go up from 0 to the end, at most {most} a row"
                )
        numbers = (made.at_s, made.east_m, made.north_m, made.rssi_dbm, made.fix)
        if not all(np.isfinite(column).all() for column in numbers) or (made.fix[:, 3] <= 0).any():
            raise InvalidInput("observations: a time, path, strength or fix is not finite, or a fix has no positive sd; leave out what is not known")
        return made


@dataclass(frozen=True, slots=True)
class Answers:
    """One row an observation. state: (n,) State. level: (n,) index into the venue's levels; xy_m: (n, 2) venue metres; cov_m2: (n, 3) xx, xy, yy; radius_m: (n,) 90 % of such estimates are
    right within; levels: (n, l) probabilities; flags: (n,) FAST, LEVEL, GONE. All but state are NaN or 0 where nothing is known; while SETTLING they are not to be shown."""

    state: U1
    level: U1
    xy_m: F4
    cov_m2: F4
    radius_m: F4
    levels: F4
    flags: U1


def rows_of(observed: Observed, answers: Answers) -> PositionColumns:
    """Answers as rows of the position plane: the newest dot of each subject, LEFT where it is gone."""
    gone = (answers.flags & GONE) > 0
    rows = np.flatnonzero((answers.state == State.LOCATED) | gone)
    rows = rows[np.lexsort((observed.at_s[rows], observed.subject[rows]))]
    subject = observed.subject[rows]
    rows = rows[np.append(subject[1:] != subject[:-1], True)] if len(rows) else rows
    level = np.where(gone[rows], LEFT, answers.level[rows]).astype(np.uint8)
    xy_m = np.where(gone[rows, None], np.float32(0), answers.xy_m[rows])
    radius_dm = np.where(gone[rows], np.uint8(0), radius_dm_of(answers.radius_m[rows]))
    return PositionColumns(observed.subject[rows], level, np.ascontiguousarray(xy_m[:, 0]), np.ascontiguousarray(xy_m[:, 1]), radius_dm)
