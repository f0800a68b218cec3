"""Tests of all kinds may run a lab; properties are not held to a time, which other users of the machine decide."""

from hypothesis import settings

pytest_plugins = ["lab.pytest_plugin"]

settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
