"""The protocol that leaves out phones and users, its figures, the plain neighbours beside it, and the command."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from esplanade.cli.positioning import app
from esplanade.core.errors import InvalidInput, NotFound
from spatial.positioning.fingerprint_score import plain_neighbours, score_fingerprints, score_unseen_phones
from spatial.positioning.fingerprints import NOT_HEARD, SILENT_DBM, Fingerprints

TRANSMITTERS = 40


def made(*, phones: int = 3, alone: int | None = None) -> Fingerprints:
    """Two floors of 40 x 10 m surveyed at the same places by every phone, each with a gain of its own; floor 1 of phone `alone` by nobody else."""
    rng = np.random.default_rng(3)
    towers = np.column_stack([rng.uniform(0, 40, TRANSMITTERS), rng.uniform(0, 10, TRANSMITTERS), rng.integers(0, 2, TRANSMITTERS)])
    rows = []
    for phone in range(phones):
        for floor in (0, 1):
            if floor == 1 and alone is not None and phone != alone:
                continue
            for x in range(0, 40, 4):
                far = np.hypot(towers[:, 0] - x, towers[:, 1] - 5) + 12 * np.abs(towers[:, 2] - floor)
                rssi = np.round(SILENT_DBM + np.clip(60 + phone - 1.5 * far, 0, None))
                rows.append((np.clip(rssi - SILENT_DBM, 0, None), x, floor, phone))
    return Fingerprints(
        np.array([r[0] for r in rows], np.float32), np.array([[r[1], 5.0] for r in rows]), np.array([r[2] for r in rows], np.int32),
        np.array([r[3] for r in rows], np.int32), np.array([r[3] for r in rows], np.int32), 0,
    )  # fmt: skip


def test_a_place_that_only_the_left_out_phone_surveyed_does_not_count_as_surveyed() -> None:
    whole = score_unseen_phones(made(), folds=9, seed=1)["ours"]
    assert (whole.rows, whole.surveyed, whole.floor) == (60, 1.0, 1.0)
    lone = score_unseen_phones(made(alone=2), folds=9, seed=1)["ours"]
    assert (lone.rows, lone.surveyed) == (40, 0.75)
    assert lone.floor == 0.75  # nobody can name a floor that is in no training set
    assert lone.surveyed_floor == 1.0


def test_fewer_folds_leave_groups_of_phones_out_together() -> None:
    assert score_unseen_phones(made(), folds=2, seed=1)["ours"].rows == 60
    with pytest.raises(InvalidInput, match="one group"):
        score_unseen_phones(made(phones=1), folds=2, seed=1)


def test_the_plain_neighbours_are_those_at_the_least_distance() -> None:
    rng = np.random.default_rng(8)
    known, asked = rng.uniform(0, 40, (50, 6)).astype(np.float32), rng.uniform(0, 40, (20, 6)).astype(np.float32)
    nobody = np.zeros(50, np.int32)
    table = Fingerprints(known, rng.uniform(0, 50, (50, 2)), (np.arange(50) % 2).astype(np.int32), nobody, nobody, 0)
    far = np.sqrt(((asked[:, None].astype(float) - known[None]) ** 2).sum(axis=2))
    for k, (xy, floor) in zip((1, 5), plain_neighbours(table, asked, (1, 5)), strict=True):
        near = np.argsort(far, axis=1)[:, :k]
        np.testing.assert_allclose(xy, table.xy_m[near].mean(axis=1))
        np.testing.assert_array_equal(floor, table.floor[near].mean(axis=1) > 0.5)


def test_a_second_table_is_located_by_the_first() -> None:
    table = made()
    figures = score_fingerprints(table.rows(table.phone != 1), table.rows(table.phone == 1))
    assert list(figures) == ["ours", "plain_1", "plain_11"]
    assert figures["ours"].rows == 20
    assert figures["ours"].floor == 1.0
    assert figures["ours"].mean_m < 4.0
    with pytest.raises(InvalidInput, match="no row"):
        score_fingerprints(table, table.rows(table.phone == 9))


def test_the_command_ends_with_the_figures(tmp_path: Path) -> None:
    table = made()
    with (tmp_path / "t.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*(f"WAP{a + 1:03}" for a in range(TRANSMITTERS)), "LONGITUDE", "LATITUDE", "FLOOR", "BUILDINGID", "USERID", "PHONEID"])
        for row, (x, y), floor, phone in zip(table.strength, table.xy_m, table.floor, table.phone, strict=True):
            out.writerow([*(int(v + SILENT_DBM) if v > 0 else int(NOT_HEARD) for v in row), x, y, floor, 0, phone, phone])
    done = CliRunner().invoke(app, ["fingerprints", str(tmp_path / "t.csv"), "--json"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["ours"]["rows"] == 60
    assert figures["ours"]["floor"] == 1.0
    missing = CliRunner().invoke(app, ["fingerprints", str(tmp_path / "t.csv"), "--test", str(tmp_path / "none.csv")])
    assert isinstance(missing.exception, NotFound)
