"""A bench's document as tables for a terminal. Pure: nothing but the document is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from .yardsticks import LIMITS

Document = Mapping[str, Any]
Column = tuple[str, Callable[[Any], str]]  # heading, and what stands below it for a row


def tables(document: Document) -> Iterator[Table | Text]:
    """Yields what there is to show of a document: tables, and a sentence for each that was left out."""
    yield TABLES[document["bench"]](document)
    for name, why in document.get("left_out", {}).items():
        yield Text(f"left out: {name}: {why}", style="yellow")
    yield from map(Text, document.get("said", ()))


def _table(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Table:
    """Returns a table that fits a terminal of 80 columns: the widest have ten of their own."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0)
    for number, (heading, _) in enumerate(columns):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(cell(row) for _, cell in columns))
    return table


def thousands(value: float) -> str:
    """Returns a number in thousands, as exact as it is worth."""
    return f"{value / 1e3:,.0f}" if value >= 1e4 else f"{value / 1e3:,.2f}"


def spread(row: Mapping[str, Any]) -> str:
    """Returns the lowest and highest of a row's runs, in thousands."""
    return f"{thousands(min(row['runs']))}-{thousands(max(row['runs']))}"


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['engine']} {row.get('variant', '')}".strip()


def _cpus(row: Mapping[str, Any]) -> str:
    return f"{100 * row['cpu']['generator']:.0f} {100 * row['cpu']['forwarder']:.0f}"


def _time_each(row: Mapping[str, Any]) -> str:
    """Returns the time for a packet in nanoseconds; in milliseconds where that would be too wide."""
    ns: float = row["ns_per_packet"]
    return f"{ns:,.0f}" if ns < 1e5 else f"{ns / 1e6:.1f} ms"


def _at_80(row: Mapping[str, Any]) -> str:
    rated = row.get("at_80_percent")
    return f"{rated['loss_per_mille']:.2f}" if rated else ""


def _ratio_to(limit: str) -> Callable[[Any], str]:
    return lambda row: f"{row['ratios'][limit]:.2f}" if limit in row["ratios"] else ""


def _throughput(document: Document) -> Table:
    columns: list[Column] = [
        ("engine", _name),
        ("1,000\n/s", lambda row: thousands(row["pps"])),
        ("lowest-\nhighest", spread),
        ("ns\neach", _time_each),
        ("CPU 0\nand 1 %", _cpus),
        ("lost\n%", lambda row: f"{100 * row['loss']:.0f}"),
        ("lost ‰\nat\n80 %", _at_80),
        *(("of\n" + limit.replace("-", "-\n"), _ratio_to(limit)) for limit in LIMITS),
    ]
    traffic = document["traffic"]
    what = f"{traffic['length']}-byte frames of {traffic['flows']:,} flows"
    how = f"median of {document['runs']} runs of {document['seconds']:g} s"
    return _table(f"Packets a second through one core\n{what}; {how}", document["rows"], columns)


def _latency(document: Document) -> Table:
    columns: list[Column] = [
        ("engine", _name),
        ("packets\n/s", lambda row: f"{row['rate_pps']:,}"),
        ("p50 µs", lambda row: f"{row['p50_us']:,.1f}"),
        ("p99 µs", lambda row: f"{row['p99_us']:,.1f}"),
        ("p99.9 µs", lambda row: f"{row['p999_us']:,.1f}"),
        ("added\np50", lambda row: _added(row, "added_p50_us")),
        ("added\np99", lambda row: _added(row, "added_p99_us")),
        ("lost\n‰", lambda row: f"{row['loss_per_mille']:.2f}"),
    ]
    rows = sorted(document["rows"], key=lambda row: row["rate_pps"])
    return _table(f"One way through a Maglev; median of {document['runs']} runs", rows, columns)


def _added(row: Mapping[str, Any], field: str) -> str:
    return f"{row[field]:+,.1f}" if field in row else ""


def _lookup_tables(document: Document) -> Table:
    columns: list[Column] = [
        ("backends", lambda row: f"{row['backends']:,}"),
        ("slots", lambda row: f"{row['table_size']:,}"),
        ("ms", lambda row: f"{row['ms']:,.2f}"),
        ("the paper's, ms", lambda row: f"{row['paper_ms']:,.1f}" if row["paper_ms"] else ""),
    ]
    return _table("Building a lookup table", document["rows"], columns)


def _connections(document: Document) -> Table:
    columns: list[Column] = [
        ("table", lambda row: row["subject"]),
        ("insert, ns", lambda row: f"{row['insert_ns']:,.0f}"),
        ("hit, ns", lambda row: f"{row['hit_ns']:,.0f}"),
        ("miss, ns", lambda row: f"{row['miss_ns']:,.0f}"),
    ]
    return _table(f"Remembering {document['connections']:,} connections", document["rows"], columns)


def _lab(document: Document) -> Table:
    columns: list[Column] = [("event", lambda row: row["event"]), ("s", lambda row: f"{row['s']:.2f}")]
    return _table(f"A lab comes and goes: {document['topology']}", document["rows"], columns)


def _growth(document: Document) -> Table:
    columns: list[Column] = [
        ("what grows", lambda row: row["series"]),
        ("to", lambda row: row["x"]),
        ("engine", lambda row: row["engine"]),
        ("1,000/s", lambda row: thousands(row["pps"])),
        ("lowest-highest", spread),
        ("flows met", lambda row: f"{row['flows_met']:,}" if row["flows_met"] is not None else ""),
    ]
    return _table("Packets a second as one thing grows", document["rows"], columns)


def _scale(document: Document) -> Table:
    columns: list[Column] = [
        ("nodes", lambda row: f"{row['nodes']:,}"),
        ("racks", lambda row: f"{row['racks']:,}"),
        ("Maglevs", lambda row: f"{row['maglevs']:,}"),
        ("endpoints", lambda row: f"{row['endpoints']:,}"),
        ("processes", lambda row: f"{row['processes']:,}"),
        ("wired\ns", lambda row: f"{row['wired_s']:.1f}"),
        ("up\ns", lambda row: f"{row['start_s']:.1f}"),
        ("gone\ns", lambda row: f"{row['stop_s']:.1f}"),
        ("memory\nMB", lambda row: f"{row['memory_bytes'] / 1e6:,.0f}"),
        ("idle\ncores", lambda row: f"{row['idle_cores']:.2f}"),
    ]
    return _table("Labs that grow", document["rows"], columns)


TABLES: Mapping[str, Callable[[Document], Table]] = {
    "forwarder": _throughput,
    "latency": _latency,
    "table": _lookup_tables,
    "connections": _connections,
    "lab": _lab,
    "growth": _growth,
    "scale": _scale,
}
