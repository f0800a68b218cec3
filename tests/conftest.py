"""Tests of all kinds may run a lab; properties are not held to a time, which other users of the machine decide.

Some files take a minute each for what others show on the rack already: MAGLAB_ALL=1 runs them too. Those marked `alone`
look at the whole machine, or at how fast it is: they run when no others do.
"""

import os

import pytest
from hypothesis import settings

pytest_plugins = ["lab.pytest_plugin"]

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

LONG = {"test_sdn.py", "test_sites.py", "test_rack_frr.py", "test_pod_frr.py", "test_bgp_interop.py"}
ALONE = {
    "test_bad_input.py", "test_bench_runs.py", "test_big_lab.py", "test_hygiene.py", "test_lab_observe.py",
    "test_own_tests.py", "test_scale.py", "test_sharded.py", "test_sudden_deaths.py", "test_top.py",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what runs alone, and passes over what takes long, unless it is named or all is asked for."""
    for item in items:
        if item.path.name in ALONE:
            item.add_marker(pytest.mark.alone)
    if "MAGLAB_ALL" in os.environ:
        return
    for item in items:
        named = any(item.path.name in argument for argument in item.config.invocation_params.args)
        if item.path.name in LONG and not named:
            item.add_marker(pytest.mark.skip(reason="takes a minute: MAGLAB_ALL=1 runs it"))
