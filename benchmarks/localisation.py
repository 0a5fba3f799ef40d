"""Cameras placed in a map of real frames, and pairs of clouds: how many well, how many refused, how many wrong and confident; and what a map ten times larger costs.

Needs ESPLANADE_DATA (`rgbd_7scenes`, `point_clouds`). There is no peer: the truth is the given poses. Parts (`--part`; `all` of them by default, `--n` questions of each at most):

- `query`: the query frames in the map of all mapping frames, without a prior and with one of 0.5 m, drawn in that ball with a seed;
- `held_out`: mapping frames in maps of the others: of every second, of seven in ten, of every fifth, of the first half alone;
- `spoilt`: query frames of which a part is cut off, a person stands before the camera, or the depth is noisy or missing;
- `elsewhere`: frames of another place, which is this one in a mirror, which nothing answers rightly, and frames with a prior that is wrong;
- `pairs`: the given pairs both ways, whole and cut, and clouds of five frames of the room against each other (that overlap by 0.15 at least; those by less count
  only where they are wrong);
- `larger`: the same frames in a map of the room and in one with nine more places (the room mirrored, at nine sizes), interleaved.

A frame is right within 5 cm and 2 degrees, a pair within 10 cm and 3 degrees. Time is the thread's processor time, of one thread; kernels are compiled and the map is held before.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from ar.clouds import F4, F8, Camera, back_project, open3d, thin
from ar.localisation import Located, NotLocated, Prior, localise_frame, register
from ar.maps import MapBuilder, SpatialMap
from ar.pose import Poses
from esplanade.core.errors import NotFound

CAMERA: Final = Camera(585.0, 585.0, 320.0, 240.0)
MIRRORED: Final = Camera(585.0, 585.0, 319.0, 240.0)
FRAME_RIGHT: Final = (0.05, 2.0)
PAIR_RIGHT: Final = (0.10, 3.0)
PRIOR_M: Final = 0.5
PLACES: Final = 9
SHARED: Final = 0.15
"""Of a cloud's points, those within 5 cm of the other, for a pair to be asked for an answer."""

Answer = Located | NotLocated
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Frame:
    name: str
    depth_m: F4
    pose: Poses


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question: what was answered, off by how much (metres, degrees; None where nothing is right), in how much of the processor's time."""

    answer: Answer
    off: tuple[float, float] | None
    took_s: float

    def within(self, right: tuple[float, float]) -> bool:
        return self.off is not None and self.off[0] <= right[0] and self.off[1] <= right[1]


def run(*, n: int = 1_000, repeats: int = 5, part: str = "all") -> None:
    """`n`: most questions of a kind; `repeats`: of `larger`."""
    data = Path(os.environ.get("ESPLANADE_DATA", "none"))
    if not (data / "rgbd_7scenes").is_dir():
        raise NotFound(f"benchmark localisation: no folder rgbd_7scenes in {data}; name the folder of real data by ESPLANADE_DATA")
    open3d().utility.set_verbosity_level(open3d().utility.VerbosityLevel.Error)
    mapping, asked = (_frames(data / "rgbd_7scenes" / name) for name in ("map", "query_dev"))
    parts: dict[str, Callable[[], dict[str, object]]] = {
        "query": lambda: _query(mapping, asked, n),
        "held_out": lambda: _held_out(mapping, asked, n),
        "spoilt": lambda: _spoilt(mapping, asked, n),
        "elsewhere": lambda: _elsewhere(mapping, asked, n),
        "pairs": lambda: _pairs(data / "point_clouds", mapping, n),
        "larger": lambda: _larger(mapping, asked, n, repeats),
    }
    if part not in (*parts, "all"):
        raise NotFound(f"benchmark localisation: part {part!r}; must be one of {', '.join(parts)} or all")
    results = {name: work() for name, work in parts.items() if part in (name, "all")}
    print(json.dumps({"name": "localisation", **results}))


