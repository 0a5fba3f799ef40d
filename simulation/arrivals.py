"""When people come: a non-homogeneous Poisson process fitted to counts by the hour.

Owns the fit and the sampling. The rate is piecewise linear with knots every half hour: of all such rates that are nowhere negative and bring each hour's count, the
smoothest (least squares of second differences). Chance comes from the generator it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from esplanade.core.errors import InvalidInput

F8 = npt.NDArray[np.float64]

MAX_HOURS: Final = 24 * 14
COUNTS_WEIGH: Final = 1e4
"""Against roughness: the fitted hours are off by less than one in ten thousand."""
GRID_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ArrivalRate:
    """People an hour at knots every half hour from second 0, straight between them, 0 before and after."""

    per_h: F8

    @classmethod
    def fit(cls, hourly: Sequence[float]) -> ArrivalRate:
        """To counts of so many hours one after another. Raises InvalidInput for none, or one that is negative or not finite."""
        counts = np.asarray(hourly, np.float64)
        n = len(counts)
        if not 1 <= n <= MAX_HOURS or not (np.isfinite(counts) & (counts >= 0)).all():
            raise InvalidInput(f"arrivals: hourly counts {list(hourly)[:30]}; give 1 to {MAX_HOURS} of them, each 0 or more")
        hours = np.zeros((n, 2 * n + 1))
        for k in range(n):
            hours[k, 2 * k : 2 * k + 3] = 0.25, 0.5, 0.25
        bend = np.diff(np.eye(2 * n + 1), n=2, axis=0)
        scale = max(1.0, float(counts.max()))
        rate, _ = nnls(np.vstack([COUNTS_WEIGH * hours, bend]), np.concatenate([COUNTS_WEIGH * counts / scale, np.zeros(len(bend))]))
        return cls(np.asarray(rate * scale, np.float64))

    def at(self, time_s: npt.ArrayLike) -> F8:
        """People an hour at these times."""
        return np.asarray(np.interp(np.asarray(time_s) / 1800.0, np.arange(len(self.per_h)), self.per_h, left=0.0, right=0.0))

    def expected(self, until_s: npt.ArrayLike) -> F8:
        """People expected from second 0 to these times."""
        until = np.clip(np.asarray(until_s, np.float64) / 3600.0, 0.0, 0.5 * (len(self.per_h) - 1))
        whole = np.concatenate([[0.0], np.cumsum(0.25 * (self.per_h[1:] + self.per_h[:-1]))])
        k = np.minimum((until / 0.5).astype(np.int64), len(self.per_h) - 2)
        into = until - 0.5 * k
        slope = (self.per_h[k + 1] - self.per_h[k]) / 0.5
        return np.asarray(whole[k] + into * (self.per_h[k] + 0.5 * slope * into))

    def sample(self, from_s: float, until_s: float, *, rng: np.random.Generator, share: float = 1.0) -> F8:
        """Times of arrivals, ascending, of a process with `share` of this rate: a Poisson number, spread by the inverse of the expected count."""
        grid = np.append(np.arange(from_s, until_s, GRID_S), until_s)
        expected = self.expected(grid)
        total = float(expected[-1] - expected[0])
        if total <= 0.0:
            return np.zeros(0)
        drawn = np.sort(rng.uniform(expected[0], expected[-1], rng.poisson(share * total)))
        return np.asarray(np.interp(drawn, expected, grid))
