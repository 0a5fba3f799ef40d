"""A shopper's session: the digital walk-in. `session/<tenant>/<subject>`.

Owns where a subject walked in last. It knows nothing of positions, which are the venue's.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from actors.behaviour import Context, Decision, not_understood
from actors.events import EventBody, QrScanned
from actors.messages import Command, Rejected, ScanQr, WalkedIn
from esplanade.core.errors import Fault
from esplanade.core.ids import Address

NEAREST = 5
"""Stores told at a walk-in."""


@dataclass(slots=True)
class SessionState:
    venue: str = ""
    location: str = ""
    scans: int = 0


class Session:
    """Behaviour of a session."""

    def initial(self) -> SessionState:
        return SessionState()

    def venue_of(self, address: Address, command: Command) -> str | None:
        return command.venue if isinstance(command, ScanQr) else None

    def decide(self, state: SessionState, command: Command, context: Context) -> Decision | Rejected:
        match command:
            case ScanQr():
                book = context.venue
                if book is None:
                    raise Fault(f"{context.address}: a walk-in without the document of {command.venue}; the shard loads it before the turn")
                entrance = book.entrances.get(command.location)
                if entrance is None:
                    codes = ", ".join(sorted(book.entrances)) or "none"
                    return Rejected(
                        code="entrance_not_found", message=f"location {command.location[:64]!r}: {book.venue.id} has the entrances {codes}"
                    )
                level, (x_m, y_m) = book.level_index[entrance.level_id], entrance.point
                reply = WalkedIn(
                    venue=book.venue.id, venue_name=book.venue.name, level=level, x_m=x_m, y_m=y_m,
                    stores=book.nearest_stores(level, x_m, y_m, NEAREST, {}),
                )  # fmt: skip
                return Decision((QrScanned(command.venue, command.location),), reply)
            case _:
                return not_understood(command, context)

    def apply(self, state: SessionState, event: EventBody) -> SessionState:
        if not isinstance(event, QrScanned):
            raise Fault(f"a session has no event {type(event).__name__}; the journal mixes entities")
        state.venue, state.location, state.scans = event.venue, event.location, state.scans + 1
        return state

    def save(self, state: SessionState) -> bytes:
        return msgspec.msgpack.encode((state.venue, state.location, state.scans))

    def load(self, data: bytes) -> SessionState:
        return SessionState(*msgspec.msgpack.decode(data, type=tuple[str, str, int]))
