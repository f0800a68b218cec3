"""The console of `maglab up`, by script and by hand, and captures of a lab: what they show is what there is."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pytest
from commands import MAGLAB, lab_of, maglab, read_until, started
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import CookedLinuxV2
from scapy.utils import PcapReader
from terminal import Terminal

from lab import capture
from lab.crossings import SENT
from lab.site import RUN_DIRECTORY
from lab.waiting import wait_until

UP = ["up", "rack", "--maglevs", "2", "--endpoints", "3"]
BGP = 179
# A command a line, with what must be in its answer; "!" marks those that have to fail.
SCRIPT = """
help                            | Break and mend: | kill | Look: | routes | On a node:
help kill                       | kill NAME [DAEMON] | SIGKILL
status                          | m2    maglev    up     10.1.2.2 fd00:1:2::2
routes r1                       | 192.0.2.1    m1  m2 | session      m2  Established
routes m1                       | !there is no router 'm1'; there are r1
table m1 s1                     | web   s1        10.2.1.2
table m1 10.2.1.9               | !m1 has no endpoint 10.2.1.9
c1 curl -s http://192.0.2.1/    | answers 10.0.1.2
c1 ping -c 1 s1                 | 1 received
c1 false                        | !c1: exit status 1
kill m1   # with a comment      | fault: kill m1
faults                          | kill m1
kill m1                         | !m1 is down already
wait                            | converged
status                          | m1    maglev    down
routes                          | 192.0.2.1    m2
undo                            | undone: kill m1
undo                            | !no fault is open
verify                          | holds: all Maglevs choose alike | holds: answers go straight to the client
connections 20 echo             | 20 alive
conns                           | 20 connections: 20 alive
kill s1 servers                 | fault: kill s1
wait                            | converged
conns                           | reset
verify                          | !DOES NOT HOLD: connections persist
stop                            | closed
undo all                        | undone: kill s1
power-off s2                    | fault: power off s2
undo                            | undone: power off s2
kil m1                          | !did you mean kill?
kill                            | !missing a required argument: 'name'; usage: kill NAME [DAEMON]
kill m9                         | !'m9'; there are m1, m2, r1, s1, s2, s3
connections many                | !count='many' is not allowed; allowed: a number
kill 'm1                        | !a quote is not closed
wait                            | converged
trace c1 www count=3            | there: c1 -> r1 -> m
impair r1-m1 loss=5             | fault: impair r1-m1
link-down m2-r1                 | fault: link down r1-m2
faults                          | impair r1-m1 | link down r1-m2
undo all                        | undone: link down r1-m2 | undone: impair r1-m1
datagrams rate_pps=50 seconds=1 | datagrams to datagrams: | datagrams sent
restore                         |
traffic                         | none
trace c1 www count=x            | !count='x' is not allowed
pcap r1-m9                      | !in a script, pcap needs to be told for how long
pcap r1-m9 seconds=1            | !there is no link 'r1-m9'; there are c1-r1
pcap r1-c1 seconds=1            |
watch                           | endpoint  state | r1: 192.0.2.1, 2001:db8::1 -> m1 m2
timeline                        | fault: power off s2
graph                           | Maglevs, endpoints
py lab_that_is_not_there        | is not defined
xterm c1                        | !DISPLAY is not set
"""


def lines_of(script):
    """The commands of a script, and the words that their answers must have."""
    for line in filter(None, script.splitlines()):
        command, _, words = line.partition("|")
        yield command.strip(), [word.strip() for word in words.split("|") if word.strip()]


# By script


@pytest.fixture(scope="module")
def scripted():
    """How `maglab up < SCRIPT` ended, and each command's answer in turn; both outputs in one."""
    text = "\n".join(command for command, _ in lines_of(SCRIPT)) + "\nexit\nkill m1\n"
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    done = subprocess.run(
        [*MAGLAB, *UP], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
        env=environment, check=False,
    )  # fmt: skip
    _, *answers = done.stdout.split("maglab> ")
    return done, answers


def test_every_command_of_a_script_answers(scripted):
    done, answers = scripted
    expected = list(lines_of(SCRIPT))
    assert len(answers) == len(expected) + 1, "one for `exit`, and none for what comes after"
    for (command, words), answer in zip(expected, answers, strict=False):
        for word in words:
            assert word.removeprefix("!") in answer, f"{command}: {answer}"
        if any(word.startswith("!") for word in words) and "DOES NOT" not in words[0]:
            assert len(answer.splitlines()) == 2, f"{command} should complain in one line: {answer}"
    assert "Traceback" not in done.stdout


