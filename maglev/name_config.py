"""The name server's configuration: sites, what names they serve, and when they have no room (Maglev §2.1).

    zone: lab.example
    ttl_s: 5
    hosts: {ns1: [10.3.1.2]}                        # names with fixed addresses: the server's own, say
    sites:
      west: {latitude: 47.4, longitude: 8.5, maglevs: [10.1.1.2, 10.1.2.2], capacity_pps: 1000}
    names:
      www: {vips: {west: [192.0.2.1, 2001:db8::1]}, health_check: {type: http, port: 80, path: /healthz}}
    load: {interval_s: 1, spill_from: 0.7, full_at: 0.95}
    locations: {10.0.1.0/24: [47.4, 8.5]}           # beside the table that is shipped, and before it

Pure, but for `load`, which reads files.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from maglev import document
from maglev.config_checks import DNS_NAME, HealthCheck
from maglev.config_fields import AN_ADDRESS, IP, POSITIVE_S, ConfigObject, Port, Seconds
from maglev.errors import ConfigError, Problem
from maglev.flow import Address
from maglev.geo import Limits, Locations, Network, Place
from maglev.name_answers import Zone
from maglev.refusals import Inner, keys_of, problems_of, shown

SHIPPED_LOCATIONS = Path(__file__).parent / "data" / "locations.csv"
A_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
A_PLACE = "a latitude from -90 to 90 and a longitude from -180 to 180, such as [47.4, 8.5]"
ADDRESSES = f"a list of addresses, each {AN_ADDRESS}"
TCP_CHECKED = ("tcp", "http")

Addresses = Annotated[tuple[IP, ...], Field(min_length=1)]
Degrees = Annotated[float, Field(strict=True)]


class Site(ConfigObject):
    """A cluster of Maglevs somewhere on Earth."""

    latitude: Annotated[Degrees, Field(ge=-90, le=90, description="degrees, a number from -90 (south) to 90")]
    longitude: Annotated[Degrees, Field(ge=-180, le=180, description="degrees, a number from -180 (west) to 180")]
    maglevs: Addresses = Field(description=f"whose metrics tell its load: {ADDRESSES}")
    capacity_pps: Annotated[float, Field(strict=True, gt=0, le=1e9)] = Field(
        description="packets per second that all its Maglevs together may forward, a number above 0, at most 1e9"
    )
    metrics_port: Port = Field(default=9400, description="a whole number from 1 to 65535")

    @property
    def place(self) -> Place:
        """Returns where it is."""
        return Place(self.latitude, self.longitude)


class Service(ConfigObject):
    """A name that sites serve, each on VIPs of its own or, as anycast, on the same."""

    vips: Annotated[dict[str, Addresses], Field(min_length=1)] = Field(
        description=f"a mapping from sites, at least one, to {ADDRESSES}"
    )
    health_check: HealthCheck = Field(description="how each VIP is probed, such as {type: http, port: 80}")

    @model_validator(mode="after")
    def _goes_to_a_vip(self) -> Service:
        if self.health_check.type not in TCP_CHECKED or self.health_check.through != "address":
            raise ValueError(f"a health check of a VIP is of type {' or '.join(TCP_CHECKED)}, with through: address")
        return self


class LoadOptions(ConfigObject):
    """How the sites' load is learnt, and from when on it turns clients away."""

    interval_s: Seconds = Field(default=1.0, description=POSITIVE_S)
    spill_from: Annotated[float, Field(strict=True, gt=0, le=10)] = Field(
        default=0.7, description="a share of a site's capacity above 0, at most 10: up to here it takes all its clients"
    )
    full_at: Annotated[float, Field(strict=True, gt=0, le=10)] = Field(
        default=0.95,
        description="a share of a site's capacity, from spill_from to 10: from here on it takes none",
    )

    @model_validator(mode="after")
    def _in_order(self) -> LoadOptions:
        if self.full_at < self.spill_from:
            raise ValueError("full_at that is at least spill_from")
        return self

    @property
    def limits(self) -> Limits:
        """Returns what the policy needs of this."""
        return Limits(self.spill_from, self.full_at)


def _place(value: object) -> object:
    numbers = [each for each in value if isinstance(each, int | float)] if isinstance(value, list) else []
    if not isinstance(value, list) or len(value) != 2 or len(numbers) != 2:
        raise ValueError(A_PLACE)
    place = Place(*map(float, numbers))
    if not (abs(place.latitude) <= 90 and abs(place.longitude) <= 180):
        raise ValueError(A_PLACE)
    return place


