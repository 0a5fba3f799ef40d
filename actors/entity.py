"""One entity in memory: its state, version, and the answers it remembers. Runs turns and folds events.

A turn has no await: dedupe, `decide`, `apply`. What it returns must not leave the shard before its events are durable; the shard sees to that.
Commands of a connection carry (client, sequence). The newest WINDOW answers of a client are kept with the state, so a repeated command gets its first answer, after a restart
too (the command's last event says what it was answered); a sequence below the window is refused. Turns without events (reads, refusals) are simply done again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from actors.behaviour import Behaviour, Context, Decision
from actors.events import Answered, EventBody, ReminderDropped, ReminderFired, ReminderSet, decode_event, encode_event, open_reply, seal_event
from actors.messages import Command, Done, Rejected, Reply
from actors.reminders import Held, Wake, change, fold
from actors.system import Key
from actors.topics import Body
from esplanade.core.errors import Conflict, Fault
from esplanade.core.ids import Address
from esplanade.storage.journal import Event
from esplanade.storage.sealing import SubjectSeal

if TYPE_CHECKING:
    from actors.partition_log import PartitionLog

WINDOW: Final = 32
"""Answers kept of one client and entity; a client has at most this many commands under way to one entity."""

MAX_CLIENTS: Final = 4_096
"""Clients remembered by one entity; the one that has been silent longest is forgotten."""

TRIM_AT: Final = 3 * (WINDOW + 16)
"""Parts of a client's answers beyond which those that no longer count go."""

_REPLY: Final = msgspec.msgpack.Decoder(Reply)
_encode: Final = msgspec.msgpack.Encoder().encode
encode_reply: Final[Callable[[Reply], bytes]] = _encode
ENCODED_DONE: Final = encode_reply(Done())
"""The answer to most commands: one object in all windows."""


Run = tuple[int, int, bytes]
"""Commands of one client with sequences in a row, first to last, that got one and the same answer."""


class Answers(dict[str, list[Any]]):
    """Answers by client, silent longest first: [first, last, reply, first, last, reply, ...], a run each, lowest sequences first. Of these the newest WINDOW count; those
    before them are trimmed a few at a time. `client`, `newest`: whose command came last, and its answers: most often the next one's too, and found without a look at the table."""

    __slots__ = ("client", "newest")

    def __init__(self) -> None:
        super().__init__()
        self.client: str | None = None
        self.newest: list[Any] = []

    def find(self, key: Key) -> bytes | None:
        """The remembered answer; None for a command not seen. Raises Conflict for one too old to tell."""
        known = self.get(key.client)
        if known is None or key.sequence > known[-2]:
            return None
        left = WINDOW
        for at in range(len(known) - 3, -1, -3):
            first, last, reply = known[at : at + 3]
            if key.sequence > last:
                return None
            oldest = max(first, last + 1 - left)
            if key.sequence >= oldest:
                return bytes(reply)
            left -= last + 1 - oldest
            if not left:
                raise Conflict(
                    f"client {key.client!r}, sequence {key.sequence}: older than the {WINDOW} answers kept (from {oldest}); it cannot be told whether it was done"
                )
        return None

    def keep(self, client: str, sequence: int, reply: bytes) -> None:
        if client != self.client:
            self._turn_to(client)
        known = self.newest
        if not known or sequence > known[-2]:
            if known and sequence == known[-2] + 1 and reply == known[-1]:
                known[-2] = sequence
            else:
                known += (sequence, sequence, _one_of(reply))
                if len(known) > TRIM_AT:
                    del known[: -3 * WINDOW]
        else:  # overtaken on its way by a later one
            known[:] = _parts(_runs({**_pairs(known), sequence: _one_of(reply)}))

    def _turn_to(self, client: str) -> None:
        """To the end of the table with this client."""
        known = self.pop(client, None)
        if known is None:
            client, known = sys.intern(client), []
            if len(self) >= MAX_CLIENTS:
                del self[next(iter(self))]
        self[client] = known
        self.client, self.newest = client, known

    def save(self) -> list[tuple[str, list[Run]]]:
        """Those that count."""
        return [(client, _counting(known)) for client, known in self.items()]

    def load(self, saved: Sequence[tuple[str, list[Run] | dict[int, bytes]]]) -> None:
        """What `save` gave, or (before answers were kept as runs) answers by sequence."""
        self.clear()
        self.client, self.newest = None, []
        for client, known in saved:
            self[sys.intern(client)] = _parts(_runs(known) if isinstance(known, dict) else known)


def _one_of(reply: bytes) -> bytes:
    """The same bytes: of Done, one object."""
    return ENCODED_DONE if reply == ENCODED_DONE else reply


def _counting(known: list[Any]) -> list[Run]:
    """The runs of a client's answers that count, the oldest as far as it does."""
    runs: list[Run] = []
    left = WINDOW
    for at in range(len(known) - 3, -1, -3):
        first, last, reply = known[at : at + 3]
        oldest = max(first, last + 1 - left)
        runs.append((oldest, last, reply))
        left -= last + 1 - oldest
        if not left:
            break
    return runs[::-1]


def _pairs(known: list[Any]) -> dict[int, bytes]:
    """Those that count, by sequence."""
    return {sequence: reply for first, last, reply in _counting(known) for sequence in range(first, last + 1)}


def _runs(pairs: dict[int, bytes]) -> list[Run]:
    runs: list[Run] = []
    for sequence, reply in sorted(pairs.items()):
        if runs and runs[-1][1] + 1 == sequence and runs[-1][2] == reply:
            runs[-1] = (runs[-1][0], sequence, reply)
        else:
            runs.append((sequence, sequence, reply))
    return runs


