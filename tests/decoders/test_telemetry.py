"""TELEMETRY: measurements become rows of timeseries_metrics."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression import gz
from profiles import examples
from records import HOSTILE, RECEIVED, at, damaged, decoded, json_values, only_row, reasons, records_with, rows
from workers.telemetry import STREAM, TABLE

OBJECT = (
    '{"timestamp":"2025-12-12T10:30:00.250Z","poller_id":"edge-07","agent_id":"agent-a1","metric_name":"ifInOctets",'
    '"metric_type":"snmp","device_id":"default:10.20.0.1","value":99120044812,"unit":"By","tags":{"ifName":"ge-0/0/1"},'
    '"partition":"default","scale":1,"is_delta":false,"target_device_ip":"10.20.0.1","if_index":3,'
    '"metadata":{"community":"ro"}}'
)
MODEL = (
    '{"timestamp":1765535400250,"pollerId":"edge-07","name":"icmp_gw_response_time_ms","type":"icmp","value":"0.413",'
    '"metadata":"{\\"packet_loss\\":0}"}'
)
ARRAY = (
    '[{"timestamp":1765535400,"gateway_id":"gw-2","metric_name":"cpu.util","value":45.5,"unit":"percent",'
    '"tags":{"core":"0"}},{"timestamp":1765535400,"gateway_id":"gw-2","metric_name":"cpu.util","value":0,'
    '"unit":"percent","tags":{"core":"1"}}]'
)
EVENT = '{"specversion":"1.0","id":"7","source":"/a","type":"t","time":"2025-12-12T10:00:00Z","data":' + MODEL + "}"

MOMENT = at("2025-12-12T10:30:00.250Z")
OBJECT_ROW = {
    "timestamp": MOMENT,
    "gateway_id": "edge-07",
    "agent_id": "agent-a1",
    "metric_name": "ifInOctets",
    "metric_type": "snmp",
    "device_id": "default:10.20.0.1",
    "value": 99120044812.0,
    "unit": "By",
    "tags": {"ifName": "ge-0/0/1"},
    "partition": "default",
    "scale": 1.0,
    "is_delta": False,
    "target_device_ip": "10.20.0.1",
    "if_index": 3,
    "metadata": {"community": "***"},
}
DEFAULTS = {
    "timestamp": at(RECEIVED),
    "gateway_id": "unknown",
    "agent_id": None,
    "metric_name": "unknown",
    "metric_type": "gauge",
    "device_id": None,
    "unit": None,
    "tags": None,
    "partition": None,
    "scale": None,
    "is_delta": False,
    "target_device_ip": None,
    "if_index": None,
    "metadata": None,
}
MODEL_ROW = DEFAULTS | {
    "timestamp": MOMENT,
    "gateway_id": "edge-07",
    "metric_name": "icmp_gw_response_time_ms",
    "metric_type": "icmp",
    "value": 0.413,
    "metadata": {"packet_loss": 0},
}
CORE_ROW = DEFAULTS | {
    "timestamp": at("2025-12-12T10:30:00Z"),
    "gateway_id": "gw-2",
    "metric_name": "cpu.util",
    "unit": "percent",
}


def only(**fields: Any) -> dict[str, Any]:
    """The row of a record with a value and these fields."""
    return only_row(STREAM, {"value": 1} | fields)


def test_an_object_fills_every_column() -> None:
    """The form in which the Elixir writer expected it."""
    assert only_row(STREAM, OBJECT) == OBJECT_ROW


def test_the_go_model_fills_its_columns() -> None:
    """Value and metadata are texts there; what is missing has its default."""
    assert only_row(STREAM, MODEL) == MODEL_ROW


def test_D17_an_array_is_a_row_per_element() -> None:
    """It used to fail the whole batch for ever. A value of 0 is a value."""
    found = decoded(STREAM, ARRAY)
    assert rows(STREAM, found) == [
        CORE_ROW | {"value": 45.5, "tags": {"core": "0"}},
        CORE_ROW | {"value": 0.0, "tags": {"core": "1"}},
    ]


def test_a_cloudevent_is_opened_and_its_envelope_kept() -> None:
    """In metadata, as ``cloudevent``."""
    envelope = {"specversion": "1.0", "id": "7", "source": "/a", "type": "t", "time": "2025-12-12T10:00:00Z"}
    assert only_row(STREAM, EVENT) == MODEL_ROW | {"metadata": {"packet_loss": 0, "cloudevent": envelope}}


def test_a_batch_in_binary_mode_compressed() -> None:
    """All of it at once: headers around a compressed array of an event in base64 and a flat record."""
    inner = {"specversion": "1.0", "id": "8", "type": "t", "data_base64": base64.b64encode(OBJECT.encode()).decode()}
    payload = gz(json.dumps([inner, {"value": 2}]).encode())
    headers = {"ce-specversion": "1.0", "ce-id": "7", "ce-time": "2025-12-12T10:00:00Z"}
    first, second = rows(STREAM, decoded(STREAM, payload, headers=headers))
    kept = {"specversion": "1.0", "id": "8", "type": "t", "time": "2025-12-12T10:00:00Z", "outer.id": "7"}
    assert first == OBJECT_ROW | {"metadata": {"community": "***", "cloudevent": kept}}
    assert second["timestamp"] == at("2025-12-12T10:00:00Z")


@pytest.mark.parametrize("place", range(len(TABLE.places.names)))
def test_every_name_of_a_column_is_accepted(place: int) -> None:
    """And the first that is there and not null wins."""
    names = TABLE.places.names[place]
    record = json.loads(OBJECT)
    given_value = record.pop(names[0], "edge-07")
    for name in names:
        found = only_row(STREAM, record | {name: given_value})
        assert found == OBJECT_ROW | ({"gateway_id": "edge-07"} if place == 2 else {})
        nulls = dict.fromkeys(names)
        assert only_row(STREAM, record | nulls | {name: given_value}) == found


def test_the_first_name_wins_and_the_other_is_kept() -> None:
    """Two values for one column: the second is not lost."""
    found = only(poller_id="a", gateway_id="b", metric_name="m", name="n", type="t")
    assert (found["gateway_id"], found["metric_name"], found["metric_type"]) == ("a", "m", "t")
    assert found["metadata"] == {"gateway_id": "b", "name": "n"}
    assert only(poller_id="a", gateway_id="a")["metadata"] is None
    assert only(pollerId="a", gatewayId="a")["metadata"] is None


def test_what_has_no_column_is_kept() -> None:
    """In metadata, whatever form that has."""
    assert only(host="h", metadata={"a": 1})["metadata"] == {"a": 1, "host": "h"}
    assert only(host="h", metadata="text")["metadata"] == {"metadata": "text", "host": "h"}
    assert only(host=None)["metadata"] == {"host": None}


@pytest.mark.parametrize("value", ["12abc", "", "NaN", [], {}, [1], "1e999"])
def test_T1_a_bad_value_is_rejected(value: object) -> None:
    """It used to be stored as 0, and "12abc" as 12."""
    found = decoded(STREAM, {"value": value})
    assert reasons(found) == [("bad_value", 0)]
    assert found.rejects[0].detail.startswith("value: ")


@pytest.mark.parametrize("record", [{}, {"value": None}, {"metric_name": "m"}])
def test_T1_a_missing_value_is_rejected(record: dict[str, Any]) -> None:
    """It used to be stored as 0."""
    assert reasons(decoded(STREAM, record)) == [("missing_field", 0)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (-1.5, -1.5),
        ("0.413", 0.413),
        (" 7 ", 7.0),
        (True, 1.0),
        (False, 0.0),
        (2**53, 2.0**53),
        (1e300, 1e300),
    ],
)
def test_values_of_any_form_are_numbers(value: object, expected: float) -> None:
    """Numbers, numeric texts, bools."""
    assert only(value=value)["value"] == expected


def test_T2_series_are_told_apart() -> None:
    """There is no key that would let one of two series of the same moment win."""
    assert STREAM.key == ()


def test_T4_metadata_that_is_no_json_keeps_the_row() -> None:
    """As a JSON string; tags likewise."""
    found = only(metadata="{broken", tags="a=b")
    assert (found["metadata"], found["tags"]) == ("{broken", "a=b")


def test_V11_false_and_zero_are_values() -> None:
    """They are not missing, so the next name is not asked."""
    found = only(is_delta=False, isDelta=True, if_index=0, ifIndex=5, agent_id="", agentId="x")
    assert (found["is_delta"], found["if_index"], found["agent_id"]) == (False, 0, "")


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2025-12-12T10:30:00.123456789Z", "2025-12-12T10:30:00.123456Z"),
        (1765535400123456789, "2025-12-12T10:30:00.123456Z"),
        (1765535400123456, "2025-12-12T10:30:00.123456Z"),
        (1765535400123, "2025-12-12T10:30:00.123Z"),
        (1765535400.123456, "2025-12-12T10:30:00.123456Z"),
        ("1765535400", "2025-12-12T10:30:00Z"),
        (0, RECEIVED),
        (None, RECEIVED),
        ("2000-01-01T00:00:00Z", "2000-01-01T00:00:00Z"),
    ],
)
def test_V1_V2_V3_V4_times_of_any_form(stamp: object, expected: str) -> None:
    """To the microsecond; none is that of the broker."""
    assert only(timestamp=stamp)["timestamp"] == at(expected)


@pytest.mark.parametrize("stamp", ["yesterday", "2025-13-01T00:00:00Z", 10**30, [], {}, True, "1e999999999"])
def test_a_bad_time_is_rejected(stamp: object) -> None:
    """A measurement at another time would be wrong."""
    found = decoded(STREAM, {"value": 1, "timestamp": stamp})
    assert reasons(found) == [("bad_time", 0)]
    assert found.rejects[0].detail.startswith("timestamp: ")


@pytest.mark.parametrize("field", ["gateway_id", "metric_name", "metric_type"])
def test_a_bad_required_text_is_rejected(field: str) -> None:
    """Nothing can stand for it; a number can be text."""
    assert reasons(decoded(STREAM, {"value": 1, field: ["x"]})) == [("bad_value", 0)]
    assert only(**{field: 5})[field] == "5"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("agent_id", 5, "5"),
        ("device_id", True, "true"),
        ("unit", 1.5, "1.5"),
        ("partition", 0, "0"),
        ("target_device_ip", 7, "7"),
        ("scale", "0.1", 0.1),
        ("is_delta", "true", True),
        ("is_delta", 0, False),
        ("if_index", "3", 3),
        ("if_index", 3.0, 3),
        ("tags", '{"a":1}', {"a": 1}),
        ("tags", [1], [1]),
    ],
)
def test_optional_fields_are_lenient(field: str, value: object, expected: object) -> None:
    """Another form of the same meaning is that meaning."""
    found = only(**{field: value})
    assert found[field] == expected
    assert found["metadata"] is None


@pytest.mark.parametrize("field", ["agent_id", "device_id", "unit", "partition", "target_device_ip"])
def test_a_bad_optional_field_is_kept_in_metadata(field: str) -> None:
    """The row is written without it, and the repair counted."""
    for name, value in ((field, {"x": 1}), ("scale", "big"), ("is_delta", "perhaps"), ("if_index", 3.5)):
        found = decoded(STREAM, {"value": 1, "metadata": {"a": 1}, name: value})
        (row,) = rows(STREAM, found)
        assert row[name] is None
        assert row["metadata"] == {"a": 1, name: value}
        assert found.repairs == ["bad_value"]


def test_too_large_numbers_are_clamped_and_kept() -> None:
    """As text in metadata; so are integers that float64 would round."""
    found = decoded(STREAM, {"value": 2**63 + 1, "if_index": 2**31, "scale": 2**60 + 1})
    (row,) = rows(STREAM, found)
    assert (row["value"], row["if_index"], row["scale"]) == (2.0**63, 2**31 - 1, 2.0**60)
    assert row["metadata"] == {"value": str(2**63 + 1), "if_index": "2147483648", "scale": str(2**60 + 1)}
    assert sorted(found.repairs) == ["clamped", "rounded", "rounded"]


def test_V5_nul_and_surrogates_are_replaced() -> None:
    """In texts and inside JSON."""
    row = only_row(STREAM, rb'{"value":1,"name":"a\u0000b","unit":"\ud800","tags":{"\u0000":"\u0000"}}')
    assert (row["metric_name"], row["unit"], row["tags"]) == ("a�b", "�", {"�": "�"})


def test_columns_have_their_older_names() -> None:
    """Tables of 2025 call the gateway a poller."""
    (column,) = [column for column in STREAM.columns if column.aliases]
    assert (column.name, column.aliases) == ("gateway_id", ("poller_id",))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_payloads_take_no_time(name: str) -> None:
    """Each is decoded twice in well under the five seconds of CPU allowed here."""
    begun = time.process_time()
    decoded(STREAM, HOSTILE[name])
    assert time.process_time() - begun < 5


NAMES = [*TABLE.places.place_of, "specversion", "data", "data_base64", "id", "extra"]


@given(
    st.binary()
    | json_values
    | records_with(NAMES)
    | records_with(NAMES).map(lambda record: {"value": 1, "timestamp": 1765535400} | record)
    | st.lists(records_with(NAMES), max_size=3)
    | damaged([OBJECT, MODEL, ARRAY, EVENT])
)
@settings(max_examples=examples(300))
def test_any_payload_becomes_rows_and_rejects(payload: Any) -> None:
    """Never an exception, always the same, and every value fits its column."""
    found = decoded(STREAM, payload)
    assert all(reject.reason != "internal" for reject in found.rejects)
