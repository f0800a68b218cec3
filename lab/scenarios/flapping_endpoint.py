"""An endpoint comes and goes: its own connections die each time, and nobody else's.

Each time it returns, it takes slots of the lookup table back, on which others have been given connections meanwhile.
"""

from lab import verify

PROTECTION = "connection-table"


def scenario(run, connections=60, times=3):
    with run.lab("rack", maglevs=3, endpoints=4) as lab, lab.connections(connections) as held:
        for _ in range(times):
            with lab.kill("s1"):
                lab.wait_converged()
                held.open(connections)
            lab.wait_converged()
            held.wait_settled()
        run.expect(verify.only_the_doomed_died(held.all(), {"s1"}, all_of_them=False))
        run.expect(verify.maglevs_choose_alike(lab.snapshot()))
