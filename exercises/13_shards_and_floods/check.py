"""Judges limits, shares, moves between shards, and what two VIPs have in common (Maglev §2.2, §3.3)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

from lab.classroom import Case, criterion
from maglev import config
from maglev.errors import MaglevError
from maglev.flow import pack_address
from maglev.moving import Place
from maglev.shares import EPOCHS, bucket_of, buckets_for

REFERENCE = ("maglev.limits", "maglev.shares", "maglev.moving", "maglev.isolation")

SHARDS = ("a", "b", "c")
MOST_STEPS = 8
CAPACITY, SHARE = 400, 0.25
HELD = 40
FLOOD_PPS, FLOOD_S = 600.0, 1.0


def all_in_one(document: dict[str, Any]) -> None:
    """Puts the VIPs of both shards into shard a; b's Maglevs have nothing to do yet."""
    for vip in document["vips"]:
        vip["shard"] = "a"


def shares(document: dict[str, Any]) -> None:
    """Gives a lab small connection tables, of which a source has a quarter."""
    document["forwarder"]["connection_table"] |= {"capacity": CAPACITY, "max_share_per_source": SHARE}


LIVE = {"topology": "sharded", "maglevs": 2, "endpoints": 2, "configure": all_in_one}


@criterion(step=1, hint="how many tokens have come since the last time, and how many does the bucket hold?")
def no_more_than_the_rate(student: Any, case: Case) -> None:
    """In any stretch of time no more happen than the rate allows, and a second's worth at once."""
    for per_s in (100.0, 8.0, 0.5):
        budget = student.Budget(per_s)
        case.step(f"Budget({per_s:g}), asked ten times as often as it allows, with rests")
        taken: list[float] = []
        for now in _moments(case, per_s):
            taken += [now] if budget.take(now) else []
            span_s, count = next(
                ((now - since, len(taken) - i) for i, since in enumerate(taken) if _too_many(taken, i, now, per_s)),
                (0, 0),
            )
            case.expect_that(
                not count, f"expected {max(1, per_s) + span_s * per_s:.1f} at most within {span_s:.2f} s, got {count}"
            )


@criterion(step=1, hint="a bucket is full at first, and fills up while nothing happens; what is refused costs nothing")
def no_less_than_the_rate(student: Any, case: Case) -> None:
    """What keeps to the rate is never refused, and after a rest a second's worth comes through at once."""
    for per_s, burst in ((100.0, 100), (2.0, 2), (0.25, 1)):
        budget = student.Budget(per_s)
        for now in (10.0, 50.0):
            got = sum(bool(budget.take(now)) for _ in range(3 * burst))
            case.step(f"Budget({per_s:g}): asked {3 * burst} times at {now:g} s")
            case.expect(got, burst, "how many may happen at once after a rest")
        steady = [budget.take(60 + place * 1.001 / per_s) for place in range(50)]
        case.step(f"Budget({per_s:g}): asked once every {1.001 / per_s:g} s")
        case.expect(all(steady), True, "whether all may happen")


@criterion(step=1, hint="min and max: half a token is none, and time that runs backwards brings none")
def odd_rates_and_clocks(student: Any, case: Case) -> None:
    """A rate of 0 allows nothing, ever; and a clock that goes back brings nothing."""
    nothing = student.Budget(0.0)
    case.expect([nothing.take(now) for now in (0.0, 1e6)], [False, False], "what a rate of 0 allows")
    budget = student.Budget(1.0)
    case.step("Budget(1), asked at 100 s, 90 s, 95 s, 100.5 s and 101 s")
    got = [bool(budget.take(now)) for now in (100.0, 90.0, 95.0, 100.5, 101.0)]
    case.expect(got, [True, False, False, False, True], "what it allows")


@criterion(
    step=2, hint="count by source; whoever has `most` entries has no room, and all others are none of its affair"
)
def each_source_has_its_share(student: Any, case: Case) -> None:
    """A source may have `most` entries, and no source has less room because another is full."""
    story = Story(case, student, most=3, sources=_sources(case, 4))
    for source in (0, 0, 1, 0, 0, 1, 2, 0):
        story.record(source, 0)


@criterion(step=2, hint="whoever has one IPv6 address has 2^64 of them: the first 8 bytes of 16, unless it is IPv4")
def a_prefix_is_one_source(student: Any, case: Case) -> None:
    """The addresses of an IPv6 /64 are one source; two IPv4 addresses are two."""
    story = Story(
        case, student, most=2, sources=_distinct(["2001:db8:0:1::1", "2001:db8:0:2::1", "10.0.1.2", "10.0.1.3"])
    )
    story.same = {pack_address("2001:db8:0:1:ffff::9"): pack_address("2001:db8:0:1::1")}
    story.sources.append(pack_address("2001:db8:0:1:ffff::9"))
    for source in (0, 4, 4, 0, 1, 2, 2, 3, 2):
        story.record(source, 0)


