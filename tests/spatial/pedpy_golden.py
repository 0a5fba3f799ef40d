"""Make `pedpy_golden.json` with PedPy itself: in an environment that has it, `ESPLANADE_DATA=DIR python tests/spatial/pedpy_golden.py`.

PedPy is no dependency of ours; these figures were made once, with the version that the file names.
"""

from __future__ import annotations

import json
import lzma
import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pedpy
import shapely

CORRIDOR, MEASURED = shapely.box(-0.2, -5, 2.0, 12), shapely.box(0, -2, 1.8, 0)
CASES = [
    ("juelich_corridor_uo180/uo-180-180-180.txt.xz", 0.01, 16.0, (400, 600), CORRIDOR, MEASURED, ((0.0, 0.0), (1.8, 0.0))),
    ("juelich_corridor_uo180/uo-050-180-180.txt.xz", 0.01, 16.0, (211, 411), CORRIDOR, MEASURED, ((0.0, 0.0), (1.8, 0.0))),
    (
        "juelich_bottleneck/040_c_56_h-.txt.xz", 1.0, 25.0, (0, 300),
        shapely.union_all([shapely.box(-4, 0, 4, 9), shapely.box(-0.3, -3, 0.3, 0.1), shapely.box(-4, -6, 4, -0.3)]), shapely.box(-0.4, 0.5, 0.4, 1.3),
        ((-0.3, 0.0), (0.3, 0.0)),
    ),
]  # fmt: skip


def main() -> None:
    made = []
    for name, scale, rate, frames, walkable, area, line in CASES:
        with lzma.open(Path(os.environ["ESPLANADE_DATA"]) / "pedestrian" / name, "rt") as file:
            raw = np.loadtxt(file, comments="#")
        table = pd.DataFrame({"id": raw[:, 0].astype(int), "frame": raw[:, 1].astype(int), "x": raw[:, 2] * scale, "y": raw[:, 3] * scale})
        whole = pedpy.TrajectoryData(data=table, frame_rate=rate)
        walkable = shapely.union_all([walkable, shapely.box(*table[["x", "y"]].min(), *table[["x", "y"]].max()).buffer(0.1)])
        part = pedpy.TrajectoryData(data=table[(table.frame >= frames[0]) & (table.frame < frames[1])], frame_rate=rate)
        ground, measured = pedpy.WalkableArea(walkable), pedpy.MeasurementArea(area)
        classic = pedpy.compute_classic_density(traj_data=part, measurement_area=measured)
        cells = pedpy.compute_individual_voronoi_polygons(traj_data=part, walkable_area=ground)
        density = pedpy.compute_voronoi_density(individual_voronoi_data=cells, measurement_area=measured)[0].sort_index()
        cut = pedpy.compute_individual_voronoi_polygons(traj_data=part, walkable_area=ground, cut_off=pedpy.Cutoff(radius=1.0, quad_segments=16))
        capped = pedpy.compute_voronoi_density(individual_voronoi_data=cut, measurement_area=measured)[0]
        speed = pedpy.compute_individual_speed(traj_data=part, frame_step=5, speed_calculation=pedpy.SpeedCalculation.BORDER_EXCLUDE)
        _, crossing = pedpy.compute_n_t(traj_data=whole, measurement_line=pedpy.MeasurementLine(list(line)))
        made.append(
            {
                "file": name, "pedpy_version": version("pedpy"), "scale": scale, "rate_hz": rate, "frames": frames, "walkable": walkable.wkt,
                "area": area.wkt, "line": line,
                "pedpy": {
                    "classic": classic.density.mean(), "voronoi": density.density.mean(), "voronoi_cut_1m": capped.density.mean(),
                    "speed": speed.speed.mean(), "passed": len(crossing), "first": int(crossing.frame.min()), "last": int(crossing.frame.max()),
                },
                "classic_every_25": classic.density.sort_index().tolist()[::25], "voronoi_every_25": density.density.tolist()[::25],
            }
        )  # fmt: skip
    Path(__file__).with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
