"""One million idle wallets in one shard process: its memory, and how soon 100,000 of them are answered when asked at once just after SIGKILL; peer: Redis hashes.

A warm spare stands by, as in production; the questions are sent the moment the shard is killed, in calls of 1,024, and every answer is checked, once all have come. Beside the
time to 99 % of the answers: when the spare had taken the partitions over, and when the first call was answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import redis

from actors.directory import shard_name
from actors.messages import LEDGERS, Balance, GetBalance, Settled, TopUps
from actors.ray_system import RaySystem, spawn, start_ray
from actors.requests import Answer, Ask, Replied
from actors.supervisor import Supervisor, SupervisorSettings
from esplanade.core.clock import RealClock
from esplanade.core.ids import Address
from esplanade.service_config import GC_YOUNG_DOOR, ServiceConfig, settle_collector
from esplanade.storage.embedded import start_postgres, start_redis
from esplanade.storage.postgres import PostgresJournal
from esplanade.storage.postgres_migrate import migrate
from esplanade.storage.redis import RedisBroker

TENANT = "bench"
ROWS = 8_192
ASKED = 100_000
CALL = 1_024
LEASE_S = 10.0


async def _fill(system: RaySystem, n: int) -> None:
    for ledger in range(LEDGERS):
        subjects = np.arange(ledger, n, LEDGERS, dtype="<u4")
        for i in range(0, len(subjects), ROWS):
            part = subjects[i : i + ROWS]
            key = np.stack([part.astype("<u8"), np.full(len(part), 7, "<u8")], axis=1).tobytes()
            top = TopUps(tick=0, key=key, subject=part.tobytes(), amount=(part % 1000 + 1).astype("<u4").tobytes(), currency="EUR")
            reply = await system.ask(Address("ledger", TENANT, str(ledger)), top, deadline_s=60)
            if not isinstance(reply, Settled) or reply.result.strip(b"\0"):
                raise AssertionError(f"{reply}")


def _questions(n: int) -> list[Ask]:
    subjects = np.random.default_rng(3).choice(n, min(n, ASKED), replace=False)
    ledgers = [Address("ledger", TENANT, str(i)) for i in range(LEDGERS)]
    return [Ask(ledgers[s % LEDGERS], GetBalance(subject=int(s))) for s in subjects]


async def _ask_many(system: RaySystem, asks: list[Ask], began: float) -> list[tuple[float, int]]:
    async def call(i: int) -> tuple[float, list[Answer]]:
        answers = await system.request_many(asks[i : i + CALL], deadline_s=60)
        return time.monotonic() - began, answers

    called = await asyncio.gather(*(call(i) for i in range(0, len(asks), CALL)))
    for ask, answer in zip(asks, [answer for _, answers in called for answer in answers], strict=True):
        assert isinstance(ask.command, GetBalance)
        if not isinstance(answer, Replied) or answer.reply != Balance(balances={"EUR": ask.command.subject % 1000 + 1}):
            raise AssertionError(f"{ask} got {answer}")
    return [(moment, len(answers)) for moment, answers in called]


async def _measure(urls: tuple[str, str], n: int) -> dict[str, object]:
    config = ServiceConfig(
        postgres_url=urls[0], redis_url=urls[1], shards=1, spares=1, host="127.0.0.1", gateway_port=0, api_port=0, local_sign_in=False,
        allowed_origins=(), console=None, max_connections=1, lease_ttl_s=LEASE_S, tick_deadline_s=10.0,
    )  # fmt: skip
    shards = [spawn("esplanade.shard_process:ShardProcess", shard_name(i), config, i, yields=True) for i in range(2)]
    await asyncio.gather(*(shard.started() for shard in shards))
    journal, broker = await PostgresJournal.open(urls[0]), await RedisBroker.open(urls[1])
    system = RaySystem()
    supervisor = Supervisor(list(shards), system.directory, journal, RealClock(), SupervisorSettings(wanted=1, spares=1, lease_ttl_s=LEASE_S))
    try:
        await supervisor.start()
        await system.follow(journal, broker)
        await _fill(system, n)
        owner = next(shard for shard in shards if shard.name == system.directory.owner_of(0))
        pid = await owner.pid()
        held = psutil.Process(pid).memory_info().rss
        spare = psutil.Process(await next(shard for shard in shards if shard is not owner).pid()).memory_info().rss
        asks = _questions(n)
        settle_collector(GC_YOUNG_DOOR)  # as a gateway does, which asks as this process does
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        times = sorted(await _ask_many(system, asks, began))
        taken_over_s = supervisor.takeovers[-1].at_s + supervisor.takeovers[-1].took_s - began
    finally:
        await supervisor.stop()
        await system.stop()
        await asyncio.gather(*(shard.stop() for shard in shards))
        await journal.close()
        await broker.close()
    total, seen, at_99 = sum(count for _, count in times), 0, 0.0
    for moment, count in times:
        seen += count
        if seen >= 0.99 * total:
            at_99 = moment
            break
    return {
        "ours": round(held / 2**20), "an_empty_shard": round(spare / 2**20), "asked": total, "s_to_takeover": round(taken_over_s, 3),
        "s_to_first": round(times[0][0], 3), "s_to_99_percent": round(at_99, 3),
    }  # fmt: skip


def _peer(url: str, n: int) -> float:
    """MiB that Redis takes for the same wallets as hashes."""
    client = redis.Redis(unix_socket_path=url.removeprefix("unix://"))
    client.config_set("maxmemory", 0)
    before = client.info("memory")["used_memory_rss"]
    for i in range(0, n, 10_000):
        pipeline = client.pipeline(transaction=False)
        for subject in range(i, min(n, i + 10_000)):
            pipeline.hset(f"wallet:{TENANT}:{subject}", mapping={"EUR": subject % 1000 + 1})
        pipeline.execute()
    taken = (client.info("memory")["used_memory_rss"] - before) / 2**20
    client.flushall()
    return float(taken)


def run(*, n: int = 1_000_000, repeats: int = 1) -> None:
    """One measurement; `repeats` is not used, since memory does not jitter."""
    del repeats
    folder = Path(tempfile.mkdtemp(prefix="esplanade-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    servers: list[Any] = []
    try:
        servers += [start_postgres(folder), start_redis(folder)]
        migrate(servers[0].url)
        node = start_ray(processes=2)
        try:
            measured = asyncio.run(_measure((servers[0].url, servers[1].url), n))
        finally:
            node.stop()
        peer = _peer(servers[1].url, n)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    ours = int(str(measured["ours"]))
    result = {"name": "memory", "n": n, "peer": round(peer), "unit": "MiB resident, whole process (peer: its growth)", "ratio": round(peer / ours, 2)}
    print(json.dumps({**result, **measured}), flush=True)
