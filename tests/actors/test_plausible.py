"""Phones that say they are where they cannot have got to: no offers for a while, and everything else as it was."""

from __future__ import annotations

import numpy as np
import pytest

from actors.plausible import HOLD_S, SLACK_M, Plausible
from actors.positions import HostSettings, PositionHost
from actors.venue_book import VenueBook
from spatial.columns import LEFT
from spatial.offers import Everyone, Inside, Offer, Within
from spatial.venue import Connector, Level, Stop, Venue
from tests.actors.parkside import box, rows, venue
from tests.actors.test_audiences import pushed

SPEED_M_S = 8.0


def hall() -> Venue:
    """Parkside stretched to 400 m, with a lift at 200 m."""
    lift = Connector(id="lift", kind="elevator", stops=tuple(Stop(level_id=f"l{i}", point=(200.0, 10.0)) for i in (0, 1)))
    levels = tuple(Level(id=f"l{i}", ordinal=i, name=f"Level {i}", short_name=str(i), outline=box(0, 0, 400, 30)) for i in (0, 1))
    return venue().model_copy(update={"levels": levels, "connectors": (lift,)})


class Phone:
    """One phone before a `Plausible`; `at` says whether it gets offers there."""

    def __init__(self) -> None:
        self.rule = Plausible(hall(), SPEED_M_S)
        self.freed = 0

    def at(self, now_s: float, x: float, level: int = 0, y: float = 10.0) -> bool:
        row = np.zeros(1, np.int32)
        self.freed += len(self.rule.look(now_s, row, np.array([level], np.uint8), np.array([x], np.float32), np.array([y], np.float32)))
        return not self.rule.held(row)[0]


def test_who_walks_or_jitters_is_believed() -> None:
    phone, walker = Phone(), np.random.default_rng(5)
    for second in range(200):
        assert phone.at(float(second), 1.4 * second + walker.normal(0, 4.0))
    assert phone.rule.impossible == 0


def test_a_jump_is_held_back_and_then_counts_as_coming() -> None:
    phone = Phone()
    assert phone.at(0.0, 10.0)
    assert phone.at(1.0, 10.0 + SLACK_M + SPEED_M_S)
    assert not phone.at(2.0, 300.0)
    assert not phone.at(2.0 + HOLD_S - 0.1, 300.0)
    assert phone.freed == 0
    assert phone.at(2.0 + HOLD_S, 300.0)
    assert (phone.freed, phone.rule.impossible) == (1, 1)
    assert phone.at(3.0 + HOLD_S, 300.0)
    assert phone.freed == 1


def test_a_jump_in_small_steps_is_a_jump() -> None:
    phone = Phone()
    said = [phone.at(0.1 * i, 3.0 * i) for i in range(100)]  # 30 m/s
    assert said[0]
    assert not said[-1]


def test_leaving_does_not_wash_it_off() -> None:
    phone = Phone()
    assert phone.at(0.0, 10.0)
    assert phone.at(0.5, 10.0, level=LEFT)
    assert not phone.at(1.0, 300.0)


@pytest.mark.parametrize(("x", "believed"), [(205.0, True), (60.0, False)])
def test_another_level_needs_a_way(x: float, believed: bool) -> None:
    phone = Phone()
    phone.at(0.0, x)
    assert phone.at(1.0, x, level=1) is believed


def test_silence_gives_time() -> None:
    phone = Phone()
    assert phone.at(0.0, 60.0)
    assert phone.at(40.0, 60.0, level=1)


def host(*offers: Offer) -> PositionHost:
    made = PositionHost(
        VenueBook.read(hall().model_dump_json().encode()), lambda: (1, {one.id: one for one in offers}), epoch=1, pseudonym_key=bytes(64),
        settings=HostSettings(speed_m_s=SPEED_M_S),
    )  # fmt: skip
    made.start(0.0)
    return made


NEAR, INSIDE, ALL = (
    Offer(id="near", unit_id="shop-02", title="t", audience=Within(radius_m=20.0)),
    Offer(id="inside", unit_id="shop-02", title="t", audience=Inside()),
    Offer(id="all", unit_id="shop-02", title="t", audience=Everyone()),
)


def test_a_host_pushes_nothing_to_who_jumps_and_everything_once_they_are_believed() -> None:
    at = host(NEAR, INSIDE, ALL)
    got: dict[int, set[tuple[str, int]]] = {}
    for tick in range(400):
        now_s = 0.1 * (tick + 1)
        if tick == 0:
            at.take(rows((1, 0, 300.0, 10.0), (2, 0, 30.0, 15.0)), None, None, now_s)
        elif tick % 10 == 0:
            at.take(rows((1, 0, 30.0, 15.0), (2, 0, 30.0, 15.0)), None, None, now_s)
        got[tick] = pushed(at.close(now_s).events)
        if tick == 200:
            told = at.explain("near", 1)
            assert told is not None
            assert told.outcome == "implausible"
            assert "faster" in told.message
    assert got[0] == {("all", 1), ("inside", 1), ("near", 2), ("inside", 2), ("all", 2)}
    first = {tick: found for tick, found in got.items() if found and tick}
    assert first == {310: {("near", 1)}}  # the others have been pushed as often as they may be
    assert at.plausible.impossible == 1
    assert at.zone_state("shop-02") is not None


def test_an_offer_that_starts_meanwhile_waits_too() -> None:
    offers = {"near": Offer(id="near", unit_id="shop-02", title="t", audience=Within(radius_m=20.0), starts_tick=50)}
    at = host(*offers.values())
    pushes = []
    for tick in range(400):
        now_s = 0.1 * (tick + 1)
        if tick % 10 == 0:
            at.take(rows((1, 0, 300.0 if tick < 20 else 30.0, 15.0)), None, None, now_s)
        if pushed(at.close(now_s).events):
            pushes.append(tick)
    assert pushes == [320]


def test_rows_of_a_source_are_believed() -> None:
    at = host(NEAR)
    at.open_source("feed", 0, 0.0)
    for tick, x in enumerate((300.0, 30.0)):
        at.take(rows((1, 0, x, 15.0)), "feed", tick, 0.0)
        at.watermark("feed", tick, 1, 0.0)
        found = pushed(at.close(0.1 * tick).events)
    assert found == {("near", 1)}