def test_a_script_with_a_command_that_failed_has_exit_status_1(scripted):
    done, _ = scripted
    assert done.returncode == 1
    assert done.stdout.endswith("taking it away\n")


def test_sigterm_ends_the_console_and_the_lab():
    with started([*MAGLAB, *UP, "--clients", "1"]) as console:
        read_until(console, "VIPs: ")
        lab = lab_of(console)
        console.send_signal(signal.SIGTERM)
        _, complaint = console.communicate(timeout=30)
    assert (console.returncode, complaint) == (130, "maglab: stopped, and everything taken away\n")
    assert not (RUN_DIRECTORY / lab).exists()


# By hand, with everything captured


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("console")


@pytest.fixture(scope="module")
def console(place):
    """A console on a terminal, of a lab with `--pcap`."""
    with Terminal([*MAGLAB, *UP, "--pcap", str(place / "all")], XDG_STATE_HOME=str(place / "state")) as terminal:
        terminal.wait_for("maglab>")
        yield terminal
        terminal.type("\x03exit\n")
        terminal.wait_end()


@pytest.fixture(scope="module")
def lab_id(console):
    return lab_of(console.process)


def test_the_tab_key_completes_commands_nodes_links_and_options(console):
    def completed(typed, expected):
        console.type(f"{typed}\t")
        console.wait_for(f"maglab> {expected}")
        console.type("\x15")  # clears the line
        console.wait_until(lambda: console.lines[console.row] == "maglab>", "an empty line")

    completed("pow", "power_off")
    completed("undrain ", "undrain s")
    completed("pcap r1-m", "pcap r1-m")
    completed("connections 20 dat", "connections 20 datagrams")
    completed("connections 20 vip=ech", "connections 20 vip=echo")
    completed("kill m1 exa", "kill m1 exabgp")
    completed("help timel", "help timeline")


def test_ctrl_c_stops_a_command_and_not_the_lab(console):
    console.type("c1 ping 192.0.2.1\n")
    console.wait_until(lambda: "icmp_seq=2" in console.text, "a second echo")
    console.type("\x03")
    console.wait_until(lambda: "ping statistics" in console.text, "ping's end")
    console.command("connections 10", "10 alive")
    console.type("conns\n")
    console.wait_until(lambda: console.text.count("10 connections: 10 alive") > 1, "fates")
    console.type("\x03")
    console.command("stop", "10 closed")
    console.type("pcap c1-r1\n")
    console.wait_until(lambda: "\nmaglab> pcap c1-r1\n" in console.text, "the command")
    console.type("\x03")
    assert "s1 answers" in console.command("s1 curl -s http://10.2.1.2/"), "the lab is still there"


def test_watch_shows_the_lab_and_gives_the_terminal_back(console):
    console.type("watch\n")
    console.wait_for("Maglev", "serving", "q quits")
    console.type("q")
    console.wait_until(lambda: b"\x1b[?1049l" in console.raw, "the other screen's end")
    console.command("faults", "none is open")


def test_a_link_is_shown_live_from_another_process(console, lab_id):
    command = [*MAGLAB, "pcap", "r1-c1", "--lab", lab_id, "--flow", "10.0.1.2:40123", "--only", "--seconds", "3"]
    with started(command) as shown:
        assert "watching c1-r1" in shown.stderr.readline()
        console.command("c1 curl -s --local-port 40123 http://192.0.2.1/", "answers")
        printed, complaint = shown.communicate(timeout=30)
    assert shown.returncode == 0, complaint
    lines = printed.splitlines()
    assert all(re.match(r"\* \d\d:\d\d:\d\d\.\d{6} c1-r1 ", line) for line in lines), printed
    assert any("c1 > r1    10.0.1.2:40123 > 192.0.2.1:80 tcp S seq" in line for line in lines), printed
    assert any("r1 > c1    192.0.2.1:80 > 10.0.1.2:40123 tcp SA seq" in line for line in lines), printed
    assert "LOST" not in printed


