"""Exercise 3: Maglev hashing, and what it is measured by. Your code; `maglab check 3` judges it.

The functions are those of `maglev.hashing` and `maglev.comparison`, with the same names and arguments, so that a lab
can run with yours in their place. They may return lists or NumPy arrays, as you like, and may be given either.
"""

from __future__ import annotations

from collections.abc import Sequence

from maglev.comparison import Disruption  # of_all, of_others
from maglev.hashing import offset_and_skip  # given: offset_and_skip("10.2.1.2", 65537) is (42840, 51179)

NOBODY = -1  # what a slot holds when there is no backend


def permutation(offset: int, skip: int, table_size: int) -> Sequence[int]:
    """Returns all slots, 0 to M-1, in the order in which a backend wants them: the first is `offset`."""
    raise NotImplementedError("step 1: list the slots in the order in which a backend wants them")


def populate(
    offsets: Sequence[int], skips: Sequence[int], table_size: int, weights: Sequence[float] | None = None
) -> Sequence[int]:
    """Returns the lookup table: for each of the M slots the number of its backend, or NOBODY.

    Backend i has `offsets[i]` and `skips[i]`. Without weights, backends take turns in the order of their numbers.
    With weights (step 4), one of weight 2 takes twice as many turns as one of weight 1, and one of weight 0 none;
    equal weights give the same table as no weights. If nobody has any weight, every slot holds NOBODY.
    """
    if weights is not None:
        raise NotImplementedError("step 4: let backends of larger weight take more turns")
    raise NotImplementedError("step 2: let backends take turns, each taking the first slot of its list that is free")


def lookup_table(
    names: Sequence[str], table_size: int = 65537, weights: Sequence[float] | None = None
) -> Sequence[int]:
    """Returns the lookup table of backends known by name: for each slot a place in `names`, or NOBODY.

    Two Maglevs that list the same names in another order must give every slot to the same name.
    """
    raise NotImplementedError("step 3: make the table of named backends, whatever the order of their names")


def over_provisioning(table: Sequence[int], backends: int) -> float:
    """Returns by how much the largest of N backends' shares exceeds the mean share: 0.3 for 30 % more."""
    raise NotImplementedError("step 5: compare the largest share with the mean share")


def disruption(before: Sequence[int], after: Sequence[int], gone: Sequence[int]) -> Disruption:
    """Returns which share of all slots changed when the backends `gone` went: of all slots, and of others' slots."""
    raise NotImplementedError("step 6: count the slots that changed hands, with and without those of `gone`")
