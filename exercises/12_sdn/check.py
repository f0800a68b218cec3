"""Judges the control plane of a software-defined router: a naive switch carries out what it is told, Open vSwitch's own
tool reads Ryu's messages, and last flows are followed through a live switch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from lab.classroom import Case, criterion
from lab.classroom.exercise import beside
from lab.sdn.rules import ROUTES, Group, Rules
from lab.sdn_router import SdnRouter

rack, naive_switch, messages = (beside(__file__, name) for name in ("rack", "naive_switch", "messages"))

REFERENCE = ("lab.sdn.rules", "lab.sdn.wire")
LIVE = {"topology": "sdn", "endpoints": 3}

VIPS, EVERY_MAGLEV = rack.VIPS, rack.EVERY_MAGLEV
FLOWS = range(600)
LIVE_FLOWS, PATIENCE_S = 90, 30.0
FIELDS = "ip_src,ip_dst,ipv6_src,ipv6_dst,nw_proto,tcp_src,tcp_dst,udp_src,udp_dst"


# Step 1: a group


@criterion(step=1, hint="out of the hop's port, from ports[hop.port].mac to hop.mac; sort the buckets by their numbers")
def a_bucket_for_each_hop(student: Any, case: Case) -> None:
    """A group has a bucket for each next hop, out of its port, between the link's two MAC addresses."""
    for _ in range(10):
        names = case.random.sample(EVERY_MAGLEV, case.random.randrange(1, 6))
        hops = [rack.hop(name) for name in names]
        case.step(f"next hops {', '.join(names)}, in this order")
        got = student.group(7, rack.ports(), iter(hops))
        case.expect_that(isinstance(got, Group), f"expected a Group, got {got!r:.80}")
        case.expect(got.number, 7, "the group's number")
        ways = sorted((each.port, each.source, each.destination) for each in got.buckets)
        expected = sorted((hop.port, rack.ports()[hop.port].mac, hop.mac) for hop in hops)
        case.expect(ways, expected, "port, source and destination of the buckets")
        numbers = [each.number for each in got.buckets]
        case.expect(numbers, sorted(set(numbers)), "buckets in the order of their numbers, each of its own")


@criterion(
    step=1, hint="whose number changes when another hop goes? What do you know of a hop that is its own for ever?"
)
def others_stay_where_they_are(student: Any, case: Case) -> None:
    """When a next hop goes, only its own flows move; when it comes back, they come back, and nobody else moves."""
    for gone in case.random.sample(EVERY_MAGLEV, 3):
        case.step(f"{len(FLOWS)} flows over {', '.join(EVERY_MAGLEV)}; then {gone} goes")
        before = _spread(student, case, EVERY_MAGLEV)
        without = _spread(student, case, [name for name in EVERY_MAGLEV if name != gone])
        others = [flow for flow in FLOWS if before[flow] != gone]
        moved = [flow for flow in others if without[flow] != before[flow]]
        case.expect(len(moved), 0, f"how many of the {len(others)} flows move that were not {gone}'s")
        case.step(f"{gone} comes back, and is the last to be named")
        after = _spread(student, case, [*(name for name in EVERY_MAGLEV if name != gone), gone])
        case.expect(sum(after[flow] != before[flow] for flow in FLOWS), 0, "how many flows are not where they were")


# Step 2: the message


@criterion(
    step=2,
    seconds=30,
    lacks=SdnRouter.lacking,
    hint="print(message) shows an OFPGroupMod; ovs-ofctl ofp-print reads its bytes",
)
def what_open_vswitch_reads(student: Any, case: Case) -> None:
    """Ryu's message of a group, read by Open vSwitch: a select group that hashes the 5-tuple, with its buckets."""
    for command, word in (("OFPGC_ADD", "ADD"), ("OFPGC_MODIFY", "MOD")):
        names = case.random.sample(EVERY_MAGLEV, 3)
        group = Group(7, tuple(rack.bucket(name) for name in sorted(names)))
        case.step(f"group_mod(datapath, {command}, a group of {', '.join(sorted(names))}), in Ryu's environment")
        read = messages.read_by_switch(messages.made(student, case, command, group))
        refused = re.search(r"decode error: (\w+)", read)
        case.expect_that(not refused, f"Open vSwitch refuses the message: {refused and refused[1]}")
        read = read.partition(": ")[2]
        case.step(f"Open vSwitch reads: {read}")
        case.expect(read.partition(" ")[0], word, "the command")
        case.expect(re.findall(r"group_id=(\d+)", read), ["7"], "the group's number")
        case.expect(re.findall(r"type=(\w+)", read), ["select"], "the group's type")
        chosen = re.findall(r"selection_method=(\w+),fields\(([^)]*)\)", read)
        case.expect(chosen, [("hash", FIELDS)], "how it chooses, and by which fields")
        listed = re.findall(r"bucket=bucket_id:(\d+)(?:,weight:\d+)?,actions=(.*?)(?=,bucket=|$)", read)
        expected = [(str(each.number), messages.in_words(each)) for each in group.buckets]
        case.expect(listed, expected, "the buckets, and what they do")


