"""What tests of many topologies do: wait until all has followed, see how packets went, leave a lab as they found it."""

from __future__ import annotations

import contextlib
import copy

from lab import verify


def settle(lab, conns):
    """Waits until the lab has converged and every connection has spoken since; returns seconds to convergence."""
    converged_s = lab.wait_converged()
    conns.wait_settled()
    return converged_s


def expect_even_and_direct(lab, count):
    """Fails unless `count` connections' flows are spread evenly over the Maglevs, and no answer passes one."""
    before = lab.snapshot()
    with lab.connections(count) as conns:
        conns.wait_settled()
        after = lab.snapshot()
    for verdict in (verify.ecmp_balanced(before, after), verify.direct_server_return(after, before)):
        assert verdict, verdict


@contextlib.contextmanager
def as_configured(lab):
    """Lets the lab's own configuration count again at the end, whatever has been made of its document meanwhile."""
    before = copy.deepcopy(lab.document)
    try:
        yield
    finally:
        lab.document.clear()
        lab.document.update(before)
        lab.reload()
