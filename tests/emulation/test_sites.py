"""Sites on Earth and a name server: clients come to their own site, load moves new ones, a dead site is out, anycast.

Lookups are DNS over UDP from the clients' own networks, a thousand at a time, read by dnslib; `dig`, curl and the C
library's resolver ask as well.
"""

from __future__ import annotations

import contextlib
import math
import random
import re
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from subprocess import STDOUT

import pytest
from commands import read_until, started
from dnslib import EDNS0, QTYPE, DNSRecord, EDNSOption
from wires import curl, open_on, status

from lab import observe
from lab.waiting import POLL_S, wait_until

TTL_S, SPILL_FROM, FULL_AT, CAPACITY_PPS = 2, 0.4, 1.2, 500
pytestmark = pytest.mark.topology(
    "sites", sites=3, ttl_s=TTL_S, spill_from=SPILL_FROM, full_at=FULL_AT, capacity_pps=CAPACITY_PPS
)  # fmt: skip

NAMESERVER = "10.3.1.2"
VIPS = {"zurich": "192.0.2.17", "new-york": "192.0.2.33", "tokyo": "192.0.2.49", "anycast": "192.0.2.1"}
VIPS6 = {"zurich": "2001:db8::1:1", "new-york": "2001:db8::2:1", "tokyo": "2001:db8::3:1"}
SITE_OF = {vip: site for vips in (VIPS, VIPS6) for site, vip in vips.items()}
MAGLEVS = {"zurich": ("m1", "m2"), "new-york": ("m3", "m4"), "tokyo": ("m5", "m6")}
ENDPOINTS = {"zurich": {"s1", "s2"}, "new-york": {"s3", "s4"}, "tokyo": {"s5", "s6"}}
# Clients are in Zurich, New York, Tokyo, Sydney, Nairobi, Sao Paulo; whoever looks at a globe sees the nearest site.
NEAREST = {"c1": "zurich", "c2": "new-york", "c3": "tokyo", "c4": "tokyo", "c5": "zurich", "c6": "new-york"}
LOOKUPS = 1000
CHECK_TIME_S = 2 * (0.5 + 0.5)  # two probes must fail, half a second apart, each after half a second at most
PATIENCE_S = 15.0
HELD = 30
FEW = 10  # whose openings, all at once, are no load yet that has others spill over


