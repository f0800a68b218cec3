"""Health: the rise/fall machine, and which probes a configuration needs (Maglev §2.2).

Health belongs to an address *and* a way of checking it, not to an address alone: one machine may serve a web page and
fail at DNS. Two pools that check the same address in the same way share one probe; a pool's member is healthy when it
passes all the checks that the pool gives it. Pure: `engine.probes` sends the probes.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    """A verdict, and how many results in a row have contradicted it."""

    verdict: Verdict = Verdict.UNKNOWN
    streak: int = 0


class Check(NamedTuple):
    """One thing to probe: an address, in one way, at one pace."""

    address: Address
    method: HealthCheck


def step(state: State, passed: bool, method: HealthCheck) -> State:
    """Returns the state after one more result.

    It takes `rise` passes in a row, or `fall` failures, to turn a verdict. A first pass decides at once, because a
    Maglev that starts must soon know what its peers know; a first failure does not, because a probe that was late
    while the machine was busy starting would have it choose otherwise than its peers.
    """
    says = Verdict.HEALTHY if passed else Verdict.UNHEALTHY
    if says is state.verdict:
        return State(says)
    needed = method.fall if not passed else 1 if state.verdict is Verdict.UNKNOWN else method.rise
    return State(says) if state.streak + 1 >= needed else State(state.verdict, state.streak + 1)


def checks_of(config: Config, shard: str) -> tuple[Check, ...]:
    """Returns the checks that the VIPs of a shard need, each once, sorted by address."""
    pools = {vip.pool for vip in config.vips_of(shard)}
    checks = {
        Check(member.address, method)
        for pool in pools
        for member in config.pool_members(pool)
        for method in member.health_checks
    }
    return tuple(sorted(checks, key=lambda check: (pack_address(check.address), repr(check.method))))


def peer_checks_of(config: Config, maglev: MaglevMachine) -> tuple[Check, ...]:
    """Returns the checks by which a Maglev sees which of its shard's others are alive."""
    peers = (peer for peer in config.peers(maglev.shard) if peer.address != maglev.address)
    return tuple(Check(peer.address, method) for peer in peers for method in peer.health_checks)


def is_healthy(states: Mapping[Check, State], member: Member) -> bool | None:
    """Says whether a member passes all its checks; None while that is not known. No checks: always healthy."""
    checks = (Check(member.address, method) for method in member.health_checks)
    verdicts = {states.get(check, State()).verdict for check in checks}
    if Verdict.UNHEALTHY in verdicts:
        return False
    return None if Verdict.UNKNOWN in verdicts else True
