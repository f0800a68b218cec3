"""Exercise 1: first flight. Your answers; `maglab check 1` looks whether they are right, in a rack of its own.

No code is asked for: put an answer in the place of each `raise`, such as `return "ip address show"`. Commands are what
you would type behind a node's name in the console. Where `{port}` stands in an answer, keep the f in front of it:
`return f"… {port} …"`; you will be asked about other ports than yours.
"""

from __future__ import annotations

from collections.abc import Mapping


def routes() -> str:
    """Returns what is typed at r1 to see all next hops by which it sends to the VIP, 192.0.2.1."""
    raise NotImplementedError("step 1: what shows r1's next hops for the VIP?")


def maglev_of(port: int) -> str:
    """Returns what is typed at r1 to see where it sends the connection from c1's `port` to the VIP's port 80."""
    raise NotImplementedError("step 2: what shows which Maglev r1 sends one connection to?")


def endpoint_of(port: int) -> str:
    """Returns what is typed at c1 to have an endpoint say who it is, over a connection from `port`."""
    raise NotImplementedError("step 3: what has the endpoint of one connection say who it is?")


def seen_at_endpoint(port: int) -> str:
    """Returns a filter for tcpdump which lets through the packets of that connection in GRE, and no others.

    c1 sends them by TCP to port 80 of the VIP; a Maglev has put them into GRE. No header has options.
    """
    raise NotImplementedError("step 4: what lets tcpdump see one connection inside GRE?")


def predictions() -> Mapping[str, int]:
    """Returns how many of 200 connections, over three Maglevs and four endpoints, break in each event."""
    raise NotImplementedError("step 5: predict how many connections break")
    return {"a Maglev dies": ..., "it returns": ..., "an endpoint dies": ...}


def true_statements() -> str:
    """Returns the letters of the README's statements that are true, such as "ad"."""
    raise NotImplementedError("step 6: which of the statements are true?")
