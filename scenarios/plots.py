"""Plots as inline SVG: lines, stacked areas, bars, and density over a floor plan. Pure functions from numbers to text.

Colours come from the page's custom properties, so that dark, light and print need no second drawing. Never loads a font, script or image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from scenarios.report import DensityGrid
from spatial.venue import MultiPolygon, Venue

WIDTH = 920
LEFT = 60
RIGHT = 16
TOP = 14
BOTTOM = 34

CIVIDIS = ("#00224e", "#083370", "#35456c", "#4f576c", "#666970", "#7d7c78", "#948e77", "#aea371", "#c8b866", "#e5cf52", "#fee838")
"""Eleven steps of cividis (Nunez, Anderton, Renslow 2018): perceptually even, fit for colour-blind readers."""


def _ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between low and high."""
    if high <= low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:g}"


class _Axes:
    def __init__(self, *, x: tuple[float, float], y: tuple[float, float], height: int, root: bool = False) -> None:
        self.x, self.y, self.height, self.root = x, y, height, root

    def px(self, value: float) -> float:
        return LEFT + (value - self.x[0]) / max(self.x[1] - self.x[0], 1e-12) * (WIDTH - LEFT - RIGHT)

    def py(self, value: float) -> float:
        share = (value - self.y[0]) / max(self.y[1] - self.y[0], 1e-12)
        return self.height - BOTTOM - (math.sqrt(share) if self.root else share) * (self.height - TOP - BOTTOM)

    def frame(self, x_label: str, y_label: str, x_names: Sequence[tuple[float, str]] | None = None) -> str:
        parts = []
        wide = [0.0, *[m * 10.0**p for p in range(1, 7) for m in (1, 3) if m * 10.0**p <= self.y[1]][-4:]]
        for value in wide if self.root else _ticks(*self.y, most=4):
            at = self.py(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{_number(value)}</text>')
        names = x_names if x_names is not None else [(value, _number(value)) for value in _ticks(*self.x, most=10)]
        for value, name in names:
            side = "end" if self.px(value) > WIDTH - RIGHT - 20 else "middle"
            parts.append(f'<text class="tick" x="{self.px(value):.1f}" y="{self.height - BOTTOM + 16}" text-anchor="{side}">{escape(name)}</text>')
        parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{self.height - 4}" text-anchor="end">{escape(x_label)}</text>')
        parts.append(f'<text class="axis" x="{LEFT}" y="{TOP - 3}">{escape(y_label)}</text>')
        return "".join(parts)


def _svg(height: int, inner: str, label: str, width: int = WIDTH) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{inner}</svg>'


def _marks(axes: _Axes, marks: Sequence[tuple[float, str]]) -> str:
    out = []
    for x, text in marks:
        at = axes.px(x)
        side = "end" if at > WIDTH * 0.75 else "start"
        shift = -5 if side == "end" else 5
        out.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{axes.height - BOTTOM}"/>')
        out.append(f'<text class="marked" x="{at + shift:.1f}" y="{TOP + 10}" text-anchor="{side}">{escape(text)}</text>')
    return "".join(out)


def stacked(
    x: Sequence[float],
    series: Sequence[tuple[str, Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[float, str]] = (),
    height: int = 260,
) -> str:
    """Areas on top of each other, the first lowest, named in a legend."""
    if not x:
        return _svg(40, '<text class="axis" x="10" y="24">nothing was recorded</text>', y_label)
    top = max((sum(values[i] for _, values in series) for i in range(len(x))), default=0.0)
    axes = _Axes(x=(x[0], max(x[-1], x[0] + 1e-9)), y=(0.0, max(top * 1.08, 1.0)), height=height)
    base = [0.0] * len(x)
    parts = [axes.frame(x_label, y_label)]
    for k, (_, values) in enumerate(series):
        upper = [b + v for b, v in zip(base, values, strict=True)]
        forth = " ".join(f"{axes.px(a):.1f},{axes.py(b):.1f}" for a, b in zip(x, upper, strict=True))
        back = " ".join(f"{axes.px(a):.1f},{axes.py(b):.1f}" for a, b in reversed(list(zip(x, base, strict=True))))
        parts.append(f'<polygon class="s{k % 6}" points="{forth} {back}"/>')
        base = upper
    parts.append(_marks(axes, marks))
    return _svg(height, "".join(parts), y_label) + legend([name for name, _ in series])


def legend(names: Sequence[str]) -> str:
    """Names beside their colours."""
    if len(names) < 2:
        return ""
    return '<p class="legend">' + "".join(f'<span><i class="k{i % 6}"></i>{escape(name)}</span>' for i, name in enumerate(names)) + "</p>"


def lines(
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[float, str]] = (),
    height: int = 200,
) -> str:
    """Lines (name, x, y) over one pair of axes."""
    xs = [v for _, x, _ in series for v in x]
    ys = [v for _, _, y in series for v in y]
    if not xs:
        return _svg(40, '<text class="axis" x="10" y="24">nothing was recorded</text>', y_label)
    axes = _Axes(x=(min(xs), max(max(xs), min(xs) + 1e-9)), y=(0.0, max(max(ys) * 1.08, 1.0)), height=height)
    parts = [axes.frame(x_label, y_label)]
    for k, (_, x, y) in enumerate(series):
        points = " ".join(f"{axes.px(a):.1f},{axes.py(b):.1f}" for a, b in zip(x, y, strict=True))
        parts.append(f'<polyline class="l{k % 6}" points="{points}"/>')
    parts.append(_marks(axes, marks))
    return _svg(height, "".join(parts), y_label) + legend([name for name, _, _ in series])


def each_second(values: Sequence[int], *, y_label: str, marks: Sequence[tuple[float, str]] = (), height: int = 150, root: bool = False) -> str:
    """Bars, one a venue second (wider where there are many), over venue minutes. `root`: heights by the square root, where one second dwarfs the others."""
    width = max(1, math.ceil(len(values) / 300))
    grouped = [sum(values[i : i + width]) / width for i in range(0, len(values), width)]
    axes = _Axes(x=(0.0, max(len(values) / 60, 1e-9)), y=(0.0, max(max(grouped, default=0) * 1.08, 1.0)), height=height, root=root)
    parts = [axes.frame("venue minutes", y_label)]
    for i, value in enumerate(grouped):
        left, right = axes.px(i * width / 60), axes.px(min((i + 1) * width, len(values)) / 60)
        if value:
            at = axes.py(value)
            parts.append(f'<rect class="s0" x="{left:.1f}" y="{at:.1f}" width="{max(right - left - 0.4, 0.6):.1f}" height="{axes.py(0) - at:.1f}"/>')
    parts.append(_marks(axes, marks))
    return _svg(height, "".join(parts), y_label)


def durations(bars: Sequence[tuple[float, int]], *, marks: Sequence[tuple[float, str]], height: int = 190) -> str:
    """A histogram over a logarithmic axis of milliseconds; `bars` are (upper edge, count)."""
    if not bars:
        return _svg(40, '<text class="axis" x="10" y="24">nothing was measured</text>', "latency")
    step = 0.06
    cells: dict[int, int] = {}
    for edge, count in bars:
        cell = math.floor(math.log10(max(edge, 0.01)) / step)
        cells[cell] = cells.get(cell, 0) + count
    low, high = min(cells) * step, (max(cells) + 1) * step
    low, high = math.floor(low), max(math.ceil(high), math.floor(low) + 1)
    axes = _Axes(x=(low, high), y=(0.0, max(cells.values()) * 1.15), height=height)
    names = [(float(p), f"{_number(10.0**p)} ms") for p in range(int(low), int(high) + 1)]
    parts = [axes.frame("milliseconds, logarithmic", "samples", names)]
    for cell, count in sorted(cells.items()):
        left, right, at = axes.px(cell * step), axes.px((cell + 1) * step), axes.py(count)
        parts.append(f'<rect class="s0" x="{left:.1f}" y="{at:.1f}" width="{max(right - left - 0.6, 0.8):.1f}" height="{axes.py(0) - at:.1f}"/>')
    for k, (value, text) in enumerate(marks):
        at = axes.px(min(max(math.log10(max(value, 0.01)), low), high))
        side, shift = ("end", -4) if at > WIDTH * 0.75 else ("start", 4)
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
        parts.append(f'<text class="marked" x="{at + shift:.1f}" y="{TOP + 10 + 13 * k}" text-anchor="{side}">{escape(text)}</text>')
    return _svg(height, "".join(parts), "latency")


def band(people_m2: float) -> int:
    """Step of the density ramp, full at 2 people a square metre (Fruin's level of service E begins at 1.66 for walkways)."""
    return min(int(people_m2 / 2.0 * (len(CIVIDIS) - 1) + 0.999), len(CIVIDIS) - 1)


def ramp_style() -> str:
    """Style of the ramp: crowded is dark on light paper and bright on dark."""
    light = "".join(f"--d{i}:{c};" for i, c in enumerate(reversed(CIVIDIS)))
    dark = "".join(f"--d{i}:{c};" for i, c in enumerate(CIVIDIS))
    classes = "".join(f".d{i}{{fill:var(--d{i});background:var(--d{i})}}" for i in range(len(CIVIDIS)))
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}{classes}"


