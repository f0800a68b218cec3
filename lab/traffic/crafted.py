"""Packets that no kernel would send by itself, from Scapy or a capture: the lab's end of `senders.packets`.

They leave the client's own link for the router, with no regard to what the client's kernel thinks of them. Answers are
counted by the client's kernel (nftables). Where it would spoil the traffic by answering them, with a reset or "port
unreachable", it does not get to see them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LabError, WrongUse
from ..nodes import NFT_FAMILIES
from ..timeline import Timeline
from ..waiting import wait_until
from .handle import Report, SenderHandle, totals
from .variation import TCP, UDP, destination, with_source
from .worker import Workers

if TYPE_CHECKING:
    from ..nodes import LabNode

Network = IPv4Network | IPv6Network
Timed = tuple[float, bytes]  # seconds after the first packet, and an IP packet

TRANSPORTS = {TCP: "tcp", UDP: "udp"}
AT_REST_S, ANSWERS_TIMEOUT_S = 0.1, 2.0  # answers have come when none has come for so long, or this is over
LINK_TYPES_OF_ETHERNET, LINK_TYPES_OF_IP = {1}, {12, 14, 101, 228, 229}  # LINKTYPE_ numbers (tcpdump.org)
ETHERTYPES_OF_IP, VLAN, ETHERNET_BYTES, VLAN_BYTES = (b"\x08\x00", b"\x86\xdd"), b"\x81\x00", 14, 4

_numbers = itertools.count(1)  # of this process's tables and files


@dataclass(frozen=True)
class PacketReport(Report):
    """Counts packets as they were made; `received` are packets from the VIPs that came back to the client."""

    on_wire: int  # packets that left the client: more, if some went in fragments
    bytes: int  # of these, from the IP header on
    refused: int  # what the client's kernel did not send
    latest_ms: float  # how far a replay was behind at worst

    def __str__(self) -> str:
        late = f", {self.latest_ms:.1f} ms late at worst" if self.latest_ms else ""
        return (
            f"{self.sent} of {self.asked} packets sent in {self.seconds:.1f} s ({self.on_wire} on the wire, "
            f"{self.bytes} bytes, {self.refused} refused){late}; {self.received} came back"
        )


@dataclass(frozen=True)
class Answers:
    """Whose packets count as answers: those of these addresses, or only those of one port to a range of ports.

    `hidden`: the client's kernel does not see them.
    """

    addresses: tuple[str, ...]
    protocol: int = 0
    port: int = 0
    to_ports: tuple[int, int] = (0, 65535)
    hidden: bool = False

    def table(self, name: str) -> str:
        """Returns an nftables table that counts them."""
        rules = "\n".join(self._rule(address) for address in self.addresses)
        chain = f"type filter hook prerouting priority -400;\n{rules}"
        return f"table inet {name} {{\ncounter answers {{}}\nchain come {{\n{chain}\n}}\n}}\n"

    def _rule(self, address: str) -> str:
        words = [NFT_FAMILIES[ip_address(address).version], "saddr", address]
        if transport := TRANSPORTS.get(self.protocol):
            words += [transport, "sport", str(self.port), transport, "dport", "{}-{}".format(*self.to_ports)]
        return " ".join([*words, "counter name answers", *(["drop"] if self.hidden else [])])


class Counting:
    """Counts what comes to a client from a VIP; until `end`."""

    def __init__(self, client: LabNode, answers: Answers) -> None:
        self._client, self._name = client, f"maglab_answers_{next(_numbers)}"
        client.run("nft", "-f", "-", text=answers.table(self._name))
        self._last = 0

    def count(self) -> int:
        """Returns how many have come, in the end for good."""
        if self._name:
            said = self._client.run("nft", "-j", "list", "counters", "table", "inet", self._name).stdout
            entries = json.loads(said)["nftables"]
            self._last = next(entry["counter"]["packets"] for entry in entries if "counter" in entry)
        return self._last

    def end(self) -> None:
        """Takes the counter away, when no more answers come."""
        seen = [-1]

        def coming() -> str:
            seen.append(self.count())
            return "" if seen[-1] == seen[-2] else f"{seen[-1]} so far"

        with contextlib.suppress(LabError):  # some traffic never rests
            wait_until(coming, ANSWERS_TIMEOUT_S, "the last answer", AT_REST_S)
        self.forget()

    def forget(self) -> None:
        """Takes the counter away."""
        name, self._name = self._name, ""
        if name:
            self._client.run("nft", "delete", "table", "inet", name, check=False)


class PacketHandle(SenderHandle[PacketReport]):
    """Packets under way from one client."""

    def __init__(
        self,
        timeline: Timeline,
        what: str,
        where: str,
        most_s: float,
        workers: Workers,
        counting: Counting,
        **detail: Any,
    ) -> None:
        self._counting = counting
        super().__init__(timeline, what, where, most_s, workers, **detail)

    def _merge(self, documents: Sequence[Mapping[str, Any]]) -> PacketReport:
        counts = totals(documents, "asked", "sent", "on_wire", "bytes", "refused", "latest_ms")
        return PacketReport(**counts, received=self._counting.count())

    def _end(self) -> None:
        super()._end()
        self._counting.end()

    def _kill(self) -> None:
        super()._kill()
        self._counting.forget()


def way_to(client: LabNode, address: str) -> dict[str, str]:
    """Returns how a client's packets to an address leave it: `interface`, and the gateway's `link_address`."""
    route = json.loads(client.run("ip", "-j", "route", "get", address).stdout)[0]
    if "gateway" not in route:
        raise LabError(f"{client.name} has no router on its way to {address}")
    client.run("ping", "-c", "1", "-W", "1", route["gateway"], check=False)  # so that the kernel asks for it
    known = json.loads(client.run("ip", "-j", "neighbour", "show", route["gateway"], "dev", route["dev"]).stdout)
    link_address = next((entry["lladdr"] for entry in known if "lladdr" in entry), None)
    if link_address is None:
        raise LabError(f"{client.name}'s router {route['gateway']} does not answer")
    return {"interface": route["dev"], "link_address": link_address}


def store(directory: Path, packets: Iterable[Timed]) -> Path:
    """Writes packets into a file that the sender reads, and returns it."""
    path = directory / f"packets-{next(_numbers)}.txt"
    with open(path, "w") as file:
        file.writelines(f"{at_s:.9f} {packet.hex()}\n" for at_s, packet in packets)
    return path


def from_scapy(packets: Any) -> list[bytes]:
    """Returns the IP packets of a Scapy packet or a list of them, or of bytes; WrongUse for anything else."""
    listed = packets if isinstance(packets, list | tuple) else [packets]
    try:
        return [_without_link_layer(packet) for packet in listed]
    except TypeError:
        raise WrongUse(f"packets are Scapy's or bytes, not {type(packets).__name__}") from None


def _without_link_layer(packet: Any) -> bytes:
    from scapy.layers.l2 import Ether

    if isinstance(packet, Ether):
        packet = packet.payload
    if isinstance(packet, str | int):
        raise TypeError
    return bytes(packet)


def to_vips(packets: Iterable[bytes], vips: Sequence[Network]) -> list[str]:
    """Returns the VIPs that packets go to, each once; WrongUse for a packet that goes elsewhere, or is none."""
    found: dict[str, None] = {}
    for number, packet in enumerate(packets):
        try:
            target = destination(packet)
        except ValueError as error:
            raise WrongUse(f"packet {number}: {error}") from None
        if not any(ip_address(target) in vip for vip in vips):
            allowed = ", ".join(map(str, vips))
            raise WrongUse(f"packet {number} goes to {target}; traffic goes to VIPs only, which are {allowed}")
        found[target] = None
    return list(found)


def from_capture(path: Path, vips: Sequence[Network], sources: Mapping[int, str]) -> list[Timed]:
    """Returns a capture's packets to VIPs with their times; `sources` are source addresses to give them, by version.

    Link layers are Ethernet or none. All that goes elsewhere is passed over; WrongUse if that leaves nothing.
    """
    kept, first_s = [], None
    for at_s, packet in _captured(path):
        if not _is_to(packet, vips):
            continue
        first_s = at_s if first_s is None else first_s
        source = sources.get(packet[0] >> 4)
        kept.append((max(0.0, at_s - first_s), with_source(packet, ip_address(source).packed) if source else packet))
    if not kept:
        raise WrongUse(f"{path} has no packet to a VIP; those are {', '.join(map(str, vips))}")
    return kept


def _is_to(packet: bytes, vips: Sequence[Network]) -> bool:
    try:
        target = ip_address(destination(packet))
    except ValueError:
        return False
    return any(target in vip for vip in vips)


def _captured(path: Path) -> Iterator[Timed]:
    """Yields time and IP packet of every frame of a pcap or pcapng file; frames of other protocols are left out."""
    from scapy.error import Scapy_Exception
    from scapy.utils import RawPcapNgReader, RawPcapReader

    try:
        with RawPcapReader(str(path)) as reader:
            is_ng = isinstance(reader, RawPcapNgReader)
            for frame, meta in reader:
                link_type = getattr(meta, "linktype", None) if is_ng else reader.linktype
                at_s = _time_ng(meta) if is_ng else meta.sec + meta.usec / (1e9 if reader.nano else 1e6)
                if packet := _packet_of(frame, link_type):
                    yield at_s, packet
    except (OSError, Scapy_Exception) as error:
        raise WrongUse(f"{path} cannot be read as a capture: {error}") from None


def _time_ng(meta: Any) -> float:
    return float(((meta.tshigh << 32) + meta.tslow) / meta.tsresol)


def _packet_of(frame: bytes, link_type: int | None) -> bytes:
    """Returns the IP packet in a frame, b"" if there is none."""
    if link_type in LINK_TYPES_OF_IP:
        return frame
    if link_type not in LINK_TYPES_OF_ETHERNET:
        return b""
    at = ETHERNET_BYTES + VLAN_BYTES * (frame[12:14] == VLAN)
    return frame[at:] if frame[at - 2 : at] in ETHERTYPES_OF_IP else b""
