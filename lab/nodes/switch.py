"""The switch: the kernel's bridge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..interfaces import INNER_MTU_BYTES
from .node import LabNode


class Switch(LabNode):
    """A switch: the kernel's bridge in a namespace of its own, all of whose links are its ports."""

    role = "switch"
    BRIDGE = "bridge"

    def config(self, **params: Any) -> Any:
        addressless = {f"net.ipv6.conf.{which}.disable_ipv6": "1" for which in ("all", "default")}
        return super().config(sysctls=addressless, **params)

    def _link_lines(self) -> Iterator[str]:
        """Yields the bridge as well. It floods what is for many: to snoop, it would need one who asks (RFC 4541)."""
        yield f"link add {self.BRIDGE} type bridge forward_delay 0 mcast_snooping 0"
        yield from super()._link_lines()
        yield from (f"link set {port} master {self.BRIDGE}" for port in self.intfList())
        yield f"link set {self.BRIDGE} mtu {INNER_MTU_BYTES} up"
