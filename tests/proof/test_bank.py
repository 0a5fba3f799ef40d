"""The bank checker finds every kind of wrong in made-up histories, and nothing in a right one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.proof.bank import Acked, Finding, Log, Movement, Opened, Read, Record, Refused, Sent, Told, check, read_log


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


RIGHT: list[Record] = [
    Opened(1),
    Sent(1, key(1), 1000),
    Acked(key(1)),
    Sent(1, key(2), -300),
    Sent(1, key(2), -300),  # no answer came: the same again
    Acked(key(2), 700),
    Read(1, 700),
    Sent(1, key(3), -900),
    Refused(key(3), "exceeds_balance"),
    Sent(1, key(2), -300),
    Acked(key(2), 700),
    Sent(1, key(4), -50),
    Acked(key(4), 650),
]
OTHER: list[Record] = [Opened(2), Sent(2, key(9), 40), Acked(key(9), 40)]
TOLD = Told(
    balances={1: 650, 2: 40}, total={"EUR": 0}, wallets=690, tills=350, outside=-1040, payments=2, top_ups=2,
    statements={
        1: [Movement(key(1), 1000, 1000), Movement(key(2), -300, 700), Movement(key(4), -50, 650)],
        2: [Movement(key(9), 40, 40)],
    },
)  # fmt: skip


def found(history: list[Record], told: Told) -> set[str]:
    return {finding.kind for finding in check([history, OTHER], told).findings}


def without_statements(told: Told) -> Told:
    return replace(told, statements=None)


def with_statement(*lines: Movement) -> Callable[[Told], Told]:
    return lambda told: replace(told, statements={1: lines, 2: (told.statements or {})[2]})


def test_a_right_history_has_no_finding() -> None:
    verdict = check([RIGHT, OTHER], TOLD)
    assert verdict.findings == []
    assert (verdict.wallets, verdict.acked, verdict.refused, verdict.reads, verdict.repeated, verdict.unknown) == (2, 4, 1, 1, 1, 0)
    assert verdict.volume == 350
    assert check([RIGHT, OTHER], without_statements(TOLD)).sound


LOST = replace(TOLD, balances={1: 950, 2: 40}, wallets=990, tills=50, payments=1)
TWICE = replace(TOLD, balances={1: 350, 2: 40}, wallets=390, tills=650, payments=3)


@pytest.mark.parametrize(
    ("what", "told", "kinds"),
    [
        ("an acked payment is lost", with_statement(Movement(key(1), 1000, 1000), Movement(key(4), -50, 950))(LOST), {"lost", "balance", "books"}),
        ("an acked payment is lost, told by balances alone", without_statements(LOST), {"lost", "balance", "books"}),
        ("an acked payment is only missing from the statement", with_statement(Movement(key(1), 1000, 1000), Movement(key(4), -50, 950))(TOLD), {"lost"}),
        (
            "a payment has its effect twice",
            with_statement(Movement(key(1), 1000, 1000), Movement(key(2), -300, 700), Movement(key(2), -300, 400), Movement(key(4), -50, 350))(TWICE),
            {"twice", "balance", "books"},
        ),
        ("a payment has its effect twice, told by balances alone", without_statements(TWICE), {"twice", "balance", "books"}),
        ("two wallets of which one paid for the other", replace(TOLD, balances={1: 600, 2: 90}), {"balance"}),
        ("the accounts do not add up", replace(TOLD, total={"EUR": 1}), {"sum"}),
        ("wallets, tills and the outside do not add up", replace(TOLD, wallets=691), {"sum"}),
        ("the service does not know a wallet", replace(TOLD, balances={1: 650}), {"balance"}),
        ("a payment that nobody sent", replace(without_statements(TOLD), payments=3), {"twice"}),
        ("till money that nobody paid", replace(TOLD, tills=360, outside=-1050), {"books"}),
        (
            "a line that nobody sent",
            with_statement(Movement(key(1), 1000, 1000), Movement(key(7), 0, 1000), Movement(key(2), -300, 700), Movement(key(4), -50, 650))(TOLD),
            {"never_sent"},
        ),
        (
            "a refused payment that took effect",
            with_statement(Movement(key(1), 1000, 1000), Movement(key(2), -300, 700), Movement(key(3), -900, -200), Movement(key(4), -50, -250))(
                replace(TOLD, balances={1: -250, 2: 40}, wallets=-210, tills=1250, payments=3)
            ),
            {"never_sent", "negative", "balance", "twice", "books"},
        ),
        (
            "another amount than was asked for",
            with_statement(Movement(key(1), 1000, 1000), Movement(key(2), -30, 970), Movement(key(4), -320, 650))(TOLD),
            {"balance"},
        ),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)  # fmt: skip
def test_a_service_that_tells_otherwise_is_found_out(what: str, told: Told, kinds: set[str]) -> None:
    assert found(RIGHT, told) == kinds, what


@pytest.mark.parametrize(
    ("what", "place", "instead", "kind"),
    [
        ("an answer tells the balance without the payment", 5, Acked(key(2), 1000), "balance"),
        ("a read tells an old balance", 6, Read(1, 1000), "balance"),
        ("a read tells a negative balance", 6, Read(1, -1), "negative"),
        ("the answer is another the second time", 10, Acked(key(2), 650), "answer"),
        ("what was acknowledged is refused the second time", 10, Refused(key(2), "exceeds_balance"), "answer"),
    ],
)
def test_an_answer_that_contradicts_an_earlier_one_is_found_out(what: str, place: int, instead: Record, kind: str) -> None:
    history = [*RIGHT[:place], instead, *RIGHT[place + 1 :]]
    assert kind in found(history, TOLD), what


def test_a_negative_balance_is_found_out_even_where_it_adds_up() -> None:
    history: list[Record] = [Opened(1), Sent(1, key(1), 100), Acked(key(1)), Sent(1, key(2), -300), Acked(key(2), -200)]
    told = Told(balances={1: -200, 2: 40}, total={"EUR": 0}, wallets=-160, tills=300, outside=-140, payments=1, top_ups=2)
    assert found(history, told) == {"negative"}


def test_a_request_that_was_given_up_may_have_had_its_effect_or_not() -> None:
    history = [*RIGHT, Sent(1, key(5), -10)]
    assert check([history, OTHER], without_statements(TOLD)).unknown == 1
    assert found(history, without_statements(TOLD)) == set()
    assert found(history, replace(without_statements(TOLD), balances={1: 640, 2: 40}, wallets=680, tills=360, payments=3)) == set()
    assert found(history, replace(without_statements(TOLD), balances={1: 630, 2: 40}, wallets=670, tills=370, payments=4)) == {
        "balance",
        "books",
        "twice",
    }


def test_a_log_is_read_up_to_where_its_writer_was_killed(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    for record in RIGHT:
        log.write(record)
    log.close()
    path = tmp_path / "log"
    assert read_log(path) == RIGHT
    path.write_bytes(path.read_bytes()[:-3])
    assert read_log(path) == RIGHT[:-1]
    assert read_log(tmp_path / "none") == []


def test_findings_say_what_they_found() -> None:
    said = check([RIGHT, OTHER], LOST).findings
    assert Finding("balance", "wallet 1, at the end: 950, but clients were acknowledged [650]") in said
