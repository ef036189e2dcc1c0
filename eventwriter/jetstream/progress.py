"""Whether messages and acknowledgements flow while there is a connection, and what is in their way if not."""

from __future__ import annotations

import logging

from eventwriter.config.loading import StreamConfig
from eventwriter.jetstream.consumer import ConsumerInfo

log = logging.getLogger("eventwriter.source")

STALLED = 6.0
"""Seconds without an answer, a delivery or a confirmed ack after which that is said; looked at every few seconds, it is
said within ten. An election of a leader may take as long, and is worth saying too."""


class Progress:
    """Follows one worker's consumer. Of the loop thread, but ``trouble`` may be read by any."""

    def __init__(self, config: StreamConfig) -> None:
        self._config = config
        self._extra = {"stream": config.name}
        self._name = f"consumer {config.durable} of stream {config.stream}"
        self._refusal = ""
        self._deliveries = -1
        self._answered: float | None = None
        self._delivered = 0.0
        self._unconfirmed: float | None = None
        self.trouble = ""
        """What is in the way; empty if nothing is."""

    def refused(self, why: str) -> bool:
        """A pull was not taken, or could not be sent; whether the reason is another than before."""
        news = why != self._refusal
        self._refusal = why
        return news

    def accepted(self) -> None:
        """A pull was taken."""
        self._refusal = ""

    def sent(self, now: float) -> None:
        """Acks were sent."""
        if self._unconfirmed is None:
            self._unconfirmed = now

    def confirmed(self) -> None:
        """Acks were confirmed: there is a way for them."""
        self._unconfirmed = None

    def look(self, info: ConsumerInfo | None, now: float, *, connected: bool, eager: bool, silent: str = "") -> None:
        """Decides from what the consumer says every few seconds, or else why it is ``silent``, what ``trouble`` is.

        ``eager``: messages would be taken now.
        """
        if not connected or self._answered is None:
            self._answered = now
            self._unconfirmed = None
        if info is not None or not silent:
            self._answered = now
        if info is None or not info.pending or not eager or info.deliveries != self._deliveries:
            self._delivered = now  # or there was nothing to deliver
        if info is not None:
            self._deliveries = info.deliveries
            if not info.ack_pending:
                self._unconfirmed = None
        before, self.trouble = self.trouble, self._cause(info, now, silent)
        if self.trouble != before:
            if self.trouble:
                log.warning("%s", self.trouble, extra=self._extra)
            else:
                log.info("%s works again", self._name, extra=self._extra)

    def _cause(self, info: ConsumerInfo | None, now: float, silent: str) -> str:
        if info is not None and info.paused:
            remedy = f"nats consumer resume {self._config.stream} {self._config.durable}"
            return f"{self._name} is paused until {info.paused}, so nothing is delivered: resume it ({remedy})"
        if self._answered is not None and now - self._answered > STALLED:
            return f"JetStream does not tell about {self._name}: {silent}"
        if info is not None and now - self._delivered > STALLED:
            return f"messages wait, and {self._name} delivers none: {self._why(info)}"
        if self._unconfirmed is not None and now - self._unconfirmed > STALLED:
            return f"{self._name} does not confirm acks: what is written is delivered again, and known"
        return ""

    def _why(self, info: ConsumerInfo) -> str:
        if self._refusal:
            return f"JetStream refuses our pulls ({self._refusal})"
        if 0 < info.max_ack_pending <= info.ack_pending:
            return f"as many as its max_ack_pending ({info.max_ack_pending}) are not acknowledged"
        return "look at it with nats consumer info"
