"""A study: people with something to do. Who comes when, where each goes next, what they do there, and what changes on the way.

Owns the tactical and the strategic level above `simulation.walkers`: routes, groups, queues, offers, acts, the alarm. Deterministic: the same scenario gives the same
bits; chance is the scenario's seed, drawn for arrivals and first places from one generator, afterwards hashed from (seed, person, event). It reads no clock.
"""

from __future__ import annotations

import heapq
import io
import zipfile
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput
from simulation import chance, groups
from simulation.connector_watch import ConnectorWatch
from simulation.doors import Door, Doors
from simulation.floor import BODY_M
from simulation.ground_kernels import sees
from simulation.hops import BOARD_M
from simulation.models import model_of
from simulation.study_people import (
    COLUMNS,
    LINE,
    NEVER,
    NO_HOLD,
    SETTLE,
    STANDING,
    STAY,
    TO_SPOT,
    WALK,
    bodies_of,
    group_size,
    rows_in_groups,
    with_bodies,
)  # fmt: skip
from simulation.study_places import Place, Setting, polygon, set_up
from simulation.study_spec import WHEELCHAIR_M, CrowdSpec, PeopleSpec, VisitorsSpec, seconds_after
from simulation.study_start import check_crowds, check_levels, expect, place_people
from simulation.transport import Transport
from simulation.waiting_lines import AT_M, WaitingLine
from simulation.walkers import Goal, Walkers

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

MAX_SECONDS: Final = 24 * 3600.0
DECIDE_S: Final = 0.2
"""Every so often people decide; they steer every step."""
SETTLE_S: Final = 40.0
"""In a place people walk on to a spot of their own for so long at most."""
SETTLE_M: Final = 40.0
SETTLE_TRIES: Final = 8
"""The spot is in sight and so far off at most; of so many cells drawn the first that is. Nearer ones alone would plug a large shop's door at a sale."""
CLOSE_M: Final = 3.0
HELD_UP_S: Final = 5.0
"""Who is this close to a place and has not got on for so long has arrived: others stand in it."""
HEAR_S: Final = 20.0
"""News of an offer reaches everybody within so many seconds."""
LINGER_S: Final = 60.0


_Plan = tuple[
    list[list[int]], list[tuple[int, int, int, int]], list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, str, int]], int, int,
    list[tuple[list[int], list[int], list[int], list[int], list[int]]],
]  # fmt: skip
"""Of a checkpoint: groups, what people will do, who will come and who waits outside, news, how many came and were refused, lines."""


