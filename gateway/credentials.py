"""Whose a credential is: a token of ours, a token of another issuer, or an API key; and what of these was revoked. One place for sockets and HTTP alike.

`identify` asks what must be asked (a key set, the store); `verify` answers from what is at hand. Revocations are heard at once and read again every POLL_S, since a
listener may be cut off; while the store is away, what was known stays in force. Keeps digests of credentials, never a credential.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Final, cast

from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, NotFound, Unavailable
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.identity import ApiKey, IdentityStore, Revocation, RevocationKind
from esplanade.storage.sealing import Vault
from gateway.admission import Plans
from gateway.auth import LEEWAY_S, MAX_KNOWN, BadToken, Identity, Verifier, digest_of
from gateway.heard import Heard
from gateway.issuers import Foreign, Issuers
from gateway.metrics import GatewayMetrics
from gateway.permissions import GRANTED, Permission, Role, Scope
from gateway.signing_keys import SigningKeys

KEY_PREFIX: Final = "esk_"
"""What a secret of an API key begins with, so that scanners of sources find one that was published."""
KEY_FRESH_S: Final = 30.0
"""A key's row is read again after so long; its revocation is heard at once."""
SLACK_S: Final = 30.0
"""What was fresh when a request came counts until it is answered."""
KEY_SESSION_S: Final = 86_400.0
"""How long a connection lasts that was opened with a key that has no end."""
FOREIGN_MAX_S: Final = 3600.0
"""A token of another issuer counts here for so long at most: we are not told when that issuer revokes it."""
REFETCH_KEYS_S: Final = 5.0
"""Between two readings of our own keys that tokens with unknown ones cause."""
POLL_S: Final = 15.0
AGAIN_S: Final = 1.0

Listener = Callable[[Callable[[Identity], bool]], None]
"""Is called after a revocation, with what says whether an identity is revoked."""

_log = logging.getLogger("esplanade.gateway.credentials")


