"""Who a connection is: EdDSA tokens in, an `Identity` out; and the topics, as clients name them. What it may do is `gateway.permissions`'.

Never reads a clock (the time is passed in) and never takes the tenant from anywhere but a verified token. Tokens of other issuers, API keys and revocations are
`gateway.credentials`'.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeGuard

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from esplanade.core.errors import InvalidInput, Unauthenticated
from esplanade.core.ids import check_name
from gateway.permissions import ROLES, Resource, Role, Scope, Topic, permits

AUDIENCE: Final = "esplanade"
ISSUER: Final = "esplanade"
LEEWAY_S: Final = 2.0
"""How far two machines' clocks may differ when a token is checked."""
MAX_TOKEN_CHARS: Final = 4096
MAX_KNOWN: Final = 20_000
"""Tokens known to have verified; beyond, the one longest unseen is forgotten."""

Reason = Literal[
    "too_long",
    "malformed",
    "algorithm",
    "unknown_key",
    "signature",
    "audience",
    "issuer",
    "tenant",
    "claims",
    "expired",
    "early",
    "revoked",
    "key",
    "unavailable",
]
"""Why a credential was refused: the label of a metric, and in the message."""


class BadToken(Unauthenticated):
    """A credential that was refused, and why."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"token refused ({reason}): {message}")
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class Identity:
    """What a verified credential says. `source`: rows of this connection count for that source of a driven venue.

    `scope`: of an API key, whose id is `key`. `family`: the sign-in that the token came of. `strong_unix_s`: when a second factor was last shown.
    """

    subject: int
    tenant: str
    role: Role
    source: str | None
    expires_unix_s: float
    scope: Scope | None = None
    key: str = ""
    family: str = ""
    issued_unix_s: float = 0.0
    strong_unix_s: float = 0.0

    @property
    def is_person(self) -> bool:
        """Whether somebody speaks for themself alone: no source of many, and no program with a key."""
        return self.role in ("guest", "shopper") and self.source is None and not self.key

    def may(self, operation: type | Resource, topic: Topic | None = None) -> bool:
        """`permits`, of this identity's role within its scope."""
        return permits(self.role, operation, topic, self.scope)

    def same_person(self, other: Identity) -> bool:
        """Whether a session may go on under the other: same subject, tenant, role, source and scope."""
        mine = (self.subject, self.tenant, self.role, self.source, self.scope, self.key)
        return mine == (other.subject, other.tenant, other.role, other.source, other.scope, other.key)


def thumbprint(public: bytes) -> str:
    """Name of an Ed25519 key, from its 32 bytes: RFC 7638 over the members that RFC 8037 names."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": base64url(public)}
    return base64url(hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer(Protocol):
    """What makes tokens: a `Signer`, or keys that rotate (`gateway.signing_keys`)."""

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
    ) -> str: ...


class Signer:
    """Issues tokens with one key. `seed`: 32 bytes, of an Ed25519 key."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise InvalidInput(f"signing key of {len(seed)} bytes: an Ed25519 seed has 32; remove the broken key and restart")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_bytes: Final = self._key.public_key().public_bytes_raw()
        self.kid: Final = thumbprint(self.public_bytes)

    @property
    def public_key(self) -> Ed25519PublicKey:
        return self._key.public_key()

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
        """A token for `subject` of `tenant`, good for `ttl_s` seconds from `now` (Unix seconds); of the sign-in `family`, with a second factor shown at `strong_unix_s`."""
        if not 0 <= subject < 2**32:
            raise InvalidInput(f"subject {subject}: must be 0 to 2**32 - 1")
        if role not in ROLES:
            raise InvalidInput(f"role {role!r}: must be one of {', '.join(ROLES)}")
        if ttl_s <= 0:
            raise InvalidInput(f"token lifetime {ttl_s} s: must be more than 0")
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(subject),
            "tenant": check_name(tenant, "tenant"),
            "role": role,
            "iat": round(now, 3),  # what is issued a moment after a revocation counts
            "exp": int(now + ttl_s),
        }
        if source is not None:
            claims["source"] = check_name(source, "source")
        if family:
            claims["sid"] = family
        if strong_unix_s:
            claims["strong"] = int(strong_unix_s)
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self.kid})


