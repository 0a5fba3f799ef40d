"""Fingerprint tables: read, split so that phones and users stay apart, located."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from esplanade.core.errors import InvalidInput, NotFound
from spatial.positioning.fingerprints import Fingerprints, NearestFingerprints, folds_by_phone, read_ble_cells, read_ujiindoorloc

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


def test_the_search_by_lists_finds_what_the_dense_product_finds() -> None:
    rng = np.random.default_rng(4)
    strength = (rng.uniform(0, 60, (300, 80)) * (rng.random((300, 80)) < 0.15)).astype(np.float32)
    asked = (rng.uniform(0, 60, (700, 80)) * (rng.random((700, 80)) < 0.15)).astype(np.float32)
    asked[5] = 0  # heard nothing: any neighbours, all alike 0
    nobody = np.zeros(300, np.int32)
    known = Fingerprints(strength, rng.uniform(0, 50, (300, 2)), nobody, nobody, nobody, 0)
    near = NearestFingerprints.fit(known, k=5)
    xy, _ = near.locate(asked)

    def unit(s: np.ndarray) -> np.ndarray:
        powered = s.astype(np.float64) ** 1.5
        return powered / np.maximum(np.sqrt((powered**2).sum(axis=1, keepdims=True)), 1e-6)

    alike = unit(asked) @ unit(strength).T
    best = np.argsort(-alike, axis=1, kind="stable")[:, :5]
    weight = 1 / (1.001 - np.take_along_axis(alike, best, axis=1)) ** 2
    expected = (known.xy_m[best] * weight[:, :, None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)
    assert np.quantile(np.abs(xy - expected).max(axis=1), 0.99) < 1e-2  # a tie may fall either way
    assert np.isfinite(xy).all()
