"""Operations of a scene and their bytes: what goes over the wire, into the journal and into a pack.

Owns the encoding and its checks; `ar.scene` owns what an operation does. Compact by saying once what repeats: clients and property names in
tables, stamps as steps from the last, a node only where it differs from the last operation's, contexts only where they grew.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from itertools import chain, pairwise, repeat
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

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
MANY: Final = 500
"""Operations of a batch from which on it is read by the compiled kernel, whose loading takes longer than reading fewer."""
_MAGIC: Final = 0xE5
_VERSION: Final = 1

Context = Mapping[str, int]


class Op(msgspec.Struct, frozen=True, gc=False):
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


def _texts(data: bytes, at: int, most: int, what: str) -> tuple[list[str], int]:
    """A table of texts from byte `at`, and the byte after it."""
    count, at = _number(data, at)
    if count > most:
        raise InvalidInput(f"scene operations: {count} {what}s: at most {most}")
    found = []
    try:
        for _ in range(count):
            size = data[at]
            at += 1
            if size > 127:
                size, at = _number(data, at - 1)
            raw = data[at : at + size]
            at += size
            if size > MAX_NAME_BYTES or len(raw) < size:
                raise _too_long(what, size, MAX_NAME_BYTES, len(data))
            found.append(raw.decode())
    except UnicodeDecodeError as error:
        raise InvalidInput(f"scene operations: a {what} is no UTF-8") from error
    return found, at


class Run(NamedTuple):
    """Operations `start` to `stop` of a batch that are sound each by itself and stand together: of one client, counted without a gap, stamped upwards, of one context."""

    start: int
    stop: int


def decode(data: bytes) -> list[Op]:
    """Operations of bytes. Raises InvalidInput for what is cut, garbled or over a limit; nothing is half taken."""
    return decode_runs(data)[0]


def decode_runs(data: bytes) -> tuple[list[Op], list[Run] | None]:
    """As `decode`, and the runs that make up the batch; None where nobody has looked for them: few operations, or one that is not plain."""
    if len(data) < 5 or data[0] != _MAGIC or data[1] != _VERSION:
        raise InvalidInput(f"scene operations: {len(data)} bytes beginning {data[:2].hex()}: must begin e501")
    try:
        names, at = _texts(data, 2, MAX_CLIENTS, "client")
        keys, at = _texts(data, at, MAX_OPS, "property name")
        count, at = _number(data, at)
        if count > MAX_OPS:
            raise InvalidInput(f"scene operations: {count} in one batch: at most {MAX_OPS}; send several")
        if count >= MANY and (plain := _read_plain(data, at, count, names, keys)) is not None:
            return plain
        ops, at = _read(data, at, count, names, keys)
    except IndexError:
        raise InvalidInput(f"scene operations: cut off at byte {len(data)}, or an entry beyond its table") from None
    if at != len(data):
        raise InvalidInput(f"scene operations: {len(data) - at} bytes after the last")
    return ops, None


def _read_plain(data: bytes, at: int, count: int, names: list[str], keys: list[str]) -> tuple[list[Op], list[Run]] | None:
    """What `_read` returns for the whole rest of the bytes, many times as fast; None where anything is not plain, which `_read` is to look at."""
    if names[:1] != [""] or len(set(names)) < len(names) or "" in keys or count > len(data) - at:
        return None
    k = importlib.import_module("ar.scene_kernels")  # Numba: half a second, which a client with little to read need not wait
    table = np.empty((k.COLUMNS, count), np.int64)
    gathered = np.empty(len(data), np.uint8)
    filled, odd = k.read_columns(np.frombuffer(data, np.uint8), at, len(names), len(keys), MAX_VALUE_BYTES, MAX_ORDER_BYTES, table, gathered)
    if filled < 0:
        return None
    kind, client, seq, stamp = table[k.KIND], table[k.CLIENT], table[k.SEQ], table[k.STAMP]
    cuts = (client[1:] != client[:-1]) | (seq[1:] != seq[:-1] + 1) | (stamp[1:] <= stamp[:-1]) | (table[k.CONTEXT_AT, 1:] > 0)
    edges = [0, *(np.flatnonzero(cuts) + 1).tolist(), count]
    runs = [Run(start, stop) for start, stop in pairwise(edges)]
    contexts: dict[int, Context] = {}
    of_runs: list[Context] = []
    dots: list[Dot] = []
    new = tuple.__new__
    for start, stop in runs:
        number, grown_at = int(client[start]), int(table[k.CONTEXT_AT, start])
        context = contexts.setdefault(number, {})
        if grown_at:
            try:
                context = contexts[number] = _grown(data, grown_at, names, context)
            except IndexError:
                return None
        of_runs.append(context)
        first = int(seq[start])
        dots += map(new, repeat(Dot), zip(repeat(names[number]), range(first, first + stop - start)))
    is_set = kind == SET
    sets = int(is_set.sum())
    nodes = dots if not kind.any() else _dots(table[k.NODE_CLIENT], table[k.NODE_SEQ], names)
    places, sizes = table[k.AT].tolist(), table[k.SIZE].tolist()
    values: Iterable[Value] = repeat(None)
    said: Iterable[str] = repeat("")
    if sets:
        try:
            texts = iter(
                msgspec.msgpack.decode(b"\xdd" + int((is_set & (table[k.SIZE] >= 0)).sum()).to_bytes(4, "big") + gathered[:filled].tobytes())
                if not odd
                else ()
            )
            values = [
                None if not one else place if size < 0 else next(texts) if not odd else msgspec.msgpack.decode(data[place : place + size])
                for one, place, size in zip(is_set.tolist(), places, sizes, strict=True)
            ]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        said = [keys[key] if one else "" for one, key in zip(is_set.tolist(), table[k.KEY].tolist(), strict=True)]
    parents: Iterable[Dot] = repeat(ROOT)
    orders: Iterable[bytes] = repeat(b"")
    if sets < count:
        parents = _dots(table[k.PARENT_CLIENT], table[k.PARENT_SEQ], names)
        orders = [b"" if one else data[place : place + size] for one, place, size in zip(is_set.tolist(), places, sizes, strict=True)]
    all_contexts = chain.from_iterable(repeat(context, stop - start) for context, (start, stop) in zip(of_runs, runs, strict=True))
    ops = list(map(Op, dots, stamp.tolist(), all_contexts, kind.tolist(), nodes, parents, orders, said, values))
    return ops, runs


def _dots(clients: np.ndarray[Any, Any], seqs: np.ndarray[Any, Any], names: list[str]) -> list[Dot]:
    """One object for all where all are the same."""
    if (clients == clients[0]).all() and (seqs == seqs[0]).all():
        client, seq = names[int(clients[0])], int(seqs[0])
        same = ROOT if (client, seq) == ROOT else Dot(client, seq)
        return [same] * len(clients)
    return list(map(tuple.__new__, repeat(Dot), zip(map(names.__getitem__, clients.tolist()), seqs.tolist(), strict=True)))


def _grown(data: bytes, at: int, names: list[str], context: Context) -> Context:
    """A context and what it has grown by, from byte `at`."""
    grown = dict(context)
    number, at = _number(data, at)
    for _ in range(number):
        number, at = _number(data, at)
        upto, at = _number(data, at)
        grown[names[number]] = upto
    return grown


def _read(data: bytes, at: int, count: int, names: list[str], keys: list[str]) -> tuple[list[Op], int]:
    """`count` operations from byte `at`, and the byte after them. Raises InvalidInput, and IndexError where the bytes end or a table does.

    One loop with everything at hand: half of merging is reading. Numbers of one byte, which most are, are read in place.
    """
    ops: list[Op] = []
    contexts: dict[str, Context] = {}
    client, seq, stamp, node, parent = "", 0, 0, ROOT, ROOT
    unpack, new = msgspec.msgpack.decode, tuple.__new__  # Dot's own constructor takes twice as long
    for _ in range(count):
        flags = data[at]
        kind = flags & 3
        at += 1
        if flags & _NEXT_DOT:
            seq += 1
        else:
            number, at = _number(data, at)
            client = names[number]
            seq, at = _number(data, at)
        dot = new(Dot, (client, seq))
        context = contexts.get(client)
        if context is None:
            context = contexts[client] = {}
        if not flags & _SAME_CONTEXT:
            grown = dict(context)
            number, at = _number(data, at)
            for _ in range(min(number, MAX_CLIENTS)):
                number, at = _number(data, at)
                upto, at = _number(data, at)
                grown[names[number]] = upto
            context = contexts[client] = grown
        if flags & _NEXT_STAMP:
            stamp += 1
        else:
            step = data[at]
            at += 1
            if step > 127:
                step, at = _number(data, at - 1)
            stamp += -(step >> 1) if step & 1 else step >> 1
        if not client or seq < 1 or stamp < 1:
            raise InvalidInput(f"scene operation {dot} stamped {stamp}: must have a client, a count from 1 and a stamp above 0")
        if kind == CREATE:
            node = dot
        elif kind != COLLECT and not flags & _SAME_NODE:
            number, at = _number(data, at)
            upto, at = _number(data, at)
            node = Dot(names[number], upto)
        if kind == SET:
            number = data[at]
            at += 1
            if number > 127:
                number, at = _number(data, at - 1)
            key = keys[number]
            if flags & _SMALL:
                value: Value = data[at]
                at += 1
            else:
                size = data[at]
                at += 1
                if size > 127:
                    size, at = _number(data, at - 1)
                raw = data[at : at + size]
                at += size
                if size > MAX_VALUE_BYTES or len(raw) < size:
                    raise _too_long("value", size, MAX_VALUE_BYTES, len(data))
                try:
                    value = unpack(raw)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise InvalidInput(f"scene operation {dot}: its value is no MessagePack: {error}") from error
            parent = ROOT
            ops.append(Op(dot, stamp, context, SET, node, ROOT, b"", key, value))
        elif kind == COLLECT:
            stable, at = _number(data, at)
            number, at = _number(data, at)
            gone = []
            for _ in range(min(number, MAX_OPS)):
                number, at = _number(data, at)
                upto, at = _number(data, at)
                gone.append(Dot(names[number], upto))
            node, parent = ROOT, ROOT
            ops.append(Op(dot, stamp, context, COLLECT, value=stable, nodes=tuple(gone)))
        else:
            if not flags & _SAME_PARENT:
                number, at = _number(data, at)
                upto, at = _number(data, at)
                parent = Dot(names[number], upto)
            size, at = _number(data, at)
            order = data[at : at + size]
            at += size
            if size > MAX_ORDER_BYTES or len(order) < size:
                raise _too_long("order", size, MAX_ORDER_BYTES, len(data))
            ops.append(Op(dot, stamp, context, kind, node, parent, order))
    return ops, at


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number and the byte after it."""
    byte = data[at]
    at += 1
    if byte < 128:
        return byte, at
    value, shift = byte & 127, 7
    while shift <= 63:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise InvalidInput(f"scene operations: garbled at byte {at} of {len(data)}")


def _too_long(what: str, size: int, most: int, whole: int) -> InvalidInput:
    return InvalidInput(f"scene operations: {what} of {size} bytes: at most {most}, within the {whole} of the batch")
