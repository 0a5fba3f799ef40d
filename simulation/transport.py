"""Lifts, escalators and stairs in operation: who steps on when, how long the ride takes, where the car is, and how long people waited.

Owns what a connector is and how it serves; `Transport` takes the place of `simulation.hops.Hops` in walkers whose floor `join_levels` made. It never draws
chance: who walks on an escalator is a hash of the person. What is measured (waits, trips) counts from the start or from the last resume.

Sources. Escalators: EN 115-1 table H.1, most people an hour by width of the step and speed. Stairs: Weidmann 1993, 0.61 m/s up and 0.69 m/s down horizontally at
30 degrees and at most 0.85 persons/m/s; Fruin 1971 for how speeds change between 27 and 32 degrees. Lifts: a car that goes on in its direction while somebody
calls from there or wants to get there, and turns then (collective control; CIBSE Guide D, its times).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput
from simulation import chance
from simulation.floor import BODY_M, Floor, Hop
from simulation.hops import BOARD_M, Hops

if TYPE_CHECKING:
    from simulation.walkers import Goal, Walkers

F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]

FREE_MPS: Final = 1.34
STAIRS_MPS: Final = {"up": 0.61, "down": 0.69}
FRUIN_MPS: Final = {"up": (0.57, 0.51), "down": (0.77, 0.67)}
"""Horizontal speeds at 27 and at 32 degrees (Fruin 1971); between them, and a little beyond, a straight line scales Weidmann's, which hold at 30."""
STEEP_DEG: Final = (15.0, 45.0)
RAMP_DEG: Final = 6.0
"""Up to this slope a way between levels is a ramp: walked at full speed, and free of steps."""
STAIRS_FLOW_PER_M_S: Final = 0.85
STAIRS_PER_M2: Final = 2.0
"""People inside at most; at the largest flow there are 1.4."""
ESCALATOR_PER_H: Final[dict[tuple[float, float], int]] = {
    (0.6, 0.5): 3600, (0.8, 0.5): 4800, (1.0, 0.5): 6000, (0.6, 0.65): 4400, (0.8, 0.65): 5900, (1.0, 0.65): 7300, (0.6, 0.75): 4900, (0.8, 0.75): 6600,
    (1.0, 0.75): 8200,
}  # fmt: skip
STEP_M: Final = 0.4
WALK_ON_MPS: Final = 0.6
"""How fast those who do not stand climb along the steps of an escalator."""
ENTER_M: Final = 2.0
"""Who is this close to a lift's door steps in while it is open."""
JOIN_M: Final = 25.0
HELD_UP_S: Final = 2.0
"""Who is in sight of a connector, at most JOIN_M off, and has not got on (by half a metre) for so long, at 0.25 m/s or less that is, waits for it; so does who
could step on now."""
WALKS_ON_MPS: Final = 0.8
"""Who has walked on at this speed for a second waits no longer: they were held up by something else, or others have gone another way."""
STROLL_MPS: Final = 0.3
"""Who wishes to be slower than this waits for their group, not for a connector."""
LIFT_WAIT_S: Final = 45.0
"""People expect to wait so long for a lift: who can take an escalator mostly does (ours, as in `simulation.navigation`)."""
WHEELS_BODY_M: Final = 0.3
"""Ways of people on wheels keep so far off walls where they can."""
WHEELS_M: Final = 0.2
"""A body takes the room of (radius / WHEELS_M) squared people in a lift."""

IDLE, OPENING, OPEN, CLOSING, MOVING = range(5)
_INSIDE: Final = 2**31 - 1

Place = tuple[int, float, float]
"""Level, x and y in metres."""


@dataclass(frozen=True, slots=True)
class Stairs:
    """A flight between two levels, used both ways. length_m: horizontal; slope_deg: up to RAMP_DEG it is a ramp and step-free."""

    id: str
    bottom: Place
    top: Place
    length_m: float = 9.0
    width_m: float = 2.0
    slope_deg: float = 30.0

    @property
    def step_free(self) -> bool:
        return self.slope_deg <= RAMP_DEG

    def mps(self, way: str) -> float:
        """Horizontal speed of somebody who walks FREE_MPS on the flat; `way` is up or down."""
        if self.step_free:
            return FREE_MPS
        gentle, steep = FRUIN_MPS[way]
        at_30 = gentle + (steep - gentle) * 0.6
        return STAIRS_MPS[way] * max(0.3, (gentle + (steep - gentle) * (self.slope_deg - 27.0) / 5.0) / at_30)


