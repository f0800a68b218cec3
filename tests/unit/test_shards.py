"""Shards: whose VIPs are whose, what is refused, and what Maglevs of two shards share while a VIP moves."""

from __future__ import annotations

import json

import pytest
from forwarders import ENDPOINTS, PEERS, as_frame, decided, inner, reference, text
from frames import VIP, fragments, udp

from maglev import config
from maglev.errors import ConfigError, MaglevError, Reason
from maglev.flow import pack_address
from maglev.health import Plan
from maglev.moving import next_step
from maglev.selection import MapBuilder
from topologies.sharded import Sharded, cluster

OTHER_VIP = "192.0.2.99"
A, B = PEERS[:2], [PEERS[2], "10.1.4.2"]  # the Maglevs of two shards


def site(**place):
    """Shard a is the first two Maglevs, b the others; the VIP of most tests is `place`d, another is b's."""
    place = {"shard": "a"} | place
    return {
        "maglevs": [
            {"name": f"m{n}", "address": address, "shard": "a" if n < 2 else "b"} for n, address in enumerate([*A, *B])
        ],
        "pools": {
            "web": {"endpoints": [{"address": each} for each in ENDPOINTS], "health_check": {"type": "ping"}},
            "spare": {"endpoints": [{"address": "10.9.9.9"}], "health_check": {"type": "ping"}},
        },
        "vips": [
            {"name": "dns", "address": VIP, "protocol": "udp", "port": 53, "pool": "web", **place},
            {"name": "other", "address": OTHER_VIP, "protocol": "udp", "port": 53, "pool": "spare", "shard": "b"},
        ],
        "forwarder": {"table_size": 251},
    }


MOVING = {"shard": "a", "also_served_by": ["b"]}


def read(document):
    return config.parse(json.dumps(document))


def a_map(of, **place):
    return MapBuilder().build(read(site(**place)), of, lambda member: True)


def names(of, **place):
    return [vip.name for vip in read(site(**place)).vips_of(of)]


def test_a_shard_serves_its_own_vips_and_those_that_come_or_leave():
    assert (names("a"), names("b")) == (["dns"], ["other"])
    assert (names("a", **MOVING), names("b", **MOVING)) == (["dns"], ["dns", "other"])
    announced = {"shard": "a", "also_announced_by": ["b"]}
    assert (names("a", **announced), names("b", **announced)) == (["dns"], ["dns", "other"])


# Refused: what is wrong, where, and in words what is allowed

REFUSED = [
    ({"shard": "c"}, "vips[0].shard", "c", "a shard that some Maglev serves: a, b"),
    ({"also_served_by": ["c"]}, "vips[0].also_served_by[0]", "c", "a shard that some Maglev serves: a, b"),
    ({"also_announced_by": ["b", "c"]}, "vips[0].also_announced_by[1]", "c", "a shard that some Maglev serves: a, b"),
    ({"also_served_by": ["a"]}, "vips[0].also_served_by[0]", "a", "each shard once; vips[0].shard has this one"),
    (
        {"also_announced_by": ["b"], "also_served_by": ["b"]},
        "vips[0].also_served_by[0]",
        "b",
        "each shard once; vips[0].also_announced_by[0] has this one",
    ),
    ({"also_served_by": "b"}, "vips[0].also_served_by", "b", "a list of the names of shards"),
]


@pytest.mark.parametrize(("place", "field", "value", "allowed"), REFUSED)
def test_a_vip_of_shards_that_make_no_sense_is_refused(place, field, value, allowed):
    assert refusals(site(**place)) == [(field, value, allowed)]


@pytest.mark.parametrize(
    ("place", "field", "value", "allowed"),
    [
        ({"shard": "b"}, "shard", "b", "a"),
        ({"also_served_by": ["b"]}, "also_served_by", "[b]", "[]"),
        ({"also_announced_by": ["b"]}, "also_announced_by", "[b]", "[]"),
    ],
)
def test_vips_of_one_address_have_one_place(place, field, value, allowed):
    """Half of the packets for each would else come to Maglevs that know nothing of it: routers see no ports."""
    document = site()
    document["vips"].append({**document["vips"][0], "name": "more", "port": 54, **place})
    said = f"what vips[0] says, which has the same address {VIP}: {allowed}"
    assert refusals(document) == [(f"vips[2].{field}", value, said)]


