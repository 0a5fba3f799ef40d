"""The tick of a venue that nobody here follows: asked of its host, shared by all who ask at once, and good for HELD_S."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from actors.system import System
from esplanade.core.clock import SystemClock

HELD_S: Final = 0.1
"""One tick of a free venue: what is stamped with it may be so much behind the venue's own clock."""
MAX_VENUES: Final = 1_024


class Ticks:
    def __init__(self, system: System, clock: SystemClock) -> None:
        self._system = system
        self._clock = clock
        self._held: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Task[int]] = {}

    def at_hand(self, tenant: str, venue: str) -> int | None:
        """The last closed tick, as of the last HELD_S; None where it must be asked for."""
        held = self._held.get((tenant, venue))
        return None if held is None or self._clock.monotonic_s() - held[0] > HELD_S else held[1]

    async def get(self, tenant: str, venue: str) -> int:
        """Raises what `System.clock` raises."""
        tick = self.at_hand(tenant, venue)
        if tick is not None:
            return tick
        key = (tenant, venue)
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.ensure_future(self._ask(key))
            asking.add_done_callback(lambda done: self._asked(key, done))
        return await asyncio.shield(asking)

    async def _ask(self, key: tuple[str, str]) -> int:
        asked_s = self._clock.monotonic_s()
        tick = (await self._system.clock(*key)).tick
        self._held[key] = asked_s, tick
        self._held.move_to_end(key)
        if len(self._held) > MAX_VENUES:
            self._held.popitem(last=False)
        return tick

    def _asked(self, key: tuple[str, str], done: asyncio.Task[int]) -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # whoever waits has it too; perhaps nobody does any more

    def stop(self) -> None:
        for asking in list(self._asking.values()):
            asking.cancel()
