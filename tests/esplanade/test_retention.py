"""Who was silent for as long as their tenant said is erased, once, and noted; everybody else stays. What is past its time of recordings goes too."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from esplanade.core.clock import ManualClock
from esplanade.core.errors import Unavailable
from esplanade.erasure import Eraser
from esplanade.retention import MAX_A_PASS, Retention
from esplanade.storage.memory import MemoryAudit, MemoryCatalogue, MemoryPeople, MemorySubjectKeys
from esplanade.storage.memory_identity import IdentityShelf, MemoryIdentity
from esplanade.storage.people import Person
from gateway.answers import STRICT_RETENTION_DAYS, Answer, Answers
from gateway.auth import Identity
from gateway.heard import AGAIN_S, Heard
from gateway.metrics import GatewayMetrics

DAY_S = 86_400.0
TENANTS = ("demo", "kept", "unanswered")


class House:
    """Stores in memory with three tenants: one keeps people for 30 days, one for 400, one has not answered."""

    def __init__(self, runs: Path | None = None) -> None:
        self.clock = ManualClock()
        self.people = MemoryPeople(TENANTS)
        self.keys = MemorySubjectKeys()
        self.identities = MemoryIdentity(IdentityShelf(set(TENANTS)))
        self.audit = MemoryAudit()
        self.catalogue = MemoryCatalogue(self.clock)
        self.answers = Answers({"demo": Answer("asked", 30), "kept": Answer("asked", 400)}, at_home=False)
        self.forgotten = 0
        self.runs = runs

    async def start(self) -> House:
        for tenant in TENANTS:
            await self.catalogue.add_tenant(tenant, tenant)
        return self

    async def _forget_keys(self) -> None:
        self.forgotten += 1

    def retention(self) -> Retention:
        """As a process that starts makes it: all it knows is in the stores."""
        return Retention(
            answers=self.answers, catalogue=self.catalogue, people=self.people, audit=self.audit, clock=self.clock,
            erase=Eraser(self.keys, self.identities, self.clock).erase, forget_keys=self._forget_keys, runs=self.runs,
        )  # fmt: skip

    async def hear(self, tenant: str, *subjects: int) -> None:
        await self.people.hear([Person(tenant, subject, self.clock.unix_ms()) for subject in subjects])
        for subject in subjects:
            await self.keys.key(tenant, str(subject), b"key")

    async def erased(self) -> set[tuple[str, int]]:
        return {(tenant, n) for tenant in TENANTS for n in range(1, 10) if await self.keys.erased(tenant, str(n))}

    async def lines(self, tenant: str = "demo") -> list[tuple[str, str, str]]:
        return [(line.what, line.target, line.origin) for line in await self.audit.lines(tenant)]


async def test_who_is_silent_for_as_long_as_their_tenant_keeps_them_goes_and_nobody_else() -> None:
    house = await House().start()
    for tenant in TENANTS:
        await house.hear(tenant, 1)
    house.clock.advance(STRICT_RETENTION_DAYS * DAY_S)
    await house.hear("demo", 2)
    retention = house.retention()
    await retention.one_pass()
    assert await house.erased() == set(), "thirty days are not over until they are"
    assert house.forgotten == 0
    house.clock.advance(1)
    await retention.one_pass()
    assert await house.erased() == {("demo", 1), ("unanswered", 1)}, "the strict answer is in force for who has not answered"
    assert await house.lines() == [("subject.erase", "1", "retention")]
    assert (house.forgotten, retention.erased) == (1, 2)
    revoked = await house.identities.revocations(house.clock.unix_ms())
    assert {(one.tenant, one.kind, one.what) for one in revoked} == {("demo", "subject", "1"), ("unanswered", "subject", "1")}, "and is signed out"
    await house.retention().one_pass()
    assert retention.erased == 2
    assert len(await house.lines()) == 1, "once"
    house.clock.advance(370 * DAY_S)
    await house.retention().one_pass()
    assert await house.erased() == {("demo", 1), ("demo", 2), ("unanswered", 1), ("kept", 1)}


async def test_at_home_nobody_goes_whose_tenant_has_not_said_so() -> None:
    house = await House().start()
    house.answers = Answers()
    await house.hear("demo", 1)
    house.clock.advance(5_000 * DAY_S)
    await house.retention().one_pass()
    assert await house.erased() == set()


async def test_a_pass_that_was_broken_off_is_made_again_and_tells_of_nobody_twice() -> None:
    house = await House().start()
    await house.hear("demo", 1, 2)
    house.clock.advance(31 * DAY_S)
    first = house.retention()
    forget, calls = house.people.forget, 0

    async def breaks(person: Person) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Unavailable("the process died here")
        return await forget(person)

    house.people.forget = breaks  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await first.one_pass()
    assert await house.erased() == {("demo", 1)}
    await house.retention().one_pass()
    assert await house.erased() == {("demo", 1), ("demo", 2)}
    assert sorted(await house.lines()) == [("subject.erase", "1", "retention"), ("subject.erase", "2", "retention")]


async def test_a_pass_is_bounded_and_the_next_goes_on() -> None:
    house = await House().start()
    await house.people.hear([Person("demo", n, house.clock.unix_ms() + n) for n in range(MAX_A_PASS + 3)])
    house.clock.advance(31 * DAY_S)
    retention = house.retention()
    await retention.one_pass()
    assert retention.erased == MAX_A_PASS
    assert not await house.keys.erased("demo", str(MAX_A_PASS)), "silent longest first"
    await retention.one_pass()
    assert retention.erased == MAX_A_PASS + 3


async def test_recordings_past_their_time_are_deleted_and_reports_stay(tmp_path: Path) -> None:
    house = await House(tmp_path).start()
    now_s = house.clock.unix_ms() / 1000
    for run, tenant, days in (("old", "demo", 31), ("new", "demo", 29), ("long", "kept", 31), ("stray", None, 900)):
        folder = tmp_path / run / "recording"
        folder.mkdir(parents=True)
        (tmp_path / run / "report.html").write_text("held")
        (folder / "part-0.parquet").write_bytes(b"x")
        if tenant is not None:
            (tmp_path / run / "run.json").write_bytes(msgspec.json.encode({"run": run, "tenant": tenant, "state": "held"}))
        for path in (folder / "part-0.parquet", folder):
            os.utime(path, (now_s - days * DAY_S,) * 2)
    await house.retention().one_pass()
    left = {run: sorted(os.listdir(tmp_path / run)) for run in os.listdir(tmp_path)}
    assert left.pop("old") == ["report.html", "run.json"]
    assert all("recording" in names for names in left.values()), "what names no tenant is nobody's to delete"
    assert sorted(left) == ["long", "new", "stray"]
    assert await house.lines() == [("recording.delete", "old", "retention")]


# --- who is heard of --------------------------------------------------------------------------------------------------


def person(subject: int, *, role: str = "shopper", source: str | None = None, key: str = "") -> Identity:
    return Identity(subject, "demo", role, source, 1e12, key=key)  # type: ignore[arg-type]


async def heard_of(house: House) -> dict[int, int]:
    return {one.subject: one.heard_ms for one in await house.people.silent("demo", before_ms=2**53, limit=100)}


async def test_people_are_heard_of_once_in_a_while_and_programs_never() -> None:
    house = await House().start()
    heard = Heard(house.people, house.clock, GatewayMetrics())
    began = house.clock.unix_ms()
    for identity in (
        person(1),
        person(2, role="guest"),
        person(3, source="crowd"),
        person(4, role="feed"),
        person(5, role="operator"),
        person(6, key="k"),
    ):
        heard.note(identity)
    await heard.write()
    assert await heard_of(house) == {1: began, 2: began}
    house.clock.advance(AGAIN_S - 1)
    heard.note(person(1))
    await heard.write()
    assert (await heard_of(house))[1] == began, "to the quarter of a day"
    house.clock.advance(2)
    heard.note(person(1))
    await heard.write()
    assert await heard_of(house) == {1: house.clock.unix_ms(), 2: began}


async def test_what_could_not_be_written_still_waits() -> None:
    house = await House().start()
    heard = Heard(house.people, house.clock, GatewayMetrics())
    hear = house.people.hear

    async def away(_: object) -> None:
        raise Unavailable("as the test asked")

    house.people.hear = away  # type: ignore[method-assign]
    heard.note(person(1))
    with pytest.raises(Unavailable):
        await heard.write()
    house.people.hear = hear  # type: ignore[method-assign]
    await heard.write()
    assert set(await heard_of(house)) == {1}


async def test_a_person_heard_of_after_they_were_found_silent_is_not_forgotten() -> None:
    house = await House().start()
    await house.hear("demo", 1)
    [found] = await house.people.silent("demo", before_ms=2**53, limit=1)
    house.clock.advance(1)
    await house.hear("demo", 1)
    assert not await house.people.forget(found)
    assert set(await heard_of(house)) == {1}
