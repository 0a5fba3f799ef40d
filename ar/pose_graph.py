"""A graph of poses refined from what was seen of each other: where each must stand so that the most observations hold, and which observations do not.

Owns the fit. Gauss-Newton on SE(3), sparse, damped (Levenberg-Marquardt), with outliers found by graduated non-convexity on truncated least squares: Yang et al.,
Graduated Non-Convexity for Robust Spatial Perception (2020), eq. 14 and 15. Nothing is thrown away: an observation that does not hold is told with its weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu

from ar.pose import F8, Poses
from esplanade.core.errors import InvalidInput, LimitExceeded

I8 = npt.NDArray[np.int64]

VENUE: Final = -1
"""The frame that all poses are in, as the first end of an observation: a pose that was told outright."""
MAX_POSES: Final = 10_000
MAX_OBSERVATIONS: Final = 100_000
INLIER_CHI2: Final = 22.46
"""An observation holds where its squared error in standard deviations is at most this: 99.9 % of a chi-square with six degrees of freedom."""
ROUNDS: Final = 40
STEPS: Final = 8
"""At the beginning and the end; between, two a round: the next round begins where the last ended."""
GROWTH: Final = 2.0
SETTLED: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Observations:
    """m observations: pose `second` (m,) seen from pose `first` (m,; VENUE: told in the venue's frame) at `pose` (m), with standard deviations (m,) each."""

    first: I8
    second: I8
    pose: Poses
    sigma_m: F8
    sigma_rad: F8

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True, slots=True)
class Refinement:
    """Poses that agree with the most. weight (m,): 1 where an observation holds, 0 where it does not, between for one that cannot be told. error (m,): in standard deviations.

    `moved_m`, `moved_rad` (n,): from where they were.
    """

    poses: Poses
    weight: F8
    error: F8
    moved_m: F8
    moved_rad: F8

    def conflicts(self) -> I8:
        """Rows of observations that do not hold, the worst first."""
        rows = np.flatnonzero(self.weight < 0.5)
        return np.asarray(rows[np.argsort(-self.error[rows], kind="stable")], np.int64)


def refine(start: Poses, seen: Observations) -> Refinement:
    """Refine n poses from where they start. A pose that nothing tells in the venue's frame keeps its group where it was on the whole.

    Raises InvalidInput for an end that is no pose or a deviation that is not positive, LimitExceeded above MAX_POSES or MAX_OBSERVATIONS.
    """
    _check(start, seen)
    poses = Poses(start.translation_m.copy(), start.rotation.copy())
    if not len(seen) or not len(start):
        still = np.zeros(len(start))
        return Refinement(poses, np.ones(len(seen)), np.zeros(len(seen)), still, still)
    scale = 1.0 / np.column_stack([np.repeat(seen.sigma_m[:, None], 3, 1), np.repeat(seen.sigma_rad[:, None], 3, 1)])
    weight = np.ones(len(seen))
    poses = _fit(poses, seen, scale, weight)
    squared = _squared(poses, seen, scale)
    # From nearly convex (mu small) to truncated least squares (mu large).
    mu = INLIER_CHI2 / max(2 * float(squared.max()) - INLIER_CHI2, INLIER_CHI2 * 1e-3)
    for _ in range(ROUNDS):
        low, high = mu / (mu + 1) * INLIER_CHI2, (mu + 1) / mu * INLIER_CHI2
        between = np.sqrt(INLIER_CHI2 * mu * (mu + 1) / np.maximum(squared, 1e-12)) - mu
        weight = np.where(squared <= low, 1.0, np.where(squared >= high, 0.0, np.clip(between, 0.0, 1.0)))
        poses = _fit(poses, seen, scale, weight, steps=2)
        squared = _squared(poses, seen, scale)
        if ((weight < 1e-3) | (weight > 1 - 1e-3)).all() and mu > 1:
            break
        mu *= GROWTH
    weight = np.where(squared <= INLIER_CHI2, 1.0, 0.0)
    poses = _fit(poses, seen, scale, weight)
    squared = _squared(poses, seen, scale)
    metres, radians = start.distance(poses)
    return Refinement(poses, weight, np.sqrt(squared), metres, radians)


