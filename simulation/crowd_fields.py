"""Density, speed, flow and level of service on a grid, by time, as a table. Owns the measure and the table; it draws nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from esplanade.core.errors import InvalidInput, LimitExceeded
from simulation.trajectories import Recording
from spatial import measures

F8 = npt.NDArray[np.float64]

MAX_CELLS: Final = 20_000_000


def fields(recording: Recording, *, cell_m: float = 1.0, every_s: float = 60.0) -> pa.Table:
    """One row for each cell, level and span of time in which anybody was there: level, x_m, y_m (the cell's middle), from_s, density_per_m2 (the mean over the span),
    speed_mps (the mean of those who were seen twice in a row; NaN where nobody was), flow_per_m_s (density x speed), service (Fruin's band for walkways).

    Raises InvalidInput for a size or a span that is not above 0, LimitExceeded above 20 million cells of space and time.
    """
    if not (0.05 <= cell_m <= 100 and every_s * recording.rate_hz >= 1):
        raise InvalidInput(f"fields: cells of {cell_m} m every {every_s} s; 0.05 to 100 m, and no shorter than a frame ({1 / recording.rate_hz:g} s)")
    n = len(recording.person)
    frames = round(every_s * recording.rate_hz)
    span = recording.frame // frames
    col, row = np.floor(recording.x_m / cell_m).astype(np.int64), np.floor(recording.y_m / cell_m).astype(np.int64)
    c0, r0 = int(col.min(initial=0)), int(row.min(initial=0))
    wide, deep, levels = int(col.max(initial=0)) - c0 + 1, int(row.max(initial=0)) - r0 + 1, int(recording.level.max(initial=0)) + 1
    spans = int(span.max(initial=0)) + 1
    if wide * deep * levels * spans > MAX_CELLS:
        raise LimitExceeded(f"fields: {wide} x {deep} cells, {levels} levels, {spans} spans of time; at most {MAX_CELLS} in all, take larger ones")
    key = ((span * levels + recording.level) * deep + (row - r0)) * wide + (col - c0)
    speed = np.full(n, np.nan)
    order = np.lexsort((recording.frame, recording.person))
    who, frame, level = recording.person[order], recording.frame[order], recording.level[order]
    again = (who[1:] == who[:-1]) & (frame[1:] == frame[:-1] + 1) & (level[1:] == level[:-1])
    moved = np.hypot(np.diff(recording.x_m[order]), np.diff(recording.y_m[order])) * recording.rate_hz
    speed[order[1:][again]] = moved[again]
    cells, which = np.unique(key, return_inverse=True)
    seen = np.bincount(which, minlength=len(cells))
    known = np.isfinite(speed)
    total, count = np.bincount(which[known], speed[known], len(cells)), np.bincount(which[known], minlength=len(cells))
    in_span = np.minimum(frames, int(recording.frame.max(initial=0)) + 1 - cells // (levels * deep * wide) * frames)
    density: F8 = seen / in_span / cell_m**2
    mean: F8 = np.divide(total, count, out=np.full(len(cells), np.nan), where=count > 0)
    return pa.table(
        {
            "level": (cells // (deep * wide) % levels).astype(np.uint8),
            "x_m": (cells % wide + c0 + 0.5) * cell_m,
            "y_m": (cells // wide % deep + r0 + 0.5) * cell_m,
            "from_s": cells // (levels * deep * wide) * every_s,
            "density_per_m2": density,
            "speed_mps": mean,
            "flow_per_m_s": density * mean,
            "service": measures.level_of_service(density),
        }
    )


def save_fields(table: pa.Table, path: Path) -> None:
    """Write a `.parquet`. Raises InvalidInput for another ending."""
    if path.suffix != ".parquet":
        raise InvalidInput(f"fields: {path} ends in {path.suffix!r}; must end in .parquet")
    pq.write_table(table, path)
