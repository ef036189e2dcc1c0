"""SWEEP: what network sweeps found becomes rows of sweep_host_states."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventwriter.values import INT8_MAX
from profiles import examples
from records import HOSTILE, RECEIVED, at, damaged, decoded, json_values, only_row, reasons, records_with, rows
from workers.sweep import STREAM, TABLE

OBJECT = (
    '{"host_ip":"10.20.0.44","poller_id":"edge-07","agent_id":"agent-a1","partition":"default",'
    '"network_cidr":"10.20.0.0/24","hostname":"printer-2","mac":"00:11:22:33:44:55","icmp_available":true,'
    '"icmp_response_time_ns":1481200,"icmp_packet_loss":0,"tcp_ports_scanned":[22,80,443],"tcp_ports_open":[80],'
    '"port_scan_results":[{"port":80,"available":true,"response_time":2210000,"service":"http"}],'
    '"last_sweep_time":"2025-12-12T10:35:00.000001Z","first_seen":"2025-11-02T08:00:00Z","metadata":{"scanner":"icmp"}}'
)
CAMEL = (
    '{"ip":"10.20.0.45","pollerId":"edge-07","agentId":"agent-a1","icmpAvailable":false,"icmpPacketLoss":100.0,'
    '"lastSweepTime":1765535700}'
)
ARRAY = (
    '[{"host_ip":"2001:db8::7","gateway_id":"gw-2","agent_id":"a","icmp_available":true,'
    '"last_sweep_time":1765535700123},{"host_ip":"2001:db8::8","gateway_id":"gw-2","agent_id":"a",'
    '"icmp_available":false,"last_sweep_time":1765535700123}]'
)
SUMMARY = (
    '{"network":"10.20.1.0/24","total_hosts":2,"available_hosts":1,"last_sweep":1765535760,"ports":[],"hosts":['
    '{"host":"10.20.1.1","available":true,"first_seen":"2025-12-01T00:00:00Z","last_seen":"2025-12-12T10:36:00Z",'
    '"icmp_status":{"available":true,"round_trip":812000,"packet_loss":0}},{"host":"10.20.1.2","available":false}]}'
)
EVENT = '{"specversion":"1.0","id":"7","source":"/a","type":"t","data":' + SUMMARY + "}"

DEFAULTS = {
    "gateway_id": "unknown",
    "agent_id": "unknown",
    "partition": "default",
    "network_cidr": None,
    "hostname": None,
    "mac": None,
    "icmp_available": None,
    "icmp_response_time_ns": None,
    "icmp_packet_loss": None,
    "tcp_ports_scanned": None,
    "tcp_ports_open": None,
    "port_scan_results": None,
    "last_sweep_time": at(RECEIVED),
    "first_seen": None,
    "metadata": None,
    "received_at": at(RECEIVED),
}
OBJECT_ROW = {
    "host_ip": "10.20.0.44",
    "gateway_id": "edge-07",
    "agent_id": "agent-a1",
    "partition": "default",
    "network_cidr": "10.20.0.0/24",
    "hostname": "printer-2",
    "mac": "00:11:22:33:44:55",
    "icmp_available": True,
    "icmp_response_time_ns": 1481200,
    "icmp_packet_loss": 0.0,
    "tcp_ports_scanned": [22, 80, 443],
    "tcp_ports_open": [80],
    "port_scan_results": [{"port": 80, "available": True, "response_time": 2210000, "service": "http"}],
    "last_sweep_time": at("2025-12-12T10:35:00.000001Z"),
    "first_seen": at("2025-11-02T08:00:00Z"),
    "metadata": {"scanner": "icmp"},
    "received_at": at(RECEIVED),
}
SHARED = {"total_hosts": 2, "available_hosts": 1, "ports": []}
SUMMARY_ROWS = [
    DEFAULTS
    | {
        "host_ip": "10.20.1.1",
        "network_cidr": "10.20.1.0/24",
        "icmp_available": True,
        "icmp_response_time_ns": 812000,
        "icmp_packet_loss": 0.0,
        "last_sweep_time": at("2025-12-12T10:36:00Z"),
        "first_seen": at("2025-12-01T00:00:00Z"),
        "metadata": {"available": True, "last_seen": "2025-12-12T10:36:00Z", "sweep": SHARED},
    },
    DEFAULTS
    | {
        "host_ip": "10.20.1.2",
        "network_cidr": "10.20.1.0/24",
        "last_sweep_time": at("2025-12-12T10:36:00Z"),
        "metadata": {"available": False, "sweep": SHARED},
    },
]


def only(**fields: Any) -> dict[str, Any]:
    """The row of a host with these fields."""
    return only_row(STREAM, {"host_ip": "h"} | fields)


def test_an_object_fills_every_column() -> None:
    """With the microseconds of its times, and received_at from the broker."""
    assert only_row(STREAM, OBJECT) == OBJECT_ROW


def test_S1_S2_unavailable_is_not_unknown_and_nothing_is_invented() -> None:
    """false stays false; first_seen stays NULL."""
    assert only_row(STREAM, CAMEL) == DEFAULTS | {
        "host_ip": "10.20.0.45",
        "gateway_id": "edge-07",
        "agent_id": "agent-a1",
        "icmp_available": False,
        "icmp_packet_loss": 100.0,
        "last_sweep_time": at("2025-12-12T10:35:00Z"),
    }


def test_an_array_is_a_row_per_host() -> None:
    """With times in milliseconds."""
    known = DEFAULTS | {"gateway_id": "gw-2", "agent_id": "a", "last_sweep_time": at("2025-12-12T10:35:00.123Z")}
    assert rows(STREAM, decoded(STREAM, ARRAY)) == [
        known | {"host_ip": "2001:db8::7", "icmp_available": True},
        known | {"host_ip": "2001:db8::8", "icmp_available": False},
    ]


def test_a_summary_is_a_row_per_host() -> None:
    """Each with the network and the time of the sweep; what has no column is kept."""
    assert rows(STREAM, decoded(STREAM, SUMMARY)) == SUMMARY_ROWS


def test_a_summary_in_a_cloudevent() -> None:
    """Its context attributes are kept with each host."""
    envelope = {"specversion": "1.0", "id": "7", "source": "/a", "type": "t"}
    expected = [row | {"metadata": row["metadata"] | {"cloudevent": envelope}} for row in SUMMARY_ROWS]  # type: ignore[operator]
    assert rows(STREAM, decoded(STREAM, EVENT)) == expected


def test_a_summary_gives_its_hosts_what_they_lack() -> None:
    """Gateway, agent and partition of the sweep; a host's own come first."""
    summary = {
        "poller_id": "p", "agent_id": "a", "partition": "x", "execution_id": "e",
        "hosts": [
            {"host": "1", "port_results": [{"port": 80}], "icmp_status": {"available": False, "extra": 1}},
            {"host_ip": "2", "poller_id": "own", "port_scan_results": [], "icmp_available": True},
        ],
    }  # fmt: skip
    first, second = rows(STREAM, decoded(STREAM, summary))
    assert (first["gateway_id"], first["agent_id"], first["partition"]) == ("p", "a", "x")
    assert (first["port_scan_results"], first["icmp_available"]) == ([{"port": 80}], False)
    assert first["metadata"] == {"icmp_status": {"extra": 1}, "sweep": {"execution_id": "e"}}
    assert (second["host_ip"], second["gateway_id"], second["icmp_available"]) == ("2", "own", True)
    assert second["port_scan_results"] == []


