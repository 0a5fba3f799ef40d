"""The two formats say the same, golden files hold them, and what cannot be read is told apart."""

from __future__ import annotations

import base64
import json
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from gateway import frames as f
from gateway.codec import JSON, MSGPACK, Codec, Unreadable
from gateway.outbound import wire_of
from tests.gateway.examples import CLIENT, SERVER
from tests.gateway.make_golden import FOLDER, golden


def test_every_frame_has_one_example() -> None:
    assert [type(frame) for frame in CLIENT] == list(get_args(f.ClientFrame))
    assert [type(frame) for frame in SERVER] == list(get_args(f.ServerFrame))


@pytest.mark.parametrize(("name", "content"), golden().items(), ids=lambda value: value if len(value) < 40 else "")
def test_the_wire_is_as_the_golden_file_says(name: str, content: str) -> None:
    assert (FOLDER / name).read_text() == content


def test_there_is_no_golden_file_of_a_frame_that_is_gone() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(golden())


@pytest.mark.parametrize("frame", CLIENT, ids=lambda frame: frame.__struct_config__.tag)
def test_a_client_frame_reads_the_same_in_both_formats(frame: f.ClientFrame) -> None:
    assert MSGPACK.decode(MSGPACK.encode(frame)) == [frame]
    assert JSON.decode(JSON.encode(frame).decode()) == [frame]


