"""What endpoints are told of themselves: how long they keep what a change of the configuration takes from them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from maglev.config_fields import ConfigObject


class EndpointOptions(ConfigObject):
    """How an endpoint follows changes; the same on all endpoints."""

    vip_linger_s: Annotated[float, Field(strict=True, ge=0, le=86400)] = Field(
        default=60.0,
        description="seconds that open connections keep a VIP that has left, a number from 0 to 86400",
    )
