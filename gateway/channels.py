"""Channels of the broker that this process reads, and how what is durable on them arrives complete.

Owns the one subscription, the channels' heads (epoch, offset), and the refill of gaps from the journal: heads are compared with it every second and after every
reconnect. Knows no reader: what arrives is handed to a `Listener`, durable publications in order and each once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from actors import topics as t
from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, NotFound
from esplanade.storage.broker import Broker, Subscription
from esplanade.storage.journal import Journal
from gateway.metrics import GatewayMetrics

_log = logging.getLogger("esplanade.gateway.channels")

POLL_S: Final = 1.0
"""Heads are compared with the journal this often."""
IDLE_S: Final = 10.0
"""A channel without users is left after this time."""
PAGE: Final = 500
RECENT: Final = 512
RECENT_BYTES: Final = 1024 * 1024
"""Publications kept of each durable channel for those who come back: thousands do at once, and were each a query to the journal."""
BACKOFF_S: Final = (0.1, 5.0)

_PUBLICATION: Final = msgspec.msgpack.Decoder(t.Publication)
_BODY: Final[msgspec.msgpack.Decoder[t.Body]] = msgspec.msgpack.Decoder(t.Body)
_DURABLE: Final = frozenset({"pushes", "offers", "parking", "anchors", "scene", "consents"})
_BROKEN: Final = (msgspec.MsgspecError, ValueError, IndexError)
"""What a publication that does not hold together raises."""

At = tuple[int, int]
"""(epoch, offset)"""


@dataclass(slots=True, eq=False)
class _Recent:
    """The publications after `floor` up to the channel's head, those that can be read. Within RECENT and RECENT_BYTES."""

    floor: At
    held: deque[tuple[At, t.Body, int]] = field(default_factory=deque)
    n_bytes: int = 0

    def append(self, at: At, body: t.Body, n_bytes: int) -> None:
        self.held.append((at, body, n_bytes))
        self.n_bytes += n_bytes
        while len(self.held) > RECENT or self.n_bytes > RECENT_BYTES:
            self.floor, _, gone = self.held.popleft()
            self.n_bytes -= gone

    def prepend(self, floor: At, older: list[tuple[At, t.Body, int]]) -> None:
        """What came before, from the journal; kept where there is room for all of it."""
        n_bytes = sum(size for _, _, size in older)
        if len(self.held) + len(older) <= RECENT and self.n_bytes + n_bytes <= RECENT_BYTES:
            self.held.extendleft(reversed(older))
            self.n_bytes += n_bytes
            self.floor = floor

    def after(self, place: At) -> list[tuple[At, t.Body]]:
        """Of `floor` or later."""
        found = []
        for at, body, _ in reversed(self.held):
            if at <= place:
                break
            found.append((at, body))
        found.reverse()
        return found


@dataclass(slots=True, eq=False)
class Channel:
    """A channel this process reads. `head`: the last durable publication handed over; None until known. `recent`: of a durable one, when its head is known.

    `older`: held by who reads in the journal what came before those.
    """

    tenant: str
    topic: str
    kind: str
    venue: str | None
    idle_since: float
    uses: int = 0
    head: At | None = None
    refilling: bool = False
    again: bool = False
    opened: asyncio.Task[None] | None = None
    recent: _Recent = field(default_factory=lambda: _Recent((0, 0)))
    older: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def durable(self) -> bool:
        return self.kind in _DURABLE

    @property
    def name(self) -> str:
        return t.channel(self.tenant, self.topic)


class Listener(Protocol):
    """Whoever takes what arrives. None of these may wait."""

    def durable(self, channel: Channel, at: At, body: t.Body) -> None: ...

    def ephemeral(self, channel: Channel, body: t.Body) -> None: ...

    def gap(self, channel: Channel) -> None:
        """Publications before `channel.head` are lost for good."""
        ...

    def left(self, channel: Channel) -> None:
        """Nobody used the channel, and it is read no more."""
        ...

    def resubscribed(self) -> None:
        """The broker's connection is there (again); ephemeral publications may have been missed."""
        ...


