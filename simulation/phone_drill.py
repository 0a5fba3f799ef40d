"""A crowd's phones as clients of a running gateway: each says once a second what it senses, and what it is told is held against the truth.

Owns pace, connections and latencies of the drill. An open model: a second's messages leave when they are due, whether or not the last ones were answered; latency counts from the moment a message was due.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import msgspec
import numpy as np

from esplanade.core.clock import ticks
from esplanade.core.errors import EsplanadeError, LimitExceeded
from gateway.client import Client
from simulation.engine import Crowd
from simulation.phone_score import PhoneReport, Truth, crowd_of
from simulation.phones import Air, Phones, PhoneSettings, Sensed
from spatial.columns import PositionColumns

CONNECTING: Final = 32
MAX_PEOPLE: Final = 5_000
"""Each is a connection of this process."""
ANSWERS_S: Final = 15.0
"""How long the last answers may take."""


class DrillReport(msgspec.Struct, frozen=True):
    """scored: as of `simulation.phone_score`; latency in ms from the moment a message was due; late_s: how far behind its own pace the drill was at worst (the generator is the bottleneck where that is much)."""

    scored: PhoneReport
    answered: int
    errors: dict[str, int]
    p50_ms: float
    p99_ms: float
    late_s: float


class _Drill:
    def __init__(self, url: str, tenant: str, air: Air, seed: int, settings: PhoneSettings | None) -> None:
        self._url, self._tenant, self._venue = url, tenant, air.venue.id
        self._phones = Phones(air, seed, settings or PhoneSettings())
        self._clients: dict[int, Client] = {}
        self._connecting = asyncio.Semaphore(CONNECTING)
        self._latencies_ms: list[float] = []
        self._errors: dict[str, int] = {}
        self._truth = Truth(keep_s=60.0)
        self._sent = 0

    async def run(self, crowd: Crowd, seconds: int) -> DrillReport:
        where = await asyncio.to_thread(_second, crowd)
        await self._connect(where.subject.tolist())
        began_s, late_s = time.monotonic(), 0.0
        asking: set[asyncio.Task[None]] = set()
        for second in range(seconds):
            due_s = began_s + second
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            late_s = max(late_s, time.monotonic() - due_s)
            self._truth.put(float(second), where)
            for message in self._phones.sense(float(second), where):
                task = asyncio.create_task(self._ask(message, due_s))
                asking.add(task)
                task.add_done_callback(asking.discard)
            where = await asyncio.to_thread(_second, crowd)
            await self._connect([subject for subject in where.subject.tolist() if subject not in self._clients])
        if asking:
            _, left = await asyncio.wait(list(asking), timeout=ANSWERS_S)
            for task in left:
                task.cancel()
        return self._report(late_s)

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self._clients.values()), return_exceptions=True)

    async def _connect(self, subjects: list[int]) -> None:
        async def one(subject: int) -> None:
            async with self._connecting:
                self._clients[subject] = await Client.connect(
                    self._url, guest_of=self._tenant, client=f"drill-{subject}", venue=self._venue, auto_ack=True
                )

        if len(self._clients) + len(subjects) > MAX_PEOPLE:
            raise LimitExceeded(
                f"drill: {len(self._clients) + len(subjects)} phones; at most {MAX_PEOPLE} a process, so drill for a shorter time or with fewer"
            )
        await asyncio.gather(*(one(subject) for subject in subjects))

    async def _ask(self, message: Sensed, due_s: float) -> None:
        client = self._clients.get(message.subject)
        if client is None:
            return
        self._sent += 1
        fields: dict[str, Any] = self._phones.fields(message)
        try:
            told = await client.observe(self._venue, **fields)
        except EsplanadeError as error:
            self._errors[error.code] = self._errors.get(error.code, 0) + 1
            return
        self._latencies_ms.append(1000 * (time.monotonic() - due_s))
        self._truth.compare(
            message.subject,
            fields["at_ms"],
            told["state"],
            told.get("level", -1),
            told.get("x", np.nan),
            told.get("y", np.nan),
            told.get("radius_m", 0.0),
        )

    def _report(self, late_s: float) -> DrillReport:
        scored = self._truth.report(phones=len(self._clients), observations=self._sent, lost=self._phones.account.lost, cpu_us=0.0)
        p50, p99 = np.percentile(self._latencies_ms, [50, 99]) if self._latencies_ms else (0.0, 0.0)
        return DrillReport(scored, len(self._latencies_ms), self._errors, round(float(p50), 1), round(float(p99), 1), round(late_s, 2))


def _second(crowd: Crowd) -> PositionColumns:
    """Where everybody is a second later."""
    for _ in range(ticks(1.0)):
        where = crowd.step().positions
    return where


async def drill(url: str, tenant: str, air: Air, *, people: int, seconds: int, seed: int, settings: PhoneSettings | None = None) -> DrillReport:
    """Guests of a tenant at a gateway's address, in real time. The venue's radio map must be one of the same air (`esplanade positioning simulate --out`, with the same seed)."""
    crowd = await asyncio.to_thread(crowd_of, air.venue, people, seed=seed)
    running = _Drill(url, tenant, air, seed, settings)
    try:
        return await running.run(crowd, seconds)
    finally:
        await running.close()
