"""What a running forwarder refuses to take over: what it has allocated by, its port, itself; and nothing else."""

import copy
import json

import pytest

from maglev import config
from maglev.config_restart import AS_BEFORE, obstacles

BASE = {
    "maglevs": [{"name": "m1", "address": "10.1.1.2"}, {"name": "m2", "address": "10.1.2.2"}],
    "pools": {"web": {"endpoints": [{"address": "10.2.1.2"}]}},
    "vips": [{"name": "www", "address": "192.0.2.1", "protocol": "tcp", "port": 80, "pool": "web"}],
}
OTHER_OPTIONS = {
    "engine": "ring",
    "connection_table": {"capacity": 10},
    "threads": 2,
    "busy_poll": True,
    "fragments": {"packets": 10},
    "icmp_errors_per_s": 1,
    "trace_reports_per_s": 1,
}


def refused(**change):
    """The fields that m1 refuses when a document with this change comes."""
    old = config.parse(json.dumps(BASE))
    new = config.parse(json.dumps(copy.deepcopy(BASE) | change))
    problems = list(obstacles(old, new, old.maglev("m1"), "new.yaml"))
    assert all(problem.file == "new.yaml" for problem in problems)
    return {problem.field: problem.allowed for problem in problems}


@pytest.mark.parametrize("field", OTHER_OPTIONS)
def test_what_it_has_allocated_stays(field):
    assert refused(forwarder={field: OTHER_OPTIONS[field]}) == {f"forwarder.{field}": AS_BEFORE}


def test_all_that_stands_in_the_way_is_named_at_once():
    problems = refused(forwarder=OTHER_OPTIONS, metrics={"port": 9999})
    assert problems.keys() == {f"forwarder.{field}" for field in OTHER_OPTIONS} | {"metrics.port"}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"forwarder": {"table_size": 7}},
        {"forwarder": {"hash": "modulo"}},
        {"pools": {"web": {"endpoints": [{"address": "10.2.9.2"}]}}},
        {"maglevs": BASE["maglevs"][:1]},
    ],
    ids=["nothing", "table size", "hash", "another endpoint", "another Maglev gone"],
)
def test_everything_else_is_taken_over(change):
    assert refused(**change) == {}


@pytest.mark.parametrize(
    "maglevs",
    [BASE["maglevs"][1:], [{"name": "m1", "address": "10.1.9.2"}, BASE["maglevs"][1]]],
    ids=["gone", "moved"],
)
def test_it_must_be_itself(maglevs):
    assert refused(maglevs=maglevs) == {"maglevs": "m1 with 10.1.1.2 and shard default"}
