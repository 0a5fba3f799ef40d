"""Edits give a whole new venue or are refused, and every one can be taken back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esplanade.core.errors import Conflict, EsplanadeError, InvalidInput, NotFound
from spatial.checks import check_venue
from spatial.plan import shape
from spatial.venue import Level, Occupant, Opening, Origin, Unit, Venue
from spatial.venue_edits import AddUnit, CloseUnit, Edit, History, MoveUnit, OpenUnit, Relabel, RemoveUnit, SplitUnit, apply
from spatial.venue_files import load_venue

PARKSIDE = load_venue(Path(__file__).parents[2] / "scenarios" / "venues" / "parkside_mall.json")


def box(x0: float, y0: float, x1: float, y1: float) -> tuple[tuple[tuple[tuple[float, float], ...], ...], ...]:
    return ((((x0, y0), (x1, y0), (x1, y1), (x0, y1)),),)


HALL = Venue(
    id="v", name="V", kind="mall", origin=Origin(lat_deg=0, lon_deg=0),
    levels=(Level(id="L0", ordinal=0, name="L0", short_name="0", outline=box(0, 0, 40, 20)),),
    units=(Unit(id="shop", level_id="L0", category="room", polygon=box(10, 12, 20, 20), name="Shop"),),
    openings=(Opening(id="west", level_id="L0", unit_id="shop", a=(11, 12), b=(12, 12)), Opening(id="east", level_id="L0", unit_id="shop", a=(18, 12), b=(19, 12))),
    occupants=(Occupant(id="o", unit_id="shop", name="Books"),),
)  # fmt: skip


def test_a_split_shares_ground_doors_and_leaves_the_occupant_in_the_larger_part() -> None:
    venue = apply(HALL, SplitUnit(unit_id="shop", new_id="shop-b", line=((16.0, 10.0), (16.0, 22.0))))
    area = {unit.id: shape(unit.polygon).area for unit in venue.units}
    assert area == {"shop": pytest.approx(48), "shop-b": pytest.approx(32)}
    assert {o.id: o.unit_id for o in venue.openings} == {"west": "shop", "east": "shop-b"}
    assert [o.unit_id for o in venue.occupants] == ["shop"]


def test_a_moved_unit_takes_its_doors_along_and_an_added_one_can_be_entered() -> None:
    venue = apply(HALL, MoveUnit(unit_id="shop", dx_m=5.0, dy_m=0.0))
    assert [o.a for o in venue.openings] == [(16, 12), (23, 12)]
    assert shape(venue.units[0].polygon).bounds == (15, 12, 25, 20)
    venue = apply(venue, AddUnit(unit_id="kiosk", level_id="L0", category="room", polygon=box(2, 2, 6, 6), doors=(((3.0, 6.0), (5.0, 6.0)),)))
    assert not [finding for finding in check_venue(venue) if finding.feature_id in ("kiosk", "kiosk-door-1")]


def test_closing_opening_and_naming() -> None:
    history = History(HALL)
    history.do(CloseUnit(unit_id="shop"))
    assert history.venue.units[0].category == "nonpublic"
    history.do(OpenUnit(unit_id="shop"))
    history.do(Relabel(unit_id="shop", name="Unit 7", occupant="Flowers", category="florist"))
    assert (history.venue.units[0].name, [(o.name, o.category) for o in history.venue.occupants]) == ("Unit 7", [("Flowers", "florist")])
    history.do(Relabel(unit_id="shop", occupant=""))
    assert history.venue.occupants == ()
    history.do(Relabel(unit_id="shop", occupant="Tea"))
    assert [o.name for o in history.venue.occupants] == ["Tea"]


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (CloseUnit(unit_id="cellar"), NotFound), (OpenUnit(unit_id="shop"), Conflict), (MoveUnit(unit_id="shop", dx_m=float("nan"), dy_m=0), InvalidInput),
        (AddUnit(unit_id="shop", level_id="L0", category="room", polygon=box(0, 0, 2, 2)), Conflict),
        (AddUnit(unit_id="n", level_id="L9", category="room", polygon=box(0, 0, 2, 2)), InvalidInput),
        (AddUnit(unit_id="n", level_id="L0", category="room", polygon=((((0, 0), (2, 2), (2, 0), (0, 2)),),)), InvalidInput),
        (SplitUnit(unit_id="shop", new_id="n", line=((0.0, 0.0), (1.0, 1.0))), InvalidInput),
        (SplitUnit(unit_id="shop", new_id="shop", line=((16.0, 10.0), (16.0, 22.0))), Conflict),
        (SplitUnit(unit_id="shop", new_id="n", line=((10.01, 10.0), (10.01, 22.0))), InvalidInput),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_and_changes_nothing(edit: Edit, error: type[EsplanadeError]) -> None:
    history = History(HALL)
    with pytest.raises(error):
        history.do(edit)
    assert history.venue is HALL
    for nothing in (history.undo, history.redo):
        with pytest.raises(Conflict):
            nothing()


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=8)
def test_a_day_of_edits_of_a_real_plan_can_be_taken_back_and_done_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    history, seen = History(PARKSIDE), [PARKSIDE]
    for k in range(12):
        unit = history.venue.units[int(rng.integers(len(history.venue.units)))]
        edits: list[Edit] = [
            MoveUnit(unit_id=unit.id, dx_m=float(rng.normal()), dy_m=1.0), CloseUnit(unit_id=unit.id), RemoveUnit(unit_id=unit.id),
            Relabel(unit_id=unit.id, name=f"name {k}", occupant=f"shop {k}"),
        ]  # fmt: skip
        try:
            history.do(edits[int(rng.integers(4))])
        except Conflict:
            continue
        seen.append(history.venue)
    for venue in reversed(seen[:-1]):
        history.undo()
        assert history.venue == venue
    for venue in seen[1:]:
        history.redo()
        assert history.venue == venue
    assert len(history.done) == len(seen) - 1