def _check(start: Poses, seen: Observations) -> None:
    n, m = len(start), len(seen)
    if n > MAX_POSES or m > MAX_OBSERVATIONS:
        raise LimitExceeded(f"pose graph of {n} poses and {m} observations: at most {MAX_POSES} and {MAX_OBSERVATIONS}; refine a part of the venue")
    if not (len(seen.second) == len(seen.pose) == len(seen.sigma_m) == len(seen.sigma_rad) == m):
        raise InvalidInput(
            f"pose graph: columns of {m}, {len(seen.second)}, {len(seen.pose)}, {len(seen.sigma_m)}, {len(seen.sigma_rad)} rows; must be as many"
        )
    wrong = (seen.first < VENUE) | (seen.first >= n) | (seen.second < 0) | (seen.second >= n) | (seen.first == seen.second)
    wrong |= ~((seen.sigma_m > 0) & (seen.sigma_rad > 0) & np.isfinite(seen.sigma_m) & np.isfinite(seen.sigma_rad))
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidInput(
            f"observation {row}: {seen.second[row]} from {seen.first[row]}, deviations {seen.sigma_m[row]} m and {seen.sigma_rad[row]} rad; "
            f"two different poses below {n} (or from the venue, {VENUE}), and finite deviations above 0"
        )


def _base(poses: Poses, seen: Observations) -> Poses:
    """The first end of each observation; the venue's own frame is the identity."""
    told = seen.first == VENUE
    at = np.where(told, 0, seen.first)
    translation, rotation = poses.translation_m[at].copy(), poses.rotation[at].copy()
    translation[told], rotation[told] = 0.0, [0.0, 0.0, 0.0, 1.0]
    return Poses(translation, rotation)


def _errors(poses: Poses, seen: Observations) -> tuple[F8, Poses]:
    """Twists (m, 6) from what was seen to how it is, and how it is."""
    bare = Poses(seen.pose.translation_m, seen.pose.rotation)
    between = _base(poses, seen).inverse_mean() @ poses[seen.second]
    return (bare.inverse_mean() @ between).log(), between


def _squared(poses: Poses, seen: Observations, scale: F8) -> F8:
    return np.asarray(((_errors(poses, seen)[0] * scale) ** 2).sum(axis=1), np.float64)


def _fit(poses: Poses, seen: Observations, scale: F8, weight: F8, *, steps: int = STEPS) -> Poses:
    """Weighted least squares by damped Gauss-Newton; a step that makes it worse is not taken."""
    n, m = len(poses), len(seen)
    damping = 1e-6
    error, between = _errors(poses, seen)
    cost = float((weight[:, None] * (error * scale) ** 2).sum())
    inner = seen.first != VENUE
    for _ in range(steps):
        # Right perturbations T Exp(d): the error changes by d_second - Ad(between^-1) d_first, to first order (Barfoot 2017, 7.1).
        by_first = -between.inverse_mean().adjoint()[inner]
        root = np.sqrt(weight)[:, None] * scale
        rows = np.arange(6 * m).reshape(m, 6)
        data = [root[inner][:, :, None] * by_first, root[:, :, None] * np.eye(6)]
        row = [np.repeat(rows[inner][:, :, None], 6, 2), np.repeat(rows[:, :, None], 6, 2)]
        column = [
            np.repeat((6 * seen.first[inner][:, None] + np.arange(6))[:, None, :], 6, 1),
            np.repeat((6 * seen.second[:, None] + np.arange(6))[:, None, :], 6, 1),
        ]
        jacobian = coo_matrix(
            (np.concatenate([d.ravel() for d in data]), (np.concatenate([r.ravel() for r in row]), np.concatenate([c.ravel() for c in column]))),
            shape=(6 * m, 6 * n),
        ).tocsr()
        normal = (jacobian.T @ jacobian).tocsc()
        slope = jacobian.T @ (root * error).ravel()
        diagonal = normal.diagonal()
        damped = normal.copy()
        damped.setdiag(diagonal + damping * np.maximum(diagonal, 1.0))
        step = -splu(damped).solve(slope).reshape(n, 6)
        trial = poses @ Poses.exp(step)
        trial_error, trial_between = _errors(trial, seen)
        trial_cost = float((weight[:, None] * (trial_error * scale) ** 2).sum())
        if trial_cost <= cost:
            gained, poses, error, between, cost = cost - trial_cost, trial, trial_error, trial_between, trial_cost
            damping = max(damping / 10, 1e-9)
            if gained <= SETTLED * (1 + cost):
                break
        else:
            damping *= 100
    return poses
