"""Studies: people with something to do. Groups, lines, doors, arrivals, offers, acts and alarms, as claims."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats
from shapely.geometry import box
from typer.testing import CliRunner

from esplanade.cli.crowd import app
from esplanade.core.errors import InvalidInput
from simulation import groups
from simulation.arrivals import ArrivalRate
from simulation.crowd_animation import page
from simulation.crowd_run import connector_figures, run_crowd
from simulation.doors import Door, Doors
from simulation.floor import Floor
from simulation.placing import spread
from simulation.study import Study
from simulation.study_people import STAY
from simulation.study_spec import CrowdSpec, read_spec
from simulation.waiting_lines import WaitingLine
from simulation.walkers import Goal, Walkers
from spatial.venue_files import load_venue

Document = dict[str, Any]


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def study(document: Document) -> Study:
    return Study.of(msgspec.convert(document, CrowdSpec), threads=1)


def hall(**more: Any) -> Document:
    """A hall of 30 m x 20 m with an exit in the west."""
    document: Document = {
        "ground": [{"outline": rectangle(0, 0, 30, 20)}],
        "goals": [{"name": "door", "area": rectangle(0, 8, 1.2, 12)}],
        "seed": 3,
        "step_s": 0.1,
    }
    return document | more


def two_shops(**more: Any) -> Document:
    """A mall of two storeys, one shop in each east end, joined by an escalator each way and a lift."""
    shops = [
        {"name": "below", "area": rectangle(22, 2, 29, 18), "leave": False, "popularity": 1.0, "category": "toys", "stay_s": [40.0, 0.3]},
        {"name": "above", "area": rectangle(22, 2, 29, 18), "leave": False, "level": 1, "popularity": 1.0, "stay_s": [40.0, 0.3]},
    ]
    document = hall(
        starts="12:00", seconds=420.0,
        escalators=[{"id": "up", "from": [0, 12, 5], "to": [1, 16, 5]}, {"id": "down", "from": [1, 16, 15], "to": [0, 12, 15]}],
        lifts=[{"id": "lift", "stops": [[0, 5, 18], [1, 5, 18]]}],
    )  # fmt: skip
    document["ground"] *= 2
    document["goals"] += shops
    return document | more


# -- arrivals


def test_a_fitted_rate_brings_each_hours_count_and_is_nowhere_negative() -> None:
    counts = [0.0, 120.0, 900.0, 1400.0, 300.0, 0.0, 0.0]
    rate = ArrivalRate.fit(counts)
    each = np.diff(rate.expected(3600.0 * np.arange(8)))
    np.testing.assert_allclose(each, counts, atol=0.5)
    assert rate.per_h.min() >= 0.0
    np.testing.assert_allclose(rate.expected([1800.0, 5400.0, 9999.0]), [np.trapezoid(rate.at(np.linspace(0, t, 20001)), dx=t / 20000 / 3600) for t in (1800.0, 5400.0, 9999.0)], rtol=1e-4, atol=1e-6)  # fmt: skip
    with pytest.raises(InvalidInput, match="each 0 or more"):
        ArrivalRate.fit([10.0, -1.0])


def test_arrivals_are_a_poisson_process_of_the_fitted_rate() -> None:
    rate = ArrivalRate.fit([200.0, 1800.0, 900.0, 400.0])
    rng = np.random.default_rng(5)
    times = rate.sample(0.0, 4 * 3600.0, rng=rng)
    # By the time rescaling theorem the expected counts between arrivals are exponential with mean 1.
    gaps = np.diff(rate.expected(times))
    assert stats.kstest(gaps, "expon").pvalue > 0.01
    totals = [len(rate.sample(0.0, 4 * 3600.0, rng=rng)) for _ in range(200)]
    assert np.mean(totals) == pytest.approx(3300.0, abs=4 * np.sqrt(3300 / 200))
    assert 0.7 < np.var(totals) / np.mean(totals) < 1.4
    assert stats.kstest(np.diff(times), "expon", args=(0, float(np.diff(times).mean()))).pvalue < 0.01  # and not of a constant one


# -- groups


def spread_of(groups_of: list[list[int]], walkers: Walkers) -> float:
    """Mean distance of members from their group's centre."""
    place = {int(i): (x, y) for i, x, y in zip(walkers.rows["id"], walkers.rows["x"], walkers.rows["y"], strict=True)}
    found = []
    for members in groups_of:
        here = np.array([place[m] for m in members if m in place])
        if len(here) == len(members):
            found.append(np.hypot(*(here - here.mean(axis=0)).T).mean())
    return float(np.mean(found))


