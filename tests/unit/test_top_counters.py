"""The page of counters of `maglab top`: from texts of metrics to lines."""

from __future__ import annotations

from lab.top_counters import page

M1 = """\
# TYPE maglev_configuration_generation gauge
maglev_configuration_generation 7
# TYPE maglev_connection_table_hits counter
maglev_connection_table_hits_total{table="0"} 40
maglev_connection_table_hits_total{table="1"} 2
# TYPE maglev_dropped_packets counter
maglev_dropped_packets_total{reason="rate_limited"} 12000000
maglev_dropped_packets_total{reason="no_vip_port"} 0
# TYPE maglev_forwarded_packets counter
maglev_forwarded_packets_total{vip="www",pool="web",backend="10.2.1.2"} 5
maglev_forwarded_packets_total{vip="www",pool="web",backend="10.2.2.2"} 6
# TYPE maglev_batch_packets histogram
maglev_batch_packets_bucket{le="1.0"} 3
maglev_batch_packets_bucket{le="3.0"} 9
maglev_batch_packets_bucket{le="+Inf"} 10
maglev_batch_packets_count 10
"""
NAMES = {"10.2.1.2": "s1", "10.2.2.2": "s2"}


def shown(texts, width=100, height=40):
    return [line.text.rstrip() for line in page(texts, NAMES, width, height)]


def numbers(texts, label):
    (line,) = [line for line in shown(texts) if line.startswith(label)]
    return line.removeprefix(label).split()


def test_numbers_are_sums_over_what_a_row_does_not_name():
    texts = {"m1": M1, "m2": M1.replace(" 40", " 41")}
    assert numbers(texts, "table: hits") == ["42", "43"]
    assert numbers(texts, "vip www: packets") == numbers(texts, "pool web: packets") == ["11", "11"]
    assert numbers(texts, "backend s2: packets") == ["6", "6"]
    assert numbers(texts, "dropped: rate_limited") == ["12.0M", "12.0M"]
    assert numbers(texts, "packets in half of the batches, at most") == ["3", "3"]


def test_what_nobody_has_counted_is_left_out():
    assert not [line for line in shown({"m1": M1}) if "no_vip_port" in line]


def test_a_maglev_that_does_not_answer_has_no_numbers():
    assert numbers({"m1": M1, "m2": None}, "configuration generation") == ["7", "-"]


def test_what_does_not_fit_is_counted():
    lines = shown({f"m{number}": M1 for number in range(1, 10)}, width=80, height=20)
    assert len(lines) == 20
    assert lines[0].endswith("and 5 more Maglevs")
    assert lines[-2].startswith("and ")
    assert all(len(line) <= 80 for line in lines)
