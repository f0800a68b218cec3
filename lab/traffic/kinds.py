"""What `lab.traffic` is: a method for each kind of traffic, which begins it and returns a handle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maglev.config import Vip

from ..errors import WrongUse
from ..servers import HTTP_PORT
from ..waiting import wait_until
from .beginning import check_one_of
from .bulk import BulkHandle, IperfHandle, check_iperf3, stop_servers
from .churn import ChurnHandle
from .datagrams import DatagramHandle
from .flow_mix import FlowHandle
from .flow_sizes import DISTRIBUTIONS
from .handle import LONGEST_S, check_number, shares, start_senders
from .http import HttpHandle, Requests, plan
from .packet_kinds import MOST_PPS, PacketKinds

MOST_FLOWS, MOST_CONNECTIONS_PER_S = 10_000, 10_000
MOST_AT_ONCE, MOST_STREAMS, MOST_MBIT, START_TIMEOUT_S = 10_000, 128, 10_000, 10.0
SMALLEST_DATAGRAM_BYTES, LARGEST_DATAGRAM_BYTES = 40, 65_000  # room for numbers and time; for a name in the answer


class Traffic(PacketKinds):
    """Traffic of a running lab. Whoever begins it ends it: `with`, or `stop`; `Lab.restore` and `stop` end the rest."""

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
        check_one_of("program", program, ("http", "iperf3"))
        check_one_of("direction", direction, ("up", "down"))
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
        check_one_of("distribution", distribution, tuple(DISTRIBUTIONS))
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
