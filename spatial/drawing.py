"""A level of a venue as a picture, for people to check a plan by eye: SVG or PNG bytes.

Owns the look (as the console's: walkway lightest, shops a step darker, voids empty, openings as gaps, names that never overlap).
It draws what `spatial.plan` derives; it judges nothing and writes no file.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any, Final, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import shapely
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, PathPatch
from matplotlib.path import Path as DrawnPath
from shapely import STRtree
from shapely.geometry.base import BaseGeometry

from spatial.plan import LevelPlan, level_plan, shape
from spatial.venue import Unit, Venue

PAPER: Final = "#ffffff"
WALKWAY: Final = "#f6f4ef"
WALL: Final = "#4f5660"
INK: Final = "#2b3038"
QUIET: Final = "#7c838d"
ACCENT: Final = "#2f6f8f"

FILL: Final[dict[str, str]] = {
    "room": "#e3ded3",
    "walkway": "#eef0e6",
    "parking": "#eef0f2",
    "restroom": "#d3dfe6",
    "restroom.male": "#d3dfe6",
    "restroom.female": "#d3dfe6",
    "restroom.wheelchair": "#d3dfe6",
    "stairs": "#cfd3c4",
    "escalator": "#cfd3c4",
    "elevator": "#c3cbb8",
    "opentobelow": PAPER,
    "nonpublic": "#cfccc6",
    "stage": "#b9a98c",
    "structure": "#a9a59d",
    "unspecified": "#cfccc6",
}

_WIDE_IN = 15.0
_SIGN = {
    "restroom": "WC", "restroom.male": "WC m", "restroom.female": "WC f", "restroom.wheelchair": "WC acc.", "elevator": "lift", "stairs": "stairs",
}  # fmt: skip


def draw(venue: Venue, level: int, *, kind: Literal["svg", "png"] = "svg", dpi: int = 110) -> bytes:
    """The level with index `level` as SVG or PNG bytes. The same venue gives the same bytes. Raises NotFound for no such level."""
    plan = level_plan(venue, level)
    here = venue.levels[level]
    x0, y0, x1, y1 = plan.outline.bounds
    margin = 0.04 * max(x1 - x0, y1 - y0)
    wide, high = x1 - x0 + 2 * margin, y1 - y0 + 3 * margin
    style: Any = {"svg.hashsalt": "esplanade", "font.family": "DejaVu Sans", "svg.fonttype": "path"}
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in another script shows boxes, and the plan is still right
        figure = Figure(figsize=(_WIDE_IN, _WIDE_IN * high / wide), facecolor=PAPER)
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(x0 - margin, x1 + margin)
        axes.set_ylim(y0 - 1.6 * margin, y1 + 1.4 * margin)
        axes.set_aspect("equal")
        axes.axis("off")
        units = [unit for unit in venue.units if unit.level_id == here.id]
        _ground(axes, plan, units)
        _walls(axes, plan)
        _connectors(axes, venue, here.id)
        _points(axes, venue, here.id)
        _frame(axes, venue, here.name, x0, y0, x1, y1, margin)
        renderer: Any = canvas.get_renderer()  # type: ignore[no-untyped-call]
        figure.draw(renderer)
        _names(axes, renderer, venue, units, here.id)
        out = io.BytesIO()
        if kind == "png":
            figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
        else:
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def draw_ground(axes: Any, venue: Venue, plan: LevelPlan) -> None:
    """A level's ground, walls and connectors on axes of one's own, without names: what other pictures are drawn upon."""
    here = venue.levels[plan.level].id
    x0, y0, x1, y1 = plan.outline.bounds
    axes.set_xlim(x0 - 2, x1 + 2)
    axes.set_ylim(y0 - 2, y1 + 2)
    axes.set_aspect("equal")
    axes.axis("off")
    _ground(axes, plan, [unit for unit in venue.units if unit.level_id == here])
    _walls(axes, plan)
    _connectors(axes, venue, here)


def _patch(geometry: BaseGeometry) -> PathPatch:
    vertices: list[npt.NDArray[np.float64]] = []
    codes: list[Any] = []
    for polygon in shapely.get_parts(geometry):
        for ring in (polygon.exterior, *polygon.interiors):
            xy = np.asarray(ring.coords)[:, :2]
            vertices.append(xy)
            codes += [DrawnPath.MOVETO, *[DrawnPath.LINETO] * (len(xy) - 2), DrawnPath.CLOSEPOLY]
    return PathPatch(DrawnPath(np.concatenate(vertices), codes))


def _ground(axes: Any, plan: LevelPlan, units: Sequence[Unit]) -> None:
    axes.add_collection(PatchCollection([_patch(plan.outline)], facecolor=WALKWAY, edgecolor="none", zorder=1))
    order = {"walkway": 0, "parking": 0, "opentobelow": 1}
    for category in sorted({unit.category for unit in units}, key=lambda c: order.get(c, 2)):
        patches = [_patch(shape(unit.polygon)) for unit in units if unit.category == category]
        edge = {"parking": "#c5cad0", "opentobelow": "#b9bec6"}.get(category, "none")
        dashes: Any = (0, (3, 3)) if category == "opentobelow" else "solid"
        axes.add_collection(PatchCollection(patches, facecolor=FILL[category], edgecolor=edge, linewidth=0.5, linestyle=dashes, zorder=2))


def _walls(axes: Any, plan: LevelPlan) -> None:
    rings = [shapely.get_coordinates(ring) for part in plan.outline.geoms for ring in (part.exterior, *part.interiors)]
    axes.add_collection(LineCollection(rings, colors=QUIET, linewidths=0.6, zorder=3))
    if len(plan.walls):
        axes.add_collection(LineCollection(list(plan.walls.reshape(-1, 2, 2)), colors=WALL, linewidths=0.9, capstyle="round", zorder=4))


def _connectors(axes: Any, venue: Venue, level_id: str) -> None:
    units = {unit.id: unit for unit in venue.units}
    ordinal = {level.id: level.ordinal for level in venue.levels}
    for connector in venue.connectors:
        for at, stop in enumerate(connector.stops):
            if stop.level_id != level_id:
                continue
            axes.plot(*stop.point, marker="o", markersize=2.4, color=ACCENT, zorder=6)
            if connector.kind != "escalator" or stop.unit_id is None:
                continue
            middle = shape(units[stop.unit_id].polygon).centroid
            dx, dy = middle.x - stop.point[0], middle.y - stop.point[1]
            reach = 0.62 * math.hypot(dx, dy) or 1.0
            dx, dy = dx / math.hypot(dx, dy) * reach, dy / math.hypot(dx, dy) * reach
            leaving = (connector.direction == "forward") == (at == 0)
            sign = 1 if leaving else -1
            axes.annotate(
                "", (middle.x + sign * dx / 2, middle.y + sign * dy / 2), (middle.x - sign * dx / 2, middle.y - sign * dy / 2),
                arrowprops={"arrowstyle": "->", "color": ACCENT, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}, zorder=6,
            )  # fmt: skip
            away = connector.stops[1 - at] if len(connector.stops) == 2 else None
            if away is not None:
                up = ordinal[away.level_id] > ordinal[level_id]
                axes.text(stop.point[0], stop.point[1], " ▲" if up else " ▼", fontsize=4, color=ACCENT, zorder=6, va="center")


def _points(axes: Any, venue: Venue, level_id: str) -> None:
    for amenity in venue.amenities:
        if amenity.level_id == level_id:
            axes.plot(*amenity.point, marker="P", markersize=4, color=QUIET, zorder=5)
    for zone in venue.zones:
        if zone.level_id == level_id:
            collection = PatchCollection(
                [_patch(shape(zone.polygon))], facecolor=(0.184, 0.435, 0.561, 0.06), edgecolor=ACCENT, linewidth=0.6, linestyle=(0, (4, 3)), zorder=3
            )
            axes.add_collection(collection)
    for entrance in venue.entrances:
        if entrance.level_id == level_id:
            axes.plot(*entrance.point, marker="D", markersize=6, color=ACCENT, markeredgecolor=PAPER, zorder=7)


def _frame(axes: Any, venue: Venue, level_name: str, x0: float, y0: float, x1: float, y1: float, margin: float) -> None:
    axes.text(x0, y1 + 0.75 * margin, f"{venue.name}  ·  {level_name}", fontsize=15, color=INK, va="center", weight="bold")
    length = next(v for v in (200, 100, 50, 20, 10, 5, 2, 1) if v <= max((x1 - x0) / 5, 1))
    y = y0 - 0.9 * margin
    axes.plot([x0, x0 + length], [y, y], color=INK, linewidth=1.4, solid_capstyle="butt")
    for x in (x0, x0 + length):
        axes.plot([x, x], [y - 0.12 * margin, y + 0.12 * margin], color=INK, linewidth=1.0)
    axes.text(x0 + length + 0.3 * margin, y, f"{length} m", fontsize=9, color=INK, va="center")
    turn = math.radians(90.0 - venue.origin.bearing_deg)
    cx, cy, r = x1 - 0.5 * margin, y1 + 0.7 * margin, 0.45 * margin
    axes.add_patch(Circle((cx, cy), r, facecolor="none", edgecolor=QUIET, linewidth=0.8))
    axes.annotate(
        "", (cx + r * math.cos(turn), cy + r * math.sin(turn)), (cx - r * math.cos(turn), cy - r * math.sin(turn)),
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip
    axes.text(cx - 1.5 * r, cy, "N", fontsize=10, color=INK, ha="right", va="center")


def _names(axes: Any, renderer: Any, venue: Venue, units: Sequence[Unit], level_id: str) -> None:
    """Names by priority (entrances, zones, then units by area), inside the unit or on clear ground beside it; one that would overlap is left out."""
    occupant = {o.unit_id: o.name for o in venue.occupants}
    taken: list[Any] = []
    to_data = axes.transData.inverted()
    tree = STRtree([shape(unit.polygon) for unit in units if unit.category != "walkway"])
    for entrance in venue.entrances:
        if entrance.level_id == level_id:
            _place(axes, renderer, taken, entrance.point, entrance.name, 7.5, ACCENT, offset=(0, 9), weight="bold")
    for zone in venue.zones:
        if zone.level_id == level_id:
            at = shape(zone.polygon).representative_point()
            _place(axes, renderer, taken, (at.x, at.y), zone.name, 7.0, ACCENT, style="italic")
    for unit in sorted(units, key=lambda u: -shape(u.polygon).area):
        quiet = unit.category in ("nonpublic", "unspecified", "opentobelow", "walkway", "structure")
        text = occupant.get(unit.id) or _SIGN.get(unit.category) or unit.name
        if text is None or unit.category in ("parking", "escalator"):
            continue
        polygon = shape(unit.polygon)
        at = shapely.get_coordinates(shapely.maximum_inscribed_circle(polygon, 0.5) if polygon.is_valid else polygon.representative_point())[0]
        x0, y0, x1, y1 = polygon.bounds
        if _fit(axes, renderer, taken, to_data, (float(at[0]), float(at[1])), text, (x1 - x0, y1 - y0), QUIET if quiet else INK) or quiet:
            continue
        for y, offset in ((y0, (0, -5)), (y1, (0, 5))):
            if _place(axes, renderer, taken, ((x0 + x1) / 2, y), text, 5.0, INK, offset=offset, clear=(tree, to_data)):
                break


def _fit(
    axes: Any, renderer: Any, taken: list[Any], to_data: Any, at: tuple[float, float], text: str, room: tuple[float, float], colour: str
) -> bool:
    """The largest of a few sizes, lying or standing, wrapped or not, that fits the room's box."""
    for size in (8.5, 7.0, 6.0, 5.0, 4.2):
        for turn in (0, 90):
            for wrapped in dict.fromkeys([text, textwrap.fill(text, max(6, len(text) // 2 + 2), break_long_words=False)]):
                if _place(axes, renderer, taken, at, wrapped, size, colour, rotation=turn, room=room, to_data=to_data):
                    return True
    return False


def _place(
    axes: Any, renderer: Any, taken: list[Any], at: tuple[float, float], text: str, size: float, colour: str, *,
    rotation: float = 0, offset: tuple[float, float] = (0, 0), room: tuple[float, float] | None = None, to_data: Any = None,
    clear: tuple[STRtree, Any] | None = None, **style: str,
) -> bool:  # fmt: skip
    label = axes.annotate(
        text, at, xytext=offset, textcoords="offset points", fontsize=size, color=colour, ha="center", va="center",
        rotation=rotation, zorder=8, linespacing=1.05, annotation_clip=False, **style,
    )  # fmt: skip
    box = label.get_window_extent(renderer).padded(1.0)
    fits = not any(box.overlaps(other) for other in taken)
    if fits and room is not None:
        (left, bottom), (right, top) = to_data.transform([(box.x0, box.y0), (box.x1, box.y1)])
        fits = right - left <= room[0] and top - bottom <= room[1]
    if fits and clear is not None:
        tree, to_data = clear
        fits = len(tree.query(shapely.box(*to_data.transform([(box.x0, box.y0), (box.x1, box.y1)]).ravel()), predicate="intersects")) == 0
    if fits:
        taken.append(box)
    else:
        label.remove()
    return fits
