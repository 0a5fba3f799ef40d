"""A venue's document as turns read it: units, stores, entrances and fences found by id.

Owns look-ups derived once from a document; holds no state of its own and never changes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
from shapely.geometry.base import BaseGeometry

from actors.messages import SearchStores, Store
from esplanade.core.errors import InvalidInput
from spatial.geofence import FenceSet
from spatial.live import live_of
from spatial.plan import anchors, shape
from spatial.routes import At
from spatial.routing import Router
from spatial.search import Item, SearchIndex
from spatial.venue import Entrance, Venue

CELL_M = 0.5
"""Of the raster of fences: small, since who is in a cell without a border need not be looked at again soon (`spatial.settled`)."""

MAX_FENCES = 65_535
"""Units, zones and levels of a venue together, at most: events carry fences as u2."""


@dataclass(frozen=True)
class VenueBook:
    """`stores`: units with an occupant, a till or a stage, with anchors (level, x, y) in the arrays. Fences: units, then zones, then level outlines."""

    venue: Venue
    digest: str
    unit_index: dict[str, int]
    entrances: dict[str, Entrance]
    level_index: dict[str, int]
    bays: frozenset[str]
    stores: tuple[Store, ...]
    store_level: npt.NDArray[np.int64]
    store_xy_m: npt.NDArray[np.float64]
    zone_fence: dict[str, int]
    has_till: npt.NDArray[np.bool_]

    @classmethod
    def read(cls, document: bytes) -> Self:
        """From the JSON of a `spatial.venue.Venue`. Raises InvalidInput where it is none, or has too many fences."""
        try:
            venue = Venue.model_validate_json(document)
        except ValueError as error:
            raise InvalidInput(f"venue document of {len(document)} bytes: {error}; import the venue again") from error
        n_fences = len(venue.units) + len(venue.zones) + len(venue.levels)
        if n_fences > MAX_FENCES:
            raise InvalidInput(f"venue {venue.id}: {n_fences} units, zones and levels; at most {MAX_FENCES}, split the venue")
        unit_index = {unit.id: i for i, unit in enumerate(venue.units)}
        level_index = {level.id: i for i, level in enumerate(venue.levels)}
        names = {occupant.unit_id: (occupant.name, occupant.category) for occupant in reversed(venue.occupants)}
        selling = [unit for unit in venue.units if unit.id in names or unit.till or unit.category == "stage"]
        stores = []
        for unit, (level, x_m, y_m) in zip(selling, anchors(venue, [unit.id for unit in selling]), strict=True):
            name, category = names.get(unit.id, (unit.name or unit.id, unit.category))
            stores.append(Store(unit.id, name, category, level, x_m, y_m, 0.0))
        zone_fence = dict(unit_index)
        zone_fence.update((zone.id, len(venue.units) + i) for i, zone in enumerate(venue.zones))
        return cls(
            venue=venue,
            digest=hashlib.sha256(document).hexdigest(),
            unit_index=unit_index,
            entrances={entrance.code: entrance for entrance in venue.entrances},
            level_index=level_index,
            bays=frozenset(unit.id for unit in venue.units if unit.category == "parking"),
            stores=tuple(stores),
            store_level=np.array([store.level for store in stores], np.int64),
            store_xy_m=np.array([(store.x_m, store.y_m) for store in stores], np.float64).reshape(-1, 2),
            zone_fence=zone_fence,
            has_till=np.array([unit.till for unit in venue.units], np.bool_),
        )

    def ground_m2(self, zone_id: str) -> float:
        """The area of a unit or zone."""
        found = self._grounds.get(zone_id)
        if found is None:
            found = self._grounds[zone_id] = float(self.ground_of(zone_id)[1].area)
        return found

    def ground_of(self, zone_id: str) -> tuple[int, BaseGeometry]:
        """Level index and ground of a unit or zone."""
        venue, at = self.venue, self.zone_fence[zone_id]
        unit = venue.units[at] if at < len(venue.units) else venue.zones[at - len(venue.units)]
        return self.level_index[unit.level_id], shape(unit.polygon)

    @cached_property
    def _grounds(self) -> dict[str, float]:
        return {}

    @cached_property
    def _router(self) -> Router:
        """Made when somebody first needs it: about a second for a mall."""
        return Router.build(self.venue)

    def router_under(self, closed: frozenset[str]) -> Router:
        """Ways through the venue while these connectors, openings and units are closed."""
        return self._router.with_live(live_of(self.venue, closed)) if closed else self._router

    @cached_property
    def numbering(self) -> str:
        """A hash of which unit, zone and level stands where: documents that share it share the numbers of their fences and tills."""
        venue = self.venue
        parts = ("\n".join(item.id for item in items) for items in (venue.units, venue.zones, venue.levels))
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

    @cached_property
    def closable(self) -> frozenset[str]:
        """What can be closed to people: connectors, openings, and units that have openings."""
        venue = self.venue
        return frozenset({c.id for c in venue.connectors} | {o.id for o in venue.openings} | {o.unit_id for o in venue.openings})

    @property
    def outline_base(self) -> int:
        """The first fence that is a level's outline."""
        return len(self.venue.units) + len(self.venue.zones)

    def fences(self) -> FenceSet:
        """Index of the venue's fences; some tens of milliseconds."""
        venue, level = self.venue, self.level_index
        polygons = [(level[unit.level_id], unit.polygon) for unit in venue.units]
        polygons += [(level[zone.level_id], zone.polygon) for zone in venue.zones]
        polygons += [(i, outline.outline) for i, outline in enumerate(venue.levels)]
        return FenceSet.build(len(venue.levels), polygons, cell_m=CELL_M)

    def nearest_stores(self, level: int, x_m: float, y_m: float, k: int, offers: dict[str, tuple[str, ...]]) -> tuple[Store, ...]:
        """The k stores of a level nearest to a point by straight distance to their anchors, ties by order in the venue; with `offers` by unit."""
        rows = np.flatnonzero(self.store_level == level)
        distance_m = np.hypot(self.store_xy_m[rows, 0] - x_m, self.store_xy_m[rows, 1] - y_m)
        nearest = np.argsort(distance_m, kind="stable")[:k].tolist()
        return tuple(_told(self.stores[int(rows[i])], float(distance_m[i]), offers) for i in nearest)

    def search_stores(self, asked: SearchStores, offers: dict[str, tuple[str, ...]]) -> tuple[Store, ...]:
        """The stores that answer best to the words asked for, the best first; distances are 0 where no place was given."""
        near = At(asked.level, asked.x_m, asked.y_m) if asked.level >= 0 else None
        hits = self._search.search(asked.text, limit=asked.k, near=near)
        return tuple(_told(self._store_of[hit.item.id], hit.distance_m or 0.0, offers) for hit in hits)

    @cached_property
    def _search(self) -> SearchIndex:
        """Made when somebody first searches: 8 ms for the 148 stores of a real mall."""
        occupants = {occupant.unit_id: occupant for occupant in reversed(self.venue.occupants)}
        items = []
        for store in self.stores:
            item = Item(store.unit_id, store.name, "store", store.category, at=At(store.level, store.x_m, store.y_m))
            held = occupants.get(store.unit_id)
            items.append(item if held is None else replace(item, tags=held.tags, popularity=held.popularity))
        return SearchIndex.build(items)

    @cached_property
    def _store_of(self) -> dict[str, Store]:
        return {store.unit_id: store for store in self.stores}


def _told(store: Store, distance_m: float, offers: dict[str, tuple[str, ...]]) -> Store:
    return Store(
        store.unit_id, store.name, store.category, store.level, store.x_m, store.y_m, distance_m=distance_m, offers=offers.get(store.unit_id, ())
    )  # fmt: skip
