"""Where a subject walked in is stored sealed, told to whom it belongs, and gone once erased, while the journal, its hash and the books stay as they were."""

from __future__ import annotations

import json
import zlib
from typing import Any

import msgspec
import pytest

from actors.events import PERSONAL_KINDS, QrScanned, decode_event, encode_event, seal_event
from actors.messages import (
    Books,
    Consent,
    GetBooks,
    GetConsent,
    HostAnchors,
    ObserveAnchors,
    Payments,
    RemoveAnchors,
    ScanQr,
    SetConsent,
    TopUps,
    WalkedIn,
)
from actors.partition_log import BEHAVIOURS, PartitionLog
from actors.positions import HostSettings
from actors.session import Session
from actors.subject_export import check_subject, held_about
from actors.system import Key
from actors.venue_shelf import VenueShelf
from ar.anchor_records import Anchor, Observed
from esplanade.core.errors import Conflict, InvalidInput
from esplanade.core.ids import Address, partition_of
from esplanade.storage.sealing import ERASED_TEXT, FRESH_S
from esplanade.storage.segment_codec import encode_events
from spatial.columns import LEFT
from tests.actors.parkside import keys, rows, u2, u4
from tests.actors.stage import Stage, stage

SESSION, LEDGER = Address("session", "demo", "8"), Address("ledger", "demo", "0")
SCAN = ScanQr(venue="parkside", location="north_entrance")


async def lived(at: Stage) -> WalkedIn:
    """A subject walks in, tops up, pays, and is seen walking through a zone."""
    reply = await at.system.ask(SESSION, SCAN, key=Key("8:phone", 1))
    assert isinstance(reply, WalkedIn)
    await at.system.ask(LEDGER, TopUps(tick=0, key=keys(1), subject=u4(8), amount=u4(500), currency="EUR"))
    await at.system.ask(LEDGER, Payments(tick=1, venue="parkside", key=keys(2), subject=u4(8), unit=u2(0), amount=u4(120), currency="EUR"))
    for level in (0, LEFT):
        await at.system.take("demo", "parkside", rows((8, level, 7.0, 21.0)), source=None, tick=None)
        await at.poll(0.5)
    return reply


async def state_of(at: Stage, address: Address) -> bytes:
    replayed = PartitionLog("demo", partition_of(address), 1, secret=b"s" * 32, settings=HostSettings(), snapshot_segments=10**9)
    await replayed.replay(at.journals[0], VenueShelf(at.catalogue), 0.0)
    return replayed.save()


def checksums(at: Stage) -> dict[tuple[str, int], int]:
    return {log: zlib.crc32(b"".join(encode_events(segment.events) for segment in segments)) for log, segments in at.store.logs.items()}


async def held(at: Stage, subject: int = 8) -> dict[str, Any]:
    found = await held_about(at.journals[0], at.catalogue, at.keyring, "demo", subject)
    return dict(json.loads(json.dumps(found)))


async def test_export_tells_the_anchors_that_are_ones_own_and_what_became_of_them() -> None:
    async with stage() as at:
        book, mine, theirs = Address("anchors", "demo", "parkside"), bytes(15) + b"\1", bytes(15) + b"\2"
        for subject, identity in ((8, mine), (9, theirs)):
            anchor = Anchor(id=identity, level=0, position_m=(1.0, 2.0, 3.0), payload=b"hall")
            await at.system.ask(book, HostAnchors(anchors=(anchor,), owner=subject, now_ms=1), key=Key(f"{subject}:phone", 1))
        seen = Observed(id=theirs, position_m=(1.0, 2.0, 3.1))
        await at.system.ask(book, ObserveAnchors(seen=(seen,), subject=8, now_ms=2), key=Key("8:phone", 2))
        for identity in (mine, theirs):
            await at.system.ask(book, RemoveAnchors(ids=identity, subject=1, staff=True), key=Key("1:desk", identity[-1]))
        told = (await held(at))["anchors"]
        assert [(one["what"], one.get("id") or one.get("anchor", one.get("seen"))["id"]) for one in told] == [
            ("anchors_hosted.v1", mine.hex()), ("anchors_observed.v1", theirs.hex()), ("anchors_removed.v1", mine.hex()),
        ]  # fmt: skip
        assert told[0]["anchor"]["payload"] == b"hall".hex()
        assert (await held(at, 10))["anchors"] == []


async def test_export_erase_export_replay() -> None:
    async with stage() as at:
        reply = await lived(at)
        before = await held(at)
        scan, answered = before["sessions"]
        assert (scan["venue"], scan["location"]) == ("parkside", "north_entrance")
        assert answered["reply"]["venue_name"] == reply.venue_name == "Parkside"
        assert [(line["what"], line["other"], line["amount"], line["balance"]) for line in before["wallet"]["EUR"]["movements"]] == [
            ("top_up", "outside/0", 500, 500), ("payment", "till/0", -120, 380),
        ]  # fmt: skip
        assert before["wallet"]["EUR"]["balance"] == 380
        assert {told["what"] for told in before["membership"]} >= {"transitions.v1"}
        states, sums = [await state_of(at, address) for address in (SESSION, LEDGER)], checksums(at)
        books = await at.system.ask(LEDGER, GetBooks())

        assert await at.keys.erase("demo", "8")
        after = await held(at)
        assert (after["sessions"][0]["venue"], after["sessions"][0]["location"]) == (ERASED_TEXT, ERASED_TEXT)
        assert after["sessions"][1]["reply"] == ERASED_TEXT
        assert "north_entrance" not in json.dumps(after)
        assert "Parkside" not in json.dumps(after)
        assert (after["wallet"], after["membership"]) == (before["wallet"], before["membership"]), "books and numbers are not personal"
        assert [await state_of(at, address) for address in (SESSION, LEDGER)] == states
        assert checksums(at) == sums, "not a byte of the journal has changed"
        await at.restart()
        again = await at.system.ask(LEDGER, GetBooks())
        assert isinstance(books, Books)
        assert isinstance(again, Books)
        assert (again.total, again.wallets, again.tills) == (books.total, books.wallets, books.tills)
        assert again.total == {"EUR": 0}
        assert (await held(at, 16))["sessions"] == []


