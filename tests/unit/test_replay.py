"""Replay: a capture in, what the forwarder would send out, by the capture's own clock, and no output half-way."""

from __future__ import annotations

import gzip
import os
import random
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from frames import CLIENT, MAGLEV, MAGLEV_LINK, ROUTER_LINK, VIP, fragments, ping, tcp, udp
from scapy.layers.inet import IP
from scapy.layers.l2 import GRE, Ether
from scapy.utils import PcapNgWriter, PcapReader

import maglev
from maglev import config, replay
from maglev.__main__ import main
from maglev.conntrack import ConnectionTable
from maglev.engine import pcap
from maglev.flow import pack_address
from maglev.forwarding import Forwarder
from maglev.selection import MapBuilder

ROOT = Path(maglev.__file__).parents[1]
DOCUMENT = {
    "maglevs": [{"name": "m1", "address": MAGLEV}, {"name": "m2", "address": "10.1.2.2"}],
    "pools": {
        "web": {"endpoints": [{"address": f"10.2.{number}.2"} for number in range(1, 6)]},
        "names": {"endpoints": [{"address": "10.3.1.2"}]},
        "spare": {"endpoints": [{"address": "10.9.9.9"}]},
    },
    "vips": [
        {"name": "www", "address": VIP, "protocol": "tcp", "port": 80, "pool": "web"},
        {"name": "dns", "address": VIP, "protocol": "udp", "port": 53, "pool": "names"},
    ],
    "forwarder": {"table_size": 251, "connection_table": {"capacity": 1000, "idle_timeout_s": 60}},
}
BACKWARDS = {
    **{key: DOCUMENT[key] for key in reversed(DOCUMENT)},
    "maglevs": DOCUMENT["maglevs"][::-1],
    "pools": {name: {"endpoints": pool["endpoints"][::-1]} for name, pool in reversed(DOCUMENT["pools"].items())},
    "vips": DOCUMENT["vips"][::-1],
}
MIXTURE = [
    tcp("S"), tcp("A", payload=b"GET /"), udp(), ping(), tcp("S", dport=81), udp(dport=54), tcp(chksum=9),
    *fragments(), tcp("S", destination="192.0.2.77"), b"\0" * 20, tcp("A", sport=50000),
]  # fmt: skip
SUMMARY = [
    "forwarded 5",
    "redirected 3",
    "dropped 1 bad_ip_checksum",
    "dropped 2 no_vip_port",
    "ignored 1 not_ip",
    "ignored 1 not_vip",
]


THE_FRAGMENTS = range(7, 10)  # of the mixture: those of one packet, which m2 owns


def write_pcap(path, frames, magic=0xA1B2C3D4, order="<", link_type=1):
    """Writes a classic pcap file by hand. Frames stand a ms apart, or are (seconds, rest, frame)."""
    content = struct.pack(f"{order}IHHIIII", magic, 2, 4, 0, 0, 65535, link_type)
    for number, each in enumerate(frames):
        seconds, rest, raw = each if isinstance(each, tuple) else (1_000_000, number * 1000, each)
        content += struct.pack(f"{order}IIII", seconds, rest, len(raw), len(raw)) + raw
    path.write_bytes(content)


def read_pcap(path):
    """Returns a pcap file's frames as (seconds, rest of a second, bytes), and its magic number."""
    content = path.read_bytes()
    magic, _, _, _, _, _, link_type = struct.unpack_from("<IHHIIII", content)
    assert link_type == 1, f"the output should be Ethernet, but has link type {link_type}"
    found, at = [], 24
    while at < len(content):
        seconds, rest, size, _ = struct.unpack_from("<IIII", content, at)
        found.append((seconds, rest, content[at + 16 : at + 16 + size]))
        at += 16 + size
    return found, magic


class Desk:
    """A directory with a configuration, a capture and an output, and the command that joins them."""

    def __init__(self, path, capsys):
        self.config, self.source, self.target = path / "site.yaml", path / "in.pcap", path / "out.pcap"
        self.config.write_text(yaml.safe_dump(DOCUMENT, sort_keys=False))
        self._capsys = capsys
        write_pcap(self.source, MIXTURE)

    def command(self, *more, maglev="m1", source=None, target=None):
        files = [str(source or self.source), str(target or self.target)]
        return ["replay", "--config", str(self.config), "--maglev", maglev, *more, *files]

    def run(self, *more, **names):
        """Runs the command in this process; returns its exit code and what it said."""
        code = main(self.command(*more, **names))
        said = self._capsys.readouterr()
        assert said.out == "", f"nothing should be said on standard output, but: {said.out}"
        return code, said.err

    def replay(self, *more, **names):
        """Runs the command, which must succeed; returns the frames that it wrote."""
        code, said = self.run(*more, **names)
        assert code == 0, f"the exit code should have been 0, but was {code}: {said}"
        return read_pcap(self.target)[0]

    def endpoints(self, *more, **names):
        return [IP(raw[14:]).dst for _, _, raw in self.replay(*more, **names)]


