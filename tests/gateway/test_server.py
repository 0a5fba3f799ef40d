"""The gateway on real sockets over the system in one process: what clients see."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as ws_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from benchmarks.socket_readers import masked
from esplanade.core.errors import Conflict, Forbidden, InvalidInput, LimitExceeded, NotFound, Unauthenticated, Unavailable
from gateway import frames as f
from gateway import session as session_module
from gateway.client import Client
from gateway.codes import CloseCode
from tests.actors.parkside import keys, named, rows, u2, u4
from tests.gateway.mall import TILL, VENUE, Mall, running_mall, until

pytestmark = pytest.mark.services

OFFER = {"id": "books", "unit_id": "shop-00", "title": "Books", "audience": {"type": "within", "radius_m": 5.0}}
FLASH = {"id": "flash", "unit_id": "shop-01", "title": "Half price", "audience": {"type": "inside"}, "flash": True}
DOOR = (7.0, 19.5)


@pytest.fixture
async def mall() -> AsyncIterator[Mall]:
    async with running_mall() as running:
        yield running


async def raw(url: str, *, json_text: bool = False, **more: Any) -> ClientConnection:
    protocol = f.SUBPROTOCOLS[1 if json_text else 0]
    return await ws_connect(url, subprotocols=[Subprotocol(protocol)], compression=None, proxy=None, max_size=2**24, **more)


async def closed_with(ws: ClientConnection) -> tuple[int, list[Any]]:
    """Close code, and the frames read before it."""
    frames: list[Any] = []
    try:
        async with asyncio.timeout(20):
            while True:
                message = msgpack.unpackb(await ws.recv())
                frames += message if isinstance(message, list) else [message]
    except ConnectionClosed:
        assert ws.close_code is not None
        return ws.close_code, frames


# --- the everyday path ------------------------------------------------------------------------------------------------


async def test_a_guest_walks_in_moves_gets_a_push_acks_and_pays(mall: Mall) -> None:
    _, url = await mall.gateway()
    operator = await mall.client(url, 1, "operator")
    await operator.request("create_offer", venue=VENUE, offer=OFFER)
    guest = await mall.guest(url)
    subject = guest.welcome["subject"]
    assert subject >= 2**30
    walked = await guest.walk_in(VENUE, "north_entrance")
    assert (walked["venue_name"], walked["level"], walked["x"], walked["y"]) == ("Parkside", 0, 20.0, 0.0)
    assert walked["stores"]
    await guest.move(VENUE, 0, *DOOR, ack=True)
    push = await guest.event("push")
    assert (push["offer"], push["kind"], push["title"]) == ("books", "NEARBY", "Books")
    assert push["id"] == f"books.{subject}.{push['tick']}"
    await guest.ack(push["id"])
    with pytest.raises(Exception, match="wallet_not_found"):
        await guest.pay(VENUE, TILL, 250, "EUR", key=b"k" * 16)
    settled = await operator.top_ups(tick=1, key=keys(1), subject=u4(subject), amount=u4(1000), currency="EUR")
    assert named(settled["codes"], settled["result"]) == ["settled"]
    paid = await guest.pay(VENUE, TILL, 250, "EUR", key=b"k" * 16)
    assert (paid["balance"], paid["key"]) == (750, b"k" * 16)
    assert (await guest.pay(VENUE, TILL, 250, "EUR", key=b"k" * 16))["balance"] == 750
    assert await guest.balance() == {"EUR": 750}
    books = await operator.request("get_books")
    assert (books["total"], books["tills"], books["payments"]) == ({"EUR": 0}, {"EUR": 250}, 1)


async def test_a_guest_that_comes_back_with_its_token_is_the_same_person(mall: Mall) -> None:
    _, url = await mall.gateway()
    guest = await mall.guest(url)
    again = await Client.connect(url, token=guest.welcome["token"], client="guest-2")
    assert again.welcome["subject"] == guest.welcome["subject"]
    assert "token" not in again.welcome
    await again.close()


async def test_json_and_msgpack_clients_see_the_same(mall: Mall) -> None:
    _, url = await mall.gateway()
    token = mall.token(9)
    replies = []
    for text in (False, True):
        ws = await raw(url, json_text=text)

        async def ask(frames: Any, ws: ClientConnection = ws, text: bool = text) -> Any:
            await ws.send(json.dumps(frames) if text else msgpack.packb(frames))
            message = await ws.recv()
            return json.loads(message) if text else msgpack.unpackb(message)  # type: ignore[arg-type]

        welcome = await ask({"op": "hello", "client": f"c{text}", "token": token, "venue": VENUE})
        stores = await ask({"op": "find_stores", "seq": 1, "venue": VENUE, "level": 1, "x": 5, "y": 5, "k": 2})
        both = await ask([{"op": "ping", "seq": 2}, {"op": "ping", "seq": 3}])
        error = await ask({"op": "dance", "seq": 4})
        replies.append((welcome["subject"], welcome["limits"], stores, [reply["seq"] for reply in both], error))
        await ws.close()
    assert replies[0] == replies[1]
    assert [store["unit_id"] for store in replies[0][2]["stores"]] == ["shop-10", "shop-11"]


async def test_a_search_forgives_typos_and_wants_a_whole_place_or_none(mall: Mall) -> None:
    _, url = await mall.gateway()
    shopper = await mall.client(url, 5)
    found = await shopper.request("search", venue=VENUE, text="Shpo 11", level=1, x=5.0, y=5.0)
    assert found["stores"][0]["unit_id"] == "shop-11"
    with pytest.raises(InvalidInput, match="all three, or none"):
        await shopper.request("search", venue=VENUE, text="Shop", level=1)


# --- who is let in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hello", "code", "error"),
    [
        ({}, CloseCode.UNAUTHENTICATED, "unauthenticated"),
        ({"token": "a.b.c"}, CloseCode.UNAUTHENTICATED, "unauthenticated"),
        ({"guest_of": "nobody"}, CloseCode.REFUSED, "not_found"),
        ({"guest_of": "demo", "venue": "nowhere"}, CloseCode.REFUSED, "not_found"),
        ({"guest_of": "demo", "venue": "elsewhere"}, CloseCode.REFUSED, "not_found"),
    ],
)
async def test_a_hello_that_cannot_be_met_is_refused_with_a_code(mall: Mall, hello: dict[str, Any], code: CloseCode, error: str) -> None:
    _, url = await mall.gateway()
    ws = await raw(url)
    await ws.send(msgpack.packb({"op": "hello", "client": "c", **hello}))
    closed, frames = await closed_with(ws)
    assert closed == code
    assert (frames[-1]["op"], frames[-1]["code"], frames[-1]["reconnect"]) == ("bye", error, False)


async def test_an_expired_token_is_refused(mall: Mall) -> None:
    _, url = await mall.gateway()
    token = mall.signer.issue(5, "demo", "shopper", None, 10, mall.clock.unix_ms() / 1000 - 60)
    with pytest.raises(Unauthenticated, match="expired"):
        await Client.connect(url, token=token, client="c")


async def test_a_handshake_of_a_stranger_is_refused(mall: Mall) -> None:
    server, url = await mall.gateway(allowed_origins=("https://shop.example",))
    for origin, status in [("http://evil.example", 403), ("null", 403), ("https://shop.example:444", 403)]:
        with pytest.raises(InvalidStatus) as refused:
            await raw(url, origin=Origin(origin))
        assert refused.value.response.status_code == status
    for origin in ("https://shop.example", "http://localhost:5173", "http://127.0.0.1:80"):
        await (await raw(url, origin=Origin(origin))).close()
    with pytest.raises(InvalidStatus) as refused:
        await raw(url.replace("/v1/ws", "/v2"))
    assert refused.value.response.status_code == 404
    with pytest.raises(InvalidStatus) as refused:
        await ws_connect(url, subprotocols=[Subprotocol("mqtt")], proxy=None)
    assert refused.value.response.status_code == 400
    assert server.metrics.value("esplanade_gateway_refused_connections_total", "origin") == 3


async def test_connections_are_bounded(mall: Mall) -> None:
    server, url = await mall.gateway(max_connections=2)
    first, second = await raw(url), await raw(url)
    with pytest.raises(InvalidStatus) as refused:
        await raw(url)
    assert refused.value.response.status_code == 503
    assert "Retry-After" in refused.value.response.headers
    await first.close()
    await until(lambda: server.connections == 1)
    await (await raw(url)).close()
    await second.close()


async def test_another_tenants_venue_is_not_there(mall: Mall) -> None:
    _, url = await mall.gateway()
    shopper = await mall.client(url, 5)
    for op, more in [
        ("walk_in", {"location": "north_entrance"}),
        ("move", {"level": 0, "x": 1.0, "y": 1.0, "ack": True}),
        ("leave", {}),
        ("get_offers", {}),
        ("get_clock", {}),
        ("find_stores", {"level": 0, "x": 1.0, "y": 1.0}),
        ("pay", {"key": b"k" * 16, "unit": TILL, "amount": 5, "currency": "EUR"}),
    ]:
        with pytest.raises(NotFound):
            await shopper.request(op, venue="elsewhere", **more)
    for topic in ("venue/elsewhere/stats", "venue/elsewhere/density/0"):
        with pytest.raises(NotFound):
            await shopper.subscribe(topic)
    neighbour = await mall.client(url, 5, tenant="other")
    await neighbour.walk_in("elsewhere", "north_entrance")


async def test_bad_requests_are_told_and_the_session_lives(mall: Mall) -> None:
    _, url = await mall.gateway()
    shopper = await mall.client(url, 5)
    with pytest.raises(InvalidInput, match="levels 0 to 1"):
        await shopper.move(VENUE, 7, 1.0, 1.0, ack=True)
    with pytest.raises(InvalidInput, match="no source"):
        await shopper.move(VENUE, 0, 1.0, 1.0, tick=5, ack=True)
    with pytest.raises(InvalidInput):
        await shopper.move(VENUE, 0, float("nan"), 1.0, ack=True)
    with pytest.raises(Exception, match="entrance") as refused:
        await shopper.walk_in(VENUE, "chimney")
    assert refused.value.code == "entrance_not_found"  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match="no till"):
        await shopper.pay(VENUE, "shop-02", 5, "EUR", key=b"k" * 16)
    with pytest.raises(NotFound):
        await shopper.pay(VENUE, "shop-99", 5, "EUR", key=b"k" * 16)
    with pytest.raises(InvalidInput, match="minor units"):
        await shopper.pay(VENUE, TILL, 2**32, "EUR", key=b"k" * 16)
    with pytest.raises(Forbidden):
        await shopper.request("get_books")
    with pytest.raises(InvalidInput):
        await shopper.request("dance")
    assert (await shopper.request("ping"))["op"] == "pong"


# --- limits on sockets ------------------------------------------------------------------------------------------------


async def test_oversize_and_garbage_end_one_connection_and_no_other(mall: Mall) -> None:
    _, url = await mall.gateway()
    neighbour = await mall.client(url, 6)
    for size, expected in [(f.MAX_GUEST_MESSAGE_BYTES + 1, CloseCode.TOO_LARGE), (20 * f.MAX_GUEST_MESSAGE_BYTES, 1009)]:
        ws = await raw(url)
        await ws.send(msgpack.packb({"op": "hello", "client": "c", "token": mall.token(5)}))
        await ws.recv()
        await ws.send(b"\xc1" * size)
        code, _ = await closed_with(ws)
        assert code == expected
    ws = await raw(url)
    await ws.send(msgpack.packb({"op": "hello", "client": "c", "token": mall.token(5)}))
    for _ in range(session_module.STRIKES):
        await ws.send(b"\xc1")
    code, frames = await closed_with(ws)
    assert code == CloseCode.GARBAGE
    assert sum(frame["op"] == "error" for frame in frames) == session_module.STRIKES
    assert (await neighbour.request("ping"))["op"] == "pong"


async def test_a_message_in_fragments_and_what_comes_with_the_handshake_are_read(mall: Mall) -> None:
    _, url = await mall.gateway()
    hello = {"op": "hello", "client": "c", "token": mall.token(9)}
    packed = msgpack.packb(hello)
    ws = await raw(url)
    await ws.send([packed[:3], b"", packed[3:]])
    assert msgpack.unpackb(await ws.recv())["op"] == "welcome"
    await ws.send([packed[:1]] * 3 + [packed])
    assert msgpack.unpackb(await ws.recv())["code"] == "invalid"
    await ws.close()

    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
    writer.write(
        b"GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: esplanade.v1.msgpack\r\n\r\n"
    )
    for frame in (hello, {"op": "ping", "seq": 1}, {"op": "ping", "seq": 2}):
        writer.write(masked(msgpack.packb(frame)))
    async with asyncio.timeout(20):
        answered = await reader.readuntil(b"\xa3seq\x02")
    assert [answered.count(op) for op in (b"welcome", b"pong")] == [1, 2]
    writer.close()


def _frame(first: int, payload: bytes) -> bytes:
    """A client's frame, masked, of this first byte (RFC 6455 section 5.2)."""
    n, key = len(payload), b"\x0f\xf0\x55\xaa"
    length = struct.pack(">BH", 0xFE, n) if n >= 126 else struct.pack(">B", 0x80 | n)
    return bytes([first]) + length + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


