"""Bodies on a floor, each on its way to a goal: the fixed step, who comes and goes, checkpoints, and what went wrong.

Owns the bodies as a structure of arrays and turns generation t into t + 1. Deterministic: the same calls give the same bits for any number of threads, and
from a checkpoint as without one. It must never read a clock or draw chance, and never knows why somebody walks.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
from numba import config
from shapely.geometry.base import BaseGeometry

from esplanade.core.errors import InvalidInput, LimitExceeded, NotFound
from simulation import ground_kernels, walker_kernels
from simulation.floor import Floor
from simulation.hops import Hops
from simulation.lanes import WIDTH
from simulation.models import CollisionFreeSpeed, Model, check_model
from simulation.walker_kernels import OVERLAP_M, WALL_OVERLAP_M, After, Cells, Plan, State

F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]

ARRIVED_M: Final = 0.06
STUCK_S: Final = 30.0
"""Who wants to walk and has not got on by STUCK_M for so long counts as stuck."""
STUCK_M: Final = 0.5
PATIENCE_S: Final = 10.0
"""Who has not got on for so long tries directions up to 69 degrees off, a new one every second, drawn by a hash of the id: pairs that block each other part."""
REGROUP_STEPS: Final = 8
"""Every so many steps the rows are put in the order of the cells, so that neighbours lie together in memory."""
JAM_SHARE: Final = 0.3
"""Who walks below this share of the desired speed stands in a jam."""
JAM_M: Final = 1.2
JAM_PER_M2: Final = 2.0
JAM_DEAR: Final = 4
"""With JAM_PER_M2 people standing on a block JAM_M wide or more, steps there cost so many times as much: some 0.33 m/s against 1.34."""
WIDE: Final = 0.4
DEEP: Final = 0.75
"""Cells for neighbours are so many times the sight wide and deep: the fewest eights to look at, and no more cells than bodies at 0.5 persons/m2. Less deep
ones would have more rows in sight than `walker_kernels.RUNS`."""
FALL_PER_M: Final = 500.0
"""Entries a metre of the table of repulsion: a range of 0.1 m is met within 5e-5 of its value."""
SERIAL_BELOW: Final = 2000
"""Fewer bodies walk on one thread: waiting for others would take longer."""
MANY: Final = 100_000
"""So many bodies are worth sorting on all threads, and their step is dealt out in smaller parts, lest all wait for a thread that was put aside."""
PARTS_A_THREAD: Final = 4
MOST_THREADS: Final = int(config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
FEW_GO: Final = 0.05
MAX_BODIES: Final = 5_000_000
MAX_FIELD_BYTES: Final = 2 << 30
MAX_GRID: Final = 40_000_000
SPEED_MPS: Final = (0.1, 3.0)
RADIUS_M: Final = (0.05, 1.0)
PLACE_GAP_M: Final = 1e-6

_ROWS: Final[dict[str, Any]] = {
    "id": np.int64, "level": np.uint8, "goal": np.int16, "x": np.float64, "y": np.float64, "vx": np.float64, "vy": np.float64, "hx": np.float64,
    "hy": np.float64, "speed": np.float64, "radius": np.float64, "cell": np.int32, "mark_x": np.float64, "mark_y": np.float64, "mark_step": np.int32,
    "start_step": np.int32, "lean_x": np.float64, "lean_y": np.float64, "aimed": np.int16, "aim_x": np.float64, "aim_y": np.float64,
}  # fmt: skip
_REMEMBERED: Final = ("aimed", "aim_x", "aim_y")
"""Rows that are looked up anew where NOBODYS is what they are for; not in checkpoints."""
NOBODYS: Final = -9
_MOVING: Final = ("x", "y", "vx", "vy", "hx", "hy")


@dataclass(frozen=True, slots=True)
class Goal:
    """Where people want to get: an area of a level. With `leave` they are gone once the area covers their centre, else they stop there. With `step_free`
    their way has no stairs and no escalators."""

    name: str
    level: int
    area: BaseGeometry
    leave: bool = True
    step_free: bool = False


@dataclass(frozen=True, slots=True)
class WalkersReport:
    """How it stands. stuck: ids of who wants to walk and has not got on for STUCK_S; ever_stuck: how many such spells there have been; lost: ids of who stands
    where no way leads to the goal. left: of each goal, how many; added: bodies ever; riding: inside a hop now."""

    step: int
    time_s: float
    bodies: int
    riding: int
    added: int
    left: dict[str, int]
    stuck: tuple[int, ...]
    ever_stuck: int
    lost: tuple[int, ...]


def _inner(area: BaseGeometry) -> BaseGeometry:
    inner = area.buffer(-ARRIVED_M, join_style="mitre")
    return area if inner.is_empty else inner


class Walkers:
    """Bodies that walk a floor under one model.

    threads: processor threads (None: all); the result does not depend on it. jam_s: every so many seconds all ways are found anew, ground where people
    stand being dear (None: the shortest ways for ever). patience_s: see PATIENCE_S (None: the model as published, whoever is blocked for ever).
    hops: who carries people between levels (None: each hop one by one, see `simulation.hops`; `simulation.transport` has lifts and escalators).
    lazy: ways to a goal are found when somebody is sent there first (`know`), not all at once.
    Raises InvalidInput for goals off the floor or that nothing leads to, and for a step too large for the model.
    """

    def __init__(
        self, floor: Floor, goals: Sequence[Goal], *, model: Model | None = None, step_s: float = 0.05, threads: int | None = None, most_speed_mps: float = 2.0,
        most_radius_m: float = 0.25, jam_s: float | None = None, patience_s: float | None = PATIENCE_S,
        hops: Hops | None = None, lazy: bool = False,
    ) -> None:  # fmt: skip
        self.floor, self.goals, self.step_s = floor, tuple(goals), step_s
        self.model: Model = CollisionFreeSpeed() if model is None else model
        check_model(self.model, step_s)
        if not (0 < most_speed_mps <= SPEED_MPS[1] and 0 < most_radius_m <= RADIUS_M[1]):
            raise InvalidInput(
                f"walkers: speeds up to {most_speed_mps} m/s, radii up to {most_radius_m} m; at most {SPEED_MPS[1]} and {RADIUS_M[1]}, above 0"
            )
        self.most_speed_mps, self.most_radius_m = most_speed_mps, most_radius_m
        self.threads, self.jam_s = max(1, MOST_THREADS if threads is None else min(threads, MOST_THREADS)), jam_s
        # Threads of its own, not Numba's: those of OpenMP spin while they wait, and on a machine with other work take most of it from whom they wait for.
        self._crew = ThreadPoolExecutor(max(1, self.threads - 1), "walkers")
        self._second = max(1, round(1.0 / step_s))
        self._patience = 2**31 if patience_s is None else max(1, round(patience_s / step_s))
        # Who comes as near to a seed's centre as they ever do is inside the area.
        found: dict[tuple[int, int], I4] = {}
        for goal in goals:
            if (goal.level, id(goal.area)) not in found:
                found[goal.level, id(goal.area)] = floor.cells_in(goal.level, _inner(goal.area))
        seeds = [found[goal.level, id(goal.area)] for goal in goals]
        for goal, cells in zip(goals, seeds, strict=True):
            if not len(cells):
                raise InvalidInput(f"goal {goal.name}: no cell of level {goal.level} lies in it; put it on walkable ground")
            shapely.prepare(goal.area)
        if 8 * len(goals) * len(floor.x) > MAX_FIELD_BYTES:
            raise LimitExceeded(
                f"walkers: ways to {len(goals)} goals over {len(floor.x)} cells take {8 * len(goals) * len(floor.x) >> 20} MiB; at most "
                f"{MAX_FIELD_BYTES >> 20}, take larger cells or fewer goals"
            )
        self.hops = Hops(floor) if hops is None else hops
        self._seeds = seeds
        self._load: I4 | None = None
        # Untouched pages of these take no memory: a goal's rows are written when somebody is sent there for the first time.
        self.aim: I4 = np.zeros((len(goals), len(floor.x)), np.int32)
        self.distance_m: npt.NDArray[np.float32] = np.zeros((len(goals), len(floor.x)), np.float32)
        self.known = np.zeros(len(goals), np.bool_)
        if not lazy:
            self.know(range(len(goals)))
        self._pace_most = float(floor.pace.max())
        sight = 2.0 * most_radius_m + max(self.model.reach_m(), self.model.headway_s() * most_speed_mps * self._pace_most)
        width, depth = floor.nx * floor.cell_m, floor.ny * floor.cell_m
        self._sight, self._wide, self._deep, size = sight, max(WIDE * sight, 0.1), max(DEEP * sight, 0.3), max(0.5 * sight, 0.3)
        self._cols, self._rows, nx, ny = (
            math.ceil(side / cell) for side, cell in ((width, self._wide), (depth, self._deep), (width, size), (depth, size))
        )
        if max(self._cols * self._rows, nx * ny) * floor.levels > MAX_GRID:
            raise LimitExceeded(
                f"walkers: {floor.levels} levels of {self._cols} x {self._rows} cells of {self._wide:.2f} x {self._deep:.2f} m; at most {MAX_GRID}, cut the floor into parts"
            )
        self._wall_grid = size, nx, ny
        self._walls = self._walls_in_sight()
        gaps = np.arange(int((self.model.reach_m() + walker_kernels.FALL_FROM_M) * FALL_PER_M) + 2) / FALL_PER_M - walker_kernels.FALL_FROM_M
        self._fall: F8 = np.concatenate([self.model.repulsion_at(gaps), [0.0, 0.0]])
        self._start = np.empty(self._cols * self._rows * floor.levels + 1, np.int32)
        self._plan = self._planned()
        self.step_number = 0
        self.rows: dict[str, npt.NDArray[Any]] = {name: np.zeros(0, dtype) for name, dtype in _ROWS.items()}
        self._next: dict[str, F8] = {name: np.empty(0) for name in _MOVING}
        self._spare: dict[np.dtype[Any], npt.NDArray[Any]] = {np.dtype(dtype): np.empty(0, dtype) for dtype in _ROWS.values()}
        self._order: I4 = np.zeros(0, np.int32)
        self._key: I4 = np.zeros(0, np.int32)
        self._close: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._sx, self._sy, self._sr = np.zeros(WIDTH, np.int32), np.zeros(WIDTH, np.int32), np.zeros(WIDTH, np.float32)
        self._next_id = 1
        self._left = np.zeros(len(goals), np.int64)
        self._ever_stuck = 0
        self._left_now: list[tuple[int, int]] = []
        self._mixed = False
        self._last_start = 0
        self._alike = False
        self.leaning = False
        """Whoever writes the rows `lean_x` and `lean_y` says so here once: until then nobody reads them."""
        self._resize()

    def __len__(self) -> int:
        """Bodies on the floor; riders in hops are not."""
        return len(self.rows["x"])

    @property
    def time_s(self) -> float:
        return self.step_number * self.step_s

    # -- coming and going

    def add(
        self, x_m: npt.ArrayLike, y_m: npt.ArrayLike, *, goal: npt.ArrayLike, level: npt.ArrayLike = 0, speed_mps: npt.ArrayLike = 1.34,
        radius_m: npt.ArrayLike | None = None, start_s: npt.ArrayLike = 0.0,
    ) -> I8:  # fmt: skip
        """Add bodies at places (n,), metres; the other arguments are one value or (n,). goal: number of a goal, -1 for who stands.
        start_s: pre-movement time; until then from now on they stand. radius_m: that of the model's parameters where not given. Their ids, in order.

        Raises InvalidInput that names the first offender for a place in or behind a wall or on another body, a level or goal that is not there, a goal
        that no way leads to, a speed or radius out of bounds; then nobody is added.
        """
        x, y = np.atleast_1d(np.asarray(x_m, np.float64)), np.atleast_1d(np.asarray(y_m, np.float64))
        n = len(x)
        if x.shape != y.shape or x.ndim != 1:
            raise InvalidInput(f"add: x {x.shape} and y {y.shape}; must be (n,) each")
        if len(self) + n > MAX_BODIES:
            raise LimitExceeded(f"add: {len(self)} bodies and {n} more; at most {MAX_BODIES}")
        try:
            levels, goals = np.broadcast_to(np.asarray(level, np.int64), n), np.broadcast_to(np.asarray(goal, np.int64), n)
            speed, radius = (
                np.broadcast_to(np.asarray(speed_mps, np.float64), n),
                np.broadcast_to(np.asarray(self.model.radius_m if radius_m is None else radius_m, np.float64), n),
            )
            wait = np.broadcast_to(np.asarray(start_s, np.float64), n)
        except ValueError:
            raise InvalidInput(f"add: level, goal, speed, radius and start of {n} bodies; must be one value or ({n},) each") from None
        fast, wide = min(SPEED_MPS[1], self.most_speed_mps), min(RADIUS_M[1], self.most_radius_m)
        for name, bad, rule in (
            ("place", ~(np.isfinite(x) & np.isfinite(y)), "must be finite metres"),
            ("level", (levels < 0) | (levels >= self.floor.levels), f"there are levels 0 to {self.floor.levels - 1}"),
            ("goal", (goals < -1) | (goals >= len(self.goals)), f"there are goals 0 to {len(self.goals) - 1}, and -1 for who stands"),
            ("speed", ~((speed >= SPEED_MPS[0]) & (speed <= fast)), f"must be {SPEED_MPS[0]} to {fast} m/s"),
            ("pre-movement time", ~((wait >= 0.0) & (wait <= 86_400.0)), "must be 0 s to a day"),
            ("radius", ~((radius >= RADIUS_M[0]) & (radius <= wide)), f"must be {RADIUS_M[0]} to {wide} m"),
        ):
            if bad.any():
                k = int(np.argmax(bad))
                raise InvalidInput(
                    f"add: body {k} at ({x[k]:.3f}, {y[k]:.3f}), level {levels[k]}, goal {goals[k]}, {speed[k]} m/s, radius {radius[k]} m: {name} {rule}"
                )
        self.know(int(goal) for goal in np.unique(goals) if goal >= 0)
        ids = np.arange(self._next_id, self._next_id + n, dtype=np.int64)
        self._append(ids, x, y, levels, goals, speed, radius, np.round(wait / self.step_s))
        try:
            self._check_new(len(self) - n)
        except InvalidInput:
            self._keep(np.arange(len(self)) < len(self) - n)
            raise
        self._next_id += n
        return ids

    def remove(self, ids: npt.ArrayLike) -> None:
        """Take bodies off the floor. Raises NotFound, and removes nobody, where one of the ids is not on it."""
        wanted = np.unique(np.asarray(ids, np.int64))
        found = np.isin(self.rows["id"], wanted)
        if int(found.sum()) != len(wanted):
            missing = np.setdiff1d(wanted, self.rows["id"])
            raise NotFound(
                f"remove: body {missing[0]} is not on the floor ({len(missing)} of {len(wanted)} are not); it has left, rides or never was"
            )
        self._keep(~found)

    def _on_the_floor(self, what: str, ids: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        wanted = np.unique(np.asarray(ids, np.int64))
        found: npt.NDArray[np.bool_] = np.isin(self.rows["id"], wanted)
        if int(found.sum()) != len(wanted):
            missing = np.setdiff1d(wanted, self.rows["id"])
            raise NotFound(
                f"{what}: body {missing[0]} is not on the floor ({len(missing)} of {len(wanted)} are not); it has left, rides or never was"
            )
        return found

    def send(self, ids: npt.ArrayLike, goal: int) -> None:
        """Give bodies another goal; -1: stand where they are. Raises NotFound, and changes nothing, where one of the ids is not on the floor."""
        if not -1 <= goal < len(self.goals):
            raise InvalidInput(f"send: goal {goal}; there are goals 0 to {len(self.goals) - 1}, and -1 for who stands")
        rows = self._on_the_floor("send", ids)
        if goal >= 0:
            self.know([goal])
        self.rows["goal"][rows] = goal

    # -- the step

    def step(self, count: int = 1) -> None:
        """`count` steps of `step_s`: hops, one generation of the model, who has come to a goal that is left."""
        for _ in range(count):
            self._one_step()

    def _one_step(self) -> None:
        self.step_number += 1
        self._left_now = []
        if len(self.hops):
            self.hops.serve(self)
        if self.jam_s is not None and self.step_number % max(1, round(self.jam_s / self.step_s)) == 0:
            self._feel_jams()
        if len(self):
            if self._mixed or self.step_number % REGROUP_STEPS == 0:
                self._regroup()
            cells = self._sort()
            state = self._state()
            self._in_parts(
                SERIAL_BELOW, walker_kernels.STEPPERS[self.model.kind], state, cells, self._plan,
                After(**self._next, cell=self.rows["cell"], close=self._close), self.model.numbers(), self.model.reach_m(), self.model.headway_s(),
                self._radius, self._alike, self._cap, self.step_s, self._fall, FALL_PER_M, self._sx, self._sy, self._sr,
            )  # fmt: skip
            for name in _MOVING:
                self.rows[name], self._next[name] = self._next[name], self.rows[name]
            self._leave()
        if self.step_number % self._second == 0 and len(self):
            r = self.rows
            walker_kernels.mark_progress(
                r["x"], r["y"], r["goal"], r["mark_x"], r["mark_y"], r["mark_step"], r["start_step"], self.step_number, STUCK_M
            )
            patience, second = round(STUCK_S / self.step_s), self._second
            still = self.step_number - r["mark_step"]
            self._ever_stuck += int(np.count_nonzero((still >= patience) & (still < patience + second)))

    def _in_parts(self, least: int, kernel: Callable[..., None], *arguments: Any, parts_a_thread: int = PARTS_A_THREAD) -> None:
        """Run a kernel that takes a part and the number of parts on all threads, on one below `least` bodies; returns when every part is done."""
        if self.threads == 1 or len(self) < least:
            kernel(*arguments, 0, 1)
            return
        parts = self.threads * (parts_a_thread if len(self) >= MANY else 1)
        left = iter(range(parts))

        def work() -> None:
            for part in left:
                kernel(*arguments, part, parts)

        others = [self._crew.submit(work) for _ in range(self.threads - 1)]
        try:
            work()
        finally:
            wait(others)
        for other in others:
            other.result()

    def _feel_jams(self) -> None:
        """Find the ways anew: a step onto ground costs up to JAM_DEAR times as much, the more people stand there who want to get on."""
        r, floor = self.rows, self.floor
        slow = (r["goal"] >= 0) & (r["vx"] ** 2 + r["vy"] ** 2 < (JAM_SHARE * r["speed"]) ** 2) & (self.step_number > r["start_step"])
        spread = max(1, round(JAM_M / floor.cell_m))
        block = np.zeros((floor.levels, floor.ny // spread + 1, floor.nx // spread + 1))
        g = floor.raster
        where = g // (floor.nx * floor.ny), g // floor.nx % floor.ny // spread, g % floor.nx // spread
        np.add.at(block, tuple(axis[r["cell"][slow]] for axis in where), 1.0)
        per_m2 = block[where] / (spread * floor.cell_m) ** 2
        self._load = np.clip(1 + np.floor((JAM_DEAR - 1) * per_m2 / JAM_PER_M2), 1, JAM_DEAR).astype(np.int32)
        self.hops.feel()
        self.find_ways()

    def know(self, goals: Iterable[int]) -> None:
        """Find the ways to these goals, unless they are known."""
        new = [goal for goal in goals if not self.known[goal]]
        if new:
            self.aim[new], self.distance_m[new] = self.hops.ways(self.floor, [self._seeds[k] for k in new], [self.goals[k] for k in new], self._load)
            self.known[new] = True

    def leads_to(self, goals: Iterable[int], *, step_free: bool = False) -> npt.NDArray[np.bool_]:
        """(c,) from which cells a way leads to one of these goals: much cheaper than the ways."""
        return self.hops.leads_to(self.floor, np.concatenate([self._seeds[k] for k in goals]), step_free=step_free)

    def find_ways(self) -> None:
        """Find the ways anew, after the hops, the floor or the jams have changed: of goals that somebody is bound for now, of others when they are needed."""
        bound = {int(goal) for goal in np.unique(self.rows["goal"]) if goal >= 0} | {rider[3] for rider in self.hops.riders if rider[3] >= 0}
        self.known[:] = False
        self.know(sorted(bound))
        self.rows["aimed"][:] = NOBODYS

    def change_floor(self, floor: Floor) -> None:
        """Walk on a floor of the same cells with other walls or links between them (a door has closed), and find the ways anew.

        Raises InvalidInput for a floor of other cells, and where a new wall would stand in a body; then nothing changes.
        """
        if not np.array_equal(floor.raster, self.floor.raster) or len(floor.hop_start) != len(self.floor.hop_start):
            raise InvalidInput("change_floor: a floor of other cells or hops; make it from the one that is walked on")
        before = self.floor, self._walls, self._plan
        self.floor = floor
        self._walls = self._walls_in_sight()
        self._plan = self._planned()
        over, i, _ = walker_kernels.wall_overlap(self._state(), self._sort()) if len(self) else (-1.0, -1, -1)
        if over > WALL_OVERLAP_M + PLACE_GAP_M:
            self.floor, self._walls, self._plan = before
            raise InvalidInput(f"change_floor: a new wall would stand {over:.3f} m in body {self.rows['id'][i]}; wait until it has gone on")
        self.find_ways()

    def _walls_in_sight(self) -> tuple[Any, ...]:
        """Walls near each of the cells of their own, as `Cells` ends with them. Raises LimitExceeded for too many in one place."""
        floor, (size, nx, ny) = self.floor, self._wall_grid
        near: tuple[I4, I4] = ground_kernels.list_walls(
            floor.walls, floor.wall_level, floor.x0, floor.y0, size, nx, ny, floor.levels, self._sight + size * math.sqrt(0.5)
        )
        most = int(np.diff(near[0]).max())
        if most > walker_kernels.NEAR_WALLS:
            raise LimitExceeded(f"walkers: {most} walls within sight of one place; at most {walker_kernels.NEAR_WALLS}, simplify the plan")
        return (*near, floor.walls, size, nx, ny, floor.x0, floor.y0)

    def _planned(self) -> Plan:
        floor = self.floor
        return Plan(
            floor.cid,
            walker_kernels.looks(floor.cid, floor.near_start),
            floor.x,
            floor.y,
            floor.pace,
            bool((floor.pace != 1.0).any()),
            floor.near_start,
            floor.near_item,
            self.aim,
            floor.x0,
            floor.y0,
            floor.cell_m,
            floor.nx,
            floor.ny,
        )

    def _leave(self) -> None:
        """Who stands in a goal that is left is gone."""
        r = self.rows
        at = np.flatnonzero(self._close.view(np.bool_))
        at = at[self.distance_m[r["goal"][at], r["cell"][at]] <= walker_kernels.GOAL_CELLS * self.floor.cell_m]
        if not len(at):
            return
        gone = np.zeros(len(self), np.bool_)
        for number, goal in enumerate(self.goals):
            if goal.leave:
                mine = at[(r["goal"][at] == number) & (r["level"][at] == goal.level)]
                mine = mine[shapely.intersects_xy(goal.area, r["x"][mine], r["y"][mine])]
                gone[mine] = True
                self._left[number] += len(mine)
        if gone.any():
            self._left_now = list(zip(r["id"][gone].tolist(), r["goal"][gone].tolist(), strict=True))
            self._keep(~gone)

    @property
    def left_now(self) -> list[tuple[int, int]]:
        """(id, goal) of who left in the last step."""
        return self._left_now

    # -- what a caller wants to know

    def report(self) -> WalkersReport:
        r = self.rows
        wants = r["goal"] >= 0
        stuck = wants & (self.step_number - r["mark_step"] >= round(STUCK_S / self.step_s))
        lost = np.zeros(len(self), np.bool_)
        lost[wants] = self.aim[r["goal"][wants], r["cell"][wants]] < 0
        return WalkersReport(
            self.step_number, self.time_s, len(self), len(self.hops.riders), self._next_id - 1,
            {goal.name: int(count) for goal, count in zip(self.goals, self._left, strict=True)}, tuple(np.sort(r["id"][stuck]).tolist()), self._ever_stuck,
            tuple(np.sort(r["id"][lost]).tolist()),
        )  # fmt: skip

    def overlap_m(self) -> tuple[float, float]:
        """The deepest overlap of two bodies, and of a body and a wall, now; below 0 where there is none."""
        if not len(self):
            return -1.0, -1.0
        cells = self._sort()
        return float(walker_kernels.worst_overlap(self._state(), cells)[0]), float(walker_kernels.wall_overlap(self._state(), cells)[0])

    def digest(self) -> str:
        """SHA-256 over step, ids, goals, places and velocities, by id: equal for equal runs, whatever the threads."""
        order = np.argsort(self.rows["id"])
        hasher = hashlib.sha256(np.int64(self.step_number).tobytes())
        for name in ("id", "level", "goal", *_MOVING):
            hasher.update(np.ascontiguousarray(self.rows[name][order]).tobytes())
        hasher.update(self.hops.state().tobytes())
        return hasher.hexdigest()

    # -- checkpoints

    def checkpoint(self) -> bytes:
        """Everything that changes, for `resume`; the floor, the goals and the model are not in it."""
        out = io.BytesIO()
        counts = np.array([self.step_number, self._next_id, self._ever_stuck, self._mixed], np.int64)
        saved: dict[str, Any] = {"counts": counts, "left": self._left, "hops": self.hops.state(), "model": np.array(self._made_of())}
        saved |= {name: array for name, array in self.rows.items() if name not in _REMEMBERED}
        if self.jam_s is not None:
            saved |= {"aim": self.aim, "distance": self.distance_m, "known": self.known}
            if self._load is not None:
                saved["load"] = self._load
        np.savez(out, **saved)
        return out.getvalue()

    def resume(self, saved: bytes) -> None:
        """Go on from a checkpoint of walkers on the same floor with the same goals, model and step. Raises InvalidInput for any other, or bytes that are none."""
        try:
            with np.load(io.BytesIO(saved), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            made_of = str(arrays["model"])
            rows = {name: np.ascontiguousarray(arrays[name], dtype) for name, dtype in _ROWS.items() if name not in _REMEMBERED}
            counts, left, hops = arrays["counts"].tolist(), arrays["left"], arrays["hops"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InvalidInput(f"resume: {len(saved)} bytes are not a checkpoint of walkers ({error}); pass what checkpoint() gave") from None
        if made_of != self._made_of():
            raise InvalidInput(f"resume: the checkpoint is of {made_of}; these are {self._made_of()}: build them alike")
        self.rows, self._left = rows | {name: np.full(len(rows["x"]), NOBODYS, _ROWS[name]) for name in _REMEMBERED}, left.astype(np.int64)
        self.step_number, self._next_id, self._ever_stuck, mixed = (int(count) for count in counts)
        self._mixed = bool(mixed)
        self._last_start = int(rows["start_step"].max(initial=0))
        self.leaning = self.leaning or bool((rows["lean_x"] != 0.0).any() or (rows["lean_y"] != 0.0).any())
        self.hops.restore(hops)
        if self.jam_s is not None:
            self.aim[:], self.distance_m[:], self.known[:] = arrays["aim"], arrays["distance"], arrays["known"]
            self._load = arrays.get("load")
        self.know(sorted({int(goal) for goal in np.unique(rows["goal"]) if goal >= 0} | {rider[3] for rider in self.hops.riders if rider[3] >= 0}))
        self._resize()

    def _made_of(self) -> str:
        floor = hashlib.sha256(self.floor.walls.tobytes() + self.floor.raster.tobytes() + b"".join(s.tobytes() for s in self._seeds)).hexdigest()[:16]
        return f"floor {floor}, {len(self.goals)} goals, {self.model}, steps of {self.step_s} s, jams every {self.jam_s} s, patience {self._patience} steps, cells of {self._wide} x {self._deep} m"

    # -- inside

    def _append(self, ids: I8, x: F8, y: F8, level: Any, goal: Any, speed: Any, radius: Any, wait_steps: Any = 0) -> None:
        n, floor = len(ids), self.floor
        new: dict[str, Any] = {name: np.zeros(n, dtype) for name, dtype in _ROWS.items()}
        new |= {"id": ids, "x": x, "y": y, "level": level, "goal": goal, "speed": speed, "radius": radius, "mark_x": x, "mark_y": y}
        new["aimed"] = np.full(n, NOBODYS)
        new["mark_step"] = np.full(n, self.step_number)
        new["start_step"] = self.step_number + np.broadcast_to(wait_steps, n)
        new["cell"] = walker_kernels.place_cells(x, y, np.asarray(level, np.uint8), self._plan, floor.walls)
        self._last_start = max(self._last_start, int(new["start_step"].max(initial=0)))
        self._mixed = True
        for name, dtype in _ROWS.items():
            self.rows[name] = np.concatenate([self.rows[name], np.asarray(new[name], dtype)])
        self._resize()

    def _keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """Only these rows stay. Where few go, the last ones take their places: all of a million people are not moved up because one has left."""
        gone = np.flatnonzero(~rows)
        n = len(rows) - len(gone)
        if len(gone) <= FEW_GO * len(rows):
            holes = gone[gone < n]
            last = n + np.flatnonzero(rows[n:])
            for name, array in self.rows.items():
                array[holes] = array[last]
                self.rows[name] = array[:n]
        else:
            for name, array in self.rows.items():
                self.rows[name] = array[rows]
        self._resize(fewer=True)

    def _resize(self, *, fewer: bool = False) -> None:
        n = len(self)
        # Not zeros: NumPy asks for huge pages for what it leaves as it is, and looking up 4 KiB pages is a tenth of a million people's step.
        self._next = {name: array[:n] if len(array) >= n else np.empty(n) for name, array in self._next.items()}
        self._spare = {dtype: array[:n] if len(array) >= n else np.empty(n, dtype) for dtype, array in self._spare.items()}
        if len(self._order) >= n:
            self._order, self._key, self._close, self._sx, self._sy, self._sr = (
                self._order[:n], self._key[:n], self._close[:n], self._sx[: n + WIDTH], self._sy[: n + WIDTH], self._sr[: n + WIDTH]
            )  # fmt: skip
        else:
            self._order, self._key, self._close = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.uint8)
            self._sx, self._sy, self._sr = np.empty(n + WIDTH, np.int32), np.empty(n + WIDTH, np.int32), np.empty(n + WIDTH, np.float32)
        if fewer and self._alike and n:
            return  # as wide as before
        radius = self.rows["radius"]
        self._radius = float(radius.max(initial=RADIUS_M[0]))
        least = float(radius.min(initial=self._radius))
        self._alike = least == self._radius
        least -= 0.5 * OVERLAP_M
        sight = 2.0 * self._radius + max(self.model.reach_m(), self.model.headway_s() * self.most_speed_mps * self._pace_most)
        # No more bodies have room in the cells in sight: the densest packing of discs covers 0.9069 of the plane. Each row of cells begins a new eight.
        room = 4.0 * (sight + self._wide + least) * (sight + self._deep + least)
        self._cap = WIDTH * (2 * math.ceil(sight / self._deep) + 4) + math.ceil(0.9069 * room / (math.pi * least**2))

    def _state(self) -> State:
        r = self.rows
        return State(
            r["x"], r["y"], r["vx"], r["vy"], r["hx"], r["hy"], r["speed"], r["radius"], r["level"], r["goal"], r["start_step"], self._last_start,
            self.step_number, r["id"], r["mark_step"], self._patience, self._second, self.leaning, r["lean_x"], r["lean_y"],
            r["aimed"], r["aim_x"], r["aim_y"],
        )  # fmt: skip

    def _sort(self) -> Cells:
        r, floor = self.rows, self.floor
        self._in_parts(
            MANY, walker_kernels.keys, r["x"], r["y"], r["level"], floor.x0, floor.y0, self._wide, self._deep, self._cols, self._rows, self._key
        )
        # Each part looks at everybody: no more parts than threads.
        self._in_parts(
            MANY, walker_kernels.counting_sort, self._key, self._start, self._order, r["x"], r["y"], r["radius"], self._alike, self._sx, self._sy, self._sr,
            parts_a_thread=1,
        )  # fmt: skip
        return Cells(self._start, self._order, self._wide, self._deep, self._cols, self._rows, self._sight, *self._walls)

    def _regroup(self) -> None:
        self._sort()
        self._mixed = False
        for name, array in self.rows.items():
            spare = self._spare[array.dtype]
            self._in_parts(MANY, walker_kernels.take, array, self._order, spare)
            self.rows[name], self._spare[array.dtype] = spare, array

    def _check_new(self, first: int) -> None:
        """Raises InvalidInput for the new rows (from `first`) that stand wrong."""
        r = self.rows
        off = np.flatnonzero(r["cell"][first:] < 0)
        if len(off):
            k = first + int(off[0])
            raise InvalidInput(
                f"add: body {k - first} at ({r['x'][k]:.3f}, {r['y'][k]:.3f}), level {r['level'][k]} is off the walkable ground "
                f"({len(off)} of {len(self) - first} are); put it inside"
            )
        goal, cell = r["goal"][first:], r["cell"][first:]
        cut_off = np.flatnonzero((goal >= 0) & (self.aim[np.maximum(goal, 0), cell] < 0)) if len(self.goals) else np.empty(0, np.intp)
        if len(cut_off):
            k = first + int(cut_off[0])
            raise InvalidInput(
                f"add: body {k - first} at ({r['x'][k]:.3f}, {r['y'][k]:.3f}), level {r['level'][k]}: no way leads to goal "
                f"{self.goals[int(r['goal'][k])].name} ({len(cut_off)} bodies); join them by a door as wide as a cell ({self.floor.cell_m} m) or by a hop"
            )
        cells, state = self._sort(), self._state()
        new = state._replace(x=r["x"][first:], y=r["y"][first:], level=r["level"][first:], radius=r["radius"][first:])
        over, i, w = walker_kernels.wall_overlap(new, cells)
        i += first
        if over > PLACE_GAP_M:
            raise InvalidInput(
                f"add: body {i - first} at ({r['x'][i]:.3f}, {r['y'][i]:.3f}) of radius {r['radius'][i]} m is {over:.3f} m in the wall "
                f"{np.round(self.floor.walls[w], 2).tolist()}; put it further off"
            )
        over, i, j = walker_kernels.worst_overlap(state, cells)
        if over > OVERLAP_M + PLACE_GAP_M:
            raise InvalidInput(
                f"add: bodies at ({r['x'][i]:.3f}, {r['y'][i]:.3f}) and ({r['x'][j]:.3f}, {r['y'][j]:.3f}) overlap by {over:.3f} m; put them further apart"
            )
