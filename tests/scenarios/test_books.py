"""The books: folded from the journal, compared with what was told and with what clients saw acknowledged."""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.events import EventBody, Paid, ToppedUp
from esplanade.core.ids import Address
from scenarios.books import Acked, Books, Fold, acked_in, check_books
from scenarios.hashing import Told
from tests.scenarios.test_hashing import key, u2, u4

LEDGER = Address("ledger", "run-1", "3")
TOPPED = ToppedUp(1, "EUR", key(1) + key(2), u4(3, 11), u4(1000, 1000))
PAID = Paid(6, "v", "EUR", key(7) + key(8), u4(3, 11), u2(4, 4), u4(300, 150))
TOLD: dict[str, Any] = {"total": {"EUR": 0}, "wallets": {"EUR": 1550}, "tills": {"EUR": 450}, "outside": {"EUR": -2000}, "payments": 2, "top_ups": 2}


def fold(*events: EventBody) -> Fold:
    folded = Fold()
    for i, body in enumerate(events):
        folded.add(Told(LEDGER, i + 1, body))
    return folded


def check(told: dict[str, Any] = TOLD, acked: tuple[Acked, ...] = (), *events: EventBody) -> Books:
    return check_books(fold(*(events or (TOPPED, PAID))), told, acked)


def test_books_that_agree_three_ways_balance() -> None:
    books = check(TOLD, (Acked(key(7), 3, 4, 300), Acked(key(8), 11, 4, 150)))
    assert books.balanced
    assert (books.sum, books.wallets, books.tills, books.outside) == ({"EUR": 0}, {"EUR": 1550}, {"EUR": 450}, {"EUR": -2000})
    assert (books.payments, books.volume, books.acked, books.acked_lost) == (2, {"EUR": 450}, 2, 0)


def test_an_acknowledged_payment_that_the_journal_lacks_or_has_otherwise_is_lost() -> None:
    books = check(TOLD, (Acked(key(9), 3, 4, 300), Acked(key(8), 11, 4, 151), Acked(key(7), 3, 4, 300)))
    assert (books.acked_lost, books.balanced) == (2, False)


def test_told_books_that_differ_from_the_fold_are_off() -> None:
    books = check(TOLD | {"tills": {"EUR": 449}, "total": {"EUR": -1}})
    assert (books.difference, books.largest_sum, books.balanced) == (1, 1, False)


def test_a_payment_booked_twice_and_a_wallet_below_zero_are_found() -> None:
    assert check(TOLD, (), TOPPED, PAID, PAID).twice == 2
    assert check(TOLD, (), ToppedUp(1, "EUR", key(1), u4(3), u4(299)), Paid(6, "v", "EUR", key(7), u4(3), u2(4), u4(300))).overdrawn == 1


def test_acked_payments_are_read_from_the_logs_of_the_load_generator() -> None:
    log = {
        "pay_key": np.frombuffer(key(7) + key(8), np.uint8).reshape(-1, 16),
        "pay_subject": np.array([3, 11]),
        "pay_unit": np.array([4, 4]),
        "pay_amount": np.array([300, 150]),
        "pay_status": np.array([1, 2]),
    }
    assert acked_in([log], settled=1) == [Acked(key(7), 3, 4, 300)]
