"""Who a connection is and what it may do: EdDSA tokens in, an `Identity` out, and the one table of permissions.

Never reads a clock (the time is passed in) and never takes the tenant from anywhere but a verified token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from esplanade.core.errors import InvalidInput, Unauthenticated
from esplanade.core.ids import check_name
from gateway import frames as f

Role = Literal["guest", "shopper", "feed", "operator", "engineer"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
AUDIENCE: Final = "esplanade"
SIGNING_KEY_NAME: Final = "token-signing-key"
"""Name of the secret in the catalogue: 32 bytes, the seed of the Ed25519 key."""
LEEWAY_S: Final = 2.0
"""How far two machines' clocks may differ when a token is checked."""
MAX_TOKEN_CHARS: Final = 4096


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
    """Checks tokens against one public key. EdDSA only: what the token's own header asks for is not believed."""

    def __init__(self, public_key: Ed25519PublicKey) -> None:
        self._key = public_key

    def verify(self, token: str, now: float) -> Identity:
        """The identity of a token at `now` (Unix seconds). Raises Unauthenticated, saying which check failed."""
        if len(token) > MAX_TOKEN_CHARS:
            raise Unauthenticated(f"token of {len(token)} characters: at most {MAX_TOKEN_CHARS}; ask for a new one")
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


# --- permissions ------------------------------------------------------------------------------------------------------

_EVERYONE: Final[frozenset[type]] = frozenset(
    {
        f.Hello, f.Ping, f.Subscribe, f.Unsubscribe, f.GetOffers, f.FindStores, f.Search, f.GetClock, f.Ack,
        f.GetRoute, f.GetIsochrone, f.GetAccess,
    }
)  # fmt: skip
_SHOPPER: Final = _EVERYONE | {f.WalkIn, f.Move, f.Leave, f.Pay, f.GetBalance, f.Transfer, f.GetStatement, f.Explain}

_TILL: Final[frozenset[type]] = frozenset({f.GetStatement, f.Refund, f.Hold, f.Post, f.Void, f.GetTill})

_MEASURES: Final[frozenset[type]] = frozenset({f.Measure, f.GetHeat, f.CompareParking})
_VENUE: Final[frozenset[type]] = (
    frozenset(
        {
            f.SetAccess,
            f.DrawZone,
            f.EraseZone,
            f.GetZones,
            f.SetTraits,
            f.Explain,
            f.CountGates,
            f.Recount,
            f.EditVenue,
            f.UndoEdit,
            f.RedoEdit,
            f.GetEdits,
        }
    )
    | _MEASURES
)
"""What an operator does to a venue beside its offers and bays."""

PERMITTED: Final[dict[Role, frozenset[type]]] = {
    "guest": _SHOPPER,
    "shopper": _SHOPPER,
    "feed": _EVERYONE | {f.SetTraits, f.CountGates, f.SetBays, f.OpenSource, f.CloseSource, f.Columns, f.Watermark, f.TopUps, f.Payments},
    "operator": _EVERYONE | {f.GetZone, f.CreateOffer, f.EndOffer, f.SetBays, f.GetBooks, f.TopUps} | _TILL | _VENUE,
    "engineer": _EVERYONE | {f.GetZone, f.GetZones, f.GetBooks} | _MEASURES,
}
"""Role -> frames it may send. The only place where this is said."""

Topic = Literal["dots", "density", "zone", "stats", "offers", "parking", "clock", "payments"]

_PUBLIC_TOPICS: Final[frozenset[Topic]] = frozenset({"density", "stats", "offers", "parking", "clock"})

READABLE: Final[dict[Role, frozenset[Topic]]] = {
    "guest": _PUBLIC_TOPICS,
    "shopper": _PUBLIC_TOPICS,
    "feed": _PUBLIC_TOPICS,
    "operator": _PUBLIC_TOPICS | {"dots", "zone", "payments"},
    "engineer": _PUBLIC_TOPICS | {"zone", "payments"},
}
"""Role -> topics it may subscribe to. Guests, shoppers and feeds get density and stats with small counts blanked (`gateway.hub`)."""

SEES_SMALL_COUNTS: Final[frozenset[Role]] = frozenset({"operator", "engineer"})


@dataclass(frozen=True, slots=True)
class TopicName:
    """A topic as clients name it: `payments`, `venue/<venue>/<kind>`, `venue/<venue>/<kind>/<level>` or `venue/<venue>/zone/<zone>`."""

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
            if len(parts) == 3:
                for name in ("stats", "offers", "parking", "clock"):
                    if kind == name:
                        return cls(name, venue, None)
        raise InvalidInput(
            f"topic {text[:160]!r}: topics are payments, venue/<venue>/stats, .../offers, .../parking, .../clock, .../dots/<level>, .../density/<level>, .../zone/<zone>"
        )


def permits(role: Role, frame: type, topic: TopicName | None = None) -> bool:
    """Whether a role may send this kind of frame; for Subscribe, whether it may read the topic too."""
    if frame not in PERMITTED[role]:
        return False
    return topic is None or topic.kind in READABLE[role]
