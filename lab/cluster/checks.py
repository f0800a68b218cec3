"""What each server of a cluster has, and what to do where something is missing; for `maglab doctor`, and before a lab.

Pure judgement of what one ssh to a server has said (`judge`), and that ssh. In a lab the first thing that is missing is
the error; the doctor goes on, and tries a tunnel as well.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import WrongUse
from ..finding import Finding
from ..nodes import ROOT
from . import facts
from .placement import HERE
from .servers import Server

TIMEOUT_S = 40.0
REACHED, MAY_TUN, MAY_SUDO = "maglab reached", "maglab tun", "maglab sudo"
OPENS_TUN = "test -r /dev/net/tun -a -w /dev/net/tun"
TUN = "let {user} open /dev/net/tun: sudo modprobe tun, sudo chmod 666 /dev/net/tun"
PYTHON = str(ROOT / ".venv" / "bin" / "python")
REFUSALS = {  # what ssh or sudo says: what that means, and what to do
    "Permission denied": "no key of {user} is let in: run ssh-copy-id {destination} as {user}, or name another user",
    "Host key verification failed": "its own key is not known here: run ssh {destination} as {user}, and look at it",
    "Too many authentication failures": "it refuses after many keys: name the right one in ssh's configuration",
    "Bad configuration option": "ssh does not understand its configuration ({said})",
}
UNREACHED = "it cannot be reached ({said}): is it up, and does an ssh server run there?"


def ask(server: Server) -> tuple[str, str]:
    """Returns what a server answers, on standard output and on standard error."""
    there = ["sudo", "-n", "env", f"PYTHONPATH={ROOT}", PYTHON, facts.__file__]
    script = f"echo {REACHED}; {OPENS_TUN} && echo {MAY_TUN}; sudo -n true && echo {MAY_SUDO} && {shlex.join(there)}"
    try:
        done = subprocess.run(
            [*server.ssh("-n"), script], capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError as error:
        return "", f"{error.filename} is not installed here: make setup"
    except subprocess.TimeoutExpired:
        return "", f"no answer within {TIMEOUT_S:g} s"
    return done.stdout, done.stderr


def judge(server: Server, out: str, complaints: str, own: Mapping[str, Any]) -> Iterator[Finding]:
    """Yields what follows from a server's answer, next to what this machine has of its own; ends at what lacks most."""
    said = complaints.strip().rpartition("\n")[2].strip()
    if REACHED not in out:
        yield _finding(server, "ssh", False, _refusal(server, complaints, said))
        return
    yield _finding(server, "ssh", True, f"as {server.user}")
    yield _finding(server, "TAP", MAY_TUN in out, "" if MAY_TUN in out else TUN.format(user=server.user))
    if MAY_SUDO not in out:
        yield _finding(server, "sudo", False, f"let {server.user} use sudo there without a password ({said})")
        return
    yield _finding(server, "sudo", True, "without a password")
    try:
        there = json.loads(out.strip().rpartition("\n")[2])
    except ValueError:
        yield _finding(server, "the project", False, f"copy it there, to {ROOT} as here, and run make setup ({said})")
        return
    yield from _of_facts(server, there, own)


def _of_facts(server: Server, there: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[Finding]:
    needed = {
        "Mininet": (there["mininet"], "install Debian's mininet there: make setup"),
        "BIRD": (there["bird"], "install Debian's bird2 there: make setup"),
        "the project": (there["project"] == own["project"], f"copy it there, to {ROOT}: its sources differ from these"),
        "room for a tunnel": (
            not there["tap"],
            "wait until another lab has started there, or remove what one has left: sudo ip link delete tap9",
        ),
    }
    for what, (found, advice) in needed.items():
        yield _finding(server, what, found, "" if found else advice)
    for what, version in there.get("versions", {}).items():
        here = own.get("versions", {}).get(what, "none")
        follows = f"{version}, as here" if version == here else f"{version} there, {here} here: better the same"
        yield Finding(f"{server.name}: {what}", version == here, False, follows)


def _finding(server: Server, what: str, found: bool, follows: str) -> Finding:
    return Finding(f"{server.name}: {what}", found, True, follows)


def _refusal(server: Server, complaints: str, said: str) -> str:
    text = next((text for words, text in REFUSALS.items() if words in complaints), UNREACHED)
    return text.format(user=server.user, destination=server.destination, said=said or "it says nothing")


def between(servers: Sequence[Server]) -> Iterator[Finding]:
    """Yields whether each server may go to each by ssh, where neither is this machine: tunnels do."""
    others = [server for server in servers if not server.is_here]
    for one in others:
        for other in (each for each in others if each is not one):
            command = shlex.join(["ssh", "-n", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", other.destination])
            tried = subprocess.run(
                [*one.ssh("-A", "-n"), f"{command} true"],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            said = tried.stderr.strip().rpartition("\n")[2]
            found = tried.returncode == 0
            advice = f"let {one.user} on {one.name} go to {other.destination} by key ({said})"
            yield Finding(f"{one.name}: ssh to {other.name}", found, True, "" if found else advice)


def examine(servers: Sequence[Server]) -> Iterator[Finding]:
    """Yields what was found on each server that is not this machine."""
    own = facts.gather()
    fit = True
    if any(not server.is_here for server in servers):
        opens = (
            subprocess.run(["sudo", "-n", "-u", servers[0].user, "sh", "-c", OPENS_TUN], check=False).returncode == 0
        )
        yield Finding(f"{HERE}: TAP", opens, True, "" if opens else TUN.format(user=servers[0].user))
    for server in servers:
        for finding in () if server.is_here else judge(server, *ask(server), own):
            fit &= finding.found or not finding.needed
            yield finding
    if fit:
        yield from between(servers)


def insist(servers: Sequence[Server]) -> None:
    """Raises WrongUse, with what to do, for the first thing that is missing."""
    for finding in examine(servers):
        if finding.needed and not finding.found:
            server, _, what = finding.what.partition(": ")
            raise WrongUse(f"no nodes can be put on {server}, {what}: {finding.follows}")
