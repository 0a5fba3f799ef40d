"""A scene as glTF 2.0 and back: nodes, their transforms and names; meshes stay in the assets that nodes refer to.

Owns the translation of the node tree (glTF 2.0, clauses 3.5 and 4.4.1, GLB container clause 4.4). Properties of a node: `name`, `translation`, `rotation` (unit quaternion
x, y, z, w), `scale`; `asset` (SHA-256 of a glTF file, hexadecimal) with `mesh` (index of a mesh in it). In glTF these two and every other property stand in the node's
`extras`, and come back from there. glTF is y up, a venue is z up: the turn stands in a root node of its own, so that no node's numbers change; one that turns back
stands above the nodes of others' files.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, Final

from ar.scene import Scene
from ar.scene_ops import ROOT, Dot
from esplanade.core.errors import InvalidInput, LimitExceeded

MAX_GLTF_NODES: Final = 100_000
MAX_GLTF_BYTES: Final = 64 * 1024 * 1024
_MAGIC: Final = b"glTF"
_JSON_CHUNK: Final = 0x4E4F534A
_TRANSFORM: Final = {"translation": 3, "rotation": 4, "scale": 3}
_Z_UP: Final = [-math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)]
"""Turns z up into y up: a quarter about x."""
_Z_UP_NAME: Final = "esplanade: z up"
_Y_UP: Final = [math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)]
"""Turns y up into z up."""
_Y_UP_NAME: Final = "glTF: y up"


def export_gltf(scene: Scene) -> bytes:
    """The scene as shown, as the JSON of a .gltf file. Raises LimitExceeded above MAX_GLTF_NODES, InvalidInput for a property that JSON cannot hold."""
    rows: dict[Dot, int] = {}
    nodes: list[dict[str, Any]] = [{"name": _Z_UP_NAME, "rotation": _Z_UP}]
    for node in scene.nodes():
        rows[node] = len(nodes)
        nodes.append({})
        if len(nodes) > MAX_GLTF_NODES:
            raise LimitExceeded(f"scene of over {MAX_GLTF_NODES} nodes: export a part of it")
    for node, row in rows.items():
        extras: dict[str, Any] = {}
        for key, value in scene.properties(node).items():
            if key == "name" and isinstance(value, str):
                nodes[row]["name"] = value
            elif key in _TRANSFORM and _fits(key, value):
                nodes[row][key] = [float(v) for v in value]
            else:
                extras[key] = value
        if extras:
            nodes[row]["extras"] = extras
        below = [rows[child] for child in scene.children(node)]
        if below:
            nodes[row]["children"] = below
    top = [rows[child] for child in scene.children(ROOT)]
    if top:
        nodes[0]["children"] = top
    whole = {"asset": {"version": "2.0", "generator": "esplanade"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": nodes}
    try:
        return json.dumps(whole, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"scene as glTF: a property cannot be written as JSON: {error}; bytes, NaN and infinity have no place there") from error


def import_gltf(scene: Scene, data: bytes, *, now_ms: int, parent: Dot = ROOT, asset: str | None = None) -> list[Dot]:
    """Make the nodes of a .gltf or .glb file below `parent`; returns the topmost. `asset`: the file's SHA-256, by which its meshes are found again. Others' files are y up: theirs
    stand below one node that turns them, which is the topmost then.

    All is read and checked before the first node is made. Raises InvalidInput for what is no glTF 2.0, or holds a cycle, LimitExceeded, NotFound.
    """
    whole = _read(data)
    nodes = whole.get("nodes", [])
    scenes = whole.get("scenes", [])
    top = _indices(scenes[_index(whole.get("scene", 0), len(scenes), "scene")].get("nodes", []), len(nodes), "scene") if scenes else []
    plan = _plan(nodes, top)
    properties = {row: _properties(nodes[row], asset) for row, _ in plan}
    ours = {row for row in top if nodes[row].get("name") == _Z_UP_NAME}  # what stands below these is z up already
    made: dict[int, Dot] = {}
    found: list[Dot] = []
    base = parent
    if plan and not ours:
        base = scene.create(parent, now_ms=now_ms)
        scene.set(base, "name", _Y_UP_NAME, now_ms=now_ms)
        scene.set(base, "rotation", _Y_UP, now_ms=now_ms)
        found = [base]
    for row, above in plan:
        if row in ours:
            continue
        place = base if above is None or above not in made else made[above]
        made[row] = scene.create(place, now_ms=now_ms)
        if ours and place == parent:
            found.append(made[row])
        for key, value in properties[row].items():
            scene.set(made[row], key, value, now_ms=now_ms)
    return found


def _fits(key: str, value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == _TRANSFORM[key]
        and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value)
    )


def _read(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_GLTF_BYTES:
        raise LimitExceeded(f"glTF of {len(data)} bytes: at most {MAX_GLTF_BYTES}")
    if data[:4] == _MAGIC:
        if len(data) < 20:
            raise InvalidInput(f"GLB of {len(data)} bytes: cut off within its header")
        version, length, size, kind = struct.unpack_from("<4I", data, 4)
        if version != 2 or length != len(data) or kind != _JSON_CHUNK or 20 + size > length:
            raise InvalidInput(f"GLB version {version} of {length} bytes in a file of {len(data)}: must be version 2, whole, JSON first")
        data = data[20 : 20 + size]
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"glTF: its JSON cannot be read: {error}") from error
    if not isinstance(whole, dict) or not isinstance(whole.get("asset"), dict) or not str(whole["asset"].get("version", "")).startswith("2."):
        raise InvalidInput("glTF: asset.version must be 2.x; convert older files first")
    for name in ("nodes", "scenes"):
        rows = whole.get(name, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InvalidInput(f"glTF: {name} must be a list of objects")
    if len(whole.get("nodes", [])) > MAX_GLTF_NODES:
        raise LimitExceeded(f"glTF of {len(whole['nodes'])} nodes: at most {MAX_GLTF_NODES}")
    return whole


def _index(value: object, count: int, what: str) -> int:
    if type(value) is not int or not 0 <= value < count:
        raise InvalidInput(f"glTF: {what} refers to {str(value)[:40]} of {count}")
    return value


def _indices(value: object, count: int, what: str) -> list[int]:
    if not isinstance(value, list):
        raise InvalidInput(f"glTF: nodes of a {what} must be a list")
    return [_index(one, count, what) for one in value]


def _plan(nodes: list[dict[str, Any]], top: list[int]) -> list[tuple[int, int | None]]:
    """(node, its parent) for all below `top`, parents first, in order. Raises InvalidInput for a node that stands in two places, so for a cycle too."""
    plan: list[tuple[int, int | None]] = []
    seen: set[int] = set()
    stack: list[tuple[int, int | None]] = [(row, None) for row in reversed(top)]
    while stack:
        row, above = stack.pop()
        if row in seen:
            raise InvalidInput(f"glTF: node {row} stands in two places, or below itself; the nodes of a scene are a tree")
        seen.add(row)
        plan.append((row, above))
        stack += [(child, row) for child in reversed(_indices(nodes[row].get("children", []), len(nodes), "node"))]
    return plan


def _properties(node: dict[str, Any], asset: str | None) -> dict[str, Any]:
    found: dict[str, Any] = dict(node["extras"]) if isinstance(node.get("extras"), dict) else {}
    if isinstance(node.get("name"), str):
        found["name"] = node["name"]
    for key in _TRANSFORM:
        if key in node:
            if not _fits(key, node[key]):
                raise InvalidInput(f"glTF: {key} {str(node[key])[:80]} of a node: must be {_TRANSFORM[key]} finite numbers")
            found[key] = [float(v) for v in node[key]]
    if "rotation" in found and abs(math.hypot(*found["rotation"]) - 1) > 1e-3:
        raise InvalidInput(f"glTF: rotation {found['rotation']} of a node: must be a unit quaternion")
    if "matrix" in node:
        raise InvalidInput("glTF: a node has a matrix; write translation, rotation and scale (every exporter can)")
    if "mesh" in node and asset is not None:
        found["asset"], found["mesh"] = asset, node["mesh"]
    return found
