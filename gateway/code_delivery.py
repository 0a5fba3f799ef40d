"""Sign-in codes on their way to a provider: taken at once, tried a few times, given up in the end.

Owns the waiting lines, one a channel, so that a mail server that hangs holds up no SMS. What becomes of one message is said to nobody who asks for a code: that would tell a stranger about the address. That
a provider is away is said to everybody alike, before anything about the address is looked at. Addresses and codes stand in no log, metric or line of the audit trail.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import msgspec

from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, Forbidden, LimitExceeded, Unavailable
from gateway.audit_trail import AuditTrail
from gateway.metrics import GatewayMetrics

Channel = Literal["sms", "email"]
CHANNELS: Final[tuple[Channel, ...]] = ("sms", "email")
Answer = Literal["sent", "later", "never"]
"""Of a provider about one message: it has it; it does not take it for this address now; it never will."""

MAX_WAITING: Final = 100
"""Messages of a channel on their way to its provider; more are refused."""
AT_ONCE: Final = 4
"""Of these, how many a provider is given at the same time."""
PAUSES_S: Final = (2.0, 8.0, 30.0)
"""After the first try that failed, the second, ...; after the one behind the last, a message is given up."""
TRY_S: Final = 10.0
"""For one try, whatever the provider does."""
MESSAGE_S: Final = 120.0
"""For a message with all its tries: a code that comes later than that is not waited for."""
FAILURES: Final = 3
"""Tries in a row, of any messages, that found the provider away: from then on nobody is promised a code for REST_S, and again after each further one."""
REST_S: Final = 15.0

_log = logging.getLogger("esplanade.gateway.codes")


class CodeMessage(msgspec.Struct, frozen=True):
    """A text for an address. `id`: the same at every try, so that a provider can tell a repetition."""

    id: str
    channel: Channel
    address: str
    text: str
    unix_ms: int


class CodeSender(Protocol):
    """A provider of messages, for one channel or several."""

    async def send(self, message: CodeMessage) -> Answer:
        """Hand a message over. Raises Unavailable where the provider is away or does not know us, in words that name neither address nor code nor a secret."""
        ...

    async def close(self) -> None: ...


@dataclass
class _Line:
    sender: CodeSender
    turns: asyncio.Semaphore
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    failures: int = 0
    rests_until_s: float = float("-inf")


class CodeCourier:
    """Carries messages to the sender of their channel; a channel without one is off. `stop` ends what is under way and closes the senders."""

    def __init__(self, senders: Mapping[Channel, CodeSender], *, clock: SystemClock, metrics: GatewayMetrics, audit: AuditTrail | None) -> None:
        self._lines = {channel: _Line(sender, asyncio.Semaphore(AT_ONCE)) for channel, sender in senders.items()}
        self._clock = clock
        self._metrics = metrics
        self._audit = audit
        self._stopping = False

    def check(self, channel: Channel) -> None:
        """Whether a code can be promised now; the same for every address. Raises Forbidden for a channel that is off, Unavailable, LimitExceeded."""
        line = self._lines.get(channel)
        if line is None:
            on = " or ".join(sorted(self._lines))
            raise Forbidden(
                f"codes over {channel} are off here (docs/security.md#codes): {f'ask for one over {on}' if on else 'sign in another way'}"
            )
        rest_s = line.rests_until_s - self._clock.monotonic_s()
        if rest_s > 0:
            others = " or ".join(sorted(set(self._lines) - {channel}))
            raise Unavailable(
                f"codes over {channel} cannot be sent at the moment: ask again in {max(1, round(rest_s))} s{f', or for one over {others}' if others else ''}"
            )
        if len(line.tasks) >= MAX_WAITING:
            raise LimitExceeded(f"{MAX_WAITING} codes over {channel} wait for the provider: ask again in a minute")

    def send(self, message: CodeMessage, *, tenant: str, origin: str) -> None:
        """Take a message. `origin`: where it was asked for. Raises as `check`."""
        self.check(message.channel)
        line = self._lines[message.channel]
        task = asyncio.ensure_future(self._carry(line, message, tenant, origin))
        line.tasks.add(task)
        task.add_done_callback(line.tasks.discard)

    async def stop(self) -> None:
        """Idempotent."""
        self._stopping = True
        tasks = [task for line in self._lines.values() for task in line.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sender in {id(line.sender): line.sender for line in self._lines.values()}.values():
            await sender.close()

    async def _carry(self, line: _Line, message: CodeMessage, tenant: str, origin: str) -> None:
        began_s, tries, end, why = self._clock.monotonic_s(), 0, "stopped", ""
        try:
            async with asyncio.timeout(MESSAGE_S):
                for pause_s in (*PAUSES_S, None):
                    async with line.turns:
                        tries += 1
                        answer, why = await self._try(line, message)
                    if answer != "later":
                        end = "refused" if answer == "never" else answer
                        return
                    if self._stopping:  # cancelled, and a library has swallowed that (asyncio.wait_for does, before Python 3.12)
                        return
                    if pause_s is None or self._clock.monotonic_s() - began_s + pause_s > MESSAGE_S:
                        end = "given_up"
                        return
                    self._metrics.count("esplanade_gateway_codes_total", label=f"{message.channel}_retried")
                    await self._clock.sleep(pause_s)
        except TimeoutError:
            end, why = "given_up", f"not sent within {MESSAGE_S:.0f} s"
        finally:
            self._ended(message, tenant, origin, end, tries, why)

    def _ended(self, message: CodeMessage, tenant: str, origin: str, end: str, tries: int, why: str) -> None:
        self._metrics.count("esplanade_gateway_codes_total", label=f"{message.channel}_{end}")
        if end != "sent":
            _log.warning("code_not_sent", extra={"channel": message.channel, "end": end, "tries": tries, "why": why})
        if self._audit is None:
            return
        if end == "sent":
            self._audit.note(tenant=tenant, who="unknown", what="code.send", target=message.channel, origin=origin, detail={"tries": tries})
        else:
            self._audit.refused(tenant=tenant, who="unknown", what="code.send", target=message.channel, origin=origin, outcome=end, why=why)

    async def _try(self, line: _Line, message: CodeMessage) -> tuple[Answer | Literal["failed"], str]:
        """(what became of it, why)."""
        try:
            async with asyncio.timeout(TRY_S):
                answer = await line.sender.send(message)
        except EsplanadeError as error:
            why = error.message
        except TimeoutError:
            why = f"no answer within {TRY_S:.0f} s"
        except Exception as error:  # ours, and of this message: were it counted, an address that brings it about would close the channel. Its words might hold the address
            why = f"{type(error).__name__} in {type(line.sender).__name__}"
            _log.error("code_sender_failed", extra={"error": why, "where": "".join(traceback.format_tb(error.__traceback__))})
            return "failed", why
        else:
            if line.failures >= FAILURES:
                _log.warning("codes_are_sent_again", extra={"channel": message.channel})
            line.failures, line.rests_until_s = 0, float("-inf")
            return answer, "" if answer == "sent" else "the provider does not take it for this address"
        line.failures += 1
        if line.failures >= FAILURES:
            line.rests_until_s = self._clock.monotonic_s() + REST_S
            if line.failures == FAILURES:
                _log.error("codes_cannot_be_sent", extra={"channel": message.channel, "why": why})
        return "later", why
