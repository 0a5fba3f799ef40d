"""Position columns: what the position plane carries, a row a person.

Owns the layout of a frame of positions in memory and on the wire. Knows nothing of fences, sockets or storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput

LEFT: Final = 255
"""Level of a row that says: this subject has left the venue (x and y are ignored)."""

MAX_ROWS: Final = 200_000
"""Rows in one frame at most."""

FARTHEST_DM: Final = 255
"""A radius of 25.5 m or more."""


@dataclass(frozen=True, slots=True)
class PositionColumns:
    """Positions of n subjects at one tick, venue frame.

    subject: (n,) uint32, ids within the tenant, each at most once a frame.
    level: (n,) uint8, index into `Venue.levels`, or LEFT.
    x_m, y_m: (n,) float32, metres, venue frame, finite.
    radius_dm: (n,) uint8, decimetres within which nine in ten of such positions are right; 0: not known, FARTHEST_DM: that or more. None: of nobody known.
    """

    subject: npt.NDArray[np.uint32]
    level: npt.NDArray[np.uint8]
    x_m: npt.NDArray[np.float32]
    y_m: npt.NDArray[np.float32]
    radius_dm: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.subject)

    @classmethod
    def empty(cls) -> PositionColumns:
        return cls(np.empty(0, np.uint32), np.empty(0, np.uint8), np.empty(0, np.float32), np.empty(0, np.float32))

    @classmethod
    def unpack(cls, subject: bytes, level: bytes, x_m: bytes, y_m: bytes, radius_dm: bytes = b"") -> PositionColumns:
        """Columns from little-endian buffers (u4, u1, f4, f4, and u1 or nothing). Raises InvalidInput where lengths disagree or a number is not finite."""
        n = len(level)
        if not (len(subject) == len(x_m) == len(y_m) == 4 * n):
            raise InvalidInput(
                f"columns: subject {len(subject)} B, level {n} B, x {len(x_m)} B, y {len(y_m)} B; "
                "n rows need 4n, n, 4n and 4n bytes (u4, u1, f4, f4, little-endian)"
            )
        if len(radius_dm) not in (0, n):
            raise InvalidInput(f"columns: radius {len(radius_dm)} B for {n} rows; a byte each, or none at all")
        if n > MAX_ROWS:
            raise InvalidInput(f"columns: {n} rows; at most {MAX_ROWS} a frame, send several frames")
        columns = cls(
            np.frombuffer(subject, "<u4"),
            np.frombuffer(level, np.uint8),
            np.frombuffer(x_m, "<f4"),
            np.frombuffer(y_m, "<f4"),
            np.frombuffer(radius_dm, np.uint8) if radius_dm else None,
        )
        bad = ~(np.isfinite(columns.x_m) & np.isfinite(columns.y_m))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InvalidInput(
                f"columns: row {row} (subject {int(columns.subject[row])}) has x={columns.x_m[row]}, y={columns.y_m[row]}; "
                "coordinates must be finite metres"
            )
        return columns

    def pack(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Little-endian buffers in the order of `unpack`; `pack_radius` for the last one."""
        return (
            np.ascontiguousarray(self.subject, "<u4").tobytes(),
            np.ascontiguousarray(self.level, np.uint8).tobytes(),
            np.ascontiguousarray(self.x_m, "<f4").tobytes(),
            np.ascontiguousarray(self.y_m, "<f4").tobytes(),
        )

    def pack_radius(self) -> bytes:
        return b"" if self.radius_dm is None else self.radius_dm.tobytes()

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> PositionColumns:
        radius_dm = None if self.radius_dm is None else self.radius_dm[rows]
        return PositionColumns(self.subject[rows], self.level[rows], self.x_m[rows], self.y_m[rows], radius_dm)

    @classmethod
    def concat(cls, parts: list[PositionColumns]) -> PositionColumns:
        if not parts:
            return cls.empty()
        radius_dm = None
        if any(p.radius_dm is not None for p in parts):
            radius_dm = np.concatenate([np.zeros(len(p), np.uint8) if p.radius_dm is None else p.radius_dm for p in parts])
        return cls(
            np.concatenate([p.subject for p in parts]),
            np.concatenate([p.level for p in parts]),
            np.concatenate([p.x_m for p in parts]),
            np.concatenate([p.y_m for p in parts]),
            radius_dm,
        )


def radius_dm_of(radius_m: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Whole decimetres, rounded up; what is not finite or not positive is not known."""
    known = np.isfinite(radius_m) & (radius_m > 0)
    return np.where(known, np.clip(np.ceil(10 * np.where(known, radius_m, 0)), 1, FARTHEST_DM), 0).astype(np.uint8)
