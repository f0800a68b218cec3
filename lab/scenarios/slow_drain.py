"""An endpoint is drained before it is switched off: it ends what it has begun, and begins nothing new."""

from lab import verify

PROTECTION = "drain"


def scenario(run, connections=200, fresh=100):
    with run.lab("rack", maglevs=2, endpoints=4) as lab:
        old = lab.connections(connections)
        with run.leave(lab, "s4"):
            lab.wait_converged()
            with lab.connections(fresh) as new:
                old.wait_settled()
                new.wait_settled()
                run.expect(verify.connections_persist([*old.all(), *new.all()]))
                run.expect(verify.avoided(new.all(), "s4"))
                if run.protects("drain"):
                    old.close()  # the slow end of a drain: what has been begun comes to its end, and only then …
                    with lab.kill("s4"):
                        lab.wait_converged()
                        new.wait_settled()
                        run.expect(verify.connections_persist(new.all()))
        lab.wait_converged()