class Verifier:
    """Checks our own tokens against the keys that count now. EdDSA only: what the token's own header asks for is not believed.

    What verified once is known by its hash and only its expiry is checked again: after a reconnect storm everyone presents the token they had.
    """

    def __init__(self, keys: Ed25519PublicKey | Mapping[str, Ed25519PublicKey]) -> None:
        self._keys: dict[str, Ed25519PublicKey] = {thumbprint(keys.public_bytes_raw()): keys} if isinstance(keys, Ed25519PublicKey) else dict(keys)
        self._known: OrderedDict[bytes, Identity] = OrderedDict()

    def use(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        """From now on these keys count, and no others."""
        if self._keys.keys() - keys.keys():
            self._known.clear()  # some may be of a key that is gone
        self._keys = dict(keys)

    def verify(self, token: str, now: float) -> Identity:
        """The identity of a token at `now` (Unix seconds). Raises BadToken, saying which check failed."""
        digest = digest_of(token)
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
        head = header_of(token)
        kid = head.get("kid")
        key = self._keys.get(kid) if isinstance(kid, str) else next(iter(self._keys.values())) if kid is None and len(self._keys) == 1 else None
        if key is None:
            raise BadToken("unknown_key", f"key {str(kid)[:100]!r} is none of ours; sign in again for a new token")
        claims = decoded(token, key, ["EdDSA"], AUDIENCE)
        if claims.get("iss", ISSUER) != ISSUER:
            raise BadToken("issuer", f"issued by {str(claims['iss'])[:200]!r}, not by us; sign in again for a new token")
        expires, issued = check_times(claims, now)
        subject, tenant, role, source = claims["sub"], claims.get("tenant"), claims.get("role"), claims.get("source")
        family, strong = claims.get("sid", ""), claims.get("strong", 0)
        if not isinstance(subject, str) or not subject.isascii() or not subject.isdigit() or len(subject) > 10 or int(subject) >= 2**32:
            raise BadToken("claims", f"subject {subject!r}: must be a number below 2**32; sign in again for a new one")
        if role not in ROLES or not isinstance(tenant, str) or not (source is None or isinstance(source, str)):
            raise BadToken("claims", f"tenant {tenant!r}, role {role!r}, source {source!r}: not one of ours; sign in again for a new one")
        if not isinstance(family, str) or not is_number(strong):
            raise BadToken("claims", f"sid {family!r}, strong {strong!r}: not one of ours; sign in again for a new one")
        try:
            check_name(tenant, "tenant")
            if source is not None:
                check_name(source, "source")
        except InvalidInput as error:
            raise BadToken("claims", f"it is malformed: {error}") from error
        return Identity(int(subject), tenant, role, source, expires, family=family, issued_unix_s=issued, strong_unix_s=float(strong))


def digest_of(credential: str) -> bytes:
    """SHA-256 of a credential: what may be kept of it. Raises BadToken for one beyond MAX_TOKEN_CHARS."""
    if len(credential) > MAX_TOKEN_CHARS:
        raise BadToken("too_long", f"{len(credential)} characters: at most {MAX_TOKEN_CHARS}; ask for a new one")
    return hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()


def header_of(token: str) -> dict[str, Any]:
    """A token's header, of which nothing is believed but the key's name. Raises BadToken."""
    try:
        return jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise BadToken("malformed", f"{error}; sign in again for a new one") from error


def decoded(token: str, key: Any, algorithms: list[str], audience: str) -> dict[str, Any]:
    """The claims of a token that `key` signed for `audience`; times are still to be checked (`check_times`): PyJWT would read the machine's clock. Raises BadToken."""
    try:
        return jwt.decode(
            token,
            key,
            algorithms=algorithms,
            audience=audience,
            options={"verify_exp": False, "verify_iat": False, "verify_nbf": False, "require": ["exp", "sub", "aud"]},
        )
    except jwt.InvalidAlgorithmError as error:
        raise BadToken("algorithm", f"{error}; tokens are signed by {' or '.join(algorithms)}") from error
    except jwt.InvalidSignatureError as error:
        raise BadToken("signature", f"{error}; sign in again for a new one") from error
    except jwt.InvalidAudienceError as error:
        raise BadToken("audience", f"{error}; ask your issuer for a token with the audience {audience!r}") from error
    except jwt.MissingRequiredClaimError as error:
        raise BadToken("claims", f"{error}; sign in again for a new one") from error
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise BadToken("malformed", f"{error}; sign in again for a new one") from error


def check_times(claims: Mapping[str, Any], now: float) -> tuple[float, float]:
    """When the token expires and when it was issued (0: it does not say). Raises BadToken."""
    expires, issued, before = claims["exp"], claims.get("iat", 0), claims.get("nbf", 0)
    if not is_number(expires) or not is_number(issued) or not is_number(before):
        raise BadToken("claims", f"exp {expires!r}, iat {issued!r}, nbf {before!r}: must be numbers; sign in again for a new one")
    if not expires > now - LEEWAY_S:
        raise BadToken("expired", f"expired at {expires!r}, now is {int(now)}; sign in again for a new one")
    if max(issued, before) > now + LEEWAY_S:
        raise BadToken("early", f"good from {max(issued, before)!r} on, now is {int(now)}; set the clocks, or wait")
    return float(expires), float(issued)


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -(2**53) < value < 2**53


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
