"""The session's rules, as tables: message and time in, actions out."""

from __future__ import annotations

from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import frames as f
from gateway import session as s
from gateway.auth import Identity
from gateway.codes import CloseCode
from gateway.limits import LIMITS, TokenBucket
from gateway.permissions import ROLES, Role, permits
from tests.gateway.examples import CLIENT

FAR = 1e12
HELLO: dict[str, Any] = {"op": "hello", "client": "c", "guest_of": "demo"}


def pack(*frames: Any) -> bytes:
    return msgpack.packb(list(frames) if len(frames) > 1 else frames[0])


def opened(role: Role = "shopper", *, now: float = 0.0, expires: float = FAR) -> s.Session:
    session = s.Session("s-1", "msgpack", now)
    assert session.receive(pack(HELLO), now) == [s.Authenticate(f.Hello(client="c", guest_of="demo"))]
    [welcome] = session.admit(Identity(7, "demo", role, "crowd" if role == "feed" else None, expires), now=now, now_ms=5)
    assert isinstance(welcome, s.Send)
    return session


def frames_sent(actions: list[s.Action]) -> list[f.ServerFrame]:
    return [action.frame for action in actions if isinstance(action, s.Send)]


def error_of(actions: list[s.Action]) -> f.Error:
    [error] = [frame for frame in frames_sent(actions) if isinstance(frame, f.Error)]
    return error


def closing(actions: list[s.Action]) -> CloseCode:
    """The code of the Close that ends the actions; a Bye that agrees stands before it."""
    close = actions[-1]
    assert isinstance(close, s.Close)
    bye = frames_sent(actions)[-1]
    assert isinstance(bye, f.Bye)
    assert bye.reconnect == close.code.reconnect
    return close.code


# --- hello ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message", [pack({"op": "ping", "seq": 1}), b"\xff", b"", pack({"op": "hello"}), pack({"op": "hello", "client": ""}), "text"]
)
def test_whatever_comes_before_hello_ends_the_session(message: bytes | str) -> None:
    session = s.Session("s-1", "msgpack", 0.0)
    assert closing(session.receive(message, 0.0)) == CloseCode.PROTOCOL
    assert session.receive(pack(HELLO), 0.0) == []


def test_no_hello_in_time_ends_the_session() -> None:
    session = s.Session("s-1", "msgpack", 0.0)
    assert session.poll(s.HELLO_S, 0.0) == []
    assert closing(session.poll(s.HELLO_S + 0.1, 0.0)) == CloseCode.SILENT, "a page busy with drawing came late, and was told to give up"


def test_while_the_server_did_not_listen_nobody_was_late() -> None:
    session = s.Session("s-1", "msgpack", 0.0)
    assert session.poll(s.HELLO_S + 100.0, 0.0, stalled_s=100.0) == []
    assert closing(session.poll(s.HELLO_S + 100.1, 0.0)) == CloseCode.SILENT
    session = opened()
    assert session.poll(2 * s.HEARTBEAT_S + 100.0, 0.0, stalled_s=100.0) == [s.Probe()]
    assert closing(session.poll(2 * s.HEARTBEAT_S + 100.1, 0.0)) == CloseCode.SILENT


def test_a_server_that_cannot_answer_hello_asks_the_client_to_come_back() -> None:
    session = s.Session("s-1", "msgpack", 0.0)
    session.receive(pack(HELLO), 0.0)
    assert session.poll(s.HELLO_S + s.JOIN_S, 0.0) == []
    actions = session.poll(s.HELLO_S + s.JOIN_S + 0.1, 0.0, later=lambda now: 7.5)
    assert closing(actions) == CloseCode.FAULT
    assert isinstance(actions[0], s.Send)
    assert isinstance(actions[0].frame, f.Bye)
    assert actions[0].frame.retry_after_s == 7.5


def test_a_second_hello_ends_the_session() -> None:
    assert closing(opened().receive(pack(HELLO), 1.0)) == CloseCode.PROTOCOL


def test_frames_behind_hello_wait_for_welcome_and_keep_their_order() -> None:
    session = s.Session("s-1", "msgpack", 0.0)
    [first] = session.receive(pack(HELLO, {"op": "ping", "seq": 1}), 0.0)
    assert isinstance(first, s.Authenticate)
    assert session.receive(pack({"op": "ping", "seq": 2}), 0.0) == []
    welcome, one, two = session.admit(Identity(7, "demo", "guest", None, FAR), now=0.0, now_ms=5, token="t", resumed=True)
    assert isinstance(welcome, s.Send)
    assert isinstance(welcome.frame, f.Welcome)
    assert (welcome.frame.token, welcome.frame.resumed, welcome.frame.subject) == ("t", True, 7)
    assert [one, two] == [s.Request(f.Ping(seq=1)), s.Request(f.Ping(seq=2))]


