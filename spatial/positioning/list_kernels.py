"""Compiled search of fingerprints: candidates by inverted lists of the strongest transmitters, then both likenesses exactly. Its twin in NumPy is in the tests.

Indices are unsigned: the compiler then leaves out the care for negative ones, which is half of the time.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

F8 = npt.NDArray[np.float64]
F4 = npt.NDArray[np.float32]
U4 = npt.NDArray[np.uint32]
I4 = npt.NDArray[np.int32]

LOUDEST_DB: Final = 128


class Lists(NamedTuple):
    """Fingerprints both ways. By transmitter: fingerprints row[first[a]:first[a + 1]] hear a with `unit` strength, fingerprints of unit length. By fingerprint: i hears the transmitters
    which[starts[i]:starts[i + 1]] with `strength`, dB above silence; length[i] and square[i] are the root of the sum of its squares, and that sum. xy_m: (m, 2); floor: (m,)."""

    first: U4
    row: U4
    unit: F4
    starts: U4
    which: U4
    strength: F4
    length: F4
    square: F4
    xy_m: F8
    floor: I4


@njit(cache=True, nogil=True)
def locate_by_lists(asked: F4, lists: Lists, strongest: int, candidates: int, k: int, sharpness: float) -> tuple[F8, I4, I4, F4]:
    """(n, 2) positions, (n,) floors, (n, k) rows of the most alike fingerprints, most alike first, and (n, k) their likenesses, of scans (n, a), dB above silence.

    Likeness: half the cosine of strengths, half Sorensen's of their squares, 2 sum(min(x, y)) / sum(x + y). Looked for among the `candidates` fingerprints with the largest cosine over the scan's
    `strongest` transmitters (all that are as strong as the last of them). Weights are exp(sharpness * likeness); the floor has the most, the position is the weighted mean of those on it."""
    n, n_transmitters = asked.shape
    known = len(lists.floor)
    xy, floor = np.zeros((n, 2)), np.zeros(n, np.int32)
    near, alike = np.zeros((n, k), np.int32), np.zeros((n, k), np.float32)
    dot, heard = np.zeros(known, np.float32), np.zeros(n_transmitters, np.uint32)
    best, best_dot = np.zeros(candidates, np.uint32), np.zeros(candidates, np.float32)
    loud, weight, storey = np.zeros(LOUDEST_DB, np.int32), np.zeros(k), np.zeros(k, np.int32)
    for i in range(n):
        dot[:] = 0
        loud[:] = 0
        count = 0
        square = np.float32(0.0)
        for a in range(n_transmitters):
            p = asked[i, a]
            if p > 0:
                heard[count] = a
                count += 1
                square += p * p
                loud[min(int(p), LOUDEST_DB - 1)] += 1
        least, many = LOUDEST_DB, 0
        while least > 0 and many < strongest:
            least -= 1
            many += loud[least]
        for j in range(count):
            a = heard[j]
            p = asked[i, a]
            if p >= least:
                for e in range(lists.first[a], lists.first[a + 1]):
                    dot[lists.row[e]] += p * lists.unit[e]
        worst, found = np.float32(-1.0), 0
        for m in range(known):
            d = dot[m]
            if d <= worst:
                continue
            q = found if found < candidates else candidates - 1
            found = min(found + 1, candidates)
            while q > 0 and best_dot[q - 1] < d:
                best[q], best_dot[q] = best[q - 1], best_dot[q - 1]
                q -= 1
            best[q], best_dot[q] = m, d
            if found == candidates:
                worst = best_dot[candidates - 1]
        length = max(np.sqrt(square), np.float32(1e-6))
        filled = 0
        for c in range(found):
            m = best[c]
            whole, least_sum = np.float32(0.0), np.float32(0.0)
            for e in range(lists.starts[m], lists.starts[m + 1]):
                p, s = asked[i, lists.which[e]], lists.strength[e]
                whole += p * s
                both = min(p, s)
                least_sum += both * both
            like = whole / (length * max(lists.length[m], np.float32(1e-6))) / 2 + least_sum / max(square + lists.square[m], np.float32(1e-6))
            if filled == k and like <= alike[i, k - 1]:
                continue
            q = filled if filled < k else k - 1
            filled = min(filled + 1, k)
            while q > 0 and alike[i, q - 1] < like:
                near[i, q], alike[i, q] = near[i, q - 1], alike[i, q - 1]
                q -= 1
            near[i, q], alike[i, q] = m, like
        one_floor = True
        for c in range(k):
            weight[c] = np.exp(sharpness * (alike[i, c] - alike[i, 0]))
            storey[c] = lists.floor[near[i, c]]
            one_floor &= storey[c] == storey[0]
        most = -1.0
        for c in range(1 if one_floor else k):
            votes = 0.0
            for b in range(k):
                if storey[b] == storey[c]:
                    votes += weight[b]
            if votes > most:
                most, floor[i] = votes, storey[c]
        for c in range(k):
            m = near[i, c]
            if storey[c] == floor[i]:
                xy[i, 0] += weight[c] * lists.xy_m[m, 0] / most
                xy[i, 1] += weight[c] * lists.xy_m[m, 1] / most
    return xy, floor, near, alike