def anycast(**place):
    """The VIP of shard a, and one of shard b at the same address, which is served from elsewhere."""
    document = site(anycast=True)
    document["vips"].append({**document["vips"][0], "name": "dns-b", "pool": "spare", "shard": "b", **place})
    return document


def test_anycast_has_the_same_address_in_several_shards_each_with_endpoints_of_its_own():
    found = read(anycast())
    assert [[vip.name for vip in found.vips_of(shard)] for shard in "ab"] == [["dns"], ["dns-b", "other"]]
    assert found.sharing_addresses_with("dns") == {"dns"}
    maps = [MapBuilder().build(found, shard, lambda member: True) for shard in "ab"]
    assert [sorted(each.pools) for each in maps] == [["web"], ["spare"]]


@pytest.mark.parametrize(
    ("place", "field", "value", "allowed"),
    [
        ({"anycast": False}, ".anycast", "false", f"what vips[0] says, which has the same address {VIP}: true"),
        ({"shard": "a"}, "", f"{VIP} udp 53 of a", "an address, protocol and port that no other VIP has; "
         "vips[0] has this one"),
        ({"also_served_by": ["a"]}, ".anycast", True, "false for a VIP that moves: anycast is one VIP in each shard"),
    ],
)  # fmt: skip
def test_anycast_that_makes_no_sense_is_refused(place, field, value, allowed):
    document = anycast(**place)
    assert refusals(document) == [(f"vips[2]{field}", value, allowed)]


def test_anycast_does_not_move():
    document = anycast()
    with pytest.raises(MaglevError, match="dns is anycast, which does not move: give shard b a VIP of its own at"):
        next_step(document, read(document), "dns", "b")


def test_a_shard_that_a_vip_moves_to_must_reach_its_endpoints():
    document = site(**MOVING)
    document["pools"]["web"]["endpoints"] = [{"address": "fd00::9"}]
    for machine in document["maglevs"][:2]:
        machine["address6"] = machine["address"].replace("10.1.", "fd00::").replace(".", ":")
    [(field, value, allowed)] = refusals(document)
    assert (field, value) == ("pools.web.endpoints[0].address", "fd00::9")
    assert allowed.startswith("an address of a family that all Maglevs of shard b have; without IPv6 are m2, m3")


def refusals(document):
    with pytest.raises(ConfigError) as refusal:
        read(document)
    return [(problem.field, problem.value, problem.allowed) for problem in refusal.value.problems]


# What Maglevs of two shards share while a VIP moves


@pytest.mark.parametrize("place", [MOVING, {"shard": "b", "also_served_by": ["a"]}], ids=str)
def test_maglevs_of_both_shards_build_the_same_table(place):
    first, second = a_map("a", **place), a_map("b", **place)
    assert first.pools["web"].digest == second.pools["web"].digest


def test_usually_a_maglev_checks_no_other_shard():
    assert checked("a") == {A[1], *ENDPOINTS}
    assert checked("b") == {B[1], "10.9.9.9"}


def test_while_a_vip_moves_maglevs_check_its_endpoints_and_each_other():
    assert checked("a", **MOVING) == {A[1], *B, *ENDPOINTS}
    assert checked("b", **MOVING) == {*A, B[1], *ENDPOINTS, "10.9.9.9"}


def checked(of, **place):
    """The addresses that the first Maglev of a shard checks."""
    whole = read(site(**place))
    return {str(check.address) for check in Plan(whole, whole.maglev("m0" if of == "a" else "m2")).checks}


@pytest.mark.parametrize("place", [MOVING, {"shard": "a", "also_announced_by": ["b"]}], ids=str)
def test_whoever_receives_a_fragment_it_goes_to_a_maglev_of_the_vips_shard(place):
    """The pieces of a datagram may come to Maglevs of both: they meet at one."""
    owners = {
        decided(reference(a_map(shard, **place), own=[own]).decide(piece, 0.0))
        for shard, own in (("a", "10.1.99.1"), ("b", "10.1.99.2"))
        for piece in fragments()
    }
    assert len(owners) == 1, f"one Maglev should own all fragments of a datagram, not {owners}"
    assert owners < {f"to the Maglev {address}" for address in A}, owners


