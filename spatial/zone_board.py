"""The zones drawn in a venue, found by where they are, while they come and go one by one.

Owns the zones by id and an R-tree of their boxes a level; what it finds is tested exactly. Zones change by hand and are asked for one view at a time: that is what an R-tree is for
(`python -m benchmarks indexes` has the figures, decision 5 the reason).
"""

from __future__ import annotations

import numpy as np
import shapely
from rtree.index import Index
from shapely.geometry.base import BaseGeometry

from spatial.drawn_zones import outline
from spatial.zone_shapes import DrawnZone

Box = tuple[float, float, float, float]


class ZoneBoard:
    """`zones`: by id; change them by `draw` and `erase` alone."""

    def __init__(self) -> None:
        self.zones: dict[str, DrawnZone] = {}
        self._trees: dict[int, Index] = {}
        self._ground: dict[str, tuple[int, BaseGeometry]] = {}  # id -> (its number in the tree, its ground)
        self._named: dict[int, str] = {}
        self._next = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZoneBoard) and self.zones == other.zones

    __hash__ = None  # type: ignore[assignment]

    def draw(self, zone: DrawnZone) -> None:
        """Put a checked zone in, in the place of one of its id."""
        if zone.id in self.zones:
            self.erase(zone.id)
        ground, number = outline(zone), self._next
        self._next += 1
        self.zones[zone.id] = zone
        self._ground[zone.id], self._named[number] = (number, ground), zone.id
        tree = self._trees.get(zone.level)
        if tree is None:
            tree = self._trees[zone.level] = Index()
        tree.insert(number, ground.bounds)

    def erase(self, zone_id: str) -> None:
        """Raises KeyError where it is not here."""
        zone = self.zones.pop(zone_id)
        number, ground = self._ground.pop(zone_id)
        del self._named[number]
        self._trees[zone.level].delete(number, ground.bounds)

    def in_box(self, level: int, box: Box) -> tuple[DrawnZone, ...]:
        """Zones of a level whose ground meets a box (x0, y0, x1, y1; in any order), borders included, by id."""
        tree = self._trees.get(level)
        if tree is None:
            return ()
        x0, x1 = sorted((box[0], box[2]))
        y0, y1 = sorted((box[1], box[3]))
        view = shapely.box(x0, y0, x1, y1)
        near = sorted(self._named[number] for number in tree.intersection((x0, y0, x1, y1)))
        meets: list[bool] = np.asarray(shapely.intersects(np.array([self._ground[zone_id][1] for zone_id in near], object), view)).tolist()
        return tuple(self.zones[zone_id] for zone_id, meet in zip(near, meets, strict=True) if meet)
