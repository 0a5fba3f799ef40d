"""The crowd engine: agent-steps a second against JuPedSim in one room; a million on a festival ground; 25,000 in a real mall of four levels.

Three rooms of 20,000 people with nine walls and sixteen pillars, at 0.5, 2 and 4 persons/m2, collision-free speed model with the same parameters, places and step (0.05 s)
on both sides, in turn. ESPLANADE_JUPEDSIM_PYTHON names an interpreter that has JuPedSim; without it ours runs alone and the ratio is left out. The mall needs
ESPLANADE_DATA, as has the first picture of a sale in it. `--n` sets the people of the rooms; `--part` measures one part alone (rooms_0.5, rooms_2, rooms_4,
crosscheck, million, mall, picture). The last line has every bar with its figure and whether it is met; what was not measured is not in it.
"""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import shapely
from shapely.geometry import Polygon, box

from benchmarks.harness import compare
from esplanade.core.errors import InvalidInput
from simulation.floor import Floor
from simulation.ground import survey
from simulation.navigation import link_levels
from simulation.placing import spread, walking_speeds
from simulation.walkers import Goal, Walkers
from spatial.importers.malls import read_site
from spatial.plan import shape
from spatial.venue_files import save_venue

STEP_S = 0.05
RADIUS_M = 0.2
TIME_GAP_S = 1.0
SALE = Path(__file__).parents[1] / "scenarios" / "studies" / "site2_sale.toml"
PICTURES = 3
PEER = "ESPLANADE_JUPEDSIM_PYTHON"
ROOMS = {0.5: 20.0, 2.0: 20.0, 4.0: 10.0}
"""Persons/m2, and how many times as fast as JuPedSim ours is to be."""


def room(area_m2: float) -> tuple[Polygon, Polygon]:
    """A square room with sixteen pillars of 1 m, three walls with gaps and an exit along its east side."""
    side = math.sqrt(area_m2)
    things = [
        box(x - 0.5, y - 0.5, x + 0.5, y + 0.5) for x in side * np.array([0.1, 0.35, 0.6, 0.85]) for y in side * np.array([0.15, 0.4, 0.65, 0.9])
    ]
    for x in side * np.array([0.2, 0.45, 0.7]):
        for lo, hi in ((0.05, 0.3), (0.37, 0.63), (0.7, 0.95)):
            things.append(box(x - 0.15, lo * side, x + 0.15, hi * side))
    walkable = box(0, 0, side, side).difference(shapely.union_all(things))
    assert isinstance(walkable, Polygon)
    return walkable, box(side - 1.5, 0.5, side - 0.5, side - 0.5)


