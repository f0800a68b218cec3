"""An endpoint answers its health checks, and swallows its clients' packets: only a check by their way finds out."""

from lab import verify

PROTECTION = "vip-checks"


def by_the_clients_way(document):
    document["pools"]["web"]["health_check"]["through"] = "vip"


def scenario(run, connections=80):
    with run.lab("rack", maglevs=2, endpoints=4, configure=by_the_clients_way) as lab:
        with lab.kill("s1", "endpoint"):
            lab.wait_converged()
            with lab.connections(connections) as held:
                held.wait_settled()
                run.expect(verify.connections_persist(held.all()))
        lab.wait_converged()
