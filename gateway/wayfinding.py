"""Directions and isochrones for clients: a router a venue's document, under what is closed now.

Owns the routers, by digest, and one worker thread that all their work is done in, so that no socket waits for a long answer. What is closed is asked of the
venue's mall for every request: a lift that was closed before a request was sent is not in its answer. Computes no way itself (`spatial.routing` does).

At MAX_WAITING requests (isochrones and distances: MAX_SPREADING) the next is refused with `limit`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import numpy.typing as npt

from actors.messages import Crowded
from esplanade.core.errors import InvalidInput, LimitExceeded, NotFound
from gateway import frames as f
from gateway.distances import check_count, distances_of
from gateway.frames.distances import Distances, GetDistances
from gateway.venues import VenueCache, VenueFacts
from spatial.live import Crowding, crowd_factor, live_of
from spatial.profiles import PROFILES, Profile, Rule, Way
from spatial.routes import At, NoRoute, Place, Route, Walk
from spatial.venue import Venue
from spatial.venue_files import parse_venue

if TYPE_CHECKING:
    from spatial.directions import Guide
    from spatial.routing import Router

MAX_ROUTERS: Final = 8
"""Venues whose router is kept (some tens of MB each); the one used longest ago goes first. Building one anew takes about a second."""
MAX_GENERATIONS: Final = 8
"""Sets of closed things a venue whose router is kept."""
MAX_WAITING: Final = 256
MAX_SPREADING: Final = 8
MAX_CANDIDATES: Final = 500
"""Places of a category that are compared; a category with more is refused."""

T = TypeVar("T")


@dataclass(slots=True)
class _Ways:
    """A venue's router as planned, its words, and the routers of what was closed lately."""

    plain: Router
    guide: Guide
    categories: Mapping[str, Sequence[str]]
    under: OrderedDict[frozenset[str], Router] = field(default_factory=OrderedDict)
    among: tuple[tuple[frozenset[str], tuple[Crowded, ...]], Router] | None = None

    def router(self, closed: frozenset[str]) -> Router:
        if not closed:
            return self.plain
        found = self.under.get(closed)
        if found is None:
            found = self.under[closed] = self.plain.with_live(live_of(self.plain.venue, closed))
            if len(self.under) > MAX_GENERATIONS:
                self.under.popitem(last=False)
        self.under.move_to_end(closed)
        return found

    def router_among(self, closed: frozenset[str], crowding: Sequence[Crowded]) -> Router:
        """The router through a crowd, made anew where people are elsewhere now than at the last question: some 15 ms for a mall of four levels."""
        asked = closed, tuple(crowding)
        if self.among is None or self.among[0] != asked:
            slow = {one.level: Crowding(one.x0_m, one.y0_m, one.cell_m, _factor(one)) for one in crowding if one.level < len(self.plain.venue.levels)}
            self.among = asked, self.plain.with_live(replace(live_of(self.plain.venue, closed), crowding=slow))
        return self.among[1]


def _factor(crowded: Crowded) -> npt.NDArray[np.float64]:
    """How much slower each cell is. (rows, columns)."""
    people = np.frombuffer(crowded.count, "<u2").reshape(crowded.rows, crowded.cols)
    return crowd_factor(people / crowded.cell_m**2)


def categories_of(venue: Venue) -> dict[str, list[str]]:
    """Places by category: of occupants, of units other than plain rooms, of amenities; `restroom` holds `restroom.female` too."""
    found: dict[str, list[str]] = {}
    named = [(occupant.category, occupant.unit_id) for occupant in venue.occupants]
    named += [(unit.category, unit.id) for unit in venue.units if unit.category != "room"]
    named += [(amenity.category, amenity.id) for amenity in venue.amenities]
    for category, place in named:
        for name in {category, category.partition(".")[0]}:
            found.setdefault(name, []).append(place)
    return found


