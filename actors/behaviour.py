"""What an entity's behaviour is: `decide` says what happens, `apply` makes it so. Both are pure, synchronous and read no clock.

`decide` leaves the state as it finds it and returns events and a reply, or refuses. `apply` never refuses: it may change the state in place
and returns it. Folding the journal through `apply` gives the state of the live entity, byte by byte of `save`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import msgspec

from actors.events import EventBody
from actors.messages import Command, Crowded, Explanation, Heat, Measures, Rejected, Reply, Spotted, ZoneState
from actors.reminders import DropReminder, Reminder
from actors.topics import Body
from esplanade.core.ids import Address
from esplanade.storage.sealing import SubjectSeal

if TYPE_CHECKING:  # it holds compiled kernels, which gateways and the API, who import behaviours for their records, never run
    from actors.venue_book import VenueBook

S = TypeVar("S")

KEY_ALONE: Final = ""
"""From `venue_of`: the turn needs no venue, but the key of the person that its entity is about."""


class Crowd(Protocol):
    """What a zone's turn may read of its venue's position host."""

    def zone_state(self, zone_id: str) -> ZoneState | None:
        """Of a unit or zone of the venue; None where there is none with this id."""
        ...

    def measure(self, zone_id: str, *, voronoi: bool) -> Measures | None:
        """Of a unit or zone; None where there is none with this id. Raises LimitExceeded for too many people for `voronoi`."""
        ...

    def heat(self, level: int) -> Heat:
        """Of a level of the venue."""
        ...

    def explain(self, offer_id: str, subject: int) -> Explanation | None:
        """Why an offer was or was not pushed to somebody; None for an offer that is not followed here (yet)."""
        ...

    def spotted(self, subject: int) -> Spotted | None:
        """Where someone present was last seen."""
        ...

    def crowding(self) -> tuple[Crowded, ...]:
        """Where people are, of each level with any."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What a turn may know beside its state. `tick`: newest closed tick of the venue, -1 where none is known. `seal`: of a personal entity's subject."""

    address: Address
    venue: VenueBook | None = None
    crowd: Crowd | None = None
    tick: int = -1
    seal: SubjectSeal | None = None


class Decision(msgspec.Struct, frozen=True):
    """Events to journal and apply, the reply, what to publish on durable topics (topic, body) once they are durable, and when to be woken."""

    events: tuple[EventBody, ...]
    reply: Reply
    outbox: tuple[tuple[str, Body], ...] = ()
    reminders: tuple[Reminder | DropReminder, ...] = ()


class Behaviour(Protocol, Generic[S]):
    def initial(self) -> S: ...

    def venue_of(self, address: Address, command: Command) -> str | None:
        """The venue whose document the turn needs in its context, or None, or KEY_ALONE."""
        ...

    def decide(self, state: S, command: Command, context: Context) -> Decision | Rejected: ...

    def apply(self, state: S, event: EventBody) -> S: ...

    def save(self, state: S) -> bytes: ...

    def load(self, data: bytes) -> S: ...


def not_understood(command: Command, context: Context) -> Rejected:
    """The refusal of a command sent to an entity of the wrong kind."""
    return Rejected(
        code="not_understood",
        message=f"{type(command).__name__} sent to {context.address}: a {context.address.kind} does not take it; see actors.messages for who does",
    )


def venue_pinned(address: Address) -> str:
    """The venue of a mall, festival, zone or position host: its id up to the first ':'."""
    return address.id.partition(":")[0]
