"""A naive switch: it has flows and groups, and does what it is told, message by message, or refuses it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from lab.classroom import Case
from lab.sdn.rules import ROUTES, SIZES, Flow, Rules, ToGroup, destined_to


class Switch:
    """Has flows and groups, and does what it is told, message by message."""

    def __init__(self, case: Case, had: Rules) -> None:
        self.case = case
        self.flows = {_place(flow): flow for flow in had.flows}
        self.groups = dict(had.groups)
        self.numbers = dict(had.numbers)

    def differences(self, student: Any, wanted: Rules) -> Any:
        """Returns what the student would have this switch do."""
        return student.changes(frozenset(flow.cookie for flow in self.flows.values()), dict(self.groups), wanted)

    def carried_out(self, todo: Any) -> Iterable[str]:
        """Carries changes out in their order; yields each message, in words, when it has been."""
        for group in todo.new_groups:
            refused = group.number in self.groups
            self.case.expect_that(not refused, f"the switch refuses: it has a group {group.number} already")
            self.groups[group.number] = group
            yield self._done(f"group {group.number} is added")
        for group in todo.changed_groups:
            there = group.number in self.groups
            self.case.expect_that(there, f"the switch refuses: it has no group {group.number} to change")
            self.groups[group.number] = group
            yield self._done(f"group {group.number} is changed")
        for flow in todo.new_flows:
            self._check(flow)
            self.flows[_place(flow)] = flow
            yield self._done(f"a flow of table {flow.table} is added")
        for cookie in todo.old_flows:
            self.flows = {place: flow for place, flow in self.flows.items() if flow.cookie != cookie}
            yield self._done(f"the flow {cookie:#x} is taken away")
        for number in todo.old_groups:
            self.groups.pop(number, None)
            led = [flow for flow in self.flows.values() if number in _groups(flow)]
            self.flows = {place: flow for place, flow in self.flows.items() if flow not in led}  # as OpenFlow has it
            yield self._done(f"group {number} is taken away, and {len(led)} flows with it")

    def _check(self, flow: Flow) -> None:
        """What a flow leads to must be there."""
        missing = [number for number in _groups(flow) if number not in self.groups]
        self.case.expect_that(not missing, f"the switch refuses a flow to group {missing}, which is not there")
        if flow.table == ROUTES and flow.goto == SIZES:
            behind = any(other.table == SIZES and other.match == flow.match for other in self.flows.values())
            self.case.expect_that(behind, "a flow of table 1 came before the one of table 2 to which it leads")

    def _done(self, message: str) -> str:
        self.case.step(message)
        return message

    def serves(self, vip: str) -> bool:
        """Says whether packets to a VIP come to a group that has a bucket."""
        return any(number in self.groups and self.groups[number].buckets for number in led_to(self.flows.values(), vip))


def _place(flow: Flow) -> tuple[Any, ...]:
    """Returns what a switch tells flows apart by: a second of the same takes the place of the first."""
    return flow.table, flow.priority, flow.match


def led_to(flows: Iterable[Flow], vip: str) -> list[int]:
    """Returns the groups to which packets to a VIP are led."""
    match = destined_to(vip)
    led = [flow for flow in flows if flow.table == ROUTES and tuple(flow.match) == match]
    return [number for flow in led for number in _groups(flow)]


def _groups(flow: Flow) -> list[int]:
    return [each.group for each in flow.actions if isinstance(each, ToGroup)]


def chosen(numbers: Mapping[str, int], flow: int) -> str:
    """Returns whose bucket a flow goes to, as Open vSwitch chooses: the one whose number makes the most of the hash."""
    return max(numbers, key=lambda name: _score(numbers[name], flow))


def _score(number: int, flow: int) -> bytes:
    return hashlib.blake2b(f"{number} {flow}".encode(), digest_size=8).digest()
