"""Frames of many commands: what they answer and store is what the same commands do one by one, in whichever form they travel."""

from __future__ import annotations

import random

import pytest

from actors.behaviour import Context, Decision
from actors.events import EventBody, QrScanned
from actors.messages import Command, Done, Rejected, ScanQr
from actors.partition_log import BEHAVIOURS
from actors.reminders import Reminder
from actors.requests import COLUMNS_FROM, Answer, Ask, Commands, Refused, Request, TracedAsk, decode_answers, decode_requests, encode_requests
from actors.system import Key
from actors.topics import ParkingChanged
from esplanade.core.errors import Conflict, Fault
from esplanade.core.ids import Address
from tests.actors.stage import Stage, stage

VERBS = ("one", "one", "one", "two", "none", "reject", "conflict", "tell", "wake")


class Tally:
    """Does what the command's location says. Of no product; a plain behaviour for these tests."""

    def initial(self) -> list[str]:
        return []

    def venue_of(self, address: Address, command: Command) -> str | None:
        return None

    def decide(self, state: list[str], command: Command, context: Context) -> Decision | Rejected:
        assert isinstance(command, ScanQr)
        scanned = QrScanned("tally", f"{command.location} {len(state)}")
        match command.location:
            case "two":
                return Decision((scanned, scanned), Done())
            case "none":
                return Decision((), Done())
            case "reject":
                return Rejected(code="no", message=f"of {len(state)}")
            case "conflict":
                raise Conflict(f"of {len(state)}")
            case "tell":
                return Decision((scanned,), Done(), outbox=(("told", ParkingChanged(venue="tally", total=len(state), free=0)),))
            case "wake":
                return Decision((scanned,), Done(), reminders=(Reminder("tea", 10**15),))
            case "break":
                raise ZeroDivisionError("as the test asked")
            case _:
                return Decision((scanned,), Done())

    def apply(self, state: list[str], event: EventBody) -> list[str]:
        if not isinstance(event, QrScanned):
            raise Fault(f"a tally has no event {type(event).__name__}")
        state.append(event.location)
        return state

    def save(self, state: list[str]) -> bytes:
        return " ".join(state).encode()

    def load(self, data: bytes) -> list[str]:
        return data.decode().split()


def with_tallies(at: Stage) -> None:
    for shard in at.system.shards:
        shard._behaviours = {**BEHAVIOURS, "tally": Tally()}


def ask(entity: int, verb: str, key: Key | None = None) -> Ask:
    return Ask(Address("tally", "demo", str(entity)), ScanQr(venue="v", location=verb), key)


def frames_of(chance: random.Random, keyed: bool) -> list[list[Request]]:
    """Commands of a phone to six entities, some sent again, some overtaken; every third frame has those of a second phone among them."""
    frames: list[list[Request]] = []
    sequence, before = 0, list[Request]()
    for number in range(12):
        frame: list[Request] = []
        for _ in range(chance.randint(COLUMNS_FROM, 40)):
            sequence += chance.choice((1, 1, 1, 3))
            client = "other" if number % 3 == 2 and chance.random() < 0.3 else "phone"
            frame.append(ask(chance.randrange(6), chance.choice(VERBS), Key(client, sequence) if keyed else None))
        if keyed:
            frame += chance.sample(before, min(len(before), 4))
            start = chance.randrange(len(frame) - 4)
            frame[start : start + 4] = reversed(frame[start : start + 4])
        before = frame
        frames.append(frame)
    return frames


async def _play(frames: list[list[Request]], way: str) -> tuple[list[Answer], list[tuple[str, int, str, bytes, str, int, bytes]], bytes]:
    answers: list[Answer] = []
    async with stage() as at:
        with_tallies(at)
        [shard] = at.system.shards
        for frame in frames:
            if way == "bytes":
                answers += decode_answers(await shard.frame(encode_requests(frame)))
            elif way == "list":
                answers += await shard.answer(frame)
            else:
                for request in frame:
                    answers += await shard.answer([request])
        stored = sorted(
            (e.entity, e.version, e.type, e.body, e.client, e.sequence, e.reply)
            for log in at.store.logs.values() for segment in log for e in segment.events
        )  # fmt: skip
        state = b"".join(log.save() for _, log in sorted(shard._logs.items()))
    return answers, stored, state


@pytest.mark.parametrize("keyed", [True, False])
async def test_a_frame_does_what_its_commands_do_one_by_one(keyed: bool) -> None:
    for seed in range(8):
        frames = frames_of(random.Random(seed), keyed)
        alone = await _play(frames, "alone")
        assert len({type(answer) for answer in alone[0]}) == 2, "refused and replied"
        assert await _play(frames, "list") == alone
        assert await _play(frames, "bytes") == alone


async def test_a_turn_that_breaks_takes_with_it_what_its_log_has_gathered_and_nothing_else() -> None:
    async with stage() as at:
        with_tallies(at)
        [shard] = at.system.shards
        assert not any(isinstance(answer, Refused) for answer in await shard.answer([ask(i, "one") for i in range(12)]))
        frame = [ask(i % 12, "break" if i == 14 else "one", Key("phone", i)) for i in range(24)]
        answers = decode_answers(await shard.frame(encode_requests(frame)))
        told = [answer.code if isinstance(answer, Refused) else "replied" for answer in answers]
        assert told[:12] == ["replied"] * 2 + ["unavailable"] + ["replied"] * 9, "the first turn of 2 went with the log"
        assert (told[14], told[12:14] + told[15:]) == ("fault", ["replied"] * 11)
        again = decode_answers(await shard.frame(encode_requests([ask(i, "one", Key("phone", i)) for i in range(12)])))
        assert not any(isinstance(answer, Refused) for answer in again)
        counts = [sum(e.entity == f"tally/demo/{i}" for log in at.store.logs.values() for s in log for e in s.events) for i in range(12)]
        assert counts == [3, 3, 2, *[3] * 9], "each command once; the one that broke not at all"


def test_a_frame_travels_as_columns_where_it_can_and_arrives_as_it_was() -> None:
    plain = [ask(i, "one", Key("phone", i)) for i in range(COLUMNS_FROM)]
    bare = [ask(i, "one") for i in range(COLUMNS_FROM)]
    for frame in (plain, bare):
        arrived = decode_requests(encode_requests(frame))
        assert isinstance(arrived, Commands)
        assert [arrived.ask(i) for i in range(len(arrived))] == frame
        assert len(encode_requests(frame)) < 0.7 * sum(len(encode_requests([one])) for one in frame)
    others: list[Request] = [
        ask(1, "one"),
        ask(1, "one", Key("other", 1)),
        Ask(Address("bell", "demo", "1"), ScanQr(venue="v", location="one"), Key("phone", 1)),
        Ask(Address("tally", "other", "1"), ScanQr(venue="v", location="one"), Key("phone", 1)),
        Ask(Address("tally", "demo", "1"), ScanQr(venue="v", location="one"), Key("phone", 1), 50),
        TracedAsk(Address("tally", "demo", "1"), ScanQr(venue="v", location="one"), Key("phone", 1), 0, "00-1-2-01"),
    ]
    for other in others:
        assert decode_requests(encode_requests([*plain, other])) == [*plain, other]
    assert decode_requests(encode_requests(plain[:-1])) == plain[:-1]