def test_the_owner_takes_it_from_a_maglev_of_the_other_shard():
    sent = reference(a_map("b", **MOVING), own=[B[0]]).decide(fragments()[0], 0.0)
    owner = reference(a_map("a", **MOVING), own=[text(sent.endpoint)])
    taken = owner.decide(as_frame(sent.packet), 0.0)
    assert (taken.vip, inner(taken)) == ("dns", fragments()[0][14:]), decided(taken)


def redirected(subject, pieces, now=0.0):
    return [decided(subject.decide(piece, now)) for piece in pieces]


def test_fragments_under_way_stay_together_when_their_vip_changes_hands():
    """The VIP becomes shard b's between the first fragment of a datagram and the others."""
    subject = reference(a_map("a", **MOVING), own=["10.1.99.1"])
    first, *others = fragments()
    [before] = redirected(subject, [first])
    subject.vips = a_map("a", shard="b", also_announced_by=["a"])
    assert redirected(subject, others, 1.9) == [before] * len(others), "parts of a datagram should meet at one Maglev"
    [after] = redirected(subject, [first], 2.0)
    assert after in {f"to the Maglev {address}" for address in B}, "what comes later should go to the new owners"


def test_fragments_of_an_owner_that_is_gone_go_to_another():
    subject = reference(a_map("a", **MOVING), own=["10.1.99.1"])
    first, *others = fragments()
    [before] = redirected(subject, [first])
    subject.vips = a_map("b", shard="b")
    [after, *_] = redirected(subject, others)
    assert before in {f"to the Maglev {address}" for address in A}
    assert after in {f"to the Maglev {address}" for address in B}


def test_a_vip_of_the_own_shard_keeps_its_owners_while_another_moves():
    built = a_map("b", **MOVING)
    assert {*built.owners_at(pack_address(VIP)).members} == {*map(pack_address, A)}
    assert {*built.owners_at(pack_address(OTHER_VIP)).members} == {*map(pack_address, B)}


def test_a_maglev_of_the_other_shard_drops_what_is_not_its():
    assert reference(a_map("b"), own=[B[0]]).decide(udp(), 0.0).reason is Reason.NOT_VIP
    assert decided(reference(a_map("b", **MOVING), own=[B[0]]).decide(udp(), 0.0)).endswith("for dns")


# The topology


def test_both_shards_are_one_sound_configuration():
    whole = read(cluster(2, 3))
    shards = {shard: {vip.shown for vip in whole.vips_of(shard)} for shard in ("a", "b")}
    assert shards == {"a": {"192.0.2.1", "2001:db8::1"}, "b": {"192.0.2.2", "2001:db8::2"}}
    assert {shard: [m.name for m in whole.maglevs if m.shard == shard] for shard in shards} == {
        "a": ["m1", "m2"],
        "b": ["m3", "m4"],
    }
    assert {m.address for m in whole.pool_members("web-a")}.isdisjoint(m.address for m in whole.pool_members("web-b"))
    assert len(whole.pool_members("web-a")) == len(whole.pool_members("web-b")) == 3


def test_the_topology_wires_so_many_of_each_to_one_router():
    topo = Sharded(maglevs=3, endpoints=4, clients=1)
    hosts = topo.hosts()
    kinds = {kind: sum(name.startswith(kind) for name in hosts) for kind in "cmrs"}
    assert kinds == {"c": 1, "m": 6, "r": 1, "s": 8}
    assert {other for link in topo.links() for other in link if other != "r1"} == {*hosts} - {"r1"}
    assert [m["address"] for m in topo.cluster["maglevs"]] == [
        topo.linkInfo(f"m{n}", "r1")["params1"]["address"].removesuffix("/24") for n in range(1, 7)
    ]


@pytest.mark.parametrize("options", [{"maglevs": 0}, {"endpoints": 126}, {"clients": "two"}])
def test_numbers_of_nodes_that_make_no_sense_are_refused(options):
    [(what, number)] = options.items()
    with pytest.raises(ValueError, match=f"{what}={number!r} is not allowed; allowed: a whole number from 1 to 125"):
        Sharded(**options)
