"""Compile (or load from the cache) every kernel that a turn may need, before the first request comes. Owns a throw-away venue of one room."""

from __future__ import annotations

import struct

from actors.behaviour import Context
from actors.ledger import Ledger
from actors.ledger_codes import OUTSIDE, WALLET
from actors.mall import MallState
from actors.messages import Payments, Rejected, SendTransfers, TopUps, Transfers
from actors.positions import HostSettings, PositionHost
from actors.venue_book import VenueBook
from ar.scene import Scene
from ar.scene_ops import MANY, decode
from esplanade.core.errors import Fault
from esplanade.core.ids import Address
from spatial.columns import PositionColumns
from spatial.offers import Audience, Everyone, Inside, Offer, Terms, Within
from spatial.positioning import live_kernels
from spatial.routes import At
from spatial.venue import Level, Origin, Unit, Venue
from spatial.zone_shapes import Along, Circle, DrawnZone, Line, Polygon, Shape


def _square(size_m: float) -> tuple[tuple[tuple[tuple[float, float], ...], ...], ...]:
    return ((((0.0, 0.0), (size_m, 0.0), (size_m, size_m), (0.0, size_m)),),)


def warm_up() -> None:
    """A few ticks, ways and payments of a venue that nobody sees; a second where the cache is cold for each kernel, little where it is warm."""
    venue = Venue(
        id="warm-up",
        name="Warm-up",
        kind="mall",
        origin=Origin(lat_deg=0, lon_deg=0),
        levels=(Level(id="l", ordinal=0, name="Level", short_name="0", outline=_square(10.0)),),
        units=(Unit(id="u", level_id="l", category="room", polygon=_square(4.0), till=True),),
    )
    book = VenueBook.read(venue.model_dump_json().encode())
    audiences: dict[str, Audience] = {"w": Within(radius_m=3.0), "i": Inside(), "e": Everyone()}
    offers = {name: Offer(id=name, unit_id="u", title=name, audience=audience) for name, audience in audiences.items()}
    offers["t"] = Offer(id="t", unit_id="u", title="t", audience=Inside(), terms=Terms(within_s=60.0))
    settings, mall = HostSettings(dwell_ticks=1), MallState()
    zones: tuple[Shape, ...] = (Circle(2.0, 2.0, 1.0), Along(((1.0, 1.0), (8.0, 8.0)), 1.0), Polygon(_square(3.0)), Line((5.0, 0.0), (5.0, 9.0)))
    for number, shape in enumerate(zones):
        mall.board.draw(DrawnZone(id=f"z{number}", name="z", level=0, shape=shape, margin_m=0.5, least=0.1, accuracy_m=1.0, cross=True))
    mall.standing = 1
    host = PositionHost(book, lambda: (1, offers), epoch=1, pseudonym_key=bytes(64), settings=settings, standing=mall)
    host.start(0.0)
    host.open_source("s", 0, 0.0)
    host.watch({"venue/warm-up/dots/0": 10.0, "venue/warm-up/density/0": 10.0}, 0.0)
    for tick, x in enumerate((1.0, 9.0, 20.0)):
        columns = PositionColumns.unpack(*(bytes(4), bytes(1)), x_m=_f4(x), y_m=_f4(1.0))
        host.take(columns, "s", tick, 0.0)
        host.watermark("s", tick, 1, 0.0)
        host.close(0.0)
    book.router_under(frozenset()).route(At(0, 9.0, 9.0), At(0, 1.0, 9.0))
    restored = PositionHost(book, lambda: (1, offers), epoch=1, pseudonym_key=bytes(64), settings=settings)
    restored.load(host.save())
    scene = Scene("warm-up")
    for _ in range(MANY):
        scene.create(now_ms=1)
    decode(scene.delta({}))
    live_kernels.warm_up()
    ledger, context = Ledger(), Context(address=Address("ledger", "warm-up", "0"), venue=book)
    state = ledger.initial()
    for command in (
        TopUps(tick=0, key=bytes(16), subject=bytes(4), amount=b"\3\0\0\0", currency="EUR"),
        Payments(tick=0, venue="warm-up", key=b"\1" * 16, subject=bytes(4), unit=bytes(2), amount=b"\1\0\0\0", currency="EUR"),
        Transfers(
            currency="EUR",
            op=b"\0",
            key=b"\2" * 16,
            debit=_u8(WALLET << 60),
            credit=_u8(OUTSIDE << 60),
            amount=_u8(1),
            reference=bytes(16),
            expires=bytes(8),
        ),
        SendTransfers(currency="EUR", key=b"\3" * 16, subject=bytes(4), to=b"\1\0\0\0", amount=_u8(1)),
    ):
        decision = ledger.decide(state, command, context)
        if isinstance(decision, Rejected) or not decision.events:
            raise Fault(f"warm-up: {decision}; the ledger refuses what it must accept")
        for event in decision.events:
            state = ledger.apply(state, event)
    loaded = ledger.load(ledger.save(state))
    ledger.balances(loaded, [0])
    loaded.tables.find_key(0, 0)


def _u8(value: int) -> bytes:
    return struct.pack("<Q", value)


def _f4(value: float) -> bytes:
    return struct.pack("<f", value)
