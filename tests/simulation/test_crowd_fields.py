"""Fields of a run: what is counted where, against a hand count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from esplanade.core.errors import InvalidInput
from simulation.crowd_fields import fields, save_fields
from simulation.trajectories import Recording


def test_fields_count_people_by_cell_level_and_time(tmp_path: Path) -> None:
    # Person 1 walks east at 1 m/s from (0.5, 0.5); person 2 stands at (-0.5, 3.5) on level 1 for the first two seconds.
    frame = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7])
    person = np.array([1, 2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1])
    x = np.where(person == 1, 0.5 + 0.5 * frame, -0.5)
    y = np.where(person == 1, 0.5, 3.5)
    recording = Recording(person, frame, x, y, np.where(person == 1, 0, 1).astype(np.uint8), 2.0)
    table = fields(recording, cell_m=2.0, every_s=2.0)
    save_fields(table, tmp_path / "fields.parquet")
    rows = pq.read_table(tmp_path / "fields.parquet").to_pylist()
    found = {(r["level"], r["x_m"], r["y_m"], r["from_s"]): (r["density_per_m2"], r["speed_mps"]) for r in rows}
    # In the first two seconds (4 frames) person 1 was 3 frames in the cell from 0 to 2 m (0.5, 1.0, 1.5) and one in the next (2.0).
    assert found == {
        (0, 1.0, 1.0, 0.0): (3 / 4 / 4, 1.0),
        (0, 3.0, 1.0, 0.0): (1 / 4 / 4, 1.0),
        (0, 3.0, 1.0, 2.0): (3 / 4 / 4, 1.0),
        (0, 5.0, 1.0, 2.0): (1 / 4 / 4, 1.0),
        (1, -1.0, 3.0, 0.0): (4 / 4 / 4, 0.0),
    }
    assert {r["service"] for r in rows} == {"A"}
    for row in rows:
        assert row["flow_per_m_s"] == pytest.approx(row["density_per_m2"] * row["speed_mps"])
    with pytest.raises(InvalidInput, match="no shorter than a frame"):
        fields(recording, every_s=0.1)
    with pytest.raises(InvalidInput, match=r"must end in \.parquet"):
        save_fields(table, tmp_path / "fields.csv")
