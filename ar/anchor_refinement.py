"""Anchors refined from what was seen of them: from held anchors and observations to a pose graph, and back to poses that the venue takes.

Owns the translation; the fit is `ar.pose_graph`. A host's pose is an observation from the venue, so a host that others contradict is told like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ar.anchor_records import DEFAULT_SIGMA_M, DEFAULT_SIGMA_RAD, Held, Observed, full_covariance
from ar.pose import Poses
from ar.pose_graph import VENUE, Observations, refine
from esplanade.core.errors import InvalidInput

WORTH_M: Final = 0.01
WORTH_RAD: Final = float(np.deg2rad(0.5))
"""An anchor that would move by less than both stays: each move is told to everyone."""


@dataclass(frozen=True, slots=True)
class RefinedAnchors:
    """moved: (id, version that it was found from, pose). astray: ids of anchors whose own hosts are contradicted. disputed: rows of the observations that do not hold."""

    moved: list[tuple[bytes, int, Poses]]
    astray: list[bytes]
    disputed: list[int]


def refine_anchors(anchors: Sequence[Held], seen: Sequence[Observed]) -> RefinedAnchors:
    """Refine anchors, each there once. Raises InvalidInput for an observation of one that is not there, LimitExceeded as `ar.pose_graph`."""
    at = {held.anchor.id: i for i, held in enumerate(anchors)}
    for observed in seen:
        for end in (observed.id, observed.seen_from):
            if end and end not in at:
                raise InvalidInput(f"observation of {observed.id.hex()}: anchor {end.hex()} is not among the {len(anchors)} to refine")
    if not anchors:
        return RefinedAnchors([], [], [])
    hosted = Poses.of([held.anchor.position_m for held in anchors], [held.anchor.rotation for held in anchors])
    sigmas = np.array([_sigmas(held) for held in anchors] + [(one.sigma_m, one.sigma_rad) for one in seen])
    measured = Poses.of([one.position_m for one in seen], [one.rotation for one in seen]) if seen else Poses.identity(0)
    n = len(anchors)
    observations = Observations(
        np.array([VENUE] * n + [at[one.seen_from] if one.seen_from else VENUE for one in seen], np.int64),
        np.array([*range(n), *(at[one.id] for one in seen)], np.int64),
        Poses(np.concatenate([hosted.translation_m, measured.translation_m]), np.concatenate([hosted.rotation, measured.rotation])),
        sigmas[:, 0],
        sigmas[:, 1],
    )
    found = refine(hosted, observations)
    moves = np.flatnonzero((found.moved_m > WORTH_M) | (found.moved_rad > WORTH_RAD)).tolist()
    conflicts = found.conflicts().tolist()
    return RefinedAnchors(
        [(anchors[i].anchor.id, anchors[i].version, found.poses[i]) for i in moves],
        [anchors[row].anchor.id for row in conflicts if row < n],
        [row - n for row in conflicts if row >= n],
    )


def _sigmas(held: Held) -> tuple[float, float]:
    if not held.anchor.covariance:
        return DEFAULT_SIGMA_M, DEFAULT_SIGMA_RAD
    spread = np.sqrt(np.diagonal(full_covariance(held.anchor.covariance)))
    return max(float(spread[:3].max()), 1e-4), max(float(spread[3:].max()), 1e-4)
