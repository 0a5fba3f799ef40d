"""OGC GeoPose 1.0 in and out: Basic-YPR, Basic-Quaternion, Advanced, Chain, Graph, Regular and Irregular Series.

Owns the JSON forms of OGC 21-056r11 and nothing of what a pose is for. Poses are `T_enu_body`: the outer frame is the plane that touches the
ellipsoid at the given point (LTP-ENU: x east, y north, z up), heights are above the ellipsoid. A quaternion object is x, y, z, w; the text
`rotation=[...]` of an inner frame is w, x, y, z, as the standard's own examples have it. Yaw, pitch and roll are degrees about the turned
z, y and x axes in that order: a positive pitch lowers the nose (8.2 of the standard), so 0, 0, 0 looks east.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ar.frames import FrameGraph
from ar.pose import F8, Poses, checked_quaternions, exp_rotation, matrix_of, multiply, quaternion_of
from esplanade.core.errors import InvalidInput
from spatial.frames import Frame
from spatial.venue import Origin

AUTHORITY: Final = "/geopose/1.0"
OUTER_IDS: Final = frozenset({"LTP-ENU", "/Extrinsic/LTP-ENU"})
INNER_IDS: Final = frozenset({"RotateTranslate", "/Intrinsic/Translate-Rotate"})
MAX_POSES: Final = 100_000
"""Poses or frames in one document; a longer series is several documents."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_OUTER = re.compile(rf"longitude=({_NUMBER})&latitude=({_NUMBER})&height=({_NUMBER})(?:&crs=EPSG:4979)?")
_INNER = re.compile(
    rf"translation=\[\s*({_NUMBER}),\s*({_NUMBER}),\s*({_NUMBER})\s*\]&rotation=\[\s*({_NUMBER}),\s*({_NUMBER}),\s*({_NUMBER}),\s*({_NUMBER})\s*\]"
)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TangentPoint:
    """Where an outer frame touches the Earth: degrees and metres above the ellipsoid."""

    lat_deg: float
    lon_deg: float
    height_m: float

    def __post_init__(self) -> None:
        if not (abs(self.lat_deg) <= 90 and abs(self.lon_deg) <= 180 and abs(self.height_m) <= 1e7):
            raise InvalidInput(
                f"GeoPose at latitude {self.lat_deg}, longitude {self.lon_deg}, height {self.height_m}: must be within 90, 180 degrees and 1e7 m"
            )


@dataclass(frozen=True, slots=True)
class Located:
    """One pose at a tangent point: what the two Basic forms, Advanced and Chain say. `valid_ms` is Unix time in milliseconds, or None."""

    at: TangentPoint
    pose: Poses
    valid_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """n poses in one outer frame at `times_ms` (n,); regular where all steps are equal. `transition` is "none" or "interpolate"."""

    at: TangentPoint
    poses: Poses
    times_ms: tuple[int, ...]
    transition: str = "none"


@dataclass(frozen=True, slots=True)
class Graph:
    """Frames of a Graph: the first at a tangent point, the others by pose; `links` are (outer, inner) indices, each inner frame named once."""

    at: TangentPoint
    poses: Poses
    links: tuple[tuple[int, int], ...]
    valid_ms: int | None = None

    def frames(self) -> FrameGraph:
        """The same frames as a graph named "0", "1", ...; raises Conflict where the links close a cycle."""
        graph = FrameGraph()
        for outer, inner in self.links:
            graph.set(str(outer), str(inner), self.poses[inner])
        return graph


def of_venue(origin: Origin, poses: Poses, *, valid_ms: int | None = None) -> list[Located]:
    """Venue-frame poses (n) as poses at their own tangent points."""
    lat, lon, height = Frame(origin).to_wgs84(*poses.translation_m.T)
    result = []
    for i in range(len(poses)):
        at = TangentPoint(float(lat[i]), float(lon[i]), float(height[i]))
        turn = checked_quaternions(multiply(_turn(origin, at), poses.rotation[i]))
        result.append(Located(at, Poses(np.zeros((1, 3)), turn[None]), valid_ms))
    return result


