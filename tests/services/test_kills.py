"""Three kills under payments through the gateway and through `System`, and the bank checker. `script/nightly` does twenty, with restarts of the whole service."""

from __future__ import annotations

import signal

import pytest

from tests.proof.house import BACK_S, TWO_WRITERS, House, journal_rows
from tests.services.stack import data_folder, eventually

pytestmark = pytest.mark.services


def test_no_acked_payment_is_lost_or_doubled_by_kills_and_a_hang() -> None:
    with data_folder() as folder, House(folder, seed=1, ways=(("gateway", 6), ("system", 6))) as house:
        house.pay()
        house.kill("shard")
        house.kill("PostgreSQL")
        assert eventually(house.whole, BACK_S), house.stack.text
        house.kill("gateway")
        house.kill("shard", signal.SIGSTOP)
        verdict = house.audit()
        with journal_rows(house.postgres_url) as query:
            assert query(TWO_WRITERS) == []
    assert verdict.findings == []
    assert verdict.acked > 100
    assert verdict.unknown == 0
