"""Conversions: JSON, times, numbers, text."""

from __future__ import annotations

import json
import math
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventwriter import values
from eventwriter.values import (
    EPOCH,
    INT4_MAX,
    INT4_MIN,
    INT8_MAX,
    INT8_MIN,
    MAX_DEPTH,
    MAX_TIME,
    MIN_TIME,
    LongNumber,
    Unfit,
)
from records import at, json_values


def brief(value: object) -> str:
    """The name of a parameter that may be megabytes."""
    return values.shown(value, 30)


def reason(convert: Any, *arguments: Any) -> str:
    """Why a conversion refuses; its message must be fit for a dead letter."""
    with pytest.raises(Unfit) as caught:
        convert(*arguments)
    text = str(caught.value)
    assert len(text) < 400
    assert text.encode()
    return caught.value.reason


# --- JSON -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "expected", "repairs"),
    [
        (b'{"a": [1, -2.5, "x", null, true]}', {"a": [1, -2.5, "x", None, True]}, []),
        (b"\xef\xbb\xbf{}", {}, []),
        (b' \n{"a":"\\u00e4"}\r\n', {"a": "ä"}, []),
        (b'{"a":9007199254740993}', {"a": 2**53 + 1}, []),
        (b'{"a":18446744073709551615}', {"a": 2**64 - 1}, []),
        (b'"\\u0000"', "�", ["text_replaced"]),
        (b'{"a\\u0000":["\\u0000"]}', {"a�": ["�"]}, ["text_replaced"] * 2),
        (b'{"a":"\\\\u0000"}', {"a": "\\u0000"}, []),
        (b'{"a":"\\ud800"}', {"a": "�"}, ["text_replaced"]),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}, []),
        (b'{"a":"\xff"}', {"a": "�"}, ["invalid_utf8"]),
        (b'{"a":1e999}', {"a": "1e999"}, ["number_as_text"]),
        (b'{"a":-' + b"9" * 4300 + b"}", {"a": 1 - 10**4300}, []),
        (b'{"a":' + b"9" * 4301 + b"}", {"a": "9" * 4301}, ["number_as_text"]),
        (b'{"a":[-' + b"9" * 4300 + b',"\\ud800"]}', {"a": [1 - 10**4300, "�"]}, ["text_replaced"]),
        (b'{"a":1,"a":2}', {"a": 2}, []),
        (
            b'[{"a\\u0000":1,"a\xef\xbf\xbd":2,"a":3}]',
            [{"a\ufffd": 1, "original.a\ufffd": 2, "a": 3}],
            ["text_replaced"],
        ),
        (b'{"\\ud800":1,"\\ud801":2}', {"\ufffd": 1, "original.\ufffd": 2}, ["text_replaced"] * 2),
        (b'{"a\xff":1,"a\xfe":2,"b":3,"b":4}', {"a\ufffd": 1, "original.a\ufffd": 2, "b": 4}, ["invalid_utf8"]),
    ],
)
def test_json_is_parsed_and_cleaned(payload: bytes, expected: object, repairs: list[str]) -> None:
    """Integers are exact (V12); what PostgreSQL would refuse is replaced and counted."""
    noted: list[str] = []
    assert values.parse_json(payload, noted) == expected
    assert noted == repairs


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b" ", b"{", b"{}x", b"{'a':1}", b"nul", b"\n\x04{\x08\x01}", b"[NaN]", b"[Infinity]", b"[01]"),
        *(b'["\x01"]', b"\xff\xfe{\0", b"\xef\xbb\xbf\xef\xbb\xbf{}", b"\xef\xbb\xbf" * 5000),
        *(b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000),
    ],
    ids=brief,
)
def test_what_is_not_json_is_malformed(payload: bytes) -> None:
    """One complete value and nothing else."""
    noted: list[str] = []
    assert reason(values.parse_json, payload, noted) == "malformed"
    assert noted == []


@pytest.mark.parametrize("inner", [b'"\\u0000"', b'"\\ud800"', b"1e999"])
def test_repairs_go_to_a_fixed_depth(inner: bytes) -> None:
    """What must be rebuilt may be MAX_DEPTH deep: recursion is not trusted, for its limit depends on the caller."""
    values.parse_json(b"[" * MAX_DEPTH + inner + b"]" * MAX_DEPTH, [])
    for depth in (MAX_DEPTH + 1, 900, 20_000):
        assert reason(values.parse_json, b"[" * depth + inner + b"]" * depth, []) == "malformed"


