"""What trajectories amount to: occupancy, density, speed, flow, heat, and how good that is for the people in it.

Owns the definitions; it reads no files and keeps no state. Trajectories are columns sorted by (frame, person), metres, at a fixed rate.

Sources. Density, speed and flow as PedPy 1.x defines them (pedpy.readthedocs.io, *Methods*), after Steffen and Seyfried (2010) and Schadschneider et al.
(2018): the Voronoi density of an area is the integral of 1/|cell| over it, divided by the area; individual speed is the distance from `step` frames before to
`step` frames after, over the time between; the flow counts each person's first passing of a line. Level of service: Fruin (1971), walkways and queues.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from esplanade.core.errors import InvalidInput, LimitExceeded

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

Band = Literal["A", "B", "C", "D", "E", "F"]

WALKWAY_M2: Final = (3.25, 2.32, 1.39, 0.93, 0.46)
"""Least m2 a person for bands A to E on walkways (Fruin 1971); less is F."""

QUEUE_M2: Final = (1.21, 0.93, 0.65, 0.28, 0.19)
"""The same for people who stand and wait."""

MAX_CELLS: Final = 4_000_000
MAX_ROWS: Final = 50_000_000


@dataclass(frozen=True, slots=True)
class Trajectories:
    """n observations, each (person, frame) once: person, frame (n,) int64, x_m, y_m (n,) finite; `rate_hz` frames a second. Make it with `of`."""

    person: I8
    frame: I8
    x_m: F8
    y_m: F8
    rate_hz: float

    @classmethod
    def of(cls, person: npt.ArrayLike, frame: npt.ArrayLike, x_m: npt.ArrayLike, y_m: npt.ArrayLike, *, rate_hz: float) -> Trajectories:
        """Columns in any order. Raises InvalidInput for lengths that differ, a place that is not finite, a (person, frame) that occurs twice, a rate not above 0."""
        who, when = np.asarray(person, np.int64), np.asarray(frame, np.int64)
        x, y = np.asarray(x_m, np.float64), np.asarray(y_m, np.float64)
        if not (who.ndim == 1 and who.shape == when.shape == x.shape == y.shape and len(who) <= MAX_ROWS):
            raise InvalidInput(f"trajectories: shapes {who.shape}, {when.shape}, {x.shape}, {y.shape}; must be (n,) each, at most {MAX_ROWS} rows")
        if not 0 < rate_hz < np.inf:
            raise InvalidInput(f"trajectories: {rate_hz} frames a second; must be above 0")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            row = int(np.flatnonzero(~(np.isfinite(x) & np.isfinite(y)))[0])
            raise InvalidInput(f"trajectories: row {row} (person {who[row]}, frame {when[row]}) is at {x[row]}, {y[row]}; must be finite metres")
        order = np.lexsort((who, when))
        who, when = who[order], when[order]
        twice = np.flatnonzero((np.diff(who) == 0) & (np.diff(when) == 0))
        if len(twice):
            raise InvalidInput(f"trajectories: person {who[twice[0]]} occurs twice in frame {when[twice[0]]}; keep one")
        return cls(who, when, x[order], y[order], rate_hz)

    def frames(self) -> Iterator[tuple[int, slice]]:
        """Each frame that anyone is in, and its rows."""
        values, first = np.unique(self.frame, return_index=True)
        ends = np.append(first[1:], len(self.frame))
        return ((int(v), slice(int(a), int(b))) for v, a, b in zip(values, first, ends, strict=True))


@dataclass(frozen=True, slots=True)
class Series:
    """A value a frame: frame (f,) ascending, value (f,)."""

    frame: I8
    value: F8


def _check_area(area: BaseGeometry) -> float:
    if area.is_empty or not area.is_valid or area.area <= 0:
        raise InvalidInput(f"measure: area {area.wkt[:80]} is empty or not a valid polygon; draw it anew")
    return float(area.area)


def occupancy(trajectories: Trajectories, area: BaseGeometry) -> Series:
    """How many people an area covers (border included), in each frame that anyone is in."""
    _check_area(area)
    shapely.prepare(area)
    inside = shapely.covers(area, shapely.points(trajectories.x_m, trajectories.y_m))
    frame, which = np.unique(trajectories.frame, return_inverse=True)
    return Series(frame, np.bincount(which, inside, len(frame)).astype(np.float64))


def classic_density(trajectories: Trajectories, area: BaseGeometry) -> Series:
    """People in the area over its size, 1/m2, by frame."""
    counted = occupancy(trajectories, area)
    return Series(counted.frame, counted.value / _check_area(area))


def voronoi_cells(x_m: F8, y_m: F8, walkable: BaseGeometry, *, cut_off_m: float | None = None) -> npt.NDArray[np.object_]:
    """The part of the ground that is nearer to each person than to others, (n,) polygons: cut to the walkable ground and, with `cut_off_m`, to a circle (of 16 corners
    a quarter); of what walls cut apart, the part with the person. Empty for a person off the ground and for all but one on the same spot."""
    if len(x_m) == 0:
        return np.empty(0, dtype=object)
    points = np.asarray(shapely.points(x_m, y_m))
    spots, first = np.unique(np.column_stack([x_m, y_m]), axis=0, return_index=True)
    cells = np.full(len(x_m), shapely.Polygon(), dtype=object)
    if len(spots) == 1:
        cells[first] = walkable
    else:
        around = shapely.union_all([walkable, shapely.MultiPoint(spots)]).envelope.buffer(50.0)
        whole = shapely.voronoi_polygons(shapely.MultiPoint(spots), extend_to=around, ordered=True)
        cells[first] = shapely.intersection(np.array(shapely.get_parts(whole)), walkable)
    if cut_off_m is not None:
        cells = shapely.intersection(cells, shapely.buffer(points, cut_off_m, quad_segs=16))
    for i in np.flatnonzero(shapely.get_num_geometries(cells) > 1):
        parts = shapely.get_parts(cells[i])
        cells[i] = parts[int(np.argmin(shapely.distance(parts, points[i])))]
    off = ~shapely.covers(walkable, points)
    cells[off] = shapely.Polygon()
    return cells


def voronoi_density(
    trajectories: Trajectories, area: BaseGeometry, walkable: BaseGeometry, *, cut_off_m: float | None = None, speed: F8 | None = None
) -> tuple[Series, Series | None]:
    """Voronoi density (1/m2) of an area by frame, and with `speed` (n,; m/s of each observation, NaN where unknown) the Voronoi speed: the integral of speed over the
    area, divided by it. A frame in which someone in the area has no known speed has no Voronoi speed (NaN)."""
    size = _check_area(area)
    frames, density, mean = [], [], []
    for frame, rows in trajectories.frames():
        cells = voronoi_cells(trajectories.x_m[rows], trajectories.y_m[rows], walkable, cut_off_m=cut_off_m)
        whole = shapely.area(cells)
        here = shapely.area(shapely.intersection(cells, area))
        share = np.divide(here, whole, out=np.zeros(len(cells)), where=whole > 0)
        frames.append(frame)
        density.append(share.sum() / size)
        if speed is not None:
            met = here > 0
            mean.append(float((speed[rows][met] * here[met]).sum() / size))
    frame_of = np.array(frames, np.int64)
    return Series(frame_of, np.array(density)), None if speed is None else Series(frame_of, np.array(mean))


def individual_speed(trajectories: Trajectories, *, step: int) -> F8:
    """(n,) m/s of each observation: the straight distance from `step` frames before to `step` after, over the time; NaN where a person lacks either."""
    if step < 1:
        raise InvalidInput(f"individual_speed: step={step}; must be 1 frame or more")
    t = trajectories
    order = np.lexsort((t.frame, t.person))
    who, when = t.person[order], t.frame[order]
    key = who * (int(when.max()) - int(when.min()) + 2 * step + 2) + (when - int(when.min()) + step) if len(who) else who
    found = []
    for shift in (-step, step):
        at = np.minimum(np.searchsorted(key, key + shift), len(key) - 1)
        found.append(np.where(key[at] == key + shift, at, -1) if len(key) else at)
    before, after = found
    known = (before >= 0) & (after >= 0)
    x, y = t.x_m[order], t.y_m[order]
    speed = np.full(len(who), np.nan)
    speed[known] = np.hypot(x[after[known]] - x[before[known]], y[after[known]] - y[before[known]]) * t.rate_hz / (2 * step)
    out = np.empty(len(who))
    out[order] = speed
    return out


def mean_speed(trajectories: Trajectories, area: BaseGeometry, speed: F8) -> Series:
    """Mean speed of the people in an area with a known speed, by frame; NaN where there is none."""
    _check_area(area)
    inside = shapely.covers(area, shapely.points(trajectories.x_m, trajectories.y_m)) & np.isfinite(speed)
    frame, which = np.unique(trajectories.frame, return_inverse=True)
    count, total = np.bincount(which, inside, len(frame)), np.bincount(which[inside], speed[inside], len(frame))
    return Series(frame, np.divide(total, count, out=np.full(len(frame), np.nan), where=count > 0))


@dataclass(frozen=True, slots=True)
class Passings:
    """First passings of a line, by time: person (p,), frame (p,) at which they are beyond it, forward (p,): from the left of the line's direction to the right."""

    person: I8
    frame: I8
    forward: npt.NDArray[np.bool_]
    rate_hz: float

    def flow(self, from_frame: int, until_frame: int) -> float:
        """People a second who pass first in frames from_frame <= f < until_frame. Raises InvalidInput for no time at all."""
        if until_frame <= from_frame:
            raise InvalidInput(f"flow: frames {from_frame} to {until_frame}; must end after they begin")
        passed = (self.frame >= from_frame) & (self.frame < until_frame)
        return float(passed.sum() * self.rate_hz / (until_frame - from_frame))

    def mean_flow(self) -> float:
        """(N - 1) over the time from the first passing to the last, people a second; 0 for fewer than two."""
        if len(self.frame) < 2 or self.frame[-1] == self.frame[0]:
            return 0.0
        return float((len(self.frame) - 1) * self.rate_hz / (self.frame[-1] - self.frame[0]))


