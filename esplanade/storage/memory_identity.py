"""Identities in memory, for tests of logic. Several `MemoryIdentity` on one `IdentityShelf` are several processes on one database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec

from esplanade.core.errors import Conflict, NotFound, Unavailable
from esplanade.storage.identity import ApiKey, Family, OneTime, Operator, Revocation, RevocationKind, SigningKey, Turn


@dataclass
class _Secret:
    key: str
    made_ms: int
    ends_ms: int | None = None


@dataclass
class _Once:
    once: OneTime
    expires_ms: int
    attempts: int = 0


@dataclass
class IdentityShelf:
    """What all processes see. `tenants`: None for any."""

    tenants: set[str] | None = None
    signing_keys: dict[str, SigningKey] = field(default_factory=dict)
    accounts: dict[tuple[str, str, bytes], int] = field(default_factory=dict)
    operators: dict[tuple[str, str], Operator] = field(default_factory=dict)
    totp_steps: dict[tuple[str, str], int] = field(default_factory=dict)
    families: dict[str, Family] = field(default_factory=dict)
    refresh: dict[bytes, tuple[str, bool]] = field(default_factory=dict)
    once: dict[tuple[str, str], _Once] = field(default_factory=dict)
    keys: dict[str, ApiKey] = field(default_factory=dict)
    secrets: dict[bytes, _Secret] = field(default_factory=dict)
    revocations: dict[tuple[str, RevocationKind, str], Revocation] = field(default_factory=dict)
    listeners: list[asyncio.Queue[bool]] = field(default_factory=list)

    def check(self, tenant: str) -> None:
        if self.tenants is not None and tenant not in self.tenants:
            raise NotFound(f"tenant {tenant!r}: not in the catalogue; add it first")

    def lose_connections(self) -> None:
        """Every listener's connection breaks."""
        for listener in self.listeners:
            listener.put_nowait(False)