@criterion(step=2, hint="an entry of epoch 3 is alive up to epoch 3 + EPOCHS; then it has left, and nobody tells you")
def old_entries_count_no_more(student: Any, case: Case) -> None:
    """Entries count until `EPOCHS` epochs have gone by since their last use, and a use makes them younger."""
    story = Story(case, student, most=2, sources=_sources(case, 1))
    for epoch in (3, 5, 5):
        story.record(0, epoch)
    for epoch in (3 + EPOCHS, 4 + EPOCHS):
        story.record(0, epoch)
    story.use(0, 5, 5 + EPOCHS)
    for epoch in (6 + EPOCHS, 4 + 2 * EPOCHS, 5 + 2 * EPOCHS, 6 + 2 * EPOCHS):
        story.record(0, epoch)


@criterion(step=2, hint="compare with the steps: which entry is alive, by the epoch of its last use?")
def a_long_story(student: Any, case: Case) -> None:
    """A thousand random records and uses of eight sources come out as if all entries were kept in a list."""
    story = Story(case, student, most=5, sources=_sources(case, 8))
    epoch = 0
    for _ in range(1000):
        epoch += case.random.random() < 0.1
        living = story.living(epoch)
        if living and case.random.random() < 0.5:
            story.use(*case.random.choice(living), epoch)
        else:
            story.record(case.random.randrange(8), epoch)


@criterion(
    step=3, hint="what is still missing, in order: the new shard serves, announces, owns; the old one stops both"
)
def it_gets_there(student: Any, case: Case) -> None:
    """From wherever a VIP stands, also in the middle of another move, it comes to be its new shard's alone."""
    for place, to in product(_places(), SHARDS):
        way = list(_way(case, student, place, to))
        case.expect(tuple(way[-1]), (to, (), ()), f"the end of its way from {_told(place)} to shard {to}")


@criterion(
    step=3, hint="a router may send to whoever announced it before the step, or does after it: do these all serve?"
)
def nobody_is_sent_what_it_does_not_serve(student: Any, case: Case) -> None:
    """However the configurations before and after a step are mixed, whoever announces the VIP serves it."""
    for place, to in product(_places(), SHARDS):
        for old, new in pairwise(_way(case, student, place, to)):
            serving = {*old.served_by} & {*new.served_by}
            lost = sorted({*old.announced_by, *new.announced_by} - serving)
            where = f"packets may come to shard {' and '.join(lost)}, where nobody serves it"
            case.expect_that(not lost, f"from {_told(old)} to {_told(new)}: {where}")


@criterion(step=3, hint="announce before you withdraw: make before break")
def somebody_announces_it_all_the_time(student: Any, case: Case) -> None:
    """In each step there is a shard that announces the VIP before it and after it."""
    for place, to in product(_places(), SHARDS):
        for old, new in pairwise(_way(case, student, place, to)):
            stays = {*old.announced_by} & {*new.announced_by}
            case.expect_that(stays, f"from {_told(old)} to {_told(new)}: for a moment nobody may announce it")


@criterion(step=3, hint="fragments go to a Maglev of `shard`, whoever gets them: change that in a step of its own")
def fragments_meet(student: Any, case: Case) -> None:
    """While a VIP comes to belong to another shard, no route changes, and both shards announce it."""
    for place, to in product(_places(), SHARDS):
        for old, new in pairwise(_way(case, student, place, to)):
            if old.shard != new.shard:
                same = {*old.announced_by} == {*new.announced_by} and {*old.served_by} == {*new.served_by}
                case.expect_that(
                    same, f"from {_told(old)} to {_told(new)}: routes change while fragments change owners"
                )


@criterion(step=4, hint="config.vip_members(vip) has all pools flattened; config.sharing_addresses_with goes by names")
def what_two_vips_share(student: Any, case: Case) -> None:
    """Two VIPs share an address, Maglevs, endpoints, or nothing."""
    site = config.parse(json.dumps(SITE))
    for one, other in product([vip.name for vip in site.vips], repeat=2):
        address, maglevs, endpoints = case.call(student.in_common, site, one, other)
        case.expect(bool(address), _same_address(one, other), f"whether {one} and {other} must move together")
        case.expect(sorted(maglevs), sorted(MACHINES[one] & MACHINES[other]), f"the Maglevs of {one} and {other}")
        case.expect(sorted(endpoints), sorted(SERVED[one] & SERVED[other]), f"the endpoints of {one} and {other}")


