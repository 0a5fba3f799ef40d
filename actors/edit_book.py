"""Edits of a venue's map while it runs: what was done, what was taken back, and the document that follows. A part of the behaviours of malls and festivals, not an entity.

Owns the history. Only edits that leave every unit, zone and level in its place of the document are taken here (open, close, move, re-label): fences, tills and counts go by that place,
so nothing of what is known about people starts anew. The position host follows the newest document at its next tick.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field
from typing import Final

import msgspec

from actors.behaviour import Decision
from actors.events import VenueEdited
from actors.messages import Edited, EditVenue, LiveEdit, RedoEdit, Rejected, UndoEdit
from actors.venue_book import VenueBook
from esplanade.core.errors import EsplanadeError
from spatial import venue_edits
from spatial.venue import Venue
from spatial.venue_files import dump_venue, parse_venue

MAX_STEPS: Final = 16
"""Edits that can be taken back; each keeps a packed document (some tens of KB)."""
MAX_DIGESTS: Final = 256
"""Documents of the history whose digest is remembered: the host follows from any of them."""


class Step(msgspec.Struct, array_like=True, frozen=True):
    """An edit and the packed document before it (of one taken back: after it)."""

    edit: LiveEdit
    document: bytes


@dataclass(slots=True)
class EditBook:
    """`document`: the newest, packed; empty where nothing was edited. `digests`: of the documents that it comes from, and its own, the newest last."""

    document: bytes = b""
    digests: tuple[str, ...] = ()
    done: list[Step] = field(default_factory=list)
    undone: list[Step] = field(default_factory=list)

    def apply(self, event: VenueEdited) -> None:
        if event.before not in self.digests:  # the first edit, or the first of another import
            self.done, self.undone, self.digests = [], [], (event.before,)
        match event.act:
            case "do":
                self.done.append(Step(event.edit, event.other))
                self.undone = []
            case "undo":
                self.undone.append(Step(event.edit, event.other))
                self.done.pop()
            case _:
                self.done.append(Step(event.edit, event.other))
                self.undone.pop()
        self.done = self.done[-MAX_STEPS:]
        self.document = event.document
        self.digests = (*(digest for digest in self.digests if digest != event.digest), event.digest)[-MAX_DIGESTS:]


def newest(book: EditBook, venue: VenueBook) -> tuple[bytes, str]:
    """(document, digest) that an edit starts from: the newest of the history, or, where another was imported since, that."""
    if venue.digest in book.digests:
        return zlib.decompress(book.document), book.digests[-1]
    document = dump_venue(venue.venue)
    return document, venue.digest


def decide(book: EditBook, command: EditVenue | UndoEdit | RedoEdit, venue: VenueBook, tick: int) -> Decision | Rejected:
    document, before = newest(book, venue)
    mine = venue.digest in book.digests
    match command:
        case EditVenue(edit=edit):
            try:
                made: Venue = venue_edits.apply(parse_venue(document, f"venue {venue.venue.id}"), edit)
            except EsplanadeError as error:
                return Rejected(code="invalid_edit", message=error.message)
            packed = zlib.compress(dump_venue(made), 6)
            event = VenueEdited(tick, "do", edit, before, _digest(packed), packed, zlib.compress(document, 6))
        case UndoEdit():
            if not mine or not book.done:
                return Rejected(code="nothing_to_undo", message=f"venue {venue.venue.id}: no edit to take back (the last {MAX_STEPS} are kept)")
            step = book.done[-1]
            event = VenueEdited(tick, "undo", step.edit, before, _digest(step.document), step.document, book.document)
        case RedoEdit():
            if not mine or not book.undone:
                return Rejected(code="nothing_to_redo", message=f"venue {venue.venue.id}: no edit was taken back since the last one was made")
            step = book.undone[-1]
            event = VenueEdited(tick, "redo", step.edit, before, _digest(step.document), step.document, book.document)
    after = EditBook(book.document, book.digests, list(book.done), list(book.undone))
    after.apply(event)
    return Decision((event,), told(after, event.edit))


def told(book: EditBook, edit: LiveEdit | None) -> Edited:
    digest = book.digests[-1] if book.digests else ""
    return Edited(edit=edit, digest=digest, document=book.document, done=tuple(step.edit for step in book.done), undone=len(book.undone))


def _digest(packed: bytes) -> str:
    return hashlib.sha256(zlib.decompress(packed)).hexdigest()