def passings(trajectories: Trajectories, line: tuple[tuple[float, float], tuple[float, float]]) -> Passings:
    """Each person's first passing of a segment: a move between consecutive frames that meets it and ends on the other side. Who stands on it is still on the
    side they came from."""
    t = trajectories
    order = np.lexsort((t.frame, t.person))
    who, when, xy = t.person[order], t.frame[order], np.column_stack([t.x_m, t.y_m])[order]
    (ax, ay), (bx, by) = line
    if (ax, ay) == (bx, by) or not np.isfinite(line).all():
        raise InvalidInput(f"passings: line {line}; must join two points")
    now = np.sign((bx - ax) * (xy[:, 1] - ay) - (by - ay) * (xy[:, 0] - ax))
    fresh = np.ones(len(who), np.bool_)
    fresh[1:] = who[1:] != who[:-1]
    last_known = np.maximum.accumulate(np.where((now != 0) | fresh, np.arange(len(now)), 0)) if len(now) else np.zeros(0, np.int64)
    side = now[last_known]
    moved = (who[1:] == who[:-1]) & (when[1:] == when[:-1] + 1)
    start, end = xy[:-1][moved], xy[1:][moved]
    crossed = side[:-1][moved] * side[1:][moved] < 0
    crossed[crossed] = shapely.intersects(shapely.linestrings(np.stack([start[crossed], end[crossed]], axis=1)), shapely.LineString(line))
    person, frame, forward = who[1:][moved][crossed], when[1:][moved][crossed], side[1:][moved][crossed] < 0
    _, first = np.unique(person, return_index=True)
    first = first[np.lexsort((person[first], frame[first]))]
    return Passings(person[first], frame[first], forward[first], t.rate_hz)


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Person-seconds in cells: (rows, columns), row 0 at the south; corner and cell in metres."""

    x0_m: float
    y0_m: float
    cell_m: float
    person_s: F8


def heat_map(trajectories: Trajectories, bounds: tuple[float, float, float, float], *, cell_m: float) -> HeatMap:
    """Time spent in each cell of a box (x0, y0, x1, y1); each observation is one frame's time, the last row and column take their far border."""
    x0, y0, x1, y1 = bounds
    if not (x1 > x0 and y1 > y0 and cell_m > 0 and np.isfinite(bounds).all()):
        raise InvalidInput(f"heat map: bounds {bounds}, cell {cell_m} m; must be a box and a size above 0")
    columns, rows = int(np.ceil((x1 - x0) / cell_m)), int(np.ceil((y1 - y0) / cell_m))
    if rows * columns > MAX_CELLS:
        raise LimitExceeded(f"heat map: {rows} x {columns} cells; at most {MAX_CELLS}, take larger ones")
    t = trajectories
    edges = x0 + cell_m * np.arange(columns + 1), y0 + cell_m * np.arange(rows + 1)
    inside = (t.x_m >= x0) & (t.x_m <= x1) & (t.y_m >= y0) & (t.y_m <= y1)
    counts, _, _ = np.histogram2d(t.x_m[inside], t.y_m[inside], bins=edges)
    return HeatMap(x0, y0, cell_m, counts.T / t.rate_hz)


