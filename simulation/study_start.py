"""The start of a study: people spread over their areas, visitors in the places they are in already, and the times at which others will come.

Owns what happens before the first step, and the checks that need the ways; who does what afterwards is `simulation.study`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from esplanade.core.errors import InvalidInput
from simulation.arrivals import ArrivalRate
from simulation.hops import BOARD_M
from simulation.placing import spread, walking_speeds
from simulation.study_people import STANDING, bodies_of, families, group_size
from simulation.study_places import Place, polygon
from simulation.study_spec import PRAM_M, PRAM_MPS, WHEELCHAIR_M, WHEELCHAIR_MPS, CrowdSpec, PeopleSpec, VisitorsSpec, seconds_after
from simulation.transport import Transport
from simulation.walker_kernels import WALL_OVERLAP_M
from simulation.walkers import RADIUS_M, SPEED_MPS

if TYPE_CHECKING:
    from simulation.study import Study

F8 = npt.NDArray[np.float64]

DAY_S: Final = 86_400.0


def check_crowds(spec: CrowdSpec) -> None:
    """Raises InvalidInput that names the first entry of people or visitors whose numbers cannot be."""
    crowds: list[tuple[str, PeopleSpec | VisitorsSpec]] = [(f"people {k}", people) for k, people in enumerate(spec.people)]
    crowds += [(f"visitors {k}", visitors) for k, visitors in enumerate(spec.visitors)]
    for what, crowd in crowds:
        mean, sd = crowd.speed_mps
        if not (SPEED_MPS[0] <= mean <= SPEED_MPS[1] and 0.0 <= sd <= 1.0):
            raise InvalidInput(f"{what}: speed_mps = [{mean}, {sd}]; mean {SPEED_MPS[0]} to {SPEED_MPS[1]} m/s, deviation 0 to 1 m/s")
        if not RADIUS_M[0] <= crowd.radius_m <= RADIUS_M[1]:
            raise InvalidInput(
                f"{what}: radius_m = {crowd.radius_m}; must be {RADIUS_M[0]} to {RADIUS_M[1]} m, or 0 for what goes with the parameters"
            )
    for k, people in enumerate(spec.people):
        if people.count < 1:
            raise InvalidInput(f"people {k}: count = {people.count}; must be 1 or more, else leave the entry out")
        first, last = people.start_s
        if not 0.0 <= first <= last <= DAY_S or not (0.0 <= people.premovement_s[0] <= DAY_S and 0.0 <= people.premovement_s[1] <= 3.0):
            raise InvalidInput(
                f"people {k}: start_s = {list(people.start_s)}, premovement_s = {list(people.premovement_s)}; start_s from 0 s on, ascending; a median up to a day, "
                "sigma 0 to 3"
            )


def check_levels(study: Study) -> None:
    """Raises InvalidInput that names a level from whose places no way leads to an exit, and takes down in `study.cut_off` other places that none leads from."""
    exits = study.setting.exits
    if not exits:
        return
    out = study.walkers.leads_to(exits)
    cut_off = [k for k, place in enumerate(study.places) if not place.leave and not out[study._cells[k]].any()]
    for level in sorted({study.places[k].level for k in cut_off}):
        here = [k for k, place in enumerate(study.places) if place.level == level and not place.leave]
        if set(here) <= set(cut_off):
            names = ", ".join(study.places[k].name for k in here[:5])
            raise InvalidInput(
                f"level {level}: no way leads from it to an exit, {names} cannot be visited; join it by a lift, an escalator or stairs"
            )
    study.cut_off = tuple(study.places[k].name for k in cut_off)


def place_people(study: Study, k: int, people: PeopleSpec) -> None:
    """Spread one entry of people over its area."""
    spec, setting, rng = study.spec, study.setting, study._rng
    route = tuple(setting.number(name, f"people {k}") for name in [*people.via, people.goal])
    if not 0 <= people.level < len(setting.levels):
        raise InvalidInput(f"people {k}: level {people.level}; there are levels 0 to {len(setting.levels) - 1}")
    with_wheels = people.prams > 0 or people.wheelchairs > 0
    widest = max(people.radius_m, WHEELCHAIR_M if with_wheels else 0.0)
    ground = setting.levels[people.level]
    area = polygon(f"people {k}", people.area)
    if not ground.intersects(area):
        raise InvalidInput(f"people {k}: their area lies in walls or off level {people.level}; draw it on walkable ground")
    try:
        place = spread(ground, people.count, rng=rng, radius_m=widest, within=area)
    except InvalidInput as error:
        raise InvalidInput(f"people {k}: {error.message}") from None
    if not spec.venue:
        _check_doors(k, people, place, ground, study.places[route[-1]], [study.places[q] for q in route], study.transport)
    mean, sd = people.speed_mps
    n = len(place)
    speed = walking_speeds(n, rng=rng, mean_mps=mean, sd_mps=sd)
    start = rng.uniform(*people.start_s, n)
    if people.premovement_s[0] > 0:
        start = people.premovement_s[0] * np.exp(people.premovement_s[1] * rng.standard_normal(n))
    radius, wheels = np.full(n, people.radius_m), np.zeros(n, np.bool_)
    family: list[list[int]] = [[i] for i in range(n)] if not people.group_sizes else families(place, people.group_sizes, rng)
    if with_wheels:
        for group in family:
            pram = len(group) > 1 and rng.uniform() < people.prams
            for j, i in enumerate(group):
                chair = rng.uniform() < people.wheelchairs
                if chair or (pram and j == len(group) - 1):
                    radius[i] = WHEELCHAIR_M if chair else PRAM_M
                    speed[i] = float(walking_speeds(1, rng=rng, mean_mps=(WHEELCHAIR_MPS if chair else PRAM_MPS)[0], sd_mps=0.2)[0])
                    wheels[group] = True
    goal = route[0] + len(study.places) * wheels
    for shift in {0, len(study.places)} if wheels.any() else {0}:
        _check_route(study, k, route, shift)
    try:
        ids = study.walkers.add(place[:, 0], place[:, 1], goal=goal, level=people.level, speed_mps=speed, radius_m=radius, start_s=start)
    except InvalidInput as error:
        raise InvalidInput(f"people {k}: {error.message}") from None
    study._enlist(ids)
    p = study.people
    p["place"][ids], p["wheels"][ids], p["base"][ids] = route[0], wheels, speed
    study.bound[route[0]] += n
    study._routes.append(route)
    p["route"][ids] = len(study._routes) - 1
    for group in family:
        if len(group) > 1:
            members = ids[group]
            p["group"][members], p["leads"][members] = len(study._members), False
            p["leads"][members[0]] = True
            study._members.append(members.tolist())
            study.walkers.rows["start_step"][-n:][group] = study.walkers.rows["start_step"][-n:][group].max()


def _check_route(study: Study, k: int, route: Sequence[int], shift: int) -> None:
    """Raises InvalidInput where no way leads from one place of a route to the next."""
    study.walkers.know(shift + place for place in route[1:])
    for a, b in pairwise(route):
        if not np.isfinite(study.walkers.distance_m[shift + b, study._anchor[a]]):
            wheels = " for people on wheels" if shift else ""
            raise InvalidInput(
                f"people {k}: no way leads from {study.places[a].name} to {study.places[b].name}{wheels}; join them by a door or a connector"
            )


def expect(study: Study, k: int, visitors: VisitorsSpec) -> None:
    """Draw when visitors come, and put those in who are there already."""
    spec, rng, w = study.spec, study._rng, study.walkers
    what = f"visitors {k}"
    doors = study._exits_of(k)
    if not doors or not all(study.places[door].leave for door in doors):
        raise InvalidInput(f"{what}: exits {visitors.exits}; name goals with leave = true, people come and leave by them")
    if not (study._likes[k] > 0).any():
        raise InvalidInput(f"{what}: no place has a popularity above 0 that they like; give goals or services one")
    group_size(visitors.group_sizes, 0.5)
    if not (0 <= visitors.prams <= 1 and 0 <= visitors.wheelchairs <= 1 and visitors.stops >= 1 and visitors.range_m > 0 and visitors.inside >= 0):
        raise InvalidInput(f"{what}: prams and wheelchairs are shares of 0 to 1, stops 1 or more, range above 0 m, inside 0 or more")
    if visitors.hourly:
        begins = seconds_after(spec.starts, visitors.start or spec.starts, f"{what}.from")
        rate = ArrivalRate.fit(visitors.hourly)
        weights = visitors.group_sizes or [1.0]
        mean_size = float(np.average(np.arange(1, len(weights) + 1), weights=weights))
        times = begins + rate.sample(max(0.0, -begins), max(0.0, spec.seconds - begins), rng=rng, share=1.0 / mean_size)
        study._arrivals = sorted([*study._arrivals, *((int(step), k) for step in np.round(times / w.step_s))])
    _fill(study, k, visitors)


def _fill(study: Study, k: int, visitors: VisitorsSpec) -> None:
    """Put `inside` people into the places, by popularity, as far as each has room."""
    floor, rng, w = study.walkers.floor, study._rng, study.walkers
    stride = int(np.ceil((2 * WHEELCHAIR_M + 0.05) / floor.cell_m))
    free: dict[int, list[int]] = {}
    exits = study._exits_of(k)
    with_wheels = visitors.prams > 0 or visitors.wheelchairs > 0
    out = w.leads_to(exits)
    out_step_free = w.leads_to(exits, step_free=True) if with_wheels else out
    for place in np.flatnonzero(study._likes[k] > 0).tolist() if visitors.inside else []:
        cells = study._cells[place] if place not in study.lines else np.zeros(0, np.int32)
        g = floor.raster[cells]
        grid = (g % floor.nx % stride == 0) & (g // floor.nx % floor.ny % stride == 0)
        cells = cells[grid & (floor.clearance[cells] >= WHEELCHAIR_M + 0.02) & out[cells]]
        free[place] = rng.permutation(cells).tolist()[: int(study._room[place])]
    added, left = w.report().added, visitors.inside
    found: list[tuple[int, list[int], list[float], list[float], bool]] = []
    while left > 0:
        open_places = [place for place, cells in free.items() if cells]
        if not open_places:
            raise InvalidInput(f"visitors {k}: {visitors.inside} inside at the start, the places hold {visitors.inside - left}; lower it")
        weight = study._likes[k][open_places]
        place = open_places[int(rng.choice(len(open_places), p=weight / weight.sum()))]
        first = added + visitors.inside - left + 1
        size = min(left, group_size(visitors.group_sizes, rng.uniform()), len(free[place]))
        radius, speed, wheels = bodies_of(visitors, size, study.spec.seed, first)
        taken = [free[place].pop() for _ in range(size)]
        if wheels and not out_step_free[taken].any():
            radius, wheels = [visitors.radius_m] * size, False
        found.append((place, taken, radius, speed, wheels))
        left -= size
    if not found:
        return
    at = np.array([cell for _, taken, *_ in found for cell in taken], np.int32)
    radii = [one for _, _, radius, _, _ in found for one in radius]
    speeds = [one for _, _, _, speed, _ in found for one in speed]
    ids = w.add(floor.x[at], floor.y[at], goal=STANDING, level=floor.level_of(at), speed_mps=speeds, radius_m=radii)
    study._enlist(ids)
    done = 0
    for place, taken, _, speed, wheels in found:
        study._admit(k, ids[done : done + len(taken)], speed, wheels, place, inside=True)
        done += len(taken)


def _check_doors(k: int, people: PeopleSpec, place: F8, ground: BaseGeometry, goal: Place, route: Sequence[Place], transport: Transport) -> None:
    """Raises InvalidInput where walls leave somebody's body no way to a place, nor to a connector: where the ground, less a body's half width, falls apart."""
    parts = shapely.get_parts(ground.buffer(-people.radius_m + WALL_OVERLAP_M, join_style="mitre"))
    floor = transport._floor
    starts = floor.hop_start[floor.level_of(floor.hop_start) == people.level] if len(floor.hop_start) else np.zeros(0, np.int32)
    if not len(starts) and all(q.level != people.level for q in route):
        raise InvalidInput(
            f"people {k}: level {people.level} has no connector, no way leads to goal {goal.name}; join it by a lift, an escalator or stairs"
        )
    ways_on: list[BaseGeometry] = [shapely.Point(floor.x[cell], floor.y[cell]).buffer(BOARD_M) for cell in starts]
    ways_on += [q.area for q in route if q.level == people.level]
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
