"""Payers: processes that pay one payment at a time, each until it is answered, and write down what they sent and saw (`bank.Log`).

    python -m tests.proof.payers gateway LOG SEED COUNT --api URL --ws URL
    python -m tests.proof.payers system LOG SEED COUNT --api URL --ray HOST:PORT --postgres URL --redis URL

`gateway`: phones, each over a WebSocket of its own. `system`: callers of `System.ask`, in a Ray driver of their own. Killed and begun again with its log, a process goes on
where it stood, beginning with what had no answer. SIGTERM: finish what is under way, then end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import struct
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from actors.messages import LEDGERS, Balance, GetBalance, Payments, Settled, TopUps
from esplanade.core.errors import EsplanadeError
from esplanade.core.ids import Address
from gateway.client import Client
from spatial.venue_files import load_venue
from tests.proof.bank import CURRENCY, Acked, Log, Opened, Read, Refused, Sent, read_log

TENANT: Final = "bank"
VENUE_FILE: Final = Path(__file__).parent.parent.parent / "scenarios" / "venues" / "parkside_mall.json"
LOW: Final = 2_000
"""Below this a wallet is topped up, so that top-ups meet the kills too."""
TOP_UP: Final = 20_000
REPEATS: Final = 0.03
"""Share of payments that are sent again after their answer: the second answer must be the first."""
READS: Final = 0.03
OVERDRAWS: Final = 0.02
WAIT_S: Final = (0.02, 0.5)
TRY_S: Final = 4.0


class Door(Protocol):
    """The way to the bank for one wallet. Calls raise EsplanadeError; a retryable one says nothing of what became of it."""

    async def pay(self, key: bytes, amount: int) -> int: ...

    async def top_up(self, key: bytes, amount: int) -> int | None: ...

    async def balance(self) -> int: ...

    async def close(self) -> None: ...


class NotSettled(EsplanadeError):
    """Refused for good."""

    code = "refused"


@dataclass
class Wallet:
    subject: int
    token: str


class PhoneDoor:
    """A shopper's phone, and the operator who tops it up."""

    def __init__(self, wallet: Wallet, operator: str, ws: str, venue: str, unit: str) -> None:
        self._wallet, self._operator, self._ws, self._venue, self._unit = wallet, operator, ws, venue, unit
        self._clients: dict[str, Client] = {}
        self._connects = 0

    async def _client(self, token: str) -> Client:
        client = self._clients.get(token)
        if client is None:
            self._connects += 1
            client = self._clients[token] = await Client.connect(
                self._ws, client=f"payer-{self._wallet.subject}-{os.getpid()}-{self._connects}", token=token, reconnects=3, timeout_s=TRY_S
            )
        return client

    async def request(self, token: str, op: str, **fields: Any) -> dict[str, Any]:
        client = await self._client(token)
        try:
            return await client.request(op, timeout_s=TRY_S, **fields)
        except EsplanadeError as error:
            if error.retryable and not client.connected:
                self._clients.pop(token, None)
                await client.close()
            raise

    async def pay(self, key: bytes, amount: int) -> int:
        reply = await self.request(
            self._wallet.token, "pay", venue=self._venue, key=key, unit=self._unit, amount=amount, currency=CURRENCY
        )  # fmt: skip
        return int(reply["balance"])

    async def top_up(self, key: bytes, amount: int) -> int | None:
        subject, packed = struct.pack("<I", self._wallet.subject), struct.pack("<I", amount)
        reply = await self.request(self._operator, "top_ups", tick=0, key=key, subject=subject, amount=packed, currency=CURRENCY)
        if any(reply["result"]):
            raise NotSettled(str(reply["codes"]))
        return None

    async def balance(self) -> int:
        return int((await self.request(self._wallet.token, "balance"))["balances"].get(CURRENCY, 0))

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()


class SystemDoor:
    """`System.ask`, as the gateway itself asks."""

    def __init__(self, wallet: Wallet, system: Any, venue: str, unit: int) -> None:
        self._subject, self._system, self._venue, self._unit = wallet.subject, system, venue, unit
        self._ledger = Address("ledger", TENANT, str(wallet.subject % LEDGERS))

    async def _settle(self, command: Payments | TopUps) -> int:
        reply = await self._system.ask(self._ledger, command, deadline_s=TRY_S)
        if not isinstance(reply, Settled) or reply.result != b"\0":
            raise NotSettled(reply.codes[reply.result[0] - 1] if isinstance(reply, Settled) else str(reply))
        return int.from_bytes(reply.balance, "little", signed=True)

    async def pay(self, key: bytes, amount: int) -> int:
        unit, subject = struct.pack("<H", self._unit), struct.pack("<I", self._subject)
        return await self._settle(
            Payments(tick=0, venue=self._venue, key=key, subject=subject, unit=unit, amount=struct.pack("<I", amount), currency=CURRENCY)
        )

    async def top_up(self, key: bytes, amount: int) -> int | None:
        subject = struct.pack("<I", self._subject)
        return await self._settle(TopUps(tick=0, key=key, subject=subject, amount=struct.pack("<I", amount), currency=CURRENCY))

    async def balance(self) -> int:
        reply = await self._system.ask(self._ledger, GetBalance(subject=self._subject), deadline_s=TRY_S)
        assert isinstance(reply, Balance)
        return reply.balances.get(CURRENCY, 0)

    async def close(self) -> None:
        pass


