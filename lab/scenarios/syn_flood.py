"""A flood of SYNs would fill the connection tables: a limit on new flows keeps room for those that are meant.

While the tables are full, connections are not recorded, and hang on the lookup table alone: an endpoint that joins
takes a share of them with it.
"""

from lab import verify

PROTECTION = "limits"
CAPACITY = 1500  # entries of a connection table
LIMIT_PER_S = 100  # new flows that each Maglev takes for the flooded VIP


def small_tables_and_a_limit(document):
    document["forwarder"]["connection_table"]["capacity"] = CAPACITY
    next(vip for vip in document["vips"] if vip["name"] == "www")["new_flows_per_s"] = LIMIT_PER_S


def scenario(run, connections=200, rate_pps=3000, seconds=3):
    with run.lab("rack", maglevs=3, endpoints=5, configure=small_tables_and_a_limit) as lab:
        with lab.drain("s5"):
            with lab.traffic.syn_flood("www", rate_pps=rate_pps, seconds=seconds, seed=run.seed) as flood:
                flood.wait()
            held = lab.connections(connections)
        with held:
            lab.wait_converged()
            held.wait_settled()
            run.expect(verify.connections_persist(held.all()))
