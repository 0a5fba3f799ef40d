"""The journal read with SQL says what the Python decoder says, to whom it may."""

from __future__ import annotations

import base64
import datetime
import json
import math
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.events import TYPES, EventBody, Paid, encode_event
from actors.messages import BayChange, GateCount, LiveEdit
from ar.anchor_records import Anchor, Observed
from esplanade.storage.journal import Append, Event, OutboxEntry
from esplanade.storage.postgres import PostgresJournal
from esplanade.storage.segment_codec import encode_events
from spatial.offers import Inside, Offer, Within
from spatial.venue_edits import CloseUnit
from spatial.zone_shapes import Circle, DrawnZone
from tests.actors.parkside import keys, u2, u4

pytestmark = pytest.mark.services

on_one_database = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


@pytest.fixture
def admin(postgres_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_url, autocommit=True, options="-c search_path=esplanade") as connection:
        yield connection


@pytest.fixture
async def journal(postgres_url: str) -> AsyncIterator[PostgresJournal]:
    journal = await PostgresJournal.open(postgres_url)
    yield journal
    await journal.close()


def one(connection: psycopg.Connection, query: str, *parameters: object) -> Any:
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def as_json(value: object) -> object:
    """What the SQL decoder makes of a value, by the rules at its head."""
    match value:
        case bool() | None:
            return value
        case float():
            return str(value).replace("inf", "Infinity").replace("nan", "NaN") if not math.isfinite(value) else value
        case int():
            return value
        case str():
            return {"base64": base64.b64encode(value.encode()).decode()} if "\0" in value else value
        case bytes():
            return base64.b64encode(value).decode()
        case datetime.datetime():
            return value.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
        case msgspec.msgpack.Ext():
            return {"ext": value.code, "data": base64.b64encode(value.data).decode()}
        case list() | tuple():
            return [as_json(item) for item in value]
        case dict():
            return {str(key).lower() if isinstance(key, bool) else str(key): as_json(item) for key, item in value.items()}
        case _:
            raise AssertionError(value)


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.floats(width=32),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.sampled_from(
        ["x" * 255, "x" * 256, "x" * 70_000, b"y" * 255, b"y" * 256, b"y" * 70_000, [1] * 16, [0] * 70_000, {str(i): i for i in range(16)}]
    ),
    st.datetimes(timezones=st.just(datetime.UTC)),
    st.builds(msgspec.msgpack.Ext, st.integers(-128, 127).filter(lambda code: code != -1), st.binary(max_size=20)),
)
values = st.recursive(
    leaves, lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text("abc\u00e9", max_size=3), inner, max_size=5)), max_leaves=12
)


@on_one_database
@given(value=values)
def test_sql_reads_any_msgpack_as_python_does(admin: psycopg.Connection, value: object) -> None:
    data = msgspec.msgpack.encode(value)
    found, end = admin.execute("SELECT value::text, next FROM msgpack_value(%b, 0)", (data,)).fetchone() or (None, None)
    assert end == len(data)
    expected = as_json(msgspec.msgpack.decode(data))
    # A JSON number is told as a float where the value is one: 1e308 comes as an integer of 309 digits.
    assert same(json.loads(found), expected), (json.loads(found), expected)


def same(found: object, expected: object) -> bool:
    match expected:
        case bool() | None | str():
            return type(found) is type(expected) and found == expected
        case float():
            return isinstance(found, int | float) and not isinstance(found, bool) and float(found) == expected
        case list():
            return isinstance(found, list) and len(found) == len(expected) and all(map(same, found, expected))
        case dict():
            return isinstance(found, dict) and found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
        case _:
            return type(found) is type(expected) and found == expected


def test_a_single_float_is_read_too(admin: psycopg.Connection) -> None:
    """Nobody here writes the four-byte form; others may."""
    for number in (0.0, 1.0, -2.5, 0.1, 1e-45, 3.4e38, math.inf, -math.inf):
        single = struct.pack(">f", number)
        assert same(json.loads(one(admin, "SELECT value::text FROM msgpack_value(%b, 0)", b"\xca" + single)), as_json(struct.unpack(">f", single)[0]))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xa5abc", b"\x92\x01", b"\xc4", b"\xd9\x05ab", b"\xcf\0\0", b"\x91" * 80 + b"\x01", b"\x81\xa1k"])
def test_bytes_that_are_no_msgpack_are_an_error(admin: psycopg.Connection, data: bytes) -> None:
    with pytest.raises(psycopg.Error) as error:
        admin.execute("SELECT * FROM msgpack_value(%b, 0)", (data,))
    assert error.value.sqlstate == "ES003"


