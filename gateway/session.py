"""One connection's rules, without I/O: messages and time in, actions out.

Owns: hello first, heartbeat deadlines, message size, batch, rate and subscription limits, strikes for garbage, requests in flight, and the
pushes that wait for an ack. Never touches a socket, a clock or the System; `gateway.server` does what the actions say.

States: NEW (waits for hello) -> JOINING (hello handed out as Authenticate; what follows in the same or later messages is held back)
-> OPEN -> CLOSED (every further call returns no action).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeGuard, get_args

import msgspec

from esplanade.core.errors import EsplanadeError, InvalidInput
from gateway import frames as f
from gateway.admission import Allowance
from gateway.auth import DURABLE, Identity, TopicName
from gateway.codec import CODECS, Format, Unreadable
from gateway.codes import CloseCode
from gateway.filters import Test
from gateway.limits import LIMITS, RoleLimits, TokenBucket
from gateway.permissions import ROLES, frames_of, outside
from gateway.policies import check_choice
from gateway.viewport import check_view

HEARTBEAT_S: Final = 30.0
"""After this silence the server probes (a WebSocket ping); after twice this silence it disconnects."""
HELLO_S: Final = 10.0
"""Time to say hello."""
JOIN_S: Final = 10.0
"""Time for the server to answer it."""
STRIKES: Final = 20
"""Unreadable frames that end a session; one is forgiven every STRIKE_FORGIVEN_S."""
STRIKE_FORGIVEN_S: Final = 5.0
FLOOD_FACTOR: Final = 10.0
"""Frames refused for rate, in bursts of the role, that end a session."""
REDELIVER_S: Final = 5.0
"""A push is sent again when it was not acked for so long."""
DELIVERIES: Final = 4
"""Times a push is sent at most: once and three times again."""
MAX_PENDING: Final = 256
"""Unacked pushes kept; beyond, the oldest is given up."""


class Send(msgspec.Struct, frozen=True):
    """Write a frame."""

    frame: f.ServerFrame


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Check the token, or make a guest; then call `Session.admit` or `Session.refuse`."""

    hello: f.Hello


class Request(msgspec.Struct, frozen=True):
    """A permitted, in-limit frame for dispatch. Unless it is unanswered by nature, `Session.answered(seq)` must follow."""

    frame: f.ClientFrame


class Requests(msgspec.Struct, frozen=True):
    """Several of one message, in their order; `Session.answered` must follow for each."""

    frames: list[f.ClientFrame]


@dataclass(frozen=True, slots=True)
class Join:
    """Subscribe to a topic at most `rate_hz` a second, then answer `seq` with Subscribed and what was missed since `resume`."""

    seq: int
    topic: str
    name: TopicName
    rate_hz: float
    view: f.View | None = None
    bytes_per_s: int | None = None
    resume: f.Place | None = None
    where: tuple[Test, ...] | None = None
    policy: f.Policy | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Unsubscribe, then answer `seq` with Done."""

    seq: int
    topic: str


@dataclass(frozen=True, slots=True)
class Looked:
    """The client has drawn a frame of its view."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class Verify:
    """Check the token, then call `Session.renew`, or answer `seq` with the error; then `Session.answered`."""

    seq: int
    token: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Send a WebSocket ping; call `Session.heard` when the pong comes."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the WebSocket; the last action of a session."""

    code: CloseCode
    reason: str


class Standing:
    """Whether a person has agreed that it is known where they are; one for all of their connections here. `known`: since it was looked up or heard of."""

    __slots__ = ("__weakref__", "changes", "given", "known")

    def __init__(self, given: bool = False) -> None:
        self.given = given
        self.known = False
        self.changes = -1

    def learn(self, given: bool, changes: int) -> bool:
        """Take word of it, unless newer is known; whether it was news."""
        if changes <= self.changes:
            return False
        self.given, self.changes, self.known = given, changes, True
        return True


Action = Send | Authenticate | Request | Requests | Join | Part | Looked | Verify | Probe | Close
State = Literal["new", "joining", "open", "closed"]