@pytest.mark.parametrize("depth", [250, 900, 1000, 1023, 1024, 3000])
def test_how_deep_calls_are_changes_nothing(depth: int) -> None:
    """Not what is parsed, and not the digits of numbers in it."""
    payload = b'{"a":123456789012345678901234567890,"b":0.12345678901234567890,"c":%s}' % (b"[" * depth + b"]" * depth)

    def parsed(calls: int) -> tuple[object, ...]:
        if calls:
            return parsed(calls - 1)
        try:
            found = values.parse_json(payload, [])
        except Unfit as error:
            return error.reason, str(error)
        return found["a"], found["b"].text

    limit = sys.getrecursionlimit()
    first = parsed(0)
    assert first[0] == (123456789012345678901234567890 if depth < 1024 else "malformed")
    for calls in (10, 100, 500, 700):
        assert parsed(calls) == first
    assert sys.getrecursionlimit() == limit


def test_json_is_written_to_a_fixed_depth() -> None:
    """Up to MAX_DEPTH, also with integers that need Python's own writer."""
    for leaf in (1, 2**70):
        value: Any = leaf
        for _ in range(MAX_DEPTH):
            value = [value]
        assert json.loads(values.dump_json(value)) == value
        assert reason(values.dump_json, [value]) == "bad_value"


@given(json_values)
def test_json_survives_the_way_through(value: Any) -> None:
    """Parsed and written, it is the same value in the types that PostgreSQL takes."""
    noted: list[str] = []
    found = values.parse_json(json.dumps(value).encode(), noted)
    text = values.dump_json(found)
    assert b"\\u0000" not in text.replace(b"\\\\", b"")
    if not noted and "e+" not in json.dumps(value):
        assert json.loads(text) == value


NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,2})?", fullmatch=True)


def exactly(text: bytes) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


@given(st.lists(NUMBERS, min_size=1, max_size=4))
def test_numbers_keep_every_digit(numbers: list[str]) -> None:
    """Whatever their size."""
    noted: list[str] = []
    found = exactly(values.dump_json(values.parse_json(f"[{','.join(numbers)}]".encode(), noted)))
    assert found == [*map(Decimal, numbers)]
    assert not noted


@pytest.mark.parametrize("number", ["0.13436424411240122", "1765535400.5925481", "900719925474099.2", "5e-324", "0.0"])
def test_what_floats_print_is_a_float(number: str) -> None:
    """And no more than that, for no more is in it."""
    assert type(values.parse_json(number.encode(), [])) is float


@pytest.mark.parametrize(
    "number", ["1e-400", "1e-99999999999999999999", "-0.5E-99999999999999999999", "1e99999999999999999999"]
)
def test_numbers_beyond_the_exponents_of_float64_are_text(number: str) -> None:
    """Too large or too small; nothing is as large as it takes."""
    noted: list[str] = []
    assert values.parse_json(f"[{number}]".encode(), noted) == [number]
    assert noted == ["number_as_text"]
    assert values.parse_json(b"[0e99999999999999999999, -0.00E-99999999999999999999]", []) == [0.0, 0.0]


def test_a_long_number_is_what_it_says() -> None:
    """As an integer it is exact or none, as a float the nearest, as text the text it came as."""
    whole, part = values.parse_json(b"[12345678901234567.000, 12345678901234567.25]", [])
    assert values.integer(whole) == 12345678901234567
    assert reason(values.integer, part) == "bad_value"
    assert values.real(part) == 12345678901234568.0
    assert type(values.real(part)) is float
    assert values.text(part) == "12345678901234567.25"


@given(st.binary() | st.text().map(str.encode) | st.text().map(lambda text: b'{"a":"' + text.encode() + b'"}'))
def test_any_bytes_are_json_or_malformed(payload: bytes) -> None:
    """Nothing but Unfit is raised."""
    with suppress(Unfit):
        values.dump_json(values.parse_json(payload, []))


# --- times ----------------------------------------------------------------------------------------------------

MOMENT = at("2025-12-12T10:30:00.250000Z")


