"""What a model keeps of its survey, so that new walks can be added later: strengths averaged over small squares of ground, and how often each transmitter was heard.

Owns the averaging and the joining of two surveys. It never holds a walk: neither order nor time of the scans, only a fingerprint of each walk by which it is known again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput
from spatial.positioning.ground import Floor
from spatial.positioning.labels import surveyed_positions
from spatial.positioning.observations import F4, F8, I4
from spatial.positioning.radio_map import BIN_M, FULL, LEAST_HEARD, SILENT_DBM
from spatial.positioning.scans import completed_from_next

if TYPE_CHECKING:
    from spatial.positioning.model import Prepared

OUTSIDE_S: Final = 1.5
STEP_DB: Final = FULL / 255


@dataclass(frozen=True, slots=True)
class Digest:
    """key: (b, 3) int32 floor, column and row of each square of BIN_M; at_m: (b, 2) float32, mean place of its scans, venue metres; count: (b,) scans of it. Square i hears the transmitters
    which[first[i]:first[i + 1]] with `strength` (bytes of STEP_DB above SILENT_DBM, mean over its scans, silent ones as 0). walks, scans: (a,) on how many walks and in how many scans each
    transmitter was heard. walk: (w,) uint64 fingerprints of the walks. names: the a transmitters, those too that got no field."""

    ARRAYS: ClassVar[tuple[str, ...]] = ("key", "at_m", "count", "first", "which", "strength", "walks", "scans", "walk")
    names: tuple[str, ...]
    key: I4
    at_m: F4
    count: I4
    first: I4
    which: I4
    strength: npt.NDArray[np.uint8]
    walks: I4
    scans: I4
    walk: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, names: tuple[str, ...], arrays: dict[str, np.ndarray]) -> Digest:
        """Raises InvalidInput where the arrays do not fit each other."""
        digest = cls(names, **arrays)
        if (
            len(digest.first) != len(digest.key) + 1
            or digest.first[-1] != len(digest.which)
            or not len(names) == len(digest.walks) == len(digest.scans)
        ):
            raise InvalidInput(f"digest of {len(digest.key)} squares and {len(names)} transmitters: its columns do not fit; fit the model again")
        return digest

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in self.ARRAYS}

    def dense(self, names: Sequence[str]) -> F4:
        """(b, len(names)) mean strengths, dB above SILENT_DBM, 0 where the digest does not know the name."""
        index = {name: i for i, name in enumerate(names)}
        column = np.array([index.get(name, -1) for name in self.names], np.int64)[self.which]
        row = np.repeat(np.arange(len(self.key)), np.diff(self.first))
        out = np.zeros((len(self.key), len(names)), np.float32)
        known = column >= 0
        out[row[known], column[known]] = self.strength[known] * np.float32(STEP_DB)
        return out

    def without(self, gone: set[str]) -> Digest:
        """The same, those transmitters never heard."""
        keep_name = np.array([name not in gone for name in self.names], np.bool_)
        keep = keep_name[self.which]
        row = np.repeat(np.arange(len(self.key)), np.diff(self.first))[keep]
        number = np.cumsum(keep_name) - 1
        return replace(
            self,
            names=tuple(name for name in self.names if name not in gone),
            first=np.searchsorted(row, np.arange(len(self.key) + 1)).astype(np.int32),
            which=number[self.which[keep]].astype(np.int32),
            strength=self.strength[keep],
            walks=self.walks[keep_name],
            scans=self.scans[keep_name],
        )


def digest_of(floors: Sequence[Floor], walks: Iterable[tuple[Prepared, str | None, F8]]) -> Digest:
    """The digest of surveyed walks, their scans completed as `fit` does; walks without waypoints, or of other floors, leave nothing in it."""
    number = {floor.name: i for i, floor in enumerate(floors)}
    told = [(p, number[f], w) for p, f, w in walks if f in number and len(w) >= 2]
    used = [(replace(p, scans=completed_from_next(p.scans)), f, w) for p, f, w in told]
    names = tuple(sorted({p.scans.names[i] for p, _, _ in used for i in np.unique(p.scans.transmitter).tolist()}))
    index = {name: i for i, name in enumerate(names)}
    heard_on, heard_in = np.zeros(len(names), np.int32), np.zeros(len(names), np.int32)
    keys, places, strengths = [], [], []
    for p, f, waypoints in used:
        strength = p.scans.dense(index, SILENT_DBM) - np.float32(SILENT_DBM)
        which, times = np.unique(p.scans.transmitter, return_counts=True)
        column = [index[p.scans.names[i]] for i in which.tolist()]
        heard_on[column] += 1
        heard_in[column] += times.astype(np.int32)
        xy, outside = surveyed_positions(waypoints, p.track, p.scans.about_s)
        some = (outside < OUTSIDE_S) & ((strength > 0).sum(axis=1) >= LEAST_HEARD)
        keys.append(np.column_stack([np.full(some.sum(), f), np.floor(xy[some] / BIN_M)]).astype(np.int32))
        places.append(floors[f].to_venue(xy[some]))
        strengths.append(strength[some])
    key = np.vstack(keys) if keys else np.zeros((0, 3), np.int32)
    at = np.vstack(places) if places else np.zeros((0, 2))
    dense = np.vstack(strengths) if strengths else np.zeros((0, len(names)), np.float32)
    walk = np.array([_fingerprint(p) for p, _, _ in told], np.uint64)
    return _averaged(names, key, at, np.ones(len(key), np.int32), dense, heard_on, heard_in, walk)


def joined(old: Digest, new: Digest) -> Digest:
    """Both surveys as one. Each walk must be in one of them only."""
    names = tuple(sorted({*old.names, *new.names}))
    index = {name: i for i, name in enumerate(names)}
    walks, scans = np.zeros(len(names), np.int32), np.zeros(len(names), np.int32)
    for part in (old, new):
        at = [index[name] for name in part.names]
        walks[at] += part.walks
        scans[at] += part.scans
    return _averaged(
        names, np.vstack([old.key, new.key]), np.vstack([old.at_m, new.at_m]).astype(np.float64), np.concatenate([old.count, new.count]),
        np.vstack([old.dense(names), new.dense(names)]), walks, scans, np.concatenate([old.walk, new.walk]),
    )  # fmt: skip


def known_walks(digest: Digest, walks: Sequence[Prepared]) -> list[bool]:
    """Which of the walks the digest holds already."""
    held = set(digest.walk.tolist())
    return [_fingerprint(walk) in held for walk in walks]


def _averaged(names: tuple[str, ...], key: I4, at: F8, count: I4, strength: F4, walks: I4, scans: I4, walk: npt.NDArray[np.uint64]) -> Digest:
    squares, number = np.unique(key, axis=0, return_inverse=True)
    number = number.ravel()
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(len(squares)))
    total = np.bincount(number, count, minlength=len(squares))
    if len(squares):
        mean = np.add.reduceat(strength[order] * count[order, None].astype(np.float32), starts, axis=0) / total[:, None].astype(np.float32)
        place = np.add.reduceat(at[order] * count[order, None], starts, axis=0) / total[:, None]
    else:
        mean, place = strength.astype(np.float64), at
    # what is heard at all stays: below half a step it would round to silence
    level = np.where(mean > 0, np.clip(np.rint(mean / STEP_DB), 1, 255), 0).astype(np.uint8)
    row, which = np.nonzero(level)
    return Digest(
        names, squares.astype(np.int32), place.astype(np.float32), total.astype(np.int32), np.searchsorted(row, np.arange(len(squares) + 1)).astype(np.int32),
        which.astype(np.int32), level[row, which], walks, scans, walk,
    )  # fmt: skip


def _fingerprint(walk: Prepared) -> int:
    """Of what was heard, whatever the file's name."""
    made = hashlib.blake2b(np.round(walk.scans.about_s, 3).tobytes(), digest_size=8)
    made.update(walk.scans.rssi_dbm.tobytes())
    made.update("\n".join(walk.scans.names).encode())
    return int.from_bytes(made.digest(), "little")
