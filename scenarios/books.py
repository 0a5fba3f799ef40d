"""The books of a run, checked three ways: folded from the journal, told by the ledgers, and as clients saw them acknowledged.

Owns the fold and the comparison. Never trusts a sum that was told: it adds up every payment and top-up of the journal itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from actors.events import Paid, ToppedUp
from scenarios.hashing import Told


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome. Money in minor units by currency; `sum` is over all accounts (zero, always)."""

    payments: int
    top_ups: int
    volume: dict[str, int]
    wallets: dict[str, int]
    tills: dict[str, int]
    outside: dict[str, int]
    sum: dict[str, int]
    told_sum: dict[str, int]
    largest_sum: int
    difference: int
    overdrawn: int
    twice: int
    acked: int
    acked_lost: int
    balanced: bool


@dataclass(slots=True)
class Fold:
    """Accounts folded from payments and top-ups: wallet by (currency, subject), till by (currency, venue, unit), the outside by currency."""

    wallets: dict[tuple[str, int], int] = field(default_factory=dict)
    tills: dict[tuple[str, str, int], int] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    paid: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)
    topped: set[bytes] = field(default_factory=set)
    volume: dict[str, int] = field(default_factory=dict)
    payments: int = 0
    top_ups: int = 0
    twice: int = 0

    def add(self, told: Told) -> None:
        """Take an event; what moves no money passes by."""
        body = told.body
        if not isinstance(body, Paid | ToppedUp):
            return
        subject = np.frombuffer(body.subject, "<u4").tolist()
        amount = np.frombuffer(body.amount, "<u4").tolist()
        keys = [body.key[i : i + 16] for i in range(0, len(body.key), 16)]
        currency = body.currency
        if isinstance(body, ToppedUp):
            for key, who, much in zip(keys, subject, amount, strict=True):
                self.twice += key in self.topped
                self.topped.add(key)
                self.wallets[currency, who] = self.wallets.get((currency, who), 0) + much
                self.outside[currency] = self.outside.get(currency, 0) - much
                self.top_ups += 1
            return
        for key, who, unit, much in zip(keys, subject, np.frombuffer(body.unit, "<u2").tolist(), amount, strict=True):
            self.twice += key in self.paid
            self.paid[key] = (who, unit, much)
            self.wallets[currency, who] = self.wallets.get((currency, who), 0) - much
            till = (currency, body.venue, unit)
            self.tills[till] = self.tills.get(till, 0) + much
            self.volume[currency] = self.volume.get(currency, 0) + much
            self.payments += 1


@dataclass(frozen=True, slots=True)
class Acked:
    """A payment that a client saw acknowledged as settled."""

    key: bytes
    subject: int
    unit: int
    amount: int


def acked_in(logs: Iterable[Mapping[str, Any]], *, settled: int) -> list[Acked]:
    """Acknowledged payments in the load generator's logs (columns of `simulation.load_process.PayLog`)."""
    found: list[Acked] = []
    for log in logs:
        rows = np.flatnonzero(log["pay_status"] == settled)
        table = zip(log["pay_subject"][rows].tolist(), log["pay_unit"][rows].tolist(), log["pay_amount"][rows].tolist(), strict=True)
        found.extend(Acked(log["pay_key"][row].tobytes(), *values) for row, values in zip(rows.tolist(), table, strict=True))
    return found


def check_books(fold: Fold, told: Mapping[str, Any], acked: Iterable[Acked]) -> Books:
    """Compare the fold with the Books frame of the gateway and with what clients saw acknowledged."""
    currencies = sorted(fold.outside.keys() | fold.volume.keys() | set(told["total"]))
    wallets = {c: sum(v for (currency, _), v in fold.wallets.items() if currency == c) for c in currencies}
    tills = {c: sum(v for (currency, _, _), v in fold.tills.items() if currency == c) for c in currencies}
    outside = {c: fold.outside.get(c, 0) for c in currencies}
    total = {c: wallets[c] + tills[c] + outside[c] for c in currencies}
    told_sum = {c: int(told["total"].get(c, 0)) for c in currencies}
    difference = max(
        [
            abs(ours[c] - int(told[name].get(c, 0)))
            for name, ours in (("wallets", wallets), ("tills", tills), ("outside", outside))
            for c in currencies
        ]
        + [abs(fold.payments - told["payments"]), abs(fold.top_ups - told["top_ups"])]
    )
    seen, lost = 0, 0
    for payment in acked:
        seen += 1
        lost += fold.paid.get(payment.key) != (payment.subject, payment.unit, payment.amount)
    largest = max([abs(v) for v in (*total.values(), *told_sum.values())], default=0)
    overdrawn = sum(v < 0 for v in fold.wallets.values())
    return Books(
        payments=fold.payments,
        top_ups=fold.top_ups,
        volume=dict(fold.volume),
        wallets=wallets,
        tills=tills,
        outside=outside,
        sum=total,
        told_sum=told_sum,
        largest_sum=largest,
        difference=difference,
        overdrawn=overdrawn,
        twice=fold.twice,
        acked=seen,
        acked_lost=lost,
        balanced=largest == 0 and difference == 0 and overdrawn == 0 and fold.twice == 0 and lost == 0,
    )
