"""The Python client of `esplanade.v1.msgpack`, on `websockets` and `msgpack`: written apart from the server's codec, so that the two check each other.

Owns one connection, its requests in flight, its reconnects. Frames are plain dicts with the key "op" (docs/protocol.md). Answers WebSocket pings by itself.
Cheap: one task a client; a thousand clients fit in a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, cast

import msgpack
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as ws_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from ar.scene import Lost, Scene
from esplanade.core.errors import (
    Conflict,
    ConsentNeeded,
    EsplanadeError,
    Fault,
    Fenced,
    Forbidden,
    InvalidInput,
    LimitExceeded,
    NotFound,
    SecondFactorNeeded,
    Unauthenticated,
    Unavailable,
)
from spatial.columns import PositionColumns

Frame = dict[str, Any]

SUBPROTOCOL: Final = "esplanade.v1.msgpack"
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
MAX_EVENTS: Final = 10_000
"""Events kept for `events()`; beyond, the oldest are dropped and counted in `dropped_events`."""
MAX_IN_FLIGHT: Final = 64
"""Requests unanswered at once, as the server allows."""
MAX_REMEMBERED: Final = 4_096
"""Ids of pushes remembered to remove duplicates."""
BATCH: Final = 256
ACK_S: Final = 0.1
"""Pushes of so long are acked in one frame; a server that sends a thousand at once need not read an ack between any two."""
BACKOFF_S: Final = (0.1, 5.0)
PATIENCE_S: Final = (10.0, 60.0)
"""How long a reconnecting client waits for welcome, doubling with each attempt in a row: where thousands come back to a gateway that needs longer, attempts that all end
just before their answer would keep it busy for ever."""

SPREAD_S: Final = 1.0
"""Who is told when to come again comes within so long after it: HTTP tells whole seconds."""

_TOPIC_OF: Final = {"offer_state": "offers", "parking": "parking"}
"""Frames of durable topics, which say their place."""

_ERRORS: Final[dict[str, type[EsplanadeError]]] = {
    kind.code: kind
    for kind in (
        InvalidInput,
        NotFound,
        Forbidden,
        Unauthenticated,
        Conflict,
        LimitExceeded,
        Unavailable,
        Fenced,
        Fault,
        SecondFactorNeeded,
        ConsentNeeded,
    )
}


def error_for(code: str, message: str) -> EsplanadeError:
    """The exception for an Error or Bye frame; `code` stays readable on it where it is a behaviour's own refusal."""
    kind = _ERRORS.get(code)
    if kind is None:
        kind = _ERRORS[code] = type("Refused", (EsplanadeError,), {"code": code, "__doc__": f"refused: {code}"})
    return kind(message)


ANCHORS_AT_ONCE: Final = 1_000
SNAPSHOT_TRIES: Final = 5
EDIT_BYTES: Final = 8_000
"""Operations of one scene_apply, about: within the message of a guest."""


