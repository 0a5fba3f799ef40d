"""Memory of an idle authenticated connection, and a reconnect storm: two gateways with 9,500 each; the peer is bare `websockets` with as many.

Memory is what the process has grown by (resident, garbage collected), once all are welcome and in a venue. Then every client's socket is closed at once, and all come back: connect, hello with a
token, resume in the venue; the time is from the first attempt until the last is welcome and resumed. Clients share the two cores with both gateways. `cpu_us` is the servers' processor time a
connection in a storm, the end of the old one included: what is left of a storm's length where the machine is not shared with others.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing as mp
import os
import statistics
import time
from multiprocessing.connection import Connection
from typing import Final

import msgpack
import psutil
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.gateway_host import SEED, TENANT, GatewayHost, run_as_served
from benchmarks.socket_readers import Readers
from gateway.auth import Signer

VENUE: Final = "v"
HOSTS: Final = tuple(f"127.0.0.{i}" for i in range(2, 6))
AT_ONCE: Final = 256
"""Connections a client process opens at once; two do."""


def _serve(kind: str, pipe: Connection) -> None:
    async def main() -> None:
        if kind == "ours":
            port = await GatewayHost(VENUE).start()
        else:

            async def connected(ws: ServerConnection) -> None:
                await ws.wait_closed()

            peer = await serve(connected, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=4096)
            port = int(next(iter(peer.sockets)).getsockname()[1])
        pipe.send(port)
        while await asyncio.to_thread(pipe.recv) is not None:
            cpu_s = time.process_time()
            gc.collect()
            pipe.send((psutil.Process().memory_info().rss, cpu_s))
        os._exit(0)

    run_as_served(main()) if kind == "ours" else asyncio.run(main())


def _hello(first: int) -> list[bytes]:
    signer, now = Signer(SEED), time.time()
    out = []
    for i in range(first, first + 20_000):
        token = signer.issue(i, TENANT, "shopper", None, 3600, now)
        out.append(msgpack.packb({"op": "hello", "client": f"c{i}", "token": token, "venue": VENUE, "resume": {"epoch": 1, "offset": 0}}))
    return out


def _clients(kind: str, port: int, n: int, index: int, pipe: Connection) -> None:
    hellos = _hello(index * 20_000)[:n] if kind == "ours" else []
    resumed = msgpack.packb({"resumed": True})[1:]

    def connect() -> Readers:
        if kind == "ours":
            return Readers(port, n, first=lambda i: hellos[i], reply=resumed, subprotocol="esplanade.v1.msgpack", hosts=HOSTS, chunk=AT_ONCE)
        return Readers(port, n, first=lambda i: None, reply=b"", subprotocol=None, hosts=HOSTS, chunk=AT_ONCE)

    readers = connect()
    pipe.send(None)
    while pipe.recv() is not None:
        readers.close()
        pipe.send(None)
        pipe.recv()
        readers = connect()
        pipe.send(None)


def _asked(pipes: list[Connection]) -> list[tuple[int, float]]:
    """(resident bytes, seconds of processor time) of each server."""
    for pipe in pipes:
        pipe.send(True)
    return [pipe.recv() for pipe in pipes]


def _measure(kind: str, n: int, repeats: int) -> tuple[float, list[float], list[float]]:
    """(bytes a connection, seconds of each storm, servers' seconds of processor time a connection in each)."""
    context = mp.get_context("spawn")
    processes = []
    try:
        servers: list[Connection] = []
        for _ in range(2):
            mine, theirs = context.Pipe()
            processes.append(context.Process(target=_serve, args=(kind, theirs), daemon=True))
            processes[-1].start()
            theirs.close()
            servers.append(mine)
        ports = [pipe.recv() for pipe in servers]
        before = _asked(servers)
        clients: list[Connection] = []
        for index, port in enumerate(ports):
            mine, theirs = context.Pipe()
            processes.append(context.Process(target=_clients, args=(kind, port, n, index, theirs), daemon=True))
            processes[-1].start()
            theirs.close()
            clients.append(mine)
        for pipe in clients:
            pipe.recv()
        grown = statistics.mean((after[0] - earlier[0]) / n for after, earlier in zip(_asked(servers), before, strict=True))
        storms, cpus = [], []
        for i in range(repeats):
            cpu_s = -sum(used for _, used in _asked(servers))
            for pipe in clients:
                pipe.send(True)
            for pipe in clients:
                pipe.recv()
            began = time.monotonic()
            for pipe in clients:
                pipe.send(True)
            for pipe in clients:
                pipe.recv()
            storms.append(time.monotonic() - began)
            cpus.append((cpu_s + sum(used for _, used in _asked(servers))) / (2 * n))
            print(
                f"connections {kind} {i + 1}/{repeats}: all {2 * n:,} back after {storms[-1]:.1f} s, {1e6 * cpus[-1]:.0f} us of server each",
                flush=True,
            )
        return grown, storms, cpus
    finally:
        for process in processes:
            process.kill()


def run(*, n: int = 9_500, repeats: int = 5) -> None:
    ours, storms, cpus = _measure("ours", n, repeats)
    peer, peer_storms, peer_cpus = _measure("peer", n, repeats)
    print(
        json.dumps(
            {
                "name": "connections", "n": 2 * n, "ours": round(ours), "peer": round(peer), "unit": "bytes of server memory a connection",
                "ratio": round(peer / ours, 3), "storm_s": round(statistics.median(storms), 1), "storm_slowest_s": round(max(storms), 1),
                "peer_storm_s": round(statistics.median(peer_storms), 1),
                "cpu_us": round(1e6 * statistics.median(cpus)), "peer_cpu_us": round(1e6 * statistics.median(peer_cpus)),
            }
        )
    )  # fmt: skip
