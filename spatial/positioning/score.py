"""Scoring against surveyed waypoints, and what scoring teaches: cross-validation by walk and the calibration of regions.

Owns the error measures. Waypoints and floors enter here, after the estimate is made, and go nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from spatial.positioning.grid_filter import Answer, Locator, answer_causal, answer_smoothed, first_fix
from spatial.positioning.ground import Floor, coarser
from spatial.positioning.model import Model, Prepared, Tuning, fit
from spatial.positioning.observations import F8

CHI2_90: Final = 4.605
"""The 90 % point of chi-square with two degrees of freedom."""
LEARNING_WALKS: Final = 200
"""So many left-out walks teach the regions' size, if the survey has them; each is left out once."""
LEARNING_CELL_M: Final = 2.0
"""They are located on ground at least this coarse: a quarter of the work for the same errors."""
FOLDS: Final = 5
UNKNOWN_M: Final = 100.0
"""The error of a waypoint for which there is no estimate."""

Surveyed = tuple[Prepared, str | None, F8]
"""A walk cut for the estimators, its floor, its waypoints (m, 3)."""


@dataclass(frozen=True, slots=True)
class Marks:
    """One row a waypoint. error_m: horizontal; floor_right; distance2: squared Mahalanobis distance; late_s: how long before the first estimate the waypoint lay (0: after)."""

    error_m: F8
    floor_right: F8
    distance2: F8
    late_s: F8

    def prompt(self) -> Marks:
        """Without the waypoints that were answered late."""
        keep = self.late_s == 0
        return Marks(self.error_m[keep], self.floor_right[keep], self.distance2[keep], self.late_s[keep])

    def summary(self) -> dict[str, float]:
        """The figures of `esplanade positioning score`; NaN-free; zeros where there is no waypoint."""
        if len(self.error_m) == 0:
            return {"mean_m": 0.0, "median_m": 0.0, "p95_m": 0.0, "floor": 0.0, "calibration_90": 0.0}
        return {
            "mean_m": round(float(self.error_m.mean()), 3),
            "median_m": round(float(np.median(self.error_m)), 3),
            "p95_m": round(float(np.percentile(self.error_m, 95)), 3),
            "floor": round(float(self.floor_right.mean()), 4),
            "calibration_90": round(float((self.distance2 <= CHI2_90).mean()), 4),
        }


def score(model: Model, walks: Iterable[Surveyed]) -> tuple[int, Marks, Marks]:
    """(walks, causal marks, smoothed marks) over all waypoints of the walks. A walk without waypoints counts as walk alone."""
    locator = Locator(model)
    number = {floor.name: i for i, floor in enumerate(model.floors)}
    causal, smoothed, n = [], [], 0
    for walk, floor, waypoints in walks:
        n += 1
        if len(waypoints) == 0:
            continue
        forward, both = locator.locate(walk)
        t = waypoints[:, 0]
        late = np.maximum((forward.told_s[first_fix(forward)] if len(forward) else np.inf) - t, 0)
        truth = number.get(floor or "", -1)
        causal.append(_marks(model, answer_causal(locator, walk, forward, t), truth, waypoints, late))
        smoothed.append(_marks(model, answer_smoothed(locator, walk, both, t), truth, waypoints, np.zeros(len(t))))
    return n, _joined(causal), _joined(smoothed)


def split_by_walk(walks: Sequence[Surveyed], *, seed: int, share: float = 0.25) -> tuple[list[Surveyed], list[Surveyed]]:
    """(kept, left out): of each floor `share` of its walks, rounded up, chosen by the seed from the walks sorted by name."""
    rng = np.random.default_rng(seed)
    out: set[str] = set()
    for floor in sorted({f for _, f, _ in walks if f is not None}):
        names = sorted(w.name for w, f, _ in walks if f == floor)
        chosen = rng.permutation(len(names))[: int(np.ceil(len(names) * share))]
        out |= {f"{floor}/{names[i]}" for i in chosen}
    kept = [w for w in walks if f"{w[1]}/{w[0].name}" not in out]
    return kept, [w for w in walks if f"{w[1]}/{w[0].name}" in out]


