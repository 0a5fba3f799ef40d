"""Frames of wallets, tills, items for sale, and the books."""

from __future__ import annotations

from typing import Annotated

import msgspec

from actors.messages import Currency, Key, Money
from gateway.frames.base import Frame, Id, Seq, StaleMs, Subject, Tick


class Pay(Frame, frozen=True, kw_only=True, tag="pay"):
    """Pay at the till of a unit from my wallet. `key`: 128 bits made by the client, the same for every retry. Answered with Paid or Error."""

    seq: Seq
    venue: Id
    key: Key
    unit: Id
    amount: Money
    currency: Currency
    tick: Tick | None = None


class GetBalance(Frame, frozen=True, kw_only=True, tag="balance"):
    seq: Seq
    stale_ms: StaleMs = 0


class Transfer(Frame, frozen=True, kw_only=True, tag="transfer"):
    """From my wallet to that of `to`. `key` as in Pay. Answered with Paid once it has left for good, or Error: it arrives a moment later, or comes back."""

    seq: Seq
    key: Key
    to: Subject
    amount: Money
    currency: Currency


class StatementPlace(msgspec.Struct, frozen=True):
    """Where a page of a statement ended."""

    position: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    version: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    row: Annotated[int, msgspec.Meta(ge=-1, lt=2**31)]
    balance: Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]


class GetStatement(Frame, frozen=True, kw_only=True, tag="statement"):
    """The movements of my wallet (of `subject`'s, for operators) in one currency, oldest first, a page of `limit`; `after`: `next` of the page before. Answered with Statement."""

    seq: Seq
    currency: Currency
    subject: Subject | None = None
    after: StatementPlace | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100


class Refund(Frame, frozen=True, kw_only=True, tag="refund"):
    """Operators: give back `amount` of what the row with key `original` moved; `subject`: whose wallet it was; `venue`: that of the till, if one was paid. Answered with Paid."""

    seq: Seq
    key: Key
    subject: Subject
    original: Key
    amount: Money
    currency: Currency
    venue: Id | None = None


class Hold(Frame, frozen=True, kw_only=True, tag="hold"):
    """Operators: reserve `amount` of `subject`'s wallet for the till of `unit` until `expires_ms` (since 1970). Answered with Paid."""

    seq: Seq
    venue: Id
    key: Key
    subject: Subject
    unit: Id
    amount: Money
    currency: Currency
    expires_ms: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]


class Post(Frame, frozen=True, kw_only=True, tag="post"):
    """Operators: take what was held under the key `hold`: the whole (0), or a part, and release the rest. Answered with Paid."""

    seq: Seq
    venue: Id
    key: Key
    subject: Subject
    hold: Key
    currency: Currency
    amount: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0


class Void(Frame, frozen=True, kw_only=True, tag="void"):
    """Operators: release what was held under the key `hold`. Answered with Paid."""

    seq: Seq
    venue: Id
    key: Key
    subject: Subject
    hold: Key
    currency: Currency


class GetTill(Frame, frozen=True, kw_only=True, tag="get_till"):
    """Operators: what the till of a unit holds, over all ledgers. Answered with Till."""

    seq: Seq
    venue: Id
    unit: Id


class PutItem(Frame, frozen=True, kw_only=True, tag="put_item"):
    """Operators: `limit` units, each sold for `amount` to the till of `unit` in `venue`, or without these each a reward of `amount` to a wallet. Answered with Done.

    `each`: what one person may have, 0 for any; `closes_ms`: no more from then on (since 1970), 0 for never. Sent again, it changes these two and `limit`.
    """

    seq: Seq
    item: Id
    amount: Money
    currency: Currency
    limit: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    venue: Id | None = None
    unit: Id | None = None
    each: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 0
    closes_ms: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0


class GetItem(Frame, frozen=True, kw_only=True, tag="get_item"):
    """What it costs and how many are left. Answered with Item."""

    seq: Seq
    item: Id


