"""The Maglevs have different configurations for a while: each keeps what it has begun, and the difference is seen.

One has taken a new configuration, the others have not. While routers leave flows where they are, connection tables do,
too.
"""

import copy

from lab import verify

PROTECTION = "connection-table"


def scenario(run, connections=300):
    with run.lab("rack", maglevs=3, endpoints=5) as lab, lab.connections(connections) as held:
        with lab.misconfigure():
            held.wait_settled()
            run.expect(verify.connections_persist(held.all()))
        new = copy.deepcopy(lab.document)
        new["pools"]["web"]["endpoints"][4]["weight"] = 0
        lab.push("m1", new)
        alike = verify.maglevs_choose_alike(lab.snapshot())
        run.expect(verify.noticed(alike, "a Maglev that chooses unlike the others is noticed"))
        for maglev in lab.maglevs[1:]:
            lab.push(maglev, new)
        run.expect(verify.maglevs_choose_alike(lab.snapshot()))
        held.wait_settled()
        run.expect(verify.connections_persist(held.all()))
