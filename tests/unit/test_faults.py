"""Faults: what should follow from each, schedules, plans of chaos, and what becomes of frames on a bad link."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import WrongUse
from lab.faults.chaos import KINDS, Wiring, plan
from lab.faults.effect import (
    ALL_LOST,
    DECAPSULATION_LOST,
    NO_EFFECT,
    SERVERS_FROZEN,
    SERVERS_KILLED,
    Effect,
    of_endpoint,
    together,
)
from lab.faults.fault import Fault
from lab.faults.held_frames import HeldFrames
from lab.faults.impaired import netem_commands
from lab.faults.impairment import LIMIT_FRAMES, Impairment
from lab.faults.registry import Registry
from lab.faults.schedule import Entry, Schedule, entries
from lab.timeline import Timeline
from maglev import config
from maglev.engine.probes import next_start
from maglev.pulse import SILENCE_S, Pulse

properties = settings(deadline=None)  # a busy machine is no fault
S1 = frozenset({"s1"})


# What should follow


def configured(**check):
    """A configuration in which 10.2.1.2 is checked so."""
    pool = {"endpoints": [{"address": "10.2.1.2"}], "health_check": check}
    vip = {"name": "www", "address": "192.0.2.1", "protocol": "tcp", "port": 80, "pool": "web"}
    maglevs = [{"name": "m1", "address": "10.1.1.2"}]
    return config.Config.model_validate({"maglevs": maglevs, "pools": {"web": pool}, "vips": [vip]})


HTTP, TCP, PING = {"type": "http", "port": 80}, {"type": "tcp", "port": 80}, {"type": "ping"}
VIP = {"through": "vip"}


@pytest.mark.parametrize(
    ("check", "lost", "is_noticed"),
    [
        (HTTP, SERVERS_KILLED, True),
        (TCP, SERVERS_KILLED, True),
        (PING, SERVERS_KILLED, False),
        (HTTP, SERVERS_FROZEN, True),
        (TCP, SERVERS_FROZEN, False),  # the kernel goes on accepting
        (HTTP, DECAPSULATION_LOST, False),  # the black hole
        (HTTP | VIP, DECAPSULATION_LOST, True),
        (PING | VIP, DECAPSULATION_LOST, True),
        (PING, ALL_LOST, True),
    ],
)
def test_an_endpoint_is_expected_unhealthy_if_its_check_can_tell(check, lost, is_noticed):
    effect = of_endpoint(configured(**check), "s1", ["10.2.1.2", "fd00:2:1::2"], {lost})
    assert effect == (Effect(unhealthy=S1) if is_noticed else NO_EFFECT)


def test_an_endpoint_that_one_pool_finds_healthy_and_another_does_not_is_unsettled():
    document = configured(**HTTP).model_dump(mode="json", exclude_none=True)
    document["pools"]["ping"] = {"endpoints": [{"address": "10.2.1.2"}], "health_check": PING}
    assert of_endpoint(config.Config.model_validate(document), "s1", ["10.2.1.2"], {SERVERS_KILLED}) == Effect(
        unsettled=S1
    )


def test_effects_of_several_faults_add_up():
    first, second = Effect(withdrawn=frozenset({"m1"})), Effect(withdrawn=frozenset({"m2"}), unhealthy=S1)
    assert together([first, second]) == Effect(withdrawn=frozenset({"m1", "m2"}), unhealthy=S1)
    assert together([]) == NO_EFFECT


# The registry


class Bench(Registry):
    """A registry without a lab."""

    def __init__(self):
        self.timeline = Timeline()
        self._begin_registry()
        self.converged = 0

    def _end_traffic(self):
        """There is none."""

    def wait_converged(self, timeout_s=0.0):
        self.converged += 1


def test_what_a_fault_leads_to_is_expected_from_before_it_happens_until_after_it_is_undone():
    bench, seen = Bench(), []
    effect = Effect(unhealthy=S1)
    fault = bench._fault(
        "kill", "s1", lambda: seen.append(bench.expected), do=lambda: seen.append(bench.expected), effect=effect
    )
    assert seen == [effect]
    assert bench.expected == effect
    with fault:
        pass
    assert seen == [effect, effect]
    assert bench.expected == NO_EFFECT
    assert [(event.kind, event.what, event.where) for event in bench.timeline] == [
        ("fault", "kill", "s1"),
        ("undone", "kill", "s1"),
    ]


def test_a_fault_that_cannot_happen_has_never_been_there():
    bench = Bench()

    def fail():
        raise WrongUse("no")

    with pytest.raises(WrongUse):
        bench._fault("kill", "s1", do=fail, effect=Effect(unhealthy=S1))
    assert bench.faults == ()
    assert bench.expected == NO_EFFECT
    assert bench.timeline.events == ()


def test_restore_undoes_open_faults_newest_first_and_each_once():
    bench, undone = Bench(), []
    faults = [bench._fault("kill", name, lambda name=name: undone.append(name)) for name in ("s1", "s2", "s3")]
    faults[1].undo()
    bench.restore()
    faults[0].undo()
    assert undone == ["s2", "s3", "s1"]
    assert bench.faults == ()
    assert bench.converged == 1


# Schedules


def test_a_schedule_does_each_thing_at_its_time_and_undoes_it_in_its_time():
    done: list[tuple[str, float]] = []
    began = time.monotonic()

    def act(name):
        def happens(lab):
            done.append((name, time.monotonic() - began))
            timeline = Timeline()
            return Fault(timeline, name, "", lambda: done.append((f"un{name}", time.monotonic() - began))).happened()

        return happens

    schedule = Schedule(None, [(0.2, act("second"), 0.1), (0.05, act("first"), 0.2), Entry(0.1, act("stays"))])
    with schedule:
        schedule.repeating.start()
        schedule.wait(5)
        assert [name for name, _ in done] == ["first", "stays", "second", "unfirst", "unsecond"]
        for (name, at_s), due_s in zip(done, (0.05, 0.1, 0.2, 0.25, 0.3), strict=True):
            assert at_s >= due_s, f"{name} came {due_s - at_s:.3f} s early"
    assert done[-1][0] == "unstays", "the end of a schedule undoes what has no end of its own"


def test_a_schedule_that_fails_says_so_to_whoever_waits_and_undoes_what_was_done():
    undone = threading.Event()

    def fail(lab):
        raise WrongUse("there is no maglev 'm9'")

    fault = Fault(Timeline(), "kill", "m1", undone.set)
    schedule = Schedule(None, [(0.0, lambda lab: fault.happened()), (0.01, fail), (60.0, fail)])
    schedule.repeating.start()
    with pytest.raises(WrongUse, match="m9"):
        schedule.wait(5)
    with pytest.raises(WrongUse, match="m9"):
        schedule.stop()
    assert undone.is_set()


@pytest.mark.parametrize("entry", [(1.0,), (-1.0, print), (0.0, "kill m1"), (0.0, print, -2.0), (float("inf"), print)])
def test_a_schedule_of_what_cannot_be_done_is_refused(entry):
    with pytest.raises(WrongUse, match="allowed"):
        entries([entry])


# Chaos

RACK = Wiring(
    ("m1", "m2", "m3"),
    ("s1", "s2", "s3", "s4", "s5"),
    tuple(("r1", name) for name in ("m1", "m2", "m3", "s1", "s2", "s3", "s4", "s5", "c1")),
)


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    assert plan(RACK, 30, 300.0, 7) == plan(RACK, 30, 300.0, 7)
    assert plan(RACK, 30, 300.0, 7) != plan(RACK, 30, 300.0, 8)


@properties
@given(st.integers(1, 60), st.floats(6.0, 600.0), st.integers(0, 1 << 32), st.integers(2, 6), st.integers(2, 9))
def test_chaos_leaves_a_maglev_and_half_of_the_endpoints_alone_at_any_time(faults, seconds, seed, maglevs, endpoints):
    names = [f"m{n}" for n in range(maglevs)], [f"s{n}" for n in range(endpoints)]
    wiring = Wiring(*map(tuple, names), tuple(("r1", name) for name in itertools.chain(*names)))
    planned = plan(wiring, faults, seconds, seed)
    assert len(planned) == faults
    assert all(0 <= each.at_s <= seconds for each in planned)
    assert [each.at_s for each in planned] == sorted(each.at_s for each in planned)
    for now in planned:
        hit = [each.hits for each in planned if each.at_s <= now.at_s < each.at_s + (each.for_s or 0.0)]
        assert len(hit) == len(set(hit)), f"{hit}: one node is hit twice at {now.at_s} s"
        assert maglevs - sum(name in names[0] for name in hit) >= 1, f"{hit} leaves no Maglev"
        assert endpoints - sum(name in names[1] for name in hit) >= endpoints // 2, f"{hit} leaves too few endpoints"


def test_chaos_does_every_kind_of_fault_and_has_some_of_them_meet():
    planned = plan(RACK, 400, 4000.0, 1)
    assert {each.what for each in planned} == {kind.what for kinds in KINDS.values() for kind in kinds}
    ends = [(each.at_s + each.for_s, later.at_s) for each, later in itertools.pairwise(planned) if each.for_s]
    meeting = sum(end > later for end, later in ends)
    assert 0.2 < meeting / len(ends) < 0.5, f"{meeting} of {len(ends)} faults last into the next; planned is a third"


@pytest.mark.parametrize(("faults", "seconds"), [(0, 10.0), (1001, 1e6), (10, 0.5)])
def test_chaos_that_is_none_is_refused(faults, seconds):
    with pytest.raises(WrongUse, match="allowed"):
        plan(RACK, faults, seconds, 1)


def test_chaos_needs_somebody_who_survives():
    with pytest.raises(WrongUse, match="two of each"):
        plan(Wiring(("m1",), ("s1", "s2"), ()), 1, 10.0, 1)


# A bad link

FRAMES = 4000


def passed(impairment, frames=FRAMES, gap_s=0.001, size=100, seed=1):
    """(when it came out, its number, the frame) of each frame that comes out of a bad link, one coming in every gap."""
    held = HeldFrames(impairment, seed)
    out = []

    def take(now):
        while (due := held.next_due) is not None and due <= now:
            out.extend((due, int.from_bytes(frame[14:18], "big"), frame) for frame in held.due(due))

    for number in range(frames):
        take(number * gap_s)
        held.put(bytes(14) + number.to_bytes(4, "big") + bytes(size - 18), number * gap_s)
    take(float("inf"))
    return out, held


def test_a_delay_delays_each_frame_and_keeps_their_order():
    out, _ = passed(Impairment(delay_ms=30))
    assert [number for _, number, _ in out] == list(range(FRAMES))
    assert all(at == pytest.approx(number * 0.001 + 0.03) for at, number, _ in out)


def test_jitter_spreads_delays_evenly_on_both_sides():
    out, _ = passed(Impairment(delay_ms=30, jitter_ms=10))
    delays = [1e3 * (at - number * 0.001) for at, number, _ in out]
    assert min(delays) >= 20 - 1e-6
    assert max(delays) <= 40 + 1e-6
    assert statistics.mean(delays) == pytest.approx(30, abs=0.5)
    assert statistics.stdev(delays) == pytest.approx(20 / 12**0.5, rel=0.05)  # of an even distribution


@pytest.mark.parametrize("share", [1.0, 20.0, 100.0])
def test_loss_loses_its_share(share):
    out, _ = passed(Impairment(loss=share))
    sigma = (FRAMES * share / 100 * (1 - share / 100)) ** 0.5
    assert abs(FRAMES - len(out) - FRAMES * share / 100) <= 5 * sigma


def test_duplicates_are_the_same_frame_again():
    out, _ = passed(Impairment(duplicate=10.0))
    seen = Counter(number for _, number, _ in out)
    assert set(seen.values()) == {1, 2}
    assert sum(count == 2 for count in seen.values()) == pytest.approx(FRAMES / 10, rel=0.25)


def test_corruption_turns_one_bit_behind_the_ethernet_header():
    held = HeldFrames(Impairment(corrupt=100.0), 1)
    frame = bytes(range(64))
    for _ in range(500):
        held.put(frame, 0.0)
        (damaged,) = held.due(0.0)
        assert damaged[:14] == frame[:14]
        turned = int.from_bytes(frame, "big") ^ int.from_bytes(damaged, "big")
        assert turned.bit_count() == 1


def test_a_rate_has_each_frame_wait_for_those_before_it():
    out, _ = passed(Impairment(rate_mbit=8.0), frames=100, gap_s=0.0, size=1000)
    assert [at for at, _, _ in out] == pytest.approx([0.001 * (n + 1) for n in range(100)])  # 8,000 bits, a millisecond


def test_more_than_a_link_holds_is_dropped_and_counted():
    out, held = passed(Impairment(rate_mbit=1.0), frames=2 * LIMIT_FRAMES, gap_s=0.0)
    assert len(out) == LIMIT_FRAMES
    assert held.dropped == LIMIT_FRAMES


def test_reordered_frames_overtake_those_that_wait():
    out, _ = passed(Impairment(delay_ms=10, reorder=25.0))
    early = [number for at, number, _ in out if at < number * 0.001 + 0.005]
    assert len(early) == pytest.approx(FRAMES / 4, rel=0.15)
    order = [number for _, number, _ in out]
    assert order != sorted(order)


def test_the_same_seed_does_the_same_to_the_same_frames():
    bad = Impairment(delay_ms=5, jitter_ms=5, loss=10, duplicate=10, corrupt=10)
    assert passed(bad, seed=3)[0] == passed(bad, seed=3)[0]
    assert passed(bad, seed=3)[0] != passed(bad, seed=4)[0]


@pytest.mark.parametrize(
    "wrong",
    [{}, {"loss": 101}, {"loss": -1}, {"delay_ms": float("nan")}, {"delay_ms": "5"}, {"reorder": 10}, {"loss": True}],
)
def test_an_impairment_that_is_none_is_refused(wrong):
    with pytest.raises(WrongUse):
        Impairment(**wrong)


def test_netem_is_told_the_same():
    bad = Impairment(delay_ms=20, jitter_ms=5, loss=2.5, rate_mbit=10)
    words = ["limit", "1000", "delay", "20ms", "5ms", "loss", "2.5%", "rate", "10000000bit"]
    assert bad.netem() == words
    out, *into = netem_commands("r1-eth0", "ifb0", {"out": bad, "in": bad})
    assert out == ["tc", "qdisc", "add", "dev", "r1-eth0", "root", "netem", *words]
    assert ["tc", "qdisc", "add", "dev", "ifb0", "root", "netem", *words] in into
    assert bad.words() == "delay 20 ms, jitter 5 ms, loss 2.5 %, rate 10 Mbit/s"


# Packet threads that hang, and checks that keep their pace


def test_a_thread_that_does_not_turn_round_is_stuck_and_one_that_does_is_not():
    pulse = Pulse()
    assert pulse.stuck([1, 1], 0.0) == []
    for n in range(1, 20):
        now = 0.1 * n
        assert pulse.stuck([1, 1 + n], now) == ([0] if now > SILENCE_S + 1e-9 else [])
    assert pulse.stuck([2, 20], 2.0) == [], "it moves again"


def test_a_thread_that_moved_while_nobody_asked_is_not_stuck():
    pulse = Pulse()
    pulse.stuck([1], 0.0)
    assert pulse.stuck([2], 100.0) == []


@properties
@given(st.floats(0, 1e5), st.floats(0.01, 100), st.floats(0, 0.999))
def test_a_check_is_probed_at_its_phase_of_the_next_interval_however_long_the_last_probe_took(now, interval_s, phase):
    first = next_start(now, interval_s, phase)
    second = next_start(first + interval_s / 1000, interval_s, phase)  # timers are a little late
    assert interval_s / 4 - 1e-6 <= first - now <= interval_s * 1.25 + 1e-6
    assert second - first == pytest.approx(interval_s, rel=1e-3, abs=1e-6)
