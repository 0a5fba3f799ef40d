"""Sign-in codes reach a mail server over TLS and SMS providers over HTTP; what fails is tried again and ends, is said to all alike, and tells nobody an address."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from standardwebhooks.webhooks import Webhook

from esplanade.core.clock import ManualClock
from esplanade.core.errors import Forbidden, InvalidInput, LimitExceeded, Unavailable
from gateway import code_delivery
from gateway.api import serve_api
from gateway.code_delivery import FAILURES, MAX_WAITING, PAUSES_S, REST_S, Answer, Channel, CodeCourier, CodeMessage, CodeSender
from gateway.code_providers import SignedPostProvider, Sms, Smtp, SmtpProvider, TwilioProvider, open_senders
from gateway.metrics import GatewayMetrics
from gateway.sign_in import HOUR_S
from gateway.token_routes import CODE
from tests.gateway.certificates import certify
from tests.gateway.identity_stage import Stage
from tests.gateway.mail_server import PASSWORD, USER, MailServer, mail_server
from tests.gateway.mall import until
from tests.gateway.receiver import Receiver, receiving

ANN = "ann@example.org"
PHONE = "+491701234567"
KEY = base64.b64encode(bytes(range(32))).decode()
ACCOUNT = "AC" + "0" * 32


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certify(tmp_path_factory.mktemp("mail"), "mail", 1)


@pytest.fixture
def tls(chain: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*chain)
    return context


@pytest.fixture
async def server(tls: ssl.SSLContext) -> AsyncIterator[MailServer]:
    async with mail_server(tls) as running:
        yield running


@pytest.fixture
def to(chain: tuple[Path, Path]) -> Callable[..., SmtpProvider]:
    """The provider that posts to a mail server."""

    def made(port: int, **more: Any) -> SmtpProvider:
        given: dict[str, Any] = {
            "host": "127.0.0.1", "port": port, "sender": "Parkside <codes@mall.example>", "security": "starttls", "username": USER, "password": PASSWORD,
            "certificates": str(chain[0]),
        }  # fmt: skip
        return SmtpProvider(Smtp(**given | more))

    return made


@asynccontextmanager
async def stage_with(**senders: CodeSender) -> AsyncIterator[Stage]:
    stage = Stage()
    stage.senders = {channel: sender for channel, sender in senders.items() if channel in ("sms", "email")}  # type: ignore[misc]
    await stage.start()
    try:
        yield stage
    finally:
        await stage.stop()


async def ask(stage: Stage, address: str = ANN, channel: str = "email", tenant: str = "demo") -> httpx.Response:
    return await stage.client.post("/v1/sign-in/code", json={"tenant": tenant, "channel": channel, "address": address})


def counted(stage: Stage, outcome: str) -> float:
    return stage.one.metrics.value("esplanade_gateway_codes_total", outcome)


async def pauses(stage: Stage, outcome: str, n: int, address_s: float) -> None:
    """Wait for the n-th retry to be due, and let its pause pass."""
    await until(lambda: counted(stage, outcome) >= n and bool(stage.clock._sleepers))
    stage.clock.advance(address_s)


def message(n: int = 1, channel: Channel = "email", address: str = ANN) -> CodeMessage:
    return CodeMessage(f"m{n}", channel, address, "123456 is your code.", 1_700_000_000_000)


# --- e-mail ------------------------------------------------------------------------------------------------------------


async def test_a_code_comes_by_mail_over_tls_and_signs_its_reader_in(server: MailServer, to: Any) -> None:
    async with stage_with(email=to(server.port)) as stage:
        reply = await ask(stage, "Ann@Example.org")
        assert reply.status_code == 202
        await until(lambda: bool(server.mails))
        [mail] = server.mails
        assert server.asked == [ANN]
        assert server.encrypted == [True]
        assert (mail["From"], mail["To"], mail["Auto-Submitted"]) == ("Parkside <codes@mall.example>", ANN, "auto-generated")
        assert mail["Message-ID"].endswith("@mall.example>")
        assert mail["Date"].datetime.timestamp() == pytest.approx(stage.clock.unix_ms() / 1000, abs=1)
        pair = await stage.token(grant_type=CODE, request=reply.json()["request"], code=mail.get_content()[:6])
        assert pair.status_code == 200, pair.text
        assert counted(stage, "email_sent") == 1
        assert ("code.send", "unknown", "done") in await stage.audited()


async def test_a_mail_server_with_tls_from_the_first_byte(tls: ssl.SSLContext, to: Any) -> None:
    async with mail_server(tls, implicit=True) as server:
        assert await to(server.port, security="tls", username="", password="").send(message()) == "sent"
        assert (len(server.mails), server.encrypted) == (1, [True])


async def test_a_name_beyond_ascii_is_reached_where_the_server_can(server: MailServer, to: Any) -> None:
    assert await to(server.port).send(message(address="ann@münchen.example")) == "sent"
    assert await to(server.port).send(message(address="jürgen@münchen.example")) == "sent"
    assert server.asked == ["ann@xn--mnchen-3ya.example", "jürgen@xn--mnchen-3ya.example"]
    assert await to(server.port).send(message(address=f"ann@{'ü' * 70}.example")) == "never"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"password": "wrong"}, "SMTPAuthenticationError 535"),
        ({"certificates": None}, "self-signed certificate"),
        ({"security": "tls"}, "does not let us in"),
    ],
    ids=["password", "certificate", "no TLS there"],
)
async def test_a_server_that_is_not_ours_gets_no_mail(server: MailServer, to: Any, wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(Unavailable, match=why) as refused:
        await to(server.port, **wrong).send(message())
    assert not server.mails
    assert PASSWORD not in str(refused.value)


async def test_nothing_is_said_in_the_clear(to: Any) -> None:
    """A server without STARTTLS, or somebody in between who takes it out of the greeting."""
    async with mail_server(None) as server:
        with pytest.raises(Unavailable):
            await to(server.port).send(message())
        assert not server.asked


async def test_a_recipient_who_is_refused_is_not_tried_again_and_nobody_is_told(server: MailServer, to: Any, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    server.answers = ["550 5.1.1 <{address}>: no such user"]
    async with stage_with(email=to(server.port)) as stage:
        replies = [await ask(stage, "nobody@example.org")]
        await until(lambda: counted(stage, "email_refused") == 1)
        replies += [await ask(stage, "nobody@example.org"), await ask(stage)]
        assert {(reply.status_code, frozenset(reply.json())) for reply in replies} == {(202, frozenset({"request", "expires_in"}))}
        await until(lambda: len(server.mails) == 2)
        assert server.asked == ["nobody@example.org", "nobody@example.org", ANN]
        assert ("code.send", "unknown", "refused") in await stage.audited()
        lines = repr(await stage.log.lines("demo")) + "".join(
            repr(vars(record)) for record in caplog.records if record.name != "mail.log"
        )  # the server's
    assert "code_not_sent" in lines
    code = server.mails[-1].get_content()[:6]
    for secret in ("nobody@", ANN, PASSWORD, code):
        assert secret not in lines, secret


async def test_a_server_that_says_later_is_asked_again_with_the_same_message_and_then_no_more(server: MailServer, to: Any) -> None:
    async with stage_with(email=to(server.port)) as stage:
        server.answers = ["451 4.7.1 greylisted"]
        assert (await ask(stage)).status_code == 202
        await pauses(stage, "email_retried", 1, PAUSES_S[0])
        await until(lambda: counted(stage, "email_sent") == 1)
        server.answers = ["451 4.7.1 greylisted"] * 9
        assert (await ask(stage)).status_code == 202
        for n, pause_s in enumerate(PAUSES_S, 2):
            await pauses(stage, "email_retried", n, pause_s)
        await until(lambda: counted(stage, "email_given_up") == 1)
        assert len(server.asked) == 2 + len(PAUSES_S) + 1
        assert (await ask(stage, "bob@example.org")).status_code == 202, "one address that has to wait holds nobody up"


async def test_a_server_that_takes_no_such_text_is_not_asked_again(server: MailServer, to: Any) -> None:
    server.data_answer = "554 5.6.0 looks like spam"
    assert await to(server.port).send(message()) == "never"


# --- a provider that is away -------------------------------------------------------------------------------------------


async def test_while_a_provider_is_away_everybody_hears_it_and_no_quota_is_spent(tls: ssl.SSLContext, to: Any) -> None:
    async with mail_server(tls) as gone:
        port = gone.port
    async with receiving() as sms, stage_with(email=to(port), sms=posts(sms)) as stage:
        assert (await ask(stage)).status_code == 202
        for n, pause_s in enumerate(PAUSES_S[: FAILURES - 1], 1):
            await pauses(stage, "email_retried", n, pause_s)
        await until(lambda: counted(stage, "email_retried") == FAILURES)
        replies = [await ask(stage), await ask(stage, "new@example.org"), await ask(stage, tenant="nobody")]
        assert {(reply.status_code, reply.json()["code"], reply.json()["detail"]) for reply in replies} == {
            (503, "unavailable", f"codes over email cannot be sent at the moment: ask again in {REST_S:.0f} s, or for one over sms")
        }
        assert (await ask(stage, PHONE, "sms")).status_code == 202
        async with mail_server(tls, port=port) as back:
            stage.clock.advance(PAUSES_S[-1])
            await until(lambda: len(back.mails) == 1)
            await until(lambda: counted(stage, "email_sent") == 1)
            for _ in range(2):  # of three; the first was spent when all was well
                assert (await ask(stage)).status_code == 202
            assert (await ask(stage)).status_code == 429
            await until(lambda: len(back.mails) == 3)


async def test_a_server_that_never_answers_ends_a_try(to: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_delivery, "TRY_S", 0.05)
    silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with silent, stage_with(email=to(silent.sockets[0].getsockname()[1])) as stage:
        await ask(stage)
        for n, pause_s in enumerate(PAUSES_S, 1):
            await pauses(stage, "email_retried", n, pause_s)
        await until(lambda: counted(stage, "email_given_up") == 1)
        [line] = await stage_lines(stage)
        assert line == ("email", "given_up", "no answer within 0 s")


async def stage_lines(stage: Stage) -> list[tuple[str, str, Any]]:
    await stage.audited()
    return [(line.target, line.outcome, line.detail.get("why")) for line in await stage.log.lines("demo") if line.what == "code.send"]


class Waiting:
    """A provider that answers when it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.at_once = self.most = 0
        self.closed = False

    async def send(self, message: CodeMessage) -> Answer:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.let.wait()
        self.at_once -= 1
        return "sent"

    async def close(self) -> None:
        self.closed = True


