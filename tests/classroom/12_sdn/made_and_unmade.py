"""Has a group that changes taken away and made anew.

criterion: no_packet_is_lost_on_the_way
says: the switch refuses: it has a group
"""

from dataclasses import replace

from lab.sdn.rules import changes as given
from lab.sdn.rules import rules

__all__ = ["changes", "rules"]


def changes(cookies, groups, wanted):
    todo = given(cookies, groups, wanted)
    changed = tuple(group.number for group in todo.changed_groups)
    return replace(
        todo, new_groups=todo.new_groups + todo.changed_groups, changed_groups=(), old_groups=todo.old_groups + changed
    )
