"""All Maglevs are restarted, one after another, under traffic: each leaves before it stops, and nobody notices."""

from lab import verify

PROTECTION = "drain"


def scenario(run, connections=300, rate_pps=500):
    with run.lab("rack", maglevs=3, endpoints=4) as lab, lab.connections(connections) as held:
        with lab.traffic.datagrams(flows=60, rate_pps=rate_pps, seconds=120) as datagrams:
            for maglev in lab.maglevs:
                with run.leave(lab, maglev):
                    lab.wait_converged()
                lab.wait_converged()
            held.wait_settled()
            datagrams.stop()
        run.expect(verify.connections_persist(held.all()), verify.nothing_lost(datagrams.report()))
