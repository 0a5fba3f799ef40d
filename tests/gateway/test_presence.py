"""Who reads a topic: over several gateways, for those who may know, and gone within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from actors.system import System
from esplanade.core.errors import InvalidInput, LimitExceeded
from gateway import frames as f
from gateway import presence as presence_module
from gateway.hub import Hub
from gateway.presence import GONE_S, MAX_NAMED, REPEAT_S
from tests.gateway.mall import running_mall, until
from tests.gateway.test_hub import Reader, World, settle
from tests.gateway.test_policies import changed

SCENE = "venue/v/scene/hall"


class House(World):
    """Two gateways on one broker."""

    def __init__(self) -> None:
        super().__init__()
        self.hubs = [self.another(name) for name in ("one", "two")]

    def another(self, name: str) -> Hub:
        return Hub(system=cast(System, self.system), journal=self.journal, broker=self.broker, clock=self.clock, metrics=self.metrics, name=name)

    async def enter(self, hub: Hub, reader: Reader, topic: str = SCENE) -> None:
        self.hub = hub
        await self.join(reader, topic, 2.0)
        reader.session.topics[topic] = 2.0


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    for hub in house.hubs:
        await hub.start()
    await settle()
    yield house
    for hub in house.hubs:
        await hub.stop()


def ask(topic: str = SCENE, *, watch: bool = False) -> f.GetMembers:
    return f.GetMembers(seq=1, topic=topic, watch=watch)


def changes(reader: Reader) -> list[dict[str, Any]]:
    return [frame for frame in reader.frames if frame["op"] == "members_changed"]


def names(members: Any) -> list[str]:
    return sorted(member.client if isinstance(member, f.Member) else member["client"] for member in members)


async def test_an_operator_is_told_who_is_here_whichever_gateway_they_are_at(house: House) -> None:
    one, two = house.hubs
    desk, phone, other = Reader(9, "operator"), Reader(7), Reader(8)
    await house.enter(one, desk)
    await house.enter(two, phone)
    await house.enter(two, other, "venue/v/scene/elsewhere")
    told = await one.presence.answer(desk, ask())
    assert (told.count, names(told.members), told.whole) == (2, ["7:c", "9:c"], True)
    assert {member.role for member in told.members} == {"operator", "shopper"}


async def test_a_shopper_learns_how_many_and_one_who_edited_the_scene_learns_who(house: House) -> None:
    one, two = house.hubs
    phone, friend = Reader(7), Reader(8)
    await house.enter(one, phone)
    await house.enter(two, friend)
    told = await one.presence.answer(phone, ask(watch=True))
    assert (told.count, told.members, told.whole) == (2, (), False)
    one.presence.edited(phone, SCENE)
    assert names((await one.presence.answer(phone, ask(watch=True))).members) == ["7:c", "8:c"]
    friend_told = await two.presence.answer(friend, ask(watch=True))
    assert friend_told.members == (), "another's edit is not one's own"
    two.drop(friend)
    await until(lambda: bool(changes(phone)))
    assert (changes(phone)[0]["count"], names(changes(phone)[0]["left"])) == (1, ["8:c"])
    for reader in (Reader(20), Reader(21)):
        await house.enter(two, reader)
    await until(lambda: changes(phone)[-1]["count"] == 3)


async def test_who_watches_is_told_who_comes_and_goes_and_not_who_blinked(house: House) -> None:
    one, two = house.hubs
    desk, phone = Reader(9, "operator"), Reader(7)
    await house.enter(two, Reader(50), "venue/v/offers")
    await house.enter(one, desk)
    await one.presence.answer(desk, ask(watch=True))
    await house.enter(two, phone)
    await until(lambda: bool(changes(desk)))
    assert changes(desk) == [{"op": "members_changed", "topic": SCENE, "count": 2, "joined": [{"client": "7:c", "role": "shopper"}], "whole": True}]
    two.drop(phone)
    again = Reader(7)
    await house.enter(two, again)  # the same device, on a new connection, at once
    two.drop(again)
    await until(lambda: len(changes(desk)) == 2)
    assert (changes(desk)[1]["count"], names(changes(desk)[1]["left"])) == (1, ["7:c"])
    await one.presence.answer(desk, ask())
    await house.enter(two, Reader(10))
    async with asyncio.timeout(20):
        while (await one.presence.answer(desk, ask())).count != 2:
            await asyncio.sleep(0.02)
    assert len(changes(desk)) == 2, "who watches no more hears no more"


async def test_readers_at_a_gateway_that_died_are_gone_within_the_bound(house: House) -> None:
    one, two = house.hubs
    desk, phone = Reader(9, "operator"), Reader(7)
    await house.enter(one, desk)
    await house.enter(two, phone)
    assert (await one.presence.answer(desk, ask(watch=True))).count == 2
    task = two.presence._task
    assert task is not None
    task.cancel()  # its process stops where it stands and says nothing
    house.clock.advance(GONE_S + 0.01)
    await until(lambda: bool(changes(desk)))
    assert (changes(desk)[0]["count"], names(changes(desk)[0]["left"])) == (1, ["7:c"])


async def test_a_gateway_that_stops_takes_its_readers_with_it_at_once(house: House) -> None:
    one, two = house.hubs
    desk = Reader(9, "operator")
    await house.enter(one, desk)
    await house.enter(two, Reader(7))
    assert (await one.presence.answer(desk, ask(watch=True))).count == 2
    await until(lambda: any(asked.said is not None and asked.said.count for asked in two.presence._asked.values()))
    await two.presence.stop()
    await until(lambda: bool(changes(desk)))
    assert changes(desk)[0]["count"] == 1


async def test_a_big_topic_has_a_count_and_some_names(house: House) -> None:
    one, two = house.hubs
    desk = Reader(9, "operator")
    await house.enter(one, desk)
    for subject in range(100, 100 + 3 * MAX_NAMED):
        await house.enter(two, Reader(subject))
    told = await one.presence.answer(desk, ask())
    assert (told.count, len(told.members), told.whole) == (3 * MAX_NAMED + 1, MAX_NAMED + 1, False)


async def test_the_first_reader_of_a_gateway_that_had_none_is_found_by_the_next_call(house: House) -> None:
    one, two = house.hubs
    desk = Reader(9, "operator")
    await house.enter(one, desk)
    await one.presence.answer(desk, ask(watch=True))
    await house.enter(two, Reader(7))
    house.clock.advance(REPEAT_S)
    await until(lambda: bool(changes(desk)))
    assert changes(desk)[0]["count"] == 2


async def test_nothing_is_said_while_nobody_asks(house: House) -> None:
    published: list[Any] = []
    one = house.hubs[0]
    one.presence._publish = lambda tenant, body: published.append(body)  # type: ignore[assignment, return-value]
    reader = Reader(1)
    await house.enter(one, reader, "venue/v/offers")
    await house.durable("venue/v/offers", changed("a"))
    await until(lambda: len(reader.frames) == 1)
    assert published == []
    assert one.presence._asked == {}


async def test_only_readers_ask_and_only_of_topics_that_have_members(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    one = house.hubs[0]
    desk = Reader(9, "operator")
    with pytest.raises(InvalidInput, match="subscribe to it first"):
        await one.presence.answer(desk, ask())
    await house.enter(one, desk, "venue/v/dots/0")
    with pytest.raises(InvalidInput, match="only of"):
        await one.presence.answer(desk, ask("venue/v/dots/0"))
    monkeypatch.setattr(presence_module, "MAX_ASKED", 1)
    for topic in (SCENE, "venue/v/scene/b"):
        await house.enter(one, desk, topic)
    await one.presence.answer(desk, ask())
    with pytest.raises(LimitExceeded, match="at most 1"):
        await one.presence.answer(desk, ask("venue/v/scene/b"))
    assert (await one.presence.answer(desk, ask())).count == 1


async def test_members_over_sockets_of_two_gateways() -> None:
    async with running_mall() as mall:
        _, first = await mall.gateway(process="one")
        _, second = await mall.gateway(process="two")
        desk = await mall.client(first, 9, "operator")
        phone = await mall.client(second, 7)
        topic = "venue/parkside/offers"
        await desk.subscribe(topic, policy="keep_latest", where=[{"field": "ended", "equals": False}])
        told = await desk.members(topic, watch=True)
        assert (told["count"], told["members"]) == (1, [{"client": "9:operator-9", "role": "operator"}])
        await phone.subscribe(topic)
        joined = await desk.event("members_changed")
        assert (joined["count"], joined["joined"]) == (2, [{"client": "7:shopper-7", "role": "shopper"}])
        seen = await phone.members(topic)
        assert (seen["count"], "members" in seen) == (2, False)
        await phone.close()
        left = await desk.event("members_changed")
        assert (left["count"], left["left"]) == (1, [{"client": "7:shopper-7", "role": "shopper"}])
        assert desk._ws is not None
        await desk._ws.close()  # the line is lost: who watched watches again
        await desk.event("_reconnected")
        assert (await desk.members(topic, watch=True))["count"] == 1
        third = await mall.client(second, 8)
        await third.subscribe(topic)
        assert names((await desk.event("members_changed"))["joined"]) == ["8:shopper-8"]
