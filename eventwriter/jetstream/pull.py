"""The latest pull: what it asked for, and what may still come of it."""

from __future__ import annotations

from collections.abc import Mapping

_UNLIMITED = 1 << 60


class Pull:
    """Of one worker, with times in seconds of one clock. Of the loop thread, but ``idle`` may be read by any."""

    def __init__(self, now: float) -> None:
        self.inbox = ""
        """Subject below which pulls are answered, each under its number."""
        self.began = now
        self.ended = now
        self._number = 0
        self._asked = 0
        self._credit = 0
        """How many of the messages that were asked for may still come."""
        self._bytes = 0
        """The same in bytes, as the server counts them."""

    @property
    def idle(self) -> bool:
        """Whether nothing comes of it any more, so that it is time for the next."""
        return self._credit <= 0

    @property
    def reply(self) -> str:
        """The subject of its answers; a pull that was given up may still be answered under another one."""
        return f"{self.inbox}.{self._number}"

    @property
    def brought_nothing(self) -> bool:
        """Whether no message has come of it."""
        return self._credit == self._asked

    def begin(self, body: Mapping[str, int], now: float) -> None:
        """It is sent, with this body."""
        self._number += 1
        self._credit = self._asked = body["batch"]
        self._bytes = body.get("max_bytes", _UNLIMITED)
        self.began = now

    def brought(self, messages: int, cost: int, now: float) -> bool:
        """So many messages and bytes came; whether that was all."""
        self._credit -= messages
        self._bytes -= cost
        if self._bytes <= 0:
            self._credit = 0  # a pull whose bytes are used up exactly ends without a word
        if self._credit <= 0:
            self.ended = now
        return self._credit <= 0

    def end(self, now: float) -> None:
        """The server ended it."""
        self._credit = 0
        self.ended = now

    def give_up(self) -> None:
        """Nothing more is expected of it."""
        self._credit = 0
