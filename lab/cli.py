"""`maglab`: the laboratory's command line.

Exit status: 0 done, 1 a claim did not hold, 2 wrong use, or use of what this machine lacks, 3 no lab, 130 stopped by
Ctrl-C, by SIGTERM or by the end of its terminal.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from maglev.errors import MaglevError
from maglev.flow import Address

from . import interrupts
from .bench.command import What
from .bench.command import run as run_bench
from .bench.request import Request, parse_engines
from .classroom.commands import register as register_classroom
from .errors import LabError, WrongUse
from .figures.command import register as register_figures
from .looking import register as register_looking
from .persistence.command import register as register_persistence
from .recorded import register as register_recorded
from .results import JsonFile, check_writable, write_json
from .topology_options import ListsTopologies, Setting, asked, assignments
from .upkeep import register as register_upkeep

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


class Switch(StrEnum):
    """On or off."""

    on = "on"
    off = "off"


Maglevs = Annotated[int, typer.Option(help="Number of Maglevs.")]
Endpoints = Annotated[int, typer.Option(help="Number of service endpoints.")]
Clients = Annotated[int, typer.Option(help="Number of clients.")]
Cluster = Annotated[
    str, typer.Option(metavar="HOST,HOST,…", help="Servers to put nodes on; localhost is this one (docs/cluster.md).")
]
SshConfig = Annotated[
    Path | None, typer.Option(metavar="FILE", help="What ssh to these servers reads instead of ~/.ssh/config.")
]


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
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report: a page, or Markdown for a name in .md.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Hold hundreds of connections through a VIP, break things, and show that the connections persist."""
    from . import dashboard
    from .demo import Options, Result, run

    if maglevs < 2 or endpoints < 3:
        raise WrongUse("the demo kills Maglevs and endpoints: allowed are --maglevs 2 or more, --endpoints 3 or more")
    check_writable(json_file)
    check_writable(report, "--report")

    def one(hashing: str, table: bool, report: Path | None = None) -> Result:
        nodes = {"maglevs": maglevs, "endpoints": endpoints, "clients": clients}
        title = f"{topology}: {hashing} hashing, connection table {dashboard.on_off(table)}"
        show = dashboard.LiveShow if console.is_terminal and not plain else dashboard.PlainShow
        with show(console, title) as shown:
            result = run(Options(topology, connections, hashing, table, nodes, report), shown)
        dashboard.print_result(console, result)
        return result

    result = one(hash.value, connection_table is Switch.on, report)
    document = result.document()
    if compare:
        console.print()
        document["compared_with"] = one(Hash.modulo.value, False).document()
    write_json(json_file, document)
    raise typer.Exit(0 if result.ok else 1)


@app.command(cls=ListsTopologies, short_help="Build a topology and open a console on it.")
def up(
    topology: Annotated[str, typer.Argument(help="Topology to build, or a file with your own.")] = "rack",
    maglevs: Annotated[int | None, typer.Option(help="Number of Maglevs; of each shard, where there are some.")] = None,
    endpoints: Annotated[int | None, typer.Option(help="Number of service endpoints, in the same way.")] = None,
    clients: Annotated[int | None, typer.Option(help="Number of clients.")] = None,
    setting: Setting = None,
    pcap: Annotated[Path | None, typer.Option(metavar="DIR", help="Capture all links, from the first packet.")] = None,
    cluster: Cluster = "",
    ssh_config: SshConfig = None,
) -> None:
    """Build a topology and open a console on it: `help` lists its commands; `exit` takes it all away.

    `maglab up < FILE` runs a command a line; its exit status is 1 if one of them failed.
    """
    from .console import converse
    from .laboratory import Lab

    options = asked(topology, {"maglevs": maglevs, "endpoints": endpoints, "clients": clients}, setting)
    with Lab(topology, pcap=pcap, progress=_say, cluster=cluster, ssh_config=ssh_config, **options) as lab:
        at = [(vip.name, _in_url(vip.network.network_address), vip.port) for vip in lab.config.placed_vips]
        vips = ", ".join(f"{name} {address}:{port}" for name, address, port in at)
        _say(f"up in {lab.start_s:.1f} s; VIPs: {vips}; files: {lab.directory}")
        status = converse(lab)
        _say("taking it away")
    raise typer.Exit(status)


