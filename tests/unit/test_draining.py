"""Draining: what a request to drain may say, and when silence has lasted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maglev.draining import Silence, Wait, parse
from maglev.errors import MaglevError


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, Wait(0.0, 1.0)),
        ({"wait_s": "30"}, Wait(30.0, 1.0)),
        ({"wait_s": "0.5", "quiet_s": "0.1"}, Wait(0.5, 0.1)),
        ({"wait_s": "3600", "quiet_s": "60"}, Wait(3600.0, 60.0)),
    ],
)
def test_a_request_says_how_long_to_wait(query, expected):
    assert parse(query) == expected


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"wait_s": "soon"}, "wait_s: 'soon' is not allowed; allowed: seconds, a number from 0 to 3600"),
        ({"wait_s": "-1"}, "wait_s: '-1' is not allowed; allowed: seconds, a number from 0 to 3600"),
        ({"wait_s": "3601"}, "wait_s: '3601' is not allowed; allowed: seconds, a number from 0 to 3600"),
        ({"wait_s": "nan"}, "wait_s: 'nan' is not allowed; allowed: seconds, a number from 0 to 3600"),
        ({"quiet_s": ""}, "quiet_s: '' is not allowed; allowed: seconds, a number from 0 to 60"),
        ({"wait_s": "0.5"}, "wait_s: 0.5 is not allowed; allowed: 0, or at least quiet_s, which is 1"),
        ({"wait": "1"}, "wait: not allowed; allowed: wait_s, quiet_s"),
    ],
)
def test_a_wrong_request_is_told_field_value_and_what_is_allowed(query, said):
    with pytest.raises(MaglevError) as caught:
        parse(query)
    assert str(caught.value) == said


def test_silence_begins_anew_with_every_packet():
    silence = Silence(10, 100.0)
    lasted = [
        silence.lasts_s(count, now) for count, now in [(10, 100.5), (11, 100.6), (11, 100.7), (11, 101.6), (12, 102.0)]
    ]
    assert lasted == pytest.approx([0.5, 0.0, 0.1, 1.0, 0.0])


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 10)), min_size=1))
def test_silence_lasts_since_the_last_change_that_was_seen(steps):
    silence, count, now, since = Silence(0, 0.0), 0, 0.0, 0.0
    for packets, passed in steps:
        count, now = count + packets, now + passed
        since = now if packets else since
        assert silence.lasts_s(count, now) == now - since
