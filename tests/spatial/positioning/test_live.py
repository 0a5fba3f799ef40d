"""The live filter: near the grid filter on the same walk, on the ground, positive definite, the same in any batches; and what it says of phones that are late, gone, elsewhere or too many."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.positioning_live import live_estimates
from esplanade.core.errors import InvalidInput
from spatial.columns import LEFT
from spatial.positioning import live_kernels as kernels
from spatial.positioning.grid_filter import OPENING, Locator, answer_causal
from spatial.positioning.live import BACK_S, LOST_S, SILENT_S, LiveFilter, LiveMap
from spatial.positioning.model import Model, fit, load_model, save_model
from spatial.positioning.observed import FAST, GONE, LEVEL, MAX_READINGS, Observed, State, rows_of, transmitter_key, wifi_keys
from spatial.positioning.radio_map import POWER, SILENT_DBM
from spatial.positioning.scans import transmitter_of
from tests.spatial.positioning import synthetic
from tests.spatial.positioning.test_locating import a_walk

LEVELS = ("F1", "F2")
PLACES = synthetic.transmitters()
KEYS = np.array([transmitter_key(transmitter_of(f"w:00:11:22:33:{i:02x}:10")) for i in range(len(PLACES))], np.uint64)
STRANGE = np.array([transmitter_key(f"b:elsewhere-{i}") for i in range(20)], np.uint64)


@cache
def model() -> Model:
    walks = synthetic.survey(10, 0) + synthetic.survey(10, 1, seed=300)
    made = fit("made", (synthetic.floor("F1", 0), synthetic.floor("F2", 1)), walks)
    return replace(made, floors=tuple(replace(floor, ways_m=np.array([[3.0, 3.0]])) for floor in made.floors))


@cache
def maps() -> LiveMap:
    return LiveMap(model(), LEVELS)


def scan(x: float, y: float, level: int = 0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Keys and strengths that a phone hears there."""
    far = np.sqrt((PLACES[:, 0] - x) ** 2 + (PLACES[:, 1] - y) ** 2 + 4.0)
    rssi = -35 - 25 * np.log10(far) - 15 * np.abs(PLACES[:, 2] - level) + np.random.default_rng(seed).normal(0, 2, len(PLACES))
    return KEYS[rssi > -92], rssi[rssi > -92].astype(np.float32)


Row = tuple[int, float, float, float, tuple[np.ndarray, np.ndarray] | None, list[tuple[float, float, float, float, float]]]


def observed(*rows: Row, steady: bool = True) -> Observed:
    """Rows of (subject, at_s, east_m, north_m, scan, fixes)."""
    scans = [row[4] or (np.zeros(0, np.uint64), np.zeros(0, np.float32)) for row in rows]
    fixes = [fix for row in rows for fix in row[5]]
    return Observed(
        np.array([row[0] for row in rows], np.uint32), np.array([row[1] for row in rows]), np.array([row[2] for row in rows], np.float32),
        np.array([row[3] for row in rows], np.float32), np.full(len(rows), steady, np.uint8), np.cumsum([0] + [len(k) for k, _ in scans]).astype(np.int32),
        np.concatenate([k for k, _ in scans]), np.concatenate([r for _, r in scans]), np.cumsum([0] + [len(row[5]) for row in rows]).astype(np.int32),
        np.array(fixes, np.float64).reshape(-1, 5),
    )  # fmt: skip


def stand(live: LiveFilter, subject: int, x: float, y: float, level: int = 0, *, begin_s: float = 0.0, n: int = 4) -> int:
    """Stand somewhere for n scans; returns the last state."""
    for k in range(n):
        answers = live.take(observed((subject, begin_s + k, 0.0, 0.0, scan(x, y, level, k), [])), begin_s + k)
    return int(answers.state[0])


@pytest.mark.parametrize("ordinal", [0, 1])
def test_a_walk_is_located_about_as_well_as_by_the_grid_filter(ordinal: int) -> None:
    locator = Locator(model())
    errors: dict[str, list[float]] = {"grid": [], "live": []}
    for seed in range(900, 904):
        walk, waypoints = a_walk(ordinal=ordinal, seed=seed)
        times = np.linspace(8.0, walk.duration_s - 1.0, 40)
        truth = np.column_stack([np.interp(times, waypoints[:, 0], waypoints[:, k]) for k in (1, 2)])
        for name, told in (("grid", locator.locate(walk, smooth=False)[0]), ("live", live_estimates(maps(), model(), walk, seed=seed))):
            answer = answer_causal(locator, walk, told, times)
            assert (answer.floor == ordinal).mean() > 0.95
            errors[name] += np.hypot(*(answer.xy_m - truth).T).tolist()
    assert np.mean(errors["live"]) < 1.3 * np.mean(errors["grid"]) + 0.3
    assert np.mean(errors["live"]) < 5.0


