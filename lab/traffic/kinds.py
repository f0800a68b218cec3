"""What `lab.traffic` is: a method for each kind of traffic, which begins it and returns a handle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from maglev.config import Vip

from ..errors import WrongUse
from .churn import ChurnHandle
from .datagrams import DatagramHandle
from .handle import LONGEST_S, Handle, check_number, shares, start_senders

if TYPE_CHECKING:
    from ..laboratory import Lab

MOST_FLOWS, MOST_PPS, MOST_CONNECTIONS_PER_S = 10_000, 100_000, 10_000
SMALLEST_DATAGRAM_BYTES, LARGEST_DATAGRAM_BYTES = 40, 65_000  # room for numbers and time; for a name in the answer

H = TypeVar("H", bound=Handle[Any])


class Traffic:
    """Traffic of a running lab. Whoever begins it ends it: `with`, or `stop`; `Lab.restore` and `stop` end the rest."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def datagrams(
        self,
        vip: str = "datagrams",
        *,
        flows: int = 16,
        rate_pps: float = 500,
        seconds: float = 5,
        size_bytes: int = 64,
        first_port: int = 0,
        clients: Sequence[str] = (),
    ) -> DatagramHandle:
        """Sends numbered datagrams of `flows` UDP flows to a VIP of the numbered service, `rate_pps` of all together.

        Larger ones than the link takes go in fragments. Flows have ports from `first_port` on, or any for 0.
        """
        target = self._vip(vip, "udp")
        senders = self._clients(clients)
        check_number("flows", flows, len(senders), MOST_FLOWS, whole=True)
        check_number("rate_pps", rate_pps, 0.1, MOST_PPS)
        check_number("seconds", seconds, 0.01, LONGEST_S)
        check_number("size_bytes", size_bytes, SMALLEST_DATAGRAM_BYTES, LARGEST_DATAGRAM_BYTES, whole=True)
        check_number("first_port", first_port, 0, 65_536 - flows, whole=True)
        common = {**self._target(target), "rate_pps": rate_pps / len(senders), "seconds": seconds}
        common |= {"size_bytes": size_bytes, "first_port": first_port}
        own = {
            node: {**common, "flows": share} for node, share in zip(senders, shares(flows, len(senders)), strict=True)
        }
        workers = start_senders("datagrams", own)
        options = {"flows": flows, "rate_pps": rate_pps, "seconds": seconds, "size_bytes": size_bytes}
        return self._kept(DatagramHandle(self._lab.timeline, "datagrams", vip, seconds, workers, **options))

    def churn(
        self, vip: str = "echo", *, rate_per_s: float = 100, seconds: float = 5, clients: Sequence[str] = ()
    ) -> ChurnHandle:
        """Opens `rate_per_s` connections a second to a VIP of the numbered service; each is answered once, and ends."""
        target = self._vip(vip, "tcp")
        senders = self._clients(clients)
        check_number("rate_per_s", rate_per_s, 0.1, MOST_CONNECTIONS_PER_S)
        check_number("seconds", seconds, 0.01, LONGEST_S)
        own = {**self._target(target), "rate_per_s": rate_per_s / len(senders), "seconds": seconds}
        workers = start_senders("churn", dict.fromkeys(senders, own))
        options = {"rate_per_s": rate_per_s, "seconds": seconds}
        return self._kept(ChurnHandle(self._lab.timeline, "churn", vip, seconds, workers, **options))

    # What all kinds need

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
