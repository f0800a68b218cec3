"""What the demo claims, one by one, on a rack: who dies, who must not, and who notices how."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=5)

CONNECTIONS = 300
HOLD_TIME_S = 3.0  # whoever notices a crash sooner did not wait for BGP's hold timer


def test_a_killed_maglev_breaks_no_connection(lab):
    with lab.connections(CONNECTIONS) as conns:
        lab.kill("m1")
        converged_s = lab.wait_converged()
        conns.wait_settled()
        assert conns.broken == 0, conns.report()
    assert converged_s < HOLD_TIME_S, "the router waited for the hold timer instead of noticing the closed session"
