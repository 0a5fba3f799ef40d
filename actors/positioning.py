"""From what phones hear to rows of the position plane: the live filters of the venues whose position hosts a shard has.

Owns which radio map a venue goes by, the queue of batches to each filter, and that an answer leaves when its rows are in the host. The state is volatile: a shard that takes a venue over begins with
no cloud, and phones have a dot again after two scans. The compiled pass runs in a thread, without the interpreter's lock, so that turns of the shard go on; a venue's batches are taken one after another.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from actors.frame import Slot
from actors.partition_log import PartitionLog
from actors.requests import LocatedRows, Observe, Take, located_rows, observed_of, refusal, take_of
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, Fault, InvalidInput, LimitExceeded, NotFound, Unavailable
from esplanade.storage.catalogue import Catalogue, RadioMapEntry
from spatial.positioning.observed import Answers, Observed, rows_of
from spatial.venue import Venue

if TYPE_CHECKING:  # the estimators take half a second to import: with a venue's first radio map
    from spatial.positioning.live import LiveFilter

MAX_BATCHES: Final = 64
"""Batches of one venue that wait for its filter; another one is refused."""
FRESH_S: Final = 5.0
"""The catalogue is asked after this time whether another radio map is in force."""
AGE_S: Final = 5.0
IDLE_S: Final = 600.0
"""A venue of which nothing was heard for so long loses its filter."""

TakeRows = Callable[[PartitionLog, Take], None]


class _Venue:
    """A venue's filter and the batches that wait for it."""

    __slots__ = ("aged_s", "checked_s", "entry", "live", "queue", "refused", "task", "used_s")

    def __init__(self) -> None:
        self.queue: deque[tuple[PartitionLog, Slot, Observed, Venue]] = deque()
        self.task: asyncio.Task[None] | None = None
        self.live: LiveFilter | None = None
        self.entry: RadioMapEntry | None = None
        self.refused: InvalidInput | None = None  # what the map in force was refused for
        self.checked_s = -np.inf
        self.aged_s = 0.0
        self.used_s = 0.0


class Positioning:
    """Of one shard. `take(log, rows)` hands rows to a venue's position host; raises what the host raises."""

    def __init__(self, catalogue: Catalogue, clock: SystemClock, take: TakeRows) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._take = take
        self._venues: dict[tuple[str, str], _Venue] = {}
        self.observations = 0
        self.locating_s = 0.0

    @property
    def phones(self) -> int:
        """That the filters here hold."""
        return sum(len(venue.live) for venue in self._venues.values() if venue.live is not None)

    def submit(self, log: PartitionLog, slot: Slot, request: Observe, document: Venue) -> None:
        """Queue a batch; the slot is answered when its rows are in the host. Raises InvalidInput, LimitExceeded."""
        observed = observed_of(request)
        now_s = self._clock.monotonic_s()
        self._drop_idle(now_s)
        venue = self._venues.setdefault((request.tenant, request.venue), _Venue())
        if len(venue.queue) >= MAX_BATCHES:
            raise LimitExceeded(
                f"venue {request.venue}: {len(venue.queue)} batches of observations wait for its filter; at most that many, send again later"
            )
        venue.used_s = now_s
        venue.queue.append((log, slot, observed, document))
        if venue.task is None:
            venue.task = asyncio.ensure_future(self._work(request.tenant, venue))

    async def stop(self) -> None:
        """Refuse what waits."""
        tasks = [venue.task for venue in self._venues.values() if venue.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for venue in self._venues.values():
            for _, slot, _, _ in venue.queue:
                slot.frame.answer(slot.index, refusal(Unavailable("the shard stops; ask again")))
            venue.queue.clear()

    def _drop_idle(self, now_s: float) -> None:
        for key in [key for key, venue in self._venues.items() if venue.task is None and now_s - venue.used_s > IDLE_S]:
            del self._venues[key]

    async def _work(self, tenant: str, venue: _Venue) -> None:
        try:
            while venue.queue:
                log, slot, observed, document = venue.queue[0]
                try:
                    live = await self._filter(tenant, document, venue)
                    began_s = self._clock.monotonic_s()
                    answers = await asyncio.to_thread(_located, live, venue, observed, began_s)
                    self.observations += len(observed)
                    self.locating_s += self._clock.monotonic_s() - began_s
                    answer = self._give(log, document.id, observed, answers, venue)
                except EsplanadeError as error:
                    slot.frame.answer(slot.index, refusal(error))
                except Exception as error:
                    venue.live = venue.entry = None  # what is in memory cannot be trusted any more
                    venue.checked_s = -np.inf
                    slot.frame.answer(
                        slot.index, refusal(Fault(f"observations of venue {document.id}: {type(error).__name__}: {error}; its filter begins anew"))
                    )
                else:
                    slot.frame.answer(slot.index, answer)
                venue.queue.popleft()
        finally:
            venue.task = None

    def _give(self, log: PartitionLog, venue_id: str, observed: Observed, answers: Answers, venue: _Venue) -> LocatedRows:
        """The newest row of each subject goes to the host. Raises what it raises, and Unavailable where the log was given up meanwhile."""
        if log.given_up:
            raise Unavailable(f"venue {venue_id}: its host is replayed; ask again")
        rows = rows_of(observed, answers)
        if len(rows):
            self._take(log, take_of(log.tenant, venue_id, rows, None, None))
        assert venue.entry is not None
        return located_rows(answers, venue.entry.version)

    async def _filter(self, tenant: str, document: Venue, venue: _Venue) -> LiveFilter:
        """The venue's filter under the radio map in force. Raises NotFound where there is none, InvalidInput where it is not of this venue."""
        if self._clock.monotonic_s() - venue.checked_s >= FRESH_S:
            entry = await self._catalogue.radio_map_entry(tenant, document.id)
            if entry != venue.entry:
                venue.live, venue.refused = None, None
                if entry is not None:
                    body = await self._catalogue.radio_map(tenant, document.id, entry.version)
                    try:
                        venue.live = await asyncio.to_thread(open_filter, body, document)
                    except InvalidInput as error:
                        venue.refused = error
                venue.entry = entry
            venue.checked_s = self._clock.monotonic_s()
        if venue.live is None:
            raise venue.refused or no_radio_map(document.id)
        return venue.live


def no_radio_map(venue: str) -> NotFound:
    return NotFound(
        f"no radio map for this venue: {venue} has none; an operator publishes one with `esplanade positioning publish`, until then send `move`"
    )


def open_filter(body: bytes, document: Venue) -> LiveFilter:
    """A filter without subjects under a model's file. Raises InvalidInput where it is no model, or of other floors than the venue's."""
    from spatial.positioning.live import LiveFilter, LiveMap
    from spatial.positioning.model import load_model

    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        file.write(body)
        file.flush()
        model = load_model(Path(file.name))
    names = tuple(level.short_name for level in document.levels)
    if len(set(names)) != len(names):
        raise InvalidInput(f"venue {document.id}: levels are named {list(names)}; each needs a name of its own for a radio map")
    return LiveFilter(LiveMap(model, names))


def _located(live: LiveFilter, venue: _Venue, observed: Observed, now_s: float) -> Answers:
    if now_s - venue.aged_s >= AGE_S:
        venue.aged_s = now_s
        live.age(now_s)
    return live.take(observed, now_s)
