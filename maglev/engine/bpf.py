"""BPF without a compiler: a few instructions put together by hand, maps, and how a program gets into the kernel.

The system call is bpf(2); instructions are those of RFC 9669. The programs themselves are in `steering`. They are
attached by a link (BPF_LINK_CREATE), which goes with its process: however that ends, no program is left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Sequence

from ..errors import PlatformError

SYSTEM_CALLS = {"x86_64": 321, "aarch64": 280}  # bpf(2), by machine
LIBC = ctypes.CDLL(None, use_errno=True)
VERIFIER_LOG_BYTES = 1 << 16

# linux/bpf.h
MAP_CREATE, MAP_UPDATE, MAP_DELETE, PROG_LOAD, LINK_CREATE = 0, 2, 3, 5, 28
HASH, LPM_TRIE, XSKMAP = 1, 11, 17  # types of maps
SOCKET_FILTER, XDP = 1, 6  # types of programs
NO_PREALLOC = 1
ATTACH_XDP = 37
XDP_PASS = 2
MAP_LOOKUP_ELEM, REDIRECT_MAP, SKB_LOAD_BYTES_RELATIVE = 1, 51, 68  # helpers
GENERIC, NATIVE = 1 << 1, 1 << 2  # XDP_FLAGS_*, linux/if_link.h

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FRAME = range(11)  # registers; FRAME is the top of the stack
LDX_W, LDX_H, LDX_B = 0x61, 0x69, 0x71
STX_W, STX_D = 0x63, 0x7B
MOV, ADD, AND, RSH, MUL32, RSH32, MOD32, XOR32 = 0xB7, 0x07, 0x57, 0x77, 0x24, 0x74, 0x94, 0xA4  # by a number
MOV_R, ADD_R, XOR_R, MUL32_R = 0xBF, 0x0F, 0xAF, 0x2C  # by a register
JUMP, JEQ, JNE, JGT_R = 0x05, 0x15, 0x55, 0x2D
LOAD_MAP, CALL, EXIT = 0x18, 0x85, 0x95

Instruction = tuple[int, int, int, int | str, int]  # code, destination, source, offset or label, immediate
Line = Instruction | str  # or a label


def op(code: int, to: int = 0, of: int = 0, at: int | str = 0, number: int = 0) -> Instruction:
    """Returns an instruction; a jump's `at` is a label."""
    return code, to, of, at, number


def load_map(register: int, descriptor: int) -> list[Line]:
    """Returns the two instructions that put a map's address into a register."""
    return [op(LOAD_MAP, register, 1, 0, descriptor), op(0)]


def assemble(lines: Sequence[Line]) -> bytes:
    """Returns a program as the kernel takes it, 8 bytes an instruction, its labels turned into distances."""
    instructions = [line for line in lines if not isinstance(line, str)]
    places: dict[str, int] = {}
    for line in lines:
        if isinstance(line, str):
            places[line] = sum(not isinstance(before, str) for before in lines[: lines.index(line)])
    packed = b""
    for place, (code, to, of, at, number) in enumerate(instructions):
        distance = places[at] - place - 1 if isinstance(at, str) else at
        packed += struct.pack("<BBhI", code, to | of << 4, distance, number & 0xFFFFFFFF)
    return packed


def call(command: int, attributes: bytes) -> int:
    """Makes the system call bpf(2); OSError if the kernel refuses."""
    number = SYSTEM_CALLS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) on {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = int(LIBC.syscall(number, command, buffer, len(buffer)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class Map:
    """A map in the kernel: keys and values are bytes."""

    def __init__(self, kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int = 0) -> None:
        self.descriptor = call(MAP_CREATE, struct.pack("<IIIII", kind, key_bytes, value_bytes, entries, flags))

    def put(self, key: bytes, value: bytes) -> None:
        """Sets the value of a key."""
        self._change(MAP_UPDATE, key, value)

    def remove(self, keys: Iterable[bytes]) -> None:
        """Removes keys; those that are not there are passed over."""
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                self._change(MAP_DELETE, key, b"")

    def _change(self, command: int, key: bytes, value: bytes) -> None:
        keys, values = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value) or 1)
        place = ctypes.addressof(values) if value else 0  # removing allows none
        call(command, struct.pack("<IIQQQ", self.descriptor, 0, ctypes.addressof(keys), place, 0))

    def close(self) -> None:
        """Gives the map back; a program that uses it keeps it alive."""
        os.close(self.descriptor)


def load(kind: int, program: bytes) -> int:
    """Returns the descriptor of a program in the kernel; PlatformError with the verifier's last words if it refuses."""
    code, licence = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(VERIFIER_LOG_BYTES)
    addresses = ctypes.addressof(code), ctypes.addressof(licence)
    attributes = struct.pack(
        "<IIQQIIQ", kind, len(program) // 8, *addresses, 1, VERIFIER_LOG_BYTES, ctypes.addressof(log)
    )
    try:
        return call(PROG_LOAD, attributes)
    except OSError as error:
        words = log.value.decode(errors="replace").strip().splitlines()
        raise PlatformError(f"the kernel takes no BPF program: {error.strerror}: {' '.join(words[-3:])}") from None


def attach_xdp(program: int, interface: int, mode: int) -> int:
    """Returns the link (a descriptor) by which a program sees an interface's packets; OSError if it cannot."""
    return call(LINK_CREATE, struct.pack("<IIII", program, interface, ATTACH_XDP, mode))