class Credentials:
    """`heard` is told whose credentials count. Without a `store` there are tokens of ours alone, and nothing is revoked (tests of other things). `start` and `stop` in one loop."""

    def __init__(
        self,
        verifier: Verifier,
        clock: SystemClock,
        metrics: GatewayMetrics,
        *,
        store: IdentityStore | None = None,
        catalogue: Catalogue | None = None,
        vault: Vault | None = None,
        keys: SigningKeys | None = None,
        issuers: Issuers | None = None,
        plans: Plans | None = None,
        heard: Heard | None = None,
    ) -> None:
        self._verifier = verifier
        self._clock = clock
        self._metrics = metrics
        self._store = store
        self._catalogue = catalogue
        self._vault = vault
        self._keys = keys
        self._issuers = issuers
        self._plans = plans
        self._heard = heard
        self._keys_read_at = -1e9
        self._held: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()  # identity, fresh until (monotonic)
        self._revoked: dict[tuple[str, RevocationKind, str], Revocation] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.listeners: list[Listener] = []

    # --- life ---

    async def start(self) -> None:
        """Read keys and revocations, then hear of more. Raises Unavailable."""
        if self._keys is not None:
            await self._read_keys()
        if self._store is not None:
            await self._read_revocations()
            self._tasks = [asyncio.ensure_future(self._listen(self._store)), asyncio.ensure_future(self._poll())]
        if self._heard is not None:
            self._heard.start()

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._heard is not None:
            await self._heard.stop()

    async def _listen(self, store: IdentityStore) -> None:
        while True:
            changes = store.changes()
            try:
                async for _ in changes:
                    await self._read_revocations()
            except EsplanadeError as error:
                _log.warning("revocations_unheard", extra={"error": error.message})
            finally:
                with contextlib.suppress(Exception):
                    await changes.aclose()  # type: ignore[attr-defined]
            await self._clock.sleep(AGAIN_S)

    async def _poll(self) -> None:
        while True:
            await self._clock.sleep(POLL_S)
            try:
                await self._read_revocations()
                if self._keys is not None:
                    await self._read_keys()
            except EsplanadeError as error:
                _log.warning("identities_unread", extra={"error": error.message})

    async def _read_revocations(self) -> None:
        assert self._store is not None
        now = self._clock.unix_ms()
        read = {(held.tenant, held.kind, held.what): held for held in await self._store.revocations(now)}
        news = [key for key, held in read.items() if self._revoked.get(key) != held]
        self._revoked = read
        if news:
            self._metrics.count("esplanade_gateway_revocations_total", len(news))
            for digest in [digest for digest, (identity, _) in self._held.items() if self.is_revoked(identity)]:
                del self._held[digest]
            for listener in self.listeners:
                listener(self.is_revoked)

    async def _read_keys(self) -> None:
        assert self._keys is not None
        self._keys_read_at = self._clock.monotonic_s()
        await self._keys.load()
        self._verifier.use(self._keys.verifying())

    # --- asking ---

    def is_revoked(self, identity: Identity) -> bool:
        """Whether the sign-in, the key or the person was revoked since it was issued."""
        revoked = self._revoked
        if not revoked:
            return False
        if identity.family and (identity.tenant, "family", identity.family) in revoked:
            return True
        if identity.key:
            return (identity.tenant, "key", identity.key) in revoked
        person = revoked.get((identity.tenant, "subject", str(identity.subject)))
        return person is not None and identity.issued_unix_s * 1000 <= person.at_ms

    def verify(self, credential: str) -> Identity:
        """The identity, from what is at hand. Raises BadToken; also for what `identify` must look at first.

        What `identify` answered a moment ago is at hand, even if it must be looked at again before the next time.
        """
        try:
            return self._in_force(self._at_hand(credential, slack_s=SLACK_S))
        except BadToken as error:
            self._metrics.count("esplanade_gateway_refused_tokens_total", label=error.reason)
            raise

    async def identify(self, credential: str) -> Identity:
        """The identity. Raises BadToken, saying which check failed; Unavailable where that cannot be known now."""
        try:
            return self._in_force(await self._identified(credential))
        except BadToken as error:
            self._metrics.count("esplanade_gateway_refused_tokens_total", label=error.reason)
            raise
        except Unavailable:
            self._metrics.count("esplanade_gateway_refused_tokens_total", label="unavailable")
            raise

    def _at_hand(self, credential: str, slack_s: float = 0.0) -> Identity:
        digest, now = digest_of(credential), self._clock.unix_ms() / 1000
        held = self._held.get(digest)
        if held is not None and held[1] + slack_s > self._clock.monotonic_s() and held[0].expires_unix_s > now - LEEWAY_S:
            return held[0]
        if credential.startswith(KEY_PREFIX):
            raise BadToken("key", "there is no API key with this secret that counts; ask for another")
        return self._verifier.verify(credential, now)

    async def _identified(self, credential: str) -> Identity:
        try:
            return self._at_hand(credential)
        except BadToken as error:
            if credential.startswith(KEY_PREFIX) and self._store is not None:
                return self._kept(credential, await self._key(self._store, credential), KEY_FRESH_S)
            if error.reason == "too_long":
                raise
            if self._issuers is not None and self._issuers.knows(credential):
                identity = await self._foreign(await self._issuers.verify(credential, self._clock.unix_ms() / 1000))
                return self._kept(credential, identity, FOREIGN_MAX_S)
            if error.reason == "unknown_key" and self._keys is not None and self._clock.monotonic_s() - self._keys_read_at >= REFETCH_KEYS_S:
                await self._read_keys()
                return self._at_hand(credential)
            raise

    def _kept(self, credential: str, identity: Identity, fresh_s: float) -> Identity:
        self._held[digest_of(credential)] = identity, self._clock.monotonic_s() + fresh_s
        if len(self._held) > MAX_KNOWN:
            self._held.popitem(last=False)
        return identity

    def _in_force(self, identity: Identity) -> Identity:
        """The identity, unless it is revoked, within what its tenant's plan includes."""
        if self.is_revoked(identity):
            raise BadToken("revoked", "what it came of was revoked; sign in again")
        if self._heard is not None:
            self._heard.note(identity)
        plan = None if self._plans is None else self._plans.of(identity.tenant)
        if plan is None or not plan.without:
            return identity
        scope = identity.scope or Scope()
        return replace(
            identity, scope=replace(scope, permissions=(GRANTED[identity.role] if scope.permissions is None else scope.permissions) - plan.without)
        )

    async def _key(self, store: IdentityStore, secret: str) -> Identity:
        now_ms = self._clock.unix_ms()
        key = await store.key_of(digest_of(secret), now_ms)
        if key is None:
            raise BadToken("key", "there is no API key with this secret that counts; ask for another")
        return identity_of(key, now_ms / 1000)

    async def _foreign(self, told: Foreign) -> Identity:
        if self._store is None or self._vault is None or self._catalogue is None:
            raise BadToken("issuer", "there is nowhere to look up who this is")
        digest, now_ms = self._vault.digest("account", told.issuer, told.name), self._clock.unix_ms()
        subject = await self._store.account(told.tenant, told.issuer, digest)
        if subject is None:
            try:
                subject = await self._store.link(told.tenant, told.issuer, digest, await self._catalogue.next_subject(told.tenant), now_ms)
            except NotFound as error:
                raise BadToken("tenant", error.message) from error
        expires = min(told.expires_unix_s, now_ms / 1000 + FOREIGN_MAX_S)
        return Identity(subject, told.tenant, told.role, None, expires, issued_unix_s=told.issued_unix_s, strong_unix_s=told.strong_unix_s)


def identity_of(key: ApiKey, now: float) -> Identity:
    """Who bears an API key, for a connection opened at `now` (Unix seconds)."""
    permissions = None if key.permissions is None else frozenset(cast("tuple[Permission, ...]", key.permissions))
    expires = now + KEY_SESSION_S if key.expires_ms is None else min(now + KEY_SESSION_S, key.expires_ms / 1000)
    scope = Scope(permissions, key.venue, key.unit)
    return Identity(key.subject, key.tenant, cast("Role", key.role), key.source, expires, scope=scope, key=key.id, issued_unix_s=now)
