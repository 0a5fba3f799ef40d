"""Who has agreed that it is known where they are: looked up once a connection, kept up to date by what the journal tells all gateways.

Owns the standings of the people who are connected here, and what follows when one takes their consent back: nothing more of theirs is taken, they leave every map, and no push is sent.
Whether a tenant asks is `gateway.answers`', what was agreed to is the person's session's. People alone are asked: whoever speaks for a source (a feed, a simulated crowd, a sensor's key)
speaks for the venue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Any, assert_never
from weakref import WeakValueDictionary

from actors import messages as m
from actors.system import System
from actors.topics import ConsentTold
from esplanade.core.errors import ConsentNeeded, EsplanadeError
from esplanade.core.ids import Address
from gateway import frames as f
from gateway.acts import who_is
from gateway.answers import Answers
from gateway.asking import Asker, Peer
from gateway.audit_trail import AuditTrail
from gateway.auth import Identity
from gateway.batching import MoveBatcher
from gateway.hub import Hub
from gateway.observe import ObserveDesk
from gateway.read_plans import expect
from gateway.session import Standing
from spatial.columns import LEFT

ConsentFrame = f.GetConsent | f.GiveConsent | f.WithdrawConsent

_log = logging.getLogger("esplanade.gateway.consent")


class ConsentDesk:
    """One a gateway."""

    def __init__(
        self, *, answers: Answers, system: System, asker: Asker, hub: Hub, moves: MoveBatcher, observes: ObserveDesk, audit: AuditTrail | None
    ) -> None:
        self._answers = answers
        self._system = system
        self._asker = asker
        self._hub = hub
        self._moves = moves
        self._observes = observes
        self._audit = audit
        self._standings: WeakValueDictionary[tuple[str, int], Standing] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        hub.hear_consents(self._heard, self._lost)

    async def standing(self, identity: Identity) -> Standing | None:
        """How a person stands, who has just connected; None where they are not asked. Raises Unavailable where that cannot be known now."""
        if not identity.is_person or not self._answers.asks(identity.tenant):
            return None
        await self._hub.listen_consents(identity.tenant)  # before the look: what changes after it is heard
        key = (identity.tenant, identity.subject)
        standing = self._standings.get(key)
        if standing is None:
            standing = self._standings[key] = Standing()
        if not standing.known:
            await self._look(*key, standing)
        return standing

    async def answer(self, peer: Peer, frame: ConsentFrame) -> f.ServerFrame:
        """Raises what the System raises."""
        identity, standing = peer.identity, peer.session.standing
        address = Address("session", identity.tenant, str(identity.subject))
        match frame:
            case f.GetConsent():
                if not identity.is_person:
                    return f.Consent(seq=frame.seq, asked=False, given=False)
                told = await self._asker.ask(peer, address, m.GetConsent(), m.Consent)
            case f.GiveConsent():
                told = await self._asker.ask(peer, address, m.SetConsent(given=True, text=frame.text), m.Consent, frame.seq)
                self._learn(standing, told)
                self._note(peer, "consent.give")
            case f.WithdrawConsent():
                if standing is not None:
                    standing.given = False  # from here on, whatever becomes of this request
                told = await self._asker.ask(peer, address, m.SetConsent(given=False), m.Consent, frame.seq)
                self._learn(standing, told)
                await self._leave_maps(identity.tenant, identity.subject)
                self._note(peer, "consent.withdraw")
            case _:
                assert_never(frame)
        return f.Consent(seq=frame.seq, asked=standing is not None, given=told.given, text=told.text)

    def check(self, peer: Peer) -> None:
        """After something was awaited on the way of a position. Raises ConsentNeeded where the person has taken their consent back meanwhile."""
        standing = peer.session.standing
        if standing is not None and not standing.given:
            raise ConsentNeeded("consent was taken back: send give_consent before positions are sent again")

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what is told ---

    def _heard(self, tenant: str, told: ConsentTold) -> None:
        """Any gateway's doing, ours too."""
        standing = self._standings.get((tenant, told.subject))
        if standing is not None and standing.learn(told.given, told.changes) and not told.given:
            self._spawn(self._leave_quietly(tenant, told.subject))

    def _lost(self, tenant: str) -> None:
        """Some of what was told is lost for good: look again at everybody who is here."""
        self._spawn(self._look_again(tenant))

    async def _look(self, tenant: str, subject: int, standing: Standing) -> None:
        command = m.GetConsent()
        told = expect(command, await self._system.ask(Address("session", tenant, str(subject)), command), m.Consent)
        standing.learn(told.given, told.changes)

    async def _look_again(self, tenant: str) -> None:
        for (of, subject), standing in list(self._standings.items()):
            if of != tenant:
                continue
            try:
                await self._look(of, subject, standing)
                if not standing.given:
                    await self._leave_maps(of, subject)
            except EsplanadeError as error:
                standing.given = False  # the safe side; whoever had agreed is told so at the next hello
                _log.warning("consent_unknown", extra={"tenant": tenant, "subject": subject, "error": error.message})

    @staticmethod
    def _learn(standing: Standing | None, told: m.Consent) -> None:
        if standing is not None:
            standing.learn(told.given, told.changes)

    async def _leave_quietly(self, tenant: str, subject: int) -> None:
        try:
            await self._leave_maps(tenant, subject)
        except EsplanadeError as error:  # the venue's host is away; who is not seen for a minute is gone for it
            _log.warning("leave_failed", extra={"tenant": tenant, "subject": subject, "error": error.message})

    async def _leave_maps(self, tenant: str, subject: int) -> None:
        """The person leaves every venue that a connection of theirs is in here. Raises what the position host raises."""
        for venue in self._hub.venues_of(tenant, subject):
            await self._observes.settled(tenant, venue)  # what was on its way before would put the dot back
            done: asyncio.Future[EsplanadeError | None] = asyncio.get_running_loop().create_future()
            self._moves.add(tenant, venue, None, None, subject, (LEFT, 0.0, 0.0), partial(_set, done))
            failure = await done
            if failure is not None:
                raise failure

    def _note(self, peer: Peer, what: str) -> None:
        """In the audit trail: that it was, not to which text, which is the person's and sealed with their key."""
        if self._audit is not None:
            identity = peer.identity
            self._audit.note(tenant=identity.tenant, who=who_is(identity), what=what, target=str(identity.subject), origin="")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _set(done: asyncio.Future[EsplanadeError | None], failure: EsplanadeError | None) -> None:
    if not done.done():
        done.set_result(failure)
