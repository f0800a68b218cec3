"""What a software-defined router has its switch do: a naive switch carries the rules out, packet by packet."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.sdn.paths import FIRST_WORDS_S, RETURN_S, Paths, named
from lab.sdn.rules import (
    ETHERNET_BYTES,
    IPV4,
    IPV6,
    Bucket,
    Changes,
    CheckLarger,
    DecrementTtl,
    Group,
    Neighbour,
    Output,
    Port,
    SetField,
    ToGroup,
    changes,
    group,
    number_groups,
    rules,
    without_dead_ports,
)  # fmt: skip

CLIENT, MAGLEV, OTHER = 1, 2, 3  # ports
PORTS = {
    CLIENT: Port(CLIENT, 1001, "02:00:00:01:00:01", 1500),
    MAGLEV: Port(MAGLEV, 1002, "02:00:00:01:00:02", 1600),
    OTHER: Port(OTHER, 1003, "02:00:00:01:00:03", 1600),
}
NEIGHBOURS = {
    address: Neighbour(address, port, f"0a:00:00:00:00:{port:02x}")
    for address, port in {
        "10.0.1.2": CLIENT, "fd00:0:1::2": CLIENT, "10.1.1.2": MAGLEV, "fd00:1:1::2": MAGLEV, "10.1.2.2": OTHER
    }.items()
}  # fmt: skip
VIP, VIP6, PREFIX = "192.0.2.1", "2001:db8::1", "192.0.2.128/28"
ROUTES = {
    VIP: frozenset({"10.1.1.2", "10.1.2.2"}),
    VIP6: frozenset({"fd00:1:1::2"}),
    PREFIX: frozenset({"10.1.2.2"}),
    "192.0.2.9": frozenset({"10.1.9.2"}),  # nobody knows who that is
}


def packet(in_port, to, ttl=64, eth_dst=None, frame_bytes=100):
    version = ip_address(to).version
    family = {"eth_type": IPV4, "ipv4_dst": to} if version == 4 else {"eth_type": IPV6, "ipv6_dst": to}
    mac = PORTS[in_port].mac if in_port in PORTS else ""
    return {"in_port": in_port, "eth_dst": eth_dst or mac, "nw_ttl": ttl, "reg0": 0, "bytes": frame_bytes, **family}


def matches(flow, packet):
    for field, value in flow.match:
        if isinstance(value, str) and "/" in value:
            if field not in packet or ip_address(packet[field]) not in ip_network(value):
                return False
        elif packet.get(field) != value:
            return False
    return True


def carried_out(had, packet):
    """Where a switch with these rules sends a packet: (port, its link address, hops counted), or a group's number."""
    packet, table, counted = dict(packet), 0, 0
    while table is not None:
        flows = [flow for flow in had.flows if flow.table == table and matches(flow, packet)]
        highest = max(flow.priority for flow in flows)
        (flow,) = [flow for flow in flows if flow.priority == highest]
        for action in flow.actions:
            match action:
                case SetField(field, value):
                    packet[field] = value
                case DecrementTtl():
                    counted += 1
                case CheckLarger(frame_bytes):
                    packet["reg0"] = int(packet["bytes"] > frame_bytes)
                case ToGroup(number):
                    return number
                case Output(port):
                    return port, packet["eth_dst"], counted
        table = flow.goto
    return None


@pytest.fixture
def had():
    return rules(PORTS, NEIGHBOURS, ROUTES, {})


def to_kernel(port):
    return PORTS[port].inside, PORTS[port].mac, 0


@pytest.mark.parametrize("to", ["10.1.1.2", "fd00:1:1::2"])
def test_a_neighbour_is_reached_past_the_kernel(had, to):
    assert carried_out(had, packet(CLIENT, to)) == (MAGLEV, NEIGHBOURS[to].mac, 1)


