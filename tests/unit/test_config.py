"""Configurations: what is refused and how it is said, and what a sound one answers."""

from __future__ import annotations

import contextlib
import copy
import random
import re
import time
from ipaddress import ip_address

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from maglev import config, document, packets
from maglev.config import Config, HealthCheck, Member
from maglev.errors import ConfigError, MaglevError

properties = settings(deadline=None)  # a busy machine is no fault

SOUND = {
    "shard": "default",
    "maglevs": [{"name": "m1", "address": "10.1.1.2"}, {"name": "m2", "address": "10.1.2.2"}],
    "pools": {
        "web": {
            "endpoints": [{"address": "10.2.2.2", "weight": 2}, {"address": "10.2.1.2"}],
            "health_check": {"type": "http", "port": 80, "path": "/healthz"},
        },
        "dns": {"endpoints": [{"address": "10.2.1.2"}], "health_check": {"type": "ping"}},
        "all": {"pools": ["web", "dns"]},
    },
    "vips": [
        {"name": "www", "address": "192.0.2.2", "protocol": "tcp", "port": 80, "pool": "web"},
        {"name": "dns", "address": "192.0.2.1", "protocol": "udp", "port": 53, "pool": "all"},
    ],
    "forwarder": {"engine": "socket", "table_size": 7, "connection_table": {"capacity": 100}},
}
MISSING = "left out"
BOTH_FAMILIES = {"maglevs[0].address6": "fd00::1:1", "maglevs[1].address6": "fd00::1:2"}


def text_of(changes=None):
    """The sound document as YAML, with the value at each path of `changes` replaced, or taken away if MISSING."""
    tree = copy.deepcopy(SOUND)
    for path, value in (changes or {}).items():
        *way, last = [int(part) if part.isdigit() else part for part in re.findall(r"\w+", path)]
        place = tree
        for part in way:
            place = place[part]
        if value is MISSING:
            del place[last]
        elif isinstance(place, list) and last == len(place):
            place.append(value)
        else:
            place[last] = value
    return yaml.safe_dump(tree)


def parsed(changes=None):
    return config.parse(text_of(changes))


def problems(text):
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "site.yaml")
    assert all(problem.file == "site.yaml" and problem.allowed for problem in caught.value.problems)
    return [(problem.field, problem.value, problem.allowed) for problem in caught.value.problems]


A_VIP = {"name": "x", "address": "192.0.2.9", "protocol": "tcp", "port": 80, "pool": "web"}
A_PING = {"type": "ping"}

DNS_CHECK = "pools.dns.health_check"


def as_check(check):
    """Puts a whole health check in the place of one."""
    return {DNS_CHECK: check}


def as_quic(cid, protocol="udp"):
    """Puts a VIP that goes by connection IDs in the place of one."""
    return {"vips[0]": A_VIP | {"protocol": protocol, "port": 443, "quic_cid": cid}}


