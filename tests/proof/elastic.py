"""Shards come and go under payments: one is added, one drained, one removed, all by the command, and one is killed meanwhile; then the bank checker.

python -m tests.proof.elastic [--seed N]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from esplanade.core.ids import PARTITIONS
from tests.proof.house import BACK_S, TWO_WRITERS, House, journal_rows, say, summary
from tests.services.stack import COMMAND, environment, eventually
from tests.services_fixtures import open_folder

COMMAND_S: Final = 120.0


def command(folder: Path, *arguments: str) -> tuple[int, str]:
    """`esplanade shards ARGUMENTS`: exit code and output."""
    done = subprocess.run(
        [*COMMAND, "shards", *arguments, "--data-dir", str(folder / "data")],
        env=environment(), capture_output=True, text=True, timeout=COMMAND_S, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def owners(house: House) -> dict[int, str]:
    with journal_rows(house.postgres_url) as query:
        return {int(str(partition)): str(owner).partition("@")[0] for partition, owner in query("SELECT partition, owner FROM partition_lease")}


def change(house: House, what: str, shard: str = "", *, spare: bool = False) -> None:
    """One change; only what must move may have moved. `spare`: the newcomer takes the place of a spare."""
    before, began_s = owners(house), time.time()
    code, said = command(house.folder, what, *([shard] if shard else []))
    took_s = time.time() - began_s
    assert code == 0, said
    after = owners(house)
    moved = [partition for partition in range(PARTITIONS) if before[partition] != after[partition]]
    if shard:
        assert {before[partition] for partition in moved} <= {shard}, "a partition of another shard moved"
        assert shard not in after.values()
    elif spare:
        assert not moved, "it stands by"
    else:
        newcomers = set(after.values()) - set(before.values())
        assert len(newcomers) == 1
        assert all(after[partition] in newcomers for partition in moved)
        assert abs(len(moved) - PARTITIONS / len(set(after.values()))) <= 1, "the newcomer has a fair share"
    time.sleep(1.0)
    say(change=what, shard=shard, moved=len(moved), took_s=round(took_s, 2), without_answers_s=round(house.silence_s(began_s, time.time()), 2))


def come_and_go(seed: int) -> bool:
    folder = open_folder()
    try:
        with House(folder, seed) as house:
            house.pay()
            change(house, "add")
            change(house, "drain", "shard-0")
            house.kill("shard")
            assert eventually(house.whole, BACK_S)
            change(house, "remove", "shard-0")
            change(house, "remove", "shard-1")
            code, said = command(folder, "remove", "shard-9")
            assert (code, "shard-9" in said) == (2, True), said
            change(house, "add", spare=True)
            verdict = house.audit()
            with journal_rows(house.postgres_url) as query:
                wrong = query(TWO_WRITERS)
            say(name="elastic", seed=seed, two_writers=len(wrong), **summary(verdict))
            return verdict.sound and not wrong
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.elastic", description="Add, drain and remove shards under payments.")
    parser.add_argument("--seed", type=int, default=1)
    return 0 if come_and_go(parser.parse_args().seed) else 1


if __name__ == "__main__":
    sys.exit(main())