# Step 3: flows to groups


@criterion(
    step=3, hint="keep those that have a number; for the others count up, past every number that anybody has or had"
)
def numbers_stay(student: Any, case: Case) -> None:
    """A VIP's group keeps its number; new VIPs get the smallest that nobody has or is about to give back."""
    for vips, numbers, expected in (
        (["b", "a"], {}, {"a": 1, "b": 2}),
        (["b"], {"a": 1, "b": 2}, {"b": 2}),
        (["c", "b"], {"a": 1, "b": 2}, {"b": 2, "c": 3}),
        (["d", "c", "b"], {"b": 2}, {"b": 2, "c": 1, "d": 3}),
        ([], {"a": 1}, {}),
    ):
        got = case.call(student.number_groups, vips, numbers)
        case.expect(dict(got), expected, "the groups' numbers")


@criterion(
    step=3, hint="a flow in ROUTES, matching destined_to(vip), whose action is ToGroup(number); and no flow too many"
)
def vips_lead_to_their_groups(student: Any, case: Case) -> None:
    """A packet to a VIP comes to the VIP's group, with a bucket for each next hop that is known; others do not."""
    for _ in range(20):
        known, routes = case.random.sample(EVERY_MAGLEV, 2), rack.some_routes(case)
        wanted = _rules(student, case, known, routes, {})
        for vip in VIPS:
            hops = sorted(name for name in routes.get(vip, ()) if name in known)
            leads_to = naive_switch.led_to(wanted.flows, vip)
            if not hops:
                case.expect_that(not leads_to, f"expected no flow for {vip}, none of whose next hops is known")
                continue
            case.expect(leads_to, [wanted.numbers.get(vip)], f"the groups to which packets to {vip} are led")
            found = wanted.groups.get(leads_to[0])
            case.expect_that(found is not None, f"expected a group {leads_to[0]}, there are {sorted(wanted.groups)}")
            case.expect(sorted(rack.maglev(each.port) for each in found.buckets), hops, f"the Maglevs of {vip}")
        served = [vip for vip in VIPS if set(routes.get(vip, ())) & set(known)]
        case.expect(len(wanted.groups), len(served), "the number of groups")
        reached = {field[1] for flow in wanted.flows if flow.table == ROUTES for field in flow.match}
        unreached = {rack.hop(name).address for name in known} - reached
        case.expect(sorted(unreached), [], "neighbours to whom no flow leads")


# Step 4: changes


@criterion(step=4, hint="compare by cookie and by value: what is the same on both sides must not be sent again")
def nothing_but_what_differs(student: Any, case: Case) -> None:
    """The switch is told what differs, and nothing else; a controller that comes back finds nothing to do."""
    routes = {vip: frozenset(EVERY_MAGLEV[:3]) for vip in VIPS}
    switch = naive_switch.Switch(case, _rules(student, case, EVERY_MAGLEV, routes, {}))
    case.step("a controller that has begun anew works out the same rules")
    again = _rules(student, case, EVERY_MAGLEV, routes, switch.numbers)
    case.expect(_counts(switch.differences(student, again)), {}, "what is to be done")
    case.step("m2 goes, of one VIP alone")
    without = _rules(student, case, EVERY_MAGLEV, {**routes, VIPS[1]: routes[VIPS[1]] - {"m2"}}, switch.numbers)
    todo = switch.differences(student, without)
    case.expect(_counts(todo), {"changed_groups": 1}, "what is to be done")
    case.expect(todo.changed_groups[0].number, switch.numbers[VIPS[1]], "which group changes")


