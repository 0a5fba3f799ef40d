"""Turns of position hosts within a shard: what sources send, and the ticks that close by it. Owns when a tick is closed; what is in it is the host's business.

What a host says is gathered by the flusher like the events of any turn; publications follow when they are durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from actors.audiences import Preparation
from actors.flusher import Flusher
from actors.partition_log import HostedPositions, PartitionLog
from actors.positions import PositionHost, Step
from actors.profile import ShardProfile
from actors.requests import Answer, Clocked, CloseSource, GetClock, OpenSource, Take, Watch, Watermark, columns_of
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, Fault

MAX_TICKS_A_STEP: Final = 4
"""Ticks closed before other requests get their turn."""


class VenueTurns:
    """Of one shard. `leaving`: its partitions that are being handed over, whose hosts do nothing more; `give_up(log, error)`: a host broke."""

    def __init__(
        self, flusher: Flusher, clock: SystemClock, profile: ShardProfile, leaving: set[int], give_up: Callable[[PartitionLog, EsplanadeError], None]
    ) -> None:
        self._flusher = flusher
        self._clock = clock
        self._profile = profile
        self._leaving = leaving
        self._give_up = give_up
        self._preparing: dict[PositionHost, asyncio.Task[None]] = {}

    def run(self, log: PartitionLog, request: Take | Watermark | OpenSource | CloseSource | GetClock | Watch, now_s: float) -> Answer:
        held = log.hosts[request.venue]
        host = held.host
        match request:
            case Take():
                host.take(columns_of(request), request.source, request.tick, now_s)
            case Watermark():
                host.watermark(request.source, request.tick, request.rows, now_s)
            case OpenSource():
                self.commit(log, held, host.open_source(request.source, request.first_tick, now_s))
            case CloseSource():
                self.commit(log, held, host.close_source(request.source, now_s))
            case Watch():
                host.watch(request.topics, now_s)
            case GetClock():
                pass
        self._advance(log, held, now_s)
        return Clocked(host.clock())

    def commit(self, log: PartitionLog, held: HostedPositions, step: Step) -> None:
        """Gather a host's events and entries; publications follow when they are durable."""
        if step.events:
            self._flusher.append(log, held.enter(step), [(topic, msgspec.msgpack.encode(body)) for topic, body in step.outbox])
        for topic, body in step.publish:
            self._flusher.publish(log, topic, msgspec.msgpack.encode(body))

    def _advance(self, log: PartitionLog, held: HostedPositions, now_s: float) -> None:
        """Close the ticks that are complete, a few at a time."""
        host = held.host
        for _ in range(MAX_TICKS_A_STEP):
            if log.given_up or log.partition in self._leaving or self._flusher.full or not host.ready(now_s):
                return
            if self._lacks(log, held) and host.looks_at_terms:
                return  # this venue's clock waits for its walking times; the shard does not
            began_s = self._clock.monotonic_s()
            step = host.close(now_s)
            took_s = self._clock.monotonic_s() - began_s
            host.tick_ms = took_s * 1000
            self._profile.ticks += 1
            self._profile.tick_s += took_s
            self.commit(log, held, step)
        if not held.advancing:
            held.advancing = True
            asyncio.get_running_loop().call_soon(self._advance_on, log, held)

    def _lacks(self, log: PartitionLog, held: HostedPositions) -> bool:
        """Whether walking times are being made for the host, in a thread; they are begun as soon as an offer asks for them."""
        host = held.host
        if host in self._preparing:
            return True
        lacking = host.lacking()
        if lacking is None:
            return False
        self._preparing[host] = task = asyncio.create_task(self._prepare(log, held, lacking))
        task.add_done_callback(lambda _: self._preparing.pop(host, None))
        return True

    async def _prepare(self, log: PartitionLog, held: HostedPositions, lacking: Preparation) -> None:
        try:
            held.host.prepared(await asyncio.to_thread(lacking.make))
        except Exception as error:
            self._give_up(log, Fault(f"{held.name}: walking times: {type(error).__name__}: {error}; it is replayed"))
        finally:
            self._preparing.pop(held.host, None)
        if not log.given_up:
            self.advance_guarded(log, held, self._clock.monotonic_s())

    async def prepared(self) -> None:
        """Returns when nothing is being prepared."""
        while self._preparing:
            await asyncio.wait(list(self._preparing.values()))

    async def stop(self) -> None:
        for task in self._preparing.values():
            task.cancel()
        await asyncio.gather(*self._preparing.values(), return_exceptions=True)

    def _advance_on(self, log: PartitionLog, held: HostedPositions) -> None:
        held.advancing = False
        self.advance_guarded(log, held, self._clock.monotonic_s())

    def advance_guarded(self, log: PartitionLog, held: HostedPositions, now_s: float) -> None:
        if log.partition in self._leaving:
            return
        try:
            self.commit(log, held, held.host.poll(now_s))
            self._advance(log, held, now_s)
        except Exception as error:
            self._give_up(log, Fault(f"{held.name}: {type(error).__name__}: {error}; it is replayed"))