def test_members_of_a_group_stay_together_though_they_walk_at_different_speeds() -> None:
    corridor: Document = {
        "ground": [{"outline": rectangle(0, 0, 80, 12)}], "goals": [{"name": "end", "area": rectangle(78, 0, 80, 12)}], "seed": 2,
        "people": [{"count": 36, "area": rectangle(1, 1, 12, 11), "goal": "end", "group_sizes": [0, 0, 1], "speed_mps": [1.3, 0.3]}],
    }  # fmt: skip
    together = study(corridor)
    families = [list(members) for members in together._members]
    assert len(families) == 12
    apart = study(corridor)
    apart._members = []
    for _ in range(round(40.0 / together.walkers.step_s)):
        together.step()
        apart.step()
    assert spread_of(families, together.walkers) < 1.5
    assert spread_of(families, apart.walkers) > 2.0 * spread_of(families, together.walkers)


def test_the_pull_within_a_group_is_the_papers() -> None:
    # Two who walk east: one ahead of the other by 4 m, 3 m aside. Half of their size is 0.5 m; the centre is 2.5 m off for both.
    x, y, one = np.array([4.0, 0.0]), np.array([3.0, 0.0]), np.ones(2)
    lean_x, lean_y, speed = groups.wished(
        np.zeros(2, np.int64), np.zeros(2, np.uint8), x, y, one, 0 * one, 1.2 * one, 0 * one, 1.2 * one, np.array([2])
    )
    turn = np.arccos(-0.8) - np.pi / 2  # the one ahead looks back over the shoulder
    wish = np.array([[1.2 - 1.5 * 0.8 - 0.5 * 4.0 * turn * 1.2, -1.5 * 0.6], [1.2 + 1.5 * 0.8, 1.5 * 0.6]])
    assert wish[0, 0] < 0.0  # who would turn round stands and waits
    assert speed[0] == groups.SLOWEST
    assert (lean_x[0], lean_y[0]) == (0.0, 0.0)
    assert speed[1] == pytest.approx(min(1.3 * 1.2, np.hypot(*wish[1])))
    np.testing.assert_allclose(np.array([1.0 + lean_x[1], lean_y[1]]), wish[1] / np.hypot(*wish[1]))


def test_a_family_with_a_pram_takes_the_lift_and_others_the_escalator() -> None:
    people = [
        {"count": 12, "area": rectangle(4, 8, 10, 17), "goal": "above", "group_sizes": [0, 0, 1], "prams": 1.0},
        {"count": 8, "area": rectangle(13, 1, 20, 4), "goal": "above"},
    ]
    run = study(two_shops(people=people))
    for _ in range(round(240.0 / run.walkers.step_s)):
        run.step()
    by = [run.transport.connectors[which].id for _, which, _ in run.transport.boarded]
    assert by.count("lift") == 12
    assert by.count("up") == 8
    assert sorted(np.round(run.walkers.rows["radius"], 2).tolist()) == [0.15] * 16 + [0.4] * 4
    assert set(run.walkers.rows["level"].tolist()) == {1}


# -- lines


def test_a_till_serves_first_come_first_served_at_its_rate_and_the_line_stands_in_order() -> None:
    run = study(
        hall(
            services=[{"name": "till", "counters": [[20, 4], [22, 4]], "line": [[21, 6], [21, 18]], "service_s": [10.0, 0.01]}],
            people=[{"count": 20, "area": rectangle(4, 4, 14, 16), "goal": "door", "via": ["till"]}],
        )
    )
    line = run.lines[1]
    longest, in_order = 0, 0
    while run.busy and run.walkers.time_s < 400.0:
        run.step()
        longest = max(longest, len(line.queue))
        if len(line.queue) >= 5:
            place = {int(i): y for i, y in zip(run.walkers.rows["id"], run.walkers.rows["y"], strict=True)}
            in_order += bool(np.all(np.diff([place[who] for who in line.queue]) > 0.0))
    assert run.walkers.report().left["door"] == 20
    assert len(line.waits) == 20
    assert line.far_served == 0
    assert longest >= 8
    assert in_order > 100
    # 20 people, two counters, 10 s each and some way to them: the last begins after 90 s at least.
    began = np.array([step for step, _ in line.waits]) * run.walkers.step_s
    assert 90.0 < began[-1] - began[0] < 150.0
    assert run.walkers.overlap_m()[0] <= 0.01


