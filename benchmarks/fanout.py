"""Deliveries a server CPU-second: one topic of the gateway to 5,000 authenticated clients; the peer is bare `websockets.broadcast` to as many.

Both servers run on one core (the same), the clients on another; windows of both in turn. Ours has every check on: session, token, role, limits, metrics, back pressure, and the
publication travels from journal and broker (in memory) through the hub. 128 B a publication, a tick each 50 ms, with one publication and with four in it. The peer says as many
publications in as many calls. Latency is from before the publication is made until the client has read it. `clients_in_time`: readers of one publication a tick, the most of SHARES of all clients of whom each
got each within 50 ms (`clients_in_time_99`: 99 of 100 deliveries); the others stay connected and do not subscribe. `tls`: one
publication a tick, to clients under TLS. `slow`: one publication a tick, one client in ten reads once a second; the milliseconds are the others'.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing as mp
import os
import ssl
import statistics
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import msgpack
from websockets.asyncio.server import ServerConnection, broadcast, serve

from actors import topics as t
from benchmarks.gateway_host import SEED, TENANT, GatewayHost, run_as_served
from benchmarks.socket_readers import Readers, now_us, stamped
from gateway.auth import Signer
from gateway.tls import Certificate
from tests.gateway.certificates import certify

BYTES: Final = 128
TICK_S: Final = 0.05
TICKS: Final = 20
"""Ticks of one window."""
IN_TIME_MS: Final = 50
SHARES: Final = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.06, 0.03)
VENUE: Final = "v" * 63
"""So long that a frame has 128 bytes, give or take those of its offset."""
TOPIC: Final = f"venue/{VENUE}/parking"


Files = tuple[Path, Path]
"""Certificate chain and key."""


def _body() -> t.Body:
    return t.ParkingChanged(venue=VENUE, total=now_us(), free=1)


class _Ours:
    def __init__(self, files: Files | None) -> None:
        self._host = GatewayHost(VENUE, certificate=None if files is None else Certificate(*files))

    async def start(self) -> int:
        return await self._host.start()

    async def publish(self, publications: int) -> None:
        await self._host.publish(TOPIC, [_body() for _ in range(publications)])


class _Peer:
    def __init__(self, files: Files | None) -> None:
        self._files = files

    async def start(self) -> int:
        self._connections: set[ServerConnection] = set()

        async def connected(ws: ServerConnection) -> None:
            self._connections.add(ws)
            await ws.wait_closed()

        context = None
        if self._files is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._files)
        self._server = await serve(connected, "127.0.0.1", 0, compression=None, ping_interval=None, ssl=context)
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def publish(self, publications: int) -> None:
        for _ in range(publications):
            broadcast(self._connections, stamped(BYTES))


def _serve(kind: str, files: Files | None, pipe: Connection) -> None:
    os.sched_setaffinity(0, {0})

    async def main() -> None:
        server = _Ours(files) if kind == "ours" else _Peer(files)
        pipe.send(await server.start())
        while True:
            order: int | None = await asyncio.to_thread(pipe.recv)
            if order is None:
                os._exit(0)
            gc.collect()
            gc.freeze()
            began, cpu = time.monotonic(), time.process_time()
            for i in range(TICKS):
                await asyncio.sleep(max(0.0, began + i * TICK_S - time.monotonic()))
                await server.publish(order)
            await asyncio.sleep(0.5)
            pipe.send((time.process_time() - cpu, time.monotonic() - began - 0.5))

    run_as_served(main()) if kind == "ours" else asyncio.run(main())


def _read(ports: dict[str, int], n: int, files: Files | None, pipe: Connection) -> None:
    os.sched_setaffinity(0, {1})
    signer, now = Signer(SEED), time.time()
    subscribe = {"op": "subscribe", "seq": 1, "topic": TOPIC}

    def hello(i: int) -> bytes:
        token = signer.issue(i, TENANT, "shopper", None, 3600, now)
        return bytes(msgpack.packb([{"op": "hello", "client": f"c{i}", "token": token}, subscribe]))

    context = None if files is None else ssl.create_default_context(cafile=str(files[0]))
    if context is not None:
        context.check_hostname = False
    sets = {
        "ours": Readers(ports["ours"], n, first=hello, reply=b"subscribed", subprotocol="esplanade.v1.msgpack", context=context),
        "peer": Readers(ports["peer"], n, first=lambda i: None, reply=b"", subprotocol=None, context=context),
    }
    gc.freeze()
    gc.disable()
    pipe.send(None)
    while (order := pipe.recv()) is not None:
        kind, publications, slow_every = order
        if kind == "fewer":
            sets["ours"].say(msgpack.packb({"op": "unsubscribe", "seq": 2, "topic": TOPIC}), publications)
            time.sleep(1.0)
            sets["ours"].forget()
            pipe.send(None)
            continue
        if kind == "ours":
            sets[kind].say(msgpack.packb({"op": "ack", "pushes": []}))  # a sign of life: nobody is probed in the middle of a window
            time.sleep(0.5)
        pipe.send(None)
        pipe.send(sets[kind].read(publications, timeout_s=60, slow_every=slow_every))


def _window(
    kind: str, server: Connection, readers: Connection, n: int, publications: int, slow_every: int = 0
) -> tuple[float, float, float, Counter[int]]:
    """(deliveries a CPU-second, deliveries a second, CPU of a core, deliveries by milliseconds)."""
    wanted = n * TICKS * publications
    readers.send((kind, wanted, slow_every))
    readers.recv()
    server.send(publications)
    found, after_ms = readers.recv()
    cpu_s, wall_s = server.recv()
    if found != wanted:
        raise AssertionError(f"{kind}: {found} of {wanted} publications delivered")
    return wanted / cpu_s, wanted / wall_s, cpu_s / wall_s, after_ms


def _in_time(server: Connection, readers: Connection, n: int, repeats: int) -> tuple[int, int]:
    """Of how many readers each got each publication in time, and of how many 99 of 100 did."""
    best = {0.0: 0, 0.01: 0}
    for share in SHARES:
        n_left = max(1, round(n * share))
        readers.send(("fewer", n_left, 0))
        readers.recv()
        after_ms: Counter[int] = Counter()
        for _ in range(repeats):
            after_ms += _window("ours", server, readers, n_left, 1)[3]
        late = sum(count for ms, count in after_ms.items() if ms >= IN_TIME_MS) / after_ms.total()
        print(f"fanout in time: {n_left:,} readers, {100 * late:.2f} % late, slowest {max(after_ms)} ms", flush=True)
        for allowed in best:
            if late <= allowed and not best[allowed]:
                best[allowed] = n_left
        if all(best.values()):
            break
    return best[0.0], best[0.01]


def _percentile(after_ms: Counter[int], part: float) -> int:
    left = part * after_ms.total()
    for ms in sorted(after_ms):
        left -= after_ms[ms]
        if left <= 0:
            return ms
    return max(after_ms)


class _Stage:
    """Both servers and their readers, each in a process of its own. Use as a context."""

    def __init__(self, n: int, files: Files | None = None) -> None:
        self._n = n
        self._processes: list[Any] = []
        context = mp.get_context("spawn")

        def start(target: Any, *arguments: Any) -> Connection:
            pipe, theirs = context.Pipe()
            self._processes.append(context.Process(target=target, args=(*arguments, theirs), daemon=True))
            self._processes[-1].start()
            theirs.close()  # so that its end is heard
            return pipe

        try:
            self.servers = {kind: start(_serve, kind, files) for kind in ("ours", "peer")}
            ports = {kind: server.recv() for kind, server in self.servers.items()}
            self.readers = start(_read, ports, n, files)
            self.readers.recv()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> _Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()

    def compare(self, name: str, repeats: int, *, publications: int = 1, slow_every: int = 0) -> dict[str, Any]:
        """Windows of both in turn, the first of each for nothing."""
        figures: dict[str, list[float]] = {"ours": [], "peer": []}
        late: dict[str, Counter[int]] = {"ours": Counter(), "peer": Counter()}
        cpus: list[float] = []
        for i in range(-1, repeats):
            for kind, server in self.servers.items():
                rate, _, cpu, after_ms = _window(kind, server, self.readers, self._n, publications, slow_every)
                if i >= 0:
                    figures[kind].append(rate)
                    late[kind] += after_ms
                    if kind == "ours":
                        cpus.append(cpu)
            print(f"fanout {name} {i + 1}/{repeats}: ours {rate_of(figures['ours'])}, peer {rate_of(figures['peer'])}", flush=True)
        ours, peer = statistics.median(figures["ours"]), statistics.median(figures["peer"])
        over = sum(count for ms, count in late["ours"].items() if ms >= IN_TIME_MS)
        return {
            "ours": round(ours), "peer": round(peer), "ratio": round(ours / peer, 2), "cpu_of_a_core": round(statistics.median(cpus), 2),
            "p50_ms": _percentile(late["ours"], 0.5), "p99_ms": _percentile(late["ours"], 0.99), "max_ms": max(late["ours"]),
            "later_than_50_ms": over, "of": late["ours"].total(), "peer_p99_ms": _percentile(late["peer"], 0.99), "peer_max_ms": max(late["peer"]),
        }  # fmt: skip


def run(*, n: int = 5_000, repeats: int = 5) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("two cores are needed: one for the server, one for its clients")
    with _Stage(n) as stage:
        results = {f"x{publications}": stage.compare(f"x{publications}", repeats, publications=publications) for publications in (1, 4)}
        results["slow"] = stage.compare("slow", repeats, slow_every=10)
        in_time, in_time_99 = _in_time(stage.servers["ours"], stage.readers, n, max(1, min(3, repeats)))
    with tempfile.TemporaryDirectory() as folder, _Stage(n, certify(Path(folder), "bench", 1)) as stage:
        results["tls"] = stage.compare("tls", repeats)
    base = results["x1"]["peer"]
    print(
        json.dumps(
            {
                "name": "fanout",
                "n": n,
                "unit": "deliveries/server CPU-second",
                "bytes": BYTES,
                "tick_ms": round(TICK_S * 1000),
                "ours": results["x1"]["ours"],
                "peer": base,
                "ratio": results["x1"]["ratio"],
                "ratio_of_four_to_peer_of_one": round(results["x4"]["ours"] / base, 2),
                "clients_in_time": in_time,
                "clients_in_time_99": in_time_99,
                **results,
            }
        )
    )


def rate_of(figures: list[float]) -> str:
    return f"{figures[-1]:,.0f}/CPU-s" if figures else "warm"
