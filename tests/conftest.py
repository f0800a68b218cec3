"""Tests of all kinds may run a lab."""

pytest_plugins = ["lab.pytest_plugin"]
