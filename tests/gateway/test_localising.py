"""A camera asks a gateway where it is: a pose in the venue's frame, or "not known" with the reason; never a queue without an end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from actors.localise_worker import locate
from actors.localiser import AT_ONCE, MAX_WAITING, Localiser, Query, Work
from actors.map_shelf import newest_map, open_map, store_map
from ar import geopose
from ar.pose import Poses
from esplanade.core.errors import EsplanadeError, InvalidInput, LimitExceeded, NotFound, Unavailable
from esplanade.storage.blobs import BlobStore
from gateway.api import ApiSettings, build_api
from spatial.venue import Origin
from tests.ar.room import CAMERA, COLUMNS, ROWS, built_map, depth_of, looking
from tests.gateway.mall import VENUE, Mall, running_mall

TRUTH = looking((1.2, 1.0, 1.5), (3.5, 2.5, 0.9))
LENS = (CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy)


async def in_a_thread(function: str, data: bytes, *, deadline_s: float) -> bytes:
    """Work without Ray: the same function, in a thread of this process."""
    assert function == "actors.localise_worker:locate"
    return await asyncio.to_thread(locate, data)


def millimetres(depth: np.ndarray) -> bytes:
    return np.rint(depth * 1000).astype("<u2").tobytes()


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> BlobStore:
    """With a map of level 0 of the venue, which is the made-up room."""
    store = BlobStore(tmp_path_factory.mktemp("blobs"))
    store_map(store, "demo", VENUE, 0, built_map(), made_ms=1)
    return store


@pytest.fixture
async def mall(blobs: BlobStore) -> AsyncIterator[Mall]:
    async with running_mall() as running:
        running.localiser = Localiser(in_a_thread, blobs.where)
        yield running


def near_the_truth(answer: dict[str, Any]) -> None:
    metres, radians = TRUTH.distance(Poses.of(answer["position_m"], answer["rotation"]))
    assert metres[0] < 0.02
    assert radians[0] < 0.01


async def test_a_camera_is_told_its_pose_with_what_it_is_worth_and_its_geopose(mall: Mall, blobs: BlobStore) -> None:
    _, url = await mall.gateway()
    operator = await mall.client(url, 1, "operator")
    seen = {"depth": millimetres(depth_of(TRUTH)), "rows": ROWS, "columns": COLUMNS, "camera": LENS}
    answer = await operator.request("localise", venue=VENUE, level=0, **seen)
    assert answer["op"] == "localised"
    near_the_truth(answer)
    assert answer["chance"] > 0.8
    assert answer["map"] == newest_map(blobs, "demo", VENUE, 0)
    covariance = np.frombuffer(answer["covariance"], "<f4").reshape(6, 6)
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    origin = Origin(**json.loads(await mall.catalogue.venue("demo", VENUE))["origin"])
    read = geopose.read(answer["geopose"])
    assert isinstance(read, geopose.Located)
    near_the_truth({"position_m": (p := geopose.to_venue(origin, [read])).translation_m[0], "rotation": p.rotation[0]})
    again = await operator.request("localise", venue=VENUE, level=0, near=TRUTH.translation_m[0].tolist(), within_m=0.5, **seen)
    near_the_truth(again)


async def test_a_shopper_sends_points_within_the_size_of_their_messages(mall: Mall) -> None:
    _, url = await mall.gateway()
    shopper = await mall.client(url, 7)
    depth = depth_of(TRUTH)[::4, ::4].astype(np.float64)
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]] * 4
    points = np.stack([(u - CAMERA.cx) / CAMERA.fx * depth, (v - CAMERA.cy) / CAMERA.fy * depth, depth], axis=-1).reshape(-1, 3)
    answer = await shopper.request("localise", venue=VENUE, level=0, points=np.rint(points * 1000).astype("<i2").tobytes())
    near_the_truth(answer)


async def test_a_camera_in_another_room_is_told_that_it_is_not_known_and_why(mall: Mall) -> None:
    _, url = await mall.gateway()
    operator = await mall.client(url, 1, "operator")
    elsewhere = millimetres(depth_of(looking((2.8, 2.0, 1.3), (0.5, 0.8, 1.0)), seed=7))
    answer = await operator.request("localise", venue=VENUE, level=0, depth=elsewhere, rows=ROWS, columns=COLUMNS, camera=LENS)
    assert answer["op"] == "not_localised"
    assert answer["reason"]
    assert "position_m" not in answer


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"level": 1, "points": bytes(6 * 600)}, "not_found", "esplanade ar map"),
        ({"level": 99, "points": bytes(6 * 600)}, "invalid", "levels 0 to"),
        ({"level": 0}, "invalid", "give a depth image"),
        ({"level": 0, "points": bytes(6 * 600), "depth": bytes(2 * 400)}, "invalid", "give a depth image"),
        ({"level": 0, "points": bytes(100)}, "invalid", "(n, 3) i2"),
        ({"level": 0, "points": bytes(6 * 20)}, "invalid", "500"),
        ({"level": 0, "depth": bytes(2 * 400), "rows": 20, "columns": 21, "camera": LENS}, "invalid", "rows x columns"),
        ({"level": 0, "depth": bytes(2 * 400), "rows": 20, "columns": 20}, "invalid", "fx, fy"),
        ({"level": 0, "depth": bytes(2 * 400), "rows": 20, "columns": 20, "camera": (0.0, 0.0, 0.0, 0.0)}, "invalid", "focal lengths"),
    ],
)
async def test_what_is_no_query_is_refused_by_name(mall: Mall, fields: dict[str, Any], code: str, says: str) -> None:
    _, url = await mall.gateway()
    operator = await mall.client(url, 1, "operator")
    with pytest.raises(EsplanadeError) as caught:
        await operator.request("localise", venue=VENUE, **fields)
    assert caught.value.code == code
    assert says in caught.value.message


async def test_a_depth_image_comes_by_http_too(mall: Mall) -> None:
    app = build_api(
        catalogue=mall.catalogue, broker=mall.broker, signer=mall.signer, clock=mall.clock, settings=ApiSettings(ws_url="ws://127.0.0.1:1/"), checks={},
        system=mall.system, journal=mall.journal, localiser=mall.localiser,
    )  # fmt: skip
    path = f"/v1/venues/demo/{VENUE}/localise"
    asked = {"level": 0, "rows": ROWS, "columns": COLUMNS} | dict(zip(("fx", "fy", "cx", "cy"), LENS, strict=True))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:7000") as client:
        bearer = {"authorization": f"Bearer {mall.token(7)}"}
        reply = await client.post(path, params=asked, content=millimetres(depth_of(TRUTH)), headers=bearer)
        assert reply.status_code == 200, reply.text
        near_the_truth(reply.json())
        large = await client.post(path, params=asked, content=bytes(5 * 2**20), headers=bearer)
        assert (large.status_code, large.json()["code"]) == (429, "limit")


def points_of(n: int) -> Query:
    return Query(tenant="demo", venue=VENUE, level=0, points_mm=bytes(6 * n))


async def test_the_queue_has_a_limit_and_a_deadline(blobs: BlobStore) -> None:
    began, release = 0, asyncio.Event()

    async def slow(function: str, data: bytes, *, deadline_s: float) -> bytes:
        nonlocal began
        began += 1
        await release.wait()
        raise Unavailable("the worker died")

    work: Work = slow
    localiser = Localiser(work, blobs.where)
    running = [asyncio.ensure_future(localiser.locate(points_of(600), deadline_s=60)) for _ in range(AT_ONCE)]
    while began < AT_ONCE:
        await asyncio.sleep(0)
    waiting = [asyncio.ensure_future(localiser.locate(points_of(600), deadline_s=0.05 if n else 60)) for n in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(LimitExceeded, match="wait to be localised"):
        await localiser.locate(points_of(600))
    late = await asyncio.gather(*waiting[1:], return_exceptions=True)
    assert all(isinstance(one, Unavailable) and "no worker was free" in one.message for one in late)
    release.set()
    ended = await asyncio.gather(*running, waiting[0], return_exceptions=True)
    assert all(isinstance(one, Unavailable) and "died" in one.message for one in ended)
    assert began == AT_ONCE + 1, "what was past its deadline was never begun"


def test_a_map_is_kept_by_its_content_and_a_reader_sees_the_newest_version(blobs: BlobStore, tmp_path: Path) -> None:
    version = newest_map(blobs, "demo", VENUE, 0)
    held = open_map(blobs, version)
    store = BlobStore(tmp_path)
    assert store_map(store, "demo", VENUE, 0, held, made_ms=1) == version, "the same map is the same version"
    files = sum(path.is_file() for path in tmp_path.rglob("*"))
    later = store_map(store, "demo", VENUE, 0, held, made_ms=2)
    assert later != version
    assert newest_map(store, "demo", VENUE, 0) == later
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == files + 1, "tiles that have not changed are not written again"
    with pytest.raises(NotFound, match="no map"):
        newest_map(store, "demo", VENUE, 1)
    tile = next(path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 10_000)
    tile.write_bytes(tile.read_bytes()[:-1])
    broken = open_map(store, later)
    with pytest.raises(InvalidInput, match="differs"):
        [broken.tile(key) for key in broken.keys]