@pytest.mark.parametrize(
    ("given_time", "expected"),
    [
        ("2025-12-12T10:30:00.250Z", MOMENT),
        ("2025-12-12T10:30:00.25+00:00", MOMENT),
        ("2025-12-12T12:30:00.250000+02:00", MOMENT),
        ("2025-12-12T10:30:00.250000999Z", MOMENT),
        ("2025-12-12 10:30:00.250z", MOMENT),
        (" 2025-12-12T10:30:00.250z ", MOMENT),
        ("2025-12-12T10:30:00.250", MOMENT),
        ("2025-12-12", at("2025-12-12T00:00:00Z")),
        ("2016-12-31T23:59:60Z", at("2017-01-01T00:00:00Z")),
        ("2017-01-01T08:59:60.5+09:00", at("2017-01-01T00:00:00.5Z")),
        (1765535400, at("2025-12-12T10:30:00Z")),
        (1765535400250, MOMENT),
        (1765535400250000, MOMENT),
        (1765535400250000000, MOMENT),
        (1765535400250000999, MOMENT),
        (1765535400.25, MOMENT),
        (1765535400.123456, at("2025-12-12T10:30:00.123456Z")),
        (1765535400250.75, at("2025-12-12T10:30:00.250750Z")),
        ("1765535400.123456789", at("2025-12-12T10:30:00.123456Z")),
        ("1765535400.9999999999999999999999999999999999999999999999", at("2025-12-12T10:30:00.999999Z")),
        (LongNumber("1765535400.123456999"), at("2025-12-12T10:30:00.123456Z")),
        (LongNumber("1765535400.99999999"), at("2025-12-12T10:30:00.999999Z")),
        (LongNumber("1765535400123.456999999"), at("2025-12-12T10:30:00.123456Z")),
        ("1765535400250", MOMENT),
        ("1765535400250000999", MOMENT),
        (946684800, 0),
        (0, -EPOCH),
        (-1, -EPOCH - 1_000_000),
        (99_999_999_999, at("5138-11-16T09:46:39Z")),
        (100_000_000_000, at("1973-03-03T09:46:40Z")),
        (99_999_999_999_999, at("5138-11-16T09:46:39.999Z")),
        (100_000_000_000_000, at("1973-03-03T09:46:40Z")),
        (99_999_999_999_999_999, at("5138-11-16T09:46:39.999999Z")),
        (100_000_000_000_000_000, at("1973-03-03T09:46:40Z")),
        (INT8_MAX, at("2262-04-11T23:47:16.854775Z")),
    ],
)
def test_V1_V2_V3_a_time_of_any_form_keeps_its_microseconds(given_time: object, expected: int) -> None:
    """RFC 3339 with any offset or none, numbers by magnitude, fractions exactly; truncated, not rounded."""
    assert values.time(given_time) == expected


