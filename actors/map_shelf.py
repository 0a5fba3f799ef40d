"""Maps that cameras are localised in, of venues' levels, in the blob store: tiles by their content, a list of them by its own, and a head that says which list is the newest.

Owns the list's form and the head's name. Former versions stay where they are; a reader holds one version from its first tile to its last.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ar.maps import SpatialMap, Tile, TileKey
from esplanade.core.errors import InvalidInput, NotFound
from esplanade.storage.blobs import Blobs

MAX_TILES: Final = 100_000


class MapTile(msgspec.Struct, frozen=True, array_like=True):
    key: TileKey
    digest: str


class MapList(msgspec.Struct, frozen=True):
    """What one version of a map is made of; `made_ms`: milliseconds since 1970."""

    venue: str
    level: int
    made_ms: int
    voxel_m: float
    tile_m: float
    tiles: list[MapTile]


def head_of(tenant: str, venue: str, level: int) -> str:
    return f"maps/{tenant}/{venue}/{level}"


def store_map(blobs: Blobs, tenant: str, venue: str, level: int, built: SpatialMap, *, made_ms: int) -> str:
    """Keep a map as the newest of a venue's level; returns its version, the SHA-256 of its list. Tiles that have not changed are not written again."""
    if len(built.keys) > MAX_TILES:
        raise InvalidInput(f"map of {len(built.keys)} tiles: at most {MAX_TILES}; build it with larger tiles")
    tiles = [MapTile(key, blobs.put(built.tile(key).to_bytes())) for key in sorted(built.keys)]
    version = blobs.put(msgspec.msgpack.encode(MapList(venue, level, made_ms, built.voxel_m, built.tile_m, tiles)))
    blobs.point(head_of(tenant, venue, level), version)
    return version


def newest_map(blobs: Blobs, tenant: str, venue: str, level: int) -> str:
    """The version that counts now. Raises NotFound."""
    try:
        return blobs.head(head_of(tenant, venue, level))
    except NotFound:
        raise NotFound(
            f"level {level} of venue {venue!r} has no map to localise in: build one with `esplanade ar map`, from frames whose poses are known"
        ) from None


def open_map(blobs: Blobs, version: str) -> SpatialMap:
    """A version of a map, its tiles loaded when they are wanted. Raises NotFound, InvalidInput where the list or a tile is not what it was."""
    try:
        listed = msgspec.msgpack.decode(blobs.get(version), type=MapList)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"map {version}: its list cannot be read: {error}; build the map again") from error
    digests = {tile.key: tile.digest for tile in listed.tiles}
    return SpatialMap(digests, lambda key: Tile.from_bytes(blobs.get(digests[key])), voxel_m=listed.voxel_m, tile_m=listed.tile_m)
