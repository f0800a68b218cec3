"""Topologies' parameters on the command line: `--set NAME=VALUE`, and a help that lists them all."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .errors import WrongUse

Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any parameter of the topology: see below.")
]


class ListsTopologies(TyperCommand):
    """A command whose help ends with the parameters of every topology."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from .catalogue import parameters, topology_names  # Mininet: only who asks for help waits for it

        super().format_epilog(ctx, formatter)
        with formatter.section("Topologies, and their parameters (--set)"):
            formatter.write_dl([(name, _listed(parameters(name))) for name in topology_names()])


def _listed(taken: Mapping[str, inspect.Parameter]) -> str:
    return ", ".join(_shown(each) for each in taken.values())


def _shown(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return parameter.name
    return f"{parameter.name}={'none' if parameter.default == '' else parameter.default}"


def asked(topology: str, numbers: Mapping[str, int | None], settings: Sequence[str] | None) -> dict[str, Any]:
    """Returns a topology's options, from options that have names of their own and from `--set`; WrongUse for a bad one.

    What is not said is left to the topology.
    """
    from .catalogue import chosen

    own = {name: number for name, number in numbers.items() if number is not None}
    texts = assignments(settings or ())
    if twice := sorted(own.keys() & texts):
        raise WrongUse(f"{twice[0]} is said twice: by --{twice[0]} and by --set")
    return own | chosen(topology, texts)


def assignments(texts: Sequence[str]) -> dict[str, str]:
    """Returns names and values; WrongUse for what is no NAME=VALUE, or names the same twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise WrongUse(f"--set {text!r} is not allowed; allowed: NAME=VALUE")
        if name in found:
            raise WrongUse(f"--set {name}= is said twice")
        found[name] = value
    return found
