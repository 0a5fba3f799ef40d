"""docs/money.md is the test table: its refusals are the ledger's, in the same order, and for each there is a row that meets it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from actors import ledger, ledger_codes, ledger_kernels, ledger_tables, ledger_transit
from actors.ledger import Ledger
from actors.ledger_codes import CODES
from actors.messages import CloseDay, Command, ReceiveTransfers, SetAccounts
from tests.actors.ledger_model import HOLD, MOVE, POST, REFUND, VOID, Account, Row
from tests.actors.parkside import keys, u4
from tests.actors.test_ledger_model import command_of, wire
from tests.actors.test_saga import Bench, i8, send, top_up

DOC = (Path(__file__).parents[2] / "docs" / "money.md").read_text()
A, B, TILL, OUT = ("wallet", 8), ("wallet", 16), ("till", 0), ("outside", 0)


def uuid7(ms: int, n: int = 0) -> int:
    """A UUIDv7 as the integer whose little-endian bytes it is."""
    data = ms.to_bytes(6, "big") + bytes([0x70, 0, 0x80]) + n.to_bytes(7, "big")
    return int.from_bytes(data, "little")


def rules(account: Account, *, frozen: bool = False, move_cap: int = 0, day_cap: int = 0) -> SetAccounts:
    return SetAccounts(
        currency="EUR", venue="parkside", account=i8(wire(account)), frozen=bytes([frozen]), move_cap=i8(move_cap), day_cap=i8(day_cap)
    )


class Case(NamedTuple):
    """Given commands after A was topped up with 100 (key 1), the last row of the last command is refused; `now` and currency as given there."""

    given: tuple[Command, ...]
    rows: tuple[Row, ...]
    now: int = 0
    currency: str = "EUR"
    ordered_ms: int = 0
    op: int | None = None
    wire: tuple[int, int] | None = None


HELD = command_of([Row(2, HOLD, A, TILL, 50, expires=9)])
PAID = command_of([Row(2, MOVE, A, TILL, 50)])
CASES: dict[str, Case] = {
    "linked_row_failed": Case((), (Row(2, MOVE, A, TILL, 500, linked=True), Row(3, MOVE, A, TILL, 5))),
    "linked_chain_open": Case((), (Row(2, MOVE, A, TILL, 5, linked=True),)),
    "operation_unknown": Case((), (Row(2, MOVE, A, TILL, 5),), op=9),
    "amount_must_be_zero": Case((HELD,), (Row(3, VOID, amount=1, reference=2),)),
    "amount_must_be_positive": Case((), (Row(2, MOVE, A, A, 0),)),
    "amount_too_large": Case((), (Row(2, MOVE, A, A, 10**12 + 1),)),
    "account_unknown": Case((), (Row(2, MOVE, A, TILL, 5),), wire=(4 << 60, 4 << 60)),
    "accounts_must_differ": Case((), (Row(2, MOVE, ("wallet", 9), ("wallet", 9), 5),)),
    "account_must_be_zero": Case((HELD,), (Row(3, POST, amount=5, reference=2),), wire=(wire(A), 0)),
    "reference_must_be_zero": Case((), (Row(2, MOVE, A, TILL, 5, reference=1, expires=5),)),
    "reference_must_differ": Case((), (Row(2, POST, reference=2, expires=5),)),
    "expiry_must_be_zero": Case((), (Row(2, MOVE, ("wallet", 9), TILL, 5, expires=5),)),
    "wrong_ledger": Case((), (Row(2, MOVE, ("wallet", 9), ("till", 500), 5),)),
    "unit_not_found": Case((), (Row(2, MOVE, A, ("till", 500), 5),)),
    "unit_has_no_till": Case((), (Row(2, HOLD, A, ("till", 2), 5, expires=3),), now=3),
    "expiry_must_be_later": Case((), (Row(1, HOLD, A, TILL, 5, expires=3),), now=3),
    "id_not_time_ordered": Case((), (Row(1, MOVE, A, TILL, 5),), ordered_ms=1000),
    "id_too_new": Case((), (Row(uuid7(61_001), MOVE, A, TILL, 5),), ordered_ms=1000),
    "exists_with_different_operation": Case((PAID,), (Row(2, HOLD, B, OUT, 6),)),
    "exists_with_different_subject": Case((PAID,), (Row(2, MOVE, B, OUT, 6),)),
    "exists_with_different_account": Case((PAID,), (Row(2, MOVE, A, OUT, 6),)),
    "exists_with_different_reference": Case((PAID, command_of([Row(3, REFUND, amount=5, reference=2)])), (Row(3, REFUND, amount=6, reference=1),)),
    "exists_with_different_amount": Case((HELD,), (Row(2, HOLD, A, TILL, 51, expires=8),)),
    "exists_with_different_expiry": Case((HELD,), (Row(2, HOLD, A, TILL, 50, expires=8),)),
    "linked_chain_partly_known": Case((PAID,), (Row(2, MOVE, A, TILL, 50, linked=True), Row(3, MOVE, A, TILL, 500))),
    "id_too_old": Case(
        (command_of([Row(uuid7(100 + i, i), MOVE, A, TILL, 1) for i in range(9)], ordered_ms=1000),),
        (Row(uuid7(100, 99), MOVE, A, TILL, 500),),
        ordered_ms=1000,
    ),
    "hold_not_found": Case((PAID,), (Row(3, POST, reference=2),), currency="CHF"),
    "original_not_found": Case((), (Row(3, REFUND, amount=5, reference=2),)),
    "original_not_refundable": Case((HELD,), (Row(3, REFUND, amount=5, reference=2),), currency="CHF"),
    "reference_differs": Case((HELD, command_of([Row(3, POST, reference=2)])), (Row(4, POST, reference=2),), currency="CHF"),
    "hold_is_posted": Case((HELD, command_of([Row(3, POST, reference=2)]), rules(A, frozen=True)), (Row(4, POST, amount=60, reference=2),)),
    "hold_is_void": Case((HELD, command_of([Row(3, VOID, reference=2)])), (Row(4, POST, amount=60, reference=2),)),
    "hold_is_expired": Case((HELD,), (Row(4, POST, amount=60, reference=2),), now=9),
    "wallet_not_found": Case((rules(TILL, frozen=True),), (Row(2, MOVE, B, TILL, 5),)),
    "account_frozen": Case((rules(TILL, frozen=True), rules(A, move_cap=1)), (Row(2, MOVE, A, TILL, 500),)),
    "exceeds_hold": Case((HELD,), (Row(3, POST, amount=51, reference=2),)),
    "exceeds_original": Case((PAID, command_of([Row(3, REFUND, amount=20, reference=2)])), (Row(4, REFUND, amount=31, reference=2),)),
    "exceeds_transaction_cap": Case((rules(A, move_cap=10, day_cap=10),), (Row(2, MOVE, A, TILL, 500),)),
    "exceeds_daily_cap": Case((rules(A, day_cap=60), PAID), (Row(3, MOVE, A, TILL, 500),)),
    "exceeds_balance": Case((HELD,), (Row(3, MOVE, A, TILL, 51),)),
}
ELSEWHERE = {
    "exists": "test_a_transfer_that_arrived_under_an_earlier_number_comes_back",
    "came_back": "tests/actors/test_saga.py",
    "exceeds_maximum": "test_no_balance_passes_the_maximum",
    "too_many_holds": "test_open_holds_are_limited",
}


def settle(bench: Bench, case: Case) -> list[str]:
    command = command_of(list(case.rows), now=case.now, currency=case.currency, ordered_ms=case.ordered_ms)
    fields = {name: getattr(command, name) for name in command.__struct_fields__}
    if case.op is not None:
        fields["op"] = bytes([case.op])
    if case.wire is not None:
        fields["debit"], fields["credit"] = i8(case.wire[0]), i8(case.wire[1])
    return bench.codes(0, type(command)(**fields))


def bench_of(*commands: Command, max_keys: int = 950_000) -> Bench:
    bench = Bench(Ledger(max_keys))
    bench.ask(0, top_up(1, 8, 100))
    for command in commands:
        bench.ask(0, command)
    return bench


@pytest.mark.parametrize("code", CASES)
def test_each_refusal_of_the_table(code: str) -> None:
    bench = bench_of(*CASES[code].given, max_keys=5 if code == "id_too_old" else 950_000)
    before = bench.ledger.save(bench.state[0])
    assert settle(bench, CASES[code])[-1] == code
    if code != "hold_is_expired":
        assert bench.ledger.save(bench.state[0]) == before, "a refusal left a trace"


def test_the_table_is_the_order_of_the_checks() -> None:
    section = DOC.split("## What is refused")[1].split("\n## ")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", section, re.M)) == CODES
    assert CASES.keys() | ELSEWHERE.keys() == set(CODES)


def test_the_numbers_are_those_of_the_code() -> None:
    for number in (ledger_transit.MAX_BATCH, ledger.MAX_HOLDS, ledger_tables.MAX_KEYS, ledger_transit.MAX_UNDER_WAY):
        assert f"{number:,}" in DOC
    assert (ledger_codes.MAX_AMOUNT, ledger_codes.MAX_BALANCE, ledger_codes.MAX_AHEAD_MS) == (10**12, 2**62, 60_000)


def test_a_row_that_breaks_many_rules_is_refused_by_the_first() -> None:
    """Rows of the table that also break the rules after their own; here all at once."""
    bench = bench_of(rules(A, frozen=True, move_cap=1, day_cap=1))
    names = []
    for row in (
        Row(1, MOVE, ("wallet", 9), ("till", 500), 0),
        Row(1, MOVE, ("wallet", 9), ("till", 500), 500),
        Row(1, MOVE, A, ("till", 500), 500),
        Row(1, MOVE, A, TILL, 500),
        Row(2, MOVE, A, TILL, 500),
    ):
        names += settle(bench, Case((), (row,)))
    assert names == ["amount_must_be_positive", "wrong_ledger", "unit_not_found", "exists_with_different_account", "account_frozen"]


def test_a_transfer_that_arrived_under_an_earlier_number_comes_back() -> None:
    bench = bench_of()
    arrived = {"source": 1, "through": 0, "currency": "EUR", "key": keys(7), "subject": u4(9), "to": u4(8), "amount": i8(5)}
    outcomes = []
    for sequence in (1, 2):
        reply = bench.ask(0, ReceiveTransfers(sequence=np.array([sequence], "<u8").tobytes(), **arrived))  # type: ignore[arg-type]
        outcomes.append(reply.outcome[0])  # type: ignore[union-attr]
    assert outcomes == [0, CODES.index("exists") + 1]
    assert bench.balance(8) == 105


def test_no_balance_passes_the_maximum() -> None:
    bench = bench_of()
    row = bench.state[0].tables.find(1 << 60 | 8)
    for state in (bench.state[0], bench.again[0]):
        state.tables.accounts[row, ledger_kernels.A_BALANCE] = 2**62 - 5
        state.tables.accounts[state.tables.find(3 << 60), ledger_kernels.A_BALANCE] = -(2**62) + 5
    assert settle(bench, Case((), (Row(2, MOVE, OUT, A, 6),))) == ["exceeds_maximum"]
    assert settle(bench, Case((), (Row(2, MOVE, OUT, A, 5),))) == ["settled"]


def test_open_holds_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_HOLDS", 2)
    holds = tuple(Row(i, HOLD, A, TILL, 5) for i in (2, 3, 4))
    bench = bench_of()
    assert settle(bench, Case((), holds)) == ["settled", "settled", "too_many_holds"]
    assert settle(bench, Case((), (Row(5, VOID, reference=2), Row(4, HOLD, A, TILL, 5)))) == ["settled", "settled"]


def test_a_forgotten_opaque_key_is_as_if_never_seen_and_a_time_ordered_one_is_refused() -> None:
    bench = bench_of(max_keys=4)
    opaque = [Row(10 + i, MOVE, A, TILL, 1) for i in range(6)]
    for row in opaque:
        assert settle(bench, Case((), (row,))) == ["settled"]
    assert bench.balance(8) == 94
    assert settle(bench, Case((), (opaque[5],))) == ["settled"]
    assert bench.balance(8) == 94, "remembered"
    assert settle(bench, Case((), (opaque[0],))) == ["settled"]
    assert bench.balance(8) == 93, "forgotten"
    ordered = [Row(uuid7(50 + i, i), MOVE, A, TILL, 1) for i in range(6)]
    for row in ordered:
        assert settle(bench, Case((), (row,), ordered_ms=99)) == ["settled"]
    assert settle(bench, Case((), (ordered[0],), ordered_ms=99)) == ["id_too_old"]
    assert settle(bench, Case((), (ordered[5],), ordered_ms=99)) == ["settled"]
    assert bench.balance(8) == 87


def test_the_day_resets_caps_and_is_closed_once() -> None:
    bench = bench_of(rules(A, day_cap=60), PAID)
    assert settle(bench, Case((), (Row(3, MOVE, A, TILL, 11),))) == ["exceeds_daily_cap"]
    closed = bench.ask(0, CloseDay(day=0, next_day=20_780))
    assert bench.ask(0, CloseDay(day=0, next_day=20_780)) == closed
    assert closed.balances["wallets"] == {"EUR": 50}  # type: ignore[union-attr]
    assert bench.ask(0, CloseDay(day=5, next_day=6)).code == "day_not_open"  # type: ignore[union-attr]
    assert settle(bench, Case((), (Row(3, MOVE, A, TILL, 11),))) == ["settled"]


def test_a_send_is_checked_like_a_move() -> None:
    bench = bench_of(rules(A, move_cap=40))
    assert bench.codes(0, send((2, 8, 8, 5), (3, 9, 8, 5), (4, 8, 9, 0), (5, 8, 9, 41), (6, 8, 9, 40))) == [
        "accounts_must_differ", "wrong_ledger", "amount_must_be_positive", "exceeds_transaction_cap", "settled",
    ]  # fmt: skip
