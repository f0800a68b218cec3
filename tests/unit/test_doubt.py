"""Doubt: who is cut off turns its verdicts together, and learns of everybody anew."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from maglev.config import HealthCheck
from maglev.doubt import answered_again, failed_like_all, reaches_nobody
from maglev.health import Check, State, Verdict

H, U, X = Verdict.HEALTHY, Verdict.UNHEALTHY, Verdict.UNKNOWN
METHOD = HealthCheck(type="ping", fall=3)
A, B, C = (Check(ip_address(number), METHOD) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("verdicts", "nobody"), [([], False), ([U, U], True), ([U, H], False), ([U, X], False), ([X, X], False)]
)
def test_who_finds_all_unhealthy_reaches_nobody(verdicts, nobody):
    assert reaches_nobody(dict(zip((A, B, C), map(State, verdicts), strict=False))) is nobody


def test_who_was_cut_off_for_long_knows_nobody_then_but_goes_on_holding_down():
    states = {A: State(U, held_until=9.0), B: State(U, streak=1, changes=(3.0,))}
    assert answered_again(states, 8.0) == {A: states[A], B: State()}
    assert answered_again(states, 9.0) == {A: State(), B: State()}


def test_who_was_cut_off_for_a_moment_forgets_what_failed_meanwhile():
    states = {A: State(H, streak=2, changes=(3.0,)), B: State(U, streak=1), C: State(X, streak=1)}
    assert answered_again(states, 8.0) == {**states, A: State(H, changes=(3.0,))}


def test_verdicts_turn_when_the_last_of_them_is_due():
    states = {A: State(H, streak=2), B: State(H, streak=2), C: State(U)}
    assert failed_like_all(states, {A}, 1.0) == states
    turned = failed_like_all(states, {A, B}, 1.0)
    assert [turned[check].verdict for check in (A, B, C)] == [U, U, U]
