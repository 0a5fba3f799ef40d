"""Routes in a mall: our router against SciPy's Dijkstra on the same graph, one route and a matrix; and the drawn ways against the exact ones.

Peer: networkx is no dependency of ours, so the peer is `scipy.sparse.csgraph.dijkstra` (compiled) on the very graph our router holds, built beforehand.
ESPLANADE_DATA names the folder with the real mall `site2`; without it our own mall is used, and the JSON says so.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse.csgraph import dijkstra

from benchmarks.harness import compare
from spatial.importers.malls import read_site
from spatial.profiles import WALKING, WAYS, WHEELCHAIR, Profile
from spatial.routes import At, Points, Route
from spatial.routing import Router
from spatial.venue_files import load_venue
from tests.spatial.routing_oracle import ExactLevel, whole_graph

EXACT_PAIRS = 200
ON_ONE_LEVEL = Profile("on one level", rules=frozenset((way, "forbid") for way in WAYS))


def _router() -> Router:
    data = os.environ.get("ESPLANADE_DATA")
    if data:
        return Router.build(read_site(Path(data) / "malls" / "site2").venue)
    return Router.build(load_venue(Path("scenarios/venues/parkside_mall.json")))


def random_points(router: Router, rng: np.random.Generator, count: int) -> Points:
    """Points spread over the walkable ground of all levels by area."""
    share = np.array([ground.domain.area for ground in router._network.grounds])
    level = np.sort(rng.choice(len(share), count, p=share / share.sum()))
    xy = np.empty((count, 2))
    for i in np.unique(level):
        domain = router._network.grounds[i].inner
        x0, y0, x1, y1 = domain.bounds
        tried = rng.uniform((x0, y0), (x1, y1), (60 * int((level == i).sum()) + 200, 2))
        inside = tried[shapely.contains_xy(domain, tried[:, 0], tried[:, 1])]
        xy[level == i] = inside[: (level == i).sum()]
    return Points(level.astype(np.int64), xy[:, 0], xy[:, 1])


def _drawn(router: Router, rng: np.random.Generator) -> dict[str, object]:
    """The drawn way between random points of one level, against the exact shortest path on that level."""
    ratios, inside = [], 0
    for level, plan in enumerate(router.plans):
        exact = ExactLevel.of(plan)
        slack = exact.walkable.buffer(1e-6)
        shapely.prepare(slack)
        points = router._network.grounds[level].inner
        x0, y0, x1, y1 = points.bounds
        tried = rng.uniform((x0, y0), (x1, y1), (20_000, 2))
        xy = tried[shapely.contains_xy(points, tried[:, 0], tried[:, 1])]
        for k in range(EXACT_PAIRS // len(router.plans)):
            a, b = xy[2 * k], xy[2 * k + 1]
            route = router.route(At(level, *a), At(level, *b), by="shortest", profile=ON_ONE_LEVEL)
            if not isinstance(route, Route):
                raise AssertionError(f"level {level}: no way from {a} to {b}: {route.message}")
            ratios.append(route.length_m / exact.length(a, b))
            inside += bool(slack.covers(shapely.LineString(route.walks[0].points)))
    found = np.array(ratios)
    return {
        "pairs": len(found), "inside": inside, "worst_ratio": round(float(found.max()), 5), "mean_ratio": round(float(found.mean()), 6),
        "best_ratio": round(float(found.min()), 6),
    }  # fmt: skip


def run(*, n: int = 1000, repeats: int = 5) -> None:
    rng = np.random.default_rng(11)
    began = time.perf_counter()
    router = _router()
    built_s = time.perf_counter() - began
    places = [place for place in (unit.id for unit in router.venue.units) if router.access(place)]
    pairs = rng.choice(places, (2000, 2))
    graph, nodes, _ = whole_graph(router, WHEELCHAIR, "fastest")
    start_of = {place: int(nodes[router.access(place)[0].level][0]) for place in places}

    waits: list[npt.NDArray[np.float64]] = []

    def ours() -> float:
        took = np.empty((2, len(pairs)))
        for k, (a, b) in enumerate(pairs):
            at, busy = time.perf_counter(), time.process_time()
            router.route(str(a), str(b), profile=WHEELCHAIR)
            took[:, k] = time.perf_counter() - at, time.process_time() - busy
        waits.append(took * 1e3)
        return float(np.median(took[0]) * 1e3)

    def peer() -> float:
        took = np.empty(100)
        for k in range(len(took)):
            at = time.perf_counter()
            dijkstra(graph, directed=True, indices=[start_of[str(pairs[k, 0])]])
            took[k] = time.perf_counter() - at
        return float(np.median(took) * 1e3)

    single = compare("routing", n=len(pairs), ours=ours, peer=peer, unit="ms", higher_is_better=False, repeats=repeats)
    sources, targets = random_points(router, rng, n), random_points(router, rng, n)
    walk_graph, walk_nodes, _ = whole_graph(router, WALKING, "fastest")
    starts = np.array([walk_nodes[level][k % len(walk_nodes[level])] for k, level in enumerate(sources.level)])

    def ours_matrix() -> float:
        at = time.perf_counter()
        router.matrix(sources, targets)
        return time.perf_counter() - at

    def peer_matrix() -> float:
        at = time.perf_counter()
        dijkstra(walk_graph, directed=True, indices=starts)
        return time.perf_counter() - at

    table = compare("routing_matrix", n=n, ours=ours_matrix, peer=peer_matrix, unit="s", higher_is_better=False, repeats=repeats)
    every = np.concatenate(waits[1:], axis=1)
    print(
        json.dumps(
            single
            | {
                "venue": router.venue.id, "build_s": round(built_s, 2),  "p99_ms": round(float(np.percentile(every[0], 99)), 3), "p99_processor_ms": round(float(np.percentile(every[1], 99)), 3),
                "p50_ms": round(float(np.median(every[0])), 3), "matrix_s": table["ours"], "matrix_peer_s": table["peer"],
                "drawn": _drawn(router, rng),
            }
        )
    )  # fmt: skip
