"""Fixes a second from Wi-Fi fingerprints in batches: our weighted neighbours against scikit-learn's brute-force KNeighborsRegressor on the same fingerprints, both on all cores.

4,000 fingerprints and n scans over 1,500 transmitters, some 50 heard in each, made with a seed. Both answers are checked: in the median within 10 m of the truth. scikit-learn is not among this
project's packages: `pip install scikit-learn`; without it SciPy's cdist does the same search and the result says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist

from benchmarks.harness import compare
from spatial.positioning.fingerprints import Fingerprints, NearestFingerprints

SIDE_M = 200.0
KNOWN, TRANSMITTERS, NEIGHBOURS = 4000, 1500, 12


def _made(rng: np.random.Generator, places: np.ndarray, n: int) -> Fingerprints:
    at = rng.uniform(0, SIDE_M, (n, 2))
    far = np.sqrt(((at[:, None, :] - places[None]) ** 2).sum(axis=2) + 4)
    rssi = -30 - 40 * np.log10(far) + rng.normal(0, 4, far.shape)
    nobody = np.zeros(n, np.int32)
    return Fingerprints(np.clip(rssi + 85, 0, 60).astype(np.float32), at, nobody, nobody, nobody, 0)


def run(*, n: int = 4000, repeats: int = 5) -> None:
    rng = np.random.default_rng(7)
    places = rng.uniform(0, SIDE_M, (TRANSMITTERS, 2))
    known, asked = _made(rng, places, KNOWN), _made(rng, places, n)
    ours = NearestFingerprints.fit(known)

    def mine() -> float:
        begin = time.perf_counter()
        xy, _ = ours.locate(asked.strength, threads=os.cpu_count() or 1)
        took = time.perf_counter() - begin
        assert np.median(np.hypot(*(xy - asked.xy_m).T)) < 10
        return n / took

    peer_name, search = _peer(known)

    def theirs() -> float:
        begin = time.perf_counter()
        xy = search(asked.strength)
        took = time.perf_counter() - begin
        assert np.median(np.hypot(*(xy - asked.xy_m).T)) < 10
        return n / took

    heard = float((asked.strength > 0).sum(axis=1).mean())
    compare(
        "positioning", n=n, ours=mine, peer=theirs, unit="fixes/s", higher_is_better=True, repeats=repeats,
        more={"peer_name": peer_name, "heard_a_scan": round(heard, 1)},
    )  # fmt: skip


def _peer(known: Fingerprints) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    try:
        from sklearn.neighbors import KNeighborsRegressor
    except ImportError:

        def search(asked: np.ndarray) -> np.ndarray:
            xy = np.empty((len(asked), 2))
            for first in range(0, len(asked), 256):
                d = cdist(asked[first : first + 256], known.strength)
                xy[first : first + 256] = known.xy_m[np.argpartition(d, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]].mean(axis=1)
            return xy

        return "SciPy cdist", search
    regressor = KNeighborsRegressor(NEIGHBOURS, weights="distance", algorithm="brute", n_jobs=-1).fit(known.strength, known.xy_m)
    return "scikit-learn KNeighborsRegressor", regressor.predict
