"""The account of an import: every feature read is imported, merged or rejected, and what could not be concluded is said."""

from __future__ import annotations

from dataclasses import dataclass

from spatial.venue import Venue


@dataclass(frozen=True, slots=True)
class Rejected:
    """A feature that is not in the venue, and why."""

    level: str
    feature_id: str
    name: str
    rule: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something the reader of the summary should know of a feature: what was assumed, or could not be concluded."""

    level: str
    feature_id: str
    message: str


@dataclass(frozen=True, slots=True)
class LevelAccount:
    """Counts of one level. `read == imported + merged + rejected`.

    shops: units that are or could be let, vacant ones included; vacant: of these; openings: of shops, read or inferred; largest_m2, pieces: ground outside
    all units (bays and rest areas too), in the floor's own metres, pieces of 1 m2 and more.
    """

    level: str
    read: int
    imported: int
    merged: int
    rejected: int
    shops: int
    vacant: int
    openings: int
    largest_m2: float
    pieces: int


@dataclass(frozen=True, slots=True)
class Links:
    """Units of one kind linked by overlap between consecutive levels: one count a pair of levels, from the lowest."""

    kind: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImportSummary:
    levels: tuple[LevelAccount, ...]
    rejected: tuple[Rejected, ...]
    links: tuple[Links, ...]
    notes: tuple[Note, ...]
    fit_error_m: float
    """Largest distance between a source point and the venue frame's image of it by `Level.to_source`."""

    @property
    def read(self) -> int:
        return sum(level.read for level in self.levels)

    @property
    def imported(self) -> int:
        return sum(level.imported for level in self.levels)

    @property
    def merged(self) -> int:
        return sum(level.merged for level in self.levels)


@dataclass(frozen=True, slots=True)
class ImportResult:
    venue: Venue
    summary: ImportSummary
