"""A mail server on loopback (aiosmtpd) that keeps what it is sent."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "codes", "correct horse battery"


@dataclass
class MailServer:
    """`answers`: to the next recipients; after them, 250. `encrypted`: for each mail, whether it came over TLS."""

    port: int = 0
    answers: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    data_answer: str = "250 taken"

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        self.asked.append(address)
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer.format(address=address)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        if self.data_answer.startswith("250"):
            self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
            self.encrypted.append(session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None)
        return self.data_answer


def _known(server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
    return AuthResult(success=given == LoginPassword(USER.encode(), PASSWORD.encode()), handled=False)


@asynccontextmanager
async def mail_server(tls: ssl.SSLContext | None, *, implicit: bool = False, port: int = 0) -> AsyncIterator[MailServer]:
    """With STARTTLS and a user; with TLS from the first byte (`implicit`), or without any, for everybody."""
    held, loop = MailServer(), asyncio.get_running_loop()

    def connection() -> SMTP:
        if tls is None or implicit:
            return SMTP(held, loop=loop, hostname="mail.test", enable_SMTPUTF8=True)
        return SMTP(
            held, loop=loop, hostname="mail.test", tls_context=tls, require_starttls=True, auth_required=True, authenticator=_known, enable_SMTPUTF8=True
        )  # fmt: skip

    server = await loop.create_server(connection, "127.0.0.1", port, ssl=tls if implicit else None)
    held.port = server.sockets[0].getsockname()[1]
    try:
        yield held
    finally:
        server.close()
        await server.wait_closed()
