"""Hops in operation: who steps on where, who is inside, who steps off onto free ground.

Owns the riders and the service of each hop: one person every `hop_every_s`, `hop_room` inside at most, nobody steps off onto somebody. People on the way
are its; those who walk are the walkers'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from simulation.floor import WALK_MPS, Floor

if TYPE_CHECKING:
    from simulation.walkers import Walkers

BOARD_M: Final = 1.2
"""Who is this close to where a hop begins can step on."""
EXIT_M: Final = 2.5
"""And off onto the first free cell within this distance of its end."""
_FIELDS: Final = ("id", "goal", "speed", "radius")


class Hops:
    """riders: one tuple each: (step at which the ride ends, id, hop, goal, speed, radius), in the order in which they step off."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._next_s = np.zeros(len(floor.hop_start))
        self.riders: list[tuple[int, int, int, int, float, float]] = []
        self._by_start: dict[int, npt.NDArray[np.intp]] = {int(cell): np.flatnonzero(floor.hop_start == cell) for cell in np.unique(floor.hop_start)}
        level = floor.level_of(floor.hop_end) if len(floor.hop_end) else np.zeros(0, np.int32)
        all_levels = floor.raster // (floor.nx * floor.ny)
        self._exits = []
        for end, at in zip(floor.hop_end.tolist(), level.tolist(), strict=True):
            rows = np.flatnonzero(all_levels == at)
            d2 = (floor.x[rows] - floor.x[end]) ** 2 + (floor.y[rows] - floor.y[end]) ** 2
            near = d2 <= EXIT_M**2
            rows, d2 = rows[near], d2[near]
            rows = rows[np.argsort(d2, kind="stable")]
            self._exits.append(rows[(floor.clearance[rows] >= 0.3) | (rows == end)])
        self._end_level = level

    def __len__(self) -> int:
        return len(self._floor.hop_start)

    def serve(self, walkers: Walkers) -> None:
        """Let riders off and those who wait on, for the step that begins."""
        self._step_off(walkers)
        r, floor = walkers.rows, self._floor
        rows = np.flatnonzero(r["goal"] >= 0)
        if not len(rows):
            return
        goal = r["goal"][rows].astype(np.intp)
        target = walkers.aim[goal, r["cell"][rows]]
        ok = target >= 0
        rows, goal, target = rows[ok], goal[ok], target[ok]
        begins = (walkers.aim[goal, target] == target) & (walkers.distance_m[goal, target] > 0.0)
        rows, goal, target = rows[begins], goal[begins], target[begins]
        gap = np.hypot(r["x"][rows] - floor.x[target], r["y"][rows] - floor.y[target])
        close = gap <= BOARD_M
        rows, goal, target, gap = rows[close], goal[close], target[close], gap[close]
        inside = np.bincount([rider[2] for rider in self.riders], minlength=len(self)) if self.riders else np.zeros(len(self), np.int64)
        gone = np.zeros(len(walkers), np.bool_)
        for k in np.lexsort((r["id"][rows], gap)).tolist():
            i, hop = int(rows[k]), self._choose(walkers, int(target[k]), int(goal[k]))
            if walkers.time_s + 1e-9 >= self._next_s[hop] and inside[hop] < floor.hop_room[hop]:
                self._next_s[hop] = max(self._next_s[hop], walkers.time_s - walkers.step_s) + floor.hop_every_s[hop]
                inside[hop] += 1
                until = walkers.step_number + max(1, round(float(floor.hop_s[hop]) / walkers.step_s))
                self.riders.append((until, int(r["id"][i]), hop, int(r["goal"][i]), float(r["speed"][i]), float(r["radius"][i])))
                gone[i] = True
        if gone.any():
            walkers._keep(~gone)
            self.riders.sort()

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
                mine = (r["level"] == level) & (np.abs(r["x"] - floor.x[end]) < EXIT_M + 2.0) & (np.abs(r["y"] - floor.y[end]) < EXIT_M + 2.0)
                others = [*zip(r["x"][mine], r["y"][mine], r["radius"][mine], strict=True), *((o[1], o[2], o[6]) for o in off if o[3] == level)]
                for cell in self._exits[hop].tolist():
                    if all((floor.x[cell] - x) ** 2 + (floor.y[cell] - y) ** 2 >= (radius + wide) ** 2 for x, y, wide in others):
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
        self._next_s = state[:h].copy()
        self.riders = [(int(a), int(b), int(c), int(d), float(e), float(f)) for a, b, c, d, e, f in state[h:].reshape(-1, 6).tolist()]
