"""A scenario of walkers in a file: the ground, goals, hops, who comes when, and what to measure. Owns the format and the run; draws no picture.

The file is TOML. `examples` in `docs/crowd.md` show every key.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import shapely
from shapely.errors import ShapelyError
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from esplanade.core.errors import InvalidInput, NotFound
from simulation.floor import Floor, Hop, Slope
from simulation.hops import BOARD_M
from simulation.models import AnticipationVelocity, CollisionFreeSpeed, Model, SocialForce
from simulation.placing import spread, walking_speeds
from simulation.trajectories import Recorder, Recording
from simulation.walker_kernels import WALL_OVERLAP_M
from simulation.walkers import Goal, Walkers, WalkersReport

MODELS: Final[dict[str, type[CollisionFreeSpeed] | type[AnticipationVelocity] | type[SocialForce]]] = {
    "collision_free_speed": CollisionFreeSpeed, "anticipation_velocity": AnticipationVelocity, "social_force": SocialForce,
}  # fmt: skip
MAX_SECONDS: Final = 24 * 3600.0

Ring = list[tuple[float, float]]


class GroundSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A level: its outline, and holes that nobody enters; metres."""

    outline: Ring
    holes: list[Ring] = []


class GoalSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    area: Ring
    level: int = 0
    leave: bool = True


class HopSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"start": "from", "end": "to"}):
    id: str
    from_level: int
    start: tuple[float, float]
    to_level: int
    end: tuple[float, float]
    seconds: float
    every_s: float = 1.0
    room_for: int = 12


class SlopeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    area: Ring
    factor: float
    level: int = 0


class PeopleSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """count people spread over an area; speed_mps: mean and deviation; start_s: pre-movement times, uniform between both."""

    count: int
    area: Ring
    goal: str
    level: int = 0
    speed_mps: tuple[float, float] = (1.34, 0.26)
    radius_m: float = 0.2
    start_s: tuple[float, float] = (0.0, 0.0)


class CrowdSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scenario. jam_s: see `simulation.walkers.Walkers`; 0: the shortest ways for ever. record_s: seconds between two frames of the trajectories."""

    ground: list[GroundSpec]
    goals: list[GoalSpec]
    people: list[PeopleSpec]
    hops: list[HopSpec] = []
    slopes: list[SlopeSpec] = []
    model: str = "collision_free_speed"
    step_s: float = 0.05
    cell_m: float = 0.2
    seconds: float = 600.0
    seed: int = 1
    jam_s: float = 0.0
    record_s: float = 0.5


@dataclass(frozen=True, slots=True)
class CrowdOutcome:
    """What a run brought: trajectories, the report at its end, when people left (s, ascending), the digest of the end state, the deepest overlap met."""

    recording: Recording
    report: WalkersReport
    left_s: npt.NDArray[np.float64]
    digest: str
    overlap_m: float


def read_spec(path: Path) -> CrowdSpec:
    """A scenario from a TOML file. Raises NotFound, or InvalidInput with the file, the key and the rule."""
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(document, CrowdSpec)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file; give the path of a crowd scenario") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read ({error}); a crowd scenario is TOML in UTF-8") from None
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{path}: {error}; docs/crowd.md shows every key") from None


def _polygon(name: str, ring: Ring, holes: list[Ring] | None = None) -> Polygon:
    try:
        polygon = Polygon(ring, holes or [])
    except (ShapelyError, ValueError) as error:
        raise InvalidInput(f"{name}: {error}; a ring has three corners at least") from None
    if not polygon.is_valid or polygon.area <= 0:
        raise InvalidInput(f"{name}: its ring crosses itself or has no area; draw it anew")
    return polygon


def build(spec: CrowdSpec, *, threads: int | None = None) -> tuple[Walkers, list[BaseGeometry]]:
    """(walkers, ground of each level): everybody stands where they begin. Raises InvalidInput naming what cannot be."""
    if spec.model not in MODELS:
        raise InvalidInput(f"model {spec.model!r}: there are {', '.join(MODELS)}")
    if not 0 < spec.seconds <= MAX_SECONDS:
        raise InvalidInput(f"seconds = {spec.seconds}; must be above 0, at most a day")
    model: Model = MODELS[spec.model]()
    levels: list[BaseGeometry] = [_polygon(f"ground {k}", ground.outline, ground.holes) for k, ground in enumerate(spec.ground)]
    hops = [Hop(h.id, h.from_level, h.start, h.to_level, h.end, h.seconds, h.every_s, h.room_for) for h in spec.hops]
    slopes = [Slope(s.level, _polygon(f"slope {k}", s.area), s.factor) for k, s in enumerate(spec.slopes)]
    goals = [Goal(g.name, g.level, _polygon(f"goal {g.name}", g.area), g.leave) for g in spec.goals]
    number = {goal.name: k for k, goal in enumerate(goals)}
    fastest = max([2.0, *(people.speed_mps[0] + 3 * people.speed_mps[1] for people in spec.people)])
    widest = max([0.2, *(people.radius_m for people in spec.people)])
    walkers = Walkers(
        Floor.of(levels, cell_m=spec.cell_m, hops=hops, slopes=slopes), goals, model=model, step_s=spec.step_s, threads=threads, most_speed_mps=min(3.0, fastest),
        most_radius_m=widest, jam_s=spec.jam_s or None,
    )  # fmt: skip
    rng = np.random.default_rng(spec.seed)
    for k, people in enumerate(spec.people):
        if people.goal not in number:
            raise InvalidInput(f"people {k}: goal {people.goal!r}; there are {', '.join(number)}")
        if not 0 <= people.level < len(levels):
            raise InvalidInput(f"people {k}: level {people.level}; there are levels 0 to {len(levels) - 1}")
        place = spread(levels[people.level], people.count, rng=rng, radius_m=people.radius_m, within=_polygon(f"people {k}", people.area))
        _check_doors(k, people, place, levels[people.level], goals[number[people.goal]], hops)
        mean, sd = people.speed_mps
        walkers.add(
            place[:, 0], place[:, 1], goal=number[people.goal], level=people.level, speed_mps=walking_speeds(len(place), rng=rng, mean_mps=mean, sd_mps=sd),
            radius_m=people.radius_m, start_s=rng.uniform(*people.start_s, len(place)),
        )  # fmt: skip
    return walkers, levels


def _check_doors(k: int, people: PeopleSpec, place: npt.NDArray[np.float64], ground: BaseGeometry, goal: Goal, hops: list[Hop]) -> None:
    """Raises InvalidInput where walls leave somebody's body no way to the goal, nor to a hop: where the ground, less a body's half width, falls apart."""
    parts = shapely.get_parts(ground.buffer(-people.radius_m + WALL_OVERLAP_M, join_style="mitre"))
    ways_on: list[BaseGeometry] = [shapely.Point(hop.from_m).buffer(BOARD_M) for hop in hops if hop.from_level == people.level]
    ways_on += [goal.area] if goal.level == people.level else []
    leads = np.array([any(part.intersects(way) for way in ways_on) for part in parts], np.bool_)
    for part in parts[~leads]:
        shapely.prepare(part)
        caught = np.flatnonzero(shapely.intersects_xy(part, place[:, 0], place[:, 1]))
        if len(caught):
            x, y = place[caught[0]]
            raise InvalidInput(
                f"people {k}: {len(caught)} of them, the first at ({x:.2f}, {y:.2f}), have no way to goal {goal.name} nor to a hop that is as wide as a body "
                f"of radius {people.radius_m} m; widen the doors to {2 * people.radius_m:.2f} m at least"
            )


def run_crowd(spec: CrowdSpec, *, threads: int | None = None) -> CrowdOutcome:
    """Walk a scenario until all have left or its time is over. Raises as `build`."""
    walkers, _ = build(spec, threads=threads)
    every = max(1, round(spec.record_s / spec.step_s))
    recorder = Recorder(walkers, every=every)
    left: list[float] = []
    deepest = -1.0
    while walkers.time_s < spec.seconds - 1e-9 and (len(walkers) or walkers.hops.riders):
        for _ in range(every):
            walkers.step()
            left += [walkers.time_s] * len(walkers.left_now)
        deepest = max(deepest, walkers.overlap_m()[0])
        recorder.take()
    return CrowdOutcome(recorder.recording(), walkers.report(), np.array(left), walkers.digest(), max(0.0, deepest))


def ground_of(spec: CrowdSpec, level: int) -> BaseGeometry:
    """The ground of a level as a polygon."""
    return shapely.normalize(_polygon(f"ground {level}", spec.ground[level].outline, spec.ground[level].holes))
