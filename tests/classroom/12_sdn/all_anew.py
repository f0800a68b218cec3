"""Sends everything again, whatever the switch has.

criterion: nothing_but_what_differs
says: expected what is to be done: {}, got
"""

from lab.sdn.rules import Changes, rules

__all__ = ["changes", "rules"]


def changes(cookies, groups, wanted):
    flows = {flow.cookie: flow for flow in wanted.flows}
    new = tuple(group for number, group in sorted(wanted.groups.items()) if number not in groups)
    changed = tuple(group for number, group in sorted(wanted.groups.items()) if number in groups)
    ordered = tuple(sorted(flows.values(), key=lambda flow: -flow.table))
    return Changes(new, changed, ordered, tuple(cookies - flows.keys()), tuple(groups.keys() - wanted.groups.keys()))
