"""What beginning any kind of traffic needs: VIPs and clients by name, bounds, and that the lab keeps the handle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from maglev.config import Vip

from ..errors import WrongUse
from .handle import Handle

if TYPE_CHECKING:
    from ..laboratory import Lab

H = TypeVar("H", bound=Handle[Any])


class Kinds:
    """Traffic of a running lab."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def _vip(self, name: str, *protocols: str) -> Vip:
        """Returns a VIP by name; WrongUse if there is none, or it is of another protocol."""
        vip = self._lab.vip(name)
        if protocols and vip.protocol not in protocols:
            fitting = [each.name for each in self._lab.config.vips if each.protocol in protocols]
            raise WrongUse(
                f"VIP {name!r} takes {vip.protocol}; this traffic is {' or '.join(protocols)}, which go to "
                f"{', '.join(fitting) or 'none of the VIPs'}"
            )
        return vip

    @staticmethod
    def _target(vip: Vip, port: int = 0) -> dict[str, Any]:
        """Returns where senders send to; `port` is for VIPs that take any."""
        return {"address": str(vip.address), "port": vip.port or port}

    def _clients(self, names: Sequence[str]) -> list[Any]:
        """Returns clients by name, all of them if none is named."""
        return [self._lab.node(name, "client") for name in names or self._lab.clients]

    def _kept(self, handle: H) -> H:
        """Enters traffic that has begun, so that the lab ends it if nobody else does."""
        self._lab.keep_traffic(handle)
        return handle


def check_one_of(what: str, value: str, allowed: Sequence[str]) -> None:
    """Raises WrongUse for a word that is none of those allowed."""
    if value not in allowed:
        raise WrongUse(f"{what}={value!r} is not allowed; allowed: {', '.join(allowed)}")
