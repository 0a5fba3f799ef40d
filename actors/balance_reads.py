"""Frames of nothing but balances asked for: answered a ledger at a time by a compiled look-up, not a turn at a time. So a crowd that asks at once after an outage is served soon.

The answers are those of the turns (`Ledger.decide` of GetBalance), and leave when what they saw is durable. Owns no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from actors.entity import Entity
from actors.flusher import Flusher, Log
from actors.frame import Frame
from actors.frame_turns import Calls, Ran
from actors.ledger import Ledger
from actors.messages import Command, GetBalance
from actors.partition_log import PartitionLog
from actors.requests import Commands, Replied

WORTH_WHILE: Final = 16
"""Asks of one ledger, on average, from which the look-up is cheaper than turns."""


def run_balances(requests: Commands, frame: Frame, flusher: Flusher, calls: Calls, now_s: float) -> Ran | None:
    """Answer the frame; None, with nothing done, where it holds anything else or a ledger is not here and free to answer: it goes turn by turn then."""
    subjects = _subjects(requests)
    if subjects is None:
        return None
    asked: dict[str, list[int]] = {}
    for index, number in enumerate(requests.ids):
        asked.setdefault(number, []).append(index)
    if len(subjects) < WORTH_WHILE * len(asked):
        return None
    ledgers: list[tuple[Entity, PartitionLog, Ledger, list[int]]] = []
    for indices in asked.values():
        entity = calls.find(indices[0])
        log = None if entity is None else entity.log
        if entity is None or log is None or not isinstance(entity.behaviour, Ledger) or not calls.serves(log):
            return None
        log.used_s = now_s
        ledgers.append((entity, log, entity.behaviour, indices))
    logs: list[Log] = []
    answered: list[int] = []
    for held, its_log, behaviour, indices in ledgers:
        for index, balance in zip(indices, behaviour.balances(held.state, [subjects[i] for i in indices]), strict=True):
            frame.answers[index] = Replied(balance)
        logs += [its_log] * len(indices)
        answered += indices
    flusher.when_all_durable(logs, answered, frame.release)
    return Ran(len(answered), 0)


def _subjects(requests: Commands) -> list[int] | None:
    """Whose balances are asked for; None where anything else is, or something that only a turn can refuse."""
    commands: Sequence[Command] = requests.commands
    if requests.kind != "ledger" or type(commands[0]) is not GetBalance or requests.client is not None or not {*requests.ids} <= Ledger.NUMBERS:
        return None
    subjects = [command.subject for command in commands if type(command) is GetBalance]
    return subjects if len(subjects) == len(commands) and min(subjects) >= 0 and max(subjects) < 2**32 else None
