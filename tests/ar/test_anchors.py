"""Anchors are found where they are, by whom they may be, whatever changed and in whatever order."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ar.anchor_records import ACCESS, EVERYTHING, Anchor, Held, Observed, Seeker, check_anchor, check_anchors, full_covariance
from ar.anchor_refinement import refine_anchors
from ar.anchors import MAX_KEPT, TIER_ROWS, AnchorBook
from ar.pose import Poses
from esplanade.core.errors import InvalidInput, LimitExceeded, NotFound

NOW = 1_700_000_000_000


def name(i: int) -> bytes:
    return i.to_bytes(16, "big")


def anchor(i: int, x: float = 0.0, y: float = 0.0, **more: Any) -> Anchor:
    return Anchor(**({"id": name(i), "level": 0, "position_m": (x, y, 1.5)} | more))


def near(
    book: AnchorBook, x: float, y: float, radius_m: float = 20.0, k: int = 20, seeker: Seeker = EVERYTHING, level: int = 0, now_ms: int = NOW
) -> list[int]:
    return [int.from_bytes(held.anchor.id, "big") for held in book.near_one(level, x, y, radius_m, k, seeker, now_ms)]


HERE = Observed(id=name(1), position_m=(0.0, 0.0, 1.5))


class Twin:
    """The slow obvious one: a dict, looked through whole."""

    def __init__(self) -> None:
        self.anchors: dict[int, tuple[Anchor, int]] = {}
        self.carriers: dict[str, tuple[int, tuple[float, float, float], tuple[float, float, float, float]]] = {}

    def place(self, one: Anchor) -> tuple[int, Sequence[float]]:
        if not one.carrier:
            return one.level, one.position_m
        level, position, rotation = self.carriers.get(one.carrier, (one.level, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)))
        return level, Poses.of(position, rotation).apply([one.position_m])[0].tolist()

    def near(self, level: int, x: float, y: float, radius_m: float, k: int, seeker: Seeker, now_ms: int) -> list[tuple[float, int]]:
        found = []
        for i, (one, owner) in self.anchors.items():
            at, xyz = self.place(one)
            distance = math.hypot(xyz[0] - x, xyz[1] - y)
            allowed = owner == seeker.subject if seeker.own else seeker.staff or one.access == "everyone" or owner == seeker.subject
            if at == level and distance <= radius_m and allowed and set(seeker.tags) <= set(one.tags) and not 0 < one.expires_ms <= now_ms:
                found.append((distance, i))
        return sorted(found)[:k]


def test_what_is_near_is_what_a_look_at_all_of_them_finds_whatever_changed_before() -> None:
    chance = random.Random(3)
    book, twin = AnchorBook(), Twin()
    for step in range(9000):
        roll = chance.random()
        i = chance.randrange(6000)
        if roll < 0.75:
            carrier = f"float-{chance.randrange(3)}" if chance.random() < 0.03 else ""
            side = 5.0 if carrier else 120.0
            one = anchor(
                i, chance.uniform(0, side), chance.uniform(0, side), level=chance.randrange(2), access=chance.choice(ACCESS), carrier=carrier,
                tags=tuple(chance.sample(["art", "sale", "game"], chance.randrange(3))), expires_ms=chance.choice([0, 0, NOW - 1, NOW + 1]),
            )  # fmt: skip
            owner = chance.randrange(4)
            book.put(one, owner)
            if carrier:
                twin.carriers.setdefault(carrier, (one.level, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)))
            twin.anchors[i] = (one, owner)
        elif roll < 0.9 and i in twin.anchors:
            book.remove(name(i))
            del twin.anchors[i]
        elif roll < 0.92:
            where = (chance.randrange(2), (chance.uniform(0, 120), chance.uniform(0, 120), 0.0), (0.0, 0.0, math.sin(0.3), math.cos(0.3)))
            book.carry("float-1", *where)
            twin.carriers["float-1"] = where
        elif step % 8 == 0:
            seeker = Seeker(
                chance.randrange(4), chance.random() < 0.3, tuple(chance.sample(["art", "sale"], chance.randrange(2))), chance.random() < 0.2
            )
            ask = (chance.randrange(2), chance.uniform(0, 120), chance.uniform(0, 120), chance.uniform(1, 40), chance.randrange(1, 60))
            expected = twin.near(*ask, seeker, NOW)
            held = book.near_one(*ask, seeker, NOW)
            assert [round(one.distance_m, 9) for one in held] == [round(distance, 9) for distance, _ in expected]
            assert {int.from_bytes(one.anchor.id, "big") for one in held} == {i for _, i in expected}
    assert len(book) == len(twin.anchors) > 10 * TIER_ROWS
    loaded = AnchorBook.load(book.save())
    assert loaded.save() == book.save()
    for level in (0, 1):
        assert loaded.near_one(level, 60, 60, 30, 50, EVERYTHING, NOW) == book.near_one(level, 60, 60, 30, 50, EVERYTHING, NOW)


def test_many_hosted_at_once_are_held_as_each_hosted_by_itself() -> None:
    chance = random.Random(5)
    together, alone = AnchorBook(), AnchorBook()
    for step in range(40):
        again = step % 4 == 3
        ids = [chance.randrange(900) for _ in range(30)] if again else range(1000 * step, 1000 * step + 30)
        many = [
            anchor(
                i, chance.uniform(0, 50), chance.uniform(0, 50), level=chance.randrange(3), access=chance.choice(ACCESS), quality=chance.random(),
                rotation=(0.0, 0.0, -math.sin(0.2), -math.cos(0.2)), tags=tuple(chance.sample(["art", "sale", "game"], chance.randrange(4))),
                expires_ms=chance.choice([0, NOW + step]), fragment=chance.choice([b"", bytes([step]) * 32]), payload=chance.choice([b"", b"scene"]),
                covariance=chance.choice([(), tuple((np.eye(6)[np.triu_indices(6)] * 1e-4).tolist())]), carrier="lift" if step % 8 == 7 else "",
            )
            for i in ids
        ]  # fmt: skip
        assert together.previews(many, step) == [alone.preview(one, step) for one in many]
        together.put_all(many, step)
        for one in many:
            alone.put(one, step)
        for book in (together, alone):
            for i in list(ids)[:5]:
                if name(i) in book:
                    book.remove(name(i))
    assert together.save() == alone.save()
    assert together.expired(NOW + 99, 10_000) == alone.expired(NOW + 99, 10_000)
    assert together.near_one(1, 25, 25, 60, 500, EVERYTHING, NOW) == alone.near_one(1, 25, 25, 60, 500, EVERYTHING, NOW)


@pytest.mark.parametrize(
    "wrong", [{"level": 9}, {"rotation": (0.0, 0.0, 0.0, 2.0)}, {"tags": ("a", "a")}, {"fragment": b"short"}, {"covariance": (1.0,)}]
)
def test_of_many_hosted_at_once_the_one_that_is_wrong_is_named(wrong: dict[str, Any]) -> None:
    check_anchors([anchor(i) for i in range(9)], 3)
    with pytest.raises(InvalidInput) as caught:
        check_anchors([anchor(i, **(wrong if i == 7 else {})) for i in range(9)], 3)
    with pytest.raises(InvalidInput) as alone:
        check_anchor(anchor(7, **wrong), 3)
    assert caught.value.message == alone.value.message


def test_many_questions_in_one_call_answer_as_each_alone() -> None:
    rng = np.random.default_rng(5)
    book = AnchorBook()
    for i, (x, y) in enumerate(rng.uniform(0, 60, (3000, 2))):
        book.put(anchor(i, float(x), float(y), access="staff" if i % 3 else "everyone"), 1)
    x, y = rng.uniform(0, 60, 50), rng.uniform(0, 60, 50)
    hits = book.near(np.zeros(50, np.int32), x, y, 10.0, 15, Seeker(9), NOW)
    for q in range(50):
        alone = [held.anchor.id for held in book.near_one(0, x[q], y[q], 10.0, 15, Seeker(9), NOW)]
        assert book.ids(hits.of(q)) == alone
        assert len(alone) == 15


def test_hundreds_resolve_in_one_call_in_the_order_asked_and_what_is_hidden_or_gone_is_left_out() -> None:
    book = AnchorBook()
    for i in range(400):
        book.put(anchor(i, access="owner" if i % 2 else "everyone"), owner=7)
    asked = [name(i) for i in (399, 5, 4, 1000, 2)]
    assert [held.anchor.id for held in book.resolve(asked, Seeker(1), NOW)] == [name(4), name(2)]
    assert [held.anchor.id for held in book.resolve(asked, Seeker(7), NOW)] == [name(399), name(5), name(4), name(2)]
    assert len(book.resolve([name(i) for i in range(400)], EVERYTHING, NOW)) == 400


def test_hosting_an_id_again_is_its_next_version_and_another_pose_begins_its_observations_anew() -> None:
    book = AnchorBook()
    book.put(anchor(1), 7)
    book.observe(HERE, True)
    book.put(anchor(1, tags=("sale",)), 7)
    held = book.held(name(1))
    assert (held.version, held.agreed, held.anchor.tags) == (2, 1, ("sale",))
    book.put(anchor(1, x=3.0), 7)
    assert (book.held(name(1)).version, book.held(name(1)).agreed) == (3, 0)


def test_quality_rises_with_every_observation_that_agrees_and_falls_with_every_other() -> None:
    book = AnchorBook()
    book.put(anchor(1, quality=0.5), 7)
    told = [book.quality(name(1))]
    for _ in range(5):
        book.observe(HERE, book.agrees(Observed(id=name(1), position_m=(0.03, -0.02, 1.5))))
        told.append(book.quality(name(1)))
    assert told == sorted(set(told))
    assert told[-1] == pytest.approx(6 / 7)
    book.observe(HERE, book.agrees(Observed(id=name(1), position_m=(0.4, 0.0, 1.5))))
    assert book.quality(name(1)) < told[-1]
    assert (book.held(name(1)).agreed, book.held(name(1)).disputed) == (5, 1)


def test_an_observation_from_another_anchor_is_judged_in_that_anchors_frame() -> None:
    book = AnchorBook()
    turn = (0.0, 0.0, math.sin(math.pi / 4), math.cos(math.pi / 4))  # 90 degrees about z: x of its frame points along y of the venue
    book.put(anchor(1, x=10.0, y=5.0, rotation=turn), 7)
    book.put(anchor(2, x=10.0, y=8.0, rotation=turn), 7)
    assert book.agrees(Observed(id=name(2), position_m=(3.0, 0.0, 0.0), seen_from=name(1)))
    assert not book.agrees(Observed(id=name(2), position_m=(0.0, 3.0, 0.0), seen_from=name(1)))
    assert not book.agrees(Observed(id=name(2), position_m=(3.0, 0.0, 0.0), rotation=turn, seen_from=name(1)))


def test_an_anchor_hosted_with_a_wide_covariance_takes_wide_observations_for_agreement() -> None:
    wide = tuple(float(v) for v in np.diag([0.25, 0.25, 0.25, 0.01, 0.01, 0.01])[np.triu_indices(6)])
    seen = Observed(id=name(1), position_m=(1.0, 0.0, 1.5))
    book = AnchorBook()
    book.put(anchor(1), 7)
    assert not book.agrees(seen)
    book.put(anchor(1, covariance=wide), 7)
    assert book.agrees(seen)


def test_anchors_on_a_float_go_where_it_goes_and_to_another_level_with_a_lift() -> None:
    book = AnchorBook()
    book.put(anchor(1, x=2.0, carrier="lift"), 7)
    book.put(anchor(2, x=50.0), 7)
    assert near(book, 2.0, 0.0) == [1]
    book.carry("lift", 3, (50.0, 0.0, 12.0), (0.0, 0.0, math.sin(math.pi / 4), math.cos(math.pi / 4)))
    assert near(book, 50.0, 0.0) == [2]
    assert near(book, 50.0, 0.0, level=3) == [1]
    held = book.held(name(1))
    assert held.anchor.position_m == pytest.approx((50.0, 2.0, 13.5))
    assert (held.anchor.level, held.anchor.carrier) == (3, "lift")
    with pytest.raises(InvalidInput, match="not refined"):
        book.move(name(1), Poses.identity())


def test_a_refined_pose_is_a_new_version_found_at_the_new_place() -> None:
    book = AnchorBook()
    book.put(anchor(1), 7)
    book.observe(HERE, True)
    book.move(name(1), Poses.of([30.0, 0.0, 1.5], [0.0, 0.0, 0.0, 1.0]))
    assert near(book, 0.0, 0.0) == []
    assert near(book, 30.0, 0.0) == [1]
    assert (book.held(name(1)).version, book.held(name(1)).agreed) == (2, 1)


def test_what_is_beside_an_anchor_leaves_it_out() -> None:
    book = AnchorBook()
    for i in range(5):
        book.put(anchor(i, x=float(i)), 7)
    beside = book.near_one(0, 2.0, 0.0, 20.0, 2, EVERYTHING, NOW, beside=name(2))
    assert [held.anchor.id for held in beside] == [name(1), name(3)]


def test_what_has_expired_is_found_no_more_and_is_told_for_removal() -> None:
    book = AnchorBook()
    book.put(anchor(1, expires_ms=NOW), 7)
    book.put(anchor(2), 7)
    assert near(book, 0, 0, now_ms=NOW - 1) == [1, 2]
    assert near(book, 0, 0) == [2]
    assert book.expired(NOW, 10) == [name(1)]
    book.remove(name(1))
    assert book.expired(NOW, 10) == []
    with pytest.raises(NotFound, match="never hosted"):
        book.held(name(1))


def test_a_saved_anchor_comes_back_whole() -> None:
    book = AnchorBook()
    rich = anchor(
        1, 4.0, 5.0, covariance=tuple(float(v) for v in np.eye(6)[np.triu_indices(6)]), tags=("art", "sale"), expires_ms=NOW + 5, access="owner",
        fragment=bytes(range(32)), payload=b"scene:hall", quality=0.75,
    )  # fmt: skip
    book.put(rich, 7)
    [held] = AnchorBook.load(book.save()).resolve([name(1)], Seeker(7), NOW)
    assert held == Held(rich, 7, 1, 0.75)
    assert np.array_equal(full_covariance(rich.covariance), np.eye(6))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (anchor(1, level=3), "levels 0 to 2"),
        (anchor(1, rotation=(0.0, 0.0, 0.0, 1.2)), "has length 1.2"),
        (anchor(1, rotation=(math.nan, 0.0, 0.0, 1.0)), "length nan"),
        (anchor(1, x=math.inf), "must be finite"),
        (anchor(1, covariance=(1.0,) * 6), "must be 21"),
        (anchor(1, covariance=(-1.0,) + (0.0,) * 20), "no negative eigenvalue"),
        (anchor(1, fragment=b"short"), "SHA-256"),
        (anchor(1, tags=("a", "a")), "stands twice"),
    ],
)
def test_an_anchor_that_cannot_be_is_refused_with_the_reason(bad: Anchor, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_anchor(bad, 3)
    assert says in str(caught.value)


def test_radius_and_number_have_limits_and_carriers_too() -> None:
    book = AnchorBook()
    for radius, k in ((0.0, 5), (201.0, 5), (math.nan, 5), (5.0, 0), (5.0, 1025)):
        with pytest.raises(InvalidInput, match="anchors near"):
            near(book, 0, 0, radius, k)
    for i in range(1000):
        book.carry(f"c{i}", 0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    with pytest.raises(LimitExceeded, match="1000 things that move"):
        book.room(anchor(1, carrier="one-more"))


def test_observations_are_kept_for_refinement_the_newest_of_each_until_a_pose_is_hosted_anew() -> None:
    book = AnchorBook()
    for i in range(3):
        book.put(anchor(i, float(i)), 7)
    book.put(anchor(3, carrier="float"), 7)
    for i in range(MAX_KEPT + 4):
        book.observe(Observed(id=name(1), position_m=(float(i), 0.0, 0.0), seen_from=name(0)), True)
    book.observe(Observed(id=name(2), position_m=(0.0, 0.0, 0.0), seen_from=name(3)), True)
    book.observe(Observed(id=name(2), position_m=(2.0, 0.0, 1.5)), True)
    book.observe(Observed(id=name(3), position_m=(2.0, 0.0, 1.5)), True)
    anchors, seen = book.graph(10)
    assert [held.anchor.id for held in anchors] == [name(0), name(1), name(2)]
    assert [one.position_m[0] for one in seen] == [*map(float, range(4, MAX_KEPT + 4)), 2.0]
    assert AnchorBook.load(book.save()).graph(10) == (anchors, seen)
    assert [held.anchor.id for held in book.graph(2)[0]] == [name(0), name(1)]
    book.put(anchor(1, 9.0), 7)
    book.remove(name(2))
    assert book.graph(10) == ([], [])


def test_anchors_are_refined_from_what_was_seen_and_a_host_whom_others_contradict_is_told() -> None:
    book = AnchorBook()
    for i in range(5):
        book.put(anchor(i, 2.0 * i + (0.6 if i == 3 else 0.0)), 7)
    for i in range(5):
        for j in range(5):
            if i != j:
                book.observe(Observed(id=name(j), position_m=(2.0 * (j - i), 0.0, 0.0), sigma_m=0.01, sigma_rad=0.01, seen_from=name(i)), True)
    book.observe(Observed(id=name(0), position_m=(5.0, 0.0, 0.0), sigma_m=0.01, seen_from=name(1)), False)
    anchors, seen = book.graph(100)
    refined = refine_anchors(anchors, seen)
    assert refined.astray == [name(3)]
    assert [seen[row].position_m[0] for row in refined.disputed] == [5.0]
    [(identity, version, pose)] = refined.moved
    assert (identity, version) == (name(3), 1)
    assert pose.translation_m[0] == pytest.approx([6.0, 0.0, 1.5], abs=0.005)
    with pytest.raises(InvalidInput, match="not among the 1"):
        refine_anchors(anchors[:1], seen)
    assert refine_anchors([], []).moved == []


def test_an_anchor_adopted_from_elsewhere_keeps_its_version_its_observations_and_where_its_carrier_was() -> None:
    here, there = AnchorBook(), AnchorBook()
    here.carry("float", 1, (3.0, 4.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    for x in (1.0, 2.0):
        here.put(Anchor(b"a" * 16, 0, (x, 0.0, 1.5), carrier="float"), 7)
    here.observe(Observed(b"a" * 16, (5.0, 4.0, 1.5)), True)
    there.adopt(here.held(b"a" * 16))
    held = there.held(b"a" * 16)
    assert (held.version, held.agreed, held.owner) == (2, 1, 7)
    assert (held.anchor.level, held.anchor.position_m, held.anchor.carrier) == (1, (5.0, 4.0, 1.5), "")
    assert held.quality == here.held(b"a" * 16).quality
