"""Operations of a scene and their bytes: what goes over the wire, into the journal and into a pack.

Owns the encoding and its checks; `ar.scene` owns what an operation does. Compact by saying once what repeats: clients and property names in
tables, stamps as steps from the last, a node only where it differs from the last operation's, contexts only where they grew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from esplanade.core.errors import InvalidInput

Value = Any
"""A property's value: what MessagePack holds (nil deletes): numbers, text, bytes, lists, maps."""


class Dot(NamedTuple):
    """The name of an operation, and of the node that it created: the client and its count, from 1."""

    client: str
    seq: int


ROOT: Final = Dot("", 0)
TRASH: Final = Dot("", 1)

CREATE: Final = 0
MOVE: Final = 1
SET: Final = 2
COLLECT: Final = 3

MAX_OPS: Final = 200_000
MAX_VALUE_BYTES: Final = 65_536
MAX_NAME_BYTES: Final = 200
MAX_ORDER_BYTES: Final = 512
MAX_CLIENTS: Final = 10_000
_MAGIC: Final = 0xE5
_VERSION: Final = 1

Context = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. `context`: what its author had seen of others, by client; its own earlier operations are understood.

    CREATE and MOVE: `node` to `parent` at `order`. SET: `key` of `node` becomes `value`. COLLECT: `nodes` are forgotten, `value` is the stable stamp.
    """

    dot: Dot
    stamp: int
    context: Context
    kind: int
    node: Dot = ROOT
    parent: Dot = ROOT
    order: bytes = b""
    key: str = ""
    value: Value = None
    nodes: tuple[Dot, ...] = ()

    def saw(self, other: Dot) -> bool:
        """Whether the author had seen the operation of that name."""
        return other.seq < self.dot.seq if other.client == self.dot.client else self.context.get(other.client, 0) >= other.seq

    def weight(self) -> int:
        """About how many bytes it takes: what `encode` writes for its value, order and nodes, and a dozen for the rest."""
        value = len(self.value) if isinstance(self.value, str | bytes) else 1 if type(self.value) is int else len(msgspec.msgpack.encode(self.value))
        return 12 + value + len(self.order) + len(self.context) + 8 * len(self.nodes)

    def rank(self) -> tuple[int, str]:
        """The order of all operations, the same everywhere."""
        return self.stamp, self.dot.client


def _varint(out: bytearray, n: int) -> None:
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)


class _Tables:
    """Texts by first use, for the head."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}

    def of(self, text: str) -> int:
        return self.rows.setdefault(text, len(self.rows))


# The first byte of an operation: kind in bits 0-1, then these.
_SAME_NODE: Final = 4
_NEXT_STAMP: Final = 8
_NEXT_DOT: Final = 16
_SAME_CONTEXT: Final = 32
_SAME_PARENT: Final = 64
_SMALL: Final = 128
"""The value is one byte: an integer 0 to 255."""


def encode(ops: Iterable[Op]) -> bytes:
    """Bytes of operations, in the order given (an order in which causes come first)."""
    names, keys, body = _Tables(), _Tables(), bytearray()
    names.of("")
    last = Op(ROOT, 0, {}, CREATE)
    seqs: dict[str, int] = {}
    contexts: dict[str, Context] = {}
    count = 0
    for op in ops:
        count += 1
        client = op.dot.client
        flags = op.kind
        same_run = client == last.dot.client and op.dot.seq == last.dot.seq + 1
        before = contexts.get(client, {})
        grown = [] if op.context is before else [(c, n) for c, n in op.context.items() if before.get(c, 0) != n]
        flags |= _NEXT_DOT if same_run else 0
        flags |= _SAME_CONTEXT if not grown else 0
        flags |= _NEXT_STAMP if op.stamp == last.stamp + 1 else 0
        flags |= _SAME_NODE if op.node == last.node else 0
        flags |= _SAME_PARENT if op.kind <= MOVE and op.parent == last.parent else 0
        small = op.kind == SET and type(op.value) is int and 0 <= op.value <= 255
        flags |= _SMALL if small else 0
        body.append(flags)
        if not same_run:
            _varint(body, names.of(client))
            _varint(body, op.dot.seq)
        if grown:
            _varint(body, len(grown))
            for c, n in grown:
                _varint(body, names.of(c))
                _varint(body, n)
        if not flags & _NEXT_STAMP:
            step = op.stamp - last.stamp
            _varint(body, step << 1 if step >= 0 else -step << 1 | 1)
        if op.kind in (MOVE, SET) and not flags & _SAME_NODE:
            _dot(body, names, op.node)
        if op.kind <= MOVE:
            if not flags & _SAME_PARENT:
                _dot(body, names, op.parent)
            _varint(body, len(op.order))
            body += op.order
        elif op.kind == SET:
            _varint(body, keys.of(op.key))
            if small:
                body.append(op.value)
            else:
                raw = msgspec.msgpack.encode(op.value)
                _varint(body, len(raw))
                body += raw
        else:
            _varint(body, int(op.value))
            _varint(body, len(op.nodes))
            for node in op.nodes:
                _dot(body, names, node)
        contexts[client] = op.context
        seqs[client] = op.dot.seq
        last = op
    head = bytearray((_MAGIC, _VERSION))
    for table in (names, keys):
        _varint(head, len(table.rows))
        for text in table.rows:
            raw = text.encode()
            _varint(head, len(raw))
            head += raw
    _varint(head, count)
    return bytes(head + body)


