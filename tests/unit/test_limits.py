"""The rate limit: what it lets happen at once, how it comes back, and that no span of time sees more than it may."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from maglev.limits import Budget, NewFlows


def taken(budget, *times):
    return [budget.take(now) for now in times]


def test_a_seconds_worth_may_come_at_once():
    assert sum(taken(Budget(5.0), *[7.0] * 20)) == 5, "five at once should pass"


def test_what_was_taken_comes_back_at_the_rate():
    budget = Budget(4.0)
    assert all(taken(budget, *[100.0] * 4))
    assert taken(budget, 100.0, 100.2) == [False, False], "nothing should be left until a quarter of a second has gone"
    assert taken(budget, 100.25, 100.25) == [True, False], "then one"
    assert taken(budget, 100.75, 100.75, 100.75) == [True, True, False], "and half a second later two"


def test_a_long_rest_saves_no_more_than_a_burst():
    budget = Budget(3.0)
    assert sum(taken(budget, 0.0, *[1e6] * 20)) == 1 + 3


def test_less_than_one_a_second_is_one_now_and_then():
    budget = Budget(0.5)
    assert taken(budget, 0.0, 1.0, 1.9, 2.0, 3.0, 4.0) == [True, False, False, True, False, True]


def test_a_rate_of_0_lets_nothing_happen():
    assert not any(taken(Budget(0.0), 0.0, 1.0, 1e9))


def test_a_clock_that_goes_back_gives_nothing():
    budget = Budget(1.0)
    assert taken(budget, 10.0, 5.0, 9.0, 10.5, 11.0) == [True, False, False, False, True]


def test_each_vip_has_a_budget_of_its_own_and_another_limit_begins_anew():
    flows = NewFlows()
    found = [flows.take(*asked, 0.0) for asked in [("a", 1.0), ("a", 1.0), ("b", 1.0), ("a", 2.0), ("a", 1.0)]]
    assert found == [True, False, True, True, False], found


@given(st.floats(0.1, 100), st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0, 1e6))
def test_no_span_of_time_sees_more_than_the_rate_and_a_seconds_worth_at_once(per_s, pauses_s, start):
    budget, now, passed = Budget(per_s), start, []
    for pause_s in pauses_s:
        now += pause_s
        passed += [now] if budget.take(now) else []
    for first, since in enumerate(passed):
        for number, until in enumerate(passed[first:], 1):
            most = max(1.0, per_s) + (until - since) * per_s + 1e-3
            assert number <= most, f"{number} in {until - since:g} s, where {most:g} may be"
