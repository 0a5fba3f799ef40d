"""The keys that our own tokens are signed with: made, sealed, published and rotated. Every process of a deployment sees the same.

A new key is published PUBLISH_AHEAD_S before it signs, and one that no longer signs verifies for KEEP_S: no token is refused because of a rotation.
"""

from __future__ import annotations

from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from esplanade.core.clock import SystemClock
from esplanade.core.errors import Fault
from esplanade.storage.identity import IdentityStore, SigningKey
from esplanade.storage.sealing import Vault
from gateway.auth import Signer, base64url
from gateway.permissions import Role

PUBLISH_AHEAD_S: Final = 600.0
KEEP_S: Final = 2 * 86_400.0
"""Longer than any token that we issue lasts."""
ROTATE_S: Final = 30 * 86_400.0
"""Age at which the key that signs is replaced."""


class SigningKeys:
    """The keys as this process last read them. `load` first."""

    def __init__(self, store: IdentityStore, vault: Vault, clock: SystemClock) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._rows: list[SigningKey] = []
        self._signers: dict[str, Signer] = {}

    async def load(self) -> None:
        """Read the keys; the first process of a deployment makes one. Raises Unavailable; Fault where they are sealed by another master key."""
        rows = await self._store.signing_keys()
        if not rows:
            await self._store.add_signing_key(self._made(self._clock.unix_ms()), others_until_ms=None)
            rows = await self._store.signing_keys()
        self._signers = {row.kid: self._signers.get(row.kid) or self._opened(row) for row in rows}
        self._rows = rows

    async def rotate(self, *, now: bool = False) -> str:
        """Make the next key; returns its name. It signs in PUBLISH_AHEAD_S, or, with `now` (a key is known to strangers), at once, and the former ones verify no longer."""
        at = self._clock.unix_ms()
        row = self._made(at if now else at + round(PUBLISH_AHEAD_S * 1000))
        await self._store.add_signing_key(row, others_until_ms=at if now else row.signs_from_ms + round(KEEP_S * 1000))
        await self.load()
        return row.kid

    async def rotate_if_old(self) -> str | None:
        """The name of the next key, where the last one is older than ROTATE_S."""
        await self.load()
        return await self.rotate() if self._clock.unix_ms() - self._rows[-1].signs_from_ms > ROTATE_S * 1000 else None

    def _made(self, signs_from_ms: int) -> SigningKey:
        seed = self._vault.random(32)
        signer = Signer(seed)
        return SigningKey(signer.kid, signer.public_bytes, self._vault.seal(f"signing-key/{signer.kid}", seed), self._clock.unix_ms(), signs_from_ms)

    def _opened(self, row: SigningKey) -> Signer:
        signer = Signer(self._vault.open(f"signing-key/{row.kid}", row.sealed))
        if signer.kid != row.kid:
            raise Fault(f"signing key {row.kid}: its seed is another key's; remove the row and restart")
        return signer

    def verifying(self) -> dict[str, Ed25519PublicKey]:
        """The keys that count now, by name."""
        now = self._clock.unix_ms()
        return {row.kid: self._signers[row.kid].public_key for row in self._rows if row.verifies_until_ms is None or row.verifies_until_ms > now}

    def signer(self) -> Signer:
        """That of the newest key that signs already."""
        now = self._clock.unix_ms()
        counting = [row for row in self._rows if row.verifies_until_ms is None or row.verifies_until_ms > now]
        if not counting:
            raise Fault("there is no signing key: load() comes first")
        signing = [row for row in counting if row.signs_from_ms <= now] or counting[:1]
        return self._signers[signing[-1].kid]

    def seed(self) -> bytes:
        """Of the key that signs now; for processes of the deployment that make tokens of their own."""
        kid = self.signer().kid
        return self._vault.open(f"signing-key/{kid}", next(row.sealed for row in self._rows if row.kid == kid))

    def issue(
        self,
        subject: int,
        tenant: str,
        role: Role,
        source: str | None,
        ttl_s: float,
        now: float,
        *,
        family: str = "",
        strong_unix_s: float = 0.0,
    ) -> str:
        """As `Signer.issue`, with the key that signs now."""
        return self.signer().issue(subject, tenant, role, source, ttl_s, now, family=family, strong_unix_s=strong_unix_s)

    def jwks(self) -> dict[str, Any]:
        """What strangers need to check our tokens (RFC 7517, RFC 8037): public halves, those that will sign soon too."""
        return {
            "keys": [
                {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": base64url(key.public_bytes_raw())}
                for kid, key in self.verifying().items()
            ]
        }