class Buy(Frame, frozen=True, kw_only=True, tag="buy"):
    """Units of an item, paid from my wallet: both or neither. Answered with Bought."""

    seq: Seq
    item: Id
    key: Key
    count: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1


class Grant(Frame, frozen=True, kw_only=True, tag="grant"):
    """Operators: one unit of a reward to `subject`'s wallet. Answered with Bought."""

    seq: Seq
    item: Id
    key: Key
    subject: Subject


class GetBooks(Frame, frozen=True, kw_only=True, tag="get_books"):
    """Operators: the tenant's books, summed over its ledgers."""

    seq: Seq
    stale_ms: StaleMs = 0


class TopUps(Frame, frozen=True, kw_only=True, tag="top_ups"):
    """Feeds and operators: n credits: key (n, 16) bytes, subject (n,) u4, amount (n,) u4. Answered with Settled."""

    seq: Seq
    tick: Tick
    key: bytes
    subject: bytes
    amount: bytes
    currency: Currency


class Payments(Frame, frozen=True, kw_only=True, tag="payments"):
    """Feeds: n payments of many subjects: key (n, 16) bytes, subject (n,) u4, unit (n,) u2 (index into the venue's units), amount (n,) u4."""

    seq: Seq
    venue: Id
    tick: Tick
    key: bytes
    subject: bytes
    unit: bytes
    amount: bytes
    currency: Currency


class Paid(Frame, frozen=True, kw_only=True, tag="paid"):
    seq: Seq
    key: Key
    balance: int


class Settled(Frame, frozen=True, kw_only=True, tag="settled"):
    """One byte a row: 0 settled, else 1 + index into `codes`."""

    seq: Seq
    result: bytes
    codes: tuple[str, ...]


class Balance(Frame, frozen=True, kw_only=True, tag="balance_is"):
    """What can be spent, and what is held beside it, by currency."""

    seq: Seq
    balances: dict[str, int]
    held: dict[str, int] = msgspec.field(default_factory=dict)


class StatementLine(msgspec.Struct, frozen=True):
    """One movement: `amount` is positive where the wallet was credited, `balance` after it; `other`: the kind of account on the other side, `number`: which.

    what: payment, top_up, move, post, refund, send, receive, came_back.
    """

    what: str
    key: bytes
    amount: int
    balance: int
    other: str
    number: int


class Statement(Frame, frozen=True, kw_only=True, tag="statement_is"):
    """`next`: where the next page begins; absent on the last."""

    seq: Seq
    subject: int
    currency: str
    opening: int
    closing: int
    lines: tuple[StatementLine, ...]
    next: StatementPlace | None = None


class Till(Frame, frozen=True, kw_only=True, tag="till_is"):
    seq: Seq
    venue: str
    unit: str
    balances: dict[str, int]


class Item(Frame, frozen=True, kw_only=True, tag="item_is"):
    """`left` units may still be had; `under_way`: units whose money is moving just now. `venue` and `unit` (index into the venue's units) of a sale alone."""

    seq: Seq
    item: str
    amount: int
    currency: str
    limit: int
    left: int
    under_way: int
    each: int
    closes_ms: int
    venue: str | None = None
    unit: int | None = None


class Bought(Frame, frozen=True, kw_only=True, tag="bought"):
    """The units are theirs and the money has moved, durably; `balance`: what the wallet can spend then."""

    seq: Seq
    item: str
    key: Key
    count: int
    balance: int


class Books(Frame, frozen=True, kw_only=True, tag="books"):
    seq: Seq
    accounts: int
    total: dict[str, int]
    wallets: dict[str, int]
    tills: dict[str, int]
    outside: dict[str, int]
    payments: int
    top_ups: int


class PaymentStats(Frame, frozen=True, kw_only=True, tag="payment_stats"):
    """Summed over the tenant's shards."""

    payments: int
    refused: int
    volume: dict[str, int]
