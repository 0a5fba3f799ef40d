"""Who the people of a study are: what is known of each, the sizes of groups, bodies and speeds, who needs a step-free way.

Owns the columns and the draws; it moves nobody and knows no places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput
from simulation import chance
from simulation.models import Model
from simulation.study_spec import PRAM_M, PRAM_MPS, WHEELCHAIR_M, WHEELCHAIR_MPS, CrowdSpec, VisitorsSpec

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

WALK, SETTLE, STAY, LINE = range(4)
NEVER: Final = 2**31 - 1
NO_HOLD: Final = -1
STANDING: Final = -1
TO_SPOT: Final = -2

COLUMNS: Final[dict[str, Any]] = {
    "here": np.bool_, "place": np.int32, "phase": np.uint8, "until": np.int64, "spot_x": np.float64, "spot_y": np.float64, "moves": np.bool_,
    "wheels": np.bool_, "group": np.int64, "leads": np.bool_, "base": np.float64, "visitor": np.int32, "route": np.int32, "stage": np.int32,
    "stops": np.int32, "money": np.float64, "leave_by": np.int64, "draws": np.int64, "hold": np.int64, "leaving": np.bool_,
}  # fmt: skip


def with_bodies(spec: CrowdSpec, model: Model) -> CrowdSpec:
    """The scenario with the model's radius where it says none."""
    people = [p if p.radius_m else msgspec.structs.replace(p, radius_m=model.radius_m) for p in spec.people]
    visitors = [v if v.radius_m else msgspec.structs.replace(v, radius_m=model.radius_m) for v in spec.visitors]
    return msgspec.structs.replace(spec, people=people, visitors=visitors)


def rows_in_groups(ids: I8, people: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.intp]:
    """Rows of those who walk with a group: what leaned them a step ago is over."""
    return np.flatnonzero((people["group"][ids] >= 0) & ~people["moves"][ids])


def group_size(weights: Sequence[float], u: float) -> int:
    """The size of a group at quantile u. Raises InvalidInput for weights that are none."""
    weights = list(weights) or [1.0]
    total = np.cumsum(weights)
    if not 1 <= len(weights) <= 20 or min(weights) < 0 or not total[-1] > 0:
        raise InvalidInput(f"group_sizes = {weights}; give weights of groups of 1, 2, 3 ... people, 20 at most, none negative, one above 0")
    return int(np.searchsorted(total, u * total[-1], side="right")) + 1


def bodies_of(spec: VisitorsSpec, size: int, seed: int, first: int) -> tuple[list[float], list[float], bool]:
    """(radii, speeds, whether the group needs a step-free way) of a new group whose leader will be `first`."""

    def speed(of: tuple[float, float], who: int) -> float:
        return min(2.0, max(0.3, of[0] + of[1] * chance.normal(chance.uniform(seed, who, 901))))

    radius, pace, wheels = [], [], False
    pram = size > 1 and chance.uniform(seed, first, 902) < spec.prams
    for j in range(size):
        who = first + j
        chair = chance.uniform(seed, who, 903) < spec.wheelchairs
        pushes = pram and j == size - 1
        radius.append(WHEELCHAIR_M if chair else PRAM_M if pushes else spec.radius_m)
        pace.append(speed(WHEELCHAIR_MPS if chair else PRAM_MPS if pushes else spec.speed_mps, who))
        wheels = wheels or chair or pushes
    return radius, pace, wheels


def families(place: F8, weights: Sequence[float], rng: np.random.Generator) -> list[list[int]]:
    """Groups of people who stand near each other: each takes the nearest who are without one."""
    free = np.ones(len(place), np.bool_)
    found = []
    for i in range(len(place)):
        if free[i]:
            size = group_size(weights, float(rng.uniform()))
            others = np.flatnonzero(free)
            near = others[np.argsort(np.hypot(*(place[others] - place[i]).T), kind="stable")][:size]
            free[near] = False
            found.append([i, *(int(j) for j in near if j != i)])
    return found