def to_venue(origin: Origin, located: Sequence[Located]) -> Poses:
    """Poses in the venue frame, by row, of poses anywhere on the ellipsoid."""
    rows = []
    for one in located:
        here = Frame(origin).to_venue(one.at.lat_deg, one.at.lon_deg, one.at.height_m)
        back = _turn(origin, one.at) * [-1.0, -1.0, -1.0, 1.0]
        rows.append(Poses(here[None], checked_quaternions(back)[None]) @ one.pose)
    if not rows:
        return Poses.identity(0)
    return Poses(np.concatenate([r.translation_m for r in rows]), np.concatenate([r.rotation for r in rows]))


def _turn(origin: Origin, at: TangentPoint) -> F8:
    """Quaternion from the venue frame's axes to east, north, up at another point: `spatial.frames` differentiated along the ellipsoid's normal."""
    venue, there = _axes(origin.lat_deg, origin.lon_deg, origin.bearing_deg), _axes(at.lat_deg, at.lon_deg, 0.0)
    return quaternion_of(there @ venue.T)


def _axes(lat_deg: float, lon_deg: float, bearing_deg: float) -> F8:
    lat, lon = math.radians(lat_deg), math.radians(lon_deg)
    east = np.array([-math.sin(lon), math.cos(lon), 0.0])
    north = np.array([-math.sin(lat) * math.cos(lon), -math.sin(lat) * math.sin(lon), math.cos(lat)])
    c, s = math.cos(math.radians(bearing_deg)), math.sin(math.radians(bearing_deg))
    return np.stack([c * east + s * north, -s * east + c * north, np.cross(east, north)])


def ypr_quaternion(yaw_deg: float, pitch_deg: float, roll_deg: float) -> F8:
    """Quaternion (4,) of yaw, pitch and roll in degrees: Rz(yaw) Ry(pitch) Rx(roll)."""
    if not all(map(math.isfinite, (yaw_deg, pitch_deg, roll_deg))):
        raise InvalidInput(f"angles {yaw_deg}, {pitch_deg}, {roll_deg}: must be finite degrees")
    z, y, x = (exp_rotation(np.radians(a) * axis) for a, axis in zip((yaw_deg, pitch_deg, roll_deg), np.eye(3)[::-1], strict=True))
    return checked_quaternions(multiply(multiply(z, y), x))


def quaternion_ypr(q: F8) -> tuple[float, float, float]:
    """Yaw, pitch, roll in degrees of a unit quaternion (4,); looking straight up or down roll is 0 and yaw carries the turn."""
    m = matrix_of(q)
    pitch = math.asin(min(1.0, max(-1.0, -float(m[2, 0]))))
    if abs(m[2, 0]) > 1 - 1e-12:
        return math.degrees(math.atan2(-m[0, 1], m[1, 1])), math.degrees(pitch), 0.0
    return math.degrees(math.atan2(m[1, 0], m[0, 0])), math.degrees(pitch), math.degrees(math.atan2(m[2, 1], m[2, 2]))


def write_basic_ypr(located: Located) -> Json:
    """Basic-YPR. Raises InvalidInput where the pose is not at its tangent point (Basic has no offset; use `write_chain`)."""
    yaw, pitch, roll = quaternion_ypr(_at_origin(located))
    return {"position": _position(located.at), "angles": {"yaw": yaw, "pitch": pitch, "roll": roll}}


def write_basic_quaternion(located: Located) -> Json:
    """Basic-Quaternion. Raises InvalidInput where the pose is not at its tangent point."""
    return {"position": _position(located.at), "quaternion": _xyzw(_at_origin(located))}


