"""A process kept ready, whose forks are daemons that start at once: `python -m maglev nursery --socket PATH`.

A daemon spends its first half second on imports, and on loading compiled code. A lab starts a dozen daemons together;
so it has one process do that once, and fork for each. A fork shares its parent's memory until it writes to it, which
saves a hundred megabytes a daemon as well. Machines of their own have no use for this.

An order comes as one packet on a Unix socket: a JSON document with `arguments` (of `python -m maglev`) and
`environment`, and with it descriptors: the network and the mount namespace to live in, and the file to log to. The
answer is the new process's number. Namespaces are entered before anything else is done.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LARGEST_ORDER_BYTES = 1 << 16
DESCRIPTORS = 3  # network namespace, mount namespace, log
LIBC = ctypes.CDLL(None, use_errno=True)


def run(path: Path) -> None:
    """Serves orders until a signal ends it. The socket is there when it is ready, and not before."""
    _prepare()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps: nobody here wants to know how a daemon ended
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        unfinished = path.with_suffix(".part")
        server.bind(str(unfinished))
        unfinished.chmod(0o600)
        server.listen(64)
        unfinished.rename(path)
        while True:
            client, _ = server.accept()
            with client, contextlib.suppress(ConnectionError):
                _serve(server, client)


def _prepare() -> None:
    """Imports what daemons need, and loads what is compiled."""
    from . import endpoint, forwarder  # noqa: F401
    from .engine.rehearsal import rehearse

    rehearse()
    gc.collect()
    gc.freeze()  # so that collecting garbage does not write to the memory that forks share


def _serve(server: socket.socket, client: socket.socket) -> None:
    order, descriptors = _receive(client)
    child = os.fork()
    if child == 0:
        server.close()
        client.close()
        _become(order, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    client.send(str(child).encode())


def _receive(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    descriptors = array.array("i")
    message, ancillary, _, _ = client.recvmsg(
        LARGEST_ORDER_BYTES, socket.CMSG_SPACE(DESCRIPTORS * descriptors.itemsize)
    )
    for _, _, content in ancillary:
        descriptors.frombytes(content)
    return json.loads(message), list(descriptors)


def _become(order: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Turns this fork into the daemon that was ordered; never returns."""
    status = 1
    try:
        _settle(order["environment"], *descriptors)
        from .__main__ import main

        status = main(order["arguments"])
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:  # what would end any other program with a traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _settle(environment: dict[str, str], network: int, mounts: int, log: int) -> None:
    """Moves into the namespaces, a session of its own and the log."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    for namespace in (network, mounts):
        if LIBC.setns(namespace, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"cannot enter a namespace: {os.strerror(code)}")
    for descriptor in (nothing, network, mounts, log):
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