class Peer:
    """JuPedSim in its own process."""

    def __init__(self, python: str, walkable: Polygon, exits: list[Polygon], bodies: list[list[float]]) -> None:
        script = Path(__file__).with_name("jupedsim_peer.py")
        self._process = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"]}
        )
        crowd = {
            "room": list(walkable.exterior.coords)[:-1], "holes": [list(ring.coords)[:-1] for ring in walkable.interiors],
            "exits": [list(area.exterior.coords)[:-1] for area in exits], "bodies": bodies, "step_s": STEP_S, "radius_m": RADIUS_M, "time_gap_s": TIME_GAP_S,
        }  # fmt: skip
        self.version = str(self.ask(crowd)["version"])

    def ask(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"JuPedSim's process ended with {self._process.wait()}; its words are above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def _timed(walkers: Walkers, steps: int, a_cpu_s: list[float] | None = None) -> float:
    """Agent-steps a second; those a second of processor time are appended to `a_cpu_s`."""
    bodies = len(walkers)
    began, busy = time.perf_counter(), time.process_time()
    walkers.step(steps)
    if a_cpu_s is not None:
        a_cpu_s.append(bodies * steps / (time.process_time() - busy))
    return bodies * steps / (time.perf_counter() - began)


def _room(n: int, density: float, repeats: int, python: str | None) -> dict[str, object]:
    rng = np.random.default_rng(11)
    walkable, way_out = room(n / density)
    place = spread(walkable, n, rng=rng, radius_m=RADIUS_M, within=walkable.difference(way_out.buffer(0.5)))
    speed = walking_speeds(n, rng=rng)
    walkers = Walkers(Floor.of([walkable]), [Goal("east", 0, way_out)], step_s=STEP_S)
    walkers.add(place[:, 0], place[:, 1], goal=0, speed_mps=speed, radius_m=RADIUS_M)
    name = f"crowd_{density:g}_per_m2"
    walkers.step(2)
    if python is None:
        figures = [_timed(walkers, 40) for _ in range(repeats)]
        result: dict[str, object] = {"name": name, "n": n, "ours": round(statistics.median(figures)), "unit": "agent-steps/s"}
    else:
        peer = Peer(python, walkable, [way_out], [[x, y, v, 0] for (x, y), v in zip(place.tolist(), speed.tolist(), strict=True)])
        peer.ask({"steps": 2})

        mine_cpu: list[float] = []
        peer_cpu: list[float] = []

        def theirs() -> float:
            answer = peer.ask({"steps": 8})
            peer_cpu.append(answer["bodies"] * 8 / answer["cpu_s"])
            return float(answer["bodies"] * 8 / answer["seconds"])

        result = compare(
            name, n=n, ours=lambda: _timed(walkers, 40, mine_cpu), peer=theirs, unit="agent-steps/s", higher_is_better=True, repeats=repeats
        )
        # A busy machine takes more from two threads than from one: processor time tells what a quiet one would do, a core against a core.
        result["ratio_a_core"] = round(statistics.median(mine_cpu) / statistics.median(peer_cpu), 2)
        result["ours_a_cpu_s"], result["peer_a_cpu_s"] = round(statistics.median(mine_cpu)), round(statistics.median(peer_cpu))
        result["peer_version"] = peer.version
        peer.close()
    overlap = walkers.overlap_m()
    return result | {"overlap_m": round(overlap[0], 4), "wall_overlap_m": round(overlap[1], 4), "threads": walkers.threads}


def crosscheck(python: str, rooms: int = 16) -> dict[str, object]:
    """Mean egress time of 100 people from a room of 10 m x 10 m by a door of 1.2 m, ours against JuPedSim: same room, parameters, places and step.

    Who is first through a door is chaotic: one room's mean changes by 1.7 s (one standard deviation) with rounding alone, so five rooms tell 5 % from 0 badly.
    """
    walkable = shapely.union_all([box(0, 0, 10, 10), box(10, 4.4, 13, 5.6)])
    way_out = box(12, 4.4, 13, 5.6)
    assert isinstance(walkable, Polygon)
    mine: list[float] = []
    theirs: list[float] = []
    for seed in range(rooms):
        rng = np.random.default_rng(seed)
        place = spread(walkable, 100, rng=rng, radius_m=RADIUS_M, within=box(0, 0, 8.5, 10))
        speed = walking_speeds(100, rng=rng)
        walkers = Walkers(Floor.of([walkable], cell_m=0.2), [Goal("door", 0, way_out)], step_s=STEP_S, patience_s=None)
        walkers.add(place[:, 0], place[:, 1], goal=0, speed_mps=speed, radius_m=RADIUS_M)
        while len(walkers) and walkers.time_s < 600.0:
            walkers.step()
            mine += [walkers.time_s] * len(walkers.left_now)
        peer = Peer(python, walkable, [way_out], [[x, y, v, 0] for (x, y), v in zip(place.tolist(), speed.tolist(), strict=True)])
        theirs += [t for _, t in peer.ask({"steps": 12_000, "egress": True})["left"]]
        peer.close()
    a, b = statistics.mean(mine), statistics.mean(theirs)
    return {
        "name": "crowd_crosscheck", "rooms": rooms, "ours_mean_s": round(a, 2), "peer_mean_s": round(b, 2), "off": round(a / b - 1.0, 4), "off_either_way": round(abs(a / b - 1.0), 4),
        "ours_last_s": round(max(mine), 2), "peer_last_s": round(max(theirs), 2), "ours_left": len(mine), "peer_left": len(theirs),
    }  # fmt: skip


def _grid(free: Any, pitch: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Places on a jittered triangular grid over (multi)polygons that leave room for a body."""
    shapely.prepare(free)
    ax, ay, bx, by = free.bounds
    x, y = np.meshgrid(np.arange(ax, bx, pitch), np.arange(ay, by, 0.866 * pitch))
    x[1::2] += 0.5 * pitch
    jitter = 0.3 * (pitch - 2 * RADIUS_M - 0.02)
    place = np.column_stack([x.ravel(), y.ravel()]) + rng.uniform(-jitter, jitter, (x.size, 2))
    return place[shapely.contains_xy(free, place[:, 0], place[:, 1])]


def festival(people: int, rng: np.random.Generator) -> tuple[Floor, list[Goal], npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """A ground with four stages, a fence every 100 m with gaps and forty bars; places at 0.5/m2 in the mean, a twentieth of them at 4/m2 before the stages."""
    side = math.sqrt(people / 0.5)
    ground = box(0, 0, side, side)
    stages = [box(x * side - 12, y * side - 8, x * side + 12, y * side + 8) for x in (0.25, 0.75) for y in (0.25, 0.75)]
    depth = 0.05 * people / 4 / 4.0 / 40.0
    fronts = [box(x - 20, y - 10 - depth, x + 20, y - 10) for x, y in ((s.centroid.x, s.centroid.y) for s in stages)]
    bars = [box(x - 5, y - 1.5, x + 5, y + 1.5) for x, y in rng.uniform(30, side - 30, (40, 2))]
    fences = [box(x - 0.1, y + 15, x + 0.1, y + 85) for x in np.arange(100, side - 20, 200) for y in np.arange(0, side - 100, 100)]
    busy = shapely.union_all([area.buffer(3) for area in [*stages, *fronts]])
    things = shapely.union_all(stages + [thing for thing in bars + fences if not thing.intersects(busy)])
    walkable = ground.difference(things)
    free = walkable.buffer(-RADIUS_M - 0.05, join_style="mitre")
    dense = np.concatenate([_grid(front, math.sqrt(1 / (0.866 * 4.0)), rng) for front in fronts])
    open_ground = free.difference(shapely.union_all([front.buffer(0.6) for front in fronts]))
    rest = people - len(dense)
    pitch = math.sqrt(open_ground.area / (0.866 * rest)) * 0.998
    thin = _grid(open_ground, pitch, rng)
    thin = thin[np.sort(rng.choice(len(thin), min(rest, len(thin)), replace=False))]
    goals = [Goal(f"stage {k}", 0, box(*front.bounds), leave=False) for k, front in enumerate(fronts)] + [
        Goal("west", 0, box(0, side / 2 - 30, 2, side / 2 + 30)), Goal("east", 0, box(side - 2, side / 2 - 30, side, side / 2 + 30))
    ]  # fmt: skip
    goal = np.concatenate([rng.integers(4, 6, len(dense)), rng.integers(0, 6, len(thin))])
    return Floor.of([walkable], cell_m=1.0), goals, np.concatenate([dense, thin]), goal


def _festival_walkers(people: int, step_s: float) -> Walkers:
    rng = np.random.default_rng(5)
    floor, goals, place, goal = festival(people, rng)
    walkers = Walkers(floor, goals, step_s=step_s)
    walkers.add(place[:, 0], place[:, 1], goal=goal, speed_mps=walking_speeds(len(place), rng=rng), radius_m=RADIUS_M)
    return walkers


def million(people: int, steps: int, repeats: int, *, step_s: float = 0.1) -> tuple[dict[str, object], dict[str, object]]:
    """Real time of a festival: simulated seconds a second, everybody on the way to somewhere else; and what an agent-step costs there and among 10,000
    people at the same density, in turn.
    """
    began = time.perf_counter()
    large = _festival_walkers(people, step_s)
    built_s = time.perf_counter() - began
    small = _festival_walkers(10_000, step_s)
    bodies = len(large)
    large.step(3)
    small.step(3)
    took, cpu = [], []
    costs: dict[str, list[float]] = {"small": [], "large": []}
    for _ in range(repeats):
        for name, walkers, count in (("small", small, 100 * steps), ("large", large, steps)):
            moved, wall, busy = len(walkers) * count, time.perf_counter(), time.process_time()
            walkers.step(count)
            if name == "large":
                took.append((time.perf_counter() - wall) / count)
                cpu.append((time.process_time() - busy) / count)
            costs[name].append((time.process_time() - busy) / moved * 1e9)
        print(
            f"festival: {took[-1]:.3f} s a step, {costs['large'][-1]:.0f} ns of processor time an agent-step, {costs['small'][-1]:.0f} among 10,000",
            flush=True,
        )
    a, b = statistics.median(costs["small"]), statistics.median(costs["large"])
    return {
        "name": "crowd_festival", "n": bodies, "real_time": round(step_s / statistics.median(took), 2), "best_real_time": round(step_s / min(took), 2),
        # Of a machine that had nothing else to do, as far as both threads are busy all the time.
        "real_time_by_processor_time": round(step_s * large.threads / statistics.median(cpu), 2),
        "cpu_ns_an_agent_step": round(b), "step_s": step_s, "built_s": round(built_s, 1), "overlap_m": round(large.overlap_m()[0], 4),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), "threads": large.threads,
    }, {"name": "crowd_growth", "cpu_ns_at_10k": round(a), "cpu_ns_at_1m": round(b), "ratio": round(b / a, 2)}  # fmt: skip


def mall(data_dir: Path, people: int = 25_000, *, step_s: float = 0.05, steps: int = 20) -> dict[str, object]:
    """Real time of the real mall site2: everybody on the way to one of sixteen shops on four levels, by its escalators, stairs and lifts, shops walkable."""
    began = time.perf_counter()
    venue = read_site(data_dir / "malls" / "site2").venue
    ground = survey(venue)
    floor = Floor.of_venue(ground, link_levels(venue, ground))
    rng = np.random.default_rng(2)
    size = np.bincount(ground.unit[ground.unit >= 0], minlength=len(venue.units))
    goals = []
    for level in range(floor.levels):
        mine = [k for k in np.argsort(-size).tolist() if size[k] > 100 and venue.level_index(venue.units[k].level_id) == level]
        goals += [Goal(venue.units[k].id, level, shape(venue.units[k].polygon), leave=False) for k in mine[:4]]
    walkers = Walkers(floor, goals, step_s=step_s)
    col, row = floor.raster % floor.nx, floor.raster // floor.nx
    spots = np.flatnonzero((floor.clearance >= 0.25) & (col % 2 == 0) & (row % 2 == 0) & (walkers.aim >= 0).all(axis=0))
    cells = np.sort(rng.choice(spots, min(people, len(spots)), replace=False))
    walkers.add(
        floor.x[cells], floor.y[cells], level=floor.level_of(cells), goal=rng.integers(0, len(goals), len(cells)), speed_mps=walking_speeds(len(cells), rng=rng),
        radius_m=RADIUS_M,
    )  # fmt: skip
    built_s = time.perf_counter() - began
    walkers.step(5)
    rounds, cpu = [], []
    for _ in range(5):
        began, busy = time.perf_counter(), time.process_time()
        walkers.step(steps)
        rounds.append((time.perf_counter() - began) / steps)
        cpu.append((time.process_time() - busy) / steps)
    took = statistics.median(rounds)
    report = walkers.report()
    return {
        "name": "crowd_site2", "n": len(cells), "real_time": round(step_s / took, 2), "cpu_ms_a_step": round(1e3 * statistics.median(cpu), 1), "step_s": step_s, "levels": floor.levels, "cells": len(floor.x),
        "goals": len(goals), "riding": report.riding, "built_s": round(built_s, 1), "overlap_m": round(walkers.overlap_m()[0], 4), "lost": len(report.lost),
        "threads": walkers.threads,
    }  # fmt: skip


def bars(more: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Each bar that these results tell of: the figure, what it must be, whether it is."""

    def bar(part: str, key: str, least: float | None = None, *, most: float | None = None) -> dict[str, object] | None:
        figure = more.get(part, {}).get(key)
        if not isinstance(figure, int | float):
            return None
        if least is not None:
            return {"figure": figure, "at_least": least, "met": figure >= least}
        assert most is not None
        return {"figure": figure, "at_most": most, "met": figure <= most}

    found = {f"times_jupedsim_at_{density:g}_per_m2": bar(f"rooms_{density:g}", "ratio", least) for density, least in ROOMS.items()}
    found |= {
        "million_real_time": bar("festival", "real_time", 1.0),
        "million_peak_mib": bar("festival", "peak_mib", most=1024),
        "cost_growth_10k_to_1m": bar("growth", "ratio", most=1.5),
        "site2_real_time": bar("site2", "real_time", 1.0),
        "first_picture_s": bar("picture", "ready_s", most=5.0),
        "mean_egress_off_jupedsim": bar("crosscheck", "off_either_way", most=0.05),
    }
    found |= {f"overlap_m_{part}": bar(part, "overlap_m", most=0.01) for part in ("rooms_4", "festival", "site2")}
    return {name: value for name, value in found.items() if value is not None}


def first_picture(data_dir: Path) -> dict[str, object]:
    """Seconds from the start of `esplanade crowd run` on site2's sale until the first picture is written: a process of its own, kernels compiled before."""
    with tempfile.TemporaryDirectory() as folder:
        venue, picture = Path(folder) / "site2.json", Path(folder) / "first.svg"
        save_venue(read_site(data_dir / "malls" / "site2").venue, venue)
        start = [sys.executable, "-c", "from esplanade.cli.main import app; app()"]
        command = [*start, "crowd", "run", str(SALE), "--venue", str(venue), "--first", str(picture)]
        took, cpu = [], []
        for _ in range(PICTURES):
            began = time.perf_counter()
            with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
                assert process.stderr is not None
                said = process.stderr.readline()
                took.append(time.perf_counter() - began)
                if not said.startswith("ready after"):
                    raise RuntimeError(f"esplanade crowd run said: {said}{process.stderr.read()[-500:]}")
                busy = psutil.Process(process.pid).cpu_times()
                cpu.append(busy.user + busy.system)
                process.kill()  # the study itself is not asked for
        wrote = picture.stat().st_size
    return {
        "name": "crowd_first_picture", "n": PICTURES, "ready_s": round(statistics.median(took), 2), "first_run_ready_s": round(took[0], 2),
        "ready_cpu_s": round(statistics.median(cpu), 2), "picture_bytes": wrote,
    }  # fmt: skip


PARTS = (*(f"rooms_{density:g}" for density in ROOMS), "crosscheck", "million", "mall", "picture")


def _measure(part: str, *, n: int, repeats: int, python: str | None, data_dir: Path | None) -> dict[str, dict[str, object]]:
    """The results of a part by name; none where what it needs is not there, which is said."""
    match part:
        case "crosscheck" if python is None:
            print(f"no cross-check: {PEER} names no interpreter with jupedsim", flush=True)
            return {}
        case "crosscheck":
            assert python is not None
            return {"crosscheck": crosscheck(python)}
        case "million":
            festival_, growth = million(1_000_000, 3, repeats)
            return {"festival": festival_, "growth": growth}
        case "mall" | "picture" if data_dir is None:
            print(f"no {part}: ESPLANADE_DATA names no folder of real data", flush=True)
            return {}
        case "mall":
            assert data_dir is not None
            return {"site2": mall(data_dir)}
        case "picture":
            assert data_dir is not None
            return {"picture": first_picture(data_dir)}
    return {part: _room(n, float(part.removeprefix("rooms_")), repeats, python)}


def run(*, n: int = 20_000, repeats: int = 5, part: str | None = None) -> None:
    if part is not None and part not in PARTS:
        raise InvalidInput(f"crowd: part {part!r}; there are {', '.join(PARTS)}")
    python, data = os.environ.get(PEER), os.environ.get("ESPLANADE_DATA")
    if python is None:
        print(f"no peer: {PEER} names no interpreter with jupedsim; ours runs alone", flush=True)
    began = time.perf_counter()
    more: dict[str, dict[str, object]] = {}
    for name in PARTS if part is None else (part,):
        started = time.perf_counter()
        more |= _measure(name, n=n, repeats=repeats, python=python, data_dir=Path(data) if data else None)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    print(json.dumps({"name": "crowd", "n": n, "took_s": round(time.perf_counter() - began), "load": os.getloadavg()[0], **more, "bars": bars(more)}))
