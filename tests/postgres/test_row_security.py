"""Row security: what a policy keeps out is a dead letter, and a privilege that is lacking never is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from test_constraints import IDENTITY, KEYED, PLAIN, TABLE, batch, letters, rows

from eventwriter.config.model import PostgresConfig
from eventwriter.errors import SchemaError
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Stream
from fix_servers import login

SECURED = "; ALTER TABLE numbers ENABLE ROW LEVEL SECURITY; GRANT ALL ON ALL TABLES IN SCHEMA public TO somebody; "
KEY = "CREATE TABLE numbers (k bigint PRIMARY KEY, v text, x jsonb)"


@pytest.fixture
def open_sink(connection: psycopg.Connection[Any], database: str) -> Iterator[Callable[[Stream], Sink]]:
    """Opens sinks of a role that owns nothing."""
    dsn = login(database, "somebody")
    connection.execute("GRANT USAGE ON SCHEMA eventwriter TO somebody")
    connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA eventwriter TO somebody")
    opened = []

    def open_one(stream: Stream) -> Sink:
        sink = Sink(PostgresConfig(dsn=dsn), stream, stream.table)
        opened.append(sink)
        sink.open()
        sink.begin(Opening(IDENTITY, (">",)))
        return sink

    yield open_one
    for sink in opened:
        sink.close()


@pytest.mark.parametrize(
    ("stream", "table", "policy"),
    [
        (PLAIN, TABLE, "CREATE POLICY p ON numbers FOR INSERT WITH CHECK (k > 1)"),
        (PLAIN, TABLE + "ALTER TABLE numbers ADD UNIQUE (v)", "CREATE POLICY p ON numbers USING (k > 1)"),
        (KEYED, KEY, "CREATE POLICY p ON numbers USING (k > 1)"),
        (KEYED, KEY, "CREATE POLICY a ON numbers FOR INSERT WITH CHECK (k > 1); "
                     "CREATE POLICY b ON numbers USING (true); "
                     "CREATE POLICY c ON numbers AS RESTRICTIVE USING (k > 1)"),
    ],
)  # fmt: skip
def test_what_a_policy_keeps_out_is_a_dead_letter(
    connection: psycopg.Connection[Any], open_sink: Callable[[Stream], Sink], stream: Stream, table: str, policy: str
) -> None:
    """Alone in its batch and among others, whose rows are written."""
    connection.execute(table + SECURED + policy)
    sink = open_sink(stream)
    first = sink.write(batch([[1, "a", None], [2, "b", None]], [[3, "c", None]]))
    assert (first.rows, first.rejects) == (2, {"refused": 1})
    assert sink.write(batch([[1, "d", None]], start=3)).rejects == {"refused": 1}
    assert sink.write(batch([[4, "e", None]], start=4)).rows == 1
    assert rows(connection) == [(2, "b", None), (3, "c", None), (4, "e", None)]
    assert letters(connection) == [(1, 0, "refused", "42501"), (3, 0, "refused", "42501")]


@pytest.mark.parametrize(("stream", "privilege"), [(PLAIN, "INSERT"), (KEYED, "INSERT"), (KEYED, "UPDATE")])
def test_a_privilege_that_is_lacking_makes_no_dead_letter(
    connection: psycopg.Connection[Any], open_sink: Callable[[Stream], Sink], stream: Stream, privilege: str
) -> None:
    """The stream stops, and says what it needs; nothing is done."""
    connection.execute(KEY + SECURED + "CREATE POLICY p ON numbers USING (true)")
    sink = open_sink(stream)
    connection.execute(f"REVOKE {privilege} ON numbers FROM somebody")
    with pytest.raises(SchemaError, match=f"lacks {privilege} on table numbers|42501"):
        sink.write(batch([[1, "a", None]], [[2, "b", None]]))
    assert (rows(connection), letters(connection)) == ([], [])
    connection.execute(f"GRANT {privilege} ON numbers TO somebody")
    assert sink.write(batch([[1, "a", None]], [[2, "b", None]])).rows == 2
