"""The command `maglab` as a user types it."""

from __future__ import annotations

import json

import pytest
from commands import maglab
from wires import VIP, VIP6

CONNECTIONS = 60
EVENTS = ["kill m1", "revive m1", "drain s5", "undrain s5", "kill s4", "revive s4", "power off m3"]
PROMISED = {
    "ok", "connections", "events", "ecmp_shares", "endpoint_shares", "return_packets_through_maglevs", "start_s",
    "total_s",
}  # fmt: skip
PROMISED_OF_EVENTS = {"event", "broken", "expected_broken", "converged_s", "longest_silence_ms"}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A demo with --compare and --json: how it ended, and the document that it wrote."""
    file = tmp_path_factory.mktemp("demo") / "result.json"
    done = maglab("demo", "--compare", "--connections", str(CONNECTIONS), "--json", str(file))
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stdout[-2000:]} {done.stderr}"
    return done, json.loads(file.read_text())


def broken_by(document, changes):
    return sum(event["broken"] for event in document["events"] if event["changes"] == changes)


# The demo


def test_the_demo_breaks_nothing_that_should_have_lived(compared):
    _, document = compared
    assert document["ok"] is True
    assert {event["event"]: event["broken"] for event in document["events"]} == dict.fromkeys(EVENTS, 0)
    assert document["return_packets_through_maglevs"] == 0


def test_the_demos_json_has_what_is_promised(compared):
    for document in (compared[1], compared[1]["compared_with"]):
        assert document.keys() >= PROMISED
        assert document["connections"] == CONNECTIONS
        assert [event["event"] for event in document["events"]] == EVENTS
        for event in document["events"]:
            assert event.keys() >= PROMISED_OF_EVENTS
            assert 0 <= event["converged_s"] < 30, event
            assert 0 < event["longest_silence_ms"] < 30_000, event
        for shares, names in (("ecmp_shares", ["m1", "m2", "m3"]), ("endpoint_shares", ["s1", "s2", "s3", "s4", "s5"])):
            assert list(document[shares]) == names
            assert sum(document[shares].values()) == pytest.approx(1, abs=0.001)
        assert 0 < document["start_s"] < document["total_s"]


def test_an_endpoint_that_dies_takes_its_share_of_the_connections(compared):
    _, document = compared
    doomed = {event["event"]: event["expected_broken"] for event in document["events"]}
    assert doomed.pop("kill s4") == round(document["endpoint_shares"]["s4"] * CONNECTIONS)
    assert set(doomed.values()) == {0}


def test_modulo_hashing_without_a_table_breaks_over_a_third_by_changes_of_endpoints(compared):
    _, document = compared
    other = document["compared_with"]
    assert (other["hash"], other["connection_table"], other["ok"]) == ("modulo", False, False)
    should_have_lived = CONNECTIONS - sum(event["expected_broken"] for event in other["events"])
    by_endpoints = broken_by(other, "endpoints")
    assert by_endpoints > should_have_lived / 3, f"{by_endpoints} of {should_have_lived} broke"
    assert broken_by(other, "maglevs") == 0, "a change of Maglevs broke connections: they do not choose alike"


def test_compare_prints_both_runs_and_what_each_has_shown(compared):
    done, _ = compared
    for words in (
        "60 connections, maglev hashing, connection table on",
        "60 connections, modulo hashing, connection table off",
        "OK: no connection broke that should have lived",
        "BROKEN: ",
        "changes of endpoints",
        *EVENTS[:-1],
    ):
        assert words in " ".join(done.stdout.split()), f"expected {words!r} in: {done.stdout}"
    assert "\x1b" not in done.stdout, "without a terminal the demo prints plain lines"
    assert done.stderr == ""


def test_a_demo_whose_claims_do_not_hold_says_so_by_its_exit_status():
    arguments = ["--hash", "modulo", "--connection-table", "off", "--connections", "30", "--maglevs", "2"]
    done = maglab("demo", *arguments, "--endpoints", "3", "--clients", "1")
    assert done.returncode == 1, f"expected 1, got exit status {done.returncode}: {done.stdout[-500:]} {done.stderr}"
    assert "BROKEN: " in done.stdout


# Others


def test_up_opens_a_console_on_the_nodes():
    done = maglab("up", "rack", "--maglevs", "2", "--endpoints", "2", text=f"c1 curl -s http://{VIP}/\nexit\n")
    assert done.returncode == 0, done.stderr
    assert any(f"s{number} answers 10.0.1.2\n" in done.stdout for number in (1, 2)), done.stdout
    for place in (f"VIPs: www {VIP}:80, echo {VIP}:7, ", f"www6 [{VIP6}]:80, echo6 [{VIP6}]:7"):
        assert place in done.stdout, f"should name the VIPs, but said {done.stdout}"
    assert done.stdout.endswith("taking it away\n")


def test_doctor_says_what_this_machine_has(tmp_path):
    file = tmp_path / "findings.json"
    done = maglab("doctor", "--json", str(file))
    document = json.loads(file.read_text())
    assert document["ok"] is True, done.stdout
    assert done.returncode == 0
    assert "A lab can run here." in done.stdout
    found = {finding["what"]: finding["found"] for finding in document["findings"]}
    assert found["root"]
    assert {"TUN", "kernel GRE", "netem", "nftables", "veth"} <= found.keys()
    assert all(finding["found"] for finding in document["findings"] if finding["needed"])