def test_a_hosts_own_sweep_stays() -> None:
    """Beside what its summary says."""
    summary = {"total_hosts": 1, "hosts": [{"host": "1", "sweep": {"id": "S-77"}}, {"host": "2"}]}
    first, second = rows(STREAM, decoded(STREAM, summary))
    assert first["metadata"] == {"sweep": {"id": "S-77"}, "original.sweep": {"total_hosts": 1}}
    assert second["metadata"] == {"sweep": {"total_hosts": 1}}
    (row,) = rows(STREAM, decoded(STREAM, {"total_hosts": 1, "hosts": [{"host": "1", "sweep": None}]}))
    assert row["metadata"] == {"sweep": {"total_hosts": 1}}


def test_a_summary_that_says_it_twice() -> None:
    """The column's own name wins, in any order, and nothing is lost."""
    said = {"network": "10.0.0.0/8", "network_cidr": "10.1.0.0/16", "last_sweep": 1765535760,
            "last_sweep_time": 1765535000}  # fmt: skip
    for summary in (said, dict(reversed(said.items()))):
        (row,) = rows(STREAM, decoded(STREAM, {**summary, "hosts": [{"host": "1"}]}))
        assert row["network_cidr"] == "10.1.0.0/16"
        assert row["metadata"] == {"sweep": {"network": "10.0.0.0/8", "last_sweep": 1765535760}}
        assert row["last_sweep_time"] == 1765535000_000000 - 946684800_000000
    (row,) = rows(STREAM, decoded(STREAM, {"network": "10.0.0.0/8", "network_cidr": None, "hosts": [{"host": "1"}]}))
    assert (row["network_cidr"], row["metadata"]) == ("10.0.0.0/8", None)


