"""Scenes for the console's reader: operations as the server writes them, and what `ar.scene` shows of them. `python -m tests.ar.make_console_scenes` writes console/test/scenes.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ar.scene import Scene
from ar.scene_ops import ROOT, Dot
from tests.ar.schedules import START_MS, run, run_star

FILE = Path(__file__).parents[2] / "console" / "test" / "scenes.json"
SCHEDULES = 30


def cases() -> list[dict[str, Any]]:
    """Random schedules of clients apart, one scene with every kind of value, and one whose deleted nodes are forgotten while it is watched."""
    found = []
    for seed in range(SCHEDULES):
        scene = run(seed)[0]
        found.append(_case(f"schedule {seed}", [scene.delta({})], scene))
    scene = _values()
    found.append(_case("values", [scene.delta({})], scene))
    scene = Scene("server")
    gone, left = scene.create(now_ms=START_MS), scene.create(now_ms=START_MS)
    scene.set(gone, "name", "gone", now_ms=START_MS)
    scene.delete(gone, now_ms=START_MS + 1)
    before, seen = scene.delta({}), dict(scene.ack().seen)
    assert scene.collect({"server": scene.ack()}, now_ms=START_MS + 2) == 1
    scene.set(left, "name", "left", now_ms=START_MS + 3)
    found.append(_case("forgotten", [before, scene.delta(seen)], scene))
    for seed in range(5):
        server = run_star(seed).scenes[0]
        snapshot, seen = server.snapshot(), dict(server.ack().seen)
        phone = Scene.load("1:phone", snapshot)
        phone.set(phone.create(now_ms=START_MS + 10**7), "name", "late", now_ms=START_MS + 10**7)
        server.merge(phone.delta(seen), now_ms=START_MS + 10**7)
        found.append(_case(f"snapshot {seed}", [phone.delta(seen)], server) | {"snapshot": snapshot.hex()})
    return found


def _values() -> Scene:
    """Names that UTF-16 orders otherwise than code points do, and every kind of value that JSON can hold too."""
    scene, other = Scene("\ue000"), Scene("\U0001f600")
    node = scene.create(now_ms=START_MS)
    scene.set(node, "name", "Lantern \U0001f3ee", now_ms=START_MS)
    scene.set(node, "translation", [12.5, 7.25, 1.5], now_ms=START_MS)
    scene.set(node, "rotation", [0.0, 0.0, 0.6, 0.8], now_ms=START_MS)
    scene.set(node, "editors", [7, 9], now_ms=START_MS)
    scene.set(node, "light", {"colour": "warm", "on": True, "lumen": 800}, now_ms=START_MS)
    scene.set(node, "gone", None, now_ms=START_MS)
    other.merge(scene.delta({}), now_ms=START_MS)
    scene.set(node, "mesh", 300, now_ms=START_MS)
    other.set(node, "mesh", 2, now_ms=START_MS)
    other.create(node, now_ms=START_MS + 1)
    scene.create(node, now_ms=START_MS + 1)
    other.merge(scene.delta(other.ack().seen), now_ms=START_MS + 2)
    return other


def _case(name: str, batches: list[bytes], scene: Scene) -> dict[str, Any]:
    nodes = list(scene.nodes())
    return {
        "name": name,
        "batches": [ops.hex() for ops in batches],
        "seen": dict(sorted(scene.ack().seen.items())),
        "children": {_text(node): [_text(child) for child in scene.children(node)] for node in (ROOT, *nodes) if scene.children(node)},
        "properties": {_text(node): scene.properties(node) for node in nodes if scene.properties(node)},
        "conflicts": [[_text(one.node), one.what, one.client, str(one.stamp), _value(one.what, one.value)] for one in scene.conflicts()],
    }


def _value(what: str, value: Any) -> Any:
    return _text(Dot(*value)) if what == "move" else value


def _text(dot: Dot) -> str:
    return f"{dot.client}\0{dot.seq}"


def written() -> str:
    return json.dumps(cases(), ensure_ascii=True, separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n"


if __name__ == "__main__":
    FILE.write_text(written())