@pytest.fixture
def desk(tmp_path, capsys):
    return Desk(tmp_path, capsys)


def test_the_command_writes_gre_and_says_what_it_did(desk):
    done = subprocess.run(
        [sys.executable, "-m", "maglev", *desk.command()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"the exit code should have been 0, but was {done.returncode}: {done.stderr}"
    assert done.stderr.splitlines() == SUMMARY, f"should have said {SUMMARY}, but said {done.stderr.splitlines()}"
    assert done.stdout == "", f"standard output should be empty, but is {done.stdout}"
    with PcapReader(str(desk.target)) as packets:
        found = [(packet[IP].src, packet[GRE].proto, packet[GRE].payload.src) for packet in packets]
    assert found == [(MAGLEV, 0x0800, CLIENT)] * 8, f"Scapy should find eight packets in GRE, but finds {found}"


def test_frames_go_back_to_the_router_in_order_at_their_own_time(desk):
    out = desk.replay()
    sent_on = (0, 1, 2, 3, *THE_FRAGMENTS, len(MIXTURE) - 1)
    expected = [(1_000_000, 1000 * number, MIXTURE[number][14:]) for number in sent_on]
    found = [(seconds, rest, raw[38:]) for seconds, rest, raw in out]
    assert found == expected, f"order, times or inner packets differ: {found}"
    links = {raw[:14] for _, _, raw in out}
    assert links == {ROUTER_LINK + MAGLEV_LINK + b"\x08\x00"}, f"link addresses should be swapped, but are {links}"


def test_the_maglev_named_is_the_sender(desk):
    senders = {IP(raw[14:]).src for _, _, raw in desk.replay(maglev="m2")}
    assert senders == {"10.1.2.2"}, f"m2 should have sent all, but the senders are {senders}"


def test_drops_are_counted_by_reason(desk):
    _, said = desk.run()
    assert said.splitlines() == SUMMARY, f"should have said {SUMMARY}, but said {said.splitlines()}"


def test_fragments_go_to_the_maglev_that_owns_their_packet_and_from_there_to_an_endpoint(desk):
    """m1 sends them to m2, each with recursion control; m2 has them follow the first one, also if that came last."""
    write_pcap(desk.source, fragments())
    to_peer = [raw for _, _, raw in desk.replay()]
    assert [(IP(raw[14:]).dst, IP(raw[14:])[GRE].recursion_control) for raw in to_peer] == [("10.1.2.2", 1)] * 3
    for arrived in (to_peer, to_peer[::-1]):
        write_pcap(desk.source, arrived)
        delivered = [IP(raw[14:]) for _, _, raw in desk.replay(maglev="m2")]
        assert [outer.dst for outer in delivered] == ["10.3.1.2"] * 3, "m2 should have delivered all three"
        assert {bytes(outer[GRE].payload) for outer in delivered} == {raw[14:] for raw in fragments()}


def test_fragments_whose_first_never_comes_are_held_and_dropped_when_the_capture_ends(desk):
    write_pcap(desk.source, fragments()[1:])
    code, said = desk.run(maglev="m2")
    assert (code, said) == (0, "forwarded 0\ndropped 2 fragment_expired\nheld 2 held\n"), f"exit {code}: {said}"


def test_an_empty_capture_gives_an_empty_capture(desk):
    write_pcap(desk.source, [])
    assert desk.replay() == [], "nothing in should be nothing out"


def test_the_captures_clock_expires_connections(desk):
    """Two flows and a table of one: 59 s after the first there is no room for the second, 60 s after it there is.

    What comes out would not show it: with one map from start to end, entry and hash always agree.
    """
    cluster = config.load(desk.config)
    vips = MapBuilder().build(cluster, "default", lambda member: True)
    for gap_s, overflows in [(59, 1), (60, 0)]:
        write_pcap(desk.source, [(1000, 0, tcp("S")), (1000 + gap_s, 0, tcp("S", sport=5))])
        table = ConnectionTable(1, replay.connection_table(cluster).idle_timeout_s)
        pcap.replay(desk.source, desk.target, Forwarder(pack_address(MAGLEV), table, vips))
        assert table.overflows == overflows, f"{gap_s} s later the table of one should overflow {overflows} times"


def test_a_fraction_of_a_second_counts_too(desk):
    seen = []

    class Watch(Forwarder):
        def decide(self, frame, now):
            seen.append(now)
            return super().decide(frame, now)

    for magic, rest in [(0xA1B2C3D4, 400_000), (0xA1B23C4D, 400_000_000)]:
        write_pcap(desk.source, [(1000, rest, tcp())], magic=magic)
        pcap.replay(desk.source, desk.target, Watch(pack_address(MAGLEV), ConnectionTable()))
    assert seen == [1000.4, 1000.4], f"the time should have been 1000.4 s both times, but was {seen}"


def connection_table_of(desk, **options):
    changed = {**DOCUMENT, "forwarder": {**DOCUMENT["forwarder"], "connection_table": options}}
    desk.config.write_text(yaml.safe_dump(changed))
    return replay.connection_table(config.load(desk.config))


def test_the_configuration_sizes_the_connection_table(desk):
    table = connection_table_of(desk, capacity=7, idle_timeout_s=2.5)
    assert (table.capacity, table.idle_timeout_s) == (7, 2.5), f"has {table.capacity} places, {table.idle_timeout_s} s"
    assert connection_table_of(desk, enabled=False, capacity=7).capacity == 0, "switched off, it should hold nothing"


FLOWS = [tcp("S" if number % 3 else "A", sport=1024 + number) for number in range(400)]


def test_down_endpoints_get_nothing_and_others_keep_theirs(desk):
    write_pcap(desk.source, FLOWS)
    all_up = desk.endpoints()
    assert set(all_up) == {f"10.2.{number}.2" for number in range(1, 6)}, f"all five should serve, not {set(all_up)}"
    two_down = desk.endpoints("--down", "10.2.1.2", "10.2.3.2")
    assert set(two_down) == {"10.2.2.2", "10.2.4.2", "10.2.5.2"}, f"the three others should serve, not {set(two_down)}"
    stayed = sum(was == now for was, now in zip(all_up, two_down, strict=True))
    owned = sum(was in two_down for was in all_up)
    assert stayed >= owned * 0.9, f"of {owned} flows of the three others 90 % should have stayed, but {stayed} did"


def test_with_all_down_everything_is_dropped(desk):
    write_pcap(desk.source, FLOWS)
    code, said = desk.run("--down", *(f"10.2.{number}.2" for number in range(1, 6)))
    assert (code, said) == (0, "forwarded 0\ndropped 400 no_backend\n"), f"exit {code}: {said}"


@pytest.mark.parametrize("address", ["10.2.9.2", "10.1.1.2", VIP, "10.9.9.9", "2001:db8::1"])
def test_an_address_that_no_vip_uses_cannot_be_down(desk, address):
    code, said = desk.run("--down", address)
    assert code == 1, f"the exit code should have been 1, but was {code}"
    allowed = "10.2.1.2, 10.2.2.2, 10.2.3.2, 10.2.4.2, 10.2.5.2, 10.3.1.2"
    expected = f"maglev: --down {address}: no VIP's pool lists it; allowed: {allowed}\n"
    assert said == expected, f"should have said {expected!r}, but said {said!r}"
    assert not desk.target.exists(), "nothing should have been written"


def test_an_unknown_maglev_is_refused_by_those_there_are(desk):
    code, said = desk.run(maglev="m9")
    assert (code, said) == (1, "maglev: no Maglev is called m9; there are: m1, m2\n"), f"exit {code}: {said}"


def test_a_bad_configuration_is_refused_before_anything_is_written(desk):
    desk.config.write_text("vips: 3")
    code, said = desk.run()
    assert code == 1, f"the exit code should have been 1, but was {code}"
    assert "vips: 3 is not allowed" in said, f"should have named the field, but said {said}"
    assert not desk.target.exists(), "nothing should have been written"


def simple_packet_block():
    """A pcapng file by hand whose one packet has no time: section header, interface, simple packet block."""
    raw = tcp() + b"\0\0"
    return (
        struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
        + struct.pack("<IIHHII", 1, 20, 1, 0, 65535, 20)
        + struct.pack("<III", 3, 16 + len(raw), len(raw) - 2) + raw + struct.pack("<I", 16 + len(raw))
    )  # fmt: skip


def pcapng(path, link_layer=None, time_s=1000.25):
    packet = (link_layer or Ether)(tcp())
    packet.time = time_s
    with PcapNgWriter(str(path)) as writer:
        writer.write(packet)
    return path.read_bytes()


# what the input is, how it is made, what is said of it
UNUSABLE = [
    ("missing", lambda path: path.unlink(), "cannot read {source}: No such file or directory"),
    ("a directory", lambda path: (path.unlink(), path.mkdir()), "cannot read {source}: Is a directory"),
    ("empty", lambda path: path.write_bytes(b""), "{source} is not a pcap or pcapng file"),
    ("text", lambda path: path.write_text("not a capture at all"), "{source} is not a pcap or pcapng file"),
    ("half a header", lambda path: path.write_bytes(path.read_bytes()[:23]), "{source} is not a pcap or pcapng file"),
    ("gzipped text", lambda path: path.write_bytes(gzip.compress(b"text")), "{source} is not a pcap or pcapng file"),
    ("spoilt gzip", lambda path: path.write_bytes(b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 9), "{source}"),
    ("raw IP", lambda path: write_pcap(path, [tcp()[14:]], link_type=101), "link type 101; allowed: Ethernet (1)"),
    ("raw IP in pcapng", lambda path: pcapng(path, IP), "link type 228; allowed: Ethernet (1)"),
    ("pcapng without times", lambda path: path.write_bytes(simple_packet_block()), "holds packets without a time"),
    ("after 2106", lambda path: pcapng(path, time_s=2**32 + 1), "from after the year 2106"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "said"), UNUSABLE, ids=[case[0] for case in UNUSABLE])
def test_an_unusable_input_is_refused_and_the_output_stays_as_it_was(desk, name, make, said):
    make(desk.source)
    desk.target.write_bytes(b"as it was")
    code, message = desk.run()
    assert code == 1, f"{name}: the exit code should have been 1, but was {code}"
    expected = said.format(source=desk.source)
    assert expected in message, f"{name}: should have said {expected!r}, but said {message!r}"
    assert message.count("\n") == 1, f"{name}: one line should do, but: {message}"
    assert desk.target.read_bytes() == b"as it was", "the output should be as it was"
    left = sorted(path.name for path in desk.target.parent.iterdir())
    assert set(left) <= {"in.pcap", "out.pcap", "site.yaml"}, f"nothing should be left lying about, but: {left}"


@pytest.mark.parametrize(
    ("name", "order", "magic", "rest"),
    [
        ("little endian", "<", 0xA1B2C3D4, 123_456),
        ("big endian", ">", 0xA1B2C3D4, 123_456),
        ("nanoseconds", "<", 0xA1B23C4D, 123_456_789),
        ("nanoseconds, big endian", ">", 0xA1B23C4D, 123_456_789),
    ],
)
def test_every_kind_of_pcap_is_read_and_keeps_its_precision(desk, name, order, magic, rest):
    write_pcap(desk.source, [(1000, rest, tcp())], magic=magic, order=order)
    assert desk.run()[0] == 0, f"{name} should have been read"
    found, written = read_pcap(desk.target)
    assert written == magic, f"{name}: the output's magic should be {magic:#x}, but is {written:#x}"
    assert [each[:2] for each in found] == [(1000, rest)], f"{name}: the time came out as {found[0][:2]}"


def test_a_gzipped_capture_is_read(desk):
    desk.source.write_bytes(gzip.compress(desk.source.read_bytes()))
    assert len(desk.replay()) == 8, "eight frames should come out, as from the same file uncompressed"


def test_pcapng_is_read_and_written_with_nanoseconds(desk):
    pcapng(desk.source)
    assert desk.run()[0] == 0, "pcapng should have been read"
    found, magic = read_pcap(desk.target)
    assert magic == 0xA1B23C4D, "pcapng may hold nanoseconds, so its output should hold them"
    assert [each[:2] for each in found] == [(1000, 250_000_000)], f"the time came out as {found[0][:2]}"


def test_a_capture_cut_short_is_replayed_as_far_as_it_goes(desk):
    desk.source.write_bytes(desk.source.read_bytes()[:-5])
    _, said = desk.run()
    expected = [*SUMMARY, "dropped 1 truncated"]
    expected[0] = "forwarded 4"
    lines = [line for line in said.splitlines() if not line.startswith("WARNING")]
    assert sorted(lines) == sorted(expected), f"should have said {expected}, but said {lines}"


def test_a_spoilt_capture_never_ends_in_a_traceback(desk):
    """Whatever bytes are wrong: exit 0 or 1, one way or the other with words for it."""
    generator = random.Random(11)
    starts = [desk.source.read_bytes(), pcapng(desk.source), gzip.compress(pcapng(desk.source), mtime=0)]
    for number in range(150):
        content = bytearray(starts[number % 3])
        for _ in range(generator.randrange(1, 4)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        desk.source.write_bytes(content[: generator.randrange(len(content)) if number % 2 else None])
        code, said = desk.run()
        assert code in (0, 1), f"exit code {code} for {content.hex()}"
        assert said, "it should have said what it did, or what is wrong"


def test_the_output_replaces_a_file_only_when_it_is_whole(desk):
    desk.target.write_bytes(b"as it was")
    assert len(desk.replay()) == 8, "the old file should have been replaced"


def test_a_capture_can_be_replaced_by_its_own_replay(desk):
    code, said = desk.run(target=desk.source)
    assert code == 0, said
    assert len(read_pcap(desk.source)[0]) == 8, "the input should have been read whole before it was replaced"


def test_a_link_to_a_file_stays_a_link(desk):
    real = desk.target.with_name("real.pcap")
    real.write_bytes(b"as it was")
    desk.target.symlink_to(real)
    assert len(desk.replay()) == 8
    assert desk.target.is_symlink(), "the link should still be a link"
    assert len(read_pcap(real)[0]) == 8, "what it leads to should have been replaced"


@pytest.mark.parametrize(
    ("target", "said"), [("nowhere/out.pcap", "No such file or directory"), (".", "Is a directory")]
)
def test_an_output_that_cannot_be_written_is_refused(desk, target, said):
    path = desk.target.parent / target
    code, message = desk.run(target=path)
    assert (code, message) == (1, f"maglev: cannot write {path}: {said}\n"), f"exit {code}: {message}"


@pytest.fixture
def device(tmp_path):
    """Makes a device node of one's own, so that a test that fails damages none of the machine's: number -> path."""

    def make(number):
        path = tmp_path / f"device-{number}"
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, number))
            path.read_bytes() if number == NULL else None
        except OSError as error:
            pytest.skip(f"device nodes cannot be made and used here: {error.strerror}")
        return path

    return make


NULL, FULL = 3, 7  # minor numbers of Linux's memory devices: /dev/null, /dev/full


def test_a_device_is_written_to_and_stays_a_device(desk, device):
    null = device(NULL)
    before = os.stat(null)
    code, said = desk.run(target=null)
    after = os.stat(null)
    assert code == 0, said
    assert stat.S_ISCHR(after.st_mode), "the device should still be a device"
    assert before.st_ino == after.st_ino, "and the same one"


def test_a_full_device_is_an_error_with_words(desk, device):
    full = device(FULL)
    code, said = desk.run(target=full)
    assert (code, said) == (1, f"maglev: cannot write {full}: No space left on device\n"), f"exit {code}: {said}"


def test_a_pipe_is_written_to_and_stays_a_pipe(desk):
    desk.replay()
    expected = desk.target.read_bytes()
    desk.target.unlink()
    os.mkfifo(desk.target)
    read = []
    reader = threading.Thread(target=lambda: read.append(desk.target.read_bytes()))
    reader.start()
    code, said = desk.run()
    reader.join(timeout=10)
    assert code == 0, said
    assert stat.S_ISFIFO(desk.target.stat().st_mode), "the pipe should still be a pipe"
    assert read == [expected], "what came through should be the same capture as in a file"


def test_captures_stream_through_standard_input_and_output(desk):
    desk.replay()
    done = subprocess.run(
        [sys.executable, "-m", "maglev", *desk.command(source="/proc/self/fd/0", target="/proc/self/fd/1")],
        cwd=ROOT, input=desk.source.read_bytes(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"the exit code should have been 0, but was {done.returncode}: {done.stderr.decode()}"
    assert done.stdout == desk.target.read_bytes(), "a pipe should carry the same capture as a file"


def test_the_same_output_twice_and_from_a_file_in_another_order(desk):
    write_pcap(desk.source, [*MIXTURE, *FLOWS])
    desk.replay("--down", "10.2.2.2")
    first = desk.target.read_bytes()
    desk.replay("--down", "10.2.2.2")
    assert desk.target.read_bytes() == first, "a second run should write the same, byte for byte"
    desk.config.write_text(yaml.safe_dump(BACKWARDS, sort_keys=False))
    desk.replay("--down", "10.2.2.2")
    assert desk.target.read_bytes() == first, "a configuration listed backwards should choose the same endpoints"
