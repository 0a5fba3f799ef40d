"""Durable reminders: an entity asks, as a part of what a turn decided, to be woken at a time, with a name and a payload.

A reminder is stored by events of its entity in the same append as the turn that set it, so it is exactly as durable. When it is due, the shard runs a turn (`messages.Remind`),
whose events are stored together with `reminder_fired.v1`: it is run until that is durable, and has one effect. Never before its time by the owner's clock. What was missed while
nobody owned the log is made up for as soon as somebody does: a one-shot fires once, a periodic one once with the count of what was missed.

Owns the rules and the heap of a log; `actors.entity` keeps an entity's reminders, the shard runs the turns.
"""

from __future__ import annotations

import heapq
from typing import Final, Protocol

import msgspec

from actors.events import ReminderDropped, ReminderFired, ReminderSet, encode_event
from actors.messages import Remind
from esplanade.core.errors import Fault
from esplanade.core.ids import Address
from esplanade.storage.journal import Event

MAX_REMINDERS: Final = 64
"""Reminders of one entity."""
MAX_PAYLOAD: Final = 1_024
MAX_FIRED: Final = 256
"""Reminders of a log fired in one poll."""


class Reminder(msgspec.Struct, frozen=True):
    """Wake me at `due_ms` (since 1970), and every `period_ms` after it where that is not 0. Takes the place of one of the same name, or with `keep` leaves that as it is."""

    name: str
    due_ms: int
    payload: bytes = b""
    period_ms: int = 0
    keep: bool = False


class DropReminder(msgspec.Struct, frozen=True):
    """Forget the reminder of this name, if there is one."""

    name: str


class Held(msgspec.Struct, array_like=True):
    """A reminder as its entity keeps it."""

    due_ms: int
    period_ms: int
    payload: bytes

    def missed(self, now_ms: int) -> int:
        """How many times it is due by now; 0 before its time."""
        if now_ms < self.due_ms:
            return 0
        return 1 + (now_ms - self.due_ms) // self.period_ms if self.period_ms else 1

    def fire(self, name: str, now_ms: int) -> tuple[Remind, ReminderFired]:
        count = self.missed(now_ms)
        after_ms = self.due_ms + count * self.period_ms if self.period_ms else 0
        return Remind(name=name, payload=self.payload, due_ms=self.due_ms, count=count, now_ms=now_ms), ReminderFired(name, self.due_ms, after_ms)


def while_under_way(name: str) -> Reminder:
    """Stands as long as something that a courier carries is under way: due at once and then every minute, so that the log is opened after a takeover. Dropped by the entity."""
    return Reminder(name, 1, period_ms=60_000, keep=True)


class Reminded(Protocol):
    """What an entity keeps of its reminders, by name; None where it never had one."""

    name: str
    reminders: dict[str, Held] | None


Wake = tuple[int, str]
"""(due in ms, name) of a reminder that a turn has set."""


def change(entity: Reminded, changes: tuple[Reminder | DropReminder, ...], events: list[Event], version: int) -> tuple[int, tuple[Wake, ...]]:
    """Enter what a turn decided about reminders: events behind `events`; the version then, and what to be woken for. Raises Fault beyond a limit."""
    wakes: list[Wake] = []
    for wanted in changes:
        held = entity.reminders.get(wanted.name) if entity.reminders else None
        body: ReminderSet | ReminderDropped
        if isinstance(wanted, DropReminder):
            if held is None:
                continue
            body = ReminderDropped(wanted.name)
        else:
            if held is not None and (wanted.keep or held == Held(wanted.due_ms, wanted.period_ms, wanted.payload)):
                continue
            if len(wanted.payload) > MAX_PAYLOAD or wanted.period_ms < 0 or (held is None and len(entity.reminders or ()) >= MAX_REMINDERS):
                raise Fault(
                    f"{entity.name}: reminder {wanted.name!r} with {len(wanted.payload)} bytes, every {wanted.period_ms} ms; an entity has at most {MAX_REMINDERS}, "
                    f"of at most {MAX_PAYLOAD} bytes"
                )
            body = ReminderSet(wanted.name, wanted.due_ms, wanted.period_ms, wanted.payload)
            wakes.append((wanted.due_ms, wanted.name))
        fold(entity, body)
        version += 1
        events.append(Event(entity.name, version, *encode_event(body)))
    return version, tuple(wakes)


def fold(entity: Reminded, body: ReminderSet | ReminderDropped | ReminderFired) -> None:
    """Apply a reminder's event to the entity."""
    held = entity.reminders
    if held is None:
        held = entity.reminders = {}
    match body:
        case ReminderSet():
            held[body.name] = Held(body.due_ms, body.period_ms, body.payload)
        case ReminderDropped():
            del held[body.name]
        case ReminderFired():
            if body.next_ms:
                held[body.name].due_ms = body.next_ms
            else:
                del held[body.name]


class Alarms:
    """What a log must wake its entities for: a heap. An alarm whose reminder has moved or gone meanwhile is dropped when its time comes.

    `marked`: that the log has (or once had) reminders stands in its topic `reminders/<partition>`, so that the next owner opens it unasked.
    """

    __slots__ = ("_heap", "marked")

    def __init__(self) -> None:
        self.marked = False
        self._heap: list[tuple[int, Address, str]] = []

    def add(self, address: Address, wakes: tuple[Wake, ...]) -> None:
        for due_ms, name in wakes:
            heapq.heappush(self._heap, (due_ms, address, name))

    def wait_ms(self, now_ms: int) -> int | None:
        """How long until the first is due; 0 where it is, None where there is none."""
        return max(0, self._heap[0][0] - now_ms) if self._heap else None

    def take(self, now_ms: int) -> tuple[Address, str, int] | None:
        """The next alarm that is due (its entity, name and due time), taken out; None where none is."""
        if not self._heap or self._heap[0][0] > now_ms:
            return None
        due_ms, address, name = heapq.heappop(self._heap)
        return address, name, due_ms


def topic_of(partition: int) -> str:
    """The durable topic in which a log says that it has had reminders."""
    return f"reminders/{partition}"
