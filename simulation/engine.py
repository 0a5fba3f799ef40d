"""The crowd: people who arrive, visit places by their itinerary, buy, and leave, on all levels of a venue at once.

Owns the tick. A tick is a pipeline: pulls, connectors, one step of the speed model, what people decide where they have come, who leaves, who arrives.
Pure and deterministic: the same venue, demand and seed give bit-equal results; chance is hashed from (seed, subject, event), time counts in ticks.
It must never read a clock or a global generator, and never know who looks at the positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.clock import TICK_S, ticks
from esplanade.core.errors import InvalidInput
from simulation import chance, ground_kernels, kernels
from simulation.agents import QUEUEING, RIDING, STAYING, WALKING, Agents
from simulation.crowding import Crowding
from simulation.demand import Demand, FlashPull
from simulation.ground import CELL_M, survey
from simulation.navigation import Ways, link_levels
from simulation.places import ENTRANCE, FRONT, find_places
from simulation.queues import BOARD_M, Queues
from spatial.columns import LEFT, PositionColumns
from spatial.venue import Venue

GRID_M: Final = kernels.SIGHT_M
GRAVITY_M: Final = 120.0
"""Places lose a factor e of their popularity with every so many metres of way."""
LEAVE_M: Final = 1.5
ENTER_GAP_M: Final = 0.8
"""People come in where nobody is nearer: a crowded entrance lets the next one have them."""
DOOR_QUEUE_M: Final = 0.7
"""Each person bound for an entrance makes it seem so much further to those who leave."""
SETTLE_S: Final = 3.0
"""Who stands still for so long at the goal's edge, or on the way to a spot in a shop, stays there."""
REROUTE_S: Final = 20.0
"""Who stands still for so long chooses another way or another place."""
STUCK_S: Final = 60.0
"""Who wants to walk and has not got on by STUCK_M for so long counts as stuck."""
STUCK_M: Final = 1.0
ADMIT_EVERY: Final = ticks(1.0)


@dataclass(frozen=True, slots=True)
class Purchases:
    """n purchases. subject: (n,) who; unit: (n,) index into `venue.units`; amount: (n,) minor units of the currency, at least 1."""

    subject: npt.NDArray[np.uint32]
    unit: npt.NDArray[np.uint16]
    amount: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.subject)


@dataclass(frozen=True, slots=True)
class TickResult:
    """What one tick brought.

    positions: everybody inside, ascending by subject, and a row with level LEFT for each who left in this tick. arrived, left: subjects (the first tick
    after `prefill` names all who were there before). turned_away: arrivals refused in this tick because of `population_cap`.
    """

    tick: int
    positions: PositionColumns
    arrived: npt.NDArray[np.uint32]
    left: npt.NDArray[np.uint32]
    turned_away: int
    purchases: Purchases


@dataclass(frozen=True, slots=True)
class CrowdReport:
    """How the crowd fared so far.

    stuck: subjects who want to walk and have not moved by a metre for a minute, queues at connectors aside. gave_up: times that somebody chose another
    way or place after standing too long. unreachable: ids of places that no route joins to an entrance and back, or that have no ground.
    unlinked: ids of connectors with a stop off the free ground. waiting_outside: arrivals for whom no entrance has room now. pull_refused: people a
    flash sale would have pulled to a shop whose inside and front were full. max_overlap_m: of two bodies 0.3 m wide, since the start.
    overlapping: pairs that overlap by more than 0.1 m now. swaps: exchanges at the end of full connectors;
    exchanges: pairs who stood face to face and changed places.
    """

    tick: int
    population: int
    arrived: int
    left: int
    turned_away: int
    waiting_outside: int
    purchases: int
    stuck: tuple[int, ...]
    gave_up: int
    unreachable: tuple[str, ...]
    unlinked: tuple[str, ...]
    pulled: int
    pull_refused: int
    max_overlap_m: float
    overlapping: int
    swaps: int
    exchanges: int
    walking: int
    staying: int
    queueing: int
    riding: int


