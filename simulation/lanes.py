"""Eight numbers of single precision at once, for kernels: a compiled type whose operations are one vector instruction each where the processor has them.

Owns the type and its operations; knows nothing of what is computed. Plain IEEE operations in a fixed order, none fused and none reordered, so that results
are the same bits on every processor. Usable in compiled functions only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import impl_ret_untracked
from numba.extending import intrinsic, models, register_model
from numba.np import arrayobj

WIDTH: Final = 8
_FLOATS: Final = ir.VectorType(ir.FloatType(), WIDTH)
_INTS: Final = ir.VectorType(ir.IntType(32), WIDTH)


class LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


LANES: Final = LanesType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)


def _splat(builder: Any, value: Any, vector: Any = _FLOATS) -> Any:
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(_INTS, [0] * WIDTH))


def _constant(value: float) -> Any:
    return ir.Constant(_FLOATS, [value] * WIDTH)


def _call(builder: Any, name: str, *values: Any) -> Any:
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * len(values)), f"{name}.v{WIDTH}f32")
    return builder.call(function, values)


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any, vector: Any) -> Any:
    data = arrayobj.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), ir.PointerType(vector))


def _operation(count: int, emit: Callable[..., Any]) -> Any:
    """An intrinsic of `count` lanes that gives lanes."""

    def typing(*arguments: Any) -> Any:
        if arguments != (LANES,) * count:
            return None

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return impl_ret_untracked(context, builder, signature.return_type, emit(builder, *values))

        return LANES(*arguments), generate

    if count == 1:
        return intrinsic(lambda typingctx, a: typing(a))
    if count == 2:
        return intrinsic(lambda typingctx, a, b: typing(a, b))
    return intrinsic(lambda typingctx, a, b, c, d: typing(a, b, c, d))


add = _operation(2, lambda builder, a, b: builder.fadd(a, b))
sub = _operation(2, lambda builder, a, b: builder.fsub(a, b))
mul = _operation(2, lambda builder, a, b: builder.fmul(a, b))
div = _operation(2, lambda builder, a, b: builder.fdiv(a, b))
root = _operation(1, lambda builder, a: _call(builder, "llvm.sqrt", a))
magnitude = _operation(1, lambda builder, a: _call(builder, "llvm.fabs", a))
least = _operation(2, lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
"""The smaller of each pair; the second where either is no number."""
where_less = _operation(4, lambda builder, a, b, yes, no: builder.select(builder.fcmp_ordered("<", a, b), yes, no))
"""`yes` where a < b, else `no`."""
where_at_most = _operation(4, lambda builder, a, b, yes, no: builder.select(builder.fcmp_ordered("<=", a, b), yes, no))
"""`yes` where a <= b, else `no`."""


def _bits_less(typingctx: Any, a: Any, b: Any) -> Any:
    """Bit k set: a < b in lane k."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        byte = builder.bitcast(builder.fcmp_ordered("<", *values), ir.IntType(WIDTH))
        return builder.zext(byte, ir.IntType(64))

    return types.uint64(a, b), generate


bits_less: Any = intrinsic(_bits_less)


def _count(typingctx: Any, bits: Any) -> Any:
    """How many bits are set."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ctpop(values[0])

    return types.uint64(types.uint64), generate


count: Any = intrinsic(_count)

_CHOSEN_FIRST: Final = [
    sum(lane << 8 * k for k, lane in enumerate(sorted(range(WIDTH), key=lambda lane: not bits >> lane & 1))) for bits in range(1 << WIDTH)
]
"""For each choice of lanes which lane each comes from when the chosen are moved to the front: a byte each."""


def _chosen_first(typingctx: Any, lanes: Any, bits: Any) -> Any:
    """The lanes whose bit is set, moved to the front in their order; then the others. bits: below 256."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        word = ir.IntType(64)
        name = "esplanade.lanes.chosen_first"
        table = builder.module.globals.get(name)
        if table is None:
            kind = ir.ArrayType(word, len(_CHOSEN_FIRST))
            table = ir.GlobalVariable(builder.module, kind, name)
            table.linkage, table.global_constant, table.initializer = "internal", True, ir.Constant(kind, _CHOSEN_FIRST)
        packed = builder.load(builder.gep(table, [ir.Constant(word, 0), values[1]]))
        sources = builder.zext(builder.bitcast(packed, ir.VectorType(ir.IntType(8), WIDTH)), _INTS)
        if "+avx2" in context.codegen().magic_tuple()[2]:
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_FLOATS, [_FLOATS, _INTS]), "llvm.x86.avx2.permps")
            return builder.call(function, [values[0], sources])
        moved = ir.Constant(_FLOATS, ir.Undefined)
        for k in range(WIDTH):
            lane = ir.Constant(ir.IntType(32), k)
            moved = builder.insert_element(moved, builder.extract_element(values[0], builder.extract_element(sources, lane)), lane)
        return moved

    return LANES(lanes, types.uint64), generate


