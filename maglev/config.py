"""The config manager's reader (Maglev §2.2): a YAML document becomes a `Config`, or a list of all that is wrong.

A configuration is validated whole before anything changes: whoever holds a `Config` from here knows that every name
in it is known, every pool flattens and every address can be used. `Config` has no order to depend on: its methods
sort. Pure, but for `load` and `load_all`, which read files.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from maglev import document
from maglev.config_fields import A_NAME, Name
from maglev.config_objects import (
    Config,
    ConnectionTable,
    Endpoint,
    EndpointOptions,
    ForwarderOptions,
    Fragments,
    HealthCheck,
    MaglevMachine,
    Member,
    Metrics,
    Pool,
    QuicCid,
    Vip,
)
from maglev.config_prefixes import PrefixGroup
from maglev.config_rules import RULES, Draft
from maglev.errors import ConfigError, Problem
from maglev.refusals import Inner, keys_of, problems_of, shown

__all__ = [
    "Config",
    "ConnectionTable",
    "Endpoint",
    "EndpointOptions",
    "ForwarderOptions",
    "HealthCheck",
    "MaglevMachine",
    "Member",
    "Metrics",
    "Pool",
    "QuicCid",
    "Vip",
    "load",
    "load_all",
    "parse",
]


def load(path: str | Path) -> Config:
    """Returns the configuration in a file; ConfigError says everything that is wrong with it."""
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        problem = Problem(str(path), "file", error.strerror, "a file that can be read")
    except UnicodeDecodeError as error:
        problem = Problem(str(path), f"byte {error.start}", error.object[error.start : error.end], "text in UTF-8")
    except ValueError as error:
        problem = Problem(repr(path), "file", str(error), "the path of a file")
    else:
        return parse(text, str(path))
    raise ConfigError([problem])


def load_all(paths: Iterable[str | Path]) -> list[Config]:
    """Returns the configurations in several files; ConfigError says everything that is wrong with any of them."""
    configs: list[Config] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            configs.append(load(path))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return configs


def parse(text: str, file: str = "<config>") -> Config:
    """Returns the configuration in a text; `file` names it in the errors. Raises ConfigError with all problems."""
    problems: list[Problem] = []
    outline = _outline(document.read(text, file, problems), file, problems)
    reader = _Reader(file, problems, outline.shard)
    draft = reader.draft(outline)
    problems += [Problem(file, *finding) for rule in RULES for finding in rule(draft)]
    if problems:
        raise ConfigError(problems)
    return Config(
        shard=outline.shard,
        maglevs=tuple(draft.maglevs.values()),
        pools=draft.pools,
        prefix_groups=draft.prefix_groups,
        vips=tuple(draft.vips.values()),
        forwarder=outline.forwarder,
        endpoint=outline.endpoint,
        metrics=outline.metrics,
    )


class _Outline(BaseModel):
    """The document's top level, its lists not yet looked into: one bad VIP must not hide what else is wrong."""

    model_config = ConfigDict(extra="forbid")

    shard: Name = Field(default="default", description=A_NAME)
    maglevs: list[Any] = Field(default=[], description="a list of Maglevs, such as [{name: m1, address: 10.1.1.2}]")
    pools: dict[str, Any] = Field(default={}, description="a mapping from names to pools")
    prefix_groups: dict[str, Any] = Field(default={}, description="a mapping from names to lists of prefixes")
    vips: list[Any] = Field(default=[], description="a list of VIPs")
    forwarder: ForwarderOptions = Field(default=ForwarderOptions(), description="a mapping with forwarder options")
    endpoint: EndpointOptions = Field(default=EndpointOptions(), description="a mapping with endpoint options")
    metrics: Metrics = Field(default=Metrics(), description="where metrics are served, such as {port: 9400}")


def _outline(value: object, file: str, problems: list[Problem]) -> _Outline:
    """Returns the top level, with the default wherever a key was refused."""
    if not isinstance(value, dict):
        raise ConfigError([*problems, Problem(file, "document", shown(value), keys_of(_Outline))])
    try:
        return _Outline.model_validate(value)
    except ValidationError as error:
        problems += problems_of(_Outline, error, _INNER, file, "")
        refused = {str(each["loc"][0]) for each in error.errors()}
        return _Outline.model_validate({key: item for key, item in value.items() if key not in refused})


_Model = TypeVar("_Model", bound=BaseModel)


class _Reader:
    """Validates object by object, and remembers what was wrong."""

    def __init__(self, file: str, problems: list[Problem], shard: str) -> None:
        self.file = file
        self.problems = problems
        self.shard = shard

    def draft(self, outline: _Outline) -> Draft:
        refused_maglevs = any(problem.field == "maglevs" for problem in self.problems)
        maglevs = self._sound(MaglevMachine, self._sharded("maglevs", outline.maglevs))
        vips = self._sound(Vip, self._sharded("vips", outline.vips))
        pools = self._sound(Pool, ((f"pools.{name}", pool) for name, pool in outline.pools.items()))
        listed = ((f"prefix_groups.{name}", group) for name, group in outline.prefix_groups.items())
        groups = self._sound(PrefixGroup, listed)
        return Draft(
            maglevs=maglevs,
            pools={path.removeprefix("pools."): pool for path, pool in pools.items()},
            vips=vips,
            pool_names=frozenset(outline.pools),
            prefix_groups={path.removeprefix("prefix_groups."): group.root for path, group in groups.items()},
            group_names=frozenset(outline.prefix_groups),
            all_maglevs=len(maglevs) == len(outline.maglevs) and not refused_maglevs,
            forwarder=outline.forwarder,
        )

    def _sharded(self, key: str, items: list[Any]) -> Iterable[tuple[str, object]]:
        for i, item in enumerate(items):
            yield f"{key}[{i}]", {"shard": self.shard, **item} if isinstance(item, dict) else item

    def _sound(self, model: type[_Model], items: Iterable[tuple[str, object]]) -> dict[str, _Model]:
        found = {}
        for path, item in items:
            try:
                found[path] = model.model_validate(item)
            except ValidationError as error:
                self.problems += problems_of(model, error, _INNER, self.file, path)
        return found


_INNER: Inner = {
    "endpoints": Endpoint,
    "health_check": HealthCheck,
    "forwarder": ForwarderOptions,
    "endpoint": EndpointOptions,
    "connection_table": ConnectionTable,
    "fragments": Fragments,
    "metrics": Metrics,
    "quic_cid": QuicCid,
}
