"""Who travels, and what each way between levels asks of them: speeds, waiting, and what is allowed, avoided or forbidden.

Owns the rules that turn a connector into seconds and metres for a profile. It knows nothing of geometry or live changes.

Sources. Walking 1.34 m/s, stairs 0.610 m/s up and 0.694 m/s down along the horizontal (Weidmann 1993, tables 2 and 9); a stair of 27 degrees rises half of
that. Escalators 0.5 m/s at 30 degrees (EN 115-1: nominal speed), a rise of 0.25 m/s. Wheelchair 0.89 m/s on the level (Boyce, Shields and Silcock 1999, manual
chairs). Lift: waiting and doors are the usual planning figures (CIBSE Guide D: mean waiting 30 s in shops). Ramp: 1 in 12.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from esplanade.core.errors import InvalidInput

Way = Literal["stairs_up", "stairs_down", "escalator_up", "escalator_down", "elevator", "ramp"]
Rule = Literal["allow", "avoid", "forbid"]
By = Literal["fastest", "shortest"]

WAYS: Final[tuple[Way, ...]] = ("stairs_up", "stairs_down", "escalator_up", "escalator_down", "elevator", "ramp")

STOREY_M: Final = 4.5
"""Rise from a level to the next by ordinal: plans give no heights, and shops' storeys are 4 to 5 m."""

WALK_MPS: Final = 1.34
RISE_MPS: Final[dict[Way, float]] = {
    "stairs_up": 0.305, "stairs_down": 0.347, "escalator_up": 0.25, "escalator_down": 0.25, "elevator": 1.0, "ramp": 1.34 / 12,
}  # fmt: skip
BOARD_S: Final[dict[Way, float]] = {
    "stairs_up": 0.0, "stairs_down": 0.0, "escalator_up": 2.0, "escalator_down": 2.0, "elevator": 40.0, "ramp": 0.0,
}  # fmt: skip
"""Seconds before a ride begins: stepping on; for a lift 30 s of waiting and 10 s of doors. `Live.wait_s` overrides it for a connector."""

OWN_PACE: Final = frozenset({"stairs_up", "stairs_down", "ramp"})
"""Ways on which one walks, so that a slow walker is slow there too."""

AVOID_S: Final = 180.0
AVOID_M: Final = 200.0
"""What one ride on an avoided way costs extra when routes are compared; it is not in the seconds or metres that a route reports."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How someone travels. `rules` lists what is not plainly allowed. Raises InvalidInput for a speed outside 0.1 to 10 m/s or a way or rule unknown."""

    name: str
    speed_mps: float = WALK_MPS
    rules: frozenset[tuple[Way, Rule]] = field(default_factory=frozenset)
    staff: bool = False

    def __post_init__(self) -> None:
        if not 0.1 <= self.speed_mps <= 10:
            raise InvalidInput(f"profile {self.name}: speed {self.speed_mps} m/s; give 0.1 to 10")
        ways = [way for way, _ in self.rules]
        wrong = sorted(
            {way for way in ways if way not in WAYS or ways.count(way) > 1} | {r for _, r in self.rules if r not in ("allow", "avoid", "forbid")}
        )
        if wrong:
            raise InvalidInput(f"profile {self.name}: {', '.join(wrong)}; each of {', '.join(WAYS)} at most once, as allow, avoid or forbid")

    def rule(self, way: Way) -> Rule:
        return next((rule for listed, rule in self.rules if listed == way), "allow")

    def with_rules(self, **rules: Rule) -> Profile:
        """This profile with some ways' rules replaced, as `WALKING.with_rules(elevator="forbid")`."""
        kept = {way: rule for way, rule in self.rules if way not in rules}
        return Profile(self.name, self.speed_mps, frozenset([*kept.items(), *rules.items()]), self.staff)  # type: ignore[list-item]

    def seconds(self, way: Way, storeys: int, wait_s: float | None = None) -> float:
        """Boarding and riding time over that many storeys."""
        pace = self.speed_mps / WALK_MPS if way in OWN_PACE else 1.0
        return (BOARD_S[way] if wait_s is None else wait_s) + storeys * STOREY_M / (RISE_MPS[way] * pace)


WALKING: Final = Profile("walking")
WHEELCHAIR: Final = Profile(
    "wheelchair", 0.89,
    frozenset({("stairs_up", "forbid"), ("stairs_down", "forbid"), ("escalator_up", "forbid"), ("escalator_down", "forbid")}),
)  # fmt: skip
PRAM: Final = Profile(
    "pram", 1.1,
    frozenset({("stairs_up", "avoid"), ("stairs_down", "avoid"), ("escalator_up", "forbid"), ("escalator_down", "forbid")}),
)  # fmt: skip
"""A pram is carried on stairs where there is no other way, and is not allowed on escalators."""

PROFILES: Final[dict[str, Profile]] = {profile.name: profile for profile in (WALKING, WHEELCHAIR, PRAM)}
