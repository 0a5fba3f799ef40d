"""A client that follows the frames of its view holds what a plain crop of the level holds, wherever it looks and whoever moves."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esplanade.core.errors import InvalidInput
from gateway import frames as f
from gateway.codec import MSGPACK
from gateway.viewport import LEAST_ROWS, STEP_M, WINDOW, Picture, Viewport, check_view

Place = tuple[float, float]


def dots(people: dict[int, Place], tick: int = 1, radius: dict[int, int] | None = None) -> f.Dots:
    names = sorted(people)
    return f.Dots(
        venue="v", level=0, tick=tick, pseudonym=np.array(names, "<u4").tobytes(),
        x=np.array([people[name][0] for name in names], "<f4").tobytes(), y=np.array([people[name][1] for name in names], "<f4").tobytes(),
        radius=b"" if radius is None else bytes(radius[name] for name in names),
    )  # fmt: skip


def cropped(people: dict[int, Place], view: f.View) -> dict[int, Place]:
    """The slow obvious one, of the coordinates as they travel."""
    as_f4 = {name: (float(np.float32(x)), float(np.float32(y))) for name, (x, y) in people.items()}
    return {name: (x, y) for name, (x, y) in as_f4.items() if view.x0 <= x < view.x1 and view.y0 <= y < view.y1}


@dataclass
class Screen:
    """What docs/protocol.md tells a client to do."""

    people: dict[int, Place] = field(default_factory=dict)
    radius: dict[int, int] = field(default_factory=dict)
    clusters: list[tuple[float, float, int]] = field(default_factory=list)
    bytes: int = 0

    def take(self, frame: f.DotsView | None) -> None:
        if frame is None:
            return
        self.bytes += len(MSGPACK.encode(frame))
        if frame.whole:
            self.people.clear()
            self.radius.clear()
        for name in np.frombuffer(frame.left, "<u4").tolist():
            del self.people[name], self.radius[name]
        x = frame.x0_m + np.frombuffer(frame.x, "<u2") * frame.step_m
        y = frame.y0_m + np.frombuffer(frame.y, "<u2") * frame.step_m
        self.people.update(zip(np.frombuffer(frame.pseudonym, "<u4").tolist(), zip(x.tolist(), y.tolist(), strict=True), strict=True))
        names = np.frombuffer(frame.pseudonym, "<u4").tolist()
        self.radius.update(zip(names, frame.radius or bytes(len(names)), strict=True))
        count = np.frombuffer(frame.cluster_count, "<u2").tolist()
        cx = frame.x0_m + np.frombuffer(frame.cluster_x, "<u2") * frame.step_m
        cy = frame.y0_m + np.frombuffer(frame.cluster_y, "<u2") * frame.step_m
        self.clusters = list(zip(cx.tolist(), cy.tolist(), count, strict=True))


def assert_same(screen: dict[int, Place], truth: dict[int, Place]) -> None:
    assert set(screen) == set(truth)
    for name, (x, y) in truth.items():
        assert abs(screen[name][0] - x) <= STEP_M / 2 + 1e-6
        assert abs(screen[name][1] - y) <= STEP_M / 2 + 1e-6


places = st.tuples(st.floats(-700, 700, width=32), st.floats(-700, 700, width=32))
crowds = st.dictionaries(st.integers(0, 40), places, max_size=25)
views = st.tuples(places, st.floats(0.5, 900), st.floats(0.5, 900)).map(lambda v: f.View(v[0][0], v[0][1], v[0][0] + v[1], v[0][1] + v[2]))


@settings(max_examples=150)
@given(st.lists(st.tuples(crowds, views | st.none()), min_size=1, max_size=8))
def test_whoever_moves_and_wherever_one_looks_the_screen_is_the_crop(story: list[tuple[dict[int, Place], f.View | None]]) -> None:
    """A view of None: look where one looked."""
    viewport, screen = Viewport(f.View(0, 0, 100, 100), bytes_per_s=None), Screen()
    for people, view in story:
        if view is not None:
            viewport.look(view, bytes_per_s=None)
        screen.take(viewport.frame(Picture(dots(people)), interval_s=0.5))
        assert_same(screen.people, cropped(people, viewport.view))


@settings(max_examples=60)
@given(crowds.filter(lambda people: len(people) > 0), st.lists(views, min_size=1, max_size=4))
def test_within_is_the_crop_on_edges_too(people: dict[int, Place], some: list[f.View]) -> None:
    picture = Picture(dots(people))
    x0, y0 = min(people.values())
    for view in [*some, f.View(x0, y0, x0 + 8.0, y0 + 8.0), f.View(x0 - 8.0, y0 - 8.0, x0, y0)]:
        name, x, y, _ = picture.within(view)
        assert dict(zip(name.tolist(), zip(x.tolist(), y.tolist(), strict=True), strict=True)) == cropped(people, view)


known = st.dictionaries(st.integers(0, 12), st.tuples(places, st.integers(0, 255)), max_size=12)


@settings(max_examples=100)
@given(st.lists(known, min_size=1, max_size=8), st.booleans())
def test_the_screen_holds_each_radius_to_a_quarter(story: list[dict[int, tuple[Place, int]]], nobodys: bool) -> None:
    viewport, screen = Viewport(f.View(-700, -700, 700, 700), bytes_per_s=None), Screen()
    for people in story:
        radius = {name: 0 if nobodys else r for name, (_, r) in people.items()}
        frame = dots({name: place for name, (place, _) in people.items()}, radius=radius)
        screen.take(viewport.frame(Picture(frame), interval_s=0.5))
        for name, held in screen.radius.items():
            assert 4 * abs(held - radius[name]) <= held
            assert (held == 0) == (radius[name] == 0), "not known is told as such"


def test_a_radius_costs_a_byte_and_is_said_again_when_it_changes_by_more_than_a_quarter() -> None:
    people = {i: (i * 1.0, 5.0) for i in range(10)}
    viewport, plain = (Viewport(f.View(0, 0, 100, 100), bytes_per_s=None) for _ in range(2))
    with_radius = viewport.frame(Picture(dots(people, radius=dict.fromkeys(people, 40))), interval_s=0.5)
    without = plain.frame(Picture(dots(people)), interval_s=0.5)
    assert with_radius is not None
    assert without is not None
    head = len(MSGPACK.encode(with_radius)) - len(MSGPACK.encode(without)) - len(people)
    assert 0 < head < 12, "the column's name"
    assert without.radius == b""
    assert viewport.frame(Picture(dots(people, 2, dict.fromkeys(people, 50))), interval_s=0.5) is None
    second = viewport.frame(Picture(dots(people, 3, {**dict.fromkeys(people, 50), 4: 51})), interval_s=0.5)
    assert second is not None
    assert np.frombuffer(second.pseudonym, "<u4").tolist() == [4]
    assert second.radius == bytes([51])


def test_who_stands_still_is_said_once() -> None:
    people = {i: (i * 1.0, 5.0) for i in range(10)}
    viewport = Viewport(f.View(0, 0, 100, 100), bytes_per_s=None)
    first = viewport.frame(Picture(dots(people)), interval_s=0.5)
    assert first is not None
    assert first.whole
    assert viewport.frame(Picture(dots(people, 2)), interval_s=0.5) is None
    people[3] = (50.0, 50.0)
    del people[4]
    second = viewport.frame(Picture(dots(people, 3)), interval_s=0.5)
    assert second is not None
    assert (second.whole, second.number) == (False, 2)
    assert np.frombuffer(second.pseudonym, "<u4").tolist() == [3]
    assert np.frombuffer(second.left, "<u4").tolist() == [4]


def test_a_view_that_moves_keeps_whom_it_still_shows() -> None:
    people = {i: (float(i), 5.0) for i in range(100)}
    viewport = Viewport(f.View(0, 0, 50, 10), bytes_per_s=None)
    picture = Picture(dots(people))
    viewport.frame(picture, interval_s=0.5)
    viewport.look(f.View(10, 0, 60, 10), bytes_per_s=None)
    moved = viewport.frame(picture, interval_s=0.5)
    assert moved is not None
    assert not moved.whole
    assert np.frombuffer(moved.pseudonym, "<u4").tolist() == list(range(50, 60))
    assert np.frombuffer(moved.left, "<u4").tolist() == list(range(10))


@pytest.mark.parametrize("bytes_per_s", [500, 4_000, 40_000])
@pytest.mark.parametrize("view", [f.View(0, 0, 300, 300), f.View(100, 100, 140, 130)], ids=["level", "corner"])
def test_an_allowance_is_kept_and_nobody_is_lost_in_clusters(bytes_per_s: int, view: f.View) -> None:
    rng = np.random.default_rng(7)
    place = rng.uniform(0, 300, (5_000, 2))
    viewport, screen, interval_s = Viewport(view, bytes_per_s=bytes_per_s), Screen(), 0.5
    for tick in range(10):
        place = np.clip(place + rng.normal(0, 0.7, place.shape), 0, 299.9)
        people = {i: (float(x), float(y)) for i, (x, y) in enumerate(place)}
        frame = viewport.frame(Picture(dots(people, tick)), interval_s=interval_s)
        assert frame is not None
        screen.take(frame)
        truth = cropped(people, view)
        assert len(screen.people) + sum(count for _, _, count in screen.clusters) == len(truth)
        assert_same(screen.people, {name: truth[name] for name in screen.people})
        told = len(frame.pseudonym) // 4 + len(frame.cluster_count) // 2
        assert told <= max(LEAST_ROWS, bytes_per_s * interval_s / 8)
        for x, y, _ in screen.clusters:
            assert view.x0 - STEP_M <= x <= view.x1 + STEP_M
            assert view.y0 - STEP_M <= y <= view.y1 + STEP_M
        if screen.clusters and screen.people:
            middle = ((view.x0 + view.x1) / 2, (view.y0 + view.y1) / 2)
            farthest = max(max(abs(x - middle[0]) / (view.x1 - view.x0), abs(y - middle[1]) / (view.y1 - view.y0)) for x, y in screen.people.values())
            outside = set(truth) - set(screen.people)
            nearest = min(
                max(abs(truth[i][0] - middle[0]) / (view.x1 - view.x0), abs(truth[i][1] - middle[1]) / (view.y1 - view.y0)) for i in outside
            )
            assert farthest <= nearest + STEP_M, "points are near, clusters far"


def test_two_people_of_one_pseudonym_are_one() -> None:
    frame = f.Dots(
        venue="v", level=0, tick=1, pseudonym=np.array([3, 3], "<u4").tobytes(), x=np.array([1, 2], "<f4").tobytes(), y=np.array([1, 2], "<f4").tobytes()
    )  # fmt: skip
    assert len(Picture(frame)) == 1


def test_who_says_what_it_has_seen_is_given_no_more_than_a_window() -> None:
    viewport = Viewport(f.View(0, 0, 100, 100), bytes_per_s=None)

    def step(tick: int) -> None:
        assert viewport.frame(Picture(dots({1: (tick % 90, 1.0)}, tick)), interval_s=0.5) is not None

    for tick in range(20):
        step(tick)
    assert not viewport.is_full, "it never said anything"
    viewport.saw(20)
    for tick in range(20, 20 + WINDOW):
        assert not viewport.is_full
        step(tick)
    assert viewport.is_full
    viewport.saw(5)
    assert viewport.is_full, "what was said once holds"
    viewport.saw(10**9)
    assert not viewport.is_full


@pytest.mark.parametrize("view", [(0, 0, 0, 5), (0, 0, 5, -1), (0, 0, 3000, 5), (float("nan"), 0, 1, 1), (0, 0, 5, 2501)])
def test_what_is_no_rectangle_is_refused(view: tuple[float, float, float, float]) -> None:
    with pytest.raises(InvalidInput):
        check_view(f.View(*view))