class Wayfinder:
    """One a process."""

    def __init__(self, venues: VenueCache) -> None:
        self._venues = venues
        self._ways: OrderedDict[str, asyncio.Future[_Ways]] = OrderedDict()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ways")
        self._waiting = self._spreading = 0

    def stop(self) -> None:
        """Give up what waits."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def route(
        self, facts: VenueFacts, frame: f.GetRoute, here: At | None, closed: frozenset[str], crowding: Sequence[Crowded] = ()
    ) -> f.Route | f.NoRoute:  # fmt: skip
        """The answer to a request; `here`: where who asks was last seen; `crowding`: where people are now, for one that avoids them. Raises NotFound, InvalidInput, LimitExceeded, Unavailable."""
        profile = profile_of(frame.profile, frame.ways)
        ways = await self._of(facts)
        return await self._work(partial(_route, ways, frame, profile, here, closed, crowding))

    async def distances(self, facts: VenueFacts, frame: GetDistances, closed: frozenset[str]) -> Distances:
        """Likewise; at most MAX_SPREADING of them and of isochrones are under way."""
        profile = profile_of(frame.profile, frame.ways)
        check_count(frame)
        with self._spread("distances"):
            ways = await self._of(facts)
            return await self._work(lambda: distances_of(ways.router(closed), frame, profile))

    async def isochrone(self, facts: VenueFacts, frame: f.GetIsochrone, here: At | None, closed: frozenset[str]) -> f.Isochrone | f.NoRoute:
        """Likewise."""
        profile = profile_of(frame.profile, frame.ways)
        with self._spread("isochrones"):
            ways = await self._of(facts)
            return await self._work(partial(_isochrone, ways, frame, profile, here, closed))

    @contextmanager
    def _spread(self, what: str) -> Iterator[None]:
        """One of the requests that take long. Raises LimitExceeded."""
        if self._spreading >= MAX_SPREADING:
            raise LimitExceeded(f"{self._spreading} {what} or the like are under way; at most {MAX_SPREADING} in one gateway, ask again in a second")
        self._spreading += 1
        try:
            yield
        finally:
            self._spreading -= 1

    async def _of(self, facts: VenueFacts) -> _Ways:
        """The ways of a document, built once however many ask."""
        building = self._ways.get(facts.digest)
        if building is None or (building.done() and (building.cancelled() or building.exception() is not None)):
            building = self._ways[facts.digest] = asyncio.ensure_future(self._build(facts))
            building.add_done_callback(lambda done: done.cancelled() or done.exception())
            if len(self._ways) > MAX_ROUTERS:
                self._ways.popitem(last=False)
        self._ways.move_to_end(facts.digest)
        return await asyncio.shield(building)

    async def _build(self, facts: VenueFacts) -> _Ways:
        return await self._work(partial(_built, await self._venues.document(facts), f"venue {facts.venue}"))

    async def _work(self, call: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise LimitExceeded(f"{self._waiting} ways are being looked for; at most {MAX_WAITING} in one gateway, ask again in a second")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, call)
        finally:
            self._waiting -= 1


def profile_of(name: str, ways: Mapping[Way, Rule]) -> Profile:
    """A known profile with some ways' rules replaced. Raises InvalidInput."""
    profile = PROFILES.get(name)
    if profile is None:
        raise InvalidInput(f"profile {name[:40]!r}: there are {', '.join(PROFILES)}")
    return profile.with_rules(**{str(way): rule for way, rule in ways.items()}) if ways else profile


def _built(document: bytes, where: str) -> _Ways:
    from spatial.directions import Guide
    from spatial.routing import Router  # its kernels take half a second to load: here, in a thread of ours, not at the start of every gateway

    router = Router.build(parse_venue(document, where))
    return _Ways(router, Guide(router), categories_of(router.venue))


