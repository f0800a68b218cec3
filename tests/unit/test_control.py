"""The control socket, on a real Unix socket: who may open it, what it answers, and what does not upset it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from asking import answer_of

from maglev.engine.control import CLIENT_SILENCE_S, LARGEST_BODY_BYTES, Client, ControlError, ControlServer, request
from maglev.errors import ConfigError, MaglevError, PlatformError, Problem

ROOT = Path(__file__).parents[2]


def refuse():
    raise ConfigError([Problem("site.yaml", "shard", 3, "a name")])


def collapse():
    raise ZeroDivisionError("a defect in a daemon")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """A control socket that answers for the whole module; gives its path and what was asked of it."""
    asked = []

    def status():
        asked.append("status")
        return {"ready": True, "name": "Müller"}

    routes = {
        "GET /status": status,
        "POST /reload": refuse,
        "POST /drain": lambda: {"draining": True},
        "GET /boom": collapse,
    }
    server = ControlServer(tmp_path_factory.mktemp("daemon") / "m1.sock", routes)
    server.start()
    yield server.server_address, asked
    server.shutdown()
    server.close()


@pytest.fixture
def served(daemon):
    daemon[1].clear()
    return Path(daemon[0]), daemon[1]


@contextmanager
def serving(path, routes):
    """A control socket for one test, which is quicker to stop than one that was started."""
    server = ControlServer(path, routes)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    try:
        yield path
    finally:
        server.shutdown()
        server.close()


def talk(path, content, timeout_s=3.0):
    """Sends bytes to a control socket, says that no more will come, and returns all that it answers."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout_s)
        client.connect(str(path))
        client.sendall(content)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while part := client.recv(65536):
            answer += part
        return answer


def answers(raw):
    """Parts what a keep-alive connection received into (status, document) by the lengths that it names."""
    found = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        size = next(int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length"))
        found.append((int(lines[0].split()[1]), json.loads(rest[:size])))
        raw = rest[size:]
    return found


def test_only_the_owner_may_open_it_whatever_the_umask(tmp_path):
    for mask in (0o000, 0o077):
        before = os.umask(mask)
        try:
            with serving(tmp_path / "m1.sock", {}) as path:
                mode = stat.S_IMODE(path.stat().st_mode)
                assert mode == 0o600, f"with umask {mask:#o} the mode should have been 0o600, but was {mode:#o}"
                after = os.umask(mask)
                assert after == mask, f"the umask should be {mask:#o} again, but is {after:#o}"
        finally:
            os.umask(before)


def test_a_document_is_answered(served):
    path, asked = served
    document = request(path, "GET", "/status")
    assert document == {"ready": True, "name": "Müller"}, f"the document came as {document}"
    assert asked == ["status"], f"the route should have been asked once, but was {len(asked)} times"
    assert request(path, "POST", "/drain") == {"draining": True}


def test_it_speaks_plain_http(served):
    raw = talk(served[0], b"GET /status HTTP/1.1\r\nHost: maglev\r\n\r\n")
    head = raw.partition(b"\r\n\r\n")[0].decode()
    assert head.startswith("HTTP/1.1 200 "), f"should have answered by HTTP/1.1, but said {head}"
    assert "Content-Type: application/json" in head, f"should have called it JSON, but said {head}"
    assert raw.endswith(b"\n"), "a document should end its line, for people with curl"


@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", "/"), ("GET", "/Status"), ("GET", "/status/"), ("POST", "/status"), ("GET", "/drain")],
)
def test_a_wrong_path_is_told_what_there_is(served, method, target):
    path, asked = served
    with pytest.raises(ControlError) as caught:
        request(path, method, target)
    expected = f"no {method} {target}; there are: GET /status, POST /reload, POST /drain, GET /boom"
    assert str(caught.value) == expected, f"should have said {expected!r}, but said {str(caught.value)!r}"
    status = answers(talk(path, f"{method} {target} HTTP/1.1\r\n\r\n".encode()))[0][0]
    assert status == 404, f"the status should have been 404, but was {status}"
    assert not asked, "no route should have been asked"


def test_a_refusal_is_a_document_with_the_error(served):
    said = "site.yaml: shard: 3 is not allowed; allowed: a name"
    found = answers(talk(served[0], b"POST /reload HTTP/1.1\r\n\r\n"))
    problem = {"file": "site.yaml", "field": "shard", "value": 3, "allowed": "a name"}
    assert found == [(409, {"error": said, "problems": [problem]})], f"should have been 409 with all, but was {found}"
    with pytest.raises(ControlError) as caught:
        request(served[0], "POST", "/reload")
    assert str(caught.value) == said, f"the client should have said {said!r}, but said {str(caught.value)!r}"
    assert isinstance(caught.value, MaglevError), "a refusal is an error that a user can mend"


