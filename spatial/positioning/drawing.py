"""A walk drawn over the ground: truth, causal, smoothed, regions. Owns the picture; shows what the filters say and changes nothing."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from spatial.positioning.grid_filter import Locator, answer_causal, answer_smoothed
from spatial.positioning.model import Model, prepare
from spatial.positioning.observations import Walk
from spatial.positioning.score import CHI2_90

SHOWN = 40


def draw_walk(model: Model, walk: Walk) -> bytes:
    """PNG bytes. A walk that cannot be located is drawn as its waypoints with a title that says so."""
    prepared = prepare(walk)
    locator = Locator(model)
    forward, both = locator.locate(prepared)
    times = np.linspace(0.0, max(walk.duration_s, 1.0), 400)
    causal, smoothed = answer_causal(locator, prepared, forward, times), answer_smoothed(locator, prepared, both, times)
    figure = Figure(figsize=(9, 8))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    known = bool(smoothed.known.all())
    index = int(np.bincount(smoothed.floor).argmax()) if known else 0
    floor = model.floors[index]
    x0, y0 = floor.corner_m
    rows, columns = floor.free.shape
    shade = np.where(floor.free, np.where(floor.rooms, 0.88, 1.0), 0.7)
    axes.imshow(shade, cmap="gray", vmin=0, vmax=1, origin="lower", extent=(x0, x0 + columns * floor.cell_m, y0, y0 + rows * floor.cell_m))
    if known:
        on = causal.floor == index
        axes.plot(*causal.xy_m[on].T, color="tab:orange", lw=1, label="causal")
        axes.plot(*smoothed.xy_m.T, color="tab:blue", lw=2, label="smoothed")
        for i in range(0, len(times), max(1, len(times) // SHOWN)):
            value, vector = np.linalg.eigh(smoothed.cov_m2[i])
            width, height = 2 * np.sqrt(value * CHI2_90)
            angle = float(np.degrees(np.arctan2(vector[1, 0], vector[0, 0])))
            axes.add_patch(Ellipse(tuple(smoothed.xy_m[i]), width, height, angle=angle, fc="tab:blue", alpha=0.06, lw=0))
    if len(walk.waypoints):
        axes.plot(walk.waypoints[:, 1], walk.waypoints[:, 2], "o-", color="tab:green", ms=4, lw=1, label="surveyed")
    title = f"{walk.name}: {floor.name}, {model.site}" if known else f"{walk.name}: not in this venue (no known transmitter heard)"
    axes.set(title=title, xlabel="x, m (floor)", ylabel="y, m (floor)", aspect="equal")
    if known or len(walk.waypoints):
        axes.legend(loc="best")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, bbox_inches="tight")
    return out.getvalue()