def _place(spot: f.Spot | None, here: At | None, which: str) -> Place:
    """The one place that a spot names; None: where I was last seen."""
    if spot is None:
        if here is None:
            raise InvalidInput(f"{which}: left out, and you are not seen in this venue; give a place, or a level, x and y")
        return here
    point = spot.level, spot.x, spot.y
    named = [name for name in (spot.place, spot.category) if name is not None]
    if spot.place is not None and len(named) == 1 and point == (None, None, None):
        return spot.place
    if not named and spot.level is not None and spot.x is not None and spot.y is not None:
        return At(spot.level, spot.x, spot.y)
    raise InvalidInput(f"{which} {spot}: give one of a place, or level, x and y (all three), or for a goal a category")


def _goal(ways: _Ways, router: Router, spot: f.Spot, start: Place, profile: Profile, by: str, here: At | None) -> Place:
    """Where to go: of a category, what is reached soonest (ties in the venue's order)."""
    if spot.category is None:
        return _place(spot, here, "goal")
    if (spot.place, spot.level, spot.x, spot.y) != (None, None, None, None):
        raise InvalidInput(f"goal {spot}: give one of a place, a category, or level, x and y")
    found = ways.categories.get(spot.category, ())
    if not found:
        raise NotFound(f"category {spot.category[:100]!r}: venue {router.venue.id} has no store, unit or amenity of it")
    if len(found) > MAX_CANDIDATES:
        raise InvalidInput(f"category {spot.category[:100]!r}: {len(found)} places; at most {MAX_CANDIDATES} are compared, name a narrower one")
    cost = router.matrix([start], found, profile=profile, by="shortest" if by == "shortest" else "fastest")[0]
    return found[int(cost.argmin())]


def _route(
    ways: _Ways, frame: f.GetRoute, profile: Profile, here: At | None, closed: frozenset[str], crowding: Sequence[Crowded]
) -> f.Route | f.NoRoute:  # fmt: skip
    router = ways.router_among(closed, crowding) if crowding else ways.router(closed)
    start = _place(frame.start, here, "start")
    goal = _goal(ways, router, frame.goal, start, profile, frame.by, here)
    found = router.route(start, goal, profile=profile, by=frame.by)
    if isinstance(found, NoRoute):
        return f.NoRoute(seq=frame.seq, reason=found.reason, message=found.message)
    from spatial.directions import english

    words = english(ways.guide.steps(found, start, goal)) if found.legs else ()
    return f.Route(
        seq=frame.seq, goal=goal if isinstance(goal, str) else None, metres=found.length_m, seconds=found.seconds, legs=legs_of(found), words=words
    )  # fmt: skip


def legs_of(route: Route) -> tuple[f.WalkLeg | f.RideLeg, ...]:
    """Legs as the wire has them."""
    return tuple(
        f.WalkLeg(leg.level, leg.points[:, 0].astype("<f4").tobytes(), leg.points[:, 1].astype("<f4").tobytes(), leg.length_m, leg.seconds)
        if isinstance(leg, Walk)
        else f.RideLeg(leg.connector_id, leg.way, leg.from_level, leg.to_level, leg.wait_s, leg.seconds)
        for leg in route.legs
    )


def _isochrone(ways: _Ways, frame: f.GetIsochrone, profile: Profile, here: At | None, closed: frozenset[str]) -> f.Isochrone | f.NoRoute:
    found = ways.router(closed).isochrone(_place(frame.start, here, "start"), frame.within_s, profile=profile, cell_m=frame.cell_m)
    if isinstance(found, NoRoute):
        return f.NoRoute(seq=frame.seq, reason=found.reason, message=found.message)
    reached = np.isfinite(found.seconds)
    points = found.points
    return f.Isochrone(
        seq=frame.seq, cell_m=found.cell_m, level=points.level[reached].astype(np.uint8).tobytes(), x=points.x_m[reached].astype("<f4").tobytes(),
        y=points.y_m[reached].astype("<f4").tobytes(), seconds=found.seconds[reached].astype("<f4").tobytes(), places=found.places,
    )  # fmt: skip