def test_a_line_forgets_who_leaves_it() -> None:
    line = WaitingLine.of("bar", [[0, 0]], [[0, 1], [0, 5]], (10.0, 0.1))
    for who in (1, 2, 3):
        line.join(who, 0)
    assert line.turn(0, 0.1, lambda who: (9.0, 9.0), lambda who: 0.5) == []
    assert line.targets() == [(2, 0.0, 1.0), (3, 0.0, 1.6), (1, 0.0, 0.0)]
    line.drop({1, 2})
    assert line.turn(10, 0.1, lambda who: (0.0, 0.0), lambda who: 0.5) == []
    assert line.served == [3]
    assert line.turn(20, 0.1, lambda who: (0.0, 0.0), lambda who: 0.5) == []
    assert line.turn(120, 0.1, lambda who: (0.0, 0.0), lambda who: 0.5) == [3]


# -- doors


def test_a_door_that_closes_sends_the_rest_another_way_and_nobody_passes_the_shut_one() -> None:
    ground = box(0, 0, 20, 12).difference(box(10, 0, 10.2, 3)).difference(box(10, 4.4, 10.2, 9)).difference(box(10, 10.4, 10.2, 12))
    floor = Floor.of([ground], cell_m=0.2)
    walkers = Walkers(floor, [Goal("east", 0, box(18, 0, 20, 8))])
    doors = Doors(floor, [Door("near", 0, box(9.8, 2.9, 10.4, 4.5), closes_s=8.0, opens_s=60.0)])
    place = spread(ground, 60, rng=np.random.default_rng(1), within=box(1, 1, 8, 8))
    walkers.add(place[:, 0], place[:, 1], goal=0)
    by_near: list[float] = []
    before = dict(zip(walkers.rows["id"].tolist(), walkers.rows["x"].tolist(), strict=True))
    shut_at = None
    while len(walkers) and walkers.time_s < 300.0:
        doors.act(walkers)
        if shut_at is None and doors.state == [2]:
            shut_at = walkers.time_s
        walkers.step()
        for i, x, y in zip(walkers.rows["id"].tolist(), walkers.rows["x"].tolist(), walkers.rows["y"].tolist(), strict=True):
            if before[i] < 10.1 <= x and y < 6.0:
                by_near.append(walkers.time_s)
            before[i] = x
    assert shut_at is not None
    assert 8.0 <= shut_at < 20.0
    assert 0 < sum(t <= shut_at for t in by_near) < 40
    assert not [t for t in by_near if shut_at < t < 60.0]
    assert walkers.report().left == {"east": 60}


# -- visitors


def test_visitors_come_by_the_curve_stay_in_shops_and_leave() -> None:
    visitors = [{"hourly": [800.0], "stops": 1.0, "group_sizes": [0.7, 0.3], "time_s": [600.0, 0.2], "prams": 0.2}]
    run = study(two_shops(visitors=visitors, seconds=300.0))
    stayed = set()
    while run.busy and run.walkers.time_s < 1200.0:
        run.step()
        here = np.flatnonzero(run.people["here"] & (run.people["phase"] == STAY))
        stayed |= set(here.tolist())
    expected = ArrivalRate.fit([800.0]).expected(300.0)
    assert abs(run.came - expected) < 4 * np.sqrt(1.5 * expected)
    assert len(stayed) >= 0.95 * run.came
    assert run.walkers.report().left["door"] + run.walkers.report().left["door (step-free)"] == run.came
    assert not run.bound.any()
    boarded = {run.transport.connectors[which].id for _, which, _ in run.transport.boarded}
    assert boarded == {"up", "down", "lift"}


def test_a_sale_pulls_people_up_the_escalator_and_on_the_ground_floor_it_does_not() -> None:
    """The operator's question, small."""

    def figures(place: str) -> tuple[int, float]:
        offers = [{"place": place, "at": "12:00:05", "until": "12:05", "pull": 0.9, "decay_m": 500.0}]
        likes = {"toys": 1.0, "": 0.0}
        document = two_shops(visitors=[{"inside": 60, "stops": 3.0, "likes": likes}], offers=offers, seconds=180.0)
        outcome = run_crowd(msgspec.convert(document, CrowdSpec), threads=1)
        (found,) = connector_figures(outcome, names=["up"], window=(5.0, 180.0))
        return found.boarded, found.density_mean

    above, below = figures("above"), figures("below")
    assert above[0] >= 30
    assert below[0] <= 3
    assert above[1] > below[1]


