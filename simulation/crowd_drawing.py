"""A run as a picture: where people were, how dense it was, and how many had left when. PNG bytes; it measures with `spatial.measures` and writes no file."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
import shapely
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from shapely.geometry.base import BaseGeometry

from esplanade.core.errors import InvalidInput
from simulation.trajectories import Recording
from spatial import measures

CELL_M: Final = 0.5
MOST_PATHS: Final = 300
INK: Final = "#2b3038"


def draw_run(recording: Recording, ground: BaseGeometry, *, level: int = 0) -> bytes:
    """Paths of up to 300 people, mean density where anybody was (1/m2, cells of 0.5 m), mean speed, and the egress curve. Raises InvalidInput for an empty level."""
    paths = recording.on(level)
    if not len(paths.person):
        raise InvalidInput(f"plot: nobody was on level {level}; name another")
    bounds = ground.bounds
    seconds = (int(recording.frame.max()) + 1) / recording.rate_hz
    heat = measures.heat_map(paths, bounds, cell_m=CELL_M)
    density = np.ma.masked_equal(heat.person_s / CELL_M**2 / seconds, 0.0)
    speed = measures.individual_speed(paths, step=1)
    figure = Figure(figsize=(13, 9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(2, 2)
    _paths(axes[0, 0], paths, ground)
    for ax, values, label, most in (
        (axes[0, 1], density, "mean density, 1/m2", None),
        (axes[1, 0], _mean_speed(paths, speed, bounds, density), "mean speed, m/s", 1.5),
    ):
        shown = ax.imshow(
            values,
            origin="lower",
            extent=(bounds[0], bounds[0] + CELL_M * values.shape[1], bounds[1], bounds[1] + CELL_M * values.shape[0]),
            vmin=0,
            vmax=most,
        )
        _outline(ax, ground)
        figure.colorbar(shown, ax=ax, label=label, shrink=0.8)
    last = np.sort(np.array([recording.frame[recording.person == who].max() for who in np.unique(recording.person)])) / recording.rate_hz
    gone = last < last.max() if len(last) else last
    axes[1, 1].step(last[gone], np.arange(1, int(np.sum(gone)) + 1), where="post", color=INK)
    axes[1, 1].set_xlabel("s")
    axes[1, 1].set_ylabel("people who have left")
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _mean_speed(paths: measures.Trajectories, speed: Any, bounds: tuple[float, float, float, float], like: Any) -> Any:
    known = np.isfinite(speed)
    rows, cols = like.shape
    row = np.clip(((paths.y_m[known] - bounds[1]) / CELL_M).astype(int), 0, rows - 1)
    col = np.clip(((paths.x_m[known] - bounds[0]) / CELL_M).astype(int), 0, cols - 1)
    total, count = np.zeros((rows, cols)), np.zeros((rows, cols))
    np.add.at(total, (row, col), speed[known])
    np.add.at(count, (row, col), 1.0)
    return np.ma.masked_where(count == 0, total / np.maximum(count, 1.0))


def _paths(ax: Any, paths: measures.Trajectories, ground: BaseGeometry) -> None:
    people = np.unique(paths.person)
    for who in people[:: max(1, len(people) // MOST_PATHS)]:
        rows = paths.person == who
        ax.plot(paths.x_m[rows], paths.y_m[rows], lw=0.5, alpha=0.7)
    _outline(ax, ground)
    ax.set_aspect("equal")


def _outline(ax: Any, ground: BaseGeometry) -> None:
    for part in shapely.get_parts(ground):
        for ring in [part.exterior, *part.interiors]:
            ax.plot(*np.asarray(ring.coords).T, color=INK, lw=1)
