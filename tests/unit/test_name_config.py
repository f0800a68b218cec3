"""The name server's configuration: what it says, and what is refused, in which words."""

from __future__ import annotations

import copy
import json
from ipaddress import ip_address

import pytest

from maglev.errors import ConfigError
from maglev.geo import Limits
from maglev.name_config import load, parse, shipped_locations, vips_of

SITE = {"latitude": 47.4, "longitude": 8.5, "maglevs": ["10.1.1.2"], "capacity_pps": 1000}
CHECK = {"type": "http", "port": 80, "path": "/healthz"}
SOUND = {
    "zone": "lab.example.",
    "hosts": {"ns1": ["10.3.1.2"]},
    "sites": {"west": SITE, "east": {**SITE, "latitude": 35.7, "longitude": 139.7, "maglevs": ["10.11.1.2"]}},
    "names": {"www": {"vips": {"west": ["192.0.2.1", "2001:db8::1"], "east": ["198.51.100.1"]}, "health_check": CHECK}},
    "locations": {"10.7.0.0/16": [0, 0.5]},
}


def changed(path, value):
    """The sound document with one field set; None takes it out."""
    document = copy.deepcopy(SOUND)
    *parents, last = path.split(".")
    place = document
    for key in parents:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document)


def test_a_sound_one():
    config = parse(json.dumps(SOUND))
    zone = config.answers_for
    assert (zone.origin, zone.server, zone.names, zone.ttl_s) == (
        "lab.example", "ns1.lab.example", {"www", "ns1"}, 5,
    )  # fmt: skip
    assert vips_of(config.names["www"], "west", 6) == (ip_address("2001:db8::1"),)
    assert vips_of(config.names["www"], "east", 6) == ()
    assert config.load.limits == Limits(0.7, 0.95)


def test_locations_of_the_file_stand_beside_those_that_are_shipped():
    located = parse(json.dumps(SOUND)).located
    assert located.of(ip_address("10.7.1.1")).place == (0, 0.5)
    assert located.of(ip_address("10.0.2.2")).place == shipped_locations()[next(iter(
        network for network in shipped_locations() if ip_address("10.0.2.2") in network
    ))]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("zone", "-", "zone: '-' is not allowed; allowed: a domain name"),
        (
            "zone",
            None,
            "allowed: a domain name, such as lab.example (this field is required)",
        ),
        ("ttl_s", -1, "ttl_s: -1 is not allowed; allowed: seconds, a whole number from 0 to 86400"),
        ("port", 0, "allowed: a whole number from 1 to 65535"),
        ("sites", {}, "a mapping from names to sites"),
        ("sites.west.latitude", 91, "degrees, a number from -90 (south) to 90"),
        ("sites.west.maglevs", [], "whose metrics tell its load: a list of addresses"),
        ("sites.west.maglevs", ["m1"], "m1"),
        ("sites.west.maglevs", ["10.11.1.2"], "'10.11.1.2' is not allowed; allowed: a Maglev of one site"),
        ("sites.west.capacity_pps", 0, "packets per second that all its Maglevs together may forward"),
        ("sites.west.capacity", 5, "only the keys latitude, longitude, maglevs, capacity_pps, metrics_port"),
        ("names.www.vips.north", ["192.0.2.9"], "names.www.vips.north: 'north' is not allowed; allowed: a site: "),
        ("names.www.health_check", {"type": "ping"}, "is of type tcp or http, with through: address"),
        ("names.WWW", SOUND["names"]["www"], "a label of a domain name"),
        ("hosts.www", ["10.3.1.2"], "names that are not under `names` already"),
        ("load", {"spill_from": 0.9, "full_at": 0.8}, "full_at that is at least spill_from"),
        ("load", {"interval_s": 0}, "load.interval_s: 0 is not allowed; allowed: seconds, a number from 0.01 to 3600"),
        ("locations", {"10.0.0.1/8": [0, 0]}, "a prefix without bits set behind it"),
        ("locations", {"10.0.0.0/8": [0]}, "a latitude from -90 to 90 and a longitude from -180 to 180"),
        ("locations", {"10.0.0.0/8": [0, 181]}, "a latitude from -90 to 90 and a longitude from -180 to 180"),
    ],
)
def test_what_is_refused_says_what_is_allowed(path, value, says):
    with pytest.raises(ConfigError) as refused:
        parse(changed(path, value))
    assert says in str(refused.value)


def test_everything_wrong_is_said_at_once():
    document = {**SOUND, "ttl_s": "short", "port": 99999, "zone": ""}
    with pytest.raises(ConfigError) as refused:
        parse(json.dumps(document))
    assert {problem.field for problem in refused.value.problems} == {"ttl_s", "port", "zone"}


@pytest.mark.parametrize("text", ["", "[]", "a: [", "7"])
def test_what_is_no_configuration_is_refused(text):
    with pytest.raises(ConfigError):
        parse(text)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match="a file that can be read"):
        load(tmp_path / "none.yaml")
