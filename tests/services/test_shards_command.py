"""`esplanade shards` on a running service, and without one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.services.stack import COMMAND, Esplanade, environment

pytestmark = pytest.mark.services


def shards(data: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [*COMMAND, "shards", *arguments, "--data-dir", str(data)], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout.strip()


def test_a_service_says_what_its_shards_do_and_refuses_what_is_not_there(service: Esplanade) -> None:
    assert shards(service.data, "list") == (0, "shard-0    128 partitions\nshard-1    128 partitions\nshard-2    stands by")
    code, said = shards(service.data, "drain", "shard-7")
    assert code == 2
    assert "shard 'shard-7': there are shard-0, shard-1, shard-2" in said.replace("\n", " ")
    assert (service.data / "esplanade.sock").stat().st_mode & 0o777 == 0o600, "for its owner alone"


def test_without_a_service_it_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    code, said = shards(tmp_path, "list")
    assert code == 3
    assert "esplanade serve" in said
    assert list(tmp_path.iterdir()) == []
