"""A pack brings a place along whole, and says so where it is not."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from ar.anchor_records import Anchor
from ar.anchors import AnchorBook
from ar.clouds import Prepared
from ar.maps import SpatialMap, Tile, TileKey
from ar.pack import Pack, write_pack
from ar.scene import Scene
from esplanade.core.errors import InvalidInput, NotFound

NOW = 1_700_000_000_000
ASSETS = (b"glTF one", b"glTF two")


def tile(key: TileKey) -> Tile:
    rng = np.random.default_rng(abs(hash(key)) % 2**32)
    points = rng.normal(size=(40, 3)).astype(np.float32)
    return Tile.of(key, 0.02, Prepared(points, points, points[:5], points[:5], rng.random((5, 33)).astype(np.float32)), points, points)


def place() -> tuple[AnchorBook, SpatialMap, Scene]:
    book = AnchorBook()
    book.put(Anchor(b"a" * 16, 0, (1.0, 2.0, 3.0)), 7)
    tiles = {key: tile(key) for key in ((0, 0, 0), (-1, 2, 0))}
    scene = Scene("server")
    scene.set(scene.create(now_ms=NOW), "colour", "red", now_ms=NOW)
    return book, SpatialMap(tiles, tiles.__getitem__), scene


def packed() -> bytes:
    book, tiles, scene = place()
    return write_pack("parkside", made_ms=NOW, anchors=book, tiles=tiles, scenes=[("hall", scene)], assets=[*ASSETS, ASSETS[0]])


def test_a_place_comes_out_of_its_pack_as_it_went_in() -> None:
    book, tiles, scene = place()
    pack = Pack(memoryview(packed()))
    assert (pack.venue, pack.made_ms) == ("parkside", NOW)
    assert pack.anchors().save() == book.save()
    again = pack.tiles()
    assert again.keys == tiles.keys
    assert (again.voxel_m, again.tile_m) == (tiles.voxel_m, tiles.tile_m)
    for key in tiles.keys:
        assert again.tile(key).version() == tiles.tile(key).version()
    assert [pack.asset(hashlib.sha256(asset).hexdigest()) for asset in ASSETS] == list(ASSETS)
    assert len(pack.names("asset")) == 2, "the same asset is there once"
    replica = pack.scene("hall", "7:phone", now_ms=NOW)
    assert replica.digest() == scene.digest()
    since = dict(replica.ack().seen)
    replica.create(now_ms=NOW + 5)
    scene.merge(replica.delta(since), now_ms=NOW + 5)
    assert replica.digest() == scene.digest()


def test_equal_places_give_equal_packs_named_by_their_content() -> None:
    assert packed() == packed()
    assert Pack(packed()).digest == hashlib.sha256(packed()[:-32]).digest()
    other = write_pack("parkside", made_ms=NOW, assets=ASSETS)
    assert Pack(other).digest != Pack(packed()).digest


@pytest.mark.parametrize("cut", [0, 10, 43, 100, -1])
def test_a_pack_that_is_cut_is_refused(cut: int) -> None:
    with pytest.raises(InvalidInput, match="pack of"):
        Pack(packed()[:cut])


def test_a_changed_byte_is_found_wherever_it_is() -> None:
    good = packed()
    for at in range(0, len(good), max(1, len(good) // 60)):
        bad = bytearray(good)
        bad[at] ^= 1
        with pytest.raises(InvalidInput):
            Pack(bytes(bad))


def test_a_head_that_lies_about_its_entries_is_refused() -> None:
    good = packed()
    body = good[:-33]
    with pytest.raises(InvalidInput, match="its entries take"):
        Pack(body + hashlib.sha256(body).digest())


def test_what_a_pack_has_not_is_told() -> None:
    pack = Pack(write_pack("parkside", made_ms=NOW))
    for ask in (pack.anchors, pack.tiles, lambda: pack.scene("hall", "c", now_ms=NOW), lambda: pack.asset("00")):
        with pytest.raises(NotFound, match="pack of parkside"):
            ask()
    with pytest.raises(InvalidInput, match="stands twice"):
        write_pack("parkside", made_ms=NOW, scenes=[("hall", Scene("a")), ("hall", Scene("b"))])
