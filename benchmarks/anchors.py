"""A million anchors of a venue: what is near (20 m, 20 nearest), one question at a time and in batches against an R-tree, and 200 resolved in one call.

Four levels of 500 by 500 m, anchors spread evenly. Batches are 2,000 questions. The peer is `rtree` (libspatialindex, packed in bulk, its vectorised
`nearest_v`) with the level as a third coordinate far apart, asked for the 20 nearest; ours also filters by who asks, by expiry and by radius. Both must find the
same distances. The single questions and resolves are timed in process, as the shard's turn does them, answers made; between them 1 in 10 changes an anchor.

`gateway`: as many anchors at the same density, hosted in a shard, a thousand in a command; a client asks over its WebSocket what is near, one question after another, 1 in 10 of them after it has hosted an anchor anew;
then for 200 by their ids. Client, gateway and shard are one process on one core, and the journal is in memory: what the code takes, without a network or a disk.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rtree.index

from actors.messages import HostAnchors
from ar.anchor_records import EVERYTHING, Anchor, Seeker
from ar.anchors import AnchorBook
from benchmarks.harness import compare
from esplanade.core.ids import Address
from spatial.index import Hits
from tests.gateway.mall import VENUE, running_mall

LEVELS: Final = 4
SIDE_M: Final = 500.0
RADIUS_M: Final = 20.0
NEAREST: Final = 20
BATCH: Final = 2_000
SINGLES: Final = 20_000
RESOLVES: Final = 1_000
RESOLVED: Final = 200
APART_M: Final = 1e6
NOW_MS: Final = 1_700_000_000_000
HOSTED_LEVELS: Final = 2
"""Of the venue that the gateway serves."""
HOSTED_AT_ONCE: Final = 1_000
HOSTING_S: Final = 60.0
GATEWAY_QUESTIONS: Final = 2_000
GATEWAY_RESOLVES: Final = 500
PACE_S: Final = 0.01
"""Between two questions through the gateway, which takes 200 frames a second of a connection."""
GATEWAY_WARM: Final = 200


def _percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{p:g}_ms": round(float(np.percentile(seconds, p)) * 1e3, 3) for p in (50, 99, 99.9)}


def run(*, n: int = 1_000_000, repeats: int = 5) -> None:
    rng = np.random.default_rng(8)
    level = rng.integers(0, LEVELS, n)
    xy = rng.uniform(0, SIDE_M, (n, 2))
    began = time.perf_counter()
    book = AnchorBook()
    rows = list(zip(range(n), level.tolist(), xy.tolist(), strict=True))
    for begin in range(0, n, HOSTED_AT_ONCE):
        book.put_all([Anchor(i.to_bytes(16, "big"), at, (x, y, 1.5)) for i, at, (x, y) in rows[begin : begin + HOSTED_AT_ONCE]], begin % 5000)
    hosted_s = time.perf_counter() - began
    began = time.perf_counter()
    data = book.save()
    saved_s = time.perf_counter() - began
    began = time.perf_counter()
    book = AnchorBook.load(data)
    loaded_s = time.perf_counter() - began

    boxes = np.column_stack([xy, level * APART_M, xy, level * APART_M])
    properties = rtree.index.Property(dimension=3)
    tree: Any = rtree.index.Index((np.arange(n), boxes[:, :3], boxes[:, 3:]), properties=properties)

    asked_level = rng.integers(0, LEVELS, BATCH).astype(np.int32)
    asked = rng.uniform(RADIUS_M, SIDE_M - RADIUS_M, (BATCH, 2))
    ax, ay = np.ascontiguousarray(asked[:, 0]), np.ascontiguousarray(asked[:, 1])
    corner = np.column_stack([asked, asked_level * APART_M])
    seeker = Seeker(1)
    answers: dict[str, Hits] = {}
    replies: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = {}

    def ours() -> float:
        began = time.perf_counter()
        answers["near"] = book.near(asked_level, ax, ay, RADIUS_M, NEAREST, seeker, NOW_MS)
        return BATCH / (time.perf_counter() - began)

    def peer() -> float:
        began = time.perf_counter()
        ids, counts = tree.nearest_v(corner, corner, num_results=NEAREST)
        rate = BATCH / (time.perf_counter() - began)
        replies["near"] = np.asarray(ids, np.int64), np.asarray(counts, np.int64)
        return rate

    # the comparison prints its own line; the last line of all is the whole
    result = compare("anchors", n=n, ours=ours, peer=peer, unit="questions/s", higher_is_better=True, repeats=repeats)
    hits, (ids, counts) = answers["near"], replies["near"]
    first = np.concatenate([[0], np.cumsum(counts)])
    for q in range(BATCH):
        theirs = ids[first[q] : first[q + 1]]
        far = np.sort(np.hypot(xy[theirs, 0] - ax[q], xy[theirs, 1] - ay[q]))[:NEAREST]
        mine = hits.distance_m[hits.offset[q] : hits.offset[q + 1]]
        if not np.allclose(mine, far[far <= RADIUS_M], atol=1e-9, rtol=0):
            raise AssertionError(f"question {q}: ours at {mine.tolist()}, the R-tree's at {far.tolist()}")

    one, changes, resolved = [], [], []
    for i in range(SINGLES):
        x, y, at = float(rng.uniform(0, SIDE_M)), float(rng.uniform(0, SIDE_M)), int(rng.integers(LEVELS))
        if i % 10 == 0:
            row = int(rng.integers(n))
            began = time.perf_counter()
            book.put(Anchor(row.to_bytes(16, "big"), at, (x, y, 1.5)), row % 5000)
            changes.append(time.perf_counter() - began)
        began = time.perf_counter()
        found = book.near_one(at, x, y, RADIUS_M, NEAREST, seeker, NOW_MS)
        one.append(time.perf_counter() - began)
        if len(found) != NEAREST:
            raise AssertionError(f"{len(found)} anchors near ({x:.1f}, {y:.1f}); there are some 1,250 within {RADIUS_M:g} m")
    for _ in range(RESOLVES):
        wanted = [int(i).to_bytes(16, "big") for i in rng.integers(0, n, RESOLVED)]
        began = time.perf_counter()
        if len(book.resolve(wanted, EVERYTHING, NOW_MS)) != RESOLVED:
            raise AssertionError("an anchor that is there was not resolved")
        resolved.append(time.perf_counter() - began)
    more: dict[str, object] = {
        "near_one": _percentiles(one), "change": _percentiles(changes), "resolve_200": _percentiles(resolved),
        "hosted_a_s": round(n / hosted_s), "save_s": round(saved_s, 2), "load_s": round(loaded_s, 2), "saved_mb": round(len(data) / 1e6, 1),
    }  # fmt: skip
    print(json.dumps(result | more | {"gateway": asyncio.run(_through_a_gateway(n, rng))}))


async def _through_a_gateway(n: int, rng: np.random.Generator) -> dict[str, object]:
    """Milliseconds from a client's question to its answer, by what it asked, by the clock and (`cpu_...`) by the processor, which is what an idle machine would take; anchors hosted a second."""
    side_m = float(np.sqrt(n / HOSTED_LEVELS * LEVELS * SIDE_M**2 / 1_000_000))
    level, xy = rng.integers(0, HOSTED_LEVELS, n), rng.uniform(0, side_m, (n, 2))
    took: dict[str, list[float]] = {name: [] for what in ("near", "host", "resolve_200") for name in (what, f"cpu_{what}")}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        began, began_cpu = time.perf_counter(), time.process_time()
        yield
        took[what].append(time.perf_counter() - began)
        took[f"cpu_{what}"].append(time.process_time() - began_cpu)

    async with running_mall(shards=1) as mall:
        _, url = await mall.gateway()
        client = await mall.client(url, 1, "operator")
        now_ms = mall.clock.unix_ms()
        began = time.perf_counter()
        for first in range(0, n, HOSTED_AT_ONCE):
            rows = range(first, min(n, first + HOSTED_AT_ONCE))
            anchors = tuple(Anchor(i.to_bytes(16, "big"), int(level[i]), (float(xy[i, 0]), float(xy[i, 1]), 1.5)) for i in rows)
            hosting = HostAnchors(anchors=anchors, owner=1, now_ms=now_ms)
            await mall.system.ask(Address("anchors", "demo", VENUE), hosting, deadline_s=HOSTING_S)
        hosted_s = time.perf_counter() - began
        for i in range(GATEWAY_QUESTIONS + GATEWAY_WARM):
            if i % 10 == 0:
                row = int(rng.integers(n))
                anchor = {"id": row.to_bytes(16, "big"), "level": int(level[row]), "position_m": [*rng.uniform(0, side_m, 2).tolist(), 1.5]}
                with timed("host"):
                    await client.host_anchor(VENUE, anchor)
            x, y = rng.uniform(RADIUS_M, side_m - RADIUS_M, 2).tolist()
            with timed("near"):
                found = await client.anchors_near(VENUE, int(rng.integers(HOSTED_LEVELS)), x, y, radius_m=RADIUS_M, k=NEAREST)
            if len(found) != NEAREST:
                raise AssertionError(f"{len(found)} anchors near ({x:.1f}, {y:.1f}) through the gateway; there are some 1,250 within {RADIUS_M:g} m")
            await asyncio.sleep(PACE_S)
        for _ in range(GATEWAY_RESOLVES):
            wanted = [int(i).to_bytes(16, "big") for i in rng.integers(0, n, RESOLVED)]
            with timed("resolve_200"):
                there = await client.resolve_anchors(VENUE, wanted)
            if len(there) != RESOLVED:
                raise AssertionError("an anchor that is there was not resolved through the gateway")
            await asyncio.sleep(PACE_S)
    for what in ("near", "cpu_near"):
        del took[what][:GATEWAY_WARM]
    return {"n": n, "hosted_a_s": round(n / hosted_s)} | {what: _percentiles(seconds) for what, seconds in took.items()}
