"""Tokens of other issuers (OpenID Connect): whose are believed, by which keys, and what their claims mean here.

Owns the key sets: fetched over HTTPS or read from a file, bounded, kept, fetched again when a token names a key that is not known, at most once in REFETCH_S. An issuer
says who somebody is; tenants and roles are what the settings let it say. A key's own type decides the algorithm, never the token.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from esplanade.core.clock import SystemClock
from esplanade.core.errors import InvalidInput, Unavailable
from gateway.auth import BadToken, check_times, decoded, header_of, is_number
from gateway.permissions import ROLES, Role

Algorithm = Literal["RS256", "ES256", "EdDSA"]

REFETCH_S: Final = 30.0
"""Between two fetches that tokens with unknown keys cause: strangers can make up as many names as they like."""
REFRESH_S: Final = 600.0
"""A key set is fetched again after so long, so that a key that was taken out of it is."""
STALE_S: Final = 86_400.0
"""How long a key set that cannot be fetched again still counts."""
FETCH_TIMEOUT_S: Final = 5.0
MAX_JWKS_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 64
MIN_RSA_BITS: Final = 2048
MAX_SUB_CHARS: Final = 255
"""As OpenID Connect Core 1.0 has it, section 2."""

Fetch = Callable[[str], Awaitable[bytes]]


class TrustedIssuer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`issuer`: exactly as `iss` has it. `jwks`: an https address or a file; empty: what `<issuer>/.well-known/openid-configuration` names.

    `tenant`: the one tenant whose people it knows; or `tenant_claim`, whose value must be one of `tenants`. `role_claim`: the claim (a string or a list) whose first value found in
    `roles` decides; else `default_role`, and with "none" the token is refused. `acr`: values of `acr` or `amr` that mean a second factor was shown at `auth_time`.
    """

    issuer: str
    audience: str
    jwks: str = ""
    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")
    tenant: str | None = None
    tenant_claim: str | None = None
    tenants: tuple[str, ...] = ()
    role_claim: str | None = None
    roles: dict[str, Role] = msgspec.field(default_factory=dict)
    default_role: Role | Literal["none"] = "shopper"
    acr: tuple[str, ...] = ("mfa", "otp", "hwk")

    def __post_init__(self) -> None:
        if not self.issuer or (self.tenant is None) == (self.tenant_claim is None) or (self.tenant_claim is not None and not self.tenants):
            raise InvalidInput(f"issuer {self.issuer!r}: give it either `tenant`, or `tenant_claim` with the `tenants` that it may name")
        if self.jwks.startswith("http://") or (not self.jwks and not self.issuer.startswith("https://")):
            raise InvalidInput(f"issuer {self.issuer!r}: keys come over https or from a file; set `jwks` to one of them")
        if not self.audience or not self.algorithms or set(self.roles.values()) - set(ROLES):
            raise InvalidInput(f"issuer {self.issuer!r}: needs an audience, an algorithm, and roles among {', '.join(ROLES)}")


class Foreign(msgspec.Struct, frozen=True):
    """What another issuer says of somebody, mapped to what is ours. `name`: its `sub`."""

    issuer: str
    name: str
    tenant: str
    role: Role
    expires_unix_s: float
    issued_unix_s: float
    strong_unix_s: float


