"""The endpoints' web server answers health checks at once, and everybody else as before."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
from ipaddress import ip_address

import pytest

from lab.servers import Server
from maglev.answers import http_request, judge_http
from maglev.config import HealthCheck

TIMEOUT_S = 10.0
CHECK = HealthCheck(type="http", port=80, path="/healthz", interval_s=1, timeout_s=0.5)


@pytest.fixture
def threads(monkeypatch):
    """The connections that were given a thread of their own."""
    given = []
    monkeypatch.setattr(Server, "process_request_thread", lambda self, *of: (given.append(of), serve(self, *of)))
    serve = Server.__mro__[1].process_request_thread
    return given


@pytest.fixture
def port():
    with Server("s1", 0, socket.AF_INET) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server.server_address[1]
        server.shutdown()


def ask(port, *pieces):
    """Sends a request in pieces, a segment each; returns all that comes back."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
        return answer


def test_a_maglevs_health_check_is_answered_without_a_thread(port, threads):
    answer = ask(port, http_request(CHECK, ip_address("127.0.0.1")))
    judge_http(CHECK, answer)
    assert answer.endswith(b"\r\n\r\nok\n")
    assert threads == []


@pytest.mark.parametrize(
    "request_of",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /healthzz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /bytes/10 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ],
)
def test_other_requests_have_a_thread_each(port, threads, request_of):
    assert ask(port, request_of).startswith(b"HTTP/1.1 200 OK")
    assert len(threads) == 1


def test_a_health_check_in_pieces_is_answered_as_well(port):
    answer = ask(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"Connection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nok\n")


def test_a_connection_that_is_kept_open_may_ask_for_health_and_then_for_more(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    for path, expected in (("/healthz", b"ok\n"), ("/", b"s1 answers 127.0.0.1\n"), ("/healthz", b"ok\n")):
        connection.request("GET", path)
        assert connection.getresponse().read() == expected
    connection.close()


def test_one_who_connects_and_says_nothing_holds_up_nobody(port):
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S):
        judge_http(CHECK, ask(port, http_request(CHECK, ip_address("127.0.0.1"))))


def test_no_server_asks_dns_for_a_name_before_it_listens():
    """A machine whose own name is in no /etc/hosts would wait for answers that cannot come, seconds for each family."""
    code = """if True:
        import os, socket, sys
        from lab.servers import Server
        asking = {"socket.gethostbyaddr", "socket.gethostbyname", "socket.getnameinfo"}
        sys.addaudithook(lambda event, of: event in asking and os._exit(9))
        for family in (socket.AF_INET, socket.AF_INET6):
            Server("s1", 0, family).server_close()
    """
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
