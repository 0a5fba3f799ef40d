"""One entity in memory: its state, version, and the answers it remembers. Runs turns and folds events.

A turn has no await: dedupe, `decide`, `apply`. What it returns must not leave the shard before its events are durable; the shard sees to that.
Commands of a connection carry (client, sequence). The newest WINDOW answers of a client are kept with the state, so a repeated command gets its first answer, after a restart
too (the command's last event says what it was answered); a sequence below the window is refused. Turns without events (reads, refusals) are simply done again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from actors.behaviour import Behaviour, Context
from actors.events import Answered, EventBody, ReminderDropped, ReminderFired, ReminderSet, decode_event, encode_event, open_reply, seal_event
from actors.messages import Command, Rejected, Reply
from actors.reminders import Held, Wake, change, fold
from actors.system import Key
from actors.topics import Body
from esplanade.core.errors import Conflict, Fault
from esplanade.core.ids import Address
from esplanade.storage.journal import Event
from esplanade.storage.sealing import SubjectSeal

WINDOW: Final = 32
"""Answers kept of one client and entity; a client has at most this many commands under way to one entity."""

MAX_CLIENTS: Final = 4_096
"""Clients remembered by one entity; the one that has been silent longest is forgotten."""

_REPLY: Final = msgspec.msgpack.Decoder(Reply)
_encode: Final = msgspec.msgpack.Encoder().encode


class _Window(dict[int, bytes]):
    """Answers of one client by sequence, lowest first. `newest`: the highest sequence of all."""

    __slots__ = ("newest",)

    def __init__(self, answers: Mapping[int, bytes]) -> None:
        super().__init__(sorted(answers.items()))
        self.newest = next(reversed(self))


class Answers:
    """Answers by client and sequence, newest WINDOW of each."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: OrderedDict[str, _Window] = OrderedDict()

    def find(self, key: Key) -> bytes | None:
        """The remembered answer; None for a command not seen. Raises Conflict for one too old to tell."""
        known = self._of.get(key.client)
        if known is None or key.sequence > known.newest:
            return None
        found = known.get(key.sequence)
        if found is None and len(known) >= WINDOW and key.sequence < next(iter(known)):
            raise Conflict(
                f"client {key.client!r}, sequence {key.sequence}: older than the {WINDOW} answers kept (from {min(known)}); it cannot be told whether it was done"
            )
        return found

    def keep(self, client: str, sequence: int, reply: bytes) -> None:
        known = self._of.get(client)
        if known is None:
            self._of[client] = _Window({sequence: reply})
            if len(self._of) > MAX_CLIENTS:
                self._of.popitem(last=False)
            return
        if len(self._of) > 1:
            self._of.move_to_end(client)
        if sequence > known.newest:
            known[sequence] = reply
            known.newest = sequence
        else:  # overtaken on its way by a later one
            known = self._of[client] = _Window({**known, sequence: reply})
        if len(known) > WINDOW:
            del known[next(iter(known))]

    def save(self) -> list[tuple[str, dict[int, bytes]]]:
        return [(client, dict(known)) for client, known in self._of.items()]

    def load(self, saved: list[tuple[str, dict[int, bytes]]]) -> None:
        self._of = OrderedDict((client, _Window(known)) for client, known in saved)


class SavedEntity(msgspec.Struct, array_like=True):
    address: str
    version: int
    state: bytes
    answers: list[tuple[str, dict[int, bytes]]]
    reminders: dict[str, Held] = {}


class Turn(msgspec.Struct):
    """What a turn brought: events with their versions, the reply, outbox entries (topic, body), reminders set."""

    events: list[Event]
    reply: Reply
    outbox: tuple[tuple[str, Body], ...]
    wakes: tuple[Wake, ...] = ()


class Entity:
    """An entity and its behaviour."""

    __slots__ = ("_answers", "address", "at_venue", "behaviour", "context", "name", "reminders", "state", "version")

    def __init__(self, address: Address, behaviour: Behaviour[Any]) -> None:
        self.address = address
        self.name = str(address)
        self.version = 0
        self.context = Context(address=address)  # of a turn that needs no venue
        self.at_venue: Context | None = None  # of the last turn beside its venue's host, for the next one of the same tick
        self.state: Any = behaviour.initial()
        self.reminders: dict[str, Held] | None = None
        self.behaviour = behaviour
        self._answers = Answers()

    def turn(self, command: Command, key: Key | None, context: Context) -> Turn:
        """Decide and apply. Raises Conflict for a sequence too old, Fault where a behaviour breaks its own rules."""
        if key is not None:
            known = self._answers.find(key)
            if known is not None:
                return Turn([], _REPLY.decode(known if context.seal is None else self._opened(known, key, context.seal)), ())
        behaviour, seal = self.behaviour, context.seal
        decision = behaviour.decide(self.state, command, context)
        if isinstance(decision, Rejected):
            return Turn([], decision, ())
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
            reply = _encode(decision.reply)
            if seal is None:
                self._answers.keep(key.client, key.sequence, reply)
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
            self._answers.keep(body.client, body.sequence, body.reply)
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
            self._answers.keep(event.client, event.sequence, event.reply)
        self.version = event.version

    def save(self) -> SavedEntity:
        return SavedEntity(self.name, self.version, self.behaviour.save(self.state), self._answers.save(), self.reminders or {})

    def load(self, saved: SavedEntity) -> None:
        self.version = saved.version
        self.state = self.behaviour.load(saved.state)
        self._answers.load(saved.answers)
        self.reminders = saved.reminders or None
