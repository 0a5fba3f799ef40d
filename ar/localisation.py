"""Where a depth frame or fragment lies in a map, or that it is not known.

Owns the search (feature matches, triplet sampling), the refinement (point-to-plane ICP) and the judgement. It must never answer with a pose
that it does not believe: `Located` carries a chance of being right of at least `CONFIDENT` (`CLOUD_CONFIDENT` for clouds), everything else is
`NotLocated` with the reason.
Chance is a seed. Sources: FPFH, Rusu (2009); RANSAC over feature matches as in Open3D; point-to-plane ICP, Chen and Medioni (1992).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ar.clouds import F4, F8, Camera, Prepared, back_project, checked_depth, checked_points, prepare, thin
from ar.maps import FINE, SURFACE_CELL, SpatialMap, TileKey, coarse_grid
from ar.pose import Poses, quaternion_of, skew
from ar.registration_kernels import sample_poses, seen_through
from ar.sight import Sight
from ar.surface_grid import SurfaceGrid, smooth_surface
from esplanade.core.errors import InvalidInput

CONFIDENT: Final = 0.8
"""Of 7-Scenes frames in maps of other frames, the poses off by over 5 cm came to 0.73 at most, those within 4.5 cm to 0.87 at least (docs/ar.md)."""
CLOUD_CONFIDENT: Final = 0.8
"""The same for clouds without a camera: of 94 wrong poses of real pairs, mirrored ones among them, none that a search had chosen and that MOST_THROUGH lets pass came above 0.79 (docs/ar.md)."""
NEARLY: Final = 0.8
"""Another pose whose coarse score comes so near to the best's is refined and compared."""
TIED: Final = 0.97
"""Another pose that fits so well by the best's makes the answer "not known": of two that differ by symmetry, noise decides which is the better one."""
MIN_STIFFNESS: Final = 0.004
"""Below this the pose slides along what is seen (a wall, a corridor): see `Evidence`."""
RIGHT_M: Final = 0.05
COMMON_ERROR_M: Final = 0.0029
"""What all points of one depth frame and its map are off by together, one standard deviation, at most: errors of 73 poses of 7-Scenes frames, whole and halves, by their dilution
(docs/ar.md). Half of what the points are off by each, where that is less."""
TRIES: Final = 60_000
HYPOTHESES: Final = 12
QUERY_FEATURES: Final = 900
PRIOR_FEATURES: Final = 500
ICP_POINTS: Final = 2_500
FINAL_POINTS: Final = 3_500
SETTLING_STEPS: Final = 8
SETTLING_TUKEY: Final = 0.7
"""Steps of the last fit before the reach is at its least: without them where it ends hangs on where it began, by 5 mm (10 query frames, 4 beginnings each: docs/ar.md)."""
FINAL_STEPS: Final = 15
MOMENTUM: Final = 0.8
FINAL_TUKEY: Final = 0.4
FINAL_REACH: Final = 0.6
"""Of the last fit, in voxels: the distance from the surface at which a point counts no more, and how far around a point the surface is looked for."""
CLEAR_M: Final = 2.0
"""Farther from the camera, depth is noisier in proportion: weighted so, of 25 frames held out the median error fell from 1.28 to 1.04 cm (docs/ar.md)."""
MOST_THROUGH: Final = 0.08
"""Of two clouds, or a cloud and a map: of right poses at most 0.02 is seen through (0.11 where half of a cloud was cut away), of a street laid onto its mirror image 0.13.
A cloud that cannot tell is taken to see through as much."""
QUERY_THINNING: Final = 1.5
"""A query is thinned to this many voxels of the map: half the points to fit normals to, and no loss that was seen."""
MAX_TILES: Final = 3
"""Neighbourhoods of the map searched before the answer is "not known"."""