@pytest.mark.parametrize(
    ("said", "own", "column"),
    [
        ("agent_id", "agentId", "agent_id"),
        ("agentId", "agent_id", "agent_id"),
        ("poller_id", "gateway_id", "gateway_id"),
        ("gateway_id", "pollerId", "gateway_id"),
        ("network", "networkCidr", "network_cidr"),
    ],
)  # fmt: skip
def test_what_a_host_says_comes_before_its_summary(said: str, own: str, column: str) -> None:
    """Whatever either calls it; what the summary said is kept."""
    first, second = rows(STREAM, decoded(STREAM, {said: "A", "hosts": [{"host": "1", own: "B"}, {"host": "2"}]}))
    assert (first[column], second[column]) == ("B", "A")
    assert first["metadata"] == {"sweep": {"network_cidr" if said == "network" else said: "A"}}
    assert second["metadata"] is None


def test_a_bad_host_of_a_summary_leaves_the_others_alone() -> None:
    """It is rejected by its number."""
    found = decoded(STREAM, {"hosts": [{"host": "1"}, {"available": True}, 5, {"host": "2"}, {"host": [1]}]})
    assert [row["host_ip"] for row in rows(STREAM, found)] == ["1", "2"]
    assert reasons(found) == [("missing_field", 1), ("malformed", 2), ("bad_value", 4)]


def test_what_a_summary_shares_does_not_grow_with_its_hosts() -> None:
    """Large keys of its own are kept once, with the first host."""
    ports = [{"port": number, "available": 1} for number in range(1000)]
    found = rows(STREAM, decoded(STREAM, {"ports": ports, "hosts": [{"host": str(number)} for number in range(300)]}))
    assert found[0]["metadata"] == {"sweep": {"ports": ports}}
    assert all(row["metadata"] is None for row in found[1:])
    assert reasons(decoded(STREAM, {"network": "x" * 5000, "hosts": [{"host": "1"}]})) == [("too_large", None)]


def test_hosts_of_a_host_are_no_summary() -> None:
    """A record that names its host is one record."""
    assert only(hosts=[{"host": "x"}])["metadata"] == {"hosts": [{"host": "x"}]}
    assert reasons(decoded(STREAM, {"hosts": 5})) == [("missing_field", 0)]
    assert rows(STREAM, decoded(STREAM, {"hosts": []})) == []


@pytest.mark.parametrize("place", [place for place, names in enumerate(TABLE.places.names) if names])
def test_every_name_of_a_column_is_accepted(place: int) -> None:
    """And the first that is there and not null wins."""
    names = TABLE.places.names[place]
    record = json.loads(OBJECT)
    value = record.pop(names[0], "edge-07")
    for name in names:
        assert only_row(STREAM, record | {name: value}) == OBJECT_ROW
        assert only_row(STREAM, record | dict.fromkeys(names) | {name: value}) == OBJECT_ROW


@pytest.mark.parametrize("record", [{}, {"host_ip": ""}, {"host_ip": None}, {"hostname": "h"}])
def test_a_host_without_address_is_rejected(record: dict[str, Any]) -> None:
    """It used to vanish, or to fail its batch."""
    assert reasons(decoded(STREAM, record)) == [("missing_field", 0)]


@pytest.mark.parametrize("field", ["host_ip", "gateway_id", "agent_id", "partition"])
def test_a_bad_required_text_is_rejected(field: str) -> None:
    """Nothing can stand for it; a number can be text."""
    assert reasons(decoded(STREAM, {"host_ip": "h", field: {"a": 1}})) == [("bad_value", 0)]
    assert only(**{field: 5})[field] == "5"


@pytest.mark.parametrize("stamp", ["yesterday", [], True, 10**30])
def test_a_bad_sweep_time_is_rejected(stamp: object) -> None:
    """It is part of the key."""
    found = decoded(STREAM, {"host_ip": "h", "last_sweep_time": stamp})
    assert reasons(found) == [("bad_time", 0)]
    assert found.rejects[0].detail.startswith("last_sweep_time: ")


def test_a_missing_sweep_time_is_that_of_the_broker() -> None:
    """0 and the zero of Go are missing; the turn of the year 2000 is not."""
    for absent in (None, 0, "", "0001-01-01T00:00:00Z"):
        assert only(last_sweep_time=absent)["last_sweep_time"] == at(RECEIVED)
    assert only(last_sweep_time="2000-01-01T00:00:00Z")["last_sweep_time"] == 0


def test_S1_V11_false_and_zero_are_values() -> None:
    """They are not missing, so the next name is not asked."""
    found = only(icmp_available=False, icmpAvailable=True, icmp_response_time_ns=0, icmpResponseTimeNs=5)
    assert (found["icmp_available"], found["icmp_response_time_ns"]) == (False, 0)


