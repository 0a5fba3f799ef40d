"""A route as a picture: every level that it touches, side by side, in the look of `spatial.drawing`. It draws; it computes no route and writes no file."""

from __future__ import annotations

import io
from typing import Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from spatial.drawing import INK, PAPER, draw_ground
from spatial.routes import Ride, Route, Walk
from spatial.routing import Router

_WAY: Final = "#c2410c"
_PANEL_IN: Final = 9.0


def draw_route(router: Router, route: Route, *, dpi: int = 90) -> bytes:
    """PNG bytes. A circle is where the way starts on a level, a square where it ends there; rides are named at both."""
    venue, plans = router.venue, router.plans
    levels = sorted({leg.level for leg in route.walks} | {level for ride in route.rides for level in (ride.from_level, ride.to_level)})
    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(_PANEL_IN * len(levels), _PANEL_IN), facecolor=PAPER)
        FigureCanvasAgg(figure)
        for k, level in enumerate(levels):
            axes = figure.add_axes((k / len(levels), 0, 1 / len(levels), 0.95))
            draw_ground(axes, venue, plans[level])
            axes.set_title(venue.levels[level].name, fontsize=14, color=INK)
            for leg in route.legs:
                if isinstance(leg, Walk) and leg.level == level:
                    axes.plot(*leg.points.T, color=_WAY, linewidth=2.2, zorder=9)
                    axes.plot(*leg.points[0], marker="o", markersize=7, color=_WAY, zorder=10)
                    axes.plot(*leg.points[-1], marker="s", markersize=7, color=_WAY, zorder=10)
                if isinstance(leg, Ride):
                    for at, point in ((leg.from_level, leg.from_point), (leg.to_level, leg.to_point)):
                        if at == level:
                            axes.annotate(
                                leg.way.replace("_", " "), point, xytext=(6, 6), textcoords="offset points", fontsize=9, color=_WAY, zorder=11
                            )
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
    return out.getvalue()