@app.command(short_help="Run a script: do something to a lab, and judge what came of it.")
def run(
    script: Annotated[str | None, typer.Argument(help="A scenario's name, or a Python file.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 1,
    runs: Annotated[int, typer.Option(min=1, max=1000, help="Runs, with the seeds that follow.")] = 1,
    without: Annotated[list[str] | None, typer.Option(metavar="PROTECTION", help="What to do without.")] = None,
    option: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="The script's own.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a page about each lab into it.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Run a script of `lab/scenarios/`, or your own; without a name, list those that are shipped.

    With --without, it runs without a protection, and should fail: each scenario says what saves it.
    """
    from . import script as scripts

    if script is None:
        return _list_scenarios()
    check_writable(json_file)
    loaded = scripts.load(script)
    options = {**loaded.options, **loaded.chosen(assignments(option or []))}
    outcomes = []
    for number in range(seed, seed + runs):
        _say(f"{loaded.name}, seed {number}: {loaded.summary}")
        one = scripts.Run(number, without or (), lambda text: _say(f"  {text}"), _say_verdict, report)
        outcomes.append(scripts.carry_out(loaded, one, options))
        _say(f"{loaded.name}: {'all holds' if outcomes[-1].ok else 'FAILED'}, after {outcomes[-1].total_s:.1f} s")
    write_json(json_file, [outcome.document() for outcome in outcomes])
    raise typer.Exit(0 if all(outcome.ok for outcome in outcomes) else 1)


def _say_verdict(verdict: object) -> None:
    for line in str(verdict).splitlines():
        _say(f"  {line}")


def _list_scenarios() -> None:
    from . import script as scripts

    table = Table("scenario", "what it is about", "what saves it (--without)", box=None)
    for name in scripts.shipped():
        loaded = scripts.load(name)
        table.add_row(name, loaded.summary, loaded.protection)
    console.print(table)


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
    check_writable(json_file)
    document = run_bench(what, Request(parse_engines(engines), seconds, runs, quick), console, chart)
    write_json(json_file, document)


@app.command(short_help="Say what this machine has for a lab.")
def doctor(cluster: Cluster = "", ssh_config: SshConfig = None, json_file: JsonFile = None) -> None:
    """Say what this machine has, and what that changes for a lab; with --cluster, what the other servers have."""
    from dataclasses import asdict

    from .doctor import examine, examine_cluster, is_fit

    elsewhere = list(examine_cluster(cluster, ssh_config)) if cluster else []
    findings = [*examine(), *elsewhere]
    table = Table(box=None)
    for heading in ("", "what", "needed", "so"):
        table.add_column(heading)
    for finding in findings:
        mark = "[green]yes[/]" if finding.found else "[red]no[/]" if finding.needed else "[yellow]no[/]"
        table.add_row(mark, finding.what, "yes" if finding.needed else "", finding.follows)
    console.print(table)
    fit = is_fit(findings)
    console.print("A lab can run here." if fit else "A lab cannot run here: see the lines in red.")
    write_json(json_file, {"ok": fit, "findings": [asdict(finding) for finding in findings]})
    raise typer.Exit(0 if fit else 3)


@app.command(short_help="Simulate flows: clusters that no machine can emulate.")
def simulate(
    steps: Annotated[list[str] | None, typer.Argument(help='Changes, such as "add s4" "kill m1, kill s2".')] = None,
    maglevs: Annotated[int, typer.Option(help="Number of Maglevs.")] = 3,
    endpoints: Annotated[int, typer.Option(help="Number of endpoints.")] = 5,
    flows: Annotated[int, typer.Option(help="Number of connections.")] = 100_000,
    table_size: Annotated[int, typer.Option(help="Slots of a lookup table: a prime.")] = 65537,
    hash: Annotated[Hash, typer.Option(help="How Maglevs hash flows to endpoints.")] = Hash.maglev,
    capacity: Annotated[
        int | None, typer.Option(help="Entries of a connection table; 0: none (default: as many as come).")
    ] = None,
    ecmp: Annotated[str, typer.Option(help="How routers spread flows: threshold or resilient.")] = "threshold",
    without: Annotated[list[str] | None, typer.Option(help="A node that is away at the start, such as s4.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 1,
    churn: Annotated[int, typer.Option(min=0, max=100_000, help="Random changes, after those named.")] = 0,
    sweep: Annotated[list[str] | None, typer.Option(metavar="NAME=A,B,…", help="Simulate once for each value.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, max=1024, help="Processes of a sweep.")] = None,
    dask: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Sweep on a Dask cluster.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Simulate connections while Maglevs and endpoints come and go; each step's changes happen at once."""
    from .simulate import command
    from .simulation import Cluster

    check_writable(json_file)
    absent = tuple(without or ())
    base = Cluster(maglevs, endpoints, flows, table_size, hash.value, capacity, ecmp, absent, seed)
    documents = command(base, steps or (), churn, sweep or (), jobs, dask, console.print)
    write_json(json_file, documents if sweep else documents[0])


register_classroom(app)
register_looking(app)
register_figures(app)
register_persistence(app)
register_upkeep(app)
register_recorded(app)


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _in_url(address: Address) -> str:
    """Returns an address as it stands in a URL, before a port (RFC 3986 §3.2.2)."""
    return f"[{address}]" if address.version == 6 else str(address)


def main() -> None:
    """Runs a command; errors are one sentence. Ctrl-C, SIGTERM, or a terminal that goes, take the lab away first."""
    interrupts.leave_on_signals()
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