class Asker:
    """Asks the name server from a client's network, for a name's addresses, one query after another."""

    def __init__(self, lab, client: str) -> None:
        self._socket = open_on(lab.node(client), socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((NAMESERVER, 53))
        self._dice = random.Random(client)
        self.ttls_s: set[int] = set()

    def __call__(self, name: str = "www", kind: str = "A", subnet: str = "") -> str:
        """Returns the site whose VIP is the answer; "" for an answer without an address."""
        query = DNSRecord.question(f"{name}.lab.example", kind)
        query.header.id = self._dice.randrange(1 << 16)
        if subnet:
            query.add_ar(EDNS0(opts=[client_subnet(subnet)]))
        self._socket.send(bytes(query.pack()))
        assert select.select([self._socket], [], [], 2.0)[0], "the name server should have answered within 2 s"
        answer = DNSRecord.parse(self._socket.recv(4096))
        assert answer.header.id == query.header.id
        self.ttls_s |= {record.ttl for record in answer.rr}
        found = [str(record.rdata) for record in answer.rr if record.rtype == getattr(QTYPE, kind)]
        return SITE_OF[found[0]] if found else ""

    def count(self, lookups: int = LOOKUPS, **query: str) -> Counter[str]:
        """Returns how often each site was the answer."""
        return Counter(self(**query) for _ in range(lookups))


def client_subnet(prefix: str) -> EDNSOption:
    """Returns RFC 7871's option for an IPv4 prefix of whole bytes."""
    network = ip_network(prefix)
    address = network.network_address.packed[: network.prefixlen // 8]
    return EDNSOption(8, bytes([0, 1, network.prefixlen, 0]) + address)


def load_of(lab, site):
    """A site's load as the name server knows it; NaN as long as it does not."""
    return status(lab, "ns1")["loads"].get(site, math.nan)


def wait_load(lab, site, least, most):
    """Waits until a site's load is in a range."""

    def missing() -> str:
        load = load_of(lab, site)
        return "" if least <= load <= most else f"{site} has a load of {load:.2f}"

    wait_until(missing, PATIENCE_S, f"a load from {least:g} to {most:g}", poll_s=0.1)


# Location


@pytest.mark.parametrize("client", NEAREST)
def test_a_thousand_lookups_from_a_place_get_the_nearest_site(lab, client):
    ask = Asker(lab, client)
    counts = ask.count()
    assert counts[NEAREST[client]] >= 0.95 * LOOKUPS, counts
    assert ask.ttls_s == {TTL_S}
    assert ask.count(50, kind="AAAA") == {NEAREST[client]: 50}


def test_a_query_may_say_whose_it_is(lab):
    """A resolver in Zurich asks for clients elsewhere (EDNS client subnet), and for one that nobody can place."""
    ask = Asker(lab, "c1")
    for number, nearest in enumerate(NEAREST.values(), 1):
        assert ask.count(50, subnet=f"10.0.{number}.0/24") == {nearest: 50}
    spread = ask.count(300, subnet="203.0.113.0/24")
    assert set(spread) == {"zurich", "new-york", "tokyo"}, f"nowhere is near to everywhere: {spread}"


def test_dig_and_an_ordinary_resolver_find_the_site(lab):
    def dig(client, arguments):
        return lab.run(client, f"dig +tries=2 +time=2 {arguments}").stdout

    for client in ("c3", "c6"):
        site = NEAREST[client]
        for transport in ("+notcp", "+tcp"):
            assert dig(client, f"+short {transport} www.lab.example A").split() == [VIPS[site]]
            assert dig(client, f"+short {transport} www.lab.example AAAA").split() == [VIPS6[site]]
        found = {line.split()[0] for line in lab.run(client, "getent ahosts www").stdout.splitlines()}
        assert found == {VIPS[site], VIPS6[site]}
        assert curl(lab, "http://www.lab.example/", client=client).split()[0] in ENDPOINTS[site]
    assert "CLIENT-SUBNET: 10.0.2.0/24/24" in dig("c1", "+subnet=10.0.2.0/24 www.lab.example")
    asked = {"www.lab.example MX": "NOERROR", "nobody.lab.example": "NXDOMAIN", "www.example.com": "REFUSED",
             "+opcode=NOTIFY lab.example SOA": "NOTIMP", "+ednsopt=8:00 www.lab.example": "FORMERR"}  # fmt: skip
    for query, code in asked.items():
        assert f"status: {code}" in dig("c1", query), query


# Load


@dataclass
class Share:
    """What lookups got while a site was loaded, and what the configured policy makes of its load meanwhile."""

    counts: Counter[str]
    expected: float  # the site's share of its own clients, as configured, on average
    unsure: float  # by so much that may have been otherwise, since load goes on changing

    @property
    def own(self) -> float:
        return self.counts["zurich"] / self.counts.total()


def own_share(load: float) -> float:
    """What a site with a load should keep of its clients: all up to SPILL_FROM, none from FULL_AT on, else in line."""
    return min(1.0, max(0.0, (FULL_AT - load) / (FULL_AT - SPILL_FROM)))


def measured(lab, batches: int = 20) -> Share:
    """Looks up from Zurich, and before and after each batch at what load the name server sees there."""
    ask, counts, expected, unsure = Asker(lab, "c1"), Counter[str](), 0.0, 0.0
    for _ in range(batches):
        before = own_share(load_of(lab, "zurich"))
        counts += ask.count(LOOKUPS // batches)
        after = own_share(load_of(lab, "zurich"))
        expected += (before + after) / 2 / batches
        unsure += abs(before - after) / 2 / batches
    return Share(counts, expected, unsure)


@contextlib.contextmanager
def loaded(lab, load: float) -> Iterator[None]:
    """Has real datagrams come to Zurich, so many that it has a load."""
    rate_pps, seconds = load * CAPACITY_PPS, 2 * PATIENCE_S
    with lab.traffic.datagrams("datagrams", flows=40, rate_pps=rate_pps, seconds=seconds, clients=["c5"]):
        yield


def test_load_moves_new_clients_as_configured_and_leaves_old_connections_alone(lab):
    wait_load(lab, "zurich", 0.0, SPILL_FROM - 0.1)
    with lab.connections(HELD, vip="echo", interval_s=1.0) as old:
        for load in (0.65, 1.4):
            with loaded(lab, load):
                wait_load(lab, "zurich", load - 0.1, load + 0.35)  # probes and connections are load as well
                share = measured(lab)
            print(f"load about {load}: {share}")
            error = 5 * math.sqrt(share.expected * (1 - share.expected) / LOOKUPS) + share.unsure
            assert abs(share.own - share.expected) <= error, share
            if load > FULL_AT:
                assert share.counts["new-york"] > 0.95 * LOOKUPS, f"all should go to the next nearest: {share}"
            else:
                assert 0.15 < share.own < 0.85, f"the test is void: {share}"
                assert share.counts["tokyo"] == 0, "who finds no room goes to the next nearest site, which has some"
        assert Asker(lab, "c2").count(100) == {"new-york": 100}, "others' clients should not notice"
        wait_load(lab, "zurich", 0.0, SPILL_FROM - 0.1)
        assert Asker(lab, "c1").count(100) == {"zurich": 100}, "the site should have its clients back"
        old.wait_settled()
        assert old.broken == 0, old.report()


# Death


@dataclass
class CachingClient:
    """Keeps an answer for its TTL, as resolvers do, then asks anew."""

    ask: Asker
    site: str = ""
    good_until: float = 0.0

    def look(self, now: float) -> str:
        if now >= self.good_until:
            self.site, self.good_until = self.ask(), now + TTL_S
        return self.site


def last_seen(ask: Asker, keeper: CachingClient, until: float) -> tuple[dict[str, float], dict[str, float]]:
    """Returns when each site was last handed out, and when last used by the one who keeps answers (monotonic time)."""
    handed, used = dict[str, float](), dict[str, float]()
    while (now := time.monotonic()) < until:
        handed[ask()] = used[keeper.look(now)] = now
        time.sleep(POLL_S)
    return handed, used


@contextlib.contextmanager
def dead(lab, site) -> Iterator[float]:
    """Kills all Maglevs of a site; says when the last one died."""
    with contextlib.ExitStack() as undo:
        for maglev in MAGLEVS[site]:
            undo.enter_context(lab.kill(maglev))
        yield time.monotonic()
    lab.wait_converged()


def test_a_dead_site_is_out_within_the_ttl_and_others_connections_go_on(lab):
    quiet = {"interval_s": 1.0}  # or connections would be load
    with lab.connections(FEW, "new-york-echo", **quiet) as one, lab.connections(FEW, "tokyo-echo", **quiet) as other:
        keeper = CachingClient(Asker(lab, "c1"))
        assert keeper.look(time.monotonic()) == "zurich"
        with dead(lab, "zurich") as died:
            handed, used = last_seen(Asker(lab, "c1"), keeper, died + CHECK_TIME_S + TTL_S + 0.5)
            print(f"handed out for {handed['zurich'] - died:.2f} s more, used for {used['zurich'] - died:.2f} s more")
            assert set(handed) == {"zurich", "new-york"}, "the next nearest site should take over"
            assert handed["zurich"] <= died + CHECK_TIME_S, "it was handed out for longer than checks take"
            assert used["zurich"] <= died + TTL_S + 0.1, "who knew it when it died should be rid of it within the TTL"
            assert Asker(lab, "c1").count(200) == {"new-york": 200}
            assert curl(lab, "http://www/").split()[0] in ENDPOINTS["new-york"]
            assert VIPS["zurich"] not in observe.ecmp(lab.node("r0"))
            one.wait_settled(), other.wait_settled()
        assert (one.broken, other.broken) == (0, 0), f"{one.report()}\n{other.report()}"
    assert Asker(lab, "c1").count(100) == {"zurich": 100}, "the site is back, and should have its clients back"


def test_a_site_that_is_cut_off_is_out_though_its_maglevs_announce(lab):
    with lab.link_down("r0-r3"):
        lab.wait_converged()
        assert Asker(lab, "c3").count(100) == {"zurich": 100}, "Zurich is nearer to Tokyo than New York is"
        assert VIPS["tokyo"] in observe.ecmp(lab.node("r3")), "the test is void: its Maglevs have withdrawn"
    lab.wait_converged()
    assert Asker(lab, "c3").count(100) == {"tokyo": 100}


def test_without_a_name_server_nobody_finds_a_site_and_connections_go_on(lab):
    with lab.connections(HELD, interval_s=1.0) as old:
        with lab.kill("ns1"):
            lab.wait_converged()
            assert lab.run("c1", "dig +tries=1 +time=1 www.lab.example").returncode == 9, "nobody should have answered"
            old.wait_settled()
        lab.wait_converged()
        assert Asker(lab, "c1").count(100) == {"zurich": 100}
        assert old.broken == 0, old.report()


# Anycast


def sites_of(connections) -> Counter[str]:
    """Which site serves each connection that lives."""
    site_of = {endpoint: site for site, endpoints in ENDPOINTS.items() for endpoint in endpoints}
    return Counter(site_of[each.endpoint] for each in connections.all() if not each.is_broken)


def test_one_vip_of_two_sites_goes_on_with_one_of_them(lab):
    assert Asker(lab, "c1")(name="anycast") == "anycast"
    assert observe.ecmp(lab.node("r0"))[VIPS["anycast"]] == ("10.4.1.2", "10.4.2.2")
    with lab.connections(120, vip="anycast-echo") as old:
        old.wait_settled()
        before = sites_of(old)
        assert set(before) == {"zurich", "new-york"}, f"the core should spread flows over both sites: {before}"
        assert min(before.values()) > 30, before
        with dead(lab, "zurich"):
            lab.wait_converged()
            with lab.connections(60, vip="anycast-echo") as new:
                new.wait_settled()
                assert (sites_of(new), new.broken) == ({"new-york": 60}, 0), new.report()
            served = [each for each in old.all() if each.endpoint in ENDPOINTS["new-york"]]
            assert len(served) == before["new-york"]
            assert [each for each in served if each.is_broken] == [], old.report()
    with lab.connections(60, vip="anycast-echo") as again:
        again.wait_settled()
        assert set(sites_of(again)) == {"zurich", "new-york"}, "both should serve again"


def test_sites_run_under_plain_mininet():
    """Pages are asked for by name, until the nearest site has them; the lab of the other tests runs beside it."""
    topology = "sites,sites=2,maglevs=1,endpoints=1,clients=2"
    with started(["mn", "--custom", "topologies/sites.py", "--topo", topology], stderr=STDOUT) as console:
        read_until(console, "Starting CLI")
        page = "curl -4 -s --max-time 2 http://www/"
        asked = "".join(f"{c} for i in `seq 100`; do {page} | grep ^{s} && break; sleep 0.2; done\n"
                        for c, s in (("c1", "s1"), ("c2", "s2")))  # fmt: skip
        answer, _ = console.communicate(f"{asked}exit\n", timeout=120)
    assert console.returncode == 0, answer
    assert re.findall(r"s\d answers \S+", answer) == ["s1 answers 10.0.1.2", "s2 answers 10.0.2.2"], answer
