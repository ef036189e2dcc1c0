"""What a consumer allows a pull to ask for, and pulls that keep to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eventwriter.config.units import format_duration

HEARTBEAT = 5.0
"""Seconds between the server's idle heartbeats; silence for two of them means that the pull is lost."""
EXPIRES = 30.0
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one pull; 0: none."""

    messages: int = 0
    expires: int = 0
    """Nanoseconds."""
    size: int = 0
    """Bytes; a pull that asks for messages only is not held to it."""

    @classmethod
    def of(cls, current: Mapping[str, Any]) -> Limits:
        """Those in a consumer's configuration."""
        return cls(*(max(0, int(current.get(key, 0))) for key in ("max_batch", "max_expires", "max_bytes")))

    def request(self, messages: int, size: int) -> dict[str, int]:
        """The body of a pull for at most so many messages and bytes (0: whatever they have), or what is allowed."""
        expires = min(int(EXPIRES * _NANO), self.expires or int(EXPIRES * _NANO))
        body = {"batch": min(messages, self.messages or messages), "expires": expires}
        heartbeat = int(HEARTBEAT * _NANO)
        if expires >= 2 * heartbeat:  # the server refuses less; and a pull that ends so soon is a sign of life itself
            body["idle_heartbeat"] = heartbeat
        if size:
            body["max_bytes"] = min(size, self.size or size)
        return body

    def __str__(self) -> str:
        """For people; empty if there are none."""
        found = []
        if self.messages:
            found.append(f"max_batch {self.messages}")
        if self.expires:
            found.append(f"max_expires {format_duration(self.expires / _NANO)}")
        if self.size:
            found.append(f"max_bytes {self.size}")
        return ", ".join(found)