@pytest.mark.parametrize("absent", [None, 0, "", "0001-01-01T00:00:00Z"])
def test_S2_first_seen_is_not_invented(absent: object) -> None:
    """It is NULL."""
    assert only(first_seen=absent)["first_seen"] is None


def test_S3_the_latest_message_of_a_key_wins() -> None:
    """The engine does it, by this key and the column that tells which is the latest."""
    assert STREAM.key == ("host_ip", "gateway_id", "partition", "last_sweep_time")
    assert "received_at" in [column.name for column in STREAM.columns]


@pytest.mark.parametrize("field", ["network_cidr", "hostname", "mac"])
def test_empty_texts_are_null(field: str) -> None:
    """There is no network, name or address of no characters."""
    assert only(**{field: ""})[field] is None


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("icmp_available", "false", False),
        ("icmp_available", 1, True),
        ("icmp_response_time_ns", "812000", 812000),
        ("icmp_response_time_ns", 812000.0, 812000),
        ("icmp_packet_loss", "33.3", 33.3),
        ("icmp_packet_loss", 100, 100.0),
        ("tcp_ports_scanned", "[22, 80]", [22, 80]),
        ("tcp_ports_open", [], []),
        ("tcp_ports_open", "22,80", "22,80"),
        ("port_scan_results", '[{"port":1}]', [{"port": 1}]),
        ("hostname", 5, "5"),
        ("metadata", '{"a":1}', {"a": 1}),
    ],
)
def test_fields_are_lenient(field: str, value: object, expected: object) -> None:
    """Another form of the same meaning is that meaning; JSON text in a JSON column is JSON (V13)."""
    assert only(**{field: value})[field] == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("icmp_available", "perhaps"),
        ("icmp_response_time_ns", "fast"),
        ("icmp_packet_loss", "NaN"),
        ("hostname", ["h"]),
        ("network_cidr", {}),
        ("mac", {}),
        ("first_seen", "long ago"),
    ],
)
def test_a_bad_optional_field_is_kept_in_metadata(field: str, value: object) -> None:
    """The row is written without it, and the repair counted."""
    found = decoded(STREAM, {"host_ip": "h", field: value})
    (row,) = rows(STREAM, found)
    assert row[field] is None
    assert row["metadata"] == {field: value}
    assert len(found.repairs) == 1


def test_too_large_numbers_are_clamped_and_kept() -> None:
    """As text in metadata."""
    found = decoded(STREAM, {"host_ip": "h", "icmp_response_time_ns": 2**63})
    (row,) = rows(STREAM, found)
    assert row["icmp_response_time_ns"] == INT8_MAX
    assert row["metadata"] == {"icmp_response_time_ns": str(2**63)}
    assert found.repairs == ["clamped"]


def test_later_keys_are_kept_in_metadata() -> None:
    """Those that newer producers add, and a second gateway."""
    found = only(execution_id="e", config_hash="c", poller_id="a", gateway_id="b", metadata={"s": 1})
    assert found["metadata"] == {"s": 1, "execution_id": "e", "config_hash": "c", "gateway_id": "b"}


def test_columns_have_their_older_names() -> None:
    """Tables of 2025 call the gateway a poller."""
    (column,) = [column for column in STREAM.columns if column.aliases]
    assert (column.name, column.aliases) == ("gateway_id", ("poller_id",))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_payloads_take_no_time(name: str) -> None:
    """Each is decoded four times in well under the five seconds of CPU allowed here."""
    begun = time.process_time()
    decoded(STREAM, HOSTILE[name])
    decoded(STREAM, b'{"last_sweep":1,"hosts":[{"host":"a"},' + HOSTILE[name] + b"]}")
    assert time.process_time() - begun < 5


NAMES = [
    *TABLE.places.place_of, "hosts", "host", "available", "network", "last_sweep", "ports", "port_results",
    "icmp_status", "specversion", "id", "data",
]  # fmt: skip
hosts = records_with(NAMES) | json_values


@given(
    st.binary()
    | json_values
    | records_with(NAMES).map(lambda record: {"host_ip": "h", "last_sweep_time": 1765535700} | record)
    | st.builds(lambda summary, members: summary | {"hosts": members}, records_with(NAMES), st.lists(hosts, max_size=3))
    | st.lists(records_with(NAMES), max_size=3)
    | damaged([OBJECT, CAMEL, ARRAY, SUMMARY, EVENT])
)
@settings(max_examples=examples(300))
def test_any_payload_becomes_rows_and_rejects(payload: Any) -> None:
    """Never an exception, always the same, and every value fits its column."""
    found = decoded(STREAM, payload)
    assert all(reject.reason != "internal" for reject in found.rejects)
