"""Faults of every kind at once: the lab says what must follow, and nothing is left of them when they are undone."""

from __future__ import annotations

import contextlib
import re

import pytest
from wires import VIP

from lab.waiting import wait_until

pytestmark = pytest.mark.topology("rack", maglevs=3, endpoints=4)

TIMEOUT_S = 20.0
# Counters of the kernel, and devices that daemons make anew when they start, with other addresses.
VOLATILE = ("conntrack_count", "min_adv_mss", "random", "neigh.default.gc", "nf_log", "vip-probes", "maglev0")


def traces(lab):
    """All that a fault could leave behind: rules, queueing, links, addresses, routes, kernel parameters, processes."""
    found = {}
    for node in lab.net.hosts:
        commands = {
            "rules": "nft -s list ruleset",
            "queueing": "tc qdisc show; for i in /sys/class/net/*; do tc filter show dev ${i##*/} ingress; done",
            "links": "ip -br link",
            "addresses": "ip -br address",
            "routes": "ip route show table all | sort; ip -6 route show table all | sort",
            "parameters": "sysctl -a 2>/dev/null | grep ^net",
        }
        for what, command in commands.items():
            lines = lab.run(node.name, command).stdout.splitlines()
            found[node.name, what] = [line.strip() for line in lines if not any(word in line for word in VOLATILE)]
        found[node.name, "daemons"] = sorted(node.daemons)
    names = [process.what for process in lab._running_site.processes()]
    return found | {("lab", "processes"): sorted(set(names)), ("lab", "number"): len(names)}


def _routes_to_come(found):
    """Which addresses of links' own the kernel has no route for yet: it makes these when it finds the time."""
    return ", ".join(
        f"{own} of {node}"
        for (node, what), lines in found.items()
        if what == "addresses"
        for own in re.findall(r"(fe80::[0-9a-f:]+)/", "\n".join(lines))
        if not any(line.startswith(f"local {own} ") for line in found[node, "routes"])
    )


def differences(before, after):
    return {
        place: [line for line in was if line not in after[place]] + [line for line in after[place] if line not in was]
        if isinstance(was, list)
        else (was, after[place])
        for place, was in before.items()
        if after[place] != was
    }


# What is left


GROUPS = {
    "frozen, dark, flapping": (
        lambda lab: lab.freeze("m1", "all"),
        lambda lab: lab.power_off("s4"),
        lambda lab: lab.flap("r1-s1", 0.2),
        lambda lab: lab.restart("m2"),
    ),
    "killed, crashing, bad": (
        lambda lab: lab.kill("m1"),
        lambda lab: lab.crash_loop("m3", 0.3),
        lambda lab: lab.flap("s3", 0.2),
        lambda lab: lab.impair("r1-s2", delay_ms=3, jitter_ms=2, loss=2),
    ),
    "cut in every way": (
        lambda lab: lab.one_way("r1-m1", dead_towards="m1"),
        lambda lab: lab.impair("r1-m2", loss=100),
        lambda lab: lab.link_down("r1-s1"),
        lambda lab: lab.drain("s2"),
    ),
    "hung, drained, forgotten": (
        lambda lab: lab.freeze("m1", "packets"),
        lambda lab: lab.drain("m2"),
        lambda lab: lab.remove_next_hop("r1", "m1"),
        lambda lab: lab.slow_checks(2),
    ),
}


@pytest.fixture
def untouched(lab):
    """Compares what there is of the lab after a test with what there was before it."""
    wait_until(lambda: _routes_to_come(traces(lab)), TIMEOUT_S, "a route for each address of a link's own")
    before = traces(lab)
    yield
    lab.restore()
    found: dict[object, object] = {}

    def missing():
        found.clear()
        found.update(differences(before, traces(lab)))
        return str(found) if found else ""

    wait_until(missing, TIMEOUT_S, "the lab as it was")


@pytest.mark.parametrize("group", GROUPS)
def test_faults_at_once_are_noticed_and_leave_nothing_behind(lab, untouched, group):
    before = len(lab.timeline.events)
    with contextlib.ExitStack() as faults:
        for do in GROUPS[group]:
            faults.enter_context(do(lab))
        lab.wait_converged()
        done = lab.run("c2", f"curl -s --max-time 5 --retry 3 --retry-all-errors http://{VIP}/")
        assert done.stdout.startswith("s"), "nobody serves, though a Maglev and an endpoint are left"
    lab.wait_converged()
    kinds = [event.kind for event in lab.timeline.events[before:]]
    assert kinds.count("fault") == kinds.count("undone") == len(GROUPS[group])


def test_restore_undoes_what_nobody_else_has(lab, untouched):
    lab.kill("m1")
    lab.flap("s3", 0.2)
    lab.freeze("m2")
    lab.schedule([(0.0, lambda lab: lab.kill("s1")), (0.05, lambda lab: lab.link_down("r1-s2"))]).wait(TIMEOUT_S)
    assert len(lab.faults) == 5
