"""A run as a page: one HTML file that needs nothing else, and the same in Markdown.

Everything comes from the run's timeline (`timeline.read`): what was built and with which versions, what happened, what
was measured, the verdicts. So a report can be made long after the lab has gone, and of a lab that has crashed.

    series      what charts show, worked out from samples and events: pure
    charts      drawings (SVG) that need no colour, each with a title and its content in words
    page        the HTML
    markdown    the Markdown
"""

from __future__ import annotations

from pathlib import Path

from ..timeline import Record


def write(record: Record, path: Path) -> None:
    """Writes a report: the page, or Markdown where the file's name ends in .md."""
    if path.suffix == ".md":
        from .markdown import markdown as render
    else:
        from .page import page as render  # brings in the plotting library
    path.write_text(render(record), encoding="utf-8")