chosen_first: Any = intrinsic(_chosen_first)


def _power_of_two(builder: Any, x: Any) -> Any:
    """2^x = 2^whole 2^rest, rest from -0.5 to 0.5 by the terms of exp(rest ln 2) up to the sixth; x is cut to -64 ... 64."""
    x = builder.select(builder.fcmp_ordered("<", x, _constant(-64.0)), _constant(-64.0), x)
    x = builder.select(builder.fcmp_ordered("<", _constant(64.0), x), _constant(64.0), x)
    whole = _call(builder, "llvm.floor", builder.fadd(x, _constant(0.5)))
    rest = builder.fsub(x, whole)
    sum_ = _constant(1.5403530393381608e-4)
    for term in (1.3333558146428443e-3, 9.618129107628477e-3, 5.550410866482158e-2, 2.402265069591007e-1, 6.931471805599453e-1, 1.0):
        sum_ = builder.fadd(builder.fmul(sum_, rest), _constant(term))
    exponent = builder.shl(builder.add(builder.fptosi(whole, _INTS), ir.Constant(_INTS, [127] * WIDTH)), ir.Constant(_INTS, [23] * WIDTH))
    return builder.fmul(sum_, builder.bitcast(exponent, _FLOATS))


power_of_two = _operation(1, _power_of_two)
"""2^x within 3e-7 of its value, x from -64 to 64; what is beyond counts as the bound."""


def _everywhere(typingctx: Any, value: Any) -> Any:
    """The same number in all lanes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        number = context.cast(builder, values[0], signature.args[0], types.float32)
        return _splat(builder, number)

    return LANES(value), generate


everywhere: Any = intrinsic(_everywhere)


def _numbered(typingctx: Any) -> Any:
    """0, 1, 2, ... 7."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(_FLOATS, [float(k) for k in range(WIDTH)])

    return LANES(), generate


numbered: Any = intrinsic(_numbered)


def _load(typingctx: Any, array: Any, index: Any) -> Any:
    """array[index: index + 8] of a contiguous array of float32; nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_place(context, builder, signature.args[0], values[0], values[1], _FLOATS), align=4)

    return LANES(array, types.uint64), generate


load: Any = intrinsic(_load)


def _load_minus(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index: index + 8] - value of a contiguous array of int32, subtracted as whole numbers that wrap round; nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        loaded = builder.load(_place(context, builder, signature.args[0], values[0], values[1], _INTS), align=4)
        return builder.sitofp(builder.sub(loaded, _splat(builder, values[2], _INTS)), _FLOATS)

    return LANES(array, types.uint64, types.int32), generate


load_minus: Any = intrinsic(_load_minus)


def _store(typingctx: Any, array: Any, index: Any, lanes: Any) -> Any:
    """array[index: index + 8] = lanes, array contiguous, of float32; nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _place(context, builder, signature.args[0], values[0], values[1], _FLOATS), align=4)
        return context.get_dummy_value()

    return types.void(array, types.uint64, lanes), generate


store: Any = intrinsic(_store)


def _fold(emit: Callable[..., Any]) -> Any:
    """An intrinsic that makes one number of eight: halves with each other, three times."""

    def typing(typingctx: Any, lanes: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            vector = values[0]
            for half in (4, 2, 1):
                mask = ir.Constant(_INTS, [k + half if k < half else k for k in range(WIDTH)])
                vector = emit(builder, vector, builder.shuffle_vector(vector, ir.Constant(_FLOATS, ir.Undefined), mask))
            return builder.fpext(builder.extract_element(vector, ir.Constant(ir.IntType(32), 0)), ir.DoubleType())

        return types.float64(lanes), generate

    return intrinsic(typing)


total = _fold(lambda builder, a, b: builder.fadd(a, b))
smallest = _fold(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
