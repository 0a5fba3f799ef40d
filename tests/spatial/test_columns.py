"""Columns of positions: what travels comes back, and how sure a position is is told of those of whom it is known."""

from __future__ import annotations

import numpy as np
import pytest

from esplanade.core.errors import InvalidInput
from spatial.columns import FARTHEST_DM, PositionColumns, radius_dm_of


def people(n: int, radius_dm: list[int] | None = None) -> PositionColumns:
    rows = np.arange(n)
    return PositionColumns(
        rows.astype(np.uint32), np.zeros(n, np.uint8), rows.astype(np.float32), rows.astype(np.float32), None if radius_dm is None else np.array(radius_dm, np.uint8)
    )  # fmt: skip


@pytest.mark.parametrize("radius_dm", [None, [31, 0]])
def test_what_is_packed_comes_back(radius_dm: list[int] | None) -> None:
    columns = people(2, radius_dm)
    back = PositionColumns.unpack(*columns.pack(), columns.pack_radius())
    assert back.pack() == columns.pack()
    assert back.pack_radius() == bytes(radius_dm or ())
    assert (back.radius_dm is None) == (radius_dm is None)


def test_radii_of_some_rows_alone_are_refused() -> None:
    with pytest.raises(InvalidInput, match="radius 1 B for 2 rows"):
        PositionColumns.unpack(*people(2).pack(), b"\1")


def test_rows_keep_their_radii_among_others() -> None:
    together = PositionColumns.concat([people(2), people(2, [31, 255])])
    assert together.radius_dm is not None
    assert together.radius_dm.tolist() == [0, 0, 31, 255]
    assert together.take(np.array([3, 0])).pack_radius() == bytes([255, 0])
    assert PositionColumns.concat([people(1), people(1)]).radius_dm is None


def test_a_radius_is_rounded_up_and_what_is_none_is_not_known() -> None:
    told = radius_dm_of(np.array([0.01, 3.01, 25.4, 25.41, 900.0, 0.0, -1.0, np.nan, np.inf], np.float32))
    assert told.tolist() == [1, 31, 254, FARTHEST_DM, FARTHEST_DM, 0, 0, 0, 0]
