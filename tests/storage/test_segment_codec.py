"""The bytes of a segment: what goes in comes out, and what was damaged does not."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from esplanade.core.errors import Fault, InvalidInput
from esplanade.storage.journal import Event
from esplanade.storage.segment_codec import PackedEvents, checksum, decode_events, encode_events, index_of

sequences = st.integers(0, 2**63 - 1)
events = st.lists(
    st.builds(
        Event,
        st.text(max_size=20),
        st.integers(1, 2**63 - 1),
        st.text(max_size=10),
        st.binary(max_size=40),
        st.text(max_size=9),
        sequences,
        st.binary(max_size=20),
    ),
    max_size=5,
)
EVENT = Event("mall/demo/parkside", 1, "tested.v1", b"body")


@given(events)
def test_events_survive_the_way_to_bytes_and_back(given_events: list[Event]) -> None:
    body = encode_events(given_events)
    assert decode_events("demo", 7, 3, body, checksum("demo", 7, 3, body)) == tuple(given_events)


@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    body = encode_events([EVENT])
    crc = checksum("demo", 7, 3, body)
    at = data.draw(st.integers(0, len(body) - 1))
    damaged = body[:at] + bytes((body[at] ^ data.draw(st.integers(1, 255)),)) + body[at + 1 :]
    with pytest.raises(Fault, match=r"\(demo, 7\) at position 3"):
        decode_events("demo", 7, 3, damaged, crc)


@pytest.mark.parametrize("place", [("other", 7, 3), ("demo", 8, 3), ("demo", 7, 4)])
def test_a_body_in_anothers_place_is_noticed(place: tuple[str, int, int]) -> None:
    body = encode_events([EVENT])
    with pytest.raises(Fault, match="checksum"):
        decode_events(*place, body, checksum("demo", 7, 3, body))


@pytest.mark.parametrize(("body", "said"), [(b"", "format none"), (b"\x03\x90", "format 03"), (b"\x01\x91\x01", "cannot be read")])
def test_a_body_of_another_format_is_a_fault_even_if_the_checksum_holds(body: bytes, said: str) -> None:
    with pytest.raises(Fault, match=said):
        decode_events("demo", 7, 3, body, checksum("demo", 7, 3, body))


def test_format_2_is_as_it_always_was() -> None:
    answered = Event("mall/demo/parkside", 2, "tested.v1", b"", "phone", 7, b"\xc0")
    written = "029297b26d616c6c2f64656d6f2f7061726b7369646501a97465737465642e7631c404626f6479a000c400"
    written += "97b26d616c6c2f64656d6f2f7061726b7369646502a97465737465642e7631c400a570686f6e6507c401c0"
    assert encode_events([EVENT, answered]).hex() == written
    assert checksum("demo", 7, 3, encode_events([EVENT])) == 2084941457


def test_format_1_is_still_read() -> None:
    written = bytes.fromhex("019194b26d616c6c2f64656d6f2f7061726b7369646501a97465737465642e7631c404626f6479")
    assert decode_events("demo", 7, 3, written, 479473694) == (EVENT,)


@pytest.mark.parametrize(
    ("versions", "entities", "first", "last"),
    [
        ([("a", 3), ("b", 1)], ["a", "b"], [3, 1], [3, 1]),
        ([("b", 7), ("a", 1), ("b", 8), ("a", 2), ("b", 9)], ["b", "a"], [7, 1], [9, 2]),
        ([], [], [], []),
    ],
)
def test_the_index_has_an_entitys_first_and_last_version(
    versions: list[tuple[str, int]], entities: list[str], first: list[int], last: list[int]
) -> None:
    events = [Event(entity, version, "tested.v1", b"") for entity, version in versions]
    for held in (events, PackedEvents(events)):
        assert index_of(held) == (entities, first, last, "\n".join(entities))


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ([("a", 1), ("a", 3)], "version 3 follows 1"),
        ([("a", 2), ("b", 1), ("a", 2)], "version 2 follows 2"),
        ([("b", 2), ("a", 0)], "a: version 0"),
        ([("", 1)], "must have a name"),
        ([("a", 1), ("b\nc", 1)], "line end"),
        ([("b\nc", 1)], "line end"),
    ],
)
def test_events_that_cannot_be_indexed_are_refused(versions: list[tuple[str, int]], said: str) -> None:
    events = [Event(entity, version, "tested.v1", b"") for entity, version in versions]
    with pytest.raises(InvalidInput, match=said):
        index_of(events)
    with pytest.raises(InvalidInput, match=said):
        index_of(PackedEvents(events))


def test_packed_events_are_those_that_were_packed() -> None:
    events = [
        EVENT,
        Event("mall/demo/parkside", 2, "tested.v1", b"", "phone", 7, b"\xc0"),
        *(Event("e", n, "tested.v1", b"x" * n) for n in range(1, 300)),
    ]
    packed = PackedEvents()
    for event in events:
        packed.add(event)
        assert encode_events(packed) == encode_events(list(packed))
        assert encode_events(packed)[1:] == msgspec.msgpack.encode(list(packed))
    assert list(packed) == events
    assert (len(packed), packed[1], packed[-1], packed[:2]) == (len(events), events[1], events[-1], tuple(events[:2]))
    assert decode_events("demo", 7, 3, encode_events(packed), checksum("demo", 7, 3, encode_events(packed))) == tuple(events)
