"""What a switch answers, in bytes: recorded from Open vSwitch 3.1, next to what ovs-ofctl said of the same."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from namespaces import DEADLINE_S, ip, new_namespace, why_not

from lab.errors import LabError
from lab.sdn import neighbours, openflow, switch
from lab.sdn.openflow import Entry
from lab.sdn.rules import Bucket, Group

# cookie=0x55, table=1, priority=5,ip,nw_dst=192.0.2.1 actions=group:7
# cookie=0x0, table=1, priority=5,ip,nw_dst=192.0.2.2 actions=check_pkt_larger(1514)->NXM_NX_REG0[0],goto_table:2
FLOWS = bytes.fromhex(
    "0001000000000000 0078000001000005 0000000000000000 0000000000000055 0001001280000a02 080080001804c000"
    "0201000000000000 0000003480020008 000000000a037a00 8002020800000000 0000000080020808 0000000000000000"
    "80020a0800000000 0000000000000000 0004001000000000 0016000800000007 0090000001000005 0000000000000000"
    "0000000000000000 0001001280000a02 080080001804c000 0202000000000000 0000003480020008 0000000008f0d180"
    "8002020800000000 0000000080020808 0000000000000000 80020a0800000000 0000000000000000 0004002000000000"
    "ffff001800002320 003105ea00000001 0004000000000000 0001000802000000"
)
# group_id=7,type=select,selection_method=hash,fields(ip_src,ip_dst,nw_proto,tcp_src,tcp_dst),
# bucket=bucket_id:1,actions=set_field:02:00:00:00:00:09->eth_dst,dec_ttl,output:1
GROUPS = bytes.fromhex(
    "0007000000000000 0098010000000007 0038000000000000 0038002800000001 0019001080000606 0200000000090000"
    "0018000800000000 0000001000000001 0000000000000000 0000000800010000 ffff00490000154d 0000000100000000"
    "6861736800000000 0000000000000000 0000000000000000 80001604ffffffff 80001804ffffffff 80001401ff80001a"
    "02ffff80001c02ff ff00000000000000"
)
STATS = bytes.fromhex(
    "0006000000000000 0038000000000007 0000000100000000 0000000000000005 0000000000000190 000000000ae85bc0"
    "0000000000000005 0000000000000190"
)


def test_flows_are_read():
    assert openflow.flows(FLOWS) == [Entry(0x55, "192.0.2.1", 7), Entry(0, "192.0.2.2", None)]


def test_groups_and_their_counters_are_read():
    assert openflow.groups(GROUPS) == [Group(7, (Bucket(1, 1, "", "02:00:00:00:00:09"),))]
    assert openflow.bucket_packets(STATS) == {7: (5,)}


def test_a_prefix_is_read_with_its_length():
    """nw_dst=192.0.2.128/28: an OXM with a mask."""
    masked = (
        bytes.fromhex("8000190800000000")[:4] + socket.inet_aton("192.0.2.128") + socket.inet_aton("255.255.255.240")
    )
    assert [openflow._address(*each) for each in openflow._fields(masked)] == ["192.0.2.128/28"]


reads = st.sampled_from([(openflow.flows, FLOWS), (openflow.groups, GROUPS), (openflow.bucket_packets, STATS)])


@given(what=reads, place=st.integers(8, 10_000), value=st.integers(0, 255), cut=st.integers(8, 10_000))
def test_damaged_answers_end_and_say_so(what, place, value, cut):
    read, answer = what
    damaged = bytearray(answer)
    damaged[place % len(damaged)] = value
    with contextlib.suppress(ValueError, struct.error):  # what `switch.read` takes for a switch that does not answer
        read(bytes(damaged[: max(8, cut % (len(damaged) + 1))]))


@pytest.mark.parametrize(
    ("answers", "said"),
    [([], "hung up"), ([b"\x06\x13\x00\x04" + bytes(4)], "4 bytes"), ([openflow.message(1, 1, bytes(8))], "error")],
)
def test_a_switch_that_does_not_answer_is_named(tmp_path, answers, said):
    path = tmp_path / "br0.mgmt"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve():
            with listening.accept()[0] as conversation:
                asked = len(openflow.message(openflow.HELLO, 1) + openflow.question(openflow.FLOW_DESC, 1))
                while asked > 0:  # the first question whole, or the switch would be gone while it is being asked
                    asked -= len(conversation.recv(asked))
                for answer in answers:
                    conversation.sendall(answer)
                while answers and conversation.recv(1 << 16):  # until it has had enough of us
                    pass

        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(LabError, match=said) as caught:
            switch.read(path)
        server.join()
    assert str(path) in str(caught.value)


def test_messages_are_split_wherever_they_are_cut():
    stream = openflow.message(0, 1) + openflow.message(19, 2, FLOWS) + openflow.message(3, 3, b"x")
    for cut in range(len(stream)):
        first, rest = openflow.split(stream[:cut])
        second, left = openflow.split(rest + stream[cut:])
        assert [each.xid for each in first + second] == [1, 2, 3]
        assert left == b""


@pytest.mark.parametrize(
    ("kind", "mac"), [(neighbours.RTM_NEWNEIGH, "02:00:00:00:00:02"), (neighbours.RTM_DELNEIGH, "")]
)
def test_a_neighbour_that_the_kernel_forgets_is_gone_whatever_its_state(kind, mac):
    stale = neighbours.NEIGHBOUR.pack(socket.AF_INET, 3, 0x04, 0, 1)
    stale += struct.pack("=HH", 8, neighbours.NDA_DST) + socket.inet_aton("10.9.0.2")
    stale += struct.pack("=HH", 10, neighbours.NDA_LLADDR) + bytes.fromhex("020000000002") + bytes(2)
    message = neighbours.HEADER.pack(neighbours.HEADER.size + len(stale), kind, 0, 1, 0) + stale
    assert list(neighbours.heard(message)) == [(3, "10.9.0.2", mac)]


@pytest.mark.skipif(bool(why_not()), reason=str(why_not()))
def test_neighbours_are_those_that_ip_lists():
    with new_namespace() as space:

        def run(function, *arguments):
            return space.submit(function, *arguments).result(DEADLINE_S)

        for line in (
            "link add here0 type veth peer name there0", "link set here0 up", "link set there0 up",
            "address add 10.9.0.1/24 dev here0", "address add fd01::1/64 dev here0 nodad",
            "neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev here0 nud permanent",
            "neigh add 10.9.0.3 lladdr 02:00:00:00:00:03 dev here0 nud stale",
            "neigh add 10.9.0.4 dev here0 nud failed",
            "neigh add fd01::2 lladdr 02:00:00:00:00:22 dev here0 nud reachable",
        ):  # fmt: skip
            run(ip, line)
        with run(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)) as kernel:
            kernel.settimeout(DEADLINE_S)
            kernel.bind((0, neighbours.RTMGRP_NEIGH))
            kernel.send(neighbours.question())
            found = {}
            while len(found) < 4:
                found |= {each.address: each for each in neighbours.heard(kernel.recv(1 << 17))}
            listed = {each["dst"]: each.get("lladdr", "") for each in json.loads(run(ip, "-j neigh show dev here0"))}
            ours = {address: each.mac for address, each in found.items() if not address.startswith(("ff", "224."))}
            assert ours == {**listed, "10.9.0.4": ""}
            run(ip, "neigh del 10.9.0.2 dev here0")
            (gone,) = neighbours.heard(kernel.recv(1 << 17))
            assert (gone.address, gone.mac) == ("10.9.0.2", "")
