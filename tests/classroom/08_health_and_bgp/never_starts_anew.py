"""Counts all results that contradict the verdict, not only those in a row.

criterion: turns_after_rise_and_fall
says: expected the verdict: 'healthy', got 'unhealthy'
"""

from maglev.announcements import commands, wanted
from maglev.controller import run
from maglev.health import State, Verdict


def step(state, passed, method, now):
    says = Verdict.HEALTHY if passed else Verdict.UNHEALTHY
    if says is state.verdict:
        return state
    needed = 1 if state.verdict is Verdict.UNKNOWN and passed else method.rise if passed else method.fall
    return State(says) if state.streak + 1 >= needed else state._replace(streak=state.streak + 1)
