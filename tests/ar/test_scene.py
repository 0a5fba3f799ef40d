"""A scene converges whatever the network does, loses nothing, and shows who disagreed."""

from __future__ import annotations

import os
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ar import scene_ops
from ar.ordering import between
from ar.scene import Scene
from ar.scene_ops import CREATE, MOVE, ROOT, SET, TRASH, Dot, Op, decode, decode_runs, encode
from esplanade.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from tests.ar.make_console_scenes import FILE, written
from tests.ar.schedules import START_MS, faults, run, run_star

NOW = START_MS
SEEDS = range(*map(int, os.environ.get("ESPLANADE_SCENE_SEEDS", "0:150").split(":")))


def sync(*scenes: Scene) -> None:
    for _ in range(2):
        for a in scenes:
            for b in scenes:
                if a is not b:
                    b.merge(a.delta(b.ack().seen), now_ms=NOW + 60_000)


def test_random_schedules_with_partitions_converge_without_cycles_or_lost_subtrees() -> None:
    wrong = {seed: bad for seed in SEEDS if (bad := faults(run(seed)))}
    assert not wrong


def test_random_schedules_converge_while_the_deleted_is_being_forgotten() -> None:
    wrong = {seed: bad for seed in SEEDS[::3] if (bad := faults(run(seed, collecting=True)))}
    assert not wrong


def test_what_a_server_forgets_costs_nobody_an_operation_however_long_they_were_away() -> None:
    forgotten = renewed = found_no_place = 0
    for seed in SEEDS[::3]:
        star = run_star(seed)
        server, *clients = star.scenes
        assert not faults([server, *clients]), seed
        for replica in clients:
            assert server.ack().seen.get(replica.client, 0) == replica.ack().seen.get(replica.client, 0), (seed, replica.client)
        late = Scene.load("late", server.snapshot(), now_ms=NOW + 10**9)
        assert late.digest() == server.digest(), seed
        forgotten, renewed, found_no_place = forgotten + star.forgotten, renewed + star.renewed, found_no_place + len(star.lost)
    assert forgotten > len(SEEDS) // 3
    assert renewed > len(SEEDS) // 30
    assert found_no_place


def test_concurrent_moves_into_each_other_make_no_cycle() -> None:
    a, b = Scene("a"), Scene("b")
    x, y = a.create(now_ms=NOW), a.create(now_ms=NOW)
    sync(a, b)
    a.move(x, y, now_ms=NOW + 1)
    b.move(y, x, now_ms=NOW + 2)
    sync(a, b)
    assert a.digest() == b.digest()
    assert a.parent(x) == y
    assert a.parent(y) == ROOT


def test_what_was_moved_into_a_deleted_subtree_meanwhile_shows_where_that_was() -> None:
    a, b = Scene("a"), Scene("b")
    hall = a.create(now_ms=NOW)
    stand, lamp = a.create(hall, now_ms=NOW), a.create(now_ms=NOW)
    bulb = a.create(lamp, now_ms=NOW)
    sync(a, b)
    a.delete(stand, now_ms=NOW + 1)
    b.move(lamp, stand, now_ms=NOW + 2)
    sync(a, b)
    assert a.digest() == b.digest()
    assert stand not in a
    assert a.parent(lamp) == hall
    assert a.parent(bulb) == lamp


def test_the_loser_of_a_property_can_be_asked_for_until_somebody_settles_it() -> None:
    a, b = Scene("a"), Scene("b")
    node = a.create(now_ms=NOW)
    sync(a, b)
    a.set(node, "colour", "red", now_ms=NOW + 1)
    b.set(node, "colour", "blue", now_ms=NOW + 2)
    sync(a, b)
    for scene in (a, b):
        assert scene.get(node, "colour") == "blue"
        (lost,) = scene.conflicts(node)
        assert (lost.what, lost.client, lost.value) == ("colour", "a", "red")
    a.set(node, "colour", "purple", now_ms=NOW + 3)
    sync(a, b)
    assert b.get(node, "colour") == "purple"
    assert not b.conflicts()


