"""The spatial index: what is near a point, within a polygon, along a segment, on one level of one venue, for many questions at once.

Owns the interface (`SpatialIndex`), the answer (`Hits`), the rules for bad input and the index of a moving crowd (`CrowdIndex`, rebuilt whole each time).
Shapes that stand still or change one by one are `spatial.shape_index`'s. Why which: `docs/decisions/0005-spatial-index.md`.

A level of a venue is a *sheet*, a small number that `Sheets` gives. Things of one sheet never answer a question about another.

Rules for bad input. A batch comes from outside, so a bad row never stops it: the row is left out, or the question answers nothing, and `Refused`
says which row breaks which rule. What holds for the whole call (k, the limit, arrays of other lengths) is the caller's own error and raises InvalidInput.

| value | rule |
| --- | --- |
| coordinates, radius | finite metres, at most 1e6 from the origin; a radius not negative |
| sheet | one of `Sheets`; -1 is nowhere |
| the same id twice in a batch | the last row counts, as in a batch of news the newest wins |
| polygon | rings of three or more points, valid by OGC (Shapely's `is_valid`) |
| k | 1 to 1024 |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt
import shapely

from esplanade.core.errors import InvalidInput, LimitExceeded, NotFound
from spatial import index_kernels as kernels
from spatial.geofence import MultiPolygonCoords

F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64] | npt.NDArray[np.float32]
Integers = npt.NDArray[np.integer]

LARGEST_M: Final = 1e6
MAX_K: Final = 1024
MAX_ROWS: Final = 2**31 - 1
MAX_HITS: Final = 50_000_000
"""Hits of one call (0.8 GB while it runs); beyond it LimitExceeded, ask in parts."""

MAX_SHEETS: Final = 100_000

CELL_ROWS: Final = 3.0
"""Rows of a cell on average, where a sheet's crowd is spread evenly."""

MAX_CELLS_A_ROW: Final = 2.0
CELL_LEAST_M: Final = 0.5

NOT_FINITE, NO_SUCH_SHEET, NEGATIVE_RADIUS, REPLACED, BAD_SHAPE = range(5)
RULES: Final = (
    "coordinates must be finite metres below 1e6",
    "no such level; give the number of a sheet",
    "a radius must be finite and not negative",
    "the id occurs again later in the batch, and the last one counts",
    "a polygon must have rings of three or more points and be valid",
)


class Sheets:
    """The levels of some venues, numbered: venue by venue in the order given, each from its lowest level up."""

    def __init__(self, levels: Sequence[tuple[str, int]]) -> None:
        """`levels`: (venue id, number of levels). Raises InvalidInput for a venue named twice, no level, or above MAX_SHEETS."""
        self.venues = tuple(venue for venue, _ in levels)
        self.n_levels = np.array([count for _, count in levels], np.int64)
        if len(set(self.venues)) != len(self.venues) or (self.n_levels < 1).any() or not 1 <= self.n_levels.sum() <= MAX_SHEETS:
            raise InvalidInput(f"sheets: {list(levels)[:5]}...; each venue once with one level or more, 1 to {MAX_SHEETS} levels together")
        self.first = np.concatenate([[0], np.cumsum(self.n_levels)])
        self._number = {venue: i for i, venue in enumerate(self.venues)}

    def __len__(self) -> int:
        return int(self.first[-1])

    def of(self, venue: str, level: int) -> int:
        """The sheet of a venue's level (its index in `Venue.levels`). Raises NotFound."""
        number = self._number.get(venue)
        if number is None or not 0 <= level < self.n_levels[number]:
            raise NotFound(f"venue {venue[:100]!r}, level {level}: no such level here; venues are {list(self.venues)[:10]}")
        return int(self.first[number]) + level

    def of_rows(self, venue: int, level: Integers) -> I4:
        """Sheets of rows in the venue with this number; -1 for a level that it lacks (`columns.LEFT` too)."""
        wide = level.astype(np.int64)
        return np.where((wide >= 0) & (wide < self.n_levels[venue]), wide + self.first[venue], -1).astype(np.int32)

    def place(self, sheet: int) -> tuple[str, int]:
        """Venue id and level index of a sheet."""
        venue = int(np.searchsorted(self.first, sheet, side="right")) - 1
        return self.venues[venue], sheet - int(self.first[venue])