def write_advanced(located: Located) -> Json:
    """Advanced, outer frame LTP-ENU; `validTime` is left out where it is not known."""
    body: Json = {"frameSpecification": _outer(located.at, "LTP-ENU"), "quaternion": _xyzw(_at_origin(located))}
    return body if located.valid_ms is None else body | {"validTime": located.valid_ms}


def write_chain(at: TangentPoint, chain: Poses, valid_ms: int) -> Json:
    """Chain of n >= 1 inner frames, each within the one before."""
    if not 1 <= len(chain) <= MAX_POSES:
        raise InvalidInput(f"chain of {len(chain)} frames: must be 1 to {MAX_POSES}")
    inner = [_inner(chain, i, "/Intrinsic/Translate-Rotate") for i in range(len(chain))]
    return {"validTime": valid_ms, "outerFrame": _outer(at, "/Extrinsic/LTP-ENU"), "frameChain": inner}


def write_graph(graph: Graph) -> Json:
    """Graph: `frameList` with the tangent point first, `transformList` of links."""
    inner = [_inner(graph.poses, i, "/Intrinsic/Translate-Rotate") for i in range(1, len(graph.poses))]
    _check_links(graph.links, len(graph.poses))
    links = [{"link": [a, b]} for a, b in graph.links]
    body: Json = {} if graph.valid_ms is None else {"validTime": graph.valid_ms}
    return body | {"frameList": [_outer(graph.at, "/Extrinsic/LTP-ENU"), *inner], "transformList": links}


def write_series(series: Series) -> Json:
    """Regular Series where all steps are equal, Irregular otherwise; the integrity check is SHA-256 of the inner frames' compact JSON."""
    times = series.times_ms
    _check_times(times, len(series.poses))
    inner = [_inner(series.poses, i, "RotateTranslate") for i in range(len(times))]
    steps = {b - a for a, b in itertools.pairwise(times)}
    regular = len(steps) == 1
    frames = inner if regular else [{"frame": frame, "validTime": t} for frame, t in zip(inner, times, strict=True)]
    check = json.dumps({"SHA256": _digest(frames)})
    head: Json = {
        "header": {
            "poseCount": len(times),
            "integrityCheck": check,
            "startInstant": times[0],
            "stopInstant": times[-1],
            "transitionModel": {"authority": AUTHORITY, "id": series.transition, "parameters": ""},
        }
    }
    if regular:
        head["interPoseDuration"] = steps.pop()
    name = "innerFrameSeries" if regular else "innerFrameAndTimeSeries"
    return head | {"outerFrame": _outer(series.at, "LTP-ENU"), name: frames, "trailer": {"poseCount": len(times), "integrityCheck": check}}


def read(document: object, *, normalise: bool = False) -> Located | Series | Graph:
    """Any of the seven forms, told apart by their members. A Chain comes back composed into one pose.

    `normalise` takes quaternions of any length but 0 (some of the standard's own examples are not unit). Raises InvalidInput, naming the member.
    """
    if not isinstance(document, Mapping):
        raise InvalidInput(f"GeoPose of type {type(document).__name__}: must be a JSON object")
    if "frameList" in document:
        return _read_graph(document, normalise)
    if "frameChain" in document:
        chain = _list(document, "frameChain", 1)
        pose = Poses.identity()
        for frame in chain:
            pose = pose @ _read_inner(frame, normalise)
        return Located(_read_outer(document.get("outerFrame")), pose, _instant(document, "validTime"))
    if "innerFrameSeries" in document or "innerFrameAndTimeSeries" in document:
        return _read_series(document, normalise)
    if "frameSpecification" in document:
        valid = _instant(document, "validTime") if "validTime" in document else None
        return Located(_read_outer(document["frameSpecification"]), _read_xyzw(document, normalise), valid)
    at = _read_position(document)
    if "quaternion" in document:
        return Located(at, _read_xyzw(document, normalise))
    angles = _numbers(document.get("angles"), ("yaw", "pitch", "roll"), "angles")
    return Located(at, Poses(np.zeros((1, 3)), ypr_quaternion(*angles)[None]))