def test_one_connection_carries_many_requests(served):
    body = b'{"why": "a body that nobody reads"}'
    length = f"Content-Length: {len(body)}\r\n\r\n".encode()
    requests = [
        b"GET /status HTTP/1.1\r\n\r\n",
        b"POST /drain HTTP/1.1\r\n" + length + body,
        b"POST /nowhere HTTP/1.1\r\n" + length + body,
        b"GET /status HTTP/1.1\r\n\r\n",
    ]
    found = [status for status, _ in answers(talk(served[0], b"".join(requests)))]
    assert found == [200, 200, 404, 200], f"four requests should get 200, 200, 404, 200, but got {found}"


# name, bytes, the start of the answer
MALFORMED = [
    ("nothing", b"", b""),
    ("an empty line", b"\r\n", b""),
    ("noise", b"\x00\xff\x16\x03\x01 \r\n\r\n", b""),
    ("one word", b"GET\r\n\r\n", b""),
    ("an unknown method", b"BREW /status HTTP/1.1\r\n\r\n", b"HTTP/1.1 501 "),
    ("an unknown version", b"GET /status HTTP/9.9\r\n\r\n", b""),
    ("no version that is one", b"GET /status FTP\r\n\r\n", b""),
    ("an endless line", b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n", b"HTTP/1.1 414 "),
    ("too many headers", b"GET /status HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"HTTP/1.1 431 "),
    ("an endless header", b"GET /status HTTP/1.1\r\nA: " + b"b" * 70000 + b"\r\n\r\n", b"HTTP/1.1 431 "),
    ("a length in words", b"POST /drain HTTP/1.1\r\nContent-Length: ten\r\n\r\n", b"HTTP/1.1 400 "),
    ("a negative length", b"POST /drain HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"HTTP/1.1 400 "),
    (
        "a length of 5,000 digits",
        b"GET /status HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 400 ",
    ),
    (
        "a body too long",
        f"POST /drain HTTP/1.1\r\nContent-Length: {LARGEST_BODY_BYTES + 1}\r\n\r\n".encode(),
        b"HTTP/1.1 400 ",
    ),
    ("a body cut short", b"POST /drain HTTP/1.1\r\nContent-Length: 50\r\n\r\nshort", b"HTTP/1.1 400 "),
    (
        "a body in chunks",
        b"PUT /config HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n\r\n",
        b"HTTP/1.1 400 ",
    ),
    ("headers cut short", b"GET /status HTTP/1.1\r\nHo", b""),
]


@pytest.mark.parametrize(("name", "content", "start"), MALFORMED, ids=[case[0] for case in MALFORMED])
def test_a_malformed_request_is_survived(served, capfd, name, content, start):
    raw = talk(served[0], content)
    assert raw.startswith(start), f"{name}: the answer should begin with {start}, but is {raw[:60]}"
    assert request(served[0], "GET", "/status")["ready"], f"{name}: the next request should have been answered"
    said = capfd.readouterr().err
    assert "Traceback" not in said, f"{name} is the client's fault, and should leave no traceback: {said}"


@pytest.fixture
def taking(tmp_path):
    """A control socket that takes what comes with a request; gives its path and what it was given."""
    given = []

    def take(request):
        given.append((dict(request.query), request.body))
        return {"bytes": len(request.body)}

    takers = {"PUT /config": take, "POST /drain": take}
    server = ControlServer(tmp_path / "m1.sock", {"GET /status": dict}, takers)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    yield tmp_path / "m1.sock", given
    server.shutdown()
    server.close()


@pytest.mark.parametrize("size", [0, 1, 70000, LARGEST_BODY_BYTES], ids="{} bytes".format)
def test_a_body_arrives_whole(taking, size):
    path, given = taking
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert request(path, "PUT", "/config", 10.0, body) == {"bytes": size}
    assert given == [({}, body)]


def test_a_query_arrives_with_empty_values_and_escapes(taking):
    path, given = taking
    request(path, "POST", "/drain?wait_s=30&quiet_s=&why=a%20b")
    assert given == [({"wait_s": "30", "quiet_s": "", "why": "a b"}, b"")]


def test_a_body_cut_short_reaches_nobody(taking):
    """A configuration without its end may well be sound."""
    path, given = taking
    found = answers(talk(path, b"PUT /config HTTP/1.1\r\nContent-Length: 50\r\n\r\nshard: blue"))
    assert found == [(400, {"error": "the body ends after 11 of 50 bytes"})]
    assert not given, f"it should have been refused, but was taken as {given}"


def test_curl_uploads_a_file(taking, tmp_path):
    path, given = taking
    file = tmp_path / "site.yaml"
    file.write_bytes(b"x" * 3_000_000)  # so large that curl first asks whether it may (Expect: 100-continue)
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "20", "--unix-socket", path, "-T", file, "http://maglev/config"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == '{"bytes": 3000000}\n', done.stderr
    assert given == [({}, file.read_bytes())]


def test_a_wrong_path_is_told_of_what_takes_something_too(taking):
    with pytest.raises(ControlError, match=r"there are: GET /status, PUT /config, POST /drain"):
        request(taking[0], "GET", "/config")


def test_what_follows_a_length_without_sense_is_not_taken_for_a_request(served):
    path, asked = served
    raw = talk(path, b"POST /drain HTTP/1.1\r\nContent-Length: -1\r\n\r\nGET /status HTTP/1.1\r\n\r\n")
    found = [status for status, _ in answers(raw)]
    assert found == [400], f"one answer, 400, should end the connection, but the answers were {found}"
    assert not asked, "no route should have been asked"


def test_a_client_that_leaves_before_its_answer_is_passed_over(tmp_path, capfd):
    go_on, asked = threading.Event(), threading.Event()

    def slow():
        asked.set()
        go_on.wait(5)
        return {"much": "x" * (1 << 20)}

    with serving(tmp_path / "m1.sock", {"GET /slow": slow, "GET /status": dict}) as path:
        with pytest.raises(ControlError, match=r"m1\.sock does not answer: timed out"):
            request(path, "GET", "/slow", timeout_s=0.05)
        assert asked.wait(5), "the slow route should have been asked"
        assert request(path, "GET", "/status") == {}, "a slow answer should not hold up others"
        go_on.set()
        assert wait_until(lambda: not [t for t in threading.enumerate() if "process_request_thread" in t.name]), (
            "the thread that answered should have ended"
        )
    said = capfd.readouterr().err
    assert said == "", f"a client that went away is nothing to write about, but: {said}"


def test_a_defect_in_a_route_is_written_down_and_survived(served, capfd):
    with pytest.raises(ControlError, match="does not answer"):
        request(served[0], "GET", "/boom")
    assert wait_until(lambda: "ZeroDivisionError: a defect" in capfd.readouterr().err), "it should be in the log"
    assert request(served[0], "GET", "/status")["ready"], "the next request should have been answered"


def test_many_clients_at_once_are_answered(served):
    path, asked = served
    clients = [threading.Thread(target=request, args=(path, "GET", "/status", 5.0)) for _ in range(40)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(10)
    assert len(asked) == 40, f"40 clients should have been answered, but {len(asked)} were"


def test_a_silent_client_holds_up_nobody(served):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(served[0]))
        begun = time.monotonic()
        assert request(served[0], "GET", "/status")["ready"], "others should be answered"
        assert time.monotonic() - begun < CLIENT_SILENCE_S / 2, "and at once"


def test_a_socket_left_behind_is_replaced(tmp_path):
    path = tmp_path / "m1.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    assert path.is_socket(), "a socket that nobody listens on should be left behind"
    with serving(path, {"GET /status": lambda: {"ready": True}}):
        assert request(path, "GET", "/status") == {"ready": True}, "the new one should answer"


def test_a_second_daemon_is_refused_and_the_first_goes_on(served):
    path, _ = served
    with pytest.raises(PlatformError) as caught:
        ControlServer(path, {})
    expected = f"another daemon answers on {path}: stop it, or name another --control"
    assert str(caught.value) == expected, f"should have said {expected!r}, but said {str(caught.value)!r}"
    assert request(path, "GET", "/status")["ready"], "the first should still answer"


def test_a_second_daemon_is_refused_even_while_the_first_is_stopped(tmp_path):
    """A stopped daemon's queue fills up with the controller's questions; a further connection then has to wait."""
    path = tmp_path / "m1.sock"
    with socket.socket(socket.AF_UNIX) as stopped, socket.socket(socket.AF_UNIX) as question:
        stopped.bind(str(path))
        stopped.listen(0)
        question.connect(str(path))
        with pytest.raises(PlatformError, match="another daemon answers"):
            ControlServer(path, {})
    assert path.is_socket(), "its socket should still be there"


def test_a_file_in_the_way_is_left_alone(tmp_path):
    path = tmp_path / "m1.sock"
    path.write_text("precious")
    with pytest.raises(PlatformError, match=r"cannot open the control socket .*: Address already in use"):
        ControlServer(path, {})
    assert path.read_text() == "precious", "the file should be as it was"


@pytest.mark.parametrize(
    ("name", "said"), [("nowhere/m1.sock", "No such file or directory"), ("long" * 30, "AF_UNIX path too long")]
)
def test_a_path_that_cannot_be_opened_is_an_error_with_words(tmp_path, name, said):
    before = os.umask(0o022)
    os.umask(before)
    with pytest.raises(PlatformError) as caught:
        ControlServer(tmp_path / name, {})
    expected = f"cannot open the control socket {tmp_path / name}: {said}"
    assert str(caught.value) == expected, f"should have said {expected!r}, but said {str(caught.value)!r}"
    after = os.umask(before)
    assert after == before, f"the umask should be {before:#o} again, but is {after:#o}"


def test_closing_takes_the_socket_away(tmp_path):
    with serving(tmp_path / "m1.sock", {}) as path:
        assert path.is_socket()
    assert not path.exists(), "nobody should find a closed socket"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "Remote end closed connection"),
        (b"SSH-2.0-other\r\n", "SSH-2.0-other"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{]}", "Expecting property name"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{}", "IncompleteRead"),
    ],
)
def test_whoever_answers_otherwise_does_not_answer(tmp_path, answer, said):
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()

        def reply():
            client, _ = other.accept()
            with client:
                client.recv(65536)
                client.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(ControlError) as caught:
            request(path, "GET", "/status")
        thread.join(5)
    assert f"{path} does not answer: " in str(caught.value), f"said {caught.value}"
    assert said in str(caught.value), f"should have said {said!r}, but said {caught.value}"


