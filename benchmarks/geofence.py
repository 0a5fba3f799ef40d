"""Enters and exits of 200,000 walking people among 1,000 zones: FenceWatch against Shapely's bulk STRtree query and set difference, one core.

200,000 people walk 0.13 m a step among 1,000 zones of 8-64 vertices, a fifth with holes, at 1,000 zones a square kilometre; at every step a hundredth of them
stand exactly on a vertex or the middle of an edge. Shapely finds the zones that cover each person (`covers`) and the difference of the (person, zone) pairs to the
last step's. Three comparisons: bare (every enter and exit must be Shapely's, at every step), with margins, confirming, dwelling, averaging and confidence, and
bare again at 100,000 zones (`zones_100k`; the same work a square metre). `--n` sets the people.
"""

from __future__ import annotations

import json
import time

import numpy as np
import numpy.typing as npt
import shapely

from benchmarks.harness import compare
from spatial.fence_watch import ENTER, EXIT, FenceRule, FenceWatch

ZONES_A_KM2 = 1000
STEPS = 5
FULL = FenceRule(margin_m=2.0, confirm_s=0.5, dwell_s=30.0)


def _zones(rng: np.random.Generator, count: int, side_m: float) -> list[shapely.Polygon]:
    zones: list[shapely.Polygon] = []
    while len(zones) < count:
        centre = rng.uniform(20, side_m - 20, 2)
        vertices = int(rng.integers(8, 65))
        angle = np.sort(rng.uniform(0, 2 * np.pi, vertices))
        radius = rng.uniform(6, 18, vertices)
        # Corners that a float32 holds, so that a person can stand exactly on one.
        shell = np.round((centre + np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, None]) * 64) / 64
        holes = [centre.round() + np.array([(-1.5, -1.5), (1.5, -1.5), (1.5, 1.5), (-1.5, 1.5)])] if len(zones) % 5 == 0 else []
        zone = shapely.Polygon(shell, holes)
        if zone.is_valid:
            zones.append(zone)
    return zones


def _rings(zone: shapely.Polygon) -> tuple[tuple[tuple[tuple[float, float], ...], ...], ...]:
    rings = [zone.exterior, *zone.interiors]
    return (tuple(tuple((float(x), float(y)) for x, y in ring.coords[:-1]) for ring in rings),)


class _Walk:
    """The same positions for both: step k of everyone, a hundredth of them on vertices and in the middle of edges."""

    def __init__(self, rng: np.random.Generator, zones: list[shapely.Polygon], n: int, side_m: float) -> None:
        self._start = rng.uniform(0, side_m, (n, 2))
        heading = rng.uniform(0, 2 * np.pi, n)
        self._stride = np.column_stack([np.cos(heading), np.sin(heading)]) * 0.13
        corner = np.concatenate([shapely.get_coordinates(zone)[:2] for zone in zones])
        middle = np.concatenate([shapely.get_coordinates(zone)[:2].mean(axis=0, keepdims=True) for zone in zones])
        self._border = np.concatenate([corner, middle])
        self._rng_seed = int(rng.integers(2**31))

    def at(self, k: int) -> npt.NDArray[np.float64]:
        rng = np.random.default_rng([self._rng_seed, k])
        place = (self._start + k * self._stride).astype(np.float32).astype(np.float64)
        few = rng.choice(len(place), len(place) // 100, replace=False)
        place[few] = self._border[rng.integers(0, len(self._border), len(few))]
        return place


def run(*, n: int = 200_000, repeats: int = 5, zones: int = 1000) -> None:
    more: dict[str, object] = {}
    bare = _compare("geofence", n=n, repeats=repeats, zones=zones, rule=None)
    more["full"] = _compare("geofence_full", n=n, repeats=repeats, zones=zones, rule=FULL)
    many = _compare("geofence_100k", n=n, repeats=repeats, zones=100 * zones, rule=None)
    more["zones_100k"] = many
    a, b = float(str(bare["ours"])), float(str(many["ours"]))
    print(json.dumps(bare | more | {"slower_at_100k": round(a / b, 2)}))


def _compare(name: str, *, n: int, repeats: int, zones: int, rule: FenceRule | None) -> dict[str, object]:
    rng = np.random.default_rng(7)
    side = float(np.sqrt(zones / ZONES_A_KM2)) * 1000.0
    shapes = _zones(rng, zones, side)
    walk = _Walk(rng, shapes, n, side)
    began = time.perf_counter()
    polygons = [(0, _rings(zone)) for zone in shapes]
    watch = FenceWatch(1, n, polygons, rules=rule, steady_s=0.0 if rule is None else 2.0)
    built_s = time.perf_counter() - began
    tree = shapely.STRtree(shapes)
    level, person = np.zeros(n, np.uint8), np.arange(n)
    cov = None if rule is None else np.tile([4.0, 0.5, 3.0], (n, 1))
    step = {"ours": 0, "peer": 0}
    found: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = {}
    events_seen = 0

    def pairs(p: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        who, zone = tree.query(shapely.points(p), predicate="covered_by")
        return np.sort(who.astype(np.int64) * zones + zone)

    first = walk.at(0)
    watch.step(0.0, person, level, first[:, 0], first[:, 1], cov_m2=cov)
    before = pairs(first)

    def ours() -> float:
        nonlocal events_seen
        took = 0.0
        for _ in range(STEPS):
            step["ours"] += 1
            p = walk.at(step["ours"])
            x, y = np.ascontiguousarray(p[:, 0]), np.ascontiguousarray(p[:, 1])
            began = time.perf_counter()
            events = watch.step(step["ours"] * 0.1, person, level, x, y, cov_m2=cov)
            took += time.perf_counter() - began
            events_seen += len(events)
            key = events.person * zones + events.fence
            found[step["ours"]] = key[events.kind == ENTER], key[events.kind == EXIT]
        return STEPS * n / took

    def peer() -> float:
        nonlocal before
        took = 0.0
        for _ in range(STEPS):
            step["peer"] += 1
            p = walk.at(step["peer"])
            began = time.perf_counter()
            now = pairs(p)
            entered, left = np.setdiff1d(now, before, assume_unique=True), np.setdiff1d(before, now, assume_unique=True)
            took += time.perf_counter() - began
            before = now
            mine = found.pop(step["peer"])
            if rule is None and not (np.array_equal(entered, mine[0]) and np.array_equal(left, mine[1])):
                raise AssertionError(
                    f"step {step['peer']}: ours {len(mine[0])} enters, {len(mine[1])} exits; Shapely {len(entered)}, {len(left)}, or others"
                )
        return STEPS * n / took

    result = compare(name, n=n, ours=ours, peer=peer, unit="updates/s", higher_is_better=True, repeats=repeats)
    return result | {"zones": zones, "build_s": round(built_s, 2), "events": events_seen}