@pytest.mark.parametrize("seed", range(4))
async def test_a_stream_cut_anywhere_is_read_frame_by_frame(mall: Mall, seed: int) -> None:
    """Whole messages, fragments with pings between them, and a reserved bit at the end, in pieces of any size."""
    chance = random.Random(seed)
    server, url = await mall.gateway()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
    writer.write(
        b"GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: esplanade.v1.msgpack\r\n\r\n"
    )
    async with asyncio.timeout(20):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_frame(0x82, msgpack.packb({"op": "hello", "client": "c", "token": mall.token(5, "operator")})))
        await reader.readuntil(b"welcome")
    stream, pings = b"", 0
    for seq in range(1, 41):
        message = msgpack.packb({"op": "ping", "seq": seq, "pad": b"x" * chance.choice([0, 40, 110, 126, 3000])})
        if chance.random() < 0.6:
            stream += _frame(0x82, message)
            continue
        cut = chance.randrange(len(message))
        stream += _frame(0x02, message[:cut]) + _frame(0x89, b"still") + _frame(0x80, message[cut:])
        pings += 1
    at = 0
    while at < len(stream):
        size = chance.choice([1, 2, 5, 7, 64, 1000, 10_000])
        writer.write(stream[at : at + size])
        await writer.drain()
        await asyncio.sleep(0)
        at += size
    answered = b""
    async with asyncio.timeout(20):
        while answered.count(b"\xa4pong") < 40:
            answered += await reader.read(65_536)
        writer.write(_frame(0xC2, b"a reserved bit"))
        end = await reader.read(-1)
    assert answered.count(b"\xa4pong") == 40
    assert answered.count(b"\x8a\x05still") == pings
    assert (end[:1], struct.pack(">H", 1002) in end) == (b"\x88", True), "a close, for a protocol error"
    writer.close()
    await until(lambda: server.connections == 0)


