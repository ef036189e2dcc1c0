"""The binary forms of our values, as COPY takes them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import concat
from typing import Any

import psycopg
from psycopg import Connection, abc, pq
from psycopg.adapt import Dumper, Transformer


class JsonbDumper(Dumper):
    """jsonb from JSON text; the leading byte is the version of its binary form."""

    format = pq.Format.BINARY
    oid = psycopg.adapters.types["jsonb"].oid
    # As a function in Python it would be half of the time that a row with two of them takes.
    dump = staticmethod(partial(concat, b"\x01"))  # type: ignore[assignment] # of bytes, concat makes bytes


def row_transformer(types: Sequence[str], connection: Connection[Any]) -> abc.Transformer:
    """Turns values of these types (names, as for Copy.set_types) into the binary form of COPY.

    The connection, which may be closed afterwards, tells that text is UTF-8: without one it takes the driver longer.
    """
    connection.adapters.register_dumper(None, JsonbDumper)
    transformer = Transformer(connection)
    transformer.set_dumper_types([connection.adapters.types.get_oid(name) for name in types], pq.Format.BINARY)
    return transformer
