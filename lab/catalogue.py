"""Topologies: which there are, what each may be told, and how one is made; by its name, or from a file of one's own.

A topology is known by the file in `topologies/` that it stands in, one's own by the path of its file, which ends with
`.py`. Its parameters are those of its method `build`.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mininet.topo import Topo

from .errors import WrongUse
from .nodes import ROOT, LabNode
from .own_files import load_own

KINDS = {int: "a whole number", float: "a number", bool: "on or off"}  # of parameters; all else is text
SWITCHES = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
Parameters = Mapping[str, inspect.Parameter]


def topology_names() -> list[str]:
    """Returns the topologies that are shipped."""
    return sorted(path.stem for path in (ROOT / "topologies").glob("[a-z]*.py"))


def name_of(topology: str) -> str:
    """Returns what a topology is called, though it was named by its file."""
    return Path(topology).stem if _is_file(topology) else topology


def load_topology(name: str, options: Mapping[str, Any]) -> Topo:
    """Returns a topology, by its name or its file; WrongUse if it is not there, or does not take these options."""
    make = _found(name)
    allowed = _parameters(make)
    for option in options:
        if option not in allowed:
            raise WrongUse(f"topology {name_of(name)} takes no {option!r}; it takes {', '.join(allowed) or 'nothing'}")
    try:
        made = make(**options)
    except ValueError as error:
        raise WrongUse(f"topology {name_of(name)}: {error}") from None
    except TypeError as error:
        raise WrongUse(f"topology {name_of(name)} cannot be wired with these options: {error}") from error
    _check_nodes(name_of(name), made)
    return made


def parameters(name: str) -> Parameters:
    """Returns what a topology may be told; WrongUse for one that is not there."""
    return _parameters(_found(name))


def chosen(name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Returns a topology's options from what was typed, each as its parameter wants it; WrongUse for what is none."""
    make = _found(name)
    kinds = typing.get_type_hints(make.build)
    return {option: _converted(name_of(name), option, kinds.get(option, str), text) for option, text in texts.items()}


def _converted(topology: str, option: str, kind: type, text: str) -> Any:
    try:
        return SWITCHES[text] if kind is bool else kind(text) if kind in KINDS else text
    except (ValueError, KeyError):
        raise WrongUse(f"topology {topology}: {option}={text!r} is not allowed; allowed: {KINDS[kind]}") from None


def _parameters(make: Any) -> Parameters:
    return dict(list(inspect.signature(make.build).parameters.items())[1:])  # without self


def _found(name: str) -> Any:
    """Returns the class of a topology."""
    if _is_file(name):
        return _own(Path(name))
    if name not in (there := topology_names()):
        raise WrongUse(
            f"there is no topology {name!r}; there are {', '.join(there)}, or a file's name that ends in .py"
        )
    return importlib.import_module(f"topologies.{name}").topos[name]


def _is_file(name: str) -> bool:
    return name.endswith(".py")


def _own(path: Path) -> Callable[..., Topo]:
    """Returns the class in a file of one's own: the one that `topos` has under the file's name, or its only one."""
    if not path.is_file():
        raise WrongUse(f"there is no file {path}, which was named as a topology")
    topos = getattr(load_own(path, "topology"), "topos", None)
    if not isinstance(topos, dict) or not (path.stem in topos or len(topos) == 1):
        raise WrongUse(f"{path} has no topology; it has one if it says: topos = {{{path.stem!r}: …}}")
    make: Callable[..., Topo] = topos.get(path.stem) or next(iter(topos.values()))
    return make


def _check_nodes(name: str, made: Topo) -> None:
    """Raises WrongUse for what no lab could run."""
    if not isinstance(getattr(made, "cluster", None), dict):
        raise WrongUse(f"topology {name} has no `cluster`, the configuration of its Maglevs, or it is no dictionary")
    for node in made.nodes():
        cls = made.nodeInfo(node).get("cls")
        if not (isinstance(cls, type) and issubclass(cls, LabNode)):
            raise WrongUse(f"topology {name}: {node} has no role; say one by addHost({node!r}, cls=…), of lab.nodes")
