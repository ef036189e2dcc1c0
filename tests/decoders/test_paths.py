"""Streams without code: what paths find in JSON, what becomes of it in columns of each type, and of all else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from both_paths import JSON, TEXT, agree, agree_on_all, nearly
from eventwriter import registry
from eventwriter.stream import Decoded, Message, Stream
from eventwriter.values import Unfit, parse_path
from profiles import examples

TIME, RECEIVED = 818_850_600_000_000, 818_850_600_123_456
WHEN = "2025-12-12T10:30:00Z"
Live = dict[str, tuple[str, bool]]


def stream(columns: dict[str, str], live: dict[str, str], rest: str | None = None) -> Stream:
    """A stream for a table with these types; of those that end with "!" the column is NOT NULL."""
    found = registry.without_code("ALERTS", ("alerts.>",), "alerts", columns, rest)
    assert found.fit is not None
    fitted = found.fit({name: (type_.rstrip("!"), type_.endswith("!")) for name, type_ in live.items()})
    return replace(found, columns=fitted)


def decode(stream: Stream, *records: Any, headers: dict[str, str] | None = None) -> Decoded:
    """Of a message with a record, or an array of them, received at RECEIVED."""
    payload = json.dumps(records[0] if len(records) == 1 else records).encode()
    return stream.decode(Message("alerts.x", payload, 7, (RECEIVED + 946_684_800_000_000) * 1000, headers))


TYPES = [
    ("text", "a", "a"),
    ("text", "", ""),
    ("text", 5, "5"),
    ("character varying", "a", "a"),
    ("smallint", 7, 7),
    ("integer", "7", 7),
    ("bigint", 2**62, 2**62),
    ("bigint", 9.223372036854775e18, 9223372036854775000),
    ("double precision", 1, 1.0),
    ("real", 0.5, 0.5),
    ("real", 0, 0.0),
    ("real", -3.4028235e38, -3.4028235e38),
    ("boolean", "true", True),
    ("timestamp with time zone", WHEN, TIME),
    ("timestamp with time zone", 1765535400, TIME),
    ("jsonb", {"a": [1]}, b'{"a":[1]}'),
    ("json", [1], b"[1]"),
    ("uuid", "0f0e0d0c-0b0a-0908-0706-050403020100", None),
    ("inet", "10.0.0.7/8", "10.0.0.7/8"),
    ("text[]", ["a", None], ["a", None]),
]


@pytest.mark.parametrize(("live", "given", "expected"), TYPES)
def test_a_value_has_the_type_of_its_column(live: str, given: Any, expected: Any) -> None:
    """Found flat and deep, required or not; one that is missing or null is NULL."""
    for path, record in (
        ("v", {"v": given}),
        ("a.b.v", {"a": {"b": {"v": given}}}),
        ("a.1.v", {"a": [0, {"v": given}]}),
    ):
        for null in ("", "!"):
            ((value, rest),) = decode(stream({"c": path}, {"c": live + null, "r": "jsonb"}, "r"), record).rows
            assert value == expected or (live == "uuid" and str(value) == given)
            assert rest is None or path == "a.1.v"
        absent: list[dict[str, Any]] = [{"w": 1}, {"v": None, "a": None}, {"a": {"b": 5}}, {"a": []}]
        for empty in absent:
            ((value,),) = decode(stream({"c": path}, {"c": live}), empty).rows
            assert value is None


@pytest.mark.parametrize("null", ["", "!"])
@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        ("begins", 1765535400, TIME), ("alarms", 1765535400, TIME), ("items.params", 1765535400, TIME),
        ("verano", 1765535400, TIME), ("begins", 1765535400.5, TIME + 500_000),
        ("seen_ns", 1765535400, 1_765_535 - 946_684_800_000_000), ("seen.ms", 1765535400000.5, TIME + 500),
        ("seenUnixNano", "1765535400000000999", TIME), ("ms", 0, None),
    ],
)  # fmt: skip
def test_the_unit_of_a_time_is_the_last_word_of_its_name(path: str, given: Any, expected: Any, null: str) -> None:
    """Where the column must have a value and where not; the time of the message stands for one that is missing."""
    record: Any = given
    for key in reversed(path.split(".")):
        record = {key: record}
    ((value, rest),) = decode(
        stream({"c": path}, {"c": "timestamp with time zone" + null, "r": "jsonb"}, "r"), record
    ).rows
    assert value == (expected if expected is not None or not null else RECEIVED)
    assert rest is None


UNFIT = [
    ("text", [1]),
    ("smallint", 2**15),
    ("integer", 2**31),
    ("bigint", 1.5),
    ("double precision", "much"),
    ("boolean", 2),
    ("timestamp with time zone", "soon"),
    ("uuid", "none"),
    ("inet", "10.0.0.300"),
    ("inet", "fe80::1%eth0"),
    ("real", 1e39),
    ("real", -1e-50),
    ("text[]", ["a", 1]),
    ("text[]", "a"),
]


@pytest.mark.parametrize(("live", "given"), UNFIT)
@pytest.mark.parametrize("path", ["v", "a.v"])
def test_what_does_not_fit_is_kept_or_a_dead_letter(live: str, given: Any, path: str) -> None:
    """In the column of the rest, if there is one; where the column must have a value, the record is rejected. Its
    siblings are not touched."""
    record = {"v": given, "a": {"v": given}}
    good = decode(stream({"c": path}, {"c": live, "r": "jsonb"}, "r"), record, {})
    ((value, rest), _), _, repairs = good
    assert value is None
    assert repairs
    other = {"a": {"v": given}} if path == "v" else {"v": given}
    assert orjson.loads(rest) == {path: given} | other
    both = stream({"c": path}, {"c": live, "r": "jsonb"}, "r")
    assert both.fast is not None
    payload = json.dumps({"v": given} if path == "v" else {"a": {"v": given}}).encode()
    assert not any(both.fast([Message("alerts.x", payload, 7, RECEIVED, None)] * 3))
    rows, (reject,), _ = decode(stream({"c": path}, {"c": live}), {}, record, {})
    assert (rows, reject.reason, reject.record_index) == ([(None,), (None,)], "bad_value", 1)
    assert path in reject.detail
    rows, (reject,), _ = decode(stream({"c": path}, {"c": f"{live}!", "r": "jsonb"}, "r"), record)
    assert reject.reason in ("bad_value", "bad_time")
    assert not rows


def test_what_no_path_takes_is_the_rest() -> None:
    """Whatever is beside, within and around; an array that a path leads into stays whole."""
    paths = {"time": "ts", "text": "message.text", "first": "tags.0", "whole": "m", "part": "m.x", "odd": "/a.b/c~1d"}
    live = {"time": "timestamp with time zone!", "first": "text", "whole": "jsonb", "part": "integer", "rest": "jsonb!"}
    one = stream(paths, {"text": "text", "odd": "bigint"} | live, "rest")
    record = {
        "ts": WHEN,
        "message": {"text": "t", "more": {"y": 1}},
        "tags": ["a", 2],
        "m": {"x": 5},
        "a.b": {"c/d": 6},
    }
    ((*row, rest),) = decode(one, record | {"n": None, "z": 1.5}).rows
    assert row == [TIME, "t", "a", b'{"x":5}', 5, 6]
    assert orjson.loads(rest) == {"message": {"more": {"y": 1}}, "tags": ["a", 2], "n": None, "z": 1.5}
    ((*_, rest),) = decode(one, {"ts": WHEN, "message": {"text": "t"}, "m": {}}).rows
    assert rest == b"{}"  # for the column is NOT NULL
    ((*_, rest),) = decode(one, {"ts": WHEN, "message.text": 1, "message": {"text": [2]}}).rows
    assert orjson.loads(rest) == {"message.text": 1, "record.message.text": [2]}


def test_what_comes_with_the_message() -> None:
    """Its time, subject and sequence; the time, or that of a CloudEvent, also where a record lacks what it needs."""
    live = {"at": "timestamp with time zone", "s": "text", "q": "bigint", "time": "timestamp with time zone!"}
    one = stream({"at": "$time", "s": "$subject", "q": "$sequence", "time": "ts"}, live)
    assert decode(one, {"ts": WHEN}, {"ts": ""}, {}).rows == [
        (RECEIVED, "alerts.x", 7, time) for time in (TIME, RECEIVED, RECEIVED)
    ]
    event = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t"}
    headers = {f"ce-{name}": value for name, value in event.items()} | {"ce-time": WHEN}
    assert [*decode(one, {}, headers=headers).rows] == [(RECEIVED, "alerts.x", 7, TIME)]
    structured = stream({"kind": "type", "text": "data.text"}, {"kind": "text", "text": "text"})
    assert [*decode(structured, event | {"data": {"text": "x"}}).rows] == [("t", "x")]


@pytest.mark.parametrize(
    ("columns", "live", "rest", "said"),
    [
        ({"c": "v"}, {"c": "numeric"}, None, "column c is numeric, which a path cannot fill: expected text, "),
        ({"c": "v"}, {"c": "integer[]"}, None, "column c is integer"),
        ({"c": "$time"}, {"c": "bigint"}, None, r"column c is bigint: \$time needs timestamptz"),
        ({"c": "$subject"}, {"c": "uuid"}, None, r"column c is uuid: \$subject needs text"),
        ({"c": "v"}, {"c": "text", "r": "text"}, "r", "column r is text: what no path takes needs jsonb"),
    ],
)
def test_a_table_that_paths_cannot_fill(
    columns: dict[str, str], live: dict[str, str], rest: str | None, said: str
) -> None:
    """Says which column, what it is, and what it would have to be."""
    with pytest.raises(Unfit, match=said):
        stream(columns, live, rest)


@pytest.mark.parametrize("path", ["", ".", "a..b", "a.", ".a", "$now"])
def test_what_is_no_path(path: str) -> None:
    """A key without a name, and what a message has not."""
    with pytest.raises(Unfit):
        parse_path(path)


RECORD = {"time": "ts", "text": "text", "level": "level", "value": "value", "tags": "tags", "up": "up", "at": "$time"}
LIVE = {
    "time": "timestamp with time zone!",
    "text": "text!",
    "level": "smallint",
    "value": "double precision!",
    "tags": "jsonb",
    "up": "boolean",
    "at": "timestamp with time zone",
}
DEEP = {"time": "ts", "text": "m.text", "level": "/m/in/level", "value": "m.value", "tags": "m.in.tags"}
OPEN, CLOSED = stream(RECORD, LIVE), stream(RECORD, LIVE | {"rest": "jsonb"}, "rest")
OPEN_DEEP, CLOSED_DEEP = stream(DEEP, LIVE), stream(DEEP, LIVE | {"rest": "jsonb"}, "rest")
DEEPER = (OPEN_DEEP, CLOSED_DEEP)
ALONE = stream({"text": "text"}, {"text": "text"})


def deep(record: dict[str, Any]) -> dict[str, Any]:
    """The same where DEEP looks for it."""
    inner = {name: record[name] for name in ("level", "tags", "other") if name in record}
    middle = {name: record[name] for name in ("text", "value") if name in record} | ({"in": inner} if inner else {})
    return {"ts": record["ts"], "m": middle} | ({"up": record["up"]} if "up" in record else {})


@settings(max_examples=examples(150))
@given(
    nearly(
        {"ts": st.just(WHEN) | st.just("soon"), "text": TEXT, "value": st.floats(-1e9, 1e9) | st.integers(-9, 9)},
        {"level": st.integers(-(2**16), 2**16), "tags": JSON, "up": st.booleans() | st.none()},
        "other",
    )
)
def test_the_fast_path_gives_the_same_rows(record: dict[str, Any]) -> None:
    """With and without a column for the rest, flat and deep; of what it does not take, it gives none."""
    for each, given_as in ((OPEN, record), (CLOSED, record), (ALONE, record), *((x, deep(record)) for x in DEEPER)):
        agree(each, json.dumps(given_as, ensure_ascii=False).encode())


def test_the_fast_path_takes_what_is_common() -> None:
    """Flat or deep, also what has more keys, if nobody wants them; other types and arrays have none."""
    good = b'{"ts":"%b","text":"a","value":1.5,"level":3,"tags":{"a":1}}' % WHEN.encode()
    more = good[:-1] + b',"more":[1]}'
    messages = [Message("alerts.x", payload, 1, 10**18) for payload in (good, more, b'{"ts":5}', b"[]", good)]
    assert agree_on_all(OPEN, messages) == [True, True, False, False, True]
    assert agree_on_all(CLOSED, messages) == [True, False, False, False, True]
    messages = [
        Message("alerts.x", b'{"ts":"%b","m":%b}' % (WHEN.encode(), each), 1, 10**18)
        for each in (
            b'{"text":"a","value":1,"in":{"level":1}}',
            b'{"text":"a","value":1}',
            b'{"text":"a","value":1,"in":{"level":1,"x":1},"y":2}',
            b'{"text":"a","value":1,"in":null}',
            b'{"text":"a"}',
            b"5",
        )
    ]
    assert agree_on_all(OPEN_DEEP, messages) == [True, True, True, False, False, False]
    assert agree_on_all(CLOSED_DEEP, messages) == [True, True, False, False, False, False]
    assert agree_on_all(ALONE, [Message("alerts.x", b'{"text":"several letters"}', 1, 10**18)]) == [True]
    for columns, live in (
        ({"c": "a.0"}, "text"),
        ({"c": "_a"}, "text"),
        ({"c": "/a.b"}, "text"),
        ({"c": "u"}, "uuid"),
        ({"c": "$subject"}, "text"),
        ({"c": "a-b"}, "text"),
    ):
        other = stream(columns, {"c": live})
        assert other.fast is not None
        assert not other.fast(messages)
