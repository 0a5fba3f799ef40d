"""Who a connection is: EdDSA tokens in, an `Identity` out; and the topics, as clients name them. What it may do is `gateway.permissions`'.

Never reads a clock (the time is passed in) and never takes the tenant from anywhere but a verified token.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from esplanade.core.errors import InvalidInput, Unauthenticated
from esplanade.core.ids import check_name
from gateway.permissions import ROLES, Role, Topic

AUDIENCE: Final = "esplanade"
SIGNING_KEY_NAME: Final = "token-signing-key"
"""Name of the secret in the catalogue: 32 bytes, the seed of the Ed25519 key."""
LEEWAY_S: Final = 2.0
"""How far two machines' clocks may differ when a token is checked."""
MAX_TOKEN_CHARS: Final = 4096
MAX_KNOWN: Final = 20_000
"""Tokens known to have verified; beyond, the one longest unseen is forgotten."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a verified token says. `source`: rows of this connection count for that source of a driven venue."""

    subject: int
    tenant: str
    role: Role
    source: str | None
    expires_unix_s: float


class Signer:
    """Issues tokens. `seed`: 32 bytes, as kept in the catalogue under SIGNING_KEY_NAME."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise InvalidInput(f"signing key of {len(seed)} bytes: an Ed25519 seed has 32; remove the broken secret {SIGNING_KEY_NAME!r} and restart")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def public_key(self) -> Ed25519PublicKey:
        return self._key.public_key()

    def issue(self, subject: int, tenant: str, role: Role, source: str | None, ttl_s: float, now: float) -> str:
        """A token for `subject` of `tenant`, good for `ttl_s` seconds from `now` (Unix seconds)."""
        if not 0 <= subject < 2**32:
            raise InvalidInput(f"subject {subject}: must be 0 to 2**32 - 1")
        if role not in ROLES:
            raise InvalidInput(f"role {role!r}: must be one of {', '.join(ROLES)}")
        if ttl_s <= 0:
            raise InvalidInput(f"token lifetime {ttl_s} s: must be more than 0")
        claims: dict[str, Any] = {
            "aud": AUDIENCE,
            "sub": str(subject),
            "tenant": check_name(tenant, "tenant"),
            "role": role,
            "iat": int(now),
            "exp": int(now + ttl_s),
        }
        if source is not None:
            claims["source"] = check_name(source, "source")
        return jwt.encode(claims, self._key, algorithm="EdDSA")


class Verifier:
    """Checks tokens against one public key. EdDSA only: what the token's own header asks for is not believed.

    What verified once is known by its hash and only its expiry is checked again: after a reconnect storm everyone presents the token they had.
    """

    def __init__(self, public_key: Ed25519PublicKey) -> None:
        self._key = public_key
        self._known: OrderedDict[bytes, Identity] = OrderedDict()

    def verify(self, token: str, now: float) -> Identity:
        """The identity of a token at `now` (Unix seconds). Raises Unauthenticated, saying which check failed."""
        if len(token) > MAX_TOKEN_CHARS:
            raise Unauthenticated(f"token of {len(token)} characters: at most {MAX_TOKEN_CHARS}; ask for a new one")
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._known.get(digest)
        if known is not None and known.expires_unix_s > now - LEEWAY_S:
            self._known.move_to_end(digest)
            return known
        identity = self._verified(token, now)
        self._known[digest] = identity
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return identity

    def _verified(self, token: str, now: float) -> Identity:
        try:
            # Expiry is checked below against the clock that was passed in; PyJWT would read the machine's.
            claims = jwt.decode(
                token,
                self._key,
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False, "require": ["exp", "sub", "aud"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise Unauthenticated(f"token does not verify: {error}; sign in again for a new one") from error
        subject, tenant, role, expires = claims["sub"], claims.get("tenant"), claims.get("role"), claims["exp"]
        source = claims.get("source")
        if not isinstance(expires, (int, float)) or isinstance(expires, bool) or not expires > now - LEEWAY_S:
            raise Unauthenticated(f"token expired at {expires!r}, now is {int(now)}; sign in again for a new one")
        if not isinstance(subject, str) or not subject.isascii() or not subject.isdigit() or len(subject) > 10 or int(subject) >= 2**32:
            raise Unauthenticated(f"token has subject {subject!r}: must be a number below 2**32; sign in again for a new one")
        if role not in ROLES or not isinstance(tenant, str) or not (source is None or isinstance(source, str)):
            raise Unauthenticated(f"token has tenant {tenant!r}, role {role!r}, source {source!r}: not one of ours; sign in again for a new one")
        try:
            check_name(tenant, "tenant")
            if source is not None:
                check_name(source, "source")
        except InvalidInput as error:
            raise Unauthenticated(f"token is malformed: {error}") from error
        return Identity(int(subject), tenant, role, source, float(expires))


# --- topics -----------------------------------------------------------------------------------------------------------

DURABLE: Final[frozenset[Topic]] = frozenset({"offers", "parking"})
"""Topics whose every publication arrives, and that can be resumed."""


@dataclass(frozen=True, slots=True)
class TopicName:
    """A topic as clients name it: `payments`, `venue/<venue>/<kind>`, `venue/<venue>/<kind>/<level>`, `venue/<venue>/zone/<zone>` or `venue/<venue>/<kind>/<scene>`."""

    kind: Topic
    venue: str | None
    level: int | None

    @classmethod
    def parse(cls, text: str) -> TopicName:
        """Raises InvalidInput for what is no topic."""
        if text == "payments":
            return cls("payments", None, None)
        parts = text.split("/")
        if len(parts) >= 3 and parts[0] == "venue":
            venue = check_name(parts[1], "venue")
            kind = parts[2]
            if len(parts) == 4 and kind in ("dots", "density") and parts[3].isascii() and parts[3].isdigit() and len(parts[3]) <= 3:
                level = int(parts[3])
                if level <= 254 and str(level) == parts[3]:
                    return cls("dots" if kind == "dots" else "density", venue, level)
            if len(parts) == 4 and kind == "zone":
                check_name(parts[3], "zone")
                return cls("zone", venue, None)
            if len(parts) == 4 and kind in ("scene", "presence"):
                check_name(parts[3], "scene")
                return cls("scene" if kind == "scene" else "presence", venue, None)
            if len(parts) == 3:
                for name in ("stats", "offers", "parking", "clock", "anchors"):
                    if kind == name:
                        return cls(name, venue, None)
        raise InvalidInput(
            f"topic {text[:160]!r}: topics are payments, venue/<venue>/stats, .../offers, .../parking, .../clock, .../anchors, "
            ".../dots/<level>, .../density/<level>, .../zone/<zone>, .../scene/<scene>, .../presence/<scene>"
        )
