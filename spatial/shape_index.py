"""Points, circles, polygons and poses that stand still or change one by one, under the interface of `spatial.index`.

Owns the shapes and two trees over their boxes: Shapely's STRtree, packed once (`ShapeIndex.build`), and the same with a list of what changed since
(`EditableShapeIndex`). The trees only propose; what is near or inside is decided exactly from the shape. A pose is indexed by where it is; its heading is
the business of whoever draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self, assert_never

import numpy as np
import shapely

from esplanade.core.errors import InvalidInput, LimitExceeded, NotFound
from spatial.geofence import MultiPolygonCoords
from spatial.index import (
    BAD_SHAPE,
    F8,
    I4,
    I8,
    LARGEST_M,
    MAX_HITS,
    NEGATIVE_RADIUS,
    NO_SUCH_SHEET,
    NOT_FINITE,
    REPLACED,
    Hits,
    Integers,
    Numbers,
    Refused,
    Sheets,
    area_of,
    areas_of,
    check_k,
    questions,
    refused,
    segment_questions,
    too_many,
)
from spatial.index_kernels import SLACK_M

MAX_SHAPES: Final = 5_000_000
MAX_CHANGED: Final = 256
"""Changed rows that every question looks at before the tree is packed anew, or a fiftieth of all rows where that is more."""


@dataclass(frozen=True, slots=True)
class Spot:
    x_m: float
    y_m: float


@dataclass(frozen=True, slots=True)
class Disc:
    x_m: float
    y_m: float
    radius_m: float


@dataclass(frozen=True, slots=True)
class Area:
    polygon: MultiPolygonCoords


@dataclass(frozen=True, slots=True)
class Posed:
    """Something with a pose on a level, such as an AR anchor: metres, venue frame; quaternion x, y, z, w (not searched)."""

    x_m: float
    y_m: float
    z_m: float
    turn: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)


Shape = Spot | Disc | Area | Posed


@dataclass(frozen=True, slots=True)
class Placed:
    """A shape with an id (of the caller's, 64 bits) on a sheet."""

    id: int
    sheet: int
    shape: Shape


@dataclass(slots=True)
class _Columns:
    """Rows by shape: core (n,) the point or polygon, radius (n,) around it, sheet (n,) -1 where free, box (n, 4)."""

    id: I8
    sheet: I4
    core: np.ndarray[tuple[int], np.dtype[np.object_]]
    radius: F8
    x: F8
    y: F8
    area: np.ndarray[tuple[int], np.dtype[np.bool_]]
    box: F8


class _Boxes(Protocol):
    def meet(self, sheet: I4, box: F8) -> tuple[I8, I8]:
        """(question, row) of boxes of the same sheet that meet; a superset is allowed, each pair once."""


class _Shapes:
    """The interface of `spatial.index` over columns of shapes and a tree of boxes."""

    def __init__(self, sheets: Sheets, columns: _Columns, boxes: _Boxes) -> None:
        self.n_sheets = len(sheets)
        self._columns = columns
        self._boxes = boxes

    @property
    def id(self) -> I8:
        return self._columns.id

    def within(self, sheet: Integers, x_m: Numbers, y_m: Numbers, radius_m: float | Numbers) -> Hits:
        """Rows at most `radius_m` away, ascending; as `SpatialIndex.within`."""
        x, y, radius, place, rule = questions(self.n_sheets, sheet, x_m, y_m, radius_m)
        question, row, distance = self._near(place, x, y, radius)
        return _sorted(len(place), question, row, distance, (row, question), refused(rule))

    def nearest(self, sheet: Integers, x_m: Numbers, y_m: Numbers, k: int) -> Hits:
        """The k nearest rows, nearest first, ties by row; as `SpatialIndex.nearest`. Circles of search double until they hold k."""
        check_k(k)
        x, y, _, place, rule = questions(self.n_sheets, sheet, x_m, y_m, 0.0)
        columns = self._columns
        taken = columns.sheet >= 0
        there = np.bincount(columns.sheet[taken], minlength=self.n_sheets)
        want = np.where(place >= 0, np.minimum(there[place], k), 0)
        if want.sum() > MAX_HITS:
            raise too_many(len(place))
        span = columns.box[taken]
        across = float((span[:, 2:].max(axis=0) - span[:, :2].min(axis=0)).max()) if len(span) else 1.0
        reach = np.sqrt(np.maximum(k, 1) * max(across, 1.0) ** 2 / np.maximum(there[place], 1) / np.pi)
        parts: list[tuple[I8, I8, F8]] = []
        open_ = np.flatnonzero(want > 0)
        while len(open_):
            question, row, distance = self._near(place[open_], x[open_], y[open_], reach[open_])
            enough = np.bincount(question, minlength=len(open_)) >= want[open_]
            keep = enough[question]
            parts.append((open_[question[keep]], row[keep], distance[keep]))
            open_ = open_[~enough]
            reach[open_] *= 2
        none = np.zeros(0, np.int64)
        question = np.concatenate([none, *(part[0] for part in parts)])
        row = np.concatenate([none, *(part[1] for part in parts)])
        distance = np.concatenate([np.zeros(0), *(part[2] for part in parts)])
        order = np.lexsort((row, distance, question))
        question, row, distance = question[order], row[order], distance[order]
        rank = np.arange(len(question)) - np.searchsorted(question, question)
        keep = rank < k
        return _packed(len(place), question[keep], row[keep], distance[keep], refused(rule))

    def within_polygons(self, sheet: Integers, polygons: Sequence[MultiPolygonCoords]) -> Hits:
        """Rows that each polygon meets, ascending; as `SpatialIndex.within_polygons`."""
        areas, place, rule = areas_of(self.n_sheets, sheet, polygons)
        asked = np.flatnonzero(place >= 0)
        geometry = np.array(areas, dtype=object)
        shapely.prepare(geometry)
        question, row = self._meet(place[asked], shapely.bounds(geometry[asked]).reshape(-1, 4))
        question = asked[question]
        columns = self._columns
        inside = np.empty(len(row), np.bool_)
        point = columns.radius[row] == 0
        inside[point] = shapely.intersects(geometry[question[point]], columns.core[row[point]])
        inside[~point] = shapely.distance(geometry[question[~point]], columns.core[row[~point]]) <= columns.radius[row[~point]]
        question, row = question[inside], row[inside]
        return _sorted(len(place), question, row, np.zeros(len(row)), (row, question), refused(rule))

    def along(self, sheet: Integers, segment_m: Numbers, reach_m: float | Numbers) -> Hits:
        """Rows at most `reach_m` from each segment, in the order in which it passes them; as `SpatialIndex.along`."""
        segment, reach, place, rule = segment_questions(self.n_sheets, sheet, segment_m, reach_m)
        asked = np.flatnonzero(place >= 0)
        low, high = np.minimum(segment[:, :2], segment[:, 2:]), np.maximum(segment[:, :2], segment[:, 2:])
        grown = reach[:, None] + SLACK_M
        box = np.hstack([low - grown, high + grown])
        question, row = self._meet(place[asked], box[asked])
        question = asked[question]
        lines = np.full(len(place), None, dtype=object)
        lines[asked] = shapely.linestrings(segment[asked].reshape(-1, 2, 2))
        columns = self._columns
        distance = np.maximum(shapely.distance(lines[question], columns.core[row]) - columns.radius[row], 0.0)
        near = distance <= reach[question]
        question, row, distance = question[near], row[near], distance[near]
        touch = shapely.get_point(shapely.shortest_line(lines[question], columns.core[row]), 0)
        where = shapely.line_locate_point(lines[question], touch)
        return _sorted(len(place), question, row, distance, (row, where, question), refused(rule))

    def _meet(self, sheet: I4, box: F8) -> tuple[I8, I8]:
        question, row = self._boxes.meet(sheet, box)
        if len(row) > MAX_HITS:
            raise too_many(len(sheet))
        return question, row

    def _near(self, sheet: I4, x: F8, y: F8, radius: F8) -> tuple[I8, I8, F8]:
        """(question, row, distance) of all within a radius of points; a sheet of -1 asks nothing."""
        asked = np.flatnonzero(sheet >= 0)
        reach = radius + SLACK_M
        box = np.column_stack([x - reach, y - reach, x + reach, y + reach])[asked]
        question, row = self._meet(sheet[asked], box)
        question = asked[question]
        columns = self._columns
        distance = np.empty(len(row))
        area = columns.area[row]
        round_ = ~area
        dx, dy = columns.x[row[round_]] - x[question[round_]], columns.y[row[round_]] - y[question[round_]]
        distance[round_] = np.sqrt(dx * dx + dy * dy)
        distance[area] = shapely.distance(columns.core[row[area]], shapely.points(x[question[area]], y[question[area]]))
        limit = radius[question] + columns.radius[row]
        near = np.empty(len(row), np.bool_)
        near[round_] = dx * dx + dy * dy <= limit[round_] ** 2
        near[area] = distance[area] <= limit[area]
        return question[near], row[near], np.maximum(distance[near] - columns.radius[row[near]], 0.0)


class ShapeIndex(_Shapes):
    """Shapes that stand still: packed once, asked in bulk. Immutable. `refused` names the rows that break a rule."""

    refused: Refused

    @classmethod
    def build(cls, sheets: Sheets, placed: Sequence[Placed]) -> Self:
        """Index shapes; row i is the i-th. Rows that break a rule are not indexed. Raises LimitExceeded above MAX_SHAPES."""
        if len(placed) > MAX_SHAPES:
            raise LimitExceeded(f"shapes: {len(placed)}; at most {MAX_SHAPES}, split the venues")
        columns = _room(len(placed))
        rule = np.full(len(placed), -1, np.int8)
        newest: dict[int, int] = {}
        for row, item in enumerate(placed):
            columns.id[row] = item.id
            rule[row] = _set(columns, row, len(sheets), item)
            if rule[row] >= 0:
                continue
            before = newest.get(item.id)
            if before is not None:
                rule[before], columns.sheet[before] = REPLACED, -1
            newest[item.id] = row
        index = cls(sheets, columns, _Packed(columns))
        index.refused = refused(rule)
        return index


class EditableShapeIndex(_Shapes):
    """Shapes that come and go one by one. Row numbers are reused; take `id[row]` from an answer before the next change."""

    def __init__(self, sheets: Sheets) -> None:
        columns = _room(64)
        self._tree = _Edited(columns)
        super().__init__(sheets, columns, self._tree)
        self._row: dict[int, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._row)

    def put(self, item: Placed) -> None:
        """Add a shape, or replace the one with its id. Raises InvalidInput with the rule, and leaves what was there."""
        trial = _room(1)
        rule = _set(trial, 0, self.n_sheets, item)
        if rule >= 0:
            raise InvalidInput(f"shape {item.id} on sheet {item.sheet}: {item.shape!r:.200}; {_WHY[rule]}")
        if item.id in self._row:
            self.remove(item.id)
        if len(self._row) >= MAX_SHAPES:
            raise LimitExceeded(f"shapes: already {MAX_SHAPES}; remove some, or split the venues")
        row = self._free.pop() if self._free else len(self._row)
        if row == len(self._columns.sheet):
            self._columns = self._tree.columns = _grown(self._columns)
        _set(self._columns, row, self.n_sheets, item)
        self._columns.id[row] = item.id
        self._row[item.id] = row
        self._tree.change(row)

    def remove(self, identity: int) -> None:
        """Take a shape out. Raises NotFound."""
        row = self._row.pop(identity, None)
        if row is None:
            raise NotFound(f"shape {identity}: not in this index")
        self._tree.change(row)
        self._columns.sheet[row] = -1
        self._columns.core[row] = None
        self._free.append(row)


_WHY: Final = {
    NOT_FINITE: f"coordinates must be finite metres below {LARGEST_M:g}",
    NO_SUCH_SHEET: "there is no such sheet",
    NEGATIVE_RADIUS: "a radius must be finite and not negative",
    BAD_SHAPE: "a polygon must have rings of three or more points and be valid",
}


class _Packed:
    """An STRtree a sheet."""

    def __init__(self, columns: _Columns) -> None:
        rows = np.flatnonzero(columns.sheet >= 0)
        order = rows[np.argsort(columns.sheet[rows], kind="stable")]
        sheets, first = np.unique(columns.sheet[order], return_index=True)
        parts = np.split(order, first[1:]) if len(order) else []
        self._parts = {int(s): (part, shapely.STRtree(np.asarray(shapely.box(*columns.box[part].T)))) for s, part in zip(sheets, parts, strict=True)}

    def meet(self, sheet: I4, box: F8) -> tuple[I8, I8]:
        found: list[tuple[I8, I8]] = []
        for s in np.unique(sheet):
            part = self._parts.get(int(s))
            if part is None:
                continue
            rows, tree = part
            asked = np.flatnonzero(sheet == s)
            question, at = tree.query(shapely.box(*box[asked].T))
            found.append((asked[question], rows[at]))
        none = np.zeros(0, np.int64)
        return np.concatenate([none, *(q for q, _ in found)]), np.concatenate([none, *(r for _, r in found)])


class _Edited:
    """A packed tree, and the few rows that changed since it was packed, which every question looks at; packed anew by the first question after many changes."""

    def __init__(self, columns: _Columns) -> None:
        self.columns = columns
        self._packed = _Packed(columns)
        self._stale = np.zeros(len(columns.sheet), np.bool_)
        self._changed: dict[int, None] = {}

    def change(self, row: int) -> None:
        """The row was set, moved or freed."""
        if row >= len(self._stale):
            self._stale = np.concatenate([self._stale, np.zeros(len(self.columns.sheet) - len(self._stale), np.bool_)])
        self._stale[row] = True
        self._changed[row] = None

    def meet(self, sheet: I4, box: F8) -> tuple[I8, I8]:
        columns = self.columns
        if len(self._changed) > max(MAX_CHANGED, len(columns.sheet) // 50):
            self._packed = _Packed(columns)
            self._stale[:] = False
            self._changed.clear()
        question, row = self._packed.meet(sheet, box)
        kept = ~self._stale[row]
        new = np.fromiter(self._changed, np.int64, len(self._changed))
        new = new[columns.sheet[new] >= 0]
        there = columns.box[new]
        meets = (sheet[:, None] == columns.sheet[new]) & (box[:, None, 0] <= there[:, 2]) & (there[:, 0] <= box[:, None, 2])
        meets &= (box[:, None, 1] <= there[:, 3]) & (there[:, 1] <= box[:, None, 3])
        more, which = np.nonzero(meets)
        return np.concatenate([question[kept], more]), np.concatenate([row[kept], new[which]])


def _room(n: int) -> _Columns:
    return _Columns(
        np.zeros(n, np.int64), np.full(n, -1, np.int32), np.full(n, None, dtype=object), np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n, np.bool_),
        np.zeros((n, 4)),
    )  # fmt: skip


def _grown(columns: _Columns) -> _Columns:
    larger = _room(2 * len(columns.sheet))
    for name in _Columns.__dataclass_fields__:
        getattr(larger, name)[: len(columns.sheet)] = getattr(columns, name)
    return larger


def _set(columns: _Columns, row: int, n_sheets: int, item: Placed) -> int:
    """Fill a row. Returns the rule that the item breaks (the row stays free then), or -1."""
    if not 0 <= item.sheet < n_sheets:
        return NO_SUCH_SHEET
    shape, radius = item.shape, 0.0
    match shape:
        case Area():
            core = area_of(shape.polygon)
            if core is None:
                return BAD_SHAPE
            columns.core[row], columns.area[row], columns.box[row] = core, True, core.bounds
            columns.x[row], columns.y[row], columns.radius[row] = 0.0, 0.0, 0.0
        case Spot() | Posed() | Disc():
            if isinstance(shape, Disc):
                radius = shape.radius_m
                if not 0 <= radius <= LARGEST_M:
                    return NEGATIVE_RADIUS
            x, y = shape.x_m, shape.y_m
            if not (abs(x) <= LARGEST_M and abs(y) <= LARGEST_M):
                return NOT_FINITE
            columns.core[row], columns.area[row], columns.box[row] = shapely.Point(x, y), False, (x - radius, y - radius, x + radius, y + radius)
            columns.x[row], columns.y[row], columns.radius[row] = x, y, radius
        case _:
            assert_never(shape)
    columns.sheet[row] = item.sheet
    return -1


def _sorted(q: int, question: I8, row: I8, distance: F8, keys: tuple[np.ndarray[tuple[int], np.dtype[np.generic]], ...], bad: Refused) -> Hits:
    order = np.lexsort(keys)
    return _packed(q, question[order], row[order], distance[order], bad)


def _packed(q: int, question: I8, row: I8, distance: F8, bad: Refused) -> Hits:
    return Hits(np.searchsorted(question, np.arange(q + 1)).astype(np.int64), row.astype(np.int32), distance, bad)