# what is changed in the sound document; and the problem: field, value, what `allowed` says
BAD = [
    # one field
    ({"vips[0].port": -1}, "vips[0].port", -1, "from 1 to 65535, or 0 for any"),
    ({"vips[0].port": 65536}, "vips[0].port", 65536, "from 1 to 65535, or 0 for any"),
    ({"vips[0].port": "80"}, "vips[0].port", "80", "whole number"),
    ({"vips[0].port": True}, "vips[0].port", True, "whole number"),
    ({"vips[0].port": MISSING}, "vips[0].port", None, "required"),
    ({"vips[0].protocol": "sctp"}, "vips[0].port", 80, "in tcp and udp only, not in sctp"),
    ({"vips[0].protocol": 132}, "vips[0].port", 80, "0, or no port at all"),
    ({"vips[0].protocol": "icmp"}, "vips[0].protocol", "icmp", "tcp, udp, sctp, esp, ah, gre, or a protocol number"),
    ({"vips[0].protocol": 256}, "vips[0].protocol", 256, "a protocol number from 0 to 255"),
    ({"vips[0].protocol": True}, "vips[0].protocol", True, "a protocol number from 0 to 255"),
    ({"vips[0].protocol": 6.0}, "vips[0].protocol", 6.0, "a protocol number from 0 to 255"),
    ({"vips[0].protocol": MISSING}, "vips[0].protocol", None, "required"),
    ({"vips[0].affinity": "source"}, "vips[0].affinity", "source", "connection or client"),
    ({"vips[0].idle_timeout_s": 0}, "vips[0].idle_timeout_s", 0, "a number above 0"),
    ({"vips[0].idle_timeout_s": 60.5}, "vips[0].idle_timeout_s", 60.5, "at most 60, which forwarder.connection_table"),
    (as_quic(4), "vips[0].quic_cid", 4, "a mapping with the keys config_id, server_id_bytes"),
    (as_quic({}, "tcp"), "vips[0].quic_cid", "a mapping", "none: QUIC comes over udp, not over tcp"),
    (as_quic({"config_id": 7}), "vips[0].quic_cid.config_id", 7, "a whole number from 0 to 6"),
    (as_quic({"server_id_bytes": 16}), "vips[0].quic_cid.server_id_bytes", 16, "a whole number from 1 to 15"),
    (as_quic({"server_id_bytes": 1}), "vips[0].quic_cid.server_id_bytes", 1, "10.2.1.2 and 10.2.2.2 end in the same 1"),
    ({"vips[0].name": "a b"}, "vips[0].name", "a b", "letters, digits"),
    ({"vips[0].name": 5}, "vips[0].name", 5, "in quotes"),
    ({"vips[0].address": "192.0.2"}, "vips[0].address", "192.0.2", "IP address"),
    ({"vips[0].address": 1}, "vips[0].address", 1, "IP address"),
    ({"vips[0].address": "fe80::1%eth0"}, "vips[0].address", "fe80::1%eth0", "IP address"),
    ({"vips[0].wieght": 1}, "vips[0].wieght", 1, "only the keys name, address, prefix_group, suffix"),
    ({"vips[0]": "www"}, "vips[0]", "www", "a mapping with the keys name, address"),
    ({"vips": {"www": {}}}, "vips", "a mapping", "a list of VIPs"),
    ({"vip": []}, "vip", "a list", "only the keys shard, maglevs, pools, prefix_groups, vips"),
    ({"maglevs": {}}, "maglevs", "a mapping", "a list of Maglevs"),
    ({"maglevs": []}, "maglevs", "an empty list", "at least one Maglev"),
    ({"shard": ""}, "shard", "", "a name"),
    ({"pools.web.endpoints[1].weight": -1}, "pools.web.endpoints[1].weight", -1, "0 or more"),
    ({"pools.web.endpoints[1].weight": True}, "pools.web.endpoints[1].weight", True, "finite number"),
    ({"pools.web.endpoints[1].weight": float("inf")}, "pools.web.endpoints[1].weight", float("inf"), "finite number"),
    ({"pools.web.endpoints[0]": "10.2.1.2"}, "pools.web.endpoints[0]", "10.2.1.2", "the keys address, weight"),
    ({"pools.x": None}, "pools.x", None, "the keys endpoints, pools, health_check"),
    ({"forwarder.engine": "dpdk"}, "forwarder.engine", "dpdk", "auto, xdp, ring or socket"),
    ({"forwarder.busy_poll": 1}, "forwarder.busy_poll", 1, "true or false"),
    ({"forwarder.hash": "md5"}, "forwarder.hash", "md5", "maglev, modulo, ring or rendezvous"),
    ({"forwarder.threads": 0}, "forwarder.threads", 0, "packet threads, a whole number from 1 to 64"),
    ({"forwarder.threads": 65}, "forwarder.threads", 65, "packet threads, a whole number from 1 to 64"),
    ({"forwarder.table_size": 65536}, "forwarder.table_size", 65536, "the nearest are 65521 and 65537"),
    ({"forwarder.table_size": 10**30}, "forwarder.table_size", 10**30, "a prime from 2 to"),
    ({"forwarder.connection_table.capacity": 0}, "forwarder.connection_table.capacity", 0, "whole number from 1"),
    ({"forwarder.connection_table.enabled": "on"}, "forwarder.connection_table.enabled", "on", "true or false"),
    (
        {"forwarder.connection_table.max_share_per_source": 0},
        "forwarder.connection_table.max_share_per_source",
        0,
        "a number above 0, at most 1",
    ),
    (
        {"forwarder.connection_table.max_share_per_source": 1.5},
        "forwarder.connection_table.max_share_per_source",
        1.5,
        "a number above 0, at most 1",
    ),
    (
        {"forwarder.connection_table.max_share_per_source": "50%"},
        "forwarder.connection_table.max_share_per_source",
        "50%",
        "a number above 0, at most 1",
    ),
    ({"forwarder.connection_table.idle_timeout_s": 0}, "forwarder.connection_table.idle_timeout_s", 0, "above 0"),
    ({"forwarder.fragments": {"packets": 0}}, "forwarder.fragments.packets", 0, "whose fragments are followed"),
    (
        {"forwarder.fragments": {"held_fragments": -1}},
        "forwarder.fragments.held_fragments",
        -1,
        "that wait for a first",
    ),
    ({"forwarder.fragments": {"held_bytes": 1.5}}, "forwarder.fragments.held_bytes", 1.5, "a whole number from 0"),
    ({"forwarder.fragments": {"timeout_s": 0}}, "forwarder.fragments.timeout_s", 0, "0.01 to 3600"),
    ({"forwarder.fragments": {"size": 1}}, "forwarder.fragments.size", 1, "only the keys packets, held_fragments"),
    ({"forwarder.icmp_errors_per_s": -1}, "forwarder.icmp_errors_per_s", -1, "a number from 0 to 1000000"),
    ({"forwarder.trace_reports_per_s": -1}, "forwarder.trace_reports_per_s", -1, "a number from 0 to 1000"),
    ({"forwarder.trace_reports_per_s": 1001}, "forwarder.trace_reports_per_s", 1001, "a number from 0 to 1000"),
    # metrics
    ({"endpoint": {"vip_linger_s": -1}}, "endpoint.vip_linger_s", -1, "seconds that open connections keep a VIP"),
    ({"endpoint": {"vip_linger_s": 86401}}, "endpoint.vip_linger_s", 86401, "a number from 0 to 86400"),
    ({"endpoint": {"vip_linger_s": "60"}}, "endpoint.vip_linger_s", "60", "seconds"),
    ({"endpoint": {"linger": 1}}, "endpoint.linger", 1, "only the keys vip_linger_s"),
    ({"endpoint": []}, "endpoint", "a list", "a mapping with the keys vip_linger_s"),
    ({"metrics": {"port": -1}}, "metrics.port", -1, "a whole number from 1 to 65535, or 0 or null for no metrics"),
    ({"metrics": {"port": 65536}}, "metrics.port", 65536, "from 1 to 65535"),
    ({"metrics": {"port": "9400"}}, "metrics.port", "9400", "a whole number"),
    ({"metrics": {"address": "::"}}, "metrics.address", "::", "only the keys port"),
    ({"metrics": 9400}, "metrics", 9400, "a mapping with the keys port"),
    # health checks
    (
        {"pools.web.health_check.type": "icmp"},
        "pools.web.health_check.type",
        "icmp",
        "ping, tcp, http, udp, dns or script",
    ),
    ({"pools.web.health_check.port": MISSING}, "pools.web.health_check.port", None, "type http needs"),
    ({"pools.dns.health_check.type": "tcp"}, "pools.dns.health_check.port", None, "type tcp needs"),
    ({"pools.dns.health_check.port": 53}, "pools.dns.health_check.port", 53, "no port"),
    ({"pools.web.health_check.path": "x"}, "pools.web.health_check.path", "x", "starts with /"),
    ({"pools.web.health_check.path": "/a b"}, "pools.web.health_check.path", "/a b", "no blanks"),
    (
        {"pools.web.health_check.type": "tcp"},
        "pools.web.health_check.path",
        "/healthz",
        "no path in a check of type tcp",
    ),
    ({"pools.web.health_check.timeout_s": 1.5}, "pools.web.health_check.timeout_s", 1.5, "the interval, 1 s"),
    ({"pools.web.health_check.interval_s": 0.25}, "pools.web.health_check.timeout_s", 0.5, "the interval, 0.25 s"),
    ({"pools.web.health_check.interval_s": 0}, "pools.web.health_check.interval_s", 0, "0.01 to 3600"),
    ({"pools.web.health_check.rise": 0}, "pools.web.health_check.rise", 0, "from 1 to 100"),
    ({"pools.web.health_check.fall": 1.5}, "pools.web.health_check.fall", 1.5, "whole number"),
    (
        as_check({"type": "ping", "through": "tunnel"}),
        f"{DNS_CHECK}.through",
        "tunnel",
        "address (the endpoint's own), or vip",
    ),
    (as_check({"type": "script", "through": "vip", "command": ["/x"]}), f"{DNS_CHECK}.through", "vip", "address"),
    (as_check({"type": "http", "port": 80, "host": "a b"}), f"{DNS_CHECK}.host", "a b", "without blanks"),
    (as_check({"type": "tcp", "port": 80, "host": "a"}), f"{DNS_CHECK}.host", "a", "no host in a check of type tcp"),
    (
        as_check({"type": "http", "port": 80, "status": 600}),
        f"{DNS_CHECK}.status",
        600,
        "a status from 100 to 599, a range",
    ),
    (
        as_check({"type": "http", "port": 80, "status": True}),
        f"{DNS_CHECK}.status",
        True,
        "a status from 100 to 599, a range",
    ),
    (as_check({"type": "http", "port": 80, "status": "300-200"}), f"{DNS_CHECK}.status", "300-200", "such as 200-399"),
    (
        as_check({"type": "http", "port": 80, "status": [200, "2xx"]}),
        f"{DNS_CHECK}.status",
        "a list",
        "or a list of these",
    ),
    (as_check({"type": "http", "port": 80, "status": []}), f"{DNS_CHECK}.status", "a list", "or a list of these"),
    (as_check({"type": "http", "port": 80, "body": ""}), f"{DNS_CHECK}.body", "", "1 to 1024 characters"),
    (
        as_check({"type": "http", "port": 80, "body": "x" * 1025}),
        f"{DNS_CHECK}.body",
        "x" * 80 + "…",
        "1 to 1024 characters",
    ),
    (as_check({"type": "udp", "send": "x"}), f"{DNS_CHECK}.port", None, "type udp needs"),
    (as_check({"type": "udp", "port": 7}), f"{DNS_CHECK}.send", None, "type udp needs"),
    (as_check({"type": "udp", "port": 7, "send": "hex:0"}), f"{DNS_CHECK}.send", "hex:0", "hex digits in pairs"),
    (
        as_check({"type": "udp", "port": 7, "send": "x", "expect": "hex:zz"}),
        f"{DNS_CHECK}.expect",
        "hex:zz",
        "hex digits in pairs",
    ),
    (
        as_check({"type": "udp", "port": 7, "send": "x", "query": "a"}),
        f"{DNS_CHECK}.query",
        "a",
        "no query in a check of type udp",
    ),
    (as_check({"type": "dns"}), f"{DNS_CHECK}.query", None, "type dns needs: for dns: the name that is asked for"),
    (as_check({"type": "dns", "query": "a..b"}), f"{DNS_CHECK}.query", "a..b", "such as www.example.com"),
    (as_check({"type": "dns", "query": "a" * 64}), f"{DNS_CHECK}.query", "a" * 64, "such as www.example.com"),
    (as_check({"type": "dns", "query": "a", "record": "a"}), f"{DNS_CHECK}.record", "a", "A, AAAA, CNAME, MX"),
    (as_check({"type": "script"}), f"{DNS_CHECK}.command", None, "type script needs: for script: a list of words"),
    (as_check({"type": "script", "command": "/x"}), f"{DNS_CHECK}.command", "/x", "a list of words"),
    (as_check({"type": "script", "command": []}), f"{DNS_CHECK}.command", "a list", "the first an absolute path"),
    (as_check({"type": "script", "command": ["x"]}), f"{DNS_CHECK}.command", "a list", "the first an absolute path"),
    (as_check({"type": "script", "command": ["/x", 1]}), f"{DNS_CHECK}.command[1]", 1, "a list of words"),
    (
        as_check({"type": "script", "command": ["/x"], "port": 80}),
        f"{DNS_CHECK}.port",
        80,
        "no port in a check of type script",
    ),
    (as_check({"type": "ping", "flap_changes": 1}), f"{DNS_CHECK}.flap_changes", 1, "from 2 to 100, or 0"),
    (as_check({"type": "ping", "flap_changes": 101}), f"{DNS_CHECK}.flap_changes", 101, "from 2 to 100, or 0"),
    (
        as_check({"type": "ping", "flap_window_s": 0}),
        f"{DNS_CHECK}.flap_window_s",
        0,
        "seconds, a number from 0.01 to 3600",
    ),
    (
        as_check({"type": "ping", "hold_down_s": "1m"}),
        f"{DNS_CHECK}.hold_down_s",
        "1m",
        "seconds, a number from 0.01 to 3600",
    ),
    # names
    ({"pools": {"a b": {}}, "vips": []}, "pools.a b", "a b", "letters, digits"),
    ({"maglevs[1].name": "m1"}, "maglevs[1].name", "m1", "maglevs[0].name has this one"),
    ({"vips[1].name": "www"}, "vips[1].name", "www", "vips[0].name has this one"),
    ({"vips[0].pool": "wob"}, "vips[0].pool", "wob", "the name of a pool: all, dns, web"),
    ({"pools.all.pools": ["web", "wob"]}, "pools.all.pools[1]", "wob", "the name of a pool: all, dns, web"),
    ({"pools.all.pools": ["web", "web"]}, "pools.all.pools[1]", "web", "pools.all.pools[0] has this one"),
    ({"pools": {}, "vips[1]": MISSING}, "vips[0].pool", "web", "(there is none)"),
    # pools that lead back to themselves, and pools of nothing
    ({"pools.all.pools": ["web", "all"]}, "pools.all.pools[1]", "all", "as all -> all does"),
    ({"pools.web.pools": ["dns", "all"]}, "pools.web.pools[1]", "all", "as all -> web -> all does"),
    ({"pools.web": {}}, "vips[0].pool", "web", "at least one endpoint"),
    ({"pools.all.pools": ["e"], "pools.e": {"pools": []}}, "vips[1].pool", "all", "at least one endpoint"),
    # shards
    ({"vips[1].shard": "b"}, "vips[1].shard", "b", "some Maglev serves: default"),
    ({"maglevs[0].shard": "a", "maglevs[1].shard": "b", "vips[1].shard": "a"}, "vips[0].shard", "default", ": a, b"),
    ({"maglevs[0].shard": "a", "maglevs[0].name": "", "vips[0].shard": "a"}, "maglevs[0].name", "", "a name"),
    # addresses
    ({"maglevs[1].address": "10.1.1.2"}, "maglevs[1].address", "10.1.1.2", "maglevs[0].address has this one"),
    ({"pools.web.endpoints[1].address": "10.2.2.2"}, "pools.web.endpoints[1].address", "10.2.2.2", "larger weight"),
    (
        {"vips[1]": A_VIP | {"address": "192.0.2.2"}},
        "vips[1]",
        "192.0.2.2 tcp 80",
        "that no other VIP has; vips[0] has this one",
    ),
    (
        {
            "vips[0].protocol": "udp",
            "vips[0].port": 0,
            "vips[1]": A_VIP | {"address": "192.0.2.2/32", "protocol": 17, "port": 0},
        },
        "vips[1]",
        "192.0.2.2 udp 0",
        "that no other VIP has; vips[0] has this one",
    ),
    ({"vips[0].address": "10.1.2.2"}, "vips[0].address", "10.1.2.2", "no machine has; maglevs[1].address has 10.1.2.2"),
    (
        {"vips[0].address": "10.2.2.2"},
        "vips[0].address",
        "10.2.2.2",
        "no machine has; pools.web.endpoints[0].address has 10.2.2.2",
    ),
    (
        {"vips[0].address": "10.2.0.0/16"},
        "vips[0].address",
        "10.2.0.0/16",
        "no machine has; pools.web.endpoints[1].address has 10.2.1.2",
    ),
    (
        {"vips[0].address": "192.0.2.2/24"},
        "vips[0].address",
        "192.0.2.2/24",
        "bits set behind it: 192.0.2.0/24, or one",
    ),
    (
        {"vips[0].address": "2001:db8::1/64"},
        "vips[0].address",
        "2001:db8::1/64",
        "2001:db8::/64, or one address: 2001:",
    ),
    ({"vips[0].address": "192.0.2.0/33"}, "vips[0].address", "192.0.2.0/33", "or prefix, such as 192.0.2.1 or 192.0"),
    (
        {"vips[0].address": "192.0.2.0/0.0.0.255"},
        "vips[0].address",
        "192.0.2.0/0.0.0.255",
        "such as 192.0.2.1 or 192.0",
    ),
    ({"vips[0].address": "fe80::%eth0/64"}, "vips[0].address", "fe80::%eth0/64", "such as 192.0.2.1 or 192.0"),
    ({"vips[0].prefix_length": 24}, "vips[0].prefix_length", 24, "from 0 to 32, with no bits set in 192.0.2.2 behind"),
    ({"vips[0].prefix_length": 33}, "vips[0].prefix_length", 33, "a whole number from 0 to 32"),
    ({"vips[0].prefix_length": "31"}, "vips[0].prefix_length", "31", "a whole number"),
    ({"vips[0].address": "192.0.2.0/24", "vips[0].prefix_length": 24}, "vips[0]", "a mapping", "not both"),
    (
        {"vips[0]": A_VIP | {"address": "2001:db8::1", "protocol": "ah", "port": 0}},
        "vips[0].protocol",
        "ah",
        "no extension",
    ),
    (
        {"vips[0]": A_VIP | {"address": "2001:db8::1", "protocol": 44, "port": 0}},
        "vips[0].protocol",
        44,
        "what follows",
    ),
    ({"vips[0].address": "0.0.0.0"}, "vips[0].address", "0.0.0.0", "not unspecified"),
    ({"vips[0].address": "127.0.0.1"}, "vips[0].address", "127.0.0.1", "loopback"),
    ({"maglevs[0].address": "224.0.0.1"}, "maglevs[0].address", "224.0.0.1", "multicast"),
    (
        {"pools.dns.endpoints[0].address": "255.255.255.255"},
        "pools.dns.endpoints[0].address",
        "255.255.255.255",
        "reserved",
    ),
    ({"vips[0].address": "fe80::1"}, "vips[0].address", "fe80::1", "not link-local"),
    ({"vips[0].address": "::1"}, "vips[0].address", "::1", "loopback"),
    ({"vips[0].address": "ff02::1"}, "vips[0].address", "ff02::1", "multicast"),
    ({"vips[0].address": "::ffff:192.0.2.1"}, "vips[0].address", "::ffff:c000:201", "reserved"),
    ({"vips[0].address": "fe80::1%eth0"}, "vips[0].address", "fe80::1%eth0", "an IP address or prefix, such as"),
    # families
    ({"maglevs[0].address6": "10.1.1.9"}, "maglevs[0].address6", "10.1.1.9", "an IPv6 address, such as"),
    ({"maglevs[0].address6": "fd00::1%eth0"}, "maglevs[0].address6", "fd00::1%eth0", "an IPv6 address, such as"),
    ({"maglevs[0].address6": 6}, "maglevs[0].address6", 6, "an IPv6 address, such as"),
    ({"maglevs[0].address6": "ff02::1"}, "maglevs[0].address6", "ff02::1", "multicast"),
    (
        BOTH_FAMILIES | {"maglevs[1].address6": "fd00::1:1"},
        "maglevs[1].address6",
        "fd00::1:1",
        "maglevs[0].address6 has this one",
    ),
    (BOTH_FAMILIES | {"vips[0].address": "fd00::1:2"}, "vips[0].address", "fd00::1:2", "maglevs[1].address6 has"),
    (
        {"pools.dns.endpoints[0].address": "fd00::2:1"},
        "pools.dns.endpoints[0].address",
        "fd00::2:1",
        "a family that all Maglevs of shard default have; without IPv6 are m1, m2",
    ),
    (
        {"maglevs[0].address6": "fd00::1:1", "pools.dns.endpoints[0].address": "fd00::2:1"},
        "pools.dns.endpoints[0].address",
        "fd00::2:1",
        "without IPv6 are m2",
    ),
    (
        {"vips": [A_VIP], "maglevs[1].address": "fd00::1:2", "pools.web.endpoints": [{"address": "10.2.1.2"}]},
        "pools.web.endpoints[0].address",
        "10.2.1.2",
        "without IPv4 are m2",
    ),
    (
        {"maglevs[0].address": "fd00::1:1", "maglevs[0].address6": "fd00::1:2", "maglevs[0].shard": "other"},
        "maglevs[0].address6",
        "fd00::1:2",
        "beside an IPv4 address in `address`",
    ),
]


