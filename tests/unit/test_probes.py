"""Probes of real servers on the loopback interface, and the prober that schedules them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from statistics import median

import icmplib
import pytest
from probers import DEADLINE_S, probing, until
from scapy.layers.dns import DNS, DNSRR

from maglev import config
from maglev.answers import LARGEST_ANSWER_BYTES
from maglev.config import HealthCheck
from maglev.engine import scripts
from maglev.engine.probes import GATHER_S, IN_FLIGHT, Prober, pause_s, phase
from maglev.flow import pack_address
from maglev.health import Check, Plan, State, Verdict, is_healthy
from maglev.selection import MapBuilder

LOCALHOST = ip_address("127.0.0.1")
NO_LINGER = struct.pack("ii", 1, 0)  # closing sends a reset


def assert_no_prober_is_left():
    assert "probes" not in {thread.name for thread in threading.enumerate()}


def tcp_check(port, **options):
    return Check(LOCALHOST, HealthCheck(type="tcp", port=port, **options))


def http_check(port, path="/", **options):
    return Check(LOCALHOST, HealthCheck(type="http", port=port, path=path, **options))


def first_result(check):
    """Whether the first probe of a check passed, and why not."""
    check = check._replace(method=check.method.model_copy(update={"fall": 1}))  # one failure decides
    with probing([check]) as prober:
        until(lambda: prober.complete, f"a first result of {check}")
        return prober.states()[check].verdict is Verdict.HEALTHY, prober.last_errors().get(check)


@contextlib.contextmanager
def listening(handle, port=0):
    """A server on a port of its own choice, which gives each connection to `handle` in turn."""
    with socket.create_server(("127.0.0.1", port)) as server:
        ended = threading.Event()

        def serve():
            with contextlib.suppress(OSError):  # the listening socket was shut down, or the peer has gone
                while True:
                    connection = server.accept()[0]
                    with connection, contextlib.suppress(ConnectionError):
                        handle(connection, ended)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE_S)


def hang(connection, ended):
    ended.wait(DEADLINE_S)


def reset(connection, ended):
    connection.recv(1024)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)


def hang_up(connection, ended):
    connection.recv(1024)


def answer(*chunks):
    def handle(connection, ended):
        connection.recv(1024)
        for chunk in chunks:
            connection.sendall(chunk)

    return handle


def stop_half_way(connection, ended):
    answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhal")(connection, ended)
    hang(connection, ended)


def never_end(connection, ended):
    answer(b"HTTP/1.1 200 OK\r\n\r\n")(connection, ended)
    while not ended.is_set():
        connection.sendall(b"x" * LARGEST_ANSWER_BYTES)


HTTP_ANSWERS = [
    (answer(b"HTTP/1.1 200 OK\r\n\r\n"), None),
    (answer(b"HTTP/1.0 204 No Content\r\n\r\n"), None),
    (answer(b"HTTP/1.1 399\r\n\r\n"), None),
    (answer(b"HTT", b"P/1.1 2", b"00 OK\r\n", b"\r\nbody"), None),
    (never_end, None),
    (answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "HTTP status 400"),
    (answer(b"HTTP/1.1 500 Internal Server Error\r\n\r\n"), "HTTP status 500"),
    (answer(b"HTTP/1.1 199 Odd\r\n\r\n"), "HTTP status 199"),
    (answer(b"220 mail.example ESMTP\r\n"), "the answer is not HTTP"),
    (answer(b"HTTP/1.1 2000 OK\r\n"), "the answer is not HTTP"),
    (hang_up, "the connection was closed without an answer"),
    (reset, "Connection reset by peer"),
    (hang, "no answer within 0.2 s"),
    (stop_half_way, "no answer within 0.2 s"),
]


@pytest.mark.parametrize(("server", "reason"), HTTP_ANSWERS)
def test_http_passes_on_a_good_status_only(server, reason):
    timeout_s = 0.2 if reason and "within" in reason else DEADLINE_S
    with listening(server) as port:
        assert first_result(http_check(port, timeout_s=timeout_s, interval_s=DEADLINE_S)) == (reason is None, reason)


def test_http_asks_for_the_path_as_a_client_should():
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # which would keep the connection, were it not asked to close it

        def do_GET(self):
            asked.append((self.path, self.headers["Host"], self.headers["Connection"]))
            self.send_response(200 if self.path == "/healthz?deep=1" else 404)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        port = server.server_port
        try:
            assert first_result(http_check(port, "/healthz?deep=1")) == (True, None)
            assert first_result(http_check(port, "/other")) == (False, "HTTP status 404")
        finally:
            server.shutdown()
            thread.join(DEADLINE_S)
    assert asked[0] == ("/healthz?deep=1", f"127.0.0.1:{port}", "close")


@pytest.mark.parametrize("check", [tcp_check, http_check])
def test_a_refused_connection_fails_at_once(check):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens, and nobody else can begin to
        start = time.monotonic()
        result = first_result(check(bound.getsockname()[1], timeout_s=DEADLINE_S, interval_s=DEADLINE_S))
    assert result == (False, "Connection refused")
    assert time.monotonic() - start < DEADLINE_S / 2


def test_tcp_passes_when_somebody_listens_even_in_silence():
    with listening(hang) as port:
        assert first_result(tcp_check(port)) == (True, None)


def test_tcp_fails_when_the_connection_is_not_taken_in_time():
    with socket.socket() as full, contextlib.ExitStack() as queue:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # what does not fit the queue of a listener is not answered
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        assert first_result(tcp_check(full.getsockname()[1], timeout_s=0.1)) == (False, "no answer within 0.1 s")


def may_ping():
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    except PermissionError:
        return False
    return True


needs_raw_sockets = pytest.mark.skipif(not may_ping(), reason="needs the right to open raw sockets (CAP_NET_RAW)")


@needs_raw_sockets
def test_ping_passes_for_whoever_answers():
    addresses = [ip_address(f"127.0.{i}.1") for i in range(100)]
    checks = [Check(address, HealthCheck(type="ping", timeout_s=5, interval_s=5)) for address in addresses]
    with probing(checks) as prober:
        until(lambda: prober.complete, "an answer from everybody")
        assert prober.last_errors() == {}
        assert set(prober.states().values()) == {State(Verdict.HEALTHY)}


@needs_raw_sockets
@pytest.mark.skipif(not socket.has_ipv6 or not Path("/proc/sys/net/ipv6").exists(), reason="needs IPv6")
def test_ipv6_is_probed_alike():
    local = ip_address("::1")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        tcp = Check(local, HealthCheck(type="tcp", port=server.getsockname()[1], fall=1))
        ping = Check(local, HealthCheck(type="ping", fall=1))
        nobody = Check(ip_address("2001:db8::dead"), HealthCheck(type="ping", fall=1, timeout_s=0.2))
        with probing([tcp, ping, nobody]) as prober:
            until(lambda: prober.complete, "verdicts")
            verdicts = {check: state.verdict for check, state in prober.states().items()}
    assert verdicts == {tcp: Verdict.HEALTHY, ping: Verdict.HEALTHY, nobody: Verdict.UNHEALTHY}


@needs_raw_sockets
def test_ping_fails_where_nobody_can_be_asked():
    broadcast = Check(ip_address("255.255.255.255"), HealthCheck(type="ping"))
    passed, reason = first_result(broadcast)
    assert not passed
    assert reason


def test_ping_without_the_right_to_says_so(monkeypatch):
    def refuse():
        raise icmplib.SocketPermissionError(True)

    monkeypatch.setattr(icmplib, "ICMPv4Socket", refuse)
    passed, reason = first_result(Check(LOCALHOST, HealthCheck(type="ping")))
    assert not passed
    assert "privileges" in reason


def test_a_ping_heeds_its_own_answer_only(monkeypatch):
    """A raw socket hears everybody's answers; here they are made up, and an ICMP error ends them."""
    heard = asyncio.Queue()
    sent = []

    class MadeUpSocket:
        def __init__(self, real):
            self.sock = socket.socket()

        def send(self, request):
            sent.append(request)
            for identifier, sequence, kind in (
                (request.id + 1, request.sequence, 0),
                (request.id, request.sequence + 1, 0),
                (request.id, request.sequence, 3),
            ):
                heard.put_nowait(icmplib.ICMPReply(None, 4, identifier, sequence, kind, 1, 64, 0.0))

        async def receive(self, request=None, timeout=2):
            try:
                return await heard.get()
            except asyncio.CancelledError:  # as icmplib's may, when an answer comes at that moment
                return icmplib.ICMPReply(None, 4, 0, 0, 0, 0, 64, 0.0)

        def close(self):
            self.sock.close()
            sent.append("closed")

    monkeypatch.setattr(icmplib, "AsyncSocket", MadeUpSocket)
    monkeypatch.setattr(icmplib, "ICMPv4Socket", lambda: None)
    assert first_result(Check(LOCALHOST, HealthCheck(type="ping"))) == (False, "Destination host unreachable")
    assert sent[0].destination == "127.0.0.1"
    assert sent[-1] == "closed"
    assert_no_prober_is_left()


