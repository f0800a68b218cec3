"""QUIC by connection ID: a connection that changes its client's address keeps its endpoint (QUIC-LB).

QUIC tells connections apart by IDs that the receiver has chosen, not by addresses (RFC 9000 §5.1). A server that puts
its own name into the IDs it chooses can be found by them, whatever 5-tuple a packet comes with and whichever Maglev it
comes to, and nobody has to remember anything. How the name stands there is draft-ietf-quic-load-balancers, the scheme
without a key:

    connection ID   | config ID (3 bits), any 5 bits | server ID, `server_id_bytes` | nonce, 4 bytes or more |

A **server ID** is the end of the endpoint's address, of so many bytes: both sides know it without being told. Of the
packet only what all versions of QUIC have in common is looked at (RFC 8999 §5):

    long header     |1| 7 bits | version, 4 bytes | length | destination connection ID, so many bytes | …
    short header    |0| 7 bits | destination connection ID, whose length only its server knows | …

A client that opens a connection has no ID from the server yet, and takes a random one: such a packet names nobody, and
goes as any other of its flow. (One that names an endpoint by chance goes there; with 4 bytes and 1,000 endpoints, that
is one in 34 million.)

Left out: server IDs in cipher, which keep observers from linking a connection's addresses, and two schemes at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

LONG_HEADER = 0x80  # of the first byte (RFC 8999 §5.1)
LENGTH_AT = 5  # where a long header has the length of its destination connection ID
CONFIG_ID_SHIFT = 5  # behind the config ID, in the first byte of a connection ID
NOT_ROUTABLE = 7  # the config ID of connection IDs that say nothing of a server
FEWEST_NONCE_BYTES = 4
LONGEST_SERVER_ID_BYTES = 15


class Scheme(NamedTuple):
    """Which connection IDs have a server ID, and how long that is."""

    config_id: int  # 0 to 6
    server_id_bytes: int  # 1 to 15

    @property
    def fewest_bytes(self) -> int:
        """The bytes of the shortest connection ID with a server ID."""
        return 1 + self.server_id_bytes + FEWEST_NONCE_BYTES


class Servers(NamedTuple):
    """The endpoints (16 bytes each) that take packets now, by server ID."""

    scheme: Scheme
    endpoints: Mapping[bytes, bytes]

    def named_in(self, datagram: bytes) -> bytes | None:
        """Returns the endpoint that a datagram's connection ID names, None if it names none of these."""
        found = server_id(datagram, self.scheme)
        return None if found is None else self.endpoints.get(found)


def servers(scheme: Scheme, endpoints: Iterable[bytes]) -> Servers:
    """Returns endpoints by their server IDs, which must differ (the configuration sees to that)."""
    return Servers(scheme, {server_id_of(endpoint, scheme.server_id_bytes): endpoint for endpoint in endpoints})


def server_id_of(endpoint: bytes, server_id_bytes: int) -> bytes:
    """Returns the server ID of an endpoint (16 bytes)."""
    return endpoint[-server_id_bytes:]


def server_id(datagram: bytes, scheme: Scheme) -> bytes | None:
    """Returns the server ID in a UDP datagram's destination connection ID, None if there is none of the scheme."""
    if not datagram:
        return None
    if datagram[0] & LONG_HEADER:
        begins = LENGTH_AT + 1
        if len(datagram) < begins or not scheme.fewest_bytes <= datagram[LENGTH_AT] <= len(datagram) - begins:
            return None
    else:
        begins = 1
        if len(datagram) < begins + scheme.fewest_bytes:
            return None
    if datagram[begins] >> CONFIG_ID_SHIFT != scheme.config_id:
        return None
    return datagram[begins + 1 : begins + 1 + scheme.server_id_bytes]
