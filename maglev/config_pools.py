"""Pools of endpoints and of other pools (Maglev §2.2), and their members once nothing is nested any more."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import Annotated, NamedTuple

from pydantic import Field

from maglev.config_checks import HealthCheck
from maglev.config_fields import AN_ADDRESS, IP, ConfigObject, Name
from maglev.flow import Address, pack_address


class Endpoint(ConfigObject):
    """One service endpoint in a pool; weight 0 gives it no new connections."""

    address: IP = Field(description=AN_ADDRESS)
    weight: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = Field(
        default=1.0, description="a finite number, 0 or more"
    )


class Pool(ConfigObject):
    """Endpoints, or other pools by name, or both (§2.2)."""

    endpoints: tuple[Endpoint, ...] = Field(default=(), description="a list of endpoints")
    pools: tuple[Name, ...] = Field(default=(), description="a list of the names of pools")
    health_check: HealthCheck | None = Field(default=None, description="a health check, such as {type: tcp, port: 80}")


class Member(NamedTuple):
    """An endpoint as one flattened pool sees it: healthy when it passes all of `health_checks` (none: always)."""

    address: Address
    weight: float
    health_checks: tuple[HealthCheck, ...] = ()


_Checks = frozenset[HealthCheck | None]  # None: no pool has said yet how to check this listing
_Listed = dict[Address, tuple[float, _Checks]]


def flattened(pools: Mapping[str, Pool]) -> Mapping[str, tuple[Member, ...]]:
    """Returns the members of all pools by the pool's name; every name in them must be known, and none in a cycle."""
    flat: dict[str, _Listed] = {}
    for name in TopologicalSorter({name: pool.pools for name, pool in pools.items()}).static_order():
        flat[name] = _flatten(pools[name], flat)
    return {name: _members(listed) for name, listed in flat.items()}


def reachable(pools: Mapping[str, Pool], start: str) -> set[str]:
    """Returns the names of a pool and of all pools nested in it, also where they are unknown or form a cycle."""
    found, todo = {start}, [start]
    while todo:
        pool = pools.get(todo.pop())
        new = set(pool.pools) - found if pool else set()
        found |= new
        todo += new
    return found


def _flatten(pool: Pool, flat: Mapping[str, _Listed]) -> _Listed:
    listed: _Listed = {endpoint.address: (endpoint.weight, frozenset([None])) for endpoint in pool.endpoints}
    for name in pool.pools:
        for address, (weight, checks) in flat[name].items():
            old_weight, old_checks = listed.get(address, (0.0, frozenset()))
            listed[address] = (old_weight + weight, old_checks | checks)
    if pool.health_check is None:
        return listed
    return {address: (weight, _filled(checks, pool.health_check)) for address, (weight, checks) in listed.items()}


def _filled(checks: _Checks, check: HealthCheck) -> _Checks:
    return checks - {None} | {check} if None in checks else checks


def _members(listed: _Listed) -> tuple[Member, ...]:
    found = sorted(listed.items(), key=lambda item: pack_address(item[0]))
    return tuple(Member(address, weight, _in_order(checks)) for address, (weight, checks) in found)


def _in_order(checks: _Checks) -> tuple[HealthCheck, ...]:
    return tuple(sorted((check for check in checks if check), key=repr))
