"""The endpoint's side of Maglev: takes clients' packets out of GRE, so that any server on the VIP can answer them.

It serves nothing itself. While it runs, this machine holds the VIPs whose pools list it; when it leaves, it puts
everything back as it was.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from . import metrics
from .config import Config
from .engine import decapsulation, machine
from .engine.control import ControlServer
from .engine.decapsulation import Network
from .engine.exposition import Exposition, MetricsServer
from .errors import MaglevError
from .flow import Address, pack_address


def endpoint_addresses(config: Config) -> tuple[Address, ...]:
    """Returns the addresses of all endpoints of a configuration, each once, in order."""
    members = {member.address for vip in config.vips for member in config.vip_members(vip)}
    return tuple(sorted(members, key=pack_address))


def vips_of(config: Config, endpoints: Collection[Address]) -> tuple[Network, ...]:
    """Returns the VIPs, addresses and prefixes, that a machine with these endpoint addresses answers for, in order."""
    networks = {
        vip.network
        for vip in config.placed_vips
        if any(member.address in endpoints for member in config.vip_members(vip))
    }
    return tuple(sorted(networks, key=lambda network: (pack_address(network.network_address), network.prefixlen)))


def run(config: Config, address: Address | None, control: Path, decapsulate_with: str) -> None:
    """Runs the endpoint until a signal ends it. `decapsulate_with` is auto, kernel or tun.

    Without an `address` it is every endpoint of the configuration whose address this machine has: one of each family,
    say. MaglevError if there is none, or if the machine lacks what is needed.
    """
    machine.leave_on_signals()
    machine.die_with_any_thread()
    own = (address,) if address else machine.own_among(endpoint_addresses(config), "endpoint")
    vips = vips_of(config, own)
    if not vips:
        listed = ", ".join(map(str, endpoint_addresses(config)))
        raise MaglevError(f"no VIP's pool lists {address}; endpoints are {listed}")
    maglevs = [each for maglev in config.maglevs for each in maglev.addresses]
    gate = decapsulation.Gate(maglevs, vips)
    with contextlib.ExitStack() as undo:
        in_kernel = decapsulate_with != "tun" and decapsulation.make_gre_devices(maglevs, undo)
        if decapsulate_with == "kernel" and not in_kernel:
            raise MaglevError("this kernel has no GRE device for a Maglev's address; use --decapsulation auto or tun")
        device = None if in_kernel else decapsulation.make_tun_device(undo)
        receivers = [] if in_kernel else decapsulation.open_receivers(maglevs, undo)
        decapsulation.hold_vips(vips, undo)

        def status() -> dict[str, Any]:
            return {
                "endpoint": str(own[0]),
                "addresses": [str(each) for each in own],
                "ready": True,
                "vips": [_shown(vip) for vip in vips],
                "decapsulation": "kernel" if in_kernel else "tun",
                "delivered": decapsulation.delivered_by_devices(),
                # in the kernel, a packet from a stranger meets no device and is counted nowhere
                "drops": {reason.value: count for reason, count in sorted(gate.reasons.items())},
            }

        started = time.monotonic()

        def view() -> metrics.EndpointView:
            return metrics.EndpointView(
                about={"address": str(own[0]), "decapsulation": "kernel" if in_kernel else "tun"},
                uptime_s=time.monotonic() - started,
                received=decapsulation.received_by_devices(maglevs) if in_kernel else gate.received(),
                reasons=None if in_kernel else gate.reasons,
            )

        exposition = Exposition(lambda: metrics.of_endpoint(view()))
        server = ControlServer(control, {"GET /status": status, "GET /metrics": exposition.text})
        undo.callback(server.close)
        exposed = MetricsServer(own, config.metrics.port, exposition)
        undo.callback(exposed.close)
        server.start()
        exposed.start()
        if device is None:
            while True:
                signal.pause()
        decapsulation.pump(receivers, device, gate)


def _shown(vip: Network) -> str:
    """Returns a VIP as a person writes it: an address without its length."""
    return str(vip.network_address) if vip.num_addresses == 1 else str(vip)
