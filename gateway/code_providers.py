"""Who takes sign-in codes to real people: a mail server (SMTP), an SMS gateway of the operator's own (a signed post), Twilio; and one that only writes them down.

Each owns how a message is handed over, and what its answers mean: about this address (`later`, `never`), or about us (Unavailable). What a provider says in words is read and dropped: it repeats addresses.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import ssl
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Final, Literal

import aiosmtplib
import httpx
import msgspec

from esplanade.core.errors import InvalidInput, Unavailable
from gateway.code_delivery import CHANNELS, TRY_S, Answer, Channel, CodeMessage, CodeSender
from gateway.webhooks import signature

SUBJECT: Final = "Your sign-in code"
TWILIO: Final = "https://api.twilio.com"
QUIT_S: Final = 2.0
"""For the goodbye to a mail server that has taken the message."""
OUR_FAULT: Final = frozenset({20003, 21212, 21601, 21603, 21659, 21660, 21661, 21701, 21704})
"""Twilio's codes within HTTP 400 that are about the account or the sender, and so about every message. Not 21606, which a number in another country can cause."""
MAX_ANSWER_BYTES: Final = 16 * 1024


class Smtp(msgspec.Struct, frozen=True, kw_only=True):
    """A mail server that takes our messages. `certificates`: file (PEM) of the authorities that may have signed its certificate; the system's without."""

    host: str
    sender: str
    port: int
    security: Literal["starttls", "tls"]
    username: str = ""
    password: str = ""
    certificates: str | None = None

    def __repr__(self) -> str:
        return f"Smtp({self.host}:{self.port}, {self.security}, {self.sender})"


class Sms(msgspec.Struct, frozen=True, kw_only=True):
    """`webhook`: `url`, and as `secret` the bytes that sign, in base64 behind whsec_. `twilio`: `account` (AC...), `key` (SK..., or the account itself) with its `secret`, and `sender`.

    `prefixes`, `per_hour`: as `CodeDesk` has them.
    """

    kind: Literal["webhook", "twilio"]
    url: str = ""
    account: str = ""
    key: str = ""
    sender: str = ""
    secret: str = ""
    certificates: str | None = None
    prefixes: tuple[str, ...] = ()
    per_hour: int | None = None

    def __repr__(self) -> str:
        return f"Sms({self.kind}, {self.url or self.account})"


def open_senders(*, smtp: Smtp | None, sms: Sms | None, simulated: Path | None) -> dict[Channel, CodeSender]:
    """The sender of each channel; `simulated`: file of those that have no provider, which without it are off. Raises InvalidInput."""
    senders: dict[Channel, CodeSender] = {}
    if simulated is not None:
        senders = dict.fromkeys(CHANNELS, SimulatedProvider(simulated))
    if smtp is not None:
        senders["email"] = SmtpProvider(smtp)
    if sms is not None:
        senders["sms"] = TwilioProvider(sms) if sms.kind == "twilio" else SignedPostProvider(sms)
    return senders


class SimulatedProvider:
    """Keeps messages instead of sending them: the newest in memory, and, where a file is given, all as lines of JSON that only its owner may read."""

    def __init__(self, file: Path | None = None, keep: int = 100) -> None:
        self._file = file
        self.sent: deque[tuple[Channel, str, str]] = deque(maxlen=keep)

    async def send(self, message: CodeMessage) -> Answer:
        self.sent.append((message.channel, message.address, message.text))
        if self._file is not None:
            line = json.dumps({"channel": message.channel, "to": message.address, "text": message.text}) + "\n"
            try:
                await asyncio.to_thread(self._write, self._file, line)
            except OSError as error:
                raise Unavailable(f"{self._file}: cannot be written ({error.strerror})") from error
        return "sent"

    @staticmethod
    def _write(file: Path, line: str) -> None:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as out:
            out.write(line)

    async def close(self) -> None:
        pass


class SmtpProvider:
    """One connection a message, encrypted before a password or an address is said, to the server whose certificate names `host`."""

    def __init__(self, smtp: Smtp) -> None:
        self._smtp = smtp
        self._tls = _trusting(smtp.certificates)
        name, self._from = parseaddr(smtp.sender)
        try:
            self._sender = Address(name, addr_spec=self._from)
        except (MessageError, ValueError, IndexError) as error:
            raise InvalidInput(f"smtp.sender {smtp.sender!r}: must be an address, as codes@mall.example or Mall <codes@mall.example>") from error
        self._domain = self._from.rpartition("@")[2]

    async def send(self, message: CodeMessage) -> Answer:
        smtp = self._smtp
        local, _, domain = message.address.rpartition("@")
        try:
            address = Address(username=local, domain=domain.encode("idna").decode())
            mail = self._mail(message, address)
        except (MessageError, ValueError, IndexError):
            return "never"  # no address that mail knows
        server = aiosmtplib.SMTP(
            hostname=smtp.host, port=smtp.port, username=smtp.username or None, password=smtp.password or None, local_hostname=self._domain, timeout=TRY_S,
            use_tls=smtp.security == "tls", start_tls=smtp.security == "starttls", tls_context=self._tls,
        )  # fmt: skip
        try:
            try:
                await server.connect()
            except (aiosmtplib.SMTPException, OSError, ValueError) as error:
                raise Unavailable(f"{smtp.host}:{smtp.port} does not let us in: {_reason(error)}") from error
            try:
                await server.send_message(mail, sender=self._from, recipients=[address.addr_spec])
            except aiosmtplib.SMTPRecipientsRefused as error:
                return _about(error.recipients[0].code)
            except aiosmtplib.SMTPDataError as error:
                return _about(error.code)
            except aiosmtplib.SMTPNotSupported:
                return "never"  # letters beyond ASCII in the address, and a server that has none
            except (aiosmtplib.SMTPException, OSError) as error:
                raise Unavailable(f"{smtp.host}:{smtp.port} does not take our message: {_reason(error)}") from error
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):  # it has the message
                await server.quit(timeout=QUIT_S)
            return "sent"
        finally:
            server.close()

    def _mail(self, message: CodeMessage, address: Address) -> EmailMessage:
        mail = EmailMessage()
        mail["From"] = self._sender
        mail["To"] = address
        mail["Subject"] = SUBJECT
        mail["Date"] = format_datetime(datetime.fromtimestamp(message.unix_ms / 1000, tz=UTC))
        mail["Message-ID"] = f"<{message.id}@{self._domain}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answer of a machine comes back
        mail.set_content(message.text + "\n")
        return mail

    async def close(self) -> None:
        pass


