"""Timelines: what is written is read back, whatever was left out of it; and what others make of it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("mininet.net", reason="the laboratory needs Debian's package mininet")

from snapshots import connection, maglev, router, snapshot

from lab import export, timeline
from lab.errors import CannotStart, WrongUse
from lab.sampler import Recording, values_of
from lab.timeline import Timeline, changed, completed
from lab.verdict import Verdict
from lab.waiting import wait_until

VALUES = st.dictionaries(
    st.sampled_from("abc"), st.dictionaries(st.sampled_from("xyz"), st.integers(0, 3) | st.text("m12", max_size=2))
)
GOOD = Verdict("all is well", True, "well", "well")
BAD = Verdict("all is well", False, "well", "not well", ("c1/7: reset", "c1/8: reset"), "forwarder.log")


@given(VALUES, VALUES)
def test_what_changed_makes_the_whole_again(before: dict, now: dict) -> None:
    whole = completed(before, changed(before, now))
    assert {what: each for what, each in whole.items() if each} == {what: each for what, each in now.items() if each}


def written(path: Path) -> Timeline:
    kept = Timeline()
    kept.keep_in(path)
    kept.about(lab={"topology": "rack"}, seed=1)
    kept.happened("fault", "impair", "r1-m1", loss_percent=5)
    kept.sampled({"packets": {"r1-m1": 5, "r1-m2": 7}, "hops": {"r1 192.0.2.1": ["m1", "m2"]}})
    kept.sampled({"packets": {"r1-m1": 9}, "hops": {"r1 192.0.2.1": None}})
    kept.happened("undone", "impair", "r1-m1")
    kept.judged(GOOD)
    kept.judged(BAD)
    return kept


def test_a_run_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    kept = written(tmp_path / "run.jsonl")
    told = timeline.read(tmp_path / "run.jsonl")
    assert told.events == kept.events
    assert told.verdicts == (GOOD, BAD)
    assert told.about == {"lab": {"topology": "rack"}, "seed": 1}
    assert told.samples[1].values == {"packets": {"r1-m1": 9, "r1-m2": 7}, "hops": {}}
    assert told.samples[0].values["hops"] == {"r1 192.0.2.1": ["m1", "m2"]}, "the first sample was changed by the next"


def test_a_line_cut_short_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    written(file)
    file.write_text(file.read_text()[:-20])
    assert timeline.read(file).verdicts == (GOOD,)


@pytest.mark.parametrize("content", [None, b"", b"hello\n", b'{"type": "other"}\n[1]\n', b"\xff\xfe\n"])
def test_what_is_no_timeline_is_said_so(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "run.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(WrongUse, match=str(file)):
        timeline.read(file)


def test_a_csv_has_every_measurement_and_event_in_the_order_of_time(tmp_path: Path) -> None:
    written(tmp_path / "run.jsonl")
    file = io.StringIO(newline="")
    count = export.to_csv(timeline.read(tmp_path / "run.jsonl"), file)
    rows = list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))
    assert len(rows) == count == 2 + 3 + 2
    assert [float(row["at_s"]) for row in rows] == sorted(float(row["at_s"]) for row in rows)
    assert [row["value"] for row in rows if (row["what"], row["where"]) == ("packets", "r1-m1")] == ["5.0", "9.0"]
    assert [row["text"] for row in rows if row["what"] == "hops"] == ["m1 m2"]
    assert [row["text"] for row in rows if row["kind"] == "fault"] == ['{"loss_percent": 5}']


def test_parquet_is_the_same_table_or_a_sentence(tmp_path: Path) -> None:
    written(tmp_path / "run.jsonl")
    told = timeline.read(tmp_path / "run.jsonl")
    try:
        import pyarrow.parquet
    except ImportError:
        with pytest.raises(CannotStart, match="pip install pyarrow"):
            export.to_parquet(told, tmp_path / "run.parquet")
        return
    export.to_parquet(told, tmp_path / "run.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "run.parquet").to_pylist()
    assert [tuple(row.values()) for row in table] == list(map(tuple, export.rows(told)))


def test_a_sample_is_a_snapshot_made_flat() -> None:
    seen = snapshot(router(("m1", "m2"), flows={"m1": 3}, packets={"m1": 30}), {"m1": None, "m2": None})
    values = values_of(type(seen)(**{**vars(seen), "connections": (connection(1), connection(2, "reset"))}))
    assert values["flows"] == {"r1-m1": 3}
    assert values["packets"] == {"r1-m1": 30}
    assert values["hops"] == {"r1 192.0.2.1": ["m1", "m2"]}
    assert values["ready"] == {"m1": False, "m2": False}
    assert values["connections"] == {"alive": 1, "reset": 1}
    assert values["broken"] == {"": 1}
    assert values["served"] == {"s1": 1}


def test_a_recording_looks_until_it_is_stopped_and_survives_what_it_cannot_see(tmp_path: Path) -> None:
    kept, looks = Timeline(), []
    kept.keep_in(tmp_path / "kept.jsonl")

    def take():
        looks.append(1)
        if len(looks) == 2:
            raise OSError("the node is gone")
        return snapshot(router(("m1",), packets={"m1": len(looks)}), {"m1": None, "m2": None})

    with Recording(take, kept, 0.01, tmp_path / "copy.jsonl") as recording:
        wait_until(lambda: "" if len(looks) >= 5 else "too few looks", 5.0, "five looks")
    after = len(looks)
    recording.stop()
    assert len(looks) == after, "it went on"
    assert (recording.looks, recording.missed) == (after - 1, 1)
    told = timeline.read(tmp_path / "copy.jsonl")
    assert len(told.samples) == after - 1
    assert told.samples[-1].values["packets"] == {"r1-m1": after}
    assert "sessions" not in (tmp_path / "copy.jsonl").read_text().splitlines()[-1], "what stays is written again"


def test_a_lab_that_is_dear_to_look_at_is_looked_at_less_often(tmp_path: Path) -> None:
    """A look that takes 20 ms of processor time, asked for every 10 ms: it takes its share of a core, and no more."""
    import time

    kept = Timeline()
    kept.keep_in(tmp_path / "kept.jsonl")

    def take():
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        return snapshot(router(("m1",)), {"m1": None})

    with Recording(take, kept, 0.01) as recording:
        wait_until(lambda: "" if recording.looks >= 4 else "too few looks", 30.0, "four looks")
        share = recording.cpu_s / (time.monotonic() - recording._began)
    assert share < 0.1, f"looking takes {share:.0%} of a core"


def test_a_maglev_is_told_by_what_it_says_of_itself() -> None:
    view = maglev(forwarded=9, drops={"no_vip": 2, "overload": 0})
    view.status.update(draining=False, pools={"web": {"healthy": ["10.2.1.2"], "table_digest": "aa"}})
    view.statistics["connections"] = {"entries": 4}
    values = values_of(snapshot(router(("m1",)), {"m1": view}))
    assert values["forwarded"] == {"m1": 9}
    assert values["dropped"] == {"m1 no_vip": 2}
    assert values["healthy"] == {"m1 web": 1}
    assert values["table"] == {"m1 web": "aa"}
    assert values["remembered"] == {"m1": 4}
