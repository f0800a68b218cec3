"""Announces all that is wanted each time, whatever ExaBGP has been told already.

criterion: says_nothing_twice
says: expected the number of commands in all: 2, got
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
    while speaker.alive:
        try:
            routes = wanted(client.request("GET", "/readiness"))
        except ControlError:
            routes = frozenset()
        for command in commands(frozenset(), routes):
            speaker.command(command)
        time.sleep(0.1)