@pytest.mark.parametrize(("changes", "field", "value", "allowed"), BAD, ids=lambda value: str(value)[:50])
def test_refuses_what_is_wrong_and_nothing_else(changes, field, value, allowed):
    found = problems(text_of(changes))
    assert [problem[:2] for problem in found] == [(field, value)]
    assert allowed in found[0][2]


# texts that are no configuration; and the problem: field, value, what `allowed` says
BAD_TEXTS = [
    ("", "document", "an empty file", "one YAML document"),
    ("# nothing yet\n", "document", "an empty file", "one YAML document"),
    ("- 1", "document", "a list", "a mapping with the keys shard, maglevs"),
    ("--- \n", "document", None, "a mapping with the keys shard, maglevs"),
    ("a: 1\n---\nb: 2\n", "line 2, column 1", "a second document", "one YAML document"),
    ("a: 1\nb: [\n", "line 3, column 1", "did not find expected node content", "YAML"),
    ("a:\n\tb: 1", "line 2, column 1", "found character that cannot start any token", "YAML"),
    ("a: \x07", "document", "unacceptable character #x0007: control characters are not allowed", "printable"),
    (
        "a: \ud800",
        "document",
        "'utf-8' codec can't encode character '\\ud800' in position 3: surrogates not allowed",
        "",
    ),
    ("{[1]: 2}", "line 1, column 2", "this key", "a text"),
    ("? \n: 1", "line 1, column 2", "", "printable"),
    ('"a\\nb": 1', "line 1, column 1", "a\nb", "printable"),
    ("a: !!python/name:os.system x", "a", "tag:yaml.org,2002:python/name:os.system", "without a tag"),
    ("a: !list [1]", "a", "!list", "without a tag"),
    ("a: &x [1]\nb: [2, *x]", "b[1]", "*x", "no aliases"),
    ("&x [*x]", "[0]", "*x", "no aliases"),
    ("{a: " * 50_000, "line 1, column 85", "deeper nesting", "20 levels"),
]


