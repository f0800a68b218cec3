"""The engine that needs no root: frames from a capture file in, the frames that a forwarder would send out.

The time of a packet is its timestamp. A packet goes back to the router that sent it: Ethernet addresses swapped.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from scapy.data import DLT_EN10MB
from scapy.error import Scapy_Exception
from scapy.utils import RawPcapReader, RawPcapWriter

from ..errors import MaglevError
from ..forwarding import Decision, Statistics
from ..fragments import FragmentTable
from ..vips import VipMap
from .socket import way_back

LATEST_NS = 2**32 * 10**9  # pcap counts seconds in 32 bits


class Decider(Protocol):
    """What decides: the reference, or its compiled twin."""

    vips: VipMap

    @property
    def fragments(self) -> FragmentTable: ...
    def decide(self, frame: bytes, now: float) -> Decision: ...


class CaptureError(MaglevError):
    """A capture file that cannot be read or written."""


def replay(source: Path, target: Path, forwarder: Decider) -> Statistics:
    """Sends every frame of `source` through the forwarder into `target`; returns what became of them.

    CaptureError if `source` is no Ethernet capture (pcap or pcapng, also gzipped) or `target` cannot be written;
    then `target` is left as it was.
    """
    reader = _open(source)
    try:
        with _finished_or_untouched(target) as path:
            return _replay(source, reader, path, forwarder)
    except OSError as error:
        raise CaptureError(f"cannot write {target}: {error.strerror}") from None


def _replay(source: Path, reader: Any, path: Path, forwarder: Decider) -> Statistics:
    statistics = Statistics()
    unit_ns = 1 if getattr(reader, "nano", True) else 1000  # the output keeps the input's precision; pcapng has any
    with reader, RawPcapWriter(str(path), linktype=DLT_EN10MB, nano=unit_ns == 1) as writer:
        writer.write_header(None)
        for frame, time_ns in _frames(source, reader, unit_ns):
            decision = forwarder.decide(frame, time_ns / 1e9)
            seconds, rest_ns = divmod(time_ns, 10**9)
            for each in decision.all():
                statistics.count(each)
            sent = [packet for each in decision.all() for packet in (each.packet, each.answer)]
            for packet in filter(None, sent):
                writer.write_packet(way_back(frame, packet) + packet, sec=seconds, usec=rest_ns // unit_ns)
        statistics.add(Statistics(), forwarder.fragments.expired(float("inf")))
    return statistics


@contextmanager
def _finished_or_untouched(target: Path) -> Iterator[Path]:
    """Yields the path to write to: beside a regular file, which it replaces at the end; a device or pipe itself."""
    if target.exists() and not target.is_file():
        yield target
        return
    target = target.resolve()
    unfinished = target.with_name(target.name + ".part")
    try:
        yield unfinished
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _open(source: Path) -> Any:
    try:
        reader = RawPcapReader(str(source))
    except OSError as error:
        raise CaptureError(f"cannot read {source}: {error.strerror or error}") from None
    except (Scapy_Exception, EOFError, zlib.error) as error:
        raise CaptureError(f"{source} is not a pcap or pcapng file: {error}") from None
    try:
        _require_ethernet(source, getattr(reader, "linktype", DLT_EN10MB))
    except CaptureError:
        reader.close()
        raise
    return reader


def _require_ethernet(source: Path, link_type: int) -> None:
    if link_type != DLT_EN10MB:
        raise CaptureError(f"{source} holds link type {link_type}; allowed: Ethernet ({DLT_EN10MB})")


def _frames(source: Path, reader: Any, unit_ns: int) -> Iterator[tuple[bytes, int]]:
    """Yields each frame and its time in nanoseconds; CaptureError for what shows only on the way."""
    try:
        for frame, metadata in reader:
            _require_ethernet(source, getattr(metadata, "linktype", DLT_EN10MB))  # pcapng: one an interface
            time_ns = _time_ns(source, metadata, unit_ns)
            if time_ns >= LATEST_NS:
                raise CaptureError(f"{source} holds a packet from after the year 2106, which pcap cannot write")
            yield frame, time_ns
    except Scapy_Exception as error:
        raise CaptureError(f"{source} is damaged: {error}") from None


def _time_ns(source: Path, metadata: Any, unit_ns: int) -> int:
    """Returns a frame's time from pcap's seconds and fraction, or from pcapng's 64-bit count of ticks."""
    if not hasattr(metadata, "tsresol"):
        return int(metadata.sec * 10**9 + metadata.usec * unit_ns)
    if metadata.tshigh is None:
        raise CaptureError(f"{source} holds packets without a time (simple packet blocks)")
    ticks = (metadata.tshigh << 32) + metadata.tslow
    return int(ticks * 10**9 // metadata.tsresol)
