"""Judges the control plane of a software-defined router: a naive switch carries out what it is told, Open vSwitch's own
tool reads Ryu's messages, and last flows are followed through a live switch."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lab.classroom import Case, criterion
from lab.classroom.exercise import ROOT
from lab.sdn.rules import (
    ROUTES,
    SIZES,
    Bucket,
    DecrementTtl,
    Flow,
    Group,
    Neighbour,
    Output,
    Port,
    Rules,
    SetField,
    ToGroup,
    destined_to,
)
from lab.sdn_router import RYU_PYTHON, SdnRouter

REFERENCE = ("lab.sdn.rules", "lab.sdn.wire")
LIVE = {"topology": "sdn", "endpoints": 3}

VIPS = ("192.0.2.1", "192.0.2.2", "192.0.2.128/28", "2001:db8::1")
CLIENT = 1  # the port that leads to it; Maglev mN is behind port N + 1
FLOWS = range(600)
LIVE_FLOWS = 90
FIELDS = "ip_src,ip_dst,ipv6_src,ipv6_dst,nw_proto,tcp_src,tcp_dst,udp_src,udp_dst"
EVERY_MAGLEV = ("m1", "m2", "m3", "m4", "m5")


# Step 1: a group


@criterion(step=1, hint="out of the hop's port, from ports[hop.port].mac to hop.mac; sort the buckets by their numbers")
def a_bucket_for_each_hop(student: Any, case: Case) -> None:
    """A group has a bucket for each next hop, out of its port, between the link's two MAC addresses."""
    for _ in range(10):
        names = case.random.sample(EVERY_MAGLEV, case.random.randrange(1, 6))
        hops = [_hop(name) for name in names]
        case.step(f"next hops {', '.join(names)}, in this order")
        got = student.group(7, _ports(), iter(hops))
        case.expect_that(isinstance(got, Group), f"expected a Group, got {got!r:.80}")
        case.expect(got.number, 7, "the group's number")
        ways = sorted((each.port, each.source, each.destination) for each in got.buckets)
        expected = sorted((hop.port, _ports()[hop.port].mac, hop.mac) for hop in hops)
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
    seconds=20,
    lacks=SdnRouter.lacking,
    hint="print(message) shows an OFPGroupMod; ovs-ofctl ofp-print reads its bytes",
)
def what_open_vswitch_reads(student: Any, case: Case) -> None:
    """Ryu's message of a group, read by Open vSwitch: a select group that hashes the 5-tuple, with its buckets."""
    for command, word in (("OFPGC_ADD", "ADD"), ("OFPGC_MODIFY", "MOD")):
        names = case.random.sample(EVERY_MAGLEV, 3)
        group = Group(7, tuple(_bucket(name) for name in sorted(names)))
        case.step(f"group_mod(datapath, {command}, a group of {', '.join(sorted(names))}), in Ryu's environment")
        read = _read_by_switch(_message(student, case, command, group))
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
        expected = [(str(each.number), _in_words(each)) for each in group.buckets]
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
        known, routes = case.random.sample(EVERY_MAGLEV, 2), _routes(case)
        wanted = _rules(student, case, known, routes, {})
        for vip in VIPS:
            hops = sorted(name for name in routes.get(vip, ()) if name in known)
            leads_to = _group_of(wanted.flows, vip)
            if not hops:
                case.expect_that(not leads_to, f"expected no flow for {vip}, none of whose next hops is known")
                continue
            case.expect(leads_to, [wanted.numbers.get(vip)], f"the groups to which packets to {vip} are led")
            found = wanted.groups.get(leads_to[0])
            case.expect_that(found is not None, f"expected a group {leads_to[0]}, there are {sorted(wanted.groups)}")
            case.expect(sorted(_maglev(each.port) for each in found.buckets), hops, f"the Maglevs of {vip}")
        served = [vip for vip in VIPS if set(routes.get(vip, ())) & set(known)]
        case.expect(len(wanted.groups), len(served), "the number of groups")
        reached = {field[1] for flow in wanted.flows if flow.table == ROUTES for field in flow.match}
        case.expect(sorted({_hop(name).address for name in known} - reached), [], "neighbours to whom no flow leads")


