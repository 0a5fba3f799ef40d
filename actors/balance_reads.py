"""Frames of nothing but balances asked for: answered a ledger at a time by a compiled look-up, not a turn at a time. So a crowd that asks at once after an outage is served soon.

The answers are those of the turns (`Ledger.decide` of GetBalance), and leave when what they saw is durable. Those of a ledger that is not at hand wait for it as one
entry of its log's queue: a hundred thousand entries, each run in its turn, took three quarters of the time of a wake. Owns no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from actors.entity import Entity
from actors.flusher import Flusher
from actors.frame import Frame, Slot
from actors.frame_turns import Calls, Ran
from actors.ledger import Ledger
from actors.messages import Command, GetBalance
from actors.partition_log import PartitionLog
from actors.requests import Ask, Commands, Refused, Replied

WORTH_WHILE: Final = 16
"""Asks of one ledger, on average, from which the look-up is cheaper than turns."""


class BalancesSlot(Slot):
    """Asks of one ledger in one frame; `request` is the first of them."""

    __slots__ = ("indices", "subjects")

    def __init__(self, request: Ask, frame: Frame, indices: list[int], subjects: list[int], came_s: float) -> None:
        super().__init__(request, frame, indices[0], came_s)
        self.count = len(indices)
        self.indices = indices
        self.subjects = subjects

    def refuse(self, refused: Refused) -> None:
        for index in self.indices:
            self.frame.answer(index, refused)

    def run(self, ledger: Ledger, entity: Entity, log: PartitionLog, flusher: Flusher) -> None:
        """Answer them, once durable."""
        for index, balance in zip(self.indices, ledger.balances(entity.state, self.subjects), strict=True):
            self.frame.answers[index] = Replied(balance)
        flusher.when_all_durable([log] * self.count, self.indices, self.frame.release)


def run_balances(requests: Commands, frame: Frame, ledger: Ledger, flusher: Flusher, calls: Calls, now_s: float) -> Ran | None:
    """Answer the frame, or have it wait for its ledgers; None, with nothing done, where it holds anything else: it goes turn by turn then."""
    subjects = _subjects(requests)
    if subjects is None:
        return None
    asked: dict[str, list[int]] = {}
    for index, number in enumerate(requests.ids):
        asked.setdefault(number, []).append(index)
    if len(subjects) < WORTH_WHILE * len(asked):
        return None
    turns = 0
    for indices in asked.values():
        entity = calls.find(indices[0])
        log = None if entity is None else entity.log
        slot = BalancesSlot(requests.ask(indices[0]), frame, indices, [subjects[i] for i in indices], now_s)
        if entity is not None and log is not None and calls.serves(log):
            log.used_s = now_s
            slot.run(ledger, entity, log, flusher)
            turns += len(indices)
        else:
            calls.route_slot(slot)
    return Ran(turns, 0)


def _subjects(requests: Commands) -> list[int] | None:
    """Whose balances are asked for; None where anything else is, or something that only a turn can refuse."""
    commands: Sequence[Command] = requests.commands
    if requests.kind != "ledger" or type(commands[0]) is not GetBalance or requests.client is not None or not {*requests.ids} <= Ledger.NUMBERS:
        return None
    subjects = [command.subject for command in commands if type(command) is GetBalance]
    return subjects if len(subjects) == len(commands) and min(subjects) >= 0 and max(subjects) < 2**32 else None
