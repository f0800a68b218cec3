"""What two VIPs share: addresses, Maglevs, endpoints; and that a move between shards parts them."""

from __future__ import annotations

import pytest

from maglev import config
from maglev.errors import MaglevError
from maglev.isolation import Common, in_common
from maglev.moving import next_step
from topologies.sharded import cluster

NOTHING = Common(False, frozenset(), frozenset())
OF_A = frozenset({"m1", "m2"})


def read(document):
    return config.Config.model_validate(document)


def test_shards_with_pools_of_their_own_share_nothing():
    assert in_common(read(cluster(2, 3)), "www", "b-www") == NOTHING


def test_vips_of_one_address_share_it_and_all_that_serves_them():
    endpoints = frozenset(f"10.2.{n}.2" for n in (1, 2, 3))
    assert in_common(read(cluster(2, 3)), "www", "echo") == Common(True, OF_A, endpoints)


def test_a_move_parts_two_vips_and_they_share_maglevs_until_its_last_step():
    document = cluster(2, 3)
    for vip in document["vips"]:
        vip["shard"] = "a"
    shared = [in_common(read(document), "www", "b-www").maglevs]
    while step := next_step(document, read(document), "b-www", "b"):
        document = step.document
        shared.append(in_common(read(document), "www", "b-www").maglevs)
    assert shared == [OF_A] * 5 + [frozenset()]


def test_a_vip_that_there_is_not_is_named():
    with pytest.raises(MaglevError, match="there is no VIP 'wwww'; there are www, echo"):
        in_common(read(cluster(1, 1)), "www", "wwww")
