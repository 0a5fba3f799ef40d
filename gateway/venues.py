"""What the gateway needs to know of a venue to check a frame at the edge: cached from the catalogue, by tenant."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import msgspec

from esplanade.core.clock import SystemClock
from esplanade.core.errors import Fault, InvalidInput, NotFound
from esplanade.core.ids import Address, check_name
from esplanade.storage.catalogue import Catalogue, describe_venue
from spatial.venue import Origin

FRESH_S: Final = 30.0
"""The catalogue is asked after this time whether the document has changed."""
MISSING_S: Final = 1.0
"""That there is no such venue is believed for so long."""
MAX_VENUES: Final = 1024


class _Part(msgspec.Struct):
    id: str


class _Unit(msgspec.Struct):
    id: str
    till: bool = False


class _Entrance(msgspec.Struct):
    code: str
    level_id: str
    point: tuple[float, float]


class _Origin(msgspec.Struct, frozen=True):
    lat_deg: float
    lon_deg: float
    bearing_deg: float = 0.0


class _Document(msgspec.Struct):
    """The fields of `spatial.venue.Venue` used here; the catalogue holds validated documents only."""

    id: str
    name: str
    kind: str
    levels: list[_Part]
    origin: _Origin = _Origin(0.0, 0.0)
    entrances: list[_Entrance] = []
    units: list[_Unit] = []
    zones: list[_Part] = []


@dataclass(frozen=True, slots=True)
class VenueFacts:
    """units: id -> (index into Venue.units, has a till). entrances: code -> (level index, x, y)."""

    tenant: str
    digest: str
    venue: str
    name: str
    kind: str
    levels: int
    units: dict[str, tuple[int, bool]]
    zones: frozenset[str]
    origin: Origin
    entrances: dict[str, tuple[int, float, float]]

    @property
    def address(self) -> Address:
        return Address(self.kind, self.tenant, self.venue)

    def check_level(self, level: int) -> None:
        if level >= self.levels:
            raise InvalidInput(f"level {level}: venue {self.venue} has levels 0 to {self.levels - 1}")


class VenueCache:
    """However many ask at once when a venue is no longer fresh, the catalogue is asked once, and its document read only where its digest has changed."""

    def __init__(self, catalogue: Catalogue, clock: SystemClock) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], tuple[float, VenueFacts | None]] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Task[VenueFacts | None]] = {}

    def cached(self, tenant: str, venue: str, now: float | None = None) -> VenueFacts | None:
        """Facts still fresh, without waiting; `now`: by the clock, where the caller has just looked at it."""
        known = self._known.get((tenant, venue))
        return None if known is None or known[0] < (self._clock.monotonic_s() if now is None else now) else known[1]

    async def get(self, tenant: str, venue: str) -> VenueFacts:
        """Raises InvalidInput for what is no id, NotFound for what is no venue of this tenant."""
        key = (tenant, check_name(venue, "venue"))
        known = self._known.get(key)
        if known is not None and known[0] >= self._clock.monotonic_s():
            facts = known[1]
        else:
            asking = self._asking.get(key)
            if asking is None:
                asking = self._asking[key] = asyncio.ensure_future(self._ask(key))
                asking.add_done_callback(lambda done: self._answered(key, done))
            facts = await asyncio.shield(asking)
        if facts is None:
            raise NotFound(f"venue {venue!r}: tenant {tenant} has none of this id; GET /v1/venues lists them")
        return facts

    async def document(self, facts: VenueFacts) -> bytes:
        """The document that the facts are of, or the one that has taken its place since. Raises NotFound, Unavailable."""
        return await self._catalogue.venue(facts.tenant, facts.venue)

    async def publish(self, tenant: str, document: bytes) -> None:
        """Put a document into the catalogue, unless it is there, and ask for it anew. Raises Unavailable."""
        entry = describe_venue(tenant, document, created_unix_ms=0)
        held = next((one.digest for one in await self._catalogue.venues(tenant) if one.venue == entry.venue), None)
        if held != entry.digest:
            await self._catalogue.put_venue(tenant, document)
        self._known.pop((tenant, entry.venue), None)

    def _answered(self, key: tuple[str, str], done: asyncio.Task[VenueFacts | None]) -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # whoever waits has it too; perhaps nobody does any more

    async def _ask(self, key: tuple[str, str]) -> VenueFacts | None:
        now = self._clock.monotonic_s()
        tenant, venue = key
        known = self._known.get(key)
        facts = None if known is None else known[1]
        digest = next((entry.digest for entry in await self._catalogue.venues(tenant) if entry.venue == venue), None)
        if digest is None:
            facts = None
        elif facts is None or facts.digest != digest:
            facts = _read(tenant, digest, await self._catalogue.venue(tenant, venue))
        self._known[key] = (now + (MISSING_S if facts is None else FRESH_S), facts)
        self._known.move_to_end(key)
        if len(self._known) > MAX_VENUES:
            self._known.popitem(last=False)
        return facts


def _read(tenant: str, digest: str, document: bytes) -> VenueFacts:
    try:
        venue = msgspec.json.decode(document, type=_Document)
    except msgspec.MsgspecError as error:
        raise Fault(f"a venue document of tenant {tenant} in the catalogue cannot be read: {error}; import the venue again") from error
    units = {unit.id: (index, unit.till) for index, unit in enumerate(venue.units)}
    zones = frozenset(zone.id for zone in venue.zones)
    origin = Origin(lat_deg=venue.origin.lat_deg, lon_deg=venue.origin.lon_deg, bearing_deg=venue.origin.bearing_deg)
    index = {level.id: i for i, level in enumerate(venue.levels)}
    entrances = {entrance.code: (index[entrance.level_id], *entrance.point) for entrance in venue.entrances if entrance.level_id in index}
    return VenueFacts(tenant, digest, venue.id, venue.name, venue.kind, len(venue.levels), units, zones, origin, entrances)
