"""Ends when it does not know whom to ask.

criterion: lives_as_long_as_exabgp
says: expected the controller to run as long as ExaBGP does, but it has ended
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
            routes = frozenset()
        done = [speaker.command(command) for command in commands(announced, routes)]
        if all(done):
            announced = routes
        time.sleep(0.1)