@pytest.mark.parametrize(
    "given_time",
    [
        *(
            "",
            " ",
            "soon",
            "12abc",
            "2025-13-01T00:00:00Z",
            "2025-12-12T25:00:00Z",
            "9" * 65,
            "1e999999999",
            "1e30",
            "1765_535400",
            "١٧٦٥٥٣٥٤٠٠",
        ),
        *(
            "-1",
            "\udc80",
            "T" * 10**6,
            INT8_MAX + 1,
            10**400,
            -(10**400),
            1e300,
            math.inf,
            math.nan,
            None,
            True,
            [],
            {},
        ),
    ],
    ids=brief,
)
def test_what_is_not_a_time_is_refused(given_time: object) -> None:
    """With a bounded message."""
    assert reason(values.time, given_time) == "bad_time"


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(-24 * 60 + 1, 24 * 60 - 1))
def test_every_datetime_is_read_exactly(moment: datetime, minutes: int) -> None:
    """With any offset from UTC."""
    utc = moment.replace(tzinfo=UTC)
    sign = "+" if minutes >= 0 else "-"
    offset = f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    expected = (utc - timedelta(minutes=minutes) - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert values.time(moment.isoformat(timespec="microseconds") + offset) == expected
    assert values.time_to_text(values.time(moment.isoformat() + "Z")) == moment.isoformat(timespec="microseconds") + "Z"


@given(st.floats(0, 99_999_999_999) | st.floats(2**30, 2**33) | st.integers(2**52, 2**55).map(lambda n: n / 2**22))
def test_fractions_of_seconds_are_read_as_they_are_written(seconds: float) -> None:
    """The decimal text of the number counts, cut at the microsecond; not its binary approximation."""
    assert values.time(seconds) == math.floor(Decimal(repr(seconds)) * 1_000_000) - EPOCH


@given(st.integers(0, 8_000_000_000), st.integers(0, 999_999))
def test_microseconds_in_a_float_are_found(seconds: int, micros: int) -> None:
    """Float64 tells microseconds apart for the next two centuries."""
    assert values.time(float(f"{seconds}.{micros:06d}")) == seconds * 1_000_000 + micros - EPOCH


@given(st.integers(INT8_MIN, INT8_MAX))
def test_nanoseconds_are_truncated(nanos: int) -> None:
    """Towards the past, as for positive numbers everywhere."""
    assert values.time_from_nanos(nanos) == nanos // 1000 - EPOCH


@given(json_values | st.integers() | st.floats() | st.text() | st.decimals().map(str))
def test_every_time_is_in_range_or_refused(value: Any) -> None:
    """No conversion gives what timestamptz cannot hold."""
    with suppress(Unfit):
        assert MIN_TIME <= values.time(value) <= MAX_TIME


@pytest.mark.parametrize(
    ("number", "unit", "expected"),
    [
        (1765535400123, 10**6, 1765535400123 * 10**6),
        ("1765535400123", 10**6, 1765535400123 * 10**6),
        (1765535400123.5, 10**6, 1765535400123500000),
        ("1765535400123.456789", 10**6, 1765535400123456789),
        (LongNumber("1765535400123.4567891"), 10**6, 1765535400123456789),
        (-0.0000005, 10**6, -1), ("1.8446744073709552e+19", 1, 18446744073709552000), ("1e300", 1, 10**300),
        (1.8446744073709552e19, 1, 18446744073709552000), (1.76553540025e18, 1, 1765535400250000000),
        (True, 10**6, 10**6),
    ],
)  # fmt: skip
def test_numbers_in_a_known_unit_keep_every_digit(number: object, unit: int, expected: int) -> None:
    """However they are written."""
    assert values.nanoseconds(number, unit) == expected


@pytest.mark.parametrize(
    "number", ["soon", "", "1_0", "NaN", "inf", "1e999999", "1" * 65 + ".5", None, [1], math.inf, 1.5]
)
def test_what_is_no_number_is_no_time_in_a_unit(number: object) -> None:
    """And takes no time to be refused."""
    assert reason(values.nanoseconds, number, 1) in ("bad_time", "bad_value")


def test_nanoseconds_beyond_int64_are_refused() -> None:
    """fixed64 may hold them; they are not wrapped."""
    assert reason(values.time_from_nanos, 2**63) == "bad_time"


# --- scalars --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3), ("3", 3), (" -3 ", -3), ("+3", 3), (3.0, 3), (True, 1), (0, 0), ("0", 0), (INT4_MAX, INT4_MAX)],
)
def test_integers_are_lenient_about_form(value: object, expected: int) -> None:
    """Numbers in texts, whole floats, bools."""
    found = values.integer(value, INT4_MIN, INT4_MAX)
    assert found == expected
    assert type(found) is int


@pytest.mark.parametrize("value", [INT4_MAX + 1, "-99999999999", "9" * 400, 1e300, 10**400], ids=brief)
def test_integers_out_of_range_are_told_from_what_is_no_integer(value: object) -> None:
    """For they can be clamped."""
    assert reason(values.integer, value, INT4_MIN, INT4_MAX) == "out_of_range"


@pytest.mark.parametrize(
    "value", ["", "3.5", "x", "1_000", "9" * 401, 3.5, math.inf, math.nan, None, [], {}], ids=brief
)
def test_integers_are_strict_about_meaning(value: object) -> None:
    """A fraction, a word, or nothing is no integer."""
    assert reason(values.integer, value, INT4_MIN, INT4_MAX) == "bad_value"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, 1.5),
        (3, 3.0),
        ("0.413", 0.413),
        (" 1e3 ", 1000.0),
        ("-0", 0.0),
        (True, 1.0),
        (False, 0.0),
        (2**70, 2.0**70),
    ],
)
def test_numbers_are_lenient_about_form(value: object, expected: float) -> None:
    """Texts and bools are numbers too."""
    found = values.real(value)
    assert found == expected
    assert type(found) is float


