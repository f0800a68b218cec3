"""How large flows are in data centres, as was measured and published; and when they come: pure, from a seed.

Sizes are in bytes, between the points of a table each as likely as the other (linear). The tables are those with which
traffic for experiments has been generated ever since, read off the papers' figures; they are published with
github.com/datacenter/empirical-traffic-gen (DCTCP_CDF, VL2_CDF).

- web search: Alizadeh et al., "Data Center TCP (DCTCP)", SIGCOMM 2010, figure 4. Half of the flows are smaller than
  80 kB, and 95 % of the bytes are in flows of over 1 MB.
- data mining: Greenberg et al., "VL2", SIGCOMM 2009, figure 2. Four flows of five are smaller than 10 kB, and
  most of the bytes are in flows of over 100 MB.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CLASSES = {"mice": 100_000, "middling": 10_000_000, "elephants": 10**18}  # pFabric §5.2: up to so many bytes


@dataclass(frozen=True)
class Distribution:
    """A cumulative distribution: of all flows, `shares[i]` are no larger than `sizes[i]`."""

    sizes: Sequence[int]
    shares: Sequence[float]

    def size(self, share: float) -> int:
        """Returns the size that this share of all flows do not exceed; at least 1."""
        above = max(1, bisect_left(self.shares, share))
        low, high = self.sizes[above - 1], self.sizes[above]
        part = (share - self.shares[above - 1]) / (self.shares[above] - self.shares[above - 1])
        return max(1, round(low + part * (high - low)))

    def share(self, size: float) -> float:
        """Returns the share of all flows that are no larger than this."""
        if size >= self.sizes[-1]:
            return 1.0
        above = max(1, bisect_left(self.sizes, size))
        part = (size - self.sizes[above - 1]) / (self.sizes[above] - self.sizes[above - 1])
        return self.shares[above - 1] + part * (self.shares[above] - self.shares[above - 1])

    def mean(self) -> float:
        """Returns the mean size."""
        ends = zip(self.sizes, self.sizes[1:], self.shares, self.shares[1:], strict=False)
        return sum((low + high) / 2 * (upper - lower) for low, high, lower, upper in ends)

    def cut(self, largest: int) -> Distribution:
        """Returns the distribution of those flows that are no larger than `largest`."""
        if largest >= self.sizes[-1]:
            return self
        whole = self.share(largest)
        kept = [(size, share / whole) for size, share in zip(self.sizes, self.shares, strict=True) if size < largest]
        return Distribution([*(size for size, _ in kept), largest], [*(share for _, share in kept), 1.0])


DISTRIBUTIONS = {
    "web_search": Distribution(
        (0, 10_000, 20_000, 30_000, 50_000, 80_000, 200_000, 10**6, 2 * 10**6, 5 * 10**6, 10**7, 3 * 10**7),
        (0.0, 0.15, 0.2, 0.3, 0.4, 0.53, 0.6, 0.7, 0.8, 0.9, 0.97, 1.0),
    ),
    "data_mining": Distribution(
        (0, 180, 216, 560, 900, 1_100, 1_870, 3_160, 10_000, 400_000, 3_160_000, 10**8, 10**9),
        (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0),
    ),
}


@dataclass(frozen=True)
class Flow:
    """One flow: when it begins, seconds after the first could have, and how many bytes it has."""

    at_s: float
    size: int


def flows(distribution: Distribution, load_bits_per_s: float, seconds: float, seed: int) -> Iterator[Flow]:
    """Yields flows of a time whose sizes have a distribution, and which come independently of each other (Poisson).

    So many come that their bytes make the load, in the long run.
    """
    dice, at_s = random.Random(seed), 0.0
    rate_per_s = load_bits_per_s / 8 / distribution.mean()
    while (at_s := at_s + dice.expovariate(rate_per_s)) < seconds:
        yield Flow(at_s, distribution.size(dice.random()))


def size_class(size: int) -> str:
    """Returns the class of a flow: mice, middling or elephants."""
    return next(name for name, most in CLASSES.items() if size <= most)
