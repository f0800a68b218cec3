"""`maglab`: the laboratory's command line.

Exit status: 0 done, 1 a claim did not hold, 2 wrong use, 3 no lab, 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from maglev.errors import MaglevError
from maglev.flow import Address

from .bench.command import What
from .bench.command import run as run_bench
from .bench.request import Request, parse_engines
from .errors import CannotStart, LabError, Terminated, WrongUse
from .site import Site, sites

app = typer.Typer(
    help="Maglev Lab: a data centre with Google's Maglev load balancer, in this machine.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console()
UsageError = typer.BadParameter.__base__ or Exception  # Click's, which Typer keeps to itself
INTERRUPTED = 130  # 128 and SIGINT, as shells say it


class Hash(StrEnum):
    """Ways of hashing flows to endpoints."""

    maglev = "maglev"
    modulo = "modulo"
    ring = "ring"
    rendezvous = "rendezvous"


class Format(StrEnum):
    """Languages of drawings."""

    text = "text"
    svg = "svg"
    mermaid = "mermaid"
    dot = "dot"


class Switch(StrEnum):
    """On or off."""

    on = "on"
    off = "off"


Maglevs = Annotated[int, typer.Option(help="Number of Maglevs.")]
Endpoints = Annotated[int, typer.Option(help="Number of service endpoints.")]
Clients = Annotated[int, typer.Option(help="Number of clients.")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result to a file as JSON.")]


@app.command(short_help="Show connections surviving their load balancers' death.")
def demo(
    topology: Annotated[str, typer.Option(help="Topology to build.")] = "rack",
    maglevs: Maglevs = 3,
    endpoints: Endpoints = 5,
    clients: Clients = 2,
    connections: Annotated[int, typer.Option(min=1, max=20000, help="Connections to hold.")] = 300,
    hash: Annotated[Hash, typer.Option(help="How Maglevs hash flows to endpoints.")] = Hash.maglev,
    connection_table: Annotated[Switch, typer.Option(help="Whether Maglevs remember flows.")] = Switch.on,
    compare: Annotated[
        bool, typer.Option("--compare", help="Run it again with modulo hashing and no connection table, and show both.")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Print lines even on a terminal.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Hold hundreds of connections through a VIP, break things, and show that the connections persist."""
    from . import dashboard
    from .demo import Options, Result, run

    if maglevs < 2 or endpoints < 3:
        raise WrongUse("the demo kills Maglevs and endpoints: allowed are --maglevs 2 or more, --endpoints 3 or more")
    _check_writable(json_file)

    def one(hashing: str, table: bool) -> Result:
        nodes = {"maglevs": maglevs, "endpoints": endpoints, "clients": clients}
        title = f"{topology}: {hashing} hashing, connection table {dashboard.on_off(table)}"
        show = dashboard.LiveShow if console.is_terminal and not plain else dashboard.PlainShow
        with show(console, title) as shown:
            result = run(Options(topology, connections, hashing, table, nodes), shown)
        dashboard.print_result(console, result)
        return result

    result = one(hash.value, connection_table is Switch.on)
    document = result.document()
    if compare:
        console.print()
        document["compared_with"] = one(Hash.modulo.value, False).document()
    _write_json(json_file, document)
    raise typer.Exit(0 if result.ok else 1)


@app.command(short_help="Build a topology and open a console on it.")
def up(
    topology: Annotated[str, typer.Argument(help="Topology to build.")] = "rack",
    maglevs: Maglevs = 3,
    endpoints: Endpoints = 5,
    clients: Clients = 2,
    pcap: Annotated[Path | None, typer.Option(metavar="DIR", help="Capture all links, from the first packet.")] = None,
) -> None:
    """Build a topology and open a console on it: `help` lists its commands; `exit` takes it all away.

    `maglab up < FILE` runs a command a line; its exit status is 1 if one of them failed.
    """
    from .console import converse
    from .laboratory import Lab

    numbers = {"maglevs": maglevs, "endpoints": endpoints, "clients": clients}
    with Lab(topology, pcap=pcap, progress=_say, **numbers) as lab:
        vips = ", ".join(f"{vip.name} {_in_url(vip.address)}:{vip.port}" for vip in lab.config.vips)
        _say(f"up in {lab.start_s:.1f} s; VIPs: {vips}; files: {lab.directory}")
        status = converse(lab)
        _say("taking it away")
    raise typer.Exit(status)


@app.command(short_help="Show a running lab, live.")
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


@app.command(short_help="Follow a packet through a lab that runs.")
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
    _check_writable(json_file)
    journey = in_site(_running(lab), client, vip, source_port=source_port, count=count, fragmented=fragmented)
    for line in journey.lines():
        _say(line)
    _write_json(json_file, journey.document())
    raise typer.Exit(0 if journey.hops else 1)


def _running(lab: str | None) -> Site:
    """Returns the lab that runs; WrongUse if there is none, or several and none was named."""
    running = {site.id: site for site in sites() if site.owner and site.owner.alive}
    if lab in running:
        return running[lab]
    if lab is None and len(running) == 1:
        return next(iter(running.values()))
    there = ", ".join(running) or "none: start one with maglab up, in another terminal"
    raise WrongUse(f"no lab {lab!r} is running; there are {there}" if lab else f"name a --lab; running are {there}")


