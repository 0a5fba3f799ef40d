"""The ledger as a slow obvious model: dictionaries and plain integers, one row after the other, the checks in the documented order. Shares no code with the ledger."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

Account = tuple[str, int]
"""("wallet", subject), ("till", unit), ("outside", 0), ("transit", ledger)."""

MOVE, HOLD, POST, VOID, REFUND = "move", "hold", "post", "void", "refund"


@dataclass
class Row:
    key: int
    op: str = MOVE
    debit: Account | None = None
    credit: Account | None = None
    amount: int = 0
    reference: int = 0
    expires: int = 0
    linked: bool = False


@dataclass
class Held:
    """What the model keeps of an account in one currency."""

    balance: int = 0
    held: int = 0
    frozen: bool = False
    move_cap: int = 0
    day_cap: int = 0
    spent: int = 0


@dataclass
class Known:
    op: str
    debit: Account
    credit: Account
    amount: int
    currency: str
    reference: int = 0
    expires: int = 0
    rest: int = 0
    status: str = ""
    day: int = 0
    told: int = 0


@dataclass
class Model:
    ledger: int = 0
    ledgers: int = 8
    max_keys: int = 10**9
    tills: tuple[int, ...] = ()
    units: int = 0
    accounts: dict[tuple[str, Account], Held] = field(default_factory=dict)
    known: dict[int, Known] = field(default_factory=dict)
    day: int = 0

    def held(self, currency: str, account: Account) -> Held:
        return self.accounts.setdefault((currency, account), Held())

    # --- commands ---

    def advance(self, now: int) -> list[int]:
        """Release holds that expire at `now` or earlier."""
        expired = [key for key, known in self.known.items() if known.status == "open" and known.expires and known.expires <= now]
        for key in expired:
            known = self.known[key]
            account = self.held(known.currency, known.debit)
            account.held -= known.rest
            if known.day == self.day and known.debit[0] in ("wallet", "till"):
                account.spent -= known.rest
            known.rest, known.status = 0, "expired"
        return expired

    def batch(self, currency: str, now: int, rows: list[Row]) -> list[tuple[str, int]]:
        """(code or 'settled', balance told) by row."""
        self.advance(now)
        told: list[tuple[str, int]] = []
        chain: list[int] = []
        saved: tuple[dict[tuple[str, Account], Held], dict[int, Known]] | None = None
        broken = False
        chain_known = False
        for i, row in enumerate(rows):
            if row.linked and not chain:
                saved, broken = (copy.deepcopy(self.accounts), copy.deepcopy(self.known)), False
            in_chain = row.linked or bool(chain)
            if broken:
                code = "linked_row_failed"
            elif row.linked and i == len(rows) - 1:
                code = "linked_chain_open"
            else:
                code = self._shape(row, now)
                known = row.key in self.known
                if not code and known:
                    code = self._same(row, currency)
                if not code and chain and known != chain_known:
                    code = "linked_chain_partly_known"
                chain_known = known
                if not code and not known:
                    code = self._settle(row, currency)
            balance = self.known[row.key].told if not code else -1
            told.append((code or "settled", balance))
            if in_chain:
                chain.append(i)
            if code and in_chain and not broken and saved is not None:
                broken = True
                self.accounts, self.known = saved
                for j in chain[:-1]:
                    told[j] = ("linked_row_failed", -1)
            if not row.linked:
                chain, broken, saved = [], False, None
        self._forget()
        return told

    def _forget(self) -> None:
        while len(self.known) > self.max_keys:
            key = next(iter(self.known))
            known = self.known.pop(key)
            if known.status == "open":
                self.known[key] = known

    # --- checks, in order ---

    def _shape(self, row: Row, now: int) -> str:
        refers = row.op in (POST, VOID, REFUND)
        if row.op == VOID and row.amount != 0:
            return "amount_must_be_zero"
        if row.amount < 0 or (row.amount == 0 and row.op not in (POST, VOID)):
            return "amount_must_be_positive"
        if row.amount > 10**12:
            return "amount_too_large"
        if not refers and row.debit == row.credit:
            return "accounts_must_differ"
        if refers and row.reference == row.key:
            return "reference_must_differ"
        if row.op != HOLD and row.expires:
            return "expiry_must_be_zero"
        sides = [account for account in (row.debit, row.credit) if account is not None]
        if any(kind == "wallet" and number % self.ledgers != self.ledger for kind, number in sides):
            return "wrong_ledger"
        if any(kind == "till" and number >= self.units for kind, number in sides):
            return "unit_not_found"
        if any(kind == "till" and number not in self.tills for kind, number in sides):
            return "unit_has_no_till"
        if row.expires < 0 or (row.expires and row.expires <= now):
            return "expiry_must_be_later"
        return ""

    def _same(self, row: Row, currency: str) -> str:
        known = self.known[row.key]
        if known.op != row.op:
            return "exists_with_different_operation"
        if row.op in (POST, VOID, REFUND):
            if known.reference != row.reference:
                return "exists_with_different_reference"
            amount = row.amount
            if row.op == POST and amount == 0:
                hold = self.known.get(row.reference)
                amount = hold.amount if hold is not None else known.amount
            return "exists_with_different_amount" if row.op != VOID and amount != known.amount else ""
        assert row.debit is not None
        assert row.credit is not None
        if (currency, self._main(row.debit, row.credit)) != (known.currency, self._main(known.debit, known.credit)):
            return "exists_with_different_subject"
        if (row.debit, row.credit) != (known.debit, known.credit):
            return "exists_with_different_account"
        if row.amount != known.amount:
            return "exists_with_different_amount"
        return "exists_with_different_expiry" if row.expires != known.expires else ""

    @staticmethod
    def _main(debit: Account, credit: Account) -> Account:
        if debit[0] in ("outside", "transit") or (debit[0] != "wallet" and credit[0] == "wallet"):
            return credit
        return debit

    def _settle(self, row: Row, currency: str) -> str:
        return self._refer(row, currency) if row.op in (POST, VOID, REFUND) else self._move(row, currency)

    def _move(self, row: Row, currency: str) -> str:
        assert row.debit is not None
        assert row.credit is not None
        debit, credit = self.accounts.get((currency, row.debit)), self.accounts.get((currency, row.credit))
        bounded = row.debit[0] in ("wallet", "till")
        if debit is None and row.debit[0] == "wallet":
            return "wallet_not_found"
        if (debit is not None and debit.frozen) or (credit is not None and credit.frozen):
            return "account_frozen"
        if bounded:
            if debit is None:
                return "exceeds_balance"
            if debit.move_cap and row.amount > debit.move_cap:
                return "exceeds_transaction_cap"
            if debit.day_cap and debit.spent + row.amount > debit.day_cap:
                return "exceeds_daily_cap"
            if debit.balance - debit.held < row.amount:
                return "exceeds_balance"
        debit, credit = self.held(currency, row.debit), self.held(currency, row.credit)
        if bounded:
            debit.spent += row.amount
        if row.op == HOLD:
            debit.held += row.amount
        else:
            debit.balance -= row.amount
            credit.balance += row.amount
        self._enter(
            row, Known(row.op, row.debit, row.credit, row.amount, currency, 0, row.expires, row.amount, "open" if row.op == HOLD else "", self.day)
        )
        return ""

    def _refer(self, row: Row, currency: str) -> str:
        original = self.known.get(row.reference)
        if row.op == REFUND:
            if original is None:
                return "original_not_found"
            if original.op not in (MOVE, POST):
                return "original_not_refundable"
            debit, credit = original.credit, original.debit
        else:
            if original is None or original.op != HOLD:
                return "hold_not_found"
            debit, credit = original.debit, original.credit
        if original.currency != currency:
            return "reference_differs"
        if row.op != REFUND and original.status != "open":
            return f"hold_is_{original.status}"
        payer, payee = self.held(currency, debit), self.held(currency, credit)
        amount = original.amount if row.op == POST and row.amount == 0 else row.amount
        if row.op != VOID:
            if payer.frozen or payee.frozen:
                return "account_frozen"
            if amount > original.rest:
                return "exceeds_hold" if row.op == POST else "exceeds_original"
            if row.op == REFUND and debit[0] in ("wallet", "till") and payer.balance - payer.held < amount:
                return "exceeds_balance"
        if row.op == REFUND:
            original.rest -= amount
        else:
            moved = amount if row.op == POST else 0
            payer.held -= original.rest
            if original.day == self.day and debit[0] in ("wallet", "till"):
                payer.spent -= original.rest - moved
            original.rest, original.status = 0, "posted" if row.op == POST else "void"
            amount = moved
        payer.balance -= amount
        payee.balance += amount
        self._enter(row, Known(row.op, debit, credit, amount, currency, row.reference, rest=0 if row.op == REFUND else amount))
        return ""

    def _enter(self, row: Row, known: Known) -> None:
        account = self.held(known.currency, self._main(known.debit, known.credit))
        known.told = account.balance - account.held
        self.known[row.key] = known

    # --- the rest ---

    def close_day(self, next_day: int) -> None:
        self.day = next_day
        for account in self.accounts.values():
            account.spent = 0