def test_a_run_of_less_than_a_second_has_figures_of_no_connector() -> None:
    document = two_shops(visitors=[{"inside": 5}], seconds=0.5)
    assert connector_figures(run_crowd(msgspec.convert(document, CrowdSpec), threads=1)) == []


def test_those_who_come_to_a_sale_spread_over_the_shop_and_leave_its_door_free() -> None:
    outline = [[0, 0], [10, 0], [10, 8.2], [10.2, 8.2], [10.2, 0], [40, 0], [40, 20], [10.2, 20], [10.2, 11], [10, 11], [10, 20], [0, 20]]
    shop = {"name": "shop", "area": rectangle(10.4, 0, 40, 20), "leave": False, "stay_s": [3000.0, 0.1]}
    people = [{"count": 60, "area": rectangle(2, 1, 9.5, 19), "goal": "out", "via": ["shop"]}]
    goals = [shop, {"name": "out", "area": rectangle(0, 8, 1.2, 12)}]
    run = study({"ground": [{"outline": outline}], "goals": goals, "people": people, "seed": 3, "step_s": 0.1})
    for _ in range(1200):
        run.step()
    r = run.walkers.rows
    assert (r["x"] > 10.2).all()
    assert np.median(r["x"]) > 20.0
    assert np.count_nonzero(np.hypot(r["x"] - 10.2, r["y"] - 9.6) < 3.0) <= 6


def test_an_act_draws_its_share_and_lets_it_go_when_it_ends() -> None:
    stage = {"name": "stage", "area": rectangle(20, 4, 29, 16), "leave": False}
    bar = {"name": "bar", "area": rectangle(3, 13, 18, 19), "leave": False, "popularity": 1.0, "stay_s": [30.0, 0.2]}
    document = hall(
        starts="18:00", seconds=600.0, visitors=[{"inside": 40, "stops": 30.0, "closes": "18:08", "egress_s": [15.0, 0.5]}],
        acts=[{"place": "stage", "from": "18:02", "until": "18:05", "share": 0.5, "lead_s": 60.0}],
    )  # fmt: skip
    document["goals"] += [stage, bar, bar | {"name": "other bar", "area": rectangle(3, 1, 18, 7)}]
    run = study(document)
    before_stage = []
    while run.busy and run.walkers.time_s < 600.0:
        run.step()
        before_stage.append((run.walkers.time_s, int((run.walkers.rows["x"] > 19.5).sum())))
    during = np.mean([n for t, n in before_stage if 150 < t < 300])
    after = np.mean([n for t, n in before_stage if 420 < t < 480])
    assert 12 <= during <= 28
    assert after <= 3
    assert run.walkers.report().left["door"] == 40
    assert run.walkers.time_s < 590.0


def test_after_an_alarm_everybody_leaves_by_the_nearest_exit_after_their_premovement_time() -> None:
    document = two_shops(
        visitors=[{"inside": 50, "hourly": [600.0]}],
        alarm={"at": "12:01", "premovement_s": [20.0, 0.5], "closes": ["lift", "up"]}, seconds=600.0,
    )  # fmt: skip
    run = study(document)
    started: dict[int, float] = {}
    up_after = 0
    while run.busy and run.walkers.time_s < 600.0:
        before = len(run.transport.boarded)
        run.step()
        if run.walkers.time_s > 60.5:
            up_after += sum(run.transport.connectors[which].id in ("lift", "up") for _, which, _ in run.transport.boarded[before:])
            leaving = np.flatnonzero(run.people["here"] & run.people["leaving"] & (run.people["place"] == 0))
            for who in leaving.tolist():
                started.setdefault(who, run.walkers.time_s - 60.0)
    assert up_after == 0
    assert run.walkers.report().left["door"] == run.came
    late = np.log([t for t in started.values() if t > 1.0])
    assert np.exp(np.median(late)) == pytest.approx(20.0, rel=0.35)
    assert 0.25 < late.std() < 0.8


