"""`esplanade profile` and `esplanade top` against a service that runs, found by its data directory."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from esplanade.cli.readings import Reading
from esplanade.whereabouts import find
from gateway.client import Client
from tests.services.stack import COMMAND, ROOT, Esplanade, environment

pytestmark = pytest.mark.services


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment(env), timeout=120, check=False)


async def test_a_profile_tells_of_shards_and_flushes(service: Esplanade) -> None:
    async with await Client.connect(service.ws, client="profile-test", token=service.token("operator")) as client:
        await asyncio.gather(*(client.request("get_books") for _ in range(40)))
    done = run("profile", "--json", "--seconds", "0", "--data-dir", str(service.data))
    assert done.returncode == 0, done.stdout + done.stderr
    reading = msgspec.json.decode(done.stdout, type=Reading)
    assert [shard.shard for shard in reading.shards] == ["shard-0", "shard-1", "shard-2"]
    assert sum(shard.partitions for shard in reading.shards) == 256
    assert sum(shard.answer_s.count for shard in reading.shards) > 0
    for shard in reading.shards:
        os.kill(shard.pid, 0)
        if shard.answer_s.count:
            assert 0 < shard.answer_s.p50 <= shard.answer_s.p99
    table = run("profile", "--seconds", "0.5", "--data-dir", str(service.data))
    assert table.returncode == 0
    assert "shard-1" in table.stdout
    assert "hot actor" in table.stdout


def test_a_directory_without_a_service_is_said_and_so_is_a_missing_py_spy(service: Esplanade, tmp_path: Path) -> None:
    none = run("profile", "--data-dir", str(tmp_path))
    assert none.returncode == 2
    assert "no service is ready" in none.stdout
    flame = run("profile", "--seconds", "1", "--flame", str(tmp_path / "flame.svg"), "--data-dir", str(service.data), env={"PATH": "/nowhere"})
    assert (flame.returncode, "pip install 'esplanade[profile]'" in flame.stdout) == (2, True)
    assert find(service.data).api_url == service.api


def test_top_shows_the_shards_and_leaves_a_clean_terminal_on_ctrl_c(service: Esplanade) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "top", "--data-dir", str(service.data)], stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, start_new_session=True,
        env=environment({"TERM": "xterm-256color"}),
    )  # fmt: skip
    os.close(slave)
    shown = b""
    try:
        limit = time.monotonic() + 120
        while b"shard-1" not in shown:
            assert time.monotonic() < limit, shown
            if select.select([master], [], [], 1.0)[0]:
                shown += os.read(master, 65536)
        process.send_signal(signal.SIGINT)
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    for switched_on, off in ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h")):
        assert shown.rindex(off) > shown.rindex(switched_on), "the screen or the cursor is left as top had it"
    assert b"Traceback" not in shown


def test_the_profile_is_not_told_to_strangers(service: Esplanade) -> None:
    status, body = service.get("v1/profile")
    assert status == 200
    assert len(json.loads(body)) == 3
    refused = run("profile", "--seconds", "0", "--data-dir", str(service.data), "--token", service.token("shopper"))
    assert refused.returncode == 2
    assert "sign in as operator or engineer" in refused.stdout.replace("\n", " ")
