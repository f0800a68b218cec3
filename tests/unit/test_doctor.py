"""Whether a machine is fit for a lab, from what was found on it."""

from __future__ import annotations

import pytest

from lab.doctor import is_fit
from lab.finding import Finding

ALL = {"root": True, "veth": True, "TUN": True, "kernel GRE": True, "netem": True}
NEEDED = {"root", "veth"}

MACHINES = [  # what is missing, whether a lab can run
    ((), True),
    (("veth",), False),
    (("netem",), True),
    (("TUN",), True),
    (("kernel GRE", "netem"), True),
    (("TUN", "kernel GRE"), False),
]


@pytest.mark.parametrize(("missing", "fit"), MACHINES)
def test_a_lab_needs_what_is_needed_and_one_way_to_decapsulate(missing, fit):
    findings = [Finding(what, what not in missing, what in NEEDED, "") for what in ALL]
    assert is_fit(findings) is fit, f"without {', '.join(missing) or 'nothing'} a lab should {'' if fit else 'not '}run"
