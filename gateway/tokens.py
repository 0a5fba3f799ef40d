"""Access and refresh tokens: a short one that every gateway can check, and a long one that is good for one use.

Owns families: a sign-in begins one, each refresh turns it, and a refresh token that comes a second time ends it at once, since one of the two who had it is a thief.
Refresh tokens are 256 random bits and kept as hashes.
"""

from __future__ import annotations

import hashlib
from typing import Final, cast

import msgspec

from esplanade.core.clock import SystemClock
from esplanade.core.errors import NotFound
from esplanade.storage.audit import Detail
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.identity import Family, IdentityStore, Revocation, RevocationKind
from esplanade.storage.sealing import Random
from gateway.audit_trail import AuditTrail
from gateway.auth import BadToken, Identity, Issuer, base64url, digest_of
from gateway.credentials import Credentials
from gateway.permissions import Role
from gateway.signing_keys import KEEP_S

ACCESS_S: Final = 600.0
"""How long an access token counts; no longer than a stolen one should."""
REFRESH_S: Final[dict[Role, float]] = {
    "guest": 30 * 86_400.0,
    "shopper": 90 * 86_400.0,
    "operator": 12 * 3600.0,
    "engineer": 12 * 3600.0,
    "feed": 12 * 3600.0,
}
"""How long a sign-in lasts, refreshed or not."""
REFRESH_PREFIX: Final = "esr_"


class Pair(msgspec.Struct, frozen=True):
    """What a grant answers (RFC 6749, 5.1). `refresh_token` is empty where the token's family goes on with the one it has."""

    access_token: str
    refresh_token: str
    expires_in: int
    identity: Identity


class TokenDesk:
    """Gives tokens to whom somebody else has recognised."""

    def __init__(
        self,
        *,
        store: IdentityStore,
        catalogue: Catalogue,
        issuer: Issuer,
        credentials: Credentials,
        clock: SystemClock,
        random: Random,
        audit: AuditTrail | None,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._issuer = issuer
        self._credentials = credentials
        self._clock = clock
        self._random = random
        self._audit = audit

    async def begin(
        self, subject: int, tenant: str, role: Role, *, client: str, origin: str, source: str | None = None, strong_unix_s: float = 0.0
    ) -> Pair:
        """Somebody signed in."""
        now_ms = self._clock.unix_ms()
        family = Family(
            base64url(self._random(16)), tenant, subject, role, source, client[:128], now_ms, now_ms + round(REFRESH_S[role] * 1000)
        )  # fmt: skip
        refresh = self._fresh()
        await self._store.begin(family, digest_of(refresh))
        if self._audit is not None and role != "guest":
            detail: Detail = {"client": client[:128], "second_factor": strong_unix_s > 0}
            self._audit.note(tenant=tenant, who=f"{role}:{subject}", what="sign_in", target=family.family, origin=origin, detail=detail)
        return self._pair(family, refresh, strong_unix_s)

    async def guest(self, tenant: str, *, client: str, origin: str) -> Pair:
        """A new guest of a tenant. Raises NotFound."""
        if tenant not in await self._catalogue.tenants():
            raise NotFound(f"tenant {tenant!r}: there is none of this id")
        return await self.begin(await self._catalogue.next_subject(tenant), tenant, "guest", client=client, origin=origin)

    async def refresh(self, token: str, *, origin: str) -> Pair:
        """The next pair. Raises BadToken; a token that was spent before ends its family, everywhere, at once."""
        now_ms, following = self._clock.unix_ms(), self._fresh()
        turn = await self._store.turn(digest_of(token), digest_of(following), now_ms, now_ms + round(KEEP_S * 1000))
        if turn is None:
            raise BadToken("unknown_key", "no such refresh token; sign in again")
        family = turn.family
        if turn.outcome == "reused":
            if self._audit is not None:
                who = f"{family.role}:{family.subject}"
                self._audit.note(tenant=family.tenant, who=who, what="token.reused", target=family.family, origin=origin, outcome="revoked")
            raise BadToken(
                "revoked", "this refresh token was used before: the sign-in that it came of is ended, since somebody else may have it; sign in again"
            )
        if turn.outcome == "ended":
            raise BadToken("revoked" if family.revoked_ms is not None else "expired", "the sign-in that it came of has ended; sign in again")
        return self._pair(family, following, 0.0)

    async def exchange(self, token: str, *, client: str, origin: str) -> Pair:
        """A pair for who bears a token of another issuer, or one of ours (RFC 8693). Raises BadToken; an API key is none."""
        identity = await self._credentials.identify(token)
        if identity.key or identity.family:
            raise BadToken("claims", "only a token of another issuer, or a guest's or local one, can be exchanged")
        return await self.begin(
            identity.subject,
            identity.tenant,
            identity.role,
            client=client,
            origin=origin,
            source=identity.source,
            strong_unix_s=identity.strong_unix_s,
        )

    def stronger(self, identity: Identity, *, origin: str) -> Pair:
        """An access token of the same sign-in, for who has just shown a second factor."""
        if self._audit is not None:
            who = f"{identity.role}:{identity.subject}"
            self._audit.note(tenant=identity.tenant, who=who, what="second_factor", target=identity.family, origin=origin)
        family = Family(identity.family, identity.tenant, identity.subject, identity.role, identity.source, "", 0, 2**53)
        return self._pair(family, "", self._clock.unix_ms() / 1000)

    async def revoke(self, kind: RevocationKind, tenant: str, what: str, *, who: str, origin: str) -> bool:
        """End a family, a key, or all of a subject's sign-ins. Every gateway hears of it at once. Whether there was something to end."""
        return await revoke(self._store, self._clock, self._audit, kind, tenant, what, who=who, origin=origin)

    def _fresh(self) -> str:
        return REFRESH_PREFIX + base64url(self._random(32))

    def _pair(self, family: Family, refresh: str, strong_unix_s: float) -> Pair:
        now_s, role = self._clock.unix_ms() / 1000, cast("Role", family.role)
        ttl_s = min(ACCESS_S, family.expires_ms / 1000 - now_s)
        token = self._issuer.issue(
            family.subject, family.tenant, role, family.source, ttl_s, now_s, family=family.family, strong_unix_s=strong_unix_s
        )  # fmt: skip
        identity = Identity(
            family.subject, family.tenant, role, family.source, now_s + ttl_s, family=family.family, issued_unix_s=now_s, strong_unix_s=strong_unix_s
        )
        return Pair(token, refresh, int(ttl_s), identity)


async def revoke(
    store: IdentityStore, clock: SystemClock, audit: AuditTrail | None, kind: RevocationKind, tenant: str, what: str, *, who: str, origin: str
) -> bool:
    now_ms = clock.unix_ms()
    done = await store.revoke(Revocation(tenant, kind, what, now_ms, now_ms + round(KEEP_S * 1000)))
    if done and audit is not None:
        audit.note(tenant=tenant, who=who, what=f"{kind}.revoke", target=what, origin=origin)
    return done


def challenge_of(verifier: str) -> str:
    """The S256 challenge of a PKCE verifier (RFC 7636, 4.2)."""
    return base64url(hashlib.sha256(verifier.encode("ascii", "replace")).digest())
