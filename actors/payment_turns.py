"""The turns of a frame of nothing but payments and top-ups, to ledgers that are at hand, of venues whose documents are: as ever, each its batch, its event and its gate, without
what a request of any other kind needs on its way. A row that needs more is the shard's, one by one. Owns no state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from actors.behaviour import Context
from actors.flusher import Flusher
from actors.frame import Frame
from actors.frame_turns import Calls, Ran, Row
from actors.messages import Payments, TopUps
from actors.meter import Stopwatch
from actors.requests import Ask, Commands, Replied, Request, refusal
from actors.venue_book import VenueBook
from esplanade.core.errors import EsplanadeError

BookAt = Callable[[str, str], VenueBook | None]
"""The document of a tenant's venue, where it is at hand."""

_BATCHES: Final = (Payments, TopUps)


def only_payments(requests: Sequence[Request] | Commands) -> bool:
    """Whether all of a frame are plain asks with payments or top-ups."""
    if isinstance(requests, Commands):
        return all(type(command) in _BATCHES for command in requests.commands)
    return all(type(request) is Ask and type(request.command) in _BATCHES for request in requests)


def run_payments(rows: Iterable[Row], frame: Frame, flusher: Flusher, calls: Calls, watch: Stopwatch, book_at: BookAt, now_s: float) -> Ran:
    """Run the requests of a frame of payments, whose rows these are; each answer leaves when what it saw is durable. `watch` times some of them."""
    turns = refused = 0
    for index, (known, command, client, _) in enumerate(rows):
        if index == watch.at:
            watch.look(index, -flusher.room)
        entity = known or calls.find(index)
        log = None if entity is None else entity.log
        if entity is None or log is None or client is not None or flusher.full or not calls.serves(log):
            calls.route(index)
            continue
        context = entity.context
        if type(command) is Payments:
            book = book_at(log.tenant, command.venue)
            if book is None:
                calls.route(index)
                continue
            beside = entity.at_venue
            if beside is None or beside.venue is not book:
                beside = entity.at_venue = Context(address=entity.address, venue=book)
            context = beside
        assert command is not None
        log.used_s = now_s
        turns += 1
        try:
            turn = entity.turn(command, None, context)
            if turn.events:
                flusher.append(log, turn.events, turn.entries())
                if turn.wakes:
                    calls.wake(log, entity, turn)
            frame.answers[index] = Replied(turn.reply)
        except EsplanadeError as error:
            frame.answers[index] = refusal(error)
            refused += 1
        except Exception as error:
            turns -= 1  # counted by who is told
            calls.broke(index, log, error)
            continue
        flusher.when_durable(log, partial(frame.release, [index]))
    if watch.at >= 0:
        watch.look(len(frame.answers), -flusher.room)
    return Ran(turns, refused)
