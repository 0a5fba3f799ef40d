"""The frame `localise` into a query of the localiser, and its answer into a pose with its GeoPose.

Owns this translation; queue, limit and deadline are the localiser's (`actors.localiser`), the judgement is `ar.localisation`'s.
"""

from __future__ import annotations

import numpy as np

from actors.localiser import Localiser, Query, check_query
from ar.geopose import of_venue, write_basic_quaternion
from ar.pose import Poses
from esplanade.core.errors import Unavailable
from gateway import frames as f
from gateway.venues import VenueFacts


class LocalisingDesk:
    """`localiser`: None where this process was given none."""

    def __init__(self, localiser: Localiser | None) -> None:
        self._localiser = localiser

    async def answer(self, facts: VenueFacts, frame: f.Localise) -> f.ServerFrame:
        """Raises what `Localiser.locate` raises, InvalidInput for a level that the venue lacks."""
        facts.check_level(frame.level)
        query = Query(
            tenant=facts.tenant, venue=facts.venue, level=frame.level, depth_mm=frame.depth, rows=frame.rows, columns=frame.columns, camera=frame.camera,
            points_mm=frame.points, near_m=frame.near, within_m=frame.within_m,
        )  # fmt: skip
        check_query(query)
        if self._localiser is None:
            raise Unavailable("localisation is not served by this process: ask a gateway of `esplanade serve`")
        found = await self._localiser.locate(query)
        if not found.known:
            return f.NotLocalised(seq=frame.seq, venue=facts.venue, level=frame.level, reason=found.reason, chance=found.chance, map=found.version)
        poses = Poses.of(np.array(found.position_m), np.array(found.rotation))
        [located] = of_venue(facts.origin, poses)
        return f.Localised(
            seq=frame.seq, venue=facts.venue, level=frame.level, position_m=found.position_m, rotation=found.rotation,
            covariance=np.array(found.covariance, "<f4").tobytes(), chance=found.chance, map=found.version, geopose=write_basic_quaternion(located),
        )  # fmt: skip
