"""What a survey covers and where to walk next. Owns the measure: walkway within reach of a surveyed path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from spatial.positioning.ground import Floor
from spatial.positioning.labels import surveyed_positions
from spatial.positioning.score import Surveyed

SAMPLE_S = 1.0
GAPS = 3


@dataclass(frozen=True, slots=True)
class FloorCoverage:
    """share: of the walkway within reach. gaps: at most three of (x, y, m2), floor metres, largest first; the point is the uncovered place deepest inside its gap."""

    floor: str
    walks: int
    walkway_m2: float
    share: float
    gaps: tuple[tuple[float, float, float], ...]


def coverage(floors: Sequence[Floor], walks: Sequence[Surveyed], *, reach_m: float) -> list[FloorCoverage]:
    """One row a floor. Only the connected pieces of walkway that a survey touched, or the largest piece where none did, count as walkway."""
    rows = []
    for floor in floors:
        ground = floor.free & ~floor.rooms
        far = np.ones(ground.shape, bool)
        mine = [w for w in walks if w[1] == floor.name and len(w[2]) >= 2]
        for prepared, _, waypoints in mine:
            times = np.arange(waypoints[0, 0], waypoints[-1, 0], SAMPLE_S)
            xy, _ = surveyed_positions(waypoints, prepared.track, times)
            cell = np.floor((xy - np.array(floor.corner_m)) / floor.cell_m).astype(int)
            cell = cell[((cell >= 0) & (cell < np.array(ground.shape[::-1]))).all(axis=1)]
            far[cell[:, 1], cell[:, 0]] = False
        pieces, n = ndimage.label(ground)
        size = np.bincount(pieces.ravel(), minlength=n + 1)
        touched = np.unique(pieces[~far & ground])
        wanted = touched if len(touched) else np.array([size[1:].argmax() + 1]) if n else np.zeros(0, int)
        ground = np.isin(pieces, wanted) & ground
        distance = ndimage.distance_transform_edt(far) * floor.cell_m if not far.all() else np.full(far.shape, np.inf)
        missing = ground & (distance > reach_m)
        labels, n = ndimage.label(missing)
        areas = np.bincount(labels.ravel(), minlength=n + 1)[1:] * floor.cell_m**2
        gaps = []
        for i in np.argsort(-areas)[:GAPS]:
            depth = ndimage.distance_transform_edt(labels == i + 1)
            row, column = np.unravel_index(int(depth.argmax()), depth.shape)
            x, y = floor.corner_m[0] + (column + 0.5) * floor.cell_m, floor.corner_m[1] + (row + 0.5) * floor.cell_m
            gaps.append((float(x), float(y), float(areas[i])))
        total = float(ground.sum()) * floor.cell_m**2
        share = 1 - float(missing.sum()) / max(float(ground.sum()), 1.0) if total else 0.0
        rows.append(FloorCoverage(floor.name, len(mine), total, share, tuple(gaps)))
    return rows
