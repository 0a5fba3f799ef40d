"""Who reads a topic, over all gateways: counts for everyone who reads it too, names for those who may know.

Nothing is said while nobody asks. Who asks sends a roll call on the tenant's channel; every gateway with readers of that topic then tells its own (a `Roll`): at once, after
every change (at most one in ROLL_S), and every REPEAT_S, for as long as the calls go on. A gateway that fell silent is forgotten after GONE_S, and its readers with it. Owns the rolls, the
watchers, and the differences they are told; who reads what here is the hub's.

Bounds: MAX_ASKED topics asked about at once, MAX_NAMED readers told by name of one topic and gateway, MAX_TOLD in a frame; beyond, counts alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from actors import topics as t
from ar.scene_rights import client_name
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, InvalidInput, LimitExceeded
from gateway.auth import TopicName
from gateway.frames.presence import GetMembers, Member, Members, MembersChanged
from gateway.metrics import GatewayMetrics
from gateway.peer import Peer
from gateway.permissions import Topic, holds

_log = logging.getLogger("esplanade.gateway.presence")

ROLL_S: Final = 0.25
"""Changes within so long are told together, so who comes back within it was never away."""
REPEAT_S: Final = 3.0
GONE_S: Final = 10.0
ASKED_S: Final = 10.0
"""How long a roll call is heeded; who watches repeats it every REPEAT_S."""
MAX_ASKED: Final = 1_000
MAX_NAMED: Final = 64
MAX_TOLD: Final = 256
MAX_GATEWAYS: Final = 256
MEMBERS: Final = "members"
"""The tenant's channel of rolls. No client can name it."""
KINDS: Final[frozenset[Topic]] = frozenset({"scene", "offers", "parking", "stats", "anchors"})
"""Topics whose readers can be asked for."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A topic that somebody asks about. `rolls`: (when, what) by gateway. `watchers`: whether they have missed a word. `told`: what the others know."""

    tenant: str
    topic: str
    until_s: float
    rolls: dict[str, tuple[float, t.Roll]] = field(default_factory=dict)
    watchers: dict[Peer, bool] = field(default_factory=dict)
    told: dict[str, Member] = field(default_factory=dict)
    told_count: int = 0
    said: t.Roll | None = None
    said_s: float = 0.0
    called: bool = False
    called_s: float = float("-inf")