@criterion(step=4, hint="look for the name first, and say which there are")
def strangers_share_nothing(student: Any, case: Case) -> None:
    """A VIP that there is not is an error, and not one that shares nothing."""
    site = config.parse(json.dumps(SITE))
    for names in (("www", "wwww"), ("wwww", "www")):
        case.expect_error(MaglevError, student.in_common, site, *names)


@criterion(
    step=5, seconds=60, hint="maglab try 13, then move_vip b-echo b: at which step do routes r1 and conns change?",
    lab={"topology": "sharded", "maglevs": 1, "endpoints": 1, "clients": 2, "configure": all_in_one},
)  # fmt: skip
def live_the_victim_moves_out(lab: Any, case: Case) -> None:
    """A VIP leaves the shard that is flooded: no connection breaks, and the flood stays behind."""
    with lab.connections(HELD, vip="b-echo") as held:
        case.step(f"{HELD} connections to b-echo; both VIPs are shard a's, whose Maglev is m1")
        held.wait_settled()
        for what in lab.move_vip("b-echo", "b"):
            case.step(what)
        held.wait_settled()
        before = lab.snapshot().ecmp_packets()
        case.step(f"{FLOOD_PPS * FLOOD_S:.0f} SYNs to www")
        flood = lab.traffic.syn_flood("www", rate_pps=FLOOD_PPS, seconds=FLOOD_S, seed=case.seed).wait()
        held.wait_settled()
        after = lab.snapshot().ecmp_packets()
        case.expect(held.broken, 0, "how many connections broke")
    case.expect_that(after["m2"] > before["m2"], "expected b-echo's packets at m2, which got none: did it move?")
    kept = after["m1"] - before["m1"]
    case.expect_that(kept >= flood.sent, f"expected the flood of {flood.sent} SYNs at m1, which got {kept}")
    spilt = lab.snapshot().maglevs["m2"].statistics["connections"]["entries"]
    case.expect(spilt, HELD, "the entries in m2's connection table, which are b-echo's connections")


