"""Facts by row and facts in columns tell the same."""

from __future__ import annotations

import numpy as np
import pytest

from actors.events import (
    AnchorsObserved,
    AnchorsRemoved,
    EventBody,
    Late,
    Paid,
    Pushed,
    QrScanned,
    SceneEdited,
    Seen,
    ToppedUp,
    Transitions,
    encode_event,
)
from actors.facts import NO_TICK, Fact, columns_of, facts_of, late_of
from ar.anchor_records import Observed
from ar.scene_ops import CREATE, Dot, Op, encode
from esplanade.storage.journal import Event
from tests.actors.parkside import keys, u2, u4


def stored(entity: str, body: EventBody) -> Event:
    return Event(entity, 1, *encode_event(body))


@pytest.mark.parametrize(
    ("event", "facts"),
    [
        (
            stored("positions/demo/parkside", Pushed(7, ("a", "b"), u2(0, 1), u4(5, 3))),
            [Fact(7, "subject/5", "pushed.v1", "parkside a"), Fact(7, "subject/3", "pushed.v1", "parkside b")],
        ),
        (stored("positions/demo/parkside", Transitions(7, u4(5), u2(2), b"\1")), [Fact(7, "subject/5", "transitions.v1", "parkside 2 1")]),
        (
            stored("ledger/demo/0", Paid(9, "parkside", "EUR", keys(1), u4(8), u2(3), u4(250))),
            [Fact(9, "wallet/8", "paid.v1", f"parkside 3 250 EUR {keys(1).hex()}")],
        ),
        (stored("ledger/demo/0", ToppedUp(9, "EUR", keys(1), u4(8), u4(250))), [Fact(9, "wallet/8", "topped_up.v1", f"250 EUR {keys(1).hex()}")]),
        (stored("session/demo/8", QrScanned("parkside", "north")), [Fact(NO_TICK, "session/8", "scan_qr.v1", "parkside north")]),
        (
            stored("anchors/demo/parkside", AnchorsObserved(7, (Observed(id=keys(1), position_m=(0.0, 0.0, 0.0)),), b"\1")),
            [Fact(NO_TICK, "anchors/parkside", "anchors_observed.v1", f"7 {keys(1).hex()} 1")],
        ),
        (stored("anchors/demo/parkside", AnchorsRemoved(keys(1), True)), [Fact(NO_TICK, "anchors/parkside", "anchors_removed.v1", keys(1).hex())]),
        (
            stored("scene/demo/parkside:hall", SceneEdited("7:phone", 5, encode([Op(Dot("7:phone", 1), 1, {}, CREATE, Dot("7:phone", 1))]))),
            [Fact(NO_TICK, "scene/parkside:hall", "scene_edited.v1", "7:phone 1")],
        ),
        (stored("positions/demo/parkside", Seen(50, b"", b"", b"", b"", b"")), []),
    ],
)
def test_an_event_tells_its_facts(event: Event, facts: list[Fact]) -> None:
    assert facts_of(event) == facts
    columns = columns_of(event)
    if columns is not None:
        assert columns.tick.tolist() == [fact.tick for fact in facts]
        assert [int(fact.entity.partition("/")[2]) for fact in facts] == columns.subject.tolist()


def test_facts_do_not_name_the_tenant() -> None:
    a, b = (stored(f"ledger/{tenant}/0", ToppedUp(1, "EUR", keys(1), u4(8), u4(5))) for tenant in ("demo", "other"))
    assert facts_of(a) == facts_of(b)


def test_keys_differ_in_columns_as_they_do_in_facts() -> None:
    columns = columns_of(stored("ledger/demo/0", ToppedUp(1, "EUR", keys(1, 2**100), u4(8, 8), u4(5, 5))))
    assert columns is not None
    assert len(np.unique(columns.values, axis=0)) == 2


def test_lateness_adds_up() -> None:
    late = stored("positions/demo/parkside", Late(5, 3, 1))
    assert late_of([late, late]) == (6, 2)