@dataclass(frozen=True, slots=True)
class Escalator:
    """Moving steps from `start` to `end`. walking_share: of the people walk in the left lane, the others stand in the right one; 0: all stand in both."""

    id: str
    start: Place
    end: Place
    length_m: float = 12.0
    speed_mps: float = 0.5
    width_m: float = 1.0
    walking_share: float = 0.0

    def per_s(self) -> float:
        """People a second at most."""
        return ESCALATOR_PER_H[self.width_m, self.speed_mps] / 3600.0


@dataclass(frozen=True, slots=True)
class Lift:
    """A car that serves `stops`, from the lowest level up. capacity: people; storey_s: one level further at full speed; start_s: to gather speed and to
    brake, a trip; door_s: opening, and closing; board_s: each person in or out; dwell_s: the door stays open for so long after the last."""

    id: str
    stops: tuple[Place, ...]
    capacity: int = 12
    storey_s: float = 3.0
    start_s: float = 3.0
    door_s: float = 2.5
    board_s: float = 1.2
    dwell_s: float = 3.0


Connector = Stairs | Escalator | Lift | Hop
"""A `Hop` carries people one by one, as `simulation.hops` has it."""


def check_connectors(connectors: Sequence[Connector]) -> None:
    """Raises InvalidInput that names the first connector that cannot be."""
    seen: set[str] = set()
    for c in connectors:
        if c.id in seen:
            raise InvalidInput(f"connector {c.id}: there are two of this id; give each its own")
        seen.add(c.id)
        match c:
            case Hop():
                continue  # the floor checks it
            case Stairs():
                bad = not (0 < c.length_m <= 100 and 0.6 <= c.width_m <= 20) or not (c.step_free or STEEP_DEG[0] <= c.slope_deg <= STEEP_DEG[1])
                rule = f"length up to 100 m, width 0.6 to 20 m, slope 0 to {RAMP_DEG:g} (a ramp) or {STEEP_DEG[0]:g} to {STEEP_DEG[1]:g} degrees"
                stops: tuple[Place, ...] = (c.bottom, c.top)
            case Escalator():
                bad = (c.width_m, c.speed_mps) not in ESCALATOR_PER_H or not (0 < c.length_m <= 100 and 0 <= c.walking_share <= 1)
                rule = "width 0.6, 0.8 or 1.0 m, speed 0.5, 0.65 or 0.75 m/s (EN 115-1), length up to 100 m, a share of 0 to 1"
                stops = (c.start, c.end)
            case Lift():
                times = (c.storey_s, c.start_s, c.door_s, c.board_s, c.dwell_s)
                bad = not (2 <= len(c.stops) <= 100 and 1 <= c.capacity <= 100 and all(0.1 <= t <= 120 for t in times))
                rule = "two stops or more, room for 1 to 100, every time 0.1 to 120 s"
                stops = c.stops
                levels = [stop[0] for stop in stops]
                if sorted(set(levels)) != levels:
                    raise InvalidInput(f"lift {c.id}: stops on levels {levels}; give each level once, from the lowest up")
        if bad:
            raise InvalidInput(f"connector {c.id}: {c}; must be {rule}")
        if not isinstance(c, Lift) and stops[0][0] == stops[1][0]:
            raise InvalidInput(f"connector {c.id}: both ends on level {stops[0][0]}; it must join two levels")


