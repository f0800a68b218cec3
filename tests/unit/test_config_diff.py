"""What differs between configurations: nothing is made up, nothing is left out, and it reads as an operator says it."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from maglev import config
from maglev.config import ConnectionTable, Endpoint, ForwarderOptions, HealthCheck, MaglevMachine, Metrics, Pool, Vip
from maglev.config_diff import Kind, diff, in_words
from maglev.config_objects import Config

BASE = {
    "shard": "default",
    "maglevs": [{"name": "m1", "address": "10.1.1.2"}, {"name": "m2", "address": "10.1.2.2"}],
    "pools": {
        "web": {
            "endpoints": [{"address": "10.2.1.2", "weight": 2}, {"address": "10.2.2.2"}],
            "health_check": {"type": "http", "port": 80, "path": "/healthz"},
        },
        "dns": {"endpoints": [{"address": "10.2.3.2"}]},
        "all": {"pools": ["web", "dns"]},
    },
    "vips": [
        {"name": "www", "address": "192.0.2.1", "protocol": "tcp", "port": 80, "pool": "web"},
        {"name": "dns", "address": "192.0.2.1", "protocol": "udp", "port": 53, "pool": "all"},
    ],
    "forwarder": {"table_size": 7, "connection_table": {"capacity": 100}},
}


def parsed(document):
    return config.parse(json.dumps(document))  # which is YAML, and has no aliases


def changed(change):
    """The base with a change made by a function, as a configuration."""
    document = copy.deepcopy(BASE)
    change(document)
    return parsed(document)


def words(change):
    return in_words(diff(parsed(BASE), changed(change)))


NEW_VIP = {"name": "new", "address": "192.0.2.2", "protocol": "tcp", "port": 443, "pool": "dns"}
MANY = [{"address": f"10.3.0.{number}"} for number in range(1, 8)]


def other_endpoints(document):
    document["pools"]["web"]["endpoints"] = [{"address": "10.2.1.2", "weight": 3.5}, {"address": "10.2.4.2"}]


def pool_and_vip(document):
    document["vips"][0]["pool"] = "all"
    document["pools"]["dns"]["endpoints"].append({"address": "10.2.4.2"})


# what is done to the base, and what is said
SAID = [
    (lambda d: d["vips"][0].update(pool="all"), ["vip www: pool web -> all"]),
    (lambda d: d["vips"][0].update(port=81, protocol="udp"), ["vip www: protocol tcp -> udp, port 80 -> 81"]),
    (lambda d: d["vips"].pop(), ["vip dns removed"]),
    (
        lambda d: d["vips"].append(NEW_VIP),
        ["vip new added (address 192.0.2.2, protocol tcp, port 443, pool dns)"],
    ),
    (other_endpoints, ["pool web: weight of 10.2.1.2 2 -> 3.5, endpoint 10.2.2.2 removed, endpoint 10.2.4.2 added"]),
    (
        lambda d: d["pools"]["dns"]["endpoints"].append({"address": "10.2.5.2", "weight": 0}),
        ["pool dns: endpoint 10.2.5.2 added (weight 0)"],
    ),
    (lambda d: d["pools"]["all"].update(pools=["web"]), ["pool all: pool dns removed"]),
    (
        lambda d: d["pools"].update(big={"endpoints": MANY}),
        ["pool big added (endpoints 10.3.0.1 10.3.0.2 10.3.0.3 10.3.0.4 3 more)"],
    ),
    (
        lambda d: d["pools"]["web"]["health_check"].update(interval_s=2, path="/"),
        ["pool web: health_check.path /healthz -> /, health_check.interval_s 1 -> 2"],
    ),
    (lambda d: d["pools"]["web"].pop("health_check"), ["pool web: health_check removed"]),
    (lambda d: d["pools"]["dns"].update(health_check={"type": "ping"}), ["pool dns: health_check added (type ping)"]),
    (
        lambda d: d["pools"]["web"].update(health_check={"type": "tcp", "port": 80}),
        [
            "pool web: health_check.type http -> tcp, health_check.path /healthz -> none, "
            "health_check.status 200-399 -> none"
        ],
    ),
    (lambda d: d["maglevs"].pop(), ["maglev m2 removed"]),
    (lambda d: d["maglevs"][0].update(address="10.1.9.2"), ["maglev m1: address 10.1.1.2 -> 10.1.9.2"]),
    (
        lambda d: d["forwarder"].update(hash="ring", busy_poll=True),
        ["forwarder: hash maglev -> ring, busy_poll false -> true"],
    ),
    (
        lambda d: d["forwarder"]["connection_table"].update(capacity=200),
        ["forwarder: connection_table.capacity 100 -> 200"],
    ),
    (pool_and_vip, ["pool dns: endpoint 10.2.4.2 added", "vip www: pool web -> all"]),
]


@pytest.mark.parametrize(("change", "expected"), SAID, ids=[case[1][0] for case in SAID])
def test_a_change_is_said_in_words(change, expected):
    assert words(change) == expected


def test_the_order_of_a_commands_words_is_a_difference_and_all_words_are_said():
    check = {"type": "script", "command": ["/bin/check", "-a", "-a", "1", "-b", "2"]}
    old = changed(lambda document: document["pools"]["dns"].update(health_check=check))
    check["command"] = ["/bin/check", "-a", "1", "-b", "-a", "2"]
    new = changed(lambda document: document["pools"]["dns"].update(health_check=check))
    assert in_words(diff(old, new)) == [
        "pool dns: health_check.command /bin/check -a -a 1 -b 2 -> /bin/check -a 1 -b -a 2"
    ]


def test_another_default_shard_changes_what_leaves_its_shard_to_it():
    found = words(lambda document: document.update(shard="blue"))
    assert found == [
        "configuration: shard default -> blue",
        "maglev m1: shard default -> blue",
        "maglev m2: shard default -> blue",
        "vip www: shard default -> blue",
        "vip dns: shard default -> blue",
    ]


def test_an_object_renamed_is_another_object():
    assert words(lambda document: document["vips"][1].update(name="names")) == [
        "vip dns removed",
        "vip names added (address 192.0.2.1, protocol udp, port 53, pool all)",
    ]


def test_changes_become_plain_values_for_json():
    def change(document):
        document["pools"]["dns"]["endpoints"] = [{"address": "10.2.9.2"}]
        document["pools"]["all"]["pools"] = ["dns"]
        document["vips"][0]["address"] = "192.0.2.7"

    found = [found.document() for found in diff(parsed(BASE), changed(change))]
    assert json.loads(json.dumps(found)) == [
        {"subject": "pool dns", "what": "endpoint 10.2.3.2", "change": "removed",
         "old": {"address": "10.2.3.2", "weight": 1.0}, "new": None},
        {"subject": "pool dns", "what": "endpoint 10.2.9.2", "change": "added",
         "old": None, "new": {"address": "10.2.9.2", "weight": 1.0}},
        {"subject": "pool all", "what": "pool web", "change": "removed", "old": "web", "new": None},
        {"subject": "vip www", "what": "address", "change": "changed", "old": "192.0.2.1", "new": "192.0.2.7"},
    ]  # fmt: skip


# Whatever fields the objects have, now or later

OBJECTS = {  # where the base has one, and how its fields are called there
    MaglevMachine: ("maglev m1", "{}"),
    Vip: ("vip www", "{}"),
    Endpoint: ("pool web", "{} of 10.2.1.2"),
    HealthCheck: ("pool web", "health_check.{}"),
    Pool: ("pool web", "{}"),
    ForwarderOptions: ("forwarder", "{}"),
    Metrics: ("metrics", "{}"),
    ConnectionTable: ("forwarder", "connection_table.{}"),
}
FIELDS = [
    pytest.param(model, field, id=f"{model.__name__}.{field}")
    for model in OBJECTS
    for number, field in enumerate(model.model_fields)
    if number or model not in (MaglevMachine, Vip, Endpoint)  # the first tells objects apart, and is no change
]


def with_other_value(value, model, field):
    """A value with one field of the first object of a model in it replaced by a value that none has."""
    if isinstance(value, model):
        before = getattr(value, field)
        other = (*before, "other") if is_list(model, field) else "other"
        return value.model_copy(update={field: other})
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            inner = getattr(value, name)
            if (replaced := with_other_value(inner, model, field)) is not inner:
                return value.model_copy(update={name: replaced})
    if isinstance(value, tuple) and value:
        first = with_other_value(value[0], model, field)
        return value if first is value[0] else (first, *value[1:])
    if isinstance(value, dict):
        for key, inner in value.items():
            if (replaced := with_other_value(inner, model, field)) is not inner:
                return value | {key: replaced}
    return value


@pytest.mark.parametrize(("model", "field"), FIELDS)
def test_every_field_of_every_object_is_named_when_it_changes(model, field):
    old = parsed(BASE)
    new = with_other_value(old, model, field)
    assert new is not old, "the test is void: nothing was replaced"
    found = diff(old, new)
    subject, name = OBJECTS[model]
    said = f"{field.removesuffix('s')} other" if is_list(model, field) else name.format(field)
    assert [(change.subject, change.what, change.new) for change in found] == [(subject, said, "other")]


def is_list(model, field):
    return model is Pool and isinstance(model.model_fields[field].default, tuple)


# Properties

addresses = st.sampled_from([f"10.2.{n}.2" for n in range(1, 6)])
endpoints = st.dictionaries(addresses, st.sampled_from([0, 1, 2, 0.5]), min_size=1).map(
    lambda weights: [{"address": address, "weight": weight} for address, weight in weights.items()]
)
checks = st.sampled_from([None, {"type": "ping"}, {"type": "tcp", "port": 80}, {"type": "tcp", "port": 80, "rise": 5}])
pools = st.dictionaries(
    st.sampled_from(["web", "dns", "mail"]),
    st.builds(lambda listed, check: {"endpoints": listed, "health_check": check}, endpoints, checks),
    min_size=1,
)


@st.composite
def documents(draw):
    there = draw(pools)
    if draw(st.booleans()):
        there["all"] = {"pools": draw(st.permutations(sorted(there)))}
    names = draw(st.sets(st.sampled_from(["www", "dns", "mail"])))
    vips = [
        {"name": name, "address": f"192.0.2.{number}", "protocol": draw(st.sampled_from(["tcp", "udp"])), "port": 80,
         "pool": draw(st.sampled_from(sorted(there)))}
        for number, name in enumerate(sorted(names), 1)
    ]  # fmt: skip
    forwarder = {"table_size": draw(st.sampled_from([7, 11])), "threads": draw(st.sampled_from([1, 2]))}
    maglevs = [{"name": f"m{number}", "address": f"10.1.{number}.2"} for number in range(draw(st.integers(1, 3)) + 1)]
    return {"maglevs": maglevs, "pools": there, "vips": vips, "forwarder": forwarder}


def normal(value):
    """What a configuration says, whatever the order in which it lists things: another way to tell two apart."""
    if isinstance(value, dict):
        return {key: normal(inner) for key, inner in value.items()}
    return sorted(map(normal, value), key=repr) if isinstance(value, list) else value


def meaning(configuration: Config):
    return normal(configuration.model_dump(mode="json"))


@given(documents())
def test_nothing_differs_from_itself(document):
    assert diff(parsed(document), parsed(document)) == ()


@given(documents(), st.randoms())
def test_order_is_no_difference(document, random):
    shuffled = copy.deepcopy(document)
    for listed in (
        shuffled["maglevs"],
        shuffled["vips"],
        *(pool.get("endpoints", []) for pool in shuffled["pools"].values()),
    ):
        random.shuffle(listed)
    shuffled["pools"] = dict(random.sample(list(shuffled["pools"].items()), len(shuffled["pools"])))
    assert diff(parsed(document), parsed(shuffled)) == ()


@given(documents(), documents())
def test_there_are_changes_exactly_where_configurations_differ(one, other):
    old, new = parsed(one), parsed(other)
    found = diff(old, new)
    assert bool(found) == (meaning(old) != meaning(new)), in_words(found)


@given(documents(), documents())
def test_the_way_back_is_the_way_there_turned_round(one, other):
    mirror = {Kind.ADDED: Kind.REMOVED, Kind.REMOVED: Kind.ADDED, Kind.CHANGED: Kind.CHANGED}
    there, back = diff(parsed(one), parsed(other)), diff(parsed(other), parsed(one))
    turned = [change._replace(kind=mirror[change.kind], old=change.new, new=change.old) for change in there]
    assert sorted(map(repr, turned)) == sorted(map(repr, back))


@given(documents(), documents())
def test_a_subject_has_one_phrase_and_every_change_is_in_its_subjects(one, other):
    found = diff(parsed(one), parsed(other))
    phrases = in_words(found)
    assert len(phrases) == len({change.subject for change in found})
    for change in found:
        assert [p for p in phrases if p.startswith((f"{change.subject}: ", f"{change.subject} ")) and change.what in p]
