"""JetStream, as a worker sees it: batches to take, and to acknowledge once they are committed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Any

from eventwriter.config.loading import NatsConfig, StreamConfig
from eventwriter.coverage import Segment
from eventwriter.errors import EventWriterError
from eventwriter.jetstream import continuity, gaps
from eventwriter.jetstream.ackall import AckAll
from eventwriter.jetstream.buffer import Gap
from eventwriter.jetstream.consumer import ConsumerInfo, StreamInfo
from eventwriter.jetstream.deliveries import Sequencer
from eventwriter.jetstream.handover import FOREVER, Handover
from eventwriter.jetstream.link import CONNECT_TIMEOUT, Link
from eventwriter.jetstream.loop import Loop
from eventwriter.jetstream.turn import Turn
from eventwriter.outage import Member
from eventwriter.stream import Batch

log = logging.getLogger("eventwriter.source")

CATCHING_UP = 0.1
"""Seconds for which to wait, with a backlog, for half a batch: many small transactions would take longer."""


class Source:
    """One worker's way out of JetStream. Of the main thread; ``stop`` may be called from a signal handler.

    ``link`` lives on the thread of ``loop``; what it tells of the connection may be read here.
    """

    def __init__(
        self,
        settings: NatsConfig,
        config: StreamConfig,
        at: Callable[[str], None] | None = None,
        beat: Callable[[], None] | None = None,
        turn: Turn | None = None,
        member: Member | None = None,
    ) -> None:
        self._config = config
        self._beat = beat or (lambda: None)
        self.loop = Loop()
        self._handover = Handover(config)
        self._buffer = self._handover.buffer
        self.link = Link(settings, config, self._handover, turn, at, member)
        self.rereads, self.claims = self._handover.rereads, self._handover.claims
        self._sequencer = Sequencer(lambda: self._verify(self.link.binding.changed(), CONNECT_TIMEOUT))
        self._ack_all: AckAll | None = None
        self._reread_next = False

    # --- start and end ------------------------------------------------------------------------------------------

    def open(self, pulls: bool = True) -> StreamInfo:
        """Connects, asks for the stream; raises the error why reading cannot begin. Without ``pulls`` it asks less."""
        self.loop.start()
        return self.loop.call(self.link.open(pulls), CONNECT_TIMEOUT * 3)

    def bind(self, start: int) -> ConsumerInfo:
        """Binds or creates the consumer (a new one begins at sequence ``start``)."""
        info = self.loop.call(self.link.binding.bind(start), CONNECT_TIMEOUT * 2)
        if self._config.writer.ack == "all":
            patience = 3 * self._config.writer.ack_wait
            self._ack_all = AckAll(self._config.durable, info.ack_pending, info.delivered, patience)
        return info

    def start(self) -> None:
        """Begins to pull."""
        self.loop.call(self.link.start(), CONNECT_TIMEOUT)

    def stop(self) -> None:
        """Asks ``take`` to end. Safe in a signal handler."""
        self._handover.stopping = True
        self.loop.soon(self._handover.notify)

    def close(self, timeout: float) -> bool:
        """Waits for outstanding acks, releases what was not written, and disconnects; False past ``timeout`` s."""
        self._handover.stopping = clean = True
        if self.loop.running:
            try:
                self.loop.call(self.link.close(timeout), timeout + 1.0)
            except Exception as error:  # noqa: BLE001 - a client that is only half connected raises anything when it is closed
                extra = {"stream": self._config.name}
                log.warning("closing the connection to NATS: %s", error or type(error).__name__, extra=extra)
                clean = False
        self.loop.stop()
        return clean

    # --- questions ----------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self.link.connected

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and made again."""
        return self.link.reconnects

    def stream_info(self) -> StreamInfo:
        """The stream as it is now."""
        return self.loop.call(self.link.binding.stream_info(), CONNECT_TIMEOUT)

    def check_continues(self, highest: int, newest: tuple[int, int] | None) -> None:
        """Raises ConfigurationError if the stream does not continue what a ledger knows."""
        self.loop.call(continuity.check(self.link.api.request, self._config, highest, newest), CONNECT_TIMEOUT)

    def consumer_info(self) -> ConsumerInfo | None:
        """The consumer as it is now; None if it is gone."""
        return self.loop.call(self.link.binding.consumer_info(), CONNECT_TIMEOUT)

    def held(self, segments: Sequence[Segment]) -> Future[list[Segment]]:
        """What the stream still holds of them, as ``gaps.held`` tells; it may take seconds."""
        return self.loop.begin(gaps.held(self.link.api.request, self._config, segments))

    def reread(self, segments: Sequence[Segment]) -> Future[None]:
        """Lets ``take`` return what the stream holds of them, beside what arrives; done when all of it is read."""
        return self.loop.begin(self.link.reader.read(segments))

    # --- batches ------------------------------------------------------------------------------------------------

    def take(self) -> Batch | None:
        """The messages that have arrived, at least one; None when it is time to end.

        A full batch at once, a smaller one ``linger`` seconds after its first message; with a backlog, half one later.
        """
        writer, handover, buffer = self._config.writer, self._handover, self._buffer
        if handover.holding:  # else the puller finds out when it looks by itself
            handover.holding = False
            self.loop.soon(self.link.puller.wake.set)
        while not handover.stopping:
            if handover.failure is not None:
                raise handover.failure
            if (batch := self._reread()) is not None:
                return batch
            if buffer.empty:
                self._wait(1, 1.0)
                continue
            backlog = buffer.pending >= writer.batch_messages
            enough = writer.batch_messages // 2 if backlog else writer.batch_messages
            patience = max(writer.linger, CATCHING_UP) if backlog else writer.linger
            rest = buffer.first_at + patience - monotonic()
            if rest > 0 and len(buffer) < enough and not buffer.full:
                self._wait(enough, rest)
            elif (batch := self._collect()) is not None:
                return batch
        return None

    def more(self) -> Batch | None:
        """The next batch if it is full already: a smaller one shall grow. Never raises: ``take`` does it then."""
        if self._handover.stopping or self._handover.failure is not None:
            return None
        if (batch := self._reread()) is not None or self._buffer.gap or not self._buffer.full:
            return batch
        try:
            return self._collect()
        except EventWriterError as error:
            self._handover.fail(error)
        return None

    def acknowledge(self, batch: Batch, set_aside: Mapping[int, float]) -> None:
        """Acknowledges the first batch taken and not acknowledged, waiting for nothing; ``set_aside`` comes again."""
        reply_subjects = self._handover.in_flight.popleft()
        if batch.reread:
            self.rereads.committed()
            return
        if self._ack_all is not None:
            if not self._ack_all.committed(message.sequence for message in batch.messages):
                return  # they come again, are known, and are acknowledged then
            reply_subjects = [reply_subjects[-1].rpartition(b"\n")[2]]
        self.loop.soon(self.link.acknowledger.begin, reply_subjects, set_aside)

    def acknowledge_ahead(self, batch: Batch, messages: int) -> None:
        """Acknowledges the next ``messages`` of the first batch taken and not acknowledged: that part is committed."""
        if not batch.reread and self._ack_all is None:
            self.loop.soon(self.link.acknowledger.begin, self._handover.part_in_flight(messages), {})

    def hold(self, seconds: float) -> bool:
        """Waits during an outage: no more pulls, deadlines extended; False when it is time to end.

        Raises what ended the connection to NATS for good meanwhile.
        """
        handover = self._handover
        handover.holding = True
        deadline = monotonic() + seconds
        while not handover.stopping and handover.failure is None and (rest := deadline - monotonic()) > 0:
            self._wait(FOREVER, min(rest, 1.0))
        if handover.failure is not None:
            raise handover.failure
        return not handover.stopping

    def _wait(self, wanted: int, timeout: float) -> None:
        self._beat()
        self._handover.wait(wanted, timeout)

    def _reread(self) -> Batch | None:
        """What is read again and what arrives take turns."""
        self._reread_next = not self._reread_next or self._buffer.empty
        if not self._reread_next or not self.rereads:
            return None
        if (batch := self.rereads.take()) is not None:
            self._handover.took(batch)
        return batch

    def _collect(self) -> Batch | None:
        found = self._buffer.take()
        if isinstance(found, Gap):
            if self._ack_all is not None and found is Gap.LOST:
                raise self._ack_all.lost()
            self._sequencer.interrupted()
            return None
        if not found:
            return None
        batch = self._sequencer.batch(found)
        self._handover.took(batch)
        if any(portion.hollow for portion in found):
            self._verify(self.link.binding.stripped(batch.messages), CONNECT_TIMEOUT * 3)
        if self.link.puller.pull.idle:
            self.loop.soon(self.link.puller.wake.set)
        return batch

    def _verify(self, question: Coroutine[Any, Any, EventWriterError | None], timeout: float) -> None:
        if (error := self.loop.call(question, timeout)) is not None:
            raise error