async def test_text_that_is_not_utf_8_ends_the_connection_as_the_standard_says(mall: Mall) -> None:
    server, url = await mall.gateway()
    ws = await raw(url, json_text=True)
    await ws.send(b'{"op": "hello", "client": "\xff"}', text=True)
    with pytest.raises(ConnectionClosed):
        await ws.recv()
    assert ws.close_code == 1007
    await until(lambda: server.connections == 0)


async def test_a_flood_is_refused_and_ended_and_a_neighbour_is_served(mall: Mall) -> None:
    server, url = await mall.gateway()
    neighbour = await mall.client(url, 6)
    ws = await raw(url)
    await ws.send(msgpack.packb({"op": "hello", "client": "c", "token": mall.token(5)}))
    message = msgpack.packb([{"op": "ping", "seq": i + 1} for i in range(256)])
    try:
        for _ in range(20):
            await ws.send(message)
            assert (await neighbour.request("ping"))["op"] == "pong"
    except ConnectionClosed:
        pass
    code, frames = await closed_with(ws)
    assert code == CloseCode.FLOOD
    assert frames[-1]["reconnect"] is True
    assert server.metrics.value("esplanade_gateway_errors_total", "limit") >= 100


async def test_a_feed_may_send_large_messages_once_welcome(mall: Mall) -> None:
    _, url = await mall.gateway()
    feed = await mall.client(url, 1, "feed", source="crowd")
    await feed.open_source(VENUE, "crowd", 1)
    n = 50_000
    columns = rows((0, 0, 1.0, 1.0))
    subject = np.arange(n, dtype=np.uint32)
    big = type(columns)(subject, np.zeros(n, np.uint8), np.full(n, 5, np.float32), np.full(n, 5, np.float32))
    await feed.columns(VENUE, "crowd", 1, big)
    assert len(mall.taken[-1][2]) == n


