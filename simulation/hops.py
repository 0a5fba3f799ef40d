"""Hops in operation: who steps on where, who is inside, who steps off onto free ground.

Owns the riders and the service of each hop: one person every `hop_every_s`, `hop_room` inside at most, nobody steps off onto somebody. People on the way
are its; those who walk are the walkers'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput
from simulation import floor_kernels, walker_kernels
from simulation.floor import WALK_MPS, Floor
from simulation.walker_kernels import WALL_OVERLAP_M

if TYPE_CHECKING:
    from simulation.walkers import Goal, Walkers

BOARD_M: Final = 1.2
"""Who is this close to where a hop begins can step on."""
EXIT_M: Final = 2.5
"""And off onto the first free cell within this distance of its end."""
SEEN_OFF_WALLS_M: Final = 0.15
LATE_S: Final = 5.0
LATE_M: Final = 8.0
"""Who has had no place there for LATE_S steps off within this distance: both ends may be full of people who wait for each other's hop."""
_FIELDS: Final = ("id", "goal", "speed", "radius")


class Hops:
    """riders: one tuple each: (step at which the ride ends, id, hop, goal, speed, radius), in the order in which they step off."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._next_s = np.zeros(len(floor.hop_start))
        self.riders: list[tuple[int, int, int, int, float, float]] = []
        self._is_start = np.zeros(len(floor.x), np.bool_)
        self._is_start[floor.hop_start] = True
        self._chosen: dict[tuple[int, int], int] = {}
        self._by_start: dict[int, npt.NDArray[np.intp]] = {int(cell): np.flatnonzero(floor.hop_start == cell) for cell in np.unique(floor.hop_start)}
        level = floor.level_of(floor.hop_end) if len(floor.hop_end) else np.zeros(0, np.int32)
        self._exits: list[npt.NDArray[np.int32]] = []
        self._close_exits: list[int] = []
        for end, at in zip(floor.hop_end.tolist(), level.tolist(), strict=True):
            rows = floor.near(at, (float(floor.x[end]), float(floor.y[end])), LATE_M)
            rows = rows[(floor.clearance[rows] >= 0.3) | (rows == end)]
            rows = rows[
                floor_kernels.seen_from(end, rows, floor.raster, floor.cid, floor.links, floor.clearance, floor.spare, floor.nx, SEEN_OFF_WALLS_M)
            ]
            d2 = (floor.x[rows] - floor.x[end]) ** 2 + (floor.y[rows] - floor.y[end]) ** 2
            nearest_first = np.argsort(d2, kind="stable")
            self._exits.append(rows[nearest_first])
            self._close_exits.append(int(np.count_nonzero(d2 <= EXIT_M**2)))
        self._end_level = level

    def __len__(self) -> int:
        return len(self._floor.hop_start)

    def serve(self, walkers: Walkers) -> None:
        """Let riders off and those who wait on, for the step that begins."""
        self._step_off(walkers)
        r, floor = walkers.rows, self._floor
        rows, target, gap = self._bound_for_hops(walkers, BOARD_M)
        if not len(rows):
            return
        goal = r["goal"][rows]
        inside = np.bincount([rider[2] for rider in self.riders], minlength=len(self)) if self.riders else np.zeros(len(self), np.int64)
        gone = np.zeros(len(walkers), np.bool_)
        for k in np.lexsort((r["id"][rows], gap)).tolist():
            i, hop = int(rows[k]), self._chosen_hop(walkers, int(target[k]), int(goal[k]))
            if walkers.time_s + 1e-9 >= self._next_s[hop] and inside[hop] < floor.hop_room[hop]:
                self._next_s[hop] = max(self._next_s[hop], walkers.time_s - walkers.step_s) + floor.hop_every_s[hop]
                inside[hop] += 1
                until = walkers.step_number + max(1, round(float(floor.hop_s[hop]) / walkers.step_s))
                self.riders.append((until, int(r["id"][i]), hop, int(r["goal"][i]), float(r["speed"][i]), float(r["radius"][i])))
                gone[i] = True
        if gone.any():
            walkers._keep(~gone)
            self.riders.sort()

    def _bound_for_hops(self, walkers: Walkers, within_m: float) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """(rows, cells, metres) of those who walk straight to where a hop begins, no further off than `within_m`: the cell, and how far they are from it."""
        r, floor = walkers.rows, self._floor
        found: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float64]] = walker_kernels.bound_for_hops(
            r["x"], r["y"], r["goal"], r["cell"], walkers.aim, walkers.distance_m, self._is_start, floor.x, floor.y, within_m
        )
        return found

    def ways(
        self, floor: Floor, seeds: Sequence[npt.NDArray[np.int32]], goals: Sequence[Goal], load: npt.NDArray[np.int32] | None = None
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Aims and distances to each goal, as `Floor.solve` has them, by the hops that those bound for it may take. Raises InvalidInput for a goal that is
        step-free: which of these hops are is not known."""
        for goal in goals:
            if goal.step_free:
                raise InvalidInput(
                    f"goal {goal.name}: step-free, but hops do not say what they are; give lifts, escalators and stairs (`simulation.transport`)"
                )
        self._chosen.clear()
        return floor.solve(seeds, load=load)

    def leads_to(self, floor: Floor, seeds: npt.NDArray[np.int32], *, step_free: bool = False) -> npt.NDArray[np.bool_]:
        """(c,) from which cells a way leads to one of these, by the hops that those who go step-free (or anybody) may take."""
        return floor.leads_to(seeds)

    def feel(self) -> None:
        """Called before ways are found anew for jams; queues at hops are not counted here."""

    def _chosen_hop(self, walkers: Walkers, start: int, goal: int) -> int:
        """As `_choose`, asked once until ways are found anew."""
        hop = self._chosen.get((start, goal))
        if hop is None:
            hop = self._chosen[start, goal] = self._choose(walkers, start, goal)
        return hop

    def _choose(self, walkers: Walkers, start: int, goal: int) -> int:
        """The hop from a cell that is the shortest way to a goal."""
        hops = self._by_start[start]
        onward = walkers.distance_m[goal, self._floor.hop_end[hops]] + self._floor.hop_s[hops] * WALK_MPS
        return int(hops[np.argmin(onward)])

    def _step_off(self, walkers: Walkers) -> None:
        r, floor = walkers.rows, self._floor
        off: list[tuple[Any, ...]] = []
        stay = []
        for rider in self.riders:
            until, who, hop, goal, speed, radius = rider
            at = -1
            if until <= walkers.step_number:
                level = int(self._end_level[hop])
                end = floor.hop_end[hop]
                late = (walkers.step_number - until) * walkers.step_s > LATE_S
                exits, reach = (self._exits[hop], LATE_M) if late else (self._exits[hop][: self._close_exits[hop]], EXIT_M)
                mine = (r["level"] == level) & (np.abs(r["x"] - floor.x[end]) < reach + 2.0) & (np.abs(r["y"] - floor.y[end]) < reach + 2.0)
                others = [*zip(r["x"][mine], r["y"][mine], r["radius"][mine], strict=True), *((o[1], o[2], o[6]) for o in off if o[3] == level)]
                for cell in exits.tolist():
                    if floor.clearance[cell] >= min(radius, 1.0) - WALL_OVERLAP_M and all(
                        (floor.x[cell] - x) ** 2 + (floor.y[cell] - y) ** 2 >= (radius + wide) ** 2 for x, y, wide in others
                    ):
                        at = cell
                        break
            if at < 0:
                stay.append(rider)
            else:
                off.append((who, float(floor.x[at]), float(floor.y[at]), int(self._end_level[hop]), goal, speed, radius))
        if off:
            self.riders = stay
            ids, *columns = (np.array(column) for column in zip(*off, strict=True))
            walkers._append(ids.astype(np.int64), *columns)

    def state(self) -> npt.NDArray[np.float64]:
        """Everything that changes, flat: the hops' next times, then six numbers a rider."""
        return np.concatenate([self._next_s, np.array(self.riders, np.float64).ravel()])

    def restore(self, state: npt.NDArray[np.float64]) -> None:
        h = len(self)
        self._chosen.clear()
        self._next_s = state[:h].copy()
        self.riders = [(int(a), int(b), int(c), int(d), float(e), float(f)) for a, b, c, d, e, f in state[h:].reshape(-1, 6).tolist()]
