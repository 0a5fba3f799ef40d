"""The places of a study: exits, goals, shops of a venue, services with their lines; and the floor with its connectors that they lie on.

Owns what is made of a scenario before anybody walks: every reference is looked up here, and what is wrong is named. It knows no people.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import shapely
from shapely.errors import ShapelyError
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from esplanade.core.errors import InvalidInput
from simulation.demand import Demand
from simulation.floor import Floor, Hop, Slope
from simulation.ground import CELL_M, Ground, survey
from simulation.models import model_of
from simulation.navigation import Links
from simulation.places import COUNTER, ENTRANCE, ZONE, find_places
from simulation.study_spec import CrowdSpec, GroundSpec, PeopleSpec, Ring, VisitorsSpec
from simulation.transport import Connector, Escalator, Lift, Stairs, join_levels
from simulation.waiting_lines import WaitingLine
from simulation.walker_kernels import WALL_OVERLAP_M
from spatial.plan import level_plan, shape
from spatial.venue import Connector as VenueConnector
from spatial.venue import Venue
from spatial.venue_files import load_venue

STOREY_M: Final = 5.0
ESCALATOR_DEG: Final = 30.0
STOP_M: Final = 2.5
"""A venue's stop is moved to open ground within this distance."""
LINE_M: Final = 1.0
"""Who is this close to a service's line or counters joins it."""
EXIT_M: Final = 1.5
GAP_SLACK_M: Final = 1e-3
"""Gaps are measured to so much."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where people of a study go. line: a service's; till: number of the service at which buyers of this place queue, or -1. room: people at most, 0: any number."""

    name: str
    level: int
    area: BaseGeometry
    leave: bool = False
    popularity: float = 0.0
    category: str = ""
    stay_s: tuple[float, float] = (300.0, 0.7)
    room: int = 0
    price: float = 0.0
    buys: float = 0.0
    till: int = -1
    line: WaitingLine | None = None
    known_as: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """Floor, ground of each level as polygons, connectors and places of a scenario. unlinked: ids of a venue's connectors that lack a stop on open ground.
    too_narrow: gaps that were closed, no body of the scenario fits through them."""

    floor: Floor
    levels: tuple[BaseGeometry, ...]
    connectors: tuple[Connector, ...]
    places: tuple[Place, ...]
    unlinked: tuple[str, ...]
    too_narrow: tuple[str, ...] = ()

    def number(self, name: str, what: str) -> int:
        """The place of this name (or, of a venue's shops, the only one of this occupant). Raises InvalidInput for none or several."""
        found = [k for k, place in enumerate(self.places) if place.name == name] or [
            k for k, place in enumerate(self.places) if place.known_as == name
        ]
        if len(found) != 1:
            names = [place.name for place in self.places]
            several = (
                f"{len(found)} places are called so, name one by id"
                if found
                else f"there are {', '.join(names[:40])}{' ...' if len(names) > 40 else ''}"
            )
            raise InvalidInput(f"{what}: goal {name!r}; {several}")
        return found[0]

    @property
    def exits(self) -> tuple[int, ...]:
        return tuple(k for k, place in enumerate(self.places) if place.leave)


def polygon(name: str, ring: Ring) -> Polygon:
    """A valid polygon of a ring. Raises InvalidInput with its name for a ring that is none."""
    try:
        found = Polygon(ring)
    except (ShapelyError, ValueError) as error:
        raise InvalidInput(f"{name}: {error}; a ring has three corners at least") from None
    if not found.is_valid or found.area <= 0:
        raise InvalidInput(f"{name}: its ring crosses itself or has no area; draw it anew")
    return found


def ground_of(name: str, spec: GroundSpec) -> BaseGeometry:
    """The outline less its holes, which may touch or cross it and each other (a wall is drawn as it stands). Raises InvalidInput with the number of a hole whose
    ring is none, and where nothing is left."""
    outline = polygon(name, spec.outline)
    holes = [polygon(f"{name}: hole {k}", hole) for k, hole in enumerate(spec.holes)]
    whole = Polygon(outline.exterior, [hole.exterior for hole in holes])
    if whole.is_valid:
        return whole
    left = outline.difference(shapely.union_all(holes))
    if left.area <= 0:
        raise InvalidInput(f"{name}: its holes leave nothing of it; draw them smaller")
    return left


def close_gaps(ground: BaseGeometry, radius_m: float) -> tuple[BaseGeometry, list[tuple[float, float]]]:
    """(ground less its gaps that a body of this radius does not fit through, a point in each). What is closed lies between two sides that such a body can be
    on: bodies lose nothing by it, and ways no longer lead them where they would be stuck. Corners and dead ends stay."""
    half = radius_m - WALL_OVERLAP_M
    roomy = ground.buffer(-half, join_style="mitre").buffer(half + GAP_SLACK_M, join_style="mitre")
    gaps = []
    for part in shapely.get_parts(ground.difference(roomy)):
        sides = shapely.get_parts(part.buffer(10 * GAP_SLACK_M).intersection(roomy))
        if sum(side.area > GAP_SLACK_M**2 for side in sides) > 1:
            gaps.append(part)
    if not gaps:
        return ground, []
    points = [part.representative_point() for part in gaps]
    return ground.difference(shapely.union_all(gaps)), [(point.x, point.y) for point in points]