class SignedPostProvider:
    """POSTs {"type", "timestamp", "data": {"channel", "to", "text"}}, signed as Standard Webhooks says; `webhook-id` is the message's."""

    def __init__(self, sms: Sms) -> None:
        self._url = sms.url
        self._host = httpx.URL(sms.url).host
        self._secret = base64.b64decode(sms.secret.removeprefix("whsec_"))
        self._client = _client(sms.certificates)

    async def send(self, message: CodeMessage) -> Answer:
        unix_s = message.unix_ms // 1000
        body = json.dumps(
            {
                "type": "sign_in.code",
                "timestamp": datetime.fromtimestamp(unix_s, tz=UTC).isoformat(),
                "data": {"channel": message.channel, "to": message.address, "text": message.text},
            }
        ).encode()
        headers = {
            "content-type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(unix_s),
            "webhook-signature": signature(self._secret, message.id, unix_s, body),
        }
        status, _ = await _post(self._client, self._host, self._url, headers, body)
        if 200 <= status < 300:
            return "sent"
        if status in (400, 422):
            return "never"
        raise Unavailable(f"{self._host} answers HTTP {status}")

    async def close(self) -> None:
        await self._client.aclose()


class TwilioProvider:
    """Twilio's Messages resource (API 2010-04-01): a form with To, Body and From, or MessagingServiceSid where the sender is one (MG...)."""

    def __init__(self, sms: Sms) -> None:
        base = (sms.url or TWILIO).rstrip("/")
        self._url = f"{base}/2010-04-01/Accounts/{sms.account}/Messages.json"
        self._host = httpx.URL(base).host
        self._sender = {"MessagingServiceSid" if sms.sender.startswith("MG") else "From": sms.sender}
        self._client = _client(sms.certificates, auth=httpx.BasicAuth(sms.key or sms.account, sms.secret))

    async def send(self, message: CodeMessage) -> Answer:
        form = httpx.QueryParams({"To": message.address, "Body": message.text, **self._sender})
        status, body = await _post(self._client, self._host, self._url, {"content-type": "application/x-www-form-urlencoded"}, str(form).encode())
        if 200 <= status < 300:
            return "sent"
        code = _code(body)
        if status == 400 and code not in OUR_FAULT:
            return "never"
        raise Unavailable(f"{self._host} answers HTTP {status}{f', code {code}' if code else ''}")

    async def close(self) -> None:
        await self._client.aclose()


def _trusting(certificates: str | None) -> ssl.SSLContext:
    """Raises InvalidInput where the file is none."""
    try:
        context = ssl.create_default_context(cafile=certificates)
    except OSError as error:
        raise InvalidInput(f"certificates {certificates!r}: no file of certificates in PEM ({error.strerror or error})") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _client(certificates: str | None, auth: httpx.BasicAuth | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=_trusting(certificates), auth=auth, timeout=TRY_S, follow_redirects=False, trust_env=False)


async def _post(client: httpx.AsyncClient, host: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
    """(status, the beginning of the answer). Raises Unavailable where none comes."""
    said = b""
    try:
        async with client.stream("POST", url, headers={**headers, "accept-encoding": "identity"}, content=body) as answer:
            async for part in answer.aiter_raw():
                said += part
                if len(said) >= MAX_ANSWER_BYTES:
                    break
            return answer.status_code, said[:MAX_ANSWER_BYTES]
    except (httpx.HTTPError, OSError) as error:
        raise Unavailable(f"{host} does not answer: {_reason(error)}") from error


def _code(body: bytes) -> int:
    """Twilio's own code of an error; 0 where none is told."""
    try:
        return msgspec.json.decode(body, type=_TwilioError).code
    except msgspec.MsgspecError:
        return 0


class _TwilioError(msgspec.Struct):
    code: int = 0


def _about(smtp_code: int) -> Answer:
    """What a server says to one recipient: RFC 5321, 4.2.1: 4yz may be tried again, 5yz not."""
    return "later" if 400 <= smtp_code < 500 else "never"


def _reason(error: BaseException) -> str:
    """Kinds of errors and codes, without the server's words, which may repeat an address."""
    code = f" {error.code}" if isinstance(error, aiosmtplib.SMTPResponseException) else ""
    said = f"{type(error).__name__}{code}"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return said if cause is None else f"{said} ({cause.verify_message})"
