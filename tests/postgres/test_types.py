"""Addresses and lists of texts: stored as they are given, and what does not fit is a dead letter of its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from eventwriter.postgres.ledger import Identity
from eventwriter.stream import Batch, Column, Decoded, Message, Stream
from fix_sinks import OpenSink

IDENTITY = Identity("HOSTS", "hosts", datetime(2026, 1, 1, tzinfo=UTC), "writer")
GIVEN: dict[int, tuple[Any, Any]] = {
    1: ("10.0.0.1", ["a", "ü", "", None, 'with "quotes", {braces}']),
    2: ("10.1.2.3/8", []),
    3: ("2001:db8::1", ["NULL"]),
    4: ("::ffff:10.0.0.1/96", [None]),
    5: (None, None),
    11: ("300.1.1.1", None),
    12: ("", None),
    13: (5, None),
    14: ("fe80::1%eth0", None),
    21: (None, "abc"),
    22: (None, [["a"], ["b"]]),
    23: (None, ["a", 1]),
    24: (None, ["\0"]),
    25: (None, ["\ud800"]),
}
FITS = range(10)


def decode(message: Message) -> Decoded:
    """The row of the message's number."""
    return Decoded([(message.sequence, *GIVEN[message.sequence])])


COLUMNS = (Column("k", "bigint"), Column("address", "inet"), Column("names", "text[]"))
PLAIN = Stream("HOSTS", ("hosts.>",), "hosts", COLUMNS, decode)


@pytest.mark.parametrize("live", ["address inet NOT NULL DEFAULT '::', names text[]", "address text, names varchar[]"])
@pytest.mark.parametrize("keyed", [False, True], ids=["copy", "upsert"])
def test_addresses_and_lists(connection: psycopg.Connection[Any], sinks: OpenSink, keyed: bool, live: str) -> None:
    """By COPY and by way of a temporary table, where each row is tried by itself, too."""
    connection.execute(f"CREATE TABLE hosts (k bigint {'PRIMARY KEY' if keyed else ''}, {live})")
    sink = sinks(replace(PLAIN, key=("k",)) if keyed else PLAIN, IDENTITY)
    expected = {k: given for k, given in GIVEN.items() if k in FITS}
    if "NOT NULL" in live:
        expected.pop(5)
    messages = [Message("hosts.x", b"", k, k * 1_000_000) for k in GIVEN]
    good = [message for message in messages if message.sequence in expected]
    assert sink.write(Batch(good, [message.sequence for message in good])).rejects == {}
    outcome = sink.write(Batch(messages, [message.sequence for message in messages]))
    assert (outcome.already_done, outcome.rejects) == (len(good), {"refused": len(GIVEN) - len(good)})
    rows = connection.execute("SELECT k, address::text, names FROM hosts ORDER BY k").fetchall()
    with_length = {"10.0.0.1": "10.0.0.1/32", "2001:db8::1": "2001:db8::1/128"} if "inet" in live else {}
    assert rows == [(k, with_length.get(address, address), names) for k, (address, names) in expected.items()]
    told = dict(connection.execute("SELECT sequence, detail FROM eventwriter.dead_letters").fetchall())
    assert set(told) == set(GIVEN) - set(expected)
    assert "is not an address" in told[13]
    assert "is not a list of texts" in told[22]


def test_another_type_is_told_before_any_row(connection: psycopg.Connection[Any], sinks: OpenSink) -> None:
    """With the type that is wanted."""
    connection.execute("CREATE TABLE hosts (k bigint, address inet, names text)")
    with pytest.raises(Exception, match=r"names of table hosts is text, .* writes text\[\]: .* TYPE text\[\]"):
        sinks(PLAIN, IDENTITY)
