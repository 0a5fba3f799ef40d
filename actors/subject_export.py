"""Everything that is held about one subject, as plain data for a person to read: from the journal alone, with what is sealed opened as far as its key allows.

Owns what belongs to a subject: its session's events, its wallet with every movement, what position hosts have journalled under its number, and its anchors. Changes nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import numpy as np

from actors import ledger_codes as c
from actors.events import (
    AnchorsHosted,
    AnchorsObserved,
    AnchorsRefined,
    AnchorsRemoved,
    Answered,
    ConsentChanged,
    Dwelt,
    Pushed,
    QrScanned,
    Seen,
    Transitions,
    ZonesCrossed,
    decode_event,
    open_event,
)
from actors.ledger_statement import MAX_LINES, Cursor, statement
from actors.messages import LEDGERS, Reply
from esplanade.core.errors import InvalidInput
from esplanade.core.ids import Address, check_name, partition_of
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.journal import Segment, SegmentReader
from esplanade.storage.sealing import ERASED_BYTES, ERASED_TEXT, Keyring, SubjectSeal
from spatial.zone_shapes import ZONE_KINDS

FORMAT: Final = "esplanade.subject/1"
_REPLY: Final = msgspec.msgpack.Decoder(Reply)


def check_subject(text: str) -> int:
    """A subject's number. Raises InvalidInput."""
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) >= 2**32 or str(int(text)) != text:
        raise InvalidInput(f"subject {text[:40]!r}: must be a number below 2**32, as a token names it")
    return int(text)


async def held_about(journal: SegmentReader, catalogue: Catalogue, keyring: Keyring, tenant: str, subject: int) -> dict[str, Any]:
    """JSON-able. Raises NotFound where a part of the journal is archived, Fault where it is damaged, Unavailable."""
    check_name(tenant, "tenant")
    seal = await keyring.reader(tenant, str(subject))
    return {
        "format": FORMAT,
        "tenant": tenant,
        "subject": subject,
        "sessions": await _sessions(journal, tenant, subject, seal),
        "wallet": await _wallet(journal, tenant, subject),
        "membership": [
            told for entry in await catalogue.venues(tenant) for told in await _membership(journal, tenant, entry.venue, subject)
        ],
        "anchors": [told for entry in await catalogue.venues(tenant) for told in await _anchors(journal, tenant, entry.venue, subject)],
    }  # fmt: skip


def _at(segment: Segment) -> str:
    return datetime.fromtimestamp(segment.written_unix_ms / 1000, UTC).isoformat(timespec="milliseconds")


async def _sessions(journal: SegmentReader, tenant: str, subject: int, seal: SubjectSeal) -> list[dict[str, Any]]:
    """Where the subject scanned in, what it agreed to, and what its phones were answered."""
    address = Address("session", tenant, str(subject))
    found: list[dict[str, Any]] = []
    async for segment in journal.read(tenant, partition_of(address)):
        for event in segment.events:
            if event.entity != str(address):
                continue
            told: dict[str, Any] = {"at": _at(segment), "version": event.version, "what": event.type}
            body = open_event(decode_event(event.type, event.body), seal)
            match body:
                case QrScanned():
                    told |= {"venue": body.venue, "location": body.location}
                case ConsentChanged():
                    told |= {"given": body.given, "text": body.text}
                case Answered():
                    told |= {"client": body.client, "sequence": body.sequence}
                    told["reply"] = ERASED_TEXT if body.reply == ERASED_BYTES else msgspec.to_builtins(_REPLY.decode(body.reply))
                case _:
                    told["body"] = msgspec.to_builtins(body)
            if event.reply:  # kept without a seal
                told |= {"client": event.client, "sequence": event.sequence, "reply": msgspec.to_builtins(_REPLY.decode(event.reply))}
            found.append(told)
    return found


