"""Esplanade on a Ray cluster of three machines (network namespaces of this one) with PostgreSQL over TCP. The machine with most partitions is cut off under payments, and
comes back: one writer a log throughout, and the bank checker has the last word. Needs root and `ip` (iproute2); ends with 77 and the reason where it cannot run.

    python -m tests.proof.machines [--seed N] [--cut SECONDS]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from actors.ray_leftovers import end_node
from tests.proof.house import BACK_S, RAY, TWO_WRITERS, House, journal_rows, say, summary
from tests.services.stack import environment, eventually
from tests.services_fixtures import open_folder

CANNOT: Final = 77
MACHINES: Final = {"esp-a": "10.77.0.1", "esp-b": "10.77.0.2", "esp-c": "10.77.0.3"}
HEAD: Final = "esp-a"
HUB: Final = "esp-hub"
RAY_PORT, POSTGRES_PORT, REDIS_PORT = 6379, 5432, 6390
HEALTH: Final = {
    "RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "500", "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "3", "RAY_gcs_rpc_server_reconnect_timeout_s": "5", "RAY_worker_niceness": "0",
}  # fmt: skip
"""A machine that was cut off is given up by Ray after some seconds instead of a minute."""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def network() -> Iterator[None]:
    """The machines, each with one cable to a hub."""
    _take_down()
    try:
        ip("netns", "add", HUB)
        ip("-n", HUB, "link", "add", "hub", "type", "bridge")
        ip("-n", HUB, "link", "set", "hub", "up")
        for machine, address in MACHINES.items():
            ip("netns", "add", machine)
            ip("-n", machine, "link", "set", "lo", "up")
            ip("link", "add", "cable", "netns", machine, "type", "veth", "peer", "name", machine, "netns", HUB)
            ip("-n", machine, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", machine, "link", "set", "cable", "up")
            ip("-n", HUB, "link", "set", machine, "master", "hub", "up")
        yield
    finally:
        _take_down()


def _take_down() -> None:
    for machine in (*MACHINES, HUB):
        subprocess.run(["ip", "netns", "del", machine], capture_output=True, check=False)


def plug(machine: str, state: str) -> None:
    ip("-n", HUB, "link", "set", machine, state)


class Machines(House):
    """The service on the head, its shards wherever Ray puts them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.ray_folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self._stores = _start_stores(folder / "stores")
        for machine in MACHINES:
            self.start_ray(machine)
        super().__init__(folder, seed, ways=(("gateway", 10), ("system", 10)))

    def start_ray(self, machine: str) -> None:
        address = MACHINES[machine]
        where = (
            ["--head", f"--port={RAY_PORT}", "--include-dashboard=false", f"--temp-dir={self.ray_folder}"]
            if machine == HEAD
            else [f"--address={MACHINES[HEAD]}:{RAY_PORT}"]
        )
        command = [
            *in_machine(machine), str(Path(sys.executable).parent / "ray"), "start", *where, f"--node-ip-address={address}", "--num-cpus=4",
            "--object-store-memory=100000000", "--disable-usage-stats",
        ]  # fmt: skip
        log = self.ray_folder.with_suffix(f".{machine}.log")
        with log.open("w") as out:
            code = subprocess.run(
                command, env=environment(RAY | HEALTH), stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=120, check=False
            ).returncode
        assert code == 0, log.read_text()
        log.unlink()

    def settings(self) -> dict[str, str]:
        return HEALTH | {
            "ESPLANADE_POSTGRES_URL": self.postgres_url, "ESPLANADE_REDIS_URL": self.redis_url, "ESPLANADE_RAY_ADDRESS": self.ray_address(),
            "ESPLANADE_LOCAL_SIGN_IN": "true", "ESPLANADE_SHARDS": "3", "ESPLANADE_SPARES": "1",
        }  # fmt: skip

    @property
    def postgres_url(self) -> str:
        return f"postgresql://postgres@{MACHINES[HEAD]}:{POSTGRES_PORT}/postgres"

    @property
    def redis_url(self) -> str:
        return f"redis://{MACHINES[HEAD]}:{REDIS_PORT}/0"

    def ray_address(self) -> str:
        return f"{MACHINES[HEAD]}:{RAY_PORT}"

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        end_node(self.ray_folder, gently=False)
        assert self._stores.stdin is not None
        self._stores.stdin.close()
        self._stores.wait(60)

    def shards_on(self, machine: str) -> list[psutil.Process]:
        """Ray's actors that run on a machine."""
        place = os.stat(f"/run/netns/{machine}").st_ino
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.name().startswith("ray::_Host") and os.stat(f"/proc/{process.pid}/ns/net").st_ino == place:
                    found.append(process)
        return found

    def owned(self) -> dict[str, int]:
        """Partitions by owner."""
        with journal_rows(self.postgres_url) as query:
            return dict(Counter(str(owner) for (owner,) in query("SELECT owner FROM partition_lease")))

    def places(self) -> dict[str, str]:
        """The machine of each shard."""
        here = {process.pid: machine for machine in MACHINES for process in self.shards_on(machine)}
        names = [f"shard-{i}" for i in range(4)]
        return {name: here[int(self.stack.metric(name, "pid"))] for name in names}


