"""A process kept ready, whose forks are daemons that start at once: `python -m maglev nursery --socket PATH`.

A daemon spends its first half second on imports, and on loading compiled code. A lab starts a dozen daemons together;
so it has one process do that once, and fork for each. A fork shares its parent's memory until it writes to it, which
saves a hundred megabytes a daemon as well. Machines of their own have no use for this.

An order comes as one packet on a Unix socket: a JSON document with `arguments` (of `python -m maglev`) and
`environment`, and with it descriptors: the network and the mount namespace to live in, and the file to log to. The
answer is the new process's number. Namespaces are entered before anything else is done. An order that makes no sense
has no answer; what was wrong with it is said on standard error, and the next one is taken.

`--also MODULE` has it import another module as well, whose `main(ARGUMENTS)` a fork runs when the first of an order's
arguments is that module's name: what else a lab starts by the dozen.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from .engine import machine
from .errors import MaglevError, PlatformError

LARGEST_ORDER_BYTES = 1 << 17  # as much as a Unix socket takes in one packet, in round numbers
DESCRIPTORS = ("network namespace", "mount namespace", "log")
CLIENT_SILENCE_S = 2.0  # whoever has connected and orders nothing keeps the others waiting no longer than this
LIBC = ctypes.CDLL(None, use_errno=True)


class OrderError(MaglevError):
    """An order that cannot be carried out."""


class Order(NamedTuple):
    """What is to become of a fork."""

    arguments: list[str]
    environment: dict[str, str]
    descriptors: list[int]


def run(path: Path, also: Sequence[str] = ()) -> None:
    """Serves orders until a signal ends it. The socket is there when it is ready, and not before.

    PlatformError for a module of `also` that is not there.
    """
    _prepare(also)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps: nobody here wants to know how a daemon ended
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        unfinished = path.with_suffix(".part")
        server.bind(str(unfinished))
        unfinished.chmod(0o600)
        server.listen(64)
        unfinished.rename(path)
        while True:
            client, _ = server.accept()
            with client:
                try:
                    _serve(server, client, also)
                except (OrderError, OSError) as error:
                    machine.say(f"nothing was started: {error}")


def _prepare(also: Sequence[str]) -> None:
    """Imports what daemons need, and loads what is compiled."""
    from . import endpoint, forwarder  # noqa: F401

    for module in also:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise PlatformError(f"--also {module}: {error}") from None
    from .engine.rehearsal import rehearse

    rehearse()
    gc.collect()
    gc.freeze()  # so that collecting garbage does not write to the memory that forks share


def _serve(server: socket.socket, client: socket.socket, also: Sequence[str]) -> None:
    client.settimeout(CLIENT_SILENCE_S)
    with contextlib.ExitStack() as received:
        order = _receive(client, received)
        child = os.fork()
        if child == 0:
            server.close()
            client.close()
            _become(order, also)
    client.send(str(child).encode())


def _receive(client: socket.socket, received: contextlib.ExitStack) -> Order:
    """Returns an order; `received` closes its descriptors. OrderError if it makes no sense."""
    numbers = array.array("i")
    room = socket.CMSG_SPACE(len(DESCRIPTORS) * numbers.itemsize)
    message, ancillary, flags, _ = client.recvmsg(LARGEST_ORDER_BYTES, room)
    for _, _, content in ancillary:
        numbers.frombytes(content)
    for number in numbers:
        received.callback(os.close, number)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise OrderError(f"an order was cut short: allowed are {LARGEST_ORDER_BYTES} bytes, {len(DESCRIPTORS)} files")
    return parse(message, list(numbers))


def parse(message: bytes, descriptors: Sequence[int]) -> Order:
    """Returns the order that came as a message and descriptors; OrderError, with what is allowed, if it is none."""
    try:
        document = json.loads(message)
    except ValueError:
        raise OrderError(f"an order was {message[:40]!r}; allowed: a JSON document") from None
    if not isinstance(document, dict) or document.keys() != {"arguments", "environment"}:
        raise OrderError(f"an order was {str(document)[:60]}; allowed: arguments and environment")
    arguments, environment = document["arguments"], document["environment"]
    if not isinstance(arguments, list) or not _are_words(arguments):
        raise OrderError(f"an order's arguments were {str(arguments)[:60]}; allowed: a list of words")
    if not isinstance(environment, dict) or not _are_words(environment.values()):
        raise OrderError(f"an order's environment was {str(environment)[:60]}; allowed: names and words")
    if len(descriptors) != len(DESCRIPTORS):
        raise OrderError(f"an order came with {len(descriptors)} files; allowed: {', '.join(DESCRIPTORS)}")
    return Order(arguments, environment, list(descriptors))


def _are_words(values: Iterable[object]) -> bool:
    """Says whether all are strings that may be part of an environment or a command."""
    return all(isinstance(value, str) and "\0" not in value for value in values)


def _become(order: Order, also: Sequence[str]) -> NoReturn:
    """Turns this fork into the daemon that was ordered."""
    status = 1
    try:
        _settle(order.environment, *order.descriptors)
        status = _run(order.arguments, also)
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except MaglevError as error:
        machine.say(f"maglev: {error}")
    except BaseException:  # what would end any other program with a traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run(arguments: list[str], also: Sequence[str]) -> int:
    """Runs a command of `python -m maglev`, or another module; returns its exit status."""
    if arguments and arguments[0] in also:
        importlib.import_module(arguments[0]).main(arguments[1:])
        return 0
    from .__main__ import main

    return main(arguments)


def _settle(environment: dict[str, str], network: int, mounts: int, log: int) -> None:
    """Moves into the namespaces, a session of its own and the log."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for namespace in (network, mounts):
        if LIBC.setns(namespace, 0) != 0:
            raise PlatformError(f"cannot enter a namespace: {os.strerror(ctypes.get_errno())}")
    for descriptor in (nothing, network, mounts, log):
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
