"""Phones by the thousand read a recoverable topic through two gateways, while gateways, Redis and shards are killed in turn: nothing lost, nothing doubled, all in order.

    python -m tests.proof.chaos [--clients 2000] [--rounds 2] [--seed N]      # the last line is the verdict

Each phone holds on to the places (epoch, offset) that it was told; offsets of a topic count without gaps, so what it has must be a run without gap or repetition from where it
subscribed to the end of the outbox in PostgreSQL. Phones of a gateway that is killed come back through the other one. After each kill the service must heal:
all are connected and have all there is, and who reads the topic is counted right on both gateways again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from esplanade.core.errors import EsplanadeError
from esplanade.identities import signing_seed
from esplanade.ports import free_port
from esplanade.storage.postgres import PostgresCatalogue
from gateway.auth import Signer
from gateway.client import Client, Frame
from spatial.venue_files import load_venue
from tests.proof.house import RAY, House, journal_rows, say
from tests.proof.payers import TENANT, VENUE_FILE
from tests.services.stack import environment
from tests.services_fixtures import open_folder

KINDS: Final = ("gateway", "second gateway", "Redis", "shard")
HEAL_S: Final = 600.0
"""A limit that only a service that stays broken reaches; a busy machine takes long to let thousands back in."""
CONNECTING: Final = 64
"""Phones that come for the first time at once."""
DELIVERIES_PER_S: Final = 2_000.0
"""Publications times readers: what one process of Python clients takes beside the service it kills."""
PAUSE_S: Final = (1.0, 3.0)
"""From a service that is whole to the next kill, and from a kill to the first look."""
FIRST_SUBJECT: Final = 5_000_000
COME_BACK: Final = 100_000


@dataclass(slots=True)
class Phone:
    """What one reader of the topic was told."""

    name: str
    first: tuple[int, int] = (0, 0)
    told: list[tuple[int, int]] = field(default_factory=list)
    not_resumed: int = 0
    client: Client | None = None

    def take(self, frame: Frame) -> None:
        if frame["op"] == "offer_state":
            self.told.append((frame["place"]["epoch"], frame["place"]["offset"]))
        elif frame["op"] == "_not_resumed":
            self.not_resumed += 1

    @property
    def at(self) -> tuple[int, int]:
        return self.told[-1] if self.told else self.first

    def faults(self, last: tuple[int, int]) -> dict[str, int]:
        """Counted against an outbox that ends at `last`; all 0 where it was told everything once and in order."""
        want = [(last[0], offset) for offset in range(self.first[1] + 1, last[1] + 1)]
        return {
            "lost": len(set(want) - set(self.told)),
            "doubled": len(self.told) - len(set(self.told)),
            "strange": len(set(self.told) - set(want)),
            "disordered": sum(b < a for a, b in zip(self.told, self.told[1:], strict=False)),
            "not_resumed": self.not_resumed,
        }


class SecondGateway:
    """Started again when it is killed, as a process manager would."""

    def __init__(self, house: House) -> None:
        self.port = free_port("127.0.0.1")
        self.url = f"ws://127.0.0.1:{self.port}/"
        self._house = house
        self._log = house.folder / "second_gateway.out"
        self._output: IO[bytes] = self._log.open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.proof.second_gateway", "--ray", self._house.ray_address(), "--port", str(self.port)]
        command += ["--postgres", self._house.postgres_url, "--redis", self._house.redis_url]
        self._process = subprocess.Popen(command, env=environment(RAY), stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def said(self) -> str:
        return self._log.read_text()[-4000:]

    def close(self) -> None:
        self.kill()
        self._output.close()


class Storm:
    def __init__(self, house: House, clients: int, seed: int) -> None:
        self._house = house
        self._second = SecondGateway(house)
        self._chance = random.Random(seed)
        self._phones = [Phone(f"phone-{i}") for i in range(clients)]
        self._every_s = max(0.25, clients / DELIVERIES_PER_S)
        self._venue = load_venue(VENUE_FILE)
        self._topic = f"venue/{self._venue.id}/offers"
        self._published = self._unknown = 0
        self._quiet = False
        self._watchers: list[Client] = []

    async def run(self, rounds: int) -> dict[str, object]:
        self._second.start()
        catalogue = await PostgresCatalogue.open(self._house.postgres_url)
        try:
            self._signer = Signer(await signing_seed(catalogue, self._house.postgres_url, None))
        finally:
            await catalogue.close()
        urls = (self._house.stack.ws, self._second.url)
        await self._until(lambda: self._opens(self._second.port), "the second gateway", lambda: self._second.said)
        began_s = time.monotonic()
        gate = asyncio.Semaphore(CONNECTING)
        await asyncio.gather(*(self._come(phone, urls[i % 2], gate) for i, phone in enumerate(self._phones)))
        self._watchers = [await self._watch(url, i) for i, url in enumerate(urls)]
        say(came=len(self._phones), within_s=round(time.monotonic() - began_s, 1), published_every_s=round(self._every_s, 2))
        publisher = asyncio.create_task(self._publish(urls[0]))
        heals: list[dict[str, object]] = []
        try:
            heals.append(await self._healed("nothing"))
            say(**heals[-1])
            for _ in range(rounds):
                for what in self._chance.sample(KINDS, len(KINDS)):
                    await asyncio.sleep(self._chance.uniform(*PAUSE_S))
                    self._strike(what, urls)
                    say(killing=what)
                    await asyncio.sleep(self._chance.uniform(*PAUSE_S))
                    heals.append(await self._healed(what))
                    say(**heals[-1])
            self._quiet = True
            await publisher
            await self._healed("nothing more")
            return self._verdict(heals)
        finally:
            publisher.cancel()
            await asyncio.gather(publisher, return_exceptions=True)
            await asyncio.gather(*(phone.client.close() for phone in self._phones if phone.client), *(w.close() for w in self._watchers))
            self._second.close()

    async def _come(self, phone: Phone, url: str, gate: asyncio.Semaphore) -> None:
        number = int(phone.name.rpartition("-")[2])
        token = self._signer.issue(FIRST_SUBJECT + number, TENANT, "shopper", None, 24 * 3600, time.time())
        async with gate:
            phone.client = await Client.connect(
                url, client=phone.name, token=token, venue=self._venue.id, on_event=phone.take, reconnects=COME_BACK, timeout_s=60.0
            )
            place = (await phone.client.subscribe(self._topic))["place"]
            phone.first = (place["epoch"], place["offset"])

    async def _operator(self, url: str, name: str) -> Client:
        token = self._signer.issue(7, TENANT, "operator", None, 24 * 3600, time.time())
        return await Client.connect(
            url, client=name, token=token, venue=self._venue.id, on_event=lambda _: None, reconnects=COME_BACK, timeout_s=60.0
        )

    async def _watch(self, url: str, i: int) -> Client:
        client = await self._operator(url, f"watcher-{i}")
        await client.subscribe(self._topic)
        return client

    async def _publish(self, url: str) -> None:
        """Offers, one after another; what is not answered may have happened, which the outbox says in the end."""
        client = await self._operator(url, "publisher")
        unit = self._venue.occupants[0].unit_id
        try:
            while not self._quiet:
                offer = {
                    "id": f"chaos-{self._published}",
                    "unit_id": unit,
                    "title": "Chaos",
                    "audience": {"type": "within", "radius_m": 1.0},
                    "starts_tick": 1 << 30,
                }
                self._published += 1
                try:
                    await client.request("create_offer", venue=self._venue.id, offer=offer | {"ends_tick": (1 << 30) + 10})
                except EsplanadeError as error:
                    if not error.retryable:
                        raise
                    self._unknown += 1
                await asyncio.sleep(self._every_s)
        finally:
            await client.close()

    def _strike(self, what: str, urls: tuple[str, str]) -> None:
        if what == "second gateway":
            self._second.kill()
            self._second.start()
        else:
            self._house.kill(what)
        if "gateway" in what:  # their phones come back through the other door
            dead, other = (urls[1], urls[0]) if what == "second gateway" else urls
            for phone in self._phones:
                if phone.client is not None and phone.client.url == dead:
                    phone.client.url = other

    async def _healed(self, what: str) -> dict[str, object]:
        """Wait until all is well again; says how long each part took."""
        began_s = time.monotonic()
        took = {}
        phones = [phone.client for phone in self._phones if phone.client]
        await self._until(lambda: all(client.connected for client in phones), "all phones connected", lambda: self._behind((0, 0)))
        took["connected_s"] = round(time.monotonic() - began_s, 2)
        last = await asyncio.to_thread(self._outbox)
        await self._until(lambda: all(phone.at >= last for phone in self._phones), "all that was published arrived", lambda: self._behind(last))
        took["caught_up_s"] = round(time.monotonic() - began_s, 2)
        want = len(self._phones) + len(self._watchers)
        counts: list[int] = []
        while True:
            with contextlib.suppress(EsplanadeError):
                counts = [int((await watcher.members(self._topic))["count"]) for watcher in self._watchers]
                if all(count == want for count in counts):
                    break
            assert time.monotonic() - began_s < HEAL_S, f"after {what}: {counts} members on the gateways, there are {want}"
            await asyncio.sleep(0.5)
        took["presence_s"] = round(time.monotonic() - began_s, 2)
        return {"killed": what, **took}

    def _behind(self, last: tuple[int, int]) -> str:
        late = [(phone.name, phone.at, phone.client and (phone.client.connected, phone.client.connects)) for phone in self._phones if phone.at < last]
        gone = [
            (phone.name, phone.client.connects, repr(phone.client._failure)) for phone in self._phones if phone.client and not phone.client.connected
        ]
        return f"the outbox ends at {last}; behind: {len(late)} {late[:3]}; not connected: {len(gone)} {gone[:3]}\n{self._second.said}\n{self._house.stack.text[-3000:]}"

    def _outbox(self) -> tuple[int, int]:
        """(epoch, offset) of the topic's end."""
        with journal_rows(self._house.postgres_url) as query:
            rows: Any = query(f"SELECT epoch, last_offset FROM outbox_topic WHERE tenant = '{TENANT}' AND topic = '{self._topic}'")
        return (int(rows[0][0]), int(rows[0][1])) if rows else (1, 0)

    @staticmethod
    def _opens(port: int) -> bool:
        import socket

        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return True
        return False

    async def _until(self, holds: Any, what: str, said: Any) -> None:
        limit = time.monotonic() + HEAL_S
        while not holds():
            assert time.monotonic() < limit, f"{what}: not within {HEAL_S:.0f} s; {said()}"
            await asyncio.sleep(0.1)

    def _verdict(self, heals: list[dict[str, object]]) -> dict[str, object]:
        last = self._outbox()
        faults = dict.fromkeys(("lost", "doubled", "strange", "disordered", "not_resumed"), 0)
        for phone in self._phones:
            for kind, n in phone.faults(last).items():
                faults[kind] += n
        told = sum(len(phone.told) for phone in self._phones)
        connects = sum(phone.client.connects for phone in self._phones if phone.client)
        return {
            "published": last[1],
            "unanswered": self._unknown,
            "delivered": told,
            "connects": connects,
            **faults,
            "heals": heals,
            "sound": told > 0 and not any(faults.values()),
        }


def chaos(seed: int, clients: int, rounds: int, folder: Path | None = None) -> dict[str, object]:
    """The verdict; `sound` says whether every phone had everything once and in order."""
    place = open_folder() if folder is None else folder
    try:
        with House(place, seed, ways=()) as house:
            return {"name": "chaos", "seed": seed, "clients": clients, "rounds": rounds, **asyncio.run(Storm(house, clients, seed).run(rounds))}
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.chaos")
    parser.add_argument("--clients", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    verdict = chaos(arguments.seed, arguments.clients, arguments.rounds)
    say(**verdict)
    raise SystemExit(0 if verdict["sound"] else 1)


if __name__ == "__main__":
    main()
