"""Names of the ledger: kinds of accounts, operations, refusals in the order in which they are checked. Owns the numbers that are stored; never reuses one.

An account on the wire and in events is one u64: kind << 60 | number; the currency, and the venue of tills, stand beside the column. Inside the ledger the same
word also holds their places in its lists: kind << 60 | currency << 48 | venue << 32 | number.
"""

from __future__ import annotations

from typing import Final

WALLET: Final = 1
TILL: Final = 2
OUTSIDE: Final = 3
TRANSIT: Final = 4

OP_MOVE: Final = 0
OP_HOLD: Final = 1
OP_POST: Final = 2
OP_VOID: Final = 3
OP_REFUND: Final = 4
OP_SEND: Final = 5
OP_RECEIVE: Final = 6
OP_EXPIRE: Final = 7
LINKED: Final = 0x80
"""Added to the operation of a row that stands or falls with the next one."""

MAX_AMOUNT: Final = 10**12
MAX_BALANCE: Final = 2**62
MAX_AHEAD_MS: Final = 60_000
"""How far a time-ordered key may be ahead of the caller's time."""

CODES: Final = (
    "linked_row_failed",
    "linked_chain_open",
    "operation_unknown",
    "amount_must_be_zero",
    "amount_must_be_positive",
    "amount_too_large",
    "account_unknown",
    "accounts_must_differ",
    "account_must_be_zero",
    "reference_must_be_zero",
    "reference_must_differ",
    "expiry_must_be_zero",
    "wrong_ledger",
    "unit_not_found",
    "unit_has_no_till",
    "expiry_must_be_later",
    "id_not_time_ordered",
    "id_too_new",
    "exists_with_different_operation",
    "exists_with_different_subject",
    "exists_with_different_account",
    "exists_with_different_reference",
    "exists_with_different_amount",
    "exists_with_different_expiry",
    "exists",
    "came_back",
    "linked_chain_partly_known",
    "id_too_old",
    "hold_not_found",
    "original_not_found",
    "original_not_refundable",
    "reference_differs",
    "hold_is_posted",
    "hold_is_void",
    "hold_is_expired",
    "wallet_not_found",
    "account_frozen",
    "exceeds_hold",
    "exceeds_original",
    "exceeds_transaction_cap",
    "exceeds_daily_cap",
    "exceeds_balance",
    "exceeds_maximum",
    "too_many_holds",
)
"""What `Settled.result` may say: i means CODES[i - 1], in the order in which they are checked; 0 is settled. Codes are told by name: numbers may change."""


def _number(name: str) -> int:
    return CODES.index(name) + 1


LINKED_ROW_FAILED: Final = _number("linked_row_failed")
LINKED_CHAIN_OPEN: Final = _number("linked_chain_open")
OPERATION_UNKNOWN: Final = _number("operation_unknown")
AMOUNT_MUST_BE_ZERO: Final = _number("amount_must_be_zero")
AMOUNT_MUST_BE_POSITIVE: Final = _number("amount_must_be_positive")
AMOUNT_TOO_LARGE: Final = _number("amount_too_large")
ACCOUNT_UNKNOWN: Final = _number("account_unknown")
ACCOUNTS_MUST_DIFFER: Final = _number("accounts_must_differ")
ACCOUNT_MUST_BE_ZERO: Final = _number("account_must_be_zero")
REFERENCE_MUST_BE_ZERO: Final = _number("reference_must_be_zero")
REFERENCE_MUST_DIFFER: Final = _number("reference_must_differ")
EXPIRY_MUST_BE_ZERO: Final = _number("expiry_must_be_zero")
WRONG_LEDGER: Final = _number("wrong_ledger")
UNIT_NOT_FOUND: Final = _number("unit_not_found")
UNIT_HAS_NO_TILL: Final = _number("unit_has_no_till")
EXPIRY_MUST_BE_LATER: Final = _number("expiry_must_be_later")
ID_NOT_TIME_ORDERED: Final = _number("id_not_time_ordered")
ID_TOO_NEW: Final = _number("id_too_new")
EXISTS_OPERATION: Final = _number("exists_with_different_operation")
EXISTS_SUBJECT: Final = _number("exists_with_different_subject")
EXISTS_ACCOUNT: Final = _number("exists_with_different_account")
EXISTS_REFERENCE: Final = _number("exists_with_different_reference")
EXISTS_AMOUNT: Final = _number("exists_with_different_amount")
EXISTS_EXPIRY: Final = _number("exists_with_different_expiry")
EXISTS: Final = _number("exists")
CAME_BACK: Final = _number("came_back")
LINKED_CHAIN_PARTLY_KNOWN: Final = _number("linked_chain_partly_known")
ID_TOO_OLD: Final = _number("id_too_old")
HOLD_NOT_FOUND: Final = _number("hold_not_found")
ORIGINAL_NOT_FOUND: Final = _number("original_not_found")
ORIGINAL_NOT_REFUNDABLE: Final = _number("original_not_refundable")
REFERENCE_DIFFERS: Final = _number("reference_differs")
HOLD_IS_POSTED: Final = _number("hold_is_posted")
HOLD_IS_VOID: Final = _number("hold_is_void")
HOLD_IS_EXPIRED: Final = _number("hold_is_expired")
WALLET_NOT_FOUND: Final = _number("wallet_not_found")
ACCOUNT_FROZEN: Final = _number("account_frozen")
EXCEEDS_HOLD: Final = _number("exceeds_hold")
EXCEEDS_ORIGINAL: Final = _number("exceeds_original")
EXCEEDS_TRANSACTION_CAP: Final = _number("exceeds_transaction_cap")
EXCEEDS_DAILY_CAP: Final = _number("exceeds_daily_cap")
EXCEEDS_BALANCE: Final = _number("exceeds_balance")
EXCEEDS_MAXIMUM: Final = _number("exceeds_maximum")
TOO_MANY_HOLDS: Final = _number("too_many_holds")
