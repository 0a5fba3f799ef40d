"""Who should own which partition: pure functions from the lease table and the list of live shards to moves. Owns the policy; moves nothing itself.

A shard that owns nothing is a spare. Orphans (partitions whose owner is gone, hung or being drained) go to a spare while fewer shards than wanted are at
work, else to those that own least; nobody else's partitions move. A surplus of spares is put to work with a fair share, taken from those that own most.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from esplanade.core.ids import PARTITIONS


@dataclass(frozen=True, slots=True)
class Plan:
    """`take`: partitions that each process takes over at once. `move`: (from, to, partitions) that are handed over live. `waits`: there are partitions that should go to
    another, and no process that may have them now."""

    take: dict[str, list[int]] = field(default_factory=dict)
    move: list[tuple[str, str, list[int]]] = field(default_factory=list)
    waits: bool = False


def plan(owners: Mapping[int, str | None], live: Collection[str], *, wanted: int, spares: int, leaving: Collection[str] = ()) -> Plan:
    """What to do now.

    owners: process that owns each partition, None where it is gone or hung. live: processes that may own. wanted: shards at work; spares: those that stand by.
    leaving: live processes that are being drained.
    """
    may = sorted(name for name in live if name not in leaving)
    owned: dict[str, list[int]] = {name: [] for name in may}
    orphans: list[int] = []
    drained: dict[str, list[int]] = {}
    for partition in range(PARTITIONS):
        owner = owners.get(partition)
        if owner in owned:
            owned[owner].append(partition)
        elif owner is not None and owner in live:
            drained.setdefault(owner, []).append(partition)
        else:
            orphans.append(partition)
    work = [name for name in may if owned[name]]
    idle = [name for name in may if not owned[name]]
    if orphans or drained:
        while idle and len(work) < wanted:
            work.append(idle.pop(0))
        if not work:
            return Plan(waits=True)
        take: dict[str, list[int]] = {}
        for partition in orphans:
            _give(take, work, owned, partition)
        move = []
        for source, partitions in sorted(drained.items()):
            given: dict[str, list[int]] = {}
            for partition in partitions:
                _give(given, work, owned, partition)
            move += [(source, name, moved) for name, moved in sorted(given.items())]
        return Plan(take, move)
    if work and idle and len(work) < wanted and len(idle) > spares:
        return Plan(move=_share(owned, work, idle[0]))
    return Plan()


def _give(given: dict[str, list[int]], work: list[str], owned: dict[str, list[int]], partition: int) -> None:
    name = min(work, key=lambda name: len(owned[name]))
    owned[name].append(partition)
    given.setdefault(name, []).append(partition)


def _share(owned: Mapping[str, list[int]], work: list[str], newcomer: str) -> list[tuple[str, str, list[int]]]:
    """A fair share for the newcomer, one partition at a time from whoever owns most."""
    left = {name: list(owned[name]) for name in work}
    taken: dict[str, list[int]] = {}
    for _ in range(sum(map(len, left.values())) // (len(work) + 1)):
        most = max(work, key=lambda name: (len(left[name]), name))
        taken.setdefault(most, []).append(left[most].pop())
    return [(name, newcomer, partitions) for name, partitions in sorted(taken.items())]
