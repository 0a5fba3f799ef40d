"""Who may change which part of a scene: a list of subjects at a node holds for all that stands below it.

Owns the rule and keeps nothing: the lists are properties like any other (`EDITORS`), so they are edited, synced and journalled with the scene.
The nearest list at or above a node decides; where there is none, everyone may. Staff may always. A list is set by staff, or by who made the node and may change it.

Who wants to be alone with a part takes a lease of it (`LEASE`): until it ends, nobody else changes what stands there, staff apart. A lease is taken where nobody else has one at, above or below the node; its holder renews
it and gives it back (nil). Time is the server's; a lease ends by itself, so that a client that is gone locks nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ar.scene import Scene
from ar.scene_ops import CREATE, MOVE, ROOT, SET, TRASH, Dot, Op
from esplanade.core.errors import Forbidden, InvalidInput

EDITORS: Final = "editors"
MAX_EDITORS: Final = 1_000
LEASE: Final = "lease"
"""The property: [subject, milliseconds since 1970 at which it ends]."""
MAX_LEASE_MS: Final = 300_000


def client_name(subject: int, device: str) -> str:
    """The name under which a person's device edits scenes; nobody else may use it."""
    return f"{subject}:{device}"


def subject_of(client: str) -> int:
    """Whose client this is; -1 for the server's own."""
    number = client.partition(":")[0]
    return int(number) if number.isascii() and number.isdigit() else -1


def check_rights(scene: Scene, ops: Sequence[Op], subject: int, *, staff: bool, now_ms: int) -> None:
    """Raises Forbidden for an operation that the subject may not do to the scene as it is, InvalidInput for a list of editors or a lease that is none.

    A node that the batch itself makes counts as standing where it was made.
    """
    made: dict[Dot, Dot] = {}
    for op in ops:
        if op.kind == SET and op.key == EDITORS:
            _check_list(op)
        if op.kind == SET and op.key == LEASE:
            _check_lease(op, subject, now_ms)
        if staff:
            continue
        places = [op.node] if op.kind == SET else [op.parent] if op.kind == CREATE else [op.node, op.parent]
        for place in places:
            if place != TRASH and not _allowed(scene, place, made, subject):
                raise Forbidden(f"operation {op.dot} at node {place}: its editors are listed and {subject} is not among them; ask one of them")
            if place != TRASH and (lease := _leased(scene, place, made, subject, now_ms)) is not None:
                raise Forbidden(
                    f"operation {op.dot} at node {place}: subject {lease[0]} has it alone for another {lease[1] - now_ms} ms; wait for that"
                )
        if op.kind == SET and op.key == EDITORS and (op.node == ROOT or subject_of(op.node.client) != subject):
            raise Forbidden(f"operation {op.dot}: the editors of node {op.node} are set by who made it, or by staff")
        if (op.kind == MOVE and op.parent == TRASH) or (op.kind == SET and op.key == LEASE):
            for below in _below(scene, op.node):
                if op.kind == MOVE and not _allowed(scene, below, made, subject):
                    raise Forbidden(f"operation {op.dot}: deletes node {below}, whose editors are listed and {subject} is not among them")
                if (lease := _leased(scene, below, made, subject, now_ms)) is not None:
                    raise Forbidden(
                        f"operation {op.dot}: subject {lease[0]} has node {below} alone for another {lease[1] - now_ms} ms; wait for that"
                    )
        if op.kind == CREATE:
            made[op.node] = op.parent


def _check_list(op: Op) -> None:
    listed = op.value
    fit = listed is None or (
        isinstance(listed, list | tuple) and len(listed) <= MAX_EDITORS and all(type(one) is int and 0 <= one < 2**32 for one in listed)
    )
    if not fit:
        raise InvalidInput(f"operation {op.dot}: editors {str(listed)[:80]}: must be a list of at most {MAX_EDITORS} subjects, or nil")


def _check_lease(op: Op, subject: int, now_ms: int) -> None:
    lease = _lease(op.value)
    if op.value is not None and (lease is None or lease[0] != subject or lease[1] > now_ms + MAX_LEASE_MS):
        raise InvalidInput(
            f"operation {op.dot}: lease {str(op.value)[:80]}: must be [{subject}, milliseconds since 1970], {MAX_LEASE_MS} ms ahead at most, or nil to give it back"
        )


def _lease(value: object) -> tuple[int, int] | None:
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(one) is int for one in value):
        return value[0], value[1]
    return None


def _leased(scene: Scene, node: Dot, made: dict[Dot, Dot], subject: int, now_ms: int) -> tuple[int, int] | None:
    """Another's lease that holds for a node: its own, or of what it stands in."""
    while node in made:
        node = made[node]
    for here in scene.above(node):
        lease = _lease(scene.get(here, LEASE))
        if lease is not None and lease[0] != subject and lease[1] > now_ms:
            return lease
    return None


def _allowed(scene: Scene, node: Dot, made: dict[Dot, Dot], subject: int) -> bool:
    while node in made:
        node = made[node]
    for here in scene.above(node):
        listed = scene.get(here, EDITORS)
        if listed is not None:
            return subject in listed
    return True


def _below(scene: Scene, node: Dot) -> list[Dot]:
    """Nodes shown below one, which have a list or a lease of their own."""
    found, stack = [], [node] if node in scene else []
    while stack:
        here = stack.pop()
        for child in scene.children(here):
            stack.append(child)
            if scene.get(child, EDITORS) is not None or scene.get(child, LEASE) is not None:
                found.append(child)
    return found
