"""`python -m maglev`: the daemons, replay, and what there is to ask about configurations."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias

from .errors import MaglevError
from .flow import Address

# Each command imports what it needs when it runs: a lab starts a dozen daemons at once, and imports are what they
# spend their first half second on.

RUN_DIRECTORY = Path("/run/maglev")
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns 0, 1 for an error that the user can mend, 2 for wrong use.

    A command that means something else by 1, as diff(1) does, says so with `trouble`.
    """
    options = _parser().parse_args(arguments)
    try:
        if "MAGLEV_STUDENT" in os.environ:
            from .swap import swap_in_from_environment

            swap_in_from_environment()
        return int(options.run(options) or 0)
    except MaglevError as error:
        print(f"maglev: {error}", file=sys.stderr)
        return int(options.trouble)
    except BrokenPipeError:
        return 0


def _parser() -> argparse.ArgumentParser:
    """Returns what reads the command line, with the commands in the order of `--help`."""
    parser = argparse.ArgumentParser(prog="python -m maglev", description="Maglev, a network load balancer.")
    parser.set_defaults(trouble=1)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_daemons, _add_nursery, _add_replay, _add_trace, _add_configurations):
        add(commands)
    return parser


def _add_daemons(commands: Commands) -> None:
    """Adds what runs until it is told to end."""
    forwarder = _daemon(commands, "forwarder", "move packets and check endpoints' health", _forwarder)
    controller = _daemon(commands, "controller", "announce VIPs while the forwarder is fit; run by ExaBGP", _controller)
    for command in (forwarder, controller):
        command.add_argument("--maglev", metavar="NAME", help="which Maglev this is (default: by its addresses)")

    endpoint = _daemon(commands, "endpoint", "take clients' packets out of GRE, and hold the VIPs", _endpoint)
    endpoint.add_argument("--address", type=_address, help="which endpoint this is (default: by its addresses)")
    endpoint.add_argument("--decapsulation", choices=("auto", "kernel", "tun"), default="auto",
                          help="kernel GRE devices, or a TUN device fed by this process (default: auto)")  # fmt: skip

    names = _daemon(commands, "nameserver", "answer DNS with the VIPs of the nearest site that has room", _nameserver)
    names.add_argument("--address", type=_address, action="append", default=[],
                       help="where to answer; may be given more than once")  # fmt: skip


def _daemon(commands: Commands, name: str, text: str, run: object) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text)
    command.add_argument("--config", required=True, type=Path, metavar="FILE")
    command.add_argument("--control", type=Path, metavar="PATH",
                         help=f"control socket (default: {RUN_DIRECTORY}/NAME.sock)")  # fmt: skip
    command.set_defaults(run=run)
    return command


def _add_nursery(commands: Commands) -> None:
    nursery = commands.add_parser("nursery", help="a process whose forks are daemons that start at once; run by a lab")
    nursery.add_argument("--socket", required=True, type=Path, metavar="PATH", help="where it takes orders")
    nursery.add_argument("--also", action="append", default=[], metavar="MODULE", help="import it, too, for its main()")
    nursery.set_defaults(run=_nursery)


def _add_replay(commands: Commands) -> None:
    replay = commands.add_parser("replay", help="what a forwarder would send out for the frames of a pcap file")
    replay.add_argument("--config", required=True, type=Path, metavar="FILE")
    replay.add_argument("--maglev", required=True, metavar="NAME", help="which Maglev's forwarder")
    replay.add_argument("--engine", choices=("reference", "fast"), default="reference",
                        help="who decides: the code to read, or its compiled twin (default: reference)")  # fmt: skip
    replay.add_argument("--down", nargs="+", action="extend", default=[], metavar="ADDRESS",
                        help="endpoints that are unhealthy")  # fmt: skip
    replay.add_argument("captures", nargs="*", metavar="IN.pcap OUT.pcap", help="Ethernet frames in, frames out")
    replay.set_defaults(run=_replay, fail=replay.error)


def _add_trace(commands: Commands) -> None:
    trace = commands.add_parser("trace", help='send a VIP packets that say "trace me", and tell what Maglevs report')
    trace.add_argument("address", type=_address, metavar="ADDRESS", help="of a VIP")
    trace.add_argument("port", type=_number(1, 65535), metavar="PORT")
    trace.add_argument("--protocol", choices=("tcp", "udp"), default="tcp", help="default: tcp")
    trace.add_argument("--source-port", type=_number(1, 65535), metavar="N",
                       help="such as that of a connection (default: a free one)")  # fmt: skip
    trace.add_argument("--count", type=_number(1, 1000), default=1, metavar="N", help="packets (default: 1)")
    trace.add_argument("--fragmented", action="store_true", help="a packet too large for any link; udp only")
    trace.add_argument("--json", action="store_true", help="all that is known, as JSON")
    trace.set_defaults(run=_trace, fail=trace.error)