async def _wallet(journal: SegmentReader, tenant: str, subject: int) -> dict[str, Any]:
    """By currency: the balance, and every movement with the balance after it."""
    ledger, account = Address("ledger", tenant, str(subject % LEDGERS)), c.WALLET << 60 | subject
    currencies: set[str] = set()
    async for segment in journal.read(tenant, partition_of(ledger)):
        for event in segment.events:
            if event.entity == str(ledger):
                currencies.add(getattr(decode_event(event.type, event.body), "currency", ""))
    found: dict[str, Any] = {}
    for currency in sorted(currencies - {""}):
        lines: list[dict[str, Any]] = []
        after: Cursor | None = None
        while True:
            page = await statement(journal, ledger, account, currency, after=after, limit=MAX_LINES)
            lines += [
                {"version": line.version, "what": line.what, "key": line.key.hex(), "other": _account(line.other), "amount": line.amount, "balance": line.balance}
                for line in page.lines
            ]  # fmt: skip
            after = page.next
            if after is None:
                break
        if lines:
            found[currency] = {"balance": page.closing, "movements": lines}
    return found


def _account(account: int) -> str:
    kind = {c.WALLET: "wallet", c.TILL: "till", c.OUTSIDE: "outside", c.TRANSIT: "transit"}.get(account >> 60, "account")
    return f"{kind}/{account & 0xFFFFFFFF}"


async def _membership(journal: SegmentReader, tenant: str, venue: str, subject: int) -> list[dict[str, Any]]:
    """Fences crossed and dwelt in, offers pushed, and last places kept, by tick of the venue."""
    host = Address("positions", tenant, venue)
    found: list[dict[str, Any]] = []
    async for segment in journal.read(tenant, partition_of(host)):
        for event in segment.events:
            if event.entity != str(host):
                continue
            body = decode_event(event.type, event.body)
            if not isinstance(body, Transitions | Dwelt | Pushed | Seen | ZonesCrossed):
                continue
            for row in np.flatnonzero(np.frombuffer(body.subject, "<u4") == subject).tolist():
                told: dict[str, Any] = {"at": _at(segment), "venue": venue, "tick": body.tick, "what": event.type}
                match body:
                    case Transitions():
                        told |= {"fence": _u2(body.fence, row), "entered": bool(body.entered[row])}
                    case Dwelt():
                        told["fence"] = _u2(body.fence, row)
                    case ZonesCrossed():
                        told |= {"zone": body.zones[_u2(body.zone, row)], "kind": ZONE_KINDS[body.kind[row]]}
                    case Pushed():
                        told["offer"] = body.offers[_u2(body.offer, row)]
                    case Seen():
                        x, y = (float(np.frombuffer(column, "<f4")[row]) for column in (body.x, body.y))
                        told |= {"level": body.level[row], "x_m": x, "y_m": y, "ago_ticks": _u2(body.ago, row)}
                found.append(told)
    return found


async def _anchors(journal: SegmentReader, tenant: str, venue: str, subject: int) -> list[dict[str, Any]]:
    """Anchors that the subject hosted, what became of those, and what it has observed; bytes as hexadecimal digits."""
    book = Address("anchors", tenant, venue)
    own: set[bytes] = set()
    found: list[dict[str, Any]] = []
    async for segment in journal.read(tenant, partition_of(book)):
        for event in segment.events:
            if event.entity != str(book):
                continue
            body = decode_event(event.type, event.body)
            about: dict[str, Any] = {"at": _at(segment), "venue": venue, "what": event.type}
            match body:
                case AnchorsHosted() if body.owner == subject:
                    own |= {anchor.id for anchor in body.anchors}
                    found += [about | {"anchor": _plain(anchor)} for anchor in body.anchors]
                case AnchorsObserved() if body.subject == subject:
                    found += [about | {"seen": _plain(seen)} for seen in body.seen]
                case AnchorsRemoved() | AnchorsRefined():
                    ids = [body.ids[at : at + 16] for at in range(0, len(body.ids), 16)]
                    found += [about | {"id": one.hex()} for one in ids if one in own]
    return found


def _plain(value: Any) -> Any:
    """A struct as JSON has it, its bytes as hexadecimal digits."""
    built = msgspec.to_builtins(value, builtin_types=(bytes,))
    return {key: one.hex() if isinstance(one, bytes) else one for key, one in built.items()}


def _u2(column: bytes, row: int) -> int:
    return int(np.frombuffer(column, "<u2")[row])