def join_levels(floor: Floor, connectors: Sequence[Connector]) -> Floor:
    """The floor with the hops of these connectors, one for each direction and pair of stops, instead of its own.

    Raises as `check_connectors`, and InvalidInput for a stop that is off the walkable ground.
    """
    check_connectors(connectors)
    hops = [hop for connector in connectors for hop, _ in _legs(connector)]

    def cell(name: str, level: int, point: tuple[float, float]) -> int:
        if not 0 <= level < floor.levels:
            raise InvalidInput(f"connector {name}: a stop on level {level}; there are levels 0 to {floor.levels - 1}")
        rows = floor.near(level, point, max(1.0, 2.0 * floor.cell_m)) if all(map(isfinite, point)) else np.empty(0, np.int32)
        if not len(rows):
            raise InvalidInput(f"connector {name}: stop {point} of level {level} is off the walkable ground; move it onto it")
        return int(rows[np.argmin((floor.x[rows] - point[0]) ** 2 + (floor.y[rows] - point[1]) ** 2)])

    return replace(
        floor, hop_start=np.array([cell(h.id, h.from_level, h.from_m) for h in hops], np.int32),
        hop_end=np.array([cell(h.id, h.to_level, h.to_m) for h in hops], np.int32), hop_s=np.array([h.seconds for h in hops], np.float64),
        hop_every_s=np.array([h.every_s for h in hops], np.float64), hop_room=np.array([h.room_for for h in hops], np.int32),
        hop_id=tuple(h.id for h in hops),
    )  # fmt: skip


def _legs(c: Connector) -> list[tuple[Hop, tuple[int, int]]]:
    """(hop, stops joined) of a connector; seconds as people expect them who choose a way, a lift's with the wait."""

    def hop(way: str, a: Place, b: Place, seconds: float) -> Hop:
        return Hop(f"{c.id}{way}", a[0], (a[1], a[2]), b[0], (b[1], b[2]), seconds, 1.0, 1)

    match c:
        case Hop():
            return [(c, (0, 1))]
        case Stairs():
            return [
                (hop(" up", c.bottom, c.top, c.length_m / c.mps("up")), (0, 1)),
                (hop(" down", c.top, c.bottom, c.length_m / c.mps("down")), (1, 0)),
            ]
        case Escalator():
            return [(hop("", c.start, c.end, c.length_m / c.speed_mps), (0, 1))]
        case Lift():
            return [
                (hop(f" {a[0]}>{b[0]}", a, b, LIFT_WAIT_S + c.start_s + abs(j - i) * c.storey_s + c.door_s), (i, j))
                for i, a in enumerate(c.stops)
                for j, b in enumerate(c.stops)
                if i != j
            ]


@dataclass(slots=True)
class Car:
    """A lift's car: at which stop (the next one while it moves), what it does, until which step, in which direction it goes on (0: any), trips so far."""

    stop: int = 0
    phase: int = IDLE
    until: int = 0
    direction: int = 0
    trips: int = 0