def test_a_server_that_goes_and_returns_is_noticed():
    verdicts = []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(contextlib.ExitStack())
        port = server.enter_context(listening(hang_up))
        check = tcp_check(port, interval_s=0.02, timeout_s=0.02, rise=3, fall=3)
        prober = stack.enter_context(probing([check], lambda states: verdicts.append(states[check].verdict)))
        until(lambda: verdicts == [Verdict.HEALTHY], "health")
        server.close()
        until(lambda: verdicts == [Verdict.HEALTHY, Verdict.UNHEALTHY], "the fall")
        assert prober.last_errors() == {check: "Connection refused"}
        stack.enter_context(listening(hang_up, port))
        until(lambda: verdicts == [Verdict.HEALTHY, Verdict.UNHEALTHY, Verdict.HEALTHY], "the rise")
        assert prober.last_errors() == {}


@contextlib.contextmanager
def answering(answer):
    """A UDP server that sends what `answer` makes of each datagram, nothing where that is None."""
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve():
            while asked := server.recvfrom(2048)[0:2]:
                if asked[0] == b"the end":
                    return
                for reply in answer(asked[0]):
                    server.sendto(reply, asked[1])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            with socket.socket(type=socket.SOCK_DGRAM) as end:
                end.sendto(b"the end", server.getsockname())
            thread.join(DEADLINE_S)


