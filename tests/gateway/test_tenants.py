"""A token of one tenant, whatever its role, gets at nothing of another: venues, addresses, topics, money, pushes, metrics. (Rows: tests/contracts/test_postgres.py.)"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, get_args

import msgspec
import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry

from esplanade.core.errors import EsplanadeError, Forbidden, InvalidInput, NotFound, Unavailable
from gateway import frames as f
from gateway.client import Client
from gateway.metrics import Scrape, Snapshot
from gateway.permissions import ROLES, Role, permits
from tests.actors.parkside import document, keys, u2, u4
from tests.gateway.examples import CLIENT
from tests.gateway.mall import TILL, VENUE, Mall, running_mall

pytestmark = pytest.mark.services

THEIRS = "elsewhere"
OFFER = {"id": "books", "unit_id": TILL, "title": "Books", "audience": {"type": "within", "radius_m": 5.0}}
COLUMNS = {"tick": 0, "subject": u4(1), "level": b"\0", "x": b"\0\0\0\0", "y": b"\0\0\0\0"}
UNANSWERED = {"watermark"}
PROBES: list[tuple[Role, str, dict[str, Any]]] = [
    ("guest", "walk_in", {"location": "north_entrance"}),
    ("shopper", "move", {"level": 0, "x": 1.0, "y": 1.0, "ack": True}),
    ("shopper", "leave", {}),
    ("shopper", "pay", {"key": b"k" * 16, "unit": TILL, "amount": 5, "currency": "EUR"}),
    ("engineer", "get_offers", {}),
    ("engineer", "get_clock", {}),
    ("engineer", "find_stores", {"level": 0, "x": 1.0, "y": 1.0}),
    ("guest", "search", {"text": "shop"}),
    ("engineer", "get_zone", {"zone": "front"}),
    ("operator", "get_zone", {"zone": "front"}),
    ("operator", "create_offer", {"offer": OFFER}),
    ("operator", "end_offer", {"offer": "books", "tick": 1}),
    ("operator", "set_bays", {"bays": []}),
    ("operator", "hold", {"key": b"k" * 16, "subject": 5, "unit": TILL, "amount": 5, "currency": "EUR", "expires_ms": 2**52}),
    ("operator", "post", {"key": b"k" * 16, "subject": 5, "hold": b"h" * 16, "currency": "EUR"}),
    ("operator", "void", {"key": b"k" * 16, "subject": 5, "hold": b"h" * 16, "currency": "EUR"}),
    ("operator", "refund", {"key": b"k" * 16, "subject": 5, "original": b"o" * 16, "amount": 5, "currency": "EUR"}),
    ("operator", "get_till", {"unit": TILL}),
    ("operator", "explain", {"offer": "books", "subject": 5}),
    ("feed", "set_bays", {"bays": []}),
    ("feed", "open_source", {"source": "sim", "first_tick": 0}),
    ("feed", "close_source", {"source": "sim"}),
    ("feed", "columns", {"source": "sim", **COLUMNS}),
    ("feed", "payments", {"tick": 0, "key": keys(1), "subject": u4(1), "unit": u2(0), "amount": u4(1), "currency": "EUR"}),
]
_WRITTEN = {op for _, op, _ in PROBES}
for (
    _frame
) in CLIENT:  # every other frame that names a venue, as its example has it, from a role that may send it (people are limited to twenty a second)
    _raw = msgspec.msgpack.decode(msgspec.msgpack.encode(_frame))
    if "venue" in _frame.__struct_fields__ and _raw["op"] not in _WRITTEN | UNANSWERED | {"hello"}:
        _role = next(role for role in reversed(ROLES) if permits(role, type(_frame)))
        PROBES.append((_role, _raw["op"], {key: value for key, value in _raw.items() if key not in ("op", "seq", "venue")}))
CRAFTED = ("other/elsewhere", "../other/elsewhere", "elsewhere:front", "elsewhere%2F", "Elsewhere", "positions/other/elsewhere", "")
TOPICS = ("stats", "density/0", "dots/0", "offers", "parking", "clock", "pushes", "transitions")


@pytest.fixture
async def mall() -> AsyncIterator[Mall]:
    async with running_mall() as running:
        await running.catalogue.put_venue("other", document())  # the same id as a venue of demo
        yield running


def test_every_frame_that_names_a_venue_is_probed() -> None:
    naming = {kind.__struct_config__.tag for kind in get_args(f.ClientFrame) if "venue" in kind.__struct_fields__}
    assert naming - UNANSWERED - {"hello"} == {op for _, op, _ in PROBES}, "hello is probed below"


async def test_no_role_reaches_a_venue_of_another_tenant(mall: Mall) -> None:
    _, url = await mall.gateway()
    clients = {role: await mall.client(url, 5, role, source="sim" if role == "feed" else None) for role in {probe[0] for probe in PROBES}}
    before = events_of_other(mall)
    for number, (role, op, more) in enumerate(PROBES):  # each from a client of its own: who sends too much that cannot be read is disconnected
        probe = await mall.client(url, 5, role, client=f"probe-{number}", source="sim" if role == "feed" else None)
        with pytest.raises(NotFound) as refused:
            await probe.request(op, venue=THEIRS, **more)
        assert "other" not in str(refused.value), "not even that it exists there"
        for venue in CRAFTED:
            with pytest.raises((NotFound, InvalidInput)):
                await probe.request(op, venue=venue, **more)
        await probe.close()
    for client in clients.values():
        for topic in TOPICS:
            for venue in (THEIRS, "../other/elsewhere", "other/venue/elsewhere"):
                with pytest.raises((NotFound, InvalidInput, Forbidden)):
                    await client.subscribe(f"venue/{venue}/{topic}")
    for zone in ("other/parkside:front", "front/../../other", "../elsewhere:front"):
        with pytest.raises((NotFound, InvalidInput)):
            await clients["operator"].request("get_zone", venue=VENUE, zone=zone)
    with pytest.raises(NotFound):
        await Client.connect(url, client="probe", token=mall.token(5), venue=THEIRS, reconnects=0)
    assert events_of_other(mall) == before, "no probe made anything of the other tenant"


def events_of_other(mall: Mall) -> int:
    return sum(len(segment.events) for (tenant, _), log in mall.store.logs.items() for segment in log if tenant == "other")


async def test_what_has_one_name_in_two_tenants_is_two_things(mall: Mall) -> None:
    """The same venue, person, device, key, offer and source: each tenant sees its own."""
    _, url = await mall.gateway()
    ours, theirs = [await mall.client(url, 9, "operator", tenant=tenant) for tenant in ("demo", "other")]
    we, they = [await mall.client(url, 9, tenant=tenant, client="phone") for tenant in ("demo", "other")]
    before = await theirs.request("get_books")
    await ours.top_ups(tick=0, key=keys(50), subject=u4(9), amount=u4(700), currency="EUR")
    with pytest.raises(EsplanadeError, match="wallet_not_found"):
        await they.pay(VENUE, TILL, 5, "EUR", key=b"k" * 16)
    assert (await we.pay(VENUE, TILL, 250, "EUR", key=b"k" * 16))["balance"] == 450
    assert await they.balance() == {}
    assert await theirs.request("get_books") | {"seq": 0} == before | {"seq": 0}

    await theirs.top_ups(tick=0, key=keys(50), subject=u4(9), amount=u4(20), currency="EUR")
    assert (await they.pay(VENUE, TILL, 5, "EUR", key=b"k" * 16))["balance"] == 15
    assert (await we.balance(), await they.balance()) == ({"EUR": 450}, {"EUR": 15})

    heard: list[dict[str, Any]] = []
    listener = await mall.client(url, 10, tenant="other", client="listener", on_event=heard.append)
    for topic in (f"venue/{VENUE}/offers", f"venue/{VENUE}/stats"):
        await listener.subscribe(topic)
    await ours.request("create_offer", venue=VENUE, offer=OFFER)
    assert [offer["id"] for offer in (await we.request("get_offers", venue=VENUE))["offers"]] == ["books"]
    assert (await they.request("get_offers", venue=VENUE))["offers"] == []
    await we.move(VENUE, 0, 7.0, 19.5, ack=True)
    assert (await we.event("push"))["offer"] == "books"
    await they.move(VENUE, 0, 7.0, 19.5, ack=True)
    clock = await they.request("get_clock", venue=VENUE)
    while (await they.request("get_clock", venue=VENUE))["tick"] < clock["tick"] + 3:  # ticks enough for a push to come
        await asyncio.sleep(0.1)
    assert not [frame for frame in heard if "books" in str(frame)]
    with pytest.raises(Unavailable):
        await they.event("push", timeout_s=0.2)


async def test_metrics_name_no_tenant_and_nothing_of_one(mall: Mall) -> None:
    """They are the engineer's, who runs the service for all tenants: sums over tenants, never one by name."""
    server, url = await mall.gateway()
    operator = await mall.client(url, 1, "operator", client="secret-device")
    await operator.request("create_offer", venue=VENUE, offer=OFFER | {"id": "secret-offer"})
    with pytest.raises(NotFound):
        await operator.request("get_clock", venue="secret-venue")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Scrape([msgspec.msgpack.decode(server.metrics.snapshot("gateway-0"), type=Snapshot)], await mall.system.profile()))
    text = generate_latest(registry).decode()
    assert 'op="create_offer"' in text
    assert "turns" in text
    for name in ("demo", VENUE, THEIRS, "secret"):
        assert name not in text, name