class KeySet:
    """The keys of one issuer."""

    def __init__(self, trusted: TrustedIssuer, fetch: Fetch, clock: SystemClock) -> None:
        self._trusted = trusted
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, tuple[Algorithm, Any]] = {}
        self._asked_at = -1e9
        self._fetched_at = -1e9
        self._turn = asyncio.Lock()
        self.fetches = 0

    async def key(self, kid: str) -> tuple[Algorithm, Any]:
        """The key of this name. Raises BadToken where there is none, Unavailable where there are no keys to look at."""
        now = self._clock.monotonic_s()
        if (kid not in self._keys or now - self._fetched_at > REFRESH_S) and now - self._asked_at >= REFETCH_S:
            await self._renewed()
        elif kid not in self._keys and self._turn.locked():
            async with self._turn:  # somebody asks already: what comes may have it
                pass
        if self._clock.monotonic_s() - self._fetched_at > STALE_S:
            raise Unavailable(f"the keys of {self._trusted.issuer} could not be fetched; try again in {REFETCH_S:.0f} s")
        held = self._keys.get(kid)
        if held is None:
            raise BadToken("unknown_key", f"{self._trusted.issuer} has no key {kid[:100]!r} that signs with {' or '.join(self._trusted.algorithms)}")
        return held

    async def _renewed(self) -> None:
        async with self._turn:
            if self._clock.monotonic_s() - self._asked_at < REFETCH_S:
                return  # somebody else just asked
            self._asked_at = self._clock.monotonic_s()
            self.fetches += 1
            try:
                document = await self._fetch(await self._address())
                self._keys = keys_of(document, self._trusted.algorithms)
                self._fetched_at = self._clock.monotonic_s()
            except (Unavailable, InvalidInput) as error:
                if not self._keys:
                    raise Unavailable(f"the keys of {self._trusted.issuer}: {error.message}") from error

    async def _address(self) -> str:
        if self._trusted.jwks:
            return self._trusted.jwks
        document = await self._fetch(f"{self._trusted.issuer.rstrip('/')}/.well-known/openid-configuration")
        try:
            found = json.loads(document)
        except ValueError as error:
            raise InvalidInput(f"its configuration is no JSON: {error}") from error
        if not isinstance(found, dict) or found.get("issuer") != self._trusted.issuer:
            raise InvalidInput("its configuration names another issuer")
        address = found.get("jwks_uri")
        if not isinstance(address, str) or not address.startswith("https://"):
            raise InvalidInput(f"its configuration has jwks_uri {str(address)[:200]!r}, which is no https address")
        return address


def keys_of(document: bytes, algorithms: Sequence[Algorithm]) -> dict[str, tuple[Algorithm, Any]]:
    """The public keys of a JWKS that sign with one of the algorithms, by name. Symmetric keys, weak ones and those for encryption are left out. Raises InvalidInput."""
    if len(document) > MAX_JWKS_BYTES:
        raise InvalidInput(f"key set of {len(document)} bytes: at most {MAX_JWKS_BYTES}")
    try:
        entries = json.loads(document)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput(f"key set is no JSON with `keys`: {type(error).__name__}") from error
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise InvalidInput(f"key set: `keys` must be a list of at most {MAX_KEYS}")
    found: dict[str, tuple[Algorithm, Any]] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str) or entry.get("use", "sig") != "sig" or entry.get("kty") == "oct":
            continue
        try:
            key = jwt.PyJWK(entry, algorithm=_algorithm_named(entry)).key
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue  # of a kind that we do not know: others of the set may still count
        algorithm = _algorithm_of(key)
        if algorithm is not None and algorithm in algorithms and entry.get("alg", algorithm) == algorithm:
            found[entry["kid"]] = (algorithm, key)
    return found


def _algorithm_named(entry: Mapping[str, Any]) -> str | None:
    return {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}.get(str(entry.get("kty")))


def _algorithm_of(key: object) -> Algorithm | None:
    """What a public key signs with here; None for one that must not be used."""
    if isinstance(key, RSAPublicKey):
        return "RS256" if key.key_size >= MIN_RSA_BITS else None
    if isinstance(key, EllipticCurvePublicKey):
        return "ES256" if isinstance(key.curve, SECP256R1) else None
    return "EdDSA" if isinstance(key, Ed25519PublicKey) else None