async def test_a_slow_reader_is_cut_off_and_does_not_delay_others(mall: Mall) -> None:
    server, url = await mall.gateway()
    slow = await raw(url, max_queue=1)
    await slow.send(msgpack.packb({"op": "hello", "client": "c", "token": mall.token(5, "operator")}))
    await slow.recv()
    slow.transport.pause_reading()
    neighbour = await mall.client(url, 6, "operator")
    [connection] = [c for c in server._connections if c.identity.subject == 5]
    frame = msgpack.packb({"op": "stats", "pad": b"x" * 100_000})
    while connection.session.state == "open":
        connection.write(frame)
        assert (await neighbour.request("ping"))["op"] == "pong"
    assert connection.backlog() < 2 * connection.session.limits.high_bytes
    slow.transport.resume_reading()
    code, _ = await closed_with(slow)
    assert code in (CloseCode.SLOW, 1006)  # 1006: the socket was cut before the close frame got through
    await until(lambda: server.metrics.value("esplanade_gateway_disconnects_total", str(int(CloseCode.SLOW))) == 1)


# --- positions --------------------------------------------------------------------------------------------------------


async def test_a_driven_venue_closes_ticks_by_columns_and_by_clients_of_the_source(mall: Mall) -> None:
    _, url = await mall.gateway()
    feed = await mall.client(url, 1, "feed", source="crowd")
    walker = await mall.client(url, 100, source="crowd")
    operator = await mall.client(url, 2, "operator")
    await operator.request("create_offer", venue=VENUE, offer=FLASH)
    state = await feed.open_source(VENUE, "crowd", 1)
    assert state["driven"]
    await feed.subscribe(f"venue/{VENUE}/clock", rate_hz=10)
    first = state["tick"] + 1
    for tick in range(first, first + 5):
        await feed.watermark(VENUE, "crowd", tick, 3)  # before the rows: they are counted, not ordered
        await feed.columns(VENUE, "crowd", tick, rows((7, 0, 5.0, 5.0), (8, 1, 5.0, 5.0)))
        await walker.move(VENUE, 0, 6.0, 6.0, tick=tick)
    await until(lambda: any(frame["op"] == "closed" and frame["tick"] == first + 4 for frame in feed._events))
    push = await walker.event("push")
    assert (push["offer"], push["kind"]) == ("flash", "NEW_OFFER")
    pushed = await feed.event("push_columns")
    assert np.frombuffer(pushed["subject"], "<u4").tolist() == [7, 8]
    clock = await feed.request("get_clock", venue=VENUE)
    assert (clock["tick"], clock["late_rows"], clock["late_ticks"]) == (first + 4, 0, 0)
    assert {(source, tick) for source, tick, _ in mall.taken} == {("crowd", tick) for tick in range(first, first + 5)}
    assert sum(len(columns) for *_, columns in mall.taken) == 15


