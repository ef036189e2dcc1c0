"""All that a sink does with a message on our side of the connection: for a process that is thrown away after it.

And what it does instead with a message that no process survives. Part of the sink, which is long enough without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eventwriter.postgres.attempt import Attempt, Encoder
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Batch, Message, Stream


def rehearse(sink: Sink, messages: Sequence[Message]) -> Iterator[int]:
    """Decodes and encodes them one by one, and tells before each its place."""
    table = sink._table
    for place, message in enumerate(messages):
        yield place
        attempt = Attempt(Batch([message], [message.sequence]))
        encoder = Encoder(attempt, sink._stream, table.plan, table.transformer, sink._excluded)
        while encoder.step():
            pass


def decode_as(sink: Sink, stream: Stream) -> None:
    """What is not prepared yet is decoded as this declaration tells."""
    sink._stream = stream
