"""Flows and groups as Ryu's messages of OpenFlow 1.5.

What Ryu does not know is written by hand: the way in which Open vSwitch's select groups choose, and its action that
checks a frame's size. Source: Open vSwitch, openflow/netronome-ext.h and lib/ofp-actions.c.
"""

from __future__ import annotations

import struct
from typing import Any

from . import rules

NETRONOME, NICIRA = 0x0000154D, 0x00002320  # experimenters
SELECTION_METHOD = 1
METHOD = struct.Struct("!HHIIxxxx16sQ")  # type, length, experimenter, what of it, method, its parameter
CHECK = struct.Struct("!HHHIxxxxxx")  # what of the experimenter's actions, bytes, which bit of what field
CHECK_PKT_LARGER, REGISTER_0 = 49, 0x00010004
# OXM headers of the 5-tuple's fields, of both families and all protocols that have ports, each followed by a mask.
FIELDS = {0x80001604: 4, 0x80001804: 4, 0x80003410: 16, 0x80003610: 16, 0x80001401: 1,
          0x80001A02: 2, 0x80001C02: 2, 0x80001E02: 2, 0x80002002: 2}  # fmt: skip
EXPERIMENTER = 0xFFFF


class HashOf5Tuple:
    """A group's property: the bucket is chosen by a hash of the 5-tuple."""

    def serialize(self) -> bytes:
        masks = b"".join(struct.pack("!I", header) + b"\xff" * size for header, size in FIELDS.items())
        length = METHOD.size + len(masks)
        body = METHOD.pack(EXPERIMENTER, length, NETRONOME, SELECTION_METHOD, b"hash", 0) + masks
        return body + bytes(-length % 8)


def flow_mod(datapath: Any, flow: rules.Flow) -> Any:
    """Returns the message that adds a flow, in the place of one that matches the same."""
    parser, protocol = datapath.ofproto_parser, datapath.ofproto
    instructions = []
    if flow.actions:
        actions = [action(parser, each) for each in flow.actions]
        instructions.append(parser.OFPInstructionActions(protocol.OFPIT_APPLY_ACTIONS, actions))
    if flow.goto is not None:
        instructions.append(parser.OFPInstructionGotoTable(flow.goto))
    fields = [protocol.oxm_normalize_user(field, _value(value)) for field, value in flow.match]
    match = parser.OFPMatch(_ordered_fields=fields)  # it would put fields before what they presuppose
    return parser.OFPFlowMod(
        datapath, cookie=flow.cookie, table_id=flow.table, priority=flow.priority, match=match,
        instructions=instructions, command=protocol.OFPFC_ADD,
    )  # fmt: skip


def flow_removal(datapath: Any, cookie: int) -> Any:
    """Returns the message that takes away the flow with a cookie."""
    parser, protocol = datapath.ofproto_parser, datapath.ofproto
    return parser.OFPFlowMod(
        datapath, cookie=cookie, cookie_mask=0xFFFFFFFFFFFFFFFF, table_id=protocol.OFPTT_ALL,
        command=protocol.OFPFC_DELETE, out_port=protocol.OFPP_ANY, out_group=protocol.OFPG_ANY,
    )  # fmt: skip


def group_mod(datapath: Any, command: int, group: rules.Group) -> Any:
    """Returns the message that adds a group, or replaces all its buckets at once."""
    parser, protocol = datapath.ofproto_parser, datapath.ofproto
    buckets = [
        parser.OFPBucket(
            bucket_id=bucket.number,
            actions=[action(parser, each) for each in bucket.actions],
            properties=[parser.OFPGroupBucketPropWeight(type_=protocol.OFPGBPT_WEIGHT, weight=1)],
        )
        for bucket in group.buckets
    ]
    return parser.OFPGroupMod(
        datapath, command, protocol.OFPGT_SELECT, group.number, buckets=buckets, properties=[HashOf5Tuple()]
    )


def group_removal(datapath: Any, number: int) -> Any:
    """Returns the message that takes a group away."""
    parser, protocol = datapath.ofproto_parser, datapath.ofproto
    return parser.OFPGroupMod(datapath, protocol.OFPGC_DELETE, protocol.OFPGT_SELECT, number)


def _value(value: int | str) -> int | str | tuple[str, ...]:
    """Returns a match's value as Ryu wants it: a prefix as a pair."""
    return tuple(value.split("/")) if isinstance(value, str) and "/" in value else value


def action(parser: Any, wanted: rules.Action) -> Any:
    """Returns an action as Ryu's."""
    match wanted:
        case rules.SetField(field, value):
            return parser.OFPActionSetField(**{field: value})
        case rules.DecrementTtl():
            return parser.OFPActionDecNwTtl()
        case rules.CheckLarger(frame_bytes):
            return parser.OFPActionExperimenterUnknown(NICIRA, CHECK.pack(CHECK_PKT_LARGER, frame_bytes, 0, REGISTER_0))
        case rules.Output(port):
            return parser.OFPActionOutput(port)
        case rules.ToGroup(group):
            return parser.OFPActionGroup(group)
    raise TypeError(f"no action of ours: {wanted!r}")