async def test_a_feed_speaks_only_for_its_own_source(mall: Mall) -> None:
    _, url = await mall.gateway()
    feed = await mall.client(url, 1, "feed", source="crowd")
    with pytest.raises(Forbidden, match="another"):
        await feed.open_source(VENUE, "another", 1)
    with pytest.raises(Forbidden):
        await feed.columns(VENUE, "another", 1, rows((7, 0, 5.0, 5.0)))
    await feed.watermark(VENUE, "another", 1, 0)
    error = await feed.event("error")
    assert error["code"] == "forbidden"
    assert "seq" not in error


async def test_bad_columns_are_refused_by_the_row(mall: Mall) -> None:
    _, url = await mall.gateway()
    feed = await mall.client(url, 1, "feed", source="crowd")
    await feed.open_source(VENUE, "crowd", 1)
    for people, says in [
        (((7, 5, 1.0, 1.0),), "level 5"),
        (((7, 0, 1.0, 1.0), (7, 0, 2.0, 2.0)), "subject 7 occurs twice"),
        (((7, 0, float("nan"), 1.0),), "finite"),
        (((7, 0, 2e6, 1.0),), "within"),
    ]:
        with pytest.raises(InvalidInput, match=says):
            await feed.columns(VENUE, "crowd", 1, rows(*people))
    with pytest.raises(InvalidInput, match="4n"):
        await feed.request("columns", venue=VENUE, source="crowd", tick=1, subject=b"123", level=b"1", x=b"", y=b"")
    assert mall.taken == []


async def test_moves_of_many_sessions_reach_the_host_in_few_calls(mall: Mall) -> None:
    server, url = await mall.gateway()
    clients = [await mall.client(url, 100 + i) for i in range(20)]
    await asyncio.gather(*(client.move(VENUE, 0, 5.0, 5.0, ack=True) for client in clients))  # each is in the venue now
    before = len(mall.taken)
    await asyncio.gather(*(client.move(VENUE, 0, 6.0, 6.0, ack=True) for client in clients))
    after = mall.taken[before:]
    assert sorted(np.concatenate([columns.subject for *_, columns in after]).tolist()) == list(range(100, 120))
    assert len(after) < 20
    assert server.metrics.value("esplanade_gateway_position_rows_total") == 40


# --- money by columns -------------------------------------------------------------------------------------------------


async def test_money_columns_are_split_by_ledger_and_put_together_again(mall: Mall) -> None:
    _, url = await mall.gateway()
    feed = await mall.client(url, 1, "feed", source="crowd")
    subjects = [17, 3, 8, 25, 4]
    settled = await feed.top_ups(tick=1, key=keys(*range(5)), subject=u4(*subjects), amount=u4(100, 200, 300, 400, 500), currency="EUR")
    assert named(settled["codes"], settled["result"]) == ["settled"] * 5
    paid = await feed.payments(
        venue=VENUE, tick=2, key=keys(*range(10, 16)), subject=u4(4, 17, 3, 99, 25, 8), unit=u2(0, 1, 0, 1, 0, 1), amount=u4(500, 101, 1, 1, 400, 0), currency="EUR"
    )  # fmt: skip
    assert named(paid["codes"], paid["result"]) == ["settled", "exceeds_balance", "settled", "wallet_not_found", "settled", "amount_must_be_positive"]
    with pytest.raises(InvalidInput, match="no till"):
        await feed.payments(venue=VENUE, tick=2, key=keys(1), subject=u4(3), unit=u2(2), amount=u4(1), currency="EUR")
    with pytest.raises(InvalidInput, match="16n"):
        await feed.top_ups(tick=1, key=b"short", subject=u4(1), amount=u4(1), currency="EUR")
    operator = await mall.client(url, 2, "operator")
    books = await operator.request("get_books")
    assert (books["total"]["EUR"], books["wallets"]["EUR"], books["tills"]["EUR"], books["outside"]["EUR"]) == (0, 599, 901, -1500)