@dataclass(frozen=True, slots=True)
class Refused:
    """Rows of a batch that break a rule: row (r,) ascending, rule (r,) uint8 into RULES."""

    row: I8
    rule: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.row)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return ((int(row), RULES[rule]) for row, rule in zip(self.row, self.rule, strict=True))


@dataclass(frozen=True, slots=True)
class Hits:
    """Answers to q questions: question i has hits offset[i]..offset[i + 1] - 1.

    offset: (q + 1,) int64. row: (h,) int32 into the index's `id`. distance_m: (h,) float64 (0 inside a shape, and for `within_polygons`).
    refused: the questions that break a rule; they have no hits.
    """

    offset: I8
    row: I4
    distance_m: F8
    refused: Refused

    def __len__(self) -> int:
        return len(self.offset) - 1

    def of(self, question: int) -> I4:
        """Rows that answer one question."""
        return self.row[self.offset[question] : self.offset[question + 1]]

    @property
    def question(self) -> I8:
        """The question of each hit, (h,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offset))


class SpatialIndex(Protocol):
    """What every index answers. Questions are columns of q rows; sheet (q,) integers, coordinates (q,) metres, venue frame. Distances are to the nearest point of
    a shape, 0 inside it; limits count as inside."""

    @property
    def id(self) -> I8:
        """Id of each row, (n,)."""

    def within(self, sheet: Integers, x_m: Numbers, y_m: Numbers, radius_m: float | Numbers) -> Hits:
        """Rows at most `radius_m` away (one for all, or (q,)), ascending."""

    def nearest(self, sheet: Integers, x_m: Numbers, y_m: Numbers, k: int) -> Hits:
        """The k nearest rows, nearest first, ties by row; fewer where the sheet has fewer."""

    def within_polygons(self, sheet: Integers, polygons: Sequence[MultiPolygonCoords]) -> Hits:
        """Rows that each polygon (holes, several parts) covers or touches, ascending."""

    def along(self, sheet: Integers, segment_m: Numbers, reach_m: float | Numbers) -> Hits:
        """Rows at most `reach_m` from each segment (q, 4: x1, y1, x2, y2), in the order in which it passes them, ties by row."""


class CrowdIndex:
    """Points of a crowd, all of which move: built anew from columns in about 15 ns a row, then asked in bulk. Immutable."""

    def __init__(self, n_sheets: int, identity: I8, sheet: I4, x: F8, y: F8, refused: Refused) -> None:
        self.id = identity
        self.refused = refused
        self.n_sheets = n_sheets
        self._grid, self._shape, cells = _grids(n_sheets, sheet, x, y)
        self._first, self._rows, self._x, self._y = kernels.fill(sheet, x, y, self._grid, self._shape, cells)

    @classmethod
    def build(cls, sheets: Sheets, identity: Integers, sheet: Integers, x_m: Numbers, y_m: Numbers) -> Self:
        """Index n rows: id, sheet, x, y (n,). Rows that break a rule are not indexed; `refused` names them. Raises InvalidInput where lengths differ."""
        if not (identity.ndim == 1 and identity.shape == sheet.shape == x_m.shape == y_m.shape):
            raise InvalidInput(f"crowd: id {identity.shape}, sheet {sheet.shape}, x {x_m.shape}, y {y_m.shape}; must be (n,) each")
        ids, x, y = np.ascontiguousarray(identity, np.int64), np.ascontiguousarray(x_m, np.float64), np.ascontiguousarray(y_m, np.float64)
        place, rule = judge(len(sheets), sheet, x, y)
        older = _older(ids)
        if older is not None:
            rule[older & (rule < 0)] = REPLACED
            place[older] = -1
        return cls(len(sheets), ids, place, x, y, refused(rule))

    def within(self, sheet: Integers, x_m: Numbers, y_m: Numbers, radius_m: float | Numbers) -> Hits:
        x, y, radius, place, rule = questions(self.n_sheets, sheet, x_m, y_m, radius_m)
        offset = np.zeros(len(place) + 1, np.int64)
        row, squared = kernels.within(self._grid, self._shape, self._first, self._rows, self._x, self._y, place, x, y, radius, MAX_HITS, offset)
        return _hits(offset, row, squared, rule)

    def nearest(self, sheet: Integers, x_m: Numbers, y_m: Numbers, k: int, *, within_m: float = np.inf) -> Hits:
        """As the interface; `within_m` leaves out who is farther."""
        check_k(k)
        if not within_m >= 0:
            raise InvalidInput(f"nearest: within_m={within_m}; must not be negative")
        x, y, _, place, rule = questions(self.n_sheets, sheet, x_m, y_m, 0.0)
        if len(place) * min(k, len(self._rows)) > MAX_HITS:
            raise too_many(len(place))
        offset = np.zeros(len(place) + 1, np.int64)
        row, squared = kernels.nearest(self._grid, self._shape, self._first, self._rows, self._x, self._y, place, x, y, k, within_m, offset)
        return _hits(offset, row, squared, rule)

    def within_polygons(self, sheet: Integers, polygons: Sequence[MultiPolygonCoords]) -> Hits:
        areas, place, rule = areas_of(self.n_sheets, sheet, polygons)
        edges = [area_edges(area) if s >= 0 else np.zeros((0, 4)) for area, s in zip(areas, place, strict=True)]
        first = np.concatenate([[0], np.cumsum([len(edge) for edge in edges])]).astype(np.int64)
        offset = np.zeros(len(place) + 1, np.int64)
        row = kernels.covered(
            self._grid,
            self._shape,
            self._first,
            self._rows,
            self._x,
            self._y,
            place,
            first,
            np.concatenate([np.zeros((0, 4)), *edges]),
            MAX_HITS,
            offset,
        )
        return _hits(offset, row, np.zeros(len(row)), rule)

    def along(self, sheet: Integers, segment_m: Numbers, reach_m: float | Numbers) -> Hits:
        segment, reach, place, rule = segment_questions(self.n_sheets, sheet, segment_m, reach_m)
        offset = np.zeros(len(place) + 1, np.int64)
        row, squared = kernels.along(self._grid, self._shape, self._first, self._rows, self._x, self._y, place, segment, reach, MAX_HITS, offset)
        return _hits(offset, row, squared, rule)


# --- rules, shared by the indexes ---------------------------------------------------------------------------------------


def judge(n_sheets: int, sheet: Integers, x: F8, y: F8) -> tuple[I4, npt.NDArray[np.int8]]:
    """Sheets with -1 for rows that break a rule, and the rule broken (-1 for none)."""
    rule = np.full(len(sheet), -1, np.int8)
    wide = sheet.astype(np.int64)
    known = (wide >= 0) & (wide < n_sheets)
    rule[~known] = NO_SUCH_SHEET
    rule[~((np.abs(x) <= LARGEST_M) & (np.abs(y) <= LARGEST_M))] = NOT_FINITE
    return np.where(rule < 0, wide, -1).astype(np.int32), rule


def refused(rule: npt.NDArray[np.int8]) -> Refused:
    row = np.flatnonzero(rule >= 0)
    return Refused(row, rule[row].astype(np.uint8))


def questions(n_sheets: int, sheet: Integers, x_m: Numbers, y_m: Numbers, radius_m: float | Numbers) -> tuple[F8, F8, F8, I4, npt.NDArray[np.int8]]:
    """x, y, radius (q,) each, sheets with -1 for refused questions, the rules broken. Raises InvalidInput where lengths differ."""
    if not (sheet.ndim == 1 and sheet.shape == x_m.shape == y_m.shape and np.shape(radius_m) in ((), sheet.shape)):
        raise InvalidInput(f"index: sheet {sheet.shape}, x {x_m.shape}, y {y_m.shape}, radius {np.shape(radius_m)}; must be (q,) each, or one radius")
    x, y = np.ascontiguousarray(x_m, np.float64), np.ascontiguousarray(y_m, np.float64)
    radius = np.ascontiguousarray(np.broadcast_to(np.asarray(radius_m, np.float64), sheet.shape))
    place, rule = judge(n_sheets, sheet, x, y)
    wrong = ~((radius >= 0) & (radius <= LARGEST_M))
    rule[wrong & (rule < 0)] = NEGATIVE_RADIUS
    place[wrong] = -1
    return x, y, radius, place, rule


def segment_questions(n_sheets: int, sheet: Integers, segment_m: Numbers, reach_m: float | Numbers) -> tuple[F8, F8, I4, npt.NDArray[np.int8]]:
    if segment_m.ndim != 2 or segment_m.shape[1] != 4:
        raise InvalidInput(f"along: segments of shape {segment_m.shape}; must be (q, 4): x1, y1, x2, y2")
    segment = np.ascontiguousarray(segment_m, np.float64)
    _, _, reach, place, rule = questions(n_sheets, sheet, segment[:, 0], segment[:, 1], reach_m)
    wrong = ~(np.abs(segment[:, 2:]) <= LARGEST_M).all(axis=1)
    rule[wrong] = NOT_FINITE
    place[wrong] = -1
    return segment, reach, place, rule


def areas_of(n_sheets: int, sheet: Integers, polygons: Sequence[MultiPolygonCoords]) -> tuple[list[shapely.MultiPolygon], I4, npt.NDArray[np.int8]]:
    if sheet.shape != (len(polygons),):
        raise InvalidInput(f"within_polygons: sheet {sheet.shape} and {len(polygons)} polygons; must be as many")
    place, rule = judge(n_sheets, sheet, np.zeros(len(polygons)), np.zeros(len(polygons)))
    areas = []
    for q, polygon in enumerate(polygons):
        area = area_of(polygon)
        if area is None:
            rule[q], place[q] = BAD_SHAPE, -1
        areas.append(area or shapely.MultiPolygon())
    return areas, place, rule


def area_of(polygon: MultiPolygonCoords) -> shapely.MultiPolygon | None:
    """The polygon, None where it breaks the rule for polygons."""
    try:
        area = shapely.MultiPolygon([shapely.Polygon(rings[0], rings[1:]) for rings in polygon])
    except (ValueError, IndexError, TypeError, shapely.errors.GEOSException):
        return None
    fit = not area.is_empty and bool((np.abs(shapely.get_coordinates(area)) <= LARGEST_M).all()) and area.is_valid
    return area if fit else None


def area_edges(area: shapely.MultiPolygon) -> F8:
    """Edges (k, 4) of all rings."""
    rings = [shapely.get_coordinates(ring) for part in area.geoms for ring in (part.exterior, *part.interiors)]
    return np.concatenate([np.zeros((0, 4)), *(np.hstack([xy[:-1], xy[1:]]) for xy in rings)])


def check_k(k: int) -> None:
    if not 1 <= k <= MAX_K:
        raise InvalidInput(f"nearest: k={k}; must be 1 to {MAX_K}")


def too_many(count: int) -> LimitExceeded:
    return LimitExceeded(f"index: {count} questions have more than {MAX_HITS} hits; ask in parts or nearer")


def _hits(offset: I8, row: I4, squared: F8, rule: npt.NDArray[np.int8]) -> Hits:
    if offset[0] < 0:
        raise too_many(len(offset) - 1)
    return Hits(offset, row, np.sqrt(squared), refused(rule))


def _older(ids: I8) -> Bool | None:
    """Rows whose id comes again later; None where none does."""
    if len(ids) < 2 or (ids[1:] > ids[:-1]).all():
        return None
    _, last = np.unique(ids[::-1], return_index=True)
    if len(last) == len(ids):
        return None
    older = np.ones(len(ids), np.bool_)
    older[len(ids) - 1 - last] = False
    return older


def _grids(n_sheets: int, sheet: I4, x: F8, y: F8) -> tuple[F8, I8, int]:
    """Corner and cell size (s, 3), rows, columns and first cell (s, 3), cells. The box of a grid holds all but the outermost hundredths of its crowd."""
    grid, shape = np.zeros((n_sheets, 3)), np.ones((n_sheets, 3), np.int64)
    grid[:, 2] = 1.0
    order = np.argsort(sheet, kind="stable")
    bounds = np.searchsorted(sheet[order], np.arange(n_sheets + 1))
    cells = 0
    for s in range(n_sheets):
        shape[s, 2] = cells
        rows = order[bounds[s] : bounds[s + 1]]
        if len(rows):
            sample = rows[:: max(1, len(rows) // 1000)]
            x0, x1 = np.quantile(x[sample], [0.01, 0.99])
            y0, y1 = np.quantile(y[sample], [0.01, 0.99])
            wide, high = max(x1 - x0, CELL_LEAST_M), max(y1 - y0, CELL_LEAST_M)
            cell = max(CELL_LEAST_M, float(np.sqrt(wide * high * CELL_ROWS / len(rows))))
            # A crowd in a line: no more cells than rows can fill.
            cell = max(cell, max(wide, high) / (MAX_CELLS_A_ROW * len(rows) + 1))
            shape[s, :2] = int(high / cell) + 1, int(wide / cell) + 1
            grid[s] = x0, y0, cell
        cells += int(shape[s, 0] * shape[s, 1])
    return grid, shape, cells
