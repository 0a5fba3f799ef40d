"""A place in one file: fetched, broken off and fetched on, edited without a network, and brought together with the service again."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from actors.map_shelf import store_map
from ar.clouds import Prepared
from ar.gltf import import_gltf
from ar.maps import SpatialMap, Tile
from ar.pack import Pack
from ar.scene import Scene
from esplanade.core.errors import EsplanadeError, Forbidden, InvalidInput
from esplanade.storage.blobs import BlobStore
from gateway.api import ApiSettings, build_api
from gateway.client import Client
from gateway.offline import Offline, fetch_pack
from gateway.packs import Place
from gateway.permissions import ROLES, Role, permits
from tests.gateway.mall import VENUE, Mall, running_mall

PLACE = "0,10,5,20"
PATH = f"/v1/venues/demo/{VENUE}/packs/{PLACE}"
MESH = b"glTF of a lamp"
NAME = hashlib.sha256(MESH).hexdigest()


class Flaky(httpx.AsyncBaseTransport):
    """The API in process; each of the first `breaks` answers breaks off after some bytes."""

    def __init__(self, app: httpx.ASGITransport) -> None:
        self.app = app
        self.breaks = 0
        self.ranges: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.ranges.append(request.headers.get("range", ""))
        reply = await self.app.handle_async_request(request)
        if self.breaks == 0:
            return reply
        self.breaks -= 1
        data = await reply.aread()

        async def some() -> AsyncIterator[bytes]:
            yield data[: len(data) // 3]
            raise httpx.ReadError("the line broke")

        return httpx.Response(reply.status_code, headers=reply.headers, content=some())


@dataclass
class Site:
    mall: Mall
    wire: Flaky
    http: httpx.AsyncClient
    url: str
    folder: Path

    async def get(self, role: Role = "shopper", *, subject: int = 8, path: str = PATH, **headers: str) -> httpx.Response:
        bearer = {"authorization": f"Bearer {self.mall.token(subject, role)}"}
        return await self.http.get(path, headers=bearer | headers)

    async def fetch(self, name: str, *, scenes: tuple[str, ...] = ("hall",), subject: int = 8) -> Path:
        to = self.folder / name
        await fetch_pack("http://127.0.0.1:7000", "demo", VENUE, PLACE, token=self.mall.token(subject), to=to, scenes=scenes, http=self.http)
        return to


def tile(i: int) -> Tile:
    points = np.random.default_rng(i).normal(size=(40, 3)).astype(np.float32)
    features = np.random.default_rng(i).random((5, 33)).astype(np.float32)
    return Tile.of((i, 0, 0), 0.02, Prepared(points, points, points[:5], points[:5], features), points, points)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    blobs = BlobStore(tmp_path / "blobs")
    tiles = {(i, 0, 0): tile(i) for i in (0, 1, 9)}
    store_map(blobs, "demo", VENUE, 0, SpatialMap(tiles, tiles.__getitem__), made_ms=1)
    async with running_mall() as mall:
        _, url = await mall.gateway()
        app = build_api(
            catalogue=mall.catalogue, broker=mall.broker, signer=mall.signer, clock=mall.clock, settings=ApiSettings(ws_url="ws://127.0.0.1:1/"), checks={},
            system=mall.system, journal=mall.journal, blobs=blobs,
        )  # fmt: skip
        wire = Flaky(httpx.ASGITransport(app))
        async with httpx.AsyncClient(transport=wire, base_url="http://127.0.0.1:7000") as http:
            yield Site(mall, wire, http, url, tmp_path)


async def furnish(site: Site) -> tuple[Client, Scene]:
    """Two anchors near, one of them another's alone, one far; a scene with a mesh; by an operator."""
    desk = await site.mall.client(site.url, 1, "operator")
    for i, (x, access) in enumerate([(10.0, "everyone"), (12.0, "owner"), (80.0, "everyone")]):
        await desk.host_anchor(VENUE, {"id": bytes([i]) * 16, "level": 0, "position_m": [x, 5.0, 1.5], "access": access})
    bearer = {"authorization": f"Bearer {site.mall.token(1, 'operator')}"}
    assert (await site.http.put(f"/v1/assets/{NAME}", content=MESH, headers=bearer)).status_code == 201
    scene, now = Scene("1:operator-1"), site.mall.clock.unix_ms()
    lamp = scene.create(now_ms=now)
    scene.set(lamp, "asset", NAME, now_ms=now)
    scene.set(lamp, "mesh", 0, now_ms=now)
    await desk.sync_scene(VENUE, "hall", scene, sent=0, now_ms=now)
    return desk, scene


