"""Verdicts on runs: what is wrong for a moment passes, what lasts is told with its times."""

from __future__ import annotations

from lab import verify
from lab.timeline import Record, Sample


def run(*samples: tuple[float, dict]) -> Record:
    return Record(samples=tuple(Sample(at_s, values) for at_s, values in samples))


def tables(m1: str | None, m2: str | None) -> dict:
    return {"table": {"m1 web": m1, "m2 web": m2, "m1 other": "zz"}}


def serving(ready: dict[str, bool], *hops: str) -> dict:
    return {"ready": ready, "hops": {"r1 192.0.2.1": list(hops)}}


def test_maglevs_may_differ_for_a_moment() -> None:
    record = run((1, tables("aa", "aa")), (2, tables("aa", "bb")), (2.5, tables("aa", "bb")), (3, tables("bb", "bb")))
    assert verify.alike_again_within(record, 0.5)
    verdict = verify.alike_again_within(record, 0.4)
    assert not verdict
    assert verdict.evidence == ("2.00 to 2.50 s: m1 had aa; m2 had bb",)


def test_each_time_counts_for_itself_and_the_last_to_the_end() -> None:
    record = run(*((at_s, tables("aa", "bb" if at_s in (1, 2, 5, 6, 7) else "aa")) for at_s in range(8)))
    assert verify.alike_again_within(record, 2)
    verdict = verify.alike_again_within(record, 1.5)
    assert "2 times in 8 samples, the longest 2.00 s" in verdict.actual
    assert [line[:15] for line in verdict.evidence] == ["5.00 to 7.00 s:"]


def test_who_does_not_answer_has_no_table_to_differ() -> None:
    assert verify.alike_again_within(run((1, tables("aa", None)), (9, tables("aa", None))), 1)


def test_routers_have_to_leave_whoever_does_not_serve() -> None:
    dead = {"m1": False, "m2": True}
    record = run((1, serving(dead, "m1", "m2")), (3, serving(dead, "m1", "m2")), (4, serving(dead, "m2")))
    assert verify.dead_withdrawn_within(record, 2)
    verdict = verify.dead_withdrawn_within(record, 1.9)
    assert not verdict
    assert verdict.evidence == ("1.00 to 3.00 s: r1 sent 192.0.2.1 to m1",)


def test_without_samples_nothing_is_shown() -> None:
    assert not verify.alike_again_within(Record(), 1)
    assert not verify.dead_withdrawn_within(Record(), 1)
