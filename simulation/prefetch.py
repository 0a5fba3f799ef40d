"""A hint to the processor to fetch what a kernel will read soon. Changes no result; usable in compiled functions only."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np import arrayobj


def _prefetch(typingctx: Any, array: Any, index: Any) -> Any:
    """Fetch array.ravel()[index] of a contiguous array; an index out of bounds does nothing."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = arrayobj.make_array(signature.args[0])(context, builder, values[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [byte, word, word, word]), "llvm.prefetch.p0")
        place = builder.bitcast(builder.gep(data, [values[1]]), byte)
        builder.call(function, [place, ir.Constant(word, 0), ir.Constant(word, 3), ir.Constant(word, 1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


prefetch: Any = intrinsic(_prefetch)
