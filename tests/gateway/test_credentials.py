"""Credentials: whose tokens are believed, by which keys, and how soon one that was revoked is refused everywhere."""

from __future__ import annotations

import ast
import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import hypothesis.strategies as st
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings

from esplanade.core.errors import InvalidInput, Unavailable
from esplanade.storage.identity import Revocation
from gateway import frames as f
from gateway import issuers, sign_in, tokens
from gateway.admission import PER_ADDRESS_MIN, Plan, Plans
from gateway.auth import BadToken, Identity, Reason, Signer, Verifier
from gateway.credentials import KEY_FRESH_S, POLL_S, REFETCH_KEYS_S, SLACK_S, Credentials
from gateway.issuers import Issuers, TrustedIssuer, fetched, keys_of
from gateway.metrics import GatewayMetrics
from gateway.permissions import ROLES, SECOND_FACTOR_ABOVE, SECOND_FACTOR_S, Scope, needs_second_factor, outside
from gateway.signing_keys import KEEP_S, PUBLISH_AHEAD_S, ROTATE_S
from gateway.token_routes import GRANTS
from tests.gateway.identity_stage import Stage
from tests.gateway.mall import until

NOW = 1_700_000_000
ISSUER, JWKS = "https://id.example", "https://id.example/keys"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = Ed25519PrivateKey.generate()
KEYS: dict[str, tuple[Any, str]] = {"r1": (RSA_KEY, "RS256"), "e1": (EC_KEY, "ES256"), "d1": (ED_KEY, "EdDSA")}
ALGORITHMS = {"RS256": jwt.algorithms.RSAAlgorithm, "ES256": jwt.algorithms.ECAlgorithm, "EdDSA": jwt.algorithms.OKPAlgorithm}
CLAIMS: dict[str, Any] = {"iss": ISSUER, "aud": "mall-app", "sub": "auth0|5f7c", "iat": NOW, "exp": NOW + 300}
TRUSTED = TrustedIssuer(issuer=ISSUER, audience="mall-app", jwks=JWKS, tenant="demo", role_claim="groups", roles={"ops": "operator"})


def jwk(kid: str, key: Any, algorithm: str, **more: Any) -> dict[str, Any]:
    return json.loads(ALGORITHMS[algorithm].to_jwk(key.public_key())) | {"kid": kid, "use": "sig"} | more


def jwks(*kids: str) -> bytes:
    return json.dumps({"keys": [jwk(kid, *KEYS[kid]) for kid in kids]}).encode()


def token(kid: str | None = "r1", *, key: Any = None, algorithm: str | None = None, **claims: Any) -> str:
    held, usual = KEYS.get(kid or "", (RSA_KEY, "RS256"))
    said = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    return jwt.encode(said, key or held, algorithm=algorithm or usual, headers={} if kid is None else {"kid": kid})


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage(TRUSTED, documents={JWKS: jwks("r1", "e1", "d1")})
    await made.start()
    yield made
    await made.stop()


# --- tokens of other issuers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kid", KEYS)
async def test_a_token_of_a_trusted_issuer_is_believed_whatever_it_is_signed_with(stage: Stage, kid: str) -> None:
    identity = await stage.one.credentials.identify(token(kid, groups=["staff", "ops"]))
    assert (identity.tenant, identity.role, identity.expires_unix_s) == ("demo", "operator", NOW + 300)
    assert identity.subject >= 2**30


async def test_somebody_is_the_same_subject_in_every_process_and_with_every_token(stage: Stage) -> None:
    first = await stage.one.credentials.identify(token())
    assert first.role == "shopper"
    assert (await stage.two.credentials.identify(token("e1", jti="2"))).subject == first.subject
    assert (await stage.one.credentials.identify(token(sub="auth0|other"))).subject != first.subject
    assert len(stage.asked) == 2, "one fetch a process"


