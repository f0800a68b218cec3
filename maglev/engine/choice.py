"""Which engine moves the packets: the one that was asked for, or the fastest that works here."""

from __future__ import annotations

from importlib import import_module

from ..errors import PlatformError
from .contract import Engine, Options

FASTEST_FIRST = {"xdp": "XdpEngine", "ring": "RingEngine", "socket": "SocketEngine"}  # modules here, and their classes
SOCKET_THREADS = 1


def open_engine(choice: str, options: Options) -> Engine:
    """Returns a running engine; `choice` is one of `FASTEST_FIRST`, or auto. PlatformError if none works, and why."""
    if choice != "auto":
        return _open(choice, options)
    passed_over: list[str] = []
    for name in FASTEST_FIRST:
        try:
            engine = _open(name, options)
        except PlatformError as error:
            passed_over.append(f"{name}: {error}")
        else:
            engine.passed_over = tuple(passed_over)
            return engine
    raise PlatformError(f"no engine works here: {'; '.join(passed_over)}")


def _open(name: str, options: Options) -> Engine:
    """Imports an engine only when it is wanted: compiled ones bring in the compiler."""
    if name == "socket" and options.threads > SOCKET_THREADS:
        raise PlatformError(f"the engine socket has one packet thread; {options.threads} need ring or xdp")
    engine: Engine = getattr(import_module(f"{__package__}.{name}"), FASTEST_FIRST[name])(options)
    return engine
