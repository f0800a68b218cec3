"""Takes a command that was sent for one that was carried out.

criterion: what_failed_is_tried_again
says: one of which was refused at first
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
        for command in commands(announced, routes):
            speaker.command(command)
        announced = routes
        time.sleep(0.1)