@app.command(short_help="Draw a topology.")
def graph(
    topology: Annotated[str, typer.Argument(help="Topology to draw.")] = "rack",
    maglevs: Annotated[int | None, typer.Option(help="Number of Maglevs.")] = None,
    endpoints: Annotated[int | None, typer.Option(help="Number of service endpoints.")] = None,
    clients: Annotated[int | None, typer.Option(help="Number of clients.")] = None,
    format: Annotated[Format | None, typer.Option(help="Default: as FILE ends, else text.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to a file.")] = None,
    all_nodes: Annotated[bool, typer.Option("--all", help="Draw every node, however many are wired alike.")] = False,
) -> None:
    """Draw a topology: `maglab graph rack --maglevs 4 -o rack.svg`. Needs no root."""
    from . import graph as drawing
    from .laboratory import load_topology
    from .wiring import of_topo

    given = {"maglevs": maglevs, "endpoints": endpoints, "clients": clients}
    options = {name: number for name, number in given.items() if number is not None}
    _check_writable(output, "--output")
    wiring = of_topo(load_topology(topology, options))
    drawn = drawing.draw(wiring, format or drawing.format_of(output), everyone=all_nodes)
    if output is None:
        typer.echo(drawn, nl=False)
    else:
        output.write_text(drawn, encoding="utf-8")


@app.command(short_help="Show what crosses a link, live or from captures.")
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

    asked = watching.Asked(what, flow, only, write, pipe, seconds)
    if asked.files:
        watching.read(asked, typer.echo)
        return
    if os.geteuid() != 0:
        raise CannotStart("only root may enter a lab's nodes: run it with sudo")
    watching.watch(asked, _running(lab), typer.echo)


@app.command(short_help="Measure speed, next to what C, XDP and DPDK can do.")
def bench(
    what: Annotated[What, typer.Argument(help="What to measure.")] = What.forwarder,
    engines: Annotated[str | None, typer.Option(metavar="A,B,…", help="Only these engines and yardsticks.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of one run.")] = None,
    runs: Annotated[int | None, typer.Option(help="Runs, of which the median counts.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer, shorter runs.")] = False,
    chart: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the result: .png or .svg.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure packets per second (forwarder, growth), latency, lookup and connection tables, or the lab's times."""
    _check_writable(json_file)
    document = run_bench(what, Request(parse_engines(engines), seconds, runs, quick), console, chart)
    _write_json(json_file, document)


@app.command(short_help="Say what this machine has for a lab.")
def doctor(json_file: JsonFile = None) -> None:
    """Say what this machine has, and what that changes for a lab."""
    from dataclasses import asdict

    from .doctor import examine, is_fit

    findings = list(examine())
    table = Table(box=None)
    for heading in ("", "what", "needed", "so"):
        table.add_column(heading)
    for finding in findings:
        mark = "[green]yes[/]" if finding.found else "[red]no[/]" if finding.needed else "[yellow]no[/]"
        table.add_row(mark, finding.what, "yes" if finding.needed else "", finding.follows)
    console.print(table)
    fit = is_fit(findings)
    console.print("A lab can run here." if fit else "A lab cannot run here: see the lines in red.")
    _write_json(json_file, {"ok": fit, "findings": [asdict(finding) for finding in findings]})
    raise typer.Exit(0 if fit else 3)


@app.command(short_help="Take away what killed labs left behind.")
def clean(
    lab: Annotated[str | None, typer.Argument(help="A lab's id; without it, all labs whose owner has died.")] = None,
) -> None:
    """Take away what labs left behind that were killed; with an ID, that lab, even if it runs."""
    if os.geteuid() != 0:
        raise CannotStart("only root may take a lab away: run it with sudo")
    there = {site.id: site for site in sites()}
    if lab is not None and lab not in there:
        raise WrongUse(f"there is no lab {lab!r}; there are {', '.join(there) or 'none'}")
    chosen = [there[lab]] if lab else [site for site in there.values() if not (site.owner and site.owner.alive)]
    for site in chosen:
        if lab and site.owner is not None:
            site.owner.kill()
        console.print(f"{site.id}: ended {site.clean()} processes", highlight=False)
    running = [site.id for site in there.values() if site not in chosen]
    if running:
        console.print(f"left alone, still running: {', '.join(running)}", highlight=False)
    if not chosen and not running:
        console.print("nothing to clean")


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _in_url(address: Address) -> str:
    """Returns an address as it stands in a URL, before a port (RFC 3986 §3.2.2)."""
    return f"[{address}]" if address.version == 6 else str(address)


def _check_writable(path: Path | None, option: str = "--json") -> None:
    if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
        raise WrongUse(f"{option} {path}: cannot write there; name a file in a directory that exists")


def _write_json(path: Path | None, document: object) -> None:
    if path is not None:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def main() -> None:
    """Runs a command; errors are one sentence, and Ctrl-C or SIGTERM takes the lab away before leaving."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except UsageError as error:
        _fail(error.format_message(), 2)
    except WrongUse as error:
        _fail(error, 2)
    except (LabError, MaglevError) as error:
        _fail(error, 3)
    if status == INTERRUPTED:
        _fail("stopped, and everything taken away", INTERRUPTED)
    sys.exit(status)


def _fail(error: object, status: int) -> NoReturn:
    print(f"maglab: {error}", file=sys.stderr)
    sys.exit(status)
