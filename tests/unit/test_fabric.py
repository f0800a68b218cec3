"""What routers of a fabric should agree on; and the topologies of several tiers, as data."""

from __future__ import annotations

import itertools

import pytest

from lab.fabric import FIELDS_OF_TIERS, PORTS, SEED, Speaker, hash_sysctls, next_hops, within

SPINES, LEAVES = ("p1", "p2"), ("l1", "l2", "l3")


def fabric(without=()):
    """Two edges, two spines and three leaves, but for some links."""
    asns = {"e1": 1, "e2": 1, "p1": 2, "p2": 2, "l1": 11, "l2": 12, "l3": 13}
    links = [*itertools.product(("e1", "e2"), SPINES), *itertools.product(SPINES, LEAVES)]
    links = [link for link in links if "-".join(link) not in without]
    peers = {name: {other for link in links for other in link if name in link and other != name} for name in asns}
    return {name: Speaker(asn, frozenset(peers[name])) for name, asn in asns.items()}


def test_every_tier_spreads_over_all_shortest_paths():
    found = next_hops(fabric(), {"l1": ["m1", "m2"], "l2": ["m3"]})
    assert found == {
        "e1": {"p1", "p2"}, "e2": {"p1", "p2"}, "p1": {"l1", "l2"}, "p2": {"l1", "l2"},
        "l1": {"m1", "m2"}, "l2": {"m3"}, "l3": {"p1", "p2"},
    }  # fmt: skip


def test_a_leaf_without_maglevs_of_its_own_sends_by_the_spines():
    assert next_hops(fabric(), {"l2": ["m3"]})["l1"] == {"p1", "p2"}


def test_a_path_that_has_gone_down_does_not_come_back_up():
    """Spine p1 has lost l1: it might go by an edge and p2, or by another leaf, but its own AS is in those paths."""
    found = next_hops(fabric(without={"p1-l1"}), {"l1": ["m1"]})
    assert "p1" not in found
    assert (found["e1"], found["l3"], found["p2"]) == ({"p2"}, {"p2"}, {"l1"})


def test_a_longer_path_is_taken_only_when_there_is_no_shorter_one():
    chain = {"a": Speaker(1, frozenset("bc")), "b": Speaker(2, frozenset("ac")), "c": Speaker(3, frozenset("ab"))}
    assert next_hops(chain, {"c": ["m1"]})["a"] == {"c"}
    chain |= {"a": Speaker(1, frozenset("b")), "c": Speaker(3, frozenset("b"))}
    assert next_hops(chain, {"c": ["m1"]})["a"] == {"b"}


def test_what_nobody_announces_is_reached_by_nobody():
    assert next_hops(fabric(), {}) == {}


def test_routers_of_one_as_do_not_speak_so_each_has_its_own_maglevs():
    alone = {"r1": Speaker(1, frozenset()), "r2": Speaker(1, frozenset())}
    assert next_hops(alone, {"r1": ["m1"], "r2": ["m1", "m2"]}) == {"r1": {"m1"}, "r2": {"m1", "m2"}}


def test_tiers_hash_by_different_fields_which_all_have_the_ports():
    assert len(set(FIELDS_OF_TIERS)) == len(FIELDS_OF_TIERS)
    assert all(fields & PORTS == PORTS for fields in FIELDS_OF_TIERS)
    assert hash_sysctls("alike", 0, 1) == hash_sysctls("alike", 3, 2)
    seeds = {hash_sysctls("seeds", tier, number)[SEED] for tier in range(4) for number in range(1, 17)}
    assert len(seeds) == 4 * 16
    assert "0" not in seeds  # 0 is the kernel's own, the same everywhere


def test_only_what_lies_in_vip_prefixes_is_a_vip():
    routes = {"192.0.2.1": ("10.1.1.2",), "10.2.1.0/24": ("10.3.1.1",), "2001:db8::1": (), "fd00:2:1::/64": ()}
    assert set(within(routes, ["192.0.2.0/24", "2001:db8::/64"])) == {"192.0.2.1", "2001:db8::1"}


WRONG = [
    ({"spines": 0}, "spines=0 is not allowed; allowed: a whole number from 1 to 16"),
    ({"maglevs": 2.5}, "maglevs=2.5 is not allowed; allowed: a whole number from 1 to 16"),
    ({"hashing": "none"}, "hashing='none' is not allowed; allowed: seeds, fields or alike"),
    ({"spines": 16, "maglev_racks": 8, "endpoint_racks": 16},
     "418 links between routers are not allowed; allowed: at most 250"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_a_pod_that_cannot_be_wired_is_refused_in_a_sentence(options, said):
    pytest.importorskip("mininet.topo", reason="topologies are Mininet's: needs Debian's package mininet")
    from lab.errors import WrongUse
    from lab.laboratory import load_topology

    with pytest.raises(WrongUse) as refused:
        load_topology("pod", options)
    assert str(refused.value) == f"topology pod: {said}"