_FIX = st.tuples(st.floats(-20, 80), st.floats(-20, 60), st.sampled_from([0.0, 3.0, 20.0]), st.floats(0.1, 30.0), st.sampled_from([-1.0, 0.0, 1.0]))
_ROW = st.tuples(
    st.integers(0, 3), st.floats(0, 30), st.floats(-9, 9), st.floats(-9, 9), st.one_of(st.none(), st.builds(scan, st.floats(0, 60), st.floats(0, 40), st.integers(0, 1))),
    st.lists(_FIX, max_size=2),
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(_ROW, min_size=1, max_size=30), st.booleans())
def test_whatever_phones_say_no_dot_is_in_a_wall_and_every_region_is_one(rows: list[Row], steady: bool) -> None:
    live = LiveFilter(maps())
    for first in range(0, len(rows), 7):
        answers = live.take(observed(*rows[first : first + 7], steady=steady), float(first))
        dots = np.flatnonzero((answers.state == State.LOCATED) | (answers.state == State.SETTLING))
        cell = np.floor(answers.xy_m[dots].astype(np.float64)).astype(int)
        assert all(model().floors[level].free[row, column] for level, (column, row) in zip(answers.level[dots].tolist(), cell.tolist(), strict=True))
        xx, xy, yy = answers.cov_m2[dots].T
        assert (xx > 0).all()
        assert (xx * yy - xy * xy > 0).all()
        assert (answers.radius_m[dots] > 0).all()
        np.testing.assert_allclose(answers.levels[dots].sum(axis=1), 1.0, atol=1e-4)


def test_a_phone_is_told_the_same_alone_and_among_others_in_any_batches() -> None:
    walk = [(7, float(k), 1.2 * (k > 0), 0.0, scan(5 + 1.2 * k, 5, 0, k), []) for k in range(12)]
    alone = LiveFilter(maps())
    expected = [alone.take(observed(row), row[1]) for row in walk]
    crowd = LiveFilter(maps())
    others = [(s, float(k), 0.0, 1.0, scan(50, 5 + k, 0, 100 * s + k), []) for k in range(12) for s in range(300, 640)]
    crowd.take(observed(*walk[:1], *others[:100]), 0.0)
    crowd.take(observed(*others[100:2000], *walk[1:5][::-1]), 4.0)  # the newest first: the phone's clock orders them
    last = crowd.take(observed(*walk[5:], *others[2000:]), 12.0)
    assert last.xy_m[6].tolist() == expected[-1].xy_m[0].tolist()
    assert last.cov_m2[6].tolist() == expected[-1].cov_m2[0].tolist()
    assert expected[-1].state[0] == State.LOCATED
    assert np.hypot(*(expected[-1].xy_m[0] - (5 + 1.2 * 11, 5))) < 5


def test_the_first_scan_alone_is_believed_more_than_each_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    def radii(opening: float) -> list[float]:
        monkeypatch.setattr("spatial.positioning.live.OPENING", opening)
        live = LiveFilter(maps())
        return [float(live.take(observed((1, float(k), 0.0, 0.0, scan(20, 5, 0, k), [])), float(k)).radius_m[0]) for k in range(2)]

    assert radii(OPENING)[0] < 0.8 * radii(0.0)[0]


def test_late_and_repeated_observations_change_nothing_and_a_clock_set_back_begins_anew() -> None:
    live = LiveFilter(maps())
    assert stand(live, 1, 10, 6, begin_s=1000.0) == State.LOCATED
    dot = live.take(observed((1, 1004.0, 0.0, 0.0, None, [])), 5.0)
    again = live.take(observed((1, 1004.0, 9.0, 9.0, scan(50, 30), []), (1, 1001.5, 9.0, 9.0, scan(50, 30), [])), 6.0)
    assert again.state.tolist() == [State.REPEATED, State.LATE]
    assert again.xy_m[0].tolist() == dot.xy_m[0].tolist()
    assert live.take(observed((1, 1004.0 - BACK_S, 0.0, 0.0, scan(50, 35), [])), 7.0).state[0] == State.SETTLING
    assert live.take(observed((1, 1004.0 - BACK_S + LOST_S + 1, 0.0, 0.0, None, [])), 8.0).state[0] == State.SILENT, "too long ago to know anything"


