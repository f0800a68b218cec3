"""What `lab.traffic` is: a method for each kind of traffic, which begins it and returns a handle."""

from __future__ import annotations

import random
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from maglev.config import Vip

from ..errors import WrongUse
from ..servers import HTTP_PORT
from ..waiting import wait_until
from .bulk import BulkHandle, IperfHandle, check_iperf3, stop_servers
from .churn import ChurnHandle
from .crafted import (
    Answers,
    Counting,
    PacketHandle,
    Timed,
    from_capture,
    from_scapy,
    store,
    to_vips,
    way_to,
)
from .datagrams import DatagramHandle
from .flow_mix import FlowHandle
from .flow_sizes import DISTRIBUTIONS
from .handle import LONGEST_S, Handle, check_number, shares, start_senders
from .http import HttpHandle, Requests, plan
from .variation import ORDERS, TCP, UDP

if TYPE_CHECKING:
    from ..laboratory import Lab

MOST_FLOWS, MOST_PPS, MOST_CONNECTIONS_PER_S = 10_000, 100_000, 10_000
MOST_AT_ONCE, MOST_STREAMS, MOST_MBIT, START_TIMEOUT_S = 10_000, 128, 10_000, 10.0
SMALLEST_DATAGRAM_BYTES, LARGEST_DATAGRAM_BYTES = 40, 65_000  # room for numbers and time; for a name in the answer

FLOOD_PORTS, FIRST_FRAGMENT_PORT = (1024, 32768), 20_000  # below those that kernels take, to tell the answers apart
SMALLEST_PIECE_BYTES, LARGEST_PIECE_BYTES = 68, 1500  # RFC 791: everybody takes 68; the client's link takes 1500
ANY_PORT = 7  # of VIPs that take any: the numbered service
NOBODYS = {4: "198.18.0.0/15", 6: "2001:2::/48"}  # for tests of network devices (RFC 2544, RFC 5180)
H = TypeVar("H", bound=Handle[Any])


