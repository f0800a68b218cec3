"""Sorts addresses as texts, in which 10 comes before 9.

criterion: the_fewest_commands
says: expected the commands
"""

from maglev.announcements import wanted
from maglev.controller import run
from maglev.health import step


def commands(announced, needed):
    return (
        *(f"withdraw route {each} next-hop self" for each in sorted(map(str, announced - needed))),
        *(f"announce route {each} next-hop self" for each in sorted(map(str, needed - announced))),
    )