@pytest.mark.parametrize(("text", "field", "value", "allowed"), BAD_TEXTS, ids=lambda value: str(value)[:30])
def test_refuses_texts_that_cannot_be_read(text, field, value, allowed):
    found = problems(text)
    assert [problem[:2] for problem in found] == [(field, value)]
    assert allowed in found[0][2]


def test_numbers_that_readers_of_yaml_disagree_on_are_not_numbers():
    text = text_of({"forwarder": MISSING}) + "forwarder: {table_size: 017, connection_table: {idle_timeout_s: 1:30}}"
    assert [problem[:2] for problem in problems(text)] == [
        ("forwarder.table_size", "017"),
        ("forwarder.connection_table.idle_timeout_s", "1:30"),
    ]
    assert config.parse(text.replace("017", "0x1f").replace("1:30", "1_0.5")).forwarder.table_size == 31


def test_reads_the_same_without_the_loader_in_c(monkeypatch):
    monkeypatch.setattr(document, "_LOADER", yaml.SafeLoader)
    assert parsed() == Config.model_validate(parsed().model_dump())
    for text in ("", "a: 1\n---\nb: 2\n", "a: [", "a: \x07", "a: &x [1]\nb: [2, *x]", "{a: " * 50_000):
        assert len(problems(text)) == 1