class MemoryIdentity:
    """`available` set to False makes every call raise Unavailable."""

    def __init__(self, shelf: IdentityShelf | None = None) -> None:
        self._shelf = shelf or IdentityShelf()
        self.available = True

    @property
    def shelf(self) -> IdentityShelf:
        if not self.available:
            raise Unavailable("the identity store is away; ask again")
        return self._shelf

    async def signing_keys(self) -> list[SigningKey]:
        return sorted(self.shelf.signing_keys.values(), key=lambda key: (key.signs_from_ms, key.kid))

    async def add_signing_key(self, key: SigningKey, *, others_until_ms: int | None) -> bool:
        held = self.shelf.signing_keys
        if others_until_ms is None and held:
            return False
        for kid, other in held.items():
            if others_until_ms is not None and (other.verifies_until_ms is None or other.verifies_until_ms > others_until_ms):
                held[kid] = msgspec.structs.replace(other, verifies_until_ms=others_until_ms)
        held[key.kid] = key
        return True

    async def account(self, tenant: str, issuer: str, name_digest: bytes) -> int | None:
        return self.shelf.accounts.get((tenant, issuer, name_digest))

    async def link(self, tenant: str, issuer: str, name_digest: bytes, subject: int, now_ms: int) -> int:
        self.shelf.check(tenant)
        return self.shelf.accounts.setdefault((tenant, issuer, name_digest), subject)

    async def unlink(self, tenant: str, subject: int) -> int:
        gone = [key for key, held in self.shelf.accounts.items() if key[0] == tenant and held == subject]
        for key in gone:
            del self.shelf.accounts[key]
        return len(gone)

    async def add_operator(self, operator: Operator) -> None:
        self.shelf.check(operator.tenant)
        if (operator.tenant, operator.name) in self.shelf.operators:
            raise Conflict(f"operator {operator.name!r} of {operator.tenant!r}: there is one of this name; take another")
        self.shelf.operators[operator.tenant, operator.name] = operator

    async def operator(self, tenant: str, name: str) -> Operator | None:
        return self.shelf.operators.get((tenant, name))

    async def operators(self, tenant: str) -> list[Operator]:
        return [operator for (of, _), operator in sorted(self.shelf.operators.items()) if of == tenant]

    async def change_operator(self, operator: Operator) -> None:
        key = (operator.tenant, operator.name)
        if key not in self.shelf.operators:
            raise NotFound(f"operator {operator.name!r} of {operator.tenant!r}: there is none; `esplanade operators list` names them")
        self.shelf.operators[key] = msgspec.structs.replace(operator, failures=0, locked_until_ms=0)

    async def sign_in_failed(self, tenant: str, name: str, *, most: int, lock_until_ms: int) -> None:
        held = self.shelf.operators.get((tenant, name))
        if held is not None:
            locks = held.failures + 1 >= most
            self.shelf.operators[tenant, name] = msgspec.structs.replace(
                held, failures=0 if locks else held.failures + 1, locked_until_ms=lock_until_ms if locks else held.locked_until_ms
            )

    async def signed_in(self, tenant: str, name: str) -> None:
        held = self.shelf.operators.get((tenant, name))
        if held is not None:
            self.shelf.operators[tenant, name] = msgspec.structs.replace(held, failures=0, locked_until_ms=0)

    async def take_totp_step(self, tenant: str, name: str, step: int) -> bool:
        if (tenant, name) not in self.shelf.operators or self.shelf.totp_steps.get((tenant, name), 0) >= step:
            return False
        self.shelf.totp_steps[tenant, name] = step
        return True

    async def begin(self, family: Family, digest: bytes) -> None:
        self.shelf.families[family.family] = family
        self.shelf.refresh[digest] = (family.family, False)

    async def turn(self, digest: bytes, following: bytes, now_ms: int, revoked_until_ms: int) -> Turn | None:
        held = self.shelf.refresh.get(digest)
        if held is None:
            return None
        family = self.shelf.families[held[0]]
        if family.revoked_ms is not None or family.expires_ms <= now_ms:
            return Turn(family, "ended")
        if held[1]:
            await self.revoke(Revocation(family.tenant, "family", family.family, now_ms, revoked_until_ms))
            return Turn(family, "reused")
        self.shelf.refresh[digest] = (family.family, True)
        self.shelf.refresh[following] = (family.family, False)
        return Turn(family, "turned")

    async def keep_once(self, kind: str, id: str, once: OneTime, expires_ms: int) -> None:
        self.shelf.once[kind, id] = _Once(once, expires_ms)

    async def attempt(self, kind: str, id: str, *, most: int, now_ms: int) -> OneTime | None:
        held = self.shelf.once.get((kind, id))
        if held is None or held.attempts >= most or held.expires_ms <= now_ms:
            return None
        held.attempts += 1
        return held.once

    async def spend(self, kind: str, id: str, now_ms: int) -> OneTime | None:
        held = self.shelf.once.pop((kind, id), None)
        return None if held is None or held.expires_ms <= now_ms else held.once

    async def add_key(self, key: ApiKey, digest: bytes) -> None:
        self.shelf.check(key.tenant)
        self.shelf.keys[key.id] = key
        self.shelf.secrets[digest] = _Secret(key.id, key.made_ms)

    async def keys(self, tenant: str) -> list[ApiKey]:
        return sorted((key for key in self.shelf.keys.values() if key.tenant == tenant), key=lambda key: (key.made_ms, key.id))

    async def key_of(self, digest: bytes, now_ms: int) -> ApiKey | None:
        secret = self.shelf.secrets.get(digest)
        if secret is None or (secret.ends_ms is not None and secret.ends_ms <= now_ms):
            return None
        key = self.shelf.keys[secret.key]
        return None if key.revoked_ms is not None or (key.expires_ms is not None and key.expires_ms <= now_ms) else key

    async def rotate_key(self, tenant: str, id: str, digest: bytes, *, now_ms: int, others_until_ms: int) -> None:
        key = self.shelf.keys.get(id)
        if key is None or key.tenant != tenant or key.revoked_ms is not None:
            raise NotFound(f"key {id!r} of {tenant!r}: there is none that counts; `esplanade keys list` names them")
        held = [secret for secret in self.shelf.secrets.values() if secret.key == id]
        newest = max(held, key=lambda secret: secret.made_ms)
        for secret in held:
            until = others_until_ms if secret is newest else now_ms
            secret.ends_ms = until if secret.ends_ms is None else min(secret.ends_ms, until)
        self.shelf.secrets[digest] = _Secret(id, now_ms)

    async def revoke(self, revocation: Revocation) -> bool:
        tenant, what, at = revocation.tenant, revocation.what, revocation.at_ms
        known = revocation.kind == "subject"
        if revocation.kind == "key":
            key = self.shelf.keys.get(what)
            if key is not None and key.tenant == tenant and key.revoked_ms is None:
                self.shelf.keys[what] = msgspec.structs.replace(key, revoked_ms=at)
                known = True
        for name, family in list(self.shelf.families.items()):
            mine = name == what if revocation.kind == "family" else revocation.kind == "subject" and str(family.subject) == what
            if mine and family.tenant == tenant and family.revoked_ms is None:
                self.shelf.families[name] = msgspec.structs.replace(family, revoked_ms=at)
                known = True
        if known:
            self.shelf.revocations[tenant, revocation.kind, what] = revocation
            for listener in self.shelf.listeners:
                listener.put_nowait(True)
        return known

    async def revocations(self, now_ms: int) -> list[Revocation]:
        return [held for held in self.shelf.revocations.values() if held.until_ms > now_ms]

    async def changes(self) -> AsyncIterator[None]:
        queue: asyncio.Queue[bool] = asyncio.Queue()
        self.shelf.listeners.append(queue)
        try:
            yield
            while await queue.get():
                yield
            raise Unavailable("the test cut the connection")
        finally:
            self._shelf.listeners.remove(queue)

    async def drop_expired(self, now_ms: int) -> int:
        shelf = self.shelf
        before = len(shelf.once) + len(shelf.families) + len(shelf.revocations) + len(shelf.signing_keys)
        shelf.once = {key: held for key, held in shelf.once.items() if held.expires_ms > now_ms}
        shelf.families = {key: held for key, held in shelf.families.items() if held.expires_ms > now_ms}
        shelf.refresh = {key: held for key, held in shelf.refresh.items() if held[0] in shelf.families}
        shelf.revocations = {key: held for key, held in shelf.revocations.items() if held.until_ms > now_ms}
        shelf.signing_keys = {
            key: held for key, held in shelf.signing_keys.items() if held.verifies_until_ms is None or held.verifies_until_ms > now_ms
        }
        return before - len(shelf.once) - len(shelf.families) - len(shelf.revocations) - len(shelf.signing_keys)

    async def close(self) -> None:
        self.available = False
