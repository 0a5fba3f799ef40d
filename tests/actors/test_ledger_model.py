"""The ledger against the slow obvious model, at every step: codes, balances told, accounts, conservation, and replay equal to live byte by byte."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actors import ledger_codes as c
from actors.behaviour import Context, Decision
from actors.events import decode_event, encode_event
from actors.ledger import Ledger
from actors.ledger_state import account_states, books_of
from actors.messages import CloseDay, Command, GetAccount, SetAccounts, Settled, TopUps, Transfers
from actors.venue_book import VenueBook
from esplanade.core.ids import Address
from tests.actors import ledger_model as m
from tests.actors.parkside import document, from_i8, keys, named, u4

BOOK = VenueBook.read(document())
CONTEXT = Context(address=Address("ledger", "demo", "0"), venue=BOOK)
KINDS = {"wallet": c.WALLET, "till": c.TILL, "outside": c.OUTSIDE, "transit": c.TRANSIT}
OPS = {m.MOVE: c.OP_MOVE, m.HOLD: c.OP_HOLD, m.POST: c.OP_POST, m.VOID: c.OP_VOID, m.REFUND: c.OP_REFUND}
CLOCK = "parkside"


def wire(account: m.Account | None) -> int:
    return 0 if account is None else KINDS[account[0]] << 60 | account[1]


def command_of(rows: list[m.Row], *, now: int = 0, currency: str = "EUR", ordered_ms: int = 0) -> Transfers:
    def column(values: list[int]) -> bytes:
        return np.array(values, "<i8").tobytes()

    return Transfers(
        clock=CLOCK, now=now, venue="parkside", currency=currency, key=keys(*(row.key for row in rows)),
        op=bytes(OPS[row.op] | (c.LINKED if row.linked else 0) for row in rows), debit=column([wire(row.debit) for row in rows]),
        credit=column([wire(row.credit) for row in rows]), amount=column([row.amount for row in rows]),
        reference=keys(*(row.reference for row in rows)), expires=column([row.expires for row in rows]), ordered_ms=ordered_ms,
    )  # fmt: skip


SUBJECTS = [0, 8, 16]
ACCOUNTS: list[m.Account] = [*(("wallet", s) for s in SUBJECTS), ("till", 0), ("till", 1), ("outside", 0)]
STRANGE: list[m.Account] = [("wallet", 9), ("till", 500), ("till", 2)]
KEYS = st.integers(1, 60)
CURRENCIES = st.sampled_from(["EUR", "EUR", "EUR", "CHF"])


@st.composite
def rows(draw: st.DrawFn) -> m.Row:
    op = draw(st.sampled_from([m.MOVE, m.MOVE, m.HOLD, m.HOLD, m.POST, m.VOID, m.REFUND]))
    key, linked = draw(KEYS), draw(st.integers(0, 4)) == 0
    if op in (m.POST, m.VOID, m.REFUND):
        amount = int(draw(st.integers(0, 20)) == 0) if op == m.VOID else draw(st.integers(0, 40))
        return m.Row(key, op, amount=amount, reference=draw(KEYS), linked=linked)
    account = st.sampled_from(ACCOUNTS + (STRANGE if draw(st.integers(0, 9)) == 0 else []))
    if draw(st.integers(0, 9)):
        debit, credit = draw(st.permutations(ACCOUNTS))[:2]
        return m.Row(key, op, debit, credit, draw(st.integers(1, 60)), expires=draw(st.integers(0, 8)) if op == m.HOLD else 0, linked=linked)
    expires = draw(st.integers(0, 12)) if op == m.HOLD else 0
    return m.Row(key, op, draw(account), draw(account), draw(st.integers(0, 60)), expires=expires, linked=linked)


class Transferring(RuleBasedStateMachine):
    @initialize(max_keys=st.sampled_from([6, 10**6]))
    def begin(self, max_keys: int) -> None:
        self.ledger = Ledger(max_keys)
        self.live, self.replayed = self.ledger.initial(), self.ledger.initial()
        tills = tuple(np.flatnonzero(BOOK.has_till).tolist())
        self.model = m.Model(max_keys=max_keys, tills=tills, units=len(BOOK.has_till))
        self.now = 0
        for i, subject in enumerate(SUBJECTS):
            self.top_up(subject=subject, amount=150, key=61 + i, currency="EUR")

    def _aimed(self, row: m.Row) -> m.Row:
        """Most references are to something that may be meant, most expiries lie ahead."""
        wanted = {m.POST: m.HOLD, m.VOID: m.HOLD, m.REFUND: m.MOVE}.get(row.op)
        meant = [key for key, known in self.model.known.items() if known.op == wanted]
        reference = meant[row.reference % len(meant)] if meant and row.reference % 4 else row.reference
        return dataclasses.replace(row, reference=reference, expires=row.expires + self.now - 1 if row.expires else 0)

    def _turn(self, command: Command) -> Decision:
        before = self.ledger.save(self.live)
        decision = self.ledger.decide(self.live, command, CONTEXT)
        assert isinstance(decision, Decision), decision
        assert self.ledger.save(self.live) == before, "deciding changed the state"
        for event in decision.events:
            self.live = self.ledger.apply(self.live, event)  # the very event: the plan of `decide` is done again
            self.replayed = self.ledger.apply(self.replayed, decode_event(*encode_event(event)))
            assert self.ledger.save(self.live) == self.ledger.save(self.replayed), "replay is not live"
            books = books_of(self.live)
            assert not any(books.total.values()), "money was made or lost"
        return decision

    @rule(batch=st.lists(rows(), min_size=0, max_size=7), currency=CURRENCIES, step=st.integers(0, 2))
    def transfer(self, batch: list[m.Row], currency: str, step: int) -> None:
        self.now += step
        batch = [self._aimed(row) for row in batch]
        reply = self._turn(command_of(batch, now=self.now, currency=currency)).reply
        assert isinstance(reply, Settled)
        expected = self.model.batch(currency, self.now, batch)
        assert named(reply.codes, reply.result) == [code for code, _ in expected]
        for told, (code, balance) in zip(from_i8(reply.balance), expected, strict=True):
            assert code != "settled" or told == balance

    @rule(subject=st.sampled_from(SUBJECTS), amount=st.integers(1, 200), key=KEYS, currency=CURRENCIES)
    def top_up(self, subject: int, amount: int, key: int, currency: str) -> None:
        command = TopUps(tick=0, key=keys(key), subject=u4(subject), amount=u4(amount), currency=currency)
        reply = self._turn(command).reply
        assert isinstance(reply, Settled)
        row = m.Row(key, m.MOVE, ("outside", 0), ("wallet", subject), amount)
        [(code, _)] = self.model.batch(currency, -1, [row])
        assert named(reply.codes, reply.result) == [code]

    @rule(
        account=st.sampled_from(ACCOUNTS[:5]),
        frozen=st.booleans(),
        move_cap=st.sampled_from([0, 0, 20, 40]),
        day_cap=st.sampled_from([0, 0, 60, 90]),
        currency=CURRENCIES,
    )
    def rule_accounts(self, account: m.Account, frozen: bool, move_cap: int, day_cap: int, currency: str) -> None:
        frozen = frozen and move_cap == 40  # mostly open, or nothing would happen
        column = np.array([wire(account), move_cap, day_cap], "<i8")
        self._turn(
            SetAccounts(
                currency=currency, venue="parkside", account=column[:1].tobytes(), frozen=bytes([frozen]),
                move_cap=column[1:2].tobytes(), day_cap=column[2:].tobytes(),
            )
        )  # fmt: skip
        held = self.model.held(currency, account)
        held.frozen, held.move_cap, held.day_cap = frozen, move_cap, day_cap

    @rule()
    def close_day(self) -> None:
        self._turn(CloseDay(day=self.model.day, next_day=self.model.day + 1))
        self.model.close_day(self.model.day + 1)

    @rule()
    def restart(self) -> None:
        self.live = self.ledger.load(self.ledger.save(self.live))
        assert self.ledger.save(self.live) == self.ledger.save(self.replayed)

    @invariant()
    def every_account_is_as_in_the_model(self) -> None:
        for (currency, account), held in self.model.accounts.items():
            found = account_states(self.live, wire(account), "parkside").get(currency)
            assert found is not None, account
            assert (found.balance, found.held, found.frozen, found.move_cap, found.day_cap, found.spent) == (
                held.balance, held.held, held.frozen, held.move_cap, held.day_cap, held.spent,
            ), (currency, account)  # fmt: skip
            if account[0] != "outside":
                assert 0 <= held.held <= held.balance
        assert sum(known.status == "open" for known in self.model.known.values()) == self.live.tables.open_holds
        assert self.live.tables.key_count == len(self.model.known)

    @invariant()
    def an_account_is_read_as_it_is(self) -> None:
        decision = self.ledger.decide(self.live, GetAccount(account=wire(("wallet", 0))), CONTEXT)
        assert isinstance(decision, Decision)
        assert not decision.events


TestTransferring = Transferring.TestCase
TestTransferring.settings = settings(max_examples=60, stateful_step_count=30)
