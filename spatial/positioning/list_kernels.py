"""Compiled search of fingerprints by inverted lists. Its twin in NumPy (a dense product) is in the tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

F4 = npt.NDArray[np.float32]
I4 = npt.NDArray[np.int32]


@njit(cache=True, nogil=True)
def nearest_by_lists(starts: I4, which: I4, powered: F4, first: I4, row: I4, value: F4, n_known: int, k: int) -> tuple[I4, F4]:
    """(n, k) rows of the most alike fingerprints, most alike first, and (n, k) their cosines.

    Scan i holds transmitters which[starts[i]:starts[i + 1]] with `powered` strengths; transmitter a is heard in the fingerprints row[first[a]:first[a + 1]] with `value`."""
    n = len(starts) - 1
    near, alike = np.zeros((n, k), np.int32), np.zeros((n, k), np.float32)
    for i in range(n):
        dot = np.zeros(n_known, np.float32)
        square = np.float32(0.0)
        for j in range(starts[i], starts[i + 1]):
            a, p = which[j], powered[j]
            square += p * p
            for e in range(first[a], first[a + 1]):
                dot[row[e]] += p * value[e]
        length = max(np.sqrt(square), np.float32(1e-6))
        for m in range(k):  # whoever shares nothing stands in where too few share something
            near[i, m], alike[i, m] = m, dot[m]
        for m in range(1, k):
            at, d = near[i, m], alike[i, m]
            q = m
            while q > 0 and alike[i, q - 1] < d:
                near[i, q], alike[i, q] = near[i, q - 1], alike[i, q - 1]
                q -= 1
            near[i, q], alike[i, q] = at, d
        worst = alike[i, k - 1]
        for m in range(k, n_known):
            d = dot[m]
            if d > worst:
                q = k - 1
                while q > 0 and alike[i, q - 1] < d:
                    near[i, q], alike[i, q] = near[i, q - 1], alike[i, q - 1]
                    q -= 1
                near[i, q], alike[i, q] = m, d
                worst = alike[i, k - 1]
        for m in range(k):
            alike[i, m] = min(alike[i, m] / length, np.float32(1.0))
    return near, alike
