"""Recording as the gateway sees it: frames of the venues that are recorded go to their writers. Loads the writing itself (`scenarios.recording`) when first asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from esplanade.core.errors import Conflict, NotFound
from spatial.columns import PositionColumns

if TYPE_CHECKING:
    from scenarios.recording import Manifest, RecordingWriter


class RecordingTee:
    """The gateway's tee: one writer a (tenant, venue) that was asked for by `start`; frames of others pass by.

    Implements `rows(tenant, venue, source, tick, columns)` of the gateway's Tee protocol.
    """

    def __init__(self) -> None:
        self._writers: dict[tuple[str, str], RecordingWriter] = {}

    def start(self, tenant: str, venue: str, folder: Path) -> None:
        """Record this venue into `folder` from now on. Raises Conflict where it is being recorded or the folder is not empty. Blocks: the first one loads Arrow."""
        if (tenant, venue) in self._writers:
            raise Conflict(f"recording of {tenant}/{venue}: already running; finish it first")
        from scenarios.recording import RecordingWriter

        self._writers[tenant, venue] = RecordingWriter(folder, tenant=tenant, venue=venue)

    def rows(self, tenant: str, venue: str, source: str | None, tick: int | None, columns: PositionColumns) -> None:
        writer = self._writers.get((tenant, venue))
        if writer is not None:
            writer.rows(source, tick, columns)

    def finish(self, tenant: str, venue: str) -> Manifest:
        """Close the recording and say what it holds; blocks while the queue is written. Raises NotFound where none was started."""
        writer = self._writers.pop((tenant, venue), None)
        if writer is None:
            raise NotFound(f"recording of {tenant}/{venue}: none is running; start one first")
        return writer.close()

    def close(self) -> None:
        """Close every recording."""
        for tenant, venue in list(self._writers):
            self.finish(tenant, venue)