def test_an_edit_of_what_was_deleted_meanwhile_is_a_visible_conflict() -> None:
    a, b = Scene("a"), Scene("b")
    node = a.create(now_ms=NOW)
    sync(a, b)
    a.delete(node, now_ms=NOW + 1)
    b.set(node, "text", "hello", now_ms=NOW + 2)
    sync(a, b)
    assert node not in b
    assert [(c.what, c.client, c.value) for c in a.conflicts()] == [("deleted", "b", {"text": "hello"})]


def test_two_moves_apart_leave_the_losers_wish_visible() -> None:
    a, b = Scene("a"), Scene("b")
    x, left, right = (a.create(now_ms=NOW) for _ in range(3))
    sync(a, b)
    a.move(x, left, now_ms=NOW + 1)
    b.move(x, right, now_ms=NOW + 2)
    sync(a, b)
    assert a.parent(x) == b.parent(x) == right
    assert [(c.what, c.client, Dot(*c.value)) for c in b.conflicts(x)] == [("move", "a", left)]


def test_undo_and_redo_take_back_our_own_and_leave_what_others_changed() -> None:
    a, b = Scene("a"), Scene("b")
    node = a.create(now_ms=NOW)
    a.set(node, "text", "one", now_ms=NOW)
    a.set(node, "text", "two", now_ms=NOW)
    a.undo(now_ms=NOW)
    assert a.get(node, "text") == "one"
    a.redo(now_ms=NOW)
    assert a.get(node, "text") == "two"
    a.delete(node, now_ms=NOW)
    assert node not in a
    a.undo(now_ms=NOW)
    assert a.properties(node) == {"text": "two"}
    sync(a, b)
    b.set(node, "text", "theirs", now_ms=NOW + 5)
    sync(a, b)
    a.set(node, "other", 1, now_ms=NOW + 6)
    a.undo(now_ms=NOW + 7)
    assert a.properties(node) == {"text": "theirs"}


def test_undo_of_what_another_has_written_since_is_refused() -> None:
    a, b = Scene("a"), Scene("b")
    node = a.create(now_ms=NOW)
    a.set(node, "text", "one", now_ms=NOW)
    sync(a, b)
    b.set(node, "text", "theirs", now_ms=NOW + 5)
    sync(a, b)
    with pytest.raises(Conflict, match="written it since"):
        a.undo(now_ms=NOW + 6)


def test_children_keep_the_order_they_were_put_in() -> None:
    a = Scene("a")
    first = a.create(now_ms=NOW)
    third = a.create(now_ms=NOW)
    second = a.create(now_ms=NOW, after=first)
    zeroth = a.create(now_ms=NOW, last=False)
    assert a.children() == [zeroth, first, second, third]
    a.move(zeroth, ROOT, now_ms=NOW, after=third)
    assert a.children() == [first, second, third, zeroth]


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=120))
def test_there_is_always_an_order_key_between_two(inserts: list[tuple[int, int]]) -> None:
    row: list[bytes] = []
    for at, salt in inserts:
        i = at % (len(row) + 1)
        row.insert(i, between(row[i - 1] if i else b"", row[i] if i < len(row) else None, salt))
    assert row == sorted(row)
    assert len(set(row)) == len(row)


def test_what_shows_after_each_edit_is_what_a_fresh_replica_shows() -> None:
    chance = random.Random(8)
    scene, other = Scene("a"), Scene("b")
    for step in range(400):
        nodes = list(scene.nodes())
        roll = chance.random()
        try:
            if not nodes or roll < 0.35:
                scene.create(chance.choice([ROOT, *nodes]), now_ms=NOW + step, last=chance.random() < 0.7)
            elif roll < 0.75:
                parent = chance.choice([ROOT, *nodes])
                row = scene.children(parent)
                node = chance.choice(nodes)
                after = chance.choice(row) if row and chance.random() < 0.4 else None
                scene.move(node, parent, now_ms=NOW + step, after=None if after == node else after, last=chance.random() < 0.5)
            elif roll < 0.85:
                scene.delete(chance.choice(nodes), now_ms=NOW + step)
            elif roll < 0.9:
                scene.undo(now_ms=NOW + step)
            elif (theirs := list(other.nodes())) and roll < 0.97:
                other.move(chance.choice(theirs), chance.choice([ROOT, *theirs]), now_ms=NOW + step)
            else:
                sync(scene, other)
        except (InvalidInput, Conflict):
            continue
        fresh = Scene("c")
        fresh.merge(scene.delta({}), now_ms=NOW + 60_000)
        assert fresh.digest() == scene.digest(), step


