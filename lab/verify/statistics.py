"""The statistics behind verdicts: how often chance alone would do what was seen, or worse. Pure, standard library.

A claim of balance is refused only when what was seen would come by chance less often than `SIGNIFICANCE`. That is also
how often a verdict on a perfectly balanced lab is wrong: with 100 such verdicts a run, one run in a hundred shows a
false alarm. Whoever judges the same claim k times asks for `SIGNIFICANCE / k` (Bonferroni), which keeps all together
below it. What one verdict can see grows with the flows: the smallest imbalance that it surely finds shrinks with the
root of their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

SIGNIFICANCE = 1e-4
# Flows that must be expected in each cell before chi-square's tail means what it says (Cochran, 1954). In a million
# samples a case, 2 to 20 cells, even and uneven, false alarms came at most twice as often as stated with 5, and as
# stated with 100.
FEWEST_EXPECTED = 5


@dataclass(frozen=True)
class Fit:
    """How counts compare with the shares that they should have (Pearson's chi-square)."""

    statistic: float
    degrees: int  # of freedom
    tail: float  # how often chance alone is as far off, or further
    expected: Mapping[str, float]  # counts

    def __add__(self, other: Fit) -> Fit:
        """Returns both judged as one: independent chi-squares add up, and so do their degrees of freedom."""
        statistic, degrees = self.statistic + other.statistic, self.degrees + other.degrees
        tail = chi_square_tail(statistic, degrees)
        return Fit(statistic, degrees, tail, {**self.expected, **other.expected})


def fit(counts: Mapping[str, int], shares: Mapping[str, float]) -> Fit:
    """Returns how well counts of independent flows fit shares, which add up to 1; what has no share must have none."""
    total = sum(counts.values())
    expected = {name: total * share for name, share in shares.items() if share > 0}
    if any(count for name, count in counts.items() if name not in expected):
        return Fit(math.inf, max(1, len(expected) - 1), 0.0, expected)
    statistic = sum((counts.get(name, 0) - mean) ** 2 / mean for name, mean in expected.items() if mean)
    degrees = len(expected) - 1
    return Fit(statistic, degrees, chi_square_tail(statistic, degrees), expected)


def chi_square_tail(statistic: float, degrees: int) -> float:
    """Returns how often a chi-square of so many degrees of freedom is `statistic` or more.

    Exact: for whole degrees the regularised gamma function Q(degrees / 2, statistic / 2) is a finite sum
    (Abramowitz and Stegun, 26.4.4 and 26.4.5).
    """
    half = statistic / 2
    if half <= 0 or degrees == 0:
        return 1.0
    if math.isinf(statistic):
        return 0.0
    tail = math.erfc(math.sqrt(half)) if degrees % 2 else 0.0
    powers = (degrees % 2 / 2 + step for step in range(degrees // 2))
    return min(1.0, tail + sum(_poisson(power, half) for power in powers))


def _poisson(power: float, mean: float) -> float:
    """Returns mean ** power * exp(-mean) / gamma(power + 1), without leaving what a float can hold."""
    return math.exp(power * math.log(mean) - mean - math.lgamma(power + 1))


def binomial_tail(successes: int, trials: int, probability: float) -> float:
    """Returns how often `successes` or more of so many independent trials succeed: the exact sum."""
    if successes <= 0:
        return 1.0
    if probability <= 0 or successes > trials:
        return 0.0
    if probability >= 1:
        return 1.0
    return min(1.0, math.fsum(_binomial(k, trials, probability) for k in range(successes, trials + 1)))


def _binomial(k: int, trials: int, probability: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
    return math.exp(ways + k * math.log(probability) + (trials - k) * math.log1p(-probability))


def most_likely(trials: int, probability: float, significance: float = SIGNIFICANCE) -> int:
    """Returns the largest number of successes that chance reaches, or passes, at least as often as `significance`."""
    tail = 0.0
    for k in range(trials, 0, -1):
        tail += _binomial(k, trials, probability) if 0 < probability < 1 else float(probability == 1)
        if tail >= significance:
            return k
    return 0