@pytest.mark.parametrize(
    "strange",
    [
        packet(CLIENT, "10.0.1.1"),  # the router itself
        packet(CLIENT, "10.1.77.2"),  # a neighbour that nobody has resolved
        packet(CLIENT, "10.1.1.2", ttl=1),
        packet(CLIENT, "10.1.1.2", ttl=0),
        packet(CLIENT, "fd00:1:1::2", ttl=1),
        packet(CLIENT, VIP, ttl=1),
        packet(CLIENT, VIP, eth_dst="ff:ff:ff:ff:ff:ff"),
        packet(CLIENT, VIP, eth_dst="02:00:00:00:00:99"),  # promiscuous as a switch is, a router takes what is its own
        packet(CLIENT, "192.0.2.9"),
        packet(CLIENT, "192.0.2.2"),
        packet(CLIENT, "192.0.2.127"),
        {"in_port": CLIENT, "eth_type": 0x0806, "eth_dst": "ff:ff:ff:ff:ff:ff", "reg0": 0},  # ARP
    ],
)
def test_the_kernel_gets_all_else(had, strange):
    assert carried_out(had, strange) == (PORTS[CLIENT].inside, strange["eth_dst"], 0)


def test_what_the_kernel_sends_goes_out_as_it_is(had):
    assert carried_out(had, packet(1002, VIP, ttl=1, eth_dst="aa:aa:aa:aa:aa:aa")) == (MAGLEV, "aa:aa:aa:aa:aa:aa", 0)


@pytest.mark.parametrize(
    ("size", "there"), [(1500, (CLIENT, NEIGHBOURS["10.0.1.2"].mac, 1)), (1501, to_kernel(MAGLEV))]
)
def test_what_is_too_big_for_a_link_goes_to_the_kernel(had, size, there):
    assert carried_out(had, packet(MAGLEV, "10.0.1.2", frame_bytes=size + ETHERNET_BYTES)) == there
    assert carried_out(had, packet(CLIENT, "10.1.1.2", frame_bytes=size + ETHERNET_BYTES))[0] == MAGLEV


def test_a_vip_has_a_group_with_a_bucket_a_hop(had):
    number = carried_out(had, packet(CLIENT, VIP))
    assert had.groups[number].buckets == (
        Bucket(MAGLEV, MAGLEV, PORTS[MAGLEV].mac, NEIGHBOURS["10.1.1.2"].mac),
        Bucket(OTHER, OTHER, PORTS[OTHER].mac, NEIGHBOURS["10.1.2.2"].mac),
    )
    assert carried_out(had, packet(CLIENT, "192.0.2.130")) == had.numbers[PREFIX]
    assert len({carried_out(had, packet(CLIENT, vip)) for vip in (VIP, VIP6, "192.0.2.143")}) == 3


def test_a_dead_link_is_no_way(had):
    alive = without_dead_ports(NEIGHBOURS, [CLIENT, OTHER])
    left = rules(PORTS, alive, ROUTES, had.numbers)
    assert [bucket.port for bucket in left.groups[had.numbers[VIP]].buckets] == [OTHER]
    assert VIP6 not in left.numbers
    assert carried_out(left, packet(CLIENT, VIP6)) == to_kernel(CLIENT)


def test_groups_keep_their_numbers():
    assert number_groups(["b", "a"], {}) == {"a": 1, "b": 2}
    assert number_groups(["c", "b"], {"a": 1, "b": 2}) == {"b": 2, "c": 3}, "a's number is free only when it has gone"


routes_ = st.dictionaries(
    st.sampled_from([VIP, "192.0.2.2", PREFIX, "192.0.2.3"]),
    st.frozensets(st.sampled_from(["10.1.1.2", "10.1.2.2", "10.1.9.2"])),
)
neighbours_ = st.sets(st.sampled_from(sorted(NEIGHBOURS)))


@given(before=routes_, after=routes_, known=neighbours_, known_later=neighbours_)
def test_changes_lead_from_anything_to_anything_and_no_flow_ever_leads_nowhere(before, after, known, known_later):
    had = rules(PORTS, {each: NEIGHBOURS[each] for each in known}, before, {})
    wanted = rules(PORTS, {each: NEIGHBOURS[each] for each in known_later}, after, had.numbers)
    todo = changes(frozenset(flow.cookie for flow in had.flows), had.groups, wanted)
    flows, groups = {(flow.table, flow.priority, flow.match): flow for flow in had.flows}, dict(had.groups)

    def sound():
        led = {action.group for flow in flows.values() for action in flow.actions if isinstance(action, ToGroup)}
        assert led <= groups.keys(), "a flow leads to a group that is not there"

    groups |= {each.number: each for each in (*todo.new_groups, *todo.changed_groups)}
    for flow in todo.new_flows:
        flows[flow.table, flow.priority, flow.match] = flow
        sound()
    flows = {key: flow for key, flow in flows.items() if flow.cookie not in todo.old_flows}
    sound()
    for number in todo.old_groups:
        del groups[number]
        sound()
    assert frozenset(flows.values()) == wanted.flows
    assert groups == wanted.groups
    assert not changes(frozenset(flow.cookie for flow in wanted.flows), groups, wanted)


