"""The parameters of the collision-free speed model against the laboratory, runs left out in turn: fitted on some runs, scored on the others, which the fit never sees.

`ESPLANADE_DATA=... python -m benchmarks.crowd_calibration` walks every set of the grid once, then fits and scores by 4-fold cross-validation over runs (a run of a
corridor, or a door, is wholly seen or wholly left out): once with the runs in the order of their names, and with 25 shufflings of them. Each line says in how
many folds a speed or a flow holds, of those in which the runs left out have 20 points near its density, and in how many of them any one speed could hold at all:
where that is fewer, the runs disagree among themselves by more than a run's own spread, and no law of speed and density can pass. Last, how far each run left
out is off what was fitted without it, and off what the runs seen say themselves at that density (root mean square over runs and densities, m/s): the
laboratory's own scatter from run to run, which no law undercuts by much.

A set's loss is the sum over densities and doors of (off / allowed)^2: off from the middle of the speeds of the runs seen, half of their spread (5 to 95 %)
allowed; off from their flow by width, 15 % allowed. What lies beyond what is allowed counts tenfold.
"""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import NotFound
from simulation.models import CALIBRATED, CollisionFreeSpeed
from simulation.realism import DENSITIES, WIDTHS_M, bottleneck_flow, flow_per_m, laboratory_doors, laboratory_runs, speed_at_density, spread_at

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

SEEDS = (1, 2)
FOLDS = 4
SHUFFLINGS = 25
GRID = (
    *itertools.product((0.2,), (0.25, 0.275, 0.3), (0.5, 1.0), (5.0, 8.0)),
    *itertools.product((0.3, 0.4), (0.2, 0.25), (1.0,), (8.0,)),
)
"""Time gap (s), stand-off (m), shuffle (1/s), repulsion. A time gap of 0.2 s is the least that a step of 0.1 s bears."""


@dataclass(frozen=True, slots=True)
class Walked:
    """What a model does: density and speed by wanted density, (d, 2); flow by door, (w,); means over starts."""

    model: CollisionFreeSpeed
    speeds: F8
    flows: F8


@dataclass(frozen=True, slots=True)
class Held:
    """Of the folds with data: in how many a quantity holds, and in how many any one value could."""

    folds: int
    held: int
    could: int


def walk(model: CollisionFreeSpeed) -> Walked:
    speeds = np.array([np.mean([speed_at_density(model, wanted, seed=seed) for seed in SEEDS], axis=0) for wanted in DENSITIES])
    flows = np.array([np.mean([bottleneck_flow(model, width, seed=seed) for seed in SEEDS]) for width in WIDTHS_M])
    return Walked(model, speeds, flows)


def loss(walked: Walked, points: F8, per_m: float) -> float:
    """How far a model is off runs of the laboratory; a density that they do not have does not count."""
    off = []
    for density, speed in walked.speeds:
        seen = spread_at(points, density)
        if seen is not None:
            off.append((speed - seen[1]) / (0.5 * (seen[2] - seen[0])))
    off += ((walked.flows / (per_m * np.array(WIDTHS_M)) - 1.0) / 0.15).tolist()
    return float(sum(x * x if abs(x) <= 1 else 10.0 * x * x for x in off))


def most_overlapping(bands: list[tuple[float, float]]) -> int:
    """How many of the bands one value can lie in at most."""
    return max((sum(low <= value <= high for low, high in bands) for value, _ in bands), default=0)


def cross_validate(
    walked: list[Walked], runs: list[F8], doors: F8, fold_of: I8, door_fold_of: I8, *, folds: int = FOLDS
) -> tuple[list[Held], list[CollisionFreeSpeed], F8]:
    """For each speed and each door how often it holds in the fold left out; the set fitted without each fold; and (e, 2) how far the middle of each run left out
    is off the set, and off the middle of the runs seen, m/s, at each density that both have. fold_of: (runs,), door_fold_of: (doors,)."""
    bands: list[list[tuple[float, float]]] = [[] for _ in (*DENSITIES, *WIDTHS_M)]
    held = [0] * len(bands)
    chosen, off = [], []
    for fold in range(folds):
        seen = np.concatenate([run for run, where in zip(runs, fold_of, strict=True) if where != fold])
        left_out = np.concatenate([run for run, where in zip(runs, fold_of, strict=True) if where == fold])
        per_m, per_m_left_out = flow_per_m(doors[door_fold_of != fold]), flow_per_m(doors[door_fold_of == fold])
        best = min(walked, key=lambda one: loss(one, seen, per_m))
        chosen.append(best.model)
        for k, (density, speed) in enumerate(best.speeds):
            there = spread_at(left_out, density)
            if there is not None:
                bands[k].append((there[0], there[2]))
                held[k] += there[0] <= speed <= there[2]
            among = spread_at(seen, density)
            for run, where in zip(runs, fold_of, strict=True):
                alone = spread_at(run, density) if where == fold else None
                if alone is not None and among is not None:
                    off.append((speed - alone[1], among[1] - alone[1]))
        for k, (width, flow) in enumerate(zip(WIDTHS_M, best.flows, strict=True), start=len(DENSITIES)):
            due = per_m_left_out * width
            bands[k].append((0.85 * due, 1.15 * due))
            held[k] += 0.85 * due <= flow <= 1.15 * due
    return [Held(len(band), int(met), most_overlapping(band)) for band, met in zip(bands, held, strict=True)], chosen, np.array(off)


