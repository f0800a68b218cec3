"""Health: rise and fall held to a machine that remembers everything, and the checks that a configuration needs."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maglev import config
from maglev.config import HealthCheck
from maglev.health import Check, Plan, State, Verdict, is_healthy, report, step

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
    method = HealthCheck(type="ping", rise=rise, fall=fall, flap_changes=0)
    state, seen = State(), []
    for result in results:
        state = step(state, result == "+", method, 0.0)
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
        state = step(state, passed, HealthCheck(type="ping", rise=rise, fall=fall, flap_changes=0), 0.0)
    assert state.verdict is verdict_of(results, rise, fall)


def test_a_result_that_confirms_changes_nothing():
    """So a healthy endpoint costs no update."""
    method = HealthCheck(type="ping")
    healthy = step(State(), True, method, 1.0)
    assert step(healthy, True, method, 2.0) == healthy


PEERS = config.Config().forwarder.fragments.health_check
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


def plan_of(text, maglev="m1"):
    whole = config.parse(text)
    return Plan(whole, whole.maglev(maglev))


def test_a_shard_needs_each_check_of_its_vips_once_in_the_order_of_addresses():
    assert plan_of(SITE).checks == (Check(A, PING), Check(A, TCP), Check(B, PING))


def test_another_shard_needs_its_own():
    assert plan_of(SITE, "m2").checks == (Check(ip_address("10.2.0.88"), PING),)


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
    assert is_healthy(states, [Check(A, method) for method in checks]) is healthy


def test_a_maglev_checks_the_others_of_its_shard_and_not_itself():
    site = SITE.replace("shard: other}]", "shard: other}, {name: m3, address: 10.1.1.4}]")
    peers = config.parse(site).peers("default")
    plan = plan_of(site)
    assert [str(peer.address) for peer in peers] == ["10.1.1.2", "10.1.1.4"]
    assert [list(plan.checks_of(peer)) for peer in peers[1:]] == [
        [Check(ip_address("10.1.1.4"), PEERS, ip_address("10.1.1.4"))]
    ]
    assert {str(check.address) for check in plan.checks} == {"10.1.1.4", str(A), str(B)}


BEHIND_TWO = """
maglevs: [{name: m1, address: 10.1.1.2}]
pools:
  web: {endpoints: [{address: 10.2.0.9}, {address: 10.2.0.10}], health_check: {type: tcp, port: 80, through: vip}}
  mixed: {pools: [web], endpoints: [{address: 10.2.0.10}], health_check: {type: ping}}
vips:
  - {name: a, address: 192.0.2.1, protocol: tcp, port: 80, pool: web}
  - {name: b, address: 192.0.2.1, protocol: tcp, port: 443, pool: web}
  - {name: c, address: 192.0.2.2, protocol: tcp, port: 80, pool: mixed}
"""


def test_a_check_through_the_data_path_is_one_for_each_vip_address_of_the_endpoint():
    whole, plan = config.parse(BEHIND_TWO), plan_of(BEHIND_TWO)
    one, two = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    method = HealthCheck(type="tcp", port=80, through="vip")
    assert set(plan.checks) == {Check(a, method, vip) for a in (A, B) for vip in (one, two)} | {Check(B, PING)}
    assert len(plan.checks) == 5
    by_address = {member.address: set(plan.checks_of(member)) for member in whole.pool_members("mixed")}
    assert by_address == {
        A: {Check(A, method, one), Check(A, method, two)},
        B: {Check(B, method, one), Check(B, method, two), Check(B, PING)},
    }


DAMPED = HealthCheck(type="ping", rise=1, fall=1, flap_changes=4, flap_window_s=10, hold_down_s=30)
FLAPS = [  # results as (now, passed), and the verdict after each
    ([(0, 1), (1, 0), (2, 1), (3, 0)], [H, U, H, U]),
    ([(0, 1), (1, 0), (2, 1), (3, 0), (4, 1), (33.9, 1), (34, 1)], [H, U, H, U, U, U, H]),  # up is held down too
    ([(0, 1), (1, 0), (2, 1), (3, 0), (4, 1), (20, 0), (40, 1)], [H, U, H, U, U, U, H]),
    ([(0, 1), (1, 0), (2, 1), (3, 0), (11, 1), (12, 0)], [H, U, H, U, H, U]),  # the first has left the window
    ([(0, 1), (1, 0), (2, 1), (3, 0), (10.9, 1), (12, 1)], [H, U, H, U, U, U]),  # it has not
]


@pytest.mark.parametrize(("results", "verdicts"), FLAPS)
def test_an_endpoint_that_flaps_is_held_down(results, verdicts):
    state, seen = State(), []
    for now, passed in results:
        state = step(state, bool(passed), DAMPED, float(now))
        seen.append(state.verdict)
    assert seen == verdicts


def test_after_being_held_down_an_endpoint_needs_its_rise_in_a_row_and_starts_anew():
    method = DAMPED.model_copy(update={"rise": 3})
    state = State(U, held_until=100.0)
    for now, passed in ((97, True), (98, True), (99, False), (100, True), (101, True)):
        state = step(state, passed, method, float(now))
        assert state.verdict is U, f"healthy at {now} after fewer than three passes in a row"
    state = step(state, True, method, 102.0)
    assert state == State(H, changes=(102.0,))


@properties
@given(st.lists(st.tuples(st.floats(0.01, 5), st.booleans()), min_size=1, max_size=200))
def test_no_window_has_more_changes_than_are_allowed(results):
    now, state, changes = 0.0, State(), []
    for pause_s, passed in results:
        now += pause_s
        before, state = state.verdict, step(state, passed, DAMPED, now)
        if before is not X and state.verdict is not before:
            changes.append(now)
        assert len([change for change in changes if now - change < DAMPED.flap_window_s]) <= DAMPED.flap_changes
        assert len(state.changes) < DAMPED.flap_changes
    slow = HealthCheck(type="ping", rise=1, fall=1, flap_changes=0)
    assert step(State(H), False, slow, now) == State(U)


def test_a_report_says_what_a_person_asks():
    held = Check(A, HealthCheck(type="http", port=80, through="vip"), ip_address("192.0.2.1"))
    states = {held: State(U, held_until=12.5), Check(B, PING): State(H)}
    assert report(states, {held: "HTTP status 500"}, 10.0) == [
        {
            "endpoint": str(A), "type": "http", "port": 80, "through": "192.0.2.1", "verdict": "unhealthy",
            "latest_failure": "HTTP status 500", "held_down_for_s": 2.5,
        },
        {
            "endpoint": str(B), "type": "ping", "port": None, "through": None, "verdict": "healthy",
            "latest_failure": None, "held_down_for_s": 0.0,
        },
    ]  # fmt: skip
