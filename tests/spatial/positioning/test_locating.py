"""Fit on made walks, locate others: near the truth, on the ground, on the right floor, with a proper covariance, or plainly unknown."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from esplanade.core.errors import InvalidInput, NotFound
from spatial.positioning.coverage import coverage
from spatial.positioning.drawing import draw_walk
from spatial.positioning.grid_filter import Locator, answer_causal, answer_smoothed, first_fix
from spatial.positioning.ground import coarser
from spatial.positioning.model import Model, Prepared, fit, load_model, prepare, save_model
from spatial.positioning.observations import Radio, Walk
from spatial.positioning.scans import Scans, completed_from_next, scans_of, transmitter_of
from spatial.positioning.score import CHI2_90, Marks, fit_calibrated, folds_by_walk, score, split_by_walk, spread_of
from spatial.positioning.walk_files import parse_walk
from tests.spatial.positioning import synthetic

LEGS = np.array([[5.0, 5.0], [55.0, 5.0], [55.0, 35.0]])


@cache
def model() -> Model:
    walks = synthetic.survey(10, 0) + synthetic.survey(10, 1, seed=300)
    return fit("made", (synthetic.floor("F1", 0), synthetic.floor("F2", 1)), walks)


def a_walk(**how: object) -> tuple[Prepared, np.ndarray]:
    walk = parse_walk(synthetic.trace(LEGS, **{"seed": 900, **how}), name="new")  # type: ignore[arg-type]
    return prepare(walk), walk.waypoints


@pytest.mark.parametrize(("ordinal", "turn_rad"), [(0, 0.0), (1, 0.0), (0, 0.3), (1, -0.3)])
def test_an_unseen_walk_is_located_near_its_waypoints_on_its_floor(ordinal: int, turn_rad: float) -> None:
    walk, waypoints = a_walk(ordinal=ordinal, turn_rad=turn_rad)
    n, causal, smoothed = score(model(), [(walk, f"F{ordinal + 1}", waypoints)])
    assert n == 1
    assert smoothed.floor_right.all()
    assert smoothed.error_m.mean() < 4.0
    assert causal.prompt().error_m.mean() < 6.0


def test_estimates_are_on_free_ground_with_positive_definite_covariance_and_probabilities() -> None:
    locator = Locator(model())
    walk, _ = a_walk()
    forward, both = locator.locate(walk)
    times = np.linspace(-5, walk.duration_s + 5, 300)
    for answer in (answer_causal(locator, walk, forward, times), answer_smoothed(locator, walk, both, times)):
        free = model().floors[0].free
        cell = np.floor(answer.xy_m).astype(int)
        assert free[cell[:, 1], cell[:, 0]].all()
        assert np.linalg.eigvalsh(answer.cov_m2).min() > 0
    for estimates in (forward, both):
        np.testing.assert_allclose(estimates.floors.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("quarters", [1, 2])
def test_estimates_turn_with_the_frame_of_the_venue(quarters: int) -> None:
    def turned(xy: np.ndarray) -> np.ndarray:
        for side in (synthetic.HIGH, synthetic.WIDE)[:quarters]:
            xy = np.column_stack([side - xy[:, 1], xy[:, 0]])
        return xy

    floor = synthetic.floor()
    free = np.ascontiguousarray(np.rot90(floor.free, -quarters))
    ground = replace(floor, free=free, rooms=np.zeros_like(free))
    walks = synthetic.survey()
    first = Locator(fit("made", (floor,), walks))
    second = Locator(fit("made", (ground,), [(w, f, np.column_stack([p[:, 0], turned(p[:, 1:])])) for w, f, p in walks]))
    walk, _ = a_walk(turn_rad=0.1)
    for mine, other in zip(first.locate(walk), second.locate(walk), strict=True):
        off = np.hypot(*(turned(mine.xy_m) - other.xy_m).T)
        assert off.max() < 1.0  # the bins of the survey begin at other corners
        np.testing.assert_allclose(np.linalg.det(mine.cov_m2), np.linalg.det(other.cov_m2), rtol=0.5)


def test_a_causal_estimate_does_not_change_when_later_readings_are_taken_away() -> None:
    locator = Locator(model())
    walk, _ = a_walk()
    cut = len(walk.scans) // 2
    s = walk.scans
    shorter = replace(s, told_s=s.told_s[:cut], about_s=s.about_s[:cut], first=s.first[: cut + 1])
    shorter = replace(shorter, transmitter=s.transmitter[: s.first[cut]], rssi_dbm=s.rssi_dbm[: s.first[cut]])
    whole, _ = locator.locate(walk)
    part, _ = locator.locate(replace(walk, scans=shorter))
    np.testing.assert_allclose(whole.xy_m[:cut], part.xy_m, atol=1e-3)


def test_a_walk_without_wifi_or_in_another_building_is_unknown_not_somewhere() -> None:
    locator = Locator(model())
    silent, waypoints = a_walk(wifi=False)
    alien = prepare(parse_walk(synthetic.trace(LEGS).replace(b"00:11:22:33", b"00:99:88:77"), name="alien"))
    for walk in (silent, alien):
        forward, both = locator.locate(walk)
        assert len(forward) == len(both) == 0
        assert not answer_smoothed(locator, walk, both, waypoints[:, 0]).known.any()
    _, causal, smoothed = score(model(), [(silent, "F1", waypoints)])
    assert smoothed.floor_right.sum() == 0
    assert causal.error_m.min() == 100.0


def test_a_region_on_a_wrong_floor_holds_nobody() -> None:
    walk, waypoints = a_walk()
    _, causal, smoothed = score(model(), [(walk, "F2", waypoints)])
    assert smoothed.error_m.mean() < 4.0
    assert causal.summary()["calibration_90"] == smoothed.summary()["calibration_90"] == 0.0


def test_a_walk_without_a_heading_is_located_by_radio_alone() -> None:
    lines = [line for line in synthetic.trace(LEGS, seed=900).split(b"\n") if b"ROTATION" not in line]
    walk = parse_walk(b"\n".join(lines), name="w")
    _, _, smoothed = score(model(), [(prepare(walk), "F1", walk.waypoints)])
    assert smoothed.floor_right.all()
    assert smoothed.error_m.mean() < 15.0


def test_no_fix_is_shown_before_the_filter_is_sure_or_has_waited() -> None:
    walk, _ = a_walk()
    forward, _ = Locator(model()).locate(walk)
    assert 0 <= first_fix(forward) <= 3


def test_networks_of_one_access_point_are_one_transmitter_and_phones_in_pockets_none() -> None:
    assert transmitter_of("w:04:40:a9:a1:86:00") == transmitter_of("w:06:40:a9:a1:86:0f")
    assert transmitter_of("w:04:40:a9:a1:86:00") != transmitter_of("w:04:40:a9:a1:86:10")
    assert transmitter_of("b:04:40:a9:a1:86:00") == "b:04:40:a9:a1:86:00"
    assert 0 < len(model().radio.transmitters) <= 24


@pytest.mark.parametrize(
    ("wifi_s", "alone_s"),
    [([1.0, 3.0, 14.0, 16.0], []), ([], [4.5, 6.5, 8.5, 10.5, 12.5, 14.5]), ([9.0], [4.5, 6.5, 8.5]), ([0.5], [21.0, 23.0])],
)
def test_bluetooth_alone_makes_scans_before_the_first_of_wifi_and_where_none_comes_for_long(wifi_s: list[float], alone_s: list[float]) -> None:
    end_s = 15.0 if not wifi_s or wifi_s[-1] > 1 else 23.0
    told = sorted([(t, 0) for t in wifi_s] + [(t, 1) for t in np.arange(0.5, end_s + 0.1, 0.5).tolist() if t not in wifi_s])
    at = np.array([t for t, _ in told])
    radio = Radio(at, at, np.array([k for _, k in told], np.int32), np.full(len(told), -60, np.float32), ("w:04:40:a9:a1:86:00", "b:1"))
    scans = scans_of(Walk("w", None, 0, end_s, radio=radio))
    assert scans.told_s.tolist() == sorted(wifi_s + alone_s)


def test_what_one_scan_misses_is_taken_from_the_one_before_and_from_no_older_one() -> None:
    at = np.array([1.0, 1.0, 3.0, 5.2, 7.4, 14.0])
    source = np.array([0, 1, 0, 0, 0, 0], np.int32)
    radio = Radio(at, at, source, np.array([-60, -70, -61, -62, -63, -64], np.float32), ("w:04:40:a9:a1:86:00", "w:04:40:a9:a1:87:00"))
    scans = scans_of(Walk("w", None, 0, 11.0, radio=radio))
    held = [sorted(scans.rssi_dbm[a:b].tolist()) for a, b in pairwise(scans.first.tolist())]
    assert held == [[-70, -60], [-70, -60], [-70, -61], [-62], [-64]]


def test_a_surveyed_scan_is_completed_from_the_next_one_too_and_from_no_later_one() -> None:
    at = np.array([1.0, 3.0, 8.0])
    scans = Scans(
        at, at, np.array([0, 1, 3, 4], np.int32), np.array([0, 0, 1, 2], np.int32), np.array([-60, -61, -70, -80], np.float32), ("a", "b", "c")
    )
    whole = completed_from_next(scans)
    held = [dict(zip(whole.transmitter[a:b].tolist(), whole.rssi_dbm[a:b].tolist(), strict=True)) for a, b in pairwise(whole.first.tolist())]
    assert held == [{0: -60, 1: -70}, {0: -61, 1: -70}, {2: -80}]
    empty = Scans(np.zeros(0), np.zeros(0), np.zeros(1, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32), ())
    assert len(completed_from_next(empty)) == 0


def test_coarser_ground_keeps_corner_metres_and_what_is_mostly_free() -> None:
    floor = synthetic.floor()
    rooms = np.zeros_like(floor.free)
    rooms[:4, :3] = True
    wide = coarser(replace(floor, free=floor.free[:39], rooms=rooms[:39]), times=2)
    assert (wide.cell_m, wide.corner_m, wide.free.shape) == (2.0, floor.corner_m, (20, 30))
    row, column = np.indices(wide.free.shape)
    block = (row >= 6) & (row < 14) & (column >= 8) & (column < 22)
    edge = (row >= 6) & (row < 14) & ((column == 7) | (column == 22))  # half of these two columns is free
    np.testing.assert_array_equal(wide.free, ~block | edge)
    np.testing.assert_array_equal(np.argwhere(wide.rooms), [[0, 0], [0, 1], [1, 0], [1, 1]])


def test_the_next_walk_is_within_its_regions_at_ninety_percent_though_the_survey_left_out_few() -> None:
    rng = np.random.default_rng(5)

    def walks(n: int) -> np.ndarray:
        """(n, 8) squared distances of waypoints: a walk errs as a whole, some far more than others."""
        return rng.chisquare(2, (n, 8)) * rng.lognormal(0.5, 0.8, (n, 1))

    within = []
    for _ in range(300):
        learned = walks(12).ravel()
        spread = spread_of(Marks(learned, np.ones(len(learned)), learned, np.zeros(len(learned))), 12)
        within.append((walks(4) <= CHI2_90 * spread**2).mean())
    assert 0.9 < np.mean(within) < 0.97  # the plain quantile: 0.88


def test_regions_learned_on_coarser_ground_hold_the_waypoints_of_walks_on_the_fine_one() -> None:
    learned = fit_calibrated("made", (synthetic.floor(),), synthetic.survey(12, 0))
    assert learned.floors[0].cell_m == 1.0
    assert 1.0 not in (learned.tuning.spread_causal, learned.tuning.spread_smoothed)
    _, causal, smoothed = score(learned, synthetic.survey(5, 0, seed=500))
    for marks in (causal, smoothed):
        assert (marks.distance2 <= CHI2_90).mean() >= 0.75


def test_a_saved_model_is_read_back_alike_and_locates_alike(tmp_path: Path) -> None:
    size = save_model(model(), tmp_path / "m")
    back = load_model(tmp_path / "m")
    assert size == (tmp_path / "m").stat().st_size
    assert (back.site, back.tuning, back.radio.transmitters) == (model().site, model().tuning, model().radio.transmitters)
    np.testing.assert_array_equal(back.radio.strength, model().radio.strength)
    walk, _ = a_walk()
    np.testing.assert_allclose(Locator(back).locate(walk)[1].xy_m, Locator(model()).locate(walk)[1].xy_m, atol=1e-2)


def test_files_that_are_no_model_and_sites_without_survey_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="make one with"):
        load_model(tmp_path / "none")
    (tmp_path / "bad").write_bytes(b"PK\x03\x04 rubbish")
    with pytest.raises(InvalidInput, match="fit it again"):
        load_model(tmp_path / "bad")
    with pytest.raises(InvalidInput, match="no surveyed walk"):
        fit("empty", (synthetic.floor(),), [])


def test_a_split_leaves_out_whole_walks_a_quarter_of_each_floor_and_repeats_for_its_seed() -> None:
    walks = synthetic.survey(8, 0) + synthetic.survey(5, 1)
    kept, held = split_by_walk(walks, seed=3)
    assert sorted(f or "" for _, f, _ in held) == ["F1", "F1", "F2", "F2"]
    assert {w.name for w, _, _ in kept}.isdisjoint({w.name for w, _, _ in held})
    assert [w.name for w, _, _ in split_by_walk(walks[::-1], seed=3)[1]] == [w.name for w, _, _ in held][::-1]


def test_every_walk_is_left_out_by_one_fold_and_every_floor_by_each() -> None:
    walks = synthetic.survey(11, 0) + synthetic.survey(5, 1)
    folds = list(folds_by_walk(walks, 5, seed=2))
    assert sorted(w.name for _, held in folds for w, _, _ in held) == sorted(w.name for w, _, _ in walks)
    for kept, held in folds:
        assert len(kept) + len(held) == len(walks)
        assert {w.name for w, _, _ in kept}.isdisjoint({w.name for w, _, _ in held})
        assert sorted(f or "" for _, f, _ in held)[-1:] == ["F2"]
        assert 2 <= sum(f == "F1" for _, f, _ in held) <= 3


def test_coverage_names_the_corner_that_nobody_walked() -> None:
    walk = parse_walk(synthetic.trace(np.array([[3.0, 5.0], [57.0, 5.0]])), name="w")
    (row,) = coverage((synthetic.floor(),), [(prepare(walk), "F1", walk.waypoints)], reach_m=6.0)
    assert 0.2 < row.share < 0.5
    assert row.gaps[0][1] > 15


def test_a_walk_is_drawn_and_one_of_another_building_says_so() -> None:
    for data in (synthetic.trace(LEGS), synthetic.trace(LEGS, wifi=False)):
        assert draw_walk(model(), parse_walk(data, name="w")).startswith(b"\x89PNG")
