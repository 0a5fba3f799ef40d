"""The radio map of a site: for every transmitter a field of strength over the walkable ground of all surveyed floors, and the likelihood of a scan.

Owns fitting from surveyed scans, quality of transmitters, and the file. It must never see a scan that it is asked to locate.

Fields: one Gaussian process over all floors at once (Rasmussen & Williams 2006, algorithm 2.1), the strength above SILENT_DBM as target and zero where silent, with a rough and a smooth
kernel, both fading from floor to floor; the kernel is the same for all transmitters, so one Cholesky factor serves them all. Surveyed scans of one bin are averaged
first. Likelihood: exp(-sharpness * d) of two dissimilarities of powered strengths: within a floor the cosine, blind to the
phone's gain, and a little of Dice's; between floors a blend with Dice's, which is not blind to loudness and so tells a floor from the echo of its neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import linalg

from esplanade.core.errors import InvalidInput
from spatial.positioning.ground import Floor
from spatial.positioning.observations import F4, F8, I4
from spatial.positioning.scans import Scans

SILENT_DBM: Final = -95.0
MAP_CELL: Final = 2
"""Cells of the radio map are this many cells of the ground wide."""
LEAST_WALKS: Final = 3
LEAST_SCANS: Final = 5
LEAST_HEARD: Final = 5
BIN_M: Final = 1.5
SPREAD_M: Final = 45.0
"""A transmitter whose loud readings lie further apart than this (root mean square from their middle) moves about: a hotspot in a pocket."""
LOUD_DBM: Final = -70.0
ROUGH: Final = (50.0, 5.0, 0.3)
SMOOTH: Final = (100.0, 22.0, 0.7)
"""Variance dB2, length m, share of covariance that is left a floor away."""
NOISE_DB2: Final = 60.0
POWER: Final = 1.0
FULL: Final = 80.0
U1 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Survey:
    """Surveyed scans. strength: (n, a) dB above SILENT_DBM; xy_m: (n, 2) floor metres; floor, walk: (n,) indices."""

    strength: F4
    xy_m: F8
    floor: I4
    walk: I4


@dataclass(frozen=True, slots=True)
class RadioMap:
    """strength: (a, c) bytes, FULL / 255 dB above silence at map cells, a row a transmitter; norm: (c,) float32, the lengths of the cells' powered strengths. cell_of[f]: (rows, columns) int32, map
    cell of each ground cell of floor f, -1 where there is none (not free, or floor not surveyed). transmitters: the a names."""

    transmitters: tuple[str, ...]
    strength: U1
    norm: F4
    cell_of: tuple[I4, ...]
    dropped: dict[str, int]

    def index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.transmitters)}

    def field(self) -> F4:
        """(c, a) powered strengths, rows of unit length: 4 bytes for every one that the map keeps."""
        field: F4 = np.ascontiguousarray(_powered()[self.strength].T)
        field /= np.maximum(self.norm, np.float32(1e-6))[:, None]
        return field

    def dissimilarity(self, scans: Scans, index: dict[str, int]) -> tuple[F4, F4, I4]:
        """(n, c) cosine and (n, c) Dice dissimilarity, in [0, 1], of each scan to each map cell, and (n,) how many known transmitters each scan holds (0: its rows say nothing)."""
        strength = scans.dense(index, SILENT_DBM) - np.float32(SILENT_DBM)
        heard = (strength > 0).sum(axis=1).astype(np.int32)
        y = strength ** np.float32(POWER)
        length = np.sqrt((y * y).sum(axis=1, keepdims=True))
        some = np.flatnonzero(y.any(axis=0))
        cosine = (y[:, some] / np.maximum(length, 1e-6)) @ _powered()[self.strength[some]]
        cosine /= np.maximum(self.norm, np.float32(1e-6))[None]
        ratio = self.norm[None] / np.maximum(length, 1e-6)
        dice = cosine * (2 * ratio / (1 + ratio * ratio))
        return 1 - cosine, 1 - dice, heard


def choose_transmitters(scans: Sequence[Scans], places: Sequence[F8], heights: Sequence[float]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Which transmitters are worth a field, and how many were dropped why. places: per walk (n, 2) venue metres of its scans; heights: floor ordinals."""
    found: dict[str, list[tuple[int, float, F8, float]]] = {}
    for walk, (scan, place) in enumerate(zip(scans, places, strict=True)):
        row = np.repeat(np.arange(len(scan)), np.diff(scan.first))
        for i, at, rssi in zip(scan.transmitter.tolist(), row.tolist(), scan.rssi_dbm.tolist(), strict=True):
            found.setdefault(scan.names[i], []).append((walk, rssi, place[at], heights[walk]))
    kept, dropped = [], {"rare": 0, "moving": 0}
    for name in sorted(found):
        rows = found[name]
        if len({row[0] for row in rows}) < LEAST_WALKS or len(rows) < LEAST_SCANS:
            dropped["rare"] += 1
            continue
        loud = np.array([row[2] for row in rows if row[1] > LOUD_DBM])
        if len(loud) >= 2 and np.sqrt(((loud - np.median(loud, axis=0)) ** 2).sum(axis=1).mean()) > SPREAD_M:
            dropped["moving"] += 1
            continue
        kept.append(name)
    return tuple(kept), dropped


