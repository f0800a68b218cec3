"""VIPs of prefix groups (Maglev §4.2): where they are found, what is refused, and that one VIP stays one everywhere."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest
from forwarders import ENDPOINTS, by_hash, compiled, decided, reference, text
from frames import tcp, udp
from hypothesis import given, settings
from hypothesis import strategies as st

from maglev import announcements, config, metrics
from maglev.config_diff import diff, in_words
from maglev.endpoint import vips_of
from maglev.errors import ConfigError, Reason
from maglev.flow import pack_address
from maglev.forwarding import Statistics
from maglev.health import Plan
from maglev.moving import next_step
from maglev.selection import MapBuilder
from maglev.vips import service_at

GROUPS = {"public": ["192.0.2.0/24", "198.51.100.0/26"], "six": ["2001:db8:1::/48", "2001:db8:2::/64"]}
WWW = {"name": "www", "prefix_group": "public", "suffix": "0.0.0.1", "protocol": "tcp", "port": 80, "pool": "web"}
WWW6 = {**WWW, "name": "www6", "prefix_group": "six", "suffix": "::1"}
BLOCK = {**WWW, "name": "block", "suffix": "0.0.0.16/28", "port": 0}
ALONE = {"name": "alone", "address": "203.0.113.80", "protocol": "tcp", "port": 80, "pool": "web"}
PLACES = ["192.0.2.1", "198.51.100.1"]


def document(vips=(WWW, WWW6, BLOCK, ALONE), groups=GROUPS, check=None):
    return {
        "maglevs": [{"name": "m1", "address": "10.1.1.2"}],
        "pools": {"web": {"endpoints": [{"address": each} for each in ENDPOINTS], "health_check": check}},
        "prefix_groups": groups,
        "vips": list(vips),
        "forwarder": {"table_size": 251},
    }


def parsed(*args, **options):
    return config.parse(json.dumps(document(*args, **options)))


def a_map(*args, **options):
    return MapBuilder().build(parsed(*args, **options), "default", lambda member: True)


def test_a_vip_of_a_group_is_served_in_each_of_its_prefixes():
    found = {(vip.name, vip.shown) for vip in parsed().vips_of("default")}
    expected = {
        *(("www", address) for address in PLACES),
        *(("www6", address) for address in ("2001:db8:1::1", "2001:db8:2::1")),
        *(("block", block) for block in ("192.0.2.16/28", "198.51.100.16/28")),
        ("alone", "203.0.113.80"),
    }
    assert found == expected


def test_what_is_announced_and_what_endpoints_hold_are_all_places():
    served = parsed()
    status = {"ready": True, "draining": False, "vips": sorted({vip.shown for vip in served.vips_of("default")})}
    routes = announcements.wanted(status)
    assert {str(route) for route in routes} == {
        "192.0.2.1/32", "198.51.100.1/32", "2001:db8:1::1/128", "2001:db8:2::1/128", "192.0.2.16/28",
        "198.51.100.16/28", "203.0.113.80/32",
    }  # fmt: skip
    assert set(vips_of(served, [ip_address(ENDPOINTS[0])])) == set(routes), "endpoints should hold what is announced"


def test_a_check_through_the_data_path_is_one_for_each_place():
    """An endpoint may have lost one of its addresses, and not the others."""
    check = {"type": "tcp", "port": 80, "through": "vip"}
    served = parsed(vips=[WWW], check=check)
    through = {(str(each.address), str(each.vip)) for each in Plan(served, served.maglevs[0]).checks}
    assert through == {(endpoint, place) for endpoint in ENDPOINTS for place in PLACES}


def test_the_configuration_that_is_served_can_be_given_back():
    served = parsed()
    said = served.model_dump(mode="json", exclude_none=True)  # as GET /config answers
    assert config.parse(json.dumps(said)) == served
    assert [vip["name"] for vip in said["vips"]] == ["www", "www6", "block", "alone"], "each as it was written"


# --- matching --------------------------------------------------------------------------------------------------------


def by_the_paper(groups, vips, address):
    """The VIP of an address by the paper's rule, bit by bit: the longest prefix, then the longest suffix in its group.

    An address without group is a prefix as long as an address, and is followed by nothing.
    """
    address, best = ip_address(address), None
    for vip in vips:
        for prefix in map(ip_network, groups[vip["prefix_group"]] if "prefix_group" in vip else [vip["address"]]):
            suffix = ip_network(vip.get("suffix", "0.0.0.0/32"))
            low = int(address) & int(prefix.hostmask)
            if address not in prefix or (low ^ int(suffix.network_address)) & int(suffix.netmask) & int(
                prefix.hostmask
            ):
                continue
            candidate = prefix.prefixlen, suffix.prefixlen, vip["name"]
            best = max(best or candidate, candidate)
    in_any = [p for listed in groups.values() for p in map(ip_network, listed) if address in p]
    longest = max((prefix.prefixlen for prefix in in_any), default=0)
    return best[2] if best and best[0] >= longest else None


# Prefixes that do not overlap, of several lengths, next to each other.
PREFIXES = ["192.0.2.0/26", "192.0.2.64/27", "192.0.2.96/28", "192.0.2.112/28", "192.0.2.128/25"]
SUFFIXES = ["0.0.0.0", "0.0.0.1", "0.0.0.5", "0.0.0.9", "0.0.0.8/29", "0.0.0.0/28", "0.0.0.0/30"]
PLAIN = ["192.0.2.1", "192.0.2.70", "192.0.2.200"]


@st.composite
def sites(draw):
    """Groups of prefixes, VIPs in them, and VIPs with addresses of their own; no two at one place."""
    prefixes = draw(st.permutations(PREFIXES))
    cut = draw(st.integers(1, len(prefixes) - 1))
    groups = {"one": prefixes[:cut], "other": prefixes[cut:]}
    wanted = [
        {"prefix_group": group, "suffix": suffix}
        for group in groups
        for suffix in draw(st.sets(st.sampled_from(SUFFIXES)))
    ]
    taken = {
        str(ip_network(p)[int(ip_address(w["suffix"]))])
        for w in wanted
        if "/" not in w["suffix"]
        for p in groups[w["prefix_group"]]
    }
    wanted += [{"address": address} for address in draw(st.sets(st.sampled_from(PLAIN))) if address not in taken]
    vips = [{**where, "name": f"v{i}", "protocol": "tcp", "port": 80, "pool": "web"} for i, where in enumerate(wanted)]
    return groups, vips


@settings(deadline=None, max_examples=60)
@given(sites())
def test_each_address_meets_the_vip_that_the_papers_rule_names(site):
    groups, vips = site
    services = a_map(vips=vips, groups=groups)
    for address in map(str, ip_network("192.0.2.0/24")):
        ports = services.at(pack_address(address))
        service = service_at(ports, 6, 80) if ports else None
        found, expected = service.name if service else None, by_the_paper(groups, vips, address)
        assert found == expected, f"{address}: should have met {expected}, but met {found}"


MATCHES = [
    ("one prefix", tcp(destination="192.0.2.1"), "www"),
    ("the other", tcp(destination="198.51.100.1"), "www"),
    ("another suffix", tcp(destination="192.0.2.2"), Reason.NOT_VIP),
    ("the suffix behind the shorter prefix's end", tcp(destination="198.51.100.65"), Reason.NOT_VIP),
    ("another protocol", udp(destination="192.0.2.1", dport=80), Reason.NO_VIP_PORT),
    ("a block, its first address", tcp(destination="192.0.2.16", dport=9), "block"),
    ("a block, its last", tcp(destination="198.51.100.31", dport=9), "block"),
    ("behind the block", tcp(destination="198.51.100.32", dport=9), Reason.NOT_VIP),
]


@pytest.mark.parametrize(("name", "raw", "expected"), MATCHES, ids=[case[0] for case in MATCHES])
def test_packets_to_each_prefix_are_forwarded_for_one_vip(new_forwarder, name, raw, expected):
    decision = new_forwarder(a_map()).decide(raw, 0.0)
    found = decision.reason or decision.vip
    assert found == expected, f"{name}: should have been {expected}, but was {decided(decision)}"
    if expected == "www":
        assert text(decision.endpoint) == by_hash(raw, a_map())


def test_a_limit_on_new_flows_is_one_for_all_prefixes(new_forwarder):
    subject = new_forwarder(a_map(vips=[{**WWW, "new_flows_per_s": 3}]))
    frames = [tcp(sport=2000 + number, destination=PLACES[number % 2]) for number in range(8)]
    reasons = [subject.decide(raw, 0.0).reason for raw in frames]
    assert reasons == [None] * 3 + [Reason.RATE_LIMITED] * 5, f"three should pass, whichever prefix: {reasons}"


@pytest.mark.parametrize("new", [reference, compiled])
def test_what_is_counted_is_counted_for_the_vip(new):
    served, statistics = parsed(vips=[WWW]), Statistics()
    subject = new(a_map(vips=[WWW]))
    for raw in (tcp(sport=port, destination=place) for port in range(2000, 2010) for place in PLACES):
        statistics.count(subject.decide(raw, 0.0))
    assert {vip for vip, _ in statistics.forwarded} == {"www"}
    assert statistics.forwarded.total() == 20
    assert {metrics.pool_names(served, "default")(*key) for key in statistics.forwarded} == {"web"}


# --- a prefix moves --------------------------------------------------------------------------------------------------


def test_taking_over_a_prefix_is_one_change():
    """All VIPs of the group come with it; nothing is said of any of them."""
    wider = {**GROUPS, "public": [*GROUPS["public"], "203.0.113.0/26"]}
    changes = diff(parsed(), parsed(groups=wider))
    assert in_words(changes) == ["prefix group public: prefix 203.0.113.0/26 added"]
    [change] = changes
    assert change.document() == {
        "subject": "prefix group public", "what": "prefix 203.0.113.0/26", "change": "added", "old": None,
        "new": "203.0.113.0/26",
    }  # fmt: skip
    before, after = ({vip.shown for vip in parsed(groups=groups).vips_of("default")} for groups in (GROUPS, wider))
    assert after - before == {"203.0.113.1", "203.0.113.16/28"}
    assert before < after


def test_groups_are_compared_as_what_they_list():
    def words(groups):
        return in_words(diff(parsed(vips=[ALONE]), parsed(vips=[ALONE], groups=groups)))

    assert words({**GROUPS, "public": GROUPS["public"][::-1]}) == [], "the order means nothing"
    assert words({"public": GROUPS["public"]}) == ["prefix group six removed"]
    assert words({**GROUPS, "new": ["203.0.113.0/26"]}) == ["prefix group new added (203.0.113.0/26)"]
    moved = {"public": GROUPS["public"][:1], "six": GROUPS["six"], "new": GROUPS["public"][1:]}
    assert words(moved) == ["prefix group public: prefix 198.51.100.0/26 removed",
                            "prefix group new added (198.51.100.0/26)"]  # fmt: skip
    said = in_words(diff(parsed(vips=[ALONE]), parsed(vips=[ALONE, WWW])))
    assert said == ["vip www added (prefix group public, suffix 0.0.0.1, protocol tcp, port 80, pool web)"]


# --- what is refused -------------------------------------------------------------------------------------------------

A_GROUP = "a list of at least one prefix"
REFUSED = [
    ("no list", [], {"public": "192.0.2.0/24"}, "prefix_groups.public", A_GROUP),
    ("an empty list", [], {"public": []}, "prefix_groups.public", A_GROUP),
    ("no mapping", [], ["192.0.2.0/24"], "prefix_groups", "a mapping from names to lists of prefixes"),
    ("a bad name", [], {"a b": ["192.0.2.0/24"]}, "prefix_groups.a b", "a name: letters"),
    ("an address", [], {"public": ["192.0.2.1"]}, "prefix_groups.public[0]", "a prefix that leaves bits for a suffix"),
    ("a whole address", [], {"public": ["192.0.2.1/32"]}, "prefix_groups.public[0]", "leaves bits for a suffix"),
    ("a number", [], {"public": [5]}, "prefix_groups.public[0]", "leaves bits for a suffix"),
    ("bits behind", [], {"public": ["192.0.2.1/24"]}, "prefix_groups.public[0]", "bits set behind it: 192.0.2.0/24"),
    ("the same twice", [], {"public": ["192.0.2.0/24"] * 2}, "prefix_groups.public[1]",
     "a prefix that overlaps no other; prefix_groups.public[0] has 192.0.2.0/24"),
    ("one in another", [], {"a": ["192.0.2.128/25"], "b": ["192.0.2.0/24"]}, "prefix_groups.a[0]",
     "a prefix that overlaps no other; prefix_groups.b[0] has 192.0.2.0/24"),
    ("an unknown group", [{**WWW, "prefix_group": "pubic"}], GROUPS, "vips[0].prefix_group",
     "the name of a prefix group: public, six"),
    ("an address beside it", [{**WWW, "address": "192.0.2.9"}], GROUPS, "vips[0].prefix_group", "not both"),
    ("no suffix", [{k: v for k, v in WWW.items() if k != "suffix"}], GROUPS, "vips[0].suffix",
     "what follows the prefixes of the group, such as 0.0.0.1 or ::1"),
    ("a suffix without group", [{**ALONE, "suffix": "0.0.0.1"}], GROUPS, "vips[0].suffix", "goes with a prefix_group"),
    ("neither", [{k: v for k, v in ALONE.items() if k != "address"}], GROUPS, "vips[0].address",
     "such as 192.0.2.1 or 192.0.2.0/28, or a prefix_group and a suffix instead (this field is required)"),
    ("an address of null", [{**ALONE, "address": None}], GROUPS, "vips[0].address", "this field is required"),
    ("a suffix that is none", [{**WWW, "suffix": "1"}], GROUPS, "vips[0].suffix", "such as 0.0.0.1 or ::1"),
    ("a suffix too long", [{**WWW, "suffix": "0.0.0.64"}], GROUPS, "vips[0].suffix",
     "a suffix within the 6 bits that 198.51.100.0/26 leaves: from 0.0.0.0 to 0.0.0.63"),
    ("a suffix of the other family", [{**WWW, "suffix": "::1"}], GROUPS, "vips[0].suffix",
     "within the 8 bits that 192.0.2.0/24 leaves"),
    ("a group of both families", [WWW], {"public": ["192.0.2.0/24", "2001:db8::/64"]}, "vips[0].suffix",
     "within the 64 bits that 2001:db8::/64 leaves: from :: to ::ffff:ffff:ffff:ffff"),
    ("a block wider than the prefix", [{**WWW, "suffix": "0.0.0.0/20"}], GROUPS, "vips[0].suffix", "within the 8 bits"),
    ("bits behind a block", [{**WWW, "suffix": "0.0.0.17/28"}], GROUPS, "vips[0].suffix", "bits set behind it"),
    ("a length twice", [{**BLOCK, "prefix_length": 28}], GROUPS, "vips[0]", "a length after the suffix or a prefix"),
    ("two at one place", [WWW, {**WWW, "name": "other"}], GROUPS, "vips[1]", "no other VIP has; vips[0] has this one"),
    ("an address where a suffix is", [WWW, {**ALONE, "address": "198.51.100.1"}], GROUPS, "vips[1]", "no other VIP"),
    ("a prefix among those of a group", [{**ALONE, "address": "192.0.2.64/28"}], GROUPS, "vips[0].address",
     "an address, or a prefix that overlaps none of a prefix group; public has 192.0.2.0/24"),
    ("a prefix around those of a group", [{**ALONE, "address": "192.0.0.0/16"}], GROUPS, "vips[0].address",
     "a prefix that overlaps none of a prefix group"),
    ("a machine's own", [{**WWW, "suffix": "0.0.0.2"}], {"public": ["10.1.1.0/24"]}, "vips[0].suffix",
     "addresses that no machine has; maglevs[0].address has 10.1.1.2"),
    ("multicast", [WWW], {"public": ["224.0.1.0/24"]}, "vips[0].suffix", "not unspecified, loopback, multicast"),
    ("an extension header's number", [{**WWW6, "protocol": 44, "port": 0}], GROUPS, "vips[0].protocol", "no extension"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "vips", "groups", "field", "allowed"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_is_wrong_is_refused_in_one_sentence(name, vips, groups, field, allowed):
    with pytest.raises(ConfigError) as caught:
        parsed(vips=vips, groups=groups)
    problems = [(problem.field, problem.allowed) for problem in caught.value.problems]
    assert [at for at, _ in problems] == [field], f"{name}: there should be one problem, at {field}: {problems}"
    assert allowed in problems[0][1]


def test_what_may_be_written():
    sound = [
        ([WWW, {**WWW, "name": "again", "port": 443}], GROUPS),
        ([WWW, {**ALONE, "address": "192.0.2.2"}], GROUPS),  # a single address is the longest match anyway
        ([{**WWW, "suffix": "0.0.0.0"}], GROUPS),
        ([{**WWW, "suffix": "0.0.0.16", "prefix_length": 28}], GROUPS),
        ([{**BLOCK, "suffix": "0.0.0.0/26"}], GROUPS),  # all of the longer prefix
        ([], {"nobody": ["192.0.2.0/24"]}),
    ]
    for vips, groups in sound:
        assert len(parsed(vips=vips, groups=groups).vips) == len(vips)


def test_a_vip_moves_to_another_shard_with_all_its_places_and_whatever_stands_there():
    """Routers know addresses only: one that stands at one of its places moves too, and one elsewhere does not."""
    written = document(vips=[WWW, BLOCK, {**ALONE, "address": PLACES[1], "port": 443}])
    written["maglevs"].append({"name": "m2", "address": "10.1.2.2", "shard": "other"})
    steps = 0
    while step := next_step(written, config.parse(json.dumps(written)), "www", "other"):
        written, steps = step.document, steps + 1
        assert "0.0.0.1 in each prefix of public" in step.what
    served = config.parse(json.dumps(written))
    assert (steps, [vip.shard for vip in served.vips]) == (5, ["other", "default", "other"])
    assert {vip.shown for vip in served.vips_of("other")} == set(PLACES)


def test_what_shares_an_address_shares_its_shard():
    written = document(vips=[WWW, {**ALONE, "address": PLACES[1], "port": 443, "shard": "other"}])
    written["maglevs"].append({"name": "m2", "address": "10.1.2.2", "shard": "other"})
    with pytest.raises(ConfigError) as caught:
        config.parse(json.dumps(written))
    [problem] = caught.value.problems
    assert (problem.field, problem.value) == ("vips[1].shard", "other")
    assert "which has the same address 198.51.100.1: default" in problem.allowed
