"""Acknowledged requests a second, socket to shard and back: 1,000 connections with one request a message, one and DEPTH of them under way, and with 16 a message; the peer is an
echo by bare `websockets`.

The gateways run as `esplanade serve` has them, with every check on, on one port; their shard is a Ray process on the embedded PostgreSQL; clients, gateways and shard share the machine's cores. Requests are `get_zone` of operators (a
turn each, nothing journalled), and `pay` of 2,000 shoppers (journalled before it is answered; more of them, since a shopper may send 20 frames a second). The peer answers as many
bytes for as many, from no state at all: what the sockets alone allow. `half_load`: `get_zone`, one a message, at half the rate that x1 reached, sent at even moments whether or not
answers have come; an answer's time counts from the moment its request was due, so that a load that falls behind hides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import multiprocessing as mp
import os
import select
import shutil
import statistics
import struct
import tempfile
import time
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack
import numpy as np
import psutil
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from actors import messages as m
from actors.directory import Directory, decode_leases
from actors.ray_system import RaySystem, spawn, start_ray
from benchmarks.gateway_host import TENANT, run_as_served
from benchmarks.socket_readers import Readers, masked
from esplanade.core.ids import PARTITIONS, Address
from esplanade.identities import signing_seed
from esplanade.ports import free_port
from esplanade.service_config import ServiceConfig
from esplanade.storage.embedded import start_postgres, start_redis
from esplanade.storage.postgres import PostgresJournal
from esplanade.storage.postgres_catalogue import PostgresCatalogue
from esplanade.storage.postgres_migrate import migrate
from esplanade.storage.redis import RedisBroker
from gateway.auth import Signer
from gateway.permissions import Role
from tests.actors.parkside import document

VENUE: Final = "parkside"
SEQ: Final = struct.pack(">BI", 0xCE, 0xCAFEBABE)
KEY: Final = bytes([0xEE]) * 16
PAYERS: Final = 2_000
WINDOW_S: Final = 4.0
FUNDS: Final = 10**9
DEPTH: Final = 8
"""Messages of one request that a connection which does not wait for each answer has under way."""
ANSWER: Final = b"\xa3seq"
"""Every answer holds the key `seq` once."""


class _Load:
    """Connections that have `depth` messages of `batch` requests each under way: where all answers to one have come, the next is sent."""

    def __init__(self, port: int, n: int, seed: bytes, *, role: Role, frame: dict[str, Any], batch: int, depth: int, ours: bool) -> None:
        signer, now = Signer(seed), time.time()

        def hello(i: int) -> bytes:
            return bytes(
                msgpack.packb({"op": "hello", "client": f"{role}-{batch}-{depth}-{i}", "token": signer.issue(i, TENANT, role, None, 3600, now)})
            )

        if ours:
            readers = Readers(port, n, first=hello, reply=b"welcome", subprotocol="esplanade.v1.msgpack")
        else:
            readers = Readers(port, n, first=lambda i: None, reply=b"", subprotocol=None)
        self._sockets = readers.sockets
        packed = msgpack.packb(frame)
        self._head, self._tail = packed.split(SEQ)
        self._keyed = KEY in packed
        self._run = time.monotonic_ns()  # keys of no other load: a payment under a known key would not be journalled again
        self._batch = batch
        self._depth = depth
        self._seq = [0] * n
        self._epoll = select.epoll()
        self._index = {one.fileno(): i for i, one in enumerate(self._sockets)}
        for one in self._sockets:
            self._epoll.register(one.fileno(), select.EPOLLIN)

    def _message(self, i: int) -> bytes:
        frames = []
        for seq in range(self._seq[i] + 1, self._seq[i] + self._batch + 1):
            frame = self._head + struct.pack(">BI", 0xCE, seq) + self._tail
            frames.append(frame.replace(KEY, struct.pack("<IIQ", i, seq, self._run)) if self._keyed else frame)
        self._seq[i] += self._batch
        return masked(frames[0] if self._batch == 1 else struct.pack(">BH", 0xDC, self._batch) + b"".join(frames))

    def run(self, window_s: float) -> tuple[int, float, float, int]:
        """(answers, seconds, median milliseconds to an answer, errors among them)."""
        batch = self._batch
        waiting = [batch * self._depth] * len(self._sockets)
        unanswered = [0] * len(self._sockets)  # answers that have come of a message that waits for more
        tails = [b""] * len(self._sockets)
        sent_at: list[deque[float]] = [deque() for _ in self._sockets]
        answers = errors = 0
        delays: list[float] = []
        began = time.monotonic()
        for i, one in enumerate(self._sockets):
            sent_at[i].extend([time.monotonic()] * self._depth)
            one.send(b"".join(self._message(i) for _ in range(self._depth)))
        left = len(self._sockets)
        while left:
            for fd, _ in self._epoll.poll(5.0) or self._stuck(waiting):
                i = self._index[fd]
                data = tails[i] + self._sockets[i].recv(65_536)
                count = data.count(ANSWER)
                tails[i] = data[-3:]
                errors += data.count(b"\xa5error")
                answers += count
                waiting[i] -= count
                messages, unanswered[i] = divmod(unanswered[i] + count, batch)
                if messages:
                    now = time.monotonic()
                    delays.extend(now - sent_at[i].popleft() for _ in range(messages))
                    if now - began < window_s:
                        waiting[i] += messages * batch
                        sent_at[i].extend([now] * messages)
                        self._sockets[i].send(self._message(i) if messages == 1 else b"".join(self._message(i) for _ in range(messages)))
                    elif waiting[i] <= 0:
                        left -= 1
        return answers, time.monotonic() - began, 1000 * statistics.median(delays), errors

    def paced(self, window_s: float, per_s: float) -> tuple[int, float, list[float], int]:
        """(answers, seconds, milliseconds to each answer since its request was due, errors among them), of messages of one request sent at even moments to one connection after another."""
        n = len(self._sockets)
        due_at: list[deque[float]] = [deque() for _ in self._sockets]
        tails = [b""] * n
        delays: list[float] = []
        sent = errors = 0
        wanted = round(window_s * per_s)
        began = last = time.monotonic()
        while len(delays) < wanted:
            now = time.monotonic()
            while sent < wanted and began + sent / per_s <= now:
                i = sent % n
                due_at[i].append(began + sent / per_s)
                self._sockets[i].send(self._message(i))
                sent += 1
            wait_s = max(0.0, began + sent / per_s - time.monotonic()) if sent < wanted else 0.05
            for fd, _ in self._epoll.poll(wait_s):
                i = self._index[fd]
                data = tails[i] + self._sockets[i].recv(65_536)
                tails[i] = data[-3:]
                errors += data.count(b"\xa5error")
                last = time.monotonic()
                delays.extend(1000 * (last - due_at[i].popleft()) for _ in range(data.count(ANSWER)))
            if time.monotonic() - last > 30.0:
                raise AssertionError(f"{wanted - len(delays)} answers do not come")
        return len(delays), last - began, delays, errors

    @staticmethod
    def _stuck(waiting: list[int]) -> list[tuple[int, int]]:
        raise AssertionError(f"{sum(1 for left in waiting if left > 0)} connections wait for answers that do not come")

    def close(self) -> None:
        for one in self._sockets:
            one.close()
        self._epoll.close()


_ZONE: Final = {"op": "get_zone", "seq": 0xCAFEBABE, "venue": VENUE, "zone": "front"}
_PAY: Final = {"op": "pay", "seq": 0xCAFEBABE, "venue": VENUE, "key": KEY, "unit": "shop-00", "amount": 1, "currency": "EUR"}


def _generate(ports: dict[str, int], n: int, seed: bytes, pipe: Connection) -> None:
    gc.disable()
    while (order := pipe.recv()) is not None:
        kind, batch, depth = order[:3]
        if kind == "pay":
            load = _Load(ports["ours"], PAYERS, seed, role="shopper", frame=_PAY, batch=batch, depth=depth, ours=True)
        else:
            load = _Load(ports[kind], n, seed, role="operator", frame=_ZONE, batch=batch, depth=depth, ours=kind == "ours")
        load.run(0.5)
        time.sleep(3.0)  # buckets of the roles' limits are full again
        pipe.send(None)
        pipe.send(load.run(WINDOW_S) if len(order) == 3 else load.paced(WINDOW_S, order[3]))
        load.close()


def _echo(pipe: Connection) -> None:
    async def main() -> None:
        async def connected(ws: ServerConnection) -> None:
            with contextlib.suppress(ConnectionClosed):  # the load ends without good-byes
                async for message in ws:
                    await ws.send(message)

        server = await serve(connected, "127.0.0.1", 0, compression=None, ping_interval=None)
        pipe.send(int(next(iter(server.sockets)).getsockname()[1]))
        await asyncio.to_thread(pipe.recv)
        os._exit(0)

    asyncio.run(main())


class _Figures(NamedTuple):
    """`cpu_us`: processor time an answer, of the gateways (or echo), the shard and the load."""

    per_s: float
    answered_after_ms: float
    errors: int
    cpu_us: tuple[float, ...]


async def _ask(pipe: Connection, order: tuple[str, int, int], measured: list[list[psutil.Process]]) -> _Figures:
    pipe.send(order)
    await asyncio.to_thread(pipe.recv)
    before = [_cpu_s(one) for one in measured]
    answers, took_s, delay_ms, errors = await asyncio.to_thread(pipe.recv)
    cpu_us = tuple(1e6 * (_cpu_s(one) - since) / answers for one, since in zip(measured, before, strict=True))
    if errors:
        print(f"{order}: {errors} errors", flush=True)
    return _Figures(answers / took_s, delay_ms, errors, cpu_us)


def _cpu_s(processes: list[psutil.Process]) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in processes)


async def _at_half_load(pipe: Connection, per_s: float) -> tuple[list[float], int]:
    """Milliseconds to each answer, and how many of those were errors."""
    pipe.send(("ours", 1, 1, per_s / 2))
    await asyncio.to_thread(pipe.recv)
    answers, took_s, delays, errors = await asyncio.to_thread(pipe.recv)
    assert isinstance(delays, list)
    print(f"half load: {answers / took_s:,.0f}/s, p99 {_part(delays, 0.99):.1f} ms, {errors} errors", flush=True)
    return delays, int(errors)


def _part(delays: list[float], part: float) -> float:
    return sorted(delays)[min(len(delays) - 1, int(part * len(delays)))]


async def _measure(urls: tuple[str, str], n: int, repeats: int, depth: int, gateways: int) -> dict[str, object]:
    config = ServiceConfig(
        postgres_url=urls[0], redis_url=urls[1], shards=1, spares=0, host="127.0.0.1", gateway_port=free_port("127.0.0.1"), gateways=gateways, api_port=0,
        local_sign_in=False, allowed_origins=(), console=None, max_connections=20_000, lease_ttl_s=60.0, tick_deadline_s=10.0,
    )  # fmt: skip
    journal, catalogue = await PostgresJournal.open(urls[0]), await PostgresCatalogue.open(urls[0])
    broker = await RedisBroker.open(urls[1])
    await catalogue.add_tenant(TENANT, "Bench")
    await catalogue.put_venue(TENANT, document())
    process = spawn("esplanade.shard_process:ShardProcess", "shard-0", config, 0)
    await process.started()
    directory = Directory()
    directory.adopt(decode_leases(await process.call("take", list(range(PARTITIONS)))))
    system = RaySystem(directory)
    for ledger in range(m.LEDGERS):
        subject = np.arange(ledger, PAYERS, m.LEDGERS, dtype="<u4")
        keys = b"".join(struct.pack("<QQ", 2**63 + ledger, int(one)) for one in subject)
        top_up = m.TopUps(tick=0, key=keys, subject=subject.tobytes(), amount=np.full(len(subject), FUNDS, "<u4").tobytes(), currency="EUR")
        await system.ask(Address("ledger", TENANT, str(ledger)), top_up, deadline_s=120)
    doors = [spawn("esplanade.gateway_process:hosted", f"gateway-{i}", config, i, here=True) for i in range(gateways)]
    await asyncio.gather(*(door.started() for door in doors))
    ports = {"ours": config.gateway_port}
    context = mp.get_context("spawn")
    echo, theirs = context.Pipe()
    processes = [context.Process(target=_echo, args=(theirs,), daemon=True)]
    processes[0].start()
    ports["peer"] = await asyncio.to_thread(echo.recv)
    pipe, theirs = context.Pipe()
    processes.append(context.Process(target=_generate, args=(ports, n, await signing_seed(catalogue, urls[0], None), theirs), daemon=True))
    processes[1].start()
    theirs.close()
    at_doors, shard, echo_process, generator = (
        [psutil.Process(pid) for pid in pids]
        for pids in ([await door.pid() for door in doors], [await process.pid()], [processes[0].pid], [processes[1].pid])
    )
    figures: dict[str, list[_Figures]] = {}
    halves: list[tuple[list[float], int]] = []
    try:
        for i in range(repeats):
            for name, order in (
                ("x1", ("ours", 1, 1)),
                ("peer_x1", ("peer", 1, 1)),
                ("deep", ("ours", 1, depth)),
                ("peer_deep", ("peer", 1, depth)),
                ("x16", ("ours", 16, 1)),
                ("peer_x16", ("peer", 16, 1)),
                ("pay", ("pay", 1, 1)),
            ):
                figures.setdefault(name, []).append(
                    await _ask(pipe, order, [echo_process, generator] if order[0] == "peer" else [at_doors, shard, generator])
                )
            halves.append(await _at_half_load(pipe, figures["x1"][-1].per_s))
            print(f"requests {i + 1}/{repeats}: " + ", ".join(f"{name} {figures[name][-1].per_s:,.0f}/s" for name in figures), flush=True)
    finally:
        for one in processes:
            one.kill()
        for handle in (*doors, process):
            await handle.stop()
        for store in (broker, catalogue, journal):
            await store.close()
    rate = {name: statistics.median(one.per_s for one in series) for name, series in figures.items()}
    return {
        "name": "requests", "n": n, "ours": round(rate["x1"]), "peer": round(rate["peer_x1"]), "unit": "requests/s", "ratio": round(rate["x1"] / rate["peer_x1"], 3), "gateways": gateways,
        "depth": depth, "at_depth": round(rate["deep"]), "peer_at_depth": round(rate["peer_deep"]), "sixteen_a_message": round(rate["x16"]), "peer_sixteen": round(rate["peer_x16"]), "payments": round(rate["pay"]), "payers": PAYERS,
        "half_load": {"per_s": round(rate["x1"] / 2), **{f"p{round(100 * part)}_ms": round(statistics.median(_part(half, part) for half, _ in halves), 1) for part in (0.5, 0.99)}, "errors": sum(errors for _, errors in halves)},
        "errors": sum(one.errors for series in figures.values() for one in series),
        "answered_after_ms": {name: round(statistics.median(one.answered_after_ms for one in series), 1) for name, series in figures.items()},
        "cpu_us": {name: [round(statistics.median(part), 1) for part in zip(*(one.cpu_us for one in series), strict=True)] for name, series in figures.items()},
    }  # fmt: skip


def run(*, n: int = 1_000, repeats: int = 5, depth: int = DEPTH, gateways: int = 2) -> None:
    folder = Path(tempfile.mkdtemp(prefix="esplanade-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    servers: list[Any] = []
    try:
        servers += [start_postgres(folder), start_redis(folder)]
        migrate(servers[0].url)
        node = start_ray(processes=1 + gateways)
        try:
            result = run_as_served(_measure((servers[0].url, servers[1].url), n, repeats, depth, gateways))
        finally:
            node.stop()
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result), flush=True)
