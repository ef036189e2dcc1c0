"""Flat JSON records: which records a message holds, who is rejected, and what becomes of values that do not fit."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression import gz
from eventwriter import values
from eventwriter.stream import Decoded, Message, Row
from eventwriter.values import EPOCH, INT4_MAX, INT4_MIN, Unfit
from records import RECEIVED, at, message, reasons
from workers._guard import total
from workers._json import convert
from workers._json.records import Kind, Origin, Records, decode_records
from workers._json.table import Places
from workers._limits import RECORDS_MAX


def row_of(record: Mapping[str, Any], origin: Origin) -> Row:
    """A row of the record's ``n``, the time that stands in, and the envelope; no ``n``, no row."""
    if "n" not in record:
        raise Unfit("missing_field", "n is missing")
    _, _, time, envelope, _ = origin
    return record["n"], time, envelope


class Groups(Kind):
    """Records, and groups of them."""

    def take_group(self, records: Records, value: Mapping[str, Any], origin: Origin, depth: int) -> bool:
        """Takes the members of a group."""
        if isinstance(value["group"], list):
            records.take_each(value["group"], origin, depth)
        return isinstance(value["group"], list)


RECORDS = Kind(row_of)
GROUPS = Groups(row_of, ("group",))


@total
def decode(message: Message) -> Decoded:
    """What a message of such records and groups holds."""
    return decode_records(GROUPS, message)


def numbers(payload: Any, headers: dict[str, str] | None = None) -> tuple[list[Any], list[tuple[str, int | None]]]:
    """First values of the rows, and the rejects, of JSON alone."""
    found = decode(message(payload, "s", headers))
    return [row[0] for row in found.rows], reasons(found)


EVENT = {"specversion": "1.0", "id": "7", "source": "/a", "type": "t"}


def b64(value: Any) -> str:
    """Base64 of JSON, or of bytes."""
    return base64.b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"n": 1}, [1]),
        (b'\n {"n": 1}', [1]),
        (b'\xef\xbb\xbf{"n": 1}', [1]),
        (gz(b'{"n": 1}'), [1]),
        ([{"n": 1}, {"n": 2}], [1, 2]),
        ([], []),
        (EVENT | {"data": {"n": 1}}, [1]),
        (EVENT | {"data": [{"n": 1}, {"n": 2}]}, [1, 2]),
        (EVENT | {"data": '{"n": 1}'}, [1]),
        (EVENT | {"data_base64": b64({"n": 1})}, [1]),
        (EVENT | {"data_base64": b64(gz(b'[{"n": 1}]'))}, [1]),
        ([EVENT | {"data": {"n": 1}}, EVENT | {"data": [{"n": 2}]}, {"n": 3}], [1, 2, 3]),
        (EVENT | {"data": EVENT | {"data": {"n": 1}}}, [1]),
        ({"group": [{"n": 1}, {"n": 2}]}, [1, 2]),
        ({"group": 5, "n": 1}, [1]),
        ({"specversion": 1, "n": 1}, [1]),
    ],
)
def test_D17_a_message_holds_records_in_many_ways(payload: Any, expected: list[int]) -> None:
    """An object, an array, a CloudEvent or a batch of them, compressed or not."""
    assert numbers(payload) == (expected, [])


@pytest.mark.parametrize(
    ("payload", "rows", "rejects"),
    [
        ({}, [], [("missing_field", 0)]),
        ([{"n": 1}, {}, {"n": 2}], [1, 2], [("missing_field", 1)]),
        ([1, {"n": 1}, None, [{"n": 2}]], [1], [("malformed", 0), ("malformed", 2), ("malformed", 3)]),
        ([EVENT | {"data": [{"n": 1}, {}]}, {}, {"n": 2}], [1, 2], [("missing_field", 1), ("missing_field", 2)]),
        ([EVENT, {"n": 1}], [1], [("malformed", 0)]),
        ({"group": [{}, "x", {"n": 1}]}, [1], [("missing_field", 0), ("malformed", 1)]),
    ],
)
def test_D5_a_bad_record_leaves_its_siblings_alone(
    payload: Any, rows: list[int], rejects: list[tuple[str, int]]
) -> None:
    """It is rejected by its number over all records of the message."""
    assert numbers(payload) == (rows, rejects)


@pytest.mark.parametrize(
    "payload",
    [b"", b"null", b"5", b'"x"', b"true", b"{", b"\x0a\x00", EVENT, EVENT | {"data": 5}, EVENT | {"data_base64": "!"}],
)
def test_D1_D2_a_message_without_records_is_rejected_whole(payload: Any) -> None:
    """Nothing that cannot be decoded goes unnoticed."""
    assert numbers(payload) == ([], [("malformed", None)])


def test_envelopes_within_envelopes_have_an_end() -> None:
    """Eight are opened, a ninth is malformed."""
    nested: dict[str, Any] = {"n": 1}
    for _ in range(8):
        nested = EVENT | {"data": nested}
    assert numbers(nested) == ([1], [])
    assert numbers(EVENT | {"data": nested}) == ([], [("malformed", None)])


