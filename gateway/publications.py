"""Publications (`actors.topics`) into frames (`gateway.frames`). Pure.

Small counts are blanked here for readers that may not see them: cells and zones with fewer than SMALL people.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final, assert_never

import msgspec
import numpy as np

from actors import topics as t
from gateway import frames as f
from gateway.codec import Codec, Format
from gateway.interest import SubjectSet
from spatial.measures import band_of
from spatial.offers import Offer, push_id

SMALL: Final = 3
"""Counts below this read 0 for everyone but operators and engineers."""


def frame_of(body: t.Body, place: f.Place | None = None) -> f.ServerFrame:
    """The frame of an ephemeral or broadcast publication, and of a durable one at its place; push batches go by `pushes_of` and `push_columns`."""
    match body:
        case t.TickClosed():
            return f.Closed(venue=body.venue, tick=body.tick, epoch=body.epoch, late_rows=body.late_rows)
        case t.Rewind():
            return f.Rewind(venue=body.venue, tick=body.tick, epoch=body.epoch)
        case t.VenueStats():
            return f.Stats(
                venue=body.venue, tick=body.tick, inside=body.inside, pushes=body.pushes, entries=body.entries,
                exits=body.exits, dwells=body.dwells, tick_ms=body.tick_ms, zones=body.zones,
            )  # fmt: skip
        case t.Dots():
            return f.Dots(venue=body.venue, level=body.level, tick=body.tick, pseudonym=body.pseudonym, x=body.x, y=body.y, radius=body.radius)
        case t.Density():
            return f.Density(
                venue=body.venue, level=body.level, tick=body.tick, x0_m=body.x0_m, y0_m=body.y0_m, cell_m=body.cell_m,
                cols=body.cols, rows=body.rows, count=body.count,
            )  # fmt: skip
        case t.ZoneCounts():
            density = body.inside / body.ground_m2 if body.ground_m2 else 0.0  # a line has no ground
            return f.Zone(
                venue=body.venue, zone=body.zone, tick=body.tick, inside=body.inside, entries=body.entries, exits=body.exits, dwells=body.dwells,
                crossed=body.crossed, stayed_s=body.stayed_s, density_per_m2=density, service=band_of(density),
            )  # fmt: skip
        case t.PaymentStats():
            return f.PaymentStats(payments=body.payments, refused=body.refused, volume=body.volume)
        case t.OfferChanged():
            return f.OfferState(venue=body.venue, offer=body.offer, ended=body.ended, place=place)
        case t.ParkingChanged():
            return f.Parking(venue=body.venue, total=body.total, free=body.free, place=place)
        case t.AnchorsChanged():
            return f.AnchorsChanged(venue=body.venue, what=body.what, ids=body.ids)
        case t.SceneChanged():
            return f.SceneEdits(venue=body.venue, scene=body.scene, author=body.author, ops=body.ops)
        case t.ConsentTold():
            raise ValueError(f"{type(body).__name__} of subject {body.subject} on a topic that carries none: it is between shards and gateways")
        case t.Presence():
            return f.PresenceIs(venue=body.venue, scene=body.scene, present=(f.Present(body.client, body.level, body.pose),))
        case t.Roll() | t.RollCall():
            raise ValueError(f"{type(body).__name__} of topic {body.topic} on a topic that carries none: it is between gateways")
        case t.PushBatch():
            raise ValueError(f"a push batch of venue {body.venue} on a topic that carries none")
    assert_never(body)


def blanked(frame: f.ServerFrame) -> f.ServerFrame:
    """The frame with small counts read as nobody."""
    if isinstance(frame, f.Density):
        count = np.frombuffer(frame.count, "<u2")
        return msgspec.structs.replace(frame, count=np.where(count < SMALL, 0, count).astype("<u2").tobytes())
    if isinstance(frame, f.Stats):
        return msgspec.structs.replace(frame, zones={zone: n for zone, n in frame.zones.items() if n >= SMALL})
    return frame


class Fanout:
    """A frame and its encodings, each made once however many read it."""

    __slots__ = ("_encoded", "frame")

    def __init__(self, frame: f.ServerFrame) -> None:
        self.frame = frame
        self._encoded: dict[tuple[Format, bool], bytes] = {}

    def encoded(self, codec: Codec, *, full: bool) -> bytes:
        """Bytes for a reader; `full`: small counts and all."""
        key = (codec.format, full)
        data = self._encoded.get(key)
        if data is None:
            data = self._encoded[key] = codec.encode(self.frame if full else blanked(self.frame))
        return data


def pushes_of(batch: t.PushBatch, at: tuple[int, int], subjects: Container[int]) -> Iterator[tuple[int, Offer, f.Push]]:
    """(subject, offer, frame) of the rows whose subject is in `subjects`. Raises ValueError where the columns disagree."""
    subject = np.frombuffer(batch.subject, "<u4").tolist()
    offer = np.frombuffer(batch.offer, "<u2").tolist()
    place = f.Place(*at)
    for who, index in zip(subject, offer, strict=True):
        if who in subjects:
            what = batch.offers[index]
            yield (
                who,
                what,
                f.Push(
                    id=push_id(what.id, who, batch.tick),
                    kind="NEW_OFFER" if what.flash else "NEARBY",
                    venue=batch.venue,
                    offer=what.id,
                    unit=what.unit_id,
                    title=what.title,
                    text=what.text,
                    tick=batch.tick,
                    place=place,
                ),
            )


def push_columns(batch: t.PushBatch, at: tuple[int, int], subjects: SubjectSet) -> f.PushColumns | None:
    """The rows of a batch for a feed's subjects; None where there is none."""
    subject = np.frombuffer(batch.subject, "<u4")
    mask = subjects.mask(subject)
    if not mask.any():
        return None
    offer = np.frombuffer(batch.offer, "<u2")
    return f.PushColumns(
        venue=batch.venue,
        tick=batch.tick,
        offers=tuple(o.id for o in batch.offers),
        offer=offer[mask].tobytes(),
        subject=subject[mask].tobytes(),
        place=f.Place(*at),
    )