async def test_many_single_payments_at_once_all_settle(mall: Mall) -> None:
    server, url = await mall.gateway()
    operator = await mall.client(url, 2, "operator")
    people = list(range(200, 240))
    await operator.top_ups(tick=1, key=keys(*people), subject=u4(*people), amount=u4(*[1000] * 40), currency="EUR")
    clients = [await mall.client(url, subject) for subject in people]
    paid = await asyncio.gather(*(client.pay(VENUE, TILL, 10 + i, "EUR", key=i.to_bytes(16, "big"), tick=5) for i, client in enumerate(clients)))
    assert [reply["balance"] for reply in paid] == [990 - i for i in range(40)]
    assert server.metrics.value("esplanade_gateway_payment_batches_total") <= 40


# --- operators --------------------------------------------------------------------------------------------------------


async def test_an_operator_runs_offers_bays_and_zones(mall: Mall) -> None:
    _, url = await mall.gateway()
    operator, shopper = await mall.client(url, 1, "operator"), await mall.client(url, 5)
    await shopper.subscribe(f"venue/{VENUE}/offers")
    await shopper.subscribe(f"venue/{VENUE}/parking")
    await operator.request("create_offer", venue=VENUE, offer=OFFER)
    assert [offer["id"] for offer in (await shopper.request("get_offers", venue=VENUE))["offers"]] == ["books"]
    with pytest.raises(NotFound):
        await operator.request("create_offer", venue=VENUE, offer={**OFFER, "id": "x", "unit_id": "nowhere"})
    with pytest.raises(InvalidInput, match="radius"):
        await operator.request("create_offer", venue=VENUE, offer={**OFFER, "id": "x", "audience": {"type": "within", "radius_m": 0.0}})
    parking = await operator.request("set_bays", venue=VENUE, bays=[{"unit_id": "bay-0", "occupied": True}])
    assert (parking["total"], parking["free"]) == (2, 1)
    with pytest.raises(Exception, match="bay"):
        await operator.request("set_bays", venue=VENUE, bays=[{"unit_id": "shop-00", "occupied": True}])
    await operator.request("end_offer", venue=VENUE, offer="books", tick=10**6)
    states = [await shopper.event("offer_state"), (await shopper.event("parking"))["free"], await shopper.event("offer_state")]
    assert [states[0]["ended"], states[1], states[2]["ended"]] == [False, 1, True]
    zone = await operator.request("get_zone", venue=VENUE, zone="front")
    assert zone["inside"] == 0
    with pytest.raises(NotFound):
        await operator.request("get_zone", venue=VENUE, zone="moon")


async def test_live_views_reach_who_may_see_them(mall: Mall) -> None:
    _, url = await mall.gateway()
    operator, shopper = await mall.client(url, 1, "operator"), await mall.client(url, 5)
    await shopper.move(VENUE, 0, 5.0, 5.0, ack=True)
    await operator.subscribe(f"venue/{VENUE}/dots/0", rate_hz=10)
    await operator.subscribe(f"venue/{VENUE}/stats", rate_hz=10)
    await shopper.subscribe(f"venue/{VENUE}/density/0", rate_hz=10)
    dots = await operator.event("dots")
    assert np.frombuffer(dots["x"], "<f4").tolist() == [5.0]
    assert np.frombuffer(dots["pseudonym"], "<u4").tolist() != [5]
    density = await shopper.event("density")
    assert not any(density["count"])  # one person is nobody
    with pytest.raises(Forbidden):
        await shopper.subscribe(f"venue/{VENUE}/dots/0")
    with pytest.raises(InvalidInput, match="levels 0 to 1"):
        await operator.subscribe(f"venue/{VENUE}/dots/9")


# --- coming and going -------------------------------------------------------------------------------------------------


async def test_a_connection_lost_comes_back_and_resumes_exactly(mall: Mall) -> None:
    server, url = await mall.gateway()
    feed = await mall.client(url, 1, "feed", source="crowd")
    operator = await mall.client(url, 2, "operator")
    offers = [{**FLASH, "id": f"o{i}", "cap": 255, "cooldown_ticks": 0} for i in range(3)]
    for offer in offers:
        await operator.request("create_offer", venue=VENUE, offer=offer)
    tick = (await feed.open_source(VENUE, "crowd", 1))["tick"]

    async def step(level: int) -> None:
        nonlocal tick
        tick += 1
        await feed.columns(VENUE, "crowd", tick, rows((7, level, 5.0, 5.0)))
        await feed.watermark(VENUE, "crowd", tick, 1)
        await until(lambda: mall_tick() >= tick)

    def mall_tick() -> int:
        heard = server.hub.tick("demo", VENUE)
        return -1 if heard is None else heard

    seven = await mall.client(url, 7, venue=VENUE)
    await step(0)
    seen = [(await seven.event("push"))["id"] for _ in range(3)]
    [connection] = [c for c in server._connections if c.identity.subject == 7]
    connection._ws.transport.abort()
    await until(lambda: not server.hub.is_in(connection, VENUE))
    await step(255)
    await step(0)  # three more, while it is away
    assert (await seven.event("_reconnected"))["resumed"] is True
    seen += [(await seven.event("push"))["id"] for _ in range(3)]
    await step(255)
    await step(0)  # and three after
    seen += [(await seven.event("push"))["id"] for _ in range(3)]
    assert seen == [f"o{i}.7.{t}" for t in (tick - 4, tick - 2, tick) for i in range(3)]
    assert seven.duplicate_pushes == 0


