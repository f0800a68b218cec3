"""A contender of Maglev hashing, and what it claims: what exercise 14 asks for.

    disruption   smaller: only where somebody was full does a slot change hands whose backend has stayed
    balance      worse: up to a tenth above the mean share, where Maglev hashing is off by a slot
    build time   longer: every slot asks every backend

Left out: weighing these against each other, which is for whoever runs the site to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from numpy.typing import ArrayLike

from maglev.baselines import bounded_table
from maglev.hashing import TABLE_SIZE, Table

Axis = Literal["balance", "disruption", "build time", "memory", "migration"]
NONCE_BYTES = 8


class Claim(NamedTuple):
    """On which axis a scheme beats Maglev hashing, and what it comes to on those where it does worse."""

    beats: Axis
    costs: Mapping[Axis, float]


def claim() -> Claim:
    """Returns what this scheme is good for, and what it costs."""
    return Claim("disruption", {"balance": 0.11, "build time": 200.0})


def lookup_table(names: Sequence[str], table_size: int = TABLE_SIZE, weights: ArrayLike | None = None) -> Table:
    """Returns the lookup table, with the contract of `hashing.lookup_table`."""
    return bounded_table(names, table_size, weights)


def connection_id(backend: int, nonce: bytes) -> bytes:
    """Returns the connection ID that a backend gives a client: the backend's number, and the nonce (see `quic`)."""
    return backend.to_bytes(2, "big") + nonce


def backend_of(identification: bytes) -> int | None:
    """Returns the number of the backend that a connection ID names; it may be that of nobody."""
    return int.from_bytes(identification[:2], "big") if len(identification) == 2 + NONCE_BYTES else None
