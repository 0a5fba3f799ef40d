"""The calibrated parameters of the collision-free speed model: fitted on one half of the laboratory's runs, scored on the other, which the fit never sees.

`ESPLANADE_DATA=... python -m benchmarks.crowd_calibration` prints the loss of every set of the grid, the best of them, and how that stands on the other half.
A set's loss is the sum over densities and doors of (off / allowed)^2: off from the middle of the fit half's speeds, half of their spread (5 to 95 %) allowed; off
from its flow by width, 15 % allowed. What lies beyond what is allowed counts tenfold.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import NotFound
from simulation.models import CollisionFreeSpeed
from simulation.realism import DENSITIES, WIDTHS_M, bottleneck_flow, bottlenecks, flow_per_m, fundamental_diagram, laboratory_points, speed_at_density

SEEDS = (1, 2)
STAND_OFF_M = (0.225, 0.25, 0.275)
SHUFFLE_PER_S = (0.5, 1.0)
REPULSION = (5.0, 8.0)


def loss(model: CollisionFreeSpeed, points: npt.NDArray[np.float64], per_m: float) -> tuple[float, list[float]]:
    """How far a model is off a part of the laboratory's runs, and of each density and door."""
    off = []
    for wanted in DENSITIES:
        met = [speed_at_density(model, wanted, seed=seed) for seed in SEEDS]
        density, speed = np.mean(met, axis=0)
        low, middle, high = np.percentile(points[np.abs(points[:, 0] - density) <= 0.25, 1], [5, 50, 95])
        off.append((speed - middle) / (0.5 * (high - low)))
    for width in WIDTHS_M:
        flow = float(np.mean([bottleneck_flow(model, width, seed=seed) for seed in SEEDS]))
        off.append((flow / (per_m * width) - 1.0) / 0.15)
    return float(sum(x * x if abs(x) <= 1 else 10.0 * x * x for x in off)), [round(float(x), 2) for x in off]


def run() -> None:
    data_dir = os.environ.get("ESPLANADE_DATA")
    if data_dir is None:
        raise NotFound("ESPLANADE_DATA names no folder of real data; the parameters are fitted on laboratory runs")
    folder = Path(data_dir)
    points, per_m = laboratory_points(folder, "fit"), flow_per_m(folder, "fit")
    found = []
    for stand_off_m, shuffle_per_s, repulsion in itertools.product(STAND_OFF_M, SHUFFLE_PER_S, REPULSION):
        model = CollisionFreeSpeed(time_gap_s=0.2, stand_off_m=stand_off_m, shuffle_per_s=shuffle_per_s, repulsion=repulsion, radius_m=0.15)
        total, off = loss(model, points, per_m)
        found.append((total, model))
        print(f"{total:8.1f}  stand-off {stand_off_m} m, shuffle {shuffle_per_s}/s, repulsion {repulsion}: {off}", flush=True)
    least, best = min(found, key=lambda pair: pair[0])
    verdicts = [*fundamental_diagram(best, folder, part="rest"), *bottlenecks(best, folder, part="rest")]
    for verdict in verdicts:
        print(verdict.passed, verdict.test, verdict.measured, verdict.criterion)
    print(
        json.dumps(
            {
                "name": "crowd_calibration",
                "loss": round(least, 2),
                "model": str(best),
                "rest_passed": sum(bool(v.passed) for v in verdicts),
                "of": len(verdicts),
            }
        )
    )


if __name__ == "__main__":
    run()
