"""Servers given by URL are used and left alone."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from actors.ray_leftovers import end_node
from esplanade.ports import free_port
from esplanade.storage.embedded import start_postgres, start_redis
from tests.services.stack import Esplanade, assert_nothing_left, data_folder, environment, eventually

pytestmark = pytest.mark.services


def test_given_postgres_and_redis_are_used_and_left_running() -> None:
    with data_folder() as theirs, data_folder() as ours:
        postgres, redis = start_postgres(theirs), start_redis(theirs)
        try:
            with Esplanade(ours, "serve", env={"ESPLANADE_POSTGRES_URL": postgres.url, "ESPLANADE_REDIS_URL": redis.url}) as stack:
                stack.ready()
                assert json.loads(stack.get("readyz")[1])["ready"]
                assert not json.loads(stack.get("v1/console")[1])["local_sign_in"], "only where everything is embedded, unless it is set"
                assert "tenant demo has not answered consent and retention_days: its people are asked" in stack.text, "never a silent default"
                assert not {"postgres", "redis-server"} & {process.name() for process in stack.family()}
                stack.ctrl_c()
                assert stack.wait() == 0
                assert_nothing_left(stack)
            assert [path.name for path in ours.iterdir()] == ["logs"], "no data: that is with them"
            assert {path.name for path in (ours / "logs").iterdir()} >= {"api.log", "gateway-0.log", "shard-0.log", "service.log"}
            assert postgres.alive
            assert redis.alive
            with psycopg.connect(postgres.url) as connection:
                assert connection.execute("SELECT count(*) FROM esplanade.venue").fetchone() == (2,)
        finally:
            redis.stop()
            postgres.stop()


@pytest.fixture
def cluster() -> Iterator[dict[str, str]]:
    """A Ray cluster as `ray start --head` makes it; yields the settings that join it."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5" * 64}
    port = free_port("127.0.0.1")
    options = {
        "node-ip-address": "127.0.0.1", "port": port, "include-dashboard": "false", "num-cpus": 4, "object-store-memory": 100_000_000, "temp-dir": folder,
    }  # fmt: skip
    command = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        "--head",
        "--disable-usage-stats",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    log = folder / "start.log"  # its daemons keep what they inherit open, so no pipe
    try:
        with log.open("w") as out:
            code = subprocess.run(
                command, env=environment(settings), stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=120, check=False
            ).returncode
        assert code == 0, log.read_text()
        yield settings | {"ESPLANADE_RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        assert not end_node(folder, gently=True)


def test_a_given_ray_cluster_is_used_and_left_running(cluster: dict[str, str]) -> None:
    with data_folder() as data, Esplanade(data, "serve", env=cluster) as stack:
        stack.ready()
        assert json.loads(stack.get("readyz")[1])["ready"]
        assert {"postgres", "redis-server"} <= {process.name() for process in stack.family()}, "these are our own still"
        assert "raylet" not in {process.name() for process in stack.family()}
        shard = psutil.Process(int(stack.metric("shard-0", "pid")))
        raylet = shard.parent()
        assert raylet is not None
        assert raylet.name() == "raylet"
        stack.ctrl_c()
        assert stack.wait() == 0
        assert_nothing_left(stack)
        assert eventually(lambda: not shard.is_running() or shard.status() == psutil.STATUS_ZOMBIE, 10), "its processes are gone from the cluster"
        assert raylet.is_running()