@pytest.mark.parametrize(
    "value", ["12abc", "", " ", "nan", "inf", "-Infinity", "1_0", "١٢", "1e999", 10**400, None, [], {}], ids=brief
)
def test_T1_what_begins_like_a_number_is_none(value: object) -> None:
    """ "12abc" is not 12, and nothing is not 0."""
    assert reason(values.real, value) == "bad_value"


def test_booleans_are_lenient_about_form() -> None:
    """true, 1, "true", "1" in any case; nothing else."""
    assert [values.boolean(value) for value in (True, 1, 1.0, "true", "TRUE", " 1 ")] == [True] * 6
    assert [values.boolean(value) for value in (False, 0, 0.0, "false", "False", "0")] == [False] * 6
    value: Any
    for value in ("yes", "", 2, -1, 0.5, None, [], {}):
        assert reason(values.boolean, value) == "bad_value"


def test_text_is_lenient_about_form() -> None:
    """Numbers and bools as JSON writes them: doubles round-trip (V7)."""
    assert [values.text(value) for value in ("a", "", 3, 2**70, 1e-9, 0.5, True, False)] == [
        "a", "", "3", "1180591620717411303424", "1e-9", "0.5", "true", "false",
    ]  # fmt: skip
    value: Any
    for value in (None, [], {}, ["a"]):
        assert reason(values.text, value) == "bad_value"


@given(json_values)
def test_scalars_are_converted_or_refused(value: Any) -> None:
    """Nothing but Unfit is raised, and every result has its type."""
    for convert, kind in ((values.integer, int), (values.real, float), (values.boolean, bool), (values.text, str)):
        with suppress(Unfit):
            assert type(convert(value)) is kind


@given(st.text(st.characters()))
def test_clean_text_is_taken_by_postgresql(text: str) -> None:
    """It has no U+0000, can be encoded, and is the same text if it was clean."""
    noted: list[str] = []
    found = values.clean(text, noted)
    assert "\0" not in found.encode().decode()
    assert (found == text) == (not noted)


@pytest.mark.parametrize(
    "value", ["x" * 10**6, 10**5000, [1] * 10**6, {str(n): n for n in range(10**5)}, "\udc80", b"\xff"], ids=brief
)
def test_values_are_quoted_briefly(value: object) -> None:
    """In a message a value takes 80 characters at most."""
    text = values.shown(value)
    assert len(text) <= 81
    assert text.encode()


def test_deep_values_are_quoted() -> None:
    """repr() itself would fail."""
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    assert len(values.shown(deep)) <= 81
    while deep:  # freeing it all at once would recurse, too
        deep = deep[0]


@given(
    st.lists(
        st.sampled_from(
            ["2025-12-12T10:30:00.250Z", "2025-12-12T10:30:00.25Zx", "1999-12-12T10:30:00.250Z",
             "2025-12-12 10:30:00.250Z", "2025-12-12T10:30:60.250Z", "2025-12-12T10:30:00.2501",
             "20251212T103000.250000Z", "2025-12-12", "", "0"]
        )
        | st.none() | st.integers(),
        max_size=4,
    )
)  # fmt: skip
def test_many_times_are_what_each_is(given_times: list[Any]) -> None:
    """Of one length or not, and whatever else is among them."""
    assert values.usual_times(given_times) == [*map(values.usual_time, given_times)]


@pytest.mark.parametrize(
    "keys",
    [[b"\xff"] * 40_000, [b"\\ud8%02x\\ud9%02x" % divmod(place, 256) for place in range(40_000)]],
    ids=["invalid UTF-8", "surrogates"],
)
def test_many_keys_that_are_made_equal_take_no_longer(keys: list[bytes]) -> None:
    """Each of them is kept, under a name that does not grow with their number."""
    begun = process_time()
    found = values.parse_json(b"{%b}" % b",".join(b'"%b":%d' % (key, n) for n, key in enumerate(keys)), [])
    assert process_time() - begun < 5
    assert [*found.values()] == [*range(40_000)]
    assert max(map(len, found)) < 30
