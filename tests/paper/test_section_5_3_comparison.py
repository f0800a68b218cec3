"""What §5.3 of the Maglev paper measures: Maglev hashing beside Karger's ring and rendezvous hashing.

N = 1000 backends. The paper prints single figures, and a curve without numbers for disruption (figure 12). Bounds are
therefore from trials of our own, as each docstring says; names and seeds are fixed, so that a test's figures are
always the same.
"""

from __future__ import annotations

from functools import cache, partial
from time import perf_counter

import numpy as np
import pytest

from maglev import comparison
from maglev.baselines import TABLES, ring_shares
from maglev.comparison import table_without
from maglev.hashing import offset_and_skip, populate

SMALL, LARGE = 65537, 655373
N = 1000


@cache
def backends(trial=0):
    return tuple(f"trial-{trial}-backend-{i}" for i in range(N))


# Figure 11: how evenly the load spreads


def over_provisioning(scheme, table_size, trial):
    """How much more than its mean share, in percent, the most loaded backend must be able to bear."""
    return 100 * comparison.over_provisioning(TABLES[scheme](backends(trial), table_size, None), N)


@pytest.mark.parametrize(
    ("scheme", "table_size", "trials", "lowest", "highest"),
    [
        ("rendezvous", SMALL, 9, 34, 48),
        ("rendezvous", LARGE, 3, 11.2, 14.7),
        ("ring", SMALL, 9, 39, 46),
        ("ring", LARGE, 9, 11.1, 13.3),
    ],
)
def test_the_older_schemes_need_over_provisioning(scheme, table_size, trials, lowest, highest):
    """§5.3, figure 11: a small table spreads load badly under Karger's scheme and rendezvous, a large one less so.

    The paper has 29.7 % and 49.5 % at 65537, 10.3 % and 12.3 % at 655373. The bounds are the range of 90 % of own
    trials. It is what chance makes of it: rendezvous deals 65.5 slots each with a sd of 8.1, and the most loaded of a
    thousand is about 3.3 sd above the mean, 41 %; at 655373, sd 25.6 of 655.4, 13 %.
    """
    median = np.median([over_provisioning(scheme, table_size, trial) for trial in range(trials)])
    assert lowest < median < highest


def test_rendezvous_contains_the_papers_figure_at_the_large_size():
    """§5.3: 12.3 % lies among own trials of rendezvous at 655373; of 100 it is the median (docs/figures.md)."""
    trials = [over_provisioning("rendezvous", LARGE, trial) for trial in range(6)]
    assert min(trials) < 12.3 < max(trials)


def test_a_ring_without_a_table_contains_the_papers_figures():
    """§5.3, another reading: 10.3 % is what 1,000 points a backend give on the ring itself, 29.7 % what 150 may give.

    With k points a share has a relative sd of about 1 / sqrt(k), and the largest of a thousand is 3.3 above the mean.
    """
    for points, paper in ((1000, 10.3), (150, 29.7)):
        found = comparison.spread([100 * (N * ring_shares(backends(trial), points).max() - 1) for trial in range(40)])
        assert found.contains(paper), found


@pytest.mark.parametrize(("table_size", "percent"), [(SMALL, 0.71), (LARGE, 0.10)])
def test_maglev_needs_almost_none(table_size, percent):
    """§5.3, figure 11: Maglev's balance is almost perfect at either size.

    66 slots where the mean is 65.537 is 0.71 % more; 656 where it is 655.373, 0.10 %.
    """
    assert over_provisioning("maglev", table_size, trial=0) == pytest.approx(percent, abs=0.005)


# Figure 12: what changes when backends are removed


def disruption(scheme, table_size, gone):
    """What changes when the backends `gone` are removed."""
    before = table_of_all(scheme, table_size)
    after = table_without(lambda stay, size: TABLES[scheme](stay, size, None), backends(), table_size, gone)
    assert not np.isin(after, gone).any()
    return comparison.disruption(before, after, gone)


@cache
def table_of_all(scheme, table_size):
    return TABLES[scheme](backends(), table_size, None)


@cache
def median_disruption(table_size, removed, trials):
    """Of Maglev hashing, in percent of all slots: without the removed backends' own slots, and with them."""
    random = np.random.default_rng([table_size, removed])
    shares = []
    for _ in range(trials):
        found = disruption("maglev", table_size, random.choice(N, removed, replace=False))
        shares.append((100 * found.of_others, 100 * found.of_all))
    return tuple(np.median(shares, axis=0))


median_at_small = partial(median_disruption, SMALL, trials=200)
median_at_large = partial(median_disruption, LARGE, trials=15)


@pytest.mark.parametrize(("removed", "lowest", "highest"), [(1, 0.5, 0.7), (5, 1.6, 2.0), (10, 2.1, 2.7)])
def test_few_other_slots_change_in_the_small_table(removed, lowest, highest):
    """§5.3, figure 12: after k of 1000 backends are removed at random, few slots of the others change, at 65537.

    About 0.6, 1.8 and 2.4 % for k = 1, 5, 10. Own medians of 200 trials, over six sets of names, were 0.56 to 0.59,
    1.79 to 1.84 and 2.30 to 2.37; the bounds leave twice that spread and more.
    """
    without_own, _ = median_at_small(removed)
    assert lowest < without_own < highest


@pytest.mark.parametrize("removed", [1, 5, 10])
def test_the_large_table_is_more_resilient(removed):
    """§5.3, figure 12: at 655373 far fewer slots change; own trials had 0.33, 0.47 and 0.58 % for k = 1, 5, 10.

    At least a third less than in the small table for one backend; for ten, a quarter of it.
    """
    small, large = median_at_small(removed)[0], median_at_large(removed)[0]
    assert large < {1: 0.67, 5: 0.33, 10: 0.3}[removed] * small
    assert 0.25 < large < 0.7


@pytest.mark.parametrize("median", [median_at_small, median_at_large])
@pytest.mark.parametrize("removed", [1, 5, 10])
def test_the_removed_backends_own_slots_change_besides(removed, median):
    """§5.3: counted with the slots that had to change, k / 1000 of the table, disruption is larger by just that."""
    without_own, with_own = median(removed)
    assert with_own - without_own == pytest.approx(100 * removed / N, abs=0.02)


@pytest.mark.parametrize("scheme", ["ring", "rendezvous"])
def test_the_older_schemes_change_no_other_slot(scheme):
    """§5.3: the ring and rendezvous guarantee what Maglev trades for balance: nobody else's slot changes."""
    found = disruption(scheme, SMALL, np.array([3, 141, 592]))
    assert found.of_others == 0
    assert found.of_all > 0


@pytest.mark.parametrize("gone", [0, 500, 999])
def test_modulo_changes_nearly_all(gone):
    """§3.4: without consistent hashing nearly all connections move when one backend goes: i mod 1000 to i mod 999."""
    assert disruption("modulo", SMALL, np.array([gone])).of_all > 0.95


# How long it takes


@pytest.mark.parametrize(("table_size", "paper_ms"), [(SMALL, 1.8), (LARGE, 22.9)])
def test_a_table_is_made_in_milliseconds(table_size, paper_ms):
    """§5.3: 1.8 ms at 65537 and 22.9 ms at 655373 on the paper's machine.

    Ten times as much is allowed, for slow machines under load; an interpreted loop takes several hundred times.
    """
    wishes = np.array([offset_and_skip(name, table_size) for name in backends()])
    seconds = []
    for _ in range(5):
        begin = perf_counter()
        populate(wishes[:, 0], wishes[:, 1], table_size)
        seconds.append(perf_counter() - begin)
    assert 1000 * min(seconds) < 10 * paper_ms
