"""Consent: nothing is known of where somebody is before they agree, from the moment they take it back, on any gateway; and what is in force where a tenant has not answered."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import pytest

from actors import messages as m
from esplanade.core.errors import ConsentNeeded
from esplanade.core.ids import Address
from gateway import frames as f
from gateway import session as s
from gateway.answers import STRICT_RETENTION_DAYS, Answer, Answers
from gateway.auth import Identity
from gateway.client import Client
from tests.gateway.mall import VENUE, Mall, running_mall

DOOR = (7.0, 19.5)
MOVE = {"op": "move", "seq": 1, "venue": VENUE, "level": 0, "x": 1.0, "y": 2.0}
PUSH = f.Push(id="a", kind="NEARBY", venue=VENUE, offer="a", unit="u", title="A", text="", tick=1, place=f.Place(1, 1))


def opened(standing: s.Standing | None) -> tuple[s.Session, f.Welcome]:
    session = s.Session("s-1", "msgpack", 0.0)
    session.receive(msgpack.packb({"op": "hello", "client": "c", "guest_of": "demo"}), 0.0)
    [welcome] = session.admit(Identity(7, "demo", "shopper", None, 1e12), now=0.0, now_ms=5, standing=standing)
    assert isinstance(welcome, s.Send)
    assert isinstance(welcome.frame, f.Welcome)
    return session, welcome.frame


# --- the session's rule -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        MOVE,
        {"op": "observe", "seq": 1, "venue": VENUE, "at_ms": 5},
        {"op": "walk_in", "seq": 1, "venue": VENUE, "location": "north_entrance"},
        {"op": "scene_presence", "seq": 1, "venue": VENUE, "scene": "hall", "level": 0, "pose": bytes(28)},
    ],
    ids=lambda frame: str(frame["op"]),
)
def test_what_tells_where_somebody_is_is_refused_until_they_agree(frame: dict[str, Any]) -> None:
    standing = s.Standing()
    session, welcome = opened(standing)
    assert welcome.consent == "needed"
    [refused] = session.receive(msgpack.packb(frame), 0.0)
    assert isinstance(refused, s.Send)
    assert isinstance(refused.frame, f.Error)
    assert (refused.frame.code, refused.frame.seq, refused.frame.retryable) == ("consent_needed", 1, False)
    assert "give_consent" in refused.frame.message
    standing.learn(True, 1)
    assert isinstance(session.receive(msgpack.packb(frame), 0.0)[0], s.Request)


def test_all_else_is_open_to_who_has_not_agreed() -> None:
    session, _ = opened(s.Standing())
    for op in ({"op": "leave", "venue": VENUE}, {"op": "get_offers", "venue": VENUE}, {"op": "balance"}, {"op": "give_consent", "text": "1"}):
        assert isinstance(session.receive(msgpack.packb({**op, "seq": 1}), 0.0)[0], s.Request), op


def test_who_is_not_asked_needs_nothing() -> None:
    session, welcome = opened(None)
    assert welcome.consent is None
    assert isinstance(session.receive(msgpack.packb(MOVE), 0.0)[0], s.Request)


def test_who_takes_it_back_gets_no_push_and_none_again() -> None:
    standing = s.Standing()
    standing.learn(True, 1)
    session, welcome = opened(standing)
    assert welcome.consent == "given"
    assert session.push(PUSH, ends_tick=100, now=0.0) == [s.Send(PUSH)]
    assert standing.learn(False, 2)
    assert session.poll(s.REDELIVER_S + 1, 0.0) == []
    assert session.pending == 0
    assert session.push(f.Push(**{**{k: getattr(PUSH, k) for k in PUSH.__struct_fields__}, "id": "b"}), ends_tick=100, now=0.0) == []


def test_older_word_of_a_consent_is_no_news() -> None:
    standing = s.Standing()
    assert standing.learn(False, 4)
    assert not standing.learn(True, 3)
    assert not standing.learn(True, 4)
    assert (standing.given, standing.changes) == (False, 4)


# --- what is in force -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "at_home", "asks", "days"),
    [
        (None, True, False, None),
        (None, False, True, STRICT_RETENTION_DAYS),
        (Answer("asked", 7), True, True, 7),
        (Answer("assumed", 400), False, False, 400),
        (Answer(consent="assumed"), False, False, STRICT_RETENTION_DAYS),
        (Answer(retention_days=2), False, True, 2),
        (Answer(retention_days=2), True, False, 2),
    ],
)
def test_what_is_in_force(answer: Answer | None, at_home: bool, asks: bool, days: int | None) -> None:
    answers = Answers({} if answer is None else {"demo": answer}, at_home=at_home)
    assert (answers.asks("demo"), answers.retention_days("demo")) == (asks, days)


def test_who_has_not_answered_is_told_what_is_in_force_and_where_to_answer() -> None:
    answers = Answers({"one": Answer("asked", 30), "two": Answer(consent="asked")}, at_home=False)
    three, two = answers.lacking(["one", "three"])
    assert two == f"tenant two has not answered retention_days: who was silent for {STRICT_RETENTION_DAYS} days is erased; answer in [tenants.two]"
    assert three.startswith("tenant three has not answered consent and retention_days: its people are asked before it is known where they are")
    assert "nobody is ever erased" in Answers().lacking(["demo"])[0]


# --- two gateways -----------------------------------------------------------------------------------------------------


async def seen(operator: Client) -> int:
    """Dots on the level, as the next frame has them."""
    return len((await operator.event("dots"))["pseudonym"]) // 4


async def until_seen(operator: Client, count: int) -> None:
    async with asyncio.timeout(30):
        while await seen(operator) != count:
            pass


async def until_refused(client: Client) -> None:
    """Its positions are taken no more; word of it travels to other gateways on its own."""
    async with asyncio.timeout(30):
        while True:
            try:
                await client.move(VENUE, 0, *DOOR, ack=True)
            except ConsentNeeded:
                return
            await asyncio.sleep(0.02)


async def asking_mall(mall: Mall) -> tuple[str, str, Client]:
    mall.answers = Answers({"demo": Answer("asked", 30)}, at_home=False)
    _, one = await mall.gateway(process="one")
    _, two = await mall.gateway(process="two")
    operator = await mall.client(one, 1, "operator")
    await operator.subscribe(f"venue/{VENUE}/dots/0", rate_hz=10)
    return one, two, operator


@pytest.mark.services
async def test_a_person_agrees_is_seen_takes_it_back_and_is_gone_on_every_gateway() -> None:
    async with running_mall() as mall:
        one, two, operator = await asking_mall(mall)
        looks: list[Address] = []
        ask = mall.system.ask

        async def counting(address: Address, command: m.Command, **how: Any) -> m.Reply:
            if isinstance(command, m.GetConsent):
                looks.append(address)
            return await ask(address, command, **how)

        mall.system.ask = counting  # type: ignore[method-assign]
        phone = await mall.client(one, 7, client="phone")
        watch = await mall.client(two, 7, client="watch", venue=VENUE)
        assert (phone.welcome["consent"], watch.welcome["consent"]) == ("needed", "needed")
        with pytest.raises(ConsentNeeded, match="give_consent"):
            await phone.move(VENUE, 0, *DOOR, ack=True)
        with pytest.raises(ConsentNeeded):
            await phone.walk_in(VENUE, "north_entrance")
        assert await phone.consent() == {"op": "consent", "seq": 3, "asked": True, "given": False}
        assert (await phone.give_consent("2026-11"))["text"] == "2026-11"
        for _ in range(5):
            await phone.move(VENUE, 0, *DOOR, ack=True)
        await until_seen(operator, 1)
        assert looks == [Address("session", "demo", "7")] * 3, "one a connection, and the one that was asked for; none a move"
        async with asyncio.timeout(30):  # the other gateway hears of it
            while not (await watch.consent())["given"]:
                await asyncio.sleep(0.02)
        while True:
            try:
                await watch.move(VENUE, 0, *DOOR, ack=True)
                break
            except ConsentNeeded:
                await asyncio.sleep(0.02)

        told = await watch.withdraw_consent()
        assert (told["asked"], told["given"]) == (True, False)
        with pytest.raises(ConsentNeeded):
            await watch.move(VENUE, 0, *DOOR, ack=True)
        await until_refused(phone)
        await until_seen(operator, 0)
        again = await mall.client(one, 7, client="phone-2")
        assert again.welcome["consent"] == "needed", "kept over connections"
        await again.give_consent("2026-11")
        assert (await mall.client(two, 7, client="phone-3")).welcome["consent"] == "given"

        crowd = await mall.client(one, 8, source="crowd")
        assert "consent" not in crowd.welcome, "simulated people and sensors speak for the venue"
        await crowd.move(VENUE, 0, *DOOR, ack=True)
        async with asyncio.timeout(20):
            while (
                len(lines := [(line.what, line.who, line.target) for line in await mall.audit.lines("demo") if line.what.startswith("consent.")]) < 3
            ):
                await asyncio.sleep(0.05)
        acts = ["consent.give", "consent.give", "consent.withdraw"]
        assert sorted(lines) == [(what, "shopper:7", "7") for what in acts]