async def test_offers_go_on_after_a_lost_connection_where_they_were(mall: Mall) -> None:
    server, url = await mall.gateway()
    operator, seven = await mall.client(url, 2, "operator"), await mall.client(url, 7, ttl_s=60)
    assert seven.welcome["expires_ms"] < mall.clock.unix_ms() + 61_000
    await seven.subscribe(f"venue/{VENUE}/offers")
    await operator.request("create_offer", venue=VENUE, offer={**OFFER, "id": "o0"})
    assert (await seven.event("offer_state"))["offer"]["id"] == "o0"
    with pytest.raises(Forbidden):
        await seven.renew(mall.token(8))
    with pytest.raises(Unauthenticated):
        await seven.renew(mall.token(7)[:-2])
    await seven.renew(mall.token(7))  # the connection below is made with it
    [connection] = [c for c in server._connections if c.identity.subject == 7]
    connection._ws.transport.abort()
    await until(lambda: server.hub.subscriptions() == 0)
    for i in (1, 2):
        await operator.request("create_offer", venue=VENUE, offer={**OFFER, "id": f"o{i}"})
    again = [(await seven.event("offer_state"))["offer"]["id"] for _ in range(2)]
    await operator.request("create_offer", venue=VENUE, offer={**OFFER, "id": "o3"})
    assert [*again, (await seven.event("offer_state"))["offer"]["id"]] == ["o1", "o2", "o3"]


async def test_an_operator_looks_at_a_part_of_a_level(mall: Mall) -> None:
    _, url = await mall.gateway()
    operator, walker, stander = await mall.client(url, 1, "operator"), await mall.client(url, 5), await mall.client(url, 6)
    await walker.move(VENUE, 0, 5.0, 5.0, ack=True)
    await stander.move(VENUE, 0, 30.0, 25.0, ack=True)
    topic = f"venue/{VENUE}/dots/0"
    await operator.subscribe(topic, rate_hz=10, view=(0, 0, 20, 20), bytes_per_s=100_000)
    first = await operator.event("dots_view")
    while not first["pseudonym"]:  # the host may not have closed the tick yet
        first = await operator.event("dots_view")
    assert (len(first["pseudonym"]), first["x0_m"] + np.frombuffer(first["x"], "<u2")[0] * first["step_m"]) == (4, pytest.approx(5.0))
    await operator.saw(topic, first["number"])
    await walker.leave(VENUE)
    assert (await operator.event("dots_view"))["left"] == first["pseudonym"]
    await operator.subscribe(topic, rate_hz=10, view=(20, 0, 40, 30))
    other = await operator.event("dots_view")
    assert other["pseudonym"] not in (b"", first["pseudonym"])
    with pytest.raises(InvalidInput, match="view of"):
        await operator.subscribe(topic, view=(5, 0, 5, 9))


async def test_requests_in_flight_survive_a_lost_connection(mall: Mall) -> None:
    server, url = await mall.gateway()
    operator = await mall.client(url, 2, "operator")
    await operator.top_ups(tick=1, key=keys(1), subject=u4(7), amount=u4(1000), currency="EUR")
    seven = await mall.client(url, 7)
    await seven.subscribe(f"venue/{VENUE}/stats", rate_hz=10)
    [connection] = [c for c in server._connections if c.identity.subject == 7]
    paying = asyncio.ensure_future(seven.pay(VENUE, TILL, 100, "EUR", key=b"p" * 16))
    await asyncio.sleep(0)
    connection._ws.transport.abort()
    assert (await paying)["balance"] == 900
    assert (await seven.balance()) == {"EUR": 900}
    await seven.event("stats")  # subscribed again by itself
    assert seven.connects == 2


async def test_a_shard_that_dies_tells_sources_to_rewind(mall: Mall) -> None:
    _, url = await mall.gateway()
    feed = await mall.client(url, 1, "feed", source="crowd")
    walker = await mall.client(url, 100, source="crowd", venue=VENUE)
    shopper = await mall.client(url, 101, venue=VENUE)
    await feed.open_source(VENUE, "crowd", 1)
    await feed.columns(VENUE, "crowd", 1, rows((7, 0, 5.0, 5.0)))
    await feed.watermark(VENUE, "crowd", 1, 1)
    await until(lambda: mall.taken != [])
    for index in range(mall.count):
        await mall.kill(index)
    rewinds = [await client.event("rewind") for client in (feed, walker)]
    assert rewinds[0] == rewinds[1]
    assert rewinds[0]["epoch"] > 1
    assert not [frame for frame in shopper._events if frame["op"] == "rewind"]
    await feed.columns(VENUE, "crowd", 2, rows((7, 0, 5.0, 5.0)))


