"""Every frame through the Python client: what it is told to send arrives as the server's own type, what it is sent arrives as its JSON twin says. console/test/conformance.test.ts does the same.

The other side is a WebSocket server of this test that knows frames by the golden files and the server's decoder alone.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve

from esplanade.core.errors import InvalidInput
from gateway import frames as f
from gateway.client import SUBPROTOCOL, Client
from gateway.codec import MSGPACK
from tests.gateway.examples import CLIENT, SERVER
from tests.gateway.make_golden import FOLDER

UNANSWERED = ("ack", "watermark", "saw")


class Other:
    """The far side: keeps what it is sent, as the server reads it, and says what it is given."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.answers: list[Any] = []
        self.url = ""
        self._open: ServerConnection | None = None

    async def serve(self, connection: ServerConnection) -> None:
        self._open = connection
        async for message in connection:
            for frame in MSGPACK.decode(message):
                self.got.append(frame)
                if isinstance(frame, f.Hello):
                    await connection.send(bytes.fromhex((FOLDER / "welcome.msgpack").read_text()))
                elif getattr(frame, "seq", None) is not None:
                    answer = self.answers.pop(0) if self.answers else f.Done(seq=frame.seq)
                    await connection.send(MSGPACK.encode(msgspec.structs.replace(answer, seq=frame.seq)))

    async def say(self, encoded: bytes) -> None:
        assert self._open is not None
        await self._open.send(encoded)


@pytest.fixture
async def other() -> AsyncIterator[Other]:
    other = Other()
    async with serve(other.serve, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL], compression=None) as server:  # type: ignore[list-item]
        other.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
        yield other


def plain(frame: Any) -> dict[str, Any]:
    """A frame as the client writes one: a dict, bytes as bytes."""
    fields: dict[str, Any] = msgpack.unpackb(MSGPACK.encode(frame))
    return fields


def twin(tag: str) -> Any:
    return json.loads((FOLDER / f"{tag}.json").read_text())


def jsonable(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: jsonable(one) for key, one in value.items()}
    return [jsonable(one) for one in value] if isinstance(value, list) else value


async def test_every_frame_that_the_client_sends_is_the_frame_that_was_meant(other: Other) -> None:
    client = await Client.connect(other.url, client="phone-1", guest_of="demo", venue="parkside", resume={"epoch": 1, "offset": 42}, keepalive_s=None)
    assert other.got == [CLIENT[0]]
    for frame in CLIENT[1:]:
        fields = plain(frame)
        op = fields.pop("op")
        fields.pop("seq", None)
        if op in UNANSWERED:
            await client.send(op, **fields)
        else:
            await client.request(op, **fields)
    async with asyncio.timeout(20):
        while len(other.got) < len(CLIENT):
            await asyncio.sleep(0.01)
    assert [type(frame) for frame in other.got] == [type(frame) for frame in CLIENT]
    for got, meant in zip(other.got[1:], CLIENT[1:], strict=True):
        seq = getattr(meant, "seq", None)
        assert (got if seq is None else msgspec.structs.replace(got, seq=seq)) == meant
    await client.close()


async def test_every_frame_that_the_client_is_sent_arrives_as_its_twin_says(other: Other) -> None:
    client = await Client.connect(other.url, client="phone-1", guest_of="demo", keepalive_s=None)
    assert jsonable(client.welcome) == twin("welcome")
    for frame in SERVER:
        tag = str(frame.__struct_config__.tag)
        if tag in ("welcome", "bye", "error"):
            continue
        seq = getattr(frame, "seq", None)
        if seq is None:
            await other.say(MSGPACK.encode(frame))
            assert jsonable(await client.event(tag)) == twin(tag)
        else:
            other.answers.append(frame)
            assert jsonable(await client.request("ping")) | {"seq": seq} == twin(tag)
    other.answers.append(next(frame for frame in SERVER if isinstance(frame, f.Error)))
    with pytest.raises(InvalidInput, match="level 9"):
        await client.request("ping")
    await other.say(MSGPACK.encode(next(frame for frame in SERVER if isinstance(frame, f.Bye))))
    await client.close()
