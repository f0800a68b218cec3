"""The servers of a cluster, as a user names them: `localhost`, and others as HOST or USER@HOST; and how ssh goes there.

Mininet goes to servers by IPv4 address, as one user, who has the same name here and there: ssh runs here as that user,
with that user's keys and configuration.
"""

from __future__ import annotations

import pwd
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mininet.examples.cluster import RemoteMixin, findUser

from ..errors import WrongUse
from .placement import HERE

NAME = re.compile(r"(?:(?P<user>[A-Za-z_][\w.-]*)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*)")
MOST = 16
# Never a question that nobody answers, nor a tunnel that is none; and a server that is gone is noticed in 15 s.
ALIVE = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "ExitOnForwardFailure=yes", *ALIVE)


@dataclass(frozen=True)
class Server:
    """A machine that nodes are put on."""

    name: str  # as it was named, without the user; `localhost` for this one
    address: str = "127.0.0.1"
    user: str = "root"
    ssh_config: str = ""  # a file that ssh reads instead of the user's; "" for none

    @property
    def is_here(self) -> bool:
        """Says whether it is the machine that builds the network."""
        return self.name == HERE

    @property
    def destination(self) -> str:
        """Returns what ssh is told."""
        return f"{self.user}@{self.address}"

    @property
    def options(self) -> list[str]:
        """Returns the options of every ssh."""
        return [*OPTIONS, *(["-F", self.ssh_config] if self.ssh_config else [])]

    def ssh(self, *options: str) -> list[str]:
        """Returns how a command there begins."""
        return ["sudo", "-E", "-u", self.user, "ssh", *self.options, *options, self.destination]


def parse(names: Sequence[str] | str, ssh_config: Path | str | None = None) -> tuple[Server, ...]:
    """Returns the servers that are named, separated by commas or one by one; WrongUse for what is no server's name."""
    each = [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]
    config = _readable(ssh_config) if ssh_config else ""
    user = _user(each)
    servers = tuple(_server(name, user, config) for name in each)
    if not 1 <= len(servers) <= MOST:
        raise WrongUse(f"a cluster of {len(servers)} servers is not allowed; allowed: 1 to {MOST}")
    addresses = [server.address for server in servers]
    if twice := next((server.name for server in servers if addresses.count(server.address) > 1), ""):
        raise WrongUse(f"the cluster names {twice} twice; allowed: each server once")
    return servers


def _readable(file: Path | str) -> str:
    try:
        with open(file, encoding="utf-8"):
            return str(Path(file).absolute())
    except OSError as error:
        raise WrongUse(f"ssh's configuration {file} cannot be read: {error.strerror}") from None


def _user(names: Sequence[str]) -> str:
    """Returns as whom ssh goes to all servers: who is named, or else who is logged in here."""
    users = {name.partition("@")[0] for name in names if "@" in name}
    if len(users) > 1:
        raise WrongUse(f"users {', '.join(sorted(users))} are not allowed; allowed: one, of the same name everywhere")
    return users.pop() if users else str(findUser())


def _server(text: str, user: str, config: str) -> Server:
    found = NAME.fullmatch(text)
    if not found:
        raise WrongUse(f"{text!r} is no server's name; allowed: localhost, HOST or USER@HOST, separated by commas")
    host = found["host"]
    address = RemoteMixin.findServerIP(host)
    if not address:
        raise WrongUse(f"there is no IPv4 address of {host!r}: name a host that this machine's resolver knows")
    if host == HERE or _is_ours(address):
        return Server(HERE, user=user, ssh_config=config)
    try:
        pwd.getpwnam(user)
    except KeyError:
        raise WrongUse(
            f"there is no user {user!r} on this machine: name one who has the same name here and on {host}"
        ) from None
    return Server(host, address, user, config)


def _is_ours(address: str) -> bool:
    """Says whether this machine has an address: only then a socket may have it as well."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        try:
            tried.bind((address, 0))
        except OSError:
            return False
    return True
