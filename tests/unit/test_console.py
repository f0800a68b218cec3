"""The console's commands as methods: how typed words become arguments, and what is said when they do not fit."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import pytest

pytest.importorskip("mininet.net", reason="the laboratory needs Debian's package mininet")

from lab import commands
from lab.commands import TABLE, bind, split, summary, usage
from lab.console import GROUPS, KINDS, OF_MININET, OWN, Console, history_file
from lab.errors import WrongUse
from lab.laboratory import Lab
from lab.observe import RouterView
from lab.timeline import Timeline
from lab.top import State, pressed
from lab.top_look import Look, MaglevLook, events
from lab.top_picture import endpoint_rows, maglev_rows, picture
from lab.usage import Usage
from lab.wiring import Node, Wiring


class Somewhat:
    """Methods of every shape that a command may have."""

    def impair(self, link: str, towards: str | None = None, *, seed: int = 1, **wrong: float) -> None:
        """Makes a link bad.

        In both directions.
        """

    def syn_flood(
        self, vip: str = "www", *, rate_pps: float, clients: Sequence[str] = (), fragmented: bool = False
    ) -> None:
        """Sends SYNs."""

    def chaos(self, faults: int = 30, seconds: float = 300.0) -> None: ...

    def upgrade(self, *names: str) -> None: ...


def bound(name, line):
    return bind(name, getattr(Somewhat(), name), split(line)).arguments


@pytest.mark.parametrize(
    ("name", "line", "arguments"),
    [
        ("impair", "r1-m1 loss=5", {"link": "r1-m1", "wrong": {"loss": 5}}),
        ("impair", "r1-m1 m1 loss=0.5 delay_ms=10 seed=7",
         {"link": "r1-m1", "towards": "m1", "seed": 7, "wrong": {"loss": 0.5, "delay_ms": 10}}),
        ("impair", "loss=5 r1-m1", {"link": "r1-m1", "wrong": {"loss": 5}}),
        ("impair", "link=r1-m1", {"link": "r1-m1"}),
        ("syn_flood", "rate_pps=1e3 clients=c1,c2 fragmented=on",
         {"rate_pps": 1000.0, "clients": ["c1", "c2"], "fragmented": True}),
        ("chaos", "10 60", {"faults": 10, "seconds": 60}),
        ("chaos", "seconds=-1.5", {"seconds": -1.5}),
        ("upgrade", "m1 'm 2'", {"names": ("m1", "m 2")}),
        ("chaos", "", {}),
    ],
)  # fmt: skip
def test_words_become_arguments_as_the_method_s_annotations_say(name, line, arguments):
    assert bound(name, line) == arguments


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("impair", "", "missing a required argument: 'link'; usage: impair LINK [TOWARDS] [seed=1] [NAME=NUMBER…]"),
        ("impair", "r1-m1 m1 s1", "too many positional arguments; usage: impair"),
        ("impair", "r1-m1 loss=much", "loss='much' is not allowed; allowed: a number"),
        ("syn_flood", "www", "missing a required argument: 'rate_pps'; usage: syn_flood [VIP] rate_pps=…"),
        ("syn_flood", "www rate_pps=1 fragmented=maybe", "fragmented='maybe' is not allowed; allowed: on or off"),
        ("chaos", "many", "faults='many' is not allowed; allowed: a number"),
        ("chaos", "frob=1", "got an unexpected keyword argument 'frob'; usage: chaos [FAULTS] [SECONDS]"),
        ("impair", "'r1-m1", "a quote is not closed"),
    ],
)
def test_what_does_not_fit_is_told_with_the_usage(name, line, said):
    with pytest.raises(WrongUse) as error:
        bound(name, line)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_help_is_the_first_sentence_and_the_signature():
    assert summary(Somewhat.impair) == "Makes a link bad."
    assert usage("chaos", Somewhat().chaos) == "chaos [FAULTS] [SECONDS]"


# The table, against the lab that there is


def test_the_table_is_sound():
    names = [command.name for command in TABLE]
    assert len(set(names)) == len(names)
    assert not set(names) & {*OWN, *OF_MININET}, "a command of two kinds"
    for command in TABLE:
        assert command.group in GROUPS
        assert set(command.takes) <= {*KINDS, "number", "file"}, command
    assert {kind for _, kinds in OWN.values() for kind in kinds} <= {*KINDS, "directory"}
    assert set(commands.KEYWORD_KINDS.values()) <= KINDS.keys()


@pytest.mark.parametrize("command", [each for each in TABLE if hasattr(Lab, each.name)], ids=lambda each: each.name)
def test_what_the_lab_offers_says_what_it_does_and_takes_the_words_that_are_completed(command):
    method = getattr(Lab, command.name)
    assert summary(method).endswith("."), "without a docstring there is no help"
    parameters = [each for each in list(inspect.signature(method).parameters.values())[1:]
                  if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD, each.VAR_POSITIONAL)]  # fmt: skip
    assert len(command.takes) <= len(parameters), f"{command.name} takes {parameters}"


@pytest.mark.parametrize("name", [*OWN, *OF_MININET])
def test_every_other_command_has_help(name):
    assert summary(getattr(Console, f"do_{name}"))


def test_the_history_is_kept_where_the_desktop_specification_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_file() == tmp_path / "maglab" / "history"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history_file() == tmp_path / ".local" / "state" / "maglab" / "history"


# Pictures of `maglab top`


def seen(at=0.0, forwarded=0, sent=(0, 0), answers=(True, True), healthy=("10.2.1.2", "10.2.2.2"), nodes=2, what=()):
    """A look at two Maglevs and some endpoints."""
    endpoints = [Node(f"s{number}", "endpoint", (f"10.2.{number}.2",)) for number in range(1, nodes + 1)]
    maglevs = [Node(f"m{number}", "maglev", (f"10.1.{number}.2",)) for number in (1, 2)]
    each = MaglevLook(True, True, False, forwarded, 3, 7, 0.25, {"10.2.2.2": forwarded}, frozenset(healthy))
    hops = tuple(f"10.1.{number}.2" for number, does in enumerate(answers, 1) if does)
    router = RouterView(
        {"192.0.2.1": hops} if hops else {},
        {f"m{number}": "Established" if does else "Active" for number, does in enumerate(answers, 1)},
        {"m1": sent[0], "m2": sent[1]},
        {},
    )
    looks = {f"m{number}": each if does else MaglevLook() for number, does in enumerate(answers, 1)}
    usage = {node.name: Usage() for node in (*maglevs, *endpoints)} | {"m1": Usage(3, at / 4, 50_000_000)}
    return Look("rack-1", Wiring((*maglevs, *endpoints), ()), at, 75.0, looks, {"r1": router}, usage, what)


def test_rates_and_shares_are_those_between_two_looks():
    first, second = maglev_rows(seen(), seen(at=2.0, forwarded=1000, sent=(300, 100)))
    assert (first.state, first.share, first.pps, first.drops, first.flows, first.occupancy) == (
        "serving", 0.75, 500, 3, 7, 0.25,
    )  # fmt: skip
    assert (first.cpu, first.memory_mb, second.share, second.cpu) == (0.25, 50, 0.25, 0)


def test_a_maglev_that_does_not_answer_is_down_and_one_that_began_anew_counts_from_zero():
    before = seen(forwarded=1000)
    down, up = maglev_rows(before, seen(at=1.0, answers=(False, True)))
    assert (down.state, down.session, down.pps) == ("down", "Active", 0)
    assert up.state == "serving"
    assert maglev_rows(before, seen(at=1.0, forwarded=40))[0].pps == 40


@pytest.mark.parametrize(
    ("healthy", "states"),
    [(("10.2.1.2", "10.2.2.2"), ["up", "up"]), (("10.2.1.2",), ["up", "down"]), ((), ["down", "down"])],
)
def test_endpoints_are_as_maglevs_find_them(healthy, states):
    rows = endpoint_rows(seen(), seen(at=1.0, healthy=healthy))
    assert [row.state for row in rows] == states


@pytest.mark.parametrize("size", [(100, 30), (80, 20), (200, 60), (81, 24)])
@pytest.mark.parametrize("nodes", [1, 2, 50])
def test_a_picture_fills_the_terminal_exactly_and_counts_what_has_no_room(size, nodes):
    happened = tuple(f"event {number}" for number in range(100))
    lines = picture(seen(nodes=nodes), seen(at=1.0, nodes=nodes, what=happened), *size)
    assert len(lines) == size[1]
    assert max(len(line.text) for line in lines) <= size[0]
    text = "\n".join(line.text for line in lines)
    shown = sum(f"s{number} " in text for number in range(1, nodes + 1))
    more = 0 if shown == nodes else int(text.partition("and ")[2].split()[0])
    assert shown + more == nodes
    assert "event 99" in text, "the newest event is missing"


@pytest.mark.parametrize("size", [(79, 30), (100, 19), (10, 3)])
def test_a_terminal_that_is_too_small_is_told_so_within_its_width(size):
    (line,) = picture(seen(), seen(at=1.0), *size)
    assert line.text == f"this terminal has {size[0]}x{size[1]}; maglab top needs 80x20"[: size[0]]


def test_sorting_puts_the_busiest_first():
    now = seen(at=1.0, nodes=2)
    text = "\n".join(line.text for line in picture(seen(), seen(at=1.0, forwarded=5), 100, 30, "packets"))
    assert text.index("\ns2 ") < text.index("\ns1 ")
    assert "by packets" in text
    assert "by name" in "\n".join(line.text for line in picture(seen(), now, 100, 30))


def test_without_routes_the_picture_says_so():
    assert "r1: no VIP has a route" in [
        line.text for line in picture(seen(), seen(at=1.0, answers=(False, False)), 100, 30)
    ]


def test_keys():
    state = State()
    assert pressed(state, "q").over
    assert pressed(state, "p").paused
    assert not pressed(pressed(state, "p"), "p").paused
    assert [pressed(state, "s").sort, pressed(pressed(state, "s"), "s").sort] == ["packets", "drops"]
    assert pressed(pressed(pressed(state, "s"), "s"), "s") == state == pressed(state, "x")


def test_events_are_read_from_a_timeline_that_is_being_written(tmp_path):
    assert events(tmp_path / "none") == []
    timeline = Timeline()
    timeline.keep_in(tmp_path / "timeline.jsonl")
    timeline.happened("fault", "kill", "m1")
    timeline.sampled({"packets": 7})
    timeline.happened("undone", "kill", "m1")
    with (tmp_path / "timeline.jsonl").open("a") as file:
        file.write('{"type": "event", "at_s"')
    assert events(tmp_path / "timeline.jsonl") == list(map(str, timeline.events))
