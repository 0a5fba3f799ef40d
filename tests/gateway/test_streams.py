"""Server-sent events over a real socket: the same topics under the same rules, resumed where they broke off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from actors.messages import CreateOffer
from esplanade.core.ids import Address
from gateway import streams as streams_module
from gateway.api import ApiSettings, build_api, serve_api
from gateway.permissions import ROLES, Role
from gateway.rest import Caller
from gateway.session import Session
from gateway.streams import MAX_OF_SUBJECT, place_of
from spatial.offers import Everyone, Offer
from tests.gateway.mall import TILL, VENUE, Mall, patiently, running_mall

OFFERS = f"venue/{VENUE}/offers"


@dataclass
class Event:
    name: str
    data: dict[str, Any]
    id: str | None


class House:
    def __init__(self, mall: Mall, client: httpx.AsyncClient, background: Any) -> None:
        self.mall = mall
        self.client = client
        self.background = background

    def bearer(self, role: Role = "operator", subject: int = 5, ttl_s: float = 600) -> dict[str, str]:
        return {"authorization": f"Bearer {self.mall.token(subject, role, ttl_s=ttl_s)}"}

    @asynccontextmanager
    async def open(self, topic: str = OFFERS, role: Role = "operator", subject: int = 5, last: str | None = None, ttl_s: float = 600, **query: Any) -> AsyncIterator[AsyncIterator[Event]]:  # fmt: skip
        headers = self.bearer(role, subject, ttl_s) | ({} if last is None else {"last-event-id": last})
        async with self.client.stream("GET", "/v1/stream", params={"topic": topic, **query}, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"].startswith("text/event-stream")
            yield events(response)

    async def offer(self, name: str) -> None:
        offer = Offer(id=name, unit_id=TILL, title=name, audience=Everyone())
        await patiently(lambda: self.mall.system.ask(Address("mall", "demo", VENUE), CreateOffer(offer=offer)))


async def events(response: httpx.Response) -> AsyncIterator[Event]:
    held: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            yield Event("comment", {}, None)
        elif line:
            name, _, value = line.partition(": ")
            held[name] = value
        elif "data" in held:
            yield Event(held["event"], json.loads(held["data"]), held.get("id"))
            held = {}


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with running_mall() as mall:
        app = build_api(
            catalogue=mall.catalogue, broker=mall.broker, signer=mall.signer, clock=mall.clock, settings=ApiSettings(ws_url="ws://127.0.0.1:1/"), checks={},
            system=mall.system, journal=mall.journal,
        )  # fmt: skip
        background = app.state.background
        await background.start()
        server = await serve_api(app)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=30) as client:
            yield House(mall, client, background)
            await background.stop()
        await server.stop()


async def test_a_stream_that_broke_off_goes_on_where_it_was(house: House) -> None:
    async with house.open() as stream:
        first = await anext(stream)
        assert (first.name, first.id) == ("subscribed", "1:0")
        await house.offer("a")
        event = await anext(stream)
        assert (event.name, event.data["offer"]["id"], event.id) == ("offer_state", "a", "1:1")
    for name in ("b", "c"):
        await house.offer(name)
    async with house.open(last=event.id) as stream:
        begun = await anext(stream)
        assert (begun.data["resumed"], begun.id) == (True, "1:1")
        assert [(await anext(stream)).id for _ in range(2)] == ["1:2", "1:3"]
        await house.offer("d")
        assert (await anext(stream)).data["offer"]["id"] == "d"
    async with house.open(last="7:1") as stream:
        begun = await anext(stream)
        assert ("resumed" in begun.data, begun.id) == (False, "1:4"), "said plainly"


async def test_filters_hold_and_an_ephemeral_topic_comes_without_ids(house: House) -> None:
    async with house.open(where='[{"field": "offer.id", "in": ["b"]}]') as stream:
        await anext(stream)
        for name in ("a", "b"):
            await house.offer(name)
        assert (await anext(stream)).data["offer"]["id"] == "b"
    async with house.open(f"venue/{VENUE}/stats", "guest") as stream:
        names = [await anext(stream) for _ in range(2)]
        assert [(one.name, one.id) for one in names] == [("subscribed", None), ("stats", None)]


async def test_each_role_reads_what_it_may_subscribe_to(house: House) -> None:
    for topic, roles in ((f"venue/{VENUE}/dots/0", "operator"), ("payments", "operator engineer"), (OFFERS, " ".join(ROLES))):
        for role in ROLES:
            if role in roles.split():
                async with house.open(topic, role) as stream:
                    assert (await anext(stream)).name == "subscribed"
            else:
                refused = await house.client.get("/v1/stream", params={"topic": topic}, headers=house.bearer(role))
                assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_what_is_no_stream_is_refused_by_name(house: House) -> None:
    for query, last, status, named in (
        ({"topic": "venue/nowhere/offers"}, None, 404, "nowhere"),
        ({"topic": "nonsense"}, None, 422, "nonsense"),
        ({"topic": f"venue/{VENUE}/density/99"}, None, 422, "level 99"),
        ({"topic": OFFERS}, "nonsense", 422, "Last-Event-ID"),
        ({"topic": f"venue/{VENUE}/stats"}, "1:1", 422, "resume"),
        ({"topic": OFFERS, "where": "ended"}, None, 422, "where"),
        ({"topic": OFFERS, "where": '[{"field": "free", "below": 1}]'}, None, 422, "free"),
        ({"topic": OFFERS, "rate_hz": 100}, None, 422, "rate_hz"),
        ({"topic": f"venue/{VENUE}/scene/s", "policy": "drop_oldest"}, None, 422, "disconnect"),
        ({}, None, 422, "topic"),
    ):
        headers = house.bearer() | ({} if last is None else {"last-event-id": last})
        refused = await house.client.get("/v1/stream", params=query, headers=headers)
        assert (refused.status_code, named in refused.json()["detail"]) == (status, True), refused.text
    assert (await house.client.get("/v1/stream", params={"topic": OFFERS})).status_code == 401


async def test_one_has_so_many_and_those_that_end_make_room(house: House) -> None:
    async def held() -> None:
        async with house.open(subject=77) as stream:
            await anext(stream)
            opened.release()
            await asyncio.Event().wait()

    opened = asyncio.Semaphore(0)
    tasks = [asyncio.ensure_future(held()) for _ in range(MAX_OF_SUBJECT)]
    for _ in tasks:
        await opened.acquire()
    refused = await house.client.get("/v1/stream", params={"topic": OFFERS}, headers=house.bearer(subject=77))
    assert (refused.status_code, refused.json()["code"]) == (429, "limit")
    async with house.open(subject=78) as stream:
        assert (await anext(stream)).name == "subscribed", "a neighbour is served"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(20):
        while len(house.background._streams):
            await asyncio.sleep(0.02)
    assert house.background._hub.subscriptions() == 0, "who is gone reads no more"


async def test_it_says_that_it_lives_when_the_token_ran_out_and_when_it_goes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "HEARTBEAT_S", 0.1)
    async with house.open(ttl_s=2) as stream:
        seen = [event async for event in stream]
    assert {event.name for event in seen} >= {"subscribed", "comment", "bye"}
    assert (seen[-1].name, seen[-1].data["code"]) == ("bye", "unauthenticated")
    async with house.open() as stream:
        await anext(stream)
        stopping = asyncio.ensure_future(house.background.stop())
        rest = [event async for event in stream]
        await stopping
    assert (rest[-1].name, rest[-1].data["code"], rest[-1].data["reconnect"]) == ("bye", "unavailable", True)


async def test_a_reader_too_far_behind_is_ended(house: House) -> None:
    stream = streams_module.Stream(_caller(house), OFFERS, 2.0, 0.0)
    for _ in range(9):
        stream.write(b"x" * 2**20)
    assert (stream.ended, await stream.next(0.1)) == ("slow", [])


def _caller(house: House) -> Any:
    identity = house.mall.verifier.verify(house.mall.token(5, "operator"), house.mall.clock.unix_ms() / 1000)
    return Caller(identity, "", Session("s", "json", 0.0))


def test_a_place_is_read_back_as_it_was_written() -> None:
    assert (place_of("3:14").epoch, place_of("3:14").offset) == (3, 14)
