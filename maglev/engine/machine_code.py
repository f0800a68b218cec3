"""What a packet thread needs beyond the pure fast path: system calls, and memory that it shares with other threads
and with the kernel. All of it for compiled code, which runs without the interpreter lock.

Words that somebody else writes meanwhile are read by `acquire` and written by `release`: whoever acquires a word sees
all that was written before it was released (C11, §7.17.3).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from ..compiled import inlined

poll: Any = types.ExternalFunction("poll", types.int32(types.intp, types.uint64, types.int32))
sendmmsg: Any = types.ExternalFunction("sendmmsg", types.int32(types.int32, types.intp, types.uint32, types.int32))
sendto: Any = types.ExternalFunction(
    "sendto", types.intp(types.int32, types.intp, types.uint64, types.int32, types.intp, types.uint32)
)
getsockopt: Any = types.ExternalFunction(
    "getsockopt", types.int32(types.int32, types.int32, types.int32, types.intp, types.intp)
)
write: Any = types.ExternalFunction("write", types.intp(types.int32, types.intp, types.uint64))
_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))
_errno_location: Any = types.ExternalFunction("__errno_location", types.intp())

CLOCK_MONOTONIC = 1  # linux/time.h, the clock of time.monotonic()


@intrinsic
def array_at(typing: Any, address: Any, shape: Any, kind: Any) -> Any:
    """Returns the array of a shape (a tuple) and a type of numbers that lies at an address."""
    result = types.Array(kind.dtype, len(shape), "C")

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        lengths = [
            context.cast(builder, length, each, types.intp)
            for length, each in zip(cgutils.unpack_tuple(builder, arguments[1]), shape, strict=True)
        ]
        strides = [context.get_constant(types.intp, size)]
        for length in lengths[:0:-1]:
            strides.insert(0, builder.mul(strides[0], length))
        array = context.make_array(result)(context, builder)
        data = builder.inttoptr(arguments[0], context.get_data_type(kind.dtype).as_pointer())
        populate_array(array, data=data, shape=lengths, strides=strides, itemsize=size, meminfo=None)
        return array._getvalue()

    return result(types.intp, shape, kind), generate


def _element(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


@intrinsic
def acquire(typing: Any, words: Any, at: Any) -> Any:
    """Reads an element of an array that another thread, or the kernel, writes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(
            _element(context, builder, signature, arguments), "acquire", words.dtype.bitwidth // 8
        )

    return words.dtype(words, types.intp), generate


def _store(words: Any, ordering: str) -> Any:
    """Returns what Numba asks of an intrinsic that writes an element: its signature, and what makes its code."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _element(context, builder, signature, arguments)
        builder.store_atomic(arguments[2], place, ordering, words.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(words, types.intp, words.dtype), generate


@intrinsic
def release(typing: Any, words: Any, at: Any, value: Any) -> Any:
    """Writes an element of an array that another thread, or the kernel, reads."""
    return _store(words, "release")


@intrinsic
def announce(typing: Any, words: Any, at: Any, value: Any) -> Any:
    """Writes an element that others read, before anything that is read afterwards (`release` lets that come first)."""
    return _store(words, "seq_cst")


@intrinsic
def take(typing: Any, words: Any, at: Any) -> Any:
    """Changes an element from 0 to 1, and says whether it did: a lock that never waits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.IntType(words.dtype.bitwidth)
        place = _element(context, builder, signature, arguments)
        return builder.extract_value(builder.cmpxchg(place, kind(0), kind(1), "acquire", "monotonic"), 1)

    return types.boolean(words, types.intp), generate


@inlined
def seconds(scratch: Any) -> float:
    """Returns monotonic seconds; `scratch` is int64 (2,)."""
    _clock_gettime(CLOCK_MONOTONIC, scratch.ctypes.data)
    return scratch[0] + scratch[1] * 1e-9


@inlined
def errno() -> int:
    """Returns why the last system call of this thread failed."""
    return array_at(_errno_location(), (1,), types.int32)[0]