def test_nobody_there_does_not_answer(tmp_path):
    with pytest.raises(ControlError, match=r"none\.sock does not answer: .*No such file or directory"):
        request(tmp_path / "none.sock", "GET", "/status")


def wait_until(condition, deadline_s=5.0):
    """Waits for a condition; returns whether it came true in time."""
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return False


# A client that asks again and again


DAEMON = """
import sys
from pathlib import Path
from maglev.engine.control import ControlServer
ControlServer(Path(sys.argv[1]), {"GET /who": lambda: {"who": sys.argv[2]}}).serve_forever(0.01)
"""


@contextmanager
def daemon_called(name, path):
    """A process that answers on a control socket who it is, killed at the end of the block."""
    with subprocess.Popen([sys.executable, "-c", DAEMON, path, name], cwd=ROOT) as process:
        try:
            assert wait_until(lambda: who(path) == name, 10.0), f"{name} should have come up"
            yield process
        finally:
            process.kill()


def who(path):
    return answer_of(path, "/who").get("who")


def test_a_client_keeps_its_connection(tmp_path, monkeypatch):
    opened = []
    usual = ControlServer.process_request
    monkeypatch.setattr(ControlServer, "process_request", lambda *call: (opened.append(1), usual(*call)))
    with (
        serving(tmp_path / "m1.sock", {"GET /status": lambda: {"ready": True}, "POST /reload": refuse}) as path,
        closing(Client(path, 1.0)) as client,
    ):
        for _ in range(3):
            assert client.request("GET", "/status") == {"ready": True}
            with pytest.raises(ControlError, match="a name"):
                client.request("POST", "/reload")
        assert len(opened) == 1, f"six requests should have taken one connection, but took {len(opened)}"