def udp_check(port, **options):
    return Check(LOCALHOST, HealthCheck(type="udp", port=port, send="hex:70696e67", **options))


def dns_check(port, **options):
    return Check(LOCALHOST, HealthCheck(type="dns", port=port, query="www.example.com", **options))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda asked: [asked.upper()], None),
        (lambda asked: [b"no"], "the answer does not hold 'PING'"),
        (lambda asked: [], "no answer within 0.2 s"),
    ],
)
def test_udp_sends_bytes_and_wants_an_answer(answer, reason):
    with answering(answer) as port:
        assert first_result(udp_check(port, expect="PING", timeout_s=0.2)) == (reason is None, reason)


def dns_answer(asked, number=0, **fields):
    """Scapy's answer to a question."""
    question = DNS(asked)
    record = DNSRR(rrname="www.example.com", type="A", rdata="192.0.2.7")
    return bytes(DNS(**({"id": question.id ^ number, "qr": 1, "qd": question.qd, "an": [record]} | fields)))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda asked: [dns_answer(asked)], None),
        (lambda asked: [dns_answer(asked, number=1), b"", dns_answer(asked)], "the answer is not DNS"),
        (lambda asked: [dns_answer(asked, number=1), dns_answer(asked)], None),
        (lambda asked: [dns_answer(asked, number=1)], "no answer within 0.2 s"),
        (lambda asked: [dns_answer(asked, rcode=5)], "the name server answers REFUSED"),
        (lambda asked: [], "no answer within 0.2 s"),
    ],
)
def test_dns_wants_the_answer_to_its_own_question(answer, reason):
    with answering(answer) as port:
        passed, why = first_result(dns_check(port, timeout_s=0.2))
    assert passed is (reason is None)
    assert why == reason or why.startswith(f"{reason}:")