def _read_graph(document: Mapping[str, object], normalise: bool) -> Graph:
    frames = _list(document, "frameList", 2)
    inner = [_read_inner(frame, normalise) for frame in frames[1:]]
    links = []
    for entry in _list(document, "transformList", 1):
        link = entry.get("link") if isinstance(entry, Mapping) else None
        if not (isinstance(link, Sequence) and len(link) == 2 and all(type(i) is int for i in link)):
            raise InvalidInput(f"transformList entry {str(entry)[:100]}: must be {{'link': [outer, inner]}} with two indices of frameList")
        links.append((int(link[0]), int(link[1])))
    _check_links(tuple(links), len(frames))
    poses = [Poses.identity(), *inner]
    valid = _instant(document, "validTime") if "validTime" in document else None
    columns = Poses(np.concatenate([p.translation_m for p in poses]), np.concatenate([p.rotation for p in poses]))
    return Graph(_read_outer(frames[0]), columns, tuple(links), valid)


def _check_links(links: tuple[tuple[int, int], ...], n: int) -> None:
    seen: set[int] = set()
    for outer, inner in links:
        if not (0 <= outer < n and 1 <= inner < n) or inner in seen or outer == inner:
            raise InvalidInput(
                f"link [{outer}, {inner}]: must name frames 0 to {n - 1}, no frame twice as the inner one, never frame 0 (the tangent point)"
            )
        seen.add(inner)


def _read_series(document: Mapping[str, object], normalise: bool) -> Series:
    regular = "innerFrameSeries" in document
    frames = _list(document, "innerFrameSeries" if regular else "innerFrameAndTimeSeries", 1)
    header = document.get("header")
    if not isinstance(header, Mapping):
        raise InvalidInput("series: member 'header' is missing or no object")
    trailer = document.get("trailer")
    for name, part in (("header", header), ("trailer", trailer)):
        if not isinstance(part, Mapping) or part.get("poseCount") != len(frames):
            count = part.get("poseCount") if isinstance(part, Mapping) else None
            raise InvalidInput(f"series: {name} says poseCount {count}, but {len(frames)} frames came: the document is cut or was edited")
    check = header.get("integrityCheck")
    said = re.fullmatch(r'\{"SHA256": "([0-9a-f]{64})"\}', check) if isinstance(check, str) else None
    if said and said[1] != _digest(frames):
        raise InvalidInput("series: the integrity check does not fit the inner frames: the document was altered; fetch it again")
    start = _instant(header, "startInstant")
    if regular:
        step = _instant(document, "interPoseDuration")
        times = [start + i * step for i in range(len(frames))]
        inner = [_read_inner(frame, normalise) for frame in frames]
    else:
        if not all(isinstance(frame, Mapping) for frame in frames):
            raise InvalidInput("series: every entry of innerFrameAndTimeSeries must hold frame and validTime")
        times = [_instant(frame, "validTime") for frame in frames]
        inner = [_read_inner(frame.get("frame"), normalise) for frame in frames]
    _check_times(tuple(times), len(frames))
    model = header.get("transitionModel")
    transition = model.get("id") if isinstance(model, Mapping) else model
    columns = Poses(np.concatenate([p.translation_m for p in inner]), np.concatenate([p.rotation for p in inner]))
    return Series(_read_outer(document.get("outerFrame")), columns, tuple(times), str(transition or "none").lower())


def _check_times(times: tuple[int, ...], n: int) -> None:
    if len(times) != n or not 1 <= n <= MAX_POSES or any(b <= a for a, b in itertools.pairwise(times)):
        raise InvalidInput(f"series of {n} poses with {len(times)} times: must be 1 to {MAX_POSES}, as many times as poses, strictly increasing")


def _digest(frames: object) -> str:
    return hashlib.sha256(json.dumps(frames, separators=(",", ":"), sort_keys=True).encode()).hexdigest()


