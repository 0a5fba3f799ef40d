"""Who gets an offer follows the stated rule, live closures and crowds counted, and every answer can be explained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from esplanade.core.errors import InvalidInput
from spatial.audience import Campaign, Crowd, Outcome, Room, decide, held_out
from spatial.live import Live
from spatial.routes import At, Route
from spatial.routing import Router
from spatial.zone_shapes import Hours
from tests.spatial.test_routing import FULL

ROUTER = Router.build(FULL)


def crowd_of(*people: tuple[int, float, float], segments: int = 1, language: str = "en") -> Crowd:
    n = len(people)
    level, x, y = (np.array(column) for column in zip(*people, strict=True))
    return Crowd(
        np.arange(n) + 1, level.astype(np.int64), x.astype(float), y.astype(float), np.full(n, segments, np.uint64), np.array([language] * n)
    )


NEAR, FAR, UPSTAIRS, NOWHERE = (0, 13.0, 10.0), (0, 39.0, 1.0), (1, 20.0, 10.0), (0, 500.0, 500.0)
PEOPLE = crowd_of(NEAR, FAR, UPSTAIRS, NOWHERE)


def outcomes(*campaigns: Campaign, people: Crowd = PEOPLE, router: Router = ROUTER, at_s: float = 0.0, **more: Any) -> list[list[str]]:
    decided = decide(campaigns, people, router, at_s, more.pop("rooms", {}), **more)
    return [[Outcome(int(o)).name for o in decision.outcome] for decision in decided]


def test_reach_is_the_time_of_the_fastest_way_to_the_store_on_the_live_graph() -> None:
    (decision,) = decide([Campaign(offer_id="o", unit_id="shop", within_s=60)], PEOPLE, ROUTER, 0.0, {})
    for row in range(3):
        way = ROUTER.route(At(int(PEOPLE.level[row]), PEOPLE.x_m[row], PEOPLE.y_m[row]), "shop")
        assert isinstance(way, Route)
        assert decision.seconds[row] == pytest.approx(way.seconds)
    assert [Outcome(int(o)).name for o in decision.outcome] == ["PUSH", "PUSH", "PUSH", "NO_WAY"]
    assert outcomes(Campaign(offer_id="o", unit_id="shop", within_s=10)) == [["PUSH", "TOO_FAR", "TOO_FAR", "NO_WAY"]]
    shut = ROUTER.with_live(Live(closed_connectors=frozenset({"up", "down", "lift", "stairs"})))
    assert outcomes(Campaign(offer_id="o", unit_id="shop", within_s=600), router=shut) == [["PUSH", "PUSH", "NO_WAY", "NO_WAY"]]


def test_segments_languages_and_quiet_hours_hold_back() -> None:
    base: dict[str, Any] = {"offer_id": "o", "unit_id": "shop", "within_s": 600}
    assert outcomes(Campaign(**base, segments=0b10))[0][:3] == ["SEGMENT"] * 3
    assert outcomes(Campaign(**base, segments=0b11))[0][:3] == ["PUSH"] * 3
    assert outcomes(Campaign(**base, languages=frozenset({"ar"})))[0][:3] == ["LANGUAGE"] * 3
    night = Campaign(**base, quiet=(Hours(79_200, 108_000, every_s=86_400),))
    assert [outcomes(night, at_s=at)[0][0] for at in (80_000.0, 79_000.0, 86_400 + 80_000.0)] == ["QUIET", "PUSH", "QUIET"]


def test_the_nearest_come_first_where_budget_or_room_do_not_last() -> None:
    base: dict[str, Any] = {"offer_id": "o", "unit_id": "shop", "within_s": 600}
    assert outcomes(Campaign(**base, budget=1)) == [["PUSH", "BUDGET", "BUDGET", "NO_WAY"]]
    rooms = {"shop": Room(ground_m2=80.0, people=30, on_the_way=8)}
    assert outcomes(Campaign(**base, density_per_m2=0.5), rooms=rooms) == [["PUSH", "PUSH", "CROWDED", "NO_WAY"]]
    assert outcomes(Campaign(**base, density_per_m2=0.4), rooms=rooms) == [["CROWDED", "CROWDED", "CROWDED", "NO_WAY"]]
    with pytest.raises(InvalidInput, match="room of that unit"):
        outcomes(Campaign(**base, density_per_m2=0.4))


def test_a_higher_priority_goes_first_and_fills_the_same_store() -> None:
    low = Campaign(offer_id="a", unit_id="shop", within_s=600, density_per_m2=0.5)
    high = Campaign(offer_id="b", unit_id="shop", within_s=600, priority=5, budget=1)
    rooms = {"shop": Room(ground_m2=4.0, people=0)}
    assert outcomes(low, high, rooms=rooms) == [["PUSH", "BUDGET", "BUDGET", "NO_WAY"], ["OUTRANKED", "PUSH", "CROWDED", "NO_WAY"]]
    assert outcomes(low, high, rooms=rooms, at_most=2)[1] == ["PUSH", "CROWDED", "CROWDED", "NO_WAY"]


def test_a_hold_out_group_is_a_stable_share_and_groups_nest() -> None:
    subject = np.arange(100_000)
    tenth, third = held_out("spring", 0.1, subject), held_out("spring", 0.33, subject)
    assert abs(tenth.mean() - 0.1) < 0.004
    assert abs(third.mean() - 0.33) < 0.006
    assert not (tenth & ~third).any()
    assert (held_out("spring", 0.1, subject[::-1]) == tenth[::-1]).all()
    assert abs((tenth & held_out("autumn", 0.1, subject)).mean() - 0.01) < 0.002
    assert not held_out("spring", 0.0, subject).any()
    assert held_out("spring", 1.0, subject).all()
    assert outcomes(Campaign(offer_id="o", unit_id="shop", within_s=600, hold_out=1.0)) == [["HELD_OUT"] * 4]


def test_every_push_and_suppression_is_explained() -> None:
    (decision,) = decide([Campaign(offer_id="o", unit_id="shop", within_s=10)], PEOPLE, ROUTER, 0.0, {})
    assert decision.explain(1).startswith("o to 1: pushed: shop is ")
    assert "more than 10 s" in decision.explain(2)
    assert "no way leads" in decision.explain(4)
    assert decision.counts() | {"push": 1, "too_far": 2, "no_way": 1} == decision.counts()
    assert decision.pushed.tolist() == [1]
    with pytest.raises(InvalidInput, match="not in the crowd"):
        decision.explain(99)


@pytest.mark.parametrize("wrong", [{"within_s": 0}, {"budget": -1}, {"hold_out": 1.5}, {"density_per_m2": 0.0}])
def test_a_campaign_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="campaign o"):
        Campaign(**({"offer_id": "o", "unit_id": "shop", "within_s": 60} | wrong))