def _add_configurations(commands: Commands) -> None:
    """Adds what there is to ask about configurations."""
    check = commands.add_parser("check-config", help="exit 0, or say what is wrong and exit 1")
    check.add_argument("file", type=Path, metavar="FILE")
    check.set_defaults(run=_check_config)

    move = commands.add_parser("move-vip", help="the next configuration on a VIP's way to another shard, as YAML")
    move.add_argument("--config", required=True, type=Path, metavar="FILE", help="what all Maglevs serve now")
    move.add_argument("vip", metavar="VIP", help="the name of one of an address's VIPs; they move together")
    move.add_argument("shard", metavar="SHARD", help="where it moves")
    move.set_defaults(run=_move_vip)

    differ = commands.add_parser("diff-config", help="what changes, in words: exit 0 nothing, 1 something, 2 trouble")
    differ.add_argument("old", type=Path, metavar="OLD")
    differ.add_argument("new", type=Path, metavar="NEW")
    differ.add_argument("--json", action="store_true", help="every change as a JSON object, with its old and new value")
    differ.set_defaults(run=_diff_config, trouble=2)


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IP address") from None


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return read


def _find_name(options: argparse.Namespace) -> str:
    """Returns which Maglev of the configuration this machine is."""
    from . import config as configuration
    from .engine import machine

    config = configuration.load(options.config)
    return machine.find_self({own: maglev.name for maglev in config.maglevs for own in maglev.addresses}, "Maglev")


def _control(options: argparse.Namespace, name: str) -> Path:
    if options.control:
        return Path(options.control)
    RUN_DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    return RUN_DIRECTORY / f"{name}.sock"


def _forwarder(options: argparse.Namespace) -> None:
    from .forwarder import ForwarderDaemon

    name = options.maglev or _find_name(options)
    ForwarderDaemon(options.config, name).run(_control(options, name))


def _controller(options: argparse.Namespace) -> None:
    from . import controller

    def locate() -> tuple[Path, str]:
        name = options.maglev or _find_name(options)
        return _control(options, name), name

    controller.run(locate)


def _endpoint(options: argparse.Namespace) -> None:
    from .endpoint import EndpointDaemon

    control = options.control or _control(options, f"endpoint-{options.address or 'self'}")
    EndpointDaemon(options.config, options.address).run(Path(control), options.decapsulation)


def _nameserver(options: argparse.Namespace) -> None:
    from . import nameserver

    nameserver.run(options.config, options.address, _control(options, "nameserver"))


def _nursery(options: argparse.Namespace) -> None:
    from . import nursery

    nursery.run(options.socket, options.also)


def _replay(options: argparse.Namespace) -> None:
    from . import config as configuration
    from . import replay

    down, files = _addresses_and_files(options.down)
    captures = [*files, *options.captures]
    if len(captures) != 2 or (files and options.captures):
        options.fail(f"expected IN.pcap and OUT.pcap side by side, found {' '.join(captures) or 'neither'}")
    source, target = map(Path, captures)
    replay.run(configuration.load(options.config), options.maglev, down, source, target, options.engine)


def _addresses_and_files(words: list[str]) -> tuple[list[Address], list[str]]:
    """Parts the addresses after --down from the files that follow them, for argparse cannot tell where a list ends."""
    addresses: list[Address] = []
    files: list[str] = []
    for word in words:
        try:
            addresses.append(ip_address(word))
        except ValueError:
            files.append(word)
    return addresses, files


def _trace(options: argparse.Namespace) -> None:
    from . import tracer

    if options.fragmented and options.protocol != "udp":
        options.fail("--fragmented needs --protocol udp: TCP does not send packets too large for the link")
    tracer.run(
        options.address, options.port, options.protocol, options.source_port, options.count, options.fragmented,
        options.json,
    )  # fmt: skip


def _check_config(options: argparse.Namespace) -> None:
    from . import config as configuration

    config = configuration.load(options.file)
    print(f"{options.file}: {len(config.vips)} VIPs, {len(config.pools)} pools, {len(config.maglevs)} Maglevs: sound")


def _move_vip(options: argparse.Namespace) -> None:
    import yaml

    from . import config as configuration
    from . import document, moving

    config = configuration.load(options.config)
    said: Any = document.read(options.config.read_text("utf-8"), str(options.config), [])
    step = moving.next_step(said, config, options.vip, options.shard)
    if step is None:
        print(f"{options.vip} is shard {options.shard}'s alone: nothing is left to do", file=sys.stderr)
        return
    print(yaml.safe_dump(step.document, sort_keys=False), end="")
    print(f"{step.what}; before the next step wait until {step.until}", file=sys.stderr)


def _diff_config(options: argparse.Namespace) -> int:
    from . import config as configuration
    from .config_diff import diff, in_words

    changes = diff(*configuration.load_all([options.old, options.new]))
    if options.json:
        print(json.dumps([change.document() for change in changes], indent=2))
    elif changes:
        print("\n".join(in_words(changes)))
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
