"""A scene: a tree of nodes with properties that several clients edit at once, apart and offline, and that comes out the same everywhere.

Owns what an operation does. Knows no wire, journal or clock: bytes come from `ar.scene_ops`, wall time is an argument. An operation-based CRDT:
- the tree by moves in one total order (`ar.scene_tree`): deleting is moving to the trash;
- a property keeps every value that no later writer had seen: the greatest stamp wins, the others are visible conflicts until somebody writes again;
- children are ordered by fractional keys; deltas by version vector; an operation waits until what its author had seen is there.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import msgspec

from ar.clocks import LOGICAL_BITS, HybridClock
from ar.ordering import between
from ar.scene_ops import (
    COLLECT,
    CREATE,
    MAX_NAME_BYTES,
    MAX_VALUE_BYTES,
    MOVE,
    ROOT,
    SET,
    TRASH,
    Context,
    Dot,
    Op,
    Run,
    Value,
    decode,
    decode_runs,
    encode,
)
from ar.scene_pages import SnapshotPages
from ar.scene_tree import SceneTree
from esplanade.core.errors import Conflict, Forbidden, InvalidInput, LimitExceeded, NotFound

MAX_NODES: Final = 1_000_000
MAX_WAITING: Final = 100_000
"""Operations held back for their causes; above it a batch is refused and the client asks for a snapshot."""
MANY_VALUES: Final = 32
"""Values of one property, unread, from which on they are sorted out whenever they have doubled."""
MAX_UNDO: Final = 1_000
AUTHORITY: Final = "server"
"""The client whose COLLECT operations count, unless told otherwise."""
_NOTHING: Final[Context] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Lost:
    """A visible conflict at a node: what `client` wrote and who did not win. `what` is a property's name, "move", or "deleted" (edited while deleted)."""

    node: Dot
    what: str
    client: str
    stamp: int
    value: Value


@dataclass(frozen=True, slots=True)
class Merged:
    """What a batch did: operations applied, known already, and waiting for their causes."""

    applied: int
    known: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Judged:
    """What a batch would do: operations that can be applied now, in order; how many are known already; all that would wait then, older ones too."""

    ready: list[Op]
    known: int
    waiting: dict[Dot, Op]


@dataclass(frozen=True, slots=True)
class Ack:
    """What a client has: its version vector, and its clock (every later operation of its is stamped above it)."""

    seen: Mapping[str, int]
    clock: int


class _Snapshot(msgspec.Struct):
    seen: dict[str, int]
    clock: int
    stable: int
    gone: list[tuple[str, int, int]]
    stamps: dict[str, int]
    ops: bytes
    digest: bytes


