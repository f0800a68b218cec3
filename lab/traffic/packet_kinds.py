"""The kinds of traffic that are made of crafted packets: SYN floods, fragments, Scapy's packets, captures."""

from __future__ import annotations

import random
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from maglev.config import Vip

from ..errors import WrongUse
from .beginning import Kinds, check_one_of
from .crafted import Answers, Counting, PacketHandle, Timed, from_capture, from_scapy, store, to_vips, way_to
from .handle import LONGEST_S, check_number, start_senders
from .variation import ORDERS, TCP, UDP

MOST_PPS = 100_000
FLOOD_PORTS, FIRST_FRAGMENT_PORT = (1024, 32768), 20_000  # below those that kernels take, to tell the answers apart
SMALLEST_PIECE_BYTES, LARGEST_PIECE_BYTES = 68, 1500  # RFC 791: everybody takes 68; the client's link takes 1500
ANY_PORT = 7  # of VIPs that take any: the numbered service
NOBODYS = {4: "198.18.0.0/15", 6: "2001:2::/48"}  # for tests of network devices (RFC 2544, RFC 5180)
LARGEST_PACKET_BYTES = 65_000


class PacketKinds(Kinds):
    """Crafted traffic."""

    def syn_flood(
        self,
        vip: str = "www",
        *,
        rate_pps: float,
        seconds: float,
        sources: str | None = None,
        client: str = "c1",
        seed: int = 1,
    ) -> PacketHandle:
        """Sends SYNs of ever new flows to a VIP, from random ports of random addresses of a prefix.

        That is one that nobody has, unless `sources` says otherwise; "" is the client's own address.
        """
        target = self._vip(vip, "tcp")
        version = target.address.version
        prefix = _prefix(NOBODYS[version] if sources is None else sources, version)
        ports = {"sources": prefix, "ports": FLOOD_PORTS}
        layers = self._scapy_layers(client, target, prefix)
        packet = layers.ip / layers.TCP(dport=target.port or ANY_PORT, flags="S", options=[("MSS", 1460)])
        options = {"rate": rate_pps, "seconds": seconds, "seed": seed, "vary": ports}
        return self._packets("SYN flood", target, client, [(0.0, bytes(packet))], options, hidden=True)

    def fragments(
        self,
        vip: str = "datagrams",
        *,
        rate_pps: float = 50,
        seconds: float = 5,
        size_bytes: int = 1400,
        piece_bytes: int = 600,
        order: str = "shuffled",
        flows: int = 16,
        client: str = "c1",
        seed: int = 1,
    ) -> PacketHandle:
        """Sends `rate_pps` datagrams a second to a VIP of the numbered service, each in fragments in some order.

        `size_bytes` is a datagram with its headers, `piece_bytes` the most that one of its fragments has.
        """
        target = self._vip(vip, "udp")
        check_number("size_bytes", size_bytes, SMALLEST_PIECE_BYTES, LARGEST_PACKET_BYTES, whole=True)
        check_number("piece_bytes", piece_bytes, SMALLEST_PIECE_BYTES, LARGEST_PIECE_BYTES, whole=True)
        check_number("flows", flows, 1, FLOOD_PORTS[1] - FIRST_FRAGMENT_PORT, whole=True)
        check_one_of("order", order, ORDERS)
        layers = self._scapy_layers(client, target)
        headers = layers.ip / layers.UDP(dport=target.port or ANY_PORT)
        packet = bytes(headers / bytes(random.Random(seed).randbytes(size_bytes - len(headers))))
        ports = {"sources": "", "ports": (FIRST_FRAGMENT_PORT, FIRST_FRAGMENT_PORT + flows)}
        options = {"rate": rate_pps, "seconds": seconds, "seed": seed, "vary": ports}
        options |= {"piece_bytes": piece_bytes, "order": order}
        return self._packets("fragments", target, client, [(0.0, packet)], options, hidden=True)

    def crafted(
        self,
        packets: Any = None,
        *,
        pcap: str | Path | None = None,
        rate_pps: float = 100,
        seconds: float = 5,
        speed: float = 1.0,
        own_source: bool = False,
        client: str = "c1",
    ) -> PacketHandle:
        """Sends packets to VIPs as they are, made with Scapy (one, or several that take turns), or out of a capture.

        The first go at `rate_pps` for `seconds`; those of a capture go at its own times, `speed` times as fast, with
        `own_source` as if they came from the client.
        """
        if (packets is None) == (pcap is None):
            raise WrongUse("crafted traffic is either packets or a pcap: give one of them")
        vips = [vip.network for vip in self._lab.config.placed_vips]
        node = self._lab.node(client, "client")
        if pcap is not None:
            check_number("speed", speed, 0.001, 1e6)
            timed = from_capture(Path(pcap), vips, node.addresses if own_source else {})
            check_number("seconds of the capture, at this speed,", timed[-1][0] / speed, 0, LONGEST_S)
            options: dict[str, Any] = {"speed": speed, "seconds": timed[-1][0] / speed}
        else:
            timed = [(0.0, packet) for packet in from_scapy(packets)]
            options = {"rate": rate_pps, "seconds": seconds}
        targets = to_vips((packet for _, packet in timed), vips)
        return self._put_on_wire("crafted packets", ",".join(targets), node, timed, options, Answers(tuple(targets)))

    def _packets(
        self, what: str, vip: Vip, client: str, timed: Sequence[Timed], options: dict[str, Any], hidden: bool
    ) -> PacketHandle:
        """Sends variants of a packet to one VIP, whose answers are counted by their ports."""
        low, after = options["vary"]["ports"]
        protocol = {"tcp": TCP, "udp": UDP}[str(vip.protocol)]
        answers = Answers((str(vip.address),), protocol, vip.port or ANY_PORT, (low, after - 1), hidden)
        return self._put_on_wire(what, vip.name, self._lab.node(client, "client"), timed, options, answers)

    def _put_on_wire(
        self, what: str, where: str, node: Any, timed: Sequence[Timed], options: dict[str, Any], answers: Answers
    ) -> PacketHandle:
        if "rate" in options:
            check_number("rate_pps", options["rate"], 0.1, MOST_PPS)
            check_number("seconds", options["seconds"], 0.01, LONGEST_S)
        way, file = way_to(node, answers.addresses[0]), store(node.directory, timed)
        workers = start_senders("packets", {node: {**options, **way, "file": str(file)}})
        counting = Counting(node, answers)
        most_s = options["seconds"]
        return self._kept(PacketHandle(self._lab.timeline, what, where, most_s, workers, counting, **options))

    def _scapy_layers(self, client: str, vip: Vip, prefix: str = "") -> SimpleNamespace:
        """Returns Scapy's IP header from a client to a VIP, or from a prefix, and its transport headers."""
        from scapy.layers.inet import IP, TCP, UDP
        from scapy.layers.inet6 import IPv6

        version = vip.address.version
        source = prefix.partition("/")[0] or self._lab.node(client, "client").addresses[version]
        ip = (IP if version == 4 else IPv6)(src=source, dst=str(vip.address))
        return SimpleNamespace(ip=ip, TCP=TCP, UDP=UDP)


def _prefix(text: str, version: int) -> str:
    """Returns a prefix of addresses as the sender reads it; WrongUse for one that is none, or of another family."""
    if not text:
        return ""
    try:
        network = ip_network(text)
    except ValueError as error:
        raise WrongUse(
            f"sources={text!r} is not allowed: {error}; allowed: a prefix such as {NOBODYS[version]}"
        ) from None
    if network.version != version:
        raise WrongUse(f"sources={text!r} are IPv{network.version} addresses, and the VIP's is IPv{version}")
    return str(network)
