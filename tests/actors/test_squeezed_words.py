"""Tables of words as bytes: exact, small, and refused where they are not whole."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from actors.behaviour import Decision
from actors.ledger import Ledger, books_of
from actors.ledger_state import FORMAT, FORMAT_2
from actors.messages import Balance, Books
from actors.squeezed_words import I8, byte_of_all, rows_of, squeeze, widen
from esplanade.core.errors import Fault
from tests.actors.test_ledger import CONTEXT, LEDGER, payments, top_ups, when

FORMAT_2_LEDGER = (
    "c-ouCbd=G70Rjxd{zCu*iGTw_3AmA{PYy~8py`(+Qa_qH1vv)t03%dCnc5kSGAc0QHWmz0aM0+0iGY|J4jLUWV{r>JmY|m-U=9lww}8YL8BwDEM(aZ94q;S%|0gbX4Go&Oq9Cy-"
    "yEro?b>f0a6DBY+u`nEH1WCvN01{Uml>"
)
"""A ledger's snapshot of format 2 as it was written before format 3: two top-ups, a payment, an open hold. zlib, base85."""


def widened(data: bytes, words: int) -> I8:
    table = np.full((rows_of(data) + 1, words), -7, np.int64)
    widen(data, table)
    assert (table[-1] == -7).all(), "it writes no further than its rows"
    return table[:-1]


@given(arrays.arrays(np.int64, st.tuples(st.integers(0, 12), st.integers(1, 9))), st.integers(0, 12))
def test_a_table_comes_back_whole_wherever_it_is_parted(table: I8, cut: int) -> None:
    cut = min(cut, len(table))
    data = squeeze([table[:cut], table[cut:]])
    assert np.array_equal(widened(data, table.shape[1]), table)
    assert data == squeeze([table]), "and has the same bytes"


def test_bytes_that_never_differ_cost_nothing() -> None:
    table = np.zeros((1_000, 9), np.int64)
    table[:, 0] = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 1_000)
    table[:, 3] = 2**40 + np.arange(1_000) % 200
    assert len(squeeze([table])) == 8 + 16 * 9 + 1_000 * (8 + 1)


def test_what_is_cut_short_or_of_another_width_is_a_fault() -> None:
    data = squeeze([np.arange(18, dtype=np.int64).reshape(2, 9)])
    with pytest.raises(Fault, match="must be"):
        widen(data[:-1], np.zeros((2, 9), np.int64))
    with pytest.raises(Fault, match="9 words"):
        widen(data, np.zeros((2, 8), np.int64))


def test_a_byte_is_known_without_reading_the_rows_where_all_have_the_same() -> None:
    table = np.zeros((5, 2), np.int64)
    table[:, 1] = 0x0100 | np.arange(5)
    data = squeeze([table])
    assert [byte_of_all(data, 1, byte) for byte in (0, 1, 2)] == [None, 1, 0]
    assert byte_of_all(squeeze([table[:0]]), 1, 1) == 0


def test_keys_are_read_when_one_is_asked_for() -> None:
    state = LEDGER.initial()
    when(state, top_ups((1, 8, 100), (2, 16, 70)))
    kept = LEDGER.save(state)
    loaded = LEDGER.load(kept)
    assert LEDGER.balances(loaded, [8, 16, 24]) == [Balance(balances={"EUR": 100}), Balance(balances={"EUR": 70}), Balance(balances={})]
    assert loaded.tables._kept_keys is not None
    assert LEDGER.save(loaded) == kept
    assert when(loaded, top_ups((2, 16, 70), (3, 16, 5)))[:2] == (["settled", "settled"], [70, 75])
    assert loaded.tables._kept_keys is None
    assert when(state, top_ups((3, 16, 5)))[:2] == (["settled"], [75])
    assert LEDGER.save(loaded) == LEDGER.save(state)


def test_a_ledger_of_the_format_before_is_read_and_written_anew() -> None:
    stored = zlib.decompress(base64.b85decode(FORMAT_2_LEDGER))
    assert stored[1] == FORMAT_2
    state = Ledger().load(stored)
    assert books_of(state) == Books(
        accounts=5, total={"EUR": 0}, wallets={"EUR": 140}, tills={"EUR": 30}, outside={"EUR": -170}, payments=1, top_ups=2, transit={"EUR": 0},
        held={"EUR": 25}, day=0,
    )  # fmt: skip
    assert (state.tables.open_holds, state.next_expiry("", after=0)) == (1, 5_000)
    again = LEDGER.save(state)
    assert again[1] == FORMAT
    assert LEDGER.save(LEDGER.load(again)) == again
    assert len(again) < len(stored)
    assert when(state, payments((3, 8, 0, 30), (5, 8, 0, 70)))[:2] == (["settled", "settled"], [70, 0]), "its keys are remembered"


def test_a_ledger_whose_ring_has_turned_is_kept_whole() -> None:
    small = Ledger(max_keys=100)
    state = small.initial()
    for first in range(1, 301, 30):
        decision = small.decide(state, top_ups(*((first + i, 8 * (i % 20), 1 + i) for i in range(30))), CONTEXT)
        assert isinstance(decision, Decision)
        for event in decision.events:
            state = small.apply(state, event)
    assert len(state.tables._key_parts()) == 2
    loaded = small.load(small.save(state))
    assert small.save(loaded) == small.save(state)
    assert loaded.tables.key_count == 100
    assert [loaded.tables.find_key(key, 0) >= 0 for key in (200, 201, 300)] == [False, True, True]
