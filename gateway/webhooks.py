"""Webhooks out: what is published on durable topics, told to partners by HTTP, at least once and in order within a topic, signed (Standard Webhooks, v1).

Owns when a delivery is tried again and when it is given up; the records are `esplanade.storage.webhooks`', the publications the outbox's, the way out `gateway.outward`'s. A message has the same id
and body at every try. While one is tried again, those behind it in its topic wait. One that is given up becomes a dead letter, and until the partner takes something again, each of those behind it gets one try.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from standardwebhooks.webhooks import Webhook as Signature

from actors import topics as t
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, InvalidInput, NotFound
from esplanade.storage.journal import Journal, Published
from esplanade.storage.sealing import Random, Vault
from esplanade.storage.webhooks import Attempt, Cursor, DeadLetter, Outcome, Webhook, WebhookStore
from gateway import frames as f
from gateway.filters import Test, Where, check_where, matches
from gateway.metrics import GatewayMetrics
from gateway.outward import Outward
from gateway.permissions import Topic
from gateway.policies import FRAMES
from gateway.publications import frame_of

_log = logging.getLogger("esplanade.gateway.webhooks")

TYPES: Final[Mapping[str, Topic]] = {"offer.changed": "offers", "parking.changed": "parking", "anchors.changed": "anchors"}
"""Kinds of events, and the topic of the venue that carries each."""
BACKOFF_S: Final = (5.0, 20.0, 80.0, 320.0, 1280.0, 3600.0, 3600.0)
"""After the first try that failed, the second, ...; after the one behind the last, a message is given up: two and a half hours after it came."""
POLL_S: Final = 0.5
PAGE: Final = 50
"""Messages of a topic delivered before others get their turn."""
HOLD_S: Final = 60.0
"""Longer than any try takes."""
MAX_AT_ONCE: Final = 32
FORMER_S: Final = 86_400.0
"""After a rotation the former secret signs too, for so long."""
SECRET_BYTES: Final = 32
GONE: Final = 410
"""The partner wants no more of it: the webhook is disabled."""
MAX_ERROR_CHARS: Final = 300

_BODY: Final[msgspec.msgpack.Decoder[t.Body]] = msgspec.msgpack.Decoder(t.Body)


class Message(msgspec.Struct, frozen=True):
    """What a partner gets. `data`: the frame that readers of the topic get, without `op` and `place`."""

    type: str
    tenant: str
    topic: str
    place: f.Place
    data: Any


def topic_of(kind: str, venue: str) -> str:
    return f"venue/{venue}/{TYPES[kind]}"


def type_of(topic: str) -> str:
    return next(kind for kind, name in TYPES.items() if topic.endswith(f"/{name}"))


def parsed_where(text: str) -> tuple[Test, ...] | None:
    return msgspec.json.decode(text, type=Where) if text else None


def check_webhook_where(where: tuple[Test, ...], types: tuple[str, ...]) -> None:
    """Raises InvalidInput: a filter is about what every type of the webhook has."""
    for kind in types:
        check_where(where, FRAMES[TYPES[kind]])


def new_secret(random: Random) -> bytes:
    return random(SECRET_BYTES)


def told_secret(secret: bytes) -> str:
    """As partners are told it, once."""
    return "whsec_" + base64.b64encode(secret).decode()


def signature(secret: bytes, message: str, unix_s: int, body: bytes) -> str:
    return str(Signature(secret).sign(message, datetime.fromtimestamp(unix_s, tz=UTC), body.decode()))


def place_of_secret(tenant: str, webhook: str) -> str:
    return f"webhook/{tenant}/{webhook}"


def signed(webhook: Webhook, box: Vault, message: str, unix_ms: int, body: bytes) -> dict[str, str]:
    """The headers of a try."""
    place, unix_s = place_of_secret(webhook.tenant, webhook.id), unix_ms // 1000
    signatures = [signature(box.open(place, webhook.secret), message, unix_s, body)]
    if webhook.former and unix_ms < webhook.former_until_unix_ms:
        signatures.append(signature(box.open(place, webhook.former), message, unix_s, body))
    return {
        "content-type": "application/json",
        "user-agent": "Esplanade-Webhooks/1",
        "webhook-id": message,
        "webhook-timestamp": str(unix_s),
        "webhook-signature": " ".join(signatures),
    }


class WebhookCourier:
    """Delivers what webhooks are owed. `start` begins, `stop` ends; what is under way then is tried again by whoever delivers next."""

    def __init__(self, *, store: WebhookStore, journal: Journal, outward: Outward, box: Vault, clock: SystemClock, metrics: GatewayMetrics) -> None:
        self._store = store
        self._journal = journal
        self._outward = outward
        self._box = box
        self._clock = clock
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """Idempotent."""
        task, self._task = self._task, None
        tasks = [*self._under_way, *([task] if task is not None else [])]
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            room = MAX_AT_ONCE - len(self._under_way)
            try:
                if room > 0:
                    for webhook, cursor in await self._claim(room):
                        task = asyncio.ensure_future(self._attended(webhook, cursor))
                        self._under_way.add(task)
                        task.add_done_callback(self._under_way.discard)
            except EsplanadeError as error:
                _log.warning("webhooks_not_claimed", extra={"error": error.message})
            await asyncio.sleep(POLL_S)

    async def _claim(self, limit: int) -> list[tuple[Webhook, Cursor]]:
        return await self._store.claim(now_unix_ms=self._clock.unix_ms(), hold_ms=round(HOLD_S * 1000), limit=limit)

    async def turn(self) -> int:
        """Deliver what is due now, and return how many topics that was. For those who wait for it; `start` does the same over and over."""
        claims = await self._claim(MAX_AT_ONCE)
        await asyncio.gather(*(self._deliver(webhook, cursor) for webhook, cursor in claims))
        return len(claims)

    async def _attended(self, webhook: Webhook, cursor: Cursor) -> None:
        try:
            await self._deliver(webhook, cursor)
        except EsplanadeError as error:  # the database is away: the hold runs out, and it is claimed again
            _log.warning("delivery_postponed", extra={"webhook": webhook.id, "error": error.message})
        except Exception:
            _log.exception("delivery_failed", extra={"webhook": webhook.id, "topic": cursor.topic})

    async def _deliver(self, webhook: Webhook, held: Cursor) -> None:
        try:
            page = await self._journal.published(held.tenant, held.topic, epoch=held.epoch, after=held.offset, limit=PAGE)
        except NotFound as error:
            await self._skip(held, str(error))
            return
        if not page:
            epoch, _ = await self._journal.place(held.tenant, held.topic)
            if epoch > held.epoch:
                await self._store.settle(held, msgspec.structs.replace(held, epoch=epoch, offset=0, held_until_unix_ms=0))
            return
        where = parsed_where(webhook.where)
        for entry in page:
            last = entry is page[-1]
            next_held = await self._one(webhook, held, entry, where, last=last)
            if next_held is None:
                return
            held = next_held

    async def _skip(self, held: Cursor, error: str) -> None:
        """What comes next is no longer kept: go on where the topic is, and say so."""
        epoch, offset = await self._journal.place(held.tenant, held.topic)
        attempt = self._attempt(held, held.topic, held.epoch, held.offset + 1, status=0, outcome="lost", error=error)
        after = _moved(held, epoch, 0) if epoch > held.epoch else _moved(held, epoch, offset)  # a new epoch may be read from its start
        await self._store.settle(held, after, [attempt])
        self._metrics.count("esplanade_gateway_webhook_attempts_total", label="lost")

    async def _one(self, webhook: Webhook, held: Cursor, entry: Published, where: tuple[Test, ...] | None, *, last: bool) -> Cursor | None:
        """Deliver one; the cursor as it is held then, None where it is not any more."""
        now_ms = self._clock.unix_ms()
        hold = 0 if last else now_ms + round(HOLD_S * 1000)
        body = body_of(entry, where)
        if body is None:
            after = msgspec.structs.replace(_moved(held, entry.epoch, entry.offset), failing=held.failing, held_until_unix_ms=hold)
            return after if await self._store.settle(held, after) and not last else None
        status, error = await self._try(webhook, message_id(webhook, entry), body)
        if 200 <= status < 300:
            after = msgspec.structs.replace(_moved(held, entry.epoch, entry.offset), held_until_unix_ms=hold)
            attempt = self._attempt(held, entry.topic, entry.epoch, entry.offset, status=status, outcome="delivered")
            self._metrics.count("esplanade_gateway_webhook_attempts_total", label="delivered")
            return after if await self._store.settle(held, after, [attempt]) and not last else None
        given_up = held.failing or held.attempts >= len(BACKOFF_S) or status == GONE
        outcome: Outcome = "dead" if given_up else "failed"
        self._metrics.count("esplanade_gateway_webhook_attempts_total", label=outcome)
        attempt = self._attempt(held, entry.topic, entry.epoch, entry.offset, status=status, outcome=outcome, error=error)
        if not given_up:
            due = self._clock.unix_ms() + round(BACKOFF_S[held.attempts] * 1000)
            later = msgspec.structs.replace(held, attempts=held.attempts + 1, due_unix_ms=due, held_until_unix_ms=0)
            await self._store.settle(held, later, [attempt])
            return None
        letter = DeadLetter(message=attempt.message, type=attempt.type, body=body, at_unix_ms=now_ms, attempts=held.attempts + 1, error=error)
        after = msgspec.structs.replace(_moved(held, entry.epoch, entry.offset), failing=True, held_until_unix_ms=hold)
        settled = await self._store.settle(held, after, [attempt], letter)
        if status == GONE:
            with contextlib.suppress(NotFound):  # removed meanwhile
                await self._store.change(msgspec.structs.replace(await self._store.webhook(webhook.tenant, webhook.id), enabled=False))
            return None
        return after if settled and not last else None

    async def _try(self, webhook: Webhook, message: str, body: bytes) -> tuple[int, str]:
        """(status, what is wrong with it); status 0 where there was no answer."""
        try:
            status = await self._outward.post(webhook.url, signed(webhook, self._box, message, self._clock.unix_ms(), body), body)
        except EsplanadeError as error:
            return 0, error.message[:MAX_ERROR_CHARS]
        return status, "" if 200 <= status < 300 else f"HTTP {status}"

    def _attempt(self, held: Cursor, topic: str, epoch: int, offset: int, *, status: int, outcome: Outcome, error: str = "") -> Attempt:
        kind = type_of(topic)
        return Attempt(
            message=f"{held.webhook}.{kind}.{epoch}.{offset}", topic=topic, epoch=epoch, offset=offset, type=kind, at_unix_ms=self._clock.unix_ms(),
            attempt=held.attempts + 1, status=status, outcome=outcome, error=error[:MAX_ERROR_CHARS],
        )  # fmt: skip

    async def replay(self, webhook: Webhook, letter: DeadLetter) -> Attempt:
        """Try a dead letter again, now and out of order; with success it is one no more. Raises Unavailable where that cannot be written."""
        status, error = await self._try(webhook, letter.message, letter.body)
        message = msgspec.json.decode(letter.body, type=Message)
        done = 200 <= status < 300
        attempt = Attempt(
            message=letter.message, topic=message.topic, epoch=message.place.epoch, offset=message.place.offset, type=letter.type, at_unix_ms=self._clock.unix_ms(),
            attempt=letter.attempts + 1, status=status, outcome="replayed" if done else "dead", error=error,
        )  # fmt: skip
        await self._store.revive(webhook.tenant, webhook.id, attempt, gone=done)
        self._metrics.count("esplanade_gateway_webhook_attempts_total", label=attempt.outcome)
        return attempt


def message_id(webhook: Webhook, entry: Published) -> str:
    """The same at every try, so that a partner can tell a repetition."""
    return f"{webhook.id}.{type_of(entry.topic)}.{entry.epoch}.{entry.offset}"


def body_of(entry: Published, where: tuple[Test, ...] | None) -> bytes | None:
    """What a partner is told; None where the filter passes it over, or it cannot be read."""
    try:
        body = _BODY.decode(entry.body)
    except msgspec.MsgspecError as error:
        _log.error("publication_unreadable", extra={"topic": entry.topic, "offset": entry.offset, "error": str(error)})
        return None
    place = f.Place(entry.epoch, entry.offset)
    frame = frame_of(body, place)
    if not matches(where, frame):
        return None
    data = {key: value for key, value in msgspec.to_builtins(frame).items() if key not in ("op", "place")}
    return msgspec.json.encode(Message(type_of(entry.topic), entry.tenant, entry.topic, place, data))


def _moved(held: Cursor, epoch: int, offset: int) -> Cursor:
    return msgspec.structs.replace(held, epoch=epoch, offset=offset, attempts=0, failing=False, due_unix_ms=0, held_until_unix_ms=0)


# --- what comes in ----------------------------------------------------------------------------------------------------

WINDOW_S: Final = 300
"""A message whose time is farther from ours is refused, so that one that was overheard cannot be sent again later."""
MAX_MESSAGE_CHARS: Final = 256


def check_signature(secret: bytes, headers: Mapping[str, str], body: bytes, unix_s: int) -> str:
    """The id of a message that its sender signed just now. Raises InvalidInput that says which check failed, without the signature that would pass."""
    message, stamp, given = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not message or len(message) > MAX_MESSAGE_CHARS or not given or not stamp:
        raise InvalidInput("webhook-id, webhook-timestamp and webhook-signature must be there: sign as standardwebhooks.com says")
    if not stamp.isascii() or not stamp.isdigit() or len(stamp) > 12 or abs(int(stamp) - unix_s) > WINDOW_S:
        raise InvalidInput(
            f"webhook-timestamp {stamp[:20]!r}: must be Unix seconds within {WINDOW_S} s of now, {unix_s}; sign anew when sending again"
        )
    try:
        wanted = signature(secret, message, int(stamp), body)
    except UnicodeDecodeError as error:
        raise InvalidInput("the body is not UTF-8") from error
    if not any(_same(wanted, one) for one in given.split(" ")[:8]):
        raise InvalidInput(
            "webhook-signature: none of them is ours for this id, time and body; check the secret, and that the body is sent as it was signed"
        )
    return message


def _same(wanted: str, given: str) -> bool:
    return hmac.compare_digest(wanted.encode(), given.encode("utf-8", "replace"))
