"""What an endpoint goes on holding of VIPs that have left: for how long, and what for."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from maglev.lingering import LEAST_S, Holding

A, B, C = map(ip_network, ("192.0.2.1", "192.0.2.64/28", "2001:db8::1"))
MOST_S = 60.0


def let_go(holding, now, in_use=(), most_s=MOST_S):
    return holding.let_go(lambda vip: vip in in_use, now, most_s)


def test_what_comes_is_held_at_once_and_what_leaves_is_still():
    changed = Holding(frozenset([A, B])).changed([B, C], 10.0)
    assert (changed.vips, changed.left) == ({B, C}, {A: 10.0})
    assert changed.held == {A, B, C}


def test_a_vip_that_has_left_is_let_go_when_nobody_uses_it():
    left = Holding(frozenset([A, B])).changed([], 10.0)
    assert let_go(left, 10.0 + LEAST_S - 0.1).held == {A, B}, "another Maglev may still send here"
    assert let_go(left, 10.0 + LEAST_S, in_use=[B]).held == {B}
    assert let_go(left, 10.0 + MOST_S - 0.1, in_use=[A, B]).held == {A, B}
    assert let_go(left, 10.0 + MOST_S, in_use=[A, B]).held == set(), "but not for ever"


def test_a_limit_below_the_usual_least_counts():
    left = Holding(frozenset([A])).changed([], 10.0)
    assert let_go(left, 10.0, in_use=[A], most_s=0.0).held == set()


def test_what_comes_back_has_never_left():
    there = Holding(frozenset([A])).changed([], 10.0).changed([A], 12.0)
    assert there == Holding(frozenset([A]))
    again = there.changed([], 20.0)
    assert again.left == {A: 20.0}, "its time should begin anew"


def test_other_changes_do_not_prolong_it():
    left = Holding(frozenset([A, B])).changed([B], 10.0).changed([B, C], 50.0)
    assert left.left == {A: 10.0}


@given(st.lists(st.sets(st.sampled_from([A, B, C])), min_size=1), st.data())
def test_what_is_configured_is_always_held_and_nothing_else_for_long(changes, data):
    holding, now = Holding(frozenset(changes[0])), 0.0
    for vips in changes:
        now += data.draw(st.floats(0, 100))
        holding = let_go(holding.changed(vips, now), now, in_use=data.draw(st.sets(st.sampled_from([A, B, C]))))
        assert vips <= holding.held
        assert all(now - since < MOST_S for since in holding.left.values())
    assert let_go(holding, now + MOST_S + 1, in_use=[A, B, C]).held == changes[-1]
