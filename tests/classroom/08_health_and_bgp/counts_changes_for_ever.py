"""Forgets no change: whoever has turned ten times in a year is held down.

criterion: what_flaps_is_held_down
says: expected for how many seconds it is held down: 0.0, got 20.0
"""

import maglev.health
from maglev.announcements import commands, wanted
from maglev.controller import run


def step(state, passed, method, now):
    always = method.model_copy(update={"flap_window_s": 1e9})
    return maglev.health.step(state, passed, always, now)