def test_a_thousand_appended_children_keep_short_keys() -> None:
    key = b""
    for i in range(1000):
        key = between(key, None, i % 256)
    assert len(key) <= 3


def test_the_deleted_is_forgotten_only_when_every_client_has_seen_it() -> None:
    server, a, b = Scene("server"), Scene("a"), Scene("b")
    node = a.create(now_ms=NOW)
    keep = a.create(now_ms=NOW)
    a.set(node, "text", "x" * 1000, now_ms=NOW)
    sync(server, a, b)
    a.delete(node, now_ms=NOW + 1)
    server.merge(a.delta(server.ack().seen), now_ms=NOW)
    acks = {s.client: s.ack() for s in (server, a, b)}
    assert server.collect(acks, now_ms=NOW + 10) == 0
    sync(server, a, b)
    b.create(now_ms=NOW + 20)
    sync(server, a, b)
    before = len(server.snapshot())
    assert server.collect({s.client: s.ack() for s in (server, a, b)}, now_ms=NOW + 30) == 1
    assert len(server.snapshot()) < before - 900
    sync(server, a, b)
    assert a.digest() == b.digest() == server.digest()
    assert keep in b
    with pytest.raises(Conflict, match="snapshot"):
        server.delta({})


def test_a_move_that_not_all_have_seen_shows_where_it_went_after_the_deleted_is_forgotten() -> None:
    server, a, b = Scene("server"), Scene("a"), Scene("b")
    place, lamp, gone = (a.create(now_ms=NOW) for _ in range(3))
    sync(server, a, b)
    a.delete(gone, now_ms=NOW + 1)
    sync(server, a, b)
    b.create(place, now_ms=NOW + 2)
    sync(server, a, b)
    a.move(lamp, place, now_ms=NOW + 3)
    server.merge(a.delta(server.ack().seen), now_ms=NOW + 3)
    assert server.parent(lamp) == place
    assert server.collect({s.client: s.ack() for s in (server, a, b)}, now_ms=NOW + 10) == 1
    assert server.parent(lamp) == place
    assert server.digest() == Scene.load("late", server.snapshot()).digest()


def test_a_snapshot_carries_a_late_client_which_then_edits_like_the_others() -> None:
    for seed in range(20):
        scenes = run(seed, collecting=True)
        late = Scene.load("late", scenes[0].snapshot(), now_ms=NOW + 120_000)
        assert late.digest() == scenes[0].digest()
        late.set(late.create(now_ms=NOW + 120_000), "text", "late", now_ms=NOW + 120_000)
        for scene in scenes:
            scene.merge(late.delta(scene.ack().seen), now_ms=NOW + 120_000)
        assert {scene.digest() for scene in scenes} == {late.digest()}


def test_operations_out_of_order_wait_and_duplicates_count_for_nothing() -> None:
    a, b = Scene("a"), Scene("b")
    node = a.create(now_ms=NOW)
    first = a.delta({})
    a.set(node, "n", 1, now_ms=NOW)
    second = a.delta({"a": 1})
    assert b.merge(second, now_ms=NOW).waiting == 1
    assert node not in b
    done = b.merge(first, now_ms=NOW)
    assert (done.applied, done.waiting) == (2, 0)
    assert b.merge(first, now_ms=NOW).known == 1
    assert b.get(node, "n") == 1


@given(st.integers(0, 400))
def test_bytes_come_back_as_the_operations_they_were(seed: int) -> None:
    ops = decode(run(seed, steps=25)[0].delta({}))
    again = decode(encode(ops))
    assert [(o.dot, o.stamp, dict(o.context), o.kind, o.node, o.parent, o.order, o.key, o.value) for o in again] == [
        (o.dot, o.stamp, dict(o.context), o.kind, o.node, o.parent, o.order, o.key, o.value) for o in ops
    ]


