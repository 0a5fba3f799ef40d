"""One moment of a study as a picture: every level with who is on it. SVG text, which any browser shows; it measures nothing and writes no file."""

from __future__ import annotations

from typing import Final
from xml.sax.saxutils import escape

import numpy as np
import shapely

from simulation.study import Study

MOST_BODIES: Final = 50_000
"""More are drawn one in so many; the caption says so."""
WIDE_PX: Final = 1200.0
GAP_PX: Final = 40.0


def frame_svg(study: Study, *, title: str) -> str:
    """The ground of each level, one below the other, and everybody as a dot, coloured from red (standing) to green (1.3 m/s and more)."""
    levels, r = study.setting.levels, study.walkers.rows
    bounds = np.array([ground.bounds for ground in levels])
    x0, y0, x1, y1 = bounds[:, 0].min(), bounds[:, 1].min(), bounds[:, 2].max(), bounds[:, 3].max()
    scale = WIDE_PX / max(1e-9, x1 - x0)
    tall = (y1 - y0) * scale + GAP_PX
    every = -(-len(study.walkers) // MOST_BODIES)
    drawn = np.arange(0, len(study.walkers), max(1, every))
    hue = np.round(120 * np.minimum(1.0, np.hypot(r["vx"], r["vy"])[drawn] / 1.3)).astype(int)
    px = np.round((r["x"][drawn] - x0) * scale, 1)
    py = np.round((y1 - r["y"][drawn]) * scale + GAP_PX, 1)
    radius = np.maximum(1.2, np.round(r["radius"][drawn] * scale, 1))
    parts = []
    for level, ground in enumerate(levels):
        rings = [ring for part in shapely.get_parts(ground) for ring in [part.exterior, *part.interiors]]
        path = " ".join(
            "M" + " ".join(f"{(x - x0) * scale:.1f},{(y1 - y) * scale + GAP_PX:.1f}" for x, y in shapely.get_coordinates(ring).tolist()) + "Z"
            for ring in rings
        )
        mine = np.flatnonzero(r["level"][drawn] == level)
        dots = "".join(
            f'<circle cx="{x}" cy="{y}" r="{size}" fill="hsl({colour} 70% 40%)"/>'
            for x, y, size, colour in zip(px[mine].tolist(), py[mine].tolist(), radius[mine].tolist(), hue[mine].tolist(), strict=True)
        )
        here = int(np.count_nonzero(r["level"] == level))
        parts.append(
            f'<g transform="translate(0 {level * tall:.1f})"><text y="24">level {level}: {here} people{f", one in {every} drawn" if every > 1 else ""}</text>'
            f'<path d="{path}" fill="#ece8dd" stroke="#2b3038" stroke-width="0.7" fill-rule="evenodd"/>{dots}</g>'
        )
    caption = escape(f"{title}, {study.walkers.time_s:g} s")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 0 {WIDE_PX + 20:g} {tall * len(levels) + 10:.0f}" font-family="system-ui" font-size="16">'
        f"<title>{caption}</title>{''.join(parts)}</svg>\n"
    )
