"""The crowd against reality: speed at density, flow through doors by their width, lanes in opposite streams. Owns the experiments and what they are held against.

Measured with `spatial.measures` on recorded trajectories, as the laboratory data are.
"""

from __future__ import annotations

import lzma
import math
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import box

from esplanade.core.errors import NotFound
from simulation.floor import Floor
from simulation.models import Model
from simulation.placing import spread, walking_speeds
from simulation.rimea import Verdict
from simulation.trajectories import Recorder
from simulation.walkers import Goal, Walkers
from spatial import measures

F8 = npt.NDArray[np.float64]

WIDTHS_M: Final = (0.8, 1.0, 1.2, 1.6, 2.0)
DENSITIES: Final = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
CORRIDOR_M: Final = 1.8
"""Width of the corridor of both experiments."""
STARTS: Final = (1, 2, 3, 4)
"""Seeds over which a speed or a flow is averaged: those of one start differ by some 0.1 m/s from those of another."""
STEADY_FRAMES: Final = {
    "050-180-180": (211, 798), "060-180-180": (243, 771), "070-180-180": (203, 1113), "100-180-180": (200, 790), "145-180-180": (300, 1097),
    "180-180-070": (500, 1399), "180-180-095": (400, 1350), "180-180-120": (300, 1099), "180-180-180": (400, 1284),
}  # fmt: skip
"""Runs of the corridor experiment, by widths (cm) of entrance, corridor and exit: the frames in which the flow is steady."""


def weidmann_mps(density: float) -> float:
    """Speed at a density, 1/m2: 1.34 (1 - exp(-1.913 (1/rho - 1/5.4))) (Weidmann 1993)."""
    return 1.34 * (1.0 - math.exp(-1.913 * (1.0 / density - 1.0 / 5.4)))


def speed_at_density(model: Model, density: float, *, seed: int = 1, width_m: float = CORRIDOR_M) -> tuple[float, float]:
    """(Voronoi density, mean speed) over 20 m of a corridor that is filled at about this density for 120 m, twice a second from 10 to 16 s: neither its ends
    nor how people stood at first are felt there by then. As wide as the laboratory's unless said otherwise: in a wider one the model lets people walk faster."""
    rng = np.random.default_rng(seed)
    ground = box(0, 0, 140, width_m)
    walkers = Walkers(Floor.of([ground], cell_m=0.25), [Goal("end", 0, box(139, 0, 140, width_m))], model=model)
    n = round(density * 120 * width_m)
    place = spread(ground, n, rng=rng, within=box(0, 0, 120, width_m), radius_m=model.radius_m)
    walkers.add(place[:, 0], place[:, 1], goal=0, speed_mps=walking_speeds(n, rng=rng))
    walkers.step(round(10.0 / walkers.step_s))
    recorder = Recorder(walkers, every=max(1, round(0.1 / walkers.step_s)))
    recorder.run(16.3)
    whole = recorder.recording().on()
    speed = measures.individual_speed(whole, step=3)
    # Twice a second, as in the laboratory, and only those whose neighbours may reach into the area.
    keep = (whole.frame % 5 == 0) & (np.abs(whole.x_m - 55.0) < 20.0)
    paths = measures.Trajectories.of(whole.person[keep], whole.frame[keep], whole.x_m[keep], whole.y_m[keep], rate_hz=2.0)
    area = box(45, 0, 65, width_m)
    met, _ = measures.voronoi_density(paths, area, ground)
    mean = measures.mean_speed(paths, area, speed[keep])
    known = np.isfinite(mean.value)
    return float(met.value[known].mean()), float(mean.value[known].mean())


def laboratory_runs(data_dir: Path) -> dict[str, F8]:
    """Each run of both corridor experiments by name: (n, 2) density (1/m2) and speed (m/s).

    `ug`: people who walk round a closed corridor of 30 m x 1.8 m, 15 to 230 of them, points as published. `uo`: people who walk through one of 1.8 m whose
    entrance or exit is narrower, measured here twice a second in their steady time. Raises NotFound without them.
    """
    files = sorted((data_dir / "pedestrian" / "fundamental_diagram_points" / "2test_2D").glob("*.txt"))
    if not files:
        raise NotFound(f"{data_dir}: no pedestrian/fundamental_diagram_points/2test_2D/*.txt; give the folder of the real data (ESPLANADE_DATA)")
    closed: dict[str, F8] = {file.stem: np.loadtxt(file, comments="#", ndmin=2)[:, :2] for file in files}
    return closed | {f"uo-{name}": corridor_speeds(data_dir, name) for name in STEADY_FRAMES}


