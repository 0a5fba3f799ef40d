"""What an operator does that the audit trail tells, and in which words."""

from __future__ import annotations

from typing import assert_never

import numpy as np

from esplanade.storage.audit import Detail
from gateway import frames as f
from gateway.auth import Identity

Act = (
    f.CreateOffer
    | f.EndOffer
    | f.SetBays
    | f.SetAccess
    | f.DrawZone
    | f.EraseZone
    | f.SetTraits
    | f.CountGates
    | f.Recount
    | f.EditVenue
    | f.UndoEdit
    | f.RedoEdit
    | f.TopUps
    | f.Refund
    | f.Hold
    | f.Post
    | f.Void
    | f.PutItem
    | f.Grant
)


def described(frame: Act) -> tuple[str, str, Detail]:
    """What an operator's frame asks for, as the audit trail says it: act, target, detail."""
    match frame:
        case f.CreateOffer():
            offer = frame.offer
            return (
                "offer.create",
                f"{frame.venue}/{offer.id}",
                {"unit": offer.unit_id, "title": offer.title, "starts": offer.starts_tick, "ends": offer.ends_tick},
            )
        case f.EndOffer():
            return "offer.end", f"{frame.venue}/{frame.offer}", {"tick": frame.tick}
        case f.SetBays():
            return "bays.set", frame.venue, {"bays": len(frame.bays)}
        case f.DrawZone():
            return "zone.draw", f"{frame.venue}/{frame.zone.id}", {"name": frame.zone.name, "level": frame.zone.level}
        case f.SetTraits():
            return "traits.set", frame.venue, {"rows": len(frame.subject) // 4, "language": frame.language}
        case f.EditVenue():
            return "map.edit", f"{frame.venue}/{frame.edit.unit_id}", {"edit": type(frame.edit).__name__}
        case f.UndoEdit() | f.RedoEdit():
            return ("map.undo" if isinstance(frame, f.UndoEdit) else "map.redo"), frame.venue, {}
        case f.CountGates():
            return "gates.count", frame.venue, {"gates": len(frame.counts)}
        case f.Recount():
            return "parking.recount", frame.venue, {"moving": frame.moving}
        case f.EraseZone():
            return "zone.erase", f"{frame.venue}/{frame.zone}", {}
        case f.SetAccess():
            return "access.set", frame.venue, {"close": ", ".join(frame.close)[:200], "open": ", ".join(frame.open)[:200]}
        case f.TopUps():
            amount = int(np.frombuffer(frame.amount, "<u4").sum()) if len(frame.amount) % 4 == 0 else 0
            return "wallets.top_up", frame.currency, {"rows": len(frame.subject) // 4, "amount": amount}
        case f.Refund() | f.Hold() | f.Post():
            return (
                f"money.{frame.__struct_config__.tag}",
                str(frame.subject),
                {"amount": frame.amount, "currency": frame.currency, "key": frame.key.hex()},
            )
        case f.PutItem():
            return (
                "item.put",
                frame.item,
                {"amount": frame.amount, "currency": frame.currency, "limit": frame.limit, "unit": frame.unit or "", "each": frame.each},
            )
        case f.Grant():
            return "item.grant", frame.item, {"subject": frame.subject, "key": frame.key.hex()}
        case f.Void():
            return "money.void", str(frame.subject), {"currency": frame.currency, "key": frame.key.hex()}
        case _:
            assert_never(frame)


def who_is(identity: Identity) -> str:
    """A person or program as the audit trail names it."""
    return f"{identity.role}:{identity.subject}"
