"""Health: rise and fall held to a machine that remembers everything, and the checks that a configuration needs."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maglev import config
from maglev.config import HealthCheck, Member
from maglev.health import Check, State, Verdict, checks_of, is_healthy, step

properties = settings(deadline=None)  # a busy machine is no fault

H, U, X = Verdict.HEALTHY, Verdict.UNHEALTHY, Verdict.UNKNOWN

RISE_AND_FALL = [  # rise, fall, results (+ passed, - failed), the verdict after each
    (2, 2, "+", [H]),
    (2, 2, "--", [X, U]),
    (9, 9, "-+", [X, H]),
    (2, 3, "---++", [X, X, U, U, H]),
    (2, 2, "+-+-+-", [H] * 6),
    (2, 2, "+--", [H, H, U]),
    (2, 3, "+--+---", [H, H, H, H, H, H, U]),
    (3, 1, "+-++-+++", [H, U, U, U, U, U, U, H]),
    (1, 1, "+-+-", [H, U, H, U]),
]


@pytest.mark.parametrize(("rise", "fall", "results", "verdicts"), RISE_AND_FALL)
def test_rise_and_fall(rise, fall, results, verdicts):
    method = HealthCheck(type="ping", rise=rise, fall=fall)
    state, seen = State(), []
    for result in results:
        state = step(state, result == "+", method)
        seen.append(state.verdict)
    assert seen == verdicts


def verdict_of(results, rise, fall):
    """The verdict after all results, looking back at the last `rise` or `fall` of them; at first one pass is enough."""
    opening = next((i for i in range(len(results)) if results[i] or i + 1 == fall), None)
    if opening is None:
        return Verdict.UNKNOWN
    healthy, since = results[opening], opening + 1  # the verdict, and which result is the first after it
    for i in range(since, len(results)):
        needed = fall if healthy else rise
        latest = results[max(since, i + 1 - needed) : i + 1]
        if len(latest) == needed and all(result != healthy for result in latest):
            healthy, since = not healthy, i + 1
    return Verdict.HEALTHY if healthy else Verdict.UNHEALTHY


@properties
@given(st.lists(st.booleans(), min_size=1), st.integers(1, 5), st.integers(1, 5))
def test_agrees_with_a_machine_that_remembers_every_result(results, rise, fall):
    state = State()
    for passed in results:
        state = step(state, passed, HealthCheck(type="ping", rise=rise, fall=fall))
    assert state.verdict is verdict_of(results, rise, fall)


def test_a_result_that_confirms_changes_nothing():
    """So a healthy endpoint costs no update."""
    method = HealthCheck(type="ping")
    healthy = step(State(), True, method)
    assert step(healthy, True, method) == healthy


PING, TCP = HealthCheck(type="ping"), HealthCheck(type="tcp", port=53)
A, B = ip_address("10.2.0.9"), ip_address("10.2.0.10")

SITE = """
maglevs: [{name: m1, address: 10.1.1.2}, {name: m2, address: 10.1.1.3, shard: other}]
pools:
  one: {endpoints: [{address: 10.2.0.10}, {address: 10.2.0.9}], health_check: {type: ping}}
  two: {endpoints: [{address: 10.2.0.9}], health_check: {type: ping, interval_s: 1.0}}
  three: {endpoints: [{address: 10.2.0.9}], health_check: {type: tcp, port: 53}}
  unchecked: {endpoints: [{address: 10.2.0.77}]}
  elsewhere: {endpoints: [{address: 10.2.0.88}], health_check: {type: ping}}
  unused: {endpoints: [{address: 10.2.0.99}], health_check: {type: ping}}
vips:
  - {name: a, address: 192.0.2.1, protocol: tcp, port: 1, pool: one}
  - {name: b, address: 192.0.2.1, protocol: tcp, port: 2, pool: two}
  - {name: c, address: 192.0.2.1, protocol: tcp, port: 3, pool: three}
  - {name: d, address: 192.0.2.1, protocol: tcp, port: 4, pool: unchecked}
  - {name: e, address: 192.0.2.2, protocol: tcp, port: 5, pool: elsewhere, shard: other}
"""


def test_a_shard_needs_each_check_of_its_vips_once_in_the_order_of_addresses():
    assert checks_of(config.parse(SITE), "default") == (Check(A, PING), Check(A, TCP), Check(B, PING))


def test_another_shard_needs_its_own():
    assert checks_of(config.parse(SITE), "other") == (Check(ip_address("10.2.0.88"), PING),)


MEMBERS = [  # the checks of a member, the verdicts known of its address, whether it is healthy
    ((), {}, True),
    ((PING,), {}, None),
    ((PING,), {PING: X}, None),
    ((PING,), {PING: H}, True),
    ((PING,), {PING: U}, False),
    ((PING,), {PING: H, TCP: U}, True),  # what another pool thinks of the address does not matter
    ((PING, TCP), {PING: H}, None),
    ((PING, TCP), {PING: H, TCP: H}, True),
    ((PING, TCP), {PING: H, TCP: U}, False),
    ((PING, TCP), {PING: U}, False),
]


@pytest.mark.parametrize(("checks", "verdicts", "healthy"), MEMBERS)
def test_a_member_is_healthy_when_it_passes_its_own_checks(checks, verdicts, healthy):
    states = {Check(A, method): State(verdict) for method, verdict in verdicts.items()}
    states |= {Check(B, method): State(U) for method in (PING, TCP)}
    assert is_healthy(states, Member(A, 1.0, checks)) is healthy
