"""Faults, real ones: what is done to nodes and links, and how it is undone.

A fault has happened when its function returns. It can be used as a context manager, which undoes it at the end:

    with lab.kill("m2"):
        lab.wait_converged()
"""

from .fault import Fault

__all__ = ["Fault"]
