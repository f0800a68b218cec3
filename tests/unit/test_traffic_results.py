"""What wrk, ab, curl and iperf3 print, recorded from the real programs against the endpoints' own server."""

from pathlib import Path

import pytest

from lab.errors import WrongUse
from lab.traffic.bulk import parse_iperf3
from lab.traffic.http import Requests, plan
from lab.traffic.http_results import HttpResult, merged, parse_ab, parse_curl, parse_wrk

RECORDED = Path(__file__).with_name("recorded")


def recorded(name):
    return (RECORDED / name).read_text()


def test_wrk():
    result = parse_wrk(recorded("wrk.txt"))
    assert (result.sent, result.received, result.seconds) == (359, 359, 2.01)
    assert result.bytes == round(56.82 * 1024)
    assert not result.errors
    assert result.times_ms == {"50%": 43.9, "90%": 47.98, "99%": 48.63, "max": 59.97}


def test_wrk_counts_a_request_whose_connection_broke_as_sent():
    result = parse_wrk(recorded("wrk_close.txt"))
    assert (result.sent, result.received) == (1676 + 1673, 1676)
    assert result.errors == {"read": 1673}


def test_wrk_does_not_count_a_bad_status_as_answered():
    result = parse_wrk(recorded("wrk_400.txt"))
    assert (result.sent, result.received, result.errors) == (184, 0, {"status": 184})


def test_wrk_that_was_interrupted_before_anything_was_answered():
    result = parse_wrk(recorded("wrk_timeout.txt"))
    assert (result.sent, result.received, result.times_ms) == (0, 0, {})
    assert result.bytes == round(2.52 * (1 << 30))


def test_wrk_that_could_not_connect_is_no_result():
    with pytest.raises(ValueError, match="Connection refused"):
        parse_wrk(recorded("wrk_refused.txt"))


@pytest.mark.parametrize(("unit", "expected"), [("us", 0.0439), ("ms", 43.9), ("s", 43900.0), ("m", 2634000.0)])
def test_units_of_wrk(unit, expected):
    text = recorded("wrk.txt").replace("43.90ms", f"43.90{unit}")
    assert parse_wrk(text).times_ms["50%"] == pytest.approx(expected, abs=0.001)


def test_ab():
    result = parse_ab(recorded("ab.txt"))
    assert (result.sent, result.received, result.seconds, result.bytes) == (1000, 1000, 0.376, 159000)
    assert result.times_ms == {"50%": 1, "90%": 2, "99%": 8, "max": 14}
    assert not result.errors


def test_ab_that_was_interrupted():
    assert parse_ab(recorded("ab_int.txt")).received == 1338


def test_ab_with_bad_status():
    result = parse_ab(recorded("ab_400.txt"))
    assert (result.sent, result.received, result.errors) == (100, 0, {"status": 100})


def test_ab_counts_a_request_that_failed_twice_over_once():
    result = parse_ab(recorded("ab_refused_r.txt"))
    assert (result.sent, result.received, result.times_ms) == (100, 0, {})
    assert result.errors == {"read": 100, "exception": 50}


def test_ab_that_gave_up_is_no_result():
    with pytest.raises(ValueError, match="Connection refused"):
        parse_ab(recorded("ab_refused.txt"))


def test_curl():
    result = parse_curl(recorded("curl.txt"))
    assert (result.sent, result.received, result.bytes) == (3, 3, 63)
    assert 0 < result.times_ms["50%"] <= result.times_ms["max"] < 1000


def test_curl_says_why_a_transfer_failed():
    result = parse_curl(recorded("curl_refused.txt"))
    assert (result.sent, result.received) == (3, 0)
    ((why, count),) = result.errors.items()
    assert "Failed to connect" in why
    assert count == 3


def test_a_line_of_curl_that_is_not_whole_yet_does_not_count():
    text = recorded("curl.txt")
    assert parse_curl(text[:-10]).sent == 2


def test_results_of_several_clients_add_up_and_times_are_the_slowest_one_s():
    first, second = (
        HttpResult(5, 4, 1.0, 10, {"read": 1}, {"50%": 2.0}),
        HttpResult(2, 1, 2.0, 5, {"read": 1}, {"50%": 1.0}),
    )
    assert merged([first, second]) == HttpResult(7, 5, 2.0, 15, {"read": 2}, {"50%": 2.0})


def test_iperf3():
    report = parse_iperf3(recorded("iperf3.json"))
    assert (report.sent, report.received, report.retransmits) == (2342256640, 2342256640, 334)
    assert report.mbit_per_s == pytest.approx(18691, abs=1)
    assert not report.failures


def test_iperf3_that_was_interrupted_or_refused_says_so():
    report = parse_iperf3(recorded("iperf3_int.json"))
    assert (report.sent, report.received) == (2901934080, 0)
    assert report.failures == {"interrupt - the client has terminated": 1}
    assert parse_iperf3(recorded("iperf3_refused.json")).failures == {
        "unable to connect to server: Connection refused": 1
    }


@pytest.mark.parametrize(
    ("program", "seconds", "requests", "expected"),
    [
        ("wrk", None, None, (5.0, 0)),
        ("wrk", 2, None, (2, 0)),
        ("ab", None, None, (5.0, 0)),
        ("ab", None, 70, (3600.0, 70)),
        ("ab", 9, 70, (9, 70)),
        ("curl", None, None, (130.0, 100)),
        ("curl", None, 8, (10.0, 8)),
    ],
)
def test_plans(program, seconds, requests, expected):
    assert plan(program, seconds, requests, 8, 10.0) == expected


@pytest.mark.parametrize(
    ("program", "seconds", "requests", "words"),
    [
        ("wget", None, None, "wrk, ab, curl"),
        ("wrk", None, 5, "wrk cannot"),
        ("curl", 5, None, "curl cannot"),
        ("wrk", 0, None, "seconds=0"),
        ("ab", None, 0, "requests=0"),
        ("ab", None, 1.5, "requests=1.5"),
        ("wrk", True, None, "seconds=True"),
        ("wrk", float("nan"), None, "seconds=nan"),
    ],
)
def test_what_a_program_cannot_do_is_refused(program, seconds, requests, words):
    with pytest.raises(WrongUse, match=words):
        plan(program, seconds, requests, 8, 10.0)


def test_a_query_of_the_url_s_own_stays():
    command = Requests("curl", "http://192.0.2.1/?a=1", 4, 10.0, 3, True, 10.0).command()
    assert command[-1] == "http://192.0.2.1/?a=1&number=[1-3]"
