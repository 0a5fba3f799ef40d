"""OGC GeoPose 1.0: the documents' shape as OGC 21-056r11 gives it, the way there and back, and what is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ar import geopose
from ar.geopose import Graph, Located, Series, TangentPoint
from ar.pose import Poses, exp_rotation, rotate
from esplanade.core.errors import Conflict, InvalidInput
from spatial.frames import Frame
from spatial.venue import Origin

SEATTLE = TangentPoint(47.7, -122.3, 11.5)
CHAIN = Poses.of([[1.0, 2.0, 3.0], [0.5, 0.0, -0.25]], exp_rotation([[0.1, 0.2, 0.3], [0.0, 0.0, 1.5]]))


def _object(**members: object) -> dict[str, Any]:
    optional = {name for name in members if name.endswith("_")}
    return {
        "type": "object",
        "properties": {name.rstrip("_"): kind for name, kind in members.items()},
        "required": [name for name in members if name not in optional],
    }


NUMBER, INTEGER, STRING = {"type": "number"}, {"type": "integer"}, {"type": "string"}
FRAME = _object(authority=STRING, id=STRING, parameters=STRING)
POSITION = _object(lat=NUMBER, lon=NUMBER, h=NUMBER)
QUATERNION = _object(x=NUMBER, y=NUMBER, z=NUMBER, w=NUMBER)
HEADER = _object(poseCount=INTEGER, integrityCheck_=STRING, startInstant=INTEGER, stopInstant=INTEGER, transitionModel=FRAME)
TRAILER = _object(poseCount=INTEGER, integrityCheck_=STRING)


def _many(kind: dict[str, Any], least: int = 1) -> dict[str, Any]:
    return {"type": "array", "items": kind, "minItems": least}


# The standard's seven JSON forms, member by member (OGC 21-056r11, clause 9).
SCHEMAS = {
    "ypr": _object(position=POSITION, angles=_object(yaw=NUMBER, pitch=NUMBER, roll=NUMBER)),
    "quaternion": _object(position=POSITION, quaternion=QUATERNION),
    "advanced": _object(frameSpecification=FRAME, quaternion=QUATERNION, validTime_=INTEGER),
    "chain": _object(validTime=INTEGER, outerFrame=FRAME, frameChain=_many(FRAME)),
    "graph": _object(validTime_=INTEGER, frameList=_many(FRAME, 2), transformList=_many(_object(link=_many(INTEGER, 2)))),
    "regular": _object(header=HEADER, interPoseDuration=INTEGER, outerFrame=FRAME, innerFrameSeries=_many(FRAME), trailer=TRAILER),
    "irregular": _object(header=HEADER, outerFrame=FRAME, innerFrameAndTimeSeries=_many(_object(frame=FRAME, validTime=INTEGER)), trailer=TRAILER),
}


def documents() -> dict[str, dict[str, Any]]:
    one = Located(SEATTLE, Poses.of([0, 0, 0], exp_rotation([0.3, -0.2, 2.0])), 1_700_000_000_000)
    three = Poses.of(np.vstack([np.zeros(3), CHAIN.translation_m]), np.vstack([[0, 0, 0, 1], CHAIN.rotation]))
    return {
        "ypr": geopose.write_basic_ypr(one),
        "quaternion": geopose.write_basic_quaternion(one),
        "advanced": geopose.write_advanced(one),
        "chain": geopose.write_chain(SEATTLE, CHAIN, 1_700_000_000_000),
        "graph": geopose.write_graph(Graph(SEATTLE, three, ((0, 1), (1, 2)), 5)),
        "regular": geopose.write_series(Series(SEATTLE, three, (1000, 2000, 3000), "interpolate")),
        "irregular": geopose.write_series(Series(SEATTLE, three, (1000, 2000, 3500))),
    }


@pytest.mark.parametrize("form", list(SCHEMAS))
def test_what_is_written_has_the_standards_members_and_reads_back_the_same(form: str) -> None:
    document = json.loads(json.dumps(documents()[form]))
    jsonschema.validate(document, SCHEMAS[form])
    match geopose.read(document):
        case Series() as series:
            again = geopose.write_series(series)
        case Graph() as graph:
            again = geopose.write_graph(graph)
        case Located() as located if form == "chain":
            composed = CHAIN[0] @ CHAIN[1]
            assert max(float(v.max()) for v in located.pose.distance(composed)) < 1e-12
            again = document
        case Located() as located:
            again = {"ypr": geopose.write_basic_ypr, "quaternion": geopose.write_basic_quaternion, "advanced": geopose.write_advanced}[form](located)
    assert _close(document, again)


def _close(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_close(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_close, a, b))
    return a == pytest.approx(b, abs=1e-9) if isinstance(a, float) else a == b


def test_yaw_turns_left_from_east_and_a_positive_pitch_lowers_the_nose() -> None:
    nose = np.array([1.0, 0.0, 0.0])
    np.testing.assert_allclose(rotate(geopose.ypr_quaternion(90, 0, 0), nose), [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rotate(geopose.ypr_quaternion(0, 90, 0), nose), [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(rotate(geopose.ypr_quaternion(0, 0, 90), [0.0, 1.0, 0.0]), [0, 0, 1], atol=1e-12)


@given(st.floats(-180, 180), st.floats(-90, 90), st.floats(-180, 180))
def test_angles_and_quaternions_say_the_same_turn(yaw: float, pitch: float, roll: float) -> None:
    q = geopose.ypr_quaternion(yaw, pitch, roll)
    again = geopose.ypr_quaternion(*geopose.quaternion_ypr(q))
    assert abs(float(q @ again)) == pytest.approx(1, abs=1e-9)


@settings(max_examples=50)
@given(st.floats(-60, 60), st.floats(-179, 179), st.floats(-180, 180), st.lists(st.floats(-2000, 2000), min_size=3, max_size=3), st.floats(-3, 3))
def test_a_venue_pose_survives_the_way_over_wgs84(lat: float, lon: float, bearing: float, t: list[float], turn: float) -> None:
    origin = Origin(lat_deg=lat, lon_deg=lon, bearing_deg=bearing)
    pose = Poses.of(t, exp_rotation([0.2 * turn, -0.1, turn]))
    located = geopose.of_venue(origin, pose)
    document = geopose.read(geopose.write_basic_quaternion(located[0]))
    assert isinstance(document, Located)
    metres, radians = geopose.to_venue(origin, [document]).distance(pose)
    assert metres[0] < 1e-5
    assert radians[0] < 1e-9


def test_a_point_ahead_of_a_geopose_lies_where_the_ellipsoid_says() -> None:
    """A camera looking east, one metre further: to_venue agrees with spatial.frames on a point taken through WGS84."""
    origin = Origin(lat_deg=30.0, lon_deg=120.0, bearing_deg=20.0)
    here = Located(TangentPoint(30.001, 120.001, 5.0), Poses.of([0, 0, 0], geopose.ypr_quaternion(0, 0, 0)))
    ahead = geopose.to_venue(origin, [here]).apply([[1.0, 0.0, 0.0]])
    lat, lon, height = Frame(Origin(lat_deg=30.001, lon_deg=120.001, bearing_deg=0.0)).to_wgs84(1.0, 0.0, 5.0)
    np.testing.assert_allclose(ahead[0], Frame(origin).to_venue(lat, lon, height), atol=1e-5)


def test_a_graph_becomes_frames_and_a_cycle_is_refused() -> None:
    graph = geopose.read(documents()["graph"])
    assert isinstance(graph, Graph)
    metres, _ = graph.frames().pose("0", "2").distance(CHAIN[0] @ CHAIN[1])
    assert metres[0] < 1e-12
    looped = Graph(SEATTLE, Poses.identity(3), ((1, 2), (2, 1)))
    with pytest.raises(Conflict, match="another way"):
        Graph(looped.at, looped.poses, ((0, 1), (1, 2), (0, 2))).frames()


def test_a_quaternion_off_unit_is_taken_only_when_asked() -> None:
    document = documents()["quaternion"]
    document["quaternion"] = {"x": 0.0, "y": 0.0, "z": 0.5, "w": 1.0}
    with pytest.raises(InvalidInput, match="has length"):
        geopose.read(document)
    assert isinstance(geopose.read(document, normalise=True), Located)


def _without(form: str, *way: str) -> dict[str, Any]:
    document = copy.deepcopy(documents()[form])
    part = document
    for name in way[:-1]:
        part = part[name]
    del part[way[-1]]
    return document


def _with(form: str, value: object, *way: str | int) -> dict[str, Any]:
    document = copy.deepcopy(documents()[form])
    part: Any = document
    for name in way[:-1]:
        part = part[name]
    part[way[-1]] = value
    return document


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "JSON object"),
        (_without("ypr", "position", "lat"), "position.lat"),
        (_without("ypr", "angles"), "angles"),
        (_with("ypr", "12", "position", "h"), "position.h"),
        (_with("ypr", True, "position", "h"), "position.h"),
        (_with("ypr", 91.0, "position", "lat"), "latitude 91"),
        (_with("ypr", float("nan"), "position", "lat"), "latitude nan"),
        (_with("advanced", "EPSG", "frameSpecification", "authority"), "authority"),
        (_with("advanced", "longitude=1&latitude=x&height=0", "frameSpecification", "parameters"), "must read"),
        (_with("advanced", -1, "validTime"), "validTime"),
        (_with("chain", [], "frameChain"), "frameChain"),
        (_with("graph", [0, 7], "transformList", 0, "link"), "link"),
        (_with("graph", [1, 0], "transformList", 0, "link"), "tangent point"),
        (_with("regular", 4, "header", "poseCount"), "poseCount"),
        (_with("regular", -5, "interPoseDuration"), "interPoseDuration"),
        (_with("irregular", 1, "innerFrameAndTimeSeries", 1, "validTime"), "integrity"),
        (_without("irregular", "trailer"), "trailer"),
    ],
)
def test_bad_documents_are_refused_by_member(document: object, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        geopose.read(document)
    assert says in str(caught.value)
