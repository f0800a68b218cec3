"""The statistics of verdicts: against published tables, exact arithmetic, and dice."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.verify.statistics import binomial_tail, chi_square_tail, fit, most_likely

# NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.4: upper critical values of chi-square
CRITICAL = {
    0.05: {1: 3.841, 2: 5.991, 5: 11.070, 10: 18.307, 51: 68.669, 100: 124.342},
    0.001: {1: 10.828, 2: 13.816, 5: 20.515, 10: 29.588, 51: 87.968, 100: 149.449},
}


@pytest.mark.parametrize(("tail", "degrees"), [(tail, degrees) for tail, row in CRITICAL.items() for degrees in row])
def test_the_tail_of_chi_square_is_that_of_published_tables(tail: float, degrees: int) -> None:
    assert chi_square_tail(CRITICAL[tail][degrees], degrees) == pytest.approx(tail, rel=2e-3)


@given(st.floats(0, 2000), st.integers(1, 300))
def test_the_tail_of_chi_square_is_a_probability_that_falls(statistic: float, degrees: int) -> None:
    here, further = chi_square_tail(statistic, degrees), chi_square_tail(statistic + 1, degrees)
    assert 0 <= further <= here + 1e-12 <= 1 + 1e-12


@pytest.mark.parametrize(("p", "n"), [(Fraction(1, 3), 12), (Fraction(1, 100), 40), (Fraction(9, 10), 7)])
def test_the_tail_of_the_binomial_is_the_exact_sum(p: Fraction, n: int) -> None:
    for k in range(n + 2):
        exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
        assert binomial_tail(k, n, float(p)) == pytest.approx(float(exact), rel=1e-9)


@given(st.integers(0, 400), st.floats(0, 1), st.sampled_from([1e-2, 1e-4, 1e-6]))
def test_the_most_likely_number_is_the_last_that_chance_reaches(n: int, p: float, significance: float) -> None:
    most = most_likely(n, p, significance)
    assert binomial_tail(most, n, p) >= significance * (1 - 1e-9)
    assert binomial_tail(most + 1, n, p) < significance * (1 + 1e-9)


@pytest.mark.parametrize("shares", [[1 / 3] * 3, [0.25, 0.25, 0.5], [0.1] * 10])
@pytest.mark.parametrize("flows", [100, 1000])
def test_dice_are_refused_as_often_as_stated(shares: list[float], flows: int) -> None:
    """Fair samples: the share of those whose tail is below 1 % is 1 %, within five standard deviations."""
    samples = np.random.default_rng(2016).multinomial(flows, shares, size=20_000)
    names = [str(number) for number in range(len(shares))]
    by_name = dict(zip(names, shares, strict=True))
    tails = [fit(dict(zip(names, map(int, sample), strict=True)), by_name).tail for sample in samples]
    refused = sum(tail < 0.01 for tail in tails) / len(tails)
    assert refused == pytest.approx(0.01, abs=5 * math.sqrt(0.01 * 0.99 / len(tails)) + 0.001)


def test_what_has_no_share_may_have_no_flow() -> None:
    assert fit({"a": 50, "b": 50, "c": 1}, {"a": 0.5, "b": 0.5}).tail == 0.0
    assert fit({"a": 50, "b": 50, "c": 0}, {"a": 0.5, "b": 0.5}).tail == 1.0


def test_fits_judged_together_have_their_statistics_and_degrees_added() -> None:
    one, other = fit({"a": 60, "b": 40}, {"a": 0.5, "b": 0.5}), fit({"c": 30, "d": 30}, {"c": 0.5, "d": 0.5})
    both = one + other
    assert (both.statistic, both.degrees) == (4.0, 2)
    assert both.tail == pytest.approx(math.exp(-2.0))  # with two degrees of freedom
