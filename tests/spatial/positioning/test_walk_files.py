"""Every line of a trace is accounted for, and none is fatal."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from esplanade.core.errors import InvalidInput, NotFound
from spatial.positioning.walk_files import parse_walk, read_walks
from tests.spatial.positioning import synthetic

GOOD = "1000\tTYPE_WAYPOINT\t1.0\t2.0\n"


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("# header", "headers"),
        ("1000\tTYPE_ACCELEROMETER\t0\t0\t9.8\t3", "used"),
        ("1000\tTYPE_ACCELEROMETER\t0\t0", "broken"),
        ("1000\tTYPE_ACCELEROMETER\tx\t0\t9.8", "broken"),
        ("1000\tTYPE_ACCELEROMETER\tnan\t0\t9.8", "out_of_range"),
        ("1000\tTYPE_GYROSCOPE\t1e9\t0\t0", "out_of_range"),
        ("1000\tTYPE_WIFI\tn\taa:bb:cc:dd:ee:ff\t-50\t2412\t900", "used"),
        ("1000\tTYPE_WIFI\tn\taa:bb:cc:dd:ee:ff\t40\t2412\t900", "out_of_range"),
        ("1000\tTYPE_WIFI\tn\taa:bb\t-50\t2412\t900", "broken"),
        ("1000\tTYPE_BEACON\tuuid\t0\t0\t-56\t-89\t3.2\tE0:78:A3:3D:B5:AB\t1000", "used"),
        ("1000\tTYPE_BLUE\t\t77:20:BB:A9:C8:8F\t-89", "used"),
        ("1000\tTYPE_PRESSURE\t1013.2", "used"),
        ("1000\tTYPE_BLU4\t0\t0\t-89", "ignored"),
        ("1000\tTYPE_DIST1\t1\t2\t3", "ignored"),
        ("1000\tTYPE_SENSOR_MAGNETIC_FIELD_ACCURACY_CHANGED\t3", "ignored"),
        ("1000\tTYPE_NEVER_SEEN\t3", "ignored"),
        ("1000\tTYPE_WAYPOINT\t1\t21001\tTYPE_WAYPOINT\t1\t2", "broken"),
        ("soon\tTYPE_WAYPOINT\t1\t2", "broken"),
        ("rubbish", "broken"),
        ("1000\tTYPE_WAYPOINT\t1e9\t2", "out_of_range"),
    ],
)
def test_each_kind_of_line_is_counted_under_its_heading(line: str, field: str) -> None:
    alone = parse_walk(GOOD.encode(), name="w").account
    account = parse_walk((GOOD + line + "\n").encode(), name="w").account
    assert getattr(account, field) == getattr(alone, field) + 1
    assert account.read == account.headers + account.used + account.ignored + account.broken + account.out_of_range + account.repeated


def test_bytes_that_are_no_trace_give_an_empty_walk() -> None:
    walk = parse_walk(bytes(range(256)) * 20, name="noise")
    assert len(walk.radio) == 0
    assert walk.account.used == 0


def test_one_measurement_told_in_two_scans_is_one_reading() -> None:
    lines = "3000\tTYPE_WIFI\tn\taa:bb:cc:dd:ee:ff\t-50\t2412\t2500\n5000\tTYPE_WIFI\tn\taa:bb:cc:dd:ee:ff\t-50\t2412\t2500\n"
    walk = parse_walk(lines.encode(), name="w")
    assert len(walk.radio) == 1
    assert walk.account.repeated == 1
    assert (walk.radio.heard_s[0], walk.radio.told_s[0]) == (-0.5, 0.0)


def test_a_jump_of_the_clock_is_taken_out_and_counted() -> None:
    lines = "1000\tTYPE_WAYPOINT\t0\t0\n2000\tTYPE_WAYPOINT\t1\t0\n9999000\tTYPE_WAYPOINT\t2\t0\n9999500\tTYPE_WAYPOINT\t3\t0\n"
    walk = parse_walk(lines.encode(), name="w")
    assert walk.account.clock_jumps == 1
    assert walk.waypoints[:, 0].tolist() == [0.0, 1.0, 1.0, 1.5]


def test_out_of_order_and_repeated_samples_come_out_sorted_and_single() -> None:
    lines = "".join(f"{t}\tTYPE_GYROSCOPE\t{t}\t0\t0\n".replace(f"\t{t}\t", "\t0.1\t") for t in (1000, 1040, 1020, 1040))
    assert parse_walk(lines.encode(), name="w").gyro.t_s.tolist() == [0.0, 0.02, 0.04]


def test_archives_and_plain_files_give_the_same_walks(tmp_path: Path) -> None:
    data = synthetic.trace(synthetic.POINTS)
    for site in ("plain", "packed"):
        (tmp_path / site / "F1" / "deep").mkdir(parents=True)
    (tmp_path / "plain" / "F1" / "deep" / "a.txt").write_bytes(data)
    with tarfile.open(tmp_path / "packed" / "F1" / "walks.tar.xz", "w:xz") as archive:
        member = tarfile.TarInfo("some/where/a.txt")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    plain, packed = (list(read_walks(tmp_path / site)) for site in ("plain", "packed"))
    assert [(w.name, w.floor) for w in plain] == [(w.name, w.floor) for w in packed] == [("a", "F1")]
    np.testing.assert_array_equal(plain[0].radio.rssi_dbm, packed[0].radio.rssi_dbm)


def test_a_missing_folder_and_a_broken_archive_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such folder"):
        list(read_walks(tmp_path / "nowhere"))
    (tmp_path / "F1").mkdir()
    (tmp_path / "F1" / "x.tar.xz").write_bytes(b"not an archive")
    with pytest.raises(InvalidInput, match="pack the walks again"):
        list(read_walks(tmp_path))
