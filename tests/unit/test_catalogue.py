"""Topologies by name or file, what each takes, and what is said to whoever gives it something else."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("mininet.topo", reason="topologies are Mininet's: needs Debian's package mininet")

from lab import catalogue
from lab.catalogue import chosen, load_topology, parameters, topology_names
from lab.errors import WrongUse
from lab.topology_options import asked, assignments
from maglev import config

COUNTS = ("maglevs", "endpoints", "clients")
MOST = {  # of each kind, so that each has an address
    "lan": (128, 250, 250), "pod": (16, 16, 16), "rack": (128, 250, 250), "resilient": (128, 250, 250),
    "scale": (256, 2500, 2500), "sdn": (128, 250, 250), "sharded": (125, 125, 125), "sites": (80, 80, 6),
}  # fmt: skip
EVERY_COUNT = [(name, what) for name in MOST for what in COUNTS]


def test_all_topologies_are_in_this_table():
    assert sorted(MOST) == topology_names()


def refusal(name, **options):
    with pytest.raises(WrongUse) as refused:
        load_topology(name, options)
    text = str(refused.value)
    assert text.startswith(f"topology {name}"), text
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("name", "what"), EVERY_COUNT)
@pytest.mark.parametrize("number", [0, -1, 1.5, "three", True, None])
def test_what_is_no_number_of_nodes_is_refused(name, what, number):
    assert f"{what}={number!r} is not allowed; allowed: a whole number from 1 to " in refusal(name, **{what: number})


@pytest.mark.parametrize(("name", "what"), EVERY_COUNT)
def test_more_than_there_are_addresses_for_is_refused_and_the_most_is_not(name, what):
    most = MOST[name][COUNTS.index(what)]
    assert f"{what}={most + 1}" in refusal(name, **{what: most + 1})
    made = load_topology(name, {what: most})
    config.parse(json.dumps(made.cluster))
    assert _addresses_are_sound(made)


def _addresses_are_sound(made):
    from ipaddress import ip_interface

    ends = [wire[f"params{end}"] for _, _, wire in made.links(withInfo=True) for end in (1, 2)]
    given = [ip_interface(end[key]).ip for end in ends for key in ("address", "address6") if key in end]
    return len(set(given)) == len(given)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("rack", {"routers": 0}, "routers=0 is not allowed; allowed: a whole number from 1 to 250"),
        ("rack", {"routers": 251}, "routers=251 is not allowed; allowed: a whole number from 1 to 250"),
        ("rack", {"router": "ios"}, "router='ios' is not allowed; allowed: bird or frr"),
        ("lan", {"router": "ios"}, "router='ios' is not allowed; allowed: bird or frr"),
        ("pod", {"router": "ios"}, "router='ios' is not allowed; allowed: bird or frr"),
        ("pod", {"spines": 0}, "spines=0 is not allowed; allowed: a whole number from 1 to 16"),
        ("pod", {"maglev_racks": 16, "maglevs": 16, "spines": 1}, "256 Maglevs are not allowed; allowed: at most 250"),
        ("pod", {"endpoint_racks": 16, "endpoints": 16, "spines": 1},
         "256 endpoints are not allowed; allowed: at most 250"),
        ("sites", {"sites": 4}, "sites=4 is not allowed; allowed: a whole number from 2 to 3"),
        ("sdn", {"datapath": "dpdk"}, "datapath='dpdk' is not allowed; allowed: auto, netdev or system"),
        ("resilient", {"ecmp": "hope"}, "ecmp='hope' is not allowed; allowed: resilient or threshold"),
        ("resilient", {"buckets": 2}, "buckets=2 is not allowed; allowed: a whole number from 3 to 65535"),
        ("resilient", {"buckets": "many"}, "buckets='many' is not allowed; allowed: a whole number from 3 to 65535"),
        ("resilient", {"idle_timer_s": -1}, "idle_timer_s=-1 is not allowed; allowed: a number above 0, at most 86400"),
        ("resilient", {"idle_timer_s": "x"},
         "idle_timer_s='x' is not allowed; allowed: a number above 0, at most 86400"),
        ("scale", {"routers": 0}, "routers=0 is not allowed; allowed: a whole number from 1 to 128"),
    ],
)  # fmt: skip
def test_what_else_cannot_be_is_refused(name, options, said):
    assert refusal(name, **options) == f"topology {name}: {said}"


@pytest.mark.parametrize("name", topology_names())
def test_an_unknown_option_is_refused_with_those_there_are(name):
    for options in ({"colour": "red"}, {"asn": 5}, {"self": 1}):
        text = refusal(name, **options)
        assert text == f"topology {name} takes no {next(iter(options))!r}; it takes {', '.join(parameters(name))}"


def test_an_unknown_topology_is_refused_with_those_there_are():
    with pytest.raises(WrongUse, match=r"there is no topology 'ring'; there are lan, pod, .*, or a file's name"):
        load_topology("ring", {})


# From the command line


@pytest.mark.parametrize(
    ("name", "texts", "options"),
    [
        ("pod", {"spines": "3", "hashing": "alike"}, {"spines": 3, "hashing": "alike"}),
        ("sites", {"capacity_pps": "1e3", "full_at": "0.9"}, {"capacity_pps": 1000.0, "full_at": 0.9}),
        ("rack", {"router": "frr", "bgp_password": "7"}, {"router": "frr", "bgp_password": "7"}),
    ],
)
def test_words_become_what_parameters_want(name, texts, options):
    assert chosen(name, texts) == options
    load_topology(name, options)


@pytest.mark.parametrize(
    ("name", "texts", "said"),
    [
        ("pod", {"spines": "many"}, "spines='many' is not allowed; allowed: a whole number"),
        ("pod", {"spines": "1.5"}, "spines='1.5' is not allowed; allowed: a whole number"),
        ("sites", {"full_at": "late"}, "full_at='late' is not allowed; allowed: a number"),
    ],
)
def test_words_that_are_no_such_thing_are_refused(name, texts, said):
    with pytest.raises(WrongUse) as refused:
        chosen(name, texts)
    assert str(refused.value) == f"topology {name}: {said}"


def test_named_options_and_set_go_together_but_not_twice():
    assert asked("pod", {"maglevs": 4, "clients": None}, ["spines=3"]) == {"maglevs": 4, "spines": 3}
    with pytest.raises(WrongUse, match="maglevs is said twice: by --maglevs and by --set"):
        asked("pod", {"maglevs": 4}, ["maglevs=3"])


@pytest.mark.parametrize("texts", [["spines"], ["=3"], ["spines=3", "spines=4"]])
def test_settings_that_set_nothing_or_twice_are_refused(texts):
    with pytest.raises(WrongUse, match="--set"):
        assignments(texts)


# Files of one's own


OWN = """
from mininet.topo import Topo
from lab.nodes import Client, Router
class Own(Topo):
    def build(self, a, b: bool = False, c="x"):
        self.told = (a, b, c)
        self.cluster = {}
        self.addHost("r1", cls=Router)