def sample(kind: type[EventBody], shift: int) -> EventBody:
    """An event with every field filled, by its type."""
    offer = Offer(id=f"o{shift}", unit_id="shop-00", title="Ten % off", audience=Within(2.5) if shift else Inside(), flash=bool(shift))
    zone = DrawnZone(id=f"z{shift}", name="Queue", level=shift, shape=Circle(1.5, -2.0, 3.0))
    by_type: dict[object, object] = {
        int: 2**40 + shift, str: f"text é {shift}", bytes: bytes(range(16 + shift)), bool: bool(shift), Offer: offer,
        tuple[BayChange, ...]: (BayChange("bay-0", True),) * shift, tuple[Offer, ...]: (offer,) * shift, tuple[str, ...]: ("EUR", "CHF")[:shift],
        tuple[Anchor, ...]: (Anchor(bytes(16), 1, (1.5, -2.0, 0.25), tags=("art",), payload=b"x"),) * shift,
        tuple[Observed, ...]: (Observed(bytes(16), (1.5, -2.0, 0.25), seen_from=bytes(16)),) * shift,
        LiveEdit: CloseUnit(unit_id=f"shop-0{shift}"), DrawnZone: zone, tuple[DrawnZone, ...]: (zone,) * shift, tuple[GateCount, ...]: (GateCount("north", 3, 120, 80),) * shift,
        tuple[float, float, float]: (1.5, -2.0, 0.25), tuple[float, float, float, float]: (0.0, 0.0, 0.6, 0.8),
    }  # fmt: skip
    types = (field.type for field in msgspec.structs.fields(kind))
    return kind(*(by_type[get_args(found)[0] if get_origin(found) is Annotated else found] for found in types))


SAMPLES = [sample(kind, shift) for kind in TYPES.values() for shift in (0, 1)]


async def test_every_stored_event_reads_the_same_in_sql(journal: PostgresJournal, admin: psycopg.Connection) -> None:
    events = [Event("mall/demo/parkside", version, *encode_event(body)) for version, body in enumerate(SAMPLES, 1)]
    await journal.acquire([7], "a", ttl_ms=60_000)
    await journal.flush([Append("demo", 7, 1, 1, events[:20]), Append("other", 7, 1, 1, events[:1])])
    await journal.flush([Append("demo", 7, 1, 2, events[20:])], [OutboxEntry("demo", "t", b"")])
    rows = admin.execute(
        "SELECT position, epoch, entity, version, type, body::text FROM journal_event WHERE tenant = 'demo' AND partition = 7 ORDER BY position, version"
    ).fetchall()
    assert [row[:5] for row in rows] == [(1 if event.version <= 20 else 2, 1, event.entity, event.version, event.type) for event in events]
    for (*_, text), body in zip(rows, SAMPLES, strict=True):
        fields = dict(zip(body.__struct_fields__, msgspec.msgpack.decode(msgspec.msgpack.encode(body)), strict=True))
        assert same(json.loads(text), as_json(fields)), type(body)
    index = admin.execute("SELECT tenant, position, entity, version FROM journal_entry WHERE tenant = 'demo' ORDER BY version").fetchall()
    assert index == [("demo", row[0], row[2], row[3]) for row in rows]


def test_sql_names_the_fields_that_events_have(admin: psycopg.Connection) -> None:
    """A type that the schema does not name stays an array; one that it names must be named right. New fields come at the end."""
    for name, kind in TYPES.items():
        named = one(admin, "SELECT event_fields(%s)", name)
        assert named is None or tuple(named) == kind.__struct_fields__[: len(named)], name
    assert one(admin, "SELECT event_fields('of_the_future.v1')") is None


async def test_a_type_or_a_field_of_the_future_is_still_read(journal: PostgresJournal, admin: psycopg.Connection) -> None:
    future = (("late.v1", [7, 1, 2, "new"]), ("of_the_future.v1", [1, "x"]), ("a_map.v1", {"k": 1}))
    await journal.acquire([7], "a", ttl_ms=60_000)
    await journal.flush([Append("demo", 7, 1, 1, [Event("e", n, name, msgspec.msgpack.encode(body)) for n, (name, body) in enumerate(future, 1)])])
    bodies = [row[0] for row in admin.execute("SELECT body FROM journal_event ORDER BY version").fetchall()]
    assert bodies == [{"tick": 7, "rows": 1, "ticks": 2, "3": "new"}, [1, "x"], {"k": 1}]


