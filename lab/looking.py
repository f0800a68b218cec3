"""`maglab trace`, `top`, `pcap` and `graph`: looking at topologies, and at labs that run in other terminals."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .errors import CannotStart, WrongUse
from .results import JsonFile, check_writable, write_json
from .site import Site, sites
from .topology_options import ListsTopologies, Setting, asked


def register(app: typer.Typer) -> None:
    """Adds the commands to `maglab`."""
    app.command(short_help="Follow a packet through a lab that runs.")(trace)
    app.command(short_help="Show a running lab, live.")(top)
    app.command(short_help="Show what crosses a link, live or from captures.")(pcap)
    app.command(cls=ListsTopologies, short_help="Draw a topology.")(graph)


class Format(StrEnum):
    """Languages of drawings."""

    text = "text"
    svg = "svg"
    mermaid = "mermaid"
    dot = "dot"


def trace(
    client: Annotated[str, typer.Argument(help="Who sends it, such as c1.")],
    vip: Annotated[str, typer.Argument(help="Where it goes, such as www.")],
    source_port: Annotated[int | None, typer.Option(min=1, max=65535, help="Such as that of a connection.")] = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Packets to send.")] = 1,
    fragmented: Annotated[bool, typer.Option("--fragmented", help="Send datagrams too large for any link.")] = False,
    lab: Annotated[str | None, typer.Option(help="A lab's id, where several run.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Send a packet that says "trace me", and show its way: `maglab trace c1 www` while `maglab up` runs elsewhere."""
    from .trace import in_site

    if os.geteuid() != 0:
        raise CannotStart("only root may enter a lab's nodes: run it with sudo")
    check_writable(json_file)
    journey = in_site(_running(lab), client, vip, source_port=source_port, count=count, fragmented=fragmented)
    for line in journey.lines():
        typer.echo(line)
    write_json(json_file, journey.document())
    raise typer.Exit(0 if journey.hops else 1)


def top(lab: Annotated[str | None, typer.Option(help="A lab's id, where several run.")] = None) -> None:
    """Show a lab that `maglab up` runs in another terminal: Maglevs, endpoints, routers, what happened; `q` quits."""
    from . import top as screen

    if os.geteuid() != 0:
        raise CannotStart("only root may look into a lab: run it with sudo")
    site = _running(lab)
    if screen.is_possible():
        screen.run(site)
    else:
        typer.echo(screen.once(site))


def pcap(
    what: Annotated[list[str], typer.Argument(help="A link, such as r1-m1; or captures: directories, files.")],
    flow: Annotated[str | None, typer.Option(help="Mark this flow: 10.0.1.2:40001.")] = None,
    only: Annotated[bool, typer.Option("--only", help="Show nothing but that flow.")] = False,
    write: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep both ends' packets in a directory.")] = None,
    pipe: Annotated[bool, typer.Option("--pipe", help="Write pcap, for | wireshark -k -i -")] = False,
    seconds: Annotated[float | None, typer.Option(min=0, help="So long; default: until Ctrl-C.")] = None,
    lab: Annotated[str | None, typer.Option(help="A lab's id, where several run.")] = None,
) -> None:
    """Show what crosses a link of a running lab (`maglab pcap r1-m1`), or what captures hold, merged by time."""
    from . import watching

    wanted = watching.Asked(what, flow, only, write, pipe, seconds)
    if wanted.files:
        watching.read(wanted, typer.echo)
        return
    if os.geteuid() != 0:
        raise CannotStart("only root may enter a lab's nodes: run it with sudo")
    watching.watch(wanted, _running(lab), typer.echo)


def graph(
    topology: Annotated[str, typer.Argument(help="Topology to draw, or a file with your own.")] = "rack",
    maglevs: Annotated[int | None, typer.Option(help="Number of Maglevs.")] = None,
    endpoints: Annotated[int | None, typer.Option(help="Number of service endpoints.")] = None,
    clients: Annotated[int | None, typer.Option(help="Number of clients.")] = None,
    setting: Setting = None,
    format: Annotated[Format | None, typer.Option(help="Default: as FILE ends, else text.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to a file.")] = None,
    all_nodes: Annotated[bool, typer.Option("--all", help="Draw every node, however many are wired alike.")] = False,
) -> None:
    """Draw a topology: `maglab graph rack --maglevs 4 -o rack.svg`. Needs no root."""
    from . import graph as drawing
    from .catalogue import load_topology
    from .wiring import of_topo

    options = asked(topology, {"maglevs": maglevs, "endpoints": endpoints, "clients": clients}, setting)
    check_writable(output, "--output")
    wiring = of_topo(load_topology(topology, options))
    drawn = drawing.draw(wiring, format or drawing.format_of(output), everyone=all_nodes)
    if output is None:
        typer.echo(drawn, nl=False)
    else:
        output.write_text(drawn, encoding="utf-8")


def _running(lab: str | None) -> Site:
    """Returns the lab that runs; WrongUse if there is none, or several and none was named."""
    running = {site.id: site for site in sites() if site.is_owned or site.is_kept}
    if lab in running:
        return running[lab]
    if lab is None and len(running) == 1:
        return next(iter(running.values()))
    there = ", ".join(running) or "none: start one with maglab up, in another terminal"
    raise WrongUse(f"no lab {lab!r} is running; there are {there}" if lab else f"name a --lab; running are {there}")
