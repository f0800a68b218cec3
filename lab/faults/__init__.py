"""Faults, real ones: what is done to nodes and links, and how it is undone.

A fault has happened when its function returns. It can be used as a context manager, which undoes it at the end:

    with lab.kill("m2"):
        lab.wait_converged()
"""

from .fault import Fault
from .on_time import Faults
from .registry import CONVERGE_TIMEOUT_S

__all__ = ["CONVERGE_TIMEOUT_S", "Fault", "Faults"]
