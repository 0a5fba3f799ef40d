"""Measures by hand on small cases; equal to PedPy's on laboratory trajectories (golden figures and the command that made them in `pedpy_golden.py`)."""

from __future__ import annotations

import json
import lzma
import os
from pathlib import Path

import numpy as np
import pytest
import shapely

from esplanade.core.errors import InvalidInput, LimitExceeded
from spatial import measures
from spatial.measures import Trajectories, Visits

SQUARE = shapely.box(0, 0, 10, 10)
DATA = os.environ.get("ESPLANADE_DATA")
GOLDEN = Path(__file__).parent / "pedpy_golden.json"


def walk(*places: tuple[float, float], person: int = 1, rate_hz: float = 10.0) -> Trajectories:
    x, y = zip(*places, strict=True)
    return Trajectories.of([person] * len(places), range(len(places)), x, y, rate_hz=rate_hz)


def test_classic_density_counts_people_on_the_border() -> None:
    t = Trajectories.of([1, 2, 3, 1], [0, 0, 0, 1], [0.0, 5.0, 11.0, 12.0], [0.0, 5.0, 5.0, 5.0], rate_hz=1)
    assert measures.classic_density(t, SQUARE).value.tolist() == [0.02, 0.0]


def test_two_people_share_the_ground_by_nearness_and_one_has_it_all() -> None:
    cells = measures.voronoi_cells(np.array([2.0, 6.0]), np.array([5.0, 5.0]), SQUARE)
    assert [cell.area for cell in cells] == pytest.approx([40.0, 60.0])
    assert measures.voronoi_cells(np.array([2.0]), np.array([5.0]), SQUARE)[0].area == 100
    left = shapely.box(0, 0, 5, 10)
    t = Trajectories.of([1, 2], [0, 0], [2.0, 6.0], [5.0, 5.0], rate_hz=1)
    density, speed = measures.voronoi_density(t, left, SQUARE, speed=np.array([1.0, 2.0]))
    assert density.value[0] == pytest.approx((1 + 10 / 60) / 50)
    assert speed is not None
    assert speed.value[0] == pytest.approx((40 * 1.0 + 10 * 2.0) / 50)


def test_a_cell_is_cut_at_walls_and_at_the_circle() -> None:
    walls = shapely.MultiPolygon([shapely.box(0, 0, 4, 10), shapely.box(5, 0, 10, 10)])
    cells = measures.voronoi_cells(np.array([2.0, 9.0, 4.5]), np.array([5.0, 5.0, 5.0]), walls, cut_off_m=1.0)
    assert [round(cell.area, 2) for cell in cells] == [3.14, 3.14, 0.0]


def test_speed_is_the_distance_over_the_time_and_unknown_at_the_ends() -> None:
    t = Trajectories.of([1] * 5 + [2] * 2, [0, 1, 2, 3, 4, 0, 2], [0, 1, 2, 3, 4, 0, 9], [0.0] * 7, rate_hz=2)
    speed = measures.individual_speed(t, step=1)
    assert [[round(float(v), 6) for v in speed[t.person == p]] for p in (1,)] == [
        [pytest.approx(np.nan, nan_ok=True), 2, 2, 2, pytest.approx(np.nan, nan_ok=True)]
    ]
    assert np.isnan(speed[t.person == 2]).all()
    assert measures.mean_speed(t, shapely.box(-1, -1, 2.5, 1), speed).value[1:3].tolist() == [2.0, 2.0]


def test_only_the_first_passing_of_a_line_counts() -> None:
    t = walk((0, 5), (4, 5), (6, 5), (4, 5), (6, 5))
    found = measures.passings(t, ((5, 0), (5, 10)))
    assert (found.person.tolist(), found.frame.tolist(), found.forward.tolist()) == ([1], [2], [True])
    assert (found.flow(0, 5), found.mean_flow()) == (2.0, 0.0)
    assert len(measures.passings(walk((0, 5), (4, 5), (5, 5), (4, 5)), ((5, 0), (5, 10))).person) == 0
    assert len(measures.passings(walk((0, 5), (4, 5), (5, 5), (6, 5)), ((5, 0), (5, 10))).person) == 1
    assert len(measures.passings(walk((0, 15), (9, 15)), ((5, 0), (5, 10))).person) == 0


