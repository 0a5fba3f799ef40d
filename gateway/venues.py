"""What the gateway needs to know of a venue to check a frame at the edge: cached from the catalogue, by tenant."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import msgspec

from esplanade.core.clock import SystemClock
from esplanade.core.errors import Fault, InvalidInput, NotFound
from esplanade.core.ids import Address, check_name
from esplanade.storage.catalogue import Catalogue

FRESH_S: Final = 30.0
"""A document is read again after this time."""
MISSING_S: Final = 1.0
"""That there is no such venue is believed for so long."""
MAX_VENUES: Final = 1024


class _Part(msgspec.Struct):
    id: str


class _Unit(msgspec.Struct):
    id: str
    till: bool = False


class _Document(msgspec.Struct):
    """The fields of `spatial.venue.Venue` used here; the catalogue holds validated documents only."""

    id: str
    name: str
    kind: str
    levels: list[_Part]
    units: list[_Unit] = []
    zones: list[_Part] = []


@dataclass(frozen=True, slots=True)
class VenueFacts:
    """units: id -> (index into Venue.units, has a till)."""

    tenant: str
    venue: str
    name: str
    kind: str
    levels: int
    units: dict[str, tuple[int, bool]]
    zones: frozenset[str]

    @property
    def address(self) -> Address:
        return Address(self.kind, self.tenant, self.venue)

    def check_level(self, level: int) -> None:
        if level >= self.levels:
            raise InvalidInput(f"level {level}: venue {self.venue} has levels 0 to {self.levels - 1}")


class VenueCache:
    def __init__(self, catalogue: Catalogue, clock: SystemClock) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], tuple[float, VenueFacts | None]] = OrderedDict()

    def cached(self, tenant: str, venue: str) -> VenueFacts | None:
        """Facts still fresh, without waiting."""
        known = self._known.get((tenant, venue))
        return None if known is None or known[0] < self._clock.monotonic_s() else known[1]

    async def get(self, tenant: str, venue: str) -> VenueFacts:
        """Raises InvalidInput for what is no id, NotFound for what is no venue of this tenant."""
        key = (tenant, check_name(venue, "venue"))
        now = self._clock.monotonic_s()
        known = self._known.get(key)
        if known is None or known[0] < now:
            facts: VenueFacts | None
            try:
                facts = _read(tenant, await self._catalogue.venue(tenant, venue))
                known = (now + FRESH_S, facts)
            except NotFound:
                known = (now + MISSING_S, None)
            self._known[key] = known
            self._known.move_to_end(key)
            if len(self._known) > MAX_VENUES:
                self._known.popitem(last=False)
        if known[1] is None:
            raise NotFound(f"venue {venue!r}: tenant {tenant} has none of this id; GET /v1/venues lists them")
        return known[1]


def _read(tenant: str, document: bytes) -> VenueFacts:
    try:
        venue = msgspec.json.decode(document, type=_Document)
    except msgspec.MsgspecError as error:
        raise Fault(f"a venue document of tenant {tenant} in the catalogue cannot be read: {error}; import the venue again") from error
    units = {unit.id: (index, unit.till) for index, unit in enumerate(venue.units)}
    zones = frozenset(zone.id for zone in venue.zones)
    return VenueFacts(tenant, venue.id, venue.name, venue.kind, len(venue.levels), units, zones)
