"""What a change of configuration may go on using while its new checks have no verdict yet."""

from __future__ import annotations

import copy
import json

import pytest

from maglev import config
from maglev.flow import unpack_address
from maglev.selection import MapBuilder, carried_over, serving_pool
from maglev.vips import EMPTY

BASE = {
    "maglevs": [{"name": "m1", "address": "10.1.1.2"}, {"name": "m2", "address": "10.1.2.2", "shard": "blue"}],
    "pools": {
        "web": {
            "endpoints": [{"address": f"10.2.{number}.2"} for number in (1, 2, 3)],
            "health_check": {"type": "http", "port": 80},
        },
        "new": {"endpoints": [{"address": "10.2.1.2"}, {"address": "10.2.9.2"}]},
    },
    "vips": [{"name": "www", "address": "192.0.2.1", "protocol": "tcp", "port": 80, "pool": "web"}],
    "forwarder": {"table_size": 7},
}
UNHEALTHY = "10.2.2.2"


def carried(change, served=True):
    """The addresses that are carried over a change of the base, one of whose endpoints is unhealthy."""
    document = copy.deepcopy(BASE)
    change(document)
    old, new = config.parse(json.dumps(BASE)), config.parse(json.dumps(document))
    vips = MapBuilder().build(old, "default", lambda member: str(member.address) != UNHEALTHY) if served else EMPTY
    members = carried_over(vips, old, new, "default")
    known = {member for pool in new.pools for member in new.pool_members(pool)}
    assert members <= known, "what is carried over are members as the new configuration sees them"
    return sorted(str(member.address) for member in members)


HEALTHY = ["10.2.1.2", "10.2.3.2"]
CHANGES = [
    ("an altered check", lambda d: d["pools"]["web"]["health_check"].update(interval_s=2), HEALTHY),
    ("another check", lambda d: d["pools"]["web"].update(health_check={"type": "ping"}), HEALTHY),
    ("another name", lambda d: d["vips"][0].update(name="web"), HEALTHY),
    ("another pool", lambda d: d["vips"][0].update(pool="new"), ["10.2.1.2"]),
    ("another port", lambda d: d["vips"][0].update(port=81), []),
    ("another address", lambda d: d["vips"][0].update(address="192.0.2.2"), []),
    ("another shard", lambda d: d["vips"][0].update(shard="blue"), []),
    ("a new endpoint", lambda d: d["pools"]["web"]["endpoints"].append({"address": "10.2.4.2"}), HEALTHY),
    ("an endpoint gone", lambda d: d["pools"]["web"]["endpoints"].pop(0), ["10.2.3.2"]),
    ("another weight", lambda d: d["pools"]["web"]["endpoints"][0].update(weight=0), HEALTHY),
]


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_who_serves_a_vip_and_still_is_to_is_carried_over(change, expected):
    assert carried(change) == expected


def test_nothing_is_carried_into_a_forwarder_that_serves_nothing_yet():
    assert carried(lambda document: None, served=False) == []


def test_the_unhealthy_are_not_carried_over():
    assert UNHEALTHY in {str(unpack_address(member)) for member in _members()}, "the test is void: it is not listed"
    assert UNHEALTHY not in carried(lambda document: None)


def _members():
    old = config.parse(json.dumps(BASE))
    return MapBuilder().build(old, "default", lambda member: True).pools["web"].members


# A VIP's pools

PRIMARY_AND_BACKUPS = """
maglevs: [{name: m1, address: 10.1.1.2}]
pools:
  web: {endpoints: [{address: 10.2.1.2}, {address: 10.2.2.2}, {address: 10.2.3.2}, {address: 10.2.4.2, weight: 0}]}
  spare: {endpoints: [{address: 10.3.1.2}, {address: 10.3.2.2, weight: 2}]}
  last: {endpoints: [{address: 10.4.1.2}, {address: 10.2.1.2}]}
vips:
  - {name: www, address: 192.0.2.1, protocol: tcp, port: 80, pool: web, backup_pools: [spare, last],
     min_healthy_share: 0.6}
  - {name: plain, address: 192.0.2.2, protocol: tcp, port: 80, pool: web}
forwarder: {table_size: 251}
"""
POOLED = config.parse(PRIMARY_AND_BACKUPS)
WWW, PLAIN = POOLED.vips


def healthy_without(*down):
    return lambda member: str(member.address) not in down


@pytest.mark.parametrize(
    ("down", "serving"),
    [
        ((), "web"),
        (("10.2.1.2",), "web"),  # two of three are 0.67
        (("10.2.4.2", "10.2.1.2"), "web"),  # what is drained does not count
        (("10.2.1.2", "10.2.2.2"), "spare"),
        (("10.2.1.2", "10.2.2.2", "10.3.1.2"), "spare"),  # none has enough: 0.33, 0.5, 0.5: the first of the healthiest
        (("10.2.1.2", "10.2.2.2", "10.3.1.2", "10.3.2.2"), "last"),
        (("10.2.1.2", "10.2.2.2", "10.2.3.2", "10.3.1.2", "10.3.2.2", "10.4.1.2"), "web"),  # nobody anywhere
    ],
)
def test_the_first_pool_with_enough_healthy_endpoints_serves(down, serving):
    assert serving_pool(POOLED, WWW, healthy_without(*down)) == serving


def test_the_others_endpoints_keep_the_flows_they_have_and_get_no_new_ones():
    built = MapBuilder().build(POOLED, "default", healthy_without("10.2.1.2", "10.2.2.2"))
    backends = built.pools[WWW.backed_by]
    assert {str(unpack_address(slot)) for slot in backends.slots} == {"10.3.1.2", "10.3.2.2"}
    usable = {str(unpack_address(address)) for address in backends.usable}
    assert usable == {"10.3.1.2", "10.3.2.2", "10.2.3.2", "10.2.4.2", "10.4.1.2"}
    alone = {str(unpack_address(slot)) for slot in built.pools[PLAIN.backed_by].slots}
    assert alone == {"10.2.3.2"}, "a VIP without backup goes on with what there is"


def test_a_pool_that_is_well_again_serves_as_before():
    builder = MapBuilder()
    before = builder.build(POOLED, "default", healthy_without()).pools[WWW.backed_by].digest
    builder.build(POOLED, "default", healthy_without("10.2.1.2", "10.2.2.2"))
    assert builder.build(POOLED, "default", healthy_without()).pools[WWW.backed_by].digest == before
