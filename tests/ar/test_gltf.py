"""A scene goes out as glTF and comes back the same; what is no glTF is refused before anything is made."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest

from ar.gltf import export_gltf, import_gltf
from ar.pose import rotate
from ar.scene import Scene
from ar.scene_ops import ROOT, Dot
from esplanade.core.errors import InvalidInput

NOW = 1_700_000_000_000


def tree(scene: Scene, node: Dot = ROOT) -> list[Any]:
    return [(scene.properties(child), tree(scene, child)) for child in scene.children(node)]


def a_scene() -> Scene:
    scene = Scene("a")
    hall = scene.create(now_ms=NOW)
    lamp, stand = scene.create(hall, now_ms=NOW), scene.create(hall, now_ms=NOW)
    scene.set(hall, "name", "hall", now_ms=NOW)
    scene.set(lamp, "translation", [1.0, 2.0, 3.0], now_ms=NOW)
    scene.set(lamp, "rotation", [0.0, 0.0, 0.6, 0.8], now_ms=NOW)
    scene.set(stand, "scale", [2.0, 2.0, 2.0], now_ms=NOW)
    scene.set(stand, "asset", "ab" * 32, now_ms=NOW)
    scene.set(stand, "mesh", 3, now_ms=NOW)
    scene.set(scene.create(now_ms=NOW), "light", {"colour": "red", "watts": 40}, now_ms=NOW)
    return scene


def gltf(**more: Any) -> bytes:
    whole = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"name": "a", "children": [1]}, {"mesh": 0}]}
    return json.dumps(whole | more).encode()


def test_a_scene_comes_back_from_gltf_as_it_was() -> None:
    scene, again = a_scene(), Scene("b")
    top = import_gltf(again, export_gltf(scene), now_ms=NOW)
    assert tree(again) == tree(scene)
    assert top == again.children()


def test_what_is_up_in_a_venue_is_up_in_gltf() -> None:
    whole = json.loads(export_gltf(a_scene()))
    root = whole["nodes"][whole["scenes"][0]["nodes"][0]]
    assert rotate(np.array([root["rotation"]]), np.array([[0.0, 0.0, 1.0]]))[0] == pytest.approx([0.0, 1.0, 0.0])
    lamp = next(node for node in whole["nodes"] if node.get("translation"))
    assert (lamp["translation"], lamp["rotation"]) == ([1.0, 2.0, 3.0], [0.0, 0.0, 0.6, 0.8])


def test_meshes_of_a_file_are_found_again_by_its_hash_from_glb_too() -> None:
    text = gltf()
    text += b" " * (-len(text) % 4)
    glb = b"glTF" + struct.pack("<4I", 2, 20 + len(text), len(text), 0x4E4F534A) + text
    for data in (gltf(), glb):
        scene = Scene("a")
        parent = scene.create(now_ms=NOW)
        [turn] = import_gltf(scene, data, now_ms=NOW, parent=parent, asset="cd" * 32)
        [top] = scene.children(turn)
        [mesh] = scene.children(top)
        assert scene.parent(turn) == parent
        up = rotate(np.array([scene.properties(turn)["rotation"]]), np.array([[0.0, 1.0, 0.0]]))[0]
        assert up == pytest.approx([0.0, 0.0, 1.0]), "what is up in the file is up in the venue"
        assert scene.properties(mesh) == {"asset": "cd" * 32, "mesh": 0}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "cannot be read"),
        (b"[]", "version must be 2.x"),
        (gltf(asset={"version": "1.0"}), "version must be 2.x"),
        (gltf(nodes=[{"children": [0]}]), "below itself"),
        (gltf(nodes=[{"children": [1, 2]}, {"children": [2]}, {}]), "two places"),
        (gltf(nodes=[{"children": [7]}]), "refers to 7 of 1"),
        (gltf(nodes=[{"translation": [1, 2]}]), "3 finite numbers"),
        (gltf(nodes=[{"rotation": [0, 0, 0, 2]}]), "unit quaternion"),
        (gltf(nodes=[{"matrix": [1] * 16}]), "has a matrix"),
        (gltf(scene=4), "scene refers to 4 of 1"),
        (gltf(nodes=[5]), "list of objects"),
        (b"glTF" + struct.pack("<4I", 2, 999, 4, 0x4E4F534A) + b"{}  ", "of 999 bytes"),
        (b"glTFxx", "cut off"),
    ],
)
def test_what_is_no_tree_of_gltf_2_is_refused_and_nothing_is_made(data: bytes, says: str) -> None:
    scene = Scene("a")
    with pytest.raises(InvalidInput, match=says):
        import_gltf(scene, data, now_ms=NOW)
    assert not list(scene.nodes())


@pytest.mark.parametrize("value", [b"bytes", math.inf])
def test_a_property_that_json_cannot_hold_is_told(value: object) -> None:
    scene = Scene("a")
    scene.set(scene.create(now_ms=NOW), "k", value, now_ms=NOW)
    with pytest.raises(InvalidInput, match="as JSON"):
        export_gltf(scene)