@pytest.mark.parametrize("check", [udp_check, dns_check])
def test_a_port_where_nobody_is_bound_fails_at_once(check):
    with socket.socket(type=socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        port = gone.getsockname()[1]
    assert first_result(check(port, timeout_s=DEADLINE_S, interval_s=DEADLINE_S)) == (False, "Connection refused")


def script_check(*command, **options):
    return Check(LOCALHOST, HealthCheck(type="script", command=command, **options))


SCRIPTS = [
    (("/bin/true",), None),
    (("/bin/sh", "-c", "exit 3"), "exit status 3"),
    (("/bin/sh", "-c", "kill -9 $$"), "ended by SIGKILL"),
    (("/nonexistent/check",), "No such file or directory"),
    (("/etc/passwd",), "Permission denied"),
    (("/bin/sh", "-c", 'test "$1 $MAGLEV_ENDPOINT" = "127.0.0.1 127.0.0.1"', "sh"), None),
]


@pytest.mark.parametrize(("command", "reason"), SCRIPTS)
def test_a_script_passes_by_exit_status_0_and_knows_the_address(command, reason):
    assert first_result(script_check(*command, timeout_s=5, interval_s=5)) == (reason is None, reason)


def test_a_script_that_takes_too_long_is_killed_with_its_children(tmp_path):
    script = f"sleep 1000 & echo $! > {tmp_path}/child.new; mv {tmp_path}/child.new {tmp_path}/child; wait"
    check = script_check("/bin/sh", "-c", script, timeout_s=1, interval_s=5)
    assert first_result(check) == (False, "no answer within 1 s")
    child = int((tmp_path / "child").read_text())
    until(lambda: not is_running(child), "the end of the script's child")


def is_running(process):
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()  # nobody may reap it
    except FileNotFoundError:
        return False


def test_scripts_under_way_die_with_the_prober(tmp_path):
    check = script_check("/bin/sh", "-c", f"echo $$ > {tmp_path}/own; exec sleep 1000", timeout_s=3600, interval_s=3600)
    with probing([check]):
        until(lambda: (tmp_path / "own").exists() and (tmp_path / "own").read_text(), "the script's start")
    assert not is_running(int((tmp_path / "own").read_text()))


def test_no_more_scripts_at_a_time_than_a_machine_can_bear():
    under_way, most = set(), []
    enough = asyncio.Event()

    async def probe(check):
        under_way.add(check)
        most.append(len(under_way))
        if len(under_way) == scripts.AT_ONCE:
            asyncio.get_running_loop().call_later(0.05, enough.set)  # time for one too many to show up
        await enough.wait()
        under_way.remove(check)

    checks = [script_check("/bin/true", str(i), interval_s=3600, timeout_s=3600) for i in range(3 * scripts.AT_ONCE)]
    with probing(checks, probe=probe) as prober:
        until(lambda: prober.complete, "a first result of all")
    assert max(most) == scripts.AT_ONCE


# From here on probes are made up, and what is tested is when they are sent and what becomes of their results.


def many_checks(n, **options):
    options = {"interval_s": 3600, "timeout_s": 3600} | options
    return [Check(LOCALHOST, HealthCheck(type="tcp", port=port, **options)) for port in range(1, n + 1)]


async def pass_at_once(check):
    pass


def test_the_first_round_is_sent_at_once_and_told_of_together():
    calls = []
    checks = many_checks(200)
    with probing(checks, calls.append, pass_at_once) as prober:
        until(lambda: prober.complete, "a first result of all")
    assert calls[-1] == dict.fromkeys(checks, State(Verdict.HEALTHY))
    assert len(calls) < 5


def test_no_more_probes_than_a_process_has_descriptors_for():
    under_way, most = set(), []
    enough = asyncio.Event()

    async def probe(check):
        under_way.add(check)
        most.append(len(under_way))
        if len(under_way) == IN_FLIGHT:
            asyncio.get_running_loop().call_later(0.05, enough.set)  # time for one too many to show up
        await enough.wait()
        under_way.remove(check)

    with probing(many_checks(3 * IN_FLIGHT), probe=probe) as prober:
        until(lambda: prober.complete, "a first result of all")
    assert max(most) == IN_FLIGHT


def test_the_limit_of_descriptors_is_raised_as_far_as_it_may_be():
    def limits_with(hard):
        code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (512, {hard}))
