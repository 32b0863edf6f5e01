"""A row of a sparse matrix times vectors, a cache line of entries at once, for CPUs that gather: LLVM's instructions.

Numba has no vectors of its own, and those that LLVM makes of such a loop have four entries and no use for a row's rest.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.types import float64
from numba.core.types.containers import UniTuple
from numba.extending import intrinsic

from topognn.kernels.primitives import ask_for, element_pointer

LINE = 16  # entries of a cache line, of indices or of weights
AHEAD = 512  # entries that a CPU is asked for before their turn: its own guesses end with each page of memory

_LONG, _WORD, _DOUBLE = ir.IntType(64), ir.IntType(32), ir.DoubleType()


def _shuffle(builder: Any, one: Any, other: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(one, other, ir.VectorType(_WORD, len(order))(order))


def _splat(builder: Any, value: Any) -> Any:
    """Return a line with one value everywhere."""
    first = builder.insert_element(ir.Constant(ir.VectorType(value.type, LINE), ir.Undefined), value, _WORD(0))
    return _shuffle(builder, first, first, [0] * LINE)


def _call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    shape = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, shape, name), arguments)


def _load(builder: Any, pointer: Any, mask: Any, rest: Any) -> Any:
    """Return the line at ``pointer`` where ``mask`` is set, and ``rest`` elsewhere, where nothing is read."""
    name = f"llvm.masked.load.v{LINE}{rest.type.element.intrinsic_name}.p0"
    return _call(builder, name, rest.type, pointer, _WORD(4), mask, rest)


def _gather(builder: Any, pointer: Any, stride: int, places: Any, mask: Any) -> Any:
    """Return the numbers ``places`` times ``stride`` behind ``pointer``, 0 where ``mask`` is not set."""
    kind = pointer.type.pointee
    addresses = builder.gep(pointer, [places], source_etype=ir.ArrayType(kind, stride))
    addresses.type = ir.VectorType(ir.PointerType(), LINE)  # llvmlite takes it for a single address
    line = ir.VectorType(kind, LINE)
    name = f"llvm.masked.gather.v{LINE}{kind.intrinsic_name}.v{LINE}p0"
    return _call(builder, name, line, addresses, _WORD(4), mask, line([0.0] * LINE))


def _gather_pairs(builder: Any, pointer: Any, places: Any, mask: Any) -> Any:
    """Return the two numbers of each place, side by side."""
    if isinstance(pointer.type.pointee, ir.FloatType):  # fetched as one of twice the size
        pairs = _gather(builder, builder.bitcast(pointer, _DOUBLE.as_pointer()), 1, places, mask)
        return builder.bitcast(pairs, ir.VectorType(ir.FloatType(), 2 * LINE))
    one, other = (_gather(builder, builder.gep(pointer, [_LONG(j)]), 2, places, mask) for j in range(2))
    return _shuffle(builder, one, other, [j // 2 + j % 2 * LINE for j in range(2 * LINE)])


def _add_up(builder: Any, vector: Any, columns: int) -> list[Any]:
    """Return the sums of vectors that stand side by side, halves added until one number of each is left."""
    size = vector.type.count
    while size > columns:
        size //= 2
        vector = builder.fadd(*(_shuffle(builder, vector, vector, [*range(o, o + size)]) for o in (0, size)))
    return [builder.extract_element(vector, _WORD(j)) for j in range(columns)]


def _gathering(columns: int) -> Any:
    """Make ``dot_row`` (:mod:`topognn.kernels.dots`) of 1 column, ``dot_row_pair`` of 2; each for steps of 1."""

    @intrinsic
    def dot(typing_context, indices, weights, x, shift, k, end, step):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            kinds, (_, _, _, shift, first, end, _) = signature.args, arguments
            index, value = (context.get_data_type(kinds[j].dtype) for j in (0, 2))

            def point(array: int, place: Any) -> Any:
                return element_pointer(context, builder, kinds[array], arguments[array], place)

            def smaller(one: Any, other: Any) -> Any:
                return builder.select(builder.icmp_unsigned("<", one, other), one, other)

            size = context.make_array(kinds[1])(context, builder, arguments[1]).nitems
            weighted = builder.icmp_signed(">", size, size.type(0))
            shift = smaller(shift, _LONG(index.width - 1))
            shift = _splat(builder, builder.trunc(shift, index) if index.width < 64 else shift)
            # Gathers take 32 bits as signed: addresses count from the middle, and all numbers of 32 bits are places.
            middle = 1 << 31 if index.width == 32 else 0
            base = point(2, _LONG(middle * columns))

            # A loop over k, a line at a time, that carries as many sums as a line has numbers.
            sums = ir.VectorType(_DOUBLE, columns * LINE)
            before, test, line, after = builder.block, *(builder.append_basic_block() for _ in range(3))
            builder.branch(test)
            builder.position_at_end(test)
            k, found = builder.phi(_LONG), builder.phi(sums)
            k.add_incoming(first, before)
            found.add_incoming(sums([0.0] * columns * LINE), before)
            builder.cbranch(builder.icmp_unsigned("<", k, end), line, after)

            builder.position_at_end(line)
            here, there = point(0, k), point(1, k)
            # Without weights, those of the indices: even a load that reads nothing is slow where there is no memory.
            there = builder.select(weighted, there, builder.bitcast(here, there.type))
            for pointer in (here, there):
                ask_for(builder, builder.gep(pointer, [_LONG(AHEAD)]))
            left = builder.trunc(smaller(builder.sub(end, k), _LONG(LINE)), _WORD)
            mask = builder.icmp_unsigned("<", ir.VectorType(_WORD, LINE)([*range(LINE)]), _splat(builder, left))
            places = _load(builder, here, mask, ir.VectorType(index, LINE)([0] * LINE))
            places = builder.add(places, builder.lshr(places, shift))  # spread
            places = builder.xor(places, _splat(builder, index(middle)))
            factors = builder.and_(mask, _splat(builder, weighted))
            factors = _load(builder, there, factors, ir.VectorType(ir.FloatType(), LINE)([1.0] * LINE))
            factors = builder.fpext(factors, ir.VectorType(value, LINE))
            if columns == 1:
                numbers = _gather(builder, base, 1, places, mask)
            else:
                numbers = _gather_pairs(builder, base, places, mask)
                factors = _shuffle(builder, factors, factors, [j // 2 for j in range(2 * LINE)])
            more = builder.fadd(found, builder.fpext(builder.fmul(factors, numbers), sums))
            k.add_incoming(builder.add(k, _LONG(LINE)), builder.block)
            found.add_incoming(more, builder.block)
            builder.branch(test)

            builder.position_at_end(after)
            totals = _add_up(builder, found, columns)
            return totals[0] if columns == 1 else context.make_tuple(builder, signature.return_type, totals)

        result = float64 if columns == 1 else UniTuple(float64, columns)
        return result(indices, weights, x, shift, k, end, step), codegen

    return dot


gather_row, gather_row_pair = _gathering(1), _gathering(2)
