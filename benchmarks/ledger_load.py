"""What the ledger benchmark pays: 10,000 funded wallets, 10 stands, random payments with fresh ids. The same for ours and the peers."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actors.messages import LEDGERS
from spatial.venue import Level, Origin, Unit, Venue

ROWS = 8_190


@dataclass(frozen=True, slots=True)
class Batch:
    """key (n, 16) bytes; subject (n,) u4, unit (n,) u2, amount (n,) u4."""

    key: bytes
    subject: npt.NDArray[np.uint32]
    unit: npt.NDArray[np.uint16]
    amount: npt.NDArray[np.uint32]


class Load:
    """Columns are drawn once and reused in turn; ids are fresh each time. Safe to use from threads."""

    def __init__(self, *, wallets: int = 10_000, tills: int = 10, rows: int = ROWS, seed: int = 5) -> None:
        self.wallets, self.tills, self.funds = wallets, tills, 4_000_000_000
        self.rows = rows
        self._rng = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._pool = {ledger: [self._columns(ledger) for _ in range(8)] for ledger in (None, *range(LEDGERS))}
        self._turn = 0

    def _columns(self, ledger: int | None) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint16], npt.NDArray[np.uint32]]:
        if ledger is None:
            subject = self._rng.integers(0, self.wallets, self.rows)
        else:
            subject = self._rng.integers(0, self.wallets // LEDGERS, self.rows) * LEDGERS + ledger
        unit, amount = self._rng.integers(0, self.tills, self.rows), self._rng.integers(1, 50, self.rows)
        return subject.astype("<u4"), unit.astype("<u2"), amount.astype("<u4")

    def batch(self, ledger: int | None = None) -> Batch:
        """Payments of wallets of one ledger, or of any wallets."""
        with self._lock:
            self._turn += 1
            return Batch(self._rng.bytes(16 * self.rows), *self._pool[ledger][self._turn % 8])

    def venue(self) -> Venue:
        """A ground with the stands in a row."""

        def box(x0: float, x1: float) -> tuple[tuple[tuple[tuple[float, float], ...], ...], ...]:
            return ((((x0, 0.0), (x1, 0.0), (x1, 4.0), (x0, 4.0)),),)

        return Venue(
            id="ground",
            name="Ground",
            kind="festival",
            origin=Origin(lat_deg=0, lon_deg=0),
            levels=(Level(id="l", ordinal=0, name="Ground", short_name="G", outline=box(0.0, 6.0 * self.tills)),),
            units=tuple(
                Unit(id=f"stand-{i}", level_id="l", category="room", polygon=box(6.0 * i, 6.0 * i + 4), till=True) for i in range(self.tills)
            ),
        )
