"""Compiled kernels of positioning. Twins in NumPy are in the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

F4 = npt.NDArray[np.float32]
B1 = npt.NDArray[np.bool_]


@njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _taps(shift: float, sigma: float, radius: int, out: F4) -> int:
    """Weights of a Gaussian of mean `shift` cells around its nearest whole cell, which is returned."""
    whole = int(np.floor(shift + 0.5))
    total = 0.0
    for k in range(2 * radius + 1):
        z = (k - radius + whole - shift) / sigma
        out[k] = np.exp(-0.5 * z * z)
        total += out[k]
    for k in range(2 * radius + 1):
        out[k] = np.float32(out[k] / total)
    return whole


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator, unused-ignore]
def move(prob: F4, free: B1, columns: float, rows: float, sigma: float, radius: int, work: F4, out: F4) -> None:
    """out = free * (prob shifted by (columns, rows) cells and blurred by a Gaussian of sigma cells), all (R, C). Mass that leaves the raster is lost."""
    n_rows, n_columns = prob.shape
    taps = np.empty(2 * radius + 1, np.float32)
    whole = _taps(columns, sigma, radius, taps)
    for r in range(n_rows):
        for c in range(n_columns):
            work[r, c] = 0.0
        for k in range(2 * radius + 1):
            step = k - radius + whole
            w = taps[k]
            for c in range(max(0, step), min(n_columns, n_columns + step)):
                work[r, c] += w * prob[r, c - step]
    whole = _taps(rows, sigma, radius, taps)
    for r in range(n_rows):
        for c in range(n_columns):
            out[r, c] = 0.0
        for k in range(2 * radius + 1):
            source = r - (k - radius + whole)
            if 0 <= source < n_rows:
                w = taps[k]
                for c in range(n_columns):
                    out[r, c] += w * work[source, c]
        for c in range(n_columns):
            if not free[r, c]:
                out[r, c] = 0.0


def warm_up() -> None:
    """Compile or load every kernel on tiny inputs."""
    a: Any = np.zeros((2, 2), np.float32)
    move(a, np.ones((2, 2), np.bool_), 0.0, 0.0, 1.0, 1, a.copy(), a.copy())
