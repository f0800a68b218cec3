"""Sends small UDP packets of many flows, evenly, from a client node: `flood.py ADDRESS PORT RATE FLOWS`.

It says `ready` when the first are on their way, ends when its standard input does, and says how many it has sent. It
does not catch up after a pause of the machine: that would be another kind of load.
"""

import socket
import sys
import threading
import time

TICK_S = 0.001
FIRST_PORT = 20000
MOST_BEHIND_S = 0.01


def main() -> None:
    address, port, rate, flows = sys.argv[1], *map(int, sys.argv[2:])
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(flows)]
    for number, each in enumerate(sockets):
        each.bind(("", FIRST_PORT + number))
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    sent, due_at = 0, time.monotonic()
    while not ended.is_set():
        now = time.monotonic()
        due_at = max(due_at, now - MOST_BEHIND_S)
        while due_at <= now:
            sockets[sent % flows].sendto(b"flood", (address, port))
            sent += 1
            due_at += 1 / rate
        if sent <= flows < sent + rate * MOST_BEHIND_S:
            print("ready", flush=True)
        time.sleep(TICK_S)
    print(sent, flush=True)


if __name__ == "__main__":
    main()
