"""Who somebody is, as it is kept: signing keys, accounts, operators, families of refresh tokens, API keys, what is good once, and what was revoked.

Owns the rows and the interface. It never sees a secret in the clear: callers pass digests, sealed seeds and argon2 hashes. What a row permits is for `gateway` to say.
Implementations: `postgres_identity`, `memory_identity`; one contract suite for both. Times are Unix milliseconds and passed in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, Protocol

import msgspec

RevocationKind = Literal["family", "subject", "key"]


class SigningKey(msgspec.Struct, frozen=True):
    """`public`: the 32 bytes of an Ed25519 key; `sealed`: its seed under the master key. It signs from `signs_from_ms` on, until a later one does."""

    kid: str
    public: bytes
    sealed: bytes
    made_ms: int
    signs_from_ms: int
    verifies_until_ms: int | None = None


class Family(msgspec.Struct, frozen=True):
    """One sign-in. `client`: the OAuth client it was for."""

    family: str
    tenant: str
    subject: int
    role: str
    source: str | None
    client: str
    made_ms: int
    expires_ms: int
    revoked_ms: int | None = None


class Turn(msgspec.Struct, frozen=True):
    """What came of presenting a refresh token. reused: it was spent before, and the family is revoked now; ended: the family was revoked, or ran out."""

    family: Family
    outcome: Literal["turned", "reused", "ended"]


class OneTime(msgspec.Struct, frozen=True):
    tenant: str
    body: bytes


class Operator(msgspec.Struct, frozen=True):
    """`password`: argon2's encoded hash; `totp`: the sealed secret, once there is a second factor."""

    tenant: str
    name: str
    subject: int
    role: str
    password: str
    made_ms: int
    totp: bytes | None = None
    failures: int = 0
    locked_until_ms: int = 0
    disabled_ms: int | None = None


class ApiKey(msgspec.Struct, frozen=True):
    """`permissions`: None for all that the role has. `venue`, `unit`: the festival and the stand it is confined to."""

    id: str
    tenant: str
    name: str
    role: str
    permissions: tuple[str, ...] | None
    venue: str | None
    unit: str | None
    source: str | None
    subject: int
    made_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None


class Revocation(msgspec.Struct, frozen=True):
    """`what`: a family, a key's id, or a subject (then all its tokens issued before `at_ms`). Of no interest after `until_ms`."""

    tenant: str
    kind: RevocationKind
    what: str
    at_ms: int
    until_ms: int


class IdentityStore(Protocol):
    """Every call raises Unavailable while the store is away."""

    async def signing_keys(self) -> list[SigningKey]:
        """Oldest first."""
        ...

    async def add_signing_key(self, key: SigningKey, *, others_until_ms: int | None) -> bool:
        """Add a key; those there are verify until `others_until_ms`. With None: only where there is none yet. Whether it was added."""
        ...

    async def account(self, tenant: str, issuer: str, name_digest: bytes) -> int | None:
        """The subject that somebody is here."""
        ...

    async def link(self, tenant: str, issuer: str, name_digest: bytes, subject: int, now_ms: int) -> int:
        """Make `subject` theirs, unless they have one; returns the one they have. Raises NotFound where there is no such tenant."""
        ...

    async def unlink(self, tenant: str, subject: int) -> int:
        """Forget who a subject is elsewhere (erasure); how many links there were."""
        ...

    async def add_operator(self, operator: Operator) -> None:
        """Raises Conflict where the name is taken, NotFound where there is no such tenant."""
        ...

    async def operator(self, tenant: str, name: str) -> Operator | None: ...

    async def operators(self, tenant: str) -> list[Operator]: ...

    async def change_operator(self, operator: Operator) -> None:
        """Role, password, second factor and whether disabled, as given; its failures are forgotten. Raises NotFound."""
        ...

    async def sign_in_failed(self, tenant: str, name: str, *, most: int, lock_until_ms: int) -> None:
        """Count a failure; the `most`-th in a row locks until `lock_until_ms` and counts anew."""
        ...

    async def signed_in(self, tenant: str, name: str) -> None:
        """Forget the failures."""
        ...

    async def take_totp_step(self, tenant: str, name: str, step: int) -> bool:
        """Whether no code of this time step or a later one was taken before; from now on it was."""
        ...

    async def begin(self, family: Family, digest: bytes) -> None:
        """A family with its first refresh token."""
        ...

    async def turn(self, digest: bytes, following: bytes, now_ms: int, revoked_until_ms: int) -> Turn | None:
        """Spend a refresh token for the next one, in one step. One that was spent before revokes its family (and says so to all until `revoked_until_ms`). None: unknown."""
        ...

    async def keep_once(self, kind: str, id: str, once: OneTime, expires_ms: int) -> None: ...

    async def attempt(self, kind: str, id: str, *, most: int, now_ms: int) -> OneTime | None:
        """Count an attempt and return it, where it has not run out and this is at most the `most`-th; else None."""
        ...

    async def spend(self, kind: str, id: str, now_ms: int) -> OneTime | None:
        """Take it away, for one caller; None for every other, and where it has run out."""
        ...

    async def add_key(self, key: ApiKey, digest: bytes) -> None:
        """Raises NotFound where there is no such tenant."""
        ...

    async def keys(self, tenant: str) -> list[ApiKey]:
        """Oldest first, the revoked too."""
        ...

    async def key_of(self, digest: bytes, now_ms: int) -> ApiKey | None:
        """The key that a secret belongs to, where both count now."""
        ...

    async def rotate_key(self, tenant: str, id: str, digest: bytes, *, now_ms: int, others_until_ms: int) -> None:
        """Add a secret; the newest of those there are counts until `others_until_ms`, the others end now: two at once at most. Raises NotFound."""
        ...

    async def revoke(self, revocation: Revocation) -> bool:
        """Revoke, durably, and tell every listener. Whether there was something to revoke that was not revoked before."""
        ...

    async def revocations(self, now_ms: int) -> list[Revocation]:
        """Those that still matter."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Yields once when listening, then after every revocation by anyone. Raises Unavailable when the connection is lost: read `revocations` again, and listen anew."""
        ...

    async def drop_expired(self, now_ms: int) -> int:
        """Rows dropped that can no longer matter."""
        ...

    async def close(self) -> None: ...
