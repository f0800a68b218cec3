"""Looks at interfaces' own settings, and not at those for all.

criterion: finds_what_is_wrong
says: expected the troubles: [
"""

from dataclasses import replace

import maglev.direct_return
from maglev.direct_return import Settings


def troubles_of(machine, vips, own):
    return maglev.direct_return.troubles_of(replace(machine, all=Settings()), vips, own)