def test_garbled_bytes_are_refused_and_touch_nothing() -> None:
    good = run(7)[0].delta({})
    chance = random.Random(1)
    for _ in range(500):
        bad = bytearray(good[: chance.randrange(2, len(good))])
        for _ in range(chance.randrange(1, 4)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        scene = Scene("x")
        try:
            scene.merge(bytes(bad), now_ms=NOW + 60_000)
        except (InvalidInput, Forbidden):
            assert not scene.ack().seen
            assert not list(scene.nodes())


def _many(seed: int, count: int) -> list[Op]:
    """Operations of every kind but COLLECT by three clients, in bursts, with contexts that grow and values of every kind."""
    chance = random.Random(seed)
    names = ("a", "bé", "c" * 150)
    counted, stamp, ops = dict.fromkeys(names, 0), NOW << 16, []
    contexts: dict[str, dict[str, int]] = {name: {} for name in names}
    values = (0, 255, 256, -1, 2**40, 0.5, None, True, "", "é" * 200, "x" * 3_000, b"\0" * 300, [1, ["x"]], {"k": 1})
    while len(ops) < count:
        who = chance.choice(names)
        if chance.random() < 0.5:
            other = chance.choice([name for name in names if name != who])
            contexts[who] = contexts[who] | {other: counted[other]} if counted[other] else contexts[who]
        for _ in range(chance.choice((1, 3, 40))):
            counted[who] += 1
            stamp += chance.choice((1, 1, 7, 70_000))
            dot = Dot(who, counted[who])
            node, parent = (Dot(chance.choice(names), chance.choice((1, 300, 2**40))) for _ in range(2))
            match chance.choice((CREATE, MOVE, MOVE, SET, SET)):
                case scene_ops.CREATE:
                    ops.append(Op(dot, stamp, contexts[who], CREATE, dot, ROOT if chance.random() < 0.7 else parent, chance.randbytes(3)))
                case scene_ops.MOVE:
                    parent = TRASH if node == parent or chance.random() < 0.2 else parent
                    ops.append(Op(dot, stamp, contexts[who], MOVE, node, parent, chance.randbytes(chance.choice((1, 200)))))
                case _:
                    ops.append(Op(dot, stamp, contexts[who], SET, node, key=f"k{chance.randrange(200)}", value=chance.choice(values)))
    return ops


@pytest.mark.parametrize("seed", range(6))
def test_many_operations_read_at_once_are_those_read_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ops = [op for op in _many(seed, scene_ops.MANY + 50) if op.parent != op.node]
    data = encode(ops)
    together, runs = decode_runs(data)
    assert runs is not None
    assert together == ops
    assert runs[0].start == 0
    assert sum(stop - start for start, stop in runs) == len(ops)
    for start, stop in runs:
        run = together[start:stop]
        assert all(b.dot == Dot(a.dot.client, a.dot.seq + 1) and b.stamp > a.stamp and b.context == a.context for a, b in pairwise(run))
    monkeypatch.setattr(scene_ops, "MANY", 10**9)
    apart, none = decode_runs(data)
    assert none is None
    assert apart == together


def _outcome(data: bytes) -> object:
    try:
        return decode(data)
    except InvalidInput as error:
        return error.message


def test_garbled_bytes_of_many_operations_mean_the_same_read_at_once_and_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(_many(9, scene_ops.MANY + 50))
    chance = random.Random(1)
    broken = [data[: chance.randrange(len(data))] for _ in range(20)]
    for _ in range(100):
        one = bytearray(data)
        for _ in range(chance.choice((1, 1, 5))):
            one[chance.randrange(5, len(one))] = chance.randrange(256)
        broken.append(bytes(one))
    together = [_outcome(one) for one in broken]
    monkeypatch.setattr(scene_ops, "MANY", 10**9)
    assert together == [_outcome(one) for one in broken]
    assert sum(isinstance(one, str) for one in together) > 40


def test_a_large_batch_merges_as_its_operations_one_by_one() -> None:
    a, b, c = Scene("a"), Scene("b"), Scene("c")
    chance = random.Random(3)
    nodes = [a.create(now_ms=NOW) for _ in range(300)]
    sync(a, b)
    for at in range(900):
        for scene in (a, b):
            node, parent = chance.sample(nodes, 2)
            if chance.random() < 0.5:
                scene.set(node, chance.choice("xyz"), at, now_ms=NOW + at)
            elif not scene.within(parent, node):
                scene.move(node, parent, now_ms=NOW + at)
    whole = [a.delta({}), b.delta(a.ack().seen | {"b": 0})]
    for data in (*whole, whole[0]):
        c.merge(data, now_ms=NOW + 1000)
    slow = Scene("slow")
    for data in whole:
        for op in decode(data):
            slow.merge(encode([op]), now_ms=NOW + 1000)
    assert c.digest() == slow.digest()
    assert c.conflicts() == slow.conflicts()
    assert c.ack().seen == slow.ack().seen
    with pytest.raises(Forbidden, match="own operations only"):
        Scene("d").merge(whole[1], now_ms=NOW + 1000, author="a")
    with pytest.raises(InvalidInput, match="ahead"):
        Scene("d").merge(whole[0], now_ms=NOW - 120_000)


def test_values_written_again_and_again_by_those_who_saw_the_last_do_not_pile_up() -> None:
    a, b = Scene("a"), Scene("b")
    node = a.create(now_ms=NOW)
    for at in range(300):
        sync(a, b)
        (a if at % 2 else b).set(node, "x", at, now_ms=NOW + at)
    sync(a, b)
    assert not a.conflicts()
    late = Scene("c")
    late.merge(a.delta({}), now_ms=NOW + 1000)
    assert late.get(node, "x") == 299
    assert not late.conflicts()


def _op(**changes: object) -> Op:
    given_: dict[str, object] = {"dot": Dot("a", 1), "stamp": NOW << 16, "context": {}, "kind": SET, "node": Dot("a", 9), "key": "k", "value": 1}
    return Op(**(given_ | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ops", "author", "error", "says"),
    [
        ([_op(stamp=(NOW + 61_000) << 16)], None, InvalidInput, "ahead of our clock"),
        ([_op(dot=Dot("b", 1))], "a", Forbidden, "its own operations only"),
        ([_op(kind=3, value=5)], None, Forbidden, "only 'server'"),
        ([_op(), _op(dot=Dot("a", 2), stamp=5)], None, InvalidInput, "goes back"),
        ([_op(kind=MOVE, node=TRASH)], None, InvalidInput, "the trash stay"),
        ([_op(kind=MOVE, node=Dot("a", 1), parent=Dot("a", 1))], None, InvalidInput, "below itself"),
        ([_op(key="")], None, InvalidInput, "without a name"),
        ([_op(dot=Dot("", 1))], None, InvalidInput, "must have a client"),
    ],
)
def test_operations_that_break_a_rule_are_refused_whole(ops: list[Op], author: str | None, error: type[Exception], says: str) -> None:
    scene = Scene("x")
    with pytest.raises(error) as caught:
        scene.merge(encode(ops), now_ms=NOW, author=author)
    assert says in str(caught.value)
    assert not scene.ack().seen


def test_edits_that_make_no_sense_are_refused_at_their_author() -> None:
    scene = Scene("a")
    node = scene.create(now_ms=NOW)
    below = scene.create(node, now_ms=NOW)
    with pytest.raises(InvalidInput, match="below itself"):
        scene.move(node, below, now_ms=NOW)
    with pytest.raises(NotFound, match="not in the scene"):
        scene.set(Dot("z", 4), "k", 1, now_ms=NOW)
    with pytest.raises(InvalidInput, match="MessagePack"):
        scene.set(node, "k", object(), now_ms=NOW)
    with pytest.raises(InvalidInput, match="asset"):
        scene.set(node, "k", b"0" * 70_000, now_ms=NOW)
    assert scene.within(below, node)
    assert not scene.within(node, below)


def test_the_scenes_that_the_console_is_checked_against_are_what_this_code_shows() -> None:
    assert FILE.read_text() == written(), "python -m tests.ar.make_console_scenes writes them anew; then run the console's tests"