def test_a_heat_map_holds_all_time_spent_in_its_box() -> None:
    t = Trajectories.of([1, 1, 1, 2], [0, 1, 2, 0], [0.5, 0.5, 10.0, 50.0], [0.5, 0.5, 10.0, 0.0], rate_hz=4)
    heat = measures.heat_map(t, (0, 0, 10, 10), cell_m=1.0)
    assert (heat.person_s[0, 0], heat.person_s[9, 9], heat.person_s.sum()) == (0.5, 0.25, 0.75)
    with pytest.raises(LimitExceeded):
        measures.heat_map(t, (0, 0, 1e6, 1e6), cell_m=1.0)


def test_stays_make_histograms_and_journeys_between_zones() -> None:
    visits = Visits(np.array([1, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 0]), np.array([0.0, 10, 20, 5, 30]), np.array([9.0, 15, np.inf, 6, 90]))
    counts, rest = measures.dwell_histogram(visits, 0, np.array([0.0, 5, 60]))
    assert (counts.tolist(), rest) == ([0, 2], 1)
    assert measures.origin_destination(visits, 2).tolist() == [[0, 1], [2, 0]]
    with pytest.raises(InvalidInput):
        measures.origin_destination(visits, 1)


def test_bands_of_service_change_at_fruins_figures() -> None:
    assert "".join(measures.level_of_service([0.0, 1 / 3.26, 1 / 3.24, 1 / 2.0, 1.0, 2.0, 3.0])) == "AABCDEF"
    assert "".join(measures.level_of_service([0.5, 1.0, 1.3, 2.0, 4.0, 6.0], waiting=True)) == "ABCDEF"
    with pytest.raises(InvalidInput):
        measures.level_of_service([-1.0])


def test_what_is_no_trajectory_is_refused() -> None:
    with pytest.raises(InvalidInput, match="twice in frame 3"):
        Trajectories.of([7, 7], [3, 3], [0, 1], [0, 0], rate_hz=1)
    with pytest.raises(InvalidInput, match="finite"):
        Trajectories.of([7], [3], [np.nan], [0], rate_hz=1)
    with pytest.raises(InvalidInput, match="empty"):
        measures.occupancy(walk((0, 0)), shapely.Polygon())


@pytest.mark.data
@pytest.mark.skipif(DATA is None, reason="set ESPLANADE_DATA to the folder of real data")
@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text()) if GOLDEN.exists() else [], ids=lambda case: case["file"])
def test_laboratory_trajectories_give_pedpys_figures(case: dict) -> None:  # type: ignore[type-arg]
    with lzma.open(Path(str(DATA)) / "pedestrian" / case["file"], "rt") as file:
        raw = np.loadtxt(file, comments="#")
    keep = (raw[:, 1] >= case["frames"][0]) & (raw[:, 1] < case["frames"][1])
    xy = raw[:, 2:4] * case["scale"]
    whole = Trajectories.of(raw[:, 0], raw[:, 1], xy[:, 0], xy[:, 1], rate_hz=case["rate_hz"])
    t = Trajectories.of(raw[keep, 0], raw[keep, 1], xy[keep, 0], xy[keep, 1], rate_hz=case["rate_hz"])
    area, walkable = shapely.from_wkt(case["area"]), shapely.from_wkt(case["walkable"])
    classic, speed = measures.classic_density(t, area), measures.individual_speed(t, step=5)
    density, _ = measures.voronoi_density(t, area, walkable)
    capped, _ = measures.voronoi_density(t, area, walkable, cut_off_m=1.0)
    passed = measures.passings(whole, tuple(map(tuple, case["line"])))
    # PedPy leaves out who stands exactly on the area's border; here, as for fences, the border counts.
    frames = np.unique(t.frame)
    on_border = (
        np.bincount(np.searchsorted(frames, t.frame), shapely.intersects(area.boundary, shapely.points(t.x_m, t.y_m)), len(frames)) / area.area
    )
    strict = classic.value - on_border
    got = {
        "classic": strict.mean(), "voronoi": density.value.mean(), "voronoi_cut_1m": capped.value.mean(), "speed": float(np.nanmean(speed)),
        "passed": len(passed.person), "first": int(passed.frame[0]), "last": int(passed.frame[-1]),
    }  # fmt: skip
    assert got == pytest.approx(case["pedpy"], rel=1e-6)
    assert strict[::25].tolist() == pytest.approx(case["classic_every_25"], abs=1e-9)
    assert density.value[::25].tolist() == pytest.approx(case["voronoi_every_25"], rel=1e-6)
