"""The bench's arithmetic, documents, tables and refusals: everything in it that measures nothing."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from lab.bench import connections, growth, labtimes, latency, needs, report, scale, summary, tables, throughput
from lab.bench.command import What
from lab.bench.measure import Flood, Run, busy_shares, parse_core_times
from lab.bench.request import Request, parse_engines
from lab.bench.traffic import Counts, Traffic, parse_counts
from lab.bench.yardsticks import ENGINES, LIMITS, Cluster, all_yardsticks, maglev
from lab.errors import LabError, WrongUse
from maglev import config
from maglev.fast.conntrack import HITS, MISSES
from maglev.fast.flow import key_of
from maglev.fast.forwarding import LARGEST_BATCH

MACHINE = {"kernel": "6.1", "cpu": "a processor", "cores": 2, "python": "3.11"}


def run(pps, loss=0.5, forwarder_cpu=1.0, **others):
    return Run(pps, offered_pps=pps / (1 - loss), loss=loss, generator_cpu=1.0, forwarder_cpu=forwarder_cpu, **others)


# Taking turns


def test_runs_take_turns_and_one_that_fails_is_left_out_from_then_on(monkeypatch):
    sound, broken = maglev("socket"), maglev("ring")
    turns = []

    def measure(bench, subject, flood):
        turns.append(subject.name)
        if subject is broken:
            raise LabError("it broke")
        return run(1000)

    monkeypatch.setattr(throughput, "measure", measure)
    left_out: dict[str, str] = {}
    measured = throughput.take_turns(None, [broken, sound], [Flood(1.0)] * 2, 3, lambda text: None, left_out)
    assert turns == ["ring", "socket", "socket", "socket"]
    assert {subject.name: len(runs) for subject, runs in measured.items()} == {"socket": 3}
    assert left_out == {"ring": "it broke"}


# What is read


def test_the_generators_counts_are_read_and_subtracted():
    before, after = parse_counts("1000 50 40 0\n"), parse_counts("3000 150 120 7\n")
    assert after.since(before) == Counts(time_ns=2000, sent=100, balanced=80, plain=7)


@pytest.mark.parametrize("line", ["", "1 2 3\n", "1 2 3 four\n", "1 2 3 -4\n"])
def test_a_generator_that_says_something_else_is_an_error(line):
    with pytest.raises(LabError, match="four numbers"):
        parse_counts(line)


def test_a_cores_share_of_busy_time_leaves_out_idle_and_iowait():
    before = parse_core_times("cpu  9 9 9 9 9 9 9 9\ncpu0 10 0 10 100 5 0 0 0 0 0\ncpu1 0 0 0 50 0 0 0 0 0 0\nintr 1\n")
    after = parse_core_times("cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 15 0 15 105 10 0 10 0 0 0\ncpu1 0 0 0 150 0 0 0 0 0 0\n")
    assert busy_shares(before, after) == {0: pytest.approx(20 / 30), 1: 0.0}


def test_the_probers_line_is_read():
    assert latency.parse_sample("2000 1 2100 9000 30000\n") == latency.Sample(2000, 1, 2100, 9000, 30000)
    with pytest.raises(LabError, match="five numbers"):
        latency.parse_sample("no packets\n")


# From runs to rows


def test_a_row_has_medians_and_every_run():
    row = summary.row_of("ring", {"": [run(900_000), run(1_000_000), run(1_200_000, loss=0.1)]})
    assert row["pps"] == 1_000_000
    assert row["runs"] == [900_000, 1_000_000, 1_200_000]
    assert row["loss"] == 0.5
    assert row["ns_per_packet"] == 1000.0
    assert row["cpu"] == {"generator": 1.0, "forwarder": 1.0}
    assert "variants" not in row


def test_nanoseconds_a_packet_count_only_the_time_that_the_core_worked():
    assert run(1_000_000, forwarder_cpu=0.5).ns_per_packet == pytest.approx(500)


def test_the_best_variant_makes_the_row_and_both_are_told():
    row = summary.row_of("c-xdp", {"native": [run(1000)], "generic": [run(2000)]})
    assert (row["variant"], row["pps"]) == ("generic", 2000)
    assert [(each["variant"], each["pps"]) for each in row["variants"]] == [("native", 1000), ("generic", 2000)]


def test_ratios_are_to_those_limits_that_were_measured():
    rows = [summary.row_of(name, {"": [run(pps)]}) for name, pps in (("ring", 950), ("c-ring", 1000), ("scapy", 1))]
    assert [row["ratios"] for row in summary.with_ratios(rows)] == [
        {"c-ring": 0.95}, {"c-ring": 1.0}, {"c-ring": 0.001}
    ]  # fmt: skip


def test_loss_at_a_rate_is_in_per_mille():
    rated = summary.rated(0.8, 800.0, [run(800, loss=0.0), run(799, loss=0.002), run(790, loss=0.004)])
    assert (rated["rate_pps"], rated["loss_per_mille"], rated["runs"]) == (800, 2.0, [0.0, 2.0, 4.0])


def test_latency_is_told_above_the_baseline_of_the_same_rate():
    baseline, subject = latency.subjects(("kernel-forward", "socket"))
    rows = latency.rows_of(
        {
            (baseline, 1000): [latency.Sample(100, 0, 2000, 3000, 4000)],
            (baseline, 20000): [latency.Sample(100, 0, 1000, 1500, 2000)],
            (subject, 20000): [latency.Sample(100, 1, p50, 9000, 9900) for p50 in (5000, 7000, 6000)],
        }
    )
    assert rows[2]["p50_us"] == 6.0
    assert rows[2]["added_p50_us"] == 5.0
    assert rows[2]["loss_per_mille"] == 10.0


def test_blocking_and_polling_are_measured_where_an_engine_can_do_both():
    assert [each.name for each in latency.subjects(latency.ENGINES)] == [
        "kernel-forward", "ring", "ring busy", "xdp", "xdp busy", "socket"
    ]  # fmt: skip


def test_an_operations_time_is_the_median_over_runs():
    row = connections.row_of("dict", [(1.0, 10.0, 100.0), (3.0, 30.0, 300.0), (2.0, 20.0, 200.0)])
    assert row == {"subject": "dict", "insert_ns": 2.0, "hit_ns": 20.0, "miss_ns": 200.0}


def test_flows_inside_and_outside_a_table_are_all_different_and_the_same_every_time():
    inside, outside = connections.flows_from(0x0A000000, 500), connections.flows_from(0x0B000000, 500)
    assert len({*inside, *outside}) == 1000
    assert inside == connections.flows_from(0x0A000000, 500)


def test_the_compiled_table_is_asked_by_the_keys_that_forwarders_have():
    flows = connections.flows_from(0x0A000000, 300)
    keys = connections.Compiled(1000).prepared(flows)
    assert [tuple(key) for key in keys.tolist()] == [tuple(map(int, key_of(flow))) for flow in flows]


@pytest.mark.parametrize("count", [1, LARGEST_BATCH, 3 * LARGEST_BATCH + 1])
def test_the_compiled_table_remembers_every_flow_and_no_other(count):
    inside, outside = connections.flows_from(0x0A000000, count), connections.flows_from(0x0B000000, count)
    subject = connections.Compiled(count)
    subject.insert(subject.prepared(inside))
    assert len(subject.table) == count
    assert {subject.table.lookup(flow, 0.0) for flow in inside} == {connections.BACKEND}
    before = subject.table.arrays.state.copy()
    subject.look_up(subject.prepared(inside))
    subject.look_up(subject.prepared(outside))
    grown = subject.table.arrays.state - before
    assert (grown[HITS], grown[MISSES]) == (count, count)


def test_every_table_is_measured():
    console = Console(file=io.StringIO())
    document = connections.run(Request(runs=1, quick=True), console)
    assert [row["subject"] for row in document["rows"]] == ["conntrack", "compiled", "dict"]
    assert all(row[f"{what}_ns"] > 0 for row in document["rows"] for what in connections.OPERATIONS)


# Documents and tables


def documents():
    """A document of every bench, as it is written to a file."""
    throughput_rows = summary.with_ratios(
        [
            summary.row_of(name, {"": [run(pps), run(1.1 * pps)]})
            for name, pps in zip(ENGINES, range(2_200_000, 0, -244_000), strict=False)
        ]
    )
    throughput_rows[-1] |= {"ns_per_packet": 1_674_987.1}
    throughput_rows[0]["at_80_percent"] = summary.rated(0.8, 1200, [run(1200, loss=0.0)])
    sample = latency.Sample(100, 0, 2000, 3000, 4000)
    baseline, subject = latency.subjects(("kernel-forward", "socket"))
    rows = {
        "forwarder": {"traffic": {"length": 60, "flows": 65536}, "rows": throughput_rows},
        "latency": {"rows": latency.rows_of({(baseline, 1000): [sample], (subject, 1000): [sample]})},
        "table": {"rows": [{**tables.SIZES[0]._asdict(), "ms": 1.5, "runs": [1.5]}]},
        "connections": {"connections": 10, "rows": [connections.row_of("dict", [(1.0, 2.0, 3.0)])]},
        "lab": {"topology": "rack", "rows": labtimes_rows()},
        "growth": {"rows": [growth.row_of("VIPs", "1", "ring", [run(1000, flows_met=5)])]},
        "scale": scale.document_of([scale_row(1), scale_row(56)], scale.Size(64), scale.Broken("memory runs out")),
    }
    common = {"machine": MACHINE, "seconds": throughput.SECONDS, "runs": 2, "left_out": {"scapy": "there is no scapy"}}
    return [json.loads(json.dumps({"bench": name} | common | document)) for name, document in rows.items()]


def scale_row(racks):
    taken = {"wired_s": 100.0, "start_s": 200.0, "stop_s": 20.0, "memory_bytes": 64e9, "idle_cores": 64.0}
    return {"racks": racks, "nodes": scale.Size(racks).nodes, **scale.Size(racks).options, "processes": 9999, **taken}


def labtimes_rows():
    return [{"event": event, "s": 1.0, "runs": [1.0]} for event in labtimes.EVENTS]


def test_every_bench_has_a_document():
    assert [document["bench"] for document in documents()] == [what.value for what in What]


@pytest.mark.parametrize("document", documents(), ids=lambda document: document["bench"])
def test_a_document_becomes_a_table_that_fits_80_columns(document):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in report.tables(document):
        console.print(table)
    text = console.export_text()
    assert "left out: scapy: there is no scapy" in text
    assert "…" not in text, text


@pytest.mark.parametrize("document", documents(), ids=lambda document: document["bench"])
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_document_becomes_a_chart(document, suffix, tmp_path):
    chart = pytest.importorskip("lab.bench.chart", reason="charts need matplotlib, which make setup installs")
    chart.draw(document, tmp_path / f"chart.{suffix}")
    assert (tmp_path / f"chart.{suffix}").stat().st_size > 5000


# What is measured


def test_every_engine_has_a_row_in_the_promised_order():
    assert list(dict.fromkeys(yardstick.engine for yardstick in all_yardsticks())) == list(ENGINES)
    assert set(LIMITS) <= set(ENGINES)


CLUSTERS = (
    Cluster(), Cluster(vips=300), Cluster(backends=2000), Cluster(protocol="udp"), Cluster(connection_table=False)
)  # fmt: skip


@pytest.mark.parametrize("cluster", CLUSTERS, ids=str)
def test_the_forwarders_configuration_is_sound(cluster):
    parsed = config.parse(json.dumps(cluster.document("socket")))
    assert (len(parsed.vips), len(parsed.pool_members("web"))) == (cluster.vips, cluster.backends)
    assert parsed.forwarder.connection_table.enabled is cluster.connection_table
    assert parsed.forwarder.table_size > 100 * cluster.backends


def test_the_engine_is_named_and_the_table_has_its_memory_before_the_first_packet():
    table = {"connection_table": {"huge_pages": True}}
    assert Cluster().document("socket")["forwarder"] == {"engine": "socket", **table}
    assert Cluster().document("ring", busy_poll=True)["forwarder"] == {"engine": "ring", "busy_poll": True, **table}
    without = Cluster(connection_table=False).document("ring")["forwarder"]
    assert without == {"engine": "ring", "connection_table": {"enabled": False}}


def test_an_engine_that_the_forwarder_does_not_have_is_missing():
    assert "engine warp is missing" in maglev("warp").missing()
    assert maglev("socket").missing() == ""


def test_what_is_missing_is_told_with_the_package_that_brings_it():
    absent = needs.Need("the compiler gcc", lambda: False, "gcc")
    assert needs.missing([absent]) == (
        "the compiler gcc is missing; Debian's package gcc brings it, and make bench installs it"
    )
    assert needs.missing([needs.Need("a thing", lambda: True, "thing")]) == ""


def test_traffic_becomes_the_generators_options():
    assert Traffic(flows=10, udp=True).options() == [
        "--length=60", "--flows=10", "--vips=1", "--syn-every=0", "--udp"
    ]  # fmt: skip


# What a user asks for


@pytest.mark.parametrize(
    ("request_", "seconds", "runs"),
    [
        (Request(), 2.0, 5),
        (Request(quick=True), 0.5, 3),
        (Request(seconds=1.0, runs=9, quick=True), 1.0, 9),
    ],
)
def test_quick_gives_way_to_what_is_said_expressly(request_, seconds, runs):
    assert (request_.seconds_or(2.0), request_.runs_or(5)) == (seconds, runs)


def test_engines_are_chosen_in_the_order_of_the_rows():
    assert Request(parse_engines("scapy, ring")).chosen(ENGINES) == ["ring", "scapy"]
    assert Request().chosen(ENGINES) == list(ENGINES)


@pytest.mark.parametrize("words", ["", "ring,", ",", "ring,,xdp"])
def test_a_list_of_engines_with_a_gap_is_refused(words):
    with pytest.raises(WrongUse, match="--engines"):
        parse_engines(words)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request(engines=("warp",)), "--engines warp.*xdp, ring, socket"),
        (Request(seconds=0.01), r"--seconds 0.01: allowed are 0.1 to 60"),
        (Request(seconds=61), "--seconds 61"),
        (Request(runs=0), "--runs 0: allowed are 1 to 99"),
        (Request(runs=100), "--runs 100"),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(request_, says):
    with pytest.raises(WrongUse, match=says):
        (request_.chosen(ENGINES), request_.seconds_or(throughput.SECONDS), request_.runs_or(5))


def test_times_of_a_lab_are_medians_of_each_event():
    taken = [(3.0, 0.1, 1.0, 0.5, 0.6), (2.0, 0.3, 2.0, 0.4, 0.9), (4.0, 0.2, 3.0, 0.6, 0.7)]
    rows = labtimes.rows_of(taken)
    assert [row["event"] for row in rows] == list(labtimes.EVENTS)
    assert rows[1] == {"event": "first curl", "s": 0.2, "runs": [0.1, 0.3, 0.2]}
    assert rows[4] == {"event": "last of 6 forwards", "s": 0.7, "runs": [0.6, 0.9, 0.7]}
