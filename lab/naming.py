"""Machines that find services by name: a name server, and clients that ask it.

The name server is `python -m maglev nameserver`, a fork of the lab's nursery like the Maglevs' daemons. Clients use the
resolver of their C library, as browsers and curl do, or `dig`.

Only the standard library, Mininet and YAML, as all nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .nodes import Client, LabNode, write_config

NAMES = "names.yaml"
RESOLVER_FILES = {
    "/etc/resolv.conf": "nameserver {server}\nsearch {zone}\noptions timeout:1 attempts:3\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",  # past what the machine may ask first, such as systemd-resolved
}


class NameServer(LabNode):
    """Answers DNS on all its addresses; `names` is its configuration (`maglev.name_config`)."""

    role = "nameserver"

    def config(self, names: Mapping[str, Any] | None = None, **params: Any) -> Any:
        self.control = self.directory / "control.sock"
        self.names_file = self.directory / NAMES
        write_config(self.names_file, names or {})
        return super().config(**params)

    def start_daemons(self) -> None:
        options = ["--config", str(self.names_file), "--control", str(self.control)]
        for address in self.addresses.values():
            options += ["--address", address]
        self.start_fork("nameserver", ["nameserver", *options])


class NamedClient(Client):
    """A client whose resolver asks the name server at an address, for names that end in `zone` or leave it out."""

    def config(self, nameserver: str = "", zone: str = "", **params: Any) -> Any:
        for file, content in RESOLVER_FILES.items():
            own = self.directory / Path(file).name
            own.write_text(content.format(server=nameserver, zone=zone), encoding="utf-8")
            self.run("mount", "--bind", str(own), file)  # which this node alone sees
        return super().config(**params)