from maglev.engine import probes
print(probes.slots(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert limits_with(4096) == ["1024", "1280", "4096"]
    assert limits_with(1000) == ["744", "1000", "1000"]


def test_a_check_is_repeated_and_never_overlaps_with_itself():
    under_way, most = [], []

    async def probe(check):
        under_way.append(check)
        most.append(len(under_way))
        try:
            await asyncio.Event().wait()  # until the timeout
        finally:
            under_way.pop()

    [check] = many_checks(1, interval_s=0.01, timeout_s=0.01)
    with probing([check], probe=probe) as prober:
        until(lambda: len(most) > 10, "ten rounds")
        assert prober.last_errors() == {check: "no answer within 0.01 s"}
    assert set(most) == {1}


@pytest.mark.parametrize("n", [1, 2, 7, 100, 1000])
@pytest.mark.parametrize("first", [0, 12345])
def test_phases_spread_evenly_whatever_checks_have_come_and_gone(n, first):
    phases = sorted(phase(number) for number in range(first, first + n))
    gaps = [later - earlier for earlier, later in itertools.pairwise([*phases, phases[0] + 1])]
    assert max(gaps) < 2.62 / n  # the three-gap theorem: at most 1/n times the golden ratio squared


def test_in_steps_phases_coincide_and_are_still_spread_evenly():
    counted = Counter(phase(number, "m1", 10) for number in range(1000))
    assert len(counted) == 10
    assert min(counted.values()) > 90, counted
    assert phase(7, "m1", 10) != phase(7, "m2", 10)


def test_checks_that_are_due_together_are_probed_together():
    """Of 40 checks with an interval of 0.2 s there are four crowds; evenly spread they would begin 5 ms apart."""
    began, rounds = defaultdict(list), 3

    async def probe(check):
        began[check].append(time.monotonic())

    with probing(many_checks(40, interval_s=0.2, timeout_s=0.2), probe=probe):
        until(lambda: len(began) == 40 and min(map(len, began.values())) > rounds, "a few rounds")
    third = sorted(times[2] for times in began.values())
    gaps = [later - earlier for earlier, later in itertools.pairwise(third)]
    assert median(gaps) < 0.002, gaps


def test_maglevs_do_not_all_probe_at_the_same_moment():
    phases = {phase(7, f"m{number}") for number in range(100)}
    assert len(phases) == 100
    assert all(0 <= each < 1 for each in phases)
    assert phase(7, "m1") == phase(7, "m1")


def test_an_endpoint_that_flaps_is_held_down_and_returns():
    [check] = many_checks(
        1, interval_s=0.01, timeout_s=0.01, rise=1, fall=1, flap_changes=4, flap_window_s=60, hold_down_s=0.5
    )
    results, verdicts = itertools.cycle([True, False]), []
    steady = threading.Event()

    async def probe(check):
        if not steady.is_set() and not next(results):
            raise ConnectionError("no")

    def on_change(states):
        verdicts.append((states[check].verdict, time.monotonic()))

    with probing([check], on_change, probe) as prober:
        until(lambda: prober.states()[check].held_for_s(time.monotonic()) > 0, "holding down")
        steady.set()
        until(lambda: verdicts[-1][0] is Verdict.UNHEALTHY, "the last fall")
        until(lambda: verdicts[-1][0] is Verdict.HEALTHY, "the rise")
    assert verdicts[-1][1] - verdicts[-2][1] > 0.45, "it should have been held down for half a second"


@pytest.mark.parametrize("now", [0.0, 17.3, 86400.125])
@pytest.mark.parametrize("interval_s", [0.25, 1.0, 7.0])
def test_a_pause_ends_when_the_phase_comes_again(now, interval_s):
    for its_phase in (0.0, 0.25, 0.9):
        pause = pause_s(now, interval_s, its_phase)
        assert 0 < pause <= interval_s
        turns = (now + pause) / interval_s - its_phase
        assert turns == pytest.approx(round(turns), abs=1e-9)


def test_checks_that_stay_keep_their_state_and_others_come_and_go():
    stays, goes, comes = many_checks(3)
    probed = []

    async def probe(check):
        probed.append(check)
        if check == comes:
            await asyncio.Event().wait()

    with probing([stays, goes], probe=probe) as prober:
        until(lambda: prober.complete, "a first result of both")
        prober.set_checks([comes, stays])
        assert prober.states() == {comes: State(), stays: State(Verdict.HEALTHY)}
        until(lambda: comes in probed, "a probe of the new check")
        assert prober.complete  # what has been learnt is enough to serve
    assert probed == [stays, goes, comes]


def test_a_check_that_is_dropped_is_not_probed_again_and_leaves_no_trace():
    goes, stays = many_checks(2, interval_s=0.01, timeout_s=0.01)
    probed = []

    async def probe(check):
        probed.append(check)
        raise ConnectionError("no")

    with probing([goes, stays], probe=probe) as prober:
        until(lambda: prober.last_errors().keys() == {goes, stays}, "both failures")
        prober.set_checks([stays])
        until(lambda: prober.last_errors().keys() == {stays}, "forgetting")
        before = len(probed)
        until(lambda: len(probed) > before + 5, "more probes")
        assert goes not in probed[before:]
        assert prober.states().keys() == {stays}


def test_a_result_that_comes_after_its_check_was_dropped_is_forgotten():
    probers, told = [], threading.Event()

    async def probe(check):
        probers[0].set_checks([])
        told.set()

    prober = Prober(lambda states: None, probe)
    probers.append(prober)
    prober.set_checks(many_checks(1))
    prober.start()
    assert told.wait(DEADLINE_S)
    until(lambda: prober.complete, "completeness")
    prober.stop()
    assert prober.states() == {}
    assert prober.last_errors() == {}


def test_snapshots_do_not_change():
    [check] = many_checks(1, interval_s=0.01, timeout_s=0.01, fall=1)
    fails = threading.Event()

    async def probe(check):
        if fails.is_set():
            raise ConnectionError("no")

    with probing([check], probe=probe) as prober:
        until(lambda: prober.complete, "a first result")
        snapshot = prober.states()
        fails.set()
        until(lambda: prober.states()[check].verdict is Verdict.UNHEALTHY, "the fall")
        assert snapshot == {check: State(Verdict.HEALTHY)}


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("odd"), "odd"), (ZeroDivisionError(), "ZeroDivisionError"), (OSError(113, "x"), "No route to host")],
)
def test_whatever_a_probe_raises_is_a_failure_with_a_reason_and_the_others_go_on(error, reason):
    bad, good = many_checks(2, interval_s=0.01, timeout_s=0.01)
    rounds = itertools.count()

    async def probe(check):
        if check == bad:
            next(rounds)
            raise error

    with probing([bad, good], probe=probe) as prober:
        until(lambda: next(rounds) > 20, "more rounds")
        assert prober.last_errors() == {bad: reason}
        assert prober.states()[bad].verdict is Verdict.UNHEALTHY
        assert prober.states()[good] == State(Verdict.HEALTHY)