class Study:
    """A scenario under way. setting: its floor and places; walkers: the bodies; transport: the connectors; watch: how it stands at each of them.

    came: visitors who have come in; outside: visitors whom no entrance has room for now; refused: visitors whom an offer would have pulled to a place that was full;
    cut_off: places that visitors never choose, no way leads from them to an exit.
    """

    def __init__(self, spec: CrowdSpec, setting: Setting, walkers: Walkers, transport: Transport) -> None:
        self.spec, self.setting, self.walkers, self.transport = spec, setting, walkers, transport
        self.places: tuple[Place, ...] = setting.places
        self.lines: dict[int, WaitingLine] = {k: place.line for k, place in enumerate(self.places) if place.line is not None}
        self.bound = np.zeros(len(self.places), np.int64)
        self.watch = ConnectorWatch(walkers, transport)
        self.line_log: list[tuple[float, tuple[int, ...]]] = []
        self.came = self.refused = 0
        self.cut_off: tuple[str, ...] = ()
        self.people: dict[str, npt.NDArray[Any]] = {name: np.zeros(1, dtype) for name, dtype in COLUMNS.items()}
        self._routes: list[tuple[int, ...]] = [()]
        self._members: list[list[int]] = []
        self._cells = [self._standing_cells(place) for place in self.places]
        self._anchor = np.array([self._middle(place, cells) for place, cells in zip(self.places, self._cells, strict=True)], np.int64)
        self._room = np.array([place.room or NEVER for place in self.places])
        self._price = np.array([place.price for place in self.places])
        self._stay_s = np.array([place.stay_s[0] for place in self.places])
        self._likes = [
            np.array([0.0 if place.leave else place.popularity * visitors.likes.get(place.category, 1.0) for place in self.places])
            for visitors in spec.visitors
        ]
        self._every = max(1, round(DECIDE_S / walkers.step_s))
        self._second = max(1, round(1.0 / walkers.step_s))
        walkers.leaning = True
        self._row: npt.NDArray[np.int64] = np.full(1, -1)
        self._due: list[tuple[int, int, int, int]] = []
        self._arrivals: list[tuple[int, int]] = []
        self._outside: list[tuple[int, int]] = []
        self._rng = np.random.default_rng(spec.seed)
        self._doors = Doors(walkers.floor, _doors(spec)) if spec.doors else None
        self._alarm_step = NEVER if spec.alarm is None else self._steps(spec.alarm.at, "alarm.at")
        self._news = self._all_news()

    @property
    def outside(self) -> int:
        return len(self._outside)

    @property
    def busy(self) -> bool:
        """Whether anybody is inside, rides, or will come yet."""
        return bool(len(self.walkers) or self.transport.riders or self._arrivals or self._outside)

    def _steps(self, moment: str, what: str) -> int:
        """The step of a moment."""
        return round(seconds_after(self.spec.starts, moment, what) / self.walkers.step_s)

    def _standing_cells(self, place: Place) -> npt.NDArray[np.int32]:
        floor = self.walkers.floor
        cells = floor.cells_in(place.level, place.area)
        clear = cells[floor.clearance[cells] >= 0.25]
        return clear if len(clear) else cells

    def _middle(self, place: Place, cells: npt.NDArray[np.int32]) -> int:
        """The cell of a place that distances are measured to."""
        if not len(cells):
            raise InvalidInput(f"goal {place.name}: no cell of level {place.level} lies in it; put it on walkable ground")
        middle, floor = place.area.centroid, self.walkers.floor
        return int(cells[np.argmin((floor.x[cells] - middle.x) ** 2 + (floor.y[cells] - middle.y) ** 2)])

    # -- checkpoints

    def checkpoint(self) -> bytes:
        """Everything that changes, for `resume` of the same scenario. What was measured (waits, queues by time) is not in it."""
        lines = [[line.queue, line.since, line.served, line.sent, line.ends] for line in self.lines.values()]
        out = io.BytesIO()
        columns: dict[str, Any] = {**self.people, "bound": self.bound}
        np.savez(out, **columns)
        plan = [self._members, self._due, self._arrivals, self._outside, self._news, self.came, self.refused, lines]
        doors = [] if self._doors is None else self._doors.state
        return msgspec.msgpack.encode([self.walkers.checkpoint(), out.getvalue(), doors, plan])

    def resume(self, saved: bytes) -> None:
        """Go on from a checkpoint of a study of the same scenario. Raises InvalidInput for bytes that are none, and as `Walkers.resume`."""
        try:
            walkers, people, doors, plan = msgspec.msgpack.decode(saved, type=tuple[bytes, bytes, list[int], _Plan])
            with np.load(io.BytesIO(people), allow_pickle=False) as archive:
                columns = {name: archive[name] for name in archive.files}
        except (msgspec.MsgspecError, OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InvalidInput(f"resume: {len(saved)} bytes are not a checkpoint of a study ({error}); pass what checkpoint() gave") from None
        if len(doors) != len(self.spec.doors) or len(plan[-1]) != len(self.lines) or len(columns["bound"]) != len(self.places):
            raise InvalidInput("resume: the checkpoint is of another scenario; build the study from the one it was taken of")
        if self._doors is not None:
            self.walkers.remove(self.walkers.rows["id"])  # whoever stands in a door that was shut then
            self._doors.restore(self.walkers, doors)
        self.walkers.resume(walkers)
        self.bound = columns.pop("bound")
        self.people = columns
        self._members, self._due, self._arrivals, self._outside, self._news, self.came, self.refused, lines = plan
        for line, (queue, since, served, sent, ends) in zip(self.lines.values(), lines, strict=True):
            line.queue, line.since, line.served, line.sent, line.ends, line.waits = queue, since, served, sent, ends, []
        self._row = np.full(1, -1)

    # -- who is here

    def _enlist(self, ids: I8) -> None:
        """Make room for new people's rows."""
        need = int(ids.max()) + 1 if len(ids) else 0
        have = len(self.people["here"])
        if need > have:
            for name, array in self.people.items():
                grown = np.zeros(max(need, 2 * have), array.dtype)
                grown[:have] = array
                self.people[name] = grown
        self.people["here"][ids] = True
        self.people["group"][ids] = -1
        self.people["leads"][ids] = True
        self.people["visitor"][ids] = -1
        self.people["hold"][ids] = NO_HOLD
        self.people["until"][ids] = NEVER
        self.people["leave_by"][ids] = NEVER

    def _index(self) -> None:
        """Where each person's row is now; -1 for who rides or has left."""
        ids = self.walkers.rows["id"]
        if len(self._row) < len(self.people["here"]):
            self._row = np.full(len(self.people["here"]), -1)
        self._row[:] = -1
        self._row[ids] = np.arange(len(ids))

    def _draw(self, who: int) -> float:
        draws = self.people["draws"]
        draws[who] += 1
        return chance.uniform(self.spec.seed, who, int(draws[who]))

    # -- the step

    def step(self) -> None:
        """Let one step of time pass."""
        w = self.walkers
        if self._doors is not None and w.step_number % self._every == 0:
            self._doors.act(w)
        if w.step_number % self._every == 0:
            self._index()
            self._hear()
            self._receive()
            self._decide()
        self._steer()
        w.step()
        for who, _ in w.left_now:
            self.people["here"][who] = False
            self.bound[self.people["place"][who]] -= 1
        if w.step_number % self._second == 0:
            self.watch.take(w)
            self.line_log.append((w.time_s, tuple(len(line.queue) for line in self.lines.values())))

    def _steer(self) -> None:
        """Towards one's own spot, and together with one's group."""
        p, r = self.people, self.walkers.rows
        ids = r["id"]
        rows = np.flatnonzero(p["moves"][ids])
        if len(rows):
            who = ids[rows]
            dx, dy = p["spot_x"][who] - r["x"][rows], p["spot_y"][who] - r["y"][rows]
            far = np.hypot(dx, dy)
            on = far > AT_M
            r["goal"][rows] = np.where(on, TO_SPOT, STANDING)
            r["lean_x"][rows] = np.where(on, dx / np.maximum(far, 1e-9), 0.0)
            r["lean_y"][rows] = np.where(on, dy / np.maximum(far, 1e-9), 0.0)
        if self._members:
            self._keep_together()

    def _keep_together(self) -> None:
        p, w = self.people, self.walkers
        r = w.rows
        ids = r["id"]
        rows = np.flatnonzero((p["group"][ids] >= 0) & (r["goal"] >= 0) & (w.step_number >= r["start_step"]))
        if not len(rows):
            return
        who = ids[rows]
        walking = np.flatnonzero(p["here"] & (p["group"] >= 0) & (p["phase"] == WALK))
        size = np.bincount(p["group"][walking], minlength=len(self._members))
        target = w.aim[r["goal"][rows], r["cell"][rows]]
        dx, dy = w.floor.x[target] - r["x"][rows], w.floor.y[target] - r["y"][rows]
        far = np.hypot(dx, dy)
        known = (target >= 0) & (far > BOARD_M)
        rows, who, dx, dy, far = rows[known], who[known], dx[known], dy[known], far[known]
        r["lean_x"][rows_in_groups(ids, p)] = 0.0
        r["lean_y"][rows_in_groups(ids, p)] = 0.0
        if not len(rows):
            return
        lean_x, lean_y, speed = groups.wished(
            p["group"][who], r["level"][rows], r["x"][rows], r["y"][rows], dx / far, dy / far, r["vx"][rows], r["vy"][rows], p["base"][who], size
        )
        r["lean_x"][rows], r["lean_y"][rows] = lean_x, lean_y
        r["speed"][rows] = np.minimum(speed, w.most_speed_mps)

    # -- decisions

    def _decide(self) -> None:
        w, p = self.walkers, self.people
        r = w.rows
        ids = r["id"]
        if not len(ids):
            return
        now = w.step_number
        walking = np.flatnonzero((p["phase"][ids] == WALK) & (r["goal"] >= 0))
        who = ids[walking]
        place = p["place"][who]
        stays = np.array([not q.leave for q in self.places], np.bool_)[place] & ~(
            (p["visitor"][who] < 0) & (p["stage"][who] >= self._route_length(who) - 1)
        )
        walking, who, place = walking[stays], who[stays], place[stays]
        left_m = w.distance_m[r["goal"][walking], r["cell"][walking]]
        held_up = (left_m <= CLOSE_M) & ((now - r["mark_step"][walking]) * w.step_s >= HELD_UP_S)
        for i in np.flatnonzero((left_m <= 0.0) | held_up).tolist():
            self._arrive(int(who[i]), int(walking[i]), int(place[i]))
        settling = np.flatnonzero((p["phase"][ids] == SETTLE) & ((p["until"][ids] <= now) | (r["goal"] == STANDING)))
        for i in settling.tolist():
            self._stay(int(ids[i]), i)
        stayed = ids[(p["phase"][ids] == STAY) & (p["until"][ids] <= now) & p["leads"][ids]]
        for one in stayed.tolist():
            self._depart(one)
        for line in self.lines.values():
            for one in line.turn(now, w.step_s, self._where, self._draw):
                self._depart(one)
            for one, x, y in line.targets():
                p["spot_x"][one], p["spot_y"][one], p["moves"][one] = x, y, True

    def _route_length(self, who: I8) -> I8:
        lengths = np.array([len(route) for route in self._routes])
        return np.asarray(lengths[self.people["route"][who]])

    def _where(self, who: int) -> tuple[float, float]:
        row = int(self._row[who])
        return (float(self.walkers.rows["x"][row]), float(self.walkers.rows["y"][row])) if row >= 0 else (np.inf, np.inf)

    def _stand(self, who: int, row: int) -> None:
        p, r = self.people, self.walkers.rows
        p["moves"][who] = False
        r["goal"][row], r["lean_x"][row], r["lean_y"][row], r["speed"][row] = STANDING, 0.0, 0.0, p["base"][who]

    def _arrive(self, who: int, row: int, place: int) -> None:
        """Somebody has come to where they wanted."""
        p = self.people
        self._stand(who, row)
        line = self.lines.get(place)
        if line is not None:
            if p["leads"][who]:
                p["phase"][who] = LINE
                line.join(who, self.walkers.step_number)
            else:
                p["phase"][who], p["until"][who] = STAY, NEVER
            return
        cell = self._spot_in_sight(who, row, place)
        if cell >= 0:
            floor, r = self.walkers.floor, self.walkers.rows
            p["spot_x"][who], p["spot_y"][who], p["moves"][who] = floor.x[cell], floor.y[cell], True
            r["goal"][row] = TO_SPOT
        p["phase"][who], p["until"][who] = SETTLE, self.walkers.step_number + round(SETTLE_S / self.walkers.step_s)

    def _spot_in_sight(self, who: int, row: int, place: int) -> int:
        """A cell of a place that somebody who has come there sees, drawn; -1 where none of those drawn is."""
        floor, r = self.walkers.floor, self.walkers.rows
        if r["level"][row] != self.places[place].level:
            return -1
        cells = self._cells[place]
        near = cells[np.hypot(floor.x[cells] - r["x"][row], floor.y[cells] - r["y"][row]) <= SETTLE_M]
        for _ in range(SETTLE_TRIES if len(near) else 0):
            cell = int(near[min(len(near) - 1, int(self._draw(who) * len(near)))])
            if sees(int(r["cell"][row]), cell, floor.raster, floor.cid, floor.links, floor.clearance, floor.spare, floor.nx, BODY_M):
                return cell
        return -1

    def _stay(self, who: int, row: int) -> None:
        p, now = self.people, self.walkers.step_number
        self._stand(who, row)
        p["phase"][who] = STAY
        stay_s = chance.log_normal(self._draw(who), *self.places[int(p["place"][who])].stay_s)
        hold = int(p["hold"][who])
        p["until"][who] = (hold if hold != NO_HOLD else now + round(stay_s / self.walkers.step_s)) if p["leads"][who] else NEVER
        p["hold"][who] = NO_HOLD

    def _depart(self, who: int) -> None:
        """Somebody, and the group they lead, goes on."""
        p = self.people
        place = int(p["place"][who])
        visitor = int(p["visitor"][who])
        if p["leaving"][who]:
            self._send(who, self._exit(who))
            return
        if visitor < 0:
            route = self._routes[int(p["route"][who])]
            p["stage"][who] = min(int(p["stage"][who]) + 1, len(route) - 1)
            for other in self._with(who):
                p["stage"][other] = p["stage"][who]
            self._send(who, route[int(p["stage"][who])])
            return
        here = self.places[place]
        p["money"][who] -= here.price
        if here.till >= 0 and self._draw(who) < here.buys:
            self._send(who, here.till)
            return
        p["stops"][who] -= 1
        self._send(who, self._choose(who))

    def _with(self, who: int) -> list[int]:
        """The others of a group, who are here still."""
        group = int(self.people["group"][who])
        return [] if group < 0 else [m for m in self._members[group] if m != who and self.people["here"][m]]

    def _shift(self, who: int) -> int:
        """Where somebody's goals begin: those of people on wheels follow the others."""
        return len(self.places) if self.people["wheels"][who] else 0

    def _metres(self, who: int, places: Sequence[int]) -> F8:
        """How far places are for somebody, from where they stand, or from where they step off; inf where no way leads."""
        w = self.walkers
        row = int(self._row[who])
        if row >= 0:
            cell = int(w.rows["cell"][row])
        else:
            cell = next((int(w.floor.hop_end[rider[2]]) for rider in self.transport.riders if rider[1] == who), -1)
            if cell < 0:
                return np.full(len(places), np.inf)
        goals = [self._shift(who) + place for place in places]
        w.know(goals)
        return np.asarray(w.distance_m[goals, cell], np.float64)

    def _metres_on(self, who: int) -> F8:
        """(places,) about how far each place is from the one where somebody is: as far as it is from there to here."""
        w, goal = self.walkers, self._shift(who) + int(self.people["place"][who])
        w.know([goal])
        return np.asarray(w.distance_m[goal, self._anchor], np.float64)

    def _choose(self, who: int) -> int:
        """The next place of a visitor: by popularity, likes and nearness among those that have room, that they can pay for and have time for; else an exit."""
        p, now = self.people, self.walkers.step_number
        if p["stops"][who] <= 0 or now >= p["leave_by"][who]:
            return self._exit(who)
        metres = self._metres_on(who)
        visitors = self.spec.visitors[int(p["visitor"][who])]
        arrive_s = now * self.walkers.step_s + metres / float(p["base"][who]) + self._stay_s
        weight = self._likes[int(p["visitor"][who])] * np.exp(-metres / visitors.range_m)
        weight[(self.bound >= self._room) | (self._price > p["money"][who]) | (arrive_s > p["leave_by"][who] * self.walkers.step_s)] = 0.0
        weight[int(p["place"][who])] = 0.0
        total = np.cumsum(weight)
        if not total[-1] > 0.0:
            return self._exit(who)
        return min(len(total) - 1, int(np.searchsorted(total, self._draw(who) * total[-1], side="right")))

    def _exit(self, who: int) -> int:
        """The nearest exit that somebody may take."""
        visitor = int(self.people["visitor"][who])
        allowed = self._exits_of(visitor) if visitor >= 0 else self.setting.exits
        if self.people["leaving"][who] and self.spec.alarm is not None and self.spec.alarm.exits and self.walkers.step_number >= self._alarm_step:
            allowed = tuple(self.setting.number(name, "alarm.exits") for name in self.spec.alarm.exits)
        return allowed[int(np.argmin(self._metres(who, allowed)))]

    def _exits_of(self, visitor: int) -> tuple[int, ...]:
        named = self.spec.visitors[visitor].exits
        return tuple(self.setting.number(name, f"visitors {visitor}") for name in named) or self.setting.exits

    def _send(self, leader: int, place: int) -> None:
        """Somebody and those they lead walk to a place from now on."""
        p, w = self.people, self.walkers
        for who in [leader, *self._with(leader)]:
            self.bound[p["place"][who]] -= 1
            self.bound[place] += 1
            if p["phase"][who] == LINE:
                self.lines[int(p["place"][who])].drop({who})
            p["place"][who], p["phase"][who], p["moves"][who], p["until"][who] = place, WALK, False, NEVER
            goal = place + self._shift(who)
            w.know([goal])
            row = int(self._row[who])
            if row >= 0:
                r = w.rows
                r["goal"][row], r["lean_x"][row], r["lean_y"][row], r["speed"][row] = goal, 0.0, 0.0, p["base"][who]
                r["mark_x"][row], r["mark_y"][row], r["mark_step"][row] = r["x"][row], r["y"][row], w.step_number
            else:
                self.transport.redirect({who: goal})

    # -- what happens

    def _all_news(self) -> list[tuple[int, str, int]]:
        """(step, kind, number) of all that happens by the clock, ascending."""
        spec = self.spec
        news = [(self._steps(offer.at, f"offers.{k}.at"), "offer", k) for k, offer in enumerate(spec.offers)]
        news += [(self._steps(act.start, f"acts.{k}.from") - round(act.lead_s / self.walkers.step_s), "act", k) for k, act in enumerate(spec.acts)]
        news += [(self._steps(v.closes, f"visitors.{k}.closes"), "close", k) for k, v in enumerate(spec.visitors) if v.closes]
        if spec.alarm is not None:
            news.append((self._alarm_step, "alarm", 0))
        self._offer_place = [self.setting.number(offer.place, f"offers.{k}") for k, offer in enumerate(spec.offers)]
        self._act_place = [self.setting.number(act.place, f"acts.{k}") for k, act in enumerate(spec.acts)]
        for k, offer in enumerate(spec.offers):
            if not (
                0 <= offer.pull <= 1 and offer.decay_m > 0 and self._steps(offer.until, f"offers.{k}.until") > self._steps(offer.at, f"offers.{k}.at")
            ):
                raise InvalidInput(
                    f"offers.{k}: pull {offer.pull}, decay {offer.decay_m} m, {offer.at} to {offer.until}; a share, above 0 m, ends after it begins"
                )
        for k, act in enumerate(spec.acts):
            if not (0 <= act.share <= 1 and act.lead_s >= 0 and self._steps(act.until, f"acts.{k}.until") > self._steps(act.start, f"acts.{k}.from")):
                raise InvalidInput(
                    f"acts.{k}: share {act.share}, {act.lead_s} s ahead, {act.start} to {act.until}; a share, 0 s or more, ends after it begins"
                )
        if spec.alarm is not None:
            for name in spec.alarm.exits:
                if not self.places[self.setting.number(name, "alarm.exits")].leave:
                    raise InvalidInput(f"alarm.exits: {name!r} is no exit; name goals with leave = true")
            if not spec.alarm.premovement_s[0] > 0 or spec.alarm.premovement_s[1] < 0:
                raise InvalidInput(f"alarm: premovement_s = {list(spec.alarm.premovement_s)}; median above 0 s, sigma 0 or more")
            unknown = set(spec.alarm.closes) - {c.id for c in self.transport.connectors}
            if unknown:
                raise InvalidInput(
                    f"alarm.closes: {sorted(unknown)[0]!r}; there are {', '.join(c.id for c in self.transport.connectors) or 'no connectors'}"
                )
        return sorted(news)

    def _hear(self) -> None:
        """What is due now: news, and people who act on what they heard."""
        w, p = self.walkers, self.people
        now = w.step_number
        while self._news and self._news[0][0] <= now:
            _, kind, number = self._news.pop(0)
            present = [int(i) for i in np.flatnonzero(p["here"] & p["leads"])]
            match kind:
                case "offer":
                    for who in present:
                        self._tempt(who, number)
                case "act":
                    for who in present:
                        self._invite(who, number)
                case "close":
                    for who in present:
                        if p["visitor"][who] == number:
                            p["leaving"][who] = True
                            self._later(who, chance.log_normal(self._draw(who), *self.spec.visitors[number].egress_s), -1, NO_HOLD)
                    self._arrivals = [(step, k) for step, k in self._arrivals if k != number]
                case _:
                    self._sound_alarm(present)
        while self._due and self._due[0][0] <= now:
            _, who, place, hold = heapq.heappop(self._due)
            if p["here"][who] and (place < 0 or not p["leaving"][who]):
                p["hold"][who] = hold
                self._send(who, self._exit(who) if place < 0 else place)

    def _later(self, who: int, after_s: float, place: int, hold: int) -> None:
        heapq.heappush(self._due, (self.walkers.step_number + round(after_s / self.walkers.step_s), who, place, hold))

    def _tempt(self, who: int, number: int) -> bool:
        """Whether an offer pulls somebody."""
        p, offer, place = self.people, self.spec.offers[number], self._offer_place[number]
        if p["visitor"][who] < 0 or p["place"][who] == place or p["leaving"][who]:
            return False
        if not self._draw(who) < offer.pull * np.exp(-self._metres(who, [place])[0] / offer.decay_m):
            return False
        if self.bound[place] >= (offer.room or self._room[place]):
            self.refused += 1
            return False
        p["stops"][who] = max(1, int(p["stops"][who]))
        self._later(who, HEAR_S * self._draw(who), place, NO_HOLD)
        return True

    def _invite(self, who: int, number: int) -> bool:
        """Whether somebody goes to an act; they stay until it ends."""
        p, act = self.people, self.spec.acts[number]
        if p["visitor"][who] < 0 or p["leaving"][who] or not self._draw(who) < act.share:
            return False
        now = self.walkers.step_number
        left_s = max(0.0, (self._steps(act.start, "act") - now) * self.walkers.step_s)
        ends = self._steps(act.until, "act") + round(LINGER_S * self._draw(who) / self.walkers.step_s)
        self._later(who, left_s * self._draw(who), self._act_place[number], ends)
        return True

    def _sound_alarm(self, present: Sequence[int]) -> None:
        alarm, p = self.spec.alarm, self.people
        assert alarm is not None
        self._arrivals, self._outside, self._due = [], [], []
        if alarm.closes:
            self.transport.close(alarm.closes)
            self.walkers.find_ways()
        for who in present:
            p["leaving"][who] = True
            for other in self._with(who):
                p["leaving"][other] = True
            self._later(who, chance.log_normal(self._draw(who), *alarm.premovement_s), -1, NO_HOLD)

    # -- who comes

    def _receive(self) -> None:
        """Let in who is due, as far as the entrances have room."""
        now = self.walkers.step_number
        while self._arrivals and self._arrivals[0][0] <= now:
            self._outside.append(self._arrivals.pop(0))
        waiting = self._outside
        self._outside = []
        full: set[int] = set()
        for step, visitor in waiting:
            doors = self._exits_of(visitor)
            door = doors[int(chance.uniform(self.spec.seed, step, self.came) * len(doors))]
            if door in full or not self._let_in(visitor, door):
                full.add(door)
                self._outside.append((step, visitor))

    def _let_in(self, visitor: int, door: int) -> bool:
        """A group of visitors steps in by a door; False where it has no room."""
        spec, w, r = self.spec.visitors[visitor], self.walkers, self.walkers.rows
        first = w.report().added + 1
        radius, speed, wheels = bodies_of(spec, group_size(spec.group_sizes, chance.uniform(self.spec.seed, first, 900)), self.spec.seed, first)
        floor, place = w.floor, self.places[door]
        cells = self._cells[door]
        middle = place.area.centroid
        cells = cells[np.argsort((floor.x[cells] - middle.x) ** 2 + (floor.y[cells] - middle.y) ** 2, kind="stable")]
        mine = np.flatnonzero((r["level"] == place.level) & (np.hypot(r["x"] - middle.x, r["y"] - middle.y) < 12.0))
        x, y, wide = r["x"][mine].tolist(), r["y"][mine].tolist(), r["radius"][mine].tolist()
        spots: list[int] = []
        for own in radius:
            for cell in cells.tolist():
                cx, cy = float(floor.x[cell]), float(floor.y[cell])
                clear = floor.clearance[cell] >= own + 0.02
                if clear and all((cx - a) ** 2 + (cy - b) ** 2 > (own + c + 0.02) ** 2 for a, b, c in zip(x, y, wide, strict=True)):
                    spots.append(cell)
                    x.append(cx)
                    y.append(cy)
                    wide.append(own)
                    break
            else:
                return False
        at = np.array(spots, np.int64)
        ids = w.add(floor.x[at], floor.y[at], goal=STANDING, level=place.level, speed_mps=speed, radius_m=radius)
        self._enlist(ids)
        self._index()
        self._admit(visitor, ids, speed, wheels, door)
        return True

    def _admit(self, visitor: int, ids: I8, speed: Sequence[float], wheels: bool, origin: int, inside: bool = False) -> None:
        """New visitors of one group, the first of whom leads; they choose where to go, or are in `origin` already."""
        w, p, spec = self.walkers, self.people, self.spec.visitors[visitor]
        self.came += len(ids)
        members: list[int] = ids.tolist()
        leader = members[0]
        p["visitor"][ids], p["wheels"][ids], p["base"][ids], p["place"][ids] = visitor, wheels, speed, origin
        self.bound[origin] += len(ids)
        if len(members) > 1:
            p["group"][ids], p["leads"][ids] = len(self._members), False
            p["leads"][leader] = True
            self._members.append(members)
        p["stops"][leader] = 1 + chance.poisson(self._draw(leader), max(0.0, spec.stops - 1.0))
        p["money"][leader] = chance.log_normal(self._draw(leader), *spec.budget)
        has_s = chance.log_normal(self._draw(leader), *spec.time_s) * (self._draw(leader) if inside else 1.0)
        p["leave_by"][leader] = w.step_number + round(has_s / w.step_s)
        if inside:
            p["phase"][ids] = STAY
            stay_s = chance.log_normal(self._draw(leader), *self.places[origin].stay_s) * self._draw(leader)
            p["until"][leader] = w.step_number + round(stay_s / w.step_s)
            return
        now = w.step_number
        self._send(leader, self._choose(leader))
        for k, offer in enumerate(self.spec.offers):
            if self._steps(offer.at, "offer") <= now < self._steps(offer.until, "offer") and self._tempt(leader, k):
                return
        for k, act in enumerate(self.spec.acts):
            lead = self._steps(act.start, "act") - round(act.lead_s / w.step_s)
            if lead <= now < self._steps(act.until, "act") and self._invite(leader, k):
                return

    # -- the start

    @classmethod
    def of(cls, spec: CrowdSpec, *, threads: int | None = None) -> Study:
        """A scenario with everybody at their start. Raises InvalidInput naming what cannot be."""
        if not 0 < spec.seconds <= MAX_SECONDS:
            raise InvalidInput(f"seconds = {spec.seconds}; must be above 0, at most a day")
        if not 0 < spec.record_s <= MAX_SECONDS:
            raise InvalidInput(f"record_s = {spec.record_s}; must be above 0 s between two frames, at most a day")
        if not 0 <= spec.jam_s <= MAX_SECONDS:
            raise InvalidInput(f"jam_s = {spec.jam_s}; must be above 0 s, at most a day, or 0 for ways that feel no jams")
        model = model_of(spec.model, spec.parameters, parameter_set=spec.parameter_set)
        spec = with_bodies(spec, model)
        check_crowds(spec)
        setting = set_up(spec)
        crowds: list[PeopleSpec | VisitorsSpec] = [*spec.people, *spec.visitors]
        with_wheels = any(c.prams > 0 or c.wheelchairs > 0 for c in crowds)
        goals = [Goal(place.name, place.level, place.area, place.leave) for place in setting.places]
        if with_wheels:
            goals += [Goal(f"{place.name} (step-free)", place.level, place.area, place.leave, True) for place in setting.places]
        fastest = max([2.0, *(c.speed_mps[0] + 3 * c.speed_mps[1] for c in crowds), 2.6 if any(c.group_sizes for c in crowds) else 0.0])
        widest = max([0.2, *(c.radius_m for c in crowds), WHEELCHAIR_M if with_wheels else 0.0])
        transport = Transport(setting.floor, setting.connectors)
        walkers = Walkers(
            setting.floor, goals, model=model, step_s=spec.step_s, threads=threads, most_speed_mps=min(3.0, fastest), most_radius_m=widest,
            jam_s=spec.jam_s or None, hops=transport, lazy=True,
        )  # fmt: skip
        study = cls(spec, setting, walkers, transport)
        for k, people in enumerate(spec.people):
            place_people(study, k, people)
        if spec.visitors:
            check_levels(study)
        for k, visitors in enumerate(spec.visitors):
            expect(study, k, visitors)
        return study


def _doors(spec: CrowdSpec) -> list[Door]:
    found = []
    for door in spec.doors:
        closes = seconds_after(spec.starts, door.closes, f"door {door.id}.closes")
        opens = {"opens_s": seconds_after(spec.starts, door.opens, f"door {door.id}.opens")} if door.opens else {}
        found.append(Door(door.id, door.level, polygon(f"door {door.id}", door.area), closes, **opens))
    return found