def in_machine(machine: str) -> list[str]:
    return ["ip", "netns", "exec", machine]


def _start_stores(folder: Path) -> subprocess.Popen[str]:
    """PostgreSQL and Redis on the head's address; they end when the returned process's input closes."""
    folder.mkdir()
    folder.chmod(0o755)
    stores = subprocess.Popen(
        [sys.executable, "-m", "tests.proof.machines", "--stores", str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert stores.stdout is not None
    assert stores.stdout.readline() == "ready\n"
    return stores


def serve_stores(folder: Path) -> None:
    from esplanade.storage import embedded

    embedded.start_postgres(folder).stop()
    rules = folder / "postgres" / "pg_hba.conf"
    rules.write_text(rules.read_text() + "".join(f"host all all {address}/32 trust\n" for address in MACHINES.values()))
    embedded.POSTGRES_SETTINGS["listen_addresses"] = MACHINES[HEAD]
    embedded.REDIS_SETTINGS.update({"port": str(REDIS_PORT), "bind": MACHINES[HEAD], "protected-mode": "no"})
    servers = [embedded.start_postgres(folder), embedded.start_redis(folder)]
    print("ready", flush=True)
    sys.stdin.read()
    for server in servers:
        server.stop()


def cut_off(seed: int, cut_s: float) -> bool:
    folder = open_folder()
    try:
        with Machines(folder, seed) as house:
            placed = {machine: len(house.shards_on(machine)) for machine in MACHINES}
            say(processes=placed)
            assert placed["esp-b"] + placed["esp-c"] > 0, (
                "no shard works on another machine than the head"
            )  # Ray follows a wish as to where only mostly
            house.pay()
            machine, before = _busiest(house)
            say(cut=machine, owners=house.owned(), its_shards=before)
            time.sleep(3.0)
            at_s = time.time()
            plug(machine, "down")
            assert eventually(lambda: not set(before) & set(house.owned()), BACK_S), f"nobody takes over from {before}: {house.owned()}"
            say(taken_over_after_s=round(time.time() - at_s, 2), owners=house.owned())
            time.sleep(max(0.0, at_s + cut_s - time.time()))
            silent_s = house.silence_s(at_s, time.time())
            alive = len(house.shards_on(machine))
            plug(machine, "up")
            say(cut_s=cut_s, without_answers_s=round(silent_s, 2), cut_off_processes_still_alive=alive)
            time.sleep(15.0)
            say(after_return={name: len(house.shards_on(name)) for name in MACHINES}, owners=house.owned())
            verdict = house.audit()
            with journal_rows(house.postgres_url) as query:
                wrong = query(TWO_WRITERS)
                highest = query("SELECT max(epoch) FROM segment")[0][0]
            say(name="machines", seed=seed, two_writers=len(wrong), highest_epoch=highest, **summary(verdict))
            return verdict.sound and not wrong
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _busiest(house: Machines) -> tuple[str, list[str]]:
    """The machine, other than the head, whose shards own most; and these owners."""
    held, places = house.owned(), house.places()
    of: dict[str, list[str]] = {machine: [] for machine in MACHINES if machine != HEAD}
    for owner in held:
        machine = places.get(owner.partition("@")[0])
        if machine in of:
            of[machine].append(owner)
    machine = max(of, key=lambda name: sum(held[owner] for owner in of[name]))
    assert of[machine], f"no shard of {held} works on another machine than the head: {places}"
    return machine, of[machine]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.machines", description="Cut a machine off under payments.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cut", type=float, default=20.0, help="seconds")
    parser.add_argument("--stores", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stores is not None:
        serve_stores(arguments.stores)
        return 0
    if arguments.inside:
        return 0 if cut_off(arguments.seed, arguments.cut) else 1
    try:
        with network():
            again = [sys.executable, "-m", "tests.proof.machines", "--inside", "--seed", str(arguments.seed), "--cut", str(arguments.cut)]
            child = subprocess.Popen([*in_machine(HEAD), *again])
            try:
                return child.wait()
            finally:
                if child.poll() is None:
                    child.send_signal(signal.SIGTERM)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        detail = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        print(f"cannot make machines here ({detail}): needs root, network namespaces and iproute2", file=sys.stderr)
        return CANNOT


if __name__ == "__main__":
    sys.exit(main())
