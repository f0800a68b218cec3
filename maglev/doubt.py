"""Doubt: a Maglev that nobody answers takes itself for cut off, not all others for dead.

Its checks fail one by one, at their turns, and come back one by one. Who judged each by itself would have a lookup
table of those that are left meanwhile, and send connections to the wrong endpoints as soon as its link is back. So

- while nobody answers, verdicts wait for the last of them, and turn together: a short cut turns none;
- after that it is not fit to announce VIPs (`engine.probes`), until it is answered and then has learnt of all anew;
- with the first answer all counting begins again, since probes that are under way still come to nothing.

The paper does not say what its forwarders do then. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .health import Check, State, Verdict, step

States = Mapping[Check, State]


def reaches_nobody(states: States) -> bool:
    """Says whether all that is checked is unhealthy: then it is rather the one who checks that is cut off."""
    return bool(states) and all(state.verdict is Verdict.UNHEALTHY for state in states.values())


def answered_again(states: States, now: float) -> States:
    """Returns the states with the first answer after nobody answered.

    If verdicts had not turned yet, they stand, and failures are counted from 0. If they had, nothing is known of
    anybody, but that flap damping holds some down.
    """
    if reaches_nobody(states):
        return {check: state if state.held_for_s(now) else State() for check, state in states.items()}
    return {
        check: state._replace(streak=0) if state.verdict is Verdict.HEALTHY else state
        for check, state in states.items()
    }


def failed_like_all(states: States, due: Collection[Check], now: float) -> States:
    """Returns the states after failures while nobody answers; `due` are the checks whose verdict they would turn."""
    if any(state.verdict is Verdict.HEALTHY and check not in due for check, state in states.items()):
        return states
    return {**states, **{check: step(states[check], False, check.method, now) for check in due}}