# Logistic weights of the chance to be right, fitted on 150 refined poses, right and wrong, of 7-Scenes frames in maps of other frames (docs/ar.md).
_FRAME: Final = (4.11, 3.0, 3.48, -4.8, -16.47)
"""Constant, overlap, met, through, error by voxel: right is 5 cm and 2 degrees."""
_CLOUD: Final = (-3.6, 2.0, -3.5, 1.9, -9.0)
"""Constant, overlap, error by voxel, logarithm of one more than the features that agree, through, where there is no camera: right is 10 cm and 3 degrees."""


@dataclass(frozen=True, slots=True)
class Prior:
    """The camera's position is within `radius_m` of `at_m` (3,), map frame: from radio, or from the last pose."""

    at_m: tuple[float, float, float]
    radius_m: float

    def __post_init__(self) -> None:
        if not (all(map(math.isfinite, self.at_m)) and 0 < self.radius_m <= 1000):
            raise InvalidInput(f"prior at {self.at_m} within {self.radius_m} m: must be finite, its radius above 0 and at most 1000 m")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured of a pose. `overlap`: share of the query's points on the map with agreeing normals; `met`, `through`: shares of the map's
    points in view that the camera met, and saw through (for clouds without a camera `met` is `overlap`, and `through` what they saw through from their origin); `rmse_m` of
    the points on the map; `stiffness`: the least constrained direction of the pose, 0 (slides) to 1; `rival`: how well the best other pose fits by this one's fit;
    `dilution`: how far the camera may stand off along its weakest direction for each metre that its points are off the surface (as the dilution of precision of satellites);
    `agreeing`: pairs of features, each the other's nearest, that the pose brings together."""

    overlap: float
    met: float
    through: float
    rmse_m: float
    stiffness: float
    rival: float
    dilution: float
    agreeing: int

    @property
    def common_m(self) -> float:
        """What all points are off by together, one standard deviation."""
        return min(COMMON_ERROR_M, self.rmse_m / 2)

    @property
    def spread_m(self) -> float:
        """One standard deviation of the camera's position along its weakest direction."""
        return self.common_m * self.dilution

    @property
    def loose(self) -> bool:
        """Whether what is seen holds the pose too loosely to tell it: within two standard deviations it may be wrong (half an image of flat things)."""
        return 2 * self.spread_m > RIGHT_M

    def chance(self, voxel_m: float, *, camera: bool) -> float:
        """The chance that the pose is right (5 cm and 2 degrees with a camera, 10 cm and 3 degrees without); 0 where the pose may slide, or another fits as well."""
        if self.stiffness < MIN_STIFFNESS or self.rival > TIED or not math.isfinite(self.rmse_m) or (camera and self.loose):
            return 0.0
        if not camera and self.through > MOST_THROUGH:
            return 0.0
        error = self.rmse_m / voxel_m
        seen = (1.0, self.overlap, self.met, self.through, error) if camera else (1.0, self.overlap, error, math.log1p(self.agreeing), self.through)
        total = sum(w * v for w, v in zip(_FRAME if camera else _CLOUD, seen, strict=True))
        within = math.erf(RIGHT_M / max(self.spread_m, 1e-9) / math.sqrt(2)) if camera else 1.0
        return within / (1 + math.exp(-max(-50.0, min(50.0, total))))


@dataclass(frozen=True, slots=True)
class Located:
    """`pose` is T_map_query with covariance; `chance` at least CONFIDENT, or CLOUD_CONFIDENT without a camera."""

    pose: Poses
    chance: float
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class NotLocated:
    """Not known; `best` is what came nearest, for a person to look at, never to be used as a pose."""

    reason: str
    best: Poses | None
    chance: float
    evidence: Evidence | None


@dataclass(frozen=True, slots=True)
class _Found:
    """A pose (3, 4) with what was measured of it; `looseness` (6, 6): of the last fit (`_looseness`)."""

    chance: float
    pose: F8
    evidence: Evidence
    looseness: F8


@dataclass(frozen=True, slots=True)
class _View:
    depth_m: F4
    camera: Camera


_Matches = tuple[F8, F8, F8, F8]


