"""A client on a socket library that nobody here wrote and the server does not use (`picows`), against a real gateway, by docs/protocol.md alone."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import msgpack
import pytest
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from tests.actors.parkside import keys, u4
from tests.gateway.mall import TILL, VENUE, running_mall

OFFER = {"id": "books", "unit_id": TILL, "title": "Books", "audience": {"type": "within", "radius_m": 5.0}}
KEY = b"\x07" * 16


class Listener(WSListener):  # type: ignore[misc]  # compiled, without types
    """Puts the frames of each message, single or an array, into `heard`; None once the connection is gone."""

    def __init__(self, *, as_json: bool) -> None:
        self.json = as_json
        self.heard: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(1000)
        self.parts = b""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
            return
        self.parts += frame.get_payload_as_bytes()
        if frame.fin:
            message = json.loads(self.parts) if self.json else msgpack.unpackb(self.parts)
            self.parts = b""
            for one in message if isinstance(message, list) else [message]:
                self.heard.put_nowait(one)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.heard.put_nowait(None)


class Wire:
    def __init__(self, transport: WSTransport, listener: Listener, *, as_json: bool) -> None:
        self._transport, self._listener, self._json = transport, listener, as_json

    @classmethod
    async def open(cls, url: str, *, as_json: bool) -> Wire:
        protocol = "esplanade.v1.json" if as_json else "esplanade.v1.msgpack"
        transport, listener = await ws_connect(lambda: Listener(as_json=as_json), url, extra_headers={"Sec-WebSocket-Protocol": protocol})
        assert transport.response.headers["Sec-WebSocket-Protocol"] == protocol
        return cls(transport, listener, as_json=as_json)

    def send(self, *frames: dict[str, Any]) -> None:
        message = list(frames) if len(frames) > 1 else frames[0]
        if self._json:
            self._transport.send(WSMsgType.TEXT, json.dumps(message, default=lambda raw: base64.b64encode(raw).decode()).encode())
        else:
            self._transport.send(WSMsgType.BINARY, msgpack.packb(message))

    async def heard(self, op: str) -> dict[str, Any]:
        """The next frame `op`; what comes before it is passed over."""
        async with asyncio.timeout(30):
            while (frame := await self._listener.heard.get()) is not None:
                if frame["op"] == op:
                    return frame
        raise AssertionError(f"the connection went before {op}")

    def cut(self) -> None:
        self._transport.disconnect(graceful=False)

    async def close(self) -> None:
        self._transport.send_close(WSCloseCode.OK)
        await asyncio.wait_for(self._transport.wait_disconnected(), 30)


@pytest.mark.parametrize("as_json", [False, True], ids=["msgpack", "json"])
async def test_a_stranger_on_picows_walks_in_gets_a_push_pays_and_resumes(as_json: bool) -> None:
    async with running_mall() as mall:
        _, url = await mall.gateway()
        operator = await mall.client(url, 1, "operator")
        await operator.request("create_offer", venue=VENUE, offer=OFFER)

        wire = await Wire.open(url, as_json=as_json)
        wire.send(
            {"op": "hello", "client": "picows-1", "guest_of": "demo"}, {"op": "walk_in", "seq": 1, "venue": VENUE, "location": "north_entrance"}
        )
        welcome = await wire.heard("welcome")
        assert (await wire.heard("walked_in"))["venue_name"] == "Parkside"
        wire.send({"op": "move", "seq": 2, "venue": VENUE, "level": 0, "x": 7.0, "y": 19.5})
        push = await wire.heard("push")
        assert (push["kind"], push["title"]) == ("NEARBY", "Books")
        await operator.top_ups(tick=1, key=keys(1), subject=u4(welcome["subject"]), amount=u4(1000), currency="EUR")
        pay = {"op": "pay", "seq": 3, "venue": VENUE, "key": KEY, "unit": TILL, "amount": 250, "currency": "EUR"}
        wire.send(pay, {**pay, "seq": 4})
        assert [(await wire.heard("paid"))["balance"] for _ in range(2)] == [750, 750]

        wire.cut()
        again = await Wire.open(url, as_json=as_json)
        again.send({"op": "hello", "client": "picows-1", "token": welcome["token"], "venue": VENUE, "resume": push["place"]})
        back = await again.heard("welcome")
        assert (back["subject"], back["resumed"]) == (welcome["subject"], True)
        again.send({"op": "leave", "seq": 5, "venue": VENUE})
        await again.heard("taken")
        await again.close()
        books = await operator.request("get_books")
    assert (books["tills"], books["payments"], books["total"]) == ({"EUR": 250}, 1, {"EUR": 0})
