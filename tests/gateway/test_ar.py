"""Anchors and scenes through a gateway, by real clients."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from ar.anchor_records import Held, Observed
from ar.anchor_refinement import refine_anchors
from ar.scene import Scene
from esplanade.core.errors import EsplanadeError
from gateway import hub
from gateway.client import Client
from tests.gateway.mall import VENUE, Mall, running_mall

POSE = struct.pack("<7f", 1, 2, 1.5, 0, 0, 0, 1)


@pytest.fixture
async def mall() -> AsyncIterator[Mall]:
    async with running_mall() as running:
        yield running


def name(i: int) -> bytes:
    return i.to_bytes(16, "big")


def anchor(i: int, x: float, **more: Any) -> dict[str, Any]:
    return {"id": name(i), "level": 0, "position_m": [x, 5.0, 1.5], **more}


async def code_of(client: Client, op: str, **fields: Any) -> str:
    with pytest.raises(EsplanadeError) as caught:
        await client.request(op, venue=VENUE, **fields)
    return caught.value.code


async def test_what_one_hosts_another_finds_observes_and_is_told_of(mall: Mall) -> None:
    _, url = await mall.gateway()
    host, finder = await mall.client(url, 7), await mall.client(url, 8)
    await finder.subscribe(f"venue/{VENUE}/anchors")
    held = await host.host_anchor(VENUE, anchor(1, 10.0, tags=["art"]))
    assert (held["owner"], held["version"]) == (7, 1)
    await host.host_anchor(VENUE, anchor(2, 12.0, access="owner"))
    told = [await finder.event("anchors_changed") for _ in range(2)]
    assert [(one["what"], one["ids"]) for one in told] == [("hosted", name(1)), ("hosted", name(2))]
    near = await finder.anchors_near(VENUE, 0, 11.0, 5.0)
    assert [(one["anchor"]["id"], one["distance_m"]) for one in near] == [(name(1), 1.0)]
    beside = await finder.request("anchors_near", venue=VENUE, beside=name(1))
    assert beside["anchors"] == []
    assert [one["anchor"]["id"] for one in await host.resolve_anchors(VENUE, [name(2), name(9), name(1)])] == [name(2), name(1)]
    seen = {"id": name(1), "position_m": [10.02, 5.0, 1.5]}
    [better] = (await finder.request("observe_anchor", venue=VENUE, seen=seen))["anchors"]
    assert better["quality"] > held["quality"]
    operator = await mall.client(url, 1, "operator")
    await operator.request("carry_anchors", venue=VENUE, carrier="float", level=1, position_m=[3.0, 4.0, 0.0])
    moving = await host.host_anchor(VENUE, anchor(3, 1.0, carrier="float"))
    assert (moving["anchor"]["level"], moving["anchor"]["position_m"]) == (1, [4.0, 9.0, 1.5])
    await host.request("remove_anchors", venue=VENUE, ids=name(1))
    assert await finder.resolve_anchors(VENUE, [name(1)]) == []


async def test_an_operator_refines_anchors_from_what_was_seen_and_each_move_is_told_once(mall: Mall) -> None:
    _, url = await mall.gateway()
    operator, shopper = await mall.client(url, 1, "operator"), await mall.client(url, 8)
    for i in range(4):
        await operator.host_anchor(VENUE, anchor(i, 2.0 * i + (0.5 if i == 2 else 0.0)))
    await operator.subscribe(f"venue/{VENUE}/anchors")
    for i in range(4):
        for j in range(4):
            if i != j:
                seen = {"id": name(j), "position_m": [2.0 * (j - i), 0.0, 0.0], "sigma_m": 0.01, "sigma_rad": 0.01, "seen_from": name(i)}
                await shopper.request("observe_anchor", venue=VENUE, seen=seen)
    graph = await operator.request("get_anchor_graph", venue=VENUE)
    anchors, rows = msgspec.convert(graph["anchors"], list[Held]), msgspec.convert(graph["seen"], list[Observed])
    found = refine_anchors(anchors, rows)
    assert found.astray == [name(2)]
    refined = [
        {"id": i, "version": version, "position_m": pose.translation_m[0].tolist(), "rotation": pose.rotation[0].tolist()}
        for i, version, pose in found.moved
    ]
    [moved] = (await operator.request("refine_anchors", venue=VENUE, refined=refined))["anchors"]
    assert moved["anchor"]["position_m"][0] == pytest.approx(4.0, abs=0.01)
    told = await operator.event("anchors_changed")
    assert (told["what"], told["ids"]) == ("moved", name(2))
    assert (await operator.request("refine_anchors", venue=VENUE, refined=refined))["anchors"] == []
    assert await code_of(shopper, "get_anchor_graph") == "forbidden"


async def test_a_request_about_anchors_that_breaks_a_rule_is_told_which(mall: Mall) -> None:
    _, url = await mall.gateway()
    host, other = await mall.client(url, 7), await mall.client(url, 8)
    await host.host_anchor(VENUE, anchor(1, 10.0))
    assert await code_of(other, "host_anchor", anchor=anchor(1, 3.0)) == "anchor_not_yours"
    assert await code_of(other, "host_anchor", anchor=anchor(2, 3.0, level=77)) == "invalid_anchor"
    assert await code_of(other, "host_anchor", anchor=anchor(2, 3.0, rotation=[0.0, 0.0, 0.0, 3.0])) == "invalid_anchor"
    assert await code_of(other, "host_anchor", anchor={"id": b"short"}) == "invalid"
    assert await code_of(other, "anchors_near", level=0, x=1.0) == "invalid"
    assert await code_of(other, "anchors_near", level=0, x=1.0, y=1.0, beside=name(1)) == "invalid"
    assert await code_of(other, "carry_anchors", carrier="float", level=0, position_m=[0.0, 0.0, 0.0]) == "forbidden"
    assert await code_of(other, "scene_sync", scene="../x") == "invalid"
    with pytest.raises(EsplanadeError, match="nowhere"):
        await other.request("scene_sync", venue="nowhere", scene="hall")


async def test_two_edit_one_scene_apart_and_both_end_with_the_same(mall: Mall) -> None:
    _, url = await mall.gateway()
    desk, phone = await mall.client(url, 1, "operator"), await mall.client(url, 8)
    reader = await mall.client(url, 9, client="reader")
    await reader.subscribe(f"venue/{VENUE}/scene/hall")
    now = mall.clock.unix_ms()
    a, b = Scene("1:operator-1"), Scene("8:shopper-8")
    node = a.create(now_ms=now)
    a_sent = await desk.sync_scene(VENUE, "hall", a, sent=0, now_ms=now)
    assert await phone.sync_scene(VENUE, "hall", b, sent=0, now_ms=now) == 0
    a.set(node, "colour", "red", now_ms=now + 1)  # apart
    b.set(node, "colour", "blue", now_ms=now + 2)
    for i in range(300):
        b.set(node, f"k{i}", "x" * 60, now_ms=now + 2)
    a_sent = await desk.sync_scene(VENUE, "hall", a, sent=a_sent, now_ms=now)
    assert await phone.sync_scene(VENUE, "hall", b, sent=0, now_ms=now) == 301
    assert await phone.sync_scene(VENUE, "hall", b, sent=0, now_ms=now) == 301, "sent again, it counts once"
    await desk.sync_scene(VENUE, "hall", a, sent=a_sent, now_ms=now)
    assert a.digest() == b.digest()
    assert a.get(node, "colour") == "blue"
    assert [(lost.client, lost.value) for lost in a.conflicts(node)] == [("1:operator-1", "red")]
    watching = Scene("9:reader")
    while watching.digest() != a.digest():
        edits = await reader.event("scene_edits")
        watching.merge(edits["ops"], now_ms=now + 10_000)
    forged = Scene("1:operator-1")
    forged.create(now_ms=now)
    assert await code_of(phone, "scene_apply", scene="hall", ops=forged.delta({})) == "edit_forbidden"
    fresh = Scene("8:shopper-8")
    fresh.create(now_ms=now)
    assert await code_of(phone, "scene_apply", scene="new", ops=fresh.delta({})) == "scene_not_found"


async def test_who_looks_at_a_scene_is_told_to_all_who_do_until_they_fall_silent(mall: Mall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PRESENT_S", 2.0)
    monkeypatch.setattr(hub, "WATCH_S", 0.3)
    _, first = await mall.gateway()
    _, second = await mall.gateway()
    clients = [await mall.client(first, 7), await mall.client(second, 8)]
    for client in clients:
        await client.subscribe(f"venue/{VENUE}/presence/hall", rate_hz=10)
    async with asyncio.timeout(30):
        for client in clients:
            present: list[str] = []
            while present != ["7:shopper-7", "8:shopper-8"]:
                for speaker in clients:
                    await speaker.request("scene_presence", venue=VENUE, scene="hall", level=0, pose=POSE)
                frame = await client.event("presence_is")
                present = [one["client"] for one in frame["present"]]
            assert all(one["pose"] == POSE for one in frame["present"])
        for client in clients:  # nobody says anything more
            while (await client.event("presence_is"))["present"]:
                pass
    assert await code_of(clients[0], "scene_presence", scene="hall", level=99, pose=POSE) == "invalid"
