"""The tree of a scene: the moves of its nodes in one total order, and what shows of them.

Owns where nodes stand. Knows no properties, clients or bytes. By the move algorithm of Kleppmann et al., A highly-available move operation for replicated trees (2021): moves in
one total order, undone and done again where an earlier one comes late; a move that would close a cycle has no effect; what is deleted stands in the trash. What a concurrent
move put into a deleted subtree shows where the deleted node was.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from operator import attrgetter

import msgspec

from ar.scene_ops import MOVE, ROOT, TRASH, Dot, Op


class SceneTree:
    """`places`: of each node the move that put it where it stands; `log`: the moves since the stable stamp, in order of their rank. Both are read by others, changed here alone."""

    def __init__(self, stable: Iterable[Op] = ()) -> None:
        """`stable`: the places of nodes that nothing can come before any more."""
        self.places: dict[Dot, Op] = {op.node: op for op in stable}
        self.log: list[Op] = []
        self._before: list[Op | bool | None] = []
        self._shown: dict[Dot, list[Dot]] | None = None
        self._parents: dict[Dot, Dot] = {}

    def __len__(self) -> int:
        """Nodes, the deleted included."""
        return len(self.places)

    def place(self, moves: list[Op]) -> None:
        """Enter moves into the log at their rank: undo what comes later, do all again."""
        if not moves:
            return
        moves = _by_rank(moves)
        log, before = self.log, self._before
        at = bisect_left(log, moves[0].rank(), key=Op.rank)
        later = log[at:]
        if later:
            self._take_back(at)
            moves = _by_rank(later + moves)
            del log[at:], before[at:]
        before += self._do(moves)
        log += moves
        if len(moves) > 1 or later or not self._reshow(moves[0], before[-1]):
            self._shown = None

    def _take_back(self, at: int) -> None:
        """Undo the log from `at` on, the last first."""
        tree, log, before = self.places, self.log, self._before
        for i in range(len(log) - 1, at - 1, -1):
            was = before[i]
            if was is None:
                del tree[log[i].node]
            elif isinstance(was, Op):
                tree[log[i].node] = was

    def _do(self, ops: list[Op]) -> list[Op | bool | None]:
        """Of each the move before, None for none, False where it has no effect: it would close a cycle, or what it needs is forgotten.

        What is forgotten is not in the tree: what moves it, or puts something below it, finds nothing there; all else ranks behind the creation of what it is about.
        """
        tree = self.places
        place = tree.get
        done: list[Op | bool | None] = []
        for op in ops:
            node, here = op.node, op.parent
            above = place(here)
            if (above is None and here != ROOT and here != TRASH) or (op.kind == MOVE and node not in tree):
                done.append(False)
                continue
            while above is not None and here != node:
                here = above.parent
                above = place(here)
            if here == node:
                done.append(False)
                continue
            done.append(place(node))
            tree[node] = op
        return done

    def children(self) -> dict[Dot, list[Dot]]:
        """Children of each node shown, in order, with what was rescued from deleted subtrees in its place."""
        if self._shown is not None:
            return self._shown
        raw: dict[Dot, list[Dot]] = {}
        for node, place in self.places.items():
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
            row.sort(key=lambda n: (self.places[n].order, n))
        self._shown, self._parents = shown, parents
        return shown

    def parents(self) -> dict[Dot, Dot]:
        """Of each node shown what it shows in."""
        self.children()
        return self._parents

    def _reshow(self, op: Op, before: Op | bool | None) -> bool:
        """Bring what shows up to date after the newest of all moves, one that goes from nowhere or a living place to a living place. False where it is another."""
        if self._shown is None or before is False:
            return self._shown is not None
        if not self._alive(op.parent) or (isinstance(before, Op) and not self._alive(before.parent)):
            return False
        shown, node = self._shown, op.node
        if isinstance(before, Op):
            row = shown[before.parent]
            at = bisect_left(row, (before.order, node), key=lambda n: (before.order if n == node else self.places[n].order, n))
            del row[at]
        insort(shown.setdefault(op.parent, []), node, key=lambda n: (self.places[n].order, n))
        self._parents[node] = op.parent
        return True

    def _alive(self, node: Dot) -> bool:
        """Whether a node stands in the tree itself, below the root: not in the trash, nor shown only because it was rescued from there."""
        while node != ROOT:
            place = self.places.get(node)
            if place is None:
                return False
            node = place.parent
        return True

    def _rescued(self, raw: dict[Dot, list[Dot]]) -> list[Dot]:
        """Topmost nodes below a deleted one which its deleter had not seen there."""
        found = []
        for deleted in raw.get(TRASH, ()):
            deletion = self.places[deleted]
            stack = list(raw.get(deleted, ()))
            while stack:
                node = stack.pop()
                if deletion.saw(self.places[node].dot):
                    stack.extend(raw.get(node, ()))
                else:
                    found.append(node)
        return found

    def _home(self, node: Dot, alive: AbstractSet[Dot]) -> Dot:
        """Where a rescued node shows: the nearest living former parent of what was deleted above it, else the root."""
        tried: list[Dot] = []
        here = node
        while True:
            while (place := self.places.get(here)) is not None and place.parent != TRASH:
                here = place.parent
            if place is None or here in tried:
                return ROOT
            tried.append(here)
            here = Dot(*msgspec.msgpack.decode(place.order, type=tuple[str, int])) if place.order else ROOT
            if here in alive:
                return here

    def dead(self, stable: int) -> list[Dot]:
        """Nodes of the trash put there, with all below them, by the stable stamp."""
        raw: dict[Dot, list[Dot]] = {}
        for node, place in self.places.items():
            raw.setdefault(place.parent, []).append(node)
        dead: list[Dot] = []
        for top in raw.get(TRASH, ()):
            whole, stack = [], [top]
            while stack:
                node = stack.pop()
                whole.append(node)
                stack.extend(raw.get(node, ()))
            if all(self.places[n].stamp <= stable for n in whole):
                dead += whole
        return dead

    def forget(self, stable: int, nodes: Iterable[Dot]) -> list[Op]:
        """Of what moved by the stable stamp only where it left each node is kept, and nothing of `nodes`. Returns the moves that are kept of those; later ones stay as they are."""
        at = bisect_left(self.log, (stable + 1, ""), key=Op.rank)
        later = self.log[at:]
        self._take_back(at)
        for node in nodes:
            self.places.pop(node, None)
        kept = list(self.places.values())
        self.log, self._before = [], []
        self._shown = None  # before the rest is placed again: what shows is of another tree
        self.place(later)
        return kept


def _by_rank(ops: list[Op]) -> list[Op]:
    """As `sorted(ops, key=Op.rank)`, without a tuple made for each."""
    return sorted(sorted(ops, key=attrgetter("dot")), key=attrgetter("stamp"))
