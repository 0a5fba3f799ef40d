"""Anchors of one venue: poses that persist, found again by id, near a place or near each other, with a quality that observations raise or lower.

Owns which anchors there are and what a change does to them; `actors.anchors` decides who may change what and journals it. Knows no wire, journal or clock.
- A pose is in the venue frame and on a level; or, where the anchor stands on something that moves (its `carrier`: a parade float, a lift), in that thing's frame.
- Found by `spatial.index.CrowdIndex` (decision 5) in tiers: all as packed last, those that changed since, the newest few looked at one by one, the carried ones.
- Distances are on the floor plan, metres: what hangs high on a wall is as near as what stands below it.
- Quality: (2 q + agreed) / (2 + agreed + disputed), the host's own estimate q counting as two observations; an observation agrees within three standard deviations.

State is columns by row; removal swaps with the last row. The same changes in the same order give the same bytes of `save`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ar.anchor_records import (
    ACCESS,
    DEFAULT_SIGMA_M,
    DEFAULT_SIGMA_RAD,
    HASH_BYTES,
    ID_BYTES,
    MAX_LEVELS,
    MAX_RADIUS_M,
    TRUST,
    Anchor,
    Held,
    Observed,
    Seeker,
    _rated,
    full_covariance,
)
from ar.pose import F8, Poses
from esplanade.core.errors import Fault, InvalidInput, LimitExceeded, NotFound
from spatial.index import MAX_K, CrowdIndex, Hits, Refused, Sheets

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

MAX_ANCHORS: Final = 4_000_000
MAX_CARRIED: Final = 20_000
MAX_CARRIERS: Final = 1_000
MAX_TAG_SETS: Final = 65_536
TIER_ROWS: Final = 256
"""Changed rows that every question looks at one by one; more are indexed."""
CHANGED_SHARE: Final = 50
"""All is packed anew when more than one in so many rows has changed (and more than 16 * TIER_ROWS)."""
GATE_SIGMAS: Final = 3.0
MAX_KEPT: Final = 8
"""Observations kept of one anchor for refinement, the newest."""


@dataclass(slots=True)
class _Columns:
    """By row. level, position_m and rotation as hosted; carrier: index of its carrier, -1 for none; tags: index of its set; tier: which one holds it."""

    id: npt.NDArray[np.uint8]
    level: I4
    position_m: F8
    rotation: F8
    quality: F8
    agreed: I4
    disputed: I4
    version: I4
    owner: npt.NDArray[np.uint32]
    expires_ms: I8
    access: npt.NDArray[np.uint8]
    tags: I4
    carrier: I4
    fragment: npt.NDArray[np.uint8]


_LAYOUT: Final[dict[str, tuple[str, int]]] = {
    "id": ("<u1", ID_BYTES), "level": ("<i4", 0), "position_m": ("<f8", 3), "rotation": ("<f8", 4), "quality": ("<f8", 0), "agreed": ("<i4", 0),
    "disputed": ("<i4", 0), "version": ("<i4", 0), "owner": ("<u4", 0), "expires_ms": ("<i8", 0), "access": ("<u1", 0), "tags": ("<i4", 0),
    "carrier": ("<i4", 0), "fragment": ("<u1", HASH_BYTES),
}  # fmt: skip
assert tuple(_LAYOUT) == tuple(field.name for field in fields(_Columns))


class _Carrier(msgspec.Struct, array_like=True):
    name: str
    level: int
    position_m: tuple[float, float, float]
    rotation: tuple[float, float, float, float]


class _Saved(msgspec.Struct, array_like=True):
    columns: dict[str, bytes]
    tag_sets: list[tuple[str, ...]]
    carriers: list[_Carrier]
    covariance: dict[bytes, tuple[float, ...]]
    payload: dict[bytes, bytes]
    observed: dict[bytes, list[Observed]]


_PENDING, _CHANGED, _PACKED, _CARRIED = range(4)


@dataclass(slots=True)
class _Tier:
    """Rows indexed together; a hit counts only while `_tier` of its row still says this tier."""

    number: int
    rows: I8
    index: CrowdIndex


class AnchorBook:
    """The anchors. Rows are this object's own and change with every removal; ids are for everyone else."""

    def __init__(self) -> None:
        self._n = 0
        self._columns = _room(64)
        self._tier = np.zeros(64, np.uint8)
        self._row: dict[bytes, int] = {}
        self._covariance: dict[bytes, tuple[float, ...]] = {}
        self._payload: dict[bytes, bytes] = {}
        self._observed: dict[bytes, list[Observed]] = {}
        self._tag_sets: list[tuple[str, ...]] = [()]
        self._tag_set: dict[tuple[str, ...], int] = {(): 0}
        self._tag_tables: dict[tuple[str, ...], Bool] = {}
        self._carriers: list[_Carrier] = []
        self._carrier: dict[str, int] = {}
        self._carried = 0
        self._sheets = Sheets([("levels", MAX_LEVELS)])
        self._pending: dict[int, None] = {}
        self._expiring: list[tuple[int, bytes]] = []  # a heap; what was changed since is passed over
        self._tiers: dict[int, _Tier] = {}

    def __len__(self) -> int:
        return self._n

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._row

    # --- reading ------------------------------------------------------------------------------------------------------

    def owner(self, identity: bytes) -> int:
        """Raises NotFound."""
        return int(self._columns.owner[self._of(identity)])

    def visible(self, identity: bytes, seeker: Seeker, now_ms: int) -> bool:
        row = self._row.get(identity)
        return row is not None and bool(self._seen(np.array([row]), seeker, now_ms)[0])

    def held(self, identity: bytes) -> Held:
        """Raises NotFound."""
        return self._held(np.array([self._of(identity)]), np.zeros(1))[0]

    def resolve(self, ids: Iterable[bytes], seeker: Seeker, now_ms: int) -> list[Held]:
        """Those of the ids that are here and that the seeker may see, in their order. What is missing is not told apart from what is hidden."""
        rows = np.array([row for identity in ids if (row := self._row.get(identity)) is not None], np.int64)
        rows = rows[self._seen(rows, seeker, now_ms)]
        return self._held(rows, np.zeros(len(rows)))

    def near(self, level: I4, x_m: F8, y_m: F8, radius_m: float, k: int, seeker: Seeker, now_ms: int) -> Hits:
        """For each of q questions, the k nearest rows that the seeker may see at most `radius_m` away on that level: nearest first.

        level, x_m, y_m: (q,). Raises InvalidInput for a radius or k beyond the limits. A question that breaks a rule of `spatial.index` is refused there.
        """
        if not 0 < radius_m <= MAX_RADIUS_M or not 1 <= k <= MAX_K:
            raise InvalidInput(f"anchors near: radius {radius_m} m, k = {k}; must be above 0 to {MAX_RADIUS_M:g} m, and 1 to {MAX_K}")
        self._index()
        q = len(level)
        found = [self._pending_near(level, x_m, y_m, radius_m, seeker, now_ms)]
        bad = Refused(np.zeros(0, np.int64), np.zeros(0, np.uint8))
        for tier in self._tiers.values():
            part, bad = self._tier_near(tier, level, x_m, y_m, radius_m, k, seeker, now_ms)
            found.append(part)
        question = np.concatenate([part[0] for part in found])
        row = np.concatenate([part[1] for part in found])
        distance = np.concatenate([part[2] for part in found])
        order = np.lexsort((row, distance, question))
        question = question[order]
        place = np.arange(len(question)) - np.searchsorted(question, question)
        kept = order[place < k]
        question = question[place < k]
        return Hits(np.searchsorted(question, np.arange(q + 1)).astype(np.int64), row[kept].astype(np.int32), distance[kept], bad)

    def near_one(
        self, level: int, x_m: float, y_m: float, radius_m: float, k: int, seeker: Seeker, now_ms: int, *, beside: bytes = b""
    ) -> list[Held]:
        """As `near`, of one question and as anchors; `beside`: an id that is left out."""
        hits = self.near(np.array([level], np.int32), np.array([x_m]), np.array([y_m]), radius_m, min(k + 1, MAX_K) if beside else k, seeker, now_ms)
        kept = np.flatnonzero(hits.row != self._row.get(beside, -1))[:k]
        return self._held(hits.row[kept], hits.distance_m[kept])

    def ids(self, rows: npt.NDArray[np.integer]) -> list[bytes]:
        """Ids of rows of an answer, before the next change."""
        return [bytes(self._columns.id[row]) for row in rows]

    def place(self, identity: bytes) -> tuple[int, Poses]:
        """Level and pose (with covariance, where known) in the venue frame. Raises NotFound."""
        return self._place(self._of(identity))

    def quality(self, identity: bytes) -> float:
        """Raises NotFound."""
        return self._quality(self._of(identity))

    def agrees(self, seen: Observed) -> bool:
        """Whether an observation says where the anchor is held to be. Raises NotFound for an id that is not here, InvalidInput for a pose that is none."""
        there = Poses.of(seen.position_m, seen.rotation)
        _, held = self.place(seen.id)
        variance_m, variance_rad = seen.sigma_m**2, seen.sigma_rad**2
        if seen.seen_from:
            _, base = self.place(seen.seen_from)
            held = base.inverse_mean() @ held
            m, rad = self._variance(seen.seen_from)
            variance_m, variance_rad = variance_m + m, variance_rad + rad
        m, rad = self._variance(seen.id)
        metres, radians = Poses(held.translation_m, held.rotation).distance(there)
        far = metres[0] > GATE_SIGMAS * np.sqrt(variance_m + m) or radians[0] > GATE_SIGMAS * np.sqrt(variance_rad + rad)
        return not far

    # --- changing -----------------------------------------------------------------------------------------------------

    def put(self, anchor: Anchor, owner: int) -> None:
        """A new anchor; or, under the id of one that is here, its next version, whose observations begin anew where the pose is another.

        The caller has checked it (`check_anchor`, `room`).
        """
        row = self._row.get(anchor.id)
        new = row is None
        if row is None:
            if self._n == len(self._columns.level):
                self._columns, self._tier = _grown(self._columns), np.concatenate([self._tier, np.zeros(len(self._tier), np.uint8)])
            row = self._n
            self._n += 1
            self._row[anchor.id] = row
        c = self._columns
        pose = Poses.of(anchor.position_m, anchor.rotation)
        carrier = self._carrier_of(anchor) if anchor.carrier else -1
        self._carried += int(carrier >= 0) - int(not new and c.carrier[row] >= 0)
        moved = new or c.level[row] != anchor.level or c.carrier[row] != carrier or (c.position_m[row] != pose.translation_m[0]).any()
        if moved or (c.rotation[row] != pose.rotation[0]).any():
            c.agreed[row] = c.disputed[row] = 0
            self._observed.pop(anchor.id, None)
        c.id[row] = np.frombuffer(anchor.id, np.uint8)
        c.level[row], c.position_m[row], c.rotation[row] = anchor.level, pose.translation_m[0], pose.rotation[0]
        c.quality[row], c.owner[row], c.expires_ms[row] = anchor.quality, owner, anchor.expires_ms
        c.version[row] = 1 if new else c.version[row] + 1
        c.access[row], c.tags[row], c.carrier[row] = ACCESS.index(anchor.access), self._tags_of(anchor.tags), carrier
        c.fragment[row] = np.frombuffer(anchor.fragment.ljust(HASH_BYTES, b"\0"), np.uint8)
        self._covariance.pop(anchor.id, None)
        self._payload.pop(anchor.id, None)
        if anchor.covariance:
            self._covariance[anchor.id] = anchor.covariance
        if anchor.payload:
            self._payload[anchor.id] = anchor.payload
        if anchor.expires_ms:
            heapq.heappush(self._expiring, (anchor.expires_ms, anchor.id))
        if moved:
            self._touched(row)

    def put_all(self, anchors: Sequence[Anchor], owner: int) -> None:
        """As `put` of each, in order; the columns at once where all are new and stand still, which is twenty times quicker."""
        ids = [anchor.id for anchor in anchors]
        if len(ids) < 2 or len(set(ids)) < len(ids) or any(a.carrier or a.id in self._row for a in anchors):
            for anchor in anchors:
                self.put(anchor, owner)
            return
        first, self._n = self._n, self._n + len(ids)
        while self._n > len(self._columns.level):
            self._columns, self._tier = _grown(self._columns), np.concatenate([self._tier, np.zeros(len(self._tier), np.uint8)])
        c, rows = self._columns, slice(first, self._n)
        poses = Poses.of([a.position_m for a in anchors], [a.rotation for a in anchors])
        c.id[rows] = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, ID_BYTES)
        c.level[rows], c.position_m[rows], c.rotation[rows] = [a.level for a in anchors], poses.translation_m, poses.rotation
        c.quality[rows], c.owner[rows], c.expires_ms[rows] = [a.quality for a in anchors], owner, [a.expires_ms for a in anchors]
        c.version[rows], c.agreed[rows], c.disputed[rows], c.carrier[rows] = 1, 0, 0, -1
        c.access[rows], c.tags[rows] = [ACCESS.index(a.access) for a in anchors], [self._tags_of(a.tags) for a in anchors]
        marks = b"".join(a.fragment.ljust(HASH_BYTES, b"\0") for a in anchors)
        c.fragment[rows] = np.frombuffer(marks, np.uint8).reshape(-1, HASH_BYTES)
        self._row.update(zip(ids, range(first, self._n), strict=True))
        self._covariance.update((a.id, a.covariance) for a in anchors if a.covariance)
        self._payload.update((a.id, a.payload) for a in anchors if a.payload)
        for anchor in anchors:
            if anchor.expires_ms:
                heapq.heappush(self._expiring, (anchor.expires_ms, anchor.id))
        self._tier[rows] = _PENDING
        self._pending.update(dict.fromkeys(range(first, self._n)))

    def adopt(self, held: Held) -> None:
        """An anchor as it is held elsewhere, with its version and the counts of its observations; where it stood on a carrier, at the place where that was."""
        anchor = msgspec.structs.replace(held.anchor, carrier="")
        self.put(anchor, held.owner)
        row, c = self._row[anchor.id], self._columns
        c.version[row], c.agreed[row], c.disputed[row] = held.version, held.agreed, held.disputed

    def room(self, anchor: Anchor, *, more: int = 0) -> None:
        """Raises LimitExceeded where the anchor does not fit any more beside those here and `more` to come."""
        if anchor.id not in self._row and self._n + more >= MAX_ANCHORS:
            raise LimitExceeded(f"anchors: {self._n} in this venue; at most {MAX_ANCHORS}, remove some")
        if tuple(sorted(anchor.tags)) not in self._tag_set and len(self._tag_sets) >= MAX_TAG_SETS:
            raise LimitExceeded(f"anchors: {len(self._tag_sets)} different sets of tags in this venue; at most {MAX_TAG_SETS}, use fewer")
        if anchor.carrier and self._carried + more >= MAX_CARRIED:
            raise LimitExceeded(f"anchors: {self._carried} on things that move; at most {MAX_CARRIED}")
        if anchor.carrier:
            self.carrier_room(anchor.carrier, more=more)

    def carrier_room(self, carrier: str, *, more: int = 0) -> None:
        """Raises LimitExceeded where a thing that moves is one too many."""
        if carrier not in self._carrier and len(self._carriers) + more >= MAX_CARRIERS:
            raise LimitExceeded(f"anchors: {len(self._carriers)} things that move; at most {MAX_CARRIERS}")

    def remove(self, identity: bytes) -> None:
        """Raises NotFound."""
        row = self._of(identity)
        last = self._n - 1
        c = self._columns
        self._carried -= int(c.carrier[row] >= 0)
        del self._row[identity]
        self._covariance.pop(identity, None)
        self._payload.pop(identity, None)
        self._observed.pop(identity, None)
        self._pending.pop(row, None)
        if row != last:
            for name in _LAYOUT:
                column = getattr(c, name)
                column[row] = column[last]
            self._row[bytes(c.id[row])] = row
            self._touched(row)
        self._pending.pop(last, None)
        self._n = last
        self._tier[last] = _PENDING
        self._tiers.pop(_CARRIED, None)

    def observe(self, seen: Observed, agrees: bool) -> None:
        """One observation more that agrees or does not; kept for refinement until newer ones take its place. Raises NotFound."""
        row = self._of(seen.id)
        column = self._columns.agreed if agrees else self._columns.disputed
        column[row] += 1
        if self._columns.carrier[row] < 0:
            kept = self._observed.setdefault(seen.id, [])
            kept.append(seen)
            del kept[:-MAX_KEPT]

    def graph(self, most: int) -> tuple[list[Held], list[Observed]]:
        """Anchors with observations that are kept, and those that they were seen from, in order of their ids, and these observations: at most `most` anchors.

        What was seen from an anchor that is gone, or stands on something that moves, is left out.
        """
        rows: dict[bytes, int] = {}
        found: list[Observed] = []
        for identity in sorted(self._observed):
            for seen in self._observed[identity]:
                ends = [end for end in (seen.id, seen.seen_from) if end]
                fit = all(end in self._row and self._columns.carrier[self._row[end]] < 0 for end in ends)
                new = [end for end in ends if end not in rows]
                if fit and len(rows) + len(new) <= most:
                    rows |= {end: self._row[end] for end in new}
                    found.append(seen)
        ordered = np.array([rows[identity] for identity in sorted(rows)], np.int64)
        return self._held(ordered, np.zeros(len(ordered))), found

    def move(self, identity: bytes, pose: Poses) -> None:
        """The refined pose of an anchor that stands still: its next version; its observations stay. Raises NotFound, InvalidInput for a carried one."""
        row = self._of(identity)
        c = self._columns
        if c.carrier[row] >= 0:
            raise InvalidInput(f"anchor {identity.hex()}: stands on something that moves, which is not refined against the venue")
        c.position_m[row], c.rotation[row] = pose.translation_m[0], pose.rotation[0]
        c.version[row] += 1
        self._touched(row)

    def carry(self, carrier: str, level: int, position_m: Sequence[float], rotation: Sequence[float]) -> None:
        """Where a thing that moves is now: with it, every anchor on it. Raises InvalidInput for a pose that is none, LimitExceeded."""
        pose = Poses.of(position_m, rotation)
        self.carrier_room(carrier)
        at = self._carrier.get(carrier)
        x, y, z = (float(v) for v in pose.translation_m[0])
        qx, qy, qz, qw = (float(v) for v in pose.rotation[0])
        state = _Carrier(carrier, level, (x, y, z), (qx, qy, qz, qw))
        if at is None:
            self._carrier[carrier] = len(self._carriers)
            self._carriers.append(state)
        else:
            self._carriers[at] = state
        self._tiers.pop(_CARRIED, None)

    def carrier(self, name: str) -> tuple[int, tuple[float, float, float], tuple[float, float, float, float]] | None:
        """Level, position and rotation of a thing that moves; None for one that nobody has named."""
        at = self._carrier.get(name)
        return None if at is None else (self._carriers[at].level, self._carriers[at].position_m, self._carriers[at].rotation)

    def expired(self, now_ms: int, most: int) -> list[bytes]:
        """Ids of anchors whose time is over, the longest first; at most `most`."""
        found: list[tuple[int, bytes]] = []
        while self._expiring and self._expiring[0][0] <= now_ms and len(found) < most:
            due = heapq.heappop(self._expiring)
            row = self._row.get(due[1])
            if row is not None and self._columns.expires_ms[row] == due[0] and due not in found[-1:]:
                found.append(due)
        for due in found:
            heapq.heappush(self._expiring, due)
        return [identity for _, identity in found]

    def preview(self, anchor: Anchor, owner: int) -> Held:
        """What `put` would make of an anchor: its next version, or its first with this owner."""
        pose = Poses.of(anchor.position_m, anchor.rotation)
        version, agreed, disputed, row = 1, 0, 0, self._row.get(anchor.id)
        c = self._columns
        if row is not None:
            owner, version = int(c.owner[row]), int(c.version[row]) + 1
            carrier = self._carrier.get(anchor.carrier, -2) if anchor.carrier else -1
            same = c.level[row] == anchor.level and c.carrier[row] == carrier and (c.rotation[row] == pose.rotation[0]).all()
            if same and (c.position_m[row] == pose.translation_m[0]).all():
                agreed, disputed = int(c.agreed[row]), int(c.disputed[row])
        level = anchor.level
        at = self._carrier.get(anchor.carrier) if anchor.carrier else None
        if at is not None:
            level, pose = self._carriers[at].level, Poses.of(self._carriers[at].position_m, self._carriers[at].rotation) @ pose
        held = Held(msgspec.structs.replace(anchor, level=level, tags=tuple(sorted(anchor.tags))), owner, version - 1, 0.0, agreed, disputed)
        return held.at(pose).after(0, 0)

    def previews(self, anchors: Sequence[Anchor], owner: int) -> list[Held]:
        """`preview` of each; where all are new and stand still, their poses at once."""
        if len(anchors) < 2 or any(a.carrier or a.id in self._row for a in anchors):
            return [self.preview(anchor, owner) for anchor in anchors]
        poses = Poses.of([a.position_m for a in anchors], [a.rotation for a in anchors])
        found = []
        for a, (x, y, z), (qx, qy, qz, qw) in zip(anchors, poses.translation_m.tolist(), poses.rotation.tolist(), strict=True):
            tags = tuple(sorted(a.tags)) if len(a.tags) > 1 else a.tags
            put = Anchor(
                a.id, a.level, (x, y, z), (qx, qy, qz, qw), a.covariance, a.quality, tags, a.expires_ms, a.access, a.fragment, payload=a.payload
            )
            found.append(Held(put, owner, 1, _rated(a.quality, 0, 0)))
        return found

    # --- bytes --------------------------------------------------------------------------------------------------------

    def save(self) -> bytes:
        """Everything, by columns."""
        columns = {name: np.ascontiguousarray(getattr(self._columns, name)[: self._n], dtype).tobytes() for name, (dtype, _) in _LAYOUT.items()}
        covariance = {key: self._covariance[key] for key in sorted(self._covariance)}
        payload = {key: self._payload[key] for key in sorted(self._payload)}
        observed = {key: self._observed[key] for key in sorted(self._observed)}
        return msgspec.msgpack.encode(_Saved(columns, self._tag_sets, self._carriers, covariance, payload, observed))

    @classmethod
    def load(cls, data: bytes) -> AnchorBook:
        """Raises Fault for what `save` has not written."""
        try:
            saved = msgspec.msgpack.decode(data, type=_Saved)
        except msgspec.MsgspecError as error:
            raise Fault(f"saved anchors of {len(data)} bytes: {error}; the snapshot is damaged") from error
        book = cls()
        n = len(saved.columns["id"]) // ID_BYTES
        room = _room(max(64, n))
        for name, (dtype, width) in _LAYOUT.items():
            column = np.frombuffer(saved.columns[name], dtype)
            getattr(room, name)[:n] = column.reshape(n, width) if width else column
        book._n, book._columns, book._tier = n, room, np.zeros(len(room.level), np.uint8)
        raw = saved.columns["id"]
        book._row = {raw[ID_BYTES * i : ID_BYTES * (i + 1)]: i for i in range(n)}
        book._expiring = [(int(room.expires_ms[row]), book.ids(np.array([row]))[0]) for row in np.flatnonzero(room.expires_ms[:n])]
        heapq.heapify(book._expiring)
        book._covariance, book._payload, book._observed = saved.covariance, saved.payload, saved.observed
        book._tag_sets = saved.tag_sets
        book._tag_set = {tags: i for i, tags in enumerate(saved.tag_sets)}
        book._carriers = saved.carriers
        book._carrier = {carrier.name: i for i, carrier in enumerate(saved.carriers)}
        book._carried = int((room.carrier[:n] >= 0).sum())
        book._pack()
        return book

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _of(self, identity: bytes) -> int:
        row = self._row.get(identity)
        if row is None:
            raise NotFound(f"anchor {identity.hex()}: not in this venue (removed, expired, or never hosted)")
        return row

    def _carrier_of(self, anchor: Anchor) -> int:
        at = self._carrier.get(anchor.carrier)
        if at is None:  # nobody has said yet where it is: at the origin of its level
            self.carry(anchor.carrier, anchor.level, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
            at = self._carrier[anchor.carrier]
        return at

    def _tags_of(self, tags: tuple[str, ...]) -> int:
        key = tuple(sorted(tags))
        at = self._tag_set.get(key)
        if at is None:
            at = self._tag_set[key] = len(self._tag_sets)
            self._tag_sets.append(key)
        return at

    def _place(self, row: int) -> tuple[int, Poses]:
        c = self._columns
        triangle = self._covariance.get(bytes(c.id[row]))
        pose = Poses(c.position_m[row : row + 1].copy(), c.rotation[row : row + 1].copy(), full_covariance(triangle)[None] if triangle else None)
        if c.carrier[row] < 0:
            return int(c.level[row]), pose
        carrier = self._carriers[c.carrier[row]]
        return carrier.level, Poses.of(carrier.position_m, carrier.rotation) @ pose

    def _variance(self, identity: bytes) -> tuple[float, float]:
        """Of the held pose: square metres, square radians."""
        triangle = self._covariance.get(identity)
        if triangle is None:
            return DEFAULT_SIGMA_M**2, DEFAULT_SIGMA_RAD**2
        spread = np.diagonal(full_covariance(triangle))
        return float(spread[:3].max()), float(spread[3:].max())

    def _quality(self, row: int) -> float:
        c = self._columns
        return _rated(float(c.quality[row]), float(c.agreed[row]), float(c.disputed[row]))

    def _held(self, rows: npt.NDArray[np.integer], distance_m: F8) -> list[Held]:
        """Rows as anchors; read column by column, which is some times quicker than row by row."""
        c = self._columns
        found = []
        raw, fragments = c.id[rows].tobytes(), c.fragment[rows]
        marked = fragments.any(axis=1).tolist()
        agreed, disputed = c.agreed[rows], c.disputed[rows]
        quality = (TRUST * c.quality[rows] + agreed) / (TRUST + agreed + disputed)
        columns = zip(
            rows.tolist(), c.level[rows].tolist(), c.position_m[rows].tolist(), c.rotation[rows].tolist(), c.quality[rows].tolist(), c.tags[rows].tolist(),
            c.expires_ms[rows].tolist(), c.access[rows].tolist(), c.carrier[rows].tolist(), c.owner[rows].tolist(), c.version[rows].tolist(),
            quality.tolist(), agreed.tolist(), disputed.tolist(), distance_m.tolist(), marked, strict=True,
        )  # fmt: skip
        for i, (row, level, xyz, turn, own, tags, expires, access, carrier, owner, version, good, yes, no, metres, has) in enumerate(columns):
            name = ""
            if carrier >= 0:
                name = self._carriers[carrier].name
                level, pose = self._place(row)
                xyz, turn = pose.translation_m[0].tolist(), pose.rotation[0].tolist()
            identity = raw[ID_BYTES * i : ID_BYTES * (i + 1)]
            anchor = Anchor(
                identity, level, tuple(xyz), tuple(turn), self._covariance.get(identity, ()), own, self._tag_sets[tags], expires, ACCESS[access],
                fragments[i].tobytes() if has else b"", name, self._payload.get(identity, b""),
            )  # fmt: skip
            found.append(Held(anchor, owner, version, good, yes, no, metres))
        return found

    def _seen(self, rows: I8, seeker: Seeker, now_ms: int) -> Bool:
        """Which rows the seeker may see and asks for."""
        c = self._columns
        expires = c.expires_ms[rows]
        seen = (expires == 0) | (expires > now_ms)
        if seeker.own:
            seen &= c.owner[rows] == seeker.subject
        elif not seeker.staff:
            seen &= (c.access[rows] == 0) | (c.owner[rows] == seeker.subject)
        if seeker.tags:
            seen &= self._with_tags(seeker.tags)[c.tags[rows]]
        return np.asarray(seen, np.bool_)

    def _with_tags(self, tags: tuple[str, ...]) -> Bool:
        """By set of tags: whether it holds all of these."""
        key = tuple(sorted(tags))
        table = self._tag_tables.get(key)
        if table is None or len(table) != len(self._tag_sets):
            wanted = set(key)
            table = np.array([wanted.issubset(have) for have in self._tag_sets], np.bool_)
            if len(self._tag_tables) >= 256:
                self._tag_tables.clear()
            self._tag_tables[key] = table
        return table

    # --- finding ------------------------------------------------------------------------------------------------------

    def _touched(self, row: int) -> None:
        """The row is new or stands elsewhere."""
        if self._columns.carrier[row] >= 0:
            self._tier[row] = _CARRIED
            self._pending.pop(row, None)
            self._tiers.pop(_CARRIED, None)
        else:
            self._tier[row] = _PENDING
            self._pending[row] = None

    def _index(self) -> None:
        """Bring the tiers up to date, moving as few rows as may be."""
        if len(self._pending) > TIER_ROWS:
            changed = self._tiers.get(_CHANGED)
            kept = changed.rows[changed.rows < self._n] if changed is not None else np.zeros(0, np.int64)
            kept = np.unique(kept[self._tier[kept] == _CHANGED])
            if len(kept) + len(self._pending) > max(16 * TIER_ROWS, self._n // CHANGED_SHARE):
                self._pack()
            else:
                self._build(_CHANGED, np.concatenate([kept, np.fromiter(self._pending, np.int64, len(self._pending))]))
                self._pending.clear()
        if self._carried and _CARRIED not in self._tiers:
            self._build(_CARRIED, np.flatnonzero(self._columns.carrier[: self._n] >= 0))

    def _pack(self) -> None:
        self._build(_PACKED, np.flatnonzero(self._columns.carrier[: self._n] < 0))
        self._tiers.pop(_CHANGED, None)
        self._pending.clear()

    def _build(self, number: int, rows: I8) -> None:
        c = self._columns
        level, xy = c.level[rows], c.position_m[rows, :2]
        if number == _CARRIED:
            for at, carrier in enumerate(self._carriers):
                on = np.flatnonzero(c.carrier[rows] == at)
                pose = Poses.of(carrier.position_m, carrier.rotation)
                level[on], xy[on] = carrier.level, pose.apply(c.position_m[rows[on]])[:, :2]
        index = CrowdIndex.build(self._sheets, np.arange(len(rows)), level, np.ascontiguousarray(xy[:, 0]), np.ascontiguousarray(xy[:, 1]))
        self._tiers[number] = _Tier(number, rows, index)
        self._tier[rows] = number

    def _tier_near(
        self, tier: _Tier, level: I4, x: F8, y: F8, radius_m: float, k: int, seeker: Seeker, now_ms: int
    ) -> tuple[tuple[I8, I8, F8], Refused]:
        """(question, row, distance) of at least the k nearest that count in this tier, or all within the radius; and the questions refused.

        Asked for the k nearest first; for four times as many where some of those do not count; at last for all.
        """
        found: list[tuple[I8, I8, F8]] = []
        bad: Refused | None = None
        asked, want = np.arange(len(level)), k
        while len(asked):
            whole = want >= MAX_K and want > k
            if whole:
                hits = tier.index.within(level[asked], x[asked], y[asked], radius_m)
            else:
                hits = tier.index.nearest(level[asked], x[asked], y[asked], want, within_m=radius_m)
            if bad is None:
                bad = hits.refused
            question, row = hits.question, tier.rows[hits.row]
            good = (self._tier[row] == tier.number) & self._seen(row, seeker, now_ms)
            if good.all() and not found:
                return (question, row, hits.distance_m), bad
            counts = np.bincount(question[good], minlength=len(asked))
            short = (counts < k) & (np.diff(hits.offset) >= want) & (not whole)
            kept = good & ~short[question]
            found.append((asked[question[kept]], row[kept], hits.distance_m[kept]))
            asked, want = asked[short], min(4 * want, MAX_K) if want < MAX_K else MAX_K + 1
        none = np.zeros(0, np.int64)
        return (
            (np.concatenate([none, *(part[0] for part in found)]), np.concatenate([none, *(part[1] for part in found)]),
             np.concatenate([np.zeros(0), *(part[2] for part in found)])),
            bad if bad is not None else Refused(none, np.zeros(0, np.uint8)),
        )  # fmt: skip

    def _pending_near(self, level: I4, x: F8, y: F8, radius_m: float, seeker: Seeker, now_ms: int) -> tuple[I8, I8, F8]:
        rows = np.fromiter(self._pending, np.int64, len(self._pending))
        rows = rows[self._seen(rows, seeker, now_ms)]
        c = self._columns
        dx, dy = c.position_m[rows, 0] - x[:, None], c.position_m[rows, 1] - y[:, None]
        squared = dx * dx + dy * dy
        question, at = np.nonzero((squared <= radius_m * radius_m) & (c.level[rows] == level[:, None]))
        return question, rows[at], np.sqrt(squared[question, at])


def _room(n: int) -> _Columns:
    return _Columns(**{name: np.zeros((n, width) if width else n, dtype) for name, (dtype, width) in _LAYOUT.items()})


def _grown(columns: _Columns) -> _Columns:
    def twice(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([column, np.zeros_like(column)])

    return _Columns(**{name: twice(getattr(columns, name)) for name in _LAYOUT})
