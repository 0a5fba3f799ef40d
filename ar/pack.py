"""A pack: what an AR client needs of a place without a network, in one file: its anchors, map tiles, scenes and assets.

Owns the file. It ends in the SHA-256 of all before, by which a pack is named; each entry has a SHA-256 of its own, checked when it is read, so a pack may be mapped
into memory and read where it is wanted. What the entries hold is their own modules' affair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from ar.anchors import AnchorBook
from ar.maps import SpatialMap, Tile, TileKey
from ar.scene import Scene
from esplanade.core.errors import InvalidInput, LimitExceeded, NotFound

Kind = Literal["anchors", "tile", "scene", "asset"]

MAX_ENTRIES: Final = 100_000
MAX_PACK_BYTES: Final = 4 * 1024**3
_MAGIC: Final = b"ESPPACK1"
_DIGEST: Final = 32


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """`name`: of a scene its name, of a tile its key as i,j,k, of an asset its SHA-256 in hexadecimal digits, of the anchors nothing."""

    kind: Kind
    name: str
    size: int
    digest: bytes


class _Head(msgspec.Struct, array_like=True):
    venue: str
    made_ms: int
    voxel_m: float
    tile_m: float
    entries: list[Entry]


def write_pack(
    venue: str, *, made_ms: int, anchors: AnchorBook | None = None, tiles: SpatialMap | None = None, scenes: Iterable[tuple[str, Scene]] = (),
    assets: Iterable[bytes] = (),
) -> bytes:  # fmt: skip
    """The bytes of a pack. Equal contents give equal bytes. Raises LimitExceeded above MAX_ENTRIES or MAX_PACK_BYTES, InvalidInput for a name twice."""
    parts: list[tuple[Kind, str, bytes]] = [] if anchors is None else [("anchors", "", anchors.save())]
    if tiles is not None:
        parts += [("tile", _tile_name(key), tiles.tile(key).to_bytes()) for key in sorted(tiles.keys)]
    parts += [("scene", name, scene.snapshot()) for name, scene in sorted(scenes, key=lambda one: one[0])]
    parts += sorted({("asset", hashlib.sha256(asset).hexdigest(), asset) for asset in assets})
    entries = [Entry(kind, name, len(data), hashlib.sha256(data).digest()) for kind, name, data in parts]
    if len(entries) > MAX_ENTRIES or sum(entry.size for entry in entries) > MAX_PACK_BYTES:
        total = sum(entry.size for entry in entries)
        raise LimitExceeded(f"pack of {len(entries)} entries, {total} bytes: at most {MAX_ENTRIES} and {MAX_PACK_BYTES}; pack a smaller place")
    if len({(entry.kind, entry.name) for entry in entries}) < len(entries):
        raise InvalidInput("pack: a scene's name stands twice; give each once")
    voxel_m, tile_m = (tiles.voxel_m, tiles.tile_m) if tiles is not None else (0.0, 0.0)
    head = msgspec.msgpack.encode(_Head(venue, made_ms, voxel_m, tile_m, entries))
    body = b"".join([_MAGIC, len(head).to_bytes(4, "little"), head, *(data for _, _, data in parts)])
    return body + hashlib.sha256(body).digest()


class Pack:
    """A pack that is whole. `data` may be a file mapped into memory. Raises InvalidInput for what is none, is cut or differs from its hash."""

    def __init__(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        if len(view) < len(_MAGIC) + 4 + _DIGEST or bytes(view[: len(_MAGIC)]) != _MAGIC:
            raise InvalidInput(f"pack of {len(view)} bytes: is none; it must begin with {_MAGIC!r}")
        body, self.digest = view[:-_DIGEST], bytes(view[-_DIGEST:])
        if hashlib.sha256(body).digest() != self.digest:
            raise InvalidInput(f"pack of {len(view)} bytes: the content differs from its hash; fetch it again")
        start = len(_MAGIC) + 4
        size = int.from_bytes(body[len(_MAGIC) : start], "little")
        try:
            head = msgspec.msgpack.decode(body[start : start + size], type=_Head)
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"pack: its head cannot be read: {error}; it was made by something else") from error
        at = start + size
        self.venue, self.made_ms = head.venue, head.made_ms
        self._voxel_m, self._tile_m = head.voxel_m, head.tile_m
        self._at: dict[tuple[Kind, str], tuple[int, Entry]] = {}
        for entry in head.entries:
            if entry.size < 0:
                raise InvalidInput(f"pack: entry {entry.kind} {entry.name!r} of {entry.size} bytes")
            self._at[(entry.kind, entry.name)] = (at, entry)
            at += entry.size
        if at != len(body):
            raise InvalidInput(f"pack: its entries take {at} bytes, the file has {len(body)}")
        self._body = body

    def names(self, kind: Kind) -> list[str]:
        return sorted(name for of, name in self._at if of == kind)

    def read(self, kind: Kind, name: str = "") -> bytes:
        """The bytes of an entry. Raises NotFound, or InvalidInput where they differ from their hash."""
        found = self._at.get((kind, name))
        if found is None:
            raise NotFound(f"pack of {self.venue}: no {kind} {name[:80]!r}; it has {self.names(kind)[:10]}")
        at, entry = found
        data = bytes(self._body[at : at + entry.size])
        if hashlib.sha256(data).digest() != entry.digest:
            raise InvalidInput(f"pack of {self.venue}: {kind} {name!r} differs from its hash; fetch the pack again")
        return data

    def anchors(self) -> AnchorBook:
        return AnchorBook.load(self.read("anchors"))

    def tiles(self) -> SpatialMap:
        """The map, its tiles read when they are asked for. Raises NotFound where the pack has none."""
        keys: dict[TileKey, str] = {}
        for name in self.names("tile"):
            i, j, k = name.split(",")
            keys[(int(i), int(j), int(k))] = name
        if not keys:
            raise NotFound(f"pack of {self.venue}: has no map tiles")
        return SpatialMap(keys, lambda key: Tile.from_bytes(self.read("tile", keys[key])), voxel_m=self._voxel_m, tile_m=self._tile_m)

    def scene(self, name: str, client: str, *, now_ms: int) -> Scene:
        """A replica of our own, to edit without a network and sync later (`gateway.client.Client.sync_scene`)."""
        return Scene.load(client, self.read("scene", name), now_ms=now_ms)

    def asset(self, digest: str) -> bytes:
        """An asset by the SHA-256 of its content, hexadecimal."""
        return self.read("asset", digest)


def _tile_name(key: TileKey) -> str:
    return ",".join(str(part) for part in key)
