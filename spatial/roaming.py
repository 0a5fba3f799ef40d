"""Fences that move with their owner: who comes within a radius of a moving person, courier or float, and who goes.

Owns who is near whom; positions are given at every step. Level-aware: only people of the owner's level are near. The circle is around the owner's own
last position; who is near enters at `radius_m` or less and exits beyond `radius_m + margin_m` (hysteresis), at once when either changes level or leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput
from spatial.index import CrowdIndex, Sheets

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

MAX_FENCES: Final = 100_000
LARGEST_RADIUS_M: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Roaming:
    """A fence around `owner`, who is never in it. all_of, none_of: tags of those it sees, as in `spatial.fence_watch`."""

    owner: int
    radius_m: float
    margin_m: float = 0.0
    all_of: int = 0
    none_of: int = 0


@dataclass(frozen=True, slots=True)
class Meetings:
    """Pairs (fence, person) by fence, then person: (e, 2) each."""

    entered: I8
    exited: I8


class RoamingFences:
    """A set of roaming fences and who is in them. Fence i is the i-th given."""

    def __init__(self, sheets: Sheets, fences: Sequence[Roaming]) -> None:
        """Raises InvalidInput for a radius or margin that is negative, not finite or beyond LARGEST_RADIUS_M, or too many fences."""
        if len(fences) > MAX_FENCES:
            raise InvalidInput(f"roaming: {len(fences)} fences; at most {MAX_FENCES}")
        for number, fence in enumerate(fences):
            if not (0 <= fence.radius_m <= LARGEST_RADIUS_M and 0 <= fence.margin_m <= LARGEST_RADIUS_M):
                raise InvalidInput(f"roaming fence {number}: {fence}; radius and margin must be 0 to {LARGEST_RADIUS_M:g} m")
        self._sheets = sheets
        self._owner = np.array([fence.owner for fence in fences], np.int64)
        self._radius = np.array([fence.radius_m for fence in fences], np.float64)
        self._margin = np.array([fence.margin_m for fence in fences], np.float64)
        self._all_of = np.array([fence.all_of for fence in fences], np.uint64)
        self._none_of = np.array([fence.none_of for fence in fences], np.uint64)
        self._inside = np.zeros((0, 2), np.int64)

    @property
    def inside(self) -> I8:
        """(fence, person) pairs now, ascending, (h, 2)."""
        return self._inside

    def step(self, person: I8, sheet: npt.NDArray[np.integer], x_m: F8, y_m: F8, *, tags: npt.NDArray[np.uint64] | None = None) -> Meetings:
        """Take everyone's position (n,): id, sheet (-1: away), metres. Who is not in the step is away, a fence without its owner empty. Bad rows count as away."""
        crowd = CrowdIndex.build(self._sheets, person, sheet, x_m, y_m)
        bad = np.zeros(len(person), np.bool_)
        bad[crowd.refused.row] = True
        order = np.argsort(np.where(bad, np.iinfo(np.int64).max, person), kind="stable")
        good = person[order[: len(person) - int(bad.sum())]]
        at = np.minimum(np.searchsorted(good, self._owner), max(0, len(good) - 1))
        there = good[at] == self._owner if len(good) else np.zeros(len(self._owner), np.bool_)
        fence = np.flatnonzero(there)
        row = order[at[fence]] if len(good) else at[:0]
        hits = crowd.within(sheet[row], x_m[row], y_m[row], self._radius[fence] + self._margin[fence])
        which, who = fence[hits.question], person[hits.row]
        bits = np.zeros(len(who), np.uint64) if tags is None else tags[hits.row]
        seen = (who != self._owner[which]) & (bits & self._all_of[which] == self._all_of[which]) & (bits & self._none_of[which] == 0)
        which, who, near = which[seen], who[seen], hits.distance_m[seen] <= self._radius[which[seen]]
        pairs = np.column_stack([which, who])
        was = _in(pairs, self._inside)
        now = pairs[near | was]
        now = now[np.lexsort((now[:, 1], now[:, 0]))]
        meetings = Meetings(now[~_in(now, self._inside)], self._inside[~_in(self._inside, now)])
        self._inside = now
        return meetings


def _in(pairs: I8, others: I8) -> npt.NDArray[np.bool_]:
    """Whether each of some pairs is among others (both (n, 2))."""
    both = np.concatenate([others, pairs])
    _, number = np.unique(both, axis=0, return_inverse=True)
    number = number.reshape(-1)
    return np.isin(number[len(others) :], number[: len(others)])