async def test_what_was_identified_is_at_hand_afterwards(stage: Stage) -> None:
    with pytest.raises(BadToken):
        stage.one.credentials.verify(token())
    identity = await stage.one.credentials.identify(token())
    assert stage.one.credentials.verify(token()) == identity
    stage.clock.advance(303)
    with pytest.raises(BadToken, match="expired"):
        await stage.one.credentials.identify(token())


def none_token() -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none', 'kid': 'r1'})}.{part(CLAIMS)}."


def unhashable_token() -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=") for one in ({"alg": "RS256", "kid": "r1"}, CLAIMS | {"iss": [ISSUER]})]
    return b".".join([*parts, b"AAAA"]).decode()


def hmac_token() -> str:
    """Signed with the public key as if it were a shared secret: PyJWT itself refuses to make one."""
    pem = RSA_KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=") for one in ({"alg": "HS256", "kid": "r1"}, CLAIMS)]
    mark = base64.urlsafe_b64encode(hmac.digest(pem, b".".join(parts), hashlib.sha256)).rstrip(b"=")
    return b".".join([*parts, mark]).decode()


@pytest.mark.parametrize(
    ("reason", "made"),
    [
        ("algorithm", none_token),
        ("algorithm", hmac_token),
        ("algorithm", lambda: token("r1", algorithm="RS384")),
        ("algorithm", lambda: token("r1", key=EC_KEY, algorithm="ES256")),
        ("signature", lambda: token("r1", key=rsa.generate_private_key(65537, 2048))),
        ("audience", lambda: token(aud="another-app")),
        ("audience", lambda: token(aud=["mall-app", "another-app"], azp="another-app")),
        ("unknown_key", lambda: token("nobody", key=RSA_KEY, algorithm="RS256")),
        ("unknown_key", lambda: token(None)),
        ("unknown_key", lambda: token(iss="https://evil.example")),
        ("unknown_key", unhashable_token),
        ("expired", lambda: token(exp=NOW - 3)),
        ("early", lambda: token(nbf=NOW + 60)),
        ("early", lambda: token(iat=NOW + 60)),
        ("claims", lambda: token(sub="")),
        ("claims", lambda: token(sub="x" * 256)),
        ("claims", lambda: token(exp=None)),
        ("claims", lambda: token(exp=True)),
        ("too_long", lambda: token(note="x" * 5000)),
        ("malformed", lambda: "a.b.c"),
    ],
)
async def test_a_bad_token_is_refused_with_its_reason_and_counted(stage: Stage, reason: str, made: Any) -> None:
    await stage.one.credentials.identify(token())
    with pytest.raises(BadToken) as refused:
        await stage.one.credentials.identify(made())
    assert refused.value.reason == reason
    assert refused.value.code == "unauthenticated"
    assert stage.one.refused(reason) == 1
    reply = await stage.client.get("/v1/venues", headers={"Authorization": f"Bearer {made()}"})
    assert reply.status_code == 401
    assert f"({reason})" in reply.json()["detail"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
NAMED = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "b64", "crit", *CLAIMS, "tenant", "role", "source", "sid", "nbf", "azp", "auth_time"]), JSON, max_size=9
)


@given(
    header=NAMED,
    claims=NAMED,
    mark=st.binary(max_size=70),
    ours=st.sampled_from([{}, {"iss": ISSUER}, {"iss": ISSUER, "aud": "mall-app", "exp": NOW + 9}]),
    kid=st.sampled_from([None, "r1", "d1"]),
)
@settings(max_examples=80)
def test_whatever_a_token_holds_it_is_refused_as_a_bad_one(
    header: dict[str, Any], claims: dict[str, Any], mark: bytes, ours: dict[str, Any], kid: str | None
) -> None:
    head = header | ({"alg": "EdDSA", "kid": kid} if kid is not None else {})
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (json.dumps(head).encode(), json.dumps(claims | ours).encode(), mark)]

    async def present() -> None:
        made = Stage(TRUSTED, documents={JWKS: jwks("r1", "d1")})
        await made.one.keys.load()
        for text in (".".join(parts), ".".join(parts[:2]), parts[0]):
            with pytest.raises(BadToken):
                await made.one.credentials.identify(text)

    asyncio.run(present())


