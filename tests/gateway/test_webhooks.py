"""Webhooks out, to a server on loopback: in order, signed, tried again, given up, sent again; and no further than public addresses."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from actors import topics as t
from esplanade.core.clock import ManualClock
from esplanade.core.errors import InvalidInput, Unavailable
from esplanade.storage.journal import Append, OutboxEntry
from esplanade.storage.memory import MemoryJournal, MemoryStore
from esplanade.storage.memory_webhooks import MemoryWebhooks
from esplanade.storage.sealing import Vault
from esplanade.storage.webhooks import Webhook
from gateway.metrics import GatewayMetrics
from gateway.outward import Outward, check_url, is_public
from gateway.webhooks import BACKOFF_S, PAGE, WINDOW_S, WebhookCourier, check_signature, place_of_secret, signature, told_secret
from tests.gateway.receiver import Receiver, receiving
from tests.gateway.test_policies import changed

SECRET = bytes(range(32))
TOPIC = "venue/v/offers"


class World:
    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.clock = ManualClock(unix_ms=time.time_ns() // 1_000_000)
        self.store = MemoryStore(self.clock)
        self.journal = MemoryJournal(self.store)
        self.webhooks = MemoryWebhooks(self.store)
        self.box = Vault(b"m" * 32, lambda n: b"r" * n)
        self.outward = Outward(private=True)
        self.courier = WebhookCourier(
            store=self.webhooks, journal=self.journal, outward=self.outward, box=self.box, clock=self.clock, metrics=GatewayMetrics()
        )

    async def subscribe(self, name: str = "w1", **more: Any) -> Webhook:
        webhook = Webhook(
            tenant="demo", id=name, url=self.receiver.url, venue="v", types=("offer.changed",), where="",
            secret=self.box.seal(place_of_secret("demo", name), SECRET), created_unix_ms=0,
        )  # fmt: skip
        webhook = msgspec.structs.replace(webhook, **more)
        await self.webhooks.add(webhook, {TOPIC: await self.journal.place("demo", TOPIC)})
        return webhook

    async def publish(self, *offers: str, body: Callable[[str], t.Body] = changed) -> None:
        for offer in offers:
            [lease] = await self.journal.acquire([0], "test", ttl_ms=10_000)
            append = Append("demo", 0, lease.epoch, (await self.journal.heads(0)).get("demo", 0) + 1, ())
            await self.journal.flush([append], [OutboxEntry("demo", TOPIC, msgspec.msgpack.encode(body(offer)))])

    async def outcomes(self) -> list[tuple[int, int, str]]:
        """(offset, attempt, outcome) of the first webhook, the oldest first."""
        return [(one.offset, one.attempt, one.outcome) for one in (await self.webhooks.attempts("demo", "w1", limit=1000))[::-1]]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with receiving() as receiver:
        world = World(receiver)
        yield world
        await world.outward.close()


async def test_what_is_published_comes_once_in_order_and_signed(world: World) -> None:
    await world.publish("before")
    await world.subscribe()
    assert await world.courier.turn() == 0, "what was before is not told"
    offers = [f"o{i}" for i in range(PAGE + 5)]
    await world.publish(*offers)
    while await world.courier.turn():
        pass
    assert [body["data"]["offer"]["id"] for body in world.receiver.bodies()] == offers
    assert world.receiver.offsets() == list(range(2, PAGE + 7))
    headers, body = world.receiver.got[0]
    assert Verifier(told_secret(SECRET)).verify(body, headers) == {
        "type": "offer.changed", "tenant": "demo", "topic": TOPIC, "place": {"epoch": 1, "offset": 2},
        "data": {"venue": "v", "ended": False, "offer": msgspec.to_builtins(changed("o0").offer)},
    }  # fmt: skip
    assert (headers["webhook-id"], headers["content-type"]) == ("w1.offer.changed.1.2", "application/json")
    with pytest.raises(WebhookVerificationError):
        Verifier(told_secret(bytes(32))).verify(body, headers)
    assert {outcome for _, _, outcome in await world.outcomes()} == {"delivered"}


async def test_one_that_fails_is_tried_again_the_same_and_those_behind_it_wait(world: World) -> None:
    await world.subscribe()
    await world.publish("a", "b")
    world.receiver.answers = [500, 302, 204]
    await world.courier.turn()
    assert world.receiver.offsets() == [1]
    world.clock.advance(BACKOFF_S[0] - 0.01)
    assert await world.courier.turn() == 0, "not yet"
    world.clock.advance(0.01)
    await world.courier.turn()
    world.clock.advance(BACKOFF_S[1])
    await world.courier.turn()
    assert world.receiver.offsets() == [1, 1, 1, 2]
    assert len({(headers["webhook-id"], body) for headers, body in world.receiver.got[:3]}) == 1
    assert await world.outcomes() == [(1, 1, "failed"), (1, 2, "failed"), (1, 3, "delivered"), (2, 1, "delivered")]


async def test_one_that_is_given_up_is_kept_listed_and_sent_again(world: World) -> None:
    webhook = await world.subscribe()
    await world.publish("a", "b", "c")
    world.receiver.status = 503
    await world.courier.turn()
    for wait_s in BACKOFF_S:
        world.clock.advance(wait_s)
        await world.courier.turn()
    tries = len(BACKOFF_S) + 1
    assert world.receiver.offsets() == [1] * tries + [2, 3], "while the partner is away, one try each"
    letters = await world.webhooks.dead("demo", "w1", limit=10)
    assert [(letter.message, letter.attempts) for letter in letters] == [
        ("w1.offer.changed.1.1", tries), ("w1.offer.changed.1.2", 1), ("w1.offer.changed.1.3", 1),
    ]  # fmt: skip
    assert (await world.courier.replay(webhook, letters[0])).outcome == "dead"
    world.receiver.status = 200
    assert (await world.courier.replay(webhook, letters[0])).outcome == "replayed"
    assert [letter.message for letter in await world.webhooks.dead("demo", "w1", limit=10)] == [letter.message for letter in letters[1:]]
    assert world.receiver.got[-1][1] == world.receiver.got[0][1]
    await world.publish("d", "e")
    world.receiver.answers = [200, 500, 200]
    await world.courier.turn()
    assert (await world.outcomes())[-2:] == [(4, 1, "delivered"), (5, 1, "failed")], "taken again, so tried again"


async def test_a_partner_that_does_not_answer_holds_up_nobody_else(world: World) -> None:
    await world.subscribe("w1", url="http://127.0.0.1:9/")
    await world.subscribe("w2")
    await world.publish("a")
    assert await world.courier.turn() == 2
    assert world.receiver.offsets() == [1]
    assert [(one.status, one.outcome, "127.0.0.1" in one.error) for one in await world.webhooks.attempts("demo", "w1", limit=5)] == [
        (0, "failed", True)
    ]


async def test_a_filter_passes_over_what_it_is_not_about(world: World) -> None:
    await world.subscribe(where='[{"field": "offer.unit_id", "in": ["u-3"]}]')
    for i in range(4):
        await world.publish(f"o{i}", body=lambda offer, i=i: changed(offer, unit=f"u-{i}"))  # type: ignore[misc]
    while await world.courier.turn():
        pass
    assert world.receiver.offsets() == [4]


async def test_what_is_no_longer_kept_is_said_to_be_lost_and_what_follows_comes(world: World) -> None:
    await world.subscribe()
    await world.publish("a", "b")
    world.clock.advance(100.0)
    await world.journal.trim_outbox(older_than_ms=1)
    await world.courier.turn()
    assert await world.outcomes() == [(1, 1, "lost")]
    await world.publish("c")
    await world.courier.turn()
    assert world.receiver.offsets() == [3]


async def test_a_new_epoch_of_a_topic_is_read_from_its_start(world: World) -> None:
    await world.subscribe()
    await world.publish("a")
    await world.courier.turn()
    world.store.forget_topic("demo", TOPIC)
    world.store.topics["demo", TOPIC].epoch = 1_700_000_000  # as a restore of a backup leaves it
    await world.publish("b")
    for _ in range(3):
        await world.courier.turn()
    assert [(body["place"]["epoch"], body["place"]["offset"]) for body in world.receiver.bodies()] == [(1, 1), (1_700_000_000, 1)]


async def test_a_partner_that_is_gone_is_asked_no_more(world: World) -> None:
    await world.subscribe()
    await world.publish("a", "b")
    world.receiver.status = 410
    await world.courier.turn()
    assert not (await world.webhooks.webhook("demo", "w1")).enabled
    assert await world.courier.turn() == 0
    assert world.receiver.offsets() == [1]


async def test_two_couriers_deliver_each_message_once(world: World) -> None:
    await world.subscribe()
    await world.publish(*(f"o{i}" for i in range(10)))
    other = WebhookCourier(
        store=world.webhooks, journal=world.journal, outward=world.outward, box=world.box, clock=world.clock, metrics=GatewayMetrics()
    )
    while await world.courier.turn() + await other.turn():
        pass
    assert world.receiver.offsets() == list(range(1, 11))


async def test_after_a_rotation_both_secrets_sign_for_a_day(world: World) -> None:
    webhook = await world.subscribe()
    fresh = b"n" * 32
    until = world.clock.unix_ms() + 1_000
    await world.webhooks.change(
        msgspec.structs.replace(
            webhook, secret=world.box.seal(place_of_secret("demo", "w1"), fresh), former=webhook.secret, former_until_unix_ms=until
        )
    )
    await world.publish("a")
    await world.courier.turn()
    headers, body = world.receiver.got[0]
    for secret in (SECRET, fresh):
        Verifier(told_secret(secret)).verify(body, headers)
    world.clock.advance(1.0)
    await world.publish("b")
    await world.courier.turn()
    headers, body = world.receiver.got[1]
    Verifier(told_secret(fresh)).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(told_secret(SECRET)).verify(body, headers)


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_fails_each_message_comes_at_least_once_and_in_order(world: World, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The partner refuses at random, what is written is lost at random before and after it lands, and other couriers go on."""
    chance = random.Random(seed)
    settle = world.webhooks.settle

    async def unsure(*arguments: Any) -> bool:
        if chance.random() < 0.2:
            raise Unavailable("before it landed")
        done = await settle(*arguments)
        if chance.random() < 0.2:
            raise Unavailable("after it landed")
        return done

    monkeypatch.setattr(world.webhooks, "settle", unsure)
    await world.subscribe()
    couriers = [
        WebhookCourier(store=world.webhooks, journal=world.journal, outward=world.outward, box=world.box, clock=world.clock, metrics=GatewayMetrics())
        for _ in range(2)
    ]
    published = 0
    for _ in range(60):
        if published < 25 and chance.random() < 0.6:
            published += 1
            await world.publish(f"o{published}")
        world.receiver.answers = [chance.choice((200, 200, 500)) for _ in range(3)]
        with contextlib.suppress(Unavailable):
            await chance.choice(couriers).turn()
        world.clock.advance(chance.choice((0.0, 5.0, 70.0)))
    world.receiver.answers = []
    monkeypatch.setattr(world.webhooks, "settle", settle)
    for _ in range(100):
        world.clock.advance(3_600.0)
        await couriers[0].turn()
    offsets = world.receiver.offsets()
    first = list(dict.fromkeys(offsets))
    assert first == list(range(1, published + 1)), "each, and none before those that were published before it"
    assert len(offsets) > published, "and some more than once, or this proves nothing"


