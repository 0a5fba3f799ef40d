"""What travels between a `System` and a shard: requests in, answers out, many to a frame; msgpack.

Owns these two closed unions, the two forms of a frame (one request after another, or `Commands`), and the way an error crosses: by its code, to be raised again as the same class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar, cast

import msgspec
import numpy as np

from actors.messages import Command, Reply
from actors.system import Key, VenueClock
from esplanade.core import errors
from esplanade.core.errors import EsplanadeError, Fault, InvalidInput
from esplanade.core.ids import Address, partition_of
from spatial.columns import PositionColumns
from spatial.positioning.observed import Answers, Observed


class _Request(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """An array on the wire: a full frame of small commands (1,024 of some 80 bytes) stays below the 100 KB that Ray carries within a call."""


class Ask(_Request, frozen=True, tag="ask"):
    address: Address
    command: Command
    key: Key | None = None
    within_ms: int = 0
    """How long it may wait in the shard's mailbox before it is refused instead of run; 0: as long as it takes."""


class TracedAsk(Ask, frozen=True, tag="traced_ask"):
    """An Ask whose turn and flush become spans. A type of its own, so that all others carry and cost nothing."""

    trace: str = ""
    """W3C traceparent of the span that asks."""


class PublicAsk(Ask, frozen=True, tag="public_ask"):
    """An Ask under a public key (`actors.public_keys`), in the place of `key`."""

    public: bytes = b""


class _OfVenue(_Request, frozen=True):
    tenant: str
    venue: str


class Take(_OfVenue, frozen=True, tag="take"):
    source: str | None
    tick: int | None
    subject: bytes
    level: bytes
    x: bytes
    y: bytes
    radius: bytes = b""


class Watermark(_OfVenue, frozen=True, tag="watermark"):
    source: str
    tick: int
    rows: int


class OpenSource(_OfVenue, frozen=True, tag="open"):
    source: str
    first_tick: int


class CloseSource(_OfVenue, frozen=True, tag="close"):
    source: str


class GetClock(_OfVenue, frozen=True, tag="clock"):
    pass


class Watch(_OfVenue, frozen=True, tag="watch"):
    topics: dict[str, float]


class Observe(_OfVenue, frozen=True, tag="observe"):
    """What phones sensed: the buffers of `spatial.positioning.observed.Observed.pack`."""

    columns: tuple[bytes, ...]


class Commands(msgspec.Struct, frozen=True, array_like=True):
    """A frame of plain asks of one client to entities of one kind, as columns: a third of the bytes and of the objects. `client`: None where no ask has a key."""

    kind: str
    tenant: str
    client: str | None
    within_ms: int
    ids: list[str]
    commands: list[Command]
    sequences: list[int]

    @classmethod
    def of(cls, requests: Sequence[Request]) -> Commands | None:
        """The same frame; None where it has another request, or of another kind, tenant, client or deadline."""
        if {*map(type, requests)} != {Ask}:
            return None
        asks = cast(Sequence[Ask], requests)
        kinds, tenants, ids = zip(*[ask.address for ask in asks], strict=True)
        keys = [ask.key for ask in asks]
        first, within_ms = keys[0], asks[0].within_ms
        client = None if first is None else first.client
        if len({*kinds}) > 1 or len({*tenants}) > 1 or len({ask.within_ms for ask in asks}) > 1:
            return None
        if {None if key is None else key.client for key in keys} != {client}:
            return None
        sequences = [0] * len(keys) if client is None else [key.sequence for key in cast(list[Key], keys)]
        return cls(kinds[0], tenants[0], client, within_ms, list(ids), [ask.command for ask in asks], sequences)

    def address(self, index: int) -> Address:
        return Address(self.kind, self.tenant, self.ids[index])

    def ask(self, index: int) -> Ask:
        key = None if self.client is None else Key(self.client, self.sequences[index])
        return Ask(self.address(index), self.commands[index], key, self.within_ms)

    def __len__(self) -> int:
        return len(self.ids)


VenueRequest = Take | Watermark | OpenSource | CloseSource | GetClock | Watch | Observe
Request = Ask | TracedAsk | PublicAsk | VenueRequest


class _Answer(msgspec.Struct, frozen=True, array_like=True, tag=True):
    pass


class Replied(_Answer, frozen=True, tag="replied"):
    reply: Reply


class Clocked(_Answer, frozen=True, tag="clock"):
    clock: VenueClock


class LocatedRows(_Answer, frozen=True, tag="located"):
    """`spatial.positioning.observed.Answers` as little-endian buffers, in the order of its fields, and the version of the radio map."""

    columns: tuple[bytes, ...]
    version: int


class Refused(_Answer, frozen=True, tag="refused"):
    """The error that `System` raises."""

    code: str
    message: str


Answer = Replied | Clocked | LocatedRows | Refused

MAX_FRAME_REQUESTS: Final = 1_024
MAX_FRAME_BYTES: Final = 8 * 2**20
"""Bodies of a frame's requests, at most (a larger single request travels alone)."""

MAX_PLACES: Final = 65_536
"""Addresses whose partition a process remembers."""

COLUMNS_FROM: Final = 8
"""A frame of fewer requests is not worth a look at whether it can go as `Commands`."""

_partitions: Final[dict[Address, int]] = {}

