"""The turns of a frame: commands to entities that are at hand, of logs without a queue, which need no venue or stand beside its host. All else is the shard's, one by one.

This is `Entity.turn` with what is the same for a frame taken out of the loop: no object a turn outlives it but an answer other than Done; its event is packed at once where its log
gathers for the flush; one look at the state of a log, one gate. Most turns make one event and no more; those that do more go through `Entity.enter`. Owns no state beyond its frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, cast

from actors.behaviour import Context, Decision
from actors.entity import ENCODED_DONE, Entity, Turn, encode_reply
from actors.events import EVENT_NAMES, PERSONAL_KINDS, encode_body
from actors.flusher import Flusher, Gathered
from actors.frame import Frame, Slot
from actors.messages import Command, Done, Rejected
from actors.meter import Stopwatch
from actors.partition_log import HostedPositions, PartitionLog
from actors.requests import Answer, Replied, refusal
from actors.system import Key
from esplanade.core.errors import EsplanadeError, Unavailable
from esplanade.core.ids import VENUE_KINDS
from esplanade.storage.segment_codec import pack_event

Row = tuple[Entity | None, Command | None, str | None, int]
"""A request: its entity where that is at hand, command (None: no plain ask), client and sequence of its key (None: no key)."""

_NONE: Final[list[Any]] = []

_NOTHING_YET: Final = Gathered()
"""In the place of what a log gathers, until a turn of this frame makes an event."""

_BESIDE_HOSTS: Final = VENUE_KINDS - PERSONAL_KINDS
"""Kinds of entities that live in the partition of their venue's position host, and whose turns need no subject's key."""

DONE: Final = Replied(Done())
"""The answer to most commands: one object, so that a frame of them travels as one."""


class Calls(NamedTuple):
    """What a frame needs of its shard. `index` counts requests within the frame."""

    find: Callable[[int], Entity | None]
    """The entity of a request that was not at hand, where it is here, of a live log."""
    serves: Callable[[PartitionLog], bool]
    """Whether turns of this log may run at once."""
    route: Callable[[int], None]
    """Run or queue a request in the ordinary way."""
    route_slot: Callable[[Slot], None]
    """The same of one, or of several in one, with a slot made for it."""
    broke: Callable[[int, PartitionLog, Exception], None]
    """A turn broke an invariant: refuse it, give its log up."""
    wake: Callable[[PartitionLog, Entity, Turn], None]
    """A turn has set reminders."""


class Ran(NamedTuple):
    turns: int
    refused: int


def run_rows(rows: Iterable[Row], frame: Frame, flusher: Flusher, calls: Calls, watch: Stopwatch, now_s: float, shard: str) -> Ran:
    """Run the requests of a frame, whose rows these are; their answers leave when what they saw is durable. `watch` times some of them."""
    find, serves, route, wake = calls.find, calls.serves, calls.route, calls.wake
    answers: list[Answer] = frame.answers
    opened: dict[PartitionLog, Gathered] = {}  # logs that have been looked at and serve
    seen: list[PartitionLog | None] = []  # by index, the log whose state the answer has seen; None for what was routed
    saw = seen.append
    refused = 0
    disturbed = False
    room = had = flusher.room
    watched = watch.at
    for index, (known, command, client, sequence) in enumerate(rows):
        if index == watched:
            watched = watch.look(index, -room)
        entity = known or (None if command is None else find(index))
        if entity is not None and command is not None and (log := entity.log) is not None:
            gathered = opened.get(log)
            if gathered is None and serves(log):
                gathered = opened[log] = _NOTHING_YET
                log.used_s = now_s
            behaviour = entity.behaviour
            venue = behaviour.venue_of(entity.address, command)
            context = entity.context if venue is None else _beside(log.hosts.get(venue), entity)
            if gathered is not None and room > 0 and context is not None:
                try:
                    remembered = entity.answers
                    window, ahead = _NONE, 1
                    if client is not None:
                        window = remembered.newest if client == remembered.client else remembered.get(client, _NONE)
                        if window:
                            ahead = sequence - window[-2]
                    if ahead <= 0:  # perhaps repeated
                        turn = entity.turn(command, Key(client or "", sequence), context)
                    else:
                        decision = behaviour.decide(entity.state, command, context)
                        if type(decision) is not Decision:
                            turn = None
                            answers[index] = Replied(cast(Rejected, decision))
                        elif not decision.events and not decision.reminders:  # it has only looked
                            turn = None
                            answers[index] = Replied(decision.reply)
                        elif len(events := decision.events) == 1 and not decision.outbox and not decision.reminders:
                            turn = None
                            [body] = events
                            data = encode_body(body)
                            entity.state = behaviour.apply(entity.state, body)
                            entity.version = version = entity.version + 1
                            name = entity.name
                            size = len(data)
                            reply = decision.reply
                            if type(reply) is Done:
                                encoded, answers[index] = ENCODED_DONE, DONE
                            else:
                                encoded, answers[index] = encode_reply(reply), Replied(reply)
                            if gathered is _NOTHING_YET:
                                gathered = opened[log] = flusher.gathering(log)
                            if client is None:
                                pack_event((name, version, EVENT_NAMES[type(body)], data, "", 0, b""), gathered.body, -1)
                            else:
                                if ahead == 1 and window and window[-1] is encoded and window is remembered.newest:
                                    window[-2] = sequence  # `Answers.keep` of the next in a run
                                else:
                                    remembered.keep(client, sequence, encoded)
                                pack_event((name, version, EVENT_NAMES[type(body)], data, client, sequence, encoded), gathered.body, -1)
                                size += len(encoded)
                            gathered.entities.append(name)
                            gathered.versions.append(version)
                            gathered.bytes += size
                            room -= size
                        else:
                            turn = entity.enter(decision, None if client is None else Key(client, sequence), None)
                    if turn is not None:
                        if turn.events:
                            flusher.grown(had - room)
                            flusher.append(log, turn.events, turn.entries())
                            opened[log] = flusher.gathering(log)
                            room = had = flusher.room
                            if turn.wakes:
                                wake(log, entity, turn)
                        answers[index] = Replied(turn.reply)
                except EsplanadeError as error:
                    answers[index] = refusal(error)
                    refused += 1
                except Exception as error:
                    flusher.grown(had - room)
                    calls.broke(index, log, error)
                    opened.clear()
                    room = had = flusher.room
                    disturbed = True
                    saw(None)
                    continue
                saw(log)
                continue
        flusher.grown(had - room)
        route(index)
        opened.clear()  # each log is looked at anew
        room = had = flusher.room
        disturbed = True
        saw(None)
    if watched >= 0:
        watch.look(len(answers), -room)
    flusher.grown(had - room)
    logs = cast(list[PartitionLog], seen)
    indices = list(range(len(seen)))
    if disturbed:
        indices = [index for index, log in enumerate(seen) if log is not None]
        logs = [log for log in seen if log is not None]
    turns = len(indices)
    if disturbed and any(log.given_up for log in set(logs)):  # by a later turn of this frame: what it gathered is gone
        gone = Unavailable(f"shard {shard} replays this partition after a fault; ask again with the same key")
        frame.release([index for log, index in zip(logs, indices, strict=True) if log.given_up], gone)
        kept = [i for i, log in enumerate(logs) if not log.given_up]
        logs, indices = [logs[i] for i in kept], [indices[i] for i in kept]
    if indices:
        flusher.when_all_durable(logs, indices, frame.release)
    return Ran(turns, refused)


def _beside(held: HostedPositions | None, entity: Entity) -> Context | None:
    """What a turn of an entity that stands beside its venue's host may know; None where there is no host yet, or the entity is of another kind."""
    if held is None or entity.address.kind not in _BESIDE_HOSTS:
        return None
    host, known = held.host, entity.at_venue
    if known is None or known.crowd is not host or known.venue is not host.book or known.tick != host.buffer.closed:
        known = entity.at_venue = Context(address=entity.address, venue=host.book, crowd=host, tick=host.buffer.closed)
    return known
