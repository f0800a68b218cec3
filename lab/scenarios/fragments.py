"""Datagrams of 8,000 bytes come in pieces, by way of several Maglevs, and arrive whole.

Only the first piece has ports, and the router sends each wherever it happens to. Whoever gets a piece sends it to the
Maglev that owns the datagram. Where each keeps what it gets, later pieces wait in vain for a first that went elsewhere.
"""

from lab import verify

PROTECTION = "fragment-owners"


def scenario(run, rate_pps=60, seconds=4):
    with run.lab("rack", maglevs=3, endpoints=4) as lab:
        if not run.protects("fragment-owners"):
            for maglev in lab.maglevs:
                own = [each for each in lab.document["maglevs"] if each["name"] == maglev]
                lab.push(maglev, {**lab.document, "maglevs": own})
        lab.spray_fragments("r1")
        with lab.traffic.datagrams(flows=24, rate_pps=rate_pps, seconds=seconds, size_bytes=8000) as datagrams:
            datagrams.wait()
        run.expect(verify.nothing_lost(datagrams.report()))
