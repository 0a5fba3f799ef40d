"""How many bays are free: counted from bay sensors, counted at gates, and by how much the two disagree.

Owns both counts of one car park and their comparison. It mends nothing by itself: a drift is reported until someone calls `recount`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from esplanade.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class BayReading:
    """A sensor's word: `sequence` counts a sensor's readings, so that late and repeated ones are known."""

    bay: str
    sequence: int
    taken: bool


@dataclass(frozen=True, slots=True)
class GateCount:
    """All cars through a gate since it was put up (totals, so that a lost report loses no car); `sequence` counts a gate's reports."""

    gate: str
    sequence: int
    entered: int
    left: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """taken: by sensors that have spoken. inside: by gates. unknown: bays whose sensor has not spoken. drift: how many cars the counts disagree by beyond what
    the unknown bays and cars on their way can explain; 0 where they agree."""

    taken: int
    inside: int
    unknown: int
    moving_at_most: int
    drift: int

    @property
    def agree(self) -> bool:
        return self.drift == 0


class Parking:
    """The two counts of a car park. `inside` at the start: cars that the gates have not seen enter."""

    def __init__(self, bays: Sequence[str], *, inside: int = 0) -> None:
        if len(set(bays)) != len(bays) or not inside >= 0:
            raise InvalidInput(f"parking: {len(bays)} bays of {len(set(bays))} names, {inside} cars inside; names must differ, cars not be negative")
        self._bays = frozenset(bays)
        self._taken: dict[str, tuple[int, bool]] = {}
        self._totals: dict[str, GateCount] = {}
        self._inside = inside

    @property
    def free(self) -> int:
        """Bays that no sensor calls taken."""
        return len(self._bays) - self.taken

    @property
    def taken(self) -> int:
        return sum(taken for _, taken in self._taken.values())

    @property
    def inside(self) -> int:
        """Cars inside by the gates; below 0 where they missed some entering."""
        return self._inside

    def read(self, readings: Iterable[BayReading]) -> list[BayReading]:
        """Take readings in any order; returns those refused (no such bay). A reading no newer than the last of its bay changes nothing."""
        refused = []
        for reading in readings:
            if reading.bay not in self._bays:
                refused.append(reading)
            elif reading.sequence > self._taken.get(reading.bay, (-1, False))[0]:
                self._taken[reading.bay] = (reading.sequence, reading.taken)
        return refused

    def count(self, counts: Iterable[GateCount]) -> list[GateCount]:
        """Take gate reports in any order; returns those refused: totals that are negative or went down. One no newer than the last of its gate changes nothing."""
        refused = []
        for report in counts:
            last = self._totals.get(report.gate, GateCount(report.gate, -1, 0, 0))
            if report.sequence <= last.sequence:
                continue
            if report.entered < last.entered or report.left < last.left:
                refused.append(report)
                continue
            self._totals[report.gate] = report
            self._inside += (report.entered - last.entered) - (report.left - last.left)
        return refused

    def compare(self, *, moving_at_most: int = 0) -> Comparison:
        """Sensors against gates. A car on its way to a bay or out is inside and in none: `moving_at_most` of them are no drift."""
        taken, unknown = self.taken, len(self._bays) - len(self._taken)
        low, high = taken, taken + unknown + moving_at_most
        drift = self._inside - high if self._inside > high else min(0, self._inside - low)
        return Comparison(taken, self._inside, unknown, moving_at_most, drift)

    def recount(self, *, moving: int = 0) -> int:
        """Take the sensors' count (and cars seen moving) as what is inside; returns by how much that changed the gates' count."""
        before, self._inside = self._inside, self.taken + moving
        return self._inside - before
