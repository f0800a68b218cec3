"""Routers with resilient next hops: a Maglev that leaves moves its own flows, and no others.

The plain hash threshold shifts the intervals of all that come behind, and moves half of all flows.
"""

from lab import verify, ways
from maglev.ecmp import expected_moves

PROTECTION = "resilient-next-hops"
BUCKETS = 128


def scenario(run, connections=400):
    ecmp = "resilient" if run.protects("resilient-next-hops") else "threshold"
    with run.lab("resilient", maglevs=4, endpoints=4, ecmp=ecmp, buckets=BUCKETS) as lab:
        share = float(expected_moves(lab.maglevs, lab.maglevs[1:], BUCKETS))
        with lab.connections(connections) as held, lab.ways() as record:
            before = record.wait(connections)
            with lab.kill("m1"):
                lab.wait_converged()
                record.forget()
                moved = ways.moved(before, record.wait(connections))
                run.expect(verify.moved_within_theory(moved, connections, share))
            lab.wait_converged()
            held.wait_settled()
            run.expect(verify.connections_persist(held.all()))
