"""Answers frames about anchors, scenes and cameras."""

from __future__ import annotations

from typing import assert_never

from actors import messages as m
from actors import topics as t
from actors.localiser import Localiser
from esplanade.core.clock import SystemClock
from esplanade.core.ids import check_name
from gateway import frames as f
from gateway.ar_frames import ArFrame, ar_address, ar_command
from gateway.asking import Asker, Caller, Peer, client_of
from gateway.hub import Hub
from gateway.localising import LocalisingDesk
from gateway.venues import VenueCache


class ArDesk:
    """`localiser`: none, where this machine cannot localise cameras."""

    def __init__(self, asker: Asker, venues: VenueCache, hub: Hub, clock: SystemClock, localiser: Localiser | None) -> None:
        self._asker = asker
        self._venues = venues
        self._hub = hub
        self._clock = clock
        self._localising = LocalisingDesk(localiser)

    async def answer(self, caller: Caller, frame: ArFrame) -> f.ServerFrame:
        """Answer a frame about anchors or a scene of a venue that exists. Time is the gateway's: the shard reads no clock."""
        identity, seq = caller.identity, frame.seq
        await self._venues.get(identity.tenant, frame.venue)
        address, command = ar_address(frame, identity.tenant), ar_command(frame, identity, client_of(caller), self._clock.unix_ms())
        match frame:
            case f.SceneSync():
                delta = await self._asker.ask(caller, address, command, m.SceneDelta)
                return f.SceneDelta(seq=seq, ops=delta.ops, whole=delta.whole)
            case f.SceneApply():  # an operation sent again changes nothing: it needs no key
                edits = await self._asker.ask(caller, address, command, m.SceneEdits)
                return f.SceneApplied(seq=seq, applied=edits.applied, known=edits.known)
            case f.RemoveAnchors() | f.CarryAnchors():
                await self._asker.ask(caller, address, command, m.Done)
                return f.Done(seq=seq)
            case f.HostAnchor() | f.ObserveAnchor():
                return f.AnchorsAre(seq=seq, anchors=(await self._asker.ask(caller, address, command, m.Anchors, seq)).anchors)
            case f.GetAnchorGraph():
                graph = await self._asker.ask(caller, address, command, m.AnchorGraph)
                return f.AnchorGraph(seq=seq, anchors=graph.anchors, seen=graph.seen)
            case f.ResolveAnchors() | f.AnchorsNear() | f.RefineAnchors():  # a refinement sent again finds other versions, and moves nothing
                return f.AnchorsAre(seq=seq, anchors=(await self._asker.ask(caller, address, command, m.Anchors)).anchors)
            case _:
                assert_never(frame)

    async def edit_scene(self, peer: Peer, frame: f.SceneApply) -> f.ServerFrame:
        done = await self.answer(peer, frame)
        if isinstance(done, f.SceneApplied) and done.applied + done.known:  # made under its own name, or it would have been refused
            self._hub.presence.edited(peer, f"venue/{frame.venue}/scene/{frame.scene}")
        return done

    async def localise(self, caller: Caller, frame: f.Localise) -> f.ServerFrame:
        return await self._localising.answer(await self._venues.get(caller.identity.tenant, frame.venue), frame)

    async def present(self, peer: Peer, frame: f.ScenePresence) -> f.ServerFrame:
        """Say to all who look at the scene where this client looks from: to whoever reads the topic now, and nothing is kept."""
        facts = await self._venues.get(peer.identity.tenant, frame.venue)
        facts.check_level(frame.level)
        topic = f"venue/{frame.venue}/presence/{check_name(frame.scene, 'scene')}"
        body = t.Presence(venue=frame.venue, scene=frame.scene, client=client_of(peer), level=frame.level, pose=frame.pose)
        await self._hub.announce(peer.identity.tenant, topic, body)
        return f.Done(seq=frame.seq)
