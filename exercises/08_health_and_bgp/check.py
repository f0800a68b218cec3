"""Judges health checks by a list of all results, the controller between real processes, and both in a live rack."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from typing import Any

from lab.classroom import Case, criterion
from lab.classroom.exercise import beside
from lab.nodes import HOLD_TIME_S
from lab.waiting import wait_until
from maglev.config import HealthCheck
from maglev.health import State, Verdict

between = beside(__file__, "controlled")

REFERENCE = ("maglev.health", "maglev.announcements", "maglev.controller")
LIVE = {"topology": "rack"}

VIPS = ["192.0.2.1", "192.0.2.10", "192.0.2.9", "2001:db8::/64"]
IN_ORDER = ["192.0.2.1/32", "192.0.2.9/32", "192.0.2.10/32", "2001:db8::/64"]
FIT = {"ready": True, "stuck_packet_threads": [], "draining": False, "vips": VIPS[:2]}
ROUTES = {"192.0.2.1/32", "192.0.2.10/32"}
QUESTIONS = 12
M1, M2 = "10.1.1.2", "10.1.2.2"  # Maglevs' addresses in the rack
CONNECTIONS = 60
WITHIN_S = 15.0  # the hold time, and as much as a busy machine may take


@criterion(step=1, hint="after a result that agrees with the verdict, how many in a row contradict it?")
def turns_after_rise_and_fall(student: Any, case: Case) -> None:
    """A verdict turns after `rise` passes or `fall` failures in a row, and not before."""
    method = HealthCheck(type="ping", rise=3, fall=2, flap_changes=0)
    story = Story(case, student, method)
    for passed in (True, False, True, False, False, True, True, False, True, True, True, False, False):
        story.result(passed)
    for _ in range(3):
        rise, fall = case.random.randrange(1, 5), case.random.randrange(1, 5)
        story = Story(case, student, HealthCheck(type="ping", rise=rise, fall=fall, flap_changes=0))
        for _ in range(100):
            story.result(case.random.random() < 0.6)


@criterion(step=1, hint="while nothing is known, passes and failures do not weigh the same: which error is dearer?")
def a_first_failure_is_no_verdict(student: Any, case: Case) -> None:
    """While nothing is known the first pass decides at once, and a failure only with others in a row."""
    method = HealthCheck(type="ping", rise=3, fall=3, flap_changes=0)
    for results in ((True,), (False, False, True), (False, False, False, True)):
        story = Story(case, student, method)
        for passed in results:
            story.result(passed)


@criterion(step=2, hint="one change too many within the window: write down when each was, and throw away those before")
def what_flaps_is_held_down(student: Any, case: Case) -> None:
    """An address whose verdict turns too often is unhealthy for a while, and then judged anew."""
    method = HealthCheck(
        type="ping", rise=1, fall=1, flap_changes=3, flap_window_s=10, hold_down_s=20, interval_s=1, timeout_s=1
    )
    story = Story(case, student, method)
    for passed in (True, False, True, False, True, True):
        story.result(passed)
    case.step("20 s later it passes again")
    story.now += 20
    story.result(True)
    case.step("changes that lie far apart are no flapping")
    story = Story(case, student, method)
    for passed in (True, False, True, False, True):
        story.result(passed)
        story.now += 6
    for window_s in (8.0, 30.0):
        story = Story(case, student, method.model_copy(update={"rise": 2, "flap_window_s": window_s}))
        for _ in range(150):
            story.result(case.random.random() < 0.6)


@criterion(step=3, hint="both must be said, and said so: true is not 1, and what is missing is not false")
def all_or_nothing(student: Any, case: Case) -> None:
    """A forwarder that is ready and does not drain has all its VIPs announced, any other none."""
    fit = FIT | {"vips": VIPS}
    without = {key: value for key, value in fit.items() if key != "draining"}
    told = [
        (fit, VIPS),
        (fit | {"vips": []}, []),
        (fit | {"vips": ["192.0.2.1", "192.0.2.1"]}, ["192.0.2.1"]),
        (None, []),
        ({}, []),
        (fit | {"ready": False}, []),
        (fit | {"draining": True}, []),
        (fit | {"ready": "no"}, []),
        (without, []),
        (fit | {"vips": None}, []),
        (fit | {"vips": ["192.0.2.1", "nonsense"]}, []),
    ]
    for status, vips in told:
        got = _called(case, student.wanted, status)
        case.expect_that(isinstance(got, frozenset), f"expected a frozenset, got {got!r:.80}")
        case.expect(sorted(map(str, got)), sorted(str(ip_network(vip)) for vip in vips), "the routes")


@criterion(step=4, hint="two differences of sets; networks compare as numbers, but only with those of their own family")
def the_fewest_commands(student: Any, case: Case) -> None:
    """Only what changes is said, withdrawals first, in the order of addresses."""
    told = [
        ([], VIPS, [f"announce {each}" for each in IN_ORDER]),
        (VIPS, [], [f"withdraw {each}" for each in IN_ORDER]),
        (VIPS, VIPS, []),
        (VIPS[:2], VIPS[1:3], ["withdraw 192.0.2.1/32", "announce 192.0.2.9/32"]),
    ]
    for announced, wanted, words in told:
        got = _called(case, student.commands, _routes(announced), _routes(wanted))
        expected = [f"{each.split()[0]} route {each.split()[1]} next-hop self" for each in words]
        case.expect(list(got), expected, "the commands")


@criterion(step=5, seconds=30, hint="ask, compare with what is announced, tell what differs, sleep a little: for ever")
def follows_the_forwarder(student: Any, case: Case) -> None:
    """What the forwarder says of itself is announced, and only what changes is said to ExaBGP."""
    with between.controlled(student, case, FIT | {"ready": False}) as (speaker, forwarder):
        case.step("the forwarder is not ready; it was asked a few times")
        _wait_asked(case, speaker, forwarder, 3)
        case.expect(speaker.commands, [], "the commands so far")
        for document, routes, words in [
            (FIT, ROUTES, ["announce 192.0.2.1/32", "announce 192.0.2.10/32"]),
            (
                FIT | {"vips": VIPS[1:3]},
                {"192.0.2.10/32", "192.0.2.9/32"},
                ["withdraw 192.0.2.1/32", "announce 192.0.2.9/32"],
            ),
            (FIT | {"draining": True}, set(), ["withdraw 192.0.2.9/32", "withdraw 192.0.2.10/32"]),
            (FIT, ROUTES, ["announce 192.0.2.1/32", "announce 192.0.2.10/32"]),
        ]:
            before = len(speaker.commands)
            case.step(f"the forwarder says {document}")
            forwarder.says(document)
            speaker.expect(routes, "as the forwarder says")
            said = [" ".join(command.split()[:3:2]) for command in speaker.commands[before:]]
            case.expect(said, words, "what was said to ExaBGP")


@criterion(step=5, seconds=30, hint="who remembers what is announced? Compare with that before you say anything")
def says_nothing_twice(student: Any, case: Case) -> None:
    """While nothing changes the forwarder is asked again and again, and ExaBGP is told nothing."""
    with between.controlled(student, case, FIT) as (speaker, forwarder):
        speaker.expect(ROUTES, "as the forwarder says")
        case.step(f"the forwarder says the same; it is asked {QUESTIONS} times more")
        _wait_asked(case, speaker, forwarder, QUESTIONS)
        case.expect(len(speaker.commands), len(ROUTES), "the number of commands in all")


@criterion(step=5, seconds=30, hint="command() says whether it has happened. If not, what do you believe is announced?")
def what_failed_is_tried_again(student: Any, case: Case) -> None:
    """A command that ExaBGP does not acknowledge has not happened: it is sent again."""
    with between.controlled(student, case, FIT | {"ready": False}) as (speaker, forwarder):
        _wait_asked(case, speaker, forwarder, 1)
        speaker.refuses = 1
        case.step("the forwarder becomes ready; ExaBGP answers the first command with error")
        forwarder.says(FIT)
        speaker.expect(ROUTES, "one of which was refused at first")


@criterion(
    step=6, seconds=40, hint="a stopped process still takes connections: how long does your Client wait for an answer?"
)
def a_frozen_forwarder_is_withdrawn(student: Any, case: Case) -> None:
    """A forwarder that stands still is withdrawn before the hold time is over, and announced again when it goes on."""
    with between.controlled(student, case, FIT) as (speaker, forwarder):
        speaker.expect(ROUTES, "as the forwarder says")
        for _ in range(2):
            case.step("the forwarder is frozen (SIGSTOP): its socket is there, and nobody answers")
            forwarder.freeze()
            took = speaker.expect(set(), "since the forwarder does not answer")
            case.step(f"all was withdrawn {took:.2f} s later")
            case.expect_that(took < HOLD_TIME_S, f"expected less than the hold time, {HOLD_TIME_S} s, got {took:.2f} s")
            case.step("it goes on")
            forwarder.thaw()
            speaker.expect(ROUTES, "since the forwarder answers again")


@criterion(step=6, seconds=40, hint="ControlError is an answer too: which routes are wanted then?")
def a_dead_forwarder_is_withdrawn(student: Any, case: Case) -> None:
    """A forwarder that has died is withdrawn, and the next one in its place is announced."""
    with between.controlled(student, case, FIT) as (speaker, forwarder):
        speaker.expect(ROUTES, "as the forwarder says")
        case.step("the forwarder is killed (SIGKILL)")
        forwarder.kill()
        speaker.expect(set(), "since nobody is there to forward")
        case.step("another takes its place")
        forwarder.start()
        speaker.expect(ROUTES, "since the new one says so")


@criterion(step=6, seconds=40, hint="ExaBGP takes a process that ends for a failure; when may yours end?")
def lives_as_long_as_exabgp(student: Any, case: Case) -> None:
    """It outlives whatever it cannot find, and ends when ExaBGP does."""
    with between.controlled(student, case, FIT, configured=False) as (speaker, forwarder):
        case.step("there is no configuration: locate raises MaglevError")
        _wait(case, speaker, lambda: forwarder.sought >= 2, "locate to be called twice")
        case.expect(speaker.commands, [], "the commands so far")
        case.step("there is one now")
        forwarder.configure()
        speaker.expect(ROUTES, "since the forwarder is found")
        case.step("ExaBGP ends")
        speaker.leave()
        began = time.monotonic()
        while speaker.is_running:
            if time.monotonic() - began > between.DEADLINE_S:
                case.wrong(f"expected the controller to end with ExaBGP; it still runs {between.DEADLINE_S:g} s later")
            time.sleep(0.01)


@criterion(
    step=7,
    seconds=60,
    hint="BGP keeps m1's session alive whatever its forwarder does: who has to tell ExaBGP, and by when?",
    lab={"topology": "rack", "maglevs": 3, "endpoints": 2, "clients": 1},
)
def faster_than_the_hold_timer(lab: Any, case: Case) -> None:
    """In a live rack a frozen forwarder's routes go before a frozen BGP speaker's do, and no connection breaks."""
    router = lab.node("r1")
    with lab.connections(CONNECTIONS) as conns:
        conns.wait_settled()
        case.step(f"{CONNECTIONS} connections are open; m1's forwarder and m2's ExaBGP are frozen at the same moment")
        with lab.freeze("m1"), lab.freeze("m2", "exabgp"):
            seen: list[set[str]] = []

            def missing() -> str:
                seen.append(_hops(router))
                return "r1 still sends to both" if {M1, M2} <= seen[-1] else ""

            wait_until(missing, WITHIN_S, "a withdrawal")
            case.expect_that(M1 not in seen[-1], "expected m1 to be withdrawn first, got m2, by the hold timer")
            case.step("m1 was withdrawn first, while its session was up")
        lab.wait_converged()
        conns.wait_settled()
        case.expect(conns.broken, 0, "the number of connections that broke")


@criterion(
    step=7,
    seconds=60,
    hint="watch GET /health on two Maglevs: which results came, and what did your step make of them?",
    lab={"topology": "rack", "maglevs": 2, "endpoints": 2, "clients": 1},
)
def endpoints_come_and_go(lab: Any, case: Case) -> None:
    """In a live rack both Maglevs find out that an endpoint has died, and that it has come back."""
    for _ in range(2):
        case.step("s1 is killed")
        with lab.kill("s1"):
            lab.wait_converged()
            case.step("both Maglevs send to s2 alone; s1 comes back")
        lab.wait_converged()


# What is told, and what is expected


class Story:
    """Gives results of one health check, one a second, and keeps all of them: the verdict is read off that list."""

    def __init__(self, case: Case, student: Any, method: HealthCheck) -> None:
        self.case, self.student, self.method = case, student, method
        self.state, self.now = State(), 0.0
        self.verdict, self.run, self.changes, self.held_until = Verdict.UNKNOWN, [], [], 0.0
        flapping = f", flap_changes {method.flap_changes} in {method.flap_window_s:g} s" if method.flap_changes else ""
        case.step(f"a check with rise {method.rise}, fall {method.fall}{flapping}")

    def result(self, passed: bool) -> None:
        """Gives one result, and expects the verdict."""
        self.now += 1
        expected = self._expected(passed)
        self.case.step(f"at {self.now:g} s it {'passed' if passed else 'failed'}")
        self.state = self.student.step(self.state, passed, self.method, self.now)
        self.case.expect_that(isinstance(self.state, State), f"expected a State, got {self.state!r:.80}")
        self.case.expect(self.state.verdict.value, expected.value, "the verdict")
        held_s = max(0.0, self.held_until - self.now)
        self.case.expect(self.state.held_for_s(self.now), held_s, "for how many seconds it is held down")

    def _expected(self, passed: bool) -> Verdict:
        """Returns the verdict after this result: `run` has the results that were alike, up to it."""
        self.run = [*(self.run if self.run[-1:] == [passed] else []), passed]
        says, method = Verdict.HEALTHY if passed else Verdict.UNHEALTHY, self.method
        needed = method.rise if passed else method.fall
        if self.verdict is Verdict.UNKNOWN:
            if passed or len(self.run) >= needed:
                self.verdict = says
        elif says is not self.verdict and len(self.run) >= needed and self.now >= self.held_until:
            self._turn(says)
        return self.verdict

    def _turn(self, says: Verdict) -> None:
        method = self.method
        self.changes = [each for each in self.changes if self.now - each < method.flap_window_s] + [self.now]
        self.verdict = says
        if method.flap_changes and len(self.changes) >= method.flap_changes:
            self.verdict, self.changes, self.held_until = Verdict.UNHEALTHY, [], self.now + method.hold_down_s
            self.run = []


def _called(case: Case, function: Any, *arguments: Any) -> Any:
    """Calls a student's function; wrong, with the error, if it raises one."""
    try:
        return case.call(function, *arguments)
    except NotImplementedError:
        raise
    except Exception as error:
        case.wrong(f"expected an answer, got {type(error).__name__}: {error}")


def _routes(vips: Sequence[str]) -> frozenset[Any]:
    return frozenset(map(ip_network, vips))


def _wait_asked(case: Case, speaker: Any, forwarder: Any, times: int) -> None:
    """Waits until the forwarder was asked so many times more."""
    wanted = forwarder.asked + times
    _wait(case, speaker, lambda: forwarder.asked >= wanted, f"the forwarder to be asked {times} times")


def _wait(case: Case, speaker: Any, holds: Callable[[], bool], what: str) -> None:
    """Waits for something that a controller does while it lives."""
    until = time.monotonic() + between.DEADLINE_S
    while not holds():
        speaker.expect_alive()
        case.expect_that(time.monotonic() < until, f"expected {what} within {between.DEADLINE_S:g} s")
        time.sleep(0.01)


def _hops(router: Any) -> set[str]:
    """Returns the Maglevs to whom a router sends the IPv4 VIP."""
    return {hop for vip, hops in router.routing.ecmp().items() if vip.startswith("192.0.2.1") for hop in hops}