def test_a_changed_group_is_replaced_whole():
    one = group(1, PORTS, [NEIGHBOURS["10.1.1.2"]])
    both = group(1, PORTS, [NEIGHBOURS["10.1.2.2"], NEIGHBOURS["10.1.1.2"]])
    wanted = rules(PORTS, NEIGHBOURS, {VIP: ROUTES[VIP]}, {VIP: 1})
    todo = changes(frozenset(flow.cookie for flow in wanted.flows), {1: one}, wanted)
    assert todo == Changes(changed_groups=(both,))
    assert [bucket.number for bucket in both.buckets] == [MAGLEV, OTHER], "in the order of their numbers"
    assert isinstance(both, Group)


# Who announces what

PEER, PEER6 = "10.1.1.2", "fd00:1:1::2"


@pytest.fixture
def paths():
    return Paths([PEER, "10.1.2.2", PEER6], ["192.0.2.0/24", "2001:db8::/64"], now=100.0)


def test_paths_come_and_go(paths):
    paths.up(PEER, 101.0)
    assert paths.announced(PEER, "192.0.2.1/32", PEER)
    assert paths.announced("10.1.2.2", "192.0.2.1/32", "10.1.2.2")
    assert paths.announced(PEER6, "2001:db8::1/128", PEER6)
    assert paths.routes(102.0) == {VIP: {PEER, "10.1.2.2"}, VIP6: {PEER6}}
    paths.withdrawn(PEER, "192.0.2.1/32")
    assert paths.routes(102.0) == {VIP: {"10.1.2.2"}, VIP6: {PEER6}}
    paths.down("10.1.2.2")
    assert paths.routes(102.0) == {VIP6: {PEER6}}
    assert paths.sessions == {PEER: ("Established", "101.000000"), "10.1.2.2": ("Down", ""), PEER6: ("Down", "")}


@pytest.mark.parametrize("prefix", ["192.0.3.1/32", "0.0.0.0/0", "192.0.0.0/16", "2001:db8:0:1::1/128", "10.1.1.2/32"])
def test_what_is_no_vip_is_not_let_in(paths, prefix):
    assert not paths.announced(PEER, prefix, PEER)
    assert paths.routes(101.0) == {}


def test_what_the_switch_does_is_believed_until_a_peer_has_spoken(paths):
    paths.keep(VIP, PEER)
    paths.keep(VIP, "10.1.2.2")
    paths.keep(VIP, "10.9.9.9")  # no peer of ours
    assert paths.routes(100.0 + RETURN_S - 1) == {VIP: {PEER, "10.1.2.2"}}
    paths.up(PEER, 110.0)
    assert paths.wakes_at == 110.0 + FIRST_WORDS_S
    assert paths.routes(110.0) == {VIP: {PEER, "10.1.2.2"}}, "it has had no time to speak"
    assert paths.announced(PEER, "192.0.2.1/32", PEER)
    assert paths.routes(150.0) == {VIP: {PEER, "10.1.2.2"}}
    assert paths.routes(100.0 + RETURN_S) == {VIP: {PEER}}, "the other has not come back"
    assert paths.wakes_at is None


def test_a_peer_that_comes_back_without_a_vip_has_given_it_up(paths):
    paths.keep(VIP, PEER)
    paths.up(PEER, 110.0)
    assert paths.routes(110.0 + FIRST_WORDS_S) == {}


def test_a_peer_whose_session_ends_again_is_believed_no_more(paths):
    paths.keep(VIP, PEER)
    paths.down(PEER)
    assert paths.routes(101.0) == {VIP: {PEER}}, "that was the old session's end: nothing new"
    paths.up(PEER, 102.0)
    paths.down(PEER)
    assert paths.routes(102.5) == {}


def test_a_vip_of_one_address_is_named_by_it():
    assert [named(prefix) for prefix in ("192.0.2.1/32", PREFIX, "2001:db8::1/128", "2001:db8::/64")] == [
        VIP, PREFIX, VIP6, "2001:db8::/64",
    ]  # fmt: skip