_COLUMNS: Final = b"\xc1"
"""Begins a frame, or its answers, in the shorter form; no msgpack begins with it."""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_requests: Final = msgspec.msgpack.Decoder(list[Request]).decode
_decode_commands: Final = msgspec.msgpack.Decoder(Commands).decode
_decode_answers: Final = msgspec.msgpack.Decoder(list[Answer]).decode
_decode_same: Final = msgspec.msgpack.Decoder(tuple[int, Answer]).decode

_ERRORS: Final[dict[str, type[EsplanadeError]]] = {
    error.code: error
    for error in (
        errors.InvalidInput, errors.NotFound, errors.Forbidden, errors.Unauthenticated, errors.Conflict,
        errors.LimitExceeded, errors.Unavailable, errors.Fenced, errors.Fault,
    )
}  # fmt: skip


def encode_requests(requests: Sequence[Request]) -> bytes:
    """A frame."""
    columns = Commands.of(requests) if len(requests) >= COLUMNS_FROM else None
    return _encode(requests) if columns is None else _COLUMNS + _encode(columns)


def is_of_commands(frame: bytes) -> bool:
    """Whether a frame holds `Commands`: plain asks of one kind."""
    return frame[:1] == _COLUMNS


def decode_requests(frame: bytes) -> list[Request] | Commands:
    """What `encode_requests` was given, in the form in which it travelled."""
    return _decode_commands(memoryview(frame)[1:]) if is_of_commands(frame) else _decode_requests(frame)


def encode_answers(answers: Sequence[Answer]) -> bytes:
    """The answers of a frame: in their order, or, where all are the one object, how many it stands for."""
    if len(answers) > 1 and answers[0] is answers[-1] and len({*map(id, answers)}) == 1:
        return _COLUMNS + _encode((len(answers), answers[0]))
    return _encode(answers)


def decode_answers(data: bytes) -> list[Answer]:
    """What `encode_answers` was given."""
    if data[:1] != _COLUMNS:
        return _decode_answers(data)
    count, answer = _decode_same(memoryview(data)[1:])
    return [answer] * count


def error_of(refused: Refused) -> EsplanadeError:
    """The error to raise for a refusal."""
    return _ERRORS.get(refused.code, Fault)(refused.message)


def refusal(error: EsplanadeError) -> Refused:
    return Refused(error.code, error.message)


def host_address(tenant: str, venue: str) -> Address:
    """Of a venue's position host."""
    return Address("positions", tenant, venue)


def address_of(request: Request) -> Address:
    return request.address if isinstance(request, Ask) else host_address(request.tenant, request.venue)


def log_place(address: Address) -> tuple[str, int]:
    """(tenant, partition) of an address, remembered."""
    partition = _partitions.get(address)
    return address.tenant, _find_partition(address) if partition is None else partition


def _find_partition(address: Address) -> int:
    if len(_partitions) >= MAX_PLACES:
        _partitions.clear()
    partition = _partitions[address] = partition_of(address)
    return partition


def partitions_at(requests: Sequence[Request]) -> list[int]:
    """The partition of each request."""
    addresses = [ask.address for ask in cast(Sequence[Ask], requests)] if {*map(type, requests)} == {Ask} else [*map(address_of, requests)]
    found = [*map(_partitions.get, addresses)]
    if None in found:
        return [_find_partition(address) if known is None else known for known, address in zip(found, addresses, strict=True)]
    return cast(list[int], found)


def log_of(request: Request) -> tuple[str, int]:
    """(tenant, partition) whose log the request goes to."""
    return log_place(address_of(request))


def take_of(tenant: str, venue: str, columns: PositionColumns, source: str | None, tick: int | None) -> Take:
    return Take(tenant, venue, source, tick, *columns.pack(), columns.pack_radius())


def columns_of(take: Take) -> PositionColumns:
    return PositionColumns.unpack(take.subject, take.level, take.x, take.y, take.radius)


def observe_of(tenant: str, venue: str, observed: Observed) -> Observe:
    return Observe(tenant, venue, observed.pack())


def observed_of(request: Observe) -> Observed:
    """Raises InvalidInput for buffers that are no observations."""
    if len(request.columns) != len(Observed.__slots__):
        raise InvalidInput(
            f"observations: {len(request.columns)} columns; must be {len(Observed.__slots__)}, so gateway and shard are of different versions"
        )
    return Observed.unpack(*request.columns)


def located_rows(answers: Answers, version: int) -> LocatedRows:
    return LocatedRows(tuple(np.ascontiguousarray(getattr(answers, name)).tobytes() for name in Answers.__slots__), version)


def answers_of(rows: LocatedRows) -> Answers:
    state, level, xy, cov, radius, levels, flags = rows.columns
    n = len(state)
    return Answers(
        np.frombuffer(state, np.uint8), np.frombuffer(level, np.uint8), np.frombuffer(xy, "<f4").reshape(n, 2), np.frombuffer(cov, "<f4").reshape(n, 3),
        np.frombuffer(radius, "<f4"), np.frombuffer(levels, "<f4").reshape(n, -1) if n else np.zeros((0, 0), np.float32), np.frombuffer(flags, np.uint8),
    )  # fmt: skip


A = TypeVar("A", Replied, Clocked, LocatedRows)


def expect(answer: Answer, kind: type[A]) -> A:
    """The answer, of the kind that belongs to its request; raises what was refused."""
    if isinstance(answer, Refused):
        raise error_of(answer)
    if not isinstance(answer, kind):
        raise Fault(f"a shard answered {type(answer).__name__} where {kind.__name__} belongs; shard and gateway are of different versions")
    return answer