topos = {"own": Own}
"""


@pytest.fixture
def own(tmp_path):
    def write(text=OWN, name="own.py"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_a_file_is_a_topology_with_parameters_of_its_own(own):
    file = own()
    assert catalogue.name_of(file) == "own"
    assert list(parameters(file)) == ["a", "b", "c"]
    assert load_topology(file, chosen(file, {"a": "5", "b": "on"})).told == ("5", True, "x")
    assert load_topology(own(name="other.py"), {"a": 1}).told == (1, False, "x"), "the only one in it may have any name"


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("topos = 5", {}, "own.py has no topology; it has one if it says: topos = {'own': …}"),
        ("", {}, "own.py has no topology"),
        ("import nowhere", {}, "own.py cannot be loaded: ModuleNotFoundError: No module named 'nowhere'"),
        ("def (", {}, "own.py cannot be loaded: SyntaxError"),
        (OWN, {}, "topology own cannot be wired with these options: "),
        (OWN, {"a": 1, "d": 2}, "topology own takes no 'd'; it takes a, b, c"),
        (OWN.replace("self.cluster = {}", "pass"), {"a": 1}, "topology own has no `cluster`"),
        (OWN.replace(", cls=Router", ""), {"a": 1},
         "topology own: r1 has no role; say one by addHost('r1', cls=…), of lab.nodes"),
        (OWN.replace("self.cluster = {}", "raise ValueError('not on Sundays')"), {"a": 1},
         "topology own: not on Sundays"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_topology_is_refused(own, text, options, said):
    with pytest.raises(WrongUse) as refused:
        load_topology(own(text), options)
    assert said in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(WrongUse, match=r"there is no file .*/nowhere.py, which was named as a topology"):
        load_topology(str(tmp_path / "nowhere.py"), {})
