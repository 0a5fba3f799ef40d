"""Kill what runs, at random moments, under payments through the gateway and through `System`; then the bank checker says whether anything was lost.

    python -m tests.proof.kills [--seed N] [--kills N]      # one after another, however whole the service is; the last line is the verdict
    python -m tests.proof.kills --apart                     # each kind alone, once the service is whole again: how long clients wait

`esplanade` (killed, or ended because its raylet was) is started again on the same directory, as a process manager would.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Final

from tests.proof.house import BACK_S, TWO_WRITERS, House, journal_rows, say, summary
from tests.services.stack import eventually
from tests.services_fixtures import open_folder

HANG: Final = "hang"
MIX: Final = (
    "shard", "gateway", "PostgreSQL", HANG, "Redis", "esplanade", "shard", "gateway", "raylet", "shard",
    "PostgreSQL", HANG, "shard", "gateway", "api", "Redis", "shard", "gateway", "PostgreSQL", HANG,
)  # fmt: skip
"""Twenty, in an order that the seed decides. Servers die at most five times a minute: beyond, `esplanade` ends by design."""
PAUSE_S: Final = (0.3, 6.0)


def strike(house: House, what: str) -> float:
    """One kill; returns when (Unix time). Starts the service again where that ends it."""
    if what == HANG:
        house.kill("shard", signal.SIGSTOP)
        return time.time()
    house.kill(what)
    at_s = time.time()
    if what in ("esplanade", "raylet"):
        ended_s = house.ended()
        say(killed=what, ended_after_s=round(ended_s - at_s, 2))
        house.again()
        house.pay()
    return at_s


def many(seed: int, kills: int) -> bool:
    """Random kills; True where the books are right and every log had one writer."""
    folder = open_folder()
    chance = random.Random(seed)
    order = [MIX[i % len(MIX)] for i in range(kills)]
    chance.shuffle(order)
    began_s = time.time()
    try:
        with House(folder, seed) as house:
            house.pay()
            for number, what in enumerate(order, 1):
                time.sleep(chance.uniform(*PAUSE_S))
                strike(house, what)
                say(kill=number, of=kills, what=what, after_s=round(time.time() - began_s, 1))
            verdict = house.audit()
            with journal_rows(house.postgres_url) as query:
                wrong = query(TWO_WRITERS)
                segments, epochs = query("SELECT count(*), max(epoch) FROM segment")[0]
            say(
                name="kills", seed=seed, kills=kills, order=order, took_s=round(time.time() - began_s), segments=segments, highest_epoch=epochs,
                two_writers=len(wrong), **summary(verdict),
            )  # fmt: skip
            return verdict.sound and not wrong
    finally:
        shutil.rmtree(folder, ignore_errors=True)


KINDS: Final = ("shard", "PostgreSQL", HANG, "gateway", "Redis", "raylet", "esplanade")
"""In this order the servers do not die too often within a minute."""


def apart(seed: int, times: int, kinds: Sequence[str]) -> bool:
    """Each kind of kill alone; says the longest time that a wallet went without an answer, and when /readyz was 200 again."""
    folder = open_folder()
    try:
        with House(folder, seed) as house:
            house.pay()
            for what in kinds:
                silent, ready = [], []
                for _ in range(times):
                    assert eventually(house.whole, BACK_S)
                    time.sleep(2.0)
                    at_s = strike(house, what)
                    time.sleep(0.2)
                    assert eventually(house.whole, BACK_S), house.stack.text
                    ready.append(time.time() - at_s)
                    time.sleep(5.0 if what == HANG else 3.0)
                    silent.append(house.silence_s(at_s, time.time()))
                say(
                    name="kill apart", what=what, times=times, without_answers_s=[round(s, 2) for s in silent],
                    median_s=round(statistics.median(silent), 2), ready_after_s=[round(s, 2) for s in ready],
                )  # fmt: skip
            verdict = house.audit()
            say(**summary(verdict))
            return verdict.sound
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.proof.kills", description="Kill what runs under payments; the bank checker has the last word."
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="which kills, and when")
    parser.add_argument("--kills", type=int, default=len(MIX))
    parser.add_argument("--apart", type=int, metavar="TIMES", default=0, help="each kind alone, so often")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="which of them, with --apart")
    arguments = parser.parse_args()
    say(seed=arguments.seed, repeat=f"python -m tests.proof.kills --seed {arguments.seed} --kills {arguments.kills}")
    return 0 if (apart(arguments.seed, arguments.apart, arguments.kinds) if arguments.apart else many(arguments.seed, arguments.kills)) else 1


if __name__ == "__main__":
    sys.exit(main())
