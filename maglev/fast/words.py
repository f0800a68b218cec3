"""Words in arrays of bytes, in network byte order, as compiled code reads and writes them.

NumPy has no word at an odd place in an array of bytes, and putting one together byte by byte takes ten times as long
as the processor needs. So each function here has two bodies: the one that you see, for the interpreter, and a single
instruction for compiled code. With `NUMBA_BOUNDSCHECK=1` every access is checked, as Numba itself checks those to
arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from ..compiled import CHECKED, inlined

LINE_BYTES = 64  # of a processor's cache: what comes from memory at once

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def word8(memory: Bytes, at: int) -> int:
    """Returns the byte at `at`."""
    return int(memory[at])


def word16(memory: Bytes, at: int) -> int:
    """Returns the 16-bit word that begins at `at`."""
    return int.from_bytes(memory[at : at + 2].tobytes(), "big")


def word32(memory: Bytes, at: int) -> int:
    """Returns the 32-bit word that begins at `at`."""
    return int.from_bytes(memory[at : at + 4].tobytes(), "big")


def word64(memory: Bytes, at: int) -> np.uint64:
    """Returns the 64-bit word that begins at `at`."""
    return np.uint64(int.from_bytes(memory[at : at + 8].tobytes(), "big"))


def put16(memory: Bytes, at: int, value: int) -> None:
    """Writes the lowest 16 bits of a value at `at`."""
    memory[at : at + 2] = np.frombuffer((int(value) & 0xFFFF).to_bytes(2, "big"), np.uint8)


def put64(memory: Bytes, at: int, value: np.uint64) -> None:
    """Writes a 64-bit word at `at`."""
    memory[at : at + 8] = np.frombuffer(int(value).to_bytes(8, "big"), np.uint8)


@inlined
def _check(memory: Bytes, at: int, size: int) -> None:
    if CHECKED and (at < 0 or at + size > memory.size):
        raise IndexError("a word lies outside of its array")


def _place(context: Any, builder: Any, signature: Any, arguments: Any, bits: int) -> Any:
    """Returns the pointer to the word of a number of bits in (memory, at, …)."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(bits).as_pointer())


def _compile_load(function: Any, bits: int, result: Any) -> None:
    @intrinsic
    def load(typing: Any, memory: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word = builder.load(_place(context, builder, signature, arguments, bits), align=1)
            word = word if bits == 8 else builder.bswap(word)
            return word if bits == 64 else builder.zext(word, ir.IntType(64))

        return result(memory, types.intp), generate

    @overload(function)
    def compiled_load(memory: Any, at: Any) -> Any:
        def checked_load(memory: Any, at: Any) -> Any:
            _check(memory, at, bits // 8)
            return load(memory, at)

        return checked_load


def _compile_store(function: Any, bits: int, kind: Any) -> None:
    @intrinsic
    def store(typing: Any, memory: Any, at: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word = arguments[2] if bits == 64 else builder.trunc(arguments[2], ir.IntType(bits))
            place = _place(context, builder, signature, arguments, bits)
            builder.store(builder.bswap(word), place, align=1)
            return context.get_dummy_value()

        return types.void(memory, types.intp, kind), generate

    @overload(function)
    def compiled_store(memory: Any, at: Any, value: Any) -> Any:
        def checked_store(memory: Any, at: Any, value: Any) -> None:
            _check(memory, at, bits // 8)
            store(memory, at, value)

        return checked_store


for _function, _bits, _result in ((word8, 8, types.intp), (word16, 16, types.intp), (word32, 32, types.intp)):
    _compile_load(_function, _bits, _result)
_compile_load(word64, 64, types.uint64)
_compile_store(put16, 16, types.intp)
_compile_store(put64, 64, types.uint64)


def prefetch(rows: Any, row: Any) -> None:
    """Has the processor fetch a row's first cache line from memory, without waiting for it."""


@intrinsic
def _prefetch(typing: Any, rows: Any, row: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = builder.extract_value(array.strides, 0)
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.gep(builder.bitcast(array.data, byte), [builder.mul(arguments[1], stride)])
        fetch = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte] + [number] * 3)
        )
        builder.call(fetch, [address, number(0), number(3), number(1)])  # to read, keep in all caches, data
        return context.get_dummy_value()

    return types.void(rows, types.uint64), generate


@overload(prefetch)
def _compiled_prefetch(rows: Any, row: Any) -> Any:
    def fetch(rows: Any, row: Any) -> None:
        _prefetch(rows, row)

    return fetch