def test_the_same_study_gives_the_same_bits_for_any_threads_and_another_seed_others() -> None:
    document = two_shops(visitors=[{"inside": 40, "hourly": [900.0], "group_sizes": [0.6, 0.4]}], seconds=60.0)
    spec = msgspec.convert(document, CrowdSpec)
    one, two = run_crowd(spec, threads=1), run_crowd(spec, threads=2)
    assert one.digest == two.digest
    assert one.report == two.report
    assert run_crowd(msgspec.structs.replace(spec, seed=4), threads=1).digest != one.digest
    text = page(one, title="two <shops>")
    assert "two &lt;shops>" in text
    assert re.search(r'"start": \[0, \d+', text)
    assert "http" not in text.replace("http-equiv", "")  # nothing is loaded from elsewhere


def test_a_study_goes_on_from_a_checkpoint_to_the_same_bits() -> None:
    document = two_shops(
        visitors=[{"inside": 30, "hourly": [900.0], "group_sizes": [0.6, 0.4]}], seconds=120.0,
        offers=[{"place": "above", "at": "12:00:20", "until": "12:05", "pull": 0.5}],
        services=[{"name": "till", "counters": [[20, 1.5]], "line": [[17, 1.5], [12, 1.5]], "popularity": 2.0, "service_s": [8.0, 0.3]}],
        doors=[{"id": "door", "area": rectangle(13, 8, 13.8, 12), "closes": "12:00:10", "opens": "12:00:50"}],
    )  # fmt: skip
    one, other = study(document), study(document)
    for _ in range(400):
        one.step()
    assert one.lines[3].served != [0]
    saved = one.checkpoint()
    other.resume(saved)
    for _ in range(400):
        one.step()
        other.step()
    assert one.walkers.digest() == other.walkers.digest()
    assert one.came == other.came > 30
    with pytest.raises(InvalidInput, match="not a checkpoint of a study"):
        other.resume(saved[:50])
    with pytest.raises(InvalidInput, match="of another scenario"):
        study(document | {"doors": []}).resume(saved)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"offers": [{"place": "roof", "at": "12:01", "until": "12:02"}]}, "offers.0: goal 'roof'"),
        ({"offers": [{"place": "below", "at": "noon", "until": "12:02"}]}, "offers.0.at = 'noon'; must be a time of day"),
        ({"offers": [{"place": "below", "at": "12:05", "until": "12:02"}]}, "offers.0.*ends after it begins"),
        ({"visitors": [{"hourly": [10.0], "exits": ["below"]}]}, "visitors 0: exits"),
        ({"visitors": [{"inside": 5000}]}, "5000 inside at the start, the places hold"),
        ({"visitors": [{"inside": 5, "likes": {"": 0.0, "toys": 0.0}}]}, "no place has a popularity"),
        ({"visitors": [{"inside": 5, "group_sizes": [-1.0]}]}, "group_sizes"),
        ({"alarm": {"at": "12:01", "closes": ["ramp"]}}, "alarm.closes: 'ramp'"),
        ({"people": [{"count": 3, "area": rectangle(4, 4, 9, 9), "goal": "door", "via": ["bar"]}]}, "people 0: goal 'bar'"),
        (
            {"people": [{"count": 3, "area": rectangle(4, 4, 9, 9), "goal": "door", "via": ["above"]}], "escalators": [], "lifts": []},
            "people 0: no way leads from above to door",
        ),
        (
            {"people": [{"count": 3, "area": rectangle(4, 4, 9, 9), "goal": "above", "via": ["below"]}], "escalators": [], "lifts": []},
            "people 0: no way leads from below to above",
        ),
        ({"doors": [{"id": "gate", "area": rectangle(40, 4, 41, 9), "closes": "12:01"}]}, "door gate: no cell"),
        ({"services": [{"name": "till", "counters": [[40, 4]], "line": [[21, 6], [21, 9]]}]}, "service till.*is off the walkable ground"),
        ({"escalators": [{"id": "up", "from": [0, 12, 5], "to": [2, 16, 5]}]}, "connector up: a stop on level 2"),
        ({"starts": "noon"}, "starts = 'noon'"),
        ({"people": [{"count": 3, "area": rectangle(4, 4, 9, 9), "goal": "door", "speed_mps": [-1.0, 0.2]}]}, r"people 0: speed_mps = \[-1.0"),
        ({"visitors": [{"inside": 3, "speed_mps": [1.3, -0.2]}]}, r"visitors 0: speed_mps = \[1.3, -0.2"),
        ({"people": [{"count": 3, "area": rectangle(4, 4, 9, 9), "goal": "door", "radius_m": -0.2}]}, "people 0: radius_m = -0.2"),
        ({"people": [{"count": 0, "area": rectangle(4, 4, 9, 9), "goal": "door"}]}, "people 0: count = 0"),
        ({"people": [{"count": 3, "area": rectangle(4, 4, 9, 9), "goal": "door", "start_s": [9.0, 1.0]}]}, "people 0: start_s"),
        ({"people": [{"count": 900, "area": rectangle(4, 4, 9, 9), "goal": "door"}]}, "900 bodies"),
        ({"escalators": [], "lifts": []}, "level 1: no way leads from it to an exit, above cannot be visited"),
        (
            {"people": [{"count": 3, "area": rectangle(4, 4, 9, 9), "level": 1, "goal": "door"}], "escalators": [], "lifts": [], "visitors": []},
            "people 0: level 1 has no connector, no way leads to goal door",
        ),
        ({"step_s": 0.3}, "a step of 0.3 s"),
        ({"step_s": 0.2}, "a step of 0.2 s with a time gap of 0.2 s"),
        ({"venue": "mall.json"}, "ground and venue; give one"),
    ],
)
def test_a_study_that_cannot_be_is_refused_by_name_before_it_runs(change: Document, says: str) -> None:
    document = two_shops(visitors=[{"hourly": [10.0]}], offers=[{"place": "below", "at": "12:01", "until": "12:02"}]) | change
    with pytest.raises(InvalidInput, match=says):
        study(document)


