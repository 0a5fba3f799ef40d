"""RiMEA's quick tests, flow through a door, and what a file of trajectories keeps. The slow ones run by `esplanade crowd validate`; docs/validation.md has all."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as replace_struct
from shapely.geometry import box

from benchmarks.crowd_calibration import Walked, cross_validate
from esplanade.core.errors import InvalidInput, NotFound
from simulation.crowd_drawing import draw_run, egress
from simulation.crowd_run import egress_curve, run_crowd
from simulation.models import CALIBRATED, PUBLISHED, AnticipationVelocity, SocialForce, check_model, model_of
from simulation.placing import spread
from simulation.realism import DENSITIES, WIDTHS_M, bottlenecks, corridor_speeds, speed_at_density, spread_at
from simulation.rimea import QUICK, TESTS
from simulation.study import Study
from simulation.study_places import ground_of
from simulation.study_spec import CrowdSpec, GoalSpec, GroundSpec, PeopleSpec, read_spec
from simulation.trajectories import Recording, load, save

DOCUMENT = Path(__file__).parents[2] / "docs" / "crowd.md"


@pytest.mark.parametrize("number", [*QUICK, "12", "13"])
def test_rimea_by_the_calibrated_parameters(number: str) -> None:
    verdict = TESTS[number](CALIBRATED, 1)
    assert verdict.passed, verdict


@pytest.mark.parametrize("number", ["1", "6", "13"])
def test_rimea_by_the_published_parameters(number: str) -> None:
    verdict = TESTS[number](PUBLISHED, 1)
    assert verdict.passed, verdict


@pytest.mark.parametrize("model", [AnticipationVelocity(), SocialForce()], ids=["anticipation", "social-force"])
@pytest.mark.parametrize("number", ["1", "2", "3", "6"])
def test_rimea_by_the_other_models(model: AnticipationVelocity | SocialForce, number: str) -> None:
    verdict = TESTS[number](model, 1)
    assert verdict.passed, verdict


@pytest.fixture
def documented(tmp_path: Path) -> Path:
    """The scenario that docs/crowd.md shows."""
    block = re.search(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    path = tmp_path / "evacuation.toml"
    path.write_text(block[1], encoding="utf-8")
    return path


def test_the_documented_scenario_runs_and_is_drawn_and_its_trajectories_are_kept(documented: Path, tmp_path: Path) -> None:
    spec = read_spec(documented)
    outcome = run_crowd(spec, threads=1)
    assert outcome.report.bodies == outcome.report.riding == 0
    assert outcome.overlap_m <= 0.01 + 1e-9
    assert len(outcome.left_s) == outcome.report.added == sum(people.count for people in spec.people)
    curve = egress_curve(outcome, points=5)
    assert curve[-1] == (round(float(outcome.left_s[-1]), 2), len(outcome.left_s))
    assert [count for _, count in curve] == [int((outcome.left_s <= time + 0.005).sum()) for time, _ in curve]
    assert run_crowd(spec, threads=2).digest == outcome.digest
    for name in ("paths.parquet", "paths.txt"):
        save(outcome.recording, tmp_path / name)
        again = load(tmp_path / name)
        np.testing.assert_array_equal(again.person, outcome.recording.person)
        np.testing.assert_array_equal(again.frame, outcome.recording.frame)
        np.testing.assert_allclose(again.x_m, outcome.recording.x_m, atol=6e-5)
        assert again.rate_hz == pytest.approx(outcome.recording.rate_hz)
    assert draw_run(outcome.recording, outcome.study.setting.levels[0]).startswith(b"\x89PNG")


def test_every_key_of_a_scenario_is_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for key in CrowdSpec.__struct_fields__:
        assert f"`{key}`" in text, key


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ground = 3", "ground"),
        ("[[ground]]\noutline = [[0, 0], [9, 0], [9, 9]]\n[[goals]]\nname = 'a'\narea = [[1, 1], [2, 1], [2, 2]]\n[[people]]\ncount = 1\ngoal = 'b'\narea = [[0, 0], [9, 0], [9, 9]]", "goal 'b'"),
        ("goals = []\npeople = []\nground = []\nstep = 3", "unknown field"),
        ("[[", "cannot be read"),
        ("[visitors]\ninside = 3", r"begin each of its entries with \[\[visitors\]\]"),
        ("[[alarm]]\nat = '14:00'", r"begin it with \[alarm\]"),
        ("[alarm]\nat = 14", "a time is written in quotation marks"),
    ],
)  # fmt: skip
def test_a_scenario_that_breaks_a_rule_is_refused_with_the_rule(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=says):
        Study.of(read_spec(path))
    with pytest.raises(NotFound, match="no such file"):
        read_spec(tmp_path / "none.toml")


@pytest.mark.parametrize(("door_m", "passes"), [(0.36, False), (0.5, True)])
def test_a_door_narrower_than_a_body_is_named_before_the_run(door_m: float, passes: bool) -> None:
    low, high = 2.0 - door_m / 2, 2.0 + door_m / 2
    outline = [(0, 0), (4, 0), (4, low), (4.2, low), (4.2, 0), (9, 0), (9, 4), (4.2, 4), (4.2, high), (4, high), (4, 4), (0, 4)]
    goal = GoalSpec("out", [(8, 1), (9, 1), (9, 3), (8, 3)])
    people = PeopleSpec(3, [(0, 0), (3, 0), (3, 4), (0, 4)], "out", radius_m=0.2)
    spec = CrowdSpec([GroundSpec(outline)], [goal], [people], cell_m=0.1)
    if passes:
        assert run_crowd(spec).report.left == {"out": 3}
    else:
        with pytest.raises(InvalidInput, match=r"3 of them.*widen the doors to 0\.40 m"):
            Study.of(spec)


def test_ways_do_not_lead_into_a_gap_that_no_body_fits_through() -> None:
    """A wall that ends 0.1 m before the next one: people went that way, it is the shorter one, and stood there to the end."""
    wall = [(4, 2), (4.3, 2), (4.3, 7.9), (4, 7.9)]
    goal = GoalSpec("out", [(8, 5), (9, 5), (9, 8), (8, 8)])
    people = PeopleSpec(5, [(0, 6), (3, 6), (3, 8), (0, 8)], "out")
    spec = CrowdSpec([GroundSpec([(0, 0), (9, 0), (9, 8), (0, 8)], [wall])], [goal], [people], seconds=60.0)
    outcome = run_crowd(spec, threads=1)
    assert outcome.report.left == {"out": 5}
    assert outcome.study.setting.too_narrow == ("level 0: (4.15, 7.95)",)
    pillar = [(4, 2), (4.3, 2), (4.3, 7.6), (4, 7.6)]
    assert Study.of(replace_struct(spec, ground=[GroundSpec(spec.ground[0].outline, [pillar])])).setting.too_narrow == ()


def test_a_wall_may_be_drawn_from_side_to_side_and_past_the_outline() -> None:
    """It used to be refused as an outline that crosses itself."""
    room = [(0.0, 0.0), (9.0, 0.0), (9.0, 8.0), (0.0, 8.0)]
    whole = ground_of("ground 0", GroundSpec(room, [[(4, -1), (4.3, -1), (4.3, 6), (4, 6)], [(4, 5), (6, 5), (6, 6), (4, 6)]]))
    assert whole.area == pytest.approx(72.0 - 0.3 * 6.0 - 2.0 + 0.3)
    assert ground_of("ground 0", GroundSpec(room, [[(4, 0), (5, 0), (5, 8), (4, 8)]])).area == pytest.approx(64.0)
    with pytest.raises(InvalidInput, match="ground 0: hole 1: its ring crosses itself"):
        ground_of("ground 0", GroundSpec(room, [[(1, 1), (2, 1), (2, 2)], [(1, 1), (2, 2), (2, 1), (1, 2)]]))
    with pytest.raises(InvalidInput, match="leave nothing"):
        ground_of("ground 0", GroundSpec(room, [[(-1, -1), (10, -1), (10, 9), (-1, 9)]]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"people": [PeopleSpec(3, [(20, 0), (23, 0), (23, 4), (20, 4)], "out")]}, "people 0: their area lies in walls or off level 0"),
        ({"people": [PeopleSpec(900, [(0, 0), (3, 0), (3, 4), (0, 4)], "out")]}, "people 0: spread: 900 bodies"),
        ({"record_s": 0.0}, "record_s = 0.0"),
        ({"jam_s": -1.0}, "jam_s = -1.0"),
    ],
)
def test_what_cannot_be_run_is_named_by_its_entry(change: dict[str, Any], says: str) -> None:
    goal = GoalSpec("out", [(8, 1), (9, 1), (9, 3), (8, 3)])
    spec = CrowdSpec([GroundSpec([(0, 0), (9, 0), (9, 4), (0, 4)])], [goal], [PeopleSpec(3, [(0, 0), (3, 0), (3, 4), (0, 4)], "out")])
    with pytest.raises(InvalidInput, match=says):
        Study.of(replace_struct(spec, **change))


def test_the_egress_curve_has_everybody_who_left_and_nobody_who_did_not() -> None:
    """Three frames in two of which somebody is: the picture used to leave out who left last."""
    person, frame = np.array([1, 2, 1]), np.array([0, 0, 1])
    there = np.zeros(3)
    left_last = Recording(person, frame, there, there, there.astype(np.uint8), 2.0, frames=3)
    when, how_many = egress(left_last)
    assert (when.tolist(), how_many.tolist()) == ([0.0, 0.5, 1.0, 1.0], [0, 1, 2, 2])
    still_there = replace(left_last, frames=2)
    assert egress(still_there)[1].tolist() == [0, 1, 1]


def test_people_are_spread_clear_of_walls_and_each_other_or_refused() -> None:
    rng = np.random.default_rng(1)
    place = spread(box(0, 0, 10, 10), 300, rng=rng, radius_m=0.2)
    gap = np.linalg.norm(place[:, None] - place[None], axis=2) + np.eye(300) * 9
    assert gap.min() > 0.4
    assert place.min() > 0.2
    assert place.max() < 9.8
    with pytest.raises(InvalidInput, match="900 bodies"):
        spread(box(0, 0, 10, 10), 900, rng=rng, radius_m=0.2)


def test_a_scenario_takes_the_calibrated_parameters_unless_it_names_the_published_ones() -> None:
    assert model_of(CrowdSpec().model, {}, parameter_set=CrowdSpec().parameter_set) == CALIBRATED
    assert model_of("collision_free_speed", {}, parameter_set="published") == PUBLISHED
    assert model_of("collision_free_speed", {"time_gap_s": 0.5}) == replace(CALIBRATED, time_gap_s=0.5)
    assert model_of("social_force", {}) == SocialForce()
    with pytest.raises(InvalidInput, match="there are calibrated, published"):
        model_of("collision_free_speed", {}, parameter_set="fitted")
    with pytest.raises(InvalidInput, match="parameter 'gap'"):
        model_of("collision_free_speed", {"gap": 1.0})


@pytest.mark.parametrize("parameters", [{"stand_off_m": -0.1}, {"stand_off_m": 2.0}, {"shuffle_per_s": 20.0}])
def test_distances_and_shuffles_that_cannot_be_are_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="stand_off_m must be 0 to 1 m"):
        check_model(replace(CALIBRATED, **parameters), 0.05)


@pytest.mark.data
def test_by_default_a_door_and_a_crowd_are_as_in_the_laboratory() -> None:
    root = os.environ.get("ESPLANADE_DATA")
    if not root:
        pytest.skip("set ESPLANADE_DATA to the folder of the real data")
    for verdict in bottlenecks(CALIBRATED, Path(root), widths=(1.2,), seeds=(1,)):
        assert verdict.passed, verdict
    wide_open = corridor_speeds(Path(root), "180-180-180")
    near = wide_open[np.abs(wide_open[:, 0] - 1.68) < 0.1, 1]
    assert near.mean() == pytest.approx(0.96, abs=0.06)  # as published with the data
    jams = np.concatenate([corridor_speeds(Path(root), name) for name in ("180-180-120", "180-180-095")])
    density, speed = np.mean([speed_at_density(CALIBRATED, 2.5, seed=seed) for seed in (1, 2)], axis=0)
    there = spread_at(jams, density)
    assert there is not None
    assert there[0] <= speed <= there[2]


def test_a_fold_is_scored_on_runs_that_its_fit_does_not_see() -> None:
    """Two runs at one density disagree: what is fitted on one misses the other, and it is said that no single speed could be in both."""
    slow, fast = (np.column_stack([np.full(40, 2.0), np.linspace(middle - 0.1, middle + 0.1, 40)]) for middle in (0.5, 0.9))
    doors = np.array([[1.0, 2.0], [1.0, 2.0]])
    flows = 2.0 * np.array(WIDTHS_M)
    slow_law, fast_law = (Walked(model, np.array([[2.0, speed]]), flows) for model, speed in ((CALIBRATED, 0.5), (PUBLISHED, 0.9)))
    fold_of = np.array([0, 1])
    held, chosen, off = cross_validate([slow_law, fast_law], [slow, fast], doors, fold_of, fold_of, folds=2)
    assert chosen == [PUBLISHED, CALIBRATED]
    assert (held[0].folds, held[0].held, held[0].could) == (2, 0, 1)
    agreed, _, scatter = cross_validate([slow_law, fast_law], [slow, slow], doors, fold_of, fold_of, folds=2)
    assert (agreed[0].folds, agreed[0].held, agreed[0].could) == (2, 2, 2)
    np.testing.assert_allclose(off, [[0.4, 0.4], [-0.4, -0.4]], atol=1e-9)  # as far off the law as the runs are apart
    np.testing.assert_allclose(scatter, 0.0, atol=1e-9)
    assert all((door.folds, door.held, door.could) == (2, 2, 2) for door in held[len(DENSITIES) :])
