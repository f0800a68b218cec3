"""Keeps what was announced when the forwarder is silent: BGP has a timer for that, has it not?

criterion: faster_than_the_hold_timer
says: expected m1 to be withdrawn first, got m2, by the hold timer
"""

import sys
import time

from maglev.announcements import commands, wanted
from maglev.controller import ExaBgp
from maglev.engine.control import Client, ControlError
from maglev.errors import MaglevError
from maglev.health import step


def run(locate):
    speaker = ExaBgp(sys.stdin, sys.stdout)
    client = Client(locate()[0], 0.5)
    announced = frozenset()
    while speaker.alive:
        try:
            routes = wanted(client.request("GET", "/readiness"))
        except ControlError:
            continue
        done = [speaker.command(command) for command in commands(announced, routes)]
        if all(done):
            announced = routes
        time.sleep(0.1)