class Issuers:
    """The issuers that are believed, by `iss`."""

    def __init__(self, trusted: Sequence[TrustedIssuer], clock: SystemClock, fetch: Fetch | None = None) -> None:
        self._trusted = {one.issuer: one for one in trusted}
        self.sets = {one.issuer: KeySet(one, fetch or fetched, clock) for one in trusted}

    def knows(self, token: str) -> bool:
        """Whether a token says to come from one of them; nothing of it is believed yet."""
        if not self._trusted:
            return False
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, TypeError):
            return False
        issuer = claims.get("iss")
        return isinstance(issuer, str) and issuer in self._trusted

    async def verify(self, token: str, now: float) -> Foreign:
        """Raises BadToken, saying which check failed; Unavailable while the issuer's keys cannot be had."""
        issuer = jwt.decode(token, options={"verify_signature": False})["iss"]
        trusted = self._trusted[issuer]
        kid = header_of(token).get("kid")
        if not isinstance(kid, str):
            raise BadToken("unknown_key", "its header names no key (kid); have the issuer name one")
        algorithm, key = await self.sets[issuer].key(kid)
        claims = decoded(token, key, [algorithm], trusted.audience)
        if claims.get("iss") != issuer:
            raise BadToken("issuer", "issued by somebody else")
        if claims.get("azp", trusted.audience) != trusted.audience and isinstance(claims["aud"], list) and len(claims["aud"]) > 1:
            raise BadToken("audience", f"made for {str(claims['azp'])[:100]!r}; ask for one of your own")
        expires, issued = check_times(claims, now)
        name = claims["sub"]
        if not isinstance(name, str) or not 0 < len(name) <= MAX_SUB_CHARS:
            raise BadToken("claims", f"sub must be a string of 1 to {MAX_SUB_CHARS} characters")
        return Foreign(issuer, name, _tenant(trusted, claims), _role(trusted, claims), expires, issued, _strong(trusted, claims))


def _tenant(trusted: TrustedIssuer, claims: Mapping[str, Any]) -> str:
    if trusted.tenant is not None:
        return trusted.tenant
    assert trusted.tenant_claim is not None
    named = claims.get(trusted.tenant_claim)
    if not isinstance(named, str) or named not in trusted.tenants:
        raise BadToken("tenant", f"{trusted.tenant_claim} {str(named)[:100]!r}: not one of the tenants that {trusted.issuer} may speak for")
    return named


def _role(trusted: TrustedIssuer, claims: Mapping[str, Any]) -> Role:
    named = claims.get(trusted.role_claim) if trusted.role_claim is not None else None
    for value in named if isinstance(named, list) else [named]:
        if isinstance(value, str) and value in trusted.roles:
            return trusted.roles[value]
    if trusted.default_role == "none":
        raise BadToken(
            "claims", f"{trusted.role_claim} {str(named)[:100]!r} means no role here; have the issuer name one of {', '.join(trusted.roles)}"
        )
    return trusted.default_role


def _strong(trusted: TrustedIssuer, claims: Mapping[str, Any]) -> float:
    said, at = claims.get("amr"), claims.get("auth_time")
    values = {
        claims.get("acr") if isinstance(claims.get("acr"), str) else "",
        *(v for v in (said if isinstance(said, list) else []) if isinstance(v, str)),
    }
    return float(at) if values & set(trusted.acr) and is_number(at) else 0.0


async def fetched(address: str) -> bytes:
    """A small document over HTTPS, or a file. Follows no redirect. Raises Unavailable, InvalidInput for what is too big."""
    if not address.startswith("https://"):
        try:
            return await asyncio.to_thread(Path(address).read_bytes)
        except OSError as error:
            raise Unavailable(f"{address}: {error.strerror}") from error
    import httpx  # only where there is an issuer to ask

    try:
        async with httpx.AsyncClient(timeout=FETCH_TIMEOUT_S, follow_redirects=False) as client, client.stream("GET", address) as reply:
            if reply.status_code != 200:
                raise Unavailable(f"{address} answered {reply.status_code}")
            document = b""
            async for part in reply.aiter_bytes():
                document += part
                if len(document) > MAX_JWKS_BYTES:
                    raise InvalidInput(f"{address} has more than {MAX_JWKS_BYTES} bytes")
            return document
    except httpx.HTTPError as error:
        raise Unavailable(f"{address}: {type(error).__name__}") from error
