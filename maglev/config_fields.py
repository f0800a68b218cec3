"""What the fields of config objects have in common: addresses, names, times, and what all objects are built on.

A field's `description` is what an error message says is allowed there; validators raise a `ValueError` whose text says
the same.
"""

from __future__ import annotations

import contextlib
import re
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"  # names end up in file names, host names and metrics
A_NAME = "a name: letters, digits and . _ - (at most 63, the first a letter or digit; a number in quotes)"
AN_ADDRESS = "an IP address, such as 192.0.2.1"
POSITIVE_S = "seconds, a number from 0.01 to 3600"


def read_address(value: object) -> object:
    """Reads text only: `ip_address` would take the number 1 for 0.0.0.1."""
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    if not isinstance(value, str) or "%" in value:
        raise ValueError(AN_ADDRESS)
    try:
        return ip_address(value)
    except ValueError:
        raise ValueError(AN_ADDRESS) from None


def read_interface(value: object) -> IPv4Interface | IPv6Interface | None:
    """Returns what a text such as 192.0.2.0/28 says, None if it is no address with a length."""
    if isinstance(value, str) and re.fullmatch(r"[^/%]+/[0-9]{1,3}", value):
        with contextlib.suppress(ValueError):
            return ip_interface(value)
    return None


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
IP = Annotated[IPv4Address | IPv6Address, BeforeValidator(read_address)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Seconds = Annotated[float, Field(strict=True, ge=0.01, le=3600)]
Times = Annotated[int, Field(strict=True, ge=1, le=100)]
ShortText = Annotated[str, Field(min_length=1, max_length=1024)]


class ConfigObject(BaseModel):
    """Frozen, knows all its keys, and holds its defaults to the same rules as what a file says."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
