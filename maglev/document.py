"""YAML text becomes plain values: dicts with text as keys, lists, text, numbers, booleans, None.

A config file needs a small part of YAML. What it does not need is refused here, because it is either a trap (a key
that stands twice silently loses its first value) or a weapon (aliases let ten lines unfold into gigabytes). Pure: it
reads text, not files.
"""

from __future__ import annotations

from typing import Any

import yaml

from maglev.errors import ConfigError, Problem

DEEPEST = 20  # levels of nesting; a configuration has 5, and the reader below is recursive
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times faster
_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = {_TAG + kind for kind in ("str", "timestamp", "merge", "value")}
_TRUE = {"yes", "true", "on"}


def read(text: str, file: str, problems: list[Problem]) -> object:
    """Returns the value of the one document in `text`; keys that stand twice are added to `problems`.

    Raises ConfigError with all problems so far where nothing can be read at all.
    """
    try:
        return _Reader(text, file, problems).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = _place(mark) if mark else "document"
        broken = Problem(file, where, error.problem or "this", "YAML, such as `key: value` or `- item`")
    except (yaml.YAMLError, UnicodeError) as error:
        broken = Problem(file, "document", _first_line(error), "YAML in printable characters")
    raise ConfigError([*problems, broken])


class _Reader:
    """Builds values straight from the parser's events, so that nothing is unfolded before it is checked."""

    def __init__(self, text: str, file: str, problems: list[Problem]) -> None:
        self.parser = _LOADER(text)
        self.file = file
        self.problems = problems

    def document(self) -> object:
        self.parser.get_event()  # the stream begins
        if not self.parser.check_event(yaml.DocumentStartEvent):
            raise self._refusal("document", "an empty file", "one YAML document with a configuration")
        self.parser.get_event()
        value = self._value("", 0)
        self.parser.get_event()  # the document ends
        if not self.parser.check_event(yaml.StreamEndEvent):
            place = _place(self.parser.get_event().start_mark)
            raise self._refusal(place, "a second document", "one YAML document in a file")
        return value

    def _value(self, path: str, depth: int) -> object:
        event = self.parser.get_event()
        if isinstance(event, yaml.AliasEvent):
            raise self._refusal(path or "document", f"*{event.anchor}", "values written out: no aliases")
        if depth > DEEPEST:
            raise self._refusal(_place(event.start_mark), "deeper nesting", f"at most {DEEPEST} levels")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if event.tag is not None:
            raise self._refusal(path or "document", event.tag, "values without a tag")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(path, depth)
        return self._mapping(path, depth)

    def _scalar(self, event: Any, path: str) -> object:
        tag = self.parser.resolve(yaml.ScalarNode, event.value, event.implicit) if event.tag is None else event.tag
        convert = _SCALARS.get(tag, str if tag in _TEXT_TAGS else None)
        if convert is None:
            raise self._refusal(path or "document", tag, "values without a tag")
        try:
            return convert(event.value)
        except ValueError:
            return str(event.value)  # octal 010, or 1:30 in base 60: whoever wants a number refuses the text

    def _list(self, path: str, depth: int) -> list[object]:
        values: list[object] = []
        while not self.parser.check_event(yaml.SequenceEndEvent):
            values.append(self._value(f"{path}[{len(values)}]", depth + 1))
        self.parser.get_event()
        return values

    def _mapping(self, path: str, depth: int) -> dict[str, object]:
        values: dict[str, object] = {}
        while not self.parser.check_event(yaml.MappingEndEvent):
            key = self._key(path)
            field = f"{path}.{key}" if path else key
            if key in values:
                self.problems.append(Problem(self.file, field, key, "each key once in a mapping"))
            values[key] = self._value(field, depth + 1)
        self.parser.get_event()
        return values

    def _key(self, path: str) -> str:
        event = self.parser.get_event()
        if not isinstance(event, yaml.ScalarEvent):
            raise self._refusal(_place(event.start_mark), "this key", "a text as a key")
        if not event.value or not event.value.isprintable():
            raise self._refusal(_place(event.start_mark), event.value, "printable characters in a key, at least one")
        return str(event.value)

    def _refusal(self, field: str, value: object, allowed: str) -> ConfigError:
        return ConfigError([*self.problems, Problem(self.file, field, value, allowed)])


_SCALARS: dict[str, Any] = {
    _TAG + "null": lambda text: None,
    _TAG + "bool": lambda text: text.lower() in _TRUE,
    _TAG + "int": lambda text: int(text.replace("_", ""), 0),
    _TAG + "float": lambda text: float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan")),
}


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