# --- where to ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0",
     "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1", "nonsense", ""],
)  # fmt: skip
def test_what_is_not_public_is_not_reached(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8"])
def test_what_is_public_is(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    ["http://example.org/", "ftp://example.org/", "https://", "https://user@example.org/", "https://u:p@example.org/", "https://example.org/#x", "https://example.org:22/",
     "https://example.org:99999/", "https://exa mple.org/", "https://example.org/\r\nX: y", "https://exämple.org/", "javascript:alert(1)", "//example.org", "", "https://[::1", "https://e.org/" + "x" * 2000],
)  # fmt: skip
def test_what_is_no_address_for_a_webhook_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_url(url, private=False)


async def test_a_name_with_any_private_address_is_refused_however_it_is_written() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return {"mixed.example": ["8.8.8.8", "10.0.0.1"], "inner.example": ["127.0.0.1"]}.get(host, [])

    outward = Outward(private=False, resolve=resolve)
    for url in ("https://mixed.example/", "https://inner.example:8443/x"):
        with pytest.raises(InvalidInput, match="not a public address"):
            await outward.check(url)
        with pytest.raises(InvalidInput, match="not a public address"):
            await outward.post(url, {}, b"")
    with pytest.raises(Unavailable, match="no address"):
        await outward.check("https://nowhere.example/")
    await outward.close()
    real = Outward(private=False)
    for url in (
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
    ):
        with pytest.raises((InvalidInput, Unavailable)):
            await real.check(url)
    await real.close()


async def test_the_connection_goes_where_the_name_was_judged_to_be_and_keeps_the_name() -> None:
    asked: list[str] = []
    async with receiving() as receiver:
        port = receiver.url.split(":")[2].split("/")[0]

        async def resolve(host: str, port: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

        outward = Outward(private=True, resolve=resolve)
        assert await outward.post(f"http://partner.example:{port}/hook", {"x-one": "1"}, b"{}") == 204
        assert (asked, receiver.got[0][0]["host"]) == (["partner.example"], f"partner.example:{port}")
        await outward.close()


# --- signatures of what comes in --------------------------------------------------------------------------------------


def test_a_message_is_believed_within_its_window_and_as_it_was_signed() -> None:
    headers = {"webhook-id": "m1", "webhook-timestamp": "1000", "webhook-signature": "v1,bm90 " + signature(SECRET, "m1", 1000, b'{"a":1}')}
    for now in (1000, 1000 + WINDOW_S, 1000 - WINDOW_S):
        assert check_signature(SECRET, headers, b'{"a":1}', now) == "m1"
    for changes, body, now in (
        ({}, b'{"a":2}', 1000),
        ({}, b'{"a":1}', 1001 + WINDOW_S),
        ({}, b'{"a":1}', 999 - WINDOW_S),
        ({"webhook-id": "m2"}, b'{"a":1}', 1000),
        ({"webhook-timestamp": "1001"}, b'{"a":1}', 1000),
        ({"webhook-timestamp": "1000.0"}, b'{"a":1}', 1000),
        ({"webhook-timestamp": "-1000"}, b'{"a":1}', 1000),
        ({"webhook-timestamp": "9" * 400}, b'{"a":1}', 1000),
        ({"webhook-signature": ""}, b'{"a":1}', 1000),
        ({"webhook-signature": "v1,"}, b'{"a":1}', 1000),
        ({"webhook-signature": "v2" + signature(SECRET, "m1", 1000, b'{"a":1}')[2:]}, b'{"a":1}', 1000),
        ({"webhook-id": "m" * 257}, b'{"a":1}', 1000),
        ({}, b"\xff", 1000),
    ):
        with pytest.raises(InvalidInput):
            check_signature(SECRET, headers | changes, body, now)
    with pytest.raises(InvalidInput):
        check_signature(bytes(32), headers, b'{"a":1}', 1000)
