"""Fixes a second from Wi-Fi fingerprints in batches: our weighted neighbours against a k-nearest-neighbour search by SciPy's cdist (brute force, Euclidean), one core or as many as BLAS takes.

4,000 fingerprints and n queries over 1,500 transmitters, 50 heard in each, made with a seed. scikit-learn is not among this project's packages; its brute-force KNeighborsRegressor does this
same search. The peer's positions are checked: both answers lie, in the median, within 10 m of the truth.
"""

from __future__ import annotations

import time

import numpy as np
from scipy.spatial.distance import cdist

from benchmarks.harness import compare
from spatial.positioning.fingerprints import Fingerprints, NearestFingerprints

SIDE_M = 200.0
KNOWN, TRANSMITTERS = 4000, 1500


def _made(rng: np.random.Generator, places: np.ndarray, n: int) -> Fingerprints:
    at = rng.uniform(0, SIDE_M, (n, 2))
    far = np.sqrt(((at[:, None, :] - places[None]) ** 2).sum(axis=2) + 4)
    rssi = -30 - 30 * np.log10(far) + rng.normal(0, 4, far.shape)
    nobody = np.zeros(n, np.int32)
    return Fingerprints(np.clip(rssi + 85, 0, 60).astype(np.float32), at, nobody, nobody, nobody, 0)


def run(*, n: int = 500, repeats: int = 5) -> None:
    rng = np.random.default_rng(7)
    places = rng.uniform(0, SIDE_M, (TRANSMITTERS, 2))
    known, asked = _made(rng, places, KNOWN), _made(rng, places, n)
    ours = NearestFingerprints.fit(known)

    def mine() -> float:
        begin = time.perf_counter()
        xy, _ = ours.locate(asked.strength)
        took = time.perf_counter() - begin
        assert np.median(np.hypot(*(xy - asked.xy_m).T)) < 10
        return n / took

    def theirs() -> float:
        begin = time.perf_counter()
        xy = np.empty((n, 2))
        for first in range(0, n, 256):
            d = cdist(asked.strength[first : first + 256], known.strength)
            near = np.argpartition(d, 11, axis=1)[:, :12]
            xy[first : first + 256] = known.xy_m[near].mean(axis=1)
        took = time.perf_counter() - begin
        assert np.median(np.hypot(*(xy - asked.xy_m).T)) < 10
        return n / took

    compare("positioning", n=n, ours=mine, peer=theirs, unit="fixes/s", higher_is_better=True, repeats=repeats)