def test_the_envelope_goes_with_the_record() -> None:
    """Its context attributes, those of an inner event before those of an outer one; data is not among them."""
    inner = {"specversion": "1.0", "id": "8", "type": "u", "data": {"n": 1}}
    found = decode_records(RECORDS, message(EVENT | {"data": inner, "ext": 1}, "s"))
    kept = {f"outer.{name}": EVENT[name] for name in ("id", "type")}
    assert found.rows[0][2] == EVENT | {"id": "8", "type": "u", "ext": 1} | kept


@pytest.mark.parametrize(
    ("time", "expected", "repairs"),
    [
        (None, RECEIVED, []),
        ("", RECEIVED, []),
        ("0001-01-01T00:00:00Z", RECEIVED, []),
        ("2025-12-12T10:00:00Z", "2025-12-12T10:00:00Z", []),
        ("2000-01-01T00:00:00Z", "2000-01-01T00:00:00Z", []),
        ("yesterday", RECEIVED, ["bad_time"]),
        ([], RECEIVED, ["bad_time"]),
    ],
)
def test_D12_a_missing_time_is_that_of_the_event_or_of_the_broker(time: Any, expected: str, repairs: list[str]) -> None:
    """Never that of decoding: a redelivered message decodes to the same rows."""
    found = decode_records(RECORDS, message(EVENT | {"time": time, "data": {"n": 1}}, "s"))
    assert found.rows[0][1] == at(expected)
    assert found.repairs == repairs


def test_a_large_envelope_is_kept_once() -> None:
    """With the first of its records; with all of them it would multiply."""
    large = EVENT | {"ext": "x" * 5000}
    found = decode_records(RECORDS, message(large | {"data": [{"n": 1}, {"n": 2}]}, "s"))
    assert [row[2] for row in found.rows] == [large, None]
    found = decode_records(RECORDS, message(EVENT | {"data": [{"n": 1}, {"n": 2}]}, "s"))
    assert [row[2] for row in found.rows] == [EVENT, EVENT]


def test_a_message_holds_a_bounded_number_of_records() -> None:
    """Each could become a dead letter."""
    few, many = (b"[" + b",".join([b"{}"] * count) + b"]" for count in (1000, RECORDS_MAX + 1))
    assert len(decode_records(RECORDS, message(few, "s")).rejects) == 1000
    assert numbers(many) == ([], [("too_large", None)])
    assert numbers([{"group": json.loads(many)}, {"n": 1}]) == ([], [("too_large", None)])


def test_headers_may_be_the_envelope() -> None:
    """CloudEvents in binary mode; other headers say nothing."""
    headers = {"ce-specversion": "1.0", "ce-id": "7", "ce-time": "2025-12-12T10:00:00Z"}
    found = decode_records(RECORDS, message({"n": 1}, "s", headers))
    assert found.rows == [(1, at("2025-12-12T10:00:00Z"), {name[3:]: value for name, value in headers.items()})]
    found = decode_records(RECORDS, message({"n": 1}, "s", {"Nats-Msg-Id": "7"}))
    assert found.rows == [(1, at(RECEIVED), None)]


# --- values ---------------------------------------------------------------------------------------------------


def test_V4_zero_is_no_time() -> None:
    """Nor are null, an empty text, and the zero of Go; the turn of the year 2000 is one."""
    for absent in (None, 0, 0.0, "", "0", "0001-01-01T00:00:00Z"):
        assert convert.moment(absent) is None
    assert convert.moment("2000-01-01T00:00:00Z") == 0
    assert convert.moment(1) == 1_000_000 - EPOCH
    bad: Any
    for bad in (False, "x", [], {}):
        with pytest.raises(Unfit):
            convert.moment(bad)


def test_what_does_not_fit_is_kept() -> None:
    """As it came, beside what has the same name already."""
    rest: dict[str, Any] = {"unit": "kept"}
    repairs: list[str] = []
    assert convert.fitting(values.text, "unit", {"a": 1}, rest, repairs) is None
    assert convert.fitting(values.boolean, "flag", "perhaps", rest, repairs) is None
    assert convert.real("scale", "12abc", rest, repairs) is None
    assert convert.clamped("index", INT4_MIN, INT4_MAX, 3.5, rest, repairs) is None
    assert rest == {"unit": "kept", "original.unit": {"a": 1}, "flag": "perhaps", "scale": "12abc", "index": 3.5}
    assert repairs == ["bad_value"] * 4


def test_what_fits_is_converted() -> None:
    """Lenient about form; null is nothing, and nothing is noted."""
    rest: dict[str, Any] = {}
    repairs: list[str] = []
    assert convert.fitting(values.text, "a", 3, rest, repairs) == "3"
    assert convert.fitting(values.boolean, "a", "true", rest, repairs) is True
    assert convert.real("a", "0.5", rest, repairs) == 0.5
    assert convert.clamped("a", 0, 9, "3", rest, repairs) == 3
    assert convert.fitting(values.text, "a", None, rest, repairs) is None
    assert convert.fitting(values.boolean, "a", None, rest, repairs) is None
    assert convert.real("a", None, rest, repairs) is None
    assert convert.clamped("a", 0, 9, None, rest, repairs) is None
    assert (rest, repairs) == ({}, [])


