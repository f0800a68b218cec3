"""What a Maglev and an endpoint tell a monitoring system, in the words of Prometheus (Maglev §4.4).

Pure: counters that others keep, in; families of samples, out. Samples are made when they are asked for, one by one, so
that whoever writes them down can give way in between: ten thousand backends make tens of thousands of samples.
`engine.exposition` serves them over HTTP.

Names follow Prometheus's conventions: units at the end, `_total` behind what only grows; `address`, `backend`, `peer`
and `maglev` are addresses as text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple, cast

from prometheus_client import Metric
from prometheus_client.core import Sample

from .config_objects import Config, HealthCheck
from .errors import IGNORED, NO_DROPS, Reason
from .flow import Address, pack_address, unpack_address
from .forwarding import Statistics
from .health import Check, State, Verdict
from .vips import Backends

Labels = dict[str, str]
Values = Iterable[tuple[Labels, float]]

DROPS = sorted(set(Reason) - NO_DROPS)
AT_ENDPOINT = (Reason.BAD_GRE_HEADER, Reason.NOT_FROM_MAGLEV, Reason.NOT_VIP, Reason.SEND_FAILED)


PoolOf = Callable[[str, bytes], str]  # VIP and backend (16 bytes) -> pool


class TableCounts(NamedTuple):
    """What a connection table counts, in entries and lookups."""

    entries: int
    capacity: int
    hits: int
    misses: int
    overflows: int
    expired: int
    over_share: int


class PoolCounts(NamedTuple):
    """How many endpoints a pool lists, and how many of them take packets now."""

    endpoints: int
    healthy: int


class ForwarderView(NamedTuple):
    """A forwarder at one moment."""

    about: Labels  # name, shard, engine, …
    ready: bool
    draining: bool
    generation: int
    uptime_s: float
    statistics: Statistics
    pool_of: PoolOf
    pools: Mapping[str, PoolCounts]
    tables: Sequence[TableCounts]
    checks: Mapping[Check, State]
    batch_sizes: Mapping[int, int]  # batches by the power of two that their size in packets reached


class Delivered(NamedTuple):
    """What an endpoint has taken out of GRE from one Maglev; bytes are those of the packets inside."""

    packets: int
    bytes: int


class EndpointView(NamedTuple):
    """An endpoint's daemon at one moment."""

    about: Labels  # address and how it decapsulates
    uptime_s: float
    received: Mapping[Address, Delivered]  # by Maglev
    reasons: Mapping[Reason, int] | None  # None: the kernel decapsulates, and does not say


def pool_names(config: Config, shard: str) -> PoolOf:
    """Returns what tells the pool by which a VIP has a backend: the first of its pools that lists it; "" if none."""
    pools = {vip.name: vip.pools for vip in config.vips_of(shard)}

    @cache
    def listed(pool: str) -> frozenset[bytes]:
        return frozenset(pack_address(member.address) for member in config.pool_members(pool))

    def pool_of(vip: str, backend: bytes) -> str:
        candidates = pools.get(vip, ())
        if len(candidates) == 1:  # as nearly everywhere: no need to look into it
            return candidates[0]
        return next((pool for pool in candidates if backend in listed(pool)), "")

    return pool_of


def count_pools(config: Config, shard: str, served: Mapping[str, Backends]) -> dict[str, PoolCounts]:
    """Returns the counts of all pools that may serve a VIP; `served` is what stands behind VIPs (`VipMap.pools`)."""
    everyone = frozenset[bytes]().union(*(backends.usable for backends in served.values()))
    counts = {}
    for pool in dict.fromkeys(pool for vip in config.vips_of(shard) for pool in vip.pools):
        members = config.pool_members(pool)
        if pool in served:
            healthy = len(served[pool].usable)
        else:
            healthy = sum(pack_address(member.address) in everyone for member in members)
        counts[pool] = PoolCounts(len(members), healthy)
    return counts


def of_forwarder(view: ForwarderView) -> Iterator[Metric]:
    """Yields the families of a forwarder."""
    yield _info("maglev_forwarder", "Which Maglev this is, and how it moves packets.", view.about)
    yield _gauge("maglev_ready", "Whether it serves: 1 once all health checks have a verdict.", [({}, view.ready)])
    yield _gauge("maglev_draining", "Whether it has been asked to leave: 1 or 0.", [({}, view.draining)])
    yield _gauge(
        "maglev_configuration_generation",
        "How often the map of VIPs has been exchanged: at each configuration, and each change of health.",
        [({}, view.generation)],
    )
    yield _gauge("maglev_uptime_seconds", "Time since the forwarder started.", [({}, view.uptime_s)])
    yield from _traffic(view)
    yield from _connection_tables(view.tables)
    yield from _health(view)
    if view.batch_sizes:
        yield _batches(view.batch_sizes)


def _traffic(view: ForwarderView) -> Iterator[Metric]:
    counted, pool_of = view.statistics, view.pool_of
    yield _counter(
        "maglev_forwarded_packets", "Packets sent to backends.", _by_backend(counted.forwarded, pool_of)
    )  # fmt: skip
    yield _counter(
        "maglev_forwarded_bytes",
        "Bytes sent to backends, outer IP headers and all.",
        _by_backend(counted.bytes, pool_of),
    )
    yield _counter(
        "maglev_redirected_fragments",
        "Fragments sent on to the Maglev that owns their packet.",
        (({"peer": _shown(peer)}, count) for peer, count in sorted(counted.redirected.items())),
    )
    reasons = counted.reasons
    yield _counter("maglev_dropped_packets", "Packets dropped, by reason.", _by_reason(reasons, DROPS))
    yield _counter(
        "maglev_ignored_packets", "Packets for nobody here, by reason.", _by_reason(reasons, sorted(IGNORED))
    )  # fmt: skip
    yield _counter(
        "maglev_held_fragments",
        "Fragments that had to wait for the first of their packet.",
        [({}, reasons[Reason.HELD])],
    )
    yield _counter("maglev_hellos", "Health checks by other Maglevs, answered.", [({}, reasons[Reason.HELLO])])


