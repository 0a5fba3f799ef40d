"""Who gets which partition: only orphans, the drained and a newcomer's share move."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.placement import Plan, plan
from esplanade.core.ids import PARTITIONS

ALL = range(PARTITIONS)


def carried_out(owners: dict[int, str | None], made: Plan) -> dict[int, str | None]:
    after = dict(owners)
    for name, partitions in made.take.items():
        after.update(dict.fromkeys(partitions, name))
    for source, name, partitions in made.move:
        assert all(owners[p] == source for p in partitions)
        after.update(dict.fromkeys(partitions, name))
    return after


def halves() -> dict[int, str | None]:
    return {p: f"shard-{p % 2}" for p in ALL}


def test_at_the_start_the_wanted_shards_share_all_and_the_spare_gets_none() -> None:
    made = plan({}, ["shard-0", "shard-1", "shard-2"], wanted=2, spares=1)
    assert carried_out(dict.fromkeys(ALL, None), made) == halves()


def test_the_spare_takes_all_that_a_dead_shard_had_and_nothing_else_moves() -> None:
    owners = {p: None if p % 2 else "shard-0" for p in ALL}
    made = plan(owners, ["shard-0", "shard-2"], wanted=2, spares=1)
    assert made == Plan(take={"shard-2": [p for p in ALL if p % 2]})


def test_without_a_spare_the_living_share_what_the_dead_had() -> None:
    owners: dict[int, str | None] = {p: None if p % 3 == 2 else f"shard-{p % 3}" for p in ALL}
    after = carried_out(owners, plan(owners, ["shard-0", "shard-1"], wanted=3, spares=1))
    assert {name: list(after.values()).count(name) for name in ("shard-0", "shard-1")} == {"shard-0": 128, "shard-1": 128}
    assert all(after[p] == owners[p] for p in ALL if owners[p] is not None)


def test_draining_hands_over_live_to_the_spare() -> None:
    made = plan(halves(), ["shard-0", "shard-1", "shard-2"], wanted=2, spares=1, leaving=["shard-1"])
    assert made == Plan(move=[("shard-1", "shard-2", [p for p in ALL if p % 2])])


def test_a_shard_too_many_standing_by_gets_a_fair_share() -> None:
    made = plan(halves(), ["shard-0", "shard-1", "shard-2", "shard-3"], wanted=3, spares=1)
    after = carried_out(halves(), made)
    counts = [list(after.values()).count(f"shard-{i}") for i in range(4)]
    assert counts == [86, 85, 85, 0]
    assert plan(after, ["shard-0", "shard-1", "shard-2", "shard-3"], wanted=3, spares=1) == Plan()


def test_with_nobody_alive_nothing_can_be_done_and_all_waits() -> None:
    assert plan({}, [], wanted=2, spares=1) == Plan(waits=True)
    assert plan(halves(), ["shard-0", "shard-1"], wanted=2, spares=1, leaving=["shard-0", "shard-1"]) == Plan(waits=True)


@given(
    st.lists(st.sampled_from([None, "a", "b", "c", "d"]), min_size=PARTITIONS, max_size=PARTITIONS),
    st.sets(st.sampled_from("abcd"), min_size=1),
    st.sets(st.sampled_from("abcd")),
    st.integers(1, 4),
    st.integers(0, 2),
)
def test_plans_end_with_every_partition_owned_by_one_that_may_and_move_nothing_needlessly(
    told: list[str | None], live: set[str], leaving: set[str], wanted: int, spares: int
) -> None:
    owners: dict[int, str | None] = {p: name if name in live else None for p, name in enumerate(told)}
    may = live - leaving
    for _ in range(4):
        made = plan(owners, live, wanted=wanted, spares=spares, leaving=leaving)
        if not made.take and not made.move:
            break
        after = carried_out(owners, made)
        given_up = {p for p in ALL if owners[p] is None or owners[p] in leaving}
        if given_up and may:
            assert {p for p in ALL if owners[p] != after[p]} == given_up
        owners = after
    else:
        raise AssertionError("plans never end")
    assert made.waits == (not may)
    if may:
        assert set(owners.values()) <= may
