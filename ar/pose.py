"""SE(3): rigid poses as columns, composed, inverted, interpolated and carried with their covariance.

Owns the algebra and its checks. Knows no names of frames (`ar.frames`), no files, no standards (`ar.geopose`).

Conventions. A pose `T_ab` maps coordinates of frame b into frame a: `p_a = R p_b + t`. Quaternions are (x, y, z, w), unit, and `q` equals `-q`;
stored with w >= 0. Covariance (6, 6) is that of a small twist (translation m, rotation rad) applied on the right, in the pose's own frame:
`T = T_mean Exp(xi)`. Source: Barfoot, State Estimation for Robotics (2017), chapter 7; Sola et al., A micro Lie theory (2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput

F8 = npt.NDArray[np.float64]

UNIT_TOLERANCE: Final = 1e-3
"""A quaternion this near to length 1 is taken and made exactly unit; beyond it is refused (five printed digits give 1e-5)."""
MAX_COORDINATE_M: Final = 1e7
"""Coordinates beyond this are refused: further from a venue's origin than the Earth is thick."""


def checked_quaternions(value: npt.ArrayLike, *, tolerance: float = UNIT_TOLERANCE) -> F8:
    """Unit quaternions (..., 4) as x, y, z, w with w >= 0. Raises InvalidInput where not finite or not of length 1 within `tolerance`."""
    q = np.array(value, np.float64)
    if q.ndim < 1 or q.shape[-1] != 4:
        raise InvalidInput(f"quaternion of shape {q.shape}: must be (..., 4) as x, y, z, w")
    length = np.sqrt((q * q).sum(axis=-1))
    bad = ~(np.abs(length - 1) <= tolerance)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InvalidInput(
            f"quaternion {q[first].tolist()} has length {length[first]:.6g}: must be 1 within {tolerance:g}; normalise it at its source"
        )
    q /= length[..., None]
    return np.asarray(np.where(_negative(q)[..., None], -q, q), np.float64)


def _negative(q: F8) -> npt.NDArray[np.bool_]:
    """True where -q is the canonical one: w < 0, or w = 0 and the first of x, y, z that is not 0 is negative."""
    x, y, z, w = np.moveaxis(q, -1, 0)
    return np.asarray((w < 0) | ((w == 0) & ((x < 0) | ((x == 0) & ((y < 0) | ((y == 0) & (z < 0)))))))


def multiply(a: F8, b: F8) -> F8:
    """Hamilton product of quaternions (..., 4): first b, then a."""
    ax, ay, az, aw = np.moveaxis(a, -1, 0)
    bx, by, bz, bw = np.moveaxis(b, -1, 0)
    return np.stack(
        [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ],
        axis=-1,
    )


def rotate(q: F8, points: F8) -> F8:
    """Points (..., 3) turned by unit quaternions (..., 4)."""
    u = q[..., :3]
    t = 2.0 * np.cross(u, points)
    return np.asarray(points + q[..., 3:] * t + np.cross(u, t), np.float64)