class Transport(Hops):
    """Connectors of a floor that `join_levels` gave their hops.

    boarded: one (step, connector, wait in s) for each who has stepped on. joined: id -> (hop, step) of who waits now. queue: (connectors,) how many wait, as of
    the last second.
    """

    def __init__(self, floor: Floor, connectors: Sequence[Connector]) -> None:
        legs = [(number, leg, hop) for number, c in enumerate(connectors) for hop, leg in _legs(c)]
        if tuple(hop.id for _, _, hop in legs) != floor.hop_id:
            raise InvalidInput("transport: the floor has other hops; give it these with join_levels")
        super().__init__(floor)
        self.connectors = tuple(connectors)
        self.of = np.array([number for number, _, _ in legs], np.int64)
        self.leg = np.array([leg for _, leg, _ in legs], np.int64).reshape(-1, 2)
        self._step_free = np.array(
            [isinstance(connectors[k], Lift) or getattr(connectors[k], "step_free", False) for k in self.of.tolist()], np.bool_
        )
        self._lane_s = np.zeros((len(connectors), 2))
        self.cars = [Car() if isinstance(c, Lift) else None for c in connectors]
        self.closed: set[int] = set()
        self._open = np.ones(len(self.of), np.bool_)
        self._felt_s = np.zeros(len(self.of))
        self.joined: dict[int, tuple[int, int]] = {}
        self.boarded: list[tuple[int, int, float]] = []
        self.queue = np.zeros(len(connectors), np.int64)

    # -- ways

    def ways(self, floor: Floor, seeds: Sequence[I4], goals: Sequence[Goal], load: I4 | None = None) -> tuple[I4, npt.NDArray[np.float32]]:
        """As `Hops.ways`: who is bound for a step-free goal takes lifts and ramps alone; nobody takes a connector that is closed. Queues make a way
        longer as they were when they were felt last."""
        self._chosen.clear()
        free = [k for k, goal in enumerate(goals) if goal.step_free]
        others = [k for k, goal in enumerate(goals) if not goal.step_free]
        aim = np.full((len(goals), len(floor.x)), -1, np.int32)
        distance = np.full((len(goals), len(floor.x)), np.inf, np.float32)
        for numbers, usable, body_m in ((others, self._open, BODY_M), (free, self._open & self._step_free, WHEELS_BODY_M)):
            if numbers:
                part = _with_hops(floor, usable, floor.hop_s + self._felt_s)
                aim[numbers], distance[numbers] = part.solve([seeds[k] for k in numbers], load=load, body_m=body_m)
        return aim, distance

    def leads_to(self, floor: Floor, seeds: I4, *, step_free: bool = False) -> npt.NDArray[np.bool_]:
        usable = self._open & self._step_free if step_free else self._open
        return _with_hops(floor, usable, floor.hop_s).leads_to(seeds)

    def feel(self) -> None:
        """From now on ways count the queues as they are now."""
        self._felt_s = self.delay_s()

    def delay_s(self) -> F8:
        """(hops,) seconds that those who wait now make the next one wait."""
        per_person = np.zeros(len(self.connectors))
        for k, c in enumerate(self.connectors):
            match c:
                case Hop():
                    per_person[k] = c.every_s
                case Stairs():
                    per_person[k] = 1.0 / (STAIRS_FLOW_PER_M_S * c.width_m)
                case Escalator():
                    per_person[k] = 1.0 / c.per_s()
                case Lift():
                    per_person[k] = (2.0 * len(c.stops) * (c.storey_s + c.start_s + 2.0 * c.door_s)) / c.capacity + 2.0 * c.board_s
        waiting = np.bincount([hop for hop, _ in self.joined.values()], minlength=len(self.of)) if self.joined else np.zeros(len(self.of))
        delay: F8 = np.minimum(600.0, waiting * per_person[self.of])
        return delay

    def close(self, connector_ids: Sequence[str]) -> None:
        """Nobody steps on these from now on; who is inside is carried to the end. Raises InvalidInput for an id that is not there. `find_ways` comes after it."""
        names = [c.id for c in self.connectors]
        for wanted in connector_ids:
            if wanted not in names:
                raise InvalidInput(f"connector {wanted!r}: there are {', '.join(names)}")
        self.closed |= {names.index(wanted) for wanted in connector_ids}
        self._open = ~np.isin(self.of, list(self.closed))
        self._chosen.clear()

    def redirect(self, goal_of: dict[int, int]) -> None:
        """Give riders, by id, another goal: they walk there from where they step off."""
        self.riders = [(*rider[:3], goal_of.get(rider[1], rider[3]), *rider[4:]) for rider in self.riders]

    # -- service

    def serve(self, walkers: Walkers) -> None:
        self._step_off(walkers)
        for k, car in enumerate(self.cars):
            if car is not None:
                self._run_car(walkers, k, car)
        rows, target, gap = self._bound_for_hops(walkers, JOIN_M)
        pairs, which = np.unique(target.astype(np.int64) * len(walkers.goals) + walkers.rows["goal"][rows], return_inverse=True)
        best = [self._chosen_hop(walkers, *divmod(pair, len(walkers.goals))) for pair in pairs.tolist()]
        hop = np.array(best, np.int64)[which]
        if walkers.step_number % max(1, round(1.0 / walkers.step_s)) == 0:
            self._note_who_waits(walkers, rows, hop, gap)
        if not len(rows):
            return
        gone = np.zeros(len(walkers), np.bool_)
        close = np.flatnonzero(gap <= ENTER_M)
        for k in close[np.lexsort((walkers.rows["id"][rows[close]], gap[close]))].tolist():
            if self._may_board(walkers, int(rows[k]), int(hop[k]), float(gap[k])):
                gone[rows[k]] = True
        if gone.any():
            walkers._keep(~gone)
            self.riders.sort()

    def _choose(self, walkers: Walkers, start: int, goal: int) -> int:
        """The hop from a cell that is the shortest way to a goal, of those that may be taken."""
        hops = self._by_start[start]
        usable = self._open[hops]
        if walkers.goals[goal].step_free:
            usable = usable & self._step_free[hops]
        onward = walkers.distance_m[goal, self._floor.hop_end[hops]] + self._floor.hop_s[hops] * FREE_MPS
        return int(hops[np.argmin(np.where(usable, onward, np.inf))])

    def _note_who_waits(self, walkers: Walkers, rows: I4, hop: npt.NDArray[np.int64], gap: F8) -> None:
        r = walkers.rows
        held_up = ((walkers.step_number - r["mark_step"][rows]) * walkers.step_s >= HELD_UP_S) & (r["speed"][rows] >= STROLL_MPS)
        # Of those who wait the mark is where they were a second ago.
        went = np.hypot(r["x"][rows] - r["mark_x"][rows], r["y"][rows] - r["mark_y"][rows]) >= WALKS_ON_MPS
        still = {}
        for i, h, near, walks_on in zip(r["id"][rows].tolist(), hop.tolist(), ((gap <= BOARD_M) | held_up).tolist(), went.tolist(), strict=True):
            known = self.joined.get(i)
            if known is not None and self.of[known[0]] == self.of[h] and not (walks_on and not near):
                still[i] = known
            elif near:
                still[i] = (h, walkers.step_number)
        self.joined = still
        if still:  # who waits for a connector is not stuck, and need not try other directions
            waiting = np.isin(r["id"], list(still))
            r["mark_x"][waiting], r["mark_y"][waiting], r["mark_step"][waiting] = r["x"][waiting], r["y"][waiting], walkers.step_number
        self.queue = np.bincount(self.of[[h for h, _ in still.values()]], minlength=len(self.connectors)) if still else np.zeros_like(self.queue)

    def _may_board(self, walkers: Walkers, i: int, hop: int, gap: float) -> bool:
        """Let the body of row i step on if its connector takes it now; whether it did."""
        k = int(self.of[hop])
        if k in self.closed:
            return False
        c, now = self.connectors[k], walkers.time_s
        r = walkers.rows
        speed, who = float(r["speed"][i]), int(r["id"][i])
        inside = [rider for rider in self.riders if self.of[rider[2]] == k]
        match c:
            case Hop():
                if gap > BOARD_M or now + 1e-9 < self._lane_s[k, 0] or len(inside) >= c.room_for:
                    return False
                self._lane_s[k, 0] = max(self._lane_s[k, 0], now - walkers.step_s) + c.every_s
                ride_s = c.seconds
            case Stairs():
                if gap > BOARD_M or now + 1e-9 < self._lane_s[k, 0] or len(inside) >= max(1, int(STAIRS_PER_M2 * c.length_m * c.width_m)):
                    return False
                self._lane_s[k, 0] = max(self._lane_s[k, 0], now - walkers.step_s) + 1.0 / (STAIRS_FLOW_PER_M_S * c.width_m)
                way = "up" if self.leg[hop, 0] == 0 else "down"
                ride_s = c.length_m / (c.mps(way) * speed / FREE_MPS)
            case Escalator():
                if gap > BOARD_M or len(inside) >= max(1, int(2 * c.length_m / STEP_M)):
                    return False
                walks = c.walking_share > 0 and chance.uniform(11, who, k) < c.walking_share
                lanes = (0, 1) if c.walking_share == 0 else (1,) if walks else (0,)
                lane = min(lanes, key=lambda lane: self._lane_s[k, lane])
                if now + 1e-9 < self._lane_s[k, lane]:
                    return False
                self._lane_s[k, lane] = max(self._lane_s[k, lane], now - walkers.step_s) + 2.0 / c.per_s()
                ride_s = c.length_m / (c.speed_mps + (WALK_ON_MPS * speed / FREE_MPS if walks else 0.0))
            case Lift():
                car = self.cars[k]
                assert car is not None
                here, there = int(self.leg[hop, 0]), int(self.leg[hop, 1])
                wants = 1 if there > here else -1
                leaving = any(rider[0] != _INSIDE for rider in inside)
                if car.phase != OPEN or car.stop != here or leaving or (car.direction not in (0, wants)) or now + 1e-9 < self._lane_s[k, 0]:
                    return False
                if self._room_taken(inside) + _room(float(r["radius"][i])) > c.capacity:
                    return False
                car.direction = wants
                car.until = walkers.step_number + max(1, round(c.dwell_s / walkers.step_s))
                self._lane_s[k, 0] = now + c.board_s
                ride_s = -1.0
        joined = self.joined.pop(who, None)
        waited = 0.0 if joined is None or self.of[joined[0]] != k else (walkers.step_number - joined[1]) * walkers.step_s
        self.boarded.append((walkers.step_number, k, waited))
        until = _INSIDE if ride_s < 0 else walkers.step_number + max(1, round(ride_s / walkers.step_s))
        self.riders.append((until, who, hop, int(r["goal"][i]), speed, float(r["radius"][i])))
        return True

    def _room_taken(self, inside: Sequence[tuple[Any, ...]]) -> int:
        return sum(_room(rider[5]) for rider in inside)

    def _run_car(self, walkers: Walkers, k: int, car: Car) -> None:
        """One step of a lift: its door, its way, and who steps out."""
        c = self.connectors[k]
        assert isinstance(c, Lift)
        now, dt = walkers.step_number, walkers.step_s
        if now < car.until:
            return
        inside = [rider for rider in self.riders if self.of[rider[2]] == k]
        if car.phase == OPENING:  # the door is open now; those who have arrived step out one by one
            car.phase, car.until = OPEN, now + max(1, round(c.dwell_s / dt))
            out = 0
            for at, rider in enumerate(self.riders):
                if self.of[rider[2]] == k and self.leg[rider[2], 1] == car.stop:
                    self.riders[at] = (now + round(out * c.board_s / dt), *rider[1:])
                    out += 1
            self.riders.sort()
            self._lane_s[k, 0] = walkers.time_s + out * c.board_s
            if not self._ahead(k, car, inside):
                car.direction = 0
        elif car.phase == OPEN:  # until nobody has stepped in or out for dwell_s
            if all(rider[0] == _INSIDE for rider in inside):
                car.phase, car.until = CLOSING, now + max(1, round(c.door_s / dt))
        elif car.phase == MOVING:  # at the next stop
            wanted = any(self.leg[rider[2], 1] == car.stop for rider in inside)
            called = {int(np.sign(self.leg[hop, 1] - self.leg[hop, 0])) for hop in self._calls(k) if self.leg[hop, 0] == car.stop}
            on = self._ahead(k, car, inside)
            full = self._room_taken(inside) >= c.capacity
            if wanted or not on or (not full and car.direction in called):
                if not on:
                    car.direction = 0
                car.phase, car.until = OPENING, now + max(1, round(c.door_s / dt))
            else:
                car.stop += car.direction
                car.until = now + max(1, round(c.storey_s * self._storeys(c, car.stop - car.direction, car.stop) / dt))
        else:
            self._set_off(now, dt, k, car, inside)

    def _storeys(self, c: Lift, a: int, b: int) -> int:
        return abs(c.stops[a][0] - c.stops[b][0])

    def _calls(self, k: int) -> list[int]:
        """Hops of a lift for which somebody waits at a stop."""
        return [] if k in self.closed else [hop for hop, _ in self.joined.values() if self.of[hop] == k]

    def _ahead(self, k: int, car: Car, inside: Sequence[tuple[Any, ...]]) -> bool:
        """Whether somebody wants to get to, or calls from, a stop further on in the car's direction."""
        wanted = [int(self.leg[rider[2], 1]) for rider in inside] + [int(self.leg[hop, 0]) for hop in self._calls(k)]
        return any((stop - car.stop) * car.direction > 0 for stop in wanted)

    def _set_off(self, now: int, dt: float, k: int, car: Car, inside: Sequence[tuple[Any, ...]]) -> None:
        """The door is shut: where to go now. Who comes while others are inside has missed it."""
        c = self.connectors[k]
        assert isinstance(c, Lift)
        calls = self._calls(k)
        car.phase, car.until = IDLE, now + 1
        if not inside and not calls:
            car.direction = 0
            return
        if car.direction == 0 or not self._ahead(k, car, inside):
            wanted = [int(self.leg[rider[2], 1]) for rider in inside] or [int(self.leg[hop, 0]) for hop in calls]
            nearest = min(wanted, key=lambda stop: (abs(stop - car.stop), stop))
            car.direction = int(np.sign(nearest - car.stop))
        here = {int(np.sign(self.leg[hop, 1] - self.leg[hop, 0])) for hop in calls if self.leg[hop, 0] == car.stop}
        if here and not inside and (car.direction == 0 or car.direction in here):
            car.phase, car.until = OPENING, now + max(1, round(c.door_s / dt))
        elif car.direction != 0:
            car.trips += 1
            car.stop += car.direction
            storeys = self._storeys(c, car.stop - car.direction, car.stop)
            car.phase, car.until = MOVING, now + max(1, round((c.start_s + c.storey_s * storeys) / dt))

    # -- checkpoints

    def state(self) -> F8:
        """Everything that changes, flat."""
        cars = [[car.stop, car.phase, car.until, car.direction, car.trips] for car in self.cars if car is not None]
        joined = [[i, hop, step] for i, (hop, step) in sorted(self.joined.items())]
        heads = [len(self.riders), len(cars), len(joined), len(self.closed)]
        parts: list[Any] = [
            heads,
            self._lane_s.ravel(),
            self._felt_s,
            self.queue,
            np.ravel(self.riders),
            np.ravel(cars),
            np.ravel(joined),
            sorted(self.closed),
        ]
        return np.concatenate([np.asarray(part, np.float64) for part in parts])

    def restore(self, state: F8) -> None:
        self._chosen.clear()
        riders, cars, joined, closed = (int(n) for n in state[:4])
        at = 4
        parts = []
        for count in (self._lane_s.size, len(self._felt_s), len(self.queue), 6 * riders, 5 * cars, 3 * joined, closed):
            parts.append(state[at : at + count])
            at += count
        self._lane_s = parts[0].reshape(self._lane_s.shape).copy()
        self._felt_s = parts[1].copy()
        self.queue = parts[2].astype(np.int64)
        self.riders = [(int(a), int(b), int(c), int(d), float(e), float(f)) for a, b, c, d, e, f in parts[3].reshape(-1, 6).tolist()]
        lifts = iter(parts[4].reshape(-1, 5).astype(np.int64).tolist())
        self.cars = [None if car is None else Car(*next(lifts)) for car in self.cars]
        self.joined = {int(i): (int(hop), int(step)) for i, hop, step in parts[5].reshape(-1, 3).tolist()}
        self.closed = {int(k) for k in parts[6]}
        self._open = ~np.isin(self.of, list(self.closed))
        self.boarded = []


def _room(radius_m: float) -> int:
    """How many people's room a body takes in a lift."""
    return max(1, round((radius_m / WHEELS_M) ** 2))


def _with_hops(floor: Floor, usable: npt.NDArray[np.bool_], seconds: F8) -> Floor:
    """The floor with some of its hops, for finding ways."""
    return replace(
        floor, hop_start=floor.hop_start[usable], hop_end=floor.hop_end[usable], hop_s=seconds[usable], hop_every_s=floor.hop_every_s[usable],
        hop_room=floor.hop_room[usable], hop_id=tuple(name for name, kept in zip(floor.hop_id, usable, strict=True) if kept),
    )  # fmt: skip