def corridor_speeds(data_dir: Path, name: str) -> F8:
    """(n, 2) Voronoi density (1/m2) and mean speed (m/s), twice a second, of a run of one direction in a corridor of 1.8 m (Jülich, 2009), measured from the
    trajectories in their steady time. Raises NotFound without them."""
    file = data_dir / "pedestrian" / "juelich_corridor_uo180" / f"uo-{name}.txt.xz"
    first, last = STEADY_FRAMES[name]
    if not file.exists():
        raise NotFound(f"{file}: no such file; give the folder of the real data (ESPLANADE_DATA)")
    with lzma.open(file, "rt") as text:
        rows = np.loadtxt(text, comments="#")
    whole = measures.Trajectories.of(rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64), rows[:, 2] / 100, rows[:, 3] / 100, rate_hz=16.0)
    speed = measures.individual_speed(whole, step=5)
    keep = (whole.frame >= first) & (whole.frame <= last) & (whole.frame % 8 == 0)
    paths = measures.Trajectories.of(whole.person[keep], whole.frame[keep], whole.x_m[keep], whole.y_m[keep], rate_hz=2.0)
    area = box(0, -2, CORRIDOR_M, 0)
    density, _ = measures.voronoi_density(paths, area, box(0, -4, CORRIDOR_M, 4))
    mean = measures.mean_speed(paths, area, speed[keep])
    known = np.isfinite(mean.value)
    return np.column_stack([density.value[known], mean.value[known]])


def spread_at(points: F8, density: float) -> tuple[float, float, float, int] | None:
    """5 %, 50 % and 95 % of the speeds of the points within 0.25/m2 of a density, and how many they are; None for fewer than 20."""
    near = points[np.abs(points[:, 0] - density) <= 0.25, 1]
    if len(near) < 20:
        return None
    low, middle, high = np.percentile(near, [5, 50, 95])
    return float(low), float(middle), float(high), len(near)


def fundamental_diagram(model: Model, data_dir: Path | None, *, seeds: tuple[int, ...] = STARTS) -> list[Verdict]:
    """Speed at each density, mean over several starts: within the spread of two laboratory experiments (`spread_at`), and beside Weidmann's curve."""
    points = None if data_dir is None else np.concatenate(list(laboratory_runs(data_dir).values()))
    found = []
    for wanted in DENSITIES:
        met = np.array([speed_at_density(model, wanted, seed=seed) for seed in seeds])
        density, speed = met.mean(axis=0)
        due = weidmann_mps(density)
        criterion, passed = f"Weidmann {due:.2f} m/s within 25 %", bool(abs(speed - due) <= 0.25 * due)
        there = None if points is None else spread_at(points, density)
        if there is not None:
            low, middle, high, n = there
            criterion, passed = (
                f"laboratory {low:.2f} to {high:.2f} m/s, half below {middle:.2f} ({n} points); Weidmann {due:.2f}",
                bool(low <= speed <= high),
            )
        found.append(
            Verdict(f"speed at {density:.2f}/m2", f"{speed:.2f} m/s ({met[:, 1].min():.2f} to {met[:, 1].max():.2f} by start)", criterion, passed)
        )
    return found


def bottleneck_flow(model: Model, width_m: float, *, people: int = 120, seed: int = 1) -> float:
    """People a second through a door of a width, 1 m deep: (N - 1) over the time from the first to the last of the middle 60 %."""
    rng = np.random.default_rng(seed)
    ground = shapely.union_all([box(0, 0, 9, 9), box(9, 4.5 - width_m / 2, 10, 4.5 + width_m / 2), box(10, 0, 15, 9)])
    walkers = Walkers(Floor.of([ground], cell_m=0.2), [Goal("out", 0, box(13, 0, 15, 9))], model=model)
    place = spread(ground, people, rng=rng, within=box(1, 0.5, 8, 8.5), radius_m=model.radius_m)
    walkers.add(place[:, 0], place[:, 1], goal=0, speed_mps=walking_speeds(people, rng=rng))
    recorder = Recorder(walkers, every=2)
    recorder.run(400.0)
    passed = measures.passings(recorder.recording().on(), ((9.5, 4.5 - width_m / 2), (9.5, 4.5 + width_m / 2)))
    lo, hi = int(0.2 * people), int(0.8 * people)
    if len(passed.frame) <= hi:
        return 0.0
    return float((hi - lo) * passed.rate_hz / (passed.frame[hi] - passed.frame[lo]))


