"""Operational models: how a body chooses its next step from where others are, with parameters and their source.

Owns the parameters, the radius of the bodies that they go with, and the step each model bears; the formulas are in `simulation.walker_kernels`. Whatever the model wishes, no step brings bodies or walls
into each other (see `walker_kernels.limited`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput

F8 = npt.NDArray[np.float64]

NEGLIGIBLE: Final = 1e-4
"""A repulsion below this, relative to the wish to walk on, may be left out: it turns nobody by more than 0.006 degrees."""
MOST_MPS: Final = 3.0
COLLISION_FREE, ANTICIPATION, SOCIAL_FORCE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class CollisionFreeSpeed:
    """Collision-free speed model: Tordeux, Chraibi, Seyfried 2016 (Traffic and Granular Flow '15, p. 225-232; arXiv:1512.05597).

    Direction: wish + sum of a exp((l - s) / D) away from people in sight and walls. Speed: min(v0, max((s - s0) / T, s k)), s the gap to the nearest body in
    the strip ahead, s0 `stand_off_m`, k `shuffle_per_s`. Defaults as in JuPedSim 1.4, so that both can be compared; walls repel by exp((r - s) / D_w).

    The paper has s0 = k = 0: the length that people keep is that of their bodies. Apart, bodies can be as narrow as they are in doors while people in a crowd
    keep a distance (s0), closer than which they shuffle at k times the gap.
    """

    time_gap_s: float = 1.0
    repulsion: float = 8.0
    range_m: float = 0.1
    wall_repulsion: float = 5.0
    wall_range_m: float = 0.02
    stand_off_m: float = 0.0
    shuffle_per_s: float = 0.0
    radius_m: float = 0.2
    kind: int = COLLISION_FREE
    max_step_s: float = 0.25

    def reach_m(self) -> float:
        """Gaps beyond this need not repel anybody, nor add to what `headway_s` says of who slows them."""
        apart = self.stand_off_m + self.time_gap_s * MOST_MPS if self.stand_off_m > 0 else 0.0
        return max(self.range_m * math.log(max(1.0, self.repulsion / NEGLIGIBLE)), apart)

    def repulsion_at(self, gap_m: F8) -> F8:
        """What turns the wish away across gaps between bodies, relative to the wish."""
        return self.repulsion * np.exp(-gap_m / self.range_m)

    def headway_s(self) -> float:
        """Gaps beyond the desired speed times this slow nobody."""
        return self.time_gap_s

    def numbers(self) -> tuple[float, ...]:
        return (self.time_gap_s, self.repulsion, self.range_m, self.wall_repulsion, self.wall_range_m, self.stand_off_m, self.shuffle_per_s)


@dataclass(frozen=True, slots=True)
class AnticipationVelocity:
    """Anticipation velocity model: Xu, Shi, Chraibi, Seyfried 2021 (Transportation Research C 133, 103464).

    People ahead turn the wish to the side they will not be on: a (1 + (1 - e0 . e_j) / 2) exp(-s' / D), s' the gap foreseen after the anticipation time;
    the heading relaxes over the reaction time; speed as in the collision-free model. Of two sides alike the right is taken (the paper draws one).
    """

    time_gap_s: float = 1.06
    repulsion: float = 8.0
    range_m: float = 0.1
    wall_repulsion: float = 5.0
    wall_range_m: float = 0.02
    anticipation_s: float = 1.0
    reaction_s: float = 0.3
    radius_m: float = 0.2
    kind: int = ANTICIPATION
    max_step_s: float = 0.25

    def reach_m(self) -> float:
        """Gaps beyond this repel nobody: two who come at each other at 2 m/s foresee a gap shorter by 4 m/s times the anticipation time; 2 m/s are kept."""
        return self.range_m * math.log(max(1.0, 2.0 * self.repulsion / NEGLIGIBLE)) + 2.0 * self.anticipation_s

    def repulsion_at(self, gap_m: F8) -> F8:
        return self.repulsion * np.exp(-gap_m / self.range_m)

    def headway_s(self) -> float:
        return self.time_gap_s

    def numbers(self) -> tuple[float, ...]:
        return (self.time_gap_s, self.repulsion, self.range_m, self.wall_repulsion, self.wall_range_m, self.anticipation_s, self.reaction_s)


@dataclass(frozen=True, slots=True)
class SocialForce:
    """Social force model: Helbing, Farkas, Vicsek 2000 (Nature 407, 487-490): mass 80 kg, A 2000 N, B 0.08 m, k 1.2e5 kg/s2, kappa 2.4e5 kg/m/s, tau 0.5 s.

    Body compression and friction act where bodies touch; since no body goes more than a centimetre into another here, both stay far below the paper's.
    """

    relaxation_s: float = 0.5
    strength_n: float = 2000.0
    range_m: float = 0.08
    body_n_m: float = 1.2e5
    friction_kg_ms: float = 2.4e5
    mass_kg: float = 80.0
    radius_m: float = 0.2
    kind: int = SOCIAL_FORCE
    max_step_s: float = 0.05

    def reach_m(self) -> float:
        return self.range_m * math.log(self.strength_n / self.mass_kg / NEGLIGIBLE)

    def repulsion_at(self, gap_m: F8) -> F8:
        """Newtons between bodies."""
        return self.strength_n * np.exp(-gap_m / self.range_m)

    def headway_s(self) -> float:
        return 0.0

    def numbers(self) -> tuple[float, ...]:
        return (self.relaxation_s, self.strength_n, self.range_m, self.body_n_m, self.friction_kg_ms, self.mass_kg, 0.0)


Model = CollisionFreeSpeed | AnticipationVelocity | SocialForce

CALIBRATED: Final = CollisionFreeSpeed(time_gap_s=0.2, stand_off_m=0.275, shuffle_per_s=1.0, radius_m=0.15)
"""Held against the laboratory's runs, left out of the fit in turn (`benchmarks.crowd_calibration`; docs/validation.md)."""
PUBLISHED: Final = CollisionFreeSpeed()
_MODELS: Final[dict[str, Model]] = {
    "collision_free_speed": PUBLISHED, "anticipation_velocity": AnticipationVelocity(), "social_force": SocialForce(),
}  # fmt: skip
PARAMETER_SETS: Final = ("calibrated", "published")


def model_of(name: str, parameters: dict[str, float], *, parameter_set: str = "calibrated") -> Model:
    """The operational model of a name with its parameters of a set, some of them changed. Only the collision-free speed model has been calibrated: the others
    are as published in either set. Raises InvalidInput for a name, a set or a parameter that is not there."""
    if name not in _MODELS:
        raise InvalidInput(f"model {name!r}: there are {', '.join(_MODELS)}")
    if parameter_set not in PARAMETER_SETS:
        raise InvalidInput(f"parameter_set {parameter_set!r}: there are {', '.join(PARAMETER_SETS)}")
    published = _MODELS[name]
    base = CALIBRATED if published is PUBLISHED and parameter_set == "calibrated" else published
    known = [field.name for field in fields(base) if field.name not in ("kind", "max_step_s")]
    for parameter in parameters:
        if parameter not in known:
            raise InvalidInput(f"parameter {parameter!r}: {name} has {', '.join(known)}")
    more: dict[str, Any] = parameters
    return replace(base, **more)


def check_model(model: Model, step_s: float) -> None:
    """Raises InvalidInput for parameters that are not above 0, and for a step too large for the model."""
    if not 0.001 <= step_s <= model.max_step_s:
        raise InvalidInput(f"{type(model).__name__}: a step of {step_s} s; must be 0.001 to {model.max_step_s} s")
    used = model.numbers()[: 5 if model.kind == COLLISION_FREE else 7 if model.kind == ANTICIPATION else 6]
    if not all(0 < number < math.inf for number in used):
        raise InvalidInput(f"{model}: every parameter must be finite and above 0")
    if isinstance(model, CollisionFreeSpeed) and not (0 <= model.stand_off_m <= 1 and 0 <= model.shuffle_per_s * step_s <= 0.5):
        raise InvalidInput(
            f"{model}: stand_off_m must be 0 to 1 m, shuffle_per_s 0 to {0.5 / step_s:g}/s at a step of {step_s} s; people would step over gaps"
        )
    if model.kind != SOCIAL_FORCE and step_s > 0.5 * used[0]:
        raise InvalidInput(
            f"{type(model).__name__}: a step of {step_s} s with a time gap of {used[0]} s; at most half of it, people would step over gaps"
        )
