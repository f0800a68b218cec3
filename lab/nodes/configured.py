"""Nodes that read the configuration that a lab's Maglevs and endpoints share, and run `python -m maglev`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .. import nginx, tcp_md5
from ..nursery import SERVERS
from .bgp import HOLD_TIME_S, MAGLEV_AS
from .node import LabNode, project_python

CONTROL = "control.sock"  # in the directory of whoever answers on one
CONFIG = "maglev.yaml"  # the configuration that all Maglevs and endpoints of a lab share


class ConfiguredNode(LabNode):
    """A node that reads the configuration that all Maglevs and endpoints share."""

    def config(self, cluster: Mapping[str, Any] | None = None, **params: Any) -> Any:
        """Writes `cluster`, the topology's configuration document, unless the lab has written one already."""
        self.config_file = self.directory.parent / CONFIG
        if self.is_here and not self.config_file.exists():
            write_config(self.config_file, cluster or {})
        self.control = self.site.directory / self.name / CONTROL  # where it is asked
        return super().config(**params)

    def start_maglev(self, command: str, *options: str) -> None:
        """Starts a daemon of `python -m maglev` on this node, as a fork of the lab's nursery."""
        arguments = ["--config", str(self.config_file), "--control", self._file(CONTROL), *options]
        self.start_fork(command, [command, *arguments])


class Maglev(ConfiguredNode):
    """A load balancer: forwarder, and ExaBGP with the controller as its API process.

    With a `bgp_password` it signs what it says to routers, and hears only those that sign with the same (RFC 2385).
    """

    role = "maglev"

    def config(self, bgp_password: str = "", **params: Any) -> Any:
        self.bgp_password = tcp_md5.usable(bgp_password)
        return super().config(**params)

    def start_daemons(self) -> None:
        self.write_file("exabgp.conf", self.exabgp_config())
        self.start_maglev("forwarder", "--maglev", self.name)
        exabgp = str(Path(project_python()).with_name("exabgp"))
        environment = {
            "exabgp_daemon_user": "root",  # it starts the controller, which must reach the control socket
            "exabgp_api_ack": "true",
            "exabgp_api_cli": "false",
            "exabgp_log_destination": "stderr",
            "exabgp_tcp_attempts": "0",
            "RES_OPTIONS": "attempts:0",  # it asks for its machine's name, and waits 5 s where no name server answers
            "exabgp_reactor_speed": "10",  # it looks every 100 ms, not 10, when nothing comes: a lab has many of it
        }
        self.start("exabgp", [exabgp, "server", str(self.directory / "exabgp.conf")], **environment)

    def exabgp_config(self) -> str:
        """Returns ExaBGP's configuration: the controller, and for each router at the other end of a link a session
        over each family."""
        command = [project_python(), "-m", "maglev", "controller", "--maglev", self.name]
        command += ["--config", str(self.config_file), "--control", self._file(CONTROL)]
        password = f"md5-password '{self.bgp_password}';\n    " if self.bgp_password else ""
        sessions = "".join(
            f"""neighbor {theirs} {{
    router-id {self.address};
    local-address {self.addresses_of(own)[version]};
    local-as {MAGLEV_AS};
    peer-as {other.node.asn};
    hold-time {HOLD_TIME_S};
    {password}outgoing-ttl 255;
    incoming-ttl 255;
    family {{ ipv{version} unicast; }}
    api {{ processes [ controller ]; }}
}}
"""
            for own, other in self.neighbours("router")
            for version, theirs in self.addresses_of(other).items()
        )
        return f"process controller {{\n    run {' '.join(command)};\n    encoder text;\n}}\n{sessions}"


class Endpoint(ConfiguredNode):
    """A service endpoint: takes packets out of GRE, and runs real servers on the VIP.

    `servers` is "python", or "nginx": then that serves HTTP, and asks Python's server for what it has no answer to.
    """

    role = "endpoint"
    DECAPSULATION = "maglev.engine.decapsulation"

    def config(self, servers: str = "python", **params: Any) -> Any:
        self.has_nginx = servers == "nginx"
        return super().config(**params)

    def start_daemons(self) -> None:
        is_students = f"{self.DECAPSULATION}=" in self.site.variables.get("MAGLEV_STUDENT", "")  # see maglev.swap
        way = ["--decapsulation", "tun"] if is_students else []  # a kernel's devices would leave them no packet
        self.start_maglev("endpoint", *way)
        behind = ["--http-port", str(nginx.BEHIND_PORT)] if self.has_nginx else []
        self.start_fork("servers", [SERVERS, "--name", self.name, *behind])
        if self.has_nginx:
            file = self.write_file("nginx.conf", nginx.configuration(self.name, self.directory))
            self.start("nginx", ["nginx", "-p", str(self.directory), "-c", str(file), "-e", "stderr"])


def write_config(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a configuration in one step: whoever reads it finds the old one or the new one."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(yaml.safe_dump(dict(document), sort_keys=False), encoding="utf-8")
    unfinished.replace(path)
