"""An endpoint joins and a Maglev crashes at the same moment: no more break than have lost both memory and slot.

The connection table covers the one change, consistent hashing the other; together they cover all connections but those
that the crash moves to another Maglev, and of them only those on whose slots the new endpoint stands.
"""

from dataclasses import replace

from lab import verify
from maglev.ecmp import threshold_moves

PROTECTION = "connection-table"


def scenario(run, connections=300):
    with run.lab("rack", maglevs=3, endpoints=5) as lab:
        after = verify.weights_of(lab.config, "web")
        joins = lab.drain("s5")
        before = verify.weights_of(lab.config, "web")
        with lab.connections(connections) as held:
            lived = held.all()
            joins.undo()
            with lab.kill("m2"):
                lab.wait_converged()
                held.wait_settled()
            theory = verify.change(before, after, lab.config.forwarder.table_size)
            moves = threshold_moves(lab.maglevs, ["m1", "m3"])
            theory = replace(theory, moved=round(theory.moved * moves))
            run.expect(verify.disruption_within_theory(lived, held.all(), theory))
