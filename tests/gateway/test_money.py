"""Money at the gateway beyond paying, on real sockets over the system in one process: what each role may do, what arrives, and that a repetition has one effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.messages import TopUps
from actors.saga import TransferCourier
from esplanade.core.errors import EsplanadeError, Forbidden, InvalidInput, LimitExceeded
from esplanade.core.ids import Address
from gateway.client import Client
from tests.actors.parkside import keys, u4
from tests.gateway.mall import TILL, VENUE, Mall, patiently, running_mall

pytestmark = pytest.mark.services


@pytest.fixture
async def mall() -> AsyncIterator[Mall]:
    """With couriers as the shards' processes run them, and 1,000 in the wallets of 8 and 9."""
    async with running_mall() as running:
        courier = TransferCourier(running.system)
        tasks = [asyncio.create_task(courier.attend(shard.under_way)) for shard in running.system.shards]
        for subject in (8, 9):
            top_up = TopUps(tick=0, key=keys(100 + subject), subject=u4(subject), amount=u4(1000), currency="EUR")
            await patiently(lambda top_up=top_up, subject=subject: running.system.ask(Address("ledger", "demo", str(subject % 8)), top_up))  # type: ignore[misc]
        try:
            yield running
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def comes_to(client: Client, amount: int) -> None:
    """The balance is this, soon."""
    async with asyncio.timeout(60):
        while (await client.balance()).get("EUR") != amount:
            await asyncio.sleep(0.02)


async def refusal(work: object) -> str:
    with pytest.raises(EsplanadeError) as caught:
        await work  # type: ignore[misc]
    return caught.value.code


async def test_a_transfer_between_ledgers_arrives_once_and_stands_in_both_statements(mall: Mall) -> None:
    _, url = await mall.gateway()
    alice, bob = await mall.client(url, 8), await mall.client(url, 9)
    sent = await alice.transfer(9, 300, "EUR", key=keys(1))
    assert sent["balance"] == 700
    assert (await alice.transfer(9, 300, "EUR", key=keys(1)))["balance"] == 700
    assert await refusal(alice.transfer(9, 301, "EUR", key=keys(1))) == "exists_with_different_amount"
    assert await refusal(alice.transfer(9, 5000, "EUR", key=keys(2))) == "exceeds_balance"
    assert await refusal(alice.transfer(8, 5, "EUR", key=keys(3))) == "accounts_must_differ"
    await comes_to(bob, 1300)
    assert await alice.balance() == {"EUR": 700}
    page = await alice.statement("EUR")
    assert [(line["what"], line["amount"], line["balance"], line["other"], line["number"]) for line in page["lines"]] == [
        ("top_up", 1000, 1000, "outside", 0), ("send", -300, 700, "wallet", 9),
    ]  # fmt: skip
    assert (page["opening"], page["closing"], page.get("next")) == (0, 700, None)
    assert [line["what"] for line in (await bob.statement("EUR"))["lines"]] == ["top_up", "receive"]


async def test_a_statement_comes_in_pages_and_others_see_only_their_own(mall: Mall) -> None:
    _, url = await mall.gateway()
    alice, operator = await mall.client(url, 8), await mall.client(url, 5, "operator")
    for i in range(5):
        await alice.transfer(16, 10, "EUR", key=keys(10 + i))
    whole, after, balances = await alice.statement("EUR"), None, []
    while True:
        page = await alice.statement("EUR", after=after, limit=2)
        balances += [line["balance"] for line in page["lines"]]
        after = page.get("next")
        if after is None:
            break
    assert balances == [line["balance"] for line in whole["lines"]] == [1000, 990, 980, 970, 960, 950]
    assert (await operator.statement("EUR", subject=8))["closing"] == 950
    with pytest.raises(Forbidden, match="reads their own"):
        await alice.statement("EUR", subject=9)
    with pytest.raises(InvalidInput):
        await alice.statement("EUR", limit=501)
    found = await asyncio.gather(*(alice.statement("EUR") for _ in range(5)), return_exceptions=True)
    assert {type(one) for one in found} <= {dict, LimitExceeded}
    assert any(isinstance(one, dict) for one in found)


