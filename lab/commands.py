"""The console's commands that are methods of the lab: which there are, and how typed words become their arguments.

Pure. A command is a line of `TABLE`: its name is the method's, its words are the method's arguments, `name=value` its
keywords; numbers, and what else is no text, are told by the method's own annotations. A method that is not there is not
offered, so a line may stand here before its method does.
"""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import WrongUse

FAULTS, TIME, TRAFFIC, LOOK = "Break and mend", "Over time", "Traffic", "Look"
KEYWORD = re.compile(r"([a-z_][a-z0-9_]*)=(.*)", re.DOTALL)
SWITCHES = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


@dataclass(frozen=True)
class Command:
    """A command: `takes` says what each of its words is, so that it can be completed (see `KINDS` in `console`)."""

    name: str
    group: str
    takes: tuple[str, ...] = ()


TABLE = (
    Command("kill", FAULTS, ("mortal", "daemon")),
    Command("freeze", FAULTS, ("server", "daemon")),
    Command("thaw", FAULTS, ("server",)),
    Command("power_off", FAULTS, ("mortal",)),
    Command("revive", FAULTS, ("mortal",)),
    Command("restart", FAULTS, ("server",)),
    Command("drain", FAULTS, ("server",)),
    Command("undrain", FAULTS, ("endpoint",)),
    Command("upgrade", FAULTS, ("maglev",)),
    Command("reload", FAULTS),
    Command("link_down", FAULTS, ("link",)),
    Command("one_way", FAULTS, ("link", "node")),
    Command("impair", FAULTS, ("link", "node")),
    Command("reset_session", FAULTS, ("maglev", "router")),
    Command("remove_next_hop", FAULTS, ("router", "maglev")),
    Command("spray_fragments", FAULTS, ("router",)),
    Command("add_next_hop", FAULTS, ("router", "maglev")),
    Command("slow_checks", FAULTS),
    Command("misconfigure", FAULTS, ("maglev",)),
    Command("restore", FAULTS),
    Command("flap", TIME, ("place",)),
    Command("crash_loop", TIME, ("server",)),
    Command("chaos", TIME),
    Command("move_vip", FAULTS, ("vip",)),
    Command("connections", TRAFFIC, ("number", "vip")),
    Command("http", TRAFFIC, ("vip",)),
    Command("bulk", TRAFFIC, ("vip",)),
    Command("datagrams", TRAFFIC, ("vip",)),
    Command("churn", TRAFFIC, ("vip",)),
    Command("syn_flood", TRAFFIC, ("vip",)),
    Command("fragments", TRAFFIC, ("vip",)),
    Command("flow_mix", TRAFFIC, ("vip",)),
    Command("crafted", TRAFFIC),
    Command("report", LOOK, ("file",)),
)
KEYWORD_KINDS = {
    "vip": "vip", "client": "client", "clients": "client", "router": "router", "maglev": "maglev", "maglevs": "maglev",
    "daemon": "daemon", "towards": "node", "dead_towards": "node", "link": "link",
}  # fmt: skip


def split(text: str) -> list[str]:
    """Returns the words of a line, in which quotes hold blanks together; WrongUse for an open quote."""
    try:
        return shlex.split(text)
    except ValueError:
        raise WrongUse(f"a quote is not closed in: {text}") from None


def bind(name: str, method: Callable[..., Any], words: Sequence[str]) -> inspect.BoundArguments:
    """Returns the arguments that words stand for; WrongUse, with the command's usage, if they do not fit."""
    positional = [word for word in words if not KEYWORD.fullmatch(word)]
    keywords: dict[str, str] = {}
    for word in words:
        if found := KEYWORD.fullmatch(word):
            keywords[found[1]] = found[2]
    signature = inspect.signature(method)
    try:
        bound = signature.bind(*positional, **keywords)
    except TypeError as error:
        raise WrongUse(f"{name}: {error}; usage: {usage(name, method)}") from None
    for parameter, value in bound.arguments.items():
        bound.arguments[parameter] = _converted(signature.parameters[parameter], value)
    return bound


def _converted(parameter: inspect.Parameter, value: Any) -> Any:
    if parameter.kind is parameter.VAR_KEYWORD:
        return {name: _as(str(parameter.annotation), name, text) for name, text in value.items()}
    if parameter.kind is parameter.VAR_POSITIONAL:
        return tuple(_as(str(parameter.annotation), parameter.name, text) for text in value)
    return _as(str(parameter.annotation), parameter.name, value)


def _as(annotation: str, name: str, text: str) -> Any:
    """Returns a word as what an annotation, such as `float` or `Sequence[str]`, asks for; WrongUse if it is no such."""
    if "Sequence[str]" in annotation:
        return text.split(",")
    if "bool" in annotation and text in SWITCHES:
        return SWITCHES[text]
    if "str" in annotation:
        return text
    if "Path" in annotation:
        return Path(text)
    try:
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    except ValueError:
        allowed = "on or off" if "bool" in annotation else "a number"
        raise WrongUse(f"{name}={text!r} is not allowed; allowed: {allowed}") from None


def usage(name: str, method: Callable[..., Any]) -> str:
    """Returns how a command is typed: `kill NAME [DAEMON]`, `chaos [faults=30] …`."""
    return " ".join([name, *map(_shown, inspect.signature(method).parameters.values())])


def _shown(parameter: inspect.Parameter) -> str:
    word = parameter.name.upper()
    if parameter.kind is parameter.VAR_POSITIONAL:
        return f"[{word}…]"
    if parameter.kind is parameter.VAR_KEYWORD:
        return "[NAME=NUMBER…]"
    if parameter.kind is parameter.KEYWORD_ONLY:
        is_given = parameter.default is not parameter.empty
        return f"[{parameter.name}={_default(parameter.default)}]" if is_given else f"{parameter.name}=…"
    return word if parameter.default is parameter.empty else f"[{word}]"


def _default(value: Any) -> str:
    return "…" if value is None or value == () else f"{value:g}" if isinstance(value, float) else str(value)


def keywords(method: Callable[..., Any]) -> Iterator[str]:
    """Yields the keywords that a method takes."""
    for parameter in inspect.signature(method).parameters.values():
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            yield parameter.name


def summary(method: Callable[..., Any]) -> str:
    """Returns the first sentence of a method's docstring."""
    return inspect.cleandoc(method.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
