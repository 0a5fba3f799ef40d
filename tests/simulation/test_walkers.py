"""Bodies on a floor, as claims: the models' formulas, no overlap, no way through walls, determinism, checkpoints, and input that is refused."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon, box

from esplanade.core.errors import InvalidInput, NotFound
from simulation.floor import Floor, Hop, Slope
from simulation.models import CALIBRATED, PUBLISHED, AnticipationVelocity, CollisionFreeSpeed, Model, SocialForce
from simulation.placing import spread
from simulation.walker_kernels import OVERLAP_M, WALL_OVERLAP_M
from simulation.walkers import SERIAL_BELOW, STUCK_S, Goal, Walkers
from tests.simulation import twins, walker_twins

MODELS = [CollisionFreeSpeed(), AnticipationVelocity(), SocialForce()]
NAMES = ["collision-free", "anticipation", "social-force"]
HALL = box(0, 0, 16, 10).difference(shapely.union_all([box(6, 0, 6.2, 4.2), box(6, 5.8, 6.2, 10), box(10, 4, 11, 6)]))
SEEDS = st.integers(0, 2**32 - 1)


def scatter(free: Polygon, n: int, rng: np.random.Generator, *, radius: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Up to n places drawn one by one, clear of walls and of those before."""
    found: list[tuple[float, float]] = []
    x0, y0, x1, y1 = free.bounds
    for _ in range(20 * n):
        x, y = rng.uniform(x0, x1), rng.uniform(y0, y1)
        k = len(found)
        if k == n:
            break
        inside = free.contains(shapely.Point(x, y)) and free.boundary.distance(shapely.Point(x, y)) > radius[k]
        if inside and all((x - a) ** 2 + (y - b) ** 2 > (radius[k] + radius[j]) ** 2 for j, (a, b) in enumerate(found)):
            found.append((x, y))
    return np.array(found)


def hall(model: Model, *, people: int = 70, seed: int = 1, step_s: float = 0.05, threads: int | None = None) -> Walkers:
    """Two streams through a door of 1.6 m and around a pillar."""
    walkers = Walkers(
        Floor.of([HALL], cell_m=0.3),
        [Goal("east", 0, box(15, 4, 16, 6)), Goal("west", 0, box(0, 4, 1, 6))],
        model=model,
        step_s=step_s,
        threads=threads,
    )
    rng = np.random.default_rng(seed)
    radius = rng.uniform(0.15, 0.25, people)
    place = scatter(HALL, people, rng, radius=radius)
    n = len(place)
    walkers.add(place[:, 0], place[:, 1], goal=rng.integers(0, 2, n), speed_mps=rng.uniform(0.8, 1.8, n), radius_m=radius[:n])
    return walkers


@settings(max_examples=25)
@given(seed=SEEDS, n=st.integers(2, 40), model=st.sampled_from([PUBLISHED, CALIBRATED]))
def test_a_step_of_the_collision_free_model_is_the_papers(seed: int, n: int, model: CollisionFreeSpeed) -> None:
    rng = np.random.default_rng(seed)
    radius = rng.uniform(0.15, 0.25, n)
    place = scatter(HALL, n, rng, radius=radius + 0.06)  # so far apart that no limit acts within a step
    n = len(place)
    walkers = Walkers(Floor.of([HALL]), [Goal("east", 0, box(15, 4, 16, 6))], model=model, step_s=0.01, most_speed_mps=1.8)
    speed = rng.uniform(0.5, 1.8, n)
    walkers.add(place[:, 0], place[:, 1], goal=0, speed_mps=speed, radius_m=radius[:n])
    rows = walkers.rows
    target = walkers.aim[0, rows["cell"]]
    wish = np.column_stack([walkers.floor.x[target], walkers.floor.y[target]]) - place
    wish /= np.linalg.norm(wish, axis=1)[:, None]
    walkers.step()
    got = np.full((n, 2), np.nan)
    got[walkers.rows["id"] - 1] = np.column_stack([walkers.rows["vx"], walkers.rows["vy"]])
    expected = walker_twins.collision_free_velocity(place, wish, speed, radius[:n], walkers.floor.walls, walkers.model.numbers())
    here = np.isfinite(got[:, 0])
    np.testing.assert_allclose(got[here], expected[here], atol=2e-3)  # repulsions below 1e-4 are left out


