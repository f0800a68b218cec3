"""Health: the rise/fall machine, flap damping, and which probes a configuration needs (Maglev §2.2).

Health belongs to an address *and* a way of checking it, not to an address alone: one machine may serve a web page and
fail at DNS. Two pools that check the same address in the same way share one probe; a pool's member is healthy when it
passes all the checks that the pool gives it. A check through the data path is one for each VIP address that the
machine serves under it, since it may have lost one of them. Pure: `engine.probes` sends the probes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from maglev.config_objects import Config, HealthCheck, MaglevMachine, Member
from maglev.flow import Address, pack_address


class Verdict(StrEnum):
    """What is known of an address."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class State(NamedTuple):
    """A verdict, how many results in a row have contradicted it, and what flap damping remembers."""

    verdict: Verdict = Verdict.UNKNOWN
    streak: int = 0
    changes: tuple[float, ...] = ()  # when the verdict changed of late
    held_until: float = 0.0  # unhealthy at least until then

    def held_for_s(self, now: float) -> float:
        """Returns for how long flap damping still holds the address down, in seconds; 0 if it does not."""
        return max(0.0, self.held_until - now)


class Check(NamedTuple):
    """One thing to probe: an address, in one way, at one pace; through the data path if a VIP address is given."""

    address: Address
    method: HealthCheck
    vip: Address | None = None


def step(state: State, passed: bool, method: HealthCheck, now: float) -> State:
    """Returns the state after one more result, at `now` (monotonic seconds).

    It takes `rise` passes in a row, or `fall` failures, to turn a verdict. A first pass decides at once, because a
    Maglev that starts must soon know what its peers know; a first failure does not, because a probe that was late
    while the machine was busy starting would have it choose otherwise than its peers.

    A verdict that turns for the `flap_changes`th time within `flap_window_s` is unhealthy for `hold_down_s`, whatever
    the results say meanwhile: each change moves connections, and one that flaps would go on moving them.
    """
    says = Verdict.HEALTHY if passed else Verdict.UNHEALTHY
    if says is state.verdict:
        return state._replace(streak=0)
    if state.verdict is Verdict.UNKNOWN:
        turns = passed or state.streak + 1 >= method.fall
        return State(says) if turns else State(streak=state.streak + 1)
    needed = method.rise if passed else method.fall
    streak = min(state.streak + 1, needed)
    if streak < needed or now < state.held_until:
        return state._replace(streak=streak)
    return _turned(says, (*state.changes, now), method)


def _turned(says: Verdict, changes: tuple[float, ...], method: HealthCheck) -> State:
    """Returns the state after the last of `changes`, which may be one too many."""
    now = changes[-1]
    recent = tuple(change for change in changes if now - change < method.flap_window_s)
    if method.flap_changes and len(recent) >= method.flap_changes:
        return State(Verdict.UNHEALTHY, held_until=now + method.hold_down_s)
    return State(says, changes=recent if method.flap_changes else ())


class Plan:
    """The checks that a Maglev needs: of its VIPs' endpoints, and of the other Maglevs that serve any of these."""

    def __init__(self, config: Config, maglev: MaglevMachine) -> None:
        found: dict[tuple[Address, HealthCheck], dict[Check, None]] = {}
        for vip in config.vips_of(maglev.shard):
            address = vip.network.network_address
            for member in config.vip_members(vip):
                for method in member.health_checks:
                    check = Check(member.address, method, address if method.through == "vip" else None)
                    found.setdefault((member.address, method), {})[check] = None
        self.of_endpoints = frozenset(check for checks in found.values() for check in checks)
        for peer in (peer for shard in config.allies(maglev.shard) for peer in config.peers(shard)):
            for method in peer.health_checks if peer.address != maglev.address else ():
                through = peer.address if method.through == "vip" else None  # it answers a ping that came in GRE itself
                found.setdefault((peer.address, method), {})[Check(peer.address, method, through)] = None
        self._found = {listed: tuple(checks) for listed, checks in found.items()}
        self.checks = tuple(sorted((check for checks in found.values() for check in checks), key=_order))

    def checks_of(self, member: Member) -> Iterator[Check]:
        """Yields the checks that a member has to pass; a check through the data path is one for each VIP address."""
        for method in member.health_checks:
            yield from self._found[member.address, method]


def _order(check: Check) -> tuple[bytes, str, str]:
    return pack_address(check.address), repr(check.method), str(check.vip)


def is_healthy(states: Mapping[Check, State], checks: Iterable[Check]) -> bool | None:
    """Says whether a member passes all its checks; None while that is not known. No checks: always healthy."""
    verdicts = {states.get(check, State()).verdict for check in checks}
    if Verdict.UNHEALTHY in verdicts:
        return False
    return None if Verdict.UNKNOWN in verdicts else True


def report(states: Mapping[Check, State], errors: Mapping[Check, str], now: float) -> list[dict[str, object]]:
    """Returns what is known of every check, for people: its verdict, why its latest probe failed, how long it is held.

    `now` is in monotonic seconds.
    """
    return [
        {
            "endpoint": str(check.address),
            "type": check.method.type,
            "port": check.method.port,
            "through": str(check.vip) if check.vip else None,
            "verdict": state.verdict.value,
            "latest_failure": errors.get(check),
            "held_down_for_s": round(state.held_for_s(now), 3),
        }
        for check, state in states.items()
    ]
