"""Reads of one hot wallet by many readers through Ray: allowing 100 ms of staleness against asking each time; peers are the same readers without it.

One shard process on the embedded PostgreSQL, 64 readers in the gateway's place, each with one read under way. Both forms go through the gateway's `StaleReads` and the same `RaySystem`, in
turn. Beside reads a second: turns that the shard ran for each, since a hot actor's own time is what staleness saves.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from actors.directory import Directory, decode_leases
from actors.messages import Balance, GetBalance, TopUps
from actors.ray_system import ProcessHandle, RaySystem, spawn, start_ray
from esplanade.core.clock import RealClock
from esplanade.core.ids import PARTITIONS, Address
from esplanade.service_config import ServiceConfig
from esplanade.storage.embedded import start_postgres, start_redis
from esplanade.storage.postgres_migrate import migrate
from gateway.metrics import GatewayMetrics
from gateway.stale_reads import StaleReads

READERS = 64
STALE_MS = 100
LEDGER = Address("ledger", "bench", "0")


async def _reads(reads: StaleReads, n: int, stale_ms: int) -> float:
    """Reads a second."""

    async def reader() -> None:
        for _ in range(n // READERS):
            reply = await reads.ask(LEDGER, GetBalance(subject=8), stale_ms=stale_ms)
            if not isinstance(reply, Balance) or reply.balances != {"EUR": 100}:
                raise AssertionError(f"{reply}")

    began = time.perf_counter()
    await asyncio.gather(*(reader() for _ in range(READERS)))
    return n // READERS * READERS / (time.perf_counter() - began)


async def _measured(process: ProcessHandle, reads: StaleReads, n: int, stale_ms: int) -> tuple[float, float]:
    """(reads a second, turns of the shard a read)."""
    before = (await process.call("profile"))["turns"]
    rate = await _reads(reads, n, stale_ms)
    return rate, ((await process.call("profile"))["turns"] - before) / n


async def _measure(urls: tuple[str, str], n: int, repeats: int) -> dict[str, object]:
    config = ServiceConfig(
        postgres_url=urls[0], redis_url=urls[1], shards=1, spares=0, host="127.0.0.1", gateway_port=0, api_port=0, local_sign_in=False,
        allowed_origins=(), console=None, max_connections=1, lease_ttl_s=30.0, tick_deadline_s=10.0,
    )  # fmt: skip
    process = spawn("esplanade.shard_process:ShardProcess", "shard-0", config, 0)
    await process.started()
    directory = Directory()
    directory.adopt(decode_leases(await process.call("take", list(range(PARTITIONS)))))
    system = RaySystem(directory)
    await system.ask(
        LEDGER,
        TopUps(tick=0, key=bytes(16), subject=np.array([8], "<u4").tobytes(), amount=np.array([100], "<u4").tobytes(), currency="EUR"),
        deadline_s=60,
    )
    reads = StaleReads(system, RealClock(), GatewayMetrics())
    await _reads(reads, n // 10, 0)
    stale, fresh = [], []
    for i in range(repeats):
        stale.append(await _measured(process, reads, n, STALE_MS))
        fresh.append(await _measured(process, reads, n // 10, 0))
        print(f"stale_reads {i + 1}/{repeats}: ours {stale[-1][0]:,.0f} reads/s, peer {fresh[-1][0]:,.0f}", flush=True)
    await process.stop()
    ours, peer = statistics.median(rate for rate, _ in stale), statistics.median(rate for rate, _ in fresh)
    return {
        "name": "stale_reads", "n": n, "ours": round(ours), "peer": round(peer), "unit": "reads/s", "ratio": round(ours / peer, 1),
        "turns_a_read": round(statistics.median(turns for _, turns in stale), 6), "peer_turns_a_read": round(statistics.median(turns for _, turns in fresh), 3),
        "stale_ms": STALE_MS, "readers": READERS,
    }  # fmt: skip


def run(*, n: int = 200_000, repeats: int = 5) -> None:
    folder = Path(tempfile.mkdtemp(prefix="esplanade-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    servers: list[Any] = []
    try:
        servers += [start_postgres(folder), start_redis(folder)]
        migrate(servers[0].url)
        node = start_ray(processes=1)
        try:
            result = asyncio.run(_measure((servers[0].url, servers[1].url), n, repeats))
        finally:
            node.stop()
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result), flush=True)
