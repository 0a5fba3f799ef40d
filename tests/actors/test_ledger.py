"""The ledger as given, when, then; and against a model of dictionaries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actors.behaviour import Context, Decision
from actors.events import EventBody, Paid, ToppedUp, decode_event, encode_event
from actors.ledger import CODES, Ledger, LedgerState, balances_of, books_of
from actors.messages import CreateOffer, Payments, Rejected, Settled, TopUps
from actors.venue_book import VenueBook
from esplanade.core.ids import Address
from spatial.offers import Inside, Offer
from tests.actors.parkside import document, from_i8, keys, named, u2, u4

BOOK = VenueBook.read(document())
CONTEXT = Context(address=Address("ledger", "demo", "0"), venue=BOOK)
LEDGER = Ledger()


def top_ups(*rows: tuple[int, int, int], currency: str = "EUR") -> TopUps:
    """Rows of (key, subject, amount)."""
    return TopUps(tick=1, key=keys(*(r[0] for r in rows)), subject=u4(*(r[1] for r in rows)), amount=u4(*(r[2] for r in rows)), currency=currency)


def payments(*rows: tuple[int, int, int, int], currency: str = "EUR") -> Payments:
    """Rows of (key, subject, unit, amount)."""
    key, subject, unit, amount = zip(*rows, strict=True)
    return Payments(tick=2, venue="parkside", key=keys(*key), subject=u4(*subject), unit=u2(*unit), amount=u4(*amount), currency=currency)


def given(*commands: TopUps | Payments) -> LedgerState:
    state = LEDGER.initial()
    for command in commands:
        when(state, command)
    return state


def when(state: LedgerState, command: TopUps | Payments) -> tuple[list[str], list[int], tuple[EventBody, ...]]:
    """Result names and balances by row, and the events, which are applied. `decide` alone must leave the state as it was."""
    before = LEDGER.save(state)
    decision = LEDGER.decide(state, command, CONTEXT)
    assert isinstance(decision, Decision), decision
    assert LEDGER.save(state) == before, "deciding changed the state"
    for event in decision.events:
        state = LEDGER.apply(state, decode_event(*encode_event(event)))
    assert isinstance(decision.reply, Settled)
    return named(decision.reply.codes, decision.reply.result), from_i8(decision.reply.balance), decision.events


def test_a_top_up_makes_the_wallet_and_is_owed_by_the_outside() -> None:
    state = given()
    assert when(state, top_ups((1, 8, 100), (2, 8, 50)))[:2] == (["settled", "settled"], [100, 150])
    books = books_of(state)
    assert (books.wallets, books.outside, books.total) == ({"EUR": 150}, {"EUR": -150}, {"EUR": 0})
    assert (books.top_ups, books.payments) == (2, 0)


def test_a_payment_moves_from_wallet_to_till() -> None:
    state = given(top_ups((1, 8, 100)))
    names, balances, events = when(state, payments((2, 8, 0, 30)))
    assert (names, balances) == (["settled"], [70])
    assert isinstance(events[0], Paid)
    assert books_of(state).tills == {"EUR": 30}


def test_a_debit_beyond_the_balance_is_refused_and_leaves_no_event() -> None:
    state = given(top_ups((1, 8, 100)))
    assert when(state, payments((2, 8, 0, 101))) == (["exceeds_balance"], [100], ())


def test_rows_of_a_batch_are_settled_one_after_the_other() -> None:
    state = given(top_ups((1, 8, 100)))
    names, balances, events = when(state, payments((2, 8, 0, 60), (3, 8, 1, 60), (4, 8, 1, 40)))
    assert names == ["settled", "exceeds_balance", "settled"]
    assert balances == [40, 40, 0]
    assert isinstance(events[0], Paid)
    assert events[0].key == keys(2, 4), "only the rows that moved money are journalled"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ((9, 8, 0, 0), "amount_must_be_positive"),
        ((9, 9, 0, 5), "wrong_ledger"),
        ((9, 8, 500, 5), "unit_not_found"),
        ((9, 8, 2, 5), "unit_has_no_till"),
        ((2, 16, 0, 30), "exists_with_different_subject"),
        ((2, 8, 1, 30), "exists_with_different_account"),
        ((1, 8, 0, 30), "exists_with_different_account"),
        ((2, 8, 0, 31), "exists_with_different_amount"),
        ((9, 24, 0, 5), "wallet_not_found"),
        ((9, 8, 0, 71), "exceeds_balance"),
    ],
)
def test_each_refusal_has_its_code(row: tuple[int, int, int, int], code: str) -> None:
    state = given(top_ups((1, 8, 100), (7, 16, 100)), payments((2, 8, 0, 30)))
    names, _, events = when(state, payments(row))
    assert (names, events) == ([code], ())
    assert code in CODES


def test_a_repeated_key_answers_as_the_first_time() -> None:
    state = given(top_ups((1, 8, 100)), payments((2, 8, 0, 30)), payments((3, 8, 0, 50)))
    assert when(state, payments((2, 8, 0, 30))) == (["settled"], [70], ())
    assert balances_of(state, 8) == {"EUR": 20}


def test_a_key_repeated_within_a_batch_moves_money_once() -> None:
    state = given(top_ups((1, 8, 100)))
    names, balances, _ = when(state, payments((2, 8, 0, 30), (2, 8, 0, 30)))
    assert (names, balances) == (["settled", "settled"], [70, 70])
    assert balances_of(state, 8) == {"EUR": 70}


def test_a_refused_key_may_be_tried_again() -> None:
    state = given(payments((2, 8, 0, 30)), top_ups((1, 8, 100)))
    assert when(state, payments((2, 8, 0, 30)))[0] == ["settled"]


def test_currencies_do_not_mix() -> None:
    state = given(top_ups((1, 8, 100)), top_ups((2, 8, 5), currency="CHF"))
    assert when(state, payments((3, 8, 0, 6), currency="CHF"))[0] == ["exceeds_balance"]
    assert balances_of(state, 8) == {"EUR": 100, "CHF": 5}
    assert books_of(state).total == {"EUR": 0, "CHF": 0}


def test_columns_that_disagree_are_rejected_whole() -> None:
    bad = TopUps(tick=1, key=keys(1), subject=u4(8, 16), amount=u4(1, 1), currency="EUR")
    rejected = LEDGER.decide(given(), bad, CONTEXT)
    assert isinstance(rejected, Rejected)
    assert rejected.code == "invalid"


def test_a_command_for_another_kind_is_not_understood() -> None:
    offer = CreateOffer(offer=Offer(id="o", unit_id="shop-00", title="o", audience=Inside()))
    rejected = LEDGER.decide(given(), offer, CONTEXT)
    assert isinstance(rejected, Rejected)
    assert rejected.code == "not_understood"


class Books(RuleBasedStateMachine):
    """Random top-ups and payments with keys that repeat; a dictionary says what should be."""

    @initialize()
    def begin(self) -> None:
        self.state = LEDGER.initial()
        self.events: list[EventBody] = []
        self.wallet: dict[tuple[str, int], int] = {}
        self.till: dict[tuple[str, int], int] = {}
        self.keys: dict[int, tuple[Any, ...]] = {}

    def _run(self, command: TopUps | Payments) -> list[str]:
        names, _, events = when(self.state, command)
        self.events += events
        return names

    subject = st.sampled_from([0, 8, 16, 9])
    currency = st.sampled_from(["EUR", "CHF"])
    key = st.integers(1, 40)

    @rule(rows=st.lists(st.tuples(key, subject, st.integers(0, 50)), min_size=1, max_size=5), currency=currency)
    def top_up(self, rows: list[tuple[int, int, int]], currency: str) -> None:
        expected = []
        for key, subject, amount in rows:
            what = ("in", subject, currency, amount)
            if amount == 0 or subject % 8:
                expected.append("refused")
            elif key in self.keys:
                expected.append("settled" if self.keys[key] == what else "refused")
            else:
                self.keys[key] = what
                self.wallet[(currency, subject)] = self.wallet.get((currency, subject), 0) + amount
                expected.append("settled")
        assert [name if name == "settled" else "refused" for name in self._run(top_ups(*rows, currency=currency))] == expected

    @rule(rows=st.lists(st.tuples(key, subject, st.integers(0, 3), st.integers(0, 60)), min_size=1, max_size=6), currency=currency)
    def pay(self, rows: list[tuple[int, int, int, int]], currency: str) -> None:
        expected = []
        for key, subject, unit, amount in rows:
            what = ("out", subject, unit, currency, amount)
            held = self.wallet.get((currency, subject))
            if amount == 0 or subject % 8 or unit == 2:
                expected.append("refused")
            elif key in self.keys:
                expected.append("settled" if self.keys[key] == what else "refused")
            elif held is None or held < amount:
                expected.append("refused")
            else:
                self.keys[key] = what
                self.wallet[(currency, subject)] = held - amount
                self.till[(currency, unit)] = self.till.get((currency, unit), 0) + amount
                expected.append("settled")
        assert [name if name == "settled" else "refused" for name in self._run(payments(*rows, currency=currency))] == expected

    @rule()
    def restart(self) -> None:
        """The fold of the journal, and the snapshot, are the live state, byte by byte."""
        folded = LEDGER.initial()
        for event in self.events:
            assert isinstance(event, ToppedUp | Paid)
            folded = LEDGER.apply(folded, event)
        assert LEDGER.save(folded) == LEDGER.save(self.state)
        self.state = LEDGER.load(LEDGER.save(self.state))

    @invariant()
    def the_books_balance(self) -> None:
        books = books_of(self.state)
        assert all(total == 0 for total in books.total.values())
        for currency in books.wallets:
            assert books.wallets[currency] == sum(v for (c, _), v in self.wallet.items() if c == currency)
            assert books.tills[currency] == sum(v for (c, _), v in self.till.items() if c == currency)
        for (currency, subject), held in self.wallet.items():
            assert balances_of(self.state, subject)[currency] == held >= 0


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=40, stateful_step_count=25)