# Step 4: changes


@criterion(step=4, hint="compare by cookie and by value: what is the same on both sides must not be sent again")
def nothing_but_what_differs(student: Any, case: Case) -> None:
    """The switch is told what differs, and nothing else; a controller that comes back finds nothing to do."""
    routes = {vip: frozenset(EVERY_MAGLEV[:3]) for vip in VIPS}
    switch = Switch(case, _rules(student, case, EVERY_MAGLEV, routes, {}))
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
        switch = Switch(case, _rules(student, case, _some(case), _routes(case), {}))
        wanted = _rules(student, case, _some(case), _routes(case), switch.numbers)
        staying = switch.numbers.keys() & wanted.numbers.keys()
        case.step(f"the switch serves {_list(switch.numbers)}, and shall serve {_list(wanted.numbers)}")
        todo = switch.differences(student, wanted)
        for message in switch.carried_out(todo):
            lost = sorted(vip for vip in staying if not switch.serves(vip))
            case.expect_that(not lost, f"after {message}, packets to {', '.join(lost)} are lost")
        case.expect(_list(switch.served()), _list(wanted.numbers), "the VIPs that are served in the end")
        flows = frozenset(switch.flows.values())
        case.expect(len(flows ^ wanted.flows), 0, "how many flows are not as they shall be")
        case.expect(switch.groups, dict(wanted.groups), "the groups in the end")


# Step 5: live