async def test_nothing_personal_lies_in_journal_or_snapshot_as_it_is() -> None:
    async with stage() as at:
        await lived(at)
        stored = [event for log in at.store.logs.values() for segment in log for event in segment.events if event.entity.startswith("session/")]
        assert [event.type for event in stored] == ["scan_qr.v1", "answered.v1"]
        snapshot = at.system.shards[0]._logs[("demo", partition_of(SESSION))].save()
        for lying in (*(event.body for event in stored), snapshot):
            for word in (b"parkside", b"Parkside", b"north", b"Shop"):
                assert word not in lying


async def test_a_repeated_walk_in_gets_its_first_answer_after_a_restart_too() -> None:
    async with stage() as at:
        reply = await lived(at)
        await at.restart()
        assert await at.system.ask(SESSION, SCAN, key=Key("8:phone", 1)) == reply
        session = at.system.shards[0]._logs[("demo", partition_of(SESSION))].entities[SESSION]
        assert session.version == 2


async def test_after_an_erasure_nothing_is_kept_and_the_number_stays_erased() -> None:
    async with stage() as at:
        await lived(at)
        await at.keys.erase("demo", "8")
        at.clock.advance(FRESH_S)
        await at.system.shards[0].renew()
        with pytest.raises(Conflict, match="erased"):
            await at.system.ask(SESSION, SCAN, key=Key("8:phone", 1))
        assert isinstance(await at.system.ask(SESSION, SCAN, key=Key("8:phone", 2)), WalkedIn), "who comes back is served"
        stored = at.store.logs[("demo", partition_of(SESSION))][-1].events[0]
        assert decode_event(stored.type, stored.body) == QrScanned(ERASED_TEXT, ERASED_TEXT)


def test_an_event_without_personal_fields_is_the_same_object() -> None:
    from actors.events import Late
    from esplanade.storage.sealing import SubjectSeal

    late = Late(1, 2, 3)
    assert seal_event(late, SubjectSeal("demo", "8", b"k" * 32, bytes)) is late
    assert encode_event(QrScanned("parkside", "north"))[1].hex() == "92a87061726b73696465a56e6f727468", "the form on the wire is as it was"


def test_personal_kinds_are_kinds() -> None:
    assert set(BEHAVIOURS) >= PERSONAL_KINDS


@pytest.mark.parametrize("text", ["", "x", "-1", "08", "4294967296", "1e3", "٣"])
def test_what_is_no_subject_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        check_subject(text)


async def test_consent_is_kept_sealed_and_an_erased_person_is_asked_again() -> None:
    async with stage() as at:

        async def ask(command: SetConsent | GetConsent, sequence: int | None = None) -> Consent:
            reply = await at.system.ask(SESSION, command, key=None if sequence is None else Key("8:phone", sequence))
            assert isinstance(reply, Consent)
            return reply

        assert await ask(GetConsent()) == Consent(given=False, text="", changes=0)
        agreed = await ask(SetConsent(given=True, text="hall-2026-11"), 1)
        assert agreed == Consent(given=True, text="hall-2026-11", changes=1)
        assert await ask(SetConsent(given=True, text="hall-2026-11"), 2) == agreed, "the same again is nothing new"
        told = [event.type for log in at.store.logs.values() for segment in log for event in segment.events if event.entity == str(SESSION)]
        assert told == ["consent_changed.v1", "answered.v1"]
        assert [(one["given"], one["text"]) for one in (await held(at))["sessions"] if one["what"] == "consent_changed.v1"] == [
            (True, "hall-2026-11")
        ]
        stored = b"".join(event.body for log in at.store.logs.values() for segment in log for event in segment.events)
        assert b"hall-2026-11" not in stored + at.system.shards[0]._logs[("demo", partition_of(SESSION))].save()
        await at.restart()
        assert await ask(GetConsent()) == agreed
        assert await ask(SetConsent(given=False), 3) == Consent(given=False, text="", changes=2)
        await ask(SetConsent(given=True, text="hall-2026-12"), 4)

        await at.keys.erase("demo", "8")
        at.clock.advance(FRESH_S)
        await at.system.shards[0].renew()
        assert await ask(GetConsent()) == Consent(given=False, text="", changes=3), "who was erased has agreed to nothing"
        again = await ask(SetConsent(given=True, text="hall-2026-12"), 5)
        assert (again.given, (await ask(GetConsent())).given) == (True, True), "who comes back is served"
        assert "hall-2026-12" not in json.dumps(await held(at))


def test_a_session_that_was_saved_before_there_was_consent_is_read() -> None:
    session = Session()
    old = session.load(msgspec.msgpack.encode(("parkside", "north_entrance", 3)))
    assert (old.venue, old.location, old.scans, old.given, old.changes) == ("parkside", "north_entrance", 3, False, 0)
    assert session.load(session.save(old)) == old