def _by_backend(counts: Counter[tuple[str, bytes]], pool_of: PoolOf) -> Values:
    for (vip, backend), count in counts.items():
        yield {"vip": vip, "pool": pool_of(vip, backend), "backend": _shown(backend)}, count


def _by_reason(counts: Mapping[Reason, int], reasons: Iterable[Reason]) -> Values:
    return [({"reason": reason.value}, counts.get(reason, 0)) for reason in reasons]


def _connection_tables(tables: Sequence[TableCounts]) -> Iterator[Metric]:
    def of(field: str) -> Values:
        return [({"table": str(number)}, getattr(table, field)) for number, table in enumerate(tables)]

    name = "maglev_connection_table_"
    yield _gauge(
        name + "entries",
        "Connections remembered: a table for each packet thread, and a last one for rare packets where there are any.",
        of("entries"),
    )
    yield _gauge(name + "capacity_entries", "Connections that can be remembered.", of("capacity"))
    yield _counter(name + "hits", "Lookups that found a living entry.", of("hits"))
    yield _counter(name + "misses", "Lookups that found none.", of("misses"))
    yield _counter(name + "overflows", "New connections not remembered: the table was full.", of("overflows"))
    yield _counter(
        name + "over_share",
        "New connections not remembered: their source had its share of the table.",
        of("over_share"),
    )
    yield _counter(name + "expired", "Entries that were idle for too long: no others ever leave.", of("expired"))


def _health(view: ForwarderView) -> Iterator[Metric]:
    pools = view.pools.items()
    yield _gauge(
        "maglev_pool_endpoints", "Endpoints listed in a pool.", (({"pool": p}, each.endpoints) for p, each in pools)
    )
    yield _gauge(
        "maglev_pool_healthy_endpoints",
        "Endpoints of a pool that are healthy.",
        (({"pool": p}, each.healthy) for p, each in pools),
    )
    verdicts = Counter(state.verdict for state in view.checks.values())
    yield _gauge(
        "maglev_health_checks",
        "Health checks, of endpoints and of other Maglevs, by verdict.",
        (({"verdict": verdict.value}, verdicts[verdict]) for verdict in Verdict),
    )
    yield _gauge(
        "maglev_health_check_healthy",
        "The verdict of each health check, through a VIP where one is named: 1 for healthy, 0 for any other.",
        ((_labels_of(check), state.verdict is Verdict.HEALTHY) for check, state in view.checks.items()),
    )


def _labels_of(check: Check) -> Labels:
    vip = "" if check.vip is None else str(check.vip)
    return {"address": str(check.address), "check": describe(check.method), "vip": vip}


@cache
def describe(method: HealthCheck) -> str:
    """Returns a way of checking as text, another for every other way: `http, port 80, path /healthz`."""
    said = method.model_dump(exclude_defaults=True)
    return ", ".join([str(said.pop("type", method.type)), *(f"{field} {value}" for field, value in said.items())])


def _batches(sizes: Mapping[int, int]) -> Metric:
    """Returns a histogram without a sum: of a batch only the power of two is known."""
    name = "maglev_batch_packets"
    smallest = sorted(sizes)
    bounds = [str(float(2 * size - 1)) for size in smallest[:-1]] + ["+Inf"]
    totals = list(accumulate(sizes[size] for size in smallest))
    samples = [Sample(f"{name}_bucket", {"le": bound}, total) for bound, total in zip(bounds, totals, strict=True)]
    return _family(
        "histogram", name, "Packets that came in one batch.", [*samples, Sample(f"{name}_count", {}, totals[-1])]
    )


def of_endpoint(view: EndpointView) -> Iterator[Metric]:
    """Yields the families of an endpoint."""
    yield _info("maglev_endpoint", "Which endpoint this is, and what takes packets out of GRE.", view.about)
    yield _gauge("maglev_uptime_seconds", "Time since the endpoint's daemon started.", [({}, view.uptime_s)])
    received = [({"maglev": str(maglev)}, each) for maglev, each in view.received.items()]
    yield _counter(
        "maglev_endpoint_received_packets",
        "Packets taken out of GRE.",
        ((labels, each.packets) for labels, each in received),
    )
    yield _counter(
        "maglev_endpoint_received_bytes",
        "Bytes taken out of GRE, from the inner IP header on.",
        ((labels, each.bytes) for labels, each in received),
    )
    if view.reasons is not None:
        yield _counter(
            "maglev_endpoint_dropped_packets", "Packets kept out, by reason.", _by_reason(view.reasons, AT_ENDPOINT)
        )


@cache
def _shown(address: bytes) -> str:
    return str(unpack_address(address))


def _gauge(name: str, text: str, values: Values) -> Metric:
    return _family("gauge", name, text, (Sample(name, labels, value) for labels, value in values))


def _counter(name: str, text: str, values: Values) -> Metric:
    return _family("counter", name, text, (Sample(f"{name}_total", labels, value) for labels, value in values))


def _info(name: str, text: str, labels: Labels) -> Metric:
    return _family("info", name, text, [Sample(f"{name}_info", labels, 1)])


def _family(kind: str, name: str, text: str, samples: Iterable[Sample]) -> Metric:
    family = Metric(name, text, kind)
    family.samples = cast(Any, samples)  # written down once, in order: nobody needs a list
    return family