def _at_origin(located: Located) -> F8:
    if len(located.pose) != 1 or np.abs(located.pose.translation_m).max() > 1e-9:
        raise InvalidInput(
            f"pose {located.pose.translation_m.tolist()} m off its tangent point: this form has no offset; move the point or write a chain"
        )
    return np.asarray(located.pose.rotation[0], np.float64)


def _position(at: TangentPoint) -> Json:
    return {"lat": at.lat_deg, "lon": at.lon_deg, "h": at.height_m}


def _xyzw(q: F8) -> Json:
    return dict(zip("xyzw", map(float, q), strict=True))


def _outer(at: TangentPoint, name: str) -> Json:
    return {"authority": AUTHORITY, "id": name, "parameters": f"longitude={at.lon_deg!r}&latitude={at.lat_deg!r}&height={at.height_m!r}"}


def _inner(poses: Poses, i: int, name: str) -> Json:
    x, y, z, w = map(float, poses.rotation[i])
    move = ", ".join(map(repr, map(float, poses.translation_m[i])))
    return {"authority": AUTHORITY, "id": name, "parameters": f"translation=[{move}]&rotation=[{w!r}, {x!r}, {y!r}, {z!r}]"}


def _parameters(frame: object, ids: frozenset[str], pattern: re.Pattern[str], form: str) -> tuple[float, ...]:
    if not isinstance(frame, Mapping) or frame.get("authority") != AUTHORITY or frame.get("id") not in ids:
        raise InvalidInput(f"frame {str(frame)[:150]}: must be of authority {AUTHORITY} with id {' or '.join(sorted(ids))}")
    match = pattern.fullmatch(str(frame.get("parameters")))
    if match is None:
        raise InvalidInput(f"frame parameters {str(frame.get('parameters'))[:150]!r}: must read {form}")
    return tuple(map(float, match.groups()))


def _read_outer(frame: object) -> TangentPoint:
    lon, lat, height = _parameters(frame, OUTER_IDS, _OUTER, "longitude=..&latitude=..&height=..")
    return TangentPoint(lat, lon, height)


def _read_inner(frame: object, normalise: bool) -> Poses:
    x, y, z, qw, qx, qy, qz = _parameters(frame, INNER_IDS, _INNER, "translation=[x, y, z]&rotation=[w, x, y, z]")
    return Poses.of([x, y, z], _unit([qx, qy, qz, qw], normalise))


def _read_xyzw(document: Mapping[str, object], normalise: bool) -> Poses:
    return Poses.of([0.0, 0.0, 0.0], _unit(_numbers(document.get("quaternion"), ("x", "y", "z", "w"), "quaternion"), normalise))


def _unit(q: Sequence[float], normalise: bool) -> F8:
    length = math.sqrt(sum(v * v for v in q))
    return checked_quaternions([v / length for v in q] if normalise and 1e-6 < length < 1e6 else q)


def _read_position(document: Mapping[str, object]) -> TangentPoint:
    return TangentPoint(*_numbers(document.get("position"), ("lat", "lon", "h"), "position"))


def _numbers(value: object, names: tuple[str, ...], what: str) -> list[float]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"GeoPose: member {what!r} is missing or no object; it must hold {', '.join(names)}")
    for name in names:
        if type(value.get(name)) not in (int, float):
            raise InvalidInput(f"GeoPose: {what}.{name} is {value.get(name)!r}: must be a number")
    return [float(value[name]) for name in names]


def _instant(document: Mapping[str, object], name: str) -> int:
    value = document.get(name)
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise InvalidInput(f"GeoPose: {name} is {value!r}: must be whole milliseconds since 1970, at least 0")
    return value


def _list(document: Mapping[str, object], name: str, least: int) -> list[Any]:
    value = document.get(name)
    if not isinstance(value, list) or not least <= len(value) <= MAX_POSES:
        raise InvalidInput(f"GeoPose: {name} must be a list of {least} to {MAX_POSES} entries")
    return value