def courier(**senders: CodeSender) -> tuple[CodeCourier, GatewayMetrics]:
    metrics = GatewayMetrics()
    return CodeCourier(senders, clock=ManualClock(), metrics=metrics, audit=None), metrics  # type: ignore[arg-type]


async def test_what_waits_has_a_limit_of_its_own_in_each_channel() -> None:
    slow, quick = Waiting(), Waiting()
    quick.let.set()
    held, metrics = courier(email=slow, sms=quick)
    for n in range(MAX_WAITING):
        held.send(message(n), tenant="demo", origin="")
    with pytest.raises(LimitExceeded, match="100 codes over email"):
        held.send(message(), tenant="demo", origin="")
    held.send(message(channel="sms"), tenant="demo", origin="")
    await until(lambda: metrics.value("esplanade_gateway_codes_total", "sms_sent") == 1)
    assert slow.most == code_delivery.AT_ONCE
    slow.let.set()
    await until(lambda: metrics.value("esplanade_gateway_codes_total", "email_sent") == MAX_WAITING)
    held.check("email")
    await held.stop()


async def test_who_stops_leaves_no_task_and_counts_what_was_not_sent() -> None:
    slow = Waiting()
    held, metrics = courier(email=slow)
    held.send(message(), tenant="demo", origin="")
    await until(lambda: slow.at_once == 1)
    await held.stop()
    assert slow.closed
    assert metrics.value("esplanade_gateway_codes_total", "email_stopped") == 1
    await held.stop()