def test_names_every_key_that_stands_twice_and_all_else_that_is_wrong():
    text = (
        text_of({"vips[0].port": -1, "pools.all.pools": ["all"]}) + "vips: []\nforwarder: {threads: 1, threads: 70}\n"
    )
    assert [problem[:2] for problem in problems(text)] == [
        ("vips", "vips"),
        ("forwarder", "forwarder"),
        ("forwarder.threads", "threads"),
        ("forwarder.threads", 70),
        ("pools.all.pools[0]", "all"),
    ]


def test_a_bad_object_does_not_hide_what_is_wrong_with_others():
    changes = {
        "vips[0].port": -1,
        "vips[1].pool": "wob",
        "pools.web.endpoints[0].weight": -1,
        "maglevs[0].address": "x",
    }
    assert {problem[0] for problem in problems(text_of(changes | {"forwarder.threads": 0}))} == {
        *changes,
        "forwarder.threads",
    }


def test_names_two_cycles_and_each_once():
    nested = {"a": ["b"], "b": ["c"], "c": ["a"], "x": ["y"], "y": ["x", "a"]}
    found = problems(text_of({"pools": {name: {"pools": pools} for name, pools in nested.items()}, "vips": []}))
    assert {allowed.split(", as ")[1] for _, _, allowed in found} == {"a -> b -> c -> a does", "x -> y -> x does"}
    assert len(found) == 2


