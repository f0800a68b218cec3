"""Exercise 12: ECMP as a Ryu application, with select groups. Your code; `maglab check 12` judges it.

The functions are those of `lab.sdn.rules` and `lab.sdn.wire`, with the same arguments, so that a lab's controller can
run with yours in their place. All but `group_mod` know nothing of Ryu: what a switch shall have is worked out as data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lab.sdn.rules import (
    ROUTES,  # the table that looks at destinations
    USUAL,  # the priority of flows in it
    Bucket,  # Bucket(number, port, source, destination): the last two are link addresses
    Changes,  # Changes(new_groups, changed_groups, new_flows, old_flows, old_groups), tuples; carried out in this order
    Flow,  # Flow(table, priority, match, actions, goto); flow.cookie is a number that says all of it
    Group,  # Group(number, buckets)
    Neighbour,  # Neighbour(address, port, mac): who is at the other end of a link
    Neighbours,  # address -> Neighbour
    Port,  # Port(number, inside, mac, mtu_bytes): mac is the router's own link address there
    Routes,  # VIP -> addresses of its next hops
    Rules,  # Rules(flows, groups, numbers); numbers: VIP -> number of its group
    ToGroup,  # ToGroup(number): the action that has a group take the packet
    base,  # given: base(ports), all flows that are there whoever the neighbours are
    destined_to,  # given: destined_to("192.0.2.1"), the match of packets to an address or a prefix
    to_neighbours,  # given: to_neighbours(ports, neighbours), all flows to the neighbours themselves
)
from lab.sdn.wire import (
    HashOf5Tuple,  # given: a property of groups
    action,  # given: action(parser, each), Ryu's action for one of ours
)


def group(number: int, ports: Mapping[int, Port], hops: Iterable[Neighbour]) -> Group:
    """Returns a VIP's group: a bucket for each next hop, out of its port, from the router's MAC there to the hop's.

    The switch takes, for each flow, the bucket whose number makes the most of a hash of both. So a next hop's bucket
    must have the same number whoever else is there; a link leads to one Maglev. Buckets stand in the order of numbers.
    """
    raise NotImplementedError("step 1: make a bucket of each next hop, whose number stays the same when others go")


def group_mod(datapath: Any, command: int, group: Group) -> Any:
    """Returns the message that adds a select group, or replaces all its buckets at once, as `command` says.

    `datapath.ofproto_parser` has the classes of messages (OFPGroupMod, OFPBucket, …), `datapath.ofproto` the constants
    (OFPGT_SELECT, …) of OpenFlow 1.5.
    """
    raise NotImplementedError("step 2: make an OFPGroupMod of a group, which hashes the 5-tuple")


def number_groups(vips: Iterable[str], numbers: Mapping[str, int]) -> dict[str, int]:
    """Returns a number, from 1 on, for each VIP's group.

    A VIP that has one in `numbers` keeps it. Others get numbers that nobody has, in the order of their names, the
    smallest first; the number of a VIP that goes is free when it has gone, not yet now.
    """
    raise NotImplementedError("step 3: number the VIPs' groups, and let each keep its number")


def rules(ports: Mapping[int, Port], neighbours: Neighbours, routes: Routes, numbers: Mapping[str, int]) -> Rules:
    """Returns all flows and groups that the switch shall have; `numbers` has the groups of VIPs that have one already.

    Next hops that are not among the neighbours are left out: nobody knows their link address yet. So is a VIP to which
    none is left: it has neither a flow nor a group.
    """
    raise NotImplementedError("step 3: have a flow lead to the group of each VIP")


def changes(cookies: frozenset[int], groups: Mapping[int, Group], wanted: Rules) -> Changes:
    """Returns what must be done to a switch that has flows with these cookies, and these groups; nothing else.

    A group that is there already is changed, with all its buckets in one message. New flows of later tables come
    before those of earlier ones (ROUTES before PORTS), which may lead there.
    """
    raise NotImplementedError("step 4: find what differs between what the switch has and what it shall have")