async def test_a_place_is_fetched_edited_without_a_network_and_brought_together_again(site: Site) -> None:
    desk, scene = await furnish(site)
    now = site.mall.clock.unix_ms()
    file = await site.fetch("hall.pack")
    place = Offline(file, client="8:shopper-8", now_ms=now)
    assert [place.anchors().held(bytes(16)).anchor.position_m] == [(10.0, 5.0, 1.5)]
    assert len(place.anchors()) == 1, "what is another's, and what is far, stays away"
    assert sorted(place.tiles().keys) == [(0, 0, 0), (1, 0, 0)], "of the tiles those that the circle touches"
    assert place.tiles().tile((1, 0, 0)).version() == tile(1).version()
    assert place.asset(NAME) == MESH
    [lamp] = place.scenes["hall"].children()
    place.scenes["hall"].set(lamp, "colour", "red", now_ms=now + 1)
    place.save()
    scene.set(lamp, "colour", "blue", now_ms=now + 2)
    await desk.sync_scene(VENUE, "hall", scene, sent=3, now_ms=now)
    again = Offline(file, client="8:shopper-8", now_ms=now)  # another day
    assert again.scenes["hall"].get(lamp, "colour") == "red"
    phone = await site.mall.client(site.url, 8)
    assert await again.sync(phone, now_ms=now) == {}
    await desk.sync_scene(VENUE, "hall", scene, sent=4, now_ms=now)
    assert again.scenes["hall"].digest() == scene.digest()
    assert [(one.client, one.value) for one in scene.conflicts(lamp)] == [("8:shopper-8", "red")]
    assert await again.sync(phone, now_ms=now) == {}, "and again, which changes nothing"
    assert Offline(file, client="8:shopper-8", now_ms=now).scenes["hall"].digest() == scene.digest()
    with pytest.raises(InvalidInput, match="edited by"):
        Offline(file, client="9:other", now_ms=now)


async def test_what_broke_off_goes_on_where_it_was_unless_the_place_has_changed(site: Site) -> None:
    desk, scene = await furnish(site)
    whole = (await site.fetch("whole.pack")).read_bytes()
    site.wire.ranges.clear()
    site.wire.breaks = 2
    assert (await site.fetch("parts.pack")).read_bytes() == whole
    assert site.wire.ranges[0] == ""
    assert site.wire.ranges[1] == f"bytes={len(whole) // 3}-"
    assert len(site.wire.ranges) == 3
    site.wire.breaks = 9
    with pytest.raises(EsplanadeError, match="broke off"):
        await site.fetch("other.pack")
    site.wire.breaks = 0
    scene.set(scene.children()[0], "colour", "red", now_ms=site.mall.clock.unix_ms())
    await desk.sync_scene(VENUE, "hall", scene, sent=3, now_ms=site.mall.clock.unix_ms())
    changed = await site.fetch("other.pack")
    assert Pack(changed.read_bytes()).digest != Pack(whole).digest
    assert not [file.name for file in site.folder.iterdir() if ".part" in file.name]


async def test_the_same_place_is_the_same_file_and_is_not_sent_twice(site: Site) -> None:
    await furnish(site)
    first = await site.get()
    assert first.status_code == 200
    assert first.headers["etag"] == f'"{hashlib.sha256(first.content).hexdigest()}"'
    held = await site.get(**{"if-none-match": first.headers["etag"]})
    assert (held.status_code, held.content) == (304, b"")
    part = await site.get(range="bytes=8-11", **{"if-range": first.headers["etag"]})
    assert (part.status_code, part.content) == (206, first.content[8:12])
    assert (await site.get("operator", subject=1)).headers["etag"] != first.headers["etag"], "staff sees anchors that others do not"


async def test_a_scene_is_read_as_gltf_and_comes_back_as_it_was(site: Site) -> None:
    await furnish(site)
    path = f"/v1/venues/demo/{VENUE}/scenes/hall.gltf"
    reply = await site.get(path=path)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "model/gltf+json")
    again = Scene("again")
    [lamp] = import_gltf(again, reply.content, now_ms=1)
    assert again.properties(lamp) == {"asset": NAME, "mesh": 0}
    assert (await site.get(path=path, **{"if-none-match": reply.headers["etag"]})).status_code == 304
    assert (await site.get(path=path.replace("hall", "nothing"))).status_code == 404
    assert (await site.http.get(path)).status_code == 401
    for role in ROLES:
        said = (await site.get(role, path=path)).status_code
        assert said == (200 if permits(role, "GET /v1/venues/{tenant}/{venue}/scenes/{scene}.gltf") else 403), role


@pytest.mark.parametrize("role", ROLES)
async def test_who_may_fetch_a_pack(site: Site, role: Role) -> None:
    said = (await site.get(role)).status_code
    assert said == (200 if permits(role, "GET /v1/venues/{tenant}/{venue}/packs/{place}") else 403)
    assert (await site.http.get(PATH)).status_code == 401


async def test_a_place_or_scene_that_is_none_is_told(site: Site) -> None:
    for place in ("hall", "0,1,2", "0,1,2,0", "0,1,2,900", "-1,0,0,5", "0,nan,0,5"):
        refused = await site.get(path=f"/v1/venues/demo/{VENUE}/packs/{place}")
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid"), place
    assert (await site.get(path=f"{PATH}?scene=nothing")).status_code == 404
    assert (await site.get(path=f"/v1/venues/other/{VENUE}/packs/{PLACE}")).status_code == 404
    with pytest.raises(EsplanadeError) as caught:
        await site.fetch("x.pack", scenes=("nothing",))
    assert not isinstance(caught.value, Forbidden)
    assert caught.value.code == "not_found"
    with pytest.raises(InvalidInput, match="LEVEL,X,Y"):
        Place.of("1;2;3;4")