def _frames(folder: Path) -> list[Frame]:
    found = []
    for path in sorted(folder.glob("*.depth.png")):
        pose = Poses.from_matrix(np.loadtxt(str(path).replace("depth.png", "pose.txt")), tolerance=1e-2)
        found.append(Frame(path.name.split(".")[0], (np.asarray(open3d().io.read_image(str(path))) / 1000).astype(np.float32), pose))
    return found


def _map(frames: Sequence[Frame]) -> SpatialMap:
    builder = MapBuilder()
    for frame in frames:
        builder.add_frame(frame.depth_m, CAMERA, frame.pose)
    return builder.build()


def _timed(ask: Callable[[], Answer], truth: Poses | None) -> _Asked:
    began = time.thread_time()
    answer = ask()
    took = time.thread_time() - began
    pose = answer.pose if isinstance(answer, Located) else answer.best
    if truth is None or pose is None:
        return _Asked(answer, None, took)
    metres, radians = truth.distance(pose)
    return _Asked(answer, (float(metres[0]), float(np.degrees(radians[0]))), took)


def _ask(where: SpatialMap, frame: Frame, depth_m: F4 | None = None, prior: Prior | None = None) -> _Asked:
    return _timed(lambda: localise_frame(where, frame.depth_m if depth_m is None else depth_m, CAMERA, prior=prior), frame.pose)


def _told(kind: str, asked: Sequence[_Asked], right: tuple[float, float] = FRAME_RIGHT) -> dict[str, object]:
    """Prints and returns the counts of one kind."""
    placed = [one for one in asked if isinstance(one.answer, Located)]
    off = [100 * one.off[0] for one in placed if one.off is not None]
    wrong = [one for one in placed if not one.within(right)]
    refused = [one for one in asked if not isinstance(one.answer, Located)]
    told: dict[str, object] = {
        "n": len(asked),
        "placed": len(placed) - len(wrong),
        "refused": len(refused),
        "refused_though_right": sum(one.within(right) for one in refused),
        "wrong_and_confident": len(wrong),
        "median_cm": round(statistics.median(off), 2) if off else None,
        "worst_cm": round(max(off), 2) if off else None,
        "median_s": round(statistics.median(one.took_s for one in asked), 3) if asked else None,
        "longest_s": round(max(one.took_s for one in asked), 3) if asked else None,
    }
    print(f"{kind:34}", ", ".join(f"{name} {value}" for name, value in told.items()), flush=True)
    return told


def _prior(frame: Frame, off_m: npt.ArrayLike) -> Prior:
    x, y, z = (float(v) for v in frame.pose.translation_m[0] + np.asarray(off_m))
    return Prior((x, y, z), PRIOR_M)


def _somewhere(chance: np.random.Generator) -> F8:
    """A point of the ball of PRIOR_M, (3,)."""
    way = chance.normal(size=3)
    return np.asarray(way / np.linalg.norm(way) * PRIOR_M * chance.random() ** (1 / 3), np.float64)


def _query(mapping: Sequence[Frame], asked: Sequence[Frame], n: int) -> dict[str, object]:
    where, chance = _map(mapping), np.random.default_rng(1)
    _ask(where, asked[0]), _ask(where, asked[0], prior=_prior(asked[0], (0, 0, 0)))
    bare = [_ask(where, frame) for frame in asked[:n]]
    near = [_ask(where, frame, prior=_prior(frame, _somewhere(chance))) for frame in asked[:n]]
    return {"bare": _told("query", bare), "prior": _told("query, prior", near)}


