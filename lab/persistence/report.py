"""What was predicted and measured as a table for a terminal of 80 columns. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from .rows import Row


def table(rows: Sequence[Row]) -> Table:
    """Returns the table, a line for each row; shares in percent of the connections that lived."""
    shown = Table(box=None)
    for heading in ("hash", "table", "event"):
        shown.add_column(heading)
    for heading in ("broken %", "theory", "doomed %", "theory", "agree"):
        shown.add_column(heading, justify="right")
    for row in rows:
        doomed = row.doomed / row.lived if row.lived else 0.0
        shares = (row.share, row.expected_broken, doomed, row.expected_doomed)
        percent = [f"{100 * share:.2f}" for share in shares]
        shown.add_row(row.hash, "on" if row.table else "off", row.event, *percent, "yes" if row.agrees else "no")
    return shown
