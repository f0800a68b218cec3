"""How a link is made bad: by the kernel's netem where it has one, by a process on the link elsewhere."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from ..errors import LabError
from ..nodes import LabNode, project_python
from . import shim
from .impairment import Impairment

# Incoming packets meet no queueing discipline: they are led through a device (ifb) that has one.
NETEM_TRIAL = (
    "ip link add probe0 type veth peer name probe1 && tc qdisc add dev probe0 root netem delay 1ms && "
    "ip link add probe2 type ifb && tc qdisc add dev probe0 ingress && "
    "tc filter add dev probe0 parent ffff: matchall action mirred egress redirect dev probe2"
)


@cache
def means() -> str:
    """Returns what makes links bad on this machine, netem or shim; tried once, in a namespace of its own."""
    tried = subprocess.run(["unshare", "--net", "sh", "-c", NETEM_TRIAL], capture_output=True, check=False)
    return "netem" if tried.returncode == 0 else "shim"


def load_rules(node: LabNode, rules: str) -> None:
    """Loads nftables rules of the family netdev; LabError, in words, where the kernel cannot filter what leaves."""
    try:
        node.run("nft", "-f", "-", text=rules)
    except LabError as error:
        if "hook egress" not in rules:
            raise
        raise LabError(f"{error}; filtering what leaves an interface needs Linux 5.16 and nftables 1.0.1") from None


class BadLink:
    """One end of a link, and what is wrong with each direction as seen from there."""

    def __init__(self, node: LabNode, interface: str, directions: Mapping[str, Impairment], seed: int) -> None:
        self._node, self._interface, self._directions, self._seed = node, interface, directions, seed
        self._shim: subprocess.Popen[bytes] | None = None

    def begin_shim(self) -> None:
        """Starts the process, and diverts frames to it; returns when they pass it."""
        options = [word for way, wrong in self._directions.items() for word in (way, json.dumps(asdict(wrong)))]
        command = [project_python(), "-m", "lab.faults.shim", self._interface, str(self._seed), *options]
        self._shim = self._node.start_piped("shim", command)
        try:
            assert self._shim.stdout is not None
            if self._shim.stdout.readline() != b"ready\n":
                raise LabError(f"{self._node.name}'s {self._interface} cannot be impaired: {self._last_words()}")
            index = int(self._node.run("cat", f"/sys/class/net/{self._interface}/ifindex").stdout)
            load_rules(self._node, shim.diversion(self._interface, index, list(self._directions)))
        except BaseException:
            self._end_process()
            raise

    def end_shim(self) -> None:
        """Lets frames pass as before, and ends the process; what was on its way is lost, as with netem."""
        self._node.run("nft", "delete", "table", "netdev", shim.table_of(self._interface))
        self._end_process()

    def _end_process(self) -> None:
        process, self._shim = self._shim, None
        if process is not None:
            process.kill()  # it has nothing to save: its devices go with it
            process.communicate()

    def _last_words(self) -> str:
        log = self._node.directory / "shim.log"
        return log.read_text(errors="replace").strip().rpartition("\n")[2] or "it said nothing"

    @property
    def _device(self) -> str:
        return f"ifb-{self._interface}"[:15]

    def begin_netem(self) -> None:
        """Adds netem to the interface, and to a device through which what comes in is led."""
        for command in netem_commands(self._interface, self._device, self._directions):
            self._node.run(*command)

    def end_netem(self) -> None:
        """Takes it all away again."""
        if shim.OUT in self._directions:
            self._node.run("tc", "qdisc", "del", "dev", self._interface, "root")
        if shim.IN in self._directions:
            self._node.run("tc", "qdisc", "del", "dev", self._interface, "ingress")
            self._node.run("ip", "link", "del", self._device)


def netem_commands(interface: str, device: str, directions: Mapping[str, Impairment]) -> list[list[str]]:
    """Returns the commands that make an interface bad by netem: what goes out, and by an ifb device what comes in."""
    commands: list[Any] = []
    if shim.OUT in directions:
        commands.append(f"tc qdisc add dev {interface} root netem".split() + directions[shim.OUT].netem())
    if shim.IN in directions:
        commands += [
            f"ip link add {device} type ifb".split(),
            f"ip link set {device} up".split(),
            f"tc qdisc add dev {device} root netem".split() + directions[shim.IN].netem(),
            f"tc qdisc add dev {interface} ingress".split(),
            f"tc filter add dev {interface} parent ffff: matchall action mirred egress redirect dev {device}".split(),
        ]
    return commands