def _narrowest_m(spec: CrowdSpec) -> float:
    """Radius of the narrowest bodies of a scenario; 0 where it has none."""
    crowds: list[PeopleSpec | VisitorsSpec] = [*spec.people, *spec.visitors]
    usual_m = model_of(spec.model, spec.parameters, parameter_set=spec.parameter_set).radius_m
    radii = [crowd.radius_m or usual_m for crowd in crowds]
    return min(radii, default=0.0)


def set_up(spec: CrowdSpec) -> Setting:
    """Floor, connectors and places. Raises InvalidInput naming what cannot be, NotFound for a venue that is not there."""
    if bool(spec.venue) == bool(spec.ground):
        raise InvalidInput("scenario: ground and venue; give one of both")
    connectors: list[Connector] = [Hop(h.id, h.from_level, h.start, h.to_level, h.end, h.seconds, h.every_s, h.room_for) for h in spec.hops]
    connectors += [
        Lift(c.id, tuple(c.stops), c.capacity, c.storey_s, c.start_s, c.door_s, c.board_s, c.dwell_s) for c in spec.lifts
    ]  # fmt: skip
    connectors += [Escalator(c.id, c.start, c.end, c.length_m, c.speed_mps, c.width_m, c.walking_share) for c in spec.escalators]
    connectors += [Stairs(c.id, c.bottom, c.top, c.length_m, c.width_m, c.slope_deg) for c in spec.stairs]
    places: list[Place] = []
    unlinked: tuple[str, ...] = ()
    too_narrow: tuple[str, ...] = ()
    if spec.venue:
        venue = load_venue(Path(spec.venue))
        plans = [level_plan(venue, k) for k in range(len(venue.levels))]
        ground = survey(venue, plans)
        levels: tuple[BaseGeometry, ...] = tuple(plan.free for plan in plans)
        floor = Floor.of_venue(ground, _no_links())
        known = {c.id for c in connectors}
        own, unlinked = venue_connectors(venue, ground)
        connectors += [c for c in own if c.id not in known]  # a scenario may say more of a connector than the venue does
        _check_times(f"venue {venue.id}", spec.stay_s)
        places += _venue_places(venue, ground, spec.stay_s)
        if spec.slopes:
            raise InvalidInput("slopes: a venue has none; leave them out, or give ground instead of the venue")
    else:
        drawn_levels, narrowest_m = [ground_of(f"ground {k}", ground) for k, ground in enumerate(spec.ground)], _narrowest_m(spec)
        closed = [close_gaps(ground, narrowest_m) if narrowest_m > WALL_OVERLAP_M else (ground, []) for ground in drawn_levels]
        levels = tuple(ground for ground, _ in closed)
        too_narrow = tuple(f"level {k}: ({x:.2f}, {y:.2f})" for k, (_, gaps) in enumerate(closed) for x, y in gaps)
        slopes = [Slope(s.level, polygon(f"slope {k}", s.area), s.factor) for k, s in enumerate(spec.slopes)]
        floor = Floor.of(levels, cell_m=spec.cell_m, slopes=slopes)
    floor = join_levels(floor, connectors)
    services = [s.name for s in spec.services]
    first = len(places) + len(spec.goals)
    for g in spec.goals:
        if g.till and g.till not in services:
            raise InvalidInput(f"goal {g.name}: till {g.till!r}; there are services {', '.join(services) or 'none'}")
        till = first + services.index(g.till) if g.till else -1
        drawn = polygon(f"goal {g.name}", g.area)
        if not 0 <= g.level < len(levels):
            raise InvalidInput(f"goal {g.name}: level {g.level}; there are levels 0 to {len(levels) - 1}")
        _check_times(f"goal {g.name}", g.stay_s)
        places.append(Place(g.name, g.level, drawn, g.leave, g.popularity, g.category, g.stay_s, g.room, g.price, g.buys, till))
    for s in spec.services:
        line = WaitingLine.of(s.name, s.counters, s.line, s.service_s)
        if not 0 <= s.level < len(levels):
            raise InvalidInput(f"service {s.name}: level {s.level}; there are levels 0 to {len(levels) - 1}")
        for x, y in [*s.counters, *s.line]:
            if not levels[s.level].covers(shapely.Point(x, y)):
                raise InvalidInput(
                    f"service {s.name}: ({x:g}, {y:g}) of level {s.level} is off the walkable ground; counters and the line lie where people stand"
                )
        area = shapely.union_all([shapely.LineString(s.line).buffer(LINE_M), shapely.MultiPoint(s.counters).buffer(LINE_M)])
        places.append(Place(s.name, s.level, area, False, s.popularity, s.category, line=line))
    names = [place.name for place in places]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"goal {name!r}: there are {names.count(name)} goals or services of this name; give each its own")
    if not places:
        raise InvalidInput("scenario: no goals; say where people walk to")
    return Setting(floor, levels, tuple(connectors), tuple(places), unlinked, too_narrow)


