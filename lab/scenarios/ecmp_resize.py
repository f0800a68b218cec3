"""Next hops come and go at the router: flows land at Maglevs that have never seen them, and the hash finds their way.

An endpoint has joined since the connections began, so that the hash is all that a moved flow has.
"""

from lab import verify

PROTECTION = "maglev-hashing"


def scenario(run, connections=300):
    with run.lab("rack", maglevs=3, endpoints=5) as lab:
        after = verify.weights_of(lab.config, "web")
        with lab.drain("s5"):
            before = verify.weights_of(lab.config, "web")
            held = lab.connections(connections)
        with held:
            lab.wait_converged()
            lived = held.all()
            for maglev in lab.maglevs:
                with lab.remove_next_hop("r1", maglev):
                    lab.wait_converged()
                    held.wait_settled()
                lab.wait_converged()
            held.wait_settled()
            theory = verify.change(before, after, lab.config.forwarder.table_size)
            run.expect(verify.disruption_within_theory(lived, held.all(), theory))
            run.expect(verify.direct_server_return(lab.snapshot()))
