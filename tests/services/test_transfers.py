"""A transfer between wallets of two ledgers arrives by itself in a service that runs: the shards' own processes carry it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from gateway.client import Client
from tests.actors.parkside import keys
from tests.services.stack import Esplanade

pytestmark = pytest.mark.services


async def test_a_transfer_to_another_ledger_arrives(service: Esplanade) -> None:
    async with (
        await Client.connect(service.ws, client="sender", token=service.token("shopper")) as sender,
        await Client.connect(service.ws, client="receiver", token=service.token("shopper")) as receiver,
        await Client.connect(service.ws, client="operator", token=service.token("operator")) as operator,
    ):
        source, target = sender.welcome["subject"], receiver.welcome["subject"]
        assert source % 8 != target % 8, "subjects count up, so two in a row live in two ledgers"
        subject, amount = np.array([source], "<u4").tobytes(), np.array([1000], "<u4").tobytes()
        await operator.top_ups(tick=0, key=keys(source), subject=subject, amount=amount, currency="EUR")
        assert (await sender.transfer(target, 300, "EUR", key=keys(source + 1)))["balance"] == 700
        async with asyncio.timeout(100):
            while (await receiver.balance()).get("EUR") != 300:
                await asyncio.sleep(0.05)
        lines = (await receiver.statement("EUR"))["lines"]
        assert [(line["what"], line["amount"], line["number"]) for line in lines] == [("receive", 300, source)]