@given(signed=NAMED)
@settings(max_examples=60)
def test_whatever_a_trusted_issuer_signs_yields_an_identity_or_a_refusal(signed: dict[str, Any]) -> None:
    """The issuer's own claims may be of any shape, and are taken for nothing that they are not."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "EdDSA", "kid": "d1"}, CLAIMS | signed | {"iss": ISSUER})
    ]
    body = b".".join(parts)
    text = (body + b"." + base64.urlsafe_b64encode(ED_KEY.sign(body)).rstrip(b"=")).decode()

    async def present() -> None:
        made = Stage(TRUSTED, documents={JWKS: jwks("d1")})
        await made.catalogue.add_tenant("demo", "Demo")
        await made.one.keys.load()
        try:
            identity = await made.one.credentials.identify(text)
        except BadToken:
            return
        assert (identity.tenant, identity.role) == ("demo", "shopper")
        assert NOW - 2 < identity.expires_unix_s <= NOW + 3600

    asyncio.run(present())


async def test_an_issuer_speaks_for_its_own_tenants_alone() -> None:
    many = TrustedIssuer(
        issuer=ISSUER, audience="mall-app", jwks=JWKS, tenant_claim="org", tenants=("demo",), role_claim="groups", roles={}, default_role="none"
    )
    stage = Stage(many, TrustedIssuer(issuer="https://two.example", audience="a", jwks=JWKS, tenant="nobody"), documents={JWKS: jwks("r1")})
    await stage.start()
    for org in ("other", None, ["demo"], "../demo"):
        with pytest.raises(BadToken) as refused:
            await stage.one.credentials.identify(token(org=org))
        assert refused.value.reason == "tenant"
    with pytest.raises(BadToken, match="no role here"):
        await stage.one.credentials.identify(token(org="demo"))
    with pytest.raises(BadToken, match="tenant"):
        await stage.one.credentials.identify(token(iss="https://two.example", aud="a"))
    await stage.stop()


async def test_unknown_keys_cause_one_fetch_in_a_while_and_a_new_key_is_found(stage: Stage) -> None:
    stage.documents[JWKS] = jwks("r1")
    await stage.one.credentials.identify(token())
    new = ec.generate_private_key(ec.SECP256R1())
    for i in range(20):
        with pytest.raises(BadToken):
            await stage.one.credentials.identify(token(f"made-up-{i}", key=new, algorithm="ES256"))
    assert stage.issuers.sets[ISSUER].fetches == 1
    stage.documents[JWKS] = json.dumps({"keys": [jwk("new", new, "ES256")]}).encode()
    stage.clock.advance(issuers.REFETCH_S)
    assert (await stage.one.credentials.identify(token("new", key=new, algorithm="ES256"))).tenant == "demo"
    with pytest.raises(BadToken, match="unknown_key"):
        await stage.one.credentials.identify(token(jti="again"))  # the former key was taken out of the set
    assert stage.issuers.sets[ISSUER].fetches == 2


async def test_keys_that_cannot_be_fetched_again_count_for_a_day(stage: Stage) -> None:
    await stage.one.credentials.identify(token())
    del stage.documents[JWKS]
    stage.clock.advance(issuers.REFRESH_S + 1)
    later = NOW + 2 * 86_400
    await stage.one.credentials.identify(token(exp=later, jti="2"))
    stage.clock.advance(issuers.STALE_S)
    with pytest.raises(Unavailable):
        await stage.one.credentials.identify(token(exp=later, jti="3"))
    assert stage.one.refused("unavailable") == 1


async def test_without_an_address_of_keys_the_issuers_configuration_names_it() -> None:
    trusted = TrustedIssuer(issuer=ISSUER, audience="mall-app", tenant="demo")
    where = f"{ISSUER}/.well-known/openid-configuration"
    for configuration, good in [
        ({"issuer": ISSUER, "jwks_uri": JWKS}, True),
        ({"issuer": "https://other.example", "jwks_uri": JWKS}, False),
        ({"issuer": ISSUER, "jwks_uri": "http://id.example/keys"}, False),
    ]:
        stage = Stage(trusted, documents={where: json.dumps(configuration).encode(), JWKS: jwks("r1")})
        await stage.start()
        if good:
            assert (await stage.one.credentials.identify(token())).tenant == "demo"
        else:
            with pytest.raises(Unavailable):
                await stage.one.credentials.identify(token())
        await stage.stop()


async def test_while_a_key_set_is_fetched_nobody_is_turned_away() -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def slow(_: str) -> bytes:
        started.set()
        await go.wait()
        return jwks("r1")

    stage = Stage(TRUSTED)
    believed = Issuers([TRUSTED], stage.clock, slow)
    first = asyncio.create_task(believed.verify(token("r1"), NOW))
    await started.wait()
    second = asyncio.create_task(believed.verify(token("r1", sub="another"), NOW))
    await asyncio.sleep(0)
    go.set()
    assert {(await first).name, (await second).name} == {"auth0|5f7c", "another"}


def test_a_key_set_yields_strong_signing_keys_alone() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    entries = [
        jwk("good", RSA_KEY, "RS256"),
        jwk("weak", weak, "RS256"),
        jwk("encrypts", EC_KEY, "ES256", use="enc"),
        jwk("other curve", ec.generate_private_key(ec.SECP384R1()), "ES256"),
        jwk("other algorithm", RSA_KEY, "RS256", alg="RS512"),
        {"kid": "shared", "kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
        {"kid": "strange", "kty": "moon"},
        {"kty": "RSA"},
        "nonsense",
    ]
    assert set(keys_of(json.dumps({"keys": entries}).encode(), ("RS256", "ES256", "EdDSA"))) == {"good"}
    assert keys_of(jwks("r1", "e1", "d1"), ("ES256",)).keys() == {"e1"}
    for document in (
        b"",
        b"[]",
        b"{}",
        b'{"keys": 5}',
        b"[" * 100_000,
        b" " * (issuers.MAX_JWKS_BYTES + 1),
        json.dumps({"keys": [{}] * 65}).encode(),
    ):
        with pytest.raises(InvalidInput):
            keys_of(document, ("RS256",))


async def test_a_key_set_may_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(jwks("d1"))
    assert await fetched(str(file)) == jwks("d1")
    with pytest.raises(Unavailable):
        await fetched(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": None},
        {"tenant_claim": "org"},
        {"tenant": None, "tenant_claim": "org"},
        {"jwks": "http://id.example/keys"},
        {"jwks": "", "issuer": "http://id.example"},
        {"audience": ""},
        {"algorithms": ()},
    ],
)
def test_settings_of_an_issuer_that_leave_a_hole_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="issuer"):
        TrustedIssuer(**({"issuer": ISSUER, "audience": "a", "jwks": JWKS, "tenant": "demo"} | change))


async def test_a_second_factor_at_the_issuer_counts_here(stage: Stage) -> None:
    assert (await stage.one.credentials.identify(token(amr=["pwd", "otp"], auth_time=NOW - 5))).strong_unix_s == NOW - 5
    assert (await stage.one.credentials.identify(token(amr=["pwd"], auth_time=NOW - 5))).strong_unix_s == 0


# --- our own keys -------------------------------------------------------------------------------------------------------


async def test_keys_rotate_without_a_token_being_refused(stage: Stage) -> None:
    one, two = stage.one, stage.two

    def issue() -> str:
        return one.keys.issue(7, "demo", "shopper", None, 86_400, stage.clock.unix_ms() / 1000)

    former, before = one.keys.signer().kid, issue()
    kid = await one.keys.rotate()
    assert one.keys.signer().kid == former, "it is published before it signs"
    assert {key["kid"] for key in one.keys.jwks()["keys"]} == {former, kid}
    stage.clock.advance(PUBLISH_AHEAD_S)
    after = issue()
    assert jwt.get_unverified_header(after)["kid"] == kid
    stage.clock.advance(REFETCH_KEYS_S)
    for process in (one, two):  # the other hears of the key by the token that names it
        assert (await process.credentials.identify(after)).subject == 7
        assert (await process.credentials.identify(before)).subject == 7
    stage.clock.advance(KEEP_S)
    await one.credentials._read_keys()
    assert {key["kid"] for key in one.keys.jwks()["keys"]} == {kid}


async def test_a_key_that_strangers_have_is_replaced_at_once(stage: Stage) -> None:
    stolen = stage.one.keys.issue(7, "demo", "operator", None, 86_400, NOW)
    await stage.two.credentials.identify(stolen)
    await stage.one.keys.rotate(now=True)
    await stage.two.credentials._read_keys()
    with pytest.raises(BadToken, match="unknown_key"):
        await stage.two.credentials.identify(stolen)
    assert (await stage.two.credentials.identify(stage.one.keys.issue(7, "demo", "operator", None, 60, NOW))).subject == 7


async def test_an_old_key_is_replaced_by_the_house(stage: Stage) -> None:
    assert await stage.one.keys.rotate_if_old() is None
    stage.clock.advance(ROTATE_S + 1)
    assert await stage.one.keys.rotate_if_old() is not None
    assert await stage.two.keys.rotate_if_old() is None


async def test_seeds_are_kept_sealed(stage: Stage) -> None:
    [row] = await stage.one.store.signing_keys()
    assert stage.one.keys.seed() not in row.sealed
    assert Signer(stage.one.keys.seed()).kid == row.kid


# --- revocation ---------------------------------------------------------------------------------------------------------


async def test_what_is_revoked_is_refused_in_every_process_at_once(stage: Stage) -> None:
    pair = await stage.tokens.begin(7, "demo", "shopper", client="app", origin="")
    other = await stage.tokens.begin(7, "demo", "shopper", client="tablet", origin="")
    for process in (stage.one, stage.two):
        await process.credentials.identify(pair.access_token)
    assert await stage.tokens.revoke("family", "demo", pair.identity.family, who="operator:1", origin="")
    await until(lambda: stage.two.credentials.is_revoked(pair.identity) and stage.one.credentials.is_revoked(pair.identity))
    for process in (stage.one, stage.two):
        with pytest.raises(BadToken, match="revoked"):
            await process.credentials.identify(pair.access_token)
        assert process.refused("revoked") == 1
    assert (await stage.two.credentials.identify(other.access_token)).subject == 7, "the other device stays signed in"


async def test_a_person_is_revoked_with_all_that_they_hold_and_may_come_back(stage: Stage) -> None:
    pair = await stage.tokens.begin(7, "demo", "shopper", client="app", origin="")
    loose = stage.one.keys.issue(7, "demo", "shopper", None, 3600, NOW)  # of no family
    stranger = stage.one.keys.issue(7, "other", "shopper", None, 3600, NOW)
    stage.clock.advance(1)
    await stage.tokens.revoke("subject", "demo", "7", who="operator:1", origin="")
    await until(lambda: stage.two.credentials.is_revoked(pair.identity))
    for held in (pair.access_token, loose):
        with pytest.raises(BadToken, match="revoked"):
            await stage.two.credentials.identify(held)
    assert (await stage.two.credentials.identify(stranger)).tenant == "other"
    with pytest.raises(BadToken, match="ended"):
        await stage.tokens.refresh(pair.refresh_token, origin="")
    stage.clock.advance(0.01)  # within the same second: it was refused once, when tokens told whole seconds alone
    again = await stage.tokens.begin(7, "demo", "shopper", client="app", origin="")
    assert (await stage.two.credentials.identify(again.access_token)).subject == 7


async def test_a_listener_that_was_cut_off_reads_again_what_it_missed(stage: Stage) -> None:
    pair = await stage.tokens.begin(7, "demo", "shopper", client="app", origin="")
    listeners = list(stage.shelf.listeners)
    stage.shelf.lose_connections()
    await until(lambda: not set(map(id, stage.shelf.listeners)) & set(map(id, listeners)))
    now_ms = stage.clock.unix_ms()
    await stage.one.store.revoke(Revocation("demo", "family", pair.identity.family, now_ms, now_ms + 1_000_000))
    assert not stage.two.credentials.is_revoked(pair.identity), "nobody listens at the moment"
    for _ in range(5):
        await asyncio.sleep(0)
        stage.clock.advance(1.0)
    await until(lambda: stage.two.credentials.is_revoked(pair.identity))


# --- API keys -----------------------------------------------------------------------------------------------------------


async def test_an_api_key_is_who_its_row_says(stage: Stage) -> None:
    await stage.key("esk_k1_secret", venue="field", unit="stand-1")
    identity = await stage.two.credentials.identify("esk_k1_secret")
    assert (identity.subject, identity.tenant, identity.role, identity.key) == (9, "demo", "operator", "k1")
    assert identity.scope == Scope(frozenset({"wallets.read", "venue.read"}), "field", "stand-1")
    for wrong in ("esk_", "esk_k1_secret ", "esk_k1_Secret"):
        with pytest.raises(BadToken, match="key"):
            await stage.two.credentials.identify(wrong)
    assert stage.two.refused("key") == 3


async def test_a_revoked_key_is_refused_at_once_and_a_rotated_one_when_its_time_is_over(stage: Stage) -> None:
    await stage.key("esk_k1_a")
    for process in (stage.one, stage.two):
        await process.credentials.identify("esk_k1_a")
    now_ms = stage.clock.unix_ms()
    await stage.one.store.rotate_key("demo", "k1", hashlib.sha256(b"esk_k1_b").digest(), now_ms=now_ms, others_until_ms=now_ms + 3_600_000)
    for secret in ("esk_k1_a", "esk_k1_b"):
        assert (await stage.two.credentials.identify(secret)).key == "k1"
    stage.clock.advance(3600 + KEY_FRESH_S)
    with pytest.raises(BadToken, match="key"):
        await stage.two.credentials.identify("esk_k1_a")
    await stage.two.credentials.identify("esk_k1_b")
    stage.clock.advance(KEY_FRESH_S + SLACK_S / 2)
    assert stage.two.credentials.verify("esk_k1_b").key == "k1", "a request that is under way ends as it began"
    stage.clock.advance(SLACK_S)
    with pytest.raises(BadToken):
        stage.two.credentials.verify("esk_k1_b")
    held = await stage.two.credentials.identify("esk_k1_b")
    await stage.tokens.revoke("key", "demo", "k1", who="local", origin="")
    await until(lambda: stage.two.credentials.is_revoked(held))
    with pytest.raises(BadToken):
        await stage.two.credentials.identify("esk_k1_b")
    assert ("key.revoke", "local", "done") in await stage.audited()


async def test_what_a_plan_does_not_include_nobody_of_the_tenant_may(stage: Stage) -> None:
    plans = Plans({"small": Plan(requests_per_s=10, without=frozenset({"dots.read", "wallets.read"}))}, {"demo": "small"})
    credentials = Credentials(Verifier(stage.one.keys.verifying()), stage.clock, GatewayMetrics(), store=stage.one.store, plans=plans)
    await stage.key("esk_k1_a")
    operator = await credentials.identify(stage.one.keys.issue(7, "demo", "operator", None, 60, NOW))
    assert not operator.may(f.Subscribe, "dots")
    assert not operator.may(f.GetTill)
    assert operator.may(f.GetBooks)
    till = await credentials.identify("esk_k1_a")
    assert not till.may(f.GetTill)
    assert till.may(f.GetOffers)
    elsewhere = await credentials.identify(stage.one.keys.issue(7, "other", "operator", None, 60, NOW))
    assert elsewhere.may(f.Subscribe, "dots")


# --- what a scope confines ----------------------------------------------------------------------------------------------


def confined(scope: Scope) -> Identity:
    return Identity(9, "demo", "operator", None, NOW + 60.0, scope=scope, key="k1")


def test_a_key_may_what_its_role_and_its_scope_both_allow() -> None:
    identity = confined(Scope(frozenset({"wallets.read", "source.drive"})))
    assert identity.may(f.GetTill)
    assert not identity.may(f.Refund), "the role may, the key may not"
    assert not identity.may(f.Columns), "the key says so, the role may not"
    assert identity.may(f.Ping)
    assert not identity.may("GET /v1/profile")
    assert not identity.may(f.Subscribe, "dots")


def test_a_key_of_a_stand_stays_there() -> None:
    scope = Scope(None, "field", "stand-1")
    till = {"seq": 1, "venue": "field", "unit": "stand-1"}
    assert outside(scope, f.GetTill(**till)) is None
    assert outside(scope, f.GetTill(**till | {"unit": "stand-2"})) is not None
    assert outside(scope, f.GetTill(**till | {"venue": "parkside"})) is not None
    assert outside(scope, f.GetBooks(seq=1)) is not None
    assert outside(scope, f.GetOffers(seq=1, venue="field")) is None
    assert outside(scope, f.GetOffers(seq=1, venue="parkside")) is not None
    assert outside(scope, f.EndOffer(seq=1, venue="field", offer="o", tick=1)) is not None
    assert outside(scope, f.Refund(seq=1, key=b"k" * 16, subject=5, original=b"o" * 16, amount=5, currency="EUR", venue="field")) is not None
    assert outside(scope, f.Void(seq=1, venue="field", key=b"k" * 16, subject=5, hold=b"h" * 16, currency="EUR")) is None
    assert outside(scope, f.Ping(seq=1)) is None
    assert outside(scope, f.Subscribe(seq=1, topic="payments")) is not None
    assert outside(scope, f.Subscribe(seq=1, topic="venue/field/stats"), "field") is None
    assert outside(scope, f.Hello(client="till", token="x", venue="parkside")) is not None
    assert outside(scope, f.Hello(client="till", token="x")) is None


def test_a_second_factor_is_asked_of_operators_above_the_limit() -> None:
    refund = {"seq": 1, "key": b"k" * 16, "subject": 5, "original": b"o" * 16, "currency": "EUR"}
    assert not needs_second_factor("operator", f.Refund(**refund, amount=100_000))
    assert needs_second_factor("operator", f.Refund(**refund, amount=100_001))
    split = (60_000).to_bytes(4, "little") * 2
    top_ups = f.TopUps(seq=1, tick=1, key=b"k" * 32, subject=b"s" * 8, amount=split, currency="EUR")
    assert needs_second_factor("operator", top_ups), "in one frame together"
    assert not any(needs_second_factor(role, top_ups) for role in ROLES if role != "operator")


def test_nobody_asks_what_a_role_may_where_there_is_an_identity() -> None:
    """An API key's scope would be forgotten there: ask `Identity.may`."""
    for path in (Path(__file__).parents[2] / "gateway").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "permits" and node.args:
                asked = node.args[0]
                assert not (isinstance(asked, ast.Attribute) and asked.attr == "role") or path.name == "auth.py", f"{path.name}:{node.lineno}"


def test_the_page_says_what_the_code_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    for reason in get_args(Reason):
        assert f"`{reason}`" in page
    for grant in GRANTS:
        assert f"| `{grant}` |" in page
    for text in (f"({tokens.ACCESS_S:.0f} s)", f"more than {SECOND_FACTOR_ABOVE:,} minor units", f"Within {SECOND_FACTOR_S / 60:.0f} minutes",
                 f"every {POLL_S:.0f} s in any case", f"at most every {issuers.REFETCH_S:.0f} s", f"{PER_ADDRESS_MIN:,} a minute", f"replaced every {ROTATE_S / 86400:.0f} days",
                 f"{sign_in.HASHING} hashed at once, {sign_in.MAX_HASHING} waiting", f"with {sign_in.CODE_ATTEMPTS} attempts; {sign_in.CODES_PER_ADDRESS} are sent"):  # fmt: skip
        assert text in page, text