def _check_times(name: str, times: tuple[float, float]) -> None:
    if not (0 < times[0] <= 86_400 and 0 <= times[1] <= 3):
        raise InvalidInput(f"{name}: times of median {times[0]} s and sigma {times[1]}; above 0 s to a day, 0 to 3")


def _no_links() -> Links:
    none, real = np.zeros(0, np.int32), np.zeros(0)
    return Links(none, none, none, none, real, real, none, none, none, (), ())


def venue_connectors(venue: Venue, ground: Ground) -> tuple[list[Connector], tuple[str, ...]]:
    """(connectors, ids of those that cannot be used): the public ones, with a storey of 5 m where the venue says no more. Flights over more than one storey are
    one connector each, `id.1`, `id.2` ... from the first stop on."""
    found: list[Connector] = []
    unlinked: list[str] = []
    for c in venue.connectors:
        if c.access != "public":
            continue
        stops = [_open_stop(venue, ground, c, k) for k in range(len(c.stops))]
        if None in stops:
            unlinked.append(c.id)
        there = [(venue.level_index(stop.level_id), spot) for stop, spot in zip(c.stops, stops, strict=True) if spot is not None]
        if c.kind == "elevator":
            if len(there) >= 2:
                found.append(Lift(c.id, tuple((level, *spot) for level, spot in sorted(there))))
            continue
        flights = [k for k in range(len(stops) - 1) if stops[k] is not None and stops[k + 1] is not None]
        for k in flights:
            name = c.id if len(stops) == 2 else f"{c.id}.{k + 1}"
            a, b = ((venue.level_index(c.stops[j].level_id), *(stops[j] or (0.0, 0.0))) for j in (k, k + 1))
            rise = STOREY_M * abs(a[0] - b[0])
            low, high = (a, b) if a[0] < b[0] else (b, a)
            if c.kind == "escalator":
                length = rise / np.sin(np.radians(ESCALATOR_DEG))
                if c.direction in ("both", "forward"):
                    found.append(Escalator(name, a, b, float(length)))
                if c.direction in ("both", "backward"):
                    found.append(Escalator(name if c.direction == "backward" else f"{name}-back", b, a, float(length)))
            elif c.kind == "stairs":
                found.append(Stairs(name, low, high, float(rise / np.tan(np.radians(30.0)))))
            else:
                found.append(Stairs(name, low, high, min(100.0, float(rise / np.tan(np.radians(4.0)))), slope_deg=4.0))
    return found, tuple(unlinked)


def _open_stop(venue: Venue, ground: Ground, c: VenueConnector, k: int) -> tuple[float, float] | None:
    cells = ground.near(venue.level_index(c.stops[k].level_id), c.stops[k].point, STOP_M)
    cells = cells[ground.unit[cells] < 0]
    return (float(ground.x[cells[0]]), float(ground.y[cells[0]])) if len(cells) else None


def _venue_places(venue: Venue, ground: Ground, stay_s: tuple[float, float]) -> list[Place]:
    """Entrances (as exits), shops, counters, and zones before stages of a venue."""
    found = find_places(venue, Demand(hourly=()), ground)
    names = {occupant.unit_id: occupant for occupant in venue.occupants}
    places = []
    for k, name in enumerate(found.name):
        level, anchor = int(found.level[k]), int(found.anchor[k])
        if found.kind[k] == ENTRANCE:
            places.append(Place(name, level, shapely.Point(ground.x[anchor], ground.y[anchor]).buffer(EXIT_M), leave=True))
            continue
        occupant = names.get(name)
        if found.kind[k] in (COUNTER, ZONE):
            x, y = ground.x[found.spots_of(k)], ground.y[found.spots_of(k)]
            area = shapely.union_all(shapely.box(x - 0.5 * CELL_M, y - 0.5 * CELL_M, x + 0.5 * CELL_M, y + 0.5 * CELL_M))
        else:
            area = shape(venue.units[int(found.unit[k])].polygon)
        places.append(
            Place(
                name, level, area, False, float(found.weight[k]), occupant.category if occupant else "stage", stay_s, int(found.capacity[k]),
                known_as=occupant.name if occupant else "",
            )
        )  # fmt: skip
    return places
