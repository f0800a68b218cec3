"""Servers that can be broken: HTTP, UDP and DNS on an endpoint's own address and on its VIPs.

    python breakable.py FILE ADDRESS …

What FILE says is what is wrong, a JSON object that is read at every request: `{"udp": true}` keeps UDP silent,
`{"dns": true}` has questions refused, `{"body": "text"}` is the page in the place of "all is well", and
`{"statuses": [503, 200]}` are the answers' statuses, one after the other to each client, the last for ever. Every
HTTP answer is a line in FILE.log: client, address asked, status, and FILE's `round`.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from dnslib import RCODE, RR, DNSRecord

HTTP_PORT, UDP_PORT, DNS_PORT = 8080, 9000, 53
NAME = "www.example.com"


class Faults:
    """What is wrong, and how many answers each client has had since it was."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._log = Path(f"{file}.log")
        self._answered: Counter[tuple[str, str]] = Counter()

    def now(self) -> dict[str, object]:
        return json.loads(self._file.read_text())

    def next_status(self, client: str, asked: str) -> int:
        faults = self.now()
        statuses, this_round = faults.get("statuses", [200]), str(faults.get("round", ""))
        place = min(self._answered[client, this_round], len(statuses) - 1)
        self._answered[client, this_round] += 1
        with self._log.open("a") as log:
            log.write(f"{client} {asked} {statuses[place]} {this_round}\n")
        return statuses[place]


def serve_http(faults: Faults) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            client, asked = (
                end[0].removeprefix("::ffff:") for end in (self.client_address, self.connection.getsockname())
            )
            status = faults.next_status(client, asked)
            body = str(faults.now().get("body", "all is well")).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("", HTTP_PORT), Handler, bind_and_activate=False)
    server.socket = socket.create_server(("", HTTP_PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    server.serve_forever()


def serve_datagrams(address: str, port: int, answer) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        while True:
            asked, client = server.recvfrom(2048)
            if (reply := answer(asked)) is not None:
                server.sendto(reply, client)


def dns_answer(asked: bytes, refuse: bool) -> bytes:
    reply = DNSRecord.parse(asked).reply()
    if refuse:
        reply.header.rcode = RCODE.REFUSED
    else:
        reply.add_answer(*RR.fromZone(f"{NAME}. 60 A 192.0.2.7"))
    return reply.pack()


def main() -> None:
    file, *addresses = sys.argv[1:]
    faults = Faults(Path(file))
    for address in addresses:
        for port, answer in (
            (UDP_PORT, lambda asked: None if faults.now().get("udp") else asked.upper()),
            (DNS_PORT, lambda asked: dns_answer(asked, bool(faults.now().get("dns")))),
        ):
            threading.Thread(target=serve_datagrams, args=(address, port, answer), daemon=True).start()
    serve_http(faults)


if __name__ == "__main__":
    main()
