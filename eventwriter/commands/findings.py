"""What commands found when they looked at something, for a terminal or a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from eventwriter.commands import options
from eventwriter.config.loading import Config, StreamConfig
from eventwriter.errors import OK
from eventwriter.stream import Stream


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    """A stream, ``nats`` or ``postgres``."""
    text: str
    exit_code: int = OK
    """What a process that meets this ends with."""
    warning: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.exit_code == OK

    @property
    def mark(self) -> str:
        """How a terminal shows it."""
        return "✗" if not self.ok else "!" if self.warning else "✓"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"subject": self.subject, "ok": self.ok, "warning": self.warning, "text": self.text}


def shown(findings: Sequence[Finding], *, as_json: bool) -> str:
    """The findings for a terminal, one a line, or for a program."""
    if as_json:
        return json.dumps({"ok": all(found.ok for found in findings), "findings": [f.as_dict() for f in findings]})
    return "\n".join(f"{found.mark} {found.subject:<14}{found.text}" for found in findings)


def end_with(findings: Sequence[Finding], *, as_json: bool) -> NoReturn:
    """Prints them, and ends the process as they say."""
    options.say(shown(findings, as_json=as_json))
    sys.exit(exit_code(findings))


def exit_code(findings: Sequence[Finding]) -> int:
    """What a command that found this ends with."""
    return max((found.exit_code for found in findings), default=OK)


def tables(settings: Config, declared: Mapping[str, Stream]) -> Iterator[tuple[StreamConfig, Stream]]:
    """Each enabled stream, as configured and as declared."""
    for name, stream in settings.streams.items():
        if stream.enabled:
            yield stream, declared[name]
