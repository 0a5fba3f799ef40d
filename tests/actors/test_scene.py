"""A scene as given, when, then; and through a shard that is killed amid edits."""

from __future__ import annotations

import random

import pytest

from actors.behaviour import Context, Decision
from actors.events import SceneEdited
from actors.messages import EditScene, Rejected, SceneDelta, SceneEdits, SyncScene
from actors.scene import KNOWN_MS, MAX_EDIT_OPS, TIDY_MS, SceneActor
from actors.topics import SceneChanged
from ar.scene import Scene
from ar.scene_ops import ROOT, Dot
from ar.scene_rights import EDITORS, LEASE, MAX_LEASE_MS
from esplanade.core.errors import Unavailable
from esplanade.core.ids import Address
from tests.actors.stage import stage

NOW = 1_700_000_000_000
ADDRESS = Address("scene", "demo", "parkside:hall")
CONTEXT = Context(address=ADDRESS)


def edit(replica: Scene, since: dict[str, int], *, staff: bool = False, subject: int = 7, now_ms: int = NOW) -> EditScene:
    return EditScene(ops=replica.delta(since), author=replica.client, subject=subject, staff=staff, now_ms=now_ms)


def when(state: Scene, command: EditScene | SyncScene) -> Decision:
    before = state.snapshot()
    decision = SceneActor().decide(state, command, CONTEXT)
    assert isinstance(decision, Decision), decision
    assert state.snapshot() == before, "decide leaves the state as it finds it"
    for event in decision.events:
        SceneActor().apply(state, event)
    return decision


def refused(state: Scene, command: EditScene | SyncScene) -> str:
    before = state.snapshot()
    decision = SceneActor().decide(state, command, CONTEXT)
    assert isinstance(decision, Rejected)
    assert state.snapshot() == before
    return decision.code


def opened() -> tuple[Scene, Scene, Dot]:
    """A scene with one node, made by an operator, and the operator's replica."""
    state, staff = Scene("server"), Scene("1:desk")
    node = staff.create(now_ms=NOW)
    when(state, edit(staff, {}, staff=True, subject=1))
    return state, staff, node


def visitor(state: Scene, name: str = "7:phone") -> Scene:
    replica = Scene(name)
    replica.merge(state.delta({}), now_ms=NOW)
    return replica


def test_an_edit_takes_effect_is_told_and_counts_once() -> None:
    state, _, node = opened()
    phone = visitor(state)
    since = dict(phone.ack().seen)
    phone.set(node, "colour", "red", now_ms=NOW)
    command = edit(phone, since)
    decision = when(state, command)
    assert decision.reply == SceneEdits(applied=1, known=0)
    assert state.get(node, "colour") == "red"
    [(topic, body)] = decision.outbox
    assert topic == "venue/parkside/scene/hall"
    assert body == SceneChanged(venue="parkside", scene="hall", author="7:phone", ops=command.ops)
    assert when(state, command) == Decision((), SceneEdits(applied=0, known=1))


def test_the_journal_holds_what_is_new_of_a_batch() -> None:
    state, _, node = opened()
    phone = visitor(state)
    since = dict(phone.ack().seen)
    phone.set(node, "a", 1, now_ms=NOW)
    when(state, edit(phone, since))
    phone.set(node, "b", 2, now_ms=NOW)
    decision = when(state, edit(phone, since))
    assert decision.reply == SceneEdits(applied=1, known=1)
    [event] = decision.events
    assert isinstance(event, SceneEdited)
    assert len(event.ops) < len(phone.delta(since))


def test_folding_the_events_gives_the_same_bytes_after_a_snapshot_too() -> None:
    actor, chance = SceneActor(), random.Random(4)
    state, staff, _ = opened()
    events = []
    replicas = [staff, *(visitor(state, f"{i}:phone") for i in range(2, 5))]
    middle = b""
    for step in range(60):
        replica = chance.choice(replicas)
        replica.merge(state.delta(replica.ack().seen), now_ms=NOW + step)
        since = dict(replica.ack().seen)
        nodes = list(replica.nodes())
        if chance.random() < 0.4:
            replica.create(chance.choice([ROOT, *nodes]), now_ms=NOW + step)
        else:
            replica.set(chance.choice(nodes), "n", step, now_ms=NOW + step)
        events += when(state, edit(replica, since, staff=True, now_ms=NOW + step)).events
        if step == 30:
            middle, at = actor.save(state), len(events)
    folded = actor.load(middle)
    for event in events[at:]:
        folded = actor.apply(folded, event)
    assert actor.save(folded) == actor.save(state)


def test_the_first_edit_is_for_staff() -> None:
    phone = Scene("7:phone")
    phone.create(now_ms=NOW)
    assert refused(Scene("server"), edit(phone, {})) == "scene_not_found"


