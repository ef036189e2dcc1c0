"""Removes dead letters that were kept for long enough: a few at a time, by the worker of their stream."""

from __future__ import annotations

import logging
from time import monotonic

from eventwriter.errors import EventWriterError, UnavailableError
from eventwriter.postgres.errors import RowRefused
from eventwriter.postgres.session import Session

log = logging.getLogger("eventwriter.retention")

PERIOD = 600.0
"""Seconds between two looks when there was nothing left to remove."""
_MESSAGES = 1000
"""To remove at once: between two batches there is no time for all that a month may have left."""
# One that somebody replays, or that another worker of the stream removes at this moment, can wait: nobody else does.
_REMOVE = """
DELETE FROM eventwriter.dead_letter_messages WHERE (ledger_id, sequence) IN (
  SELECT m.ledger_id, m.sequence FROM eventwriter.dead_letter_messages m JOIN eventwriter.ledger l ON l.id = m.ledger_id
   WHERE l.logical_stream = %s AND m.created_at < now() - %s * interval '1 second'
   LIMIT %s FOR UPDATE OF m SKIP LOCKED)
"""


class Retention:
    """What a worker does about the dead letters of its stream; of the main thread."""

    def __init__(self, session: Session, stream: str, keep: float | None) -> None:
        """``keep`` in seconds; None: for ever."""
        self._session = session
        self._stream = stream
        self._keep = keep
        self._next = 0.0
        self._said = ""

    def step(self) -> None:
        """Removes some, if it is time to; raises UnavailableError while PostgreSQL is away.

        That it may not, say, is told once and stops no stream.
        """
        if self._keep is None or monotonic() < self._next:
            return
        self._next = monotonic() + PERIOD
        try:
            with self._session.connection() as connection:
                removed = connection.execute(_REMOVE, [self._stream, self._keep, _MESSAGES]).rowcount
        except UnavailableError:
            raise
        except (EventWriterError, RowRefused) as error:
            if str(error) != self._said:
                self._said = str(error)
                log.warning("dead letters cannot be removed: %s", error, extra={"stream": self._stream})
            return
        if removed == _MESSAGES:
            self._next = 0.0
        if removed:
            log.info(
                "removed the dead letters of %d messages that were kept for longer than dead_letters.keep",
                removed,
                extra={"stream": self._stream},
            )
