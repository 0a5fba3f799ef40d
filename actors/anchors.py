"""The anchors of a venue: `anchors/<tenant>/<venue>`. Who may host, see, observe, remove and refine them.

Owns the decisions; what an anchor is and how it is found is `ar.anchors`. Not in its venue's partition: a million anchors must not lengthen the replay of
the venue's positions. Time comes with the commands; what has expired leaves with the next anchor that is hosted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from actors.behaviour import Context, Decision, not_understood
from actors.events import AnchorsCarried, AnchorsHosted, AnchorsObserved, AnchorsRefined, AnchorsRemoved, EventBody
from actors.messages import (
    AnchorGraph,
    CarryAnchors,
    Command,
    Done,
    GetAnchorGraph,
    HostAnchors,
    NearAnchors,
    ObserveAnchors,
    RefineAnchors,
    Rejected,
    RemoveAnchors,
    ResolveAnchors,
)
from actors.messages import (
    Anchors as AnchorsReply,
)
from actors.topics import AnchorsChanged, Body
from ar.anchor_records import ID_BYTES, Seeker, check_anchors
from ar.anchors import AnchorBook
from ar.pose import Poses
from esplanade.core.errors import Fault, InvalidInput, LimitExceeded, NotFound
from esplanade.core.ids import Address

MAX_RESOLVED: Final = 1_000
"""Ids of one resolve or removal."""
MAX_GRAPH: Final = 2_000
"""Anchors of one refinement."""
EXPIRED_AT_ONCE: Final = 1_000
"""Expired anchors that leave with one command."""


class Anchors:
    """Behaviour of a venue's anchors."""

    def initial(self) -> AnchorBook:
        return AnchorBook()

    def venue_of(self, address: Address, command: Command) -> str | None:
        return address.id if isinstance(command, HostAnchors | CarryAnchors) else None

    def decide(self, state: AnchorBook, command: Command, context: Context) -> Decision | Rejected:
        try:
            match command:
                case ResolveAnchors():
                    seeker = Seeker(command.subject, command.staff)
                    return Decision((), AnchorsReply(anchors=tuple(state.resolve(_ids(command.ids), seeker, command.now_ms))))
                case NearAnchors():
                    return _near(state, command)
                case HostAnchors():
                    return _host(state, command, context)
                case ObserveAnchors():
                    return _observe(state, command)
                case RemoveAnchors():
                    return _remove(state, command, context)
                case CarryAnchors():
                    return _carry(state, command, context)
                case GetAnchorGraph():
                    anchors, seen = state.graph(MAX_GRAPH)
                    return Decision((), AnchorGraph(anchors=tuple(anchors), seen=tuple(seen)))
                case RefineAnchors():
                    return _refine(state, command, context)
                case _:
                    return not_understood(command, context)
        except InvalidInput as error:
            return Rejected(code="invalid_anchor", message=error.message)
        except NotFound as error:
            return Rejected(code="anchor_not_found", message=error.message)
        except LimitExceeded as error:
            return Rejected(code="too_many_anchors", message=error.message)

    def apply(self, state: AnchorBook, event: EventBody) -> AnchorBook:
        match event:
            case AnchorsHosted():
                state.put_all(event.anchors, event.owner)
            case AnchorsRemoved():
                for identity in _ids(event.ids):
                    state.remove(identity)
            case AnchorsObserved():
                for seen, agreed in zip(event.seen, event.agreed, strict=True):
                    state.observe(seen, bool(agreed))
            case AnchorsCarried():
                state.carry(event.carrier, event.level, event.position_m, event.rotation)
            case AnchorsRefined():
                position = np.frombuffer(event.position, "<f8").reshape(-1, 3)
                rotation = np.frombuffer(event.rotation, "<f8").reshape(-1, 4)
                for at, identity in enumerate(_ids(event.ids)):
                    state.move(identity, Poses.of(position[at], rotation[at]))
            case _:
                raise Fault(f"anchors have no event {type(event).__name__}; the journal mixes entities")
        return state

    def save(self, state: AnchorBook) -> bytes:
        return state.save()

    def load(self, data: bytes) -> AnchorBook:
        return AnchorBook.load(data)


def _ids(data: bytes) -> list[bytes]:
    """Raises InvalidInput for bytes that are no ids, or too many."""
    if len(data) % ID_BYTES or len(data) > MAX_RESOLVED * ID_BYTES:
        raise InvalidInput(f"anchor ids of {len(data)} bytes: must be {ID_BYTES} each, at most {MAX_RESOLVED} of them")
    return [data[at : at + ID_BYTES] for at in range(0, len(data), ID_BYTES)]


def _told(context: Context, what: AnchorsChanged) -> tuple[tuple[str, Body], ...]:
    return ((f"venue/{context.address.id}/anchors", what),) if what.ids else ()


def _near(state: AnchorBook, command: NearAnchors) -> Decision | Rejected:
    seeker = Seeker(command.subject, command.staff, command.tags, command.own)
    level, x_m, y_m = command.level, command.x_m, command.y_m
    if command.beside:
        if not state.visible(command.beside, Seeker(command.subject, command.staff), command.now_ms):
            return Rejected(code="anchor_not_found", message=f"anchor {command.beside.hex()}: not in this venue, or not yours to see")
        level, pose = state.place(command.beside)
        x_m, y_m = float(pose.translation_m[0, 0]), float(pose.translation_m[0, 1])
    found = state.near_one(level, x_m, y_m, command.radius_m, command.k, seeker, command.now_ms, beside=command.beside)
    return Decision((), AnchorsReply(anchors=tuple(found)))


