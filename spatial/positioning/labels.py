"""Where a surveyed walk was at any time: dead reckoning bent to pass through the surveyed waypoints.

Owns the labels that fitting uses. It must never be called on a walk that is to be located.
"""

from __future__ import annotations

import numpy as np

from spatial.positioning.observations import F8
from spatial.positioning.pdr import Path


def surveyed_positions(waypoints: F8, path: Path, t_s: F8) -> tuple[F8, F8]:
    """Positions (n, 2), floor metres, at times `t_s`, and how far (s) each time lies outside the surveyed span (0 within).

    waypoints: (m, 3) t, x, y. Between two waypoints the path is turned and stretched onto the leg where it resembles it (within 45 degrees and a factor of 2),
    else the leg is walked evenly along a straight line.
    """
    if len(waypoints) == 0:
        return np.full((len(t_s), 2), np.nan), np.full(len(t_s), np.inf)
    times, points = waypoints[:, 0], waypoints[:, 1:]
    inside = np.clip(t_s, times[0], times[-1])
    if len(waypoints) == 1:
        return np.repeat(points, len(t_s), axis=0), np.abs(t_s - times[0])
    leg = np.clip(np.searchsorted(times, inside, side="right") - 1, 0, len(times) - 2)
    at, ends = path.at(inside), path.at(times)
    moved = at - ends[leg]
    whole = ends[leg + 1] - ends[leg]
    true = points[leg + 1] - points[leg]
    span = np.maximum(times[leg + 1] - times[leg], 1e-6)
    walked = np.abs(_complex(whole)) > 0.5
    ratio = _complex(true) / np.where(walked, _complex(whole), 1.0)
    alike = walked & (np.abs(np.angle(ratio)) < np.pi / 4) & (np.abs(ratio) > 0.5) & (np.abs(ratio) < 2.0)
    turned = _complex(moved) * np.where(alike, ratio, 0.0)
    share = (inside - times[leg]) / span
    straight = _complex(true) * share
    z = _complex(points[leg]) + np.where(alike, turned, straight)
    return np.column_stack([z.real, z.imag]), np.abs(t_s - inside)


def _complex(xy: F8) -> np.ndarray[tuple[int], np.dtype[np.complex128]]:
    z: np.ndarray[tuple[int], np.dtype[np.complex128]] = xy[:, 0] + 1j * xy[:, 1]
    return z