def test_a_message_stays_short_whatever_was_found():
    for value in ("x" * 10_000, list(range(10_000)), {str(i): i for i in range(10_000)}):
        [(_, shown, _)] = problems(text_of({"vips[0].protocol": value}))
        assert len(str(shown)) < 100


def test_error_text_has_a_line_for_each_problem():
    with pytest.raises(ConfigError) as caught:
        config.parse(text_of({"maglevs[0].address": 0, "maglevs[1].address": 0}), "site.yaml")
    assert str(caught.value).splitlines() == [
        f"site.yaml: maglevs[{i}].address: 0 is not allowed; allowed: an IP address, such as 192.0.2.1" for i in (0, 1)
    ]


def test_load_reads_a_file(tmp_path):
    (tmp_path / "site.yaml").write_text(text_of(), "utf-8")
    assert config.load(tmp_path / "site.yaml") == parsed()


def test_load_names_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "latin").write_bytes(b"shard: caf\xe9\n")
    for name, value in (("none", "No such file or directory"), (".", "Is a directory"), ("latin", b"\xe9")):
        with pytest.raises(ConfigError) as caught:
            config.load(tmp_path / name)
        assert [(problem.file, problem.value) for problem in caught.value.problems] == [(str(tmp_path / name), value)]
    with pytest.raises(ConfigError):
        config.load("\0")


def test_fills_in_defaults():
    whole = parsed({"forwarder": MISSING})
    assert whole.forwarder.model_dump() == {
        "engine": "auto",
        "table_size": 65537,
        "hash": "maglev",
        "connection_table": {
            "enabled": True,
            "capacity": 1 << 20,
            "idle_timeout_s": 60.0,
            "max_share_per_source": 0.5,
            "huge_pages": False,
        },
        "threads": 1,
        "busy_poll": False,
        "fragments": {
            "packets": 4096,
            "held_fragments": 1024,
            "held_bytes": 4 << 20,
            "timeout_s": 2.0,
            "health_check": whole.forwarder.fragments.health_check.model_dump(),
        },
        "icmp_errors_per_s": 1000.0,
        "trace_reports_per_s": 10.0,
    }
    check = whole.forwarder.fragments.health_check
    assert (check.type, check.interval_s, check.rise, check.fall) == ("ping", 1.0, 2, 3)
    assert (whole.vips[0].affinity, whole.vips[0].idle_timeout_s) == ("connection", None)
    assert whole.pools["web"].endpoints[1].weight == 1
    assert whole.pools["web"].health_check == HealthCheck(
        type="http", port=80, path="/healthz", interval_s=1, timeout_s=0.5, rise=2, fall=2
    )
    assert parsed({"pools.web.health_check.path": MISSING}).pools["web"].health_check.path == "/"


# what is said of a VIP; and what it is: as shown, protocol, port
VIPS = [
    ({"address": "192.0.2.1"}, ("192.0.2.1", 6, 80)),
    ({"address": "192.0.2.1/32"}, ("192.0.2.1", 6, 80)),
    ({"address": "2001:DB8:0::1/128"}, ("2001:db8::1", 6, 80)),
    ({"address": "192.0.2.0/28"}, ("192.0.2.0/28", 6, 80)),
    ({"address": "192.0.2.0", "prefix_length": 28}, ("192.0.2.0/28", 6, 80)),
    ({"address": "192.0.2.0/28", "prefix_length": None}, ("192.0.2.0/28", 6, 80)),
    ({"address": "2001:db8::/32"}, ("2001:db8::/32", 6, 80)),
    ({"protocol": 17}, ("192.0.2.9", 17, 80)),
    ({"port": 0}, ("192.0.2.9", 6, 0)),
    ({"protocol": "sctp", "port": MISSING}, ("192.0.2.9", 132, 0)),
    ({"protocol": "ah", "port": 0}, ("192.0.2.9", 51, 0)),
    ({"protocol": 0, "port": MISSING}, ("192.0.2.9", 0, 0)),
    ({"address": "2001:db8::1", "protocol": "esp", "port": MISSING}, ("2001:db8::1", 50, 0)),
]


@pytest.mark.parametrize(("changes", "expected"), VIPS, ids=lambda value: str(value)[:60])
def test_a_vip_is_an_address_or_a_prefix_and_has_ports_where_its_protocol_has(changes, expected):
    said = {key: value for key, value in (A_VIP | changes).items() if value is not MISSING}
    vip = parsed({"vips[0]": said}).vips[0]
    found = vip.shown, vip.protocol_number, vip.port
    assert found == expected, f"{said} should be {expected}, but is {found}"
    assert parsed({"vips[0]": vip.model_dump(mode="json")}).vips[0] == vip, "and be read back as the same"


def test_protocols_that_no_ipv6_vip_can_have_are_those_that_the_parser_passes_over():
    seen = [number for number in range(256) if number != 6 and packets.parse_v6(v6_packet(number)).protocol == number]
    taken = [number for number in range(256) if number != 6 and takes_v6(number)]
    assert taken == seen, "a VIP should be of any protocol that a packet may have, and of no other"


def v6_packet(protocol):
    """An IPv6 packet of 32 bytes: where they begin with an extension header, what follows it is "no next header"."""
    return bytes.fromhex(f"60000000 0020 {protocol:02x} 40") + bytes(32) + b"\x3b" + bytes(31)


def takes_v6(protocol):
    with contextlib.suppress(ConfigError):
        changed = {"address": "2001:db8::1", "protocol": protocol, "port": 0}
        return bool(parsed({"vips[0]": A_VIP | changed}))
    return False


def test_a_vip_inside_of_anothers_prefix_is_another_vip():
    whole = parsed({"vips[0].address": "192.0.2.0/24", "vips[1]": A_VIP, "vips[2]": A_VIP | {"name": "y", "port": 0}})
    assert [vip.shown for vip in whole.vips_of("default")] == ["192.0.2.0/24", "192.0.2.9", "192.0.2.9"]


