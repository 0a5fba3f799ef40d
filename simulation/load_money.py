"""Top-ups and payments of the load generator: sent at their time, tried again under the same key until answered.

Owns retries (a growing wait, a bounded number at a time) and the rule that a person's payment waits for their top-up. Never makes a key of its own: keys
follow from the seed, so that a payment tried again, or in a run repeated, is the same payment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import EsplanadeError
from gateway.client import Client
from simulation.load import LoadPlan, PaymentRows, top_up_key
from simulation.load_process import PayLog

BACKOFF_S: Final = (0.1, 2.0)
TOP_UP_ROWS: Final = 5_000
MAX_TASKS: Final = 20_000
"""Payments and top-ups waiting for an answer at most; beyond, new payments stay unanswered, and the run says so."""


async def until_answered(call: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Repeat a request while its failure is retryable. Raises what is not."""
    wait_s = BACKOFF_S[0]
    while True:
        try:
            return await call()
        except EsplanadeError as error:
            if not error.retryable:
                raise
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, BACKOFF_S[1])


class Money:
    """The money of one process, over one connection for columns; single payments go over the person's own."""

    def __init__(self, plan: LoadPlan, client: Client, log: PayLog) -> None:
        self._plan, self._client, self.log = plan, client, log
        self._pending: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.error = ""

    def top_up(self, tick: int, subjects: npt.NDArray[np.uint32]) -> None:
        """Credit everyone's wallet, in batches. Returns at once."""
        for start in range(0, len(subjects), TOP_UP_ROWS):
            part = subjects[start : start + TOP_UP_ROWS]
            task = self._spawn(self._top_up(tick, part))
            for subject in part.tolist():
                self._pending[subject] = task

    async def topped_up(self, subjects: Iterable[int]) -> None:
        """Until the top-ups of these people have been answered."""
        waiting = {task for subject in subjects if (task := self._pending.get(subject)) is not None}
        if waiting:
            await asyncio.wait(waiting)

    def pay(self, tick: int, rows: PaymentRows, intended_ns: int) -> None:
        """Pay by columns. Returns at once."""
        if not len(rows):
            return
        subject, unit, amount = rows.subject.tolist(), rows.unit.tolist(), rows.amount.tolist()
        for i in range(len(rows)):
            self.log.sent(rows.key[16 * i : 16 * i + 16], subject[i], unit[i], amount[i], tick)
        if len(self._tasks) < MAX_TASKS:
            self._spawn(self._pay(tick, rows, intended_ns))

    def pay_single(
        self,
        client: Callable[[], Awaitable[Client]],
        tick: int,
        *,
        subject: int,
        unit: int,
        unit_id: str,
        amount: int,
        key: bytes,
        intended_ns: int,
    ) -> asyncio.Task[None] | None:
        """Pay over a person's own connection, which may come up later. Returns at once; the task ends with the answer."""
        self.log.sent(key, subject, unit, amount, tick)
        if len(self._tasks) >= MAX_TASKS:
            return None
        return self._spawn(self._pay_single(client, tick, subject, unit_id, amount, key, intended_ns))

    async def drain(self, timeout_s: float) -> None:
        """Wait for answers, for a while; then give up: what is left is counted as unanswered."""
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks), timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # --- inside ---

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _top_up(self, tick: int, subjects: npt.NDArray[np.uint32]) -> None:
        key = b"".join(top_up_key(self._plan.seed, subject) for subject in subjects.tolist())
        amount = np.full(len(subjects), self._plan.top_up_minor, "<u4").tobytes()
        packed = subjects.astype("<u4").tobytes()
        try:
            reply = await until_answered(
                lambda: self._client.top_ups(tick=tick, key=key, subject=packed, amount=amount, currency=self._plan.currency)
            )
            if any(reply["result"]):
                self.error = self.error or f"top-ups of tick {tick}: {reply['codes']}"
        except EsplanadeError as error:
            self.error = self.error or f"top-ups of tick {tick}: {error}"
        for subject in subjects.tolist():
            self._pending.pop(subject, None)

    async def _pay(self, tick: int, rows: PaymentRows, intended_ns: int) -> None:
        await self.topped_up(rows.subject.tolist())
        try:
            reply = await until_answered(
                lambda: self._client.payments(
                    venue=self._plan.venue,
                    tick=tick,
                    key=rows.key,
                    subject=rows.subject.astype("<u4").tobytes(),
                    unit=rows.unit.astype("<u2").tobytes(),
                    amount=rows.amount.astype("<u4").tobytes(),
                    currency=self._plan.currency,
                )
            )
            result = reply["result"]
        except EsplanadeError as error:
            self.error = self.error or f"payments of tick {tick}: {error}"
            result = bytes([255]) * len(rows)
        now = time.monotonic_ns()
        for i, code in enumerate(result):
            self.log.answered(rows.key[16 * i : 16 * i + 16], settled=code == 0, intended_ns=intended_ns, received_ns=now)

    async def _pay_single(
        self, client: Callable[[], Awaitable[Client]], tick: int, subject: int, unit_id: str, amount: int, key: bytes, intended_ns: int
    ) -> None:
        await self.topped_up([subject])

        async def call() -> dict[str, Any]:
            connected = await client()
            return await connected.pay(self._plan.venue, unit_id, amount, self._plan.currency, key=key, tick=tick)

        try:
            await until_answered(call)
            settled = True
        except EsplanadeError as error:
            settled = False
            if error.code in ("invalid", "not_found", "forbidden", "fault"):
                self.error = self.error or f"payment of tick {tick}: {error}"
        self.log.answered(key, settled=settled, intended_ns=intended_ns, received_ns=time.monotonic_ns())