class Crowd:
    """A venue's crowd under a demand. Raises InvalidInput for a venue that nobody can enter or visit, or a demand that contradicts itself."""

    def __init__(self, venue: Venue, demand: Demand, *, seed: int) -> None:
        if len(venue.units) > 65_535:
            raise InvalidInput(f"venue {venue.id}: {len(venue.units)} units; purchases name units in 16 bits, at most 65,535")
        if demand.prefill > demand.population_cap:
            raise InvalidInput(
                f"demand: prefill {demand.prefill} is above population_cap {demand.population_cap}; raise the cap or lower the prefill"
            )
        self.venue, self.demand, self.seed = venue, demand, seed
        self.ground = survey(venue)
        self.places = find_places(venue, demand, self.ground)
        self.links = link_levels(venue, self.ground)
        self.ways = Ways(self.ground, self.places, self.links)
        self.queues = Queues(self.ground, self.links)
        self.agents = Agents()
        self.tick = 0
        self.bound: npt.NDArray[np.int64] = np.zeros(len(self.places), np.int64)
        good, self._unreachable = self.ways.open_places()
        self.weight: npt.NDArray[np.float64] = np.where(good, self.places.weight, 0.0)
        if not self.weight.any():
            raise InvalidInput(f"venue {venue.id}: no shop can be reached from an entrance and left again; `venue check` says what is cut off")
        self._doors = np.flatnonzero((self.places.kind == ENTRANCE) & good)
        self._front = {int(self.places.of[k]): int(k) for k in np.flatnonzero((self.places.kind == FRONT) & good)}
        self._till = np.array([unit >= 0 and venue.units[unit].till for unit in self.places.unit])
        self._gravity: dict[int, npt.NDArray[np.float64]] = {}
        self._pulls = sorted(demand.pulls, key=lambda pull: (pull.tick, pull.unit_id))
        self._crowding = Crowding(self.ways)
        self._grid_nx = int(self.ground.nx * CELL_M / GRID_M) + 1
        self._grid_ny = int(self.ground.ny * CELL_M / GRID_M) + 1
        self._arrivals = np.random.Generator(np.random.Philox(key=chance.mix(seed & (2**64 - 1))))
        self._next_subject = 1
        self._outside = 0
        self._new: list[int] = []
        self._bought: list[tuple[int, int, int]] = []
        self._arrived = self._left = self._turned_away = self._purchases = 0
        self._gave_up = self._pulled = self._pull_refused = 0
        self._max_overlap_m = 0.0
        self._exchanges = 0

    @property
    def population(self) -> int:
        """People inside, riders included."""
        return len(self.agents)

    def prefill(self, progress: Callable[[float], None] | None = None) -> None:
        """Place `demand.prefill` people in the steady state of their itineraries, then let `settle_s` pass; the tick stays 0.

        progress: called with the part done, 0 to 1. Raises Conflict when the crowd has begun, LimitExceeded where the ground holds fewer people.
        """
        from simulation.prefill import fill

        fill(self, progress)

    def step(self) -> TickResult:
        """Simulate TICK_S seconds; the rows of that tick."""
        self.tick += 1
        for pull in self._pulls:
            if pull.tick == self.tick:
                self._pull(pull)
        if self._front and self.tick % ADMIT_EVERY == 0:
            self._admit()
        for i in self.queues.serve(self.agents, self.tick):
            self.replan(i)
        self._move()
        self._crowding.renew(self.agents, self.tick)
        gone = self._decide()
        return self._close(gone)

    # -- movement

    def _move(self) -> None:
        a, ground, ways = self.agents, self.ground, self.ways
        kernels.wishes(
            a.x, a.y, a.mode, a.cell, a.field, a.target_x, a.target_y, a.speed, a.heading_x, a.heading_y,
            ways.shift, ways.distance, ways.angle, a.wish_x, a.wish_y, a.wish_v,
        )  # fmt: skip
        self._crowding.steer(a)
        present = a.mode != RIDING
        start, order = kernels.sort_into_cells(
            a.x, a.y, a.level, present, ground.x0, ground.y0, GRID_M, self._grid_nx, self._grid_ny, ground.levels
        )  # fmt: skip
        a.next_x[:], a.next_y[:] = a.x, a.y
        a.next_hx[:], a.next_hy[:], a.next_slow[:] = a.heading_x, a.heading_y, a.slow_s
        worst = kernels.advance(
            a.x, a.y, a.level, a.subject, present, a.wish_x, a.wish_y, a.wish_v, a.heading_x, a.heading_y, a.slow_s, ground.room[a.cell],
            start, order, ground.x0, ground.y0, GRID_M, self._grid_nx, self._grid_ny,
            ground.x0, ground.y0, CELL_M, ground.nx, ground.ny, ground.walls, ground.wall_start, ground.wall_item, TICK_S, self.tick,
            a.next_x, a.next_y, a.next_hx, a.next_hy, a.next_slow,
        )  # fmt: skip
        self._max_overlap_m = max(self._max_overlap_m, float(worst))
        a.turn_generation()
        self._exchanges += kernels.exchange(
            a.x, a.y, a.level, a.mode, a.cell, a.slow_s, a.wish_x, a.wish_y, start, order, ground.x0, ground.y0, GRID_M, self._grid_nx, self._grid_ny,
            ground.raster, ground.walls, ground.wall_start, ground.wall_item,
        )  # fmt: skip
        ground_kernels.locate(
            a.x, a.y, a.level, a.cell, ground.x0, ground.y0, CELL_M, ground.nx, ground.ny, ground.cid, ground.x, ground.y,
            ground.walls, ground.wall_start, ground.wall_item,
        )  # fmt: skip

    # -- decisions

    def _decide(self) -> npt.NDArray[np.intp]:
        """Let everybody act on where they are; rows of those who leave, ascending."""
        a, places, ways = self.agents, self.places, self.ways
        walking = np.flatnonzero(a.mode == WALKING)
        left_m = ways.distance[ways.shift[a.field[walking]] + a.cell[walking]] * 0.1
        to_stop = a.link[walking] >= 0
        door = ~to_stop & (places.kind[a.place[walking]] == ENTRANCE)
        queueing = walking[to_stop & (left_m <= BOARD_M)]
        gone: npt.NDArray[np.intp] = walking[door & (left_m <= LEAVE_M)]
        # Nobody needs to reach a spot that others stand on: at the edge of the goal, or inside its unit, standing still is arriving.
        inside = (places.unit[a.place[walking]] >= 0) & (self.ground.unit[a.cell[walking]] == places.unit[a.place[walking]])
        near = (left_m == 0.0) | ((a.slow_s[walking] > SETTLE_S) & (inside | (left_m <= 2.0)))
        arrived = walking[~to_stop & ~door & near]
        bound_for = a.link[(a.mode == WALKING) | (a.mode == QUEUEING)]
        self.queues.waiting = np.bincount(bound_for[bound_for >= 0], minlength=len(self.links))
        a.mode[queueing] = QUEUEING
        a.since[queueing] = self.tick
        start = self.links.start[a.link[queueing]]
        a.target_x[queueing], a.target_y[queueing] = self.ground.x[start], self.ground.y[start]
        for i in arrived.tolist():
            self._arrive(i)
        staying = a.mode == STAYING
        for i in np.flatnonzero(staying & (a.until <= self.tick)).tolist():
            self._depart(i)
        settled = np.flatnonzero(staying & (a.slow_s > SETTLE_S))
        a.target_x[settled], a.target_y[settled] = a.x[settled], a.y[settled]
        self._shuffle(np.flatnonzero((a.mode == STAYING) & (a.move_at <= self.tick)))
        self._mend(gone)
        return gone

    def _arrive(self, i: int) -> None:
        """Agent i begins to stay at its place."""
        a, place = self.agents, int(self.agents.place[i])
        a.mode[i] = STAYING
        a.since[i] = self.tick
        a.last[i] = place
        a.target_x[i], a.target_y[i] = a.x[i], a.y[i]
        a.move_at[i] = self.tick
        if self.places.kind[place] == FRONT:
            until = max((pull.until_tick for pull in self._pulls if pull.unit_id == self.places.name[place]), default=self.tick)
            a.until[i] = max(self.tick, until) + ticks(120.0 * self.draw(i))
        else:
            a.until[i] = self.tick + ticks(self.stay_s(i))

    def _depart(self, i: int) -> None:
        """Agent i has stayed long enough: buys perhaps, and chooses the next place or leaves."""
        a, place, demand = self.agents, int(self.agents.place[i]), self.demand
        if self._till[place] and self.places.kind[place] != FRONT and self.draw(i) < demand.buy_probability:
            amount = max(1, min(2**32 - 1, round(chance.log_normal(self.draw(i), *demand.amount_minor))))
            self._bought.append((int(a.subject[i]), int(self.places.unit[place]), amount))
        a.stops[i] -= 1
        self.go_on(i, place)

    def _shuffle(self, rows: npt.NDArray[np.intp]) -> None:
        a, ground = self.agents, self.ground
        kernels.wander(
            rows, a.subject, a.draws, a.cell, a.place, a.target_x, a.target_y, self.seed & (2**63 - 1), self.places.start, self.places.spots,
            ground.raster, ground.cid, ground.links, ground.clearance, ground.spare, ground.nx, ground.x, ground.y,
        )  # fmt: skip
        first = a.since[rows] >= self.tick - 1
        pause = (a.subject[rows].astype(np.int64) * 7919 + a.draws[rows].astype(np.int64) * 104729) % 400
        a.move_at[rows] = self.tick + np.where(first, 100, 150) + pause

    def _mend(self, gone: npt.NDArray[np.intp]) -> None:
        """Who has not got on for long chooses another way; marks for the report's stuck agents move on."""
        a = self.agents
        free = (a.mode == STAYING) | (a.mode == RIDING) | ((a.x - a.mark_x) ** 2 + (a.y - a.mark_y) ** 2 > STUCK_M**2)
        rows = np.flatnonzero(free)
        a.mark_x[rows], a.mark_y[rows], a.mark_at[rows] = a.x[rows], a.y[rows], self.tick
        still = self.tick - a.mark_at
        patience = ticks(REROUTE_S)
        late = np.flatnonzero((still >= patience) & (still % patience == 0))
        for i in np.setdiff1d(late, gone, assume_unique=True).tolist():
            self._gave_up += 1
            if a.mode[i] == QUEUEING or a.link[i] >= 0 or self.draw(i) < 0.3:
                self.replan(i)
            else:
                place = int(a.last[i])
                self.go_on(i, place if self.places.kind[a.place[i]] != ENTRANCE else -1)

    # -- choices

    def draw(self, i: int) -> float:
        """The next uniform number of agent i."""
        a = self.agents
        a.draws[i] += 1
        return chance.uniform(self.seed & (2**63 - 1), int(a.subject[i]), int(a.draws[i]) - 1)

    def stay_s(self, i: int) -> float:
        return min(4.0 * 3600.0, chance.log_normal(self.draw(i), *self.demand.stay_s))

    def go_on(self, i: int, origin: int) -> None:
        """Send agent i, who comes from place `origin` (-1: flees a blocked entrance), to its next place, or out."""
        a = self.agents
        if origin >= 0 and a.stops[i] > 0:
            place = self.choose(i, origin)
            if place >= 0:
                self.send(i, place)
                return
        if origin < 0:
            self.send(i, int(self._doors[int(self.draw(i) * len(self._doors))]))
        else:
            row = self.ways.from_place(origin)[self._doors] + DOOR_QUEUE_M * self.bound[self._doors]
            self.send(i, int(self._doors[np.argmin(row)]))

    def choose(self, i: int, origin: int) -> int:
        """A place by popularity and nearness to `origin` among those that have room; -1 for none."""
        attraction = self._gravity.get(origin)
        if attraction is None:
            attraction = self.weight * np.exp(-self.ways.from_place(origin) / GRAVITY_M)
            attraction[origin] = 0.0
            self._gravity[origin] = attraction
        total = np.cumsum(np.where(self.bound < self.places.capacity, attraction, 0.0))
        if total[-1] <= 0.0:
            return -1
        return int(np.searchsorted(total, self.draw(i) * total[-1], side="right"))

    def send(self, i: int, place: int) -> None:
        """Agent i now walks to `place`."""
        a = self.agents
        self.bound[a.place[i]] -= 1
        self.bound[place] += 1
        a.place[i] = place
        self.replan(i)

    def replan(self, i: int) -> None:
        """Plan the next leg of agent i from where it stands."""
        a = self.agents
        if a.mode[i] == RIDING and a.level[i] != self.links.end_level[a.link[i]]:
            return
        field, link, _ = self.ways.from_cell(int(a.cell[i]), int(a.place[i]), delay_m=self.queues.delay_m())
        if field < 0:
            # A pocket of the raster without a way: keep the old field, the body is moved on by others or reported as stuck.
            field, link = int(a.field[i]), int(a.link[i])
        a.mode[i] = WALKING
        a.field[i], a.link[i] = field, link
        a.since[i] = self.tick
        a.slow_s[i] = min(a.slow_s[i], 2.0)

    def _pull(self, pull: FlashPull) -> None:
        found = [k for k in self._front if self.places.name[k] == pull.unit_id]
        if not found:
            return
        shop, a = found[0], self.agents
        metres = self.ways.to_place(shop, a.cell, a.level)
        for i in range(len(a)):
            if metres[i] < np.inf and a.place[i] != shop and self.draw(i) < pull.pull * np.exp(-metres[i] / pull.decay_m):
                self._heed(i, shop)

    def _heed(self, i: int, shop: int) -> None:
        """Agent i hears of the sale and goes where there is room: inside, else in front."""
        for place in (shop, self._front[shop]):
            if self.bound[place] < self.places.capacity[place]:
                self._pulled += 1
                self.agents.stops[i] = max(1, self.agents.stops[i])
                if self.agents.mode[i] == RIDING:
                    self.bound[self.agents.place[i]] -= 1
                    self.bound[place] += 1
                    self.agents.place[i] = place
                else:
                    self.send(i, place)
                return
        self._pull_refused += 1

    def _admit(self) -> None:
        """Let those in front of a shop in, longest waiting first, as far as there is room."""
        a = self.agents
        for shop, front in self._front.items():
            room = int(self.places.capacity[shop] - self.bound[shop])
            if room > 0 and self.bound[front] > 0:
                rows = np.flatnonzero((a.place == front) & (a.mode == STAYING))
                for i in rows[np.argsort(a.since[rows], kind="stable")][:room].tolist():
                    self.send(i, shop)

    # -- coming and going

    def _close(self, gone: npt.NDArray[np.intp]) -> TickResult:
        a = self.agents
        subject, level = a.subject.copy(), a.level.copy()
        x, y = a.x.astype(np.float32), a.y.astype(np.float32)
        level[gone] = LEFT
        left = subject[gone]
        if len(gone):
            np.subtract.at(self.bound, a.place[gone], 1)
            stay = np.ones(len(a), np.bool_)
            stay[gone] = False
            a.keep(stay)
        self._left += len(gone)
        turned_away = self._receive()
        new = len(a) - int(len(subject) - len(gone))
        arrived = np.concatenate([np.array(self._new, np.uint32), a.subject[len(a) - new :]])
        self._new.clear()
        positions = PositionColumns(
            np.concatenate([subject, a.subject[len(a) - new :]]),
            np.concatenate([level, a.level[len(a) - new :]]),
            np.concatenate([x, a.x[len(a) - new :].astype(np.float32)]),
            np.concatenate([y, a.y[len(a) - new :].astype(np.float32)]),
        )
        bought = np.array(self._bought, np.int64).reshape(-1, 3)
        self._bought.clear()
        self._purchases += len(bought)
        purchases = Purchases(bought[:, 0].astype(np.uint32), bought[:, 1].astype(np.uint16), bought[:, 2].astype(np.uint32))
        return TickResult(self.tick, positions, arrived, left, turned_away, purchases)

    def expected(self, tick: int) -> float:
        """Expected arrivals from opening to the end of `tick`: linear within each hour of the curve."""
        hours = self.demand.start_hour - self.demand.open_hour + tick * TICK_S / 3600.0
        total = np.concatenate([[0.0], np.cumsum(self.demand.hourly)])
        return float(np.interp(hours, np.arange(len(total)), total))

    def _receive(self) -> int:
        """Draw this tick's arrivals and let them in where an entrance has room; how many were turned away by the cap."""
        turned_away = 0
        if self.demand.hold_population:
            self._outside = max(0, self.demand.prefill - len(self.agents))
        else:
            mean = self.expected(self.tick) - self.expected(self.tick - 1)
            self._outside += int(self._arrivals.poisson(mean)) if mean > 0 else 0
            room = self.demand.population_cap - len(self.agents)
            turned_away = max(0, self._outside - room)
            self._outside -= turned_away
            self._turned_away += turned_away
        while self._outside and self._enter():
            self._outside -= 1
        return turned_away

    def _enter(self) -> bool:
        """One arrival at the first entrance with room, beginning from one drawn; False where all are full."""
        a, ground = self.agents, self.ground
        u = chance.uniform(self.seed & (2**63 - 1), self._next_subject, 2**32)
        for k in range(len(self._doors)):
            door = int(self._doors[(int(u * len(self._doors)) + k) % len(self._doors)])
            spots = self.places.spots_of(door)
            begin = int(u * 7919.0) % len(spots)
            cell = kernels.first_vacant(spots, begin, ground.x, ground.y, int(self.places.level[door]), a.x, a.y, a.level, a.mode, ENTER_GAP_M)
            if cell >= 0:
                i = self.admit_new(door, cell)
                self.go_on(i, door)
                for pull in self._pulls:
                    if pull.tick < self.tick <= pull.until_tick:
                        self._hear_at_the_door(i, door, pull)
                return True
        return False

    def _hear_at_the_door(self, i: int, door: int, pull: FlashPull) -> None:
        for shop in self._front:
            metres = float(self.ways.from_place(door)[shop])
            if self.places.name[shop] == pull.unit_id and self.draw(i) < pull.pull * np.exp(-metres / pull.decay_m):
                self._heed(i, shop)

    def admit_new(self, origin: int, cell: int) -> int:
        """A new agent on a cell, coming from place `origin`; its row. Speed and itinerary are drawn from its own chance."""
        a, demand = self.agents, self.demand
        i = a.append(1)
        a.subject[i] = self._next_subject
        self._next_subject += 1
        self._arrived += 1
        a.level[i] = self.ground.level_of(cell)
        a.x[i], a.y[i], a.cell[i] = self.ground.x[cell], self.ground.y[cell], cell
        a.mark_x[i], a.mark_y[i], a.mark_at[i] = a.x[i], a.y[i], self.tick
        a.place[i] = a.last[i] = a.field[i] = origin
        a.link[i] = -1
        self.bound[origin] += 1
        mean, sd = demand.speed_mps
        a.speed[i] = min(2.0, max(0.5, mean + sd * chance.normal(self.draw(i))))
        a.stops[i] = 1 + chance.poisson(self.draw(i), max(0.0, demand.stops - 1.0))
        return i

    def forget_the_past(self) -> None:
        """After prefill: the tick is 0, subjects count from 1, and nothing has happened yet; the next tick names all who are here as arrived."""
        a, past = self.agents, self.tick
        for clock in (a.until, a.move_at, a.since, a.mark_at):
            clock -= past
        self.queues.shift_clock(past)
        self.tick = 0
        a.subject[:] = np.arange(1, len(a) + 1, dtype=np.uint32)
        self._next_subject = len(a) + 1
        self._new = a.subject.tolist()
        self._bought.clear()
        self._arrived = len(a)
        self._left = self._turned_away = self._purchases = self._gave_up = 0
        self._max_overlap_m = 0.0
        self._exchanges = 0

    def report(self) -> CrowdReport:
        a = self.agents
        stuck = (a.mode == WALKING) & (self.tick - a.mark_at >= ticks(STUCK_S))
        modes = np.bincount(a.mode, minlength=4)
        return CrowdReport(
            tick=self.tick, population=len(a), arrived=self._arrived, left=self._left, turned_away=self._turned_away, waiting_outside=self._outside,
            purchases=self._purchases, stuck=tuple(a.subject[stuck].tolist()), gave_up=self._gave_up,
            unreachable=self._unreachable + self.places.without_ground, unlinked=self.links.unlinked, pulled=self._pulled,
            pull_refused=self._pull_refused, max_overlap_m=self._max_overlap_m,
            overlapping=self._overlapping(0.1), swaps=self.queues.swaps, exchanges=self._exchanges,
            walking=int(modes[WALKING]), staying=int(modes[STAYING]), queueing=int(modes[QUEUEING]), riding=int(modes[RIDING]),
        )  # fmt: skip

    def _overlapping(self, by_m: float) -> int:
        a, ground = self.agents, self.ground
        start, order = kernels.sort_into_cells(
            a.x, a.y, a.level, a.mode != RIDING, ground.x0, ground.y0, GRID_M, self._grid_nx, self._grid_ny, ground.levels
        )  # fmt: skip
        return int(
            kernels.count_close(
                a.x,
                a.y,
                a.level,
                ground.room[a.cell],
                start,
                order,
                ground.x0,
                ground.y0,
                GRID_M,
                self._grid_nx,
                self._grid_ny,
                kernels.BODY_M - by_m,
            )
        )