def test_a_vip_that_holds_many_machines_is_one_problem():
    found = problems(text_of({"vips[0].address": "10.0.0.0/8"}))
    expected = "addresses that no machine has; maglevs[0].address has 10.1.1.2"
    assert found == [("vips[0].address", "10.0.0.0/8", expected)], found


@pytest.mark.parametrize(("said", "port"), [({}, 9400), ({"port": 80}, 80), ({"port": 0}, 0), ({"port": None}, 0)])
def test_metrics_are_served_unless_switched_off(said, port):
    assert parsed({"metrics": said}).metrics.port == port
    assert parsed().metrics.port == 9400


def test_the_default_shard_is_that_of_every_maglev_and_vip_without_one():
    whole = parsed({"shard": "north", "maglevs[0].shard": "south", "vips[0].shard": "south"})
    assert [machine.shard for machine in whole.maglevs] == ["south", "north"]
    assert [vip.shard for vip in whole.vips] == ["south", "north"]


def test_a_shard_may_have_a_maglev_and_no_vip():
    assert parsed({"maglevs[0].shard": "idle"}).vips_of("idle") == ()


def test_a_pool_that_no_vip_uses_may_be_empty():
    assert parsed({"pools.later": {}}).pool_members("later") == ()


def test_vips_of_a_shard_are_sorted_by_address_protocol_and_port():
    def vip(name, address, protocol, port, shard="default"):
        return {"name": name, "address": address, "protocol": protocol, "port": port, "pool": "web", "shard": shard}

    vips = [
        vip("e", "192.0.2.10", "tcp", 80),
        vip("d", "192.0.2.9", "udp", 5),
        vip("c", "192.0.2.9", "tcp", 443),
        vip("b", "192.0.2.9", "tcp", 80),
        vip("x", "192.0.2.1", "tcp", 80, "other"),
    ]
    whole = parsed({"vips": vips, "maglevs[0].shard": "other"})
    assert [vip.name for vip in whole.vips_of("default")] == ["b", "c", "d", "e"]


def test_maglev_is_found_by_name():
    assert parsed().maglev("m2").address == ip_address("10.1.2.2")
    with pytest.raises(MaglevError, match="no Maglev is called m3; there are: m1, m2"):
        parsed().maglev("m3")


PING, HTTP = HealthCheck(type="ping"), HealthCheck(type="http", port=80, path="/healthz")


def test_a_maglev_has_an_address_of_each_family_or_of_one():
    changes = {"vips": [], "maglevs[0].address": "fd00::1:1", "maglevs[1].address6": "fd00::1:2"}
    first, second = parsed(changes).maglevs
    v4, v6 = ip_address("10.2.1.2"), ip_address("fd00::2:1")
    assert first.addresses == (ip_address("fd00::1:1"),)
    assert second.addresses == (ip_address("10.1.2.2"), ip_address("fd00::1:2"))
    assert [first.address_towards(peer) for peer in (v4, v6)] == [None, ip_address("fd00::1:1")]
    assert [second.address_towards(peer) for peer in (v4, v6)] == list(second.addresses)


def test_endpoints_need_only_be_in_reach_of_the_maglevs_that_serve_them():
    endpoints = {"pools.dns.endpoints": [{"address": "fd00::2:1"}]}
    shards = {"maglevs[0].shard": "a", "vips[1].shard": "a", "vips[1].pool": "dns", "maglevs[0].address6": "fd00::1:1"}
    members = parsed(endpoints | shards).pool_members("dns")
    assert [member.address for member in members] == [ip_address("fd00::2:1")], "m1 alone serves, and has IPv6"


def test_pool_members_are_sorted_and_weights_of_one_address_add_up():
    assert parsed().pool_members("web") == (
        Member(ip_address("10.2.1.2"), 1.0, (HTTP,)),
        Member(ip_address("10.2.2.2"), 2.0, (HTTP,)),
    )
    both = parsed().pool_members("all")
    assert [(str(member.address), member.weight) for member in both] == [("10.2.1.2", 2.0), ("10.2.2.2", 2.0)]
    assert set(both[0].health_checks) == {PING, HTTP}


def test_a_listing_is_checked_by_the_nearest_pool_that_says_how():
    pools = {
        "inner": {"endpoints": [{"address": "10.3.0.1"}]},
        "middle": {"pools": ["inner"], "health_check": {"type": "tcp", "port": 1}},
        "outer": {"pools": ["middle"], "health_check": {"type": "tcp", "port": 2}},
        "both": {"pools": ["middle", "inner"], "health_check": {"type": "tcp", "port": 3}},
    }
    whole = parsed({"pools": pools, "vips": []})
    ports = {name: {check.port for check in whole.pool_members(name)[0].health_checks} for name in pools}
    assert ports == {"inner": set(), "middle": {1}, "outer": {1}, "both": {1, 3}}


@properties
@given(st.randoms(use_true_random=False))
def test_nothing_depends_on_the_order_of_the_file(shuffler: random.Random):
    tree = copy.deepcopy(SOUND)
    tree["pools"]["all"]["endpoints"] = [{"address": f"10.3.0.{i}"} for i in range(1, 6)]
    plain = config.parse(yaml.safe_dump(tree))
    for items in (tree["vips"], tree["maglevs"], tree["pools"]["all"]["endpoints"], tree["pools"]["all"]["pools"]):
        shuffler.shuffle(items)
    names = list(tree["pools"])
    shuffler.shuffle(names)
    tree["pools"] = {name: tree["pools"][name] for name in names}
    mixed = config.parse(yaml.safe_dump(tree, sort_keys=False))
    assert mixed.vips_of("default") == plain.vips_of("default")
    assert {name: mixed.pool_members(name) for name in names} == {name: plain.pool_members(name) for name in names}


