"""Walks of the real malls and the public tables, against claims that leave room for chance. Needs ESPLANADE_DATA."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from spatial.importers.malls import read_site
from spatial.positioning.fingerprints import NearestFingerprints, folds_by_phone, read_ble_cells, read_ujiindoorloc
from spatial.positioning.ground import floors_of
from spatial.positioning.model import fit, prepare
from spatial.positioning.score import Surveyed, score, split_by_walk
from spatial.positioning.walk_files import read_archive

DATA = os.environ.get("ESPLANADE_DATA", "")
pytestmark = [pytest.mark.data, pytest.mark.skipif(not DATA, reason="ESPLANADE_DATA does not name the folder of the real data")]


def test_unseen_walks_of_a_small_floor_are_located_on_it() -> None:
    site = Path(DATA) / "malls" / "site2"
    walks: list[Surveyed] = []
    for name in ("F3", "F4"):
        for walk in read_archive(site / name / "traces_train.tar.xz", floor=name):
            assert walk.account.broken == 0
            walks.append((prepare(walk), walk.floor, walk.waypoints))
    assert len(walks) == 50
    kept, held = split_by_walk(walks, seed=7)
    n, _, smoothed = score(fit("two floors", floors_of(read_site(site).venue), kept), held)
    assert n == len(held)
    assert smoothed.floor_right.mean() > 0.9
    assert np.median(smoothed.error_m) < 12.0


def test_fingerprints_of_unseen_phones_find_their_building_and_mostly_their_floor() -> None:
    table = read_ujiindoorloc(Path(DATA) / "positioning" / "ujiindoorloc" / "trainingData.csv.xz")
    assert table.broken == 0
    assert len(table.xy_m) == 19_937
    test = next(iter(folds_by_phone(table, 4, seed=1)))
    few = np.zeros_like(test)
    few[np.flatnonzero(test)[::20]] = True
    xy, floor = NearestFingerprints.fit(table.rows(~test)).locate(table.strength[few])
    assert np.median(np.hypot(*(xy - table.xy_m[few]).T)) < 10.0
    assert (floor // 10 == table.floor[few] // 10).mean() > 0.95


def test_beacons_of_the_library_are_located_to_about_two_cells() -> None:
    table = read_ble_cells(Path(DATA) / "positioning" / "ble_uci_waldo" / "iBeacon_RSSI_Labeled.csv")
    held = np.random.default_rng(1).random(len(table.xy_m)) < 0.2
    xy, _ = NearestFingerprints.fit(table.rows(~held)).locate(table.strength[held])
    assert np.hypot(*(xy - table.xy_m[held]).T).mean() < 2.5