def _dot(out: bytearray, names: _Tables, dot: Dot) -> None:
    _varint(out, names.of(dot.client))
    _varint(out, dot.seq)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def varint(self) -> int:
        value = shift = 0
        while True:
            if self.at >= len(self.data) or shift > 63:
                raise InvalidInput(f"scene operations: cut off or garbled at byte {self.at} of {len(self.data)}")
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def take(self, n: int, most: int, what: str) -> bytes:
        if n > most:
            raise InvalidInput(f"scene operations: {what} of {n} bytes: at most {most}")
        if self.at + n > len(self.data):
            raise InvalidInput(f"scene operations: cut off at byte {len(self.data)} within {what}")
        self.at += n
        return self.data[self.at - n : self.at]

    def texts(self, most: int, what: str) -> list[str]:
        count = self.varint()
        if count > most:
            raise InvalidInput(f"scene operations: {count} {what}s: at most {most}")
        try:
            return [self.take(self.varint(), MAX_NAME_BYTES, what).decode() for _ in range(count)]
        except UnicodeDecodeError as error:
            raise InvalidInput(f"scene operations: a {what} is no UTF-8") from error

    def dot(self, names: list[str]) -> Dot:
        return Dot(self.pick(names), self.varint())

    def pick(self, table: list[str]) -> str:
        i = self.varint()
        if i >= len(table):
            raise InvalidInput(f"scene operations: entry {i} of a table of {len(table)}")
        return table[i]


def decode(data: bytes) -> list[Op]:
    """Operations of bytes. Raises InvalidInput for what is cut, garbled or over a limit; nothing is half taken."""
    if len(data) < 5 or data[0] != _MAGIC or data[1] != _VERSION:
        raise InvalidInput(f"scene operations: {len(data)} bytes beginning {data[:2].hex()}: must begin e501")
    r = _Reader(data)
    r.at = 2
    names, keys = r.texts(MAX_CLIENTS, "client"), r.texts(MAX_OPS, "property name")
    count = r.varint()
    if count > MAX_OPS:
        raise InvalidInput(f"scene operations: {count} in one batch: at most {MAX_OPS}; send several")
    last = Op(ROOT, 0, {}, CREATE)
    contexts: dict[str, Context] = {}
    ops: list[Op] = []
    for _ in range(count):
        op = _decode_one(r, names, keys, last, contexts)
        if not op.dot.client or op.dot.seq < 1 or op.stamp < 1:
            raise InvalidInput(f"scene operation {op.dot} stamped {op.stamp}: must have a client, a count from 1 and a stamp above 0")
        contexts[op.dot.client] = op.context
        ops.append(op)
        last = op
    if r.at != len(data):
        raise InvalidInput(f"scene operations: {len(data) - r.at} bytes after the last")
    return ops


def _decode_one(r: _Reader, names: list[str], keys: list[str], last: Op, contexts: dict[str, Context]) -> Op:
    flags = r.take(1, 1, "operation")[0]
    kind = flags & 3
    dot = Dot(last.dot.client, last.dot.seq + 1) if flags & _NEXT_DOT else r.dot(names)
    context = contexts.get(dot.client, {})
    if not flags & _SAME_CONTEXT:
        grown = dict(context)
        for _ in range(min(r.varint(), MAX_CLIENTS)):
            client, n = r.dot(names)
            grown[client] = n
        context = grown
    if flags & _NEXT_STAMP:
        stamp = last.stamp + 1
    else:
        step = r.varint()
        stamp = last.stamp + (-(step >> 1) if step & 1 else step >> 1)
    node = last.node
    if kind == CREATE:
        node = dot
    elif kind != COLLECT and not flags & _SAME_NODE:
        node = r.dot(names)
    if kind <= MOVE:
        parent = last.parent if flags & _SAME_PARENT else r.dot(names)
        return Op(dot, stamp, context, kind, node, parent, r.take(r.varint(), MAX_ORDER_BYTES, "order"))
    if kind == SET:
        key = r.pick(keys)
        if flags & _SMALL:
            return Op(dot, stamp, context, kind, node, key=key, value=r.take(1, 1, "value")[0])
        try:
            value = msgspec.msgpack.decode(r.take(r.varint(), MAX_VALUE_BYTES, "value"))
        except msgspec.DecodeError as error:
            raise InvalidInput(f"scene operation {dot}: its value is no MessagePack: {error}") from error
        return Op(dot, stamp, context, kind, node, key=key, value=value)
    stable = r.varint()
    return Op(dot, stamp, context, kind, value=stable, nodes=tuple(r.dot(names) for _ in range(min(r.varint(), MAX_OPS))))