def test_a_forged_client_a_stamp_from_the_future_and_garbage_are_refused() -> None:
    state, _, node = opened()
    phone = visitor(state)
    since = dict(phone.ack().seen)
    phone.set(node, "colour", "red", now_ms=NOW + 120_000)
    assert refused(state, edit(phone, since)) == "invalid_edit"
    forged = EditScene(ops=phone.delta(since), author="8:phone", subject=8, now_ms=NOW + 120_000)
    assert refused(state, forged) == "edit_forbidden"
    assert refused(state, EditScene(ops=b"\xe5\x01garbage", author="7:phone", subject=7, now_ms=NOW)) == "invalid_edit"


def test_what_builds_on_operations_that_the_scene_has_not_seen_is_refused() -> None:
    state, _, node = opened()
    phone = visitor(state)
    since = dict(phone.ack().seen)
    phone.set(node, "a", 1, now_ms=NOW)
    half = dict(phone.ack().seen)
    phone.set(node, "a", 2, now_ms=NOW)
    assert refused(state, edit(phone, half)) == "causes_missing"
    assert when(state, edit(phone, since)).reply == SceneEdits(applied=2, known=0)


def test_an_edit_has_a_limit_of_operations() -> None:
    state, _, node = opened()
    phone = visitor(state)
    since = dict(phone.ack().seen)
    for i in range(MAX_EDIT_OPS + 1):
        phone.set(node, "n", i % 200, now_ms=NOW)
    assert refused(state, edit(phone, since)) == "edit_too_large"


def test_listed_editors_hold_for_all_below_and_nobody_else_takes_them_over() -> None:
    state, staff, stand = opened()
    since = dict(staff.ack().seen)
    lamp = staff.create(stand, now_ms=NOW)
    staff.set(stand, EDITORS, [7], now_ms=NOW)
    when(state, edit(staff, since, staff=True, subject=1))

    def tried(subject: int, act: str) -> str | None:
        phone = visitor(state, f"{subject}:phone")
        since = dict(phone.ack().seen)
        own = phone.create(now_ms=NOW)
        match act:
            case "set":
                phone.set(lamp, "on", True, now_ms=NOW)
            case "move in":
                phone.move(own, lamp, now_ms=NOW)
            case "move out":
                phone.move(lamp, ROOT, now_ms=NOW)
            case "create":
                phone.create(lamp, now_ms=NOW)
            case "delete":
                phone.delete(stand, now_ms=NOW)
            case "take over":
                phone.set(stand, EDITORS, [subject], now_ms=NOW)
            case "root":
                phone.set(ROOT, EDITORS, [subject], now_ms=NOW)
            case "own":
                phone.set(own, EDITORS, [subject], now_ms=NOW)
        decision = SceneActor().decide(state, edit(phone, since, subject=subject), CONTEXT)
        return decision.code if isinstance(decision, Rejected) else None

    for act in ("set", "move in", "move out", "create", "delete", "take over"):
        assert tried(8, act) == "edit_forbidden", act
    for act in ("set", "move in", "move out", "create", "delete"):
        assert tried(7, act) is None, act
    assert tried(7, "take over") == "edit_forbidden", "it was staff who made it"
    assert tried(7, "root") == "edit_forbidden"
    assert tried(8, "own") is None
    bad = visitor(state, "1:desk2")
    since = dict(bad.ack().seen)
    bad.set(stand, EDITORS, ["7"], now_ms=NOW)
    assert refused(state, edit(bad, since, staff=True, subject=1)) == "invalid_edit"