def test_the_silent_age_out_and_beyond_the_limit_a_phone_is_told_so() -> None:
    live = LiveFilter(maps(), max_subjects=300)
    for begin in (0, 200):
        everybody = [(s, 0.0, 0.0, 0.0, scan(10, 6, 0, s), []) for s in range(begin, begin + 200)]
        states = live.take(observed(*everybody), 10.0).state
    assert (states == State.FULL).sum() == 100
    assert len(live) == 300
    live.take(observed((5, 1.0, 0.0, 0.0, scan(10, 6), [])), 10.0 + SILENT_S)
    assert len(live.age(11.0 + SILENT_S)) == 299
    assert len(live) == 1
    assert stand(live, 999, 10, 6) == State.LOCATED


def test_a_phone_in_another_building_is_outside_and_leaves_once() -> None:
    live = LiveFilter(maps())
    stand(live, 1, 10, 6)
    elsewhere = (STRANGE, np.full(len(STRANGE), -60, np.float32))
    told = [live.take(observed((1, 4.0 + k, 0.0, 0.0, elsewhere, [])), 0.0) for k in range(5)]
    assert [int(a.state[0]) for a in told] == [State.LOCATED, State.LOCATED, *[State.OUTSIDE] * 3]
    assert [bool(a.flags[0] & GONE) for a in told] == [False, False, True, False, False]
    left = rows_of(observed((1, 6.0, 0.0, 0.0, None, [])), told[2])
    assert left.level.tolist() == [LEFT]
    assert left.pack_radius() == b"\0"
    here = rows_of(observed((1, 6.0, 0.0, 0.0, None, [])), told[0])
    assert here.pack_radius() == bytes([int(np.ceil(10 * told[0].radius_m[0]))])
    assert stand(live, 1, 10, 6, begin_s=10.0) == State.LOCATED
    assert live.take(observed((2, 0.0, 0.0, 0.0, None, [])), 0.0).state[0] == State.SILENT


def test_a_scanned_code_is_a_dot_at_once_and_ranges_and_steps_move_it() -> None:
    live = LiveFilter(maps())
    told = live.take(observed((1, 0.0, 0.0, 0.0, None, [(20.0, 5.0, 0.0, 1.5, 1.0)])), 0.0)
    assert (told.state[0], told.level[0]) == (State.LOCATED, 1)
    assert np.hypot(*(told.xy_m[0] - (20, 5))) < 2
    for k in range(1, 11):
        told = live.take(observed((1, float(k), 1.2, 0.0, None, [])), 0.0)
    assert np.hypot(*(told.xy_m[0] - (32, 5))) < 4
    anchors = [(30.0, 0.0), (40.0, 10.0), (30.0, 10.0)]
    ranges = [(x, y, float(np.hypot(x - 33.0, y - 6.0)), 0.3, 1.0) for x, y in anchors]
    for k in range(11, 16):
        told = live.take(observed((1, float(k), 0.0, 0.0, None, ranges)), 0.0)
    assert np.hypot(*(told.xy_m[0] - (33, 6))) < 1.0
    assert told.radius_m[0] < 4


def test_nobody_is_put_on_a_level_that_was_not_surveyed_and_an_empty_map_is_refused() -> None:
    radio = model().radio
    bare = replace(synthetic.floor("F3", 2), ways_m=np.zeros((0, 2)))
    more = replace(model(), floors=(*model().floors, bare), radio=replace(radio, cell_of=(*radio.cell_of, np.full(bare.free.shape, -1, np.int32))))
    live = LiveFilter(LiveMap(more, (*LEVELS, "F3", "F4")))
    code = [(20.0, 5.0, 0.0, 1.5, 2.0)]
    assert (
        live.take(observed((1, 0.0, 0.0, 0.0, None, code), (2, 0.0, 0.0, 0.0, None, [(20.0, 5.0, 0.0, 1.5, 3.0)])), 0.0).state.tolist()
        == [State.SILENT] * 2
    )
    assert stand(live, 1, 10, 6, begin_s=1.0) == State.LOCATED
    told = live.take(observed((1, 9.0, 0.0, 0.0, scan(10, 6, 0, 9), code)), 0.0)
    assert (told.level[0], told.levels[0, 2]) == (0, 0.0)
    empty = replace(more, radio=replace(radio, transmitters=(), strength=radio.strength[:0]))
    with pytest.raises(InvalidInput, match="empty"):
        LiveMap(empty, (*LEVELS, "F3"))


