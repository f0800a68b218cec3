"""Wirings: one Mininet `Topo` a file, pure data, each drawn in its docstring."""
