"""A scene against `pycrdt` (Yjs) on the same work: bytes on the wire and time to merge. Needs `pip install esplanade[bench]`.

Two tasks. *Properties*: 20 clients that know one scene set 1,000 properties each, all at once; everybody's operations are merged by one replica. *Moves*: one client
creates 10,000 nodes, then two clients move 10,000 of them at once, apart, and one of them merges the other's moves. The peer keeps a map a node (Yjs: a `Map` of the `nodes`
map; parent and order are properties of it, since Yjs has no move: two concurrent moves into each other leave a cycle there, here they do not).
Values are the same on both sides; the values of 1,000 properties are small integers and short texts. Bytes: what each client sends. Time (the processor's): reading
bytes, merging, and of the properties reading what won, since ours sorts that out only then; not making them. Both sides must end with the same values, ours by comparing digests.
"""

from __future__ import annotations

import importlib
import json
import random
import time
from collections.abc import Callable
from typing import Any

from ar.ordering import between
from ar.scene import Scene
from ar.scene_ops import Dot
from benchmarks.harness import compare
from esplanade.core.errors import NotFound

CLIENTS = 20
PROPERTIES = 1_000
NOW_MS = 1_700_000_000_000


def run(*, n: int = 10_000, repeats: int = 5) -> None:
    try:
        yjs = importlib.import_module("pycrdt")
    except ImportError as error:
        raise NotFound("benchmark scene: its peer pycrdt is not installed; pip install 'esplanade[bench]'") from error
    results = {"properties": _properties(yjs, repeats), "moves": _moves(yjs, n, repeats)}
    last = results["moves"]
    print(json.dumps(last | {"name": "scene", "properties": results["properties"]}))


def _against(name: str, n: int, ours: Callable[[], float], peer: Callable[[], float], repeats: int, mine: int, theirs: int) -> dict[str, object]:
    more: dict[str, object] = {"bytes_ours": mine, "bytes_peer": theirs, "bytes_ratio": round(mine / theirs, 3)}
    return compare(name, n=n, ours=ours, peer=peer, unit="s", higher_is_better=False, repeats=repeats, more=more)


def _values(chance: random.Random) -> list[tuple[str, int | str]]:
    return [(f"property-{i}", chance.randrange(256) if i % 2 else f"value {chance.randrange(10**6)}") for i in range(PROPERTIES)]


def _properties(yjs: Any, repeats: int) -> dict[str, object]:
    Doc, Map = yjs.Doc, yjs.Map
    chance = random.Random(1)
    base = Scene("base")
    node = base.create(now_ms=NOW_MS)
    begin = base.delta({})
    seen = base.ack().seen
    doc = Doc()
    doc["nodes"] = nodes = Map()
    nodes["1"] = Map()
    doc_begin = doc.get_update()
    sent: list[bytes] = []
    updates: list[bytes] = []
    for i in range(CLIENTS):
        values = _values(chance)
        replica = Scene(f"client-{i}")
        replica.merge(begin, now_ms=NOW_MS)
        for at, (key, value) in enumerate(values):
            replica.set(node, key, value, now_ms=NOW_MS + at)
        sent.append(replica.delta(seen))
        other = Doc()
        other.apply_update(doc_begin)
        before = other.get_state()
        held = other.get("nodes", type=Map)["1"]
        for key, value in values:
            held[key] = value
        updates.append(other.get_update(before))
    ended: dict[str, object] = {}

    def ours() -> float:
        scene = Scene("server")
        scene.merge(begin, now_ms=NOW_MS)
        began = time.thread_time()
        for data in sent:
            scene.merge(data, now_ms=NOW_MS)
        scene.properties(node)
        took = time.thread_time() - began
        ended["ours"] = scene
        return took

    def peer() -> float:
        doc = Doc()
        doc.apply_update(doc_begin)
        began = time.thread_time()
        for data in updates:
            doc.apply_update(data)
        doc.get("nodes", type=Map)["1"].to_py()
        return time.thread_time() - began

    result = _against("scene_properties", CLIENTS * PROPERTIES, ours, peer, repeats, sum(map(len, sent)), sum(map(len, updates)))
    scene = ended["ours"]
    if not isinstance(scene, Scene) or len(scene.properties(node)) != PROPERTIES:
        raise AssertionError("a property was lost")
    return result


def _moves(yjs: Any, n: int, repeats: int) -> dict[str, object]:
    Doc, Map = yjs.Doc, yjs.Map
    chance = random.Random(2)
    a, b = Scene("a"), Scene("b")
    doc = Doc()
    doc["nodes"] = table = Map()
    dots: list[Dot] = []
    order = b""
    for i in range(n):
        dots.append(a.create(now_ms=NOW_MS))
        order = between(order, None, i % 256)
        table[str(i)] = Map({"parent": "", "order": order})
    created, created_peer = a.delta({}), doc.get_update()
    b.merge(created, now_ms=NOW_MS)
    seen = dict(a.ack().seen)
    others = (Doc(), Doc())
    for other in others:
        other.apply_update(created_peer)
    states = [other.get_state() for other in others]
    for scene, other in ((a, others[0]), (b, others[1])):
        nodes = other.get("nodes", type=Map)
        moved = chance.sample(range(n), n // 2)
        for at, i in enumerate(moved):
            parent = chance.randrange(n)
            if parent == i or scene.within(dots[parent], dots[i]):
                parent = (i + 1) % n
                if scene.within(dots[parent], dots[i]):
                    continue
            scene.move(dots[i], dots[parent], now_ms=NOW_MS + at)
            held = nodes[str(i)]
            with other.transaction():
                held["parent"] = str(parent)
                held["order"] = order
    moves, moves_peer = b.delta(seen), others[1].get_update(states[1])
    own, own_peer = a.delta(seen), others[0].get_update(states[0])
    ended: dict[str, Scene] = {}

    def ours() -> float:
        scene = Scene("server")
        began = time.thread_time()
        for data in (created, own, moves):
            scene.merge(data, now_ms=NOW_MS)
        took = time.thread_time() - began
        ended["ours"] = scene
        return took

    def peer() -> float:
        doc = Doc()
        began = time.thread_time()
        for data in (created_peer, own_peer, moves_peer):
            doc.apply_update(data)
        return time.thread_time() - began

    mine, theirs = len(created) + len(own) + len(moves), len(created_peer) + len(own_peer) + len(moves_peer)
    result = _against("scene_moves", n, ours, peer, repeats, mine, theirs)
    b.merge(own, now_ms=NOW_MS)
    if ended["ours"].digest() != b.digest():
        raise AssertionError("two replicas with the same operations differ")
    return result