def test_a_lease_keeps_others_away_until_it_ends_is_given_back_or_its_time_is_over() -> None:
    state, staff, stand = opened()
    since = dict(staff.ack().seen)
    lamp = staff.create(stand, now_ms=NOW)
    when(state, edit(staff, since, staff=True, subject=1))

    def tried(subject: int, *acts: tuple[Dot, str, object], at_ms: int = NOW, take: bool = False, by_staff: bool = False) -> str | None:
        phone = visitor(state, f"{subject}:phone{at_ms}{take}{len(state.ack().seen)}")
        since = dict(phone.ack().seen)
        for node, key, value in acts:
            if key == "delete":
                phone.delete(node, now_ms=at_ms)
            else:
                phone.set(node, key, value, now_ms=at_ms)
        command = edit(phone, since, subject=subject, now_ms=at_ms, staff=by_staff)
        decision = SceneActor().decide(state, command, CONTEXT)
        if isinstance(decision, Rejected):
            return decision.code
        if take:
            when(state, command)
        return None

    ends = NOW + 10_000
    assert tried(7, (stand, LEASE, [7, ends]), take=True) is None
    for acts in (
        [(lamp, "on", True)],
        [(stand, "x", 1)],
        [(stand, LEASE, [8, ends])],
        [(lamp, LEASE, [8, ends])],
        [(stand, LEASE, None)],
        [(lamp, "delete", 0)],
    ):
        assert tried(8, *acts) == "edit_forbidden", acts
    assert tried(8, (ROOT, LEASE, [8, ends])) == "edit_forbidden", "what is below is another's"
    assert tried(8, (ROOT, "x", 1)) is None
    assert tried(7, (lamp, "on", True)) is None
    assert tried(1, (lamp, "on", True), by_staff=True) is None
    assert tried(8, (lamp, "on", True), at_ms=ends) is None, "its time is over"
    assert tried(7, (stand, LEASE, [7, ends + 60_000]), at_ms=NOW + 5_000, take=True) is None, "renewed"
    assert tried(8, (lamp, "on", True), at_ms=ends + 1) == "edit_forbidden"
    assert tried(7, (stand, LEASE, None), at_ms=ends + 2, take=True) is None
    assert tried(8, (stand, LEASE, [8, ends + 60_000]), at_ms=ends + 3) is None
    for bad in ([8, ends], [7, NOW + MAX_LEASE_MS + 1], [7], "7", [7, "soon"], [True, ends]):
        assert tried(7, (lamp, LEASE, bad)) == "invalid_edit", bad


def test_a_replica_far_behind_syncs_by_pages() -> None:
    state, staff, node = opened()
    for i in range(30):
        since = dict(staff.ack().seen)
        staff.set(node, f"k{i}", "x" * 60_000, now_ms=NOW)
        when(state, edit(staff, since, staff=True, subject=1))
    late, pages = Scene("9:phone"), 0
    while True:
        delta = when(state, SyncScene(seen=dict(late.ack().seen))).reply
        assert isinstance(delta, SceneDelta)
        late.merge(delta.ops, now_ms=NOW)
        pages += 1
        if delta.whole:
            break
    assert pages == 2
    assert late.digest() == state.digest()


def test_a_version_vector_has_a_limit() -> None:
    assert refused(Scene("server"), SyncScene(seen={str(i): 1 for i in range(10_001)})) == "invalid_edit"


def synced(state: Scene, replica: Scene, *, sent: int = 0, now_ms: int = NOW, staff: bool = False) -> Decision:
    """A client's sync: what it lacks, then its own after the first `sent`. Returns the sync's decision."""
    decision = when(state, SyncScene(seen=dict(replica.ack().seen), client=replica.client, now_ms=now_ms))
    assert isinstance(decision.reply, SceneDelta)
    replica.merge(decision.reply.ops, now_ms=now_ms)
    since = dict(replica.ack().seen) | {replica.client: sent}
    subject = int(replica.client.partition(":")[0])
    if replica.ack().seen.get(replica.client, 0) > sent:
        when(state, edit(replica, since, staff=staff, subject=subject, now_ms=now_ms))
    return decision


def test_the_deleted_is_forgotten_at_a_sync_once_every_writer_of_the_week_has_seen_it_and_the_readers_are_told() -> None:
    state, staff, node = opened()
    phone = visitor(state)
    phone.create(now_ms=NOW)
    synced(state, phone)
    own = staff.ack().seen["1:desk"]
    staff.delete(node, now_ms=NOW + 1)
    synced(state, staff, sent=own, staff=True)
    at = NOW + TIDY_MS
    assert not synced(state, staff, sent=own + 1, now_ms=at).events, "the phone has not seen it"
    at += TIDY_MS
    assert not synced(state, phone, sent=1, now_ms=at).events, "it says only now what it had before"
    assert not synced(state, phone, sent=1, now_ms=at + TIDY_MS - 1).events, "once a minute"
    folded = SceneActor().load(state.snapshot())
    decision = synced(state, phone, sent=1, now_ms=at + TIDY_MS)
    [event] = decision.events
    assert isinstance(event, SceneEdited)
    assert event.author == "server"
    [(topic, _)] = decision.outbox
    assert topic == "venue/parkside/scene/hall"
    phone.merge(event.ops, now_ms=at + TIDY_MS)
    assert phone.digest() == state.digest()
    assert SceneActor().save(SceneActor().apply(folded, event)) == SceneActor().save(state)
    assert refused(state, SyncScene(seen={}, client="9:phone", now_ms=at)) == "scene_too_old"