def matrix_of(q: F8) -> F8:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4)."""
    columns = [rotate(q, np.broadcast_to(axis, (*q.shape[:-1], 3))) for axis in np.eye(3)]
    return np.stack(columns, axis=-1)


def quaternion_of(matrix: npt.ArrayLike, *, tolerance: float = 1e-3) -> F8:
    """Unit quaternions (..., 4) of rotation matrices (..., 3, 3); the nearest rotation within `tolerance`.

    Raises InvalidInput for matrices that are not finite, that scale or shear, or that are left-handed (determinant -1).
    """
    m = np.asarray(matrix, np.float64)
    if m.ndim < 2 or m.shape[-2:] != (3, 3):
        raise InvalidInput(f"rotation of shape {m.shape}: must be (..., 3, 3)")
    if not np.isfinite(m).all():
        raise InvalidInput("rotation matrix holds NaN or infinity: every entry must be finite")
    gram = m @ np.swapaxes(m, -1, -2)
    worst = np.abs(gram - np.eye(3)).max(axis=(-1, -2))
    if (worst > tolerance).any():
        first = tuple(int(i) for i in np.argwhere(worst > tolerance)[0]) if m.ndim > 2 else ()
        scale = np.sqrt(np.diagonal(gram[first]))
        raise InvalidInput(
            f"rotation matrix has rows of length {np.round(scale, 6).tolist()} or not square to each other: a pose has no scale or shear; take it out"
        )
    if (np.linalg.det(m) < 0).any():
        raise InvalidInput("rotation matrix has determinant -1: it is left-handed; mirror one axis at the source")
    # Shepperd (1978): divide by the largest of the four.
    a, b, c = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    four = np.stack([1 + a - b - c, 1 - a + b - c, 1 - a - b + c, 1 + a + b + c], axis=-1)
    xy, xz, yz = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    rows = np.stack(
        [
            np.stack([four[..., 0], xy, xz, wx], axis=-1),
            np.stack([xy, four[..., 1], yz, wy], axis=-1),
            np.stack([xz, yz, four[..., 2], wz], axis=-1),
            np.stack([wx, wy, wz, four[..., 3]], axis=-1),
        ],
        axis=-2,
    )
    best = np.take_along_axis(rows, four.argmax(axis=-1)[..., None, None], axis=-2)[..., 0, :]
    return checked_quaternions(best / np.linalg.norm(best, axis=-1, keepdims=True))


def skew(v: F8) -> F8:
    """Cross-product matrices (..., 3, 3) of vectors (..., 3)."""
    x, y, z = np.moveaxis(v, -1, 0)
    o = np.zeros_like(x)
    return np.stack([np.stack([o, -z, y], -1), np.stack([z, o, -x], -1), np.stack([-y, x, o], -1)], -2)


def exp_rotation(vector: npt.ArrayLike) -> F8:
    """Unit quaternions (..., 4) of rotation vectors (..., 3), radians."""
    v = np.asarray(vector, np.float64)
    half = np.linalg.norm(v, axis=-1, keepdims=True) / 2
    return checked_quaternions(np.concatenate([v * (np.sinc(half / np.pi) / 2), np.cos(half)], axis=-1))


def log_rotation(q: F8) -> F8:
    """Rotation vectors (..., 3) of length at most pi, radians, of canonical unit quaternions (..., 4)."""
    sine = np.linalg.norm(q[..., :3], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[..., 3:])
    small = sine < 1e-9
    return np.asarray(q[..., :3] * np.where(small, 2.0, angle / np.where(small, 1.0, sine)), np.float64)


@dataclass(frozen=True, slots=True)
class Poses:
    """n poses: `translation_m` (n, 3), `rotation` (n, 4) unit x, y, z, w, and `covariance` (n, 6, 6) or None where it is not known."""

    translation_m: F8
    rotation: F8
    covariance: F8 | None = None

    @classmethod
    def of(cls, translation_m: npt.ArrayLike, rotation: npt.ArrayLike, covariance: npt.ArrayLike | None = None) -> Poses:
        """Checked poses from (n, 3) and (n, 4), or one from (3,) and (4,). Raises InvalidInput by the rules of this module."""
        t = np.atleast_2d(np.array(translation_m, np.float64))
        q = np.atleast_2d(checked_quaternions(rotation))
        if t.ndim != 2 or t.shape[1] != 3 or q.shape != (len(t), 4):
            raise InvalidInput(f"translations of shape {t.shape} with rotations {q.shape}: must be (n, 3) and (n, 4)")
        bad = ~(np.abs(t) <= MAX_COORDINATE_M).all(axis=1)
        if bad.any():
            raise InvalidInput(f"translation {t[bad.argmax()].tolist()}: must be finite, within {MAX_COORDINATE_M:g} m")
        return cls(t, q, None if covariance is None else _checked_covariance(covariance, len(t)))

    @classmethod
    def identity(cls, n: int = 1) -> Poses:
        return cls(np.zeros((n, 3)), np.tile([0.0, 0.0, 0.0, 1.0], (n, 1)))

    @classmethod
    def from_matrix(cls, matrix: npt.ArrayLike, covariance: npt.ArrayLike | None = None, *, tolerance: float = 1e-3) -> Poses:
        """Poses of homogeneous matrices (n, 4, 4) or (4, 4). Raises InvalidInput for scale, shear, left hand, NaN or a last row that is not 0 0 0 1."""
        m = np.asarray(matrix, np.float64)
        m = m[None] if m.ndim == 2 else m
        if m.ndim != 3 or m.shape[1:] != (4, 4):
            raise InvalidInput(f"pose matrix of shape {np.shape(matrix)}: must be (n, 4, 4)")
        if not (np.abs(m[:, 3] - [0.0, 0.0, 0.0, 1.0]) <= 1e-9).all():
            raise InvalidInput("pose matrix: the last row must be 0 0 0 1; a row-major matrix may have come transposed")
        return cls.of(m[:, :3, 3], quaternion_of(m[:, :3, :3], tolerance=tolerance), covariance)

    def __len__(self) -> int:
        return len(self.translation_m)

    def __getitem__(self, rows: int | slice | npt.NDArray[np.intp]) -> Poses:
        pick: slice | npt.NDArray[np.intp] = np.array([rows], np.intp) if isinstance(rows, int) else rows
        return Poses(self.translation_m[pick], self.rotation[pick], None if self.covariance is None else self.covariance[pick])

    def matrix(self) -> F8:
        """Homogeneous matrices (n, 4, 4)."""
        m = np.zeros((len(self), 4, 4))
        m[:, :3, :3], m[:, :3, 3], m[:, 3, 3] = matrix_of(self.rotation), self.translation_m, 1.0
        return m

    def adjoint(self) -> F8:
        """Adjoints (n, 6, 6) for twists ordered translation, rotation."""
        r = matrix_of(self.rotation)
        out = np.zeros((len(self), 6, 6))
        out[:, :3, :3] = out[:, 3:, 3:] = r
        out[:, :3, 3:] = skew(self.translation_m) @ r
        return out

    def __matmul__(self, other: Poses) -> Poses:
        """`T_ac = T_ab @ T_bc`; one pose broadcasts over many. Covariances add to first order; one that is not known counts as exact."""
        t = self.translation_m + rotate(self.rotation, other.translation_m)
        q = checked_quaternions(multiply(self.rotation, other.rotation))
        covariance = None
        if self.covariance is not None or other.covariance is not None:
            covariance = np.zeros((len(q), 6, 6))
            if self.covariance is not None:
                back = other.inverse_mean().adjoint()
                covariance = covariance + back @ self.covariance @ np.swapaxes(back, 1, 2)
            if other.covariance is not None:
                covariance = covariance + other.covariance
        return Poses(t, q, covariance)

    def inverse_mean(self) -> Poses:
        """The inverses without covariance."""
        q = checked_quaternions(self.rotation * [-1.0, -1.0, -1.0, 1.0])
        return Poses(-rotate(q, self.translation_m), q)

    def inverse(self) -> Poses:
        """`T_ba` of `T_ab`, with covariance carried over."""
        back = self.inverse_mean()
        if self.covariance is None:
            return back
        a = self.adjoint()
        return Poses(back.translation_m, back.rotation, a @ self.covariance @ np.swapaxes(a, 1, 2))

    def apply(self, points: npt.ArrayLike) -> F8:
        """Points (n, 3) by row, or many (m, 3) through one pose, mapped from the inner into the outer frame."""
        return self.translation_m + rotate(self.rotation, np.asarray(points, np.float64))

    def log(self) -> F8:
        """Twists (n, 6): translation, rotation; `Poses.exp` is the inverse. Source: Sola (2018), eq. 173."""
        phi = log_rotation(self.rotation)
        left = np.linalg.inv(_left_jacobian(phi))
        return np.concatenate([(left @ self.translation_m[..., None])[..., 0], phi], axis=-1)

    @classmethod
    def exp(cls, twist: npt.ArrayLike) -> Poses:
        """Poses of twists (n, 6) or (6,). Source: Sola (2018), eq. 172."""
        xi = np.atleast_2d(np.asarray(twist, np.float64))
        if xi.shape[-1] != 6 or not np.isfinite(xi).all():
            raise InvalidInput(f"twist of shape {xi.shape}: must be (n, 6) and finite")
        phi = xi[:, 3:]
        return cls((_left_jacobian(phi) @ xi[:, :3, None])[..., 0], exp_rotation(phi))

    def distance(self, other: Poses) -> tuple[F8, F8]:
        """(metres, radians) between poses of the same frame, by row."""
        turned = checked_quaternions(multiply(self.rotation * [-1.0, -1.0, -1.0, 1.0], other.rotation))
        metres = np.linalg.norm(self.translation_m - other.translation_m, axis=1)
        return metres, np.linalg.norm(log_rotation(turned), axis=1)


def _left_jacobian(phi: F8) -> F8:
    """Left Jacobian of SO(3), (..., 3, 3), of rotation vectors (..., 3); series below 1e-4 rad. Source: Barfoot (2017), eq. 7.77."""
    angle = np.linalg.norm(phi, axis=-1)[..., None, None]
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    one = np.where(small, 0.5 - angle**2 / 24, (1 - np.cos(safe)) / safe**2)
    two = np.where(small, 1 / 6 - angle**2 / 120, (safe - np.sin(safe)) / safe**3)
    k = skew(phi)
    return np.asarray(np.eye(3) + one * k + two * (k @ k), np.float64)


def _checked_covariance(value: npt.ArrayLike, n: int) -> F8:
    c = np.array(value, np.float64)
    c = c[None] if c.ndim == 2 else c
    if c.shape != (n, 6, 6):
        raise InvalidInput(f"covariance of shape {np.shape(value)}: must be ({n}, 6, 6), translation then rotation")
    if not np.isfinite(c).all() or (np.abs(c - np.swapaxes(c, 1, 2)) > 1e-9 * (1 + np.abs(c))).any():
        raise InvalidInput("covariance: must be finite and symmetric")
    if (np.linalg.eigvalsh(c) < -1e-9 * (1 + np.abs(c).max(axis=(1, 2)))[:, None]).any():
        raise InvalidInput("covariance: must have no negative eigenvalue")
    return c


def slerp(a: F8, b: F8, fraction: npt.ArrayLike) -> F8:
    """Unit quaternions the given fraction (n,) of the shorter arc from a to b, both (n, 4)."""
    f = np.asarray(fraction, np.float64)
    turn = checked_quaternions(multiply(a * [-1.0, -1.0, -1.0, 1.0], b))
    return checked_quaternions(multiply(a, exp_rotation(log_rotation(turn) * f[..., None])))


def interpolate(times_s: npt.ArrayLike, poses: Poses, at_s: npt.ArrayLike, *, max_gap_s: float = float("inf")) -> Poses:
    """Poses at `at_s` (m,) between samples at increasing `times_s` (n,): translation linear, rotation on the shorter arc; never extrapolated.

    Covariance is that of the two neighbours, weighted. Raises InvalidInput outside the samples or across a gap longer than `max_gap_s`.
    """
    times, at = np.asarray(times_s, np.float64), np.atleast_1d(np.asarray(at_s, np.float64))
    if len(times) != len(poses) or len(times) < 1 or not (np.diff(times) > 0).all():
        raise InvalidInput(f"{len(times)} times for {len(poses)} poses: must be as many, at least 1, and strictly increasing")
    outside = ~((at >= times[0]) & (at <= times[-1]))
    if outside.any():
        raise InvalidInput(f"time {at[outside][0]} s: must lie within the samples, {times[0]} to {times[-1]} s; poses are not extrapolated")
    if len(times) == 1:
        return poses[np.zeros(len(at), np.intp)]
    low = np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(times) - 2)
    span = times[low + 1] - times[low]
    f = (at - times[low]) / span
    if ((span > max_gap_s) & (f > 0) & (f < 1)).any():
        raise InvalidInput(f"a gap of {span.max():g} s between samples: at most {max_gap_s:g} s is bridged")
    t = poses.translation_m[low] * (1 - f)[:, None] + poses.translation_m[low + 1] * f[:, None]
    q = slerp(poses.rotation[low], poses.rotation[low + 1], f)
    c = poses.covariance
    return Poses(t, q, None if c is None else c[low] * (1 - f)[:, None, None] + c[low + 1] * f[:, None, None])