def test_it_is_not_complete_before_the_last_first_result_has_been_told_of():
    quick, slow = many_checks(2)
    go, heard = threading.Event(), []

    async def probe(check):
        while check == slow and not go.is_set():
            await asyncio.sleep(0.001)

    def on_change(states):
        heard.append((prober.complete, states[slow].verdict))

    prober = Prober(on_change, probe)
    prober.set_checks([quick, slow])
    assert not prober.complete
    prober.start()
    until(lambda: heard == [(False, Verdict.UNKNOWN)], "the quick result")
    assert not prober.complete
    go.set()
    until(lambda: prober.complete, "completeness")
    prober.stop()
    assert heard == [(False, Verdict.UNKNOWN), (False, Verdict.HEALTHY)]


def test_one_that_nobody_answers_doubts_itself_and_then_learns_anew_of_everybody():
    """Cut off, it is not complete; reached again, it tells of nobody before it knows of all, the dead ones too."""
    answering, checks = {"all": True}, many_checks(8, interval_s=0.1, timeout_s=0.1)
    dead, heard = checks[3], []

    async def probe(check):
        if not answering["all"] or (answering.get("dead") and check == dead):
            raise ConnectionError("no")

    def on_change(states):
        heard.append([check for check in checks if states[check].verdict is Verdict.HEALTHY])

    with probing(checks, on_change, probe, doubting=checks) as prober:
        until(lambda: prober.complete, "a first result of all")
        assert heard == [checks], "nobody should be told of before all are known"
        answering["all"] = False
        until(lambda: not prober.complete, "doubt")
        answering.update(all=True, dead=True)
        until(lambda: prober.complete, "a result of all anew")
    assert heard == [checks, [], [check for check in checks if check != dead]]


