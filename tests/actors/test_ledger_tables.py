"""The tables of a ledger: what is remembered is found, whatever has grown and been forgotten meanwhile."""

from __future__ import annotations

import pytest

from actors.behaviour import Context
from actors.entity import Entity
from actors.ledger import Ledger
from actors.messages import Settled, TopUps
from esplanade.core.ids import Address
from tests.actors.parkside import keys, u4

ADDRESS = Address("ledger", "demo", "0")


@pytest.mark.parametrize("batches", [(3, 500), (7,) * 12 + (90, 1, 300), (60, 60, 60, 9, 200, 64, 64, 1), (1,) * 70 + (400,)])
@pytest.mark.parametrize("max_keys", [20, 64, 10_000])
def test_what_is_remembered_is_found_and_what_is_forgotten_is_not(max_keys: int, batches: tuple[int, ...]) -> None:
    ledger, made = Entity(ADDRESS, Ledger(max_keys)), 0
    for rows in batches:
        numbers = range(made + 1, made + rows + 1)
        made += rows
        top = TopUps(tick=0, key=keys(*numbers), subject=u4(*(8 * n for n in numbers)), amount=u4(*numbers), currency="EUR")
        reply = ledger.turn(top, None, Context(address=ADDRESS)).reply
        assert isinstance(reply, Settled)
        assert not any(reply.result)
        if rows == 1:
            continue
        tables = ledger.state.tables
        found = {n: tables.find_key(*_words(n)) for n in range(1, made + 1)}
        kept = range(max(1, made - max_keys + 1), made + 1)
        assert {n for n, row in found.items() if row >= 0} == {*kept}
        assert [tuple(tables.keys[found[n], :2].tolist()) for n in kept] == [_words(n) for n in kept]
        assert int((tables.key_slots != 0).sum()) == len(kept)


def _words(number: int) -> tuple[int, int]:
    """The words of a key, as the table has them."""
    key = keys(number)
    return int.from_bytes(key[:8], "little", signed=True), int.from_bytes(key[8:], "little", signed=True)
