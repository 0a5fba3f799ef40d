"""A run as a picture: where people were, how dense it was, and how many had left when. PNG bytes; it measures with `spatial.measures` and writes no file."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
import shapely
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as MplPath
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient

from esplanade.core.errors import InvalidInput
from simulation.trajectories import Recording
from spatial import measures

CELL_M: Final = 0.5
MOST_PATHS: Final = 300
INK: Final = "#2b3038"
GROUND: Final = "#ece8dd"
PATH: Final = "#1f5fa8"


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
    share = (bounds[3] - bounds[1]) / (bounds[2] - bounds[0])
    figure = Figure(figsize=(13, float(np.clip(12.0 * share + 1.5, 6.5, 13.0))), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(2, 2)
    figure.suptitle(f"level {level}, {seconds:.0f} s", color=INK)
    _paths(axes[0, 0], paths, ground)
    for ax, values, title, label, most in (
        (axes[0, 1], density, "How full it was", "mean density, people/m²", None),
        (axes[1, 0], _mean_speed(paths, speed, bounds, density), "How fast people walked (dark: they stood)", "mean speed, m/s", 1.5),
    ):
        _outline(ax, ground)
        ax.set_title(title)
        shown = ax.imshow(
            values,
            origin="lower",
            extent=(bounds[0], bounds[0] + CELL_M * values.shape[1], bounds[1], bounds[1] + CELL_M * values.shape[0]),
            vmin=0,
            vmax=most,
        )
        # Beside the map and not taken off its width: the three maps are of one size.
        figure.colorbar(shown, cax=ax.inset_axes((1.02, 0.05, 0.025, 0.9)), label=label)
    when, how_many = egress(recording)
    axes[1, 1].step(when, how_many, where="post", color=INK)
    axes[1, 1].set_xlim(0, seconds)
    axes[1, 1].set_title("Who had left by when, all levels")
    axes[1, 1].set_xlabel("seconds from the start")
    axes[1, 1].set_ylabel("people who have left")
    axes[1, 1].set_ylim(bottom=0)
    axes[1, 1].grid(alpha=0.3)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def egress(recording: Recording) -> tuple[Any, Any]:
    """(seconds, people who have left by then) from the start to the end: who is not in the last frame has left after the last in which they were."""
    _, there = np.unique(recording.person[::-1], return_index=True)
    last = recording.frame[::-1][there]
    end = max(recording.frames, int(recording.frame.max()) + 1)
    gone = np.sort(last[last + 1 < end]) + 1
    when = np.concatenate([[0], gone, [end - 1]]) / recording.rate_hz
    return when, np.concatenate([np.arange(len(gone) + 1), [len(gone)]])


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
    drawn = people[:: max(1, len(people) // MOST_PATHS)]
    _outline(ax, ground)
    for who in drawn:
        rows = paths.person == who
        # One colour: there is nothing that others would tell.
        ax.plot(paths.x_m[rows], paths.y_m[rows], lw=0.6, alpha=0.4, color=PATH)
        ax.plot(paths.x_m[rows][:1], paths.y_m[rows][:1], ".", ms=3, color=INK)
    ax.set_title(f"Where {len(drawn)} of {len(people)} people went (dot: where each began)")


def _outline(ax: Any, ground: BaseGeometry) -> None:
    """Walls as lines, the ground tinted, axes in metres of one length."""
    ax.set_xlabel("m")
    ax.set_ylabel("m")
    x0, y0, x1, y1 = ground.bounds
    ax.set_aspect("equal")
    ax.set_xlim(x0 - CELL_M, x1 + CELL_M)
    ax.set_ylim(y0 - CELL_M, y1 + CELL_M)
    for part in map(orient, shapely.get_parts(ground)):  # holes turn the other way round, so that they are not tinted
        for ring in [part.exterior, *part.interiors]:
            ax.plot(*np.asarray(ring.coords).T, color=INK, lw=1, zorder=3)
        corners = [np.asarray(ring.coords) for ring in [part.exterior, *part.interiors]]
        codes = [code for ring in corners for code in [MplPath.MOVETO, *[MplPath.LINETO] * (len(ring) - 2), MplPath.CLOSEPOLY]]
        ax.add_patch(PathPatch(MplPath(np.concatenate(corners), codes), facecolor=GROUND, edgecolor="none", zorder=0))
