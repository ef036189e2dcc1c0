"""What `dlq` prints, without a server: nothing that a terminal would obey, and JSON that says exactly what there is."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventwriter import registry, terminal
from eventwriter.commands import decode, dlq_view
from eventwriter.commands.dlq_fates import Left, Result
from eventwriter.commands.dlq_selection import Selection, moment
from eventwriter.errors import UsageError
from eventwriter.stream import Decoded, Message, Stream
from profiles import examples

STREAMS = registry.load()
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eright\u2028to\rleft\x7f\u200b雪"
ANY = st.text(st.characters(exclude_categories=[]), max_size=20) | st.just(HOSTILE)
LETTER: dict[str, Any] = {
    "id": 7, "logical_stream": "LOGS", "stream": "logs", "stream_created": "2026-01-01T00:00:00+00:00",
    "durable": "eventwriter-logs", "sequence": 12, "record_index": None, "reason": "malformed", "sqlstate": None,
    "detail": "not JSON", "subject": "logs.x", "message_time": "2026-01-02T03:04:05.678901+00:00",
    "created_at": "2026-01-02T03:04:06.5+00:00", "replayed_at": None, "bytes": 3, "headers": None,
}  # fmt: skip


def message(payload: bytes, headers: dict[str, str] | None = None) -> Message:
    """A message of LOGS with this payload."""
    return Message("logs.x", payload, 12, 0, headers)


def is_tame(text: str) -> bool:
    """Whether a terminal shows it as it is."""
    return all(line.isprintable() for line in text.replace("\t", "").split("\n"))


def test_dead_letters_are_a_line_each_or_a_list() -> None:
    """With its time, the index of a record and the code of PostgreSQL, where there is one."""
    record = LETTER | {"id": 8, "record_index": 3, "sqlstate": "22003", "reason": "refused", "detail": "too large"}
    assert dlq_view.listed([LETTER, record], as_json=False).splitlines() == [
        "       7  2026-01-02T03:04:06Z  LOGS 12                  malformed: not JSON  (logs.x)",
        "       8  2026-01-02T03:04:06Z  LOGS 12[3]               refused 22003: too large  (logs.x)",
    ]
    assert json.loads(dlq_view.listed([LETTER], as_json=True)) == [LETTER]
    assert dlq_view.listed([], as_json=False) == ""
    assert dlq_view.listed([], as_json=True) == "[]"


def test_kinds_are_a_line_each_or_a_list() -> None:
    """With how many there are and since when."""
    group = {"logical_stream": "LOGS", "reason": "refused", "sqlstate": "22003", "letters": 5, "messages": 2}
    group |= {"oldest": "2026-01-02T03:04:05+00:00", "latest": "2026-01-03T03:04:05+00:00"}
    assert dlq_view.summed([group], as_json=False) == (
        "       5  LOGS  refused 22003  (of 2 messages, kept from 2026-01-02T03:04:05Z to 2026-01-03T03:04:05Z)"
    )
    assert json.loads(dlq_view.summed([group], as_json=True)) == [group]


@settings(max_examples=examples(200))
@given(ANY, ANY, ANY, ANY, st.binary(max_size=50) | ANY.map(lambda text: text.encode("utf-8", "replace")))
@example(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE.encode())
def test_nothing_of_a_message_reaches_a_terminal_that_it_would_obey(
    subject: str, reason: str, detail: str, header: str, payload: bytes
) -> None:
    """Not in lists, not in what is shown, not in JSON; and JSON has all of it."""
    letter = LETTER | {"subject": subject, "reason": reason, "detail": detail, "headers": {header: [header, "x"]}}
    letter |= {"logical_stream": header}
    telling = Stream("LOGS", ("logs.>",), "logs", (), lambda given: Decoded((), STREAMS["LOGS"].decode(given).rejects))
    result = Result(1, left={Left(header, reason, None): [7]}, details={Left(header, reason, None): detail})
    texts = [
        dlq_view.listed([letter], as_json=False),
        dlq_view.shown(letter, message(payload), telling, full=True),
        dlq_view.replayed(result, dry_run=True, as_json=False),
        terminal.lines(payload.decode("utf-8", "replace")),
    ]
    documents = [
        dlq_view.listed([letter], as_json=True),
        dlq_view.document(letter, message(payload), telling),
        dlq_view.replayed(result, dry_run=False, as_json=True),
    ]
    for text in [*texts, *documents]:
        assert is_tame(text), text
    assert json.loads(documents[0]) == [letter]
    shown = json.loads(documents[1])
    assert {name: shown[name] for name in letter} == letter
    assert shown["payload"].encode() == payload if "payload" in shown else shown["payload_base64"]
    assert json.loads(documents[2])["left"][0]["detail"] == detail


def test_what_is_shown_of_text() -> None:
    """Why, which record, the payload as it is, and what the present decoder makes of the record."""
    payload = b'[{"message": "one"}, {"message": "two", "timestamp": "x"}]'
    letter = LETTER | {"record_index": 1, "headers": {"a": ["1", "2"], "b": "3"}}
    text = dlq_view.shown(letter, message(payload), STREAMS["LOGS"], full=False)
    assert text.startswith("dead letter 7: record 1 of message 12 of logs\n")
    for part in ("malformed: not JSON", "header    a: 1, 2", "header    b: 3", "58 bytes of text", payload.decode()):
        assert part in text
    assert "record 1 to" in text
    assert '{"reject":{"reason":"bad_time"' in text
    assert '"body":"one"' not in text
    assert '"body":"one"' in dlq_view.shown(LETTER, message(payload), STREAMS["LOGS"], full=False)
    gone = dlq_view.shown(LETTER | {"record_index": 9}, message(payload), STREAMS["LOGS"], full=False)
    assert "there is no such record" in gone


def test_what_is_shown_of_binary() -> None:
    """Hexadecimal numbers and characters, a part of it unless all is asked for; whole characters of text."""
    payload = bytes(range(256)) * 40
    text = dlq_view.shown(LETTER, message(payload), None, full=False)
    assert "10240 bytes of binary, the first 4096 of them" in text
    assert "  00000040  40 41 42 43 44 45 46 47  48 49 4a 4b 4c 4d 4e 4f  @ABCDEFGHIJKLMNO" in text
    assert len(text.splitlines()) < 300
    for flow in (b"\x0a\x05hello", b"\x08\x01\x12\x02ab"):
        assert " bytes of binary\n  00000000  " in dlq_view.shown(LETTER, message(flow), None, full=False)
    assert " bytes of text\n  \\x1b[31mred" in dlq_view.shown(LETTER, message(b"\x1b[31mred\r\n"), None, full=False)
    assert "00002700" in dlq_view.shown(LETTER, message(payload), None, full=True)
    assert "12288 bytes of text, the first" in dlq_view.shown(LETTER, message("雪".encode() * 4096), None, full=False)


def test_a_time_is_an_age_or_a_time() -> None:
    """Anything else is told with the option's name."""
    assert moment("30m", "--since") == timedelta(minutes=30)
    assert moment("7d", "--since") == timedelta(days=7)
    assert moment("2026-05-03T09:20:00Z", "--since") == datetime(2026, 5, 3, 9, 20, tzinfo=UTC)
    assert moment("2026-05-03", "--since") == datetime(2026, 5, 3).astimezone()
    for text in ("soon", "", "2026-13-01", "0001-01-01T00:00:00", "99999999999h", "-1h"):
        with pytest.raises(UsageError, match="--older-than"):
            moment(text, "--older-than")


