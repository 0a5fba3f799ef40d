"""Kill what runs while traders send each other money, buy from a limited stock and have money held that nobody posts; then the books must say what the traders were told.

    python -m tests.proof.sagas [--seed N] [--kills N]      # the last line is the verdict

Every request is repeated under its key until it is answered for good, so at the end each trader knows exactly what they did; the service is then left alone until nothing is under way any
more: transfers have arrived or come back, sales are done or not, and holds have expired by their reminders, all by themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import threading
import time
from collections import Counter

from esplanade.core.errors import EsplanadeError
from spatial.venue_files import load_venue
from tests.proof.bank import CURRENCY
from tests.proof.house import BACK_S, TWO_WRITERS, House, journal_rows, say
from tests.proof.kills import HANG, PAUSE_S, strike
from tests.proof.payers import VENUE_FILE, PhoneDoor, Wallet, token
from tests.services.stack import eventually
from tests.services_fixtures import open_folder

TRADERS = 12
MONEY = 50_000
PRICE = 70
STOCK = 20_000
ITEM = "shoes"
HELD_MS = 3_000
MIX = ("shard", "gateway", HANG, "PostgreSQL", "shard", "esplanade", "shard", "gateway")
TRY_AGAIN_S = 0.2
BROKE = frozenset({"exceeds_balance", "sold_out"})


class Traders:
    """Their load, on a thread of its own; `stop` lets what is under way be answered."""

    def __init__(self, house: House, seed: int) -> None:
        venue = load_venue(VENUE_FILE)
        self.venue, self.unit = venue.id, next(unit.id for unit in venue.units if unit.till)
        self.wallets = [token(house.stack.api, "shopper") for _ in range(TRADERS)]
        self.operator = house.operator
        self.ws = house.stack.ws
        self.expected: Counter[int] = Counter()
        self.sold = 0
        self.done: Counter[str] = Counter()
        self.broken: list[BaseException] = []
        self._chance = random.Random(seed)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traders")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()

    def door(self, wallet: Wallet) -> PhoneDoor:
        return PhoneDoor(wallet, self.operator, self.ws, self.venue, self.unit)

    def _run(self) -> None:
        try:
            asyncio.run(self._trade())
        except BaseException as error:
            self.broken.append(error)

    async def _trade(self) -> None:
        async with asyncio.TaskGroup() as group:
            for wallet in self.wallets:
                group.create_task(self._trader(wallet, random.Random(self._chance.random())))

    async def _trader(self, wallet: Wallet, chance: random.Random) -> None:
        door, me = self.door(wallet), wallet.subject
        key = chance.randbytes(16)
        while True:
            try:
                await door.top_up(key, MONEY)
                break
            except EsplanadeError:
                await asyncio.sleep(TRY_AGAIN_S)
        self.expected[me] += MONEY
        while not self._ending.is_set():
            roll, key = chance.random(), chance.randbytes(16)
            if roll < 0.6:
                other = chance.choice([w for w in self.wallets if w is not wallet]).subject
                amount = chance.randrange(1, 900)
                if await self._until_answered(door, wallet.token, "transfer", key=key, to=other, amount=amount, currency=CURRENCY):
                    self.expected[me] -= amount
                    self.expected[other] += amount
            elif roll < 0.9:
                if await self._until_answered(door, wallet.token, "buy", item=ITEM, key=key, count=1):
                    self.expected[me] -= PRICE
                    self.sold += 1
            else:
                await self._until_answered(
                    door, self.operator, "hold", venue=self.venue, key=key, subject=me, unit=self.unit, amount=chance.randrange(1, 50), currency=CURRENCY,
                    expires_ms=int(time.time() * 1000) + HELD_MS,
                )  # fmt: skip
        await door.close()

    async def _until_answered(self, door: PhoneDoor, who: str, op: str, **fields: object) -> bool:
        """Whether it took place. A hold whose time has passed before it was answered may or may not have: it is gone either way."""
        while True:
            try:
                await door.request(who, op, **fields)
                self.done[op] += 1
                return True
            except EsplanadeError as error:
                if not error.retryable:
                    if error.code not in BROKE and (op, error.code) != ("hold", "expiry_must_be_later"):
                        raise
                    self.done[f"{op} refused"] += 1
                    return False
            await asyncio.sleep(TRY_AGAIN_S)


async def _settle(traders: Traders) -> list[str]:
    """Wait until nothing is under way; what then differs from what the traders know."""
    first = traders.door(traders.wallets[0])
    ends = time.monotonic() + BACK_S
    while True:
        wrong: list[str] = []
        try:
            books = await first.request(traders.operator, "get_books")
            item = await first.request(traders.wallets[0].token, "get_item", item=ITEM)
            till = (await first.request(traders.operator, "get_till", venue=traders.venue, unit=traders.unit))["balances"].get(CURRENCY, 0)
            for wallet in traders.wallets:
                door = traders.door(wallet)
                balances = await door.request(wallet.token, "balance")
                await door.close()
                balance, held = balances["balances"].get(CURRENCY, 0), balances.get("held", {}).get(CURRENCY, 0)
                if (balance, held) != (traders.expected[wallet.subject], 0):
                    wrong.append(f"wallet {wallet.subject}: {balance}, {held} held; its trader knows {traders.expected[wallet.subject]}, none held")
        except EsplanadeError as error:
            wrong = [f"no answer: {error}"]
        else:
            if books["total"].get(CURRENCY, 0):
                wrong.append(f"the accounts add up to {books['total']}")
            if (item["under_way"], item["limit"] - item["left"]) != (0, traders.sold):
                wrong.append(f"{item['limit'] - item['left']} are sold and {item['under_way']} under way; the traders have {traders.sold}")
            if till != PRICE * traders.sold:
                wrong.append(f"the till has {till} of {traders.sold} sales")
        if not wrong or time.monotonic() > ends:
            await first.close()
            return wrong
        await asyncio.sleep(0.5)


async def _put_item(traders: Traders) -> None:
    door = traders.door(traders.wallets[0])
    await door.request(traders.operator, "put_item", item=ITEM, amount=PRICE, currency=CURRENCY, limit=STOCK, venue=traders.venue, unit=traders.unit)
    await door.close()


def kill_under_trade(seed: int, kills: int) -> bool:
    """True where the books say what the traders were told, and every log had one writer."""
    folder = open_folder()
    chance = random.Random(seed)
    order = [MIX[i % len(MIX)] for i in range(kills)]
    chance.shuffle(order)
    began_s = time.time()
    try:
        with House(folder, seed, ways=()) as house:
            traders = Traders(house, seed)
            asyncio.run(_put_item(traders))
            traders.start()
            try:
                for number, what in enumerate(order, 1):
                    time.sleep(chance.uniform(*PAUSE_S))
                    strike(house, what)
                    say(kill=number, of=kills, what=what, after_s=round(time.time() - began_s, 1))
                    assert not traders.broken, traders.broken
                assert eventually(house.whole, BACK_S), house.stack.text
                time.sleep(2.0)
            finally:
                traders.stop()
            assert not traders.broken, traders.broken
            findings = asyncio.run(_settle(traders))
            with journal_rows(house.postgres_url) as query:
                wrong = query(TWO_WRITERS)
            say(
                name="sagas", seed=seed, kills=kills, order=order, took_s=round(time.time() - began_s), done=dict(sorted(traders.done.items())), sold=traders.sold,
                two_writers=len(wrong), findings=findings[:20],
            )  # fmt: skip
            return not findings and not wrong
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.proof.sagas", description="Kill what runs under transfers, sales and holds; the books must say what was told."
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="which kills, and when")
    parser.add_argument("--kills", type=int, default=len(MIX))
    arguments = parser.parse_args()
    say(seed=arguments.seed, repeat=f"python -m tests.proof.sagas --seed {arguments.seed} --kills {arguments.kills}")
    return 0 if kill_under_trade(arguments.seed, arguments.kills) else 1


if __name__ == "__main__":
    sys.exit(main())