class Scene:
    """One client's replica. Every change takes `now_ms`, wall time in milliseconds since 1970."""

    def __init__(self, client: str, *, authority: str = AUTHORITY) -> None:
        if not client or len(client.encode()) > MAX_NAME_BYTES:
            raise InvalidInput(f"client {client[:80]!r}: must be 1 to {MAX_NAME_BYTES} bytes")
        self.client = client
        self._authority = authority
        self._clock = HybridClock()
        self._seen: dict[str, int] = {}
        self._stamps: dict[str, int] = {}
        self._history: dict[str, list[Op]] = {}
        self._arrived: list[Op] = []
        self._tree = SceneTree()
        self._pages = SnapshotPages()
        self._values: dict[Dot, dict[str, list[Op]]] = {}
        self._waiting: dict[Dot, Op] = {}
        self._gone: dict[Dot, int] = {}
        self._stable = 0
        self._heard: dict[str, Mapping[str, int]] = {}
        self._looked_ms = 0
        self._context: Context = _NOTHING
        self._undo: list[tuple[Op, Op | Value]] = []
        self._redo: list[tuple[Op, Op | Value]] = []
        self._salt = int.from_bytes(hashlib.sha256(client.encode()).digest()[:1], "big")

    # Reading -------------------------------------------------------------------------------------------------------------------------

    def children(self, node: Dot = ROOT) -> list[Dot]:
        """Children in order. Raises NotFound for a node that is not shown."""
        self._require(node)
        return list(self._tree.children().get(node, ()))

    def parent(self, node: Dot) -> Dot:
        """Raises NotFound for the root or a node that is not shown."""
        parent = self._tree.parents().get(node)
        if parent is None:
            raise NotFound(f"node {node}: not in the scene (deleted, or never seen)")
        return parent

    def nodes(self) -> Iterator[Dot]:
        """Every node shown, parents first."""
        stack = list(reversed(self._tree.children().get(ROOT, ())))
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(self._tree.children().get(node, ())))

    def __contains__(self, node: Dot) -> bool:
        return node == ROOT or node in self._tree.parents()

    def within(self, node: Dot, ancestor: Dot) -> bool:
        """Whether a node is `ancestor` or below it: for permissions by subtree."""
        here = node
        while here != ancestor:
            if here == ROOT:
                return False
            here = self.parent(here)
        return True

    def get(self, node: Dot, key: str) -> Value:
        """A property's winning value, or None."""
        keys = self._values.get(node)
        ops = keys.get(key) if keys is not None else None
        if ops is None:
            return None
        return ops[0].value if len(ops) == 1 else max(_heads(ops), key=Op.rank).value

    def properties(self, node: Dot) -> dict[str, Value]:
        """Winning values that are not None, by name."""
        found = {key: self.get(node, key) for key in sorted(self._values.get(node, {}))}
        return {key: value for key, value in found.items() if value is not None}

    def above(self, node: Dot) -> Iterator[Dot]:
        """The node, what it stands in, and so on up to the root; of what was deleted: where it was before. The root alone for a node that is not known."""
        here, seen = node, {node}
        while here != ROOT:
            place = self._tree.places.get(here)
            if place is None:
                break
            yield here
            here = place.parent
            if here == TRASH:
                here = Dot(*msgspec.msgpack.decode(place.order, type=tuple[str, int])) if place.order else ROOT
            if here in seen:  # a deleted node whose former parent went below it
                break
            seen.add(here)
        yield ROOT

    def conflicts(self, node: Dot | None = None) -> list[Lost]:
        """What lost against concurrent writers and has not been settled since; of one node, or of all."""
        lost: list[Lost] = []
        for at, keys in self._values.items() if node is None else [(node, self._values.get(node, {}))]:
            place = self._tree.places.get(at)
            if place is None and at != ROOT:
                continue
            for key, ops in keys.items():
                ranked = sorted(_heads(ops), key=Op.rank)
                lost += [Lost(at, key, op.dot.client, op.stamp, op.value) for op in ranked[:-1] if op.value != ranked[-1].value]
                if place is not None and place.parent == TRASH and not place.saw(ranked[-1].dot):
                    lost.append(Lost(at, "deleted", ranked[-1].dot.client, ranked[-1].stamp, {key: ranked[-1].value}))
        for op in self._tree.log:
            winner = self._tree.places.get(op.node)
            if (
                (node is None or op.node == node)
                and winner is not None
                and op.stamp > self._stable
                and op.dot != winner.dot
                and not winner.saw(op.dot)
                and op.parent != winner.parent
            ):
                lost.append(Lost(op.node, "move", op.dot.client, op.stamp, tuple(op.parent)))
        return sorted(lost, key=lambda one: (one.node, one.what, one.stamp, one.client))

    def digest(self) -> str:
        """SHA-256 of everything shown, conflicts included: equal for replicas that have the same operations."""
        parts: list[object] = []
        for at in (ROOT, *self.nodes()):
            ops = self._values.get(at, {})
            kept = [(key, sorted((op.stamp, op.dot.client, op.value) for op in _heads(ops[key]))) for key in sorted(ops)]
            parts.append((at, self._tree.children().get(at, []), kept))
        return hashlib.sha256(msgspec.msgpack.encode(parts)).hexdigest()

    # Editing -------------------------------------------------------------------------------------------------------------------------

    def create(self, parent: Dot = ROOT, *, now_ms: int, after: Dot | None = None, last: bool = True) -> Dot:
        """A new node under `parent`: behind `after`, else last, else first. Raises NotFound, LimitExceeded."""
        self._require(parent)
        if len(self._tree) >= MAX_NODES:
            raise LimitExceeded(f"scene of {len(self._tree)} nodes: at most {MAX_NODES}")
        dot = Dot(self.client, self._seen.get(self.client, 0) + 1)
        op = self._author(CREATE, now_ms, node=dot, parent=parent, order=self._order(parent, after, last, dot))
        self._remember(op, None)
        return dot

    def move(self, node: Dot, parent: Dot, *, now_ms: int, after: Dot | None = None, last: bool = True) -> None:
        """Put a node under `parent`. Raises NotFound, or InvalidInput for a move below itself."""
        self._require(node)
        self._require(parent)
        if node == ROOT or self.within(parent, node):
            raise InvalidInput(f"move of {node} under {parent}: a node cannot go below itself, and the root stays")
        before = self._tree.places[node]
        self._remember(self._author(MOVE, now_ms, node=node, parent=parent, order=self._order(parent, after, last, node)), before)

    def delete(self, node: Dot, *, now_ms: int) -> None:
        """Take a node and what is below it out of the scene. Raises NotFound."""
        self._require(node)
        if node == ROOT:
            raise InvalidInput("the root of a scene cannot be deleted; delete its children")
        before = self._tree.places[node]
        home = msgspec.msgpack.encode(self.parent(node))
        self._remember(self._author(MOVE, now_ms, node=node, parent=TRASH, order=home), before)

    def set(self, node: Dot, key: str, value: Value, *, now_ms: int) -> None:
        """Write a property (None deletes it); settles its conflicts. Raises NotFound, InvalidInput for what MessagePack cannot hold or is too large."""
        self._require(node)
        if not key or len(key.encode()) > MAX_NAME_BYTES:
            raise InvalidInput(f"property {key[:80]!r}: must be 1 to {MAX_NAME_BYTES} bytes")
        try:
            size = len(msgspec.msgpack.encode(value))
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"property {key!r}: its value cannot be written as MessagePack: {error}") from error
        if size > MAX_VALUE_BYTES:
            raise InvalidInput(f"property {key!r} of {size} bytes: at most {MAX_VALUE_BYTES}; store it as an asset and refer to it")
        before = self.get(node, key)
        self._remember(self._author(SET, now_ms, node=node, key=key, value=value), before)

    def undo(self, *, now_ms: int) -> Dot | None:
        """Take back our last change; returns its node, or None where there is none. Raises Conflict where somebody has changed the same since."""
        return self._back(self._undo, self._redo, now_ms)

    def redo(self, *, now_ms: int) -> Dot | None:
        """Do again what `undo` took back, by the same rules."""
        return self._back(self._redo, self._undo, now_ms)

    def _back(self, take: list[tuple[Op, Op | Value]], give: list[tuple[Op, Op | Value]], now_ms: int) -> Dot | None:
        if not take:
            return None
        op, before = take.pop()
        if op.node != ROOT and op.node not in self._tree.places:
            raise Conflict(f"node {op.node}: was deleted for good since; its change cannot be taken back")
        if op.kind == SET:
            holders = _heads(self._values.get(op.node, {}).get(op.key, []))
            if [o.dot for o in holders] != [op.dot]:
                raise Conflict(f"property {op.key!r} of {op.node}: somebody has written it since; write it anew instead")
            again = self._author(SET, now_ms, node=op.node, key=op.key, value=before)
            give.append((again, op.value))
            return op.node
        here = self._tree.places[op.node]
        if here.dot != op.dot:
            raise Conflict(f"node {op.node}: somebody has moved it since; move it anew instead")
        if isinstance(before, Op):
            if before.parent != TRASH and before.parent not in self:
                raise Conflict(f"node {op.node}: its former parent {before.parent} is gone; move it elsewhere")
            parent, order = before.parent, before.order
        else:
            parent, order = TRASH, msgspec.msgpack.encode(here.parent)
        again = self._author(MOVE, now_ms, node=op.node, parent=parent, order=order)
        give.append((again, here))
        return op.node

    def _remember(self, op: Op, before: Op | Value) -> None:
        self._undo.append((op, before))
        del self._undo[:-MAX_UNDO]
        self._redo.clear()

    def _order(self, parent: Dot, after: Dot | None, last: bool, moving: Dot) -> bytes:
        whole = self._tree.children().get(parent, [])
        if after is None and last:  # behind all others, which may be thousands: no need to look at them
            row = whole[-2:] if whole[-1:] == [moving] else whole[-1:]
            row = [n for n in row if n != moving]
        else:
            row = [n for n in whole if n != moving]
        if after is not None and after not in row:
            raise NotFound(f"sibling {after}: not a child of {parent}")
        at = row.index(after) + 1 if after is not None else len(row) if last else 0
        low = self._tree.places[row[at - 1]].order if at else b""
        high = next((key for n in row[at:] if (key := self._tree.places[n].order) > low), None)
        return between(low, high, (self._salt + self._seen.get(self.client, 0)) & 255)

    def _author(
        self,
        kind: int,
        now_ms: int,
        *,
        node: Dot = ROOT,
        parent: Dot = ROOT,
        order: bytes = b"",
        key: str = "",
        value: Value = None,
        nodes: tuple[Dot, ...] = (),
    ) -> Op:
        dot = Dot(self.client, self._seen.get(self.client, 0) + 1)
        op = Op(dot, self._clock.tick(now_ms), self._context, kind, node, parent, order, key, value, nodes)
        self._apply([op])
        return op

    # Merging -------------------------------------------------------------------------------------------------------------------------

    def ack(self) -> Ack:
        """What this replica has: asked for by `delta` and `collect`."""
        return Ack(dict(self._seen), self._clock.last)

    def delta(self, seen: Mapping[str, int]) -> bytes:
        """What a replica at `seen` lacks, causes first. Raises Conflict where it lags behind what was forgotten: it needs a snapshot."""
        return encode(self._missing(seen))

    def page(self, seen: Mapping[str, int], most_bytes: int) -> tuple[bytes, bool]:
        """As `delta`, but about `most_bytes` of it at most, the oldest first; and whether that is all. One operation is given in any case."""
        missing = self._missing(seen)
        size = 0
        for at, op in enumerate(missing):
            size += op.weight()
            if size > most_bytes and at:
                return encode(missing[:at]), False
        return encode(missing), True

    def _missing(self, seen: Mapping[str, int]) -> list[Op]:
        start = len(self._arrived)
        missing = sum(n - seen.get(client, 0) for client, n in self._seen.items() if n > seen.get(client, 0))
        found: list[Op] = []
        while missing > len(found) and start:
            start -= 1
            op = self._arrived[start]
            if op.dot.seq > seen.get(op.dot.client, 0):
                found.append(op)
        if len(found) < missing:
            raise Conflict(f"a replica that lacks {missing} operations, of which {missing - len(found)} were forgotten: load a snapshot")
        found.reverse()
        return found

    def merge(self, data: bytes, *, now_ms: int, author: str | None = None) -> Merged:
        """Take a batch in. In any order and any number of times, the outcome is the same. Nothing is taken of a batch that breaks a rule.

        Raises InvalidInput (garbled, from the future, a stamp that goes back), Forbidden where an operation is not of `author` (given by a server
        that knows who sent the batch) or COLLECT of any other than the authority, LimitExceeded where too many wait for their causes, Conflict where one was made
        before what has been forgotten.
        """
        judged = self.judge(data, now_ms=now_ms, author=author)
        self._waiting = judged.waiting
        if judged.ready:
            self._apply(judged.ready)
        return Merged(len(judged.ready), judged.known, len(judged.waiting))

    def judge(self, data: bytes, *, now_ms: int, author: str | None = None) -> Judged:
        """What `merge` would do with a batch, without doing it. Raises as `merge`."""
        known = 0
        ready: list[Op] = []
        seen, stamps = dict(self._seen), dict(self._stamps)
        queue: dict[Dot, Op] = {}
        followed: Context = _NOTHING  # a context that is seen wholly; most operations of a batch share theirs
        ops, runs = decode_runs(data)
        for start, stop in [Run(0, len(ops))] if runs is None else runs:
            if runs is not None:  # sound each by itself: what is left to ask is asked of the whole run
                first, last = ops[start], ops[stop - 1]
                (client, seq), before = first.dot, seen.get(first.dot.client, 0)
                if author in (None, client) and self._clock.fits(last.stamp, now_ms):
                    if last.dot.seq <= before:
                        known += stop - start
                        continue
                    covered = first.context is followed or _covers(seen, first.context)
                    if covered and seq == before + 1 and first.stamp > max(self._stable, stamps.get(client, 0)):
                        followed = first.context
                        seen[client], stamps[client] = last.dot.seq, last.stamp
                        ready += ops[start:stop]
                        continue
            for op in ops[start:stop]:
                client, seq = op.dot
                if author is not None and client != author:
                    raise Forbidden(f"operation {op.dot} sent by {author!r}: a client sends its own operations only")
                self._check(op, now_ms)
                before = seen.get(client, 0)
                if seq <= before:
                    known += 1
                elif seq == before + 1 and (op.context is followed or _covers(seen, op.context)):
                    followed = op.context
                    if op.stamp <= stamps.get(client, 0):
                        raise _goes_back(op)
                    self._check_age(op)
                    stamps[client] = op.stamp
                    seen[client] = seq
                    ready.append(op)
                else:
                    queue[op.dot] = op
        waiting = self._waiting | queue
        progress = bool(waiting)
        while progress:
            progress = False
            for dot, op in list(waiting.items()):
                if dot.seq <= seen.get(dot.client, 0):
                    del waiting[dot]
                elif dot.seq == seen.get(dot.client, 0) + 1 and _covers(seen, op.context):
                    if op.stamp <= stamps.get(dot.client, 0):
                        raise _goes_back(op)
                    self._check_age(op)
                    stamps[dot.client] = op.stamp
                    seen[dot.client] = dot.seq
                    ready.append(op)
                    del waiting[dot]
                    progress = True
        if len(waiting) > MAX_WAITING:
            raise LimitExceeded(f"{len(waiting)} operations wait for their causes: at most {MAX_WAITING}; load a snapshot")
        if len(self._tree) + len(ready) > 2 * MAX_NODES:
            raise LimitExceeded(f"scene of {len(self._tree)} nodes and {len(ready)} operations more: at most {MAX_NODES} nodes")
        return Judged(ready, known, waiting)

    def _check(self, op: Op, now_ms: int) -> None:
        self._clock.check(op.stamp, now_ms)
        if op.kind == COLLECT and op.dot.client != self._authority:
            raise Forbidden(f"operation {op.dot}: only {self._authority!r} may have the deleted forgotten")
        if op.kind == COLLECT and self._passes_over(op):
            raise Conflict(
                f"operation {op.dot}: forgets what stood before operations of ours that its author lacks; load a snapshot and make ours again (`rebase`)"
            )
        if op.kind <= MOVE and (op.node in (ROOT, TRASH) or op.parent == op.node):
            raise InvalidInput(f"operation {op.dot}: moves {op.node} under {op.parent}; the root and the trash stay, and nothing goes below itself")
        if op.kind == SET and not op.key:
            raise InvalidInput(f"operation {op.dot}: sets a property without a name")

    def _passes_over(self, op: Op) -> bool:
        """Whether a COLLECT counts as stable what is older than an operation of ours that its author has not seen."""
        had = op.context.get(self.client, 0)
        if self.client == op.dot.client or had >= self._seen.get(self.client, 0):
            return False
        return any(own.dot.client == self.client and own.dot.seq > had and own.stamp <= op.value for own in self._arrived)

    def _check_age(self, op: Op) -> None:
        """What was forgotten was forgotten because nothing could come before it any more."""
        if op.stamp <= self._stable:
            raise Conflict(f"operation {op.dot}: made before what has been forgotten since; load a snapshot and make it again (`rebase`)")

    def _apply(self, ops: list[Op]) -> None:
        latest = {op.dot[0]: op for op in ops}
        for client, op in latest.items():
            self._seen[client], self._stamps[client] = op.dot.seq, op.stamp
        begin = 0
        for at in [at for at, op in enumerate(ops) if op.kind == COLLECT]:
            self._take(ops[begin : at + 1])
            self._forget(ops[at])
            begin = at + 1
        self._take(ops[begin:] if begin else ops)
        self._clock.see(max((op.stamp for op in latest.values()), default=0))
        if any(client != self.client for client in latest):
            self._context = MappingProxyType({c: n for c, n in self._seen.items() if c != self.client})

    def _take(self, ops: list[Op]) -> None:
        """Note operations, put what they write with the rest (`_heads` sorts it out when it is read), and what they move into the tree."""
        self._arrived += ops
        values, gone = self._values, self._gone
        moves: list[Op] = []
        last: Dot | None = None
        keys: dict[str, list[Op]] = {}
        for op in ops:
            kind = op.kind
            if kind == SET:
                node = op.node
                if node is not last:
                    if node in gone:
                        continue
                    last = node
                    held = values.get(node)
                    if held is None:
                        held = values[node] = {}
                    keys = held
                others = keys.get(op.key)
                if others is None:
                    keys[op.key] = [op]
                else:
                    others.append(op)
                    size = len(others)
                    if size >= MANY_VALUES and not size & (size - 1):
                        _heads(others)
            elif kind != COLLECT:
                moves.append(op)
        self._tree.place(moves)

    def _require(self, node: Dot) -> None:
        if node not in self:
            raise NotFound(f"node {node}: not in the scene (deleted, or never seen)")

    # Forgetting ----------------------------------------------------------------------------------------------------------------------

    def collect(self, acks: Mapping[str, Ack], *, now_ms: int) -> int:
        """Forget deleted nodes that every client of `acks` has seen deleted; returns how many. Authority only.

        First, what was rescued is moved for good to where it shows. A client left out of `acks` must load a snapshot before it writes again.
        """
        self._apply(self._settle(now_ms))
        ops = self._forgetting(acks, now_ms)
        self._apply(ops)
        return sum(len(op.nodes) for op in ops)

    def hear(self, client: str, seen: Mapping[str, int]) -> None:
        """Note what a client that has written says it has. In memory alone: neither a snapshot nor a digest holds it, and to lose it only delays `tidying`."""
        if client in self._seen:
            self._heard[client] = seen

    def tidying(self, *, now_ms: int, known_ms: int, every_ms: int = 0, an_op_ms: int = 0) -> list[Op]:
        """Operations of the authority, not applied, that forget what is deleted; empty where there is nothing to forget or somebody may not have seen it yet.

        Who must have seen it: every client whose newest operation is not older than `known_ms`. What it has seen is what that operation had, and what it said since
        (`hear`). Where something was rescued from what is deleted, first the moves that settle it: ask again once they are applied. Nothing is looked for within
        `every_ms`, and `an_op_ms` for every operation held, of the last look.
        """
        if now_ms < self._looked_ms + max(every_ms, an_op_ms * len(self._arrived)):
            return []
        self._looked_ms = now_ms
        if self.client != self._authority or not any(place.parent == TRASH for place in self._tree.places.values()):
            return []
        return self._settle(now_ms) or self._forgetting(self._known(now_ms - known_ms), now_ms, only_dead=True)

    def _known(self, since_ms: int) -> dict[str, Ack]:
        """What the clients that have written since then have seen for certain."""
        counts: dict[str, list[int]] = {}
        stamps: dict[str, list[int]] = {}
        newest: dict[str, Op] = {}
        for op in self._arrived:
            client, seq = op.dot
            counts.setdefault(client, []).append(seq)
            stamps.setdefault(client, []).append(op.stamp)
            newest[client] = op
        acks = {}
        for client, stamp in self._stamps.items():
            if client == self.client or stamp >> LOGICAL_BITS < since_ms:
                continue
            seen = {client: self._seen[client]}
            last = newest.get(client)
            for said in (last.context if last is not None else _NOTHING, self._heard.get(client, _NOTHING)):
                for other, n in said.items():
                    seen[other] = max(seen.get(other, 0), n)
            clock = stamp  # what it has seen has set its clock
            for other, n in seen.items():
                at = bisect_right(counts.get(other, ()), n)
                clock = max(clock, stamps[other][at - 1] if at else 0)
            acks[client] = Ack(seen, clock)
        return acks

    def _settle(self, now_ms: int) -> list[Op]:
        """Moves, not applied, of what was rescued from deleted subtrees to where it shows."""
        if self.client != self._authority:
            raise Forbidden(f"client {self.client!r}: only {self._authority!r} may have the deleted forgotten")
        clock, seq = HybridClock(self._clock.last), self._seen.get(self.client, 0)
        shown = self._tree.parents()
        rescued = [n for n in self.nodes() if self._tree.places[n].parent != shown[n]]
        return [
            Op(Dot(self.client, seq + i), clock.tick(now_ms), self._context, MOVE, node, shown[node], self._tree.places[node].order)
            for i, node in enumerate(rescued, 1)
        ]

    def _forgetting(self, acks: Mapping[str, Ack], now_ms: int, *, only_dead: bool = False) -> list[Op]:
        """The operation, not applied, that forgets what all of `acks` have seen deleted; none where the stable stamp has not moved, or (`only_dead`) nothing is forgotten."""
        stable = self._clock.last
        for client, ack in acks.items():
            known = ack.seen.get(client, 0) <= self._seen.get(client, 0)
            stable = min(stable, ack.clock if known else self._stamps.get(client, 0))
        common = {client: min((ack.seen.get(client, 0) for ack in acks.values()), default=n) for client, n in self._seen.items()}
        for op in self._arrived:
            if op.stamp <= stable and op.dot.seq > common[op.dot.client]:
                stable = op.stamp - 1
        dead = self._tree.dead(stable)
        if stable <= self._stable or (only_dead and not dead):
            return []
        dot = Dot(self.client, self._seen.get(self.client, 0) + 1)
        return [Op(dot, HybridClock(self._clock.last).tick(now_ms), self._context, COLLECT, value=stable, nodes=tuple(sorted(dead)))]

    def _forget(self, op: Op) -> None:
        stable = int(op.value)
        kept = self._tree.forget(stable, op.nodes)
        self._gone = {node: stamp for node, stamp in self._gone.items() if stamp > stable}
        for node in op.nodes:
            self._gone[node] = op.stamp
            self._values.pop(node, None)
        self._stable = max(self._stable, stable)
        keep = {place.dot for place in kept}
        keep |= {o.dot for keys in self._values.values() for ops in keys.values() for o in _heads(ops)}
        self._arrived = [o for o in self._arrived if o.stamp > stable or o.dot in keep]

    # Snapshots -----------------------------------------------------------------------------------------------------------------------

    def rebase(self, snapshot: bytes, *, now_ms: int) -> list[Lost]:
        """Take a snapshot's state in place of ours, and make our operations that it lacks again, in their order and under the same names; there is nothing to undo then.

        Returns those that found what they were about forgotten: a new node is put under the root then, a move or a value has no effect. Raises InvalidInput as `load`,
        Conflict where ours before them are missing here.
        """
        fresh = Scene.load(self.client, snapshot, now_ms=now_ms, authority=self._authority)
        have = fresh._seen.get(self.client, 0)
        ours = [op for op in self._arrived if op.dot.client == self.client and op.dot.seq > have]
        if [op.dot.seq for op in ours] != list(range(have + 1, max(have, self._seen.get(self.client, 0)) + 1)):
            raise Conflict(
                f"client {self.client!r}: has {len(ours)} operations that the snapshot lacks, and not all of them; start with a new replica"
            )
        fresh._clock.see(self._clock.last)
        lost: list[Lost] = []
        for op in ours:
            known = op.kind == CREATE or op.node == ROOT or op.node in fresh._tree.places
            astray = op.kind != SET and op.parent not in (ROOT, TRASH) and op.parent not in fresh._tree.places
            if astray or (not known and op.parent != TRASH):
                what = op.key if op.kind == SET else "move"
                lost.append(Lost(op.node, what, self.client, op.stamp, op.value if op.kind == SET else tuple(op.parent)))
            parent = ROOT if astray and op.kind == CREATE else op.parent
            fresh._author(op.kind, now_ms, node=op.node, parent=parent, order=op.order, key=op.key, value=op.value)
        self.__dict__.update(fresh.__dict__)
        return lost

    def snapshot(self) -> bytes:
        """Everything that this replica holds, with a hash; `load` reads it."""
        gone = [(node.client, node.seq, stamp) for node, stamp in sorted(self._gone.items())]
        ops = encode(self._arrived)
        body = _Snapshot(self._seen, self._clock.last, self._stable, gone, self._stamps, ops, hashlib.sha256(ops).digest())
        return msgspec.msgpack.encode(body)

    def snapshot_page(self, reader: str, at: int, most_bytes: int) -> tuple[bytes, bool]:
        """Bytes of the snapshot from `at` on, and whether it ends with them. A reader goes on in the snapshot that it began with (`ar.scene_pages`)."""
        return self._pages.page(reader, at, most_bytes, sum(self._seen.values()), self.snapshot)

    @classmethod
    def load(cls, client: str, data: bytes, *, now_ms: int | None = None, authority: str = AUTHORITY) -> Scene:
        """A replica of `client` from a snapshot. Raises InvalidInput where it is garbled, its hash differs or its clock is ahead of `now_ms` (None: it is our own)."""
        try:
            body = msgspec.msgpack.decode(data, type=_Snapshot)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise InvalidInput(f"scene snapshot of {len(data)} bytes: garbled: {error}") from error
        if hashlib.sha256(body.ops).digest() != body.digest:
            raise InvalidInput("scene snapshot: the operations differ from their hash; fetch it again")
        scene = cls(client, authority=authority)
        if now_ms is not None:
            scene._clock.check(max(body.clock, 1), now_ms)
        scene._gone = {Dot(c, s): stamp for c, s, stamp in body.gone}
        ops = decode(body.ops)
        # What is stable stands where it stands: each node's place was kept, and not how it came there.
        scene._tree = SceneTree(op for op in ops if op.kind <= MOVE and op.stamp <= body.stable)
        scene._apply([op for op in ops if op.kind == SET or (op.kind <= MOVE and op.stamp > body.stable)])
        scene._arrived = ops
        scene._seen, scene._stamps, scene._stable = dict(body.seen), dict(body.stamps), body.stable
        scene._clock.see(body.clock)
        scene._context = MappingProxyType({c: n for c, n in scene._seen.items() if c != client})
        return scene


def _heads(ops: list[Op]) -> list[Op]:
    """Those of a property's values that the author of no other had seen; the list itself is cut to them."""
    if len(ops) > 1:
        last = {op.dot[0]: op for op in ops}  # an author has seen what it wrote before
        contexts: list[Context] = []
        previous: Context | None = None
        for op in ops:
            if op.context is not previous:
                if previous is None or op.context != previous:
                    contexts.append(op.context)
                previous = op.context
        kept = [op for client, op in last.items() if all(context.get(client, 0) < op.dot[1] for context in contexts)]
        if len(kept) < len(ops):
            ops[:] = kept
    return ops


def _covers(seen: Mapping[str, int], context: Context) -> bool:
    return all(seen.get(client, 0) >= n for client, n in context.items())


def _goes_back(op: Op) -> InvalidInput:
    return InvalidInput(f"operation {op.dot}: its stamp goes back; a client's stamps must grow")