def test_a_client_finds_the_daemon_that_took_the_others_place(tmp_path):
    """At once: a controller that heard nothing would withdraw every VIP."""
    path = tmp_path / "m1.sock"
    with closing(Client(path, 5.0)) as client:
        for name in ("first", "second", "third"):
            with daemon_called(name, path):
                assert client.request("GET", "/who") == {"who": name}
        with pytest.raises(ControlError, match=r"does not answer: .*refused"):
            client.request("GET", "/who")


def test_a_client_does_not_wait_for_a_frozen_daemon_and_finds_it_again(tmp_path):
    path = tmp_path / "m1.sock"
    with daemon_called("m1", path) as process, closing(Client(path, 0.2)) as client:
        assert client.request("GET", "/who") == {"who": "m1"}
        process.send_signal(signal.SIGSTOP)
        assert wait_until(lambda: states_of(process.pid) == {"T"}), "every thread should have stopped"
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(ControlError, match="timed out"):
                client.request("GET", "/who")
            assert time.monotonic() - began < 2, "one timeout should be all that it waits"
        process.send_signal(signal.SIGCONT)
        assert wait_until(lambda: asked(client) == {"who": "m1"}), "should have been answered again"


def states_of(pid):
    """In what states a process's threads are, as letters (proc(5))."""
    return {path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")}


def asked(client):
    try:
        return client.request("GET", "/who")
    except ControlError:
        return None
