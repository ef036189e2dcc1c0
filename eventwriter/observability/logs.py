"""Log lines: readable on a terminal, JSON elsewhere; no payloads and no secrets in either."""

from __future__ import annotations

import io
import json
import logging
import sys
from datetime import UTC, datetime
from typing import IO

from eventwriter import masking, terminal
from eventwriter.config.model import LogConfig
from eventwriter.observability.lines import Lines


def configure(settings: LogConfig = LogConfig(), stream: IO[str] | None = None) -> None:  # noqa: B008 - frozen
    """Sends the log to standard error, one line an event; may be called again with other settings."""
    target = stream or sys.stderr
    readable = settings.format == "text" or (settings.format == "auto" and target.isatty())
    handler = _handler(target)
    handler.setFormatter(Readable() if readable else Json())
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # It warns of every connection that fails, in libpq's words; we tell each cause once, and without what it may quote.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    # It warns of each connection with TLS that ends, in words about itself.
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def _handler(target: IO[str]) -> logging.Handler:
    """Writes to the file behind it, if there is one: what only looks like a file never blocks."""
    try:
        target.flush()
        return Lines(target.fileno())
    except (io.UnsupportedOperation, OSError):
        return logging.StreamHandler(target)


class Readable(logging.Formatter):
    """``10:30:00.123 LOGS      message``"""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows on lines of its own."""
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        line = f"{time} {getattr(record, 'stream', '-'):<13}{level}{terminal.one_line(record.getMessage())}"
        text = f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
        return terminal.lines(masking.text(text))


class Json(logging.Formatter):
    """One JSON object a line: time, level, logger, stream, pid, message, and the traceback of a bug."""

    def format(self, record: logging.LogRecord) -> str:
        """The object's text."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if hasattr(record, "stream"):
            fields["stream"] = record.stream
        fields |= {"pid": record.process, "message": masking.text(record.getMessage())}
        if record.exc_info:
            fields["exception"] = masking.text(self.formatException(record.exc_info))
        return terminal.readable(json.dumps(fields, ensure_ascii=False))
