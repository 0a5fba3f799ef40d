"""What every store of webhooks promises."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from esplanade.core.errors import LimitExceeded, NotFound
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.journal import Append, Journal, OutboxEntry
from esplanade.storage.webhooks import MAX_WEBHOOKS, Attempt, Cursor, DeadLetter, Source, Webhook, WebhookStore

House = tuple[WebhookStore, Journal, Catalogue]
TOPIC = "venue/v/offers"


def webhook(number: int = 1, tenant: str = "demo") -> Webhook:
    return Webhook(
        tenant=tenant, id=f"w{number:02}", url="https://example.org/x", venue="v", types=("offer.changed", "parking.changed"), where='[{"field":"ended"}]',
        secret=b"s\0", created_unix_ms=5,
    )  # fmt: skip


def attempt(number: int, outcome: str = "failed") -> Attempt:
    return Attempt(message=f"m{number}", topic=TOPIC, epoch=1, offset=number, type="offer.changed", at_unix_ms=number, attempt=1, status=500, outcome=outcome, error="why")  # type: ignore[arg-type]  # fmt: skip


async def ready(house: House, *published: str) -> WebhookStore:
    store, journal, catalogue = house
    for tenant in ("demo", "other"):
        await catalogue.add_tenant(tenant, tenant)
    await store.add(webhook(), {TOPIC: (1, 0), "venue/v/parking": (1, 0)})
    await store.add(webhook(1, "other"), {TOPIC: (1, 0)})
    for topic in published:
        [lease] = await journal.acquire([0], "test", ttl_ms=10_000)
        append = Append("demo", 0, lease.epoch, (await journal.heads(0)).get("demo", 0) + 1, ())
        await journal.flush([append], [OutboxEntry("demo", topic, b"x")])
    return store


async def test_a_webhook_is_read_back_changed_and_removed_in_its_tenant_alone(webhook_house: House) -> None:
    store = await ready(webhook_house)
    assert await store.webhooks("demo") == [webhook()] == [await store.webhook("demo", "w01")]
    changed = msgspec.structs.replace(webhook(), url="https://example.org/y", secret=b"n", former=b"s\0", former_until_unix_ms=9, enabled=False)
    await store.change(changed)
    assert await store.webhook("demo", "w01") == changed
    assert await store.webhook("other", "w01") == webhook(1, "other")
    await store.remove("demo", "w01")
    assert await store.webhooks("demo") == []
    for refused in (store.webhook("demo", "w01"), store.change(webhook()), store.remove("demo", "w01"), store.webhook("third", "w01")):
        with pytest.raises(NotFound):
            await refused


async def test_what_has_more_and_is_due_is_claimed_by_one(webhook_house: House) -> None:
    store = await ready(webhook_house)
    assert await store.claim(now_unix_ms=100, hold_ms=50, limit=10) == [], "nothing was published"
    store_, journal, catalogue = webhook_house
    del store_, catalogue
    [lease] = await journal.acquire([0], "test", ttl_ms=10_000)
    await journal.flush([Append("demo", 0, lease.epoch, 1, ())], [OutboxEntry("demo", TOPIC, b"x")])
    claims = await asyncio.gather(*(store.claim(now_unix_ms=100, hold_ms=50, limit=10) for _ in range(4)))
    [(held_webhook, held)] = [claim for claimed in claims for claim in claimed]
    assert (held_webhook, held.topic, held.held_until_unix_ms) == (webhook(), TOPIC, 150)
    assert await store.claim(now_unix_ms=149, hold_ms=50, limit=10) == []
    [(_, again)] = await store.claim(now_unix_ms=150, hold_ms=50, limit=10)  # who held it is gone
    assert not await store.settle(held, msgspec.structs.replace(held, offset=1), [attempt(1)]), "it is another's now"
    assert await store.attempts("demo", "w01", limit=10) == []
    later = msgspec.structs.replace(again, attempts=2, failing=True, due_unix_ms=300, held_until_unix_ms=0)
    assert await store.settle(again, later, [attempt(1)])
    assert await store.claim(now_unix_ms=299, hold_ms=50, limit=10) == []
    [(_, due)] = await store.claim(now_unix_ms=300, hold_ms=50, limit=10)
    assert due == msgspec.structs.replace(later, held_until_unix_ms=350)
    assert await store.settle(due, msgspec.structs.replace(due, offset=1, due_unix_ms=0, held_until_unix_ms=0))
    assert await store.claim(now_unix_ms=10**6, hold_ms=50, limit=10) == [], "all is delivered"


async def test_a_webhook_that_is_disabled_is_not_claimed(webhook_house: House) -> None:
    store = await ready(webhook_house, TOPIC)
    await store.change(msgspec.structs.replace(webhook(), enabled=False))
    assert await store.claim(now_unix_ms=100, hold_ms=50, limit=10) == []
    await store.change(webhook())
    assert len(await store.claim(now_unix_ms=100, hold_ms=50, limit=10)) == 1


async def test_attempts_and_dead_letters_are_listed_and_revived(webhook_house: House) -> None:
    store = await ready(webhook_house, TOPIC)
    [(_, held)] = await store.claim(now_unix_ms=100, hold_ms=50, limit=10)
    for i in range(3):
        letter = DeadLetter(message=f"m{i}", type="offer.changed", body=b"{\0}", at_unix_ms=i, attempts=8, error="gone")
        assert await store.settle(held, held, [attempt(i, "dead")], letter)
    assert [one.message for one in await store.attempts("demo", "w01", limit=2)] == ["m2", "m1"]
    assert (await store.attempts("demo", "w01", limit=1))[0] == attempt(2, "dead")
    assert [one.message for one in await store.dead("demo", "w01", after="m0", limit=1)] == ["m1"]
    assert await store.dead("other", "w01", limit=10) == []
    assert (await store.dead_letter("demo", "w01", "m1")).body == b"{\0}"
    await store.revive("demo", "w01", attempt(1), gone=False)
    await store.revive("demo", "w01", attempt(1, "replayed"), gone=True)
    assert [one.message for one in await store.dead("demo", "w01", limit=10)] == ["m0", "m2"]
    assert (await store.attempts("demo", "w01", limit=1))[0].outcome == "replayed"
    with pytest.raises(NotFound):
        await store.dead_letter("demo", "w01", "m1")
    await store.remove("demo", "w01")
    assert not await store.settle(held, Cursor(tenant="demo", webhook="w01", topic=TOPIC, epoch=1, offset=1), [attempt(5)])
    assert await store.attempts("demo", "w01", limit=10) == []


async def test_sources_are_kept_by_tenant(webhook_house: House) -> None:
    store = await ready(webhook_house)
    source = Source(tenant="demo", id="s1", kind="payments", venue="v", secret=b"\0s", created_unix_ms=7)
    await store.add_source(source)
    assert await store.source("demo", "s1") == source
    assert (await store.sources("demo"), await store.sources("other")) == ([source], [])
    await store.remove_source("demo", "s1")
    for refused in (store.source("demo", "s1"), store.remove_source("demo", "s1")):
        with pytest.raises(NotFound):
            await refused


async def test_a_tenant_has_so_many_and_no_more(webhook_house: House) -> None:
    store = await ready(webhook_house)
    for number in range(2, MAX_WEBHOOKS + 1):
        await store.add(webhook(number), {})
    with pytest.raises(LimitExceeded, match=str(MAX_WEBHOOKS)):
        await store.add(webhook(MAX_WEBHOOKS + 1), {})
    await store.add(webhook(2, "other"), {})
