"""What becomes of publications that a reader cannot take as fast as they come, by topic; and what a slow reader is still owed. Pure.

`disconnect`: all or nothing; the reader comes back and resumes. `keep_latest`: the newest of each key (an offer, a scene, the topic itself) is owed and nothing older. `drop_oldest`: the newest
MAX_KEPT are owed, and the reader is told how many it lost. Ephemeral topics are states and always keep the latest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from actors import topics as t
from esplanade.core.errors import InvalidInput
from gateway import frames as f
from gateway.auth import TopicName
from gateway.codec import Codec
from gateway.filters import check_where
from gateway.permissions import Topic

MAX_KEPT: Final = 1_024
"""Publications that a slow reader is owed of one topic."""

ALLOWED: Final[Mapping[Topic, tuple[f.Policy, ...]]] = {
    "offers": ("disconnect", "keep_latest", "drop_oldest"),
    "parking": ("disconnect", "keep_latest", "drop_oldest"),
    "anchors": ("disconnect", "drop_oldest"),  # a change that is passed over leaves an anchor unread: the reader must hear of it
    "scene": ("disconnect",),  # an operation builds on those before it
}
"""Of topics whose every change is told, the first of them unless the reader asks for another."""

FRAMES: Final[Mapping[Topic, tuple[type, ...]]] = {
    "offers": (f.OfferState,),
    "parking": (f.Parking,),
    "anchors": (f.AnchorsChanged,),
    "scene": (f.SceneEdits,),
    "presence": (f.PresenceIs,),
    "dots": (f.Dots,),
    "density": (f.Density,),
    "zone": (f.Zone,),
    "stats": (f.Stats,),
    "clock": (f.Closed,),
    "payments": (f.PaymentStats,),
}
"""What a filter of a topic is about."""


def check_choice(frame: f.Subscribe, name: TopicName) -> None:
    """Raises InvalidInput for a policy that the topic does not have, or a filter about what it does not say."""
    allowed = ALLOWED.get(name.kind, ("keep_latest",))
    if frame.policy is not None and frame.policy not in allowed:
        raise InvalidInput(f"topic {frame.topic} with policy {frame.policy}: it has {' or '.join(allowed)}")
    if frame.where is not None:
        if frame.view is not None:
            raise InvalidInput(f"topic {frame.topic} with view and where: a view says what changed in it; give one of them")
        check_where(frame.where, FRAMES[name.kind])


def key_of(body: t.Body) -> str:
    """Of what it is the newest."""
    return body.offer.id if isinstance(body, t.OfferChanged) else ""


class Owed:
    """What a slow reader of a topic is owed: the latest `by_key`, else the newest."""

    __slots__ = ("_codec", "_count", "_kept", "_lost", "_topic", "by_key")

    def __init__(self, topic: str, codec: Codec, *, by_key: bool) -> None:
        self._topic = topic
        self._codec = codec
        self.by_key = by_key
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._count = 0
        self._lost = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, key: str, encoded: bytes) -> int:
        """Keep a publication; returns how many it took the place of."""
        gone = 0
        self._count += 1
        if not self.by_key:
            key = str(self._count)
        elif self._kept.pop(key, None) is not None:
            gone = 1
        self._kept[key] = encoded
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
            self._lost += 1
            gone += 1
        return gone

    def next(self) -> bytes | None:
        """The oldest that is owed, which then is not any more; before it, how many were lost."""
        if self._lost:
            lost, self._lost = self._lost, 0
            return self._codec.encode(f.Skipped(topic=self._topic, count=lost))
        return self._kept.popitem(last=False)[1] if self._kept else None
