"""What a cloud saw from where it was seen: how far it looked, by direction, and what of another cloud stands in the way of that.

Owns the directions (squares of 2 degrees); knows nothing of poses or maps. Where a cloud says little of what its origin saw, since that is not where it was seen from, it says so (`told`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ar.clouds import F8

_ROWS: Final = 90
_COLUMNS: Final = 180
_RANGE: Final = 0.02
"""Of a distance: how far off it may be because a direction is a square."""
MOST_HIDDEN: Final = 0.3
"""Share of a cloud's own points behind others of it: 0.06 of one depth frame, 0.12 to 0.29 of clouds of several frames from about one place, 0.2 to 0.7 seen from elsewhere."""
MIN_IN_SIGHT: Final = 50


def _directions(points: F8) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], F8]:
    """(row, column, distance) of points (n, 3) as seen from the origin, (n,) each."""
    distance = np.linalg.norm(points, axis=1)
    up = np.arcsin(np.clip(points[:, 2] / np.maximum(distance, 1e-9), -1, 1))
    around = np.arctan2(points[:, 1], points[:, 0])
    row = np.clip((up / np.pi + 0.5) * _ROWS, 0, _ROWS - 1).astype(np.intp)
    column = ((around / (2 * np.pi) + 0.5) * _COLUMNS).astype(np.intp) % _COLUMNS
    return row, column, distance


class Sight:
    """The nearest points (n, 3) of a cloud in each direction from its origin; `margin_m`: what lies that near to them is neither before nor behind them."""

    def __init__(self, points: F8, margin_m: float) -> None:
        row, column, distance = _directions(points)
        self._front = np.full((_ROWS, _COLUMNS), np.inf)
        np.minimum.at(self._front, (row, column), distance)
        self._margin_m = margin_m
        padded = np.pad(np.pad(self._front, ((0, 0), (1, 1)), mode="wrap"), ((1, 1), (0, 0)), mode="edge")
        self._nearest = np.min([padded[i : i + _ROWS, j : j + _COLUMNS] for i in range(3) for j in range(3)], axis=0)
        self.told = bool(np.mean(distance > self._front[row, column] + margin_m + _RANGE * distance) <= MOST_HIDDEN)

    def through(self, points: F8) -> float | None:
        """Of the points (n, 3) of another cloud that the origin would see, the share that stands before what it saw; None where too few are in sight to say."""
        row, column, distance = _directions(points)
        front, slack = self._front[row, column], self._margin_m + _RANGE * distance
        in_sight = np.isfinite(front) & (distance < front + slack)
        if np.count_nonzero(in_sight) < MIN_IN_SIGHT:
            return None
        before = in_sight & (distance < self._nearest[row, column] - slack)
        return float(np.count_nonzero(before) / np.count_nonzero(in_sight))
