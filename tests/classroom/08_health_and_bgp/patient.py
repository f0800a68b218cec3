"""Waits for an answer for as long as BGP waits for a dead machine.

criterion: a_frozen_forwarder_is_withdrawn
says: expected less than the hold time
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
    client = Client(locate()[0], 5.0)
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
