"""Tokens over HTTP: what each grant gives, and what a thief gets."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pyotp
import pytest

from esplanade.core.errors import InvalidInput, LimitExceeded, Unauthenticated
from gateway.auth import BadToken
from gateway.code_delivery import CodeMessage
from gateway.code_providers import SimulatedProvider
from gateway.sign_in import CODE_ATTEMPTS, CODE_S, CODES_PER_ADDRESS, CODES_WINDOW_S, LOCK_S, PASSWORD_FAILURES
from gateway.token_routes import AUTHORIZATION_S, CODE, EXCHANGE, GUEST, MAX_FORM_BYTES, SECOND_FACTOR
from gateway.tokens import ACCESS_S, challenge_of
from tests.gateway.identity_stage import CHEAP, Stage
from tests.gateway.mall import until

VERIFIER = "v" * 50
PASSWORD = "correct horse battery staple"
LOOPBACK = "http://127.0.0.1:49152/"


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.sign_in.PasswordHasher", lambda: CHEAP)


async def operator(stage: Stage, name: str = "ann", *, second_factor: bool = False) -> pyotp.TOTP | None:
    await stage.operators.add("demo", name, "operator", PASSWORD)
    if not second_factor:
        return None
    return pyotp.TOTP(parse_qs(urlsplit(await stage.operators.set_second_factor("demo", name)).query)["secret"][0])


def otp(stage: Stage, totp: pyotp.TOTP, steps: int = 0) -> str:
    return totp.generate_otp(stage.clock.unix_ms() // 30_000 + steps)


def request_of(**more: str) -> dict[str, str]:
    return {
        "response_type": "code", "client_id": "cli", "redirect_uri": LOOPBACK, "state": "s1", "code_challenge": challenge_of(VERIFIER), "code_challenge_method": "S256",
    } | more  # fmt: skip


async def authorize(stage: Stage, **more: str) -> httpx.Response:
    form = request_of(tenant="demo", name="ann", password=PASSWORD, otp="")
    return await stage.client.post("/v1/authorize", data=form | more)


async def code_of(stage: Stage, **more: str) -> str:
    reply = await authorize(stage, **more)
    assert reply.status_code == 303, reply.text
    answered = parse_qs(urlsplit(reply.headers["location"]).query)
    assert answered["state"] == ["s1"]
    return answered["code"][0]


async def redeem(stage: Stage, code: str, **more: str) -> httpx.Response:
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "client_id": "cli", "redirect_uri": LOOPBACK}
    return await stage.token(**form | more)


def refused(reply: httpx.Response, error: str, status: int = 400) -> str:
    assert (reply.status_code, reply.json()["error"]) == (status, error), reply.text
    assert reply.headers["cache-control"] == "no-store"
    return str(reply.json()["error_description"])


# --- refresh ------------------------------------------------------------------------------------------------------------


async def test_a_guest_gets_a_short_token_and_one_to_refresh_it(stage: Stage) -> None:
    reply = await stage.token(grant_type=GUEST, tenant="demo")
    assert reply.headers["cache-control"] == "no-store"
    first = reply.json()
    assert (first["token_type"], first["expires_in"], first["role"], first["tenant"]) == ("Bearer", ACCESS_S, "guest", "demo")
    identity = await stage.two.credentials.identify(first["access_token"])
    assert (identity.subject, identity.tenant) == (first["subject"], "demo")
    stage.clock.advance(ACCESS_S + 3)
    with pytest.raises(BadToken, match="expired"):
        await stage.two.credentials.identify(first["access_token"])
    second = (await stage.token(grant_type="refresh_token", refresh_token=first["refresh_token"])).json()
    assert second["subject"] == first["subject"]
    assert second["refresh_token"] != first["refresh_token"]
    await stage.two.credentials.identify(second["access_token"])


async def test_a_refresh_token_that_comes_twice_ends_the_sign_in_everywhere(stage: Stage) -> None:
    first = (await stage.token(grant_type=GUEST, tenant="demo")).json()
    thief = (await stage.token(grant_type="refresh_token", refresh_token=first["refresh_token"])).json()
    stolen = await stage.two.credentials.identify(thief["access_token"])
    assert "somebody else may have it" in refused(
        await stage.token(grant_type="refresh_token", refresh_token=first["refresh_token"]), "invalid_grant"
    )
    await until(lambda: stage.two.credentials.is_revoked(stolen))
    with pytest.raises(BadToken, match="revoked"):
        await stage.two.credentials.identify(thief["access_token"])
    refused(await stage.token(grant_type="refresh_token", refresh_token=thief["refresh_token"]), "invalid_grant")
    assert ("token.reused", f"guest:{first['subject']}", "revoked") in await stage.audited()


async def test_a_sign_in_can_be_ended_with_either_token(stage: Stage) -> None:
    for which in ("access_token", "refresh_token"):
        pair = (await stage.token(grant_type=GUEST, tenant="demo")).json()
        identity = await stage.two.credentials.identify(pair["access_token"])
        assert (await stage.client.post("/v1/revoke", data={"token": pair[which]})).status_code == 200
        await until(lambda identity=identity: stage.two.credentials.is_revoked(identity))  # type: ignore[misc]
        refused(await stage.token(grant_type="refresh_token", refresh_token=pair["refresh_token"]), "invalid_grant")
    assert (await stage.client.post("/v1/revoke", data={"token": "nonsense"})).status_code == 200, "which says nothing"


async def test_a_token_without_a_sign_in_can_be_exchanged_for_one_and_an_api_key_cannot(stage: Stage) -> None:
    loose = stage.one.keys.issue(7, "demo", "guest", None, 3600, stage.clock.unix_ms() / 1000)
    pair = (await stage.token(grant_type=EXCHANGE, subject_token=loose)).json()
    assert (pair["subject"], pair["role"]) == (7, "guest")
    await stage.key("esk_k1_a")
    refused(await stage.token(grant_type=EXCHANGE, subject_token="esk_k1_a"), "invalid_grant")
    refused(await stage.token(grant_type=EXCHANGE, subject_token=pair["access_token"]), "invalid_grant")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": ""}, "unsupported_grant_type"),
        ({"grant_type": "password", "username": "ann", "password": "x"}, "unsupported_grant_type"),
        ({"grant_type": "refresh_token"}, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": "esr_made_up"}, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "x" * 5000}, "invalid_grant"),
        ({"grant_type": GUEST}, "invalid_request"),
        ({"grant_type": GUEST, "tenant": "nobody"}, "invalid_request"),
        ({"grant_type": CODE, "request": "made up", "code": "123456"}, "invalid_grant"),
        ({"grant_type": SECOND_FACTOR, "access_token": "a.b.c", "code": "123456"}, "invalid_grant"),
        ({"grant_type": EXCHANGE, "subject_token": "a.b.c"}, "invalid_grant"),
        ({"grant_type": "authorization_code", "code": "x"}, "invalid_request"),
    ],
)
async def test_a_request_that_is_wrong_gets_the_error_that_the_standard_names(stage: Stage, form: dict[str, str], error: str) -> None:
    refused(await stage.token(**form), error)


async def test_a_form_that_is_none_is_refused(stage: Stage) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for body in (b"\xff=1", b"grant_type", b"a=1&a=2", b"&".join(b"n%d=1" % i for i in range(40))):
        refused(await stage.client.post("/v1/token", content=body, headers=headers), "invalid_request")
    refused(await stage.client.post("/v1/token", json={"grant_type": GUEST}), "invalid_request")
    refused(await stage.client.post("/v1/token", content=b"a=" + b"x" * MAX_FORM_BYTES, headers=headers), "invalid_request", 413)


# --- the code flow of operators -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cheap_hashes")
async def test_an_operator_signs_in_with_pkce(stage: Stage) -> None:
    await operator(stage)
    page = await stage.client.get("/v1/authorize", params=request_of())
    assert page.status_code == 200
    assert "form-action 'self' http://127.0.0.1:49152" in page.headers["content-security-policy"]
    pair = (await redeem(stage, await code_of(stage))).json()
    assert (pair["role"], pair["second_factor"]) == ("operator", False)
    assert (await stage.two.credentials.identify(pair["access_token"])).role == "operator"
    assert ("sign_in", f"operator:{pair['subject']}", "done") in await stage.audited()


@pytest.mark.usefixtures("cheap_hashes")
@pytest.mark.parametrize(
    "change", [{"code_verifier": "w" * 50}, {"code_verifier": "short"}, {"client_id": "console"}, {"redirect_uri": "http://127.0.0.1:1/"}]
)
async def test_a_code_that_was_caught_is_of_no_use_and_is_spent(stage: Stage, change: dict[str, str]) -> None:
    await operator(stage)
    code = await code_of(stage)
    refused(await redeem(stage, code, **change), "invalid_grant")
    refused(await redeem(stage, code), "invalid_grant")


@pytest.mark.usefixtures("cheap_hashes")
async def test_a_code_counts_once_and_for_a_minute(stage: Stage) -> None:
    await operator(stage)
    code = await code_of(stage)
    assert (await redeem(stage, code)).status_code == 200
    refused(await redeem(stage, code), "invalid_grant")
    late = await code_of(stage)
    stage.clock.advance(AUTHORIZATION_S)
    refused(await redeem(stage, late), "invalid_grant")


@pytest.mark.parametrize(
    "change",
    [
        {"redirect_uri": "https://evil.example/"},
        {"redirect_uri": "http://127.0.0.1:49152/elsewhere"},
        {"redirect_uri": "http://127.0.0.1:49152@evil.example/"},
        {"redirect_uri": "http://localhost:49152/"},
        {"client_id": "console"},
        {"client_id": "console", "redirect_uri": "http://127.0.0.1:7001/"},
        {"client_id": "unknown"},
        {"code_challenge_method": "plain"},
        {"code_challenge": "short"},
        {"response_type": "token"},
        {"state": "s" * 600},
    ],
)
async def test_an_authorization_request_that_leads_astray_is_refused_without_a_redirect(stage: Stage, change: dict[str, str]) -> None:
    for reply in (await stage.client.get("/v1/authorize", params=request_of(**change)), await authorize(stage, **change)):
        assert reply.status_code == 422
        assert "location" not in reply.headers


async def test_the_page_says_nothing_that_it_was_given_as_markup(stage: Stage) -> None:
    page = await stage.client.get("/v1/authorize", params=request_of(state='"><script>alert(1)</script>', tenant='"><b>'))
    assert "<script" not in page.text
    assert "<b>" not in page.text


async def test_another_page_cannot_post_the_form(stage: Stage) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        reply = await stage.client.post("/v1/authorize", data=request_of(tenant="demo", name="ann", password=PASSWORD), headers=headers)
        assert reply.status_code == 403


@pytest.mark.usefixtures("cheap_hashes")
async def test_the_console_returns_to_its_own_page(stage: Stage) -> None:
    await operator(stage)
    home = {"client_id": "console", "redirect_uri": "http://127.0.0.1:7000/"}
    code = await code_of(stage, **home)
    assert (await redeem(stage, code, **home)).status_code == 200


@pytest.mark.usefixtures("cheap_hashes")
async def test_what_was_wrong_is_not_said_and_costs_a_hash_for_nobody_too(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await operator(stage)
    await stage.operators.add("demo", "gone", "operator", PASSWORD)
    await stage.operators.change("demo", "gone", disabled=True)
    hashed: list[str] = []
    inner = stage.operator_desk._verify
    monkeypatch.setattr(stage.operator_desk, "_verify", lambda kept, password: (hashed.append(kept), inner(kept, password))[1])
    said = set()
    for more in ({"password": "wrong"}, {"name": "nobody"}, {"tenant": "other"}, {"name": "gone"}):
        reply = await authorize(stage, **more)
        assert reply.status_code == 401
        [alert] = re.findall(r"role=alert>(.*?)</p>", reply.text)
        said.add(alert)
    assert len(said) == 1
    assert len(hashed) == 4
    whys = {line.detail["why"] for line in [*await _lines(stage, "demo"), *await _lines(stage, "other")] if line.what == "sign_in"}
    assert whys == {"password", "no such operator", "disabled"}, "but the trail says it"


async def _lines(stage: Stage, tenant: str) -> list[Any]:
    await stage.audited(tenant)
    return await stage.log.lines(tenant)


@pytest.mark.usefixtures("cheap_hashes")
async def test_a_guesser_locks_the_name_and_the_right_password_does_not_open_it(stage: Stage) -> None:
    await operator(stage)
    for _ in range(PASSWORD_FAILURES):
        assert (await authorize(stage, password="wrong")).status_code == 401
    assert (await authorize(stage)).status_code == 401
    stage.clock.advance(LOCK_S)
    assert (await authorize(stage)).status_code == 303


@pytest.mark.usefixtures("cheap_hashes")
async def test_a_second_factor_is_demanded_counts_once_and_bears_a_slow_clock(stage: Stage) -> None:
    totp = await operator(stage, second_factor=True)
    assert totp is not None
    for code in ("", "000000", otp(stage, totp, -2), otp(stage, totp, 2), "١٢٣٤٥٦"):
        assert (await authorize(stage, otp=code)).status_code == 401
        await stage.one.store.signed_in("demo", "ann")
    used = otp(stage, totp, -1)
    pair = (await redeem(stage, await code_of(stage, otp=used))).json()
    assert pair["second_factor"] is True
    assert (await stage.two.credentials.identify(pair["access_token"])).strong_unix_s == int(stage.clock.unix_ms() / 1000)
    assert (await authorize(stage, otp=used)).status_code == 401, "somebody may have looked over the shoulder"
    assert (await authorize(stage, otp=otp(stage, totp))).status_code == 303
    refreshed = (await stage.token(grant_type="refresh_token", refresh_token=pair["refresh_token"])).json()
    assert refreshed["second_factor"] is False, "a token that is refreshed for hours shows nothing of now"


@pytest.mark.usefixtures("cheap_hashes")
async def test_a_second_factor_can_be_shown_later(stage: Stage) -> None:
    totp = await operator(stage, second_factor=True)
    assert totp is not None
    pair = (await redeem(stage, await code_of(stage, otp=otp(stage, totp)))).json()
    stage.clock.advance(60)
    weak = (await stage.token(grant_type="refresh_token", refresh_token=pair["refresh_token"])).json()["access_token"]
    for _ in range(PASSWORD_FAILURES):
        refused(await stage.token(grant_type=SECOND_FACTOR, access_token=weak, code="000000"), "invalid_grant")
    refused(await stage.token(grant_type=SECOND_FACTOR, access_token=weak, code=otp(stage, totp)), "invalid_grant")  # locked
    stage.clock.advance(LOCK_S)
    weak = (await redeem(stage, await code_of(stage, otp=otp(stage, totp, -1)))).json()["access_token"]
    strong = (await stage.token(grant_type=SECOND_FACTOR, access_token=weak, code=otp(stage, totp))).json()
    assert strong["second_factor"] is True
    assert "refresh_token" not in strong
    one, other = await stage.two.credentials.identify(weak), await stage.two.credentials.identify(strong["access_token"])
    assert one.same_person(other)
    assert one.family == other.family, "ending the sign-in ends both"
    assert ("second_factor", f"operator:{one.subject}", "done") in await stage.audited()


@pytest.mark.usefixtures("cheap_hashes")
async def test_passwords_have_a_least_length(stage: Stage) -> None:
    with pytest.raises(InvalidInput, match="12"):
        await stage.operators.add("demo", "bob", "operator", "short")
    held = await stage.one.store.operator("demo", "bob")
    assert held is None


# --- codes over SMS and e-mail ------------------------------------------------------------------------------------------


async def ask(stage: Stage, address: str = "+49 170 123-4567", channel: str = "sms", tenant: str = "demo") -> httpx.Response:
    return await stage.client.post("/v1/sign-in/code", json={"tenant": tenant, "channel": channel, "address": address})


async def sent(stage: Stage, n: int = 1) -> str:
    await until(lambda: len(stage.provider.sent) >= n)
    return stage.provider.sent[-1][2][:6]


async def test_who_reads_the_code_is_the_person_of_that_address_on_every_device(stage: Stage) -> None:
    subjects = []
    for n, address in enumerate(("+49 170 123-4567", "+491701234567"), 1):
        reply = await ask(stage, address)
        assert reply.status_code == 202
        pair = (await stage.token(grant_type=CODE, request=reply.json()["request"], code=await sent(stage, n))).json()
        subjects.append(pair["subject"])
        assert pair["role"] == "shopper"
    assert subjects[0] == subjects[1]
    reply = await ask(stage, "Ann@Example.org", "email")
    pair = (await stage.token(grant_type=CODE, request=reply.json()["request"], code=await sent(stage, 3))).json()
    assert pair["subject"] != subjects[0]


async def test_a_code_counts_once_for_a_while_and_for_few_guesses(stage: Stage) -> None:
    request = (await ask(stage)).json()["request"]
    code = await sent(stage)
    assert (await stage.token(grant_type=CODE, request=request, code=code)).status_code == 200
    refused(await stage.token(grant_type=CODE, request=request, code=code), "invalid_grant")
    request, late = (await ask(stage)).json()["request"], await sent(stage, 2)
    stage.clock.advance(CODE_S)
    refused(await stage.token(grant_type=CODE, request=request, code=late), "invalid_grant")
    request, right = (await ask(stage)).json()["request"], await sent(stage, 3)
    wrong = f"{(int(right) + 1) % 10**6:06d}"
    for _ in range(CODE_ATTEMPTS):
        refused(await stage.token(grant_type=CODE, request=request, code=wrong), "invalid_grant")
    refused(await stage.token(grant_type=CODE, request=request, code=right), "invalid_grant")


async def test_a_code_is_of_its_own_request_alone(stage: Stage) -> None:
    mine = (await ask(stage, "+491700000001")).json()["request"]
    code = await sent(stage)
    theirs = (await ask(stage, "+491700000002")).json()["request"]
    await sent(stage, 2)
    refused(await stage.token(grant_type=CODE, request=theirs, code=code), "invalid_grant")
    assert (await stage.token(grant_type=CODE, request=mine, code=code)).status_code == 200


async def test_it_says_the_same_whoever_is_asked_for(stage: Stage) -> None:
    known = await ask(stage)
    await stage.token(grant_type=CODE, request=known.json()["request"], code=await sent(stage))
    replies = [await ask(stage), await ask(stage, "+491709999999"), await ask(stage, tenant="nobody")]
    assert {(reply.status_code, frozenset(reply.json()), len(reply.json()["request"])) for reply in replies} == {
        (202, frozenset({"request", "expires_in"}), len(known.json()["request"]))
    }
    await sent(stage, 3)
    assert len(stage.provider.sent) == 3, "nothing is sent for a tenant that is none"


async def test_an_address_is_not_flooded(stage: Stage) -> None:
    for _ in range(CODES_PER_ADDRESS):
        assert (await ask(stage)).status_code == 202
    reply = await ask(stage, "+491701234567")
    assert reply.status_code == 429
    assert (await ask(stage, "+491701234568")).status_code == 202
    stage.clock.advance(CODES_WINDOW_S)
    assert (await ask(stage)).status_code == 202


@pytest.mark.parametrize(
    ("channel", "address"),
    [("sms", "12345678"), ("sms", "+0123456789"), ("sms", "+49170123456789012"), ("email", "ann"), ("email", "a@b"), ("email", "a@b.c\nBcc: x@y.zz"),
     ("email", "(1)ann@example.org"), ("email", "ann,bob@example.org"), ("email", "<ann@example.org>"), ("email", '"ann"@example.org'),
     ("sms", "ann@example.org"), ("pigeon", "+491701234567"), ("email", "a" * 400 + "@example.org")],
)  # fmt: skip
async def test_what_is_no_address_is_refused(stage: Stage, channel: str, address: str) -> None:
    assert (await ask(stage, address, channel)).status_code == 422
    assert not stage.provider.sent


async def test_an_address_is_kept_nowhere(stage: Stage) -> None:
    request = (await ask(stage)).json()["request"]
    await stage.token(grant_type=CODE, request=request, code=await sent(stage))
    await ask(stage)
    kept = repr((stage.shelf, await _lines(stage, "demo")))
    assert "1701234567" not in kept
    assert stage.provider.sent[-1][2][:6] not in kept


async def test_the_simulated_provider_writes_what_only_its_owner_reads(tmp_path: Any) -> None:
    file = tmp_path / "messages.jsonl"
    await SimulatedProvider(file).send(CodeMessage("m1", "sms", "+491701234567", "123456 is your code.", 0))
    assert file.stat().st_mode & 0o777 == 0o600
    assert "123456" in file.read_text()


# --- strangers ----------------------------------------------------------------------------------------------------------


async def test_strangers_are_limited_by_address_and_who_is_known_is_not() -> None:
    stage = Stage(per_address_min=30)
    await stage.start()
    token = stage.one.keys.issue(7, "demo", "shopper", None, 3600, stage.clock.unix_ms() / 1000)
    for _ in range(25):
        assert (await stage.client.get("/v1/venues", headers={"Authorization": f"Bearer {token}"})).status_code == 200
    for _ in range(15):
        assert (await stage.token(grant_type="refresh_token", refresh_token="esr_guess")).status_code == 400
    for _ in range(15):
        assert (await stage.client.get("/v1/venues", headers={"Authorization": "Bearer a.b.c"})).status_code == 401
    reply = await stage.token(grant_type="refresh_token", refresh_token="esr_guess")
    assert reply.status_code == 429
    assert reply.headers["retry-after"] == "60"
    assert (await stage.client.get("/healthz")).status_code == 200
    stage.clock.advance(4)
    assert (await stage.token(grant_type="refresh_token", refresh_token="esr_guess")).status_code == 400
    assert stage.one.metrics.value("esplanade_gateway_quota_refusals_total", "address") == 1
    await stage.stop()


async def test_our_keys_are_published_and_others_can_check_our_tokens(stage: Stage) -> None:
    document = (await stage.client.get("/.well-known/jwks.json")).json()
    assert not any("d" in key for key in document["keys"]), "no private half"
    token = (await stage.token(grant_type=GUEST, tenant="demo")).json()["access_token"]
    keys = jwt.PyJWKSet.from_dict(document)
    kid = jwt.get_unverified_header(token)["kid"]
    assert jwt.decode(token, keys[kid].key, algorithms=["EdDSA"], audience="esplanade", options={"verify_exp": False})["tenant"] == "demo"
    about = (await stage.client.get("/.well-known/oauth-authorization-server")).json()
    assert about["code_challenge_methods_supported"] == ["S256"]


@pytest.mark.usefixtures("cheap_hashes")
async def test_secrets_are_never_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    totp = await operator(stage, second_factor=True)
    assert totp is not None
    code = await code_of(stage, otp=otp(stage, totp))
    pair = (await redeem(stage, code)).json()
    await redeem(stage, code)
    await authorize(stage, password="a wrong password 1")
    await stage.token(grant_type="refresh_token", refresh_token=pair["refresh_token"])
    await stage.token(grant_type="refresh_token", refresh_token=pair["refresh_token"])
    await stage.key("esk_k1_secret")
    await stage.client.get("/v1/venues", headers={"Authorization": "Bearer esk_k1_secret"})
    await stage.client.get("/v1/venues", headers={"Authorization": "Bearer esk_k1_wrong"})
    await ask(stage)
    sms = await sent(stage)
    secrets = [
        code,
        *(pair[name] for name in ("access_token", "refresh_token")),
        PASSWORD,
        "a wrong password 1",
        totp.secret,
        "esk_k1_secret",
        "esk_k1_wrong",
        sms,
    ]
    lines = repr([*await _lines(stage, "demo"), *await _lines(stage, "-")])
    told = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    for secret in secrets:
        assert secret not in told
        assert secret not in lines
    assert "sign_in" in lines


async def test_more_passwords_than_can_be_hashed_are_refused_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.sign_in.MAX_HASHING", 0)
    with pytest.raises(LimitExceeded):
        await stage.operator_desk.check("demo", "ann", PASSWORD, "", origin="")
    monkeypatch.undo()
    with pytest.raises(Unauthenticated):
        await stage.operator_desk.check("demo", "ann", PASSWORD, "", origin="")
