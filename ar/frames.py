"""A graph of named frames joined by poses: device, session, anchor, venue, level, WGS84.

Owns the names and the way from one frame to another. A tree per venue is usual; a second edge between two joined frames is refused, so
that there is one answer, and what observations say twice belongs to `ar.pose_graph`.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Final

from ar.pose import Poses
from esplanade.core.errors import Conflict, InvalidInput, LimitExceeded, NotFound

MAX_FRAMES: Final = 100_000
MAX_NAME: Final = 200


class FrameGraph:
    """Frames by name; `set(parent, child, T_parent_child)` joins or moves, `pose(outer, inner)` composes along the way."""

    def __init__(self, *, max_frames: int = MAX_FRAMES) -> None:
        self._max = max_frames
        self._edges: dict[str, dict[str, Poses]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._edges

    def __len__(self) -> int:
        return len(self._edges)

    def set(self, parent: str, child: str, pose: Poses) -> None:
        """Join two frames by one pose `T_parent_child`, or replace the pose of an edge that is there.

        Raises InvalidInput for bad names or several poses, Conflict where the edge would close a cycle, LimitExceeded above the limit of frames.
        """
        for name in (parent, child):
            if not name or len(name) > MAX_NAME or not name.isprintable():
                raise InvalidInput(f"frame name {name[:80]!r}: must be 1-{MAX_NAME} printable characters")
        if parent == child or len(pose) != 1:
            raise InvalidInput(f"edge {parent!r} to {child!r} with {len(pose)} poses: must join two frames by one pose")
        known = child in self._edges.get(parent, {})
        if not known and parent in self._edges and child in self._edges and self._way(parent, child) is not None:
            raise Conflict(
                f"frames {parent!r} and {child!r} are joined already by another way: remove that edge first, or hand both to the pose graph"
            )
        new = [name for name in (parent, child) if name not in self._edges]
        if len(self._edges) + len(new) > self._max:
            raise LimitExceeded(f"{len(self._edges)} frames: at most {self._max} in one graph; remove some")
        self._edges.setdefault(parent, {})[child] = pose
        self._edges.setdefault(child, {})[parent] = pose.inverse()

    def remove(self, name: str) -> None:
        """Take a frame and its edges out. Raises NotFound."""
        for other in self._neighbours(name):
            del self._edges[other][name]
        del self._edges[name]

    def pose(self, outer: str, inner: str) -> Poses:
        """`T_outer_inner`, covariance included. Raises NotFound for an unknown frame or two that are not joined."""
        self._neighbours(outer), self._neighbours(inner)
        way = self._way(outer, inner)
        if way is None:
            raise NotFound(f"frames {outer!r} and {inner!r} are not joined: set an edge between their parts of the graph")
        result = Poses.identity()
        for a, b in itertools.pairwise(way):
            result = result @ self._edges[a][b]
        return result

    def _neighbours(self, name: str) -> dict[str, Poses]:
        if name not in self._edges:
            raise NotFound(f"frame {name[:80]!r}: not in this graph of {len(self._edges)}")
        return self._edges[name]

    def _way(self, start: str, goal: str) -> list[str] | None:
        came: dict[str, str] = {start: start}
        queue = deque([start])
        while queue:
            here = queue.popleft()
            if here == goal:
                way = [goal]
                while way[-1] != start:
                    way.append(came[way[-1]])
                return way[::-1]
            for there in self._edges[here]:
                if there not in came:
                    came[there] = here
                    queue.append(there)
        return None