@settings(max_examples=15)
@given(seed=SEEDS, n=st.integers(2, 30))
def test_a_step_of_the_social_force_model_is_the_papers(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    radius = np.full(n, 0.2)
    place = scatter(HALL, n, rng, radius=radius + 0.15)
    n = len(place)
    dt = 0.005
    walkers = Walkers(Floor.of([HALL]), [Goal("east", 0, box(15, 4, 16, 6))], model=SocialForce(), step_s=dt)
    walkers.add(place[:, 0], place[:, 1], goal=0, speed_mps=1.3, radius_m=0.2)
    target = walkers.aim[0, walkers.rows["cell"]]
    wish = np.column_stack([walkers.floor.x[target], walkers.floor.y[target]]) - place
    length = np.linalg.norm(wish, axis=1)
    far = length > 0.05
    wish = np.where(far[:, None], wish / length[:, None], 0.0)
    walkers.step()
    got = np.full((n, 2), np.nan)
    got[walkers.rows["id"] - 1] = np.column_stack([walkers.rows["vx"], walkers.rows["vy"]])
    expected = dt * walker_twins.social_acceleration(
        place, np.zeros((n, 2)), wish, np.full(n, 1.3), np.full(n, 0.2), walkers.floor.walls, walkers.model.numbers()
    )
    slow = np.linalg.norm(expected, axis=1) < 1.3  # below the limit of speed
    here = np.isfinite(got[:, 0]) & slow
    np.testing.assert_allclose(got[here], expected[here], atol=1e-3)


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_bodies_never_overlap_by_more_than_a_centimetre_nor_pass_a_wall(model: Model) -> None:
    for seed in range(2):
        walkers = hall(model, seed=seed)
        segments = walkers.floor.walls
        before = dict(zip(walkers.rows["id"].tolist(), np.column_stack([walkers.rows["x"], walkers.rows["y"]]), strict=True))
        for _ in range(300):
            walkers.step()
            if not len(walkers):
                break
            body_m, wall_m = walkers.overlap_m()
            assert body_m <= OVERLAP_M + 1e-9
            assert wall_m <= WALL_OVERLAP_M + 1e-9
            ids = walkers.rows["id"].tolist()
            now = np.column_stack([walkers.rows["x"], walkers.rows["y"]])
            then = np.array([before[k] for k in ids])
            moved = (now != then).any(axis=1)
            assert not len(twins.crossings(then[moved], now[moved], segments))
            before = dict(zip(ids, now, strict=True))
        assert sum(walkers.report().left.values()) > 10


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_the_result_is_the_same_for_any_threads_and_from_a_checkpoint(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulation.walkers.MANY", SERIAL_BELOW)  # sorted in parts too, as a large crowd is
    ground = box(0, 0, 60, 40).difference(shapely.union_all([box(20, 0, 20.2, 15), box(20, 17, 20.2, 40), box(40, 10, 42, 30)]))
    floor, rng = Floor.of([ground]), np.random.default_rng(4)
    people = 2 * SERIAL_BELOW
    place, speed, goal = spread(ground, people, rng=rng), rng.uniform(0.8, 1.8, people), rng.integers(0, 2, people)

    def crowd(threads: int, slower: float = 1.0) -> Walkers:
        walkers = Walkers(floor, [Goal("east", 0, box(58, 15, 60, 25)), Goal("west", 0, box(0, 15, 2, 25))], model=model, threads=threads)
        walkers.add(place[:, 0], place[:, 1], goal=goal, speed_mps=slower * speed)
        return walkers

    one, two = crowd(1), crowd(2)
    one.step(50)
    two.step(20)
    resumed = crowd(2)
    resumed.resume(two.checkpoint())
    two.step(30)
    resumed.step(30)
    assert len(one) >= SERIAL_BELOW
    assert one.digest() == two.digest() == resumed.digest()
    assert one.report() == two.report() == resumed.report()
    other = crowd(1, 0.99)
    other.step(50)
    assert other.digest() != one.digest()


def test_a_checkpoint_of_other_walkers_is_refused() -> None:
    saved = hall(CollisionFreeSpeed()).checkpoint()
    with pytest.raises(InvalidInput, match="build them alike"):
        hall(SocialForce()).resume(saved)
    with pytest.raises(InvalidInput, match="not a checkpoint"):
        hall(CollisionFreeSpeed()).resume(saved[:100])


def test_alone_a_body_walks_straight_at_its_speed() -> None:
    for model in MODELS:
        walkers = Walkers(Floor.of([box(0, 0, 50, 4)]), [Goal("east", 0, box(48, 0, 50, 4))], model=model)
        walkers.add([2.0], [2.0], goal=0, speed_mps=1.3)
        walkers.step(100)
        x = float(walkers.rows["x"][0])
        walkers.step(400)
        assert (walkers.rows["x"][0] - x) / 20.0 == pytest.approx(1.3, rel=0.005)
        assert walkers.rows["y"][0] == pytest.approx(2.0, abs=0.25)


def test_people_are_slower_on_a_slope() -> None:
    walkers = Walkers(Floor.of([box(0, 0, 40, 2)], slopes=[Slope(0, box(10, 0, 30, 2), 0.5)]), [Goal("east", 0, box(39, 0, 40, 2))])
    walkers.add([1.0], [1.0], goal=0, speed_mps=1.0)
    while len(walkers):
        walkers.step()
    assert walkers.time_s == pytest.approx(8.8 + 40.0 + 9.2, abs=1.2)


def test_people_are_added_and_removed_in_bulk() -> None:
    walkers = hall(CollisionFreeSpeed())
    ids = walkers.rows["id"].copy()
    walkers.remove(ids[::2])
    np.testing.assert_array_equal(walkers.rows["id"], ids[1::2])
    with pytest.raises(NotFound, match="is not on the floor"):
        walkers.remove(ids[:1])
    assert len(walkers) == len(ids[1::2])
    walkers.step(20)
    new = walkers.add([0.5, 0.5], [0.5, 1.5], goal=0)
    assert new.tolist() == [len(ids) + 1, len(ids) + 2]
    walkers.send(new, -1)
    walkers.step(20)
    here = np.isin(walkers.rows["id"], new)
    np.testing.assert_array_equal(walkers.rows["x"][here], 0.5)
    with pytest.raises(NotFound, match="send: body 1 is not"):
        walkers.send([1], 0)


def test_who_stays_keeps_everything_when_few_are_removed() -> None:
    walkers = hall(CollisionFreeSpeed())
    walkers.step(30)
    before = {name: dict(zip(walkers.rows["id"].tolist(), array.tolist(), strict=True)) for name, array in walkers.rows.items()}
    ids = walkers.rows["id"]
    gone = {int(ids[3]), int(ids[-1])}
    walkers.remove(list(gone))
    assert set(walkers.rows["id"].tolist()) == set(before["id"]) - gone
    for name, array in walkers.rows.items():
        assert dict(zip(walkers.rows["id"].tolist(), array.tolist(), strict=True)) == {k: v for k, v in before[name].items() if k not in gone}, name
    walkers.step(30)
    assert walkers.overlap_m()[0] <= OVERLAP_M + 1e-9


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"x_m": [0.1]}, "in the wall"),
        ({"x_m": [6.1], "y_m": [2.0]}, "off the walkable ground|in the wall"),
        ({"x_m": [40.0]}, "off the walkable ground"),
        ({"x_m": [float("nan")]}, "place must be finite"),
        ({"x_m": [3.0, 3.3], "y_m": [2.0, 2.0]}, r"overlap by 0\.100 m"),
        ({"speed_mps": -1.0}, "speed must be 0.1 to"),
        ({"radius_m": 0.6}, "radius must be"),
        ({"goal": 7}, "goal there are goals 0 to 1"),
        ({"level": 3}, "level there are levels 0 to 0"),
    ],
)
def test_a_body_that_cannot_stand_there_is_named_and_nobody_is_added(change: dict[str, object], says: str) -> None:
    walkers = Walkers(Floor.of([HALL]), [Goal("east", 0, box(15, 4, 16, 6)), Goal("west", 0, box(0, 4, 1, 6))])
    arguments: dict[str, object] = {"x_m": [3.0], "y_m": [2.0], "goal": 0} | change
    with pytest.raises(InvalidInput, match=says):
        walkers.add(**arguments)  # type: ignore[arg-type]
    assert len(walkers) == 0


