"""Whether phones can have moved as they say: who cannot gets no offers for a while.

A phone says where it is, and nothing stops a program from saying that it stands before every shop in turn. Each place is held against an earlier one of the same
subject, its mark: from there to here may be at most SLACK_M and what `speed_m_s` covers in the time between; to another level the way leads over stairs, an escalator or
a lift that has a stop on each. Straight lines, so nobody is wronged by a detour. A mark is MARK_S old at least before the next takes its place, so that the jitter of
a dot does not add up, and it outlives a leaving. One who breaks the rule is held back for HOLD_S from the last time they did; after that they count as having just come to where they are.

Volatile: a host that restarts has marked nobody. Reads no clock; time is passed in.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from spatial.columns import LEFT
from spatial.venue import Venue

SLACK_M: Final = 20.0
"""What a dot may be wrong by, twice."""

MARK_S: Final = 5.0
HOLD_S: Final = 30.0

Rows = npt.NDArray[np.int32]


class Plausible:
    """`speed_m_s`: of the fastest person there is; 0: anybody may be anywhere."""

    def __init__(self, venue: Venue, speed_m_s: float) -> None:
        self.speed_m_s = speed_m_s
        self.impossible = 0
        """Places that nobody can have got to, so far."""
        number = {level.id: i for i, level in enumerate(venue.levels)}
        self._stops = [
            np.array([stop.point for way in venue.connectors for stop in way.stops if number[stop.level_id] == i], np.float64).reshape(-1, 2)
            for i in range(len(venue.levels))
        ]
        self._level = np.zeros(0, np.uint8)
        self._place = np.zeros((0, 2))
        self._at_s = np.zeros(0)
        self._until_s = np.zeros(0)
        self._anybody = False

    def look(
        self, now_s: float, row: Rows, level: npt.NDArray[np.uint8], x_m: npt.NDArray[np.float32], y_m: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.intp]:  # fmt: skip
        """Take n places of n rows. (k,) which of the n had been held back, and count as coming there now."""
        if not self.speed_m_s or not len(row):
            return np.zeros(0, np.intp)
        self._room(int(row.max()) + 1)
        index = np.flatnonzero((level != LEFT) & np.isfinite(x_m) & np.isfinite(y_m))
        at = row[index]
        place = np.stack([x_m[index], y_m[index]], axis=1).astype(np.float64)
        since_s = now_s - self._at_s[at]
        far_m = np.hypot(*(place - self._place[at]).T)
        for i in np.flatnonzero((self._level[at] != level[index]) & np.isfinite(since_s)):
            far_m[i] = self._by_stops(int(self._level[at[i]]), self._place[at[i]], int(level[index[i]]), place[i])
        broken = far_m > SLACK_M + self.speed_m_s * since_s
        self._until_s[at[broken]] = now_s + HOLD_S
        self.impossible += int(broken.sum())
        self._anybody |= bool(broken.any())
        mark = broken | (since_s >= MARK_S)
        self._level[at[mark]], self._place[at[mark]], self._at_s[at[mark]] = level[index[mark]], place[mark], now_s
        freed = (self._until_s[at] > 0) & (self._until_s[at] <= now_s)
        self._until_s[at[freed]] = 0.0
        return index[freed]

    def _by_stops(self, from_level: int, a: npt.NDArray[np.float64], to_level: int, b: npt.NDArray[np.float64]) -> float:
        """The least that one walks on both levels from `a` to `b`; the straight line where the plan has no way between them."""
        leaving, arriving = self._stops[from_level], self._stops[to_level]
        if not len(leaving) or not len(arriving):
            return float(np.hypot(*(b - a)))
        return float(np.hypot(*(leaving - a).T).min() + np.hypot(*(arriving - b).T).min())

    def held(self, row: Rows) -> npt.NDArray[np.bool_]:
        """(n,) who gets no offers; of those not looked at since, until they are."""
        if not self._anybody:
            return np.zeros(len(row), np.bool_)
        known = row < len(self._until_s)
        return np.where(known, self._until_s[np.where(known, row, 0)] > 0, False)

    def _room(self, n: int) -> None:
        more = max(n, 2 * len(self._at_s)) - len(self._at_s) if n > len(self._at_s) else 0
        if more:
            self._level = np.concatenate([self._level, np.zeros(more, np.uint8)])
            self._place = np.concatenate([self._place, np.zeros((more, 2))])
            self._at_s = np.concatenate([self._at_s, np.full(more, -np.inf)])
            self._until_s = np.concatenate([self._until_s, np.zeros(more)])