class Channels:
    """One a process. `start` before use, `stop` at the end."""

    def __init__(self, *, journal: Journal, broker: Broker, clock: SystemClock, metrics: GatewayMetrics, listener: Listener) -> None:
        self._journal = journal
        self._broker = broker
        self._clock = clock
        self._metrics = metrics
        self._listener = listener
        self._channels: dict[str, Channel] = {}
        self._subscription: Subscription | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begins to read the broker. Does not need it to be there yet."""
        self._spawn(self._pump())
        self._spawn(self._poll())

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._subscription is not None:
            with contextlib.suppress(EsplanadeError):
                await self._subscription.close()

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- use ---

    def find(self, tenant: str, topic: str) -> Channel | None:
        return self._channels.get(t.channel(tenant, topic))

    async def use(self, tenant: str, topics: Sequence[tuple[str, str, str | None]]) -> tuple[Channel, ...]:
        """Channels of (topic, kind, venue), each with one more use; returns when all are read and their heads known.

        Without the broker they are read as soon as it is back. Raises Unavailable where the journal is away (nothing is used then).
        """
        used = tuple(self._use(tenant, *topic) for topic in topics)
        try:
            for channel in used:
                assert channel.opened is not None
                if not channel.opened.done() or channel.opened.exception() is not None:
                    await asyncio.shield(channel.opened)
        except BaseException:
            self.unuse(used)
            raise
        return used

    def unuse(self, channels: Sequence[Channel]) -> None:
        for channel in channels:
            channel.uses -= 1
            channel.idle_since = self._clock.monotonic_s()

    def _use(self, tenant: str, topic: str, kind: str, venue: str | None) -> Channel:
        name = t.channel(tenant, topic)
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(tenant, topic, kind, venue, self._clock.monotonic_s())
            channel.opened = self._spawn(self._open(channel))
            channel.opened.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, though nobody may wait for it
        channel.uses += 1
        return channel

    async def _open(self, channel: Channel) -> None:
        if self._subscription is not None:
            with contextlib.suppress(EsplanadeError):  # lost just now: the pump subscribes anew to every channel
                await self._subscription.add([channel.name])
        if channel.durable:
            try:
                channel.head = await self._journal.place(channel.tenant, channel.topic)
                channel.recent = _Recent(channel.head)
            except BaseException:
                self._channels.pop(channel.name, None)  # whoever waits for it hears why; the next one tries anew
                raise

    async def _close(self, channel: Channel) -> None:
        del self._channels[channel.name]
        self._listener.left(channel)
        if self._subscription is not None:
            with contextlib.suppress(EsplanadeError):  # lost just now: the next subscription leaves it out
                await self._subscription.remove([channel.name])
                if channel.name in self._channels:  # wanted again meanwhile
                    await self._subscription.add([channel.name])

    async def announce(self, tenant: str, topic: str, body: t.Body) -> None:
        """Publish on an ephemeral topic. Raises Unavailable."""
        publication = t.Publication(topic, 0, 0, msgspec.msgpack.encode(body))
        await self._broker.publish([(t.channel(tenant, topic), msgspec.msgpack.encode(publication))])

    # --- history ---

    async def between(self, channel: Channel, after: At, *, limit: int) -> list[tuple[At, t.Body]] | None:
        """Publications of a durable channel after a place and up to its head as it is on return: the recent ones at hand, older ones from the journal, which is read once for
        all who miss the same.

        None where they cannot be had: the place never was, is no longer kept, or is more than `limit` publications back.
        """
        assert channel.head is not None
        if after > channel.head:
            await self.refill(channel)
            if after > channel.head:
                return None
        older: list[tuple[At, t.Body, int]] = []
        if after < channel.recent.floor:
            async with channel.older:
                if after < channel.recent.floor:
                    read = await self._older(channel, after, limit)
                    if read is None:
                        return None
                    floor = channel.recent.floor  # as it is now: no await from here on
                    older = [one for one in read if one[0] <= floor]
                    channel.recent.prepend(after, older)
        if channel.recent.floor <= after:
            found = channel.recent.after(after)
        else:
            found = [(at, body) for at, body, _ in older] + channel.recent.after(channel.recent.floor)
        return None if len(found) > limit else found

    async def _older(self, channel: Channel, after: At, limit: int) -> list[tuple[At, t.Body, int]] | None:
        """From the journal, what came after a place up to the recent publications, and perhaps some of those."""
        found: list[tuple[At, t.Body, int]] = []
        while after < channel.recent.floor:
            try:
                page = await self._journal.published(channel.tenant, channel.topic, epoch=after[0], after=after[1], limit=PAGE)
            except NotFound:
                return None
            for entry in page:
                try:
                    found.append(((entry.epoch, entry.offset), _BODY.decode(entry.body), len(entry.body)))
                except _BROKEN as error:  # passed over, as it was when it was new
                    self._unreadable(channel, error)
            if page:
                after = (page[-1].epoch, page[-1].offset)
            elif after[0] < channel.recent.floor[0]:
                after = (after[0] + 1, 0)
            else:
                return None
            if len(found) > limit:
                return None
        return found

    # --- arrivals ---

    async def _pump(self) -> None:
        wait_s = BACKOFF_S[0]
        while True:
            subscription: Subscription | None = None
            try:
                subscription = await self._broker.subscribe()
                self._subscription = subscription
                if self._channels:
                    await subscription.add(list(self._channels))
                for channel in list(self._channels.values()):
                    if channel.durable:
                        self._spawn(self.refill(channel))
                self._listener.resubscribed()
                wait_s = BACKOFF_S[0]
                async for name, message in subscription:
                    self._incoming(name, message)
            except EsplanadeError as error:
                _log.warning("broker_lost", extra={"error": str(error), "retry_s": wait_s})
            except Exception:  # ours; readers must not go without publications for it, and the refill covers what was in hand
                _log.exception("pump_failed")
            self._subscription = None
            self._metrics.count("esplanade_gateway_broker_losses_total")
            if subscription is not None:
                with contextlib.suppress(EsplanadeError):
                    await subscription.close()
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, BACKOFF_S[1])

    def _incoming(self, name: str, message: bytes) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        try:
            publication = _PUBLICATION.decode(message)
            if not channel.durable:
                self._listener.ephemeral(channel, _BODY.decode(publication.body))
                return
        except _BROKEN as error:
            self._unreadable(channel, error)
            return
        if channel.head is None:
            return  # opening: the journal's place covers it
        at = (publication.epoch, publication.offset)
        if channel.refilling:
            channel.again = True
        elif at == (channel.head[0], channel.head[1] + 1):
            self._hand_over(channel, at, publication.body)
        elif at > channel.head:
            self._spawn(self.refill(channel))

    def _hand_over(self, channel: Channel, at: At, raw: bytes) -> None:
        """The next durable publication. One that cannot be read is counted and passed over: it would not read better the next time."""
        channel.head = at
        try:
            body = _BODY.decode(raw)
        except _BROKEN as error:
            self._unreadable(channel, error)
            return
        channel.recent.append(at, body, len(raw))
        try:
            self._listener.durable(channel, at, body)
        except _BROKEN as error:
            self._unreadable(channel, error)

    def _unreadable(self, channel: Channel, error: Exception) -> None:
        self._metrics.count("esplanade_gateway_unreadable_publications_total")
        _log.error("publication_unreadable", extra={"channel": channel.name, "error": str(error)})

    async def refill(self, channel: Channel) -> None:
        """Hand over, in order, what the journal has after the head. Without the journal: later, by the poll."""
        if channel.refilling or channel.head is None:
            channel.again = True
            return
        channel.refilling = True
        try:
            while True:
                channel.again = False
                place = await self._journal.place(channel.tenant, channel.topic)
                while channel.head < place:
                    await self._page(channel, place)
                if not channel.again:
                    return
        except EsplanadeError as error:
            _log.warning("refill_postponed", extra={"channel": channel.name, "error": str(error)})
        finally:
            channel.refilling = False

    async def _page(self, channel: Channel, place: At) -> None:
        assert channel.head is not None
        next_epoch = channel.head[0] < place[0]
        try:
            page = await self._journal.published(channel.tenant, channel.topic, epoch=channel.head[0], after=channel.head[1], limit=PAGE)
        except NotFound:
            self._metrics.count("esplanade_gateway_lost_publications_total")
            _log.error("gap_unfillable", extra={"channel": channel.name, "head": channel.head, "place": place})
            channel.head = (place[0], 0) if next_epoch else place  # a new epoch may be read from its start
            channel.recent = _Recent(channel.head)
            self._listener.gap(channel)
            return
        for entry in page:
            self._metrics.count("esplanade_gateway_refills_total")
            self._hand_over(channel, (entry.epoch, entry.offset), entry.body)
        if not page:
            channel.head = (channel.head[0] + 1, 0) if next_epoch else place

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            now = self._clock.monotonic_s()
            for channel in list(self._channels.values()):
                if channel.opened is None or not channel.opened.done():
                    continue
                try:
                    if channel.uses == 0 and now - channel.idle_since > IDLE_S:
                        await self._close(channel)
                    elif channel.durable:
                        await self.refill(channel)
                except Exception:  # ours; other channels must not go without the poll for it
                    _log.exception("poll_failed", extra={"channel": channel.name})
