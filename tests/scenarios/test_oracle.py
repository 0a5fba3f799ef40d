"""The oracle against cases computed by hand, and the comparison of pushes."""

from __future__ import annotations

import numpy as np
import pytest

from esplanade.core.errors import InvalidInput
from scenarios.oracle import Pushes, compare, find
from scenarios.recording import TickRows
from spatial.columns import LEFT, PositionColumns
from spatial.offers import STALE_TICKS, Everyone, Inside, Offer, Terms, Within
from tests.scenarios.plans import small_venue

Row = tuple[int, int, float, float]
"""(subject, level, x, y)"""


def near(**fields: object) -> Offer:
    """Within 3 m of u-1, whose anchor is (7, 4) on level 0."""
    settings: dict[str, object] = {"id": "near", "unit_id": "u-1", "title": "t", "audience": Within(radius_m=3), "cooldown_ticks": 0, "cap": 255}
    return Offer(**(settings | fields))  # type: ignore[arg-type]


def pushed(rows: dict[int, list[Row]], *offers: Offer, first: int = 0, last: int = 20) -> list[tuple[int, int, int]]:
    """(offer, subject, tick) of the pushes that the oracle expects."""
    ticks = [
        TickRows(
            tick,
            PositionColumns(
                np.array([r[0] for r in found], np.uint32),
                np.array([r[1] for r in found], np.uint8),
                np.array([r[2] for r in found], np.float32),
                np.array([r[3] for r in found], np.float32),
            ),
        )
        for tick, found in sorted(rows.items())
    ]
    found = find(ticks, offers=offers, venue=small_venue(), first_tick=first, last_tick=last).pushes
    return sorted(zip(found.offer.tolist(), found.subject.tolist(), found.tick.tolist(), strict=True))


def test_walking_into_the_circle_pushes_once_and_again_after_leaving_it() -> None:
    path = {0: [(1, 0, 20.0, 4.0)], 3: [(1, 0, 10.0, 4.0)], 5: [(1, 0, 7.0, 4.0)], 8: [(1, 0, 10.5, 4.0)], 9: [(1, 0, 7.0, 7.0)]}
    assert pushed(path, near()) == [(0, 1, 3), (0, 1, 9)]


def test_the_border_of_the_circle_counts_and_just_beyond_does_not() -> None:
    beyond = float(np.nextafter(np.float32(10.0), np.float32(11.0)))
    assert pushed({2: [(1, 0, 10.0, 4.0), (2, 0, beyond, 4.0)]}, near()) == [(0, 1, 2)]


def test_another_level_is_never_near() -> None:
    assert pushed({2: [(1, 1, 7.0, 4.0)], 4: [(1, 0, 7.0, 4.0)]}, near()) == [(0, 1, 4)]


def test_cap_and_cool_down_hold_back_later_pushes() -> None:
    out, back = [(1, 0, 20.0, 4.0)], [(1, 0, 7.0, 4.0)]
    path = {0: back, 2: out, 4: back, 6: out, 8: back, 10: out, 12: back}
    assert pushed(path, near(cooldown_ticks=5)) == [(0, 1, 0), (0, 1, 8)]
    assert pushed(path, near(cooldown_ticks=4)) == [(0, 1, 0), (0, 1, 4), (0, 1, 8), (0, 1, 12)]
    assert pushed(path, near(cap=2)) == [(0, 1, 0), (0, 1, 4)]


def test_a_push_held_back_by_the_cool_down_is_not_made_up_for_while_the_person_stays() -> None:
    path = {0: [(1, 0, 7.0, 4.0)], 2: [(1, 0, 20.0, 4.0)], 3: [(1, 0, 7.0, 4.0)]}
    assert pushed(path, near(cooldown_ticks=10)) == [(0, 1, 0)]


def test_who_stands_there_when_the_offer_starts_is_pushed_at_its_start() -> None:
    assert pushed({0: [(1, 0, 7.0, 4.0)]}, near(starts_tick=6, ends_tick=10)) == [(0, 1, 6)]
    assert pushed({10: [(1, 0, 7.0, 4.0)]}, near(starts_tick=6, ends_tick=10)) == []


