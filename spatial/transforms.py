"""Rigid motions of the plane, and the image frame of a floor plan: pixels and venue metres, both ways.

Owns the two conversions and their fit to control points. It reads no image.

A pixel's x runs right, its y down, and (0, 0) is the image's upper left corner (the corner, not the middle, of the first pixel). A plan image is scaled the
same way along both, turned and moved, never sheared: plans that are, are bad scans, and the fit's error shows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput

F8 = npt.NDArray[np.float64]

LEAST_SPREAD: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Rigid:
    """Turn by `turn_rad` counter-clockwise about the origin, then move by (x_m, y_m)."""

    turn_rad: float = 0.0
    x_m: float = 0.0
    y_m: float = 0.0

    def __post_init__(self) -> None:
        if not np.isfinite([self.turn_rad, self.x_m, self.y_m]).all():
            raise InvalidInput(f"{self}: must be finite radians and metres")

    def apply(self, xy_m: npt.ArrayLike) -> F8:
        """Images of points (..., 2)."""
        cos, sin = math.cos(self.turn_rad), math.sin(self.turn_rad)
        return np.asarray(np.asarray(xy_m, np.float64) @ np.array([[cos, sin], [-sin, cos]]) + [self.x_m, self.y_m])

    def inverse(self) -> Rigid:
        cos, sin = math.cos(self.turn_rad), math.sin(self.turn_rad)
        return Rigid(-self.turn_rad, -(cos * self.x_m + sin * self.y_m), sin * self.x_m - cos * self.y_m)

    def then(self, other: Rigid) -> Rigid:
        """This motion, then the other."""
        (moved,) = other.apply([(self.x_m, self.y_m)])
        return Rigid(self.turn_rad + other.turn_rad, float(moved[0]), float(moved[1]))


@dataclass(frozen=True, slots=True)
class PlanImage:
    """Where a plan's image lies: metres a pixel, its turn counter-clockwise, and the venue point (x_m, y_m) of its upper left corner."""

    metres_a_pixel: float
    x_m: float
    y_m: float
    turn_rad: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.metres_a_pixel < np.inf and np.isfinite([self.x_m, self.y_m, self.turn_rad]).all()):
            raise InvalidInput(f"{self}: metres a pixel must be above 0, the rest finite")

    def to_venue(self, pixel: npt.ArrayLike) -> F8:
        """Venue metres (..., 2) of pixels (..., 2: right, down)."""
        right_up = np.asarray(pixel, np.float64) * np.array([self.metres_a_pixel, -self.metres_a_pixel])
        return Rigid(self.turn_rad, self.x_m, self.y_m).apply(right_up)

    def to_pixel(self, xy_m: npt.ArrayLike) -> F8:
        """Pixels (..., 2: right, down; between pixels too) of venue metres (..., 2)."""
        right_up = Rigid(self.turn_rad, self.x_m, self.y_m).inverse().apply(xy_m)
        return np.asarray(right_up / np.array([self.metres_a_pixel, -self.metres_a_pixel]))


def fit_rigid(source_m: npt.ArrayLike, target_m: npt.ArrayLike) -> tuple[Rigid, float]:
    """The motion that brings source points (n, 2) nearest to targets (least squares; Umeyama 1991 without scale), and the root mean square error in metres.

    Raises InvalidInput for fewer than two points, or points all in one place.
    """
    turn, _, move, error = _similarity(source_m, target_m, scaled=False)
    return Rigid(turn, float(move[0]), float(move[1])), error


def fit_plan_image(pixel: npt.ArrayLike, xy_m: npt.ArrayLike) -> tuple[PlanImage, float]:
    """The image frame that brings control pixels (n, 2) nearest to their venue points, and the root mean square error in metres. Raises as `fit_rigid`."""
    right_up = np.asarray(pixel, np.float64) * [1.0, -1.0]
    turn, scale, move, error = _similarity(right_up, xy_m, scaled=True)
    return PlanImage(scale, float(move[0]), float(move[1]), turn), error


def _similarity(source: npt.ArrayLike, target: npt.ArrayLike, *, scaled: bool) -> tuple[float, float, F8, float]:
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != 2 or len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InvalidInput(f"fit: points {a.shape} and {b.shape}; must be two or more pairs of finite (x, y)")
    middle_a, middle_b = a.mean(axis=0), b.mean(axis=0)
    p, q = a - middle_a, b - middle_b
    spread = float((p**2).sum())
    if spread < LEAST_SPREAD or (q**2).sum() < LEAST_SPREAD:
        raise InvalidInput(f"fit: all {len(a)} points are in one place; give points that are apart")
    along = float((p * q).sum())
    across = float((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum())
    turn = math.atan2(across, along)
    scale = math.hypot(along, across) / spread if scaled else 1.0
    cos, sin = math.cos(turn) * scale, math.sin(turn) * scale
    matrix = np.array([[cos, sin], [-sin, cos]])
    move = middle_b - middle_a @ matrix
    error = float(np.sqrt(((a @ matrix + move - b) ** 2).sum(axis=1).mean()))
    return turn, scale, move, error
