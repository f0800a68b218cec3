"""Faults at random: whatever breaks had to, and theory says why. For each that breaks, another is opened.

maglab run chaos --set faults=30 --set seconds=300 --set connections=500
"""

from lab import verify

PROTECTION = "connection-table"


def scenario(run, faults=8, seconds=40, connections=200):
    with run.lab("rack", maglevs=3, endpoints=5) as lab:
        as_if = run.protected("rack", maglevs=3, endpoints=5).config
        with lab.connections(connections, replaces=True) as held:
            lab.chaos(faults, seconds, run.seed).wait()
            lab.wait_converged()
            held.wait_settled()
            run.expect(lab.explain(held.all(), as_if=as_if))
        lab.wait_converged()  # once more: a probe that was under way when a short fault ended may fail after it
        run.expect(verify.maglevs_choose_alike(lab.snapshot()))
