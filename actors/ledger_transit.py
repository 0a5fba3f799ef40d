"""What is under way between ledgers, as each end keeps it: numbered by the sender, decided once by the receiver. Owns these two books and moves no money.

Sequences of a pair of ledgers count from 1. The receiver remembers its decision on each until the sender says that it has finished it (`through`), so a
message that comes twice, or after everything is over, has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from actors.ledger_codes import CODES
from actors.messages import RECEIVED_BEFORE, Batch, UnderWay

MAX_UNDER_WAY: Final = 65_536
"""Transfers of a ledger that may be under way."""
MAX_BATCH: Final = 8_190
"""Rows of a batch of transfers."""

assert len(CODES) < RECEIVED_BEFORE


class Leg(msgspec.Struct, frozen=True, array_like=True):
    """One transfer under way."""

    key: bytes
    subject: int
    to: int
    amount: int
    currency: str


@dataclass(slots=True)
class Outbound:
    """To one ledger: the next sequence, and what is not finished, in order."""

    next: int = 1
    open: dict[int, Leg] = field(default_factory=dict)

    @property
    def through(self) -> int:
        return next(iter(self.open), self.next) - 1


@dataclass(slots=True)
class Inbound:
    """From one ledger: everything up to `through` is over; outcomes of what is not."""

    through: int = 0
    outcomes: dict[int, int] = field(default_factory=dict)

    def outcome(self, sequence: int) -> int | None:
        """What was decided; None for one never seen."""
        return RECEIVED_BEFORE if sequence <= self.through else self.outcomes.get(sequence)

    def raise_to(self, through: int) -> None:
        if through > self.through:
            self.through = through
            for sequence in [s for s in self.outcomes if s <= through]:
                del self.outcomes[sequence]


@dataclass(slots=True)
class Transit:
    outbound: dict[int, Outbound] = field(default_factory=dict)
    inbound: dict[int, Inbound] = field(default_factory=dict)

    @property
    def open(self) -> int:
        """Transfers sent and not finished."""
        return sum(len(peer.open) for peer in self.outbound.values())

    def under_way(self) -> UnderWay:
        """The oldest of each peer, at most a batch of each, by currency."""
        batches = []
        for peer, outbound in sorted(self.outbound.items()):
            legs = list(outbound.open.items())[:MAX_BATCH]
            for currency in sorted({leg.currency for _, leg in legs}):
                chosen = [(sequence, leg) for sequence, leg in legs if leg.currency == currency]
                batches.append(
                    Batch(
                        peer=peer, through=outbound.through, currency=currency,
                        sequence=np.array([sequence for sequence, _ in chosen], "<u8").tobytes(), key=b"".join(leg.key for _, leg in chosen),
                        subject=np.array([leg.subject for _, leg in chosen], "<u4").tobytes(), to=np.array([leg.to for _, leg in chosen], "<u4").tobytes(),
                        amount=np.array([leg.amount for _, leg in chosen], "<i8").tobytes(),
                    )
                )  # fmt: skip
        return UnderWay(batches=tuple(batches))

    def save(self) -> SavedTransit:
        return SavedTransit(
            [(peer, out.next, list(out.open.items())) for peer, out in sorted(self.outbound.items())],
            [(peer, at.through, list(at.outcomes.items())) for peer, at in sorted(self.inbound.items())],
        )

    @classmethod
    def load(cls, saved: SavedTransit) -> Transit:
        return cls(
            {peer: Outbound(after, dict(legs)) for peer, after, legs in saved.outbound},
            {peer: Inbound(through, dict(outcomes)) for peer, through, outcomes in saved.inbound},
        )


class SavedTransit(msgspec.Struct, array_like=True):
    outbound: list[tuple[int, int, list[tuple[int, Leg]]]]
    inbound: list[tuple[int, int, list[tuple[int, int]]]]