def test_a_cut_that_is_shorter_than_a_fall_turns_no_verdict():
    """Though each probe that fails counts towards it, and those under way at its end fail as well."""
    cut, heard, checks = {"failures": 0}, [], many_checks(8, interval_s=0.1, timeout_s=0.1, fall=3)

    async def probe(check):
        if cut["failures"] > 0:
            cut["failures"] -= 1
            raise ConnectionError("no")

    with probing(checks, heard.append, probe, doubting=checks) as prober:
        until(lambda: prober.complete, "a first result of all")
        for _ in range(3):
            cut["failures"] = 3 * len(checks) - 1  # the last of them fails twice
            until(lambda: not cut["failures"], "the end of the cut")
            until(lambda: not prober.last_errors(), "an answer from everybody")
        assert prober.complete
    assert len(heard) == 1, "verdicts turned"


def test_a_fall_among_a_thousand_endpoints_is_in_the_tables_within_50_ms():
    """From the last failure to a map without the endpoint, in its thread's own time, since others use the machine."""
    endpoints = [f"{{address: 10.2.{i >> 8}.{i & 255}}}" for i in range(1, 1001)]
    site = config.parse(f"""
maglevs: [{{name: m1, address: 10.1.1.2}}]
pools: {{web: {{endpoints: [{", ".join(endpoints)}], health_check: {{type: ping, fall: 1, rise: 1}}}}}}
vips: [{{name: a, address: 192.0.2.1, protocol: tcp, port: 80, pool: web}}]
""")
    plan, builder, took_s = Plan(site, site.maglev("m1")), MapBuilder(), []
    victim = plan.checks[500]
    failed_at, fails = [], threading.Event()

    async def probe(check):
        if check == victim and fails.is_set():
            failed_at.append(time.thread_time())
            raise ConnectionError("no")

    def on_change(states):
        def usable(member):
            return member in site.peers("default") or is_healthy(states, plan.checks_of(member)) is True

        vips = builder.build(site, "default", usable)
        if fails.is_set() and pack_address(victim.address) not in vips.pools["web"].usable:
            took_s.append(time.thread_time() - failed_at[0])

    with probing(plan.checks, on_change, probe) as prober:
        until(lambda: prober.complete, "a first result of all")
        for number in range(1, 5):
            failed_at.clear()
            fails.set()
            until(lambda number=number: len(took_s) == number, "a table without it")
            fails.clear()
            until(lambda: prober.states()[victim].verdict is Verdict.HEALTHY, "its return")
    assert min(took_s) + GATHER_S < 0.05, f"expected 50 ms, it took {[round(each * 1000) for each in took_s]} ms"


def test_with_nothing_to_check_it_is_complete():
    with probing([]) as prober:
        until(lambda: prober.complete, "completeness")


def test_an_error_of_the_listener_ends_the_thread_and_is_not_hidden(monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_value))

    def on_change(states):
        raise LookupError("a mistake in the program")

    with probing(many_checks(1), on_change, pass_at_once) as prober:
        until(lambda: raised, "the end of the thread")
    assert [str(error) for error in raised] == ["a mistake in the program"]
    assert not prober.complete


def test_after_stop_nothing_is_probed_and_nothing_breaks():
    probed = []

    async def probe(check):
        probed.append(check)

    checks = many_checks(1, interval_s=0.01, timeout_s=0.01)
    with probing(checks, probe=probe) as prober:
        until(lambda: len(probed) > 3, "some probes")
    assert_no_prober_is_left()
    prober.set_checks(many_checks(2))
    prober.stop()
    assert prober.states() == dict.fromkeys(many_checks(2), State())


def test_it_can_be_stopped_before_it_is_started():
    Prober(lambda states: None).stop()