def test_who_reads_a_snapshot_reads_on_in_the_one_they_began_with_and_each_version_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.scene.PAGE_BYTES", 64)
    state, staff, node = opened()
    for at in range(40):
        staff.set(node, f"p{at}", at, now_ms=NOW + at)
    actor = SceneActor()
    actor.apply(state, SceneEdited("1:desk", NOW + 100, staff.delta(state.ack().seen)))
    encoded: list[str] = []
    whole = Scene.snapshot

    def counted(scene: Scene) -> bytes:
        encoded.append(scene.digest())
        return whole(scene)

    monkeypatch.setattr(Scene, "snapshot", counted)
    read: dict[str, bytes] = {"1:a": b"", "2:b": b"", "3:late": b""}

    def page(reader: str) -> bool:
        decision = actor.decide(state, SyncScene(seen={}, client=reader, snapshot=True, at=len(read[reader])), CONTEXT)
        assert isinstance(decision, Decision)
        assert isinstance(decision.reply, SceneDelta)
        read[reader] += decision.reply.ops
        return decision.reply.whole

    for reader in ("1:a", "2:b"):
        assert not page(reader)
    before, first = state.digest(), len(encoded)
    staff.set(node, "late", 1, now_ms=NOW + 200)
    actor.apply(state, SceneEdited("1:desk", NOW + 200, staff.delta(state.ack().seen)))
    for reader in read:
        while not page(reader):
            pass
    assert (first, len(encoded)) == (1, 2)
    assert [Scene.load("x", data).digest() for data in read.values()] == [before, before, state.digest()]


def test_who_was_away_for_longer_takes_a_snapshot_and_loses_nothing_that_was_not_sent() -> None:
    state, staff, node = opened()
    kept = staff.create(now_ms=NOW)
    synced(state, staff, sent=1, staff=True)
    away = visitor(state)
    away.set(kept, "colour", "red", now_ms=NOW)
    synced(state, away)
    away.set(kept, "colour", "blue", now_ms=NOW + 1)  # without a network from here on
    away.set(node, "text", "hello", now_ms=NOW + 1)
    lamp = away.create(node, now_ms=NOW + 1)
    away.set(lamp, "on", True, now_ms=NOW + 1)
    staff.delete(node, now_ms=NOW + 2)
    synced(state, staff, sent=2, staff=True)
    later = NOW + KNOWN_MS + 1
    staff.set(kept, "size", 1, now_ms=later)
    assert synced(state, staff, sent=3, now_ms=later, staff=True).events, "nobody else has written for a week"
    sync = SyncScene(seen=dict(away.ack().seen), client=away.client, now_ms=later)
    assert refused(state, sync) == "scene_too_old"
    assert refused(state, edit(away, dict(away.ack().seen) | {away.client: 1}, now_ms=later)) == "scene_too_old"
    data, whole = b"", False
    while not whole:
        part = when(state, SyncScene(seen={}, snapshot=True, at=len(data), now_ms=later)).reply
        assert isinstance(part, SceneDelta)
        data, whole = data + part.ops, part.whole
    lost = away.rebase(data, now_ms=later)
    assert [(one.what, one.node, one.value) for one in lost] == [("text", node, "hello"), ("move", lamp, tuple(node))]
    synced(state, away, sent=1, now_ms=later)
    assert state.get(kept, "colour") == "blue"
    assert state.parent(lamp) == ROOT
    assert state.get(lamp, "on") is True
    assert away.digest() == state.digest()


@pytest.mark.parametrize("seed", range(3))
async def test_no_acked_edit_is_lost_when_the_shard_is_killed_amid_edits(seed: int) -> None:
    chance = random.Random(seed)
    async with stage() as at:
        staff = Scene("1:desk")
        staff.create(now_ms=NOW)
        await at.system.ask(ADDRESS, edit(staff, {}, staff=True))
        replicas = [Scene(f"{i}:phone") for i in range(2, 5)]
        acked: dict[str, int] = {}
        sent: dict[str, int] = {}
        for step in range(80):
            replica = chance.choice(replicas)
            delta = await at.system.ask(ADDRESS, SyncScene(seen=dict(replica.ack().seen)))
            assert isinstance(delta, SceneDelta)
            replica.merge(delta.ops, now_ms=NOW + step)
            since = dict(replica.ack().seen) | {replica.client: acked.get(replica.client, 0)}
            replica.create(now_ms=NOW + step)
            replica.set(chance.choice(list(replica.nodes())), "n", step, now_ms=NOW + step)
            sent[replica.client] = replica.ack().seen[replica.client]
            try:
                await at.system.ask(ADDRESS, edit(replica, since, now_ms=NOW + step))
                acked[replica.client] = sent[replica.client]
            except Unavailable:
                pass
            if chance.random() < 0.1:
                await at.restart()
                await at.settle()
        delta = await at.system.ask(ADDRESS, SyncScene(seen={}))
        assert isinstance(delta, SceneDelta)
        there = Scene("9:reader")
        there.merge(delta.ops, now_ms=NOW + 1000)
        assert {client: there.ack().seen.get(client, 0) for client in acked} == acked
        assert sum(acked.values()) > 50
