"""The AR screen in a real browser, against a real gateway: anchors, their pose graph, a scene that two edit at once, and who looks at it."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import matplotlib.image
import numpy as np
import numpy.typing as npt
import pytest

from actors.localiser import Localiser, Query
from actors.map_shelf import store_map
from ar.pose import Poses
from ar.scene import Scene
from esplanade.storage.blobs import BlobStore
from gateway.client import Client
from tests.ar.room import CAMERA, built_map, depth_of
from tests.gateway.test_localising import TRUTH, in_a_thread

pytestmark = [pytest.mark.services]
LEVEL = 1
GOOD, BAD, LATE = bytes([1]) * 16, bytes([2]) * 16, bytes([3]) * 16
VIEW = f"#/ar/demo/parkside?level={LEVEL}"
_numbers = itertools.count(1)
LISTED = "[...document.querySelectorAll('[data-anchor]')].map(b => b.dataset.anchor)"


class Hosts:
    """Two operators' clients beside the browser, on the house's loop."""

    def __init__(self, house: Any) -> None:
        self.house = house
        self.venue = house.venue.id
        self.scenes: dict[str, tuple[Scene, Scene]] = {}
        self.names = [f"host-{next(_numbers)}" for _ in range(2)]  # never the same twice: one name and `seq` have one effect
        self.clients = [self._connect(name) for name in self.names]

    def _connect(self, name: str) -> Client:
        url = f"ws://127.0.0.1:{self.house._back_port}/v1/ws"
        client: Client = self.house.run(Client.connect(url, client=name, token=self.house.operator_token(), venue=self.venue))
        return client

    def close(self) -> None:
        self.ask("remove_anchors", ids=GOOD + BAD + LATE)
        for client in self.clients:
            self.house.run(client.close())

    def ask(self, op: str, **body: Any) -> Any:
        return self.house.run(self.clients[0].request(op, venue=self.venue, **body))

    def host(self, identity: bytes, x: float, y: float, **more: Any) -> None:
        anchor = {"id": identity, "level": LEVEL, "position_m": (x, y, 1.5), **more}
        self.ask("host_anchor", anchor=anchor)

    def now_ms(self) -> int:
        return int(self.house._clock.unix_ms())

    def quarrel(self, name: str) -> None:
        """A scene of a stage with two lamps below it, whose colour two set at once: the second wins."""
        one, two = (Scene(f"5:{name}") for name in self.names)
        now = self.now_ms()
        stage = one.create(now_ms=now)
        one.set(stage, "name", "Stage", now_ms=now)
        one.set(stage, "translation", [60.0, 30.0, 1.0], now_ms=now)
        for label, x in (("Lamp", 2.0), ("Other lamp", -2.0)):
            lamp = one.create(stage, now_ms=now)
            one.set(lamp, "name", label, now_ms=now)
            one.set(lamp, "translation", [x, 0.0, 1.5], now_ms=now)
            if label == "Lamp":
                first = lamp
        two.merge(one.delta({}), now_ms=now + 1_000)
        one.set(first, "colour", "red", now_ms=now)
        two.set(first, "colour", "green", now_ms=now + 1)
        for client, scene in zip(self.clients, (one, two), strict=True):
            self.house.run(client.sync_scene(self.venue, name, scene, sent=0, now_ms=now + 2))
        self.scenes[name] = one, two

    def rename(self, name: str, old: str, new: str) -> None:
        scene = self.scenes[name][0]
        client, now = self.clients[0], self.now_ms()
        sent = scene.ack().seen[scene.client]
        self.house.run(client.sync_scene(self.venue, name, scene, sent=sent, now_ms=now))
        [node] = [node for node in scene.nodes() if scene.get(node, "name") == old]
        scene.set(node, "name", new, now_ms=now)
        self.house.run(client.sync_scene(self.venue, name, scene, sent=sent, now_ms=now))

    def look(self, name: str, x: float, y: float) -> None:
        """Two meters up, looking east and a little down."""
        pose = struct.pack("<7f", x, y, 2.0, -0.5, 0.5, -0.5, 0.5)
        self.ask("scene_presence", scene=name, level=LEVEL, pose=pose)


def click_in_space(page: Any, at: tuple[float, float, float]) -> None:
    """Click what is drawn there: once the pointer says that there is something."""
    over = "() => document.querySelector('.map-gl canvas').parentElement.style.cursor === 'pointer'"
    for attempt in range(100):
        x, y = page.evaluate("at => window.esplanade.ar.project(at)", at)
        page.mouse.move(x + attempt % 2, y)
        page.wait_for_timeout(200)
        if page.evaluate(over):
            page.mouse.click(x, y)
            return
    raise AssertionError(f"nothing to click at {at}")


@pytest.fixture
def hosts(house: Any) -> Any:
    hosts = Hosts(house)
    yield hosts
    hosts.close()


def test_anchors_come_move_and_go_as_they_do_in_the_service(open_page: Callable[..., Any], hosts: Hosts) -> None:
    hosts.host(GOOD, 60, 30, tags=("art",), quality=0.9)
    page = open_page(VIEW)
    page.wait_for_function(f"() => {LISTED}.join() === '{GOOD.hex()}'")
    page.wait_for_function("() => window.esplanade?.ar?.project([60, 30, 1.5]) !== undefined")
    hosts.host(LATE, 64, 30)
    page.wait_for_function(f"() => {LISTED}.sort().join() === '{GOOD.hex()},{LATE.hex()}'")
    hosts.host(LATE, 66, 31)
    page.wait_for_function(f"() => window.esplanade.ar.shown.anchors.some(a => a.anchor.id[0] === {LATE[0]} && a.anchor.position_m[0] === 66)")
    hosts.ask("remove_anchors", ids=LATE)
    page.wait_for_function(f"() => {LISTED}.join() === '{GOOD.hex()}'")
    page.get_by_role("radio", name="Second floor").click()
    page.get_by_text("No anchor on this level").wait_for()


def test_an_anchor_is_selected_in_space_and_its_graph_says_who_disputes_it(open_page: Callable[..., Any], hosts: Hosts) -> None:
    hosts.host(GOOD, 60, 30, tags=("art",), payload=b"hall")
    hosts.host(BAD, 64, 30)
    hosts.ask("observe_anchor", seen={"id": BAD, "position_m": (4.01, 0.0, 0.0), "seen_from": GOOD})
    hosts.ask("observe_anchor", seen={"id": BAD, "position_m": (9.0, 0.0, 0.0), "seen_from": GOOD})
    page = open_page(VIEW)
    page.wait_for_function("() => window.esplanade?.ar?.project([60, 30, 1.5]) !== undefined && window.esplanade.ar.shown.anchors.length === 2")
    click_in_space(page, (64, 30, 1.5))
    page.locator(f"dd:text-is('{BAD.hex()}')").wait_for()
    assert f"anchor={BAD.hex()}" in page.url
    page.locator("[data-seen=disputes]").wait_for()
    assert "5.00 m" in page.locator("[data-seen=disputes]").inner_text()
    assert page.locator("[data-seen=agrees]").count() == 1
    assert page.locator("[data-figure=quality]").inner_text() == "50%"
    page.locator("[data-seen=disputes]").click()
    page.get_by_role("button", name="Open scene “hall”").wait_for()


def test_a_scene_is_a_tree_that_lives_and_says_what_lost(open_page: Callable[..., Any], hosts: Hosts) -> None:
    hosts.quarrel("hall")
    page = open_page(f"{VIEW}&scene=hall")
    page.locator("[data-node=Lamp]").wait_for()
    assert [b.get_attribute("data-node") for b in page.locator("[data-node]").all()] == ["Stage", "Lamp", "Other lamp"]
    assert page.evaluate("window.esplanade.ar.shown.nodes.map(n => n.at)") == [[60, 30, 1], [62, 30, 2.5], [58, 30, 2.5]]
    assert "1 conflict" in page.locator("[data-figure=nodes]").inner_text()
    hosts.rename("hall", "Other lamp", "Footlight")
    page.locator("[data-node=Footlight]").wait_for()
    page.locator("[data-node=Lamp]").click()
    assert page.locator("[data-property=colour]").inner_text() == '"green"'
    assert page.locator("[data-lost=colour]").inner_text() == f'5:{hosts.names[0]} wrote colour = "red", and lost'
    hosts.look("hall", 50.0, 30.0)
    page.wait_for_function("() => JSON.stringify(window.esplanade.ar.shown.eyes.map(e => e.position_m)) === '[[50,30,2]]'")
    page.locator(f"[data-camera='5:{hosts.names[0]}']").wait_for(state="detached")  # it falls silent


def green_pyramid() -> bytes:
    """A glTF file of one mesh: a pyramid 1 m wide and high, its tip along z, pure green."""
    corners = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0], [0, 0, 1]], "<f4").tobytes()
    faces = np.array([0, 1, 4, 1, 2, 4, 2, 3, 4, 3, 0, 4, 0, 2, 1, 0, 3, 2], "<u2").tobytes()
    uri = "data:application/octet-stream;base64," + base64.b64encode(corners + faces).decode()
    views = [{"buffer": 0, "byteLength": len(corners)}, {"buffer": 0, "byteOffset": len(corners), "byteLength": len(faces)}]
    accessors = [
        {"bufferView": 0, "componentType": 5126, "count": 5, "type": "VEC3"},
        {"bufferView": 1, "componentType": 5123, "count": 18, "type": "SCALAR"},
    ]
    mesh = {"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "material": 0}]}
    material = {"pbrMetallicRoughness": {"baseColorFactor": [0, 1, 0, 1]}}
    buffer = {"byteLength": len(corners) + len(faces), "uri": uri}
    whole = {
        "asset": {"version": "2.0"},
        "buffers": [buffer],
        "bufferViews": views,
        "accessors": accessors,
        "meshes": [mesh],
        "materials": [material],
    }
    return json.dumps(whole).encode()


def green_pixels(page: Any, at: tuple[float, float, float]) -> int:
    """How many pixels around a place in space are more green than all else on the page."""
    x, y = page.evaluate("at => window.esplanade.ar.project(at)", at)
    shot = page.screenshot(clip={"x": x - 60, "y": y - 60, "width": 120, "height": 120})
    picture = np.asarray(matplotlib.image.imread(io.BytesIO(shot)))[..., :3]
    return int(((picture[..., 1] > 0.25) & (picture[..., 1] > 2 * picture[..., 0]) & (picture[..., 1] > 2 * picture[..., 2])).sum())


def test_a_node_is_drawn_as_the_mesh_of_its_asset(open_page: Callable[..., Any], hosts: Hosts) -> None:
    file = green_pyramid()
    sha256 = hashlib.sha256(file).hexdigest()
    bearer = {"authorization": f"Bearer {hosts.house.operator_token()}"}
    httpx.put(f"{hosts.house.base_url}/v1/assets/{sha256}", content=file, headers=bearer, timeout=60).raise_for_status()
    scene, now = Scene(f"5:{hosts.names[0]}"), hosts.now_ms()
    for name, asset, x in (("Pyramid", sha256, 60.0), ("Lost", "0" * 64, 100.0)):
        node = scene.create(now_ms=now)
        for key, value in {"name": name, "asset": asset, "mesh": 0, "translation": [x, 30.0, 0.0], "scale": [6.0, 6.0, 6.0]}.items():
            scene.set(node, key, value, now_ms=now)
    hosts.house.run(hosts.clients[0].sync_scene(hosts.venue, "shapes", scene, sent=0, now_ms=now))
    page = open_page(f"{VIEW}&scene=shapes", expected=("404",))
    page.wait_for_function("() => window.esplanade?.ar?.shown.meshes.size === 1 && window.esplanade.ar.project([60, 30, 2]) !== undefined")
    ends = time.monotonic() + 60
    while green_pixels(page, (60, 30, 2)) < 100:
        assert time.monotonic() < ends, "the pyramid is not to be seen"
        page.wait_for_timeout(200)
    assert green_pixels(page, (100, 30, 2)) == 0
    page.locator("[data-node=Lost]").click()
    page.get_by_text("Its mesh is not drawn").wait_for()


def test_what_was_missed_while_away_is_there_after_a_reconnection(open_page: Callable[..., Any], hosts: Hosts) -> None:
    hosts.quarrel("away")
    hosts.host(GOOD, 60, 30)
    page = open_page(f"{VIEW}&scene=away", expected=("WebSocket",))
    page.locator("[data-node='Other lamp']").wait_for()
    page.locator(f"[data-anchor='{GOOD.hex()}']").wait_for()
    hosts.house.stop_gateway()
    try:
        page.locator("[data-state=lost]").wait_for()
        hosts.ask("remove_anchors", ids=GOOD)
        hosts.host(LATE, 62, 30)
        hosts.rename("away", "Other lamp", "Footlight")
    finally:
        hosts.house.start_gateway()
    page.locator("[data-node=Footlight]").wait_for()
    page.wait_for_function(f"() => {LISTED}.join() === '{LATE.hex()}'")


def seen_points() -> npt.NDArray[np.float32]:
    """(n, 3) metres in the frame of a camera at TRUTH."""
    depth = depth_of(TRUTH).astype(np.float64)
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]]
    return np.stack([(u - CAMERA.cx) / CAMERA.fx * depth, (v - CAMERA.cy) / CAMERA.fy * depth, depth], axis=-1).reshape(-1, 3).astype("<f4")


@pytest.fixture
def mapped(house: Any, tmp_path: Path) -> Iterator[None]:
    """The browser's gateway localises on the level, whose map is the made-up room of the AR tests."""
    store_map(BlobStore(tmp_path), "demo", house.venue.id, LEVEL, built_map(), made_ms=1)
    house.stop_gateway()
    house.localiser = Localiser(in_a_thread, str(tmp_path))
    house.start_gateway()
    some = np.rint(seen_points()[::40] * 1000).astype("<i2").tobytes()  # a first time, which may have to compile
    house.run(house.localiser.locate(Query(tenant="demo", venue=house.venue.id, level=LEVEL, points_mm=some), deadline_s=100), timeout_s=110)
    yield
    house.stop_gateway()
    house.localiser = None
    house.start_gateway()