class Client:
    """One session. Use `Client.connect`; `async with` closes it.

    `on_event`: called at once, in the receiving task, for every frame that is no answer; then nothing is queued for `events()`.
    """

    def __init__(
        self, url: str, hello: Frame, *, reconnects: int, on_event: Callable[[Frame], None] | None, auto_ack: bool, keepalive_s: float | None
    ) -> None:
        self.url = url
        self.welcome: Frame = {}
        self.connected = False
        self.connects = 0
        self.dropped_events = 0
        self.duplicate_pushes = 0
        self._hello = hello
        self._reconnects = reconnects
        self._on_event = on_event
        self._auto_ack = auto_ack
        self._keepalive_s = keepalive_s
        self._ws: ClientConnection | None = None
        self._seq = 0
        self._pending: dict[int, tuple[asyncio.Future[Frame], Frame]] = {}
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._topics: dict[str, Frame] = {}
        self._watched: set[str] = set()
        self._places: dict[str, Frame] = {}
        self._events: deque[Frame] = deque()
        self._arrived = asyncio.Event()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._packer = msgpack.Packer(use_bin_type=True)
        self._rng = random.Random(str(hello["client"]))  # spreads reconnects of many clients, and repeats for each
        self._closed = False
        self._failure: EsplanadeError | None = None
        self._told_s = 0.0
        """Not to come again before, as the last refusal said."""
        self._task: asyncio.Task[None] | None = None
        self._acks: list[str] = []
        self._acking: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        client: str,
        token: str | None = None,
        guest_of: str | None = None,
        venue: str | None = None,
        resume: Mapping[str, int] | None = None,
        reconnects: int = 8,
        on_event: Callable[[Frame], None] | None = None,
        auto_ack: bool = False,
        keepalive_s: float | None = 20.0,
        timeout_s: float = 10.0,
    ) -> Client:
        """Connect and say hello; returns when welcome.

        client: the device's own id; `seq` counts up within it, so a fresh process takes a fresh id. reconnects: attempts in a row after a loss, 0 for none.
        Raises what the server says (Unauthenticated, NotFound, ...), or Unavailable.
        """
        hello: Frame = {"op": "hello", "client": client}
        for key, value in (("token", token), ("guest_of", guest_of), ("venue", venue), ("resume", dict(resume) if resume else None)):
            if value is not None:
                hello[key] = value
        self = cls(url, hello, reconnects=reconnects, on_event=on_event, auto_ack=auto_ack, keepalive_s=keepalive_s)
        ws = await self._open(timeout_s)
        self._task = asyncio.ensure_future(self._run(ws))
        return self

    # --- sending ---

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    async def request(self, op: str, *, timeout_s: float = 15.0, **fields: Any) -> Frame:
        """Send a request and return its answer. It is sent again, with the same seq, if the connection is lost and comes back.

        Raises the error of the answer's code, Unavailable on a lost connection or after `timeout_s` (the outcome is unknown then: ask with the same key).
        """
        async with self._slots:
            self._check()
            seq = self.next_seq()
            frame = {"op": op, "seq": seq, **fields}
            future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
            self._pending[seq] = (future, frame)
            try:
                async with asyncio.timeout(timeout_s):
                    await self._write(frame)
                    reply = await future
            except TimeoutError:
                raise Unavailable(f"{op}: no answer within {timeout_s:g} s; ask again with the same key") from None
            finally:
                self._pending.pop(seq, None)
        if reply["op"] == "error":
            raise error_for(str(reply["code"]), str(reply["message"]))
        return reply

    async def send(self, op: str, **fields: Any) -> int | None:
        """Send a frame whose answer nobody waits for; an Error to it comes as an event. Returns its seq (None for ack, saw and watermark)."""
        self._check()
        frame: Frame = {"op": op, **fields}
        seq: int | None = None
        if op not in ("ack", "watermark", "saw"):
            seq = frame["seq"] = self.next_seq()
        await self._write(frame)
        return seq

    async def send_many(self, frames: Sequence[Frame]) -> None:
        """Send frames made by the caller (with `seq`, see `next_seq`) in as few messages as may be."""
        self._check()
        for start in range(0, len(frames), BATCH):
            await self._write(list(frames[start : start + BATCH]))

    async def _write(self, what: Frame | list[Frame]) -> None:
        ws = self._ws
        if ws is None:
            return  # between connections: requests are sent again, the rest is lost like any frame on a broken wire
        with contextlib.suppress(ConnectionClosed):
            await ws.send(cast(bytes, self._packer.pack(what)))

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise Unavailable("this client is closed; connect another one")

    # --- the everyday requests ---

    async def walk_in(self, venue: str, location: str) -> Frame:
        return await self.request("walk_in", venue=venue, location=location)

    async def move(self, venue: str, level: int, x: float, y: float, *, tick: int | None = None, ack: bool = False) -> None:
        """My position. With `ack`, returns when the position host has it."""
        fields: Frame = {"venue": venue, "level": level, "x": x, "y": y}
        if tick is not None:
            fields["tick"] = tick
        if ack:
            await self.request("move", ack=True, **fields)
        else:
            await self.send("move", **fields)

    async def observe(self, venue: str, at_ms: int, **sensed: Any) -> Frame:
        """What my phone sensed at `at_ms` of its clock: wifi, ble, steps, gnss, ranges, location (docs/protocol.md). Returns Located."""
        return await self.request("observe", venue=venue, at_ms=at_ms, **sensed)

    async def consent(self) -> Frame:
        """Whether this tenant asks its people before it is known where they are (`asked`), and whether I have agreed (`given`), to which `text`."""
        return await self.request("get_consent")

    async def give_consent(self, text: str) -> Frame:
        """I agree that it is known where I am; `text`: the version of the text that I was shown."""
        return await self.request("give_consent", text=text)

    async def withdraw_consent(self) -> Frame:
        """I take that back, and am off every map."""
        return await self.request("withdraw_consent")

    async def leave(self, venue: str, *, tick: int | None = None) -> None:
        await self.request("leave", venue=venue, **({} if tick is None else {"tick": tick}))

    async def pay(self, venue: str, unit: str, amount: int, currency: str, *, key: bytes, tick: int | None = None) -> Frame:
        """Pay `amount` minor units. `key`: 16 bytes of the caller's, the same for every retry."""
        extra = {} if tick is None else {"tick": tick}
        return await self.request("pay", venue=venue, key=key, unit=unit, amount=amount, currency=currency, **extra)

    async def balance(self) -> dict[str, int]:
        return dict((await self.request("balance"))["balances"])

    async def transfer(self, to: int, amount: int, currency: str, *, key: bytes) -> Frame:
        """To another's wallet. Returns Paid: it has left for good, and arrives or comes back. Repeat with the same key."""
        return await self.request("transfer", key=key, to=to, amount=amount, currency=currency)

    async def statement(
        self, currency: str, *, after: Mapping[str, int] | None = None, limit: int = 100, subject: int | None = None
    ) -> Frame:  # fmt: skip
        """A page of the wallet's movements, oldest first; `after`: `next` of the page before. `subject`: for operators."""
        more: Frame = {} if after is None else {"after": dict(after)}
        return await self.request("statement", currency=currency, limit=limit, **more, **({} if subject is None else {"subject": subject}))

    async def refund(self, subject: int, original: bytes, amount: int, currency: str, *, key: bytes, venue: str | None = None) -> Frame:
        more: Frame = {} if venue is None else {"venue": venue}
        return await self.request("refund", key=key, subject=subject, original=original, amount=amount, currency=currency, **more)

    async def hold(self, venue: str, unit: str, subject: int, amount: int, currency: str, *, key: bytes, expires_ms: int) -> Frame:
        return await self.request(
            "hold", venue=venue, key=key, subject=subject, unit=unit, amount=amount, currency=currency, expires_ms=expires_ms
        )  # fmt: skip

    async def post(self, venue: str, subject: int, hold: bytes, currency: str, *, key: bytes, amount: int = 0) -> Frame:
        """Take what was held; 0: the whole."""
        return await self.request("post", venue=venue, key=key, subject=subject, hold=hold, currency=currency, amount=amount)

    async def void(self, venue: str, subject: int, hold: bytes, currency: str, *, key: bytes) -> Frame:
        return await self.request("void", venue=venue, key=key, subject=subject, hold=hold, currency=currency)

    async def till(self, venue: str, unit: str) -> dict[str, int]:
        """What a till holds, by currency."""
        balances: dict[str, int] = (await self.request("get_till", venue=venue, unit=unit))["balances"]
        return balances

    async def put_item(self, item: str, amount: int, currency: str, limit: int, **terms: Any) -> Frame:
        """`terms`: venue and unit of a sale; each, closes_ms."""
        return await self.request("put_item", item=item, amount=amount, currency=currency, limit=limit, **terms)

    async def item(self, item: str) -> Frame:
        return await self.request("get_item", item=item)

    async def buy(self, item: str, *, key: bytes, count: int = 1) -> int:
        """What the wallet can spend then."""
        balance: int = (await self.request("buy", item=item, key=key, count=count))["balance"]
        return balance

    async def grant(self, item: str, subject: int, *, key: bytes) -> int:
        """What the wallet can spend then."""
        balance: int = (await self.request("grant", item=item, key=key, subject=subject))["balance"]
        return balance

    async def host_anchor(self, venue: str, anchor: Mapping[str, Any]) -> Frame:
        """Keep an anchor (docs/protocol.md has its fields); under an id of ours that is there: its next version. Returns it as it is held."""
        [held] = (await self.request("host_anchor", venue=venue, anchor=dict(anchor)))["anchors"]
        return cast(Frame, held)

    async def resolve_anchors(self, venue: str, ids: Sequence[bytes]) -> list[Frame]:
        """Those of the ids that are there and that we may see, in their order; however many: asked for by the thousand."""
        found: list[Frame] = []
        for at in range(0, len(ids), ANCHORS_AT_ONCE):
            found += (await self.request("resolve_anchors", venue=venue, ids=b"".join(ids[at : at + ANCHORS_AT_ONCE])))["anchors"]
        return found

    async def anchors_near(self, venue: str, level: int, x: float, y: float, *, radius_m: float = 20.0, k: int = 20, **more: Any) -> list[Frame]:
        """Nearest first. `more`: `tags`, `own`."""
        reply = await self.request("anchors_near", venue=venue, level=level, x=x, y=y, radius_m=radius_m, k=k, **more)
        return list(reply["anchors"])

    async def sync_scene(self, venue: str, scene: str, replica: Scene, *, sent: int, now_ms: int) -> int:
        """Bring our replica and the scene together: take what others did, then send our own operations after the first `sent`. Returns how many of ours are durable there.

        The replica's client must be `<subject>:<client id>` of this connection. Safe to repeat with the same `sent` whatever failed. Refused as `scene_too_old` where the replica
        was away for so long that what it lacks was forgotten, and has operations that were not sent: call `renew_scene`, and sync again with the same `sent`.
        """
        while True:
            try:
                delta = await self.request("scene_sync", venue=venue, scene=scene, seen=dict(replica.ack().seen))
            except EsplanadeError as error:
                if error.code != "scene_too_old" or replica.ack().seen.get(replica.client, 0) > sent:
                    raise
                await self.renew_scene(venue, scene, replica, now_ms=now_ms)
                continue
            replica.merge(delta["ops"], now_ms=now_ms)
            if delta["whole"]:
                break
        own = replica.ack().seen.get(replica.client, 0)
        while sent < own:
            ops, _ = replica.page(dict(replica.ack().seen) | {replica.client: sent}, EDIT_BYTES)
            done = await self.request("scene_apply", venue=venue, scene=scene, ops=ops)
            sent += done["applied"] + done["known"]
        return sent

    async def renew_scene(self, venue: str, scene: str, replica: Scene, *, now_ms: int) -> list[Lost]:
        """Bring a replica up to date by a snapshot of the whole scene. What it had not sent is made again on it; returned is what found no place there any more."""
        for tries in range(1, SNAPSHOT_TRIES + 1):
            data, whole = bytearray(), False
            while not whole:
                part = await self.request("scene_sync", venue=venue, scene=scene, snapshot=True, at=len(data))
                data += part["ops"]
                whole = part["whole"]
            try:
                return replica.rebase(bytes(data), now_ms=now_ms)
            except InvalidInput:  # edited between two pages
                if tries == SNAPSHOT_TRIES:
                    raise
        raise Fault("unreachable")

    async def subscribe(
        self,
        topic: str,
        *,
        rate_hz: float | None = None,
        view: Sequence[float] | None = None,
        bytes_per_s: int | None = None,
        where: Sequence[Mapping[str, Any]] | None = None,
        policy: str | None = None,
    ) -> Frame:
        """Subscribed again by itself after a reconnect, offers and parking from where they were: `{"op": "_not_resumed", "topic": ...}` comes as an event where that
        cannot be had. `view`: (x0, y0, x1, y1) of a topic of dots, metres; again with another one to look elsewhere. `where`, `policy`: docs/protocol.md."""
        fields: Frame = {"topic": topic}
        if rate_hz is not None:
            fields["rate_hz"] = rate_hz
        if view is not None:
            fields["view"] = dict(zip(("x0", "y0", "x1", "y1"), view, strict=True))
        if bytes_per_s is not None:
            fields["bytes_per_s"] = bytes_per_s
        if where is not None:
            fields["where"] = [dict(test) for test in where]
        if policy is not None:
            fields["policy"] = policy
        reply = await self.request("subscribe", **fields)
        self._topics[topic] = fields
        return reply

    async def unsubscribe(self, topic: str) -> None:
        self._topics.pop(topic, None)
        self._watched.discard(topic)
        await self.request("unsubscribe", topic=topic)
        self._places.pop(topic, None)

    async def members(self, topic: str, *, watch: bool = False) -> Frame:
        """Who else reads a topic that is subscribed to: `count`, and `members` for those who may know. `watch`: `members_changed` comes as an event from then on,
        after a reconnect too (ask again then for who is there)."""
        reply = await self.request("get_members", topic=topic, watch=watch)
        (self._watched.add if watch else self._watched.discard)(topic)
        return reply

    async def saw(self, topic: str, number: int) -> None:
        """Say that frame `number` of a view is drawn: from then on no more than a few come before the next is."""
        await self.send("saw", topic=topic, number=number)

    async def renew(self, token: str) -> None:
        """Go on with a fresh token, on this connection and those after it."""
        await self.request("renew", token=token)
        self._hello["token"] = token

    async def ack(self, *pushes: str) -> None:
        for start in range(0, len(pushes), BATCH):
            await self.send("ack", pushes=list(pushes[start : start + BATCH]))

    async def open_source(self, venue: str, source: str, first_tick: int) -> Frame:
        return await self.request("open_source", venue=venue, source=source, first_tick=first_tick)

    async def close_source(self, venue: str, source: str) -> Frame:
        return await self.request("close_source", venue=venue, source=source)

    async def columns(self, venue: str, source: str, tick: int, columns: PositionColumns) -> None:
        """Hand over rows; returns when the position host has them."""
        subject, level, x, y = columns.pack()
        await self.request("columns", venue=venue, source=source, tick=tick, subject=subject, level=level, x=x, y=y)

    async def watermark(self, venue: str, source: str, tick: int, rows: int) -> None:
        await self.send("watermark", venue=venue, source=source, tick=tick, rows=rows)

    async def top_ups(self, *, tick: int, key: bytes, subject: bytes, amount: bytes, currency: str) -> Frame:
        """n credits by columns: key (n, 16) bytes, subject and amount (n,) u4. Answers result (a byte a row) and codes."""
        return await self.request("top_ups", tick=tick, key=key, subject=subject, amount=amount, currency=currency)

    async def payments(self, *, venue: str, tick: int, key: bytes, subject: bytes, unit: bytes, amount: bytes, currency: str) -> Frame:
        return await self.request("payments", venue=venue, tick=tick, key=key, subject=subject, unit=unit, amount=amount, currency=currency)

    # --- events ---

    async def events(self) -> AsyncIterator[Frame]:
        """Frames that are no answers, in order, and `{"op": "_reconnected", "resumed": bool}` where a new connection begins.

        Ends when the client is closed; raises the failure when the server gives this client up.
        """
        while True:
            while self._events:
                yield self._events.popleft()
            if self._failure is not None:
                raise self._failure
            if self._closed:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def event(self, op: str, *, timeout_s: float = 10.0) -> Frame:
        """The next event of this kind; others before it are passed over. Raises Unavailable after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                async for frame in self.events():
                    if frame["op"] == op:
                        return frame
        except TimeoutError:
            pass
        raise Unavailable(f"no {op} within {timeout_s:g} s")

    def _emit(self, frame: Frame) -> None:
        if self._on_event is not None:
            self._on_event(frame)
            return
        if len(self._events) >= MAX_EVENTS:
            self._events.popleft()
            self.dropped_events += 1
        self._events.append(frame)
        self._arrived.set()

    # --- the connection ---

    async def _open(self, timeout_s: float) -> ClientConnection:
        self._told_s = 0.0
        try:
            async with asyncio.timeout(timeout_s):
                ws = await ws_connect(
                    self.url,
                    subprotocols=[Subprotocol(SUBPROTOCOL)],
                    compression=None,
                    max_size=MAX_MESSAGE_BYTES,
                    max_queue=64,
                    ping_interval=self._keepalive_s,
                    open_timeout=None,
                    close_timeout=2.0,
                    user_agent_header=None,
                    proxy=None,
                )
                try:
                    await ws.send(cast(bytes, self._packer.pack(self._hello)))
                    frames = _frames(await ws.recv())
                except BaseException:
                    await ws.close()
                    raise
        except TimeoutError:
            raise Unavailable(f"{self.url}: no welcome within {timeout_s:g} s") from None
        except ConnectionClosed as error:
            raise Unavailable(f"{self.url}: closed before welcome ({error}); try again later") from error
        except InvalidURI as error:
            raise InvalidInput(f"{self.url}: no WebSocket address ({error}); it begins with ws:// or wss://") from error
        except InvalidStatus as error:
            self._told_s = _seconds(error.response.headers.get("Retry-After"))
            raise Unavailable(f"{self.url}: cannot connect ({error}); try again later") from error
        except (OSError, InvalidHandshake) as error:
            raise Unavailable(f"{self.url}: cannot connect ({error}); is the gateway running?") from error
        first = frames[0]
        if first["op"] != "welcome":
            self._told_s = float(first.get("retry_after_s", 0.0))
            await ws.close()
            failure = error_for(str(first.get("code", "fault")), str(first.get("message", first)))
            if first.get("reconnect") and not failure.retryable:
                failure = Unavailable(failure.message)
            raise failure
        self.welcome = first
        if "token" in first:
            self._hello.pop("guest_of", None)
            self._hello["token"] = first["token"]
        self._ws = ws
        self.connected = True
        self.connects += 1
        if self.connects > 1:
            self._emit({"op": "_reconnected", "resumed": bool(first.get("resumed", False))})
        for frame in frames[1:]:
            self._receive(frame)
        return ws

    async def _run(self, ws: ClientConnection) -> None:
        try:
            while True:
                bye: Frame | None = None
                try:
                    async for message in ws:
                        for frame in _frames(message):
                            if frame["op"] == "bye":
                                bye = frame
                            else:
                                self._receive(frame)
                except ConnectionClosed:
                    pass
                self.connected = False
                self._ws = None
                if self._closed:
                    return
                again = await self._reopen(bye)
                if again is None:
                    return
                ws = again
        except EsplanadeError as error:
            self._fail(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._fail(Fault(f"the client broke: {type(error).__name__}: {error}"))
            raise

    async def _reopen(self, bye: Frame | None) -> ClientConnection | None:
        """Connect again with back-off; None (and the failure set) where the server or the number of attempts says no."""
        if bye is not None and (not bye.get("reconnect") or bye["code"] == "unauthenticated"):
            self._fail(error_for(str(bye["code"]), str(bye["message"])))
            return None
        told_s = float(bye.get("retry_after_s", 0.0)) if bye else 0.0
        wait_s = BACKOFF_S[0]
        failure: EsplanadeError = Unavailable(f"{self.url}: connection lost" if bye is None else str(bye["message"]))
        patience_s = PATIENCE_S[0]
        for _ in range(self._reconnects):
            await asyncio.sleep(max(told_s + min(told_s, SPREAD_S) * self._rng.random(), wait_s * self._rng.uniform(0.5, 1.0)))
            try:
                ws = await self._open(patience_s)
            except EsplanadeError as error:
                failure = error
                if not error.retryable:
                    break
                told_s = self._told_s
                wait_s, patience_s = min(2 * wait_s, BACKOFF_S[1]), min(2 * patience_s, PATIENCE_S[1])
                continue
            again: list[Frame] = [
                {"op": "subscribe", "seq": self.next_seq(), **fields, **({"resume": self._places[topic]} if topic in self._places else {})}
                for topic, fields in self._topics.items()
            ]
            again += [{"op": "get_members", "seq": self.next_seq(), "topic": topic, "watch": True} for topic in self._watched]
            again += [frame for _, frame in self._pending.values()]
            await self.send_many(again)
            return ws
        self._fail(failure)
        return None

    def _fail(self, failure: EsplanadeError) -> None:
        self._failure = failure
        self.connected = False
        self._ws = None
        for future, _ in self._pending.values():
            if not future.done():
                future.set_exception(failure)
        self._arrived.set()

    def _receive(self, frame: Frame) -> None:
        seq = frame.get("seq")
        if frame["op"] == "subscribed":
            self._subscribed(frame)
        if seq is not None:
            waiting = self._pending.get(seq)
            if waiting is not None:
                if not waiting[0].done():
                    waiting[0].set_result(frame)
                return
            if frame["op"] not in ("error", "rewind"):
                return  # the answer to something sent without waiting
        op = frame["op"]
        if op in ("push", "push_columns"):
            if frame["venue"] == self._hello.get("venue"):
                self._hello["resume"] = frame["place"]
            if op == "push" and self._repeated(str(frame["id"])):
                return
        elif op in _TOPIC_OF and "place" in frame:
            self._places[f"venue/{frame['venue']}/{_TOPIC_OF[op]}"] = frame["place"]
        self._emit(frame)

    def _subscribed(self, frame: Frame) -> None:
        topic = frame["topic"]
        if topic in self._places and not frame.get("resumed", False) and frame["seq"] not in self._pending:
            self._emit({"op": "_not_resumed", "topic": topic})
        if "place" in frame:
            self._places[topic] = frame["place"]

    def _repeated(self, push: str) -> bool:
        """Whether this push was here before; acks it either way, where asked to."""
        if self._auto_ack:
            self._acks.append(push)
            if len(self._acks) == 1:
                asyncio.get_running_loop().call_later(ACK_S, self._ack_all)
        if push in self._seen:
            self.duplicate_pushes += 1
            return True
        self._seen[push] = None
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        return False

    def _ack_all(self) -> None:
        acks, self._acks = self._acks, []
        if self._closed:
            return
        self._acking = asyncio.ensure_future(self._ack_quietly(acks))

    async def _ack_quietly(self, pushes: list[str]) -> None:
        with contextlib.suppress(EsplanadeError):  # no connection: the server sends them again, and they are acked then
            await self.ack(*pushes)

    async def close(self) -> None:
        """Idempotent."""
        self._closed = True
        ws = self._ws
        self._ws = None
        if ws is not None:
            await ws.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        failure = Unavailable("this client was closed")
        for future, _ in self._pending.values():
            if not future.done():
                future.set_exception(failure)
        self._arrived.set()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _seconds(text: str | None) -> float:
    """Of a header Retry-After; a date, which nobody here sends, is no seconds."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else 0.0


def _frames(message: str | bytes) -> list[Frame]:
    try:
        decoded = msgpack.unpackb(message, raw=False)
    except (ValueError, TypeError) as error:
        raise Fault(f"a message that is no msgpack: {error}") from error
    frames = decoded if isinstance(decoded, list) else [decoded]
    if not frames or not all(isinstance(frame, dict) and isinstance(frame.get("op"), str) for frame in frames):
        raise Fault("a message that holds no frames")
    return frames