@dataclass(frozen=True, slots=True)
class _Ground:
    """What a query is held against: thinned points with features, the same points to search, and the finer surface to fit to."""

    cloud: Prepared
    grids: tuple[SurfaceGrid, ...]
    surfaces: tuple[SurfaceGrid, ...]
    from_origin: bool = False
    """Whether it was seen from about its own origin, as a cloud of one place."""

    def nearest(self, at: F8, within: float) -> tuple[F8, F8, F8]:
        """(distance (n,), point (n, 3), normal (n, 3)) of the nearest map point; distance inf where none is `within`."""
        best = np.full(len(at), np.inf)
        point, normal = np.zeros((len(at), 3)), np.zeros((len(at), 3))
        for grid in self.grids:
            distance, row = grid.nearest(at, within)
            better = np.flatnonzero(distance < best)
            best[better] = distance[better]
            point[better], normal[better] = grid.points[row[better]], grid.normals[row[better]]
        return best, point, normal


def localise_frame(
    where: SpatialMap, depth_m: npt.ArrayLike, camera: Camera, *, prior: Prior | None = None, seed: int = 0, far_m: float = 3.5
) -> Located | NotLocated:
    """The pose T_map_camera of a depth image in metres. Raises InvalidInput for what is no image of metres or shows under 500 points."""
    depth = checked_depth(depth_m)
    points = back_project(depth, camera, stride=3, near_m=0.3, far_m=far_m)
    return _localise(where, checked_points(points, what="depth frame"), _View(depth, camera), prior, seed, far_m)


def localise_cloud(where: SpatialMap, points: npt.ArrayLike, *, prior: Prior | None = None, seed: int = 0) -> Located | NotLocated:
    """The pose T_map_fragment of a cloud (n, 3) seen from about its own origin. Raises InvalidInput by the rules of `ar.clouds`."""
    p = checked_points(points)
    return _localise(where, p, None, prior, seed, float(np.linalg.norm(p, axis=1).max()))


def register(source: npt.ArrayLike, target: npt.ArrayLike, *, voxel_m: float | None = None, seed: int = 0) -> Located | NotLocated:
    """The pose T_target_source of two overlapping clouds, each seen from about its own origin; the voxel follows the smaller extent where not given."""
    a, b = checked_points(source, what="source"), checked_points(target, what="target")
    if voxel_m is None:
        voxel_m = min(0.4, max(0.02, min(float(np.linalg.norm(np.percentile(c, 98, axis=0) - np.percentile(c, 2, axis=0))) for c in (a, b)) / 200))
    cloud = prepare(*thin(b, voxel_m), voxel_m)
    fine = SurfaceGrid(*smooth_surface(*thin(b, FINE * voxel_m, wide=4 / FINE), FINE * voxel_m), SURFACE_CELL * voxel_m)
    ground = _Ground(cloud, (coarse_grid(cloud, voxel_m),), (fine,), from_origin=True)
    found = _search(ground, prepare(*thin(a, voxel_m), voxel_m), voxel_m, None, None, seed, 0.0)
    return _judged(found, CLOUD_CONFIDENT, camera=False)


def _localise(where: SpatialMap, points: F8, view: _View | None, prior: Prior | None, seed: int, reach_m: float) -> Located | NotLocated:
    voxel, enough = where.voxel_m, CLOUD_CONFIDENT if view is None else CONFIDENT
    thinned = thin(points, QUERY_THINNING * voxel, wide=4 / QUERY_THINNING)
    query = prepare(*thinned, voxel, most_features=QUERY_FEATURES if prior is None else PRIOR_FEATURES)
    best: _Found | None = None
    for keys in _neighbourhoods(where, query, prior, reach_m):
        ground = _gather(where, keys, prior, reach_m)
        if len(ground.cloud.features) < 3:
            continue
        found = _search(ground, query, voxel, view, prior, seed, reach_m)
        if found is not None and (best is None or found.chance > best.chance):
            best = found
        if best is not None and best.chance >= enough:
            break
    return _judged(best, enough, camera=view is not None)


