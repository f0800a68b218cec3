"""Goes through all compiled code once, on packets that are none: afterwards nobody waits for the compiler.

Set-up does it so that the machine code is there before the first forwarder starts; a nursery does it so that the code
is loaded in the process that forwarders are forked from.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numba.core import config

from .. import kept
from ..fast.conntrack import FastConnectionTable
from ..fast.forwarder import FastForwarder
from ..fast.gre import Headers
from ..fast.numbering import Numbering
from ..fast.vips import FastMap
from ..flow import Flow, pack_address
from ..hashing import lookup_table
from ..vips import EMPTY
from . import ring, xdp
from .af_xdp import empty_xsk
from .packet_thread import STOP, Directory, PacketThread

MAGLEV, NOBODY = pack_address("192.0.2.1"), bytes(16)


def rehearse() -> None:
    """Compiles, or loads, whatever a forwarder will run."""
    lookup_table(["a", "b"], 13)
    FastForwarder(MAGLEV, capacity=1, idle_timeout_s=1.0).decide(b"", 0.0)
    numbering = Numbering()
    table = FastConnectionTable(numbering, capacity=1)
    table.record(Flow(NOBODY, NOBODY, 0, 0, 0), NOBODY, 0.0)
    table.lookup(Flow(NOBODY, NOBODY, 0, 0, 0), 0.0)
    table.by_backend(0.0, 1.0)
    nudge = os.eventfd(0)
    thread = PacketThread(0, table, nudge)
    no_headers = Headers(np.zeros(0, np.uint8), np.zeros((0, 2), np.int64))
    thread.publish(Directory(FastMap(EMPTY, numbering), no_headers, mtu_bytes=0, budgets=[np.zeros((0, 2))]))
    list(thread.rare_frames())
    thread.desk.mailbox[STOP] = 1
    ring.work(ring.new_ring(np.zeros(64, np.uint8), 64, -1, -1, -1, False), thread.desk)
    xdp.work(*empty_xsk(), thread.desk)
    thread.close()
    os.close(nudge)


if __name__ == "__main__":
    rehearse()
    place = Path(config.CACHE_DIR)
    kept.mark_whole(place)
    kept.forget_others(place)