async def test_draining_says_bye_with_a_time_to_come_back(mall: Mall) -> None:
    server, url = await mall.gateway(drain_spread_s=3.0)
    sockets = [await raw(url) for _ in range(3)]
    for i, ws in enumerate(sockets):
        await ws.send(msgpack.packb({"op": "hello", "client": "c", "token": mall.token(10 + i)}))
        await ws.recv()
    ended = [asyncio.ensure_future(closed_with(ws)) for ws in sockets]
    await server.drain()
    results = await asyncio.gather(*ended)
    assert {code for code, _ in results} == {CloseCode.DRAINING}
    assert sorted(frames[-1]["retry_after_s"] for _, frames in results) == pytest.approx([1.0, 2.0, 3.0])
    assert all(frames[-1]["reconnect"] for _, frames in results)
    with pytest.raises(ConnectionRefusedError):  # it listens no more, so that who comes now comes to another on the port
        await raw(url)
    assert server.connections == 0


async def test_a_client_that_is_refused_comes_again_when_it_is_told_to(mall: Mall) -> None:
    server, url = await mall.gateway()
    seven = await mall.client(url, 7)
    server._draining = True
    [connection] = server._connections
    connection._ws.transport.abort()
    refused_at = []
    for n in (1, 2):
        await until(lambda n=n: server.metrics.value("esplanade_gateway_refused_connections_total", "draining") >= n)  # type: ignore[misc]
        refused_at.append(mall.clock.monotonic_s())
    assert refused_at[1] - refused_at[0] > 0.9, "told to come after a second; its own back-off is a fifth of that"
    server._draining = False
    assert (await seven.event("_reconnected"))["op"] == "_reconnected"


async def test_a_client_that_is_given_up_says_why(mall: Mall) -> None:
    server, url = await mall.gateway()
    seven = await mall.client(url, 7)
    [connection] = list(server._connections)
    connection.perform(connection.session.end(CloseCode.GARBAGE, "mend the client", code="invalid"))
    with pytest.raises(InvalidInput, match="mend"):
        await seven.event("push")
    with pytest.raises(InvalidInput):
        await seven.request("ping")


async def test_a_gateway_that_is_not_there_is_unavailable(mall: Mall) -> None:
    server, url = await mall.gateway()
    await server.stop()
    with pytest.raises(Unavailable):
        await Client.connect(url, guest_of="demo", client="c")
    with pytest.raises(InvalidInput):
        await Client.connect("http://127.0.0.1:1", guest_of="demo", client="c")


async def test_guests_are_let_in_at_a_bounded_rate(mall: Mall) -> None:
    _, url = await mall.gateway(guests_per_s=1.0)
    came = await asyncio.gather(*(mall.guest(url) for _ in range(6)), return_exceptions=True)
    assert any(isinstance(one, Client) for one in came)
    assert any(isinstance(one, LimitExceeded) for one in came)


async def test_stopping_leaves_no_task_behind(mall: Mall) -> None:
    server, url = await mall.gateway()
    seven = await mall.client(url, 7, venue=VENUE)
    await seven.subscribe(f"venue/{VENUE}/stats")
    await seven.close()
    await server.stop()
    await until(
        lambda: not [task for task in asyncio.all_tasks() if "gateway" in str(task.get_coro()) and "tests/gateway" not in str(task.get_coro())]
    )


async def test_a_frame_with_a_key_has_one_effect_over_whatever_connection(mall: Mall) -> None:
    _, url = await mall.gateway()
    first = await mall.client(url, 5, "operator", client="office")
    second = await mall.client(url, 5, "operator", client="phone")
    other = await mall.client(url, 6, "operator")
    key = keys(77)
    for client in (first, first, second):
        await client.request("create_offer", venue=VENUE, offer=OFFER, key=key)
    await first.request("end_offer", venue=VENUE, offer="books", tick=0, key=keys(78))
    await second.request("create_offer", venue=VENUE, offer=OFFER, key=key)  # ended meanwhile; the first answer all the same
    with pytest.raises(Conflict):
        await second.request("create_offer", venue=VENUE, offer={**OFFER, "id": "more"}, key=key)
    await other.request("create_offer", venue=VENUE, offer={**OFFER, "id": "more"}, key=key)  # another person's key is another key
    offers = (await first.request("get_offers", venue=VENUE))["offers"]
    assert [offer["id"] for offer in offers if offer["ends_tick"] > 0] == ["more"]
