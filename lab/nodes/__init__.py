"""The machines of a laboratory: Mininet hosts that bring their own daemons (Mininet's `Node`, one role a class).

A topology says who there is, how they are wired and which addresses they have. What a node runs it finds out
itself: a router speaks BGP to every Maglev that it has a link to, a Maglev to every router. So the same topology
works in a `Lab` and under plain `mn --custom`. Mininet's camelCase is overridden here and nowhere else.

Only the standard library, Mininet and YAML: `mn` runs this with the distribution's own Python. The daemons run with
the project's.
"""

from .bgp import HOLD_TIME_S, MAGLEV_AS, ROUTER_AS
from .configured import CONFIG, CONTROL, ConfiguredNode, Endpoint, Maglev, write_config
from .node import PATH, ROOT, Client, LabNode, nursery_of, project_python
from .router import BFD_INTERVAL_MS, BFD_MULTIPLIER, MOST_PATHS, NFT_FAMILIES, ROUTER_SYSCTLS, Router, Routing
from .switch import Switch

__all__ = [
    "BFD_INTERVAL_MS",
    "BFD_MULTIPLIER",
    "CONFIG",
    "CONTROL",
    "HOLD_TIME_S",
    "MAGLEV_AS",
    "MOST_PATHS",
    "NFT_FAMILIES",
    "PATH",
    "ROOT",
    "ROUTER_AS",
    "ROUTER_SYSCTLS",
    "Client",
    "ConfiguredNode",
    "Endpoint",
    "LabNode",
    "Maglev",
    "Router",
    "Routing",
    "Switch",
    "nursery_of",
    "project_python",
    "write_config",
]
