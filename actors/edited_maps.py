"""Brings the catalogue up to the edits of maps that never came there: a gateway that dies between an edit's journal entry and the catalogue leaves it a document behind.

Owns when a shard looks and what it has seen in place; the edits are the malls'. The gateway that made an edit puts the document there itself, within milliseconds: what is
newer than the catalogue for AFTER_S has been left behind. An import that is no document of the history is somebody's will and stays.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Iterable
from typing import Final

from actors.edit_book import EditBook
from actors.flusher import Flusher
from actors.mall import MallState
from actors.partition_log import PartitionLog
from esplanade.core.errors import EsplanadeError
from esplanade.storage.catalogue import Catalogue

AFTER_S: Final = 5.0
"""Of the system clock: an edit younger than this may be on its way."""
AGAIN_S: Final = 30.0
"""What was found in place is not looked at again before; a try that failed is made again."""
TIMES: Final = 8
"""Documents put one after another while edits overtake them; the next look goes on."""

_log = logging.getLogger("esplanade.actors.edited_maps")

Place = tuple[str, str]


class EditedMaps:
    """Of one shard. `put`: documents put into the catalogue so far."""

    def __init__(self, catalogue: Catalogue, flusher: Flusher) -> None:
        self.put = 0
        self._catalogue = catalogue
        self._flusher = flusher
        self._seen: dict[Place, tuple[str, float]] = {}  # newest digest, and when it is to be looked for in the catalogue
        self._sweeping: asyncio.Task[None] | None = None

    def sweep(self, logs: Iterable[PartitionLog], now_s: float) -> None:
        """Look at the malls of live logs, in a task of its own where there is something to compare. Call once a second or so."""
        held = [(log, mall) for log in logs if log.live and not log.given_up for mall in log.malls]
        known, self._seen = self._seen, {}
        due: list[tuple[PartitionLog, str, MallState]] = []
        for log, mall in held:
            state: MallState | None = mall.state
            if state is None or not state.edits.document:
                continue
            place, digest = (log.tenant, mall.address.id), state.edits.digests[-1]
            seen = known.get(place)
            when_s = seen[1] if seen is not None and seen[0] == digest else now_s + AFTER_S
            if now_s >= when_s and self._sweeping is None:
                due.append((log, mall.address.id, state))
                when_s = now_s + AGAIN_S
            self._seen[place] = digest, when_s
        if due:
            self._sweeping = asyncio.create_task(self._compare(due))
            self._sweeping.add_done_callback(self._swept)

    def _swept(self, done: asyncio.Task[None]) -> None:
        self._sweeping = None
        if not done.cancelled():
            done.result()

    async def swept(self) -> None:
        """Returns when no comparison is under way."""
        if self._sweeping is not None:
            await self._sweeping

    async def stop(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    async def _compare(self, due: list[tuple[PartitionLog, str, MallState]]) -> None:
        for log, venue, state in due:
            try:
                await self._bring_up(log, venue, state.edits)
            except EsplanadeError as error:
                _log.warning("edited_map_not_published", extra={"tenant": log.tenant, "venue": venue, "reason": error.message})

    async def _bring_up(self, log: PartitionLog, venue: str, edits: EditBook) -> None:
        for _ in range(TIMES):
            digest, document = edits.digests[-1], edits.document
            if await self._flusher.settled(log) is not None or log.given_up:
                return
            found = next((entry.digest for entry in await self._catalogue.venues(log.tenant) if entry.venue == venue), None)
            if found == digest or found not in edits.digests:
                return
            await self._catalogue.put_venue(log.tenant, zlib.decompress(document))
            self.put += 1
            _log.info("edited_map_published", extra={"tenant": log.tenant, "venue": venue, "digest": digest})
            if edits.digests[-1] == digest:
                return