@dataclass(frozen=True, slots=True)
class Visits:
    """Stays in zones: person, zone (v,) int64; enter_s, exit_s (v,), exit inf while still there."""

    person: I8
    zone: I8
    enter_s: F8
    exit_s: F8


def dwell_histogram(visits: Visits, zone: int, edges_s: F8) -> tuple[I8, int]:
    """How many finished stays in a zone lasted edges[i] <= s < edges[i + 1] (the last: or equal), and how many are not in it: not finished, or of another length."""
    if len(edges_s) < 2 or not (np.diff(edges_s) > 0).all():
        raise InvalidInput(f"dwell histogram: edges {edges_s.tolist()[:10]}; must ascend, two or more")
    mine = visits.zone == zone
    long = (visits.exit_s - visits.enter_s)[mine]
    counts, _ = np.histogram(long[np.isfinite(long)], edges_s)
    return counts.astype(np.int64), int(mine.sum() - counts.sum())


def origin_destination(visits: Visits, n_zones: int) -> I8:
    """(zones, zones): how often someone's next visit after one to zone i was one to zone j (by time of entering; i = j where they came back)."""
    if len(visits.zone) and not (visits.zone.min() >= 0 and visits.zone.max() < n_zones):
        raise InvalidInput(f"origin-destination: zones {visits.zone.min()} to {visits.zone.max()}; must be 0 to {n_zones - 1}")
    order = np.lexsort((visits.zone, visits.enter_s, visits.person))
    person, zone = visits.person[order], visits.zone[order]
    same = person[1:] == person[:-1]
    table = np.zeros((n_zones, n_zones), np.int64)
    np.add.at(table, (zone[:-1][same], zone[1:][same]), 1)
    return table


def level_of_service(density_per_m2: npt.ArrayLike, *, waiting: bool = False) -> npt.NDArray[np.str_]:
    """Fruin's band of each density: walkways, or with `waiting` queues. Raises InvalidInput for one that is negative or not a number."""
    density = np.asarray(density_per_m2, np.float64)
    if not (density >= 0).all():
        raise InvalidInput(f"level of service: densities down to {density.min()}; must be 0 or more")
    with np.errstate(divide="ignore"):
        room = 1.0 / density
    return np.asarray(np.array(list("ABCDEF"))[(room[..., None] < np.array(QUEUE_M2 if waiting else WALKWAY_M2)).sum(axis=-1)])


def band_of(density_per_m2: float, *, waiting: bool = False) -> Band:
    """The band of one density. Raises as `level_of_service`."""
    band: Band = level_of_service([density_per_m2], waiting=waiting)[0].item()
    return band
