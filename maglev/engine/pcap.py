"""The engine that needs no root: frames from a capture file in, the frames that a forwarder would send out.

The time of a packet is its timestamp. A packet goes back to the router that sent it: Ethernet addresses swapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scapy.data import DLT_EN10MB
from scapy.error import Scapy_Exception
from scapy.utils import RawPcapReader, RawPcapWriter

from ..errors import MaglevError
from ..forwarding import Forwarder, Statistics

IPV4_ETHERTYPE = b"\x08\x00"


class CaptureError(MaglevError):
    """A capture file that cannot be read or written."""


def replay(source: Path, target: Path, forwarder: Forwarder) -> Statistics:
    """Sends every frame of `source` through the forwarder into `target`; returns what became of them.

    CaptureError if `source` is no Ethernet capture (pcap or pcapng, also gzipped) or `target` cannot be written;
    then `target` is left as it was.
    """
    reader = _open(source)
    try:
        with _finished_or_untouched(target) as path:
            return _replay(reader, path, forwarder)
    except OSError as error:
        raise CaptureError(f"cannot write {target}: {error.strerror}") from None


def _replay(reader: Any, path: Path, forwarder: Forwarder) -> Statistics:
    statistics = Statistics()
    unit_ns = 1 if getattr(reader, "nano", False) else 1000  # the output keeps the input's precision
    with reader, RawPcapWriter(str(path), linktype=DLT_EN10MB, nano=unit_ns == 1) as writer:
        writer.write_header(None)
        for frame, metadata in reader:
            time_ns = _time_ns(metadata, unit_ns)
            decision = forwarder.decide(frame, time_ns / 1e9)
            statistics.count(decision)
            if decision.reason is None:
                swapped = frame[6:12] + frame[0:6] + IPV4_ETHERTYPE
                seconds, rest_ns = divmod(time_ns, 10**9)
                writer.write_packet(swapped + decision.packet, sec=seconds, usec=rest_ns // unit_ns)
    return statistics


@contextmanager
def _finished_or_untouched(target: Path) -> Iterator[Path]:
    """Yields the path to write to: beside a regular file, which it replaces at the end; a device or pipe itself."""
    target = target.resolve()
    if target.exists() and not target.is_file():
        yield target
        return
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
        raise CaptureError(f"cannot read {source}: {error.strerror}") from None
    except (Scapy_Exception, EOFError) as error:
        raise CaptureError(f"{source} is not a pcap or pcapng file: {error}") from None
    link_type = getattr(reader, "linktype", DLT_EN10MB)
    if link_type != DLT_EN10MB:
        reader.close()
        raise CaptureError(f"{source} holds link type {link_type}; allowed: Ethernet ({DLT_EN10MB})")
    return reader


def _time_ns(metadata: Any, unit_ns: int) -> int:
    """Returns a frame's time from pcap's seconds and fraction, or from pcapng's 64-bit count of ticks."""
    if hasattr(metadata, "tsresol"):
        ticks = (metadata.tshigh << 32) + metadata.tslow
        return int(ticks * 10**9 // metadata.tsresol)
    return int(metadata.sec * 10**9 + metadata.usec * unit_ns)