def _parts(runs: list[Run]) -> list[Any]:
    return [part for first, last, reply in runs for part in (first, last, _one_of(reply))]


class SavedEntity(msgspec.Struct, array_like=True):
    address: str
    version: int
    state: bytes
    answers: Sequence[tuple[str, list[Run] | dict[int, bytes]]]
    """By client; by sequence in snapshots from before answers were kept as runs."""
    reminders: dict[str, Held] = {}


class Turn(msgspec.Struct):
    """What a turn brought: events with their versions, the reply, outbox entries (topic, body), reminders set."""

    events: list[Event]
    reply: Reply
    outbox: tuple[tuple[str, Body], ...]
    wakes: tuple[Wake, ...] = ()

    def entries(self) -> list[tuple[str, bytes]]:
        """What it says on durable topics, as it is stored."""
        return [(topic, _encode(body)) for topic, body in self.outbox]


class Entity:
    """An entity and its behaviour."""

    __slots__ = ("address", "answers", "at_venue", "behaviour", "context", "log", "name", "reminders", "state", "version")

    def __init__(self, address: Address, behaviour: Behaviour[Any]) -> None:
        self.address = address
        self.name = str(address)
        self.version = 0
        self.context = Context(address=address)  # of a turn that needs no venue
        self.at_venue: Context | None = None  # of the last turn beside its venue's host, for the next one of the same tick
        self.state: Any = behaviour.initial()
        self.reminders: dict[str, Held] | None = None
        self.behaviour = behaviour
        self.answers = Answers()
        self.log: PartitionLog | None = None
        """Of which it is, as long as that is not given up."""

    def turn(self, command: Command, key: Key | None, context: Context) -> Turn:
        """Decide and apply. Raises Conflict for a sequence too old, Fault where a behaviour breaks its own rules."""
        if key is not None:
            known = self.answers.find(key)
            if known is not None:
                return Turn([], _REPLY.decode(known if context.seal is None else self._opened(known, key, context.seal)), ())
        decision = self.behaviour.decide(self.state, command, context)
        return Turn([], decision, ()) if isinstance(decision, Rejected) else self.enter(decision, key, context.seal)

    def enter(self, decision: Decision, key: Key | None, seal: SubjectSeal | None) -> Turn:
        """Apply what was decided on a command under this key. Raises Fault where a behaviour breaks its own rules."""
        behaviour = self.behaviour
        events: list[Event] = []
        wakes: tuple[Wake, ...] = ()
        version = self.version
        for body in decision.events if seal is None else [seal_event(body, seal) for body in decision.events]:
            type_name, data = encode_event(body)
            self.state = behaviour.apply(self.state, body)
            version += 1
            events.append(Event(self.name, version, type_name, data))
        if decision.reminders:
            version, wakes = change(self, decision.reminders, events, version)
        if key is not None and events:
            reply = ENCODED_DONE if type(decision.reply) is Done else encode_reply(decision.reply)
            if seal is None:
                self.answers.keep(key.client, key.sequence, reply)
                last = events[-1]
                events[-1] = Event(self.name, version, last.type, last.body, key.client, key.sequence, reply)
            else:  # an event of its own, whose reply is sealed
                answered = seal_event(Answered(key.client, key.sequence, reply), seal)
                self._apply(answered)
                version += 1
                events.append(Event(self.name, version, *encode_event(answered)))
        self.version = version
        return Turn(events, decision.reply, decision.outbox, wakes)

    def remind(self, name: str, now_ms: int) -> Turn:
        """The turn of a reminder that is due: what the behaviour decides, and that it has fired. A refusal has no effect but that. Raises Fault as `turn` does."""
        assert self.reminders is not None
        command, fired = self.reminders[name].fire(name, now_ms)
        decision = self.behaviour.decide(self.state, command, self.context)
        events: list[Event] = []
        bodies = (*decision.events, fired) if not isinstance(decision, Rejected) else (fired,)
        version = self.version
        for body in bodies:
            self._apply(body)
            version += 1
            events.append(Event(self.name, version, *encode_event(body)))
        wakes: tuple[Wake, ...] = ((fired.next_ms, name),) if fired.next_ms else ()
        if isinstance(decision, Rejected):
            self.version = version
            return Turn(events, decision, (), wakes)
        version, more = change(self, decision.reminders, events, version)
        self.version = version
        return Turn(events, decision.reply, decision.outbox, (*wakes, *more))

    def _opened(self, known: bytes, key: Key, seal: SubjectSeal) -> bytes:
        reply = open_reply(known, seal)
        if reply is None:
            raise Conflict(f"{self.name}: the answer to client {key.client!r}, sequence {key.sequence}, was erased with its subject")
        return reply

    def _apply(self, body: EventBody) -> None:
        if isinstance(body, Answered):
            self.answers.keep(body.client, body.sequence, body.reply)
        elif isinstance(body, ReminderSet | ReminderDropped | ReminderFired):
            fold(self, body)
        else:
            self.state = self.behaviour.apply(self.state, body)

    def fold(self, event: Event) -> None:
        """Apply a stored event. Raises Fault where it is not the next one."""
        if event.version != self.version + 1:
            raise Fault(f"{self.name}: stored event {event.version} follows version {self.version}; the journal has a gap")
        self._apply(decode_event(event.type, event.body))
        if event.reply:
            self.answers.keep(event.client, event.sequence, event.reply)
        self.version = event.version

    def save(self) -> SavedEntity:
        return SavedEntity(self.name, self.version, self.behaviour.save(self.state), self.answers.save(), self.reminders or {})

    def load(self, saved: SavedEntity) -> None:
        self.version = saved.version
        self.state = self.behaviour.load(saved.state)
        self.answers.load(saved.answers)
        self.reminders = saved.reminders or None