def test_thirty_storeys_of_pools_that_hold_the_next_twice_are_flattened_at_once():
    """Two ways at every storey make 2^30 ways to the bottom: they add up, and nobody walks them one by one."""
    pools = {"a30": {"endpoints": [{"address": "10.3.0.1"}]}, "b30": {"endpoints": [{"address": "10.3.0.1"}]}}
    for storey in range(30):
        pools |= {f"{side}{storey}": {"pools": [f"a{storey + 1}", f"b{storey + 1}"]} for side in "ab"}
    whole = parsed({"pools": pools, "vips": [A_VIP | {"pool": "a0"}]})
    assert whole.pool_members("a0") == (Member(ip_address("10.3.0.1"), float(2**30)),)


def test_three_thousand_nested_pools_are_no_deeper_than_the_stack():
    pools = {f"p{i}": {"pools": [f"p{i + 1}"]} for i in range(3000)} | {
        "p3000": {"endpoints": [{"address": "10.3.0.1"}]}
    }
    assert len(parsed({"pools": pools, "vips": [A_VIP | {"pool": "p0"}]}).pool_members("p0")) == 1


def test_configurations_do_not_change():
    with pytest.raises(ValidationError):
        parsed().maglevs[0].name = "other"


def test_ten_thousand_endpoints_are_read_in_a_second():
    endpoints = [{"address": f"10.{i >> 8}.{i & 255}.77"} for i in range(10_000)]
    text = text_of({"pools.all.endpoints": endpoints})
    start = time.process_time()
    whole = config.parse(text)
    assert len(whole.pool_members("all")) == 10_002
    assert time.process_time() - start < 1.0


addresses = st.integers(1, 250).map(lambda i: f"10.9.0.{i}")
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)
durations = st.floats(0.01, 3600, allow_subnormal=False)


@st.composite
def health_checks(draw):
    kind = draw(st.sampled_from(["ping", "tcp", "http", "udp", "dns", "script"]))
    interval_s = draw(durations)
    check = {"type": kind, "interval_s": interval_s, "timeout_s": draw(st.floats(0.01, interval_s))}
    check |= {} if kind in ("ping", "script") else {"port": draw(st.integers(1, 65535))}
    check |= {} if kind == "script" else {"through": draw(st.sampled_from(["address", "vip"]))}
    printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=9)
    match kind:
        case "http":
            status = draw(st.lists(st.sampled_from([200, "200-299", 404]), min_size=1))
            path = draw(st.from_regex(r"/[!-~]{0,20}", fullmatch=True))
            check |= {"path": path, "status": status, "body": draw(printable)}
        case "udp":
            check |= {"send": "hex:" + draw(st.binary(max_size=9)).hex(), "expect": draw(st.none() | names)}
        case "dns":
            check |= {"query": "www.example.com", "record": draw(st.sampled_from(["A", "AAAA", "TXT"]))}
        case "script":
            check |= {"command": ["/bin/true", *draw(st.lists(printable, max_size=3))]}
    return check


@st.composite
def documents(draw):
    """Sound documents: pools hold only pools that come before them in the list of names, so there are no cycles."""
    pool_names = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    pools = {}
    for i, name in enumerate(pool_names):
        listed = draw(st.lists(addresses, min_size=1, max_size=4, unique=True))
        pools[name] = {
            "endpoints": [{"address": address, "weight": draw(st.floats(0, 1e6))} for address in listed],
            "pools": draw(st.lists(st.sampled_from(pool_names[:i]), unique=True)) if i else [],
        }
        if draw(st.booleans()):
            pools[name]["health_check"] = draw(health_checks())
    vips = [
        {
            "name": name,
            "address": f"192.0.2.{i}",
            "protocol": "tcp",
            "port": 80,
            "pool": draw(st.sampled_from(pool_names)),
        }
        for i, name in enumerate(draw(st.lists(names, max_size=3, unique=True)))
    ]
    return {"maglevs": [{"name": "m1", "address": "10.1.1.2"}], "pools": pools, "vips": vips}


@properties
@given(documents())
def test_what_is_written_is_what_is_read(tree):
    whole = config.parse(yaml.safe_dump(tree))
    assert config.parse(yaml.safe_dump(whole.model_dump(mode="json"))) == whole
    assert {name: [e.weight for e in pool.endpoints] for name, pool in whole.pools.items()} == {
        name: [e["weight"] for e in pool["endpoints"]] for name, pool in tree["pools"].items()
    }


def total_weight(tree, name):
    pool = tree["pools"][name]
    own = sum(endpoint["weight"] for endpoint in pool["endpoints"])
    return own + sum(total_weight(tree, inner) for inner in pool["pools"])


@properties
@given(documents())
def test_no_weight_is_lost_in_flattening(tree):
    whole = config.parse(yaml.safe_dump(tree))
    for name in tree["pools"]:
        members = whole.pool_members(name)
        assert sum(member.weight for member in members) == pytest.approx(total_weight(tree, name))
        assert len({member.address for member in members}) == len(members)


KEYS = """shard maglevs pools vips forwarder name address protocol port pool endpoints weight health_check type path
    interval_s timeout_s table_size connection_table capacity web m1 << 1"""
keys = st.sampled_from(KEYS.split())
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.dates(), addresses, keys, st.binary()
)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=20
)
yaml_like = st.text(st.sampled_from("abc019 \n\t:-,?[]{}#&*!|>'\"%@`.~<=+eE_xob\ufeff\x85\0\ud800"), max_size=60)


@properties
@given(st.one_of(trees.map(yaml.safe_dump), yaml_like, st.text()))
def test_any_other_text_is_refused_as_a_configuration(text):
    with pytest.raises(ConfigError) as caught:
        config.parse(text)
    assert caught.value.problems
    assert str(caught.value)


PLACES = """shard maglevs pools vips forwarder vips[0] vips[0].port vips[0].pool maglevs[0] pools.web pools.all.pools
    pools.web.endpoints pools.web.endpoints[0] pools.web.health_check forwarder.connection_table"""


@properties
@given(st.sampled_from(PLACES.split()), trees)
def test_any_value_anywhere_is_taken_or_refused(path, value):
    with contextlib.suppress(ConfigError):
        assert len(parsed({path: value}).maglevs) == 2 or path.startswith("maglevs")
