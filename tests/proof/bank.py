"""The bank checker: what clients saw, against what the service says of itself. `python -m tests.proof.bank LOG... --ws URL --operator TOKEN` is a process of its own.

It knows what was sent, what was acknowledged and what was read (logs that clients write, one line before each request and one after each answer), and asks over the
public way: balances as each shopper, the books as the operator, and statements. It never looks into a shard, and folds no event itself.

Of one wallet there is one request at a time, repeated under its key until it is answered. So every answer and every read has one balance that it may tell, unless a
client gave a request up: then one with it and one without it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

CURRENCY: Final = "EUR"
MAX_OPEN: Final = 8
"""Requests of one wallet that were given up, at most: beyond, too many balances would do."""


class _Record(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    pass


class Opened(_Record, frozen=True, tag="opened"):
    """A wallet of this log, and the token that may read it."""

    subject: int
    token: str = ""


class Sent(_Record, frozen=True, tag="sent"):
    """A request leaves: `amount` minor units are added to the wallet (a payment's are below zero). The same key again is a retry."""

    subject: int
    key: bytes
    amount: int
    at_s: float = 0.0


class Acked(_Record, frozen=True, tag="acked"):
    """`balance`: what the answer told, if it told one."""

    key: bytes
    balance: int | None = None
    at_s: float = 0.0


class Refused(_Record, frozen=True, tag="refused"):
    """Refused for good: nothing was moved."""

    key: bytes
    code: str


class Read(_Record, frozen=True, tag="read"):
    """A balance that was read while nothing of this wallet was under way."""

    subject: int
    balance: int


Record = Opened | Sent | Acked | Refused | Read

_DECODER: Final = msgspec.json.Decoder(Record)


class Log:
    """Writes records so that they outlive this process: each is with the kernel before `write` returns."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, record: Record) -> None:
        os.write(self._file, msgspec.json.encode(record) + b"\n")

    def close(self) -> None:
        os.close(self._file)


def read_log(path: Path) -> list[Record]:
    """The records; a last line that its writer was killed over is left out."""
    data = path.read_bytes() if path.exists() else b""
    return [_DECODER.decode(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


class Movement(msgspec.Struct, frozen=True):
    """A line of a wallet's statement."""

    key: bytes
    amount: int
    balance: int


@dataclass(frozen=True)
class Told:
    """What the service says when all is over: spendable balances by wallet, the books (sums over all accounts, wallets, tills and the outside, by currency; counts), and
    statements by wallet, where they were asked for."""

    balances: Mapping[int, int]
    total: Mapping[str, int]
    wallets: int
    tills: int
    outside: int
    payments: int
    top_ups: int
    statements: Mapping[int, Sequence[Movement]] | None = None


class Finding(msgspec.Struct, frozen=True):
    """kind: lost, twice, never_sent, balance, sum, negative, books, answer."""

    kind: str
    what: str


class Verdict(msgspec.Struct, frozen=True):
    """`unknown`: requests that nobody was answered."""

    wallets: int
    acked: int
    refused: int
    reads: int
    repeated: int
    unknown: int
    volume: int
    findings: list[Finding]

    @property
    def sound(self) -> bool:
        return not self.findings


@dataclass
class _Wallet:
    """One wallet as its client knows it."""

    subject: int
    base: int = 0
    """What the acknowledged requests add up to."""
    open: dict[bytes, int] = field(default_factory=dict)
    """Sent and not answered: amounts by key."""
    acked: dict[bytes, tuple[int, int | None]] = field(default_factory=dict)
    refused: set[bytes] = field(default_factory=set)

    def may_be(self) -> set[int]:
        sums = {self.base}
        for amount in self.open.values():
            sums |= {known + amount for known in sums}
        return sums


def check(logs: Iterable[Sequence[Record]], told: Told) -> Verdict:
    """Compare. Every log holds the whole history of its wallets, in the order in which it happened."""
    seen = _Seen()
    for log in logs:
        for record in log:
            seen.take(record)
    for wallet in seen.wallets.values():
        seen.compare_balance(wallet, told)
    if told.statements is not None:
        for wallet in seen.wallets.values():
            seen.compare_statement(wallet, told.statements.get(wallet.subject, ()))
    seen.compare_books(told)
    acked = [amount for wallet in seen.wallets.values() for amount, _ in wallet.acked.values()]
    return Verdict(
        wallets=len(seen.wallets), acked=len(acked), refused=seen.refused, reads=seen.reads, repeated=seen.repeated,
        unknown=sum(len(wallet.open) for wallet in seen.wallets.values()), volume=-sum(amount for amount in acked if amount < 0), findings=seen.findings,
    )  # fmt: skip


class _Seen:
    def __init__(self) -> None:
        self.wallets: dict[int, _Wallet] = {}
        self.findings: list[Finding] = []
        self.refused = self.reads = self.repeated = 0
        self._of: dict[bytes, _Wallet] = {}

    def find(self, kind: str, what: str) -> None:
        self.findings.append(Finding(kind, what))

    def take(self, record: Record) -> None:
        match record:
            case Opened():
                self.wallets.setdefault(record.subject, _Wallet(record.subject))
            case Sent():
                wallet = self.wallets.setdefault(record.subject, _Wallet(record.subject))
                self._of[record.key] = wallet
                if record.key not in wallet.acked and record.key not in wallet.refused:
                    wallet.open[record.key] = record.amount
                    assert len(wallet.open) <= MAX_OPEN, (
                        f"wallet {record.subject}: {len(wallet.open)} requests were given up; the load must repeat them"
                    )
            case Acked():
                self._acked(self._of[record.key], record)
            case Refused():
                self.refused += 1
                wallet = self._of[record.key]
                wallet.open.pop(record.key, None)
                wallet.refused.add(record.key)
                if record.key in wallet.acked:
                    self.find(
                        "answer", f"wallet {wallet.subject}: {record.key.hex()} was acknowledged, and refused ({record.code}) when it was sent again"
                    )
            case Read():
                self.reads += 1
                self._compare(self.wallets[record.subject], record.balance, "read")

    def _acked(self, wallet: _Wallet, record: Acked) -> None:
        before = wallet.acked.get(record.key)
        if before is not None:
            self.repeated += 1
            if record.balance is not None and before[1] is not None and record.balance != before[1]:
                self.find(
                    "answer",
                    f"wallet {wallet.subject}: {record.key.hex()} told a balance of {before[1]}, and {record.balance} when it was sent again",
                )
            return
        if record.key in wallet.refused:
            self.find("answer", f"wallet {wallet.subject}: {record.key.hex()} was refused, and acknowledged when it was sent again")
            return
        amount = wallet.open.pop(record.key)
        wallet.acked[record.key] = amount, record.balance
        wallet.base += amount
        if record.balance is not None:
            self._compare(wallet, record.balance, f"answer to {record.key.hex()}")

    def _compare(self, wallet: _Wallet, balance: int, where: str) -> None:
        may = wallet.may_be()
        if balance < 0:
            self.find("negative", f"wallet {wallet.subject}, {where}: {balance}")
        if balance not in may:
            self.find("balance", f"wallet {wallet.subject}, {where}: {balance}, but clients were acknowledged {sorted(may)}")

    def compare_balance(self, wallet: _Wallet, told: Told) -> None:
        balance = told.balances.get(wallet.subject)
        if balance is None:
            self.find("balance", f"wallet {wallet.subject}: the service tells no balance of it")
        else:
            self._compare(wallet, balance, "at the end")

    def compare_statement(self, wallet: _Wallet, lines: Sequence[Movement]) -> None:
        times = Counter(line.key for line in lines)
        balance = 0
        for line in lines:
            amount = wallet.acked[line.key][0] if line.key in wallet.acked else wallet.open.get(line.key)
            balance += line.amount
            if amount is None:
                self.find("never_sent", f"wallet {wallet.subject}: the statement has {line.key.hex()}, which nobody sent or which was refused")
            elif amount != line.amount:
                self.find("balance", f"wallet {wallet.subject}: {line.key.hex()} moved {line.amount}, {amount} was asked for")
            if balance != line.balance or balance < 0:
                self.find(
                    "negative" if balance < 0 else "balance",
                    f"wallet {wallet.subject}: the statement tells {line.balance} where its lines make {balance}",
                )
        for key in wallet.acked:
            if times[key] == 0:
                self.find("lost", f"wallet {wallet.subject}: {key.hex()} was acknowledged and is in no statement")
        for key, count in times.items():
            if count > 1:
                self.find("twice", f"wallet {wallet.subject}: {key.hex()} is in the statement {count} times")

    def compare_books(self, told: Told) -> None:
        for currency, total in told.total.items():
            if total:
                self.find("sum", f"{currency}: the accounts add up to {total}, must be 0")
        if told.wallets + told.tills + told.outside != 0:
            self.find("sum", f"wallets {told.wallets}, tills {told.tills} and the outside {told.outside} must add up to 0")
        acked = [amount for wallet in self.wallets.values() for amount, _ in wallet.acked.values()]
        left_open = [amount for wallet in self.wallets.values() for amount in wallet.open.values()]
        for name, told_count, told_sum, sign in (("payments", told.payments, told.tills, -1), ("top-ups", told.top_ups, -told.outside, 1)):
            sure = [sign * amount for amount in acked if sign * amount > 0]
            perhaps = [sign * amount for amount in left_open if sign * amount > 0]
            if not len(sure) <= told_count <= len(sure) + len(perhaps):
                kind = "lost" if told_count < len(sure) else "twice"
                self.find(kind, f"the books count {told_count} {name}; {len(sure)} were acknowledged, {len(perhaps)} were given up")
            if not sum(sure) <= told_sum <= sum(sure) + sum(perhaps):
                self.find("books", f"the books have {told_sum} of {name}; {sum(sure)} were acknowledged, {sum(perhaps)} were given up")


# --- the process ------------------------------------------------------------------------------------------------------


async def ask(logs: Sequence[Sequence[Record]], *, ws: str, operator: str, postgres: str | None) -> Told:
    """Ask the gateway as each shopper and as the operator; read statements where `postgres` says where the journal is."""
    from gateway.client import Client

    tokens = {record.subject: record.token for log in logs for record in log if isinstance(record, Opened)}
    balances: dict[int, int] = {}

    async def balance(subject: int) -> None:
        async with await Client.connect(ws, client=f"checker-{subject}", token=tokens[subject]) as client:
            balances[subject] = (await client.balance()).get(CURRENCY, 0)

    for subject in sorted(tokens):
        await balance(subject)
    async with await Client.connect(ws, client="checker", token=operator) as client:
        books = await client.request("get_books")
    return Told(
        balances=balances, total=books["total"], wallets=books["wallets"].get(CURRENCY, 0), tills=books["tills"].get(CURRENCY, 0),
        outside=books["outside"].get(CURRENCY, 0), payments=books["payments"], top_ups=books["top_ups"],
        statements=None if postgres is None else await _statements(postgres, sorted(tokens)),
    )  # fmt: skip


async def _statements(postgres: str, subjects: Sequence[int]) -> dict[int, list[Movement]]:
    from actors import ledger_codes
    from actors.ledger_statement import MAX_LINES, Cursor, statement
    from actors.messages import LEDGERS
    from esplanade.core.ids import Address
    from esplanade.storage.postgres import PostgresJournal
    from tests.proof.payers import TENANT

    journal = await PostgresJournal.open(postgres)
    found: dict[int, list[Movement]] = {}
    try:
        for subject in subjects:
            after: Cursor | None = None
            lines = found[subject] = []
            while True:
                ledger = Address("ledger", TENANT, str(subject % LEDGERS))
                page = await statement(journal, ledger, ledger_codes.WALLET << 60 | subject, CURRENCY, after=after, limit=MAX_LINES)
                lines += [Movement(line.key, line.amount, line.balance) for line in page.lines]
                after = page.next
                if after is None:
                    break
    finally:
        await journal.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.bank", description="Check what clients saw against what the service says.")
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--ws", required=True, help="the gateway")
    parser.add_argument("--operator", required=True, help="an operator's token")
    parser.add_argument("--postgres", help="where the journal is, for statements")
    arguments = parser.parse_args()
    logs = [read_log(path) for path in arguments.logs]
    told = asyncio.run(ask(logs, ws=arguments.ws, operator=arguments.operator, postgres=arguments.postgres))
    verdict = check(logs, told)
    sys.stdout.buffer.write(msgspec.json.encode(verdict) + b"\n")
    return 0 if verdict.sound else 1


if __name__ == "__main__":
    sys.exit(main())
