"""Column frames through the gateway into the position host: 1, 100 and 10,000 rows a frame, and 20,000 people at 10 Hz. No peer.

A gateway and a shard on memory drivers in a process of their own, the project's mall with its 733 units, one feed on a loopback socket in this process. `rows/s`: from
the first frame sent until the tick of the last row has closed, with all crossings found (people walk 0.13 m a step). `ms`: from sending a tick's frames until the last of them is taken. `server_ns_a_row`: processor time of the
server's process, which says what the machine could do whatever else runs on it.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import msgpack
import numpy as np
import numpy.typing as npt
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from actors.directory import partitions_of, shard_name
from actors.local_system import LocalSystem
from actors.shard import Shard
from esplanade.core.clock import RealClock
from esplanade.storage.memory import MemoryBroker, MemoryCatalogue, MemoryHub, MemoryJournal, MemoryStore
from gateway.auth import Signer, Verifier
from gateway.server import GatewayServer, GatewaySettings
from spatial.venue_files import load_venue

DOCUMENT = Path(__file__).parents[1] / "scenarios" / "venues" / "parkside_mall.json"
VENUE, SOURCE, SEED = "parkside", "bench", b"k" * 32
STEP_M, HZ = 0.13, 10
WINDOW = 32
"""Frames unanswered at once."""


async def _serve(pipe: Connection) -> None:
    clock = RealClock()
    catalogue, broker = MemoryCatalogue(clock), MemoryBroker(MemoryHub(clock))
    store, signer = MemoryStore(clock), Signer(SEED)
    await catalogue.add_tenant("bench", "Bench")
    await catalogue.put_venue("bench", DOCUMENT.read_bytes())
    shard = Shard(
        name=shard_name(0), owner="bench#1", partitions=partitions_of(0, 1), journal=MemoryJournal(store), catalogue=catalogue, broker=broker, clock=clock,
        secret=b"s" * 32,
    )  # fmt: skip
    await shard.start()
    server = GatewayServer(
        LocalSystem([shard]), MemoryJournal(store), broker, catalogue, Verifier(signer.public_key), signer, clock, GatewaySettings(), None
    )
    pipe.send(await server.start())
    while await asyncio.to_thread(pipe.recv):
        pipe.send(time.process_time())
    await server.stop()
    await shard.stop()


def _server(pipe: Connection) -> None:
    asyncio.run(_serve(pipe))


class Feed:
    """A walking crowd and the connection that tells of it."""

    def __init__(self, ws: ClientConnection, people: int) -> None:
        venue = load_venue(DOCUMENT)
        rng = np.random.default_rng(5)
        outline = np.array([p for polygon in venue.levels[1].outline for p in polygon[0]])
        self._ws = ws
        self._seq = 0
        self._tick = 0
        self._subject = np.arange(people, dtype="<u4")
        self._level = rng.integers(0, len(venue.levels), people).astype(np.uint8)
        self._at = rng.uniform(outline.min(axis=0), outline.max(axis=0), (people, 2))
        turn = rng.uniform(0, 2 * np.pi, people)
        self._step = STEP_M * np.column_stack([np.cos(turn), np.sin(turn)])
        self._waiting: set[int] = set()

    async def begin(self) -> None:
        await self._send({"op": "open_source", "venue": VENUE, "source": SOURCE, "first_tick": 1})
        await self._send({"op": "subscribe", "topic": f"venue/{VENUE}/clock", "rate_hz": 10.0})
        await self.taken()

    async def _send(self, frame: dict[str, object]) -> None:
        self._seq += 1
        self._waiting.add(self._seq)
        await self._ws.send(msgpack.packb({**frame, "seq": self._seq}, use_bin_type=True))

    async def tick(self, rows: int, size: int) -> None:
        """One tick of the first `rows` people in frames of `size`, and its watermark."""
        self._tick += 1
        if self._tick % 200 == 0:
            self._step = -self._step
        self._at += self._step
        at: npt.NDArray[np.float32] = self._at[:rows].astype("<f4")
        for start in range(0, rows, size):
            part = slice(start, min(start + size, rows))
            await self._send(
                {"op": "columns", "venue": VENUE, "source": SOURCE, "tick": self._tick, "subject": self._subject[part].tobytes(),
                 "level": self._level[part].tobytes(), "x": at[part, 0].tobytes(), "y": at[part, 1].tobytes()}
            )  # fmt: skip
            while len(self._waiting) >= WINDOW:
                await self._receive()
        await self._ws.send(msgpack.packb({"op": "watermark", "venue": VENUE, "source": SOURCE, "tick": self._tick, "rows": rows}))

    async def taken(self) -> None:
        """Returns when every frame is answered."""
        while self._waiting:
            await self._receive()

    async def _receive(self) -> int:
        """The newest tick closed, where a frame says so, else -1."""
        message = msgpack.unpackb(await self._ws.recv())
        closed = -1
        for frame in message if isinstance(message, list) else [message]:
            if frame["op"] == "error":
                raise AssertionError(f"{frame}")
            if frame["op"] == "closed":
                closed = max(closed, frame["tick"])
            self._waiting.discard(frame.get("seq", 0))
        return closed

    async def closed(self) -> None:
        """Returns when all that was sent is durable."""
        await self.taken()
        while await self._receive() < self._tick:
            pass


async def _rate(feed: Feed, rows: int, size: int, ticks: int) -> float:
    began = time.perf_counter()
    for _ in range(ticks):
        await feed.tick(rows, size)
    await feed.closed()
    return rows * ticks / (time.perf_counter() - began)


async def _paced(feed: Feed, rows: int, size: int, ticks: int) -> list[float]:
    took_ms, due = [], time.perf_counter()
    for _ in range(ticks):
        due += 1 / HZ
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        began = time.perf_counter()
        await feed.tick(rows, size)
        await feed.taken()
        took_ms.append((time.perf_counter() - began) * 1e3)
    return took_ms


async def _measure(port: int, n: int, repeats: int, server_s: Callable[[], float]) -> dict[str, object]:
    token = Signer(SEED).issue(1, "bench", "feed", SOURCE, 3600.0, time.time())
    async with connect(f"ws://127.0.0.1:{port}/v1/ws", subprotocols=[Subprotocol("esplanade.v1.msgpack")], compression=None, max_size=2**24) as ws:
        await ws.send(msgpack.packb({"op": "hello", "client": "bench", "token": token, "venue": VENUE}))
        await ws.recv()
        feed = Feed(ws, n)
        await feed.begin()
        await _rate(feed, n, 10_000, 5)
        shapes = {1: (200, 5), 100: (min(n, 10_000), 10), 10_000: (n, 40)}
        rates: dict[int, list[float]] = {size: [] for size in shapes}
        busy_ns: list[float] = []
        for i in range(repeats):
            for size, (rows, ticks) in shapes.items():
                began_s = server_s()
                rates[size].append(await _rate(feed, rows, size, ticks))
                if size == max(shapes):
                    busy_ns.append((server_s() - began_s) / (rows * ticks) * 1e9)
            print(f"columns {i + 1}/{repeats}: " + ", ".join(f"{size} a frame {rates[size][-1]:,.0f} rows/s" for size in shapes), flush=True)
        took_ms = await _paced(feed, n, 10_000, 150)
    return {
        "name": "columns", "n": n, "unit": "rows/s", **{f"rows_{size}": round(statistics.median(each)) for size, each in rates.items()},
        "server_ns_a_row_10000": round(statistics.median(busy_ns)), "people_at_10_hz": n, "p50_ms": round(float(np.percentile(took_ms, 50)), 2), "p99_ms": round(float(np.percentile(took_ms, 99)), 2),
    }  # fmt: skip


def run(*, n: int = 20_000, repeats: int = 5) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_server, args=(theirs,))
    process.start()
    try:
        port = ours.recv()

        def server_s() -> float:
            ours.send(True)
            return float(ours.recv())

        result = asyncio.run(_measure(port, n, repeats, server_s))
        ours.send(False)
        process.join(20)
    finally:
        process.terminate()
        process.join()
    print(json.dumps(result), flush=True)
