"""Whether a log can do without its oldest segments: its snapshot loads, what follows folds onto it, and no entity is behind what the index of the segments says.

Owns that judgement. Reads only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from actors.partition_log import PartitionLog
from actors.positions import HostSettings
from actors.venue_shelf import VenueShelf
from esplanade.core.errors import Fault
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.journal import Journal

LastVersions = Callable[[int], Awaitable[dict[str, int]]]
"""By entity, the last version that the log's segments up to a position have in their index."""


async def covered_until(journal: Journal, catalogue: Catalogue, tenant: str, partition: int, last_versions: LastVersions) -> int:
    """The position of the log's verified snapshot; 0 where it has none. Raises Fault where the snapshot is not what the log says, or cannot be checked."""
    snapshot = await journal.snapshot(tenant, partition)
    if snapshot is None:
        return 0
    log = PartitionLog(tenant, partition, 1, secret=bytes(16), settings=HostSettings(), snapshot_segments=2**62)
    await log.replay(journal, VenueShelf(catalogue), 0.0)
    place = f"snapshot of ({tenant}, {partition}) at position {snapshot.position}"
    if log.orphans:
        raise Fault(f"{place}: cannot be checked without the venues {', '.join(sorted(log.orphans))}; import them again")
    replayed = {str(address): entity.version for address, entity in log.entities.items()} | {host.name: host.version for host in log.hosts.values()}
    for entity, version in (await last_versions(log.position)).items():
        if replayed.get(entity) != version:
            raise Fault(
                f"{place}: {entity} comes to version {replayed.get(entity)} from it, the log has {version}; it covers nothing: keep the segments"
            )
    return snapshot.position