def floor(grid: DensityGrid, venue: Venue, width: int = 440) -> str:
    """One level's plan, units in outline, with people by cell over it. North is up."""
    rows, columns = len(grid.count), len(grid.count[0])
    scale = width / (columns * grid.cell_m)
    height = round(rows * grid.cell_m * scale)

    def path(shape: MultiPolygon) -> str:
        return " ".join(
            "M" + " L".join(f"{(x - grid.x0_m) * scale:.1f} {height - (y - grid.y0_m) * scale:.1f}" for x, y in ring) + " Z"
            for polygon in shape
            for ring in polygon
        )

    level = venue.levels[grid.level]
    parts = [f'<path class="ground" d="{path(level.outline)}"/>']
    area = grid.cell_m**2
    size = grid.cell_m * scale
    for row, line in enumerate(grid.count):
        for column, count in enumerate(line):
            if count:
                x, y = column * size, height - (row + 1) * size
                parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{size + 0.2:.1f}" height="{size + 0.2:.1f}" class="d{band(count / area)}"/>')
    parts.extend(f'<path class="unit" d="{path(unit.polygon)}"/>' for unit in venue.units if unit.level_id == level.id and unit.category != "parking")
    return _svg(height, "".join(parts), f"people on {level.name}", width)


def ramp() -> str:
    """The legend of `band`."""
    cells = "".join(f'<i class="d{i}"></i>' for i in range(len(CIVIDIS)))
    return f'<p class="ramp"><span>fewer</span>{cells}<span>2 people a square metre and more</span></p>'
