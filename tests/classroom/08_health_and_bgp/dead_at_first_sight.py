"""Takes the first result for a verdict, a failure too: whoever was slow at the start has no endpoints.

criterion: a_first_failure_is_no_verdict
says: expected the verdict: 'unknown', got 'unhealthy'
"""

import maglev.health
from maglev.announcements import commands, wanted
from maglev.controller import run
from maglev.health import State, Verdict


def step(state, passed, method, now):
    if state.verdict is Verdict.UNKNOWN:
        return State(Verdict.HEALTHY if passed else Verdict.UNHEALTHY)
    return maglev.health.step(state, passed, method, now)