def _host(state: AnchorBook, command: HostAnchors, context: Context) -> Decision | Rejected:
    if context.venue is None:
        raise Fault(f"{context.address}: an anchor is hosted without the venue's document; the shard loads it before the turn")
    check_anchors(command.anchors, len(context.venue.venue.levels))
    new: set[bytes] = set()
    for anchor in command.anchors:
        if 0 < anchor.expires_ms <= command.now_ms:
            raise InvalidInput(f"anchor {anchor.id.hex()}: expires at {anchor.expires_ms}, now is {command.now_ms}; give a later time, or 0 for none")
        state.room(anchor, more=len(new))
        if anchor.id in state:
            if state.owner(anchor.id) != command.owner and not command.staff:
                return Rejected(
                    code="anchor_not_yours", message=f"anchor {anchor.id.hex()}: another has hosted it; host yours under an id of its own"
                )
        else:
            new.add(anchor.id)
    hosted_ids = {anchor.id for anchor in command.anchors}
    if len(hosted_ids) < len(command.anchors):
        raise InvalidInput("anchors: an id stands twice in one command; give each once")
    gone = [identity for identity in state.expired(command.now_ms, EXPIRED_AT_ONCE) if identity not in hosted_ids]
    by_owner: dict[int, list[int]] = {}
    for at, anchor in enumerate(command.anchors):  # staff changes an anchor and leaves it its owner's
        by_owner.setdefault(state.owner(anchor.id) if anchor.id in state else command.owner, []).append(at)
    events: list[EventBody] = [AnchorsRemoved(b"".join(gone), True)] if gone else []
    events += [AnchorsHosted(owner, tuple(command.anchors[at] for at in rows)) for owner, rows in by_owner.items()]
    held = tuple(state.previews(command.anchors, command.owner))
    venue = context.address.id
    hosted = AnchorsChanged(venue=venue, what="hosted", ids=b"".join(anchor.id for anchor in command.anchors))
    outbox = _told(context, AnchorsChanged(venue=venue, what="expired", ids=b"".join(gone))) + _told(context, hosted)
    return Decision(tuple(events), AnchorsReply(anchors=held), outbox)


def _observe(state: AnchorBook, command: ObserveAnchors) -> Decision | Rejected:
    seeker = Seeker(command.subject, command.staff)
    for seen in command.seen:
        for identity in (seen.id, seen.seen_from) if seen.seen_from else (seen.id,):
            if not state.visible(identity, seeker, command.now_ms):
                return Rejected(code="anchor_not_found", message=f"anchor {identity.hex()}: not in this venue, or not yours to see")
    agreed = bytes(state.agrees(seen) for seen in command.seen)
    held = []
    for at, seen in enumerate(command.seen):
        before = state.held(seen.id)
        same = [bool(agreed[i]) for i, other in enumerate(command.seen[: at + 1]) if other.id == seen.id]
        held.append(before.after(same.count(True), same.count(False)))
    return Decision((AnchorsObserved(command.subject, command.seen, agreed),), AnchorsReply(anchors=tuple(held)))


def _remove(state: AnchorBook, command: RemoveAnchors, context: Context) -> Decision | Rejected:
    here = [identity for identity in dict.fromkeys(_ids(command.ids)) if identity in state]
    for identity in here:
        if state.owner(identity) != command.subject and not command.staff:
            return Rejected(code="anchor_not_yours", message=f"anchor {identity.hex()}: another has hosted it, who may remove it, or staff")
    if not here:
        return Decision((), Done())
    ids = b"".join(here)
    return Decision((AnchorsRemoved(ids, False),), Done(), _told(context, AnchorsChanged(venue=context.address.id, what="removed", ids=ids)))


def _carry(state: AnchorBook, command: CarryAnchors, context: Context) -> Decision | Rejected:
    if context.venue is None:
        raise Fault(f"{context.address}: a carrier moves without the venue's document; the shard loads it before the turn")
    if command.level >= len(context.venue.venue.levels):
        raise InvalidInput(f"carrier {command.carrier!r} on level {command.level}: the venue has levels 0 to {len(context.venue.venue.levels) - 1}")
    Poses.of(command.position_m, command.rotation)
    state.carrier_room(command.carrier)
    return Decision((AnchorsCarried(command.carrier, command.level, command.position_m, command.rotation),), Done())


def _refine(state: AnchorBook, command: RefineAnchors, context: Context) -> Decision:
    moved = []
    poses: list[Sequence[float]] = []
    held = []
    for refined in command.refined:
        if refined.id not in state:
            continue
        before = state.held(refined.id)
        if before.version != refined.version or before.anchor.carrier or refined.id in moved:
            continue
        pose = Poses.of(refined.position_m, refined.rotation)
        moved.append(refined.id)
        poses.append([*pose.translation_m[0], *pose.rotation[0]])
        held.append(before.at(pose))
    if not moved:
        return Decision((), AnchorsReply(anchors=()))
    columns = np.array(poses, "<f8")
    ids = b"".join(moved)
    event = AnchorsRefined(ids, np.ascontiguousarray(columns[:, :3]).tobytes(), np.ascontiguousarray(columns[:, 3:]).tobytes())
    told = _told(context, AnchorsChanged(venue=context.address.id, what="moved", ids=ids))
    return Decision((event,), AnchorsReply(anchors=tuple(held)), told)
