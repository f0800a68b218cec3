"""Probes through the data path, between a Maglev and an endpoint that takes packets out of GRE, in two namespaces."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from ipaddress import ip_address, ip_network
from pathlib import Path

import probers
import pytest
from dnslib import RR, DNSRecord
from namespaces import MAGLEV, ROUTER, ip
from probers import until
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import GRE as GRE_LAYER
from scapy.layers.l2 import Ether

from maglev.config import HealthCheck
from maglev.engine import decapsulation
from maglev.engine.held_vips import HeldVips
from maglev.engine.vip_path import DEVICE, MARK, PORTS, TABLE, VipPath
from maglev.errors import Discard, PlatformError, Reason
from maglev.flow import unpack_address
from maglev.health import Check, Verdict

VIP, OTHER_VIP = ip_address("192.0.2.1"), ip_address("192.0.2.2")
ENDPOINT = ip_address(ROUTER)  # the machine next door is the endpoint here
OWN = ip_address(MAGLEV)
OWN_V6, ENDPOINT_V6, VIP_V6 = (ip_address(text) for text in ("2001:db8:1::2", "2001:db8:1::1", "2001:db8:5::1"))
PORT, DNS_PORT = 8080, 53


class Gate(decapsulation.Gate):
    """Lets in what Maglevs send to VIPs, late or not at all if it is told so, and keeps what it has let in."""

    def __init__(self):
        super().__init__([OWN, OWN_V6], [ip_network(vip) for vip in (VIP, OTHER_VIP, VIP_V6)])
        self.is_deaf = False
        self.is_slow_by_s = 0.0
        self.heard = []  # who sent it, inner packet

    def admit(self, received):
        if self.is_deaf:
            raise Discard(Reason.NOT_FROM_MAGLEV)
        time.sleep(self.is_slow_by_s)
        inner = super().admit(received)
        self.heard.append((unpack_address(received.source), inner))
        return inner


class Endpoint:
    """What runs next door: decapsulation, the VIP on loopback, and servers that know whom they have met."""

    def __init__(self, undo):
        self.met = []
        self.gate = Gate()
        self._ended = threading.Event()
        undo.callback(self._ended.set)
        device, receivers = decapsulation.make_tun_device(undo), decapsulation.open_receivers([OWN, OWN_V6], undo)
        ip("link set lo up")
        HeldVips(undo).follow([ip_network(VIP), ip_network(VIP_V6)])
        self._tcp = undo.enter_context(socket.create_server(("", PORT), family=socket.AF_INET6, dualstack_ipv6=True))
        self._udp = {port: undo.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for port in (PORT, DNS_PORT)}
        for port, server in self._udp.items():
            server.bind((str(VIP), port))
        workers = [(self._decapsulate, device, receivers), (self._serve_http,), (self._serve_udp, PORT, bytes.upper)]
        for work, *arguments in [*workers, (self._serve_udp, DNS_PORT, answer_dns)]:
            threading.Thread(target=work, args=arguments, daemon=True).start()

    def _decapsulate(self, device, receivers):
        with contextlib.suppress(OSError, ValueError):  # ValueError: a receiver that is closed
            while not self._ended.is_set():
                for receiver in select.select(receivers, [], [], 0.1)[0]:
                    decapsulation._carry(receiver.receive(), device, self.gate)

    def _serve_http(self):
        while self._tcp.fileno() >= 0:
            with contextlib.suppress(OSError):  # a probe that is over already, or the end of the test
                connection, client = self._tcp.accept()
                with connection:
                    self.met.append(
                        tuple(each[0].removeprefix("::ffff:") for each in (connection.getsockname(), client))
                    )
                    connection.recv(1024)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell")

    def _serve_udp(self, port, answer):
        with contextlib.suppress(OSError):
            while True:
                asked, client = self._udp[port].recvfrom(2048)
                self.met.append((str(VIP), client[0]))
                self._udp[port].sendto(answer(asked), client)


def answer_dns(asked):
    reply = DNSRecord.parse(asked).reply()
    reply.add_answer(*RR.fromZone("www.example.com. 60 A 192.0.2.7"))
    return reply.pack()


METHODS = {
    "ping": {},
    "tcp": {"port": PORT},
    "http": {"port": PORT, "body": "well"},
    "udp": {"port": PORT, "send": "ping", "expect": "PING"},
    "dns": {"query": "www.example.com"},
}


def check_of(kind, vip=VIP, **options):
    pace = {"interval_s": 0.5, "timeout_s": 0.25, "fall": 1} | options
    return Check(ENDPOINT, HealthCheck(type=kind, through="vip", **METHODS[kind], **pace), vip)


@contextlib.contextmanager
def endpoint_next_door(wires):
    undo = contextlib.ExitStack()
    try:
        yield wires.next_door(Endpoint, undo)
    finally:
        wires.next_door(undo.close)


@contextlib.contextmanager
def probing(*checks, own=(OWN,)):
    with contextlib.closing(VipPath(own)) as path:
        path.open([VIP, VIP_V6])
        with probers.probing(checks, path=path) as prober:
            yield prober


def verdicts(prober):
    return {check.method.type: state.verdict for check, state in prober.states().items()}


def route_to_vip(*options):
    return ip(" ".join(("route get", str(VIP), *options)))


def test_every_type_goes_through_the_data_path_and_is_answered_as_by_the_vip(in_namespace):
    def body(wires):
        ip(f"route add default via {ROUTER}")
        with endpoint_next_door(wires) as endpoint, probing(*map(check_of, METHODS)) as prober:
            until(lambda: prober.complete, "a first verdict of every check")
            assert verdicts(prober) == dict.fromkeys(METHODS, Verdict.HEALTHY), prober.last_errors()
            assert {*endpoint.met} == {(str(VIP), MAGLEV)}
            assert not endpoint.gate.reasons

    in_namespace(body)


def fail_the_endpoint(wires, endpoint, how):
    if how == "no VIP":
        wires.next_door(ip, f"address del {VIP}/32 dev lo")
    else:
        endpoint.gate.is_deaf = True


@pytest.mark.parametrize("how", ["no VIP", "no decapsulation"])
def test_an_endpoint_off_the_data_path_fails_though_a_plain_check_passes_it(in_namespace, how):
    def body(wires):
        ip(f"route add default via {ROUTER}")
        plain = Check(ENDPOINT, HealthCheck(type="tcp", port=PORT, interval_s=0.5, fall=1))
        through = [check_of(kind) for kind in METHODS]
        with endpoint_next_door(wires) as endpoint:
            fail_the_endpoint(wires, endpoint, how)
            with probing(plain, *through) as prober:
                until(lambda: prober.complete, "a first verdict of every check")
                states = {check: state.verdict for check, state in prober.states().items()}
                assert states == {plain: Verdict.HEALTHY} | dict.fromkeys(through, Verdict.UNHEALTHY)
                assert set(prober.last_errors().values()) == {"no answer within 0.25 s"}

    in_namespace(body)


def test_a_probe_leaves_no_connection_behind(in_namespace):
    def body(wires):
        ip(f"route add default via {ROUTER}")
        with endpoint_next_door(wires) as endpoint, probing(check_of("tcp"), check_of("http")) as prober:
            until(lambda: prober.complete and len(endpoint.met) > 4, "probes")
        lingering = {"04", "05", "06", "0B"}  # FIN-WAIT-1 and -2, TIME-WAIT, CLOSING (net/tcp_states.h)

        def open_connections():
            rows = wires.next_door(Path("/proc/thread-self/net/tcp").read_text).splitlines()[1:]
            rows += Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
            return [row for row in rows if row.split()[3] in {"01", *lingering}]

        until(lambda: not open_connections(), "the end of all connections")

    in_namespace(body)


def speak_ipv6(wires):
    """Gives both machines addresses of IPv6."""
    ip(f"address add {OWN_V6}/64 dev {wires.maglev} nodad")
    ip(f"-6 route add default via {ENDPOINT_V6}")
    for address in (f"{ENDPOINT_V6}/64", "fe80::1/64"):  # of the link: from where it asks for neighbours for the VIP
        wires.next_door(ip, f"address add {address} dev {wires.router} nodad")


@pytest.mark.parametrize(("own", "endpoint"), [(OWN_V6, ENDPOINT_V6), (OWN, ENDPOINT)])
def test_a_vip_of_ipv6_is_reached_in_gre_over_either_version(in_namespace, own, endpoint):
    def body(wires):
        speak_ipv6(wires)
        with endpoint_next_door(wires) as there:
            kinds = [check_of(kind, VIP_V6)._replace(address=endpoint) for kind in ("ping", "tcp", "http")]
            with probing(*kinds, own=[OWN, OWN_V6]) as prober:
                until(lambda: prober.complete, "a first verdict of every check")
                assert set(verdicts(prober).values()) == {Verdict.HEALTHY}, prober.last_errors()
            assert {*there.met} == {(str(VIP_V6), str(OWN_V6))}
            assert {(sender, inner[0] >> 4) for sender, inner in there.gate.heard} == {(own, 6)}

    in_namespace(body)


def test_a_tunnel_between_two_ip_versions_is_a_failure_with_a_reason(in_namespace):
    def body(wires):
        check = check_of("tcp")._replace(address=ENDPOINT_V6)
        with probing(check) as prober:
            until(lambda: prober.complete, "a verdict")
            assert prober.last_errors() == {check: f"this Maglev has no IPv6 address to send GRE to {ENDPOINT_V6} from"}

    in_namespace(body)


def test_an_answer_that_comes_too_late_is_reset_through_the_data_path_too(in_namespace):
    """Such a reset is the kernel's own, no socket's; the usual way to the VIP leads to another Maglev."""

    def body(wires):
        ip(f"route add default via {ROUTER}")
        with endpoint_next_door(wires) as endpoint, wires.router_socket() as wire:
            endpoint.gate.is_slow_by_s = 0.2
            with probing(check_of("tcp", timeout_s=0.05)) as prober:
                until(lambda: prober.complete, "a verdict")
                assert set(prober.last_errors().values()) == {"no answer within 0.05 s"}
                until(lambda: any("R" in IP(inner)[TCP].flags for _, inner in endpoint.gate.heard), "a reset in GRE")
            wire.setblocking(False)
            plain = [packet for packet in map(Ether, frames(wire)) if IP in packet and packet[IP].dst == str(VIP)]
            assert not [packet for packet in plain if GRE_LAYER not in packet], (
                "something went to the VIP outside of GRE"
            )

    in_namespace(body)


def frames(wire):
    with contextlib.suppress(BlockingIOError):
        while True:
            yield wire.recv(2048)


def test_probes_have_ports_of_their_own_and_use_them_in_turn(in_namespace):
    def body(wires):
        path = VipPath([OWN])
        path.open([VIP])
        with contextlib.ExitStack() as undo:
            taken = undo.enter_context(socket.socket())
            taken.bind(("", PORTS[1]))
            used = []
            for _ in PORTS[:3]:
                probe = undo.enter_context(socket.socket())
                path.enlist(probe, 6, ENDPOINT)
                used.append(probe.getsockname()[1])
            assert used == [PORTS[0], *PORTS[2:4]]
        path.close()

    in_namespace(body)


def test_only_probes_take_that_way_and_it_goes_with_them(in_namespace):
    def body(wires):
        ip(f"route add default via {ROUTER}")
        before = ip("rule show"), ip("-6 rule show"), route_to_vip()
        path = VipPath([OWN])
        path.open([VIP, VIP_V6])
        path.open([VIP, VIP_V6])  # it is there already
        for way in (route_to_vip(), route_to_vip("ipproto tcp sport", str(PORTS[0] - 1))):
            assert f"dev {wires.maglev}" in way, "what else goes to the VIP should keep its way"
        assert f"dev {DEVICE}" in route_to_vip("mark", str(MARK))
        assert f"dev {DEVICE}" in route_to_vip("ipproto tcp sport", str(PORTS[0]))
        assert DEVICE not in ip(f"route get 192.0.2.99 ipproto tcp sport {PORTS[0]}"), "that address is no VIP"
        path.close()
        assert (ip("rule show"), ip("-6 rule show"), route_to_vip()) == before
        assert DEVICE not in ip("link show")

    in_namespace(body)


def test_what_a_killed_forwarder_leaves_behind_sends_no_probe_astray_and_is_taken_over(in_namespace):
    def body(wires):
        ip(f"route add default via {ROUTER}")
        killed = VipPath([OWN])
        killed.open([VIP])
        ip(f"link del {DEVICE}")  # as when the process dies; rule and last route stay
        with pytest.raises(RuntimeError, match="No route to host"):
            route_to_vip("mark", str(MARK))
        with endpoint_next_door(wires), probing(check_of("tcp")) as prober:
            until(lambda: prober.complete, "a verdict")
            assert verdicts(prober) == {"tcp": Verdict.HEALTHY}, prober.last_errors()
        assert str(TABLE) not in ip("rule show")
        killed.close()

    in_namespace(body)


def test_without_its_device_probes_fail_and_the_others_go_on(in_namespace):
    def body(wires):
        ip(f"route add default via {ROUTER}")
        through = check_of("tcp")
        plain = Check(ENDPOINT, HealthCheck(type="tcp", port=PORT, interval_s=0.1, timeout_s=0.1, fall=1))
        with endpoint_next_door(wires), probing(through, plain) as prober:
            until(lambda: prober.complete, "a first verdict of both")
            ip(f"link del {DEVICE}")
            until(lambda: prober.last_errors() == {through: "No route to host"}, "the failure of one")
            assert prober.states()[plain].verdict is Verdict.HEALTHY

    in_namespace(body)


def test_ipv6_is_left_alone_where_no_vip_needs_it(in_namespace):
    def body(wires):
        path = VipPath([OWN])
        path.open([VIP])
        assert str(TABLE) not in ip("-6 rule show")
        path.open([VIP, VIP_V6])
        assert str(TABLE) in ip("-6 rule show")
        path.close()
        assert str(TABLE) not in ip("-6 rule show") + ip("rule show")

    in_namespace(body)


def test_a_second_path_on_one_machine_is_refused(in_namespace):
    def body(wires):
        path = VipPath([OWN])
        path.open([VIP, VIP_V6])
        with pytest.raises(PlatformError, match="need a TUN device"):
            VipPath([OWN]).open([VIP])
        path.close()

    in_namespace(body)