class Presence:
    """One a hub. `readers`: the peers here that read a topic; `publish`: on the tenant's channel of rolls; `listen`: begin to read that channel, and return when it is read.

    Call `start` in the loop that will `stop` it.
    """

    def __init__(
        self,
        *,
        name: str,
        clock: SystemClock,
        metrics: GatewayMetrics,
        readers: Callable[[str, str], Collection[Peer]],
        publish: Callable[[str, t.Body], Awaitable[None]],
        listen: Callable[[str], Awaitable[None]],
    ) -> None:
        self._name = name
        self._clock = clock
        self._metrics = metrics
        self._readers = readers
        self._publish = publish
        self._listen = listen
        self._asked: dict[tuple[str, str], _Asked] = {}
        self._editors: dict[Peer, set[str]] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """Say that all who were here are gone, and be silent."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for asked in self._asked.values():
            if asked.said is not None and asked.said.count:
                with contextlib.suppress(EsplanadeError):  # the broker is away: we are forgotten after GONE_S
                    await self._publish(asked.tenant, t.Roll(gateway=self._name, topic=asked.topic, count=0, members=()))

    # --- asking ---

    async def answer(self, peer: Peer, frame: GetMembers) -> Members:
        """Who reads the topic now. Raises InvalidInput where it has no readers to tell, or the peer is none of them; LimitExceeded."""
        identity = peer.session.identity
        assert identity is not None
        if TopicName.parse(frame.topic).kind not in KINDS:
            raise InvalidInput(f"members of topic {frame.topic}: only of {', '.join(f'.../{kind}' for kind in sorted(KINDS))}")
        if frame.topic not in peer.session.topics:
            raise InvalidInput(f"members of topic {frame.topic}: told to its readers; subscribe to it first")
        key = (identity.tenant, frame.topic)
        asked = self._asked.get(key)
        if asked is None:
            if len(self._asked) >= MAX_ASKED:
                raise LimitExceeded(f"members of {len(self._asked)} topics are asked for: at most {MAX_ASKED} a gateway; ask again in {ASKED_S:g} s")
            asked = self._asked[key] = _Asked(identity.tenant, frame.topic, float("-inf"))
            await self._listen(identity.tenant)
        fresh = asked.until_s < self._clock.monotonic_s()
        asked.until_s = self._clock.monotonic_s() + ASKED_S
        if fresh:
            self._wake.set()
            await self._call(asked)
            await asyncio.sleep(ROLL_S)  # what other gateways answer
        self._say(asked)
        self._tell(asked)  # to those who watch already: from here on all know the same
        if frame.watch and peer.session.state != "closed" and frame.topic in peer.session.topics:  # it may have left meanwhile
            asked.watchers[peer] = False
        else:
            asked.watchers.pop(peer, None)
        everyone, count = asked.told, asked.told_count
        named = self._may_know(peer, frame.topic)
        members = tuple(everyone.values())[:MAX_TOLD] if named else ()
        return Members(seq=frame.seq, topic=frame.topic, count=count, members=members, whole=named and len(members) == count)

    def edited(self, peer: Peer, topic: str) -> None:
        """An edit of this peer's was accepted in a scene: from now on it may know who is there."""
        self._editors.setdefault(peer, set()).add(topic)

    def part(self, peer: Peer, topic: str) -> None:
        """The peer reads the topic no more."""
        identity = peer.session.identity
        asked = None if identity is None else self._asked.get((identity.tenant, topic))
        if asked is not None:
            asked.watchers.pop(peer, None)

    def drop(self, peer: Peer) -> None:
        """The connection is gone."""
        self._editors.pop(peer, None)
        for asked in self._asked.values():
            asked.watchers.pop(peer, None)

    def _may_know(self, peer: Peer, topic: str) -> bool:
        """Staff, and of a scene who has a part in it. Nobody else learns who: a shopper sees a count."""
        identity = peer.session.identity
        return identity is not None and (holds(identity.role, "dots.read") or topic in self._editors.get(peer, ()))

    # --- rolls ---

    def heard(self, tenant: str, body: t.Roll | t.RollCall) -> None:
        """From another gateway, or our own voice."""
        now = self._clock.monotonic_s()
        if isinstance(body, t.RollCall):
            if body.gateway == self._name:
                return
            asked = self._asked.get((tenant, body.topic))
            if asked is None:
                if len(self._asked) >= MAX_ASKED:
                    return
                asked = self._asked[tenant, body.topic] = _Asked(tenant, body.topic, now)
            asked.until_s = max(asked.until_s, now + ASKED_S)
            asked.called = True
            self._wake.set()
            return
        asked = self._asked.get((tenant, body.topic))
        if asked is not None and body.gateway != self._name and (body.gateway in asked.rolls or len(asked.rolls) < MAX_GATEWAYS):
            asked.rolls[body.gateway] = (now, body)

    async def _call(self, asked: _Asked) -> None:
        asked.called_s = self._clock.monotonic_s()
        with contextlib.suppress(EsplanadeError):  # the broker is away: those here are told, and the call is repeated
            await self._publish(asked.tenant, t.RollCall(gateway=self._name, topic=asked.topic))

    def _say(self, asked: _Asked) -> t.Roll:
        """Our own roll, as of now; kept among the others'."""
        here = self._readers(asked.tenant, asked.topic)
        members: dict[str, t.RollMember] = {}
        for peer in here:
            if len(members) >= MAX_NAMED:
                break
            identity = peer.session.identity
            if identity is not None:
                client = client_name(identity.subject, peer.session.client)
                members[client] = t.RollMember(client, identity.role)
        roll = t.Roll(gateway=self._name, topic=asked.topic, count=len(here), members=tuple(members.values()))
        asked.rolls[self._name] = (self._clock.monotonic_s(), roll)
        return roll

    def _everyone(self, asked: _Asked) -> tuple[dict[str, Member], int]:
        """Readers by name as far as they are told, and how many there are. One who is on two gateways for a moment counts once where all are named."""
        count, everyone, unnamed = 0, dict[str, Member](), False
        for _, roll in asked.rolls.values():
            count += roll.count
            unnamed = unnamed or roll.count > len(roll.members)
            for member in roll.members:
                everyone[member.client] = Member(member.client, member.role)
        return everyone, count if unnamed else len(everyone)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._turn()
            except Exception:  # ours; those who watch must not go without for it
                _log.exception("presence_failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROLL_S if self._asked else None):
                    await self._wake.wait()

    async def _turn(self) -> None:
        now = self._clock.monotonic_s()
        for key, asked in list(self._asked.items()):
            if asked.watchers:
                asked.until_s = now + ASKED_S
                if now - asked.called_s >= REPEAT_S:
                    await self._call(asked)
            elif asked.until_s < now:
                del self._asked[key]
                continue
            roll = self._say(asked)
            news = roll.count > 0 if asked.said is None else roll != asked.said
            if news or (roll.count and (asked.called or now - asked.said_s >= REPEAT_S)):
                with contextlib.suppress(EsplanadeError):  # said again in REPEAT_S
                    await self._publish(asked.tenant, roll)
                asked.said, asked.said_s = roll, now
            asked.called = False
            for gateway in [name for name, (at, _) in asked.rolls.items() if now - at > GONE_S]:
                del asked.rolls[gateway]
            self._tell(asked)

    def _tell(self, asked: _Asked) -> None:
        """What changed since the last word, to those who watch."""
        everyone, count = self._everyone(asked)
        joined = [member for name, member in everyone.items() if name not in asked.told]
        left = [member for name, member in asked.told.items() if name not in everyone]
        changed = bool(joined or left) or count != asked.told_count
        asked.told, asked.told_count = everyone, count
        if not changed or not asked.watchers:
            return
        whole = len(everyone) == count and len(joined) + len(left) <= MAX_TOLD
        named = MembersChanged(topic=asked.topic, count=count, joined=tuple(joined[:MAX_TOLD]), left=tuple(left[:MAX_TOLD]), whole=whole)
        plain = MembersChanged(topic=asked.topic, count=count)
        for peer, missed in list(asked.watchers.items()):
            behind = asked.watchers[peer] = peer.backlog() > peer.session.limits.low_bytes
            if behind:
                self._metrics.count("esplanade_gateway_conflated_total", label="slow")
            else:  # who has missed a word hears the count, and asks anew
                peer.write(peer.session.codec.encode(plain if missed or not self._may_know(peer, asked.topic) else named))
