"""The control socket: HTTP/1.1 on a Unix socket that only its owner may open (mode 0600).

HTTP, so that `curl --unix-socket PATH http://maglev/status` shows a student what the controller sees. What the
paths mean is the daemon's business: this module only carries documents, and what comes with a request.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from ..errors import ConfigError, MaglevError, PlatformError


class Request(NamedTuple):
    """What comes with a request besides its path: `?name=value&…`, and a body."""

    query: Mapping[str, str]
    body: bytes


Document = Mapping[str, Any] | bytes  # bytes are plain text
Routes = Mapping[str, Callable[[], Document]]  # "GET /status": what answers it
Takers = Mapping[str, Callable[[Request], Document]]  # the same for requests that bring something

CLIENT_SILENCE_S = 5.0
LARGEST_BODY_BYTES = 1 << 24  # a configuration with 100,000 endpoints has half of that


class ControlError(MaglevError):
    """A control socket that did not answer, or refused."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = CLIENT_SILENCE_S
    server: ControlServer

    def answer(self) -> None:
        body = self._read_body()
        if body is None:
            return
        route = self._route(body)
        if route is None:
            there_are = ", ".join([*self.server.routes, *self.server.takers])
            self._reply(404, {"error": f"no {self.command} {self.path}; there are: {there_are}"})
            return
        try:
            self._reply(200, route())
        except ConfigError as error:
            self._reply(409, {"error": str(error), "problems": list(map(asdict, error.problems))})
        except MaglevError as error:
            self._reply(409, {"error": str(error)})

    do_GET = do_POST = do_PUT = answer

    def _route(self, body: bytes) -> Callable[[], Document] | None:
        path, _, query = self.path.partition("?")
        taker = self.server.takers.get(f"{self.command} {path}")
        if taker is not None:
            return lambda: taker(Request(dict(parse_qsl(query, keep_blank_values=True)), body))
        return self.server.routes.get(f"{self.command} {self.path}")

    def _read_body(self) -> bytes | None:
        """Returns the body; None, after saying why and for good, if it cannot be told from what follows, or is cut."""
        length = self._body_length()
        if length is None:
            refusal = f"Content-Length: allowed: 0 to {LARGEST_BODY_BYTES}, and no Transfer-Encoding"
        else:
            body = self.rfile.read(length)
            if len(body) == length:
                return body
            refusal = f"the body ends after {len(body)} of {length} bytes"
        self.close_connection = True
        self._reply(400, {"error": refusal})
        return None

    def _body_length(self) -> int | None:
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            return None
        allowed = 0 <= length <= LARGEST_BODY_BYTES and "Transfer-Encoding" not in self.headers
        return length if allowed else None

    def _reply(self, status: int, document: Document) -> None:
        is_text = isinstance(document, bytes)
        body = document if isinstance(document, bytes) else json.dumps(document, default=str).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8" if is_text else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "local"  # a Unix socket's client has no address

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: the controller asks several times a second."""


class ControlServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves JSON documents on a Unix socket, in threads of its own, until it is closed."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, routes: Routes, takers: Takers | None = None) -> None:
        """Opens the socket; PlatformError if it cannot, or if another daemon answers there already."""
        self.routes, self.takers = routes, takers or {}
        self._path = path
        if path.is_socket():
            if _answers(path):
                raise PlatformError(f"another daemon answers on {path}: stop it, or name another --control")
            path.unlink()  # left behind by a daemon that was killed
        mask = os.umask(0o177)
        try:
            super().__init__(str(path), _Handler)
        except OSError as error:
            raise PlatformError(f"cannot open the control socket {path}: {error.strerror or error}") from None
        finally:
            os.umask(mask)

    def start(self) -> None:
        """Begins to answer."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.5}, name="control", daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Passes over a client that went away before its answer: the controller waits for none longer than it must."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        """Removes the socket, so that nobody finds it any more."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        self.server_close()


def _answers(path: Path) -> bool:
    """Says whether somebody listens there. A daemon that is stopped, its queue full, still does: hence no waiting."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("maglev", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """Asks a control socket again and again, over one connection as long as that lasts."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._connection = _UnixConnection(path, timeout_s)

    def request(self, method: str, target: str, body: bytes | None = None) -> dict[str, Any]:
        """Returns the document that is answered; ControlError if there is no answer in time, or if it refuses."""
        is_first = self._connection.sock is None
        try:
            return self._ask(method, target, body)
        except ConnectionError as error:  # another daemon may have taken its place since the last request
            if is_first:
                raise self._silence(error) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._silence(error) from None
        return self.request(method, target, body)

    def _ask(self, method: str, target: str, body: bytes | None) -> dict[str, Any]:
        try:
            self._connection.request(method, target, body)
            answer = self._connection.getresponse()
            document: dict[str, Any] = json.loads(answer.read())
        except BaseException:
            self.close()
            raise
        if answer.status != 200:
            raise ControlError(str(document.get("error", document)))
        return document

    def _silence(self, error: Exception) -> ControlError:
        return ControlError(f"{self._path} does not answer: {error}")

    def close(self) -> None:
        """Ends the connection; the next request opens another."""
        self._connection.close()


def request(path: Path, method: str, target: str, timeout_s: float = 1.0, body: bytes | None = None) -> dict[str, Any]:
    """Returns the document that a control socket answers with; ControlError if it does not, or if it refuses."""
    with contextlib.closing(Client(path, timeout_s)) as client:
        return client.request(method, target, body)


def text(path: Path, target: str, timeout_s: float = 1.0) -> str:
    """Returns the plain text that a control socket answers with; ControlError if it does not."""
    with contextlib.closing(_UnixConnection(path, timeout_s)) as connection:
        try:
            connection.request("GET", target)
            answer = connection.getresponse()
            body = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise ControlError(f"{path} does not answer: {error}") from None
    if answer.status != 200:
        raise ControlError(body)
    return body
