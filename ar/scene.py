"""A scene: a tree of nodes with properties that several clients edit at once, apart and offline, and that comes out the same everywhere.

Owns what an operation does. Knows no wire, journal or clock: bytes come from `ar.scene_ops`, wall time is an argument. An operation-based CRDT:
- the tree by the move algorithm of Kleppmann et al., A highly-available move operation for replicated trees (2021): moves in one total order, undone and
  done again where an earlier one comes late; a move that would close a cycle has no effect; deleting is moving to the trash;
- what a concurrent move put into a deleted subtree is not lost with it: it shows where the deleted node was;
- a property keeps every value that no later writer had seen: the greatest stamp wins, the others are visible conflicts until somebody writes again;
- children are ordered by fractional keys; deltas by version vector; an operation waits until what its author had seen is there.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from ar.clocks import HybridClock
from ar.ordering import between
from ar.scene_ops import COLLECT, CREATE, MAX_NAME_BYTES, MAX_VALUE_BYTES, MOVE, ROOT, SET, TRASH, Context, Dot, Op, Value, decode, encode
from esplanade.core.errors import Conflict, Forbidden, InvalidInput, LimitExceeded, NotFound

MAX_NODES: Final = 1_000_000
MAX_WAITING: Final = 100_000
"""Operations held back for their causes; above it a batch is refused and the client asks for a snapshot."""
MAX_UNDO: Final = 1_000
AUTHORITY: Final = "server"
"""The client whose COLLECT operations count, unless told otherwise."""
_NOTHING: Final[Context] = MappingProxyType({})


class Place(NamedTuple):
    """Where a node is: its parent, its order key, and the operation that put it there."""

    parent: Dot
    order: bytes
    op: Op


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
        self._tree: dict[Dot, Place] = {}
        self._log: list[Op] = []
        self._ranks: list[tuple[int, str]] = []
        self._before: list[Place | bool | None] = []
        self._values: dict[Dot, dict[str, list[Op]]] = {}
        self._waiting: dict[Dot, Op] = {}
        self._gone: dict[Dot, int] = {}
        self._stable = 0
        self._context: Context = _NOTHING
        self._undo: list[tuple[Op, Place | Value]] = []
        self._redo: list[tuple[Op, Place | Value]] = []
        self._shown: dict[Dot, list[Dot]] | None = None
        self._shown_parent: dict[Dot, Dot] = {}
        self._salt = int.from_bytes(hashlib.sha256(client.encode()).digest()[:1], "big")

    # Reading -------------------------------------------------------------------------------------------------------------------------

    def children(self, node: Dot = ROOT) -> list[Dot]:
        """Children in order. Raises NotFound for a node that is not shown."""
        self._require(node)
        return list(self._show().get(node, ()))

    def parent(self, node: Dot) -> Dot:
        """Raises NotFound for the root or a node that is not shown."""
        self._show()
        if node not in self._shown_parent:
            raise NotFound(f"node {node}: not in the scene (deleted, or never seen)")
        return self._shown_parent[node]

    def nodes(self) -> Iterator[Dot]:
        """Every node shown, parents first."""
        stack = list(reversed(self._show().get(ROOT, ())))
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(self._show().get(node, ())))

    def __contains__(self, node: Dot) -> bool:
        self._show()
        return node == ROOT or node in self._shown_parent

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
        ops = self._values.get(node, {}).get(key)
        return max(ops, key=Op.rank).value if ops else None

    def properties(self, node: Dot) -> dict[str, Value]:
        """Winning values that are not None, by name."""
        found = {key: self.get(node, key) for key in sorted(self._values.get(node, {}))}
        return {key: value for key, value in found.items() if value is not None}

    def above(self, node: Dot) -> Iterator[Dot]:
        """The node, what it stands in, and so on up to the root; of what was deleted: where it was before. The root alone for a node that is not known."""
        here, seen = node, {node}
        while here != ROOT:
            place = self._tree.get(here)
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
            for key, ops in keys.items():
                ranked = sorted(ops, key=Op.rank)
                lost += [Lost(at, key, op.dot.client, op.stamp, op.value) for op in ranked[:-1] if op.value != ranked[-1].value]
                place = self._tree.get(at)
                if place is not None and place.parent == TRASH and not place.op.saw(ranked[-1].dot):
                    lost.append(Lost(at, "deleted", ranked[-1].dot.client, ranked[-1].stamp, {key: ranked[-1].value}))
        for op in self._log:
            winner = self._tree.get(op.node)
            if (
                (node is None or op.node == node)
                and winner is not None
                and op.dot != winner.op.dot
                and not winner.op.saw(op.dot)
                and op.parent != winner.parent
            ):
                lost.append(Lost(op.node, "move", op.dot.client, op.stamp, tuple(op.parent)))
        return sorted(lost, key=lambda one: (one.node, one.what, one.stamp, one.client))

    def digest(self) -> str:
        """SHA-256 of everything shown, conflicts included: equal for replicas that have the same operations."""
        parts: list[object] = []
        for at in (ROOT, *self.nodes()):
            ops = self._values.get(at, {})
            kept = [(key, sorted((op.stamp, op.dot.client, op.value) for op in ops[key])) for key in sorted(ops)]
            parts.append((at, self._show().get(at, []), kept))
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
        before = self._tree[node]
        self._remember(self._author(MOVE, now_ms, node=node, parent=parent, order=self._order(parent, after, last, node)), before)

    def delete(self, node: Dot, *, now_ms: int) -> None:
        """Take a node and what is below it out of the scene. Raises NotFound."""
        self._require(node)
        if node == ROOT:
            raise InvalidInput("the root of a scene cannot be deleted; delete its children")
        before = self._tree[node]
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

    def _back(self, take: list[tuple[Op, Place | Value]], give: list[tuple[Op, Place | Value]], now_ms: int) -> Dot | None:
        if not take:
            return None
        op, before = take.pop()
        if op.node in self._gone:
            raise Conflict(f"node {op.node}: was deleted for good since; its change cannot be taken back")
        if op.kind == SET:
            holders = self._values.get(op.node, {}).get(op.key, [])
            if [o.dot for o in holders] != [op.dot]:
                raise Conflict(f"property {op.key!r} of {op.node}: somebody has written it since; write it anew instead")
            again = self._author(SET, now_ms, node=op.node, key=op.key, value=before)
            give.append((again, op.value))
            return op.node
        here = self._tree[op.node]
        if here.op.dot != op.dot:
            raise Conflict(f"node {op.node}: somebody has moved it since; move it anew instead")
        if isinstance(before, Place):
            if before.parent != TRASH and before.parent not in self:
                raise Conflict(f"node {op.node}: its former parent {before.parent} is gone; move it elsewhere")
            parent, order = before.parent, before.order
        else:
            parent, order = TRASH, msgspec.msgpack.encode(here.parent)
        again = self._author(MOVE, now_ms, node=op.node, parent=parent, order=order)
        give.append((again, here))
        return op.node

    def _remember(self, op: Op, before: Place | Value) -> None:
        self._undo.append((op, before))
        del self._undo[:-MAX_UNDO]
        self._redo.clear()

    def _order(self, parent: Dot, after: Dot | None, last: bool, moving: Dot) -> bytes:
        whole = self._show().get(parent, [])
        if after is None and last:  # behind all others, which may be thousands: no need to look at them
            row = whole[-2:] if whole[-1:] == [moving] else whole[-1:]
            row = [n for n in row if n != moving]
        else:
            row = [n for n in whole if n != moving]
        if after is not None and after not in row:
            raise NotFound(f"sibling {after}: not a child of {parent}")
        at = row.index(after) + 1 if after is not None else len(row) if last else 0
        low = self._tree[row[at - 1]].order if at else b""
        high = next((key for n in row[at:] if (key := self._tree[n].order) > low), None)
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
        that knows who sent the batch) or COLLECT of any other than the authority, LimitExceeded where too many wait for their causes.
        """
        judged = self.judge(data, now_ms=now_ms, author=author)
        self._waiting = judged.waiting
        if judged.ready:
            self._apply(judged.ready)
        return Merged(len(judged.ready), judged.known, len(judged.waiting))

    def judge(self, data: bytes, *, now_ms: int, author: str | None = None) -> Judged:
        """What `merge` would do with a batch, without doing it. Raises as `merge`."""
        known, ready = 0, []
        seen, stamps = dict(self._seen), dict(self._stamps)
        queue: dict[Dot, Op] = {}
        followed: Context = _NOTHING  # a context that is seen wholly; most operations of a batch share theirs
        for op in decode(data):
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
        if op.kind <= MOVE and (op.node in (ROOT, TRASH) or op.parent == op.node):
            raise InvalidInput(f"operation {op.dot}: moves {op.node} under {op.parent}; the root and the trash stay, and nothing goes below itself")
        if op.kind == SET and not op.key:
            raise InvalidInput(f"operation {op.dot}: sets a property without a name")

    def _apply(self, ops: list[Op]) -> None:
        moves = []
        seen, stamps, values = self._seen, self._stamps, self._values
        for op in ops:
            client = op.dot.client
            seen[client] = op.dot.seq
            stamps[client] = op.stamp
            self._arrived.append(op)
            if op.kind <= MOVE:
                moves.append(op)
            elif op.kind == SET:
                if op.node in self._gone:
                    continue
                keys = values.get(op.node)
                if keys is None:
                    keys = values[op.node] = {}
                others = keys.get(op.key)
                if others is None:
                    keys[op.key] = [op]
                    continue
                # Those stay that the author had not seen: `Op.saw`, written out, as it is what merging does most.
                context = op.context
                kept = [other for other in others if other.dot[0] != client and context.get(other.dot[0], 0) < other.dot[1]]
                kept.append(op)
                keys[op.key] = kept
            else:
                self._place(moves)
                moves = []
                self._forget(op)
        self._place(moves)
        self._clock.see(max((op.stamp for op in ops), default=0))
        if any(op.dot.client != self.client for op in ops):
            self._context = MappingProxyType({c: n for c, n in self._seen.items() if c != self.client})

    def _place(self, moves: list[Op]) -> None:
        """Enter moves into the log at their rank: undo what comes later, do all again."""
        if not moves:
            return
        moves = sorted(moves, key=Op.rank)
        at = bisect_left(self._ranks, moves[0].rank())
        later = self._log[at:]
        for i in range(len(self._log) - 1, at - 1, -1):
            before = self._before[i]
            if before is None:
                del self._tree[self._log[i].node]
            elif isinstance(before, Place):
                self._tree[self._log[i].node] = before
        del self._log[at:], self._ranks[at:], self._before[at:]
        for op in sorted(later + moves, key=Op.rank) if later else moves:
            self._before.append(self._do(op))
            self._log.append(op)
            self._ranks.append(op.rank())
        if len(moves) > 1 or later or not self._reshow(moves[0], self._before[-1]):
            self._shown = None

    def _do(self, op: Op) -> Place | bool | None:
        """The place before, None for none, False where the operation has no effect."""
        node = op.node
        if node in self._gone or op.parent in self._gone:
            return False
        here: Dot | None = op.parent
        while here is not None:
            if here == node:
                return False
            place = self._tree.get(here)
            here = place.parent if place is not None else None
        before = self._tree.get(node)
        self._tree[node] = Place(op.parent, op.order, op)
        return before

    # What shows ----------------------------------------------------------------------------------------------------------------------

    def _require(self, node: Dot) -> None:
        if node not in self:
            raise NotFound(f"node {node}: not in the scene (deleted, or never seen)")

    def _show(self) -> dict[Dot, list[Dot]]:
        """Children of each node shown, in order, with what was rescued from deleted subtrees in its place."""
        if self._shown is not None:
            return self._shown
        raw: dict[Dot, list[Dot]] = {}
        for node, place in self._tree.items():
            raw.setdefault(place.parent, []).append(node)
        parents: dict[Dot, Dot] = {}
        stack = [ROOT]
        while stack:
            here = stack.pop()
            for child in raw.get(here, ()):
                parents[child] = here
                stack.append(child)
        alive = set(parents) | {ROOT}
        for node in sorted(self._rescued(raw)):
            home = self._home(node, alive)
            parents[node] = home
            raw.setdefault(home, []).append(node)
            below = [node]
            while below:
                here = below.pop()
                for child in raw.get(here, ()):
                    if child not in parents:
                        parents[child] = here
                        below.append(child)
        shown: dict[Dot, list[Dot]] = {}
        for node, parent in parents.items():
            shown.setdefault(parent, []).append(node)
        for row in shown.values():
            row.sort(key=lambda n: (self._tree[n].order, n))
        self._shown, self._shown_parent = shown, parents
        return shown

    def _reshow(self, op: Op, before: Place | bool | None) -> bool:
        """Bring what shows up to date after the newest of all moves, one that goes from nowhere or a living place to a living place. False where it is another."""
        if self._shown is None or before is False:
            return self._shown is not None
        if not self._alive(op.parent) or (isinstance(before, Place) and not self._alive(before.parent)):
            return False
        shown, node = self._shown, op.node
        if isinstance(before, Place):
            row = shown[before.parent]
            at = bisect_left(row, (before.order, node), key=lambda n: (before.order if n == node else self._tree[n].order, n))
            del row[at]
        insort(shown.setdefault(op.parent, []), node, key=lambda n: (self._tree[n].order, n))
        self._shown_parent[node] = op.parent
        return True

    def _alive(self, node: Dot) -> bool:
        """Whether a node stands in the tree itself, below the root: not in the trash, nor shown only because it was rescued from there."""
        while node != ROOT:
            place = self._tree.get(node)
            if place is None:
                return False
            node = place.parent
        return True

    def _rescued(self, raw: dict[Dot, list[Dot]]) -> list[Dot]:
        """Topmost nodes below a deleted one which its deleter had not seen there."""
        found = []
        for deleted in raw.get(TRASH, ()):
            deletion = self._tree[deleted].op
            stack = list(raw.get(deleted, ()))
            while stack:
                node = stack.pop()
                if deletion.saw(self._tree[node].op.dot):
                    stack.extend(raw.get(node, ()))
                else:
                    found.append(node)
        return found

    def _home(self, node: Dot, alive: AbstractSet[Dot]) -> Dot:
        """Where a rescued node shows: the nearest living former parent of what was deleted above it, else the root."""
        tried: list[Dot] = []
        here = node
        while True:
            while (place := self._tree.get(here)) is not None and place.parent != TRASH:
                here = place.parent
            if place is None or here in tried:
                return ROOT
            tried.append(here)
            here = Dot(*msgspec.msgpack.decode(place.order, type=tuple[str, int])) if place.order else ROOT
            if here in alive:
                return here

    # Forgetting ----------------------------------------------------------------------------------------------------------------------

    def collect(self, acks: Mapping[str, Ack], *, now_ms: int) -> int:
        """Forget deleted nodes that every client of `acks` has seen deleted; returns how many. Authority only.

        First, what was rescued is moved for good to where it shows. A client left out of `acks` must load a snapshot before it writes again.
        """
        if self.client != self._authority:
            raise Forbidden(f"client {self.client!r}: only {self._authority!r} may have the deleted forgotten")
        for node in [n for n in self.nodes() if self._tree[n].parent != self._shown_parent[n]]:
            place = self._tree[node]
            self._author(MOVE, now_ms, node=node, parent=self._shown_parent[node], order=place.order)
        stable = self._clock.last
        for client, ack in acks.items():
            known = ack.seen.get(client, 0) <= self._seen.get(client, 0)
            stable = min(stable, ack.clock if known else self._stamps.get(client, 0))
        for op in self._arrived:
            if op.stamp <= stable and any(op.dot.seq > ack.seen.get(op.dot.client, 0) for ack in acks.values()):
                stable = op.stamp - 1
        dead = self._dead(stable)
        if stable > self._stable:
            self._author(COLLECT, now_ms, value=stable, nodes=tuple(sorted(dead)))
        return len(dead)

    def _dead(self, stable: int) -> list[Dot]:
        """Nodes of the trash put there, with all below them, by the stable stamp."""
        raw: dict[Dot, list[Dot]] = {}
        for node, place in self._tree.items():
            raw.setdefault(place.parent, []).append(node)
        dead: list[Dot] = []
        for top in raw.get(TRASH, ()):
            whole, stack = [], [top]
            while stack:
                node = stack.pop()
                whole.append(node)
                stack.extend(raw.get(node, ()))
            if all(self._tree[n].op.stamp <= stable for n in whole):
                dead += whole
        return dead

    def _forget(self, op: Op) -> None:
        stable = int(op.value)
        at = bisect_left(self._ranks, (stable + 1, ""))
        later = self._log[at:]
        for i in range(len(self._log) - 1, at - 1, -1):
            before = self._before[i]
            if before is None:
                del self._tree[self._log[i].node]
            elif isinstance(before, Place):
                self._tree[self._log[i].node] = before
        self._gone = {node: stamp for node, stamp in self._gone.items() if stamp > stable}
        for node in op.nodes:
            self._gone[node] = op.stamp
            self._tree.pop(node, None)
            self._values.pop(node, None)
        self._log, self._ranks, self._before = [], [], []
        self._stable = max(self._stable, stable)
        keep = {place.op.dot for place in self._tree.values()}
        keep |= {o.dot for keys in self._values.values() for ops in keys.values() for o in ops}
        self._arrived = [o for o in self._arrived if o.stamp > stable or o.dot in keep]
        self._shown = None  # before the rest is placed again: what shows is of another tree
        self._place(later)

    # Snapshots -----------------------------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Everything that this replica holds, with a hash; `load` reads it."""
        gone = [(node.client, node.seq, stamp) for node, stamp in sorted(self._gone.items())]
        ops = encode(self._arrived)
        body = _Snapshot(self._seen, self._clock.last, self._stable, gone, self._stamps, ops, hashlib.sha256(ops).digest())
        return msgspec.msgpack.encode(body)

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
        scene._apply([op for op in ops if op.kind != COLLECT])
        scene._arrived = ops
        scene._seen, scene._stamps, scene._stable = dict(body.seen), dict(body.stamps), body.stable
        scene._clock.see(body.clock)
        scene._context = MappingProxyType({c: n for c, n in scene._seen.items() if c != client})
        return scene


def _covers(seen: Mapping[str, int], context: Context) -> bool:
    return all(seen.get(client, 0) >= n for client, n in context.items())


def _goes_back(op: Op) -> InvalidInput:
    return InvalidInput(f"operation {op.dot}: its stamp goes back; a client's stamps must grow")
