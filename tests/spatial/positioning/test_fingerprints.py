"""Fingerprint tables: read, split so that phones and users stay apart, located."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from esplanade.core.errors import InvalidInput, NotFound
from spatial.positioning.fingerprints import Fingerprints, NearestFingerprints, folds_by_phone, read_ble_cells, read_ujiindoorloc
from spatial.positioning.list_kernels import locate_by_lists

HEAD = "WAP001,WAP002,LONGITUDE,LATITUDE,FLOOR,BUILDINGID,SPACEID,RELATIVEPOSITION,USERID,PHONEID,TIMESTAMP\n"


def test_a_table_is_read_and_its_broken_rows_counted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HEAD + "-60,100,-7500.5,4864900,2,1,3,2,4,5,1371713733\nbroken\n100,-80,-7501,4864901,0,0,3,2,4,6,1371713733\n")
    table = read_ujiindoorloc(tmp_path / "t.csv")
    assert table.broken == 1
    assert table.strength.tolist() == [[44.0, 0.0], [0.0, 24.0]]
    assert table.floor.tolist() == [12, 0]


def test_tables_of_another_kind_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    for read in (read_ujiindoorloc, read_ble_cells):
        with pytest.raises(InvalidInput, match="must be"):
            read(tmp_path / "t.csv")
        with pytest.raises(NotFound, match="no such file"):
            read(tmp_path / "none.csv")


def test_a_beacon_table_is_read_by_cells(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("location,date,b3001,b3002\nO02,10-18-2016,-200,-78\n?,x,1,2\n")
    table = read_ble_cells(tmp_path / "b.csv")
    assert table.xy_m.tolist() == [[14.0, 2.0]]
    assert table.broken == 1


def test_no_phone_and_no_user_is_on_both_sides_of_a_fold() -> None:
    user, phone = np.array([1, 1, 2, 3, 4, 5]), np.array([10, 11, 11, 12, 13, 13])
    n = len(user)
    table = Fingerprints(np.ones((n, 2), np.float32), np.zeros((n, 2)), np.zeros(n, np.int32), user.astype(np.int32), phone.astype(np.int32), 0)
    folds = list(folds_by_phone(table, 3, seed=0))
    assert np.sum(folds, axis=0).tolist() == [1] * n
    for test in folds:
        assert not set(user[test]) & set(user[~test])
        assert not set(phone[test]) & set(phone[~test])


def test_a_louder_phone_is_located_at_the_same_place() -> None:
    rng = np.random.default_rng(0)
    strength = rng.uniform(0, 40, (200, 30)).astype(np.float32)
    nobody = np.zeros(200, np.int32)
    known = Fingerprints(strength, rng.uniform(0, 50, (200, 2)), (np.arange(200) % 3).astype(np.int32), nobody, nobody, 0)
    near = NearestFingerprints.fit(known, k=1)
    for gain in (0.8, 1.0, 1.25):
        xy, floor = near.locate(strength * np.float32(gain))
        np.testing.assert_allclose(xy, known.xy_m)
        np.testing.assert_array_equal(floor, known.floor)


def test_the_search_by_lists_finds_what_the_dense_comparison_finds() -> None:
    rng = np.random.default_rng(4)
    strength = (rng.uniform(0, 60, (300, 80)) * (rng.random((300, 80)) < 0.15)).astype(np.float32)
    asked = (rng.uniform(0, 60, (200, 80)) * (rng.random((200, 80)) < 0.15)).astype(np.float32)
    asked[5] = 0  # heard nothing: any neighbours, all alike 0
    nobody = np.zeros(300, np.int32)
    known = Fingerprints(strength, rng.uniform(0, 50, (300, 2)), (np.arange(300) % 3).astype(np.int32), nobody, nobody, 0)
    near = NearestFingerprints.fit(known, k=5)
    xy, floor, rows, alike = locate_by_lists(asked, near.lists, 80, 300, 5, 20.0)

    x, y = asked.astype(np.float64), strength.astype(np.float64)
    cosine = (x @ y.T) / np.maximum(np.sqrt((x**2).sum(axis=1)[:, None] * (y**2).sum(axis=1)), 1e-6)
    both = np.minimum(x[:, None], y[None]) ** 2
    expected = (cosine + 2 * both.sum(axis=2) / ((x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1))) / 2
    best = np.argsort(-expected, axis=1, kind="stable")[:, :5]
    some = np.arange(len(asked)) != 5
    np.testing.assert_array_equal(rows[some], best[some])
    np.testing.assert_allclose(alike, np.take_along_axis(expected, best, axis=1), atol=1e-5)
    weight = np.exp(20 * np.take_along_axis(expected, best, axis=1))
    votes = np.stack([(weight * (known.floor[best] == f)).sum(axis=1) for f in range(3)], axis=1)
    np.testing.assert_array_equal(floor[some], votes.argmax(axis=1)[some])
    mine = weight * (known.floor[best] == floor[:, None])
    np.testing.assert_allclose(xy[some], ((known.xy_m[best] * mine[:, :, None]).sum(axis=1) / mine.sum(axis=1, keepdims=True))[some], atol=1e-3)


def test_candidates_by_the_strongest_transmitters_change_few_answers() -> None:
    rng = np.random.default_rng(5)
    places, at = rng.uniform(0, 100, (400, 2)), rng.uniform(0, 100, (1200, 2))
    far = np.sqrt(((at[:, None] - places[None]) ** 2).sum(axis=2) + 4)
    strength = np.clip(55 - 35 * np.log10(far) + rng.normal(0, 4, far.shape), 0, 60).astype(np.float32)
    nobody = np.zeros(1000, np.int32)
    near = NearestFingerprints.fit(Fingerprints(strength[:1000], at[:1000], nobody, nobody, nobody, 0))
    xy, _ = near.locate(strength[1000:])
    whole, _, _, _ = locate_by_lists(strength[1000:], near.lists, 400, 1000, near.k, near.sharpness)
    assert np.median(np.hypot(*(xy - whole).T)) < 0.5
    error = [float(np.hypot(*(found - at[1000:]).T).mean()) for found in (xy, whole)]
    assert error[0] < 1.05 * error[1]
    assert error[0] < 5.0


def test_an_empty_table_and_scans_of_another_table_are_clear_errors() -> None:
    nobody = np.zeros(0, np.int32)
    with pytest.raises(InvalidInput, match="empty"):
        NearestFingerprints.fit(Fingerprints(np.zeros((0, 3), np.float32), np.zeros((0, 2)), nobody, nobody, nobody, 0))
    one = np.zeros(1, np.int32)
    near = NearestFingerprints.fit(Fingerprints(np.ones((1, 3), np.float32), np.zeros((1, 2)), one, one, one, 0))
    with pytest.raises(InvalidInput, match="2 transmitters"):
        near.locate(np.ones((1, 2), np.float32))


def test_the_answers_do_not_depend_on_the_threads() -> None:
    rng = np.random.default_rng(6)
    strength = (rng.uniform(0, 60, (1300, 60)) * (rng.random((1300, 60)) < 0.2)).astype(np.float32)
    nobody = np.zeros(600, np.int32)
    near = NearestFingerprints.fit(
        Fingerprints(strength[:600], rng.uniform(0, 50, (600, 2)), (np.arange(600) % 3).astype(np.int32), nobody, nobody, 0)
    )
    one, two = near.locate(strength[600:]), near.locate(strength[600:], threads=2)
    for alone, dealt in zip(one, two, strict=True):
        np.testing.assert_array_equal(alone, dealt)


def test_more_neighbours_count_where_more_fingerprints_were_taken_at_each_place() -> None:
    rng = np.random.default_rng(7)
    places = rng.uniform(0, 50, (30, 2))
    nobody = np.zeros(600, np.int32)
    strength = rng.uniform(0, 40, (600, 5)).astype(np.float32)
    assert NearestFingerprints.fit(Fingerprints(strength, np.repeat(places, 20, axis=0), nobody, nobody, nobody, 0)).k == 30
    assert NearestFingerprints.fit(Fingerprints(strength, rng.uniform(0, 50, (600, 2)), nobody, nobody, nobody, 0)).k == 12