@on_one_database
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "é" * 300]), st.binary(max_size=300)), max_size=40))
def test_segments_of_any_shape_are_read(admin: psycopg.Connection, drawn: list[tuple[str, bytes]]) -> None:
    events = [Event(entity, n * 10**17 + 1, "tested.v1", msgspec.msgpack.encode(body)) for n, (entity, body) in enumerate(drawn)]
    data = encode_events(events)
    before = b"\x01" + msgspec.msgpack.encode([(event.entity, event.version, event.type, event.body) for event in events])
    expected = [(event.entity, event.version, base64.b64encode(body).decode()) for event, (_, body) in zip(events, drawn, strict=True)]
    for segment in (data, before):  # formats 2 and 1
        assert admin.execute("SELECT entity, version, body #>> '{}' FROM segment_events(%b)", (segment,)).fetchall() == expected
    only = admin.execute("SELECT entity, version, body #>> '{}' FROM segment_events(%b, 'b', 'tested.v1')", (data,)).fetchall()
    assert only == [row for row in expected if row[0] == "b"]
    assert admin.execute("SELECT FROM segment_events(%b, NULL, 'other.v1')", (data,)).fetchall() == []


def test_a_segment_of_another_format_is_an_error(admin: psycopg.Connection) -> None:
    with pytest.raises(psycopg.Error, match="format 3"):
        admin.execute("SELECT * FROM segment_events('\\x0390')")


async def test_what_a_command_was_answered_stands_beside_its_last_event(journal: PostgresJournal, admin: psycopg.Connection) -> None:
    answered = Event("e", 2, "late.v1", msgspec.msgpack.encode([7, 1, 2]), "8:phone", 2**40, b"\xff")
    await journal.acquire([7], "a", ttl_ms=60_000)
    await journal.flush(
        [Append("demo", 7, 1, 1, [Event("e", 1, "late.v1", msgspec.msgpack.encode([6, 0, 0])), answered, Event("f", 1, "a.v1", b"\xc0")])]
    )
    told = {"client": "8:phone", "sequence": 2**40, "reply": base64.b64encode(b"\xff").decode()}
    for source in ("journal_event", "journal_events()"):
        assert admin.execute(f"SELECT entity, version, answer FROM {source} ORDER BY 1, 2".encode()).fetchall() == [
            ("e", 1, None),
            ("e", 2, told),
            ("f", 1, None),
        ]
    assert admin.execute("SELECT answer FROM journal_events('f')").fetchall() == [(None,)]


async def test_a_reader_sees_the_events_of_its_tenant_alone(journal: PostgresJournal, admin: psycopg.Connection) -> None:
    await journal.acquire([7], "a", ttl_ms=60_000)
    body = encode_event(SAMPLES[0])
    await journal.flush([Append(tenant, 7, 1, 1, (Event(f"mall/{tenant}/x", 1, *body),)) for tenant in ("demo", "other")])
    with admin.transaction():
        admin.execute("SELECT set_config('role', 'esplanade_reader', true)")
        for source in ("journal_event", "journal_entry", "journal_events()"):
            assert admin.execute(f"SELECT tenant FROM {source}".encode()).fetchall() == []
        for tenant in ("demo", "other"):
            admin.execute("SELECT set_config('esplanade.tenant', %s, true)", (tenant,))
            for source in ("journal_event", "journal_entry", "journal_events()", f"journal_events('mall/{tenant}/x')"):
                assert admin.execute(f"SELECT DISTINCT tenant, entity FROM {source}".encode()).fetchall() == [(tenant, f"mall/{tenant}/x")]


async def test_the_examples_of_the_documentation_run(journal: PostgresJournal, admin: psycopg.Connection) -> None:
    """Each statement of docs/journal.md, as the reader; the first asks for a till's payments by hour and is compared."""
    page = (Path(__file__).parents[2] / "docs" / "journal.md").read_text()
    examples = [block.split("```")[0] for block in page.split("```sql\n")[1:]]
    assert len(examples) >= 4
    await journal.acquire([7], "a", ttl_ms=60_000)
    paid = [
        Paid(1, "parkside", "EUR", keys(1, 2, 3), u4(8, 8, 16), u2(12, 3, 12), u4(250, 10, 50)),
        Paid(2, "field", "EUR", keys(4), u4(8), u2(12), u4(7)),
    ]
    await journal.flush([Append("demo", 7, 1, 1, [Event("ledger/demo/0", n, *encode_event(body)) for n, body in enumerate(paid, 1)])])
    answers = []
    with admin.transaction():
        for example in examples:
            for statement in example.split(";"):
                if statement.strip():
                    cursor = admin.execute(
                        statement.replace("SET ", "SET LOCAL ").encode() if statement.strip().startswith("SET ") else statement.encode()
                    )
                    answers.append(cursor.fetchall() if cursor.description else [])
    by_hour = [rows for rows in answers if rows and len(rows[0]) == 4 and rows[0][1] == "EUR"]
    assert [row[1:] for row in by_hour[0]] == [("EUR", 2, 300)]
