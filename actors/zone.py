"""A zone or unit of a venue: who is there, as its position host counts. `zone/<tenant>/<venue>:<zone-or-unit id>`.

Owns no state of its own yet; it reads the host in the same partition, and its reply waits until what it read is durable.
"""

from __future__ import annotations

from actors.behaviour import Context, Decision, not_understood, venue_pinned
from actors.events import EventBody
from actors.messages import Command, GetZone, Rejected
from esplanade.core.errors import Fault
from esplanade.core.ids import Address


class Zone:
    """Behaviour of a zone."""

    def initial(self) -> None:
        return None

    def venue_of(self, address: Address, command: Command) -> str | None:
        return venue_pinned(address)

    def decide(self, state: None, command: Command, context: Context) -> Decision | Rejected:
        match command:
            case GetZone():
                if context.crowd is None:
                    raise Fault(f"{context.address}: a turn without the venue's position host; the shard opens it before the turn")
                venue, _, zone_id = context.address.id.partition(":")
                found = context.crowd.zone_state(zone_id)
                if found is None:
                    return Rejected(code="zone_not_found", message=f"zone {zone_id!r}: venue {venue} has no unit or zone with this id")
                return Decision((), found)
            case _:
                return not_understood(command, context)

    def apply(self, state: None, event: EventBody) -> None:
        raise Fault(f"a zone has no event {type(event).__name__}; the journal mixes entities")

    def save(self, state: None) -> bytes:
        return b""

    def load(self, data: bytes) -> None:
        return None
