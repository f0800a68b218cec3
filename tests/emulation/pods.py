"""What every pod must show, whatever its routers run."""

from __future__ import annotations

from settling import settle
from wires import VIP, VIP6

from lab import verify

SOONER_THAN_BGP_S = 2.5  # its hold timer would take 3


def expect_all_paths(lab):
    """Fails unless every tier spreads both families over all that it is wired to."""
    snapshot = lab.snapshot()
    reached = {
        name: {vip: {snapshot.names[hop] for hop in view.ecmp[vip]} for vip in (VIP, VIP6)}
        for name, view in snapshot.routers.items()
    }
    wanted = {
        "isp1": {"edge1", "edge2"}, "edge1": {"spine1", "spine2"}, "spine2": {"leaf1", "leaf2"},
        "leaf1": {"m1", "m2"}, "leaf2": {"m3", "m4"}, "leaf4": {"spine1", "spine2"},
    }  # fmt: skip
    assert {name: reached[name] for name in wanted} == {name: {VIP: hops, VIP6: hops} for name, hops in wanted.items()}
    assert {state for view in snapshot.routers.values() for state in view.sessions.values()} == {"Established"}


def expect_watched(lab, sessions):
    """Fails unless BFD watches exactly the sessions between routers, from the start and when a router comes back.

    `sessions` says what a router's console says of its BFD sessions: by the neighbour's address, whether it is up.
    Whoever is lost when the lab has converged is then noticed: nothing is waited for here.
    """
    expect_watched_now(lab, sessions)
    with lab.power_off("spine2"):
        lab.wait_converged()
    lab.wait_converged()
    expect_watched_now(lab, sessions)


def expect_watched_now(lab, sessions):
    for name in ("isp1", "edge1", "spine1", "spine2", "leaf1"):
        router = lab.node(name)
        wanted = {address for _, other in router.peers() for address in router.addresses_of(other).values()}
        assert sessions(router) == dict.fromkeys(wanted, True), name


def expect_all_survive(lab, count):
    """Fails if a dead Maglev or a drained endpoint breaks one of `count` connections, or answers pass a Maglev."""
    before = lab.snapshot()
    with lab.connections(count) as conns:
        for fault, node in ((lab.kill, "m1"), (lab.drain, "s4")):
            with fault(node):
                settle(lab, conns)
            settle(lab, conns)
        persist = verify.connections_persist(conns.all())
    assert persist, persist
    direct = verify.direct_server_return(lab.snapshot(), before)
    assert direct, direct
