"""Whether messages and acknowledgements flow while there is a connection, and what is in their way if not."""

from __future__ import annotations

import logging

from eventwriter.config.loading import StreamConfig
from eventwriter.jetstream.consumer import ConsumerInfo
from eventwriter.outage import Member, Outage

log = logging.getLogger("eventwriter.source")

STALLED = 6.0
"""Seconds without an answer, a delivery or a confirmed ack after which that is said; looked at every few seconds, it is
said within ten. An election of a leader may take as long, and is worth saying too."""


class Progress:
    """Follows one worker's consumer. Of the loop thread, but ``trouble`` may be read by any."""

    def __init__(self, config: StreamConfig, member: Member | None = None) -> None:
        self._config = config
        own, extra = (config.stream, config.durable), {"stream": config.name}
        self._outage = Outage(log, "messages", extra, member=member, level=logging.WARNING, own=own)
        self._name = f"consumer {config.durable} of stream {config.stream}"
        self._refusal = ""
        self._deliveries = -1
        self._answered: float | None = None
        self._delivered = 0.0
        self._unconfirmed: float | None = None
        self.trouble = ""
        """What is in the way; empty if nothing is."""

    def refused(self, why: str, told: str = "") -> None:
        """A pull was not taken, or could not be sent; what is to be told of it, unless that is told elsewhere."""
        self._refusal = why
        if told:
            self._outage.failed(told)

    def accepted(self) -> None:
        """A pull was taken."""
        self._refusal = ""
        self._flows()

    def sent(self, now: float) -> None:
        """Acks were sent."""
        if self._unconfirmed is None:
            self._unconfirmed = now

    def confirmed(self) -> None:
        """Acks were confirmed: there is a way for them."""
        self._unconfirmed = None

    def look(
        self,
        info: ConsumerInfo | None,
        now: float,
        *,
        connected: bool,
        eager: bool,
        silent: str = "",
        full: bool = False,
    ) -> None:
        """Decides from what the consumer says every few seconds, or else why it is ``silent``, what ``trouble`` is.

        ``eager``: messages would be taken now. ``full``: none until the consumer can be asked.
        """
        if not connected or self._answered is None:
            self._answered = now
            self._unconfirmed = None
        if info is not None or not silent:
            self._answered = now
        if info is None or not info.pending or not eager or info.deliveries != self._deliveries:
            self._delivered = now  # or there was nothing to deliver
        if info is not None:
            if 0 <= self._deliveries < info.deliveries:
                self._refusal = ""  # or another worker's was taken
            self._deliveries = info.deliveries
            if not info.ack_pending:
                self._unconfirmed = None
        self.trouble = self._cause(info, now, silent, full)
        if self.trouble:
            self._outage.failed(self.trouble, "looking again")
        elif connected and info is not None:
            self._flows()

    def _flows(self) -> None:
        """Nothing is known to be in the way, unless something is: then its end is told."""
        if not self.trouble and not self._refusal:
            self._outage.over()

    def _cause(self, info: ConsumerInfo | None, now: float, silent: str, full: bool) -> str:
        if info is not None and info.paused:
            remedy = f"nats consumer resume {self._config.stream} {self._config.durable}"
            return f"{self._name} is paused until {info.paused}, so nothing is delivered: resume it ({remedy})"
        if self._answered is not None and now - self._answered > STALLED:
            held = ", and no more is pulled until it does" if full else ""
            return f"JetStream tells nothing of our consumer{held}: {silent}"
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
