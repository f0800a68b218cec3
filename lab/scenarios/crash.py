"""One Maglev after another crashes: what the others know is enough for nearly all.

First nothing else has changed, and no connection breaks. Then an endpoint has joined since they were opened: the
Maglevs' memory of that goes with them, and only the connections break on whose slots of the lookup table it now stands.
"""

from lab import verify

PROTECTION = "maglev-hashing"


def scenario(run, connections=300):
    with run.lab("rack", maglevs=2, endpoints=5) as lab:
        with lab.connections(connections) as held:
            crash_all(lab, held)
            run.expect(verify.connections_persist(held.all()))
        after = verify.weights_of(lab.config, "web")
        with lab.drain("s5"):
            before = verify.weights_of(lab.config, "web")
            held = lab.connections(connections)
        with held:
            lab.wait_converged()
            lived = held.all()
            crash_all(lab, held)
            theory = verify.change(before, after, lab.config.forwarder.table_size)
            run.expect(verify.disruption_within_theory(lived, held.all(), theory))


def crash_all(lab, held):
    for maglev in lab.maglevs:
        with lab.kill(maglev):
            lab.wait_converged()
            held.wait_settled()
        lab.wait_converged()
    held.wait_settled()
