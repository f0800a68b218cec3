"""The two ways in which packets come out of GRE at an endpoint, each of which follows Maglevs and VIPs as they change.

`ByKernel` has the kernel's GRE devices do it, `ByTun` a loop of this process with a TUN device. What they are made of
is in `decapsulation`.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Mapping
from typing import NoReturn, Protocol

from ..errors import PlatformError, Reason
from ..flow import Address
from ..lingering import Network
from ..metrics import Delivered
from . import decapsulation
from .decapsulation import Gate, GreDevices, Received, Receiver


class Delivery(Protocol):
    """What an endpoint needs of either way."""

    name: str

    def follow(self, maglevs: Collection[Address], vips: Collection[Network]) -> None:
        """Takes packets from these Maglevs, for these VIPs, from now on; PlatformError changes nothing."""

    def received(self) -> dict[Address, Delivered]:
        """Returns what has come out, by Maglev."""

    def reasons(self) -> Mapping[Reason, int] | None:
        """Returns why packets were kept out, None where the kernel does not say."""

    def run(self) -> NoReturn:
        """Carries packets until a signal handler raises."""


def open_delivery(maglevs: Collection[Address], way: str, undo: contextlib.ExitStack) -> Delivery:
    """Returns the way that is asked for: kernel, tun or auto; PlatformError if this machine has it not."""
    decapsulation.remove_what_was_left()
    devices = decapsulation.make_gre_devices(maglevs, undo) if way != "tun" else None
    if devices is not None:
        return ByKernel(devices)
    if way == "kernel":
        raise PlatformError("this kernel has no GRE device for a Maglev's address; use --decapsulation auto or tun")
    return ByTun(undo)


class ByKernel:
    """The kernel's own devices, one for each address of a Maglev; they take what is for any address of the machine."""

    name = "kernel"

    def __init__(self, devices: GreDevices) -> None:
        self._devices = devices

    def follow(self, maglevs: Collection[Address], vips: Collection[Network]) -> None:
        if not self._devices.follow(maglevs):
            raise PlatformError("this kernel has no GRE device for the address of a new Maglev")

    def received(self) -> dict[Address, Delivered]:
        return self._devices.received()

    def reasons(self) -> None:  # in the kernel, a packet from a stranger meets no device and is counted nowhere
        return None

    def run(self) -> NoReturn:
        while True:
            signal.pause()


class ByTun:
    """Raw sockets, one for each family that a Maglev has an address of, and a TUN device."""

    name = "tun"

    def __init__(self, undo: contextlib.ExitStack) -> None:
        self._undo = undo
        self._device = decapsulation.make_tun_device(undo)
        self._gate = Gate((), ())
        self._waker = _Waker(undo)
        self._receivers: dict[int, Receiver] = {}  # by IP version; one that is open stays open

    def follow(self, maglevs: Collection[Address], vips: Collection[Network]) -> None:
        for version in sorted({maglev.version for maglev in maglevs} - self._receivers.keys()):
            self._receivers[version] = Receiver(version, self._undo)
        self._gate.follow(maglevs, vips)
        self._waker.wake()

    def received(self) -> dict[Address, Delivered]:
        return self._gate.received()

    def reasons(self) -> Mapping[Reason, int]:
        return self._gate.reasons

    def run(self) -> NoReturn:
        while True:
            self.carry_once()

    def carry_once(self) -> None:
        """Waits for packets, or for a change, and carries what has come."""
        decapsulation.pump_once([self._waker, *self._receivers.values()], self._device, self._gate)


class _Waker:
    """Stands among the receivers, and ends the waiting for packets when one has come to them."""

    def __init__(self, undo: contextlib.ExitStack) -> None:
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        undo.callback(os.close, self._event)

    def wake(self) -> None:
        os.eventfd_write(self._event, 1)

    def fileno(self) -> int:
        return self._event

    def receive(self) -> Received:
        os.eventfd_read(self._event)
        raise BlockingIOError