class NameConfig(ConfigObject):
    """All of it."""

    zone: Annotated[str, Field(pattern=DNS_NAME, max_length=200)] = Field(
        description="a domain name, such as lab.example"
    )
    ttl_s: Annotated[int, Field(strict=True, ge=0, le=86400)] = Field(
        default=5, description="seconds, a whole number from 0 to 86400"
    )
    port: Port = Field(default=53, description="a whole number from 1 to 65535")
    hosts: dict[str, Addresses] = Field(default={}, description=f"a mapping from names to {ADDRESSES}")
    sites: Annotated[dict[str, Site], Field(min_length=1)] = Field(description="a mapping from names to sites")
    names: Annotated[dict[str, Service], Field(min_length=1)] = Field(description="a mapping from names to VIPs")
    load: LoadOptions = Field(default=LoadOptions(), description=keys_of(LoadOptions))
    locations: dict[str, Annotated[Place, BeforeValidator(_place)]] = Field(
        default={}, description="a mapping from prefixes to places, such as {10.0.1.0/24: [47.4, 8.5]}"
    )

    @cached_property
    def located(self) -> Locations:
        """Returns the places of prefixes: those given here, and those shipped."""
        return Locations({**shipped_locations(), **{ip_network(key): at for key, at in self.locations.items()}})

    @property
    def answers_for(self) -> Zone:
        """Returns the zone, as the answers need it."""
        origin = self.zone.rstrip(".")
        server = next(iter(self.hosts), "")
        names = frozenset({*self.names, *self.hosts})
        return Zone(origin, f"{server}.{origin}".lstrip("."), names, self.ttl_s)


_INNER: Inner = {"sites": Site, "names": Service, "load": LoadOptions, "health_check": HealthCheck}


def load(path: str | Path) -> NameConfig:
    """Returns the configuration in a file; ConfigError says everything that is wrong with it."""
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(path), "file", str(error), "a file that can be read, in UTF-8")]) from None
    return parse(text, str(path))


def parse(text: str, file: str = "<config>") -> NameConfig:
    """Returns the configuration in a text; `file` names it in the errors. Raises ConfigError with all problems."""
    problems: list[Problem] = []
    value = document.read(text, file, problems)
    if not isinstance(value, dict):
        raise ConfigError([*problems, Problem(file, "document", shown(value), keys_of(NameConfig))])
    try:
        config = NameConfig.model_validate(value)
    except ValidationError as error:
        raise ConfigError([*problems, *problems_of(NameConfig, error, _INNER, file, "")]) from None
    problems += [Problem(file, *finding) for finding in _findings(config)]
    if problems:
        raise ConfigError(problems)
    return config


def _findings(config: NameConfig) -> Iterator[tuple[str, Any, str]]:
    """Yields what no field sees alone: field, value, what is allowed."""
    for kind, names in (("names", config.names), ("hosts", config.hosts)):
        for name in names:
            if not A_LABEL.fullmatch(name):
                yield (
                    f"{kind}.{name}",
                    name,
                    "a label of a domain name: a-z, 0-9, and - inside, at most 63",
                )
    for name in config.names.keys() & config.hosts.keys():
        yield f"hosts.{name}", name, "names that are not under `names` already"
    for name, service in config.names.items():
        for site in service.vips.keys() - config.sites.keys():
            yield f"names.{name}.vips.{site}", site, f"a site: {', '.join(config.sites)}"
    at: dict[Address, str] = {}
    for name, there in config.sites.items():
        for maglev in there.maglevs:
            if at.setdefault(maglev, name) != name:
                yield f"sites.{name}.maglevs", str(maglev), f"a Maglev of one site: it is in {at[maglev]} already"
    for prefix in config.locations:
        if _network(prefix) is None:
            yield f"locations.{prefix}", prefix, "a prefix without bits set behind it, such as 10.0.1.0/24"


def _network(text: str) -> Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


def shipped_locations() -> Mapping[Network, Place]:
    """Returns the table that is shipped: the clients' networks of the lab's topologies, spread over the world."""
    with open(SHIPPED_LOCATIONS, encoding="utf-8", newline="") as file:
        return {
            ip_network(row["prefix"]): Place(float(row["latitude"]), float(row["longitude"]))
            for row in csv.DictReader(file)
        }


def vips_of(service: Service, site: str, version: int) -> tuple[Address, ...]:
    """Returns the VIPs of one IP version that a site has for a name."""
    return tuple(address for address in service.vips.get(site, ()) if address.version == version)
