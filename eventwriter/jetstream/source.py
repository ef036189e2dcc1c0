"""JetStream: a loop thread pulls, keeps alive and acknowledges, the main thread takes batches."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from itertools import chain
from time import monotonic
from typing import Any, TypeVar

import nats.errors
from nats.aio.msg import Msg

from eventwriter import masking
from eventwriter.config.loading import NatsConfig, StreamConfig
from eventwriter.coverage import Segment
from eventwriter.errors import (
    ConfigurationError,
    ConsumerEditedError,
    EventWriterError,
    ForbiddenError,
    UnavailableError,
)
from eventwriter.jetstream import consumer, durable, gaps, wire
from eventwriter.jetstream.ackall import AckAll
from eventwriter.jetstream.buffer import Buffer, Gap
from eventwriter.jetstream.claims import Claims
from eventwriter.jetstream.connection import Client, connect
from eventwriter.jetstream.consumer import ConsumerFacts, StreamFacts
from eventwriter.jetstream.deliveries import Sequencer, read
from eventwriter.jetstream.limits import HEARTBEAT, Limits
from eventwriter.jetstream.permissions import Permissions
from eventwriter.jetstream.progress import Progress
from eventwriter.jetstream.rereading import Reader
from eventwriter.jetstream.turn import Turn
from eventwriter.jetstream.wire import Delivery
from eventwriter.stream import Batch

log = logging.getLogger("eventwriter.source")
T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
SILENCES = 3
"""Pulls in a row without any sign of life after which the connection is not believed any more."""
ANSWER_TIMEOUT = 5.0
CATCHING_UP = 0.1
"""Seconds for which to wait, with a backlog, for half a batch: many small transactions would take longer."""
SAMPLE = 3.0
"""Seconds between two looks at how far behind the consumer is."""
IDLE = 1.0
"""Seconds without a pull, such as during an outage, after which the next one begins with a look at the stream."""
REFUSED = 0.25
"""Seconds after a pull that was refused until the next."""
SHORTEST = 0.1
"""Seconds between two pulls that end with nothing, however short a consumer makes them."""
_FOREVER = 1 << 30


class Source:
    """One worker's way out of JetStream. ``stop`` may be called from a signal handler, all else from one thread."""

    def __init__(
        self,
        settings: NatsConfig,
        config: StreamConfig,
        at: Callable[[str], None] | None = None,
        beat: Callable[[], None] | None = None,
        turn: Turn | None = None,
    ) -> None:
        self._settings = settings
        self._config = config
        self._at = at
        self._beat = beat or (lambda: None)
        self._turn = turn
        self.latest: ConsumerFacts | None = None
        """What the consumer said a few seconds ago, for people; None while that is not known."""
        self.nats_error = ""
        """Why there is no connection, while there is none: what the latest try said."""
        self.acknowledged: deque[float] = deque(maxlen=1000)
        """How many seconds the acks of the latest batches took, until they were confirmed."""
        self._extra = {"stream": config.name}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="jetstream", daemon=True)
        self._nc = Client()
        self._parser = wire.install(self._nc, self._deliver)
        self._inbox = ""
        self._puller: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._sampler: asyncio.Task[None] | None = None
        self._subscription: Any = None
        self._acks: set[asyncio.Task[None]] = set()
        self._facts: StreamFacts | None = None
        self.reader = Reader(self._nc, self._api, config, self._notify)
        self.claims = Claims()
        self.reconnects = 0
        """How often the connection was lost and made again."""
        self._reread_next = False
        self._permissions = Permissions(config)
        self._progress = Progress(config)
        # Shared between the threads. Each is written by one of them only, or atomically under the interpreter lock.
        self._buffer = Buffer(config.writer.batch_messages, config.writer.batch_bytes)
        self._wanted = _FOREVER
        self._arrived = threading.Event()
        self._stopping = False
        self._holding = False
        self._failure: EventWriterError | None = None
        self._hand: deque[Sequence[bytes]] = deque()
        """The receipts of each batch that is taken and not written."""
        # Loop thread only.
        self._credit = 0
        self._pull = 0
        self._bytes = 0
        self._pulled = 0
        self._pulled_at = 0.0
        self._pull_after = 0.0
        self._limits: Limits | None = None
        self._accepted: tuple[str, ...] = ()
        self._heard = False
        self._unlimited = False
        self._backlog = False
        self._stuck = False
        self._wake: asyncio.Event | None = None
        self._interrupted = False
        self._pull_ended = monotonic()
        # Main thread only (the loop thread reads the newest).
        self._sequencer = Sequencer(self._verify_stream)
        self._ack_all: AckAll | None = None
        self._newest = (0, 0)

    # --- start and end, called by the main thread ----------------------------------------------------------------

    def open(self) -> StreamFacts:
        """Connects and reads the stream's facts; raises the error that tells why reading cannot begin."""
        self._thread.start()
        self._facts = self._call(self._open(), CONNECT_TIMEOUT * 3)
        return self._facts

    def bind(self, start: int) -> ConsumerFacts:
        """Binds or creates the consumer (a new one begins at sequence ``start``)."""
        facts = self._call(consumer.ensure_consumer(self._api, self._config, start), CONNECT_TIMEOUT * 2)
        self._limits, self._accepted = facts.limits, facts.incomplete
        if self._config.writer.ack == "all":
            patience = 3 * self._config.writer.ack_wait
            self._ack_all = AckAll(self._config.durable, facts.ack_pending, facts.delivered, patience)
        return facts

    def stream(self) -> StreamFacts:
        """What JetStream says of the stream now."""
        return self._call(consumer.read_stream(self._api, self._config), CONNECT_TIMEOUT)

    def held(self, segments: Sequence[Segment]) -> Future[list[Segment]]:
        """What the stream still holds of them, as ``gaps.held`` tells; it may take seconds."""
        return self._begin(gaps.held(self._api, self._config, segments))

    def reread(self, segments: Sequence[Segment]) -> Future[None]:
        """Lets ``take`` return what the stream holds of them, beside what arrives; done when all of it is read."""
        return self._begin(self.reader.read(segments))

    def facts(self) -> ConsumerFacts | None:
        """What the consumer says now; None if it is gone."""
        return self._call(consumer.read_consumer(self._api, self._config), CONNECT_TIMEOUT)

    def check_create(self) -> None:
        """Raises ForbiddenError if NATS lets us neither create our consumer nor change it; does nothing else."""
        subject = f"$JS.API.CONSUMER.DURABLE.CREATE.{self._config.stream}.{self._config.durable}"
        self._call(self._ask(subject, b"{}"), CONNECT_TIMEOUT)

    def start(self) -> None:
        """Begins to pull."""
        self._call(self._start(), CONNECT_TIMEOUT)

    def stop(self) -> None:
        """Asks ``take`` to end. Safe in a signal handler."""
        self._stopping = True
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return bool(self._nc.is_connected)

    @property
    def trouble(self) -> str:
        """What keeps messages or acks from flowing although there is a connection; empty if nothing does."""
        return self._permissions.trouble or self._progress.trouble

    @property
    def standby(self) -> bool:
        """Whether it is another process's turn to pull."""
        return self._turn is not None and not self._turn.mine and self._credit <= 0

    def close(self, timeout: float) -> bool:
        """Waits for outstanding acks, releases what was not written, and disconnects; False past ``timeout`` s."""
        if not self._thread.is_alive():
            return True
        clean = True
        try:
            self._call(self._close(timeout), timeout + 1.0)
        except Exception as error:  # noqa: BLE001 - a client that is only half connected raises anything when it is closed
            log.warning("closing the connection to NATS: %s", error or type(error).__name__, extra=self._extra)
            clean = False
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2.0)
        if not self._thread.is_alive():
            self._loop.close()
        return clean

    # --- the loop of the main thread ---------------------------------------------------------------------------

    def take(self) -> Batch | None:
        """The messages that have arrived, at least one; None when it is time to end.

        A full batch is returned at once, a smaller one ``linger`` seconds after the arrival of its first message. With
        a backlog nobody waits for that message, so half a batch may take longer to come.
        """
        writer = self._config.writer
        self._holding = False
        while not self._stopping:
            if self._failure is not None:
                raise self._failure
            if (batch := self._reread()) is not None:
                return batch
            if not self._buffer.empty:
                backlog = self._buffer.pending >= writer.batch_messages
                enough = writer.batch_messages // 2 if backlog else writer.batch_messages
                patience = max(writer.linger, CATCHING_UP) if backlog else writer.linger
                rest = self._buffer.first_at + patience - monotonic()
                if rest <= 0 or len(self._buffer) >= enough or self._buffer.full:
                    batch = self._collect()
                    if batch is not None:
                        return batch
                else:
                    self._wait(enough, rest)
            else:
                self._wait(1, 1.0)
        return None

    def more(self) -> Batch | None:
        """The next batch if it is full already: a smaller one shall grow. Never raises: ``take`` does it then."""
        if self._stopping or self._failure is not None:
            return None
        if (batch := self._reread()) is not None:
            return batch
        if self._buffer.gap or not self._buffer.full:
            return None
        try:
            return self._collect()
        except EventWriterError as error:
            self._fail(error)
            return None

    def acknowledge(self, batch: Batch) -> None:
        """Acknowledges the first batch that is taken and not acknowledged, without waiting for the confirmation."""
        self._hand.popleft()
        receipts = batch.receipts
        if batch.reread:
            self.reader.committed()
            return
        if self._ack_all is not None:
            if not self._ack_all.committed(message.sequence for message in batch.messages):
                return  # they come again, are known, and are acknowledged then
            receipts = [receipts[-1].rpartition(b"\n")[2]]
        self._loop.call_soon_threadsafe(self._spawn_ack, receipts)

    def hold(self, seconds: float) -> bool:
        """Waits during an outage: no more pulls, deadlines extended; False when it is time to end.

        Raises what ended the connection to NATS for good meanwhile.
        """
        self._holding = True
        deadline = monotonic() + seconds
        while not self._stopping and self._failure is None and (rest := deadline - monotonic()) > 0:
            self._wait(_FOREVER, min(rest, 1.0))
        if self._failure is not None:
            raise self._failure
        return not self._stopping

    def _wait(self, wanted: int, timeout: float) -> None:
        self._beat()
        self._arrived.clear()
        self._wanted = wanted
        # Checked after announcing what is wanted: what arrived in between would otherwise not wake us.
        there = len(self._buffer) >= wanted or (wanted < _FOREVER and self.reader.waiting)
        if not self._stopping and self._failure is None and not there:
            self._arrived.wait(timeout)
        self._wanted = _FOREVER

    def _reread(self) -> Batch | None:
        """What is read again and what arrives take turns."""
        self._reread_next = not self._reread_next or self._buffer.empty
        if not self._reread_next or not self.reader.waiting:
            return None
        batch = self.reader.take()
        if batch is not None:
            self._hand.append(batch.receipts)
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
        newest = batch.messages[-1]
        if newest.sequence > self._newest[0]:
            self._newest = (newest.sequence, newest.time)
        self._hand.append(batch.receipts)
        self.claims.add(batch)
        if any(portion.hollow for portion in found):
            self._verify_payloads(batch)
        if self._wake is not None and self._credit <= 0:
            self._loop.call_soon_threadsafe(self._wake.set)
        return batch

    def _verify_stream(self) -> None:
        # The consumer counts from the beginning again: it, or the whole stream, was created anew, or the server lost
        # its latest state.
        error = self._call(self._changed(), CONNECT_TIMEOUT)
        if error is not None:
            raise error

    def _verify_payloads(self, batch: Batch) -> None:
        # headers_only, set while we run? Or empty messages that were published so.
        sequence = self._call(consumer.stripped(self._api, self._config, batch.messages), CONNECT_TIMEOUT * 3)
        if sequence is not None:
            raise UnavailableError(
                f"consumer {self._config.durable} of stream {self._config.stream} delivered message {sequence} without "
                "its payload (headers_only): starting again, which puts it right"
            )

    def _call(self, coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
        future = self._begin(coroutine)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise UnavailableError("NATS does not answer") from None

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        async def translated() -> T:
            try:
                return await coroutine
            except nats.errors.Error as error:
                raise UnavailableError(f"NATS: {error or type(error).__name__}") from error

        return asyncio.run_coroutine_threadsafe(translated(), self._loop)

    # --- the loop thread ---------------------------------------------------------------------------------------

    async def _open(self) -> StreamFacts:
        name = f"eventwriter {self._config.name}"
        await asyncio.wait_for(connect(self._nc, self._settings, name, self), CONNECT_TIMEOUT)
        await self._probe()
        if not self._permissions.complete:
            raise ForbiddenError(self._permissions.trouble)
        return await consumer.read_stream(self._api, self._config)

    async def _api(self, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer = await self._ask(f"$JS.API.{subject}", consumer.encode(body))
        except nats.errors.NoRespondersError:
            raise UnavailableError("NATS has no JetStream for this account: enable it in the server") from None
        except nats.errors.TimeoutError:
            raise UnavailableError(f"JetStream does not answer {subject.partition('.')[0].lower()} requests") from None
        parsed: dict[str, Any] = json.loads(answer.data)
        return parsed

    async def _ask(self, subject: str, body: bytes) -> Msg:
        return await self._permissions.asked(subject, self._nc.request(subject, body, timeout=ANSWER_TIMEOUT))

    async def _probe(self) -> None:
        await self._permissions.probe(self._nc.publish, self._ask)

    async def _changed(self) -> EventWriterError | None:
        """The error that says why what this consumer delivers from now on would not fit our ledger, if that is so."""
        # Before the stream is asked: while it answers more may come, of an earlier pull, which it does not know yet.
        sequence, time = self._newest
        facts = await consumer.read_stream(self._api, self._config)
        if self._facts is None or facts.created != self._facts.created:
            return UnavailableError(f"stream {self._config.stream} was created anew: starting again with a new ledger")
        if sequence and not await consumer.has(self._api, self._config, facts, sequence, time):
            return consumer.restored(self._config, facts.last_sequence, sequence)
        found = await consumer.read_consumer(self._api, self._config)
        return self._gone() if found is None else self._edited(found)

    def _edited(self, facts: ConsumerFacts) -> EventWriterError | None:
        """Follows what somebody changed in the consumer; the error to end with if only binding anew helps."""
        self._limits = facts.limits
        if facts.refusal:
            return ConfigurationError(facts.refusal)
        if changed := [name for name in facts.incomplete if name not in self._accepted]:
            return ConsumerEditedError(
                f"consumer {self._config.durable} of stream {self._config.stream} was changed ({', '.join(changed)}): "
                "starting again, which puts it right"
            )
        return None

    async def _start(self) -> None:
        self._wake = asyncio.Event()
        self._inbox = self._nc.new_inbox()
        self._subscription = await self._nc.subscribe(f"{self._inbox}.*", cb=self._on_message)
        self._parser.sid = str(self._subscription._id).encode()
        self._puller = asyncio.create_task(self._guarded(self._keep_pulling()))
        self._keeper = asyncio.create_task(self._guarded(self._keep_held()))
        self._sampler = asyncio.create_task(self._guarded(self._sample()))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except EventWriterError as error:
            self._fail(error)
        except Exception as error:  # a dead task would leave the worker waiting for ever
            log.exception("the loop thread failed", extra=self._extra)
            self._fail(UnavailableError(f"the NATS client failed: {type(error).__name__}: {error}"))

    def _fail(self, error: EventWriterError) -> None:
        if self._failure is None:
            self._failure = error
        self._notify()

    def _notify(self) -> None:
        self._arrived.set()

    def _deliver(self, deliveries: list[Delivery], size: int) -> None:
        try:
            portion = read(deliveries, size)
        except Exception as error:  # raised here it would only be the client's error: to be lost with what it is about
            log.exception("deliveries that cannot be read", extra=self._extra)
            self._fail(UnavailableError(f"JetStream delivers what cannot be read: {type(error).__name__}: {error}"))
            return
        self._buffer.put(portion)
        self._heard = True
        self._progress.accepted()
        self._backlog = portion.pending > 0
        self._credit -= len(deliveries)
        self._bytes -= portion.cost
        if self._bytes <= 0:
            self._credit = 0  # a pull whose bytes are used up exactly ends without a word
        if self._credit <= 0 and self._wake is not None:
            self._pull_ended = monotonic()
            self._wake.set()
        if len(self._buffer) >= self._wanted or (
            self._wanted < _FOREVER and self._buffer.size >= self._config.writer.batch_bytes
        ):
            self._wanted = _FOREVER
            self._arrived.set()

    async def _on_message(self, msg: Msg) -> None:
        """What the parser leaves to the client: the end of a pull, and heartbeats."""
        if msg.reply:
            self._deliver([wire.from_message(msg.subject, msg.data, msg.reply, msg.headers)], len(msg.data))
        else:
            self._on_status(msg)

    def _on_status(self, msg: Msg) -> None:
        headers = msg.headers or {}
        status, text = headers.get("Status", ""), headers.get("Description", "")
        self._heard = True
        if status in ("100", "408"):
            self._progress.accepted()
        if status == "100" or msg.subject != f"{self._inbox}.{self._pull}":
            return  # a heartbeat, or the end of a pull that we gave up
        if status == "400":
            self._fail(UnavailableError(f"JetStream refuses our pull request: {text}"))
        elif status == "409" and "Exceeded MaxRequest" in text:
            self._limits = None  # somebody changed what a pull may ask for
        elif status == "409" and "MaxBytes" in text:
            # Nothing fits: the next message alone is larger than what was asked for.
            self._unlimited = self._credit == self._pulled
        elif status == "409" and "Consumer Deleted" in text:
            self._fail(self._gone())
        elif status == "409" and "push" in text:
            self._fail(ConfigurationError(durable.push(self._config)))
        elif status == "408":
            self._pull_after = self._pulled_at + SHORTEST
        elif status != "404" and "Batch Completed" not in text:
            # 503: no leader, no JetStream, or no such consumer. Others: leadership change, too many waiting pulls.
            self._pull_after = monotonic() + REFUSED
            self._interrupted = True
            if self._progress.refused(f"{status} {text}"):
                log.info("pull ended: %s %s", status, text, extra=self._extra)
        self._credit = 0
        self._pull_ended = monotonic()
        if self._wake is not None:
            self._wake.set()

    def _gone(self) -> EventWriterError:
        return UnavailableError(
            f"consumer {self._config.durable} of stream {self._config.stream} was deleted: "
            "starting again from what the ledger knows"
        )

    def _eager(self) -> bool:
        """Whether there is room for messages, and they can come."""
        writer = self._config.writer
        return (
            self._nc.is_connected
            and not self._holding
            and not self._stopping
            and 2 * writer.batch_messages - len(self._buffer) >= writer.batch_messages // 2
            and 2 * writer.batch_bytes - self._buffer.size >= writer.batch_bytes // 2
        )

    async def _keep_pulling(self) -> None:
        wake = self._wake
        assert wake is not None
        silences = 0
        while True:
            wake.clear()
            if (rest := self._pull_after - monotonic()) > 0:
                await asyncio.sleep(rest)
            wanted = self._credit <= 0 and self._eager() and self._permissions.may_pull
            if self._turn is not None:
                wanted = self._has_turn(self._turn, wake, wanted)
            if wanted:
                if not await self._resume():
                    continue
                await self._request()
            self._heard = False
            try:
                await asyncio.wait_for(wake.wait(), 2 * HEARTBEAT)
                silences = 0
            except TimeoutError:
                if self._credit > 0 and not self._heard and self._nc.is_connected:
                    silences += 1
                    self._credit = 0  # lost: pull again
                    self._interrupted = True
                    if silences >= SILENCES:
                        raise UnavailableError("NATS is silent although connected: starting again") from None

    def _has_turn(self, turn: Turn, wake: asyncio.Event, wanted: bool) -> bool:
        """Whether to pull now, if that is wanted. With a backlog, or else, the others have their turn."""
        if self._credit <= 0 and (self._backlog or not wanted):
            self._backlog = False
            turn.give()
        if wanted:
            turn.ask(lambda: self._loop.call_soon_threadsafe(wake.set))
        # A process that stopped in its turn does not give it; then all pull, as if there were no turns.
        return wanted and (turn.mine or self._stuck)

    async def _resume(self) -> bool:
        """Before the first pull after an interruption: is all as it was? False if that cannot be told now.

        What a pull delivers belongs to the consumer of that moment, for when a consumer is deleted its pulls end.
        """
        if not self._interrupted and self._limits is not None and monotonic() - self._pull_ended < IDLE:
            return True
        try:
            error = await self._changed()
        except (UnavailableError, nats.errors.Error) as unknown:
            news = self._progress.refused(str(unknown) or type(unknown).__name__)
            if news and not isinstance(unknown, ForbiddenError):  # of which is told already
                log.warning("not pulling yet: %s", unknown or type(unknown).__name__, extra=self._extra)
            await asyncio.sleep(0.5)
            return False
        if error is not None:
            raise error
        self._buffer.mark(Gap.LOST if self._interrupted else Gap.PAUSE)
        self._interrupted = False
        self._pull_ended = monotonic()
        return True

    async def _request(self) -> None:
        writer, limits = self._config.writer, self._limits or Limits()
        room, size = 2 * writer.batch_messages - len(self._buffer), 2 * writer.batch_bytes - self._buffer.size
        if self._turn is not None:  # the next piece is the next process's
            room, size = min(room, writer.batch_messages), min(size, writer.batch_bytes)
        body = limits.request(1, 0) if self._unlimited else limits.request(room, size)
        self._pull += 1
        self._credit = self._pulled = body["batch"]
        self._bytes = body.get("max_bytes", _FOREVER)
        self._pulled_at = monotonic()
        self._unlimited = False
        await self._nc.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._config.stream}.{self._config.durable}",
            json.dumps(body).encode(),
            reply=f"{self._inbox}.{self._pull}",
        )
        if self._at:
            self._at("after_pull")

    async def _sample(self) -> None:
        """Looks at the consumer every few seconds: how far behind it is, for people, and what somebody changed."""
        while True:
            facts, silent = None, ""
            try:
                if self._nc.is_connected:
                    if not self._permissions.complete:
                        await self._ask_again()
                    facts = await consumer.read_consumer(self._api, self._config)
            except (UnavailableError, nats.errors.Error) as error:
                silent = str(error) or type(error).__name__
            if facts is not None and (edited := self._edited(facts)) is not None:
                raise edited
            if facts is not None:
                self.claims.seen()
            eager = self._eager() and not self.standby
            self._progress.look(facts, monotonic(), connected=self._nc.is_connected, eager=eager, silent=silent)
            self._stuck = _stands_still(self.latest, facts)
            self.latest = facts
            if self._stuck and self.standby and self._wake is not None:
                self._wake.set()
            await asyncio.sleep(SAMPLE if facts is not None else 1.0)

    async def _ask_again(self) -> None:
        """For what was refused. What we subscribed to before it was allowed stays dead: only a new connection helps."""
        if not self._permissions.may_receive:
            await self._nc.force_reconnect()
            while not self._nc.is_connected:
                await asyncio.sleep(0.1)
        await self._probe()
        if self._permissions.may_pull and self._wake is not None:
            self._wake.set()

    async def _keep_held(self) -> None:
        """Extends the deadline of messages that wait longer than a third of it, such as during an outage."""
        period = self._config.writer.ack_wait / 3
        earlier = 0
        while True:
            received = self._buffer.received
            await asyncio.sleep(period)
            # What had been received one period ago and is still here.
            old = earlier - self._buffer.taken
            hand, waiting = b"\n".join(chain(*tuple(self._hand))), self._buffer.receipts()
            earlier = received
            if not self._may_acknowledge():
                continue
            if hand and old + hand.count(b"\n") + 1 > 0:
                await wire.acknowledge(self._nc, hand, b"+WPI")
            late = b"\n".join(waiting).split(b"\n")[: max(0, old)]
            await wire.acknowledge(self._nc, b"\n".join(late), b"+WPI")

    def _may_acknowledge(self) -> bool:
        return self._nc.is_connected and self._permissions.may_acknowledge

    def _spawn_ack(self, receipts: Sequence[bytes]) -> None:
        task = self._loop.create_task(self._guarded(self._acknowledge(receipts)))
        self._acks.add(task)
        task.add_done_callback(self._acks.discard)

    async def _acknowledge(self, receipts: Sequence[bytes]) -> None:
        """Acks follow the same buffered path in order, so the confirmation of the last covers all before it.

        A server with much to do may be late with that: only the last is sent again, unless the connection was lost.
        """
        begun = monotonic()
        earlier, _, last = b"\n".join(receipts).rpartition(b"\n")
        sent_on: int | None = None
        tries = 3
        while tries:
            while not self._may_acknowledge():
                await asyncio.sleep(0.1)
            connection = self._nc.stats["reconnects"]
            try:
                self._progress.sent(monotonic())
                if connection != sent_on:
                    rest = earlier
                    if self._at:
                        lines = earlier.split(b"\n")
                        half = len(lines) // 2
                        await wire.acknowledge(self._nc, b"\n".join(lines[:half]))
                        await self._nc.flush()
                        self._at("in_acks")
                        rest = b"\n".join(lines[half:])
                    await wire.acknowledge(self._nc, rest)
                    sent_on = connection
                await self._ask(last.decode(), b"")
            except ForbiddenError:
                sent_on = None  # all of them, once we may
            except (nats.errors.TimeoutError, nats.errors.NoRespondersError, nats.errors.OutboundBufferLimitError):
                tries -= 1
                await asyncio.sleep(0.2)
            else:
                self._progress.confirmed()
                self.acknowledged.append(monotonic() - begun)
                if self._at:
                    self._at("after_acks")
                return
        log.warning(
            "%d acks were not confirmed: these messages will be delivered again, and known",
            earlier.count(b"\n") + 2 if earlier else 1,
            extra=self._extra,
        )

    async def _close(self, timeout: float) -> None:
        deadline = monotonic() + timeout
        self._stopping = True
        for task in (self._puller, self._keeper, self._sampler):
            if task is not None:
                task.cancel()
        if self._turn is not None:
            self._turn.leave()
        if self._nc.is_connected and self._subscription is not None and not self._failure:
            # The server stops sending before it answers, so nothing is on its way afterwards.
            await asyncio.wait_for(self._subscription.drain(), max(0.1, deadline - monotonic()))
        while self._acks and self._may_acknowledge() and monotonic() < deadline:
            await asyncio.wait(self._acks, timeout=0.2)
        unfinished = bool(self._acks)
        for ack in list(self._acks):
            ack.cancel()
        earlier, _, last = b"\n".join([*chain(*self._hand), *self._buffer.receipts()]).rpartition(b"\n")
        if last and self._may_acknowledge():
            if self._at:
                self._at("in_drain")
            await wire.acknowledge(self._nc, earlier, b"-NAK")
            await self._nc.request(last.decode(), b"-NAK", timeout=ANSWER_TIMEOUT)
        if not self._nc.is_closed:
            await asyncio.wait_for(self._nc.close(), 2.0)
        if unfinished:
            raise UnavailableError("some acks were not confirmed: these messages will be delivered again, and known")

    # --- what the client reports --------------------------------------------------------------------------------

    async def on_disconnected(self) -> None:
        """The connection is lost: the pull with it, and the certainty that what follows continues."""
        self._credit = 0
        self._buffer.mark(Gap.LOST)
        if self._wake is not None:
            self._wake.set()
        if self._puller is not None and not self._stopping:
            log.warning("disconnected from NATS: reconnecting", extra=self._extra)

    async def on_reconnected(self) -> None:
        """There is a connection again: pull."""
        self.nats_error = ""
        self._credit = 0
        self._interrupted = True
        self.reconnects += 1
        self._buffer.mark(Gap.LOST)
        log.info("reconnected to NATS", extra=self._extra)
        if self._wake is not None:
            self._wake.set()

    async def on_closed(self) -> None:
        """The client gives up for good, whatever the reconnect settings say (expired credentials, for one)."""
        if not self._stopping:
            self._fail(UnavailableError("the connection to NATS was closed for good: starting again"))

    async def on_error(self, error: Exception) -> None:
        """Something went wrong that the client goes on from; the log has why there is no connection once a cause."""
        text = masking.text(str(error)) or type(error).__name__
        if self._permissions.note(text):
            if not self._permissions.may_pull:
                self._credit = 0
            return
        if not self._stopping and (self._nc.is_connected or text != self.nats_error):
            log.warning("NATS: %s", text, extra=self._extra)
        self.nats_error = text


def _stands_still(before: ConsumerFacts | None, now: ConsumerFacts | None) -> bool:
    """Whether between two looks nothing was done, though there was something to do."""
    if before is None or now is None or before.ack_floor != now.ack_floor:
        return False
    return 0 < before.pending + before.ack_pending <= now.pending + now.ack_pending
