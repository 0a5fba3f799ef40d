"""How well a table of fingerprints locates scans of phones and users that it has never seen, ours beside plain nearest neighbours.

Owns the protocol and the figures. Errors are horizontal, those on a wrong floor too, as the literature on UJIIndoorLoc counts them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from scipy.spatial import cKDTree

from esplanade.core.errors import InvalidInput
from spatial.positioning.fingerprints import Fingerprints, NearestFingerprints, folds_by_phone
from spatial.positioning.observations import F4, F8, I4

SURVEYED_M: Final = 4.0
"""A place counts as surveyed where a fingerprint of its floor lies this near."""
PLAIN: Final = (1, 11)
"""Neighbours of the plain estimator: one, as the table's paper has it, and as many as do best by its floor."""
CHUNK: Final = 512


@dataclass(frozen=True, slots=True)
class FingerprintFigures:
    """Over all rows, and over the `surveyed` share of them whose place was surveyed by others. floor: building and floor right; building: the building right."""

    rows: int
    mean_m: float
    median_m: float
    p95_m: float
    floor: float
    building: float
    surveyed: float
    surveyed_mean_m: float
    surveyed_floor: float


def score_fingerprints(known: Fingerprints, asked: Fingerprints, *, threads: int = 1) -> dict[str, FingerprintFigures]:
    """Figures of `ours` and of the plain neighbours on the rows of `asked`. Raises InvalidInput where a table is empty or the transmitters are others."""
    return _figures(asked, _estimates(known, asked, threads), _surveyed(known, asked))


def score_unseen_phones(table: Fingerprints, *, folds: int, seed: int, threads: int = 1) -> dict[str, FingerprintFigures]:
    """The same with every row located once, by the rows of other phones and other users. As many folds as there are groups of phones leave out one at a time: with fewer, whole floors and
    buildings lose all who surveyed them. Raises InvalidInput where all phones and users are one group."""
    estimates: dict[str, tuple[F8, I4]] = {}
    surveyed = np.zeros(len(table.xy_m), np.bool_)
    for test in folds_by_phone(table, folds, seed=seed):
        if test.all():
            raise InvalidInput("fingerprints: all phones and users are one group; give a second table to test with")
        known, asked = table.rows(~test), table.rows(test)
        surveyed[test] = _surveyed(known, asked)
        for name, (xy, floor) in _estimates(known, asked, threads).items():
            whole_xy, whole_floor = estimates.setdefault(name, (np.zeros_like(table.xy_m), np.zeros_like(table.floor)))
            whole_xy[test], whole_floor[test] = xy, floor
    return _figures(table, estimates, surveyed)


def plain_neighbours(known: Fingerprints, strength: F4, ks: tuple[int, ...]) -> list[tuple[F8, I4]]:
    """For each k the mean place and the commonest floor of the k fingerprints at the least Euclidean distance of strengths: what others call the baseline."""
    floors, number = np.unique(known.floor, return_inverse=True)
    square = (known.strength * known.strength).sum(axis=1)
    found = [(np.zeros((len(strength), 2)), np.zeros(len(strength), np.int32)) for _ in ks]
    most = min(max(ks), len(square))
    for first in range(0, len(strength), CHUNK):
        part = slice(first, first + CHUNK)
        far = square[None] - 2 * strength[part] @ known.strength.T
        best = np.argpartition(far, most - 1, axis=1)[:, :most]
        best = np.take_along_axis(best, np.argsort(np.take_along_axis(far, best, axis=1), axis=1, kind="stable"), axis=1)
        for k, (xy, floor) in zip(ks, found, strict=True):
            near = best[:, :k]
            xy[part] = known.xy_m[near].mean(axis=1)
            floor[part] = floors[np.stack([(number[near] == f).sum(axis=1) for f in range(len(floors))], axis=1).argmax(axis=1)]
    return found


def as_rows(figures: dict[str, FingerprintFigures]) -> dict[str, dict[str, float]]:
    """By estimator, rounded for printing."""
    return {name: {key: round(value, 4) for key, value in asdict(one).items()} for name, one in figures.items()}


def _estimates(known: Fingerprints, asked: Fingerprints, threads: int) -> dict[str, tuple[F8, I4]]:
    if not len(asked.xy_m):
        raise InvalidInput("fingerprints: no row to locate; give at least one")
    ours = NearestFingerprints.fit(known).locate(asked.strength, threads=threads)
    plain = plain_neighbours(known, asked.strength, PLAIN)
    return {"ours": ours} | {f"plain_{k}": each for k, each in zip(PLAIN, plain, strict=True)}


def _surveyed(known: Fingerprints, asked: Fingerprints) -> np.ndarray:
    near = np.zeros(len(asked.xy_m), np.bool_)
    for f in np.unique(asked.floor):
        theirs, mine = known.floor == f, asked.floor == f
        if theirs.any():
            near[mine] = cKDTree(known.xy_m[theirs]).query(asked.xy_m[mine])[0] <= SURVEYED_M
    return near


def _figures(truth: Fingerprints, estimates: dict[str, tuple[F8, I4]], surveyed: np.ndarray) -> dict[str, FingerprintFigures]:
    out = {}
    for name, (xy, floor) in estimates.items():
        error = np.hypot(*(xy - truth.xy_m).T)
        right = floor == truth.floor
        some = surveyed if surveyed.any() else np.ones_like(surveyed)
        out[name] = FingerprintFigures(
            len(error), float(error.mean()), float(np.median(error)), float(np.percentile(error, 95)), float(right.mean()), float((floor // 10 == truth.floor // 10).mean()),
            float(surveyed.mean()), float(error[some].mean()), float(right[some].mean()),
        )  # fmt: skip
    return out
