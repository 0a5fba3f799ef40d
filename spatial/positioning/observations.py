"""The neutral observation model: what one phone sensed on one walk, as arrays.

Owns the shapes that readers fill and estimators read. It must never hold an estimate, and `Walk.waypoints` (surveyed truth) is for fitting and scoring only:
no estimator reads it.

Times are float64 seconds since the walk's first record. Radio sources are named `w:<bssid>` (Wi-Fi) and `b:<mac>` (Bluetooth, iBeacon).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

F8 = npt.NDArray[np.float64]
F4 = npt.NDArray[np.float32]
I4 = npt.NDArray[np.int32]


def _no_series(width: int) -> Series:
    return Series(np.zeros(0), np.zeros((0, width)))


@dataclass(frozen=True, slots=True)
class Series:
    """Samples of one sensor, in time order. t_s: (n,) seconds; value: (n, k) in the sensor's unit."""

    t_s: F8
    value: F8

    def __len__(self) -> int:
        return len(self.t_s)


@dataclass(frozen=True, slots=True)
class Radio:
    """Readings of transmitters, in order of delivery.

    heard_s: (n,) when the transmitter was measured. told_s: (n,) when the phone handed the reading over, never before `heard_s`; a causal estimator may
    use a reading from then on. source: (n,) int32 into `names`. rssi_dbm: (n,) float32 in [-120, 0).
    """

    heard_s: F8
    told_s: F8
    source: I4
    rssi_dbm: F4
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.heard_s)


def no_radio() -> Radio:
    return Radio(np.zeros(0), np.zeros(0), np.zeros(0, np.int32), np.zeros(0, np.float32), ())


@dataclass(slots=True)
class ReadAccount:
    """What became of every line: read = used + ignored + broken + out_of_range + repeated (headers apart)."""

    read: int = 0
    headers: int = 0
    used: int = 0
    ignored: int = 0
    broken: int = 0
    out_of_range: int = 0
    repeated: int = 0
    clock_jumps: int = 0
    unknown_types: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Walk:
    """One phone's recording. accel m/s2, gyro rad/s, magnetic microtesla, all in the device frame, (n, 3); rotation: (n, 3), the vector part of the unit quaternion
    from device to east-north-up; pressure: (n, 1) hPa; gnss: (n, 3) latitude, longitude (degrees), accuracy (m); ranges: (n, 4) anchor x, y, range, sd (m, floor frame);
    fixes: (n, 2) known points (QR), m, floor frame. waypoints: (m, 3) t_s, x_m, y_m, surveyed truth in the floor's own metres. floor: the folder's name, truth as well."""

    name: str
    floor: str | None
    start_ms: int
    duration_s: float
    accel: Series = field(default_factory=lambda: _no_series(3))
    gyro: Series = field(default_factory=lambda: _no_series(3))
    magnetic: Series = field(default_factory=lambda: _no_series(3))
    rotation: Series = field(default_factory=lambda: _no_series(3))
    pressure: Series = field(default_factory=lambda: _no_series(1))
    gnss: Series = field(default_factory=lambda: _no_series(3))
    ranges: Series = field(default_factory=lambda: _no_series(4))
    fixes: Series = field(default_factory=lambda: _no_series(2))
    radio: Radio = field(default_factory=no_radio)
    waypoints: F8 = field(default_factory=lambda: np.zeros((0, 3)))
    account: ReadAccount = field(default_factory=ReadAccount)
