"""What one client looks at: a rectangle of a level, told as changes, within bytes a second. Pure.

A `Picture` is everyone on a level at one tick, cut into cells once for all who look at it. A `Viewport` knows what its client holds, since the connection is in order and loses nothing:
it says who came, moved or left its rectangle, and nothing of who stands still. Where its allowance does not hold all, people near the middle stay points and the rest become clusters.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import InvalidInput
from gateway import frames as f

STEP_M: Final = 0.05
"""Positions are told in whole steps of this size."""
ORIGIN_M: Final = 512.0
"""Where steps are counted from: a corner that is a multiple of this, so that a moving rectangle seldom changes it."""
MAX_SIDE_M: Final = 2_500.0
"""A rectangle's side; steps of u2 reach 3,276 m from the origin."""
CELL_M: Final = 8.0
MAX_CELLS: Final = 1 << 16
ROW_BYTES: Final = 8
"""A person told: pseudonym u4, x, y u2. One more for a radius, in a picture that knows any."""
CLUSTER_BYTES: Final = 6
LEAST_ROWS: Final = 16
"""However small the allowance, so many people or clusters are told."""
WINDOW: Final = 4
"""Frames unseen by a client that says what it has seen; it gets no more before it says so."""

_Float = npt.NDArray[np.float32]
_Name = npt.NDArray[np.uint32]
_Step = npt.NDArray[np.uint16]
_Radius = npt.NDArray[np.uint8]


def check_view(view: f.View) -> None:
    """Raises InvalidInput for what is no rectangle, or one too large to be told in steps."""
    width, height = view.x1 - view.x0, view.y1 - view.y0
    if not (0 < width <= MAX_SIDE_M and 0 < height <= MAX_SIDE_M):
        raise InvalidInput(f"view of {width:g} x {height:g} m: x1 and y1 lie above x0 and y0, by at most {MAX_SIDE_M:g} m; look at a part")


