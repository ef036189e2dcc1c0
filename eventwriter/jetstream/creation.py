"""JetStream streams that are missing: what they would be like, and how they come to be. None that exists is touched."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eventwriter.config import subjects, units
from eventwriter.config.loading import NatsConfig, StreamConfig
from eventwriter.errors import ConfigurationError, EventWriterError, listed
from eventwriter.jetstream.api import STREAM_NOT_FOUND, Api, error_code, failed

WEEK = 7 * 86_400.0
_NANO = 1_000_000_000
_OTHER_SETTINGS = 10058
_SUBJECTS_TAKEN = 10065


@dataclass(frozen=True, slots=True)
class Wanted:
    """A stream that is missing, as it would be created."""

    name: str
    subjects: tuple[str, ...]
    max_age: float = WEEK
    """Seconds: what nobody has read until then is lost, and what is older is not needed any more."""
    max_bytes: int = -1
    """-1: as much as the server allows, which then refuses what is published instead of dropping what nobody read."""
    replicas: int = 1

    @property
    def config(self) -> dict[str, Any]:
        """For JetStream's API."""
        return {
            "name": self.name,
            "subjects": list(self.subjects),
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_age": int(self.max_age * _NANO),
            "max_bytes": self.max_bytes,
            "num_replicas": self.replicas,
        }

    def command(self, settings: NatsConfig | None = None) -> str:
        """How the same is done with NATS's own command line."""
        where = settings or NatsConfig()
        flags = {"js-domain": where.domain, "js-api-prefix": where.api_prefix}
        if where.inbox_prefix != NatsConfig().inbox_prefix:
            flags["inbox-prefix"] = where.inbox_prefix
        words = ["nats", *(f"--{flag}={shlex.quote(value)}" for flag, value in flags.items() if value)]
        words += ["stream add", shlex.quote(self.name), f"--subjects={shlex.quote(','.join(self.subjects))}"]
        words += ["--storage=file --retention=limits --discard=old"]
        words += [f"--max-age={units.format_duration(self.max_age)}"]
        words += [f"--max-bytes={self.max_bytes}"] if self.max_bytes > 0 else []
        return " ".join([*words, f"--replicas={self.replicas} --defaults"])


def wanted(streams: Iterable[StreamConfig]) -> list[Wanted]:
    """The JetStream streams that these need, each with the subjects of all that share it."""
    patterns: dict[str, list[str]] = {}
    for stream in streams:
        patterns.setdefault(stream.stream, []).extend(stream.subjects)
    return [Wanted(name, subjects.apart(given)) for name, given in patterns.items()]


def remedy(stream: StreamConfig, streams: Sequence[StreamConfig] = (), settings: NatsConfig | None = None) -> str:
    """What to do about a stream that is missing; ``streams`` are all that there are, if that is known."""
    sharing = [each for each in streams if each.stream == stream.stream] or [stream]
    command = wanted(sharing)[0].command(settings)
    keys = listed([f"streams.{each.name}.stream" for each in sharing])
    return (
        f"`eventwriter streams create --stream {sharing[0].name}` creates it, as does `{command}`; "
        f"or set {keys} to its name, or nats.domain to the JetStream domain that it is in"
    )


async def missing(api: Api, name: str) -> bool:
    """Whether there is no such stream."""
    answer = await api.request(f"STREAM.INFO.{name}", {})
    if "error" in answer and error_code(answer) != STREAM_NOT_FOUND:
        raise failed(answer, f"stream {name}")
    return "error" in answer


async def create(api: Api, stream: Wanted) -> bool:
    """Creates a stream that was missing; False if it exists by now. Raises ConfigurationError with the remedy."""
    answer = await api.request(f"STREAM.CREATE.{stream.name}", stream.config)
    if error_code(answer) == _OTHER_SETTINGS:
        return False
    if error_code(answer) == _SUBJECTS_TAKEN:
        raise ConfigurationError(
            f"stream {stream.name} cannot be created: its subjects, {', '.join(stream.subjects)}, are those of "
            f"{await _takers(api, stream.subjects)}: streams.….stream says in which stream the messages are"
        )
    if "error" in answer:
        raise failed(answer, f"stream {stream.name} cannot be created")
    return True


async def _takers(api: Api, patterns: Sequence[str]) -> str:
    """The streams that have these subjects."""
    found: dict[str, None] = {}
    try:
        for pattern in patterns:
            answer = await api.request("STREAM.NAMES", {"subject": pattern})
            found |= dict.fromkeys(answer.get("streams") or ())
    except EventWriterError:  # not permitted, perhaps
        return "another stream"
    return f"stream {', '.join(found)}" if found else "another stream"
