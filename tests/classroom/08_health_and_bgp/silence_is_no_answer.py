"""Leaves everything as it was when the forwarder does not answer.

criterion: a_dead_forwarder_is_withdrawn
says: since nobody is there to forward
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
