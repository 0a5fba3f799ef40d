"""The turns of a frame: commands to entities that are at hand, of logs without a queue, which need no venue or stand beside its host. All else is the shard's, one by one.

This is `Entity.turn` with what is the same for a frame taken out of the loop: no object a turn but its event and its answer, one look at the state of a log, one gathering a log,
one gate. Most turns make one event and no more; those that do more go through `Entity.enter`. Owns no state beyond its frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from actors.behaviour import Context
from actors.entity import BARE_REPLIES, TRIM_AT, WINDOW, Entity, Turn, encode_reply
from actors.events import PERSONAL_KINDS, encode_event
from actors.flusher import Flusher, Gathered
from actors.frame import Frame
from actors.messages import Command, Done, Rejected
from actors.meter import Stopwatch
from actors.partition_log import HostedPositions, PartitionLog
from actors.requests import Answer, Replied, refusal
from actors.system import Key
from esplanade.core.errors import EsplanadeError, Unavailable
from esplanade.core.ids import VENUE_KINDS
from esplanade.storage.journal import Event

Row = tuple[Entity | None, Command | None, str | None, int]
"""A request: its entity where that is at hand, command (None: no plain ask), client and sequence of its key (None: no key)."""

_NONE: Final[list[Any]] = []

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
    gathering: dict[PartitionLog, Gathered] = {}  # of the logs that have been looked at
    logs: list[PartitionLog] = []
    indices: list[int] = []
    refused = 0
    disturbed = False
    room = flusher.room
    watched = watch.at
    for index, (known, command, client, sequence) in enumerate(rows):
        if index == watched:
            watched = watch.look(index, -room)
        entity = known or (None if command is None else find(index))
        log = None if entity is None else entity.log
        if entity is not None and log is not None and command is not None:
            gathered = gathering.get(log)
            if gathered is None and serves(log):
                gathered = gathering[log] = Gathered()
                log.used_s = now_s
            behaviour = entity.behaviour
            venue = behaviour.venue_of(entity.address, command)
            context = entity.context if venue is None else _beside(log.hosts.get(venue), entity)
            if gathered is not None and room > 0 and context is not None:
                try:
                    remembered = entity.answers
                    window = remembered.newest if client == remembered.client else remembered.get(client, _NONE) if client is not None else _NONE
                    if window and client is not None and sequence <= window[-2]:  # perhaps repeated
                        turn = entity.turn(command, Key(client, sequence), context)
                    else:
                        decision = behaviour.decide(entity.state, command, context)
                        if isinstance(decision, Rejected):
                            turn = None
                            answers[index] = Replied(decision)
                        elif len(decision.events) == 1 and not decision.outbox and not decision.reminders:
                            [body] = decision.events
                            type_name, data = encode_event(body)
                            entity.state = behaviour.apply(entity.state, body)
                            entity.version = version = entity.version + 1
                            size = len(data)
                            if client is None:
                                gathered.events.append(Event(entity.name, version, type_name, data))
                            else:
                                reply = BARE_REPLIES.get(type(decision.reply)) or encode_reply(decision.reply)
                                if client == remembered.client:  # `Answers.keep` of the next sequence
                                    window.extend((sequence, reply))
                                    if len(window) > TRIM_AT:
                                        del window[: -2 * WINDOW]
                                else:
                                    remembered.keep(client, sequence, reply)
                                gathered.events.append(Event(entity.name, version, type_name, data, client, sequence, reply))
                                size += len(reply)
                            gathered.bytes += size
                            room -= size
                            turn = None
                            answers[index] = DONE if type(decision.reply) is Done else Replied(decision.reply)
                        else:
                            turn = entity.enter(decision, None if client is None else Key(client, sequence), None)
                    if turn is not None:
                        if turn.events:
                            _gather(flusher, gathering)
                            flusher.append(log, turn.events, turn.entries())
                            room = flusher.room
                            if turn.wakes:
                                wake(log, entity, turn)
                        answers[index] = Replied(turn.reply)
                except EsplanadeError as error:
                    answers[index] = refusal(error)
                    refused += 1
                except Exception as error:
                    del gathering[log]
                    _gather(flusher, gathering)
                    calls.broke(index, log, error)
                    disturbed = True
                    continue
                logs.append(log)
                indices.append(index)
                continue
        _gather(flusher, gathering)
        route(index)
        disturbed = True
        room = flusher.room
    if watched >= 0:
        watch.look(len(answers), -room)
    _gather(flusher, gathering)
    turns = len(indices)
    if disturbed and any(log.given_up for log in set(logs)):  # by a later turn of this frame: what it gathered is gone
        gone = Unavailable(f"shard {shard} replays this partition after a fault; ask again with the same key")
        frame.release([index for log, index in zip(logs, indices, strict=True) if log.given_up], gone)
        kept = [i for i, log in enumerate(logs) if not log.given_up]
        logs, indices = [logs[i] for i in kept], [indices[i] for i in kept]
    if indices:
        flusher.when_all_durable(logs, indices, frame.release)
    return Ran(turns, refused)


def _gather(flusher: Flusher, gathering: dict[PartitionLog, Gathered]) -> None:
    """Hand over what turns have made so far, and look at each log anew."""
    for log, gathered in gathering.items():
        if gathered.events:
            flusher.gather(log, gathered)
    gathering.clear()


def _beside(held: HostedPositions | None, entity: Entity) -> Context | None:
    """What a turn of an entity that stands beside its venue's host may know; None where there is no host yet, or the entity is of another kind."""
    if held is None or entity.address.kind not in _BESIDE_HOSTS:
        return None
    host, known = held.host, entity.at_venue
    if known is None or known.crowd is not host or known.venue is not host.book or known.tick != host.buffer.closed:
        known = entity.at_venue = Context(address=entity.address, venue=host.book, crowd=host, tick=host.buffer.closed)
    return known
