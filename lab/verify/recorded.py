"""Verdicts on a whole run, from its samples: what may be for a moment after a fault must not last.

A sample sees a moment. What is so in two samples in a row is taken to have lasted from the one to the other, and no
longer: so whatever is said to have lasted too long did last at least that long, give or take what happened in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..timeline import Record, Sample
from ..verdict import Verdict
from .fates import shown

Wrong = dict[str, str]  # what is wrong, by what it is about: in words


def alike_again_within(record: Record, within_s: float) -> Verdict:
    """Whenever Maglevs had different lookup tables for a pool, they had the same again soon enough."""
    claim = f"Maglevs that choose differently choose alike again within {within_s:g} s"
    where = "the timeline around these times: health as each Maglev sees it (`healthy`), and configurations"
    return _passes(record, _different_tables, within_s, claim, where)


def dead_withdrawn_within(record: Record, within_s: float) -> Verdict:
    """No router went on sending to a Maglev whose forwarder did not serve for longer than that."""
    claim = f"routers leave a Maglev that does not serve within {within_s:g} s"
    where = "the timeline around these times: `ready`, `session` and `hops`; the controller's log of these Maglevs"
    return _passes(record, _sent_to_the_dead, within_s, claim, where)


def _different_tables(sample: Sample) -> Wrong:
    tables: dict[str, dict[str, list[str]]] = {}  # pool: digest: Maglevs
    for place, digest in sample.values.get("table", {}).items():
        maglev, _, pool = place.partition(" ")
        if digest is not None:
            tables.setdefault(pool, {}).setdefault(digest, []).append(maglev)
    return {
        pool: "; ".join(f"{', '.join(names)} had {digest}" for digest, names in found.items())
        for pool, found in tables.items()
        if len(found) > 1
    }


def _sent_to_the_dead(sample: Sample) -> Wrong:
    dead = {name for name, is_ready in sample.values.get("ready", {}).items() if not is_ready}
    return {
        f"{place} {maglev}": f"{place.partition(' ')[0]} sent {place.partition(' ')[2]} to {maglev}"
        for place, hops in sample.values.get("hops", {}).items()
        for maglev in hops
        if maglev in dead
    }


def _passes(record: Record, look: Callable[[Sample], Wrong], within_s: float, claim: str, look_at: str) -> Verdict:
    """Returns the verdict on something that may be wrong for a while."""
    lasted = _lasting(record.samples, look)
    too_long = [line for seconds, line in lasted if seconds > within_s]
    longest = max((seconds for seconds, _ in lasted), default=0.0)
    return Verdict(
        claim,
        bool(record.samples) and not too_long,
        f"at most {within_s:g} s each time" if record.samples else "samples to judge: lab.recording takes them",
        f"{len(lasted)} times in {len(record.samples)} samples, the longest {longest:.2f} s",
        shown(too_long),
        look_at,
    )


def _lasting(samples: Sequence[Sample], look: Callable[[Sample], Wrong]) -> list[tuple[float, str]]:
    """Returns how long each thing was wrong at least, and that in words, in the order in which it ended."""
    since: dict[str, float] = {}
    last: dict[str, tuple[float, str]] = {}
    found: list[tuple[float, str]] = []

    def end(about: str) -> None:
        until, words = last.pop(about)
        began = since.pop(about)
        found.append((until - began, f"{began:.2f} to {until:.2f} s: {words}"))

    for sample in samples:
        wrong = look(sample)
        for about in [each for each in last if each not in wrong]:
            end(about)
        for about, words in wrong.items():
            since.setdefault(about, sample.at_s)
            last[about] = sample.at_s, words
    for about in list(last):
        end(about)
    return found
