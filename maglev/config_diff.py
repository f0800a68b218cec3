"""What one configuration has that another has not, in words: what an operator wants to read before and after a change.

The order in which a file lists Maglevs, pools, VIPs or endpoints means nothing, so it makes no difference here. Fields
are found by looking at the objects: one that is added to them later is compared like the others. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import groupby
from typing import Any, NamedTuple

from pydantic import BaseModel

from maglev.config_objects import Config, Pool

MOST_LISTED = 4  # of what an added object lists, in words
WHOLE = ""  # a change's `what` when the subject itself was added or removed


class Kind(StrEnum):
    """What has become of a thing."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class Change(NamedTuple):
    """One difference: `what` of which subject, and its value before and after; None where there was none."""

    subject: str  # "vip www", "pool web", "forwarder"
    what: str  # "pool", "weight of 10.2.1.2", "endpoint 10.2.1.4"
    kind: Kind
    old: object
    new: object

    def document(self) -> dict[str, Any]:
        """Returns the change as plain values, for JSON."""
        return {
            "subject": self.subject,
            "what": self.what,
            "change": self.kind.value,
            "old": _plain(self.old),
            "new": _plain(self.new),
        }


def diff(old: Config, new: Config) -> tuple[Change, ...]:
    """Returns what leads from one configuration to another, in the order of the document; nothing if both say alike."""
    return tuple(change for field in Config.model_fields for change in _section(field, old, new))


def in_words(changes: Iterable[Change]) -> list[str]:
    """Returns changes as phrases, one for each subject, such as `pool web: endpoint 10.2.1.4 added`."""
    return [
        _phrase(subject, list(of_subject)) for subject, of_subject in groupby(changes, lambda change: change.subject)
    ]


def _section(field: str, old: Config, new: Config) -> Iterator[Change]:
    before, after = getattr(old, field), getattr(new, field)
    if isinstance(before, BaseModel):
        yield from _fields(field, "", before, after)
    elif isinstance(before, Mapping | tuple):
        yield from _objects(_singular(field), _by_name(before), _by_name(after))
    elif before != after:
        yield Change("configuration", field, Kind.CHANGED, before, after)


def _objects(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Compares objects that have names of their own, each a subject."""
    for name in _all_keys(old, new):
        subject, before, after = f"{kind} {name}", old.get(name), new.get(name)
        if before is None or after is None:
            yield Change(subject, WHOLE, _kind(before, after), before, after)
        elif isinstance(before, BaseModel):
            yield from _fields(subject, "", before, after)
        else:  # a prefix group is what it lists
            yield from _members(subject, "prefix", _by_name(before), _by_name(after))


def _fields(subject: str, prefix: str, old: BaseModel, new: BaseModel) -> Iterator[Change]:
    for field in type(old).model_fields:
        before, after = getattr(old, field), getattr(new, field)
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            yield from _fields(subject, f"{prefix}{field}.", before, after)
        elif isinstance(old, Pool) and isinstance(before, tuple):  # what a pool lists has no order; a command has one
            yield from _members(subject, _singular(field), _by_name(before), _by_name(after))
        elif before != after:
            whole = isinstance(before, BaseModel) or isinstance(after, BaseModel)
            kind = _kind(before, after) if whole else Kind.CHANGED
            yield Change(subject, f"{prefix}{field}", kind, before, after)


def _members(subject: str, kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Compares what a subject lists: endpoints, or the names of pools."""
    for name in _all_keys(old, new):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            yield Change(subject, f"{kind} {name}", _kind(before, after), before, after)
        elif isinstance(before, BaseModel):
            for change in _fields(subject, "", before, after):
                yield change._replace(what=f"{change.what} of {name}")


def _kind(before: object, after: object) -> Kind:
    return Kind.ADDED if before is None else Kind.REMOVED if after is None else Kind.CHANGED


def _all_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [*old, *(name for name in new if name not in old)]


def _by_name(items: Mapping[str, Any] | Sequence[Any]) -> Mapping[str, Any]:
    return items if isinstance(items, Mapping) else {_name(item): item for item in items}


def _name(item: object) -> str:
    """Returns what tells an object from others of its kind: its name or address, or else all that it says."""
    if not isinstance(item, BaseModel):
        return str(item)
    return str(getattr(item, _first_field(item))) if _is_named(item) else _shown(item)


def _is_named(item: BaseModel) -> bool:
    return _first_field(item) in ("name", "address")


def _first_field(item: BaseModel) -> str:
    return next(iter(type(item).model_fields))


def _singular(field: str) -> str:
    return field.removesuffix("s").replace("_", " ")


def _phrase(subject: str, changes: Sequence[Change]) -> str:
    first = changes[0]
    if first.what != WHOLE:
        return f"{subject}: {', '.join(map(_in_words, changes))}"
    return f"{subject} {first.kind}{_details(first.new)}"


def _in_words(change: Change) -> str:
    if change.kind is Kind.CHANGED:
        return f"{change.what} {_shown(change.old)} -> {_shown(change.new)}"
    return f"{change.what} {change.kind}{_details(change.new)}"


def _details(value: object) -> str:
    """Returns in brackets what an added object says beyond its name and its defaults, or lists."""
    said = _shown(value, MOST_LISTED) if isinstance(value, BaseModel | tuple) else ""
    return f" ({said})" if said else ""


def _fields_said(value: BaseModel) -> str:
    fields = type(value).model_fields
    named = _first_field(value) if _is_named(value) else ""
    return ", ".join(
        f"{field.replace('_', ' ')} {_shown(getattr(value, field), MOST_LISTED)}"
        for field in fields
        if field != named and getattr(value, field) not in (None, fields[field].default)
    )


def _shown(value: object, most: int | None = None) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, BaseModel):
        return _fields_said(value)
    if isinstance(value, tuple):
        more = [f"{len(value[most:])} more"] if most is not None and value[most:] else []
        return " ".join([*map(_name, value[:most]), *more])
    return str(value)


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple | list):
        return list(map(_plain, value))
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
