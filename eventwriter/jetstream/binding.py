"""The stream and the consumer to which a worker is bound, and whether they still are the same."""

from __future__ import annotations

from collections.abc import Sequence

from eventwriter.config.loading import StreamConfig
from eventwriter.errors import ConfigurationError, ConsumerEditedError, EventWriterError, UnavailableError
from eventwriter.jetstream import consumer, continuity
from eventwriter.jetstream.api import Request
from eventwriter.jetstream.consumer import ConsumerInfo, StreamInfo
from eventwriter.jetstream.handover import Handover
from eventwriter.jetstream.limits import Limits
from eventwriter.stream import Message


class Binding:
    """Of one worker. Of the loop thread."""

    def __init__(self, request: Request, config: StreamConfig, handover: Handover) -> None:
        self._request = request
        self._config = config
        self._handover = handover
        self._stream: StreamInfo | None = None
        self._accepted: tuple[str, ...] = ()
        self.limits: Limits | None = None
        """What a pull may ask for; None while that is not known."""

    async def open(self) -> StreamInfo:
        """The stream, which has to stay the same from now on."""
        self._stream = await consumer.stream_info(self._request, self._config)
        return self._stream

    async def bind(self, start: int) -> ConsumerInfo:
        """Binds or creates the consumer (a new one begins at sequence ``start``)."""
        info = await consumer.ensure_consumer(self._request, self._config, start)
        self.limits, self._accepted = info.limits, info.incomplete
        return info

    async def stream_info(self) -> StreamInfo:
        """The stream as it is now."""
        return await consumer.stream_info(self._request, self._config)

    async def consumer_info(self) -> ConsumerInfo | None:
        """The consumer as it is now; None if it is gone."""
        return await consumer.consumer_info(self._request, self._config)

    async def changed(self) -> EventWriterError | None:
        """The error that says why what this consumer delivers from now on would not fit our ledger, if that is so."""
        # Before the stream is asked: while it answers more may come, of an earlier pull, which it does not know yet.
        sequence, time = self._handover.newest
        stream = await self.stream_info()
        if self._stream is None or stream.created != self._stream.created:
            return UnavailableError(f"stream {self._config.stream} was created anew: starting again with a new ledger")
        if sequence and not await continuity.has(self._request, self._config, stream, sequence, time):
            return continuity.restored(self._config, stream.last_sequence, sequence)
        info = await self.consumer_info()
        return self.deleted() if info is None else self.edited(info)

    def edited(self, info: ConsumerInfo) -> EventWriterError | None:
        """Follows what somebody changed in the consumer; the error to end with if only binding anew helps."""
        self.limits = info.limits
        if info.refusal:
            return ConfigurationError(info.refusal)
        if changed := [name for name in info.incomplete if name not in self._accepted]:
            return ConsumerEditedError(
                f"consumer {self._config.durable} of stream {self._config.stream} was changed ({', '.join(changed)}): "
                "starting again, which puts it right"
            )
        return None

    def deleted(self) -> EventWriterError:
        """The error to end with when the consumer is gone."""
        return UnavailableError(
            f"consumer {self._config.durable} of stream {self._config.stream} was deleted: "
            "starting again from what the ledger knows"
        )

    async def stripped(self, messages: Sequence[Message]) -> EventWriterError | None:
        """The error to end with if one of these messages came without its payload."""
        # headers_only, set while we run? Or empty messages that were published so.
        sequence = await consumer.stripped(self._request, self._config, messages)
        if sequence is None:
            return None
        return UnavailableError(
            f"consumer {self._config.durable} of stream {self._config.stream} delivered message {sequence} without "
            "its payload (headers_only): starting again, which puts it right"
        )
