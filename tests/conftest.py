"""Tests of all kinds may run a lab; properties are not held to a time, which other users of the machine decide.

Some files take a minute each for what others show on the rack already: MAGLAB_ALL=1 runs them too.
"""

import os

import pytest
from hypothesis import settings

pytest_plugins = ["lab.pytest_plugin"]

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

LONG = {"test_sdn.py", "test_sites.py", "test_rack_frr.py", "test_pod_frr.py", "test_bgp_interop.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Passes over what takes long, unless it is named on the command line or all is asked for."""
    if "MAGLAB_ALL" in os.environ:
        return
    for item in items:
        named = any(item.path.name in argument for argument in item.config.invocation_params.args)
        if item.path.name in LONG and not named:
            item.add_marker(pytest.mark.skip(reason="takes a minute: MAGLAB_ALL=1 runs it"))
