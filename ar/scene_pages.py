"""Snapshots of a scene that clients read page by page: each is encoded once a version, and whoever has begun with one reads on in that one, whatever is edited meanwhile.

Owns these bytes, MAX_READ of them at most. In memory alone: a reader whose snapshot is gone goes on in the newest, finds that it does not fit its hash, and begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MAX_READ: Final = 8
"""Readers whose snapshots are kept; the one that began first goes first."""


class SnapshotPages:
    """`reader`: who reads, a name."""

    def __init__(self) -> None:
        self._reading: dict[str, tuple[int, bytes]] = {}

    def page(self, reader: str, at: int, most_bytes: int, version: int, snapshot: Callable[[], bytes]) -> tuple[bytes, bool]:
        """Bytes from `at` on, `most_bytes` at most, and whether the snapshot ends with them. `version` is the scene's now, which `snapshot` encodes."""
        held = self._reading.pop(reader, None) if at else None
        if held is None:
            same = next((data for other, data in self._reading.values() if other == version), None)
            held = version, snapshot() if same is None else same
        data, upto = held[1], at + most_bytes
        whole = upto >= len(data)
        if whole:
            self._reading.pop(reader, None)
        else:
            self._reading[reader] = held
            if len(self._reading) > MAX_READ:
                del self._reading[next(iter(self._reading))]
        return data[at:upto], whole