def _held_out(mapping: Sequence[Frame], asked: Sequence[Frame], n: int) -> dict[str, object]:
    chance = np.random.default_rng(2)
    kinds = {
        "every second": (mapping[::2], mapping[1::2]),
        "the other second": (mapping[1::2], mapping[::2]),
        "seven in ten": ([f for i, f in enumerate(mapping) if i % 10 not in (2, 5, 8)], [f for i, f in enumerate(mapping) if i % 10 in (2, 5, 8)]),
        "every fifth": (mapping[::5], [f for i, f in enumerate(mapping) if i % 5 in (2, 3)]),
        "the first half": (mapping[: len(mapping) // 2], [*mapping[len(mapping) // 2 :], *asked]),
    }
    told: dict[str, object] = {}
    for kind, (known, left) in kinds.items():
        where, some = _map(known), _some(left, n)
        told[kind] = _told(f"held out, map of {kind}", [_ask(where, frame) for frame in some])
        if kind == "every second":
            told["prior"] = _told("held out, with a prior", [_ask(where, frame, prior=_prior(frame, _somewhere(chance))) for frame in some])
    return told


def _some(of: Sequence[_T], n: int) -> Sequence[_T]:
    """At most about n, spread over all."""
    return of[:: max(1, -(-len(of) // n))]


def _kept(depth_m: F4, rows: tuple[float, float], columns: tuple[float, float]) -> F4:
    kept = np.zeros_like(depth_m)
    at = tuple(slice(int(low * side), int(high * side)) for (low, high), side in zip((rows, columns), depth_m.shape, strict=True))
    kept[at] = depth_m[at]
    return kept


def _noisy(depth_m: F4, chance: np.random.Generator) -> F4:
    """3 mm a square metre of distance, each pixel by itself."""
    return np.where(depth_m > 0, np.maximum(depth_m + chance.normal(0, 0.003, depth_m.shape) * depth_m**2, 0.01), 0).astype(np.float32)


def _person(depth_m: F4, chance: np.random.Generator) -> F4:
    """Somebody half a metre wide at 1.2 m before the camera."""
    middle, top = chance.uniform(100, 540), int(chance.uniform(0, 150))
    across = (np.arange(depth_m.shape[1]) - middle) / (0.25 * CAMERA.fx / 1.2)
    body = np.where(np.abs(across) < 1, 1.2 - 0.2 * np.sqrt(np.clip(1 - across**2, 0, None)), np.inf)[None, :]
    seen = depth_m.copy()
    below = seen[top:]
    seen[top:] = np.where((body < below) | ((below == 0) & np.isfinite(body)), np.minimum(body, 200), below)
    return seen


def _spoilt(mapping: Sequence[Frame], asked: Sequence[Frame], n: int) -> dict[str, object]:
    where, chance = _map(mapping), np.random.default_rng(3)
    ways: dict[str, Callable[[F4], F4]] = {
        "left half": lambda d: _kept(d, (0, 1), (0, 0.5)),
        "right half": lambda d: _kept(d, (0, 1), (0.5, 1)),
        "upper half": lambda d: _kept(d, (0, 0.5), (0, 1)),
        "lower half": lambda d: _kept(d, (0.5, 1), (0, 1)),
        "the middle": lambda d: _kept(d, (0.2, 0.8), (0.2, 0.8)),
        "noise": lambda d: _noisy(d, chance),
        "70 % missing": lambda d: np.where(chance.random(d.shape) < 0.7, 0, d).astype(np.float32),
        "a person": lambda d: _person(d, chance),
    }
    return {kind: _told(kind, [_ask(where, frame, way(frame.depth_m)) for frame in asked[:n]]) for kind, way in ways.items()}


def _elsewhere(mapping: Sequence[Frame], asked: Sequence[Frame], n: int) -> dict[str, object]:
    where = _map(mapping)
    some = _some([*asked, *mapping[::3]], n)

    def turned(frame: Frame) -> _Asked:
        return _timed(lambda: localise_frame(where, np.ascontiguousarray(frame.depth_m[:, ::-1]), MIRRORED), None)

    mirrored = [turned(frame) for frame in some]
    astray = [_ask(where, frame, prior=_prior(frame, (1.3, 0.5, -0.8))) for frame in some]
    return {"mirrored": _told("frames of a mirrored room", mirrored), "prior": _told("a prior 1.6 m off", astray)}


def _cloud(frames: Sequence[Frame]) -> F8:
    """Points of several frames, in the first one's camera."""
    base = frames[0].pose.inverse_mean()
    points = [(base @ f.pose).apply(back_project(f.depth_m, CAMERA, stride=2, near_m=0.3, far_m=3.5)) for f in frames]
    return thin(np.concatenate(points), 0.006)[0]


def _shared(source: F8, target: F8, truth: Poses) -> float:
    from scipy.spatial import cKDTree

    distance, _ = cKDTree(target).query(truth.apply(source[::10]), distance_upper_bound=0.05)
    return float(np.isfinite(distance).mean())


def _cuts(points: F8) -> Iterator[F8]:
    """The cloud, and the lower and the upper half of it along each axis."""
    yield points
    for axis in range(3):
        middle = np.median(points[:, axis])
        yield points[points[:, axis] <= middle]
        yield points[points[:, axis] > middle]


def _pair(source: F8, target: F8, truth: Poses) -> _Asked:
    return _timed(lambda: register(source, target), truth)


def _pairs(folder: Path, mapping: Sequence[Frame], n: int) -> dict[str, object]:
    told: dict[str, object] = {}
    kitchen, street = folder / "3dmatch_redkitchen_0_4", folder / "kitti_small_gicp"
    given = {
        "3DMatch": (kitchen / "cloud_bin_4.ply", kitchen / "cloud_bin_0.ply", kitchen / "T_0_from_4.txt"),
        "KITTI": (street / "source.ply", street / "target.ply", street / "T_target_source.txt"),
    }
    for name, (a, b, t) in given.items():
        source, target = (np.asarray(open3d().io.read_point_cloud(str(path)).points) for path in (a, b))
        truth = Poses.from_matrix(np.loadtxt(t), tolerance=1e-2)
        ways = [(cut, target, truth) for cut in _cuts(source)] + [(cut, source, truth.inverse_mean()) for cut in _cuts(target)]
        told[name] = _told(f"pairs, {name}", [_pair(*way) for way in _some(ways, n)], PAIR_RIGHT)
    groups = [mapping[i : i + 5] for i in range(0, len(mapping) - 4, 7)]
    clouds = [_cloud(group) for group in groups]
    enough: list[_Asked] = []
    apart: list[_Asked] = []
    for i, j in _some([(i, j) for i in range(len(groups)) for j in range(len(groups)) if i != j], n):
        truth = groups[j][0].pose.inverse_mean() @ groups[i][0].pose
        asked = _pair(clouds[i], clouds[j], truth)
        (enough if _shared(clouds[i], clouds[j], truth) >= SHARED else apart).append(asked)
    told["room"] = _told("pairs, five frames each", enough, PAIR_RIGHT)
    told["apart"] = _told("pairs, five frames, hardly shared", apart, PAIR_RIGHT)
    return told


def _larger(mapping: Sequence[Frame], asked: Sequence[Frame], n: int, repeats: int) -> dict[str, object]:
    small = _map(mapping)
    surface = np.concatenate([small.tile(key).surface.points for key in sorted(small.keys)]).astype(np.float64)
    builder = MapBuilder()
    for frame in mapping:
        builder.add_frame(frame.depth_m, CAMERA, frame.pose)
    middle = surface.mean(axis=0)
    for place in range(PLACES):
        mirrored = (surface - middle) * (0.8 + 0.05 * place) * (-1, 1, 1)
        builder.add_cloud(mirrored, Poses.of(middle + np.array([40.0 * (1 + place % 3), 40.0 * (place // 3), 0.0]), (0.0, 0.0, 0.0, 1.0)))
    large = builder.build()
    some = _some(asked, min(n, 5))
    times: tuple[list[float], list[float]] = ([], [])
    answers: tuple[list[_Asked], list[_Asked]] = ([], [])
    for turn in range(repeats + 1):
        for frame in some:
            for which, where in enumerate((small, large)):
                answers[which].append(_ask(where, frame))
                if turn:
                    times[which].append(answers[which][-1].took_s)
    ratio = statistics.median(times[1]) / statistics.median(times[0])
    print(f"{len(large.keys)} tiles against {len(small.keys)}: {ratio:.2f} times the time", flush=True)
    told = [_told(name, found) for name, found in zip(("the room alone", "with nine other places"), answers, strict=True)]
    return {"tiles": [len(small.keys), len(large.keys)], "ratio": round(ratio, 3), "small": told[0], "large": told[1]}