class Broken:
    async def send(self, message: CodeMessage) -> Answer:
        raise RuntimeError(f"cannot send to {message.address}")

    async def close(self) -> None:
        pass


async def test_a_fault_of_a_provider_is_logged_without_its_words_and_closes_no_channel(caplog: Any) -> None:
    held, metrics = courier(email=Broken())
    for n in range(FAILURES + 1):
        held.send(message(n), tenant="demo", origin="")
    await until(lambda: metrics.value("esplanade_gateway_codes_total", "email_failed") == FAILURES + 1)
    held.check("email")
    said = "".join(repr(vars(record)) for record in caplog.records if record.name != "mail.log")  # the server's
    assert "RuntimeError in Broken" in said
    assert ANN not in said
    await held.stop()


async def test_a_channel_that_is_off_says_which_is_on() -> None:
    async with receiving() as sms, stage_with(sms=posts(sms)) as stage:
        reply = await ask(stage)
        assert (reply.status_code, reply.json()["code"]) == (403, "forbidden")
        assert "ask for one over sms" in reply.json()["detail"]
    held, _ = courier()
    with pytest.raises(Forbidden, match="sign in another way"):
        held.check("sms")


# --- SMS ---------------------------------------------------------------------------------------------------------------


def posts(receiver: Receiver) -> SignedPostProvider:
    return SignedPostProvider(Sms(kind="webhook", url=receiver.url, secret=f"whsec_{KEY}"))


