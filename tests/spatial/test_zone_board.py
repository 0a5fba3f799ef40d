"""Zones found by a view are those that Shapely finds by looking at all of them, whatever came and went before."""

from __future__ import annotations

import random

import pytest
import shapely

from spatial.drawn_zones import outline
from spatial.zone_board import ZoneBoard
from spatial.zone_shapes import Along, Circle, DrawnZone, Line, Polygon


def drawn(chance: random.Random, number: int) -> DrawnZone:
    x, y, size = chance.uniform(0, 100), chance.uniform(0, 100), chance.uniform(1, 15)
    shape = chance.choice(
        [
            Circle(x, y, size),
            Polygon(((((x, y), (x + size, y), (x, y + size)),),)),
            Along(((x, y), (x + size, y + size)), 2.0),
            Line((x, y), (x + size, y)),
        ]
    )
    return DrawnZone(id=f"z{number}", name="Z", level=chance.randrange(2), shape=shape)


@pytest.mark.parametrize("seed", range(3))
def test_a_view_holds_what_looking_at_all_finds(seed: int) -> None:
    chance = random.Random(seed)
    board, kept = ZoneBoard(), {}
    found = 0
    for _ in range(400):
        number = chance.randrange(60)
        if chance.random() < 0.3 and kept:
            gone = chance.choice(sorted(kept))
            board.erase(gone)
            del kept[gone]
        else:
            zone = drawn(chance, number)
            board.draw(zone)
            kept[zone.id] = zone
        level, x0, y0, x1, y1 = chance.randrange(3), *(float(chance.randrange(101)) for _ in range(4))
        view = shapely.box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        expected = [kept[i] for i in sorted(kept) if kept[i].level == level and outline(kept[i]).intersects(view)]
        assert list(board.in_box(level, (x0, y0, x1, y1))) == expected
        found += len(expected)
    assert board.zones == kept
    assert found > 500