def test_frames_behind_hello_are_bounded() -> None:
    session = s.Session("s-1", "msgpack", 0.0)
    session.receive(pack(HELLO), 0.0)
    batch = pack(*[{"op": "ping", "seq": i + 1} for i in range(f.MAX_BATCH)])
    assert session.receive(batch, 0.0) == []
    assert closing(session.receive(pack({"op": "ping", "seq": 999}), 0.0)) == CloseCode.FLOOD


def test_admitting_a_session_that_ended_meanwhile_does_nothing() -> None:
    session = s.Session("s-1", "msgpack", 0.0)
    session.receive(pack(HELLO), 0.0)
    session.lost()
    assert session.admit(Identity(7, "demo", "guest", None, FAR), now=0.0, now_ms=5) == []


# --- messages of several requests ---------------------------------------------------------------------------------------


def pings(first: int, n: int) -> list[dict[str, Any]]:
    return [{"op": "ping", "seq": seq} for seq in range(first, first + n)]


def test_a_message_of_requests_is_handed_out_whole_and_each_counts() -> None:
    session = opened()
    assert session.receive(pack(*pings(1, 5)), 1.0) == [s.Requests([f.Ping(seq=seq) for seq in range(1, 6)])]
    assert session.in_flight == 5
    limit = session.limits.requests
    session.in_flight = limit - 1
    one, refused = session.receive(pack(*pings(6, 2)), 1.0)
    assert one == s.Request(f.Ping(seq=6))
    assert error_of([refused]).code == "limit"
    assert session.in_flight == limit


def test_a_message_beyond_the_rate_is_taken_as_far_as_it_goes_and_takes_no_more_than_that() -> None:
    """Of a person, from the bucket of all their devices too; what one bucket gives and the other does not is not lost."""
    session = s.Session("s-1", "msgpack", 0.0)
    session.receive(pack(HELLO), 0.0)
    person = TokenBucket(0.0, 10, 0.0)
    session.admit(Identity(7, "demo", "shopper", None, FAR), now=0.0, now_ms=5, person=person)
    assert len(session.receive(pack(*pings(1, 7)), 0.0)) == 1
    actions = session.receive(pack(*pings(8, 5)), 0.0)
    assert actions[:3] == [s.Request(f.Ping(seq=seq)) for seq in (8, 9, 10)]
    assert [error.seq for error in frames_sent(actions) if isinstance(error, f.Error)] == [11, 12]
    burst = LIMITS["shopper"].burst
    session = opened()
    session.in_flight = -burst
    assert session.receive(pack(*pings(1, burst)), 0.0) == [s.Requests([f.Ping(seq=seq) for seq in range(1, burst + 1)])]
    assert error_of(session.receive(pack(*pings(99, 1)), 0.0)).code == "limit"


def test_a_message_with_anything_else_in_it_goes_frame_by_frame() -> None:
    session = opened()
    [one, error, two] = session.receive(pack({"op": "ping", "seq": 1}, {"op": "get_books", "seq": 2}, {"op": "ping", "seq": 3}), 1.0)
    assert [one, two] == [s.Request(f.Ping(seq=1)), s.Request(f.Ping(seq=3))]
    assert error_of([error]).code == "forbidden"


# --- garbage, size, rate ----------------------------------------------------------------------------------------------


def test_garbage_is_answered_with_what_and_how_and_repeated_garbage_ends() -> None:
    session = opened("operator")
    for _ in range(s.STRIKES - 1):
        error = error_of(session.receive(pack({"op": "dance", "seq": 3}), 1.0))
        assert (error.code, error.seq) == ("invalid", 3)
        assert "dance" in error.message
    assert closing(session.receive(b"\xc1", 1.0)) == CloseCode.GARBAGE
    assert session.receive(pack({"op": "ping", "seq": 4}), 1.0) == []


def test_a_little_garbage_now_and_then_is_forgiven() -> None:
    session = opened()
    for i in range(5 * s.STRIKES):
        assert error_of(session.receive(b"\xc1", i * s.STRIKE_FORGIVEN_S)).code == "invalid"


@pytest.mark.parametrize("role", ROLES)
def test_a_message_above_the_roles_limit_ends_the_session(role: Role) -> None:
    limit = LIMITS[role].message_bytes
    session = opened(role)
    fits = session.receive(b"\xc1" * limit, 1.0)
    assert error_of(fits).code == "invalid"
    assert closing(session.receive(b"\xc1" * (limit + 1), 1.0)) == CloseCode.TOO_LARGE