async def test_a_signed_post_is_the_same_at_every_try() -> None:
    async with receiving() as server, stage_with(sms=posts(server)) as stage:
        server.answers = [503]
        reply = await ask(stage, "+49 170 123-4567", "sms")
        await pauses(stage, "sms_retried", 1, PAUSES_S[0])
        await until(lambda: counted(stage, "sms_sent") == 1)
        (first, body), (second, again) = server.got
        assert (first["webhook-id"], body) == (second["webhook-id"], again)
        [told, _] = server.bodies()
        assert told["type"] == "sign_in.code"
        assert (told["data"]["channel"], told["data"]["to"]) == ("sms", PHONE)
        pair = await stage.token(grant_type=CODE, request=reply.json()["request"], code=told["data"]["text"][:6])
        assert pair.status_code == 200


async def test_sms_go_where_they_may_and_no_more_than_a_tenant_pays_for_in_an_hour() -> None:
    stage = Stage()
    stage.sms = {"sms_prefixes": ("+49", "+43"), "sms_per_hour": 4}
    await stage.start()
    refused = await ask(stage, "+8821612345678", "sms")
    assert (refused.status_code, "begin with +49, +43" in refused.json()["detail"]) == (422, True)
    for n in range(4):
        assert (await ask(stage, f"+4917012345{n:02d}", "sms")).status_code == 202
    refused = await ask(stage, "+491701234599", "sms")
    assert (refused.status_code, "4 codes over sms" in refused.json()["detail"]) == (429, True)
    assert (await ask(stage, "+491701234598", "sms", tenant="other")).status_code == 202
    assert (await ask(stage)).status_code == 202, "mail costs nothing"
    stage.clock.advance(HOUR_S)
    assert (await ask(stage, "+491701234599", "sms")).status_code == 202
    await stage.stop()


