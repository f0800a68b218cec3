"""Moving a VIP between shards: every step is safe beside the one before it, and all of them lead there."""

from __future__ import annotations

import json
from itertools import product

import pytest

from maglev import config
from maglev.__main__ import main
from maglev.config_diff import diff, in_words
from maglev.errors import MaglevError
from maglev.moving import next_step

SHARDS = ("a", "b", "c")


def site(**place):
    """A cluster of three shards, whose VIPs www and dns share an address; `place` says whose they are."""
    return {
        "shard": "a",
        "maglevs": [{"name": f"m{n}", "address": f"10.1.{n}.2", "shard": shard} for n, shard in enumerate(SHARDS)],
        "pools": {"web": {"endpoints": [{"address": "10.2.1.2"}]}},
        "vips": [
            {"name": "www", "address": "192.0.2.1", "protocol": "tcp", "port": 80, "pool": "web", **place},
            {"name": "other", "address": "192.0.2.2", "protocol": "tcp", "port": 80, "pool": "web"},
            {"name": "dns", "address": "192.0.2.1", "protocol": "udp", "port": 53, "pool": "web", **place},
        ],
        "forwarder": {"table_size": 7},
    }


def read(document):
    return config.parse(json.dumps(document))


def way(document, to, vip="www"):
    """The configurations that a move goes through, the first among them, and what each step says."""
    versions, said = [document], []
    while step := next_step(versions[-1], read(versions[-1]), vip, to):
        versions.append(step.document)
        said.append(step.what)
        assert len(said) < 10, f"a move should come to an end, but goes on: {said}"
    return versions, said


def www(document):
    return read(document).vips[0]


def test_a_move_is_five_steps():
    versions, said = way(site(), "b")
    assert said == [
        "shard b makes itself ready for 192.0.2.1",
        "shard b announces 192.0.2.1 too",
        "192.0.2.1 belongs to shard b",
        "shard a withdraws 192.0.2.1",
        "shard a forgets 192.0.2.1",
    ]
    places = [(vip.shard, vip.also_announced_by, vip.also_served_by) for vip in map(www, versions)]
    assert places == [
        ("a", (), ()),
        ("a", (), ("b",)),
        ("a", ("b",), ()),
        ("b", ("a",), ()),
        ("b", (), ("a",)),
        ("b", (), ()),
    ]


PLACES = [
    {"shard": home, "also_announced_by": announcing, "also_served_by": serving}
    for home in SHARDS
    for roles in product(("announces", "serves", "nothing"), repeat=2)
    for others in [[shard for shard in SHARDS if shard != home]]
    for announcing in [[shard for shard, role in zip(others, roles, strict=True) if role == "announces"]]
    for serving in [[shard for shard, role in zip(others, roles, strict=True) if role == "serves"]]
]


@pytest.mark.parametrize("to", SHARDS)
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_wherever_it_stands_a_vip_gets_there_and_each_step_is_safe_beside_the_last(place, to):
    """Maglevs take a step up at different moments: whoever announces a VIP must serve it before and after the step."""
    versions, said = way(site(**place), to)
    for old, new, what in zip(map(www, versions), map(www, versions[1:]), said, strict=False):
        announcing = {*old.announced_by, *new.announced_by}
        assert announcing <= {*old.served_by} & {*new.served_by}, f"packets would be lost when {what}"
        assert {*old.announced_by} & {*new.announced_by}, f"nobody might announce it when {what}"
        assert {old.shard, new.shard} <= {*old.served_by} & {*new.served_by}, f"fragments would be lost when {what}"
        routes_stay = {*old.announced_by} == {*new.announced_by}
        assert routes_stay or old.shard == new.shard, f"fragments of a packet might part when {what}"
    assert www(versions[-1]).served_by == (to,)


def test_a_move_that_has_begun_can_be_turned_back():
    versions, _ = way(site(), "b")
    _, said = way(versions[2], "a")
    assert said == ["shard b withdraws 192.0.2.1", "shard b forgets 192.0.2.1"]
    assert way(versions[4], "a")[1][0] == "shard a announces 192.0.2.1 too"


def test_all_vips_of_an_address_move_together_and_nothing_else_changes():
    versions, _ = way(site(), "b", vip="dns")
    found = in_words(diff(read(versions[0]), read(versions[-1])))
    assert found == ["vip www: shard a -> b", "vip dns: shard a -> b"]
    assert versions[0] == site(), "the configuration that it began with should stay as it was"


def test_each_step_says_what_to_wait_for():
    document = site()
    step = next_step(document, read(document), "www", "b")
    assert (
        step.until == "all Maglevs of shard b find the same endpoints healthy, with the same table_digest as the others"
    )


@pytest.mark.parametrize(
    ("vip", "to", "said"),
    [
        ("wwww", "b", "there is no VIP 'wwww'; there are www, other, dns"),
        ("www", "d", "no Maglev serves a shard 'd'; there are a, b, c"),
    ],
)
def test_what_there_is_not_is_refused(vip, to, said):
    with pytest.raises(MaglevError) as refusal:
        next_step(site(), read(site()), vip, to)
    assert str(refusal.value) == said


def test_the_command_prints_one_step_after_another(tmp_path, capsys):
    file = tmp_path / "site.yaml"
    file.write_text(json.dumps(site()))
    for expected in way(site(), "b")[0][1:]:
        assert main(["move-vip", "--config", str(file), "www", "b"]) == 0
        said = capsys.readouterr()
        assert "; before the next step wait until " in said.err
        file.write_text(said.out)
        assert config.load(file) == read(expected)
    assert main(["move-vip", "--config", str(file), "www", "b"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "www is shard b's alone: nothing is left to do\n")
    assert main(["move-vip", "--config", str(file), "www", "d"]) == 1
    assert capsys.readouterr().err == "maglev: no Maglev serves a shard 'd'; there are a, b, c\n"