@pytest.mark.parametrize("frame", [*CLIENT, *SERVER], ids=lambda frame: frame.__struct_config__.tag)
def test_another_implementation_reads_the_same_fields(frame: f.ServerFrame | f.ClientFrame) -> None:
    """`msgpack` and `json` of other makers agree with msgspec, bytes as base64 in JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return value

    assert plain(msgpack.unpackb(MSGPACK.encode(frame))) == json.loads(JSON.encode(frame))


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 255, 256])
def test_frames_joined_are_one_array(n: int) -> None:
    frames = [f.Pong(seq=i + 1, now_ms=5) for i in range(n)]
    expected = [{"op": "pong", "seq": i + 1, "now_ms": 5} for i in range(n)]
    for codec, read in ((MSGPACK, msgpack.unpackb), (JSON, json.loads)):
        read_back = read(codec.join([codec.encode(frame) for frame in frames]))
        assert read_back == (expected if n > 1 else expected[0])


def test_a_batch_keeps_its_order_and_one_bad_frame_spoils_no_other() -> None:
    message = msgpack.packb([{"op": "ping", "seq": 1}, {"op": "dance", "seq": 2}, {"op": "ping", "seq": 3}])
    first, bad, last = MSGPACK.decode(message)
    assert (first, last) == (f.Ping(seq=1), f.Ping(seq=3))
    assert isinstance(bad, Unreadable)
    assert bad.seq == 2
    assert "dance" in bad.reason


def test_unknown_fields_are_ignored() -> None:
    assert MSGPACK.decode(msgpack.packb({"op": "ping", "seq": 1, "later": {"x": [1, 2]}})) == [f.Ping(seq=1)]
    assert JSON.decode('{"op":"ping","seq":1,"later":{"x":[1,2]}}') == [f.Ping(seq=1)]


DEEP = b"\x82\xa2op\xa4ping\xa1z" + b"\x91" * 15_000 + b"\x01"


@pytest.mark.parametrize(
    ("message", "says", "seq"),
    [
        (b"", "not a frame", None),
        (b"\xc1", "not a frame", None),
        (b"\xdd\xff\xff\xff\xff", "not a frame", None),
        (b"\x01", "not a frame", None),
        (b"\x90", "empty", None),
        (msgpack.packb([{"op": "ping", "seq": 1}] * 257), "257 frames", None),
        (msgpack.packb({}), "'op'", None),
        (msgpack.packb({"op": 5, "seq": 9}), "'op'", 9),
        (msgpack.packb({"op": "dance", "seq": 9}), "dance", 9),
        (msgpack.packb({"op": "ping", "seq": 0}), "seq", None),
        (msgpack.packb({"op": "ping", "seq": 2**53}), "seq", None),
        (msgpack.packb({"op": "ping", "seq": True}), "seq", None),
        (msgpack.packb({"op": "move", "seq": 4, "venue": "v", "level": 255, "x": 0.0, "y": 0.0}), "level", 4),
        (msgpack.packb({"op": "move", "seq": 4, "venue": "v", "level": 0, "x": float("nan"), "y": 0.0}), "x", 4),
        (msgpack.packb({"op": "move", "seq": 4, "venue": "v", "level": 0, "x": 0.0, "y": float("inf")}), "y", 4),
        (msgpack.packb({"op": "pay", "seq": 4, "venue": "v", "key": b"short", "unit": "u", "amount": 1, "currency": "EUR"}), "key", 4),
        (msgpack.packb({"op": "pay", "seq": 4, "venue": "v", "key": b"k" * 16, "unit": "u", "amount": 0, "currency": "EUR"}), "amount", 4),
        (msgpack.packb({"op": "pay", "seq": 4, "venue": "v", "key": b"k" * 16, "unit": "u", "amount": 5, "currency": "eur"}), "currency", 4),
        (msgpack.packb({"op": "find_stores", "seq": 4, "venue": "v", "level": 0, "x": 0.0, "y": 0.0, "k": 101}), "k", 4),
        (b"\x82\xa2op\xa4p\xffng\xa3seq\x01", "UTF-8", None),
        (DEEP, "deeply", None),
        ("a text", "binary", None),
    ],
)  # fmt: skip
def test_garbage_is_told_what_it_is(message: bytes | str, says: str, seq: int | None) -> None:
    [item] = MSGPACK.decode(message)
    assert isinstance(item, Unreadable)
    assert says in item.reason
    assert item.seq == seq
    assert len(item.reason) < 300


def test_garbage_in_json_is_told_too() -> None:
    for message, says in [("{", "not a frame"), ("[" * 10_000, "not a frame"), ('{"op":"ping","seq":1.5}', "seq"), (b"{}", "text"), ("[]", "empty")]:
        [item] = JSON.decode(message)
        assert isinstance(item, Unreadable)
        assert says in item.reason or "deeply" in item.reason


def test_the_union_stays_one_tagged_union() -> None:
    """A tag used twice, or a field that msgspec cannot tell apart, breaks the decoder when it is built."""
    msgspec.msgpack.Decoder(f.ServerFrame)
    tags = [t.__struct_config__.tag for t in (*get_args(f.ClientFrame), *get_args(f.ServerFrame))]
    assert len(tags) == len(set(tags))


# --- what goes over the socket ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=["msgpack", "json"])
@pytest.mark.parametrize("sizes", [[0], [125 - 20], [126], [70_000], [40] * 300, [600_000] * 3], ids=str)
def test_another_implementation_reads_the_messages_of_a_turn(codec: Codec, sizes: list[int]) -> None:
    """`websockets`' own parser, as a client, finds every frame once and in order."""
    frames = [f.Error(code="x", message="m" * size, seq=i + 1) for i, size in enumerate(sizes)]
    wire = wire_of([codec.encode(frame) for frame in frames], codec)
    client = ClientProtocol(parse_uri("ws://localhost/"), max_size=None)
    client.state = State.OPEN
    client.parser = client.parse()
    next(client.parser)
    client.receive_data(wire.data)
    messages = [event for event in client.events_received() if isinstance(event, Frame)]
    assert len(messages) == wire.messages
    assert {message.opcode for message in messages} == {Opcode.TEXT if codec.text else Opcode.BINARY}
    assert sum(len(message.data) for message in messages) == wire.payload_bytes
    found: list[Any] = []
    for message in messages:
        read = json.loads(message.data) if codec.text else msgpack.unpackb(bytes(message.data))
        assert not isinstance(read, list) or len(read) <= f.MAX_BATCH
        found += read if isinstance(read, list) else [read]
    assert [frame["seq"] for frame in found] == list(range(1, len(frames) + 1))
    assert wire.frames == len(frames)