TELLING: Final = frozenset({f.Move, f.Observe, f.WalkIn, f.ScenePresence})
"""Frames that tell where their sender is: only with their consent, where it is asked for."""
UNANSWERED: Final = (f.Ack, f.Watermark, f.Saw)
_DISPATCHED: Final = frozenset(get_args(f.ClientFrame)) - {f.Hello, f.Subscribe, f.Unsubscribe, f.Renew, *UNANSWERED}
"""Frames that are requests and nothing else: all that a session decides of them is whether they are permitted, and whether too many are under way."""
_PLAIN: Final = {role: _DISPATCHED & frames_of(role) for role in ROLES}
"""Those of them that each role may send."""


@dataclass(slots=True)
class _Pending:
    push: f.Push
    ends_tick: int
    sent_at: float
    deliveries: int


class Session:
    """`now` is monotonic seconds, `unix_s` Unix seconds; both only grow."""

    def __init__(self, session_id: str, format: Format, now: float) -> None:
        self.id = session_id
        self.codec = CODECS[format]
        self.state: State = "new"
        self.identity: Identity | None = None
        self.limits: RoleLimits = LIMITS["guest"]
        self.client = ""
        self.topics: dict[str, float] = {}
        self.standing: Standing | None = None
        """Of a person who is asked for consent."""
        self.in_flight = 0
        self.resent = 0
        self.abandoned = 0
        self.refused_for_rate = 0
        self._opened_at = now
        self._heard_at = now
        self._probed = False
        self._strikes = 0.0
        self._strikes_at = now
        self._bucket = TokenBucket(self.limits.frames_per_s, self.limits.burst, now)
        self._person: TokenBucket | None = None
        self._allowance: Allowance | None = None
        self._plain: frozenset[type] = frozenset()  # kinds of frames of which limits alone decide; none unless open
        self._held: deque[f.ClientFrame | Unreadable] = deque()
        self._pending: dict[str, _Pending] = {}

    # --- in ---

    def receive(self, message: bytes | str, now: float) -> list[Action]:
        """A message from the client. Never raises, whatever it holds."""
        if self._over():
            return []
        self.heard(now)
        size = len(message) if isinstance(message, bytes) else len(message.encode("utf-8", "replace"))
        if size > self.limits.message_bytes:
            return self.end(CloseCode.TOO_LARGE, f"a message of {size} bytes: at most {self.limits.message_bytes} for this role", code="limit")
        items = self.codec.decode(message)
        if self._all_plain(items, now):
            return [Request(items[0])] if len(items) == 1 else [Requests(items)]
        actions: list[Action] = []
        for item in items:
            if self._over():
                break
            actions += self._item(item, now)
        return actions

    def _all_plain(self, items: list[f.ClientFrame | Unreadable], now: float) -> TypeGuard[list[f.ClientFrame]]:
        """Whether every frame of a message is a request that `_item` would hand out as it is; they are taken then, by every limit. Most messages are such."""
        n, standing, allowance = len(items), self.standing, self._allowance
        if not self._plain.issuperset(map(type, items)) or self.in_flight + n > self.limits.requests or (standing is not None and not standing.given):
            return False
        if (allowance is not None and allowance.left < n) or not self._bucket.take(now, n):
            return False
        if self._person is not None and not self._person.take(now, n):
            self._bucket.give_back(n)
            return False
        if allowance is not None:
            allowance.take(n)
        self.in_flight += n
        return True

    def _over(self) -> bool:
        return self.state == "closed"

    def heard(self, now: float) -> None:
        """A sign of life (a message, or the pong of a probe)."""
        self._heard_at = now
        self._probed = False

    def _item(self, item: f.ClientFrame | Unreadable, now: float) -> list[Action]:
        if self.state == "new":
            if isinstance(item, f.Hello):
                self.state = "joining"
                self.client = item.client
                return [Authenticate(item)]
            what = item.reason if isinstance(item, Unreadable) else f"frame {_op(item)!r}"
            return self.end(CloseCode.PROTOCOL, f"{what}: the first frame must be hello", code="invalid")
        if self.state == "joining":
            if len(self._held) >= f.MAX_BATCH:
                return self.end(CloseCode.FLOOD, f"more than {f.MAX_BATCH} frames before welcome: wait for it", code="limit")
            self._held.append(item)
            return []
        if not self._bucket.take(now) or (self._person is not None and not self._person.take(now)):
            return self._flooded(item)
        if self._allowance is not None and not self._allowance.take():
            return [self._error("limit", "this tenant's plan allows no more at the moment: send again in a second", _seq_of(item), retryable=True)]
        if isinstance(item, Unreadable):
            return self._garbage(item, now)
        return self._frame(item)

    def _frame(self, frame: f.ClientFrame) -> list[Action]:
        identity, kind = self.identity, type(frame)
        assert identity is not None
        if self.standing is not None and not self.standing.given and kind in TELLING:
            message = (
                f"{_op(frame)!r} tells where you are, to which you have not agreed: show the text of consent, then send give_consent with its version"
            )
            return [self._error("consent_needed", message, _seq(frame))]
        if kind in self._plain and self.in_flight < self.limits.requests:
            self.in_flight += 1
            return [Request(frame)]
        if isinstance(frame, f.Hello):
            return self.end(CloseCode.PROTOCOL, "a second hello: one a connection; open another connection", code="invalid")
        seq = _seq(frame)
        topic: TopicName | None = None
        if isinstance(frame, f.Subscribe):
            try:
                topic = TopicName.parse(frame.topic)
                check_subscription(frame, topic)
            except EsplanadeError as error:
                return [self._error("invalid", str(error), seq)]
        if not identity.may(kind, None if topic is None else topic.kind):
            what = f"topic {frame.topic}" if isinstance(frame, f.Subscribe) else f"frame {_op(frame)!r}"
            return [self._error("forbidden", f"{what} is not for role {identity.role!r}: sign in with a role that may", seq)]
        if identity.scope is not None:
            why = outside(identity.scope, frame, None if topic is None else topic.venue)
            if why is not None:
                return [self._error("forbidden", f"{_op(frame)!r}: {why}", seq)]
        if isinstance(frame, f.Ack):
            for push in frame.pushes:
                self._pending.pop(push, None)
            return []
        if isinstance(frame, f.Subscribe):
            assert topic is not None
            if frame.topic not in self.topics and len(self.topics) >= self.limits.subscriptions:
                return [self._error("limit", f"{len(self.topics)} topics: at most {self.limits.subscriptions}; unsubscribe from one first", seq)]
            rate = 2.0 if frame.rate_hz is None else frame.rate_hz
            self.topics[frame.topic] = rate
            return [Join(frame.seq, frame.topic, topic, rate, frame.view, frame.bytes_per_s, frame.resume, frame.where, frame.policy)]
        if isinstance(frame, f.Unsubscribe):
            self.topics.pop(frame.topic, None)
            return [Part(frame.seq, frame.topic)]
        if isinstance(frame, f.Saw):
            return [Looked(frame.topic, frame.number)]
        if not isinstance(frame, f.Watermark):
            if self.in_flight >= self.limits.requests:
                message = f"{self.in_flight} requests unanswered: at most {self.limits.requests} at once; wait for answers"
                return [self._error("limit", message, seq, retryable=True)]
            self.in_flight += 1
        if isinstance(frame, f.Renew):
            return [Verify(frame.seq, frame.token)]
        return [Request(frame)]

    def answered(self) -> None:
        """A Request got its answer (or its end)."""
        self.in_flight -= 1

    def renew(self, identity: Identity, seq: int) -> list[Action]:
        """A token that verified: it goes on under it, if it is the same person's, for the same tenant, role and source."""
        held = self.identity
        if self.state != "open" or held is None:
            return []
        if not held.same_person(identity):
            message = f"a token of subject {identity.subject}, role {identity.role!r}: this session is another's; reconnect to be someone else"
            return [self._error("forbidden", message, seq)]
        self.identity = replace(
            identity, expires_unix_s=max(held.expires_unix_s, identity.expires_unix_s), strong_unix_s=max(held.strong_unix_s, identity.strong_unix_s)
        )
        return [Send(f.Done(seq=seq))]

    # --- joining ---

    def admit(
        self,
        identity: Identity,
        *,
        now: float,
        now_ms: int,
        token: str | None = None,
        resumed: bool = False,
        person: TokenBucket | None = None,
        allowance: Allowance | None = None,
        standing: Standing | None = None,
    ) -> list[Action]:
        """The hello is good: Welcome, and then what the frames held back meanwhile call for.

        `person`: a bucket that the person's other connections take from too; `allowance`: of the tenant; `standing`: of a person who is asked for consent.
        """
        if self.state != "joining":
            return []
        self.state = "open"
        self.identity = identity
        self.limits = LIMITS[identity.role]
        self._bucket = TokenBucket(self.limits.frames_per_s, self.limits.burst, now)
        self._person, self._allowance, self.standing = person, allowance, standing
        if identity.scope is None:
            self._plain = _PLAIN[identity.role]
        welcome = f.Welcome(
            session=self.id,
            subject=identity.subject,
            tenant=identity.tenant,
            role=identity.role,
            now_ms=now_ms,
            heartbeat_s=HEARTBEAT_S,
            limits=f.Limits(self.limits.message_bytes, self.limits.frames_per_s, self.limits.subscriptions),
            resumed=resumed,
            token=token,
            expires_ms=round(identity.expires_unix_s * 1000),
            consent=None if standing is None else "given" if standing.given else "needed",
        )
        actions: list[Action] = [Send(welcome)]
        while self._held and self.state == "open":
            actions += self._item(self._held.popleft(), now)
        self._held.clear()
        return actions

    # --- time ---

    def poll(self, now: float, unix_s: float, *, stalled_s: float = 0.0, later: Callable[[float], float] = lambda now: 1.0) -> list[Action]:
        """What time alone calls for: deadlines of hello, silence and token, redelivery. Call about once a second.

        `stalled_s`: of the time since the last call, how long nobody was listened to: what was said meanwhile waits to be read, so that it counts for no deadline.
        `later`: seconds from `now` after which one more may come again.
        """
        if self.state == "closed":
            return []
        self._opened_at += stalled_s
        self._heard_at += stalled_s
        if self.state == "new":
            if now - self._opened_at > HELLO_S:
                return self.end(CloseCode.SILENT, f"no hello within {HELLO_S:g} s: say it first, at once after connecting", code="limit")
            return []
        if self.state == "joining":
            if now - self._opened_at > HELLO_S + JOIN_S:
                message = f"the server could not answer hello within {JOIN_S:g} s: reconnect"
                return self.end(CloseCode.FAULT, message, code="unavailable", retry_after_s=later(now))
            return []
        assert self.identity is not None
        if unix_s >= self.identity.expires_unix_s:
            return self.end(CloseCode.EXPIRED, "the token ran out: sign in again and reconnect with the new one", code="unauthenticated")
        silence = now - self._heard_at
        if silence > 2 * HEARTBEAT_S:
            return self.end(CloseCode.SILENT, f"nothing heard for {silence:.0f} s: send ping, or answer WebSocket pings", code="limit")
        actions: list[Action] = []
        if silence > HEARTBEAT_S and not self._probed:
            self._probed = True
            actions.append(Probe())
        if self._pending and self.standing is not None and not self.standing.given:
            self._pending.clear()
        due = [p for p in self._pending.values() if now - p.sent_at >= REDELIVER_S]
        for pending in due:
            if pending.deliveries >= DELIVERIES:
                del self._pending[pending.push.id]
                self.abandoned += 1
                continue
            pending.sent_at = now
            pending.deliveries += 1
            self.resent += 1
            actions.append(Send(pending.push))
        return actions

    # --- pushes ---

    def push(self, push: f.Push, *, ends_tick: int, now: float) -> list[Action]:
        """Send a push and keep it until acked. The same id again while it waits is not sent twice, and nothing is to who has not agreed to be seen."""
        if self.state != "open" or push.id in self._pending or (self.standing is not None and not self.standing.given):
            return []
        if len(self._pending) >= MAX_PENDING:
            del self._pending[next(iter(self._pending))]
            self.abandoned += 1
        self._pending[push.id] = _Pending(push, ends_tick, now, 1)
        return [Send(push)]

    def offer_ended(self, venue: str, offer: str) -> None:
        """Its pushes are no longer worth sending again."""
        for key in [k for k, p in self._pending.items() if p.push.venue == venue and p.push.offer == offer]:
            del self._pending[key]

    def tick_closed(self, venue: str, tick: int) -> None:
        """Pushes of offers that end by `tick` are no longer worth sending again."""
        if self._pending:
            for key in [k for k, p in self._pending.items() if p.push.venue == venue and p.ends_tick <= tick]:
                del self._pending[key]

    @property
    def pending(self) -> int:
        return len(self._pending)

    # --- the end ---

    def end(self, close: CloseCode, message: str, *, code: str, retry_after_s: float = 0.0) -> list[Action]:
        """Bye and Close; nothing comes after."""
        if self.state == "closed":
            return []
        self.state = "closed"
        self._plain = frozenset()
        self._held.clear()
        self._pending.clear()
        bye = f.Bye(code=code, message=message, reconnect=close.reconnect, retry_after_s=retry_after_s)
        return [Send(bye), Close(close, message)]

    def lost(self) -> None:
        """The socket is gone."""
        self.state = "closed"
        self._plain = frozenset()
        self._held.clear()
        self._pending.clear()

    def _garbage(self, item: Unreadable, now: float) -> list[Action]:
        self._strikes = max(0.0, self._strikes - (now - self._strikes_at) / STRIKE_FORGIVEN_S) + 1.0
        self._strikes_at = now
        error = self._error("invalid", item.reason, item.seq)
        if self._strikes > STRIKES - 1:
            return [error, *self.end(CloseCode.GARBAGE, f"{STRIKES} frames that could not be read: mend the client", code="invalid")]
        return [error]

    def _flooded(self, item: f.ClientFrame | Unreadable) -> list[Action]:
        self.refused_for_rate += 1
        if self.refused_for_rate > FLOOD_FACTOR * self.limits.burst:
            message = f"{self.refused_for_rate} frames above {self.limits.frames_per_s:g} a second: slow down, then reconnect"
            return self.end(CloseCode.FLOOD, message, code="limit", retry_after_s=math.ceil(self.limits.burst / self.limits.frames_per_s))
        seq = _seq_of(item)
        if isinstance(item, UNANSWERED):
            return [self._error("limit", f"{_op(item)} dropped: more than {self.limits.frames_per_s:g} frames a second", None, retryable=True)]
        return [self._error("limit", f"more than {self.limits.frames_per_s:g} frames a second: send again later", seq, retryable=True)]

    @staticmethod
    def _error(code: str, message: str, seq: int | None, *, retryable: bool = False) -> Send:
        return Send(f.Error(code=code, message=message, retryable=retryable, seq=seq))


def check_subscription(frame: f.Subscribe, topic: TopicName) -> None:
    """Raises InvalidInput where the topic has no views, or nothing to resume."""
    if frame.view is not None:
        if topic.kind != "dots":
            raise InvalidInput(f"topic {frame.topic} with a view: only venue/<venue>/dots/<level> has views; leave `view` out")
        check_view(frame.view)
    elif frame.bytes_per_s is not None:
        raise InvalidInput(f"topic {frame.topic} with bytes_per_s {frame.bytes_per_s} and no view: what is within so many bytes is a view; give one")
    if frame.resume is not None and topic.kind not in DURABLE:
        raise InvalidInput(f"topic {frame.topic} with resume: its newest state is all there is; leave `resume` out")
    check_choice(frame, topic)


def _op(frame: f.ClientFrame) -> str:
    return str(frame.__struct_config__.tag)


def _seq_of(item: f.ClientFrame | Unreadable) -> int | None:
    return item.seq if isinstance(item, Unreadable) else _seq(item)


def _seq(frame: f.ClientFrame) -> int | None:
    return getattr(frame, "seq", None)