def laboratory_doors(data_dir: Path) -> dict[str, F8]:
    """(n, 2) width (m) and flow (1/s) of doors by experiment: Kretz, Seyfried, Müller, Nagai, Daamen and two more. Raises NotFound without them."""
    files = sorted((data_dir / "pedestrian" / "bottleneck_flow_vs_width").rglob("*.txt"), key=lambda file: file.name)
    if not files:
        raise NotFound(f"{data_dir}: no pedestrian/bottleneck_flow_vs_width/*.txt; give the folder of the real data (ESPLANADE_DATA)")
    return {file.stem: np.loadtxt(file, comments="#", ndmin=2)[:, :2] for file in files}


def flow_per_m(doors: F8) -> float:
    """Persons a metre and second: slope of the line through the origin fitted to the doors of 0.7 to 2.5 m, (n, 2) width (m) and flow (1/s)."""
    near = doors[(doors[:, 0] >= 0.7) & (doors[:, 0] <= 2.5)]
    return float((near[:, 0] * near[:, 1]).sum() / (near[:, 0] ** 2).sum())


def bottlenecks(model: Model, data_dir: Path | None, *, widths: tuple[float, ...] = WIDTHS_M, seeds: tuple[int, ...] = STARTS) -> list[Verdict]:
    """Flow by width, mean over several starts, within 15 % of the line through the origin fitted to the laboratory's doors of 0.7 to 2.5 m (without data:
    1.9 persons/m/s, Seyfried 2009)."""
    per_m = 1.9 if data_dir is None else flow_per_m(np.concatenate(list(laboratory_doors(data_dir).values())))
    found = []
    for width in widths:
        flows = [bottleneck_flow(model, width, seed=seed) for seed in seeds]
        flow = float(np.mean(flows))
        found.append(
            Verdict(
                f"flow through {width:g} m",
                f"{flow:.2f}/s ({min(flows):.2f} to {max(flows):.2f} by start)",
                f"{per_m * width:.2f}/s within 15 % ({per_m:.2f}/m/s)",
                abs(flow / (per_m * width) - 1.0) <= 0.15,
            )
        )
    return found


def lanes(model: Model, *, people: int = 120, seed: int = 1, seconds: float = 40.0) -> Verdict:
    """Two opposite streams in a corridor of 40 m x 4 m: order is the mean over strips of 0.5 m of ((n_e - n_w) / (n_e + n_w))^2 (Rex, Löwen 2007), 1 for pure lanes."""
    rng = np.random.default_rng(seed)
    ground = box(0, 0, 40, 4)
    goals = [Goal("east", 0, box(39, 0, 40, 4)), Goal("west", 0, box(0, 0, 1, 4))]
    walkers = Walkers(Floor.of([ground], cell_m=0.25), goals, model=model)
    place = spread(ground, people, rng=rng, within=box(2, 0, 38, 4))
    walkers.add(place[:, 0], place[:, 1], goal=rng.permutation(people) % 2, speed_mps=walking_speeds(people, rng=rng))

    def order() -> float:
        r = walkers.rows
        middle = (r["x"] > 8) & (r["x"] < 32)
        strip = (r["y"][middle] / 0.5).astype(np.int64)
        east = np.bincount(strip, r["goal"][middle] == 0, 8)
        west = np.bincount(strip, r["goal"][middle] == 1, 8)
        used = east + west > 0
        return float((((east - west)[used] / (east + west)[used]) ** 2).mean()) if used.any() else 1.0

    at_first, best = order(), 0.0
    while len(walkers) and walkers.time_s < seconds:
        walkers.step(round(1.0 / walkers.step_s))
        if int(((walkers.rows["x"] > 8) & (walkers.rows["x"] < 32)).sum()) >= 20:
            best = max(best, order())
    left = sum(walkers.report().left.values())
    return Verdict(
        "lanes in opposite streams", f"order {at_first:.2f} at first, {best:.2f} at best, {left} of {people} through in {seconds:g} s",
        "order at least 0.5 and twice what it was; nine of ten through", best >= 0.5 and best >= 2.0 * at_first and left >= 0.9 * people,
    )  # fmt: skip
