"""Sends numbered datagrams evenly from a client node, and knows of each how long its answer took: a process there.

    stream.py ADDRESS PORT RATE FLOWS BYTES

A line N on standard input asks for the next N datagrams; the answer is a line of JSON when each of them has been
answered, or has waited `LOST_S` for it: how many were lost, the milliseconds that each answer took, and how many flows
were answered by more than one endpoint so far. It goes on sending meanwhile, and ends when its standard input does.
"""

import json
import select
import socket
import sys
import time

LOST_S = 1.0
MOST_BEHIND_S = 0.01  # it does not catch up after a pause of the machine: that would be another kind of load
MOST = 200_000  # datagrams altogether: somebody has forgotten it


class Stream:
    def __init__(self, address: str, port: int, rate: float, flows: int, size: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sockets = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(flows)]
        for each in self.sockets:
            each.connect((address, port))
            each.setblocking(False)
        self.pause_s, self.size = 1 / rate, size
        self.sent_at: list[float] = []
        self.took_ms: dict[int, float] = {}
        self.endpoints: list[set[bytes]] = [set() for _ in self.sockets]

    def send(self) -> None:
        number = len(self.sent_at)
        self.sent_at.append(time.monotonic())
        self.sockets[number % len(self.sockets)].send((b"%d " % number).ljust(self.size, b"."))

    def receive(self, ready: list[socket.socket]) -> None:
        for each in ready:
            try:
                endpoint, number, *_ = each.recv(1 << 16).split()
            except OSError:  # an ICMP error: the datagram is lost, and will be counted so
                continue
            self.took_ms[int(number)] = (time.monotonic() - self.sent_at[int(number)]) * 1e3
            self.endpoints[self.sockets.index(each)].add(endpoint)

    def report(self, first: int, end: int) -> str:
        took = [self.took_ms[number] for number in range(first, end) if number in self.took_ms]
        wandered = sum(len(found) > 1 for found in self.endpoints)
        return json.dumps({"lost": end - first - len(took), "took_ms": took, "wandered": wandered})

    def run(self) -> None:
        due_at, first, end = time.monotonic(), 0, 0
        while len(self.sent_at) < MOST:
            now = time.monotonic()
            if due_at <= now:
                self.send()
                due_at = max(due_at, now - MOST_BEHIND_S) + self.pause_s
            ready = select.select([sys.stdin, *self.sockets], [], [], max(0.0, due_at - time.monotonic()))[0]
            if sys.stdin in ready:
                line = sys.stdin.readline()
                if not line:
                    return
                first, end = len(self.sent_at), len(self.sent_at) + int(line)
            self.receive([each for each in ready if each is not sys.stdin])
            if first < end <= len(self.sent_at) and self.is_over(first, end):
                print(self.report(first, end), flush=True)
                first = end

    def is_over(self, first: int, end: int) -> bool:
        if time.monotonic() - self.sent_at[end - 1] > LOST_S:
            return True
        return all(number in self.took_ms for number in range(first, end))


if __name__ == "__main__":
    Stream(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *map(int, sys.argv[4:])).run()
