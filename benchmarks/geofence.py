"""Exact membership of walking people in zones, diffed a step: FenceSet against Shapely's bulk STRtree query, one core.

200,000 people walk 0.13 m a step among 1,000 zones of 8-64 vertices, a fifth with holes, on one level. Both find the zones that cover each
person (`covers`) and the set of (person, zone) pairs entered and left since the last step; both answers are compared at every step.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import shapely

from benchmarks.harness import compare
from spatial.geofence import FenceSet

SIDE_M = 1000.0


def _zones(rng: np.random.Generator, count: int) -> list[shapely.Polygon]:
    zones = []
    for i in range(count):
        centre = rng.uniform(20, SIDE_M - 20, 2)
        vertices = int(rng.integers(8, 65))
        angle = np.sort(rng.uniform(0, 2 * np.pi, vertices))
        radius = rng.uniform(6, 18, vertices)
        shell = centre + np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, None]
        holes = [centre + np.array([(-1.5, -1.5), (1.5, -1.5), (1.5, 1.5), (-1.5, 1.5)])] if i % 5 == 0 else []
        zone = shapely.Polygon(shell, holes)
        zones.append(zone if zone.is_valid else shapely.Polygon(shell))
    return [zone for zone in zones if zone.is_valid]


def _rings(zone: shapely.Polygon) -> tuple[tuple[tuple[tuple[float, float], ...], ...], ...]:
    rings = [zone.exterior, *zone.interiors]
    return (tuple(tuple((float(x), float(y)) for x, y in ring.coords[:-1]) for ring in rings),)


def run(*, n: int = 200_000, repeats: int = 5, zones: int = 1000) -> None:
    rng = np.random.default_rng(7)
    shapes = _zones(rng, zones)
    fences = FenceSet.build(1, [(0, _rings(zone)) for zone in shapes], [])
    tree = shapely.STRtree(shapes)
    level = np.zeros(n, np.uint8)
    at = rng.uniform(0, SIDE_M, (n, 2)).astype(np.float32)
    heading = rng.uniform(0, 2 * np.pi, n)
    stride = np.column_stack([np.cos(heading), np.sin(heading)]).astype(np.float32) * np.float32(0.13)
    count = len(shapes)

    def pairs_ours(p: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        found = fences.locate(level, np.ascontiguousarray(p[:, 0]), np.ascontiguousarray(p[:, 1]))
        rows, slots = np.nonzero(found >= 0)
        return rows * count + found[rows, slots]

    def pairs_peer(p: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        person, zone = tree.query(shapely.points(p.astype(np.float64)), predicate="covered_by")
        return np.sort(person.astype(np.int64) * count + zone)

    def timed(find: object, start: npt.NDArray[np.float32]) -> tuple[float, list[int]]:
        before = find(start)  # type: ignore[operator]
        began = time.perf_counter()
        changes: list[int] = []
        p = start
        for _ in range(3):
            p = p + stride
            now = find(p)  # type: ignore[operator]
            changes += [len(np.setdiff1d(now, before, assume_unique=True)), len(np.setdiff1d(before, now, assume_unique=True))]
            before = now
        return 3 * n / (time.perf_counter() - began), changes

    answers: dict[str, list[int]] = {}

    def ours() -> float:
        rate, answers["ours"] = timed(pairs_ours, at)
        return rate

    def peer() -> float:
        rate, answers["peer"] = timed(pairs_peer, at)
        if answers["peer"] != answers["ours"]:
            raise AssertionError(f"enter and exit counts differ: ours {answers['ours']}, Shapely {answers['peer']}")
        return rate

    compare("geofence", n=n, ours=ours, peer=peer, unit="updates/s", higher_is_better=True, repeats=repeats, more={"zones": count})