class Payer:
    """One wallet's owner."""

    def __init__(self, wallet: Wallet, door: Door, log: Log, chance: random.Random, ending: asyncio.Event) -> None:
        self._wallet, self._door, self._log, self._chance, self._ending = wallet, door, log, chance, ending

    async def run(self, unanswered: list[Sent]) -> None:
        for sent in unanswered:
            await self._until_answered(sent.key, sent.amount)
        balance = await self._read()
        while not self._ending.is_set():
            roll = self._chance.random()
            key = self._chance.randbytes(16)
            if balance < LOW:
                told = await self._until_answered(key, TOP_UP)
            elif roll < OVERDRAWS:
                told = await self._until_answered(key, -balance - self._chance.randrange(1, 1000))
            else:
                told = await self._until_answered(key, -self._chance.randrange(1, 997))
                if roll > 1 - REPEATS:
                    await self._until_answered(key, self._last)
            balance = await self._read() if told is None or self._chance.random() < READS else told
        await self._door.close()

    async def _until_answered(self, key: bytes, amount: int) -> int | None:
        self._last = amount
        self._log.write(Sent(self._wallet.subject, key, amount, time.time()))
        wait_s = WAIT_S[0]
        while True:
            try:
                balance = await (self._door.pay(key, -amount) if amount < 0 else self._door.top_up(key, amount))
            except EsplanadeError as error:
                if not error.retryable:
                    self._log.write(Refused(key, f"{error.code}: {error.message}"))
                    if "exceeds_balance" not in f"{error.code} {error.message}":
                        raise
                    return None
            else:
                self._log.write(Acked(key, balance, time.time()))
                return balance
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, WAIT_S[1])

    async def _read(self) -> int:
        while True:
            with contextlib.suppress(EsplanadeError):
                balance = await self._door.balance()
                self._log.write(Read(self._wallet.subject, balance))
                return balance
            await asyncio.sleep(WAIT_S[1])


def token(api: str, role: str) -> Wallet:
    """A token by local sign-in."""
    body = json.dumps({"role": role, "tenant": TENANT}).encode()
    request = urllib.request.Request(f"{api}v1/local/token", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        answer = json.load(reply)
    return Wallet(int(answer["subject"]), str(answer["token"]))


async def run(arguments: argparse.Namespace) -> None:
    ending = asyncio.Event()
    known = read_log(arguments.log)
    wallets = [Wallet(record.subject, record.token) for record in known if isinstance(record, Opened)]
    unanswered = {record.key: record for record in known if isinstance(record, Sent)}
    for record in known:
        if isinstance(record, Acked | Refused):
            unanswered.pop(record.key, None)
    log = Log(arguments.log)
    while len(wallets) < arguments.count:
        wallet = token(arguments.api, "shopper")
        log.write(Opened(wallet.subject, wallet.token))
        wallets.append(wallet)
    venue = load_venue(VENUE_FILE)
    unit = next(i for i, unit in enumerate(venue.units) if unit.till)
    doors: list[Door]
    if arguments.way == "gateway":
        operator = token(arguments.api, "operator").token if arguments.operator is None else arguments.operator
        doors = [PhoneDoor(wallet, operator, arguments.ws, venue.id, venue.units[unit].id) for wallet in wallets]
    else:
        from actors.ray_system import RaySystem, _true_loopback, start_ray
        from esplanade.storage.postgres import PostgresJournal
        from esplanade.storage.redis import RedisBroker

        with _true_loopback():  # the service's own node is on loopback, where Ray would look for it at the machine's outer address
            start_ray(arguments.ray)
        system = RaySystem()
        await system.follow(await PostgresJournal.open(arguments.postgres), await RedisBroker.open(arguments.redis))
        doors = [SystemDoor(wallet, system, venue.id, unit) for wallet in wallets]
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)  # after Ray, which takes the signal for itself
    print("paying", flush=True)
    chance = random.Random(f"{arguments.seed}/{arguments.way}/{len(known)}")
    payers = [Payer(wallet, door, log, random.Random(chance.random()), ending) for wallet, door in zip(wallets, doors, strict=True)]
    async with asyncio.TaskGroup() as group:
        for wallet, payer in zip(wallets, payers, strict=True):
            group.create_task(payer.run([sent for sent in unanswered.values() if sent.subject == wallet.subject]))
    log.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.payers")
    parser.add_argument("way", choices=("gateway", "system"))
    parser.add_argument("log", type=Path)
    parser.add_argument("seed")
    parser.add_argument("count", type=int)
    for name in ("api", "ws", "ray", "postgres", "redis", "operator"):
        parser.add_argument(f"--{name}")
    asyncio.run(run(parser.parse_args()))
    print("answered", flush=True)
    sys.stdout.flush()
    os._exit(0)  # Ray's native threads have been seen to abort the interpreter's own ending


if __name__ == "__main__":
    main()