@criterion(
    step=5,
    seconds=40,
    hint="sudo maglab try 12, and look at the group before and after: r1 ovs-ofctl -O OpenFlow15 dump-groups …",
    lacks=SdnRouter.lacking,
    lab={"topology": "sdn", "maglevs": 3, "endpoints": 2},
)
def only_the_flows_of_a_dead_maglev_move(lab: Any, case: Case) -> None:
    """In a live switch: three Maglevs share the flows, and when one dies only its own move."""
    with lab.connections(LIVE_FLOWS) as conns, lab.ways() as record:
        before = record.wait(LIVE_FLOWS)
        counted = Counter(name for maglevs in before.values() for name in maglevs)
        case.step(f"{LIVE_FLOWS} connections: {_counted(counted)}")
        least = min(counted[name] for name in lab.maglevs)
        case.expect_that(least >= LIVE_FLOWS // 9, f"expected each of three Maglevs to have flows, got {dict(counted)}")
        lab.kill("m2")
        lab.wait_converged()
        record.forget()
        without = record.wait(LIVE_FLOWS)
        others = [flow for flow in before if before[flow] != {"m2"}]
        moved = [flow for flow in others if without[flow] != before[flow]]
        case.step("m2 died, and the group was changed")
        case.expect(len(moved), 0, f"how many of the {len(others)} flows moved that were not m2's")
        case.expect(conns.broken, 0, "broken connections")


# A naive switch


class Switch:
    """Has flows and groups, and does what it is told, message by message."""

    def __init__(self, case: Case, had: Rules) -> None:
        self.case = case
        self.flows = {_place(flow): flow for flow in had.flows}
        self.groups = dict(had.groups)
        self.numbers = dict(had.numbers)

    def differences(self, student: Any, wanted: Rules) -> Any:
        """Returns what the student would have this switch do."""
        return student.changes(frozenset(flow.cookie for flow in self.flows.values()), dict(self.groups), wanted)

    def carried_out(self, todo: Any) -> Iterable[str]:
        """Carries changes out in their order; yields each message, in words, when it has been."""
        for group in todo.new_groups:
            refused = group.number in self.groups
            self.case.expect_that(not refused, f"the switch refuses: it has a group {group.number} already")
            self.groups[group.number] = group
            yield self._done(f"group {group.number} is added")
        for group in todo.changed_groups:
            there = group.number in self.groups
            self.case.expect_that(there, f"the switch refuses: it has no group {group.number} to change")
            self.groups[group.number] = group
            yield self._done(f"group {group.number} is changed")
        for flow in todo.new_flows:
            self._check(flow)
            self.flows[_place(flow)] = flow
            yield self._done(f"a flow of table {flow.table} is added")
        for cookie in todo.old_flows:
            self.flows = {place: flow for place, flow in self.flows.items() if flow.cookie != cookie}
            yield self._done(f"the flow {cookie:#x} is taken away")
        for number in todo.old_groups:
            self.groups.pop(number, None)
            led = [flow for flow in self.flows.values() if number in _groups(flow)]
            self.flows = {place: flow for place, flow in self.flows.items() if flow not in led}  # as OpenFlow has it
            yield self._done(f"group {number} is taken away, and {len(led)} flows with it")

    def _check(self, flow: Flow) -> None:
        """What a flow leads to must be there."""
        missing = [number for number in _groups(flow) if number not in self.groups]
        self.case.expect_that(not missing, f"the switch refuses a flow to group {missing}, which is not there")
        if flow.table == ROUTES and flow.goto == SIZES:
            behind = any(other.table == SIZES and other.match == flow.match for other in self.flows.values())
            self.case.expect_that(behind, "a flow of table 1 came before the one of table 2 to which it leads")

    def _done(self, message: str) -> str:
        self.case.step(message)
        return message

    def serves(self, vip: str) -> bool:
        """Says whether packets to a VIP come to a group that has a bucket."""
        return any(
            number in self.groups and self.groups[number].buckets for number in _group_of(self.flows.values(), vip)
        )

    def served(self) -> list[str]:
        """Returns the VIPs that are served."""
        return [vip for vip in VIPS if self.serves(vip)]


def _place(flow: Flow) -> tuple[Any, ...]:
    """Returns what a switch tells flows apart by: a second of the same takes the place of the first."""
    return flow.table, flow.priority, flow.match


def _group_of(flows: Iterable[Flow], vip: str) -> list[int]:
    """Returns the groups to which packets to a VIP are led."""
    match = destined_to(vip)
    led = [flow for flow in flows if flow.table == ROUTES and tuple(flow.match) == match]
    return [number for flow in led for number in _groups(flow)]


def _groups(flow: Flow) -> list[int]:
    return [each.group for each in flow.actions if isinstance(each, ToGroup)]


def _spread(student: Any, case: Case, names: Iterable[str]) -> dict[int, str]:
    """Returns the Maglev of each flow, as Open vSwitch chooses: the bucket whose number makes the most of the hash."""
    group = student.group(1, _ports(), [_hop(name) for name in names])
    numbers = {_maglev(each.port): each.number for each in group.buckets}
    case.step(f"the buckets' numbers: {', '.join(f'{name} {number}' for name, number in sorted(numbers.items()))}")
    return {flow: max(numbers, key=lambda name: _score(numbers[name], flow)) for flow in FLOWS}


def _score(number: int, flow: int) -> bytes:
    return hashlib.blake2b(f"{number} {flow}".encode(), digest_size=8).digest()


# Who there is


def _ports() -> dict[int, Port]:
    return {
        number: Port(number, 1000 + number, f"02:00:00:01:00:{number:02x}", 1500 if number == CLIENT else 1600)
        for number in range(1, len(EVERY_MAGLEV) + 2)
    }


def _hop(name: str) -> Neighbour:
    number = int(name[1:])
    return Neighbour(f"10.1.{number}.2", number + 1, f"0a:00:00:00:00:{number + 1:02x}")


def _client() -> Neighbour:
    return Neighbour("10.0.1.2", CLIENT, "0a:00:00:00:00:01")


def _maglev(port: int) -> str:
    return f"m{port - 1}"


def _bucket(name: str) -> Bucket:
    hop = _hop(name)
    return Bucket(hop.port, hop.port, _ports()[hop.port].mac, hop.mac)


def _some(case: Case) -> list[str]:
    return case.random.sample(EVERY_MAGLEV, case.random.randrange(1, 6))


def _routes(case: Case) -> dict[str, frozenset[str]]:
    """Returns some VIPs, each announced by some Maglevs."""
    vips = case.random.sample(VIPS, case.random.randrange(1, len(VIPS) + 1))
    return {vip: frozenset(_some(case)) for vip in vips}


def _rules(
    student: Any, case: Case, known: Iterable[str], routes: Mapping[str, Iterable[str]], numbers: Mapping[str, int]
) -> Rules:
    """Returns the student's rules, for Maglevs and routes by their names, and tells so."""
    there = [_client(), *(_hop(name) for name in known)]
    told = "; ".join(f"{vip} by {_list(names)}" for vip, names in routes.items())
    case.step(f"known are {_list(known)}; announced {told}; VIPs that have groups {dict(numbers)}")
    hops = {vip: frozenset(_hop(name).address for name in names) for vip, names in routes.items()}
    return student.rules(_ports(), {each.address: each for each in there}, hops, dict(numbers))  # type: ignore[no-any-return]


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nobody"


def _counted(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))


