"""Passwords of BGP sessions: which are allowed, who may read them, and that no refusal repeats one."""

from __future__ import annotations

import ast
import stat
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import Lab, tcp_md5
from lab.errors import LabError
from topologies.rack import Rack

ALLOWED = string.ascii_letters + string.digits + "._~+/=@%:,-"


@given(st.text(ALLOWED, max_size=80))
def test_what_bird_and_exabgp_take_literally_is_allowed(password):
    assert tcp_md5.checked(password) == password


REFUSED = [
    "x" * 81, "two words", 'quo"te', "quo'te", "semi;colon", "back\\slash", "{brace", "#comment", "naïve", "line\n",
    "tab\t", None, 5, b"bytes",
]  # fmt: skip


@pytest.mark.parametrize("password", REFUSED, ids=ascii)
def test_what_they_might_not_is_refused_and_not_repeated(password):
    with pytest.raises(ValueError, match="this bgp_password is not allowed; allowed: up to 80 letters") as refusal:
        tcp_md5.checked(password)
    assert str(password) not in str(refusal.value)


def test_a_topology_refuses_it_before_anything_is_built():
    with pytest.raises(ValueError, match="bgp_password") as refusal:
        Rack(bgp_password="hush hush")
    assert "hush" not in str(refusal.value)


def test_what_a_report_says_of_a_lab_has_no_password():
    shown = Lab("rack", maglevs=2, bgp_password="hush-hush")._asked_for
    assert shown["bgp_password"] == "(not shown)"
    assert "hush" not in str(shown)
    assert tcp_md5.hidden({"maglevs": 2, "bgp_password": ""}) == {"maglevs": 2, "bgp_password": ""}


def test_a_kernel_that_cannot_sign_says_so(monkeypatch):
    monkeypatch.setattr(tcp_md5, "is_there", lambda: False)
    assert tcp_md5.usable("") == "", "without a password nothing is needed"
    with pytest.raises(LabError, match="this kernel cannot sign TCP segments") as refusal:
        tcp_md5.usable("hush")
    assert "hush" not in str(refusal.value)


def test_a_private_file_is_private_though_it_was_not_before(tmp_path):
    for name, before in (("new", None), ("old", "readable by all")):
        file = tmp_path / name
        if before:
            file.write_text(before)
            file.chmod(0o644)
        tcp_md5.write_private(file, "secret")
        assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("secret", 0o600)


def test_nodes_need_nothing_but_the_standard_library_for_it():
    tree = ast.parse(Path(tcp_md5.__file__).read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"__future__", "os", "re", "socket", "struct", "collections.abc", "pathlib", "typing", "errors"}