def folds_by_walk(walks: Sequence[Surveyed], n: int, *, seed: int) -> Iterator[tuple[list[Surveyed], list[Surveyed]]]:
    """n times (kept, left out): every walk is left out once, and of each floor an equal share each time, to a walk."""
    rng = np.random.default_rng(seed)
    fold: dict[tuple[str, str], int] = {}
    for floor in sorted({f or "" for _, f, _ in walks}):
        names = sorted(w.name for w, f, _ in walks if (f or "") == floor)
        first = int(rng.integers(n))
        fold |= {(floor, names[i]): (first + k) % n for k, i in enumerate(rng.permutation(len(names)))}
    for k in range(n):
        left_out = [fold[f or "", w.name] == k for w, f, _ in walks]
        yield [w for w, out in zip(walks, left_out, strict=True) if not out], [w for w, out in zip(walks, left_out, strict=True) if out]


def fit_calibrated(site: str, floors: tuple[Floor, ...], walks: Sequence[Surveyed], *, seed: int = 1) -> Model:
    """Fit, with the size of the regions learned inside the survey: a fifth of the walks is left out and located, in as many rounds as give LEARNING_WALKS of them, at most one for each fifth, and
    the spreads are set so that 90 % of the waypoints lie within. Then everything is fitted. Under ten walks the regions keep their default size."""
    tuning = Tuning()
    if len(walks) >= 10:
        coarse = tuple(coarser(f, times=max(1, round(LEARNING_CELL_M / f.cell_m))) for f in floors)
        forward, both = [], []
        n = 0
        for kept, held in folds_by_walk(walks, FOLDS, seed=seed):
            pick = np.random.default_rng(seed).permutation(len(held))[: LEARNING_WALKS - n]
            _, causal, smoothed = score(fit(site, coarse, kept, tuning=tuning), [held[i] for i in pick])
            forward.append(causal)
            both.append(smoothed)
            n += len(pick)
            if n >= LEARNING_WALKS:
                break
        tuning = replace(tuning, spread_causal=spread_of(_joined(forward), n), spread_smoothed=spread_of(_joined(both), n))
    return fit(site, floors, walks, tuning=tuning)


def spread_of(marks: Marks, walks: int) -> float:
    """The factor on the standard deviation that left-out walks teach, `walks` of them. The next walk is one more beside these, so for it to be within at 90 % the quantile is at 90 % of n + 1
    among n (split conformal prediction, Vovk et al. 2005, with the walk as what is exchanged). No region reaches another floor, so the quantile is of waypoints on the right floor, and high enough
    that so many of all waypoints lie within."""
    right = marks.distance2[marks.floor_right > 0]
    if len(right) < 20:
        return 1.0
    share = min(0.9 * (walks + 1) / walks * len(marks.distance2) / len(right), 0.98)
    return float(np.clip(np.sqrt(np.quantile(right, share) / CHI2_90), 0.5, 6.0))


def _marks(model: Model, answer: Answer, truth: int, waypoints: F8, late: F8) -> Marks:
    """On a wrong floor the error is the horizontal distance in the venue frame, since each floor's metres start at a corner of its own, and no region holds the truth."""
    off = answer.xy_m - waypoints[:, 1:]
    if truth >= 0:
        true_m = model.floors[truth].to_venue(waypoints[:, 1:])
        for f in np.unique(answer.floor[answer.known & (answer.floor != truth)]):
            mine = answer.known & (answer.floor == f)
            off[mine] = model.floors[int(f)].to_venue(answer.xy_m[mine]) - true_m[mine]
    error = np.where(answer.known, np.hypot(off[:, 0], off[:, 1]), UNKNOWN_M)
    right = answer.known & (answer.floor == truth)
    distance = np.full(len(error), 1e9)
    if answer.known.any():
        at = np.flatnonzero(answer.known)
        distance[at] = np.einsum("ni,ni->n", off[at], np.linalg.solve(answer.cov_m2[at], off[at][:, :, None])[:, :, 0])
    if truth >= 0:
        distance[answer.floor != truth] = 1e9
    return Marks(error, right.astype(np.float64), distance, late)


def _joined(parts: list[Marks]) -> Marks:
    empty = np.zeros(0)
    return Marks(*(np.concatenate([getattr(p, name) for p in parts]) if parts else empty for name in Marks.__slots__))
