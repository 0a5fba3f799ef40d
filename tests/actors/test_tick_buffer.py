"""When a tick is complete, and what its rows are."""

from __future__ import annotations

import pytest

from actors.tick_buffer import MAX_AHEAD, MAX_SOURCES, TickBuffer
from esplanade.core.errors import Conflict, InvalidInput, LimitExceeded
from tests.actors.parkside import rows


def buffer(*sources: str) -> TickBuffer:
    made = TickBuffer()
    for source in sources:
        made.open(source, 0, 0.0)
    return made


def test_a_tick_waits_for_every_declaration_and_every_declared_row() -> None:
    held = buffer("a", "b")
    held.declare("a", 0, 2, 0.0)
    held.add(rows((1, 0, 0.0, 0.0)), "a", 0, 0.0)
    held.declare("b", 0, 0, 0.0)
    assert not held.complete(0)
    held.add(rows((2, 0, 0.0, 0.0)), "a", 0, 0.0)
    assert held.complete(0)


def test_a_row_sent_twice_counts_once() -> None:
    held = buffer("a")
    held.declare("a", 0, 2, 0.0)
    for _ in range(3):
        held.add(rows((1, 0, 0.0, 0.0)), "a", 0, 0.0)
    assert not held.complete(0)


def test_a_declaration_that_overtakes_another_does_not_close_the_tick_before() -> None:
    held = buffer("a")
    held.declare("a", 1, 0, 0.0)
    assert not held.complete(0)
    assert held.begun(0)
    held.declare("a", 0, 0, 0.0)
    assert held.complete(0)


def test_a_source_has_no_say_before_its_first_tick() -> None:
    held = TickBuffer()
    held.open("a", 5, 0.0)
    assert not held.awaited(4)
    assert held.awaited(5)
    assert held.complete(4)


def test_rows_come_out_by_subject_and_the_newest_wins() -> None:
    held = buffer("a", "b")
    held.add(rows((9, 0, 1.0, 1.0), (3, 0, 2.0, 2.0)), "b", 0, 0.0)
    held.add(rows((3, 1, 7.0, 7.0)), "a", 0, 0.0)
    held.add(rows((9, 1, 8.0, 8.0)), "b", 0, 0.0)
    taken = held.take()
    assert taken.subject.tolist() == [3, 9]
    assert taken.x_m.tolist() == [2.0, 8.0], "of two sources the last by name, of one source the last sent"


def test_late_rows_are_counted_and_rows_sent_again_are_not() -> None:
    held = buffer("a")
    held.add(rows((1, 0, 0.0, 0.0), (2, 0, 0.0, 0.0)), "a", 0, 0.0)
    held.take()
    assert held.add(rows((1, 0, 0.0, 0.0), (7, 0, 0.0, 0.0)), "a", 0, 0.0) == 1
    held.set_clock(10, floor=10)
    assert held.add(rows((1, 0, 0.0, 0.0)), "a", 9, 0.0) == 0, "before the checkpoint nobody can tell"


def test_limits_are_refusals_to_be_tried_again() -> None:
    held = buffer("a")
    with pytest.raises(LimitExceeded):
        held.add(rows((1, 0, 0.0, 0.0)), "a", MAX_AHEAD, 0.0)
    with pytest.raises(LimitExceeded):
        held.declare("a", MAX_AHEAD, 0, 0.0)
    for i in range(MAX_SOURCES - 1):
        held.open(f"s{i}", 0, 0.0)
    with pytest.raises(LimitExceeded):
        held.open("more", 0, 0.0)


def test_a_declaration_must_be_of_an_open_source_and_stay_as_it_was() -> None:
    held = buffer("a")
    with pytest.raises(InvalidInput):
        held.declare("b", 0, 0, 0.0)
    with pytest.raises(InvalidInput):
        held.declare("a", 0, -1, 0.0)
    held.declare("a", 0, 4, 0.0)
    with pytest.raises(Conflict):
        held.declare("a", 0, 5, 0.0)


def test_a_silent_source_is_noticed() -> None:
    held = buffer("a", "b")
    held.declare("b", 0, 0, 30.0)
    assert held.silent_since(20.0) == ["a"]