def test_who_has_left_or_fallen_silent_is_not_present() -> None:
    path = {0: [(1, 0, 7.0, 4.0), (2, 0, 7.0, 4.0), (3, 0, 7.0, 4.0)], 1: [(1, LEFT, 0.0, 0.0)], STALE_TICKS - 1: [(3, 0, 7.0, 4.0)]}
    late = near(starts_tick=STALE_TICKS, ends_tick=STALE_TICKS + 1)
    assert pushed(path, late, last=STALE_TICKS + 5) == [(0, 3, STALE_TICKS)]
    just_in_time = near(starts_tick=STALE_TICKS - 1, ends_tick=STALE_TICKS)
    assert pushed(path, just_in_time, last=STALE_TICKS + 5) == [(0, 2, STALE_TICKS - 1), (0, 3, STALE_TICKS - 1)]


def test_going_silent_and_coming_back_in_the_same_place_is_a_new_approach() -> None:
    path = {0: [(1, 0, 7.0, 4.0)], 2 * STALE_TICKS: [(1, 0, 7.0, 4.0)]}
    assert pushed(path, near(), last=2 * STALE_TICKS) == [(0, 1, 0), (0, 1, 2 * STALE_TICKS)]


def test_inside_means_covered_by_the_outline_border_included() -> None:
    path: dict[int, list[Row]] = {0: [(1, 0, 30.0, 30.0), (2, 0, 30.01, 4.0), (3, 1, 5.0, 5.0)], 4: [(2, 0, 29.0, 4.0)]}
    assert pushed(path, near(audience=Inside(), starts_tick=2)) == [(0, 1, 2), (0, 2, 4), (0, 3, 2)]


def test_everyone_means_who_was_ever_observed_also_after_leaving() -> None:
    path: dict[int, list[Row]] = {0: [(1, 0, 5.0, 5.0)], 1: [(1, LEFT, 0.0, 0.0), (9, LEFT, 0.0, 0.0)], 8: [(2, 0, 99.0, 99.0)]}
    assert pushed(path, near(audience=Everyone(), starts_tick=5)) == [(0, 1, 5), (0, 2, 8)]


def test_people_by_level_the_maximum_and_the_busiest_moment_are_counted() -> None:
    def tick(number: int, rows: list[Row]) -> TickRows:
        return TickRows(
            number,
            PositionColumns(*(np.array(c, t) for c, t in zip(zip(*rows, strict=True), (np.uint32, np.uint8, np.float32, np.float32), strict=True))),
        )

    ticks = [tick(0, [(1, 0, 1.0, 1.0)]), tick(1, [(2, 1, 2.0, 2.0), (3, 1, 3.0, 3.0)]), tick(2, [(2, LEFT, 0.0, 0.0)])]
    found = find(ticks, offers=(), venue=small_venue(), first_tick=0, last_tick=2, sample_every=1)
    assert [second.inside for second in found.seconds] == [(1, 0), (1, 2), (1, 1)]
    assert (found.people_seen, found.people_inside_max, found.people_inside_end, found.rows) == (3, 3, 2, 4)
    assert (found.busiest.tick, found.busiest.x_m.tolist()) == (1, [1.0, 2.0, 3.0])


def test_ticks_out_of_order_are_refused() -> None:
    rows = [TickRows(1, PositionColumns.empty()), TickRows(1, PositionColumns.empty())]
    with pytest.raises(InvalidInput, match="1 comes after 1"):
        find(rows, offers=(), venue=small_venue(), first_tick=0, last_tick=3)


def test_an_offer_with_terms_is_refused_and_not_guessed_at() -> None:
    offer = Offer(id="o", unit_id="u", title="t", audience=Inside(), terms=Terms(budget=3))
    with pytest.raises(InvalidInput, match="have terms"):
        find((), offers=(offer,), venue=small_venue(), first_tick=0, last_tick=1)


def test_missing_and_unexpected_are_told_apart_and_duplicates_do_not_count() -> None:
    expected = Pushes.of([(0, 1, 3), (0, 2, 3), (1, 1, 9)])
    received = Pushes.of([(0, 1, 3), (0, 1, 3), (0, 5, 3)])
    told = compare(expected, received)
    assert (told.expected, told.received) == (3, 2)
    assert sorted(zip(told.missing.subject.tolist(), told.missing.tick.tolist(), strict=True)) == [(1, 9), (2, 3)]
    assert told.unexpected.subject.tolist() == [5]


def test_an_offer_to_everyone_owes_nothing_that_counts_to_who_has_hung_up() -> None:
    expected = Pushes.of([(0, 1, 3), (0, 1, 30), (1, 1, 30)])
    told = compare(expected, Pushes.of([]), disconnected={1: 10}, to_all=frozenset({0}))
    assert told.excused == 1
    assert sorted(zip(told.missing.offer.tolist(), told.missing.tick.tolist(), strict=True)) == [(0, 3), (1, 30)]