def _counts(todo: Any) -> dict[str, int]:
    """Returns how much of each kind is to be done."""
    kinds = ("new_groups", "changed_groups", "new_flows", "old_flows", "old_groups")
    return {kind: len(getattr(todo, kind)) for kind in kinds if getattr(todo, kind)}


# Ryu, and Open vSwitch


IN_RYU = """
import importlib, importlib.util, json, sys, traceback
import eventlet.wsgi
eventlet.wsgi.ALREADY_HANDLED = object()
from ryu.ofproto import ofproto_v1_5
from ryu.ofproto.ofproto_protocol import ProtocolDesc
from lab.sdn.rules import Bucket, Group
module, file, command, number, buckets = json.load(sys.stdin)
try:
    if file:
        spec = importlib.util.spec_from_file_location(module, file)
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    else:
        loaded = importlib.import_module(module)
    datapath = ProtocolDesc(ofproto_v1_5.OFP_VERSION)
    group = Group(number, tuple(Bucket(*each) for each in buckets))
    message = loaded.group_mod(datapath, getattr(datapath.ofproto, command), group)
    message.set_xid(1)
    message.serialize()
    said = {"bytes": bytes(message.buf).hex()}
except NotImplementedError as gap:
    said = {"gap": str(gap)}
except Exception as error:
    said = {"error": "".join(traceback.format_exception_only(error)).strip()}
print("\\n" + json.dumps(said))
"""


def _message(student: Any, case: Case, command: str, group: Group) -> bytes:
    """Returns the bytes of the message that a student's function makes in Ryu's environment."""
    function: Callable[..., Any] = student.group_mod
    module = function.__module__
    file = "" if module.startswith("lab.") else function.__code__.co_filename
    buckets = [[each.number, each.port, each.source, each.destination] for each in group.buckets]
    told = json.dumps([module, file, command, group.number, buckets])
    with tempfile.TemporaryDirectory() as nowhere:
        arguments = [str(RYU_PYTHON), "-W", "ignore", "-c", IN_RYU]
        done = subprocess.run(
            arguments,
            input=told,
            capture_output=True,
            text=True,
            check=False,
            cwd=nowhere,
            env={"PYTHONPATH": str(ROOT)},
        )
    last = done.stdout.strip().rpartition("\n")[2]
    case.expect_that(last, f"Ryu's environment ended without a message: {done.stderr.strip()[-200:]}")
    said = json.loads(last)
    if "gap" in said:
        raise NotImplementedError(said["gap"])
    case.expect_that("bytes" in said, f"expected a message that Ryu can send, got {said.get('error')}")
    return bytes.fromhex(said["bytes"])


def _read_by_switch(message: bytes) -> str:
    """Returns what Open vSwitch's tool makes of a message, in one line."""
    done = subprocess.run(["ovs-ofctl", "ofp-print", message.hex()], capture_output=True, text=True, check=False)
    return " ".join((done.stdout + done.stderr).split())


def _in_words(bucket: Bucket) -> str:
    """Returns a bucket's actions as Open vSwitch writes them."""
    return ",".join(map(_word, bucket.actions))


def _word(each: Any) -> str:
    match each:
        case SetField(field, value):
            return f"set_field:{value}->{field}"
        case DecrementTtl():
            return "dec_ttl"
        case Output(port):
            return f"output:{port}"
    raise TypeError(f"no action of a bucket: {each!r}")