async def test_a_hold_is_posted_in_part_voided_or_expires_and_a_payment_is_refunded(mall: Mall) -> None:
    _, url = await mall.gateway()
    alice, operator = await mall.client(url, 8), await mall.client(url, 5, "operator")
    later = mall.clock.unix_ms() + 3_600_000
    held = await operator.hold(VENUE, TILL, 8, 400, "EUR", key=keys(1), expires_ms=later)
    assert held["balance"] == 600
    assert (await operator.hold(VENUE, TILL, 8, 400, "EUR", key=keys(1), expires_ms=later))["balance"] == 600
    assert (await alice.request("balance"))["held"] == {"EUR": 400}
    assert (await operator.post(VENUE, 8, keys(1), "EUR", key=keys(2), amount=150))["balance"] == 850
    assert await refusal(operator.void(VENUE, 8, keys(1), "EUR", key=keys(3))) == "hold_is_posted"
    assert await operator.till(VENUE, TILL) == {"EUR": 150}

    await operator.hold(VENUE, TILL, 8, 100, "EUR", key=keys(4), expires_ms=later)
    assert (await operator.void(VENUE, 8, keys(4), "EUR", key=keys(5)))["balance"] == 850
    await operator.hold(VENUE, TILL, 8, 100, "EUR", key=keys(6), expires_ms=mall.clock.unix_ms() + 1500)
    await comes_to(alice, 850)
    assert await refusal(operator.post(VENUE, 8, keys(6), "EUR", key=keys(7))) == "hold_is_expired"

    bob = await mall.client(url, 9)
    await bob.pay(VENUE, TILL, 250, "EUR", key=keys(8))
    assert await operator.till(VENUE, TILL) == {"EUR": 400}, "sub-accounts of two ledgers, merged"
    assert (await operator.refund(9, keys(8), 100, "EUR", key=keys(9), venue=VENUE))["balance"] == 850
    assert await refusal(operator.refund(9, keys(8), 151, "EUR", key=keys(10), venue=VENUE)) == "exceeds_original"
    assert await operator.till(VENUE, TILL) == {"EUR": 300}


async def test_shoppers_hold_and_refund_nothing(mall: Mall) -> None:
    _, url = await mall.gateway()
    alice = await mall.client(url, 8)
    for work in (
        alice.hold(VENUE, TILL, 8, 1, "EUR", key=keys(1), expires_ms=2**50), alice.post(VENUE, 8, keys(1), "EUR", key=keys(2)),
        alice.void(VENUE, 8, keys(1), "EUR", key=keys(3)), alice.refund(8, keys(1), 1, "EUR", key=keys(4)), alice.till(VENUE, TILL),
    ):  # fmt: skip
        assert await refusal(work) == "forbidden"
    operator = await mall.client(url, 5, "operator")
    assert await refusal(operator.hold(VENUE, "nowhere", 8, 1, "EUR", key=keys(5), expires_ms=2**50)) == "not_found"
    assert await refusal(operator.transfer(9, 1, "EUR", key=keys(6))) == "forbidden"


async def test_the_last_pairs_are_sold_once_and_each_is_paid(mall: Mall) -> None:
    _, url = await mall.gateway()
    operator, alice, bob = await mall.client(url, 1, role="operator"), await mall.client(url, 8), await mall.client(url, 9)
    assert await refusal(alice.buy("shoes", key=keys(1))) == "not_found"
    await operator.put_item("shoes", 300, "EUR", 3, venue=VENUE, unit=TILL, each=2)
    assert await alice.buy("shoes", key=keys(1), count=2) == 400
    assert await alice.buy("shoes", key=keys(1), count=2) == 400, "a repetition has one effect"
    assert await refusal(alice.buy("shoes", key=keys(2))) == "exceeds_each"
    both = await asyncio.gather(*(bob.buy("shoes", key=keys(10 + i)) for i in range(2)), return_exceptions=True)
    assert {one if isinstance(one, int) else getattr(one, "code", one) for one in both} == {700, "sold_out"}
    item = await alice.item("shoes")
    assert (item["left"], item["under_way"], item["venue"]) == (0, 0, VENUE)
    assert await operator.till(VENUE, TILL) == {"EUR": 900}
    assert await bob.balance() == {"EUR": 700}
    assert [line["what"] for line in (await alice.statement("EUR"))["lines"]] == ["top_up", "post"]
    assert await refusal(operator.put_item("shoes", 300, "EUR", 2, venue=VENUE, unit=TILL)) == "limit_below_taken"
    assert await refusal(operator.put_item("hats", 300, "EUR", 2, venue=VENUE)) == "invalid"


async def test_a_reward_is_granted_once_and_not_for_sale(mall: Mall) -> None:
    _, url = await mall.gateway()
    operator, alice = await mall.client(url, 1, role="operator"), await mall.client(url, 8)
    await operator.put_item("welcome", 50, "EUR", 10, each=1)
    assert await operator.grant("welcome", 8, key=keys(1)) == 1050
    assert await refusal(operator.grant("welcome", 8, key=keys(2))) == "exceeds_each"
    assert await refusal(alice.buy("welcome", key=keys(3))) == "not_for_sale"
    assert await refusal(alice.grant("welcome", 8, key=keys(4))) == "forbidden"
    assert await alice.balance() == {"EUR": 1050}