class Picture:
    """Everyone on a level at one tick. Cut into cells when first looked at."""

    def __init__(self, dots: f.Dots) -> None:
        self.venue, self.level, self.tick = dots.venue, dots.level, dots.tick
        self._name: _Name = np.frombuffer(dots.pseudonym, "<u4")
        self._x: _Float = np.frombuffer(dots.x, "<f4")
        self._y: _Float = np.frombuffer(dots.y, "<f4")
        self.knows_radius = len(dots.radius) > 0
        self._radius: _Radius = np.frombuffer(dots.radius, np.uint8) if self.knows_radius else np.zeros(len(self._name), np.uint8)
        if not (self._name[1:] > self._name[:-1]).all():  # two people of one pseudonym are one
            self._name, first = np.unique(self._name, return_index=True)
            self._x, self._y, self._radius = self._x[first], self._y[first], self._radius[first]
        self._cells: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], float, float, float, int, int] | None = None

    def __len__(self) -> int:
        return len(self._name)

    @property
    def row_bytes(self) -> int:
        return ROW_BYTES + self.knows_radius

    def within(self, view: f.View) -> tuple[_Name, _Float, _Float, _Radius]:
        """Names, in order, places and radii (decimetres, 0: not known) of who is in the rectangle, its lower edges counted in, its upper ones not."""
        if not len(self):
            return self._name, self._x, self._y, self._radius
        order, starts, x0, y0, cell_m, cols, rows = self._cut()
        c0, c1 = (max(0, min(cols - 1, int((edge - x0) // cell_m))) for edge in (view.x0, view.x1))
        r0, r1 = (max(0, min(rows - 1, int((edge - y0) // cell_m))) for edge in (view.y0, view.y1))
        spans = [order[starts[r * cols + c0] : starts[r * cols + c1 + 1]] for r in range(r0, r1 + 1)]
        at = np.sort(np.concatenate(spans))
        x, y = self._x[at], self._y[at]
        x0, y0, x1, y1 = np.array((view.x0, view.y0, view.x1, view.y1))  # of 64 bits, or an edge would be rounded to the people's 32
        inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        return self._name[at[inside]], x[inside], y[inside], self._radius[at[inside]]

    def _cut(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], float, float, float, int, int]:
        if self._cells is None:
            x0, y0 = float(self._x.min()), float(self._y.min())
            width, height = float(self._x.max()) - x0, float(self._y.max()) - y0
            cell_m = CELL_M
            while (width // cell_m + 1) * (height // cell_m + 1) > MAX_CELLS:
                cell_m *= 2
            cols, rows = int(width // cell_m) + 1, int(height // cell_m) + 1
            col = np.minimum(((self._x.astype(np.float64) - x0) // cell_m).astype(np.intp), cols - 1)
            row = np.minimum(((self._y.astype(np.float64) - y0) // cell_m).astype(np.intp), rows - 1)
            cell = row * cols + col
            starts = np.zeros(cols * rows + 1, np.intp)
            np.cumsum(np.bincount(cell, minlength=cols * rows), out=starts[1:])
            self._cells = np.argsort(cell, kind="stable"), starts, x0, y0, cell_m, cols, rows
        return self._cells


class Viewport:
    """`bytes_per_s`: what the client wants to be told at most, None: whatever there is."""

    def __init__(self, view: f.View, *, bytes_per_s: int | None) -> None:
        self.view = view
        self.bytes_per_s = bytes_per_s
        self.number = 0
        self._seen: int | None = None
        self._origin: tuple[float, float] | None = None
        self._name: _Name = np.empty(0, np.uint32)
        self._x: _Step = np.empty(0, np.uint16)
        self._y: _Step = np.empty(0, np.uint16)
        self._radius: _Radius = np.empty(0, np.uint8)
        self._clusters: tuple[bytes, bytes, bytes] = (b"", b"", b"")

    def look(self, view: f.View, *, bytes_per_s: int | None) -> None:
        """Look elsewhere. Who is in both rectangles stays with the client."""
        self.view = view
        self.bytes_per_s = bytes_per_s

    def saw(self, number: int) -> None:
        """The client has drawn frame `number`. From the first time on it is given no more than WINDOW frames it has not."""
        self._seen = max(self._seen or 0, min(number, self.number))

    @property
    def is_full(self) -> bool:
        """Whether the client has frames enough to draw."""
        return self._seen is not None and self.number - self._seen >= WINDOW

    def frame(self, picture: Picture, *, interval_s: float) -> f.DotsView | None:
        """What the client must be told to hold what it would see now; None where it does. `interval_s`: between frames, for the allowance."""
        name, x_m, y_m, radius = picture.within(self.view)
        near, clusters, cluster_m = self._detail(x_m, y_m, interval_s, picture.row_bytes)
        origin = (self.view.x0 // ORIGIN_M * ORIGIN_M, self.view.y0 // ORIGIN_M * ORIGIN_M)
        name, x, y, radius = name[near], _steps(x_m[near], origin[0]), _steps(y_m[near], origin[1]), radius[near]
        columns = (_steps(clusters[0], origin[0]).tobytes(), _steps(clusters[1], origin[1]).tobytes(), clusters[2].astype("<u2").tobytes())
        told, left, radius = self._held(name, x, y, radius)
        # From anew where steps are counted from elsewhere, or where who left and who came would take more bytes than everyone.
        whole = origin != self._origin or 4 * len(left) + picture.row_bytes * int((~told).sum()) > picture.row_bytes * len(name) > 0
        if whole:
            told, left = np.zeros(len(name), np.bool_), self._name[:0]
        if not whole and told.all() and not len(left) and columns == self._clusters:
            return None
        self._origin, self._name, self._x, self._y, self._radius, self._clusters = origin, name, x, y, radius, columns
        self.number += 1
        new = ~told
        return f.DotsView(
            venue=picture.venue, level=picture.level, tick=picture.tick, number=self.number, whole=whole, x0_m=origin[0], y0_m=origin[1], step_m=STEP_M,
            pseudonym=name[new].astype("<u4").tobytes(), x=x[new].astype("<u2").tobytes(), y=y[new].astype("<u2").tobytes(),
            left=left.astype("<u4").tobytes(), cluster_m=cluster_m, cluster_x=columns[0], cluster_y=columns[1], cluster_count=columns[2],
            radius=radius[new].tobytes() if radius[new].any() else b"",
        )  # fmt: skip

    def _held(self, name: _Name, x: _Step, y: _Step, radius: _Radius) -> tuple[npt.NDArray[np.bool_], _Name, _Radius]:
        """(which of these the client holds at this very place, whom it holds who is not among these, the radii that it holds afterwards).

        A radius within a quarter of the one told is not told again.
        """
        if not len(self._name):
            return np.zeros(len(name), np.bool_), self._name, radius
        at = np.minimum(np.searchsorted(self._name, name), len(self._name) - 1)
        held = self._radius[at]
        same = 4 * np.abs(radius.astype(np.int16) - held) <= held
        told = (self._name[at] == name) & (self._x[at] == x) & (self._y[at] == y) & same
        return told, self._name[~np.isin(self._name, name, assume_unique=True)], np.where(told, held, radius)

    def _detail(
        self, x_m: _Float, y_m: _Float, interval_s: float, row_bytes: int
    ) -> tuple[npt.NDArray[np.bool_], tuple[_Float, _Float, npt.NDArray[np.intp]], float]:
        """(who stays a point, clusters of the others: middle x, y and count, the clusters' size or 0).

        All are points where the allowance holds them; else half of it is for points in the largest rectangle around the middle (each side smaller by a
        quarter than the one before) whose people fit, and half for clusters in squares, the smallest of a power of two metres that fit.
        """
        empty = np.empty(0, np.float32)
        rows = len(x_m) if self.bytes_per_s is None else max(LEAST_ROWS, int(self.bytes_per_s * interval_s) // row_bytes)
        if len(x_m) <= rows:
            return np.ones(len(x_m), np.bool_), (empty, empty, np.empty(0, np.intp)), 0.0
        view = self.view
        # How far from the middle, 1 at the rectangle's edge.
        far = np.maximum(np.abs(2 * x_m - (view.x0 + view.x1)) / (view.x1 - view.x0), np.abs(2 * y_m - (view.y0 + view.y1)) / (view.y1 - view.y0))
        share = 1.0
        while int((far < share).sum()) > rows // 2 and share > 0.01:
            share *= 0.75
        near = far < share if share > 0.01 else np.zeros(len(x_m), np.bool_)
        x, y = x_m[~near].astype(np.float64), y_m[~near].astype(np.float64)
        size = 2.0
        while (view.x1 - view.x0) * (view.y1 - view.y0) > 2 * rows * size * size:  # with four times as many cells as clusters, most would be too many
            size *= 2
        while True:
            col, row = np.floor(x / size).astype(np.int64), np.floor(y / size).astype(np.int64)
            col0, row0, rows_of = int(col.min()), int(row.min()), int(row.max() - row.min()) + 1
            cell, count = np.unique((col - col0) * rows_of + row - row0, return_counts=True)
            if len(count) <= rows // 2 or size > MAX_SIDE_M:
                break
            size *= 2
        middle_x = np.clip((cell // rows_of + col0 + 0.5) * size, view.x0, view.x1)
        middle_y = np.clip((cell % rows_of + row0 + 0.5) * size, view.y0, view.y1)
        return near, (middle_x.astype(np.float32), middle_y.astype(np.float32), np.minimum(count, 65_535)), size


def _steps(place_m: _Float, origin_m: float) -> _Step:
    return np.clip(np.rint((place_m.astype(np.float64) - origin_m) / STEP_M), 0, 65_535).astype(np.uint16)
