"""Pedestrian dead reckoning: steps from the accelerometer, heading from the rotation vector (gyroscope and magnetometer where it is missing).

Owns the relative path of one walk. It must never see a waypoint, a radio reading or a plan. Heading is degrees of freedom of others: the magnetic
north that the phone believes in is off by a constant and by what steel does to it; fusion estimates that per walk.

Steps: peaks of the smoothed norm of acceleration; stride after Weinberg (2002), k * (max - min) ** 0.25. Heading: the device's y axis (top of the phone) laid on
the horizontal plane, as the phone is held before the walker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage, signal

from spatial.positioning.observations import F8, Series, Walk

RATE_HZ: Final = 50.0
SMOOTH_S: Final = 0.06
STEP_LEAST_S: Final = 0.33
STEP_PROMINENCE: Final = 0.9
WEINBERG_K: Final = 0.42
"""m per (m/s2) ** 0.25; a prior for the unit, fusion scales it per walk."""
STEP_M: Final = (0.3, 1.1)
GAP_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Path:
    """Relative path. t_s: (n,) increasing; xy_m: (n, 2) metres east and north from the start, magnetic; steps: number of steps. `steady` is False
    where there was no heading: then the path says how far, not where to."""

    t_s: F8
    xy_m: F8
    steps: int
    steady: bool

    def at(self, t_s: F8) -> F8:
        """(n, 2) positions at times, held constant outside the path."""
        if len(self.t_s) == 0:
            return np.zeros((len(t_s), 2))
        return np.column_stack([np.interp(t_s, self.t_s, self.xy_m[:, k]) for k in range(2)])


def dead_reckon(walk: Walk) -> Path:
    """The relative path of a walk; without an accelerometer an empty, unsteady one that stands still."""
    if len(walk.accel) < 10:
        return Path(np.zeros(0), np.zeros((0, 2)), 0, False)
    peaks_s, length = find_steps(walk.accel)
    heading = heading_of(walk)
    steady = heading is not None
    t0, t1 = walk.accel.t_s[0], walk.accel.t_s[-1]
    if len(peaks_s) == 0:
        return Path(np.array([t0, max(t1, t0 + 1e-3)]), np.zeros((2, 2)), 0, steady)
    if heading is None:
        direction = np.tile([0.0, 0.0], (len(peaks_s), 1))
    else:
        # the direction of a step is the mean over the time since the last one
        start = np.r_[peaks_s[0] - 0.5, peaks_s[:-1]]
        start = np.maximum(start, peaks_s - 0.8)
        direction = np.zeros((len(peaks_s), 2))
        for part in np.linspace(0.0, 1.0, 5):
            at = start + (peaks_s - start) * part
            direction += np.column_stack([np.interp(at, heading.t_s, heading.value[:, k]) for k in range(2)])
        norm = np.hypot(direction[:, 0], direction[:, 1])
        direction /= np.maximum(norm, 1e-9)[:, None]
    offset = np.cumsum(direction * length[:, None], axis=0)
    begin = np.r_[peaks_s[0] - 0.5, peaks_s[:-1]]
    begin = np.maximum(begin, peaks_s - 0.8)  # after a pause the walker starts just before the step
    times = np.column_stack([begin, peaks_s]).ravel()
    places = np.column_stack([np.vstack([[0.0, 0.0], offset[:-1]]), offset]).reshape(-1, 2)
    keep = np.r_[True, np.diff(times) > 1e-9]
    return Path(times[keep], places[keep], len(peaks_s), steady)


def find_steps(accel: Series) -> tuple[F8, F8]:
    """Times (s) and stride lengths (m) of the steps in a series of accelerations (n, 3), m/s2, at any rate."""
    t = np.arange(accel.t_s[0], accel.t_s[-1], 1.0 / RATE_HZ)
    if len(t) < 20:
        return np.zeros(0), np.zeros(0)
    norm = np.interp(t, accel.t_s, np.linalg.norm(accel.value, axis=1))
    smooth = ndimage.gaussian_filter1d(norm, SMOOTH_S * RATE_HZ)
    smooth -= ndimage.uniform_filter1d(smooth, int(1.5 * RATE_HZ))
    peaks, _ = signal.find_peaks(smooth, distance=int(STEP_LEAST_S * RATE_HZ), prominence=STEP_PROMINENCE)
    if len(peaks) == 0:
        return np.zeros(0), np.zeros(0)
    half = int(0.3 * RATE_HZ)
    least = ndimage.minimum_filter1d(smooth, 2 * half + 1)[peaks]
    most = ndimage.maximum_filter1d(smooth, 2 * half + 1)[peaks]
    return t[peaks], np.clip(WEINBERG_K * np.maximum(most - least, 0.0) ** 0.25, *STEP_M)


def heading_of(walk: Walk) -> Series | None:
    """Unit vectors (n, 2), east and north (magnetic), of the phone's forward direction; None where no sensor tells."""
    if len(walk.rotation) >= 2:
        x, y, z = walk.rotation.value.T
        w = np.sqrt(np.maximum(0.0, 1.0 - x * x - y * y - z * z))
        east, north = 2 * (x * y - z * w), 1 - 2 * (x * x + z * z)
        norm = np.maximum(np.hypot(east, north), 1e-6)
        return Series(walk.rotation.t_s, np.column_stack([east / norm, north / norm]))
    if len(walk.magnetic) >= 2 and len(walk.accel) >= 2:
        t = walk.magnetic.t_s
        up = np.column_stack([ndimage.gaussian_filter1d(np.interp(t, walk.accel.t_s, walk.accel.value[:, k]), 25.0) for k in range(3)])
        up /= np.maximum(np.linalg.norm(up, axis=1, keepdims=True), 1e-6)
        east3 = np.cross(walk.magnetic.value, up)
        east3 /= np.maximum(np.linalg.norm(east3, axis=1, keepdims=True), 1e-6)
        north3 = np.cross(up, east3)
        norm = np.maximum(np.hypot(east3[:, 1], north3[:, 1]), 1e-6)
        return Series(t, np.column_stack([east3[:, 1] / norm, north3[:, 1] / norm]))
    return None
