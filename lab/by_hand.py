"""What one types to follow a connection through a rack by hand, and what to expect when somebody dies: exercise 1.

`trace` and `verify` ask and expect the same by themselves. Commands are those of a node's shell. The rack is that of
`topologies/rack.py`: c1 is 10.0.1.2, the VIP is 192.0.2.1, and r1's first interface is c1's.
"""

from __future__ import annotations

from collections.abc import Mapping

VIP = "192.0.2.1"
CLIENT = "10.0.1.2"


def routes() -> str:
    """Returns what is typed at r1 to see all next hops by which it sends to the VIP."""
    return f"ip route show {VIP}"


def maglev_of(port: int) -> str:
    """Returns what is typed at r1 to see where it sends the connection from c1's `port` to the VIP's port 80.

    The kernel hashes all of the flow, so all of it has to be named.
    """
    return f"ip route get {VIP} from {CLIENT} iif r1-eth0 ipproto tcp sport {port} dport 80"


def endpoint_of(port: int) -> str:
    """Returns what is typed at c1 to have an endpoint say who it is, over a connection from `port`."""
    return f"curl -s --local-port {port} http://{VIP}/"


def seen_at_endpoint(port: int) -> str:
    """Returns tcpdump's filter (pcap-filter(7)) for that connection's packets in GRE, and no others.

    Outer IPv4 header 20 bytes, GRE 4, inner IPv4 header 20, whose protocol is its tenth byte; then TCP's source port.
    """
    return f"ip proto 47 and ip[33] = 6 and ip[44:2] = {port}"


def predictions() -> Mapping[str, int]:
    """Returns how many of 200 connections over three Maglevs and four endpoints break, in each of three events."""
    return {"a Maglev dies": 0, "it returns": 0, "an endpoint dies": 50}


def true_statements() -> str:
    """Returns the letters of the statements in the exercise's README that are true."""
    return "bcf"