def test_a_link_is_piped_as_pcap(console, lab_id, place):
    piped = subprocess.Popen([*MAGLAB, "pcap", "c1-r1", "--pipe", "--lab", lab_id], stdout=subprocess.PIPE)
    with piped, PcapReader(piped.stdout) as packets:  # which waits for the header, and so for tcpdump
        console.command("c1 ping -c 2 r1", "2 received")
        found = next(packet for packet in packets if ICMP in packet)
        piped.terminate()
    assert (found[IP].src, found[IP].dst) == ("10.0.1.2", "10.0.1.1")


def test_what_a_link_loses_is_told_by_the_captures_of_both_ends(console, lab_id, place):
    """An end that takes only small frames: the kernel drops larger ones between the two ends."""
    kept = place / "link"
    with started([*MAGLAB, "pcap", "r1-s1", "--write", str(kept), "--lab", lab_id]) as keeping:
        wait_until(lambda: "" if (kept / capture.ABOUT).exists() else "no capture", 10, "a capture")
        console.command("s1 ip link set s1-eth0 mtu 1300")
        console.command("c1 ping -c 2 -i 0.2 -s 1000 -W 1 s1", "2 received")
        console.command("c1 ping -c 3 -i 0.2 -s 1400 -W 2 s1", "0 received")
        console.command("s1 ip link set s1-eth0 mtu 1600")
        keeping.send_signal(signal.SIGINT)
        assert keeping.communicate(timeout=30)[0].startswith(f"kept in {kept}")
    lines = maglab("pcap", str(kept), "--flow", "10.0.1.2", "--only").stdout.splitlines()
    lost = [line for line in lines if line.endswith("LOST")]
    assert len(lost) == 3, lines
    assert all("r1-s1    r1 > s1    10.0.1.2 > 10.2.1.2 icmp echo request, 1408 bytes" in line for line in lost), lost
    assert sum("1008 bytes" in line for line in lines) == 4, "two requests, two answers, each told once"


def test_faults_in_capital_letters_do_not_end_the_console(console):
    console.command("KILL m1", "there is no command or node 'KILL'")
    console.command("raise", "there is no command")


def test_what_was_typed_is_kept_and_all_was_captured_from_the_first_packet(console, place):
    console.type("exit\n")
    assert console.wait_end() == 0, console.text
    history = (place / "state" / "maglab" / "history").read_text().splitlines()
    assert "faults" in history
    assert history[-1] == "exit"
    captured = {file.stem: packets_of(file) for file in (place / "all").glob("*.pcap0")}
    assert captured.keys() == {"c1", "c2", "r1", "m1", "m2", "s1", "s2", "s3"}
    opening = {packet[IP].src for packet in captured["r1"] if TCP in packet and IP in packet
               and packet[TCP].dport == BGP and packet[TCP].flags == "S"}  # fmt: skip
    assert opening >= {"10.1.1.2", "10.1.2.2"}, "the first packets of BGP were missed"
    last = [packet for packet in captured["c1"] if ICMP in packet]
    assert last, "the pings are missing"


def test_merged_captures_follow_a_packet_from_link_to_link(console, place):
    """What Scapy finds at each node is what the merged lines say, and in the order of the way."""
    flow = "10.0.1.2:40123"
    done = maglab("pcap", str(place / "all"), "--flow", flow, "--only")
    assert done.returncode == 0, done.stderr
    syn = [line.split()[2:6] for line in done.stdout.splitlines() if " tcp S seq" in line and "-" in line.split()[2]]
    places = [words[0] for words in syn]
    ways = [f"{words[1]}>{words[3]}" for words in syn]
    maglev, endpoint = (re.search(rf"r1>({role}\d)", " ".join(ways))[1] for role in "ms")
    assert places[:4] == ["c1-r1", f"r1-{maglev}", f"r1-{maglev}", f"r1-{endpoint}"], done.stdout
    assert ways[:4] == ["c1>r1", f"r1>{maglev}", f"{maglev}>r1", f"r1>{endpoint}"]
    sent = sum(
        packet[CookedLinuxV2].pkttype == SENT and TCP in packet and packet[TCP].sport == 40123
        for packet in packets_of(place / "all" / "c1.pcap0")
    )
    assert sent == sum("c1-r1    c1 > r1" in line for line in done.stdout.splitlines())
    assert "LOST" not in done.stdout


def packets_of(file):
    with PcapReader(str(file)) as reader:
        return list(reader)


def test_a_directory_that_holds_something_is_no_place_for_captures(place):
    done = maglab("up", "--pcap", str(place / "all"))
    assert done.returncode == 2, done.stderr
    assert "is not empty" in done.stderr