def test_before_welcome_the_limit_is_a_guests() -> None:
    session = s.Session("s-1", "msgpack", 0.0)
    assert closing(session.receive(b"\x80" * (f.MAX_GUEST_MESSAGE_BYTES + 1), 0.0)) == CloseCode.TOO_LARGE


def test_a_flood_is_limited_and_then_ended() -> None:
    session = opened("guest")
    limits = LIMITS["guest"]
    ping = pack({"op": "ping", "seq": 1})
    taken = [session.receive(ping, 1.0) for _ in range(limits.burst)]
    for actions in taken:
        session.answered() if isinstance(actions[0], s.Request) else None
    refused = error_of(session.receive(ping, 1.0))
    assert (refused.code, refused.retryable, refused.seq) == ("limit", True, 1)
    assert isinstance(session.receive(ping, 1.0 + 1.5 / limits.frames_per_s)[0], s.Request)
    actions: list[s.Action] = []
    for _ in range(int(s.FLOOD_FACTOR * limits.burst) + 1):
        actions = session.receive(ping, 1.0) or actions
    assert closing(actions) == CloseCode.FLOOD


def test_one_message_of_many_frames_counts_each() -> None:
    session = opened("guest")
    actions = session.receive(
        pack(*[{"op": "find_stores", "seq": i + 1, "venue": "v", "level": 0, "x": 0.0, "y": 0.0} for i in range(f.MAX_BATCH)]), 1.0
    )
    assert sum(isinstance(action, s.Request) for action in actions) == LIMITS["guest"].burst
    assert len(actions) == f.MAX_BATCH


def test_unanswered_requests_are_bounded_and_answers_make_room() -> None:
    session = opened("operator")
    for i in range(LIMITS["operator"].requests):
        assert isinstance(session.receive(pack({"op": "ping", "seq": i + 1}), 1.0)[0], s.Request)
    error = error_of(session.receive(pack({"op": "ping", "seq": 99}), 1.0))
    assert (error.code, error.seq, error.retryable) == ("limit", 99, True)
    session.answered()
    assert isinstance(session.receive(pack({"op": "ping", "seq": 99}), 1.0)[0], s.Request)


# --- permissions and topics -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [frame for frame in CLIENT if not isinstance(frame, f.Hello)], ids=lambda frame: frame.__struct_config__.tag)
@pytest.mark.parametrize("role", ROLES)
def test_a_frame_the_role_may_not_send_is_forbidden_and_the_session_lives(role: Role, frame: f.ClientFrame) -> None:
    session = opened(role)
    actions = session.receive(session.codec.encode(frame), 1.0)
    if permits(role, type(frame)):
        assert not [error for error in frames_sent(actions) if isinstance(error, f.Error)]
    else:
        error = error_of(actions)
        assert (error.code, error.seq) == ("forbidden", getattr(frame, "seq", None))
    assert session.state == "open"


def test_subscriptions_are_bounded_and_a_topic_counts_once() -> None:
    session = opened("guest")
    limit = LIMITS["guest"].subscriptions
    for i in range(limit):
        [join] = session.receive(pack({"op": "subscribe", "seq": i + 1, "topic": f"venue/v/density/{i}"}), 1.0)
        assert isinstance(join, s.Join)
        assert join.rate_hz == 2.0
    assert isinstance(session.receive(pack({"op": "subscribe", "seq": 50, "topic": "venue/v/density/0", "rate_hz": 5.0}), 1.0)[0], s.Join)
    assert error_of(session.receive(pack({"op": "subscribe", "seq": 51, "topic": "venue/v/stats"}), 1.0)).code == "limit"
    assert session.receive(pack({"op": "unsubscribe", "seq": 52, "topic": "venue/v/density/0"}), 1.0) == [s.Part(52, "venue/v/density/0")]
    assert isinstance(session.receive(pack({"op": "subscribe", "seq": 53, "topic": "venue/v/stats"}), 1.0)[0], s.Join)


@pytest.mark.parametrize(
    ("topic", "code"), [("venue/v/dots/0", "forbidden"), ("payments", "forbidden"), ("venue/v/pushes", "invalid"), ("x", "invalid")]
)
def test_a_topic_that_is_not_for_shoppers(topic: str, code: str) -> None:
    assert error_of(opened("shopper").receive(pack({"op": "subscribe", "seq": 1, "topic": topic}), 1.0)).code == code


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_silent_client_is_probed_once_and_then_disconnected() -> None:
    session = opened()
    assert session.poll(s.HEARTBEAT_S, 0.0) == []
    assert session.poll(s.HEARTBEAT_S + 0.1, 0.0) == [s.Probe()]
    assert session.poll(s.HEARTBEAT_S + 1.0, 0.0) == []
    assert closing(session.poll(2 * s.HEARTBEAT_S + 0.1, 0.0)) == CloseCode.SILENT