def test_a_goal_that_no_way_leads_to_is_named() -> None:
    cut = shapely.union_all([box(0, 0, 5, 5), box(6, 0, 11, 5)])
    walkers = Walkers(Floor.of([cut]), [Goal("east", 0, box(9, 0, 11, 5))])
    with pytest.raises(InvalidInput, match="no way leads to goal east"):
        walkers.add([2.0], [2.0], goal=0)
    with pytest.raises(InvalidInput, match="goal roof"):
        Walkers(Floor.of([cut]), [Goal("roof", 0, box(30, 0, 31, 5))])


@pytest.mark.parametrize(
    ("model", "step_s"), [(SocialForce(), 0.1), (CollisionFreeSpeed(), 0.5), (CollisionFreeSpeed(time_gap_s=0.1), 0.1), (AnticipationVelocity(), 0.0)]
)
def test_a_step_too_large_for_the_model_is_refused(model: Model, step_s: float) -> None:
    with pytest.raises(InvalidInput, match="a step of"):
        Walkers(Floor.of([HALL]), [Goal("east", 0, box(15, 4, 16, 6))], model=model, step_s=step_s)


def test_who_cannot_get_on_is_reported_as_stuck() -> None:
    corridor = box(0, 0, 20, 0.8)
    walkers = Walkers(Floor.of([corridor], cell_m=0.2), [Goal("east", 0, box(19, 0, 20, 0.8))])
    blocker = walkers.add([10.0], [0.4], goal=-1, radius_m=0.25)
    late = walkers.add([2.0, 3.0], [0.4, 0.4], goal=0)
    walkers.step(round((STUCK_S + 25.0) / walkers.step_s))
    report = walkers.report()
    assert report.stuck == tuple(late.tolist())
    assert report.ever_stuck == 2
    walkers.remove(blocker)
    walkers.step(round(20.0 / walkers.step_s))
    assert walkers.report().left == {"east": 2}
    assert walkers.report().stuck == ()


def test_people_take_the_hop_that_leads_to_their_goal_one_by_one() -> None:
    levels = [box(0, 0, 20, 6), box(0, 0, 20, 6)]
    hops = [Hop("up", 0, (18.0, 3.0), 1, (2.0, 3.0), 10.0, 2.0, 3), Hop("up far", 0, (2.0, 5.0), 1, (2.0, 5.0), 500.0)]
    walkers = Walkers(Floor.of(levels, hops=hops), [Goal("shop", 1, box(17, 2, 19, 4))])
    y, x = np.meshgrid(np.arange(1, 5, 0.8), np.arange(10, 14, 0.8))
    ids = walkers.add(x.ravel(), y.ravel(), goal=0)
    inside, came = 0, []
    while len(walkers) or walkers.report().riding:
        walkers.step()
        inside = max(inside, walkers.report().riding)
        came += [walkers.time_s] * len(walkers.left_now)
        assert walkers.time_s < 400
    assert inside == 3
    assert walkers.report().left == {"shop": len(ids)}
    # Three inside for 10 s each: one every 10/3 s at most.
    assert came[-1] - came[0] >= (len(ids) - 1) * 10.0 / 3 - 5.0
