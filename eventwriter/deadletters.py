"""Dead letters: messages and records that cannot become rows, kept with their reason in the same transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from psycopg import Connection

from eventwriter.stream import Message, Reject

_POSTGRES_EPOCH_NS = 946_684_800_000_000_000


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def write(connection: Connection[Any], ledger: int, letters: Sequence[tuple[Message, Sequence[Reject]]]) -> None:
    """Copies ``letters`` into eventwriter.dead_letter_messages and …_records; the payload is stored once a message."""
    if not letters:
        return
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY eventwriter.dead_letter_messages (ledger_id, sequence, subject, headers, payload, message_time) "
            "FROM STDIN (FORMAT BINARY)"
        ) as copy,
    ):
        copy.set_types(["int4", "int8", "text", "jsonb", "bytea", "int8"])
        for message, _ in letters:
            headers = None
            if message.headers:
                headers = _clean(json.dumps(dict(message.headers), ensure_ascii=False)).replace("\\u0000", "�").encode()
            time = (message.time - _POSTGRES_EPOCH_NS) // 1000
            copy.write_row((ledger, message.sequence, _clean(message.subject), headers, message.payload, time))
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY eventwriter.dead_letter_records (ledger_id, sequence, record_index, reason, detail, sqlstate) "
            "FROM STDIN (FORMAT BINARY)"
        ) as copy,
    ):
        copy.set_types(["int4", "int8", "int4", "text", "text", "text"])
        for message, rejects in letters:
            for reject in rejects:
                copy.write_row(
                    (
                        ledger,
                        message.sequence,
                        reject.record_index,
                        _clean(reject.reason),
                        _clean(reject.detail),
                        reject.sqlstate,
                    )
                )