@criterion(
    step=5, seconds=60, hint="c1 alone floods: look at over_share and entries in maglab top, or in the steps",
    lab={"topology": "rack", "maglevs": 1, "endpoints": 1, "clients": 2, "configure": shares},
)  # fmt: skip
def live_one_source_has_its_share(lab: Any, case: Case) -> None:
    """A flood from one client's own address fills its share of the table, and the other client finds room."""
    most = int(CAPACITY * SHARE)
    case.step(f"a table of {CAPACITY} entries, {most} for a source; c1 sends {FLOOD_PPS * FLOOD_S:.0f} SYNs")
    lab.traffic.syn_flood("www", rate_pps=FLOOD_PPS, seconds=FLOOD_S, sources="", client="c1", seed=case.seed).wait()
    flooded = _connections_of(lab, "m1")
    case.expect(flooded["entries"], most, "the entries after the flood, all c1's")
    with lab.connections(HELD) as held:
        held.wait_settled()
        case.step(f"{HELD // 2} connections of c1, {HELD // 2} of c2")
        case.expect(held.broken, 0, "how many connections broke")
        case.expect(_connections_of(lab, "m1")["entries"], most + HELD // 2, "the entries now: c2's have been recorded")


# What is expected, in the plainest way


def _connections_of(lab: Any, maglev: str) -> Any:
    return lab.snapshot().maglevs[maglev].statistics["connections"]


def _moments(case: Case, per_s: float) -> Iterator[float]:
    now = 1000.0
    for _ in range(400):
        now += case.random.expovariate(10 * per_s) if case.random.random() < 0.99 else 30 / per_s
        yield now


def _too_many(taken: list[float], first: int, now: float, per_s: float) -> bool:
    return len(taken) - first > max(1.0, per_s) + (now - taken[first]) * per_s + 1e-6


class Story:
    """Counts entries with the student's shares, and in a list: (source, epoch of its last use)."""

    def __init__(self, case: Case, student: Any, most: int, sources: list[bytes]) -> None:
        self.case, self.most, self.sources = case, most, sources
        self.shares = student.Shares(most, CAPACITY)
        self.entries: list[tuple[int, int]] = []
        self.same: dict[bytes, bytes] = {}
        case.step(f"Shares({most}, {CAPACITY})")

    def living(self, epoch: int) -> list[tuple[int, int]]:
        """Returns the entries that are alive."""
        self.entries = [entry for entry in self.entries if epoch - entry[1] <= EPOCHS]
        return self.entries

    def record(self, source: int, epoch: int) -> None:
        """Asks for room, and takes it if there is."""
        name = f"source {source}"
        mine = self._who(source)
        count = sum(self._who(other) == mine for other, _ in self.living(epoch))
        got = self.shares.has_room(self.sources[source], epoch)
        self.case.step(f"epoch {epoch}: {name} has {count} living entries, and asks for room")
        self.case.expect(bool(got), count < self.most, f"whether {name} has room for one more of {self.most}")
        if got:
            self.shares.add(self.sources[source], epoch)
            self.entries.append((source, epoch))

    def use(self, source: int, last: int, epoch: int) -> None:
        """Uses a living entry again."""
        self.case.step(f"epoch {epoch}: an entry of source {source} is used, for the first time since epoch {last}")
        self.shares.use(self.sources[source], last, epoch)
        self.entries.remove((source, last))
        self.entries.append((source, epoch))

    def _who(self, source: int) -> bytes:
        return self.same.get(self.sources[source], self.sources[source])


def _sources(case: Case, number: int) -> list[bytes]:
    """Returns sources of both families that share no bucket in Maglev Lab's own counting."""
    dice = case.random
    names = [f"10.{dice.randrange(256)}.{dice.randrange(256)}.{n}" for n in range(40)]
    names += [f"2001:db8:{dice.randrange(65536):x}:{n:x}::1" for n in range(40)]
    return _distinct(dice.sample(names, len(names)))[:number]


def _distinct(names: list[str]) -> list[bytes]:
    packed = [pack_address(name) for name in names]
    return list({bucket_of(source, 0, buckets_for(CAPACITY)): source for source in packed}.values())


def _places() -> Iterator[Place]:
    for shard, roles in product(SHARDS, product(("announces", "serves", ""), repeat=2)):
        others = list(zip([each for each in SHARDS if each != shard], roles, strict=True))
        announcing, serving = (tuple(each for each, role in others if role == what) for what in ("announces", "serves"))
        yield Place(shard, announcing, serving)


def _way(case: Case, student: Any, place: Place, to: str) -> Iterator[Place]:
    """Yields where a VIP stands, step by step."""
    yield place
    for _ in range(MOST_STEPS):
        following = case.call(student.next_place, place, to)
        if following is None:
            return
        place = Place(*following)
        yield place
    case.wrong(f"expected the end of the way to shard {to} after {MOST_STEPS} steps at most, got {_told(place)}")


def _told(place: Place) -> str:
    return f"({place.shard}, {'+'.join(place.also_announced_by) or '-'}, {'+'.join(place.also_served_by) or '-'})"


SITE = {
    "shard": "a",
    "maglevs": [
        {"name": f"m{n}", "address": f"10.1.{n}.2", "shard": shard} for n, shard in enumerate(("a", "a", "b", "c"), 1)
    ],
    "pools": {
        "web": {"endpoints": [{"address": "10.2.1.2"}, {"address": "10.2.2.2"}]},
        "spare": {"endpoints": [{"address": "10.2.3.2"}]},
        "dns": {"endpoints": [{"address": "10.2.3.2"}, {"address": "10.2.4.2"}]},
        "all": {"pools": ["web", "dns"]},
    },
    "vips": [
        {"name": "www", "address": "192.0.2.1", "protocol": "tcp", "port": 80, "pool": "web",
         "backup_pools": ["spare"]},
        {"name": "tls", "address": "192.0.2.1", "protocol": "tcp", "port": 443, "pool": "web"},
        {"name": "dns", "address": "192.0.2.2", "protocol": "udp", "port": 53, "pool": "dns", "shard": "b"},
        {"name": "any", "address": "192.0.2.3", "protocol": "tcp", "port": 0, "pool": "all", "shard": "c"},
        {"name": "way", "address": "192.0.2.4", "protocol": "tcp", "port": 80, "pool": "dns", "shard": "b",
         "also_announced_by": ["a"], "also_served_by": ["c"]},
    ],
    "forwarder": {"table_size": 7},
}  # fmt: skip
MACHINES = {"www": {"m1", "m2"}, "tls": {"m1", "m2"}, "dns": {"m3"}, "any": {"m4"}, "way": {"m1", "m2", "m3", "m4"}}
WEB, DNS = {"10.2.1.2", "10.2.2.2"}, {"10.2.3.2", "10.2.4.2"}
SERVED = {"www": WEB | {"10.2.3.2"}, "tls": WEB, "dns": DNS, "any": WEB | DNS, "way": DNS}


def _same_address(one: str, other: str) -> bool:
    return one == other or {one, other} == {"www", "tls"}
