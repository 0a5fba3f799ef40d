"""What every frame is made of: limits, fields that many have, and the struct that says how a frame is tagged."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

SUBPROTOCOLS = ("esplanade.v1.msgpack", "esplanade.v1.json")
MAX_BATCH = 256
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""A message of a feed or operator; `MAX_GUEST_MESSAGE_BYTES` holds for everyone else."""
MAX_GUEST_MESSAGE_BYTES = 16 * 1024

Seq = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Subject = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Tick = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
LevelIndex = Annotated[int, msgspec.Meta(ge=0, le=254)]
StaleMs = Annotated[int, msgspec.Meta(ge=0, le=60_000)]
"""How old an answer may be, where the reader does not mind: 0, as new as it can be."""
Coordinate = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]
Policy = Literal["disconnect", "keep_latest", "drop_oldest"]


class Place(msgspec.Struct, frozen=True):
    """A position in a durable topic: resume after it."""

    epoch: int
    offset: int


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", omit_defaults=True):
    pass
