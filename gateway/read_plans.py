"""Reads of one entity that clients send most: which entity is asked what, and how its reply becomes the answer's frame. No I/O, so that a read whose venue is at hand needs no task."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

from actors import messages as m
from actors.requests import MAX_PLACES
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
    """`made(frame, reply)`: the answer's frame; raises EsplanadeError where the reply is a refusal."""

    address: Address
    command: Read
    made: Callable[[Any, m.Reply], f.ServerFrame]


class Refused(EsplanadeError):
    """A behaviour's rejection on its way to the client: its code is the behaviour's."""

    def __init__(self, rejected: m.Rejected) -> None:
        super().__init__(rejected.message)
        self.rejected = rejected


def expect(asked: m.Command | ReadFrame, reply: m.Reply, kind: type[R]) -> R:
    """The reply, of the kind that belongs to what was asked. Raises Refused where it is a rejection, Fault for another kind."""
    if isinstance(reply, m.Rejected):
        raise Refused(reply)
    if not isinstance(reply, kind):
        raise Fault(f"{type(asked).__name__} was answered {type(reply).__name__}, not {kind.__name__}")
    return reply


def ledger_of(tenant: str, subject: int) -> Address:
    """Of a subject's wallets."""
    return _ledger(tenant, subject % m.LEDGERS)


@lru_cache(maxsize=MAX_PLACES)
def _ledger(tenant: str, index: int) -> Address:
    return Address("ledger", tenant, str(index))


@lru_cache(maxsize=MAX_PLACES)
def _zone_plan(tenant: str, venue: str, zone: str) -> Plan:
    """Raises InvalidInput for what is no name."""
    return Plan(Address("zone", tenant, f"{venue}:{check_name(zone, 'zone')}"), _GET_ZONE, _zone)


def read_plan(identity: Identity, frame: ReadFrame, facts: VenueFacts | None, tick: int | None) -> Plan:
    """`facts`: of the frame's venue, where it names one; `tick`: of that venue, for offers. Raises InvalidInput."""
    if isinstance(frame, f.GetBalance):
        return Plan(ledger_of(identity.tenant, identity.subject), m.GetBalance(subject=identity.subject), _balance)
    if facts is None:
        raise Fault(f"{type(frame).__name__} planned without its venue")
    if isinstance(frame, f.GetZone):
        return _zone_plan(facts.tenant, facts.venue, frame.zone)
    if tick is None:
        raise Fault("GetOffers planned without its venue's tick")
    tick -= tick % max(1, ticks(frame.stale_ms / 1000))  # so that readers of one period ask the same
    return Plan(facts.address, m.GetOffers(tick=tick), _offers)


_GET_ZONE: Final = m.GetZone()


def _zone(frame: f.GetZone, reply: m.Reply) -> f.ServerFrame:
    if isinstance(reply, m.ZoneState):
        return f.ZoneState(
            seq=frame.seq, tick=reply.tick, inside=reply.inside, entries=reply.entries, exits=reply.exits, dwells=reply.dwells, stayed_s=reply.stayed_s,
            crossed=reply.crossed, ground_m2=reply.ground_m2,
        )  # fmt: skip
    if isinstance(reply, m.Rejected):
        raise NotFound(reply.message)
    return expect(frame, reply, f.ZoneState)


def _balance(frame: f.GetBalance, reply: m.Reply) -> f.ServerFrame:
    held = expect(frame, reply, m.Balance)
    return f.Balance(seq=frame.seq, balances=held.balances, held=held.held)


def _offers(frame: f.GetOffers, reply: m.Reply) -> f.ServerFrame:
    return f.OfferList(seq=frame.seq, offers=expect(frame, reply, m.Offers).offers)
