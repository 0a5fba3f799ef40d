"""REST for people: who a token names, everything that is held about somebody, and its erasure. One's own for oneself, others' for operators.

Owns the paths and who may; what is held is `actors.subject_export`'s, what erasure is `esplanade.storage.sealing`'s. An export reads whole logs, so this process makes MAX_EXPORTS at a time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from actors.subject_export import check_subject
from esplanade.core.errors import InvalidInput, LimitExceeded
from gateway.acts import who_is
from gateway.audit_trail import AuditTrail
from gateway.openapi import body_of, says, wants
from gateway.permissions import holds
from gateway.rest import Caller, Desk, answer, tagged

MAX_EXPORTS: Final = 2


@dataclass(frozen=True, slots=True)
class SubjectKit:
    """export: everything held about a subject, as plain data. erase: destroy its key; whether there was one."""

    export: Callable[[str, int], Awaitable[dict[str, Any]]]
    erase: Callable[[str, int], Awaitable[bool]]


class Profile(msgspec.Struct):
    subject: int
    tenant: str
    role: str
    source: str | None
    expires_ms: int


class ErasureWish(msgspec.Struct, forbid_unknown_fields=True):
    """`subject` again, so that nobody is erased by a slip: it cannot be undone."""

    subject: int


class Erased(msgspec.Struct):
    """`held`: something sealed was held until now."""

    subject: int
    held: bool


def user_routes(desk: Desk, kit: SubjectKit | None, audit: AuditTrail | None) -> APIRouter:
    router = APIRouter(prefix="/v1/users", tags=["users"])
    exporting = 0

    @router.get("/me", responses=says(Profile))
    async def me(request: Request) -> Response:
        """Whom the token names."""
        identity = desk.caller(request).identity
        return tagged(request, Profile(identity.subject, identity.tenant, identity.role, identity.source, round(identity.expires_unix_s * 1000)))

    if kit is None:
        return router
    subjects = kit

    @router.get("/{subject}/export", responses=says(dict[str, Any], what="Everything that is held: sessions, wallet and movements, membership."))
    async def export(request: Request, subject: str) -> Response:
        """All that is held about a person (`me`, or a number), with what is sealed opened as far as its key allows. Reads whole logs, so it may take a while."""
        nonlocal exporting
        caller = desk.caller(request)
        number = _whose(desk, caller, subject)
        if exporting >= MAX_EXPORTS:
            raise LimitExceeded(f"{exporting} exports are being made: at most {MAX_EXPORTS} at once; ask again in a moment")
        exporting += 1
        try:
            held = await subjects.export(caller.identity.tenant, number)
        finally:
            exporting -= 1
        _note(audit, caller, "subject.export", number)
        return answer(held, 200, {"Cache-Control": "no-store"})

    @router.post("/{subject}/erasure", openapi_extra=wants(ErasureWish), responses=says(Erased))
    async def erase(request: Request, subject: str) -> Response:
        """Destroy the key of a person: what was sealed with it reads as erased from then on, wherever a copy lies. Books and totals stay. It cannot be undone."""
        caller = desk.caller(request)
        number = _whose(desk, caller, subject)
        wish = await body_of(request, ErasureWish)
        if wish.subject != number:
            raise InvalidInput(f"subject {wish.subject} in the body, {number} in the path: say the same number in both")
        held = await subjects.erase(caller.identity.tenant, number)
        _note(audit, caller, "subject.erase", number)
        return answer(Erased(number, held), 200)

    return router


def _whose(desk: Desk, caller: Caller, subject: str) -> int:
    """Raises Forbidden where it is somebody else and the role may not; InvalidInput."""
    number = caller.identity.subject if subject == "me" else check_subject(subject)
    if number != caller.identity.subject or not holds(caller.identity.role, "wallet.use"):
        desk.check(caller, "/v1/users")
    return number


def _note(audit: AuditTrail | None, caller: Caller, what: str, subject: int) -> None:
    if audit is not None:
        audit.note(tenant=caller.identity.tenant, who=who_is(caller.identity), what=what, target=str(subject), origin=caller.origin)