@pytest.mark.parametrize(
    ("value", "expected", "original"),
    [
        (2**31, INT4_MAX, "2147483648"),
        (-(2**40), INT4_MIN, "-1099511627776"),
        (" -99999999999 ", INT4_MIN, "-99999999999"),
        (1e12, INT4_MAX, "1000000000000"),
        (10**30, INT4_MAX, "1" + "0" * 30),
    ],
)
def test_numbers_out_of_range_are_clamped(value: Any, expected: int, original: str) -> None:
    """The exact number is kept as text."""
    rest: dict[str, Any] = {}
    repairs: list[str] = []
    assert convert.clamped("index", INT4_MIN, INT4_MAX, value, rest, repairs) == expected
    assert (rest, repairs) == ({"index": original}, ["clamped"])


def test_integers_that_float64_rounds_are_kept_exactly() -> None:
    """Beyond 2^53, unless they are exact by chance."""
    rest: dict[str, Any] = {}
    repairs: list[str] = []
    assert convert.real("value", 2**60, rest, repairs) == 2.0**60
    assert rest == {}
    assert convert.real("value", 2**60 + 1, rest, repairs) == 2.0**60
    assert (rest, repairs) == ({"value": str(2**60 + 1)}, ["rounded"])


@pytest.mark.parametrize("kind", [str, values.LongNumber])
def test_numbers_that_float64_only_comes_near_are_kept_as_they_came(kind: Any) -> None:
    """Also in a text; what says no more than the float is not."""
    rest: dict[str, Any] = {}
    repairs: list[str] = []
    assert convert.real("value", kind("12345678901234567.25"), rest, repairs) == 12345678901234568.0
    assert (rest, repairs) == ({"value": "12345678901234567.25"}, ["rounded"])
    rest.clear()
    assert convert.real("value", "1e-99999999999999999999", rest, repairs) == 0.0
    assert rest == {"value": "1e-99999999999999999999"}
    for text in ("0.13436424411240122", " 1765535400.5925481 ", "1.50000000000000000000000", "12345678901234567000"):
        rest.clear()
        assert convert.real("value", text, rest, repairs) is not None
        assert not rest, text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ({"a": 1}, b'{"a":1}'),
        ([], b"[]"),
        ({}, b"{}"),
        ('{"a": 1}', b'{"a":1}'),
        ("[1]", b"[1]"),
        ("{broken", b'"{broken"'),
        ("plain", b'"plain"'),
        (5, b"5"),
        (False, b"false"),
    ],
)
def test_V13_T4_json_columns_take_json_and_text_of_it(value: Any, expected: bytes | None) -> None:
    """Text that is none is kept as a JSON string."""
    assert convert.jsonb(value) == expected


@pytest.mark.parametrize(
    ("metadata", "rest", "envelope", "expected"),
    [
        (None, {}, None, None),
        ({"a": 1}, {}, None, {"a": 1}),
        ("text", {}, None, "text"),
        (None, {"x": 1}, None, {"x": 1}),
        ({"a": 1}, {"x": 1}, None, {"a": 1, "x": 1}),
        ('{"a": 1}', {"x": 1}, None, {"a": 1, "x": 1}),
        ({"x": 0}, {"x": 1}, None, {"x": 0, "record.x": 1}),
        ("text", {"x": 1}, None, {"metadata": "text", "x": 1}),
        ("", {"x": 1}, None, {"x": 1}),
        ({"a": 1}, {}, {"id": "7"}, {"a": 1, "cloudevent": {"id": "7"}}),
    ],
)
def test_metadata_takes_what_has_no_column(metadata: Any, rest: Any, envelope: Any, expected: Any) -> None:
    """Without displacing anything."""
    found = convert.metadata_of(metadata, rest, envelope)
    assert (found if found is None else json.loads(found)) == expected


PLACES = Places(("a",), ("b_c", "bC", "old"), (), ("d",))


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b_c", "bC", "old", "d", "", "x", "v0"]),
                                st.none() | st.integers(0, 9)), min_size=1, max_size=5))  # fmt: skip
def test_records_are_sorted_alike_whether_their_keys_are_known_or_not(records: list[dict[str, Any]]) -> None:
    """Whatever came before with the same keys, in the same order or another one."""
    for record in [*records, *records]:
        firsts = [next((n for n in names if record.get(n) is not None), None) for names in PLACES.names]
        others = {n: v for n, v in record.items() if n not in firsts and (v is not None or n not in PLACES.place_of)}
        assert PLACES.sort(record) == ([n and record[n] for n in firsts], others)


def test_no_more_lists_of_keys_are_remembered_than_there_is_room_for() -> None:
    """Keys that never come again take no memory."""
    places = Places(*PLACES.names)
    for number in range(2000):
        assert places.sort({"a": 1, f"x{number}": 2}) == ([1, None, None, None], {f"x{number}": 2})
    assert len(places._sorters) < 1000
    assert places.sort({"a": 1, "x" * 9000: 2})[1] == {"x" * 9000: 2}
