"""The hash of a run: what happened in the venue, and nothing of how it was computed.

It covers the durable domain events of the run's tenant in (tick, entity, row) order: crossings, dwells, what happened at drawn zones, pushes, payments and top-ups row by row; offers; the
course of each parking bay. It leaves out wall times, epochs, versions, batch borders, the tenant's name, checkpoints, sources and answers kept for retries. Late rows void it: with
them the events depend on timing, and a hash would pretend otherwise.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from actors.events import (
    BaysChanged,
    Dwelt,
    EventBody,
    Late,
    OfferCreated,
    OfferEnded,
    Paid,
    Pushed,
    ToppedUp,
    Transitions,
    ZonesCrossed,
    decode_event,
)
from esplanade.core.ids import PARTITIONS, Address
from esplanade.storage.journal import Journal

FORMAT: Final = b"esplanade.hash/1"
Rows = npt.NDArray[np.uint64]


class RunHash(msgspec.Struct, frozen=True):
    """blake2b-256 as hex; `void` says why it proves nothing, None where it holds. `facts` counts the rows it covers."""

    hex: str
    facts: int
    void: str | None


@dataclass(frozen=True, slots=True)
class Told:
    """An event of the journal, decoded."""

    address: Address
    version: int
    body: EventBody


async def read_journal(journal: Journal, tenant: str) -> AsyncIterator[Told]:
    """Every event of a tenant, in log order within each partition."""
    for partition in range(PARTITIONS):
        async for segment in journal.read(tenant, partition):
            for event in segment.events:
                yield Told(Address.parse(event.entity), event.version, decode_event(event.type, event.body))


@dataclass(slots=True)
class Facts:
    """Domain facts gathered from events in any order of partitions and segments; `digest` brings them into one order."""

    first_tick: int
    last_tick: int
    late_rows: int = 0
    late_ticks: int = 0
    _rows: dict[tuple[int, str, str], list[Rows]] = field(default_factory=lambda: defaultdict(list))
    _bays: dict[tuple[str, str], list[tuple[int, bool]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, told: Told) -> None:
        """Take an event; those outside first_tick..last_tick, and what is no domain fact, pass by."""
        body, entity = told.body, f"{told.address.kind}/{told.address.id}"
        match body:
            case Transitions():
                self._take(body.tick, entity, "crossed", _rows(("<u4", body.subject), ("<u2", body.fence), ("u1", body.entered)))
            case Dwelt():
                self._take(body.tick, entity, "dwelt", _rows(("<u4", body.subject), ("<u2", body.fence)))
            case ZonesCrossed():
                for i, zone in enumerate(body.zones):
                    mine = np.frombuffer(body.zone, "<u2") == i
                    kind = np.frombuffer(body.kind, np.uint8)[mine].tobytes()
                    self._take(body.tick, entity, f"zone {zone}", _rows(("<u4", np.frombuffer(body.subject, "<u4")[mine].tobytes()), ("u1", kind)))
            case Pushed():
                for i, offer in enumerate(body.offers):
                    mine = np.frombuffer(body.offer, "<u2") == i
                    who = np.frombuffer(body.subject, "<u4")[mine].astype("<u4").tobytes()
                    self._take(body.tick, entity, f"pushed {offer}", _rows(("<u4", who)))
            case Paid():
                rows = _rows(("key", body.key), ("<u4", body.subject), ("<u2", body.unit), ("<u4", body.amount))
                self._take(body.tick, entity, f"paid {body.venue} {body.currency}", rows)
            case ToppedUp():
                rows = _rows(("key", body.key), ("<u4", body.subject), ("<u4", body.amount))
                self._take(body.tick, entity, f"topped up {body.currency}", rows)
            case OfferCreated():
                # Its tick is when the operator's request came, which is no fact of the venue; from when it holds is in the offer.
                text = msgspec.json.encode(body.offer, order="sorted").hex()
                self._take(self.first_tick, entity, f"offer {text}", _rows(("u1", b"\1")))
            case OfferEnded():
                self._take(body.tick, entity, f"offer ended {body.offer_id}", _rows(("u1", b"\1")))
            case BaysChanged():
                for i, bay in enumerate(body.bays):
                    self._bays[entity, bay.unit_id].append((told.version * 20_000 + i, bay.occupied))
            case Late():
                self.late_rows += body.rows
                self.late_ticks += body.ticks
            case _:
                return

    def _take(self, tick: int, entity: str, what: str, rows: Rows) -> None:
        if self.first_tick <= tick <= self.last_tick and len(rows):
            self._rows[tick, entity, what].append(rows)

    def digest(self) -> RunHash:
        """The hash over everything added so far."""
        state = hashlib.blake2b(FORMAT, digest_size=32)
        count = 0
        for tick, entity, what in sorted(self._rows):
            rows = np.concatenate(self._rows[tick, entity, what])
            rows = rows[np.lexsort(rows.T[::-1])]
            state.update(b"\n%d %s %s %d " % (tick, entity.encode(), what.encode(), len(rows)))
            state.update(rows.tobytes())
            count += len(rows)
        for entity, unit in sorted(self._bays):
            course = [occupied for _, occupied in sorted(self._bays[entity, unit])]
            changes = [now for before, now in zip([None, *course[:-1]], course, strict=True) if now is not before]
            state.update(b"\nbay %s %s %s" % (entity.encode(), unit.encode(), bytes(changes)))
            count += len(changes)
        void = None
        if self.late_rows or self.late_ticks:
            void = f"{self.late_rows} rows came after their tick had closed and {self.late_ticks} ticks closed by the deadline: what happened depended on timing"
        return RunHash(state.hexdigest(), count, void)


def _rows(*columns: tuple[str, bytes]) -> Rows:
    """Rows of an event's byte columns (kind, bytes) as fixed-width numbers, shape (n, words): numbers big-endian, keys of 16 bytes as they are, padded with zeros."""
    parts: list[npt.NDArray[np.uint8]] = []
    for kind, data in columns:
        if kind == "key":
            parts.append(np.frombuffer(data, np.uint8).reshape(-1, 16))
        else:
            numbers = np.frombuffer(data, kind)
            parts.append(numbers.astype(numbers.dtype.newbyteorder(">")).view(np.uint8).reshape(len(numbers), -1))
    joined = np.concatenate(parts, axis=1)
    padded = np.zeros((len(joined), -(-joined.shape[1] // 8) * 8), np.uint8)
    padded[:, : joined.shape[1]] = joined
    return padded.view(">u8")


def facts_of(events: Iterable[Told], *, first_tick: int, last_tick: int) -> Facts:
    """Facts of events that are at hand."""
    facts = Facts(first_tick, last_tick)
    for told in events:
        facts.add(told)
    return facts
