"""The endpoint's side of Maglev: takes clients' packets out of GRE, so that any server on the VIP can answer them.

It serves nothing itself. While it runs, this machine holds the VIPs whose pools list it; when it leaves, it puts
everything back as it was.
"""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Any

from .config import Config
from .engine import decapsulation, machine
from .engine.control import ControlServer
from .errors import MaglevError
from .flow import Address


def endpoint_addresses(config: Config) -> tuple[Address, ...]:
    """Returns the addresses of all endpoints of a configuration, each once, in order."""
    members = {member.address for vip in config.vips for member in config.pool_members(vip.pool)}
    return tuple(sorted(members, key=lambda address: address.packed))


def vips_of(config: Config, endpoint: Address) -> tuple[Address, ...]:
    """Returns the VIP addresses that an endpoint answers for, each once, in order."""
    addresses = {
        vip.address
        for vip in config.vips
        if any(member.address == endpoint for member in config.pool_members(vip.pool))
    }
    return tuple(sorted(addresses, key=lambda address: address.packed))


def run(config: Config, address: Address | None, control: Path, decapsulate_with: str) -> None:
    """Runs the endpoint until a signal ends it. `decapsulate_with` is auto, kernel or tun.

    MaglevError if this machine is no endpoint of the configuration, or lacks what is needed.
    """
    machine.leave_on_signals()
    machine.die_with_any_thread()
    own = address or machine.find_self(endpoint_addresses(config), "endpoint")
    vips = vips_of(config, own)
    if not vips:
        raise MaglevError(f"no VIP's pool lists {own}; endpoints are {', '.join(map(str, endpoint_addresses(config)))}")
    maglevs = [maglev.address for maglev in config.maglevs]
    gate = decapsulation.Gate(maglevs, vips)
    with contextlib.ExitStack() as undo:
        in_kernel = decapsulate_with != "tun" and decapsulation.make_gre_devices(own, maglevs, undo)
        if decapsulate_with == "kernel" and not in_kernel:
            raise MaglevError("this kernel has no GRE device; use --decapsulation auto or tun")
        device = None if in_kernel else decapsulation.make_tun_device(undo)
        receiver = None if in_kernel else decapsulation.open_gre_socket(undo)
        decapsulation.hold_vips(vips, undo)

        def status() -> dict[str, Any]:
            return {
                "endpoint": str(own),
                "ready": True,
                "vips": [str(vip) for vip in vips],
                "decapsulation": "kernel" if in_kernel else "tun",
                "delivered": decapsulation.delivered_by_devices(),
                # in the kernel, a packet from a stranger meets no device and is counted nowhere
                "drops": {reason.value: count for reason, count in sorted(gate.reasons.items())},
            }

        server = ControlServer(control, {"GET /status": status})
        undo.callback(server.close)
        server.start()
        if receiver is None or device is None:
            while True:
                signal.pause()
        decapsulation.pump(receiver.recv, device, gate)