def test_a_selection_says_what_it_is_about() -> None:
    """For a question to a person."""
    assert str(Selection()) == "of all streams"
    since = datetime(2026, 1, 1, tzinfo=UTC)
    chosen = Selection((1, 2), "LOGS", "refused", "22003", since, timedelta(days=1), replayed=True)
    assert str(chosen) == (
        "of LOGS, with the numbers 1, 2, with the reason refused, with SQLSTATE 22003, "
        "kept since 2026-01-01 00:00:00+0000, kept before 1 day, 0:00:00 ago, that were replayed"
    )
    assert Selection(replayed=True).everything
    assert not Selection((1,)).everything


@settings(max_examples=examples(100))
@given(ANY)
@example(HOSTILE)
def test_decode_prints_nothing_that_a_terminal_would_obey(text: str) -> None:
    """It is the same JSON; what is printable stays as it is, for people."""
    text = text.encode("utf-8", "replace").decode().replace("\0", "")
    said: list[bytes] = []
    files = [io.BytesIO(json.dumps({"message": f"雪 {text}"}).encode())]
    decode.run(STREAMS["LOGS"], files, said.append, received="2026-01-01T00:00:00Z")
    (line,) = (each.decode() for each in said)
    assert is_tame(line)
    assert json.loads(line)["row"]["body"] == f"雪 {text}"
    assert "雪" in line