def test_settings_are_put_over_a_scenario_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text("[[ground]]\noutline = [[0, 0], [9, 0], [9, 9]]\n[[offers]]\nplace = 'a'\nat = '12:00'\nuntil = '13:00'\n", encoding="utf-8")
    spec = read_spec(path, ['offers.0.place="shoes"', "jam_s=2", "starts=11:30"])
    assert (spec.offers[0].place, spec.jam_s, spec.starts) == ("shoes", 2.0, "11:30")
    for setting, says in (
        ("jam_s", "must be key=value"),
        ("offers.4.place=3", "leads to nothing"),
        ("offers.0.place.x=1", "leads to nothing"),
        ("jam=3", "unknown field"),
    ):
        with pytest.raises(InvalidInput, match=says):
            read_spec(path, [setting])


def test_people_who_see_a_queue_take_the_further_escalator_once_ways_are_found_anew() -> None:
    def taken(jam_s: float) -> tuple[int, int]:
        document = two_shops(
            people=[{"count": 90, "area": rectangle(3, 2, 11, 18), "goal": "above"}], jam_s=jam_s, lifts=[],
            escalators=[{"id": "near", "from": [0, 14, 10], "to": [1, 18, 10], "width_m": 0.6}, {"id": "far", "from": [0, 20, 3], "to": [1, 21, 3], "width_m": 0.6}],
        )  # fmt: skip
        run = study(document)
        for _ in range(round(90.0 / run.walkers.step_s)):
            run.step()
        by = [which for _, which, _ in run.transport.boarded]
        return by.count(0), by.count(1)

    near, far = taken(0.0)
    assert near > 4 * far
    near_now, far_now = taken(4.0)
    assert far_now > 30 > far
    assert near_now + far_now == near + far == 90  # and nobody is later for it


COMPARED = """
starts = "12:00"
seconds = 60.0
step_s = 0.1
[[ground]]
outline = [[0, 0], [20, 0], [20, 8], [0, 8]]
[[ground]]
outline = [[0, 0], [20, 0], [20, 8], [0, 8]]
[[goals]]
name = "up there"
level = 1
area = [[17, 2], [20, 2], [20, 6], [17, 6]]
[[escalators]]
id = "escalator-3"
from = [0, 12.0, 4.0]
to = [1, 6.0, 4.0]
[[people]]
count = 60
area = [[1, 1], [9, 1], [9, 7], [1, 7]]
goal = "up there"
"""


