"""REST for ways through a venue: distances between many places at once. Owns the path and the JSON; what a distance is is the frame's."""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec
import numpy as np
from fastapi import APIRouter, Body, Request
from fastapi.responses import Response

from gateway.frames.base import Id
from gateway.frames.distances import Ends, GetDistances
from gateway.openapi import says, wants
from gateway.rest import Desk, answer, converted, frame_of
from spatial.profiles import By, Rule, Way


class DistancesWanted(msgspec.Struct, forbid_unknown_fields=True):
    """At most 1,000 sources and targets each, 100,000 distances; the other fields as in the frame `distances`."""

    sources: Ends
    targets: Ends
    profile: Id = "walking"
    ways: dict[Way, Rule] = {}
    by: By = "fastest"


class DistancesTold(msgspec.Struct):
    """A row a source, a column a target: seconds, or metres for `shortest`; null where there is no way."""

    cost: list[list[float | None]]


def way_routes(desk: Desk) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/venues/{tenant}/{venue}/distances", tags=["venues"], openapi_extra=wants(DistancesWanted), responses=says(DistancesTold))
    async def distances(request: Request, tenant: str, venue: str, wanted: Annotated[dict[str, Any], Body()]) -> Response:
        """From every source to every target, under what is closed now; at most 100,000 at once."""
        asked = msgspec.structs.asdict(converted(wanted, DistancesWanted))
        told = await desk.ask(desk.caller(request, tenant), frame_of(GetDistances, venue=venue, **asked))
        return answer({"cost": rows_of(converted(told["cost"], bytes), told["targets"])}, 200)

    return router


def rows_of(cost: bytes, targets: int) -> list[list[float | None]]:
    """As JSON has it."""
    flat = [value if math.isfinite(value) else None for value in np.frombuffer(cost, "<f4").tolist()]
    return [flat[start : start + targets] for start in range(0, len(flat), targets)]