def run() -> None:
    data_dir = os.environ.get("ESPLANADE_DATA")
    if data_dir is None:
        raise NotFound("ESPLANADE_DATA names no folder of real data; the parameters are fitted on laboratory runs")
    runs, by_experiment = list(laboratory_runs(Path(data_dir)).values()), laboratory_doors(Path(data_dir))
    points, doors = np.concatenate(runs), np.concatenate(list(by_experiment.values()))
    walked = []
    for gap, stand_off_m, shuffle_per_s, repulsion in GRID:
        model = CollisionFreeSpeed(time_gap_s=gap, stand_off_m=stand_off_m, shuffle_per_s=shuffle_per_s, repulsion=repulsion, radius_m=0.15)
        one = walk(model)
        walked.append(one)
        print(
            f"{loss(one, points, flow_per_m(doors)):8.2f}  time gap {gap} s, stand-off {stand_off_m} m, shuffle {shuffle_per_s}/s, repulsion {repulsion}: "
            f"{np.round(one.speeds[:, 1], 2).tolist()} m/s, {np.round(one.flows, 2).tolist()}/s",
            flush=True,
        )
    names = [*(f"speed at {density:g}/m2" for density in DENSITIES), *(f"flow through {width:g} m" for width in WIDTHS_M)]
    by_name, chosen, off = cross_validate(walked, runs, doors, np.arange(len(runs)) % FOLDS, np.arange(len(doors)) % FOLDS)
    rng = np.random.default_rng(1)
    shuffled, off_shuffled = [], []
    often: dict[CollisionFreeSpeed, int] = {}
    for _ in range(SHUFFLINGS):
        found, fitted, more = cross_validate(walked, runs, doors, rng.permutation(len(runs)) % FOLDS, rng.permutation(len(doors)) % FOLDS)
        shuffled.append(found)
        off_shuffled.append(more)
        for model in fitted:
            often[model] = often.get(model, 0) + 1
    # The set in use, never fitted anew, on the same folds: what it would score had the fit chosen it each time.
    in_use = [one for one in walked if one.model == CALIBRATED]
    fixed, _, off_in_use = (
        cross_validate(in_use, runs, doors, np.arange(len(runs)) % FOLDS, np.arange(len(doors)) % FOLDS) if in_use else ([], [], np.zeros((0, 2)))
    )
    rows = []
    for k, name in enumerate(names):
        total = Held(*(sum(getattr(found[k], field) for found in shuffled) for field in ("folds", "held", "could")))
        rows.append((name, by_name[k], fixed[k] if fixed else None, total))
        print(
            f"{name}: by name held in {by_name[k].held} of {by_name[k].folds} folds (any one value: {by_name[k].could}); "
            f"shuffled in {total.held} of {total.folds} (any one value: {total.could})" + (f"; the set in use {fixed[k].held}" if fixed else "")
        )
    for model, count in sorted(often.items(), key=lambda pair: -pair[1])[:5]:
        print(f"fitted in {count} of {SHUFFLINGS * FOLDS} folds: {model}")
    for what, errors in (("by name", off), ("shuffled", np.concatenate(off_shuffled)), ("by name, the set in use", off_in_use)):
        if len(errors):
            ours, theirs = np.sqrt((errors**2).mean(axis=0))
            print(
                f"{what}: runs left out are {ours:.3f} m/s off what was fitted without them, {theirs:.3f} m/s off the runs seen ({len(errors)} of a run and a density)"
            )
    best = min(walked, key=lambda one: loss(one, points, flow_per_m(doors)))
    print(
        json.dumps(
            {
                "name": "crowd_calibration", "loss": round(loss(best, points, flow_per_m(doors)), 2), "model": str(best.model), "by_name": [str(model) for model in chosen],
                "loss_in_use": round(loss(in_use[0], points, flow_per_m(doors)), 2) if in_use else None,
                "held": {name: [by.held, by.folds, by.could] for name, by, _, _ in rows}, "held_shuffled": {name: [t.held, t.folds, t.could] for name, _, _, t in rows},
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    run()