def test_an_answered_probe_keeps_the_session() -> None:
    session = opened()
    for minute in range(1, 10):
        now = minute * 45.0
        assert session.poll(now, 0.0) == [s.Probe()]
        session.heard(now)


def test_a_token_that_runs_out_ends_the_session() -> None:
    session = opened(expires=100.0)
    assert session.poll(1.0, 99.9) == []
    assert closing(session.poll(1.0, 100.0)) == CloseCode.EXPIRED


# --- pushes -----------------------------------------------------------------------------------------------------------


def a_push(n: int, offer: str = "o") -> f.Push:
    return f.Push(id=f"{offer}.7.{n}", kind="NEARBY", venue="v", offer=offer, unit="u", title="t", text="", tick=n, place=f.Place(1, n))


def test_a_push_is_sent_again_until_acked() -> None:
    session = opened()
    push = a_push(1)
    assert session.push(push, ends_tick=1000, now=0.0) == [s.Send(push)]
    assert session.poll(s.REDELIVER_S - 0.1, 0.0) == []
    assert session.poll(s.REDELIVER_S, 0.0) == [s.Send(push)]
    assert session.receive(pack({"op": "ack", "pushes": [push.id, "never.sent.0"]}), s.REDELIVER_S + 1) == []
    assert session.poll(2 * s.REDELIVER_S + 5, 0.0) == []
    assert session.pending == 0


def test_a_push_nobody_acks_is_sent_four_times_and_given_up() -> None:
    session = opened()
    sent = session.push(a_push(1), ends_tick=1000, now=0.0)
    for i in range(1, 10):
        session.heard(i * s.REDELIVER_S)
        sent += session.poll(i * s.REDELIVER_S, 0.0)
    assert sent == [s.Send(a_push(1))] * s.DELIVERIES
    assert (session.pending, session.abandoned) == (0, 1)


def test_the_same_push_again_while_it_waits_is_not_sent_twice() -> None:
    session = opened()
    session.push(a_push(1), ends_tick=1000, now=0.0)
    assert session.push(a_push(1), ends_tick=1000, now=0.1) == []


def test_pushes_of_an_offer_that_ended_are_not_sent_again() -> None:
    session = opened()
    for push in (a_push(1, "a"), a_push(2, "b"), a_push(3, "c")):
        session.push(push, ends_tick=600 if push.offer == "c" else 9000, now=0.0)
    session.offer_ended("v", "a")
    session.offer_ended("another", "b")
    session.tick_closed("v", 599)
    assert session.pending == 2
    session.tick_closed("v", 600)
    assert frames_sent(session.poll(s.REDELIVER_S, 0.0)) == [a_push(2, "b")]


def test_unacked_pushes_are_bounded() -> None:
    session = opened()
    for n in range(3 * s.MAX_PENDING):
        assert session.push(a_push(n), ends_tick=9000, now=0.0)
    assert session.pending == s.MAX_PENDING
    assert session.abandoned == 2 * s.MAX_PENDING


def test_an_ended_session_takes_no_push() -> None:
    session = opened()
    session.end(CloseCode.DRAINING, "bye", code="unavailable")
    assert session.push(a_push(1), ends_tick=9, now=0.0) == []
    assert session.poll(100.0, 0.0) == []
    assert session.end(CloseCode.FAULT, "again", code="fault") == []


# --- fuzz -------------------------------------------------------------------------------------------------------------

CLOSED_SET = get_args(s.Action)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20) | st.binary(max_size=20)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12)
ops = st.sampled_from([frame.__struct_config__.tag for frame in CLIENT]) | st.text(max_size=8)
nearly = st.builds(
    lambda op, base, change: {**base, **change, "op": op},
    ops,
    st.sampled_from([msgpack.unpackb(frame_bytes) for frame_bytes in (s.CODECS["msgpack"].encode(frame) for frame in CLIENT)]),
    st.dictionaries(st.sampled_from(["seq", "venue", "level", "x", "tick", "subject", "key", "topic", "rate_hz", "pushes"]), values, max_size=3),
)
messages = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=50),
    values.map(msgpack.packb),
    nearly.map(msgpack.packb),
    st.lists(nearly, max_size=6).map(msgpack.packb),
    st.sampled_from([s.CODECS["msgpack"].encode(frame) for frame in CLIENT]).flatmap(lambda m: st.integers(0, len(m)).map(lambda n: m[:n])),
)