def fit_map(survey: Survey, transmitters: tuple[str, ...], dropped: dict[str, int], floors: Sequence[Floor]) -> RadioMap:
    """Fit the fields. Raises InvalidInput where nothing was surveyed."""
    enough = (survey.strength > 0).sum(axis=1) >= LEAST_HEARD
    if not enough.any() or not transmitters:
        raise InvalidInput("radio map: no surveyed scan with enough transmitters; survey with waypoints and Wi-Fi on, at least three walks a place")
    y, at, height, count = _binned(survey, enough, floors)
    return fit_fields(y, at, height, count, set(np.unique(survey.floor).tolist()), transmitters, dropped, floors)


def fit_fields(
    y: F4, at: F8, height: I4, count: F4, surveyed: set[int], transmitters: tuple[str, ...], dropped: dict[str, int], floors: Sequence[Floor]
) -> RadioMap:
    """The fields of bins of surveyed scans. y: (b, a) mean dB above SILENT_DBM; at: (b, 2) venue metres; height: (b,) ordinals; count: (b,) scans. surveyed: the floors that get fields."""
    kernel = _kernel(at, height, at, height)
    kernel[np.diag_indices(len(kernel))] += NOISE_DB2 / count
    factor = linalg.cho_factor(kernel, lower=True, overwrite_a=True, check_finite=False)
    alpha = linalg.cho_solve(factor, y, check_finite=False).astype(np.float32)
    cell_of, parts, first = [], [], 0
    for f, ground in enumerate(floors):
        cells, centres = map_cells(ground)
        if f not in surveyed:
            cell_of.append(np.full(ground.free.shape, -1, np.int32))
            continue
        cell_of.append(np.where(cells >= 0, cells + first, -1).astype(np.int32))
        first += len(centres)
        here = np.full(len(centres), ground.ordinal)
        for begin in range(0, len(centres), 4096):
            part = slice(begin, begin + 4096)
            strength = _kernel(ground.to_venue(centres[part]), here[part], at, height) @ alpha
            parts.append(np.clip(np.rint(strength * (255 / FULL)), 0, 255).astype(np.uint8).T)
    return map_of(transmitters, np.hstack(parts), tuple(cell_of), dropped)


def map_of(transmitters: tuple[str, ...], strength: U1, cell_of: tuple[I4, ...], dropped: dict[str, int]) -> RadioMap:
    """A map of quantised strengths (a, c), 255 = FULL dB above silence."""
    square = _powered() ** 2
    norm2 = np.zeros(strength.shape[1], np.float32)
    for row in strength:
        norm2 += square[row]
    return RadioMap(transmitters, strength, np.sqrt(norm2), cell_of, dropped)


def _powered() -> F4:
    """Powered strength of every byte."""
    powered: F4 = (np.arange(256, dtype=np.float32) * np.float32(FULL / 255)) ** np.float32(POWER)
    return powered


def map_cells(ground: Floor) -> tuple[I4, F8]:
    """(rows, columns) map cell of each free ground cell, counted from 0 on this floor (-1 elsewhere), and the (c, 2) centres in floor metres."""
    rows, columns = ground.free.shape
    wide = -(-columns // MAP_CELL)
    coarse = (np.arange(rows)[:, None] // MAP_CELL) * wide + np.arange(columns)[None] // MAP_CELL
    used, number = np.unique(coarse[ground.free], return_inverse=True)
    cells = np.full((rows, columns), -1, np.int32)
    cells[ground.free] = number
    step = MAP_CELL * ground.cell_m
    centres = np.column_stack([ground.corner_m[0] + (used % wide + 0.5) * step, ground.corner_m[1] + (used // wide + 0.5) * step])
    return cells, centres


def _binned(survey: Survey, enough: npt.NDArray[np.bool_], floors: Sequence[Floor]) -> tuple[F4, F8, I4, F4]:
    y, xy, floor = survey.strength[enough], survey.xy_m[enough], survey.floor[enough]
    key = np.column_stack([floor, np.floor(xy / BIN_M).astype(np.int64)])
    _, number = np.unique(key, axis=0, return_inverse=True)
    number = number.ravel()
    count = np.bincount(number).astype(np.float32)
    order = np.argsort(number, kind="stable")
    starts = np.r_[0, np.cumsum(count[:-1])].astype(np.int64)
    mean = np.add.reduceat(y[order], starts, axis=0) / count[:, None]
    venue = np.zeros_like(xy)
    for f, ground in enumerate(floors):
        venue[floor == f] = ground.to_venue(xy[floor == f])
    at = np.add.reduceat(venue[order], starts, axis=0) / count[:, None]
    height = np.array([ground.ordinal for ground in floors], np.int32)[floor[order][starts]]
    return mean.astype(np.float32), at, height, count


def _kernel(a: F8, height_a: I4 | npt.NDArray[np.int64], b: F8, height_b: I4 | npt.NDArray[np.int64]) -> F4:
    d2 = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - 2 * a @ b.T
    d = np.sqrt(np.maximum(d2, 0)).astype(np.float32)
    apart = np.abs(height_a[:, None] - height_b[None]).astype(np.float32)
    out: F4 = np.zeros(d.shape, np.float32)
    for variance, length, left in (ROUGH, SMOOTH):
        out += np.float32(variance) * np.exp(-d / np.float32(length)) * np.float32(left) ** apart
    return out
