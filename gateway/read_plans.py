"""Reads of one entity that clients send most: which entity is asked what, and how its reply becomes the answer's frame. No I/O, so that a read whose venue is at hand needs no task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from actors import messages as m
from esplanade.core.clock import ticks
from esplanade.core.errors import EsplanadeError, Fault, NotFound
from esplanade.core.ids import Address, check_name
from gateway import frames as f
from gateway.auth import Identity
from gateway.stale_reads import Read
from gateway.venues import VenueFacts

ReadFrame = f.GetZone | f.GetBalance | f.GetOffers

R = TypeVar("R")


class Plan(NamedTuple):
    """`made(reply)`: the answer's frame; raises EsplanadeError where the reply is a refusal."""

    address: Address
    command: Read
    made: Callable[[m.Reply], f.ServerFrame]


class Refused(EsplanadeError):
    """A behaviour's rejection on its way to the client: its code is the behaviour's."""

    def __init__(self, rejected: m.Rejected) -> None:
        super().__init__(rejected.message)
        self.rejected = rejected


def expect(address: Address, command: m.Command, reply: m.Reply, kind: type[R]) -> R:
    """The reply, of the kind that belongs to its command. Raises Refused where it is a rejection, Fault for another kind."""
    if isinstance(reply, m.Rejected):
        raise Refused(reply)
    if not isinstance(reply, kind):
        raise Fault(f"{address} answered {type(reply).__name__} to {type(command).__name__}, not {kind.__name__}")
    return reply


def ledger_of(tenant: str, subject: int) -> Address:
    """Of a subject's wallets."""
    return Address("ledger", tenant, str(subject % m.LEDGERS))


def read_plan(identity: Identity, frame: ReadFrame, facts: VenueFacts | None, tick: int | None) -> Plan:
    """`facts`: of the frame's venue, where it names one; `tick`: of that venue, for offers. Raises InvalidInput."""
    if isinstance(frame, f.GetBalance):
        return _balance(identity, frame)
    if facts is None:
        raise Fault(f"{type(frame).__name__} planned without its venue")
    if isinstance(frame, f.GetZone):
        return _zone(facts, frame)
    if tick is None:
        raise Fault("GetOffers planned without its venue's tick")
    return _offers(facts, frame, tick)


def _zone(facts: VenueFacts, frame: f.GetZone) -> Plan:
    address, command = Address("zone", facts.tenant, f"{facts.venue}:{check_name(frame.zone, 'zone')}"), m.GetZone()

    def made(reply: Any) -> f.ServerFrame:
        if isinstance(reply, m.Rejected):
            raise NotFound(reply.message)
        at = expect(address, command, reply, m.ZoneState)
        return f.ZoneState(
            seq=frame.seq, tick=at.tick, inside=at.inside, entries=at.entries, exits=at.exits, dwells=at.dwells, stayed_s=at.stayed_s, crossed=at.crossed,
            ground_m2=at.ground_m2,
        )  # fmt: skip

    return Plan(address, command, made)


def _balance(identity: Identity, frame: f.GetBalance) -> Plan:
    address, command = ledger_of(identity.tenant, identity.subject), m.GetBalance(subject=identity.subject)

    def made(reply: Any) -> f.ServerFrame:
        held = expect(address, command, reply, m.Balance)
        return f.Balance(seq=frame.seq, balances=held.balances, held=held.held)

    return Plan(address, command, made)


def _offers(facts: VenueFacts, frame: f.GetOffers, tick: int) -> Plan:
    command = m.GetOffers(tick=tick - tick % max(1, ticks(frame.stale_ms / 1000)))  # so that readers of one period ask the same

    def made(reply: Any) -> f.ServerFrame:
        return f.OfferList(seq=frame.seq, offers=expect(facts.address, command, reply, m.Offers).offers)

    return Plan(facts.address, command, made)