@settings(max_examples=300)
@given(st.sampled_from(ROLES), st.lists(st.tuples(messages, st.floats(0, 20)), max_size=12), st.booleans())
def test_whatever_comes_the_session_stays_within_its_actions(role: Role, sent: list[tuple[bytes | str, float]], admit: bool) -> None:
    session = opened(role) if admit else s.Session("s-1", "msgpack", 0.0)
    now = 0.0
    for message, wait in sent:
        now += wait
        before = session.state
        actions = [*session.receive(message, now), *session.poll(now, 0.0)]
        assert all(isinstance(action, CLOSED_SET) for action in actions)
        closes = [i for i, action in enumerate(actions) if isinstance(action, s.Close)]
        assert closes in ([], [len(actions) - 1])
        assert (session.state == "closed") == (bool(closes) or before == "closed")
        for action in actions:
            if isinstance(action, s.Request):
                assert permits(role, type(action.frame))
            if isinstance(action, s.Send):
                session.codec.encode(action.frame)
        assert 0 <= session.in_flight <= session.limits.requests
        assert len(session.topics) <= session.limits.subscriptions


# --- a fresh token, and views -----------------------------------------------------------------------------------------


def test_a_fresh_token_prolongs_the_session_and_never_shortens_it() -> None:
    session = opened(expires=100.0)
    assert session.receive(pack({"op": "renew", "seq": 1, "token": "t"}), 1.0) == [s.Verify(1, "t")]
    assert frames_sent(session.renew(Identity(7, "demo", "shopper", None, 500.0), 1)) == [f.Done(seq=1)]
    session.answered()
    assert session.in_flight == 0
    assert frames_sent(session.renew(Identity(7, "demo", "shopper", None, 50.0), 2)) == [f.Done(seq=2)]
    session.heard(490.0)
    assert session.poll(490.0, 499.0) == []
    assert closing(session.poll(491.0, 500.0)) is CloseCode.EXPIRED
    assert session.renew(Identity(7, "demo", "shopper", None, 900.0), 3) == []


@pytest.mark.parametrize(
    "other",
    [Identity(8, "demo", "shopper", None, 500.0), Identity(7, "other", "shopper", None, 500.0), Identity(7, "demo", "operator", None, 500.0),
     Identity(7, "demo", "shopper", "crowd", 500.0)],
)  # fmt: skip
def test_a_token_of_somebody_else_renews_nothing(other: Identity) -> None:
    session = opened(expires=100.0)
    assert error_of(session.renew(other, 1)).code == "forbidden"
    assert closing(session.poll(1.0, 100.0)) is CloseCode.EXPIRED


VIEW = {"x0": 0, "y0": 0, "x1": 10, "y1": 10}


@pytest.mark.parametrize(
    "more",
    [{"topic": "venue/v/density/0", "view": VIEW}, {"topic": "venue/v/dots/0", "view": VIEW | {"x1": 0}}, {"topic": "venue/v/dots/0", "bytes_per_s": 5000},
     {"topic": "venue/v/dots/0", "view": VIEW, "bytes_per_s": 1}, {"topic": "venue/v/stats", "resume": [1, 2]}, {"topic": "venue/v/dots/0", "view": {"x0": 1}},
     {"topic": "venue/v/stats", "resume": {"epoch": 1, "offset": 2}}],
)  # fmt: skip
def test_a_subscription_that_makes_no_sense_is_refused(more: dict[str, Any]) -> None:
    session = opened("operator")
    assert error_of(session.receive(pack({"op": "subscribe", "seq": 1, **more}), 1.0)).code == "invalid"
    assert session.topics == {}


def test_a_view_a_place_and_what_was_drawn_are_handed_on() -> None:
    session = opened("operator")
    [view] = session.receive(pack({"op": "subscribe", "seq": 1, "topic": "venue/v/dots/0", "view": VIEW, "bytes_per_s": 5000}), 1.0)
    assert isinstance(view, s.Join)
    assert (view.view, view.bytes_per_s) == (f.View(0, 0, 10, 10), 5000)
    [place] = session.receive(pack({"op": "subscribe", "seq": 2, "topic": "venue/v/offers", "resume": {"epoch": 1, "offset": 2}}), 1.0)
    assert isinstance(place, s.Join)
    assert place.resume == f.Place(1, 2)
    assert session.receive(pack({"op": "saw", "topic": "venue/v/dots/0", "number": 3}), 1.0) == [s.Looked("venue/v/dots/0", 3)]
    assert session.in_flight == 0
