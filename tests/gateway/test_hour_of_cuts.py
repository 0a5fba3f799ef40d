"""An hour of a shopper in a lift, in simulated time: cut off at random moments, with a broker that loses messages and connections, they get what is recoverable once and in order.

The loop's own time is simulated: it jumps to the next timer when nothing can run, so that polls and back-offs of the hub take no time.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors import topics as t
from gateway import frames as f
from spatial.offers import Everyone, Offer
from tests.gateway.test_hub import OFFERS, Reader, World

HOUR_S = 3600.0
ME = 7


class _Jump(selectors.SelectSelector):
    """Waiting takes no time; the clock says it did."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.waited: Callable[[float], None] = lambda _: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout:
            self.now_s += timeout
            self.waited(timeout)
        return super().select(0)


def simulated(main: Callable[[_Jump], Coroutine[Any, Any, None]]) -> None:
    jump = _Jump()
    loop = asyncio.SelectorEventLoop(jump)
    loop.time = lambda: jump.now_s  # type: ignore[method-assign]
    try:
        loop.run_until_complete(main(jump))
    finally:
        loop.close()


@dataclass
class Phone:
    """A client as docs/protocol.md wants it: it knows the last place of each topic it has read, and comes back with it."""

    world: World
    offers: list[str] = field(default_factory=list)
    pushes: list[str] = field(default_factory=list)
    told_it_cannot: int = 0
    cuts: int = 0
    reader: Reader | None = None
    _read: int = 0
    _offers_at: f.Place | None = None
    _pushes_at: f.Place | None = None

    async def connect(self) -> None:
        self.reader, self._read = Reader(ME), 0
        if not await self.world.attach(self.reader, resume=self._pushes_at):
            self.told_it_cannot += 1
        joined = await self.world.join(self.reader, "venue/v/offers", 2.0, resume=self._offers_at)
        if self._offers_at is not None and joined.missed is None:
            self.told_it_cannot += 1
        if self._offers_at is None:
            self._offers_at = joined.place

    def read(self, most: int | None = None) -> None:
        """What has come down the line, or the first of it."""
        assert self.reader is not None
        for frame in self.reader.frames[self._read :][:most]:
            self._read += 1
            if frame["op"] == "offer_state":
                self.offers.append(frame["offer"]["id"])
                self._offers_at = f.Place(**frame["place"])
            elif frame["op"] == "push":
                self.pushes.append(frame["id"])
                self._pushes_at = f.Place(**frame["place"])

    def lose(self, rng: random.Random) -> None:
        """The line is cut somewhere in what was written: the rest never arrives."""
        assert self.reader is not None
        self.read(rng.randint(0, 3))
        self.reader.session.lost()
        self.world.hub.drop(self.reader)
        self.reader = None
        self.cuts += 1


@pytest.mark.parametrize("seed", range(4))
def test_an_hour_of_cuts_loses_nothing_and_doubles_nothing(seed: int) -> None:
    rng = random.Random(seed)
    published: list[str] = []
    pushed: list[str] = []

    async def publisher(world: World, jump: _Jump) -> None:
        n = 0
        while jump.now_s < HOUR_S:
            await asyncio.sleep(rng.expovariate(1.0))
            n += 1
            heard = rng.random() < 0.8  # the broker loses one in five
            if rng.random() < 0.5:
                published.append(f"o{n}")
                body = t.OfferChanged(venue="v", offer=Offer(id=f"o{n}", unit_id="u", title="O", audience=Everyone()), ended=False)
                await world.durable("venue/v/offers", body, publish=heard)
            else:
                pushed.append(f"{OFFERS[0].id}.{ME}.{n}")
                await world.pushes(n, [(0, ME), (1, 8)], publish=heard)
            if rng.random() < 0.01:
                world.broker.hub.lose_connections()

    async def lift(phone: Phone, jump: _Jump) -> None:
        while jump.now_s < HOUR_S:
            await asyncio.sleep(rng.expovariate(1 / 12.0))
            phone.lose(rng)
            await asyncio.sleep(rng.choice((0.0, 0.3, 5.0, 60.0)) * rng.random())
            await phone.connect()

    async def reading(phone: Phone, jump: _Jump) -> None:
        while jump.now_s < HOUR_S:
            await asyncio.sleep(rng.uniform(0.0, 2.0))
            if phone.reader is not None:
                phone.read()

    async def main(jump: _Jump) -> None:
        world = World()
        jump.waited = world.clock.advance
        await world.hub.start()
        phone = Phone(world)
        await phone.connect()
        await asyncio.gather(publisher(world, jump), lift(phone, jump), reading(phone, jump))
        await asyncio.sleep(5.0)  # the hub's poll has found what the broker lost last
        phone.read()
        await world.hub.stop()
        assert phone.told_it_cannot == 0
        assert phone.cuts > 100
        assert phone.offers == published
        assert phone.pushes == pushed  # on the wire already, though a client removes what comes twice by its id

    simulated(main)


def test_without_its_place_a_phone_would_miss_something() -> None:
    """The test above can fail: the same phone, forgetful."""
    with pytest.raises(AssertionError):
        _forgetful()


def _forgetful() -> None:
    async def main(jump: _Jump) -> None:
        world = World()
        jump.waited = world.clock.advance
        await world.hub.start()
        phone = Phone(world)
        await phone.connect()
        phone.lose(random.Random(1))
        await world.pushes(1, [(0, ME)])
        phone._pushes_at = None
        await phone.connect()
        await asyncio.sleep(5.0)
        phone.read()
        await world.hub.stop()
        assert phone.pushes == [f"a.{ME}.1"]

    simulated(main)
