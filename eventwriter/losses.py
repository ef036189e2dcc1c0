"""What is gone from the stream and was never written: closed in the ledger, noted, and told once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from eventwriter.config.loading import StreamConfig
from eventwriter.coverage import Segment, holes, merge
from eventwriter.jetstream.consumer import StreamInfo
from eventwriter.postgres.sink import Sink

log = logging.getLogger("eventwriter.reconcile")


def note(
    sink: Sink, config: StreamConfig, missing: Sequence[Segment], stream: StreamInfo, *, asked_for: bool
) -> list[Segment]:
    """Tells what is gone of the segments that the ledger lacks, and closes it; returns the rest of them.

    What was done under earlier filters, or lies before the ledger and was ``asked_for``, was nobody's loss.
    """
    first = stream.first_sequence
    gone = merge((each.first, min(each.last, first - 1)) for each in missing if each.first < first)
    if gone:
        ledger = sink.ledger
        past = [each for entry in ledger.scope.past for each in entry.done]
        lost = [] if asked_for else [hole for each in gone for hole in holes(past, *each)]
        with sink.session.connection() as connection:
            ledger.close(connection, gone)
            for each in lost:
                ledger.lose(connection, each, stream.first_time)
        if lost:
            log.error(
                "stream %s: %d sequences from %d to %d are not in the ledger and gone from the stream, whose first "
                "message is of %s: anything they held of %s is lost. `eventwriter check` tells more, `eventwriter "
                "ledger accept --stream %s` takes note of it",
                *(config.stream, sum(last - first + 1 for first, last in lost), lost[0][0], lost[-1][1]),
                *(stream.first_time or "later", ", ".join(ledger.scope.filters), config.name),
                extra={"stream": config.name},
            )
    return [
        Segment(max(segment.first, first), segment.last, segment.filters)
        for segment in missing
        if segment.last >= first
    ]
