"""A person's session: the digital walk-in, and what they have agreed to. `session/<tenant>/<subject>`.

Owns where a subject walked in last, and whether they consent to its being known where they are. It knows nothing of positions, which are the venue's, and does not
decide who is asked for consent, which the gateways do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from actors.behaviour import KEY_ALONE, Context, Decision, not_understood
from actors.events import ConsentChanged, EventBody, QrScanned
from actors.messages import Command, Consent, GetConsent, Rejected, ScanQr, SetConsent, WalkedIn
from actors.topics import CONSENTS, ConsentTold
from esplanade.core.errors import Fault
from esplanade.core.ids import Address
from esplanade.storage.sealing import ERASED_TEXT, SEALED_TEXT

NEAREST = 5
"""Stores told at a walk-in."""
TEXT_FIELD: Final = "consent_changed.v1.text"


@dataclass(slots=True)
class SessionState:
    """`text`: of the consent that is given, as it is stored (sealed); `changes`: how many times it was given or taken back."""

    venue: str = ""
    location: str = ""
    scans: int = 0
    given: bool = False
    text: str = ""
    changes: int = 0


class _Saved(msgspec.Struct, array_like=True):
    venue: str
    location: str
    scans: int
    given: bool = False
    text: str = ""
    changes: int = 0


class Session:
    """Behaviour of a session."""

    def initial(self) -> SessionState:
        return SessionState()

    def venue_of(self, address: Address, command: Command) -> str | None:
        match command:
            case ScanQr():
                return command.venue
            case SetConsent() | GetConsent():
                return KEY_ALONE
            case _:
                return None

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
            case GetConsent():
                return Decision((), consent_of(state, context))
            case SetConsent():
                held = consent_of(state, context)
                wanted = Consent(given=command.given, text=command.text if command.given else "", changes=held.changes)
                if wanted == held:
                    return Decision((), held)
                told = ConsentTold(subject=int(context.address.id), given=wanted.given, changes=held.changes + 1)
                changed = msgspec.structs.replace(wanted, changes=told.changes)
                return Decision((ConsentChanged(wanted.given, wanted.text),), changed, ((CONSENTS, told),))
            case _:
                return not_understood(command, context)

    def apply(self, state: SessionState, event: EventBody) -> SessionState:
        match event:
            case QrScanned():
                state.venue, state.location, state.scans = event.venue, event.location, state.scans + 1
            case ConsentChanged():
                state.given, state.text, state.changes = event.given, event.text if event.given else "", state.changes + 1
            case _:
                raise Fault(f"a session has no event {type(event).__name__}; the journal mixes entities")
        return state

    def save(self, state: SessionState) -> bytes:
        return msgspec.msgpack.encode(_Saved(state.venue, state.location, state.scans, state.given, state.text, state.changes))

    def load(self, data: bytes) -> SessionState:
        saved = msgspec.msgpack.decode(data, type=_Saved)
        return SessionState(saved.venue, saved.location, saved.scans, saved.given, saved.text, saved.changes)


def consent_of(state: SessionState, context: Context) -> Consent:
    """What counts now. A consent that was sealed with a key that is gone was erased with its person, who is asked again; one given since then counts, though nothing is kept of its text."""
    text = state.text
    if context.seal is not None and text.startswith(SEALED_TEXT):
        text = context.seal.open_text(TEXT_FIELD, text)
        if text == ERASED_TEXT:
            return Consent(given=False, text="", changes=state.changes)
    return Consent(given=state.given, text=text, changes=state.changes)
