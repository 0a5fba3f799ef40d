"""Who becomes a WebSocket person, with which rows and keys: a pure function of the seed and the crowd."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.positions import CHECKPOINT_TICKS
from esplanade.core.errors import InvalidInput
from simulation.load import KEEP_CLOSED_TICKS, KEEP_TICKS, ParkingPlan, Schedule, Share, Splitter, parking_changes, payment_key, top_up_key
from spatial.columns import LEFT, PositionColumns


def positions(inside: list[int], left: list[int] = []) -> PositionColumns:  # noqa: B006
    subject = np.array(sorted(inside + left), np.uint32)
    level = np.where(np.isin(subject, left), LEFT, 0).astype(np.uint8)
    return PositionColumns(subject, level, subject.astype(np.float32), np.zeros(len(subject), np.float32))


def split(
    splitter: Splitter, tick: int, inside: list[int], left: list[int] | None = None, payers: list[int] | None = None
) -> tuple[Share, list[Share]]:
    who = np.array(payers or [], np.uint32)
    return splitter.split(tick, positions(inside, left or []), who, np.zeros(len(who), np.uint16), np.full(len(who), 100, np.uint32))


def test_every_person_travels_one_way_and_slots_are_filled() -> None:
    splitter = Splitter(seed=1, people=4, processes=2)
    feed, clients = split(splitter, 0, list(range(20)))
    over_sockets = sorted(s for share in clients for s in share.arrived.tolist())
    assert len(over_sockets) == 4
    assert [len(share.arrived) for share in clients] == [2, 2]
    assert sorted(feed.rows.subject.tolist() + over_sockets) == list(range(20))
    assert splitter.websocket_people == 4


def test_websocket_people_have_a_row_a_second_in_their_own_phase_and_when_they_leave() -> None:
    splitter = Splitter(seed=1, people=1, processes=1)
    rows = [split(splitter, tick, [13])[1][0].rows.subject.tolist() for tick in range(40)]
    assert [tick for tick, row in enumerate(rows) if row] == [3, 13, 23, 33]
    _, (share,) = split(splitter, 40, [], left=[13])
    assert (share.rows.subject.tolist(), share.rows.level.tolist()) == ([13], [LEFT])


def test_a_freed_slot_goes_to_the_next_who_arrives_and_not_to_who_is_there_already() -> None:
    splitter = Splitter(seed=1, people=1, processes=1)
    split(splitter, 0, [5])
    feed, _ = split(splitter, 1, [5, 6])
    assert feed.arrived.tolist() == [6]
    split(splitter, 2, [6], left=[5])
    feed, (share,) = split(splitter, 3, [6, 7])
    assert (feed.rows.subject.tolist(), share.arrived.tolist()) == ([6], [7])


def test_a_slot_freed_at_a_tick_is_taken_by_an_arrival_of_the_same_tick() -> None:
    splitter = Splitter(seed=1, people=1, processes=1)
    split(splitter, 0, [5])
    _, (share,) = split(splitter, 1, [8], left=[5])
    assert share.arrived.tolist() == [8]


def test_payments_go_where_the_person_goes_and_each_has_its_own_key() -> None:
    splitter = Splitter(seed=9, people=1, processes=1)
    _, (share,) = split(splitter, 0, [1, 2, 3])
    (socket_person,) = share.arrived.tolist()
    feed, (share,) = split(splitter, 1, [1, 2, 3], payers=[1, 1, 2, 3])
    assert set(share.payments.subject.tolist()) == {socket_person}
    assert len(feed.payments) + len(share.payments) == 4
    keys = [feed.payments.key[i : i + 16] for i in range(0, len(feed.payments.key), 16)]
    keys += [share.payments.key[i : i + 16] for i in range(0, len(share.payments.key), 16)]
    assert len(set(keys)) == 4
    assert payment_key(9, 1, 1, 0) in keys
    assert payment_key(9, 1, 1, 1) in keys


def test_a_leavers_last_payment_is_still_theirs() -> None:
    splitter = Splitter(seed=9, people=1, processes=1)
    split(splitter, 0, [1])
    feed, (share,) = split(splitter, 1, [], left=[1], payers=[1])
    assert (len(feed.payments), share.payments.subject.tolist()) == (0, [1])


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sets(st.integers(0, 30), max_size=6), st.sets(st.integers(0, 30), max_size=4)), max_size=15), st.integers(1, 3))
def test_the_same_crowd_gives_the_same_shares_and_never_more_than_the_slots(steps: list[tuple[set[int], set[int]]], processes: int) -> None:
    def run() -> list[object]:
        splitter = Splitter(seed=3, people=4, processes=processes)
        inside: set[int] = set()
        told: list[object] = []
        sockets: set[int] = set()
        for tick, (arrivals, leavers) in enumerate(steps):
            gone = inside & leavers
            inside = (inside - gone) | {tick * 31 + a for a in arrivals}
            feed, clients = split(splitter, tick, sorted(inside), sorted(gone))
            sockets = (sockets - gone) | {s for share in clients for s in share.arrived.tolist()}
            assert len(sockets) <= 4
            assert not sockets & set(feed.rows.subject.tolist())
            told.append((feed.rows.subject.tolist(), [(share.arrived.tolist(), share.rows.subject.tolist()) for share in clients]))
        return told

    assert run() == run()


def test_keys_differ_by_seed_person_tick_and_number_and_are_not_those_of_top_ups() -> None:
    keys = {payment_key(s, p, t, n) for s in (1, 2) for p in (1, 2) for t in (1, 2) for n in (0, 1)} | {
        top_up_key(1, 1),
        top_up_key(1, 2),
        top_up_key(2, 1),
    }
    assert len(keys) == 19
    assert all(len(key) == 16 for key in keys)


def test_intended_times_follow_the_speed_and_do_not_drift() -> None:
    schedule = Schedule(start_ns=5_000, first_tick=1, speed=3.0)
    assert schedule.intended_ns(1) == 5_000
    assert schedule.intended_ns(30_001) == 5_000 + 1_000_000_000_000
    with pytest.raises(InvalidInput, match="speed 0"):
        Schedule(start_ns=0, first_tick=0, speed=0)


def test_bay_sensors_tell_the_state_first_and_then_changes_only() -> None:
    plan = ParkingPlan(units=tuple(f"b{i}" for i in range(50)), occupied=0.5, changes_per_minute=300.0)
    told = parking_changes(plan, seed=4, seconds=30)
    assert told == parking_changes(plan, seed=4, seconds=30)
    assert told != parking_changes(plan, seed=5, seconds=30)
    state = dict(told[0])
    assert len(state) == 50
    for second in told[1:]:
        for unit, occupied in second:
            assert state[unit] is not occupied
            state[unit] = occupied
    assert parking_changes(ParkingPlan((), 0.5, 10.0), seed=1, seconds=5) == []


def test_a_subject_beyond_the_limit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="numbers people below"):
        split(Splitter(seed=1, people=0, processes=1), 0, [2**24])


def test_sources_keep_as_many_closed_ticks_as_a_rewind_may_ask_for() -> None:
    assert KEEP_CLOSED_TICKS >= CHECKPOINT_TICKS
    assert KEEP_TICKS > KEEP_CLOSED_TICKS
