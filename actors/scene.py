"""A scene that several clients edit at once, apart and offline: `scene/<tenant>/<venue>:<scene>`.

Owns the shared replica, through which all others meet. What an operation does is `ar.scene`, who may do it `ar.scene_rights`. An edit is acknowledged when it is
durable; a client that was away syncs by its version vector. The server's replica takes no operation whose causes it lacks: a client syncs first.

What is deleted is forgotten when every client that has written within KNOWN_MS has seen it deleted: asked at a sync, once in TIDY_MS at most. A client that was away for longer
and lacks what was forgotten is refused (`scene_too_old`): it takes a snapshot and makes again what it had not sent (`Scene.rebase`).
"""

from __future__ import annotations

from typing import Final

from actors.behaviour import Context, Decision, not_understood
from actors.events import EventBody, SceneEdited
from actors.messages import Command, EditScene, Rejected, SceneDelta, SceneEdits, SyncScene
from actors.topics import SceneChanged
from ar.scene import AUTHORITY, Scene
from ar.scene_ops import encode
from ar.scene_rights import check_rights
from esplanade.core.errors import Conflict, Fault, Forbidden, InvalidInput, LimitExceeded
from esplanade.core.ids import Address

MAX_EDIT_OPS: Final = 5_000
"""Operations of one edit: some tens of milliseconds of a turn."""
PAGE_BYTES: Final = 1_000_000
"""Of one answer to a sync, about; a client behind by more asks again."""
MAX_SEEN: Final = 10_000
"""Clients in a version vector."""
KNOWN_MS: Final = 7 * 86_400_000
"""A client that has written is waited for so long after its newest operation."""
TIDY_MS: Final = 60_000
TIDY_MS_AN_OP: Final = 1
"""Least time between two looks for what may be forgotten: a look passes over the whole scene."""


class SceneActor:
    """Behaviour of a scene."""

    def initial(self) -> Scene:
        return Scene(AUTHORITY)

    def venue_of(self, address: Address, command: Command) -> str | None:
        return None

    def decide(self, state: Scene, command: Command, context: Context) -> Decision | Rejected:
        match command:
            case EditScene():
                return _edit(state, command, context)
            case SyncScene():
                if len(command.seen) > MAX_SEEN:
                    return Rejected(
                        code="invalid_edit", message=f"version vector of {len(command.seen)} clients: at most {MAX_SEEN}; load the scene anew"
                    )
                if command.snapshot:
                    ops, whole = state.snapshot_page(command.client, command.at, PAGE_BYTES)
                    return Decision((), SceneDelta(ops=ops, whole=whole))
                try:
                    ops, whole = state.page(command.seen, PAGE_BYTES)
                except Conflict as error:
                    return Rejected(code="scene_too_old", message=error.message)
                return _tidied(state, command, context, SceneDelta(ops=ops, whole=whole))
            case _:
                return not_understood(command, context)

    def apply(self, state: Scene, event: EventBody) -> Scene:
        if not isinstance(event, SceneEdited):
            raise Fault(f"a scene has no event {type(event).__name__}; the journal mixes entities")
        state.merge(event.ops, now_ms=event.now_ms)
        return state

    def save(self, state: Scene) -> bytes:
        return state.snapshot()

    def load(self, data: bytes) -> Scene:
        return Scene.load(AUTHORITY, data)


def _edit(state: Scene, command: EditScene, context: Context) -> Decision | Rejected:
    if not state.ack().seen and not command.staff:
        return Rejected(code="scene_not_found", message=f"{context.address}: nothing is in it yet; staff makes the first edit of a scene")
    try:
        judged = state.judge(command.ops, now_ms=command.now_ms, author=command.author)
        if len(judged.ready) > MAX_EDIT_OPS:
            raise LimitExceeded(f"an edit of {len(judged.ready)} operations: at most {MAX_EDIT_OPS}; send several")
        check_rights(state, judged.ready, command.subject, staff=command.staff, now_ms=command.now_ms)
    except InvalidInput as error:
        return Rejected(code="invalid_edit", message=error.message)
    except Forbidden as error:
        return Rejected(code="edit_forbidden", message=error.message)
    except LimitExceeded as error:
        return Rejected(code="edit_too_large", message=error.message)
    except Conflict as error:
        return Rejected(code="scene_too_old", message=error.message)
    if judged.waiting:
        first = min(judged.waiting)
        return Rejected(
            code="causes_missing",
            message=f"operation {first} and {len(judged.waiting) - 1} others build on what this scene has not seen; send that first",
        )
    reply = SceneEdits(applied=len(judged.ready), known=judged.known)
    if not judged.ready:
        return Decision((), reply)
    return _taken(encode(judged.ready), command.author, command.now_ms, context, reply)


def _taken(ops: bytes, author: str, now_ms: int, context: Context, reply: SceneEdits | SceneDelta) -> Decision:
    venue, _, scene = context.address.id.partition(":")
    changed = SceneChanged(venue=venue, scene=scene, author=author, ops=ops)
    return Decision((SceneEdited(author, now_ms, ops),), reply, ((f"venue/{venue}/scene/{scene}", changed),))


def _tidied(state: Scene, command: SyncScene, context: Context, reply: SceneDelta) -> Decision:
    """The answer to a sync; and where it is time and everyone has seen them, what was deleted is forgotten."""
    state.hear(command.client, command.seen)
    ops = state.tidying(now_ms=command.now_ms, known_ms=KNOWN_MS, every_ms=TIDY_MS, an_op_ms=TIDY_MS_AN_OP)
    return _taken(encode(ops), AUTHORITY, command.now_ms, context, reply) if ops else Decision((), reply)