def test_what_nobody_can_have_done_is_flagged() -> None:
    live = LiveFilter(maps())
    corner = [(57.0, 37.0, 0.0, 0.5, 0.0)]
    live.take(observed((1, 0.0, 0.0, 0.0, None, [(3.0, 37.0, 0.0, 0.5, 0.0)]), (2, 0.0, 0.0, 0.0, None, [(5.0, 5.0, 0.0, 0.5, 0.0)])), 0.0)
    far = live.take(observed((1, 1.0, 0.0, 0.0, None, corner), (2, 1.0, 1.0, 0.0, None, [])), 1.0)
    assert far.flags.tolist() == [FAST, 0]
    up = live.take(observed((1, 2.0, 0.0, 0.0, None, [(57.0, 37.0, 0.0, 0.5, 1.0)]), (2, 2.0, 0.0, 0.0, None, [(6.0, 5.0, 0.0, 0.5, 1.0)])), 2.0)
    assert up.level.tolist() == [1, 1]
    assert up.flags.tolist() == [LEVEL, 0], "the stairs are at (3, 3)"


def test_the_kernel_compares_a_scan_as_the_radio_map_does() -> None:
    arrays, radio = maps().arrays, model().radio
    key, rssi = scan(30, 5)
    at = maps().index_of(key)
    strength = np.zeros((1, len(radio.transmitters)), np.float32)
    strength[0, at] = rssi - np.float32(SILENT_DBM)
    powered = strength**POWER
    length = float(np.sqrt((powered**2).sum()))
    q = (powered[0, at] * arrays.scale[at] / length).astype(np.float32)
    cosine = 1 - (powered / length) @ radio.field().T
    found = np.array([kernels.cell_unlike(arrays, c, at, q, length, 0.0) for c in range(len(radio.norm))])
    np.testing.assert_allclose(found, cosine[0], atol=0.005)
    blocks = len(arrays.block_norm)
    work, out, weight = np.empty(blocks, np.float32), np.empty(blocks, np.float32), np.empty(2, np.float32)
    near = kernels.look(arrays, at, q, length, 20.0, 0.2, 0.0, work, out, weight)
    assert near == pytest.approx(float(cosine.min()), abs=0.02)
    share = [float(out[first:last] @ arrays.prior[first:last]) for first, last in pairwise(arrays.block_first.tolist())]
    assert share[0] > share[1], "heard on F1"
    x = np.linspace(-14, 0, 50).astype(np.float32)
    np.testing.assert_allclose([kernels._exp(v) for v in x], np.exp(x), rtol=0.04)


def test_keys_of_addresses_are_those_of_their_transmitters() -> None:
    addresses = ["9a:40:a9:a1:86:02", "00:11:22:33:44:1f", "ff:ff:ff:ff:ff:ff"]
    keys = wifi_keys(np.array([int(address.replace(":", ""), 16) for address in addresses], np.uint64))
    assert keys.tolist() == [transmitter_key(transmitter_of("w:" + address)) for address in addresses]
    assert transmitter_key("b:a") != transmitter_key("b:b")
    assert transmitter_key("b:a") >= 2**63


def test_observations_come_back_from_their_buffers_and_others_are_refused() -> None:
    sent = observed((3, 1.5, 0.5, -0.5, scan(10, 5), [(1.0, 2.0, 0.0, 3.0, -1.0)]), (4, 2.5, 0.0, 0.0, None, []))
    back = Observed.unpack(*sent.pack())
    for name in Observed.__slots__:
        assert getattr(back, name).tolist() == getattr(sent, name).tolist()
    columns = list(sent.pack())
    many = observed((1, 0.0, 0.0, 0.0, (np.arange(MAX_READINGS + 1, dtype=np.uint64), np.full(MAX_READINGS + 1, -50, np.float32)), []))
    broken = (
        [columns[0][:-1], *columns[1:]],
        [columns[0], np.array([np.nan, 1.0]).tobytes(), *columns[2:]],
        [*columns[:5], np.array([0, 5, 2], "<i4").tobytes(), *columns[6:]],
        [*columns[:9], np.array([[1.0, 2.0, 0.0, 0.0, -1.0]]).tobytes()],
        list(many.pack()),
    )
    for bad in broken:
        with pytest.raises(InvalidInput, match="observations"):
            Observed.unpack(*bad)


def test_a_model_of_other_floors_than_the_venues_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="fit a model of this venue"):
        LiveMap(model(), ("F1", "F3"))
    save_model(model(), tmp_path / "m.npz")
    loaded = LiveMap(load_model(tmp_path / "m.npz"), ("B1", "F2", "F1"))
    live = LiveFilter(loaded)
    stand(live, 1, 10, 6, level=1)
    told = live.take(observed((1, 9.0, 0.0, 0.0, scan(10, 6, 1, 77), [])), 0.0)
    assert told.level[0] == 1, "F2 is level 1 of that venue"
    assert told.levels[0, 0] == 0.0
