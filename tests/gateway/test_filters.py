"""What a reader may ask of a topic's frames, and what it may not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esplanade.core.errors import InvalidInput
from gateway import frames as f
from gateway.filters import MAX_TESTS, MAX_VALUES, Test, Where, check_where, matches
from gateway.policies import FRAMES
from spatial.offers import Everyone, Offer

OFFER = f.OfferState(venue="v", offer=Offer(id="a", unit_id="u-3", title="A", audience=Everyone(), flash=True), ended=False, place=f.Place(1, 2))
STATS = f.Stats(venue="v", tick=9, inside=(1, 2), pushes=0, entries=0, exits=0, dwells=0, tick_ms=2.5, zones={"u-1.b": 7})


def where(*tests: dict[str, Any]) -> tuple[Test, ...]:
    return msgspec.convert(tests, Where)


@pytest.mark.parametrize(
    ("frame", "test", "passes"),
    [
        (OFFER, {"field": "ended", "equals": False}, True),
        (OFFER, {"field": "ended", "equals": 0}, False),
        (OFFER, {"field": "ended", "equals": True, "not": True}, True),
        (OFFER, {"field": "offer.unit_id", "in": ["u-2", "u-3"]}, True),
        (OFFER, {"field": "offer.unit_id", "in": ["u-2", "u-3"], "not": True}, False),
        (OFFER, {"field": "offer.flash", "equals": True}, True),
        (OFFER, {"field": "offer.title", "equals": None}, False),
        (OFFER, {"field": "offer.nothing", "equals": None}, False),
        (OFFER, {"field": "offer.nothing", "equals": None, "not": True}, False),
        (OFFER, {"field": "offer", "equals": "a"}, False),
        (OFFER, {"field": "offer.__class__", "equals": "a", "not": True}, False),
        (OFFER, {"field": "venue.upper", "equals": "V", "not": True}, False),
        (OFFER, {"field": "place.offset", "at_least": 2, "below": 3}, True),
        (OFFER, {"field": "place.offset", "below": 2}, False),
        (OFFER, {"field": "ended", "below": 2}, False),
        (STATS, {"field": "zones.u-1.b", "at_least": 7}, True),
        (STATS, {"field": "zones.u-2", "at_least": 0}, False),
        (STATS, {"field": "inside", "at_least": 0}, False),
        (STATS, {"field": "tick_ms", "at_least": 2.5}, True),
    ],
)
def test_a_test_holds_of_exactly_what_it_says(frame: msgspec.Struct, test: dict[str, Any], passes: bool) -> None:
    assert matches(where(test), frame) is passes


def test_all_tests_must_hold() -> None:
    flash = {"field": "offer.flash", "equals": True}
    assert matches(where(flash, {"field": "ended", "equals": False}), OFFER)
    assert not matches(where(flash, {"field": "ended", "equals": True}), OFFER)
    assert matches(None, OFFER)


@pytest.mark.parametrize(
    ("test", "named"),
    [
        ({"field": "ended"}, "asks 0 things"),
        ({"field": "ended", "equals": False, "in": [True]}, "asks 2 things"),
        ({"field": "free", "below": 3}, "'free'"),
        ({"field": "__class__", "equals": 1}, "__class__"),
        ({"field": "offer.a.b.c", "equals": 1}, "4 parts"),
    ],
)
def test_a_test_that_asks_nothing_or_of_nothing_is_refused_by_name(test: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        check_where(where(test), FRAMES["offers"])


@pytest.mark.parametrize(
    "tests",
    [
        [],
        [{"field": "ended", "equals": False}] * (MAX_TESTS + 1),
        [{"field": "venue", "in": ["v"] * (MAX_VALUES + 1)}],
        [{"field": "venue", "in": []}],
        [{"field": "venue", "equals": "v" * 129}],
        [{"field": "venue", "equals": {"a": 1}}],
        [{"field": "venue", "matches": ".*"}],
        ["venue = v"],
    ],
)
def test_what_is_no_filter_or_too_large_is_unreadable(tests: list[Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(tests, Where)


SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
NAMES = st.sampled_from(["ended", "offer", "offer.unit_id", "place.offset", "zones", "zones.u-1.b", "inside", "tick_ms", "venue"]) | st.text(
    max_size=30
)
ANY = st.fixed_dictionaries(
    {"field": NAMES},
    optional={"equals": SCALARS, "in": st.lists(SCALARS, max_size=4), "at_least": st.floats(), "below": st.floats(), "not": st.booleans()},
)


@given(st.lists(ANY, min_size=1, max_size=3), st.sampled_from([OFFER, STATS]))
@settings(max_examples=300)
def test_whatever_is_asked_is_refused_as_invalid_or_answered(tests: list[Any], frame: Any) -> None:
    try:
        asked = msgspec.convert(tests, Where)
        check_where(asked, (type(frame),))
    except (msgspec.ValidationError, InvalidInput):
        return
    answer = matches(asked, frame)
    assert answer is (len([test for test in asked if test.passes(frame)]) == len(asked))
    for test in asked:
        turned = msgspec.structs.replace(test, turned=not test.turned)
        assert not (test.passes(frame) and turned.passes(frame)), "never both"
