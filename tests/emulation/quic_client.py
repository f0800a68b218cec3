"""A QUIC client (aioquic) that asks who serves it, then moves to another address or port and asks again, and so on.

    python quic_client.py VIP PORT SOURCE,SOURCE_PORT SOURCE,SOURCE_PORT …

One connection all the time. It prints a JSON list: the answer from each place, "" where none came in time.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import sys
import time

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import HandshakeCompleted, StreamDataReceived

PROTOCOL = "who"
PATIENCE_S = 1.5  # for one answer
DATAGRAM_BYTES = 65536


class Client:
    """One connection, and the socket that it has now: what moves packets for aioquic, which does no I/O itself."""

    def __init__(self, server: tuple[str, int], place: tuple[str, int]) -> None:
        self.connection = QuicConnection(
            configuration=QuicConfiguration(alpn_protocols=[PROTOCOL], verify_mode=ssl.CERT_NONE, idle_timeout=120.0)
        )
        self._server = server
        self._answers: dict[int, bytes] = {}
        self._ended: set[int] = set()
        self.is_open = False
        self.move(place)
        self.connection.connect(server, time.monotonic())

    def move(self, place: tuple[str, int]) -> None:
        """Goes on from another address and port, as behind a NAT that has forgotten: the connection is not told."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(place)

    def ask(self) -> str:
        """Returns who answers, "" if nobody does in time."""
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_stream_data(stream, b"who?", end_stream=True)
        self.work(lambda: stream in self._ended)
        return self._answers.get(stream, b"").decode() if stream in self._ended else ""

    def work(self, is_done) -> None:
        """Sends and receives until something is done, or for as long as patience lasts."""
        until = time.monotonic() + PATIENCE_S
        while not is_done() and (now := time.monotonic()) < until:
            for data, _ in self.connection.datagrams_to_send(now):
                self._socket.sendto(data, self._server)
            timer = self.connection.get_timer()
            wait_s = max(0.0, min(until, timer or until) - now)
            if select.select([self._socket], [], [], wait_s)[0]:
                self.connection.receive_datagram(self._socket.recv(DATAGRAM_BYTES), self._server, time.monotonic())
            elif timer is not None and time.monotonic() >= timer:
                self.connection.handle_timer(time.monotonic())
            self._take_events()

    def _take_events(self) -> None:
        while event := self.connection.next_event():
            if isinstance(event, HandshakeCompleted):
                self.is_open = True
            elif isinstance(event, StreamDataReceived):
                self._answers[event.stream_id] = self._answers.get(event.stream_id, b"") + event.data
                if event.end_stream:
                    self._ended.add(event.stream_id)


def main() -> None:
    vip, port, *places = sys.argv[1:]
    first, *rest = [(address, int(number)) for address, number in (place.split(",") for place in places)]
    client = Client((vip, int(port)), first)
    client.work(lambda: client.is_open)
    answers = [client.ask()]
    for place in rest:
        client.move(place)
        answers.append(client.ask())
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