def test_compare_says_what_differs_at_an_escalator(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(COMPARED, encoding="utf-8")
    ask = ["compare", str(path), "--set", "escalators.0.width_m=0.6", "--at", "escalator-1", "--when", "12:00:20", "--within", "12", "--json"]
    answer = CliRunner().invoke(app, ask)
    assert answer.exit_code == 0, answer.output
    figures = json.loads(answer.stdout.strip().splitlines()[-1])
    (wide,), (narrow,) = figures["a"], figures["b"]
    assert wide["id"] == "escalator-3"
    assert narrow["per_minute"] < wide["per_minute"]
    assert narrow["queue_mean"] > wide["queue_mean"]
    assert narrow["wait_mean_s"] > 0.0
    assert "level of service" in answer.stdout
    for more, says in (
        ([], "one scenario and no --set"),
        (["--set", "jam_s=3", "--at", "lift"], "connector 'lift': there are escalator-3"),
        (["--set", "jam_s=3", "--when", "14:00"], "--when 14:00"),
    ):
        refused = CliRunner().invoke(app, ["compare", str(path), *more])
        assert refused.exit_code == 2
        assert says in " ".join(refused.stderr.split())


def test_run_writes_trajectories_fields_and_a_page(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(COMPARED, encoding="utf-8")
    files = {"--out": "paths.parquet", "--fields": "fields.parquet", "--animate": "run.html", "--first": "first.svg"}
    ask = [part for option, name in files.items() for part in (option, str(tmp_path / name))]
    answer = CliRunner().invoke(app, ["run", str(path), *ask, "--set", "seconds=10", "--set", "parameters.time_gap_s=0.5", "--json"])
    assert answer.exit_code == 0, answer.output
    figures = json.loads(answer.stdout.strip().splitlines()[-1])
    assert figures["connectors"][0]["id"] == "escalator-3"
    assert figures["ready_s"] > 0.0
    assert figures["cut_off"] == []
    assert (tmp_path / "first.svg").read_text(encoding="utf-8").count("<circle") == figures["added"]
    for name in files.values():
        assert (tmp_path / name).stat().st_size > 1000
    for bad in (["--fields", "x.csv"], ["--animate", "x.gif"], ["--first", "x.png"], ["--set", "parameters.gap=3"]):
        assert CliRunner().invoke(app, ["run", str(path), *bad]).exit_code == 2


def small(name: str, **over: Any) -> CrowdSpec:
    """One of our own studies with few people and for a short time."""
    return read_spec(Path(__file__).parents[2] / "scenarios" / "studies" / f"{name}.toml", [f"{key}={value}" for key, value in over.items()])


def test_a_festival_lets_its_people_go_when_the_last_act_has_ended() -> None:
    spec = small(
        "festival_evening",
        **{
            "starts": '"22:40"', "seconds": 900.0, "acts.2.until": '"22:41:30"', "visitors.0.closes": '"22:42"', "visitors.0.egress_s": [20.0, 0.4],
            "visitors.0.inside": 40, "visitors.0.hourly": [],
        },
    )  # fmt: skip
    run = Study.of(spec, threads=1)
    stage = run.setting.number("main stage", "test")
    before_stage: list[tuple[float, int]] = []
    while run.busy and run.walkers.time_s < spec.seconds:
        run.step()
        before_stage.append((run.walkers.time_s, int(np.count_nonzero(run.people["here"] & (run.people["place"] == stage)))))
    assert max(n for t, n in before_stage if t < 120) >= 20  # four in five go
    left = run.walkers.report().left
    assert left["south gate"] + left["north gate"] == 40
    assert min(left["south gate"], left["north gate"]) > 0
    assert run.walkers.time_s > 120.0  # nobody is sent home before all close


def test_a_mall_is_evacuated_by_its_stairs_after_pre_movement_times() -> None:
    outcome = run_crowd(small("mall_evacuation", **{"visitors.0.inside": 40, "seconds": 600.0, "jam_s": 0.0}), threads=1)
    assert outcome.report.bodies == outcome.report.riding == 0
    assert len(outcome.left_s) == 40
    assert outcome.left_s.min() > 15.0  # the alarm at 10 s, nobody sets out at once
    study = outcome.study
    by = {study.transport.connectors[which].id for step, which, _ in study.transport.boarded if step * study.walkers.step_s > 60.0}
    assert by
    assert all(name.startswith("stairs") for name in by)


@pytest.mark.parametrize("name", ["black_friday_upstairs", "site2_sale"])
def test_our_own_studies_can_be_read_and_name_shops_that_are_there(name: str) -> None:
    spec = read_spec(Path(__file__).parents[2] / "scenarios" / "studies" / f"{name}.toml")
    assert spec.visitors
    if Path(spec.venue).exists():  # the real mall's plan is not in the repository
        venue = load_venue(Path(spec.venue))
        assert all(offer.place in {occupant.name for occupant in venue.occupants} for offer in spec.offers)
    else:
        assert name == "site2_sale"