class Traffic:
    """Traffic of a running lab. Whoever begins it ends it: `with`, or `stop`; `Lab.restore` and `stop` end the rest."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def datagrams(
        self,
        vip: str = "datagrams",
        *,
        flows: int = 16,
        rate_pps: float = 500,
        seconds: float = 5,
        size_bytes: int = 64,
        first_port: int = 0,
        clients: Sequence[str] = (),
    ) -> DatagramHandle:
        """Sends numbered datagrams of `flows` UDP flows to a VIP of the numbered service, `rate_pps` of all together.

        Larger ones than the link takes go in fragments. Flows have ports from `first_port` on, or any for 0.
        """
        target = self._vip(vip, "udp")
        senders = self._clients(clients)
        check_number("flows", flows, len(senders), MOST_FLOWS, whole=True)
        check_number("rate_pps", rate_pps, 0.1, MOST_PPS)
        check_number("seconds", seconds, 0.01, LONGEST_S)
        check_number("size_bytes", size_bytes, SMALLEST_DATAGRAM_BYTES, LARGEST_DATAGRAM_BYTES, whole=True)
        check_number("first_port", first_port, 0, 65_536 - flows, whole=True)
        common = {**self._target(target), "rate_pps": rate_pps / len(senders), "seconds": seconds}
        common |= {"size_bytes": size_bytes, "first_port": first_port}
        own = {
            node: {**common, "flows": share} for node, share in zip(senders, shares(flows, len(senders)), strict=True)
        }
        workers = start_senders("datagrams", own)
        options = {"flows": flows, "rate_pps": rate_pps, "seconds": seconds, "size_bytes": size_bytes}
        return self._kept(DatagramHandle(self._lab.timeline, "datagrams", vip, seconds, workers, **options))

    def churn(
        self, vip: str = "echo", *, rate_per_s: float = 100, seconds: float = 5, clients: Sequence[str] = ()
    ) -> ChurnHandle:
        """Opens `rate_per_s` connections a second to a VIP of the numbered service; each is answered once, and ends."""
        target = self._vip(vip, "tcp")
        senders = self._clients(clients)
        check_number("rate_per_s", rate_per_s, 0.1, MOST_CONNECTIONS_PER_S)
        check_number("seconds", seconds, 0.01, LONGEST_S)
        own = {**self._target(target), "rate_per_s": rate_per_s / len(senders), "seconds": seconds}
        workers = start_senders("churn", dict.fromkeys(senders, own))
        options = {"rate_per_s": rate_per_s, "seconds": seconds}
        return self._kept(ChurnHandle(self._lab.timeline, "churn", vip, seconds, workers, **options))

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
        check_number("size_bytes", size_bytes, SMALLEST_PIECE_BYTES, LARGEST_DATAGRAM_BYTES, whole=True)
        check_number("piece_bytes", piece_bytes, SMALLEST_PIECE_BYTES, LARGEST_PIECE_BYTES, whole=True)
        check_number("flows", flows, 1, FLOOD_PORTS[1] - FIRST_FRAGMENT_PORT, whole=True)
        _check_one_of("order", order, ORDERS)
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
        vips = [vip.network for vip in self._lab.config.vips]
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

    def http(
        self,
        vip: str = "www",
        *,
        program: str = "wrk",
        seconds: float | None = None,
        requests: int | None = None,
        connections: int = 16,
        path: str = "/",
        keep_alive: bool = True,
        timeout_s: float = 10,
        clients: Sequence[str] = (),
    ) -> HttpHandle:
        """Has wrk, ab or curl fetch a path of a VIP over so many connections at once, shared out among the clients.

        wrk goes by seconds, curl by requests, ab by either. Without `keep_alive` every request has its own
        connection.
        """
        target = self._vip(vip, "tcp")
        senders = self._clients(clients)
        check_number("connections", connections, len(senders), MOST_AT_ONCE, whole=True)
        check_number("timeout_s", timeout_s, 1, 600)
        most_s, number = plan(program, seconds, requests, connections, timeout_s)
        if number and number < connections:
            raise WrongUse(
                f"requests={requests} are fewer than the {connections} connections: give more, or fewer of these"
            )
        url = _url(target, path)
        numbers = zip(senders, shares(connections, len(senders)), shares(number, len(senders)), strict=True)
        commands = {
            node: Requests(program, url, at_once, most_s, share, keep_alive, timeout_s).command()
            for node, at_once, share in numbers
        }
        options = {"connections": connections, "seconds": seconds, "requests": requests, "path": path}
        handle = HttpHandle(self._lab.timeline, program, vip, most_s, commands, **options)
        handle.asked = number or None
        return self._kept(handle)

    def bulk(
        self,
        vip: str = "www",
        *,
        program: str = "http",
        seconds: float = 5,
        streams: int = 1,
        direction: str = "up",
        client: str = "c1",
    ) -> BulkHandle | IperfHandle:
        """Sends as much as goes over `streams` connections from a client to a VIP, or fetches it (`direction="down"`).

        `program="http"` is our own, to a VIP of the web service; `"iperf3"` brings its servers, and needs a VIP with
        client affinity, since it opens several connections that must reach one endpoint.
        """
        target = self._vip(vip, "tcp")
        node = self._lab.node(client, "client")
        check_number("seconds", seconds, 1, LONGEST_S)
        check_number("streams", streams, 1, MOST_STREAMS, whole=True)
        _check_one_of("program", program, ("http", "iperf3"))
        _check_one_of("direction", direction, ("up", "down"))
        options = {"seconds": seconds, "streams": streams, "direction": direction}
        if program == "iperf3":
            return self._iperf3(target, node, options)
        workers = start_senders("bulk", {node: {**self._target(target, HTTP_PORT), **options}})
        return self._kept(BulkHandle(self._lab.timeline, "bulk", vip, seconds, workers, **options))

    def _iperf3(self, vip: Vip, client: Any, options: dict[str, Any]) -> IperfHandle:
        port = check_iperf3(vip)
        servers = [node for node in map(self._lab.node, self._lab.endpoints) if node.daemons]
        for node in servers:
            node.start("iperf3", ["iperf3", "-s", "-p", str(port)])
        command = ["iperf3", "-J", "-c", str(vip.address), "-p", str(port), "-P", str(options["streams"])]
        command += ["-t", f"{options['seconds']:.0f}", *["-R"] * (options["direction"] == "down")]
        try:
            wait_until(lambda: _not_listening(servers, port), START_TIMEOUT_S, "the start of iperf3's servers")
            handle = IperfHandle(
                self._lab.timeline, "iperf3", vip.name, options["seconds"], {client: command}, **options
            )
        except BaseException:
            stop_servers(servers)
            raise
        handle.servers = servers
        return self._kept(handle)

    def flow_mix(
        self,
        vip: str = "www",
        *,
        distribution: str = "web_search",
        load_mbit: float = 50,
        seconds: float = 10,
        largest_bytes: int = 10**9,
        grace_s: float = 5,
        clients: Sequence[str] = (),
        seed: int = 1,
    ) -> FlowHandle:
        """Fetches flows of published sizes (`web_search` or `data_mining`) that come at random, at a load in the mean.

        `largest_bytes` leaves larger flows out; those that are not whole `grace_s` after `seconds` are given up.
        """
        target = self._vip(vip, "tcp")
        senders = self._clients(clients)
        _check_one_of("distribution", distribution, tuple(DISTRIBUTIONS))
        check_number("load_mbit", load_mbit, 0.001, MOST_MBIT)
        check_number("seconds", seconds, 0.1, LONGEST_S)
        check_number("largest_bytes", largest_bytes, 1, 10**9, whole=True)
        check_number("grace_s", grace_s, 0, LONGEST_S)
        common = {**self._target(target, HTTP_PORT), "distribution": distribution, "seconds": seconds}
        common |= {"largest": largest_bytes, "grace_s": grace_s, "load_mbit": load_mbit / len(senders)}
        own = {node: {**common, "seed": seed * len(senders) + number} for number, node in enumerate(senders)}
        workers = start_senders("flow_mix", own)
        options = {"distribution": distribution, "load_mbit": load_mbit, "seconds": seconds, "seed": seed}
        return self._kept(FlowHandle(self._lab.timeline, "flow mix", vip, seconds + grace_s, workers, **options))

    # What all kinds need

    def _vip(self, name: str, *protocols: str) -> Vip:
        """Returns a VIP by name; WrongUse if there is none, or it is of another protocol."""
        vip = self._lab.vip(name)
        if protocols and vip.protocol not in protocols:
            fitting = [each.name for each in self._lab.config.vips if each.protocol in protocols]
            raise WrongUse(
                f"VIP {name!r} takes {vip.protocol}; this traffic is {' or '.join(protocols)}, which go to "
                f"{', '.join(fitting) or 'none of the VIPs'}"
            )
        return vip

    @staticmethod
    def _target(vip: Vip, port: int = 0) -> dict[str, Any]:
        """Returns where senders send to; `port` is for VIPs that take any."""
        return {"address": str(vip.address), "port": vip.port or port}

    def _clients(self, names: Sequence[str]) -> list[Any]:
        """Returns clients by name, all of them if none is named."""
        return [self._lab.node(name, "client") for name in names or self._lab.clients]

    def _kept(self, handle: H) -> H:
        """Enters traffic that has begun, so that the lab ends it if nobody else does."""
        self._lab.keep_traffic(handle)
        return handle


def _check_one_of(what: str, value: str, allowed: Sequence[str]) -> None:
    """Raises WrongUse for a word that is none of those allowed."""
    if value not in allowed:
        raise WrongUse(f"{what}={value!r} is not allowed; allowed: {', '.join(allowed)}")


def _url(vip: Vip, path: str) -> str:
    """Returns where a path of a VIP is; WrongUse for one that is none."""
    if not path.startswith("/") or not path.isprintable() or set(' []{}"') & set(path):
        raise WrongUse(
            f"path={path!r} is not allowed; allowed: what stands in a URL from the first / on, without []{{}}"
        )
    address = f"[{vip.address}]" if vip.address.version == 6 else str(vip.address)
    return f"http://{address}:{vip.port or HTTP_PORT}{path}"


def _not_listening(nodes: Sequence[Any], port: int) -> str:
    """Returns which nodes have nobody who listens at a TCP port, "" if all have."""
    silent = [node.name for node in nodes if not node.run("ss", "-Hltn", f"sport = :{port}").stdout]
    return f"nobody listens on {', '.join(silent)}" if silent else ""


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