async def test_whoever_has_the_key_can_check_who_sent_it() -> None:
    import time

    async with receiving() as server:
        now = CodeMessage("m1", "sms", PHONE, "123456 is your code.", time.time_ns() // 1_000_000)
        assert await posts(server).send(now) == "sent"
        headers, body = server.got[0]
        Webhook(f"whsec_{KEY}").verify(body, headers)  # the partner's library; raises where it does not fit
        with pytest.raises(Exception, match="No matching signature"):
            Webhook(f"whsec_{KEY}").verify(body + b" ", headers)


async def test_what_an_sms_gateway_says_of_a_number_and_what_of_us() -> None:
    sms = message(channel="sms", address=PHONE)
    async with receiving() as server:
        provider = posts(server)
        server.answers = [204, 200, 400, 422]
        assert [await provider.send(sms) for _ in range(4)] == ["sent", "sent", "never", "never"]
        for status in (302, 401, 404, 429, 500):
            server.answers = [status]
            with pytest.raises(Unavailable, match=f"127.0.0.1 answers HTTP {status}"):
                await provider.send(sms)
        assert len(server.got) == 9, "no redirect is followed"
    with pytest.raises(Unavailable, match=r"127.0.0.1 does not answer: \w+"):
        await provider.send(sms)
    await provider.close()


@dataclass
class Twilio:
    """A server that answers as Twilio's Messages resource does, and what it was posted: (path, authorization, form)."""

    url: str = ""
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    got: list[tuple[str, str, dict[str, list[str]]]] = field(default_factory=list)


@asynccontextmanager
async def twilio() -> AsyncIterator[Twilio]:
    app, held = FastAPI(), Twilio()

    @app.post("/{path:path}")
    async def take(request: Request, path: str) -> Response:
        held.got.append((path, request.headers["authorization"], parse_qs((await request.body()).decode(), strict_parsing=True)))
        status, answer = held.answers.pop(0) if held.answers else (201, {"sid": "SM1", "status": "queued"})
        return JSONResponse(answer, status)

    server = await serve_api(app)
    held.url = f"http://127.0.0.1:{server.port}"
    try:
        yield held
    finally:
        await server.stop()


async def test_twilio_gets_its_form_and_is_understood() -> None:
    sms = message(channel="sms", address=PHONE)
    async with twilio() as server:
        provider = TwilioProvider(Sms(kind="twilio", url=server.url, account=ACCOUNT, sender="+15005550006", secret="token"))
        assert await provider.send(sms) == "sent"
        [(path, authorization, form)] = server.got
        assert path == f"2010-04-01/Accounts/{ACCOUNT}/Messages.json"
        assert base64.b64decode(authorization.removeprefix("Basic ")).decode() == f"{ACCOUNT}:token"
        assert form == {"To": [PHONE], "From": ["+15005550006"], "Body": ["123456 is your code."]}
        for code in (21211, 21408, 21606, 21610, 21614):  # of the number
            server.answers = [(400, {"code": code, "message": f"The number {PHONE} ...", "status": 400})]
            assert await provider.send(sms) == "never"
        for status, code in ((401, 20003), (400, 21660), (429, 20429), (503, 0)):  # of us, or of themselves
            server.answers = [(status, {"code": code, "message": f"no, {PHONE}"})]
            with pytest.raises(Unavailable, match=f"HTTP {status}") as away:
                await provider.send(sms)
            assert PHONE not in str(away.value)
        await provider.close()

        key, service = "SK" + "1" * 32, "MG" + "2" * 32
        provider = TwilioProvider(Sms(kind="twilio", url=server.url, account=ACCOUNT, key=key, sender=service, secret="s"))
        assert await provider.send(sms) == "sent"
        _, authorization, form = server.got[-1]
        assert base64.b64decode(authorization.removeprefix("Basic ")).decode() == f"{key}:s"
        assert (form["MessagingServiceSid"], "From" in form) == ([service], False)
        await provider.close()


# --- which provider ----------------------------------------------------------------------------------------------------


def test_a_channel_without_a_provider_is_simulated_or_off(tmp_path: Path, chain: tuple[Path, Path]) -> None:
    smtp = Smtp(host="mail.example", port=587, sender="codes@mall.example", security="starttls")
    assert open_senders(smtp=None, sms=None, simulated=None) == {}
    assert set(open_senders(smtp=smtp, sms=None, simulated=None)) == {"email"}
    both = open_senders(smtp=smtp, sms=None, simulated=tmp_path / "messages.jsonl")
    assert [type(both[channel]).__name__ for channel in ("email", "sms")] == ["SmtpProvider", "SimulatedProvider"]
    with pytest.raises(InvalidInput, match=r"certificates .*nowhere.pem"):
        open_senders(smtp=Smtp(host="m", port=1, sender="a@b.c", security="tls", certificates="nowhere.pem"), sms=None, simulated=None)