def test_a_cloud_is_localised_and_its_camera_stands_in_space(open_page: Callable[..., Any], mapped: None) -> None:
    page = open_page(VIEW)
    page.locator(".top .live:not(.waiting)").wait_for()
    chooser = page.locator("input[type=file]")
    chooser.set_input_files({"name": "none.ply", "mimeType": "application/octet-stream", "buffer": b"no cloud"})
    page.get_by_text("this is no .ply file").wait_for()
    points = seen_points()
    head = "ply\nformat binary_little_endian 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    cloud = head.format(len(points)).encode() + points.tobytes()
    chooser.set_input_files({"name": "view.ply", "mimeType": "application/octet-stream", "buffer": cloud})
    page.locator("[data-camera='view.ply']").wait_for()
    [eye] = page.evaluate("window.esplanade.ar.shown.eyes")
    metres, radians = TRUTH.distance(Poses.of(eye["position_m"], eye["rotation"]))
    assert metres[0] < 0.1
    assert radians[0] < 0.05


def test_who_is_no_operator_is_told_so(open_page: Callable[..., Any], house: Any) -> None:
    page = open_page("", expected=("403", "WebSocket"))
    page.evaluate("token => sessionStorage.setItem('esplanade.operator.demo.token', token)", house.operator_token("shopper"))
    page.goto(f"{house.base_url}/{VIEW}")
    page.get_by_text("This view is for operators.").wait_for()


def test_an_engineer_sees_anchors_and_is_told_what_only_operators_see(open_page: Callable[..., Any], hosts: Hosts) -> None:
    hosts.host(GOOD, 60, 30)
    page = open_page("")
    page.evaluate("token => sessionStorage.setItem('esplanade.operator.demo.token', token)", hosts.house.operator_token("engineer"))
    page.goto(f"{hosts.house.base_url}/{VIEW}&anchor={GOOD.hex()}")
    page.locator(f"dd:text-is('{GOOD.hex()}')").wait_for()
    page.get_by_text("The pose graph is told to operators only.").wait_for()


def test_without_webgl_the_lists_go_on(open_page: Callable[..., Any], hosts: Hosts) -> None:
    hosts.host(GOOD, 60, 30, tags=("art",))
    page = open_page("")
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(f"{hosts.house.base_url}/{VIEW}")
    page.reload()  # another fragment is no other page: what comes first runs at a load
    page.get_by_text("The space cannot be drawn.").wait_for()
    page.locator(f"[data-anchor='{GOOD.hex()}']").click()
    page.locator(f"dd:text-is('{GOOD.hex()}')").wait_for()