@criterion(step=4, hint="follow a packet between any two of the messages: is there a flow, and a group where it leads?")
def no_packet_is_lost_on_the_way(student: Any, case: Case) -> None:
    """From anything to anything: after each message the switch is sound, and VIPs that stay are served all the time."""
    for _ in range(60):
        had = _rules(student, case, rack.some_maglevs(case), rack.some_routes(case), {})
        switch = naive_switch.Switch(case, had)
        wanted = _rules(student, case, rack.some_maglevs(case), rack.some_routes(case), switch.numbers)
        staying = switch.numbers.keys() & wanted.numbers.keys()
        case.step(f"the switch serves {_list(switch.numbers)}, and shall serve {_list(wanted.numbers)}")
        todo = switch.differences(student, wanted)
        for message in switch.carried_out(todo):
            lost = sorted(vip for vip in staying if not switch.serves(vip))
            case.expect_that(not lost, f"after {message}, packets to {', '.join(lost)} are lost")
        case.expect(_list(filter(switch.serves, VIPS)), _list(wanted.numbers), "the VIPs that are served in the end")
        flows = frozenset(switch.flows.values())
        case.expect(len(flows ^ wanted.flows), 0, "how many flows are not as they shall be")
        case.expect(switch.groups, dict(wanted.groups), "the groups in the end")


# Step 5: live


@criterion(
    step=5,
    seconds=90,
    hint="sudo maglab try 12, and look at the group before and after: r1 ovs-ofctl -O OpenFlow15 dump-groups …",
    lacks=SdnRouter.lacking,
    lab={"topology": "sdn", "maglevs": 3, "endpoints": 2},
)
def only_the_flows_of_a_dead_maglev_move(lab: Any, case: Case) -> None:
    """In a live switch: three Maglevs share the flows, and when one dies only its own move."""
    with lab.connections(LIVE_FLOWS) as conns, lab.ways() as record:
        before = record.wait(LIVE_FLOWS, PATIENCE_S)
        counted = Counter(name for maglevs in before.values() for name in maglevs)
        case.step(f"{LIVE_FLOWS} connections: {_counted(counted)}")
        least = min(counted[name] for name in lab.maglevs)
        case.expect_that(least >= LIVE_FLOWS // 9, f"expected each of three Maglevs to have flows, got {dict(counted)}")
        lab.kill("m2")
        lab.wait_converged()
        record.forget()
        without = record.wait(LIVE_FLOWS, PATIENCE_S)
        others = [flow for flow in before if before[flow] != {"m2"}]
        moved = [flow for flow in others if without[flow] != before[flow]]
        case.step("m2 died, and the group was changed")
        case.expect(len(moved), 0, f"how many of the {len(others)} flows moved that were not m2's")
        case.expect(conns.broken, 0, "broken connections")


# What the student's code makes of a rack; and words


def _rules(
    student: Any, case: Case, known: Iterable[str], routes: Mapping[str, Iterable[str]], numbers: Mapping[str, int]
) -> Rules:
    """Returns the student's rules, for Maglevs and routes by their names, and tells so."""
    there = [rack.client(), *(rack.hop(name) for name in known)]
    told = "; ".join(f"{vip} by {_list(names)}" for vip, names in routes.items())
    case.step(f"known are {_list(known)}; announced {told}; VIPs that have groups {dict(numbers)}")
    hops = {vip: frozenset(rack.hop(name).address for name in names) for vip, names in routes.items()}
    return student.rules(rack.ports(), {each.address: each for each in there}, hops, dict(numbers))  # type: ignore[no-any-return]


def _spread(student: Any, case: Case, names: Iterable[str]) -> dict[int, str]:
    """Returns the Maglev of each flow, as Open vSwitch chooses: the bucket whose number makes the most of the hash."""
    group = student.group(1, rack.ports(), [rack.hop(name) for name in names])
    numbers = {rack.maglev(each.port): each.number for each in group.buckets}
    case.step(f"the buckets' numbers: {', '.join(f'{name} {number}' for name, number in sorted(numbers.items()))}")
    return {flow: naive_switch.chosen(numbers, flow) for flow in FLOWS}


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nobody"


def _counted(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))


def _counts(todo: Any) -> dict[str, int]:
    """Returns how much of each kind is to be done."""
    kinds = ("new_groups", "changed_groups", "new_flows", "old_flows", "old_groups")
    return {kind: len(getattr(todo, kind)) for kind in kinds if getattr(todo, kind)}