def _neighbourhoods(where: SpatialMap, query: Prepared, prior: Prior | None, reach_m: float) -> list[list[TileKey]]:
    """Groups of tiles worth a search, most promising first: those in reach of the prior, or those whose features answer the query's."""
    if prior is not None:
        return [where.near(np.array(prior.at_m), prior.radius_m + reach_m)]
    if len(where.keys) <= 8:
        return [sorted(where.keys)]
    votes: dict[TileKey, float] = {}
    probe = query.features[:: max(1, len(query.features) // 200)]
    nearest = np.full(len(probe), np.inf, np.float32)
    holder = np.full(len(probe), -1)
    keys = sorted(where.keys)
    for i, key in enumerate(keys):
        features = where.tile(key).cloud.features
        if len(features):
            distance = _squares(probe, features).min(axis=1)
            better = distance < nearest
            nearest[better], holder[better] = distance[better], i
    for i, key in enumerate(keys):
        votes[key] = float((holder == i).sum())
    total = {key: sum(votes[k] for k in where.around(key)) + votes[key] for key in keys}
    order = sorted(keys, key=lambda key: (-total[key], key))
    groups: list[list[TileKey]] = []
    for key in order:
        group = where.around(key)
        if not any(set(group) <= set(other) for other in groups):
            groups.append(group)
        if len(groups) == MAX_TILES:
            break
    return groups


def _gather(where: SpatialMap, keys: list[TileKey], prior: Prior | None, reach_m: float) -> _Ground:
    tiles = [where.tile(key) for key in keys]
    clouds = [t.cloud for t in tiles if len(t.cloud.points)]
    if not clouds:
        empty = np.zeros((0, 3), np.float32)
        return _Ground(Prepared(empty, empty, empty, empty, np.zeros((0, 33), np.float32)), (), ())
    columns = [np.concatenate([getattr(c, name) for c in clouds]) for name in ("points", "normals", "feature_points", "feature_normals", "features")]
    if prior is not None:
        near = np.linalg.norm(columns[2] - np.array(prior.at_m, np.float32), axis=1) <= prior.radius_m + reach_m
        columns[2:] = [c[near] for c in columns[2:]]
    held = [t for t in tiles if len(t.cloud.points)]
    return _Ground(Prepared(*columns), tuple(t.grid for t in held), tuple(t.surface for t in held))


def _squares(a: F4, b: F4) -> F4:
    """Squared distances (n, m) of feature rows, less the part that only the row of `a` decides."""
    s = a @ b.T
    s *= -2
    s += (b * b).sum(axis=1)
    return s


def _matches(query: Prepared, ground: Prepared) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows of query and ground features that are each other's nearest."""
    s = _squares(query.features, ground.features)
    there = s.argmin(axis=1)
    s += (query.features * query.features).sum(axis=1)[:, None]
    back = np.ascontiguousarray(s.T).argmin(axis=1)
    rows = np.flatnonzero(back[there] == np.arange(len(there)))
    return rows, there[rows]


def _search(ground: _Ground, query: Prepared, voxel: float, view: _View | None, prior: Prior | None, seed: int, reach_m: float) -> _Found | None:
    rows, there = _matches(query, ground.cloud)
    if len(rows) < 10:
        return None
    from_points, from_normals = query.feature_points[rows].astype(np.float64), query.feature_normals[rows].astype(np.float64)
    to_points, to_normals = ground.cloud.feature_points[there].astype(np.float64), ground.cloud.feature_normals[there].astype(np.float64)
    at = np.zeros(3) if prior is None else np.array(prior.at_m, np.float64)
    radius = -1.0 if prior is None else prior.radius_m + 5 * voxel
    keep = HYPOTHESES if prior is None else HYPOTHESES // 2
    poses, votes = sample_poses(from_points, from_normals, to_points, to_normals, TRIES, keep, 5 * voxel, 15 * voxel, at, radius, seed)
    poses, votes = poses[votes >= 4], votes[votes >= 4]
    if not len(poses):
        return None
    matches = (from_points, from_normals, to_points, to_normals)
    step = max(1, -(-len(query.points) // ICP_POINTS))
    points, normals = query.points[::step].astype(np.float64), query.normals[::step].astype(np.float64)
    few, few_normals = points[::5], normals[::5]
    ranked = [_roughly(ground, few, few_normals, pose, view, voxel, reach_m) for pose in poses]
    if view is None:
        best = max(ranked, key=lambda one: one[0])[1]
        twins = _twins(best, _middle(best, points), _middle(_NOWHERE, ground.cloud.points))
        ranked += [_roughly(ground, few, few_normals, twin, view, voxel, reach_m) for twin in twins]
    ranked.sort(key=lambda entry: -entry[0] - _agreeing(matches, entry[1], voxel) / len(rows))
    pose, rival = _best_and_rival(ground, points, normals, matches, ranked, view, voxel, reach_m)
    pose, looseness = _fit(ground.surfaces, query, pose, voxel, None if view is None else CLEAR_M)
    overlap, rmse = _overlap(ground, points, normals, pose, 2.5 * voxel)
    met, through = _seen(ground, pose, view, voxel, reach_m, 2) if view else (overlap, _through(ground, query, pose, voxel))
    dilution = math.sqrt(max(0.0, float(np.linalg.eigvalsh(looseness[:3, :3])[-1])))
    agreeing = _agreeing(matches, pose, voxel)
    evidence = Evidence(overlap, met, through, rmse, _stiffness(ground, points, normals, pose, voxel), rival, dilution, agreeing)
    return _Found(evidence.chance(voxel, camera=view is not None), pose, evidence, looseness)


_NOWHERE: Final[F8] = np.eye(3, 4)


def _agreeing(matches: _Matches, pose: F8, voxel: float) -> int:
    """How many of the matches (points and normals of the query's features, then of the map's, (m, 3) each) a pose brings together."""
    here, facing, there, facing_there = matches
    off = np.linalg.norm(here @ pose[:, :3].T + pose[:, 3] - there, axis=1)
    return int(np.count_nonzero((off < 5 * voxel) & ((facing @ pose[:, :3].T * facing_there).sum(axis=1) > 0.7)))


def _through(ground: _Ground, query: Prepared, pose: F8, voxel: float) -> float:
    """Share of the one cloud's points that the other looked through, the greater of both ways; of a map, which was seen from many places, only what the query looked through.
    MOST_THROUGH where neither can say."""
    here, there = query.points.astype(np.float64), ground.cloud.points.astype(np.float64)
    asked = [(here, (there - pose[:, 3]) @ pose[:, :3])]
    if ground.from_origin:
        asked.append((there, here @ pose[:, :3].T + pose[:, 3]))
    seen = [(Sight(cloud, 5 * voxel), other) for cloud, other in asked]
    shares = [share for sight, other in seen if sight.told and (share := sight.through(other)) is not None]
    return max(shares, default=MOST_THROUGH)


def _roughly(ground: _Ground, few: F8, few_normals: F8, pose: F8, view: _View | None, voxel: float, reach_m: float) -> tuple[float, F8]:
    """(score, pose) of a pose refined by few points."""
    refined = _refine(ground, few, few_normals, pose, (7 * voxel, 5 * voxel, 5 * voxel, 4 * voxel, 4 * voxel))
    return _overlap(ground, few, few_normals, refined, 3 * voxel)[0] - _seen(ground, refined, view, voxel, reach_m, 8)[1], refined


def _middle(pose: F8, points: npt.NDArray[np.floating]) -> F8:
    """The middle of what moved points span, (3,)."""
    moved = points @ pose[:, :3].T + pose[:, 3]
    low, high = np.percentile(moved, (1, 99), axis=0)
    return np.asarray((low + high) / 2, np.float64)


def _twins(pose: F8, here: F8, there: F8) -> list[F8]:
    """Poses that a room of four walls may be taken for: turned about the upright by quarters, through what the query spans (`here`, moved), through what the map spans
    (`there`), and brought from the one to the other."""
    found = []
    for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        ends = [there] if c == 1 else [here, there]
        found += [np.concatenate([turn @ pose[:, :3], (turn @ (pose[:, 3] - here) + end)[:, None]], axis=1) for end in ends]
        if c != 1:
            found.append(np.concatenate([turn @ pose[:, :3], (turn @ (pose[:, 3] - there) + there)[:, None]], axis=1))
    return found


def _best_and_rival(
    ground: _Ground, points: F8, normals: F8, matches: _Matches, ranked: list[tuple[float, F8]], view: _View | None, voxel: float, reach_m: float
) -> tuple[F8, float]:
    """The best of the ranked poses, refined, and how well the best that is another fits by it: 1, or more, where a room looks the same from both.

    Scores of coarse poses are coarse: another is refined too where it comes near, and may turn out to be the better one. Which is the better one is decided by the features that
    agree too: where little overlaps, a wrong pose may cover as much as the right one, but does not bring features together. How well it fits is asked of the surfaces alone.
    """
    reaches = (3 * voxel, 2 * voxel, 2 * voxel)
    best = _refine(ground, points, normals, ranked[0][1], reaches)
    other = next(((score, pose) for score, pose in ranked[1:] if _differ(ranked[0][1], pose, 10 * voxel)), None)
    if other is None:
        return best, 0.0
    if other[0] < NEARLY * ranked[0][0]:
        return best, max(0.0, other[0] / max(ranked[0][0], 1e-9))
    second = _refine(ground, points, normals, other[1], reaches)
    if not _differ(best, second, 5 * voxel):
        return best, 0.0
    scores = [_overlap(ground, points, normals, p, 1.5 * voxel)[0] - _seen(ground, p, view, voxel, reach_m, 4)[1] for p in (best, second)]
    agreeing = [_agreeing(matches, p, voxel) / len(matches[0]) for p in (best, second)]
    if scores[1] + agreeing[1] > scores[0] + agreeing[0]:
        best, scores = second, scores[::-1]
    return best, max(0.0, scores[1] / max(scores[0], 1e-9))


def _differ(a: F8, b: F8, metres: float) -> bool:
    return bool(np.linalg.norm(a[:, 3] - b[:, 3]) > metres or np.trace(a[:, :3].T @ b[:, :3]) < 1 + 2 * math.cos(math.radians(10)))


def _pairs(ground: _Ground, points: F8, normals: F8, pose: F8, within: float) -> tuple[npt.NDArray[np.intp], F8, F8, F8]:
    """(rows, moved points, map points, map normals) of the points that have one within reach with a normal within 45 degrees."""
    moved, turned = points @ pose[:, :3].T + pose[:, 3], normals @ pose[:, :3].T
    distance, target, facing = ground.nearest(moved, within)
    rows = np.flatnonzero(np.isfinite(distance) & ((turned * facing).sum(axis=1) > 0.7))
    return rows, moved[rows], target[rows], facing[rows]


def _normal_equations(moved: F8, target: F8, facing: F8, within: float) -> tuple[F8, F8, F8]:
    """(jacobian (n, 6) translation then rotation about the points' middle, residual (n,), Tukey weights (n,))."""
    residual = ((moved - target) * facing).sum(axis=1)
    jacobian = np.concatenate([facing, np.cross(moved - moved.mean(axis=0), facing)], axis=1)
    return jacobian, residual, np.square(np.clip(1 - np.square(residual / within), 0, None))


def _refine(ground: _Ground, points: F8, normals: F8, pose: F8, reaches: tuple[float, ...]) -> F8:
    """Point-to-plane ICP, one Gauss-Newton step with Tukey weights for each reach."""
    for within in reaches:
        rows, moved, target, facing = _pairs(ground, points, normals, pose, within)
        if len(rows) < 12:
            return pose
        jacobian, residual, weight = _normal_equations(moved, target, facing, within)
        weighted = jacobian * weight[:, None]
        system = weighted.T @ jacobian + 1e-9 * len(rows) * np.eye(6)
        step = np.asarray(np.linalg.solve(system, -weighted.T @ residual), np.float64)
        if np.linalg.norm(step[3:]) > 0.5:
            return pose
        pose = _moved(pose, step, moved.mean(axis=0))
    return pose


def _moved(pose: F8, step: F8, middle: F8) -> F8:
    """The pose after a step (6,): a translation, and a rotation about `middle` (3,)."""
    turn = Poses.exp(np.concatenate([np.zeros(3), step[3:]])).matrix()[0, :3, :3]
    return np.concatenate([turn @ pose[:, :3], (turn @ (pose[:, 3] - middle) + middle + step[:3])[:, None]], axis=1)


def _fit(surfaces: tuple[SurfaceGrid, ...], query: Prepared, pose: F8, voxel: float, clear_m: float | None) -> tuple[F8, F8]:
    """The pose fitted to the surface itself, until it stands still, and how loosely it is held there (`_looseness`): Gauss-Newton, carried on by MOMENTUM of the step before,
    since a pose creeps along what hardly holds it. Beyond `clear_m` from the camera a point counts as noisier in proportion (`ar.registration_kernels.fit_step`); None: nowhere.

    A point at the border of two tiles counts twice.
    """
    looseness: F8 = np.eye(6) * 1e6
    step = max(1, -(-len(query.points) // FINAL_POINTS))
    cubes = np.floor(query.points[::step] / (5 * voxel)).astype(np.int64)
    near = np.lexsort(cubes.T)  # neighbours after one another find the same part of the map in the processor's cache
    points, normals = query.points[::step][near].astype(np.float64), query.normals[::step][near].astype(np.float64)
    scale: F8 = np.ones(len(points)) if clear_m is None else np.maximum(1.0, np.linalg.norm(points, axis=1) / clear_m)
    middle: F8 = points.mean(axis=0)
    before: F8 = np.zeros(6)
    for number, tukey in enumerate((1.5, 1.0) + (SETTLING_TUKEY,) * SETTLING_STEPS + (FINAL_TUKEY,) * FINAL_STEPS):
        sums = [s.step(points, normals, scale, pose, within_m=max(tukey, FINAL_REACH) * voxel, tukey_m=tukey * voxel) for s in surfaces]
        used = sum(count for _, _, count in sums)
        if used < 50:
            return pose, looseness
        system = sum((matrix for matrix, _, _ in sums), 1e-9 * used * np.eye(6))
        change: F8 = np.asarray(np.linalg.solve(system, sum((right for _, right, _ in sums), np.zeros(6))), np.float64)
        if number >= 3:
            change += MOMENTUM * before
        if np.linalg.norm(change[:3]) > 10 * voxel or np.linalg.norm(change[3:]) > 0.2:
            return pose, looseness
        looseness = _looseness(system, pose, middle)
        pose, before = _moved(pose, change, pose[:, :3] @ middle + pose[:, 3]), change
        if number > 2 + SETTLING_STEPS and np.linalg.norm(change[:3]) < 0.002 * voxel and np.linalg.norm(change[3:]) < 4e-5:
            break
    return pose, looseness


def _looseness(system: F8, pose: F8, middle: F8) -> F8:
    """Covariance (6, 6) of a pose as a twist in its own frame, translation then rotation, were its points off the surface by 1 m, one standard deviation, and all together.

    `system` (6, 6): the normal equations of weighted points, of a translation and a rotation about the moved `middle` (3,) of the points.
    """
    back = pose[:, :3].T
    to_origin = np.eye(6)
    to_origin[:3, 3:] = skew(pose[:, :3] @ middle)  # the origin moves by t + w x (origin - middle)
    turned = np.zeros((6, 6))
    turned[:3, :3] = turned[3:, 3:] = back
    carried = turned @ to_origin
    weight = np.trace(system[:3, :3])  # of all points: normals are of length 1
    return np.asarray(weight * carried @ np.linalg.solve(system, carried.T), np.float64)


def _overlap(ground: _Ground, points: F8, normals: F8, pose: F8, within: float) -> tuple[float, float]:
    rows, moved, target, facing = _pairs(ground, points, normals, pose, within)
    rmse = float(np.sqrt(np.mean(np.square(((moved - target) * facing).sum(axis=1))))) if len(rows) else math.inf
    return len(rows) / len(points), rmse


def _seen(ground: _Ground, pose: F8, view: _View | None, voxel: float, reach_m: float, step: int) -> tuple[float, float]:
    """Shares of the map's points in view that the camera met, and saw through; 0, 0 without a camera, 0, 1 with nothing in view."""
    if view is None:
        return 0.0, 0.0
    back = np.concatenate([pose[:, :3].T, -(pose[:, :3].T @ pose[:, 3])[:, None]], axis=1)
    c = view.camera
    points, normals = (np.ascontiguousarray(a[::step]) for a in (ground.cloud.points, ground.cloud.normals))
    seen, through, met = seen_through(points, normals, back, view.depth_m, c.fx, c.fy, c.cx, c.cy, 5 * voxel, reach_m)
    return (met / seen, through / seen) if seen >= 50 else (0.0, 1.0)


def _information(ground: _Ground, points: F8, normals: F8, pose: F8, voxel: float) -> tuple[F8, float, int] | None:
    rows, moved, target, facing = _pairs(ground, points, normals, pose, 2.5 * voxel)
    if len(rows) < 12:
        return None
    jacobian, residual, weight = _normal_equations(moved, target, facing, 2.5 * voxel)
    spread = float(np.sqrt(np.mean(np.sum(np.square(moved - moved.mean(axis=0)), axis=1))))
    jacobian = jacobian.copy()
    jacobian[:, 3:] /= max(spread, 1e-9)
    return jacobian.T @ (jacobian * weight[:, None]), float(np.mean(np.square(residual))), len(rows)


def _stiffness(ground: _Ground, points: F8, normals: F8, pose: F8, voxel: float) -> float:
    """Least eigenvalue of the normal equations a point, with turns counted at the cloud's own radius: 1/6 would be even, 0 slides."""
    found = _information(ground, points, normals, pose, voxel)
    return 0.0 if found is None else float(np.linalg.eigvalsh(found[0])[0] / found[2])


def _judged(found: _Found | None, enough: float, *, camera: bool) -> Located | NotLocated:
    if found is None:
        return NotLocated("too few features of the query answer to the map", None, 0.0, None)
    chance, matrix, evidence = found.chance, found.pose, found.evidence
    # The rotation is a product of few small turns: square to 1e-12 or so.
    pose = Poses.of(
        matrix[:, 3],
        quaternion_of(matrix[:, :3]),
        evidence.common_m**2 * found.looseness if camera and math.isfinite(evidence.rmse_m) else _covariance(evidence),
    )
    if chance >= enough:
        return Located(pose, chance, evidence)
    if evidence.stiffness < MIN_STIFFNESS:
        return NotLocated("the query is too plain: it could slide along what it shows", pose, chance, evidence)
    if camera and evidence.loose:
        return NotLocated(f"what is seen holds the camera's position within {200 * evidence.spread_m:.0f} cm only", pose, chance, evidence)
    if evidence.rival > TIED:
        return NotLocated("another pose fits as well: the place looks alike from both", pose, chance, evidence)
    view = f"{evidence.met:.0%} of the map in view met" if camera else f"{evidence.agreeing} features that agree"
    reason = f"the best pose has {evidence.overlap:.0%} of the query on the map, {view}, {evidence.through:.0%} seen through"
    return NotLocated(reason, pose, chance, evidence)


def _covariance(evidence: Evidence) -> F8:
    """A cautious diagonal: the fit's error over the root of its stiffness, as the errors of one depth frame are common to its points."""
    spread = min(1.0, evidence.rmse_m if math.isfinite(evidence.rmse_m) else 1.0) / math.sqrt(max(evidence.stiffness, 1e-3) * 6)
    return np.asarray(np.diag([spread**2] * 3 + [(spread / 1.5) ** 2] * 3), np.float64)
