"""`python -m maglev` as its users meet it: exit codes, what is said and where, and how its words are read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from frames import tcp
from scapy.layers.inet import IP
from scapy.utils import RawPcapReader, RawPcapWriter

import maglev
from maglev.__main__ import main

ROOT = Path(maglev.__file__).parents[1]
CLUSTER = """
maglevs: [{name: m1, address: 198.51.100.1}, {name: m2, address: 198.51.100.2}]
pools:
  web: {endpoints: [{address: 10.2.1.2}, {address: 10.2.2.2}, {address: 10.2.3.2}]}
vips: [{name: www, address: 192.0.2.1, protocol: tcp, port: 80, pool: web}]
forwarder: {table_size: 251}
"""


@pytest.fixture
def cluster(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(CLUSTER)
    return path


def wrong_use(capsys, *arguments):
    """Runs a command that must be refused as wrong use; returns the last line of what it said."""
    with pytest.raises(SystemExit) as caught:
        main(list(map(str, arguments)))
    said = capsys.readouterr()
    assert caught.value.code == 2, f"wrong use should exit with 2, but exited with {caught.value.code}"
    assert said.out == "", f"standard output should be empty, but is {said.out}"
    assert said.err.startswith("usage: python -m maglev"), f"should have shown how to use it, but said {said.err}"
    return said.err.splitlines()[-1]


REPLAY = ["replay", "--config", "x.yaml", "--maglev", "m1"]
WRONG = [
    ([], "the following arguments are required: COMMAND"),
    (["balance"], "invalid choice: 'balance'"),
    (["forwarder"], "the following arguments are required: --config"),
    (["controller"], "the following arguments are required: --config"),
    (["endpoint"], "the following arguments are required: --config"),
    (["endpoint", "--config", "x.yaml", "--address", "ten"], "argument --address: 'ten' is not an IP address"),
    (["endpoint", "--config", "x.yaml", "--decapsulation", "magic"], "invalid choice: 'magic'"),
    (["check-config"], "the following arguments are required: FILE"),
    (["check-config", "a", "b"], "unrecognized arguments: b"),
    (["trace", "192.0.2.1"], "the following arguments are required: PORT"),
    (["trace", "www", "80"], "argument ADDRESS: 'www' is not an IP address"),
    (["trace", "192.0.2.1", "0"], "argument PORT: '0' is not a whole number from 1 to 65535"),
    (["trace", "192.0.2.1", "80", "--source-port", "x"], "--source-port: 'x' is not a whole number from 1 to 65535"),
    (["trace", "192.0.2.1", "80", "--count", "1001"], "--count: '1001' is not a whole number from 1 to 1000"),
    (["trace", "192.0.2.1", "80", "--protocol", "esp"], "invalid choice: 'esp'"),
    (["trace", "192.0.2.1", "80", "--fragmented"], "--fragmented needs --protocol udp"),
    (["diff-config", "a"], "the following arguments are required: NEW"),
    (["replay", "a", "b"], "the following arguments are required: --config, --maglev"),
    (REPLAY, "expected IN.pcap and OUT.pcap side by side, found neither"),
    ([*REPLAY, "in.pcap"], "found in.pcap"),
    ([*REPLAY, "in.pcap", "out.pcap", "more.pcap"], "found in.pcap out.pcap more.pcap"),
    ([*REPLAY, "--down"], "argument --down: expected at least one argument"),
    ([*REPLAY, "--down", "10.2.1.2", "in.pcap"], "found in.pcap"),
    ([*REPLAY, "--down", "10.2.1", "in.pcap", "out.pcap"], "found 10.2.1 in.pcap out.pcap"),
    ([*REPLAY, "in.pcap", "--down", "10.2.1.2", "out.pcap"], "side by side"),
    ([*REPLAY, "--engine", "warp", "in.pcap", "out.pcap"], "invalid choice: 'warp'"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=[" ".join(case[0]) or "nothing" for case in WRONG])
def test_wrong_use_exits_with_2_and_says_what_is_wrong(capsys, arguments, said):
    last = wrong_use(capsys, *arguments)
    assert said in last, f"should have said {said!r}, but said {last!r}"


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0, f"help should exit with 0, but exited with {caught.value.code}"
    for command in ("forwarder", "controller", "endpoint", "replay", "check-config", "diff-config", "trace"):
        assert command in text, f"help should name {command}, but is {text}"


def arrangements(config, source, target):
    """The ways to name a Maglev, two endpoints that are down, and two files."""
    fixed, down, files = ["--config", config, "--maglev", "m1"], ["10.2.1.2", "10.2.3.2"], [source, target]
    return {
        "files last": [*fixed, "--down", *down, *files],
        "files first": [*files, *fixed, "--down", *down],
        "files in the middle": [*fixed, *files, "--down", *down],
        "other options behind the files": ["--down", *down, *files, *fixed],
        "two options": [*fixed, "--down", down[0], "--down", down[1], *files],
        "files between two options": [*fixed, "--down", down[0], *files, "--down", down[1]],
        "a separator": [*fixed, "--down", *down, "--", *files],
        "an equals sign": [*fixed, f"--down={down[0]}", f"--down={down[1]}", *files],
        "an engine": [*fixed, "--engine", "reference", "--down", *down, *files],
    }


@pytest.mark.parametrize("name", arrangements("", "", ""))
def test_addresses_that_are_down_are_told_from_the_files(cluster, tmp_path, name):
    source, target = tmp_path / "in.pcap", tmp_path / "out.pcap"
    with RawPcapWriter(str(source), linktype=1) as writer:
        writer.write_header(None)
        for port in range(2000, 2060):
            writer.write_packet(tcp(sport=port), sec=1, usec=0)
    code = main(["replay", *map(str, arrangements(cluster, source, target)[name])])
    assert code == 0, f"{name}: the exit code should have been 0, but was {code}"
    with RawPcapReader(str(target)) as packets:
        found = {IP(raw[14:]).dst for raw, _ in packets}
    assert found == {"10.2.2.2"}, f"{name}: only 10.2.2.2 should serve, but {found} do"


def test_a_sound_configuration_is_counted(cluster, capsys):
    code = main(["check-config", str(cluster)])
    said = capsys.readouterr()
    assert (code, said.out, said.err) == (0, f"{cluster}: 1 VIPs, 1 pools, 2 Maglevs: sound\n", "")


def test_a_bad_configuration_exits_with_1_and_says_all_that_is_wrong(cluster, capsys):
    cluster.write_text(CLUSTER.replace("251", "250").replace("port: 80", "port: -1"))
    code = main(["check-config", str(cluster)])
    said = capsys.readouterr()
    assert (code, said.out) == (1, ""), f"exit {code}, standard output {said.out!r}"
    expected = [
        f"{cluster}: forwarder.table_size: 250 is not allowed; allowed: a prime; the nearest are 241 and 251",
        f"{cluster}: vips[0].port: -1 is not allowed; allowed: a whole number from 1 to 65535, or 0 for any",
    ]
    for line in expected:
        assert line in said.err, f"should have said {line!r}, but said {said.err}"
    assert len(said.err.splitlines()) == 2, f"two problems should be two lines, but: {said.err}"


def test_a_configuration_that_is_not_there_exits_with_1(tmp_path, capsys):
    code = main(["check-config", str(tmp_path / "none.yaml")])
    said = capsys.readouterr().err
    assert code == 1, f"the exit code should have been 1, but was {code}"
    assert "No such file or directory" in said, f"should have said what is wrong, but said {said}"


@pytest.mark.parametrize("command", ["forwarder", "endpoint"])
def test_a_daemon_refuses_a_bad_configuration(command, cluster, capsys):
    cluster.write_text("vips: []")
    code = main([command, "--config", str(cluster)])
    said = capsys.readouterr().err
    assert code == 1, f"the exit code should have been 1, but was {code}"
    assert f"{cluster}: maglevs: " in said, f"should have named file and field, but said {said}"


def test_a_machine_that_is_no_maglev_is_told_to_name_one(cluster, tmp_path, capsys):
    code = main(["forwarder", "--config", str(cluster), "--control", str(tmp_path / "control.sock")])
    said = capsys.readouterr().err
    assert code == 1, f"the exit code should have been 1, but was {code}"
    expected = "cannot tell which Maglev this machine is: none of them is an address of it"
    assert expected in said, f"should have said {expected!r}, but said {said}"


def test_an_unknown_maglev_is_refused_by_those_there_are(cluster, capsys):
    code = main(["forwarder", "--config", str(cluster), "--maglev", "m9"])
    said = capsys.readouterr().err
    assert (code, said) == (1, "maglev: no Maglev is called m9; there are: m1, m2\n"), f"exit {code}: {said}"


def test_a_forwarder_needs_its_address_on_this_machine(cluster, tmp_path, capsys):
    code = main(["forwarder", "--config", str(cluster), "--maglev", "m1", "--control", str(tmp_path / "m1.sock")])
    said = capsys.readouterr().err
    expected = "maglev: m1's address 198.51.100.1 is not on this machine\n"
    assert (code, said) == (1, expected), f"exit {code}: {said}"


def test_a_controller_never_gives_up_and_ends_with_its_speaker(cluster):
    """ExaBGP takes an API process that ends for a failure, and gives up on it after a few times."""
    cluster.write_text("vips: []")
    command = [sys.executable, "-m", "maglev", "controller", "--config", str(cluster)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as controller:
        complaint = controller.stderr.readline()
        assert f"{cluster}: maglevs: " in complaint, f"should have named file and field, but said {complaint}"
        assert controller.poll() is None, "should have tried again instead of ending"
        announced, _ = controller.communicate(timeout=10)  # closes its input, as ExaBGP's death does
    assert (controller.returncode, announced) == (0, ""), f"exit {controller.returncode}, announced {announced!r}"


def run_module(*arguments, **options):
    command = [sys.executable, "-m", "maglev", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


def test_exit_codes_reach_the_shell(cluster):
    found = [
        run_module("check-config", cluster).returncode,
        run_module("check-config", cluster.parent).returncode,
        run_module("check-config").returncode,
    ]
    assert found == [0, 1, 2], f"sound, unreadable and wrong use should exit with 0, 1 and 2, but exit with {found}"


@pytest.fixture
def changed_cluster(cluster):
    path = cluster.with_name("next.yaml")
    path.write_text(CLUSTER.replace("{address: 10.2.2.2}", "{address: 10.2.2.2, weight: 3}").replace("www", "web"))
    return path


def test_configurations_that_say_the_same_differ_by_nothing(cluster, tmp_path, capsys):
    other = tmp_path / "other.yaml"
    other.write_text("# another order\n" + "\n".join(reversed(CLUSTER.strip().splitlines())).replace(
        "  web: {endpoints", "pools: {web: {endpoints").replace("}]}\npools:", "}]}}"))  # fmt: skip
    code = main(["diff-config", str(cluster), str(other)])
    said = capsys.readouterr()
    assert (code, said.out, said.err) == (0, "", "")


def test_what_differs_is_said_and_exits_with_1(cluster, changed_cluster, capsys):
    code = main(["diff-config", str(cluster), str(changed_cluster)])
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "pool web: weight of 10.2.2.2 1 -> 3",
        "vip www removed",
        "vip web added (address 192.0.2.1, protocol tcp, port 80, pool web)",
    ]
    assert (code, said.err) == (1, "")


@pytest.mark.parametrize("same", [True, False])
def test_differences_come_as_json_too(cluster, changed_cluster, capsys, same):
    code = main(["diff-config", "--json", str(cluster), str(cluster if same else changed_cluster)])
    found = json.loads(capsys.readouterr().out)
    weight = {"subject": "pool web", "what": "weight of 10.2.2.2", "change": "changed", "old": 1.0, "new": 3.0}
    assert (code, found[:1], len(found)) == ((0, [], 0) if same else (1, [weight], 3))


def test_trouble_with_either_file_is_said_whole_and_exits_with_2(cluster, tmp_path, capsys):
    cluster.write_text(CLUSTER.replace("251", "250"))
    code = main(["diff-config", str(cluster), str(tmp_path / "none.yaml")])
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert "forwarder.table_size: 250" in said.err
    assert "none.yaml: file: 'No such file or directory'" in said.err
